//! Workers that leave clients waiting.

use super::*;

const LIMIT: u64 = 2000;
const GAP: u64 = LIMIT / 4;

/// A cluster of three that is looked at, all ready at 0.
fn watched(balance: Balance) -> (Rig, Vec<WorkerId>) {
    let mut p = policy();
    (p.workers, p.ready, p.balance) = (3, ReadyRule::Started, balance);
    p.hang_timeout = Some(Duration::from_millis(LIMIT));
    let mut r = Rig::new(p);
    let ids = r.run_spawns();
    r.did();
    (r, ids)
}

impl Rig {
    /// At that time it is looked who waits; whom is it looked at?
    fn looks(&mut self, at: u64) -> Vec<WorkerId> {
        self.at(at);
        let look = |a: &Action| match a {
            Action::LookHung { workers, .. } => Some(workers.iter().map(|(w, _)| *w).collect()),
            _ => None,
        };
        self.out.iter().find_map(look).unwrap_or_default()
    }

    /// At that time it is looked, and this is seen of one; the others are at work.
    fn sees(&mut self, at: u64, worker: WorkerId, wait: Wait) -> Vec<(WorkerId, i32, Whom)> {
        let of = |w| (w, if w == worker { wait } else { Wait::Moves });
        let seen = self.looks(at).into_iter().map(of).collect();
        self.tell(Event::Waiting { seen });
        signals(&self.did())
    }
}

const QUEUE: Wait = Wait::Stands(Waits::Queue(3));

#[test]
fn who_touches_nothing_for_that_long_hangs_and_who_touches_anything_does_not() {
    let (mut r, ids) = watched(Balance::Shared);
    for (n, wait) in [Wait::Moves, QUEUE, QUEUE, QUEUE, Wait::Moves, QUEUE]
        .iter()
        .enumerate()
    {
        assert_eq!(r.sees((1 + n as u64) * GAP, ids[1], *wait), []);
    }
    // A look that cannot tell neither ends nor takes the time.
    for (n, wait) in [Wait::Unknown, QUEUE].iter().enumerate() {
        assert_eq!(r.sees((7 + n as u64) * GAP, ids[1], *wait), []);
    }
    assert_eq!(r.sees(9 * GAP, ids[1], QUEUE), [(ids[1], 6, Whom::Leader)]);
    // Nobody looks at it any more.
    assert_eq!(r.looks(10 * GAP), [ids[0], ids[2]]);
    r.did();
    r.at(9 * GAP + 2000);
    assert_eq!(signals(&r.did()), [(ids[1], 9, Whom::Group)]);
}

#[test]
fn what_is_said_of_one_that_hangs_has_both_numbers_and_what_was_seen() {
    let (mut r, ids) = watched(Balance::Shared);
    let bytes = Wait::Stands(Waits::Bytes(1));
    r.sees(GAP, ids[0], Wait::Moves);
    for n in 2..5 {
        r.sees(n * GAP, ids[0], bytes);
    }
    let seen = vec![(ids[0], bytes)];
    r.looks(5 * GAP + 100);
    r.tell(Event::Waiting { seen });
    let said = |a: &Action| match a {
        Action::Note(n @ Notice::Hangs { .. }) => Some((n.to_string(), n.fields())),
        _ => None,
    };
    let (text, fields) = r.did().iter().find_map(said).expect("it is said");
    assert!(
        text.contains("1 byte on a connection of its own unread for 2.1s (--hang-timeout 2s)"),
        "{text}"
    );
    assert!(!fields.is_empty());
}

#[test]
fn a_look_that_comes_late_proves_nothing() {
    let (mut r, ids) = watched(Balance::Shared);
    r.sees(GAP, ids[0], Wait::Moves);
    r.sees(2 * GAP, ids[0], QUEUE);
    // The master was stopped, and goes on.
    let back = 60_000;
    assert_eq!(r.sees(back, ids[0], QUEUE), []);
    for n in 1..4 {
        assert_eq!(r.sees(back + n * GAP, ids[0], QUEUE), []);
    }
    let hung = r.sees(back + 4 * GAP, ids[0], QUEUE);
    assert_eq!(hung, [(ids[0], 6, Whom::Leader)]);
}

