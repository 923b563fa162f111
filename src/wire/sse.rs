//! Server-Sent Events: how a stream of events is written for `curl -N` and for a browser's EventSource.

use super::http::Status;
use super::http::response::Response;
use std::time::Duration;

/// What a stream says when there is nothing to say, so that nobody between takes it for dead.
pub const HEARTBEAT: &str = ":\n\n";

/// What the stream begins with; its end is that of the connection.
pub fn opening() -> Response {
    let answer = Response::new(Status::OK, "text/event-stream", "");
    // A proxy that collects an answer before it passes it on would collect for ever (nginx).
    answer.with("X-Accel-Buffering", "no").closing()
}

/// After which time a client that was cut off comes back.
pub fn retry(after: Duration) -> String {
    format!("retry: {}\n\n", after.as_millis())
}

/// Where a follower is: the number of an event, and in whose life. A master that comes after another
/// begins at 1 again, and who comes back from the one before has seen none of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When the master began, in milliseconds; `None` where only a number is said.
    pub life: Option<u64>,
    /// Of that event.
    pub number: u64,
}

/// One event. Its data may have several lines; its name has one.
pub fn event(id: Option<(u64, u64)>, name: &str, data: &str) -> String {
    let mut s = String::with_capacity(data.len() + name.len() + 48);
    if let Some((life, number)) = id {
        s.push_str(&format!("id: {life}-{number}\n"));
    }
    if !name.is_empty() {
        s.push_str("event: ");
        let plain = |c: char| if c.is_control() { ' ' } else { c };
        s.extend(name.chars().map(plain));
        s.push('\n');
    }
    // A line may also end with a carriage return alone: what is behind it would be a field of its own.
    let mut rest = data;
    while let Some(end) = rest.find(['\r', '\n']) {
        let (line, more) = rest.split_at(end);
        put(&mut s, line);
        rest = more
            .strip_prefix("\r\n")
            .or(more.get(1..))
            .unwrap_or_default();
    }
    put(&mut s, rest);
    s.push('\n');
    s
}

fn put(s: &mut String, line: &str) {
    s.extend(["data: ", line, "\n"]);
}

/// The last event that a client which comes back has seen: what follows it is wanted.
pub fn last_seen(header: Option<&str>) -> Option<Mark> {
    let digits = |t: &str| {
        let plain = !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| t.parse().ok()).flatten()
    };
    let text = header?.trim();
    let (life, number) = match text.split_once('-') {
        Some((life, number)) => (Some(digits(life)?), number),
        None => (None, text),
    };
    digits(number).map(|number| Mark { life, number })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::response::{Length, Way};

    #[test]
    fn events_are_framed() {
        for (id, name, data, want) in [
            (
                Some((5, 7)),
                "ready",
                "{}",
                "id: 5-7\nevent: ready\ndata: {}\n\n",
            ),
            (None, "", "x", "data: x\n\n"),
            (None, "", "", "data: \n\n"),
            (None, "", "a\nb", "data: a\ndata: b\n\n"),
            (
                None,
                "",
                "a\r\nb\rc\n",
                "data: a\ndata: b\ndata: c\ndata: \n\n",
            ),
            (None, "", "\n\n", "data: \ndata: \ndata: \n\n"),
            (None, "", "\r\r\n", "data: \ndata: \ndata: \n\n"),
            (
                None,
                "",
                "a\n\nevent: x",
                "data: a\ndata: \ndata: event: x\n\n",
            ),
            (None, "a\nid: 9", "", "event: a id: 9\ndata: \n\n"),
            (None, "", "\u{e9}\u{2028}", "data: \u{e9}\u{2028}\n\n"),
        ] {
            assert_eq!(event(id, name, data), want);
        }
        assert_eq!(retry(Duration::from_secs(2)), "retry: 2000\n\n");
        let head = opening().head(Way::last(None), Length::Unknown);
        let head = String::from_utf8(head).unwrap();
        assert!(
            head.contains("Content-Type: text/event-stream\r\n"),
            "{head}"
        );
        assert!(head.contains("Cache-Control: no-store\r\n"), "{head}");
    }

    #[test]
    fn who_comes_back_says_where_it_was() {
        for (header, want) in [
            (None, None),
            (Some("0"), Some((None, 0))),
            (Some(" 17 "), Some((None, 17))),
            (
                Some("1795918200123-17"),
                Some((Some(1_795_918_200_123), 17)),
            ),
            (Some("18446744073709551615"), Some((None, u64::MAX))),
            (Some("1-"), None),
            (Some("-"), None),
            (Some("1-2-3"), None),
            (Some("18446744073709551616-2"), None),
            (Some("18446744073709551616"), None),
            (Some(""), None),
            (Some("+1"), None),
            (Some("-1"), None),
            (Some("x"), None),
        ] {
            let want = want.map(|(life, number)| Mark { life, number });
            assert_eq!(last_seen(header), want, "{header:?}");
        }
    }
}
