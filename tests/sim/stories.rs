//! Directed stories: what an operator would tell of, each with its moral. The same world and the same
//! judge as the swarm's; here the story says what goes wrong, and how it has to end, and when.

use crate::draw::{self, Mischief};
use crate::plan::{self, Fate, Kind, Plan, Step};
use crate::prng::Prng;
use crate::world::World;
use minicluster::core::{Addr, Exit, Policy, ReadyRule, Takeover};
use std::time::Duration;

pub fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The manual's policy with so many workers.
pub fn of(workers: u16) -> Policy {
    Policy {
        workers,
        ..draw::manual()
    }
}

/// A program of this kind.
pub fn a(kind: Kind) -> Plan {
    plan::draw(kind, &mut Prng::new(1), &draw::manual())
}

/// A server that takes so long to stop; `None` is deaf.
pub fn stopping_in(term: Option<Duration>) -> Plan {
    Plan {
        term,
        ..a(Kind::Good)
    }
}

/// The first forks follow the script, all later ones are of this kind.
pub fn told(policy: Policy, script: Vec<Plan>, then: Kind) -> World {
    let mut faults = draw::calm();
    faults.mix = vec![(1, then)];
    let mut world = World::new(policy, faults, Prng::new(7));
    world.script = script.into();
    world.begin();
    world
}

pub fn term(world: &mut World) {
    world.mischief(Mischief::Signal(draw::TERM));
}

/// Until the master has left: the exit code, and how long that took.
pub fn end(world: &mut World) -> (Option<u8>, Duration) {
    let from = world.now;
    world.run(secs(1000));
    (world.judge.finished, world.now - from)
}

/// Asks for the end and waits for it.
pub fn stop(world: &mut World) -> (Option<u8>, Duration) {
    term(world);
    end(world)
}

#[test]
fn cold_start() {
    let mut w = told(of(4), vec![], Kind::Good);
    assert!(w.run_until(secs(1), |w| w.judge.ready() == 4));
    assert_eq!(w.cover.count("Notice::AllReady"), 1);
    // An idle master sleeps for ever.
    w.run(secs(1));
    assert_eq!(w.cluster.deadline(), None);
    let (code, took) = stop(&mut w);
    assert_eq!(code, Some(0));
    assert!(took < secs(1));
}

#[test]
fn a_port_probe_is_not_taken_for_readiness() {
    let mut w = told(of(1), vec![], Kind::Prober);
    assert!(w.run_until(secs(5), |w| w.judge.ready() == 1));
    assert!(w.cover.count("Notice::LetGo") >= 1);
    assert!(w.cover.count("Notice::Listening") >= 2);
}

#[test]
fn a_busy_port_is_told_before_anything_runs() {
    let mut faults = draw::calm();
    faults.given_fails = Some(98);
    let mut w = World::new(of(4), faults, Prng::new(1));
    w.begin();
    assert_eq!(w.judge.finished, Some(75));
    assert_eq!(w.cover.count("Action::Spawn"), 0);
}

#[test]
fn all_workers_killed_at_once_are_back_at_once() {
    let mut w = told(of(8), vec![], Kind::Good);
    w.run(secs(10));
    w.mischief(Mischief::Storm(100));
    assert!(w.run_until(ms(1), |w| w.judge.ready() == 0));
    assert!(w.run_until(ms(500), |w| w.judge.ready() == 8));
}

#[test]
fn a_command_that_is_never_ready_gives_up_with_69_in_time() {
    let mut w = told(of(4), vec![], Kind::NeverListens);
    let (code, took) = end(&mut w);
    assert_eq!(code, Some(69));
    assert!(took >= secs(60) && took < secs(61), "{took:?}");
}

#[test]
fn a_command_that_is_not_there_is_exit_127_at_once() {
    let missing = Plan {
        fate: Fate::ExecFails("exec", 2),
        ..a(Kind::ExecFails)
    };
    let mut w = told(of(1), vec![missing], Kind::Good);
    let (code, took) = end(&mut w);
    assert_eq!(code, Some(127));
    assert!(took < ms(100));
}

