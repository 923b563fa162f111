//! What a server has set on its socket before bind(2), and what a connection inherits from the socket
//! it is accepted from: carried over to the socket that takes its place.

use super::socket::{local_addr, tcp_socket};
use super::sockopt::{get, set};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// What a server may set before bind(2) and an accepted socket inherits from its listener.
const INHERITED: [(i32, i32); 31] = [
    (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    (libc::SOL_SOCKET, libc::SO_KEEPALIVE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE),
    (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL),
    (libc::IPPROTO_TCP, libc::TCP_KEEPCNT),
    (libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT),
    (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT),
    (libc::IPPROTO_TCP, libc::TCP_FASTOPEN),
    (libc::IPPROTO_TCP, libc::TCP_MAXSEG),
    (libc::IPPROTO_TCP, libc::TCP_SYNCNT),
    (libc::IPPROTO_TCP, libc::TCP_LINGER2),
    (libc::IPPROTO_TCP, libc::TCP_WINDOW_CLAMP),
    (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT),
    (libc::SOL_SOCKET, libc::SO_PRIORITY),
    (libc::SOL_SOCKET, libc::SO_OOBINLINE),
    (libc::SOL_SOCKET, libc::SO_MARK),
    (libc::IPPROTO_IP, libc::IP_MINTTL),
    (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
    (libc::IPPROTO_TCP, libc::TCP_SAVE_SYN),
    (libc::SOL_SOCKET, libc::SO_RCVLOWAT),
    (libc::SOL_SOCKET, libc::SO_DONTROUTE),
    (libc::SOL_SOCKET, libc::SO_ZEROCOPY),
    (libc::SOL_SOCKET, libc::SO_BUSY_POLL),
    (libc::SOL_SOCKET, libc::SO_TIMESTAMP),
    (libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
    (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
    (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
];

/// Buffers read back doubled. By force first: then they may be longer than others may have them.
const BUFFERS: [(i32, i32); 2] = [
    (libc::SO_RCVBUF, libc::SO_RCVBUFFORCE),
    (libc::SO_SNDBUF, libc::SO_SNDBUFFORCE),
];

/// Carries over to the lane what the worker set on its own socket before bind(2): all that differs
/// from a new socket's and from the lane's. Best effort: an option the lane refuses is left.
pub fn carry_options(from: BorrowedFd<'_>, lane: BorrowedFd<'_>) -> io::Result<()> {
    let fresh = tcp_socket(&local_addr(lane)?)?;
    let differs = |level, name| {
        let theirs = get(from, level, name).ok()?;
        let default = get(fresh.as_fd(), level, name).ok()?;
        let ours = get(lane, level, name).ok()?;
        (theirs != default && theirs != ours).then_some(theirs)
    };
    for (level, name) in INHERITED {
        if let Some(value) = differs(level, name) {
            let _ = set(lane, level, name, value);
        }
    }
    for (name, force) in BUFFERS {
        if let Some(value) = differs(libc::SOL_SOCKET, name) {
            let _ = set(lane, libc::SOL_SOCKET, force, value / 2)
                .or_else(|_| set(lane, libc::SOL_SOCKET, name, value / 2));
        }
    }
    carry_linger(from, lane);
    carry_timeouts(from, lane);
    carry_congestion(from, lane);
    Ok(())
}

/// The same for a unix socket: whether who connects is told to the server.
pub fn carry_unix_options(from: BorrowedFd<'_>, lane: BorrowedFd<'_>) {
    for name in [libc::SO_PASSCRED, libc::SO_PASSSEC] {
        if get(from, libc::SOL_SOCKET, name).is_ok_and(|v| v != 0) {
            let _ = set(lane, libc::SOL_SOCKET, name, 1);
        }
    }
}

fn linger(fd: BorrowedFd<'_>) -> Option<libc::linger> {
    let mut value = libc::linger {
        l_onoff: 0,
        l_linger: 0,
    };
    let mut len = size_of_val(&value) as libc::socklen_t;
    let p: *mut libc::c_void = (&raw mut value).cast();
    // SAFETY: value has room for len bytes and is plain data.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            p,
            &mut len,
        )
    };
    (done == 0).then_some(value)
}

fn carry_linger(from: BorrowedFd<'_>, lane: BorrowedFd<'_>) {
    let Some(value) = linger(from).filter(|l| l.l_onoff != 0) else {
        return;
    };
    let len = size_of_val(&value) as libc::socklen_t;
    let p = (&raw const value).cast();
    // SAFETY: value is as long as we say.
    unsafe { libc::setsockopt(lane.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, p, len) };
}

/// SO_RCVTIMEO makes accept(2) itself return; both are inherited.
fn carry_timeouts(from: BorrowedFd<'_>, lane: BorrowedFd<'_>) {
    for name in [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO] {
        let mut value = libc::timeval {
            tv_sec: 0,
            tv_usec: 0,
        };
        let mut len = size_of_val(&value) as libc::socklen_t;
        let p: *mut libc::c_void = (&raw mut value).cast();
        let level = libc::SOL_SOCKET;
        // SAFETY: value has room for len bytes and is plain data.
        unsafe {
            if libc::getsockopt(from.as_raw_fd(), level, name, p, &mut len) == 0
                && (value.tv_sec, value.tv_usec) != (0, 0)
            {
                libc::setsockopt(lane.as_raw_fd(), level, name, p, len);
            }
        }
    }
}

fn carry_congestion(from: BorrowedFd<'_>, lane: BorrowedFd<'_>) {
    let read = |fd: BorrowedFd<'_>| {
        let mut name = [0u8; 16];
        let mut len = name.len() as libc::socklen_t;
        // SAFETY: name has room for len bytes.
        let done = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_CONGESTION,
                name.as_mut_ptr().cast(),
                &mut len,
            )
        };
        (done == 0).then_some(name)
    };
    match (read(from), read(lane)) {
        (Some(theirs), Some(ours)) if theirs != ours => {
            // SAFETY: the kernel reads the name up to its NUL, at most 16 bytes.
            unsafe {
                libc::setsockopt(
                    lane.as_raw_fd(),
                    libc::IPPROTO_TCP,
                    libc::TCP_CONGESTION,
                    theirs.as_ptr().cast(),
                    16,
                );
            }
        }
        _ => {}
    }
}

