//! What a socket is, as the kernel tells it.

use super::cerr;
use super::sockopt::get;
use std::ffi::{CStr, CString};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;

/// Does it listen?
pub fn is_listening(fd: BorrowedFd<'_>) -> bool {
    get(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN).is_ok_and(|v| v == 1)
}

/// Is it a TCP socket of the family of that address? (An accepted connection of a Multipath TCP
/// socket is one, too; SCTP is a stream and is not.)
pub fn is_tcp_for(fd: BorrowedFd<'_>, addr: &SocketAddr) -> bool {
    const MPTCP: i32 = 262;
    let family = match addr {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    };
    let is =
        |name, values: &[i32]| get(fd, libc::SOL_SOCKET, name).is_ok_and(|v| values.contains(&v));
    is(libc::SO_DOMAIN, &[family]) && is(libc::SO_PROTOCOL, &[libc::IPPROTO_TCP, MPTCP])
}

/// Does it belong to the network namespace that we are in? (Linux 5.14; before that, who knows.)
pub fn is_in_our_network(fd: BorrowedFd<'_>) -> bool {
    const SO_NETNS_COOKIE: i32 = 71;
    let cookie = |fd: BorrowedFd<'_>| -> io::Result<u64> {
        let mut value = 0u64;
        let mut len = size_of_val(&value) as libc::socklen_t;
        let (raw, p) = (fd.as_raw_fd(), (&raw mut value).cast());
        // SAFETY: value has room for len bytes.
        unsafe {
            cerr(libc::getsockopt(
                raw,
                libc::SOL_SOCKET,
                SO_NETNS_COOKIE,
                p,
                &mut len,
            ))?
        };
        Ok(value)
    };
    let Ok(ours) = UnixDatagram::unbound() else {
        return true;
    };
    match (cookie(fd), cookie(ours.as_fd())) {
        (Ok(theirs), Ok(ours)) => theirs == ours,
        _ => true,
    }
}

/// Has it a port already?
pub fn is_bound(fd: BorrowedFd<'_>) -> bool {
    local_addr(fd).is_ok_and(|a| a.port() != 0)
}

/// Is it used to connect from: on its way, or further?
pub fn is_connected(fd: BorrowedFd<'_>) -> bool {
    const CLOSE: u8 = 7;
    const LISTEN: u8 = 10;
    let mut state = CLOSE;
    let mut len: libc::socklen_t = 1;
    let p = (&raw mut state).cast();
    // SAFETY: state has room for len bytes, of which the first is the state.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            p,
            &mut len,
        )
    };
    done == 0 && state != CLOSE && state != LISTEN
}

/// Where it is bound.
pub fn local_addr(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let mut bytes = [0u8; 128];
    let mut len = bytes.len() as libc::socklen_t;
    // SAFETY: bytes has room for len; a byte buffer takes any address.
    unsafe {
        cerr(libc::getsockname(
            fd.as_raw_fd(),
            bytes.as_mut_ptr().cast(),
            &mut len,
        ))?
    };
    parse_addr(&bytes).ok_or_else(|| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))
}

/// An AF_INET or AF_INET6 address as bind(2) is given it.
pub fn parse_addr(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]));
    let port = u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]);
    match family {
        // Linux takes AF_UNSPEC for AF_INET where the address is 0.0.0.0.
        libc::AF_UNSPEC if bytes.get(4..8)? == [0; 4] => {
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))
        }
        libc::AF_INET => {
            let ip: [u8; 4] = bytes.get(4..8)?.try_into().ok()?;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port))
        }
        libc::AF_INET6 => {
            let ip: [u8; 16] = bytes.get(8..24)?.try_into().ok()?;
            // RFC 2133's structure has no scope: 24 bytes.
            let scope = bytes
                .get(24..28)
                .and_then(|b| b.try_into().ok())
                .map_or(0, u32::from_ne_bytes);
            let v6 = SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope);
            Some(SocketAddr::V6(v6))
        }
        _ => None,
    }
}

/// The interface that a socket is bound to.
pub fn device(fd: BorrowedFd<'_>) -> Option<CString> {
    let mut name = [0u8; libc::IFNAMSIZ];
    let mut len = name.len() as libc::socklen_t;
    // SAFETY: name has room for len bytes.
    unsafe {
        cerr(libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_BINDTODEVICE,
            name.as_mut_ptr().cast(),
            &mut len,
        ))
        .ok()?
    };
    let name = CStr::from_bytes_until_nul(&name).ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Has it a filter of its own? (One of eBPF cannot be read, and is one by that.)
pub fn is_filtered(fd: BorrowedFd<'_>) -> bool {
    let mut instructions: libc::socklen_t = 0;
    // SAFETY: room for no instruction is given, so none is written; their number is.
    let done = unsafe {
        cerr(libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_GET_FILTER,
            std::ptr::null_mut(),
            &mut instructions,
        ))
    };
    match done {
        Ok(_) => instructions > 0,
        Err(e) => e.raw_os_error() == Some(libc::EACCES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_bind_gives_them() {
        let mut v4 = vec![2, 0, 0x0b, 0xb8, 127, 0, 0, 1];
        v4.resize(16, 0);
        assert_eq!(parse_addr(&v4), Some("127.0.0.1:3000".parse().unwrap()));
        let mut v6 = vec![10, 0, 0x0b, 0xb8, 0, 0, 0, 0];
        v6.resize(24, 0);
        assert_eq!(parse_addr(&v6), Some("[::]:3000".parse().unwrap()));
        v6.resize(28, 0);
        assert_eq!(parse_addr(&v6), Some("[::]:3000".parse().unwrap()));
        v4[0] = 0;
        assert_eq!(parse_addr(&v4), None);
        v4[4..8].fill(0);
        assert_eq!(parse_addr(&v4), Some("0.0.0.0:3000".parse().unwrap()));
        for bad in [
            &b""[..],
            &[2],
            &[2, 0, 1],
            &[2, 0, 1, 1, 1],
            &v6[..20],
            &[1, 0, 47, 47, 47, 47, 47, 47],
        ] {
            assert_eq!(parse_addr(bad), None);
        }
    }
}
