//! What a worker can say before it is ready: its stderr is our pipe until it listens, kept as a
//! tail for the case that it fails, and forwarded to our own stderr as it comes. With --log-dir it is our pipe for
//! good, and its stdout, too: one pipe, since two could not tell which of two lines was written first.

use super::log::Log;
use super::output::Output;
use super::stream::CHUNK;
use super::voice::Voice;
use super::{Kind, Shell};
use crate::core::{Level, Time, WorkerId};
use crate::sys::{clock, fds, steer};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

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
/// When a worker or all have ended so many turns of its pipe are read at once, 1 MiB: it may have made that longer.
const LAST_TURNS: usize = 16;
/// So long that takes at most: whoever waits for the end waits for that.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Chunks for files are longer: as many as there are in a pipe at most are one turn.
const PIECE: usize = 4 * CHUNK;

/// Where what a worker writes goes, beside its tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum To {
    /// On, as the log says.
    Log,
    /// To the files of --log-dir.
    Files,
    /// Nowhere (--silent).
    Nowhere,
}

/// One worker's stderr.
#[derive(Serialize, Deserialize)]
pub struct Stderr {
    pub to: To,
    /// Our end; `None` once nobody has the other.
    #[serde(with = "crate::shell::carry")]
    pub fd: Option<OwnedFd>,
    /// Inode of the pipe: to see whether a process still has it as its fd 2.
    pub inode: u64,
    #[serde(with = "crate::shell::carry")]
    tail: VecDeque<u8>,
    limit: usize,
    /// Has its worker gone, with all we know of, so that only what was left behind writes here?
    orphan: bool,
    voice: Voice,
    /// So much came the last time,
    pub came: usize,
    /// and so often it is heard again without a rest.
    pub heard: u32,
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
    pub fn new(fd: OwnedFd, inode: u64, workers: usize, voice: Voice, to: To) -> Stderr {
        Stderr {
            to,
            fd: Some(fd),
            inode,
            tail: VecDeque::new(),
            limit: (ALL_TAILS / workers.max(1)).clamp(TAIL_LEAST, TAIL),
            orphan: false,
            voice,
            came: 0,
            heard: 0,
        }
    }

    /// So much is read at once, so often in one turn.
    fn share(&self) -> (usize, usize) {
        match self.to {
            To::Log | To::Nowhere => (CHUNK, TURN),
            To::Files => (PIECE, TURN * CHUNK / PIECE),
        }
    }

