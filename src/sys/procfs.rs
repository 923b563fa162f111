//! /proc, read. Everything here is a look at a moving target: what has gone meanwhile is simply
//! not in the answer.

use super::cerr;
use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// So many processes of one tree are looked at.
const TREE_LIMIT: usize = 4096;

/// Is /proc there, and of our own pid namespace? In another one's every number is a stranger's.
pub fn is_ours() -> bool {
    static OURS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *OURS.get_or_init(|| {
        let me = std::process::id().to_string();
        fs::read_link("/proc/self").is_ok_and(|p| p.as_os_str() == me.as_str())
    })
}

/// Where to look: nowhere, if what is there is not ours.
pub(super) fn base() -> &'static str {
    match is_ours() {
        true => "/proc",
        false => "/proc/not-ours",
    }
}

/// A file that has a name in it. Whoever it is of has chosen that, as bytes: a longer one that was cut
/// in the middle of a character is enough.
fn named(file: String) -> Option<String> {
    let bytes = fs::read(file).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn words<T: std::str::FromStr>(text: &str) -> Vec<T> {
    text.split_whitespace()
        .filter_map(|w| w.parse().ok())
        .collect()
}

/// Is there a process of that number, zombies included?
pub fn lives(pid: i32) -> bool {
    fs::symlink_metadata(format!("{}/{pid}", base())).is_ok()
}

/// Is that one in our own pid namespace, and in none below it, for certain? One below has a second number there.
/// (The link to its namespace may be read by few.)
pub fn is_of_our_namespace(pid: i32) -> bool {
    let text = named(format!("{}/{pid}/status", base()));
    let line = text
        .as_deref()
        .and_then(|t| t.lines().find_map(|l| l.strip_prefix("NSpid:")));
    line.is_some_and(|l| l.split_whitespace().eq([pid.to_string()]))
}

/// The process that a thread belongs to.
pub fn process_of(tid: i32) -> Option<i32> {
    let text = named(format!("{}/{tid}/status", base()))?;
    let line = text.lines().find(|l| l.starts_with("Tgid:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Children of a process, zombies included.
pub fn children(pid: i32) -> Vec<i32> {
    let mut all = Vec::new();
    for tid in threads(pid) {
        let text = fs::read_to_string(format!("{}/{pid}/task/{tid}/children", base()));
        all.extend(words::<i32>(&text.unwrap_or_default()));
    }
    all
}

/// Threads of a process.
pub fn threads(pid: i32) -> Vec<i32> {
    numbers(&format!("{}/{pid}/task", base()))
}

pub(super) fn numbers(dir: &str) -> Vec<i32> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect()
}

/// A process and its descendants, at most `TREE_LIMIT`.
pub fn tree(pid: i32) -> Vec<i32> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(one) = all.get(next).filter(|_| all.len() < TREE_LIMIT) {
        let more = children(*one);
        next += 1;
        all.extend(more);
    }
    all
}

/// What a descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A socket of this inode.
    Socket(u64),
    /// A pipe of this inode.
    Pipe(u64),
    /// An epoll set.
    Epoll,
    /// Something else.
    Other,
}

/// What that descriptor refers to; `None` if it cannot be seen.
pub fn target(pid: i32, fd: RawFd) -> Option<Target> {
    let link = fs::read_link(format!("{}/{pid}/fd/{fd}", base())).ok()?;
    let text = link.to_str().unwrap_or("");
    let inode = |prefix: &str| {
        let number = text.strip_prefix(prefix)?.strip_suffix(']')?;
        number.parse::<u64>().ok()
    };
    Some(match (inode("socket:["), inode("pipe:[")) {
        (Some(i), _) => Target::Socket(i),
        (_, Some(i)) => Target::Pipe(i),
        _ if text == "anon_inode:[eventpoll]" => Target::Epoll,
        _ => Target::Other,
    })
}

/// All descriptors of a process; `None` if we may not look.
pub fn descriptors(pid: i32) -> Option<Vec<(RawFd, Target)>> {
    some_descriptors(pid, usize::MAX)
}

/// The first of them.
pub fn some_descriptors(pid: i32, most: usize) -> Option<Vec<(RawFd, Target)>> {
    Some(Listing::of(pid)?.some(most).0)
}

/// The descriptors of a process, listed in parts.
#[derive(Debug)]
pub struct Listing {
    /// Whose they are.
    pub pid: i32,
    entries: fs::ReadDir,
}

impl Listing {
    /// `None` if we may not look, or it has gone.
    pub fn of(pid: i32) -> Option<Listing> {
        let entries = fs::read_dir(format!("{}/{pid}/fd", base())).ok()?;
        Some(Listing { pid, entries })
    }

    /// The next of them, so many at most, and whether there may be more.
    pub fn some(&mut self, most: usize) -> (Vec<(RawFd, Target)>, bool) {
        let next: Vec<_> = self.entries.by_ref().take(most).collect();
        let more = next.len() == most;
        let fds = next.into_iter().flatten();
        let fds = fds.filter_map(|e| e.file_name().to_str()?.parse().ok());
        let found = fds.filter_map(|fd| Some((fd, target(self.pid, fd)?)));
        (found.collect(), more)
    }
}

/// Has the process this file open? `None` if we may not look.
pub fn has_open(pid: i32, dev: u64, ino: u64) -> Option<bool> {
    use std::os::unix::fs::MetadataExt;
    let entries = fs::read_dir(format!("{}/{pid}/fd", base())).ok()?;
    // What it refers to, by the link that the kernel follows without a name.
    let same = |m: fs::Metadata| (m.dev(), m.ino()) == (dev, ino);
    let mut all = entries.flatten().map(|e| fs::metadata(e.path()));
    Some(all.any(|m| m.is_ok_and(same)))
}

/// Inodes registered in that epoll set.
pub fn epoll_members(pid: i32, fd: RawFd) -> Vec<u64> {
    let text = fs::read_to_string(format!("{}/{pid}/fdinfo/{fd}", base())).unwrap_or_default();
    let member = |line: &str| {
        let rest = line.strip_prefix("tfd:")?;
        let ino = rest.split("ino:").nth(1)?.split_whitespace().next()?;
        u64::from_str_radix(ino, 16).ok()
    };
    text.lines().filter_map(member).collect()
}

/// open(2) flags of that descriptor, O_CLOEXEC included.
pub fn open_flags(pid: i32, fd: RawFd) -> Option<i32> {
    let text = fs::read_to_string(format!("{}/{pid}/fdinfo/{fd}", base())).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("flags:"))?;
    i32::from_str_radix(line.trim(), 8).ok()
}

