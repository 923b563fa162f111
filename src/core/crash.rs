//! Where the replacing of workers that end by themselves has its limits. Rules:
//!
//! 1. A respawn is counted if it is on account of a failure: the slot had a worker, by the same code,
//!    which was not asked to make room. Reloads, resizes and successors are not counted.
//! 2. --restarts-per-minute: in no minute are there more. The one that would be waits for the oldest to
//!    be a minute ago; several wait one behind the other, first come first served. That is judged when a worker ends and again when
//!    its slot is due. An episode is said once: it lasts until a minute has passed in which none waited.
//! 3. --max-forks: of all forks since the start, or since an operator asked for workers last. Those beyond
//!    are not made on account of failures: the slot is given up until an operator asks again.
//! 4. --respawn-on: an end that brings no other worker finishes the slot. A reload fills it again.
//! 5. What has no worker and never will have one rests. When all wanted slots rest and nothing is under
//!    way to fill them, the master leaves: with the highest status of those that finished, or as at a
//!    crash loop if one was given up. (Its queues go with it: no client waits for nobody.)
//! 6. One that is ready and wants to be replaced before it has settled (`recycle`, rule 5) has failed: the
//!    next one is a respawn, counted when it is forked. What there is no room for waits, while that worker
//!    goes on, behind the slots that are empty; or, of --max-forks, until an operator asks for workers.

use super::action::Action;
use super::codes::EX_UNAVAILABLE;
use super::deadlines::Why;
use super::due::{Due, NEVER};
use super::event::Exit;
use super::ids::{SlotNr, Time};
use super::notice::{Cause, Next, Notice};
use super::phase::Phase;
use super::policy::{OnCrashLoop, RespawnOn};
use super::slot::Slot;
use super::words::human;
use super::worker::{State, Worker};
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// Of --restarts-per-minute.
pub const WINDOW: Duration = Duration::from_secs(60);
/// Most that can be asked for of it (I9).
pub const MAX_RESTARTS: u32 = 10_000;

/// Why a slot has neither a worker nor a date for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rest {
    /// Its worker has ended so, and that was all (--respawn-on).
    Finished(Exit),
    /// As many were forked as may (--max-forks).
    GivenUp,
}

/// What was counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// When respawns were made, of the last minute.
    recent: VecDeque<Time>,
    /// So many were forked.
    forks: u64,
    /// Was it said that these are all?
    spent: bool,
    /// A crash loop until then is the same one.
    same_until: Option<Time>,
    /// The cluster is to stop on account of that, and to say so.
    #[serde(skip)]
    leave: Option<(&'static str, Notice)>,
}

/// May a slot have its next worker?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Yes,
    /// Not before then.
    Wait(Time),
    /// Not on account of a failure.
    No,
}

/// What of the limits is used up; each has its limit behind it, and is not there without one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Respawns of the last minute.
    pub respawns: Option<(usize, u32)>,
    /// Forks.
    pub forks: Option<(u64, u64)>,
}

/// The status of a process that has ended so, as shells have it.
pub fn status_of(exit: Exit) -> u8 {
    let status = match exit {
        Exit::Code(c) => c & 0xff,
        Exit::Signal(s) => s.saturating_add(128),
        Exit::Unknown => 1,
    };
    u8::try_from(status).unwrap_or(u8::MAX)
}

impl Tally {
    /// How many respawns there were in the minute before.
    fn in_window(&self, now: Time) -> usize {
        let old = self.recent.iter().take_while(|t| **t + WINDOW <= now);
        self.recent.len() - old.count()
    }

    fn respawned(&mut self, limit: u32, now: Time) {
        while self.recent.front().is_some_and(|t| *t + WINDOW <= now) {
            self.recent.pop_front();
        }
        if limit > 0 {
            self.recent.push_back(now);
        }
    }

    /// When there is room for one more behind so many that wait; `None`: now.
    fn room(&self, limit: u32, waiting: usize, now: Time) -> Option<Time> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let n = self.in_window(now);
        let nth = n + waiting;
        if limit == 0 || nth < limit {
            return None;
        }
        // Each comes a minute after the one so many places before it: of those that were, or are to be.
        let rounds = (nth - n.max(limit)) / limit + 1;
        let first = nth - rounds * limit;
        let was = self.recent.get(self.recent.len() - n + first);
        let at = was.copied().unwrap_or(now);
        Some(at + WINDOW * u32::try_from(rounds).unwrap_or(u32::MAX))
    }
}

impl Cluster {
    /// A worker has a process.
    pub(super) fn count_fork(&mut self) {
        self.tally.forks = self.tally.forks.saturating_add(1);
    }

