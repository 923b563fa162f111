//! Where a lane is reached: an address of TCP, the path of a unix socket, or whatever was passed to
//! us and can only be passed on.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a lane is reached.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Addr {
    /// TCP.
    Tcp(SocketAddr),
    /// A unix stream socket; a path that begins with `@` is a name in the abstract namespace.
    Unix(#[serde(with = "super::carry::paths")] PathBuf),
    /// A descriptor that was passed to us and is neither of these, described.
    Other(String),
}

impl Addr {
    /// The TCP address, if it is one.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Addr::Tcp(a) => Some(*a),
            Addr::Unix(_) | Addr::Other(_) => None,
        }
    }

    /// The TCP port, if it is one.
    pub fn port(&self) -> Option<u16> {
        self.tcp().map(|a| a.port())
    }

    /// As status has it: with what is spoken there.
    pub fn url(&self) -> String {
        match self {
            Addr::Tcp(a) => format!("tcp://{a}"),
            Addr::Unix(_) | Addr::Other(_) => self.to_string(),
        }
    }
}

impl From<SocketAddr> for Addr {
    fn from(a: SocketAddr) -> Addr {
        Addr::Tcp(a)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addr::Tcp(a) => a.fmt(f),
            Addr::Unix(path) => write!(f, "unix:{}", path.display()),
            Addr::Other(what) => f.write_str(what),
        }
    }
}

impl FromStr for Addr {
    type Err = String;
    fn from_str(text: &str) -> Result<Addr, String> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Addr::Unix(path.into())),
            None => text
                .parse()
                .map(Addr::Tcp)
                .map_err(|_| format!("'{text}' is no address")),
        }
    }
}

/// One address that was asked for, to be opened before any worker starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    /// Where. Of TCP port 0 the kernel picks one.
    pub addr: Addr,
    /// Of a unix socket: what its file is to be like.
    pub file: FileIs,
    /// It is open already: the descriptor, and its name, if it has one.
    pub passed: Option<(i32, Option<String>)>,
}

/// What is not said is left as it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIs {
    /// Permissions.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

impl From<Addr> for Given {
    fn from(addr: Addr) -> Given {
        Given {
            addr,
            file: FileIs::default(),
            passed: None,
        }
    }
}

/// Can one client reach sockets at both addresses? `::` may be dual-stack: then it takes IPv4, too.
pub fn share_clients(a: SocketAddr, b: SocketAddr) -> bool {
    let any = |s: SocketAddr| s.ip().is_unspecified();
    let any_v6 = |s: SocketAddr| s.is_ipv6() && any(s);
    let same_family = a.is_ipv4() == b.is_ipv4();
    a.port() == b.port()
        && match same_family {
            true => a.ip() == b.ip() || any(a) || any(b),
            false => any_v6(a) || any_v6(b),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_they_are_read() {
        for text in ["0.0.0.0:3000", "[::1]:80", "unix:/run/a.sock", "unix:@name"] {
            let addr: Addr = text.parse().unwrap();
            assert_eq!(addr.to_string(), text);
        }
        assert!("nowhere".parse::<Addr>().is_err());
    }

    #[test]
    fn which_sockets_share_clients() {
        let a = |s: &str| s.parse::<SocketAddr>().unwrap();
        for (one, other, shared) in [
            ("0.0.0.0:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "0.0.0.0:81", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("10.0.0.1:80", "127.0.0.1:80", false),
            ("127.0.0.1:80", "[::1]:80", false),
            ("127.0.0.1:80", "[::]:80", true),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "[::1]:80", true),
        ] {
            assert_eq!(share_clients(a(one), a(other)), shared, "{one} {other}");
            assert_eq!(share_clients(a(other), a(one)), shared, "{other} {one}");
        }
    }
}
