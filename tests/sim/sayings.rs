//! What the judge has to say to two of the things that core does: it signals somebody, and it says
//! something. Both have to be right at that moment.

use crate::cover::Cover;
use crate::judge::{GRACE, Judge, SETTLED, SIGABRT};
use crate::kernel::SIGKILL;
use crate::records::{Job, Lane, Limits};
use crate::reloads::MAX_GENERATIONS;
use crate::sizes::Happens;
use minicluster::core::{Drain, Notice, ReadyRule, Time, Whom, WorkerId};
use std::time::Duration;

impl Judge {
    /// A worker is signalled: only while its first process is not reaped, and for a reason.
    pub fn signalled(&mut self, worker: WorkerId, signal: i32, whom: Whom, now: Time) {
        let cut = self.limits().cut();
        let soft = signal == self.policy.stop_signal
            && whom == Whom::Leader
            && !matches!(self.happens, Happens::Relay { .. })
            && self.may_go(worker, now);
        let stop_most = self.policy_of(worker).stop_timeout;
        let p = &self.policy;
        let job = self.jobs.get_mut(&worker).expect("signal to nobody");
        let over = |from: Option<Time>, limit: Duration| from.is_some_and(|t| now - t >= limit);
        if self.happens.relays(signal, whom) {
            let runs = job.execed.or(job.stop).or(job.kill);
            assert!(job.leader.is_some() && runs.is_some() && !job.exit_told);
            return;
        }
        if job.leader.is_none() {
            // What it left, when its own time would have been over.
            let known = !job.gone_told && !job.forgotten && whom == Whom::Group;
            let asked = job.stop.or(job.drain);
            let late = over(asked, job.stop_most) && signal == SIGKILL;
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
            assert!(silent, "{worker:?} was heard: {job:?}");
            assert!(job.stop.is_none() && job.kill.is_none() && job.abort.is_none());
            job.abort = Some(now);
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
        let asked =
            over(job.stop, job.stop_most) || over(leaves, p.stop_timeout) || goes.is_some() && cut;
        let hurried = since.is_some() && p.stop_budget.is_some();
        let never_ready = job.ready.is_none();
        let late = p
            .ready_timeout
            .is_some_and(|l| never_ready && over(Some(job.spawned), l));
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

    /// Something is said that has to be true.
    pub fn said(&mut self, notice: &Notice, now: Time, cover: &mut Cover) {
        match notice {
            Notice::Ready { who, .. } => {
                let worker = self.of_pid(who.pid);
                let given = !self.policy.given.is_empty();
                let job = self.jobs.get_mut(&worker).unwrap();
                assert!(job.ready.is_none(), "{worker:?} is ready twice");
                let execed = job.execed.expect("ready before exec");
                let fair = match self.policy.ready {
                    ReadyRule::Auto if given => self.evidence == Some(worker),
                    ReadyRule::Auto => self.evidence == Some(worker) || now - execed >= SETTLED,
                    ReadyRule::Said => job.said && self.evidence == Some(worker),
                    ReadyRule::Started | ReadyRule::Listening => self.evidence == Some(worker),
                    ReadyRule::Alive(d) => now - execed >= d,
                };
                assert!(fair, "{worker:?} is not ready yet");
                job.ready = Some(now);
                job.pulse = Some(now);
                let place = self.places.get_mut(usize::from(who.slot.0));
                if let Some(place) = place.filter(|p| p.worker == Some(worker)) {
                    place.proven = true;
                }
                self.ever_ready = true;
                self.promote(now, cover);
            }
            Notice::NeverReady { limit, .. } => {
                let late = self.opened.is_some_and(|t| now - t >= *limit);
                let legit = late && !self.ever_ready && self.policy.start_timeout == Some(*limit);
                assert!(legit && !self.stopping(), "gives up without a reason");
                self.give_up(69, now);
            }
            Notice::AllReady { ready, .. } => {
                assert_eq!(*ready, self.wanted, "all are ready");
                self.launched = true;
            }
            Notice::PartlyReady {
                ready,
                wanted,
                limit,
            } => {
                let late = self.opened.is_some_and(|t| now - t >= *limit);
                let legit = late && self.policy.start_timeout == Some(*limit);
                assert!(legit && !self.launched, "the start is not over, or was");
                assert!(
                    0 < *ready && ready < wanted,
                    "{ready} of {wanted} are not a part"
                );
                self.launched = true;
            }
            Notice::Unserved { addr } => {
                let lane = |l: &&Lane| l.given && l.open && !l.served && l.addr == *addr;
                let legit = self.ever_ready && self.lanes.values().any(|l| lane(&l));
                assert!(legit, "{addr} is served, or not given");
            }
            Notice::Draining { who, .. } => {
                let worker = self.of_pid(who.pid);
                assert!(
                    self.may_go(worker, now),
                    "{who} is drained without a reason"
                );
                let p = self.policy_of(worker);
                let (most, by) = (Limits(p).drain(), p.drain);
                let stop_most = p.stop_timeout;
                let job = self.jobs.get_mut(&worker).unwrap();
                let runs = job.execed.is_some() && job.stop.or(job.kill).or(job.abort).is_none();
                assert!(runs && job.drain.is_none(), "{job:?} is drained");
                assert!(by != Drain::None, "nobody is to be drained");
                (job.drain, job.drain_most, job.drained_by) = (Some(now), most, Some(by));
                job.stop_most = stop_most;
            }
            Notice::StillThere { who, .. } => {
                let worker = self.of_pid(who.pid);
                self.jobs.get_mut(&worker).unwrap().stuck = true;
                if self.places.iter().any(|p| p.successor == Some(worker)) {
                    self.successor_failed(worker, now, cover);
                }
            }
            Notice::TooManyGenerations {
                generation, limit, ..
            } => {
                assert_eq!(*limit, MAX_GENERATIONS);
                let of = |j: &&mut Job| j.generation == *generation;
                for job in self.jobs.values_mut().filter(of) {
                    job.too_many = true;
                }
            }
            Notice::Reloaded {
                generation, back, ..
            } => self.reload_is_over(*generation, *back, cover),
            Notice::ReloadFailed {
                generation, hitch, ..
            } => self.reload_has_failed(*generation, hitch),
            Notice::Stuck { pids, .. } => (self.stuck, self.gave_up_stuck) = (pids.clone(), true),
            _ => {}
        }
    }
}
