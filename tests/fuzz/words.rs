//! Values, lines and datagrams.

use crate::mutate::cut;
use crate::prng::Prng;
use minicluster::wire::legacy::Record;
use minicluster::wire::node_ipc::{Line, Lines, Message};
use minicluster::wire::raw::Raw;
use minicluster::wire::{command, einhorn as acks, json as values, node_ipc, notify};
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
    // What is looked into and passed on as it stands is what the parser would have it be.
    // (Half of a surrogate pair is a string of JavaScript's, and none of ours.)
    let halves = text.contains("\\u");
    if let Some(raw) = Raw::parse(&text) {
        assert!(parsed.is_ok() || halves, "{}", raw.text());
    }
    if let Some(msg) = node_ipc::msg_of(&text) {
        assert!(values::parse(msg).is_ok() || halves, "{msg}");
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

/// A worker says the same however its bytes come, and what it says is passed on whole.
pub fn ipc(input: &[u8], chance: &mut Prng) {
    let all = |pieces: &[&[u8]]| {
        let (mut lines, mut said) = (Lines::default(), Vec::new());
        for piece in pieces {
            lines.feed(piece);
            while let Some(line) = lines.line() {
                said.push(line);
            }
        }
        said
    };
    let whole = all(&[input]);
    assert_eq!(all(&cut(input, chance)), whole);
    assert!(whole.len() <= input.iter().filter(|b| **b == b'\n').count());
    for line in whole {
        if let Line::Whole(line) = line
            && let Some(message) = Message::parse(line.clone())
        {
            let text = String::from_utf8(line).unwrap();
            assert_eq!(message.text, text.trim());
        }
    }
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

/// What was read of a record is what would be written, and names no process that kill(2) takes for many.
pub fn legacy(input: &[u8], _: &mut Prng) {
    let text = String::from_utf8_lossy(input);
    if let Some(record) = Record::parse(&text) {
        assert!(record.workers.iter().all(|w| w.pid > 1));
        assert_eq!(Record::parse(&record.text()), Some(record));
    }
}
