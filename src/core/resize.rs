//! How many slots there are to be. Rules:
//!
//! 1. What is wanted is one number, so many slots are open, and what there is is compared with that
//!    (I7): an open slot has a worker or a date for one; a closed one is being emptied, or is not there.
//!    Mostly the closed ones are above all open ones; one that was shut down (`shutdown`) leaves a hole.
//! 2. Growing opens the lowest closed slots and spawns at once. Shrinking closes the highest open ones
//!    and empties them: their workers are asked to stop,
//!    and killed at the stop timeout. A slot goes when its worker is reaped, an empty one at once.
//! 3. A slot that is wanted again while its worker goes begins anew when that has gone.
//! 4. Who asked hears once: that all wanted slots have been ready and nothing is left above them; or
//!    of the first failure of a slot that has never been ready; or of what came between.
//! 5. What such a worker leaves in its group had the stop signal by then (`worker`, rule 4), and is
//!    killed when the worker itself would have been: nothing serves on in a slot that is not there.

use super::action::{Action, Whom};
use super::deadlines::Why;
use super::event::{By, Size};
use super::ids::{Asker, Program, SlotNr, Time, WorkerId};
use super::notice::{Cause, Notice};
use super::outcome::{Hitch, Outcome};
use super::phase::{MAX_ASKERS, Phase};
use super::policy::MAX_WORKERS;
use super::slot::{Place, Slot};
use super::worker::State;
use super::{Cluster, Out};

impl Size {
    /// Of so many; `None` if there cannot be as many as that makes.
    fn of(self, wanted: u16) -> Option<u16> {
        let n = match self {
            Size::To(n) => Some(n),
            Size::More(n) => wanted.checked_add(n),
            Size::Fewer(n) => wanted.checked_sub(n),
        };
        n.filter(|n| (1..=MAX_WORKERS).contains(n))
    }
}

impl Cluster {
    /// How many slots there are to be.
    pub fn wanted(&self) -> u16 {
        self.wanted
    }

    /// All their numbers are below that; there may be gaps (`shutdown`).
    pub fn bound(&self) -> u16 {
        self.slots.bound()
    }

    /// Is there no room for so many more? Fewer there can always be.
    fn is_too_many(&self, to: u16) -> bool {
        to > self.wanted && to > self.policy.most
    }

    /// Is it one of those that there are to be?
    pub(super) fn is_wanted(&self, nr: SlotNr) -> bool {
        self.slots.get(nr.index()).is_some_and(|s| !s.closed)
    }

    /// Is this worker, which was asked for, still to be forked?
    pub fn wants(&self, id: WorkerId) -> bool {
        let nr = match self.place_of(id) {
            Place::Current(nr) | Place::Successor(nr) => nr,
            Place::Kept(_) | Place::None => return false,
        };
        self.phase == Phase::Serving && self.is_wanted(nr)
    }

    /// A client asks for another number.
    pub(super) fn resize_asked(
        &mut self,
        asker: Asker,
        asked: Size,
        by: By,
        wait: bool,
        now: Time,
        out: &mut Out,
    ) {
        let at_once = match (self.phase, asked.of(self.wanted)) {
            (Phase::Stopping { .. } | Phase::Done(_), _) => Some(Outcome::NotResized {
                workers: self.wanted,
                hitch: Hitch::Stopping,
            }),
            (Phase::Serving, None) => Some(Outcome::OutOfBounds {
                workers: self.wanted,
                asked,
            }),
            (Phase::Serving, Some(to)) if self.is_too_many(to) => Some(Outcome::NoRoom {
                workers: self.wanted,
                asked: to,
                most: self.policy.most,
            }),
            (Phase::Serving, Some(_)) if wait && self.waiting() >= MAX_ASKERS => {
                Some(Outcome::TooMany)
            }
            (Phase::Serving, Some(to)) => {
                self.size_is_asked(now);
                self.resize(to, "asked by a client", Some(by), now, out);
                let workers = to;
                (!wait).then_some(Outcome::Resizing { workers })
            }
        };
        match at_once {
            Some(outcome) => out.push(Action::Answer { asker, outcome }),
            None => {
                self.resizers.push(asker);
                self.resize_progress(out);
            }
        }
    }

