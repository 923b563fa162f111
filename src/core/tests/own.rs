//! Sockets that stay the workers' own: who gets new connections, what is emptied, and what is ended.

use super::*;
use crate::core::notice::Hindrance;

const ADDR: &str = "0.0.0.0:80";
const GIVEN: LaneId = LaneId(1);

/// A cluster of so many that serves ADDR, given or not, and its workers, which run.
fn serving(workers: u16, is_given: bool) -> (Rig, Vec<WorkerId>) {
    let mut p = policy();
    (p.workers, p.ready) = (workers, ReadyRule::Said);
    if is_given {
        p.given = vec![given(ADDR)];
    }
    let mut r = Rig::new(p);
    if is_given {
        r.tell(Event::LaneOpened {
            lane: GIVEN,
            addr: ADDR.parse().expect("an address"),
        });
    }
    let ids = r.run_spawns();
    r.did();
    (r, ids)
}

impl Rig {
    fn binds_own(&mut self, worker: WorkerId, addr: &str, device: Option<&str>) {
        self.tell(Event::BindAsked {
            worker,
            ask: Ask(worker.0),
            addr: addr.parse().expect("an address"),
            device: device.map(String::from),
            snag: Some(Snag::InEpollSet),
        });
    }

    /// It binds a socket of its own, which is adopted, and listens on it.
    fn adopts(&mut self, worker: WorkerId) -> LaneId {
        self.binds_own(worker, ADDR, None);
        let opening = |a: &Action| match a {
            Action::OpenLane {
                lane,
                what: Opening::Adopted { .. },
                ..
            } => Some(*lane),
            _ => None,
        };
        let lane = self
            .out
            .iter()
            .rev()
            .find_map(opening)
            .expect("it is adopted");
        self.tell(Event::LaneOpened {
            lane,
            addr: ADDR.parse().expect("an address"),
        });
        self.listens(worker, lane);
        lane
    }

    fn listens(&mut self, worker: WorkerId, lane: LaneId) {
        let ask = Ask(1000 + worker.0);
        self.tell(Event::ListenAsked { worker, ask, lane });
        self.tell(Event::Listens { worker, lane });
    }

    /// The tables that were asked for, in their order.
    fn steered(&mut self) -> Vec<Vec<(LaneId, u16)>> {
        let table = |a: Action| match a {
            Action::Steer { table, .. } => match table.deal {
                Deal::Shares(all) => Some(all),
                Deal::Buckets(..) | Deal::Cpus(_) => panic!("dealt by share"),
            },
            _ => None,
        };
        self.did().into_iter().filter_map(table).collect()
    }
}

/// Where it stands among what was done.
fn at(did: &[Action], what: impl Fn(&Action) -> bool) -> usize {
    let at = did.iter().position(what);
    at.unwrap_or_else(|| panic!("not among {did:#?}"))
}

fn retires(lane: LaneId) -> impl Fn(&Action) -> bool {
    move |a| matches!(a, Action::RetireLane { lane: l } if *l == lane)
}

fn steers(to: &[(LaneId, u16)]) -> impl Fn(&Action) -> bool {
    let to = Table::shares(to.to_vec());
    move |a| matches!(a, Action::Steer { table, .. } if *table == to)
}

#[test]
fn it_is_bound_where_the_others_are_and_gets_nothing_before_its_worker_is_ready() {
    let (mut r, ids) = serving(1, true);
    r.binds_own(ids[0], "127.0.0.1:80", None);
    let beside = |a: &Action| match a {
        Action::OpenLane {
            what: Opening::Adopted { addr, beside, .. },
            ..
        } => *beside && addr.to_string() == ADDR,
        _ => false,
    };
    let did = r.did();
    at(&did, beside);
    // The worker is answered when it is bound.
    assert!(!did.iter().any(|a| matches!(a, Action::Bound { .. })));
    let own = LaneId(2);
    r.tell(Event::LaneOpened {
        lane: own,
        addr: ADDR.parse().expect("an address"),
    });
    let did = r.did();
    at(&did, |a| matches!(a, Action::Bound { ask: Ask(1) }));
    // Nobody is let into a queue that nobody will read.
    at(&did, steers(&[]));
    r.listens(ids[0], own);
    assert!(r.steered().is_empty());
    r.says_ready(ids[0]);
    let did = r.did();
    let flush = |a: &Action| matches!(a, Action::FlushLane { lane: GIVEN });
    assert!(at(&did, steers(&[(own, 1)])) < at(&did, flush));
}

