//! What a process tree does with its sockets, seen from outside: who waits for connections, who
//! holds a socket, whose socket sits in an epoll set.

use super::procfs::{self, Target};
use super::procnet;
use std::net::SocketAddr;
use std::os::fd::RawFd;

/// Does any process of the tree refer to this socket by a descriptor other than the first
/// `handed` from 3 on, which it was born with?
pub fn holds(tree: &[i32], inode: u64, handed: usize) -> bool {
    let last = 2 + i32::try_from(handed).unwrap_or(0);
    tree.iter().any(|pid| {
        procfs::descriptors(*pid)
            .unwrap_or_default()
            .iter()
            .any(|(fd, t)| *t == Target::Socket(inode) && !(3..=last).contains(fd))
    })
}

/// Does any process of the tree wait for connections on one of these sockets: in an epoll set, or
/// with a thread in accept, poll or select?
pub fn awaits(tree: &[i32], inodes: &[u64]) -> bool {
    tree.iter().any(|pid| process_awaits(*pid, inodes))
}

fn process_awaits(pid: i32, inodes: &[u64]) -> bool {
    let fds = procfs::descriptors(pid).unwrap_or_default();
    let ours = |fd: RawFd| {
        fds.iter()
            .any(|(n, t)| *n == fd && matches!(t, Target::Socket(i) if inodes.contains(i)))
    };
    let in_epoll = fds.iter().any(|(fd, t)| {
        *t == Target::Epoll
            && procfs::epoll_members(pid, *fd)
                .iter()
                .any(|i| inodes.contains(i))
    });
    in_epoll
        || procfs::threads(pid).iter().any(|tid| {
            procfs::sleeping_in(pid, *tid)
                .is_some_and(|(nr, args)| waited_for(*tid, nr, args).into_iter().any(ours))
        })
}

/// The descriptors that a thread in this call waits to become readable.
fn waited_for(tid: i32, nr: i64, args: [u64; 6]) -> Vec<RawFd> {
    /// More than that, nobody waits for with poll or select while starting.
    const LIMIT: u64 = 1024;
    let fd = |n: u64| RawFd::try_from(n & 0xffff_ffff).unwrap_or(-1);
    match nr {
        libc::SYS_accept | libc::SYS_accept4 => vec![fd(args[0])],
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll => polled(tid, args[0], args[1].min(LIMIT)),
        libc::SYS_ppoll => polled(tid, args[0], args[1].min(LIMIT)),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_select => selected(tid, args[1], args[0].min(LIMIT)),
        libc::SYS_pselect6 => selected(tid, args[1], args[0].min(LIMIT)),
        _ => Vec::new(),
    }
}

fn polled(tid: i32, addr: u64, n: u64) -> Vec<RawFd> {
    let mut bytes = vec![0u8; usize::try_from(n).unwrap_or(0) * 8];
    let got = procfs::read_memory(tid, addr, &mut bytes).unwrap_or(0);
    let whole = bytes.chunks_exact(8).take(got / 8);
    // struct pollfd
    let asked = |p: &[u8]| match *p {
        [a, b, c, d, e, f, ..] => (i16::from_ne_bytes([e, f]) & libc::POLLIN != 0)
            .then(|| RawFd::from_ne_bytes([a, b, c, d])),
        _ => None,
    };
    whole.filter_map(asked).collect()
}

fn selected(tid: i32, addr: u64, n: u64) -> Vec<RawFd> {
    let mut bytes = vec![0u8; usize::try_from(n.div_ceil(64) * 8).unwrap_or(0)];
    let got = procfs::read_memory(tid, addr, &mut bytes).unwrap_or(0);
    let bit = |i: usize| bytes.get(i / 8).is_some_and(|b| b >> (i % 8) & 1 == 1);
    (0..got * 8)
        .filter(|i| bit(*i))
        .filter_map(|i| RawFd::try_from(i).ok())
        .collect()
}

