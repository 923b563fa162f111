//! Slots that a client adds, and which run a command of their own. Rules:
//!
//! 1. One after the other: the next is added when the first worker of the one before has been ready.
//! 2. One whose first worker ends before, or is not ready in time, is taken away again, and the rest is
//!    not begun; those before it stay.
//! 3. A slot keeps its command over reloads, until an upgrade of all.
//! 4. Another number of workers that is asked for meanwhile ends it where it is. So does a reload, and
//!    takes away the slot that has not been ready: its code is not to fail that.

use super::action::Action;
use super::event::{By, More};
use super::ids::{Asker, Program, SlotNr, Time};
use super::outcome::{Hitch, Outcome};
use super::phase::{MAX_ASKERS, Phase};
use super::policy::MAX_WORKERS;
use super::slot::Slot;
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// One that is under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Starting {
    program: Program,
    ready: Option<Duration>,
    /// The slot that was added last.
    slot: SlotNr,
    /// So many were added before it, and so many are to come.
    done: u16,
    left: u16,
    asker: Option<Asker>,
    by: By,
}

impl Cluster {
    pub(super) fn start_asked(&mut self, more: More, now: Time, out: &mut Out) {
        let asker = more.asker;
        let refuse = |hitch| Outcome::NotStarted { started: 0, hitch };
        let most = self.policy.most.min(MAX_WORKERS);
        let room = more.count <= most.saturating_sub(self.wanted);
        let refused = match self.phase {
            Phase::Stopping { .. } | Phase::Done(_) => Some(refuse(Hitch::Stopping)),
            Phase::Serving if !self.opened => Some(refuse(Hitch::TooEarly)),
            Phase::Serving if self.starting.is_some() => {
                Some(refuse(Hitch::UnderWay("another start")))
            }
            Phase::Serving if self.rollout.is_some() => Some(refuse(Hitch::UnderWay("a reload"))),
            Phase::Serving if !room => Some(Outcome::OutOfBounds {
                workers: self.wanted,
                asked: super::event::Size::More(more.count),
            }),
            Phase::Serving if more.wait && self.waiting() >= MAX_ASKERS => Some(Outcome::TooMany),
            Phase::Serving => None,
        };
        if let Some(outcome) = refused {
            return out.push(Action::Answer { asker, outcome });
        }
        if !more.wait {
            let outcome = Outcome::Starting { count: more.count };
            out.push(Action::Answer { asker, outcome });
        }
        self.starting = Some(Starting {
            program: more.program,
            ready: more.ready,
            slot: self.slots.next_to_open(),
            done: 0,
            left: more.count,
            asker: more.wait.then_some(asker),
            by: more.by,
        });
        self.add_slot(now, out);
    }

    /// The next of them.
    fn add_slot(&mut self, now: Time, out: &mut Out) {
        let nr = self.slots.next_to_open();
        let to = self.wanted.saturating_add(1);
        let Some(s) = &mut self.starting else { return };
        s.slot = nr;
        s.left = s.left.saturating_sub(1);
        let (program, by) = (s.program, s.by);
        self.resize_with(to, program, "added by a client", Some(by), now, out);
    }

    /// Is it the slot that is being added, and goes again if its worker fails?
    pub(super) fn is_starting(&self, nr: SlotNr) -> bool {
        self.starting.as_ref().is_some_and(|s| s.slot == nr)
    }

    /// So long the first worker of the slot that is being added has to be ready.
    pub(super) fn start_limit(&self, slot: SlotNr) -> Option<Duration> {
        let adding = self.starting.as_ref().filter(|s| s.slot == slot);
        adding.and_then(|s| s.ready)
    }

    /// After each event: has the one that was added last been ready?
    pub(super) fn starting_progress(&mut self, now: Time, out: &mut Out) {
        let Some(s) = &mut self.starting else { return };
        let slot: Option<&Slot> = self.slots.get(usize::from(s.slot.0));
        if !slot.is_some_and(|slot| slot.proven) || self.phase != Phase::Serving {
            return;
        }
        s.done += 1;
        if s.left > 0 {
            return self.add_slot(now, out);
        }
        let (count, workers) = (s.done, self.wanted);
        if let Some(asker) = self.starting.take().and_then(|s| s.asker) {
            let outcome = Outcome::Started { count, workers };
            out.push(Action::Answer { asker, outcome });
        }
    }

    /// Who asked for them does not want to hear of it any more.
    pub(super) fn starter_gone(&mut self, asker: Asker) {
        if let Some(s) = &mut self.starting {
            s.asker = s.asker.filter(|a| *a != asker);
        }
    }

    /// Does somebody wait for them?
    pub(super) fn starter_waits(&self) -> bool {
        self.starting.as_ref().is_some_and(|s| s.asker.is_some())
    }

    /// Something else comes between, or the slot's first worker has failed.
    pub(super) fn end_starting(&mut self, hitch: Hitch, out: &mut Out) {
        let Some(s) = self.starting.take() else {
            return;
        };
        if let Some(asker) = s.asker {
            let started = s.done;
            let outcome = Outcome::NotStarted { started, hitch };
            out.push(Action::Answer { asker, outcome });
        }
    }

    /// A reload begins: the slot that is being added, and has not been ready, goes again with the start.
    pub(super) fn call_off_start(&mut self, hitch: Hitch, now: Time, out: &mut Out) {
        let Some((nr, by)) = self.starting.as_ref().map(|s| (s.slot, s.by)) else {
            return;
        };
        self.end_starting(hitch, out);
        let slot = self.slots.get(nr.index());
        if self.is_wanted(nr) && slot.is_some_and(|s| !s.proven) {
            self.close(nr, "its start is called off", Some(by), now, out);
        }
    }

    /// A worker has ended, or there was none, that has never been ready: was it of the slot that is being
    /// added?
    pub(super) fn starting_failed(&mut self, nr: SlotNr, hitch: Hitch, now: Time, out: &mut Out) {
        let Some(s) = self.starting.as_ref().filter(|s| s.slot == nr) else {
            return;
        };
        let by = s.by;
        self.end_starting(hitch, out);
        if self.is_wanted(nr) {
            self.close(nr, "the added slot has failed", Some(by), now, out);
        }
    }
}
