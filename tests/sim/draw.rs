//! What a seed decides before the run: the operator's policy and which faults the world has. Most
//! faults are absent from most seeds (a swarm): when everything goes wrong at once, whole states are
//! never reached.

use crate::checking;
use crate::net::Clients;
use crate::nuisances;
use crate::plan::Kind;
use crate::prng::Prng;
use crate::swaps::RSS;
use minicluster::core::{
    Addr, Balance, Canary, Drain, Given, MAX_WORKERS, MasterSignal, OnCrashLoop, Policy, ReadyRule,
    Recycle, RespawnOn, Sight, Size, Surge, Takeover, Target, Terms,
};
use std::time::Duration;

/// What these ask for by default.
pub const TERM: MasterSignal = MasterSignal::Stop("SIGTERM received");
pub const INT: MasterSignal = MasterSignal::Stop("SIGINT received");
pub const QUIT: MasterSignal = MasterSignal::Kill("SIGQUIT received");
pub const TTIN: MasterSignal = MasterSignal::Resize(Size::More(1), "SIGTTIN received");
pub const TTOU: MasterSignal = MasterSignal::Resize(Size::Fewer(1), "SIGTTOU received");
/// What the world does to the cluster, apart from what the processes do by themselves.
#[derive(Clone, Debug)]
pub struct Faults {
    /// How often each behaviour is drawn for a new process.
    pub mix: Vec<(u32, Kind)>,
    /// fork(2) fails that often, in percent.
    pub spawn_fails: u64,
    /// The first given lane cannot be opened, with this errno.
    pub given_fails: Option<i32>,
    /// A learnt lane cannot be opened that often, in percent.
    pub learnt_fails: u64,
    /// A worker's own socket cannot be made a lane that often, in percent.
    pub adopt_fails: u64,
    /// An open lane cannot be made to listen that often, in percent.
    pub listen_fails: u64,
    /// News comes up to that late.
    pub latency: Duration,
    /// News of one turn comes in any order; else in the shell's.
    pub shuffled: bool,
    /// A tree's end is told when its last process is reaped, not when it ends (before Linux 6.11).
    pub old_kernel: bool,
    /// What workers left behind has no names (PID 1 without /proc).
    pub nameless: bool,
    /// A pid is used again as soon as it is free.
    pub pids_reused: bool,
    /// Ports of odd numbers can have one lane only.
    pub alone: bool,
    /// Some servers shut their lane down when they stop.
    pub shut_downs: bool,
    /// How much of the workers' connections can be seen, and how long that takes.
    pub sight: Sight,
    /// May clients be held back?
    pub holds: bool,
    pub census_takes: Duration,
    pub clients: Clients,
    /// How long all this goes on.
    pub chaos: Duration,
    /// What happens once, and when.
    pub mischief: Vec<(Duration, Mischief)>,
    /// Stopped in the midst of it? Else the world is healed first.
    pub stopped_early: bool,
}

/// Done to the cluster from outside.
#[derive(Clone, Debug)]
pub enum Mischief {
    /// SIGKILL to that many of 100 processes.
    Storm(u64),
    /// The master does not run for so long; the world goes on.
    Stall(Duration),
    /// Everything stands still for so long, but the clock goes on.
    Jump(Duration),
    /// A wakeup for nothing.
    Tick,
    /// News of a worker long gone is told again.
    Stale,
    /// A signal to the master.
    Signal(MasterSignal),
    /// A client asks for a stop.
    Stop {
        /// A hard one?
        hard: bool,
    },
    /// A client asks for another number of workers.
    Resize {
        /// Which.
        to: Size,
        /// And waits for it?
        wait: bool,
    },
    /// The cluster is taken out of rotation, or put back.
    Rotate(bool),
    /// A client wants that slot to go.
    Shutdown {
        target: Target,
        within: Option<Duration>,
        wait: bool,
    },
    /// A client wants the end at once, or in so much time.
    Exit,
    StopWithin(Duration),
    /// A reload is asked for.
    Reload(Reload),
    /// A client asks for another worker in place of one.
    Restart {
        target: Target,
        /// And waits for it?
        wait: bool,
    },
    /// Connections of some worker have ended.
    Counted,
    /// More clients ask for a reload than may wait.
    CrowdOfReloads,
    /// A client wants the reload under way called off.
    BackOut,
    /// A client wants so many slots more, which have so long to be ready.
    Start {
        count: u16,
        ready: Option<Duration>,
        wait: bool,
    },
    /// A client asks for a signal to workers.
    Relay(i32, Target),
    /// One of those clients hangs up.
    HangUp,
    /// More clients ask for a stop than may wait.
    Crowd,
    /// More clients ask for the same size than may wait.
    CrowdOfSizes,
}

