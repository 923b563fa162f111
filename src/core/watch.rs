//! Canaries, and what of a rollout can be taken back at once. Rules:
//!
//! 1. Of the first batch some go ahead (--canary K): as many are spawned first, and the rest follows when
//!    all of them have been ready for the time to watch. Meanwhile they get the part of new connections
//!    that was asked for, or none; they have no place yet.
//! 2. Who makes room while a new one that has its place has not been ready for that long keeps, unsteered,
//!    where it is: it is neither emptied nor asked to stop before the last of the new ones has been.
//! 3. A new one that ends, or hangs, while others are watched for whom old ones are kept, or in its own
//!    time, fails the rollout. Those that were kept have their
//!    places again in that same turn, and the new ones go.
//! 4. With --surge 0 nobody can be kept: the next slot has its turn when the first K have been ready so
//!    long, and one that fails in that time is replaced by one of the old code.
//! 5. What takes something back is of code that is known to run: it is not watched.

use super::deadlines::Why;
use super::ids::{PortId, SlotNr, Time, WorkerId};
use super::notice::Cause;
use super::outcome::Hitch;
use super::rollout::Rollout;
use super::table::{Deal, Key};
use super::worker::Worker;
use super::{Cluster, Out};
use std::time::Duration;

impl Rollout {
    /// How many go ahead.
    fn canaries(&self, goal: u16) -> usize {
        match self.back || self.passed {
            true => 0,
            false => usize::from(self.canaries.min(goal)),
        }
    }

    /// How long a new worker is watched; not at all without canaries.
    pub(super) fn watch(&self) -> Duration {
        match self.back || self.canaries == 0 {
            true => Duration::ZERO,
            false => self.watch,
        }
    }
}

impl Cluster {
    /// How many successors there may be before the canaries have been watched; `None`: as many as else.
    pub(super) fn canaries_first(&self) -> Option<usize> {
        let r = self.rollout.as_ref()?;
        let n = r.canaries(self.goal());
        let n = match usize::from(self.surge()) {
            0 => n,
            room => n.min(room),
        };
        (n > 0).then_some(n)
    }

    /// The canaries of a rollout, if all of them are ready.
    fn canaries(&self) -> Option<Vec<WorkerId>> {
        let n = self.canaries_first()?;
        let ids: Vec<WorkerId> = self.slots.iter().filter_map(|s| s.successor).collect();
        let ready = |id: &WorkerId| self.fleet.get(*id).is_some_and(Worker::is_ready);
        (ids.len() >= n && ids.iter().all(ready)).then_some(ids)
    }

    /// When the last of these will have been watched.
    fn watched_by(&self, ids: impl IntoIterator<Item = WorkerId>) -> Option<Time> {
        let watch = self.rollout.as_ref()?.watch();
        let since = |id| self.fleet.get(id)?.ready_since;
        let last = ids.into_iter().filter_map(since).max()?;
        Some(last + watch)
    }

    /// Have the canaries been watched? From then on nobody goes ahead any more.
    pub(super) fn pass_canaries(&mut self, now: Time) {
        let ahead = self.canaries().and_then(|ids| self.watched_by(ids));
        let by = ahead.or_else(|| self.in_place_watch());
        if by.is_some_and(|by| by <= now)
            && let Some(r) = &mut self.rollout
        {
            r.passed = true;
        }
    }

    /// When something that is watched will have been; see to it then.
    pub(super) fn set_watch(&mut self, now: Time) {
        let canaries = self.canaries().unwrap_or_default();
        let by = self.watched_by(canaries).into_iter();
        let by = by.chain(self.kept_until()).chain(self.in_place_watch());
        match by.chain(self.all_watched_by()).filter(|at| *at > now).min() {
            Some(at) => self.deadlines.set(Why::Watch, at),
            None => self.deadlines.stop(Why::Watch),
        }
    }

    /// The new ones that have their places and are ready.
    fn placed(&self) -> Vec<WorkerId> {
        let to = self.rollout.as_ref().map(|r| r.to);
        let current = self.slots.iter().filter_map(|s| self.fleet.get(s.current?));
        let new = current.filter(|w| Some(w.generation) == to && w.is_ready());
        new.map(|w| w.id).collect()
    }

    /// When the last of these will have been watched.
    pub(super) fn all_watched_by(&self) -> Option<Time> {
        self.watched_by(self.placed())
    }

    /// With old before new: until when the first new ones are watched, if that many are ready.
    pub(super) fn in_place_watch(&self) -> Option<Time> {
        self.in_place_to()?;
        let (n, new) = (self.canaries_first()?, self.placed());
        (new.len() >= n).then(|| self.watched_by(new))?
    }

