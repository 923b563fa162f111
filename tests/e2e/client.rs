//! Clients of the servers: one request a connection, as blunt as HTTP allows.

use crate::birth;
use crate::harness::Rig;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// An answer that does not come by then is none.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came back.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    /// Who says that it answered: `PID n SLOT n`.
    pub fn pid(&self) -> i32 {
        self.word(1).parse().unwrap()
    }

    pub fn slot(&self) -> u16 {
        self.word(3).parse().unwrap()
    }

    fn word(&self, n: usize) -> &str {
        let word = self.body.split_whitespace().nth(n);
        word.unwrap_or_else(|| panic!("not an answer of ours: {self:?}"))
    }

    /// The lines of a report that begin so, without that.
    pub fn lines(&self, head: &str) -> Vec<&str> {
        let body = self.body.lines();
        body.filter_map(|l| l.strip_prefix(head)?.strip_prefix([' ', '\t']))
            .collect()
    }

    /// The one line of a report that begins so.
    pub fn line(&self, head: &str) -> &str {
        match self.lines(head)[..] {
            [one] => one,
            _ => panic!("not one line '{head}' in:\n{}", self.body),
        }
    }

    /// These variables are in the reported environment.
    pub fn has_env(&self, wanted: &[(&str, &str)]) {
        for (name, value) in wanted {
            assert_eq!(self.env(name), Some(*value), "{name}");
        }
    }

    /// A variable of the reported environment.
    pub fn env(&self, name: &str) -> Option<&str> {
        let all = self.lines("env");
        let pairs = all.iter().filter_map(|line| line.split_once('='));
        let values: Vec<&str> = pairs.filter(|(k, _)| *k == name).map(|(_, v)| v).collect();
        assert!(values.len() < 2, "{name} is there twice: {values:?}");
        values.first().copied()
    }
}

/// One request on a connection of its own.
pub fn get(addr: SocketAddr, path: &str) -> io::Result<Answer> {
    ask(TcpStream::connect_timeout(&addr, PATIENCE)?, path)
}

/// A connection of a client that has this address.
pub fn from(client: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let family = match client {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let s = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    minicluster::sys::socket::bind(s.as_fd(), &SocketAddr::new(client, 0))?;
    birth::connect(&s, to)?;
    Ok(TcpStream::from(s))
}

/// One request on this connection, which is closed then.
pub fn ask(stream: TcpStream, path: &str) -> io::Result<Answer> {
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(stream, path)
}

/// One request to the unix socket there.
pub fn get_unix(stream: UnixStream) -> io::Result<Answer> {
    stream.set_read_timeout(Some(PATIENCE))?;
    exchange(stream, "/")
}

fn exchange(mut stream: impl Read + Write, path: &str) -> io::Result<Answer> {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| {
        io::Error::new(io::ErrorKind::UnexpectedEof, format!("no head: {text:?}"))
    })?;
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    Ok(Answer {
        status: status.unwrap_or(0),
        body: body.to_string(),
    })
}

/// 127.0.0.1
pub fn v4(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// ::1
pub fn v6(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))
}

/// Asks until that many processes have answered, several at once so that idle ones get their turn.
/// Every single request has to be answered.
pub fn all_answer(rig: &Rig, addr: SocketAddr, path: &str, processes: usize) -> BTreeSet<i32> {
    let mut pids = BTreeSet::new();
    rig.until(&format!("{processes} processes answer on {addr}"), || {
        let clients: Vec<_> = (0..processes * 2)
            .map(|_| {
                let path = path.to_string();
                std::thread::spawn(move || get(addr, &path))
            })
            .collect();
        for c in clients {
            let answer = c.join().unwrap().unwrap();
            assert_eq!(answer.status, 200, "{answer:?}");
            pids.insert(answer.pid());
        }
        assert!(pids.len() <= processes, "{pids:?}");
        pids.len() == processes
    });
    pids
}
