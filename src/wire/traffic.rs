//! What is known of the connections of one worker, or of one slot: a plain value that answers, tables and
//! metrics read.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Those that are open, as far as they can be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How many.
    pub open: u64,
    /// For how long nothing has moved on the one that is silent longest,
    pub silent: Option<Duration>,
    /// and how old the oldest is, at least.
    pub oldest: Option<Duration>,
}

/// Those that have ended, as far as the kernel has told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many.
    pub served: u64,
    /// Bytes that clients have sent,
    pub received: u64,
    /// and bytes that they have got. As the kernel counts: an end is a byte, too.
    pub sent: u64,
}

impl Tally {
    /// And these.
    pub fn add(&mut self, more: Tally) {
        self.served = self.served.saturating_add(more.served);
        self.received = self.received.saturating_add(more.received);
        self.sent = self.sent.saturating_add(more.sent);
    }
}

/// All of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// `None`: it cannot be seen.
    pub seen: Option<Seen>,
    /// How many wait in the queue that is this worker's alone.
    pub queue: Option<u64>,
    /// `None`: it is not counted.
    pub tally: Option<Tally>,
    /// How many were ended because they were silent, if that is asked for.
    pub timeouts: Option<u64>,
}
