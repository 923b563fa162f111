//! Seccomp user notification: a worker's bind(2) and listen(2) stop and ask us; its unlink(2), too, where
//! there are unix sockets that it might remove.

use super::{cerr, fds};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xC000_00B7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("takeover knows the system call numbers of x86-64 and arm64 only");

const LD_W_ABS: u16 = 0x20;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;
/// Offsets into struct seccomp_data.
const OFF_NR: u32 = 0;
const OFF_ARCH: u32 = 4;
/// Low half of args[2], bind's address length (both architectures are little endian).
const OFF_ARG2: u32 = 16 + 2 * 8;
/// The smallest address that can be AF_INET. Netlink's is 12 and passes without asking us:
/// getaddrinfo(3) binds one on every call.
const SOCKADDR_IN: u32 = 16;
/// Family and a path of one byte.
const SOCKADDR_UN: u32 = 3;

const fn op(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// unlink(2), where there is one: younger architectures have unlinkat(2) alone.
#[cfg(target_arch = "x86_64")]
const SYS_UNLINK: libc::c_long = libc::SYS_unlink;
#[cfg(not(target_arch = "x86_64"))]
const SYS_UNLINK: libc::c_long = libc::SYS_unlinkat;

/// Other architecture: allow. bind with a long enough address, listen: ask. All else: allow.
static PROGRAM: [libc::sock_filter; 9] = [
    op(LD_W_ABS, OFF_ARCH, 0, 0),
    op(JEQ, AUDIT_ARCH, 0, 5),
    op(LD_W_ABS, OFF_NR, 0, 0),
    op(JEQ, libc::SYS_listen as u32, 4, 0),
    op(JEQ, libc::SYS_bind as u32, 0, 2),
    op(LD_W_ABS, OFF_ARG2, 0, 0),
    op(JGE, SOCKADDR_IN, 1, 0),
    op(RET, libc::SECCOMP_RET_ALLOW, 0, 0),
    op(RET, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
];

/// The same for addresses of unix sockets, which may be as short as their path is (now Netlink's
/// ask, too), and for the removal of names.
static PROGRAM_UNIX: [libc::sock_filter; 11] = [
    op(LD_W_ABS, OFF_ARCH, 0, 0),
    op(JEQ, AUDIT_ARCH, 0, 7),
    op(LD_W_ABS, OFF_NR, 0, 0),
    op(JEQ, libc::SYS_listen as u32, 6, 0),
    op(JEQ, SYS_UNLINK as u32, 5, 0),
    op(JEQ, libc::SYS_unlinkat as u32, 4, 0),
    op(JEQ, libc::SYS_bind as u32, 0, 2),
    op(LD_W_ABS, OFF_ARG2, 0, 0),
    op(JGE, SOCKADDR_UN, 1, 0),
    op(RET, libc::SECCOMP_RET_ALLOW, 0, 0),
    op(RET, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
];

const NEW_LISTENER: libc::c_ulong = 1 << 3;
const SPEC_ALLOW: libc::c_ulong = 1 << 2;
/// Linux 5.19: a signal does not break the call once we have received it.
const WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;

/// Installs the filter on this process and returns the listener. In a child between fork and
/// exec: makes system calls only.
pub(super) fn install(unix: bool) -> Result<RawFd, i32> {
    let program: &[libc::sock_filter] = match unix {
        true => &PROGRAM_UNIX,
        false => &PROGRAM,
    };
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    let set = |flags: libc::c_ulong| {
        // SAFETY: the kernel copies the program, which is static, and does not write to it.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                flags,
                &raw const program,
            )
        };
        match RawFd::try_from(fd) {
            Ok(fd) if fd >= 0 => Ok(fd),
            // SAFETY: errno of this thread.
            _ => Err(unsafe { *libc::__errno_location() }),
        }
    };
    let mut got = set(NEW_LISTENER | WAIT_KILLABLE_RECV | SPEC_ALLOW);
    if got == Err(libc::EACCES) {
        // Without CAP_SYS_ADMIN no_new_privs is the price. With it we do not pay: setuid helpers
        // and file capabilities go on working in workers.
        // SAFETY: prctl with plain numbers.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        got = set(NEW_LISTENER | WAIT_KILLABLE_RECV | SPEC_ALLOW);
    }
    match got {
        Err(libc::EINVAL) => set(NEW_LISTENER),
        other => other,
    }
}

/// Which call waits for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// bind(2)
    Bind,
    /// listen(2)
    Listen,
    /// unlink(2)
    Unlink,
    /// unlinkat(2)
    UnlinkAt,
    /// Something the filter does not let through; cannot be.
    Other,
}

