//! Respawns that have a limit, slots that are finished or given up, and when the master leaves on
//! account of that.

use super::*;
use crate::core::notice::Next;
use crate::core::respawn::SETTLED;

fn limited(workers: u16) -> Policy {
    Policy {
        workers,
        start_timeout: None,
        ready: ReadyRule::Started,
        respawn: Duration::ZERO,
        ..policy()
    }
}

fn notes(actions: &[Action], event: &str) -> Vec<String> {
    let pick = |a: &Action| match a {
        Action::Note(n) if n.event() == event => Some(n.to_string()),
        _ => None,
    };
    actions.iter().filter_map(pick).collect()
}

fn states(r: &Rig) -> Vec<&'static str> {
    let s = r.cluster.status(r.now);
    s.slots.iter().map(|v| v.state).collect()
}

/// A worker runs in slot 0 and crashes, so many times.
fn crash(r: &mut Rig, times: usize) {
    for _ in 0..times {
        let ids = r.run_spawns();
        r.exits(ids[0], Exit::Code(1));
    }
}

#[test]
fn in_no_minute_are_there_more_respawns_than_the_limit_and_the_next_waits_for_room() {
    let mut r = Rig::new(Policy {
        restarts_per_minute: 3,
        ..limited(1)
    });
    crash(&mut r, 3);
    r.at(1000);
    crash(&mut r, 1);
    let actions = r.did();
    assert_eq!(spawns(&actions), 0);
    assert_eq!(
        notes(&actions, "crash-loop"),
        [
            "crash loop: 3 respawns within a minute (limit 3, --restarts-per-minute): slot 0 waits, next try in 59s; the cluster goes on with 0/1 workers ready"
        ]
    );
    assert!(
        notes(&actions, "died")[0].ends_with("slot is held back for 59s (--restarts-per-minute 3)")
    );
    let status = r.cluster.status(r.now);
    assert_eq!(
        status.standing,
        [
            "3 respawns in the last minute (limit 3, --restarts-per-minute); a crash loop: the next one is held back for 59s"
        ]
    );
    assert_eq!(states(&r), ["waiting"]);
    assert!(matches!(
        status.deaths.last().expect("one has ended").next,
        Next::HeldBack { limit: 3, .. }
    ));
    r.at(59_999);
    assert_eq!(spawns(&r.did()), 0);
    // The minute is over for all three; the same loop is not said again.
    r.at(60_000);
    crash(&mut r, 3);
    let actions = r.did();
    assert_eq!(
        (spawns(&actions), notes(&actions, "crash-loop").len()),
        (0, 0)
    );
    // More than a minute without one that waits: the next one is another episode.
    r.at(120_000);
    let ids = r.run_spawns();
    r.at(181_000);
    r.exits(ids[0], Exit::Code(1));
    crash(&mut r, 3);
    assert_eq!(notes(&r.did(), "crash-loop").len(), 1);
}

#[test]
fn several_that_are_held_back_wait_one_behind_the_other() {
    let mut r = Rig::new(Policy {
        restarts_per_minute: 2,
        ..limited(3)
    });
    let ids = r.run_spawns();
    r.at(10);
    r.exits(ids[0], Exit::Code(1));
    r.at(2010);
    r.exits(ids[1], Exit::Code(1));
    let new = r.run_spawns();
    assert_eq!(new.len(), 2);
    r.at(3000);
    r.exits(ids[2], Exit::Signal(11));
    r.exits(new[0], Exit::Signal(11));
    let at = |r: &Rig, nr| r.cluster.deadlines.get(Why::Respawn(SlotNr(nr)));
    assert_eq!((at(&r, 2), at(&r, 0)), (Some(ms(60_010)), Some(ms(62_010))));
    assert_eq!(notes(&r.did(), "crash-loop").len(), 1);
}

#[test]
fn what_was_due_is_held_back_if_another_one_had_the_room() {
    let mut r = Rig::new(Policy {
        restarts_per_minute: 1,
        respawn: Duration::from_secs(1),
        ..limited(2)
    });
    let ids = r.run_spawns();
    r.at(10);
    r.exits(ids[0], Exit::Code(1));
    r.exits(ids[1], Exit::Code(1));
    r.did();
    r.at(1010);
    let actions = r.did();
    assert_eq!(
        (spawns(&actions), notes(&actions, "crash-loop").len()),
        (1, 1)
    );
    let held = r.cluster.status(r.now).deaths.into_iter();
    let held = held.filter(|d| matches!(d.next, Next::HeldBack { .. }));
    assert_eq!(held.count(), 1, "it was to be respawned");
}

