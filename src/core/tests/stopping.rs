//! The end of the cluster, driven by hand.

use super::*;

/// Workers are asked to stop at once.
fn undrained() -> Policy {
    Policy {
        drain: Drain::None,
        ..policy()
    }
}

#[test]
fn term_twice_is_a_hard_stop_and_exit_1() {
    let mut r = Rig::new(undrained());
    let ids = r.run_spawns();
    r.did();
    r.tell(Event::Signal(TERM));
    let want: Vec<_> = ids.iter().map(|w| (*w, 15, Whom::Leader)).collect();
    assert_eq!(signals(&r.did()), want);
    // What comes right behind it is the same one, heard twice.
    r.now = ms(99);
    r.tell(Event::Signal(TERM));
    assert_eq!(signals(&r.did()), []);
    r.now = ms(100);
    r.tell(Event::Signal(INT));
    let want: Vec<_> = ids.iter().map(|w| (*w, 9, Whom::Group)).collect();
    assert_eq!(signals(&r.did()), want);
    for w in ids {
        r.exits(w, Exit::Signal(9));
    }
    r.tell(Event::Strays {
        left: Vec::new(),
        zombies: false,
    });
    assert_eq!(finished(&r.did()), Some(1));
}

#[test]
fn a_stop_passes_over_to_the_group_and_then_kills() {
    let mut p = undrained();
    p.workers = 2;
    let mut r = Rig::new(p);
    let ids = r.run_spawns();
    r.did();
    r.tell(Event::Stop {
        asker: Asker(7),
        hard: false,
        by: By {
            pid: Pid(4711),
            uid: 0,
        },
    });
    let by = |a: &Action| matches!(a, Action::Note(n) if n.to_string().contains("pid 4711"));
    assert_eq!(r.out.iter().filter(|a| by(a)).count(), 1);
    r.did();
    r.tell(Event::Exited {
        worker: ids[0],
        status: Exit::Signal(15),
        oom: Oom::No,
        last: String::new(),
    });
    assert_eq!(signals(&r.did()), [(ids[0], 15, Whom::Group)]);
    r.at(10_000);
    assert_eq!(signals(&r.did()), [(ids[1], 9, Whom::Group)]);
    r.exits(ids[1], Exit::Signal(9));
    let left = vec![Pid(999)];
    r.tell(Event::Strays {
        left,
        zombies: false,
    });
    let did = r.did();
    let swept = |a: &Action| matches!(a, Action::SweepStrays { signal: Some(9) });
    assert!(did.iter().any(swept), "{did:?}");
    r.tell(Event::StrayReaped);
    r.tell(Event::Strays {
        left: Vec::new(),
        zombies: false,
    });
    let did = r.did();
    let told = |a: &Action| {
        matches!(
            a,
            Action::Answer {
                asker: Asker(7),
                outcome: Outcome::Ended { code: 0, .. },
            }
        )
    };
    assert!(did.iter().any(told));
    assert_eq!(finished(&did), Some(0));
}

