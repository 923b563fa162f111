//! Everything core has to say, as values. How loud each is and what it is called is in `kinds`, its
//! sentence in `sentences`, its fields in `fields`.

use super::addr::Addr;
use super::event::{By, Exit, Oom, Snag, Target, Word};
use super::health::Check;
use super::hung::Hang;
use super::ids::{Pid, SlotNr, WorkerId};
use super::outcome::Hitch;
use super::recycle::Reason;
use super::rotation::Ground;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// How loud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// The master cannot do its work.
    Error,
    /// Something is not as asked; the cluster goes on.
    Warn,
    /// What an operator wants to see happen.
    Info,
    /// Each step.
    Debug,
}

/// Why a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// By itself, with a status other than 0 or by a signal.
    Failure,
    /// By itself, with status 0.
    Finished,
    /// Asked to: the cluster stops.
    Shutdown,
    /// Asked to: fewer workers are wanted.
    Resize,
    /// Asked to: another one has its place.
    Restart,
    /// The same, on account of its age, its memory, its connections, or by its own wish.
    Recycle,
    /// Killed by a hard stop, or because it did not stop in time.
    Kill,
    /// Killed because it was not ready in time.
    NotReady,
    /// It did not say in time that it is well.
    Hang,
    /// COMMAND could not be executed, or there was no process at all.
    NotStarted,
    /// Killed by the kernel, for want of memory; by what is known of that.
    Oom(Oom),
}

/// In sentences: where it is only likely, that is said.
impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())?;
        match self {
            Cause::Oom(Oom::Probably) => f.write_str(", probably"),
            Cause::Oom(Oom::Yes | Oom::No)
            | Cause::Failure
            | Cause::Finished
            | Cause::Shutdown
            | Cause::Resize
            | Cause::Restart
            | Cause::Recycle
            | Cause::Kill
            | Cause::NotReady
            | Cause::Hang
            | Cause::NotStarted => Ok(()),
        }
    }
}

impl Cause {
    /// All of them; how sure it is that it was for want of memory is no other cause.
    pub const ALL: [Cause; 11] = [
        Cause::Failure,
        Cause::Finished,
        Cause::Shutdown,
        Cause::Resize,
        Cause::Restart,
        Cause::Recycle,
        Cause::Kill,
        Cause::NotReady,
        Cause::Hang,
        Cause::NotStarted,
        Cause::Oom(Oom::Yes),
    ];

    /// As it is spelled in logs and answers.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Failure => "failure",
            Cause::Finished => "finished",
            Cause::Shutdown => "shutdown",
            Cause::Resize => "resize",
            Cause::Restart => "restart",
            Cause::Recycle => "recycle",
            Cause::Kill => "kill",
            Cause::NotReady => "not-ready",
            Cause::Hang => "hang",
            Cause::NotStarted => "not-started",
            Cause::Oom(_) => "oom",
        }
    }
}

/// Why a worker was forked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Birth {
    /// It is the first in a slot that there was from the start,
    Start,
    /// or that came later.
    Resize,
    /// The one before it has ended by itself, or had to.
    Failure,
    /// It is to take the place of one that an operator wants replaced: a reload, an upgrade, a restart.
    Restart,
    /// The same, on account of that one's age, memory, connections, or wish.
    Recycle,
}

impl Birth {
    /// Those for which there was one before.
    pub const OF_ANOTHER: [Birth; 3] = [Birth::Failure, Birth::Restart, Birth::Recycle];

    /// As it is spelled in logs.
    pub fn word(self) -> &'static str {
        match self {
            Birth::Start => "start",
            Birth::Resize => "resize",
            Birth::Failure => "failure",
            Birth::Restart => "restart",
            Birth::Recycle => "recycle",
        }
    }
}

impl fmt::Display for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Which worker: slot and, while it has one, pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// Its slot.
    pub slot: SlotNr,
    /// Its first process.
    pub pid: Option<Pid>,
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}", self.slot)?;
        match self.pid {
            Some(pid) => write!(f, " pid {pid}"),
            None => Ok(()),
        }
    }
}