/// Makes sure that closing our copy of a worker's socket takes no time: were it the last one, close(2)
/// would wait for what is unsent, as long as SO_LINGER says. (Nobody but a worker that binds a socket
/// which is connected comes here, and it gets an error.)
pub fn no_linger(fd: BorrowedFd<'_>) {
    // With a time of 0 it resets, at once.
    if linger(fd).is_none_or(|l| l.l_onoff == 0 || l.l_linger == 0) {
        return;
    }
    let off = libc::linger {
        l_onoff: 0,
        l_linger: 0,
    };
    let len = size_of_val(&off) as libc::socklen_t;
    let p = (&raw const off).cast();
    // SAFETY: off is as long as we say.
    unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, p, len) };
}

#[cfg(test)]
mod tests {
    use super::super::socket::{Reach, open_lane};
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn options_set_before_bind_reach_the_lane_and_the_others_stay() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let theirs = tcp_socket(&any).unwrap();
        let lane = open_lane(&any, &Reach::default()).unwrap();
        set(theirs.as_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1).unwrap();
        set(
            theirs.as_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_USER_TIMEOUT,
            4321,
        )
        .unwrap();
        set(theirs.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, 50_000).unwrap();
        // A pair: a peer that takes 255 alone (GTSM) must get it, too.
        for name in [libc::IP_TTL, libc::IP_MINTTL] {
            set(theirs.as_fd(), libc::IPPROTO_IP, name, 255).unwrap();
        }
        set(lane.as_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1).unwrap();
        carry_options(theirs.as_fd(), lane.as_fd()).unwrap();
        let read = |l, n| get(lane.as_fd(), l, n).unwrap();
        assert_eq!(read(libc::IPPROTO_TCP, libc::TCP_NODELAY), 1);
        assert_eq!(read(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT), 4321);
        assert_eq!(read(libc::SOL_SOCKET, libc::SO_RCVBUF), 100_000);
        assert_eq!(read(libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
        assert_eq!(read(libc::IPPROTO_IP, libc::IP_TTL), 255);
        assert_eq!(read(libc::IPPROTO_IP, libc::IP_MINTTL), 255);
    }
}
