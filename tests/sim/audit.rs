//! What the judge looks at in the whole world, and not in one piece of news or one action: at the end
//! of each turn, between turns, when a leader is reaped, and when the master has left. And what stale
//! news must do, which is nothing.

use crate::cover::Mark;
use crate::judge::GRACE;
use crate::kernel::{MASTER, Process, Serial};
use crate::records::{Ending, Job};
use crate::world::World;
use minicluster::core::{Ask, Event, Phase, Time, WorkerId};
use std::time::Duration;

impl World {
    /// What must be true when the master goes to sleep.
    pub fn end_turn(&mut self) {
        if self.judge.finished.is_some() {
            return;
        }
        if let Some((at, why)) = self.cluster.deadline() {
            assert!(at > self.now, "{why:?} was due at {at:?} and is still set");
        }
        self.nothing_overdue(Time(self.now.0 + 1));
        self.perhaps_hand_over();
        let c = &self.cluster;
        assert_eq!(usize::from(c.wanted()), self.judge.wanted);
        assert_eq!(c.phase() == Phase::Serving, !self.judge.stopping());
        assert_eq!(
            c.ready_count(),
            self.judge.ready(),
            "who is ready, and where?"
        );
        assert_eq!(c.generation(), self.judge.generation);
        // What is shown is all of it, and dear.
        if self.judge.handled % 16 == 0 {
            let view = c.status(self.now);
            assert!(view.slots.len() >= view.wanted && view.ready == c.ready_count());
        }
    }

    /// What should have been done before this moment has been.
    pub fn nothing_overdue(&self, now: Time) {
        self.judge.nothing_overdue(now);
        // Once the workers have gone and the stop timeout is over, what is left was sent SIGKILL.
        let most = self.judge.limits().kill() + self.judge.lost;
        let over = |e: Ending| e.since + most < now;
        let workers = self
            .judge
            .living
            .iter()
            .any(|w| self.judge.jobs[w].leader.is_some());
        if workers || !self.judge.ending.is_some_and(over) {
            return;
        }
        for p in self.procs.values() {
            // Of one that lost its parent just now we have not heard yet; or never will, if that was
            // not our child: then the next look finds it.
            let news = match p.unheard {
                true => GRACE,
                false => self.faults.latency,
            };
            let late = |at: Time| now - at > news + Duration::from_nanos(1);
            let ours = p.parent == MASTER && p.lives() && p.adopted.is_none_or(late);
            let fine = !ours || p.killed.is_some();
            let ending = self.judge.ending;
            assert!(
                fine,
                "leftover {} is spared {most:?} after {ending:?}, at {now:?}",
                p.pid
            );
        }
    }

    /// A leader has ended and is reaped: its group was told to end, too, by SIGKILL, unless it was told
    /// to stop.
    pub fn group_was_told(&self, worker: WorkerId, leader: Serial) {
        let job = &self.judge.jobs[&worker];
        let stopping = job.has_to_go() && job.kill.is_none();
        let group = self.procs.values().filter(|p| p.group == leader);
        for p in group.filter(|p| p.lives()) {
            let told = p.killed.is_some() || (stopping && p.signalled);
            assert!(told, "{worker:?} has ended, and {} was not told", p.pid);
        }
    }

