//! Workers that outlive their master (--orphans keep), and the next start of that name, which has them.
//!
//! Rules:
//! 1. As long as there are such workers it is written down who they are, and by which sockets clients come
//!    to them: beside the lock, anew when it changes. Nothing of that is believed: a process is held by a
//!    pidfd and is the one that is meant if it was started when it is said to have been; a socket is, if
//!    one of these processes has it, and it listens.
//! 2. They are not our children. Their end is told by the pidfd, but not how; they are signalled by it, and so
//!    is their group. Whatever becomes of their numbers, nobody else is.
//! 3. The next start has them, whatever it says of --orphans itself: there are no two clusters of one name.
//!    If it asks for another command, or for other addresses, they serve until the new ones do: it reloads
//!    at once.
//! 4. Those that have no place (of another generation than most, not ready, two of one slot) are asked to
//!    stop, and killed after --stop-timeout.
//! 5. Where their sockets cannot be had, or each worker has lanes of its own (`--balance`), whose order in
//!    the kernel nobody knows any more, all are ended before the port is opened: then they have no place.

use super::Shell;
use super::procs::Proc;
use super::rights::Rights;
use super::sockets::found::Found;
use super::token::{Kind, token};
use crate::core::words::{count, human, reason};
use crate::core::{
    Addr, Event, Exit, Given, LaneId, Legacy, Level, MasterSignal, Oom, Pid, Program, Reader, Size,
    SlotNr, Time, WorkerId,
};
use crate::settings::{MAX_WORKERS, Orphans as Fate, Settings};
use crate::sys::{clock, fds, pidfd, process, procfs, proclook};
use crate::wire::legacy::{LaneLine, MAX_BYTES, Record, WorkerLine};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// So long those are waited for that were sent SIGKILL before the start.
const KILLED: Duration = Duration::from_secs(2);

/// One that lives.
struct Orphan {
    line: WorkerLine,
    fd: OwnedFd,
}

impl Orphan {
    /// `None`: it has gone, or its number is another's.
    fn of(line: WorkerLine) -> Option<Orphan> {
        let fd = pidfd::open(line.pid).ok()?;
        // Whoever had the number when it was opened: if it is that one now, it was then.
        let same = procfs::started(line.pid) == Some(line.started);
        (same && !pidfd::has_ended(fd.as_fd())).then_some(Orphan { line, fd })
    }

    fn signal_group(&self, signal: i32) {
        let _ = pidfd::signal_group(self.fd.as_fd(), self.line.pid, signal);
    }
}

/// What a start has found.
#[derive(Default)]
pub struct Estate {
    /// Of the generation that most are of, by slot.
    heirs: BTreeMap<u16, Orphan>,
    rest: Vec<Orphan>,
    generation: u32,
    learnt: Vec<SocketAddr>,
    /// Do they run something else than what is to run, or serve other addresses?
    differs: bool,
    master: i32,
    /// Why nobody has a place, if so.
    why_not: Option<String>,
}

/// What the shell keeps of that.
#[derive(Default)]
pub struct Orphans {
    path: Option<PathBuf>,
    keep: bool,
    command: Vec<Vec<u8>>,
    boot: String,
    written: String,
    failed: bool,
    estate: Estate,
    /// Those that have no place, and when they are killed.
    condemned: Vec<(Orphan, Time)>,
    /// Are there any that were adopted?
    any: bool,
    greeted: bool,
}

