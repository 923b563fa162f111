//! Directed stories of another number of workers while the cluster runs, of who is told what, and of
//! stops that have a budget.

use crate::draw::{self, Mischief};
use crate::plan::{Fate, Kind, Plan, Step};
use crate::stories::{a, end, ms, of, secs, stop, stopping_in, term, told};
use crate::world::World;
use minicluster::core::{Exit, Hitch, Outcome, Policy, Size, Target};
use std::time::Duration;

fn resize(w: &mut World, to: Size) {
    w.mischief(Mischief::Resize { to, wait: true });
}

/// What is told next, within that time.
fn answer(w: &mut World, limit: Duration) -> Outcome {
    let before = w.answers.len();
    let told = w.run_until(limit, |w| w.answers.len() > before);
    assert!(told, "nobody is told anything");
    w.answers[before].1.clone()
}

fn resized(outcome: &Outcome, n: u16) -> bool {
    matches!(outcome, Outcome::Resized { workers } if *workers == n)
}

/// What came between.
fn hitch(outcome: Outcome) -> Hitch {
    match outcome {
        Outcome::NotResized { hitch, .. } => hitch,
        other => panic!("{other:?}"),
    }
}

fn pids(w: &World) -> Vec<i32> {
    let view = w.cluster.status(w.now);
    let pids = view.slots.iter().filter_map(|s| s.pid);
    pids.map(|p| p.0).collect()
}

#[test]
fn more_workers_are_there_at_once_and_the_old_ones_stay() {
    let mut w = told(of(4), vec![], Kind::Good);
    w.run(secs(5));
    let old = pids(&w);
    resize(&mut w, Size::More(2));
    assert!(resized(&answer(&mut w, secs(1)), 6));
    assert_eq!(pids(&w)[..4], old);
    assert_eq!(w.cover.count("Notice::AllReady"), 2);
    resize(&mut w, Size::To(1));
    assert!(resized(&answer(&mut w, secs(1)), 1));
    assert_eq!(pids(&w), old[..1]);
    // Nothing is left to wake up for.
    w.run(secs(1));
    assert_eq!(w.cluster.deadline(), None);
    assert_eq!(w.cover.count("Notice::Resized"), 2);
}

#[test]
fn a_size_that_is_there_already_is_answered_at_once() {
    let mut w = told(of(2), vec![], Kind::Good);
    w.run(secs(5));
    resize(&mut w, Size::To(2));
    assert!(resized(&answer(&mut w, Duration::ZERO), 2));
    assert_eq!(w.cover.count("Notice::Resizing"), 0);
}

#[test]
fn up_then_down_then_up_while_workers_are_going() {
    let slow = stopping_in(Some(secs(3)));
    let mut w = told(of(2), vec![slow; 4], Kind::Good);
    w.run(secs(5));
    resize(&mut w, Size::To(4));
    assert!(resized(&answer(&mut w, secs(1)), 4));
    let old = pids(&w);
    resize(&mut w, Size::To(2));
    w.run(secs(1));
    // Both are still there, and go; so they cannot be counted among the four.
    assert_eq!((pids(&w), w.judge.ready()), (old.clone(), 2));
    resize(&mut w, Size::To(4));
    let first = hitch(answer(&mut w, ms(100)));
    assert!(matches!(first, Hitch::Superseded { to: 4, .. }));
    w.run(secs(1));
    assert_eq!(w.judge.ready(), 2, "they are not kept");
    assert!(resized(&answer(&mut w, secs(2)), 4));
    assert_eq!(pids(&w)[..2], old[..2]);
    assert!(pids(&w)[2..].iter().all(|p| !old.contains(p)));
    assert_eq!(w.cover.count("Mark::WantedAgain"), 2);
}

#[test]
fn two_who_want_the_same_size_are_both_told() {
    let mut w = told(of(1), vec![], Kind::Slow);
    w.run(secs(60));
    resize(&mut w, Size::To(3));
    w.run(ms(10));
    resize(&mut w, Size::To(3));
    w.run(secs(60));
    assert_eq!(w.answers.len(), 2);
    assert!(w.answers.iter().all(|(_, o)| resized(o, 3)));
}

#[test]
fn a_stop_during_a_resize_wins() {
    let deaf = stopping_in(None);
    let mut w = told(of(2), vec![deaf.clone(), deaf], Kind::Good);
    w.run(secs(5));
    resize(&mut w, Size::To(1));
    w.run(secs(4));
    assert!(w.answers.is_empty());
    term(&mut w);
    let told = hitch(answer(&mut w, ms(1)));
    assert!(matches!(told, Hitch::Stopping));
    // Each has its own ten seconds; only one of them begins now.
    w.run(ms(6050));
    assert_eq!(w.procs.len(), 1);
    w.run(secs(4));
    assert_eq!(w.procs.len(), 0);
    assert_eq!(w.cover.count("Notice::TooSlowToStop"), 2);
    assert_eq!(end(&mut w).0, Some(0));
}

