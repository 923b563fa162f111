//! Dead workers whose trees live on: said once if it looks like a mistake, kept so that what they
//! left is still answered, and not without limit. How a worker becomes a Remnant, and ends as one,
//! is in `worker`.

use super::action::Action;
use super::ids::{Time, WorkerId};
use super::notice::{Notice, Who};
use super::readiness::HOLD;
use super::worker::Worker;
use super::{Cluster, Out};

/// So many dead workers may leave processes behind; the oldest beyond are forgotten (I9).
pub const MAX_REMNANTS: usize = 64;

impl Cluster {
    /// Its predecessor exited 0 and its tree lives on, not just for the moment that the news of its
    /// end takes: COMMAND most likely puts itself into the background.
    pub(super) fn say_what_stays(&mut self, who: Who, now: Time, out: &mut Out) {
        let stays =
            |w: &&Worker| w.slot == who.slot && w.finished.is_some_and(|at| now - at >= HOLD);
        let old = self.fleet.iter().find(stays).map(Worker::who);
        if let Some(who) = old {
            self.once("left running".into(), Notice::LeftRunning { who }, out);
        }
    }

    /// Dead workers that left processes are kept for those; not without limit (I9).
    pub(super) fn forget_old_remnants(&mut self, out: &mut Out) {
        let remnants: Vec<(WorkerId, Who)> = self
            .fleet
            .iter()
            .filter(|w| !w.unreaped())
            .map(|w| (w.id, w.who()))
            .collect();
        for (id, who) in remnants
            .iter()
            .take(remnants.len().saturating_sub(MAX_REMNANTS))
        {
            self.once(
                "forgotten".into(),
                Notice::Forgotten {
                    who: *who,
                    limit: MAX_REMNANTS,
                },
                out,
            );
            self.deadlines.stop_worker(*id);
            self.fleet.strike(*id);
            out.push(Action::ForgetTree { worker: *id });
        }
    }
}