/// What a reload is asked for, and what has become of the operator's wishes meanwhile.
#[derive(Clone, Debug)]
pub struct Reload {
    /// By a client? Else by a signal.
    pub client: bool,
    /// Is the end waited for?
    pub wait: bool,
    /// What is read again is wrong.
    pub unreadable: bool,
    pub workers: Option<u16>,
    pub drain: Option<Drain>,
    pub surge: Option<Surge>,
    pub stop_timeout: Option<Duration>,
    /// All new workers are of this kind.
    pub broken: Option<Kind>,
    pub terms: Terms,
}

impl Reload {
    /// The same again, and a client waits for it.
    pub fn same() -> Reload {
        Reload {
            client: true,
            wait: true,
            unreadable: false,
            workers: None,
            drain: None,
            surge: None,
            stop_timeout: None,
            broken: None,
            terms: Terms::default(),
        }
    }

    pub fn draw(r: &mut Prng) -> Reload {
        let n = r.range(1, 10) as u16;
        let drain = r.pick(&[Drain::Connections, Drain::Server, Drain::None]);
        let kind = r.weighted(&[
            (3, Kind::Crash),
            (3, Kind::NeverListens),
            (2, Kind::ExitsZero),
            (2, Kind::Slow),
            (12, Kind::Stuck),
        ]);
        let time = r.pick(&[millis(100), secs(5)]);
        let new = surge(r);
        Reload {
            client: r.percent(70),
            wait: r.percent(70),
            unreadable: r.percent(5),
            workers: r.percent(20).then_some(n),
            drain: r.percent(10).then_some(drain),
            surge: r.percent(10).then_some(new),
            stop_timeout: r.percent(5).then_some(time),
            broken: r.percent(25).then_some(kind),
            terms: Terms {
                upgrade: r.percent(30),
                watch: r.percent(15).then(|| r.upto(secs(4))),
                ready: r.percent(15).then(|| r.pick(&[millis(200), secs(3)])),
                exactly: false,
            },
        }
    }
}

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn addrs(list: &[&str]) -> Vec<Given> {
    let addr = |a: &&str| a.parse::<Addr>().unwrap().into();
    list.iter().map(addr).collect()
}

/// The defaults of the manual, and a single port.
pub fn manual() -> Policy {
    Policy {
        workers: 4,
        most: MAX_WORKERS,
        given: addrs(&["0.0.0.0:3000"]),
        ready: ReadyRule::Auto,
        watchdog: None,
        hang_timeout: None,
        ready_timeout: Some(secs(60)),
        start_timeout: Some(secs(60)),
        ready_quorum: 1,
        checks: checking::none(),
        respawn: millis(100),
        backoff: secs(30),
        backoff_reset: secs(30),
        restarts_per_minute: 0,
        max_forks: 0,
        on_crash_loop: OnCrashLoop::Degrade,
        respawn_on: RespawnOn::Any,
        stop_signal: 15,
        stop_timeout: secs(10),
        stop_budget: None,
        drain: Drain::Connections,
        drain_timeout: secs(10),
        drain_quiet: secs(5),
        drain_delay: secs(0),
        surge: Surge::Percent(100),
        canary: Canary {
            count: 0,
            watch: secs(2),
            share: 0,
        },
        recycle: Recycle::default(),
        balance: Balance::Shared,
        cpus: vec![0, 1],
        takeover: Takeover::Auto,
        learn_from: 1,
        seed: 1,
    }
}

