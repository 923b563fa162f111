//! The judge of reloads: which generation each slot is to be of, who takes whose place and when, and
//! what is told of it. New before old, together; what fails leaves the old ones where they are; each
//! reload has one end, and each who waits for it hears of it once (I4, I5).

use crate::cover::{Cover, Mark};
use crate::judge::Judge;
use crate::records::Place;
use crate::sizes::{Happens, MAX_ASKERS};
use minicluster::core::{Asker, Event, Hitch, Outcome, Policy, SlotNr, Terms, Time, WorkerId};
use std::time::Duration;

/// Generations that may be drained at one time.
pub const MAX_GENERATIONS: usize = 8;

/// One that is under way.
#[derive(Clone, Debug)]
pub struct Rollout {
    pub to: u32,
    /// Does it take back what another one had replaced?
    pub back: bool,
    /// So many slots there are to be when it has come to run.
    pub workers: Option<usize>,
    /// How many go ahead, how long all are watched; and have those been?
    pub canaries: u16,
    pub watch: Duration,
    pub passed: bool,
    pub terms: Terms,
    /// Are the others of their batch still to be asked for?
    pub rest_comes: bool,
}

/// What has to become of the reload that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Stopping,
    Unreadable,
    TooEarly,
    TooMany,
    Begins,
}

impl Judge {
    /// How many workers more there may be.
    pub fn surge(&self) -> u16 {
        self.policy.surge.of(self.goal() as u16)
    }

    /// So many slots get new workers.
    pub fn goal(&self) -> usize {
        let then = self.rollout.as_ref().and_then(|r| r.workers);
        then.map_or(self.wanted, |n| n.min(self.wanted))
    }

    /// The new ones have their places: now there are to be so many.
    pub fn size_comes(&mut self, now: Time, cover: &mut Cover) {
        let then = self.rollout.as_mut().and_then(|r| r.workers.take());
        if let Some(n) = then {
            cover.mark(match n > self.wanted {
                true => Mark::ReloadGrows,
                false => Mark::ReloadShrinks,
            });
            self.want(n, now, cover);
        }
    }

    /// Core is about to be asked for a reload.
    pub fn reload_told(&mut self, event: &Event, now: Time, cover: &mut Cover) {
        let Event::Reload {
            asker,
            wait,
            with,
            terms,
            ..
        } = event
        else {
            return;
        };
        let full = *wait && self.waiting() >= MAX_ASKERS;
        let fate = match with {
            _ if self.stopping() => Fate::Stopping,
            Err(_) => Fate::Unreadable,
            Ok(_) if self.opened.is_none() => Fate::TooEarly,
            // (A signal waits for nothing.)
            Ok(_) if full => Fate::TooMany,
            Ok(_) => Fate::Begins,
        };
        self.happens = Happens::Reload {
            asker: *asker,
            fate,
        };
        if let Some(asker) = asker {
            self.reloaders
                .insert(*asker, self.newest + u32::from(fate == Fate::Begins));
        }
        if let (Fate::Begins, Ok(policy)) = (fate, with) {
            self.rollout_begins(policy, *terms, now, cover);
        }
    }

    fn rollout_begins(&mut self, policy: &Policy, terms: Terms, now: Time, cover: &mut Cover) {
        // Whoever was to have a slot, or a place, goes as before, whatever is read.
        let added = self.added.and_then(|nr| self.places.get(usize::from(nr.0)));
        let others = self.places.iter().filter_map(|p| p.successor);
        let called_off: Vec<WorkerId> = added
            .and_then(|p| p.worker)
            .into_iter()
            .chain(others)
            .collect();
        self.swap_overtaken(now, cover);
        if let Some(old) = self.rollout.take() {
            cover.mark(Mark::ReloadOvertaken);
            self.ends = Some((old.to, old.to == self.generation && !old.back));
            self.rollout = Some(old);
            self.drop_successors(now);
            self.rollout = None;
        }
        self.counted_anew();
        self.newest += 1;
        self.rollout = Some(Rollout {
            to: self.newest,
            back: false,
            canaries: policy.canary.count,
            watch: terms.watch.unwrap_or(policy.canary.watch),
            terms,
            passed: false,
            rest_comes: false,
            workers: (policy.workers != self.running.workers).then_some(policy.workers.into()),
        });
        let old = std::mem::replace(&mut self.policy, policy.clone());
        self.policy.given.clone_from(&old.given);
        self.policy.takeover.clone_from(&old.takeover);
        self.policy.balance = old.balance;
        self.policy.cpus.clone_from(&old.cpus);
        let (dropped, _) = self.tried.get_or_insert((Vec::new(), old));
        dropped.extend(called_off);
    }

