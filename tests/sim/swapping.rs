//! Directed stories of swaps: one worker is replaced while the others go on. The judge sees to it that no
//! client is lost where each worker has a queue of its own, and that there is never more than one.

use crate::draw::Mischief;
use crate::kernel::SIGKILL;
use crate::plan::{Kind, Plan, Step};
use crate::reloading::{answer, at_rest, busy, generations, good, pids, reload, reloaded, serving};
use crate::stories::{a, ms, of, secs, stop, told};
use crate::world::World;
use minicluster::core::{
    Balance, Hitch, OnCrashLoop, Outcome, Policy, Recycle, Size, Surge, Target, Word,
};

/// So many workers, each with a queue of its own.
fn apart(workers: u16) -> Policy {
    Policy {
        balance: Balance::Hash,
        ..of(workers)
    }
}

fn restart(w: &mut World, slot: u32) {
    w.mischief(Mischief::Restart {
        target: Target::Slot(slot),
        wait: true,
    });
    w.run(ms(0));
}

fn not_restarted(outcome: Outcome) -> Hitch {
    match outcome {
        Outcome::NotRestarted { hitch, .. } => hitch,
        other => panic!("{other:?}"),
    }
}

#[test]
fn workers_age_and_are_replaced_and_no_client_notices() {
    let mut policy = apart(4);
    policy.recycle = Recycle {
        age: Some(secs(20)),
        jitter: 50,
        ..Recycle::default()
    };
    // How many more a reload may have is of no account.
    policy.surge = Surge::Count(0);
    let mut w = serving(policy, busy(), secs(40));
    w.run(secs(60));
    let n = w.cover.count("Mark::Swapped");
    assert!((12..=40).contains(&n), "{n} swaps");
    assert_eq!(w.cover.count("Mark::LostByCrash"), 0);
    assert_eq!(w.cover.count("Mark::LostLate"), 0);
    assert_eq!(w.judge.ready(), 4);
    assert_eq!(generations(&w), [1; 4]);
    assert_eq!(stop(&mut w).0, Some(0));
}

#[test]
fn restarts_that_are_asked_for_at_once_are_made_one_after_the_other() {
    let mut w = serving(apart(3), busy(), secs(4));
    let old = pids(&w);
    for slot in [2, 0, 1] {
        w.mischief(Mischief::Restart {
            target: Target::Slot(slot),
            wait: true,
        });
    }
    assert!(w.run_until(secs(60), |w| w.answers.len() == 3));
    for (n, (_, outcome)) in w.answers.iter().enumerate() {
        let slot = [2, 0, 1][n];
        let fits = matches!(outcome, Outcome::Restarted { old, .. } if old.slot.0 == slot);
        assert!(fits, "{outcome:?}");
    }
    assert!(pids(&w).iter().all(|p| !old.contains(p)));
    assert_eq!(w.cover.count("Mark::LostLate"), 0);
    at_rest(&mut w);
}

#[test]
fn a_successor_that_fails_changes_nothing_for_the_old_one() {
    let mut w = serving(apart(2), busy(), secs(2));
    let old = pids(&w);
    w.script = vec![crash_at_once()].into();
    restart(&mut w, 1);
    assert!(matches!(
        not_restarted(answer(&mut w, secs(40))),
        Hitch::Died(_)
    ));
    w.faults.spawn_fails = 100;
    restart(&mut w, 1);
    let hitch = not_restarted(w.answers[1].1.clone());
    assert!(matches!(hitch, Hitch::NotForked { .. }));
    w.faults.spawn_fails = 0;
    assert_eq!(pids(&w), old);
    assert_eq!(w.judge.ready(), 2);
    w.script.clear();
    at_rest(&mut w);
}

#[test]
fn one_that_is_due_is_tried_again_later_each_time() {
    let mut policy = apart(1);
    policy.recycle.age = Some(secs(5));
    let mut w = told(policy, vec![], Kind::Good);
    assert!(w.run_until(secs(5), |w| w.judge.ready() == 1));
    let old = pids(&w);
    w.script = (0..4).map(|_| crash_at_once()).collect();
    assert!(w.run_until(secs(10), |w| w.cover.count("Mark::SwapFailed") == 4));
    assert_eq!(pids(&w), old);
    let since = w.now;
    assert!(w.run_until(secs(10), |w| w.cover.count("Mark::Swapped") == 1));
    // 100 ms, doubled three times, less a fifth.
    assert!(w.now - since >= ms(640), "{:?}", w.now - since);
    assert_eq!(stop(&mut w).0, Some(0));
}

fn crash_at_once() -> Plan {
    Plan {
        steps: vec![(ms(1), Step::End(minicluster::core::Exit::Code(1)))],
        ..a(Kind::Crash)
    }
}

#[test]
fn if_the_old_one_ends_first_its_successor_has_the_place() {
    let mut w = told(apart(2), vec![], Kind::Good);
    w.run(secs(5));
    w.script = vec![a(Kind::Slow)].into();
    restart(&mut w, 0);
    assert!(w.judge.places[0].successor.is_some());
    let old = w.judge.places[0].worker.unwrap();
    let serial = w.leader(old).unwrap();
    w.end(serial, minicluster::core::Exit::Signal(SIGKILL));
    let forks = w.cover.count("Action::Spawn");
    assert!(matches!(
        answer(&mut w, secs(20)),
        Outcome::Restarted { .. }
    ));
    assert_eq!(w.cover.count("Mark::SteppedIn"), 1);
    assert_eq!(w.cover.count("Action::Spawn"), forks);
    assert_eq!(w.judge.ready(), 2);
    at_rest(&mut w);
}