    /// A signal asks for another number.
    pub(super) fn resize_by_signal(
        &mut self,
        by: Size,
        why: &'static str,
        now: Time,
        out: &mut Out,
    ) {
        match (self.phase, by.of(self.wanted)) {
            (Phase::Serving, Some(to)) if self.is_too_many(to) => {
                out.push(Action::Note(Notice::NoRoom {
                    why,
                    asked: to,
                    most: self.policy.most,
                }));
            }
            (Phase::Serving, Some(to)) => {
                self.size_is_asked(now);
                self.resize(to, why, None, now, out);
            }
            (Phase::Serving, None) => out.push(Action::Note(Notice::AtBound {
                why,
                workers: self.wanted,
            })),
            (Phase::Stopping { .. } | Phase::Done(_), _) => {}
        }
    }

    pub(super) fn resize(
        &mut self,
        to: u16,
        why: &'static str,
        by: Option<By>,
        now: Time,
        out: &mut Out,
    ) {
        if to != self.wanted {
            self.end_starting(Hitch::Superseded { to, why, by }, out);
        }
        self.resize_with(to, Program::default(), why, by, now, out);
    }

    /// That slot is to go, and no other.
    pub(super) fn close(
        &mut self,
        nr: SlotNr,
        why: &'static str,
        by: Option<By>,
        now: Time,
        out: &mut Out,
    ) {
        if self.is_wanted(nr) {
            let to = self.wanted.saturating_sub(1);
            self.begin_size(to, why, by, out);
            self.shrink(&[nr], now, out);
            self.end_size(to, why, by, out);
        }
    }

    /// Slots that are added run that.
    pub(super) fn resize_with(
        &mut self,
        to: u16,
        program: Program,
        why: &'static str,
        by: Option<By>,
        now: Time,
        out: &mut Out,
    ) {
        let from = self.wanted;
        if to == from {
            return;
        }
        self.begin_size(to, why, by, out);
        match to > from {
            true => self.grow(to - from, program, now, out),
            false => {
                let mut open: Vec<SlotNr> = self.open_slots().collect();
                let highest = open.split_off(usize::from(to).min(open.len()));
                self.shrink(&highest, now, out);
            }
        }
        self.end_size(to, why, by, out);
    }

    fn begin_size(&mut self, to: u16, why: &'static str, by: Option<By>, out: &mut Out) {
        let from = std::mem::replace(&mut self.wanted, to);
        self.resizing = true;
        self.answer_resizers(&Hitch::Superseded { to, why, by }, out);
        out.push(Action::Note(Notice::Resizing { from, to, why, by }));
    }

    fn end_size(&mut self, to: u16, why: &'static str, by: Option<By>, out: &mut Out) {
        self.swap_unwanted(to, why, by, out);
        self.resize_progress(out);
    }

