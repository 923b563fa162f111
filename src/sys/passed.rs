//! Descriptors that whoever started us left open for us: what they are, and taking them over.

use super::socket::{is_connected, is_listening, local_addr};
use super::sockopt::get;
use super::{cerr, fds};
use std::ffi::OsStr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What a descriptor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A TCP socket with a port of its own, that listens or may.
    Tcp(SocketAddr),
    /// A unix stream socket with a name of its own, that listens or may; `@` for the abstract.
    Unix(PathBuf),
    /// A connection, or a socket without an address: nothing that serves.
    Unfit(&'static str),
    /// Something that can be passed on and no more.
    Other(&'static str),
    /// Nothing at all.
    Closed,
}

/// Looks at one.
pub fn look(fd: RawFd) -> Kind {
    // SAFETY: F_GETFD on any number is harmless.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Kind::Closed;
    }
    // SAFETY: it is open, nobody else is there to close it, and it is used in here alone.
    look_at(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Which one it is.
pub fn inode(fd: RawFd) -> io::Result<u64> {
    // SAFETY: F_GETFD on any number is harmless.
    cerr(unsafe { libc::fcntl(fd, libc::F_GETFD) })?;
    // SAFETY: as above.
    fds::inode(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// The same of one that is ours.
pub fn look_at(s: BorrowedFd<'_>) -> Kind {
    let option = |name| get(s, libc::SOL_SOCKET, name);
    let (Ok(kind), Ok(domain)) = (option(libc::SO_TYPE), option(libc::SO_DOMAIN)) else {
        return Kind::Other("no socket");
    };
    match (kind, domain) {
        (libc::SOCK_STREAM, libc::AF_INET | libc::AF_INET6) => match local_addr(s) {
            _ if is_connected(s) => Kind::Unfit("a connection, not a socket that listens"),
            Ok(addr) if addr.port() != 0 => Kind::Tcp(addr),
            Ok(_) | Err(_) => Kind::Unfit("a socket without an address"),
        },
        (libc::SOCK_STREAM, libc::AF_UNIX) => match unix_name(s) {
            Some(path) if is_listening(s) || !is_paired(s) => Kind::Unix(path),
            Some(_) => Kind::Unfit("a connection, not a socket that listens"),
            None if is_paired(s) => Kind::Unfit("a connection, not a socket that listens"),
            None => Kind::Unfit("a socket without an address"),
        },
        (libc::SOCK_DGRAM, _) => Kind::Other("a datagram socket"),
        _ => Kind::Other("a socket of another kind"),
    }
}

/// Takes it over: from here on it is ours, CLOEXEC, and its old number is free. (0 stays open: what
/// opens a file next must not become our stdin.)
pub fn take(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the number is open or the call fails; the copy is new and ours alone; the old number is
    // nobody's but ours by the contract of whoever passed it.
    unsafe {
        let new = cerr(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3))?;
        let new = OwnedFd::from_raw_fd(new);
        match fd {
            0 => {
                let (ours, _) = fds::pipe()?;
                libc::dup2(ours.as_raw_fd(), 0);
            }
            _ => drop(OwnedFd::from_raw_fd(fd)),
        }
        Ok(new)
    }
}

fn unix_addr(s: BorrowedFd<'_>, peer: bool) -> io::Result<Vec<u8>> {
    let mut bytes = [0u8; 110];
    let mut len = bytes.len() as libc::socklen_t;
    let (raw, p) = (s.as_raw_fd(), bytes.as_mut_ptr().cast());
    // SAFETY: bytes has room for len.
    unsafe {
        cerr(match peer {
            true => libc::getpeername(raw, p, &mut len),
            false => libc::getsockname(raw, p, &mut len),
        })?
    };
    Ok(bytes.get(..len as usize).unwrap_or(&bytes).to_vec())
}

fn is_paired(s: BorrowedFd<'_>) -> bool {
    unix_addr(s, true).is_ok()
}

fn unix_name(s: BorrowedFd<'_>) -> Option<PathBuf> {
    name_of(unix_addr(s, false).ok()?.get(2..)?)
}

/// What a unix socket was bound to: a path, or a zero byte and a name in the abstract namespace.
pub fn bound_to(s: BorrowedFd<'_>) -> Option<Vec<u8>> {
    let name = unix_addr(s, false).ok()?.get(2..)?.to_vec();
    match name.first()? {
        0 => Some(name),
        _ => name.split(|b| *b == 0).next().map(<[u8]>::to_vec),
    }
}

/// The path in an address of a unix socket, `@` before one in the abstract namespace.
pub fn name_of(sun_path: &[u8]) -> Option<PathBuf> {
    let bytes = match sun_path {
        [] => return None,
        [0, name @ ..] => [b"@", name].concat(),
        path => path.split(|b| *b == 0).next()?.to_vec(),
    };
    (!bytes.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(&bytes)))
}

/// Is it a unix stream socket that has no name yet?
pub fn is_unnamed_unix_stream(s: BorrowedFd<'_>) -> bool {
    let is = |name, value| get(s, libc::SOL_SOCKET, name).is_ok_and(|v| v == value);
    is(libc::SO_DOMAIN, libc::AF_UNIX)
        && is(libc::SO_TYPE, libc::SOCK_STREAM)
        && unix_name(s.as_fd()).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};

    #[test]
    fn what_is_passed_is_known() {
        let l = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = l.local_addr().unwrap();
        assert_eq!(look(l.as_raw_fd()), Kind::Tcp(addr));
        let c = TcpStream::connect(addr).unwrap();
        assert!(matches!(look(c.as_raw_fd()), Kind::Unfit(_)));
        let name = format!("minicluster-test-{}", std::process::id());
        let abstract_name = UnixAddr::from_abstract_name(&name).unwrap();
        let u = UnixListener::bind_addr(&abstract_name).unwrap();
        assert_eq!(look(u.as_raw_fd()), Kind::Unix(format!("@{name}").into()));
        let (a, _b) = UnixStream::pair().unwrap();
        assert!(matches!(look(a.as_raw_fd()), Kind::Unfit(_)));
        assert!(is_unnamed_unix_stream(a.as_fd()));
        assert!(!is_unnamed_unix_stream(u.as_fd()));
        let d = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(look(d.as_raw_fd()), Kind::Other("a datagram socket"));
        let f = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(look(f.as_raw_fd()), Kind::Other("no socket"));
        assert_eq!(look(1_000_000), Kind::Closed);
    }

    #[test]
    fn what_is_taken_leaves_its_number() {
        let l = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = l.local_addr().unwrap();
        let fd = std::os::fd::IntoRawFd::into_raw_fd(l);
        let taken = take(fd).unwrap();
        assert_eq!(look(taken.as_raw_fd()), Kind::Tcp(addr));
    }
}
