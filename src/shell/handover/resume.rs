//! The other side of a handover: what is read, and how it goes on from there.

use super::super::checks::Checks;
use super::super::hung::Hung;
use super::super::probes::Probes;
use super::super::signals::Signals;
use super::super::sink;
use super::super::watch::Watch;
use super::super::{Kind, Shell, token};
use super::state::{self, Header, LONGEST, State};
use crate::core::codes::{EX_SOFTWARE, EX_USAGE, FAILED, Failure};
use crate::core::fields::Value;
use crate::core::words::{human, reason};
use crate::core::{LaneId, Level, WorkerId};
use crate::settings::LogTo;
use crate::sys::{carried, closer, execute, fds, guise, process};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;

/// By that name a binary is executed that is asked whether it can take over.
pub const NAME: &str = "minicluster-handover";
/// Where the state is: the number of a descriptor.
pub const VARIABLE: &str = "MINICLUSTER_HANDOVER";
/// The same, for one that is only asked. It is told from the other by nothing else: a script that executes us in
/// the end, as some are wrapped, loses every name.
pub const QUESTION: &str = "MINICLUSTER_HANDOVER_ASK";
/// Why whoever should have taken over could not, for the one before.
const REFUSED: &str = "MINICLUSTER_HANDOVER_REFUSED";
/// What one says that can.
pub const ACCEPTS: &str = "minicluster-handover: ok";

/// The state about which we are asked, if we are.
pub fn asked() -> Option<OwnedFd> {
    let number = execute::take_variable(QUESTION)?;
    believes_it().then(|| take_memory(number))?
}

/// The state that was passed to us, if one was. The variables are gone then: no worker is to have them.
pub fn passed() -> Option<(OwnedFd, Option<String>)> {
    let number = execute::take_variable(VARIABLE)?;
    let refused = execute::take_variable(REFUSED).map(|t| t.to_string_lossy().into_owned());
    believes_it().then(|| Some((take_memory(number)?, refused)))?
}

/// Who has more rights than whoever wrote its environment believes none of that.
fn believes_it() -> bool {
    !process::has_gained()
}

fn take_memory(number: OsString) -> Option<OwnedFd> {
    let n: RawFd = number.to_str()?.parse().ok().filter(|n| *n > 2)?;
    carried::may_take(&[n]);
    let memory = carried::take(n).ok()?;
    carried::close_rest();
    Some(memory)
}

fn text_of(memory: OwnedFd) -> Result<String, String> {
    let cannot = |e: std::io::Error| format!("its state cannot be read: {}", reason(&e));
    let mut text = String::new();
    let file = File::from(memory);
    let mut file = &file;
    std::io::Seek::rewind(&mut file).map_err(cannot)?;
    file.take(LONGEST)
        .read_to_string(&mut text)
        .map_err(cannot)?;
    Ok(text)
}

/// Could this binary take over? It reads all of it, and says so. Nothing that was read is given up: it leaves as
/// if it had never been here.
pub fn ask(memory: OwnedFd) -> ! {
    let said = text_of(memory).and_then(|text| match state::read(&text) {
        (Some(header), Ok(state)) => {
            let sound = sound(&state).and(as_able(&header));
            let room = reserve();
            std::mem::forget(state);
            sound.and(room.map(drop))
        }
        (_, Err(why)) => Err(why),
        (None, Ok(_)) => Err("its state has no beginning".into()),
    });
    let version = env!("CARGO_PKG_VERSION");
    let (code, text) = match said {
        Ok(()) => (
            0,
            format!("{ACCEPTS} {version}, state {}\n", state::VERSION),
        ),
        Err(why) => (FAILED, format!("minicluster {version}: {why}\n")),
    };
    let _ = fds::write(process::STDOUT, text.as_bytes());
    process::exit_now(code)
}

/// May we what the one before may? A file can have lost the capabilities that the one before had.
fn as_able(header: &Header) -> Result<(), String> {
    match header.may & !guise::effective() {
        0 => Ok(()),
        lost => Err(format!(
            "it would not have the capabilities {lost:#x} that the one before has (capsh --decode={lost:x}): are they set on this file, too?"
        )),
    }
}

/// Can it be gone on from there?
fn sound(state: &State) -> Result<(), String> {
    let found = state.cluster.is_sound();
    found.map_err(|why| format!("its state does not hold together: {why}"))
}

/// So many descriptors the first steps take: the poll, a pipe for signals and its copies, and what is /dev/null.
const RESERVE: usize = 24;

fn reserve() -> Result<Vec<OwnedFd>, String> {
    let all: std::io::Result<Vec<OwnedFd>> = (0..RESERVE).map(|_| fds::null()).collect();
    all.map_err(|e| format!("there is no room for what it opens itself: {}", reason(&e)))
}

