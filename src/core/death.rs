//! The end of a worker's first process: what it died of, what becomes of its slot and of those that it
//! leaves, and what is remembered of it for `why`. (`worker`, rules 2 to 4.)

use super::action::{Action, Whom};
use super::deadlines::Why;
use super::event::{Exit, Oom};
use super::ids::{Time, WorkerId};
use super::notice::{Cause, Next, Notice, Who};
use super::outcome::Hitch;
use super::slot::{Place, Vacancy};
use super::words::errno_text;
use super::worker::{SIGKILL, State};
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// So many deaths are remembered, the newest per slot beyond that (I9).
const MAX_DEATHS: usize = 32;

/// One end of a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Death {
    /// Which worker.
    pub who: Who,
    /// Of which code.
    pub generation: u32,
    /// Why.
    pub cause: Cause,
    /// How.
    pub exit: Exit,
    /// When.
    pub at: Time,
    /// From the wish to spawn it to its end.
    pub lived: Duration,
    /// `None`: it never was.
    pub ready_for: Option<Duration>,
    /// What followed.
    pub next: Next,
    /// The last lines it wrote to stderr before it was ready.
    pub last: String,
    /// What would have helped it to be ready in time.
    pub hint: Option<String>,
    /// Has it ever had the slot, or was it only to have it?
    pub had_slot: bool,
}

impl Death {
    /// Was it asked to go, after it had served?
    fn planned(&self) -> bool {
        let asked = match self.cause {
            Cause::Restart | Cause::Recycle | Cause::Resize | Cause::Shutdown => true,
            Cause::Failure
            | Cause::Finished
            | Cause::Kill
            | Cause::NotReady
            | Cause::Hang
            | Cause::NotStarted
            | Cause::Oom(_) => false,
        };
        asked && self.ready_for.is_some()
    }
}

/// What it died of if nobody asked it to go.
fn by_itself(state: State, (exit, oom): (Exit, Oom)) -> Cause {
    match (exit, oom) {
        _ if state == (State::Starting { execed: false }) => Cause::NotStarted,
        (Exit::Code(0), _) => Cause::Finished,
        (Exit::Signal(SIGKILL), Oom::Yes | Oom::Probably) => Cause::Oom(oom),
        (Exit::Code(_) | Exit::Signal(_) | Exit::Unknown, _) => Cause::Failure,
    }
}

impl Cluster {
    /// What a worker in that state died of, and the signal for those it may leave in its group; `None`:
    /// there was no process, or it is reaped already.
    fn died_of(&self, state: State, end: (Exit, Oom)) -> Option<(Cause, i32)> {
        match state {
            State::Starting { .. } | State::Ready { .. } => Some((by_itself(state, end), SIGKILL)),
            // (Of one that never came to COMMAND its group is itself alone.)
            State::Draining {
                cause: cause @ (Cause::NotStarted | Cause::Hang),
                ..
            }
            | State::Killed { cause, .. } => Some((cause, SIGKILL)),
            State::Retiring { cause, .. } | State::Draining { cause, .. } => {
                Some((cause, self.policy.stop_signal))
            }
            State::Spawning | State::Remnant => None,
        }
    }

