//! Our end of one worker's channel: the lines that come in, and those that wait to go out. A worker
//! that does not read keeps nobody waiting: what waits for it has a limit, and is shared with all
//! others that the same message waits for.

use crate::sys::{fds, notify};
use crate::wire::node_ipc::{Line, Lines, MAX_LINE};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// Bytes that may wait for one worker: the longest message fits.
pub const MAX_WAITING: usize = MAX_LINE + 1 + SLOT;
/// What a message costs besides its bytes.
const SLOT: usize = 64;
/// Messages that are written at once.
const AT_ONCE: usize = 64;
const PIECE: usize = 4096;

/// A line to be sent, its end included; the same for all who get it.
pub type Parcel = Rc<[u8]>;

/// A line of that text.
pub fn parcel(text: &str) -> Parcel {
    [text.as_bytes(), b"\n"].concat().into()
}

/// What a worker can do wrong; each is said once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// A message is too long.
    Long,
    /// It is no JSON.
    Garbled,
    /// It is a delegation that lacks something.
    Delegation,
    /// A socket came with it.
    Socket,
    /// It does not read.
    Deaf,
    /// It has ended, and more is there than is heard then.
    Late,
}

/// What reading has come to.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// Something has come.
    Some,
    /// Nothing more for now.
    Nothing,
    /// It has closed its end.
    Closed,
}

/// Our end.
#[derive(Serialize, Deserialize)]
pub struct Pipe {
    #[serde(with = "crate::shell::carry")]
    fd: OwnedFd,
    lines: Lines,
    #[serde(with = "crate::shell::carry")]
    out: VecDeque<Parcel>,
    /// So much of the first has gone.
    gone: usize,
    /// What waits, each message with what it costs.
    waiting: usize,
    /// Messages for which there was no room.
    pub refused: u64,
    /// Is the poll to say when there is room?
    pub watched: bool,
    faults: Vec<Fault>,
}

impl Pipe {
    /// Of this socket.
    pub fn new(fd: OwnedFd) -> Pipe {
        Pipe {
            fd,
            lines: Lines::default(),
            out: VecDeque::new(),
            gone: 0,
            waiting: 0,
            refused: 0,
            watched: false,
            faults: Vec::new(),
        }
    }

    /// For the poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The next line that is there.
    pub fn line(&mut self) -> Option<Line> {
        self.lines.line()
    }

    /// Reads one piece. Descriptors that have come with it (Node passes sockets with some messages) are put to
    /// those `handed`: we have no use for any, and whoever reads closes them elsewhere.
    pub fn read(&mut self, handed: &mut Vec<OwnedFd>) -> Read {
        let mut buf = [0u8; PIECE];
        loop {
            match notify::receive(self.fd.as_fd(), &mut buf) {
                Ok(None) => return Read::Nothing,
                Ok(Some(mut came)) if came.bytes > 0 => {
                    handed.append(&mut came.fds);
                    self.lines.feed(buf.get(..came.bytes).unwrap_or_default());
                    return Read::Some;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Some(_)) | Err(_) => return Read::Closed,
            }
        }
    }

    /// Puts a message behind those that wait. False: there is no room for it.
    pub fn put(&mut self, parcel: &Parcel) -> bool {
        if !self.fits(parcel) && !self.watched {
            // Perhaps it is only that nobody has written yet.
            self.push();
        }
        let fits = self.fits(parcel);
        match fits {
            true => self.put_anyway(parcel),
            false => self.refused += 1,
        }
        fits
    }

    fn fits(&self, parcel: &Parcel) -> bool {
        self.waiting + parcel.len() + SLOT <= MAX_WAITING
    }

    /// The same for what is said once in its life.
    pub fn put_anyway(&mut self, parcel: &Parcel) {
        self.waiting += parcel.len() + SLOT;
        self.out.push_back(parcel.clone());
    }

