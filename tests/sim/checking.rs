//! The world's pages and programs that are asked whether clients may come, the judge of when they are and
//! of what follows from what they say, and their stories.

use crate::draw::{Mischief, millis, secs};
use crate::judge::Judge;
use crate::plan::Kind;
use crate::stories::{ms, of, stopping_in, term, told};
use crate::world::{Happening, Mail, World};
use minicluster::core::{
    Check, Checks, Event, Ground, Page, Policy, Question, Standing, Time, Why,
};
use std::collections::BTreeMap;
use std::time::Duration;

fn page() -> Page {
    Page {
        at: None,
        host: "localhost".into(),
        path: "/up".into(),
    }
}

/// Nobody is asked.
pub fn none() -> Checks {
    Checks {
        monitor: None,
        validator: None,
        interval: secs(5),
        fall: 3,
        rise: 2,
    }
}

/// What some ask for. (No dice of its own: what a seed draws else stays what it was.)
pub fn drawn(seed: u64) -> Checks {
    let some = |n: u64| (seed >> 8) % 8 < n;
    Checks {
        monitor: some(2).then(page),
        validator: (some(3) && !some(1)).then(|| vec!["./v".to_string()]),
        interval: millis([300, 2000, 12_000][(seed >> 12) as usize % 3]),
        fall: [1, 3][(seed >> 16) as usize % 2],
        rise: [1, 2][(seed >> 17) as usize % 2],
    }
}

/// What is known of one.
#[derive(Default)]
struct Vet {
    /// Is it asked just now, and if so is that of any use?
    asked: Option<bool>,
    /// When it was asked last, if somebody was ready all the time since.
    last: Option<Time>,
    content: Option<bool>,
    /// The last answers, as far as they are the same.
    tail: (bool, u16),
}

/// Of all.
#[derive(Default)]
pub struct Vets(BTreeMap<Check, Vet>);

impl Vets {
    /// How those stand that are wanted.
    pub fn stand(&self, wanted: &Checks) -> Vec<(Check, Option<bool>)> {
        let some = |check: &Check| match check {
            Check::Monitor => wanted.monitor.is_some(),
            Check::Validator => wanted.validator.is_some(),
        };
        let stands = |check| (check, self.0.get(&check).and_then(|v| v.content));
        Check::ALL.into_iter().filter(some).map(stands).collect()
    }
}

impl Judge {
    /// Is it to be asked?
    pub fn is_wanted(&self, check: Check) -> bool {
        let all = self.rotation.vets.stand(&self.running.checks);
        all.iter().any(|(c, _)| *c == check)
    }

    fn asks_now(&mut self, check: Check, now: Time) {
        assert!(!self.stopping() && self.ready() > 0, "{check} is asked");
        let interval = self.running.checks.interval;
        let vet = self.rotation.vets.0.entry(check).or_default();
        assert_eq!(vet.asked, None, "{check} is asked twice");
        if let Some(last) = vet.last {
            assert!(now - last >= interval, "{check} is asked too soon");
        }
        (vet.asked, vet.last) = (Some(true), Some(now));
    }

    /// `Action::CallOff`: its answer is still to come.
    pub fn called_off(&mut self, check: Check) -> Option<Event> {
        assert!(
            self.stopping() || self.ready() == 0,
            "{check} is called off"
        );
        let vet = self.rotation.vets.0.get_mut(&check).expect("never asked");
        assert_eq!(vet.asked.replace(false), Some(true), "twice");
        None
    }

    /// It has answered.
    pub fn checked(&mut self, check: Check, good: bool) {
        let checks = &self.running.checks;
        let needed = if good { checks.rise } else { checks.fall };
        let vet = self.rotation.vets.0.get_mut(&check).expect("never asked");
        if vet.asked.take() != Some(true) {
            return;
        }
        vet.tail = match vet.tail {
            (same, n) if same == good => (good, n + 1),
            _ => (good, 1),
        };
        if vet.content.is_none() || vet.tail.1 >= needed {
            vet.content = Some(good);
        }
    }

    /// Nobody is ready, or it stops: whoever is next is asked at once.
    fn checks_rest(&mut self) {
        if self.stopping() || self.ready() == 0 {
            self.rotation
                .vets
                .0
                .values_mut()
                .for_each(|v| v.last = None);
        }
    }
}

impl World {
    /// `Action::Check`: its answer comes later.
    pub fn check(&mut self, check: Check, of: &Question, within: Duration) -> Option<Event> {
        let wanted = &self.judge.running.checks;
        let same = match of {
            Question::Page(page) => wanted.monitor.as_ref() == Some(page),
            Question::Program(words) => wanted.validator.as_ref() == Some(words),
        };
        assert!(same, "{of} is asked");
        assert!(within >= secs(1) && within <= secs(10));
        let now = self.now;
        self.judge.asks_now(check, now);
        // (No dice of the world's: what happens else stays what it was.)
        let dice = (now.0 / 1000).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
        let (answer, after) = match dice % 4 {
            _ if self.healed || self.faults.chaos.is_zero() => (Ok(()), millis(3)),
            0 => (Err("GET /up answered 503".to_string()), millis(dice % 30)),
            1 if dice % 3 == 0 => (Err("no answer".to_string()), within),
            _ => (Ok(()), millis(dice % 30)),
        };
        let event = Event::Checked { check, answer };
        self.after(after, Happening::News(Mail { event, about: None }));
        None
    }

    /// After each piece of news.
    pub fn checks_settled(&mut self) {
        self.judge.checks_rest();
    }
}

/// Asked each second, and believed at once.
fn asked(policy: Policy) -> Policy {
    let checks = Checks {
        monitor: Some(page()),
        interval: secs(1),
        fall: 1,
        rise: 1,
        ..none()
    };
    Policy { checks, ..policy }
}

#[test]
fn what_is_asked_is_asked_every_interval_while_somebody_is_ready_and_not_in_a_stop() {
    let policy = Policy {
        drain_delay: secs(3),
        ..asked(of(1))
    };
    let mut w = told(policy, vec![stopping_in(Some(ms(10)))], Kind::Good);
    assert_eq!(w.cover.count("Action::Check"), 0);
    w.run(ms(500));
    assert_eq!(w.cluster.rotation().state, Standing::Available);
    assert_eq!(w.cover.count("Action::Check"), 1);
    w.run(secs(10));
    assert_eq!(w.cover.count("Action::Check"), 11);
    // Nobody is ready for a moment: after that it is asked at once.
    w.mischief(Mischief::Storm(100));
    w.run(ms(1));
    assert!(matches!(w.cluster.health(), Ground::TooFew { .. }));
    assert!(w.run_until(secs(1), |w| w.cover.count("Action::Check") == 12));
    w.run(ms(50));
    term(&mut w);
    w.run(secs(2));
    assert_eq!(w.cover.count("Action::Check"), 12);
    assert!(!matches!(w.cluster.deadline(), Some((_, Why::Check(_)))));
}
