//! A lane: one listening socket of ours, and whose workers get connections by it.

use super::addr::Addr;
use super::event::Snag;
use super::ids::{Ask, LaneId, PortId, Seat, WorkerId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// One listening socket of ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lane {
    /// Serial.
    pub id: LaneId,
    /// The address that it is a way to.
    pub port: PortId,
    /// Whose it is.
    pub of: Of,
    /// Generations that it is for, too: there was nobody ready of its own when they were to come, so
    /// who waits in it waits for them.
    pub heirs: BTreeSet<u32>,
    /// Whoever of its generation comes after this one has another lane there (`bequeath`).
    #[serde(default)]
    pub last_reader: Option<WorkerId>,
    /// Where it is bound.
    pub addr: Addr,
    /// To which interface alone, if to one.
    pub device: Option<String>,
    /// Was it given: by -p, by -l, or by whoever started us?
    pub given: bool,
    /// Is it open? If not: who waits in bind(2) for it.
    pub state: LaneState,
    /// Has a worker listened on it, or was one seen waiting for connections there?
    pub served: bool,
    /// Was it learnt, and has not been listened on by the worker that has its seat now? It may be from
    /// the one before, or from what is left of that.
    pub stale: bool,
    /// Nothing is steered to it, and nothing was left in it when it was looked at after that.
    pub emptied: bool,
    /// Was nothing steered to it since it was opened or last flushed?
    pub flushed: bool,
    /// Why it had to be the worker's own socket, if it is.
    pub snag: Option<Snag>,
}

/// Whose workers serve a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Of {
    /// Those of one generation.
    Generation(u32),
    /// The one that has this seat.
    Seat(Seat),
    /// This one alone: it is its own socket.
    Worker(WorkerId),
    /// All: the port can have no other lane.
    All,
}

/// By which lanes a worker gets its connections: where they are shared by its generation, else by its
/// seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Of which code it is.
    pub generation: u32,
    /// Which lanes of one worker alone it has.
    pub seat: Seat,
}

impl Lane {
    /// Does such a worker get connections by it, without a socket of its own?
    pub fn is_for(&self, reader: Reader) -> bool {
        match self.of {
            Of::Generation(_) | Of::All => self.is_shared_by(reader.generation),
            Of::Seat(seat) => seat == reader.seat,
            Of::Worker(_) => false,
        }
    }

    /// Do all workers of this generation get connections by it?
    pub fn is_shared_by(&self, generation: u32) -> bool {
        match self.of {
            Of::Generation(g) => g == generation || self.heirs.contains(&generation),
            Of::Worker(_) | Of::Seat(_) => false,
            Of::All => true,
        }
    }

    /// Is it one to listen on?
    pub fn is_a_port(&self) -> bool {
        !matches!(self.addr, Addr::Other(_))
    }
}

/// What a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaneState {
    /// Asked of the shell, for this worker's bind(2) if it is learnt.
    Opening(Option<(WorkerId, Ask)>),
    /// Bound.
    Open,
    /// Closed for good: the workers listen there by themselves.
    Closed,
}

/// What a bind(2) asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where. Of a unix socket: the path of our lane, if it leads to the same file.
    pub addr: Addr,
    /// On which interface alone, if on one.
    pub device: Option<String>,
}
