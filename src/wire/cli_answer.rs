//! `POST /cli?cmd=LINE`: any verb, asked and answered as cluster-service does it.

use super::http::response::{JSON, Response};
use super::http::{Head, Status};
use super::json::quote;

/// What the JSON of an answer is called there.
pub const KIND: &str = "text/json; charset=UTF-8";
/// The answer of a verb that has none.
pub const NO_DATA: &str = "No data";
/// There is no such verb.
pub const NOT_FOUND: &str = "Not found. Try /help";

/// The line that is asked: the body goes behind what the query says.
pub fn line(head: &Head, body: &[u8]) -> Result<String, Response> {
    let Ok(body) = std::str::from_utf8(body) else {
        let why = "the body is not UTF-8";
        return Err(Response::error(Status::BAD_REQUEST, why, head.json));
    };
    let mut line = head.parameter("cmd").unwrap_or_default().to_string();
    // (What clients send that have nothing to say.)
    let body = Some(body.trim()).filter(|b| *b != "{}").unwrap_or_default();
    if !line.is_empty() && !body.is_empty() {
        line.push(' ');
    }
    line.push_str(body);
    Ok(line)
}

/// How a verb has ended, and what it said: text, or JSON.
pub fn answer(exit: u8, said: &str, json: bool) -> Response {
    let said = said.trim_end();
    match (exit, json) {
        (0, _) if said.is_empty() => Response::new(Status::OK, KIND, NO_DATA),
        (0, true) => Response::new(Status::OK, KIND, said),
        (0, false) => Response::new(Status::OK, KIND, quote(said)),
        (_, true) if said.starts_with('{') => Response::new(Status::BAD_REQUEST, JSON, said),
        // (Errors of usage are text.)
        (_, true | false) => Response::text(Status::BAD_REQUEST, said),
    }
}

/// There is no such verb.
pub fn unknown(json: bool) -> Response {
    Response::verbatim(Status::NOT_FOUND, NOT_FOUND, json)
}

/// There is, and not for those who ask over HTTP.
pub fn not_remote(verb: &str, json: bool) -> Response {
    let why = format!("Not authorized to execute '{verb}' remotely");
    Response::verbatim(Status::UNAUTHORIZED, &why, json)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::{Parser, Progress};

    fn asked(query: &str, body: &[u8]) -> Result<String, u16> {
        let text = format!("POST /cli{query} HTTP/1.1\r\nHost: h\r\n\r\n");
        let Progress::Request(r) = Parser::default().parse(text.as_bytes()) else {
            panic!("{text}");
        };
        line(&r.head, body).map_err(|r| r.status.0)
    }

    #[test]
    fn the_line_is_in_the_query_and_in_the_body() {
        for (query, body, want) in [
            ("?cmd=resize%202&accessKey=k", &b""[..], "resize 2"),
            (
                "?cmd=restart+all",
                b"{\"timeout\":60000}",
                "restart all {\"timeout\":60000}",
            ),
            ("", b"status\r\n", "status"),
            ("?cmd=workers", b"{}", "workers"),
            ("?cmd=", b"", ""),
            ("?cmd=a&cmd=b", b"", "a"),
        ] {
            assert_eq!(asked(query, body).as_deref(), Ok(want));
        }
        assert_eq!(asked("?cmd=x", b"\xff"), Err(400));
    }

    #[test]
    fn answers_are_those_of_cluster_service() {
        for (exit, said, json, status, body) in [
            (0, "OK\n", false, 200, "\"OK\""),
            (0, "a \"b\"\nc\n", false, 200, "\"a \\\"b\\\"\\nc\""),
            (0, "{\"workers\":2}\n", true, 200, "{\"workers\":2}"),
            (0, "", false, 200, "No data"),
            (0, "\n", true, 200, "No data"),
            (1, "timed out\n", false, 400, "timed out"),
            (64, "usage\n", false, 400, "usage"),
            (1, "{\"error\":\"x\"}\n", true, 400, "{\"error\":\"x\"}"),
            (64, "usage\n", true, 400, "usage"),
        ] {
            let got = answer(exit, said, json);
            assert_eq!(got.status.0, status);
            assert_eq!(got.body, body.as_bytes());
            assert_eq!(got.content_type == KIND, status == 200);
        }
        assert_eq!(unknown(false).body, b"Not found. Try /help");
        assert_eq!(unknown(false).status, Status::NOT_FOUND);
        let got = not_remote("exit", false);
        assert_eq!(got.body, b"Not authorized to execute 'exit' remotely");
        assert_eq!(got.status, Status::UNAUTHORIZED);
    }
}
