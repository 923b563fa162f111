//! The mechanisms, tried: each by the calls, and the code, that a start and its master use, in a child
//! that is gone afterwards.

use super::probe;
use crate::core::codes::EX_OSERR;
use crate::core::words::{reason, signal_name};
use crate::core::{Addr, BUCKETS, Balance, Drain, Given, Key, Takeover};
use crate::settings::{LogTo, Settings};
use crate::shell::cgroups;
use crate::shell::observer::Observer;
use crate::shell::rights::Rights;
use crate::shell::sink::Syslog;
use crate::shell::sockets::is_abstract;
use crate::sys::netlink::Netlink;
use crate::sys::socket::{self, Reach};
use crate::sys::trial::{self, Ended, Word};
use crate::sys::{clock, errno_of, fds, guise, notify, process, procfs, steer, unix};
use crate::wire::check::{Around, Mechanism as M, Report, State, name_of};
use crate::wire::ports_filter::Ports;
use crate::wire::sock_diag;
use crate::wire::steering::{self, Deal, Table};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// No trial takes longer.
pub(super) const LIMIT: Duration = Duration::from_secs(5);
/// Addresses that are in use are tried again so often in all, after that long: as a start does it.
const AGAIN: u32 = 50;
const IN_A_MOMENT: Duration = Duration::from_millis(20);

/// What is tried.
pub(super) struct Wanted<'a> {
    pub(super) settings: &'a Settings,
    pub(super) workers: u16,
    /// Nothing, if it could not be found out.
    pub(super) rights: Option<&'a Rights>,
    /// The workers' directory, if it is there.
    pub(super) cwd: Option<&'a Path>,
    /// What is executed, if it was found.
    pub(super) program: Option<&'a CString>,
}

/// 0, or the errno.
pub(super) fn errno(done: io::Result<()>) -> i32 {
    done.map_or_else(|e| errno_of(&e), |()| 0)
}

/// What there is for remedies to hang on.
pub(super) fn around(files: u64) -> Around {
    Around {
        ptrace: guise::capable(guise::SYS_PTRACE),
        no_new_privs: trial::no_new_privs(),
        yama: procfs::ptrace_scope(),
        optmem: steer::optmem_max(),
        ports_from: procfs::unprivileged_port_start(),
        files,
    }
}

/// One that is done or not.
fn tried(what: impl FnOnce() -> io::Result<()>) -> State {
    told(trial::run(LIMIT, |say| say.say(0, errno(what()))))
}

fn told(ran: io::Result<(Vec<Word>, Ended)>) -> State {
    match ran {
        Ok((said, ended)) => match said.first() {
            Some((_, errno)) => of(*errno),
            None => end(ended),
        },
        Err(e) => State::Refused(errno_of(&e)),
    }
}

/// How it is, by an errno.
pub(super) fn of(errno: i32) -> State {
    match errno {
        0 => State::Ok(String::new()),
        // Of one that was ended by that signal.
        ..0 => State::Kills(errno.saturating_neg()),
        errno => State::Refused(errno),
    }
}

/// How it is, if the trial has ended before it was told.
pub(super) fn end(ended: Ended) -> State {
    match ended {
        Ended::Died(Some(signal)) => State::Kills(signal),
        Ended::Late => State::Hangs,
        Ended::Died(None) | Ended::Well => State::Untried,
    }
}

/// All but those of single options.
pub(super) fn all(w: &Wanted<'_>, r: &mut Report) {
    let s = w.settings;
    r.is(
        M::Proc,
        match procfs::is_ours() {
            true => State::Ok(String::new()),
            false => State::Fails("there is no /proc of this pid namespace".into()),
        },
    );
    r.is(M::SharePort, tried(share_port));
    r.is(M::Steering, steering(s.balance(), w.workers));
    r.is(M::SockDiag, tried(sock_diag));
    r.is(
        M::Hold,
        match s.drain {
            Drain::Connections => tried(hold),
            Drain::Server | Drain::None => State::NotNeeded,
        },
    );
    if s.count_connections || s.max_connections.is_some() {
        r.is(M::SockNews, tried(sock_news));
    }
    if !process::is_first() {
        r.is(M::Subreaper, tried(process::become_subreaper));
    } else {
        r.is(M::Subreaper, State::Ok("as PID 1".into()));
    }
    r.is(M::Abstract, tried(abstract_name));
    if s.log_file == Some(LogTo::Syslog) || s.daemon && s.log_file.is_none() {
        r.is(M::Syslog, tried(|| Syslog::open().map(drop)));
    }
    if s.cgroup {
        r.is(
            M::Cgroup,
            match cgroups::could_be() {
                Ok(()) => State::Ok(String::new()),
                Err(e) => State::Fails(reason(&e)),
            },
        );
    }
    probe::worker(w, r);
    // What is refused can be gone without; who is killed for it cannot go on.
    let kills = |(m, state): &(M, State)| match state {
        State::Kills(signal) if *m != M::Notify => Some((*m, *signal)),
        _ => None,
    };
    if let Some((m, signal)) = r.found.iter().find_map(kills) {
        let name = name_of(m).unwrap_or_default();
        let why = format!(
            "a filter kills whoever tries {name} (SIG{}), and so the master: let it refuse that instead (EPERM)",
            signal_name(signal)
        );
        r.problems.push((EX_OSERR, why));
    }
}

/// What is done to the one process that there would be.
pub(super) fn single(w: &Wanted<'_>, r: &mut Report) {
    let settings = Settings {
        takeover: Takeover::Off,
        ..w.settings.clone()
    };
    let mut found = Report::default();
    probe::worker(
        &Wanted {
            settings: &settings,
            ..*w
        },
        &mut found,
    );
    r.problems.append(&mut found.problems);
    let steps = [M::Ids, M::Nice, M::Limits, M::Affinity, M::Directory];
    for (m, state) in found.found {
        if steps.contains(&m) {
            r.is(m, state);
        }
    }
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, 0).into()
}

