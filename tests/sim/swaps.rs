//! The judge of swaps: only who is due for it, or was asked for, is replaced while the others go on; one
//! at a time, new before old; what fails leaves the old one where it is; and each who waits hears once
//! (I4, I7). And the world's part of it: what workers weigh, whom clients ask for.

use crate::cover::{Cover, Mark};
use crate::judge::{Judge, SETTLED};
use crate::records::{Job, Place};
use crate::world::World;
use minicluster::core::{
    Asker, By, Event, Hitch, Notice, Outcome, Pid, Reason, Restart, SlotNr, Target, Time, Word,
    WorkerId,
};
use std::time::Duration;

/// One that is under way.
#[derive(Clone, Copy, Debug)]
pub struct Swap {
    pub slot: SlotNr,
    pub old: WorkerId,
    pub new: WorkerId,
    /// Has the new one the place?
    pub placed: bool,
    /// It is a respawn, on account of a failure: so many in a row then.
    pub failures: Option<u32>,
}

/// Why a worker may be replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    pub asked: bool,
    pub wish: bool,
    pub rss: bool,
    pub connections: bool,
    /// Has the new one less time to be ready?
    pub hasty: bool,
    /// Did it wish so before it had settled: when, and how many failures in a row there had been then?
    pub early: Option<(Time, u32)>,
    /// May there be, or have been, another reason, or none any more of an operator's?
    pub doubt: bool,
    /// It was said that it is replaced, and that so many failures in a row are there then.
    pub failures: Option<u32>,
}

impl Job {
    /// Did it say in time that it would end?
    pub fn has_announced(&self, now: Time) -> bool {
        let settled = self.ready.is_some_and(|t| now - t >= SETTLED);
        self.announced && settled && self.abort.or(self.kill).is_none()
    }
}

impl Judge {
    /// Core is about to be told something that may make a worker due.
    pub fn due_told(&mut self, event: &Event, now: Time) {
        let r = self.policy.recycle;
        // As far as the jitter may go.
        let least = |n: u64| n - n * u64::from(r.jitter) / 100;
        let serves = |j: &&mut Job| j.serves();
        match event {
            Event::Said { worker, word } => {
                let job = self.jobs.get_mut(worker).filter(serves);
                if let (Some(job), Word::Retire | Word::Stopping) = (job, word) {
                    job.announced |= *word == Word::Stopping;
                    let ready_for = job.ready.map_or(Duration::ZERO, |t| now - t);
                    let failures = match ready_for >= self.policy.backoff_reset {
                        true => 0,
                        false => self
                            .places
                            .get(usize::from(job.slot.0))
                            .map_or(0, |p| p.failures),
                    };
                    // (It is heard once, and of another reason nobody knows here whether it counted.)
                    let again = job.due.is_some();
                    let due = job.due.get_or_insert_default();
                    due.wish = true;
                    match ready_for < SETTLED {
                        true if due.early.is_none() => {
                            (due.early, due.doubt) = (Some((now, failures)), again);
                        }
                        true => {}
                        false => due.doubt = true,
                    }
                }
            }
            Event::Weighed { sizes } => {
                for (worker, rss) in sizes {
                    let job = self.jobs.get_mut(worker).filter(serves);
                    if let (Some(job), Some(most)) = (job, r.rss) {
                        job.due.get_or_insert_default().rss |= *rss > least(most);
                    }
                }
            }
            Event::Counted { worker, served } => {
                let job = self.jobs.get_mut(worker).filter(serves);
                if let (Some(job), Some(most)) = (job, r.connections) {
                    job.due.get_or_insert_default().connections |= *served >= least(most);
                }
            }
            _ => {}
        }
    }

    /// Core is about to be asked for a restart.
    pub fn restart_told(&mut self, wish: &Restart) {
        self.restarters.insert(wish.asker);
        if self.rollout.is_some() || self.stopping() {
            return;
        }
        let meant = |p: &&Place| {
            let job = p.worker.and_then(|w| self.jobs.get(&w));
            job.is_some_and(|j| match &wish.target {
                Target::Slot(n) => u32::from(j.slot.0) == *n,
                Target::Number(n) => u32::from(j.slot.0) == *n || is_pid(j, *n),
                Target::Pid(n) => is_pid(j, *n),
                Target::All => true,
            })
        };
        let all: Vec<WorkerId> = self
            .places
            .iter()
            .filter(meant)
            .filter_map(|p| p.worker)
            .collect();
        for worker in all {
            if let Some(job) = self.jobs.get_mut(&worker) {
                let due = job.due.get_or_insert_default();
                (due.asked, due.doubt) = (true, true);
                due.hasty |= wish.within.is_some();
            }
        }
    }

