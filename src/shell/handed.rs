//! How workers are told of the sockets that they are handed, in the words of those whose clients
//! they may contain: systemd, Server::Starter, einhorn.

use super::sockets::Handed;
use crate::core::Addr;
use std::net::IpAddr;

/// The number that the first of them has in a worker.
pub const FIRST: usize = 3;

/// Variables for these sockets. (LISTEN_PID is set by the child, which alone knows it.)
pub fn variables(handed: &[Handed<'_>], generation: u32) -> Vec<(String, String)> {
    if handed.is_empty() {
        return Vec::new();
    }
    let numbered = || handed.iter().zip(FIRST..);
    let names: Vec<&str> = handed.iter().map(|h| h.name).collect();
    let ports: Vec<String> = numbered()
        .filter_map(|(h, fd)| Some(format!("{}={fd}", starter_name(h.addr)?)))
        .collect();
    let fds: Vec<String> = numbered().map(|(_, fd)| fd.to_string()).collect();
    let mut all = vec![
        ("LISTEN_FDS", handed.len().to_string()),
        ("LISTEN_FDNAMES", names.join(":")),
        ("SERVER_STARTER_PORT", ports.join(";")),
        ("SERVER_STARTER_GENERATION", generation.to_string()),
        ("EINHORN_FD_COUNT", handed.len().to_string()),
        ("EINHORN_FDS", fds.join(" ")),
    ]
    .into_iter()
    .map(|(k, v)| (k.to_string(), v))
    .collect::<Vec<_>>();
    all.extend(
        fds.into_iter()
            .enumerate()
            .map(|(n, fd)| (format!("EINHORN_FD_{n}"), fd)),
    );
    all
}

/// As start_server's --port and --path would have said it: a port alone is one on all of IPv4.
fn starter_name(addr: &Addr) -> Option<String> {
    match addr {
        Addr::Tcp(a) => Some(match a.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => a.port().to_string(),
            IpAddr::V4(_) | IpAddr::V6(_) => a.to_string(),
        }),
        // What separates the entries cannot stand in one.
        Addr::Unix(path) => {
            let path = path.to_str()?;
            (!path.contains(['=', ';', '@'])).then(|| path.to_string())
        }
        Addr::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_same_sockets_in_three_tongues() {
        let some = std::io::stdin();
        let addrs: Vec<Addr> = ["0.0.0.0:80", "127.0.0.1:81", "[::]:82", "unix:/a.sock"]
            .iter()
            .map(|a| a.parse().unwrap())
            .collect();
        let handed: Vec<Handed<'_>> = addrs
            .iter()
            .map(|addr| Handed {
                addr,
                name: "x",
                fd: some.as_fd(),
            })
            .collect();
        let all = variables(&handed, 7);
        let get = |name: &str| &all.iter().find(|(k, _)| k == name).unwrap().1;
        assert_eq!(get("LISTEN_FDS"), "4");
        assert_eq!(get("LISTEN_FDNAMES"), "x:x:x:x");
        assert_eq!(
            get("SERVER_STARTER_PORT"),
            "80=3;127.0.0.1:81=4;[::]:82=5;/a.sock=6"
        );
        assert_eq!(get("SERVER_STARTER_GENERATION"), "7");
        assert_eq!(get("EINHORN_FD_COUNT"), "4");
        assert_eq!(get("EINHORN_FD_3"), "6");
        assert!(variables(&[], 1).is_empty());
    }
}