/// Of the two that a start looks at.
fn share_port() -> io::Result<()> {
    match steer::works() {
        Err(steer::Refused::Sharing(e)) => Err(e),
        Ok(()) | Err(steer::Refused::Steering(_)) => Ok(()),
    }
}

/// As by `Group`: where the program is too long it gets a coarser one. (It is not asked whether new clients
/// come: nobody listens.)
fn steering(balance: Balance, workers: u16) -> State {
    let lanes = u32::from(workers.max(1));
    let ran = trial::run(LIMIT, |say| {
        let done = steer_by(balance, lanes);
        match done {
            Ok(buckets) => {
                say.say(0, 0);
                say.say(1, i32::try_from(buckets).unwrap_or(0));
            }
            Err(e) => say.say(0, errno_of(&e)),
        }
    });
    let buckets = ran.as_ref().ok().and_then(|(said, _)| said.get(1).copied());
    let dealt = matches!(balance, Balance::Hash | Balance::Ip);
    match (told(ran), buckets) {
        (State::Ok(_), Some((_, n))) if dealt => {
            let want = i32::try_from(BUCKETS).unwrap_or(i32::MAX);
            let how = |n| match n {
                0 => "at random".to_string(),
                n => format!("by {n} buckets"),
            };
            match n == want {
                true => State::Ok(how(n)),
                false => State::Fails(format!(
                    "for {workers} workers new connections are dealt out {} instead of {want}: the kernel takes no longer program",
                    how(n)
                )),
            }
        }
        (state, _) => state,
    }
}

/// By how many buckets can it be?
fn steer_by(balance: Balance, lanes: u32) -> io::Result<usize> {
    if let Err(steer::Refused::Steering(e) | steer::Refused::Sharing(e)) = steer::works() {
        return Err(e);
    }
    let s = socket::open_for(&any_port())?;
    socket::share_port(s.as_fd())?;
    socket::bind(s.as_fd(), &any_port())?;
    let key = match balance {
        Balance::Hash => Some(Key::Connection),
        Balance::Ip => Some(Key::Client),
        Balance::Shared | Balance::Cpu => None,
    };
    let mut table = match key {
        Some(key) => Table {
            deal: Deal::Buckets(key, (0..lanes).cycle().take(BUCKETS).collect()),
            part: None,
        },
        None => Table::only(0),
    };
    loop {
        let program = steering::raw(&steering::program(&table));
        match steer::attach(s.as_fd(), &program) {
            Err(e) if steer::is_too_long(&e, &program) && table.shrink() => {}
            Err(e) => return Err(e),
            Ok(()) => return Ok(table.buckets().map_or(0, |(_, n)| n)),
        }
    }
}

fn sock_diag() -> io::Result<()> {
    let some = Ports {
        v4: BTreeSet::from([1]),
        v6: BTreeSet::new(),
    };
    Observer::default().look(&some).map(drop)
}

/// What is asked of a connection is asked of a socket that is to be one: there may be no network here.
fn hold() -> io::Result<()> {
    let s = socket::open_for(&any_port())?;
    steer::filter(s.as_fd(), &steering::raw(&steering::hold_back()))
}

fn sock_news() -> io::Result<()> {
    Netlink::of_ended(&steering::raw(&sock_diag::ended_at(&[1]))).map(drop)
}

fn abstract_name() -> io::Result<()> {
    let secret = u64::from_ne_bytes(notify::random());
    notify::open(&format!("minicluster/check/{secret:016x}")).map(drop)
}

/// The addresses that are opened, as by a start: each with its errno; 0: it is free.
pub(super) fn ports(given: &[Given], backlog: i32) -> (Vec<i32>, Ended) {
    let ran = trial::run(LIMIT, |say| {
        let mut kept: Vec<OwnedFd> = Vec::new();
        let mut waits = AGAIN;
        for one in given {
            let errno = loop {
                match open(one, backlog) {
                    Ok(fd) => {
                        kept.extend(fd);
                        break 0;
                    }
                    Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE) && waits > 0 => {
                        waits -= 1;
                        clock::pause(IN_A_MOMENT);
                    }
                    Err(e) => break errno_of(&e),
                }
            };
            say.say(0, errno);
        }
    });
    match ran {
        Ok((said, ended)) => (said.iter().map(|(_, errno)| *errno).collect(), ended),
        Err(e) => (vec![errno_of(&e)], Ended::Well),
    }
}

/// Bound, and listening to nobody. What was passed is open; what has a name in the file system is looked at
/// elsewhere.
fn open(given: &Given, backlog: i32) -> io::Result<Option<OwnedFd>> {
    match (&given.passed, &given.addr) {
        (None, Addr::Tcp(addr)) => socket::open_lane(addr, &Reach::default()).map(Some),
        (None, Addr::Unix(path)) if is_abstract(path) => {
            unix::listen_unix(path, None, backlog).map(Some)
        }
        (Some(_), _) | (None, Addr::Unix(_) | Addr::Other(_)) => Ok(None),
    }
}

/// Of --monitor, or -C.
pub(super) fn door(at: SocketAddr) -> State {
    tried(|| socket::probe(&at, &Reach::default()))
}

/// What a child of ours would have for its standard input: for the probe.
pub(super) fn pipes() -> io::Result<[(OwnedFd, OwnedFd); 2]> {
    Ok([fds::pipe_to()?, fds::pipe()?])
}