    /// The master has left: nobody of ours may be alive but those it named.
    pub fn inspect(&mut self, code: u8) {
        let stuck = self.judge.stuck.clone();
        let named = |serial: Serial| stuck.contains(&self.procs[&serial].pid);
        for pid in &stuck {
            let p = self.procs.values().find(|p| p.pid == *pid);
            let p = p.unwrap_or_else(|| panic!("pid {pid} is called stuck but is reaped"));
            // Its end may be news that is still on its way; older news must have been heard.
            let fresh = |at: Time| self.now - at <= self.faults.latency;
            assert!(
                p.ended.is_none_or(fresh),
                "pid {pid} is called stuck but is dead"
            );
            // One that became ours late, when its parent ended, may have had less time than that.
            // And with a budget there is what is left of it.
            let grace = match (p.adopted, self.judge.policy.stop_budget) {
                (Some(_), _) | (_, Some(_)) => Duration::ZERO,
                (None, None) => GRACE,
            };
            // One whose end is not known yet needed no killing.
            let tried = p.killed.is_some_and(|t| self.now - t >= grace);
            assert!(
                tried || p.ended.is_some(),
                "pid {pid} is called stuck but was not killed in time"
            );
        }
        let living: Vec<Serial> = self.those(|p| p.lives());
        // What has no names ends with the first process of the namespace, which that one has not done
        // before it had to.
        let nameless = self.faults.nameless && self.judge.gave_up_stuck;
        if nameless && stuck.is_empty() {
            // With a budget there is what is left of it, and the news of their end may be under way.
            let grace = match self.judge.policy.stop_budget {
                Some(_) => Duration::ZERO,
                None => GRACE,
            };
            let tried = |p: &Process| {
                let fresh = p
                    .ended
                    .is_none_or(|at| self.now - at <= self.faults.latency);
                // One whose end is not known yet needed no killing.
                let known = p.ended.is_some() || p.killed.is_some_and(|t| self.now - t >= grace);
                fresh && known
            };
            assert!(self.procs.values().any(tried), "gave up too early");
        }
        for serial in living.iter().filter(|_| !nameless) {
            let (mut at, p) = (*serial, &self.procs[serial]);
            while !named(at) && at != MASTER {
                at = self.procs[&at].parent;
                if at == MASTER {
                    panic!("pid {} of {:?} is left alive", p.pid, p.worker);
                }
            }
        }
        if self.judge.finished_with == Some(code) {
            return;
        }
        let mark = match code {
            0 => Mark::Exit0,
            1 => Mark::Exit1,
            69 => Mark::Exit69,
            71 if self.judge.gave_up_stuck => Mark::Exit71Stuck,
            71 => Mark::Exit71GaveUp,
            75 => Mark::Exit75,
            77 => Mark::Exit77,
            78 => Mark::Exit78,
            126 => Mark::Exit126,
            127 => Mark::Exit127,
            other => panic!("exit code {other} is not in the manual"),
        };
        self.cover.mark(mark);
    }

    /// Keeps some of what was told, to tell it again when it is stale.
    pub fn remember(&mut self, event: &Event) {
        let about_worker = matches!(
            event,
            Event::Spawned { .. }
                | Event::IsThere { .. }
                | Event::SpawnFailed { .. }
                | Event::Execed { .. }
                | Event::ExecFailed { .. }
                | Event::TakeoverRefused { .. }
                | Event::Seen { .. }
                | Event::Exited { .. }
                | Event::TreeGone { .. }
        );
        if about_worker {
            self.told.push_back(event.clone());
            if self.told.len() > 64 {
                self.told.pop_front();
            }
        }
    }

    /// A process of a tree that core has dropped asks for bind(2) still: the kernel may decide.
    fn stranger_asks(&mut self) {
        let gone = |(_, j): &(&WorkerId, &Job)| !j.known();
        let Some(worker) = self.judge.jobs.iter().find(gone).map(|(w, _)| *w) else {
            return;
        };
        self.next_ask += 1;
        let event = Event::BindAsked {
            worker,
            ask: Ask(self.next_ask),
            addr: "0.0.0.0:3000".parse().unwrap(),
            device: None,
            snag: None,
        };
        self.settle(event, None);
    }

    /// News of a worker that has ended must do nothing at all.
    pub fn stale(&mut self) {
        let job = |w: &WorkerId| self.judge.jobs.get(w);
        let gone = |w: &WorkerId| job(w).is_none_or(|j| !j.known());
        let ended = |w: &WorkerId| job(w).is_none_or(|j| j.exit_told);
        let old = |e: &&Event| match e {
            Event::Spawned { worker, .. }
            | Event::SpawnFailed { worker, .. }
            | Event::Execed { worker }
            | Event::Seen { worker, .. }
            | Event::Exited { worker, .. } => ended(worker),
            // Of one that has left others behind, these say something still.
            Event::ExecFailed { worker, .. }
            | Event::TakeoverRefused { worker, .. }
            | Event::TreeGone { worker } => gone(worker),
            _ => false,
        };
        let old: Vec<&Event> = self.told.iter().filter(old).collect();
        if old.is_empty() {
            return;
        }
        let event = self.rng.pick(&old).clone();
        if self.judge.finished.is_some() || self.cluster.deadline().is_some_and(|d| d.0 <= self.now)
        {
            return;
        }
        if self.rng.one_in(4) {
            return self.stranger_asks();
        }
        self.cover.mark(Mark::Stale);
        self.say("stale", || format!("{event:?}"));
        let mut out = Vec::new();
        self.cluster.handle(event, self.now, &mut out);
        assert!(out.is_empty(), "stale news has led to {out:?}");
    }
}
