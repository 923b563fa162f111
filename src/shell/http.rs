//! What is asked over HTTP, answered. How it is asked and by whom it may be is `wire`'s; here it becomes a
//! look or a verb like any other, and its answer what that client understands.

use super::Shell;
use super::clients::{Body, ClientId};
use super::requests::Answer;
use super::sending::one_line;
use super::token::Kind;
use crate::core::{Addr, Standing, Time};
use crate::page::{self, Asset, Lock};
use crate::sys::clock;
use crate::verbs;
use crate::wire::command::{self, Request};
use crate::wire::dialogue::Turn;
use crate::wire::door::{self, Door};
use crate::wire::ecv::{self, Local, Place};
use crate::wire::http::response::{HTML, Length, Response, Way};
use crate::wire::http::{self, Request as Asked, Status};
use crate::wire::routes::What;
use crate::wire::stream::How;
use crate::wire::{cli_answer, deps, json, send_answer, sse};
use std::time::Duration;

/// One who follows over HTTP is told so often that the stream lives, if it is not told anything else.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// A client that was cut off comes back after that long.
const RETRY: Duration = Duration::from_secs(2);

impl Shell {
    /// The next step of a client that speaks HTTP.
    pub(super) fn http_turn(&mut self, id: ClientId) {
        let at = clock::wall().0;
        let house = self.house.house();
        match self.clients.turn(id, &house, at) {
            Turn::Wait => {}
            Turn::Continue => {
                self.clients.add(id, http::CONTINUE);
                self.look_again(id);
            }
            Turn::Answer { answer, way } => {
                if matches!(answer.status, Status::UNAUTHORIZED | Status::FORBIDDEN) {
                    self.say_refused_request(id, answer.status);
                }
                self.answer_http(id, &answer, way);
            }
            Turn::Asked {
                route,
                request,
                way,
            } => {
                self.clients.asked(id, route.what, way);
                if let Some(answer) = self.asked(id, route.what, &request) {
                    self.clients.take_asked(id);
                    self.answer_http(id, &answer, way);
                }
            }
        }
    }

    /// With a body that is sent as it is read.
    pub(super) fn send_page(&mut self, id: ClientId, head: &Response, way: Way, body: Body) {
        let bytes = head.head(way, Length::Bytes(body.left()));
        let now = self.now();
        if !way.bodiless {
            self.clients.sends(id, body);
        }
        match self.clients.answer_http(id, &bytes, head.goes_on(way), now) {
            true => self.look_again(id),
            false => self.hang_up(id),
        }
    }

    /// Sent it is; and the next request is looked at.
    pub(super) fn answer_http(&mut self, id: ClientId, answer: &Response, way: Way) {
        let (bytes, goes_on) = (answer.encode(way), answer.goes_on(way));
        let now = self.now();
        match self.clients.answer_http(id, &bytes, goes_on, now) {
            true => self.look_again(id),
            false => self.hang_up(id),
        }
    }

    /// It may have said more already.
    pub(super) fn look_again(&mut self, id: ClientId) {
        self.clients.look_again(id);
        self.ready.insert((Kind::Client, id.0));
    }

    /// `None`: it is answered when it is over, or never.
    fn asked(&mut self, id: ClientId, what: What, r: &Asked) -> Option<Response> {
        let json = |(_, text): Answer| Response::json(Status::OK, text);
        match what {
            What::Ecv => Some(self.ecv_answer(id)),
            What::Live => Some(self.live(r)),
            What::Ready => Some(self.is_ready(r)),
            What::Metrics => {
                self.metrics(id);
                None
            }
            What::Page => Some(self.page(id)),
            What::PageStyle => self.send_asset(id, &page::STYLE),
            What::PageScript => self.send_asset(id, &page::SCRIPT),
            What::Status => Some(json(self.status(true))),
            What::Workers => Some(json(self.workers(Some("details"), true))),
            What::Deps => {
                let slot = r.head.parameter("slot");
                let words: Vec<&str> = ["deps"].into_iter().chain(slot).collect();
                self.verb_over_http(id, &words, true)
            }
            What::Events => self.stream_events(id, r),
            What::Logs => Some(self.list_logs(r)),
            What::LogFile => self.send_log(id, r),
            What::Disable | What::Enable => {
                let verb = match what {
                    What::Enable => "enable",
                    _ => "disable",
                };
                let reason = r.head.parameter("reason").filter(|why| !why.is_empty());
                let words: Vec<&str> = [verb].into_iter().chain(reason).collect();
                self.verb_over_http(id, &words, false)
            }
            What::Restart if r.head.flag("async") => {
                self.verb_over_http(id, &["reload", verbs::NO_WAIT], false)
            }
            What::Restart => self.verb_over_http(id, &["reload"], false),
            What::Send => self.message_over_http(id, "send", &r.body),
            What::SyncSend => self.message_over_http(id, "sync-send", &r.body),
            What::Cli => self.cli(id, r),
            What::Help => Some(self.list_verbs(r.head.json)),
        }
    }

