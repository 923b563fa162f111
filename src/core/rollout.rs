//! The replacing of all workers by new ones: a reload. One transaction with one ending (I5). Rules:
//!
//! 1. New before old (I4): a slot's successor is spawned beside its worker, as many at a time as
//!    --surge allows, and takes the place when all of that batch are ready. In that turn new
//!    connections are steered to them, and then the old ones are retired.
//! 2. A successor that ends, or is not ready in time, fails the whole: the others of its batch go, and
//!    nothing has changed for the old ones. Slots that had been replaced before are taken back, by a
//!    rollout to where they came from, whose successors are tried again until they are ready.
//! 3. With --surge 0 a slot's worker is retired first, and its slot is spawned anew.
//! 4. Another reload takes the place of one under way, which is over then. Successors that are not in
//!    place go; where all were, it has reached its end.
//! 5. It is over, for who waits, when all slots have new workers and the old ones have gone. Old ones of
//!    an earlier one go in their own time: nobody waits for these, nor do they count as its surge.
//! 6. Another number of workers that was read again counts when the new ones have their places: fewer go
//!    with the old ones, whose lane can be emptied then; more are of the new code at once.
//! 7. What there is is compared with what is wanted, after each event (I7).

use super::action::Action;
use super::deadlines::Why;
use super::event::{By, Terms};
use super::ids::{Asker, Program, SlotNr, Time, WorkerId};
use super::notice::{Cause, Notice};
use super::outcome::{Hitch, Outcome};
use super::phase::{MAX_ASKERS, Phase};
use super::policy::{Drain, Policy};
use super::respawn::FORK_AGAIN;
use super::slot::{Place, Slot};
use super::worker::{State, Worker};
use super::{Cluster, Out};
use std::collections::BTreeMap;
use std::time::Duration;

/// Generations with workers at one time (I9): of more the oldest is not drained any longer.
pub const MAX_GENERATIONS: usize = 8;

/// One that is under way.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// The generation that all slots are to be of.
    pub to: u32,
    /// Since when.
    pub since: Time,
    /// Does it take back what another one had done?
    pub back: bool,
    /// What was wanted before: wanted again if it fails.
    policy: Box<Policy>,
    /// How many slots there are to be when it serves, if that is to change, and who wants that.
    workers: Option<u16>,
    by: Option<By>,
    /// How many go ahead, and for how long each new one is watched (`watch`).
    pub(super) canaries: u16,
    pub(super) watch: Duration,
    /// Have they been watched?
    pub(super) passed: bool,
    /// What is asked for besides.
    pub(super) terms: Terms,
    /// What slots ran that run something else by now.
    pub(super) before: BTreeMap<SlotNr, Program>,
    /// Who waits for its end.
    pub askers: Vec<Asker>,
}

impl Rollout {
    /// How many workers were asked for before it, if it is not what runs yet.
    pub fn asked_for(&self, runs: u32) -> Option<u16> {
        (self.to != runs).then_some(self.policy.workers)
    }
}

/// A client, or a signal, that asks for a reload.
pub(super) struct Wish {
    pub asker: Option<Asker>,
    pub wait: bool,
    pub by: Option<By>,
    pub why: &'static str,
    pub terms: Terms,
}

impl Cluster {
    pub(super) fn reload_asked(
        &mut self,
        wish: Wish,
        with: Result<Box<Policy>, String>,
        now: Time,
        out: &mut Out,
    ) {
        let refused = match (self.phase, with) {
            (Phase::Stopping { .. } | Phase::Done(_), _) => Err(Hitch::Stopping),
            (Phase::Serving, Err(why)) => Err(Hitch::Unreadable(why)),
            // Nothing runs that could be replaced; what is read is for those that are going to.
            (Phase::Serving, Ok(_)) if !self.opened => Err(Hitch::TooEarly),
            (Phase::Serving, Ok(policy)) => Ok(policy),
        };
        let answer = match refused {
            Err(hitch) => {
                let refused = hitch.clone();
                out.push(Action::Note(Notice::ReloadRefused { hitch: refused }));
                Some(self.not_reloaded(self.generation, hitch))
            }
            Ok(_) if wish.wait && self.waiting() >= MAX_ASKERS => Some(Outcome::TooMany),
            Ok(policy) => {
                self.begin_rollout(&wish, policy, now, out);
                let to = self.newest;
                (!wish.wait).then_some(Outcome::Reloading { generation: to })
            }
        };
        match (wish.asker, answer) {
            (Some(asker), Some(outcome)) => out.push(Action::Answer { asker, outcome }),
            (Some(asker), None) => {
                if let Some(r) = &mut self.rollout {
                    r.askers.push(asker);
                }
            }
            (None, _) => {}
        }
    }

