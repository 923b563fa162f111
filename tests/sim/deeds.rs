//! The judge of deeds: whom core forks, whom it signals and when, and what it lends.

use crate::cover::Cover;
use crate::judge::{GRACE, Judge, LEAD, SIGABRT};
use crate::kernel::SIGKILL;
use crate::records::Job;
use crate::reloads::Rollout;
use crate::sizes::Happens;
use minicluster::core::{
    Addr, Ask, LaneId, Program, Reader, SlotNr, Takeover, Time, Whom, WorkerId,
};
use std::time::Duration;

impl Judge {
    /// A worker is asked for.
    pub fn spawned(
        &mut self,
        worker: WorkerId,
        slot: SlotNr,
        reader: Reader,
        now: Time,
        cover: &mut Cover,
    ) {
        let generation = reader.generation;
        assert!(!self.stopping(), "{worker:?} spawned while stopping");
        let open = self.lanes.values().filter(|l| l.given && l.open).count();
        assert!(
            self.opened.is_some() || open == self.policy.given.len(),
            "{worker:?} spawned before the given ports are open"
        );
        if self.opened.is_none() {
            self.opened = Some(now);
            for place in self.places.iter_mut().filter(|p| !p.closed) {
                place.vacant = Some((now, Duration::ZERO, LEAD));
            }
        }
        assert!(
            !self.places[usize::from(slot.0)].closed,
            "slot {slot} is not wanted"
        );
        let to = self.rollout.as_ref().map(|r| r.to);
        let surge = usize::from(self.surge());
        // (They have been watched by now, if they are to be.)
        // (A respawn comes before what follows from its news.)
        if self.rollout.as_ref().is_some_and(|r| r.to == generation) {
            self.promote(now, cover);
        }
        let canaries = self.canaries();
        let successors = self.places.iter().filter(|p| p.successor.is_some()).count();
        let place = &mut self.places[usize::from(slot.0)];
        let comes_after = to == Some(generation) && place.generation != generation;
        let beside = place.worker.filter(|_| to.is_none());
        let mut job = Job::new(worker, slot, reader, now);
        let terms = self.rollout.as_ref().filter(|r| r.to == generation);
        let asked = terms.and_then(|r| r.terms.ready);
        let added = self.start_ready.filter(|_| self.added == Some(slot));
        job.ready_most = asked.or(added).or(self.policy.ready_timeout);
        self.jobs.insert(worker, job);
        self.living.insert(worker);
        if let Some(old) = beside {
            assert_eq!(place.generation, generation, "{worker:?} is other code");
            return self.swap_begins(slot, old, worker, now);
        }
        if surge > 0 && comes_after {
            assert!(
                place.successor.is_none(),
                "I1: slot {slot} has a successor already"
            );
            let most = match canaries {
                0 => surge,
                n => n,
            };
            assert!(successors < most, "more than {most} successors");
            place.successor = Some(worker);
            if let Some(r) = &mut self.rollout {
                r.rest_comes = false;
            }
            return;
        }
        assert!(place.worker.is_none(), "slot {slot} has a worker already");
        assert!(
            place.generation == generation || comes_after,
            "{worker:?} is of {generation}"
        );
        assert!(
            place.rest.is_none() || comes_after,
            "slot {slot} rests: {place:?}"
        );
        place.rest = None;
        let respawn = std::mem::take(&mut place.failed) && !comes_after;
        place.generation = generation;
        if comes_after {
            // Another code's failures are not its own, nor does it wait for them if its turn is now.
            place.failures = 0;
        }
        let forward = self.rollout.as_ref().is_some_and(|r| !r.back);
        if let Some((since, least, _)) = place.vacant.take() {
            let waited = now - since;
            let least = match comes_after && forward {
                true => Duration::ZERO,
                false => least,
            };
            assert!(
                waited >= least,
                "slot {slot} waited {waited:?}, not {least:?}"
            );
        }
        place.worker = Some(worker);
        if respawn {
            self.respawned(slot, now);
        }
    }

    /// What it runs: after an upgrade all the same.
    pub fn runs(&mut self, worker: WorkerId, program: Program) {
        let job = self.jobs.get_mut(&worker).expect("it is spawned");
        job.program = program;
        let generation = job.generation;
        let upgrade = |r: &Rollout| r.terms.upgrade && r.to == generation;
        if self.rollout.as_ref().is_some_and(upgrade) {
            assert_eq!(program, Program(0), "{worker:?} is no part of the upgrade");
        }
    }

