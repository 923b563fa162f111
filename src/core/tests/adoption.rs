//! Workers that another master has left.

use super::*;
use crate::core::adoption::Legacy;

/// Of generation 7, with that port learnt.
fn inherits(mut policy: Policy, learnt: &[&str]) -> Rig {
    policy.workers = 2;
    let mut cluster = Cluster::new(policy, ms(0));
    cluster.inherits(Legacy {
        generation: 7,
        learnt: learnt.iter().filter_map(|a| given(a).addr.tcp()).collect(),
    });
    let mut out = Vec::new();
    cluster.begin(ms(0), &mut out);
    Rig {
        cluster,
        out,
        now: ms(0),
        next_pid: 100,
    }
}

/// All lanes open; all workers that are to be forked are there, and serve these.
fn adopts(r: &mut Rig) -> (Vec<LaneId>, Vec<WorkerId>) {
    adopts_at(r, 0)
}

/// From that millisecond on.
fn adopts_at(r: &mut Rig, from: u64) -> (Vec<LaneId>, Vec<WorkerId>) {
    let mut lanes = Vec::new();
    for action in r.did() {
        if let Action::OpenLane { lane, what, .. } = action {
            let addr = match what {
                Opening::Given(given) => given.addr,
                Opening::Found { addr } => addr.into(),
                other => panic!("{other:?}"),
            };
            r.tell(Event::LaneOpened { lane, addr });
            lanes.push(lane);
        }
    }
    let mut ids = Vec::new();
    for n in 0..2 {
        r.at(from + n * 20);
        for action in r.did() {
            if let Action::Spawn { worker, reader, .. } = action {
                assert_eq!(reader.generation, 7);
                let (pid, lanes) = (Pid(40 + ids.len() as i32), lanes.clone());
                r.tell(Event::IsThere {
                    worker,
                    pid,
                    since: Time(0),
                    lanes,
                });
                ids.push(worker);
            }
        }
    }
    (lanes, ids)
}

#[test]
fn they_are_ready_at_once_whatever_new_ones_have_to_wait_for() {
    for ready in [
        ReadyRule::Auto,
        ReadyRule::Listening,
        ReadyRule::Said,
        ReadyRule::Answers,
        ReadyRule::Alive(Duration::from_secs(5)),
    ] {
        let mut p = policy();
        p.ready = ready;
        p.given = vec![given("0.0.0.0:3000")];
        let mut r = inherits(p, &[]);
        let (_, ids) = adopts(&mut r);
        assert_eq!((ids.len(), r.cluster.ready_count()), (2, 2), "{ready:?}");
        let status = r.cluster.status(r.now);
        assert!(status.slots.iter().all(|s| s.adopted && s.generation == 7));
        assert_eq!((status.generation, status.slots[1].restarts), (7, 0));
        // Nothing is waited for.
        assert_eq!(r.cluster.deadline(), None, "{ready:?}");
    }
}

#[test]
fn what_they_say_is_not_waited_for_either() {
    let mut p = policy();
    p.watchdog = Some(Duration::from_secs(1));
    p.given = vec![given("0.0.0.0:3000")];
    let mut r = inherits(p, &[]);
    let (_, ids) = adopts(&mut r);
    r.at(60_000);
    assert_eq!(r.cluster.ready_count(), 2);
    // Who comes in their place is heard.
    r.exits(ids[0], Exit::Unknown);
    let new = r.run_spawns()[0];
    r.says_ready(new);
    assert!(matches!(
        r.cluster.deadline(),
        Some((_, Why::Ready(_) | Why::Watchdog(_) | Why::Look(_)))
    ));
}

