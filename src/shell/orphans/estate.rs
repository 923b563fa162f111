//! What a start finds of workers that another master has left: who lives, who has a place, and which sockets
//! they serve.

use crate::core::words::{count, reason};
use crate::core::{Addr, Given, Legacy};
use crate::settings::{MAX_WORKERS, Settings};
use crate::shell::rights::Rights;
use crate::shell::sockets::found::Found;
use crate::sys::{clock, fds, passed, pidfd, process, procfs};
use crate::wire::legacy::{LaneLine, MAX_BYTES, Record, WorkerLine};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// So long those are waited for that were sent SIGKILL before the start.
const KILLED: Duration = Duration::from_secs(2);

/// Why they cannot be adopted, where it is that.
const NO_SOCKET: &str = "none of them has a socket that clients come to";
const LEARNT: &str =
    "they have learnt their port, and each is to have a queue of its own there (--balance)";

/// One that lives.
#[derive(Serialize, Deserialize)]
pub(super) struct Orphan {
    pub(super) line: WorkerLine,
    #[serde(with = "crate::shell::carry")]
    pub(super) fd: OwnedFd,
}

impl Orphan {
    /// `None`: it has gone, or its number is another's.
    fn of(line: WorkerLine) -> Option<Orphan> {
        let fd = pidfd::open(line.pid).ok()?;
        // Whoever had the number when it was opened: if it is that one now, it was then.
        let same = procfs::started(line.pid) == Some(line.started);
        (same && !pidfd::has_ended(fd.as_fd())).then_some(Orphan { line, fd })
    }

    pub(super) fn signal_group(&self, signal: i32) {
        let _ = pidfd::signal_group(self.fd.as_fd(), self.line.pid, signal);
    }
}

/// What a start has found.
#[derive(Default)]
pub struct Estate {
    /// Of the generation that most are of, by slot.
    pub(super) heirs: BTreeMap<u16, Orphan>,
    pub(super) rest: Vec<Orphan>,
    pub(super) generation: u32,
    learnt: Vec<SocketAddr>,
    /// Where each worker has lanes of its own: which, by slot.
    pub(super) lanes: BTreeMap<u16, BTreeSet<u64>>,
    /// Do they run something else than what is to run, or serve other addresses?
    pub(super) differs: bool,
    pub(super) master: i32,
    /// Why nobody has a place, if so.
    why_not: Option<String>,
    /// Why what is written down is not believed, if so.
    ignored: Option<String>,
}

/// What a start would find.
#[derive(Default)]
pub struct Foreseen {
    /// So many would be adopted,
    pub workers: usize,
    /// whom this master has left;
    pub master: i32,
    /// or stopped before the ports are opened, for that reason.
    pub why_not: Option<String>,
    /// Of the addresses that are asked for those that they hold.
    pub held: Vec<Addr>,
    /// Why what is written down would not be believed.
    pub ignored: Option<String>,
}

/// Directory and words, as they are compared.
pub(super) fn command_of(settings: &Settings, cwd: &Path) -> Vec<Vec<u8>> {
    let words = settings.command.iter().map(|w| w.as_bytes().to_vec());
    let cwd = cwd.as_os_str().as_bytes().to_vec();
    std::iter::once(cwd).chain(words).collect()
}

impl Estate {
    /// Looks for what the record of that name says; `found` gets the sockets that can be had.
    pub fn look(
        path: Option<&Path>,
        (settings, cwd, given): (&Settings, &Path, &[Given]),
        rights: &Rights,
        found: &mut Vec<Found>,
    ) -> Estate {
        let (record, mut estate) = Estate::of(path);
        let Some(record) = record.filter(|_| !estate.heirs.is_empty()) else {
            let _ = Found::one_each(found, &BTreeSet::new());
            return estate;
        };
        let asked: Vec<Addr> = given.iter().map(|g| g.addr.clone()).collect();
        let spread = settings.balance().spreads();
        match estate.sockets(&record, (&asked, given), (rights, spread), found) {
            Ok(()) => {
                let has = |a: &Addr| found.iter().any(|f| f.fits(a));
                let given = record.lanes.iter().filter(|l| l.given).map(|l| &l.addr);
                let before: BTreeSet<&String> = given.collect();
                let same = asked.iter().all(has) && before.len() == asked.len();
                estate.differs = !same || record.command != command_of(settings, cwd);
            }
            Err(why) => estate.disown(&why, found),
        }
        estate
    }

