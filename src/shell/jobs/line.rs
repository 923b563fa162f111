//! Who waits to be run, and who is next. Rules:
//!
//! 1. Programs at events and programs of verbs stand in lines of their own, and neither may have all the
//!    places: a client whose program never ends must not keep events from being told, nor the other way
//!    round.
//! 2. Of each program at events one waits at most (its events wait with it), so none is refused. Of the
//!    others `MOST_WAITING` may.
//! 3. What is asked whether clients may come waits for none of them: all of them may be slow by what it is
//!    to find out.
//! 4. The time that a verb's program may take begins when it is asked for: who asks gets an answer by then,
//!    whether it was begun or not.

use super::{MOST, Order, Purpose};
use crate::core::{Asker, Time};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// So many more wait.
pub const MOST_WAITING: usize = 256;
/// So many places each of the two may have.
pub const MOST_OF_ONE: usize = MOST - 4;

/// One that waits.
#[derive(Serialize, Deserialize)]
pub struct Waits {
    pub purpose: Purpose,
    pub order: Order,
    /// When its time is over, if there is one.
    pub by: Option<Time>,
}

/// All that wait.
#[derive(Default, Serialize, Deserialize)]
pub struct Line {
    hooks: VecDeque<Waits>,
    verbs: VecDeque<Waits>,
    check: Option<Waits>,
}

impl Line {
    /// One more. False: too many wait.
    pub fn push(&mut self, purpose: Purpose, order: Order, now: Time) -> bool {
        let (all, by) = match purpose {
            // Its time begins when it does: nobody waits for it.
            Purpose::Hook(_) => (&mut self.hooks, None),
            Purpose::Check => {
                let by = None;
                self.check = Some(Waits { purpose, order, by });
                return true;
            }
            // It is never in this line.
            Purpose::Handover(_) => return false,
            Purpose::Verb(_) if self.verbs.len() >= MOST_WAITING => return false,
            Purpose::Verb(_) => (&mut self.verbs, order.limit.map(|limit| now + limit)),
        };
        all.push_back(Waits { purpose, order, by });
        true
    }

    /// Who is next, where so many run at events, so many for verbs, and others have so many places.
    pub fn next(&mut self, hooks: usize, verbs: usize, others: usize) -> Option<Waits> {
        if self.check.is_some() {
            return self.check.take();
        }
        if hooks + verbs + others >= MOST {
            return None;
        }
        let hook = (hooks < MOST_OF_ONE).then(|| self.hooks.pop_front());
        let mut verb = || (verbs < MOST_OF_ONE).then(|| self.verbs.pop_front());
        hook.flatten().or_else(|| verb().flatten())
    }

    pub fn is_empty(&self) -> bool {
        self.hooks.is_empty() && self.verbs.is_empty() && self.check.is_none()
    }

    /// The one that nobody wants to hear of any more.
    pub fn take_check(&mut self) -> Option<Waits> {
        self.check.take()
    }

    /// All that wait.
    pub fn iter(&self) -> impl Iterator<Item = &Waits> {
        self.hooks.iter().chain(&self.verbs).chain(&self.check)
    }

    /// None of them is begun.
    pub fn clear(&mut self) -> Vec<Waits> {
        let all = std::mem::take(self);
        let both = all.hooks.into_iter().chain(all.verbs);
        both.chain(all.check).collect()
    }

    /// When the time of the next one is over.
    pub fn deadline(&self) -> Option<Time> {
        self.iter().filter_map(|w| w.by).min()
    }

    /// Those whose time is.
    pub fn overdue(&mut self, now: Time) -> Vec<Waits> {
        let late = |w: &Waits| w.by.is_some_and(|by| by <= now);
        if !self.iter().any(late) {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.verbs);
        let (over, rest) = all.into_iter().partition(late);
        self.verbs = rest;
        let over: VecDeque<Waits> = over;
        over.into()
    }

    /// Nobody waits for that one any more: from now on it has no more than that.
    pub fn limit(&mut self, asker: Asker, limit: Duration, now: Time) {
        let of_it = |w: &&mut Waits| w.purpose == Purpose::Verb(Some(asker)) && w.by.is_none();
        for waits in self.verbs.iter_mut().filter(of_it) {
            (waits.by, waits.order.limit) = (Some(now + limit), Some(limit));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(limit: Option<u64>) -> Order {
        Order {
            name: "x".into(),
            words: Vec::new(),
            cwd: "/".into(),
            variables: Vec::new(),
            stdin: Vec::new(),
            merged: false,
            limit: limit.map(Duration::from_secs),
            ours: false,
        }
    }

    const NOW: Time = Time(7_000_000_000);

    #[test]
    fn neither_events_nor_verbs_have_all_the_places() {
        let mut line = Line::default();
        for n in 0..20 {
            assert!(line.push(Purpose::Verb(None), order(None), NOW));
            assert!(line.push(Purpose::Hook(n), order(Some(10)), NOW));
        }
        let is_hook = |w: Option<Waits>| w.map(|w| matches!(w.purpose, Purpose::Hook(_)));
        assert_eq!(is_hook(line.next(0, 15, 0)), Some(true));
        assert_eq!(is_hook(line.next(MOST_OF_ONE, 0, 0)), Some(false));
        assert_eq!(is_hook(line.next(0, MOST_OF_ONE, 0)), Some(true));
        assert!(line.next(MOST_OF_ONE, MOST - MOST_OF_ONE, 0).is_none());
        assert!(line.next(0, 0, MOST).is_none());
        // With no event to tell, verbs leave the places that these would need.
        let mut line = Line::default();
        line.push(Purpose::Verb(None), order(None), NOW);
        assert!(line.next(0, MOST_OF_ONE, 0).is_none());
        assert!(line.next(0, MOST_OF_ONE - 1, 0).is_some() && line.is_empty());
        // Whether clients may come is asked whoever else runs.
        line.push(Purpose::Check, order(Some(5)), NOW);
        assert!(line.next(MOST, MOST, MOST).is_some() && line.is_empty());
    }

    #[test]
    fn verbs_wait_no_longer_than_they_may_take_and_no_more_than_so_many() {
        let mut line = Line::default();
        for _ in 0..MOST_WAITING {
            assert!(line.push(Purpose::Verb(None), order(Some(60)), NOW));
        }
        assert!(!line.push(Purpose::Verb(None), order(Some(1)), NOW));
        assert!(line.push(Purpose::Hook(1), order(Some(10)), NOW));
        let by = NOW + Duration::from_secs(60);
        assert_eq!(line.deadline(), Some(by));
        assert!(line.overdue(by.before(Duration::from_millis(1))).is_empty());
        assert_eq!(line.overdue(by).len(), MOST_WAITING);
        // The event has all the time that there is.
        assert_eq!((line.deadline(), line.is_empty()), (None, false));
        let asker = Asker(3);
        line.push(Purpose::Verb(Some(asker)), order(None), NOW);
        assert_eq!(line.deadline(), None);
        line.limit(asker, Duration::from_secs(60), NOW);
        assert_eq!(line.deadline(), Some(by));
        assert_eq!(line.clear().len(), 2);
    }
}
