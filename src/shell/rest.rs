//! A worker to whom somebody still comes, of the queue that it shares with those that stay, is asked to
//! stop when nothing is owed on its connections. Between a look and the signal it could accept another one:
//! so it is stopped, with all processes of its group, looked at, and asked to stop before it goes on.
//!
//! By a signal that it does not catch it would end then, but not before others of its threads have gone on
//! for a moment, which is enough to accept somebody: so it is ended as it stands, by SIGKILL, and counts as
//! ended by that signal. Those that its first process leaves have the same, as always.
//!
//! Who catches it goes on, from the youngest process to the first: some that see a child stopped stop, too
//! (su, sudo), and shall not see it.
//!
//! Who must not be held up, or cannot be, is asked as it is, which is best effort: one that was stopped
//! already, has processes outside its group, or cannot be looked into.

use super::Shell;
use crate::core::{Event, WorkerId};
use crate::sys::procfs::{self, Habit};
use crate::sys::{clock, signal};
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

/// So long it has for stopping: a thread that is busy in the kernel does so late. We wait as long.
const STOPS_WITHIN: Duration = Duration::from_millis(10);

/// So long one that ends when it no longer blocks its signal has for that.
const ENDS_WITHIN: Duration = Duration::from_millis(5);

/// How it is with one that should leave.
enum Rest {
    /// It is stopped, and owes nothing.
    Still,
    /// It owes something, or does not stop in time.
    Busy,
    /// It cannot be told.
    Unknown,
}

/// The processes of a worker, its first one first.
struct Tree {
    leader: i32,
    all: Vec<i32>,
}

impl Shell {
    pub(super) fn dismiss_at_rest(&mut self, worker: WorkerId, signal: i32) {
        let begun = clock::monotonic();
        let done = match self.held_up(worker) {
            Some(tree) => self.dismiss_held_up(worker, signal, &tree),
            None => {
                self.dismiss(worker, signal);
                true
            }
        };
        let took = since(begun);
        self.queue
            .push_back(Event::Dismissed { worker, done, took });
    }

    /// All of it, if it is in its group, and gets a SIGSTOP now.
    fn held_up(&self, worker: WorkerId) -> Option<Tree> {
        let p = self.procs.map.get(&worker)?;
        let (leader, group) = (p.pid?, p.group);
        let all = procfs::tree(leader);
        let inside = |pid: &i32| procfs::group_of(*pid).is_none_or(|g| g == group);
        let stopped = self.procs.is_stopped(worker, leader);
        let can = procfs::is_ours() && !stopped && all.iter().all(inside);
        let stops = can && self.send_to_all(worker, libc::SIGSTOP);
        stops.then_some(Tree { leader, all })
    }

    fn send_to_all(&self, worker: WorkerId, signal: i32) -> bool {
        let _worn = self.to_kill();
        self.procs.signal_group(worker, signal).is_ok()
    }

    /// It goes on afterwards, whatever came of it.
    fn dismiss_held_up(&mut self, worker: WorkerId, signal: i32, tree: &Tree) -> bool {
        let still = soon(STOPS_WITHIN, || {
            self.procs.is_stopped(worker, tree.leader) && tree.is_still()
        });
        // (Those that it has forked in that moment are stopped, too.)
        let tree = &Tree {
            leader: tree.leader,
            all: procfs::tree(tree.leader),
        };
        let rest = match still {
            true => self.rest(worker),
            false => Rest::Busy,
        };
        let done = match rest {
            Rest::Still | Rest::Unknown => true,
            Rest::Busy => false,
        };
        if done {
            self.ask_to_stop(worker, signal);
            if signal::ends(signal) {
                self.end_as_it_stands(worker, signal, tree);
            }
        }
        {
            let _worn = self.to_kill();
            for pid in tree.all.iter().skip(1).rev() {
                let _ = signal::kill(*pid, libc::SIGCONT);
            }
        }
        self.send_to_all(worker, libc::SIGCONT);
        if done {
            self.close_ipc(worker);
        }
        done
    }

    /// The first process has its signal. Does it end by that?
    fn end_as_it_stands(&mut self, worker: WorkerId, signal: i32, tree: &Tree) {
        let _worn = self.to_kill();
        let put_down = match procfs::habit(tree.leader, signal) {
            Habit::Lives => return,
            Habit::Ends if self.kill_first(worker, tree).is_err() => return,
            Habit::Ends => Some(signal),
            // It goes on alone for that.
            Habit::Blocks if tree.all.len() == 1 => return,
            Habit::Blocks => {
                let _ = self.procs.signal_first(worker, tree.leader, libc::SIGCONT);
                match soon(ENDS_WITHIN, || procfs::is_zombie(tree.leader)) {
                    true => None,
                    false => return,
                }
            }
        };
        if let Some(p) = self.procs.map.get_mut(&worker) {
            (p.put_down, p.group_asked) = (put_down, true);
        }
        for pid in tree.all.iter().skip(1) {
            let how = match procfs::habit(*pid, signal) {
                Habit::Ends => libc::SIGKILL,
                Habit::Blocks | Habit::Lives => signal,
            };
            // It is stopped: nobody else can have its number.
            let _ = signal::kill(*pid, how);
        }
    }

    fn kill_first(&self, worker: WorkerId, tree: &Tree) -> io::Result<()> {
        self.procs.signal_first(worker, tree.leader, libc::SIGKILL)
    }

    fn rest(&mut self, worker: WorkerId) -> Rest {
        // (That the kernel does not tell was said when it was looked for the first time.)
        match self.owes(worker).unwrap_or_default() {
            Some(true) => Rest::Busy,
            Some(false) => Rest::Still,
            None => Rest::Unknown,
        }
    }

    /// Is anything owed on a connection that it has? `None`: it may not be looked into.
    fn owes(&mut self, worker: WorkerId) -> io::Result<Option<bool>> {
        for look in 0.. {
            let conns = self.clients()?;
            let many = conns.len() > super::census::AT_ONCE;
            let held = self.held(conns)?;
            self.hear(&held);
            let owed = held.iter().filter(|h| self.census.endings.owes(h));
            let owed: BTreeSet<u64> = owed.map(|h| h.inode).collect();
            if !owed.is_empty() {
                let owners = self.owners(&[worker], &owed);
                if owners.cut || owners.unseen.contains(&worker) {
                    return Ok(None);
                }
                if !owners.of.is_empty() {
                    return Ok(Some(true));
                }
            }
            // Of many, listed in parts, one may be missed once.
            if !many || look > 0 {
                break;
            }
        }
        Ok(Some(false))
    }
}

impl Tree {
    fn is_still(&self) -> bool {
        let all = procfs::tree(self.leader);
        let mut others = all.iter().skip(1);
        others.all(|pid| procfs::is_stopped(*pid))
            // One may have forked before it was.
            && procfs::tree(self.leader) == all
    }
}

fn since(begun: u64) -> Duration {
    Duration::from_nanos(clock::monotonic().saturating_sub(begun))
}

/// Is it so before that time is over? We do nothing else meanwhile.
fn soon(within: Duration, so: impl Fn() -> bool) -> bool {
    let begun = clock::monotonic();
    loop {
        if so() {
            return true;
        }
        if since(begun) >= within {
            return false;
        }
        clock::pause(Duration::from_millis(1));
    }
}