/// Directory and words, as they are compared.
fn command_of(settings: &Settings, cwd: &Path) -> Vec<Vec<u8>> {
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
        let record = path.and_then(read).filter(|record| {
            let same = procfs::boot().as_ref() == Some(&record.boot);
            procfs::is_ours() && same
        });
        let Some(record) = record else {
            let _ = Found::one_each(found, &BTreeSet::new());
            return Estate::default();
        };
        let mut estate = Estate {
            master: record.master,
            ..Estate::default()
        };
        estate.sort(record.workers.iter().copied().filter_map(Orphan::of));
        if estate.heirs.is_empty() {
            let _ = Found::one_each(found, &BTreeSet::new());
            return estate;
        }
        let asked: Vec<Addr> = given.iter().map(|g| g.addr.clone()).collect();
        match estate.sockets(&record, &asked, rights, found) {
            Ok(()) if settings.balance().spreads() => {
                estate.disown("each of them has lanes of its own (--balance)", found);
            }
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
        asked: &[Addr],
        rights: &Rights,
        found: &mut Vec<Found>,
    ) -> Result<(), String> {
        let lanes: BTreeMap<u64, &LaneLine> = record.lanes.iter().map(|l| (l.inode, l)).collect();
        let wanted: BTreeSet<u64> = lanes.keys().copied().collect();
        let have = inodes(found);
        let theirs = || self.heirs.values().map(|o| o.line.pid);
        let (got, mut held) = copies(theirs(), &wanted, &have, rights)?;
        held.extend(got.keys());
        let others = self.rest.iter().map(|o| o.line.pid);
        let (silent, _) = copies(others, &wanted, &held, rights).unwrap_or_default();
        for fd in silent.values() {
            crate::sys::socket::stop_listening(fd.as_fd());
        }
        found.extend(got.into_values().filter_map(|fd| Found::of(fd, asked)));
        if Found::one_each(found, &held).is_none() {
            return Err("they have several sockets at one address".to_string());
        }
        for one in found.iter().filter(|_| asked.is_empty()) {
            let lane = fds::inode(one.fd()).ok().filter(|i| held.contains(i));
            let lane = lane.and_then(|inode| lanes.get(&inode));
            if let (Addr::Tcp(addr), true) = (one.addr(), lane.is_some_and(|l| !l.given)) {
                self.learnt.push(*addr);
            }
        }
        match found.is_empty() && !record.lanes.is_empty() {
            true => Err("none of them has a socket that clients come to".to_string()),
            false => Ok(()),
        }
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
        let why = self.why_not.take()?;
        let all = std::mem::take(&mut self.rest);
        let begun = clock::monotonic();
        let _worn = rights.to_kill();
        for o in &all {
            let _ = pidfd::send_signal(o.fd.as_fd(), settings.stop_signal);
            let _ = pidfd::send_signal(o.fd.as_fd(), libc::SIGCONT);
        }
        for (signal, limit) in [(None, settings.stop_timeout), (Some(libc::SIGKILL), KILLED)] {
            let from = if signal.is_some() {
                clock::monotonic()
            } else {
                begun
            };
            for o in &all {
                if signal.is_some() {
                    o.signal_group(libc::SIGKILL);
                }
            }
            for o in &all {
                let spent = Duration::from_nanos(clock::monotonic().saturating_sub(from));
                pidfd::wait_gone(o.fd.as_fd(), limit.saturating_sub(spent));
            }
        }
        Some(format!(
            "{} that the master pid {} has left (--orphans keep) cannot be adopted: {why}; they were stopped, others take their place",
            count(all.len(), "worker"),
            self.master,
        ))
    }
}

/// Copies of sockets, by inode, and those of which there are copies already.
type Copies = (BTreeMap<u64, OwnedFd>, BTreeSet<u64>);

/// The sockets that these processes have, of those that are wanted.
fn copies(
    pids: impl Iterator<Item = i32>,
    wanted: &BTreeSet<u64>,
    have: &BTreeSet<u64>,
    rights: &Rights,
) -> Result<Copies, String> {
    let (mut got, mut held) = Copies::default();
    let mut failed = None;
    let _worn = rights.to_look();
    for pid in pids.flat_map(procfs::tree) {
        for (number, target) in procfs::descriptors(pid).unwrap_or_default() {
            let procfs::Target::Socket(inode) = target else {
                continue;
            };
            if !wanted.contains(&inode) || got.contains_key(&inode) {
                continue;
            }
            if have.contains(&inode) {
                held.insert(inode);
                continue;
            }
            match pidfd::open(pid).and_then(|fd| pidfd::getfd(fd.as_fd(), number)) {
                // (The number may be another's by now.)
                Ok(fd) if fds::inode(fd.as_fd()).is_ok_and(|i| i == inode) => {
                    got.insert(inode, fd);
                }
                Ok(_) => {}
                Err(e) => failed = Some(e),
            }
        }
    }
    match failed {
        Some(e) if got.is_empty() => Err(format!(
            "their sockets cannot be had (pidfd_getfd: {})",
            reason(&e)
        )),
        Some(_) | None => Ok((got, held)),
    }
}

fn inodes(found: &[Found]) -> BTreeSet<u64> {
    found
        .iter()
        .filter_map(|f| fds::inode(f.fd()).ok())
        .collect()
}

fn read(path: &Path) -> Option<Record> {
    let mut text = String::new();
    let file = fds::open_regular(path).ok()?;
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Record::parse(&text)
}

/// In one piece: whoever reads it reads all or what was there before.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let new = path.with_extension("workers.new");
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path)
}

impl Orphans {
    /// Of a cluster that is about to begin.
    pub fn of(path: Option<PathBuf>, settings: &Settings, cwd: &Path, estate: Estate) -> Orphans {
        Orphans {
            path,
            keep: settings.orphans == Fate::Keep,
            command: command_of(settings, cwd),
            boot: procfs::boot().unwrap_or_default(),
            estate,
            ..Orphans::default()
        }
    }

