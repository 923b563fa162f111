//! The workers' connections, seen from outside: which there are, whose they are, and how to end one so
//! that neither its server nor its client is the worse for it.
//!
//! The kernel is asked (sock_diag), not the workers. Where they may not be looked into by us as we are,
//! the caller wears their guise around `owners` and `close_gently`.

use super::unseen;
use crate::core::WorkerId;
use crate::sys::closer::Copy;
use crate::sys::netlink::{self, Netlink};
use crate::sys::procfs::{self, Target};
use crate::sys::{fds, pidfd, socket, steer};
use crate::wire::debt::{self, Debt};
use crate::wire::idle;
use crate::wire::ports_filter::MOST_PORTS;
use crate::wire::ports_filter::Ports;
use crate::wire::sock_diag::{self, Bad, Conn, Info, Parsed, state};
use crate::wire::steering;
use crate::wire::unix_diag::{self, UnixConn};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::time::Duration;

/// More sockets than that are not listed in one look: it fails with E2BIG.
pub const MOST_SOCKETS: usize = 1 << 17;

/// So many descriptors are looked at in one search for owners, some tens of milliseconds' worth: the
/// master does nothing else meanwhile.
pub const MOST_DESCRIPTORS: usize = 16 * 1024;

const HANDSHAKES: u32 = 1 << state::SYN_RECV;
const CONNECTIONS: u32 = 1 << state::ESTABLISHED
    | 1 << state::CLOSE_WAIT
    | 1 << state::FIN_WAIT1
    | 1 << state::FIN_WAIT2;

/// What one look at some ports has shown.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Own port and client of each handshake that waits for its end.
    pub handshakes: BTreeSet<(u16, SocketAddr)>,
    /// The connections. One whose inode is 0 is held by no process: it waits to be accepted, or its
    /// server has closed it.
    pub conns: Vec<Conn>,
}

impl Look {
    /// Does one wait to be accepted, in whatever queue?
    pub fn has_waiting(&self) -> bool {
        let waits =
            |c: &Conn| c.inode == 0 && matches!(c.state, state::ESTABLISHED | state::CLOSE_WAIT);
        self.conns.iter().any(waits)
    }
}

/// How a part of an answer is read.
type Parse<T> = fn(&[u8], u32) -> Result<Parsed<T>, Bad>;

/// Who asks the kernel.
#[derive(Debug, Default)]
pub struct Observer {
    /// Open while it is in use.
    netlink: Option<Netlink>,
    room: Vec<u8>,
    /// The number of the last question.
    seq: u32,
}

impl Observer {
    /// It is not needed for some time: gives back what it holds.
    pub fn rest(&mut self) {
        self.netlink = None;
        self.room = Vec::new();
    }

    /// Handshakes under way at these ports, and connections on which something may still happen. A
    /// client of IPv4 on a socket of both families is called `::ffff:1.2.3.4`. A handshake that ends
    /// meanwhile is one of the two: the connection takes its place in the kernel's table.
    ///
    /// All that the machine has is walked through for it, once for each family. Where there are more
    /// than a few hundred the kernel tells of them in parts. One that opens between two parts may not
    /// be in the list, nor one whose neighbour in the kernel's table goes just then: so what must not
    /// be missed is looked for twice.
    pub fn look(&mut self, at: &Ports) -> io::Result<Look> {
        let all = self.list(at, HANDSHAKES | CONNECTIONS)?;
        let (under_way, conns) = all.into_iter().partition(|c| c.state == state::SYN_RECV);
        let under_way: Vec<Conn> = under_way;
        let handshakes = under_way.iter().map(|c| (c.local.port(), c.peer)).collect();
        Ok(Look { handshakes, conns })
    }

    /// The connections alone.
    pub fn connections(&mut self, at: &Ports) -> io::Result<Vec<Conn>> {
        self.list(at, CONNECTIONS)
    }

