//! A worker that executes nothing: it goes the whole way of one to its last step, with the ids, limits and
//! filter that COMMAND would have, and binds a socket; and we do with it what the master does with workers.

use super::trials::{self, LIMIT, Wanted, end, errno, of};
use crate::core::Takeover;
use crate::core::codes::{self, EX_OSERR, EX_UNAVAILABLE};
use crate::core::words::{errno_text, signal_name};
use crate::settings::{Orphans, Settings};
use crate::shell::rights::Rights;
use crate::sys::seccomp::{self, Answer, Call};
use crate::sys::socket::{self, Reach};
use crate::sys::spawn::{self, Plan, Report as Step, Watch};
use crate::sys::trial::{self, Ended, Say, Word};
use crate::sys::{errno_of, pidfd, process, procfs};
use crate::wire::check::{Mechanism as M, Report, State};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// The steps on its way that may be refused, in their order; and by which call each is told.
const WAY: [(M, &str); 5] = [
    (M::Limits, "setrlimit"),
    (M::Nice, "setpriority"),
    (M::Affinity, "sched_setaffinity"),
    (M::Ids, "setuid"),
    (M::Directory, "chdir"),
];
/// What is found out when it has arrived.
const SEEN: [M; 7] = [
    M::DeathSignal,
    M::Notify,
    M::Privileges,
    M::Memory,
    M::Pidfd,
    M::Getfd,
    M::Look,
];
/// Another step failed.
const OTHER: u8 = 100;
/// How long it has for each.
const SOON: Duration = Duration::from_secs(2);

/// no_new_privs was set by us, for the filter.
const BY_US: i32 = 1;
/// It was there before.
const BEFORE: i32 = 2;

fn step(name: &str) -> Option<M> {
    match name {
        "setgroups" | "setgid" => Some(M::Ids),
        _ => WAY.iter().find(|(_, n)| *n == name).map(|(m, _)| *m),
    }
}

/// Tries it, and tells all that was found. An option that is refused is left out then: what else there is
/// can be tried without.
pub(super) fn worker(w: &Wanted<'_>, r: &mut Report) {
    let (Some(rights), Some(cwd)) = (w.rights, w.cwd) else {
        return SEEN.into_iter().for_each(|m| is(w, r, m, State::Untried));
    };
    let dir = CString::new(cwd.as_os_str().as_bytes()).unwrap_or_default();
    let mut rights = rights.clone();
    let (mut said, mut ended) = (Vec::new(), Ended::Well);
    let mut settings = w.settings.clone();
    for _ in WAY {
        let ran = trial::run(LIMIT * 2, |say| {
            if let Err(e) = go((&settings, &rights), w.program, &dir, say) {
                say.say(OTHER, errno_of(&e));
            }
        });
        (said, ended) = match ran {
            Ok(found) => found,
            Err(e) => {
                let why = format!("cannot fork: {}", errno_text(errno_of(&e)));
                return r.problems.push((EX_OSERR, why));
            }
        };
        match told_on_its_way(w, &rights, &said, r) {
            Some(M::Limits) => (rights.limits, rights.nofile) = (Vec::new(), None),
            Some(M::Nice) => settings.nice = None,
            Some(M::Affinity) => rights.unpin(),
            Some(M::Ids) => rights.ids = None,
            Some(_) | None => break,
        }
    }
    if let Some((_, errno)) = said.iter().find(|(what, _)| *what == OTHER) {
        let why = format!("no worker can be started: {}", errno_text(*errno));
        r.problems.push((EX_UNAVAILABLE, why));
    }
    seen(w, &said, ended, r);
}

/// The steps on its way: which one was refused?
fn told_on_its_way(w: &Wanted<'_>, rights: &Rights, said: &[Word], r: &mut Report) -> Option<M> {
    let mut failed = None;
    for (m, call) in WAY {
        let found = said.iter().find(|(what, _)| *what == m as u8);
        let Some((_, errno)) = found.copied() else {
            continue;
        };
        // An account that is not known cannot be tried.
        let unknown = m == M::Ids && rights.ids.is_none();
        match asked(w, rights, m) {
            true if unknown => r.is(m, State::Untried),
            false if errno == 0 => {}
            true | false => r.is(m, of(errno)),
        }
        if errno != 0 {
            failed = Some(m);
            let code = codes::of_step(call, errno).unwrap_or(EX_UNAVAILABLE);
            let remedy = codes::remedy(call, errno).map_or(String::new(), |r| format!("; {r}"));
            let why = format!(
                "no worker can be started: {call}: {}{remedy}",
                errno_text(errno)
            );
            r.problems.push((code, why));
        }
    }
    failed
}

