//! The kernel asked about sockets, by netlink (sock_diag(7)).

use super::cerr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Room for one answer: the kernel puts at most 32 KiB of a list into one.
pub const ROOM: usize = 64 * 1024;
/// What is asked for is there at once; a kernel that does not answer must not hold us up. In seconds.
const PATIENCE: libc::time_t = 1;

/// A socket on which the kernel alone can be heard.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    /// For questions about sockets of our network namespace; needs no rights.
    pub fn open() -> io::Result<Netlink> {
        // SAFETY: plain numbers; the result is new and ours alone.
        let fd = unsafe {
            let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
            let fd = libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG);
            OwnedFd::from_raw_fd(cerr(fd)?)
        };
        // SAFETY: an address of nothing but zeros and a family is the kernel's; connected to it, the
        // socket takes nothing from anybody else.
        unsafe {
            let mut kernel: libc::sockaddr_nl = std::mem::zeroed();
            kernel.nl_family = libc::AF_NETLINK as libc::sa_family_t;
            let len = size_of_val(&kernel) as libc::socklen_t;
            let p = (&raw const kernel).cast();
            cerr(libc::connect(fd.as_raw_fd(), p, len))?;
        }
        let wait = libc::timeval {
            tv_sec: PATIENCE,
            tv_usec: 0,
        };
        let len = size_of_val(&wait) as libc::socklen_t;
        let (p, option) = ((&raw const wait).cast(), libc::SO_RCVTIMEO);
        // SAFETY: wait is as long as we say.
        unsafe {
            cerr(libc::setsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                p,
                len,
            ))?
        };
        Ok(Netlink(fd))
    }

    /// Asks.
    pub fn send(&self, request: &[u8]) -> io::Result<()> {
        match super::fds::write(self.0.as_fd(), request)? {
            n if n == request.len() => Ok(()),
            _ => Err(io::Error::from_raw_os_error(libc::EMSGSIZE)),
        }
    }

    /// The next part of the answer: how many bytes of it are in the buffer. ETIMEDOUT: none came.
    pub fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        let (at, room) = (into.as_mut_ptr().cast(), into.len());
        loop {
            // SAFETY: into is valid for its length.
            let n = cerr(unsafe { libc::recv(self.0.as_raw_fd(), at, room, libc::MSG_TRUNC) });
            return match n.map(|n| usize::try_from(n).unwrap_or(0)) {
                Ok(n) if n <= room => Ok(n),
                // The rest of it is gone.
                Ok(_) => Err(io::Error::from_raw_os_error(libc::EMSGSIZE)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    Err(io::Error::from_raw_os_error(libc::ETIMEDOUT))
                }
                Err(e) => Err(e),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fds;
    use super::*;
    use crate::wire::sock_diag::state;
    use crate::wire::unix_diag::{self, UnixConn};
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    /// All unix sockets that listen or are connected.
    fn unix_sockets() -> Vec<UnixConn> {
        let netlink = Netlink::open().unwrap();
        let states = 1 << state::LISTEN | 1 << state::ESTABLISHED;
        netlink.send(&unix_diag::request(states, 5)).unwrap();
        let (mut room, mut all) = (vec![0; ROOM], Vec::new());
        loop {
            let n = netlink.receive(&mut room).unwrap();
            let part = unix_diag::parse(&room[..n], 5).unwrap();
            assert_eq!(part.error, None);
            all.extend(part.items);
            if part.done {
                return all;
            }
        }
    }

    #[test]
    fn unix_sockets_are_told_with_their_file_their_peer_and_their_queue() {
        let dir = std::env::temp_dir().join(format!("mc-diag-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let file = std::fs::metadata(&path).unwrap();
        let client = UnixStream::connect(&path).unwrap();
        let _second = UnixStream::connect(&path).unwrap();
        let (server, _) = listener.accept().unwrap();
        let all = unix_sockets();
        std::fs::remove_dir_all(&dir).unwrap();
        let found = |fd: std::os::fd::BorrowedFd<'_>| {
            let inode = fds::inode(fd).unwrap();
            all.iter().find(|c| c.inode == inode).unwrap()
        };
        let name = path.to_str().map(|p| p.as_bytes().to_vec());
        let l = found(listener.as_fd());
        assert_eq!((l.state, l.rqueue), (state::LISTEN, 1));
        assert_eq!((&l.name, l.vfs), (&name, Some((file.dev(), file.ino()))));
        let (c, s) = (found(client.as_fd()), found(server.as_fd()));
        assert_eq!((c.state, &c.name), (state::ESTABLISHED, &None));
        assert_eq!((c.peer_inode, s.peer_inode), (Some(s.inode), Some(c.inode)));
        assert_eq!(s.name, name);
    }

    #[test]
    fn where_nothing_was_asked_nothing_is_waited_for_in_vain() {
        let netlink = Netlink::open().unwrap();
        let e = netlink.receive(&mut [0; 16]).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ETIMEDOUT));
    }

    #[test]
    fn an_answer_that_there_is_no_room_for_is_an_error() {
        let netlink = Netlink::open().unwrap();
        let _pair = UnixStream::pair().unwrap();
        let states = 1 << state::ESTABLISHED;
        netlink.send(&unix_diag::request(states, 1)).unwrap();
        let e = netlink.receive(&mut [0; 16]).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EMSGSIZE));
    }
}