    /// An operator asks for workers: from here on forks are counted anew.
    pub(super) fn count_forks_anew(&mut self) {
        (self.tally.forks, self.tally.spent) = (0, false);
    }

    /// What was given up is tried again.
    pub(super) fn revive(&mut self, now: Time) {
        for nr in self.slot_numbers() {
            if !self.is_wanted(nr) {
                continue;
            }
            let Some(slot) = self.slots.of_mut(nr) else {
                continue;
            };
            if slot.rest == Some(Rest::GivenUp) {
                // Who asked waits for it.
                (slot.rest, slot.proven) = (None, false);
                self.deadlines.set(Why::Respawn(nr), now);
            }
        }
        self.due_again(now);
    }

    /// Is that end of a worker the last that its slot is to see?
    pub(super) fn finishes(&self, cause: Cause, exit: Exit) -> Option<Rest> {
        let last = match self.policy.respawn_on {
            RespawnOn::Any => false,
            RespawnOn::Failure => cause == Cause::Finished,
            RespawnOn::Never => true,
        };
        last.then_some(Rest::Finished(exit))
    }

    fn verdict(&self, nr: SlotNr, at: Time, now: Time) -> Verdict {
        let (limit, most) = (self.policy.restarts_per_minute, self.policy.max_forks);
        if most > 0 && self.forks_begun() >= most {
            return Verdict::No;
        }
        // Who waits itself has its turn before those that came later.
        let own = self.slots.of(nr).and_then(|s| s.held);
        let first = |d: &Time| own.is_none_or(|own| *d < own);
        let waiting = match limit {
            0 => 0,
            _ => self
                .slots
                .iter()
                .filter_map(|s| s.held)
                .filter(first)
                .count(),
        };
        match self.tally.room(limit, waiting, now) {
            Some(room) if room > at => Verdict::Wait(room),
            Some(_) | None => Verdict::Yes,
        }
    }

    /// Those that are under way, too.
    fn forks_begun(&self) -> u64 {
        let counts = |w: &&Worker| w.state == State::Spawning && !self.swapped_in_time(w.id);
        let begun = self.fleet.iter().filter(counts);
        self.tally.forks.saturating_add(begun.count() as u64)
    }

    /// The slot is empty on account of a failure, and its backoff takes so long. What follows?
    pub(super) fn respawn_in(
        &mut self,
        nr: SlotNr,
        delay: Duration,
        now: Time,
        out: &mut Out,
    ) -> Next {
        let verdict = match self.on_trial(nr) {
            // What ran before has its place again, unless that reload reaches its end.
            true => Verdict::Yes,
            false => self.verdict(nr, now + delay, now),
        };
        match verdict {
            Verdict::No => self.give_up_slot(nr, out),
            Verdict::Wait(room) => self.hold_back(nr, room, now, out),
            Verdict::Yes => {
                self.deadlines.set(Why::Respawn(nr), now + delay);
                let failures = self.slots.of(nr).map_or(0, |s| s.backoff.failures);
                if !delay.is_zero() {
                    out.push(Action::Note(Notice::Respawning {
                        slot: nr,
                        delay,
                        failures,
                    }));
                }
                Next::Respawn(delay)
            }
        }
    }

    /// Is its code that of a reload, old before new, that is not known to run, or known not to?
    fn on_trial(&self, nr: SlotNr) -> bool {
        let other = |s: &Slot| s.generation != self.generation;
        self.in_place_to().is_some() && self.slots.of(nr).is_some_and(other)
    }

    /// Its date has come. Is it respawned?
    pub(super) fn respawns(&mut self, nr: SlotNr, now: Time, out: &mut Out) -> bool {
        let next = match self.verdict(nr, now, now) {
            Verdict::Yes => {
                if let Some(slot) = self.slots.of_mut(nr) {
                    slot.held = None;
                }
                self.tally.respawned(self.policy.restarts_per_minute, now);
                return true;
            }
            Verdict::Wait(room) => self.hold_back(nr, room, now, out),
            Verdict::No => self.give_up_slot(nr, out),
        };
        // What was foreseen when its worker ended is not what follows.
        let its = |d: &&mut super::death::Death| d.who.slot == nr && d.had_slot;
        if let Some(d) = self.deaths.iter_mut().rev().find(its) {
            d.next = next;
        }
        false
    }

