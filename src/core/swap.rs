//! The replacing of one worker by another one, of the same code or not, while the others go on. Rules:
//!
//! 1. New before old (I4), whatever --surge says: a successor is spawned beside it, and takes its place
//!    when it is ready. In that turn new connections are steered to it, and then the old one goes.
//! 2. One at a time, whatever the reasons (I7): the next one (`due`) begins when the old one has gone, or
//!    cannot be ended.
//! 3. A successor that ends, is not ready in time or cannot be forked has changed nothing: the old one
//!    goes on.
//!    One that ends when it has the place is no matter of the swap any more: its slot is respawned (it is
//!    not watched as those of a rollout are). But who waits for the old one to go hears that.
//! 4. If the old one ends meanwhile, its successor has the place at once, ready or not: it is what a
//!    respawn would be, only further. (What waits in a lane of the old one's own goes with it.)
//! 5. Its slot may get another program with that: it has it from the moment in which the new one is
//!    ready, and keeps it over reloads, until an upgrade of all.
//! 6. A rollout calls it off, and while there is one nobody is swapped; so does the end, and a resize that
//!    takes the slot away.

use super::action::Action;
use super::deadlines::Why;
use super::due::Due;
use super::event::By;
use super::ids::{SlotNr, Time, WorkerId};
use super::notice::{Cause, Notice, Who};
use super::outcome::{Hitch, Outcome};
use super::phase::Phase;
use super::recycle::Reason;
use super::respawn::FORK_AGAIN;
use super::slot::Place;
use super::worker::Worker;
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How far a swap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// The new one is on its way in.
    Coming,
    /// The old one has ended meanwhile: the new one has the place, and is not ready yet.
    Alone,
    /// The new one is ready and has the place; the old one is on its way out.
    Leaving,
}

/// One that is under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Swap {
    slot: SlotNr,
    old: (WorkerId, Who),
    new: WorkerId,
    /// As it was when it was ready.
    new_who: Option<Who>,
    stage: Stage,
    /// Who it was for, and who waits for its end.
    pub(super) due: Due,
    since: Time,
}

impl Cluster {
    /// Why this one is forked, if it is to replace one.
    pub(super) fn swapped_in(&self, id: WorkerId) -> Option<Reason> {
        let now = self.swap.as_ref().filter(|s| s.new == id);
        now.map(|s| s.due.reason)
    }

    /// Is that no failure of the one that it is to replace?
    pub(super) fn swapped_in_time(&self, id: WorkerId) -> bool {
        let now = self.swap.as_ref().filter(|s| s.new == id);
        now.is_some_and(|s| s.due.early.is_none())
    }

    /// Compares what there is with what is wanted, and goes on from there.
    pub(super) fn swap_progress(&mut self, now: Time, out: &mut Out) {
        if self.phase != Phase::Serving {
            return;
        }
        self.forget_gone(out);
        let stage = self.swap.as_ref().map(|s| (s.stage, s.new, s.old.0));
        let old_who = self.swap.as_ref().map(|s| s.old.1);
        let ready = |id| self.fleet.get(id).is_some_and(Worker::is_ready);
        let over = |id| {
            let w = self.fleet.get(id);
            w.is_none_or(|w| !w.unreaped() || w.stuck)
        };
        match stage {
            Some((Stage::Coming, new, _)) if ready(new) => self.take_place(now, out),
            Some((Stage::Alone, new, _)) if ready(new) => self.swap_done(now, out),
            // (A failure of its start is told by itself.)
            Some((Stage::Alone, new, _)) if over(new) => {
                let who = self.fleet.who(new).or(old_who);
                let hitch = who.map_or(Hitch::Stopping, Hitch::Stuck);
                self.swap_over(&hitch, out);
            }
            Some((Stage::Leaving, _, old)) if over(old) => self.swap_done(now, out),
            Some((Stage::Coming | Stage::Alone | Stage::Leaving, ..)) | None => {}
        }
        self.deadlines.stop(Why::Swap);
        if self.swap.is_none() && self.rollout.is_none() {
            self.swap_next(now, out);
        }
    }

    /// The next one begins, or has its date.
    fn swap_next(&mut self, now: Time, out: &mut Out) {
        let due = loop {
            let Some(due) = self.next_due(now) else {
                return;
            };
            // (One that is put off has a date, and is not the next again.)
            if let Some(due) = self.within_limits(due, now, out) {
                break due;
            }
        };
        let Some(w) = self.fleet.get(due.worker) else {
            return;
        };
        let (slot, who) = (w.slot, w.who());
        let generation = w.generation;
        let why = due.reason;
        let failures = due.early.map(|backoff| backoff.failures);
        out.push(Action::Note(Notice::Recycling { who, why, failures }));
        let program = due.program;
        let program = program.unwrap_or_else(|| self.program_in(slot, generation));
        let new = self.enlist(slot, generation, program, now, out);
        if let Some(w) = self.fleet.get_mut(new) {
            w.ready_limit = due.within.or(w.ready_limit);
        }
        if let Some(slot) = self.slots.of_mut(slot) {
            slot.successor = Some(new);
        }
        self.swap = Some(Swap {
            slot,
            old: (due.worker, who),
            new,
            new_who: None,
            stage: Stage::Coming,
            due,
            since: now,
        });
    }