#[test]
fn the_lane_of_the_generation_counts_those_that_have_none_of_their_own() {
    let (mut r, ids) = serving(3, true);
    let own = r.adopts(ids[0]);
    // It may be one that has not come so far.
    r.says_ready(ids[1]);
    assert_eq!(r.steered(), [[]]);
    r.listens(ids[1], GIVEN);
    assert_eq!(r.steered().last().expect("a table"), &[(GIVEN, 1)]);
    r.says_ready(ids[0]);
    assert_eq!(r.steered(), [[(GIVEN, 1), (own, 1)]]);
    r.says_ready(ids[2]);
    let did = r.did();
    at(&did, steers(&[(GIVEN, 2), (own, 1)]));
    // It has readers.
    assert!(!did.iter().any(|a| matches!(a, Action::FlushLane { .. })));
    // They crash: who waits there waits for the next ones,
    for id in [ids[1], ids[2]] {
        r.exits(id, Exit::Signal(11));
    }
    let flush = |a: &Action| matches!(a, Action::FlushLane { lane: GIVEN });
    let did = r.did();
    at(&did, steers(&[(own, 1)]));
    assert!(!did.iter().any(flush));
    // one of which may read it,
    r.at(30_000);
    let next = r.run_spawns();
    r.adopts(next[0]);
    assert!(!r.did().iter().any(flush));
    // unless all have sockets of their own.
    r.adopts(next[1]);
    at(&r.did(), flush);
}

#[test]
fn who_waits_for_the_only_one_that_shares_a_lane_waits_for_the_next_one() {
    let (mut r, ids) = serving(2, true);
    r.adopts(ids[0]);
    r.listens(ids[1], GIVEN);
    ids.iter().for_each(|id| r.says_ready(*id));
    r.did();
    r.exits(ids[1], Exit::Signal(9));
    let flush = |a: &Action| matches!(a, Action::FlushLane { .. });
    assert!(!r.did().iter().any(flush));
}

#[test]
fn who_is_on_the_way_to_the_lane_of_the_generation_finds_it_as_it_was() {
    let (mut r, ids) = serving(2, true);
    r.adopts(ids[0]);
    r.binds(ids[1], 7, "0.0.0.0:80".parse().expect("an address"));
    r.says_ready(ids[0]);
    r.listens(ids[1], GIVEN);
    let flush = |a: &Action| matches!(a, Action::FlushLane { .. });
    assert!(!r.did().iter().any(flush));
}

#[test]
fn when_its_worker_crashes_it_is_steered_away_from_and_ended_at_once() {
    let (mut r, ids) = serving(2, true);
    let own = [r.adopts(ids[0]), r.adopts(ids[1])];
    ids.iter().for_each(|id| r.says_ready(*id));
    r.did();
    r.tell(Event::Exited {
        worker: ids[0],
        status: Exit::Signal(11),
        oom: Oom::No,
        last: String::new(),
    });
    let did = r.did();
    let steer = at(&did, steers(&[(own[1], 1)]));
    let retire = at(&did, retires(own[0]));
    let died = at(&did, |a| matches!(a, Action::Note(Notice::Died { .. })));
    assert!(steer < retire && retire < died);
    // While there is none nobody is let in, and the lane of the generation stays empty.
    r.exits(ids[1], Exit::Signal(11));
    let did = r.did();
    at(&did, steers(&[]));
    at(&did, retires(own[1]));
}

#[test]
fn what_a_worker_leaves_on_request_is_read_until_the_last_of_it_has_gone() {
    let (mut r, ids) = serving(1, true);
    let own = r.adopts(ids[0]);
    r.says_ready(ids[0]);
    r.tell(Event::Resize {
        asker: Asker(1),
        to: Size::To(2),
        by: By {
            pid: Pid(1),
            uid: 0,
        },
        wait: false,
    });
    r.did();
    r.tell(Event::Signal(TERM));
    r.tell(Event::Exited {
        worker: ids[0],
        status: Exit::Code(0),
        oom: Oom::No,
        last: String::new(),
    });
    assert!(!r.did().iter().any(retires(own)));
    r.tell(Event::TreeGone { worker: ids[0] });
    at(&r.did(), retires(own));
}

#[test]
fn one_of_several_is_emptied_alone() {
    let (mut r, ids) = serving(3, true);
    let own: Vec<LaneId> = ids.iter().map(|id| r.adopts(*id)).collect();
    ids.iter().for_each(|id| r.says_ready(*id));
    r.did();
    r.tell(Event::Resize {
        asker: Asker(1),
        to: Size::To(2),
        by: By {
            pid: Pid(1),
            uid: 0,
        },
        wait: true,
    });
    assert_eq!(r.steered(), [[(own[0], 1), (own[1], 1)]]);
    r.at(20);
    let asked = |a: &Action| match a {
        Action::TakeCensus { workers, lanes } => workers == &[ids[2]] && lanes == &[own[2]],
        _ => false,
    };
    at(&r.did(), asked);
    let look = |queued| LaneLook {
        lane: own[2],
        handshakes: 0,
        queued,
    };
    for (queued, leaves) in [(1, false), (0, true)] {
        r.tell(Event::Census {
            lanes: vec![look(queued)],
            loads: vec![(ids[2], Load::default())],
            took: Duration::ZERO,
        });
        let stops = signals(&r.did()).iter().any(|(id, ..)| *id == ids[2]);
        assert_eq!(stops, leaves, "{queued} in its queue");
    }
}

