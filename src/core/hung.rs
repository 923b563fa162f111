//! Workers that leave their clients waiting (--hang-timeout). Rules:
//!
//! 1. While it is asked for and somebody is ready, it is looked at four times in that time who waits for
//!    whom, by the shell, which tells of each worker whether all that waited for it at a look before wait
//!    still. What it was that it took, or how much, does not matter: one that takes anything is at work.
//! 2. By a lane of its own (`balance`) that is the queue of those that nobody has accepted. Where lanes
//!    are shared others take these: then it is what has come on the connections that it has accepted, as
//!    long as it does nothing on any of them. And if none of the others takes anybody either, it is their
//!    queue, for each of them that does nothing on any of its connections.
//! 3. Whose clients have waited for that long, untouched, hangs: it is steered around in that turn, and
//!    ended as one that says so (`speech`, rule 2).
//! 4. The time begins at a look of a ready worker in its slot, or of a canary that has clients, and
//!    begins anew when nothing is steered to its lane. Those that start, drain, are kept or are to have a
//!    place are not looked at, nor is anybody while the cluster stops.
//! 5. A look that comes late was kept back by whatever has stopped the master, and perhaps its workers:
//!    for all of them the time begins anew. So it does when what was seen comes late: the master was
//!    stopped while it looked.
//! 6. Lanes that a worker was not seen to serve are not its fault: though its predecessor did, it may be
//!    another program, or listen by itself.

use super::action::Action;
use super::deadlines::Why;
use super::event::{Wait, Waits};
use super::ids::{LaneId, Time, WorkerId};
use super::lane::{Lane, Of};
use super::phase::Phase;
use super::words::{count, human};
use super::worker::Worker;
use super::{Cluster, Out};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// So many looks in the time that makes one hang,
const LOOKS: u32 = 4;
/// but none sooner than that after the last.
const SOONEST: Duration = Duration::from_millis(100);

/// How it shows that a worker hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hang {
    /// It says so itself.
    Said,
    /// It was not heard in that time. Was it ever?
    Silent {
        /// --watchdog
        limit: Duration,
        /// Before that.
        ever: bool,
    },
    /// This was not touched.
    Untouched {
        /// As of the last look.
        what: Waits,
        /// For so long, at least.
        after: Duration,
        /// --hang-timeout
        limit: Duration,
    },
}

impl Hang {
    /// What it did not keep to.
    pub fn limit(&self) -> Option<Duration> {
        match self {
            Hang::Said => None,
            Hang::Silent { limit, .. } | Hang::Untouched { limit, .. } => Some(*limit),
        }
    }
}

impl fmt::Display for Hang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hang::Said => f.write_str("says that it is not well (WATCHDOG=trigger)"),
            Hang::Silent { limit, ever: true } => {
                let l = human(*limit);
                write!(f, "has not said for {l} that it is well (--watchdog {l})")
            }
            Hang::Silent { limit, ever: false } => write!(
                f,
                "has never said that it is well (does COMMAND speak sd_notify?) (--watchdog {})",
                human(*limit)
            ),
            Hang::Untouched { what, after, limit } => {
                let (after, limit) = (human(*after), human(*limit));
                match what {
                    Waits::Queue(n) => {
                        let n = count(usize::try_from(*n).unwrap_or(0), "connection");
                        write!(f, "hangs: its queue of {n} is untouched for {after}")
                    }
                    Waits::Shared(n) => {
                        let n = count(usize::try_from(*n).unwrap_or(0), "connection");
                        write!(
                            f,
                            "hangs: nobody has taken any of {n} in the queue that it shares, nor has it done anything else, for {after}"
                        )
                    }
                    Waits::Bytes(n) => {
                        let n = count(usize::try_from(*n).unwrap_or(0), "byte");
                        write!(
                            f,
                            "hangs: {n} on a connection of its own unread for {after}"
                        )
                    }
                }?;
                write!(f, " (--hang-timeout {limit})")
            }
        }
    }
}

fn gap(limit: Duration) -> Duration {
    (limit / LOOKS).max(SOONEST)
}

