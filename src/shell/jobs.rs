//! Programs that the operator has us run: each a child with a deadline, or (`coprocess`) one that lives as
//! long as we do. Rules:
//!
//! 1. At most `MOST` run at once, and the one of --ecv-validator, which waits for nobody; others wait for
//!    their turn (`line`).
//! 2. A job has ended when its first process has: what is in its pipes by then is the last of it. What it
//!    has left behind is a stray, as what a worker leaves.
//! 3. At its deadline its group gets a SIGTERM, so that a script can tidy up, and `GRACE` later, or when
//!    its first process ends, a SIGKILL. One that not even that ends is given up; who asked is told.
//! 4. In the end the master waits for jobs no longer than `LAST`, within --stop-budget. Those that wait
//!    are not begun, and those that run are killed.
//! 5. While a job runs it is no stray, nor is any process of its group.
//!
//! Nobody but `reap` waits for children; it asks here whose they are.

mod allowance;
mod child;
mod coprocess;
mod end;
mod kept;
mod line;
mod mail;
mod queue;
pub mod variables;

use super::{Kind, Shell};
use crate::core::codes::{CANNOT_EXECUTE, EX_OSERR};
use crate::core::words::errno_text;
use crate::core::{Asker, Exit, Level, Time};
use crate::sys::{procfs, signal};
use crate::wire::deps;
use crate::wire::ran::{End, Ran};
pub use child::OURSELVES;
use child::{Birth, Came, Child, Pipe};
use coprocess::Coprocess;
use end::Closing;
pub use end::LAST;
use kept::{Head, Tail};
pub use line::Waits;
use line::{Line, MOST_WAITING};
use mail::Mail;
pub use queue::Lossy;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// So many run at once.
pub const MOST: usize = 20;
/// Descriptors that one takes: its pipes, and what it reports by on its way.
pub const DESCRIPTORS: u64 = 4;
/// So much of what one writes is kept.
pub const MAX_OUT: usize = 1024 * 1024;
/// So much of the end of its stderr,
const MAX_ERR: usize = 4096;
/// and no more lines of it.
const LINES: usize = 10;
/// After the deadline it has so long to end by itself.
const GRACE: Duration = Duration::from_secs(1);

/// What is to be run.
#[derive(Serialize, Deserialize)]
pub struct Order {
    /// As it is named where it is told of.
    pub name: String,
    /// The program and its words.
    #[serde(with = "crate::core::carry::paths")]
    pub words: Vec<OsString>,
    /// Where.
    #[serde(with = "crate::core::carry::paths")]
    pub cwd: PathBuf,
    /// Variables of its own.
    #[serde(with = "crate::shell::carry")]
    pub variables: Vec<(String, Vec<u8>)>,
    /// What it has to read.
    #[serde(with = "crate::shell::carry")]
    pub stdin: Vec<u8>,
    /// Do its stdout and stderr go together?
    pub merged: bool,
    /// How long it may take; `None`: as long as it likes.
    pub limit: Option<Duration>,
    /// Is it our own executable, by the first of these words, and what it writes the whole answer?
    pub ours: bool,
}

/// For whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// An event, by the serial of its hook.
    Hook(u64),
    /// A verb, and who waits for what comes of it.
    Verb(Option<Asker>),
    /// --ecv-validator. There is one at most.
    Check,
    /// The binary that is to take over is asked whether it can, by that serial. It waits for nobody.
    Handover(u64),
}

/// How far one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stage {
    /// It has time.
    Runs,
    /// It was asked to end.
    Asked,
    /// It was killed.
    Killed,
}

/// One that runs.
#[derive(Serialize, Deserialize)]
struct Job {
    child: Child,
    purpose: Purpose,
    name: String,
    #[serde(with = "crate::core::carry::paths")]
    cwd: PathBuf,
    limit: Option<Duration>,
    begun: Time,
    stage: Stage,
    /// Was that because we end?
    stopped: bool,
    due: Option<Time>,
    stdin: Mail,
    out: Head,
    err: Tail,
    ours: bool,
}