#[test]
fn a_crash_loop_can_be_the_end() {
    let mut r = Rig::new(Policy {
        restarts_per_minute: 2,
        on_crash_loop: OnCrashLoop::Exit,
        ..limited(2)
    });
    let ids = r.run_spawns();
    r.exits(ids[0], Exit::Code(1));
    crash(&mut r, 2);
    let actions = r.did();
    assert!(notes(&actions, "crash-loop")[0].ends_with("giving up (--on-crash-loop exit)"));
    // The other one has a worker, which stops gracefully.
    assert_eq!(notes(&actions, "stopping").len(), 1);
    r.at(20_000);
    r.exits(ids[1], Exit::Signal(15));
    r.tell(Event::Strays {
        left: Vec::new(),
        zombies: false,
    });
    assert_eq!(finished(&r.did()), Some(69));
}

#[test]
fn when_all_forks_are_used_up_slots_are_given_up_until_an_operator_asks_again() {
    let mut r = Rig::new(Policy {
        max_forks: 3,
        ..limited(2)
    });
    let ids = r.run_spawns();
    r.exits(ids[0], Exit::Code(1));
    crash(&mut r, 1);
    let actions = r.did();
    assert_eq!(spawns(&actions), 0);
    let said = notes(&actions, "max-forks");
    assert!(
        said[0].starts_with("3 workers were forked (limit 3, --max-forks): slot 0 stays empty")
    );
    assert!(said[0].ends_with("goes on with 1/2 workers ready"));
    assert_eq!(states(&r), ["given-up", "ready"]);
    assert_eq!(
        r.cluster.status(r.now).standing,
        ["3 forks (limit 3, --max-forks)"]
    );
    r.tell(Event::Signal(MasterSignal::Resize(
        Size::More(1),
        "SIGTTIN received",
    )));
    r.at(1000);
    assert_eq!(
        r.run_spawns().len(),
        2,
        "the third, and that which was given up"
    );
    assert_eq!(states(&r), ["ready"; 3]);
    assert_eq!(r.cluster.used(r.now).forks, Some((2, 3)));
}

#[test]
fn when_all_are_given_up_or_it_is_to_be_the_end_the_master_leaves() {
    for on_crash_loop in [OnCrashLoop::Degrade, OnCrashLoop::Exit] {
        let mut r = Rig::new(Policy {
            max_forks: 1,
            on_crash_loop,
            ..limited(1)
        });
        crash(&mut r, 1);
        let degrade = on_crash_loop == OnCrashLoop::Degrade;
        let actions = r.did();
        assert_eq!(notes(&actions, "none-left").len(), usize::from(degrade));
        r.tell(Event::Strays {
            left: Vec::new(),
            zombies: false,
        });
        assert_eq!(finished(&r.did()), Some(69));
    }
}

#[test]
fn a_slot_whose_worker_exits_0_is_finished_and_the_highest_status_is_ours() {
    let mut r = Rig::new(Policy {
        respawn_on: RespawnOn::Failure,
        ..limited(2)
    });
    let ids = r.run_spawns();
    r.exits(ids[0], Exit::Code(0));
    let actions = r.did();
    assert!(notes(&actions, "died")[0].ends_with("; slot is finished (--respawn-on)"));
    assert_eq!(states(&r), ["finished", "ready"]);
    // A failure is respawned all the same.
    r.exits(ids[1], Exit::Code(7));
    let ids = r.run_spawns();
    assert_eq!(ids.len(), 1);
    assert!(notes(&r.did(), "stopping").is_empty());
    r.exits(ids[0], Exit::Code(0));
    assert_eq!(r.cluster.status(r.now).standing.len(), 1);
    r.tell(Event::Strays {
        left: Vec::new(),
        zombies: false,
    });
    assert_eq!(finished(&r.did()), Some(0));
}

