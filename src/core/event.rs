//! What core is told. The shell turns every reading and every outcome of a syscall into one of these.

use super::addr::Addr;
use super::health::Check;
use super::ids::{Ask, Asker, LaneId, Pid, Program, Time, WorkerId};
use super::policy::Policy;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::time::Duration;

/// One piece of news. Those about a worker that core no longer knows are stale and dropped.
#[derive(Clone, Debug)]
pub enum Event {
    /// fork(2) succeeded; the child has not executed COMMAND yet.
    Spawned { worker: WorkerId, pid: Pid },
    /// Answer to `Spawn`: it is there already, left by another master, runs since then, and serves these.
    IsThere {
        worker: WorkerId,
        pid: Pid,
        since: Time,
        lanes: Vec<LaneId>,
    },
    /// There is no child: fork(2), or what it needs, failed.
    SpawnFailed { worker: WorkerId, errno: i32 },
    /// The child could not have its bind(2) watched, and goes on without (or not, with `require`).
    TakeoverRefused { worker: WorkerId, errno: i32 },
    /// COMMAND runs.
    Execed { worker: WorkerId },
    /// The child failed between fork and exec, and has left; its end is told by `Exited`, too.
    ExecFailed {
        worker: WorkerId,
        step: &'static str,
        errno: i32,
    },
    /// A process of the worker's tree is blocked in bind(2) of a TCP socket, or of a unix
    /// socket at a path of ours.
    BindAsked {
        worker: WorkerId,
        ask: Ask,
        addr: Addr,
        /// The interface its socket is bound to, if it is (SO_BINDTODEVICE).
        device: Option<String>,
        /// Looked for only where `Cluster::concerns` says that it matters.
        snag: Option<Snag>,
    },
    /// A process of the worker's tree is blocked in listen(2) on a lane of ours.
    ListenAsked {
        worker: WorkerId,
        ask: Ask,
        lane: LaneId,
    },
    /// Answer to `Listen`: the worker's listen(2) has succeeded.
    Listens { worker: WorkerId, lane: LaneId },
    /// What a look from outside found the worker doing.
    Seen { worker: WorkerId, what: Seen },
    /// Answer to `Probe`, in this turn or a later one: it has answered, or why not.
    Probed {
        worker: WorkerId,
        answer: Result<(), String>,
    },
    /// Answer to `Check`, in this turn or a later one, also if it was called off: all is well, or what is not.
    Checked {
        check: Check,
        answer: Result<(), String>,
    },
    /// The worker says something, by whatever way.
    Said { worker: WorkerId, word: Word },
    /// The lane is bound (and listens, if that was asked); `addr` has the real port.
    LaneOpened { lane: LaneId, addr: Addr },
    /// Its port can have no other lane beside that one: all generations share it.
    LaneAlone { lane: LaneId },
    /// The lane could not be bound or made to listen.
    LaneFailed {
        lane: LaneId,
        errno: i32,
        holder: Option<String>,
    },
    /// A worker connects from the learnt lane: its port is no server's.
    LaneDied { lane: LaneId },
    /// The one worker of a lane that was adopted has closed it, or shut it down.
    LaneLeft { lane: LaneId },
    /// The worker's socket cannot be made a lane: this step of it has failed.
    AdoptFailed {
        lane: LaneId,
        step: &'static str,
        errno: i32,
    },
    /// The worker's first process has ended. It is still a zombie: its group may be signalled now.
    Exited {
        worker: WorkerId,
        status: Exit,
        oom: Oom,
        last: String,
    },
    /// The last process of the worker's tree has gone.
    TreeGone { worker: WorkerId },
    /// A child that is no worker was reaped.
    StrayReaped,
    /// Answer to `SweepStrays`: these processes that are ours but no worker remain, and perhaps some
    /// that have ended and are not reaped: their children, if any, will be ours then.
    Strays { left: Vec<Pid>, zombies: bool },
    /// Answer to `SweepStrays` where they have no names: some remain.
    StraysUnnamed,
    /// Answer to `LookForServers`: on these of them a worker waits for connections.
    Served { lanes: Vec<LaneId> },
    /// Answer to `LookHung`.
    Waiting { seen: Vec<(WorkerId, Wait)> },
    /// Answer to `TakeCensus`.
    Census {
        /// What was seen of the lanes that were asked about.
        lanes: Vec<LaneLook>,
        /// And of the workers.
        loads: Vec<(WorkerId, Load)>,
        /// How long it took.
        took: Duration,
    },
    /// Answer to `Weigh`: so many bytes of these workers' trees are in memory.
    Weighed { sizes: Vec<(WorkerId, u64)> },
    /// The worker has served so many connections by now.
    Counted { worker: WorkerId, served: u64 },
    /// Answer to `CloseQuiet` and `CloseRest`: so many connections were ended.
    Closed { worker: WorkerId, count: u32 },
    /// Answer to `DismissAtRest`: was it asked to stop? Else it goes on as it was, having been stopped for
    /// so long.
    Dismissed {
        worker: WorkerId,
        done: bool,
        took: Duration,
    },
    /// A signal to the master.
    Signal(MasterSignal),
    /// A client (that process, of that user) wants the cluster stopped, and to hear of the end.
    Stop { asker: Asker, hard: bool, by: By },
    /// The same by SIGKILL, but the master leaves with 0.
    Exit { asker: Asker, by: By },
    /// A graceful stop that is to be over in that time, whatever --stop-budget says.
    StopWithin {
        asker: Asker,
        within: Duration,
        by: By,
    },
    /// One slot is to go.
    Shutdown(Shutdown),
    /// All workers are to be replaced by new ones. What was read again has led to this policy, or to
    /// an error.
    Reload {
        /// Who wants to hear of the end (or, not `wait`, at once that it has begun), if it is a client.
        asker: Option<Asker>,
        /// Is the end waited for?
        wait: bool,
        /// The client.
        by: Option<By>,
        /// What has asked.
        why: &'static str,
        /// As it is from now on. Its number of workers counts where it is another than before.
        with: Result<Box<Policy>, String>,
        /// What is asked for besides.
        terms: Terms,
    },
    /// Somebody takes the cluster out of rotation, or puts it back; why, in words.
    Rotate {
        enable: bool,
        why: String,
        by: Option<By>,
    },
    /// The reload or upgrade that is under way is to be called off.
    BackOut { asker: Asker, by: By },
    /// A client wants so many slots more, which run that, one after the other; and to hear of the
    /// outcome, or (not `wait`) at once that it has begun.
    Start(More),
    /// A client wants another number of slots, and to hear of the outcome, or (not `wait`) at once
    /// what is going to be tried.
    Resize {
        asker: Asker,
        to: Size,
        by: By,
        wait: bool,
    },
    /// A client wants another worker in place of one, and to hear of the end, or (not `wait`) at once that
    /// it is seen to.
    Restart(Restart),
    /// A client wants workers signalled.
    SignalWorkers {
        asker: Asker,
        signal: i32,
        target: Target,
        by: By,
    },
    /// That client hung up. Changes nothing but who is told.
    AskerGone { asker: Asker },
    /// Time has passed: the deadlines that are due fire. Told last in a turn.
    Tick,
}