#[test]
fn at_a_learnt_port_it_is_the_first_and_has_others_beside_it() {
    let (mut r, ids) = serving(2, false);
    r.binds_own(ids[0], ADDR, None);
    let first = |a: &Action| {
        matches!(
            a,
            Action::OpenLane {
                what: Opening::Adopted { beside: false, .. },
                ..
            }
        )
    };
    at(&r.did(), first);
    let own = LaneId(1);
    r.tell(Event::LaneOpened {
        lane: own,
        addr: ADDR.parse().expect("an address"),
    });
    r.listens(ids[0], own);
    let beside = |a: &Action| match a {
        Action::OpenLane {
            lane,
            what: Opening::Beside { first },
            ..
        } if *first == own => Some(*lane),
        _ => None,
    };
    let did = r.did();
    let stand_in = did.iter().find_map(beside).expect("a lane beside it");
    assert!(
        did.iter()
            .any(|a| matches!(a, Action::Note(Notice::LaneOpen { .. })))
    );
    r.tell(Event::LaneOpened {
        lane: stand_in,
        addr: ADDR.parse().expect("an address"),
    });
    r.says_ready(ids[0]);
    assert_eq!(r.steered(), [[(own, 1)]]);
    let second = r.adopts(ids[1]);
    r.says_ready(ids[1]);
    assert_eq!(r.steered(), [[(own, 1), (second, 1)]]);
    // When both are gone the port is there still, for those who come and try again.
    r.exits(ids[0], Exit::Signal(11));
    r.exits(ids[1], Exit::Signal(11));
    let did = r.did();
    at(&did, steers(&[]));
    assert!(!did.iter().any(retires(stand_in)));
    assert_eq!(r.cluster.lanes.ports(), 1);
}

#[test]
fn one_that_was_only_tried_is_let_go_and_another_socket_counts() {
    let (mut r, ids) = serving(1, true);
    let own = r.adopts(ids[0]);
    r.did();
    r.tell(Event::LaneLeft { lane: own });
    at(&r.did(), retires(own));
    // In earnest it takes what it is given.
    r.binds(ids[0], 7, ADDR.parse().expect("an address"));
    let lent = |a: &Action| {
        matches!(
            a,
            Action::Lend {
                ask: Ask(7),
                lane: GIVEN
            }
        )
    };
    at(&r.did(), lent);
    r.listens(ids[0], GIVEN);
    r.says_ready(ids[0]);
    assert_eq!(r.steered(), [[(GIVEN, 1)]]);
}

#[test]
fn what_cannot_be_adopted_is_refused_with_its_reason() {
    let refused = |r: &mut Rig, want: Hindrance| {
        let did = r.did();
        let refuse = |a: &Action| matches!(a, Action::Refuse { errno: 95, .. });
        at(&did, refuse);
        let said = |a: &Action| match a {
            Action::Note(Notice::Snagged { why, .. }) => Some(*why),
            _ => None,
        };
        assert_eq!(did.iter().find_map(said), Some(want));
        assert_eq!(r.cluster.lanes.iter().count(), r.cluster.policy.given.len());
    };
    let (mut r, ids) = serving(1, true);
    r.binds_own(ids[0], "[::]:80", None);
    refused(&mut r, Hindrance::Family(ADDR.parse().expect("an address")));

    let (mut r, ids) = serving(1, true);
    r.binds_own(ids[0], ADDR, Some("vpn0"));
    refused(&mut r, Hindrance::Device);

    let (mut r, ids) = serving(1, true);
    r.cluster.lanes.give(GIVEN, lane::Of::All);
    r.binds_own(ids[0], ADDR, None);
    refused(&mut r, Hindrance::Alone);

    for is_given in [true, false] {
        let (mut r, ids) = serving(1, is_given);
        r.binds_own(ids[0], ADDR, None);
        r.tell(Event::AdoptFailed {
            lane: LaneId(1 + u64::from(is_given)),
            step: "fchown",
            errno: 1,
        });
        refused(&mut r, Hindrance::Step("fchown", 1));
    }
}

#[test]
fn nobody_has_more_of_them_than_the_limit() {
    let (mut r, ids) = serving(1, true);
    for _ in 0..crate::core::own::MAX_OWN {
        r.adopts(ids[0]);
        r.did();
    }
    r.binds_own(ids[0], ADDR, None);
    at(&r.did(), |a| matches!(a, Action::Refuse { errno: 95, .. }));
}