/// All of them.
#[derive(Default, Serialize, Deserialize)]
pub struct Jobs {
    running: BTreeMap<u64, Job>,
    /// Those that live as long as we do.
    coprocesses: BTreeMap<u64, Coprocess>,
    waiting: Line,
    last: u64,
    /// Killed, given up, and not reaped.
    stuck: BTreeSet<i32>,
    /// So many were refused since there was room.
    refused: u64,
    #[serde(skip)]
    closing: Option<Closing>,
    /// Is none begun any more?
    closed: bool,
}

impl Jobs {
    /// The number that the next line has for that one that lives as long as we do.
    pub fn next_line(&self, id: u64) -> u64 {
        self.coprocesses.get(&id).map_or(1, |c| c.told() + 1)
    }

    /// Does it keep up?
    pub fn is_at_ease(&self, id: u64) -> bool {
        self.coprocesses.get(&id).is_some_and(Coprocess::is_at_ease)
    }

    /// Is that the first process of one?
    fn by_pid(&self, pid: i32) -> Option<u64> {
        let hit = |(_, job): &(&u64, &Job)| job.child.pid == pid;
        self.running.iter().find(hit).map(|(id, _)| *id)
    }

    /// Is that child one of them, or of the group of one?
    pub fn owns(&self, pid: i32) -> bool {
        let lives = |pid: i32| self.coprocesses.values().any(|c| c.pid() == Some(pid));
        let runs = |pid: i32| self.by_pid(pid).is_some() || lives(pid);
        let ours = |pid: i32| self.stuck.contains(&pid) || runs(pid);
        ours(pid) || self.run() && procfs::group_of(pid).is_some_and(ours)
    }

    /// Does one run?
    pub fn run(&self) -> bool {
        !self.running.is_empty() || !self.coprocesses.is_empty()
    }

    /// Does none run, or is to?
    pub fn are_over(&self) -> bool {
        !self.run() && (self.waiting.is_empty() || self.closed)
    }

    /// When something is to be done about them by the clock.
    pub fn deadline(&self) -> Option<Time> {
        let due = self.running.values().filter_map(|job| job.due);
        let closing = self.closing.map(|c| match self.closed {
            true => c.over,
            false => c.kill_at,
        });
        let lasting = self.coprocesses.values().filter_map(Coprocess::due);
        let waiting = self.waiting.deadline();
        due.chain(lasting).chain(closing).chain(waiting).min()
    }

    /// For how many of them does a client wait?
    pub fn awaited(&self) -> usize {
        let running = self.running.values().map(|job| job.purpose);
        let waiting = self.waiting.iter().map(|w| w.purpose);
        let asked = |p: &Purpose| matches!(p, Purpose::Verb(Some(_)));
        running.chain(waiting).filter(asked).count()
    }

    /// How many are our own, begun or not?
    pub fn looks(&self) -> usize {
        let running = self.running.values().filter(|job| job.ours);
        running.count() + self.waiting.iter().filter(|w| w.order.ours).count()
    }

    /// Who is to be run now.
    fn next(&mut self) -> Option<Waits> {
        if self.closed {
            return None;
        }
        let of_hooks = |job: &&Job| matches!(job.purpose, Purpose::Hook(_));
        let hooks = self.running.values().filter(of_hooks).count();
        let of_verbs = |job: &&Job| matches!(job.purpose, Purpose::Verb(_));
        let verbs = self.running.values().filter(of_verbs).count();
        self.waiting.next(hooks, verbs, self.stuck.len())
    }

    /// Nobody wants to know any more what the validator says: its time is over.
    pub fn hurry_validator(&mut self, now: Time) -> Option<Waits> {
        self.hurry(Purpose::Check, now);
        self.waiting.take_check()
    }

