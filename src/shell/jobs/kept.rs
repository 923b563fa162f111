//! What is kept of what a program writes: the beginning, or the end, or line by line; each within a
//! limit, and what was left out is known.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The first bytes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Head {
    #[serde(with = "crate::shell::carry")]
    kept: Vec<u8>,
    limit: usize,
    /// So many came behind them.
    cut: u64,
}

impl Head {
    /// At most so many.
    pub fn new(limit: usize) -> Head {
        Head {
            kept: Vec::new(),
            limit,
            cut: 0,
        }
    }

    /// Some more have come.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = self.limit.saturating_sub(self.kept.len());
        let (kept, cut) = bytes.split_at(room.min(bytes.len()));
        self.kept.extend_from_slice(kept);
        self.cut += cut.len() as u64;
    }

    /// As text, and how many bytes are missing behind it. A character that the limit has cut in two is
    /// among those.
    pub fn text(self) -> (String, u64) {
        let Head {
            mut kept, mut cut, ..
        } = self;
        if cut > 0
            && let Err(e) = std::str::from_utf8(&kept)
            && e.error_len().is_none()
        {
            let whole = e.valid_up_to();
            cut += (kept.len() - whole) as u64;
            kept.truncate(whole);
        }
        (String::from_utf8_lossy(&kept).into_owned(), cut)
    }
}

/// The last bytes.
#[derive(Debug, Serialize, Deserialize)]
pub struct Tail {
    #[serde(with = "crate::shell::carry")]
    kept: VecDeque<u8>,
    limit: usize,
}

impl Tail {
    /// At most so many.
    pub fn new(limit: usize) -> Tail {
        Tail {
            kept: VecDeque::new(),
            limit,
        }
    }

    /// Some more have come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.kept.extend(bytes);
        let over = self.kept.len().saturating_sub(self.limit);
        self.kept.drain(..over);
    }

    /// The last lines, at most so many, without the one that the limit has cut.
    pub fn lines(&self, most: usize) -> String {
        let bytes: Vec<u8> = self.kept.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let whole = match (bytes.len() >= self.limit, text.split_once('\n')) {
            (true, Some((_, rest))) if !rest.is_empty() => rest,
            _ => &text,
        };
        let lines: Vec<&str> = whole.lines().collect();
        let last = lines.len().saturating_sub(most);
        lines.get(last..).unwrap_or_default().join("\n")
    }
}

/// Whole lines, as they come.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lines {
    #[serde(with = "crate::shell::carry")]
    partial: Vec<u8>,
    limit: usize,
    /// Is the rest of a line that was too long still to come?
    skips: bool,
}

impl Lines {
    /// None of them longer than that.
    pub fn new(limit: usize) -> Lines {
        Lines {
            partial: Vec::new(),
            limit,
            skips: false,
        }
    }

    /// The lines that are whole by now, without their ends, and how many were too long.
    pub fn push(&mut self, bytes: &[u8]) -> (Vec<Vec<u8>>, u64) {
        let (mut whole, mut dropped) = (Vec::new(), 0);
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, ends) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                Some(_) | None => (part, false),
            };
            if !self.skips && self.partial.len() + text.len() > self.limit {
                self.skips = true;
                self.partial = Vec::new();
                dropped += 1;
            }
            if !self.skips {
                self.partial.extend_from_slice(text);
            }
            if ends {
                let line = std::mem::take(&mut self.partial);
                if !std::mem::take(&mut self.skips) {
                    whole.push(line);
                }
            }
        }
        (whole, dropped)
    }

    /// What has come of a line that will have no end.
    pub fn end(&mut self) -> Option<Vec<u8>> {
        self.skips = false;
        let line = std::mem::take(&mut self.partial);
        (!line.is_empty()).then_some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_is_kept_and_the_rest_counted() {
        let mut head = Head::new(5);
        for part in [&b"ab"[..], b"", b"cdef", b"gh"] {
            head.push(part);
        }
        assert_eq!(head.text(), ("abcde".into(), 3));
        let mut head = Head::new(4);
        head.push("ab\u{20ac}".as_bytes());
        // The limit is within a character.
        assert_eq!(head.text(), ("ab".into(), 3));
        let mut head = Head::new(4);
        head.push(b"a\xff");
        assert_eq!(head.text(), ("a\u{fffd}".into(), 0));
    }

    #[test]
    fn the_last_lines_are_kept_without_the_one_that_is_cut() {
        let mut tail = Tail::new(8);
        tail.push(b"one\ntwo");
        assert_eq!(tail.lines(10), "one\ntwo");
        tail.push(b"\nthree\n");
        assert_eq!(tail.lines(10), "three");
        let mut tail = Tail::new(100);
        tail.push(b"1\n2\n3\n4\n");
        assert_eq!(tail.lines(2), "3\n4");
        assert_eq!(Tail::new(4).lines(2), "");
    }

    #[test]
    fn lines_come_in_pieces_and_those_too_long_are_left_out() {
        let mut lines = Lines::new(4);
        assert_eq!(lines.push(b"ab"), (vec![], 0));
        assert_eq!(lines.push(b"cd\n\nx"), (vec![b"abcd".to_vec(), vec![]], 0));
        assert_eq!(lines.push(b"12345"), (vec![], 1));
        assert_eq!(lines.push(b"6789"), (vec![], 0));
        assert_eq!(lines.push(b"0\nok\nend"), (vec![b"ok".to_vec()], 0));
        assert_eq!(lines.end(), Some(b"end".to_vec()));
        assert_eq!(lines.end(), None);
    }
}
