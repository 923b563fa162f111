//! One piece of news, from its coming to what is to be done about it: who it is for, what follows from it
//! wherever it came from, in which order, and which deadlines are due. What each of them means is in the room
//! of what it is about.

use super::action::Action;
use super::deadlines::Why;
use super::event::{Event, More, Restart, Shutdown};
use super::ids::Time;
use super::lane::Asked;
use super::outcome::{Hitch, Outcome};
use super::phase::Phase;
use super::rollout::Wish;
use super::{Cluster, Out};
use std::time::Duration;

impl Cluster {
    /// The first actions: open the given ports; workers follow when they are open.
    pub fn begin(&mut self, now: Time, out: &mut Out) {
        let before = out.len();
        self.open_given(out);
        self.begin_spawning(now, out);
        self.counts.hear(out.iter().skip(before));
        self.assert_invariants();
    }

    fn begin_spawning(&mut self, now: Time, out: &mut Out) {
        if self.opened || !self.given_open() || self.phase != Phase::Serving {
            return;
        }
        self.opened = true;
        if let Some(limit) = self.policy.start_timeout {
            self.deadlines.set(Why::StartTimeout, now + limit);
        }
        self.spawn_first(now, out);
    }

    /// One piece of news. Stale news is dropped; anything may be told at any time. Deadlines fire at
    /// `Tick` alone, which the shell tells last in a turn: after a pause of the master, what has
    /// happened comes before what should have.
    pub fn handle(&mut self, event: Event, now: Time, out: &mut Out) {
        let before = out.len();
        self.step(event, now, out);
        self.counts.hear(out.iter().skip(before));
    }

    fn step(&mut self, event: Event, now: Time, out: &mut Out) {
        if let Phase::Done(code) = self.phase {
            return self.too_late(event, code, out);
        }
        match event {
            Event::Spawned { worker, pid } => self.spawned(worker, pid, now, out),
            Event::IsThere {
                worker,
                pid,
                since,
                lanes,
            } => self.is_there((worker, pid, since), &lanes, now, out),
            Event::SpawnFailed { worker, errno } => self.spawn_failed(worker, errno, now, out),
            Event::TakeoverRefused { worker, errno } => {
                self.takeover_refused(worker, errno, now, out)
            }
            Event::Execed { worker } => self.execed(worker, now, out),
            Event::ExecFailed {
                worker,
                step,
                errno,
            } => self.exec_failed(worker, step, errno, now, out),
            Event::BindAsked {
                worker,
                ask,
                addr,
                device,
                snag,
            } => self.bind_asked(worker, ask, Asked { addr, device }, snag, out),
            Event::ListenAsked { worker, ask, lane } => self.listen_asked(worker, ask, lane, out),
            Event::Listens { worker, lane } => self.listened(worker, lane, now, out),
            Event::Seen { worker, what } => self.seen(worker, what, now, out),
            Event::Probed { worker, answer } => self.probed(worker, answer, now, out),
            Event::Checked { check, answer } => self.checked(check, answer, now, out),
            Event::Said { worker, word } => self.said(worker, word, now, out),
            Event::LaneOpened { lane, addr } => {
                self.lane_opened(lane, addr, out);
                self.begin_spawning(now, out);
            }
            Event::LaneFailed {
                lane,
                errno,
                holder,
            } => self.lane_failed(lane, errno, holder, now, out),
            Event::LaneAlone { lane } => {
                self.lane_alone(lane, out);
                self.begin_spawning(now, out);
            }
            Event::Census { lanes, loads, took } => self.census(&lanes, &loads, took, now, out),
            Event::Weighed { sizes } => self.weighed(&sizes, now),
            Event::Counted { worker, served } => self.counted(worker, served, now),
            Event::Closed { worker, count } => self.closed(worker, count),
            Event::Dismissed { worker, done, took } => self.dismissed(worker, done, took, now, out),
            Event::Reload {
                asker,
                wait,
                by,
                why,
                with,
                terms,
            } => {
                let wish = Wish {
                    asker,
                    wait,
                    by,
                    why,
                    terms,
                };
                self.reload_asked(wish, with, now, out)
            }
            Event::BackOut { asker, by } => self.back_out(asker, by, now, out),
            Event::Start(more) => self.start_asked(more, now, out),
            Event::LaneDied { lane } => self.lane_died(lane, now, out),
            Event::LaneLeft { lane } => self.lane_left(lane, out),
            Event::AdoptFailed { lane, step, errno } => self.adopt_failed(lane, step, errno, out),
            Event::Exited {
                worker,
                status,
                oom,
                last,
            } => self.exited(worker, (status, oom), last, now, out),
            Event::TreeGone { worker } => self.tree_gone(worker),
            Event::StrayReaped => self.stray_reaped(out),
            Event::Served { lanes } => self.served(&lanes, now, out),
            Event::Waiting { seen } => self.waiting_seen(&seen, now, out),
            Event::Strays { left, zombies } => self.strays(left, 0, zombies, now, out),
            // At least one.
            Event::StraysUnnamed => self.strays(Vec::new(), 1, false, now, out),
            Event::Signal(signal) => self.signalled(signal, now, out),
            Event::Stop { asker, hard, by } => self.stop_asked(asker, hard, by, now, out),
            Event::Resize {
                asker,
                to,
                by,
                wait,
            } => self.resize_asked(asker, to, by, wait, now, out),
            Event::Restart(wish) => self.restart_asked(wish, now, out),
            Event::Shutdown(wish) => self.shutdown_asked(wish, now, out),
            Event::Exit { asker, by } => self.exit_asked(asker, by, now, out),
            Event::StopWithin { asker, within, by } => {
                self.stop_within(asker, within, by, now, out)
            }
            Event::Rotate { enable, why, by } => self.rotate(enable, why, by, out),
            Event::SignalWorkers {
                asker,
                signal,
                target,
                by,
            } => self.relay(asker, signal, target, by, out),
            Event::AskerGone { asker } => {
                self.askers.retain(|a| *a != asker);
                self.resizers.retain(|a| *a != asker);
                self.restarter_gone(asker);
                if let Some(r) = &mut self.rollout {
                    r.askers.retain(|a| *a != asker);
                }
                self.starter_gone(asker);
                self.closer_gone(asker);
            }
            Event::Tick => self.expire(now, out),
        }
        // Before anything else is begun, and again if that has left nothing.
        self.leave_if_over(now, out);
        self.rollout_progress(now, out);
        self.starting_progress(now, out);
        self.swap_progress(now, out);
        self.leave_if_over(now, out);
        self.steer(out);
        self.drain_progress(now, out);
        self.retire_lanes(out);
        self.shutdown_progress(out);
        self.checks_progress(now, out);
        self.rotation_progress(now, out);
        self.assert_invariants();
    }

