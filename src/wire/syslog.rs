//! What is sent to syslogd: one datagram a line, as RFC 3164 has it and as every syslogd on /dev/log
//! understands it: `<priority>Mmm dd hh:mm:ss tag[pid]: text`, in local time, without a host.

use super::logfmt::{civil, printable};
use crate::core::Level;
use serde::{Deserialize, Serialize};

/// Longest text of one datagram; what is longer is cut into several.
pub const MAX_TEXT: usize = 2048;

/// Facility `daemon`, and the severity of a level.
fn priority(level: Level) -> u8 {
    const DAEMON: u8 = 3 << 3;
    DAEMON
        + match level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug => 7,
        }
}

/// One datagram. `local` is in seconds of the local clock since 1970.
pub fn frame(level: Level, local: u64, tag: &str, pid: i32, text: &str) -> Vec<u8> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, month, day) = civil(local / 86_400);
    let month = usize::try_from(month.saturating_sub(1)).unwrap_or(0);
    let (h, m, s) = (local / 3600 % 24, local / 60 % 60, local % 60);
    let (n, month) = (priority(level), MONTHS.get(month).unwrap_or(&"Jan"));
    let text = printable(text, false);
    format!("<{n}>{month} {day:>2} {h:02}:{m:02}:{s:02} {tag}[{pid}]: {text}").into_bytes()
}

/// A text in pieces that fit, at its line ends and where it is too long.
pub fn pieces(text: &str) -> Vec<String> {
    let mut lines = Lines::default();
    let mut all = lines.push(text.as_bytes());
    all.extend(lines.end());
    all
}

/// Bytes that come as they come, made into lines.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// The lines that are whole by now. One that is too long is cut; empty ones say nothing.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut whole = Vec::new();
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let mut rest = part;
            while !rest.is_empty() {
                let room = MAX_TEXT.saturating_sub(self.partial.len());
                let (head, tail) = rest.split_at(rest.len().min(room));
                self.partial.extend(head);
                rest = tail;
                if self.partial.len() >= MAX_TEXT || self.partial.ends_with(b"\n") {
                    whole.extend(self.end());
                }
            }
        }
        whole
    }

    /// Nothing more comes: what has no end.
    pub fn end(&mut self) -> Option<String> {
        let bytes = std::mem::take(&mut self.partial);
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_end();
        (!text.is_empty()).then(|| text.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_as_syslogd_reads_it() {
        // 2026-11-05T23:53:34
        let sent = frame(Level::Warn, 1_793_922_814, "web", 42, "two\tof \u{1b}[2J");
        let text = String::from_utf8(sent).unwrap();
        assert_eq!(text, "<28>Nov  5 23:53:34 web[42]: two\tof ?[2J");
    }

    #[test]
    fn lines_come_in_any_pieces_and_none_is_too_long() {
        let mut lines = Lines::default();
        assert!(lines.push(b"one").is_empty());
        assert_eq!(lines.push(b" more\n\ntwo\nthr"), ["one more", "two"]);
        assert_eq!(lines.push(&[b'x'; 5000]).len(), 2);
        let last = lines.end().unwrap();
        assert_eq!(last.len(), 3 + 5000 - 2 * MAX_TEXT);
        assert_eq!(lines.end(), None);
        assert_eq!(pieces("a\nb\n").len(), 2);
        assert_eq!(lines.push(b"\xff\n"), ["\u{fffd}"]);
    }
}
