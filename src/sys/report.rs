//! What a child tells its master on its way to exec: by messages of one size over a socket that exec
//! closes. What the child calls of it makes system calls only.

use super::cerr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

/// One message of a child on its way to exec.
#[derive(Debug)]
pub enum Report {
    /// Here is the listener of its filter.
    Listener(OwnedFd),
    /// The filter could not be installed; it goes on without, or gives up.
    Unwatched(i32),
    /// It will not end with its master; it goes on.
    Outlives(i32),
    /// It has come as far as exec, and executes nothing (`spawn::fork_call`).
    Arrived,
    /// This failed, and the child has left.
    Failed(&'static str, i32),
    /// The socket was closed: by exec, or by the child's end.
    Closed,
}

/// The steps on the way, and their names, for messages; core knows which of them are worth another try.
macro_rules! steps {
    ($($step:ident $name:literal)*) => {
        #[derive(Clone, Copy)]
        #[repr(u8)]
        pub(super) enum Step {
            $($step),*
        }

        const STEPS: &[&str] = &[$($name),*];

        impl Step {
            fn name(self) -> &'static str {
                match self {
                    $(Step::$step => $name),*
                }
            }
        }
    };
}

steps! {
    Group "setpgid"
    Cgroup "cgroup.procs"
    Limits "setrlimit"
    Nice "setpriority"
    Affinity "sched_setaffinity"
    Chdir "chdir"
    Fds "dup2"
    Filter "seccomp"
    Groups "setgroups"
    Gid "setgid"
    Uid "setuid"
    MasterGone "the master has gone"
    Exec "exec"
}

const LISTENER: u8 = 1;
const UNWATCHED: u8 = 2;
const FAILED: u8 = 3;
const ARRIVED: u8 = 4;
const OUTLIVES: u8 = 5;
/// kind, step, errno (four bytes).
const MESSAGE: usize = 6;

/// A report socket: ours (not blocking) and the child's.
pub fn report_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends: [RawFd; 2] = [-1; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: ends has room for two; both results are new and ours alone.
    unsafe {
        cerr(libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()))?;
        let ours = OwnedFd::from_raw_fd(ends[0]);
        let theirs = OwnedFd::from_raw_fd(ends[1]);
        let flags = cerr(libc::fcntl(ends[0], libc::F_GETFL))?;
        cerr(libc::fcntl(
            ends[0],
            libc::F_SETFL,
            flags | libc::O_NONBLOCK,
        ))?;
        Ok((ours, theirs))
    }
}

/// It may execute its program now. (One that has ended does not mind.)
pub fn give_leave(ours: BorrowedFd<'_>) {
    let byte = [0u8; 1];
    // SAFETY: one byte of ours.
    unsafe {
        libc::send(
            ours.as_raw_fd(),
            byte.as_ptr().cast(),
            1,
            libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
        )
    };
}

/// Waits for that. It has our end as well, so that it hears nothing of our death: it ends by that, or, where the
/// kernel does not see to it, looks whether we are there still.
///
/// # Safety
/// In a child of that master, whose end this is.
pub(super) unsafe fn await_leave(report: RawFd, master: u32) {
    const LOOKS: i32 = 500;
    let mut byte = [0u8; 1];
    let mut hears = libc::pollfd {
        fd: report,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one byte, and one pollfd, of ours.
    unsafe {
        while libc::poll(&mut hears, 1, LOOKS) == 0 {
            if libc::getppid().unsigned_abs() != master {
                libc::_exit(1);
            }
        }
        if libc::recv(report, byte.as_mut_ptr().cast(), 1, 0) != 1 {
            libc::_exit(1);
        }
    }
}

/// The next message. `None`: none yet.
pub fn receive(ours: BorrowedFd<'_>) -> io::Result<Option<Report>> {
    let mut bytes = [0u8; MESSAGE];
    // Room for one descriptor; u64s for the alignment of cmsghdr.
    let mut control = [0u64; 4];
    let mut iov = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: MESSAGE,
    };
    // SAFETY: all buffers outlive the call; a msghdr is plain data; the descriptor, if the kernel
    // says that it gave one, is new (CLOEXEC by the flag) and ours alone.
    let (got, fd) = unsafe {
        let mut msg: libc::msghdr = std::mem::zeroed();
        msg.msg_iov = &mut iov;
        msg.msg_iovlen = 1;
        msg.msg_control = control.as_mut_ptr().cast();
        msg.msg_controllen = size_of_val(&control) as _;
        let got = libc::recvmsg(ours.as_raw_fd(), &mut msg, libc::MSG_CMSG_CLOEXEC);
        let got = match cerr(got) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            // The child died with something unread of ours; there is nothing of ours.
            Err(e) if e.raw_os_error() == Some(libc::ECONNRESET) => 0,
            Err(e) => return Err(e),
        };
        let cmsg = libc::CMSG_FIRSTHDR(&msg);
        let has = !cmsg.is_null()
            && (*cmsg).cmsg_level == libc::SOL_SOCKET
            && (*cmsg).cmsg_type == libc::SCM_RIGHTS;
        let fd = has.then(|| {
            let raw = libc::CMSG_DATA(cmsg).cast::<RawFd>().read_unaligned();
            OwnedFd::from_raw_fd(raw)
        });
        (got, fd)
    };
    if got == 0 {
        return Ok(Some(Report::Closed));
    }
    let errno = i32::from_ne_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
    let step = STEPS.get(usize::from(bytes[1])).copied().unwrap_or("exec");
    Ok(Some(match (bytes[0], fd) {
        (LISTENER, Some(fd)) => Report::Listener(fd),
        (ARRIVED, _) => Report::Arrived,
        (OUTLIVES, _) => Report::Outlives(errno),
        (UNWATCHED, _) | (LISTENER, None) => Report::Unwatched(errno),
        _ => Report::Failed(step, errno),
    }))
}

