//! Unix sockets: ours that listen, the way to those of others, and names that one alone can have.

use super::{cerr, sockopt};
use std::ffi::CString;
use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A unix stream socket that listens at that path, or at a name in the abstract namespace if it
/// begins with `@`.
///
/// Its file is born with that mode: changed later by its name, whoever owns the directory could have
/// something else there.
pub fn listen_unix(path: &Path, mode: Option<u32>, backlog: i32) -> io::Result<OwnedFd> {
    let _mask = mode.map(Mask::for_mode);
    let listener = match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => UnixListener::bind_addr(&UnixAddr::from_abstract_name(name)?),
        _ => UnixListener::bind(path),
    };
    let listener = listener.map_err(|e| match e.kind() {
        // What std says of a path that is too long.
        io::ErrorKind::InvalidInput => io::Error::from_raw_os_error(libc::ENAMETOOLONG),
        _ => e,
    })?;
    sockopt::listen(listener.as_fd(), backlog)?;
    Ok(listener.into())
}

/// The mask of file modes, until it is dropped. One at a time: it is the process's, and unit tests
/// are threads.
struct Mask {
    before: libc::mode_t,
    _alone: MutexGuard<'static, ()>,
}

static MASK: Mutex<()> = Mutex::new(());

impl Mask {
    fn for_mode(mode: u32) -> Mask {
        let _alone = MASK.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: any number will do; nobody else changes it.
        let before = unsafe { libc::umask(!mode & 0o777) };
        Mask { before, _alone }
    }
}

impl Drop for Mask {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { libc::umask(self.before) };
    }
}

/// Gives the socket at that path to this user and group, if it is a socket, and still ours.
pub fn give_socket(path: &Path, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let file = hold(path)?;
    let m = file.metadata()?;
    if !m.file_type().is_socket() || m.uid() != super::process::euid() {
        return Err(io::Error::from_raw_os_error(libc::ESTALE));
    }
    give(&file, uid, gid)
}

/// Makes the file at that path, if it is this one by device and inode, like another: in owner, group
/// and mode. What is so already is not touched: to say it again may be forbidden.
pub fn make_like(path: &Path, id: (u64, u64), like: &Metadata) -> io::Result<()> {
    let file = hold(path)?;
    let m = file.metadata()?;
    if (m.dev(), m.ino()) != id {
        return Err(io::Error::from_raw_os_error(libc::ESTALE));
    }
    let uid = Some(like.uid()).filter(|uid| *uid != m.uid());
    let gid = Some(like.gid()).filter(|gid| *gid != m.gid());
    if uid.or(gid).is_some() {
        give(&file, uid, gid)?;
    }
    if like.mode() & 0o777 == m.mode() & 0o777 {
        return Ok(());
    }
    // fchmod(2) takes no descriptor that only holds.
    let held = format!("/proc/self/fd/{}", file.as_raw_fd());
    std::fs::set_permissions(held, Permissions::from_mode(like.mode() & 0o777))
}

/// Holds on to what is at that path, whatever it is, and whatever will be there.
fn hold(path: &Path) -> io::Result<File> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let mut options = File::options();
    options.read(true).custom_flags(flags).open(path)
}

fn give(file: &File, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let id = |n: Option<u32>| n.unwrap_or(u32::MAX);
    // SAFETY: the path is empty: it is the file behind the descriptor.
    let done = unsafe {
        let empty = c"".as_ptr();
        libc::fchownat(
            file.as_raw_fd(),
            empty,
            id(uid),
            id(gid),
            libc::AT_EMPTY_PATH,
        )
    };
    cerr(done).map(drop)
}

/// Exchanges what two names are names of, at once: nobody sees one of them missing, and nothing is
/// lost, whatever it was. Not every file system can: then the error is EINVAL, or ENOSYS.
pub fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    let [a, b] = [a, b].map(|p| CString::new(p.as_os_str().as_bytes()));
    let (a, b) = (a?, b?);
    // SAFETY: both end with NUL and outlive the call. (By number: not every libc has it.)
    let done = unsafe {
        libc::syscall(
            libc::SYS_renameat2,
            libc::AT_FDCWD,
            a.as_ptr(),
            libc::AT_FDCWD,
            b.as_ptr(),
            libc::RENAME_EXCHANGE,
        )
    };
    cerr(done).map(drop)
}

