//! A connection of a client, by whichever door it came.

use crate::sys::signal::Blocked;
use crate::sys::{fds, process};
use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

/// Standard input and output.
const STDIN: BorrowedFd<'static> = process::STDIN;
const STDOUT: BorrowedFd<'static> = process::STDOUT;

/// Any of them.
#[derive(Serialize, Deserialize)]
pub enum Conn {
    /// Our own standard input and output (--console).
    Own,
    /// By the control socket.
    Unix(#[serde(with = "crate::shell::carry")] UnixStream),
    /// By a port, and from there.
    Tcp(#[serde(with = "crate::shell::carry")] TcpStream, SocketAddr),
}

impl Conn {
    /// Nothing more is said; what the other side says still comes.
    pub fn end_writing(&self) {
        let _ = match self {
            Conn::Own => Ok(()),
            Conn::Unix(s) => s.shutdown(Shutdown::Write),
            Conn::Tcp(s, _) => s.shutdown(Shutdown::Write),
        };
    }

    /// Has the other side gone altogether? (A file of lines, or a pipe, whose end has come may still be
    /// answered.)
    pub fn has_hung_up(&self) -> bool {
        match self {
            Conn::Own => false,
            Conn::Unix(_) | Conn::Tcp(..) => fds::hung_up(self.as_fd()),
        }
    }

    /// From where, if that is an address.
    pub fn peer(&self) -> Option<SocketAddr> {
        match self {
            Conn::Own | Conn::Unix(_) => None,
            Conn::Tcp(_, peer) => Some(*peer),
        }
    }

    /// The address that was asked, if it is one.
    pub fn asked(&self) -> Option<SocketAddr> {
        match self {
            Conn::Own | Conn::Unix(_) => None,
            Conn::Tcp(s, _) => s.local_addr().ok(),
        }
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Conn::Own => STDIN,
            Conn::Unix(s) => s.as_fd(),
            Conn::Tcp(s, _) => s.as_fd(),
        }
    }
}

impl Read for Conn {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Conn::Own => own_read(into),
            Conn::Unix(s) => s.read(into),
            Conn::Tcp(s, _) => s.read(into),
        }
    }
}

impl Write for Conn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Conn::Own => own_write(bytes),
            Conn::Unix(s) => s.write(bytes),
            Conn::Tcp(s, _) => s.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Conn {
    fn register(&mut self, at: &Registry, token: Token, wanted: Interest) -> io::Result<()> {
        match self {
            Conn::Own => SourceFd(&0).register(at, token, Interest::READABLE),
            Conn::Unix(s) => s.register(at, token, wanted),
            Conn::Tcp(s, _) => s.register(at, token, wanted),
        }
    }

    fn reregister(&mut self, at: &Registry, token: Token, wanted: Interest) -> io::Result<()> {
        match self {
            Conn::Own => SourceFd(&0).reregister(at, token, Interest::READABLE),
            Conn::Unix(s) => s.reregister(at, token, wanted),
            Conn::Tcp(s, _) => s.reregister(at, token, wanted),
        }
    }

    fn deregister(&mut self, at: &Registry) -> io::Result<()> {
        match self {
            Conn::Own => SourceFd(&0).deregister(at),
            Conn::Unix(s) => s.deregister(at),
            Conn::Tcp(s, _) => s.deregister(at),
        }
    }
}

/// The description may be the shell's, too: it is not made one that does not block. From the background
/// of a terminal nothing is read: that would stop us.
fn own_read(into: &mut [u8]) -> io::Result<usize> {
    match fds::readable_now(STDIN) && !process::is_in_background(STDIN) {
        true => fds::read(STDIN, into),
        false => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// As the log is written: a terminal that takes nothing, or belongs to another job, is not waited for.
/// (While something is left over, `Shell::watch_console` watches for its turn: the poll has only
/// descriptor 0 of this connection.)
fn own_write(bytes: &[u8]) -> io::Result<usize> {
    let piece = bytes.get(..PIECE).unwrap_or(bytes);
    match fds::writable_now(STDOUT) {
        true => {
            let _blocked = Blocked::all();
            fds::write(STDOUT, piece)
        }
        false => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// What a terminal or a pipe that can be written takes without waiting.
const PIECE: usize = 512;
