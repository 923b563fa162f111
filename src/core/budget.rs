//! How long a final stop may take in all (--stop-budget), so that whoever gave us a grace period
//! never comes to use its own SIGKILL. Rules:
//!
//! 1. It is counted from the first request, also if a second one makes the stop hard.
//! 2. Workers, and what they left behind, are killed at the stop timeout, or when the budget less
//!    its margin is used up, whichever is sooner. Of that a third is kept for the stop signal to work,
//!    and of what is left a sixth for the last connections to be ended (`drain`, Closing), so draining
//!    ends before; --drain-delay has a third at most.
//! 3. Of the margin the first half is for SIGKILL to work on workers: those still there then are
//!    not waited for, as without a budget after `KILLED_GRACE`. The last fifth is for leaving.
//! 4. The end of one worker while the cluster goes on has no budget.

use super::Cluster;
use super::deadlines::Why;
use super::drain::{CLOSING, Stage};
use super::ids::{Time, WorkerId};
use super::notice::{Cause, Limit};
use super::phase::Phase;
use super::policy::{Drain, Policy};
use super::shutdown::Own;
use super::speech::HANG_GRACE;
use super::worker::{KILLED_GRACE, Worker};
use std::time::Duration;

/// The margin is no longer than that,
const MARGIN: Duration = Duration::from_millis(500);
/// and no more than this part of the budget.
const PART: u32 = 4;

/// Of the budget that part, and no more than `CLOSING`, is kept for that.
const CLOSING_PART: u32 = 9;

fn margin(budget: Duration) -> Duration {
    MARGIN.min(budget / PART)
}

impl Policy {
    /// How long workers are drained before they are asked to stop, or the rest is ended.
    pub fn drain_time(&self) -> Duration {
        match self.drain {
            Drain::Connections | Drain::Server => self.drain_timeout,
            Drain::None => Duration::ZERO,
        }
    }

    /// How long a graceful stop takes that nothing cuts, if all wait to the last and end then.
    fn uncut_stop(&self) -> Duration {
        let closing = match self.drain {
            Drain::Connections => CLOSING,
            Drain::Server | Drain::None => Duration::ZERO,
        };
        let parts = [self.drain_time(), closing, self.stop_timeout];
        parts
            .into_iter()
            .fold(self.drain_delay, Duration::saturating_add)
    }

    /// How long a stop takes at most, also if some do not even go by SIGKILL.
    pub fn longest_stop(&self) -> Duration {
        match self.stop_budget {
            Some(budget) => budget,
            None => self.uncut_stop().saturating_add(KILLED_GRACE),
        }
    }

    /// The least budget that cuts nothing of what is said of a stop.
    pub fn least_budget(&self) -> Duration {
        let delayed = self.drain_delay.saturating_mul(3);
        self.uncut_stop().max(delayed).saturating_add(MARGIN)
    }
}

impl Cluster {
    /// By when a final stop that has begun is to be over, if there is a limit.
    pub fn over_by(&self) -> Option<Time> {
        self.over_by
    }

    /// The final stop begins.
    pub(super) fn budget_runs(&mut self, now: Time) {
        let end = self.policy.stop_budget.map(|b| now + b);
        self.over_by = self.over_by.or(end);
    }

    /// How long workers have in a final stop.
    pub(super) fn stop_limit(&self) -> Limit {
        let timeout = self.policy.stop_timeout;
        match self.policy.stop_budget {
            Some(budget) if budget - margin(budget) < timeout => Limit::Budget {
                time: budget - margin(budget),
                budget,
            },
            Some(_) | None => Limit::Timeout(timeout),
        }
    }

    /// What a worker has run into that was not gone in this time.
    pub(super) fn limit_met(&self, cause: Cause, after: Duration) -> Limit {
        let own = match cause {
            Cause::Hang => HANG_GRACE,
            Cause::Failure
            | Cause::Finished
            | Cause::Shutdown
            | Cause::Resize
            | Cause::Restart
            | Cause::Recycle
            | Cause::Kill
            | Cause::NotReady
            | Cause::NotStarted
            | Cause::Oom(_) => self.policy.stop_timeout,
        };
        match self.stop_limit() {
            limit @ Limit::Budget { .. } if after < own => limit,
            Limit::Budget { .. } | Limit::Timeout(_) => Limit::Timeout(own),
        }
    }