    /// If it runs, its time is over.
    pub fn hurry(&mut self, purpose: Purpose, now: Time) {
        let of_it = |job: &&mut Job| job.purpose == purpose && job.stage == Stage::Runs;
        if let Some(job) = self.running.values_mut().find(of_it) {
            job.due = Some(now);
        }
    }

    /// The serial of the next one that begins.
    pub fn next_serial(&self) -> u64 {
        self.last + 1
    }

    /// Nobody waits for it any more: one that may take for ever has so long from now on, or it would keep
    /// its place from others for ever.
    pub fn nobody_waits(&mut self, asker: Asker, limit: Duration, now: Time) {
        self.waiting.limit(asker, limit, now);
        let of_it = |job: &&mut Job| {
            job.purpose == Purpose::Verb(Some(asker)) && job.limit.is_none() && job.due.is_none()
        };
        if let Some(job) = self.running.values_mut().find(of_it) {
            (job.limit, job.due) = (Some(limit), Some(now + limit));
        }
    }
}

impl Job {
    /// Its first process has not been reaped, so its number is certainly its group's.
    fn signal(&self, signal: i32) {
        let _ = signal::kill_group(self.child.pid, signal);
        // It may have left its group.
        let _ = signal::kill(self.child.pid, signal);
    }

    fn kill(&mut self, now: Time) {
        self.stage = Stage::Killed;
        self.due = Some(now + GRACE);
        self.signal(libc::SIGKILL);
    }

    fn has_ended(self, end: End, now: Time) -> (Purpose, Ran) {
        let (out, cut) = self.out.text();
        let ran = Ran {
            name: self.name,
            end,
            out,
            cut,
            last: self.err.lines(LINES),
            took: now - self.begun,
            whole: self.ours,
        };
        (self.purpose, ran)
    }
}

impl Shell {
    /// It is run as soon as there is room; `job_done` tells what has come of it. False: too many wait.
    pub(super) fn run_job(&mut self, purpose: Purpose, order: Order) -> bool {
        if self.jobs.closed {
            // That they are cut short in the end is said by who has them.
            return false;
        }
        let (now, name) = (self.now(), order.name.clone());
        if !self.jobs.waiting.push(purpose, order, now) {
            self.jobs.refused += 1;
            if self.jobs.refused == 1 {
                let message = format!(
                    "as many programs run as may, and {MOST_WAITING} wait: others are refused, {name} for one"
                );
                self.say_of_program(Level::Warn, "program-refused", &name, message);
            }
            return false;
        }
        self.ready.insert((Kind::Job, START));
        true
    }

    /// What is wanted of those that run: told by the poll, or left over.
    pub(super) fn hear_jobs(&mut self, ready: &[u64]) {
        for serial in ready.iter().copied().filter(|n| *n != START) {
            self.hear_job(serial);
        }
        self.jobs_due();
    }

    fn hear_job(&mut self, serial: u64) {
        let (id, pipe) = child::of_serial(serial);
        let Some(pipe) = pipe else { return };
        if self.hear_coprocess(id, pipe) {
            return;
        }
        let Some(job) = self.jobs.running.get_mut(&id) else {
            return;
        };
        if pipe == Pipe::Stdin {
            return self.feed_job(id);
        }
        match job.take(pipe) {
            Came::All => {}
            Came::More => drop(self.ready.insert((Kind::Job, serial))),
            Came::End => self.with_job(id, |shell, job| shell.close_pipe(&mut job.child, pipe)),
        }
    }

    /// It is given what it has to read; the end of that is the end of its stdin.
    fn feed_job(&mut self, id: u64) {
        self.with_job(id, |shell, job| {
            let Job { child, stdin, .. } = job;
            let read = stdin.give(|some| child.write_some(some));
            if read.is_err() || stdin.len() == 0 {
                shell.close_pipe(child, Pipe::Stdin);
            }
        });
    }

    fn with_job(&mut self, id: u64, what: impl FnOnce(&mut Shell, &mut Job)) {
        if let Some(mut job) = self.jobs.running.remove(&id) {
            what(self, &mut job);
            self.jobs.running.insert(id, job);
        }
    }

