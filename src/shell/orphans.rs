//! Workers that outlive their master (--orphans keep), and the next start of that name, which has them.
//!
//! Rules:
//! 1. As long as there are such workers it is written down who they are, and by which sockets clients come
//!    to them: beside the lock, anew when it changes, and before a new one executes its program (until then it ends
//!    with us). Nothing of that is believed: a process is held by a
//!    pidfd and is the one that is meant if it was started when it is said to have been; a socket is, if
//!    one of these processes has it, and it listens.
//! 2. They are not our children. Their end is told by the pidfd, but not how; they are signalled by it, and so
//!    is their group. Whatever becomes of their numbers, nobody else is.
//! 3. The next start has them, whatever it says of --orphans itself: there are no two clusters of one name.
//!    If it asks for another command, or for other addresses, they serve until the new ones do: it reloads
//!    at once.
//! 4. Those that have no place (of another generation than most, not ready, two of one slot) are asked to
//!    stop, and killed after --stop-timeout.
//! 5. Where each worker has lanes of its own (`--balance`), their order in the kernel is found out
//!    (`group::found`), and each gets its own again.
//! 6. Where their sockets cannot be had all are ended before the port is opened: then they have no place.

mod estate;

use super::Shell;
use super::procs::Proc;
use super::token::{Kind, token};
use crate::core::words::{count, human, reason};
use crate::core::{
    Event, Exit, LaneId, Level, MasterSignal, Oom, Pid, Program, Reader, Size, SlotNr, Time,
    WorkerId,
};
use crate::settings::{Orphans as Fate, Settings};
use crate::sys::{pidfd, process, procfs, proclook, procmade, spawn};
use crate::wire::legacy::{LaneLine, Record, WorkerLine};
pub use estate::{Estate, Foreseen, living};
use estate::{Orphan, command_of};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// After that long what could not be written is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// What the shell keeps of that.
#[derive(Default, Serialize, Deserialize)]
pub struct Orphans {
    path: Option<PathBuf>,
    keep: bool,
    command: Vec<Vec<u8>>,
    boot: String,
    written: String,
    failed: bool,
    /// When a write that has failed is tried again.
    #[serde(skip)]
    again: Option<Time>,
    #[serde(skip)]
    estate: Estate,
    /// Those that have no place, and when they are killed.
    condemned: Vec<(Orphan, Time)>,
    /// Is anything written down of such that were left, or adopted?
    any: bool,
    greeted: bool,
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
    let done = file.write_all(text.as_bytes());
    let done = done.and_then(|()| fs::rename(&new, path));
    if done.is_err() {
        // Half of it is of use to nobody, and takes room where there is little.
        let _ = fs::remove_file(&new);
    }
    done
}

impl Orphans {
    /// Of a cluster that is about to begin.
    pub fn of(path: Option<PathBuf>, settings: &Settings, cwd: &Path, estate: Estate) -> Orphans {
        Orphans {
            path,
            keep: settings.orphans == Fate::Keep,
            command: command_of(settings, cwd),
            boot: procfs::boot().unwrap_or_default(),
            // (What is written down of those who have all ended goes, too.)
            any: estate.master != 0,
            estate,
            ..Orphans::default()
        }
    }

    /// Are some to be adopted still?
    pub fn wait(&self) -> bool {
        !self.estate.heirs.is_empty()
    }

    /// When the next one is killed, or what could not be written is tried again.
    pub fn deadline(&self) -> Option<Time> {
        let killed = self.condemned.iter().map(|(_, at)| *at);
        killed.chain(self.again).min()
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

    /// Is a lane to be that of a worker that is there already?
    pub(super) fn mean_for_heirs(&mut self, lane: LaneId) {
        if self.orphans.estate.lanes.is_empty() {
            return;
        }
        let slot = self.cluster.slots_of_lanes().get(&lane).map(|nr| nr.0);
        if let Some(inodes) = slot.and_then(|nr| self.orphans.estate.lanes.get(&nr)) {
            self.sockets.mean(lane, inodes.clone());
        }
    }

    /// What is open from before and was not asked for by now is let go.
    pub(super) fn drop_found(&mut self) {
        self.orphans.estate.lanes.clear();
        // Whose slot was closed before it was its turn, or is of newer code: nobody would ever have them.
        let by = self.now() + self.settings().stop_timeout;
        for o in std::mem::take(&mut self.orphans.estate.heirs).into_values() {
            self.condemn(o, by);
        }
        if let Err(e) = self.sockets.drop_found() {
            let message = format!("sockets of before cannot be closed: {}", reason(&e));
            self.say(Level::Error, "steering-error", message);
        }
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
            // Others of its group may not have.
            let by = self.now() + self.settings().stop_timeout;
            self.condemn(o, by);
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
            held: false,
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
        let since = Time(self.now().0.saturating_sub(procmade::age(o.line.started)));
        self.queue.push_back(Event::IsThere {
            worker,
            pid,
            since,
            lanes,
        });
        true
    }

    /// One that was adopted has ended.
    pub(super) fn orphan_ended(&mut self, worker: WorkerId) {
        let Some(p) = self.procs.map.get(&worker) else {
            return;
        };
        let ended = p.orphan.as_ref().filter(|fd| pidfd::has_ended(fd.as_fd()));
        let (Some(fd), Some(pid)) = (ended, p.pid) else {
            return;
        };
        self.deregister(fd.as_fd());
        let slot = self.cluster.fleet().get(worker).map_or(0, |w| w.slot.0);
        let generation = p.generation;
        self.queue.push_back(Event::Exited {
            worker,
            status: Exit::Unknown,
            oom: Oom::No,
            last: String::new(),
        });
        self.settle();
        // (By it its group was signalled until now.)
        let mut fd = None;
        if let Some(p) = self.procs.map.get_mut(&worker) {
            p.pid = None;
            fd = p.orphan.take();
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
        let left = fd.map(|fd| (Orphan { line, fd }, by));
        self.orphans.condemned.extend(left);
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

    /// Writes down who there is, if that is for somebody; and then new ones may live on without us.
    pub(super) fn write_down(&mut self) {
        self.write_record();
        for p in self.procs.map.values_mut().filter(|p| p.held) {
            p.held = false;
            if let Some(report) = &p.report {
                spawn::give_leave(report.as_fd());
            }
        }
    }

    /// If it has changed.
    fn write_record(&mut self) {
        let now = self.now();
        if self.orphans.again.is_some_and(|at| at > now) {
            return;
        }
        self.orphans.again = None;
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
        let done = write(&path, &text);
        let failed = std::mem::replace(&mut self.orphans.failed, done.is_err());
        match done {
            Ok(()) => {
                self.orphans.written = text;
                if failed {
                    let message = format!("--orphans keep: {} is written again", path.display());
                    self.say(Level::Info, "orphans", message);
                }
            }
            Err(e) => {
                self.orphans.again = Some(now + AGAIN);
                if !failed {
                    let message = format!(
                        "--orphans keep: cannot write {}: {}; if we died now, the next start would not find all workers; it is tried again every {}",
                        path.display(),
                        reason(&e),
                        human(AGAIN)
                    );
                    self.say(Level::Error, "orphans", message);
                }
            }
        }
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
