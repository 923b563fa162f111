//! Directed stories of reloads: what an operator sees of one that goes well, of one that does not, and
//! of everything that may come between. The judge sees to it that no client is lost by any.

use crate::draw::{Mischief, Reload};
use crate::kernel::Process;
use crate::net::Clients;
use crate::plan::Kind;
use crate::stories::{a, end, ms, of, secs, stop, stopping_in, term, told};
use crate::world::World;
use minicluster::core::{Addr, Drain, Exit, Hitch, Outcome, Policy, ReadyRule, Sight, Size, Surge};
use std::time::Duration;

/// Asks for it, and for its end.
pub fn reload(w: &mut World, what: Reload) {
    w.mischief(Mischief::Reload(what));
    w.run(Duration::ZERO);
}

/// New code that is as good as the old.
pub fn good() -> Reload {
    Reload::same()
}

pub fn broken(kind: Kind) -> Reload {
    Reload {
        broken: Some(kind),
        ..Reload::same()
    }
}

/// What is told next, within that time.
pub fn answer(w: &mut World, limit: Duration) -> Outcome {
    let before = w.answers.len();
    let told = w.run_until(limit, |w| w.answers.len() > before);
    assert!(told, "nobody is told anything");
    w.answers[before].1.clone()
}

pub fn reloaded(outcome: &Outcome, to: u32) -> bool {
    matches!(outcome, Outcome::Reloaded { generation, .. } if *generation == to)
}

pub fn hitch(outcome: Outcome) -> Hitch {
    match outcome {
        Outcome::NotReloaded { hitch, .. } => hitch,
        other => panic!("{other:?}"),
    }
}

/// Of the workers in their places; those on their way in or out stand beside them.
pub fn pids(w: &World) -> Vec<i32> {
    let placed = w.judge.open();
    let jobs = placed.filter_map(|p| w.judge.jobs.get(&p.worker?));
    jobs.filter_map(|j| j.pid).map(|p| p.0).collect()
}

pub fn generations(w: &World) -> Vec<u32> {
    let placed = w.judge.open();
    placed.map(|p| p.generation).collect()
}

/// Clients that come all the time: quick ones, and some that ask again.
pub fn busy() -> Clients {
    Clients {
        gap: ms(5),
        most: 2000,
        rtt: ms(30),
        answer: ms(100),
        pause: ms(500),
        keep: 30,
        endless: 0,
        late: 20,
    }
}

/// All are ready, and clients come for so long.
pub fn serving(policy: Policy, clients: Clients, time: Duration) -> World {
    let mut w = told(policy, vec![], Kind::Good);
    w.run(secs(5));
    w.faults.clients = clients;
    if !time.is_zero() {
        w.let_clients_come(time);
        w.run(time / 2);
    }
    w
}

/// Nothing is left of what was, and nothing is awaited.
pub fn at_rest(w: &mut World) {
    w.run(secs(60));
    assert_eq!(w.cluster.deadline(), None);
    w.old_lanes_are_gone();
    // With less than all at a time the socket of an old one is its siblings' still: it goes at a moment
    // when nothing is owed, and may accept another one at just that moment.
    let together = w.policy.surge.of(100) == 100;
    assert!(!together || w.cover.count("Mark::LostLate") == 0);
    assert_eq!(stop(w).0, Some(0));
}

#[test]
fn a_reload_replaces_all_workers_and_no_client_notices() {
    let mut w = serving(of(4), busy(), secs(4));
    let old = pids(&w);
    reload(&mut w, good());
    assert!(reloaded(&answer(&mut w, secs(20)), 2));
    assert!(pids(&w).iter().all(|p| !old.contains(p)));
    assert_eq!(generations(&w), [2; 4]);
    assert_eq!(w.cover.count("Action::Steer"), 1);
    assert_eq!(w.cover.count("Action::RetireLane"), 1);
    at_rest(&mut w);
}

#[test]
fn one_signal_after_the_other_is_one_reload_after_the_other() {
    let mut w = serving(of(2), busy(), secs(4));
    for to in 2..8 {
        reload(&mut w, good());
        assert!(reloaded(&answer(&mut w, secs(20)), to));
    }
    assert_eq!(w.cover.count("Action::RetireLane"), 6);
    at_rest(&mut w);
}

