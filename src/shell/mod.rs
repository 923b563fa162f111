//! The only I/O: turns readings into events, asks core, performs what it says. One loop, one poll;
//! nothing else may wait.

mod adopt;
mod ahead;
mod beside;
mod birth;
mod carry;
mod census;
mod cgroups;
mod channel;
pub mod check;
mod checks;
mod clients;
mod coarse;
mod conn;
mod console;
mod custom;
mod daemon;
pub mod deps;
mod doors;
mod ending;
mod environment;
mod events;
mod filed;
mod gatekeeper;
mod given;
mod group;
mod handed;
mod handover;
mod hooks;
mod http;
mod hung;
mod idle;
mod inquiry;
mod jobs;
mod keyfile;
mod launch;
mod log;
mod logs;
mod looking;
mod lookup;
mod mend;
mod messages;
mod metrics;
mod names;
mod observer;
mod open;
mod orphans;
mod ours;
mod output;
mod pause;
mod perform;
mod pidfile;
mod pipe;
mod probes;
mod procs;
mod reap;
mod relays;
mod reload;
mod requests;
mod reread;
mod rest;
mod rights;
mod room;
mod rotation;
mod sending;
mod served;
mod signals;
mod single;
mod sink;
mod sockets;
mod speech;
mod spent;
mod store;
mod stream;
mod takeover;
mod token;
mod trees;
mod unseen;
mod voice;
mod watch;

pub mod client;
pub mod printed;
pub mod start;
pub mod takes_over {
    //! The door of a binary that is to go on where another one was.
    pub use super::handover::{ask, asked, passed, resume};
}
pub mod supervisor;

use crate::core::codes::EX_OSERR;
use crate::core::{Action, Ask, Cluster, Event, LaneId, Level, Time, WorkerId};
use crate::sys::lifeline::Lifeline;
use crate::sys::oom::Kills;
use crate::sys::{clock, process};
use crate::wire::ages::Ages;
use census::Census;
use cgroups::Cgroups;
use channel::Stderr;
use checks::Checks;
use clients::{ClientId, Clients};
use daemon::Caller;
use events::Events;
use gatekeeper::Gatekeeper;
use handover::Handover;
use hooks::Hooks;
use hung::Hung;
use idle::Idling;
use jobs::Jobs;
use launch::Programs;
use log::Log;
use messages::Messages;
use metrics::Metrics;
use mio::unix::SourceFd;
use mio::{Interest, Token};
use names::Claim;
use nix::sys::inotify::Inotify;
use orphans::Orphans;
use ours::Ours;
use output::Output;
use pause::Sleep;
use pidfile::{PidDir, PidFile};
use probes::Probes;
use procs::Procs;
use relays::Relays;
use reload::{Recipe, Recipes};
use requests::Waiting;
use rights::Rights;
use served::Served;
use signals::{Asked, Signals};
use sockets::Sockets;
use speech::Speech;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::time::Duration;
use store::Store;
use supervisor::Supervisor;
use takeover::Pending;
use token::{Kind, token, untoken};
use watch::Watch;

/// A child that has not executed COMMAND by then no longer keeps others from being forked.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// A terminal that takes nothing is tried again after that long, while something waits for it.
const LOG_AGAIN: Duration = Duration::from_millis(200);

/// With nothing to do for that long there is time to give back memory.
const REST: Duration = Duration::from_millis(500);

