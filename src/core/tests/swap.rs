//! One worker in place of another: who is due, whose turn it is, and what comes between.

use super::*;
use crate::core::recycle::WEIGH_MOST;

/// So many that are ready, under this.
fn ready(workers: u16, recycle: Recycle) -> (Rig, Vec<WorkerId>) {
    let mut p = policy();
    (p.workers, p.ready, p.recycle) = (workers, ReadyRule::Said, recycle);
    let mut r = Rig::new(p);
    let ids = r.run_spawns();
    for id in &ids {
        r.says_ready(*id);
    }
    r.did();
    (r, ids)
}

impl Rig {
    fn restart(&mut self, asker: u64, slot: u32, within: Option<Duration>) {
        self.restart_as(asker, slot, None, within);
    }

    fn restart_as(&mut self, asker: u64, slot: u32, runs: Option<u32>, within: Option<Duration>) {
        self.tell(Event::Restart(Restart {
            asker: Asker(asker),
            target: Target::Slot(slot),
            program: runs.map(Program),
            within,
            by: By {
                pid: Pid(1),
                uid: 0,
            },
            wait: true,
        }));
    }

    fn answered(&self) -> Vec<(u64, &Outcome)> {
        let mut all = Vec::new();
        for a in &self.out {
            if let Action::Answer { asker, outcome } = a {
                all.push((asker.0, outcome));
            }
        }
        all
    }
}

/// Whom it was said of, and why.
fn recycled(actions: &[Action]) -> Vec<(u16, Reason)> {
    let pick = |a: &Action| match a {
        Action::Note(Notice::Recycling { who, why, .. }) => Some((who.slot.0, *why)),
        _ => None,
    };
    actions.iter().filter_map(pick).collect()
}

#[test]
fn those_that_come_due_together_have_their_turns_one_after_the_other() {
    let recycle = Recycle {
        age: Some(Duration::from_secs(10)),
        ..Recycle::default()
    };
    let (mut r, ids) = ready(3, recycle);
    r.at(9_999);
    assert!(recycled(&r.did()).is_empty());
    r.at(10_000);
    let age = Duration::from_secs(10);
    let why = Reason::Age { age, limit: age };
    assert_eq!(recycled(&r.out), [(0, why)]);
    let new = r.run_spawns();
    assert_eq!(new.len(), 1);
    assert!(r.did().iter().all(|a| !matches!(a, Action::Dismiss { .. })));
    r.says_ready(new[0]);
    // The old one serves nothing, as far as we know: it is asked at the first look.
    assert!(recycled(&r.out).is_empty());
    assert_eq!(r.cluster.ready_count(), 3);
    r.exits(ids[0], Exit::Code(0));
    assert_eq!(recycled(&r.out), [(1, why)]);
}

#[test]
fn each_has_its_own_part_of_the_limit_drawn_at_its_birth() {
    let recycle = Recycle {
        connections: Some(1000),
        jitter: 50,
        ..Recycle::default()
    };
    let (mut r, ids) = ready(2, recycle);
    let mut limits = Vec::new();
    for id in &ids {
        let share = r.cluster.fleet.get(*id).expect("it is there").share;
        assert!((0.5..=1.0).contains(&share));
        limits.push((1000.0 * share).ceil() as u64);
    }
    assert_ne!(limits[0], limits[1]);
    let (worker, limit) = (ids[1], limits[1]);
    r.tell(Event::Counted {
        worker,
        served: limit - 1,
    });
    assert!(recycled(&r.out).is_empty());
    r.tell(Event::Counted {
        worker,
        served: limit + 3,
    });
    let served = limit + 3;
    assert_eq!(
        recycled(&r.out),
        [(1, Reason::Connections { served, limit })]
    );
}

#[test]
fn memory_is_looked_at_now_and_then_so_many_at_a_time() {
    let recycle = Recycle {
        rss: Some(1000),
        ..Recycle::default()
    };
    let (mut r, ids) = ready(100, recycle);
    let looked = |r: &mut Rig| -> Vec<Vec<WorkerId>> {
        let pick = |a: Action| match a {
            Action::Weigh { workers } => Some(workers),
            _ => None,
        };
        r.did().into_iter().filter_map(pick).collect()
    };
    r.at(1_999);
    assert!(looked(&mut r).is_empty());
    r.at(2_000);
    assert_eq!(looked(&mut r), [ids[..WEIGH_MOST].to_vec()]);
    r.at(2_001);
    assert_eq!(looked(&mut r), [ids[WEIGH_MOST..].to_vec()]);
    r.at(12_000);
    assert!(looked(&mut r).is_empty());
    r.at(12_001);
    assert_eq!(looked(&mut r).len(), 1);
    r.tell(Event::Weighed {
        sizes: vec![(ids[7], 1000), (ids[8], 1001)],
    });
    let (rss, limit) = (1001, 1000);
    assert_eq!(recycled(&r.out), [(8, Reason::Rss { rss, limit })]);
}