/// The system call a thread sleeps in, with its arguments; `None` if it runs or cannot be seen.
pub fn sleeping_in(pid: i32, tid: i32) -> Option<(i64, [u64; 6])> {
    let text = fs::read_to_string(format!("{}/{pid}/task/{tid}/syscall", base())).ok()?;
    let mut parts = text.split_whitespace();
    let nr: i64 = parts.next()?.parse().ok()?;
    let mut args = [0u64; 6];
    for a in &mut args {
        let hex = parts.next()?.strip_prefix("0x")?;
        *a = u64::from_str_radix(hex, 16).ok()?;
    }
    Some((nr, args))
}

/// Protocol of a socket that is bound nowhere yet: `TCP`, `UDPv6`, ..
pub fn socket_protocol(pid: i32, fd: RawFd) -> Option<String> {
    let path = std::ffi::CString::new(format!("{}/{pid}/fd/{fd}", base())).ok()?;
    let mut name = [0u8; 32];
    // SAFETY: both strings end with NUL; name has room for its length.
    let n = unsafe {
        libc::getxattr(
            path.as_ptr(),
            c"system.sockprotoname".as_ptr(),
            name.as_mut_ptr().cast(),
            name.len(),
        )
    };
    let n = usize::try_from(n).ok()?;
    let text = std::str::from_utf8(name.get(..n)?).ok()?;
    Some(text.trim_end_matches('\0').to_string())
}

