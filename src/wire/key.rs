//! The key of --key-file, and what a client presents as one. Neither is ever shown, by `{:?}` either.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::hint::black_box;

/// Longest key.
pub const MAX_KEY: usize = 4096;
/// Shortest: what can be guessed opens everything that --monitor offers to whoever can reach it.
pub const MIN_KEY: usize = 16;

/// What a client says the key is.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Secret {
    pub fn new(text: &str) -> Secret {
        Secret(text.to_string())
    }
}

impl Key {
    /// Reads it from the content of its file: the first line, without blanks at its ends. What stands
    /// on further lines is for people. It has to fit into a header, so it is of visible ASCII characters.
    pub fn parse(content: &[u8]) -> Result<Key, String> {
        let line = content.split(|b| *b == b'\n').next().unwrap_or_default();
        let line = line.trim_ascii();
        let hint = "make one with: head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \\n'";
        match line.len() {
            0 => Err(format!("its first line is empty; {hint}")),
            n if n < MIN_KEY => Err(format!(
                "its first line has {n} characters, {MIN_KEY} are the least; {hint}"
            )),
            n if n > MAX_KEY => Err(format!(
                "its first line has {n} characters, {MAX_KEY} are the most"
            )),
            _ => match std::str::from_utf8(line) {
                Ok(text) if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(Key(text.to_string())),
                _ => Err(format!(
                    "its first line has a character that no header can carry; {hint}"
                )),
            },
        }
    }

    /// What a client says first where it has to, over TCP.
    pub fn line(&self) -> String {
        format!("key {}\n", self.0)
    }

    /// Is it that? How long this takes tells nothing of the key: every byte that is presented is
    /// compared with one of the key's, and nothing is left out once one has differed. So the time
    /// depends on what was presented alone, not on how much of it is right. A digest of both would do
    /// the same, and there is none here.
    pub fn is(&self, presented: &Secret) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), presented.0.as_bytes());
        let mut differ = u8::from(ours.len() != theirs.len());
        for (a, b) in theirs.iter().zip(ours.iter().cycle()) {
            // Opaque to the optimizer, which would else be free to stop early.
            differ = black_box(differ | (a ^ b));
        }
        black_box(differ) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_key_is_the_key() {
        let key = Key::parse(b"0123456789abcdef\n").unwrap();
        assert!(key.is(&Secret::new("0123456789abcdef")));
        let twice = "0123456789abcdef".repeat(2);
        for wrong in [
            "",
            "0",
            "0123456789abcde",
            "0123456789abcdeg",
            "1123456789abcdef",
            "0123456789ABCDEF",
            " 0123456789abcdef",
            "0123456789abcdef\0",
            &twice,
        ] {
            assert!(!key.is(&Secret::new(wrong)), "{wrong:?}");
        }
    }

    #[test]
    fn the_file_says_it_on_its_first_line() {
        let want = Some("correct-horse-battery".to_string());
        for content in [
            "correct-horse-battery",
            "correct-horse-battery\n",
            "correct-horse-battery\r\n",
            "  correct-horse-battery \t\n# until May\n",
        ] {
            let key = Key::parse(content.as_bytes()).ok().map(|k| k.0);
            assert_eq!(key, want, "{content:?}");
        }
        let longest = "k".repeat(MAX_KEY);
        assert!(Key::parse(longest.as_bytes()).is_ok());
        for (content, why) in [
            (&b""[..], "is empty"),
            (b"\n0123456789abcdef\n", "is empty"),
            (b" \r\n", "is empty"),
            (b"short\n", "has 5 characters, 16 are the least"),
            (b"0123456789 abcdef\n", "no header can carry"),
            (b"0123456789\0abcdef\n", "no header can carry"),
            (b"0123456789\xffabcdef\n", "no header can carry"),
            ("sch\u{f6}n-0123456789".as_bytes(), "no header can carry"),
            (
                &[b'k'; MAX_KEY + 1],
                "has 4097 characters, 4096 are the most",
            ),
        ] {
            let said = Key::parse(content).unwrap_err();
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn it_is_never_shown() {
        let key = Key::parse(b"0123456789abcdef\n").unwrap();
        let secret = Secret::new("0123456789abcdef");
        assert_eq!(format!("{key:?} {secret:?}"), "Key(..) Secret(..)");
    }
}
