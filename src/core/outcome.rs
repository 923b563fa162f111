//! How what a client asked for has ended. Each request that takes an answer from core has exactly
//! one of these; its words are in `wire`.

use super::event::{By, Size, Target};
use super::ids::{Pid, SlotNr};
use super::notice::Who;
use super::status::Death;

/// The outcome of one request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Of a stop: the master leaves with this code, and these could not be ended.
    Ended { code: u8, stuck: Vec<Pid> },
    /// As many clients as may wait do so already. A stop goes on; a resize was not begun.
    TooMany,
    /// Of a resize that is not waited for: it has begun.
    Resizing { workers: u16 },
    /// So many slots there are now; each has been ready, and no other worker is left.
    Resized { workers: u16 },
    /// So many are wanted, but that came between.
    NotResized { workers: u16, hitch: Hitch },
    /// There cannot be so many.
    OutOfBounds { workers: u16, asked: Size },
    /// These got the signal.
    Signalled { signal: i32, whom: Vec<Who> },
    /// Whoever is meant has no process that runs COMMAND now.
    Nobody { target: Target },
    /// There is no such slot, or no worker of that pid.
    Unknown { target: Target, slots: u16 },
}

/// What keeps a resize from its end, or its asker from hearing of it.
#[derive(Clone, Debug)]
pub enum Hitch {
    /// A worker of a slot that has never been ready has ended; the slot tries again.
    Died(Box<Death>),
    /// There was no process for one; the slot tries again.
    NotForked { slot: SlotNr, errno: i32 },
    /// One does not even mind SIGKILL; it is killed again and again.
    Stuck(Who),
    /// Another number is wanted by now.
    Superseded {
        to: u16,
        why: &'static str,
        by: Option<By>,
    },
    /// The cluster stops.
    Stopping,
}