    /// Who lives of those that are written down there; and what that says, if it is of now.
    fn of(path: Option<&Path>) -> (Option<Record>, Estate) {
        let (record, ignored) = match path.map_or(Ok(None), read) {
            Ok(record) => (record, None),
            Err(why) => (None, Some(why)),
        };
        let record = record.filter(|record| {
            let same = procfs::boot().as_ref() == Some(&record.boot);
            procfs::is_ours() && same
        });
        let mut estate = Estate {
            master: record.as_ref().map_or(0, |r| r.master),
            ignored,
            ..Estate::default()
        };
        let all = record.iter().flat_map(|r| &r.workers).copied();
        estate.sort(all.filter_map(Orphan::of));
        (record, estate)
    }

    /// What a start would find: nobody is signalled, no socket is silenced, and of none a copy stays.
    pub fn foresee(
        path: Option<&Path>,
        (asked, spread): (&[Addr], bool),
        rights: &Rights,
    ) -> Foreseen {
        let (record, estate) = Estate::of(path);
        let mut seen = Foreseen {
            workers: estate.heirs.len(),
            master: estate.master,
            ignored: estate.ignored,
            ..Foreseen::default()
        };
        let Some(record) = record.filter(|_| seen.workers > 0) else {
            return seen;
        };
        let wanted: BTreeSet<u64> = record.lanes.iter().map(|l| l.inode).collect();
        let pids = estate.heirs.values().map(|o| o.line.pid);
        let found: Vec<Found> = match copies(pids, &wanted, &BTreeSet::new(), rights).all() {
            Ok(copies) => copies
                .got
                .into_values()
                .filter_map(|fd| Found::of(fd, asked))
                .collect(),
            Err(why) => {
                // They are stopped before their ports are opened: what these are is as it is written.
                let is = |a: &&Addr| record.lanes.iter().any(|l| l.addr == a.to_string());
                seen.held = asked.iter().filter(is).cloned().collect();
                seen.workers = seen.workers.saturating_add(estate.rest.len());
                seen.why_not = Some(why);
                return seen;
            }
        };
        let has = |a: &&Addr| found.iter().any(|f| f.fits(a));
        seen.held = asked.iter().filter(has).cloned().collect();
        let learnt = asked.is_empty() && record.lanes.iter().any(|l| !l.given);
        seen.why_not = match found.is_empty() && !record.lanes.is_empty() {
            true => Some(NO_SOCKET.to_string()),
            false => (learnt && spread).then(|| LEARNT.to_string()),
        };
        if seen.why_not.is_some() {
            seen.workers = seen.workers.saturating_add(estate.rest.len());
        }
        seen
    }

    /// Who has a place?
    fn sort(&mut self, living: impl Iterator<Item = Orphan>) {
        let all: Vec<Orphan> = living.collect();
        let mut of: BTreeMap<u32, usize> = BTreeMap::new();
        for o in all.iter().filter(|o| o.line.serves) {
            *of.entry(o.line.generation).or_default() += 1;
        }
        let most = of.into_iter().max_by_key(|(g, n)| (*n, *g));
        self.generation = most.map_or(0, |(g, _)| g);
        for o in all {
            let fits =
                o.line.serves && o.line.generation == self.generation && o.line.slot < MAX_WORKERS;
            match fits && !self.heirs.contains_key(&o.line.slot) {
                true => drop(self.heirs.insert(o.line.slot, o)),
                false => self.rest.push(o),
            }
        }
    }

    /// The sockets that they serve, one of each address; the others of these addresses are silenced: new
    /// clients would come to them whom nobody serves.
    fn sockets(
        &mut self,
        record: &Record,
        (asked, given): (&[Addr], &[Given]),
        (rights, spread): (&Rights, bool),
        found: &mut Vec<Found>,
    ) -> Result<(), String> {
        let lanes: BTreeMap<u64, &LaneLine> = record.lanes.iter().map(|l| (l.inode, l)).collect();
        let wanted: BTreeSet<u64> = lanes.keys().copied().collect();
        let passed: BTreeSet<u64> = given.iter().filter_map(inode_of).collect();
        let have = inodes(found);
        let theirs = || self.heirs.values().map(|o| o.line.pid);
        let Copies { got, mut held, .. } = copies(theirs(), &wanted, &have, rights).all()?;
        held.extend(got.keys());
        let others = self.rest.iter().map(|o| o.line.pid);
        // What was passed to us is not ours alone: whoever has it goes on with it when we are gone.
        let left_alone: BTreeSet<u64> = held.union(&passed).copied().collect();
        for fd in copies(others, &wanted, &left_alone, rights).got.values() {
            crate::sys::socket::stop_listening(fd.as_fd());
        }
        found.extend(got.into_values().filter_map(|fd| Found::of(fd, asked)));
        // One of ours beside it, of a reload, would stay in its group, and nobody would know of it.
        let beside = |f: &&Found| {
            let is = fds::inode(f.fd()).is_ok_and(|i| passed.contains(&i));
            !is && given.iter().any(|g| g.passed.is_some() && f.fits(&g.addr))
        };
        if let Some(one) = found.iter().find(beside) {
            return Err(format!(
                "they serve a socket beside the one that is passed at {}",
                one.addr()
            ));
        }
        match spread {
            true => self.sort_lanes((&wanted, &passed), rights, found)?,
            false if Found::one_each(found, &held).is_none() => {
                return Err("they have several sockets at one address".to_string());
            }
            false => {}
        }
        for one in found.iter().filter(|_| asked.is_empty()) {
            let lane = fds::inode(one.fd()).ok().filter(|i| held.contains(i));
            let lane = lane.and_then(|inode| lanes.get(&inode));
            if let (Addr::Tcp(addr), true) = (one.addr(), lane.is_some_and(|l| !l.given)) {
                self.learnt.push(*addr);
            }
        }
        match found.is_empty() && !record.lanes.is_empty() {
            _ if spread && !self.learnt.is_empty() => Err(LEARNT.to_string()),
            true => Err(NO_SOCKET.to_string()),
            false => Ok(()),
        }
    }

