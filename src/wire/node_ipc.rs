//! Node's channel between processes: one JSON value a line, in both directions.

use super::json;
use crate::core::Word;
use tinyjson::JsonValue;

/// Longest line that is looked at; the rest of a longer one is skipped.
pub const MAX_LINE: usize = 64 * 1024;

/// What a worker is told when it has to stop: its programs know it from the clusters of Node.
pub const DISCONNECT: &[u8] = b"{\"cmd\":\"disconnect\"}\n";

/// Lines out of what comes in pieces.
#[derive(Debug, Default)]
pub struct Lines {
    part: Vec<u8>,
    skipping: bool,
}

impl Lines {
    /// Takes a piece; what do the lines say that it completes?
    pub fn feed(&mut self, piece: &[u8]) -> Vec<Word> {
        let mut said = Vec::new();
        for part in piece.split_inclusive(|b| *b == b'\n') {
            let ends = part.ends_with(b"\n");
            if self.part.len() + part.len() > MAX_LINE {
                self.skipping = true;
                self.part.clear();
            }
            if !self.skipping {
                self.part.extend_from_slice(part);
            }
            if ends {
                said.extend(word(&self.part));
                self.part.clear();
                self.skipping = false;
            }
        }
        // An idle channel holds nothing.
        if self.part.is_empty() {
            self.part = Vec::new();
        }
        said
    }
}

/// `"ready"` and `{cmd:"ready"}`; and that it wants to go, `{cmd:"disconnect"}` and `{type:"suicide"}`, as the
/// clusters of Node have it. All else is none of our business.
fn word(line: &[u8]) -> Option<Word> {
    let text = std::str::from_utf8(line).ok()?.trim();
    // Most messages are somebody else's, and long: those are not parsed.
    const WORDS: [&str; 3] = ["ready", "disconnect", "suicide"];
    if !WORDS.iter().any(|w| text.contains(w)) {
        return None;
    }
    let is =
        |v: Option<&JsonValue>, word: &str| matches!(v, Some(JsonValue::String(s)) if s == word);
    match json::parse(text).ok()? {
        JsonValue::Object(map) if is(map.get("cmd"), "ready") => Some(Word::Ready),
        JsonValue::Object(map) if is(map.get("cmd"), "disconnect") => Some(Word::Retire),
        JsonValue::Object(map) if is(map.get("type"), "suicide") => Some(Word::Retire),
        value @ JsonValue::String(_) if is(Some(&value), "ready") => Some(Word::Ready),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ready_worker_is_heard_however_the_bytes_arrive() {
        for line in ["\"ready\"\n", "{\"cmd\":\"ready\",\"pid\":1}\n"] {
            let mut whole = Lines::default();
            assert_eq!(whole.feed(line.as_bytes()), [Word::Ready]);
            let mut bytes = Lines::default();
            let said: Vec<Word> = line.bytes().flat_map(|b| bytes.feed(&[b])).collect();
            assert_eq!(said, [Word::Ready]);
        }
    }

    #[test]
    fn one_that_wants_to_go_is_heard() {
        for line in [
            "{\"cmd\":\"disconnect\"}\n",
            "{\"type\":\"suicide\",\"pid\":1}\n",
        ] {
            assert_eq!(Lines::default().feed(line.as_bytes()), [Word::Retire]);
        }
    }

    #[test]
    fn what_is_not_for_us_is_skipped_and_has_a_limit() {
        let mut l = Lines::default();
        for other in [
            "{\"type\":\"ready\"}\n",
            "{\"type\":\"disconnect\"}\n",
            "{\"cmd\":\"suicide\"}\n",
            "\"disconnect\"\n",
            "ready\n",
            "[\"ready\"]\n",
            "\n",
            "{\"cmd\":\n",
        ] {
            assert!(l.feed(other.as_bytes()).is_empty(), "{other}");
        }
        let long = vec![b'x'; MAX_LINE + 1];
        assert!(l.feed(&long).is_empty());
        assert!(l.part.is_empty());
        assert_eq!(l.feed(b"\"ready\"\n\"ready\"\n"), [Word::Ready]);
        let deep = format!("{}\"ready\"\n", "[".repeat(60_000));
        assert!(l.feed(deep.as_bytes()).is_empty());
    }
}
