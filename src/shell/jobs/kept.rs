//! What is kept of what a program writes: the beginning, or the end, each within a limit; and how much
//! was left out.

use std::collections::VecDeque;

/// The first bytes.
#[derive(Debug)]
pub struct Head {
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
#[derive(Debug)]
pub struct Tail {
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
}