    /// Those that there are to be, in their order.
    pub(super) fn open_slots(&self) -> impl Iterator<Item = SlotNr> + '_ {
        self.slot_numbers().filter(|nr| self.is_wanted(*nr))
    }

    fn grow(&mut self, more: u16, program: Program, now: Time, out: &mut Out) {
        self.full = false;
        let generation = self.generation;
        let closed = self.slots.iter().filter(|s| s.closed).count();
        let behind = usize::from(more).saturating_sub(closed);
        let len = self.slots.len() + behind;
        let anew = || Slot {
            closed: true,
            ..Slot::added(generation)
        };
        self.slots.resize_with(len, anew);
        let new = self.slots.iter_mut().filter(|s| s.closed);
        for slot in new.take(usize::from(more)) {
            match slot.current {
                None => {
                    *slot = Slot {
                        seat: slot.seat,
                        program,
                        ..Slot::added(generation)
                    }
                }
                // Its worker is on its way out, or not yet on its way in.
                Some(id) => {
                    (slot.closed, slot.proven, slot.program) = (false, false, program);
                    let stays = self
                        .fleet
                        .get_mut(id)
                        .filter(|w| w.state == State::Spawning);
                    let stays = stays.map(|w| {
                        // It goes another time, if at all, and with the time of all others.
                        w.own_time = None;
                        &*w
                    });
                    // (Not if it is of what ran before.)
                    slot.generation = stays.map_or(generation, |w| w.generation.max(generation));
                }
            }
        }
        if self.opened {
            self.spawn_due(now, out);
        }
    }

    /// Is its slot to have another generation by now? It was not wanted for a while.
    pub(super) fn slot_has_moved_on(&self, id: WorkerId) -> bool {
        match (self.place_of(id), self.fleet.get(id)) {
            (Place::Current(nr), Some(w)) => {
                let other = |s: &Slot| (s.generation, s.program) != (w.generation, w.program);
                self.slots.of(nr).is_some_and(other)
            }
            (Place::Current(_) | Place::Successor(_) | Place::Kept(_) | Place::None, _) => false,
        }
    }

    fn shrink(&mut self, to_close: &[SlotNr], now: Time, out: &mut Out) {
        for nr in to_close {
            self.deadlines.stop(Why::Respawn(*nr));
            let Some(slot) = self.slots.get_mut(nr.index()) else {
                continue;
            };
            slot.closed = true;
            let (successor, current) = (slot.successor.take(), slot.current);
            let kept = slot.kept.take();
            for id in successor.into_iter().chain(kept) {
                self.retire(id, Cause::Restart, now, out);
            }
            if let Some(id) = current {
                self.retire(id, Cause::Resize, now, out);
            }
        }
        self.drop_empty_slots();
        self.say_if_full(now, out);
    }

    /// Closed slots are not there when they are empty. One below another one keeps its place in the
    /// list, and nothing else.
    pub(super) fn drop_empty_slots(&mut self) {
        let gone = |s: &Slot| s.closed && s.current.is_none();
        while self.slots.last().is_some_and(gone) {
            self.slots.pop();
        }
        for slot in self.slots.iter_mut().filter(|s| gone(s)) {
            *slot = Slot {
                closed: true,
                ..Slot::default()
            };
        }
        self.trim_deaths();
    }

    /// Are there so many as are wanted, each once ready, and none beside them?
    pub(super) fn has_size(&self) -> bool {
        let seen = |s: &Slot| s.proven || s.rest.is_some();
        let mut surplus = self.slots.iter().filter(|s| s.closed);
        self.slots.open().all(seen) && surplus.all(|s| s.current.is_none())
    }

    /// Compares what there is with what is wanted; says so when it is the same.
    pub(super) fn resize_progress(&mut self, out: &mut Out) {
        if !self.resizing && self.resizers.is_empty() {
            return;
        }
        if !self.has_size() || self.phase != Phase::Serving {
            return;
        }
        let workers = self.wanted;
        if std::mem::take(&mut self.resizing) {
            out.push(Action::Note(Notice::Resized { workers }));
        }
        for asker in std::mem::take(&mut self.resizers) {
            let outcome = Outcome::Resized { workers };
            out.push(Action::Answer { asker, outcome });
        }
    }

    /// A worker of this slot has ended, or there was none, without one having ever been ready.
    pub(super) fn resize_failed(
        &mut self,
        nr: SlotNr,
        hitch: impl FnOnce() -> Hitch,
        out: &mut Out,
    ) {
        let unproven = self.slots.get(nr.index()).is_some_and(|s| !s.proven);
        if unproven && self.is_wanted(nr) && !self.resizers.is_empty() {
            self.answer_resizers(&hitch(), out);
        }
    }

    /// A worker does not even mind SIGKILL: nobody is to wait for that.
    pub(super) fn resize_stuck(&mut self, id: WorkerId, out: &mut Out) {
        let Some(who) = self.fleet.who(id) else {
            return;
        };
        // One that another has replaced, or that was to replace one, is no matter of a resize.
        if self.place_of(id) != Place::Current(who.slot) {
            return;
        }
        let slot = self.slots.get(usize::from(who.slot.0));
        if !self.is_wanted(who.slot) || slot.is_some_and(|s| !s.proven) {
            self.answer_resizers(&Hitch::Stuck(who), out);
        }
    }

    pub(super) fn answer_resizers(&mut self, hitch: &Hitch, out: &mut Out) {
        for asker in std::mem::take(&mut self.resizers) {
            let outcome = Outcome::NotResized {
                workers: self.wanted,
                hitch: hitch.clone(),
            };
            out.push(Action::Answer { asker, outcome });
        }
    }

    /// The worker has gone on account of a resize, within its time: until that is over, what it
    /// left in its group may take.
    pub(super) fn watch_rest(&mut self, id: WorkerId, until: Option<Time>) {
        let left = self.fleet.get(id).is_some_and(|w| !w.tree_gone);
        if let Some(at) = until.filter(|_| left && self.phase == Phase::Serving) {
            self.deadlines.set(Why::Kill(id), at);
        }
    }

    /// That time is over.
    pub(super) fn kill_rest(&mut self, worker: WorkerId, out: &mut Out) {
        out.push(Action::Signal {
            worker,
            signal: super::worker::SIGKILL,
            whom: Whom::Group,
        });
    }
}
