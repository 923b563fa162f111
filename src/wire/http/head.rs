//! What a head says, of all that concerns us; and how long the body is, where two readers might differ.

use super::line::Line;
use super::parser::too_long;
use super::target::{self, is_host};
use super::{MAX_BODY, MAX_HEADERS, Refusal, Status};
use crate::wire::key::Secret;
use httparse::Header;
use serde::{Deserialize, Serialize};

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    /// None that anything here answers.
    Other,
}

/// Which HTTP the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Version {
    Http10,
    Http11,
}

/// What a head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub method: Method,
    pub version: Version,
    /// Decoded, and otherwise as it came.
    pub path: String,
    /// Decoded, without the key.
    pub query: Vec<(String, String)>,
    /// Whom the client thinks it speaks to: that of a URL, else that of the header.
    pub host: Option<String>,
    /// Of which page the request is, if a browser made it.
    pub origin: Option<String>,
    /// The key, as the client has it: of `Authorization: Bearer`, else of `accessKey`.
    pub key: Option<Secret>,
    /// Does the client want JSON rather than text?
    pub json: bool,
    /// Or is it a browser that would show a page?
    pub html: bool,
    /// What the body is.
    pub content_type: Option<String>,
    pub range: Option<String>,
    pub last_event_id: Option<String>,
    /// May another request follow?
    pub keep_alive: bool,
    /// Is there a body, maybe an empty one?
    pub has_body: bool,
}

impl Head {
    /// The first value of a parameter.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        let mut all = self.query.iter();
        all.find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// Is it asked for, as `?async=1`, `?async=true` or `?async`?
    pub fn flag(&self, name: &str) -> bool {
        self.parameter(name)
            .is_some_and(|v| matches!(v, "" | "1" | "true" | "yes"))
    }
}

/// How the end of the body is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
}

/// A head that is whole.
#[derive(Debug)]
pub(super) struct Whole {
    pub head: Head,
    pub framing: Framing,
    /// Is the client told to go on before it sends the body?
    pub expects: bool,
}

fn bad(why: &str) -> Refusal {
    Refusal::new(Status::BAD_REQUEST, why)
}

/// Reads the headers, which are all of `bytes`, empty line included.
pub(super) fn read(line: &Line, bytes: &[u8]) -> Result<Whole, Refusal> {
    let mut room = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let headers = match httparse::parse_headers(bytes, &mut room) {
        Ok(httparse::Status::Complete((used, headers))) if used == bytes.len() => headers,
        Ok(_) => return Err(bad("the headers do not end where they seem to")),
        Err(httparse::Error::TooManyHeaders) => {
            let why = format!("more than {MAX_HEADERS} headers");
            return Err(Refusal::new(Status::HEAD_TOO_LARGE, why));
        }
        // A continued line, a blank before the colon, a bare CR, a NUL.
        Err(_) => return Err(bad("a header that is none")),
    };
    let headers = Headers(headers);
    let target = target::parse(line.target)?;
    let (framing, has_body) = framing(&headers, line.version)?;
    let host = host(&headers, line.version)?;
    let mut query = target.query;
    let key = key(&headers, &mut query)?;
    let expects = expects(&headers, line.version)?;
    let text = |name| headers.first(name).map(String::from);
    Ok(Whole {
        head: Head {
            method: match line.method {
                "GET" => Method::Get,
                "HEAD" => Method::Head,
                "POST" => Method::Post,
                _ => Method::Other,
            },
            version: line.version,
            path: target.path,
            query,
            host: target.host.or(host),
            origin: text("origin"),
            key,
            json: headers.first("accept").is_some_and(wants_json),
            html: headers.first("accept").is_some_and(wants_html),
            content_type: text("content-type"),
            // Of a file that it has a part of already, if that is the same: we cannot know.
            range: text("range").filter(|_| headers.first("if-range").is_none()),
            last_event_id: text("last-event-id"),
            keep_alive: keep_alive(&headers, line.version),
            has_body,
        },
        framing,
        expects,
    })
}

/// By their names, in any case.
struct Headers<'a>(&'a [Header<'a>]);

impl<'a> Headers<'a> {
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        let named = self
            .0
            .iter()
            .filter(move |h| h.name.eq_ignore_ascii_case(name));
        named.map(|h| h.value.trim_ascii())
    }

    /// The first one, if it is text.
    fn first(&self, name: &'static str) -> Option<&'a str> {
        std::str::from_utf8(self.all(name).next()?).ok()
    }

    /// The only one. `Err`: there are several, or it is no text.
    fn only(&self, name: &'static str) -> Result<Option<&'a str>, ()> {
        let mut all = self.all(name);
        match (all.next(), all.next()) {
            (None, _) => Ok(None),
            (Some(value), None) if value.is_ascii() => Ok(std::str::from_utf8(value).ok()),
            (Some(_), _) => Err(()),
        }
    }

    /// What a list holds, over all of its headers.
    fn words(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        let items = self.all(name).flat_map(|v| v.split(|b| *b == b','));
        items.map(<[u8]>::trim_ascii).filter(|w| !w.is_empty())
    }
}

/// RFC 9112, 6.3, without its leniency: what says two things is refused, also if they are the same.
fn framing(headers: &Headers, version: Version) -> Result<(Framing, bool), Refusal> {
    let lengths = headers.only("content-length");
    let coded = headers.all("transfer-encoding").next().is_some();
    match (lengths, coded) {
        (Err(()), _) => Err(bad("more than one Content-Length")),
        (Ok(Some(_)), true) => Err(bad("both Content-Length and Transfer-Encoding")),
        (Ok(None), true) => coding(headers, version).map(|f| (f, true)),
        (Ok(Some(length)), false) => length_of(length).map(|n| (Framing::Length(n), true)),
        // As curl -X POST sends it: there is no body.
        (Ok(None), false) => Ok((Framing::Length(0), false)),
    }
}

fn length_of(text: &str) -> Result<usize, Refusal> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad("a Content-Length that is no number"));
    }
    // What is no number after that is too large for one.
    match text.parse::<usize>() {
        Ok(n) if n <= MAX_BODY => Ok(n),
        _ => Err(too_long(text.get(..24).unwrap_or(text), MAX_BODY)),
    }
}