/// Reads another process's memory: as far as it goes.
pub fn read_memory(tid: i32, addr: u64, into: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    let remote = libc::iovec {
        iov_base: addr as *mut libc::c_void,
        iov_len: into.len(),
    };
    // SAFETY: local describes `into`; the kernel checks the remote side.
    let n = cerr(unsafe { libc::process_vm_readv(tid, &local, 1, &remote, 1, 0) });
    match n {
        Ok(n) => Ok(usize::try_from(n).unwrap_or(0)),
        // Where there is no such file either, that is not the reason.
        Err(why) => {
            use std::os::unix::fs::FileExt;
            let file = fs::File::open(format!("{}/{tid}/mem", base()));
            let read = file.and_then(|f| f.read_at(into, addr));
            read.map_err(|e| match e.kind() {
                io::ErrorKind::NotFound => why,
                _ => e,
            })
        }
    }
}

/// The lowest port that everybody may bind, in our network namespace.
pub fn unprivileged_port_start() -> Option<u16> {
    kernel_setting("net/ipv4/ip_unprivileged_port_start")
}

/// From which on Yama lets none but some trace others (kernel.yama.ptrace_scope), if it is there.
pub fn ptrace_scope() -> Option<u8> {
    kernel_setting("kernel/yama/ptrace_scope")
}

/// The highest limit of open files that there can be.
pub fn most_open_files() -> Option<u64> {
    kernel_setting("fs/nr_open")
}

/// May nobody give another name to a file that they may not write? Where that cannot be seen: they may.
pub fn hard_links_are_protected() -> bool {
    kernel_setting("fs/protected_hardlinks").is_some_and(|n: u8| n > 0)
}

/// They are the same in every pid namespace's /proc.
fn kernel_setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    text.trim().parse().ok()
}

/// The command line, for people: blanks between, at most 80 bytes.
pub fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("{}/{pid}/cmdline", base())).unwrap_or_default();
    let text: String = String::from_utf8_lossy(&bytes)
        .trim_end_matches('\0')
        .chars()
        .map(|c| match c {
            '\0' => ' ',
            c if c.is_control() => '?',
            c => c,
        })
        .take(80)
        .collect();
    match text.is_empty() {
        true => "?".to_string(),
        false => text,
    }
}

/// Resident memory in bytes and CPU time in milliseconds.
///
/// The memory is that of `statm`, which sums the kernel's per-CPU counters since Linux 6.17; the
/// field in `stat` never does, and calls a small process that has just begun 0 bytes big.
pub fn usage(pid: i32) -> Option<(u64, u64)> {
    let resident = fs::read_to_string(format!("{}/{pid}/statm", base())).ok()?;
    let resident: u64 = resident.split_whitespace().nth(1)?.parse().ok()?;
    let text = stat(pid)?;
    let number = |n| field::<u64>(&text, n);
    // SAFETY: sysconf takes any number.
    let (tick, page) = unsafe {
        (
            libc::sysconf(libc::_SC_CLK_TCK),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    let tick = u64::try_from(tick).ok().filter(|t| *t > 0)?;
    let page = u64::try_from(page).ok()?;
    let ticks = number(11)?.saturating_add(number(12)?);
    let size = resident.saturating_mul(page);
    Some((size, ticks.saturating_mul(1000) / tick))
}

/// Its `stat` behind the name, which may hold blanks and parentheses.
fn stat(pid: i32) -> Option<String> {
    let text = named(format!("{}/{pid}/stat", base()))?;
    Some(text.rsplit_once(')')?.1.to_string())
}

fn field<T: std::str::FromStr>(stat: &str, n: usize) -> Option<T> {
    stat.split_whitespace().nth(n)?.parse().ok()
}

/// Whose child it is.
pub fn parent_of(pid: i32) -> Option<i32> {
    field(&stat(pid)?, 1)
}

/// Its process group.
pub fn group_of(pid: i32) -> Option<i32> {
    field(&stat(pid)?, 2)
}

/// When it was started, in ticks since the machine was: with its number that is its alone.
pub fn started(pid: i32) -> Option<u64> {
    field(&stat(pid)?, 19)
}

/// By which the machine is known since it was started.
pub fn boot() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_string())
}

