//! How a rollout exchanges workers: which are spawned, which have their places, which go. Rules:
//!
//! 1. New before old: the successors of a batch, as many at a time as --surge allows, take their places
//!    when all of them are ready. In that turn new connections are steered to them, and then the old
//!    ones are retired, or kept (`watch`).
//! 2. Of one batch all are ready before the next begins.
//! 3. Old before new (--surge 0): one slot at a time, one that serves when all others do.

use super::action::Action;
use super::deadlines::Why;
use super::ids::{SlotNr, Time, WorkerId};
use super::notice::{Cause, Notice};
use super::policy::Drain;
use super::slot::{Place, Slot};
use super::worker::{State, Worker};
use super::{Cluster, Out};

impl Cluster {
    /// With new before old they are by the time they have their place; with old before new not yet.
    pub(super) fn replaced_are_ready(&self) -> bool {
        let mut slots = self.slots.first(self.goal());
        let ready = |s: &Slot| {
            s.current
                .and_then(|id| self.fleet.get(id))
                .is_some_and(Worker::is_ready)
        };
        self.surge() > 0 || slots.all(|s| s.rest.is_some() || ready(s))
    }

    /// Workers beyond those in slots on account of this rollout: successors, and those that made room for
    /// one and have not gone. (A successor that is not to be makes room at once, or the next batch would
    /// come in two parts, and the old ones could not be emptied together.)
    fn extra(&self, to: u32) -> usize {
        let counts = |w: &&Worker| match self.place_of(w.id) {
            Place::Successor(_) => true,
            Place::Current(_) => false,
            Place::Kept(_) => true,
            Place::None => w.made_room_for == Some(to) && !w.stuck,
        };
        self.fleet
            .iter()
            .filter(|w| w.unreaped())
            .filter(counts)
            .count()
    }

    pub(super) fn spawn_successors(&mut self, to: u32, surge: u16, now: Time, out: &mut Out) {
        if self.deadlines.get(Why::Successors).is_some() {
            return;
        }
        // Of one batch all are ready before the next begins.
        let mut room = usize::from(surge).saturating_sub(self.extra(to));
        if let Some(n) = self.canaries_first() {
            let there = self.slots.iter().filter(|s| s.successor.is_some());
            room = room.min(n.saturating_sub(there.count()));
        }
        let goal: Vec<SlotNr> = self.goal_slots().collect();
        for slot_nr in goal {
            if room == 0 {
                return;
            }
            let Some(slot) = self.slots.of(slot_nr) else {
                continue;
            };
            if slot.generation == to || slot.successor.is_some() {
                continue;
            }
            room -= 1;
            let worker = self.enlist(slot_nr, to, self.program_in(slot_nr, to), now, out);
            if let Some(slot) = self.slots.of_mut(slot_nr) {
                slot.successor = Some(worker);
            }
        }
    }

    /// All successors are ready: they take their places, are steered to, and then the old ones go.
    pub(super) fn promote(&mut self, to: u32, now: Time, out: &mut Out) {
        let successors: Vec<(SlotNr, WorkerId)> = self
            .slot_numbers()
            .filter_map(|nr| Some((nr, self.slots.of(nr)?.successor?)))
            .collect();
        let ready = |id: &WorkerId| self.fleet.get(*id).is_some_and(|w| w.is_ready());
        if successors.is_empty() || !successors.iter().all(|(_, id)| ready(id)) {
            return;
        }
        let mut old = Vec::new();
        for (nr, id) in successors {
            old.extend(self.takes_place(nr, id).map(|old| (nr, old)));
        }
        let watched = self.all_watched_by().is_none_or(|by| by <= now);
        if self.all_replaced(to) && watched {
            self.arrive(to, now, out);
        }
        // Who is steered away from a worker is steered away before that is looked at.
        self.steer(out);
        if !old.is_empty() && self.all_replaced(to) && self.policy.drain != Drain::None {
            out.push(Action::Note(Notice::Exchanged {
                generation: to,
                old: old.len(),
                drain: self.policy.drain_timeout,
            }));
        }
        self.keep_or_retire(old, to, now, out);
        self.say_if_full(now, out);
        self.resize_progress(out);
    }

    /// With old before new: of which generation whoever comes into an empty slot is.
    pub(super) fn in_place_to(&self) -> Option<u32> {
        let in_place = self.surge() == 0;
        self.rollout.as_ref().filter(|_| in_place).map(|r| r.to)
    }

    /// Old before new, one slot at a time: one that serves when all others do.
    pub(super) fn replace_in_place(&mut self, to: u32, now: Time, out: &mut Out) {
        let wanted = || self.goal_slots();
        let ready = |nr: &SlotNr| {
            let current = self.slots.of(*nr)?.current;
            current
                .and_then(|id| self.fleet.get(id))
                .filter(|w| w.is_ready())
        };
        let old = |nr: &SlotNr| ready(nr).is_some_and(|w| w.generation != to);
        let rests = |nr: &SlotNr| {
            let rests = |s: &Slot| s.rest.is_some() && s.generation == to;
            self.slots.of(*nr).is_some_and(rests)
        };
        let idle = wanted().find(|nr| ready(nr).is_none() && !rests(nr));
        // The first of them are watched before the next one has its turn.
        let watched = self.in_place_watch();
        if watched.is_some_and(|by| by > now) {
            return;
        }
        let Some(nr) = idle.or_else(|| wanted().find(old)) else {
            return;
        };
        let back = self.goes_back();
        let Some(slot) = self.slots.of_mut(nr) else {
            return;
        };
        match slot.current.and_then(|id| self.fleet.get(id)) {
            // The new one is on its way in, or the old one on its way out.
            Some(w) if w.generation == to || w.is_leaving() => {}
            // Its turn is when it is there.
            Some(w) if w.state == State::Spawning => {}
            Some(w) => {
                slot.generation = to;
                slot.emptied = true;
                let id = w.id;
                self.retire(id, Cause::Restart, now, out);
                // Was it the last that served a port that was learnt? (What comes back has its lanes.)
                let alone = |s: &Slot| s.current.is_none_or(|c| c == id);
                if !back && self.slots.iter().all(alone) {
                    self.inherit(to, out);
                }
                self.steer(out);
            }
            None => {
                // It waits on account of the old code.
                if slot.generation != to && !back {
                    self.deadlines.stop(Why::Respawn(nr));
                }
                self.spawn_due(now, out);
            }
        }
    }
}
