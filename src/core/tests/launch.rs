//! When the start of a cluster is over.

use super::*;

#[test]
fn the_start_is_over_when_all_are_ready_or_at_its_timeout_when_some_are() {
    let starts = |r: &mut Rig| -> Vec<&str> {
        let said = r.did();
        let name = |a: &Action| match a {
            Action::Note(n @ (Notice::AllReady { .. } | Notice::PartlyReady { .. })) => {
                Some(n.event())
            }
            _ => None,
        };
        said.iter().filter_map(name).collect()
    };
    let begin = || {
        let mut p = policy();
        (p.workers, p.ready) = (2, ReadyRule::Listening);
        p.start_timeout = Some(Duration::from_secs(5));
        let mut r = Rig::new(p);
        let ids = r.run_spawns();
        (r, ids[0], ids[1])
    };
    let what = Seen::Accepts;
    let (mut r, worker, slow) = begin();
    r.tell(Event::Seen { worker, what });
    r.at(4_999);
    assert!(starts(&mut r).is_empty());
    r.at(5_000);
    assert_eq!(starts(&mut r), ["partly-ready"]);
    let worker = slow;
    r.tell(Event::Seen { worker, what });
    assert_eq!(starts(&mut r), ["all-ready"]);
    // Those that had been ready are none by then: the next one will do.
    let (mut r, worker, slow) = begin();
    r.tell(Event::Seen { worker, what });
    r.exits(worker, Exit::Code(1));
    r.at(5_000);
    assert!(starts(&mut r).is_empty());
    let worker = slow;
    r.tell(Event::Seen { worker, what });
    assert_eq!(starts(&mut r), ["partly-ready"]);
}
