//! The judge of claims: what core says has to be true.

use crate::closing::CLOSES;
use crate::cover::Cover;
use crate::judge::{Judge, SETTLED};
use crate::records::{Job, Lane, Limits, Place};
use crate::reloads::MAX_GENERATIONS;
use crate::sizes::Happens;
use minicluster::core::{
    Drain, Hang, Hitch, Notice, Pid, Program, ReadyRule, SlotNr, Time, WorkerId,
};

impl Judge {
    /// Something is said that has to be true.
    pub fn said(&mut self, notice: &Notice, now: Time, cover: &mut Cover) {
        self.crash_said(notice, now, cover);
        self.swap_said(notice, now, cover);
        self.rotation_said(notice);
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
                    ReadyRule::Started | ReadyRule::Listening | ReadyRule::Answers => {
                        self.evidence == Some(worker)
                    }
                    ReadyRule::Alive(d) => now - execed >= d,
                };
                assert!(fair, "{worker:?} is not ready yet");
                job.ready = Some(now);
                job.pulse = Some(now);
                let place = self.places.get_mut(usize::from(who.slot.0));
                if let Some(place) = place.filter(|p| p.worker == Some(worker)) {
                    place.proven = true;
                }
                // (Whether all of a batch are is seen when all that was due in this turn has come.)
                self.ever_ready = true;
                self.takes_place(worker, now, cover);
            }
            Notice::Hangs { who, how, .. } => {
                let worker = self.of_pid(who.pid);
                if let Some(job) = self.jobs.get_mut(&worker) {
                    job.untouched = matches!(how, Hang::Untouched { .. });
                }
            }
            Notice::NeverReady { limit, .. } => {
                let late = self.opened.is_some_and(|t| now - t >= *limit);
                let legit = late && !self.ever_ready && self.policy.start_timeout == Some(*limit);
                assert!(legit && !self.stopping(), "gives up without a reason");
                self.give_up(69, now);
            }
            Notice::AllReady { ready, .. } => {
                // (Without a port nothing is steered to those that take their places.)
                self.promote(now, cover);
                assert_eq!(*ready + self.finished_slots(), self.wanted, "all are ready");
                assert!(*ready > 0);
                self.launched = true;
            }
            Notice::PartlyReady {
                ready,
                wanted,
                tries,
                limit,
            } => {
                let empty = |p: &&Place| {
                    p.rest.is_none() && p.worker.is_none_or(|w| !self.jobs[&w].serves())
                };
                let open = self.open().filter(empty);
                assert_eq!(*tries, open.count() > 0, "do the others try?");
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
                    self.may_go(worker, now, cover),
                    "{who} is drained without a reason"
                );
                let p = self.policy_of(worker);
                let (most, by) = (Limits(p).drain(), p.drain);
                let stop_most = p.stop_timeout;
                let job = self.jobs.get_mut(&worker).unwrap();
                let runs = job.execed.is_some() || job.listened.is_some();
                let runs = runs && job.stop.or(job.kill).or(job.abort).is_none();
                assert!(runs && job.drain.is_none(), "{job:?} is drained");
                assert!(by != Drain::None, "nobody is to be drained");
                (job.drain, job.drain_most, job.drained_by) = (Some(now), most, Some(by));
                job.stop_most = stop_most;
                if let Some((_, time)) = job.own_time {
                    job.drain_most = time - stop_most.min(time / 3);
                }
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
            } => self.reload_is_over(*generation, *back, now, cover),
            Notice::ReloadRefused { hitch } => self.reload_has_failed(self.generation, hitch),
            Notice::ReloadFailed {
                generation, hitch, ..
            } => {
                self.reload_has_failed(*generation, hitch);
                if !matches!(hitch, Hitch::Stopping | Hitch::Overtaken { .. }) {
                    self.counted_anew();
                    self.revived(now, cover);
                }
            }
            Notice::Resizing {
                to,
                why: "read again",
                ..
            } => {
                self.promote(now, cover);
                self.settle_generation(now, cover);
                assert_eq!(usize::from(*to), self.wanted, "nobody has asked for {to}");
            }
            Notice::Resizing {
                to,
                why: "added by a client",
                ..
            } => {
                assert_eq!(usize::from(*to), self.wanted + 1, "one after the other");
                assert!(self.rollout.is_none() && !self.starters.is_empty() || *to > 0);
                let next = self.places.iter().position(|p| p.closed);
                let next = next.unwrap_or(self.places.len());
                self.added = Some(SlotNr(next as u16));
                self.added_last = self.added;
                if let Some(asked) = self.start_asked.take() {
                    (self.start_ready, self.start_program) = asked;
                }
                self.grows_by = self.start_program;
                self.want(usize::from(*to), now, cover);
                self.grows_by = Program(0);
            }
            Notice::Resizing {
                to,
                why: "the added slot has failed",
                ..
            } => {
                self.added = None;
                let slot = self.added_last.take().expect("none was added");
                let failed = matches!(self.happens, Happens::Ended(of) if of == slot);
                assert!(failed, "slot {slot} has not failed");
                self.want_without(usize::from(*to), Some(slot), now, cover);
            }
            Notice::Resizing {
                to,
                why: "its start is called off",
                ..
            } => {
                self.added = None;
                let slot = self.added_last.take().expect("none was added");
                assert!(!self.places[usize::from(slot.0)].proven);
                self.want_without(usize::from(*to), Some(slot), now, cover);
            }
            Notice::Resizing {
                to, why: CLOSES, ..
            } => self.closes(usize::from(*to), now, cover),
            Notice::Stuck { pids, .. } => (self.stuck, self.gave_up_stuck) = (pids.clone(), true),
            _ => {}
        }
    }

    /// Which worker has this first process.
    pub fn of_pid(&self, pid: Option<Pid>) -> WorkerId {
        let found = self.living.iter().find(|w| self.jobs[w].pid == pid);
        *found.expect("nobody has that pid")
    }
}
