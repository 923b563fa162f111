//! A body that comes in chunks (RFC 9112, 7.1), strictly: a reader that is lenient here is one that takes
//! bytes of a body for the next request. Extensions and trailers are read over.

use super::{MAX_FRAMING, Refusal, Status};

/// Longest line that says how long a chunk is.
const MAX_LINE: usize = 256;

/// How far it was read.
#[derive(Debug, Default)]
pub(super) struct Chunked {
    body: Vec<u8>,
    /// So many bytes were read,
    at: usize,
    /// of which so many were not the body's.
    framing: usize,
    /// So many of this line.
    line: usize,
    next: Next,
}

/// What has to come.
#[derive(Clone, Copy, Debug, Default)]
enum Next {
    /// A digit, or if there was one the end of the line.
    #[default]
    Start,
    Size(usize),
    Extension(usize),
    /// The line feed behind a size.
    SizeEnd(usize),
    Data(usize),
    DataCr,
    DataEnd,
    /// A line of trailers, or the empty one.
    Trailer,
    InTrailer,
    TrailerEnd,
    /// The line feed of the empty line.
    LastEnd,
    Over,
}

impl Chunked {
    /// Reads what there is of it, from its beginning; it may be so long. Is it over? Then so many bytes
    /// were its.
    pub fn read(&mut self, bytes: &[u8], most: usize) -> Result<Option<usize>, Refusal> {
        while let Some((first, _)) = bytes.get(self.at..).and_then(<[u8]>::split_first) {
            match self.next {
                Next::Over => break,
                Next::Data(left) => {
                    let rest = bytes.get(self.at..).unwrap_or_default();
                    let piece = rest.get(..left).unwrap_or(rest);
                    self.body.extend_from_slice(piece);
                    self.at += piece.len();
                    self.next = match left - piece.len() {
                        0 => Next::DataCr,
                        left => Next::Data(left),
                    };
                }
                next => {
                    self.next = self.step(next, *first, most)?;
                    self.at += 1;
                    self.count()?;
                }
            }
        }
        Ok(matches!(self.next, Next::Over).then_some(self.at))
    }

    /// The body, when it is over.
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }

    /// One byte that is not the body's.
    fn step(&mut self, next: Next, b: u8, most: usize) -> Result<Next, Refusal> {
        let text = b == b'\t' || !b.is_ascii_control();
        match (next, b) {
            (Next::Start, _) if b.is_ascii_hexdigit() => self.digit(0, b, most),
            (Next::Size(n), _) if b.is_ascii_hexdigit() => self.digit(n, b, most),
            (Next::Size(n), b';') => Ok(Next::Extension(n)),
            (Next::Size(n) | Next::Extension(n), b'\r') => Ok(Next::SizeEnd(n)),
            (Next::Extension(n), _) if text => Ok(Next::Extension(n)),
            (Next::SizeEnd(0), b'\n') => Ok(Next::Trailer),
            (Next::SizeEnd(n), b'\n') => Ok(Next::Data(n)),
            (Next::DataCr, b'\r') => Ok(Next::DataEnd),
            (Next::DataEnd, b'\n') => Ok(Next::Start),
            (Next::Trailer, b'\r') => Ok(Next::LastEnd),
            (Next::InTrailer, b'\r') => Ok(Next::TrailerEnd),
            (Next::Trailer | Next::InTrailer, _) if text => Ok(Next::InTrailer),
            (Next::TrailerEnd, b'\n') => Ok(Next::Trailer),
            (Next::LastEnd, b'\n') => Ok(Next::Over),
            (_, _) => Err(Refusal::new(
                Status::BAD_REQUEST,
                "the body is not in chunks as it has to be",
            )),
        }
    }

    fn digit(&self, n: usize, b: u8, most: usize) -> Result<Next, Refusal> {
        let digit = char::from(b).to_digit(16).unwrap_or_default();
        let n = n.saturating_mul(16).saturating_add(digit as usize);
        match self.body.len().saturating_add(n) > most {
            true => {
                let why = format!("a body of more than {most} bytes");
                Err(Refusal::new(Status::TOO_LARGE, why))
            }
            false => Ok(Next::Size(n)),
        }
    }

    fn count(&mut self) -> Result<(), Refusal> {
        self.framing += 1;
        self.line = match self.next {
            Next::Size(_) | Next::Extension(_) => self.line + 1,
            _ => 0,
        };
        if self.line > MAX_LINE {
            let why = format!("a chunk's first line of more than {MAX_LINE} bytes");
            return Err(Refusal::new(Status::BAD_REQUEST, why));
        }
        if self.framing > MAX_FRAMING {
            let why = format!("chunks with more than {MAX_FRAMING} bytes beside the body");
            return Err(Refusal::new(Status::TOO_LARGE, why));
        }
        Ok(())
    }
}
