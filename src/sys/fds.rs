//! Descriptors in general.

use super::cerr;
use super::procfs::Target;
use nix::sys::socket::{MsgFlags, sendmsg};
use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Marks every descriptor that we were born with, from 3 on, CLOEXEC: workers get what we hand
/// them and nothing else.
pub fn seal_inherited() {
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC only sets flags on descriptors.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    if done == 0 {
        return;
    }
    // Before Linux 5.11, or forbidden: one by one as far as the limit says.
    let limit = super::process::nofile().map_or(1024, |(soft, _)| soft.min(65_536));
    for fd in 3..i32::try_from(limit).unwrap_or(1024) {
        // SAFETY: setting a flag on a number that may be no descriptor fails harmlessly.
        unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Closes what we were born with from 3 on, but for these: somebody may wait for the end of it, and a
/// daemon would never let go. Nothing of ours may be open by then, unless it is one of these.
pub fn close_inherited(keep: &[RawFd]) {
    let listed = std::fs::read_dir("/proc/self/fd").map(|dir| {
        let names = dir.flatten().map(|e| e.file_name());
        names.filter_map(|n| n.to_str()?.parse().ok()).collect()
    });
    let limit = super::process::nofile().map_or(1024, |(soft, _)| soft.min(65_536));
    let all: Vec<RawFd> =
        listed.unwrap_or_else(|_| (3..i32::try_from(limit).unwrap_or(1024)).collect());
    for fd in all.into_iter().filter(|fd| *fd > 2 && !keep.contains(fd)) {
        // SAFETY: by contract nobody of ours owns it; closing what is not open fails harmlessly.
        unsafe { libc::close(fd) };
    }
}

/// Numbers of those that are open, from 3 on, where /proc tells.
pub fn open_ones() -> Vec<RawFd> {
    let listed = std::fs::read_dir("/proc/self/fd").map(|dir| {
        let names = dir.flatten().map(|e| e.file_name());
        names.filter_map(|n| n.to_str()?.parse().ok()).collect()
    });
    let listed: Vec<RawFd> = listed.unwrap_or_default();
    // SAFETY: to ask for the flags of a number that may be no descriptor fails harmlessly. (That of the look is
    // closed by now.)
    let open = |fd: &RawFd| *fd > 2 && unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0;
    listed.into_iter().filter(open).collect()
}

/// How many descriptors are open.
pub fn count() -> u64 {
    // Less the one of the look itself.
    let listed =
        std::fs::read_dir("/proc/self/fd").map(|dir| (dir.count() as u64).saturating_sub(1));
    // SAFETY: to ask for the flags of a number that may be no descriptor fails harmlessly.
    let open = |fd: &i32| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0;
    listed.unwrap_or_else(|_| (0..1024).filter(open).count() as u64)
}

/// These numbers become what /dev/null is, see `null`.
pub fn to_null(numbers: &[RawFd]) -> io::Result<()> {
    // SAFETY: dup2 onto numbers that are given up by this; the new descriptor is ours to close.
    unsafe {
        let null = OwnedFd::from_raw_fd(cerr(raw_null(libc::O_RDWR))?);
        for n in numbers {
            cerr(libc::dup2(null.as_raw_fd(), *n))?;
        }
    }
    Ok(())
}

/// A copy, CLOEXEC, numbered 3 or higher.
pub fn dup(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: fd is open; the result, if any, is new and ours alone.
    unsafe {
        let new = cerr(libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3))?;
        Ok(OwnedFd::from_raw_fd(new))
    }
}

/// A description of our own, not blocking, of the pipe or terminal behind `fd`: others who have the
/// shared one may fill it between our poll and our write. `None`: something else, or not to be had.
pub fn own_nonblocking(fd: BorrowedFd<'_>) -> Option<OwnedFd> {
    if !is_pipe(fd) && !is_terminal(fd) {
        return None;
    }
    // SAFETY: the path ends with NUL; the result, if any, is new and ours alone.
    unsafe {
        let path = std::ffi::CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok()?;
        let flags = libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
        let new = cerr(libc::open(path.as_ptr(), flags)).ok()?;
        Some(OwnedFd::from_raw_fd(new))
    }
}

/// Before `main`, since Rust's own start looks, too, and aborts where there is no /dev/null.
// SAFETY: .init_array holds functions of this type; this one makes system calls only, and needs
// nothing that is set up later.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = fill_standard;

/// Are 0, 1, 2 open? Opens nothing, see `null`, in place of those that are not: a socket that landed
/// there would become some worker's stdout.
extern "C" fn fill_standard() {
    for fd in 0..3 {
        // SAFETY: F_GETFD on any number is harmless; what is opened lands on the lowest free number,
        // which is fd, and is left open on purpose, for good and across exec.
        unsafe {
            if libc::fcntl(fd, libc::F_GETFD) < 0 && raw_null(libc::O_RDWR) >= 0 {
                libc::fcntl(fd, libc::F_SETFD, 0);
            }
        }
    }
}

/// Opens a file to read what it says now. One that is none (a FIFO, whose writer one would wait for) is
/// an error, at once.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let mut how = OpenOptions::new();
    how.read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = how.open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other(
            "not a regular file, so it cannot be read while the cluster runs",
        )),
    }
}

