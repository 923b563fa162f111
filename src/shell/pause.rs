//! When the master stood still: it was stopped (SIGSTOP, a debugger, a control group that was frozen), or got
//! no CPU, or a call that should take no time took some. Whoever waited for it meanwhile is not judged by that
//! time; core knows who may have. How long it was is not told by anybody. So it is found in three ways, each of which
//! can only be too long, and never by more than what was left when we last looked:
//!
//! 1. A turn took long.
//! 2. A sleep ended later than it was to.
//! 3. A sleep was interrupted, by no signal that we know of but SIGCONT: all of it may have been lost.

use super::Shell;
use crate::core::words::human;
use crate::core::{Level, Time};
use std::time::Duration;

/// Shorter ones are the ordinary business of a machine.
const LEAST: Duration = Duration::from_secs(1);

/// One sleep in poll, and the turn before it.
#[derive(Clone, Copy, Debug)]
pub struct Sleep {
    /// The turn began then,
    pub woken: Time,
    /// and the sleep then,
    pub since: Time,
    /// to be over after that.
    pub timeout: Option<Duration>,
}

impl Sleep {
    /// How long nobody was there, at least; `odd`: nothing that we know of has ended it.
    fn lost(&self, odd: bool, now: Time) -> Duration {
        let (turn, slept) = (self.since - self.woken, now - self.since);
        let late = match (odd, self.timeout) {
            (true, _) => slept,
            (false, Some(timeout)) => slept.saturating_sub(timeout),
            (false, None) => Duration::ZERO,
        };
        let counts = |d: Duration| if d >= LEAST { d } else { Duration::ZERO };
        counts(turn).saturating_add(counts(late))
    }
}

impl Shell {
    /// A sleep is over. Is there time that nobody is to be judged by?
    pub(super) fn has_slept(&mut self, sleep: Sleep, interrupted: bool) {
        let continued = self.signals.take_continued();
        let odd = continued || (interrupted && !self.signals.any());
        let lost = sleep.lost(odd, self.now());
        if lost.is_zero() {
            return;
        }
        let moved = self.cluster.stood_still(lost);
        if moved > 0 {
            let (lost, what) = (human(lost), crate::core::words::count(moved, "deadline"));
            let message = format!(
                "the master stood still for up to {lost} (stopped, traced, or without a CPU): moved by as much: {what} of those who may have waited for it"
            );
            self.say(Level::Info, "stood-still", message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_what_was_not_meant_to_be_slept() {
        let at = |s: u64| Time(s * 1_000_000_000);
        let secs = Duration::from_secs;
        let sleep = |timeout| Sleep {
            woken: at(10),
            since: at(10),
            timeout,
        };
        assert_eq!(sleep(Some(secs(5))).lost(false, at(15)), secs(0));
        assert_eq!(sleep(Some(secs(5))).lost(false, at(25)), secs(10));
        assert_eq!(sleep(None).lost(false, at(900)), secs(0));
        assert_eq!(sleep(None).lost(true, at(20)), secs(10));
        assert_eq!(sleep(Some(secs(30))).lost(true, at(20)), secs(10));
        let long_turn = Sleep {
            woken: at(4),
            ..sleep(Some(secs(0)))
        };
        assert_eq!(long_turn.lost(false, at(10)), secs(6));
        assert_eq!(long_turn.lost(true, at(12)), secs(8));
    }
}
