//! The kernel asked about sockets, by netlink (sock_diag(7)).

use super::steer::{self, Raw};
use super::{cerr, sockopt};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Room for one answer: the kernel puts at most 32 KiB of a list into one.
pub const ROOM: usize = 64 * 1024;
/// What is asked for is there at once; a kernel that does not answer must not hold us up. In seconds.
const PATIENCE: libc::time_t = 1;

/// Room for the news of one socket.
pub const ROOM_OF_ONE: usize = 4096;
/// Room in the kernel for those that are not read yet: each takes about a kilobyte there.
const BUFFER: i32 = 8 << 20;
/// What a socket has in memory, and what it has dropped (Linux 4.12).
const SO_MEMINFO: libc::c_int = 55;
/// SKNLGRP_INET_TCP_DESTROY
const TCP_DESTROY: i32 = 1;
/// SKNLGRP_INET6_TCP_DESTROY
const TCP6_DESTROY: i32 = 3;

/// Was there no room for some of the news?
pub fn was_full(e: &io::Error) -> bool {
    e.raw_os_error() == Some(libc::ENOBUFS)
}

/// A socket on which the kernel alone can be heard.
#[derive(Debug)]
pub struct Netlink(OwnedFd);

impl Netlink {
    /// One that was opened by another program that was this process before.
    pub fn of(fd: OwnedFd) -> Netlink {
        Netlink(fd)
    }

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

    /// On which news come of TCP sockets of our network namespace that have ended, as far as this filter
    /// lets them; needs no rights.
    pub fn of_ended(filter: &[Raw]) -> io::Result<Netlink> {
        let news = Netlink::open()?;
        news.filter(filter)?;
        let fd = news.0.as_fd();
        // As much as we may have.
        let room = |option| sockopt::set(fd, libc::SOL_SOCKET, option, BUFFER);
        room(libc::SO_RCVBUFFORCE).or_else(|_| room(libc::SO_RCVBUF))?;
        for group in [TCP_DESTROY, TCP6_DESTROY] {
            sockopt::set(fd, libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group)?;
        }
        Ok(news)
    }

    /// From now on this filter counts.
    pub fn filter(&self, filter: &[Raw]) -> io::Result<()> {
        steer::filter(self.0.as_fd(), filter)
    }

    /// The next news; `None`: none now.
    pub fn hear(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        let (at, room) = (into.as_mut_ptr().cast(), into.len());
        // SAFETY: into is valid for its length.
        let n = unsafe { libc::recv(self.0.as_raw_fd(), at, room, libc::MSG_DONTWAIT) };
        match cerr(n) {
            Ok(n) => Ok(usize::try_from(n).ok()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// How many messages there was no room for, since it was opened.
    pub fn dropped(&self) -> io::Result<u32> {
        /// Words of SO_MEMINFO; the last one is SK_MEMINFO_DROPS.
        const WORDS: usize = 9;
        let mut words = [0u32; WORDS];
        let mut len = size_of_val(&words) as libc::socklen_t;
        let p = words.as_mut_ptr().cast();
        // SAFETY: words has room for len bytes.
        let got = unsafe {
            let fd = self.0.as_raw_fd();
            libc::getsockopt(fd, libc::SOL_SOCKET, SO_MEMINFO, p, &mut len)
        };
        cerr(got)?;
        let [.., drops] = words;
        Ok(drops)
    }

    /// For the poll loop.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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
    fn the_end_of_each_connection_is_told_once_of_our_ports_alone() {
        use crate::wire::{sock_diag, steering};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let filter = steering::raw(&sock_diag::ended_at(&[port]));
        let news = Netlink::of_ended(&filter).unwrap();
        let mut peers = Vec::new();
        for l in [&other, &listener, &listener] {
            let client = std::net::TcpStream::connect(l.local_addr().unwrap()).unwrap();
            let (server, peer) = l.accept().unwrap();
            // The server first, or the client.
            match peers.len() {
                1 => drop((server, client)),
                _ => drop((client, server)),
            }
            peers.push(peer);
        }
        let (mut room, mut ended) = (vec![0; ROOM_OF_ONE], Vec::new());
        let late = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while ended.len() < 2 && std::time::Instant::now() < late {
            match news.hear(&mut room).unwrap() {
                Some(n) => ended.extend(sock_diag::parse(&room[..n], 0).unwrap().items),
                None => std::thread::yield_now(),
            }
        }
        let mut told: Vec<_> = ended.iter().map(|c| (c.local.port(), c.peer)).collect();
        told.sort();
        let mut want = vec![(port, peers[1]), (port, peers[2])];
        want.sort();
        assert_eq!(told, want);
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
