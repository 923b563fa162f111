//! What the sentences of `sentences` are made of: lists, limits, remedies.

use super::addr::Addr;
use super::event::{By, Snag};
use super::ids::Pid;
use super::notice::{Limit, Who};
use super::outcome::Hitch;
use super::words::{errno_text, human};
use std::fmt;
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
pub(super) fn remedy(errno: i32, addr: &Addr) -> Option<&'static str> {
    const EPERM: i32 = 1;
    const EACCES: i32 = 13;
    const EEXIST: i32 = 17;
    const EINVAL: i32 = 22;
    const EAFNOSUPPORT: i32 = 97;
    const EADDRINUSE: i32 = 98;
    const EADDRNOTAVAIL: i32 = 99;
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
    const EPERM: i32 = 1;
    const EBUSY: i32 = 16;
    const EINVAL: i32 = 22;
    const ENOSYS: i32 = 38;
    let why = match errno {
        EBUSY => "an outer supervisor watches already (a sandbox, WSL, another minicluster)",
        EINVAL => "this kernel or sandbox has no seccomp user notification",
        ENOSYS => "there is no seccomp(2) here",
        EPERM => "seccomp(2) is forbidden here",
        _ => return errno_text(errno),
    };
    format!("{why} ({})", errno_text(errno))
}