    /// How long a stop that begins still serves.
    pub fn delay_of_stop(&self) -> Duration {
        let delay = self.policy.drain_delay;
        self.policy
            .stop_budget
            .map_or(delay, |b| delay.min((b - margin(b)) / 3))
    }

    /// Of a stop that has begun, and serves no longer from then on: until when workers are drained.
    pub(super) fn drained_by(&self, from: Time) -> Time {
        let p = &self.policy;
        let drain_by = from + p.drain_time();
        match (self.asked_by(), p.stop_budget, p.drain) {
            (Some(latest), Some(budget), Drain::Connections) => {
                drain_by.min(latest.before(CLOSING.min(budget / CLOSING_PART)))
            }
            (Some(latest), _, _) => drain_by.min(latest),
            (None, _, _) => drain_by,
        }
    }

    /// How long the workers that serve are drained at most, in a stop that serves until then.
    pub(super) fn drain_of_stop(&self, from: Time) -> Duration {
        let serves = self.fleet.iter().any(Worker::may_serve);
        match (serves, self.policy.drain) {
            (true, Drain::Connections | Drain::Server) => self.drained_by(from) - from,
            (true, Drain::None) | (false, _) => Duration::ZERO,
        }
    }

    /// By when workers are asked to stop in a final stop with a budget, so that they have some of it.
    fn asked_by(&self) -> Option<Time> {
        let (end, budget) = (self.over_by?, self.policy.stop_budget?);
        let time = budget - margin(budget);
        let to_stop = self.policy.stop_timeout.min(time / 3);
        Some(end.before(margin(budget) + to_stop))
    }

    /// What a worker has run into that was not drained in this time.
    pub(super) fn drain_limit(&self, after: Duration) -> Limit {
        let own = self.policy.drain_timeout;
        match (self.over_by, self.policy.stop_budget) {
            (Some(_), Some(budget)) if after < own => Limit::Budget {
                time: after,
                budget,
            },
            (Some(_) | None, _) => Limit::Timeout(own),
        }
    }

    /// When who is asked to stop at that time is killed: after a pause of the master, too, it has its
    /// time, as long as there is some.
    pub(super) fn killed_by(&self, asked_at: Time) -> Time {
        let by = asked_at + self.policy.stop_timeout;
        match (self.over_by, self.policy.stop_budget) {
            (Some(end), Some(budget)) => by.min(end.before(margin(budget))),
            (Some(_) | None, _) => by,
        }
    }

    /// When a worker that is emptied from now on is asked to stop, or has its rest ended.
    pub(super) fn drain_by(&self, now: Time) -> Time {
        match self.phase {
            Phase::Serving => now + self.policy.drain_timeout,
            Phase::Stopping { drain_by, .. } => drain_by.min(now + self.policy.drain_timeout),
            Phase::Done(_) => now,
        }
    }

    /// The same of one that may have a time of its own, of which a part is for the last connections.
    pub(super) fn drain_by_of(&self, id: WorkerId, now: Time) -> Time {
        let by = self.drain_by(now);
        match (self.own_time(id), self.phase, self.policy.drain) {
            (None, _, _) => by,
            (Some(own), Phase::Serving, Drain::Connections) => own
                .leave_by
                .before(CLOSING.min(own.time / CLOSING_PART))
                .max(now),
            (Some(own), Phase::Serving, Drain::Server | Drain::None) => own.leave_by.max(now),
            (Some(own), Phase::Stopping { .. } | Phase::Done(_), _) => {
                by.min(own.leave_by).max(now)
            }
        }
    }

    /// When one whose rest is ended from now on is asked to stop.
    pub(super) fn closing_by(&self, id: WorkerId, now: Time) -> Time {
        let latest = self.asked_by().unwrap_or(now + CLOSING);
        let own = self.own_time(id).map_or(latest, |own| own.leave_by);
        (now + CLOSING).min(latest.min(own).max(now))
    }

