//! How far a rollout has come, for whoever looks. Nothing is decided here.

use super::Cluster;
use super::ids::Time;
use super::slot::Place;
use super::worker::Worker;
use std::time::Duration;

/// What it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The first new ones come, or are watched.
    Canary,
    /// One after the other gets its place.
    Replacing,
    /// All have theirs, and the last of them are watched.
    Watching,
    /// The new ones serve; the old ones are emptied.
    Draining,
    /// It has failed, and slots that had been replaced get the old code again.
    TakingBack,
}

impl Stage {
    /// As answers have it.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Canary => "canary",
            Stage::Replacing => "replacing",
            Stage::Watching => "watching",
            Stage::Draining => "draining",
            Stage::TakingBack => "taking-back",
        }
    }
}

/// One that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub stage: Stage,
    /// The generation that all slots are to be of,
    pub to: u32,
    /// since when,
    pub took: Duration,
    /// so many ready workers of it there are,
    pub new: usize,
    /// of so many,
    pub of: usize,
    /// and so many that it replaces.
    pub old: usize,
}

impl Cluster {
    /// Is it one that goes on account of that one, or still has to? Others that leave are no business of it.
    fn is_replaced_by(&self, w: &Worker, to: u32) -> bool {
        let in_place = matches!(self.place_of(w.id), Place::Current(_));
        w.generation != to && (in_place || w.made_room_for == Some(to))
    }

    /// Of the one that is under way.
    pub(super) fn progress(&self, now: Time) -> Option<Progress> {
        let r = self.rollout.as_ref()?;
        let stage = if r.back {
            Stage::TakingBack
        } else if self.generation == r.to {
            Stage::Draining
        } else if self.canaries_first().is_some() {
            Stage::Canary
        } else if self.all_replaced(r.to) && self.replaced_are_ready() {
            Stage::Watching
        } else {
            Stage::Replacing
        };
        let there = || self.fleet.iter().filter(|w| w.unreaped());
        let new = there().filter(|w| w.generation == r.to && w.is_ready());
        Some(Progress {
            stage,
            to: r.to,
            took: now - r.since,
            new: new.count(),
            of: usize::from(self.goal()),
            old: there().filter(|w| self.is_replaced_by(w, r.to)).count(),
        })
    }
}
