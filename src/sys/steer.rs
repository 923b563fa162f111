//! Which of the sockets that share a port gets a new connection: programs on them, and their queues.
//!
//! What the kernel does with the group (tried on Linux 6.18, and held to it by the tests here): a
//! socket joins by listen(2), at the end; one program, attached by any member, covers all, also those
//! that join later; who leaves (shutdown(2), or close of the last descriptor) leaves a hole that the
//! last member moves into; who listens again joins at the end. A socket that listened before it had
//! SO_REUSEPORT is in no group, and cannot be given a program (EINVAL): it becomes the first member,
//! index 0, when the first one that stands beside it listens. From then until a program is attached the
//! kernel's hash deals to both; whom it deals to one that is shut tries again a second later.

use super::cerr;
use super::sockopt::{get, set};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// One instruction of classic BPF: code, jump if true, jump if false, operand.
pub type Raw = (u16, u8, u8, u32);

/// This program deals out the new connections of the whole group that the socket belongs to, in place
/// of the one before, from one connection to the next.
///
/// Only on one that listens: before that it would be in a group of its own, and listen(2) would fail.
pub fn attach(fd: BorrowedFd<'_>, program: &[Raw]) -> io::Result<()> {
    load(fd, libc::SO_ATTACH_REUSEPORT_CBPF, program)
}

/// Was this program refused because it is too long, and not for what it says? Beside the limit on all
/// programs (`MOST`) there is net.core.optmem_max, 20480 on older kernels, which counts eight bytes for
/// each instruction of those that the kernel translates it to.
pub fn is_too_long(e: &io::Error, program: &[Raw]) -> bool {
    program.len() > MOST || e.raw_os_error() == Some(libc::ENOMEM)
}

/// What net.core.optmem_max is, where that can be seen: older kernels show it only outside of network
/// namespaces.
pub fn optmem_max() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/sys/net/core/optmem_max").ok()?;
    text.trim().parse().ok()
}

/// Does the kernel let sockets share a port, and a program deal out what comes? Tried on one that serves
/// nobody.
pub fn works() -> Result<(), Refused> {
    let s = super::socket::tcp_socket(&(std::net::Ipv4Addr::UNSPECIFIED, 0).into());
    let s = s.map_err(Refused::Sharing)?;
    set(s.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1).map_err(Refused::Sharing)?;
    // A number, returned: the first of the group has all.
    attach(s.as_fd(), &[(0x06, 0, 0, 0)]).map_err(Refused::Steering)
}

/// Which of the two it does not.
#[derive(Debug)]
pub enum Refused {
    /// SO_REUSEPORT
    Sharing(io::Error),
    /// SO_ATTACH_REUSEPORT_CBPF
    Steering(io::Error),
}

/// Is it refused whatever is asked for, and not for what is asked?
pub fn is_forbidden(e: &io::Error) -> bool {
    let never = [libc::EPERM, libc::EACCES, libc::ENOSYS];
    e.raw_os_error().is_some_and(|n| never.contains(&n))
}

/// What keeps new clients out of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gate {
    /// A filter: what opens a connection is dropped, all else passes.
    Filter,
    /// Only what was sent with the greatest TTL there is, and has come directly, is heard. That is none
    /// of what usual clients send, but it may be one. All else is dropped, the end of a handshake by SYN
    /// cookies, too; who gets in has the same on the connection.
    Distance,
}

/// Keeps new clients out of a lane that is about to listen, by this filter if we may: since 2026 it
/// takes CAP_NET_ADMIN on sockets of TCP (Linux 5d39580f68e6), which a container's root has not got.
/// Else by distance, which takes nothing.
///
/// Without a filter new clients can be refused at lanes that serve by steering all of them to one that
/// is kept shut: handshakes under way end where they began.
pub fn keep_out(fd: BorrowedFd<'_>, program: &[Raw]) -> io::Result<Gate> {
    match filter(fd, program) {
        Ok(()) => Ok(Gate::Filter),
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
            keep_distance(fd)?;
            Ok(Gate::Distance)
        }
        Err(e) => Err(e),
    }
}

/// New clients may come in. (What a server has set for IP_MINTTL itself meanwhile is lost.)
pub fn let_in(fd: BorrowedFd<'_>, gate: Gate) -> io::Result<()> {
    match gate {
        Gate::Filter => unfilter(fd),
        Gate::Distance => set_distance(fd, 0),
    }
}

/// What has the least TTL that there is (`socket::open_faint`) is dropped, and told by `drops`. That is none of what
/// clients send: all others come in, and nothing is different for them on their connections, though these have
/// the same.
pub fn tell_faint(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_distance(fd, 2)
}

/// By distance, though there may be another way.
#[cfg(test)]
pub fn keep_near(fd: BorrowedFd<'_>) -> io::Result<Gate> {
    keep_distance(fd).map(|()| Gate::Distance)
}

fn keep_distance(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_distance(fd, 255)
}

/// The least distance that it hears, of IPv4.
#[cfg(test)]
pub fn least(fd: BorrowedFd<'_>) -> io::Result<i32> {
    get(fd, libc::IPPROTO_IP, libc::IP_MINTTL)
}

/// For both families on a socket of IPv6, which may serve both.
fn set_distance(fd: BorrowedFd<'_>, least: i32) -> io::Result<()> {
    set(fd, libc::IPPROTO_IP, libc::IP_MINTTL, least)?;
    match get(fd, libc::SOL_SOCKET, libc::SO_DOMAIN)? {
        libc::AF_INET6 => set(fd, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, least),
        _ => Ok(()),
    }
}

