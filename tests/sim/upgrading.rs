//! Directed stories of canaries, of what is taken back, and of another command: one for each paragraph of
//! the manual's UPGRADE AND BACK-OUT.

use crate::draw::{Mischief, Reload};
use crate::net::Clients;
use crate::plan::{Kind, Plan, Step};
use crate::reloading::{
    answer, at_rest, busy, generations, good, hitch, pids, reload, reloaded, serving,
};
use crate::stories::{a, ms, of, secs};
use crate::world::World;
use minicluster::core::{Balance, Canary, Deal, Exit, Hitch, Outcome, Policy, Surge, Terms};
use std::time::Duration;

/// So many workers; so many of the new ones go ahead, watched so long, with that share.
fn watching(workers: u16, count: u16, watch: Duration, share: u8) -> Policy {
    Policy {
        canary: Canary {
            count,
            watch,
            share,
        },
        ..of(workers)
    }
}

/// It serves, and ends by itself so long after it began.
fn dying(after: Duration) -> Plan {
    let mut plan = a(Kind::Good);
    let before: Duration = plan.steps.iter().map(|(wait, _)| *wait).sum();
    let step = (after.saturating_sub(before), Step::End(Exit::Code(7)));
    plan.steps.push(step);
    plan
}

fn upgrade() -> Reload {
    Reload {
        terms: Terms {
            upgrade: true,
            ..Terms::default()
        },
        ..good()
    }
}

/// How many processes of workers there are.
fn living(w: &World) -> usize {
    w.those(|p| p.lives()).len()
}

#[test]
fn the_first_goes_ahead_the_rest_follows_and_the_old_ones_are_kept_until_all_were_watched() {
    let mut w = serving(watching(4, 1, secs(2), 0), busy(), secs(8));
    let (old, begun) = (pids(&w), w.now);
    reload(&mut w, upgrade());
    w.run(ms(1500));
    // One has gone ahead, and has nothing to do.
    assert_eq!((living(&w), pids(&w)), (5, old.clone()));
    assert_eq!(w.cover.count("Action::Steer"), 0);
    assert!(w.run_until(secs(5), |w| generations(w) == [2; 4]));
    let placed = w.now;
    assert!(placed - begun >= secs(2), "{:?}", placed - begun);
    assert_eq!((living(&w), w.judge.ready()), (8, 4));
    w.run(ms(1500));
    // All of the old ones are there still, and get nothing.
    assert_eq!(living(&w), 8);
    assert!(reloaded(&answer(&mut w, secs(20)), 2));
    assert!(w.now - placed >= secs(2));
    assert!(w.cover.count("Mark::KeptReleased") > 0);
    at_rest(&mut w);
}

#[test]
fn a_canary_that_ends_before_it_was_watched_has_cost_nothing() {
    let mut w = serving(watching(4, 1, secs(2), 0), busy(), secs(8));
    let old = pids(&w);
    w.script = vec![dying(ms(900))].into();
    reload(&mut w, upgrade());
    let Hitch::Died(death) = hitch(answer(&mut w, secs(5))) else {
        panic!("it is no death");
    };
    assert!(death.ready_for.is_some());
    w.run(secs(3));
    assert_eq!((pids(&w), generations(&w)), (old, vec![1; 4]));
    assert_eq!(w.cover.count("Action::Steer"), 0);
    // Mended it takes its place.
    reload(&mut w, upgrade());
    assert!(reloaded(&answer(&mut w, secs(20)), 3));
    at_rest(&mut w);
}

#[test]
fn one_that_ends_when_all_have_their_places_gives_them_back_in_that_turn() {
    let mut w = serving(watching(3, 1, secs(2), 0), Clients::none(), secs(0));
    let old = pids(&w);
    w.script = vec![a(Kind::Good), a(Kind::Good), dying(ms(900))].into();
    reload(&mut w, upgrade());
    assert!(w.run_until(secs(5), |w| generations(w) == [2; 3]));
    assert!(matches!(hitch(answer(&mut w, secs(5))), Hitch::Died(_)));
    assert_eq!((pids(&w), w.judge.ready()), (old.clone(), 3));
    assert_eq!(w.cover.count("Mark::KeptRestored"), 1);
    w.run(secs(20));
    assert_eq!((pids(&w), living(&w)), (old, 3));
    at_rest(&mut w);
}

#[test]
fn though_an_old_one_that_is_kept_ends_the_others_are_until_all_new_ones_were_watched() {
    let mut w = serving(watching(2, 1, secs(2), 0), Clients::none(), secs(0));
    let old = pids(&w);
    w.script = vec![a(Kind::Good), dying(ms(900))].into();
    reload(&mut w, upgrade());
    // The canary has been watched by then, the other one has not.
    assert!(w.run_until(secs(5), |w| generations(w) == [2; 2]));
    let kept = w.those(|p| p.pid.0 == old[1]);
    w.end(kept[0], Exit::Code(3));
    assert!(matches!(hitch(answer(&mut w, secs(5))), Hitch::Died(_)));
    assert_eq!(pids(&w)[0], old[0]);
    assert_eq!(w.cover.count("Mark::KeptRestored"), 1);
    assert!(w.run_until(secs(5), |w| w.judge.ready() == 2));
    assert_eq!((pids(&w)[0], generations(&w)), (old[0], vec![1; 2]));
    at_rest(&mut w);
}

