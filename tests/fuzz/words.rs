//! Values, lines and datagrams.

use crate::mutate::cut;
use crate::prng::Prng;
use minicluster::core::Word;
use minicluster::wire::node_ipc::Lines;
use minicluster::wire::{command, einhorn as acks, json as values, notify, send_answer};
use tinyjson::JsonValue;

/// A value is one that can be quoted, found and passed on; deep ones are refused before they are read.
pub fn json(input: &[u8], _: &mut Prng) {
    let text = String::from_utf8_lossy(input);
    let quoted = values::quote(&text);
    assert!(!quoted.contains(['\n', '\r', '\0']));
    let back = values::parse(&quoted).unwrap();
    assert!(matches!(back, JsonValue::String(s) if s == text));
    let parsed = values::parse(&text);
    if let Err(why) = &parsed {
        assert!(why.chars().count() < 250, "{} bytes of why", why.len());
    }
    let _ = values::parse_words(&text);
    assert!(values::parse(&send_answer::part(&text)).is_ok());
    let message = send_answer::message(input);
    assert_eq!(
        message.is_ok(),
        parsed.is_ok() && std::str::from_utf8(input).is_ok()
    );
    if let Ok(message) = message {
        assert!(!message.line.contains(['\n', '\r']));
        assert_eq!(values::parse(&message.line), parsed, "passed on");
    }
}

/// A line is words without a NUL, not more than it has bytes.
pub fn command(input: &[u8], _: &mut Prng) {
    for line in input.split(|b| *b == b'\n') {
        match command::parse(line) {
            Ok(request) => {
                assert!(request.words.len() <= line.len());
                assert!(!request.words.iter().any(|w| w.contains('\0')));
            }
            Err(why) => assert!(!why.is_empty() && why.len() < 8 * line.len() + 400),
        }
    }
}

/// A worker says the same however its bytes come.
pub fn ipc(input: &[u8], chance: &mut Prng) {
    let whole = Lines::default().feed(input);
    let mut lines = Lines::default();
    let said: Vec<Word> = cut(input, chance)
        .iter()
        .flat_map(|p| lines.feed(p))
        .collect();
    assert_eq!(said, whole);
    assert!(said.len() <= input.iter().filter(|b| **b == b'\n').count());
}

/// Nothing of it is longer than it may be, or fit to move a cursor.
pub fn datagram(input: &[u8], _: &mut Prng) {
    let lines = String::from_utf8_lossy(input).lines().count();
    assert!(notify::words(input).len() <= lines);
    if let Some(status) = notify::status(input) {
        assert!(status.len() <= notify::MAX_STATUS && !status.contains(char::is_control));
    }
}

/// A pid is one that stands there.
pub fn einhorn(input: &[u8], _: &mut Prng) {
    if acks::ack(input).is_some() {
        let text = String::from_utf8_lossy(input);
        assert!(text.contains("pid") || text.contains("\\u"), "{text}");
    }
    let line = acks::answer(&String::from_utf8_lossy(input));
    assert_eq!(line.matches('\n').count(), 1);
}