/// A world in which nothing goes wrong, for stories that say themselves what does.
pub fn calm() -> Faults {
    Faults {
        mix: vec![(1, Kind::Good)],
        spawn_fails: 0,
        given_fails: None,
        learnt_fails: 0,
        adopt_fails: 0,
        listen_fails: 0,
        latency: Duration::ZERO,
        shuffled: false,
        old_kernel: false,
        nameless: false,
        pids_reused: false,
        alone: false,
        shut_downs: false,
        sight: Sight::Full,
        holds: true,
        census_takes: Duration::ZERO,
        clients: Clients::none(),
        chaos: Duration::ZERO,
        mischief: Vec::new(),
        stopped_early: false,
    }
}

/// What the operator asks for.
pub fn policy(r: &mut Prng) -> Policy {
    let few = r.range(1, 8);
    let workers = r.weighted(&[(88, few), (8, 16), (4, 64)]) as u16;
    let given = r.weighted(&[
        (30, addrs(&[])),
        (30, addrs(&["0.0.0.0:3000"])),
        (10, addrs(&["127.0.0.1:3000", "[::1]:3000"])),
        (10, addrs(&["0.0.0.0:80", "0.0.0.0:81"])),
        (10, addrs(&["[::]:3000"])),
        (5, addrs(&["unix:/run/a.sock"])),
        (5, addrs(&["0.0.0.0:3000", "unix:/run/a.sock"])),
    ]);
    let takeover = r.weighted(&[
        (60, Takeover::Auto),
        (10, Takeover::Off),
        (12, Takeover::Require),
        (6, Takeover::Ports(vec![(8080, 3000), (9000, 9000)])),
        (6, Takeover::Ports(vec![(8080, 80)])),
    ]);
    let alive = r.ms(0, 2000);
    let mut ready = r.weighted(&[
        (40, ReadyRule::Auto),
        (35, ReadyRule::Listening),
        (12, ReadyRule::Started),
        (8, ReadyRule::Said),
        (12, ReadyRule::Alive(alive)),
    ]);
    if given.is_empty() && takeover == Takeover::Off && ready == ReadyRule::Listening {
        // Nobody could ever be seen listening.
        ready = ReadyRule::Auto;
    }
    let balance = r.weighted(&[
        (6, Balance::Shared),
        (2, Balance::Hash),
        (2, Balance::Ip),
        (1, Balance::Cpu),
    ]);
    // (Of two addresses with one number a server may serve the second alone.)
    let number = |at: usize| given.get(at).and_then(|g| g.addr.port());
    let tcp = number(0).is_some() && number(0) != number(1);
    let watched = matches!(takeover, Takeover::Auto | Takeover::Require);
    if balance.spreads() && tcp && watched && r.percent(30) {
        ready = ReadyRule::Answers;
    }
    let limit = |n| Some(secs(n));
    let drain_timeout = drain_timeout(r);
    let mut policy = Policy {
        workers,
        given,
        ready,
        watchdog: r.weighted(&[(94, None), (3, limit(3)), (3, limit(30))]),
        hang_timeout: r.weighted(&[(6, None), (1, limit(1)), (1, limit(4))]),
        ready_timeout: r.weighted(&[(3, None), (3, limit(3)), (4, limit(10)), (6, limit(60))]),
        start_timeout: r.weighted(&[(6, None), (2, limit(5)), (3, limit(20)), (5, limit(60))]),
        respawn: r.weighted(&[
            (3, secs(0)),
            (5, millis(1)),
            (60, millis(100)),
            (10, secs(1)),
            (4, secs(40)),
        ]),
        backoff: r.pick(&[secs(0), secs(1), secs(5), secs(30), secs(30)]),
        backoff_reset: r.pick(&[secs(0), secs(1), secs(30), secs(300)]),
        restarts_per_minute: r.weighted(&[(30, 0), (1, 1), (2, 3), (2, 10), (1, 40)]),
        max_forks: match r.percent(10) {
            true => u64::from(workers) + r.pick(&[0, 1, 5, 30]),
            false => 0,
        },
        on_crash_loop: r.weighted(&[(3, OnCrashLoop::Degrade), (1, OnCrashLoop::Exit)]),
        respawn_on: r.weighted(&[
            (17, RespawnOn::Any),
            (2, RespawnOn::Failure),
            (1, RespawnOn::Never),
        ]),
        stop_signal: r.weighted(&[(10, 15), (2, 2), (2, 3), (1, 9)]),
        stop_timeout: r.weighted(&[
            (1, secs(0)),
            (3, millis(100)),
            (5, secs(1)),
            (10, secs(10)),
            (2, secs(60)),
        ]),
        stop_budget: r.weighted(&[
            (10, None),
            (2, limit(1)),
            (3, limit(9)),
            (1, limit(30)),
            (1, limit(90)),
        ]),
        drain: r.weighted(&[
            (6, Drain::Connections),
            (3, Drain::Server),
            (1, Drain::None),
        ]),
        drain_timeout,
        drain_quiet: match r.percent(60) {
            true => drain_timeout / 2,
            false => r.upto(drain_timeout),
        },
        drain_delay: r.weighted(&[(6, secs(0)), (2, millis(200)), (1, secs(1)), (1, secs(3))]),
        surge: surge(r),
        canary: Canary {
            count: r.pick(&[0, 0, 1, 1, 2, 5]),
            watch: r.weighted(&[(1, secs(0)), (2, millis(300)), (4, secs(2)), (1, secs(20))]),
            share: r.pick(&[0, 0, 10, 99]),
        },
        recycle: recycle(r, workers),
        balance,
        cpus: (0..r.range(1, 4) as u16).collect(),
        takeover,
        seed: r.bits(),
        ready_quorum: 1,
        checks: checking::none(),
        learn_from: r.pick(&[1, 1, 1024]),
        most: match r.percent(30) {
            true => workers + r.below(2) as u16,
            false => MAX_WORKERS,
        },
    };
    // (No dice of its own: what a seed draws else stays what it was.)
    policy.ready_quorum = match policy.seed % 5 {
        0 => workers,
        1 => workers.min(2),
        _ => 1,
    };
    policy.checks = checking::drawn(policy.seed);
    policy
}

