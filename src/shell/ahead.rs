//! What is looked up before anything is bound, written or forked, so that what is wrong is refused while there is
//! nothing to undo: by a start, by a reload that reads it again, and by --check, which goes no further.

use super::rights::Rights;
use super::{handed, lookup};
use crate::core::codes::{CANNOT_EXECUTE, EX_CONFIG, EX_USAGE, Failure};
use crate::core::words::{human, reason};
use crate::core::{Given, ReadyRule};
use crate::settings::{self, Ipc, LogTo, Settings};
use crate::sys::process;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
pub(super) fn what_is_cut(settings: &Settings) -> Option<String> {
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
