//! What the shell keeps of each worker: pids while unreaped, and the descriptors that come from it.

use crate::core::{Exit, Time, WorkerId};
use crate::sys::{pidfd, procfs, signal, wait};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

/// One worker's.
#[derive(Serialize, Deserialize)]
pub struct Proc {
    /// Its first process; `Some` iff unreaped. Also the number of its group.
    pub pid: Option<i32>,
    /// The number of its group, safe to use only while a member is known (see `signal_group`).
    pub group: i32,
    /// Of that generation.
    pub generation: u32,
    /// Has it had SIGKILL from us?
    pub killed: bool,
    /// Did it get a SIGKILL in place of that signal, which would have ended it, too?
    pub put_down: Option<i32>,
    /// Has its group had the stop signal, when it ended, before its end was told?
    pub group_asked: bool,
    /// When.
    pub forked: Time,
    /// If another master has left it: itself, whatever becomes of its number.
    #[serde(with = "crate::shell::carry")]
    pub orphan: Option<OwnedFd>,
    /// When it was started, as far as it can be told.
    pub started: Option<u64>,
    /// What its group ends with, if that is its own.
    #[serde(with = "crate::shell::carry")]
    pub _life: Option<OwnedFd>,
    /// Is it to be given leave to execute its program?
    #[serde(default)]
    pub held: bool,
    /// Where it reports on its way to exec.
    #[serde(with = "crate::shell::carry")]
    pub report: Option<OwnedFd>,
    /// Where its bind(2) and listen(2) ask.
    #[serde(with = "crate::shell::carry")]
    pub listener: Option<OwnedFd>,
    /// How many descriptors from 3 on it was born with.
    pub handed: usize,
    /// Its last listen(2) on a lane of ours.
    pub listened: Option<super::sockets::Listened>,
}

/// All workers with anything left.
#[derive(Default, Serialize, Deserialize)]
pub struct Procs {
    pub map: BTreeMap<WorkerId, Proc>,
}

impl Procs {
    /// The worker whose first process this is.
    pub fn by_pid(&self, pid: i32) -> Option<WorkerId> {
        let hit = |(_, p): &(&WorkerId, &Proc)| p.pid == Some(pid);
        self.map.iter().find(hit).map(|(id, _)| *id)
    }

    /// One that was put down counts as ended by the signal that it would have ended by.
    pub fn as_it_was_meant(&self, id: WorkerId, exit: Exit) -> Exit {
        let meant = self.map.get(&id).and_then(|p| p.put_down);
        match (exit, meant) {
            (Exit::Signal(libc::SIGKILL), Some(meant)) => Exit::Signal(meant),
            (exit, _) => exit,
        }
    }

    /// First processes that are not reaped.
    pub fn pids(&self) -> Vec<i32> {
        self.map.values().filter_map(|p| p.pid).collect()
    }

    /// Is it the group of a worker, or of one that left processes in it?
    pub fn is_group(&self, group: i32) -> bool {
        self.map.values().any(|p| p.group == group)
    }

    /// Workers whose end can only be seen by asking: reaped, and never watched.
    pub fn unwatched_remnants(&self) -> Vec<WorkerId> {
        let pick = |(id, p): (&WorkerId, &Proc)| {
            let unwatched = p.listener.is_none() && p.report.is_none() && p.orphan.is_none();
            (p.pid.is_none() && unwatched).then_some(*id)
        };
        self.map.iter().filter_map(pick).collect()
    }

    /// Workers that are gone and left members of their group, which are our children by now.
    pub fn groups_left(&self) -> Vec<WorkerId> {
        let left = |p: &Proc| p.pid.is_none() && wait::any_child(Some(p.group));
        let pick = |(id, p): (&WorkerId, &Proc)| left(p).then_some(*id);
        self.map.iter().filter_map(pick).collect()
    }

    /// Signals a worker's first process, of that number.
    pub fn signal_first(&self, id: WorkerId, pid: i32, sig: i32) -> std::io::Result<()> {
        match self.map.get(&id).and_then(|p| p.orphan.as_ref()) {
            Some(orphan) => pidfd::send_signal(orphan.as_fd(), sig),
            None => signal::kill(pid, sig),
        }
    }

    /// Is that process of a worker stopped? (Of one that is not our child it is seen a moment too early.)
    pub fn is_stopped(&self, id: WorkerId, pid: i32) -> bool {
        match self.map.get(&id).is_some_and(|p| p.orphan.is_some()) {
            true => procfs::is_stopped(pid),
            false => wait::is_stopped(pid),
        }
    }

    /// Signals a worker's group while that number is certainly still its own: its leader is
    /// unreaped, or a child of ours (which cannot vanish unreaped) is in it. Once the group is
    /// empty a later worker may have the number.
    pub fn signal_group(&self, id: WorkerId, sig: i32) -> std::io::Result<()> {
        let Some(p) = self.map.get(&id) else {
            return Ok(());
        };
        if let Some(orphan) = &p.orphan {
            return pidfd::signal_group(orphan.as_fd(), p.group, sig);
        }
        let anothers = self.by_pid(p.group).is_some_and(|owner| owner != id);
        match p.pid.is_some() || !anothers && wait::any_child(Some(p.group)) {
            true => signal::kill_group(p.group, sig),
            false => Ok(()),
        }
    }
}