/// Goes on from there; returns the exit code, if it ever ends. Who cannot goes back to the one before.
pub fn resume(memory: OwnedFd, refused: Option<String>) -> Result<u8, Failure> {
    process::keep_little_heap();
    let kept = fds::dup(memory.as_fd());
    let lost = |why: String| {
        (
            EX_SOFTWARE,
            format!("the state of the master is lost: {why}"),
        )
    };
    let text = text_of(memory).map_err(lost)?;
    let ours = state::header(&text).is_some_and(|h| h.pid == process::id() && h.back.is_some());
    if !ours {
        // A copy of that would be a second master of the same workers.
        let why = format!("{VARIABLE}: that is no state of this process");
        return Err((EX_USAGE, why));
    }
    // What the first steps take has room then; and if there is none, nothing has been taken yet.
    let (header, state) = match reserve() {
        Ok(room) => {
            let read = state::read(&text);
            drop(room);
            read
        }
        Err(why) => (state::header(&text), Err(why)),
    };
    drop(text);
    let header = header.ok_or_else(|| lost("it has no beginning".into()))?;
    let state = state.and_then(|state| match sound(&state) {
        Ok(()) => Ok(state),
        Err(why) => {
            drop(state);
            Err(why)
        }
    });
    #[cfg(feature = "next-state")]
    let state = state.and_then(|s| match std::env::var_os("MINICLUSTER_TEST_GOES_BACK") {
        Some(_) => Err("the test wants it so".to_string()),
        None => Ok(s),
    });
    let built = state.and_then(|state| build(state, &header));
    let mut shell = match (built, kept) {
        (Ok(shell), _) => shell,
        // (Nobody goes to and fro for ever.)
        (Err(why), Ok(memory)) if refused.is_none() => {
            return Err(go_back(&header, memory, why));
        }
        (Err(why), _) => return Err(lost(why)),
    };
    carried::set_taking(false);
    carried::close_rest();
    // The way back is not gone any more.
    carried::may_take(header.back.as_slice());
    carried::close_rest();
    shell.reattach();
    shell.tell_of_handover(&header, refused);
    // As long as the exec took, nobody was there.
    Ok(shell.turns(header.order.at))
}

/// The one before has what it needs, and is told why. If that fails, too, all of it is over.
fn go_back(header: &Header, memory: OwnedFd, why: String) -> Failure {
    let Some(back) = header.back else {
        return (
            EX_SOFTWARE,
            format!("cannot go on: {why}; there is no way back"),
        );
    };
    let n = memory.as_raw_fd();
    let mut keep = header.fds.clone();
    keep.extend([n, back]);
    let _ = carried::keep_over_exec(&keep, true);
    let variables = [
        (VARIABLE, OsString::from(n.to_string())),
        (REFUSED, OsString::from(&why)),
    ];
    let failed = execute::execute_fd(back, &header.order.from, &variables);
    let message = format!("cannot go on: {why}; nor back: {}", reason(&failed));
    (EX_SOFTWARE, message)
}

fn build(state: Box<State>, header: &Header) -> Result<Shell, String> {
    let what = |e: std::io::Error| format!("cannot go on: {}", reason(&e));
    let settings = state
        .recipes
        .of(state.cluster.generation())
        .settings
        .clone();
    let devnull = fds::null().map_err(what)?;
    let poll = mio::Poll::new().map_err(what)?;
    let watch = Watch::open(&settings).unwrap_or_default();
    if settings.daemon {
        sink::set_last_resort(match &settings.log_file {
            Some(LogTo::File(path)) => Some(path),
            Some(LogTo::Stderr | LogTo::Syslog) | None => None,
        });
    }
    if state.rights.are_anothers() {
        closer::beware();
    }
    let _ = process::become_subreaper();
    // The last that can fail: from here on signals come to us.
    let mut signals = Signals::install(&settings.on_signal).map_err(what)?;
    signals.had_one_before(state.extra.had_terminal);
    // Children may have ended in between.
    signals.again();
    // Forks that waited for their turn, wait.
    let later = state.cluster.unforked();
    let s = *state;
    let mut shell = Shell {
        cluster: s.cluster,
        poll,
        log: s.log,
        events: s.events,
        signals,
        sockets: s.sockets,
        files: None,
        watch,
        procs: s.procs,
        stderrs: s.stderrs,
        output: s.output,
        speech: s.speech,
        messages: s.messages,
        pending: BTreeMap::new(),
        next_ask: s.next_ask,
        clients: s.clients,
        claim: s.claim,
        pid_file: s.pid_file,
        pid_dir: s.pid_dir,
        caller: None,
        recipes: s.recipes,
        programs: s.programs,
        fresh: None,
        census: s.census,
        ages: s.ages,
        served: s.served,
        metrics: s.metrics,
        hung: Hung::after_another(),
        idling: s.idling,
        probes: Probes::default(),
        checks: Checks::default(),
        ours: s.ours,
        jobs: s.jobs,
        hooks: s.hooks,
        relays: s.relays,
        oom: s.oom,
        cgroups: s.cgroups,
        orphans: s.orphans,
        store: s.store,
        lifeline: s.lifeline,
        devnull,
        rights: s.rights,
        nofile: s.nofile,
        inherited: s.inherited,
        not_ours: s.not_ours,
        out: VecDeque::new(),
        spawned: false,
        later: later.into(),
        queue: VecDeque::new(),
        ready: BTreeSet::from([(Kind::Signals, 0)]),
        log_watched: false,
        console_watched: false,
        said: s.said,
        grown: true,
        asked: s.asked,
        told_all: s.told_all,
        born_with: s.born_with,
        holders_named: s.holders_named,
        strays_gone: None,
        house: s.house,
        served_last: s.served_last,
        waiting: s.waiting,
        supervisor: s.supervisor,
        farewells: Vec::new(),
        finished: None,
        handover: None,
        exe: header.order.to.clone(),
    };
    let now = shell.now();
    if let Some(watch) = &mut shell.watch {
        watch.go_on(s.extra.watched, s.extra.look, now);
    }
    Ok(shell)
}

