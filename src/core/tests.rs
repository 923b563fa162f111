//! Core driven by hand: the transitions that a reader of the manual would ask about.

#![allow(clippy::wildcard_enum_match_arm)]

mod adoption;
mod balance;
mod crash;
mod health;
mod hung;
mod launch;
mod own;
mod probing;
mod stopping;
mod swap;

use super::policy::tests::policy;
use super::*;
use std::time::Duration;

/// What these ask for by default.
const TERM: MasterSignal = MasterSignal::Stop("SIGTERM received");
const INT: MasterSignal = MasterSignal::Stop("SIGINT received");

fn ms(n: u64) -> Time {
    Time(n * 1_000_000)
}

struct Rig {
    cluster: Cluster,
    out: Out,
    now: Time,
    next_pid: i32,
}

impl Rig {
    fn new(policy: Policy) -> Rig {
        let mut cluster = Cluster::new(policy, ms(0));
        let mut out = Vec::new();
        cluster.begin(ms(0), &mut out);
        Rig {
            cluster,
            out,
            now: ms(0),
            next_pid: 100,
        }
    }

    fn tell(&mut self, event: Event) {
        self.cluster.handle(event, self.now, &mut self.out);
    }

    fn at(&mut self, n: u64) {
        self.now = ms(n);
        self.tell(Event::Tick);
    }

    /// Takes the actions so far.
    fn did(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.out)
    }

    /// Answers every Spawn with a process that runs COMMAND.
    fn run_spawns(&mut self) -> Vec<WorkerId> {
        let mut ids = Vec::new();
        let mut actions = self.did();
        if self.cluster.fleet.iter().count() == 1 {
            // The first goes ahead; as if the others had been forked with it.
            for nr in self.cluster.slot_numbers() {
                self.cluster.deadlines.stop(Why::Respawn(nr));
            }
            self.cluster.spawn_due(self.now, &mut actions);
        }
        for action in actions {
            if let Action::Spawn { worker, .. } = action {
                self.next_pid += 1;
                let pid = Pid(self.next_pid);
                self.tell(Event::Spawned { worker, pid });
                self.tell(Event::Execed { worker });
                ids.push(worker);
            }
        }
        ids
    }

    /// The worker is blocked in bind(2) to that address.
    fn binds(&mut self, worker: WorkerId, ask: u64, addr: std::net::SocketAddr) {
        self.tell(Event::BindAsked {
            worker,
            ask: Ask(ask),
            addr: addr.into(),
            device: None,
            snag: None,
        });
    }

    fn says(&mut self, worker: WorkerId, word: Word) {
        self.tell(Event::Said { worker, word });
    }

    fn says_ready(&mut self, worker: WorkerId) {
        self.says(worker, Word::Ready);
    }

    fn exits(&mut self, worker: WorkerId, status: Exit) {
        let last = String::new();
        self.tell(Event::Exited {
            worker,
            status,
            oom: Oom::No,
            last,
        });
        self.tell(Event::TreeGone { worker });
    }
}

fn spawns(actions: &[Action]) -> usize {
    let spawn = |a: &&Action| matches!(a, Action::Spawn { .. });
    actions.iter().filter(spawn).count()
}

fn signals(actions: &[Action]) -> Vec<(WorkerId, i32, Whom)> {
    let pick = |a: &Action| match a {
        Action::Signal {
            worker,
            signal,
            whom,
        } => Some((*worker, *signal, *whom)),
        Action::Dismiss { worker, signal } => Some((*worker, *signal, Whom::Leader)),
        _ => None,
    };
    actions.iter().filter_map(pick).collect()
}

fn finished(actions: &[Action]) -> Option<u8> {
    actions.iter().find_map(|a| match a {
        Action::Finish(code) => Some(*code),
        _ => None,
    })
}

fn given(addr: &str) -> Given {
    addr.parse::<Addr>().unwrap().into()
}

#[test]
fn ports_are_opened_before_any_worker_is_spawned() {
    let mut p = policy();
    p.given = vec![given("0.0.0.0:80"), given("0.0.0.0:81")];
    let mut r = Rig::new(p);
    let lanes: Vec<LaneId> = r
        .did()
        .iter()
        .filter_map(|a| match a {
            Action::OpenLane {
                lane,
                what: Opening::Given(_),
                ..
            } => Some(*lane),
            _ => None,
        })
        .collect();
    assert_eq!(lanes.len(), 2);
    r.tell(Event::LaneOpened {
        lane: lanes[0],
        addr: "0.0.0.0:80".parse().unwrap(),
    });
    assert_eq!(spawns(&r.did()), 0);
    r.tell(Event::LaneOpened {
        lane: lanes[1],
        addr: "0.0.0.0:81".parse().unwrap(),
    });
    assert_eq!(spawns(&r.did()), 1);
    r.at(10);
    assert_eq!(spawns(&r.did()), 3);
}