    /// Reads what has come and passes it on.
    pub fn drain(&mut self, log: &mut Log, output: &mut Option<Output>) -> Drained {
        let mut buf = [0u8; PIECE];
        let (most, times) = self.share();
        self.came = 0;
        for _ in 0..times {
            if self.to == To::Log && !log.ready_to_forward() {
                return Drained::More;
            }
            let Some(fd) = &self.fd else {
                return Drained::Empty;
            };
            match fds::read(fd.as_fd(), buf.get_mut(..most).unwrap_or_default()) {
                Ok(0) => return Drained::Closed,
                Ok(n) => {
                    let said = buf.get(..n).unwrap_or_default();
                    self.came = self.came.saturating_add(n);
                    self.keep(said);
                    match self.to {
                        To::Log => log.forward(&mut self.voice, said),
                        To::Files | To::Nowhere => self.file(said, log, output),
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Drained::Empty,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Drained::Closed,
            }
        }
        Drained::More
    }

    /// The worker has gone: takes what it has left there, at once, whether our own stderr takes it or not.
    pub fn inherit(&mut self, log: &mut Log, output: &mut Option<Output>) -> Drained {
        let mut buf = [0u8; PIECE];
        let (most, times) = self.share();
        for _ in 0..times {
            let Some(fd) = &self.fd else {
                return Drained::Closed;
            };
            match fds::read(fd.as_fd(), buf.get_mut(..most).unwrap_or_default()) {
                Ok(0) => return Drained::Closed,
                Ok(n) => {
                    let said = buf.get(..n).unwrap_or_default();
                    self.keep(said);
                    match self.to {
                        To::Log => log.bequest(&mut self.voice, said),
                        To::Files | To::Nowhere => self.file(said, log, output),
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return Drained::Empty,
            }
        }
        Drained::More
    }

    /// The same to the last line, which is its last word, where that goes to a file; for our own stderr the
    /// rest has to wait where it is.
    pub fn inherit_all(&mut self, log: &mut Log, output: &mut Option<Output>) -> Drained {
        let turns = match self.to {
            To::Files => LAST_TURNS,
            To::Log | To::Nowhere => 1,
        };
        for _ in 0..turns {
            match self.inherit(log, output) {
                Drained::More => {}
                done @ (Drained::Empty | Drained::Closed) => return done,
            }
        }
        Drained::More
    }

    /// So many bytes wait there to be read, as far as anybody wants to have them.
    fn left(&self) -> u64 {
        let fd = self.fd.as_ref().filter(|_| self.to != To::Nowhere);
        let left = fd.and_then(|fd| steer::unread(fd.as_fd()).ok());
        left.map_or(0, u64::from)
    }

    /// To its file, if it has one; who waits for a daemon to be ready is told, too.
    fn file(&mut self, said: &[u8], log: &mut Log, output: &mut Option<Output>) {
        if let Some(output) = output.as_mut().filter(|_| self.to == To::Files) {
            log.copy(said);
            output.take(&mut self.voice, said);
        }
    }

    /// Nothing more comes: a line that has no end has one now.
    pub fn end(&mut self, log: &mut Log, output: &mut Option<Output>) {
        match (self.to, output) {
            (To::Log, _) => log.end_of(&mut self.voice),
            (To::Files, Some(output)) => output.end_of(&mut self.voice),
            (To::Files, None) | (To::Nowhere, _) => {}
        }
    }

    /// The slot it is of.
    pub fn slot(&self) -> u16 {
        self.voice.slot
    }

    fn keep(&mut self, bytes: &[u8]) {
        let last = bytes.len().saturating_sub(self.limit);
        self.tail.extend(bytes.get(last..).unwrap_or_default());
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
        match s.drain(&mut self.log, &mut self.output) {
            Drained::Empty => {}
            Drained::More if s.to != To::Log => {
                self.ready.insert((Kind::Stderr, worker.0));
            }
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
                s.end(&mut self.log, &mut self.output);
                let orphan = s.orphan;
                if let Some(fd) = s.fd.take() {
                    self.deregister(fd.as_fd());
                }
                if let Some(output) = &mut self.output {
                    output.forget(worker);
                }
                if orphan {
                    self.drop_stderr(worker);
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
        let open = s.inherit(&mut self.log, &mut self.output) != Drained::Closed;
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
            s.end(&mut self.log, &mut self.output);
            if let Some(fd) = &s.fd {
                self.deregister(fd.as_fd());
            }
            if let Some(output) = &mut self.output {
                output.forget(worker);
            }
            let others = self.stderrs.values().any(|o| o.slot() == s.slot());
            if let Some(output) = self.output.as_mut().filter(|_| !others) {
                output.close(s.slot());
            }
        }
    }

    /// What workers have left in their pipes: nobody comes back to it. Each has its turn before one has the
    /// next; somebody may write on.
    pub(super) fn last_words(&mut self) {
        let over = self.now() + LAST_WORDS;
        let over = self.cluster.over_by().map_or(over, |at| at.min(over));
        let mut more: Vec<WorkerId> = self.stderrs.keys().copied().collect();
        for _ in 0..LAST_TURNS {
            more.retain(|worker| {
                let Some(s) = self.stderrs.get_mut(worker) else {
                    return false;
                };
                s.inherit(&mut self.log, &mut self.output) == Drained::More
                    && Time(clock::monotonic()) < over
            });
        }
        let mut left = 0u64;
        for s in self.stderrs.values_mut() {
            s.end(&mut self.log, &mut self.output);
            left = left.saturating_add(s.left());
        }
        self.say_all_lost(left);
        self.log.flush();
        self.announce_lost();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_in_a_pipe_is_counted_if_somebody_wants_it() {
        for (to, left) in [(To::Log, 5), (To::Files, 5), (To::Nowhere, 0)] {
            let (r, w) = fds::pipe().unwrap();
            let mut s = Stderr::new(r, 0, 1, Voice::new(0, 1), to);
            assert_eq!(s.left(), 0);
            fds::write(w.as_fd(), b"words").unwrap();
            assert_eq!(s.left(), left, "{to:?}");
            s.fd = None;
            assert_eq!(s.left(), 0);
        }
    }

    #[test]
    fn the_tail_keeps_whole_last_lines_within_its_limit() {
        let (r, _w) = fds::pipe().unwrap();
        let mut s = Stderr::new(r, 0, 4, Voice::new(0, 1), To::Log);
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