/// A socket of the tree's own (none of `ours`) that listens on one of these ports (on any, if
/// none are given).
pub fn own_listener(tree: &[i32], ports: &[u16], ours: &[u64]) -> Option<SocketAddr> {
    let listening: Vec<(SocketAddr, u64)> = procnet::listeners()
        .into_iter()
        .filter(|(a, i)| !ours.contains(i) && (ports.is_empty() || ports.contains(&a.port())))
        .collect();
    if listening.is_empty() {
        return None;
    }
    tree.iter().find_map(|pid| {
        let fds = procfs::descriptors(*pid)?;
        fds.iter().find_map(|(_, t)| {
            let hit = |(_, i): &&(SocketAddr, u64)| *t == Target::Socket(*i);
            listening.iter().find(hit).map(|(a, _)| *a)
        })
    })
}

/// So many descriptors of other processes are looked at, some milliseconds' worth: the master does
/// nothing else meanwhile.
const OTHERS: usize = 1024;

/// Why the socket behind `fd` must not be swapped for another, if there is a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tie {
    /// It is in an epoll set.
    Epoll,
    /// Another descriptor of the process is the same socket.
    Duplicate,
    /// A descriptor, or an epoll set, of another process refers to it.
    Shared,
}

/// Looks for one, in the thread's process and in these others.
pub fn tied(tid: i32, fd: RawFd, others: &[i32]) -> Option<Tie> {
    let own = tied_by_itself(tid, fd);
    let Some(Target::Socket(inode)) = procfs::target(tid, fd).filter(|_| own.is_none()) else {
        return own;
    };
    let process = procfs::process_of(tid);
    let mut budget = OTHERS;
    for pid in others.iter().filter(|pid| Some(**pid) != process) {
        let fds = procfs::some_descriptors(*pid, budget).unwrap_or_default();
        budget -= fds.len().min(budget);
        let refers = |(n, t): &(RawFd, Target)| match t {
            Target::Socket(i) => *i == inode,
            Target::Epoll => procfs::epoll_members(*pid, *n).contains(&inode),
            Target::Pipe(_) | Target::Other => false,
        };
        // One on its way from fork to exec has a copy of everything, and loses it in a moment.
        let goes = |n: RawFd| {
            let flags = procfs::open_flags(*pid, n).unwrap_or(0);
            flags & libc::O_CLOEXEC != 0 && procfs::never_execed(*pid)
        };
        // It may have executed between the two looks, and lost it by that: so a third.
        let still = |(n, t): &(RawFd, Target)| procfs::target(*pid, *n) == Some(*t);
        if fds
            .iter()
            .any(|f| refers(f) && !goes(f.0) && still(f) && refers(f))
        {
            return Some(Tie::Shared);
        }
    }
    None
}

fn tied_by_itself(pid: i32, fd: RawFd) -> Option<Tie> {
    let fds = procfs::descriptors(pid)?;
    let (_, Target::Socket(inode)) = fds.iter().find(|(n, _)| *n == fd)? else {
        return None;
    };
    let in_epoll = fds
        .iter()
        .any(|(n, t)| *t == Target::Epoll && procfs::epoll_members(pid, *n).contains(inode));
    let twice = fds
        .iter()
        .any(|(n, t)| *n != fd && *t == Target::Socket(*inode));
    match (in_epoll, twice) {
        (true, _) => Some(Tie::Epoll),
        (false, true) => Some(Tie::Duplicate),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn an_epoll_set_and_a_duplicate_are_seen_from_outside() {
        let me = i32::try_from(std::process::id()).unwrap();
        let l = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode = crate::sys::fds::inode(l.as_fd()).unwrap();
        let tied = |me, fd| tied(me, fd, &[me]);
        assert_eq!(tied(me, l.as_raw_fd()), None);
        assert!(holds(&[me], inode, 0));
        assert!(!process_awaits(me, &[inode]));
        let copy = l.try_clone().unwrap();
        assert_eq!(tied(me, l.as_raw_fd()), Some(Tie::Duplicate));
        drop(copy);
        let poll = mio::Poll::new().unwrap();
        let fd = l.as_raw_fd();
        let mut source = mio::unix::SourceFd(&fd);
        poll.registry()
            .register(&mut source, mio::Token(0), mio::Interest::READABLE)
            .unwrap();
        assert_eq!(tied(me, l.as_raw_fd()), Some(Tie::Epoll));
        assert!(process_awaits(me, &[inode]));
        let addr = l.local_addr().unwrap();
        assert_eq!(own_listener(&[me], &[addr.port()], &[]), Some(addr));
        assert_eq!(own_listener(&[me], &[addr.port()], &[inode]), None);
    }
}
