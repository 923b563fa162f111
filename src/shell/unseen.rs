//! Where there is no /proc of our pid namespace: what can be told of other processes without it.
//!
//! A descriptor is looked at by taking a copy of it. What workers have left behind has no names; but
//! the first process of a namespace reaches all others with one call, and is told by wait(2) when
//! none is left.

use super::Shell;
use super::sockets::Listened;
use crate::core::{Event, WorkerId};
use crate::sys::closer::Copy;
use crate::sys::procfs::{self, Target};
use crate::sys::{fds, pidfd, process, signal, wait};
use std::io;
use std::os::fd::AsFd;

/// What to say about it once, at the start.
pub fn warning() -> String {
    let left = match process::is_first() {
        true => "",
        false => ", and daemons that workers leave behind are not ended",
    };
    format!(
        "there is no /proc of this pid namespace: workers that serve the socket they are handed are not seen to be ready (--ready started takes them for it), status lacks memory and CPU{left}; mount one (unshare --mount-proc)"
    )
}

/// A copy of that descriptor of a thread.
pub fn copy_of(tid: i32, fd: i32) -> io::Result<Copy> {
    // Most servers bind in their first thread: then the tid is a pid, which every kernel opens.
    let held = pidfd::open(tid)
        .or_else(|_| pidfd::open_thread(tid))
        .or_else(|_| pidfd::open(procfs::process_of(tid).unwrap_or(tid)))?;
    pidfd::getfd(held.as_fd(), fd).map(Copy::of)
}

/// What that descriptor of a thread refers to, with or without /proc.
pub fn target(tid: i32, fd: i32) -> Option<Target> {
    match procfs::is_ours() {
        true => procfs::target(tid, fd),
        false => fds::target(copy_of(tid, fd).ok()?.as_fd()).ok(),
    }
}

/// Has a thread still the socket it listened on? One that has gone is taken at its word: it may have
/// been one of several. A worker's end is told otherwise.
pub fn holds(l: &Listened, inode: u64) -> bool {
    match copy_of(l.pid, l.fd) {
        Ok(copy) => fds::inode(copy.as_fd()).is_ok_and(|i| i == inode),
        Err(e) => e.raw_os_error() != Some(libc::EBADF),
    }
}

impl Shell {
    /// As `sweep`. Members of a worker's group had the stop signal with their group: until those have
    /// gone the others, who cannot be reached without them, wait for it.
    pub(super) fn sweep_unseen(&mut self, signal: Option<i32>) {
        if self.jobs.run() {
            // They cannot be told from the others: they go first, and then it is looked again.
            self.kill_jobs(self.now());
            let (left, zombies) = (Vec::new(), true);
            return self.queue.push_back(Event::Strays { left, zombies });
        }
        let first = process::is_first();
        let groups = self.procs.groups_left();
        // Before they are killed: a moment later they are gone, and nobody would say that they were
        // there. A worker that not even SIGKILL ends is a child, too, and core knows of it.
        let some = match first && self.procs.pids().is_empty() {
            true => wait::any_child(None),
            false => !groups.is_empty(),
        };
        let zombies = matches!(wait::peek(), Ok(Some(_)));
        if zombies {
            // It may be the last worker, whose end is being told in this moment: with it unreaped
            // nobody can say that no other is left. So core is to look again when it is.
            self.strays_gone.get_or_insert(0);
        }
        // Whether one of them lives cannot be told while one has just ended. That they are killed is
        // said all the same.
        let begins = signal == Some(libc::SIGKILL) && self.told_all != signal;
        let event = match some && (begins || !zombies) {
            true => Event::StraysUnnamed,
            false => Event::Strays {
                left: Vec::new(),
                zombies,
            },
        };
        self.tell_unseen(signal, first, &groups);
        self.queue.push_back(event);
    }

    fn tell_unseen(&mut self, signal: Option<i32>, first: bool, groups: &[WorkerId]) {
        let _worn = self.to_kill();
        match signal {
            Some(libc::SIGKILL) => {
                self.told_all = signal;
                if first {
                    // It fails if nobody is left, which the look has told.
                    let _ = signal::kill_all(libc::SIGKILL);
                }
                for id in groups.iter().filter(|_| !first) {
                    let _ = self.procs.signal_group(*id, libc::SIGKILL);
                }
            }
            Some(stop) if first && groups.is_empty() && self.told_all.is_none() => {
                self.told_all = signal;
                let _ = signal::kill_all(stop);
            }
            Some(_) | None => {}
        }
    }
}
