//! In or out of rotation: is whoever sends clients here (a load balancer, a probe) to go on with it? Rules:
//!
//! 1. What an operator says is kept here, by the master: no respawn, reload or resize changes it, and a new
//!    worker inherits it. It changes nothing else: a cluster that is out of rotation serves on.
//! 2. AVAILABLE is: not taken out, not stopping, as many workers ready as --ready-quorum wants, and those
//!    content that are asked (`health`). Taken out is DISABLED whatever the rest is; all else is WARNING.
//! 3. From the first moment of a stop it is not available: with --drain-delay those who ask have that long
//!    to turn away.
//! 4. Said are only edges: unhealthy when too few are ready, or one that is asked is not content, or it is
//!    the other of these by now; healthy when all is well again. Not before the start is over, which has
//!    words of its own, nor in a stop.

use super::action::Action;
use super::event::By;
use super::health::{Check, CheckView};
use super::ids::Time;
use super::notice::Notice;
use super::phase::Phase;
use super::phrases::asked_by;
use super::readiness::Launch;
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Most bytes of the reason that somebody gives (I9).
pub const MAX_REASON: usize = 256;

/// In one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Clients may come.
    Available,
    /// They had better not.
    Warning,
    /// An operator does not want them to.
    Disabled,
}

impl Standing {
    /// All of them.
    pub const ALL: [Standing; 3] = [Standing::Available, Standing::Warning, Standing::Disabled];

    /// As it is spelled in answers.
    pub fn word(self) -> &'static str {
        match self {
            Standing::Available => "AVAILABLE",
            Standing::Warning => "WARNING",
            Standing::Disabled => "DISABLED",
        }
    }
}

/// Why it is so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ground {
    /// Nothing is wrong.
    Well,
    /// No worker has been ready yet.
    Starting { ready: usize, quorum: u16 },
    /// Fewer are ready than are to be.
    TooFew { ready: usize, quorum: u16 },
    /// That has not answered yet.
    Unchecked { check: Check },
    /// That is not content.
    Discontent { check: Check, why: String },
    /// The cluster stops.
    Stopping,
    /// Somebody has said so.
    Asked { why: String, by: Option<By> },
}

impl Ground {
    /// Is the same thing wrong, whatever is said of it?
    fn is_like(&self, other: &Ground) -> bool {
        match (self, other) {
            (Ground::Discontent { check: one, .. }, Ground::Discontent { check: two, .. })
            | (Ground::Unchecked { check: one }, Ground::Unchecked { check: two }) => one == two,
            (one, two) => std::mem::discriminant(one) == std::mem::discriminant(two),
        }
    }
}

impl fmt::Display for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ground::Well => f.write_str("all is well"),
            Ground::Starting { ready, quorum } => write!(
                f,
                "the cluster starts, {ready} ready of {quorum} (--ready-quorum)"
            ),
            Ground::TooFew { ready, quorum } => {
                write!(f, "{ready} ready of {quorum} (--ready-quorum)")
            }
            Ground::Unchecked { check } => write!(f, "no answer yet ({check})"),
            Ground::Discontent { check, why } => write!(f, "{why} ({check})"),
            Ground::Stopping => f.write_str("the cluster stops"),
            Ground::Asked { why, by } => write!(f, "{why}{}", asked_by(by)),
        }
    }
}

/// Who asks may be told this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// In one word.
    pub state: Standing,
    /// And why.
    pub why: Ground,
    /// Since when it is that word.
    pub since: Time,
    /// How those stand that are asked.
    pub checks: Vec<CheckView>,
}

/// What is kept of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// Taken out: why, and who said so.
    out: Option<(String, Option<By>)>,
    /// The word as of the last event, and since when it is so.
    stands: Standing,
    since: Time,
    /// What was said to be wrong.
    unwell: Option<Ground>,
}

impl Kept {
    /// At the start nobody is ready.
    pub(super) fn new(now: Time) -> Kept {
        Kept {
            out: None,
            stands: Standing::Warning,
            since: now,
            unwell: None,
        }
    }
}

impl Cluster {
    /// How it stands.
    pub fn rotation(&self) -> Rotation {
        let (state, why) = match &self.rotation.out {
            Some((why, by)) => {
                let (why, by) = (why.clone(), *by);
                (Standing::Disabled, Ground::Asked { why, by })
            }
            None => match self.health() {
                Ground::Well => (Standing::Available, Ground::Well),
                why @ (Ground::Starting { .. }
                | Ground::TooFew { .. }
                | Ground::Unchecked { .. }
                | Ground::Discontent { .. }
                | Ground::Stopping
                | Ground::Asked { .. }) => (Standing::Warning, why),
            },
        };
        Rotation {
            state,
            why,
            since: self.rotation.since,
            checks: self.check_views(),
        }
    }

    /// May clients come, by the workers there are and by what is asked? Whatever an operator wants.
    pub fn health(&self) -> Ground {
        let (ready, quorum) = (self.ready_count(), self.policy.ready_quorum);
        let enough = ready >= usize::from(quorum);
        match self.phase {
            Phase::Stopping { .. } | Phase::Done(_) => Ground::Stopping,
            Phase::Serving if enough => self.discontent().unwrap_or(Ground::Well),
            Phase::Serving => match self.launch {
                Launch::Waiting | Launch::Overdue => Ground::Starting { ready, quorum },
                Launch::Over => Ground::TooFew { ready, quorum },
            },
        }
    }

    /// Somebody takes it out of rotation, or puts it back. To say so twice changes nothing: it stays as
    /// the first has said.
    pub(super) fn rotate(&mut self, enable: bool, why: String, by: Option<By>, out: &mut Out) {
        match (enable, self.rotation.out.is_some()) {
            (true, true) => {
                self.rotation.out = None;
                out.push(Action::Note(Notice::Enabled { why, by }));
            }
            (false, false) => {
                self.rotation.out = Some((why.clone(), by));
                out.push(Action::Note(Notice::Disabled { why, by }));
            }
            (true, false) | (false, true) => {}
        }
    }

    /// After each event: has that changed how it stands?
    pub(super) fn rotation_progress(&mut self, now: Time, out: &mut Out) {
        let stands = self.rotation().state;
        if stands != self.rotation.stands {
            (self.rotation.stands, self.rotation.since) = (stands, now);
        }
        let (ready, quorum) = (self.ready_count(), self.policy.ready_quorum);
        let why = self.health();
        match &why {
            Ground::TooFew { .. } | Ground::Discontent { .. } => {
                let said = self
                    .rotation
                    .unwell
                    .as_ref()
                    .is_some_and(|w| w.is_like(&why));
                if self.launch == Launch::Over && !said {
                    self.rotation.unwell = Some(why.clone());
                    out.push(Action::Note(Notice::Unhealthy { ready, quorum, why }));
                }
            }
            Ground::Well => {
                if let Some(was) = self.rotation.unwell.take() {
                    out.push(Action::Note(Notice::Healthy { ready, quorum, was }));
                }
            }
            Ground::Starting { .. }
            | Ground::Unchecked { .. }
            | Ground::Stopping
            | Ground::Asked { .. } => {}
        }
    }

    /// Does it stand as was said after the last event?
    pub(super) fn check_rotation(&self) -> Result<(), String> {
        let now = self.rotation();
        match now.state == self.rotation.stands {
            true => Ok(()),
            false => Err(format!("rotation: {now:?} is not {:?}", self.rotation)),
        }
    }
}