    /// The first process is a zombie; the shell reaps it once the actions of this turn are done.
    pub(super) fn exited(
        &mut self,
        id: WorkerId,
        end: (Exit, Oom),
        last: String,
        now: Time,
        out: &mut Out,
    ) {
        let Some(state) = self.fleet.get(id).map(|w| w.state) else {
            return;
        };
        let Some((cause, to_group)) = self.died_of(state, end) else {
            return;
        };
        let cause = self.as_announced(id, cause, now);
        let place = self.place_of(id);
        let had_until = match state {
            // It did not wait to be asked; its group is asked now.
            State::Retiring { .. } => {
                self.asked_at = now;
                Some(self.kill_by(now))
            }
            State::Spawning
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Draining { .. }
            | State::Killed { .. }
            | State::Remnant => self.deadlines.get(Why::Kill(id)),
        };
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        let watched = w.watched;
        // One that never said that it is well was not, however long it was taken for ready.
        let unwell = cause == Cause::Hang && w.pinged.is_none() && !w.untouched;
        let mut died = Box::new(Death {
            who: w.who(),
            generation: w.generation,
            cause,
            exit: end.0,
            at: now,
            lived: now - w.born,
            ready_for: w.ready_since.map(|t| now - t),
            next: Next::Nothing,
            last: match w.why_not {
                Some((step, errno)) => format!("{last}{step}: {}", errno_text(errno)),
                None => last,
            },
            hint: w.hint.clone(),
            had_slot: w.made_room_for.is_some() || matches!(place, Place::Current(_)),
        });
        w.state = State::Remnant;
        w.pid = None;
        w.rest_killed = to_group == SIGKILL;
        self.deadlines.stop_worker(id);
        // Who comes to a socket of its own is lost from here on: nothing comes before this.
        self.steer(out);
        self.retire_lanes(out);
        out.push(Action::Signal {
            worker: id,
            signal: to_group,
            whom: Whom::Group,
        });
        let watched_still = self.is_watched(id, now);
        // The death is said before what follows from it.
        let mut then = Out::new();
        died.next = self.slot_loses(id, place, &died, unwell, now, &mut then);
        self.record_death(&died, out);
        out.append(&mut then);
        if cause == Cause::Failure && died.ready_for.is_none() && !watched {
            self.say_handed_only(died.who, out);
        }
        self.leave_remnant(id, by_itself(state, end) == Cause::Finished, now);
        self.failed_with(id, place, watched_still, died, now, out);
        if let Cause::Resize | Cause::Restart | Cause::Recycle = cause {
            self.watch_rest(id, had_until);
        }
        self.forget_old_remnants(out);
        self.spawn_due(now, out);
        self.resize_progress(out);
        self.stop_progress(now, out);
    }

    /// The slot is free: whether and when is it filled again?
    fn slot_loses(
        &mut self,
        id: WorkerId,
        place: Place,
        died: &Death,
        unwell: bool,
        now: Time,
        out: &mut Out,
    ) -> Next {
        let next = match place {
            // The one that it has replaced is there still.
            Place::Current(nr) if self.is_watched(id, now) && self.keeps_for(nr) => {
                if let Some(slot) = self.slots.of_mut(nr) {
                    slot.current = None;
                }
                return Next::TakenBack;
            }
            Place::Current(nr)
                if self.successor_steps_in(nr, died.cause, died.ready_for.filter(|_| !unwell)) =>
            {
                return Next::Replaced;
            }
            Place::Current(nr) => {
                let how = Vacancy {
                    cause: died.cause,
                    exit: Some(died.exit),
                    ready_for: died.ready_for.filter(|_| !unwell),
                    least: Duration::ZERO,
                    in_vain: self.was_in_vain(id, died, now),
                };
                let wanted = self.is_wanted(nr);
                let next = self.slot_vacated(nr, how, now, out);
                match next {
                    // Those that go on may be all that are to be ready by now.
                    Next::Finished if !self.full => self.say_if_full(now, out),
                    Next::Finished => {}
                    Next::Respawn(_)
                    | Next::HeldBack { .. }
                    | Next::GivenUp { .. }
                    | Next::Replaced
                    | Next::TakenBack
                    | Next::Nothing => self.full &= !wanted,
                }
                next
            }
            Place::Kept(nr) => {
                if let Some(slot) = self.slots.of_mut(nr) {
                    slot.kept = None;
                }
                return Next::Replaced;
            }
            Place::Successor(_) | Place::None => Next::Nothing,
        };
        let replaced = matches!(died.cause, Cause::Restart | Cause::Recycle);
        match replaced && place == Place::None && died.had_slot {
            true => Next::Replaced,
            false => next,
        }
    }