#[test]
fn a_reload_calls_it_off_and_so_does_a_resize_that_takes_the_slot() {
    let mut w = told(apart(2), vec![], Kind::Good);
    w.run(secs(5));
    w.script = vec![a(Kind::Slow)].into();
    restart(&mut w, 1);
    reload(&mut w, good());
    let overtaken = not_restarted(w.answers[0].1.clone());
    assert!(matches!(overtaken, Hitch::Overtaken { .. }));
    // Nor is one begun while there is a reload.
    restart(&mut w, 0);
    assert!(matches!(
        not_restarted(w.answers[1].1.clone()),
        Hitch::Replacing
    ));
    let done = answer(&mut w, secs(20));
    assert!(reloaded(&done, 2), "{done:?}");
    w.script = vec![a(Kind::Slow)].into();
    restart(&mut w, 1);
    w.mischief(Mischief::Resize {
        to: Size::To(1),
        wait: false,
    });
    w.run(ms(0));
    let all = w.answers.iter().rev().take(2);
    let superseded = |o: &Outcome| {
        matches!(
            o,
            Outcome::NotRestarted {
                hitch: Hitch::Superseded { .. },
                ..
            }
        )
    };
    assert!(all.map(|(_, o)| o).any(superseded), "{:?}", w.answers);
    at_rest(&mut w);
}

/// One that wants to be replaced as soon as it is ready.
fn wishes_at_once() -> Plan {
    let mut p = a(Kind::Good);
    p.steps.push((ms(500), Step::Say(Word::Retire)));
    p
}

#[test]
fn those_that_want_to_go_as_soon_as_they_are_ready_are_held_back_as_those_that_fail() {
    let mut policy = apart(1);
    (policy.restarts_per_minute, policy.max_forks) = (5, 9);
    let all = (0..20).map(|_| wishes_at_once()).collect();
    let mut w = told(policy, all, Kind::Good);
    // 100 ms, doubled each time, less a fifth.
    assert!(w.run_until(secs(60), |w| w.cover.count("Mark::Swapped") == 5));
    assert!(
        w.now >= minicluster::core::Time(0) + ms(2480),
        "{:?}",
        w.now
    );
    assert!(w.run_until(secs(50), |w| w.cover.count("Notice::CrashLoop") == 1));
    assert_eq!(w.cover.count("Mark::Swapped"), 5);
    // It serves all the while. A minute later there is room again, and then the forks are spent.
    assert!(w.run_until(secs(300), |w| w.cover.count("Mark::WishNotHeeded") == 1));
    assert_eq!(w.cover.count("Mark::Swapped"), 8);
    assert_eq!(w.judge.ready(), 1);
    w.run(secs(1000));
    assert_eq!(w.cover.count("Mark::Swapped"), 8);
    // An operator who asks for workers has it tried again.
    w.mischief(Mischief::Resize {
        to: Size::To(1),
        wait: false,
    });
    assert!(w.run_until(secs(300), |w| w.cover.count("Mark::Swapped") > 8));
    assert_eq!(stop(&mut w).0, Some(0));
}

#[test]
fn where_a_crash_loop_is_the_end_so_is_a_loop_of_those_that_want_to_go() {
    for (minute, forks) in [(3, 0), (0, 4)] {
        let mut policy = apart(1);
        (policy.restarts_per_minute, policy.max_forks) = (minute, forks);
        policy.on_crash_loop = OnCrashLoop::Exit;
        let all = (0..20).map(|_| wishes_at_once()).collect();
        let mut w = told(policy, all, Kind::Good);
        assert!(w.run_until(secs(60), |w| w.judge.finished == Some(69)));
        assert_eq!(w.cover.count("Mark::Swapped"), 3);
    }
}

#[test]
fn an_operator_does_not_wait_for_the_backoff_of_one_that_wants_to_go() {
    let mut policy = apart(1);
    policy.respawn = secs(20);
    let mut w = told(policy, vec![wishes_at_once()], Kind::Good);
    assert!(w.run_until(secs(5), |w| w.judge.ready() == 1));
    w.run(secs(2));
    assert_eq!(w.cover.count("Notice::RecyclesLater"), 1);
    assert_eq!(w.cover.count("Mark::Swapped"), 0);
    restart(&mut w, 0);
    let done = answer(&mut w, secs(5));
    assert!(matches!(done, Outcome::Restarted { .. }), "{done:?}");
    assert_eq!(w.cover.count("Mark::FailedByWish"), 0);
    at_rest(&mut w);
}

#[test]
fn a_worker_that_says_that_it_goes_has_its_successor_first() {
    for word in [Word::Retire, Word::Stopping] {
        let mut goes = a(Kind::Good);
        goes.steps.push((secs(3), Step::Say(word)));
        let mut w = told(apart(2), vec![goes], Kind::Good);
        assert!(w.run_until(secs(10), |w| w.cover.count("Mark::Swapped") == 1));
        assert_eq!(w.judge.ready(), 2);
        assert_eq!(w.cover.count("Notice::Respawning"), 0);
        at_rest(&mut w);
    }
}
