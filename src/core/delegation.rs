//! Work that workers delegate (cluster2's `{type:"delegate"}`): who waits for which answer. Rules:
//!
//! 1. The same work, asked for while it is under way, is done once: the same delegate and `expect`, and
//!    the same values of the fields that `matches` names (without any: the same message). All who have
//!    asked get the answer.
//! 2. An answer is for every work of its delegate whose fields it has, each equal; work that names no
//!    fields is ended by the first one. One that says what it is (`expect`, else `type`) is only for
//!    those who expect that.
//! 3. Who has asked says who hears: the pids in `targets`, else all workers. An answer goes to each
//!    worker once, however many have asked.
//! 4. Who has asked has a time of their own. When it is over, or it is clear that nobody will answer,
//!    their own message comes back, with an error.
//! 5. With `notification` later answers are passed on, too, whatever their fields, for as long as the one
//!    who asked lives.
//! 6. Work is given to a program, as a line with a number (`Ticket`). Lines that it has read are done by
//!    it or by nobody: when it has ended, who waits for those is told.
//! 7. A worker that has gone hears nothing: what only it waits for is not waited for any more.
//! 8. Nothing is kept for longer than that, and there is a limit to all (`hearers` has those of notifications).

use super::hearers::{Hearers, Subject};
use super::ids::{Time, WorkerId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// So many may wait for answers at a time, and so many sets of notifications are kept.
pub const MAX_ASKS: usize = 1024;
/// Bytes of the messages of those who wait.
pub const MAX_KEPT: usize = 16 * 1024 * 1024;

/// What a worker asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Who is to do it.
    pub delegate: String,
    /// What the answer is called; without it none is waited for.
    pub expect: Option<String>,
    /// Fields that the answer must have, with values that are equal; sorted.
    pub matches: Vec<(String, Option<String>)>,
    /// So long it is waited for.
    pub within: Duration,
    /// Pids of those who shall hear the answer; `None`: all workers.
    pub targets: Option<Vec<i32>>,
    /// Pass later ones on, too?
    pub notification: bool,
}

impl Wanted {
    /// What of later answers is heard, and who hears it, if that is wanted.
    fn later(&self, worker: WorkerId) -> Option<(Subject, To)> {
        let expect = self.expect.as_ref().filter(|_| self.notification)?;
        let subject = (self.delegate.clone(), expect.clone(), worker);
        Some((subject, To::of(self.targets.as_ref())))
    }
}

/// Where some work was put: which program has it, and the how manieth of its lines it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// A serial of its runs and successors, all the same program.
    pub program: u64,
    /// Counted from 1.
    pub line: u64,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is to be done.
    Work,
    /// It is being done.
    Joined,
    /// There is no room for it.
    Full(Failed),
    /// There is none for those who shall hear of it later, and why.
    Crowded(Failed, String),
}

/// Who hears something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum To {
    /// All workers.
    All,
    /// Those with these pids.
    Pids(BTreeSet<i32>),
}

impl To {
    /// Those with these pids.
    pub fn of(targets: Option<&Vec<i32>>) -> To {
        targets.map_or(To::All, |t| To::Pids(t.iter().copied().collect()))
    }

    fn join(&mut self, other: To) {
        match (&mut *self, other) {
            (To::All, _) => {}
            (To::Pids(_), To::All) => *self = To::All,
            (To::Pids(all), To::Pids(more)) => all.extend(more),
        }
    }
}

/// A message that comes back to whom it was from, with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Who was to do it.
    pub delegate: String,
    /// As it was.
    pub message: String,
    /// What the answer would have been called.
    pub expect: String,
    /// Who hears it.
    pub to: To,
}

/// Which work.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Key {
    delegate: String,
    expect: String,
    matches: Vec<(String, Option<String>)>,
    /// Where there are no fields to tell one from another.
    message: Option<String>,
}

/// Work under way, and who waits for it.
#[derive(Serialize, Deserialize)]
struct Work {
    ticket: Ticket,
    askers: Vec<Asker>,
}

#[derive(Serialize, Deserialize)]
struct Asker {
    worker: WorkerId,
    message: String,
    targets: Option<Vec<i32>>,
    notification: bool,
    by: Time,
}

impl Asker {
    /// That pid hears nothing any more. Does now nobody?
    fn was_only_for(&mut self, pid: i32) -> bool {
        let Some(targets) = &mut self.targets else {
            return false;
        };
        let before = targets.len();
        targets.retain(|p| *p != pid);
        targets.len() < before && targets.is_empty()
    }
}

/// All that is under way.
#[derive(Default, Serialize, Deserialize)]
pub struct Delegations {
    #[serde(with = "crate::core::carry::pairs")]
    asks: BTreeMap<Key, Work>,
    /// How many ask, and how many bytes they have sent.
    count: usize,
    kept: usize,
    later: Hearers,
}