    /// It is ready: it takes its place, is steered to, and then the old one goes.
    fn take_place(&mut self, now: Time, out: &mut Out) {
        let Some(s) = &mut self.swap else {
            return;
        };
        s.stage = Stage::Leaving;
        s.new_who = self.fleet.who(s.new);
        let (nr, new, cause) = (s.slot, s.new, s.due.reason.cause());
        let early = s.due.early;
        let old = self.takes_place(nr, new);
        if let (Some(backoff), Some(slot)) = (early, self.slots.of_mut(nr)) {
            // As long as it goes on so that is no new beginning.
            slot.backoff = backoff;
        }
        let generation = self.fleet.get(new).map(|w| w.generation);
        // Who is steered away from a worker is steered away before that is looked at.
        self.steer(out);
        if let Some(old) = old {
            if let Some(w) = self.fleet.get_mut(old) {
                w.made_room_for = generation;
            }
            self.retire(old, cause, now, out);
        }
        self.suspect_unserved(now);
        self.say_if_full(now, out);
        self.resize_progress(out);
    }

    /// The slot has lost its worker, for which a successor is on its way: that has the place now.
    pub(super) fn successor_steps_in(
        &mut self,
        nr: SlotNr,
        cause: Cause,
        ready_for: Option<Duration>,
    ) -> bool {
        if self.phase != Phase::Serving || !self.is_wanted(nr) {
            return false;
        }
        let coming = |s: &&mut Swap| s.stage == Stage::Coming && s.slot == nr;
        let Some(s) = self.swap.as_mut().filter(coming) else {
            return false;
        };
        s.stage = Stage::Alone;
        let new = s.new;
        let Some(seat) = self.fleet.get(new).map(|w| w.seat) else {
            return false;
        };
        let Some(slot) = self.slots.of_mut(nr) else {
            return false;
        };
        (slot.current, slot.successor) = (Some(new), None);
        slot.seat = Some(seat);
        // It has failed all the same: if the next one does, too, that is the second time.
        let (policy, rng) = (&self.policy, &mut self.rng);
        match cause {
            Cause::Recycle => slot.backoff = Default::default(),
            Cause::Failure
            | Cause::Finished
            | Cause::Shutdown
            | Cause::Resize
            | Cause::Restart
            | Cause::Kill
            | Cause::NotReady
            | Cause::Hang
            | Cause::NotStarted
            | Cause::Oom(_) => drop(slot.backoff.after_death(ready_for, policy, rng)),
        }
        self.full = false;
        true
    }

    /// The successor is no more, or there was none: the old one goes on.
    pub(super) fn swap_failed(&mut self, nr: SlotNr, hitch: Hitch, now: Time, out: &mut Out) {
        let coming = |s: &mut Swap| s.stage == Stage::Coming && s.slot == nr;
        let Some(s) = self.swap.take_if(coming) else {
            return;
        };
        let due = s.due;
        self.not_restarted(&due.askers, &hitch, out);
        let again = match due.reason {
            Reason::Asked(_) => None,
            Reason::Age { .. }
            | Reason::Rss { .. }
            | Reason::Connections { .. }
            | Reason::Wish(_) => {
                let slot = self.slots.get_mut(nr.index());
                let (policy, rng) = (&self.policy, &mut self.rng);
                let delay = slot.map(|s| s.swaps.after_death(None, policy, rng));
                Some(delay.unwrap_or_default().max(FORK_AGAIN))
            }
        };
        out.push(Action::Note(Notice::NotRecycled {
            who: s.old.1,
            hitch,
            again,
        }));
        let due = again.and_then(|delay| due.itself(now + delay));
        self.due.extend(due);
    }

    /// The one that has the place alone has failed before it was ready: its slot goes on by itself.
    pub(super) fn swap_broken(
        &mut self,
        id: WorkerId,
        hitch: impl FnOnce() -> Hitch,
        out: &mut Out,
    ) {
        let alone = |s: &&Swap| s.stage == Stage::Alone && s.new == id;
        if self.swap.as_ref().filter(alone).is_some() {
            self.swap_over(&hitch(), out);
        }
    }

