//! From a checked command line to a running cluster. Order, and why: our own descriptors are
//! sealed first, so that nothing we were born with reaches a worker; users, files of variables and
//! COMMAND are looked up before anything is bound or written; signals are ours before the first child can end.

use super::census::Census;
use super::cgroups::Cgroups;
use super::checks::Checks;
use super::clients::{ClientId, Clients};
use super::daemon::{self, Caller};
use super::events::Events;
use super::gatekeeper::Gatekeeper;
use super::given::{self, Passed};
use super::hooks::Hooks;
use super::hung::Hung;
use super::idle::Idling;
use super::jobs::Jobs;
use super::launch::Programs;
use super::log::Log;
use super::messages::Messages;
use super::metrics::Metrics;
use super::names::{Claim, Refused};
use super::orphans::{Estate, Orphans};
use super::ours::Ours;
use super::output::Output;
use super::pidfile::{PidDir, PidFile};
use super::probes::Probes;
use super::procs::Procs;
use super::relays::Relays;
use super::reload::{Recipe, Recipes};
use super::requests::Waiting;
use super::rights::Rights;
use super::room::Room;
use super::served::Served;
use super::signals::Signals;
use super::sockets::Sockets;
use super::store::{self, Store};
use super::supervisor::Supervisor;
use super::watch::Watch;
use super::{Kind, Shell, ahead, client, coarse, handover, lookup, single, token, unseen};
use crate::core::codes::{EX_CANTCREAT, EX_OSERR, EX_TEMPFAIL, EX_USAGE, FAILED, Failure};
use crate::core::words::{human, reason};
use crate::core::{Addr, Cluster, Given, Level, Time};
use crate::settings::{Control, Settings};
use crate::sys::lifeline::Lifeline;
use crate::sys::oom::Kills;
use crate::sys::{clock, closer, cpus, fds, process, procfs};
use crate::wire::ages::Ages;
use mio::unix::SourceFd;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Runs the cluster; returns the exit code.
pub fn run(settings: Settings) -> Result<u8, Failure> {
    let supervisor = Supervisor::from_environment(process::id().unsigned_abs());
    let ended = start(settings, &supervisor);
    if let Err((code, why)) = &ended {
        supervisor.failed(*code, why);
    }
    ended
}

fn start(mut settings: Settings, supervisor: &Supervisor) -> Result<u8, Failure> {
    if settings.replace
        && let Some(code) = client::replace(&settings)?
    {
        return Ok(code);
    }
    // While we are who we were when we were executed, and before anything of ours is open.
    let passed = Passed::from_environment(std::process::id())?;
    let rights = Rights::find(&settings, &|path| std::fs::File::open(path))?;
    let here = procfs::working_directory().map_err(os("cannot tell the working directory"))?;
    let given = given::all(&settings, &rights, &passed, &here)?;
    settings.sources.here.clone_from(&here);
    let found = Found {
        rights,
        here,
        given,
        left: passed.left(),
        supervisor: supervisor.again(),
    };
    match settings.daemon && !settings.single {
        true => daemon::run(settings, found),
        false => serve(settings, found, &mut None),
    }
}

/// What was found out before the first fork.
pub(super) struct Found {
    rights: Rights,
    here: PathBuf,
    /// What is to be open, and which descriptors were passed for that.
    pub given: Vec<Given>,
    /// Lanes that a master of ours has left in a store.
    pub left: Vec<OwnedFd>,
    /// Who started us as a service, if anybody has.
    supervisor: Supervisor,
}

/// The same, in the process that is to be the master. Who waits for a daemon to be ready is taken
/// when nothing but its workers can fail any more, and told the end if there was no such moment.
pub(super) fn serve(
    mut settings: Settings,
    found: Found,
    caller: &mut Option<Caller>,
) -> Result<u8, Failure> {
    process::keep_little_heap();
    if settings.workers.is_none() {
        settings.workers = ahead::web_concurrency()?;
    }
    let forks = settings.check_workers(settings.wanted(cpus::usable()));
    forks.map_err(|why| (EX_USAGE, why))?;
    let cut = ahead::what_is_cut(&settings);
    settings.stop_budget.get_or_insert_with(ahead::usual_budget);
    ahead::make_absolute(&mut settings);
    if !settings.single {
        // Who takes our place has what we have.
        fds::seal_inherited();
    }
    let Found {
        rights,
        here,
        given,
        left,
        supervisor,
    } = found;
    let (cwd, program) = ahead::with_their_eyes(&settings, &rights, &here)?;
    if settings.single {
        return Err(single::run(&settings, &rights, &program, &cwd, &given));
    }
    lookup::check_programs(&settings, &here)?;
    ahead::check_ready_fd(&settings, given.len())?;
    ahead::check_ready_port(&settings, &given)?;
    let mut shell = build(settings, rights, program, &cwd, given, left)?;
    shell.exe = handover::our_name(&here);
    shell.supervisor = supervisor;
    if let Some(caller) = caller.take() {
        shell.become_daemon(caller);
    }
    shell.say_short_delay();
    if let Some(message) = cut {
        shell.say(Level::Warn, "stop-cut", message);
    }
    shell.meet_supervisor();
    let code = shell.run();
    if let Some(caller) = shell.caller.take() {
        // Asked to stop it did as it was told, but nobody was ever served.
        caller.tell(if code == 0 { FAILED } else { code });
    }
    Ok(code)
}