    fn list(&mut self, at: &Ports, states: u32) -> io::Result<Vec<Conn>> {
        let mut all = Vec::new();
        let families = [(sock_diag::AF_INET, &at.v4), (sock_diag::AF_INET6, &at.v6)];
        for (family, ports) in families {
            let ports: Vec<u16> = ports.iter().copied().collect();
            for some in ports.chunks(MOST_PORTS) {
                let ask = |seq| sock_diag::request(family, states, some, true, seq);
                if let Err(e) = self.ask(ask, sock_diag::parse, &mut all) {
                    // What is left of the answer must not be taken for one to the next question.
                    self.netlink = None;
                    return Err(e);
                }
            }
        }
        Ok(all)
    }

    /// Connections of unix sockets that were bound to one of these. Those that nobody has accepted have
    /// no inode.
    pub fn unix(&mut self, names: &BTreeSet<Vec<u8>>) -> io::Result<Vec<UnixConn>> {
        let mut all: Vec<UnixConn> = Vec::new();
        let question = |seq| unix_diag::request(1 << state::ESTABLISHED, seq);
        if let Err(e) = self.ask(question, unix_diag::parse, &mut all) {
            self.netlink = None;
            return Err(e);
        }
        all.retain(|c| c.name.as_ref().is_some_and(|n| names.contains(n)));
        Ok(all)
    }

    /// Unix sockets that listen, by inode: how many wait to be accepted, and how many can.
    pub fn unix_queues(&mut self) -> io::Result<BTreeMap<u64, (u32, u32)>> {
        let mut all: Vec<UnixConn> = Vec::new();
        let question = |seq| unix_diag::request(1 << state::LISTEN, seq);
        if let Err(e) = self.ask(question, unix_diag::parse, &mut all) {
            self.netlink = None;
            return Err(e);
        }
        let queue = |c: UnixConn| (c.inode, (c.rqueue, c.wqueue));
        Ok(all.into_iter().map(queue).collect())
    }

    /// One question, and the answer to it, appended.
    fn ask<T>(
        &mut self,
        question: impl Fn(u32) -> Vec<u8>,
        parse: Parse<T>,
        all: &mut Vec<T>,
    ) -> io::Result<()> {
        /// So often a list that has changed while it was made is asked for again.
        const AGAIN: usize = 2;
        let from = all.len();
        for _ in 0..=AGAIN {
            all.truncate(from);
            self.seq = self.seq.wrapping_add(1);
            let netlink = match self.netlink.take() {
                Some(open) => open,
                None => Netlink::open()?,
            };
            let netlink = self.netlink.insert(netlink);
            self.room.resize(netlink::ROOM, 0);
            netlink.send(&question(self.seq))?;
            if !receive(netlink, &mut self.room, (self.seq, parse), all)? {
                break;
            }
        }
        Ok(())
    }
}

/// The whole answer. Has the list changed while it was made?
fn receive<T>(
    from: &Netlink,
    room: &mut [u8],
    (seq, parse): (u32, Parse<T>),
    all: &mut Vec<T>,
) -> io::Result<bool> {
    let mut interrupted = false;
    loop {
        let n = from.receive(room)?;
        let part = parse(room.get(..n).unwrap_or_default(), seq)
            .map_err(|_| io::Error::from_raw_os_error(libc::EBADMSG))?;
        if let Some(errno) = part.error {
            return Err(io::Error::from_raw_os_error(errno));
        }
        interrupted |= part.interrupted;
        all.extend(part.items);
        if all.len() > MOST_SOCKETS {
            return Err(io::Error::from_raw_os_error(libc::E2BIG));
        }
        if part.done {
            return Ok(interrupted);
        }
    }
}

/// A descriptor of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Whose tree the process is of,
    pub worker: WorkerId,
    /// the process,
    pub pid: i32,
    /// and its descriptor.
    pub fd: RawFd,
}