#[test]
fn an_operator_is_answered_and_has_the_turn_before_those_that_are_due() {
    let recycle = Recycle {
        age: Some(Duration::from_secs(10)),
        ..Recycle::default()
    };
    let (mut r, ids) = ready(3, recycle);
    r.at(10_000);
    r.restart(1, 2, Some(Duration::from_millis(700)));
    let first = r.run_spawns()[0];
    r.says_ready(first);
    r.exits(ids[0], Exit::Code(0));
    // It was due as well: what an operator has asked for is tried once, that until it is done.
    let turns: Vec<u16> = recycled(&r.out).iter().map(|(slot, _)| *slot).collect();
    assert_eq!(turns, [2]);
    let second = r.run_spawns()[0];
    // Its time is shorter than that of others.
    r.at(10_700);
    let killed = signals(&r.did());
    assert_eq!(killed, [(second, 9, Whom::Group)]);
    r.exits(second, Exit::Signal(9));
    let told = r.answered();
    assert!(
        matches!(
            told.as_slice(),
            [(
                1,
                Outcome::NotRestarted {
                    hitch: Hitch::Died(_),
                    ready: 3
                }
            )]
        ),
        "{told:?}"
    );
    let again = |a: &Action| matches!(a, Action::Note(Notice::NotRecycled { again: Some(d), .. }) if *d >= Duration::from_millis(100));
    assert!(r.out.iter().any(again));
}

#[test]
fn who_waits_hears_that_the_new_one_has_ended_before_the_old_one_has_gone() {
    let (mut r, ids) = ready(2, Recycle::default());
    r.restart(7, 0, None);
    let new = r.run_spawns()[0];
    r.says_ready(new);
    r.did();
    r.exits(new, Exit::Code(5));
    let answered = r.answered();
    let [(7, Outcome::NotRestarted { hitch, ready: 1 })] = answered[..] else {
        panic!("{answered:?}");
    };
    let Hitch::Died(death) = hitch else {
        panic!("{hitch:?}");
    };
    assert!(death.had_slot && death.exit == Exit::Code(5));
    assert!(
        matches!(death.next, crate::core::notice::Next::Respawn(_)),
        "{death:?}"
    );
    // The slot goes on by itself, and nobody hears of it twice.
    r.out.clear();
    r.exits(ids[0], Exit::Code(0));
    assert!(r.answered().is_empty());
}

#[test]
fn what_takes_the_place_of_one_that_goes_on_is_no_fork_on_account_of_a_failure() {
    let mut p = policy();
    (p.workers, p.ready, p.max_forks) = (1, ReadyRule::Said, 1);
    let mut r = Rig::new(p);
    let old = r.run_spawns()[0];
    r.says_ready(old);
    r.at(2000);
    r.tell(Event::Said {
        worker: old,
        word: Word::Retire,
    });
    let new = r.run_spawns()[0];
    r.says_ready(new);
    assert_eq!(r.cluster.used(r.now).forks, Some((1, 1)));
}

#[test]
fn one_that_wants_to_go_before_it_has_settled_has_failed_and_is_replaced_like_one_that_has() {
    let mut p = policy();
    (p.workers, p.ready) = (1, ReadyRule::Said);
    (p.max_forks, p.restarts_per_minute) = (3, 2);
    let mut r = Rig::new(p);
    let mut one = r.run_spawns()[0];
    let mut ms = 0;
    r.says_ready(one);
    for failures in 1..=3 {
        r.did();
        for _ in 0..2 {
            let word = Word::Retire;
            r.tell(Event::Said { worker: one, word });
        }
        // Its backoff, once however often it says so.
        let later = |n: u32| move |a: &&Action| matches!(a, Action::Note(Notice::RecyclesLater { wait: Some(_), failures, .. }) if *failures == n);
        assert_eq!(r.out.iter().filter(later(failures)).count(), 1);
        assert_eq!(spawned(&r.out), []);
        let wait = r.cluster.deadlines.get(Why::Swap).map(|at| at - r.now);
        let least = Duration::from_millis(80 << (failures - 1));
        assert!(wait >= Some(least), "{wait:?}");
        ms += 1000;
        r.at(ms);
        if failures < 3 {
            let old = std::mem::replace(&mut one, r.run_spawns()[0]);
            r.says_ready(one);
            r.exits(old, Exit::Code(0));
        }
    }
    // All that it may have are forked, and it goes on; an operator who asks for it need not wait.
    let not = |a: &Action| matches!(a, Action::Note(Notice::RecyclesLater { wait: None, .. }));
    assert!(r.did().iter().any(not));
    let used = r.cluster.used(r.now);
    assert_eq!((used.respawns, used.forks), (Some((2, 2)), Some((3, 3))));
    assert_eq!(r.cluster.deadlines.get(Why::Swap), None);
    r.restart(1, 0, None);
    assert_eq!(spawned(&r.out), [(0, 0)]);
}

