//! Whether clients may come, asked beside the workers (--ecv-monitor, --ecv-validator).

use super::*;

fn page(path: &str) -> Page {
    Page {
        at: None,
        host: "localhost".into(),
        path: path.into(),
    }
}

/// One worker is wanted, and this page every second: three bad answers in a row count, and two good ones.
fn asking(path: &str) -> Policy {
    let mut p = policy();
    (p.workers, p.ready) = (1, ReadyRule::Said);
    p.checks.monitor = Some(page(path));
    p.checks.interval = Duration::from_secs(1);
    p
}

/// The worker is ready.
fn ready(p: Policy) -> (Rig, WorkerId) {
    let mut r = Rig::new(p);
    let worker = r.run_spawns()[0];
    assert_eq!(asked(&r.did()), []);
    r.says_ready(worker);
    (r, worker)
}

fn asked(did: &[Action]) -> Vec<(String, u128)> {
    let ask = |a: &Action| match a {
        Action::Check { of, within, .. } => Some((of.to_string(), within.as_millis())),
        Action::CallOff { check } => Some((format!("not {}", check.word()), 0)),
        _ => None,
    };
    did.iter().filter_map(ask).collect()
}

fn said(did: &[Action]) -> Vec<String> {
    let note = |a: &Action| match a {
        Action::Note(
            n @ (Notice::Unhealthy { .. } | Notice::Healthy { .. } | Notice::Wavers { .. }),
        ) => Some(n.to_string()),
        _ => None,
    };
    did.iter().filter_map(note).collect()
}

fn up(within: u128) -> (String, u128) {
    ("/up".into(), within)
}

impl Rig {
    fn monitor(&mut self, answer: Result<(), &str>) {
        let answer = answer.map_err(String::from);
        let check = Check::Monitor;
        self.tell(Event::Checked { check, answer });
    }

    fn stands(&self) -> (Standing, String) {
        let r = self.cluster.rotation();
        (r.state, r.why.to_string())
    }
}

fn well() -> (Standing, String) {
    (Standing::Available, "all is well".into())
}

fn bad(why: &str) -> (Standing, String) {
    (Standing::Warning, format!("{why} (--ecv-monitor)"))
}

#[test]
fn the_first_answer_counts_and_after_that_so_many_in_a_row() {
    let (mut r, _) = ready(asking("/up"));
    assert_eq!(asked(&r.did()), [up(1000)]);
    assert_eq!(r.stands(), bad("no answer yet"));
    r.monitor(Err("503"));
    assert_eq!(r.stands(), bad("503"));
    assert_eq!(said(&r.did()), ["unhealthy: 503 (--ecv-monitor)"]);
    // (What is wrong, as of now; answers as before are told nobody.)
    let answers: [(Result<(), &str>, _, &[&str]); 9] = [
        (Err("500"), bad("500"), &[]),
        (
            Ok(()),
            bad("500"),
            &["--ecv-monitor: all is well; 1 in a row, at 2 it counts"],
        ),
        (Err("404"), bad("404"), &[]),
        (
            Ok(()),
            bad("404"),
            &["--ecv-monitor: all is well; 1 in a row, at 2 it counts"],
        ),
        (
            Ok(()),
            well(),
            &[
                "healthy again: 1 worker ready, 1 are to be (--ready-quorum), --ecv-monitor is content",
            ],
        ),
        (
            Err("503"),
            well(),
            &["--ecv-monitor: 503; 1 in a row, at 3 the cluster is unhealthy"],
        ),
        (
            Err("504"),
            well(),
            &["--ecv-monitor: 504; 2 in a row, at 3 the cluster is unhealthy"],
        ),
        (Ok(()), well(), &[]),
        (
            Err("503"),
            well(),
            &["--ecv-monitor: 503; 1 in a row, at 3 the cluster is unhealthy"],
        ),
    ];
    for (n, (answer, stands, told)) in answers.into_iter().enumerate() {
        let at = 1000 * (n as u64 + 1);
        r.at(at - 1);
        assert_eq!(asked(&r.did()), []);
        r.at(at);
        assert_eq!(asked(&r.did()), [up(1000)], "{n}");
        r.monitor(answer);
        assert_eq!(
            (r.stands(), said(&r.did())),
            (stands, told.iter().map(|t| t.to_string()).collect()),
            "{n}"
        );
    }
    let views = r.cluster.rotation().checks;
    assert_eq!((views.len(), views[0].row, views[0].needed), (1, 1, 3));
    assert_eq!(views[0].why.as_deref(), Some("503"));
}

#[test]
fn the_time_from_question_to_question_is_the_interval_and_never_two_are_asked_at_once() {
    for (interval, within) in [(200, 1000), (5000, 5000), (60_000, 10_000)] {
        let mut p = asking("/up");
        p.checks.interval = Duration::from_millis(interval);
        let (mut r, _) = ready(p);
        assert_eq!(asked(&r.did()), [up(within)]);
        // One that takes longer is asked again as soon as it has answered.
        r.at(interval * 2);
        assert_eq!(asked(&r.did()), []);
        r.monitor(Ok(()));
        r.at(interval * 2);
        assert_eq!(asked(&r.did()), [up(within)]);
        r.at(interval * 2 + interval / 2);
        r.monitor(Ok(()));
        assert_eq!(
            r.cluster.deadline(),
            Some((ms(interval * 3), Why::Check(Check::Monitor)))
        );
    }
}

