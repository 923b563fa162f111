//! Node's channel between processes: one JSON value a line, in both directions. What a worker says
//! is understood as far as we are meant, and kept as it came: who gets it gets the very bytes.

use super::json::quote;
use super::raw::Raw;
use crate::core::Word;
use crate::core::delegation::Wanted;
use crate::core::hearers::MAX_TARGETS;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Longest message; of a longer one nothing is kept.
pub const MAX_LINE: usize = 1024 * 1024;

/// What a worker is told when it has to stop: its programs know it from the clusters of Node.
pub const DISCONNECT: &str = "{\"cmd\":\"disconnect\"}";

/// What Node says itself to a sender whose socket has not come with its message. Until it hears
/// something of it, a Node process keeps back all that it wants to send.
pub const HANDLE_REFUSED: &str = "{\"cmd\":\"NODE_HANDLE_NACK\"}";

/// Messages that begin so are Node's own.
const INTERNAL: &str = "NODE_";

/// So long is the answer to a delegation waited for, unless it says otherwise; and at most.
const DELEGATE_WITHIN: Duration = Duration::from_secs(10);
const DELEGATE_AT_MOST: Duration = Duration::from_secs(3600);
/// Names in `matches`, and bytes of their values.
const MAX_MATCHES: usize = 16;
const MAX_MATCHED: usize = 64 * 1024;

/// Lines out of what comes in pieces.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Lines {
    part: Vec<u8>,
    /// So much of it has been searched for an end of line.
    searched: usize,
    skipping: bool,
}

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// All of it.
    Whole(Vec<u8>),
    /// It was longer than `MAX_LINE` and has been dropped.
    TooLong,
}

impl Lines {
    /// Takes a piece. Take all lines before the next one is fed: that is what bounds the memory.
    pub fn feed(&mut self, piece: &[u8]) {
        self.part.extend_from_slice(piece);
    }

    /// The next line that is whole.
    pub fn line(&mut self) -> Option<Line> {
        let new = self.part.get(self.searched..).unwrap_or_default();
        let Some(end) = new.iter().position(|b| *b == b'\n') else {
            self.searched = self.part.len();
            if self.skipping || self.part.len() > MAX_LINE {
                self.skipping = true;
                (self.part, self.searched) = (Vec::new(), 0);
            }
            // An idle channel holds nothing.
            if self.part.is_empty() {
                self.part = Vec::new();
            }
            return None;
        };
        let end = self.searched + end;
        self.searched = 0;
        let rest = self.part.split_off((end + 1).min(self.part.len()));
        let mut line = std::mem::replace(&mut self.part, rest);
        line.pop();
        let long = std::mem::take(&mut self.skipping) || line.len() > MAX_LINE;
        Some(match long {
            true => Line::TooLong,
            false => Line::Whole(line),
        })
    }
}

/// What a worker said.
#[derive(Debug, PartialEq)]
pub struct Message {
    /// As it came, without blanks around it.
    pub text: String,
    /// Is it for all workers (`command`)?
    pub to_all: bool,
    /// What it is to us.
    pub what: What,
}

/// What a message is to us.
#[derive(Debug, PartialEq)]
pub enum What {
    /// A word about the worker itself: `"ready"` and `{cmd:"ready"}`; and that it wants to go,
    /// `{cmd:"disconnect"}` and `{type:"suicide"}`.
    Word(Word),
    /// `{cmd:..}`: for who listens to that name.
    Cmd(String),
    /// Work that somebody else is to do.
    Delegate(Box<Wanted>),
    /// The same, but not as it has to be, and why.
    BadDelegate(String),
    /// Something for whoever listens to all.
    Other,
    /// A socket came with it, and the sender waits to hear that it has arrived.
    Handle,
    /// Between Node and Node.
    Internal,
}

impl Message {
    /// Understands a line; `None`: it is no JSON.
    pub fn parse(line: Vec<u8>) -> Option<Message> {
        let mut text = String::from_utf8(line).ok()?;
        let raw = Raw::parse(&text)?;
        let [cmd, kind, command] = raw.members(["cmd", "type", "command"]);
        let to_all = command.is_some_and(Raw::is_truthy);
        let what = what(raw, cmd, kind);
        let whole = raw.text().len() == text.len();
        if !whole {
            text = raw.text().to_string();
        }
        let to_all = to_all && !matches!(what, What::Handle | What::Internal);
        Some(Message { text, to_all, what })
    }
}

