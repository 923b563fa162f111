//! What waits to be read by a program that reads lines: within a limit, and whole. What is half read when
//! the reader ends is not given to the next one, who would not understand the other half.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io;

/// The lines.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mail {
    #[serde(with = "crate::shell::carry")]
    bytes: VecDeque<u8>,
    limit: usize,
    /// Has the reader the beginning of the first one?
    torn: bool,
    /// Lines that have come, and those that no reader will get any more: they have been given, or lost.
    pushed: u64,
    gone: u64,
}

impl Mail {
    /// So many bytes may wait.
    pub fn new(limit: usize) -> Mail {
        Mail {
            bytes: VecDeque::new(),
            limit,
            torn: false,
            pushed: 0,
            gone: 0,
        }
    }

    /// That, however long, and not a line.
    pub fn of(bytes: Vec<u8>) -> Mail {
        Mail {
            limit: bytes.len(),
            bytes: bytes.into(),
            torn: false,
            pushed: 0,
            gone: 0,
        }
    }

    /// One more line, without its end. False: there is no room.
    pub fn push(&mut self, line: &[u8]) -> bool {
        let fits = self.bytes.len() + line.len() < self.limit;
        if fits {
            self.bytes.extend(line);
            self.bytes.push_back(b'\n');
            self.pushed += 1;
        }
        fits
    }

    /// How many lines have come so far,
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// and how many of those, the oldest, are not here any more.
    pub fn gone(&self) -> u64 {
        self.gone
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Gives as much as the reader takes. An error: it does not read any more.
    pub fn give(&mut self, mut write: impl FnMut(&[u8]) -> io::Result<usize>) -> io::Result<()> {
        while !self.bytes.is_empty() {
            let (head, _) = self.bytes.as_slices();
            match write(head) {
                Ok(n) => {
                    for b in self.bytes.drain(..n) {
                        self.torn = b != b'\n';
                        self.gone += u64::from(b == b'\n');
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.bytes = VecDeque::new();
        Ok(())
    }

    /// The reader has gone. True: a line was lost with it.
    pub fn tear(&mut self) -> bool {
        if !std::mem::take(&mut self.torn) {
            return false;
        }
        let end = self.bytes.iter().position(|b| *b == b'\n');
        self.bytes.drain(..end.map_or(0, |at| at + 1));
        self.gone += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let mut mail = Mail::new(8);
        assert!(mail.push(b"abc") && mail.push(b"def"));
        assert!(!mail.push(b""));
        assert_eq!(mail.len(), 8);
    }

    #[test]
    fn a_new_reader_begins_with_a_whole_line() {
        let mut mail = Mail::new(100);
        for line in [&b"first"[..], b"second", b"third"] {
            mail.push(line);
        }
        let mut room = 9;
        let mut took = |bytes: &[u8]| match room {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => {
                room = 0;
                Ok(n.min(bytes.len()))
            }
        };
        mail.give(&mut took).unwrap();
        assert_eq!((mail.pushed(), mail.gone()), (3, 1));
        assert!(mail.tear() && !mail.tear());
        assert_eq!(mail.gone(), 2);
        let mut read = Vec::new();
        mail.give(|bytes| {
            read.extend_from_slice(bytes);
            Ok(bytes.len())
        })
        .unwrap();
        assert_eq!(read, b"third\n");
        // At the end of a line nothing is torn.
        assert!(!mail.tear());
        mail.push(b"x");
        let gone = mail.give(|_| Err(io::ErrorKind::BrokenPipe.into()));
        assert!(gone.is_err() && !mail.tear());
        assert_eq!(mail.len(), 2);
    }
}