#[test]
fn nor_does_one_in_the_midst_of_which_the_master_was_stopped() {
    let (mut r, ids) = watched(Balance::Shared);
    r.sees(GAP, ids[0], Wait::Moves);
    let seen: Vec<_> = r.looks(2 * GAP).iter().map(|w| (*w, QUEUE)).collect();
    let back = 60_000;
    r.now = ms(back);
    r.tell(Event::Waiting { seen });
    assert_eq!(signals(&r.did()), []);
    for n in 0..4 {
        assert_eq!(r.sees(back + n * GAP, ids[0], QUEUE), []);
    }
    let hung = r.sees(back + 4 * GAP, ids[0], QUEUE);
    assert_eq!(hung, [(ids[0], 6, Whom::Leader)]);
}

#[test]
fn those_that_start_or_go_are_not_looked_at_and_a_cluster_that_stops_is_not() {
    let (mut r, ids) = watched(Balance::Shared);
    assert_eq!(r.looks(GAP), ids);
    r.did();
    r.exits(ids[0], Exit::Signal(9));
    assert_eq!(r.looks(2 * GAP), ids[1..]);
    let new = r.run_spawns();
    assert_eq!(r.looks(3 * GAP), [new[0], ids[1], ids[2]]);
    r.did();
    r.tell(Event::Signal(TERM));
    assert_eq!(r.looks(4 * GAP), []);
    assert_eq!(r.cluster.deadlines.get(Why::Hung), None);
}

#[test]
fn by_its_own_lane_one_is_looked_at_where_the_port_is_served_and_it_is_steered_to() {
    let (mut r, ids) = balance::serving(2, Balance::Hash);
    r.cluster.policy.hang_timeout = Some(Duration::from_millis(LIMIT));
    r.cluster.watch_waiting(r.now);
    let lanes = |r: &mut Rig, at: u64| {
        r.at(at);
        let look = |a: &Action| match a {
            Action::LookHung { workers, spread } => Some((workers.clone(), *spread)),
            _ => None,
        };
        r.did().iter().find_map(look).expect("it is looked")
    };
    let none = vec![(ids[0], vec![]), (ids[1], vec![])];
    assert_eq!(lanes(&mut r, GAP), (none, true));
    let lane = r.lane_of(ids[0]);
    for worker in ids.clone() {
        // What another one has served there says nothing of it.
        let (lane, before) = (r.lane_of(worker), r.cluster.lanes.served.len());
        assert_eq!(before, usize::from(worker != ids[0]));
        r.tell(Event::Listens { worker, lane });
    }
    let both = vec![(ids[0], vec![lane]), (ids[1], vec![r.lane_of(ids[1])])];
    assert_eq!(lanes(&mut r, 2 * GAP), (both, true));
    // One that hangs is steered around at once.
    let seen = |wait| Event::Waiting {
        seen: vec![(ids[0], wait)],
    };
    r.tell(seen(Wait::Moves));
    for n in 3..7 {
        r.at(n * GAP);
        r.tell(seen(QUEUE));
    }
    let other = r.lane_of(ids[1]);
    assert!(r.table().is_only(other), "{:?}", r.table());
}

#[test]
fn by_a_shared_lane_all_are_looked_at_that_were_seen_to_serve_it() {
    let (mut r, ids) = balance::serving(2, Balance::Shared);
    r.cluster.policy.hang_timeout = Some(Duration::from_millis(LIMIT));
    r.cluster.watch_waiting(r.now);
    let lanes = |r: &mut Rig, at: u64| {
        r.at(at);
        let look = |a: &Action| match a {
            Action::LookHung { workers, .. } => Some(workers.clone()),
            _ => None,
        };
        r.did().iter().find_map(look).expect("it is looked")
    };
    let lane = r.cluster.lanes.shared().next().expect("it is there").id;
    r.tell(Event::Listens {
        worker: ids[1],
        lane,
    });
    let one = vec![(ids[0], vec![]), (ids[1], vec![lane])];
    assert_eq!(lanes(&mut r, GAP), one);
}
