//! All slots, by their numbers. Rules:
//!
//! 1. A number comes from outside, or from a worker whose slot may be gone by now (a resize): then it is
//!    looked up with `get`, and what follows where there is none is said there.
//! 2. Else it comes from the list itself, in the same step: `of`. That there is none would be a mistake
//!    of ours: the simulation stops at it, and the master goes on as if nobody had meant that slot, for
//!    its end would be that of the service.

use super::ids::SlotNr;
use super::slot::Slot;
use serde::{Deserialize, Serialize};
use std::ops::{Deref, DerefMut};

/// In the order of their numbers; closed ones behind the last open one only while they have a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Slots(Vec<Slot>);

impl Slots {
    pub(super) fn new(slots: Vec<Slot>) -> Slots {
        Slots(slots)
    }

    /// That one, which is there.
    pub(super) fn of(&self, nr: SlotNr) -> Option<&Slot> {
        let slot = self.0.get(nr.index());
        debug_assert!(slot.is_some(), "slot {nr} of {}", self.0.len());
        slot
    }

    /// The same, to change it.
    pub(super) fn of_mut(&mut self, nr: SlotNr) -> Option<&mut Slot> {
        let len = self.0.len();
        let slot = self.0.get_mut(nr.index());
        debug_assert!(slot.is_some(), "slot {nr} of {len}");
        slot
    }

    /// Those that there are to be.
    pub(super) fn open(&self) -> impl Iterator<Item = &Slot> + Clone {
        self.0.iter().filter(|s| !s.closed)
    }

    /// The first of these.
    pub(super) fn first(&self, n: u16) -> impl Iterator<Item = &Slot> + Clone {
        self.open().take(usize::from(n))
    }

    /// One more than the number of the last of them.
    pub(super) fn bound(&self) -> u16 {
        let last = self.0.iter().rposition(|s| !s.closed);
        let bound = last.map_or(0, |n| n + 1);
        u16::try_from(bound).unwrap_or(u16::MAX)
    }

    /// Which one is opened next: the lowest that is closed, or one behind all.
    pub(super) fn next_to_open(&self) -> SlotNr {
        let closed = self.0.iter().position(|s| s.closed);
        let next = closed.unwrap_or(self.0.len());
        SlotNr(u16::try_from(next).unwrap_or(u16::MAX))
    }
}

impl Deref for Slots {
    type Target = Vec<Slot>;
    fn deref(&self) -> &Vec<Slot> {
        &self.0
    }
}

impl DerefMut for Slots {
    fn deref_mut(&mut self) -> &mut Vec<Slot> {
        &mut self.0
    }
}