    /// Successors that have no place yet are to go.
    fn drop_successors(&mut self, now: Time) {
        let mut dropped = Vec::new();
        for place in &mut self.places {
            dropped.extend(place.successor.take());
        }
        for worker in &dropped {
            if let Some(job) = self.jobs.get_mut(worker) {
                job.replaced.get_or_insert(now);
            }
        }
        dropped.extend(self.restore(now));
        self.tried = Some((dropped, self.policy.clone()));
    }

    /// Are all slots of that generation?
    pub fn all_replaced(&self, to: u32) -> bool {
        let mut wanted = self.open().take(self.goal());
        wanted.all(|p| p.generation == to && p.successor.is_none())
    }

    /// Are all workers in wanted slots of the generation that runs?
    pub fn all_are_of_one(&self) -> bool {
        self.all_replaced(self.generation)
    }

    /// By which policy a worker is ended: that of its own reload, at the moment when that fails.
    pub fn policy_of(&self, worker: WorkerId) -> &Policy {
        match &self.tried {
            Some((dropped, policy)) if dropped.contains(&worker) => policy,
            Some(_) | None => &self.policy,
        }
    }

    /// All successors are ready: they take their places.
    pub fn promote(&mut self, now: Time, cover: &mut Cover) {
        let Some(to) = self.rollout.as_ref().map(|r| r.to) else {
            return;
        };
        if self.surge() == 0 || self.stopping() {
            return;
        }
        self.pass_canaries(now, cover);
        if self.canaries() > 0 || self.rollout.as_ref().is_some_and(|r| r.rest_comes) {
            return;
        }
        let new: Vec<WorkerId> = self.places.iter().filter_map(|p| p.successor).collect();
        let ready = |w: &WorkerId| self.jobs.get(w).is_some_and(|j| j.serves());
        if new.is_empty() || !new.iter().all(ready) {
            return;
        }
        cover.mark(Mark::Promoted);
        let mut made_room = Vec::new();
        for (nr, place) in self.places.iter_mut().enumerate() {
            let Some(new) = place.successor.take() else {
                continue;
            };
            let old = place.worker.replace(new);
            (place.vacant, place.failures) = (None, 0);
            if place.rest.take().is_some() {
                cover.mark(Mark::FilledAgain);
            }
            place.failed = false;
            (place.generation, place.proven) = (to, true);
            made_room.extend(old.map(|old| (nr, old)));
        }
        self.makes_room(made_room, to, now);
        self.settle_generation(now, cover);
    }

    /// A successor is no more, or cannot be had.
    pub fn successor_failed(&mut self, worker: WorkerId, now: Time, cover: &mut Cover) {
        if self.swap_failed(worker, cover) {
            return;
        }
        let back = self.rollout.as_ref().is_some_and(|r| r.back) && !self.stopping();
        for place in &mut self.places {
            if place.successor == Some(worker) {
                place.successor = None;
                place.failures += u32::from(back);
            }
        }
        match back {
            // It is tried again; what has no more to wait for takes its place.
            true => self.promote(now, cover),
            false if self.stopping() => {}
            false => self.rollout_fails(now, cover),
        }
    }