    /// When the next one is killed.
    pub fn deadline(&self) -> Option<Time> {
        self.condemned.iter().map(|(_, at)| *at).min()
    }
}

impl Shell {
    /// Before the first worker: what is wrong with what was asked for.
    pub(super) fn begin_orphans(&mut self) {
        let keep = self.orphans.keep;
        if keep && process::is_first() {
            let message = "--orphans keep: we are the first process of a container, whose end ends all of it: nobody will be there to adopt";
            self.say(Level::Warn, "orphans", message.to_string());
        }
        if keep && (self.orphans.path.is_none() || !procfs::is_ours()) {
            let message = "--orphans keep: it cannot be written down which workers there are (no runtime directory, or no /proc): when we die they live on, and the next start does not find them";
            self.say(Level::Warn, "orphans", message.to_string());
        }
        let by = self.now() + self.settings().stop_timeout;
        for o in std::mem::take(&mut self.orphans.estate.rest) {
            self.condemn(o, by);
        }
        let heirs = self.orphans.estate.heirs.len();
        if heirs == 0 {
            return;
        }
        let then = match self.orphans.estate.differs {
            true => "they serve until those that are asked for do, which run another command or serve other addresses".to_string(),
            false => format!(
                "they go on as they are, but whatever they bind or listen on from here on fails (ENOSYS); replace them when it suits: minicluster --name {} reload",
                self.claim.name
            ),
        };
        let message = format!(
            "adopting {} of generation {} that the master pid {} has left (--orphans keep): {then}",
            count(heirs, "worker"),
            self.orphans.estate.generation,
            self.orphans.estate.master
        );
        self.say(Level::Warn, "orphans", message);
    }

    /// It has no place here.
    fn condemn(&mut self, o: Orphan, by: Time) {
        let message = format!(
            "worker {} pid {} of generation {} has no place any more: it is asked to stop, and killed after {}",
            o.line.slot,
            o.line.pid,
            o.line.generation,
            human(self.settings().stop_timeout)
        );
        self.say(Level::Info, "orphans", message);
        let worn = self.to_kill();
        let _ = pidfd::send_signal(o.fd.as_fd(), self.settings().stop_signal);
        let _ = pidfd::send_signal(o.fd.as_fd(), libc::SIGCONT);
        drop(worn);
        self.orphans.condemned.push((o, by));
    }

    /// Is there one for that slot? Then that is the worker, and none is forked.
    pub(super) fn take_orphan(
        &mut self,
        worker: WorkerId,
        slot: SlotNr,
        program: Program,
        reader: Reader,
    ) -> bool {
        let fits = reader.generation == self.orphans.estate.generation;
        if !fits || program != Program::default() {
            return false;
        }
        let Some(o) = self.orphans.estate.heirs.remove(&slot.0) else {
            return false;
        };
        if pidfd::has_ended(o.fd.as_fd()) {
            return false;
        }
        let pid = o.line.pid;
        let tree = procfs::tree(pid);
        let worn = self.to_look();
        let holds = |lane: &LaneId| {
            let inode = self.sockets.inode(*lane);
            inode.is_some_and(|inode| proclook::holds(&tree, inode, 0))
        };
        let lanes: Vec<LaneId> = self.sockets.all().filter(holds).collect();
        drop(worn);
        self.register(o.fd.as_fd(), token(Kind::Orphan, worker.0));
        let proc = Proc {
            pid: Some(pid),
            group: pid,
            generation: reader.generation,
            killed: false,
            put_down: None,
            group_asked: false,
            forked: self.now(),
            report: None,
            listener: None,
            handed: 0,
            listened: None,
            orphan: Some(o.fd),
            started: Some(o.line.started),
            _life: None,
        };
        self.procs.map.insert(worker, proc);
        self.note_pid(worker, pid);
        self.orphans.any = true;
        let pid = Pid(pid);
        self.queue.push_back(Event::IsThere { worker, pid, lanes });
        true
    }

