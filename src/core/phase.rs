//! The life of the whole cluster: Serving -> Stopping (Delay -> Workers -> Leftovers) -> Done. Rules:
//!
//! 1. While Stopping nothing is spawned (I8). With --drain-delay it serves for that long still; then
//!    nobody is let in any more, the queues are emptied, and the workers are drained (`drain`).
//! 2. A second request makes a graceful stop hard; nothing makes a hard one graceful. The echo of a
//!    signal is no second one: timeout(1) signals its child, then the group its child is in; npm passes
//!    on the Ctrl-C that the terminal has sent already.
//! 3. The workers go first. What they left behind was signalled with them if it was our child by
//!    then; the rest shows up as our children (we are subreaper) when its parents die, and is
//!    signalled then, and killed when the stop timeout, counted from the last stop signal, is over.
//! 4. Every way leads to Done: the last deadline is GiveUp, exit 71 with the pids. It is set again
//!    only while the number of those that are left falls, and `budget` lets it.
//! 5. Who waits for a resize hears of the stop at its beginning.

use super::action::Action;
use super::codes::{CANNOT_EXECUTE, EX_OSERR, EX_UNAVAILABLE, FAILED, NOT_FOUND};
use super::deadlines::Why;
use super::event::{By, MasterSignal};
use super::ids::{Asker, Pid, Time};
use super::notice::{LeftoverStage, Notice};
use super::outcome::{Hitch, Outcome};
use super::policy::Drain;
use super::worker::{SIGKILL, Worker};
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A TERM or INT that follows another within that time is its echo.
const ECHO: Duration = Duration::from_millis(100);
/// Why it stops if nothing was ever run.
const CANNOT_RUN: &str = "it cannot run";
/// So many clients may wait for what they asked for (I9): fewer than there may be, so that others are heard.
pub const MAX_ASKERS: usize = 192;

/// Where in its life the cluster is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It keeps its slots filled.
    Serving,
    /// It empties them.
    Stopping {
        /// What to exit with.
        code: u8,
        /// By SIGKILL?
        hard: bool,
        /// How far.
        step: Step,
        /// Workers are drained no longer than until then.
        drain_by: Time,
    },
    /// Finish was said.
    Done(u8),
}

/// How far a stop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// It still serves.
    Delay,
    /// Workers remain.
    Workers,
    /// Only what workers left behind remains.
    Leftovers,
}

impl Cluster {
    /// `None` while serving; else whether SIGKILL is the means.
    pub(super) fn stop_is_hard(&self) -> Option<bool> {
        match self.phase {
            Phase::Serving => None,
            Phase::Stopping { hard, .. } => Some(hard),
            Phase::Done(_) => Some(true),
        }
    }

    pub(super) fn signalled(&mut self, signal: MasterSignal, now: Time, out: &mut Out) {
        match signal {
            MasterSignal::Stop(why) => self.stop_or_harder(why, now, out),
            MasterSignal::Kill(why) => self.hard_stop(why, None, now, out),
            MasterSignal::HangUp => match self.phase {
                Phase::Serving => self.stop("the terminal has hung up", None, 0, now, out),
                // The shell that goes away with it hangs up on everyone: once is enough.
                Phase::Stopping { .. } | Phase::Done(_) => {}
            },
            MasterSignal::CallerGone => match self.phase {
                Phase::Serving => {
                    let why = "the caller of -d has gone before the workers were ready";
                    self.stop(why, None, 0, now, out);
                }
                Phase::Stopping { .. } | Phase::Done(_) => {}
            },
            MasterSignal::Resize(to, why) => self.resize_by_signal(to, why, now, out),
            MasterSignal::Rotate { enable, why } => self.rotate(enable, why.into(), None, out),
            MasterSignal::Relay {
                signal,
                target,
                why,
            } => self.relay_by_signal(signal, target, why, out),
        }
    }

    pub(super) fn stop_asked(
        &mut self,
        asker: Asker,
        hard: bool,
        by: By,
        now: Time,
        out: &mut Out,
    ) {
        // Whatever comes of it, it is the end of a resize.
        self.answer_resizers(&Hitch::Stopping, out);
        self.end_starting(Hitch::Stopping, out);
        match self.waiting() < MAX_ASKERS {
            true => self.askers.push(asker),
            false => out.push(Action::Answer {
                asker,
                outcome: Outcome::TooMany,
            }),
        }
        match (hard, self.phase) {
            (true, _) => self.hard_stop("asked by a client", Some(by), now, out),
            (false, Phase::Serving) => self.stop("asked by a client", Some(by), 0, now, out),
            // It is on its way already; a verb, unlike a signal, says clearly which one it means.
            (false, Phase::Stopping { .. } | Phase::Done(_)) => {}
        }
    }