/// /dev/null, to be read; in a root that has none, an empty file of our own that cannot be written
/// to or grow.
pub fn null() -> io::Result<OwnedFd> {
    // SAFETY: the result, if any, is new and ours alone.
    unsafe { Ok(OwnedFd::from_raw_fd(cerr(raw_null(libc::O_RDONLY))?)) }
}

/// A file that is nowhere but in memory.
pub fn memory(name: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name ends with NUL; the result, if any, is new and ours alone.
    unsafe {
        let fd = match libc::memfd_create(name.as_ptr(), flags | libc::MFD_NOEXEC_SEAL) {
            // Before Linux 6.3 nobody knows of that.
            -1 => libc::memfd_create(name.as_ptr(), flags),
            fd => fd,
        };
        Ok(OwnedFd::from_raw_fd(cerr(fd)?))
    }
}

/// Nobody changes it any more.
pub fn seal(fd: BorrowedFd<'_>) -> io::Result<()> {
    let all = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: plain numbers.
    cerr(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, all) }).map(drop)
}

/// /dev/null, to be written. In a root that has none there is nothing that takes all: an error.
pub fn mute() -> io::Result<OwnedFd> {
    let mut how = OpenOptions::new();
    how.write(true).custom_flags(libc::O_NOCTTY);
    Ok(how.open("/dev/null")?.into())
}

/// A file and no pipe, although either would do for read(2): as with /dev/null it always polls
/// readable and never hung up, epoll refuses it, lseek(2) works, and who looks what its stdin is sees
/// a file. A write fails with EPERM and raises no signal.
fn raw_null(access: i32) -> RawFd {
    const SEALS: i32 =
        libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: both names end with NUL; the seals go onto a file that is ours alone.
    unsafe {
        let null = libc::open(c"/dev/null".as_ptr(), access | libc::O_CLOEXEC);
        if null >= 0 {
            return null;
        }
        // Where only what says that it cannot be executed may be made, it has to say so; before Linux
        // 6.3 it cannot.
        let empty = match libc::memfd_create(c"null".as_ptr(), flags | libc::MFD_NOEXEC_SEAL) {
            -1 => libc::memfd_create(c"null".as_ptr(), flags),
            fd => fd,
        };
        if empty >= 0 {
            libc::fcntl(empty, libc::F_ADD_SEALS, SEALS);
        }
        empty
    }
}

/// The inode of what the descriptor refers to.
pub fn inode(fd: BorrowedFd<'_>) -> io::Result<u64> {
    // SAFETY: stat is plain data; fd is open.
    unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        cerr(libc::fstat(fd.as_raw_fd(), &mut st))?;
        Ok(st.st_ino)
    }
}

/// Device and inode of what the descriptor refers to.
pub fn identity(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    // SAFETY: stat is plain data; fd is open.
    unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        cerr(libc::fstat(fd.as_raw_fd(), &mut st))?;
        Ok((st.st_dev, st.st_ino))
    }
}

