//! Directed stories of reloads that fail, or that something comes between: the old workers stay, who waits
//! hears why, and the one after it may be better.

use crate::draw::{Mischief, Reload};
use crate::net::Clients;
use crate::plan::{Kind, Plan, Step};
use crate::reloading::{
    answer, at_rest, broken, busy, generations, good, hitch, pids, reload, reloaded, serving,
    surging,
};
use crate::stories::{a, end, ms, of, secs, term};
use minicluster::core::{Exit, Hitch, Outcome, Policy, Size, Surge};
use std::time::Duration;

#[test]
fn new_code_that_dies_at_once_leaves_the_old_workers_where_they_are() {
    let mut w = serving(of(4), busy(), secs(4));
    let old = pids(&w);
    reload(&mut w, broken(Kind::ExecFails));
    let Hitch::Died(death) = hitch(answer(&mut w, secs(5))) else {
        panic!("it is no death");
    };
    assert!(death.ready_for.is_none());
    w.run(secs(5));
    assert_eq!((pids(&w), generations(&w)), (old, vec![1; 4]));
    assert_eq!(w.cover.count("Action::Steer"), 0);
    // The one after it may be better.
    reload(&mut w, good());
    assert!(reloaded(&answer(&mut w, secs(20)), 3));
    at_rest(&mut w);
}

#[test]
fn new_code_that_never_listens_is_given_up_at_the_ready_timeout() {
    let policy = Policy {
        ready_timeout: Some(secs(3)),
        ..of(4)
    };
    let mut w = serving(policy, busy(), secs(4));
    let old = pids(&w);
    let begun = w.now;
    reload(&mut w, broken(Kind::NeverListens));
    assert!(matches!(hitch(answer(&mut w, secs(10))), Hitch::Died(_)));
    let took = w.now - begun;
    assert!(took >= secs(3) && took < ms(3100), "{took:?}");
    w.run(secs(5));
    assert_eq!(pids(&w), old);
    at_rest(&mut w);
}

#[test]
fn one_bad_worker_of_a_batch_takes_the_others_of_it_along() {
    let mut w = serving(of(4), busy(), secs(4));
    let old = pids(&w);
    let crash = Plan {
        steps: vec![(ms(50), Step::End(Exit::Code(3)))],
        ..a(Kind::Crash)
    };
    w.script = vec![a(Kind::Good), a(Kind::Good), crash].into();
    reload(&mut w, good());
    assert!(matches!(hitch(answer(&mut w, secs(5))), Hitch::Died(_)));
    w.run(secs(5));
    assert_eq!((pids(&w), w.procs.len()), (old, 4));
    at_rest(&mut w);
}

#[test]
fn what_is_read_again_and_wrong_changes_nothing() {
    let mut w = serving(of(2), busy(), secs(4));
    let old = pids(&w);
    let wrong = Reload {
        unreadable: true,
        ..good()
    };
    reload(&mut w, wrong);
    assert!(matches!(
        hitch(w.answers[0].1.clone()),
        Hitch::Unreadable(_)
    ));
    assert_eq!(pids(&w), old);
    at_rest(&mut w);
}

#[test]
fn another_reload_takes_the_place_of_one_under_way() {
    let mut w = serving(of(3), busy(), secs(4));
    w.faults.mix = vec![(1, Kind::Slow)];
    reload(&mut w, good());
    w.run(ms(100));
    w.faults.mix = vec![(1, Kind::Good)];
    reload(&mut w, good());
    assert!(matches!(
        hitch(w.answers[0].1.clone()),
        Hitch::Overtaken { .. }
    ));
    assert!(reloaded(&answer(&mut w, secs(20)), 3));
    at_rest(&mut w);
}

#[test]
fn a_worker_that_crashes_during_a_reload_is_replaced_by_its_successor() {
    let mut w = serving(of(3), busy(), secs(4));
    w.faults.mix = vec![(1, Kind::Slow)];
    reload(&mut w, good());
    let oldest = *w.procs.keys().next().unwrap();
    w.end(oldest, Exit::Signal(11));
    assert!(reloaded(&answer(&mut w, secs(60)), 2));
    assert_eq!(generations(&w), [2; 3]);
    at_rest(&mut w);
}

#[test]
fn all_killed_in_the_midst_of_a_reload_are_back_and_of_one_generation() {
    let mut w = serving(of(4), busy(), secs(4));
    reload(&mut w, good());
    w.run(ms(20));
    w.mischief(Mischief::Storm(100));
    w.run(secs(60));
    let all = generations(&w);
    assert!(all.iter().all(|g| *g == all[0]), "{all:?}");
    assert_eq!(w.judge.ready(), 4);
    assert!(w.judge.reloaders.is_empty());
    at_rest(&mut w);
}

#[test]
fn a_stop_during_a_reload_wins() {
    let mut w = serving(of(4), busy(), secs(4));
    w.faults.mix = vec![(1, Kind::Slow)];
    reload(&mut w, good());
    w.run(ms(100));
    term(&mut w);
    w.run(Duration::ZERO);
    assert!(matches!(hitch(w.answers[0].1.clone()), Hitch::Stopping));
    let (code, took) = end(&mut w);
    assert_eq!(code, Some(0));
    assert!(took < secs(12), "{took:?}");
    assert_eq!(w.cover.count("Mark::LostLate"), 0);
}

