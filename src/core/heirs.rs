//! Whose the clients are that wait while nobody is ready: what a generation leaves to another. Rules:
//!
//! 1. When there is no worker at all as another generation is begun, or none that reads the lane that is steered to,
//!    or the last one makes room for it before it is there (--surge 0), it inherits the lane: who waits there waits for
//!    it. Where old workers are on their way in it has one of its own: they are to be emptied apart.
//! 2. If a generation fails for which somebody waits, the one before inherits the lane. It has one of its own, but nobody
//!    ready there: that goes with those who are there (`last_reader`), and who comes has the other.
//! 3. What is inherited is steered to, and nobody is ready (I2 would have it otherwise).

use super::action::Action;
use super::ids::{LaneId, PortId, WorkerId};
use super::lane::{Lane, LaneState, Of};
use super::notice::Cause;
use super::slot::Slot;
use super::worker::{State, Worker};
use super::{Cluster, Out};
use std::collections::{BTreeMap, BTreeSet};

impl Cluster {
    /// Another generation is begun while nobody serves. If there is no worker at all the lanes that are steered to are
    /// for that one, too; else those that nobody reads who is there.
    pub(super) fn inherit_forsaken(&mut self, generation: u32, out: &mut Out) {
        let current = |s: &Slot| s.current.and_then(|id| self.fleet.get(id));
        if self.slots.iter().filter_map(current).any(Worker::is_ready) {
            return;
        }
        let nobody = self.slots.iter().all(|s| s.current.is_none());
        let forsaken = |l: &Lane| nobody || self.is_forsaken(l);
        let all = self.heirless(generation, forsaken);
        self.leave_all_to(all, generation, out);
    }

    /// Does nobody read this lane, nor will anybody of those who are there? Those that are on their way in are to go
    /// first, with old before new, or are the next of those that did not get there. One that is emptied has the lane to
    /// itself, where the next one can have another.
    fn is_forsaken(&self, lane: &Lane) -> bool {
        let in_place = self.in_place_to().is_some();
        let failed = |w: &Worker| self.slots.get(w.slot.index()).is_some_and(Slot::has_failed);
        let comes = |w: &Worker| w.has_read(lane) || !in_place && !failed(w);
        let reads = |w: &Worker| match w.state {
            State::Spawning | State::Starting { .. } => comes(w),
            State::Ready { .. } => true,
            // One that hangs takes nothing any more.
            State::Draining {
                cause: Cause::Hang | Cause::NotStarted,
                ..
            }
            | State::Killed { .. }
            | State::Remnant => false,
            State::Retiring { .. } | State::Draining { .. } => lane.given && w.has_read(lane),
        };
        // (Of two lanes of its generation it has one.)
        let has = |w: &&Worker| {
            let mut its = self.lanes.shared_of(w.id, w.reader());
            its.any(|l| l.id == lane.id)
        };
        !self.fleet.iter().filter(has).any(reads)
    }

    /// Nobody serves: the lanes that are steered to are for this generation, too, where it has none of
    /// its own.
    pub(super) fn inherit(&mut self, generation: u32, out: &mut Out) {
        let all = self.heirless(generation, |_| true);
        self.leave_all_to(all, generation, out);
    }

    /// Lanes that are steered to, where this generation has none.
    fn heirless(&self, generation: u32, which: impl Fn(&Lane) -> bool) -> Vec<LaneId> {
        let of_one = |l: &&Lane| {
            let shared = matches!(l.of, Of::Generation(_)) && l.state == LaneState::Open;
            shared && self.is_steered(l)
        };
        // A port that was learnt from code that never came to run is nobody's business but its own.
        let known = |l: &Lane| l.given || self.lanes.is_shared_at(l.port, self.generation);
        let heirless = |l: &&Lane| known(l) && !self.lanes.is_shared_at(l.port, generation);
        let all = self.lanes.iter().filter(of_one).filter(heirless);
        let all: BTreeMap<PortId, LaneId> =
            all.filter(|l| which(l)).map(|l| (l.port, l.id)).collect();
        all.into_values().collect()
    }

    fn leave_all_to(&mut self, lanes: Vec<LaneId>, heir: u32, out: &mut Out) {
        let alive = self.generations();
        for id in lanes {
            self.leave_to(id, heir, &alive, out);
        }
    }

    /// That generation shares this lane from now on, with those of its heirs that are there still.
    fn leave_to(&mut self, id: LaneId, heir: u32, alive: &BTreeSet<u32>, out: &mut Out) {
        let Some(lane) = self.lanes.get_mut(id) else {
            return;
        };
        lane.heirs.retain(|g| alive.contains(g));
        lane.heirs.insert(heir);
        let heirs = lane.heirs.clone();
        out.push(Action::Inherit { lane: id, heirs });
    }

    /// A generation has failed that had its lanes steered to while nobody was ready (--surge 0): who waits by those is
    /// to be served by the one before, which has them in place of its own from now on. Nobody waits by its own, mostly:
    /// that was emptied before its last worker was asked to stop, or is being emptied by that.
    ///
    /// Not where that one's next worker has its own already. One of the failed code that listens goes on to get clients
    /// until it is at rest: it would be better off apart, if it takes them; but if it does not, those who wait were lost.
    /// A port that the one before had not is none of its business.
    pub(super) fn bequeath(&mut self, failed: u32, out: &mut Out) {
        let heir = self.generation;
        let comes = |w: &Worker| w.generation == heir && w.unreaped() && !w.is_leaving();
        if self.fleet.iter().any(|w| w.is_ready() || comes(w)) {
            return;
        }
        let alive = self.generations();
        let theirs = |l: &&Lane| {
            let open = matches!(l.of, Of::Generation(_)) && l.state == LaneState::Open;
            let failed = l.is_shared_by(failed) && !l.is_shared_by(heir);
            open && failed && self.is_steered(l)
        };
        let all = self.lanes.iter().filter(theirs);
        let all: BTreeMap<PortId, LaneId> = all.map(|l| (l.port, l.id)).collect();
        for (port, id) in all {
            let its = |l: &&Lane| {
                let shared = matches!(l.of, Of::Generation(_)) && l.is_shared_by(heir);
                l.port == port && l.id != id && shared && l.last_reader.is_none()
            };
            let its: Vec<LaneId> = self.lanes.iter().filter(its).map(|l| l.id).collect();
            if its.is_empty() {
                continue;
            }
            // They go with the last who is there.
            let last = self.fleet.iter().map(|w| w.id).max();
            for its in its {
                if let Some(lane) = self.lanes.get_mut(its) {
                    lane.last_reader = Some(last.unwrap_or(WorkerId(0)));
                }
            }
            self.leave_to(id, heir, &alive, out);
        }
    }
}