    /// One is spawned beside another one, and there is no rollout.
    pub fn swap_begins(&mut self, slot: SlotNr, old: WorkerId, new: WorkerId, now: Time) {
        self.swap_settled();
        assert!(self.swap.is_none(), "I7: {new:?} beside {:?}", self.swap);
        let job = &self.jobs[&old];
        let r = self.policy.recycle;
        let aged = r.age.zip(job.ready).is_some_and(|(age, ready)| {
            let least = age.mul_f64(1.0 - f64::from(r.jitter) / 100.0);
            now - ready >= least.saturating_sub(Duration::from_micros(1))
        });
        let due = job.due.unwrap_or_default();
        let told = due.wish || due.rss || due.connections;
        assert!(
            due.asked || job.serves() && (aged || told),
            "{old:?} is replaced, and is not due: {job:?}"
        );
        let leaves = job.drain.or(job.stop).or(job.kill).or(job.abort);
        assert!(leaves.is_none() && !job.exit_told, "{job:?} goes anyway");
        if let Some(job) = self.jobs.get_mut(&new) {
            job.hasty = due.hasty;
        }
        if due.failures.is_some() {
            self.respawned(slot, now);
        }
        let place = &mut self.places[usize::from(slot.0)];
        assert!(
            place.successor.is_none() && place.kept.is_none(),
            "I1: slot {slot} has a successor"
        );
        place.successor = Some(new);
        self.swap = Some(Swap {
            slot,
            old,
            new,
            placed: false,
            failures: due.failures,
        });
    }

    /// This one is ready: it takes the place that it was for.
    pub fn takes_place(&mut self, worker: WorkerId, now: Time, cover: &mut Cover) {
        let coming = |s: &&mut Swap| s.new == worker && !s.placed;
        let Some(s) = self.swap.as_mut().filter(coming) else {
            return;
        };
        s.placed = true;
        let place = &mut self.places[usize::from(s.slot.0)];
        assert_eq!(place.successor.take(), Some(worker));
        let old = place.worker.replace(worker);
        let failures = s.failures.unwrap_or(0);
        (place.vacant, place.failures, place.rest) = (None, failures, None);
        (place.failed, place.proven) = (false, true);
        assert_eq!(old, Some(s.old));
        let job = self.jobs.get_mut(&s.old).expect("it was spawned");
        job.made_room_for = Some(job.generation);
        job.replaced.get_or_insert(now);
        cover.mark(Mark::Swapped);
    }

    /// This one has ended, for which another is on its way: that has the place now.
    pub fn steps_in(
        &mut self,
        worker: WorkerId,
        ready_for: Option<Duration>,
        announced: bool,
        now: Time,
        cover: &mut Cover,
    ) -> bool {
        let slot = match self.swap.filter(|s| s.old == worker && !s.placed) {
            Some(s) if !self.stopping() => s.slot,
            _ => return false,
        };
        self.vacate(slot, (announced, None), ready_for, Duration::ZERO, now);
        let place = &mut self.places[usize::from(slot.0)];
        place.worker = place.successor.take();
        (place.vacant, place.failed, place.rest) = (None, false, None);
        if let Some(s) = &mut self.swap {
            assert_eq!(place.worker, Some(s.new));
            s.placed = true;
        }
        cover.mark(Mark::SteppedIn);
        true
    }

    /// This one, which was to replace one, is no more, or cannot be had. Was it so?
    pub fn swap_failed(&mut self, worker: WorkerId, cover: &mut Cover) -> bool {
        let coming = |s: &mut Swap| s.new == worker && !s.placed;
        let Some(s) = self.swap.take_if(coming) else {
            return false;
        };
        self.places[usize::from(s.slot.0)].successor = None;
        cover.mark(Mark::SwapFailed);
        true
    }

