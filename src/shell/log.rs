//! Our own log, and the workers' early stderr, on our stderr. Never blocks and never fails the
//! cluster: what cannot be written now waits in a buffer with a limit; what does not fit is
//! counted; a stderr that has gone away is silence.

use super::{Kind, Shell, token};
use crate::core::{Level, Notice};
use crate::settings::LogFormat;
use crate::sys::signal::Blocked;
use crate::sys::{clock, fds};
use crate::wire::logfmt::Line;
use mio::Interest;
use mio::unix::SourceFd;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Bytes that may wait.
const MAX_PENDING: usize = 64 * 1024;
/// Written at once: a pipe that polls writable takes that much without blocking.
pub const CHUNK: usize = 4096;

/// Where lines go.
pub struct Log {
    out: Option<OwnedFd>,
    /// It has gone away: silence. Its descriptor stays until the poll has let go of it.
    gone: bool,
    /// It is a pipe that we could not get a description of our own for (somebody else's, as behind
    /// su): each write says that it does not wait.
    nowait: bool,
    /// What workers get back: `out` may be a description of our own that does not block.
    shared: Option<OwnedFd>,
    format: LogFormat,
    level: Level,
    terminal: bool,
    pending: VecDeque<u8>,
    lost: u64,
    /// Did the disk refuse the last write?
    full: bool,
}

impl Log {
    /// On a copy of our stderr.
    pub fn new(format: Option<LogFormat>, level: Level) -> Log {
        let err = io::stderr();
        let terminal = fds::is_terminal(err.as_fd());
        let default = match terminal {
            true => LogFormat::Text,
            false => LogFormat::Logfmt,
        };
        let own = fds::own_nonblocking(err.as_fd());
        Log {
            nowait: own.is_none() && fds::is_pipe(err.as_fd()),
            out: own.or_else(|| fds::dup(err.as_fd()).ok()),
            gone: false,
            shared: fds::dup(err.as_fd()).ok(),
            format: format.unwrap_or(default),
            level,
            terminal,
            pending: VecDeque::new(),
            lost: 0,
            full: false,
        }
    }

    /// Says what core has to say.
    pub fn note(&mut self, notice: &Notice) {
        if notice.level() <= self.level {
            let at = clock::wall();
            let line = Line::of(notice, at, self.offset(at.0)).render(self.format);
            self.line(line.as_bytes());
        }
    }

    /// Says something of the shell's own.
    pub fn say(&mut self, level: Level, event: &'static str, message: String) {
        if level <= self.level {
            let at = clock::wall();
            let line = Line {
                at,
                offset: self.offset(at.0),
                level,
                event,
                fields: Vec::new(),
                message,
            };
            self.line(line.render(self.format).as_bytes());
        }
    }

    fn offset(&self, secs: u64) -> i64 {
        match self.format {
            LogFormat::Text => clock::local_offset(secs),
            LogFormat::Logfmt | LogFormat::Json => 0,
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

    /// Takes a worker's bytes (at most CHUNK) if they can be written now. If not, they stay where
    /// they are: the worker feels a full pipe, as it would without us.
    pub fn ready_to_forward(&mut self) -> bool {
        self.flush();
        match &self.out {
            Some(fd) if !self.gone => self.pending.is_empty() && fds::writable_now(fd.as_fd()),
            Some(_) | None => true,
        }
    }

    /// Forwards them.
    pub fn forward(&mut self, bytes: &[u8]) {
        self.write(bytes);
    }

    fn line(&mut self, bytes: &[u8]) {
        self.flush();
        if self.pending.is_empty() {
            self.write(bytes);
        } else if self.pending.len() + bytes.len() > MAX_PENDING {
            self.lost += 1;
        } else {
            self.pending.extend(bytes);
        }
    }

    /// Takes the last bytes of a worker that has gone: they cannot wait in its pipe. Within a limit.
    pub fn bequest(&mut self, bytes: &[u8]) {
        match self.pending.len() + bytes.len() > 2 * MAX_PENDING {
            true => self.lost += 1,
            false => self.pending.extend(bytes),
        }
    }

    /// Writes what waits, as far as it goes without blocking.
    pub fn flush(&mut self) {
        while !self.pending.is_empty() {
            let some: Vec<u8> = self.pending.iter().copied().take(CHUNK).collect();
            match self.try_write(&some) {
                0 => return,
                n => drop(self.pending.drain(..n)),
            }
        }
        if self.lost > 0 && self.writable() {
            let n = std::mem::take(&mut self.lost);
            let message = format!("{n} log lines were lost: stderr was full or not read");
            self.say(Level::Warn, "log-lost", message);
        }
    }

    fn writable(&self) -> bool {
        let out = self.out.as_ref();
        !self.full && out.is_some_and(|fd| fds::writable_now(fd.as_fd()))
    }

    fn write(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.try_write(&rest[..rest.len().min(CHUNK)]) {
                0 => return self.pending.extend(rest),
                n => rest = &rest[n..],
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
                self.lost += 1;
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

impl Shell {
    /// Does something wait for a terminal? One can refuse a write although it polls writable
    /// (another writer is in it), and no edge follows: so it is tried again by the clock.
    pub(super) fn log_stalls(&self) -> bool {
        self.log_watched && self.log.is_terminal()
    }

    /// Watches our stderr exactly while something waits for it. Whoever finds that there is room
    /// again (it may be a line of ours that went through) sees to the workers that wait for it: no
    /// other news of it will come.
    pub(super) fn watch_log(&mut self) {
        let stuck = !self.log.ready_to_forward();
        if stuck == self.log_watched {
            return;
        }
        let Some(fd) = self.log.fd().map(|f| f.as_raw_fd()) else {
            return;
        };
        let mut source = SourceFd(&fd);
        let registry = self.poll.registry();
        let done = match stuck {
            true => registry.register(&mut source, token(Kind::OurStderr, 0), Interest::WRITABLE),
            false => registry.deregister(&mut source),
        };
        self.log_watched = stuck && done.is_ok();
        if !stuck {
            let waiting = self.stderrs.keys().map(|w| (Kind::Stderr, w.0));
            self.ready.extend(waiting);
        }
    }

    /// Says something of our own.
    pub(super) fn say(&mut self, level: Level, event: &'static str, message: String) {
        self.log.say(level, event, message);
        self.watch_log();
    }

    pub(super) fn say_once(&mut self, level: Level, event: &'static str, message: String) {
        if self.said.insert(event) {
            self.say(level, event, message);
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