/// From now on no client finds this socket, other than by the program of its group: it can be closed
/// unnoticed. It cannot be undone without CAP_NET_RAW.
///
/// The kernel looks for the first socket of an address that fits, and asks that one's group, if it has
/// one: one that is just leaving it has none, and gets the connection itself. Now it fits nobody, since
/// it is bound to an interface which does not exist. (Tried on 6.18; since Linux 5.7 it takes no rights,
/// unless the socket is bound to an interface already: EPERM.)
pub fn hide(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, NOWHERE)
}

/// An interface that there never is: they are numbered from 1.
const NOWHERE: i32 = i32::MAX;

/// Does the kernel give what waits on a socket that is closed to others of its group (Linux 5.14)?
pub fn migrates() -> bool {
    std::fs::read("/proc/sys/net/ipv4/tcp_migrate_req").is_ok_and(|text| text.starts_with(b"1"))
}

/// Of a group this one gets all new connections from now on, whatever the program says, until it shares
/// its port again (`socket::share_port`): no client notices that the others leave meanwhile and that it
/// moves. The others are to be closed: they are hidden, so that this one is the first, and it no longer
/// has a group that could be asked.
pub fn alone(one: BorrowedFd<'_>, others: &[BorrowedFd<'_>]) -> io::Result<()> {
    // All of them are alike: none can be hidden, or all.
    others.iter().try_for_each(|fd| hide(*fd))?;
    set(one, libc::SOL_SOCKET, libc::SO_REUSEPORT, 0)
}

/// What this filter says 0 of does not get in. Beside the program of the group. EPERM: see `keep_out`.
pub fn filter(fd: BorrowedFd<'_>, program: &[Raw]) -> io::Result<()> {
    load(fd, libc::SO_ATTACH_FILTER, program)
}

/// Takes the filter off. One that has none is fine, too.
pub fn unfilter(fd: BorrowedFd<'_>) -> io::Result<()> {
    match set(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// More instructions the kernel takes from nobody (BPF_MAXINSNS).
const MOST: usize = 4096;

fn load(fd: BorrowedFd<'_>, option: i32, program: &[Raw]) -> io::Result<()> {
    if program.len() > MOST {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let one = |(code, jt, jf, k): &Raw| libc::sock_filter {
        code: *code,
        jt: *jt,
        jf: *jf,
        k: *k,
    };
    let mut all: Vec<libc::sock_filter> = program.iter().map(one).collect();
    let whole = libc::sock_fprog {
        len: u16::try_from(all.len()).unwrap_or(0),
        filter: all.as_mut_ptr(),
    };
    let len = size_of_val(&whole) as libc::socklen_t;
    let p = (&raw const whole).cast();
    // SAFETY: the kernel copies `len` instructions, which outlive the call, and checks them.
    unsafe {
        cerr(libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            p,
            len,
        ))
    }
    .map(drop)
}

/// What the kernel keeps of a TCP connection (struct tcp_info), as far as it goes: how many bytes.
pub fn tcp_info(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    let mut len = libc::socklen_t::try_from(into.len()).unwrap_or(0);
    let p = into.as_mut_ptr().cast();
    // SAFETY: into has room for len bytes.
    unsafe {
        cerr(libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            p,
            &mut len,
        ))?
    };
    Ok(usize::try_from(len).unwrap_or(0))
}

/// So many connections wait in the queue of this listening socket for somebody to accept them.
pub fn queued(fd: BorrowedFd<'_>) -> io::Result<u32> {
    queue(fd).map(|(length, _)| length)
}

/// The same, and how many can wait there.
pub fn queue(fd: BorrowedFd<'_>) -> io::Result<(u32, u32)> {
    const LISTEN: u8 = 10;
    /// tcpi_unacked and behind it tcpi_sacked, which in a listening socket are these.
    const UNACKED: usize = 24;
    let mut info = [0u8; UNACKED + 8];
    let n = tcp_info(fd, &mut info)?;
    let word = |at: usize| Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?));
    let both = word(UNACKED).zip(word(UNACKED + 4));
    both.filter(|_| n == info.len() && info[0] == LISTEN)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

/// So often something has come to this socket and was dropped, as by whatever keeps it shut.
pub fn drops(fd: BorrowedFd<'_>) -> io::Result<u32> {
    const SO_MEMINFO: i32 = 55;
    /// Nine numbers, of which it is the last (SK_MEMINFO_DROPS).
    const DROPS: usize = 8;
    let mut all = [0u32; DROPS + 1];
    let mut len = size_of_val(&all) as libc::socklen_t;
    let p = all.as_mut_ptr().cast();
    // SAFETY: all has room for len bytes.
    unsafe {
        cerr(libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_MEMINFO,
            p,
            &mut len,
        ))?
    };
    Ok(all[DROPS])
}

/// So many bytes of a connection have come and were not read yet (the end of it is none).
pub fn unread(fd: BorrowedFd<'_>) -> io::Result<u32> {
    number(fd, libc::FIONREAD)
}

/// So many bytes were written to a connection and are not acknowledged by the other side.
pub fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<u32> {
    number(fd, libc::TIOCOUTQ)
}

fn number(fd: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<u32> {
    let mut value: i32 = 0;
    // SAFETY: these requests write one int.
    unsafe { cerr(libc::ioctl(fd.as_raw_fd(), request, &raw mut value))? };
    Ok(u32::try_from(value).unwrap_or(0))
}

#[cfg(test)]
mod tests;