    /// A client wants the end at once, and a good one.
    pub(super) fn exit_asked(&mut self, asker: Asker, by: By, now: Time, out: &mut Out) {
        let was_hard = self.stop_is_hard() == Some(true);
        self.stop_asked(asker, true, by, now, out);
        match &mut self.phase {
            // (One that was hard already has its code.)
            Phase::Stopping { code, .. } if !was_hard => *code = 0,
            Phase::Serving | Phase::Stopping { .. } | Phase::Done(_) => {}
        }
    }

    /// A client wants a graceful stop that is over in that time. One that is under way already has its
    /// own.
    pub(super) fn stop_within(
        &mut self,
        asker: Asker,
        within: Duration,
        by: By,
        now: Time,
        out: &mut Out,
    ) {
        if self.phase == Phase::Serving {
            self.policy.stop_budget = Some(within);
        }
        self.stop_asked(asker, false, by, now, out);
    }

    /// How many clients wait.
    pub(super) fn waiting(&self) -> usize {
        let reloaders = self.rollout.as_ref().map_or(0, |r| r.askers.len());
        let starter = usize::from(self.starter_waits());
        let sizes = self.resizers.len() + self.closers.len();
        self.askers.len() + sizes + reloaders + starter + self.restarters()
    }

    fn stop_or_harder(&mut self, why: &'static str, now: Time, out: &mut Out) {
        if self.heard_at.is_some_and(|at| now - at < ECHO) {
            return;
        }
        self.heard_at = Some(now);
        match self.phase {
            Phase::Serving => self.stop(why, None, 0, now, out),
            // It was giving up by itself: this is the first signal, and asks for no more than that.
            Phase::Stopping { .. } if !self.asked_to_stop => self.asked_to_stop = true,
            Phase::Stopping { .. } => self.hard_stop(why, None, now, out),
            Phase::Done(_) => {}
        }
    }

    /// Gives up with this code.
    pub(super) fn begin_give_up(&mut self, code: u8, now: Time, out: &mut Out) {
        match self.phase {
            Phase::Serving => self.stop(CANNOT_RUN, None, code, now, out),
            Phase::Stopping { .. } | Phase::Done(_) => {}
        }
    }

    /// Nobody asked for it, and it need not have gone wrong.
    pub(super) fn stop_by_itself(&mut self, why: &'static str, code: u8, now: Time, out: &mut Out) {
        self.stop(why, None, code, now, out);
        self.asked_to_stop = false;
    }

    /// --start-timeout has passed, and not all workers are ready.
    pub(super) fn start_overdue(&mut self, now: Time, out: &mut Out) {
        match self.ever_ready {
            true => self.partly_ready(out),
            false => self.never_ready(now, out),
        }
    }

    /// No worker was ever ready.
    fn never_ready(&mut self, now: Time, out: &mut Out) {
        let limit = self.policy.start_timeout.unwrap_or_default();
        let last = self
            .deaths
            .iter()
            .rev()
            .find(|d| !d.last.is_empty())
            .map(|d| d.last.clone())
            .unwrap_or_default();
        let waiting = self.fleet.iter().find(|w| w.unreaped()).map(|w| w.id);
        let hint = waiting.and_then(|id| self.not_ready_hint(id));
        out.push(Action::Note(Notice::NeverReady {
            limit,
            hint,
            waiting,
            last,
        }));
        match self.phase {
            Phase::Serving => self.stop("no worker was ever ready", None, EX_UNAVAILABLE, now, out),
            Phase::Stopping { .. } | Phase::Done(_) => {}
        }
    }

