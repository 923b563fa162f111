//! The first line of a request; and whether a first line is one at all: on the control socket it may as
//! well be a verb, typed or sent by our own client.

use super::{MAX_TARGET, Refusal, Status, Version};

/// Longest method that is looked at; the longest registered one has 17 letters.
const MAX_METHOD: usize = 32;
/// Bytes of empty lines that may stand before: clients of old sent one behind a body.
const MAX_BLANK: usize = 8;
const VERSION: &[u8] = b"HTTP/";
/// A line that is longer is none that we would answer.
const MAX_LINE: usize = MAX_METHOD + 1 + MAX_TARGET + 1 + 8;

/// `GET /ecv?x=y HTTP/1.1`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub version: Version,
    /// Where the headers begin.
    pub end: usize,
}

/// Reads it. `None`: it is not whole, and nothing of it is wrong so far.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Line<'_>>, Refusal> {
    let blank = blank(bytes);
    if blank > MAX_BLANK {
        return Err(bad("nothing but empty lines"));
    }
    let rest = bytes.get(blank..).unwrap_or_default();
    if rest == b"\r" {
        return Ok(None);
    }
    if let Some(0x16) = rest.first() {
        return Err(bad("this is TLS; plain HTTP is spoken here"));
    }
    let Some((method, rest)) = word(rest, MAX_METHOD, is_token) else {
        return Ok(None);
    };
    match rest {
        [b' ', ..] if !method.is_empty() && method.len() <= MAX_METHOD => {}
        _ => return Err(bad("the first line does not begin with a method")),
    }
    let Some((target, rest)) = word(tail(rest), MAX_TARGET, |b| b.is_ascii_graphic()) else {
        return Ok(None);
    };
    if target.len() > MAX_TARGET {
        let why = format!("a target of more than {MAX_TARGET} bytes");
        return Err(Refusal::new(Status::TARGET_TOO_LONG, why));
    }
    match rest {
        [b' ', ..] if !target.is_empty() => {}
        [b'\r' | b'\n', ..] => return Err(bad("the first line names no version of HTTP")),
        _ => return Err(bad("a byte in the target that must be percent-encoded")),
    }
    let Some((version, rest)) = version(tail(rest))? else {
        return Ok(None);
    };
    let rest = match rest {
        [b'\n', rest @ ..] | [b'\r', b'\n', rest @ ..] => rest,
        [] | [b'\r'] => return Ok(None),
        _ => {
            return Err(bad(
                "more than method, target and version in the first line",
            ));
        }
    };
    let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
    Ok(Some(Line {
        method: text(method),
        target: text(target),
        version,
        end: bytes.len() - rest.len(),
    }))
}

fn bad(why: &str) -> Refusal {
    Refusal::new(Status::BAD_REQUEST, why)
}

fn tail(bytes: &[u8]) -> &[u8] {
    bytes.get(1..).unwrap_or_default()
}

/// How many bytes of empty lines it begins with; one more than may be is enough to know.
fn blank(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let [b'\n', more @ ..] | [b'\r', b'\n', more @ ..] = rest {
        rest = more;
        if bytes.len() - rest.len() > MAX_BLANK {
            break;
        }
    }
    bytes.len() - rest.len()
}

/// What such bytes make up, and what begins with another. One more than `most` is enough to know.
/// `None`: it may go on.
fn word(bytes: &[u8], most: usize, is: impl Fn(u8) -> bool) -> Option<(&[u8], &[u8])> {
    let seen = bytes.get(..=most).unwrap_or(bytes);
    match seen.iter().position(|b| !is(*b)) {
        Some(end) => bytes.split_at_checked(end),
        None if seen.len() > most => bytes.split_at_checked(seen.len()),
        None => None,
    }
}

fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// `HTTP/1.1`, and what is behind. `None`: it may become one.
fn version(bytes: &[u8]) -> Result<Option<(Version, &[u8])>, Refusal> {
    let whole = bytes.len() >= VERSION.len() + 3;
    let (is, rest) = bytes.split_at_checked(8).unwrap_or((bytes, &[]));
    let fits = is.iter().enumerate().all(|(i, b)| match i {
        5 | 7 => b.is_ascii_digit(),
        6 => *b == b'.',
        _ => VERSION.get(i) == Some(b),
    });
    match is {
        _ if !fits => Err(bad("the first line does not end with a version of HTTP")),
        _ if !whole => Ok(None),
        b"HTTP/1.0" => Ok(Some((Version::Http10, rest))),
        b"HTTP/1.1" => Ok(Some((Version::Http11, rest))),
        [.., b'2', b'.', _] => Err(Refusal::new(
            Status::BAD_VERSION,
            "HTTP/2 is not spoken here; use HTTP/1.1 (curl --http1.1)",
        )),
        _ => {
            let why = "only HTTP/1.0 and HTTP/1.1 are spoken here";
            Err(Refusal::new(Status::BAD_VERSION, why))
        }
    }
}

/// What the first bytes of a connection begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guess {
    /// Cannot be told yet.
    More,
    /// A request of HTTP.
    Http,
    /// Words: a verb, or what another protocol has.
    Words,
}

