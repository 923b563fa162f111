//! Workers that are asked whether they are ready.

use super::*;

/// One worker of a cluster of two that has listened on its lane.
fn asked() -> (Rig, WorkerId, LaneId) {
    let mut p = policy();
    (p.workers, p.ready, p.balance) = (2, ReadyRule::Answers, Balance::Hash);
    p.given = vec![given("0.0.0.0:80")];
    p.ready_timeout = Some(Duration::from_millis(4500));
    let mut r = Rig::new(p);
    r.open_all();
    let worker = r.run_spawns()[0];
    r.open_all();
    let lane = r.lane_of(worker);
    r.did();
    r.tell(Event::Listens { worker, lane });
    (r, worker, lane)
}

fn probes(did: &[Action]) -> Vec<(WorkerId, LaneId, u128)> {
    let probe = |a: &Action| match a {
        Action::Probe {
            worker,
            lane,
            within,
        } => Some((*worker, *lane, within.as_millis())),
        _ => None,
    };
    did.iter().filter_map(probe).collect()
}

impl Rig {
    fn answers(&mut self, worker: WorkerId, answer: Result<(), &str>) {
        let answer = answer.map_err(String::from);
        self.tell(Event::Probed { worker, answer });
    }
}

#[test]
fn one_is_asked_again_after_longer_waits_until_it_answers_and_nobody_is_let_in_before() {
    let (mut r, worker, lane) = asked();
    assert_eq!(probes(&r.did()), [(worker, lane, 1000)]);
    let steered = |r: &Rig| {
        let port = r.cluster.lanes.get(lane).expect("a lane").port;
        r.cluster.lanes.steered[&port].clone()
    };
    assert!(steered(&r).is_empty());
    let mut at = 0;
    for gap in [100, 200, 400, 800, 1000] {
        r.answers(worker, Err("GET / answered 503"));
        r.at(at + gap - 1);
        assert_eq!(probes(&r.did()), []);
        at += gap;
        r.at(at);
        let within = 1000.min(4500 - u128::from(at));
        assert_eq!(probes(&r.did()), [(worker, lane, within)]);
    }
    // It is asked once at a time, whatever else it does meanwhile.
    r.tell(Event::Listens { worker, lane });
    assert_eq!(probes(&r.did()), []);
    assert!(steered(&r).is_empty());
    r.answers(worker, Ok(()));
    assert!(steered(&r).is_only(lane));
    // What comes late says nothing.
    r.answers(worker, Err("late"));
    r.at(at + 5000);
    assert_eq!(probes(&r.did()), []);
}

#[test]
fn what_it_answered_last_is_told_when_its_time_is_over() {
    let (mut r, worker, _) = asked();
    r.answers(worker, Err("GET / answered 503"));
    r.did();
    r.at(4500);
    let said = |a: &Action| match a {
        Action::Note(n @ Notice::NotReady { .. }) => Some(n.to_string()),
        _ => None,
    };
    let text = r.did().iter().find_map(said).expect("it is said");
    assert!(text.ends_with("; GET / answered 503"), "{text}");
}

#[test]
fn where_others_could_answer_it_is_not_asked() {
    let (mut r, worker, lane) = asked();
    r.answers(worker, Err("no"));
    r.cluster.lanes.give(lane, lane::Of::All);
    r.did();
    r.at(100);
    assert_eq!(probes(&r.did()), []);
    let hint = r.cluster.not_ready_hint(worker).expect("a hint");
    assert!(hint.contains("one socket only"), "{hint}");
}
