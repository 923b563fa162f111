//! A cluster with a monitor and a key, and those who ask it over HTTP.

use crate::client::v4;
use crate::harness::Rig;
use crate::place::free_port;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use tinyjson::JsonValue;

pub const KEY: &str = "0123456789abcdef0123456789abcdef";

/// A cluster with a monitor and a key.
pub struct House {
    pub rig: Rig,
    pub port: u16,
    pub monitor: SocketAddr,
}

pub fn key_file(rig: &std::path::Path, mode: u32, text: &str) -> PathBuf {
    let path = rig.join("key");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

pub fn house_of(n: usize, more: &str, command: &str) -> House {
    let (port, monitor) = (free_port(), free_port());
    let words = format!("-n {n} -p {port} --monitor {monitor} --key-file key {more} -- {command}");
    let mut rig = Rig::dressed(words, |_, dir| {
        key_file(dir, 0o600, KEY);
        std::fs::write(dir.join("env"), "A=1\n").unwrap();
    });
    rig.up();
    House {
        rig,
        port,
        monitor: v4(monitor),
    }
}

pub fn house(n: usize, more: &str) -> House {
    house_of(n, more, "./threaded")
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn of(text: &str) -> Reply {
        let (head, body) = text.split_once("\r\n\r\n").expect(text);
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply {
            status,
            head: head.to_string(),
            body: body.to_string(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|l| l.split_once(": "));
        lines.into_iter().find(|(n, _)| *n == name).map(|(_, v)| v)
    }

    pub fn json(&self) -> JsonValue {
        self.body.parse().expect(&self.body)
    }
}

pub const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

pub fn exchange(mut stream: impl Read + Write, text: &str) -> Reply {
    stream.write_all(text.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    Reply::of(&String::from_utf8_lossy(&bytes))
}

pub fn connect(at: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(PATIENCE).unwrap();
    stream
}

impl House {
    /// A request of its own connection, with these headers.
    pub fn raw(&self, line: &str, headers: &str, body: &str) -> Reply {
        exchange(connect(self.monitor), &request(line, headers, body))
    }

    /// The same on the control socket.
    pub fn inside(&self, line: &str, body: &str) -> Reply {
        let stream = UnixStream::connect(self.rig.socket()).unwrap();
        stream.set_read_timeout(PATIENCE).unwrap();
        exchange(stream, &request(line, "", body))
    }

    /// Without a key.
    pub fn asks(&self, line: &str) -> Reply {
        self.raw(line, "", "")
    }

    /// With it.
    pub fn opens(&self, line: &str, body: &str) -> Reply {
        self.raw(line, &format!("Authorization: Bearer {KEY}\r\n"), body)
    }
}

pub fn request(line: &str, headers: &str, body: &str) -> String {
    let host = match headers.contains("Host:") {
        true => "",
        false => "Host: localhost\r\n",
    };
    let length = match body {
        "" => String::new(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    format!("{line} HTTP/1.1\r\n{host}{headers}{length}Connection: close\r\n\r\n{body}")
}
