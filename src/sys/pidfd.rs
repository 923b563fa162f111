//! Processes held by descriptor, and descriptors taken out of processes.

use super::cerr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// A descriptor for the process. `pid` must be that of a process, not of a thread.
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; the result, if any, is new (CLOEXEC by definition) and ours alone.
    unsafe {
        let fd = cerr(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        Ok(OwnedFd::from_raw_fd(raw(fd)))
    }
}

/// A descriptor for the thread (Linux 6.9), be it the first of its process or not: the first one may
/// have ended, and its descriptors with it.
pub fn open_thread(tid: i32) -> io::Result<OwnedFd> {
    const PIDFD_THREAD: i32 = libc::O_EXCL;
    // SAFETY: as above.
    unsafe {
        let fd = cerr(libc::syscall(libc::SYS_pidfd_open, tid, PIDFD_THREAD))?;
        Ok(OwnedFd::from_raw_fd(raw(fd)))
    }
}

/// A copy of that process's descriptor. Refused without ptrace rights over it (containers).
pub fn getfd(process: BorrowedFd<'_>, fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: as above; the copy is CLOEXEC by definition.
    unsafe {
        let got = cerr(libc::syscall(
            libc::SYS_pidfd_getfd,
            process.as_raw_fd(),
            fd,
            0,
        ))?;
        Ok(OwnedFd::from_raw_fd(raw(got)))
    }
}

/// A signal to the process, whatever became of its number.
pub fn send_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info: *mut libc::siginfo_t = std::ptr::null_mut();
    let fd = process.as_raw_fd();
    // SAFETY: without a siginfo the kernel makes one as kill(2) does.
    unsafe {
        cerr(libc::syscall(
            libc::SYS_pidfd_send_signal,
            fd,
            signal,
            info,
            0,
        ))
    }
    .map(drop)
}

/// A signal to the process group that this one leads, also when it has ended and others of it have not: who
/// holds the process holds the group's number. Before Linux 6.9 only as long as it has not ended.
pub fn signal_group(process: BorrowedFd<'_>, pid: i32, signal: i32) -> io::Result<()> {
    const TO_GROUP: u32 = 1 << 2;
    let info: *mut libc::siginfo_t = std::ptr::null_mut();
    let fd = process.as_raw_fd();
    // SAFETY: as above.
    let done = unsafe {
        let call = libc::SYS_pidfd_send_signal;
        cerr(libc::syscall(call, fd, signal, info, TO_GROUP)).map(drop)
    };
    match done {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => match has_ended(process) {
            true => Err(io::Error::from_raw_os_error(libc::ESRCH)),
            false => super::signal::kill_group(pid, signal),
        },
        other => other,
    }
}

/// Has the process ended, be it reaped or not?
pub fn has_ended(process: BorrowedFd<'_>) -> bool {
    wait_gone(process, Duration::ZERO)
}

/// Waits until the process has gone, at most that long. True if it has.
pub fn wait_gone(process: BorrowedFd<'_>, limit: Duration) -> bool {
    let mut p = libc::pollfd {
        fd: process.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let begun = super::clock::monotonic();
    loop {
        let spent = Duration::from_nanos(super::clock::monotonic().saturating_sub(begun));
        let left = limit.saturating_sub(spent);
        let ms = i32::try_from(left.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: one valid pollfd.
        let got = unsafe { libc::poll(&mut p, 1, ms) };
        // A signal that came meanwhile is somebody else's business.
        if got != -1 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return got == 1;
        }
    }
}

fn raw(n: libc::c_long) -> RawFd {
    RawFd::try_from(n).unwrap_or(-1)
}