/// Who has which socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// By inode: all descriptors of it.
    pub of: BTreeMap<u64, Vec<Owner>>,
    /// There were more than `MOST_DESCRIPTORS`: of what is not found it is not known who has it.
    pub cut: bool,
    /// Of these workers some process may not be looked into: the same.
    pub unseen: BTreeSet<WorkerId>,
}

/// Looks for the sockets in these processes, a tree for each worker.
pub fn owners(trees: &[(WorkerId, Vec<i32>)], inodes: &BTreeSet<u64>) -> Owners {
    owners_within(trees, inodes, MOST_DESCRIPTORS)
}

fn owners_within(
    trees: &[(WorkerId, Vec<i32>)],
    inodes: &BTreeSet<u64>,
    mut budget: usize,
) -> Owners {
    let mut found = Owners::default();
    let processes = trees
        .iter()
        .flat_map(|(w, t)| t.iter().map(|pid| (*w, *pid)));
    for (worker, pid) in processes {
        // One more, to see whether there is more.
        let Some(list) = procfs::some_descriptors(pid, budget + 1) else {
            // Those that have gone meanwhile have nothing any more.
            if procfs::parent_of(pid).is_some() && !procfs::is_zombie(pid) {
                found.unseen.insert(worker);
            }
            continue;
        };
        found.cut |= list.len() > budget;
        budget -= list.len().min(budget);
        for (fd, target) in list {
            match target {
                Target::Socket(inode) if inodes.contains(&inode) => {
                    let owner = Owner { worker, pid, fd };
                    found.of.entry(inode).or_default().push(owner);
                }
                Target::Socket(_) | Target::Pipe(_) | Target::Epoll | Target::Other => {}
            }
        }
        if found.cut {
            break;
        }
    }
    found
}

/// How a connection is closed in its server's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The server is told that the client has no more to say, and closes by itself. Only where nothing
    /// is owed.
    Half,
    /// The same, even if the client has not acknowledged all that it was sent.
    Last,
    /// Both sides are told that the other one has gone.
    Both,
}

/// Closes the connection behind a process's descriptor. False: it is another one by now, or has gone,
/// or (`Half`, `Last`) something is owed on it in this moment.
///
/// Where it cannot be told whether something is owed (`Debt::Unclear`), or nothing has ever come, the
/// caller has decided by how long it has been silent. A request that comes in the moment between the
/// look and the act is read by the server all the same, before the end.
pub fn close_gently(pid: i32, fd: RawFd, inode: u64, how: How) -> io::Result<bool> {
    let Some(copy) = connection(pid, fd, inode)? else {
        return Ok(false);
    };
    if how != How::Both && owes(copy.as_fd(), how)? {
        return Ok(false);
    }
    let closed = match how {
        How::Half | How::Last => socket::shut_reading(copy.as_fd()),
        How::Both => socket::shut(copy.as_fd()),
    };
    match closed {
        Ok(()) => {
            if how == How::Last {
                // A client that was held back is told by the kernel that the server has gone; which
                // finds its end first, since that client waits before it tries again.
                let _ = steer::unfilter(copy.as_fd());
            }
            Ok(true)
        }
        // The client was faster.
        Err(e) if e.raw_os_error() == Some(libc::ENOTCONN) => Ok(false),
        Err(e) => Err(e),
    }
}

/// What came of ending a connection that was silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was.
    Done,
    /// A byte has moved in the last moment.
    Moved,
    /// It is another connection by now, or has gone.
    Gone,
}

