//! What a worker can say before it is ready: its stderr is our pipe until it listens, kept as a
//! tail for the case that it fails, and forwarded to our own stderr as it comes.

use super::log::{Log, Voice};
use super::stream::CHUNK;
use super::{Kind, Shell};
use crate::core::{Level, WorkerId};
use crate::sys::fds;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

/// All tails together.
const ALL_TAILS: usize = 64 * 1024;
/// One tail, at most and at least.
const TAIL: usize = 4096;
const TAIL_LEAST: usize = 256;
/// Lines that a message quotes.
const LINES: usize = 10;
/// So many pipes are read on after their workers have gone; the oldest beyond is closed.
const ORPHANS: usize = 64;
/// Chunks read from one pipe in one turn.
const TURN: usize = 16;

/// One worker's stderr.
pub struct Stderr {
    /// Our end; `None` once nobody has the other.
    pub fd: Option<OwnedFd>,
    /// Inode of the pipe: to see whether a process still has it as its fd 2.
    pub inode: u64,
    tail: VecDeque<u8>,
    limit: usize,
    /// Has its worker gone, with all we know of, so that only what was left behind writes here?
    orphan: bool,
    voice: Voice,
}

/// What became of a pipe in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// All read for now.
    Empty,
    /// There may be more: our own stderr does not take it, or this turn's share is used up.
    More,
    /// Nobody has the other end any more.
    Closed,
}

impl Stderr {
    /// For one of so many workers.
    pub fn new(fd: OwnedFd, inode: u64, workers: usize, voice: Voice) -> Stderr {
        Stderr {
            fd: Some(fd),
            inode,
            tail: VecDeque::new(),
            limit: (ALL_TAILS / workers.max(1)).clamp(TAIL_LEAST, TAIL),
            orphan: false,
            voice,
        }
    }

    /// Reads what has come and forwards it.
    pub fn drain(&mut self, log: &mut Log) -> Drained {
        let mut buf = [0u8; CHUNK];
        for _ in 0..TURN {
            if !log.ready_to_forward() {
                return Drained::More;
            }
            let Some(fd) = &self.fd else {
                return Drained::Empty;
            };
            match fds::read(fd.as_fd(), &mut buf) {
                Ok(0) => return Drained::Closed,
                Ok(n) => {
                    let said = buf.get(..n).unwrap_or_default();
                    self.keep(said);
                    log.forward(&mut self.voice, said);
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Drained::Empty,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Drained::Closed,
            }
        }
        Drained::More
    }

    /// The worker has gone: takes what it has left there, at once. False: nobody has the other end
    /// any more.
    pub fn inherit(&mut self, log: &mut Log) -> bool {
        let mut buf = [0u8; CHUNK];
        for _ in 0..TURN {
            let Some(fd) = &self.fd else { return false };
            match fds::read(fd.as_fd(), &mut buf) {
                Ok(0) => return false,
                Ok(n) => {
                    let said = buf.get(..n).unwrap_or_default();
                    self.keep(said);
                    log.bequest(&mut self.voice, said);
                }
                Err(_) => return true,
            }
        }
        true
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.tail.extend(bytes);
        let over = self.tail.len().saturating_sub(self.limit);
        self.tail.drain(..over);
    }

    /// The last lines, without the one that the limit cut.
    pub fn last_lines(&self) -> String {
        let bytes: Vec<u8> = self.tail.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let whole = match (self.tail.len() >= self.limit, text.split_once('\n')) {
            (true, Some((_, rest))) if !rest.is_empty() => rest,
            _ => &text,
        };
        let lines: Vec<&str> = whole.lines().collect();
        let last = lines.len().saturating_sub(LINES);
        lines.get(last..).unwrap_or_default().join("\n")
    }
}

impl Shell {
    /// Reads what a worker has written, and forwards it.
    pub(super) fn drain_stderr(&mut self, worker: WorkerId) {
        let Some(s) = self.stderrs.get_mut(&worker) else {
            return;
        };
        match s.drain(&mut self.log) {
            Drained::Empty => {}
            Drained::More => {
                self.watch_log();
                // Watched: our stderr's readiness brings us back. Asked once: another answer a
                // moment later would leave nobody to do so.
                if !self.log_watched {
                    self.ready.insert((Kind::Stderr, worker.0));
                }
            }
            // The tail stays until the worker has gone: it may have closed stderr and then failed.
            Drained::Closed => {
                self.log.end_of(&mut s.voice);
                let orphan = s.orphan;
                if let Some(fd) = s.fd.take() {
                    self.deregister(fd.as_fd());
                }
                if orphan {
                    self.stderrs.remove(&worker);
                }
            }
        }
    }

    /// A worker has gone, and its tree, as far as we know of one. What is in its pipe our stderr may
    /// not have taken yet. And somebody may still write there (a daemon in a group of its own, where
    /// there is no takeover to tell of it), and would die of SIGPIPE: so it is read on.
    pub(super) fn orphan_stderr(&mut self, worker: WorkerId) {
        let Some(s) = self.stderrs.get_mut(&worker) else {
            return;
        };
        let open = s.inherit(&mut self.log);
        (s.orphan, s.limit, s.tail) = (true, 0, VecDeque::new());
        if !open {
            self.drop_stderr(worker);
        }
        let orphans = || self.stderrs.iter().filter(|(_, s)| s.orphan);
        let oldest = orphans().next().map(|(w, _)| *w);
        if let Some(oldest) = oldest.filter(|_| orphans().count() > ORPHANS) {
            self.drop_stderr(oldest);
            let message = format!(
                "more than {ORPHANS} dead workers have left processes that may still write to stderr: closing the oldest pipe; a process that writes to it gets SIGPIPE"
            );
            self.say_once(Level::Warn, "stderr-dropped", message);
        }
        self.watch_log();
    }

    fn drop_stderr(&mut self, worker: WorkerId) {
        if let Some(mut s) = self.stderrs.remove(&worker) {
            self.log.end_of(&mut s.voice);
            if let Some(fd) = &s.fd {
                self.deregister(fd.as_fd());
            }
        }
    }

    /// What workers have left in their pipes: nobody comes back to it.
    pub(super) fn last_words(&mut self) {
        for s in self.stderrs.values_mut() {
            s.inherit(&mut self.log);
            self.log.end_of(&mut s.voice);
        }
        self.log.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_keeps_whole_last_lines_within_its_limit() {
        let (r, _w) = fds::pipe().unwrap();
        let mut s = Stderr::new(r, 0, 4, Voice::new(0, 1));
        assert_eq!(s.last_lines(), "");
        s.keep(b"one\ntwo");
        assert_eq!(s.last_lines(), "one\ntwo");
        for n in 0..2000 {
            s.keep(format!("line {n}\n").as_bytes());
        }
        let text = s.last_lines();
        assert_eq!(text.lines().count(), LINES);
        assert_eq!(text.lines().next_back(), Some("line 1999"));
        assert!(s.tail.len() <= TAIL);
        s.keep(&[b'x'; 10_000]);
        assert_eq!(s.last_lines().len(), TAIL);
    }
}
