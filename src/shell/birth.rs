//! A worker's birth: what it is given (words, environment, descriptors), the fork, and the
//! descriptors that stay with us.

use super::channel::{Stderr, To};
use super::environment::{Mastered, Surroundings};
use super::log::Stdout;
use super::procs::Proc;
use super::speech::Speech;
use super::voice::Voice;
use super::{Kind, Shell, handed, token};
use crate::core::{Action, Event, Pid, Program, Reader, SlotNr, Takeover, Time, WorkerId};
use crate::settings::Orphans;
use crate::sys::spawn::{self, Plan, Watch};
use crate::sys::{errno_of, fds, lifeline, process, procfs};
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// A child that has not executed COMMAND by then no longer keeps others from being forked.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

impl Shell {
    /// Has a child to wait for its turn? One is forked a turn: workers that run already are blocked in bind(2)
    /// meanwhile. And one after the other: who asks for reloads without end would have his forked before all others.
    pub(super) fn waits_to_be_forked(&self) -> bool {
        self.crowded() || !self.later.is_empty()
    }

    /// The one of this turn, if there is one, and the way is free.
    pub(super) fn fork_next(&mut self) {
        // Who is wanted is known when all news of this turn have been heard.
        self.settle();
        self.spawned = false;
        self.forget_unwanted();
        if !self.crowded()
            && let Some(action) = self.later.pop_front()
        {
            self.perform(action);
            self.settle();
        }
    }

    /// When the next one may be forked, if one waits.
    pub(super) fn fork_deadline(&self) -> Option<Time> {
        (!self.later.is_empty()).then(|| self.way_is_free())
    }

    /// Those that are to be forked, and that nobody wants any more, take no turn, and do not pile up.
    fn forget_unwanted(&mut self) {
        let cluster = &self.cluster;
        let wanted =
            |a: &Action| !matches!(a, Action::Spawn { worker, .. } if !cluster.wants(*worker));
        if self.later.iter().all(wanted) {
            return;
        }
        let all = std::mem::take(&mut self.later);
        let (wanted, unwanted) = all.into_iter().partition::<VecDeque<_>, _>(wanted);
        self.later = wanted;
        for action in unwanted {
            self.perform(action);
        }
        self.settle();
    }

    /// Has this turn had its fork, or is a child on its way to exec?
    fn crowded(&self) -> bool {
        self.spawned || self.way_is_free() > self.now()
    }

    /// When the next child may be forked: now, unless one is on its way to exec. One that does not
    /// get there (a directory on a server that is gone) must not hold up the other slots for long.
    fn way_is_free(&self) -> Time {
        let on_its_way = self.procs.map.values().filter(|p| p.report.is_some());
        let free = on_its_way.map(|p| p.forked + ON_ITS_WAY).max();
        free.unwrap_or(Time(0))
    }

    pub(super) fn spawn(
        &mut self,
        worker: WorkerId,
        slot: SlotNr,
        program: Program,
        reader: Reader,
    ) {
        // A stop, a resize or another reload may have come between the wish and its turn.
        let wanted = self.cluster.wants(worker);
        self.spawned |= wanted;
        if wanted {
            self.make_room_for_workers();
        }
        if wanted && self.take_orphan(worker, slot, program, reader) {
            return;
        }
        let tried = match wanted {
            true => self.try_spawn(worker, slot, program, reader),
            false => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
        };
        let event = match tried {
            Ok(pid) => Event::Spawned {
                worker,
                pid: Pid(pid),
            },
            Err(e) => {
                self.cgroups.gone(worker);
                Event::SpawnFailed {
                    worker,
                    errno: errno_of(&e),
                }
            }
        };
        self.queue.push_back(event);
    }