#[test]
fn each_is_as_old_as_it_is_and_goes_at_the_age_that_is_allowed() {
    let mut p = policy();
    p.recycle.age = Some(Duration::from_secs(60));
    p.given = vec![given("0.0.0.0:3000")];
    let mut r = inherits(p, &[]);
    r.at(50_000);
    let (_, ids) = adopts_at(&mut r, 50_000);
    let status = r.cluster.status(r.now);
    assert!(
        status
            .slots
            .iter()
            .all(|s| s.age >= Duration::from_secs(50))
    );
    let Some((at, why)) = r.cluster.deadline() else {
        panic!("nothing is due")
    };
    assert!(matches!(why, Why::Age(id) if ids.contains(&id)), "{why:?}");
    assert!(at <= Time(60_000_000_000), "{at:?}");
}

#[test]
fn how_one_ends_is_unknown_and_counts_as_a_failure() {
    let mut p = policy();
    p.given = vec![given("0.0.0.0:3000")];
    let mut r = inherits(p, &[]);
    let (_, ids) = adopts(&mut r);
    r.at(2_000);
    r.did();
    r.exits(ids[1], Exit::Unknown);
    let actions = r.did();
    // What it has left in its group goes with it, as with any other.
    assert!(signals(&actions).contains(&(ids[1], 9, Whom::Group)));
    let status = r.cluster.status(r.now);
    let [death] = status.deaths.as_slice() else {
        panic!("{:?}", status.deaths)
    };
    assert_eq!((death.cause, death.exit), (Cause::Failure, Exit::Unknown));
    assert_eq!(spawns(&actions), 1);
}

#[test]
fn a_port_that_they_have_learnt_is_learnt_and_served() {
    let mut r = inherits(policy(), &["127.0.0.1:4000"]);
    let (lanes, ids) = adopts(&mut r);
    assert_eq!((lanes.len(), ids.len()), (1, 2));
    let served = r.cluster.addrs();
    assert_eq!(served, [given("127.0.0.1:4000").addr]);
    assert!(r.cluster.lanes.is_learnt(lanes[0]));
}

#[test]
fn a_reload_replaces_them_by_a_generation_after_theirs() {
    let mut p = policy();
    p.given = vec![given("0.0.0.0:3000")];
    let mut r = inherits(p.clone(), &[]);
    let (_, ids) = adopts(&mut r);
    r.did();
    p.workers = 2;
    r.tell(Event::Reload {
        asker: None,
        wait: false,
        by: None,
        why: "test",
        with: Ok(Box::new(p)),
        terms: Terms::default(),
    });
    let beside = r.did();
    for action in &beside {
        if let Action::OpenLane { lane, .. } = action {
            let addr = given("0.0.0.0:3000").addr;
            r.tell(Event::LaneOpened { lane: *lane, addr });
        }
    }
    let new = |a: &Action| match a {
        Action::Spawn { reader, .. } => Some(reader.generation),
        _ => None,
    };
    let mut all = beside;
    all.extend(r.did());
    assert_eq!(all.iter().find_map(new), Some(8));
    assert!(ids.iter().all(|id| r.cluster.fleet.get(*id).is_some()));
}

#[test]
fn a_stop_that_came_first_ends_them() {
    let mut p = policy();
    p.given = vec![given("0.0.0.0:3000")];
    let mut r = inherits(p, &[]);
    let spawn = {
        let mut all = Vec::new();
        for action in r.did() {
            if let Action::OpenLane { lane, .. } = action {
                let addr = given("0.0.0.0:3000").addr;
                r.tell(Event::LaneOpened { lane, addr });
            }
        }
        all.extend(r.did());
        all.iter().find_map(|a| match a {
            Action::Spawn { worker, .. } => Some(*worker),
            _ => None,
        })
    };
    let Some(worker) = spawn else {
        panic!("nobody was to be spawned")
    };
    r.tell(Event::Signal(MasterSignal::Kill("SIGQUIT received")));
    r.did();
    let (pid, lanes) = (Pid(40), Vec::new());
    let since = Time(0);
    r.tell(Event::IsThere {
        worker,
        pid,
        since,
        lanes,
    });
    assert_eq!(signals(&r.did()), [(worker, 9, Whom::Group)]);
}
