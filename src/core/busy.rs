//! How long what is under way may take, for whoever waits for it with a limit of its own: a start, a
//! reload, a stop. Only what has an end is told of (I6): a limit that is moved as long as we like is none.

use super::Cluster;
use super::deadlines::Why;
use super::ids::Time;
use super::phase::Phase;
use super::readiness::Launch;

impl Cluster {
    /// Is the start over: did all workers serve, or enough of them?
    pub fn is_launched(&self) -> bool {
        self.launch == Launch::Over
    }

    /// Is nothing served any more, once what is open has ended?
    pub fn is_stopping(&self) -> bool {
        self.phase != Phase::Serving
    }

    /// By when what is under way has come to its next step, if it is one that comes to an end. `None`:
    /// nothing is under way, or nobody knows how long it takes.
    pub fn busy_until(&self) -> Option<Time> {
        match self.phase {
            Phase::Serving if !self.is_launched() => self.deadlines.get(Why::StartTimeout),
            // (One that takes back what was replaced is tried until it succeeds.)
            Phase::Serving => {
                let bounded = self.policy.ready_timeout.is_some();
                let forward = self.rollout.as_ref().filter(|r| bounded && !r.back);
                forward.and_then(|_| self.next_step_by())
            }
            Phase::Stopping { .. } => self.next_step_by(),
            Phase::Done(_) => None,
        }
    }

    /// The last of the deadlines that a reload or a stop runs into.
    fn next_step_by(&self) -> Option<Time> {
        let step = |(why, at): (Why, Time)| match why {
            Why::Ready(_)
            | Why::Alive(_)
            | Why::Drain(_)
            | Why::DrainDelay
            | Why::Watch
            | Why::Kill(_)
            | Why::KillAgain(_)
            | Why::Leftovers
            | Why::GiveUp => Some(at),
            Why::Hold(_)
            | Why::Look(_)
            | Why::Probe(_)
            | Why::Watchdog(_)
            | Why::Age(_)
            | Why::Census
            | Why::Successors
            | Why::Swap
            | Why::Weigh
            | Why::Respawn(_)
            | Why::StartTimeout
            | Why::Unserved
            | Why::Hung
            | Why::Check(_) => None,
        };
        self.deadlines.iter().filter_map(step).max()
    }
}