    /// With old before new: are those of this generation new, and has it not been reached?
    fn is_new_in_place(&self, generation: u32) -> bool {
        let forward = |r: &Rollout| !r.back && r.to == generation;
        let under_way = self.rollout.as_ref().is_some_and(forward);
        under_way && self.surge() == 0 && self.generation != generation
    }

    /// The slot is empty, its worker was of new code, and the old one comes back: which has not failed.
    pub fn vacate_in_vain(&mut self, slot: SlotNr, now: Time) {
        let place = &mut self.places[usize::from(slot.0)];
        if place.closed {
            return;
        }
        (place.worker, place.failed, place.failures) = (None, false, 0);
        place.rest = None;
        place.vacant = Some((now, Duration::ZERO, Duration::ZERO));
    }

    /// With old before new: the worker in the slot was of the new generation, and never ready; or that is taken back.
    pub fn came_in_vain(
        &mut self,
        slot: SlotNr,
        (generation, never): (u32, bool),
        now: Time,
        cover: &mut Cover,
    ) {
        let other = |r: &Rollout| r.back && r.to != generation;
        if self.surge() == 0 && self.rollout.as_ref().is_some_and(other) {
            return self.vacate_in_vain(slot, now);
        }
        if never && self.is_new_in_place(generation) {
            self.vacate_in_vain(slot, now);
            self.places[usize::from(slot.0)].generation = self.generation;
            self.rollout_fails(now, cover);
        }
    }

    pub fn rollout_fails(&mut self, now: Time, cover: &mut Cover) {
        let Some(r) = self.rollout.clone() else {
            return;
        };
        cover.mark(Mark::ReloadFailed);
        if self.places.iter().any(|p| p.kept.is_some()) {
            cover.mark(Mark::KeptRestored);
        }
        self.ends = Some((r.to, false));
        self.drop_successors(now);
        self.rollout = None;
        let runs = self.generation;
        let vacant = |p: &&mut Place| p.worker.is_none() && p.generation != runs;
        for place in self.places.iter_mut().filter(vacant) {
            // What comes is the old code, at once.
            (place.generation, place.failed, place.failures) = (runs, false, 0);
            place.rest = None;
            let at_once = Some((now, Duration::ZERO, Duration::ZERO));
            place.vacant = at_once.filter(|_| !place.closed);
        }
        self.policy = self.running.clone();
        if !self.all_replaced(self.generation) {
            cover.mark(Mark::TakenBack);
            self.rollout = Some(Rollout {
                to: self.generation,
                back: true,
                canaries: 0,
                watch: Duration::ZERO,
                terms: Terms::default(),
                passed: false,
                rest_comes: false,
                workers: None,
            });
        }
    }

    /// The cluster is to end: nothing is replaced any more.
    pub fn rollout_stops(&mut self) {
        if let Some(r) = self.rollout.take() {
            self.ends = Some((r.to, false));
        }
    }

    /// May this worker be emptied or asked to stop? With old before new it may be its turn.
    pub fn may_go(&mut self, worker: WorkerId, now: Time, cover: &mut Cover) -> bool {
        self.promote(now, cover);
        self.release(now, cover);
        self.pass_canaries(now, cover);
        let job = &self.jobs[&worker];
        if self.ending.is_some_and(|e| !e.hard) || job.surplus.or(job.replaced).is_some() {
            return true;
        }
        let surge = self.surge();
        let Some(r) = self.rollout.as_ref().filter(|_| surge == 0) else {
            return false;
        };
        let (to, nr) = (r.to, usize::from(job.slot.0));
        let going = |p: &crate::records::Place| {
            let job = p.worker.and_then(|w| self.jobs.get(&w));
            job.is_some_and(|j| j.replaced.is_some() && !j.exit_told)
        };
        let others = self.open().take(self.goal()).filter(|p| going(p)).count();
        let serves = job.serves();
        let fine = !serves || others == 0;
        assert!(fine, "I4: more than one is replaced at a time");
        if self.places[nr].worker != Some(worker) || job.generation == to {
            return false;
        }
        self.places[nr].generation = to;
        if let Some(job) = self.jobs.get_mut(&worker) {
            job.replaced = Some(now);
        }
        true
    }

