//! The judge of canaries, and of what can be taken back: some new workers go ahead, each is watched for a
//! while, and who made room for one is kept, unsteered, until all of them have been (I4).

use crate::cover::{Cover, Mark};
use crate::judge::Judge;
use minicluster::core::{Asker, Hitch, More, Outcome, Time, WorkerId};
use std::time::Duration;

impl Judge {
    /// So many go ahead of the others; none any more once they have been watched.
    pub fn canaries(&self) -> usize {
        let Some(r) = self.rollout.as_ref().filter(|r| !r.back && !r.passed) else {
            return 0;
        };
        let n = usize::from(r.canaries).min(self.goal());
        match usize::from(self.surge()) {
            0 => n,
            surge => n.min(surge),
        }
    }

    /// How long each is watched.
    fn watch(&self) -> Duration {
        let r = self.rollout.as_ref().filter(|r| !r.back && r.canaries > 0);
        r.map_or(Duration::ZERO, |r| r.watch)
    }

    /// Have all of these been watched?
    fn watched(&self, all: &[WorkerId], now: Time) -> bool {
        let watch = self.watch();
        let since = |w: &WorkerId| self.jobs.get(w).and_then(|j| j.ready);
        all.iter().filter_map(since).all(|t| now - t >= watch)
    }

    /// The new ones that have their places and are ready.
    fn placed(&self) -> Vec<WorkerId> {
        let to = self.rollout.as_ref().map(|r| r.to);
        let workers = self.places.iter().filter_map(|p| p.worker);
        let new = |w: &WorkerId| {
            let job = self.jobs.get(w);
            job.is_some_and(|j| Some(j.generation) == to && j.serves())
        };
        workers.filter(new).collect()
    }

    /// Have all been watched that have their places?
    pub fn all_watched(&self, now: Time) -> bool {
        self.watched(&self.placed(), now)
    }

    /// Those that went ahead have been watched: the others follow.
    pub fn pass_canaries(&mut self, now: Time, cover: &mut Cover) {
        let n = self.canaries();
        if n == 0 || self.stopping() {
            return;
        }
        let all: Vec<WorkerId> = match self.surge() {
            0 => self.placed(),
            _ => self.places.iter().filter_map(|p| p.successor).collect(),
        };
        let ready = |w: &WorkerId| self.jobs.get(w).is_some_and(|j| j.serves());
        let there = all.len() >= n && all.iter().all(ready);
        let rest = self.rest_is_to_come();
        if there
            && self.watched(&all, now)
            && let Some(r) = &mut self.rollout
        {
            (r.passed, r.rest_comes) = (true, rest);
            cover.mark(Mark::CanariesPassed);
        }
    }

    /// The canaries have been watched: are there others of their batch, which are spawned now?
    fn rest_is_to_come(&self) -> bool {
        let there = self.places.iter().filter(|p| p.successor.is_some());
        there.count() < usize::from(self.surge()).min(self.goal())
    }

    /// A client wants the reload that is under way called off.
    pub fn back_out_told(&mut self, asker: Asker, now: Time, cover: &mut Cover) {
        let forward = |r: &&crate::reloads::Rollout| !r.back && r.to != self.generation;
        let under_way = self.rollout.as_ref().is_some_and(|r| forward(&r)) && !self.stopping();
        self.backing_out = Some((asker, under_way));
        if under_way {
            cover.mark(Mark::BackedOut);
            self.rollout_fails(now, cover);
        }
    }

    /// A client wants slots added.
    pub fn start_told(&mut self, more: &More) {
        self.starters.insert(more.asker, more.count);
        // It is so if a slot is added in this turn.
        self.start_asked = Some((more.ready, more.program));
    }

    /// One of them is answered.
    pub fn start_replied(&mut self, asker: Asker, outcome: &Outcome, cover: &mut Cover) {
        let count = self.starters.remove(&asker).expect("nobody has asked");
        match outcome {
            Outcome::Starting { count: n } => assert_eq!(*n, count),
            Outcome::Started { count: n, workers } => {
                assert_eq!(*n, count);
                assert_eq!(usize::from(*workers), self.wanted);
                // (Which they are hangs on what was closed before.)
                let proven = self.open().filter(|p| p.proven).count();
                assert!(proven >= usize::from(count), "{:?}", self.places);
                self.added = None;
                cover.mark(Mark::SlotsStarted);
            }
            Outcome::NotStarted { started, hitch } => {
                assert!(*started < count, "all are started, and {hitch}");
                match hitch {
                    Hitch::UnderWay(_) | Hitch::TooEarly => {}
                    _ => self.added = None,
                }
                cover.mark(Mark::SlotsNotStarted);
            }
            Outcome::OutOfBounds { .. } | Outcome::TooMany => {}
            other => panic!("{other:?} is no end of a start"),
        }
    }

    /// These make room: they are kept if there may be need of them, else they are to go.
    pub fn makes_room(&mut self, old: Vec<(usize, WorkerId)>, to: u32, now: Time) {
        let keep = !self.all_watched(now);
        for (nr, worker) in old {
            let Some(job) = self.jobs.get_mut(&worker) else {
                continue;
            };
            if job.surplus.is_some() {
                continue;
            }
            job.made_room_for = Some(to);
            match keep && job.serves() {
                true => self.places[nr].kept = Some(worker),
                false => drop(job.replaced.get_or_insert(now)),
            }
        }
    }

    /// Those that are kept go when all new ones have been watched.
    pub fn release(&mut self, now: Time, cover: &mut Cover) {
        if self.stopping() || !self.all_watched(now) {
            return;
        }
        for place in &mut self.places {
            if let Some(job) = place.kept.take().and_then(|w| self.jobs.get_mut(&w)) {
                job.replaced.get_or_insert(now);
                cover.mark(Mark::KeptReleased);
            }
        }
    }

    /// They have their places again, and the new ones are to go. Those are told.
    pub fn restore(&mut self, now: Time) -> Vec<WorkerId> {
        let mut dropped = Vec::new();
        for place in &mut self.places {
            let Some(old) = place.kept.take() else {
                continue;
            };
            let new = place.worker.replace(old);
            (place.vacant, place.failures) = (None, 0);
            if let Some(job) = self.jobs.get_mut(&old) {
                place.generation = job.generation;
                job.made_room_for = None;
            }
            dropped.extend(new);
        }
        for worker in &dropped {
            if let Some(job) = self.jobs.get_mut(worker) {
                job.replaced.get_or_insert(now);
            }
        }
        dropped
    }

    /// Is it a new one in its place that is watched still?
    pub fn is_watched(&self, worker: WorkerId, now: Time) -> bool {
        let r = self
            .rollout
            .as_ref()
            .filter(|r| !r.back && r.to != self.generation);
        let (Some(r), Some(job)) = (r, self.jobs.get(&worker)) else {
            return false;
        };
        let watch = self.watch();
        let early = job.ready.is_some_and(|t| now - t < watch);
        let place = self.places.get(usize::from(job.slot.0));
        let placed = place.is_some_and(|p| p.worker == Some(worker));
        let any = self.places.iter().any(|p| p.kept.is_some());
        let kept = any && job.ready.is_some() && !self.all_watched(now);
        (early || kept) && placed && job.generation == r.to && !self.stopping()
    }
}
