//! An answer, made into bytes. What every answer has is said here once: how long it is, whether the
//! connection goes on, that nobody keeps it and that no browser guesses what it is. No header of CORS is
//! ever sent: no page of another origin has any business here.

use super::head::{Head, Method, Version};
use super::status::Status;
use crate::wire::json::quote;
use crate::wire::logfmt::civil;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

pub const TEXT: &str = "text/plain; charset=utf-8";
pub const JSON: &str = "application/json";
pub const HTML: &str = "text/html; charset=utf-8";
/// What is true now need not be so in a moment.
pub const NO_STORE: &str = "no-store";

/// How long the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// So many bytes.
    Bytes(u64),
    /// It ends when the connection does.
    Unknown,
}

/// What the request decides of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// HEAD: all but the body.
    pub bodiless: bool,
    /// May another request follow?
    pub keep_alive: bool,
    /// A client that speaks 1.0 has to be told that it may.
    pub version: Version,
    /// The clock of the machine, in seconds since 1970, for `Date`.
    pub now: Option<u64>,
}

impl Way {
    /// For the answer to that request.
    pub fn of(head: &Head, now: Option<u64>) -> Way {
        Way {
            bodiless: head.method == Method::Head,
            keep_alive: head.keep_alive,
            version: head.version,
            now,
        }
    }

    /// For one that was not understood.
    pub fn last(now: Option<u64>) -> Way {
        Way {
            bodiless: false,
            keep_alive: false,
            version: Version::Http11,
            now,
        }
    }