    fn begin_rollout(&mut self, wish: &Wish, policy: Box<Policy>, now: Time, out: &mut Out) {
        self.call_off_swap(wish.why, wish.by, now, out);
        let running = self.asked_for();
        let (why, by) = (wish.why, wish.by);
        self.call_off_start(Hitch::Overtaken { why, by }, now, out);
        let before = self.supersede(wish, now, out);
        self.count_forks_anew();
        self.newest += 1;
        let to = self.newest;
        let workers = policy.workers;
        let is = match wish.terms.exactly {
            true => self.wanted,
            false => running,
        };
        let resized = workers != is;
        let old = std::mem::replace(&mut self.policy, *policy);
        // What is of the master stays as it was.
        self.policy.given.clone_from(&old.given);
        self.policy.takeover.clone_from(&old.takeover);
        (self.policy.learn_from, self.policy.seed) = (old.learn_from, old.seed);
        self.policy.balance = old.balance;
        self.policy.cpus.clone_from(&old.cpus);
        self.rollout = Some(Rollout {
            to,
            since: now,
            back: false,
            policy: before.unwrap_or_else(|| Box::new(old)),
            workers: resized.then_some(workers),
            by: wish.by,
            canaries: self.policy.canary.count,
            watch: wish.terms.watch.unwrap_or(self.policy.canary.watch),
            passed: false,
            terms: wish.terms,
            before: BTreeMap::new(),
            askers: Vec::new(),
        });
        out.push(Action::NewGeneration { generation: to });
        let notice = Notice::Reloading {
            generation: to,
            workers: usize::from(self.goal()),
            why: wish.why,
            by: wish.by,
        };
        out.push(Action::Note(notice));
        if self.slots.iter().all(|s| s.current.is_none()) {
            self.inherit(to, out);
        }
        self.open_beside(to, out);
        self.limit_generations(now, out);
    }

    /// Another one is under way: it is over now. If it has not come to what runs, what ran before it
    /// is what the next one falls back to.
    fn supersede(&mut self, wish: &Wish, now: Time, out: &mut Out) -> Option<Box<Policy>> {
        let old = self.rollout.take()?;
        self.deadlines.stop(Why::Successors);
        self.deadlines.stop(Why::Watch);
        if self.generation == old.to && !old.back {
            // What is left of it is only for the old ones to go.
            self.rollout_done(old, now, out);
            return None;
        }
        let hitch = Hitch::Overtaken {
            why: wish.why,
            by: wish.by,
        };
        self.drop_successors(now, out);
        self.restore_kept(now, out);
        self.rollout_over(&old, &hitch, out);
        Some(old.policy)
    }

    /// So many slots get new workers: those that there are to be in the end.
    pub(super) fn goal(&self) -> u16 {
        let then = self.rollout.as_ref().and_then(|r| r.workers);
        then.map_or(self.wanted, |n| n.min(self.wanted))
    }

    pub(super) fn surge(&self) -> u16 {
        self.policy.surge.of(self.goal())
    }

    /// A client wants another number now: what was read again is older than that.
    pub(super) fn size_is_asked(&mut self, now: Time) {
        self.count_forks_anew();
        self.revive(now);
        if let Some(r) = &mut self.rollout {
            r.workers = None;
        }
    }

