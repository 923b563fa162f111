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
use super::sink::{self, LogFile, Sink, Syslog};
use super::sockets::Sockets;
use super::store::{self, Store};
use super::supervisor::Supervisor;
use super::watch::Watch;
use super::{Kind, Shell, client, coarse, handed, handover, lookup, single, token, unseen};
use crate::core::codes::{
    CANNOT_EXECUTE, EX_CANTCREAT, EX_CONFIG, EX_OSERR, EX_TEMPFAIL, EX_USAGE, FAILED, Failure,
};
use crate::core::words::{human, reason};
use crate::core::{Addr, Cluster, Given, Level, ReadyRule, Time};
use crate::settings::{self, Control, Ipc, LogTo, Settings};
use crate::sys::lifeline::Lifeline;
use crate::sys::oom::Kills;
use crate::sys::{clock, closer, cpus, fds, process, procfs};
use crate::wire::ages::Ages;
use mio::unix::SourceFd;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{CString, OsString};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
        settings.workers = web_concurrency()?;
    }
    let forks = settings.check_workers(settings.wanted(cpus::usable()));
    forks.map_err(|why| (EX_USAGE, why))?;
    let cut = what_is_cut(&settings);
    settings.stop_budget.get_or_insert_with(usual_budget);
    make_absolute(&mut settings);
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
    let (cwd, program) = with_their_eyes(&settings, &rights, &here)?;
    if settings.single {
        return Err(single::run(&settings, &rights, &program, &cwd, &given));
    }
    lookup::check_programs(&settings, &here)?;
    check_ready_fd(&settings, given.len())?;
    check_ready_port(&settings, &given)?;
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

/// What -n is where nothing says it, if our environment has it.
pub(super) fn web_concurrency() -> Result<Option<u16>, Failure> {
    let Some(text) = std::env::var_os("WEB_CONCURRENCY").filter(|t| !t.is_empty()) else {
        return Ok(None);
    };
    let n = settings::number(&text.to_string_lossy(), 1, settings::MAX_WORKERS);
    n.map(Some)
        .map_err(|e| (EX_USAGE, format!("WEB_CONCURRENCY: {e}")))
}

/// Whoever runs us as PID 1 kills everything when its grace period is over.
pub(super) fn usual_budget() -> Duration {
    match process::id() {
        1 => settings::PID1_BUDGET,
        _ => Duration::ZERO,
    }
}

/// What is said of a stop counts no more than what nobody has said: the budget of PID 1. Who relies on it
/// is to know.
fn what_is_cut(settings: &Settings) -> Option<String> {
    if settings.stop_budget.is_some() || usual_budget().is_zero() {
        return None;
    }
    let from = &settings.sources;
    let said = |long: &str| {
        from.typed
            .iter()
            .chain(&from.filed)
            .any(|(l, _)| *l == long)
    };
    let mut s = settings.clone();
    for (long, time) in [
        ("drain-delay", &mut s.drain_delay),
        ("drain-timeout", &mut s.drain_timeout),
        ("stop-timeout", &mut s.stop_timeout),
    ] {
        if !said(long) {
            *time = Duration::ZERO;
        }
    }
    let needed = s.policy(1, 0, Vec::new()).least_budget();
    (needed > usual_budget()).then(|| {
        format!(
            "a stop as it is said (--drain-delay, --drain-timeout, --stop-timeout) takes {}, and as PID 1 it has {}: the container is killed after a grace period, often of 10 s; raise that, and --stop-budget with it",
            human(needed),
            human(usual_budget())
        )
    })
}

