//! The kernel of the world: processes, their families and groups, signals, zombies. It knows nothing
//! of the cluster but that the master is the subreaper: whoever loses its parent is its child.

use crate::cover::Mark;
use crate::plan::{Fate, Plan, Step};
use crate::world::{Happening, World};
use minicluster::core::Addr;
use minicluster::core::{Ask, Event, Exit, LaneId, Oom, Pid, Time, Word, WorkerId};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// A process by serial: pids are used again, serials are not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Serial(pub u64);

/// The master's own: parent of the workers, and of all orphans.
pub const MASTER: Serial = Serial(0);
pub const SIGKILL: i32 = 9;

/// One socket of a process.
#[derive(Clone, Debug)]
pub struct Socket {
    /// Where it was bound to.
    pub addr: Addr,
    /// The lane in its place, if it was swapped.
    pub lane: Option<LaneId>,
    /// Is listen(2) done?
    pub listens: bool,
    /// Did bind(2) succeed, and is it open?
    pub open: bool,
}

/// One process.
#[derive(Clone, Debug)]
pub struct Process {
    /// The number the operator sees.
    pub pid: Pid,
    /// Whose child.
    pub parent: Serial,
    /// When it became the master's because its own parent ended.
    pub adopted: Option<Time>,
    /// Was that parent no child of the master's, so that nothing told of its end?
    pub unheard: bool,
    /// Its group, named by the process that founded it.
    pub group: Serial,
    /// Of whose tree.
    pub worker: WorkerId,
    /// As drawn; the steps are in `todo`.
    pub plan: Plan,
    todo: VecDeque<(Duration, Step)>,
    /// Has it executed COMMAND?
    pub execed: bool,
    /// `Some` from its end until it is reaped.
    pub zombie: Option<Exit>,
    /// When that was.
    pub ended: Option<Time>,
    /// Cannot be ended now.
    pub stuck: bool,
    /// Does it nothing, now?
    pub hung: bool,
    pending: Option<Exit>,
    /// When it was sent SIGKILL first.
    pub killed: Option<Time>,
    /// Was it sent any signal by us?
    pub signalled: bool,
    /// When it was asked to stop, by us; and does it stop gracefully now?
    pub told: Option<Time>,
    pub leaving: bool,
    /// Is it about to end by itself, on account of an error?
    pub fails: bool,
    /// Waits for an answer to bind(2) or listen(2).
    pub asked: Option<Ask>,
    /// In the order of their making.
    pub sockets: Vec<Socket>,
    /// Waits for connections on what it was handed.
    pub accepts: bool,
}

impl Process {
    /// Does it still run?
    pub fn lives(&self) -> bool {
        self.zombie.is_none()
    }
}

impl World {
    fn free_pid(&mut self) -> Pid {
        if self.faults.pids_reused {
            let taken: BTreeSet<i32> = self.procs.values().map(|p| p.pid.0).collect();
            let free = (100..).find(|n| !taken.contains(n));
            return Pid(free.unwrap());
        }
        self.next_pid += 1;
        Pid(100 + self.next_pid)
    }

    /// A new process; a leader founds its own group, and so does one `apart`.
    pub fn fork(&mut self, parent: Serial, group: Option<Serial>, worker: WorkerId, plan: Plan) {
        let pid = self.free_pid();
        self.next_serial += 1;
        let serial = Serial(self.next_serial);
        let leader = parent == MASTER;
        let fate = plan.fate;
        let (exec_after, held) = (plan.exec_after, plan.held);
        let process = Process {
            pid,
            parent,
            adopted: None,
            unheard: false,
            group: group.unwrap_or(serial),
            worker,
            todo: plan.steps.clone().into(),
            plan,
            execed: !leader,
            zombie: None,
            ended: None,
            stuck: held.is_some(),
            hung: false,
            pending: None,
            killed: None,
            signalled: false,
            told: None,
            leaving: false,
            fails: false,
            asked: None,
            sockets: Vec::new(),
            accepts: false,
        };
        self.say("kernel", || format!("fork {pid} {:?}", process.plan.kind));
        self.procs.insert(serial, process);
        if !leader {
            return self.plan_step(serial);
        }
        if let Fate::Refused(errno) = fate {
            self.report(worker, Event::TakeoverRefused { worker, errno });
        }
        if let Some(time) = held {
            self.cover.mark(Mark::StuckBeforeExec);
            self.after(time, Happening::Unstick(serial));
        }
        self.after(exec_after, Happening::Exec(serial));
    }

