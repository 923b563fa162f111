//! What the sentences of `sentences` are made of: lists, limits, remedies.

use super::addr::Addr;
use super::errno::{
    EACCES, EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EBUSY, EEXIST, EINVAL, ENOSYS, EPERM,
};
use super::event::{By, Snag};
use super::ids::Pid;
use super::lanes::MAX_LANES;
use super::notice::{Hindrance, LeftoverStage, Limit, Next, PassWhy, Who};
use super::outcome::Hitch;
use super::rotation::Ground;
use super::words::{count, errno_text, human};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Their numbers; not more of them than can be read.
pub(super) fn pids(list: &[Pid]) -> String {
    let words: Vec<String> = list.iter().take(20).map(|p| p.to_string()).collect();
    match list.len() {
        0..=20 => words.join(" "),
        n => format!("{} and {} more", words.join(" "), n - 20),
    }
}

/// `http://` would be a guess; an address is what we know.
pub(super) fn addrs(list: &[Addr]) -> String {
    let words: Vec<String> = list.iter().map(|a| a.to_string()).collect();
    words.join(" ")
}

/// The subject of a sentence about all of them.
pub(super) fn all_workers(n: usize) -> String {
    match n {
        1 => "the worker is".to_string(),
        _ => format!("all {n} workers"),
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid.0 {
            0 if *self == By::REMOTE => f.write_str("over TCP"),
            // The number of a process in another pid namespace is not seen here.
            0 => write!(f, "of uid {}, in another pid namespace", self.uid),
            pid => write!(f, "pid {pid} of uid {}", self.uid),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Timeout(time) => write!(f, "{}", human(*time)),
            Limit::Budget { time, budget } => write!(
                f,
                "{}, so that the end comes within --stop-budget {}",
                human(*time),
                human(*budget)
            ),
        }
    }
}

/// Which client it was.
pub(super) fn asked_by(by: &Option<By>) -> String {
    match by {
        Some(by) => format!(", {by}"),
        None => String::new(),
    }
}

/// A worker that was to be replaced is not, for now.
pub(super) fn not_recycled(
    f: &mut fmt::Formatter<'_>,
    who: Who,
    hitch: &Hitch,
    again: Option<Duration>,
) -> fmt::Result {
    write!(f, "cannot replace {who}: {hitch}; ")?;
    match again {
        Some(delay) => write!(f, "it goes on, tried again in {}", human(delay)),
        None => f.write_str("it goes on"),
    }
}

/// The last lines a worker wrote, as an addition to a sentence.
pub(super) fn last_lines(f: &mut fmt::Formatter<'_>, last: &str) -> fmt::Result {
    match last.trim_end() {
        "" => Ok(()),
        text => write!(f, "; its last words on stderr:\n{text}"),
    }
}

/// Why the socket of a worker cannot be swapped for ours.
pub(super) fn tie(snag: Snag) -> &'static str {
    match snag {
        Snag::InEpollSet => "that was put into an epoll set before bind(2)",
        Snag::Duplicated => "that was duplicated before bind(2)",
        Snag::Shared => "another process holds that, too, since before bind(2)",
        Snag::Filtered => "that has a filter (SO_ATTACH_FILTER)",
    }
}

/// What helps when a port cannot be opened.
pub fn remedy(errno: i32, addr: &Addr) -> Option<&'static str> {
    let is_ipv6 = addr.tcp().is_some_and(|a| a.is_ipv6());
    match errno {
        EEXIST => Some("something is there that is no socket; it is left alone"),
        EADDRINUSE if matches!(addr, Addr::Unix(_)) => Some("another program listens there"),
        EPERM | EACCES if addr.port().is_some_and(|p| p < 1024) => Some(
            "ports below 1024 need root, CAP_NET_BIND_SERVICE, or a lower net.ipv4.ip_unprivileged_port_start",
        ),
        EADDRNOTAVAIL => Some("no interface has that address (ip addr lists them)"),
        EINVAL if is_ipv6 => Some(
            "a link-local address is good only with its interface: -l tcp://[fe80::1%2]:80, where 2 is its number",
        ),
        EAFNOSUPPORT if is_ipv6 => Some("IPv6 is switched off here; use -H 0.0.0.0"),
        _ => None,
    }
}