#[test]
fn without_a_surge_new_code_that_is_broken_costs_one_worker_for_a_moment() {
    let mut w = serving(surging(Surge::Count(0), 4), Clients::none(), secs(0));
    let old = pids(&w);
    reload(&mut w, broken(Kind::ExecFails));
    assert!(matches!(hitch(answer(&mut w, secs(5))), Hitch::Died(_)));
    w.run(secs(5));
    assert_eq!(pids(&w)[1..], old[1..]);
    assert_eq!(generations(&w), [1; 4]);
    assert_eq!(w.judge.ready(), 4);
    at_rest(&mut w);
}

#[test]
fn a_second_batch_that_fails_takes_the_first_one_back() {
    let mut w = serving(surging(Surge::Count(2), 4), busy(), secs(8));
    let old = pids(&w);
    let crash = Plan {
        steps: vec![(ms(20), Step::End(Exit::Code(3)))],
        ..a(Kind::Crash)
    };
    w.script = vec![a(Kind::Good), a(Kind::Good), crash].into();
    reload(&mut w, good());
    assert!(matches!(hitch(answer(&mut w, secs(30))), Hitch::Died(_)));
    assert!(w.run_until(secs(30), |w| w.cover.count("Mark::BackDone") == 1));
    assert_eq!(generations(&w), [1; 4]);
    // The first two are new ones of the old code, the others have never gone.
    assert_eq!(pids(&w)[2..], old[2..]);
    assert!(pids(&w)[..2].iter().all(|p| !old.contains(p)));
    at_rest(&mut w);
}

#[test]
fn another_number_of_workers_that_was_read_again_goes_with_a_reload_that_fails() {
    let mut w = serving(of(2), busy(), secs(4));
    let old = pids(&w);
    let more = |n: u16| Reload {
        workers: Some(n),
        ..good()
    };
    // At once, whatever is drawn.
    w.faults.mix = vec![(1, Kind::ExecFails)];
    reload(&mut w, more(4));
    w.run_until(secs(30), |w| !w.answers.is_empty());
    assert!(matches!(hitch(w.answers[0].1.clone()), Hitch::Died(_)));
    assert_eq!(w.judge.wanted, 2);
    w.faults.mix = vec![(1, Kind::Good)];
    w.run(secs(30));
    assert_eq!(pids(&w), old);
    // What is right is kept; the added one is of the new code at once.
    reload(&mut w, more(3));
    assert!(reloaded(&answer(&mut w, secs(20)), 3));
    w.run(secs(5));
    assert_eq!((generations(&w), w.judge.ready()), (vec![3; 3], 3));
    let of = |g: u32| w.judge.jobs.values().filter(|j| j.generation == g).count();
    assert_eq!((of(1), of(3)), (2, 3));
    at_rest(&mut w);
}

#[test]
fn who_waits_for_more_workers_hears_of_it_when_a_reload_has_brought_them() {
    let mut w = serving(of(1), Clients::none(), secs(0));
    let never = Plan {
        steps: vec![],
        ..a(Kind::NeverListens)
    };
    // The added one is never ready, but its successor is.
    w.script = vec![never].into();
    w.mischief(Mischief::Resize {
        to: Size::To(2),
        wait: true,
    });
    w.run(secs(1));
    assert!(w.answers.is_empty());
    reload(&mut w, good());
    assert!(matches!(
        answer(&mut w, secs(5)),
        Outcome::Resized { workers: 2 }
    ));
    at_rest(&mut w);
}

#[test]
fn what_ran_before_an_overtaken_reload_is_what_the_next_one_falls_back_to() {
    let mut w = serving(of(2), Clients::none(), secs(0));
    w.faults.mix = vec![(1, Kind::NeverListens)];
    let more = Reload {
        workers: Some(4),
        ..good()
    };
    reload(&mut w, more.clone());
    reload(
        &mut w,
        Reload {
            broken: Some(Kind::ExecFails),
            ..more
        },
    );
    w.run(secs(5));
    assert_eq!(w.cover.count("Mark::ReloadFailed"), 1);
    assert_eq!((w.judge.wanted, generations(&w)), (2, vec![1; 2]));
}

#[test]
fn without_a_surge_a_worker_that_was_on_its_way_in_when_its_turn_came_goes_all_the_same() {
    let mut w = serving(surging(Surge::Count(0), 2), Clients::none(), secs(0));
    // Nobody else is forked while that one is on its way to exec.
    let mut held = a(Kind::Good);
    (held.exec_after, held.held) = (ms(900), Some(ms(900)));
    w.script = vec![held].into();
    let all: Vec<_> = w.procs.keys().copied().collect();
    for serial in all {
        w.end(serial, Exit::Signal(9));
    }
    w.run(ms(10));
    reload(&mut w, good());
    assert!(reloaded(&answer(&mut w, secs(30)), 2));
    assert_eq!(generations(&w), [2; 2]);
    at_rest(&mut w);
}