fn broken() -> Plan {
    Plan {
        steps: vec![(ms(10), Step::End(Exit::Code(3)))],
        ..a(Kind::Crash)
    }
}

#[test]
fn an_added_slot_whose_command_is_broken_tries_on_and_who_asked_is_told() {
    let script = vec![a(Kind::Good), broken(), broken()];
    let mut w = told(of(1), script, Kind::Good);
    w.run(secs(5));
    resize(&mut w, Size::To(2));
    let Hitch::Died(death) = hitch(answer(&mut w, secs(1))) else {
        panic!("it is no death");
    };
    assert_eq!((death.who.slot.0, death.exit), (1, Exit::Code(3)));
    assert!(death.last.starts_with("last words of"));
    // Who asks again hears of the second failure; the third worker is well.
    resize(&mut w, Size::To(2));
    assert!(matches!(hitch(answer(&mut w, secs(1))), Hitch::Died(_)));
    resize(&mut w, Size::To(2));
    assert!(resized(&answer(&mut w, secs(1)), 2));
    assert_eq!(w.cover.count("Notice::Resized"), 1);
}

#[test]
fn an_added_slot_whose_command_has_vanished_does_not_end_the_cluster() {
    let missing = Plan {
        fate: Fate::ExecFails("exec", 2),
        ..a(Kind::ExecFails)
    };
    let mut w = told(of(1), vec![a(Kind::Good), missing], Kind::Good);
    w.run(secs(5));
    resize(&mut w, Size::To(2));
    assert!(matches!(hitch(answer(&mut w, secs(1))), Hitch::Died(_)));
    assert_eq!(w.judge.finished, None);
    assert!(w.run_until(secs(2), |w| w.judge.ready() == 2));
}

#[test]
fn an_added_slot_that_cannot_be_forked_is_told_of() {
    let mut w = told(of(1), vec![], Kind::Good);
    w.run(secs(5));
    w.faults.spawn_fails = 100;
    resize(&mut w, Size::More(1));
    let told = hitch(answer(&mut w, secs(1)));
    assert!(matches!(told, Hitch::NotForked { errno: 11, .. }));
    w.faults.spawn_fails = 0;
    assert!(w.run_until(secs(2), |w| w.judge.ready() == 2));
}

#[test]
fn a_slot_that_waits_for_its_backoff_is_dropped_at_once() {
    let policy = Policy {
        respawn: secs(30),
        ..of(2)
    };
    let mut w = told(policy, vec![a(Kind::Good), broken()], Kind::Good);
    w.run(secs(5));
    resize(&mut w, Size::Fewer(1));
    assert!(resized(&answer(&mut w, Duration::ZERO), 1));
    // Nobody waits for it any more, and all that are wanted are ready.
    assert_eq!(w.cluster.deadline(), None);
    assert_eq!(w.cover.count("Notice::AllReady"), 1);
}

#[test]
fn a_worker_that_cannot_be_ended_is_not_waited_for() {
    let mut stuck = a(Kind::Good);
    stuck.steps.push((ms(1), Step::Stick(secs(60))));
    let mut w = told(of(2), vec![a(Kind::Good), stuck], Kind::Good);
    w.run(secs(5));
    resize(&mut w, Size::To(1));
    assert!(matches!(hitch(answer(&mut w, secs(16))), Hitch::Stuck(_)));
    // When it has gone at last, that is said.
    w.run(secs(60));
    assert_eq!(w.cover.count("Notice::Resized"), 1);
}

#[test]
fn what_a_worker_that_had_to_go_left_in_its_group_is_killed_at_the_stop_timeout() {
    let mut wrapper = a(Kind::Wrapper);
    wrapper.steps = vec![(ms(1), Step::Fork(Box::new(stopping_in(None)), false))];
    let mut w = told(of(2), vec![a(Kind::Good), wrapper], Kind::Good);
    assert!(w.run_until(secs(2), |w| w.judge.ready() == 2));
    resize(&mut w, Size::To(1));
    assert!(resized(&answer(&mut w, secs(1)), 1));
    // The shell has gone, its deaf child serves on: not for ever.
    assert_eq!(w.procs.len(), 2);
    assert!(!w.run_until(secs(9), |w| w.procs.len() < 2));
    assert!(w.run_until(secs(2), |w| w.procs.len() == 1));
    assert_eq!(w.cover.count("Mark::RestKilled"), 1);
}

#[test]
fn ttin_and_ttou_are_one_more_and_one_fewer_but_never_none() {
    let mut w = told(of(1), vec![], Kind::Good);
    w.run(secs(5));
    w.mischief(Mischief::Signal(draw::TTIN));
    assert!(w.run_until(secs(1), |w| w.judge.ready() == 2));
    w.mischief(Mischief::Signal(draw::TTOU));
    w.run(secs(1));
    assert!(w.judge.none_above());
    assert_eq!(w.judge.wanted, 1);
    w.mischief(Mischief::Signal(draw::TTOU));
    w.run(secs(1));
    assert_eq!((w.judge.wanted, w.judge.ready()), (1, 1));
    assert_eq!(w.cover.count("Notice::AtBound"), 1);
}

