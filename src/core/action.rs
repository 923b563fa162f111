//! What core wants done. The shell has one arm for each; outcomes come back as events.

use super::addr::Given;
use super::event::Snag;
use super::health::{Check, Question};
use super::ids::{Ask, Asker, LaneId, PortId, Program, SlotNr, WorkerId};
use super::lane::{Of, Reader};
use super::notice::Notice;
use super::outcome::Outcome;
use super::table::Table;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

/// One thing to do, in the order given.
#[derive(Clone, Debug)]
pub enum Action {
    /// Fork and execute COMMAND for this slot, unless another master has left a worker for it. Answered
    /// by Spawned, IsThere or SpawnFailed, in this turn or one of the next; SpawnFailed without a try if it is not wanted any more by then.
    Spawn {
        worker: WorkerId,
        slot: SlotNr,
        program: Program,
        /// Of which code it is, and which lanes it is handed.
        reader: Reader,
    },
    /// Signal a worker.
    Signal {
        worker: WorkerId,
        signal: i32,
        whom: Whom,
    },
    /// Ask a worker to stop: over its channel, if it has one, then its first process by this signal, and SIGCONT, in case it is stopped;
    /// then close the channel, or a Node process that listens there would never end.
    Dismiss { worker: WorkerId, signal: i32 },
    /// The same for one to whom somebody may still come; but only if nothing is owed on its connections,
    /// which is looked at while it is stopped (SIGSTOP) for that moment. Answered by Dismissed.
    DismissAtRest { worker: WorkerId, signal: i32 },
    /// Put the lane in place of the socket that the asking worker binds, and answer 0.
    Lend { ask: Ask, lane: LaneId },
    /// Let the kernel do what was asked.
    Pass { ask: Ask },
    /// The asking worker's own socket is bound, by us: answer 0.
    Bound { ask: Ask },
    /// Answer the call with this error.
    Refuse { ask: Ask, errno: i32 },
    /// Make the lane listen if it does not, and answer 0 to listen(2). Answered by Listens, or by
    /// LaneFailed.
    Listen { ask: Ask, lane: LaneId },
    /// Look whether the worker still holds the lane it listened on. Answered by Seen.
    CheckHeld { worker: WorkerId },
    /// Look what a starting worker does with the lanes it was handed. Answered by Seen.
    LookAt { worker: WorkerId },
    /// Ask the worker whether it is ready, by that lane of its own, where nobody else may come. There is
    /// so much time for the answer. Answered by Probed.
    Probe {
        worker: WorkerId,
        lane: LaneId,
        within: Duration,
    },
    /// Ask that, whether clients may come. There is so much time for the answer. Answered by Checked.
    Check {
        check: Check,
        of: Question,
        within: Duration,
    },
    /// Nobody wants to know any more. It is answered all the same.
    CallOff { check: Check },
    /// Look whether workers wait for connections on these. Answered by Served.
    LookForServers { lanes: Vec<LaneId> },
    /// Look who waits for these workers: at the queues of these lanes that they serve, and, where they share
    /// them (not `spread`), on the connections that they have, too. What is kept of others is of no use any
    /// more. Answered by Waiting.
    LookHung {
        workers: Vec<(WorkerId, Vec<LaneId>)>,
        spread: bool,
    },
    /// Open a lane of that port. Answered by LaneOpened, LaneFailed, LaneAlone or AdoptFailed in the same
    /// turn.
    OpenLane {
        lane: LaneId,
        port: PortId,
        /// Whose workers are handed it, if it is one that is handed.
        of: Of,
        what: Opening,
    },
    /// This lane is for workers of these generations, too.
    Inherit { lane: LaneId, heirs: BTreeSet<u32> },
    /// This lane is for all workers: its port can have no other.
    ShareLane { lane: LaneId },
    /// New connections of the port go to the lanes of this table, and to no other.
    Steer { port: PortId, table: Table },
    /// From now on no client comes in any more, by whatever lane; those that are in stay.
    RefuseNew,
    /// Look how empty these lanes are, and then what these workers have to do still. Answered by Census.
    TakeCensus {
        workers: Vec<WorkerId>,
        lanes: Vec<LaneId>,
    },
    /// Look how much memory these have. Answered by Weighed.
    Weigh { workers: Vec<WorkerId> },
    /// End those of the worker's connections, as seen by the census of this turn, on which nothing is
    /// owed and nothing was said for so long. Answered by Closed.
    /// Or, late in that time (`late`), on which nothing is owed by one whose client never rests.
    CloseQuiet {
        worker: WorkerId,
        silent: Duration,
        late: bool,
    },
    /// All of them have to end, each at a moment when nothing is owed on it; there is so much time left
    /// for that. Answered by Closed.
    CloseRest { worker: WorkerId, left: Duration },
    /// The lane's workers have gone: take it out of its port, and end what is still in its queue.
    RetireLane { lane: LaneId },
    /// Nobody will ever read what is in the queue of this lane, to which nothing is steered: end it. The
    /// lane stays.
    FlushLane { lane: LaneId },
    /// Close the lane: nobody will read its queue.
    CloseLane { lane: LaneId },
    /// What was read again for the reload that begins is for workers of this generation.
    NewGeneration { generation: u32 },
    /// Nothing will be heard of this worker's tree any more: drop what is kept for it.
    ForgetTree { worker: WorkerId },
    /// Signal (if any) every child of ours that is no worker, and count them. A signal other than
    /// SIGKILL spares members of a worker's group, who have had it with their group, and those who
    /// have had it from an earlier sweep: a second one means something else to many programs.
    /// Answered by Strays or StraysUnnamed.
    SweepStrays { signal: Option<i32> },
    /// Tell a client how its request ended.
    Answer { asker: Asker, outcome: Outcome },
    /// Say it in the log.
    Note(Notice),
    /// Leave with this exit code. Nothing follows.
    Finish(u8),
}

/// A lane to be opened.
#[derive(Clone, Debug)]
pub enum Opening {
    /// It was given: it is to listen, too.
    Given(Given),
    /// It was learnt by another master, and its socket is open still.
    Found { addr: SocketAddr },
    /// A worker asks for it: in what else is it to be like the socket of this bind(2)?
    Learnt { addr: SocketAddr, like: Ask },
    /// Another one of a port that has one: it listens, and nothing comes in until it is steered to.
    Beside {
        /// That one.
        first: LaneId,
    },
    /// The worker's own socket, of this bind(2): it is bound there, and the lane of that worker alone.
    Adopted {
        addr: SocketAddr,
        ask: Ask,
        /// Has the port other lanes? Then it stands beside them; else nobody else may listen there.
        beside: bool,
        /// Why ours cannot take its place.
        snag: Snag,
    },
}

/// Who gets a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The worker's first process alone.
    Leader,
    /// Its process group, while a member of it is known to be ours.
    Group,
}