    /// Are all slots of that generation?
    pub(super) fn all_replaced(&self, to: u32) -> bool {
        let wanted = &self.slots[..usize::from(self.goal())];
        wanted
            .iter()
            .all(|s| s.generation == to && s.successor.is_none())
    }

    /// Successors that have no place yet go.
    fn drop_successors(&mut self, now: Time, out: &mut Out) {
        for nr in self.slot_numbers() {
            if let Some(id) = self.slots[usize::from(nr.0)].successor.take() {
                self.retire(id, Cause::Restart, now, out);
            }
        }
    }

    /// A successor has ended, or there was none, or it was killed: the whole has failed.
    pub(super) fn successor_failed(&mut self, nr: SlotNr, hitch: Hitch, now: Time, out: &mut Out) {
        self.slots[usize::from(nr.0)].successor = None;
        let Some(r) = self.rollout.take() else {
            return self.swap_failed(nr, hitch, now, out);
        };
        if r.back && self.phase == Phase::Serving {
            // That code is known to run: it is tried until it does.
            let slot = &mut self.slots[usize::from(nr.0)];
            let delay = slot.backoff.after_death(None, &self.policy, &mut self.rng);
            self.deadlines
                .set(Why::Successors, now + delay.max(FORK_AGAIN));
            self.rollout = Some(r);
            return;
        }
        self.rollout_failed(r, hitch, now, out);
    }

    /// With old before new it is the worker in the slot that has failed: unless all were ready before.
    pub(super) fn replacement_failed(
        &mut self,
        nr: SlotNr,
        generation: u32,
        hitch: Hitch,
        now: Time,
        out: &mut Out,
    ) {
        let in_place = self.surge() == 0;
        let reached = self.generation == generation;
        let forward = |r: &mut Rollout| in_place && !reached && !r.back && r.to == generation;
        if let Some(r) = self.rollout.take_if(forward) {
            self.slots[usize::from(nr.0)].generation = self.generation;
            self.rollout_failed(r, hitch, now, out);
        }
    }

    pub(super) fn rollout_failed(&mut self, r: Rollout, hitch: Hitch, now: Time, out: &mut Out) {
        self.deadlines.stop(Why::Watch);
        self.drop_successors(now, out);
        self.restore_kept(now, out);
        // Whoever comes into an empty slot is of the old code at once.
        for slot in self.slots.iter_mut().filter(|s| s.current.is_none()) {
            slot.generation = self.generation;
        }
        for (nr, program) in &r.before {
            if let Some(slot) = self.slots.get_mut(usize::from(nr.0)) {
                slot.program = *program;
            }
        }
        self.rollout_over(&r, &hitch, out);
        self.policy = Policy::clone(&r.policy);
        // What it took is no failure of those that go on.
        self.count_forks_anew();
        self.revive(now);
        self.take_back(&r, now, out);
    }

    /// Slots that the failed one had replaced get workers of the generation before it again.
    fn take_back(&mut self, failed: &Rollout, now: Time, out: &mut Out) {
        let to = self.generation;
        let replaced = !self.all_replaced(to);
        if !replaced || self.phase != Phase::Serving {
            return;
        }
        self.rollout = Some(Rollout {
            to,
            since: now,
            back: true,
            policy: failed.policy.clone(),
            workers: None,
            by: None,
            canaries: 0,
            watch: Duration::ZERO,
            passed: false,
            terms: Terms::default(),
            before: BTreeMap::new(),
            askers: Vec::new(),
        });
        self.rollout_progress(now, out);
    }

    /// It is over without having reached its end.
    fn rollout_over(&mut self, r: &Rollout, hitch: &Hitch, out: &mut Out) {
        let replaced = !self.all_replaced(self.generation);
        out.push(Action::Note(Notice::ReloadFailed {
            generation: r.to,
            hitch: hitch.clone(),
            ready: self.ready_count(),
            back: replaced && self.phase == Phase::Serving,
        }));
        for asker in &r.askers {
            let outcome = self.not_reloaded(r.to, hitch.clone());
            let asker = *asker;
            out.push(Action::Answer { asker, outcome });
        }
    }

