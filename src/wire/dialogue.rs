//! One connection of HTTP, without the connection: bytes come in (`hear`), and what is to be done comes
//! out (`turn`), one request after the other. How it goes does not depend on how the bytes come in pieces.
//!
//! 1. A head that is whole is shown to the door. Who is not let in is answered at once; if it has a body,
//!    that is not waited for, and the connection ends.
//! 2. A body is as long as its route has a use for.
//! 3. The next request is not looked at before this one is answered: the shell asks for a turn when it
//!    has sent the answer.
//! 4. After an answer that ends the connection nothing is understood any more.

use super::door::{Door, House, enter};
use super::http::response::{Response, Way};
use super::http::{MAX_BUFFER, Parser, Progress, Refusal, Request};
use super::routes::Route;
use serde::{Deserialize, Serialize};

/// One side of it: ours. (What was understood of a request that is not whole is understood again by whoever
/// it is handed to: the bytes are there.)
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Dialogue {
    buffer: Vec<u8>,
    #[serde(skip)]
    parser: Parser,
    /// What the door has let in, and what is not whole yet.
    #[serde(skip)]
    route: Option<&'static Route>,
    /// Whoever asks for that wants JSON.
    json: bool,
    over: bool,
}

/// What is to be done.
#[derive(Debug)]
pub enum Turn {
    /// Nothing before more bytes come.
    Wait,
    /// `http::CONTINUE` is to be sent; then the same again.
    Continue,
    /// That was asked by somebody who may.
    Asked {
        route: &'static Route,
        request: Box<Request>,
        way: Way,
    },
    /// That is the answer, and nothing else is to be done. `answer.goes_on(way)`: does another request
    /// follow?
    Answer { answer: Response, way: Way },
}

