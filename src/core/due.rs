//! Workers that are to be replaced one by one (`swap`): who, when it is their turn, and who waits for that.
//! Rules:
//!
//! 1. There is one entry for each worker at most, that of the swap under way among them; who asks for what
//!    is due already joins those who wait for it.
//! 2. Those that operators have asked for have their turn first, the others in the order in which they came
//!    due.
//! 3. What an operator has asked for is tried once. Who is due for another reason (`recycle`) is tried again
//!    until it is replaced, later each time.
//! 4. One that has gone, or is on its way out, is not waited for.
//! 5. A reload, which replaces all, ends what operators have asked for; who is due for another reason stays
//!    so, if it is there after that. The end ends all.

use super::action::Action;
use super::deadlines::Why;
use super::event::{Restart, Target};
use super::ids::{Asker, Program, Time, WorkerId};
use super::notice::Who;
use super::outcome::{Hitch, Outcome};
use super::phase::{MAX_ASKERS, Phase};
use super::recycle::Reason;
use super::respawn::Backoff;
use super::slot::Place;
use super::worker::{State, Worker};
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// The date of what waits for an operator.
pub(super) const NEVER: Time = Time(u64::MAX);

/// A worker that is to be replaced.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Due {
    pub(super) worker: WorkerId,
    pub(super) who: Who,
    pub(super) reason: Reason,
    /// What the new one runs, if not what its slot does.
    pub(super) program: Option<Program>,
    /// The new one has to be ready in that time, if not in that of the policy.
    pub(super) within: Option<Duration>,
    /// It is not tried before.
    pub(super) after: Time,
    /// It is due so soon that its slot has failed (`recycle`, rule 5): the backoff of that, after it.
    pub(super) early: Option<Backoff>,
    /// Who waits for its end.
    pub(super) askers: Vec<Asker>,
}

impl Due {
    /// Has an operator asked for it, for whatever reason it is due?
    fn asked(&self) -> bool {
        matches!(self.reason, Reason::Asked(_)) || !self.askers.is_empty()
    }

    /// The same without those who wait, if there is a reason beside these.
    pub(super) fn itself(self, after: Time) -> Option<Due> {
        let own = !matches!(self.reason, Reason::Asked(_));
        own.then_some(Due {
            program: None,
            within: None,
            askers: Vec::new(),
            after,
            ..self
        })
    }
}

impl Cluster {
    /// That of the swap under way, and all that wait for their turn.
    fn dues(&self) -> impl Iterator<Item = &Due> {
        self.swap.iter().map(|s| &s.due).chain(&self.due)
    }

    fn dues_mut(&mut self) -> impl Iterator<Item = &mut Due> {
        let now = self.swap.iter_mut().map(|s| &mut s.due);
        now.chain(&mut self.due)
    }

    /// Is somebody to run it?
    pub(super) fn is_to_be_run(&self, program: Program) -> bool {
        self.dues().any(|d| d.program == Some(program))
    }

    /// That client has gone.
    pub(super) fn restarter_gone(&mut self, asker: Asker) {
        let dues = self.dues_mut();
        dues.for_each(|d| d.askers.retain(|a| *a != asker));
    }

    /// How many clients wait for it.
    pub(super) fn restarters(&self) -> usize {
        self.dues().map(|d| d.askers.len()).sum()
    }

    /// It is to be replaced from now on; unless it is not ready, or that was known before.
    pub(super) fn is_due(&mut self, worker: WorkerId, reason: Reason, now: Time) {
        if self.is_due_from(worker, reason, now, None) {
            return;
        }
        // What waited because it came too early has a better reason now.
        let waits = |d: &&mut Due| d.worker == worker && d.early.is_some();
        if let Some(due) = self.due.iter_mut().find(waits) {
            (due.reason, due.after, due.early) = (reason, now, None);
        }
    }

    /// The same, not before then, and perhaps too early. False: it is due already, or cannot be.
    pub(super) fn is_due_from(
        &mut self,
        worker: WorkerId,
        reason: Reason,
        after: Time,
        early: Option<Backoff>,
    ) -> bool {
        let ready = self.fleet.get(worker).filter(|w| w.is_ready());
        let Some(who) = ready.map(Worker::who) else {
            return false;
        };
        if let Some(due) = self.dues_mut().find(|d| d.worker == worker) {
            // What an operator has asked for is tried once, this until it is done.
            if let Reason::Asked(_) = due.reason {
                due.reason = reason;
            }
            return false;
        }
        let serves = self.phase == Phase::Serving;
        if serves {
            self.due.push(Due {
                worker,
                who,
                reason,
                program: None,
                within: None,
                after,
                early,
                askers: Vec::new(),
            });
        }
        serves
    }