/// Can workers that are handed so many sockets have that of --ready fd:N, too?
pub(super) fn check_ready_fd(settings: &Settings, sockets: usize) -> Result<(), Failure> {
    let Some(n) = settings.ready_fd else {
        return Ok(());
    };
    let most = process::nofile().map_or(u64::MAX, |(_, hard)| hard);
    if u64::from(n.unsigned_abs()) >= most {
        let message =
            format!("--ready fd:{n}: no number is that high: the limit of open files is {most}");
        return Err((EX_CONFIG, message));
    }
    if usize::try_from(n).is_ok_and(|n| n < handed::FIRST + sockets) {
        let last = handed::FIRST + sockets - 1;
        let message = format!(
            "--ready fd:{n}: workers have their sockets there, {} to {last}; take a higher number",
            handed::FIRST
        );
        return Err((EX_USAGE, message));
    }
    Ok(())
}

/// Is there a port at which workers can be asked whether they are ready, if not one that is learnt?
pub(super) fn check_ready_port(settings: &Settings, given: &[Given]) -> Result<(), Failure> {
    let tcp = |g: &Given| g.addr.tcp().is_some();
    match settings.ready == ReadyRule::Answers && !given.is_empty() && !given.iter().any(tcp) {
        true => Err((
            EX_USAGE,
            "--ready tcp and http:/PATH ask by a port of TCP, and none is given: -p PORT, or --ready listening"
                .to_string(),
        )),
        false => Ok(()),
    }
}

/// Is Node's channel for workers that run this?
pub(super) fn speaks_node(settings: &Settings, program: &CString, cwd: &Path) -> bool {
    match settings.ipc {
        Ipc::Node => true,
        Ipc::Auto => lookup::is_node(program, cwd),
        Ipc::Off => false,
    }
}

/// The workers' directory, and COMMAND as seen from there; both by whoever will run it.
pub(super) fn with_their_eyes(
    settings: &Settings,
    rights: &Rights,
    here: &Path,
) -> Result<(PathBuf, CString), Failure> {
    let path = path_of(settings, rights).or_else(|| std::env::var_os("PATH"));
    let eyes = rights.eyes();
    let whose = |(code, message): Failure| match (&eyes, &settings.user) {
        (Some(_), Some(user)) if code == EX_CONFIG || code == CANNOT_EXECUTE => (
            code,
            format!("{message}; it was looked at as --user {user}"),
        ),
        _ => (code, message),
    };
    // Where they are left rather than sent, they need no way to. A daemon is elsewhere, and sends them.
    let left = eyes.is_some() && settings.cwd.is_none() && !settings.daemon;
    let cwd = match &settings.cwd {
        Some(dir) => directory(here.join(dir)).map_err(whose)?,
        None if settings.daemon => directory(here.to_path_buf()).map_err(whose)?,
        None => here.to_path_buf(),
    };
    let from = match left {
        true => Path::new("."),
        false => &cwd,
    };
    let nothing = || (EX_USAGE, "there is no COMMAND".to_string());
    let command = settings.command.first().ok_or_else(nothing)?;
    let program = lookup::find(command, path, from);
    let program = program.map_err(|e| whose((e.code, e.message)))?;
    Ok((cwd, program))
}

/// PATH as the operator has set it for the workers.
fn path_of(settings: &Settings, rights: &Rights) -> Option<OsString> {
    let typed = settings.env.iter().rev().find(|(k, _)| k == "PATH");
    let typed = typed.map(|(_, v)| v.into());
    let filed = || rights.variables().filter(|(k, _)| k == "PATH").last();
    typed.or_else(|| filed().map(|(_, v)| OsString::from_vec(v)))
}

/// The paths of our files are those of where we were started, wherever we are later.
pub(super) fn make_absolute(s: &mut Settings) {
    let log = match &mut s.log_file {
        Some(LogTo::File(path)) => Some(path),
        Some(LogTo::Stderr | LogTo::Syslog) | None => None,
    };
    let files = [&mut s.pid_file, &mut s.pid_dir, &mut s.log_dir];
    for path in files.into_iter().flatten().chain(log).chain(&mut s.watch) {
        if let Ok(whole) = std::path::absolute(&path) {
            // Without a slash at its end, which would be behind the link.
            *path = whole.components().collect();
        }
    }
}

