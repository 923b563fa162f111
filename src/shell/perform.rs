//! One arm per Action. Every outcome of a syscall comes back as an Event; none ends the loop.

use super::open::burden_of;
use super::sockets::Place;
use super::{Kind, Shell, token, unseen};
use crate::core::words::reason;
use crate::core::{Action, Addr, Event, LaneId, Level, Notice, Opening, Pid, Seen, Whom, WorkerId};
use crate::sys::procfs::{self, Target};
use crate::sys::procnet;
use crate::sys::seccomp::Answer;
use crate::sys::{errno_of, process, proclook, signal};
use crate::wire::moment::Ending;
use mio::Interest;
use mio::unix::SourceFd;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

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
                program,
                reader,
            } => self.spawn(worker, slot, program, reader),
            Action::Signal {
                worker,
                signal,
                whom,
            } => self.signal(worker, signal, whom),
            Action::Dismiss { worker, signal } => self.dismiss(worker, signal),
            Action::DismissAtRest { worker, signal } => self.dismiss_at_rest(worker, signal),
            Action::Lend { ask, lane } => self.lend(ask, lane),
            Action::Bound { ask } => self.bound(ask),
            Action::Pass { ask } => self.settle_ask(ask, Answer::Continue),
            Action::Refuse { ask, errno } => self.settle_ask(ask, Answer::Error(errno)),
            Action::Listen { ask, lane } => self.listen_on(ask, lane),
            Action::CheckHeld { worker } => self.check_held(worker),
            Action::LookAt { worker } => self.look_at(worker),
            Action::Probe {
                worker,
                lane,
                within,
            } => self.probe(worker, lane, within),
            Action::Check { check, of, within } => self.check(check, of, within),
            Action::CallOff { check } => self.call_off(check),
            Action::LookForServers { lanes } => self.look_for_servers(lanes),
            Action::LookHung { workers, spread } => self.look_hung(&workers, spread),
            Action::OpenLane {
                lane,
                port,
                of,
                what,
            } => {
                let at = Place { lane, port, of };
                self.make_room_for_workers();
                self.mean_for_heirs(lane);
                self.open_lane(at, &what);
            }
            Action::Steer { port, table } => self.steer(port, &table),
            Action::RefuseNew => self.refuse_new(),
            Action::TakeCensus { workers, lanes } => self.take_census(&workers, &lanes),
            Action::Weigh { workers } => self.weigh(&workers),
            Action::CloseQuiet {
                worker,
                silent,
                late,
            } => self.end_connections(worker, Ending::Quiet { silent, late }),
            Action::CloseRest { worker, left } => {
                self.end_connections(worker, Ending::Rest { left });
            }
            Action::RetireLane { lane } => self.retire_lane(lane),
            Action::FlushLane { lane } => self.flush_lane(lane),
            Action::ShareLane { lane } => self.sockets.share(lane),
            Action::Inherit { lane, heirs } => self.sockets.inherit(lane, heirs),
            Action::NewGeneration { generation } => self.new_generation(generation),
            Action::CloseLane { lane } => {
                // Before it is shut down: that would look like a worker's doing.
                if let Some(fd) = self.sockets.fd(lane) {
                    self.deregister(fd);
                }
                self.sockets.close(lane);
            }
            Action::ForgetTree { worker } => self.forget(worker),
            Action::SweepStrays { signal } => self.sweep(signal),
            Action::Answer { asker, outcome } => self.tell(asker, outcome),
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
        let line = self.log.line_of(&notice);
        let sentence = self.supervisor.path().map(|_| line.message.clone());
        self.publish(line);
        if let Some(sentence) = sentence {
            self.tell_supervisor_of(&notice, &sentence);
        }
        if let Notice::AllReady { .. } | Notice::PartlyReady { .. } = &notice {
            self.release_caller();
            self.drop_found();
            self.grown = true;
        }
        if let Notice::Reloaded { .. } | Notice::ReloadFailed { .. } = &notice {
            self.grown = true;
        }
        self.remember_what_runs(&notice);
    }

    pub(super) fn signal(&mut self, worker: WorkerId, signal: i32, whom: Whom) {
        if let Some(p) = self.procs.map.get_mut(&worker) {
            p.killed |= signal == libc::SIGKILL;
            let had = whom == Whom::Group && signal != libc::SIGKILL;
            // (A second one means something else to many.)
            if had && std::mem::take(&mut p.group_asked) {
                return;
            }
        }
        let worn = self.to_kill();
        let done = match (whom, self.procs.map.get(&worker).and_then(|p| p.pid)) {
            (Whom::Group, Some(pid)) if signal == libc::SIGKILL => {
                // It may have left its group; unreaped, its pid is certainly its own.
                let _ = self.procs.signal_group(worker, signal);
                self.procs.signal_first(worker, pid, signal)
            }
            (Whom::Group, _) => self.procs.signal_group(worker, signal),
            (Whom::Leader, Some(pid)) => self.procs.signal_first(worker, pid, signal),
            (Whom::Leader, None) => Ok(()),
        };
        drop(worn);
        if (whom, signal) == (Whom::Group, libc::SIGKILL)
            && let Err(e) = self.cgroups.kill(worker)
        {
            let message = format!(
                "cannot kill the control group of worker {}: {}",
                worker.0,
                reason(&e)
            );
            self.say(Level::Error, "signal-error", message);
        }
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
            (Some(l), Some(pid)) => {
                let _worn = self.to_look();
                match self.sockets.inode(l.lane) {
                    Some(inode) if !procfs::is_ours() => match unseen::holds(&l, inode) {
                        true => Seen::Holds,
                        false => Seen::Nothing,
                    },
                    Some(inode)
                        if procfs::target(l.pid, l.fd) == Some(Target::Socket(inode))
                            || proclook::holds(&procfs::tree(pid), inode, p.handed) =>
                    {
                        Seen::Holds
                    }
                    _ => Seen::Nothing,
                }
            }
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
            let given = self.sockets.given();
            let ports: Vec<u16> = given.iter().map(SocketAddr::port).collect();
            let watched = p.listener.is_some();
            let _worn = self.to_look();
            // What it waits for before it has called listen(2) says nothing.
            if proclook::awaits(&tree, &self.sockets.shared_inodes()) {
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
        let worn = self.to_look();
        let trees: Vec<Vec<i32>> = pids.into_iter().take(SOME).map(procfs::tree).collect();
        let waits = |lane: &LaneId| {
            let inode = self.sockets.inode(*lane);
            inode.is_none_or(|i| trees.iter().any(|t| proclook::awaits(t, &[i])))
        };
        let visible = |pid: &i32| procfs::descriptors(*pid).is_some();
        if trees.iter().flatten().any(visible) {
            lanes.retain(waits);
        }
        drop(worn);
        self.queue.push_back(Event::Served { lanes });
    }

    /// How much memory these have, as far as it can be seen.
    fn weigh(&mut self, workers: &[WorkerId]) {
        let (orphans, mut left) = (self.orphans(), usize::MAX);
        let size = |worker: &WorkerId| {
            let pid = self.procs.map.get(worker)?.pid?;
            let (tree, _) = burden_of(pid, &orphans, &mut left)?;
            Some((*worker, tree.resident))
        };
        let sizes = workers.iter().filter_map(size).collect();
        self.queue.push_back(Event::Weighed { sizes });
    }

    fn open_lane(&mut self, at: Place, what: &Opening) {
        let lane = at.lane;
        let opened = match what {
            Opening::Given(given) => self.sockets.open_given(at, given),
            Opening::Found { addr } => self.sockets.open_found(at, addr),
            Opening::Learnt { addr, like } => {
                let reach = self.reach_asked(*like);
                self.sockets.open_learnt(at, addr, &reach)
            }
            Opening::Beside { first } => self.sockets.open_beside(at, *first),
            Opening::Adopted {
                addr,
                ask,
                beside,
                snag,
            } => {
                let event = self.adopt(at, addr, *ask, *beside, *snag);
                return self.queue.push_back(event);
            }
        };
        let event = match opened {
            Err(e) if matches!(what, Opening::Beside { .. }) => {
                let message = format!("cannot open a second socket there: {}", reason(&e));
                self.say_once(Level::Debug, "port-shared", message);
                Event::LaneAlone { lane }
            }
            Ok(addr) => {
                self.watch_lane(lane, &addr);
                self.count_at_ports();
                Event::LaneOpened { lane, addr }
            }
            Err(e) => Event::LaneFailed {
                lane,
                errno: errno_of(&e),
                holder: match what {
                    Opening::Given(given) => self.holder(errno_of(&e), given.addr.tcp()),
                    Opening::Learnt { addr, .. } => self.holder(errno_of(&e), Some(*addr)),
                    Opening::Beside { .. } | Opening::Adopted { .. } | Opening::Found { .. } => {
                        None
                    }
                },
            },
        };
        self.queue.push_back(event);
    }

    /// Who has the address that is in use. Looked for once for each: it is said once, and all of
    /// /proc is looked at for it while a worker waits in bind(2).
    pub(super) fn holder(&mut self, errno: i32, addr: Option<SocketAddr>) -> Option<String> {
        let addr = addr.filter(|_| errno == libc::EADDRINUSE)?;
        let room = self.holders_named.len() < MAX_HOLDERS;
        match room && self.holders_named.insert(addr) {
            true => procnet::holder_of(addr.port()),
            false => None,
        }
    }

    /// Listens for nothing but its end: a listening socket never polls writable, so connections do
    /// not wake us, and shutdown(2) by a worker, which silences it for all, does.
    pub(super) fn watch_lane(&mut self, lane: LaneId, addr: &Addr) {
        // What we only pass on may poll writable all the time.
        if matches!(addr, Addr::Other(_)) {
            return;
        }
        self.watch_file(lane);
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
        let Some(addr) = self.sockets.silenced(lane).cloned() else {
            return;
        };
        if self.sockets.is_own(lane) {
            // Nobody but that worker used it.
            return self.queue.push_back(Event::LaneLeft { lane });
        }
        let (level, what) = match self.sockets.heal(lane) {
            Ok(()) if addr.tcp().is_none() => {
                self.watch_lane(lane, &addr);
                let what = "another one takes its place for the workers to come; reload replaces those that are";
                (Level::Error, what.to_string())
            }
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
        if !procfs::is_ours() {
            return self.sweep_unseen(signal);
        }
        let workers = self.procs.pids();
        let stranger = |pid: &i32| {
            let known = workers.contains(pid) || self.born_with.contains(pid);
            !known && !self.jobs.owns(*pid)
        };
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
        let worn = self.to_kill();
        for pid in &left {
            match signal {
                Some(libc::SIGKILL) => self.kill_stray(*pid),
                Some(sig) => self.ask_stray(*pid, sig),
                None => {}
            }
        }
        drop(worn);
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
    pub(super) fn kill_stray(&self, pid: i32) {
        let _ = signal::kill(pid, libc::SIGKILL);
        let group = procfs::group_of(pid).filter(|g| *g == pid || self.procs.is_group(*g));
        if let Some(group) = group {
            let _ = signal::kill_group(group, libc::SIGKILL);
        }
    }
}
