//! Listening sockets of TCP: made, probed and let go.

pub use super::sockinfo::*;
pub use super::sockopt::listen;
use super::sockopt::{get, set};
use super::{cerr, steer};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

pub(super) fn tcp_socket(addr: &SocketAddr) -> io::Result<OwnedFd> {
    let family = match addr {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    // SAFETY: plain numbers; the result is new and ours alone.
    unsafe {
        let fd = cerr(libc::socket(
            family,
            libc::SOCK_STREAM | libc::SOCK_CLOEXEC,
            0,
        ))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// bind(2)
pub fn bind(fd: BorrowedFd<'_>, addr: &SocketAddr) -> io::Result<()> {
    // SAFETY: the address is complete, and outlives the call.
    let done = with_raw(addr, |p, len| unsafe { libc::bind(fd.as_raw_fd(), p, len) });
    cerr(done).map(drop)
}

/// connect(2). EINPROGRESS: it is on its way.
pub fn connect(fd: BorrowedFd<'_>, addr: &SocketAddr) -> io::Result<()> {
    // SAFETY: the address is complete, and outlives the call.
    let done = with_raw(addr, |p, len| unsafe {
        libc::connect(fd.as_raw_fd(), p, len)
    });
    cerr(done).map(drop)
}

/// A socket for one connection to such an address, which is never waited for.
pub fn open_for(to: &SocketAddr) -> io::Result<OwnedFd> {
    let fd = tcp_socket(to)?;
    super::fds::add_nonblock(fd.as_fd())?;
    Ok(fd)
}

/// A socket for one connection to such an address, which is never waited for, from a port there that
/// nobody else has. What it sends has come from nowhere else (`steer::Gate::Distance`).
pub fn open_near(from: &SocketAddr) -> io::Result<OwnedFd> {
    let fd = open_for(from)?;
    set_ttl(fd.as_fd(), from, 255)?;
    bind(fd.as_fd(), from)?;
    Ok(fd)
}

/// The same to such an address of this machine, which what it sends just reaches (`steer::tell_faint`).
pub fn open_faint(to: &SocketAddr) -> io::Result<OwnedFd> {
    let fd = open_for(to)?;
    set_ttl(fd.as_fd(), to, 1)?;
    Ok(fd)
}

fn set_ttl(fd: BorrowedFd<'_>, of: &SocketAddr, ttl: i32) -> io::Result<()> {
    match of {
        SocketAddr::V4(_) => set(fd, libc::IPPROTO_IP, libc::IP_TTL, ttl),
        SocketAddr::V6(_) => set(fd, libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, ttl),
    }
}

/// Calls it with what the kernel takes for that address.
fn with_raw<T>(
    addr: &SocketAddr,
    call: impl FnOnce(*const libc::sockaddr, libc::socklen_t) -> T,
) -> T {
    match addr {
        SocketAddr::V4(a) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: a.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from_ne_bytes(a.ip().octets()),
                },
                sin_zero: [0; 8],
            };
            call(
                (&raw const raw).cast(),
                size_of_val(&raw) as libc::socklen_t,
            )
        }
        SocketAddr::V6(a) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: a.port().to_be(),
                sin6_flowinfo: a.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: a.ip().octets(),
                },
                sin6_scope_id: a.scope_id(),
            };
            call(
                (&raw const raw).cast(),
                size_of_val(&raw) as libc::socklen_t,
            )
        }
    }
}

/// What was set on a socket that decides, at bind(2), which address it may have and whom it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// IPv6 alone.
    pub v6only: bool,
    /// Addresses that no interface has (yet).
    freebind: bool,
    /// Addresses of others.
    transparent: bool,
    /// One interface alone.
    device: Option<CString>,
}