/// How far workers may come until they are replaced: mostly as far as they like.
fn recycle(r: &mut Prng, workers: u16) -> Recycle {
    // (Of very many somebody is always due.)
    let some = r.percent(15) && workers <= 16;
    let age = r.pick(&[
        None,
        None,
        None,
        Some(secs(4)),
        Some(secs(30)),
        Some(secs(30)),
    ]);
    Recycle {
        age: age.filter(|_| some),
        rss: (some && r.one_in(2)).then_some(RSS),
        connections: (some && r.one_in(2)).then_some(100),
        jitter: r.pick(&[0, 10, 50]),
    }
}

/// How long a worker may take to be emptied: mostly a while, sometimes no time at all.
fn drain_timeout(r: &mut Prng) -> Duration {
    let any = r.ms(0, 20_000);
    r.weighted(&[(1, secs(0)), (2, millis(50)), (4, secs(10)), (6, any)])
}

/// How many workers more there may be: none, some, as many again.
fn surge(r: &mut Prng) -> Surge {
    let percent = Surge::Percent(r.range(1, 100) as u16);
    let count = Surge::Count(r.range(1, 10) as u16);
    r.weighted(&[
        (6, Surge::Percent(100)),
        (3, percent),
        (3, count),
        (1, Surge::Percent(0)),
        (2, Surge::Count(0)),
    ])
}