#[test]
fn a_worker_that_dies_of_a_signal_that_was_asked_for_is_replaced_as_usual() {
    let mut w = told(of(3), vec![], Kind::Good);
    w.run(secs(5));
    w.mischief(Mischief::Relay(9, Target::Number(1)));
    let told = answer(&mut w, ms(1));
    let Outcome::Signalled { signal: 9, whom } = told else {
        panic!("{told:?}");
    };
    assert_eq!(whom[0].slot.0, 1);
    assert!(w.run_until(secs(1), |w| w.cover.count("Notice::Ready") == 4));
    w.mischief(Mischief::Relay(9, Target::Slot(3)));
    assert!(matches!(answer(&mut w, ms(1)), Outcome::Unknown { .. }));
    // A number that is no slot is a pid.
    let pid = u32::try_from(pids(&w)[0]).unwrap();
    w.mischief(Mischief::Relay(10, Target::Number(pid)));
    assert!(matches!(answer(&mut w, ms(1)), Outcome::Signalled { .. }));
}

fn within(budget: u64, workers: u16) -> Policy {
    Policy {
        stop_budget: Some(secs(budget)),
        ..of(workers)
    }
}

fn stuck() -> Plan {
    let mut stuck = a(Kind::Good);
    stuck.steps.insert(0, (ms(0), Step::Stick(secs(3600))));
    stuck
}

#[test]
fn deaf_workers_are_killed_so_early_that_the_end_comes_within_the_budget() {
    let mut w = told(within(9, 4), vec![], Kind::DeafToTerm);
    w.run(secs(5));
    let (code, took) = stop(&mut w);
    assert_eq!(code, Some(0));
    assert!(took >= ms(8500) && took <= ms(8600), "{took:?}");
    assert_eq!(w.cover.count("Mark::BudgetCut"), 1);
}

#[test]
fn a_stop_timeout_that_is_shorter_than_the_budget_counts() {
    let mut w = told(within(30, 4), vec![], Kind::DeafToTerm);
    w.run(secs(5));
    let (code, took) = stop(&mut w);
    assert_eq!(code, Some(0));
    assert!(took >= secs(10) && took <= ms(10_100), "{took:?}");
    assert_eq!(w.cover.count("Mark::BudgetCut"), 0);
}

#[test]
fn what_not_even_sigkill_ends_does_not_exceed_the_budget() {
    let script = vec![stuck(), stopping_in(None)];
    let mut w = told(within(9, 2), script, Kind::Good);
    w.run(secs(5));
    let (code, took) = stop(&mut w);
    assert_eq!((code, w.judge.stuck.len()), (Some(71), 1));
    assert!(took > ms(8500) && took < secs(9), "{took:?}");
}

#[test]
fn a_hard_stop_ends_within_the_budget_of_the_first_request() {
    let mut w = told(within(9, 1), vec![stuck()], Kind::Good);
    w.run(secs(5));
    term(&mut w);
    w.run(secs(6));
    // SIGKILL would have five seconds, were there as many.
    let (code, took) = stop(&mut w);
    assert_eq!(code, Some(71));
    assert!(took > secs(2) && took < secs(3), "{took:?}");
}

#[test]
fn leftovers_that_get_fewer_are_waited_for_within_the_budget_only() {
    let mut leader = a(Kind::Good);
    for n in [9, 13, 3600] {
        let mut plan = stopping_in(None);
        plan.steps.push((ms(1), Step::Stick(secs(n))));
        leader.steps.push((ms(1), Step::Fork(Box::new(plan), true)));
    }
    let mut w = told(within(9, 1), vec![leader], Kind::Good);
    w.run(secs(5));
    w.mischief(Mischief::Signal(draw::QUIT));
    let (code, took) = end(&mut w);
    assert_eq!((code, w.judge.stuck.len()), (Some(71), 1));
    // At 5 s there were fewer, so it was waited on, but not for 5 s.
    assert!(took > secs(8) && took < secs(9), "{took:?}");
}

#[test]
fn the_end_of_one_worker_has_no_budget() {
    let slow = stopping_in(Some(secs(8)));
    let mut w = told(within(1, 2), vec![slow; 2], Kind::Good);
    w.run(secs(5));
    resize(&mut w, Size::To(1));
    assert!(resized(&answer(&mut w, secs(9)), 1));
    assert_eq!(w.cover.count("Notice::TooSlowToStop"), 0);
}

#[test]
fn a_worker_that_was_going_already_is_hurried_by_a_stop() {
    let mut w = told(within(2, 2), vec![stopping_in(None); 2], Kind::Good);
    w.run(secs(5));
    resize(&mut w, Size::To(1));
    w.run(secs(1));
    let (code, took) = stop(&mut w);
    assert_eq!(code, Some(0));
    assert!(took < secs(2), "{took:?}");
}