impl Dialogue {
    /// These have come.
    pub fn hear(&mut self, bytes: &[u8]) {
        if !self.over {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// So many more are worth reading before a turn: no request is longer.
    pub fn room(&self) -> usize {
        MAX_BUFFER.saturating_sub(self.buffer.len())
    }

    /// Has nothing come of a next request? Else there is a deadline for the rest of it.
    pub fn is_idle(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Nothing that comes is understood any more: for who sends an answer that ends the connection.
    pub fn end(&mut self) {
        *self = Dialogue {
            over: true,
            ..Dialogue::default()
        };
    }

    /// What is to be done now? `now`: the clock of the machine, for `Date`.
    pub fn turn(&mut self, door: Door, house: &House, now: Option<u64>) -> Turn {
        if self.over {
            return Turn::Wait;
        }
        let mut denied = None;
        if self.route.is_none() {
            let head = match self.parser.look(&self.buffer) {
                Err(refusal) => return self.refuse(&refusal, false, now),
                Ok(None) => return Turn::Wait,
                Ok(Some(head)) => head,
            };
            self.json = head.json;
            match enter(door, head, house) {
                Ok(route) => {
                    self.route = Some(route);
                    self.parser.limit_body(route.most_body());
                }
                Err(answer) if head.has_body => {
                    let way = Way::of(head, now).closing();
                    self.end();
                    return Turn::Answer { answer, way };
                }
                Err(answer) => denied = Some(answer),
            }
        }
        match self.parser.parse(&self.buffer) {
            Progress::More => Turn::Wait,
            Progress::Continue100 => Turn::Continue,
            Progress::Refused(refusal) => self.refuse(&refusal, self.json, now),
            Progress::Request(request) => self.asked(request, denied, now),
        }
    }

    fn asked(&mut self, request: Box<Request>, denied: Option<Response>, now: Option<u64>) -> Turn {
        self.buffer.drain(..request.used.min(self.buffer.len()));
        // An idle connection holds nothing.
        if self.buffer.is_empty() {
            self.buffer = Vec::new();
        }
        let way = Way::of(&request.head, now);
        let turn = match (self.route.take(), denied) {
            (Some(route), None) => Turn::Asked {
                route,
                request,
                way,
            },
            (_, Some(answer)) => Turn::Answer { answer, way },
            (None, None) => Turn::Wait,
        };
        if !way.keep_alive {
            self.end();
        }
        turn
    }

    fn refuse(&mut self, refusal: &Refusal, json: bool, now: Option<u64>) -> Turn {
        self.end();
        Turn::Answer {
            answer: Response::error(refusal.status, &refusal.why, json),
            way: Way::last(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::EcvControl;
    use crate::wire::http::response::Length;
    use crate::wire::key::Key;
    use crate::wire::routes::{ECV, SMALL_BODY};

    const KEY: &str = "0123456789abcdef";

    /// What becomes of these bytes, in pieces of that length: in a word each.
    fn told(bytes: &[u8], step: usize) -> Vec<String> {
        let key = Key::parse(KEY.as_bytes()).unwrap();
        let house = House {
            key: Some(&key),
            names: &[],
            ecv: ECV,
            ecv_control: EcvControl::Key,
        };
        let (mut dialogue, mut all) = (Dialogue::default(), Vec::new());
        for piece in bytes.chunks(step) {
            dialogue.hear(piece);
            loop {
                match dialogue.turn(Door::Tcp, &house, None) {
                    Turn::Wait => break,
                    Turn::Continue => all.push("continue".into()),
                    Turn::Asked {
                        route,
                        request,
                        way,
                    } => {
                        let n = request.body.len();
                        all.push(format!("{:?} {n} {}", route.what, way.keep_alive));
                    }
                    Turn::Answer { answer, way } => {
                        let on = answer.goes_on(way);
                        all.push(format!("{} {on}", answer.status.0));
                        assert!(!answer.head(way, Length::Bytes(0)).is_empty());
                    }
                }
            }
        }
        if dialogue.is_idle() {
            assert_eq!(dialogue.room(), MAX_BUFFER);
        }
        all
    }

    fn check(text: &str, want: &[&str]) {
        for step in [1, 7, text.len().max(1)] {
            assert_eq!(
                told(text.as_bytes(), step),
                want,
                "{text} in pieces of {step}"
            );
        }
    }

    #[test]
    fn requests_get_their_turns() {
        let key = format!("Host: localhost\r\nAuthorization: Bearer {KEY}\r\n");
        let free = "GET /live HTTP/1.1\r\nHost: x\r\n\r\n";
        check("", &[]);
        check(free, &["Live 0 true"]);
        check(&format!("{free}{free}"), &["Live 0 true", "Live 0 true"]);
        check(
            "GET /live HTTP/1.0\r\n\r\nGET /live HTTP/1.0\r\n\r\n",
            &["Live 0 false"],
        );
        let send = format!("POST /send HTTP/1.1\r\n{key}Content-Length: 2\r\n\r\n{{}}");
        check(&format!("{send}{free}"), &["Send 2 true", "Live 0 true"]);
    }

    #[test]
    fn who_is_not_let_in_goes_on_unless_there_is_a_body() {
        let free = "GET /live HTTP/1.1\r\nHost: x\r\n\r\n";
        for (request, want) in [
            ("GET /status HTTP/1.1\r\nHost: localhost\r\n", "401 true"),
            ("GET /status HTTP/1.1\r\nHost: evil\r\n", "403 true"),
            ("GET /nothing HTTP/1.1\r\nHost: x\r\n", "404 true"),
            ("PUT /live HTTP/1.1\r\nHost: x\r\n", "405 true"),
        ] {
            check(&format!("{request}\r\n{free}"), &[want, "Live 0 true"]);
            let ends = want.replace("true", "false");
            for body in [
                "Content-Length: 0\r\n\r\n",
                "Content-Length: 9\r\n\r\nx",
                "Transfer-Encoding: chunked\r\n\r\nx",
            ] {
                check(&format!("{request}{body}{free}"), &[&ends]);
            }
        }
    }

    #[test]
    fn what_is_refused_ends_it() {
        let key = format!("Host: localhost\r\nAuthorization: Bearer {KEY}\r\n");
        let free = "GET /live HTTP/1.1\r\nHost: x\r\n\r\n";
        check("\x16\x03\x01\x02", &["400 false"]);
        check(&format!("GET / HTTP/1.1\r\n\r\n{free}"), &["400 false"]);
        let chunks = "Transfer-Encoding: chunked\r\n\r\n1\r\nxy";
        check(
            &format!("POST /send HTTP/1.1\r\n{key}{chunks}{free}"),
            &["400 false"],
        );
        // A route that has no use for a body.
        let n = SMALL_BODY + 1;
        let body = format!("Content-Length: {n}\r\n\r\n{}", "x".repeat(n));
        check(
            &format!("GET /live HTTP/1.1\r\nHost: x\r\n{body}{free}"),
            &["413 false"],
        );
        check(
            &format!("GET /live HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx{free}"),
            &["Live 1 true", "Live 0 true"],
        );
        let chunks = format!("Transfer-Encoding: chunked\r\n\r\n{n:x}\r\n");
        check(
            &format!("POST /restart HTTP/1.1\r\n{key}{chunks}"),
            &["413 false"],
        );
    }

    #[test]
    fn only_who_is_let_in_is_told_to_go_on() {
        let expect = "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        let key = format!("Host: localhost\r\nAuthorization: Bearer {KEY}\r\n");
        let head = format!("POST /send HTTP/1.1\r\n{key}{expect}");
        check(&head, &["continue"]);
        assert_eq!(
            told(format!("{head}{{}}").as_bytes(), head.len()),
            ["continue", "Send 2 true"]
        );
        check(
            &format!("POST /send HTTP/1.1\r\nHost: localhost\r\n{expect}"),
            &["401 false"],
        );
    }
}