    /// COMMAND runs, or it turns out that it cannot.
    pub fn exec(&mut self, serial: Serial) {
        let required = self.requires_takeover();
        let Some(p) = self.procs.get_mut(&serial).filter(|p| p.lives()) else {
            return;
        };
        let worker = p.worker;
        p.execed = true;
        let failed = match p.plan.fate {
            Fate::ExecFails(step, errno) => Some((step, errno)),
            Fate::Refused(errno) if required => Some(("seccomp", errno)),
            Fate::Refused(_) | Fate::Runs => None,
        };
        match failed {
            Some((step, errno)) => {
                self.report(
                    worker,
                    Event::ExecFailed {
                        worker,
                        step,
                        errno,
                    },
                );
                self.end(serial, Exit::Code(127));
            }
            None => {
                self.report(worker, Event::Execed { worker });
                self.plan_step(serial);
            }
        }
    }

    /// A child says something on its way to exec.
    fn report(&mut self, worker: WorkerId, event: Event) {
        if let Some(job) = self.judge.jobs.get_mut(&worker) {
            job.reports.push_back(event.clone());
        }
        self.news(event);
    }

    /// Sets the date of the next step, if there is one.
    pub fn plan_step(&mut self, serial: Serial) {
        let next = self.procs.get(&serial).and_then(|p| p.todo.front());
        if let Some((wait, _)) = next {
            self.after(*wait, Happening::Step(serial));
        }
    }

    /// One step of a process that still runs.
    pub fn step(&mut self, serial: Serial) {
        let Some(p) = self.procs.get_mut(&serial) else {
            return;
        };
        if !p.lives() || p.asked.is_some() {
            return;
        }
        let Some((_, step)) = p.todo.pop_front() else {
            return;
        };
        let (worker, group) = (p.worker, p.group);
        match step {
            Step::Bind(addr, snag) => self.bind(serial, addr, snag),
            Step::Listen(n) => self.listen(serial, n),
            Step::Connect(n) => self.connect(serial, n),
            Step::LetGo(n) => {
                if let Some(s) = p.sockets.get_mut(n) {
                    (s.open, s.listens) = (false, false);
                }
            }
            Step::Own(addr) => p.sockets.push(Socket {
                addr,
                lane: None,
                listens: true,
                open: true,
            }),
            Step::Accept => {
                p.accepts = true;
                self.wake_queues();
            }
            Step::Fork(plan, apart) => {
                self.fork(serial, (!apart).then_some(group), worker, *plan);
            }
            Step::Say(word) => self.speaks(worker, word),
            Step::Pulse(gap) => {
                p.todo.push_front((gap, Step::Pulse(gap)));
                self.speaks(worker, Word::Ping);
            }
            Step::End(exit) => {
                // By itself, whatever it was told.
                p.told = None;
                self.end(serial, exit);
            }
            Step::Hang(time) => self.hang(serial, time),
            Step::Stick(time) => {
                p.stuck = true;
                self.after(time, Happening::Unstick(serial));
            }
        }
        if self.procs.get(&serial).is_some_and(|p| p.asked.is_none()) {
            self.plan_step(serial);
        }
    }

    /// What it does from now on is nothing but to serve.
    pub fn calm_down(&mut self, serial: Serial) {
        if let Some(p) = self.procs.get_mut(&serial) {
            // The first of them may be under way.
            let pulse = |(_, s): &(Duration, Step)| matches!(s, Step::Pulse(_));
            let under_way = p.todo.front().is_some_and(pulse);
            p.todo.retain(pulse);
            if !under_way {
                self.plan_step(serial);
            }
        }
        self.unstick(serial);
        self.resume(serial);
    }

    /// A process of that worker's tree says something, by whatever way: if somebody listens.
    fn speaks(&mut self, worker: WorkerId, word: Word) {
        if self.judge.jobs.get(&worker).is_some_and(|j| !j.forgotten) {
            self.news(Event::Said { worker, word });
        }
    }

    /// It can be ended again, and is if it was to be.
    pub fn unstick(&mut self, serial: Serial) {
        let Some(p) = self.procs.get_mut(&serial) else {
            return;
        };
        p.stuck = false;
        if let Some(exit) = p.pending.take() {
            self.end(serial, exit);
        }
    }