/// Slots that a client adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct More {
    pub asker: Asker,
    pub count: u16,
    pub program: Program,
    /// So long each of their first workers has to be ready.
    pub ready: Option<Duration>,
    pub by: By,
    pub wait: bool,
}

/// Another worker in place of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    pub asker: Asker,
    pub target: Target,
    /// What the new one runs, and its slot from then on, if not what it did.
    pub program: Option<Program>,
    /// The new one has to be ready in that time.
    pub within: Option<Duration>,
    pub by: By,
    pub wait: bool,
}

/// That one slot is to go, and no other.
#[derive(Clone, Copy, Debug)]
pub struct Shutdown {
    /// Who wants to hear of it,
    pub asker: Asker,
    /// which one,
    pub target: Target,
    /// in what time its worker is killed, if not that of the policy,
    pub within: Option<Duration>,
    /// who it is,
    pub by: By,
    /// and whether the end is waited for.
    pub wait: bool,
}

/// Of one rollout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Do all slots run the command of the cluster from then on? Else each the one that it runs.
    pub upgrade: bool,
    /// So long each new worker is watched, unless as ever.
    pub watch: Option<Duration>,
    /// So long each has to be ready, unless as ever.
    pub ready: Option<Duration>,
    /// Are there to be as many workers as its policy says, whatever was asked for meanwhile?
    pub exactly: bool,
}

/// How many slots there are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Size {
    /// So many.
    To(u16),
    /// So many more.
    More(u16),
    /// So many fewer.
    Fewer(u16),
}

/// Which workers are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// All there are.
    All,
    /// The one in that slot.
    Slot(u32),
    /// The one whose first process that is.
    Pid(u32),
    /// A slot if there is one of that number, else a pid.
    Number(u32),
}

