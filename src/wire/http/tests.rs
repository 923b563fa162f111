//! What is understood, and every way known to us in which a request can be doubtful, broken or hostile.

use super::*;

fn once(bytes: &[u8]) -> Progress {
    Parser::default().parse(bytes)
}

/// The same, byte by byte; the first that is not `More` counts.
fn drip(bytes: &[u8]) -> Progress {
    let mut parser = Parser::default();
    for end in 1..=bytes.len() {
        match parser.parse(&bytes[..end]) {
            Progress::More | Progress::Continue100 => {}
            done => return done,
        }
    }
    Progress::More
}

fn request(bytes: &[u8]) -> Request {
    let shown = String::from_utf8_lossy(bytes);
    match once(bytes) {
        Progress::Request(r) => {
            assert_eq!(drip(bytes), Progress::Request(r.clone()), "{shown}");
            *r
        }
        other => panic!("{shown}: {other:?}"),
    }
}

fn get(headers: &str) -> Request {
    request(format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n").as_bytes())
}

#[test]
fn a_request_is_understood() {
    let bytes = b"POST /cli?cmd=resize%202&accessKey=hunter2 HTTP/1.1\r\nHost: localhost:9000\r\n\
        Accept: application/json\r\ncontent-LENGTH: 3\r\nContent-Type: text/plain\r\n\
        Origin: http://evil\r\nRange: bytes=0-\r\nLast-Event-ID: 7\r\n\r\nabcGET";
    let Request { head, body, used } = request(bytes);
    assert_eq!((head.method, head.version), (Method::Post, Version::Http11));
    assert_eq!(head.path, "/cli");
    assert_eq!(head.parameter("cmd"), Some("resize 2"));
    assert_eq!(head.parameter("accessKey"), None);
    assert_eq!(head.key, Some(crate::wire::key::Secret::new("hunter2")));
    assert_eq!(head.host.as_deref(), Some("localhost:9000"));
    assert_eq!(head.origin.as_deref(), Some("http://evil"));
    assert_eq!(head.content_type.as_deref(), Some("text/plain"));
    assert_eq!(head.range.as_deref(), Some("bytes=0-"));
    assert_eq!(head.last_event_id.as_deref(), Some("7"));
    assert!(head.json && head.keep_alive && head.has_body);
    assert_eq!(body, b"abc");
    assert_eq!(used, bytes.len() - 3);
    assert!(!format!("{head:?}").contains("hunter2"));
}

#[test]
fn keys_are_found_where_they_may_be() {
    let secret = |text: &str| Some(crate::wire::key::Secret::new(text));
    let of = |target: &str, headers: &str| {
        request(format!("GET {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n").as_bytes())
            .head
            .key
    };
    assert_eq!(of("/", ""), None);
    assert_eq!(of("/?accessKey=a%2Bb", ""), secret("a+b"));
    assert_eq!(of("/?accessKey", ""), secret(""));
    assert_eq!(of("/?accesskey=a&AccessKey=b", ""), None);
    assert_eq!(of("/", "Authorization: Bearer k\r\n"), secret("k"));
    assert_eq!(of("/", "authorization: bearer  k \r\n"), secret("k"));
    assert_eq!(
        of("/?accessKey=a", "Authorization: Bearer k\r\n"),
        secret("k")
    );
    assert_eq!(
        of("/?accessKey=a", "Authorization: Basic eDp5\r\n"),
        secret("a")
    );
    for other in ["Basic eDp5", "Bearer", "k", "", "Bearerk"] {
        assert_eq!(of("/", &format!("Authorization: {other}\r\n")), None);
    }
}

#[test]
fn connections_go_on_as_each_version_has_it() {
    for (version, connection, want) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: Close\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: upgrade\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\n", true),
        ("1.0", "Connection: Keep-Alive , x\r\n", true),
        (
            "1.0",
            "Connection: keep-alive\r\nConnection: close\r\n",
            false,
        ),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: h\r\n{connection}\r\n");
        let got = request(text.as_bytes()).head.keep_alive;
        assert_eq!(got, want, "{text}");
    }
}