/// One call of one thread, waiting.
#[derive(Clone, Copy, Debug)]
pub struct Notification {
    /// The kernel's cookie.
    pub id: u64,
    /// The thread that calls; as seen from our pid namespace, 0 if it is not seen there.
    pub tid: i32,
    /// Which call.
    pub call: Call,
    /// Its arguments.
    pub args: [u64; 6],
}

/// As the kernel has it; larger ones of later kernels are cut by `RECV`'s own size in the number.
#[repr(C)]
#[derive(Clone, Copy)]
struct RawNotif {
    id: u64,
    pid: u32,
    flags: u32,
    nr: i32,
    arch: u32,
    ip: u64,
    args: [u64; 6],
}

#[repr(C)]
struct RawResp {
    id: u64,
    val: i64,
    error: i32,
    flags: u32,
}

#[repr(C)]
struct RawAddFd {
    id: u64,
    flags: u32,
    srcfd: u32,
    newfd: u32,
    newfd_flags: u32,
}

const RECV: libc::c_ulong = 0xC050_2100;
const SEND: libc::c_ulong = 0xC018_2101;
const ID_VALID: libc::c_ulong = 0x4008_2102;
const ADDFD: libc::c_ulong = 0x4018_2103;
const FLAG_CONTINUE: u32 = 1;
const ADDFD_SETFD: u32 = 1;

/// The next call that waits, if one does. Never blocks: RECV would, so it is asked first.
pub fn receive(listener: BorrowedFd<'_>) -> io::Result<Option<Notification>> {
    if !fds::readable_now(listener) {
        return Ok(None);
    }
    let mut raw = RawNotif {
        id: 0,
        pid: 0,
        flags: 0,
        nr: 0,
        arch: 0,
        ip: 0,
        args: [0; 6],
    };
    // SAFETY: raw is zeroed, as the kernel demands, and as large as the number RECV says.
    let got = cerr(unsafe { libc::ioctl(listener.as_raw_fd(), RECV as _, &raw mut raw) });
    match got {
        Ok(_) => {}
        // The caller died or was interrupted between the poll and the ioctl.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => return Ok(None),
        Err(e) => return Err(e),
    }
    let call = match libc::c_long::from(raw.nr) {
        libc::SYS_bind => Call::Bind,
        libc::SYS_listen => Call::Listen,
        libc::SYS_unlinkat => Call::UnlinkAt,
        SYS_UNLINK => Call::Unlink,
        _ => Call::Other,
    };
    Ok(Some(Notification {
        id: raw.id,
        tid: i32::try_from(raw.pid).unwrap_or(0),
        call,
        args: raw.args,
    }))
}

/// Does that thread still wait? If so, what we read from it between then and now was its own.
pub fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one u64.
    unsafe { libc::ioctl(listener.as_raw_fd(), ID_VALID as _, &raw const id) == 0 }
}

/// Puts our descriptor onto that number of the caller's.
pub fn put_fd(
    listener: BorrowedFd<'_>,
    id: u64,
    ours: BorrowedFd<'_>,
    theirs: RawFd,
    cloexec: bool,
) -> io::Result<()> {
    if theirs < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    let add = RawAddFd {
        id,
        flags: ADDFD_SETFD,
        srcfd: ours.as_raw_fd().unsigned_abs(),
        newfd: theirs.unsigned_abs(),
        newfd_flags: match cloexec {
            true => libc::O_CLOEXEC.unsigned_abs(),
            false => 0,
        },
    };
    // SAFETY: the kernel reads one RawAddFd; ours is open.
    cerr(unsafe { libc::ioctl(listener.as_raw_fd(), ADDFD as _, &raw const add) }).map(drop)
}