    /// Nobody wants to know what the validator says.
    pub(super) fn hurry_validator(&mut self) {
        if let Some(Waits { purpose, order, .. }) = self.jobs.hurry_validator(self.now()) {
            self.job_done(purpose, Ran::not_begun(order.name, End::Stopped));
        }
    }

    /// Begins one, if one is to: no more in one turn, since workers may wait in bind(2).
    pub(super) fn begin_job(&mut self) {
        let Some(Waits { purpose, order, by }) = self.jobs.next() else {
            return;
        };
        if !self.jobs.waiting.is_empty() {
            self.ready.insert((Kind::Job, START));
        }
        self.say_refused();
        let exe = order.ours.then_some(Path::new(child::OURSELVES));
        self.run_now(Waits { purpose, order, by }, exe, (&[], &[]));
    }

    /// What that is executes, if not what it says first; and it has these descriptors of ours, and the numbers of
    /// those.
    pub(super) fn run_now(
        &mut self,
        one: Waits,
        exe: Option<&Path>,
        (keep, hollow): (&[RawFd], &[RawFd]),
    ) {
        let Waits { purpose, order, by } = one;
        self.jobs.last += 1;
        let id = self.jobs.last;
        let born = self.give_birth(&Birth {
            job: id,
            words: &order.words,
            cwd: &order.cwd,
            own: &order.variables,
            reads: !order.stdin.is_empty(),
            merged: order.merged,
            exe,
            keep,
            hollow,
        });
        let now = self.now();
        match born {
            Ok(child) => {
                let job = Job {
                    child,
                    purpose,
                    name: order.name,
                    limit: order.limit,
                    begun: now,
                    stage: Stage::Runs,
                    stopped: false,
                    due: by.or(order.limit.map(|limit| now + limit)),
                    cwd: order.cwd,
                    stdin: Mail::of(order.stdin),
                    out: Head::new(match order.ours {
                        true => deps::MAX_ANSWER,
                        false => MAX_OUT,
                    }),
                    err: Tail::new(MAX_ERR),
                    ours: order.ours,
                };
                self.jobs.running.insert(id, job);
                self.feed_job(id);
            }
            Err((code, why)) => {
                let ran = Ran::not_begun(order.name, End::NotRun(code, why));
                self.job_done(purpose, ran.whole_if(order.ours));
            }
        }
    }

    fn say_refused(&mut self) {
        if self.jobs.refused > 0 {
            let n = std::mem::take(&mut self.jobs.refused);
            let message = format!("there is room for programs again; {n} were refused");
            self.say(Level::Info, "program-room", message);
        }
    }

    /// Is it the first process of a job, whose end is told by that? It is a zombie still.
    pub(super) fn job_ended(&mut self, pid: i32, exit: Exit) -> bool {
        if self.coprocess_ended(pid, exit) {
            return true;
        }
        let Some(id) = self.jobs.by_pid(pid) else {
            // Its end was told when it was given up.
            return self.jobs.stuck.remove(&pid);
        };
        let Some(mut job) = self.jobs.running.remove(&id) else {
            return false;
        };
        for pipe in [Pipe::Stdout, Pipe::Stderr] {
            job.take_rest(pipe);
        }
        if job.stage != Stage::Runs {
            // Whom it has left there had their time with it.
            let _ = signal::kill_group(pid, libc::SIGKILL);
        }
        self.close_pipes(&job.child);
        let failure = job.child.failure();
        let end = match (failure, job.stage, job.limit) {
            (Some((step, errno)), ..) => not_run(step, errno, &job.cwd),
            (None, Stage::Runs, _) => End::Exited(exit),
            (None, Stage::Asked | Stage::Killed, Some(limit)) if !job.stopped => {
                End::TooLong(limit)
            }
            (None, Stage::Asked | Stage::Killed, _) => End::Stopped,
        };
        let (purpose, ran) = job.has_ended(end, self.now());
        self.job_done(purpose, ran);
        if !self.jobs.waiting.is_empty() {
            self.ready.insert((Kind::Job, START));
        }
        true
    }