#[test]
fn with_another_balance_it_is_the_same() {
    for balance in [Balance::Hash, Balance::Ip, Balance::Cpu] {
        let policy = Policy {
            balance,
            ..watching(3, 1, secs(2), 0)
        };
        let mut w = serving(policy, busy(), secs(8));
        let old = pids(&w);
        w.script = vec![a(Kind::Good), a(Kind::Good), dying(ms(900))].into();
        reload(&mut w, upgrade());
        assert!(matches!(hitch(answer(&mut w, secs(8))), Hitch::Died(_)));
        assert_eq!((pids(&w), w.judge.ready()), (old, 3));
        reload(&mut w, upgrade());
        assert!(reloaded(&answer(&mut w, secs(20)), 3));
        at_rest(&mut w);
    }
}

#[test]
fn canaries_have_their_share_while_they_are_watched_and_no_longer() {
    let mut w = serving(watching(4, 2, secs(5), 10), busy(), secs(10));
    reload(&mut w, upgrade());
    let part = |w: &World| w.net.tables.values().find_map(|t| t.part.clone());
    assert!(w.run_until(secs(3), |w| part(w).is_some()));
    let (share, deal) = part(&w).expect("it was there");
    assert_eq!(share, 10);
    assert!(matches!(deal, Deal::Shares(lanes) if lanes.len() == 1));
    assert!(w.run_until(secs(8), |w| generations(w) == [2; 4]));
    assert_eq!(part(&w), None);
    assert!(reloaded(&answer(&mut w, secs(20)), 2));
    at_rest(&mut w);
}

#[test]
fn what_is_under_way_is_called_off_at_once() {
    for when in [ms(300), ms(1500), ms(3000)] {
        let mut w = serving(watching(3, 1, secs(2), 0), busy(), secs(8));
        let old = pids(&w);
        reload(&mut w, upgrade());
        w.run(when);
        w.mischief(Mischief::BackOut);
        let first = answer(&mut w, secs(1));
        assert!(matches!(hitch(first), Hitch::CalledOff { .. }), "{when:?}");
        let outcome = w.answers.last().map(|(_, o)| o.clone());
        assert!(matches!(
            outcome,
            Some(Outcome::BackedOut {
                generation: 2,
                goes_on: 1
            })
        ));
        assert_eq!((pids(&w), w.judge.ready()), (old, 3));
        at_rest(&mut w);
    }
}

#[test]
fn with_no_surge_the_first_is_watched_before_the_next_has_its_turn() {
    let policy = Policy {
        surge: Surge::Count(0),
        ..watching(3, 1, secs(2), 0)
    };
    let mut w = serving(policy.clone(), Clients::none(), secs(0));
    reload(&mut w, upgrade());
    w.run(secs(2));
    assert_eq!(generations(&w), [2, 1, 1]);
    assert!(reloaded(&answer(&mut w, secs(20)), 2));
    at_rest(&mut w);
    // One that ends meanwhile is replaced by one of the old code.
    let mut w = serving(policy, Clients::none(), secs(0));
    w.script = vec![dying(ms(1000))].into();
    reload(&mut w, upgrade());
    assert!(matches!(hitch(answer(&mut w, secs(8))), Hitch::Died(_)));
    w.run(secs(5));
    assert_eq!((generations(&w), w.judge.ready()), (vec![1; 3], 3));
    at_rest(&mut w);
}

#[test]
fn a_stop_in_the_midst_of_it_ends_all_of_them() {
    for when in [ms(1000), ms(3500)] {
        let mut w = serving(watching(3, 1, secs(2), 0), busy(), secs(8));
        reload(&mut w, upgrade());
        w.run(when);
        let (code, _) = crate::stories::stop(&mut w);
        assert_eq!(code, Some(0), "{when:?}");
    }
}

#[test]
fn slots_are_added_one_after_the_other_and_one_that_fails_is_taken_away_again() {
    let mut w = serving(of(2), Clients::none(), secs(0));
    let start = |count| Mischief::Start {
        count,
        ready: None,
        wait: true,
    };
    w.mischief(start(2));
    assert!(matches!(
        answer(&mut w, secs(5)),
        Outcome::Started {
            count: 2,
            workers: 4
        }
    ));
    w.script = vec![a(Kind::Good), a(Kind::ExecFails)].into();
    w.mischief(start(3));
    let outcome = answer(&mut w, secs(5));
    assert!(
        matches!(outcome, Outcome::NotStarted { started: 1, .. }),
        "{outcome:?}"
    );
    w.run(secs(5));
    assert_eq!((w.judge.wanted, w.judge.ready()), (5, 5));
    // A reload asked for meanwhile ends it where it is.
    w.mischief(start(3));
    reload(&mut w, good());
    let ended = |(_, o): &(_, Outcome)| match o {
        Outcome::NotStarted { hitch, .. } => matches!(hitch, Hitch::Overtaken { .. }),
        _ => false,
    };
    assert!(w.answers.iter().any(ended));
    assert!(reloaded(&answer(&mut w, secs(30)), 2));
    assert!(w.cover.count("Mark::SlotsStarted") > 0);
    at_rest(&mut w);
}

#[test]
fn a_start_that_never_listens_has_the_time_that_was_given() {
    let mut w = serving(of(2), Clients::none(), secs(0));
    let begun = w.now;
    w.script = vec![a(Kind::NeverListens)].into();
    w.mischief(Mischief::Start {
        count: 1,
        ready: Some(secs(2)),
        wait: true,
    });
    assert!(matches!(
        answer(&mut w, secs(9)),
        Outcome::NotStarted { started: 0, .. }
    ));
    let took = w.now - begun;
    assert!(took >= secs(2) && took < ms(2500), "{took:?}");
    w.run(secs(15));
    assert_eq!(w.judge.wanted, 2);
    at_rest(&mut w);
}
