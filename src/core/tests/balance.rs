//! A lane for each worker: who has which, who gets the clients of whom, and what is emptied.

use super::*;

const ADDR: &str = "0.0.0.0:80";

fn addr() -> Addr {
    ADDR.parse().expect("an address")
}

/// A cluster of so many that serves ADDR by a lane for each of its workers, which are ready.
pub(super) fn serving(workers: u16, balance: Balance) -> (Rig, Vec<WorkerId>) {
    let mut p = policy();
    (p.workers, p.ready, p.balance) = (workers, ReadyRule::Said, balance);
    p.given = vec![given(ADDR)];
    p.backoff_reset = Duration::ZERO;
    let mut r = Rig::new(p);
    r.open_all();
    let ids = r.run_spawns();
    r.open_all();
    for id in &ids {
        r.says_ready(*id);
    }
    (r, ids)
}

impl Rig {
    fn reload(&mut self) {
        self.tell(Event::Reload {
            asker: None,
            wait: false,
            by: None,
            why: "told",
            with: Ok(Box::new(self.cluster.policy.clone())),
            terms: Terms::default(),
        });
    }

    /// All lanes that were asked for are open.
    pub(super) fn open_all(&mut self) {
        let opening = |l: &&Lane| matches!(l.state, lane::LaneState::Opening(_));
        let all: Vec<LaneId> = self
            .cluster
            .lanes
            .iter()
            .filter(opening)
            .map(|l| l.id)
            .collect();
        for lane in all {
            self.tell(Event::LaneOpened { lane, addr: addr() });
        }
    }

    /// The lane of a worker's own.
    pub(super) fn lane_of(&self, worker: WorkerId) -> LaneId {
        let seat = self.cluster.fleet.get(worker).expect("a worker").seat;
        let mut its = self.cluster.lanes.of(lane::Of::Seat(seat));
        its.next().expect("a lane").id
    }

    /// The last table that was asked for.
    pub(super) fn table(&self) -> Table {
        let table = |a: &Action| match a {
            Action::Steer { table, .. } => Some(table.clone()),
            _ => None,
        };
        self.out.iter().rev().find_map(table).expect("a table")
    }