fn os(what: &str) -> impl FnOnce(std::io::Error) -> Failure + '_ {
    move |e| (EX_OSERR, format!("{what}: {}", reason(&e)))
}

fn build(
    settings: Settings,
    rights: Rights,
    program: CString,
    cwd: &Path,
    given: Vec<Given>,
    left: Vec<OwnedFd>,
) -> Result<Shell, Failure> {
    if rights.are_anothers() {
        closer::beware();
    }
    let (nofile, inherited) = (process::nofile(), fds::count());
    let not_ours = not_ours(&settings, &given);
    let ipc = ahead::speaks_node(&settings, &program, cwd);
    let lifeline = Lifeline::new().map_err(os("pipe"))?;
    let room = Room::of(&settings, ipc, given.len(), inherited).and(lifeline.cost());
    room.check(settings.wanted(cpus::usable()))?;
    process::raise_nofile();
    let signals = Signals::install(&settings.on_signal).map_err(os("cannot handle signals"))?;
    let watch = Watch::open(&settings)?;
    // First of all that is taken: who comes second leaves no trace.
    let pid_file = settings
        .pid_file
        .as_deref()
        .map(PidFile::of_master)
        .transpose()?;
    let pid_dir = settings.pid_dir.as_deref().map(PidDir::open).transpose()?;
    let mut output = Output::open(&settings)?;
    let mut log = Log::open(&settings)?;
    warn_of_kernel(&mut log);
    // What may be wrong in the files of others is found before the name is taken, which leaves a lock.
    let house = Gatekeeper::of(&settings)?;
    let claim = take_name(&settings, &mut log, &mut output)?;
    let devnull = fds::null().map_err(os("/dev/null"))?;
    let store = Store::from_environment(settings.balance().spreads(), &left);
    let (cluster, sockets, orphans) = {
        let about = (&settings, cwd, &rights, &room);
        inherit(about, claim.record(), given, left, &mut log)
    };
    let recipe = Recipe {
        ipc,
        program,
        cwd: CString::new(cwd.as_os_str().as_bytes()).unwrap_or_default(),
        rights: rights.clone(),
        settings,
    };
    let programs = Programs::new(&recipe.settings);
    let mut shell = Shell {
        recipes: Recipes::new(cluster.generation(), recipe),
        cluster,
        orphans,
        store,
        poll: mio::Poll::new().map_err(os("cannot poll"))?,
        log,
        events: Events::begun(clock::wall()),
        signals,
        sockets,
        files: None,
        watch,
        procs: Procs::default(),
        stderrs: BTreeMap::new(),
        output,
        speech: BTreeMap::new(),
        messages: Messages::default(),
        pending: BTreeMap::new(),
        next_ask: 0,
        clients: Clients::default(),
        house,
        claim,
        pid_file,
        pid_dir,
        supervisor: Supervisor::default(),
        caller: None,
        programs,
        fresh: None,
        census: Census::default(),
        served: Served::default(),
        metrics: Metrics::default(),
        oom: Kills::from_now(Path::new("/")),
        cgroups: Cgroups::default(),
        devnull,
        lifeline,
        rights,
        nofile,
        inherited,
        not_ours,
        hung: Hung::default(),
        idling: Idling::default(),
        ages: Ages::default(),
        probes: Probes::default(),
        checks: Checks::default(),
        ours: Ours::default(),
        jobs: Jobs::default(),
        hooks: Hooks::default(),
        relays: Relays::default(),
        out: VecDeque::new(),
        spawned: false,
        later: VecDeque::new(),
        queue: VecDeque::new(),
        ready: BTreeSet::new(),
        log_watched: false,
        console_watched: false,
        said: BTreeSet::new(),
        grown: true,
        asked: BTreeSet::new(),
        told_all: None,
        born_with: procfs::children(process::id()).into_iter().collect(),
        holders_named: BTreeSet::new(),
        strays_gone: None,
        served_last: ClientId(0),
        waiting: Waiting::default(),
        farewells: Vec::new(),
        finished: None,
        handover: None,
        exe: PathBuf::new(),
    };
    shell.watch_signals();
    shell.register_watch().map_err(os("cannot poll"))?;
    if let Err(e) = shell.open_monitor().and_then(|()| shell.open_door()) {
        shell.claim.release();
        return Err(e);
    }
    shell.open_own_console();
    Ok(shell)
}