#[test]
fn if_no_end_brings_another_worker_one_by_a_signal_counts_as_in_a_shell() {
    let mut r = Rig::new(Policy {
        respawn_on: RespawnOn::Never,
        ..limited(3)
    });
    let ids = r.run_spawns();
    for (id, exit) in ids
        .into_iter()
        .zip([Exit::Code(3), Exit::Signal(15), Exit::Code(0)])
    {
        r.exits(id, exit);
    }
    let said = notes(&r.did(), "none-left");
    assert_eq!(
        said,
        [
            "all slots are finished (--respawn-on): leaving with exit 143, the highest status of a worker: 128 and 15, for SIGTERM"
        ]
    );
    assert_eq!(r.cluster.status(r.now).standing, said);
    // The first signal asks for no more than is under way.
    r.tell(Event::Signal(MasterSignal::Stop("SIGTERM received")));
    assert!(notes(&r.did(), "hard-stop").is_empty());
    r.tell(Event::Strays {
        left: Vec::new(),
        zombies: false,
    });
    assert_eq!(finished(&r.did()), Some(143));
}

#[test]
fn the_start_is_over_when_those_that_have_not_finished_are_ready() {
    let mut r = Rig::new(Policy {
        respawn_on: RespawnOn::Failure,
        ready: ReadyRule::Said,
        ..limited(2)
    });
    let ids = r.run_spawns();
    r.says_ready(ids[0]);
    r.did();
    r.exits(ids[1], Exit::Code(0));
    assert_eq!(notes(&r.did(), "all-ready").len(), 1);
}

#[test]
fn killed_for_want_of_memory_is_a_cause_of_its_own() {
    let mut r = Rig::new(limited(1));
    for (oom, cause, text) in [
        (Oom::No, Cause::Failure, "failure (SIGKILL)"),
        (Oom::Yes, Cause::Oom(Oom::Yes), "oom (SIGKILL)"),
        (
            Oom::Probably,
            Cause::Oom(Oom::Probably),
            "oom, probably (SIGKILL)",
        ),
    ] {
        let worker = r.run_spawns()[0];
        r.tell(Event::Exited {
            worker,
            status: Exit::Signal(9),
            oom,
            last: String::new(),
        });
        let status = r.cluster.status(r.now);
        assert_eq!(status.deaths.last().expect("one has ended").cause, cause);
        let said = notes(&r.out, "died");
        assert!(said[0].contains(text), "{said:?}");
    }
}

#[test]
fn a_master_that_was_stopped_gives_those_it_did_not_hear_their_time_anew() {
    let mut r = Rig::new(Policy {
        watchdog: Some(Duration::from_secs(4)),
        ..limited(2)
    });
    let ids = r.run_spawns();
    r.says(ids[0], Word::Ping);
    r.did();
    // With its workers, as by a container that is paused.
    r.at(60_000);
    assert!(signals(&r.did()).is_empty());
    r.at(63_999);
    assert!(signals(&r.did()).is_empty());
    r.at(64_000);
    let hung = ids.iter().map(|w| (*w, 6, Whom::Leader));
    assert_eq!(signals(&r.did()), hung.collect::<Vec<_>>());
}

#[test]
fn one_that_hangs_and_never_said_that_it_was_well_waits_longer_each_time() {
    let limit = 3 * SETTLED;
    let mut r = Rig::new(Policy {
        watchdog: Some(limit),
        respawn: Duration::from_millis(100),
        ..limited(1)
    });
    let mut at = 0;
    let mut delays = Vec::new();
    for pings in [false, false, false, true] {
        let worker = r.run_spawns()[0];
        if pings {
            let word = Word::Ping;
            r.tell(Event::Said { worker, word });
        }
        at += 3000;
        r.at(at);
        r.did();
        r.exits(worker, Exit::Signal(6));
        let Next::Respawn(delay) = r
            .cluster
            .status(r.now)
            .deaths
            .last()
            .expect("one has ended")
            .next
        else {
            panic!("it is respawned");
        };
        delays.push(delay.as_millis() as u64);
        at += 1000;
        r.at(at);
    }
    for (delay, most) in delays.iter().zip([100, 200, 400, 0]) {
        assert!((most * 4 / 5..=most).contains(delay), "{delays:?}");
    }
}