    /// A client asks for it.
    pub(super) fn restart_asked(&mut self, wish: Restart, now: Time, out: &mut Out) {
        let ready = self.ready_count();
        let not = |hitch| Outcome::NotRestarted { hitch, ready };
        let coming = self.swap.as_ref().map(|s| s.due.worker);
        let found = match (self.phase, self.one_meant(wish.target)) {
            (Phase::Stopping { .. } | Phase::Done(_), _) => Err(not(Hitch::Stopping)),
            (Phase::Serving, Err(outcome)) => Err(outcome),
            (Phase::Serving, Ok(_)) if self.rollout.is_some() => Err(not(Hitch::Replacing)),
            (Phase::Serving, Ok(_)) if wish.wait && self.waiting() >= MAX_ASKERS => {
                Err(Outcome::TooMany)
            }
            (Phase::Serving, Ok(found)) => Ok(found),
        };
        let asker = wish.asker;
        let (worker, who) = match found {
            Ok(found) => found,
            Err(outcome) => return out.push(Action::Answer { asker, outcome }),
        };
        let of = self.dues_mut().find(|d| d.worker == worker);
        if wish.program.is_some() && of.is_some_and(|d| d.asked() || coming == Some(worker)) {
            let outcome = not(Hitch::UnderWay("another restart of it"));
            return out.push(Action::Answer { asker, outcome });
        }
        let askers = match wish.wait {
            true => vec![asker],
            false => Vec::new(),
        };
        if let Some(due) = self.dues_mut().find(|d| d.worker == worker) {
            // It waits for no backoff any more, nor is it a failure.
            due.early = None;
            due.askers.extend(askers);
            due.program = wish.program.or(due.program);
            due.within = wish.within.or(due.within);
            due.after = due.after.min(now);
        } else {
            self.due.push(Due {
                worker,
                who,
                reason: Reason::Asked(wish.by),
                program: wish.program,
                within: wish.within,
                after: now,
                early: None,
                askers,
            });
        }
        if !wish.wait {
            let outcome = Outcome::Restarting { who };
            out.push(Action::Answer { asker, outcome });
        }
    }

    /// The one that has its place and can be replaced.
    fn one_meant(&self, target: Target) -> Result<(WorkerId, Who), Outcome> {
        let slots = self.slots.bound();
        let all = self
            .meant(target)
            .ok_or(Outcome::Unknown { target, slots })?;
        let stays = |w: &Worker| match w.state {
            State::Starting { .. } | State::Ready { .. } => {
                self.place_of(w.id) == Place::Current(w.slot) && self.is_wanted(w.slot)
            }
            State::Spawning
            | State::Retiring { .. }
            | State::Draining { .. }
            | State::Killed { .. }
            | State::Remnant => false,
        };
        let mut stay = all
            .iter()
            .filter(|(id, _)| self.fleet.get(*id).is_some_and(stays));
        match (stay.next(), all.first()) {
            (Some(one), _) => Ok(*one),
            (None, None) => Err(Outcome::Nobody { target }),
            (None, Some((_, who))) => Err(Outcome::NotRestarted {
                hitch: Hitch::Leaves(*who),
                ready: self.ready_count(),
            }),
        }
    }

    /// Whose turn it is, if there is one; else there is a date for the first of them.
    pub(super) fn next_due(&mut self, now: Time) -> Option<Due> {
        let turn = |d: &Due| d.after <= now;
        let asked = self.due.iter().position(|d| turn(d) && d.asked());
        match asked.or_else(|| self.due.iter().position(turn)) {
            Some(next) => Some(self.due.remove(next)),
            None => {
                let dates = self.due.iter().map(|d| d.after);
                let at = dates.filter(|at| *at != NEVER).min()?;
                self.deadlines.set(Why::Swap, at);
                None
            }
        }
    }

    /// A reload begins.
    pub(super) fn due_overtaken(&mut self, hitch: &Hitch, out: &mut Out) {
        self.deadlines.stop(Why::Swap);
        for due in std::mem::take(&mut self.due) {
            self.not_restarted(&due.askers, hitch, out);
            let after = due.after;
            self.due.extend(due.itself(after));
        }
    }

    /// Those that were put off until an operator asks for workers have their turn.
    pub(super) fn due_again(&mut self, now: Time) {
        for due in self.due.iter_mut().filter(|d| d.after == NEVER) {
            due.after = now;
        }
    }

    /// Those that have gone, or are on their way out, are not waited for.
    pub(super) fn forget_gone(&mut self, out: &mut Out) {
        let stays = |d: &Due| {
            let state = self.fleet.get(d.worker).map(|w| w.state);
            match state {
                Some(State::Ready { .. }) => true,
                // Only operators replace one that is not ready.
                Some(State::Starting { .. }) => d.asked(),
                Some(
                    State::Spawning
                    | State::Retiring { .. }
                    | State::Draining { .. }
                    | State::Killed { .. }
                    | State::Remnant,
                )
                | None => false,
            }
        };
        let all = std::mem::take(&mut self.due).into_iter();
        let (stay, gone): (Vec<Due>, Vec<Due>) = all.partition(stays);
        self.due = stay;
        for due in gone {
            self.not_restarted(&due.askers, &Hitch::Gone(due.who), out);
        }
    }

    /// They hear why it has not come to its end.
    pub(super) fn not_restarted(&self, askers: &[Asker], hitch: &Hitch, out: &mut Out) {
        for asker in askers {
            let outcome = Outcome::NotRestarted {
                hitch: hitch.clone(),
                ready: self.ready_count(),
            };
            let asker = *asker;
            out.push(Action::Answer { asker, outcome });
        }
    }

    /// Only one entry for each.
    pub(super) fn check_due(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        match self.dues().find(|d| !seen.insert(d.worker)) {
            Some(d) => Err(format!("I9: {:?} is due twice", d.worker)),
            None => Ok(()),
        }
    }
}