/// Where workers run: by the name the user knows it by, so that a symlink moved by a deploy is
/// followed at the next spawn.
fn directory(dir: PathBuf) -> Result<PathBuf, Failure> {
    match std::fs::metadata(&dir) {
        // To enter it is all that is needed.
        Ok(m) if m.is_dir() => match nix::unistd::access(&dir, nix::unistd::AccessFlags::X_OK) {
            Ok(()) => Ok(dir),
            Err(e) => Err((EX_CONFIG, cannot_use(&dir, &e.into()))),
        },
        Ok(_) => Err((
            EX_CONFIG,
            format!("--cwd {}: not a directory", dir.display()),
        )),
        Err(e) => Err((EX_CONFIG, cannot_use(&dir, &e))),
    }
}

fn cannot_use(dir: &Path, e: &std::io::Error) -> String {
    format!("--cwd {}: {}", dir.display(), reason(e))
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
    if rights
        .ids
        .as_ref()
        .and_then(|ids| ids.uid)
        .is_some_and(|uid| uid != process::euid())
    {
        closer::beware();
    }
    let (nofile, inherited) = (process::nofile(), fds::count());
    let not_ours = not_ours(&settings, &given);
    let ipc = speaks_node(&settings, &program, cwd);
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
    let mut log = open_log(&settings)?;
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
    let mut warnings = Vec::new();
    let mut claim = Claim::take(&settings, &mut warnings).map_err(|refused| match refused {
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
    let house = Gatekeeper::of(&settings)?;
    let devnull = fds::null().map_err(os("/dev/null"))?;
    let store = Store::from_environment(settings.balance().spreads(), &left);
    let asked: Vec<Addr> = given.iter().map(|g| g.addr.clone()).collect();
    let mut found = store::found(left, &asked);
    let record = claim.record();
    let about = (&settings, cwd, given.as_slice());
    let mut estate = Estate::look(record.as_deref(), about, &rights, &mut found);
    if let Some(said) = estate.clear_the_way(&settings, &rights) {
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
    let mut sockets = Sockets::of(&settings);
    sockets.are_found(found);
    let orphans = Orphans::of(record, &settings, cwd, estate);
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

/// Where --log-file says.
fn open_log(s: &Settings) -> Result<Log, Failure> {
    let mut log = Log::new(s.log_format, s.log_level);
    if s.daemon {
        sink::set_last_resort(match &s.log_file {
            Some(LogTo::File(path)) => Some(path),
            Some(LogTo::Stderr | LogTo::Syslog) | None => None,
        });
    }
    let cannot = |what: &str, e: &std::io::Error| {
        (EX_CANTCREAT, format!("--log-file {what}: {}", reason(e)))
    };
    match &s.log_file {
        None if s.daemon => match Syslog::open() {
            Ok(syslog) => log.direct(Sink::Syslog(syslog), true),
            Err(e) => {
                log.direct(Sink::Nowhere, true);
                let why = reason(&e);
                let (theirs, both) = match s.log_dir.is_some() || s.silent {
                    true => ("", "it"),
                    false => (", and what its workers write is lost", "both"),
                };
                let message = format!(
                    "there is no syslog (/dev/log: {why}): from the moment that it is ready the daemon has no log{theirs}; --log-file FILE keeps {both}"
                );
                log.say(Level::Warn, "no-log", message);
            }
        },
        None | Some(LogTo::Stderr) => {}
        Some(LogTo::Syslog) => {
            let syslog = Syslog::open().map_err(|e| cannot("syslog: /dev/log", &e))?;
            log.direct(Sink::Syslog(syslog), s.daemon);
        }
        Some(LogTo::File(path)) => {
            let shown = path.display().to_string();
            let file = LogFile::open(path, s.daemon).map_err(|e| cannot(&shown, &e))?;
            if s.daemon && file.is_callers() {
                let why = "is the caller's, and -d lets go of it: name a file of its own";
                return Err((EX_USAGE, format!("--log-file {shown} {why}")));
            }
            log.direct(Sink::File(file), s.daemon);
        }
    }
    Ok(log)
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