    /// A signal arrives.
    pub fn signal(&mut self, serial: Serial, signal: i32) {
        let now = self.now;
        let soon = self.rng.ms(0, 1);
        let Some(p) = self.procs.get_mut(&serial).filter(|p| p.lives()) else {
            return;
        };
        p.signalled = true;
        if signal == SIGKILL {
            p.killed.get_or_insert(now);
            return self.after(soon, Happening::End(serial, Exit::Signal(signal)));
        }
        // As one that is stopped, or as one whose code does not come to it.
        if p.hung && self.rng.one_in(2) {
            return;
        }
        // Before exec the child has the default dispositions.
        let term = match p.execed {
            true => p.plan.term,
            false => Some(Duration::ZERO),
        };
        if p.leaving {
            // It knows.
            return;
        }
        if term.is_some() {
            let (shuts, graceful) = (p.plan.shuts, p.execed && p.plan.graceful);
            if shuts {
                self.shut_down_lanes(serial);
            }
            if graceful {
                return self.stop_gracefully(serial);
            }
        }
        if let Some(wait) = term {
            let exit = match self.rng.one_in(2) {
                true => Exit::Code(0),
                false => Exit::Signal(signal),
            };
            self.after(wait, Happening::End(serial, exit));
        }
    }

    /// A signal to everyone in the group.
    pub fn signal_group(&mut self, group: Serial, signal: i32) {
        let member = |p: &crate::kernel::Process| p.group == group;
        for serial in self.those(member) {
            self.signal(serial, signal);
        }
    }

    /// Serials of the processes of which this is true.
    pub fn those(&self, is: impl Fn(&Process) -> bool) -> Vec<Serial> {
        let found = self.procs.iter().filter(|(_, p)| is(p));
        found.map(|(s, _)| *s).collect()
    }

    /// It is a zombie now; its children are the master's.
    pub fn end(&mut self, serial: Serial, exit: Exit) {
        let now = self.now;
        let Some(p) = self.procs.get_mut(&serial).filter(|p| p.lives()) else {
            return;
        };
        if p.stuck {
            p.pending = Some(exit);
            return;
        }
        (p.zombie, p.ended) = (Some(exit), Some(now));
        let (pid, parent, worker, killed, execed) = (p.pid, p.parent, p.worker, p.killed, p.execed);
        self.say("kernel", || format!("{pid} ends: {exit}"));
        self.lose_connections(serial);
        let mut orphans = false;
        for child in self.procs.values_mut().filter(|c| c.parent == serial) {
            (child.parent, child.adopted) = (MASTER, Some(now));
            child.unheard = parent != MASTER;
            orphans = true;
        }
        let leader = self.leader(worker) == Some(serial);
        if orphans && !leader && self.judge.stopping() {
            self.cover.mark(Mark::Adopted);
        }
        if leader {
            if !execed {
                // All that the master sees is that the child will say no more: as after exec.
                self.cover.mark(Mark::EndedBeforeExec);
                self.report(worker, Event::Execed { worker });
            }
            let last = match killed {
                Some(_) => String::new(),
                None => format!("last words of {pid}"),
            };
            let status = exit;
            let oom = match (exit, killed) {
                (Exit::Signal(SIGKILL), None) => self.rng.pick(&[Oom::No, Oom::Yes, Oom::Probably]),
                _ => Oom::No,
            };
            self.news_of(
                Event::Exited {
                    worker,
                    status,
                    oom,
                    last,
                },
                Some(serial),
            );
        } else if parent == MASTER {
            self.news_of(Event::StrayReaped, Some(serial));
        } else {
            self.gone(serial);
            let waits = self.procs.get(&parent).is_some_and(|p| p.plan.waits);
            if waits {
                self.after(Duration::ZERO, Happening::End(parent, exit));
            }
        }
        if !self.faults.old_kernel {
            self.tell_tree_gone(worker);
        }
    }

    /// It is reaped: nothing of it remains.
    pub fn gone(&mut self, serial: Serial) {
        if let Some(p) = self.procs.remove(&serial) {
            self.tell_tree_gone(p.worker);
        }
    }

    /// The notify fd hangs up when nobody of the tree is left. Where there is none, the shell asks
    /// whether the group is still there, once the leader is reaped.
    fn tell_tree_gone(&mut self, worker: WorkerId) {
        let Some(job) = self.judge.jobs.get(&worker).filter(|j| !j.hung_up) else {
            return;
        };
        let old = self.faults.old_kernel;
        let holds = |p: &Process| match job.watched {
            true => p.worker == worker && (p.lives() || old),
            false => Some(p.group) == job.group,
        };
        let early = !job.watched && job.leader.is_some();
        if early || self.procs.values().any(holds) {
            return;
        }
        if let Some(job) = self.judge.jobs.get_mut(&worker) {
            job.hung_up = true;
            self.news(Event::TreeGone { worker });
        }
    }
}
