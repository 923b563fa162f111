//! What workers write, as lines. A file of it holds whole ones: bytes come as they come, several workers may
//! share a file (one that is being emptied and its successor; all of them, with --log-merge), and whoever reads
//! it wants to know where a line ends and whose it is.

use serde::{Deserialize, Serialize};

/// Longest line; a longer one is cut into several.
pub const MAX_LINE: usize = 16 * 1024;

/// What one worker has written of a line that is not whole.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// The lines that are whole by now, each with its end.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut whole = Vec::with_capacity(self.partial.len() + bytes.len() + 1);
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let (mut text, ended) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            loop {
                let room = MAX_LINE.saturating_sub(self.partial.len());
                let Some((head, rest)) = text.split_at_checked(room).filter(|(_, r)| !r.is_empty())
                else {
                    break;
                };
                whole.append(&mut self.partial);
                whole.extend_from_slice(head);
                whole.push(b'\n');
                text = rest;
            }
            if ended {
                whole.append(&mut self.partial);
                whole.extend_from_slice(part.get(part.len() - text.len() - 1..).unwrap_or(part));
            } else {
                self.partial.extend_from_slice(text);
            }
        }
        whole
    }

    /// Nothing more comes of that line: what there is of it is one.
    pub fn end(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.partial);
        if !rest.is_empty() {
            rest.push(b'\n');
        }
        rest
    }
}

/// How many lines these are. What has no end is one, too.
pub fn count(lines: &[u8]) -> u64 {
    let ends = lines.iter().filter(|b| **b == b'\n').count() as u64;
    let open = lines.last().is_some_and(|b| *b != b'\n');
    ends.saturating_add(u64::from(open))
}

/// Each of these lines with whose it is, as --log-merge has it: `0[4711]: `.
pub fn signed(lines: &[u8], slot: u16, pid: i32) -> Vec<u8> {
    let whose = format!("{slot}[{pid}]: ");
    let mut all = Vec::with_capacity(lines.len() + whose.len());
    for line in lines.split_inclusive(|b| *b == b'\n') {
        all.extend_from_slice(whose.as_bytes());
        all.extend_from_slice(line);
    }
    all
}

/// The file of a cluster's worker in that slot, or of all of them.
pub fn file_name(cluster: &str, slot: Option<u16>) -> String {
    match slot {
        Some(slot) => format!("{cluster}.{slot}.log"),
        None => format!("{cluster}.log"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_in_any_pieces_and_go_whole() {
        let text: &[u8] = b"one\n\ntwo\r\n\xff\xfe\nthree";
        for step in 1..text.len() {
            let mut lines = Lines::default();
            let mut all = Vec::new();
            for piece in text.chunks(step) {
                let whole = lines.push(piece);
                assert!(whole.is_empty() || whole.ends_with(b"\n"));
                all.extend(whole);
            }
            assert_eq!(all, b"one\n\ntwo\r\n\xff\xfe\n");
            assert_eq!(lines.end(), b"three\n");
            assert_eq!(lines.end(), b"");
        }
    }

    #[test]
    fn one_that_is_too_long_is_cut_and_nothing_of_it_lost() {
        for (length, step) in [
            (MAX_LINE, 7),
            (MAX_LINE + 1, 4096),
            (3 * MAX_LINE, 4096),
            (3 * MAX_LINE + 5, MAX_LINE),
            (2 * MAX_LINE + 9, 3 * MAX_LINE),
        ] {
            let mut text = vec![b'x'; length];
            text.extend_from_slice(b"\nshort\n");
            let mut lines = Lines::default();
            let all: Vec<u8> = text.chunks(step).flat_map(|p| lines.push(p)).collect();
            let each: Vec<&[u8]> = all.split(|b| *b == b'\n').collect();
            assert!(each.iter().all(|l| l.len() <= MAX_LINE), "{length} {step}");
            let xs = all.iter().filter(|b| **b == b'x').count();
            assert_eq!(xs, length);
            assert_eq!(count(&all), (length.div_ceil(MAX_LINE) + 1) as u64);
            assert!(all.ends_with(b"x\nshort\n"));
        }
    }

    #[test]
    fn lines_are_counted_and_signed() {
        for (lines, want) in [
            (&b""[..], 0),
            (b"\n", 1),
            (b"a", 1),
            (b"a\nb\n", 2),
            (b"a\nb", 2),
        ] {
            assert_eq!(count(lines), want);
        }
        assert_eq!(signed(b"a\n\nb\n", 3, 42), b"3[42]: a\n3[42]: \n3[42]: b\n");
        assert_eq!(file_name("web", Some(3)), "web.3.log");
        assert_eq!(file_name("web", None), "web.log");
    }
}
