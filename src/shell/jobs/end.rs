//! The end of the master, as far as programs are concerned: those that the last events have begun may
//! still do their work, but nobody waits for long.

use super::super::Shell;
use super::line::Waits;
use crate::core::Time;
use crate::sys::{process, procfs};
use crate::wire::ran::{End, Ran};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// In the end they have so long, all together.
pub const LAST: Duration = Duration::from_secs(1);
/// One that was killed is waited for so long.
const DIES_WITHIN: Duration = Duration::from_millis(200);

/// The end of the master.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Closing {
    /// They are killed then,
    pub kill_at: Time,
    /// and waited for until then.
    pub over: Time,
    /// Have any run since? Then what they have left behind has to go, too.
    pub ran: bool,
}

impl Shell {
    /// The cluster has ended: may the master go? Asked again in each turn until it may.
    pub fn jobs_let_go(&mut self) -> bool {
        let now = self.now();
        let begins = self.jobs.closing.is_none();
        let closing = *self.jobs.closing.get_or_insert_with(|| {
            let budget = self.cluster.over_by();
            let over = budget.map_or(now + LAST, |by| by.min(now + LAST));
            let kill_at = over.before(DIES_WITHIN).max(now);
            let ran = false;
            Closing { kill_at, over, ran }
        });
        if begins {
            self.end_coprocesses(closing);
        }
        if self.jobs.are_over() {
            return !closing.ran || now >= closing.over || self.nothing_is_left();
        }
        if let Some(c) = &mut self.jobs.closing {
            c.ran = true;
        }
        if now >= closing.kill_at && !self.jobs.closed {
            self.kill_jobs(now);
        }
        now >= closing.over
    }

    /// Kills what the last jobs have left behind: nobody sweeps after core has.
    fn nothing_is_left(&mut self) -> bool {
        let mut left = match procfs::is_ours() {
            true => procfs::children(process::id()),
            false => Vec::new(),
        };
        left.retain(|pid| !self.born_with.contains(pid));
        for pid in &left {
            self.kill_stray(*pid);
        }
        left.is_empty()
    }

    /// None is begun any more, and those that run are killed.
    pub fn kill_jobs(&mut self, now: Time) {
        self.jobs.closed = true;
        for job in self.jobs.running.values_mut() {
            job.stopped = true;
            job.kill(now);
        }
        self.kill_coprocesses();
        for Waits { purpose, order, .. } in self.jobs.waiting.clear() {
            let ran = Ran::not_begun(order.name, End::Stopped);
            self.job_done(purpose, ran.whole_if(order.ours));
        }
    }
}
