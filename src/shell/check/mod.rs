//! --check: what a start would come to, and what this environment allows. Nothing is started, and nothing
//! is left. It goes the way of a start, by the same code, but where that stops at the first thing that is
//! wrong it goes on, so that all of it is told; the exit code is that of the first.

pub(super) mod files;
mod kind;
mod plan;
mod probe;
mod trials;

use super::gatekeeper::Gatekeeper;
use super::given::{self, Passed};
use super::names::{self, Refused};
use super::orphans::{Estate, Foreseen};
use super::rights::Rights;
use super::room::Room;
use super::watch::Watch;
use super::{ahead, client, daemon, lookup, single};
use crate::core::codes::{
    EX_CANTCREAT, EX_CONFIG, EX_NOPERM, EX_OSERR, EX_TEMPFAIL, EX_USAGE, Failure, of_port,
};
use crate::core::words::errno_text;
use crate::core::{Addr, Given, Takeover};
use crate::settings::{Control, LogTo, Settings};
use crate::sys::{cpus, fds, procfs, procnet};
use crate::wire::check::{Mechanism as M, Report, State};
use std::ffi::CString;
use std::path::{Path, PathBuf};

/// Says it; the exit code is that of the start.
pub fn run(mut s: Settings) -> Result<u8, Failure> {
    let mut report = Report {
        takeover: s.takeover != Takeover::Off && !s.single,
        ..Report::default()
    };
    look(&mut s, &mut report);
    let text = match s.json {
        true => report.json(),
        false => report.text(),
    };
    client::print(&text)?;
    Ok(report.code())
}

/// What was found out on the way.
#[derive(Default)]
struct Found {
    workers: u16,
    rights: Option<Rights>,
    given: Vec<Given>,
    program: Option<CString>,
    cwd: Option<PathBuf>,
    room: Option<Room>,
    orphans: Foreseen,
}

/// What is wrong is put down, and what there is is gone on with.
fn keep<T>(r: &mut Report, found: Result<T, Failure>) -> Option<T> {
    found.map_err(|failure| r.problems.push(failure)).ok()
}

fn look(s: &mut Settings, r: &mut Report) {
    let mut found = Found::default();
    // Before anything is open.
    let inherited = fds::count();
    let passed = keep(r, Passed::from_environment(std::process::id()));
    found.rights = rights(s, r);
    let here = procfs::working_directory().unwrap_or_default();
    s.sources.here.clone_from(&here);
    if let (Some(passed), Some(rights)) = (&passed, &found.rights) {
        found.given = keep(r, given::all(s, rights, passed, &here)).unwrap_or_default();
    }
    if s.daemon && !s.single {
        keep(r, daemon::may(&found.given));
    }
    if s.workers.is_none() {
        s.workers = keep(r, ahead::web_concurrency()).flatten();
    }
    found.workers = s.wanted(cpus::usable());
    keep(
        r,
        s.check_workers(found.workers)
            .map_err(|why| (EX_USAGE, why)),
    );
    s.stop_budget.get_or_insert_with(ahead::usual_budget);
    ahead::make_absolute(s);
    command(s, &mut found, &here, r);
    if s.single {
        sockets(s, &found, r);
        r.around = trials::around(0);
        trials::single(&wanted(s, &found), r);
        return plan::single(s, &found, r);
    }
    keep(r, lookup::check_programs(s, &here));
    keep(r, ahead::check_ready_fd(s, found.given.len()));
    keep(r, ahead::check_ready_port(s, &found.given));
    room(s, &mut found, inherited, r);
    let prospect = names::prospect(s);
    // It is told, and nothing of its own is in its way.
    let exchanged = s.replace && prospect.runs.is_some();
    keep(r, Watch::open(s));
    if let (false, Some(rights)) = (exchanged, &found.rights) {
        let asked: Vec<Addr> = found.given.iter().map(|g| g.addr.clone()).collect();
        let record = prospect.record.as_deref();
        let spread = s.balance().spreads();
        found.orphans = Estate::foresee(record, (&asked, spread), rights);
        r.warnings.extend(found.orphans.ignored.clone());
    }
    if !exchanged {
        files_of(s, r);
        name(s, &prospect, r);
    }
    keep(r, Gatekeeper::of(s));
    if !exchanged {
        doors(s, r);
        sockets(s, &found, r);
    }
    r.around = trials::around(r.around.files);
    trials::all(&wanted(s, &found), r);
    plan::cluster(s, &found, &prospect, r);
}