/// What `exec_here` does when it cannot: it is told the step and its errno.
static INSTEAD: OnceLock<fn(&'static str, i32) -> !> = OnceLock::new();

/// Who has no master says so by this, and leaves.
pub(super) fn say_instead(instead: fn(&'static str, i32) -> !) {
    let _ = INSTEAD.set(instead);
}

/// What the child was about has failed, for the reason in errno: it says so, and leaves.
///
/// # Safety
/// Only in a child that may do nothing but system calls, or in who has no master.
pub(super) unsafe fn fail(report: RawFd, step: Step) -> ! {
    // SAFETY: as above; errno of this thread.
    unsafe {
        let errno = *libc::__errno_location();
        if report < 0
            && let Some(instead) = INSTEAD.get()
        {
            instead(step.name(), errno);
        }
        let e = errno.to_ne_bytes();
        send(report, [FAILED, step as u8, e[0], e[1], e[2], e[3]], None);
        libc::_exit(127)
    }
}

/// Here is the listener of its filter. False: nobody has it now.
///
/// # Safety
/// As `fail`.
pub(super) unsafe fn give_listener(report: RawFd, listener: RawFd) -> bool {
    // SAFETY: as `fail`.
    unsafe { send(report, [LISTENER, 0, 0, 0, 0, 0], Some(listener)) >= 0 }
}

/// It has come as far as exec, and that is all: what exec would close stays open.
///
/// # Safety
/// As `fail`.
pub(super) unsafe fn say_arrived(report: RawFd) {
    // SAFETY: as `fail`.
    unsafe { send(report, [ARRIVED, 0, 0, 0, 0, 0], None) };
}

/// Its master's end will not be its own.
///
/// # Safety
/// As `fail`.
pub(super) unsafe fn say_outlives(report: RawFd, errno: i32) {
    let e = errno.to_ne_bytes();
    // SAFETY: as `fail`.
    unsafe { send(report, [OUTLIVES, 0, e[0], e[1], e[2], e[3]], None) };
}

/// It has no filter.
///
/// # Safety
/// As `fail`.
pub(super) unsafe fn say_unwatched(report: RawFd, errno: i32) {
    let e = errno.to_ne_bytes();
    // SAFETY: as `fail`.
    unsafe { send(report, [UNWATCHED, 0, e[0], e[1], e[2], e[3]], None) };
}

/// # Safety
/// As `fail`.
unsafe fn send(report: RawFd, mut bytes: [u8; MESSAGE], fd: Option<RawFd>) -> isize {
    let mut control = [0u64; 4];
    let mut iov = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: MESSAGE,
    };
    // SAFETY: all buffers outlive the call; control has room for one descriptor's message.
    unsafe {
        let mut msg: libc::msghdr = std::mem::zeroed();
        msg.msg_iov = &mut iov;
        msg.msg_iovlen = 1;
        if let Some(fd) = fd {
            msg.msg_control = control.as_mut_ptr().cast();
            msg.msg_controllen = libc::CMSG_SPACE(4) as _;
            let cmsg = libc::CMSG_FIRSTHDR(&msg);
            (*cmsg).cmsg_level = libc::SOL_SOCKET;
            (*cmsg).cmsg_type = libc::SCM_RIGHTS;
            (*cmsg).cmsg_len = libc::CMSG_LEN(4) as _;
            libc::CMSG_DATA(cmsg).cast::<RawFd>().write_unaligned(fd);
        }
        libc::sendmsg(report, &msg, libc::MSG_NOSIGNAL)
    }
}
