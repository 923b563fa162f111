//! The sockets of a group in the kernel's order, and where each of them is in it: with a thousand of them
//! nothing is to be looked for.

use crate::core::LaneId;
use crate::sys::steer::{self, Gate, Raw};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// One socket of a group. `fd` is a second descriptor of the lane's.
#[derive(Serialize, Deserialize)]
pub(super) struct Member {
    #[serde(with = "crate::shell::carry")]
    pub(super) fd: OwnedFd,
    /// `None`: a spare, or one that nobody serves any more but that is not ours to close.
    pub(super) lane: Option<LaneId>,
    pub(super) passed: bool,
    /// Was it a worker's?
    pub(super) own: bool,
    /// Is it there from before, and may become a lane yet? Then it is no spare.
    pub(super) kept: bool,
    /// Nothing of ours may keep new clients out of it.
    pub(super) bare: bool,
    /// What keeps new clients out of it, if they are.
    pub(super) gate: Option<Gate>,
}

impl Member {
    pub(super) fn is_spare(&self) -> bool {
        self.lane.is_none() && !self.passed && !self.kept
    }

    /// Is it one of these lanes?
    pub(super) fn is_in(&self, lanes: &BTreeSet<LaneId>) -> bool {
        self.lane.is_some_and(|l| lanes.contains(&l))
    }

    /// Is it one that may stay although nothing is steered to it?
    fn stays(&self) -> bool {
        self.passed || self.own
    }

    /// Keeps new clients out, where that can be done without harm to those that are on their way in.
    pub(super) fn shut(&mut self, refusal: &[Raw]) {
        if self.gate.is_none() && !self.bare && steer::filter(self.fd.as_fd(), refusal).is_ok() {
            self.gate = Some(Gate::Filter);
        }
    }
}

/// All of a group.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Members {
    all: Vec<Member>,
    at: BTreeMap<LaneId, usize>,
    spares: BTreeSet<usize>,
    staying: usize,
}

impl Members {
    pub(super) fn all(&self) -> &[Member] {
        &self.all
    }

    /// The one there. That there is none would be a mistake of ours, and is an error like any that the
    /// kernel makes: what was to be done is not, and that is said.
    pub(super) fn get(&self, at: usize) -> io::Result<&Member> {
        let none = || io::Error::from_raw_os_error(libc::EBADF);
        self.all.get(at).ok_or_else(none)
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn index(&self, lane: LaneId) -> Option<usize> {
        self.at.get(&lane).copied()
    }

    pub(super) fn of(&self, lane: LaneId) -> Option<&Member> {
        self.all.get(self.index(lane)?)
    }

    /// The first spare there is.
    pub(super) fn spare(&self) -> Option<usize> {
        self.spares.first().copied()
    }

    pub(super) fn is_spare(&self, at: usize) -> bool {
        self.spares.contains(&at)
    }

    pub(super) fn spares(&self) -> usize {
        self.spares.len()
    }

    /// Are there any that may stay although nothing is steered to them?
    pub(super) fn any_stays(&self) -> bool {
        self.staying > 0
    }

    /// To let them in or keep them out; what they are stays as it is.
    pub(super) fn gates(&mut self) -> impl Iterator<Item = &mut Member> {
        self.all.iter_mut()
    }

    /// It is the last one now.
    pub(super) fn push(&mut self, member: Member) {
        self.staying += usize::from(member.stays());
        self.all.push(member);
        self.note(self.all.len() - 1);
    }

    /// The last one is in its place now.
    pub(super) fn swap_remove(&mut self, at: usize) -> io::Result<Member> {
        self.get(at)?;
        self.forget(self.all.len() - 1);
        self.forget(at);
        let gone = self.all.swap_remove(at);
        self.staying -= usize::from(gone.stays());
        if at < self.all.len() {
            self.note(at);
        }
        Ok(gone)
    }

    /// May it become a lane yet?
    pub(super) fn keep(&mut self, at: usize, kept: bool) {
        self.forget(at);
        if let Some(member) = self.all.get_mut(at) {
            member.kept = kept;
        }
        self.note(at);
    }

    /// It is that lane from now on, or none.
    pub(super) fn name(&mut self, at: usize, lane: Option<LaneId>) {
        self.forget(at);
        if let Some(member) = self.all.get_mut(at) {
            member.lane = lane;
        }
        self.note(at);
    }

    fn note(&mut self, at: usize) {
        let Some(member) = self.all.get(at) else {
            return;
        };
        if let Some(lane) = member.lane {
            self.at.insert(lane, at);
        } else if member.is_spare() {
            self.spares.insert(at);
        }
    }

    fn forget(&mut self, at: usize) {
        if let Some(lane) = self.all.get(at).and_then(|m| m.lane) {
            self.at.remove(&lane);
        }
        self.spares.remove(&at);
    }
}