fn wanted<'a>(settings: &'a Settings, found: &'a Found) -> trials::Wanted<'a> {
    trials::Wanted {
        settings,
        workers: found.workers,
        rights: found.rights.as_ref(),
        cwd: found.cwd.as_deref(),
        program: found.program.as_ref(),
    }
}

/// COMMAND and its directory.
fn command(s: &Settings, found: &mut Found, here: &Path, r: &mut Report) {
    let Some(rights) = &found.rights else { return };
    match ahead::with_their_eyes(s, rights, here) {
        Ok((cwd, program)) => {
            match kind::doubt(&program) {
                Some(Ok(warning)) => r.warnings.push(warning),
                Some(Err(problem)) => r.problems.push(problem),
                None => {}
            }
            (found.cwd, found.program) = (Some(cwd), Some(program));
        }
        Err((code, why)) => {
            // What else there is to find out about workers can be found out anywhere.
            if code == EX_CONFIG {
                r.is(M::Directory, State::Fails(why.clone()));
                found.cwd = Some("/".into());
            } else {
                found.cwd = s.cwd.is_none().then(|| here.to_path_buf());
            }
            r.problems.push((code, why));
            // A name is looked for in PATH, wherever the directory would be, and a whole path is one.
            let below = |w: &std::ffi::OsString| {
                let word = w.to_string_lossy();
                word.contains('/') && !word.starts_with('/')
            };
            if code == EX_CONFIG && !s.command.first().is_some_and(below) {
                let elsewhere = Settings {
                    cwd: found.cwd.clone(),
                    ..s.clone()
                };
                let looked = keep(r, ahead::with_their_eyes(&elsewhere, rights, here));
                found.program = looked.map(|(_, program)| program);
            }
        }
    }
}

/// What rights are made of, in the order in which they are found; and whose mechanism that is.
type Part = (Option<M>, fn(&mut Settings));
const PARTS: [Part; 3] = [
    (None, |s| s.env_files.clear()),
    (Some(M::Limits), |s| s.rlimits.clear()),
    (Some(M::Ids), |s| (s.user, s.group) = (None, None)),
];

/// Those of the workers; without what cannot be had, to go on with.
fn rights(s: &Settings, r: &mut Report) -> Option<Rights> {
    let open = |path: &Path| std::fs::File::open(path);
    let mut rest = s.clone();
    let mut failure = match Rights::find(&rest, &open) {
        Ok(rights) => return Some(rights),
        Err(failure) => failure,
    };
    r.problems.push(failure.clone());
    for (whose, leave_out) in PARTS {
        leave_out(&mut rest);
        let next = Rights::find(&rest, &open);
        if next.as_ref().err() == Some(&failure) {
            continue;
        }
        if let (Some(m), EX_NOPERM) = (whose, failure.0) {
            r.is(m, State::Refused(libc::EPERM));
        }
        failure = match next {
            Ok(rights) => return Some(rights),
            Err(failure) => failure,
        };
        r.problems.push(failure.clone());
    }
    None
}