/// Has it ended, and waits to be reaped? One whose first thread alone has ended looks so, too.
pub fn is_zombie(pid: i32) -> bool {
    let Some(text) = stat(pid) else { return false };
    field(&text, 0) == Some('Z') && field(&text, 17).is_none_or(|threads: u32| threads <= 1)
}

/// What a process does at a signal that ends whoever does nothing about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// It ends.
    Ends,
    /// So it does when it no longer blocks it, as a shell does for a moment; or it waits for it
    /// (sigwait), and does as it likes.
    Blocks,
    /// It catches or ignores it; or that is not known.
    Lives,
}

/// What it does at that signal.
pub fn habit(pid: i32, signal: i32) -> Habit {
    let text = named(format!("{}/{pid}/status", base())).unwrap_or_default();
    let bit = u32::try_from(signal - 1)
        .ok()
        .and_then(|n| 1u64.checked_shl(n))
        .unwrap_or(0);
    let has = |name| {
        let mask = text.lines().find_map(|l: &str| l.strip_prefix(name))?;
        Some(u64::from_str_radix(mask.trim(), 16).ok()? & bit != 0)
    };
    match (has("SigBlk:"), has("SigIgn:"), has("SigCgt:")) {
        (Some(false), Some(false), Some(false)) => Habit::Ends,
        (Some(true), Some(false), Some(false)) => Habit::Blocks,
        _ => Habit::Lives,
    }
}

/// Are all its threads stopped? One that has ended has none that is not. (One that was listed may have made
/// another one before it stopped: so none may have come since.)
pub fn is_stopped(pid: i32) -> bool {
    let stopped = |tid: i32| {
        let text = named(format!("{}/{pid}/task/{tid}/stat", base()));
        let state = text.and_then(|t| field(t.rsplit_once(')')?.1, 0));
        state.is_none_or(|s: char| matches!(s, 'T' | 't' | 'Z' | 'X'))
    };
    let all = threads(pid);
    all.iter().all(|tid| stopped(*tid)) && threads(pid).iter().all(|tid| all.contains(tid))
}

/// Was it forked and has not executed anything since? Zombies still tell.
pub fn never_execed(pid: i32) -> bool {
    const PF_FORKNOEXEC: u32 = 0x40;
    let flags: Option<u32> = stat(pid).and_then(|s| field(&s, 6));
    flags.is_some_and(|f| f & PF_FORKNOEXEC != 0)
}

