//! The sockets of a port that were open before we were: as many as its workers have, of a master that has
//! died. The kernel has them in an order by which they are steered, and tells nobody. So it is asked: with
//! all of them shut, and a program that names one place, the one that drops what comes is the one there.
//! Clients that come in these milliseconds come again a second later, as whoever meets a shut lane does.

use super::members::Member;
use super::{Group, refusal};
use crate::core::LaneId;
use crate::sys::socket::{self, Reach};
use crate::sys::{clock, fds, steer};
use crate::wire::steering;
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What comes by the loopback is there at once, unless the machine is busy.
const LOOKS: u32 = 100;
const BETWEEN: Duration = Duration::from_millis(1);

/// In which places of their group they are, if they are all of it.
pub fn order(sockets: &[BorrowedFd<'_>], addr: &SocketAddr) -> io::Result<Vec<usize>> {
    let mut to = *addr;
    if to.ip().is_unspecified() {
        to.set_ip(match to.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let shut = sockets.iter().try_for_each(|fd| {
        steer::let_in(*fd, steer::Gate::Filter)?;
        steer::keep_near(*fd).map(drop)
    });
    // The first that cannot be told is the end of it: meanwhile nobody is let in.
    let places = shut.and_then(|()| {
        let each = (0..sockets.len()).map(|at| there(sockets, at, &to));
        each.collect::<io::Result<Vec<usize>>>()
    });
    let open = |fd: &BorrowedFd<'_>| steer::let_in(*fd, steer::Gate::Distance).map(drop);
    // Each of them, whatever becomes of others.
    let opened = sockets.iter().map(open).fold(Ok(()), io::Result::and);
    let places = places.and_then(|all| opened.map(|()| all))?;
    let all: BTreeSet<&usize> = places.iter().collect();
    match all.len() == sockets.len() {
        true => Ok(places),
        false => Err(io::Error::from(io::ErrorKind::InvalidData)),
    }
}

/// Which of them is in that place?
fn there(sockets: &[BorrowedFd<'_>], at: usize, to: &SocketAddr) -> io::Result<usize> {
    let unknown = || io::Error::from(io::ErrorKind::InvalidData);
    let first = sockets.first().ok_or_else(unknown)?;
    steer::attach(*first, &steering::raw(&steering::program(&super::only(at))))?;
    let drops = |fd: &BorrowedFd<'_>| steer::drops(*fd);
    let before: Vec<u32> = sockets.iter().map(drops).collect::<io::Result<_>>()?;
    let asks = socket::open_for(to)?;
    match socket::connect(asks.as_fd(), to) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
        Ok(()) | Err(_) => {}
    }
    for _ in 0..LOOKS {
        for (n, fd) in sockets.iter().enumerate() {
            if before
                .get(n)
                .is_some_and(|b| steer::drops(*fd).is_ok_and(|now| now != *b))
            {
                return Ok(n);
            }
        }
        clock::pause(BETWEEN);
    }
    Err(unknown())
}

impl Group {
    /// Of a port whose sockets are these, in the kernel's order. Each is shut until it is a lane, and none is
    /// closed before `settle`.
    pub fn of_found(
        addr: SocketAddr,
        reach: Reach,
        backlog: i32,
        sockets: Vec<OwnedFd>,
    ) -> io::Result<Group> {
        let mut group = Group::unserved(addr, reach, backlog);
        for fd in sockets {
            socket::listen(fd.as_fd(), backlog)?;
            let gate = Some(steer::keep_out(fd.as_fd(), &refusal())?);
            group.members.push(Member {
                fd,
                lane: None,
                passed: false,
                own: false,
                kept: true,
                bare: false,
                gate,
            });
        }
        group.apply()?;
        Ok(group)
    }

    /// One of them is that lane from now on: that of which this is an inode. If none is, it is a new one.
    pub fn claim(&mut self, lane: LaneId, inodes: Option<&BTreeSet<u64>>) -> io::Result<OwnedFd> {
        let meant = |m: &Member| {
            let inode = fds::inode(m.fd.as_fd());
            m.kept && inode.is_ok_and(|i| inodes.is_some_and(|all| all.contains(&i)))
        };
        match self.members.all().iter().position(meant) {
            Some(at) => {
                self.members.keep(at, false);
                self.members.name(at, Some(lane));
                self.members.get(at)?.fd.try_clone()
            }
            None => self.open(lane),
        }
    }

    /// Those that nobody has claimed are spare.
    pub fn settle(&mut self) -> io::Result<()> {
        for at in 0..self.members.len() {
            self.members.keep(at, false);
        }
        self.tidy()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Table;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_order_is_found_out_and_clients_come_where_they_are_steered() {
        for any in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let reach = Reach::default();
            let first = socket::open_lane(&any.parse().unwrap(), &reach).unwrap();
            socket::listen_first(first.as_fd(), 64).unwrap();
            let addr = socket::local_addr(first.as_fd()).unwrap();
            let mut group = Group::new(addr, reach.clone(), 64, LaneId(1));
            group.joined(LaneId(1), first.as_fd(), false).unwrap();
            let mut fds = vec![first];
            for n in 2..=5 {
                fds.push(group.open(LaneId(n)).unwrap());
            }
            // One goes, so the last is in its place; and its master is no more.
            drop(fds.remove(1));
            group.retire(LaneId(2)).unwrap();
            drop(group);
            fds.rotate_left(2);
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            let places = order(&borrowed, &addr).unwrap();
            let inodes: Vec<u64> = borrowed.iter().map(|f| fds::inode(*f).unwrap()).collect();
            let sorted = places
                .iter()
                .map(|n| fds[*n].try_clone().unwrap())
                .collect();
            let mut group = Group::of_found(addr, reach, 64, sorted).unwrap();
            let mut servers = Vec::new();
            for (n, inode) in inodes.iter().enumerate().take(3) {
                let all = BTreeSet::from([*inode]);
                let fd = group.claim(LaneId(10 + n as u64), Some(&all)).unwrap();
                assert_eq!(fds::inode(fd.as_fd()).unwrap(), *inode);
                servers.push(TcpListener::from(fd));
            }
            for (n, server) in servers.iter().enumerate() {
                group.steer(&Table::only(LaneId(10 + n as u64))).unwrap();
                server.set_nonblocking(true).unwrap();
                let mut to = addr;
                if to.ip().is_unspecified() {
                    to.set_ip("127.0.0.1".parse().unwrap());
                }
                let _client = TcpStream::connect(to).unwrap();
                assert!(server.accept().is_ok(), "{any} {n} {places:?}");
            }
            // The fourth, which nobody wants, goes, and no one else is found.
            group.settle().unwrap();
            assert_eq!(group.members.len(), 3);
        }
    }
}
