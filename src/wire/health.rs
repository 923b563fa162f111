//! The one request that we make of a server (--ready http:/PATH, --ecv-monitor), and the status of its
//! answer.

/// More of an answer than that is not read.
pub const MOST: usize = 16 * 1024;
/// What the answer is, as far as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The status is still to come.
    More,
    /// This, of the final answer.
    Status(u16),
    /// It is no HTTP.
    Bad,
}

/// Asks that server for it, in a format that we would like to have.
pub fn request(host: &str, path: &str, accept: &str) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: minicluster/{version}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    );
    head.into_bytes()
}

/// Reads it. Answers that are not the final one (100 Continue, 103 Early Hints) are passed over.
pub fn parse(mut bytes: &[u8]) -> Answer {
    let whole = bytes.len() >= MOST;
    loop {
        let more = if whole { Answer::Bad } else { Answer::More };
        let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
        if line.len() == bytes.len() {
            return match could_be_a_status(bytes) {
                true => more,
                false => Answer::Bad,
            };
        }
        match status(line) {
            None => return Answer::Bad,
            Some(100..=199) => {}
            Some(code) => return Answer::Status(code),
        }
        let head = bytes.windows(END.len()).position(|w| w == END);
        match head.and_then(|head| bytes.get(head + END.len()..)) {
            Some(rest) => bytes = rest,
            None => return more,
        }
    }
}

const VERSION: &[u8] = b"HTTP/1.";
const END: &[u8] = b"\r\n\r\n";

/// What there is of a line that is not whole.
fn could_be_a_status(bytes: &[u8]) -> bool {
    bytes.iter().zip(VERSION).all(|(is, be)| is == be)
}

/// `HTTP/1.1 200 OK`, without its line feed.
fn status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_suffix(b"\r")?.strip_prefix(VERSION)?;
    let (minor, rest) = rest.split_first()?;
    let rest = rest.strip_prefix(b" ")?;
    let (code, reason) = rest.split_at_checked(3)?;
    let text = |b: &u8| *b == b'\t' || !b.is_ascii_control();
    let fine = matches!(minor, b'0' | b'1')
        && code.iter().all(u8::is_ascii_digit)
        && reason.first().is_none_or(|b| *b == b' ')
        && reason.iter().all(text);
    let number = code
        .iter()
        .fold(0, |n: u16, b| n * 10 + u16::from(b.wrapping_sub(b'0')));
    (fine && (100..=599).contains(&number)).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_that_of_the_final_answer() {
        for (text, want) in [
            ("HTTP/1.1 200 OK\r\n", Answer::Status(200)),
            (
                "HTTP/1.0 404 Not Found\r\nA: b\r\n\r\nbody",
                Answer::Status(404),
            ),
            ("HTTP/1.1 503\r\n", Answer::Status(503)),
            ("HTTP/1.1 302 \r\n", Answer::Status(302)),
            ("HTTP/1.1 200 \u{e9}\r\n", Answer::Status(200)),
            (
                "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 204 No\r\n",
                Answer::Status(204),
            ),
            ("HTTP/1.1 100 Continue\r\n\r\n", Answer::More),
            ("HTTP/1.1 100 Continue\r\nA: b\r\n", Answer::More),
            ("", Answer::More),
            ("HTT", Answer::More),
            ("HTTP/1.1 200 OK", Answer::More),
            ("HTTP/1.1 200 OK\n", Answer::Bad),
            ("HTTP/2 200\r\n", Answer::Bad),
            ("HTTP/1.2 200 OK\r\n", Answer::Bad),
            ("HTTP/1.1  200 OK\r\n", Answer::Bad),
            ("HTTP/1.1 20 OK\r\n", Answer::Bad),
            ("HTTP/1.1 2000\r\n", Answer::Bad),
            ("HTTP/1.1 +20 OK\r\n", Answer::Bad),
            ("HTTP/1.1 600 OK\r\n", Answer::Bad),
            ("HTTP/1.1 099 OK\r\n", Answer::Bad),
            ("HTTP/1.1 200 a\u{0}b\r\n", Answer::Bad),
            ("\r\nHTTP/1.1 200 OK\r\n", Answer::Bad),
            ("SSH-2.0-OpenSSH\r\n", Answer::Bad),
            ("SSH", Answer::Bad),
        ] {
            assert_eq!(parse(text.as_bytes()), want, "{text:?}");
        }
        let endless = format!("HTTP/1.1 200 {}", "a".repeat(MOST));
        assert_eq!(parse(endless.as_bytes()), Answer::Bad);
        let hints = format!("HTTP/1.1 103 A\r\nA: {}", "a".repeat(MOST));
        assert_eq!(parse(hints.as_bytes()), Answer::Bad);
    }

    #[test]
    fn whatever_comes_is_read_without_a_panic() {
        let mut rng = crate::core::respawn::Rng::new(7);
        let pieces: [&[u8]; 8] = [
            b"HTTP/1.1 ",
            b"100 A",
            b"200",
            b"\r\n",
            b"\n",
            b"\r\n\r\n",
            b"\xff",
            b" ",
        ];
        for _ in 0..20_000 {
            let mut all = Vec::new();
            for _ in 0..(rng.unit() * 9.0) as usize {
                all.extend(pieces[(rng.unit() * 8.0) as usize]);
            }
            let whole = parse(&all);
            // More of it never takes back what is known.
            if let Answer::Status(_) = parse(&all[..all.len() / 2]) {
                assert_eq!(parse(&all[..all.len() / 2]), whole);
            }
        }
    }

    #[test]
    fn what_is_asked_for_names_the_server_and_ends_the_connection() {
        let text = String::from_utf8(request("localhost:80", "/health", "*/*")).unwrap();
        assert!(text.starts_with("GET /health HTTP/1.1\r\nHost: localhost:80\r\n"));
        assert!(text.contains("\r\nAccept: */*\r\n"));
        assert!(text.ends_with("\r\nConnection: close\r\n\r\n"));
    }
}