/// What there is to say.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the sentence of each, below, is its documentation
pub enum Notice {
    LaneOpen {
        addr: Addr,
        learnt_from: Option<Who>,
    },
    LaneBusy {
        addr: Addr,
        errno: i32,
        holder: Option<String>,
        who: Option<Who>,
    },
    LaneQuits {
        addr: SocketAddr,
        who: Who,
    },
    Forked {
        who: Who,
        generation: u32,
        reason: Birth,
    },
    SpawnFailed {
        who: Who,
        errno: i32,
    },
    ExecFailed {
        who: Who,
        step: &'static str,
        errno: i32,
    },
    Listening {
        who: Who,
        addr: Addr,
        after: Duration,
    },
    LetGo {
        who: Who,
    },
    Ready {
        who: Who,
        after: Duration,
    },
    AllReady {
        ready: usize,
        lanes: Vec<Addr>,
    },
    PartlyReady {
        ready: usize,
        wanted: usize,
        /// Are any of the others to have a worker still?
        tries: bool,
        limit: Duration,
    },
    Unserved {
        addr: Addr,
    },
    NotReady {
        who: Who,
        after: Duration,
        limit: Duration,
        /// Or is it one that was only to have a slot?
        retries: bool,
        hint: Option<String>,
    },
    Died {
        who: Who,
        cause: Cause,
        exit: Exit,
        lived: Duration,
        was_ready: bool,
        next: Next,
        last: String,
    },
    Said {
        who: Who,
        word: Word,
    },
    Hangs {
        who: Who,
        how: Hang,
        then: Duration,
    },
    LeftRunning {
        who: Who,
    },
    Recycling {
        who: Who,
        why: Reason,
        /// It is a failure of its slot: so many in a row.
        failures: Option<u32>,
    },
    NotRecycled {
        who: Who,
        hitch: Hitch,
        /// When it is tried again, if it is.
        again: Option<Duration>,
    },
    /// It wants to be replaced, and has been ready for so short a time that it has failed.
    RecyclesLater {
        who: Who,
        /// `None`: not before an operator asks for workers.
        wait: Option<Duration>,
        failures: u32,
    },
    Respawning {
        slot: SlotNr,
        delay: Duration,
        failures: u32,
    },
    CrashLoop {
        slot: SlotNr,
        /// Of the last minute.
        respawns: usize,
        limit: u32,
        /// `None`: the cluster stops.
        wait: Option<Duration>,
        ready: usize,
        wanted: usize,
    },
    ForksSpent {
        slot: SlotNr,
        /// Does it keep the worker that it has?
        keeps: bool,
        forks: u64,
        limit: u64,
        /// Does the cluster stop?
        exit: bool,
        ready: usize,
        wanted: usize,
    },
    GivenUp {
        slot: SlotNr,
        limit: u64,
    },
    NoneLeft {
        /// The end with the highest status, if all have finished.
        end: Option<Exit>,
    },
    TooSlowToStop {
        who: Who,
        after: Duration,
        limit: Limit,
    },
    StillThere {
        who: Who,
        since: Duration,
    },
    Forgotten {
        who: Who,
        limit: usize,
    },
    Stopping {
        why: &'static str,
        by: Option<By>,
        workers: usize,
        /// How long they are drained, if they are.
        drain: Duration,
        limit: Limit,
    },
    StopDelayed {
        delay: Duration,
    },
    HardStop {
        why: &'static str,
        by: Option<By>,
        workers: usize,
    },
    NeverReady {
        limit: Duration,
        hint: Option<String>,
        /// A worker that is alive, but not ready. What it has written the shell knows.
        waiting: Option<WorkerId>,
        last: String,
    },
    CannotRun {
        code: u8,
    },
    Leftovers {
        pids: Vec<Pid>,
        stage: LeftoverStage,
    },
    Stuck {
        pids: Vec<Pid>,
        budget: Option<Duration>,
    },
    Stopped {
        code: u8,
    },
    Resizing {
        from: u16,
        to: u16,
        why: &'static str,
        by: Option<By>,
    },
    Resized {
        workers: u16,
    },
    Disabled {
        why: String,
        by: Option<By>,
    },
    Enabled {
        why: String,
        by: Option<By>,
    },
    Unhealthy {
        ready: usize,
        quorum: u16,
        why: Ground,
    },
    Healthy {
        ready: usize,
        quorum: u16,
        was: Ground,
    },
    Wavers {
        check: Check,
        why: Option<String>,
        row: u16,
        needed: u16,
    },
    AtBound {
        why: &'static str,
        workers: u16,
    },
    NoRoom {
        why: &'static str,
        asked: u16,
        most: u16,
    },
    Reloading {
        generation: u32,
        workers: usize,
        why: &'static str,
        by: Option<By>,
    },
    Reloaded {
        generation: u32,
        took: Duration,
        /// Was it one that took back what had been replaced?
        back: bool,
    },
    ReloadRefused {
        hitch: Hitch,
    },
    ReloadFailed {
        generation: u32,
        hitch: Hitch,
        /// How many workers serve all the same.
        ready: usize,
        /// Are there slots that have to be taken back?
        back: bool,
    },
    Exchanged {
        generation: u32,
        /// How many make room.
        old: usize,
        drain: Duration,
    },
    TooManyGenerations {
        generation: u32,
        limit: usize,
        workers: usize,
    },
    Draining {
        who: Who,
        cause: Cause,
    },
    Drained {
        who: Who,
        after: Duration,
        /// Connections that were ended from outside when they were quiet.
        closed: u32,
        /// Those that were when the time was over, each when nothing was owed on it.
        ended: u32,
        /// Those that it still had then.
        cut: u32,
        limit: Limit,
    },
    LaneAlone {
        addr: Addr,
    },
    Signalled {
        signal: i32,
        whom: Vec<Who>,
        why: &'static str,
        by: Option<By>,
    },
    NotSignalled {
        signal: i32,
        target: Target,
        why: &'static str,
    },
    TakeoverRefused {
        who: Who,
        errno: i32,
        required: bool,
    },
    BindPassed {
        who: Who,
        addr: SocketAddr,
        ours: Vec<u16>,
        /// Did the kernel pick ours (-p 0)? Then it is another one the next time.
        picked: bool,
        why: PassWhy,
    },
    HandedOnly {
        who: Who,
        /// What we have open; without it, it is a sibling that has the port.
        addr: Option<Addr>,
    },
    Narrower {
        who: Who,
        asked: SocketAddr,
        lane: SocketAddr,
    },
    V4Only {
        who: Who,
        asked: SocketAddr,
        lane: SocketAddr,
    },
    FamilyNeeded {
        who: Who,
        asked: SocketAddr,
        lane: SocketAddr,
    },
    DeviceWider {
        who: Who,
        asked: SocketAddr,
        device: String,
        lane: SocketAddr,
    },
    LaneConnects {
        addr: SocketAddr,
    },
    Snagged {
        who: Who,
        addr: Addr,
        snag: Snag,
        why: Hindrance,
    },
    Adopted {
        who: Who,
        addr: Addr,
        snag: Snag,
    },
}

