//! A connection of a client, by whichever door it came.

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

/// Either.
pub enum Conn {
    /// By the control socket.
    Unix(UnixStream),
    /// By a port, and from there.
    Tcp(TcpStream, SocketAddr),
}

impl Conn {
    /// Nothing more is said; what the other side says still comes.
    pub fn end_writing(&self) {
        let _ = match self {
            Conn::Unix(s) => s.shutdown(Shutdown::Write),
            Conn::Tcp(s, _) => s.shutdown(Shutdown::Write),
        };
    }

    /// From where, if that is an address.
    pub fn peer(&self) -> Option<SocketAddr> {
        match self {
            Conn::Unix(_) => None,
            Conn::Tcp(_, peer) => Some(*peer),
        }
    }

    /// The address that was asked, if it is one.
    pub fn asked(&self) -> Option<SocketAddr> {
        match self {
            Conn::Unix(_) => None,
            Conn::Tcp(s, _) => s.local_addr().ok(),
        }
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Conn::Unix(s) => s.as_fd(),
            Conn::Tcp(s, _) => s.as_fd(),
        }
    }
}

impl Read for Conn {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Conn::Unix(s) => s.read(into),
            Conn::Tcp(s, _) => s.read(into),
        }
    }
}

impl Write for Conn {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
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
            Conn::Unix(s) => s.register(at, token, wanted),
            Conn::Tcp(s, _) => s.register(at, token, wanted),
        }
    }

    fn reregister(&mut self, at: &Registry, token: Token, wanted: Interest) -> io::Result<()> {
        match self {
            Conn::Unix(s) => s.reregister(at, token, wanted),
            Conn::Tcp(s, _) => s.reregister(at, token, wanted),
        }
    }

    fn deregister(&mut self, at: &Registry) -> io::Result<()> {
        match self {
            Conn::Unix(s) => s.deregister(at),
            Conn::Tcp(s, _) => s.deregister(at),
        }
    }
}