    /// Each has lanes of its own: which, and in which order are they?
    fn sort_lanes(
        &mut self,
        (wanted, passed): (&BTreeSet<u64>, &BTreeSet<u64>),
        rights: &Rights,
        found: &mut Vec<Found>,
    ) -> Result<(), String> {
        for (slot, o) in &self.heirs {
            let its = copies(std::iter::once(o.line.pid), wanted, wanted, rights);
            self.lanes.insert(*slot, its.all()?.held);
        }
        let theirs: BTreeSet<u64> = self.lanes.values().flatten().copied().collect();
        let is_theirs = |f: &Found| fds::inode(f.fd()).is_ok_and(|i| theirs.contains(&i));
        let passed = |f: &&Found| fds::inode(f.fd()).is_ok_and(|i| passed.contains(&i));
        for one in found.iter().filter(|f| !is_theirs(f) && !passed(f)) {
            crate::sys::socket::stop_listening(one.fd());
        }
        found.retain(is_theirs);
        let cannot = |e: io::Error| {
            format!(
                "it cannot be told in which order the kernel has their sockets: {}",
                reason(&e)
            )
        };
        Found::in_order(found).map_err(cannot)
    }

    /// Nobody has a place.
    fn disown(&mut self, why: &str, found: &mut Vec<Found>) {
        self.rest
            .extend(std::mem::take(&mut self.heirs).into_values());
        self.why_not = Some(why.to_string());
        found.clear();
    }

    /// What core has to know before it begins.
    pub fn legacy(&self) -> Option<Legacy> {
        let any = !self.heirs.is_empty();
        any.then(|| Legacy {
            generation: self.generation,
            learnt: self.learnt.clone(),
        })
    }

    /// So many slots there have to be for all of them.
    pub fn slots(&self) -> u16 {
        let last = self.heirs.keys().next_back();
        last.map_or(0, |n| n.saturating_add(1))
    }

    /// Ends those that are in the way of what is to be opened, and waits for that. What is there to say?
    pub fn clear_the_way(&mut self, settings: &Settings, rights: &Rights) -> Option<String> {
        let Some(why) = self.why_not.take() else {
            return self.ignored.take();
        };
        let all = std::mem::take(&mut self.rest);
        let _worn = rights.to_kill();
        for o in &all {
            let _ = pidfd::send_signal(o.fd.as_fd(), settings.stop_signal);
            let _ = pidfd::send_signal(o.fd.as_fd(), libc::SIGCONT);
        }
        wait_for(&all, settings.stop_timeout);
        for o in &all {
            o.signal_group(libc::SIGKILL);
        }
        wait_for(&all, KILLED);
        Some(format!(
            "{} that the master pid {} has left (--orphans keep) cannot be adopted: {why}; they were stopped, others take their place",
            count(all.len(), "worker"),
            self.master,
        ))
    }
}

/// Until all have gone, at most that long.
fn wait_for(all: &[Orphan], limit: Duration) {
    let begun = clock::monotonic();
    for o in all {
        let spent = Duration::from_nanos(clock::monotonic().saturating_sub(begun));
        pidfd::wait_gone(o.fd.as_fd(), limit.saturating_sub(spent));
    }
}

/// Sockets that some processes have.
#[derive(Default)]
struct Copies {
    /// Copies of them, by inode.
    got: BTreeMap<u64, OwnedFd>,
    /// Those of which there are copies already.
    held: BTreeSet<u64>,
    /// Why there is none of others.
    failed: Option<String>,
}