#[test]
fn term_during_the_start() {
    let mut w = told(of(4), vec![], Kind::Slow);
    w.run(ms(400));
    let (code, took) = stop(&mut w);
    assert_eq!(code, Some(0));
    assert!(took < ms(100));
    assert_eq!(w.cover.count("Notice::Ready"), 0);
}

#[test]
fn a_second_term_is_a_hard_stop() {
    let mut w = told(of(4), vec![], Kind::DeafToTerm);
    w.run(secs(5));
    term(&mut w);
    w.run(secs(1));
    assert_eq!(w.judge.finished, None);
    let (code, took) = stop(&mut w);
    assert_eq!(code, Some(1));
    assert!(took < ms(100));
}

#[test]
fn a_worker_deaf_to_term_is_killed_when_the_stop_timeout_is_over() {
    let mut w = told(of(4), vec![stopping_in(None)], Kind::Good);
    w.run(secs(5));
    let (code, took) = stop(&mut w);
    assert_eq!(code, Some(0));
    assert!(took >= secs(10) && took < ms(10_100), "{took:?}");
    assert_eq!(w.cover.count("Notice::TooSlowToStop"), 1);
}

#[test]
fn the_child_of_sh_c_gets_the_stop_signal_when_the_shell_has_died_of_it() {
    let mut wrapper = a(Kind::Wrapper);
    wrapper.steps = vec![(ms(1), Step::Fork(Box::new(a(Kind::Good)), false))];
    let mut w = told(of(1), vec![wrapper], Kind::Good);
    assert!(w.run_until(secs(2), |w| w.judge.ready() == 1));
    let (code, took) = stop(&mut w);
    assert_eq!(code, Some(0));
    assert!(took < ms(200), "{took:?}");
}

#[test]
fn a_wrapper_that_is_killed_takes_its_child_along() {
    let mut wrapper = a(Kind::Wrapper);
    wrapper.steps = vec![(ms(1), Step::Fork(Box::new(a(Kind::Good)), false))];
    let mut w = told(of(1), vec![wrapper], Kind::Good);
    assert!(w.run_until(secs(2), |w| w.judge.ready() == 1));
    let leader = *w.procs.keys().next().unwrap();
    w.end(leader, Exit::Signal(9));
    w.run(ms(50));
    assert_eq!(w.procs.len(), 0, "the child serves beside the new worker");
}

#[test]
fn the_deaf_child_of_sh_c_is_killed_when_the_stop_timeout_is_over() {
    let mut wrapper = a(Kind::Wrapper);
    wrapper.steps = vec![(ms(1), Step::Fork(Box::new(stopping_in(None)), false))];
    let mut w = told(of(1), vec![wrapper], Kind::Good);
    assert!(w.run_until(secs(2), |w| w.judge.ready() == 1));
    let (code, took) = stop(&mut w);
    assert_eq!(code, Some(0));
    assert!(took >= secs(10) && took < ms(10_100), "{took:?}");
}

#[test]
fn a_command_that_goes_into_the_background_is_told_of_and_ended_at_the_stop() {
    let mut w = told(of(1), vec![], Kind::Daemonizer);
    w.run(secs(20));
    assert_eq!(w.cover.count("Notice::LeftRunning"), 1);
    // The backoff keeps it from filling the machine.
    let spawns = w.cover.count("Action::Spawn");
    assert!((5..=9).contains(&spawns), "{spawns}");
    assert_eq!(stop(&mut w).0, Some(0));
    assert_eq!(w.cover.count("Notice::Leftovers").min(1), 1);
}

#[test]
fn leftovers_of_leftovers_are_found_when_their_parents_die() {
    let nest = |inner: Option<Plan>| Plan {
        steps: inner
            .map(|p| (ms(1), Step::Fork(Box::new(p), true)))
            .into_iter()
            .collect(),
        term: None,
        ..a(Kind::Good)
    };
    let mut leader = a(Kind::Good);
    let daemons = nest(Some(nest(Some(nest(None)))));
    leader
        .steps
        .push((ms(1), Step::Fork(Box::new(daemons), true)));
    let mut w = told(of(1), vec![leader], Kind::Good);
    w.run(secs(5));
    let (code, took) = stop(&mut w);
    assert_eq!(code, Some(0));
    assert!(took >= secs(10) && took < ms(10_100), "{took:?}");
    assert_eq!(w.cover.count("Mark::Adopted"), 2);
}

