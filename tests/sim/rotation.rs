//! The judge of rotation: what an operator has said is kept, whatever dies, is reloaded or resized; the
//! rest follows from the workers that serve. And its stories.

use crate::checking::Vets;
use crate::draw::{Mischief, Reload};
use crate::judge::Judge;
use crate::plan::Kind;
use crate::stories::{ms, of, secs, stopping_in, term, told};
use crate::world::World;
use minicluster::core::{Check, Event, Ground, MasterSignal, Notice, Policy, Standing};

/// What can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    TooFew,
    Check(Check),
}

/// What is known of it.
#[derive(Default)]
pub struct Rotation {
    /// Was it taken out?
    out: bool,
    /// Is a change still to be said?
    to_say: bool,
    /// What was said to be wrong?
    unwell: Option<Wrong>,
    /// And what those said that are asked.
    pub vets: Vets,
}

impl Judge {
    /// Somebody wants it so.
    pub fn rotation_told(&mut self, event: &Event) {
        let (Event::Rotate { enable, .. } | Event::Signal(MasterSignal::Rotate { enable, .. })) =
            event
        else {
            return;
        };
        let r = &mut self.rotation;
        r.to_say = r.out == *enable;
        r.out = !enable;
    }

    /// Each is said once.
    pub fn rotation_said(&mut self, notice: &Notice) {
        let quorum = usize::from(self.policy.ready_quorum);
        let stopping = self.stopping();
        let r = &mut self.rotation;
        match notice {
            Notice::Disabled { .. } => assert!(std::mem::take(&mut r.to_say) && r.out),
            Notice::Enabled { .. } => assert!(std::mem::take(&mut r.to_say) && !r.out),
            Notice::Unhealthy { ready, why, .. } => {
                let wrong = match why {
                    Ground::Discontent { check, .. } => Wrong::Check(*check),
                    other => {
                        assert!(matches!(other, Ground::TooFew { .. }), "{other}");
                        Wrong::TooFew
                    }
                };
                assert!(self.launched && !stopping);
                assert_eq!(*ready < quorum, wrong == Wrong::TooFew);
                let before = r.unwell.replace(wrong);
                assert_ne!(before, Some(wrong), "said twice");
            }
            Notice::Healthy { ready, .. } => {
                assert!(*ready >= quorum && !stopping);
                assert!(r.unwell.take().is_some(), "it was well");
            }
            _ => {}
        }
    }
}

impl World {
    /// When one piece of news has had all its consequences.
    pub fn all_settled(&mut self) {
        if self.judge.finished.is_none() {
            self.judge.settled(self.now, &mut self.cover);
            self.steering_settled();
            self.rotation_settled();
            self.checks_settled();
        }
    }

    fn rotation_settled(&self) {
        let j = &self.judge;
        let ready = self.cluster.ready_count();
        let enough = ready >= usize::from(j.policy.ready_quorum);
        let content = j.rotation.vets.stand(&j.running.checks);
        let well = enough && content.iter().all(|(_, c)| *c == Some(true));
        let want = match (j.rotation.out, j.stopping() || !well) {
            (true, _) => Standing::Disabled,
            (false, true) => Standing::Warning,
            (false, false) => Standing::Available,
        };
        assert_eq!(self.cluster.rotation().state, want);
        assert!(!j.rotation.to_say, "it is not said");
        if !j.stopping() && j.launched {
            let bad = content.iter().find(|(_, c)| *c != Some(true));
            match (enough, bad) {
                (false, _) => assert_eq!(j.rotation.unwell, Some(Wrong::TooFew)),
                (true, None) => assert_eq!(j.rotation.unwell, None),
                (true, Some((check, Some(_)))) => {
                    assert_eq!(j.rotation.unwell, Some(Wrong::Check(*check)));
                }
                // It has not said anything yet.
                (true, Some((_, None))) => {}
            }
        }
    }
}

fn standing(w: &World) -> Standing {
    w.cluster.rotation().state
}

#[test]
fn who_is_taken_out_stays_out_over_deaths_and_reloads_until_put_back() {
    let mut w = told(of(2), vec![], Kind::Good);
    assert_eq!(standing(&w), Standing::Warning);
    w.run(secs(5));
    assert_eq!(standing(&w), Standing::Available);
    w.mischief(Mischief::Rotate(false));
    w.mischief(Mischief::Rotate(false));
    w.run(ms(1));
    assert_eq!(standing(&w), Standing::Disabled);
    w.mischief(Mischief::Storm(100));
    w.mischief(Mischief::Reload(Reload::same()));
    w.run(secs(10));
    assert_eq!(standing(&w), Standing::Disabled);
    assert_eq!(w.cover.count("Notice::Disabled"), 1);
    w.mischief(Mischief::Rotate(true));
    w.run(ms(1));
    assert_eq!(standing(&w), Standing::Available);
    assert_eq!(w.cover.count("Notice::Enabled"), 1);
    // Nothing is left to wake up for.
    assert_eq!(w.cluster.deadline(), None);
}

#[test]
fn below_the_quorum_it_is_unhealthy_until_enough_are_ready_again() {
    let policy = Policy {
        ready_quorum: 2,
        ..of(2)
    };
    let mut w = told(policy, vec![], Kind::Good);
    w.run(secs(5));
    // The start was no change for the worse.
    assert_eq!(w.cover.count("Notice::Unhealthy"), 0);
    w.mischief(Mischief::Relay(9, minicluster::core::Target::Slot(1)));
    assert!(w.run_until(secs(1), |w| standing(w) == Standing::Warning));
    assert!(matches!(
        w.cluster.health(),
        Ground::TooFew {
            ready: 1,
            quorum: 2
        }
    ));
    assert!(w.run_until(secs(5), |w| standing(w) == Standing::Available));
    assert_eq!(w.cover.count("Notice::Unhealthy"), 1);
    assert_eq!(w.cover.count("Notice::Healthy"), 1);
}

#[test]
fn from_the_first_moment_of_a_stop_it_is_not_available() {
    let policy = Policy {
        drain_delay: secs(3),
        ..of(1)
    };
    let mut w = told(policy, vec![stopping_in(Some(ms(10)))], Kind::Good);
    w.run(secs(5));
    assert_eq!(standing(&w), Standing::Available);
    term(&mut w);
    w.run(ms(1));
    // It serves still.
    assert_eq!((standing(&w), w.judge.ready()), (Standing::Warning, 1));
    assert_eq!(w.cluster.health(), Ground::Stopping);
    assert_eq!(w.cover.count("Notice::Unhealthy"), 0);
}
