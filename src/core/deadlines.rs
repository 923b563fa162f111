//! The timer table. A deadline is absolute, has a Why, and is gone once it has fired (I6).

use super::health::Check;
use super::ids::{SlotNr, Time, WorkerId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Why something happens at a time. One sentence each; the order is the order of firing when due together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Why {
    /// The worker may now have lost the lane it listened on: look, it was perhaps only probing.
    Hold(WorkerId),
    /// The worker has been alive as long as --ready asks.
    Alive(WorkerId),
    /// Look whether the starting worker waits on a lane it was handed.
    Look(WorkerId),
    /// Ask the starting worker (again) whether it is ready.
    Probe(WorkerId),
    /// The starting worker should have been ready by now.
    Ready(WorkerId),
    /// The worker should have said by now that it is well.
    Watchdog(WorkerId),
    /// The worker has been ready for as long as it may be (--max-age).
    Age(WorkerId),
    /// The worker should have been emptied by now.
    Drain(WorkerId),
    /// Look how far those are that are being emptied.
    Census,
    /// The cluster stops, and was to serve until now.
    DrainDelay,
    /// Successors that failed may be tried again.
    Successors,
    /// A worker that is due may be replaced now: what was to take its place had failed.
    Swap,
    /// Look how much memory workers have (--max-rss).
    Weigh,
    /// New workers have been watched long enough.
    Watch,
    /// The worker was asked to stop and should have gone by now, with its group.
    Kill(WorkerId),
    /// The worker was killed and should have gone by now.
    KillAgain(WorkerId),
    /// The slot's backoff is over.
    Respawn(SlotNr),
    /// All workers should have been ready by now, or one at least.
    StartTimeout,
    /// All workers are ready: look whether some given port is served by none of them.
    Unserved,
    /// Look whether some worker leaves its clients waiting.
    Hung,
    /// Ask again whether clients may come (--ecv-interval).
    Check(Check),
    /// Processes left behind by workers were asked to stop and should have gone by now.
    Leftovers,
    /// They were killed and should have gone by now.
    GiveUp,
}

/// Deadlines by reason, and by time.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<(Why, Time)>", into = "Vec<(Why, Time)>")]
pub struct Deadlines {
    at: BTreeMap<Why, Time>,
    order: BTreeSet<(Time, Why)>,
}

impl From<Vec<(Why, Time)>> for Deadlines {
    fn from(all: Vec<(Why, Time)>) -> Deadlines {
        let mut deadlines = Deadlines::default();
        all.into_iter().for_each(|(why, at)| deadlines.set(why, at));
        deadlines
    }
}

impl From<Deadlines> for Vec<(Why, Time)> {
    fn from(deadlines: Deadlines) -> Vec<(Why, Time)> {
        deadlines.at.into_iter().collect()
    }
}

impl Deadlines {
    /// Sets or moves the deadline for this reason.
    pub fn set(&mut self, why: Why, at: Time) {
        self.stop(why);
        self.at.insert(why, at);
        self.order.insert((at, why));
    }

    /// Moves it forward, never back. No-op if there is none.
    pub fn sooner(&mut self, why: Why, at: Time) {
        if self.get(why).is_some_and(|old| at < old) {
            self.set(why, at);
        }
    }

    /// Forgets it. No-op if there is none.
    pub fn stop(&mut self, why: Why) {
        if let Some(at) = self.at.remove(&why) {
            self.order.remove(&(at, why));
        }
    }

    /// Forgets all that speak of this worker.
    pub fn stop_worker(&mut self, id: WorkerId) {
        for why in [
            Why::Hold(id),
            Why::Alive(id),
            Why::Look(id),
            Why::Probe(id),
            Why::Ready(id),
            Why::Watchdog(id),
            Why::Age(id),
            Why::Drain(id),
            Why::Kill(id),
            Why::KillAgain(id),
        ] {
            self.stop(why);
        }
    }

    /// When this reason's is.
    pub fn get(&self, why: Why) -> Option<Time> {
        self.at.get(&why).copied()
    }

    /// The earliest.
    pub fn next(&self) -> Option<(Time, Why)> {
        self.order.first().copied()
    }

    /// The master stood still for so long: those who may have waited for it all the while (for the answer to a
    /// bind(2), for room in the pipe that is their stderr) are judged by as much later. How many are.
    pub fn delay(&mut self, by: Duration) -> usize {
        let judges = |why: &Why| match why {
            Why::Ready(_) | Why::Watchdog(_) | Why::StartTimeout => true,
            // They had that time themselves, or it is ours; and looks that come late begin anew (`hung`).
            Why::Hold(_)
            | Why::Alive(_)
            | Why::Look(_)
            | Why::Probe(_)
            | Why::Age(_)
            | Why::Drain(_)
            | Why::Census
            | Why::DrainDelay
            | Why::Successors
            | Why::Swap
            | Why::Weigh
            | Why::Watch
            | Why::Kill(_)
            | Why::KillAgain(_)
            | Why::Respawn(_)
            | Why::Unserved
            | Why::Hung
            | Why::Check(_)
            | Why::Leftovers
            | Why::GiveUp => false,
        };
        let moved: Vec<(Why, Time)> = self.iter().filter(|(why, _)| judges(why)).collect();
        for (why, at) in &moved {
            self.set(*why, *at + by);
        }
        moved.len()
    }

    /// Takes the earliest that is due out of the table, with when it was.
    pub fn take_due(&mut self, now: Time) -> Option<(Time, Why)> {
        let (at, why) = self.next()?;
        if at > now {
            return None;
        }
        self.stop(why);
        Some((at, why))
    }

    /// All of them, for the invariants.
    pub fn iter(&self) -> impl Iterator<Item = (Why, Time)> + '_ {
        self.at.iter().map(|(w, t)| (*w, *t))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_deadline_fires_once_and_at_its_new_time() {
        let mut d = Deadlines::default();
        d.set(Why::StartTimeout, Time(10));
        d.set(Why::StartTimeout, Time(20));
        d.set(Why::GiveUp, Time(15));
        assert_eq!(d.take_due(Time(12)), None);
        assert_eq!(d.take_due(Time(30)), Some((Time(15), Why::GiveUp)));
        assert_eq!(d.take_due(Time(30)), Some((Time(20), Why::StartTimeout)));
        assert_eq!(d.take_due(Time(30)), None);
        assert!(d.next().is_none());
    }

    #[test]
    fn who_may_have_waited_for_us_is_judged_later_and_nothing_else_is() {
        let mut d = Deadlines::default();
        let (one, other) = (WorkerId(1), WorkerId(2));
        let of_ours = [Why::Kill(one), Why::Age(one), Why::Hung, Why::GiveUp];
        let of_theirs = [Why::Ready(one), Why::Watchdog(other), Why::StartTimeout];
        for why in of_ours.into_iter().chain(of_theirs) {
            d.set(why, Time(5));
        }
        assert_eq!(d.delay(Duration::from_nanos(7)), 3);
        assert!(of_ours.iter().all(|w| d.get(*w) == Some(Time(5))));
        assert!(of_theirs.iter().all(|w| d.get(*w) == Some(Time(12))));
        assert_eq!(Deadlines::default().delay(Duration::from_secs(1)), 0);
    }
}