    fn try_spawn(
        &mut self,
        worker: WorkerId,
        slot: SlotNr,
        program: Program,
        reader: Reader,
    ) -> io::Result<i32> {
        let generation = reader.generation;
        let door = self.cgroups.born(worker)?;
        let recipe = self.recipe(generation);
        let around = self.surroundings(generation);
        let own = self.programs.of(program);
        let command = own.map_or(&recipe.settings.command, |m| &m.command);
        let argv = around.argv(command, slot);
        let ipc = own.map_or(recipe.ipc, |m| m.ipc);
        let ready_fd = recipe.settings.ready_fd;
        let (speech, theirs) = Speech::open(ipc, ready_fd.is_some())?;
        let handed = self.sockets.handed(reader);
        let pass: Vec<_> = handed.iter().map(|h| h.fd).collect();
        let count = pass.len();
        let mut extra = Vec::new();
        let mut channel = None;
        if let Some(fd) = &theirs.ipc {
            let free = i32::try_from(handed::FIRST + count).unwrap_or(i32::MAX);
            let number = free + i32::from(Some(free) == ready_fd);
            extra.push((fd.as_fd(), number));
            channel = Some(number);
        }
        if let (Some(fd), Some(number)) = (&theirs.newline, ready_fd) {
            extra.push((fd.as_fd(), number));
        }
        let notify = theirs.notify.as_str();
        let env = around.environment(slot, reader, Mastered::By { notify, channel });
        let (ours, theirs_report) = spawn::report_pair()?;
        let (err_read, err_write) = fds::pipe()?;
        if let Some(uid) = recipe.rights.ids.as_ref().and_then(|ids| ids.uid) {
            // Or it could not open /dev/stderr, as some servers do. (A sandbox may not allow it.)
            let _ = std::os::unix::fs::fchown(&err_write, Some(uid), None);
        }
        let to = match (&self.output, recipe.settings.silent) {
            (Some(_), _) => To::Files,
            (None, true) => To::Nowhere,
            (None, false) => To::Log,
        };
        let mute = match to {
            To::Nowhere => fds::mute().ok(),
            To::Log | To::Files => None,
        };
        let stdout = match (to, self.log.stdout()) {
            (To::Files, _) => Some(err_write.as_fd()),
            (To::Nowhere, _) => mute.as_ref().map(AsFd::as_fd).or(Some(err_write.as_fd())),
            (To::Log, Stdout::Inherited) => None,
            (To::Log, Stdout::File(file)) => Some(file),
            (To::Log, Stdout::Piped) => Some(err_write.as_fd()),
        };
        // What we were born with may not be had any more: somebody has lowered our hard limit since (prlimit(1)).
        let nofile = recipe.rights.nofile.or(self.nofile.map(process::within));
        let free = i32::try_from(handed::FIRST + count).unwrap_or(i32::MAX);
        let taken: Vec<i32> = channel.into_iter().chain(ready_fd).collect();
        let number = lifeline::number(nofile.map(|(soft, _)| soft), free, &taken);
        let thread = self.lifeline.thread()?;
        let mortal = recipe.settings.orphans == Orphans::Stop;
        let plan = Plan {
            program: own.map_or(&recipe.program, |m| &m.program),
            argv: &argv,
            env: &env,
            cwd: own.and_then(|m| m.cwd.as_ref()).or(Some(&recipe.cwd)),
            stay: recipe.rights.ids.is_some() && recipe.settings.cwd.is_none(),
            cgroup: door.as_ref().map(AsFd::as_fd),
            ids: recipe.rights.ids.as_ref(),
            umask: recipe.settings.umask,
            nice: recipe.settings.nice,
            cpu: recipe.rights.cpu(slot),
            limits: &recipe.rights.limits,
            stdin: Some(self.devnull.as_fd()),
            stdout,
            stderr: Some(err_write.as_fd()),
            pass,
            extra,
            nofile,
            watch: match recipe.settings.takeover {
                Takeover::Off => Watch::No,
                Takeover::Require => Watch::Require,
                Takeover::Auto | Takeover::Ports(_) => Watch::Try,
            },
            watch_unix: self.sockets.has_unix(),
            keep: &[],
            hollow: &[],
            mortal,
            life: mortal.then(|| thread.line(number)),
            report: Some(theirs_report.as_fd()),
        };
        let pid = spawn::fork_exec(&plan)?;
        let life = thread.keep().filter(|_| mortal);
        let inode = fds::inode(err_read.as_fd()).unwrap_or(0);
        self.register(ours.as_fd(), token(Kind::Report, worker.0));
        self.register(err_read.as_fd(), token(Kind::Stderr, worker.0));
        self.listen_to(worker, speech);
        let workers = usize::from(self.cluster.wanted());
        let voice = Voice::new(slot.0, pid);
        self.stderrs
            .insert(worker, Stderr::new(err_read, inode, workers, voice, to));
        if let Some(output) = &mut self.output {
            output.born(slot.0);
            self.say_output();
        }
        let proc = Proc {
            pid: Some(pid),
            group: pid,
            generation,
            killed: false,
            put_down: None,
            group_asked: false,
            forked: self.now(),
            report: Some(ours),
            held: !mortal,
            _life: life,
            orphan: None,
            started: procfs::started(pid),
            listener: None,
            handed: count,
            listened: None,
        };
        self.procs.map.insert(worker, proc);
        self.note_pid(worker, pid);
        Ok(pid)
    }

    /// What its environment is made of.
    pub(super) fn surroundings(&self, generation: u32) -> Surroundings<'_> {
        let recipe = self.recipe(generation);
        Surroundings {
            settings: &recipe.settings,
            rights: &recipe.rights,
            sockets: &self.sockets,
            name: &self.claim.name,
            control: self.claim.control(),
            workers: usize::from(self.cluster.wanted()),
        }
    }
}