/// What was to be done at `due`, of something with that limit, comes so late that we were stopped, or kept
/// back by something else.
pub(super) fn kept_back(due: Time, limit: Duration, now: Time) -> bool {
    now - due > gap(limit)
}

impl Cluster {
    /// Somebody is ready: looked at from now on, if that is asked for and not done already.
    pub(super) fn watch_waiting(&mut self, now: Time) {
        if let Some(limit) = self.policy.hang_timeout
            && self.phase == Phase::Serving
            && self.deadlines.get(Why::Hung).is_none()
        {
            self.look_again(limit, now);
        }
    }

    fn look_again(&mut self, limit: Duration, now: Time) {
        self.hung_look = now + gap(limit);
        self.deadlines.set(Why::Hung, self.hung_look);
    }

    /// It is time to look.
    pub(super) fn look_for_hung(&mut self, now: Time, out: &mut Out) {
        let Some(limit) = self.policy.hang_timeout else {
            return;
        };
        let late = kept_back(self.hung_look, limit, now);
        let workers = self.to_look_at();
        let looked: BTreeSet<WorkerId> = workers.iter().map(|(id, _)| *id).collect();
        for w in self.fleet.iter_mut() {
            w.stands = w.stands.filter(|_| looked.contains(&w.id) && !late);
        }
        if looked.is_empty() || self.phase != Phase::Serving {
            return;
        }
        self.look_again(limit, now);
        let spread = self.lanes.spread;
        out.push(Action::LookHung { workers, spread });
    }

    /// Whom is it looked at, and by which lanes have they clients?
    fn to_look_at(&self) -> Vec<(WorkerId, Vec<LaneId>)> {
        let tables = self.lanes.steered.values();
        let steered: BTreeSet<LaneId> = tables.flat_map(|t| t.lanes()).collect();
        let ready = |id: &WorkerId| self.fleet.get(*id).is_some_and(Worker::is_ready);
        let slots = self.slots.open();
        let ids = slots.clone().filter_map(|s| s.current).filter(ready);
        let with = |id: WorkerId| (id, self.its_lanes(id, &steered));
        // (Where canaries have no part of the traffic there is nobody who could wait for them.)
        let ahead = slots.filter_map(|s| s.successor).filter(ready).map(with);
        let ahead = ahead.filter(|(_, lanes)| !lanes.is_empty());
        ids.map(with).chain(ahead).collect()
    }

    /// By which of these lanes has it clients, if it takes any?
    fn its_lanes(&self, id: WorkerId, steered: &BTreeSet<LaneId>) -> Vec<LaneId> {
        let Some(w) = self.fleet.get(id) else {
            return Vec::new();
        };
        let served = &self.lanes.served;
        // Who waits on what it was handed is not seen to serve each of them.
        let handed = |l: &Lane| w.accepts && l.given && served.contains(&l.port);
        let serves = |l: &Lane| w.serves.contains(&l.id) || handed(l);
        // Where each has its own those of all say nothing of one.
        let its = |l: &Lane| !self.lanes.spread || matches!(l.of, Of::Seat(_) | Of::Worker(_));
        let its = |l: &Lane| its(l) && l.addr.tcp().is_some();
        let counts = |l: &&Lane| steered.contains(&l.id) && its(l) && serves(l);
        self.lanes_of(w).filter(counts).map(|l| l.id).collect()
    }

    /// What was seen of those who wait.
    pub(super) fn waiting_seen(&mut self, seen: &[(WorkerId, Wait)], now: Time, out: &mut Out) {
        let Some(limit) = self.policy.hang_timeout else {
            return;
        };
        let late = kept_back(self.hung_look, limit, now);
        for (id, wait) in seen {
            let Some(w) = self.fleet.get_mut(*id).filter(|w| w.is_ready()) else {
                continue;
            };
            match wait {
                _ if late => w.stands = None,
                Wait::Moves => w.stands = Some(now),
                Wait::Unknown => {}
                Wait::Stands(what) => {
                    let after = now - *w.stands.get_or_insert(now);
                    if after >= limit {
                        w.untouched = true;
                        let what = *what;
                        self.hangs(*id, Hang::Untouched { what, after, limit }, now, out);
                    }
                }
            }
        }
    }
}