/// Ends the connection behind a process's descriptor, whatever is owed on it, if nothing has come or gone
/// for so long. The process is named twice: many of its connections may be ended, one after the other; and
/// copies of their descriptors are left to the caller, who closes all of them at once.
pub fn end_silent(
    (pid, held): (i32, BorrowedFd<'_>),
    fd: RawFd,
    (inode, limit, how): (u64, Duration, idle::How),
    copies: &mut Vec<Copy>,
) -> io::Result<Ended> {
    if procfs::target(pid, fd) != Some(Target::Socket(inode)) {
        return Ok(Ended::Gone);
    }
    match pidfd::getfd(held, fd) {
        Ok(copy) => copies.push(Copy::of(copy)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EBADF | libc::ESRCH)) => {
            return Ok(Ended::Gone);
        }
        Err(e) => return Err(e),
    }
    let Some(copy) = copies.last().map(AsFd::as_fd) else {
        return Ok(Ended::Gone);
    };
    if fds::inode(copy)? != inode || socket::is_listening(copy) {
        return Ok(Ended::Gone);
    }
    let mut bytes = [0u8; 512];
    let n = steer::tcp_info(copy, &mut bytes)?;
    let info = Info::parse(bytes.get(..n).unwrap_or_default());
    if !info.is_some_and(|i| idle::is_silent(&i, limit)) {
        return Ok(Ended::Moved);
    }
    let closed = match how {
        idle::How::Half => socket::shut_reading(copy),
        idle::How::Both => socket::shut(copy),
    };
    match closed {
        Ok(()) => Ok(Ended::Done),
        // Both sides were faster.
        Err(e) if e.raw_os_error() == Some(libc::ENOTCONN) => Ok(Ended::Gone),
        Err(e) => Err(e),
    }
}

/// What came of holding a connection's client back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nothing more that it says gets in.
    Done,
    /// It is another connection by now, or has gone.
    Gone,
    /// That takes a right that we have not got.
    Refused,
}

/// Lets in nothing more that the client of this connection says. What has come is read and answered.
pub fn hold_back(pid: i32, fd: RawFd, inode: u64) -> io::Result<Hold> {
    let Some(copy) = connection(pid, fd, inode)? else {
        return Ok(Hold::Gone);
    };
    match steer::filter(copy.as_fd(), &steering::raw(&steering::hold_back())) {
        Ok(()) => Ok(Hold::Done),
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => Ok(Hold::Refused),
        Err(e) => Err(e),
    }
}

/// A copy of that descriptor, if it is that connection still.
fn connection(pid: i32, fd: RawFd, inode: u64) -> io::Result<Option<Copy>> {
    // What is no socket is not even copied: to close a copy can take as long as some file system likes.
    if procfs::target(pid, fd) != Some(Target::Socket(inode)) {
        return Ok(None);
    }
    let copy = match unseen::copy_of(pid, fd) {
        Ok(copy) => copy,
        Err(e) if matches!(e.raw_os_error(), Some(libc::EBADF | libc::ESRCH)) => return Ok(None),
        Err(e) => return Err(e),
    };
    // A socket that listens would stop, whichever side of it is shut.
    let same = fds::inode(copy.as_fd())? == inode && !socket::is_listening(copy.as_fd());
    Ok(same.then_some(copy))
}

/// Is something owed on it now?
fn owes(connection: BorrowedFd<'_>, how: How) -> io::Result<bool> {
    let mut bytes = [0u8; 512];
    let n = match steer::tcp_info(connection, &mut bytes) {
        Ok(n) => n,
        // Of a unix socket it is known only what was not read.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            let waits = steer::unread(connection)? > 0 || steer::unacknowledged(connection)? > 0;
            return Ok(waits);
        }
        Err(e) => return Err(e),
    };
    let mut info = Info::parse(bytes.get(..n).unwrap_or_default());
    let unread = steer::unread(connection)?;
    let mut unacknowledged = steer::unacknowledged(connection)?;
    if how == How::Last {
        info = info.map(debt::sent);
        unacknowledged = info.and_then(|i| i.notsent).unwrap_or(unacknowledged);
    }
    let debt = debt::judge(bytes[0], unread, unacknowledged, info.as_ref());
    Ok(debt == Debt::Owed)
}

#[cfg(test)]
mod tests;