impl Delegations {
    /// A worker asks. Unless it is `Work` the delegate hears nothing of it; if it is, that goes there.
    pub fn ask(
        &mut self,
        worker: WorkerId,
        wanted: Wanted,
        message: &str,
        ticket: Ticket,
        now: Time,
    ) -> Begun {
        let later = wanted.later(worker);
        let Some(expect) = wanted.expect else {
            return Begun::Work;
        };
        let failed = || Failed {
            delegate: wanted.delegate.clone(),
            message: message.to_string(),
            expect: expect.clone(),
            to: To::of(wanted.targets.as_ref()),
        };
        if self.count >= MAX_ASKS || self.kept + message.len() > MAX_KEPT {
            return Begun::Full(failed());
        }
        if let Some((subject, to)) = later
            && let Err(why) = self.later.ask(subject, &to)
        {
            return Begun::Crowded(failed(), why);
        }
        let distinct = wanted.matches.is_empty().then(|| message.to_string());
        let key = Key {
            delegate: wanted.delegate,
            expect,
            matches: wanted.matches,
            message: distinct,
        };
        let new = || Work {
            ticket,
            askers: Vec::new(),
        };
        let askers = &mut self.asks.entry(key).or_insert_with(new).askers;
        let first = askers.is_empty();
        askers.push(Asker {
            worker,
            message: message.to_string(),
            targets: wanted.targets,
            notification: wanted.notification,
            by: now + wanted.within,
        });
        self.count += 1;
        self.kept += message.len();
        match first {
            true => Begun::Work,
            false => Begun::Joined,
        }
    }

    /// A delegate answers; `field` has the answer's values. Who hears it, and under which name.
    pub fn answered(
        &mut self,
        delegate: &str,
        called: Option<&str>,
        mut field: impl FnMut(&str) -> Option<String>,
    ) -> BTreeMap<String, To> {
        let mut all: BTreeMap<String, To> = BTreeMap::new();
        let mut hear = |expect: &str, to: To| match all.get_mut(expect) {
            Some(others) => others.join(to),
            None => drop(all.insert(expect.to_string(), to)),
        };
        for (expect, to) in self.later.of(delegate, called) {
            hear(expect, to);
        }
        let fits = |key: &&Key| {
            key.delegate == delegate
                && called.is_none_or(|c| c == key.expect)
                && key.matches.iter().all(|(name, v)| field(name) == *v)
        };
        let over: Vec<Key> = self.asks.keys().filter(fits).cloned().collect();
        for key in over {
            for asker in self.asks.remove(&key).into_iter().flat_map(|w| w.askers) {
                hear(&key.expect, To::of(asker.targets.as_ref()));
                self.done_with(&key, asker);
            }
        }
        all
    }

    /// Those whose time is over.
    pub fn overdue(&mut self, now: Time) -> Vec<Failed> {
        if self.deadline().is_none_or(|at| at > now) {
            return Vec::new();
        }
        self.fail(|_, asker| asker.by <= now)
    }

    /// That work will not be done: all who wait for it.
    pub fn lost(&mut self, which: impl Fn(Ticket) -> bool) -> Vec<Failed> {
        self.fail(|ticket, _| which(ticket))
    }

    fn fail(&mut self, which: impl Fn(Ticket, &Asker) -> bool) -> Vec<Failed> {
        let mut failed = Vec::new();
        for (key, work) in std::mem::take(&mut self.asks) {
            let ticket = work.ticket;
            let (over, askers): (Vec<Asker>, Vec<Asker>) =
                work.askers.into_iter().partition(|a| which(ticket, a));
            for asker in over {
                failed.push(Failed {
                    delegate: key.delegate.clone(),
                    message: asker.message.clone(),
                    expect: key.expect.clone(),
                    to: To::of(asker.targets.as_ref()),
                });
                self.done_with(&key, asker);
            }
            if !askers.is_empty() {
                self.asks.insert(key, Work { ticket, askers });
            }
        }
        failed
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Does nobody wait, or listen?
    pub fn is_empty(&self) -> bool {
        self.count == 0 && self.later.is_empty()
    }

    /// It has had its answer, or its error: what it hears from now on.
    fn done_with(&mut self, key: &Key, asker: Asker) {
        self.count = self.count.saturating_sub(1);
        self.kept = self.kept.saturating_sub(asker.message.len());
        if asker.notification {
            let subject = (key.delegate.clone(), key.expect.clone(), asker.worker);
            self.later.begin(&subject, &To::of(asker.targets.as_ref()));
        }
    }

    /// If there is no room for those who shall hear of this later: pids that have it, of which it should be
    /// looked whose they are.
    pub fn look_at(&mut self, worker: WorkerId, wanted: &Wanted, now: Time) -> Vec<i32> {
        let later = wanted.later(worker);
        later.map_or_else(Vec::new, |(subject, to)| {
            self.later.look_at(&subject, &to, now)
        })
    }

    /// These of them are nobody's.
    pub fn forget(&mut self, worker: WorkerId, wanted: &Wanted, pids: &[i32]) {
        if let Some((subject, _)) = wanted.later(worker) {
            self.later.forget(&subject, pids);
        }
    }

    /// A worker has gone, whose pid that was: the next one with that pid does not hear what was for it.
    /// Others may hear the answer to what it has asked; notifications end with it.
    pub fn gone(&mut self, worker: WorkerId, pid: Option<i32>) {
        self.later.gone(worker, pid);
        let (mut count, mut kept) = (0, 0);
        self.asks.retain(|_, work| {
            work.askers.retain_mut(|asker| {
                asker.notification &= asker.worker != worker;
                let stays = !pid.is_some_and(|pid| asker.was_only_for(pid));
                if !stays {
                    count += 1;
                    kept += asker.message.len();
                }
                stays
            });
            !work.askers.is_empty()
        });
        self.count = self.count.saturating_sub(count);
        self.kept = self.kept.saturating_sub(kept);
    }

    /// When the first one's time is over.
    pub fn deadline(&self) -> Option<Time> {
        let all = self.asks.values().flat_map(|w| &w.askers);
        all.map(|a| a.by).min()
    }
}

#[cfg(test)]
mod tests;