impl Shell {
    /// Who relies on a delay is to know that it is shorter before it is needed.
    fn say_short_delay(&mut self) {
        let (asked, has) = (self.settings().drain_delay, self.cluster.delay_of_stop());
        if has < asked {
            let budget = self.settings().stop_budget.unwrap_or_default();
            let message = format!(
                "--drain-delay {} will be cut to {}: it has no more than a third of --stop-budget, which is {}; raise that, and the grace period of whoever stops us",
                human(asked),
                human(has),
                human(budget)
            );
            self.say(Level::Warn, "drain-delay-cut", message);
        }
    }
}

/// What this kernel, or who started us, withholds.
fn warn_of_kernel(log: &mut Log) {
    if let Err(e) = process::become_subreaper() {
        let why = reason(&e);
        let message =
            format!("cannot become subreaper: {why}; what workers leave behind is not seen");
        log.say(Level::Warn, "no-subreaper", message);
    }
    if !procfs::is_ours() {
        log.say(Level::Warn, "no-proc", unseen::warning());
    }
    if let Some(message) = coarse::unsteered() {
        log.say(Level::Warn, "no-steering", message);
    }
}

/// The name, or why it cannot be had; then the log is under it, too.
fn take_name(
    settings: &Settings,
    log: &mut Log,
    output: &mut Option<Output>,
) -> Result<Claim, Failure> {
    let mut warnings = Vec::new();
    let mut claim = Claim::take(settings, &mut warnings).map_err(|refused| match refused {
        Refused::Taken(why) => (EX_TEMPFAIL, why),
        Refused::InTheWay(why) => (EX_CANTCREAT, why),
    })?;
    log.set_name(&claim.name);
    if let Some(Err(e)) = output.as_mut().map(|o| o.begin(&claim.name)) {
        claim.release();
        return Err(e);
    }
    for w in warnings {
        log.say(Level::Warn, "no-control", w);
    }
    Ok(claim)
}

/// The cluster, with what the last master of that name has left.
fn inherit(
    (settings, cwd, rights, room): (&Settings, &Path, &Rights, &Room),
    record: Option<PathBuf>,
    given: Vec<Given>,
    left: Vec<OwnedFd>,
    log: &mut Log,
) -> (Cluster, Sockets, Orphans) {
    let asked: Vec<Addr> = given.iter().map(|g| g.addr.clone()).collect();
    let mut found = store::found(left, &asked);
    let about = (settings, cwd, given.as_slice());
    let mut estate = Estate::look(record.as_deref(), about, rights, &mut found);
    if let Some(said) = estate.clear_the_way(settings, rights) {
        log.say(Level::Warn, "orphans", said);
    }
    let now = Time(clock::monotonic());
    // Jitter wants no better seed than when and who we are.
    let seed = now.0 ^ (u64::from(std::process::id()) << 32);
    let mut policy = settings.policy(cpus::usable(), seed, given);
    let cpus = cpus::allowed().unwrap_or_default().into_iter();
    policy.cpus = cpus.filter_map(|cpu| u16::try_from(cpu).ok()).collect();
    policy.learn_from = rights.learn_from();
    policy.most = room.most();
    policy.workers = policy.workers.max(estate.slots());
    let mut cluster = Cluster::new(policy, now);
    if let Some(legacy) = estate.legacy() {
        cluster.inherits(legacy);
    }
    let mut sockets = Sockets::of(settings);
    sockets.are_found(found);
    let orphans = Orphans::of(record, settings, cwd, estate);
    (cluster, sockets, orphans)
}

/// What we were born with and is not for us. (A daemon lets go of all of it.)
fn not_ours(settings: &Settings, given: &[Given]) -> BTreeSet<RawFd> {
    if settings.daemon {
        return BTreeSet::new();
    }
    let mut all: BTreeSet<RawFd> = fds::open_ones().into_iter().collect();
    for (passed, _) in given.iter().filter_map(|g| g.passed.as_ref()) {
        all.remove(passed);
    }
    all
}

impl Shell {
    pub(super) fn watch_signals(&mut self) {
        let fd = self.signals.fd().as_raw_fd();
        let at = token(Kind::Signals, 0);
        let registry = self.poll.registry();
        if let Err(e) = registry.register(&mut SourceFd(&fd), at, mio::Interest::READABLE) {
            self.say(Level::Error, "poll-error", e.to_string());
        }
    }

    /// The control socket. Without it the cluster runs as well and verbs do not, so only one that
    /// was asked for by its path is worth not starting.
    fn open_door(&mut self) -> Result<(), Failure> {
        let Some(path) = self.claim.socket.clone() else {
            self.claim.bound();
            return Ok(());
        };
        let opened = self.clients.doors.open(&path).and_then(|listener| {
            self.poll
                .registry()
                .register(listener, token(Kind::Door, 0), mio::Interest::READABLE)
        });
        if let Err(e) = opened {
            // It is not ours to remove.
            self.claim.socket = None;
            let (shown, why) = (path.display(), reason(&e));
            if matches!(self.settings().control, Control::Path(_)) {
                return Err((EX_CANTCREAT, format!("-C {shown}: {why}")));
            }
            let message = format!("cannot open the control socket {shown}: {why}");
            self.say(Level::Warn, "no-control", message);
        }
        self.claim.bound();
        Ok(())
    }
}