/// Connects to a unix stream socket, waiting that long at most for room in its queue: then the error
/// is EAGAIN.
pub fn connect_unix(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
    use nix::sys::socket::{setsockopt, sockopt::SendTimeout};
    let s = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // connect(2) of a unix socket obeys the timeout of sending; 0 would be for ever.
    let secs = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    let wait = nix::sys::time::TimeVal::new(secs, i64::from(limit.subsec_micros().max(1)));
    setsockopt(&s, SendTimeout, &wait)?;
    // Longer than a socket's address may be, it is reached through a descriptor.
    let held;
    let addr = match UnixAddr::new(path) {
        Ok(addr) => addr,
        Err(nix::errno::Errno::ENAMETOOLONG) => {
            held = File::options()
                .read(true)
                .custom_flags(libc::O_PATH)
                .open(path)?;
            UnixAddr::new(format!("/proc/self/fd/{}", held.as_raw_fd()).as_str())?
        }
        Err(e) => return Err(e.into()),
    };
    connect(s.as_raw_fd(), &addr)?;
    Ok(UnixStream::from(s))
}

/// A name that one of us at a time can have, for a moment: in the abstract namespace, where it goes
/// with whoever has it. Waited for up to that long.
pub fn lock_abstract(name: &str, limit: Duration) -> Option<UnixDatagram> {
    let name = UnixAddr::from_abstract_name(name).ok()?;
    for _ in 0..limit.as_millis().max(1) {
        match UnixDatagram::bind_addr(&name) {
            Ok(lock) => return Some(lock),
            Err(e) if e.raw_os_error() == Some(libc::EADDRINUSE) => {
                super::clock::pause(Duration::from_millis(1));
            }
            Err(_) => return None,
        }
    }
    None
}

/// Who is at the other end of a unix socket: pid and uid.
pub fn peer(fd: BorrowedFd<'_>) -> io::Result<(i32, u32)> {
    let cred = nix::sys::socket::getsockopt(&fd, nix::sys::socket::sockopt::PeerCredentials)?;
    Ok((cred.pid(), cred.uid()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unix_socket_is_born_with_its_mode_and_given_away_only_if_it_is_ours() {
        let dir = std::env::temp_dir().join(format!("mc-give-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("s");
        let _s = listen_unix(&path, Some(0o640), 8).unwrap();
        let m = std::fs::metadata(&path).unwrap();
        assert_eq!(m.permissions().mode() & 0o777, 0o640);
        give_socket(&path, Some(m.uid()), Some(m.gid())).unwrap();
        let (file, link) = (dir.join("file"), dir.join("link"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        for other in [file, link] {
            let e = give_socket(&other, Some(m.uid()), None).unwrap_err();
            assert_eq!(e.raw_os_error(), Some(libc::ESTALE), "{other:?}");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_file_is_made_like_another_and_names_are_exchanged_with_nothing_lost() {
        let dir = std::env::temp_dir().join(format!("mc-swap-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (a, b) = (dir.join("a"), dir.join("b"));
        let _a = listen_unix(&a, Some(0o600), 8).unwrap();
        std::fs::write(&b, "text").unwrap();
        std::fs::set_permissions(&b, Permissions::from_mode(0o626)).unwrap();
        let like = std::fs::metadata(&b).unwrap();
        let other = (like.dev(), like.ino());
        let e = make_like(&a, other, &like).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ESTALE));
        let m = std::fs::metadata(&a).unwrap();
        make_like(&a, (m.dev(), m.ino()), &like).unwrap();
        let m = std::fs::metadata(&a).unwrap();
        assert_eq!(m.permissions().mode() & 0o777, 0o626);
        exchange(&a, &b).unwrap();
        assert_eq!(std::fs::read_to_string(&a).unwrap(), "text");
        assert_eq!(std::fs::metadata(&b).unwrap().ino(), m.ino());
        let e = exchange(&a, &dir.join("c")).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ENOENT));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
