//! The only I/O: turns readings into events, asks core, performs what it says. What all of it shares is here; the loop
//! is in `turns`.

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
mod turns;
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

use crate::core::{Action, Ask, Cluster, Event, Level, Time, WorkerId};
use crate::sys::clock;
use crate::sys::lifeline::Lifeline;
use crate::sys::oom::Kills;
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
use pidfile::{PidDir, PidFile};
use probes::Probes;
use procs::Procs;
use relays::Relays;
use reload::{Recipe, Recipes};
use requests::Waiting;
use rights::Rights;
use served::Served;
use signals::Signals;
use sockets::Sockets;
use speech::Speech;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::PathBuf;
use store::Store;
use supervisor::Supervisor;
use takeover::Pending;
use token::{Kind, token};
use watch::Watch;

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
}
