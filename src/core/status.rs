//! A plain snapshot of everything an operator may ask, and the story of the last deaths.

use super::addr::Addr;
use super::deadlines::Why;
use super::event::Exit;
use super::ids::{Pid, SlotNr, Time};
use super::notice::{Cause, Next, Notice, Who};
use super::phase::Phase;
use super::policy::Takeover;
use super::slot::Place;
use super::worker::{State, Worker};
use super::{Action, Cluster, Out};
use std::time::Duration;

/// So many deaths are remembered, the newest per slot beyond that (I9).
const MAX_DEATHS: usize = 32;

/// One end of a worker.
#[derive(Clone, Debug)]
pub struct Death {
    /// Which worker.
    pub who: Who,
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
}

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
    /// One word.
    pub state: &'static str,
    /// Since it was asked for; of an empty slot: until the next one.
    pub age: Duration,
    /// Workers beyond the first.
    pub restarts: u64,
    /// The last death.
    pub last: Option<(Cause, Exit)>,
}

impl Cluster {
    /// Takes it.
    pub fn status(&self, now: Time) -> Snapshot {
        Snapshot {
            phase: self.phase,
            generation: self.generation,
            wanted: usize::from(self.wanted),
            ready: self.ready_count(),
            up: now - self.started,
            lanes: self.lanes.served_addrs(),
            takeover: self.takeover_word(),
            slots: self.views(now),
            deaths: self.deaths.iter().cloned().collect(),
        }
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
        let shown =
            |s: &SlotNr| self.is_wanted(*s) || self.slots[usize::from(s.0)].current.is_some();
        let mut views: Vec<SlotView> = self
            .slot_numbers()
            .filter(shown)
            .map(|s| self.view(s, now))
            .collect();
        let in_place = |w: &Worker| matches!(self.place_of(w.id), Place::Current(_));
        let beside = self.fleet.iter().filter(|w| w.unreaped() && !in_place(w));
        views.extend(beside.map(|w| SlotView {
            slot: w.slot,
            current: false,
            pid: w.pid,
            generation: w.generation,
            state: state_word(w.state),
            age: now - w.born,
            restarts: 0,
            last: None,
        }));
        // Stable: oldest first behind the slot's own.
        views.sort_by_key(|v| (v.slot, !v.current));
        views
    }

    fn view(&self, nr: SlotNr, now: Time) -> SlotView {
        let slot = &self.slots[usize::from(nr.0)];
        let worker = slot.current.and_then(|id| self.fleet.get(id));
        let until = self
            .deadlines
            .get(Why::Respawn(nr))
            .map_or(Duration::ZERO, |at| at - now);
        let state = match worker.map(|w| w.state) {
            None => match self.phase {
                Phase::Serving => "waiting",
                Phase::Stopping { .. } | Phase::Done(_) => "stopped",
            },
            Some(state) => state_word(state),
        };
        let death = self.deaths.iter().rev().find(|d| d.who.slot == nr);
        SlotView {
            slot: nr,
            current: true,
            pid: worker.and_then(|w| w.pid),
            generation: worker.map_or(self.generation, |w| w.generation),
            state,
            age: worker.map_or(until, |w| now - w.born),
            restarts: slot.restarts,
            last: death.map(|d| (d.cause, d.exit)),
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
            let spare = |i: usize| {
                let slot = self.deaths[i].who.slot;
                usize::from(slot.0) >= self.slots.len()
                    || self.deaths.iter().skip(i + 1).any(|d| d.who.slot == slot)
            };
            let victim = (0..self.deaths.len()).find(|i| spare(*i)).unwrap_or(0);
            self.deaths.remove(victim);
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