#[test]
fn while_nobody_is_ready_nobody_is_asked_and_how_it_stood_is_kept() {
    let (mut r, worker) = ready(asking("/up"));
    r.monitor(Ok(()));
    r.did();
    r.at(1000);
    r.monitor(Err("503"));
    r.did();
    r.exits(worker, Exit::Signal(9));
    assert_eq!(r.stands().1, "0 ready of 1 (--ready-quorum)");
    assert_eq!(asked(&r.out), []);
    // The next one, which is asked when it dies, too.
    r.at(2000);
    let next = r.run_spawns()[0];
    r.says_ready(next);
    assert_eq!(r.stands(), well());
    assert_eq!(asked(&r.did()), [up(1000)]);
    r.exits(next, Exit::Signal(9));
    assert_eq!(asked(&r.out), [("not monitor".into(), 0)]);
    r.at(4000);
    let next = r.run_spawns()[0];
    r.says_ready(next);
    assert_eq!(asked(&r.did()), []);
    // What was called off says nothing; then it is asked anew.
    r.monitor(Err("reset"));
    assert_eq!(asked(&r.did()), [up(1000)]);
    let row = |r: &Rig| r.cluster.rotation().checks[0].row;
    assert_eq!(row(&r), 1);
    r.monitor(Err("503"));
    assert_eq!(row(&r), 2);
}

#[test]
fn from_the_first_moment_of_a_stop_nobody_is_asked() {
    let mut p = asking("/up");
    p.drain_delay = Duration::from_secs(5);
    let (mut r, _) = ready(p);
    r.did();
    r.tell(Event::Signal(TERM));
    assert_eq!(asked(&r.did()), [("not monitor".into(), 0)]);
    assert_eq!(r.stands().1, "the cluster stops");
    r.monitor(Err("503"));
    r.at(4000);
    let did = r.did();
    assert_eq!((asked(&did), said(&did)), (vec![], vec![]));
    assert_eq!(r.stands().1, "the cluster stops");
}

fn reload(r: &mut Rig, with: Policy) {
    r.tell(Event::Reload {
        asker: None,
        wait: false,
        by: None,
        why: "SIGHUP received",
        with: Ok(Box::new(with)),
        terms: Terms::default(),
    });
}

#[test]
fn what_a_reload_brings_counts_when_it_serves_and_turns_nobody_away_by_itself() {
    let (mut r, _) = ready(asking("/up"));
    r.monitor(Ok(()));
    r.did();
    let mut with = asking("/new");
    with.checks.validator = Some(vec!["./v".into(), "-x".into()]);
    reload(&mut r, with);
    let next = r.run_spawns()[0];
    // The old ones need not have it.
    r.at(1000);
    assert_eq!(asked(&r.did()), [up(1000)]);
    assert_eq!(r.stands(), well());
    r.says_ready(next);
    let new = || ("/new".to_string(), 1000);
    let program = || ("./v -x".to_string(), 1000);
    assert_eq!(asked(&r.did()), [("not monitor".into(), 0), program()]);
    assert_eq!(r.stands(), well());
    // That of the old page.
    r.monitor(Err("404"));
    assert_eq!((asked(&r.did()), r.stands()), (vec![new()], well()));
    // It takes as many bad answers as always.
    for (ms, stands) in [(1000, well()), (2000, well()), (3000, bad("503"))] {
        r.at(ms);
        let check = Check::Validator;
        let answer = Err("disk full".to_string());
        r.tell(Event::Checked { check, answer });
        r.monitor(Err("503"));
        assert_eq!(r.stands(), stands);
    }
    let told = said(&r.did());
    let unhealthy = told.iter().filter(|t| t.starts_with("unhealthy: "));
    assert_eq!(
        unhealthy.collect::<Vec<_>>(),
        [
            "unhealthy: disk full (--ecv-validator)",
            "unhealthy: 503 (--ecv-monitor)"
        ]
    );
    // And nobody is asked any more.
    let mut none = asking("/");
    none.checks.monitor = None;
    reload(&mut r, none);
    let last = r.run_spawns()[0];
    r.says_ready(last);
    assert_eq!((asked(&r.did()), r.stands()), (vec![], well()));
    assert!(r.cluster.rotation().checks.is_empty());
}

#[test]
fn a_reload_that_fails_leaves_what_is_asked_as_it_was() {
    let (mut r, _) = ready(asking("/up"));
    r.monitor(Ok(()));
    r.did();
    reload(&mut r, asking("/new"));
    let next = r.run_spawns()[0];
    r.exits(next, Exit::Code(1));
    r.at(1000);
    assert_eq!((asked(&r.did()), r.stands()), (vec![up(1000)], well()));
}

#[test]
fn an_endless_reason_is_cut() {
    let (mut r, _) = ready(asking("/up"));
    r.monitor(Err(&"\u{20ac}".repeat(1000)));
    let why = r.cluster.rotation().checks[0].why.clone();
    assert_eq!(why.map(|w| w.len()), Some(255));
}