#[test]
fn who_does_not_wait_hears_that_it_has_begun() {
    let mut w = serving(of(2), Clients::none(), secs(0));
    let quick = Reload {
        wait: false,
        ..good()
    };
    reload(&mut w, quick);
    assert!(matches!(
        w.answers[0].1,
        Outcome::Reloading { generation: 2 }
    ));
    assert!(w.run_until(secs(20), |w| w.cover.count("Mark::ReloadDone") == 1));
    assert_eq!(w.answers.len(), 1);
    at_rest(&mut w);
}

#[test]
fn an_answer_without_an_end_is_cut_when_the_drain_timeout_is_over() {
    let mut w = serving(of(2), Clients::endless(), Duration::ZERO);
    w.arrive();
    w.run(secs(1));
    let begun = w.now;
    reload(&mut w, good());
    assert!(w.run_until(secs(20), |w| w.cover.count("Action::Dismiss") == 2));
    let took = w.now - begun;
    // Ten seconds, and one more for a moment in which nothing is owed.
    assert!(took > secs(11) && took < secs(12), "{took:?}");
    // One that would finish what it owes is killed in the end.
    assert!(reloaded(&answer(&mut w, secs(12)), 2));
    assert!(w.net.conns.is_empty());
}

#[test]
fn a_connection_between_two_requests_is_ended_gently_when_it_was_silent_for_long() {
    let idle = Clients {
        gap: ms(5),
        rtt: ms(1),
        answer: ms(10),
        pause: secs(3600),
        keep: 100,
        endless: 0,
        late: 0,
        most: 1,
    };
    let mut w = serving(of(2), idle, Duration::ZERO);
    w.arrive();
    w.run(ms(500));
    let begun = w.now;
    reload(&mut w, good());
    assert!(reloaded(&answer(&mut w, secs(20)), 2));
    let took = w.now - begun;
    assert!(took > secs(4) && took < secs(6), "--drain-quiet: {took:?}");
    assert!(w.net.conns.is_empty());
}

#[test]
fn a_leap_of_the_clock_while_workers_are_drained_loses_nobody() {
    // The time to be drained is over by then, but for the last second.
    let prompt = Clients { late: 0, ..busy() };
    let mut w = serving(of(2), prompt, secs(4));
    reload(&mut w, good());
    assert!(w.run_until(secs(5), |w| w.cover.count("Notice::Draining") > 0));
    w.mischief(Mischief::Jump(secs(3600)));
    assert!(reloaded(&answer(&mut w, secs(20)), 2));
    at_rest(&mut w);
}

pub fn surging(surge: Surge, workers: u16) -> Policy {
    Policy {
        surge,
        ..of(workers)
    }
}

/// The most workers there were at one time, and the fewest ready ones.
fn extremes(w: &mut World, to: u32) -> (usize, usize) {
    let (mut most, mut fewest) = (0, usize::MAX);
    let before = w.answers.len();
    for _ in 0..100_000 {
        let lead = |p: &Process| p.lives() && p.worker.0 > 0;
        most = most.max(w.those(lead).len());
        fewest = fewest.min(w.judge.ready());
        if w.answers.len() > before || !w.advance(w.now + secs(60)) {
            break;
        }
    }
    assert!(reloaded(&w.answers[before].1, to));
    (most, fewest)
}

#[test]
fn with_a_surge_of_one_there_is_one_more_at_a_time() {
    let mut w = serving(surging(Surge::Count(1), 4), busy(), secs(4));
    reload(&mut w, good());
    assert_eq!(extremes(&mut w, 2), (5, 4));
    at_rest(&mut w);
}

#[test]
fn with_a_surge_of_half_there_are_half_as_many_more() {
    let mut w = serving(surging(Surge::Percent(50), 5), busy(), secs(4));
    reload(&mut w, good());
    assert_eq!(extremes(&mut w, 2), (8, 5));
    at_rest(&mut w);
}

#[test]
fn with_no_surge_one_goes_before_the_next_comes() {
    let mut w = serving(surging(Surge::Count(0), 4), busy(), secs(4));
    reload(&mut w, good());
    assert_eq!(extremes(&mut w, 2), (4, 3));
    assert_eq!(generations(&w), [2; 4]);
    at_rest(&mut w);
}