    /// Is it of new code, and does its end call the whole rollout off (`failed_with`), or has that been done?
    fn was_in_vain(&self, id: WorkerId, died: &Death, now: Time) -> bool {
        let new = died.ready_for.is_none() && self.is_new_in_place(died.generation);
        let other = |to: u32| to != died.generation;
        let taken_back = self.goes_back() && self.in_place_to().is_some_and(other);
        by_itself_or_late(died.cause) && (new || taken_back || self.is_watched(id, now))
    }

    /// Others of its tree may be there still, else it is forgotten.
    fn leave_remnant(&mut self, id: WorkerId, finished: bool, now: Time) {
        match self.fleet.get_mut(id) {
            Some(w) if !w.tree_gone => w.finished = finished.then_some(now),
            Some(_) | None => self.fleet.strike(id),
        }
    }

    /// Who waits for what it was to be is told.
    fn failed_with(
        &mut self,
        id: WorkerId,
        place: Place,
        watched: bool,
        died: Box<Death>,
        now: Time,
        out: &mut Out,
    ) {
        let generation = died.generation;
        if by_itself_or_late(died.cause) {
            self.swap_in_vain(id, || Hitch::Died(died.clone()), out);
        }
        match place {
            Place::Successor(nr) => self.successor_failed(nr, Hitch::Died(died), now, out),
            Place::Current(nr) if watched && by_itself_or_late(died.cause) => {
                self.watched_failed(nr, Hitch::Died(died), now, out);
            }
            Place::Current(nr) if died.ready_for.is_none() && by_itself_or_late(died.cause) => {
                self.resize_failed(nr, || Hitch::Died(died.clone()), out);
                self.starting_failed(nr, Hitch::Died(died.clone()), now, out);
                self.swap_broken(id, || Hitch::Died(died.clone()), out);
                self.replacement_failed(nr, generation, Hitch::Died(died), now, out);
            }
            Place::Current(_) | Place::Kept(_) | Place::None => {}
        }
    }

    /// The last process of the tree has gone. May overtake the end of the first.
    pub(super) fn tree_gone(&mut self, id: WorkerId) {
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        match w.state {
            State::Remnant => {
                self.deadlines.stop_worker(id);
                self.fleet.strike(id);
            }
            State::Spawning
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Retiring { .. }
            | State::Draining { .. }
            | State::Killed { .. } => w.tree_gone = true,
        }
    }

    /// Says it and keeps it for `why`.
    pub(super) fn record_death(&mut self, d: &Death, out: &mut Out) {
        out.push(Action::Note(Notice::Died {
            who: d.who,
            cause: d.cause,
            exit: d.exit,
            lived: d.lived,
            was_ready: d.ready_for.is_some(),
            next: d.next,
            last: d.last.clone(),
        }));
        self.deaths.push_back(d.clone());
        self.trim_deaths();
    }

    /// Forgets the oldest deaths beyond the limit.
    pub(super) fn trim_deaths(&mut self) {
        while self.deaths.len() > MAX_DEATHS.max(self.slots.len()) {
            // The oldest whose slot has a newer one, or is not there any more; there is one, by the
            // pigeonhole.
            let spare = |(i, d): &(usize, &Death)| {
                let slot = d.who.slot;
                let newer = |d: &Death| d.who.slot == slot;
                slot.index() >= self.slots.len() || self.deaths.iter().skip(i + 1).any(newer)
            };
            // First those that nobody need explain.
            let all = || self.deaths.iter().enumerate().filter(spare);
            let victim = all().find(|(_, d)| d.planned()).or_else(|| all().next());
            let victim = victim.map_or(0, |(i, _)| i);
            self.deaths.remove(victim);
        }
    }
}

/// Is it a failure of the worker, and nothing that it was asked for?
fn by_itself_or_late(cause: Cause) -> bool {
    match cause {
        Cause::Failure
        | Cause::Finished
        | Cause::NotReady
        | Cause::Hang
        | Cause::NotStarted
        | Cause::Shutdown
        | Cause::Oom(_)
        | Cause::Kill => true,
        Cause::Resize | Cause::Restart | Cause::Recycle => false,
    }
}