impl Copies {
    /// All, or why not: one that is not had would be beside ours, unknown.
    fn all(self) -> Result<Copies, String> {
        match self.failed {
            None => Ok(self),
            Some(why) => Err(why),
        }
    }
}

/// The sockets that these processes have, of those that are wanted.
fn copies(
    pids: impl Iterator<Item = i32>,
    wanted: &BTreeSet<u64>,
    have: &BTreeSet<u64>,
    rights: &Rights,
) -> Copies {
    let mut copies = Copies::default();
    let mut failed: BTreeMap<u64, io::Error> = BTreeMap::new();
    let _worn = rights.to_look();
    for pid in pids.flat_map(procfs::tree) {
        for (number, target) in procfs::descriptors(pid).unwrap_or_default() {
            let procfs::Target::Socket(inode) = target else {
                continue;
            };
            if !wanted.contains(&inode) || copies.got.contains_key(&inode) {
                continue;
            }
            if have.contains(&inode) {
                copies.held.insert(inode);
                continue;
            }
            match pidfd::open(pid).and_then(|fd| pidfd::getfd(fd.as_fd(), number)) {
                // (The number may be another's by now.)
                Ok(fd) if fds::inode(fd.as_fd()).is_ok_and(|i| i == inode) => {
                    copies.got.insert(inode, fd);
                }
                Ok(_) => {}
                // It may have gone in between.
                Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
                Err(e) => drop(failed.insert(inode, e)),
            }
        }
    }
    // Another process may have had it.
    failed.retain(|inode, _| !copies.got.contains_key(inode));
    copies.failed = failed.into_values().next().map(|e| {
        let why = reason(&e);
        format!("their sockets cannot be had (pidfd_getfd: {why})")
    });
    copies
}

/// Of the socket that was passed for it, if one was.
fn inode_of(given: &Given) -> Option<u64> {
    let (number, _) = given.passed.as_ref()?;
    passed::inode(*number).ok()
}

fn inodes(found: &[Found]) -> BTreeSet<u64> {
    found
        .iter()
        .filter_map(|f| fds::inode(f.fd()).ok())
        .collect()
}

/// How many live of those that are written down there.
pub fn living(path: &Path) -> usize {
    let (_, estate) = Estate::of(Some(path));
    estate.heirs.len().saturating_add(estate.rest.len())
}

/// An error: somebody else can have written that. `None`: there is none, or it cannot be read.
fn read(path: &Path) -> Result<Option<Record>, String> {
    let mut how = OpenOptions::new();
    how.read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_NOFOLLOW);
    let ignored = |why: String| {
        let path = path.display();
        format!("{path} is ignored, and no worker that it names is adopted: {why}")
    };
    let file = match how.open(path) {
        Ok(file) => file,
        Err(e) if e.raw_os_error() == Some(libc::ELOOP) => {
            return Err(ignored("it is a symbolic link".into()));
        }
        Err(_) => return Ok(None),
    };
    let Ok(m) = file.metadata() else {
        return Ok(None);
    };
    if !m.is_file() {
        return Ok(None);
    }
    let (uid, mode) = (m.uid(), m.mode() & 0o7777);
    if uid != process::euid() && uid != 0 {
        let us = process::euid();
        return Err(ignored(format!("it belongs to uid {uid}, and we are {us}")));
    }
    if mode & 0o022 != 0 {
        let why = format!("others than its owner may write to it (mode {mode:04o})");
        return Err(ignored(why));
    }
    let mut text = String::new();
    match file.take(MAX_BYTES).read_to_string(&mut text) {
        Ok(_) => Ok(Record::parse(&text)),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn what_somebody_else_can_have_written_is_not_believed() {
        let dir = std::env::temp_dir().join(format!("mc-estate-{}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        let at = dir.join("shop.workers");
        assert_eq!(read(&at), Ok(None));
        let record = Record {
            boot: "b".into(),
            master: 7,
            ..Record::default()
        };
        fs::write(&at, record.text()).unwrap();
        for (mode, fine) in [(0o600, true), (0o644, true), (0o620, false), (0o602, false)] {
            fs::set_permissions(&at, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&at).is_ok_and(|r| r.is_some()), fine, "{mode:o}");
        }
        fs::set_permissions(&at, fs::Permissions::from_mode(0o600)).unwrap();
        let link = dir.join("link.workers");
        symlink(&at, &link).unwrap();
        let why = read(&link).unwrap_err();
        assert!(why.contains("symbolic link"), "{why}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