/// What was found out when it had arrived.
fn seen(w: &Wanted<'_>, said: &[Word], ended: Ended, r: &mut Report) {
    let mut last = Some(end(ended));
    for m in SEEN {
        let found = said.iter().find(|(what, _)| *what == m as u8).map(|w| w.1);
        let state = match found {
            Some(how) if m == M::Privileges => privileges(how),
            Some(errno) => of(errno),
            // The first of which nothing is known is what has ended it.
            None => last.take().unwrap_or(State::Untried),
        };
        is(w, r, m, state);
    }
    let refused = r.state(M::Notify).is_refused();
    if refused && w.settings.takeover == Takeover::Require {
        let why = "--takeover require: the bind(2) of workers cannot be watched here".to_string();
        r.problems.push((EX_OSERR, why));
    }
    if refused && let State::Kills(signal) = r.state(M::Notify) {
        let why = format!(
            "no worker can be started: one that asks for a filter is killed by SIG{}; --takeover off does not ask",
            signal_name(*signal)
        );
        r.problems.push((EX_UNAVAILABLE, why));
    }
}

fn is(w: &Wanted<'_>, r: &mut Report, m: M, state: State) {
    let s = w.settings;
    let needless = match m {
        M::Notify | M::Privileges | M::Memory => s.takeover == Takeover::Off,
        M::DeathSignal => s.orphans == Orphans::Keep,
        _ => false,
    };
    match needless {
        true => r.is(m, State::NotNeeded),
        false => r.is(m, state),
    }
}

/// Is it an option's?
fn asked(w: &Wanted<'_>, rights: &Rights, m: M) -> bool {
    let s = w.settings;
    match m {
        M::Limits => !s.rlimits.is_empty(),
        M::Nice => s.nice.is_some(),
        M::Affinity => rights.cpu(crate::core::SlotNr(0)).is_some(),
        M::Ids => s.user.is_some() || s.group.is_some(),
        _ => true,
    }
}

fn privileges(how: i32) -> State {
    match how {
        BY_US => State::Fails("the filter for takeover takes no_new_privs without CAP_SYS_ADMIN".into()),
        BEFORE => State::Fails("no_new_privs was set before us (docker run --security-opt no-new-privileges; Kubernetes: allowPrivilegeEscalation: false; systemd: NoNewPrivileges=yes)".into()),
        _ => State::Ok(String::new()),
    }
}

/// In the child, which is the master of it.
fn go(
    (s, rights): (&Settings, &Rights),
    program: Option<&CString>,
    dir: &CString,
    say: &mut Say,
) -> io::Result<()> {
    let [(stays, held), (hears, says)] = trials::pipes()?;
    let (ours, theirs) = spawn::report_pair()?;
    let before = trial::no_new_privs();
    let none = CString::default();
    let plan = Plan {
        program: program.unwrap_or(&none),
        argv: &[],
        env: &[],
        cwd: Some(dir),
        stay: rights.ids.is_some() && s.cwd.is_none(),
        ids: rights.ids.as_ref(),
        umask: s.umask,
        nice: s.nice,
        cpu: rights.cpu(crate::core::SlotNr(0)),
        limits: &rights.limits,
        stdin: Some(stays.as_fd()),
        stdout: Some(says.as_fd()),
        stderr: None,
        pass: Vec::new(),
        extra: Vec::new(),
        nofile: rights.nofile.or(process::nofile()),
        watch: match s.takeover {
            Takeover::Off => Watch::No,
            Takeover::Auto | Takeover::Require | Takeover::Ports(_) => Watch::Try,
        },
        watch_unix: false,
        keep: &[],
        hollow: &[],
        cgroup: None,
        mortal: true,
        life: None,
        report: Some(theirs.as_fd()),
    };
    let pid = spawn::fork_call(&plan, &|| trial::serve(held.as_raw_fd()))?;
    drop((theirs, says, stays));
    let arrived = on_its_way(&ours, say);
    if let Some(listener) = &arrived {
        let lent = listener.as_ref().map(|l| answer(l, rights, say));
        hear(&hears, say, before, lent.flatten());
        look(pid, rights, say);
    }
    drop(held);
    {
        let _worn = rights.to_kill();
        trial::kill(pid);
    }
    if let (None, Some(signal)) = (arrived, trial::end(pid, hears.as_fd())) {
        // On its way only a filter can have done that, and the one call that is not usual is for ours.
        say.say(M::Notify as u8, signal.saturating_neg());
    }
    Ok(())
}