    fn stop(&mut self, why: &'static str, by: Option<By>, code: u8, now: Time, out: &mut Out) {
        let limit = self.stop_limit();
        self.budget_runs(now);
        self.answer_resizers(&Hitch::Stopping, out);
        self.end_starting(Hitch::Stopping, out);
        // Who has failed to start has no clients that should be spared.
        let delay = match code {
            0 if self.ready_count() > 0 => self.delay_of_stop(),
            _ => Duration::ZERO,
        };
        self.phase = Phase::Stopping {
            code,
            hard: false,
            step: Step::Delay,
            drain_by: self.drained_by(now + delay),
        };
        self.end_rollout(out);
        self.asked_to_stop = code == 0;
        self.deadlines.stop(Why::StartTimeout);
        self.deadlines.stop(Why::Unserved);
        for slot in self.slot_numbers() {
            self.deadlines.stop(Why::Respawn(slot));
        }
        let living = self.fleet.unreaped();
        if why == CANNOT_RUN && (code == CANNOT_EXECUTE || code == NOT_FOUND) {
            out.push(Action::Note(Notice::CannotRun { code }));
        } else if code == 0 || !living.is_empty() {
            out.push(Action::Note(Notice::Stopping {
                why,
                by,
                workers: living.len(),
                drain: self.drain_of_stop(now + delay),
                limit,
            }));
        }
        if !delay.is_zero() {
            out.push(Action::Note(Notice::StopDelayed { delay }));
            return self.deadlines.set(Why::DrainDelay, now + delay);
        }
        self.leave_service(now, out);
    }

    /// From now on nobody comes in, and the workers are to go.
    pub(super) fn leave_service(&mut self, now: Time, out: &mut Out) {
        // Counted from now: a pause of the master takes nothing from the workers.
        let by = self.drained_by(now);
        match &mut self.phase {
            Phase::Stopping {
                step: step @ Step::Delay,
                drain_by,
                ..
            } => (*step, *drain_by) = (Step::Workers, by),
            Phase::Serving | Phase::Stopping { .. } | Phase::Done(_) => return,
        }
        self.asked_at = now;
        self.deadlines.stop(Why::DrainDelay);
        // (Or is being emptied: to one whose siblings were to stay somebody comes still.)
        let serves = |w: &Worker| w.may_serve() || w.stage().is_some();
        if self.policy.drain != Drain::None && self.fleet.iter().any(serves) {
            out.push(Action::RefuseNew);
            for lane in self.lanes.iter_mut() {
                lane.emptied = false;
            }
        }
        for id in self.fleet.unreaped() {
            self.end_worker(id, false, now, out);
        }
        self.stop_progress(now, out);
    }

    fn hard_stop(&mut self, why: &'static str, by: Option<By>, now: Time, out: &mut Out) {
        let step = match self.phase {
            Phase::Serving
            | Phase::Stopping {
                step: Step::Delay, ..
            } => Step::Workers,
            Phase::Stopping {
                hard: false, step, ..
            } => step,
            Phase::Stopping { hard: true, .. } | Phase::Done(_) => return,
        };
        self.budget_runs(now);
        self.answer_resizers(&Hitch::Stopping, out);
        self.end_starting(Hitch::Stopping, out);
        self.phase = Phase::Stopping {
            code: FAILED,
            hard: true,
            step,
            drain_by: now,
        };
        self.end_rollout(out);
        self.deadlines.stop(Why::DrainDelay);
        self.deadlines.stop(Why::StartTimeout);
        self.deadlines.stop(Why::Unserved);
        for slot in self.slot_numbers() {
            self.deadlines.stop(Why::Respawn(slot));
        }
        let living = self.fleet.unreaped();
        out.push(Action::Note(Notice::HardStop {
            why,
            by,
            workers: living.len(),
        }));
        for id in living {
            self.end_worker(id, true, now, out);
        }
        match step {
            Step::Delay | Step::Workers => self.stop_progress(now, out),
            Step::Leftovers => self.kill_leftovers(now, out),
        }
    }

    /// Goes on to the leftovers once no worker is left but those that not even SIGKILL ends.
    pub(super) fn stop_progress(&mut self, now: Time, out: &mut Out) {
        let (code, hard, drain_by) = match self.phase {
            Phase::Stopping {
                code,
                hard,
                step: Step::Workers,
                drain_by,
            } => (code, hard, drain_by),
            Phase::Stopping {
                step: Step::Delay, ..
            } if self.fleet.unreaped().is_empty() => return self.leave_service(now, out),
            Phase::Stopping {
                step: Step::Delay, ..
            } => return,
            // A stuck worker has gone at last: its children, if any, are ours now.
            Phase::Stopping {
                step: Step::Leftovers,
                ..
            } => return self.stray_reaped(out),
            Phase::Serving | Phase::Done(_) => return,
        };
        if self.fleet.iter().any(|w| w.unreaped() && !w.stuck) {
            return;
        }
        // What they left was asked with the last of them.
        let kill_at = self.killed_by(self.asked_at);
        self.phase = Phase::Stopping {
            code,
            hard,
            step: Step::Leftovers,
            drain_by,
        };
        if hard || kill_at <= now {
            self.kill_leftovers(now, out);
        } else {
            self.deadlines.set(Why::Leftovers, kill_at);
            let signal = Some(self.policy.stop_signal);
            out.push(Action::SweepStrays { signal });
        }
    }