    /// It is said that a reload has reached its end.
    pub fn reload_is_over(&mut self, generation: u32, back: bool, now: Time, cover: &mut Cover) {
        if let Some((to, true)) = self.ends {
            assert_eq!(to, generation);
            self.ends = None;
            return;
        }
        self.promote(now, cover);
        self.settle_generation(now, cover);
        let r = self.rollout.take().expect("I5: no reload is under way");
        assert_eq!((r.to, r.back), (generation, back));
        assert!(
            self.generation == r.to && self.all_replaced(r.to),
            "I5: not all are replaced"
        );
        let goes = self.jobs.values().find(|j| {
            let going = j.made_room_for == Some(generation) && j.has_to_go();
            going && j.surplus.is_none() && j.leader.is_some() && !j.exit_told && !j.stuck
        });
        assert!(goes.is_none(), "I5: {goes:?} has not gone yet");
        cover.mark(match back {
            true => Mark::BackDone,
            false => Mark::ReloadDone,
        });
        self.over = Some(generation);
    }

    /// It is said that a reload has failed, or was not begun.
    pub fn reload_has_failed(&mut self, generation: u32, hitch: &Hitch) {
        match (hitch, self.happens) {
            (Hitch::Unreadable(_) | Hitch::TooEarly, Happens::Reload { fate, .. }) => {
                let fits = match hitch {
                    Hitch::TooEarly => Fate::TooEarly,
                    _ => Fate::Unreadable,
                };
                assert!(fate == fits && generation == self.generation);
            }
            (Hitch::Stopping, Happens::Reload { fate, .. }) => assert_eq!(fate, Fate::Stopping),
            _ => {
                let (to, reached) = self.ends.take().expect("I5: nothing has failed");
                assert!(
                    to == generation && !reached,
                    "I5: {to} has failed, not {generation}"
                );
                self.failed = Some(generation);
            }
        }
    }

    /// When all slots are of the new generation, and ready where old came before new, that is what runs.
    pub fn settle_generation(&mut self, now: Time, cover: &mut Cover) {
        let Some(to) = self.rollout.as_ref().map(|r| r.to) else {
            return;
        };
        let slots = self.open().take(self.goal());
        let serves = |w: WorkerId| self.jobs.get(&w).is_some_and(|j| j.serves());
        let there = |p: &&Place| p.rest.is_some() || p.worker.is_some_and(serves);
        let ready = slots.filter(there).count();
        let ready = self.surge() > 0 || ready == self.goal();
        let watched = self.all_watched(now);
        let reached = ready && watched && self.all_replaced(to);
        if !self.stopping() && reached && self.generation != to {
            self.generation = to;
            self.running = self.policy.clone();
            self.size_comes(now, cover);
        }
    }