fn coding(headers: &Headers, version: Version) -> Result<Framing, Refusal> {
    if version == Version::Http10 {
        return Err(bad("Transfer-Encoding in HTTP/1.0"));
    }
    let mut words = headers.words("transfer-encoding");
    let chunked = |w: &[u8]| w.eq_ignore_ascii_case(b"chunked");
    match (words.next(), words.next()) {
        (Some(word), None) if chunked(word) => Ok(Framing::Chunked),
        (None, _) => Err(bad("an empty Transfer-Encoding")),
        (Some(word), Some(_)) if chunked(word) => Err(bad("chunked is not the last coding")),
        (Some(_), _) => {
            let why = "no Transfer-Encoding but chunked is understood";
            Err(Refusal::new(Status::NOT_IMPLEMENTED, why))
        }
    }
}

fn host(headers: &Headers, version: Version) -> Result<Option<String>, Refusal> {
    match (headers.only("host"), version) {
        (Err(()), _) => Err(bad("more than one Host, or one that is none")),
        (Ok(None), Version::Http11) => Err(bad("no Host")),
        (Ok(None), Version::Http10) => Ok(None),
        (Ok(Some(host)), _) if is_host(host) => Ok(Some(host.to_string())),
        (Ok(Some(_)), _) => Err(bad("a Host that is none")),
    }
}

/// Taken out of where it stands.
fn key(headers: &Headers, query: &mut Vec<(String, String)>) -> Result<Option<Secret>, Refusal> {
    let mut keys = Vec::new();
    query.retain(|(name, value)| match name == "accessKey" {
        true => {
            keys.push(Secret::new(value));
            false
        }
        false => true,
    });
    let header = match headers.only("authorization") {
        Ok(header) => header.and_then(bearer),
        Err(()) => return Err(bad("more than one Authorization, or one that is none")),
    };
    match (header, keys.pop(), keys.pop()) {
        (_, _, Some(_)) => Err(bad("more than one accessKey")),
        (Some(key), _, None) => Ok(Some(key)),
        (None, key, None) => Ok(key),
    }
}

/// Other schemes present no key.
fn bearer(value: &str) -> Option<Secret> {
    let (scheme, key) = value.split_once(' ')?;
    let is = scheme.eq_ignore_ascii_case("bearer");
    is.then(|| Secret::new(key.trim_ascii()))
}

fn expects(headers: &Headers, version: Version) -> Result<bool, Refusal> {
    let mut words = headers.words("expect");
    match (version, words.next(), words.next()) {
        (Version::Http10, _, _) | (_, None, _) => Ok(false),
        (_, Some(word), None) if word.eq_ignore_ascii_case(b"100-continue") => Ok(true),
        (_, Some(_), _) => {
            let why = "nothing but 100-continue can be expected";
            Err(Refusal::new(Status::EXPECTATION_FAILED, why))
        }
    }
}

fn keep_alive(headers: &Headers, version: Version) -> bool {
    let says = |what: &[u8]| {
        let mut words = headers.words("connection");
        words.any(|w| w.eq_ignore_ascii_case(what))
    };
    match version {
        Version::Http11 => !says(b"close"),
        Version::Http10 => says(b"keep-alive") && !says(b"close"),
    }
}

/// The media types that are named, in order and without their parameters. Not those that are refused, by a weight of
/// nothing: q=0, or 0.0 and so on.
fn named(accept: &str) -> impl Iterator<Item = String> {
    accept.split(',').filter_map(|k| {
        let k = k.to_ascii_lowercase().replace([' ', '\t'], "");
        let (kind, rest) = k.split_once(';').unwrap_or((&k, ""));
        let mut weights = rest.split(';').filter_map(|p| p.strip_prefix("q="));
        let refused = weights.any(|q| q.starts_with('0') && q.bytes().all(|b| b"0.".contains(&b)));
        (!refused).then(|| kind.to_string())
    })
}

/// A page is named, and JSON not before it.
fn wants_html(accept: &str) -> bool {
    !wants_json(accept) && named(accept).any(|k| k == "text/html")
}

/// JSON is named, and nothing for the eyes before it.
fn wants_json(accept: &str) -> bool {
    let first = named(accept).find(|k| k.ends_with("json") || k.starts_with("text/"));
    first.is_some_and(|k| k.ends_with("json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_wanted_where_it_is_named_first() {
        for (accept, want) in [
            ("", false),
            ("*/*", false),
            ("application/json", true),
            ("text/json", true),
            ("application/problem+json", true),
            ("application/json, text/html", true),
            ("text/html, application/json", false),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                false,
            ),
            ("*/*, Application/JSON;q=0.5", true),
            ("application/json;q=0, text/plain", false),
            ("application/json; q=0, application/ld+json", true),
            ("application/json;v=1; Q=0.000, text/plain", false),
            ("application/json;q=0.001", true),
        ] {
            assert_eq!(wants_json(accept), want, "{accept}");
            let page = accept.contains("text/html") && !want;
            assert_eq!(wants_html(accept), page, "{accept}");
        }
        for refused in ["text/html;q=0", "text/html ; q=0.00, */*", "text/htmlx"] {
            assert!(!wants_html(refused), "{refused}");
        }
    }
}