    /// Deadlines that have come.
    fn jobs_due(&mut self) {
        let now = self.now();
        let late = |(id, job): (&u64, &Job)| job.due.is_some_and(|at| at <= now).then_some(*id);
        let due: Vec<u64> = self.jobs.running.iter().filter_map(late).collect();
        for id in due {
            let Some(job) = self.jobs.running.get_mut(&id) else {
                continue;
            };
            match job.stage {
                Stage::Runs => {
                    job.stage = Stage::Asked;
                    job.due = Some(now + GRACE);
                    job.signal(libc::SIGTERM);
                    // One that is stopped hears nothing.
                    job.signal(libc::SIGCONT);
                }
                Stage::Asked => job.kill(now),
                Stage::Killed => self.give_up_job(id),
            }
        }
        for Waits { purpose, order, .. } in self.jobs.waiting.overdue(now) {
            let limit = order.limit.unwrap_or_default();
            let ran = Ran::not_begun(order.name, End::NotBegun(limit));
            self.job_done(purpose, ran.whole_if(order.ours));
        }
        self.coprocesses_due();
        if let Some(c) = self.jobs.closing.filter(|c| c.kill_at <= now)
            && !self.jobs.closed
        {
            self.kill_jobs(c.kill_at);
        }
    }

    /// It is in the kernel, and does not come back.
    fn give_up_job(&mut self, id: u64) {
        let Some(job) = self.jobs.running.remove(&id) else {
            return;
        };
        self.close_pipes(&job.child);
        let (pid, name) = (job.child.pid, job.name.clone());
        self.jobs.stuck.insert(pid);
        let message = format!(
            "{name}, pid {pid}, is still there {} after SIGKILL; it is not waited for",
            crate::core::words::human(GRACE)
        );
        self.say_of_program(Level::Warn, "program-stuck", &name, message);
        let end = match job.limit.filter(|_| !job.stopped) {
            Some(limit) => End::TooLong(limit),
            None => End::Stopped,
        };
        let (purpose, ran) = job.has_ended(end, self.now());
        self.job_done(purpose, ran);
    }

    /// What has come of one.
    fn job_done(&mut self, purpose: Purpose, ran: Ran) {
        match purpose {
            Purpose::Hook(id) => self.hook_done(id, &ran),
            Purpose::Verb(asker) => self.verb_done(asker, &ran),
            Purpose::Check => self.validator_done(&ran),
            Purpose::Handover(serial) => self.asked_the_new_one(serial, &ran),
        }
    }
}

/// So often it is read what the largest pipe that anybody may have can hold.
const ROUNDS: usize = 8;

/// The serial that means: begin the next.
const START: u64 = 0;

impl Job {
    fn take(&mut self, pipe: Pipe) -> Came {
        let Job {
            child, out, err, ..
        } = self;
        match pipe {
            Pipe::Stdout => child.read(pipe, |bytes| out.push(bytes)),
            Pipe::Stderr => child.read(pipe, |bytes| err.push(bytes)),
            Pipe::Stdin => Came::All,
        }
    }

    /// What is there now; somebody else may go on writing.
    fn take_rest(&mut self, pipe: Pipe) {
        for _ in 0..ROUNDS {
            if self.take(pipe) != Came::More {
                return;
            }
        }
    }
}

fn not_run(step: &str, errno: i32, cwd: &Path) -> End {
    let why = errno_text(errno);
    if step == "chdir" {
        let why = format!("cannot be run in {}: {why}", cwd.display());
        return End::NotRun(CANNOT_EXECUTE, why);
    }
    let code = crate::core::codes::of_step(step, errno).unwrap_or(EX_OSERR);
    End::NotRun(code, format!("cannot be run: {step}: {why}"))
}