/// So long the end waits for whoever reads the log.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Everything that has a descriptor, and core.
pub struct Shell {
    cluster: Cluster,
    poll: mio::Poll,
    log: Log,
    events: Events,
    signals: Signals,
    sockets: Sockets,
    /// Tells when a unix lane has lost its name.
    files: Option<Inotify>,
    /// Tells when a path of --watch has changed.
    watch: Option<Watch>,
    procs: Procs,
    stderrs: BTreeMap<WorkerId, Stderr>,
    /// The files of --log-dir.
    output: Option<Output>,
    speech: BTreeMap<WorkerId, Speech>,
    /// What workers say to each other, and to clients.
    messages: Messages,
    pending: BTreeMap<Ask, Pending>,
    next_ask: u64,
    clients: Clients,
    claim: Claim,
    /// --pid-file, until the end.
    pid_file: Option<PidFile>,
    /// --pid-dir, until the end.
    pid_dir: Option<PidDir>,
    /// Who started us as a service, if it wants to hear of us.
    supervisor: Supervisor,
    /// Who typed -d, until the start is over.
    caller: Option<Caller>,
    /// What the workers of each generation are made of that has some.
    recipes: Recipes,
    /// What some slots run instead.
    programs: Programs,
    /// The one that was read again for the reload that begins.
    fresh: Option<Recipe>,
    /// Of those that are being emptied: what is known of their connections.
    census: Census,
    /// How old connections are.
    ages: Ages,
    /// How many connections each worker has served, if that is asked for.
    served: Served,
    /// What was read for /metrics.
    metrics: Metrics,
    /// Who waits for workers that take nobody.
    hung: Hung,
    /// Connections on which nothing moves (--idle-timeout).
    idling: Idling,
    /// Who is asked whether it is ready.
    probes: Probes,
    /// What is asked whether clients may come,
    checks: Checks,
    /// and which connections are of these, and no client's.
    ours: Ours,
    /// Programs of the operator's that run, and that are to,
    jobs: Jobs,
    /// those of them that are told of events,
    hooks: Hooks,
    /// and those that hear what workers say.
    relays: Relays,
    /// Whom the kernel kills for want of memory.
    oom: Kills,
    cgroups: Cgroups,
    /// Workers that live longer than their master,
    orphans: Orphans,
    /// and lanes that do.
    store: Store,
    devnull: OwnedFd,
    /// What children end with when we die.
    lifeline: Lifeline,
    rights: Rights,
    /// The limit of open files that we had: that of workers without --rlimit.
    nofile: Option<(u64, u64)>,
    /// How many descriptors we were born with,
    inherited: u64,
    /// and those of them that are not for us. They stay open: somebody may hold a lock by one (flock(1)).
    not_ours: BTreeSet<RawFd>,
    out: VecDeque<Action>,
    /// Has this turn had its fork? Then the others wait here for the next ones.
    spawned: bool,
    later: VecDeque<Action>,
    queue: VecDeque<Event>,
    /// Ready sources of this turn, and those that a bounded turn left ready.
    ready: BTreeSet<(Kind, u64)>,
    log_watched: bool,
    /// Is our stdout watched, for which answers of our own console wait?
    console_watched: bool,
    said: BTreeSet<&'static str>,
    /// Is something over (the start, a reload, a crowd of clients) that has left what is not needed any more?
    grown: bool,
    /// Children that are no workers and were asked to stop, until they are reaped.
    asked: BTreeSet<i32>,
    /// What everybody was told last, where they have no names.
    told_all: Option<i32>,
    /// Children of the program that executed us, until they are reaped: no worker left them.
    born_with: BTreeSet<i32>,
    /// Addresses whose holder was looked for.
    holders_named: BTreeSet<SocketAddr>,
    /// Strangers have been reaped, in so many turns, and core was not told yet.
    strays_gone: Option<u32>,
    /// Who may do what over HTTP, and over TCP.
    house: Gatekeeper,
    /// The client that was served last.
    served_last: ClientId,
    /// Requests that core has not answered yet.
    waiting: Waiting,
    /// Answers to those who asked for the end: sent when it has come.
    farewells: Vec<(ClientId, bool, u8, String)>,
    finished: Option<u8>,
    /// One that is under way.
    handover: Option<Handover>,
    /// The file that we are executed from, by the name that whoever started us has for it.
    exe: PathBuf,
}

impl Shell {
    fn now(&self) -> Time {
        Time(clock::monotonic())
    }

    /// Runs until core says Finish; returns the exit code.
    fn run(&mut self) -> u8 {
        let mut out = Vec::new();
        self.begin_counting();
        self.open_cgroups();
        self.keep_programs();
        self.begin_orphans();
        self.cluster.begin(Time(clock::monotonic()), &mut out);
        self.out.extend(out);
        self.turns(self.now())
    }