/// What was spawned, by slot.
fn spawned(actions: &[Action]) -> Vec<(u16, u32)> {
    let pick = |a: &Action| match a {
        Action::Spawn { slot, program, .. } => Some((slot.0, program.0)),
        _ => None,
    };
    actions.iter().filter_map(pick).collect()
}

#[test]
fn a_slot_runs_what_its_new_worker_does_from_the_moment_in_which_that_is_ready() {
    let (mut r, ids) = ready(2, Recycle::default());
    r.restart_as(1, 1, Some(7), None);
    assert_eq!(spawned(&r.out), [(1, 7)]);
    let new = r.run_spawns();
    // Another one of it is refused meanwhile; one of what it runs joins.
    r.restart_as(2, 1, Some(8), None);
    let refused = r.answered();
    let hitch = |o: &Outcome| {
        matches!(
            o,
            Outcome::NotRestarted {
                hitch: Hitch::UnderWay(_),
                ..
            }
        )
    };
    assert!(refused.len() == 1 && refused[0].0 == 2 && hitch(refused[0].1));
    r.did();
    // It fails: the slot runs what it did.
    r.exits(new[0], Exit::Code(1));
    assert!(r.answered().iter().any(|(asker, _)| *asker == 1));
    assert!(!r.cluster.runs(Program(7)));
    r.did();
    r.restart_as(3, 1, Some(9), None);
    assert_eq!(spawned(&r.out), [(1, 9)]);
    let new = r.run_spawns();
    r.says_ready(new[0]);
    r.exits(ids[1], Exit::Code(0));
    assert!(r.cluster.runs(Program(9)));
    r.did();
    // And what comes after it, too.
    r.restart(4, 1, None);
    assert_eq!(spawned(&r.out), [(1, 9)]);
}

#[test]
fn of_one_that_comes_alone_because_the_old_one_has_ended_the_slot_runs_the_program_once_it_is_ready()
 {
    let (mut r, ids) = ready(2, Recycle::default());
    r.restart_as(1, 1, Some(7), None);
    let new = r.run_spawns();
    r.did();
    r.exits(ids[1], Exit::Code(1));
    r.did();
    // It fails, too: what ran before comes back.
    r.exits(new[0], Exit::Code(1));
    r.at(60_000);
    assert_eq!(spawned(&r.out), [(1, 0)]);
    let next = r.run_spawns();
    r.says_ready(next[0]);
    r.restart_as(2, 1, Some(9), None);
    let new = r.run_spawns();
    r.exits(next[0], Exit::Code(1));
    r.says_ready(new[0]);
    r.did();
    r.restart(3, 1, None);
    assert_eq!(spawned(&r.out), [(1, 9)]);
}

#[test]
fn one_that_shares_its_queue_is_asked_to_stop_when_it_was_at_rest_and_not_before() {
    let (mut r, ids) = balance::serving(2, Balance::Shared);
    let lane = r.cluster.lanes.shared().next().expect("it is there").id;
    for worker in &ids {
        r.tell(Event::Listens {
            worker: *worker,
            lane,
        });
    }
    let at_rest = |a: &Action| match a {
        Action::DismissAtRest { worker, signal } => Some((*worker, *signal)),
        _ => None,
    };
    r.restart(1, 0, None);
    let new = r.run_spawns();
    r.says_ready(new[0]);
    r.did();
    let census = |owed| Event::Census {
        lanes: vec![],
        loads: vec![(
            ids[0],
            Load {
                open: owed,
                owed,
                sight: Sight::Full,
            },
        )],
        took: Duration::ZERO,
    };
    let looked = |r: &mut Rig, owed| {
        r.tell(census(owed));
        r.did().iter().filter_map(at_rest).collect::<Vec<_>>()
    };
    assert_eq!(looked(&mut r, 1), []);
    assert_eq!(looked(&mut r, 0), [(ids[0], 15)]);
    // It had another client by then: it is looked at again.
    let answer = |done| Event::Dismissed {
        worker: ids[0],
        done,
        took: Duration::ZERO,
    };
    r.tell(answer(false));
    assert!(r.cluster.deadlines.get(Why::Census).is_some());
    assert_eq!(looked(&mut r, 1), []);
    assert_eq!(looked(&mut r, 0), [(ids[0], 15)]);
    r.tell(answer(true));
    let done = r.did();
    let drained = |a: &Action| matches!(a, Action::Note(Notice::Drained { .. }));
    assert!(done.iter().any(drained) && signals(&done).is_empty());
    // At --stop-timeout it is killed like any other.
    r.at(60_000);
    assert_eq!(signals(&r.did()), [(ids[0], 9, Whom::Group)]);
}