    /// And that was the last one.
    pub fn closing(self) -> Way {
        Way {
            keep_alive: false,
            ..self
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub status: Status,
    pub content_type: &'static str,
    pub cache: &'static str,
    /// Beside those that every answer has.
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Does the connection end with it, whatever was asked?
    pub closes: bool,
}

impl Response {
    pub fn new(status: Status, content_type: &'static str, body: impl Into<Vec<u8>>) -> Response {
        Response {
            status,
            content_type,
            cache: NO_STORE,
            headers: Vec::new(),
            body: body.into(),
            closes: false,
        }
    }

    pub fn text(status: Status, body: impl Into<String>) -> Response {
        Response::new(status, TEXT, body.into())
    }

    pub fn json(status: Status, body: impl Into<String>) -> Response {
        Response::new(status, JSON, body.into())
    }

    /// What went wrong, as the client can read it: a line, or `{"error":..}`.
    pub fn error(status: Status, why: &str, json: bool) -> Response {
        match json {
            true => Response::json(status, format!("{{\"error\":{}}}\n", quote(why))),
            false => Response::text(status, format!("{why}\n")),
        }
    }

    /// The same where the text is one that clients compare: without a line feed.
    pub fn verbatim(status: Status, why: &str, json: bool) -> Response {
        match json {
            true => Response::error(status, why, json),
            false => Response::text(status, why),
        }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }

    pub fn closing(mut self) -> Response {
        self.closes = true;
        self
    }

    /// All of it.
    pub fn encode(&self, way: Way) -> Vec<u8> {
        let length = Length::Bytes(self.body.len() as u64);
        let mut bytes = self.head(way, length);
        if !way.bodiless && !self.status.is_bare() {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }

    /// All but the body, which the caller sends as it comes: so long, or until the connection ends.
    pub fn head(&self, way: Way, length: Length) -> Vec<u8> {
        let goes_on = way.keep_alive && !self.closes && length != Length::Unknown;
        let Status(code) = self.status;
        let mut s = format!("HTTP/1.1 {code} {}\r\n", self.status.reason());
        let mut put = |name: &str, value: &str| {
            // Whatever a value comes from, it makes one line.
            let clean = |c: char| if c.is_control() { ' ' } else { c };
            s.extend([name, ": "]);
            s.extend(value.chars().map(clean));
            s.push_str("\r\n");
        };
        if let Some(now) = way.now {
            put("Date", &date(now));
        }
        if !self.status.is_bare() {
            put("Content-Type", self.content_type);
            if let Length::Bytes(n) = length {
                put("Content-Length", &n.to_string());
            }
        }
        put("Cache-Control", self.cache);
        put("X-Content-Type-Options", "nosniff");
        for (name, value) in &self.headers {
            put(name, value);
        }
        match (goes_on, way.version) {
            (false, _) => put("Connection", "close"),
            (true, Version::Http10) => put("Connection", "keep-alive"),
            (true, Version::Http11) => {}
        }
        s.push_str("\r\n");
        s.into_bytes()
    }

    /// Does another request follow when it is sent?
    pub fn goes_on(&self, way: Way) -> bool {
        way.keep_alive && !self.closes
    }
}

pub(in crate::wire) const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
pub(in crate::wire) const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// The names of a day since 1970 and of its month, its number, and the year.
pub(in crate::wire) fn calendar(days: u64) -> (&'static str, &'static str, u64, u64) {
    let (year, month, day) = civil(days);
    let name = |names: &[&'static str], at: u64| {
        let at = usize::try_from(at).unwrap_or_default();
        names.get(at).copied().unwrap_or_default()
    };
    let week = name(&DAYS, days % 7);
    (week, name(&MONTHS, month.saturating_sub(1)), day, year)
}

/// `Sun, 22 Nov 2026 08:15:19 GMT`, the date of HTTP.
pub fn date(now: u64) -> String {
    let (week, month, day, year) = calendar(now / 86_400);
    let (h, m, s) = (now / 3600 % 24, now / 60 % 60, now % 60);
    let mut text = format!("{week}, {day:02} {month} {year:04} ");
    // Writing into a string does not fail.
    let _ = write!(text, "{h:02}:{m:02}:{s:02} GMT");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(version: Version, keep_alive: bool, bodiless: bool) -> Way {
        Way {
            bodiless,
            keep_alive,
            version,
            now: Some(1_795_335_319),
        }
    }

    fn shown(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_answer_is_these_bytes() {
        let answer = Response::text(Status::OK, "OK");
        let head = "HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 08:15:19 GMT\r\n\
             Content-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n";
        let (old, new) = (Version::Http10, Version::Http11);
        for (version, keep_alive, bodiless, end) in [
            (new, true, false, "\r\nOK"),
            (new, false, false, "Connection: close\r\n\r\nOK"),
            (old, true, false, "Connection: keep-alive\r\n\r\nOK"),
            (old, false, false, "Connection: close\r\n\r\nOK"),
            (new, true, true, "\r\n"),
            (new, false, true, "Connection: close\r\n\r\n"),
        ] {
            let got = shown(answer.encode(way(version, keep_alive, bodiless)));
            assert_eq!(got, format!("{head}{end}"));
        }
    }

    #[test]
    fn an_answer_without_content_says_nothing_of_it() {
        let answer = Response::text(Status::NO_CONTENT, "never sent");
        let got = shown(answer.encode(Way::last(None)));
        let want = "HTTP/1.1 204 No Content\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n";
        assert_eq!(got, want);
    }

    #[test]
    fn one_whose_end_is_not_known_ends_the_connection() {
        let answer = Response::new(Status::OK, "text/event-stream", "");
        let way = way(Version::Http11, true, false);
        let got = shown(answer.head(way, Length::Unknown));
        assert!(got.contains("Connection: close\r\n"), "{got}");
        assert!(!got.contains("Content-Length"), "{got}");
        let got = shown(answer.head(way, Length::Bytes(7)));
        assert!(got.contains("Content-Length: 7\r\n"), "{got}");
        assert!(!got.contains("Connection"), "{got}");
        assert!(answer.goes_on(way) && !answer.goes_on(way.closing()));
        assert!(!answer.closing().goes_on(way));
    }

    #[test]
    fn an_error_is_text_or_json() {
        let text = Response::error(Status::FORBIDDEN, "no \"key\"", false);
        assert_eq!(text.body, b"no \"key\"\n");
        let json = Response::error(Status::FORBIDDEN, "no \"key\"", true);
        assert_eq!(json.body, b"{\"error\":\"no \\\"key\\\"\"}\n");
        assert_eq!(json.content_type, JSON);
    }

    #[test]
    fn no_value_makes_a_header_of_its_own() {
        let answer = Response::text(Status::OK, "").with("X-Name", "a\r\nSet-Cookie: b\0");
        let got = shown(answer.encode(Way::last(None)));
        assert!(got.contains("X-Name: a  Set-Cookie: b \r\n"), "{got}");
    }

    #[test]
    fn dates() {
        for (now, want) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_827_696, "Tue, 29 Feb 2000 12:34:56 GMT"),
            (4_102_444_799, "Thu, 31 Dec 2099 23:59:59 GMT"),
        ] {
            assert_eq!(date(now), want);
        }
    }
}