    /// When a worker that is asked to stop now is killed.
    pub(super) fn kill_by(&self, now: Time) -> Time {
        match self.phase {
            Phase::Serving | Phase::Stopping { .. } => self.killed_by(now),
            Phase::Done(_) => now,
        }
    }

    /// The same of one that may have a time of its own.
    pub(super) fn kill_by_of(&self, id: WorkerId, now: Time) -> Time {
        let by = self.kill_by(now);
        match (self.own_time(id), self.phase) {
            (Some(own), Phase::Serving) => own.kill_by.max(now),
            (Some(own), Phase::Stopping { .. } | Phase::Done(_)) => by.min(own.kill_by.max(now)),
            (None, _) => by,
        }
    }

    /// Has it one?
    pub(super) fn own_time(&self, id: WorkerId) -> Option<Own> {
        self.fleet.get(id)?.own_time
    }

    /// When one that is killed now counts as stuck.
    pub(super) fn stuck_by(&self, now: Time) -> Time {
        self.before_the_end(now + KILLED_GRACE, |m| m / 2)
    }

    /// When those that are killed now are no longer waited for.
    pub(super) fn give_up_by(&self, now: Time) -> Time {
        self.before_the_end(now + KILLED_GRACE, |m| m / 5)
    }

    /// Then, or so much before the budget is used up.
    fn before_the_end(&self, then: Time, part: fn(Duration) -> Duration) -> Time {
        match (self.over_by, self.policy.stop_budget) {
            (Some(end), Some(budget)) => then.min(end.before(part(margin(budget)))),
            (Some(_) | None, _) => then,
        }
    }

    /// A worker that had to go before the stop began has no more time than the others.
    pub(super) fn hurry(&mut self, id: WorkerId, now: Time) {
        // While the cluster goes on, who is asked again has the time it was given.
        if self.phase == Phase::Serving {
            return;
        }
        let (kill_by, stuck_by) = (self.kill_by(now), self.stuck_by(now));
        let drain_by = self.drain_by(now);
        // The moment for the last of its connections is not drained time: the budget alone cuts it.
        let closes = self.fleet.get(id).and_then(Worker::stage) == Some(Stage::Closing);
        if !closes || self.over_by.is_some() {
            self.deadlines.sooner(Why::Drain(id), drain_by);
        }
        self.deadlines.sooner(Why::Kill(id), kill_by);
        if self.over_by.is_some() {
            self.deadlines.sooner(Why::KillAgain(id), stuck_by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::tests::policy;

    #[test]
    fn the_least_budget_cuts_nothing_and_one_that_is_shorter_does() {
        let secs = Duration::from_secs;
        for (delay, drain, timeout, how) in [
            (0, 10, 10, Drain::Connections),
            (20, 10, 10, Drain::Connections),
            (5, 60, 1, Drain::Server),
            (0, 60, 10, Drain::None),
            (0, 0, 0, Drain::Connections),
        ] {
            let mut p = Policy {
                drain: how,
                drain_delay: secs(delay),
                drain_timeout: secs(drain),
                stop_timeout: secs(timeout),
                ..policy()
            };
            let least = p.least_budget();
            assert!(p.longest_stop() >= p.uncut_stop() + KILLED_GRACE);
            let kept = |p: &Policy| {
                let mut c = Cluster::new(p.clone(), Time(0));
                c.budget_runs(Time(0));
                let from = Time(0) + secs(delay);
                let drained_by = c.drained_by(from);
                let closed_by = drained_by + CLOSING;
                (c.delay_of_stop() == secs(delay))
                    && drained_by == from + p.drain_time()
                    && (how != Drain::Connections
                        || c.killed_by(closed_by) == closed_by + secs(timeout))
            };
            p.stop_budget = Some(least);
            assert_eq!(p.longest_stop(), least);
            assert!(kept(&p), "{p:?}");
            if how == Drain::Connections && drain > 0 {
                p.stop_budget = Some(least - secs(1));
                assert!(!kept(&p), "{p:?}");
            }
        }
    }
}