    /// A worker is signalled: only while its first process is not reaped, and for a reason.
    pub fn signalled(
        &mut self,
        worker: WorkerId,
        signal: i32,
        whom: Whom,
        now: Time,
        cover: &mut Cover,
    ) {
        let cut = self.limits().cut();
        let soft = signal == self.policy.stop_signal
            && whom == Whom::Leader
            && !matches!(self.happens, Happens::Relay { .. })
            && self.may_go(worker, now, cover);
        let stop_most = self.policy_of(worker).stop_timeout;
        let p = &self.policy;
        let job = self.jobs.get_mut(&worker).expect("signal to nobody");
        let over = |from: Option<Time>, limit: Duration| from.is_some_and(|t| now - t >= limit);
        let own_over = job.own_time.is_some_and(|(at, time)| now - at >= time);
        if self.happens.relays(signal, whom) {
            // (One that is drained has listened, though the news of its exec may still be on its way.)
            let runs = job.execed.or(job.drain).or(job.stop).or(job.kill);
            assert!(job.leader.is_some() && runs.is_some() && !job.exit_told);
            return;
        }
        if job.leader.is_none() {
            // What it left, when its own time would have been over.
            let known = !job.gone_told && !job.forgotten && whom == Whom::Group;
            let asked = job.stop.or(job.drain);
            let late = (own_over || over(asked, job.stop_most)) && signal == SIGKILL;
            assert!(known && late, "signal to {worker:?}, which is gone");
            return;
        }
        if self.ending_worker == Some(worker) {
            let passed_on = signal == p.stop_signal && job.has_to_go();
            assert!(whom == Whom::Group && (signal == SIGKILL || passed_on));
            return;
        }
        assert!(!job.exit_told, "signal to {worker:?} after its end");
        if signal == p.stop_signal && whom == Whom::Leader {
            assert!(soft, "stop signal without a reason");
            assert!(job.stop.is_none() && !job.failed);
            (job.stop, job.stop_most) = (Some(now), stop_most);
            return;
        }
        if signal == SIGABRT && whom == Whom::Leader {
            let silent = p.watchdog.is_some_and(|l| over(job.pulse, l));
            let waited = p.hang_timeout.zip(job.waited);
            let hung = match job.untouched {
                true => waited.is_some_and(|(limit, waited)| waited >= limit),
                false => silent || job.trigger,
            };
            assert!(hung, "{worker:?} does not hang: {job:?}");
            assert!(job.stop.is_none() && job.kill.is_none() && job.abort.is_none());
            let watched = self.is_watched(worker, now);
            if let Some(job) = self.jobs.get_mut(&worker) {
                job.abort = Some(now);
            }
            if watched {
                self.rollout_fails(now, cover);
            }
            return;
        }
        assert!(signal == SIGKILL && whom == Whom::Group);
        let hard = self.ending.is_some_and(|e| e.hard);
        let hung = over(job.abort, Duration::from_secs(2));
        let since = self.ending.map(|e| e.since);
        let leaves = job
            .surplus
            .or(job.replaced)
            .or(since)
            .filter(|_| job.failed);
        let goes = job.stop.or(leaves).or(job.abort);
        let cut = cut.is_some_and(|c| over(since, c));
        // A stop hurries those that were going by what was the policy then.
        let most = match since {
            Some(_) => job.stop_most.min(p.stop_timeout),
            None => job.stop_most,
        };
        // One that hangs has no more time than others.
        let hurries = job.abort.is_some() && over(since, p.stop_timeout);
        let asked = hurries
            || own_over
            || over(job.stop, most)
            || over(leaves, p.stop_timeout)
            || goes.is_some() && cut;
        let hurried = since.is_some() && p.stop_budget.is_some();
        let never_ready = job.ready.is_none();
        let late = job
            .ready_most
            .is_some_and(|l| never_ready && over(Some(job.spawned), l));
        let late = late || job.hasty && never_ready && over(Some(job.spawned), crate::swaps::HASTE);
        match job.kill {
            None => assert!(
                hard || asked || late || hung,
                "{worker:?} killed without a reason: {job:?}"
            ),
            Some(_) => assert!(
                over(job.kill, GRACE) || hurried,
                "{worker:?} killed again too soon"
            ),
        }
        job.kill = Some(now);
    }

    /// An ask is answered; what was asked.
    pub fn answered(&mut self, ask: Ask) -> Option<Addr> {
        self.asks
            .remove(&ask)
            .unwrap_or_else(|| panic!("{ask:?} answered, but not asked or answered before"))
    }

    /// A lane is lent: it must be open, and be what was asked for.
    pub fn lent(&mut self, ask: Ask, id: LaneId, worker: Option<WorkerId>) {
        let mut asked = self.answered(ask).expect("a lane lent for a listen(2)");
        let lane = &self.lanes[&id];
        assert!(lane.open, "{id:?} is lent but not open");
        assert!(
            lane.owner.is_none(),
            "{id:?} is {:?}'s own, and lent",
            lane.owner
        );
        if let Takeover::Ports(map) = &self.policy.takeover {
            if let Addr::Tcp(asked) = &mut asked {
                let ours = map.iter().find(|(theirs, _)| *theirs == asked.port());
                asked.set_port(ours.expect("not a port to take over").1);
            }
        }
        // Who has gone meanwhile needs none.
        if let Some(worker) = worker {
            let ours = lane.is_for(&self.jobs[&worker]);
            assert!(ours, "{id:?} of {:?} is lent to {worker:?}", lane.of);
        }
        let fits = match lane.given {
            true if asked.tcp().is_some() => lane.addr.port() == asked.port(),
            true => lane.addr == asked,
            false => lane.addr == asked,
        };
        assert!(fits, "{asked} was asked for and {} lent", lane.addr);
        let named = lane.given || matches!(self.policy.takeover, Takeover::Ports(_));
        let least = self.policy.learn_from;
        assert!(
            named || asked.port().is_none_or(|p| p >= least),
            "{asked} is below {least}"
        );
    }
}
