//! When a worker is due for another one: its age, its memory, the connections that it has served, its own
//! wish. Rules:
//!
//! 1. Only one that is ready is due, and once it is it stays so until it is replaced (`swap`) or goes by
//!    itself.
//! 2. Each worker has its own part of each limit, drawn at its birth: less by up to --recycle-jitter, so
//!    that those of one age do not come due together.
//! 3. Its age is a deadline, set when it is ready. At its memory is looked now and then, while that has a
//!    limit: so many at a time, the others in the next turns. Its connections are counted by the shell.
//! 4. One that says that it wants to be replaced is due at once. So is one that says that it is on its
//!    way out: its end is no failure then, if it had settled.
//! 5. One that says so before it has settled has failed, as one that ends then: the other one comes after
//!    the backoff of its slot (`respawn`), which goes on over that, and is one of those that the limits
//!    count (`crash`, rule 6). It serves meanwhile. If there is another reason by then, or an operator asks,
//!    it is that which counts.

use super::action::Action;
use super::deadlines::Why;
use super::event::Word;
use super::ids::{LaneId, Time, WorkerId};
use super::lane::Of;
use super::notice::{Birth, Cause, Notice};
use super::phase::Phase;
use super::respawn::{Backoff, SETTLED};
use super::words::{bytes, count, human};
use super::worker::{State, Worker};
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// The first look at the memory of workers comes so long after one is ready: they grow at first,
const WEIGH_FIRST: Duration = Duration::from_secs(2);
/// the next ones so long after the one before.
const WEIGH: Duration = Duration::from_secs(10);
/// So many are looked at in one turn,
pub const WEIGH_MOST: usize = 64;
/// and the others so soon after that.
const WEIGH_ON: Duration = Duration::from_millis(1);

/// Why a worker is replaced: what it has come to, and its own part of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reason {
    /// --max-age
    Age { age: Duration, limit: Duration },
    /// --max-rss
    Rss { rss: u64, limit: u64 },
    /// --max-connections
    Connections { served: u64, limit: u64 },
    /// It has said so.
    Wish(Word),
    /// An operator has.
    Asked(super::event::By),
}

impl Reason {
    /// As what its end is known.
    pub fn cause(self) -> Cause {
        match self {
            Reason::Asked(_) => Cause::Restart,
            Reason::Age { .. }
            | Reason::Rss { .. }
            | Reason::Connections { .. }
            | Reason::Wish(_) => Cause::Recycle,
        }
    }

    /// Why the one that is to replace it is forked.
    pub fn birth(self) -> Birth {
        match self {
            Reason::Asked(_) => Birth::Restart,
            Reason::Age { .. }
            | Reason::Rss { .. }
            | Reason::Connections { .. }
            | Reason::Wish(_) => Birth::Recycle,
        }
    }

    /// In a word, for machines.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Age { .. } => "age",
            Reason::Rss { .. } => "rss",
            Reason::Connections { .. } => "connections",
            Reason::Wish(_) => "wish",
            Reason::Asked(_) => "asked",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Age { age, limit } => write!(
                f,
                "ready for {} (limit {}, --max-age)",
                human(*age),
                human(*limit)
            ),
            Reason::Rss { rss, limit } => write!(
                f,
                "{} of memory (limit {}, --max-rss)",
                bytes(*rss),
                bytes(*limit)
            ),
            Reason::Connections { served, limit } => write!(
                f,
                "{} served (limit {limit}, --max-connections)",
                count(usize::try_from(*served).unwrap_or(usize::MAX), "connection")
            ),
            Reason::Wish(Word::Stopping) => f.write_str("it says that it is on its way out"),
            Reason::Wish(
                Word::Retire | Word::Ready | Word::Ping | Word::Trigger | Word::Unheard,
            ) => f.write_str("it wants to be replaced"),
            Reason::Asked(by) => write!(f, "asked by a client, {by}"),
        }
    }
}

impl Cluster {
    /// A worker is born: which part of the limits is its own?
    pub(super) fn draw_share(&mut self, id: WorkerId) {
        let r = self.policy.recycle;
        if r.age.is_none() && r.rss.is_none() && r.connections.is_none() {
            return;
        }
        let less = f64::from(r.jitter) / 100.0 * self.rng.unit();
        if let Some(w) = self.fleet.get_mut(id) {
            w.share = 1.0 - less;
        }
    }

    /// It is ready: its age counts from now on, and its memory is looked at.
    pub(super) fn begin_recycling(&mut self, id: WorkerId, now: Time) {
        let Some(w) = self.fleet.get(id) else { return };
        if let Some(age) = self.policy.recycle.age {
            // (One that was adopted may have been ready for longer.)
            let due = w.ready_since.unwrap_or(now) + w.share_of(age);
            self.deadlines.set(Why::Age(id), due.max(now));
        }
        let looks = self.deadlines.get(Why::Weigh).is_some();
        if self.policy.recycle.rss.is_some() && !looks && self.phase == Phase::Serving {
            self.deadlines.set(Why::Weigh, now + WEIGH_FIRST);
        }
    }