#[test]
fn handshakes_that_are_under_way_are_waited_for() {
    let far = Clients {
        rtt: ms(400),
        answer: ms(1),
        keep: 0,
        late: 0,
        ..busy()
    };
    let mut w = serving(of(2), far, secs(4));
    reload(&mut w, good());
    assert!(w.run_until(secs(5), |w| w.cover.count("Notice::Draining") > 0));
    let waiting = w.net.waiting(minicluster::core::LaneId(1));
    assert!(waiting.0 > 5, "{waiting:?}");
    assert!(reloaded(&answer(&mut w, secs(20)), 2));
    at_rest(&mut w);
}

#[test]
fn of_nine_generations_the_oldest_is_not_drained_any_longer() {
    let policy = Policy {
        drain_timeout: secs(3600),
        drain_quiet: secs(1800),
        ..of(32)
    };
    // Where all share a socket each goes by itself; one of each generation has to stay.
    let mut w = serving(policy, Clients::endless(), Duration::ZERO);
    w.faults.alone = true;
    for _ in 0..20 {
        w.arrive();
        w.run(secs(1));
        reload(&mut w, good());
        w.run(secs(1));
    }
    assert!(w.cover.count("Notice::TooManyGenerations") >= 5);
    let drained: std::collections::BTreeSet<u32> = w
        .cluster
        .fleet()
        .iter()
        .filter(|f| f.stage().is_some())
        .map(|f| f.generation)
        .collect();
    assert!(drained.len() <= 8, "{drained:?}");
}

#[test]
fn a_reload_does_not_wait_for_the_old_ones_of_another_to_be_drained() {
    let mut w = serving(of(2), Clients::endless(), Duration::ZERO);
    w.arrive();
    w.run(secs(1));
    let quick = Reload {
        wait: false,
        ..good()
    };
    reload(&mut w, quick);
    w.run(secs(2));
    assert_eq!((generations(&w), w.procs.len()), (vec![2; 2], 4));
    // Two more than wanted are those of the first; the second has as many of its own.
    reload(&mut w, good());
    w.run(secs(2));
    assert_eq!((generations(&w), w.procs.len()), (vec![3; 2], 4));
    assert_eq!(
        w.cluster
            .fleet()
            .iter()
            .filter(|f| f.generation == 1)
            .count(),
        2
    );
    assert!(reloaded(&w.answers[w.answers.len() - 1].1, 3));
}

#[test]
fn fewer_workers_that_were_read_again_go_with_the_old_ones_and_nobody_is_lost() {
    let mut w = serving(of(4), busy(), secs(4));
    let fewer = Reload {
        workers: Some(2),
        ..good()
    };
    reload(&mut w, fewer);
    // The judge sees to it that their lane is empty when they are asked to stop.
    assert!(reloaded(&answer(&mut w, secs(30)), 2));
    w.run(secs(12));
    assert_eq!(generations(&w), [2; 2]);
    assert_eq!(w.cover.count("Mark::SteeredStill"), 0);
    assert_eq!(w.cover.count("Mark::ReloadShrinks"), 1);
    at_rest(&mut w);
}

#[test]
fn a_server_that_drains_by_itself_is_asked_as_soon_as_its_queue_is_empty() {
    let policy = Policy {
        drain: Drain::Server,
        ..of(2)
    };
    let mut script = vec![a(Kind::Good), a(Kind::Good)];
    script.iter_mut().for_each(|p| p.graceful = true);
    let mut w = told(policy, script, Kind::Good);
    w.run(secs(5));
    w.faults.clients = busy();
    w.let_clients_come(secs(4));
    w.run(secs(2));
    reload(&mut w, good());
    assert!(w.run_until(secs(1), |w| w.cover.count("Action::Dismiss") == 2));
    assert_eq!(w.cover.count("Action::CloseQuiet"), 0);
    assert!(reloaded(&answer(&mut w, secs(20)), 2));
    assert_eq!(w.cover.count("Mark::LostLate"), 0);
}