#[test]
fn a_busy_port_is_exit_75_and_nothing_is_spawned() {
    let mut p = policy();
    p.given = vec![given("0.0.0.0:80")];
    let mut r = Rig::new(p);
    r.did();
    r.tell(Event::LaneFailed {
        lane: LaneId(1),
        errno: 98,
        holder: None,
    });
    let did = r.did();
    assert_eq!(spawns(&did), 0);
    assert!(did.iter().any(|a| matches!(a, Action::SweepStrays { .. })));
    r.tell(Event::Strays {
        left: Vec::new(),
        zombies: false,
    });
    assert_eq!(finished(&r.did()), Some(75));
}

#[test]
fn a_port_probe_does_not_count_as_ready() {
    let mut p = policy();
    p.workers = 1;
    p.ready = ReadyRule::Listening;
    let mut r = Rig::new(p);
    let w = r.run_spawns()[0];
    let addr = "0.0.0.0:3000".parse().unwrap();
    r.binds(w, 1, addr);
    r.tell(Event::LaneOpened {
        lane: LaneId(1),
        addr: addr.into(),
    });
    let lent = |a: &Action| matches!(a, Action::Lend { ask: Ask(1), .. });
    assert!(r.did().iter().any(lent));
    let listen = |r: &mut Rig, ask| {
        r.tell(Event::ListenAsked {
            worker: w,
            ask: Ask(ask),
            lane: LaneId(1),
        });
        r.tell(Event::Listens {
            worker: w,
            lane: LaneId(1),
        });
    };
    listen(&mut r, 2);
    assert_eq!(r.cluster.ready_count(), 0);
    r.at(50);
    let check = |a: &Action| matches!(a, Action::CheckHeld { .. });
    assert!(r.did().iter().any(check));
    r.tell(Event::Seen {
        worker: w,
        what: Seen::Nothing,
    });
    assert_eq!(r.cluster.ready_count(), 0);
    listen(&mut r, 3);
    r.at(100);
    r.tell(Event::Seen {
        worker: w,
        what: Seen::Holds,
    });
    assert_eq!(r.cluster.ready_count(), 1);
    // From now on the command is known not to probe: its next worker is ready at listen(2).
    r.exits(w, Exit::Signal(9));
    r.at(1_000);
    let w = r.run_spawns()[0];
    let lane = LaneId(1);
    r.tell(Event::Listens { worker: w, lane });
    assert_eq!(r.cluster.ready_count(), 1);
}

#[test]
fn a_worker_that_dies_young_waits_and_a_settled_one_does_not() {
    let mut p = policy();
    p.workers = 1;
    let mut r = Rig::new(p);
    let w = r.run_spawns()[0];
    r.at(10);
    r.exits(w, Exit::Code(1));
    let did = r.did();
    assert_eq!(spawns(&did), 0);
    assert_eq!(signals(&did), [(w, 9, Whom::Group)]);
    r.at(111);
    let w = r.run_spawns()[0];
    r.at(1_111);
    assert_eq!(r.cluster.ready_count(), 1);
    r.at(2_111);
    r.exits(w, Exit::Code(1));
    assert_eq!(spawns(&r.did()), 1);
}

#[test]
fn never_ready_gives_up_with_69_and_the_last_words() {
    let mut p = policy();
    p.workers = 1;
    p.ready = ReadyRule::Listening;
    p.start_timeout = Some(Duration::from_secs(5));
    let mut r = Rig::new(p);
    let w = r.run_spawns()[0];
    r.tell(Event::Exited {
        worker: w,
        status: Exit::Code(3),
        oom: Oom::No,
        last: "SyntaxError".into(),
    });
    r.tell(Event::TreeGone { worker: w });
    r.at(4_999);
    let w = r.run_spawns()[0];
    r.at(5_000);
    let did = r.did();
    let said = |a: &Action| match a {
        Action::Note(n @ Notice::NeverReady { .. }) => n.to_string().ends_with("SyntaxError"),
        _ => false,
    };
    assert!(did.iter().any(said));
    r.exits(w, Exit::Signal(15));
    r.tell(Event::Strays {
        left: Vec::new(),
        zombies: false,
    });
    assert_eq!(finished(&r.did()), Some(69));
}

