//! One slot that is to go while the others stay what they are, and the cluster that is, in so much time.
//! Rules:
//!
//! 1. The slot is closed: its worker goes as by a resize to fewer, there is one fewer to be, and nobody
//!    else's number changes. A resize to more opens it again, before it adds any.
//! 2. The last open one stays: who wants that wants a stop. During a reload, which replaces all, it is
//!    refused.
//! 3. With a time of its own its worker is killed when that is over, in place of --drain-timeout and
//!    --stop-timeout. A part of it is kept for the stop signal to work, as of a budget.
//! 4. Who asked hears when the worker has gone, or cannot be ended; of the stop at its beginning.

use super::action::Action;
use super::event::{Shutdown, Target};
use super::ids::{Asker, Pid, SlotNr, Time, WorkerId};
use super::notice::Who;
use super::outcome::{Hitch, Outcome};
use super::phase::{MAX_ASKERS, Phase};
use super::slot::Place;
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What the log says of it.
const WHY: &str = "a slot is shut down by a client";
/// So much of the time is for the stop signal, and no more than --stop-timeout.
const STOP_PART: u32 = 3;

/// A client that waits for a worker to go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Closer {
    asker: Asker,
    worker: WorkerId,
    who: Who,
}

/// When a worker with a time of its own has to go.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Own {
    /// It is asked to stop then, if it was not before,
    pub leave_by: Time,
    /// and killed then.
    pub kill_by: Time,
    /// So long that is.
    pub time: Duration,
}

impl Cluster {
    pub(super) fn shutdown_asked(&mut self, wish: Shutdown, now: Time, out: &mut Out) {
        let asker = wish.asker;
        if let Err(outcome) = self.shut_down(wish, now, out) {
            out.push(Action::Answer { asker, outcome });
        }
        self.shutdown_progress(out);
    }

    fn shut_down(&mut self, wish: Shutdown, now: Time, out: &mut Out) -> Result<(), Outcome> {
        let not = |hitch| Outcome::NotShutDown { hitch };
        match self.phase {
            Phase::Stopping { .. } | Phase::Done(_) => return Err(not(Hitch::Stopping)),
            Phase::Serving if !self.opened => return Err(not(Hitch::TooEarly)),
            Phase::Serving if self.rollout.is_some() => return Err(not(Hitch::Replacing)),
            Phase::Serving if wish.wait && self.waiting() >= MAX_ASKERS => {
                return Err(Outcome::TooMany);
            }
            Phase::Serving => {}
        }
        let nr = self.slot_meant(wish.target)?;
        if self.wanted <= 1 {
            return Err(Outcome::LastSlot { slot: nr });
        }
        let worker = self.slots.get(nr.index()).and_then(|s| s.current);
        let who = worker.and_then(|id| self.fleet.who(id));
        let who = who.unwrap_or(Who {
            slot: nr,
            pid: None,
        });
        if let Some((time, id)) = wish.within.zip(worker) {
            self.give_time(id, time, now);
        }
        let hitch = Hitch::Superseded {
            to: self.wanted - 1,
            why: WHY,
            by: Some(wish.by),
        };
        self.size_is_asked(now);
        self.end_starting(hitch, out);
        self.close(nr, WHY, Some(wish.by), now, out);
        let (asker, workers) = (wish.asker, self.wanted);
        match (wish.wait, worker) {
            (true, Some(worker)) => self.closers.push(Closer { asker, worker, who }),
            (true, None) => {
                let outcome = Outcome::ShutDown { who, workers };
                out.push(Action::Answer { asker, outcome });
            }
            (false, _) => {
                let outcome = Outcome::ShuttingDown { who };
                out.push(Action::Answer { asker, outcome });
            }
        }
        Ok(())
    }

    /// Which open slot that is. (It need not have a worker: one that fails again and again can be shut
    /// down, too.)
    fn slot_meant(&self, target: Target) -> Result<SlotNr, Outcome> {
        let slots = self.slots.bound();
        let unknown = Outcome::Unknown { target, slots };
        let slot = |n: u32| u16::try_from(n).ok().map(SlotNr);
        let open = |n: u32| slot(n).filter(|nr| self.is_wanted(*nr));
        let by_pid = |n: u32| {
            let pid = i32::try_from(n).ok().map(Pid);
            self.fleet.iter().find(|w| w.pid.is_some() && w.pid == pid)
        };
        let (found, pid) = match target {
            // (That is a stop, which is told otherwise.)
            Target::All => return Err(unknown),
            Target::Slot(n) => (open(n), None),
            Target::Number(n) => (open(n), by_pid(n)),
            Target::Pid(n) => (None, by_pid(n)),
        };
        match (found, pid) {
            (Some(nr), _) => Ok(nr),
            (None, None) => Err(unknown),
            (None, Some(w)) => {
                let here = self.slots.get(w.slot.index());
                let here = here.is_some_and(|s| s.current == Some(w.id) && !s.closed);
                match here && !w.is_leaving() {
                    true => Ok(w.slot),
                    false => Err(Outcome::NotShutDown {
                        hitch: Hitch::Leaves(w.who()),
                    }),
                }
            }
        }
    }

    fn give_time(&mut self, id: WorkerId, time: Duration, now: Time) {
        let kill_by = now + time;
        let to_stop = self.policy.stop_timeout.min(time / STOP_PART);
        if let Some(w) = self.fleet.get_mut(id) {
            w.own_time = Some(Own {
                leave_by: kill_by.before(to_stop),
                kill_by,
                time,
            });
        }
    }

    /// After each event: those whose worker has gone are told.
    pub(super) fn shutdown_progress(&mut self, out: &mut Out) {
        if self.closers.is_empty() {
            return;
        }
        let (serving, workers) = (self.phase == Phase::Serving, self.wanted);
        for closer in std::mem::take(&mut self.closers) {
            let w = self.fleet.get(closer.worker).filter(|w| w.unreaped());
            let outcome = match w.map(|w| w.stuck) {
                None => Outcome::ShutDown {
                    who: closer.who,
                    workers,
                },
                Some(true) => Outcome::NotShutDown {
                    hitch: Hitch::Stuck(closer.who),
                },
                Some(false) if serving && self.stays(closer.worker) => Outcome::NotShutDown {
                    hitch: Hitch::Superseded {
                        to: workers,
                        why: "its slot is open again",
                        by: None,
                    },
                },
                Some(false) if !serving => Outcome::NotShutDown {
                    hitch: Hitch::Stopping,
                },
                Some(false) => {
                    self.closers.push(closer);
                    continue;
                }
            };
            let asker = closer.asker;
            out.push(Action::Answer { asker, outcome });
        }
    }

    /// Its slot is wanted again, and it was not forked yet: it is what the slot gets.
    fn stays(&self, id: WorkerId) -> bool {
        let leaves = self.fleet.get(id).is_none_or(|w| w.is_leaving());
        let open = matches!(self.place_of(id), Place::Current(nr) if self.is_wanted(nr));
        open && !leaves && !self.slot_has_moved_on(id)
    }

    /// That client has gone.
    pub(super) fn closer_gone(&mut self, asker: Asker) {
        self.closers.retain(|c| c.asker != asker);
    }
}
