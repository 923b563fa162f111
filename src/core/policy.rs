//! What the operator wants, as core needs it: plain numbers, already checked by `settings`.

use super::addr::Given;
use super::health::Checks;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Most workers there can be (I9).
pub const MAX_WORKERS: u16 = 1024;

/// The whole of it. Built by `Settings::policy`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Policy {
    /// How many slots at first, 1..=MAX_WORKERS.
    pub workers: u16,
    /// Most workers that there is room for, by what the machine allows the master.
    pub most: u16,
    /// What is open before the first worker starts.
    pub given: Vec<Given>,
    /// When a worker counts as ready.
    pub ready: ReadyRule,
    /// A ready worker that says nothing for that long hangs; `None`: it need not say anything.
    pub watchdog: Option<Duration>,
    /// One that leaves clients waiting for that long, and touches none of them, hangs; `None`: it may.
    pub hang_timeout: Option<Duration>,
    /// A worker not ready by then is killed; `None` is never.
    pub ready_timeout: Option<Duration>,
    /// A cluster without any ready worker by then gives up; `None` is never.
    pub start_timeout: Option<Duration>,
    /// So many have to be ready for the cluster to be in rotation.
    pub ready_quorum: u16,
    /// And these content.
    pub checks: Checks,
    /// First delay before a failed worker is replaced.
    pub respawn: Duration,
    /// Longest such delay; zero means that every delay is `respawn`.
    pub backoff: Duration,
    /// A worker that was ready that long wipes the slot's failures.
    pub backoff_reset: Duration,
    /// Respawns on account of failures in any minute; 0 is any number.
    pub restarts_per_minute: u32,
    /// Forks until none is made on account of failures; 0 is any number.
    pub max_forks: u64,
    /// What becomes of the cluster at these limits.
    pub on_crash_loop: OnCrashLoop,
    /// Which ends of a worker bring another one.
    pub respawn_on: RespawnOn,
    /// What asks a worker to stop.
    pub stop_signal: i32,
    /// After that long, SIGKILL to its process group.
    pub stop_timeout: Duration,
    /// How long a final stop may take in all; `None` is for as long as it takes.
    pub stop_budget: Option<Duration>,
    /// How a worker that is to go is emptied before it is asked to stop.
    pub drain: Drain,
    /// How long that may take; what is open then is closed.
    pub drain_timeout: Duration,
    /// A connection on which nothing is owed is closed when it has been silent that long.
    pub drain_quiet: Duration,
    /// How long a cluster that is to stop goes on serving before it refuses anybody.
    pub drain_delay: Duration,
    /// How many workers more than wanted there may be while they are replaced.
    pub surge: Surge,
    /// Which of the new workers go ahead of the others.
    pub canary: Canary,
    /// When a worker is replaced on account of what it has become.
    pub recycle: Recycle,
    /// To whom new connections go.
    pub balance: Balance,
    /// The CPUs that workers may use, in their order.
    pub cpus: Vec<u16>,
    /// Whose bind(2) is answered by us.
    pub takeover: Takeover,
    /// The lowest port that may be learnt: workers that may not open those below do not get them by
    /// us, unless the operator has named them.
    pub learn_from: u16,
    /// Seed of the jitter.
    pub seed: u64,
}

/// When a worker counts as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadyRule {
    /// `Listening` once a port is known. Until then: when it listens on a port that we learn by
    /// that, or has been alive for a second: it may be a program that serves none. (Ready at exec
    /// would call a command ready that fails on its first line, or has not bound yet.)
    Auto,
    /// As soon as COMMAND runs.
    Started,
    /// When it listens on a lane and keeps it.
    Listening,
    /// When it says so itself.
    Said,
    /// When it answers us.
    Answers,
    /// When it has been alive that long.
    Alive(Duration),
}

impl ReadyRule {
    /// Does listen(2) on a lane of ours make it ready?
    pub fn ends_by_listening(self) -> bool {
        match self {
            ReadyRule::Auto | ReadyRule::Listening => true,
            ReadyRule::Started | ReadyRule::Said | ReadyRule::Answers | ReadyRule::Alive(_) => {
                false
            }
        }
    }

    /// Does its own word make it ready? It knows better than we can see from outside; but a time
    /// to be alive is a time.
    pub fn ends_by_word(self) -> bool {
        match self {
            ReadyRule::Auto | ReadyRule::Listening | ReadyRule::Said => true,
            ReadyRule::Started | ReadyRule::Answers | ReadyRule::Alive(_) => false,
        }
    }
}

/// --on-crash-loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnCrashLoop {
    /// It goes on with the workers that it has.
    Degrade,
    /// It stops.
    Exit,
}

/// --respawn-on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RespawnOn {
    /// All that were not asked for.
    Any,
    /// All of these but those with status 0.
    Failure,
    /// None.
    Never,
}

/// --drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Drain {
    /// Without the worker's help: no new connections, then its old ones end or are closed.
    Connections,
    /// No new connections; the rest is the worker's own, which is asked to stop at once after that.
    Server,
    /// It is asked to stop, and that is all.
    None,
}

