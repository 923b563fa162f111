//! The replacing of all workers by new ones: a reload. One transaction with one ending (I5). Rules:
//!
//! 1. All slots get a new worker, new before old (I4), or with --surge 0 old before new: how is
//!    `exchange`'s. Canaries go ahead (`watch`).
//! 2. A successor that ends, or is not ready in time, fails the whole: the others of its batch go, and
//!    nothing has changed for the old ones. Slots that had been replaced before are taken back, by a
//!    rollout to where they came from, whose successors are tried again until they are ready.
//! 3. Another reload takes the place of one under way, which is over then. Successors that are not in
//!    place go; where all were, it has reached its end.
//! 4. It is over, for who waits, when all slots have new workers and the old ones have gone. Old ones of
//!    an earlier one go in their own time: nobody waits for these, nor do they count as its surge.
//! 5. Another number of workers that was read again counts when the new ones have their places: fewer go
//!    with the old ones, whose lane can be emptied then; more are of the new code at once.
//! 6. What there is is compared with what is wanted, after each event (I7).

use super::action::Action;
use super::deadlines::Why;
use super::event::{By, Terms};
use super::ids::{Asker, Program, SlotNr, Time, WorkerId};
use super::notice::{Cause, Notice};
use super::outcome::{Hitch, Outcome};
use super::phase::{MAX_ASKERS, Phase};
use super::policy::Policy;
use super::respawn::{Backoff, FORK_AGAIN};
use super::slot::Slot;
use super::worker::{State, Worker};
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Generations with workers at one time (I9): of more the oldest is not drained any longer.
pub const MAX_GENERATIONS: usize = 8;

/// One that is under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// What was wanted before it, if it is not what runs yet.
    pub fn policy_before(&self, runs: u32) -> Option<&Policy> {
        (self.to != runs).then_some(&*self.policy)
    }

    /// How many workers were asked for by then.
    pub fn asked_for(&self, runs: u32) -> Option<u16> {
        self.policy_before(runs).map(|p| p.workers)
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
        self.inherit_forsaken(to, out);
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

    /// Those.
    pub(super) fn goal_slots(&self) -> impl Iterator<Item = SlotNr> + '_ {
        self.open_slots().take(usize::from(self.goal()))
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
        let mut wanted = self.slots.first(self.goal());
        wanted.all(|s| s.generation == to && s.successor.is_none())
    }

    /// Successors that have no place yet go.
    fn drop_successors(&mut self, now: Time, out: &mut Out) {
        for nr in self.slot_numbers() {
            let slot = self.slots.of_mut(nr);
            if let Some(id) = slot.and_then(|s| s.successor.take()) {
                self.retire(id, Cause::Restart, now, out);
            }
        }
    }

    /// A successor has ended, or there was none, or it was killed: the whole has failed.
    pub(super) fn successor_failed(&mut self, nr: SlotNr, hitch: Hitch, now: Time, out: &mut Out) {
        if let Some(slot) = self.slots.get_mut(nr.index()) {
            slot.successor = None;
        }
        let Some(r) = self.rollout.take() else {
            return self.swap_failed(nr, hitch, now, out);
        };
        if r.back && self.phase == Phase::Serving {
            // That code is known to run: it is tried until it does.
            let (policy, rng) = (&self.policy, &mut self.rng);
            let failed = |s: &mut Slot| s.backoff.after_death(None, policy, rng);
            let delay = self.slots.of_mut(nr).map(failed).unwrap_or_default();
            self.deadlines
                .set(Why::Successors, now + delay.max(FORK_AGAIN));
            self.rollout = Some(r);
            return;
        }
        self.rollout_failed(r, hitch, now, out);
    }

    /// Is one taken back?
    pub(super) fn goes_back(&self) -> bool {
        self.rollout.as_ref().is_some_and(|r| r.back)
    }

    /// With old before new: is it the one that slots are to be of, and has not come to what runs?
    pub(super) fn is_new_in_place(&self, generation: u32) -> bool {
        let forward = |r: &Rollout| !r.back && r.to == generation;
        let under_way = self.rollout.as_ref().is_some_and(forward);
        under_way && self.surge() == 0 && self.generation != generation
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
        let new = self.is_new_in_place(generation);
        if let Some(r) = self.rollout.take_if(|_| new) {
            // (Of a resize to fewer it has gone with its worker.)
            if let Some(slot) = self.slots.get_mut(nr.index()) {
                slot.generation = self.generation;
            }
            self.rollout_failed(r, hitch, now, out);
        }
    }

    pub(super) fn rollout_failed(&mut self, r: Rollout, hitch: Hitch, now: Time, out: &mut Out) {
        self.deadlines.stop(Why::Watch);
        // Before anybody is steered elsewhere.
        self.bequeath(r.to, out);
        self.drop_successors(now, out);
        self.restore_kept(now, out);
        self.vacant_go_back(now);
        for (nr, program) in &r.before {
            if let Some(slot) = self.slots.get_mut(nr.index()) {
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

    /// Whoever comes into an empty slot is of the old code, at once: how the new one has ended there, or that it could
    /// not be forked, says nothing of that.
    fn vacant_go_back(&mut self, now: Time) {
        let runs = self.generation;
        for nr in self.slot_numbers() {
            let wanted = self.is_wanted(nr);
            let vacant = |s: &&mut Slot| s.current.is_none() && s.generation != runs;
            let Some(slot) = self.slots.of_mut(nr).filter(vacant) else {
                continue;
            };
            (slot.generation, slot.taken_back) = (runs, true);
            (slot.rest, slot.held) = (None, None);
            slot.backoff = Backoff::default();
            if wanted {
                self.deadlines.set(Why::Respawn(nr), now);
            }
        }
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
    pub(super) fn arrive(&mut self, to: u32, now: Time, out: &mut Out) {
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