    fn not_reloaded(&self, generation: u32, hitch: Hitch) -> Outcome {
        Outcome::NotReloaded {
            generation,
            hitch,
            ready: self.ready_count(),
        }
    }

    /// The cluster stops: nothing is replaced any more.
    pub(super) fn end_rollout(&mut self, out: &mut Out) {
        self.deadlines.stop(Why::Successors);
        self.deadlines.stop(Why::Watch);
        self.end_swaps(out);
        if let Some(r) = self.rollout.take() {
            self.rollout_over(&r, &Hitch::Stopping, out);
        }
    }

    fn rollout_done(&mut self, r: Rollout, now: Time, out: &mut Out) {
        // A slot whose successor was to be tried again may have gone meanwhile.
        self.deadlines.stop(Why::Successors);
        let took = now - r.since;
        out.push(Action::Note(Notice::Reloaded {
            generation: r.to,
            took,
            back: r.back,
        }));
        if r.terms.exactly && !self.has_size() {
            // Who wants exactly that hears when there are so many, too.
            return self.resizers.extend(r.askers);
        }
        for asker in r.askers {
            let outcome = Outcome::Reloaded {
                generation: r.to,
                took,
            };
            out.push(Action::Answer { asker, outcome });
        }
    }

    /// Compares what there is with what is wanted, and goes on from there.
    pub(super) fn rollout_progress(&mut self, now: Time, out: &mut Out) {
        let Some(to) = self.rollout.as_ref().map(|r| r.to) else {
            return;
        };
        if self.phase != Phase::Serving {
            return;
        }
        let surge = self.surge();
        match surge {
            0 => {
                self.pass_canaries(now);
                self.replace_in_place(to, now, out);
            }
            _ => {
                let ahead = self.canaries_first().is_some();
                self.pass_canaries(now);
                if ahead {
                    // The rest of their batch is to be there before they have their places.
                    self.spawn_successors(to, surge, now, out);
                }
                if self.canaries_first().is_none() {
                    // Those that are ready wait for none that was not there when they came.
                    self.promote(to, now, out);
                    self.release_kept(now, out);
                    self.spawn_successors(to, surge, now, out);
                }
            }
        }
        self.set_watch(now);
        let watched = self.all_watched_by().is_none_or(|by| by <= now);
        if !self.all_replaced(to) || !self.replaced_are_ready() || !watched {
            return;
        }
        self.arrive(to, now, out);
        let goes = |w: &Worker| match w.made_room_for {
            Some(g) => g == to && w.is_leaving() && !w.stuck,
            None => false,
        };
        if self.fleet.iter().any(goes) {
            return;
        }
        if let Some(r) = self.rollout.take() {
            self.rollout_done(r, now, out);
        }
    }

    /// All slots are of the new generation: from here on it is what runs.
    fn arrive(&mut self, to: u32, now: Time, out: &mut Out) {
        if self.generation != to {
            self.generation = to;
            self.unserved_looks = 0;
            self.suspect_unserved(now);
        }
        let size = self
            .rollout
            .as_mut()
            .and_then(|r| Some((r.workers.take()?, r.by)));
        if let Some((workers, by)) = size {
            self.resize(workers, "read again", by, now, out);
        }
    }

