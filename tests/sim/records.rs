//! What the judge writes down: one record for each worker, lane and ending, kept by what core is told
//! and by what the world knows, never by what core says of itself.

use crate::kernel::Serial;
use minicluster::core::Addr;
use minicluster::core::{Event, LaneId, SlotNr, Time, WorkerId};
use std::collections::VecDeque;
use std::time::Duration;

/// One worker, as the world knows it.
#[derive(Clone, Debug)]
pub struct Job {
    pub slot: SlotNr,
    /// Its first process until that is reaped, and the group that it founded.
    pub leader: Option<Serial>,
    pub group: Option<Serial>,
    /// When it was forked.
    pub spawned: Time,
    /// What it says on its way to exec, not told yet; and has it said its last?
    pub reports: VecDeque<Event>,
    pub on_its_way: bool,
    pub execed: Option<Time>,
    /// Has it failed before COMMAND? Then it leaves by itself.
    pub failed: bool,
    pub ready: Option<Time>,
    /// Has it said that it is? When was it heard last, since it was? When was it sent SIGABRT?
    pub said: bool,
    pub pulse: Option<Time>,
    pub abort: Option<Time>,
    /// Since when its slot is not wanted: it goes even if that is wanted again.
    pub surplus: Option<Time>,
    /// When the stop signal and the last SIGKILL were sent.
    pub stop: Option<Time>,
    pub kill: Option<Time>,
    /// What core was told of its end.
    pub exit_told: bool,
    pub gone_told: bool,
    /// Is its tree's end on its way, or told?
    pub hung_up: bool,
    pub forgotten: bool,
    pub watched: bool,
    /// The lane it listened on last.
    pub listened: Option<LaneId>,
}

impl Job {
    /// Does core still know it?
    pub fn known(&self) -> bool {
        !(self.forgotten || self.exit_told && self.gone_told)
    }
}

/// One lane, as the world knows it.
#[derive(Clone, Debug)]
pub struct Lane {
    pub addr: Addr,
    pub given: bool,
    pub open: bool,
    pub listens: bool,
    /// Does somebody connect from it?
    pub connected: bool,
    /// Has a worker listened on it, or been seen to wait there?
    pub served: bool,
}

/// Why and since when the cluster has to end.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub code: u8,
    pub hard: bool,
    /// Did somebody ask for it, or does it give up by itself?
    pub asked: bool,
    pub since: Time,
}

/// One slot, as the policy wants it.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub worker: Option<WorkerId>,
    /// When it fell vacant, and the shortest and longest time it may stay so.
    pub vacant: Option<(Time, Duration, Duration)>,
    pub failures: u32,
    /// Has a worker of it been ready?
    pub proven: bool,
}
