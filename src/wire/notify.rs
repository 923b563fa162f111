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
        _ => None,
    };
    text.lines().filter_map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_us_is_found_among_what_is_not() {
        let all = b"STATUS=booted\nREADY=1\nMAINPID=1\nWATCHDOG=1\nWATCHDOG=trigger\nSTOPPING=1";
        assert_eq!(words(all), [Word::Ready, Word::Ping, Word::Stopping]);
        for nothing in [&b""[..], b"READY=0", b"READY=1x", b"\xff\xfe", b"=1\n\n"] {
            assert!(words(nothing).is_empty());
        }
    }
}
