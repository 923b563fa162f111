//! The life of one worker. Rules:
//!
//! 1. Spawning -> Starting -> Ready -> Retiring -> Draining -> Killed -> Remnant -> gone; any of the
//!    first six may be cut short by the end of its first process. All transitions are in this file,
//!    but those from Spawning, which are in `birth`, those to Ready, which are in `readiness`, and the
//!    stages of Retiring, which are in `drain`.
//! 2. `pid` is `Some` iff the first process is unreaped; the shell reaps after the actions that
//!    follow from `Exited` are done, so the group may be signalled in that same turn (I1).
//! 3. The end of the first process frees the slot. The worker stays as a Remnant until its whole
//!    tree has gone: descendants may still bind and listen, and are answered.
//! 4. An unexpected death takes its process group along. A death after the stop signal passes the
//!    stop signal on to the group, once: `sh -c` does not forward it.
//! 5. Every state but Ready and Remnant has a deadline (I6). A Remnant may keep that of its worker,
//!    when the slot is not there any more (`resize`, rule 5).

use super::action::{Action, Whom};
use super::deadlines::Why;
use super::drain::Stage;
use super::ids::{LaneId, Pid, PortId, Program, Seat, SlotNr, Time, WorkerId};
use super::lane::{Lane, Reader};
use super::notice::{Cause, Limit, Notice, Who};
use super::outcome::Hitch;
use super::policy::ReadyRule;
use super::shutdown::Own;
use super::slot::Place;
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// SIGKILL is repeated when it has not worked: first after that long,
pub const KILLED_GRACE: Duration = Duration::from_secs(5);
/// then each time after that long.
const KILL_AGAIN: Duration = Duration::from_secs(30);

/// The signal that nobody can ignore.
pub(super) const SIGKILL: i32 = 9;

/// Where in its life a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Asked of the shell; no pid yet.
    Spawning,
    /// There is a process; `execed` once it is COMMAND.
    Starting {
        /// Does COMMAND run?
        execed: bool,
    },
    /// It serves.
    Ready {
        /// From then on.
        since: Time,
    },
    /// It is emptied: nothing new comes, what it has ends.
    Retiring {
        /// How far that is.
        stage: Stage,
        /// Why it has to go.
        cause: Cause,
        /// From then on.
        since: Time,
    },
    /// It was sent the stop signal.
    Draining {
        /// Why it has to go.
        cause: Cause,
        /// From then on.
        since: Time,
    },
    /// It was sent SIGKILL.
    Killed {
        /// Why it has to go.
        cause: Cause,
        /// At that time first.
        since: Time,
    },
    /// Its first process is gone; others of its tree are not.
    Remnant,
}

