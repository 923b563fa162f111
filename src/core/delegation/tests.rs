//! Who delegates, who hears the answer, and what is left of it: nothing.

use super::*;

const T: Ticket = Ticket {
    program: 1,
    line: 1,
};
const W: [WorkerId; 3] = [WorkerId(1), WorkerId(2), WorkerId(3)];

fn wanted(domain: &str) -> Wanted {
    Wanted {
        delegate: "read".into(),
        expect: Some("config".into()),
        matches: vec![("domain".into(), Some(domain.into()))],
        within: Duration::from_secs(10),
        targets: None,
        notification: false,
    }
}

fn to(pids: &[i32]) -> To {
    To::Pids(pids.iter().copied().collect())
}

fn answer(d: &mut Delegations, domain: &str) -> Vec<(String, To)> {
    let all = d.answered("read", None, |f| (f == "domain").then(|| domain.into()));
    all.into_iter().collect()
}

fn is_empty(d: &Delegations) -> bool {
    d.asks.is_empty() && d.count == 0 && d.kept == 0 && d.later.is_empty()
}

#[test]
fn the_same_work_is_done_once_and_all_who_asked_hear_of_it() {
    let mut d = Delegations::default();
    let of = |domain: &str, pid: i32| Wanted {
        targets: Some(vec![pid]),
        ..wanted(domain)
    };
    assert_eq!(d.ask(W[0], of("a", 11), "{1}", T, Time(0)), Begun::Work);
    assert_eq!(d.ask(W[1], of("a", 12), "{2}", T, Time(0)), Begun::Joined);
    assert_eq!(d.ask(W[2], of("b", 13), "{3}", T, Time(0)), Begun::Work);
    assert_eq!(answer(&mut d, "c"), []);
    assert_eq!(answer(&mut d, "a"), [("config".into(), to(&[11, 12]))]);
    assert_eq!(answer(&mut d, "a"), []);
    assert_eq!(answer(&mut d, "b"), [("config".into(), to(&[13]))]);
    // It is over: the next one is work again.
    assert_eq!(d.ask(W[0], wanted("a"), "{1}", T, Time(0)), Begun::Work);
    assert_eq!(answer(&mut d, "a"), [("config".into(), To::All)]);
    assert!(is_empty(&d));
}

#[test]
fn without_fields_the_first_answer_is_everybodys() {
    let mut d = Delegations::default();
    let plain = |expect: &str| Wanted {
        matches: Vec::new(),
        expect: Some(expect.into()),
        ..wanted("")
    };
    assert_eq!(d.ask(W[0], plain("x"), "{1}", T, Time(0)), Begun::Work);
    assert_eq!(d.ask(W[1], plain("x"), "{1}", T, Time(0)), Begun::Joined);
    // Another message may be about other work, and is passed on.
    assert_eq!(d.ask(W[1], plain("x"), "{2}", T, Time(0)), Begun::Work);
    assert_eq!(d.ask(W[1], plain("y"), "{1}", T, Time(0)), Begun::Work);
    assert!(d.answered("other", None, |_| None).is_empty());
    assert!(d.answered("read", Some("z"), |_| None).is_empty());
    let x = d.answered("read", Some("x"), |_| None);
    assert_eq!(x.into_iter().collect::<Vec<_>>(), [("x".into(), To::All)]);
    assert_eq!(d.answered("read", None, |_| None).len(), 1);
    assert!(is_empty(&d));
}