/// What an errno of seccomp(2) means here.
pub(super) fn refusal(errno: i32) -> String {
    let why = match errno {
        EBUSY => "an outer supervisor watches already (a sandbox, WSL, another minicluster)",
        EINVAL => "this kernel or sandbox has no seccomp user notification",
        ENOSYS => "there is no seccomp(2) here",
        EPERM => "seccomp(2) is forbidden here",
        _ => return errno_text(errno),
    };
    format!("{why} ({})", errno_text(errno))
}

/// A bind(2) that is left to the kernel: why, what follows, and what would help.
pub(super) fn passed(
    f: &mut fmt::Formatter<'_>,
    who: &Who,
    addr: &SocketAddr,
    ours: &[u16],
    picked: &bool,
    why: &PassWhy,
) -> fmt::Result {
    let ports: Vec<String> = ours.iter().map(|p| p.to_string()).collect();
    write!(f, "{who} binds {addr}, ")?;
    match why {
        PassWhy::Privileged(least) => {
            return write!(
                f,
                "a port below {least}, which the user that it runs as may not open: left to the kernel, which refuses it; -p {} has us open it",
                addr.port()
            );
        }
        PassWhy::NotListed => write!(f, "which --takeover does not list")?,
        PassWhy::NotServed => write!(f, "which is not served here (-p {})", ports.join(" -p "))?,
        PassWhy::Full => write!(f, "but {MAX_LANES} ports are learnt already")?,
        PassWhy::Connects => write!(f, "to connect from there")?,
    }
    if ours.contains(&addr.port()) {
        return write!(
            f,
            ", but which is open here: its bind fails unless it sets SO_REUSEPORT; add {} to the list",
            addr.port()
        );
    }
    write!(f, ": left to itself, so only one worker can have it")?;
    match ours.first() {
        Some(_) if *picked => write!(
            f,
            "; if this is the service port: let it bind $PORT, or give -p a number N and say --takeover {}=N",
            addr.port()
        ),
        Some(p) => write!(
            f,
            "; if this is the service port: --takeover {}={p}",
            addr.port()
        ),
        None => Ok(()),
    }
}

/// The end begins: who is there, and what time they have.
pub(super) fn stopping(
    f: &mut fmt::Formatter<'_>,
    why: &str,
    by: &Option<By>,
    workers: &usize,
    drain: &Duration,
    limit: &Limit,
) -> fmt::Result {
    write!(f, "stopping: {why}{}; ", asked_by(by))?;
    let them = count(*workers, "worker");
    let time = human(limit.time());
    match workers {
        0 => return write!(f, "there is no worker to wait for"),
        _ if !drain.is_zero() => {
            let drain = human(*drain);
            write!(f, "{them}, drained for up to {drain}, then asked to stop")?;
            if let Limit::Timeout(_) = limit {
                write!(f, " and killed {time} later")?;
            }
        }
        _ if limit.time().is_zero() => write!(f, "{them} killed if not gone at once")?,
        1 => write!(f, "{them} has {time} before it is killed")?,
        _ => write!(f, "{them} have {time} before they are killed")?,
    }
    match limit {
        Limit::Timeout(_) => Ok(()),
        Limit::Budget { budget, .. } => {
            write!(
                f,
                ", all has to be over in {} (--stop-budget)",
                human(*budget)
            )
        }
    }
}

/// What workers left behind.
pub(super) fn leftovers(
    f: &mut fmt::Formatter<'_>,
    list: &[Pid],
    stage: &LeftoverStage,
) -> fmt::Result {
    let them = match list.len() {
        // They cannot be counted either.
        0 => "what workers left behind".to_string(),
        1 => "1 process that workers left behind".to_string(),
        n => format!("{n} processes that workers left behind"),
    };
    match stage {
        LeftoverStage::Asked => write!(f, "waiting for {them}")?,
        LeftoverStage::Overdue(Limit::Timeout(time)) => write!(
            f,
            "{them} not gone {} after the stop signal, killing",
            human(*time)
        )?,
        LeftoverStage::Overdue(Limit::Budget { time, budget }) => write!(
            f,
            "{them} not gone {} after the stop signal, of the {} that all of it may take (--stop-budget), killing",
            human(*time),
            human(*budget)
        )?,
        LeftoverStage::Killed => write!(f, "killing {them}")?,
    }
    match list.is_empty() {
        true => Ok(()),
        false => write!(f, ": {}", pids(list)),
    }
}