fn what(raw: Raw<'_>, cmd: Option<Raw<'_>>, kind: Option<Raw<'_>>) -> What {
    if let Some(cmd) = cmd.and_then(Raw::string) {
        return match cmd.as_ref() {
            "NODE_HANDLE" => What::Handle,
            internal if internal.len() > INTERNAL.len() && internal.starts_with(INTERNAL) => {
                What::Internal
            }
            "ready" => What::Word(Word::Ready),
            "disconnect" => What::Word(Word::Retire),
            _ if kind.is_some_and(|k| k.is("suicide")) => What::Word(Word::Retire),
            _ if kind.is_some_and(|k| k.is("delegate")) => delegate(raw),
            other => What::Cmd(other.to_string()),
        };
    }
    match kind {
        Some(k) if k.is("suicide") => What::Word(Word::Retire),
        Some(k) if k.is("delegate") => delegate(raw),
        Some(_) | None if raw.is("ready") => What::Word(Word::Ready),
        Some(_) | None => What::Other,
    }
}

fn delegate(raw: Raw<'_>) -> What {
    match wanted(raw) {
        Ok(wanted) => What::Delegate(Box::new(wanted)),
        Err(why) => What::BadDelegate(why),
    }
}

/// The fields of a delegation. Those that are null or false are as if they were not there.
fn wanted(raw: Raw<'_>) -> Result<Wanted, String> {
    let fields = raw.members([
        "delegate",
        "expect",
        "matches",
        "timeOut",
        "timeout",
        "targets",
        "notification",
    ]);
    let [
        delegate,
        expect,
        matches,
        time_out,
        timeout,
        targets,
        notification,
    ] = fields.map(|f| f.filter(|f| f.is_truthy()));
    let name = |field: Option<Raw<'_>>, what: &str| match field.map(Raw::string) {
        None => Ok(None),
        Some(Some(name)) => Ok(Some(name.into_owned())),
        Some(None) => Err(format!("{what} is not a string")),
    };
    let delegate = name(delegate, "delegate")?.ok_or("delegate is missing")?;
    let within = match time_out.or(timeout).map(Raw::number) {
        None => DELEGATE_WITHIN,
        Some(Some(ms)) if ms > 0.0 => millis(ms).min(DELEGATE_AT_MOST),
        Some(_) => return Err("timeOut is not a number of milliseconds".into()),
    };
    let targets = targets.map(pids).transpose()?;
    Ok(Wanted {
        delegate,
        expect: name(expect, "expect")?,
        matches: matches.map_or(Ok(Vec::new()), |m| matched(raw, m))?,
        within,
        targets,
        notification: notification.is_some(),
    })
}

/// So many milliseconds, as JavaScript has them; a part of one counts as one.
pub fn millis(ms: f64) -> Duration {
    // (A cast of what is too large, or no number, saturates.)
    Duration::from_millis(ms.ceil() as u64)
}

fn pids(list: Raw<'_>) -> Result<Vec<i32>, String> {
    let bad = || format!("targets is not a list of at most {MAX_TARGETS} pids");
    let items = list.items(MAX_TARGETS).ok_or_else(bad)?;
    let there = items.into_iter().filter(|i| i.is_truthy());
    // Those of a worker's process.pid, or of the keys of an object.
    let pid = |item: Raw<'_>| match item.string() {
        Some(text) => text.parse().ok(),
        None => item.text().parse().ok(),
    };
    there.map(|i| pid(i).ok_or_else(bad)).collect()
}

/// The names in `matches`, each with its value here.
fn matched(raw: Raw<'_>, list: Raw<'_>) -> Result<Vec<(String, Option<String>)>, String> {
    let bad = || format!("matches is not a list of at most {MAX_MATCHES} names");
    let items = list.items(MAX_MATCHES).ok_or_else(bad)?;
    let names = items.into_iter().map(Raw::string);
    let mut all = Vec::new();
    let mut size = 0;
    for name in names {
        let name = name.ok_or_else(bad)?.into_owned();
        let [value] = raw.members([name.as_str()]);
        size += name.len() + value.map_or(0, |v| v.text().len());
        if size > MAX_MATCHED {
            return Err(format!(
                "the values that matches names have {size} bytes or more (limit {MAX_MATCHED})"
            ));
        }
        all.push((name, value.map(Raw::canonical)));
    }
    // In one order, and each once: the same names ask for the same.
    all.sort();
    all.dedup();
    Ok(all)
}

/// This message under another `type`, and perhaps with an `error`; all else as it came.
pub fn retyped(text: &str, kind: &str, error: Option<&str>) -> String {
    let mut out = format!("{{\"type\":{}", quote(kind));
    if let Some(raw) = Raw::parse(text) {
        raw.each_member(|key, value| {
            let replaced = key.is("type") || error.is_some() && key.is("error");
            if !replaced {
                out.push_str(&format!(",{}:{}", key.text(), value.text()));
            }
        });
    }
    if let Some(error) = error {
        out.push_str(&format!(",\"error\":{}", quote(error)));
    }
    out.push('}');
    out
}

