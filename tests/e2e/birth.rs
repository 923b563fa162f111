//! What a master can be born with: another user, signals ignored or blocked, a terminal, open
//! descriptors, limits, few CPUs. The only room of these tests that says `unsafe`: each block makes
//! system calls only, most of them between fork and exec.

#![allow(unsafe_code)]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The user and group that own nothing.
pub const NOBODY: u32 = 65534;

/// Are we root? Then `as_nobody` really changes who runs.
pub fn root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Options for unshare(1): whoever runs the tests without being root needs a user namespace, too.
pub fn namespaces(options: &str) -> String {
    match root() {
        true => options.to_string(),
        false => options.replacen('-', "-r", 1),
    }
}

/// Unprivileged. Whoever runs the tests without being root is unprivileged already.
pub fn as_nobody(cmd: &mut Command) {
    if root() {
        cmd.uid(NOBODY).gid(NOBODY);
    }
}

/// Makes that file or directory nobody's.
pub fn give_to_nobody(path: &Path) {
    if root() {
        std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

/// Makes it root's again.
pub fn give_to_root(path: &Path) {
    std::os::unix::fs::chown(path, Some(0), Some(0)).unwrap();
}

/// Before exec, in the child.
fn in_child(cmd: &mut Command, mut f: impl FnMut() -> i32 + Send + Sync + 'static) {
    let wrapped = move || match f() {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: all callers, below, only make system calls on plain numbers.
    unsafe { cmd.pre_exec(wrapped) };
}

/// With every signal as a program expects to find it, whatever runs the tests (`nohup make test`)
/// has done to them.
pub fn with_default_signals(cmd: &mut Command) {
    in_child(cmd, || {
        for n in 1..=31 {
            // SAFETY: SIG_DFL is no code of ours; KILL and STOP refuse, and need nothing.
            unsafe { libc::signal(n, libc::SIG_DFL) };
        }
        0
    });
}

/// With these signals ignored.
pub fn ignoring(cmd: &mut Command, signals: &'static [i32]) {
    in_child(cmd, move || {
        for n in signals {
            // SAFETY: SIG_IGN is no code of ours.
            unsafe { libc::signal(*n, libc::SIG_IGN) };
        }
        0
    });
}

/// With these signals blocked.
pub fn blocking(cmd: &mut Command, signals: &'static [i32]) {
    in_child(cmd, move || {
        // SAFETY: a sigset_t is plain data, here on the stack.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for n in signals {
                libc::sigaddset(&mut set, *n);
            }
            libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())
        }
    });
}

/// It leaves no image of its memory, whatever ends it.
pub fn without_core(cmd: &mut Command) {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the limit outlives the call.
    in_child(cmd, move || unsafe {
        libc::setrlimit(libc::RLIMIT_CORE, &none)
    });
}

/// In a session of its own, without a terminal.
pub fn without_terminal(cmd: &mut Command) {
    // SAFETY: a system call without arguments.
    in_child(cmd, || unsafe { libc::setsid() });
}

/// In a session of its own whose terminal is this.
pub fn on_terminal(cmd: &mut Command, terminal: OwnedFd) {
    in_child(cmd, move || {
        // SAFETY: `terminal` is open as long as this closure lives.
        unsafe {
            libc::setsid();
            libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0)
        }
    });
}

/// A terminal: its far side, whose close hangs it up, and the side that programs see.
pub fn open_terminal() -> (OwnedFd, OwnedFd) {
    let mut name = [0; 128];
    // SAFETY: name is longer than any name of a terminal; both descriptors are new and ours.
    unsafe {
        let far = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(far >= 0, "{}", io::Error::last_os_error());
        assert_eq!(libc::grantpt(far), 0);
        assert_eq!(libc::unlockpt(far), 0);
        assert_eq!(libc::ptsname_r(far, name.as_mut_ptr(), name.len()), 0);
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        let near = libc::open(name.as_ptr(), flags);
        assert!(near >= 0, "{}", io::Error::last_os_error());
        (OwnedFd::from_raw_fd(far), OwnedFd::from_raw_fd(near))
    }
}

/// connect(2) of a socket that has an address already.
pub fn connect(fd: &impl AsRawFd, to: SocketAddr) -> io::Result<()> {
    // SAFETY: both address structures are plain data, complete, and outlive the call.
    let done = unsafe {
        match to {
            SocketAddr::V4(a) => {
                let mut to: libc::sockaddr_in = std::mem::zeroed();
                to.sin_family = libc::AF_INET as _;
                to.sin_port = a.port().to_be();
                to.sin_addr.s_addr = u32::from_ne_bytes(a.ip().octets());
                libc::connect(
                    fd.as_raw_fd(),
                    (&raw const to).cast(),
                    size_of_val(&to) as _,
                )
            }
            SocketAddr::V6(a) => {
                let mut to: libc::sockaddr_in6 = std::mem::zeroed();
                to.sin6_family = libc::AF_INET6 as _;
                to.sin6_port = a.port().to_be();
                to.sin6_addr.s6_addr = a.ip().octets();
                libc::connect(
                    fd.as_raw_fd(),
                    (&raw const to).cast(),
                    size_of_val(&to) as _,
                )
            }
        }
    };
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// How many bytes wait there to be read.
pub fn to_be_read(fd: &impl AsRawFd) -> i32 {
    let mut bytes = 0;
    // SAFETY: the kernel writes one int.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
    bytes
}

/// With these numbers open on /dev/null, to be inherited by exec.
pub fn with_descriptors(cmd: &mut Command, numbers: &'static [i32]) {
    let null = std::fs::File::open("/dev/null").unwrap();
    in_child(cmd, move || {
        for n in numbers {
            // SAFETY: dup2 clears CLOEXEC on the new one.
            unsafe { libc::dup2(null.as_raw_fd(), *n) };
        }
        0
    });
}

/// With this open under that number, to be inherited by exec.
pub fn passing(cmd: &mut Command, what: &impl AsRawFd, number: i32) {
    let from = what.as_raw_fd();
    // SAFETY: dup2 clears CLOEXEC on the new one, unless it is the old one; whoever calls us has that
    // open meanwhile.
    in_child(cmd, move || unsafe {
        match from == number {
            true => libc::fcntl(number, libc::F_SETFD, 0),
            false => libc::dup2(from, number),
        }
    });
}

/// A descriptor that was sent to us.
pub fn owned(fd: i32) -> OwnedFd {
    // SAFETY: it is new, and ours alone.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// With these limits of open files, soft and hard.
pub fn with_nofile(cmd: &mut Command, soft: u64, hard: u64) {
    in_child(cmd, move || {
        let limit = libc::rlimit {
            rlim_cur: soft,
            rlim_max: hard,
        };
        // SAFETY: limit outlives the call.
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }
    });
}

/// On one of the CPUs that we may use.
pub fn on_one_cpu(cmd: &mut Command) {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    use nix::unistd::Pid;
    let ours = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let first = (0..CpuSet::count()).find(|n| ours.is_set(*n).unwrap());
    let mut one = CpuSet::new();
    one.set(first.unwrap()).unwrap();
    in_child(cmd, move || {
        sched_setaffinity(Pid::from_raw(0), &one).map_or(-1, |()| 0)
    });
}
