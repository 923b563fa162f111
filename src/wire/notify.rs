//! What a datagram of sd_notify(3) says: lines of NAME=VALUE.

use crate::core::Word;

/// Longest that is read; systemd's own limit.
pub const MAX: usize = 4096;

/// What of it is for us, in its order.
pub fn words(datagram: &[u8]) -> Vec<Word> {
    let text = String::from_utf8_lossy(datagram);
    let word = |line: &str| match line {
        "READY=1" => Some(Word::Ready),
        "STOPPING=1" => Some(Word::Stopping),
        "WATCHDOG=1" => Some(Word::Ping),
        "WATCHDOG=trigger" => Some(Word::Trigger),
        _ => None,
    };
    text.lines().filter_map(word).collect()
}

/// Longest status that is kept.
pub const MAX_STATUS: usize = 256;

/// What it says of its sender's state, if anything; empty: nothing any more. Cut where it is too long,
/// and fit for a terminal.
pub fn status(datagram: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(datagram);
    let last = text.lines().rev().find_map(|l| l.strip_prefix("STATUS="))?;
    let plain = |c: char| if c.is_control() { '?' } else { c };
    let mut kept = String::new();
    for c in last.trim().chars().map(plain) {
        if kept.len() + c.len_utf8() > MAX_STATUS {
            break;
        }
        kept.push(c);
    }
    Some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_us_is_found_among_what_is_not() {
        let all = b"STATUS=booted\nREADY=1\nMAINPID=1\nWATCHDOG=1\nWATCHDOG=trigger\nSTOPPING=1";
        let want = [Word::Ready, Word::Ping, Word::Trigger, Word::Stopping];
        assert_eq!(words(all), want);
        for nothing in [&b""[..], b"READY=0", b"READY=1x", b"\xff\xfe", b"=1\n\n"] {
            assert!(words(nothing).is_empty());
        }
    }

    #[test]
    fn the_last_status_counts_and_is_cut_and_cleaned() {
        for (said, want) in [
            (&b"READY=1"[..], None),
            (b"STATUS=", Some("")),
            (b"STATUS=one\nREADY=1\nSTATUS=two = 2 ", Some("two = 2")),
            (b"STATUS=\x1b[2Jx\xff", Some("?[2Jx\u{fffd}")),
            (b"XSTATUS=x", None),
        ] {
            assert_eq!(status(said).as_deref(), want);
        }
        let long = format!("STATUS=x{}", "\u{e9}".repeat(200));
        assert_eq!(status(long.as_bytes()).unwrap().len(), 255);
    }
}
