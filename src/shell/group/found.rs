//! The sockets of a port that were open before we were: as many as its workers have, of a master that has
//! died. The kernel has them in an order by which they are steered, and tells nobody. So it is asked: with
//! a program that names one place, the one that drops what only we send (`steer::tell_faint`) is the one there.
//! Clients that come in these milliseconds come there, too, to workers that serve; none is kept out, since what
//! keeps them out may stay with those who are just on their way in.

use super::Group;
use super::members::Member;
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
/// A full queue drops what comes to it, too, and then it cannot be told: so often it is tried.
const TRIES: u32 = 5;

/// In which places of their group they are, if they are all of it.
pub fn order(sockets: &[BorrowedFd<'_>], addr: &SocketAddr) -> io::Result<Vec<usize>> {
    let mut to = *addr;
    if to.ip().is_unspecified() {
        to.set_ip(match to.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    let told_apart = sockets.iter().try_for_each(|fd| {
        steer::let_in(*fd, steer::Gate::Filter)?;
        steer::tell_faint(*fd)
    });
    let places = told_apart.and_then(|()| places(sockets, &to));
    let open = |fd: &BorrowedFd<'_>| steer::let_in(*fd, steer::Gate::Distance).map(drop);
    // Each of them, whatever becomes of others.
    let opened = sockets.iter().map(open).fold(Ok(()), io::Result::and);
    places.and_then(|all| opened.map(|()| all))
}

/// No two are in one place.
fn places(sockets: &[BorrowedFd<'_>], to: &SocketAddr) -> io::Result<Vec<usize>> {
    let mut tries = TRIES;
    loop {
        let each = (0..sockets.len()).map(|at| there(sockets, at, to));
        let found = each.collect::<io::Result<Vec<usize>>>().and_then(|all| {
            match all.iter().collect::<BTreeSet<_>>().len() {
                n if n == sockets.len() => Ok(all),
                _ => Err(unknown()),
            }
        });
        tries -= 1;
        match found {
            Err(e) if e.kind() == io::ErrorKind::InvalidData && tries > 0 => {}
            found => return found,
        }
    }
}

fn unknown() -> io::Error {
    io::Error::from(io::ErrorKind::InvalidData)
}

/// Which of them is in that place?
fn there(sockets: &[BorrowedFd<'_>], at: usize, to: &SocketAddr) -> io::Result<usize> {
    let first = sockets.first().ok_or_else(unknown)?;
    steer::attach(*first, &steering::raw(&steering::program(&super::only(at))))?;
    let drops = |fd: &BorrowedFd<'_>| steer::drops(*fd);
    let before: Vec<u32> = sockets.iter().map(drops).collect::<io::Result<_>>()?;
    let asks = socket::open_faint(to)?;
    match socket::connect(asks.as_fd(), to) {
        Err(e) if e.raw_os_error() != Some(libc::EINPROGRESS) => return Err(e),
        Ok(()) | Err(_) => {}
    }
    for _ in 0..LOOKS {
        let has = |(n, fd): (usize, &BorrowedFd<'_>)| {
            let so = before
                .get(n)
                .is_some_and(|b| steer::drops(*fd).is_ok_and(|now| now != *b));
            so.then_some(n)
        };
        let all: Vec<usize> = sockets.iter().enumerate().filter_map(has).collect();
        match all.as_slice() {
            [one] => return Ok(*one),
            [] => clock::pause(BETWEEN),
            [..] => break,
        }
    }
    Err(unknown())
}

impl Group {
    /// Of a port whose sockets are these, in the kernel's order. None is closed before `settle`, and all serve: nobody
    /// is kept out.
    pub fn of_found(
        addr: SocketAddr,
        reach: Reach,
        backlog: i32,
        sockets: Vec<OwnedFd>,
    ) -> io::Result<Group> {
        let mut group = Group::unserved(addr, reach, backlog);
        for fd in sockets {
            socket::listen(fd.as_fd(), backlog)?;
            group.members.push(Member {
                fd,
                lane: None,
                passed: false,
                own: false,
                kept: true,
                bare: false,
                gate: None,
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
    use std::sync::atomic::Ordering::Relaxed;

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

    #[test]
    fn who_comes_while_it_is_found_out_is_served_as_ever() {
        let first = socket::open_lane(&"127.0.0.1:0".parse().unwrap(), &Reach::default()).unwrap();
        socket::listen_first(first.as_fd(), 512).unwrap();
        let addr = socket::local_addr(first.as_fd()).unwrap();
        let mut group = Group::new(addr, Reach::default(), 512, LaneId(1));
        group.joined(LaneId(1), first.as_fd(), false).unwrap();
        let mut fds = vec![first];
        for n in 2..=4 {
            fds.push(group.open(LaneId(n)).unwrap());
            group.steer(&Table::only(LaneId(n))).unwrap();
        }
        for fd in &fds {
            steer::let_in(fd.as_fd(), steer::Gate::Filter).unwrap();
            steer::let_in(fd.as_fd(), steer::Gate::Distance).unwrap();
        }
        let over = std::sync::atomic::AtomicBool::new(false);
        let goes_on = || !over.load(Relaxed);
        let clients = std::sync::atomic::AtomicUsize::new(2);
        let harmed = &std::sync::atomic::AtomicBool::new(false);
        let any = || clients.load(Relaxed) > 0;
        std::thread::scope(|all| {
            for fd in &fds {
                let server = TcpListener::from(fd.try_clone().unwrap());
                server.set_nonblocking(true).unwrap();
                all.spawn(move || {
                    while any() {
                        match server.accept() {
                            // (What it is limited to is what it was born with, which stays.)
                            Ok((client, _)) => {
                                let least = steer::least(client.as_fd()).unwrap();
                                harmed.fetch_or(least > 2, Relaxed);
                            }
                            Err(_) => std::thread::yield_now(),
                        }
                    }
                });
            }
            for _ in 0..2 {
                all.spawn(|| {
                    while goes_on() {
                        let mut client = TcpStream::connect(addr).unwrap();
                        // Let in at once: nothing was sent a second time (tcpi_total_retrans).
                        let mut info = [0; 104];
                        assert_eq!(steer::tcp_info(client.as_fd(), &mut info).unwrap(), 104);
                        harmed.fetch_or(info[100..] != [0; 4], Relaxed);
                        // Its end is that of the server: it has come in.
                        std::io::Read::read_to_end(&mut client, &mut Vec::new()).unwrap();
                    }
                    clients.fetch_sub(1, Relaxed);
                });
            }
            let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            let found: Vec<_> = (0..200).map(|_| order(&borrowed, &addr)).collect();
            over.store(true, Relaxed);
            let first = found[0].as_ref().unwrap();
            assert!(
                found.iter().all(|f| f.as_ref().unwrap() == first),
                "{found:?}"
            );
        });
        assert!(!harmed.load(Relaxed));
    }
}