#[test]
fn who_waits_in_vain_gets_their_own_message_back() {
    let mut d = Delegations::default();
    let within = |secs: u64, pid: i32| Wanted {
        within: Duration::from_secs(secs),
        targets: Some(vec![pid]),
        ..wanted("a")
    };
    d.ask(W[0], within(1, 11), "{1}", T, Time(0));
    d.ask(W[1], within(2, 12), "{2}", T, Time(0));
    let at = |secs: u64| Time(0) + Duration::from_secs(secs);
    assert_eq!(d.deadline(), Some(at(1)));
    let failed = |message: &str, pid: i32| Failed {
        delegate: "read".into(),
        message: message.into(),
        expect: "config".into(),
        to: to(&[pid]),
    };
    assert_eq!(d.overdue(Time(1)), []);
    assert_eq!(d.overdue(at(1)), [failed("{1}", 11)]);
    // The other one still waits, and nothing is done twice for it.
    assert_eq!(d.ask(W[2], within(9, 13), "{3}", T, at(1)), Begun::Joined);
    assert_eq!(d.overdue(at(2)), [failed("{2}", 12)]);
    assert_eq!(d.lost(|t| t.line > 1), []);
    assert_eq!(d.lost(|t| t == T), [failed("{3}", 13)]);
    assert_eq!(d.deadline(), None);
    assert!(is_empty(&d));
}

#[test]
fn notifications_follow_an_answer_and_end_with_who_asked() {
    let mut d = Delegations::default();
    let note = |pid: i32| Wanted {
        notification: true,
        targets: Some(vec![pid]),
        ..wanted("a")
    };
    d.ask(W[0], note(11), "{1}", T, Time(0));
    assert_eq!(answer(&mut d, "other"), [], "none before the first");
    assert_eq!(answer(&mut d, "a"), [("config".into(), to(&[11]))]);
    assert_eq!(answer(&mut d, "other"), [("config".into(), to(&[11]))]);
    // Once, although it has asked twice; and another one's answer is heard along with it.
    d.ask(W[0], note(11), "{1}", T, Time(0));
    d.ask(W[1], note(12), "{2}", T, Time(0));
    assert_eq!(answer(&mut d, "a"), [("config".into(), to(&[11, 12]))]);
    d.gone(W[0], None);
    assert_eq!(answer(&mut d, "x"), [("config".into(), to(&[12]))]);
    // Gone before its answer: that may be for others, notifications are not.
    d.ask(W[2], note(13), "{3}", T, Time(0));
    d.gone(W[2], None);
    assert_eq!(answer(&mut d, "a"), [("config".into(), to(&[12, 13]))]);
    d.gone(W[1], None);
    assert!(is_empty(&d));
}

#[test]
fn nothing_is_waited_for_where_nothing_is_expected() {
    let mut d = Delegations::default();
    let forget = Wanted {
        expect: None,
        notification: true,
        ..wanted("a")
    };
    for _ in 0..2 {
        assert_eq!(d.ask(W[0], forget.clone(), "{}", T, Time(0)), Begun::Work);
    }
    assert!(is_empty(&d));
}

#[test]
fn there_is_a_limit_to_those_who_wait() {
    let full = || {
        Begun::Full(Failed {
            delegate: "read".into(),
            message: "{}".into(),
            expect: "config".into(),
            to: To::All,
        })
    };
    let mut d = Delegations::default();
    for n in 0..MAX_ASKS {
        let begun = d.ask(W[0], wanted(&n.to_string()), "{}", T, Time(0));
        assert_eq!(begun, Begun::Work);
    }
    assert_eq!(d.ask(W[0], wanted("a"), "{}", T, Time(0)), full());
    assert_eq!(d.lost(|t| t == T).len(), MAX_ASKS);
    let long = "x".repeat(MAX_KEPT);
    assert_eq!(d.ask(W[0], wanted("a"), &long, T, Time(0)), Begun::Work);
    assert_eq!(d.ask(W[0], wanted("a"), "{}", T, Time(0)), full());
    d.lost(|t| t == T);
    assert!(is_empty(&d));
}