/// What it refers to, as far as that can be told without /proc.
pub fn target(fd: BorrowedFd<'_>) -> io::Result<Target> {
    // SAFETY: stat is plain data; fd is open.
    let st = unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        cerr(libc::fstat(fd.as_raw_fd(), &mut st))?;
        st
    };
    Ok(match st.st_mode & libc::S_IFMT {
        libc::S_IFSOCK => Target::Socket(st.st_ino),
        libc::S_IFIFO => Target::Pipe(st.st_ino),
        _ => Target::Other,
    })
}

/// Is it a terminal?
pub fn is_terminal(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: isatty on an open descriptor.
    unsafe { libc::isatty(fd.as_raw_fd()) == 1 }
}

/// Sets O_NONBLOCK on the shared description. Never clears it: others may be in their event loop.
pub fn add_nonblock(fd: BorrowedFd<'_>) -> io::Result<()> {
    let flags = status_flags(fd)?;
    if flags & libc::O_NONBLOCK == 0 {
        // SAFETY: F_SETFL on an open descriptor.
        unsafe {
            cerr(libc::fcntl(
                fd.as_raw_fd(),
                libc::F_SETFL,
                flags | libc::O_NONBLOCK,
            ))?
        };
    }
    Ok(())
}

/// O_NONBLOCK and friends.
pub fn status_flags(fd: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: F_GETFL on an open descriptor.
    unsafe { cerr(libc::fcntl(fd.as_raw_fd(), libc::F_GETFL)) }
}

/// A pipe, CLOEXEC, its read end not blocking; the write end is for a worker and blocks.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends: [RawFd; 2] = [-1; 2];
    // SAFETY: ends has room for two; both results are new and ours alone.
    unsafe {
        cerr(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        let pair = (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]));
        use std::os::fd::AsFd;
        add_nonblock(pair.0.as_fd())?;
        Ok(pair)
    }
}

/// The same the other way round: the read end is for a child and blocks, the write end is ours.
pub fn pipe_to() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends: [RawFd; 2] = [-1; 2];
    // SAFETY: ends has room for two; both results are new and ours alone.
    unsafe {
        cerr(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC))?;
        let pair = (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]));
        use std::os::fd::AsFd;
        add_nonblock(pair.1.as_fd())?;
        Ok(pair)
    }
}

/// A pair of connected stream sockets, CLOEXEC: the first does not block, the second does.
pub fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours.into(), theirs.into()))
}

/// Can something be written now without blocking (for pipes: up to PIPE_BUF bytes)? True as well
/// when the other end has gone: the write says so.
pub fn writable_now(fd: BorrowedFd<'_>) -> bool {
    poll_now(fd, libc::POLLOUT) != 0
}

/// Is there something to read? A seccomp listener says POLLERR alone when a signal came while its
/// lock was waited for: that look is taken again, since no other edge tells of what waits.
pub fn readable_now(fd: BorrowedFd<'_>) -> bool {
    const LOOKS: usize = 16;
    let mut looks = (0..LOOKS).map(|_| poll_now(fd, libc::POLLIN));
    looks
        .find(|seen| *seen != libc::POLLERR)
        .is_some_and(|seen| seen & libc::POLLIN != 0)
}

/// Has the other end hung up (for a seccomp listener: the last process of the tree has gone)? Not
/// POLLERR: a listener says that, too, when a signal came while its lock was waited for.
pub fn hung_up(fd: BorrowedFd<'_>) -> bool {
    poll_now(fd, 0) & libc::POLLHUP != 0
}

/// Is it a pipe, or a socket, that nobody reads any more?
pub fn has_no_reader(fd: BorrowedFd<'_>) -> bool {
    poll_now(fd, 0) & libc::POLLERR != 0
}

/// Waits until something can be written, at most that long. For the very end only.
pub fn wait_writable(fd: BorrowedFd<'_>, limit: std::time::Duration) -> bool {
    let ms = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    poll_for(fd, libc::POLLOUT, ms) != 0
}