#[test]
fn of_one_that_listened_too_late_it_is_not_said_that_it_never_did() {
    for (listens, hinted) in [(false, true), (true, false)] {
        let mut p = policy();
        p.workers = 1;
        p.ready = ReadyRule::Listening;
        p.start_timeout = Some(Duration::from_secs(5));
        let mut r = Rig::new(p);
        let worker = r.run_spawns()[0];
        r.now = ms(4_990);
        if listens {
            let lane = LaneId(1);
            r.tell(Event::Listens { worker, lane });
        }
        r.at(5_000);
        let said = |a: &Action| match a {
            Action::Note(Notice::NeverReady { hint, .. }) => Some(hint.is_some()),
            _ => None,
        };
        assert_eq!(r.did().iter().find_map(said), Some(hinted));
    }
}

#[test]
fn what_failed_before_the_command_is_told_with_the_death() {
    let mut r = Rig::new(policy());
    let worker = WorkerId(1);
    r.did();
    let pid = Pid(100);
    r.tell(Event::Spawned { worker, pid });
    r.tell(Event::ExecFailed {
        worker,
        step: "dup2",
        errno: 24,
    });
    r.tell(Event::Exited {
        worker,
        status: Exit::Code(127),
        oom: Oom::No,
        last: String::new(),
    });
    let death = r.cluster.status(r.now).deaths.pop().unwrap();
    assert_eq!(death.cause, notice::Cause::NotStarted);
    assert_eq!(death.last, "dup2: Too many open files");
}

#[test]
fn a_command_that_cannot_be_executed_is_not_tried_again() {
    for (errno, code) in [(2, 127), (13, 126), (8, 126)] {
        let mut p = policy();
        p.workers = 1;
        let mut r = Rig::new(p);
        let worker = WorkerId(1);
        r.did();
        r.tell(Event::Spawned {
            worker,
            pid: Pid(5),
        });
        r.tell(Event::ExecFailed {
            worker,
            step: EXEC_STEP,
            errno,
        });
        r.exits(worker, Exit::Code(127));
        r.tell(Event::Strays {
            left: Vec::new(),
            zombies: false,
        });
        let did = r.did();
        assert_eq!(finished(&did), Some(code));
        assert_eq!(spawns(&did), 0);
    }
}

#[test]
fn the_servers_own_socket_closes_ours_beside_it() {
    let mut p = policy();
    p.workers = 1;
    let addr: std::net::SocketAddr = "0.0.0.0:80".parse().unwrap();
    p.given = vec![given("0.0.0.0:80")];
    let mut r = Rig::new(p);
    r.did();
    r.tell(Event::LaneOpened {
        lane: LaneId(1),
        addr: addr.into(),
    });
    let w = r.run_spawns()[0];
    r.tell(Event::TakeoverRefused {
        worker: w,
        errno: 16,
    });
    r.tell(Event::Seen {
        worker: w,
        what: Seen::OwnSocket(addr),
    });
    let closed = |a: &Action| matches!(a, Action::CloseLane { lane: LaneId(1) });
    assert!(r.did().iter().any(closed));
    assert_eq!(r.cluster.ready_count(), 1);
}

#[test]
fn without_a_known_port_a_worker_is_ready_when_it_listens_or_has_lived_for_a_second() {
    let mut p = policy();
    p.workers = 2;
    let mut r = Rig::new(p);
    let ids = r.run_spawns();
    assert_eq!(r.cluster.ready_count(), 0);
    let addr = "0.0.0.0:3000".parse().unwrap();
    r.binds(ids[0], 1, addr);
    let lane = LaneId(1);
    r.tell(Event::LaneOpened {
        lane,
        addr: addr.into(),
    });
    r.tell(Event::ListenAsked {
        worker: ids[0],
        ask: Ask(2),
        lane,
    });
    r.tell(Event::Listens {
        worker: ids[0],
        lane,
    });
    r.at(50);
    r.tell(Event::Seen {
        worker: ids[0],
        what: Seen::Holds,
    });
    assert_eq!(r.cluster.ready_count(), 1);
    r.at(999);
    assert_eq!(r.cluster.ready_count(), 1);
    r.at(1_000);
    assert_eq!(r.cluster.ready_count(), 2);
    assert_eq!(r.cluster.deadline(), None);
}