    /// The page: it shows what it asks for, as far as whoever reads it may see that.
    fn page(&self, id: ClientId) -> Response {
        let lock = match (self.clients.door(id), self.house.house().key.is_some()) {
            (Door::Control, _) => Lock::Open,
            (Door::Tcp, true) => Lock::Key,
            (Door::Tcp, false) => Lock::Shut,
        };
        guarded(Response::new(Status::OK, HTML, page::page(lock)))
    }

    /// A file of the page: it costs us nothing to be sent as slowly as the client reads.
    fn send_asset(&mut self, id: ClientId, asset: &'static Asset) -> Option<Response> {
        let (_, way) = self.clients.take_asked(id)?;
        let head = guarded(Response::new(Status::OK, asset.content_type, ""));
        let body = asset.text.as_bytes();
        self.send_page(id, &head, way, Body::still(body, self.now()));
        None
    }

    /// A verb like any other; what comes of it goes to `answer_asked`.
    fn verb_over_http(&mut self, id: ClientId, words: &[&str], json: bool) -> Option<Response> {
        let request = Request {
            words: words.iter().map(|w| w.to_string()).collect(),
            json,
            framed: false,
        };
        self.ask_verb(id, &request)
    }

    fn ask_verb(&mut self, id: ClientId, request: &Request) -> Option<Response> {
        self.clients.patient(id);
        if let Some((code, text)) = self.dispatch(id, request) {
            self.clients.waited(id, self.now());
            self.answer_asked(id, code, &text);
        }
        None
    }

    /// As proteus-cluster takes them.
    fn message_over_http(&mut self, id: ClientId, verb: &str, body: &[u8]) -> Option<Response> {
        let text = std::str::from_utf8(body).ok();
        match text.map(one_line) {
            Some(Ok(line)) => self.verb_over_http(id, &[verb, &line], false),
            Some(Err(_)) | None => Some(send_answer::not_read()),
        }
    }

    fn list_verbs(&self, json: bool) -> Response {
        let words = vec!["help".to_string()];
        let (_, text) = self.help(&Request {
            words,
            json,
            framed: false,
        });
        match json {
            true => Response::json(Status::OK, text),
            false => Response::text(Status::OK, text),
        }
    }

    /// As cluster-service takes verbs: answers that are data are JSON, others a text.
    fn cli(&mut self, id: ClientId, r: &Asked) -> Option<Response> {
        let json = r.head.json;
        let line = match cli_answer::line(&r.head, &r.body) {
            Ok(line) => line,
            Err(answer) => return Some(answer),
        };
        let mut request = match command::parse(line.as_bytes()) {
            Ok(request) => request,
            Err(e) => return Some(Response::error(Status::BAD_REQUEST, &e, json)),
        };
        let Some(word) = request.words.first() else {
            return Some(cli_answer::unknown(json));
        };
        let verb = verbs::find(word);
        if self.is_taken_away(word) || (verb.is_none() && !self.has_command(word)) {
            return Some(cli_answer::unknown(json));
        }
        if verb.is_some_and(|v| v.typed) {
            return Some(cli_answer::not_remote(word, json));
        }
        let control = self.house.house().ecv_control;
        if verb.is_some_and(|v| !door::may_have(self.clients.door(id), v.name, control)) {
            return Some(Response::error(Status::FORBIDDEN, door::NO_CONTROL, json));
        }
        request.json |= verb.is_some_and(|v| v.data) && !self.has_command(word);
        request.framed = false;
        self.clients.as_json(id, request.json);
        self.ask_verb(id, &request)
    }

    /// What a verb has come to that was asked for over HTTP.
    pub(super) fn answer_asked(&mut self, id: ClientId, code: u8, text: &str) {
        let json = self.clients.is_json(id);
        let Some((what, way)) = self.clients.take_asked(id) else {
            return;
        };
        let answer = match what {
            What::Disable | What::Enable if code == 0 => ecv::done(&local(self.house.since)),
            What::Disable | What::Enable | What::Restart | What::Send => {
                send_answer::done(code, text)
            }
            What::SyncSend => send_answer::gathered(code, text),
            What::Cli => cli_answer::answer(code, text, json),
            What::Deps => deps::answer(code, text),
            What::Ecv
            | What::Live
            | What::Ready
            | What::Metrics
            | What::Page
            | What::PageStyle
            | What::PageScript
            | What::Status
            | What::Workers
            | What::Help
            | What::Logs
            | What::LogFile
            | What::Events => Response::error(Status::FAILED, text.trim_end(), false),
        };
        self.answer_http(id, &answer, way);
    }

