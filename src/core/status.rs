//! A plain snapshot of everything an operator may ask, and the story of the last deaths.

use super::Cluster;
use super::addr::Addr;
use super::crash::{Rest, Used};
use super::deadlines::Why;
use super::death::Death;
use super::event::Exit;
use super::ids::{LaneId, Pid, Program, Seat, SlotNr, Time};
use super::lane::Of;
use super::notice::Cause;
use super::phase::Phase;
use super::policy::Takeover;
use super::progress::Progress;
use super::rotation::Rotation;
use super::slot::{Place, Slot};
use super::worker::{State, Worker};
use std::collections::BTreeMap;
use std::time::Duration;

/// Everything, at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Where the cluster is.
    pub phase: Phase,
    /// Of the code that runs.
    pub generation: u32,
    /// How many slots there are to be.
    pub wanted: usize,
    /// How many serve.
    pub ready: usize,
    /// Is it to have clients?
    pub rotation: Rotation,
    /// The replacing of all workers that is under way.
    pub rollout: Option<Progress>,
    /// Since when the master runs.
    pub up: Duration,
    /// Addresses served.
    pub lanes: Vec<Addr>,
    /// `on`, `off`, `refused`, `unused`.
    pub takeover: &'static str,
    /// One each, and those that are to go but have not; behind each the workers beside its own.
    pub slots: Vec<SlotView>,
    /// Oldest first.
    pub deaths: Vec<Death>,
    /// What of the limits on respawns and forks is used up.
    pub used: Used,
    /// Sentences about how all that stands.
    pub standing: Vec<String>,
}

/// One slot.
#[derive(Clone, Debug)]
pub struct SlotView {
    /// Its number.
    pub slot: SlotNr,
    /// Is it about the worker in the slot? Else about one beside it: its successor, or one before it
    /// that has not gone.
    pub current: bool,
    /// Of the worker in it.
    pub pid: Option<Pid>,
    /// Of its code.
    pub generation: u32,
    /// What it runs.
    pub program: Program,
    /// One word.
    pub state: &'static str,
    /// Since it was asked for; of an empty slot: until the next one.
    pub age: Duration,
    /// Was its worker left by another master?
    pub adopted: bool,
    /// Workers beyond the first.
    pub restarts: u64,
    /// Under --watchdog: how long ago it has said that it is well.
    pub well: Option<Duration>,
    /// The last death.
    pub last: Option<(Cause, Exit)>,
}

/// All words that a slot's state can be.
pub const STATES: [&str; 8] = [
    "starting", "ready", "draining", "killed", "waiting", "finished", "given-up", "stopped",
];

impl Cluster {
    /// Takes it.
    pub fn status(&self, now: Time) -> Snapshot {
        Snapshot {
            deaths: self.deaths.iter().cloned().collect(),
            standing: self.standing(now),
            ..self.glance(now)
        }
    }

    /// The same without its stories: what is looked at often.
    pub fn glance(&self, now: Time) -> Snapshot {
        Snapshot {
            phase: self.phase,
            generation: self.generation,
            wanted: usize::from(self.wanted),
            ready: self.ready_count(),
            rotation: self.rotation(),
            rollout: self.progress(now),
            up: now - self.started,
            lanes: self.addrs(),
            takeover: self.takeover_word(),
            slots: self.views(now),
            deaths: Vec::new(),
            used: self.used(now),
            standing: Vec::new(),
        }
    }

    /// Addresses served.
    pub fn addrs(&self) -> Vec<Addr> {
        self.lanes.served_addrs()
    }

    /// Whose alone each lane is, as far as it is that of one slot.
    pub fn slots_of_lanes(&self) -> BTreeMap<LaneId, SlotNr> {
        // The slot has the last word: a seat is passed on from one worker to the next.
        let mut seats: BTreeMap<Seat, SlotNr> =
            self.fleet.iter().map(|w| (w.seat, w.slot)).collect();
        let slots = self.slot_numbers().zip(self.slots.iter());
        seats.extend(slots.filter_map(|(nr, s)| Some((s.seat?, nr))));
        let of = |of| match of {
            Of::Seat(seat) => seats.get(&seat).copied(),
            Of::Worker(id) => self.fleet.get(id).map(|w| w.slot),
            Of::Generation(_) | Of::All => None,
        };
        let lanes = self.lanes.iter();
        lanes.filter_map(|l| Some((l.id, of(l.of)?))).collect()
    }

    fn takeover_word(&self) -> &'static str {
        match (&self.policy.takeover, self.takeover_works) {
            (Takeover::Off, _) => "off",
            (_, None) => "unused",
            (_, Some(true)) => "on",
            (_, Some(false)) => "refused",
        }
    }

    fn views(&self, now: Time) -> Vec<SlotView> {
        let slots = self.slot_numbers().zip(self.slots.iter());
        let shown = slots.filter(|(nr, s)| self.is_wanted(*nr) || s.current.is_some());
        let mut views: Vec<SlotView> = shown.map(|(nr, s)| self.view(nr, s, now)).collect();
        let in_place = |w: &Worker| matches!(self.place_of(w.id), Place::Current(_));
        let beside = self.fleet.iter().filter(|w| w.unreaped() && !in_place(w));
        views.extend(beside.map(|w| SlotView {
            slot: w.slot,
            current: false,
            pid: w.pid,
            generation: w.generation,
            program: w.program,
            state: state_word(w.state),
            age: now - w.born,
            adopted: w.adopted,
            restarts: 0,
            well: self.well(w, now),
            last: None,
        }));
        // Stable: oldest first behind the slot's own.
        views.sort_by_key(|v| (v.slot, !v.current));
        views
    }

    fn well(&self, w: &Worker, now: Time) -> Option<Duration> {
        self.policy.watchdog.and(w.pinged).map(|at| now - at)
    }

    fn view(&self, nr: SlotNr, slot: &Slot, now: Time) -> SlotView {
        let worker = slot.current.and_then(|id| self.fleet.get(id));
        let until = self
            .deadlines
            .get(Why::Respawn(nr))
            .map_or(Duration::ZERO, |at| at - now);
        let state = match worker.map(|w| w.state) {
            None => match (slot.rest, self.phase) {
                (Some(Rest::Finished(_)), _) => "finished",
                (Some(Rest::GivenUp), Phase::Serving) => "given-up",
                (None, Phase::Serving) => "waiting",
                (Some(Rest::GivenUp) | None, Phase::Stopping { .. } | Phase::Done(_)) => "stopped",
            },
            Some(state) => state_word(state),
        };
        let here = |d: &&Death| d.who.slot == nr && d.had_slot;
        let death = self.deaths.iter().rev().find(here);
        SlotView {
            slot: nr,
            current: true,
            pid: worker.and_then(|w| w.pid),
            generation: worker.map_or(self.generation, |w| w.generation),
            program: slot.program,
            state,
            age: worker.map_or(until, |w| now - w.born),
            adopted: worker.is_some_and(|w| w.adopted),
            restarts: slot.restarts,
            well: worker.and_then(|w| self.well(w, now)),
            last: death.map(|d| (d.cause, d.exit)),
        }
    }
}

fn state_word(state: State) -> &'static str {
    match state {
        State::Spawning | State::Starting { .. } => "starting",
        State::Ready { .. } => "ready",
        State::Retiring { .. } | State::Draining { .. } => "draining",
        State::Killed { .. } => "killed",
        State::Remnant => "remnant",
    }
}
