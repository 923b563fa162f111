//! A request out of the bytes that have come so far. The caller keeps them in one buffer that grows; the
//! parser remembers how far it has looked, so that a client that sends them one by one costs no more.

use super::chunked::Chunked;
use super::head::{self, Framing, Head};
use super::{MAX_BODY, MAX_HEAD, Status, line};
use std::fmt::Display;

/// How far a request has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    More,
    /// More are needed, and the client waits for `CONTINUE` before it sends them; said once.
    Continue100,
    /// It is whole.
    Request(Box<Request>),
    /// It is refused; what comes after it cannot be understood, so the connection ends with the answer.
    Refused(Refusal),
}

/// A whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub head: Head,
    /// Decoded.
    pub body: Vec<u8>,
    /// So many bytes of the buffer were its; the next one begins behind.
    pub used: usize,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: Status,
    pub why: String,
}

impl Refusal {
    pub(super) fn new(status: Status, why: impl Into<String>) -> Refusal {
        let why = why.into();
        Refusal { status, why }
    }
}

/// Reads one request after the other.
#[derive(Debug, Default)]
pub struct Parser {
    /// Where the headers begin, once the first line is whole.
    headers: Option<usize>,
    /// Up to here the head has no end.
    searched: usize,
    open: Option<Open>,
    /// Said again if asked again.
    refused: Option<Refusal>,
}

/// A request whose head is whole.
#[derive(Debug)]
struct Open {
    head: Head,
    /// Where its body begins.
    from: usize,
    body: Body,
    /// Does the client wait, and has not been told?
    waits: bool,
    /// So long may the body be.
    most: usize,
}

#[derive(Debug)]
enum Body {
    Length(usize),
    Chunked(Chunked),
}

impl Parser {
    /// Looks at all bytes that came since the request before. After `Request` take `used` bytes out of
    /// the buffer and ask again: there may be another one.
    pub fn parse(&mut self, buffer: &[u8]) -> Progress {
        match self.look(buffer) {
            Err(refusal) => Progress::Refused(refusal),
            Ok(None) => Progress::More,
            Ok(Some(_)) => {
                let step = self.read_body(buffer);
                step.unwrap_or_else(|refusal| Progress::Refused(self.refuse(refusal)))
            }
        }
    }

    /// Looks at them for a head alone, and leaves what is behind it: whether the request may have a body
    /// is to be decided now, not when it has all come.
    pub fn look(&mut self, buffer: &[u8]) -> Result<Option<&Head>, Refusal> {
        if let Some(refusal) = &self.refused {
            return Err(refusal.clone());
        }
        if self.open.is_none() {
            let head = self.read_head(buffer);
            self.open = head.map_err(|refusal| self.refuse(refusal))?;
        }
        Ok(self.head())
    }

    /// The head of the request whose body is being waited for.
    pub fn head(&self) -> Option<&Head> {
        self.open.as_ref().map(|o| &o.head)
    }

    fn refuse(&mut self, refusal: Refusal) -> Refusal {
        self.refused = Some(refusal.clone());
        refusal
    }

    /// The body that is being waited for may only be so long: what the door lets in decides that.
    pub fn limit_body(&mut self, most: usize) {
        if let Some(open) = &mut self.open {
            open.most = most;
        }
    }

    fn read_body(&mut self, buffer: &[u8]) -> Result<Progress, Refusal> {
        let Some(mut open) = self.open.take() else {
            return Ok(Progress::More);
        };
        let sent = buffer.get(open.from..).unwrap_or_default();
        let end = match &mut open.body {
            Body::Length(n) if *n > open.most => return Err(too_long(*n, open.most)),
            Body::Length(n) => (sent.len() >= *n).then_some(*n),
            Body::Chunked(chunked) => chunked.read(sent, open.most)?,
        };
        if let Some(length) = end {
            let used = open.from + length;
            let body = match open.body {
                Body::Length(n) => sent.get(..n).unwrap_or_default().to_vec(),
                Body::Chunked(chunked) => chunked.into_body(),
            };
            *self = Parser::default();
            let head = open.head;
            return Ok(Progress::Request(Box::new(Request { head, body, used })));
        }
        // Who has begun to send it does not wait.
        let tell = std::mem::take(&mut open.waits) && sent.is_empty();
        self.open = Some(open);
        Ok(match tell {
            true => Progress::Continue100,
            false => Progress::More,
        })
    }

    fn read_head(&mut self, buffer: &[u8]) -> Result<Option<Open>, Refusal> {
        let window = buffer.get(..MAX_HEAD).unwrap_or(buffer);
        if self.headers.is_none() {
            self.headers = line::parse(window)?.map(|l| l.end);
        }
        let Some(headers) = self.headers else {
            return Ok(None);
        };
        // From the line feed of the first line on: it may be followed by the empty one.
        let from = self.searched.max(headers.saturating_sub(1));
        let Some(end) = end_of_head(window, from) else {
            self.searched = window.len().saturating_sub(2);
            return match window.len() < MAX_HEAD {
                true => Ok(None),
                false => {
                    let why = format!("a head of more than {MAX_HEAD} bytes");
                    Err(Refusal::new(Status::HEAD_TOO_LARGE, why))
                }
            };
        };
        let Some(line) = line::parse(window)? else {
            return Ok(None);
        };
        let whole = head::read(&line, window.get(headers..end).unwrap_or_default())?;
        Ok(Some(Open {
            head: whole.head,
            from: end,
            body: match whole.framing {
                Framing::Length(n) => Body::Length(n),
                Framing::Chunked => Body::Chunked(Chunked::default()),
            },
            waits: whole.expects,
            most: MAX_BODY,
        }))
    }
}

pub(super) fn too_long(length: impl Display, most: usize) -> Refusal {
    let why = format!("a body of {length} bytes (limit {most})");
    Refusal::new(Status::TOO_LARGE, why)
}

/// Behind the first empty line. A line may end with a line feed alone, as RFC 9112, 2.2 allows.
fn end_of_head(bytes: &[u8], from: usize) -> Option<usize> {
    let feeds = bytes.iter().enumerate().skip(from);
    feeds
        .filter(|(_, b)| **b == b'\n')
        .find_map(|(at, _)| match bytes.get(at + 1..)? {
            [b'\n', ..] => Some(at + 2),
            [b'\r', b'\n', ..] => Some(at + 3),
            _ => None,
        })
}