fn poll_now(fd: BorrowedFd<'_>, events: i16) -> i16 {
    poll_for(fd, events, 0)
}

fn poll_for(fd: BorrowedFd<'_>, events: i16, ms: i32) -> i16 {
    let mut p = libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    // SAFETY: one valid pollfd.
    unsafe { libc::poll(&mut p, 1, ms) };
    p.revents
}

/// write(2): how much went. A socket is not waited for, whatever its mode.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let (raw, at, len) = (fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
    // SAFETY: bytes is valid for its length; send on what is no socket fails harmlessly.
    let n = unsafe {
        match libc::send(raw, at, len, flags) {
            -1 if *libc::__errno_location() == libc::ENOTSOCK => libc::write(raw, at, len),
            n => n,
        }
    };
    cerr(n).map(|n| usize::try_from(n).unwrap_or(0))
}

/// Sends these to a socket, one behind the other, without waiting: how much went.
pub fn send_parts(fd: BorrowedFd<'_>, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    Ok(sendmsg::<()>(fd.as_raw_fd(), parts, &[], flags, None)?)
}

/// write(2) to a pipe whose description others share, so that it cannot be made not to block: this
/// one call does not (Linux 6.5; on older kernels it may, if another writer fills the pipe first).
pub fn write_nowait(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: part describes `bytes`, which a write only reads; -1 is "no offset".
    let n = unsafe { libc::pwritev2(fd.as_raw_fd(), &part, 1, -1, libc::RWF_NOWAIT) };
    match cerr(n) {
        Ok(n) => Ok(usize::try_from(n).unwrap_or(0)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
            write(fd, bytes)
        }
        Err(e) => Err(e),
    }
}

/// Is it a pipe?
pub fn is_pipe(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: stat is plain data; fd is open.
    unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        cerr(libc::fstat(fd.as_raw_fd(), &mut st)).is_ok()
            && st.st_mode & libc::S_IFMT == libc::S_IFIFO
    }
}

/// read(2): how much came, 0 at the end.
pub fn read(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    // SAFETY: into is valid for its length.
    let n = unsafe { libc::read(fd.as_raw_fd(), into.as_mut_ptr().cast(), into.len()) };
    cerr(n).map(|n| usize::try_from(n).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn of_a_fifo_nobody_is_waited_for() {
        let at = std::env::temp_dir().join(format!("mc-fifo-{}", std::process::id()));
        nix::unistd::mkfifo(&at, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open_regular(&at).is_err());
        std::fs::remove_file(&at).unwrap();
        std::fs::write(&at, "said").unwrap();
        let mut text = String::new();
        open_regular(&at)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "said");
        std::fs::remove_file(&at).unwrap();
    }

    #[test]
    fn in_a_root_without_dev_null_there_is_an_empty_file_that_stays_so() {
        // In a child of its own: the root is the process's.
        // SAFETY: the child makes system calls only, and leaves.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: as above; all numbers are checked by the calls.
            unsafe {
                let flags = libc::CLONE_NEWUSER;
                let apart = libc::geteuid() == 0 || libc::unshare(flags) == 0;
                let empty = c"/proc/self/fdinfo".as_ptr();
                if !apart || libc::chroot(empty) < 0 {
                    libc::_exit(2);
                }
                let (fd, mut byte) = (raw_null(libc::O_RDONLY), 0u8);
                let at = (&raw mut byte).cast();
                let empty = fd >= 0 && libc::read(fd, at, 1) == 0;
                let kept = libc::write(fd, at, 1) == -1 && *libc::__errno_location() == libc::EPERM;
                let size = libc::ftruncate(fd, 1) == -1 && libc::lseek(fd, 0, libc::SEEK_END) == 0;
                let sealed = libc::fcntl(fd, libc::F_GETFD) == libc::FD_CLOEXEC;
                libc::_exit(i32::from(!(empty && kept && size && sealed)));
            }
        }
        let mut status = 0;
        // SAFETY: status is ours.
        let done = unsafe { libc::waitpid(pid, &mut status, 0) };
        assert_eq!((done, status), (pid, 0));
    }
}
