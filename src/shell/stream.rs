//! Our stderr, as a stream that never blocks and never fails the cluster: what cannot be written now
//! waits in a buffer with a limit; what does not fit is counted; one that has gone away is silence.

use super::carry::Carry;
use crate::sys::signal::Blocked;
use crate::sys::{clock, fds};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Bytes that may wait.
const MAX_PENDING: usize = 64 * 1024;
/// Written at once: a pipe that polls writable takes that much without blocking.
pub const CHUNK: usize = 4096;

/// The stream.
pub struct Stream {
    out: Option<OwnedFd>,
    /// It has gone away: silence. Its descriptor stays until the poll has let go of it.
    gone: bool,
    /// It is a pipe that we could not get a description of our own for (somebody else's, as behind
    /// su): each write says that it does not wait.
    nowait: bool,
    /// What workers get back: `out` may be a description of our own that does not block.
    shared: Option<OwnedFd>,
    terminal: bool,
    pending: VecDeque<u8>,
    /// Lines that were lost since that was last told,
    lost: u64,
    /// and ever.
    lost_ever: u64,
    /// Did the disk refuse the last write?
    full: bool,
}

/// What waits for it, and what was lost: it itself is our stderr, whoever we are.
impl Carry for Stream {
    type As = (String, u64, u64);
    fn written(&self) -> Self::As {
        (self.pending.written(), self.lost, self.lost_ever)
    }
    fn taken((pending, lost, lost_ever): Self::As) -> Result<Stream, String> {
        Ok(Stream {
            pending: VecDeque::taken(pending)?,
            lost,
            lost_ever,
            ..Stream::stderr()
        })
    }
}

impl Stream {
    /// On a copy of our stderr.
    pub fn stderr() -> Stream {
        let err = io::stderr();
        let own = fds::own_nonblocking(err.as_fd());
        Stream {
            nowait: own.is_none() && fds::is_pipe(err.as_fd()),
            out: own.or_else(|| fds::dup(err.as_fd()).ok()),
            gone: false,
            shared: fds::dup(err.as_fd()).ok(),
            terminal: fds::is_terminal(err.as_fd()),
            pending: VecDeque::new(),
            lost: 0,
            lost_ever: 0,
            full: false,
        }
    }

    /// The descriptor, for the poll.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.out.as_ref().map(AsFd::as_fd)
    }

    /// Is it a terminal?
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// What workers get back.
    pub fn shared(&self) -> Option<BorrowedFd<'_>> {
        self.shared.as_ref().map(AsFd::as_fd)
    }

    /// Lets go of it: from here on it is silence. The poll must have let go of it before.
    pub fn close(&mut self) {
        (self.out, self.shared) = (None, None);
        (self.pending, self.lost) = (VecDeque::new(), 0);
    }

    /// Can something be written now, with nothing waiting before it? Flushed first.
    pub fn is_free(&self) -> bool {
        match &self.out {
            Some(fd) if !self.gone => self.pending.is_empty() && fds::writable_now(fd.as_fd()),
            Some(_) | None => true,
        }
    }

    fn lose(&mut self) {
        self.lost += 1;
        self.lost_ever += 1;
    }

    /// How many lines were ever lost.
    pub fn lost_ever(&self) -> u64 {
        self.lost_ever
    }

    /// A line of ours: it waits behind others, and is lost if they are too many.
    pub fn line(&mut self, bytes: &[u8]) {
        if self.pending.is_empty() {
            self.write(bytes);
        } else if self.pending.len() + bytes.len() > MAX_PENDING {
            self.lose();
        } else {
            self.pending.extend(bytes);
        }
    }

    /// A copy of what somebody else wrote and has elsewhere, too: only while it leaves room for what
    /// there is to say.
    pub fn copy(&mut self, bytes: &[u8]) {
        match self.pending.len() + bytes.len() > MAX_PENDING / 2 {
            true => self.lose(),
            false => self.line(bytes),
        }
    }

    /// The last bytes of a worker that has gone: they cannot wait in its pipe. Within a limit.
    pub fn bequest(&mut self, bytes: &[u8]) {
        match self.pending.len() + bytes.len() > 2 * MAX_PENDING {
            true => self.lose(),
            false => self.pending.extend(bytes),
        }
    }

    /// Writes what waits, as far as it goes without blocking. How many lines were lost before there
    /// was room again: told once.
    pub fn flush(&mut self) -> u64 {
        while !self.pending.is_empty() {
            let some: Vec<u8> = self.pending.iter().copied().take(CHUNK).collect();
            match self.try_write(&some) {
                0 => return 0,
                n => drop(self.pending.drain(..n)),
            }
        }
        match self.lost > 0 && self.writable() {
            true => std::mem::take(&mut self.lost),
            false => 0,
        }
    }

    fn writable(&self) -> bool {
        let out = self.out.as_ref();
        !self.full && out.is_some_and(|fd| fds::writable_now(fd.as_fd()))
    }

    /// Writes this, and what cannot be written now later.
    pub fn write(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let chunk = rest.get(..CHUNK).unwrap_or(rest);
            match self.try_write(chunk) {
                0 => return self.pending.extend(rest),
                n => rest = rest.get(n..).unwrap_or_default(),
            }
        }
    }

    /// Writes what can be written now; 0 if it has to wait. What can never be written counts as
    /// written: a stderr that has gone away is silence, and what a full disk does not take is lost.
    fn try_write(&mut self, bytes: &[u8]) -> usize {
        let Some(fd) = self.out.as_ref().filter(|_| !self.gone) else {
            return bytes.len();
        };
        if !fds::writable_now(fd.as_fd()) {
            return 0;
        }
        let wrote = match self.nowait {
            true => fds::write_nowait(fd.as_fd(), bytes),
            false => put(fd.as_fd(), bytes, self.terminal),
        };
        self.full = wrote.as_ref().is_err_and(|e| !transient(e));
        match wrote {
            Ok(n) => n,
            Err(e) if transient(&e) => 0,
            Err(e) if has_gone(&e, self.terminal) => {
                self.gone = true;
                bytes.len()
            }
            // A full disk, an error of the medium, a line too long for it: it may take the next.
            Err(_) => {
                self.lose();
                bytes.len()
            }
        }
    }

    /// The end: what still waits is written, as far as that goes within this time.
    pub fn finish(&mut self, limit: Duration) {
        let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        let end = clock::monotonic().saturating_add(limit);
        loop {
            self.flush();
            let left = Duration::from_nanos(end.saturating_sub(clock::monotonic()));
            let Some(fd) = self.out.as_ref().filter(|_| !self.pending.is_empty()) else {
                return;
            };
            if left.is_zero() || !fds::wait_writable(fd.as_fd(), left) {
                return;
            }
        }
    }
}

/// Nobody will ever read it again. (A terminal that has hung up says EIO.)
fn has_gone(e: &io::Error, terminal: bool) -> bool {
    match e.raw_os_error() {
        Some(libc::EPIPE | libc::EBADF | libc::ENXIO | libc::ECONNRESET | libc::ENOTCONN) => true,
        Some(libc::EIO) => terminal,
        _ => false,
    }
}

/// In the background of a terminal with `stty tostop` a write raises SIGTTOU, which we handle, and
/// would be restarted for ever: unless the signal is blocked, then it just goes through.
fn put(fd: BorrowedFd<'_>, bytes: &[u8], terminal: bool) -> io::Result<usize> {
    let _blocked = terminal.then(Blocked::all);
    fds::write(fd, bytes)
}

fn transient(e: &io::Error) -> bool {
    matches!(
        e.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