/// One worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Worker {
    /// Serial.
    pub id: WorkerId,
    /// Where it works.
    pub slot: SlotNr,
    /// Of which generation.
    pub generation: u32,
    /// Whose lanes it has, where it shares none with its siblings.
    pub seat: Seat,
    /// What it runs.
    pub program: Program,
    /// So long it has to be ready; `None` is for ever.
    pub ready_limit: Option<Duration>,
    /// Its first process; `Some` iff unreaped.
    pub pid: Option<Pid>,
    /// Where in its life.
    pub state: State,
    /// When it was asked for.
    pub born: Time,
    /// When it became ready, kept after it is no longer.
    pub ready_since: Option<Time>,
    /// What makes it ready; settled at exec.
    pub rule: ReadyRule,
    /// The lane it listened on last.
    pub listened: Option<LaneId>,
    /// All that it listened on, or was seen waiting on; and was it seen waiting on what it was handed?
    pub serves: BTreeSet<LaneId>,
    pub accepts: bool,
    /// The generation of the one that has its place now, if one has.
    pub made_room_for: Option<u32>,
    /// Has it said that it is ready?
    pub said_ready: bool,
    /// Has it ever said that it is well?
    pub pinged: Option<Time>,
    /// From when on nothing was touched that waits for it, as far as was seen;
    pub stands: Option<Time>,
    /// and was that for too long?
    pub untouched: bool,
    /// It is being looked at whether it can be asked to stop (`Action::DismissAtRest`).
    pub at_rest_asked: bool,
    /// --drain-timeout is over for it: it has `CLOSING` for the rest.
    pub last_moments: bool,
    /// So often it was looked at meanwhile, and had that time again.
    pub last_looks: u32,
    pub again: u32,
    /// When it has to go, if an operator has given it a time of its own.
    pub own_time: Option<Own>,
    /// How often it was looked at while starting.
    pub looked: u32,
    /// Has it said that it is on its way out?
    pub announced: bool,
    /// The part of --max-age and its like that is its own limit.
    #[serde(with = "super::carry::bits")]
    pub share: f64,
    /// Has the last process of its tree gone?
    pub tree_gone: bool,
    /// Are its bind(2) and listen(2) seen by us?
    pub watched: bool,
    /// Was it left by another master?
    pub adopted: bool,
    /// When it exited 0, if it did.
    pub finished: Option<Time>,
    /// Was it killed, and should have gone by now?
    pub stuck: bool,
    /// The step before COMMAND that failed, and its errno.
    #[serde(deserialize_with = "super::carry::kept_with")]
    pub why_not: Option<(&'static str, i32)>,
    /// What would have helped it to be ready in time, if it was not.
    pub hint: Option<String>,
    /// How often it was asked whether it is ready, and is it just now?
    pub asked: u32,
    pub is_asked: bool,
    /// What came of that last.
    pub answer: Option<String>,
    /// While it is emptied: connections it had at the last look,
    pub open: u32,
    /// those that were ended from outside when they were quiet,
    pub closed: u32,
    /// and those that were when the time to drain was over.
    pub ended: u32,
    /// Ports at which it has, or had, a socket of its own (`own`): not by the lane of its generation does
    /// it get their connections.
    pub owns: BTreeSet<PortId>,
    /// Was all that it may have left in its group killed when it died?
    pub rest_killed: bool,
}

impl Worker {
    /// How messages name it.
    pub fn who(&self) -> Who {
        Who {
            slot: self.slot,
            pid: self.pid,
        }
    }

    /// By which lanes it gets its connections.
    pub fn reader(&self) -> Reader {
        Reader {
            generation: self.generation,
            seat: self.seat,
        }
    }

    /// Is there a first process that we have not reaped (or are about to have)?
    pub fn unreaped(&self) -> bool {
        match self.state {
            State::Spawning
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Retiring { .. }
            | State::Draining { .. }
            | State::Killed { .. } => true,
            State::Remnant => false,
        }
    }

    /// How far its emptying is, why it is emptied, and since when.
    pub fn retiring(&self) -> Option<(Stage, Cause, Time)> {
        match self.state {
            State::Retiring {
                stage,
                cause,
                since,
            } => Some((stage, cause, since)),
            State::Spawning
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Draining { .. }
            | State::Killed { .. }
            | State::Remnant => None,
        }
    }

    /// May it have clients?
    pub fn may_serve(&self) -> bool {
        match self.state {
            State::Ready { .. } | State::Starting { execed: true } => true,
            // Its listen(2) may have overtaken the news of its exec.
            State::Starting { execed: false } => self.listened.is_some(),
            State::Spawning
            | State::Retiring { .. }
            | State::Draining { .. }
            | State::Killed { .. }
            | State::Remnant => false,
        }
    }

    /// Has it listened on this lane, or was it seen to wait there?
    pub(super) fn has_read(&self, lane: &Lane) -> bool {
        let listened = self.listened == Some(lane.id) || self.serves.contains(&lane.id);
        listened || self.accepts && lane.given
    }

    /// Is it on its way out?
    pub fn is_leaving(&self) -> bool {
        match self.state {
            State::Retiring { .. } | State::Draining { .. } | State::Killed { .. } => true,
            State::Spawning | State::Starting { .. } | State::Ready { .. } | State::Remnant => {
                false
            }
        }
    }