/// Why a socket of a worker's that cannot be swapped cannot be one of ours, either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hindrance {
    /// It is no socket of TCP.
    NoTcp,
    /// It is of another family than the port, which is there.
    Family(SocketAddr),
    /// It is bound to one interface, the port is not, or not to that.
    Device,
    /// The port can have no other lane.
    Alone,
    /// The worker has so many already.
    TooMany,
    /// This step has failed.
    Step(&'static str, i32),
}

/// Why a bind(2) is left to the kernel although it is one of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassWhy {
    /// Ports were given, and this is none of them.
    NotServed,
    /// --takeover lists others.
    NotListed,
    /// As many ports as there may be are learnt.
    Full,
    /// Ports below this one are for others than the workers' user.
    Privileged(u16),
    /// Workers connect from it.
    Connects,
}

/// How long workers have to stop, and what says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// --stop-timeout.
    Timeout(Duration),
    /// --stop-budget, of which that is left for them.
    Budget { time: Duration, budget: Duration },
}

impl Limit {
    /// How long.
    pub fn time(self) -> Duration {
        match self {
            Limit::Timeout(time) | Limit::Budget { time, .. } => time,
        }
    }
}

/// What is done about processes that workers left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftoverStage {
    /// They were asked to stop.
    Asked,
    /// They were asked, had that long, and are killed.
    Overdue(Limit),
    /// They are killed along with all else.
    Killed,
}

/// What follows a death.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Next {
    /// A successor, after this delay.
    Respawn(Duration),
    /// The same, because of --restarts-per-minute.
    HeldBack { wait: Duration, limit: u32 },
    /// Nothing: its slot is finished (--respawn-on).
    Finished,
    /// Nothing, because of --max-forks.
    GivenUp { limit: u64 },
    /// Nothing: another one has its place already.
    Replaced,
    /// The one that it has replaced takes its place again.
    TakenBack,
    /// Nothing: the cluster stops, or the slot is not wanted any more.
    Nothing,
}