    /// A reload begins.
    pub fn swap_overtaken(&mut self, now: Time, cover: &mut Cover) {
        let Some(s) = self.swap.take().filter(|s| !s.placed) else {
            return;
        };
        cover.mark(Mark::SwapOvertaken);
        self.places[usize::from(s.slot.0)].successor = None;
        if let Some(job) = self.jobs.get_mut(&s.new) {
            job.replaced.get_or_insert(now);
        }
        // It goes by the policy that it came by, whatever the reload has read.
        self.tried = Some((vec![s.new], self.policy.clone()));
        if let Some(due) = self.jobs.get_mut(&s.old).and_then(|j| j.due.as_mut()) {
            (due.asked, due.doubt) = (false, true);
        }
    }

    /// One is replaced. If it had wished so before it had settled, and for no other reason, it is a failure.
    fn judge_failures(
        &mut self,
        worker: WorkerId,
        failures: Option<u32>,
        now: Time,
        c: &mut Cover,
    ) {
        let p = &self.policy;
        let Some(due) = self.jobs.get_mut(&worker).and_then(|j| j.due.as_mut()) else {
            return assert_eq!(failures, None, "{worker:?} is not due");
        };
        due.failures = failures;
        let Some((told, before)) = due.early else {
            return assert_eq!(failures, None, "{worker:?} had settled");
        };
        let others = due.doubt || due.rss || due.connections || p.recycle.age.is_some();
        if !others {
            assert_eq!(failures, Some(before + 1), "{worker:?} wished so at once");
        }
        if failures.is_some() {
            let (limit, mut least) = (p.backoff.max(p.respawn), p.respawn);
            if !p.backoff.is_zero() {
                least = (0..before.min(40)).fold(least, |d, _| (d * 2).min(limit));
            }
            let least = least.mul_f64(0.8).saturating_sub(Duration::from_micros(1));
            assert!(now - told >= least, "{worker:?}: {least:?} is its backoff");
            c.mark(Mark::FailedByWish);
        }
    }

    /// It is put off, since it has failed by its wish: until then, or until an operator asks for workers.
    fn judge_later(&mut self, worker: WorkerId, wait: Option<Duration>, c: &mut Cover) {
        let due = self.jobs[&worker].due.unwrap_or_default();
        assert!(due.early.is_some(), "{worker:?} is put off");
        if wait.is_none() {
            assert!(self.forks_spent(), "{worker:?}: there are forks left");
            c.mark(Mark::WishNotHeeded);
        }
    }

    /// Something is said of it.
    pub fn swap_said(&mut self, notice: &Notice, now: Time, cover: &mut Cover) {
        if let Notice::RecyclesLater { who, wait, .. } = notice {
            return self.judge_later(self.of_pid(who.pid), *wait, cover);
        }
        let Notice::Recycling { who, why, failures } = notice else {
            return;
        };
        let worker = self.of_pid(who.pid);
        self.judge_failures(worker, *failures, now, cover);
        let job = &self.jobs[&worker];
        match why {
            Reason::Age { age, limit } => {
                // (Of those that had to wait for others it is as it was when they came due.)
                let ready = job.ready.expect("it ages");
                assert!(age >= limit && now - ready >= *age);
            }
            Reason::Rss { rss, limit } => assert!(rss > limit && *limit <= RSS),
            Reason::Connections { served, limit } => assert!(served >= limit && *limit <= 100),
            Reason::Wish(_) => assert!(job.due.is_some_and(|d| d.wish)),
            Reason::Asked(_) => assert!(job.due.is_some_and(|d| d.asked)),
        }
    }

    /// When one piece of news has had all its consequences: has it come to its end?
    pub fn swap_settled(&mut self) {
        let Some(s) = self.swap.filter(|s| s.placed) else {
            return;
        };
        let gone = |w: &WorkerId| self.jobs.get(w).is_none_or(|j| j.exit_told || j.stuck);
        let serves = self.jobs.get(&s.new).is_some_and(Job::serves);
        // One that has stepped in is waited for until it is ready, or fails.
        let stepped = self.jobs[&s.old].made_room_for.is_none();
        let over = match stepped {
            true => serves || gone(&s.new),
            false => gone(&s.old),
        };
        if over {
            self.swap = None;
        }
    }

    /// Is nobody on its way in or out?
    pub fn nobody_goes(&self) -> bool {
        let goes = |w: &WorkerId| self.jobs[w].has_to_go() || !self.jobs[w].serves();
        !self.living.iter().any(goes)
    }