/// Who asks: as a log should name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// The client's process.
    pub pid: Pid,
    /// Its user.
    pub uid: u32,
}

impl By {
    /// Who came over TCP: whose process that is nobody tells. (No user has this number.)
    pub const REMOTE: By = By {
        pid: Pid(0),
        uid: u32::MAX,
    };

    /// Whose it is, if anybody tells.
    pub fn known(self) -> Option<By> {
        Some(self).filter(|by| *by != By::REMOTE)
    }
}

/// Why a swap of the worker's socket would harm it: it keeps its own, then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Snag {
    /// The socket is in an epoll set already: our lane in its place would never be reported there.
    InEpollSet,
    /// Another descriptor shares the socket: it would keep the old one.
    Duplicated,
    /// So does another process.
    Shared,
    /// It has a filter attached, which ours would lack: the server would hear what it must not.
    Filtered,
}

/// What a look at a worker from outside found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Nothing yet.
    Nothing,
    /// It holds the lane it listened on.
    Holds,
    /// It waits for connections on a lane it was handed: an epoll set, or a thread in accept.
    Accepts,
    /// It listens on a socket of its own at an address we serve.
    OwnSocket(SocketAddr),
}

/// What was seen of a lane that is to be empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLook {
    /// Which one.
    pub lane: LaneId,
    /// Handshakes that were under way when it was steered away from, and still are.
    pub handshakes: u32,
    /// Connections that nobody has accepted yet.
    pub queued: u32,
}

/// What was seen of the connections that a worker, its whole tree, has accepted from our ports.
/// Looked at after the queues: what was in one of them then is in one of the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// How many there are.
    pub open: u32,
    /// On so many of them something is owed: an answer, or the rest of one, or the first request is
    /// still to come.
    pub owed: u32,
    /// Why it cannot be told, or nothing be done about it, if so.
    pub sight: Sight,
}

/// How much of a worker's connections can be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sight {
    /// They are seen, and can be ended from outside.
    #[default]
    Full,
    /// They are seen, but cannot be touched.
    LookOnly,
    /// They are not seen.
    None,
}

/// What was seen of those who wait for a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Nobody waits, or it has done something since: it is looked from now on.
    Moves,
    /// It has touched nothing since it was first so.
    Stands(Waits),
    /// It cannot be told this time.
    Unknown,
}

/// What waits for a worker, as of the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// So many connections that nobody has accepted.
    Queue(u32),
    /// So many in a queue that it shares with others, of whom nobody has.
    Shared(u32),
    /// So many bytes, the most on one of its connections, that were not read.
    Bytes(u32),
}

/// What a worker can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// It serves.
    Ready,
    /// It is on its way out, by itself.
    Stopping,
    /// It wants to be replaced, and then to be asked to stop.
    Retire,
    /// It is well.
    Ping,
    /// It is not, and knows it: it wants to be treated as one that hangs.
    Trigger,
    /// Nothing that we have heard; but others fill the way by which it would, so its silence proves
    /// nothing.
    Unheard,
}

impl Word {
    /// As the log has it.
    pub fn name(self) -> &'static str {
        match self {
            Word::Ready => "ready",
            Word::Stopping => "stopping",
            Word::Retire => "retire",
            Word::Ping => "ping",
            Word::Trigger => "trigger",
            Word::Unheard => "unheard",
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Exit {
    /// exit(3) with this status.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
    /// It was not our child: nobody tells.
    Unknown,
}

/// Was it the kernel that killed a process, because there was no memory left?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Oom {
    /// No, or nobody can tell.
    No,
    /// It killed one on this machine meanwhile.
    Probably,
    /// It killed one of our memory cgroup meanwhile.
    Yes,
}

/// What signals to the master ask for, with the words for which one it was: `SIGTERM received`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasterSignal {
    /// Graceful stop; the second one hard.
    Stop(&'static str),
    /// Hard stop at once.
    Kill(&'static str),
    /// SIGHUP while our controlling terminal is gone: graceful stop.
    HangUp,
    /// No signal, but as a hang-up: the caller of -d has gone while it still waited for us.
    CallerGone,
    /// Another number of workers.
    Resize(Size, &'static str),
    /// In or out of rotation.
    Rotate { enable: bool, why: &'static str },
    /// A signal to workers.
    Relay {
        signal: i32,
        target: Target,
        why: &'static str,
    },
}