impl Reach {
    /// That of this socket.
    pub fn of(fd: BorrowedFd<'_>) -> Reach {
        let on = |level, name| get(fd, level, name).is_ok_and(|v| v == 1);
        Reach {
            v6only: on(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
            freebind: on(libc::IPPROTO_IP, libc::IP_FREEBIND),
            transparent: on(libc::IPPROTO_IP, libc::IP_TRANSPARENT),
            device: device(fd),
        }
    }
}

fn prepare(addr: &SocketAddr, reach: &Reach) -> io::Result<OwnedFd> {
    let s = tcp_socket(addr)?;
    let on = |level, name| set(s.as_fd(), level, name, 1);
    on(libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    if addr.is_ipv6() {
        let value = i32::from(reach.v6only);
        set(s.as_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, value)?;
    }
    if reach.freebind {
        on(libc::IPPROTO_IP, libc::IP_FREEBIND)?;
    }
    if reach.transparent {
        on(libc::IPPROTO_IP, libc::IP_TRANSPARENT)?;
    }
    if let Some(name) = &reach.device {
        let len = name.as_bytes_with_nul().len() as libc::socklen_t;
        let (level, option) = (libc::SOL_SOCKET, libc::SO_BINDTODEVICE);
        // SAFETY: the name is as long as we say.
        unsafe {
            cerr(libc::setsockopt(
                s.as_raw_fd(),
                level,
                option,
                name.as_ptr().cast(),
                len,
            ))?
        };
    }
    Ok(s)
}

/// A lane, bound but not listening. SO_REUSEPORT is set from the start, so that later lanes of the
/// port can stand beside it; a port that something listens on is noticed by trying it without.
pub fn open_lane(addr: &SocketAddr, reach: &Reach) -> io::Result<OwnedFd> {
    probe(addr, reach)?;
    let lane = bind_shared(addr, reach)?;
    if addr.port() != 0 {
        return Ok(lane);
    }
    // A port that the kernel has picked is let go of by shutdown(2), and another socket could not
    // stand beside it after that: so it is asked for by its number, while this one keeps it.
    bind_shared(&local_addr(lane.as_fd())?, reach)
}

fn bind_shared(addr: &SocketAddr, reach: &Reach) -> io::Result<OwnedFd> {
    let lane = prepare(addr, reach)?;
    match share_port(lane.as_fd()) {
        // Then it is the only one there is, and all share it.
        Err(e) if steer::is_forbidden(&e) || e.raw_os_error() == Some(libc::ENOPROTOOPT) => {}
        other => other?,
    }
    bind(lane.as_fd(), addr)?;
    Ok(lane)
}

/// A lane that listens beside those that share the port already: ours, or what we were given and has
/// SO_REUSEPORT by now. Nobody is asked whether something listens there.
///
/// It is shut before it listens, so that nothing can get in until it is opened (`steer::let_in`),
/// whatever program the group has, or none.
pub fn open_beside(
    addr: &SocketAddr,
    reach: &Reach,
    filter: &[steer::Raw],
    backlog: i32,
) -> io::Result<(OwnedFd, steer::Gate)> {
    let lane = prepare(addr, reach)?;
    set(lane.as_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    bind(lane.as_fd(), addr)?;
    let gate = steer::keep_out(lane.as_fd(), filter)?;
    listen(lane.as_fd(), backlog)?;
    Ok((lane, gate))
}

/// Makes a socket that is another's, and not bound yet, one that can stand beside ours: of our user, which
/// the kernel asks of all that share a port, and (of IPv6) for the same clients as the others.
pub fn make_ours(
    fd: BorrowedFd<'_>,
    v6only: Option<bool>,
) -> Result<(), (&'static str, io::Error)> {
    let user = nix::sys::stat::fstat(fd)
        .map_err(|e| ("fstat", e.into()))?
        .st_uid;
    let us = nix::unistd::geteuid().as_raw();
    if user != us {
        let to = Some(nix::unistd::Uid::from_raw(us));
        nix::unistd::fchown(fd, to, None).map_err(|e| ("fchown", e.into()))?;
    }
    let on = |level, name, value: bool| {
        set(fd, level, name, i32::from(value)).map_err(|e| ("setsockopt", e))
    };
    on(libc::SOL_SOCKET, libc::SO_REUSEADDR, true)?;
    on(libc::SOL_SOCKET, libc::SO_REUSEPORT, true)?;
    match (v6only, get(fd, libc::SOL_SOCKET, libc::SO_DOMAIN)) {
        (Some(only), Ok(libc::AF_INET6)) => on(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only),
        _ => Ok(()),
    }
}

/// Its holders cannot make it listen again beside ours.
pub fn unshare_port(fd: BorrowedFd<'_>) {
    let _ = set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 0);
}

/// bind(2), if nothing listens there.
pub fn bind_alone(fd: BorrowedFd<'_>, addr: &SocketAddr, reach: &Reach) -> io::Result<()> {
    probe(addr, reach)?;
    bind(fd, addr)
}

/// Others may stand beside it from now on, although it listens already.
pub fn share_port(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
}

/// Fails if something listens there, and not for connections that have ended there a while ago.
pub fn probe(addr: &SocketAddr, reach: &Reach) -> io::Result<()> {
    if addr.port() == 0 {
        return Ok(());
    }
    bind(prepare(addr, reach)?.as_fd(), addr)
}

/// Makes a lane listen where nobody else does. The probe alone leaves a gap: two masters of one
/// user that start together would both pass it, and then share the port in silence. So it is made
/// again, and the lane listens, while we hold the port's lock.
pub fn listen_first(lane: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    let addr = local_addr(lane)?;
    let _lock = lock_port(addr.port());
    probe(&addr, &Reach::of(lane))?;
    listen(lane, backlog)
}

/// A name in the abstract namespace, which only one can have and which belongs to the same network
/// namespace as the port. It is held for microseconds; who holds it for longer is not one of us,
/// and is not waited for. (A listening socket as the lock would reset clients that meet it.)
fn lock_port(port: u16) -> Option<UnixDatagram> {
    let limit = std::time::Duration::from_millis(20);
    super::unix::lock_abstract(&format!("minicluster-port-{port}"), limit)
}

/// How long the connections of a listening TCP socket may be silent, and unacknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patience {
    /// The first probe comes after that long, three more follow, a third of it apart.
    pub keepalive: Option<Duration>,
    /// What was sent is acknowledged by then.
    pub user_timeout: Option<Duration>,
}

impl Patience {
    /// Sets it; connections inherit it from the socket they are accepted from.
    pub fn set(&self, lane: BorrowedFd<'_>) -> io::Result<()> {
        let tcp = |name, value: u64| {
            let value = i32::try_from(value).unwrap_or(i32::MAX);
            set(lane, libc::IPPROTO_TCP, name, value)
        };
        if let Some(d) = self.keepalive {
            set(lane, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
            tcp(libc::TCP_KEEPIDLE, d.as_secs().max(1))?;
            tcp(libc::TCP_KEEPINTVL, d.as_secs().div_ceil(3).max(1))?;
            tcp(libc::TCP_KEEPCNT, 3)?;
        }
        if let Some(d) = self.user_timeout {
            let ms = d.as_nanos().div_ceil(1_000_000);
            tcp(
                libc::TCP_USER_TIMEOUT,
                u64::try_from(ms).unwrap_or(u64::MAX),
            )?;
        }
        Ok(())
    }
}

/// Takes it out of service for every copy of the descriptor.
pub fn stop_listening(fd: BorrowedFd<'_>) {
    // SAFETY: plain numbers; on a socket that does not listen it fails harmlessly.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Of what it sends no more than about so much waits in the kernel.
pub fn keep_small(fd: BorrowedFd<'_>, bytes: i32) {
    let _ = set(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes);
}

/// When it is closed nothing of what waits is sent any more, and the other side is told so.
pub fn forsake(fd: BorrowedFd<'_>) {
    let now = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    let len = size_of_val(&now) as libc::socklen_t;
    let (p, option) = ((&raw const now).cast(), libc::SO_LINGER);
    // SAFETY: now is as long as we say.
    unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, option, p, len) };
}

/// The server of this connection is told that nothing more comes; it may still speak.
pub fn shut_reading(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: plain numbers.
    unsafe { cerr(libc::shutdown(fd.as_raw_fd(), libc::SHUT_RD)) }.map(drop)
}

/// Both sides of this connection are told that the other one has gone.
pub fn shut(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: plain numbers.
    unsafe { cerr(libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR)) }.map(drop)
}