    /// Whoever was due has been replaced, some time ago.
    pub fn nobody_is_due(&self, now: Time, limit: Duration, quiet: bool) {
        let age = self.policy.recycle.age;
        let limit = limit + Duration::from_secs(40) * self.wanted as u32;
        for worker in self.ready_workers() {
            let job = &self.jobs[&worker];
            let told = quiet && job.due.is_some_and(|d| d.wish && !self.is_put_off(&d, now));
            let ready = job.ready.expect("it is");
            let late = age.is_some_and(|age| now - ready > age + limit);
            assert!(!told && !late, "{job:?} is due, and stays");
        }
    }

    /// May it wait still, because it has failed by its wish?
    fn is_put_off(&self, due: &Due, now: Time) -> bool {
        let p = &self.policy;
        let most = p.backoff.max(p.respawn) + self.held_most();
        due.early
            .is_some_and(|(told, _)| self.forks_spent() || now - told <= most)
    }

    /// A client that asked for a restart is answered.
    pub fn restart_replied(&mut self, asker: Asker, outcome: &Outcome, cover: &mut Cover) {
        assert!(self.restarters.remove(&asker));
        match outcome {
            Outcome::Restarted { old, new, .. } => {
                let gone = |j: &&Job| j.exit_told || j.stuck || j.has_to_go();
                let of = |pid| self.jobs.values().find(|j| j.pid == pid);
                assert!(of(old.pid).filter(gone).is_some(), "{old:?} is there still");
                // (The number of one that has gone before it was forked may be its own.)
                let twice = self.jobs.values().filter(|j| j.pid == old.pid).count() > 1;
                assert!(new.pid.is_some() && (new.pid != old.pid || twice));
                cover.mark(Mark::Restarted);
            }
            Outcome::NotRestarted { hitch, .. } => {
                match hitch {
                    Hitch::Stopping => assert!(self.stopping()),
                    Hitch::Replacing => assert!(self.rollout.is_some()),
                    Hitch::Overtaken { .. }
                    | Hitch::Died(_)
                    | Hitch::NotForked { .. }
                    | Hitch::Stuck(_)
                    | Hitch::Leaves(_)
                    | Hitch::Gone(_)
                    | Hitch::Superseded { .. } => {}
                    Hitch::Hangs(_)
                    | Hitch::CalledOff { .. }
                    | Hitch::UnderWay(_)
                    | Hitch::Unreadable(_)
                    | Hitch::TooEarly => {
                        panic!("{hitch:?} is no end of a restart")
                    }
                }
                cover.mark(Mark::NotRestarted);
            }
            Outcome::Restarting { .. }
            | Outcome::TooMany
            | Outcome::Nobody { .. }
            | Outcome::Unknown { .. } => {}
            other => panic!("{other:?} is no answer to a restart"),
        }
    }
}

/// More memory than that no worker may have.
pub const RSS: u64 = 1 << 30;

/// The time that the hasty give.
pub const HASTE: Duration = Duration::from_millis(300);

fn is_pid(job: &Job, n: u32) -> bool {
    job.pid == i32::try_from(n).ok().map(Pid)
}

impl World {
    /// How much memory they have: mostly little.
    pub fn weigh(&mut self, workers: &[WorkerId]) -> Event {
        assert!(workers.len() <= 64, "I9: {} are weighed", workers.len());
        let healed = self.healed;
        let mut size = |w: &WorkerId| {
            let much = !healed && self.rng.one_in(4);
            let rss = if much { RSS + 1 } else { RSS / 2 - 1 };
            (*w, rss)
        };
        let sizes = workers.iter().map(&mut size).collect();
        Event::Weighed { sizes }
    }

    /// Some worker has served so many.
    pub fn count_some(&mut self) {
        let all: Vec<WorkerId> = self.judge.living.iter().copied().collect();
        if !all.is_empty() {
            let worker = self.rng.pick(&all);
            let served = self.rng.range(1, 200);
            self.post(Event::Counted { worker, served });
        }
    }

    /// A client asks for another worker in place of one.
    pub fn restart(&mut self, target: Target, wait: bool) {
        self.next_asker += 1;
        let within = self.rng.one_in(4).then_some(HASTE);
        self.post(Event::Restart(Restart {
            asker: Asker(self.next_asker),
            target,
            program: None,
            within,
            by: By {
                pid: Pid(1),
                uid: 0,
            },
            wait,
        }));
    }
}
