//! A worker to whom somebody still comes, of the queue that it shares with those that stay, is asked to
//! stop when nothing is owed on its connections. Between a look and the signal it could accept another one:
//! so it is stopped, with all processes of its group, looked at, and asked to stop before it goes on. By a
//! signal that it does not catch it ends without having done anything more.
//!
//! Who must not be held up, or cannot be, is asked as it is, which is best effort: one that was stopped
//! already, has processes outside its group, or cannot be looked into.

use super::Shell;
use crate::core::{Event, WorkerId};
use crate::sys::{clock, procfs, wait};
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

/// So long it has for stopping: a thread that is busy in the kernel does so late. We wait as long.
const STOPS_WITHIN: Duration = Duration::from_millis(10);

/// How it is with one that should leave.
enum Rest {
    /// It is stopped, and owes nothing.
    Still,
    /// It owes something, or does not stop in time.
    Busy,
    /// It cannot be told.
    Unknown,
}

impl Shell {
    pub(super) fn dismiss_at_rest(&mut self, worker: WorkerId, signal: i32) {
        let held_up = self.may_be_held_up(worker) && self.send_to_all(worker, libc::SIGSTOP);
        let rest = match held_up {
            true => self.rest(worker),
            false => Rest::Unknown,
        };
        let done = match rest {
            Rest::Still | Rest::Unknown => true,
            Rest::Busy => false,
        };
        if done {
            self.dismiss(worker, signal);
        }
        if held_up {
            self.send_to_all(worker, libc::SIGCONT);
        }
        self.queue.push_back(Event::Dismissed { worker, done });
    }

    /// Is all of it in its group, and at large?
    fn may_be_held_up(&self, worker: WorkerId) -> bool {
        let Some((pid, group)) = self.leader(worker) else {
            return false;
        };
        let inside = |pid: &i32| procfs::group_of(*pid).is_none_or(|g| g == group);
        procfs::is_ours() && !wait::is_stopped(pid) && procfs::tree(pid).iter().all(inside)
    }

    fn leader(&self, worker: WorkerId) -> Option<(i32, i32)> {
        let p = self.procs.map.get(&worker)?;
        Some((p.pid?, p.group))
    }

    fn send_to_all(&self, worker: WorkerId, signal: i32) -> bool {
        let _worn = self.to_kill();
        self.procs.signal_group(worker, signal).is_ok()
    }

    fn rest(&mut self, worker: WorkerId) -> Rest {
        if !self.stops(worker) {
            return Rest::Busy;
        }
        // (That the kernel does not tell was said when it was looked for the first time.)
        match self.owes(worker).unwrap_or_default() {
            Some(true) => Rest::Busy,
            Some(false) => Rest::Still,
            None => Rest::Unknown,
        }
    }

    /// Has it been stopped, within the time that it has?
    fn stops(&self, worker: WorkerId) -> bool {
        let Some((leader, _)) = self.leader(worker) else {
            return true;
        };
        let begun = clock::monotonic();
        let rest = || {
            let mut others = procfs::tree(leader).into_iter().skip(1);
            wait::is_stopped(leader) && others.all(procfs::is_stopped)
        };
        loop {
            if rest() {
                return true;
            }
            let took = clock::monotonic().saturating_sub(begun);
            if Duration::from_nanos(took) >= STOPS_WITHIN {
                return false;
            }
            clock::pause(Duration::from_millis(1));
        }
    }

    /// Is anything owed on a connection that it has? `None`: it may not be looked into.
    fn owes(&mut self, worker: WorkerId) -> io::Result<Option<bool>> {
        let mut owes = false;
        for look in 0.. {
            let conns = self.clients()?;
            let many = conns.len() > super::census::AT_ONCE;
            let held = self.held(conns)?;
            self.census.endings.heard(held.iter());
            let inodes: BTreeSet<u64> = held.iter().map(|h| h.inode).collect();
            let owners = self.owners(&[worker], &inodes);
            if owners.cut || owners.unseen.contains(&worker) {
                return Ok(None);
            }
            let its = held.iter().filter(|h| owners.of.contains_key(&h.inode));
            owes |= its.into_iter().any(|h| self.census.endings.owes(h));
            // Of many, listed in parts, one may be missed once.
            if owes || !many || look > 0 {
                break;
            }
        }
        Ok(Some(owes))
    }
}
