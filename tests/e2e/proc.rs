//! /proc, as the tests read it: who is there, and whose.

use std::fs;
use std::path::Path;

/// Every process there is.
pub fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect()
}

/// Processes whose environment holds this text. Zombies have none, and are not counted.
pub fn marked(mark: &str) -> Vec<i32> {
    let holds = |pid: &i32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ
            .windows(mark.len())
            .any(|part| part == mark.as_bytes())
    };
    all().into_iter().filter(holds).collect()
}

/// Is it there, and more than a zombie?
pub fn alive(pid: i32) -> bool {
    field(pid, 0).is_some_and(|state| state != "Z" && state != "X")
}

/// Its children.
pub fn children(pid: i32) -> Vec<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().flat_map(str::parse).collect()
}

/// Those of its children that have ended and were not waited for.
pub fn zombies(pid: i32) -> Vec<i32> {
    let ended = |pid: &i32| field(*pid, 0).is_some_and(|state| state == "Z");
    children(pid).into_iter().filter(ended).collect()
}

/// How much memory it has, in KiB.
pub fn resident(pid: i32) -> u64 {
    kib(pid, "VmRSS")
}

/// One line of /proc/PID/status, in KiB.
pub fn kib(pid: i32, what: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of_it = |l: &str| Some(l.strip_prefix(what)?.strip_prefix(':')?.to_owned());
    let line = text.lines().find_map(of_it);
    let kib = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0)
}

/// Does it wait for something, rather than run or wait for a CPU?
pub fn sleeps(pid: i32) -> bool {
    field(pid, 0).is_some_and(|state| state == "S")
}

/// Was it stopped, by whatever signal?
pub fn stopped(pid: i32) -> bool {
    field(pid, 0).is_some_and(|state| state == "T")
}

/// Does it wait in epoll_wait(2) without a timeout?
pub fn sleeps_for_good(pid: i32) -> bool {
    timeout(pid).is_some_and(|t| t < 0)
}

/// Does it sleep for good, or for so long that it has given back before that what it does not need?
pub fn rests(pid: i32) -> bool {
    timeout(pid).is_some_and(|t| !(0..500).contains(&t))
}

/// How long it waits for what may come, in milliseconds, if it does now.
fn timeout(pid: i32) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let number: i64 = words.first()?.parse().ok()?;
    // epoll_pwait on arm64. The timeout is the fourth argument, an int.
    let waits = number == libc::SYS_epoll_pwait || number == EPOLL_WAIT;
    let digits = words.get(4).filter(|_| waits)?.strip_prefix("0x")?;
    let all = u64::from_str_radix(digits, 16).ok()?;
    Some(all as u32 as i32)
}

#[cfg(target_arch = "x86_64")]
const EPOLL_WAIT: i64 = libc::SYS_epoll_wait;
#[cfg(not(target_arch = "x86_64"))]
const EPOLL_WAIT: i64 = libc::SYS_epoll_pwait;

/// How often it has given up the CPU to wait for something.
pub fn switches(pid: i32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

/// Its process group.
pub fn group(pid: i32) -> Option<i32> {
    field(pid, 2)?.parse().ok()
}

/// Its parent.
pub fn parent(pid: i32) -> Option<i32> {
    field(pid, 1)?.parse().ok()
}

/// Its session.
pub fn session(pid: i32) -> Option<i32> {
    field(pid, 3)?.parse().ok()
}

/// A field of /proc/PID/stat, counted behind the name, which may hold anything.
fn field(pid: i32, n: usize) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(n).map(String::from)
}

/// How many descriptors it has open.
pub fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |d| d.count())
}

/// What one of them refers to.
pub fn descriptor(pid: i32, fd: i32) -> String {
    fs::read_link(format!("/proc/{pid}/fd/{fd}"))
        .map_or_else(|e| e.to_string(), |p| p.to_string_lossy().into_owned())
}

/// Its command line, for the message of a failed test.
pub fn command(pid: i32) -> String {
    let bytes = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"));
    let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).replace('\0', " ");
    format!("{pid} ({})", text.trim())
}