/// Clients had better not come.
pub(super) fn unhealthy(
    f: &mut fmt::Formatter<'_>,
    ready: usize,
    quorum: u16,
    why: &Ground,
) -> fmt::Result {
    if let Ground::Discontent { .. } = why {
        return write!(f, "unhealthy: {why}");
    }
    let ready = count(ready, "worker");
    write!(
        f,
        "unhealthy: {ready} ready, {quorum} are to be (--ready-quorum)"
    )
}

/// They may again.
pub(super) fn healthy(
    f: &mut fmt::Formatter<'_>,
    ready: usize,
    quorum: u16,
    was: &Ground,
) -> fmt::Result {
    let ready = count(ready, "worker");
    write!(
        f,
        "healthy again: {ready} ready, {quorum} are to be (--ready-quorum)"
    )?;
    match was {
        Ground::Discontent { check, .. } => write!(f, ", {check} is content"),
        Ground::TooFew { .. }
        | Ground::Starting { .. }
        | Ground::Unchecked { .. }
        | Ground::Well
        | Ground::Stopping
        | Ground::Asked { .. } => Ok(()),
    }
}

/// A worker is asked to stop: empty, or not.
pub(super) fn drained(
    f: &mut fmt::Formatter<'_>,
    who: &Who,
    after: &Duration,
    [closed, ended, cut]: [&u32; 3],
    limit: &Limit,
) -> fmt::Result {
    let connections = |n: &u32| count(*n as usize, "connection");
    match cut {
        0 => write!(f, "drained {who} after {}", human(*after))?,
        n => write!(
            f,
            "{who} still has {} after {} (limit {limit}): asking it to stop, which cuts them off if it does not stop gracefully",
            connections(n),
            human(*after)
        )?,
    }
    if *closed > 0 {
        write!(f, "; {} ended when quiet", connections(closed))?;
    }
    match ended {
        0 => Ok(()),
        n => write!(
            f,
            "; {} ended when the time to drain was over, when no answer was seen to be owed: streams without an end, or clients that never pause",
            connections(n)
        ),
    }
}

/// What follows a death, as an addition to its sentence.
impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Next::Respawn(d) if d.is_zero() => write!(f, "; slot respawns now"),
            Next::Respawn(d) => write!(f, "; slot respawns in {}", human(*d)),
            Next::TakenBack => f.write_str("; the one before it has its place again"),
            Next::HeldBack { wait, limit } => write!(
                f,
                "; slot is held back for {} (--restarts-per-minute {limit})",
                human(*wait)
            ),
            Next::Finished => write!(f, "; slot is finished (--respawn-on)"),
            Next::GivenUp { limit } => {
                write!(f, "; slot is given up (--max-forks {limit})")
            }
            Next::Replaced | Next::Nothing => Ok(()),
        }
    }
}

impl fmt::Display for Hindrance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hindrance::NoTcp => write!(f, "sockets of one path cannot stand side by side"),
            Hindrance::Family(lane) => write!(
                f,
                "it cannot stand beside ours at {lane}, which is of another family (-H)"
            ),
            Hindrance::Device => write!(
                f,
                "it is bound to one interface, which ours is not (without -p its choice is kept)"
            ),
            Hindrance::Alone => {
                write!(f, "its port can have no socket but the one passed to us")
            }
            Hindrance::TooMany => {
                write!(f, "this worker has too many such sockets already")
            }
            Hindrance::Step(step, errno) => {
                write!(f, "{step} says {}", errno_text(*errno))
            }
        }
    }
}