#[test]
fn connections_that_cannot_be_ended_are_left_at_a_moment_when_nothing_is_owed() {
    let mut w = serving(of(2), busy(), secs(4));
    w.faults.sight = Sight::LookOnly;
    reload(&mut w, good());
    assert!(reloaded(&answer(&mut w, secs(20)), 2));
    assert_eq!(w.cover.count("Action::CloseQuiet"), 0);
    assert_eq!(w.cover.count("Action::CloseRest"), 0);
    at_rest(&mut w);
}

#[test]
fn a_port_that_can_have_one_socket_only_is_shared_by_old_and_new() {
    let mut w = serving(of(2), busy(), secs(4));
    w.faults.alone = true;
    reload(&mut w, good());
    assert!(reloaded(&answer(&mut w, secs(20)), 2));
    assert_eq!(w.cover.count("Notice::LaneAlone"), 1);
    assert_eq!(w.cover.count("Action::Steer"), 0);
    assert_eq!(w.cover.count("Action::RetireLane"), 0);
    reload(&mut w, good());
    assert!(reloaded(&answer(&mut w, secs(20)), 3));
    // It is not tried again.
    assert_eq!(w.cover.count("Event::LaneAlone"), 1);
}

#[test]
fn a_worker_that_does_not_stop_is_killed_and_the_reload_ends_then() {
    let deaf = stopping_in(None);
    let mut w = told(of(2), vec![deaf, a(Kind::Good)], Kind::Good);
    w.run(secs(5));
    let begun = w.now;
    reload(&mut w, good());
    assert!(reloaded(&answer(&mut w, secs(20)), 2));
    let took = w.now - begun;
    assert!(took > secs(10) && took < secs(11), "{took:?}");
    assert_eq!(w.cover.count("Notice::TooSlowToStop"), 1);
}

#[test]
fn a_worker_that_listens_but_is_not_ready_yet_is_drained_like_the_others() {
    let policy = Policy {
        ready: ReadyRule::Alive(secs(3)),
        ..of(2)
    };
    let mut w = serving(policy, busy(), secs(8));
    let oldest = *w.procs.keys().next().unwrap();
    w.end(oldest, Exit::Signal(9));
    // Its own successor serves by the same socket, and is not called ready for three seconds.
    w.run(secs(1));
    assert_eq!(w.judge.ready(), 1);
    w.mischief(Mischief::Resize {
        to: Size::To(1),
        wait: true,
    });
    w.run(ms(100));
    term(&mut w);
    assert_eq!(end(&mut w).0, Some(0));
    assert_eq!(w.cover.count("Mark::LostLate"), 0);
}

#[test]
fn of_two_ports_of_which_one_is_shared_the_other_is_emptied() {
    let policy = Policy {
        given: ["0.0.0.0:80", "0.0.0.0:81"]
            .map(|a| a.parse::<Addr>().unwrap().into())
            .to_vec(),
        ..of(2)
    };
    let far = Clients {
        rtt: ms(400),
        answer: ms(1),
        keep: 0,
        late: 0,
        ..busy()
    };
    let mut w = serving(policy, far, secs(4));
    // Port 1 can have no other lane, port 2 can: its handshakes are waited for (the judge sees to it).
    w.faults.alone = true;
    reload(&mut w, good());
    assert!(reloaded(&answer(&mut w, secs(20)), 2));
    assert_eq!(w.cover.count("Action::Steer"), 1);
    assert_eq!(w.cover.count("Notice::LaneAlone"), 1);
}

#[test]
fn an_old_server_that_binds_late_gets_no_lane_of_its_successors() {
    // No port is known: the first to bind is new code.
    let policy = Policy {
        given: vec![],
        ready: ReadyRule::Started,
        drain: Drain::Server,
        drain_timeout: secs(20),
        ..of(1)
    };
    let mut late = stopping_in(Some(secs(6)));
    late.steps.iter_mut().for_each(|s| s.0 = secs(4));
    let mut w = told(policy, vec![late], Kind::Good);
    w.run(secs(1));
    reload(&mut w, good());
    w.run(secs(20));
    assert_eq!(w.cover.count("Mark::ReloadDone"), 1);
    // Nor one of its own: it is to go, and does not begin to serve.
    assert_eq!(w.cover.count("Action::Refuse"), 1);
    assert_eq!(w.cover.count("Action::OpenLane"), 1);
    assert_eq!(w.cover.count("Action::RetireLane"), 0);
}
