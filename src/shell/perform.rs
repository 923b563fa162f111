//! One arm per Action. Every outcome of a syscall comes back as an Event; none ends the loop.

use super::channel::Stderr;
use super::procs::Proc;
use super::{Kind, Shell, token};
use crate::core::words::reason;
use crate::core::{
    Action, Ask, Event, LaneId, Level, Notice, Phase, Pid, Seen, SlotNr, Takeover, Whom, WorkerId,
};
use crate::settings::expand;
use crate::sys::procfs::{self, Target};
use crate::sys::seccomp::Answer;
use crate::sys::spawn::{self, Plan, Watch};
use crate::sys::{errno_of, fds, process, proclook, signal};
use mio::Interest;
use mio::unix::SourceFd;
use std::ffi::CString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;

/// So often the list of our children is read, until it rests.
const LISTS: usize = 8;
/// So many holders of busy ports are looked for.
const MAX_HOLDERS: usize = 64;

impl Shell {
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::Spawn {
                worker,
                slot,
                generation,
            } => self.spawn(worker, slot, generation),
            Action::Signal {
                worker,
                signal,
                whom,
            } => self.signal(worker, signal, whom),
            Action::Lend { ask, lane } => self.lend(ask, lane),
            Action::Pass { ask } => self.settle_ask(ask, Answer::Continue),
            Action::Refuse { ask, errno } => self.settle_ask(ask, Answer::Error(errno)),
            Action::Listen { ask, lane } => self.listen_on(ask, lane),
            Action::CheckHeld { worker } => self.check_held(worker),
            Action::LookAt { worker } => self.look_at(worker),
            Action::LookForServers { lanes } => self.look_for_servers(lanes),
            Action::OpenLane {
                lane,
                addr,
                like,
                listen,
            } => self.open_lane(lane, addr, like, listen),
            Action::CloseLane { lane } => {
                // Before it is shut down: that would look like a worker's doing.
                if let Some(fd) = self.sockets.fd(lane) {
                    self.deregister(fd);
                }
                self.sockets.close(lane);
            }
            Action::ForgetTree { worker } => self.forget(worker),
            Action::SweepStrays { signal } => self.sweep(signal),
            Action::Answer { asker, code, stuck } => self.farewell(asker, code, &stuck),
            Action::Note(notice) => self.note(notice),
            Action::Finish(code) => self.finished = Some(code),
        }
    }

    fn note(&mut self, mut notice: Notice) {
        if let Notice::NeverReady {
            waiting: Some(worker),
            last,
            ..
        } = &mut notice
        {
            // Newer than what those that died have said.
            self.drain_stderr(*worker);
            let said = self.stderrs.get(worker).map(|s| s.last_lines());
            if let Some(lines) = said.filter(|l| !l.is_empty()) {
                *last = lines;
            }
        }
        if let Notice::Stopped { .. } = &notice {
            self.last_words();
        }
        self.log.note(&notice);
        self.watch_log();
    }

    fn spawn(&mut self, worker: WorkerId, slot: SlotNr, generation: u32) {
        self.spawned = true;
        // A stop came between the wish and its turn.
        let tried = match self.cluster.phase() {
            Phase::Serving => self.try_spawn(worker, slot, generation),
            Phase::Stopping { .. } | Phase::Done(_) => {
                Err(io::Error::from_raw_os_error(libc::ECANCELED))
            }
        };
        let event = match tried {
            Ok(pid) => Event::Spawned {
                worker,
                pid: Pid(pid),
            },
            Err(e) => Event::SpawnFailed {
                worker,
                errno: errno_of(&e),
            },
        };
        self.queue.push_back(event);
    }

    fn try_spawn(&mut self, worker: WorkerId, slot: SlotNr, generation: u32) -> io::Result<i32> {
        let argv = self.argv(slot);
        let env = self.environment(slot, generation);
        let (ours, theirs) = spawn::report_pair()?;
        let (err_read, err_write) = fds::pipe()?;
        let handed = self.sockets.handed();
        let pass: Vec<_> = handed.iter().map(|(_, fd)| *fd).collect();
        let count = pass.len();
        let plan = Plan {
            program: &self.program,
            argv: &argv,
            env: &env,
            cwd: Some(&self.cwd),
            stdin: self.devnull.as_fd(),
            stderr: Some(err_write.as_fd()),
            pass,
            nofile: self.nofile,
            watch: match self.settings.takeover {
                Takeover::Off => Watch::No,
                Takeover::Require => Watch::Require,
                Takeover::Auto | Takeover::Ports(_) => Watch::Try,
            },
            report: theirs.as_fd(),
        };
        let pid = spawn::fork_exec(&plan)?;
        let inode = fds::inode(err_read.as_fd()).unwrap_or(0);
        self.register(ours.as_fd(), token(Kind::Report, worker.0));
        self.register(err_read.as_fd(), token(Kind::Stderr, worker.0));
        let workers = self.worker_count;
        self.stderrs
            .insert(worker, Stderr::new(err_read, inode, workers));
        let proc = Proc {
            pid: Some(pid),
            group: pid,
            forked: self.now(),
            report: Some(ours),
            listener: None,
            handed: count,
            listened: None,
        };
        self.procs.map.insert(worker, proc);
        Ok(pid)
    }

    fn argv(&self, slot: SlotNr) -> Vec<CString> {
        let word = |w: &std::ffi::OsString| CString::new(expand(w.as_bytes(), slot.0));
        // Words of a command line cannot hold NUL.
        self.settings
            .command
            .iter()
            .filter_map(|w| word(w).ok())
            .collect()
    }

    /// Ours without what was meant for us, then the worker's own, then what the operator says.
    fn environment(&self, slot: SlotNr, generation: u32) -> Vec<CString> {
        let mut own: Vec<(String, Vec<u8>)> = Vec::new();
        let mut set = |k: &str, v: String| own.push((k.to_string(), v.into_bytes()));
        set("WORKER_ID", slot.to_string());
        set("NODE_APP_INSTANCE", slot.to_string());
        set("MINICLUSTER_NAME", self.claim.name.clone());
        set("MINICLUSTER_GENERATION", generation.to_string());
        set("MINICLUSTER_WORKERS", self.worker_count.to_string());
        if let Some(addr) = self.sockets.given().first() {
            set("PORT", addr.port().to_string());
            set("HOST", addr.ip().to_string());
        }
        let handed = self.sockets.handed();
        if !handed.is_empty() {
            set("LISTEN_FDS", handed.len().to_string());
            let names: Vec<String> = handed.iter().map(|(a, _)| a.port().to_string()).collect();
            set("LISTEN_FDNAMES", names.join(":"));
        }
        if let Some(socket) = &self.claim.socket {
            own.push((
                "MINICLUSTER_CONTROL".into(),
                socket.as_os_str().as_bytes().to_vec(),
            ));
        }
        for (k, v) in &self.settings.env {
            own.retain(|(name, _)| name != k);
            own.push((k.clone(), expand(v.as_bytes(), slot.0)));
        }
        let ours = |k: &[u8]| own.iter().any(|(name, _)| name.as_bytes() == k);
        let inherited = std::env::vars_os()
            .filter(|(k, _)| !is_masters_own(k.as_bytes()) && !ours(k.as_bytes()))
            .map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec()));
        inherited
            .chain(own.iter().map(|(k, v)| (k.clone().into_bytes(), v.clone())))
            .filter_map(|(k, v)| CString::new([k, b"=".to_vec(), v].concat()).ok())
            .collect()
    }

    fn signal(&mut self, worker: WorkerId, signal: i32, whom: Whom) {
        let done = match (whom, self.procs.map.get(&worker).and_then(|p| p.pid)) {
            (Whom::Group, Some(pid)) if signal == libc::SIGKILL => {
                // It may have left its group; unreaped, its pid is certainly its own.
                let _ = self.procs.signal_group(worker, signal);
                signal::kill(pid, signal)
            }
            (Whom::Group, _) => self.procs.signal_group(worker, signal),
            (Whom::Leader, Some(pid)) => signal::kill(pid, signal),
            (Whom::Leader, None) => Ok(()),
        };
        match done {
            // It ended in this very moment; its end is on its way.
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => {}
            Err(e) => {
                let message = format!("cannot signal worker {}: {}", worker.0, reason(&e));
                self.say(Level::Error, "signal-error", message);
            }
            Ok(()) => {}
        }
    }

    fn check_held(&mut self, worker: WorkerId) {
        let Some(p) = self.procs.map.get(&worker) else {
            return;
        };
        let what = match (p.listened, p.pid) {
            (Some(l), Some(pid)) => match self.sockets.inode(l.lane) {
                Some(inode)
                    if procfs::target(l.pid, l.fd) == Some(Target::Socket(inode))
                        || proclook::holds(&procfs::tree(pid), inode, p.handed) =>
                {
                    Seen::Holds
                }
                _ => Seen::Nothing,
            },
            _ => Seen::Nothing,
        };
        self.queue.push_back(Event::Seen { worker, what });
    }

    fn look_at(&mut self, worker: WorkerId) {
        let Some(p) = self.procs.map.get(&worker) else {
            return;
        };
        let mut what = Seen::Nothing;
        if let Some(pid) = p.pid {
            let tree = procfs::tree(pid);
            let inodes = self.sockets.inodes();
            let ports: Vec<u16> = self.sockets.given().iter().map(SocketAddr::port).collect();
            let watched = p.listener.is_some();
            if proclook::awaits(&tree, &inodes) {
                what = Seen::Accepts;
            } else if !watched || !ports.is_empty() {
                // A server whose bind we see may still come by another way (io_uring).
                let own = proclook::own_listener(&tree, &ports, &inodes);
                what = own.map_or(Seen::Nothing, Seen::OwnSocket);
            }
        }
        self.queue.push_back(Event::Seen { worker, what });
    }

    /// On which of these does a worker wait for connections? Where we cannot look, on all.
    fn look_for_servers(&mut self, mut lanes: Vec<LaneId>) {
        // All run the same COMMAND.
        const SOME: usize = 16;
        let pids = self.procs.pids();
        let trees: Vec<Vec<i32>> = pids.into_iter().take(SOME).map(procfs::tree).collect();
        let waits = |lane: &LaneId| {
            let inode = self.sockets.inode(*lane);
            inode.is_none_or(|i| trees.iter().any(|t| proclook::awaits(t, &[i])))
        };
        let visible = |pid: &i32| procfs::descriptors(*pid).is_some();
        if trees.iter().flatten().any(visible) {
            lanes.retain(waits);
        }
        self.queue.push_back(Event::Served { lanes });
    }

    fn open_lane(&mut self, lane: LaneId, addr: SocketAddr, like: Option<Ask>, listen: bool) {
        let reach = like.map(|ask| self.reach_asked(ask)).unwrap_or_default();
        let event = match self.sockets.open(lane, &addr, &reach, listen) {
            Ok(addr) => {
                self.watch_lane(lane);
                Event::LaneOpened { lane, addr }
            }
            Err(e) => Event::LaneFailed {
                lane,
                errno: errno_of(&e),
                holder: match errno_of(&e) {
                    // Once for each: it is said once, and all of /proc is looked at for it while a
                    // worker waits in bind(2).
                    libc::EADDRINUSE
                        if self.holders_named.len() < MAX_HOLDERS
                            && self.holders_named.insert(addr) =>
                    {
                        procfs::holder_of(addr.port())
                    }
                    _ => None,
                },
            },
        };
        self.queue.push_back(event);
    }

    /// Listens for nothing but its end: a listening socket never polls writable, so connections do
    /// not wake us, and shutdown(2) by a worker, which silences it for all, does.
    fn watch_lane(&mut self, lane: LaneId) {
        let Some(raw) = self.sockets.fd(lane).map(|fd| fd.as_raw_fd()) else {
            return;
        };
        let (mut source, at) = (SourceFd(&raw), token(Kind::Lane, lane.0));
        let registry = self.poll.registry();
        if let Err(e) = registry.register(&mut source, at, Interest::WRITABLE) {
            self.say(Level::Error, "poll-error", format!("epoll_ctl: {e}"));
        }
    }

    /// A worker has perhaps shut it down: then it listens again. Or it connects from it.
    pub(super) fn heal_lane(&mut self, lane: LaneId) {
        self.release_connected();
        let Some(addr) = self.sockets.silenced(lane) else {
            return;
        };
        let (level, what) = match self.sockets.listen(lane) {
            Ok(()) => (Level::Warn, "it listens again".to_string()),
            Err(e) => (
                Level::Error,
                format!("it cannot listen again: {}", reason(&e)),
            ),
        };
        let message = format!(
            "a worker has shut down the socket of {addr}, which all workers share: {what}; connections that waited there are lost, and accept(2) has failed in the others"
        );
        self.say_once(level, "lane-silenced", message);
    }

    /// Lanes that workers connect from are none: the connection must be theirs alone. Was there one?
    pub(super) fn release_connected(&mut self) -> bool {
        let all = self.sockets.connected();
        for lane in &all {
            let lane = *lane;
            if let Some(fd) = self.sockets.fd(lane) {
                self.deregister(fd);
            }
            self.sockets.let_go(lane);
            self.queue.push_back(Event::LaneDied { lane });
        }
        !all.is_empty()
    }

    /// Children of ours that are no workers, and that we were not born with: what workers left
    /// behind. One that ends between the list and the look at it may have left others, which the list
    /// lacks: so it is read until it rests.
    fn sweep(&mut self, signal: Option<i32>) {
        let workers = self.procs.pids();
        let stranger = |pid: &i32| !workers.contains(pid) && !self.born_with.contains(pid);
        let (mut left, mut zombies) = (Vec::new(), true);
        let mut seen = Vec::new();
        for _ in 0..LISTS {
            let all = procfs::children(process::id()).into_iter().filter(stranger);
            let all: Vec<i32> = all.collect();
            left = all.clone();
            left.retain(|pid| !procfs::is_zombie(*pid));
            // What it forked is ours by the time that one is a zombie, so a second list that is the
            // same says that they have left nobody. (Not that they are reaped: a tracer may have one.)
            zombies = left.len() < all.len() && all != seen;
            if !left.is_empty() || !zombies {
                break;
            }
            seen = all;
        }
        for pid in &left {
            match signal {
                Some(libc::SIGKILL) => self.kill_stray(*pid),
                Some(sig) => self.ask_stray(*pid, sig),
                None => {}
            }
        }
        let left = left.into_iter().map(Pid).collect();
        self.queue.push_back(Event::Strays { left, zombies });
    }

    /// Once, and not those who have had it with their group.
    fn ask_stray(&mut self, pid: i32, sig: i32) {
        let had_it = self.asked.contains(&pid)
            || procfs::group_of(pid).is_some_and(|g| self.procs.is_group(g));
        if !had_it {
            let _ = signal::kill(pid, sig);
            self.asked.insert(pid);
        }
    }

    /// With its group, where that is a worker's or its own: one that forks and ends all the time is
    /// gone before a signal to it alone comes, and no fork escapes one to the group.
    fn kill_stray(&mut self, pid: i32) {
        let _ = signal::kill(pid, libc::SIGKILL);
        let group = procfs::group_of(pid).filter(|g| *g == pid || self.procs.is_group(*g));
        if let Some(group) = group {
            let _ = signal::kill_group(group, libc::SIGKILL);
        }
    }
}

/// Variables that speak to us, not to our workers.
fn is_masters_own(key: &[u8]) -> bool {
    const EXACT: [&[u8]; 8] = [
        b"LISTEN_PID",
        b"LISTEN_FDS",
        b"LISTEN_FDNAMES",
        b"LISTEN_PIDFDID",
        b"NOTIFY_SOCKET",
        b"WATCHDOG_PID",
        b"WATCHDOG_USEC",
        b"WEB_CONCURRENCY",
    ];
    EXACT.contains(&key) || key.starts_with(b"MINICLUSTER_")
}