    /// How far its emptying is.
    pub fn stage(&self) -> Option<Stage> {
        self.retiring().map(|(stage, ..)| stage)
    }

    /// Its emptying is that far now.
    pub(super) fn comes_to(&mut self, to: Stage) {
        if let State::Retiring { stage, .. } = &mut self.state {
            *stage = to;
        }
    }

    /// Is it on its way out, for this cause?
    pub fn leaves_for(&self, why: Cause) -> bool {
        match self.state {
            State::Retiring { cause, .. }
            | State::Draining { cause, .. }
            | State::Killed { cause, .. } => cause == why,
            State::Spawning | State::Starting { .. } | State::Ready { .. } | State::Remnant => {
                false
            }
        }
    }

    /// Its part of an age, by which workers do not all get there at once.
    pub(super) fn share_of(&self, age: Duration) -> Duration {
        // (A number of another build may be any.)
        let sound = (0.0..=1.0).contains(&self.share);
        age.mul_f64(if sound { self.share } else { 1.0 })
    }

    /// Does it serve?
    pub fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }
}

impl Cluster {
    /// A deadline of this worker has come.
    pub(super) fn worker_due(
        &mut self,
        id: WorkerId,
        (due, why): (Time, Why),
        now: Time,
        out: &mut Out,
    ) {
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        match (w.state, why) {
            (State::Starting { .. }, Why::Hold(_)) => out.push(Action::CheckHeld { worker: id }),
            (State::Starting { .. }, Why::Look(_)) => out.push(Action::LookAt { worker: id }),
            (State::Starting { .. }, Why::Probe(_)) => self.probe(id, now, out),
            (State::Starting { .. }, Why::Alive(_)) => self.become_ready(id, now, out),
            (State::Starting { .. }, Why::Ready(_)) => {
                let (who, after, limit) = (w.who(), now - w.born, w.ready_limit);
                let hint = self.not_ready_hint(id);
                let place = self.place_of(id);
                let retries = matches!(place, Place::Current(nr) if !self.is_starting(nr));
                if let Some(w) = self.fleet.get_mut(id) {
                    w.hint.clone_from(&hint);
                }
                let notice = Notice::NotReady {
                    who,
                    after,
                    limit: limit.unwrap_or_default(),
                    retries,
                    hint,
                };
                out.push(Action::Note(notice));
                self.kill_worker(id, Cause::NotReady, now, out);
            }
            (State::Draining { cause, since }, Why::Kill(_)) => {
                let (who, after) = (w.who(), now - since);
                let own = w.own_time.map(|own| Limit::Timeout(own.time));
                let limit = own.unwrap_or_else(|| self.limit_met(cause, after));
                out.push(Action::Note(Notice::TooSlowToStop { who, after, limit }));
                self.kill_worker(id, cause, now, out);
            }
            (State::Retiring { .. }, Why::Drain(_)) => self.drain_over(id, now, out),
            (State::Remnant, Why::Kill(_)) => self.kill_rest(id, out),
            (State::Ready { .. }, Why::Watchdog(_)) => self.silent(id, due, now, out),
            (State::Ready { since }, Why::Age(_)) => self.aged(id, now - since, now),
            (State::Killed { since, .. }, Why::KillAgain(_)) => {
                let notice = Notice::StillThere {
                    who: w.who(),
                    since: now - since,
                };
                out.push(Action::Note(notice));
                w.stuck = true;
                out.push(kill_group(id));
                self.deadlines.set(Why::KillAgain(id), now + KILL_AGAIN);
                // Nobody need wait for it any longer.
                let who = w.who();
                self.resize_stuck(id, out);
                if let Place::Successor(nr) = self.place_of(id) {
                    self.successor_failed(nr, Hitch::Stuck(who), now, out);
                }
                self.stop_progress(now, out);
            }
            // Every way out of a state stops that state's deadlines, so these cannot be due.
            (
                State::Spawning
                | State::Starting { .. }
                | State::Ready { .. }
                | State::Retiring { .. }
                | State::Draining { .. }
                | State::Killed { .. }
                | State::Remnant,
                Why::Hold(_)
                | Why::Drain(_)
                | Why::Census
                | Why::DrainDelay
                | Why::Successors
                | Why::Age(_)
                | Why::Swap
                | Why::Weigh
                | Why::Watch
                | Why::Look(_)
                | Why::Probe(_)
                | Why::Alive(_)
                | Why::Ready(_)
                | Why::Watchdog(_)
                | Why::Kill(_)
                | Why::KillAgain(_)
                | Why::Respawn(_)
                | Why::StartTimeout
                | Why::Unserved
                | Why::Hung
                | Why::Check(_)
                | Why::Leftovers
                | Why::GiveUp,
            ) => {}
        }
    }