#[test]
fn a_hard_stop_while_leftovers_are_waited_for_calls_nobody_late() {
    let mut p = policy();
    p.workers = 1;
    let mut r = Rig::new(p);
    let ids = r.run_spawns();
    r.tell(Event::Signal(TERM));
    r.exits(ids[0], Exit::Signal(15));
    let left = vec![Pid(999)];
    r.tell(Event::Strays {
        left: left.clone(),
        zombies: false,
    });
    r.at(1_000);
    r.did();
    r.tell(Event::Signal(TERM));
    r.tell(Event::Strays {
        left,
        zombies: false,
    });
    let said: Vec<String> = r
        .did()
        .iter()
        .filter_map(|a| match a {
            Action::Note(n @ Notice::Leftovers { .. }) => Some(n.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("killing 1 "), "{said:?}");
}

#[test]
fn dead_workers_that_leave_processes_are_forgotten_in_the_end() {
    let mut p = policy();
    p.workers = 1;
    p.backoff = Duration::ZERO;
    p.respawn = Duration::from_millis(1);
    let mut r = Rig::new(p);
    let mut forgotten = 0;
    for n in 1..=(MAX_REMNANTS as u64 + 3) {
        let w = r.run_spawns()[0];
        r.tell(Event::Exited {
            worker: w,
            status: Exit::Code(0),
            oom: Oom::No,
            last: String::new(),
        });
        forgotten += r
            .out
            .iter()
            .filter(|a| matches!(a, Action::ForgetTree { .. }))
            .count();
        r.did();
        r.at(n * 10);
    }
    assert_eq!(forgotten, 3);
}

#[test]
fn a_signal_while_giving_up_keeps_the_reason_and_a_second_one_is_hard() {
    let mut p = policy();
    p.workers = 1;
    p.ready = ReadyRule::Listening;
    p.start_timeout = Some(Duration::from_secs(5));
    let mut r = Rig::new(p);
    let w = r.run_spawns()[0];
    r.at(5_000);
    r.did();
    r.tell(Event::Signal(TERM));
    assert_eq!(signals(&r.did()), []);
    let mut hard = r.cluster.clone();
    r.exits(w, Exit::Signal(15));
    r.tell(Event::Strays {
        left: Vec::new(),
        zombies: false,
    });
    assert_eq!(finished(&r.did()), Some(69));
    let mut out = Vec::new();
    hard.handle(Event::Signal(TERM), ms(5_100), &mut out);
    assert_eq!(signals(&out), [(w, 9, Whom::Group)]);
}

#[test]
fn what_becomes_ours_during_a_graceful_stop_is_asked_to_stop_too() {
    let mut p = policy();
    p.workers = 1;
    let mut r = Rig::new(p);
    let w = r.run_spawns()[0];
    r.tell(Event::Signal(TERM));
    r.exits(w, Exit::Signal(15));
    let left = vec![Pid(900)];
    r.tell(Event::Strays {
        left,
        zombies: false,
    });
    r.did();
    r.tell(Event::StrayReaped);
    let asked = |a: &Action| matches!(a, Action::SweepStrays { signal: Some(15) });
    assert!(r.did().iter().any(asked));
}

/// The lane is empty, and the worker has so many connections.
fn look(lane: LaneId, worker: WorkerId, open: u32, owed: u32) -> Event {
    let sight = Sight::Full;
    Event::Census {
        lanes: vec![LaneLook {
            lane,
            handshakes: 0,
            queued: 0,
        }],
        loads: vec![(worker, Load { open, owed, sight })],
        took: Duration::ZERO,
    }
}

#[test]
fn with_a_budget_there_is_a_moment_for_the_last_connections_too() {
    let mut r = Rig::new(Policy {
        workers: 1,
        given: vec![given("0.0.0.0:80")],
        ready: ReadyRule::Started,
        stop_budget: Some(Duration::from_secs(9)),
        ..policy()
    });
    let (lane, addr) = (LaneId(1), given("0.0.0.0:80").addr);
    r.tell(Event::LaneOpened { lane, addr });
    let worker = r.run_spawns()[0];
    r.did();
    r.tell(Event::Signal(TERM));
    let said = format!("{:?}", r.did());
    assert!(said.contains("RefuseNew"), "{said}");
    let look = |owed| look(lane, worker, 1, owed);
    let is = |a: &[Action], what: fn(&Action) -> bool| a.iter().any(what);
    let quiet: fn(&Action) -> bool = |a| matches!(a, Action::CloseQuiet { .. });
    let rest: fn(&Action) -> bool = |a| matches!(a, Action::CloseRest { .. });
    // Of 9 s half a second is the margin, a third of the rest is for the stop signal: 5.667 s, and of
    // these one second is for those that are never quiet.
    r.at(4_660);
    r.tell(look(0));
    let did = r.did();
    assert!(is(&did, quiet) && !is(&did, rest));
    r.at(4_670);
    r.tell(look(0));
    let did = r.did();
    assert!(!is(&did, quiet) && is(&did, rest));
    r.tell(Event::Closed { worker, count: 1 });
    // However long a look takes (of twice that the next one comes): there is one at the very end.
    let Event::Census { lanes, loads, .. } = look(1) else {
        panic!("it is a look");
    };
    let took = Duration::from_millis(800);
    r.tell(Event::Census { lanes, loads, took });
    assert_eq!(signals(&r.did()), []);
    let looks: fn(&Action) -> bool = |a| matches!(a, Action::TakeCensus { .. });
    r.at(5_635);
    assert!(!is(&r.did(), looks));
    r.at(5_637);
    assert!(is(&r.did(), looks));
    r.tell(look(1));
    r.did();
    r.at(5_667);
    let did = r.did();
    assert_eq!(signals(&did), [(worker, 15, Whom::Leader)]);
    let told = did.iter().find_map(|a| match a {
        Action::Note(n @ Notice::Drained { .. }) => Some(n.to_string()),
        _ => None,
    });
    let told = told.unwrap_or_default();
    let limit = "(limit 5.6s, so that the end comes within --stop-budget 9s)";
    assert!(told.contains("still has 1 connection after 5.6s"), "{told}");
    assert!(told.contains(limit), "{told}");
    assert!(
        told.contains("; 1 connection ended when the time"),
        "{told}"
    );
    r.at(8_500);
    assert_eq!(signals(&r.did()), [(worker, 9, Whom::Group)]);
}

/// One worker on one port, which is asked to stop.
fn stopping() -> (Rig, LaneId, WorkerId) {
    let mut r = Rig::new(Policy {
        workers: 1,
        given: vec![given("0.0.0.0:80")],
        ready: ReadyRule::Started,
        ..policy()
    });
    let (lane, addr) = (LaneId(1), given("0.0.0.0:80").addr);
    r.tell(Event::LaneOpened { lane, addr });
    let worker = r.run_spawns()[0];
    r.tell(Event::Signal(TERM));
    (r, lane, worker)
}

#[test]
fn a_connection_that_is_ended_after_the_last_look_is_not_said_to_be_cut_as_well() {
    let (mut r, lane, worker) = stopping();
    let look = |open| look(lane, worker, open, 1);
    let timeout = policy().drain_timeout.as_millis() as u64;
    r.tell(look(2));
    r.at(timeout);
    r.tell(look(2));
    r.did();
    r.tell(Event::Closed { worker, count: 1 });
    // (That was one look. It has its last moments three times.)
    for more in [1_000, 2_000] {
        r.at(timeout + more);
        assert_eq!(signals(&r.did()), []);
    }
    r.at(timeout + 3_000);
    let did = r.did();
    let told = did.iter().find_map(|a| match a {
        Action::Note(Notice::Drained { ended, cut, .. }) => Some((*ended, *cut)),
        _ => None,
    });
    assert_eq!(told, Some((1, 1)));
}

#[test]
fn the_last_moments_come_again_only_where_hardly_anybody_could_look() {
    let timeout = policy().drain_timeout.as_millis() as u64;
    // So many looks there were in them, and so much later it is asked to stop.
    for (looks, over) in [
        (1, 3_000),
        (5, 3_000),
        (6, 2_000),
        (11, 2_000),
        (12, 1_000),
        (40, 1_000),
    ] {
        let (mut r, lane, worker) = stopping();
        r.tell(look(lane, worker, 1, 1));
        for begin in [0, 1_000, 2_000] {
            r.at(timeout + begin);
            if begin == over {
                break;
            }
            for n in 0..looks {
                r.at(timeout + begin + 20 * (n + 1));
                r.tell(look(lane, worker, 1, 1));
            }
            assert_eq!(signals(&r.did()), [], "{looks} looks, {begin}");
        }
        r.at(timeout + over);
        assert_eq!(signals(&r.did()), [(worker, 15, Whom::Leader)], "{looks}");
    }
}