#[test]
fn notifications_for_ever_new_pids_are_refused_at_a_limit() {
    let mut d = Delegations::default();
    let ask = |first: i32| Wanted {
        notification: true,
        targets: Some((first..first + 1000).collect()),
        ..wanted("a")
    };
    assert_eq!(d.ask(W[0], ask(0), "{}", T, Time(0)), Begun::Work);
    let heard = |d: &mut Delegations| match answer(d, "a").pop() {
        Some((_, To::Pids(pids))) => pids.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(heard(&mut d), 1000);
    for n in 1..100 {
        let Begun::Crowded(failed, why) = d.ask(W[0], ask(n * 1000), "{}", T, Time(0)) else {
            panic!("there was room");
        };
        assert_eq!(why, "its notifications would go to 2000 pids (limit 1024)");
        assert_eq!(failed.to, To::of(ask(n * 1000).targets.as_ref()));
        assert_eq!(d.len(), 0, "nobody waits");
        assert_eq!(heard(&mut d), 1000);
    }
    // Those that are nobody's make room.
    let look = d.look_at(W[0], &ask(9000), Time(0));
    d.forget(W[0], &ask(9000), &look);
    assert_eq!(d.ask(W[0], ask(9000), "{}", T, Time(0)), Begun::Work);
    assert_eq!(heard(&mut d), 1000);
    d.gone(W[0], None);
    assert!(is_empty(&d));
}

#[test]
fn after_a_hundred_thousand_nothing_is_left() {
    let mut d = Delegations::default();
    let mut heard = 0;
    for n in 0..100_000u64 {
        let now = Time(n * 1_000_000);
        let asker = WorkerId(n % 50);
        let w = Wanted {
            within: Duration::from_millis(n % 300),
            notification: n % 3 == 0,
            targets: (n % 2 == 0).then(|| vec![n as i32 % 50]),
            ..wanted(&(n % 70).to_string())
        };
        d.ask(asker, w, "{\"some\":1}", T, now);
        if n % 4 == 0 {
            heard += answer(&mut d, &(n % 90).to_string()).len();
        }
        heard += d.overdue(now).len();
        if n % 11 == 0 {
            d.gone(WorkerId(n % 50), Some(n as i32 % 50));
        }
        if n % 1000 == 0 {
            heard += d.lost(|t| t == T).len();
        }
    }
    d.overdue(Time(u64::MAX));
    for w in 0..50 {
        d.gone(WorkerId(w), None);
    }
    assert!(heard > 10_000, "{heard}");
    assert!(is_empty(&d));
}

#[test]
fn what_a_program_has_read_is_lost_with_it_and_what_it_has_not_is_for_the_next() {
    let mut d = Delegations::default();
    let at = |program, line| Ticket { program, line };
    for (n, domain) in ["a", "b", "c"].into_iter().enumerate() {
        let ticket = at(1, n as u64 + 1);
        d.ask(W[0], wanted(domain), domain, ticket, Time(0));
    }
    d.ask(W[0], wanted("d"), "d", at(2, 1), Time(0));
    // Whoever joins has the ticket of the first.
    let joined = d.ask(W[1], wanted("a"), "a2", at(1, 9), Time(0));
    assert_eq!(joined, Begun::Joined);
    let lost = d.lost(|t| t.program == 1 && t.line <= 2);
    let lost: Vec<&str> = lost.iter().map(|f| f.message.as_str()).collect();
    assert_eq!(lost, ["a", "a2", "b"]);
    assert_eq!(answer(&mut d, "c").len(), 1);
    assert_eq!(d.lost(|t| t.program == 2).len(), 1);
    assert!(is_empty(&d) && d.is_empty());
}

#[test]
fn what_only_one_waits_for_that_has_gone_is_not_kept() {
    let mut d = Delegations::default();
    let of = |pids: &[i32]| Wanted {
        targets: Some(pids.to_vec()),
        notification: true,
        ..wanted("a")
    };
    d.ask(W[0], of(&[11]), "{1}", T, Time(0));
    d.ask(W[1], of(&[11, 12]), "{2}", T, Time(0));
    assert_eq!(d.len(), 2);
    d.gone(W[0], Some(11));
    assert_eq!(d.len(), 1);
    assert_eq!(answer(&mut d, "a"), [("config".into(), to(&[12]))]);
    // The next one with that pid hears none of its notifications.
    d.gone(W[2], Some(12));
    assert!(is_empty(&d));
}