    /// When one piece of news has had all its consequences.
    pub fn reloads_settled(&mut self, now: Time, cover: &mut Cover) {
        assert!(
            self.ends.is_none(),
            "I5: an end is not told: {:?}",
            self.ends
        );
        if self.rollout.is_some() {
            self.promote(now, cover);
            self.release(now, cover);
            self.pass_canaries(now, cover);
        }
        if let Some(r) = &mut self.rollout {
            r.rest_comes = false;
        }
        self.settle_generation(now, cover);
        (self.over, self.failed, self.tried) = (None, None, None);
        let to = self.rollout.as_ref().filter(|r| !r.back).map(|r| r.to);
        let waits = self.reloaders.values().find(|of| Some(**of) != to);
        assert!(
            waits.is_none(),
            "I5: generation {waits:?} is waited for for ever"
        );
        let mut drained: Vec<u32> = Vec::new();
        for place in self.places.iter().filter(|p| p.closed) {
            assert!(place.successor.is_none(), "{place:?} is not wanted");
        }
        for job in self.living.iter().map(|w| &self.jobs[w]) {
            let going = job.surplus.or(job.replaced).is_some() && !self.stopping();
            let idle = job.leader.is_some() && !job.exit_told && !job.failed;
            let asked = job.drain.or(job.stop).or(job.kill).or(job.abort).is_some();
            assert!(!going || !idle || asked, "{job:?} is not asked to go");
            if job.drain.is_some() && job.stop.is_none() && job.leader.is_some() {
                drained.push(job.generation);
            }
        }
        drained.sort_unstable();
        drained.dedup();
        let n = drained.len();
        assert!(
            n <= MAX_GENERATIONS || self.stopping(),
            "I9: {n} generations are drained"
        );
    }

    /// A client that asked for a reload is answered.
    pub fn reload_replied(&mut self, asker: Asker, outcome: &Outcome, cover: &mut Cover) {
        let of = self.reloaders.remove(&asker);
        let of = of.unwrap_or_else(|| panic!("I5: {asker:?} is answered twice"));
        let now = match self.happens {
            Happens::Reload { asker: a, fate } if a == Some(asker) => Some(fate),
            _ => None,
        };
        match (outcome, now) {
            (Outcome::Reloading { generation }, Some(Fate::Begins)) => {
                assert_eq!(*generation, self.newest);
            }
            (Outcome::TooMany, Some(Fate::TooMany)) => cover.mark(Mark::ReloadsRefused),
            (Outcome::NotReloaded { hitch, .. }, Some(fate)) => {
                let fits = matches!(
                    (hitch, fate),
                    (Hitch::Stopping, Fate::Stopping)
                        | (Hitch::Unreadable(_), Fate::Unreadable)
                        | (Hitch::TooEarly, Fate::TooEarly)
                );
                assert!(fits, "{hitch:?} although {fate:?}");
            }
            (
                Outcome::NotReloaded {
                    generation,
                    hitch,
                    ready,
                },
                None,
            ) => {
                assert_eq!(*ready, self.ready(), "so many serve all the same");
                assert_eq!(Some(*generation), self.failed, "I5: it has not failed");
                assert_eq!(of, *generation);
                cover.mark(match hitch {
                    Hitch::Died(_) | Hitch::Hangs(_) => Mark::ReloadDied,
                    Hitch::NotForked { .. } => Mark::ReloadNotForked,
                    Hitch::Stuck(_) => Mark::ReloadStuck,
                    Hitch::Stopping => Mark::ReloadStopped,
                    Hitch::CalledOff { .. } => Mark::BackedOut,
                    Hitch::Overtaken { .. } => Mark::ReloadOvertakenTold,
                    other => panic!("{other:?} is no end of a reload"),
                });
            }
            (Outcome::Reloaded { generation, .. }, None) => {
                assert_eq!(of, *generation);
                assert!(
                    *generation <= self.generation,
                    "I5: it has not been reached"
                );
            }
            (other, fate) => panic!("I5: {other:?} although {fate:?}"),
        }
    }

    /// The longest time that a reload may need from now on, if all goes well.
    pub fn rollout_limit(&self) -> Duration {
        let surge = usize::from(self.surge()).max(1);
        let rounds = self.wanted.div_ceil(surge) as u32 + 1;
        let limits = self.limits();
        let stop = self.policy.stop_timeout.max(self.running.stop_timeout);
        let drain =
            limits.drain() + limits.again() + self.running.drain_timeout + Duration::from_secs(1);
        let terms = self.rollout.as_ref().and_then(|r| r.terms.watch);
        let watch = self.policy.canary.watch.max(terms.unwrap_or_default()) * 2;
        (drain + stop + watch + Duration::from_secs(10)) * rounds
    }
}