    /// It has been ready for so long, and may be no longer.
    pub(super) fn aged(&mut self, id: WorkerId, age: Duration, now: Time) {
        if let Some((limit, w)) = self.policy.recycle.age.zip(self.fleet.get(id)) {
            let limit = w.share_of(limit);
            self.is_due(id, Reason::Age { age, limit }, now);
        }
    }

    /// It is time to look at their memory.
    pub(super) fn weigh(&mut self, now: Time, out: &mut Out) {
        if self.policy.recycle.rss.is_none() || self.phase != Phase::Serving {
            return;
        }
        let ready = self.fleet.iter().filter(|w| w.is_ready()).map(|w| w.id);
        let mut rest = ready.filter(|id| *id > self.weighed);
        let workers: Vec<WorkerId> = rest.by_ref().take(WEIGH_MOST).collect();
        let next = match rest.next() {
            Some(_) => WEIGH_ON,
            None => WEIGH,
        };
        let last = workers.last().copied().filter(|_| next == WEIGH_ON);
        // Without anybody the next one that is ready sets it again.
        if self.fleet.iter().any(|w| w.is_ready()) {
            self.deadlines.set(Why::Weigh, now + next);
        }
        self.weighed = last.unwrap_or(WorkerId(0));
        if !workers.is_empty() {
            out.push(Action::Weigh { workers });
        }
    }

    /// What the look has shown.
    pub(super) fn weighed(&mut self, sizes: &[(WorkerId, u64)], now: Time) {
        let Some(most) = self.policy.recycle.rss else {
            return;
        };
        for (id, rss) in sizes {
            let limit = self.part_of(*id, most);
            if *rss > limit {
                self.is_due(*id, Reason::Rss { rss: *rss, limit }, now);
            }
        }
    }

    /// So many connections that it had have ended.
    pub(super) fn counted(&mut self, id: WorkerId, served: u64, now: Time) {
        let Some(most) = self.policy.recycle.connections else {
            return;
        };
        let limit = self.part_of(id, most);
        if served >= limit {
            self.is_due(id, Reason::Connections { served, limit }, now);
        }
    }

    /// Who is ready behind that lane, if it is one worker's alone.
    pub fn server_of(&self, lane: LaneId) -> Option<WorkerId> {
        let of = self.lanes.get(lane)?.of;
        let its = |w: &&Worker| match of {
            Of::Seat(seat) => w.seat == seat,
            Of::Worker(id) => w.id == id,
            Of::Generation(_) | Of::All => false,
        };
        let mut ready = self.fleet.iter().filter(|w| w.is_ready());
        Some(ready.find(its)?.id)
    }

    /// Its own part of a limit.
    fn part_of(&self, id: WorkerId, most: u64) -> u64 {
        let share = self.fleet.get(id).map_or(1.0, |w| w.share);
        (most as f64 * share).ceil() as u64
    }

    /// It has said that it wants to go.
    pub(super) fn wishes(&mut self, id: WorkerId, word: Word, now: Time, out: &mut Out) {
        let Some(w) = self.fleet.get_mut(id).filter(|w| w.is_ready()) else {
            return;
        };
        w.announced |= word == Word::Stopping;
        let who = w.who();
        let Some((delay, backoff)) = self.fails_by_wish(id, now) else {
            return self.is_due(id, Reason::Wish(word), now);
        };
        let fresh = self.is_due_from(id, Reason::Wish(word), now + delay, Some(backoff));
        if fresh && !delay.is_zero() {
            out.push(Action::Note(Notice::RecyclesLater {
                who,
                wait: Some(delay),
                failures: backoff.failures,
            }));
        }
    }

    /// Has it not settled yet? Then its slot waits so long, and has that backoff after it. (It may end before
    /// that: it would be counted then.)
    fn fails_by_wish(&mut self, id: WorkerId, now: Time) -> Option<(Duration, Backoff)> {
        let w = self.fleet.get(id)?;
        let since = w.ready_since.filter(|since| now - *since < SETTLED)?;
        let mut backoff = self.slots.of(w.slot)?.backoff;
        let delay = backoff.after_death(Some(now - since), &self.policy, &mut self.rng);
        Some((delay, backoff))
    }

    /// It has ended of that cause, as it seems: or had it said that it would?
    pub(super) fn as_announced(&self, id: WorkerId, cause: Cause, now: Time) -> Cause {
        let by_itself = match cause {
            Cause::Failure | Cause::Finished => true,
            Cause::Shutdown
            | Cause::Resize
            | Cause::Restart
            | Cause::Recycle
            | Cause::Kill
            | Cause::NotReady
            | Cause::Hang
            | Cause::NotStarted
            | Cause::Oom(_) => false,
        };
        let announced = self.fleet.get(id).is_some_and(|w| {
            let settled = matches!(w.state, State::Ready { since } if now - since >= SETTLED);
            w.announced && settled
        });
        match by_itself && announced && !self.is_watched(id, now) {
            true => Cause::Recycle,
            false => cause,
        }
    }
}
