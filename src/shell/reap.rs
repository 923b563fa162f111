//! The one place that waits for children. We may be PID 1 or a subreaper, so strangers come too.
//!
//! Each is peeked, acted on, then reaped: core hears of a worker's end while its first process is
//! a zombie that still holds the number of its group, so that the group can be signalled without
//! hitting a stranger. One left unreaped would hide all others.

use super::Shell;
use super::channel::{Drained, To};
use crate::core::{Event, Exit, Level, Oom, WorkerId};
use crate::sys::oom::Kill;
use crate::sys::wait::{self, Ended};
use crate::sys::{signal, wait::peek};

/// Reaped in one turn; the rest in the next.
const TURN: usize = 64;
/// Strangers that have gone are told of together, when no more wait: core looks at all that are
/// left each time. But not later than after so many turns.
const PATIENCE: u32 = 16;

impl Shell {
    /// Reaps what has ended. True: there may be more.
    pub(super) fn reap(&mut self) -> bool {
        let more = self.reap_some();
        self.cgroups.tidy();
        if let Some(turns) = &mut self.strays_gone {
            *turns += 1;
            if !more || *turns >= PATIENCE {
                self.strays_gone = None;
                self.queue.push_back(Event::StrayReaped);
                self.settle();
            }
        }
        more
    }

    fn reap_some(&mut self) -> bool {
        for _ in 0..TURN {
            let (pid, ended) = match peek() {
                Ok(Some(child)) => child,
                Ok(None) => return false,
                Err(e) => {
                    self.say(Level::Error, "wait-error", format!("waitid: {e}"));
                    return false;
                }
            };
            let exit = match ended {
                Ended::Code(c) => Exit::Code(c),
                Ended::Signal(s) => Exit::Signal(s),
                Ended::Stopped(s) => {
                    // One that cannot be let go is dying: SIGKILL makes sure.
                    if wait::let_go(pid, s).is_err() {
                        let _worn = self.to_kill();
                        let _ = signal::kill(pid, libc::SIGKILL);
                    }
                    continue;
                }
            };
            match self.procs.by_pid(pid) {
                Some(worker) => {
                    let exit = self.procs.as_it_was_meant(worker, exit);
                    self.worker_ended(worker, pid, exit);
                }
                None if self.job_ended(pid, exit) => {
                    let _ = wait::reap(pid);
                    // What it has left behind is ours now.
                    self.strays_gone.get_or_insert(0);
                }
                None => {
                    let _ = wait::reap(pid);
                    self.asked.remove(&pid);
                    self.born_with.remove(&pid);
                    self.strays_gone.get_or_insert(0);
                }
            }
            self.settle();
        }
        true
    }

    fn worker_ended(&mut self, worker: WorkerId, pid: i32, status: Exit) {
        // What it said last on its way: why exec failed, to others, and what it wrote to stderr.
        self.hear_report(worker);
        self.hear_last_messages(worker);
        self.drain_stderr(worker);
        if let Some(s) = self.stderrs.get_mut(&worker) {
            let left = s.inherit_all(&mut self.log, &mut self.output);
            if s.to == To::Files && left != Drained::More {
                // A line of a dead worker is at its end, whoever else writes to its pipe.
                s.end(&mut self.log, &mut self.output);
            }
            self.watch_log();
        }
        self.settle();
        let last = self
            .stderrs
            .get(&worker)
            .map(|s| s.last_lines())
            .unwrap_or_default();
        let oom = self.oom_of(worker, pid, status);
        // By then core may have forgotten it.
        let slot = self.cluster.fleet().get(worker).map(|w| w.slot);
        self.queue.push_back(Event::Exited {
            worker,
            status,
            oom,
            last,
        });
        self.settle();
        let used = wait::reap(pid).unwrap_or(0);
        if let Some(slot) = slot {
            self.metrics.spent.ended(worker, slot, used);
        }
        if let Some(p) = self.procs.map.get_mut(&worker) {
            p.pid = None;
        }
        self.drop_pid(worker);
        self.look_for_gone_trees();
    }

    /// Was it killed for want of memory?
    fn oom_of(&mut self, worker: WorkerId, pid: i32, status: Exit) -> Oom {
        let ours = self.procs.map.get(&worker).is_some_and(|p| p.killed);
        if ours || status != Exit::Signal(libc::SIGKILL) {
            return Oom::No;
        }
        let now = self.now().0;
        match self.oom.look(pid, now) {
            Kill::None => Oom::No,
            Kill::Ours => Oom::Yes,
            Kill::Somewhere => Oom::Probably,
        }
    }

    /// Trees that nothing announces the end of: never watched, so their group is asked for.
    pub(super) fn look_for_gone_trees(&mut self) {
        for worker in self.procs.unwatched_remnants() {
            let gone = self
                .procs
                .map
                .get(&worker)
                .is_some_and(|p| !signal::group_exists(p.group));
            if gone {
                self.tree_gone(worker);
            }
        }
    }
}