    pub(super) fn kill_leftovers(&mut self, now: Time, out: &mut Out) {
        self.deadlines.stop(Why::Leftovers);
        let give_up_by = self.give_up_by(now);
        self.deadlines.set(Why::GiveUp, give_up_by);
        let signal = Some(SIGKILL);
        out.push(Action::SweepStrays { signal });
    }

    /// Who is left of those that are no workers, and how many beside these.
    pub(super) fn strays(
        &mut self,
        left: Vec<Pid>,
        unnamed: usize,
        zombies: bool,
        now: Time,
        out: &mut Out,
    ) {
        let Phase::Stopping {
            code,
            hard,
            step: Step::Leftovers,
            ..
        } = self.phase
        else {
            return;
        };
        let killing = self.deadlines.get(Why::GiveUp).is_some();
        let stage = match (killing, self.left_asked && !hard) {
            (false, _) => LeftoverStage::Asked,
            (true, true) => LeftoverStage::Overdue(self.stop_limit()),
            (true, false) => LeftoverStage::Killed,
        };
        let (pids, count) = (left.clone(), left.len() + unnamed);
        self.left = left;
        let stuck = !self.fleet.unreaped().is_empty();
        if killing && !self.last_look {
            self.left_before.get_or_insert(count);
        }
        if self.last_look && (stuck || count > 0) {
            // They are many, or the machine is busy: not while their number falls.
            let before = self.left_before.replace(count);
            let again = self.give_up_by(now);
            if count == 0 || before.is_some_and(|n| n <= count) || again <= now {
                return self.give_up_stuck(out);
            }
            self.last_look = false;
            return self.deadlines.set(Why::GiveUp, again);
        }
        // One that has just ended may have forked before: StrayReaped comes next, and another look.
        if count == 0 && zombies && !self.last_look {
            return;
        }
        if count == 0 {
            return match (stuck, killing) {
                (false, _) => self.finish(code, Vec::new(), out),
                // Stuck workers are all that is left, and their time is over; but news of their
                // end may be in this very turn, so the next Tick judges.
                (true, true) => self.deadlines.set(Why::GiveUp, now),
                // They may still go until the leftovers would be killed.
                (true, false) => {}
            };
        }
        self.left_asked |= !killing;
        let notice = Notice::Leftovers { pids, stage };
        self.once(format!("leftovers {killing}"), notice, out);
    }

    /// One of them has gone: its children, if any, are ours now.
    pub(super) fn stray_reaped(&mut self, out: &mut Out) {
        let Phase::Stopping {
            step: Step::Leftovers,
            ..
        } = self.phase
        else {
            return;
        };
        let killing = self.deadlines.get(Why::GiveUp).is_some();
        let signal = match killing {
            true => SIGKILL,
            // Those asked before are not asked again.
            false => self.policy.stop_signal,
        };
        out.push(Action::SweepStrays {
            signal: Some(signal),
        });
    }

    /// Their time is over. Of one that became ours when a parent ended that was not our child, we
    /// have not heard: one more look tells who is left.
    pub(super) fn look_once_more(&mut self, out: &mut Out) {
        self.last_look = true;
        let signal = Some(SIGKILL);
        out.push(Action::SweepStrays { signal });
    }

    /// Some process does not even mind SIGKILL.
    fn give_up_stuck(&mut self, out: &mut Out) {
        let mut pids = self.fleet.pids();
        pids.extend(self.left.iter().copied());
        out.push(Action::Note(Notice::Stuck {
            pids: pids.clone(),
            budget: self.policy.stop_budget,
        }));
        self.finish(EX_OSERR, pids, out);
    }

    fn finish(&mut self, code: u8, stuck: Vec<Pid>, out: &mut Out) {
        self.phase = Phase::Done(code);
        self.deadlines = Default::default();
        out.push(Action::Note(Notice::Stopped { code }));
        for asker in std::mem::take(&mut self.askers) {
            let stuck = stuck.clone();
            let outcome = Outcome::Ended { code, stuck };
            out.push(Action::Answer { asker, outcome });
        }
        out.push(Action::Finish(code));
    }
}
