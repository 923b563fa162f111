//! What becomes of a worker that was asked for: a process, which is told once, or none, and a program in it, or
//! none. (The rules of its life are in `worker`.)

use super::action::Action;
use super::codes;
use super::deadlines::Why;
use super::ids::{Pid, Time, WorkerId};
use super::notice::{Birth, Cause, Notice};
use super::outcome::Hitch;
use super::recycle::Reason;
use super::respawn::FORK_AGAIN;
use super::slot::{Place, Slot, Vacancy};
use super::worker::{State, Worker};
use super::{Cluster, Out};

/// The step of a child's preparation that makes its bind(2) ask us.
const FILTER_STEP: &str = "seccomp";

impl Cluster {
    /// It is there: the first news of a worker, which comes once.
    pub(super) fn first_news(
        &mut self,
        id: WorkerId,
        pid: Pid,
        execed: bool,
    ) -> Option<&mut Worker> {
        let w = self.fleet.get_mut(id)?;
        match w.state {
            State::Spawning => {}
            State::Starting { .. }
            | State::Ready { .. }
            | State::Retiring { .. }
            | State::Draining { .. }
            | State::Killed { .. }
            | State::Remnant => return None,
        }
        w.pid = Some(pid);
        w.state = State::Starting { execed };
        Some(w)
    }

    pub(super) fn spawned(&mut self, id: WorkerId, pid: Pid, now: Time, out: &mut Out) {
        let Some(w) = self.first_news(id, pid, false) else {
            return;
        };
        let (who, generation, ready_limit) = (w.who(), w.generation, w.ready_limit);
        let swapped = self.swapped_in(id);
        if !self.swapped_in_time(id) {
            self.count_fork();
        }
        let reason = match self.place_of(id) {
            Place::Current(nr) => self.slots.of(nr).map_or(Birth::Start, Slot::reason),
            Place::Successor(_) => swapped.map_or(Birth::Restart, Reason::birth),
            Place::Kept(_) | Place::None => Birth::Restart,
        };
        if let Some(limit) = ready_limit {
            self.deadlines.set(Why::Ready(id), now + limit);
        }
        out.push(Action::Note(Notice::Forked {
            who,
            generation,
            reason,
        }));
        match self.stop_is_hard() {
            Some(hard) => self.end_worker(id, hard, now, out),
            None if self.place_of(id) == Place::None => {
                self.ask_to_stop(id, Cause::Restart, now, out)
            }
            None if !self.is_wanted(who.slot) || self.slot_has_moved_on(id) => {
                self.ask_to_stop(id, Cause::Resize, now, out)
            }
            None => {}
        }
        self.say_what_stays(who, now, out);
    }

    pub(super) fn spawn_failed(&mut self, id: WorkerId, errno: i32, now: Time, out: &mut Out) {
        let Some(w) = self.fleet.get(id) else { return };
        match w.state {
            State::Spawning => {}
            // It has or had a process: this cannot be about it.
            State::Starting { .. }
            | State::Ready { .. }
            | State::Retiring { .. }
            | State::Draining { .. }
            | State::Killed { .. }
            | State::Remnant => return,
        }
        let who = w.who();
        // Else it was not tried: the stop, or that its slot is to go, came first.
        if self.wants(id) {
            out.push(Action::Note(Notice::SpawnFailed { who, errno }));
        }
        let place = self.place_of(id);
        self.deadlines.stop_worker(id);
        self.fleet.strike(id);
        let slot = who.slot;
        let hitch = || Hitch::NotForked { slot, errno };
        match place {
            Place::Current(_) => {
                let how = Vacancy {
                    cause: Cause::NotStarted,
                    exit: None,
                    ready_for: None,
                    least: FORK_AGAIN,
                    in_vain: false,
                };
                self.slot_vacated(slot, how, now, out);
                self.resize_failed(slot, hitch, out);
                self.starting_failed(slot, hitch(), now, out);
                self.swap_broken(id, hitch, out);
            }
            Place::Successor(nr) => self.successor_failed(nr, hitch(), now, out),
            // It was not wanted any more by the time its turn came.
            Place::Kept(_) | Place::None => {}
        }
        self.resize_progress(out);
        self.stop_progress(now, out);
    }

    pub(super) fn exec_failed(
        &mut self,
        id: WorkerId,
        step: &'static str,
        errno: i32,
        now: Time,
        out: &mut Out,
    ) {
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        let who = w.who();
        w.why_not = Some((step, errno));
        self.once(
            format!("exec {step} {errno}"),
            Notice::ExecFailed { who, step, errno },
            out,
        );
        // Nothing was ever run, and trying again will not mend it.
        if let Some(code) = codes::of_step(step, errno).filter(|_| !self.ever_execed) {
            self.begin_give_up(code, now, out);
        }
    }

    pub(super) fn takeover_refused(&mut self, id: WorkerId, errno: i32, now: Time, out: &mut Out) {
        let required = self.policy.takeover == super::policy::Takeover::Require;
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        w.watched = false;
        if required {
            // It leaves now.
            w.why_not = Some((FILTER_STEP, errno));
        }
        let who = w.who();
        self.takeover_works = Some(false);
        let notice = Notice::TakeoverRefused {
            who,
            errno,
            required,
        };
        self.once("takeover refused".into(), notice, out);
        if required && !self.ever_execed {
            self.begin_give_up(codes::EX_OSERR, now, out);
        }
    }
}
