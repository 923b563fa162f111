//! A worker whose output passes through us: what is known of it, and what it has written of a line that is not
//! whole yet.

use crate::wire::{output, syslog};
use serde::{Deserialize, Serialize};

/// One of them.
#[derive(Serialize, Deserialize)]
pub struct Voice {
    /// Its slot.
    pub slot: u16,
    /// Its pid.
    pub pid: i32,
    /// What it has written of a line, where that goes to syslog,
    pub lines: syslog::Lines,
    /// and where it goes to a file of its own.
    pub filed: output::Lines,
}

impl Voice {
    /// That of this one.
    pub fn new(slot: u16, pid: i32) -> Voice {
        Voice {
            slot,
            pid,
            lines: syslog::Lines::default(),
            filed: output::Lines::default(),
        }
    }
}