    /// Writes what waits, as far as it goes. (That the other end has gone is seen by reading.)
    pub fn push(&mut self) {
        while !self.out.is_empty() {
            let parts: Vec<io::IoSlice<'_>> = self
                .out
                .iter()
                .take(AT_ONCE)
                .enumerate()
                .filter_map(|(n, p)| p.get(if n == 0 { self.gone } else { 0 }..))
                .map(io::IoSlice::new)
                .collect();
            match fds::send_parts(self.fd.as_fd(), &parts) {
                Ok(n) => self.went(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.clear(),
            }
        }
        self.clear();
    }

    fn went(&mut self, mut n: usize) {
        while let Some(first) = self.out.front() {
            let left = first.len().saturating_sub(self.gone);
            if n < left {
                self.gone += n;
                return;
            }
            n -= left;
            self.gone = 0;
            self.waiting = self.waiting.saturating_sub(first.len() + SLOT);
            self.out.pop_front();
        }
    }

    /// Nothing waits, and nothing is kept for that.
    fn clear(&mut self) {
        self.out = VecDeque::new();
        (self.gone, self.waiting) = (0, 0);
    }

    /// Does something wait?
    pub fn waits(&self) -> bool {
        !self.out.is_empty()
    }

    /// Has it not been said of it before?
    pub fn first(&mut self, fault: Fault) -> bool {
        let new = !self.faults.contains(&fault);
        if new {
            self.faults.push(fault);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn pair() -> (Pipe, std::os::unix::net::UnixStream) {
        let (ours, theirs) = fds::stream_pair().unwrap();
        (Pipe::new(ours), theirs.into())
    }

    #[test]
    fn what_waits_is_written_in_order_and_the_memory_is_given_back() {
        let (mut pipe, mut theirs) = pair();
        let long = parcel(&"x".repeat(300_000));
        let short = parcel("{}");
        let mut want = Vec::new();
        for p in [&short, &long, &short, &short, &long, &short] {
            assert!(pipe.put(p));
            want.extend_from_slice(p);
        }
        pipe.push();
        assert!(pipe.waits());
        let mut got = vec![0; want.len()];
        let mut at = 0;
        while at < want.len() {
            at += theirs.read(&mut got[at..]).unwrap();
            pipe.push();
        }
        assert!(got == want);
        assert!(!pipe.waits());
        assert_eq!((pipe.waiting, pipe.out.capacity()), (0, 0));
        assert_eq!(Rc::strong_count(&long), 1);
    }

    #[test]
    fn there_is_a_limit_to_what_waits_and_the_newest_is_refused() {
        let (mut pipe, theirs) = pair();
        let most = parcel(&"x".repeat(MAX_LINE));
        assert!(pipe.put(&most), "the longest message fits");
        assert!(!pipe.put(&parcel("{}")));
        pipe.put_anyway(&parcel("{}"));
        assert_eq!((pipe.out.len(), pipe.refused), (2, 1));
        // Who reads nothing and goes leaves nothing.
        pipe.push();
        drop(theirs);
        pipe.push();
        assert!(!pipe.waits());
        // Small ones cost their place, too.
        let (mut pipe, _theirs) = pair();
        pipe.watched = true; // there is no room in the socket
        let count = (0..1_000_000).take_while(|_| pipe.put(&parcel(""))).count();
        assert!(count <= MAX_WAITING / SLOT, "{count}");
    }

    #[test]
    fn descriptors_that_come_along_are_whose_who_reads() {
        use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
        use std::os::fd::AsRawFd;
        let (mut pipe, theirs) = pair();
        let (passed, _other) = fds::pipe().unwrap();
        let parts = [io::IoSlice::new(b"{}\n")];
        let with = [passed.as_raw_fd()];
        let with = [ControlMessage::ScmRights(&with)];
        for _ in 0..3 {
            let none = MsgFlags::empty();
            sendmsg::<()>(theirs.as_raw_fd(), &parts, &with, none, None).unwrap();
        }
        let mut handed = Vec::new();
        while pipe.read(&mut handed) == Read::Some {
            assert_eq!(pipe.line(), Some(Line::Whole(b"{}".to_vec())));
        }
        assert_eq!(handed.len(), 3);
        let inode = fds::inode(passed.as_fd()).unwrap();
        assert!(
            handed
                .iter()
                .all(|fd| fds::inode(fd.as_fd()).unwrap() == inode)
        );
    }

    #[test]
    fn a_fault_is_said_once() {
        let (mut pipe, _theirs) = pair();
        assert!(pipe.first(Fault::Long));
        assert!(!pipe.first(Fault::Long));
        assert!(pipe.first(Fault::Deaf));
    }
}