    /// One that was adopted has ended.
    pub(super) fn orphan_ended(&mut self, worker: WorkerId) {
        let Some(p) = self.procs.map.get(&worker) else {
            return;
        };
        let ended = p.orphan.as_ref().filter(|fd| pidfd::has_ended(fd.as_fd()));
        let (Some(fd), Some(pid)) = (ended.and_then(|fd| fd.try_clone().ok()), p.pid) else {
            return;
        };
        if let Some(old) = &p.orphan {
            self.deregister(old.as_fd());
        }
        let slot = self.cluster.fleet().get(worker).map_or(0, |w| w.slot.0);
        let generation = p.generation;
        self.queue.push_back(Event::Exited {
            worker,
            status: Exit::Unknown,
            oom: Oom::No,
            last: String::new(),
        });
        self.settle();
        if let Some(p) = self.procs.map.get_mut(&worker) {
            p.pid = None;
        }
        self.drop_pid(worker);
        // Nobody tells when the others of its group have gone: they have as long as they would have had.
        let line = WorkerLine {
            pid,
            started: 0,
            slot,
            generation,
            serves: false,
        };
        let by = self.now() + self.settings().stop_timeout;
        self.orphans.condemned.push((Orphan { line, fd }, by));
        self.tree_gone(worker);
        self.settle();
    }

    /// Those who have had their time are killed; and once all are adopted it is seen to what differs.
    pub(super) fn orphans_due(&mut self) {
        let now = self.now();
        if self.orphans.deadline().is_some_and(|at| at <= now) {
            let all = std::mem::take(&mut self.orphans.condemned);
            let (over, left) = all.into_iter().partition(|(_, at)| *at <= now);
            self.orphans.condemned = left;
            self.kill_condemned(over);
        }
        if self.orphans.any && !self.orphans.greeted && self.orphans.estate.heirs.is_empty() {
            self.orphans.greeted = true;
            let n = self.cluster.asked_for();
            let wanted = self.settings().wanted(crate::sys::cpus::usable());
            if wanted < n {
                let why = "fewer workers are asked for than another master has left";
                let to = MasterSignal::Resize(Size::To(wanted), why);
                self.queue.push_back(Event::Signal(to));
            }
            if self.orphans.estate.differs {
                self.reload_for(None, "adopted workers run something else");
            }
            self.settle();
        }
    }

    fn kill_condemned(&self, all: Vec<(Orphan, Time)>) {
        let _worn = self.to_kill();
        for (o, _) in all {
            o.signal_group(libc::SIGKILL);
        }
    }

    /// Writes down who there is, if that is for somebody and has changed.
    pub(super) fn write_down(&mut self) {
        let o = &self.orphans;
        let adopted = || self.procs.map.values().any(|p| p.orphan.is_some());
        let waits = !o.estate.heirs.is_empty();
        let Some(path) = o.path.clone().filter(|_| o.keep || o.any && !waits) else {
            return;
        };
        if waits {
            // What is there says more, until they are adopted.
            return;
        }
        let only_adopted = !o.keep;
        if only_adopted && !adopted() {
            self.orphans.any = false;
            self.orphans.written.clear();
            let _ = fs::remove_file(path);
            return;
        }
        let text = self.record(only_adopted).text();
        if text == self.orphans.written {
            return;
        }
        match write(&path, &text) {
            Ok(()) => self.orphans.failed = false,
            Err(e) if !self.orphans.failed => {
                self.orphans.failed = true;
                let message = format!(
                    "--orphans keep: cannot write {}: {}; if we died now, the next start would not find all workers",
                    path.display(),
                    reason(&e)
                );
                self.say(Level::Error, "orphans", message);
            }
            Err(_) => {}
        }
        self.orphans.written = text;
    }

    fn record(&self, only_adopted: bool) -> Record {
        let current: BTreeSet<WorkerId> = self.cluster.currents().map(|(_, w)| w).collect();
        let line = |(id, p): (&WorkerId, &Proc)| {
            let w = self.cluster.fleet().get(*id)?;
            Some(WorkerLine {
                pid: p.pid?,
                started: p.started?,
                slot: w.slot.0,
                generation: p.generation,
                serves: w.is_ready() && current.contains(id),
            })
        };
        let counts = |(_, p): &(&WorkerId, &Proc)| p.orphan.is_some() || !only_adopted;
        let lanes = self.sockets.to_leave().into_iter();
        Record {
            boot: self.orphans.boot.clone(),
            master: process::id(),
            command: self.orphans.command.clone(),
            lanes: lanes
                .map(|(inode, given, addr)| LaneLine { inode, given, addr })
                .collect(),
            workers: self
                .procs
                .map
                .iter()
                .filter(counts)
                .filter_map(line)
                .collect(),
        }
    }

    /// The end: nobody is left for the next start.
    pub(super) fn leave_no_orphan(&mut self) {
        let all = std::mem::take(&mut self.orphans.condemned);
        let heirs = std::mem::take(&mut self.orphans.estate.heirs).into_values();
        let now = self.now();
        self.kill_condemned(all.into_iter().chain(heirs.map(|o| (o, now))).collect());
        if let Some(path) = self.orphans.path.take()
            && (self.orphans.keep || self.orphans.any)
        {
            let _ = fs::remove_file(path);
        }
    }
}