/// Which of them? Words are known by their first byte, as a rule: no verb is in capitals, and what our
/// client sends begins with a bracket. Only a whole line is HTTP: method, target, version, one space
/// between; so no line that is typed is ever taken for one, unless it is one.
pub fn guess(bytes: &[u8]) -> Guess {
    // What was decided when so many had come is not decided otherwise by more.
    let bytes = bytes.get(..=MAX_LINE).unwrap_or(bytes);
    let (line, whole) = match bytes.iter().position(|b| *b == b'\n') {
        Some(end) => (bytes.get(..end).unwrap_or_default(), true),
        None => (bytes, false),
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match fits(line, whole) {
        false => Guess::Words,
        // The parser says what is wrong with one that never ends.
        true if whole || bytes.len() > MAX_LINE => Guess::Http,
        true => Guess::More,
    }
}

/// Is it a request line, or what one begins with?
fn fits(line: &[u8], whole: bool) -> bool {
    let mut parts = line.splitn(3, |b| *b == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    let capitals = |m: &[u8]| m.iter().all(|b| b.is_ascii_uppercase() || *b == b'-');
    let method = method.is_some_and(|m| m.len() <= MAX_METHOD && capitals(m));
    let ended = version.is_some();
    let target = target.is_none_or(|t| is_target(t, ended));
    let begins = |v: &[u8]| v.iter().zip(VERSION).all(|(is, be)| is == be);
    let rest = |v: &[u8]| {
        let mut more = v.iter().skip(VERSION.len());
        more.all(|b| b.is_ascii_digit() || *b == b'.') && v.len() <= VERSION.len() + 3
    };
    let version =
        version.is_none_or(|v| begins(v) && rest(v) && (!whole || v.len() > VERSION.len()));
    method && target && version && (!whole || ended && !line.starts_with(b" "))
}

/// A path, a URL or an asterisk.
fn is_target(target: &[u8], whole: bool) -> bool {
    let lower = target.to_ascii_lowercase();
    let url = |scheme: &[u8]| match lower.len() < scheme.len() {
        true => !whole && scheme.starts_with(&lower),
        false => lower.starts_with(scheme),
    };
    let graphic = target.iter().all(u8::is_ascii_graphic);
    graphic && (target.starts_with(b"/") || target == b"*" || url(b"http://") || url(b"https://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_decides() {
        for (line, want) in [
            (&b""[..], Guess::More),
            (b"GET", Guess::More),
            (b"GET ", Guess::More),
            (b"GET /ecv HTTP/1.1", Guess::More),
            (b"GET /ecv HTTP/1.1\r", Guess::More),
            (b"GET /ecv HTTP/1.1\r\n", Guess::Http),
            (b"GET /ecv HTTP/1.0\n", Guess::Http),
            (
                b"POST /cli?cmd=resize%202 HTTP/1.1\r\nHost: x\r\n",
                Guess::Http,
            ),
            (b"GET http://localhost/ecv HTTP/1.1\r\n", Guess::Http),
            (b"GET HTTPS://localhost/ HTTP/1.1\r\n", Guess::Http),
            (b"OPTIONS * HTTP/1.1\r\n", Guess::Http),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Guess::Http),
            (b"GET /ecv HTTP/9\r\n", Guess::Http),
            // Typed by somebody.
            (b"s", Guess::Words),
            (b"status\n", Guess::Words),
            (b"\n", Guess::Words),
            (b"\r\n", Guess::Words),
            (b" GET / HTTP/1.1\r\n", Guess::Words),
            (b"resize +1\n", Guess::Words),
            (b"[\"status\"]\n", Guess::Words),
            (b"{\"command\":\"worker:ack\"}\n", Guess::Words),
            (b"---", Guess::More),
            (b"--- %0A", Guess::Words),
            (b"upgrade / HTTP/1.1\n", Guess::Words),
            (b"get / HTTP/1.1\n", Guess::Words),
            (b"start count 2 GET / HTTP/1.1\n", Guess::Words),
            (b"STATUS\n", Guess::Words),
            (b"GET\n", Guess::Words),
            (b"GET /\n", Guess::Words),
            (b"GET / \n", Guess::Words),
            (b"GET / HTTP\n", Guess::Words),
            (b"GET / HTTP/\n", Guess::Words),
            (b"GET / HTTP/1.1 \n", Guess::Words),
            (b"GET / HTTP/1.1 x\n", Guess::Words),
            (b"GET  / HTTP/1.1\n", Guess::Words),
            (b"GET x", Guess::Words),
            (b"GET ht", Guess::More),
            (b"GET hty", Guess::Words),
            (b"GET http HTTP/1.1\n", Guess::Words),
            (b"GET / HTTP/1.1\0\n", Guess::Words),
            (b"\x16\x03\x01", Guess::Words),
            (b"\xff", Guess::Words),
        ] {
            let shown = String::from_utf8_lossy(line);
            assert_eq!(guess(line), want, "{shown:?}");
            // What is decided stays so, and nothing is decided that later bytes decide otherwise.
            for cut in 0..line.len() {
                let before = guess(&line[..cut]);
                assert!(before == Guess::More || before == want, "{shown:?} {cut}");
            }
        }
        let long = [&b"GET /"[..], &vec![b'a'; MAX_LINE]].concat();
        assert_eq!(guess(&long), Guess::Http);
        assert_eq!(guess(&[b'A'; MAX_METHOD + 1]), Guess::Words);
    }

    #[test]
    fn no_verb_is_ever_taken_for_it() {
        for verb in &crate::verbs::VERBS {
            let line = format!("{} / HTTP/1.1\r\n", verb.name);
            assert_eq!(guess(line.as_bytes()), Guess::Words, "{line}");
        }
    }
}