    /// The loop. The first turn counts as begun then.
    fn turns(&mut self, begun: Time) -> u8 {
        let mut events = mio::Events::with_capacity(256);
        let mut woken = begun;
        loop {
            self.settle();
            self.orphans_due();
            self.write_down();
            self.keep_store();
            self.announce_lost();
            self.tell_supervisor();
            self.watch_console();
            if let Some(code) = self.finished
                && self.jobs_let_go()
            {
                self.close_cgroups();
                self.leave();
                return code;
            }
            let timeout = self.timeout();
            if self.grown && timeout.is_none_or(|t| t >= REST) {
                self.grown = false;
                self.out.shrink_to_fit();
                self.queue.shrink_to_fit();
                self.metrics.rest();
                process::give_back_heap();
                process::give_back_text();
            }
            let sleep = Sleep {
                woken,
                since: self.now(),
                timeout,
            };
            let done = self.poll.poll(&mut events, timeout);
            woken = self.now();
            match done {
                Ok(()) => self.has_slept(sleep, false),
                // Stopped and continued, for one: what waits is heard before time is news.
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {
                    self.has_slept(sleep, true);
                    continue;
                }
                Err(e) => {
                    let message = format!("epoll_wait: {e}");
                    self.say(Level::Error, "poll-error", message);
                    return EX_OSERR;
                }
            }
            self.ready
                .extend(events.iter().filter_map(|e| untoken(e.token())));
            let stalled = self.console_stalls().map(|id| (Kind::Client, id.0));
            self.ready.extend(stalled);
            self.turn();
        }
    }

    /// Performs every action and handles every event until neither is left.
    fn settle(&mut self) {
        let mut out = Vec::new();
        loop {
            if let Some(action) = self.out.pop_front() {
                match action {
                    // One fork a turn: workers that run already are blocked in bind(2) meanwhile. And one after the
                    // other: who asks for reloads without end would have his forked before all others.
                    Action::Spawn { .. } if self.crowded() || !self.later.is_empty() => {
                        self.later.push_back(action);
                    }
                    _ => self.perform(action),
                }
            } else if let Some(event) = self.queue.pop_front() {
                self.cluster.handle(event, self.now(), &mut out);
                self.out.extend(out.drain(..));
            } else {
                return;
            }
        }
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

    /// Until when to sleep: not at all while a bounded turn left something, for ever if nothing is due.
    fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() || self.clients.doors.more() || self.metrics.reads() {
            return Some(Duration::ZERO);
        }
        let core = self.cluster.deadline().map(|(at, _)| at);
        let fork = (!self.later.is_empty()).then(|| self.way_is_free());
        let stalls = self.log_stalls() || self.console_stalls().is_some();
        let again = stalls.then(|| self.now() + LOG_AGAIN);
        let all = core
            .into_iter()
            .chain(self.clients.deadline())
            .chain(self.house.deadline())
            .chain(fork)
            .chain(again)
            .chain(self.watch_deadline())
            .chain(self.messages.deadline())
            .chain(self.probes.deadline())
            .chain(self.checks.deadline())
            .chain(self.jobs.deadline())
            .chain(self.idling.deadline())
            .chain(self.handover_deadline())
            .chain(self.served.deadline())
            .chain(self.orphans.deadline())
            .chain(self.store_deadline())
            .chain(self.supervisor.deadline())
            .chain(self.output.as_ref().and_then(Output::deadline));
        let next = all.min()?;
        // The poll has milliseconds: rounded up, or the last one would be spent spinning.
        let wait = next - self.now();
        Some(wait.div_ceil_ms())
    }

