//! Signals sent, and the signal state around fork.

use super::cerr;
use std::io;

/// To one process. `pid` must be an unreaped child of ours, or be proven by a pidfd.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    assert!(pid > 1, "kill({pid}) would reach strangers");
    // SAFETY: plain numbers.
    unsafe { cerr(libc::kill(pid, signal)) }.map(drop)
}

/// To a process group.
pub fn kill_group(pgid: i32, signal: i32) -> io::Result<()> {
    assert!(pgid > 1, "kill(-{pgid}) would reach strangers");
    // SAFETY: plain numbers.
    unsafe { cerr(libc::kill(-pgid, signal)) }.map(drop)
}

/// To every process of our pid namespace but ourselves, and no fork escapes it. Only for the first
/// one of a namespace, and in its end: all of it ends with that one anyway.
pub fn kill_all(signal: i32) -> io::Result<()> {
    assert!(
        super::process::is_first(),
        "kill(-1) would reach strangers: we are not PID 1"
    );
    // SAFETY: plain numbers.
    unsafe { cerr(libc::kill(-1, signal)) }.map(drop)
}

/// Is there a process (zombies count) in that group?
pub fn group_exists(pgid: i32) -> bool {
    match kill_group(pgid, 0) {
        Ok(()) => true,
        Err(e) => e.raw_os_error() != Some(libc::ESRCH),
    }
}

/// Is the signal ignored, as nohup(1) leaves SIGHUP?
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: sigaction is plain data that the kernel fills; a null new action only asks.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut old) == 0
            && old.sa_sigaction == libc::SIG_IGN
    }
}

/// Ignores it from here on. Children are given the default back.
pub fn ignore(signal: i32) {
    // SAFETY: SIG_IGN is a valid disposition and runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// All signals blocked from here to the drop: no handler of ours runs in a child that still
/// shares our self-pipe.
pub struct Blocked(libc::sigset_t);

impl Blocked {
    /// Blocks them.
    pub fn all() -> Blocked {
        // SAFETY: both sets are plain data filled by these calls.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut old: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::sigprocmask(libc::SIG_BLOCK, &all, &mut old);
            Blocked(old)
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled by sigprocmask.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

/// Unblocks everything: whoever started us may have had signals blocked.
pub fn unblock_all() {
    // SAFETY: the set is plain data filled by sigemptyset.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}
