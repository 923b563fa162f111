//! `POST /send`, `POST /sync_send` and `/restart`, asked and answered as proteus-cluster does it: a message
//! goes to all workers as it came, and of each reply the part that is for the asker comes back as it came.

use super::http::Status;
use super::http::response::{JSON, Response};
use super::json;
use std::time::Duration;
use tinyjson::JsonValue;

const OK: &str = "OK";
const NOT_READ: &str = "request body parse failure.";
const TIMEOUT: &str = "worker timeout.";
const BUSY: &str = "server too busy.";

/// Replies are waited for so long unless the message says otherwise.
pub const WAIT: Duration = Duration::from_secs(5);
/// Longest that one may ask for.
pub const MAX_WAIT: Duration = Duration::from_secs(3600);
/// Of a reply without one.
const NO_MSG: &str = "\"\"";

/// A message for the workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What the workers are sent: the value as it came, on one line, without the line's end.
    pub line: String,
    /// Replies are known by it. Without one nothing is waited for.
    pub cmd: Option<String>,
    /// So long are they waited for.
    pub wait: Duration,
}

/// Understands a body.
pub fn message(body: &[u8]) -> Result<Message, Response> {
    let refuse = || Response::text(Status::BAD_REQUEST, NOT_READ);
    let text = std::str::from_utf8(body).map_err(|_| refuse())?;
    let value = json::parse(text).map_err(|_| refuse())?;
    let text = text.trim();
    let (mut cmd, mut wait) = (None, WAIT);
    if let JsonValue::Object(map) = value {
        if let Some(JsonValue::String(c)) = map.get("cmd") {
            cmd = Some(c.clone());
        }
        if let Some(JsonValue::Number(ms)) = map.get("timeout") {
            let ms = Duration::from_millis(*ms as u64); // saturates
            wait = ms.min(MAX_WAIT);
        }
    }
    // Between its values JSON may have line ends; within a string it may not.
    let line = text.replace(['\r', '\n'], " ");
    Ok(Message { line, cmd, wait })
}

/// What a reply has for the asker, as it came; `reply` is a line of a worker's.
pub fn part(reply: &str) -> String {
    let msg = json::parse(reply).ok().and_then(|_| member(reply, "msg"));
    msg.unwrap_or(NO_MSG).to_string()
}

/// All went well, and there is nothing to say.
pub fn ok() -> Response {
    Response::text(Status::OK, OK)
}

/// The parts of all replies.
pub fn gathered(parts: &[String]) -> Response {
    Response::new(Status::OK, JSON, format!("[{}]", parts.join(",")))
}

/// Of a message without `cmd`: that many workers were sent it.
pub fn unheard(workers: usize) -> Response {
    gathered(&vec![json::quote(OK); workers])
}

/// Not all have replied.
pub fn timeout() -> Response {
    Response::text(Status::FAILED, TIMEOUT)
}

/// Replies of that `cmd` are waited for already.
pub fn busy() -> Response {
    Response::text(Status::FAILED, BUSY)
}

/// The value of an object's member, as it stands there; of several the last, as parsers have it. The
/// text is known to be JSON. A number that is parsed and written again may be another one.
fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    let mut found = None;
    for field in pieces(inner, b',') {
        let (key, value) = field.split_at_checked(pieces(field, b':').next()?.len())?;
        if matches!(json::parse(key), Ok(JsonValue::String(k)) if k == name) {
            found = value.strip_prefix(':').map(str::trim);
        }
    }
    found
}