fn room(s: &Settings, found: &mut Found, inherited: u64, r: &mut Report) {
    let ipc = match (&found.program, &found.cwd) {
        (Some(program), Some(cwd)) => ahead::speaks_node(s, program, cwd),
        (_, _) => false,
    };
    let room = Room::of(s, ipc, found.given.len(), inherited);
    r.around.files = room.needed(found.workers);
    let state = match room.check(found.workers) {
        Ok(()) => State::Ok(String::new()),
        Err((code, why)) => {
            r.problems.push((code, why.clone()));
            State::Fails(why)
        }
    };
    r.is(M::Files, state);
    found.room = Some(room);
}

fn files_of(s: &Settings, r: &mut Report) {
    if let Some(path) = &s.pid_file {
        keep(r, files::pid_file(path));
    }
    if let Some(dir) = &s.pid_dir {
        keep(r, files::pid_dir(dir));
    }
    if let Some(dir) = &s.log_dir {
        keep(r, files::log_dir(dir));
    }
    if let Some(LogTo::File(path)) = &s.log_file {
        keep(r, files::log(path));
    }
}

fn name(s: &Settings, prospect: &names::Prospect, r: &mut Report) {
    let state = match (&prospect.without, &s.control) {
        (_, Control::Off | Control::Port(_)) => State::NotNeeded,
        (None, Control::Named | Control::Path(_)) => State::Ok(String::new()),
        (Some(why), Control::Named | Control::Path(_)) => State::Fails(why.clone()),
    };
    r.is(M::Runtime, state);
    r.warnings.extend(prospect.instead.clone());
    match &prospect.refused {
        Some(Refused::Taken(why)) => r.problems.push((EX_TEMPFAIL, why.clone())),
        Some(Refused::InTheWay(why)) => r.problems.push((EX_CANTCREAT, why.clone())),
        None => {}
    }
}

/// The ports of --monitor and -C.
fn doors(s: &Settings, r: &mut Report) {
    let control = match s.control {
        Control::Port(at) => Some(("-C", at)),
        Control::Named | Control::Path(_) | Control::Off => None,
    };
    let monitor = s.monitor.map(|at| ("--monitor", at));
    for (option, at) in monitor.into_iter().chain(control) {
        let errno = match trials::door(at) {
            State::Refused(errno) => errno,
            State::Ok(_) => continue,
            State::Fails(_)
            | State::Kills(_)
            | State::Hangs
            | State::Untried
            | State::NotNeeded => libc::EIO,
        };
        let held = (errno == libc::EADDRINUSE)
            .then(|| procnet::holder_of(at.port()))
            .flatten();
        let holder = held.map_or(String::new(), |h| format!("; held by {h}"));
        let why = errno_text(errno);
        let message = format!("cannot open {option} {at}: {why}{holder}");
        r.problems.push((of_port(errno), message));
    }
}

/// What is to be open before there is a worker.
fn sockets(s: &Settings, found: &Found, r: &mut Report) {
    // What workers of the last master hold is had from them, or free once they are stopped.
    let theirs = |g: &&Given| g.passed.is_none() && found.orphans.held.contains(&g.addr);
    let free = found.given.iter().filter(|g| !theirs(g));
    let given: Vec<Given> = free.cloned().collect();
    let (errnos, ended) = trials::ports(&given, s.backlog);
    let mut worst = None;
    for (n, one) in given.iter().enumerate() {
        let failed = match (files::socket(one), errnos.get(n)) {
            (Some(Err((code, why))), _) => {
                worst.get_or_insert(State::Fails(why.clone()));
                Some((code, why))
            }
            (Some(Ok(())), _) => None,
            (None, Some(0)) => None,
            (None, Some(errno)) => {
                worst.get_or_insert(State::Refused(*errno));
                let e = std::io::Error::from_raw_os_error(*errno);
                Some(single::cannot_open(one, &e))
            }
            (None, None) => {
                worst.get_or_insert(trials::end(ended));
                Some((EX_OSERR, format!("cannot open {}", one.addr)))
            }
        };
        r.problems.extend(failed);
    }
    if !found.given.is_empty() {
        r.is(M::Ports, worst.unwrap_or(State::Ok(String::new())));
    }
}