#[test]
fn methods_versions_and_line_ends() {
    for (line, method) in [
        ("GET / HTTP/1.1", Method::Get),
        ("HEAD / HTTP/1.1", Method::Head),
        ("POST / HTTP/1.1", Method::Post),
        ("OPTIONS * HTTP/1.1", Method::Other),
        ("get / HTTP/1.1", Method::Other),
        ("M-SEARCH / HTTP/1.1", Method::Other),
    ] {
        let got = request(format!("{line}\r\nHost: h\r\n\r\n").as_bytes());
        assert_eq!(got.head.method, method, "{line}");
    }
    // As typed, and behind the empty line that clients of old sent.
    for text in [
        "GET / HTTP/1.0\n\n",
        "GET / HTTP/1.0\r\n\n",
        "GET / HTTP/1.0\n\r\n",
        "\r\nGET / HTTP/1.0\r\n\r\n",
        "\n\n\r\nGET / HTTP/1.0\nHost: h\n\n",
    ] {
        let got = request(text.as_bytes());
        assert_eq!(got.used, text.len(), "{text:?}");
    }
    assert_eq!(get("").head.host.as_deref(), Some("h"));
    let url = request(b"GET http://other:1/x HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(url.head.host.as_deref(), Some("other:1"));
    assert_eq!(
        request(b"GET / HTTP/1.1\r\nHost:\r\n\r\n")
            .head
            .host
            .as_deref(),
        Some("")
    );
}

#[test]
fn requests_that_follow_each_other_are_told_apart() {
    let text = "GET /1 HTTP/1.1\r\nHost: h\r\n\r\nPOST /2 HTTP/1.1\r\nHost: h\r\n\
        Content-Length: 3\r\n\r\nGETPOST /3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
        3;x=\"y\"\r\nabc\r\n0001\r\nd\r\n0\r\nTrailer: x\r\n\r\nGET /4 HTTP/1.1\r\nHost: h\r\n\r\n";
    let (mut parser, mut rest) = (Parser::default(), text.as_bytes());
    let mut got = Vec::new();
    while let Progress::Request(r) = parser.parse(rest) {
        rest = &rest[r.used..];
        got.push((r.head.path, String::from_utf8(r.body).unwrap()));
    }
    let want = [("/1", ""), ("/2", "GET"), ("/3", "abcd"), ("/4", "")];
    assert_eq!(got, want.map(|(p, b)| (p.to_string(), b.to_string())));
    assert!(rest.is_empty());
}

#[test]
fn a_client_that_waits_is_told_once_and_its_head_is_shown() {
    let head =
        "POST /send HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n";
    let mut parser = Parser::default();
    assert!(parser.head().is_none());
    assert_eq!(parser.parse(head.as_bytes()), Progress::Continue100);
    assert_eq!(parser.head().map(|h| h.path.as_str()), Some("/send"));
    assert_eq!(parser.parse(head.as_bytes()), Progress::More);
    let whole = format!("{head}{{}}");
    assert!(matches!(parser.parse(whole.as_bytes()), Progress::Request(r) if r.body == b"{}"));
    assert!(parser.head().is_none());
    // Who does not wait is not told.
    let mut parser = Parser::default();
    assert_eq!(parser.parse(format!("{head}{{").as_bytes()), Progress::More);
    for none in [
        "GET / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nExpect: 100-continue\r\n\r\n",
    ] {
        assert!(
            matches!(once(none.as_bytes()), Progress::Request(_)),
            "{none}"
        );
    }
    let old = "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    assert_eq!(once(old.as_bytes()), Progress::More);
}

/// Everything refused, by status: what is put into `GET / HTTP/1.1\r\nHost: h\r\n..\r\n`.
#[test]
fn doubtful_headers_are_refused() {
    let many = "X: y\r\n".repeat(64);
    let long = format!("X: {}\r\n", "y".repeat(MAX_HEAD));
    for (status, headers) in [
        (400, "Host: h\r\n"),
        (400, "host: i\r\n"),
        (400, "Content-Length: 0\r\nContent-Length: 0\r\n"),
        (400, "Content-Length: 1\r\nContent-Length: 2\r\n"),
        (400, "Content-Length: 1, 1\r\n"),
        (400, "Content-Length: +1\r\n"),
        (400, "Content-Length: -1\r\n"),
        (400, "Content-Length: 0x1\r\n"),
        (400, "Content-Length: 1 1\r\n"),
        (400, "Content-Length: 1e3\r\n"),
        (400, "Content-Length:\r\n"),
        (400, "Content-Length: \u{661}\r\n"),
        (413, "Content-Length: 1048577\r\n"),
        (413, "Content-Length: 99999999999999999999999999999\r\n"),
        (413, "Content-Length: 18446744073709551616\r\n"),
        (400, "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n"),
        (400, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        (
            400,
            "Content-Length: 0\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        ),
        (400, "Transfer-Encoding:\r\n"),
        (400, "Transfer-Encoding: chunked, chunked\r\n"),
        (
            400,
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ),
        (400, "Transfer-Encoding: chunked, gzip\r\n"),
        (501, "Transfer-Encoding: gzip, chunked\r\n"),
        (501, "Transfer-Encoding: gzip\r\n"),
        (501, "Transfer-Encoding: identity\r\n"),
        (501, "Transfer-Encoding: xchunked\r\n"),
        (501, "Transfer-Encoding: \u{e9}chunked\r\n"),
        (501, "Transfer-Encoding: chunked;x=y\r\n"),
        (400, "Transfer-Encoding : chunked\r\n"),
        (400, "Content-Length : 5\r\n"),
        (400, " Content-Length: 5\r\n"),
        (400, "X: y\r\n continued\r\n"),
        (400, "X: y\r\n\tcontinued\r\n"),
        (400, "X: a\rb\r\n"),
        (400, "X: a\r\r\n"),
        (400, "X: a\0b\r\n"),
        (400, "X: a\x08b\r\n"),
        (400, "X: a\x7fb\r\n"),
        (400, "X\0: a\r\n"),
        (400, "X y: a\r\n"),
        (400, "X(): a\r\n"),
        (400, "\u{e9}: a\r\n"),
        (400, ": a\r\n"),
        (400, "no colon\r\n"),
        (
            400,
            "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
        ),
        (400, "Authorization: Bearer \u{e9}\r\n"),
        (417, "Expect: tea\r\n"),
        (417, "Expect: 100-continue, tea\r\n"),
        (431, &many),
        (431, &long),
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        refused(status, text.as_bytes());
    }
    let fine = get(&"X: y\r\n".repeat(63));
    assert!(!fine.head.has_body);
}

fn refused(status: u16, bytes: &[u8]) {
    let shown = String::from_utf8_lossy(bytes.get(..120).unwrap_or(bytes));
    let Progress::Refused(refusal) = once(bytes) else {
        panic!("{shown:?} is not refused");
    };
    assert_eq!(refusal.status.0, status, "{shown:?}: {}", refusal.why);
    assert!(!refusal.why.is_empty() && refusal.why.len() < 120);
    assert_eq!(drip(bytes), Progress::Refused(refusal), "{shown:?}");
}

#[test]
fn doubtful_requests_are_refused() {
    let target = |n: usize| format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(n - 1));
    let endless = format!("GET /{}", "a".repeat(MAX_TARGET));
    let blank = "\r\n".repeat(5);
    for (status, text) in [
        (400, "GET / HTTP/1.1\r\n\r\n"),
        (400, "GET http://h/ HTTP/1.1\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: u@h\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: h/x\r\n\r\n"),
        (400, "GET / HTTP/1.1\r\nHost: h,i\r\n\r\n"),
        (400, "GET / HTTP/1.0\r\nHost: h\r\nHost: h\r\n\r\n"),
        (400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        (400, "GET /\r\n"),
        (400, "GET / \r\n"),
        (400, "GET  / HTTP/1.1\r\n"),
        (400, "GET /  HTTP/1.1\r\n"),
        (400, "GET / HTTP/1.1 \r\n"),
        (400, "GET / HTTP/1.1\rX"),
        (400, "GET /\tHTTP/1.1\r\n"),
        (400, "GET\t/ HTTP/1.1\r\n"),
        (400, " GET / HTTP/1.1\r\n"),
        (400, "GET / http/1.1\r\n"),
        (400, "GET / HTTP/11\r\n"),
        (400, "GET / HTTP/1,1\r\n"),
        (400, "GET / HTTP/x.1\r\n"),
        (400, "GET / HTCPCP/1.0\r\n"),
        (400, "GET /\u{e9} HTTP/1.1\r\n"),
        (400, "GET /\0 HTTP/1.1\r\n"),
        (400, "GET /a\rb HTTP/1.1\r\n"),
        (400, "G\0T / HTTP/1.1\r\n"),
        (400, "G\u{e9}T / HTTP/1.1\r\n"),
        (400, "(GET) / HTTP/1.1\r\n"),
        (400, "GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n"),
        (400, "GET /#x HTTP/1.1\r\nHost: h\r\n\r\n"),
        (400, "CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n"),
        (
            400,
            "GET /?accessKey=a&accessKey=a HTTP/1.1\r\nHost: h\r\n\r\n",
        ),
        (400, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        (400, "\x16\x03\x01\x02\0\x01\0"),
        (400, "{\"cmd\":1}\n"),
        (400, &blank),
        (505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (505, "GET / HTTP/2.0\r\n"),
        (505, "GET / HTTP/3.0\r\n"),
        (505, "GET / HTTP/0.9\r\n"),
        (505, "GET / HTTP/1.2\r\n"),
        (414, &target(MAX_TARGET + 1)),
        (414, &endless),
    ] {
        refused(status, text.as_bytes());
    }
    request(target(MAX_TARGET).as_bytes());
    let preface = once(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert!(matches!(preface, Progress::Refused(r) if r.why.contains("--http1.1")));
}

fn chunks(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n{body}")
}

#[test]
fn chunks_are_put_together() {
    for (body, want) in [
        ("0\r\n\r\n", ""),
        ("000\r\n\r\n", ""),
        ("0;ext\r\nX: y\r\nZ:\t\u{e9}\r\n\r\n", ""),
        ("3\r\nabc\r\n0\r\n\r\n", "abc"),
        (
            "3;a=\"b;c\"\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
            "abc0123456789",
        ),
        ("1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n", "\r\n"),
    ] {
        let text = chunks(body);
        let got = request(text.as_bytes());
        assert_eq!(got.body, want.as_bytes(), "{body:?}");
        assert_eq!(got.used, text.len());
    }
}

#[test]
fn doubtful_chunks_are_refused() {
    let longer = format!("1;{}", "x".repeat(300));
    let tiny = "1\r\na\r\n".repeat(MAX_FRAMING / 5 + 1);
    let trailers = format!("0\r\n{}", "X: y\r\n".repeat(MAX_FRAMING / 6 + 1));
    let sum = format!("fffff\r\n{}\r\n2", "a".repeat(0xf_ffff));
    for (status, body) in [
        (400, "\r\n"),
        (400, "x\r\n"),
        (400, "-1\r\n"),
        (400, "0x1\r\n"),
        (400, " 1\r\n"),
        (400, "1 \r\n"),
        (400, "1\n"),
        (400, "1\rx"),
        (400, ";x\r\n"),
        (400, "1;\n"),
        (400, "1;\0\r\n"),
        (400, "1\r\nab"),
        (400, "1\r\na\n"),
        (400, "1\r\na\rb"),
        (400, "0\r\n\n"),
        (400, "0\r\nX: y\n"),
        (400, "0\r\nX\0"),
        (400, "0\r\n\rx"),
        (400, &longer),
        (413, "100001\r\n"),
        (413, "ffffffffffffffffffffffff\r\n"),
        (413, &sum),
        (413, &tiny),
        (413, &trailers),
    ] {
        let text = chunks(body);
        match text.len() > 200_000 {
            false => refused(status, text.as_bytes()),
            true => {
                let got = once(text.as_bytes());
                assert!(matches!(got, Progress::Refused(r) if r.status.0 == status));
            }
        }
    }
}

#[test]
fn a_body_that_nobody_asked_for_is_not_waited_for() {
    let head = "POST / HTTP/1.1\r\nHost: h\r\n";
    for (more, most, want) in [
        (
            "Content-Length: 9\r\n\r\n",
            8,
            Some("a body of 9 bytes (limit 8)"),
        ),
        ("Content-Length: 9\r\n\r\n", 9, None),
        (
            "Transfer-Encoding: chunked\r\n\r\n9",
            8,
            Some("a body of more than 8 bytes"),
        ),
        ("Transfer-Encoding: chunked\r\n\r\n9", 9, None),
        (
            "Expect: 100-continue\r\nContent-Length: 1\r\n\r\n",
            0,
            Some("a body of 1 bytes (limit 0)"),
        ),
    ] {
        let mut parser = Parser::default();
        let mut text = format!("{head}{more}");
        let last = text.pop().filter(|c| *c == '9');
        text.extend(last.is_none().then_some('\n'));
        let first = parser.parse(text.as_bytes());
        assert!(matches!(first, Progress::More | Progress::Continue100));
        parser.limit_body(most);
        text.extend(last);
        match (parser.parse(text.as_bytes()), want) {
            (Progress::Refused(r), Some(why)) => {
                assert_eq!((r.status.0, r.why.as_str()), (413, why))
            }
            (got, want) => assert_eq!((got, want), (Progress::More, None), "{more}"),
        }
    }
}

#[test]
fn nothing_is_waited_for_without_end() {
    let body = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {MAX_BODY}\r\n\r\n");
    for begin in [
        "",
        "GET / HTTP/1.1\r\nHost: h\r\nX: ",
        &body,
        &chunks("fffff\r\n"),
        &chunks("0\r\n"),
    ] {
        let mut bytes = begin.as_bytes().to_vec();
        bytes.resize(MAX_BUFFER, b'x');
        assert_ne!(once(&bytes), Progress::More, "{begin}");
    }
    // A refusal stays one.
    let mut parser = Parser::default();
    assert!(matches!(parser.parse(b"\0"), Progress::Refused(_)));
    let fine = b"GET / HTTP/1.0\r\n\r\n";
    assert!(matches!(parser.parse(fine), Progress::Refused(_)));
}