/// What stands between such bytes, outside of strings and brackets.
fn pieces(text: &str, between: u8) -> impl Iterator<Item = &str> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let cut = move |c: char| {
        match (in_string, escaped, c) {
            (true, true, _) => escaped = false,
            (true, false, '\\') => escaped = true,
            (true, false, '"') => in_string = false,
            (true, false, _) => {}
            (false, _, '"') => in_string = true,
            (false, _, '[' | '{') => depth += 1,
            (false, _, ']' | '}') => depth = depth.saturating_sub(1),
            (false, _, c) => return depth == 0 && c == char::from(between),
        }
        false
    };
    text.split(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_goes_on_as_it_came() {
        let secs = Duration::from_secs;
        for (body, line, cmd, wait) in [
            (
                "{\"cmd\":\"ping\"}",
                "{\"cmd\":\"ping\"}",
                Some("ping"),
                WAIT,
            ),
            (
                " {\r\n\"n\": 12345678901234567890}\n",
                "{  \"n\": 12345678901234567890}",
                None,
                WAIT,
            ),
            (
                "{\"cmd\":\"a\",\"timeout\":10}",
                "{\"cmd\":\"a\",\"timeout\":10}",
                Some("a"),
                Duration::from_millis(10),
            ),
            ("{\"timeout\":-1}", "{\"timeout\":-1}", None, secs(0)),
            ("{\"timeout\":1e99}", "{\"timeout\":1e99}", None, MAX_WAIT),
            (
                "{\"timeout\":\"1\",\"cmd\":1}",
                "{\"timeout\":\"1\",\"cmd\":1}",
                None,
                WAIT,
            ),
            ("\"x\"", "\"x\"", None, WAIT),
            ("[1]", "[1]", None, WAIT),
            ("null", "null", None, WAIT),
        ] {
            let got = message(body.as_bytes()).unwrap();
            let cmd = cmd.map(String::from);
            let line = line.to_string();
            assert_eq!(got, Message { line, cmd, wait });
        }
        let deep = "[".repeat(100) + &"]".repeat(100);
        for bad in ["", " ", "{", "x", "{}{}", "{\"a\":\"\n\"}", &deep] {
            let got = message(bad.as_bytes()).unwrap_err();
            assert_eq!(got.body, b"request body parse failure.", "{bad}");
            assert_eq!(got.status, Status::BAD_REQUEST);
        }
        assert!(message(b"\"\xff\"").is_err());
    }

    #[test]
    fn the_part_of_a_reply_is_as_it_came() {
        for (reply, want) in [
            ("{\"cmd\":\"a\",\"msg\":\"pong\"}", "\"pong\""),
            ("{\"msg\":12345678901234567890}", "12345678901234567890"),
            (
                "{\"msg\": {\"a\":[1,{\"msg\":2}],\"b\":\"}\"} , \"x\":1}",
                "{\"a\":[1,{\"msg\":2}],\"b\":\"}\"}",
            ),
            ("{\"a\":\",\\\"msg\\\":1\",\"msg\":2}", "2"),
            ("{\"a\":{\"msg\":1}}", "\"\""),
            ("{\"\\u006dsg\":1}", "1"),
            ("{\"msg\":1,\"msg\":2}", "2"),
            ("{\"msg\":null}", "null"),
            ("{ \"msg\" : [ 1 , 2 ] }", "[ 1 , 2 ]"),
            ("{\"msg\":\"a:b,\\\\\"}", "\"a:b,\\\\\""),
            ("{}", "\"\""),
            ("[1]", "\"\""),
            ("\"msg\"", "\"\""),
            ("{\"msg\":", "\"\""),
            ("", "\"\""),
        ] {
            assert_eq!(part(reply), want, "{reply}");
            assert!(json::parse(&part(reply)).is_ok());
        }
    }

    #[test]
    fn answers_are_those_of_proteus_cluster() {
        for (answer, status, body) in [
            (ok(), 200, "OK"),
            (gathered(&["1".into(), "\"x\"".into()]), 200, "[1,\"x\"]"),
            (gathered(&[]), 200, "[]"),
            (unheard(2), 200, "[\"OK\",\"OK\"]"),
            (timeout(), 500, "worker timeout."),
            (busy(), 500, "server too busy."),
        ] {
            assert_eq!(answer.status.0, status);
            assert_eq!(answer.body, body.as_bytes());
        }
    }
}