    /// Those who made room: kept if there may be need of them, else they go.
    pub(super) fn keep_or_retire(
        &mut self,
        old: Vec<(SlotNr, WorkerId)>,
        to: u32,
        now: Time,
        out: &mut Out,
    ) {
        // (Those, too, for whom nobody makes room: their slots were empty.)
        let keep = self.all_watched_by().is_some_and(|by| by > now);
        for (nr, id) in old {
            if let Some(w) = self.fleet.get_mut(id) {
                w.made_room_for = Some(to);
            }
            let alive = self.fleet.get(id).is_some_and(Worker::is_ready);
            match self.slots.of_mut(nr).filter(|_| keep && alive) {
                Some(slot) => slot.kept = Some(id),
                None => self.retire(id, Cause::Restart, now, out),
            }
        }
    }

    /// Those that are kept go when all new ones have been watched.
    pub(super) fn release_kept(&mut self, now: Time, out: &mut Out) {
        if self.kept_until().is_none_or(|by| by <= now) {
            self.drop_kept(now, out);
        }
    }

    /// When the last of the new ones will have been watched, if any are kept: those for whom one is (who
    /// was before them may have ended meanwhile) and those for whom none is.
    fn kept_until(&self) -> Option<Time> {
        let kept = self.slots.iter().any(|s| s.kept.is_some());
        kept.then(|| self.all_watched_by()).flatten()
    }

    /// They go.
    pub(super) fn drop_kept(&mut self, now: Time, out: &mut Out) {
        for nr in self.slot_numbers() {
            if let Some(id) = self.slots.of_mut(nr).and_then(|s| s.kept.take()) {
                self.retire(id, Cause::Restart, now, out);
            }
        }
    }

    /// Is one kept for that slot?
    pub(super) fn keeps_for(&self, nr: SlotNr) -> bool {
        self.slots.get(nr.index()).is_some_and(|s| s.kept.is_some())
    }

    /// They have their places again; those that had them go.
    pub(super) fn restore_kept(&mut self, now: Time, out: &mut Out) {
        let (mut new, mut restored) = (Vec::new(), false);
        for nr in self.slot_numbers() {
            let generation = self.generation;
            let Some(slot) = self.slots.of_mut(nr) else {
                continue;
            };
            let Some(id) = slot.kept.take() else {
                continue;
            };
            restored = true;
            new.extend(slot.current.replace(id));
            slot.backoff = Default::default();
            (slot.rest, slot.held) = (None, None);
            slot.generation = self.fleet.get(id).map_or(generation, |w| w.generation);
            slot.seat = self.fleet.get(id).map(|w| w.seat);
            slot.program = self.fleet.get(id).map_or(slot.program, |w| w.program);
            self.deadlines.stop(Why::Respawn(nr));
            if let Some(w) = self.fleet.get_mut(id) {
                w.made_room_for = None;
            }
        }
        // Who comes goes to the old ones before the new ones are looked at.
        if restored {
            self.steer(out);
        }
        for id in new {
            self.retire(id, Cause::Restart, now, out);
        }
    }

    /// Is it a new worker in its slot that is watched still?
    pub(super) fn is_watched(&self, id: WorkerId, now: Time) -> bool {
        let Some((w, r)) = self.fleet.get(id).zip(self.rollout.as_ref()) else {
            return false;
        };
        let early = w.ready_since.is_some_and(|since| now < since + r.watch());
        // What was there before is there as long as anybody is watched: so long each new one counts.
        (early || w.ready_since.is_some() && self.kept_until().is_some_and(|by| now < by))
            && w.generation == r.to
            && !r.back
            && self.generation != r.to
    }

    /// A new worker has ended, or hangs, while it was watched: that fails the whole.
    pub(super) fn watched_failed(&mut self, nr: SlotNr, hitch: Hitch, now: Time, out: &mut Out) {
        let Some(r) = self.rollout.take() else {
            return;
        };
        let vacant = |s: &&mut super::slot::Slot| s.current.is_none();
        if let Some(slot) = self.slots.get_mut(nr.index()).filter(vacant) {
            slot.generation = self.generation;
        }
        self.rollout_failed(r, hitch, now, out);
    }

    /// What canaries get of a port's new connections.
    pub(super) fn canary_part(&self, port: PortId) -> Option<(u8, Deal)> {
        let r = self.rollout.as_ref()?;
        let share = self.policy.canary.share;
        let none = r.canaries(self.goal()) == 0;
        if share == 0 || none {
            return None;
        }
        let ids = self.slots.iter().filter_map(|s| s.successor);
        let ready = ids
            .filter_map(|id| self.fleet.get(id))
            .filter(|w| w.is_ready());
        let lanes: Vec<_> = ready.filter_map(|w| self.lane_of(port, w)).collect();
        let deal = match self.policy.balance {
            // One client meets one of them.
            super::Balance::Ip => {
                let lanes: Vec<_> = lanes.iter().copied().cycle().take(64).collect();
                Deal::Buckets(Key::Client, lanes)
            }
            super::Balance::Shared | super::Balance::Hash | super::Balance::Cpu => {
                let mut shares: Vec<_> = lanes.into_iter().map(|l| (l, 1)).collect();
                shares.dedup();
                Deal::Shares(shares)
            }
        };
        (!deal.is_empty()).then_some((share, deal))
    }
}