#[test]
fn a_leap_of_the_clock_hurts_nobody() {
    let mut w = told(of(4), vec![], Kind::Good);
    w.run(secs(5));
    w.mischief(Mischief::Jump(secs(3600)));
    w.run(secs(5));
    assert_eq!(w.judge.ready(), 4);
    assert_eq!(w.cover.count("Action::Signal"), 0);
}

#[test]
fn a_client_that_hangs_up_changes_nothing_but_who_is_told() {
    let mut w = told(of(2), vec![stopping_in(Some(secs(3)))], Kind::Good);
    w.run(secs(5));
    w.mischief(Mischief::Stop { hard: false });
    w.run(secs(1));
    w.mischief(Mischief::HangUp);
    let (code, took) = end(&mut w);
    assert_eq!(code, Some(0));
    assert!(took <= ms(2100), "{took:?}");
    assert_eq!(w.cover.count("Action::Answer"), 0);
}

#[test]
fn a_server_that_accepts_on_fd_3_is_seen_to_be_ready() {
    let mut w = told(of(2), vec![], Kind::HandedFds);
    assert!(w.run_until(secs(5), |w| w.judge.ready() == 2));
    assert_eq!(w.cover.count("Event::BindAsked"), 0);
}

#[test]
fn a_port_that_was_given_and_that_nobody_serves_is_named_once() {
    let policy = Policy {
        given: ["0.0.0.0:3000", "[::1]:3001"]
            .map(|a| a.parse::<Addr>().unwrap().into())
            .to_vec(),
        ..of(2)
    };
    // Made for the policy of the manual, which has the first of them only.
    let script = vec![a(Kind::Good), a(Kind::Good)];
    let mut w = told(policy.clone(), script, Kind::Good);
    w.run(secs(60));
    assert_eq!(w.judge.ready(), 2);
    assert_eq!(w.cover.count("Notice::Unserved"), 1);
    assert_eq!(w.cover.count("Action::LookForServers"), 3);
    let mut both = told(policy, vec![], Kind::HandedFds);
    both.run(secs(60));
    assert_eq!(both.judge.ready(), 2);
    assert_eq!(both.cover.count("Action::LookForServers"), 1);
    assert_eq!(both.cover.count("Notice::Unserved"), 0);
}

#[test]
fn without_takeover_a_server_with_reuseport_serves_alone() {
    let mut w = told(of(2), vec![], Kind::OwnSocket);
    assert!(w.run_until(secs(5), |w| w.judge.ready() == 2));
    assert_eq!(w.cover.count("Notice::TakeoverRefused"), 1);
    assert_eq!(w.cover.count("Action::CloseLane"), 1);
    assert_eq!(stop(&mut w).0, Some(0));
}

#[test]
fn takeover_required_and_refused_is_exit_71() {
    let policy = Policy {
        takeover: Takeover::Require,
        ..of(2)
    };
    let mut w = told(policy, vec![], Kind::Refused);
    let (code, took) = end(&mut w);
    assert_eq!(code, Some(71));
    assert!(took < ms(100));
}

#[test]
fn one_slot_that_crashes_in_a_loop_does_not_disturb_the_others() {
    let good = || a(Kind::Good);
    let crash = Plan {
        steps: vec![(ms(10), Step::End(Exit::Code(1)))],
        ..a(Kind::Crash)
    };
    let mut script = vec![good(), good(), good()];
    script.extend(std::iter::repeat_n(crash, 100));
    let mut w = told(of(4), script, Kind::Good);
    assert!(w.run_until(secs(1), |w| w.judge.ready() == 3));
    w.run(secs(600));
    assert_eq!(w.judge.ready(), 3);
    // 0.1 0.2 0.4 .. 25.6 30 30 ..: nine in the first minute, then one in 24 to 30 s.
    let spawns = w.cover.count("Action::Spawn") - 3;
    assert!((25..=35).contains(&spawns), "{spawns}");
}