    fn buckets(&self) -> Vec<LaneId> {
        match self.table().deal {
            Deal::Buckets(_, all) => all,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn each_worker_has_a_lane_and_a_part_of_the_clients() {
    for (balance, key) in [(Balance::Hash, Key::Connection), (Balance::Ip, Key::Client)] {
        let (r, ids) = serving(4, balance);
        let Deal::Buckets(by, all) = r.table().deal else {
            panic!("{:?}", r.table());
        };
        assert_eq!(by, key);
        for id in ids {
            let lane = r.lane_of(id);
            assert_eq!(all.iter().filter(|l| **l == lane).count(), BUCKETS / 4);
        }
    }
}

#[test]
fn a_slot_that_is_added_gets_its_clients_when_it_is_ready_and_they_stay_until_then() {
    let (mut r, ids) = serving(3, Balance::Ip);
    let before = r.buckets();
    r.did();
    r.tell(Event::Resize {
        asker: Asker(1),
        to: Size::To(5),
        by: By {
            pid: Pid(1),
            uid: 0,
        },
        wait: true,
    });
    r.open_all();
    let new = r.run_spawns();
    r.open_all();
    let steered = |r: &Rig| r.out.iter().any(|a| matches!(a, Action::Steer { .. }));
    assert!(new.len() == 2 && !steered(&r), "{:?}", r.out);
    for id in new {
        r.says_ready(id);
    }
    let (now, all) = (r.buckets(), r.cluster.slots.len());
    let old: Vec<LaneId> = ids.iter().map(|id| r.lane_of(*id)).collect();
    let moved = before.iter().zip(&now).filter(|(a, b)| a != b);
    assert!(moved.clone().all(|(_, to)| !old.contains(to)));
    // A third of a quarter, and a quarter of a fifth, come to each.
    assert_eq!(
        (all, moved.count()),
        (5, BUCKETS / 4 + BUCKETS / 5 - BUCKETS / 20)
    );
}

#[test]
fn who_crashes_is_steered_around_before_anything_else_and_its_clients_come_back() {
    let (mut r, ids) = serving(3, Balance::Ip);
    let (before, lane) = (r.buckets(), r.lane_of(ids[1]));
    r.did();
    r.tell(Event::Exited {
        worker: ids[1],
        status: Exit::Signal(9),
        last: String::new(),
        oom: Oom::No,
    });
    assert!(matches!(&r.out[0], Action::Steer { table, .. } if !table.names(lane)));
    let meanwhile = r.buckets();
    for (old, new) in before
        .iter()
        .zip(&meanwhile)
        .filter(|(old, _)| **old != lane)
    {
        assert_eq!(old, new);
    }
    r.at(200);
    let next = *r.run_spawns().last().expect("another one");
    // What waited in its lane waits for that one.
    assert_eq!(r.lane_of(next), lane);
    r.says_ready(next);
    assert_eq!(r.buckets(), before);
}

#[test]
fn a_successor_has_a_lane_of_its_own_and_the_old_one_is_emptied_alone() {
    let (mut r, ids) = serving(2, Balance::Hash);
    let (before, old) = (r.buckets(), [r.lane_of(ids[0]), r.lane_of(ids[1])]);
    r.reload();
    r.open_all();
    let new = r.run_spawns();
    r.open_all();
    let new = &new[new.len() - 2..];
    r.says_ready(new[0]);
    let steered = |r: &Rig| r.out.iter().any(|a| matches!(a, Action::Steer { .. }));
    assert!(!steered(&r), "not before both are ready");
    r.says_ready(new[1]);
    // Slot by slot: who was a client of the one is one of its successor.
    let now: Vec<LaneId> = before
        .iter()
        .map(|l| match *l == old[0] {
            true => r.lane_of(new[0]),
            false => r.lane_of(new[1]),
        })
        .collect();
    assert_eq!(r.buckets(), now);
    let looks = |r: &Rig, lane| {
        r.out
            .iter()
            .any(|a| matches!(a, Action::TakeCensus { lanes, .. } if lanes.contains(&lane)))
    };
    r.at(20);
    assert!(looks(&r, old[0]) && looks(&r, old[1]));
    // The first is empty, and does not wait for the second.
    r.did();
    let look = |lane, queued| LaneLook {
        lane,
        handshakes: 0,
        queued,
    };
    r.tell(Event::Census {
        lanes: vec![look(old[0], 0), look(old[1], 1)],
        loads: vec![(ids[0], Load::default()), (ids[1], Load::default())],
        took: Duration::ZERO,
    });
    let asked: Vec<WorkerId> = r
        .out
        .iter()
        .filter_map(|a| match a {
            Action::Dismiss { worker, .. } => Some(*worker),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [ids[0]]);
    r.exits(ids[0], Exit::Code(0));
    r.tell(Event::TreeGone { worker: ids[0] });
    assert!(
        r.out
            .iter()
            .any(|a| matches!(a, Action::RetireLane { lane } if *lane == old[0]))
    );
}

#[test]
fn where_the_port_can_have_one_lane_only_all_share_it() {
    let mut p = policy();
    (p.workers, p.ready, p.balance) = (2, ReadyRule::Said, Balance::Hash);
    p.given = vec![given(ADDR)];
    let mut r = Rig::new(p);
    r.open_all();
    let ids = r.run_spawns();
    let second = r.cluster.lanes.iter().last().expect("a second lane").id;
    assert_ne!(second, LaneId(1));
    r.tell(Event::LaneAlone { lane: second });
    assert!(
        r.did()
            .iter()
            .any(|a| matches!(a, Action::ShareLane { lane: LaneId(1) }))
    );
    for id in &ids {
        r.says_ready(*id);
    }
    assert!(!r.did().iter().any(|a| matches!(a, Action::Steer { .. })));
}

#[test]
fn with_one_worker_and_no_surge_its_lane_is_kept_for_the_next() {
    let mut p = policy();
    (p.workers, p.ready, p.balance) = (1, ReadyRule::Said, Balance::Ip);
    (p.given, p.surge) = (vec![given(ADDR)], Surge::Count(0));
    let mut r = Rig::new(p);
    r.open_all();
    let old = r.run_spawns()[0];
    r.says_ready(old);
    let lane = r.lane_of(old);
    r.did();
    r.reload();
    r.at(20);
    r.tell(Event::Census {
        lanes: Vec::new(),
        loads: vec![(old, Load::default())],
        took: Duration::ZERO,
    });
    r.exits(old, Exit::Code(0));
    let new = *r.run_spawns().last().expect("another one");
    assert_eq!(r.lane_of(new), lane);
    r.says_ready(new);
    let did = r.did();
    assert!(
        !did.iter()
            .any(|a| matches!(a, Action::Steer { .. } | Action::RetireLane { .. }))
    );
}

#[test]
fn one_that_says_that_it_goes_gets_no_more_while_there_are_others() {
    let (mut r, ids) = serving(2, Balance::Ip);
    let lanes = [r.lane_of(ids[0]), r.lane_of(ids[1])];
    let stopping = |r: &mut Rig, worker| {
        let word = Word::Stopping;
        r.tell(Event::Said { worker, word });
    };
    stopping(&mut r, ids[0]);
    assert!(!r.table().names(lanes[0]) && r.table().names(lanes[1]));
    stopping(&mut r, ids[1]);
    assert!(r.table().names(lanes[0]) && r.table().names(lanes[1]));
}
