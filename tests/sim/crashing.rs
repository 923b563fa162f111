//! Directed stories of crash loops: what is held back comes back, in the order in which it fell, and what
//! is given up stays so until somebody asks.

use crate::draw::Mischief;
use crate::plan::Kind;
use crate::stories::{end, of, secs, stop, told};
use minicluster::core::{OnCrashLoop, Policy, Size};

fn limited(limit: u32) -> Policy {
    Policy {
        restarts_per_minute: limit,
        respawn: secs(0),
        ..of(8)
    }
}

#[test]
fn after_a_storm_so_many_come_back_each_minute_and_then_all_are_there() {
    let mut w = told(limited(3), vec![], Kind::Good);
    w.run(secs(5));
    assert_eq!(w.judge.ready(), 8);
    w.mischief(Mischief::Storm(100));
    for ready in [3, 6, 8] {
        w.run(secs(59));
        assert_eq!(w.judge.ready(), ready);
        w.run(secs(1));
    }
    assert_eq!(w.cover.count("Notice::CrashLoop"), 1);
    assert_eq!(stop(&mut w).0, Some(0));
}

#[test]
fn a_slot_that_crashes_for_ever_does_not_keep_the_others_from_coming_back() {
    let mut w = told(limited(1), vec![], Kind::Good);
    w.run(secs(5));
    w.mischief(Mischief::Storm(100));
    // The first to come back is one that crashes at once, and waits behind all others then.
    w.script = vec![crate::stories::a(Kind::ExecFails)].into();
    w.run(secs(8 * 60 - 1));
    assert_eq!(w.judge.ready(), 7);
    w.run(secs(60));
    assert_eq!(w.judge.ready(), 8);
    assert_eq!(stop(&mut w).0, Some(0));
}

#[test]
fn a_storm_can_be_more_than_may_be() {
    let policy = Policy {
        on_crash_loop: OnCrashLoop::Exit,
        ..limited(3)
    };
    let mut w = told(policy, vec![], Kind::Good);
    w.run(secs(5));
    w.mischief(Mischief::Storm(100));
    assert_eq!(end(&mut w).0, Some(69));
}

#[test]
fn what_is_given_up_comes_back_when_the_size_is_asked_for_again() {
    let policy = Policy {
        max_forks: 10,
        ..limited(0)
    };
    let mut w = told(policy, vec![], Kind::Good);
    w.run(secs(5));
    w.mischief(Mischief::Storm(100));
    w.run(secs(600));
    assert_eq!((w.judge.ready(), w.judge.resting()), (2, 6));
    w.mischief(Mischief::Resize {
        to: Size::To(8),
        wait: true,
    });
    w.run(secs(5));
    assert_eq!((w.judge.ready(), w.answers.len()), (8, 1));
    assert_eq!(stop(&mut w).0, Some(0));
}
