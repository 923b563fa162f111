//! A control group for each worker (--cgroup), where a part of the tree is ours to use: then what a worker has
//! started ends with it, whatever it has done to get away. What the processes do, and when they are killed, is
//! core's; here a SIGKILL for a worker's group is one for its control group as well.
//!
//! Ours lie in one directory of the group that we are in, `minicluster.PID`. The master stays where it is: no
//! controller is enabled below, so the kernel has nothing against processes in between.

use super::Shell;
use crate::core::words::reason;
use crate::core::{Level, WorkerId};
use crate::sys::{cgroup, process, procfs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// So many names are tried for ours: a master that was killed may have had our pid, and its workers live.
const NAMES: u32 = 100;

/// So many that could not be removed yet are tried again; of more the oldest stay, empty.
const MOST_LEAVING: usize = 1024;

/// How ours begin.
const OURS: &str = "minicluster.";

/// All of them.
#[derive(Default, Serialize, Deserialize)]
pub struct Cgroups {
    /// Where they lie, if there are any.
    dir: Option<PathBuf>,
    of: BTreeMap<WorkerId, PathBuf>,
    /// Of workers that have gone, with processes in them that are ending.
    leaving: Vec<PathBuf>,
}

impl Cgroups {
    /// Finds out where they can be.
    fn open(&mut self) -> io::Result<()> {
        let dir = cgroup::own(Path::new("/"))?;
        clear(&dir);
        self.dir = Some(ours_in(&dir)?);
        Ok(())
    }

    /// One for that worker: what its child goes in by.
    pub fn born(&mut self, worker: WorkerId) -> io::Result<Option<File>> {
        let Some(dir) = &self.dir else {
            return Ok(None);
        };
        let its = dir.join(format!("worker.{}", worker.0));
        cgroup::make(&its)?;
        let door = cgroup::door(&its);
        self.of.insert(worker, its);
        door.map(Some)
    }

    /// Kills all that is in it.
    pub fn kill(&self, worker: WorkerId) -> io::Result<()> {
        self.of.get(&worker).map_or(Ok(()), |dir| cgroup::kill(dir))
    }

    /// Nothing is expected of that one any more: what is still in it has no business there.
    pub fn gone(&mut self, worker: WorkerId) {
        if let Some(dir) = self.of.remove(&worker) {
            let _ = cgroup::kill(&dir);
            self.leaving.push(dir);
        }
        self.tidy();
    }

    /// Removes those that are empty by now: what is killed takes a moment, and is ours to reap then.
    pub fn tidy(&mut self) {
        let stays = |dir: &PathBuf| cgroup::remove(dir).is_err() && dir.exists();
        self.leaving.retain(stays);
        let over = self.leaving.len().saturating_sub(MOST_LEAVING);
        self.leaving.drain(..over);
    }
}

/// Could they be? (--check: nothing is left.)
pub(super) fn could_be() -> io::Result<()> {
    let dir = cgroup::own(Path::new("/"))?;
    cgroup::remove(&ours_in(&dir)?)
}

/// Where ours can lie, made.
fn ours_in(dir: &Path) -> io::Result<PathBuf> {
    let ours = make(dir)?;
    let usable = match cgroup::can_kill(&ours) {
        // A child has to get in, too: that takes a right over the group that it comes from.
        true => cgroup::door(dir).map_err(|e| at(dir, &e)).map(drop),
        false => {
            let what = "the kernel is older than Linux 5.14 and has no cgroup.kill";
            Err(io::Error::new(io::ErrorKind::Unsupported, what))
        }
    };
    if usable.is_err() {
        let _ = cgroup::remove(&ours);
    }
    usable.map(|()| ours)
}

/// One for us. Where our pid was that of another master, which has left its own, it is `minicluster.PID-2`, ..
fn make(dir: &Path) -> io::Result<PathBuf> {
    let mut n = 1;
    loop {
        let ours = dir.join(match n {
            1 => format!("{OURS}{}", process::id()),
            n => format!("{OURS}{}-{n}", process::id()),
        });
        match cgroup::make(&ours) {
            Ok(()) => return Ok(ours),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && n < NAMES => n += 1,
            Err(e) => return Err(at(&ours, &e)),
        }
    }
}

/// Removes what masters that were killed have left there, if nobody is in it. Who is in one may be the worker of
/// a cluster that is about to be started again (--orphans keep): it is left alone. So is all of it where
/// somebody of another pid namespace is in the group itself, who may be its living master.
fn clear(dir: &Path) {
    let mut left = cgroup::groups(dir, OURS);
    left.retain(|(_, rest)| {
        owner(rest).is_some_and(|pid| pid == process::id() || !procfs::lives(pid))
    });
    let here = |pid: i32| pid > 0 && procfs::is_of_our_namespace(pid);
    if left.is_empty()
        || !procfs::is_ours()
        || !cgroup::members(dir).is_ok_and(|all| all.into_iter().all(here))
    {
        return;
    }
    for (path, _) in left {
        // (That fails as long as there is anybody.)
        let _ = cgroup::remove(&path);
    }
}

/// Of `PID` and `PID-N`.
fn owner(rest: &str) -> Option<i32> {
    let pid = rest.split_once('-').map_or(rest, |(pid, _)| pid);
    pid.parse().ok().filter(|pid| *pid > 0)
}

fn at(dir: &Path, e: &io::Error) -> io::Error {
    io::Error::new(e.kind(), format!("{}: {}", dir.display(), reason(e)))
}

impl Shell {
    /// Before the first worker is started.
    pub(super) fn open_cgroups(&mut self) {
        if !self.settings().cgroup {
            return;
        }
        if let Err(e) = self.cgroups.open() {
            let why = reason(&e);
            let message = format!(
                "--cgroup: no control group of ours to make others in: {why}; what leaves the process groups of workers stays until the cluster stops. systemd gives one with Delegate=yes"
            );
            self.say(Level::Warn, "no-cgroup", message);
        }
    }

    /// All that is left in them, and themselves.
    pub(super) fn close_cgroups(&mut self) {
        let all: Vec<WorkerId> = self.cgroups.of.keys().copied().collect();
        for worker in all {
            self.cgroups.gone(worker);
        }
        if let Some(dir) = self.cgroups.dir.take() {
            let _ = cgroup::kill(&dir);
            let _ = cgroup::remove(&dir);
        }
    }
}