    /// In rotation or not, as cluster2 says it.
    fn ecv_answer(&self, id: ClientId) -> Response {
        let ip = self.clients.ends(id).0.map(|a| a.ip().to_string());
        let place = Place {
            ip: ip.as_deref().unwrap_or("127.0.0.1"),
            hostname: &self.house.hostname,
            port: self.first_port(),
        };
        let now = local(clock::wall().0);
        ecv::answer(
            self.cluster.rotation().state,
            &place,
            &now,
            &local(self.house.since),
            self.house.down,
        )
    }

    /// The first port that is served.
    fn first_port(&self) -> u16 {
        let all = self.cluster.addrs();
        let tcp = |a: &Addr| match a {
            Addr::Tcp(at) => Some(at.port()),
            Addr::Unix(_) | Addr::Other(_) => None,
        };
        all.iter().find_map(tcp).unwrap_or(0)
    }

    /// We answer: that is all there is to it.
    fn live(&self, r: &Asked) -> Response {
        match r.head.json {
            true => Response::json(Status::OK, "{\"live\":true}\n"),
            false => Response::text(Status::OK, "live\n"),
        }
    }

    fn is_ready(&self, r: &Asked) -> Response {
        let now = self.cluster.rotation();
        let (ready, why) = (now.state == Standing::Available, now.why.to_string());
        let status = match ready {
            true => Status::OK,
            false => Status::UNAVAILABLE,
        };
        match (r.head.json, ready) {
            (true, true) => Response::json(status, "{\"ready\":true,\"reason\":null}\n"),
            (true, false) => {
                let why = json::quote(&why);
                Response::json(status, format!("{{\"ready\":false,\"reason\":{why}}}\n"))
            }
            (false, true) => Response::text(status, "ready\n"),
            (false, false) => Response::text(status, format!("not ready: {why}\n")),
        }
    }

    /// Server-Sent Events: those that are kept after the one that it has seen, and those to come.
    fn stream_events(&mut self, id: ClientId, r: &Asked) -> Option<Response> {
        if !self.clients.may_follow(id) {
            let why = "too many follow the events already: let one of them go";
            return Some(Response::error(Status::UNAVAILABLE, why, r.head.json));
        }
        let (_, way) = self.clients.take_asked(id)?;
        let head = sse::opening();
        let seen = sse::last_seen(r.head.last_event_id.as_deref());
        let mut bytes = head.head(way, Length::Unknown);
        if way.bodiless {
            let now = self.now();
            self.clients.answer_http(id, &bytes, false, now);
            return None;
        }
        bytes.extend_from_slice(sse::retry(RETRY).as_bytes());
        bytes.extend_from_slice(self.events.after(seen, clock::wall()).as_bytes());
        self.clients.streams(id);
        self.follow(id, How::Sse, true);
        self.clients.add(id, &bytes);
        if !self.clients.push(id) {
            self.hang_up(id);
        }
        let next = self.now() + HEARTBEAT;
        self.house.beat.get_or_insert(next);
        None
    }

    /// Streams on which nothing is said for long are taken for dead by what is between.
    pub(super) fn keep_streams_alive(&mut self) {
        let now = self.now();
        if self.house.beat.is_none_or(|at| at > now) {
            return;
        }
        let streams = self.clients.followers().into_iter();
        let streams: Vec<ClientId> = streams
            .filter_map(|(id, how)| (how == How::Sse).then_some(id))
            .collect();
        for id in &streams {
            self.clients.tell(*id, sse::HEARTBEAT, clock::wall());
        }
        self.house.beat = (!streams.is_empty()).then(|| now + HEARTBEAT);
    }

    /// It had its time.
    pub(super) fn too_slow(&mut self, id: ClientId, now: Time) {
        if self.clients.is_asking(id) {
            let why = "the request was not whole in time";
            let answer = Response::error(Status::TIMEOUT, why, false);
            let bytes = answer.encode(Way::last(Some(clock::wall().0)));
            if self.clients.answer_http(id, &bytes, false, now) {
                return;
            }
        }
        self.clients.forsake(id);
        self.hang_up(id);
    }
}

/// With what a browser is told to refuse.
pub(super) fn guarded(answer: Response) -> Response {
    let with = |answer: Response, (name, value): &(&'static str, &str)| answer.with(name, *value);
    page::HEADERS.iter().fold(answer, with)
}

fn local(unix: u64) -> Local<'static> {
    let offset = i32::try_from(clock::local_offset(unix)).unwrap_or(0);
    let zone = "";
    Local { unix, offset, zone }
}