    /// One that is due is replaced now; unless it is so by a failure for which there is no room: `None`.
    pub(super) fn within_limits(&mut self, due: Due, now: Time, out: &mut Out) -> Option<Due> {
        let Some(backoff) = due.early else {
            return Some(due);
        };
        let nr = due.who.slot;
        let after = match self.verdict(nr, now, now) {
            Verdict::Yes => {
                self.tally.respawned(self.policy.restarts_per_minute, now);
                return Some(due);
            }
            Verdict::Wait(room) => {
                self.say_crash_loop(nr, room, now, out);
                room
            }
            Verdict::No => {
                self.say_spent(nr, true, out);
                NEVER
            }
        };
        if self.tally.leave.is_none() {
            out.push(Action::Note(Notice::RecyclesLater {
                who: due.who,
                wait: (after != NEVER).then(|| after - now),
                failures: backoff.failures,
            }));
        }
        self.due.push(Due { after, ..due });
        None
    }

    /// There is no room for a respawn before then: once an episode that is said. False: the cluster stops.
    fn say_crash_loop(&mut self, nr: SlotNr, room: Time, now: Time, out: &mut Out) -> bool {
        let limit = self.policy.restarts_per_minute;
        let wait = room - now;
        let exit = self.policy.on_crash_loop == OnCrashLoop::Exit;
        let notice = Notice::CrashLoop {
            slot: nr,
            respawns: self.tally.in_window(now),
            limit,
            wait: (!exit).then_some(wait),
            ready: self.ready_count(),
            wanted: usize::from(self.wanted),
        };
        if exit {
            self.tally.leave = Some(("a crash loop", notice));
            return false;
        }
        if self.tally.same_until.is_none_or(|t| t < now) {
            out.push(Action::Note(notice));
        }
        self.tally.same_until = self.tally.same_until.max(Some(room + WINDOW));
        true
    }

    fn hold_back(&mut self, nr: SlotNr, room: Time, now: Time, out: &mut Out) -> Next {
        let limit = self.policy.restarts_per_minute;
        let wait = room - now;
        self.deadlines.set(Why::Respawn(nr), room);
        if !self.say_crash_loop(nr, room, now, out) {
            return Next::Nothing;
        }
        let Some(slot) = self.slots.of_mut(nr) else {
            return Next::Nothing;
        };
        slot.held = Some(room);
        out.push(Action::Note(Notice::Respawning {
            slot: nr,
            delay: wait,
            failures: slot.backoff.failures,
        }));
        Next::HeldBack { wait, limit }
    }

    /// All that may be are forked: that is said once. False: the cluster stops.
    fn say_spent(&mut self, nr: SlotNr, keeps: bool, out: &mut Out) -> bool {
        let exit = self.policy.on_crash_loop == OnCrashLoop::Exit;
        let notice = Notice::ForksSpent {
            slot: nr,
            keeps,
            forks: self.forks_begun(),
            limit: self.policy.max_forks,
            exit,
            ready: self.ready_count(),
            wanted: usize::from(self.wanted),
        };
        if exit {
            self.tally.leave = Some(("as many workers were forked as may", notice));
            return false;
        }
        if !std::mem::replace(&mut self.tally.spent, true) {
            out.push(Action::Note(notice));
        }
        true
    }

    fn give_up_slot(&mut self, nr: SlotNr, out: &mut Out) -> Next {
        let limit = self.policy.max_forks;
        if let Some(slot) = self.slots.of_mut(nr) {
            (slot.held, slot.rest) = (None, Some(Rest::GivenUp));
        }
        self.deadlines.stop(Why::Respawn(nr));
        if !self.say_spent(nr, false, out) {
            return Next::Nothing;
        }
        out.push(Action::Note(Notice::GivenUp { slot: nr, limit }));
        Next::GivenUp { limit }
    }

    /// Have all wanted slots come to rest, with nothing under way to fill them?
    fn over(&self) -> bool {
        let rests = self.slots.open().all(|s| s.rest.is_some());
        let filled = |to: u32| !self.all_replaced(to);
        rests && self.opened && !self.rollout.as_ref().is_some_and(|r| filled(r.to))
    }

    /// Do all workers that there are, or were, belong to slots that get no other one of the old code?
    pub(super) fn all_rest(&self) -> bool {
        self.slots
            .iter()
            .all(|s| s.rest.is_some() || s.closed && s.current.is_none())
    }

    /// The ends of all, if they have finished and none was given up.
    fn last_ends(&self) -> Option<Vec<Exit>> {
        let end = |s: &Slot| match s.rest {
            Some(Rest::Finished(exit)) => Some(exit),
            Some(Rest::GivenUp) | None => None,
        };
        self.slots.open().map(end).collect()
    }