    /// With new before old they are by the time they have their place; with old before new not yet.
    fn replaced_are_ready(&self) -> bool {
        let slots = self.slots[..usize::from(self.goal())].iter();
        let ready = |s: &Slot| {
            s.current
                .and_then(|id| self.fleet.get(id))
                .is_some_and(Worker::is_ready)
        };
        self.surge() > 0 || slots.into_iter().all(|s| s.rest.is_some() || ready(s))
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

    fn spawn_successors(&mut self, to: u32, surge: u16, now: Time, out: &mut Out) {
        if self.deadlines.get(Why::Successors).is_some() {
            return;
        }
        // Of one batch all are ready before the next begins.
        let mut room = usize::from(surge).saturating_sub(self.extra(to));
        if let Some(n) = self.canaries_first() {
            let there = self.slots.iter().filter(|s| s.successor.is_some());
            room = room.min(n.saturating_sub(there.count()));
        }
        for nr in 0..usize::from(self.goal()) {
            let slot = &self.slots[nr];
            if room == 0 {
                return;
            }
            if slot.generation == to || slot.successor.is_some() {
                continue;
            }
            room -= 1;
            let slot_nr = SlotNr(u16::try_from(nr).unwrap_or(u16::MAX));
            let worker = self.enlist(slot_nr, to, self.program_in(slot_nr, to), now, out);
            self.slots[nr].successor = Some(worker);
        }
    }

    /// All successors are ready: they take their places, are steered to, and then the old ones go.
    fn promote(&mut self, to: u32, now: Time, out: &mut Out) {
        let successors: Vec<(SlotNr, WorkerId)> = self
            .slot_numbers()
            .filter_map(|nr| Some((nr, self.slots[usize::from(nr.0)].successor?)))
            .collect();
        let ready = |id: &WorkerId| self.fleet.get(*id).is_some_and(|w| w.is_ready());
        if successors.is_empty() || !successors.iter().all(|(_, id)| ready(id)) {
            return;
        }
        let mut old = Vec::new();
        for (nr, id) in successors {
            self.deadlines.stop(Why::Respawn(nr));
            let slot = &mut self.slots[usize::from(nr.0)];
            old.extend(slot.current.replace(id).map(|old| (nr, old)));
            slot.successor = None;
            slot.seat = self.fleet.get(id).map(|w| w.seat);
            slot.generation = to;
            (slot.rest, slot.held) = (None, None);
            slot.proven = true;
            slot.backoff = Default::default();
            self.runs_now(nr, id);
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
    fn replace_in_place(&mut self, to: u32, now: Time, out: &mut Out) {
        let wanted = usize::from(self.goal());
        let ready = |nr: &usize| {
            let current = self.slots[*nr].current.and_then(|id| self.fleet.get(id));
            current.filter(|w| w.is_ready())
        };
        let old = |nr: &usize| ready(nr).is_some_and(|w| w.generation != to);
        let rests = |nr: &usize| {
            let slot = &self.slots[*nr];
            slot.rest.is_some() && slot.generation == to
        };
        let idle = (0..wanted).find(|nr| ready(nr).is_none() && !rests(nr));
        // The first of them are watched before the next one has its turn.
        let watched = self.in_place_watch();
        if watched.is_some_and(|by| by > now) {
            return;
        }
        let Some(next) = idle.or_else(|| (0..wanted).find(old)) else {
            return;
        };
        let back = self.rollout.as_ref().is_some_and(|r| r.back);
        let nr = SlotNr(u16::try_from(next).unwrap_or(u16::MAX));
        let slot = &mut self.slots[next];
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
                // Was it the last that served a port that was learnt?
                let alone = |s: &Slot| s.current.is_none_or(|c| c == id);
                if self.slots.iter().all(alone) {
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

    /// Of too many generations the oldest has no more time.
    fn limit_generations(&mut self, now: Time, out: &mut Out) {
        let draining = |w: &&Worker| matches!(w.state, State::Retiring { .. });
        let mut all: Vec<u32> = self
            .fleet
            .iter()
            .filter(draining)
            .map(|w| w.generation)
            .collect();
        all.sort_unstable();
        all.dedup();
        let surplus = (all.len() + 2).saturating_sub(MAX_GENERATIONS);
        for generation in all.into_iter().take(surplus) {
            let of_it: Vec<WorkerId> = self
                .fleet
                .iter()
                .filter(draining)
                .filter(|w| w.generation == generation)
                .map(|w| w.id)
                .collect();
            out.push(Action::Note(Notice::TooManyGenerations {
                generation,
                limit: MAX_GENERATIONS,
                workers: of_it.len(),
            }));
            for id in of_it {
                self.leave_now(id, now, out);
            }
        }
    }
}