    /// Nothing follows Finish; but who asks in this very turn hears of it.
    fn too_late(&self, event: Event, code: u8, out: &mut Out) {
        let (asker, outcome) = match event {
            Event::Stop { asker, .. }
            | Event::Exit { asker, .. }
            | Event::StopWithin { asker, .. } => {
                let stuck = Vec::new();
                (asker, Outcome::Ended { code, stuck })
            }
            Event::Resize { asker, .. } => {
                let (workers, hitch) = (self.wanted, Hitch::Stopping);
                (asker, Outcome::NotResized { workers, hitch })
            }
            Event::Reload {
                asker: Some(asker), ..
            } => {
                let outcome = Outcome::NotReloaded {
                    generation: self.generation,
                    hitch: Hitch::Stopping,
                    ready: 0,
                };
                (asker, outcome)
            }
            Event::BackOut { asker, .. } => (asker, Outcome::NothingToBackOut),
            Event::Start(More { asker, .. }) => {
                let (started, hitch) = (0, Hitch::Stopping);
                (asker, Outcome::NotStarted { started, hitch })
            }
            Event::Restart(Restart { asker, .. }) => {
                let (hitch, ready) = (Hitch::Stopping, 0);
                (asker, Outcome::NotRestarted { hitch, ready })
            }
            Event::Shutdown(Shutdown { asker, .. }) => {
                let hitch = Hitch::Stopping;
                (asker, Outcome::NotShutDown { hitch })
            }
            Event::SignalWorkers { asker, target, .. } => (asker, Outcome::Nobody { target }),
            Event::Spawned { .. }
            | Event::IsThere { .. }
            | Event::SpawnFailed { .. }
            | Event::TakeoverRefused { .. }
            | Event::Execed { .. }
            | Event::ExecFailed { .. }
            | Event::BindAsked { .. }
            | Event::ListenAsked { .. }
            | Event::Listens { .. }
            | Event::Seen { .. }
            | Event::Checked { .. }
            | Event::Probed { .. }
            | Event::Said { .. }
            | Event::LaneOpened { .. }
            | Event::LaneFailed { .. }
            | Event::LaneDied { .. }
            | Event::LaneLeft { .. }
            | Event::AdoptFailed { .. }
            | Event::LaneAlone { .. }
            | Event::Census { .. }
            | Event::Weighed { .. }
            | Event::Counted { .. }
            | Event::Closed { .. }
            | Event::Dismissed { .. }
            | Event::Reload { asker: None, .. }
            | Event::Exited { .. }
            | Event::TreeGone { .. }
            | Event::StrayReaped
            | Event::Strays { .. }
            | Event::StraysUnnamed
            | Event::Served { .. }
            | Event::Waiting { .. }
            | Event::Signal(_)
            | Event::Rotate { .. }
            | Event::AskerGone { .. }
            | Event::Tick => return,
        };
        out.push(Action::Answer { asker, outcome });
    }

    /// The master stood still for so long and knows it now: by that time nobody is judged. How many that
    /// concerns.
    pub fn stood_still(&mut self, by: Duration) -> usize {
        let moved = self.deadlines.delay(by);
        self.assert_invariants();
        moved
    }

    /// Every deadline that is due, each once.
    fn expire(&mut self, now: Time, out: &mut Out) {
        while let Some((due, why)) = self.deadlines.take_due(now) {
            match why {
                Why::Hold(id)
                | Why::Look(id)
                | Why::Probe(id)
                | Why::Alive(id)
                | Why::Ready(id)
                | Why::Watchdog(id)
                | Why::Age(id)
                | Why::Drain(id)
                | Why::Kill(id)
                | Why::KillAgain(id) => self.worker_due(id, (due, why), now, out),
                Why::Respawn(_) => {
                    self.spawn_due(now, out);
                    // One that is given up instead is the last that was waited for, perhaps.
                    self.resize_progress(out);
                }
                Why::Census => self.take_census(now, out),
                Why::DrainDelay => self.leave_service(now, out),
                // What is due then is seen to after every event.
                Why::Successors | Why::Watch | Why::Swap | Why::Check(_) => {}
                Why::Weigh => self.weigh(now, out),
                Why::StartTimeout => self.start_overdue(now, out),
                Why::Unserved => self.look_for_servers(out),
                Why::Hung => self.look_for_hung(now, out),
                Why::Leftovers => self.kill_leftovers(now, out),
                Why::GiveUp => self.look_once_more(out),
            }
        }
    }

    /// In the builds that tests run; what is installed only goes on.
    #[allow(clippy::panic)]
    fn assert_invariants(&self) {
        if cfg!(debug_assertions)
            && let Err(breach) = self.check()
        {
            panic!("invariant broken: {breach}\n{self:#?}");
        }
    }
}
