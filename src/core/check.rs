//! The invariants, by the names the architecture gives them. Run after every step in simulation and
//! end-to-end builds; a breach is a bug of ours, never of a worker.

use super::Cluster;
use super::deadlines::Why;
use super::drain::Stage;
use super::ids::WorkerId;
use super::lanes::MAX_LANES;
use super::own::MAX_OWN;
use super::phase::{MAX_ASKERS, Phase, Step};
use super::readiness::Launch;
use super::remnants::MAX_REMNANTS;
use super::slot::{Place, Slot};
use super::worker::State;
use std::collections::BTreeMap;

impl Cluster {
    /// The first breach found.
    pub fn check(&self) -> Result<(), String> {
        self.check_places()?;
        self.check_deadlines()?;
        self.check_slots()?;
        self.check_due()?;
        self.check_swap()?;
        self.check_rotation()?;
        self.check_checks()?;
        self.check_limits()
    }

    /// I1: a slot has at most one worker, a worker one slot, a pid one place.
    fn check_places(&self) -> Result<(), String> {
        let mut pids = Vec::new();
        for w in self.fleet.iter() {
            // The slot of a dead one may be gone.
            let placed = self.place_of(w.id) != Place::None;
            let leaves = match w.state {
                State::Retiring { .. } | State::Draining { .. } | State::Killed { .. } => true,
                // Its fork is still to be called off.
                State::Spawning => true,
                State::Starting { .. } | State::Ready { .. } | State::Remnant => false,
            };
            if placed != w.unreaped() && !(w.unreaped() && leaves) {
                return Err(format!("I1: {:?} placed {placed}, {:?}", w.id, w.state));
            }
            if w.pid.is_some() && !w.unreaped() {
                return Err(format!("I1: {:?} is reaped but has a pid", w.id));
            }
            pids.extend(w.pid);
        }
        pids.sort_unstable();
        let next = pids.iter().zip(pids.iter().skip(1));
        if let Some((twice, _)) = next.into_iter().find(|(one, next)| one == next) {
            return Err(format!("I1: pid {twice:?} in two places"));
        }
        for (nr, slot) in self.slots.iter().enumerate() {
            match slot.current {
                Some(id)
                    if self
                        .fleet
                        .get(id)
                        .is_none_or(|w| usize::from(w.slot.0) != nr) =>
                {
                    return Err(format!("I1: slot {nr} holds {id:?}, which is not there"));
                }
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    /// I6: every state that does not rest has a deadline, and no deadline is about anything else.
    fn check_deadlines(&self) -> Result<(), String> {
        let has = |why| self.deadlines.get(why).is_some();
        for w in self.fleet.iter() {
            let id = w.id;
            let fine = match w.state {
                State::Starting { .. } => has(Why::Ready(id)) || w.ready_limit.is_none(),
                State::Retiring { stage, .. } => {
                    has(Why::Drain(id)) && (has(Why::Census) || stage == Stage::Drained)
                }
                State::Draining { .. } => has(Why::Kill(id)),
                State::Killed { .. } => has(Why::KillAgain(id)),
                State::Ready { .. } => {
                    let silent = w.adopted || self.policy.watchdog.is_none();
                    has(Why::Watchdog(id)) || silent
                }
                State::Spawning | State::Remnant => true,
            };
            if !fine && !matches!(self.phase, Phase::Done(_)) {
                return Err(format!("I6: {id:?} in {:?} has no deadline", w.state));
            }
        }
        for (why, at) in self.deadlines.iter() {
            let state = |id| self.fleet.get(id).map(|w| w.state);
            let serving = self.phase == Phase::Serving;
            let fine = match why {
                Why::Hold(id)
                | Why::Look(id)
                | Why::Probe(id)
                | Why::Alive(id)
                | Why::Ready(id) => {
                    matches!(state(id), Some(State::Starting { .. }))
                }
                Why::Watchdog(id) => {
                    self.policy.watchdog.is_some() && matches!(state(id), Some(State::Ready { .. }))
                }
                Why::Age(id) => matches!(state(id), Some(State::Ready { .. })),
                Why::Swap => serving && !self.due.is_empty(),
                Why::Weigh => serving,
                Why::Kill(id) => {
                    matches!(state(id), Some(State::Draining { .. } | State::Remnant))
                }
                Why::Drain(id) => matches!(state(id), Some(State::Retiring { .. })),
                Why::Census => self.fleet.iter().any(|w| w.stage().is_some()),
                Why::DrainDelay => matches!(
                    self.phase,
                    Phase::Stopping {
                        step: Step::Delay,
                        ..
                    }
                ),
                Why::Successors | Why::Watch => serving && self.rollout.is_some(),
                Why::KillAgain(id) => matches!(state(id), Some(State::Killed { .. })),
                Why::Respawn(nr) => {
                    let slot = self.slots.get(nr.index());
                    serving && slot.is_some_and(|s| s.current.is_none())
                }
                Why::StartTimeout => serving && self.launch == Launch::Waiting,
                Why::Unserved => serving && self.ever_ready,
                Why::Hung => self.ever_ready,
                // Looked at below.
                Why::Check(_) => serving,
                Why::Leftovers | Why::GiveUp => matches!(
                    self.phase,
                    Phase::Stopping {
                        step: Step::Leftovers,
                        ..
                    }
                ),
            };
            if !fine {
                return Err(format!("I6: {why:?} at {at:?} is about nothing"));
            }
        }
        Ok(())
    }

    /// I7: a wanted slot has a worker or a date for one, or rests; another one neither a date nor a worker that
    /// may stay; none is missing. I8: no date while stopping.
    fn check_slots(&self) -> Result<(), String> {
        let open = self.slots.open().count();
        if open != usize::from(self.wanted) {
            return Err(format!("I7: {open} slots of {}", self.wanted));
        }
        // (In a stop those that are empty may stay in the list.)
        let gone = |s: &Slot| s.closed && s.current.is_none();
        if self.phase == Phase::Serving && self.slots.last().is_some_and(gone) {
            return Err("I7: an empty slot behind all is there still".into());
        }
        for (nr, slot) in self.slot_numbers().zip(self.slots.iter()) {
            let (current, rests) = (slot.current, slot.rest.is_some());
            let date = self.deadlines.get(Why::Respawn(nr));
            let state = current.and_then(|id| self.fleet.get(id)).map(|w| w.state);
            let goes = match state {
                Some(State::Starting { .. } | State::Ready { .. } | State::Remnant) => false,
                Some(
                    State::Spawning
                    | State::Retiring { .. }
                    | State::Draining { .. }
                    | State::Killed { .. },
                )
                | None => true,
            };
            let fine = match (self.phase, self.is_wanted(nr)) {
                (Phase::Serving, true) if rests => current.is_none() && date.is_none(),
                (Phase::Serving, true) => current.is_some() != date.is_some() || !self.opened,
                (Phase::Serving, false) => date.is_none() && goes,
                (Phase::Stopping { .. }, _) => date.is_none(),
                (Phase::Done(_), _) => true,
            };
            if !fine {
                return Err(format!("I7/I8: slot {nr}: {current:?}, {date:?}"));
            }
        }
        match self.phase {
            Phase::Serving => Ok(()),
            Phase::Stopping { .. } | Phase::Done(_) if self.resizers.is_empty() => Ok(()),
            Phase::Stopping { .. } | Phase::Done(_) => Err("a resize outlives the service".into()),
        }
    }

    /// I9: nothing grows without limit.
    fn check_limits(&self) -> Result<(), String> {
        let remnants = self.fleet.iter().filter(|w| !w.unreaped()).count();
        let mut own: BTreeMap<WorkerId, usize> = BTreeMap::new();
        for id in self.lanes.iter().filter_map(|l| l.owner()) {
            *own.entry(id).or_default() += 1;
        }
        let most = own.into_values().max().unwrap_or(0);
        for (what, n, limit) in [
            ("remnants", remnants, MAX_REMNANTS),
            (
                "lanes",
                self.lanes.ports(),
                MAX_LANES + self.policy.given.len(),
            ),
            (
                "addresses to connect from",
                self.lanes.connect_from(),
                MAX_LANES,
            ),
            ("sockets of a worker's own", most, MAX_OWN),
            ("askers", self.waiting(), MAX_ASKERS),
            ("deaths", self.deaths.len(), 32.max(self.slots.len())),
            ("things said once", self.said.len(), super::MAX_SAID),
        ] {
            if n > limit {
                return Err(format!("I9: {n} {what} (limit {limit})"));
            }
        }
        Ok(())
    }
}