/// The working directory by the name the user came by ($PWD, through its symlinks), if it is
/// still true; else by its real name.
pub fn working_directory() -> io::Result<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let here = fs::metadata(".")?;
    let named = std::env::var_os("PWD").map(PathBuf::from);
    let same = |p: &PathBuf| {
        p.is_absolute()
            && fs::metadata(p).is_ok_and(|m| m.dev() == here.dev() && m.ino() == here.ino())
    };
    match named.filter(same) {
        Some(p) => Ok(p),
        None => std::env::current_dir(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usage_of_a_tree_holds_that_of_its_children() {
        // Big enough to be seen where the kernel's counters are only roughly summed, and it says
        // when it is.
        let hold = "held = b'x' * (16 << 20); print(flush=True); input()";
        let mut child = std::process::Command::new("python3")
            .args(["-c", hold])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = [0u8; 1];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut told).unwrap();
        let (me, pid) = (std::process::id().cast_signed(), child.id().cast_signed());
        assert!(tree(me).contains(&pid));
        let tree = super::super::burden::tree(std::iter::once(me), &mut 100_000).unwrap();
        let (own, all) = (usage(pid).unwrap().0, tree.resident);
        child.kill().unwrap();
        child.wait().unwrap();
        let at_least = 16 << 20;
        assert!(
            all > own && own > at_least,
            "{all} in all, {own} of the child (at least {at_least})"
        );
    }

    #[test]
    fn one_whose_name_is_no_text_is_seen_like_any_other() {
        let name = r"open('/proc/self/comm', 'wb').write(b'xxxxxxxxxxxx) \xc3')";
        let stop = "import os; os.kill(os.getpid(), 19)";
        let mut child = std::process::Command::new("python3")
            .args(["-c", &format!("{name}\n{stop}")])
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        while !super::super::wait::is_stopped(pid) {
            std::thread::yield_now();
        }
        let (stopped, rss) = (is_stopped(pid), usage(pid));
        let (parent, habit) = (parent_of(pid), habit(pid, libc::SIGTERM));
        let process = process_of(pid);
        child.kill().unwrap();
        while !is_zombie(pid) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(stopped);
        assert!(rss.is_some_and(|(rss, _)| rss > 100_000), "{rss:?}");
        assert_eq!(parent, Some(std::process::id().cast_signed()));
        assert_eq!((habit, process), (Habit::Ends, Some(pid)));
    }

    #[test]
    fn a_fork_that_has_executed_nothing_is_known_by_it_even_when_it_is_dead() {
        // SAFETY: the child makes one system call and leaves.
        let pid = unsafe {
            match libc::fork() {
                0 => libc::_exit(0),
                pid => pid,
            }
        };
        while !is_zombie(pid) {
            std::thread::yield_now();
        }
        assert!(never_execed(pid));
        super::super::wait::reap(pid).unwrap();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        while !is_zombie(pid) {
            std::thread::yield_now();
        }
        assert!(!never_execed(pid));
        child.wait().unwrap();
        assert!(!never_execed(std::process::id().cast_signed()));
    }

    #[test]
    fn one_whose_first_thread_has_ended_is_no_zombie() {
        // SAFETY: the child makes system calls only: a thread by clone(2) that sleeps on a stack of
        // its own, and the end of the first.
        let pid = unsafe {
            match libc::fork() {
                0 => {
                    extern "C" fn sleep(_: *mut libc::c_void) -> i32 {
                        // SAFETY: no arguments.
                        unsafe { libc::pause() }
                    }
                    let mut stack = [0u64; 8192];
                    let top = stack.as_mut_ptr().add(stack.len()).cast();
                    let flags = libc::CLONE_VM
                        | libc::CLONE_FS
                        | libc::CLONE_FILES
                        | libc::CLONE_SIGHAND
                        | libc::CLONE_THREAD;
                    libc::clone(sleep, top, flags, std::ptr::null_mut());
                    libc::syscall(libc::SYS_exit, 0);
                    libc::_exit(1)
                }
                pid => pid,
            }
        };
        let state = |pid| stat(pid).and_then(|s| field::<char>(&s, 0));
        while state(pid) != Some('Z') {
            std::thread::yield_now();
        }
        assert!(!is_zombie(pid));
        super::super::signal::kill(pid, libc::SIGKILL).unwrap();
        while !is_zombie(pid) {
            std::thread::yield_now();
        }
        super::super::wait::reap(pid).unwrap();
    }

    #[test]
    fn our_own_numbers_can_be_read() {
        let me = i32::try_from(std::process::id()).unwrap();
        let (rss, _cpu) = usage(me).unwrap();
        assert!(rss > 100_000);
        assert_eq!(process_of(me), Some(me));
        assert!(group_of(me).is_some());
        assert!(tree(me).contains(&me));
        let mut buf = [0u8; 4];
        let word = 0x1234_5678u32;
        let n = read_memory(me, (&raw const word) as u64, &mut buf).unwrap();
        assert_eq!((n, u32::from_ne_bytes(buf)), (4, word));
    }
}