/// How the world is.
pub fn faults(r: &mut Prng, policy: &Policy) -> Faults {
    let quick = matches!(policy.ready, ReadyRule::Started | ReadyRule::Listening);
    let slow = policy.drain == Drain::Connections && policy.drain_timeout >= secs(6);
    if (6..=16).contains(&policy.workers) && quick && slow && r.percent(70) {
        return generations(r);
    }
    let chaos = r.pick(&[secs(1), secs(5), secs(20), secs(60), secs(120)]);
    let stopped_early = r.percent(35);
    let mut mischief = nuisances::nuisances(r, chaos);
    mischief.extend(nuisances::rotations(policy.seed, chaos));
    mischief.extend(nuisances::closings(policy.seed, chaos));
    if stopped_early {
        let at = chaos.min(r.ms(0, 20_000));
        mischief.extend(nuisances::stops(r, at, policy));
    }
    Faults {
        mix: mix(r, policy),
        spawn_fails: r.weighted(&[(12, 0), (3, 5), (3, 40), (1, 100)]),
        given_fails: r.weighted(&[
            (60, None),
            (2, Some(98)),
            (2, Some(13)),
            (1, Some(1)),
            (1, Some(99)),
        ]),
        learnt_fails: r.weighted(&[(4, 0), (1, 30), (1, 100)]),
        adopt_fails: r.weighted(&[(6, 0), (1, 30), (1, 100)]),
        listen_fails: r.weighted(&[(8, 0), (1, 30)]),
        latency: r.pick(&[
            secs(0),
            Duration::from_micros(10),
            millis(1),
            millis(20),
            millis(300),
        ]),
        shuffled: r.percent(70),
        old_kernel: r.percent(30),
        nameless: r.percent(15),
        pids_reused: r.percent(50),
        // (Where there can be one lane only nobody can be asked alone, nor gets ready.)
        alone: r.percent(20) && policy.ready != ReadyRule::Answers,
        shut_downs: r.percent(40),
        sight: r.weighted(&[(8, Sight::Full), (1, Sight::LookOnly), (1, Sight::None)]),
        holds: r.percent(70),
        census_takes: r.pick(&[secs(0), secs(0), millis(1), millis(50)]),
        clients: Clients::draw(r),
        chaos,
        mischief,
        stopped_early,
    }
}

/// Generation after generation, of each of which somebody has an answer without an end that nobody can
/// end from outside: more than may be drained. (Where they can have lanes of their own they go together,
/// and make room.)
fn generations(r: &mut Prng) -> Faults {
    let reload = |n: u64| {
        let at = millis(1500 + 700 * n);
        // (Nobody is watched, or the next one would come before it is over.)
        let terms = Terms {
            watch: Some(Duration::ZERO),
            ..Terms::default()
        };
        let reload = Reload {
            terms,
            ..Reload::same()
        };
        (at, Mischief::Reload(reload))
    };
    Faults {
        alone: true,
        sight: Sight::LookOnly,
        clients: Clients::endless(),
        latency: r.upto(millis(1)),
        chaos: secs(15),
        mischief: (0..16).map(reload).collect(),
        ..calm()
    }
}

/// Which behaviours, and how often: some seeds have one broken command and nothing else, as people do.
fn mix(r: &mut Prng, policy: &Policy) -> Vec<(u32, Kind)> {
    let mut mix = any_mix(r);
    if policy.ready == ReadyRule::Answers {
        // Where they listen by themselves none can be asked alone.
        mix.retain(|(_, kind)| !matches!(kind, Kind::OwnSocket | Kind::Refused));
        mix.push((1, Kind::Good));
    }
    mix
}

fn any_mix(r: &mut Prng) -> Vec<(u32, Kind)> {
    if r.percent(20) {
        return vec![(1, r.pick(Kind::ALL))];
    }
    if r.percent(4) {
        // Enough of these to leave more dead workers' trees than are kept.
        return vec![(1, Kind::Daemonizer)];
    }
    if r.percent(4) {
        // Servers whose sockets stay their own, and with luck one whose does not.
        return vec![(3, Kind::Snagged), (1, Kind::Good)];
    }
    let mut mix = vec![(r.pick(&[1, 4, 16]), Kind::Good)];
    let share = r.pick(&[5, 20, 50]);
    for kind in Kind::ALL {
        if r.percent(share) {
            mix.push((r.range(1, 4) as u32, *kind));
        }
    }
    mix
}