/// What of a message counts as its answer's `msg`.
pub fn msg_of(text: &str) -> Option<&str> {
    let [msg] = Raw::parse(text)?.members(["msg"]);
    msg.map(Raw::text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Message {
        Message::parse(text.as_bytes().to_vec()).unwrap_or_else(|| panic!("{text}"))
    }

    fn lines(l: &mut Lines, piece: &[u8]) -> Vec<Line> {
        l.feed(piece);
        std::iter::from_fn(|| l.line()).collect()
    }

    fn whole(text: &str) -> Line {
        Line::Whole(text.as_bytes().to_vec())
    }

    #[test]
    fn lines_come_out_however_the_bytes_arrive() {
        let text = "\"ready\"\n\n{\"a\":1}\npart";
        let want = [whole("\"ready\""), whole(""), whole("{\"a\":1}")];
        assert_eq!(lines(&mut Lines::default(), text.as_bytes()), want);
        let mut l = Lines::default();
        let one = |b: u8| lines(&mut l, &[b]);
        let said: Vec<Line> = text.bytes().flat_map(one).collect();
        assert_eq!(said, want);
        assert_eq!(l.part, b"part");
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_and_the_next_one_is_heard() {
        let mut l = Lines::default();
        let piece = vec![b'x'; 4096];
        for _ in 0..3 * MAX_LINE / piece.len() {
            assert!(lines(&mut l, &piece).is_empty());
            assert!(l.part.capacity() <= 4 * MAX_LINE);
        }
        let said = lines(&mut l, b"xx\n\"ready\"\n");
        assert_eq!(said, [Line::TooLong, whole("\"ready\"")]);
        assert_eq!(l.part.capacity(), 0);
        // One that fits exactly.
        for _ in 0..MAX_LINE / piece.len() {
            l.feed(&piece);
        }
        assert_eq!(lines(&mut l, b"\n").len(), 1);
        assert_eq!(l.line(), None);
    }

    #[test]
    fn words_of_a_worker_about_itself() {
        for (text, word) in [
            ("\"ready\"", Word::Ready),
            ("{\"cmd\":\"ready\",\"pid\":1}", Word::Ready),
            ("{\"cmd\":\"disconnect\"}", Word::Retire),
            ("{\"type\":\"suicide\",\"pid\":1}", Word::Retire),
            ("{\"type\":\"suicide\",\"cmd\":\"x\"}", Word::Retire),
        ] {
            assert_eq!(parse(text).what, What::Word(word), "{text}");
        }
        for other in [
            "{\"type\":\"ready\"}",
            "{\"type\":\"disconnect\"}",
            "\"disconnect\"",
            "[\"ready\"]",
            "{\"x\":{\"cmd\":\"ready\"}}",
            "{\"cmd\":7}",
            "null",
            "{\"cmd\":\"\",\"cmd\":null}",
        ] {
            assert_eq!(parse(other).what, What::Other, "{other}");
        }
        for bad in [
            "",
            "ready",
            "{\"cmd\":",
            "{\"cmd\":\"ready\"} x",
            "undefined",
        ] {
            assert!(Message::parse(bad.into()).is_none(), "{bad}");
        }
        assert!(Message::parse(b"\"\xff\"".to_vec()).is_none());
    }

    #[test]
    fn what_is_for_others_is_kept_as_it_came() {
        let m = parse(" {\"command\":\"flush\", \"id\":12345678901234567890}\r");
        assert_eq!(
            m.text,
            "{\"command\":\"flush\", \"id\":12345678901234567890}"
        );
        assert!(m.to_all);
        assert!(!parse("{\"command\":null}").to_all);
        assert!(!parse("{\"command\":\"\",\"cmd\":\"x\"}").to_all);
        let m = parse("{\"cmd\":\"ready\",\"command\":\"hello\"}");
        assert!(m.to_all && m.what == What::Word(Word::Ready));
        assert_eq!(
            parse("{\"cmd\":\"ping\",\"msg\":1}").what,
            What::Cmd("ping".into())
        );
        assert_eq!(parse("{\"cmd\":\"NODE_\"}").what, What::Cmd("NODE_".into()));
        let internal = parse("{\"cmd\":\"NODE_SOCKET_GET\",\"command\":1}");
        assert!(internal.what == What::Internal && !internal.to_all);
        let handle =
            "{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Socket\",\"msg\":{\"cmd\":\"ready\"}}";
        assert_eq!(parse(handle).what, What::Handle);
    }

    #[test]
    fn a_delegation_has_the_fields_of_cluster2() {
        let What::Delegate(w) = parse(
            "{\"type\":\"delegate\",\"delegate\":\"config-read\",\"expect\":\"config\",\"matches\":[\"domain\",\"none\",\"domain\"],\
             \"domain\":{\"b\":1,\"a\":[1.0]},\"timeOut\":1500,\"targets\":[12,null,\"13\"],\"notification\":1}",
        )
        .what
        else {
            panic!();
        };
        let domain = Raw::parse("{\"a\":[1],\"b\":1}").unwrap().canonical();
        let want = Wanted {
            delegate: "config-read".into(),
            expect: Some("config".into()),
            matches: vec![("domain".into(), Some(domain)), ("none".into(), None)],
            within: Duration::from_millis(1500),
            targets: Some(vec![12, 13]),
            notification: true,
        };
        assert_eq!(*w, want);
        let within = |field: &str| {
            let text = format!("{{\"type\":\"delegate\",\"delegate\":\"d\"{field}}}");
            match parse(&text).what {
                What::Delegate(w) => Some(w.within.as_millis()),
                What::BadDelegate(_) => None,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(within(""), Some(10_000));
        assert_eq!(within(",\"timeOut\":0"), Some(10_000));
        assert_eq!(within(",\"timeout\":20"), Some(20));
        assert_eq!(within(",\"timeout\":20,\"timeOut\":30"), Some(30));
        assert_eq!(within(",\"timeout\":0.2"), Some(1));
        assert_eq!(within(",\"timeout\":1e300"), Some(3_600_000));
        for bad in [
            "\"timeOut\":-1",
            "\"timeOut\":\"x\"",
            "\"matches\":{}",
            "\"matches\":[1]",
            "\"targets\":7",
            "\"targets\":[{}]",
            "\"expect\":[1]",
            "\"delegate\":null",
        ] {
            assert_eq!(within(&format!(",{bad}")), None, "{bad}");
        }
        let long = format!(",\"matches\":[\"x\"],\"x\":\"{}\"", "x".repeat(MAX_MATCHED));
        assert_eq!(within(&long), None);
    }

    #[test]
    fn an_answer_is_what_came_under_the_expected_type() {
        let text = "{\"type\":\"delegate\",\"id\":12345678901234567890,\"error\":1, \"a\" : [ 1 ]}";
        assert_eq!(
            retyped(text, "got", None),
            "{\"type\":\"got\",\"id\":12345678901234567890,\"error\":1,\"a\":[ 1 ]}"
        );
        assert_eq!(
            retyped(text, "g\"t", Some("too\nlate")),
            "{\"type\":\"g\\\"t\",\"id\":12345678901234567890,\"a\":[ 1 ],\"error\":\"too\\nlate\"}"
        );
        assert_eq!(retyped("{}", "x", None), "{\"type\":\"x\"}");
        assert_eq!(msg_of("{\"msg\": [1, 2] }"), Some("[1, 2]"));
        assert_eq!(msg_of("[]"), None);
    }

    #[test]
    fn ten_thousand_hostile_streams_change_nothing_but_what_they_say() {
        let parts: [&[u8]; 16] = [
            b"{\"cmd\":",
            b"\"ready\"",
            b"{\"type\":\"delegate\",\"delegate\":\"d\",\"expect\":",
            b",\"matches\":[",
            b",\"targets\":[1,",
            b"}",
            b"]",
            b"\n",
            b"\n",
            b"\\ud83d",
            b"\"",
            b"\xff\xfe",
            b"NODE_HANDLE",
            b":1e999,",
            b"\0",
            b"{\"command\":true}\n",
        ];
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut roll = |sides: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % sides as u64).unwrap()
        };
        let (mut l, mut heard, mut dropped) = (Lines::default(), 0, 0);
        for _ in 0..10_000 {
            for _ in 0..roll(20) {
                l.feed(parts[roll(parts.len())]);
            }
            while let Some(line) = l.line() {
                let Line::Whole(line) = line else { panic!() };
                let Some(m) = Message::parse(line) else {
                    dropped += 1;
                    continue;
                };
                heard += 1;
                // Whatever goes on from here is JSON of one line.
                for text in [&m.text, &retyped(&m.text, "x\"", Some("\n"))] {
                    assert!(Raw::parse(text).is_some() && !text.contains('\n'), "{text}");
                }
            }
        }
        assert!(heard > 1_000 && dropped > 1_000, "{heard} {dropped}");
        // And the next one is heard.
        l.feed(b"\n");
        while l.line().is_some() {}
        assert_eq!(lines(&mut l, b"\"ready\"\n"), [whole("\"ready\"")]);
    }
}
