//! Who listens in our network namespace, by /proc. As there, what has gone meanwhile is not in the answer.

use super::procfs::{Target, base, command_line, descriptors, numbers};
use std::fs;
use std::io::{self, BufRead};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Sockets that listen in our network namespace: where, and which inode. The kernel lists them before
/// the connections, of which there may be very many: those are not read.
pub fn listeners() -> Vec<(SocketAddr, u64)> {
    let mut all = Vec::new();
    for file in ["self/net/tcp", "self/net/tcp6"] {
        let Ok(file) = fs::File::open(format!("{}/{file}", base())) else {
            continue;
        };
        let lines = io::BufReader::with_capacity(4096, file).lines().skip(1);
        let listening = lines.map_while(Result::ok).take_while(|l| listens(l));
        all.extend(listening.filter_map(|l| listener(&l)));
    }
    all
}

fn listens(line: &str) -> bool {
    line.split_whitespace().nth(3) == Some("0A")
}

fn listener(line: &str) -> Option<(SocketAddr, u64)> {
    let mut f = line.split_whitespace();
    let local = f.nth(1)?;
    let inode = f.nth(7)?.parse().ok()?;
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of four bytes in the machine's order.
    let mut bytes = Vec::new();
    for at in (0..ip.len()).step_by(8) {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let ip = match bytes.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    Some((SocketAddr::new(ip, port), inode))
}

/// Who holds that port, as `pid 4711 (node server.js)`: for a message, so the first found will do.
pub fn holder_of(port: u16) -> Option<String> {
    let inodes: Vec<u64> = listeners()
        .iter()
        .filter(|(a, _)| a.port() == port)
        .map(|(_, i)| *i)
        .collect();
    let holds = |pid: &i32| {
        descriptors(*pid).is_some_and(|fds| {
            fds.iter()
                .any(|(_, t)| matches!(t, Target::Socket(i) if inodes.contains(i)))
        })
    };
    if inodes.is_empty() {
        return None;
    }
    let pids: Vec<i32> = numbers(base());
    match pids.iter().find(|p| holds(p)) {
        Some(pid) => Some(format!("pid {pid} ({})", command_line(*pid))),
        None => Some("a process that we may not look at".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::procfs::{open_flags, socket_protocol, target};
    use super::*;
    use std::os::fd::{AsFd, AsRawFd};

    #[test]
    fn listeners_are_found_and_connections_are_not_read() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let here = |a: &SocketAddr| listeners().iter().any(|(l, _)| l == a);
        assert!(here(&addr));
        let conn = std::net::TcpStream::connect(addr).unwrap();
        assert!(here(&addr) && !here(&conn.local_addr().unwrap()));
        let v6 = std::net::TcpListener::bind("[::1]:0").unwrap();
        assert!(here(&v6.local_addr().unwrap()));
        for (line, is) in [
            (
                "   0: 00000000:0BB8 00000000:0000 0A 00000000:00000000",
                true,
            ),
            (
                "   1: 0100007F:0BB8 0100007F:B1A2 01 00000000:00000000",
                false,
            ),
            (
                "   2: 0100007F:0BB8 0100007F:B1A2 06 00000000:00000000",
                false,
            ),
        ] {
            assert_eq!(listens(line), is, "{line}");
        }
    }

    #[test]
    fn a_listener_of_ours_is_found_by_port_and_its_holder_named() {
        let l = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = l.local_addr().unwrap();
        let inode = super::super::fds::inode(l.as_fd()).unwrap();
        assert!(listeners().contains(&(addr, inode)));
        let me = std::process::id();
        assert!(
            holder_of(addr.port())
                .unwrap()
                .starts_with(&format!("pid {me} ("))
        );
        let pid = i32::try_from(me).unwrap();
        assert_eq!(target(pid, l.as_raw_fd()), Some(Target::Socket(inode)));
        assert_eq!(socket_protocol(pid, l.as_raw_fd()).as_deref(), Some("TCP"));
        let cloexec = open_flags(pid, l.as_raw_fd()).unwrap() & libc::O_CLOEXEC;
        assert_ne!(cloexec, 0);
    }

    #[test]
    fn lines_of_net_tcp() {
        let v4 = "   0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12345 1 0 100 0 0 10 0";
        assert_eq!(
            listener(v4),
            Some(("127.0.0.1:3000".parse().unwrap(), 12345))
        );
        let v6 = "   0: 00000000000000000000000001000000:0BB8 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 1 0";
        assert_eq!(listener(v6), Some(("[::1]:3000".parse().unwrap(), 7)));
        for bad in ["", "  sl  local_address rem_address", "0: x:1 y 0A"] {
            assert_eq!(listener(bad), None);
        }
    }
}