impl Shell {
    /// Everything that comes from somewhere is listened to again. What has come meanwhile is told at once.
    fn reattach(&mut self) {
        self.watch_signals();
        if let Err(e) = self.register_watch() {
            self.say(
                Level::Error,
                "poll-error",
                format!("epoll_ctl: {}", reason(&e)),
            );
        }
        let lanes: Vec<LaneId> = self.sockets.all().collect();
        for lane in lanes {
            if let Some(addr) = self.sockets.addr(lane).cloned() {
                self.watch_lane(lane, &addr);
            }
        }
        self.reattach_workers();
        self.rewatch_programs();
        self.relisten();
        self.reopen_doors();
        self.watch_log();
    }

    fn reattach_workers(&mut self) {
        let workers: Vec<WorkerId> = self.procs.map.keys().copied().collect();
        for worker in workers {
            let raw = |fd: &Option<OwnedFd>| fd.as_ref().map(AsRawFd::as_raw_fd);
            let all = self.procs.map.get(&worker).map(|p| {
                [
                    (raw(&p.report), Kind::Report),
                    (raw(&p.listener), Kind::Takeover),
                    (raw(&p.orphan), Kind::Orphan),
                ]
            });
            for (fd, kind) in all.into_iter().flatten() {
                if let Some(fd) = fd {
                    self.register_raw(fd, token(kind, worker.0));
                }
            }
        }
        let stderrs: Vec<(WorkerId, RawFd)> = self
            .stderrs
            .iter()
            .filter_map(|(w, s)| Some((*w, s.fd.as_ref()?.as_raw_fd())))
            .collect();
        for (worker, fd) in stderrs {
            let rests = self.output.as_ref().is_some_and(|o| o.rests(worker));
            if !rests {
                self.register_raw(fd, token(Kind::Stderr, worker.0));
            }
        }
        for (worker, speech) in std::mem::take(&mut self.speech) {
            self.listen_to(worker, speech);
            self.rewatch_pipe(worker);
        }
    }

    /// In the log, to who asked, and to all who type.
    fn tell_of_handover(&mut self, header: &Header, refused: Option<String>) {
        let order = &header.order;
        if let Some(why) = refused {
            self.exe.clone_from(&order.from);
            let to = order.to.display();
            return self.handover_failed(order, &format!("{to} could not go on: {why}"));
        }
        let version = env!("CARGO_PKG_VERSION");
        let took = self.now() - order.at;
        let (to, from) = (order.to.display(), order.from.display());
        let was = match order.to == order.from {
            true => format!("minicluster {}", order.was),
            false => format!("minicluster {} ({from})", order.was),
        };
        let n = self.procs.pids().len();
        let message = format!(
            "handed over: minicluster {version} ({to}) goes on in place of {was}, pid {} and {} as they were; all stood still for {}",
            process::id(),
            crate::core::words::count(n, "worker"),
            human(took)
        );
        let fields = vec![
            ("version", Value::Text(version.into())),
            ("was", Value::Text(order.was.clone())),
            ("exe", Value::Text(to.to_string())),
        ];
        let mut line = self
            .log
            .own(Level::Info, "handover", fields, message.clone());
        line.message = format!("{message}; {}", order.why);
        let asker = order.asker.and_then(|a| self.waiting.client(a));
        self.tell_who_types(&line, asker);
        self.publish(line);
        self.answer_handover(order.asker, 0, &message);
    }
}

/// From which file this program is executed, by the name that whoever started it has for it: a link that leads
/// elsewhere by then is followed at a handover.
pub fn our_name(here: &Path) -> std::path::PathBuf {
    let real = std::env::current_exe().unwrap_or_default();
    let first = std::env::args_os().next().unwrap_or_default();
    let named = Path::new(&first);
    let same = |path: &Path| {
        let id = |p: &Path| {
            use std::os::unix::fs::MetadataExt;
            std::fs::metadata(p).ok().map(|m| (m.dev(), m.ino()))
        };
        id(path).is_some() && id(path) == id(Path::new("/proc/self/exe")).or(id(&real))
    };
    if first.as_encoded_bytes().contains(&b'/') {
        let whole = here.join(named);
        return if same(&whole) { whole } else { real };
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&path).map(|dir| here.join(dir).join(named));
    found.find(|p| same(p)).unwrap_or(real)
}
