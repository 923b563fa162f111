//! The slots. Rules:
//!
//! 1. A slot outlives its workers. While the cluster serves and wants it, it has a worker or a date
//!    for the next (I7), or rests (`crash`).
//! 2. At the start the first worker goes ahead of the others until it listens, at most `LEAD`: the
//!    first answer is what clients wait for, and a crowd of starting siblings would take the CPUs
//!    from it.
//! 3. Wanted and actual are compared in `spawn_due`; no event counts.

use super::crash::Rest;
use super::deadlines::Why;
use super::event::Exit;
use super::ids::{Program, Seat, SlotNr, Time, WorkerId};
use super::notice::{Birth, Cause, Next};
use super::respawn::Backoff;
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How far the first worker goes ahead of the others.
pub const LEAD: Duration = Duration::from_millis(10);
/// What it still gets to take its first connection once it listens.
const HEELS: Duration = Duration::from_millis(1);

/// One numbered place.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Slot {
    /// Is there to be no such slot? It keeps its place in the list while there are others behind it.
    pub closed: bool,
    /// The worker in it, until it is reaped.
    pub current: Option<WorkerId>,
    /// The one that is to take its place when it is ready.
    pub successor: Option<WorkerId>,
    /// The one that made room for a new one that is watched still.
    pub kept: Option<WorkerId>,
    /// Of which generation its workers are.
    pub generation: u32,
    /// What its workers run.
    pub program: Program,
    /// Whose lanes its worker has, or the last one had.
    pub seat: Option<Seat>,
    /// Failures in a row,
    pub backoff: Backoff,
    /// and of those that were to take the place of one that serves (`swap`).
    pub swaps: Backoff,
    /// Workers it has had beyond the first.
    pub restarts: u64,
    /// Has it had any?
    pub used: bool,
    /// Did its worker make room for a next one that is to come? That one is no restart.
    pub emptied: bool,
    /// Why its present worker was forked, if the one before had made room for it.
    #[serde(default)]
    pub made_room: Option<Birth>,
    /// Did its worker fail, of new code, and is the next one of the code before? That one is no restart either.
    #[serde(default)]
    pub taken_back: bool,
    /// Was it added while the cluster ran?
    pub added: bool,
    /// Has one of its workers been ready?
    pub proven: bool,
    /// Why it has neither a worker nor a date for one, if so (`crash`).
    pub rest: Option<Rest>,
    /// Its date, if that is later than its backoff wants it, because there are too many respawns.
    pub held: Option<Time>,
}

/// How a slot has lost its worker.
pub(super) struct Vacancy {
    pub cause: Cause,
    /// `None`: there was no process.
    pub exit: Option<Exit>,
    /// As backoff has it; `None`: it never was.
    pub ready_for: Option<Duration>,
    /// The next one comes so much later, or more.
    pub least: Duration,
    /// Was it of new code, and does that fail the whole rollout?
    pub in_vain: bool,
}

/// Where a worker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In that slot.
    Current(SlotNr),
    /// It is to be in that slot.
    Successor(SlotNr),
    /// It was in that slot, and may be again.
    Kept(SlotNr),
    /// It is on its way out.
    None,
}

impl Slot {
    /// One of the first.
    pub fn of(generation: u32) -> Slot {
        Slot {
            generation,
            ..Slot::default()
        }
    }

    /// One that a resize adds.
    pub fn added(generation: u32) -> Slot {
        Slot {
            added: true,
            ..Slot::of(generation)
        }
    }

    /// Has its last worker failed, or the one before the present?
    pub fn has_failed(&self) -> bool {
        self.backoff != Backoff::default()
    }

    /// Why its present worker was forked.
    pub fn reason(&self) -> Birth {
        match (self.made_room, self.restarts, self.added) {
            (Some(birth), _, _) => birth,
            (None, 0, false) => Birth::Start,
            (None, 0, true) => Birth::Resize,
            (None, _, _) => Birth::Failure,
        }
    }
}

impl Cluster {
    /// Where the worker stands.
    pub(super) fn place_of(&self, id: WorkerId) -> Place {
        let Some(nr) = self.fleet.get(id).map(|w| w.slot) else {
            return Place::None;
        };
        match self.slots.get(nr.index()) {
            Some(s) if s.current == Some(id) => Place::Current(nr),
            Some(s) if s.successor == Some(id) => Place::Successor(nr),
            Some(s) if s.kept == Some(id) => Place::Kept(nr),
            Some(_) | None => Place::None,
        }
    }

    /// This one, which is ready, has the place from now on; who had it?
    pub(super) fn takes_place(&mut self, nr: SlotNr, id: WorkerId) -> Option<WorkerId> {
        self.deadlines.stop(Why::Respawn(nr));
        let w = self.fleet.get(id)?;
        let slot = self.slots.get_mut(nr.index())?;
        let old = slot.current.replace(id);
        (slot.successor, slot.seat, slot.generation) = (None, Some(w.seat), w.generation);
        (slot.rest, slot.held) = (None, None);
        slot.taken_back = false;
        slot.proven = true;
        (slot.backoff, slot.swaps) = Default::default();
        self.runs_now(nr, id);
        old
    }