/// Its reports. `None`: it has not arrived.
fn on_its_way(report: &OwnedFd, say: &mut Say) -> Option<Option<OwnedFd>> {
    let mut listener = None;
    loop {
        if !trial::readable_within(report.as_fd(), SOON) {
            return None;
        }
        match spawn::receive(report.as_fd()) {
            Ok(None) => {}
            Ok(Some(Step::Listener(fd))) => listener = Some(fd),
            Ok(Some(Step::Unwatched(errno))) => say.say(M::Notify as u8, errno),
            Ok(Some(Step::Failed(name, errno))) => {
                let failed = step(name);
                let done = WAY.iter().take_while(|(m, _)| Some(*m) != failed);
                match failed {
                    Some(m) => {
                        done.for_each(|(m, _)| say.say(*m as u8, 0));
                        say.say(m as u8, errno);
                    }
                    None => say.say(OTHER, errno),
                }
                return None;
            }
            Ok(Some(Step::Outlives(errno))) => say.say(M::DeathSignal as u8, errno),
            Ok(Some(Step::Arrived)) => {
                WAY.iter().for_each(|(m, _)| say.say(*m as u8, 0));
                say.say(M::DeathSignal as u8, 0);
                return Some(listener);
            }
            Ok(Some(Step::Closed)) => return None,
            Err(e) => {
                say.say(OTHER, errno_of(&e));
                return None;
            }
        }
    }
}

/// Its bind(2), answered with a socket of ours. The port of that, if it has it.
fn answer(listener: &OwnedFd, rights: &Rights, say: &mut Say) -> Option<u16> {
    let l = listener.as_fd();
    if !trial::readable_within(l, SOON) {
        return None;
    }
    let notif = match seccomp::receive(l) {
        Ok(Some(n)) if n.call == Call::Bind => n,
        Ok(_) => return None,
        Err(e) => {
            say.say(M::Notify as u8, errno_of(&e));
            return None;
        }
    };
    let mut bytes = [0; 16];
    let read = {
        let _worn = rights.to_look();
        procfs::read_memory(notif.tid, notif.args[1], &mut bytes)
    };
    let asked = trial::ASKED.parse().ok();
    let read = read.and_then(
        |n| match socket::parse_addr(bytes.get(..n).unwrap_or_default()) {
            Some(addr) if Some(addr) == asked => Ok(addr),
            Some(_) | None => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        },
    );
    say.say(
        M::Memory as u8,
        errno(read.as_ref().map(drop).map_err(copy)),
    );
    let lent = read.ok().and_then(|addr| {
        let lane = socket::open_lane(&addr, &Reach::default()).or_else(|_| socket::open_for(&addr));
        let done = lane.and_then(|lane| {
            let fd = i32::try_from(notif.args[0] & 0xffff_ffff).unwrap_or(-1);
            seccomp::put_fd(l, notif.id, lane.as_fd(), fd, true)?;
            Ok(socket::local_addr(lane.as_fd())?.port())
        });
        match done {
            Ok(port) => Some(port),
            Err(e) => {
                say.say(M::Notify as u8, errno_of(&e));
                None
            }
        }
    });
    let answered = match lent {
        Some(_) => Answer::Zero,
        None => Answer::Continue,
    };
    if let Err(e) = seccomp::answer(l, notif.id, answered) {
        say.say(M::Notify as u8, errno_of(&e));
    }
    lent
}

fn copy(e: &io::Error) -> io::Error {
    io::Error::from_raw_os_error(errno_of(e))
}

/// What it says itself. With a listener, is what it has now what it was lent?
fn hear(from: &OwnedFd, say: &mut Say, before: bool, lent: Option<u16>) {
    while let Some((what, how)) = trial::hear_one(from.as_fd(), SOON) {
        match (what, lent) {
            (trial::NO_NEW_PRIVS, _) => {
                let by = match (how, before) {
                    (0, _) => 0,
                    (_, true) => BEFORE,
                    (_, false) => BY_US,
                };
                say.say(M::Privileges as u8, by);
            }
            (trial::PORT, Some(port)) => {
                let same = how == i32::from(port);
                return say.say(M::Notify as u8, if same { 0 } else { libc::EPROTO });
            }
            // Nothing was lent: what keeps it from that has been told.
            (trial::PORT, None) => return say.say(M::Notify as u8, 0),
            _ => {}
        }
    }
}

/// What the master does with a worker.
fn look(pid: i32, rights: &Rights, say: &mut Say) {
    let held = pidfd::open(pid).and_then(|held| {
        let _worn = rights.to_kill();
        trial::signals(held.as_fd())?;
        Ok(held)
    });
    say.say(M::Pidfd as u8, errno(held.as_ref().map(drop).map_err(copy)));
    let _worn = rights.to_look();
    if let Ok(held) = held {
        let got = pidfd::getfd(held.as_fd(), 1);
        say.say(M::Getfd as u8, errno(got.map(drop)));
    }
    if procfs::is_ours() {
        let seen = procfs::some_descriptors(pid, 8).is_some();
        say.say(M::Look as u8, if seen { 0 } else { libc::EACCES });
    }
}