#[test]
fn a_stuck_worker_does_not_cut_short_the_stop_of_the_others() {
    let mut stuck = a(Kind::Good);
    stuck.steps = vec![(ms(0), Step::Stick(secs(3600)))];
    let mut policy = of(2);
    policy.ready = ReadyRule::Listening;
    policy.ready_timeout = Some(secs(3));
    let script = vec![stuck, stopping_in(Some(secs(8)))];
    let mut w = told(policy, script, Kind::Good);
    // It was killed at 3 s, and would be called unkillable at 8 s: in the middle of the stop.
    w.run(secs(6));
    let (code, took) = stop(&mut w);
    assert_eq!(code, Some(71));
    assert_eq!(w.judge.stuck.len(), 1);
    assert!(took >= secs(8) && took <= secs(20), "{took:?}");
    assert_eq!(w.cover.count("Notice::TooSlowToStop"), 0);
}

#[test]
fn the_leftovers_of_others_are_ended_though_a_worker_is_stuck() {
    let mut stuck = a(Kind::Good);
    stuck.steps.insert(0, (ms(0), Step::Stick(secs(3600))));
    let mut leaves = a(Kind::Daemons);
    let daemon = Plan {
        steps: vec![],
        ..stopping_in(None)
    };
    leaves
        .steps
        .push((ms(1), Step::Fork(Box::new(daemon), true)));
    let mut w = told(of(2), vec![stuck, leaves], Kind::Good);
    w.run(secs(5));
    // The judge sees to it that no process is left but the one named.
    assert_eq!(stop(&mut w).0, Some(71));
    assert_eq!(w.judge.stuck.len(), 1);
}

#[test]
fn what_has_no_names_is_asked_waited_for_and_killed_all_the_same() {
    let deaf = Plan {
        steps: vec![],
        ..stopping_in(None)
    };
    let mut leaves = a(Kind::Good);
    leaves.steps.push((ms(1), Step::Fork(Box::new(deaf), true)));
    let mut w = told(of(1), vec![leaves], Kind::Good);
    w.faults.nameless = true;
    w.run(secs(5));
    let (code, took) = stop(&mut w);
    assert_eq!(code, Some(0));
    assert!(took >= secs(10), "not waited for: {took:?}");
    assert_eq!(w.cover.count("Notice::Leftovers"), 2);
}

#[test]
fn a_master_that_was_paused_does_not_call_the_dead_unkillable() {
    let mut w = told(of(4), vec![], Kind::Good);
    w.run(secs(5));
    w.mischief(Mischief::Signal(draw::QUIT));
    w.run(Duration::ZERO);
    w.mischief(Mischief::Stall(secs(6)));
    assert_eq!(end(&mut w).0, Some(1));
    assert_eq!(w.cover.count("Notice::StillThere"), 0);
}

#[test]
fn a_client_that_asks_for_the_end_when_it_has_come_hears_of_it() {
    let mut w = told(of(1), vec![], Kind::Good);
    w.run(secs(5));
    term(&mut w);
    assert!(w.run_until(secs(1), |w| w.cover.count("Action::Dismiss") == 1));
    // The worker's end and the client's wish come to be known in one turn.
    w.mischief(Mischief::Stall(secs(1)));
    w.run(ms(500));
    w.mischief(Mischief::Stop { hard: true });
    assert_eq!(end(&mut w).0, Some(0));
    assert_eq!(w.cover.count("Mark::AskedTooLate"), 1);
}

#[test]
fn a_child_stuck_before_exec_holds_up_no_other_slot_and_no_stop() {
    let mut stuck = a(Kind::Good);
    (stuck.exec_after, stuck.held) = (secs(3600), Some(secs(3600)));
    let mut w = told(of(4), vec![stuck], Kind::Good);
    assert!(w.run_until(secs(3), |w| w.judge.ready() == 3));
    let (code, took) = stop(&mut w);
    assert_eq!(code, Some(71));
    assert_eq!(w.judge.stuck.len(), 1);
    assert!(took <= secs(20), "{took:?}");
}