/// --surge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Surge {
    /// So many workers.
    Count(u16),
    /// So many of 100.
    Percent(u16),
}

impl Surge {
    /// How many that is. A part of a worker is one: only 0 is none. More than are replaced is all.
    pub fn of(self, workers: u16) -> u16 {
        match self {
            Surge::Count(n) => n.min(workers),
            Surge::Percent(p) => {
                let n = (u32::from(workers) * u32::from(p)).div_ceil(100);
                u16::try_from(n).map_or(workers, |n| n.min(workers))
            }
        }
    }
}

/// --canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// So many go ahead; none are watched if it is 0.
    pub count: u16,
    /// So long each new worker is watched.
    pub watch: Duration,
    /// So many of 100 new connections canaries get meanwhile.
    pub share: u8,
}

/// --max-age and its like: a worker is due for another one when it has come so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recycle {
    /// Ready for that long.
    pub age: Option<Duration>,
    /// So many bytes of its tree are in memory.
    pub rss: Option<u64>,
    /// It has served so many connections.
    pub connections: Option<u64>,
    /// For each worker these are less by up to so many of 100.
    pub jitter: u8,
}

/// --balance: to whom new connections of TCP go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Balance {
    /// To one queue of all workers of a generation: whoever is free takes the next.
    Shared,
    /// To a queue of each worker: by address and port of the client.
    Hash,
    /// By the address of the client alone: one client stays with one slot.
    Ip,
    /// By the CPU that has received it.
    Cpu,
}

impl Balance {
    /// All of them.
    pub const ALL: [Balance; 4] = [Balance::Shared, Balance::Hash, Balance::Ip, Balance::Cpu];

    /// As --balance has it.
    pub fn word(self) -> &'static str {
        match self {
            Balance::Shared => "shared",
            Balance::Hash => "hash",
            Balance::Ip => "ip",
            Balance::Cpu => "cpu",
        }
    }

    /// Is it known of each client to whom it was dealt, from its address?
    pub fn tells_apart(self) -> bool {
        match self {
            Balance::Hash | Balance::Ip => true,
            Balance::Shared | Balance::Cpu => false,
        }
    }

    /// Has each worker lanes of its own?
    pub fn spreads(self) -> bool {
        match self {
            Balance::Shared => false,
            Balance::Hash | Balance::Ip | Balance::Cpu => true,
        }
    }
}

/// --takeover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Takeover {
    /// Every TCP bind to a port of ours; to any port when none was given. Without it if need be.
    Auto,
    /// Never.
    Off,
    /// As Auto, but a worker that cannot be taken over is not run.
    Require,
    /// Only binds to these ports, each served on the second.
    Ports(Vec<(u16, u16)>),
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The defaults of the manual, for unit tests of core.
    pub(crate) fn policy() -> Policy {
        Policy {
            workers: 4,
            most: MAX_WORKERS,
            given: Vec::new(),
            ready: ReadyRule::Auto,
            watchdog: None,
            hang_timeout: None,
            ready_timeout: Some(Duration::from_secs(60)),
            start_timeout: Some(Duration::from_secs(60)),
            ready_quorum: 1,
            checks: Checks {
                monitor: None,
                validator: None,
                interval: Duration::from_secs(5),
                fall: 3,
                rise: 2,
            },
            respawn: Duration::from_millis(100),
            backoff: Duration::from_secs(30),
            backoff_reset: Duration::from_secs(30),
            restarts_per_minute: 0,
            max_forks: 0,
            on_crash_loop: OnCrashLoop::Degrade,
            respawn_on: RespawnOn::Any,
            stop_signal: 15,
            stop_timeout: Duration::from_secs(10),
            stop_budget: None,
            drain: Drain::Connections,
            drain_timeout: Duration::from_secs(10),
            drain_quiet: Duration::from_secs(5),
            drain_delay: Duration::ZERO,
            surge: Surge::Percent(100),
            canary: Canary {
                count: 0,
                watch: Duration::from_secs(2),
                share: 0,
            },
            recycle: Recycle::default(),
            balance: Balance::Shared,
            cpus: vec![0],
            takeover: Takeover::Auto,
            learn_from: 1,
            seed: 1,
        }
    }

    #[test]
    fn a_surge_is_rounded_up_and_never_more_than_all() {
        for (surge, workers, want) in [
            (Surge::Percent(100), 4, 4),
            (Surge::Percent(50), 4, 2),
            (Surge::Percent(50), 5, 3),
            (Surge::Percent(1), 1, 1),
            (Surge::Percent(1), 1024, 11),
            (Surge::Percent(100), MAX_WORKERS, MAX_WORKERS),
            (Surge::Percent(0), 4, 0),
            (Surge::Count(0), 4, 0),
            (Surge::Count(1), 4, 1),
            (Surge::Count(4), 4, 4),
            (Surge::Count(9), 4, 4),
        ] {
            assert_eq!(surge.of(workers), want, "{surge:?} of {workers}");
        }
    }
}
