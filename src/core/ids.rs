//! The names of things: serials that are never reused, and our own clock value.
//!
//! An id is never a slot and never a pid: slots outlive workers, and the kernel reuses pids. Every
//! event and action names its subject by one of these, so late news can be recognised and dropped.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point on the monotonic clock, in nanoseconds. Core never asks what time it is: it is told.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Time(pub u64);

impl Time {
    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// So long before it.
    pub fn before(self, d: Duration) -> Time {
        let ns = u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_sub(ns))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    /// Saturating: a limit of a million years is "never", not an overflow in PID 1.
    fn add(self, d: Duration) -> Time {
        Time(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Time> for Time {
    type Output = Duration;
    fn sub(self, earlier: Time) -> Duration {
        self.since(earlier)
    }
}

macro_rules! serial {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);
    };
}

serial!(
    /// One worker process, from the wish to spawn it until its last descendant has gone.
    WorkerId
);
serial!(
    /// One address that we serve.
    PortId
);
serial!(
    /// One listening socket of a port.
    LaneId
);
serial!(
    /// What a worker that has lanes of its own leaves to the next one in its slot: these lanes.
    Seat
);
serial!(
    /// One worker blocked in bind(2) or listen(2), waiting for our answer.
    Ask
);
serial!(
    /// One client that wants to hear how a request ended.
    Asker
);

/// Which command a slot runs: that of the cluster, 0, or one of its own.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Program(pub u32);

/// A numbered place 0..N-1 that outlives its processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SlotNr(pub u16);

impl SlotNr {
    /// Its place in the list.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for SlotNr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A process id. Core carries it for messages only: whom to signal is said by `WorkerId`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pid(pub i32);

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