/// Answers the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It returns 0.
    Zero,
    /// It fails with this errno.
    Error(i32),
    /// The kernel executes it.
    Continue,
}

/// Sends the answer. ENOENT (the caller has gone) is normal.
pub fn answer(listener: BorrowedFd<'_>, id: u64, answer: Answer) -> io::Result<()> {
    let (error, flags) = match answer {
        Answer::Zero => (0, 0),
        Answer::Error(e) => (-e, 0),
        Answer::Continue => (0, FLAG_CONTINUE),
    };
    let resp = RawResp {
        id,
        val: 0,
        error,
        flags,
    };
    // SAFETY: the kernel reads one RawResp.
    match cerr(unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &raw const resp) }) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the classic BPF program on one system call.
    fn verdict(program: &[libc::sock_filter], arch: u32, nr: u32, len: u32) -> u32 {
        let (mut pc, mut acc) = (0usize, 0u32);
        loop {
            let i = program[pc];
            pc += 1;
            let jump = |yes: bool| usize::from(if yes { i.jt } else { i.jf });
            match i.code {
                LD_W_ABS => {
                    acc = match i.k {
                        OFF_ARCH => arch,
                        OFF_NR => nr,
                        OFF_ARG2 => len,
                        k => panic!("load of {k}"),
                    }
                }
                JEQ => pc += jump(acc == i.k),
                JGE => pc += jump(acc >= i.k),
                RET => return i.k,
                code => panic!("code {code}"),
            }
        }
    }

    #[test]
    fn the_filter_asks_for_bind_and_listen_and_nothing_else() {
        let (ask, allow) = (libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_RET_ALLOW);
        let (bind, listen) = (libc::SYS_bind as u32, libc::SYS_listen as u32);
        for (arch, nr, len, want) in [
            (AUDIT_ARCH, bind, 16, ask),
            (AUDIT_ARCH, bind, 28, ask),
            (AUDIT_ARCH, bind, 128, ask),
            (AUDIT_ARCH, bind, 12, allow),
            (AUDIT_ARCH, listen, 5, ask),
            (AUDIT_ARCH, listen, 4096, ask),
            (AUDIT_ARCH, libc::SYS_read as u32, 4096, allow),
            (AUDIT_ARCH, libc::SYS_connect as u32, 16, allow),
            (0x4000_0003, bind, 16, allow),
            (0x4000_0003, listen, 16, allow),
        ] {
            let got = verdict(&PROGRAM, arch, nr, len);
            assert_eq!(got, want, "{arch:x} {nr} {len}");
        }
        for (len, want) in [(2, allow), (3, ask), (12, ask), (16, ask)] {
            assert_eq!(verdict(&PROGRAM_UNIX, AUDIT_ARCH, bind, len), want, "{len}");
        }
        let (read, mkdir) = (libc::SYS_read as u32, libc::SYS_mkdirat as u32);
        for (nr, in_unix) in [
            (listen, ask),
            (SYS_UNLINK as u32, ask),
            (libc::SYS_unlinkat as u32, ask),
            (read, allow),
            (mkdir, allow),
        ] {
            assert_eq!(
                verdict(&PROGRAM_UNIX, AUDIT_ARCH, nr, 4096),
                in_unix,
                "{nr}"
            );
            let elsewhere = if nr == listen { ask } else { allow };
            assert_eq!(verdict(&PROGRAM, AUDIT_ARCH, nr, 4096), elsewhere, "{nr}");
            assert_eq!(verdict(&PROGRAM_UNIX, 0x4000_0003, nr, 4096), allow, "{nr}");
        }
    }

    #[test]
    fn the_structures_have_the_sizes_in_the_ioctl_numbers() {
        let size = |n: libc::c_ulong| (n >> 16 & 0x3fff) as usize;
        assert_eq!(size(RECV), size_of::<RawNotif>());
        assert_eq!(size(SEND), size_of::<RawResp>());
        assert_eq!(size(ADDFD), size_of::<RawAddFd>());
    }
}