    /// Ends a worker for the sake of a stop: by its stop signal, or at once.
    pub(super) fn end_worker(&mut self, id: WorkerId, hard: bool, now: Time, out: &mut Out) {
        match (self.fleet.get(id).map(|w| w.state), hard) {
            (
                Some(
                    State::Starting { .. }
                    | State::Ready { .. }
                    | State::Retiring { .. }
                    | State::Draining { .. },
                ),
                true,
            ) => self.kill_worker(id, Cause::Kill, now, out),
            // Its `Spawned` is still to come and ends it then; or there is nothing left to signal.
            (Some(State::Spawning | State::Remnant) | None, true) => {}
            (Some(State::Killed { .. }), true) => self.hurry(id, now),
            (_, false) => self.retire(id, Cause::Shutdown, now, out),
        }
    }

    /// Asks a worker to go, for this cause, unless it has been asked or is being emptied for it.
    pub(super) fn ask_to_stop(&mut self, id: WorkerId, why: Cause, now: Time, out: &mut Out) {
        match self.fleet.get(id).map(|w| w.state) {
            // Its `Spawned` is still to come and asks it then.
            Some(State::Spawning) => {}
            Some(State::Starting { .. } | State::Ready { .. }) => self.send_stop(id, why, now, out),
            // Already under way, but perhaps with more time than there is.
            Some(State::Retiring { .. } | State::Draining { .. } | State::Killed { .. }) => {
                self.hurry(id, now)
            }
            // There is nothing left to signal.
            Some(State::Remnant) | None => {}
        }
    }

    /// Sends the stop signal.
    pub(super) fn send_stop(&mut self, id: WorkerId, why: Cause, now: Time, out: &mut Out) {
        // One that failed before COMMAND leaves by itself, and shall be seen to.
        if self.has_to_stop(id, why, now) {
            let signal = self.policy.stop_signal;
            out.push(Action::Dismiss { worker: id, signal });
        }
    }

    /// It is asked to stop. False: it leaves by itself.
    pub(super) fn has_to_stop(&mut self, id: WorkerId, why: Cause, now: Time) -> bool {
        let kill_by = self.kill_by_of(id, now);
        self.asked_at = now;
        let Some(w) = self.fleet.get_mut(id) else {
            return false;
        };
        let failed = w.why_not.is_some() && w.state == State::Starting { execed: false };
        let cause = match failed {
            true => Cause::NotStarted,
            false => why,
        };
        w.state = State::Draining { cause, since: now };
        self.deadlines.stop_worker(id);
        self.deadlines.set(Why::Kill(id), kill_by);
        !failed
    }

    pub(super) fn kill_worker(&mut self, id: WorkerId, cause: Cause, now: Time, out: &mut Out) {
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        w.state = State::Killed { cause, since: now };
        self.deadlines.stop_worker(id);
        let stuck_by = self.stuck_by(now);
        self.deadlines.set(Why::KillAgain(id), stuck_by);
        out.push(kill_group(id));
    }
}

fn kill_group(worker: WorkerId) -> Action {
    Action::Signal {
        worker,
        signal: SIGKILL,
        whom: Whom::Group,
    }
}