#[test]
fn a_port_beyond_the_limit_is_left_to_the_kernel() {
    let mut p = policy();
    p.workers = 2;
    let mut r = Rig::new(p);
    let w = r.run_spawns()[0];
    for n in 1..=65u64 {
        let addr = format!("0.0.0.0:{}", 3000 + n).parse().unwrap();
        r.binds(w, n, addr);
        let lane = LaneId(n);
        r.tell(Event::LaneOpened {
            lane,
            addr: addr.into(),
        });
    }
    let did = r.did();
    let lent = did.iter().filter(|a| matches!(a, Action::Lend { .. }));
    assert_eq!(lent.count(), 64);
    let passed = |a: &Action| matches!(a, Action::Pass { ask: Ask(65) });
    assert!(did.iter().any(passed));
}

#[test]
fn a_worker_that_may_not_have_been_heard_is_not_taken_for_one_that_hangs() {
    let mut p = policy();
    p.workers = 1;
    p.ready = ReadyRule::Started;
    p.watchdog = Some(Duration::from_secs(1));
    let mut r = Rig::new(p);
    let worker = r.run_spawns()[0];
    let hangs = |did: &[Action]| {
        let hung = |a: &Action| match a {
            Action::Note(Notice::Hangs {
                how: Hang::Silent { ever, .. },
                ..
            }) => Some(*ever),
            _ => None,
        };
        did.iter().find_map(hung)
    };
    r.at(900);
    r.tell(Event::Said {
        worker,
        word: Word::Unheard,
    });
    r.at(1_800);
    assert_eq!(hangs(&r.did()), None);
    r.at(1_900);
    // It is not said that it had ever spoken.
    assert_eq!(hangs(&r.did()), Some(false));
}

#[test]
fn a_signal_to_the_master_may_be_passed_on_and_where_nobody_is_meant_that_is_said() {
    let mut r = Rig::new(policy());
    let ids = r.run_spawns();
    r.did();
    let relay = |target| MasterSignal::Relay {
        signal: 28,
        target,
        why: "SIGWINCH received",
    };
    r.tell(Event::Signal(relay(Target::Slot(1))));
    assert_eq!(signals(&r.did()), [(ids[1], 28, Whom::Leader)]);
    r.tell(Event::Signal(relay(Target::Slot(99))));
    let said: Vec<String> = r
        .did()
        .iter()
        .filter_map(|a| match a {
            Action::Note(n) => Some(n.to_string()),
            _ => None,
        })
        .collect();
    let want =
        "SIGWINCH received, but no worker that is meant by 'slot:99' runs: SIGWINCH goes to nobody";
    assert_eq!(said, [want]);
}

#[test]
fn a_signal_is_not_passed_on_to_what_never_came_to_the_command() {
    let mut p = policy();
    p.workers = 1;
    let mut r = Rig::new(p);
    let worker = WorkerId(1);
    r.did();
    let pid = Pid(100);
    r.tell(Event::Spawned { worker, pid });
    let (step, errno) = ("exec", 2);
    r.tell(Event::ExecFailed {
        worker,
        step,
        errno,
    });
    // (The cluster ends of that, and the worker by itself.)
    r.did();
    r.tell(Event::Signal(MasterSignal::Relay {
        signal: 28,
        target: Target::All,
        why: "SIGWINCH received",
    }));
    assert_eq!(signals(&r.did()), []);
}

#[test]
fn a_ready_worker_that_says_it_is_not_well_hangs_at_once_and_one_that_starts_does_not() {
    let mut p = policy();
    p.ready = ReadyRule::Said;
    let mut r = Rig::new(p);
    let worker = r.run_spawns()[0];
    let trigger = Word::Trigger;
    r.did();
    r.tell(Event::Said {
        worker,
        word: trigger,
    });
    assert_eq!(signals(&r.did()), []);
    let word = Word::Ready;
    r.tell(Event::Said { worker, word });
    r.did();
    r.tell(Event::Said {
        worker,
        word: trigger,
    });
    assert_eq!(signals(&r.did()), [(worker, 6, Whom::Leader)]);
    // Once.
    r.tell(Event::Said {
        worker,
        word: trigger,
    });
    assert_eq!(signals(&r.did()), []);
    r.at(2000);
    assert_eq!(signals(&r.did()), [(worker, 9, Whom::Group)]);
}