#[test]
fn a_process_that_became_ours_unheard_is_named_in_the_end() {
    let apart = |inner: Option<Plan>| Plan {
        steps: inner
            .map(|p| (ms(1), Step::Fork(Box::new(p), true)))
            .into_iter()
            .collect(),
        ..stopping_in(None)
    };
    let mut outer = apart(Some(apart(Some(apart(None)))));
    outer.steps.push((ms(1), Step::Stick(secs(3600))));
    let mut leader = a(Kind::Good);
    leader
        .steps
        .push((ms(1), Step::Fork(Box::new(outer), true)));
    let mut w = told(of(1), vec![leader], Kind::Good);
    w.run(secs(5));
    w.mischief(Mischief::Signal(draw::QUIT));
    w.run(secs(1));
    // The stuck one's child ends; its own child is ours now, but nobody tells us.
    let middle = *w.procs.keys().nth(1).unwrap();
    w.end(middle, Exit::Signal(9));
    assert_eq!(end(&mut w).0, Some(71));
    assert_eq!(w.judge.stuck.len(), 2);
}

#[test]
fn the_end_is_not_given_up_while_those_who_are_left_get_fewer() {
    // The kernel needs that long for each of them, from their start.
    let left = |times: &[u64]| {
        let mut leader = a(Kind::Good);
        for n in times {
            let mut plan = stopping_in(None);
            plan.steps.push((ms(1), Step::Stick(secs(*n))));
            leader.steps.push((ms(1), Step::Fork(Box::new(plan), true)));
        }
        let mut w = told(of(1), vec![leader], Kind::Good);
        w.run(secs(5));
        w.mischief(Mischief::Signal(draw::QUIT));
        end(&mut w)
    };
    let (code, took) = left(&[9, 14, 19]);
    assert_eq!(code, Some(1));
    assert!(took > secs(13) && took < secs(16), "{took:?}");
    // None has gone within 5 s, or none within the next 5.
    let (code, took) = left(&[13, 17]);
    assert_eq!(code, Some(71));
    assert!(took < secs(6), "{took:?}");
    let (code, took) = left(&[9, 30]);
    assert_eq!(code, Some(71));
    assert!(took > secs(9) && took < secs(11), "{took:?}");
}

#[test]
fn forks_that_fail_do_not_make_the_master_spin() {
    let mut policy = of(4);
    policy.respawn = Duration::ZERO;
    let mut faults = draw::calm();
    faults.spawn_fails = 100;
    let mut w = World::new(policy, faults, Prng::new(1));
    w.begin();
    w.run(secs(10));
    assert!(w.cover.count("Action::Spawn") <= 4 * 101);
    w.faults.spawn_fails = 0;
    assert!(w.run_until(secs(2), |w| w.judge.ready() == 4));
}

#[test]
fn without_a_respawn_delay_a_crash_loop_stays_without_one() {
    let mut policy = of(1);
    policy.respawn = Duration::ZERO;
    let crash = Plan {
        steps: vec![(ms(10), Step::End(Exit::Code(1)))],
        ..a(Kind::Crash)
    };
    let mut w = told(policy, vec![crash; 40], Kind::Good);
    assert!(w.run_until(secs(2), |w| w.judge.ready() == 1));
}

#[test]
fn a_worker_that_was_lent_a_lane_may_still_listen_when_we_have_closed_ours() {
    let mut late = a(Kind::Good);
    (late.steps[0].0, late.steps[1].0) = (ms(0), secs(3));
    let mut own = a(Kind::OwnSocket);
    own.steps[0].0 = ms(500);
    let mut w = told(of(2), vec![late, own], Kind::Good);
    assert!(w.run_until(secs(10), |w| w.judge.ready() == 2));
    assert_eq!(w.cover.count("Action::CloseLane"), 1);
}