    /// The slot has lost its worker. Sets the date for the next one, if there is to be one, and says
    /// what follows.
    pub(super) fn slot_vacated(
        &mut self,
        nr: SlotNr,
        how: Vacancy,
        now: Time,
        out: &mut Out,
    ) -> Next {
        if let Some(slot) = self.slots.of_mut(nr) {
            slot.current = None;
        }
        if self.stop_is_hard().is_some() {
            return Next::Nothing;
        }
        if !self.is_wanted(nr) {
            self.drop_empty_slots();
            return Next::Nothing;
        }
        let Some(slot) = self.slots.of_mut(nr) else {
            return Next::Nothing;
        };
        match how.cause {
            // Wanted again before its worker had gone: the next spawn is now.
            Cause::Resize => {
                *slot = Slot {
                    successor: slot.successor,
                    kept: slot.kept,
                    seat: slot.seat,
                    program: slot.program,
                    ..Slot::added(slot.generation)
                };
                return Next::Respawn(Duration::ZERO);
            }
            // It made room for another one, which has not failed yet.
            Cause::Restart => {
                slot.backoff = Backoff::default();
                return Next::Respawn(Duration::ZERO);
            }
            // It said that it would.
            Cause::Recycle => {
                (slot.backoff, slot.emptied) = (Backoff::default(), true);
                return Next::Respawn(Duration::ZERO);
            }
            Cause::Failure
            | Cause::Finished
            | Cause::Shutdown
            | Cause::Kill
            | Cause::NotReady
            | Cause::Hang
            | Cause::NotStarted
            | Cause::Oom(_) => {}
        }
        if how.in_vain {
            // The code that comes back has not failed.
            (slot.backoff, slot.taken_back) = (Backoff::default(), true);
            return Next::Respawn(Duration::ZERO);
        }
        if self.is_starting(nr) && how.ready_for.is_none() {
            // It goes again (`starting`, rule 2).
            return Next::Nothing;
        }
        let rest = how.exit.and_then(|exit| self.finishes(how.cause, exit));
        let Some(slot) = self.slots.of_mut(nr) else {
            return Next::Nothing;
        };
        if rest.is_some() {
            slot.rest = rest;
            return Next::Finished;
        }
        let delay = slot
            .backoff
            .after_death(how.ready_for, &self.policy, &mut self.rng)
            .max(how.least);
        self.respawn_in(nr, delay, now, out)
    }

    /// The first spawns: slot 0 now, the others after its lead.
    pub(super) fn spawn_first(&mut self, now: Time, out: &mut Out) {
        for nr in self.slot_numbers().skip(1) {
            self.deadlines.set(Why::Respawn(nr), now + LEAD);
        }
        self.spawn_due(now, out);
    }

    /// The first worker is where it wanted to be: the others follow on its heels.
    pub(super) fn end_lead(&mut self, now: Time) {
        for nr in self.slot_numbers().skip(1) {
            let unused = self.slots.of(nr).is_some_and(|s| !s.used);
            match self.deadlines.get(Why::Respawn(nr)) {
                // Sooner, never later.
                Some(at) if unused => self.deadlines.set(Why::Respawn(nr), at.min(now + HEELS)),
                Some(_) | None => {}
            }
        }
    }

    /// Spawns for every wanted slot that is empty and due.
    pub(super) fn spawn_due(&mut self, now: Time, out: &mut Out) {
        if self.stop_is_hard().is_some() {
            return;
        }
        let to = self.in_place_to();
        for slot_nr in self.slot_numbers() {
            if !self.is_wanted(slot_nr) {
                continue;
            }
            let Some(slot) = self.slots.of(slot_nr) else {
                continue;
            };
            let later = self
                .deadlines
                .get(Why::Respawn(slot_nr))
                .is_some_and(|at| at > now);
            if slot.current.is_some() || later {
                continue;
            }
            let generation = to.unwrap_or(slot.generation);
            let same = slot.generation == generation;
            let failed = same && slot.used && !slot.emptied && !slot.taken_back;
            if same && slot.rest.is_some() || failed && !self.respawns(slot_nr, now, out) {
                continue;
            }
            self.deadlines.stop(Why::Respawn(slot_nr));
            let Some(slot) = self.slots.of_mut(slot_nr) else {
                continue;
            };
            (slot.rest, slot.held) = (None, None);
            if slot.generation != generation {
                // What failed before was other code.
                slot.backoff = Default::default();
                slot.generation = generation;
                slot.emptied = true;
            }
            let taken_back = std::mem::take(&mut slot.taken_back);
            let emptied = std::mem::take(&mut slot.emptied) || taken_back;
            let for_whom = match to.is_some() || taken_back {
                true => Birth::Restart,
                false => Birth::Recycle,
            };
            slot.made_room = (slot.used && emptied).then_some(for_whom);
            if slot.used && !emptied {
                slot.restarts += 1;
            }
            slot.used = true;
            let worker = self.enlist(
                slot_nr,
                generation,
                self.program_in(slot_nr, generation),
                now,
                out,
            );
            if let Some(slot) = self.slots.of_mut(slot_nr) {
                slot.current = Some(worker);
                slot.seat = self.fleet.get(worker).map(|w| w.seat);
            }
            self.runs_now(slot_nr, worker);
        }
    }
}