    /// Leaves if there is a reason to.
    pub(super) fn leave_if_over(&mut self, now: Time, out: &mut Out) {
        if self.phase != Phase::Serving {
            return;
        }
        if let Some((why, notice)) = self.tally.leave.take() {
            out.push(Action::Note(notice));
            return self.stop_by_itself(why, EX_UNAVAILABLE, now, out);
        }
        if !self.over() {
            return;
        }
        let end = self.last_ends().and_then(|e| highest(&e));
        out.push(Action::Note(Notice::NoneLeft { end }));
        match end {
            Some(end) => self.stop_by_itself("all slots are finished", status_of(end), now, out),
            None => self.stop_by_itself("no slot has a worker", EX_UNAVAILABLE, now, out),
        }
    }

    /// What of the limits is used up.
    pub(super) fn used(&self, now: Time) -> Used {
        let p = &self.policy;
        let minute = p.restarts_per_minute;
        Used {
            respawns: (minute > 0).then(|| (self.tally.in_window(now), minute)),
            forks: (p.max_forks > 0).then_some((self.tally.forks, p.max_forks)),
        }
    }

    /// How the cluster stands apart from its single deaths, in sentences.
    pub(super) fn standing(&self, now: Time) -> Vec<String> {
        let mut lines = Vec::new();
        let stopping = matches!(self.phase, Phase::Stopping { .. });
        if let Some(end) = self
            .last_ends()
            .and_then(|e| highest(&e))
            .filter(|_| stopping)
        {
            lines.push(leaving_with(end));
        }
        let used = self.used(now);
        if let Some((n, limit)) = used.respawns {
            let next = self.slots.iter().filter_map(|s| s.held).min();
            let next = next.map_or(String::new(), |at| {
                format!(
                    "; a crash loop: the next one is held back for {}",
                    human(at - now)
                )
            });
            lines.push(format!(
                "{n} respawns in the last minute (limit {limit}, --restarts-per-minute){next}"
            ));
        }
        if let Some((n, limit)) = used.forks {
            lines.push(format!("{n} forks (limit {limit}, --max-forks)"));
        }
        lines
    }
}

/// Of these ends the one with the highest status.
fn highest(ends: &[Exit]) -> Option<Exit> {
    ends.iter().copied().max_by_key(|e| status_of(*e))
}

/// The sentence about all slots having finished.
pub(super) fn leaving_with(end: Exit) -> String {
    let how = match end {
        Exit::Code(_) | Exit::Unknown => String::new(),
        Exit::Signal(n) => format!(": 128 and {n}, for {end}"),
    };
    format!(
        "all slots are finished (--respawn-on): leaving with exit {}, the highest status of a worker{how}",
        status_of(end)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(n: u64) -> Time {
        Time(n * 1_000_000_000)
    }

    #[test]
    fn room_comes_when_the_oldest_is_a_minute_ago_and_one_after_the_other() {
        let mut t = Tally::default();
        assert_eq!(t.room(2, 0, secs(0)), None);
        for at in [0, 10] {
            t.respawned(2, secs(at));
        }
        assert_eq!(t.room(2, 0, secs(10)), Some(secs(60)));
        assert_eq!(t.room(2, 1, secs(10)), Some(secs(70)));
        // More wait than there may be in a minute.
        assert_eq!(t.room(2, 2, secs(10)), Some(secs(120)));
        assert_eq!(t.room(2, 5, secs(10)), Some(secs(190)));
        assert_eq!(t.room(3, 0, secs(10)), None);
        assert_eq!(t.room(0, 0, secs(10)), None);
        // Lowered since: both must be that old.
        assert_eq!(t.room(1, 0, secs(10)), Some(secs(70)));
        assert_eq!(t.room(2, 0, Time(secs(60).0 - 1)), Some(secs(60)));
        assert_eq!(t.room(2, 0, secs(60)), None);
        // Not before those that wait already.
        assert_eq!(t.room(2, 1, secs(60)), Some(secs(70)));
        assert_eq!(t.room(2, 2, secs(90)), Some(secs(150)));
        t.respawned(2, secs(60));
        assert_eq!((t.recent.len(), t.in_window(secs(60))), (2, 2));
    }

    #[test]
    fn a_status_is_as_shells_have_it_and_the_highest_counts() {
        for (exit, want) in [
            (Exit::Code(0), 0),
            (Exit::Code(255), 255),
            (Exit::Signal(9), 137),
            (Exit::Signal(15), 143),
        ] {
            assert_eq!(status_of(exit), want);
        }
        let ends = [Exit::Code(3), Exit::Signal(15), Exit::Code(0)];
        assert_eq!(highest(&ends), Some(Exit::Signal(15)));
        assert_eq!(
            leaving_with(Exit::Signal(15)),
            "all slots are finished (--respawn-on): leaving with exit 143, the highest status of a worker: 128 and 15, for SIGTERM"
        );
    }
}