    /// One turn, in fixed order: the signal flags are read first, so that a child's end is acted
    /// on in the turn that announced it; reports before notifications, since a worker's listener
    /// comes by report; calls of blocked workers before everything that can wait.
    fn turn(&mut self) {
        let ready = std::mem::take(&mut self.ready);
        let of = |kind: Kind| -> Vec<u64> {
            let pick = |(k, n): &(Kind, u64)| (*k == kind).then_some(*n);
            ready.iter().filter_map(pick).collect()
        };
        if !of(Kind::Signals).is_empty() {
            self.signals.drain();
        }
        for n in of(Kind::Report) {
            self.hear_report(WorkerId(n));
            self.settle();
        }
        for n in of(Kind::Takeover) {
            self.hear_calls(WorkerId(n));
        }
        for n in of(Kind::Lane) {
            self.heal_lane(LaneId(n));
        }
        if !of(Kind::Files).is_empty() {
            self.files_changed();
        }
        self.ends_due(!of(Kind::Served).is_empty());
        self.settle();
        if !of(Kind::Watch).is_empty() {
            self.hear_watch();
        }
        if self.signals.take_child() && self.reap() {
            self.signals.again();
            self.ready.insert((Kind::Signals, 0));
        }
        if !of(Kind::Caller).is_empty() {
            self.hear_caller();
        }
        for n in of(Kind::Orphan) {
            self.orphan_ended(WorkerId(n));
        }
        for asked in self.signals.take_asked() {
            match asked {
                Asked::Reopen => drop(self.reopen_logs()),
                Asked::Reload(why) => self.reload_for(None, why),
                Asked::Handover(why) => self.hand_over_for_signal(why),
                Asked::Core(signal) => self.queue.push_back(Event::Signal(signal)),
            }
            self.settle();
        }
        for n in of(Kind::Notify) {
            self.hear_datagrams(WorkerId(n));
        }
        self.hear_channels(&of(Kind::Ipc));
        for n in of(Kind::Probe) {
            self.hear_probe(WorkerId(n));
        }
        self.probes_due();
        for n in of(Kind::Check) {
            self.hear_check(n);
        }
        self.checks_due();
        for n in of(Kind::Newline) {
            self.hear_newline(WorkerId(n));
        }
        self.hear_output(&of(Kind::Stderr));
        self.keep_programs();
        self.hear_jobs(&of(Kind::Job));
        if !of(Kind::OurStderr).is_empty() || self.log_stalls() {
            self.log.flush();
            self.watch_log();
        }
        self.spawned = false;
        self.forget_unwanted();
        if !self.crowded()
            && let Some(action) = self.later.pop_front()
        {
            self.perform(action);
            self.settle();
        }
        self.begin_job();
        // Time is news, too; told once a turn, whatever else there was.
        self.queue.push_back(Event::Tick);
        self.settle();
        self.watch_due();
        self.idle_due();
        if !self.cluster.drains() {
            self.census.rest();
        }
        self.keep_streams_alive();
        // Before others ask: of whom the first begins anew.
        self.read_on();
        self.tell_lines();
        self.serve_clients(!of(Kind::Door).is_empty(), &of(Kind::Client));
        self.post();
        self.handover_due();
    }

    fn register(&mut self, fd: BorrowedFd<'_>, token: Token) {
        self.register_raw(fd.as_raw_fd(), token);
    }

    /// By its number: it is of something that we hold.
    fn register_raw(&mut self, raw: RawFd, token: Token) {
        let done = self
            .poll
            .registry()
            .register(&mut SourceFd(&raw), token, Interest::READABLE);
        if let Err(e) = done {
            self.say(Level::Error, "poll-error", format!("epoll_ctl: {e}"));
        }
    }

    /// Before the close: afterwards the number may be another's.
    fn deregister(&self, fd: BorrowedFd<'_>) {
        let raw = fd.as_raw_fd();
        let _ = self.poll.registry().deregister(&mut SourceFd(&raw));
    }

    /// The end, in the order that a waiting `stop && start` relies on: the ports are free and the
    /// name is given back before anybody is told.
    fn leave(&mut self) {
        self.empty_store();
        self.sockets.close_all();
        self.leave_no_orphan();
        self.claim.release();
        self.pid_dir = None;
        self.pid_file = None;
        for (client, ours, code, text) in std::mem::take(&mut self.farewells) {
            match self.clients.speaks_http(client) {
                true => self.answer_asked(client, code, &text),
                false => {
                    let text = requests::framed(ours, code, text);
                    self.clients.answer(client, &text, true);
                }
            }
        }
        let left = self.cluster.over_by().map(|at| at - self.now());
        self.log
            .finish(left.map_or(LAST_LINES, |t| t.min(LAST_LINES)));
    }
}

trait CeilMs {
    fn div_ceil_ms(self) -> Duration;
}

impl CeilMs for Duration {
    fn div_ceil_ms(self) -> Duration {
        let ms = self.as_nanos().div_ceil(1_000_000);
        Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!(
            Duration::from_nanos(1).div_ceil_ms(),
            Duration::from_millis(1)
        );
        assert_eq!(Duration::ZERO.div_ceil_ms(), Duration::ZERO);
        assert_eq!(
            Duration::from_millis(7).div_ceil_ms(),
            Duration::from_millis(7)
        );
    }
}