/// Is a client let in within that time?
#[cfg(test)]
pub fn connects_within(addr: &SocketAddr, limit: Duration) -> bool {
    std::net::TcpStream::connect_timeout(addr, limit).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lane_on_a_port_that_listens_is_refused_although_both_have_reuseport() {
        let any = "127.0.0.1:0".parse().unwrap();
        let one = open_lane(&any, &Reach::default()).unwrap();
        listen_first(one.as_fd(), 8).unwrap();
        let addr = local_addr(one.as_fd()).unwrap();
        let err = open_lane(&addr, &Reach::default()).unwrap_err();
        assert_eq!(err.raw_os_error(), Some(libc::EADDRINUSE));
        assert!(is_listening(one.as_fd()));
    }

    #[test]
    fn of_two_lanes_that_are_bound_already_only_one_can_listen() {
        for any in ["127.0.0.1:0", "[::]:0"] {
            let one = open_lane(&any.parse().unwrap(), &Reach::default()).unwrap();
            let addr = local_addr(one.as_fd()).unwrap();
            let two = open_lane(&addr, &Reach::default()).unwrap();
            listen_first(one.as_fd(), 8).unwrap();
            let err = listen_first(two.as_fd(), 8).unwrap_err();
            assert_eq!(err.raw_os_error(), Some(libc::EADDRINUSE));
            // A later lane of our own, once the first listens, is another matter.
            listen(two.as_fd(), 8).unwrap();
        }
    }

    #[test]
    fn a_reach_is_that_of_the_socket_it_was_taken_from() {
        let addr: SocketAddr = "[::1]:0".parse().unwrap();
        let lo = Reach {
            v6only: true,
            freebind: true,
            device: Some(c"lo".into()),
            ..Reach::default()
        };
        let s = prepare(&addr, &lo).unwrap();
        assert_eq!(Reach::of(s.as_fd()), lo);
        assert_eq!(device(s.as_fd()), lo.device);
        // An address that nobody has.
        let nobodys = "198.51.100.7:0".parse().unwrap();
        assert!(open_lane(&nobodys, &Reach::default()).is_err());
        open_lane(
            &nobodys,
            &Reach {
                v6only: false,
                device: None,
                ..lo
            },
        )
        .unwrap();
    }

    #[test]
    fn a_socket_of_anybodys_can_be_made_ours_and_is_let_go_for_good() {
        let any = "[::1]:0".parse().unwrap();
        let ours = open_lane(&any, &Reach::default()).unwrap();
        listen(ours.as_fd(), 16).unwrap();
        let addr = local_addr(ours.as_fd()).unwrap();
        let theirs = tcp_socket(&addr).unwrap();
        if nix::unistd::geteuid().is_root() {
            let nobody = Some(nix::unistd::Uid::from_raw(65_534));
            nix::unistd::fchown(&theirs, nobody, None).unwrap();
        }
        assert!(bind(theirs.as_fd(), &addr).is_err());
        make_ours(theirs.as_fd(), Some(true)).unwrap();
        assert!(Reach::of(theirs.as_fd()).v6only);
        assert!(bind_alone(theirs.as_fd(), &addr, &Reach::default()).is_err());
        make_ours(theirs.as_fd(), Some(false)).unwrap();
        bind(theirs.as_fd(), &addr).unwrap();
        listen(theirs.as_fd(), 16).unwrap();
        stop_listening(theirs.as_fd());
        unshare_port(theirs.as_fd());
        let e = listen(theirs.as_fd(), 16).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EADDRINUSE));
    }

    #[test]
    fn a_socket_that_connects_is_known_and_one_with_a_filter_too() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let s = prepare(&addr, &Reach::default()).unwrap();
        assert!(!is_connected(s.as_fd()) && !is_connected(listener.as_fd()));
        // One of UDP: on those of TCP it takes CAP_NET_ADMIN by now.
        let filtered = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(!is_filtered(filtered.as_fd()));
        let mut pass = libc::sock_filter {
            code: 6,
            jt: 0,
            jf: 0,
            k: u32::MAX,
        };
        let program = libc::sock_fprog {
            len: 1,
            filter: &raw mut pass,
        };
        let len = size_of_val(&program) as libc::socklen_t;
        let p = (&raw const program).cast();
        let option = libc::SO_ATTACH_FILTER;
        // SAFETY: the kernel reads one instruction.
        let done =
            unsafe { libc::setsockopt(filtered.as_raw_fd(), libc::SOL_SOCKET, option, p, len) };
        assert_eq!(done, 0);
        assert!(is_filtered(filtered.as_fd()));
        let client = std::net::TcpStream::connect(addr).unwrap();
        assert!(is_connected(client.as_fd()));
    }
}