    /// The new one has the place, and has ended before the old one has gone: whoever waits hears that. The
    /// slot goes on as it does after any death.
    pub(super) fn swap_in_vain(
        &mut self,
        id: WorkerId,
        hitch: impl FnOnce() -> Hitch,
        out: &mut Out,
    ) {
        let leaving = |s: &&mut Swap| s.stage == Stage::Leaving && s.new == id;
        let now = self.swap.as_mut().filter(leaving);
        let askers = now.map(|s| std::mem::take(&mut s.due.askers));
        if let Some(askers) = askers.filter(|a| !a.is_empty()) {
            self.not_restarted(&askers, &hitch(), out);
        }
    }

    /// The new one has the place, and the old one has gone.
    fn swap_done(&mut self, now: Time, out: &mut Out) {
        let Some(s) = self.swap.take() else {
            return;
        };
        // (Its slot may have gone meanwhile.)
        if self.place_of(s.new) == Place::Current(s.slot) {
            self.runs_now(s.slot, s.new);
        }
        let new = s.new_who.or(self.fleet.who(s.new)).unwrap_or(Who {
            slot: s.slot,
            pid: None,
        });
        for asker in s.due.askers {
            let outcome = Outcome::Restarted {
                old: s.old.1,
                new,
                took: now - s.since,
            };
            out.push(Action::Answer { asker, outcome });
        }
    }

    /// It is over without having reached its end.
    fn swap_over(&mut self, hitch: &Hitch, out: &mut Out) {
        if let Some(s) = self.swap.take() {
            self.not_restarted(&s.due.askers, hitch, out);
        }
    }

    /// It is called off, if it can be still: the successor goes, and who was due is so again.
    fn drop_swap(&mut self, hitch: &Hitch, now: Time, out: &mut Out) {
        match self.swap.as_ref().map(|s| s.stage) {
            None => {}
            // What is left of it is only for the old one to go.
            Some(Stage::Leaving) => self.swap_done(now, out),
            Some(Stage::Alone) => self.swap_over(hitch, out),
            Some(Stage::Coming) => {
                let Some(s) = self.swap.take() else {
                    return;
                };
                let slot = self.slots.get_mut(usize::from(s.slot.0));
                if let Some(new) = slot.and_then(|slot| slot.successor.take()) {
                    self.retire(new, s.due.reason.cause(), now, out);
                }
                self.not_restarted(&s.due.askers, hitch, out);
                let hitch = hitch.clone();
                let (who, again) = (s.old.1, None);
                out.push(Action::Note(Notice::NotRecycled { who, hitch, again }));
                self.due.extend(s.due.itself(now));
            }
        }
    }

    /// A reload begins.
    pub(super) fn call_off_swap(
        &mut self,
        why: &'static str,
        by: Option<By>,
        now: Time,
        out: &mut Out,
    ) {
        let hitch = Hitch::Overtaken { why, by };
        self.drop_swap(&hitch, now, out);
        self.due_overtaken(&hitch, out);
    }

    /// There are to be so many slots: the one that is swapped may not be one of them.
    pub(super) fn swap_unwanted(
        &mut self,
        to: u16,
        why: &'static str,
        by: Option<By>,
        out: &mut Out,
    ) {
        let hitch = Hitch::Superseded { to, why, by };
        let slots = &self.slots;
        let closed = |nr: SlotNr| slots.get(nr.index()).is_none_or(|s| s.closed);
        let goes = |s: &mut Swap| closed(s.slot) && s.stage != Stage::Leaving;
        if let Some(s) = self.swap.take_if(goes) {
            self.not_restarted(&s.due.askers, &hitch, out);
        }
    }

    /// The cluster stops: nobody is replaced any more.
    pub(super) fn end_swaps(&mut self, out: &mut Out) {
        for why in [Why::Swap, Why::Weigh] {
            self.deadlines.stop(why);
        }
        let now = self.swap.take().map(|s| s.due);
        let due = std::mem::take(&mut self.due);
        for due in now.into_iter().chain(due) {
            self.not_restarted(&due.askers, &Hitch::Stopping, out);
        }
    }

    /// A successor is that of a rollout or of the one swap there is; only workers that may stay are due.
    pub(super) fn check_swap(&self) -> Result<(), String> {
        let coming = self.swap.as_ref();
        let coming = coming.filter(|s| s.stage == Stage::Coming).map(|s| s.new);
        let of = self.slots.iter().filter_map(|s| s.successor);
        let mut stray = of.filter(|id| Some(*id) != coming);
        if self.phase == Phase::Serving && self.rollout.is_none() {
            if let Some(id) = stray.next() {
                return Err(format!("I7: {id:?} is to replace nobody"));
            }
            if let Some(id) = coming.filter(|id| !matches!(self.place_of(*id), Place::Successor(_)))
            {
                return Err(format!("I7: {id:?} of a swap has no slot"));
            }
        }
        if coming.is_some() && self.rollout.is_some() {
            return Err("I7: a swap beside a rollout".into());
        }
        Ok(())
    }
}
