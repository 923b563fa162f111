//! Children that have ended: seen first, reaped later, so that a zombie leader can still be named
//! as its group.

use super::burden::micros;
use super::cerr;
use std::io;

/// How a child ended, as wait(2) tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By exit with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Not at all: it has made us its tracer (PTRACE_TRACEME), and stopped at this signal. It is
    /// shown whatever is asked for, and would hide all others.
    Stopped(i32),
}

/// A child that has ended and is not reaped. Returns the same one until it is.
pub fn peek() -> io::Result<Option<(i32, Ended)>> {
    // SAFETY: siginfo_t is plain data that the kernel fills; zeroed it says "nobody" (pid 0).
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        match cerr(libc::waitid(libc::P_ALL, 0, &mut info, flags)) {
            Ok(_) => {}
            Err(e) if e.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
            Err(e) => return Err(e),
        }
        // SAFETY: waitid filled the SIGCHLD part of the union, or left it zeroed.
        let (pid, status) = (info.si_pid(), info.si_status());
        if pid == 0 {
            return Ok(None);
        }
        let ended = match info.si_code {
            libc::CLD_EXITED => Ended::Code(status),
            libc::CLD_KILLED | libc::CLD_DUMPED => Ended::Signal(status),
            _ => Ended::Stopped(status),
        };
        Ok(Some((pid, ended)))
    }
}

/// Have we a child, ended or not: at all, or in that process group? Without /proc, and nothing that
/// is ours can vanish unreaped, so the number of such a group is certainly still its own.
pub fn any_child(group: Option<i32>) -> bool {
    let (kind, id) = match group {
        Some(group) => (libc::P_PGID, group.unsigned_abs()),
        None => (libc::P_ALL, 0),
    };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT | libc::__WALL;
    // SAFETY: siginfo_t is plain data that the kernel fills.
    let looked = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        cerr(libc::waitid(kind, id, &mut info, flags))
    };
    looked.is_ok()
}

/// Is that child stopped, with all its threads?
pub fn is_stopped(pid: i32) -> bool {
    let flags = libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: siginfo_t is plain data that the kernel fills; zeroed it says "nobody" (pid 0).
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let looked = libc::waitid(libc::P_PID, pid.unsigned_abs(), &mut info, flags);
        looked == 0 && info.si_pid() == pid
    }
}

/// Lets a child that stopped go on, with that signal and without us.
pub fn let_go(pid: i32, signal: i32) -> io::Result<()> {
    let none: *mut libc::c_void = std::ptr::null_mut();
    // SAFETY: detaching from a tracee reads nothing of ours.
    cerr(unsafe { libc::ptrace(libc::PTRACE_DETACH, pid, none, libc::c_long::from(signal)) })
        .map(drop)
}

/// Reaps exactly this one, which `peek` has shown. So much CPU time it has used, with all that it has
/// waited for itself, in microseconds.
pub fn reap(pid: i32) -> io::Result<u64> {
    // SAFETY: a null status is allowed; rusage is plain data that the kernel fills.
    unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        let status = std::ptr::null_mut();
        cerr(libc::wait4(pid, status, libc::WNOHANG, &mut used)).map(|_| micros(&used))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{procfs, signal};
    use std::os::unix::process::CommandExt;

    #[test]
    fn a_child_is_stopped_until_it_goes_on() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        assert!(!is_stopped(pid) && !procfs::is_stopped(pid));
        for _ in 0..2 {
            signal::kill(pid, libc::SIGSTOP).unwrap();
            while !is_stopped(pid) {
                std::thread::yield_now();
            }
            assert!(procfs::is_stopped(pid));
            signal::kill(pid, libc::SIGCONT).unwrap();
            while procfs::is_stopped(pid) {
                std::thread::yield_now();
            }
            assert!(!is_stopped(pid));
        }
        assert_eq!(procfs::habit(pid, libc::SIGTERM), procfs::Habit::Ends);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_stopped(pid));
        assert_eq!(procfs::habit(pid, libc::SIGTERM), procfs::Habit::Lives);
    }

    #[test]
    fn a_child_is_known_by_its_group_until_it_is_reaped() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .process_group(0)
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        assert!(any_child(None) && any_child(Some(pid)));
        child.kill().unwrap();
        while !crate::sys::procfs::is_zombie(pid) {
            std::thread::yield_now();
        }
        assert!(any_child(Some(pid)), "a zombie holds the number, too");
        child.wait().unwrap();
        assert!(!any_child(Some(pid)));
    }
}
