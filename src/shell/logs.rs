//! What workers have written, for who asks: the last lines, lines as they come, and over HTTP the files.

use super::Shell;
use super::clients::{Body, ClientId, Hears};
use super::http::guarded;
use super::requests::Answer;
use crate::core::codes::{EX_TEMPFAIL, EX_USAGE, FAILED};
use crate::core::words::reason;
use crate::settings::{self, LOG_LINES, LogsAsked};
use crate::wire::command::Request;
use crate::wire::door::NO_PAGE;
use crate::wire::http::range::{self, Part};
use crate::wire::http::response::{HTML, Length, Response, date};
use crate::wire::http::{Request as Asked, Status};
use crate::wire::logs::{self, Line, Room};
use crate::wire::outcome::refusal;
use crate::wire::routes::LOG_FILES;
use crate::wire::stream::How;

/// So much of each file is looked at for its last lines,
const MOST: u64 = 64 * 1024;
/// and of all together.
const ALL: u64 = 1024 * 1024;
/// Lines that may be of others are looked through so far.
const MERGED: u64 = 256 * 1024;

/// Said where there is nothing to show.
pub(super) const NO_DIR: &str = "what workers write is not kept: start the master with --log-dir";

impl Shell {
    /// `logs`
    pub(super) fn hear_logs(
        &mut self,
        id: ClientId,
        r: &Request,
        words: &[&str],
    ) -> Option<Answer> {
        let asked = match settings::logs(words) {
            Ok(asked) => asked,
            Err(e) => return Some((EX_USAGE, format!("{e}\n"))),
        };
        let console = self.clients.is_console(id);
        let types = (console || !r.framed) && !self.clients.speaks_http(id);
        match asked.follow {
            Some(false) if types => {
                self.clients.hears(id, None, false);
                return Some((0, String::new()));
            }
            Some(false) => {
                let why = "logs off is for a console: nothing is followed here\n";
                return Some((EX_USAGE, why.into()));
            }
            Some(true) if self.clients.speaks_http(id) => {
                let why = "logs follow has no end, and this answer has: type it\n";
                return Some((EX_USAGE, why.into()));
            }
            Some(true) | None => {}
        }
        // Who follows already has them before this one reads them.
        self.tell_lines();
        let text = match self.last_lines(asked, r.json) {
            Ok(text) => text,
            Err((code, why)) => return Some((code, refusal(&format!("{why}\n"), r.json))),
        };
        if asked.follow.is_none() {
            return Some((0, text));
        }
        let how = match (r.framed || console, r.json) {
            (false, false) => How::Text,
            (false, true) => How::Json,
            (true, json) => How::Framed { json },
        };
        if !self.clients.may_follow(id) {
            let why = "too many follow already: let one of them go\n";
            return Some((EX_TEMPFAIL, refusal(why, r.json)));
        }
        let slot = asked.slot;
        self.clients.hears(id, Some(Hears { slot, how }), true);
        if let Some(output) = &mut self.output {
            output.heard(true);
        }
        if types {
            return Some((0, text));
        }
        // It has no end, so it is all frames.
        self.clients.add(id, logs::dressed(text, how));
        if !self.clients.push(id) {
            self.hang_up(id);
        }
        None
    }

    fn last_lines(&self, asked: LogsAsked, json: bool) -> Result<String, (u8, String)> {
        let Some(output) = &self.output else {
            return Err((FAILED, NO_DIR.into()));
        };
        let (slots, merged) = (output.slots(), self.settings().log_merge);
        if let Some(n) = asked.slot {
            let bound = self.cluster.bound();
            if n >= bound && !slots.contains(&Some(n)) {
                let last = bound.saturating_sub(1);
                return Err((EX_USAGE, format!("'{n}' is not a slot from 0 to {last}")));
            }
        }
        let count = asked.lines.unwrap_or(LOG_LINES);
        let bare = asked.slot.is_some();
        let files: Vec<Option<u16>> = match (merged, asked.slot) {
            (true, _) => vec![None],
            (false, Some(slot)) => vec![Some(slot)],
            (false, None) => slots,
        };
        let most = match merged {
            true => MERGED,
            false => (ALL / (files.len().max(1) as u64)).min(MOST),
        };
        let mut text = String::new();
        for slot in files {
            let (bytes, whole) = output.end(slot, most);
            let all = logs::last(&bytes, whole, usize::MAX).into_iter();
            let lines = all.map(|text| match slot {
                None => logs::signed(text),
                Some(_) => Line {
                    slot,
                    pid: None,
                    text,
                },
            });
            let mut its: Vec<Line<'_>> = lines
                .filter(|l| asked.slot.is_none() || l.slot == asked.slot)
                .collect();
            its.drain(..its.len().saturating_sub(count));
            text.extend(its.iter().map(|l| l.shown(json, bare)));
        }
        Ok(text)
    }

    /// Those who follow are told what was written in this turn, each way rendered once, and as much of it as
    /// there is room for in a turn: lines can come faster than they can be told, and nobody who follows, nor
    /// sixty of them, may hold up the others. Who does not keep up is asked first, and has nothing rendered.
    pub(super) fn tell_lines(&mut self) {
        let Some(output) = &mut self.output else {
            return;
        };
        let written = output.take_told();
        if written.is_empty() {
            return;
        }
        let hearers = self.clients.hearers();
        output.heard(!hearers.is_empty());
        // As those stand that were kept: files of slots do not have the pid.
        let pids = output.is_merged();
        let (behind, hearers): (Vec<_>, Vec<_>) = hearers
            .into_iter()
            .partition(|(client, _)| self.clients.is_behind(*client));
        for (client, Hears { slot, .. }) in behind {
            self.clients.misses(client, logs::count(&written, slot));
        }
        let mut ways: Vec<Hears> = Vec::new();
        for (_, hears) in &hearers {
            if !ways.contains(hears) {
                ways.push(*hears);
            }
        }
        let room = Room::of(hearers.len(), ways.len());
        for way in ways {
            let (text, missed) = logs::told(&written, way.slot, way.how, pids, room);
            let of_it = hearers.iter().filter(|(_, hears)| *hears == way);
            for (client, _) in of_it.filter(|_| missed > 0 || !text.is_empty()) {
                self.clients.tell_lines(*client, &text, missed);
            }
        }
    }

    /// GET /logs
    pub(super) fn list_logs(&self, r: &Asked) -> Response {
        let Some(output) = &self.output else {
            return Response::error(Status::NOT_FOUND, NO_DIR, r.head.json);
        };
        let (all, left_out) = match output.list() {
            Ok(found) => found,
            Err(e) => return Response::error(Status::FAILED, &reason(&e), r.head.json),
        };
        match r.head.html {
            true => guarded(Response::new(
                Status::OK,
                HTML,
                logs::list_html(&all, left_out),
            )),
            false => Response::json(Status::OK, logs::list_json(&all, left_out)),
        }
    }

    /// GET /logs/FILE: all of it, or a part. `None`: it is on its way.
    pub(super) fn send_log(&mut self, id: ClientId, r: &Asked) -> Option<Response> {
        let json = r.head.json;
        let refused = |status, why: &str| Some(Response::error(status, why, json));
        let Some(output) = &self.output else {
            return refused(Status::NOT_FOUND, NO_DIR);
        };
        let name = r.head.path.strip_prefix(LOG_FILES).unwrap_or_default();
        let (file, entry) = match output.dir().read(name) {
            Ok(found) => found,
            Err(e) => match e.raw_os_error() {
                Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EIO | libc::EACCES) => {
                    return refused(Status::FAILED, &reason(&e));
                }
                // It is not there, or is nothing that is shown: whoever asks need not know which.
                Some(_) | None => return refused(Status::NOT_FOUND, NO_PAGE),
            },
        };
        let part = range::parse(r.head.range.as_deref(), entry.size);
        let (status, at, left) = match part {
            Part::All => (Status::OK, 0, entry.size),
            Part::Bytes(first, last) => {
                let length = last.saturating_sub(first).saturating_add(1);
                (Status::PARTIAL, first, length)
            }
            Part::None => {
                let why = format!("{name} has {} bytes", entry.size);
                let answer = Response::error(Status::NOT_SATISFIABLE, &why, json);
                let range = range::content_range(part, entry.size).unwrap_or_default();
                return Some(answer.with("Content-Range", range));
            }
        };
        if !self.clients.may_send_file() {
            return refused(
                Status::UNAVAILABLE,
                "too many files are being sent: try again",
            );
        }
        let mut answer = Response::text(status, "")
            .with("Accept-Ranges", "bytes")
            .with("Last-Modified", date(entry.modified));
        if let Some(range) = range::content_range(part, entry.size) {
            answer = answer.with("Content-Range", range);
        }
        let (_, way) = self.clients.take_asked(id)?;
        let head = answer.head(way, Length::Bytes(left));
        if !way.bodiless {
            self.clients.sends(id, Body::of_file(file, at, left));
        }
        let (goes_on, now) = (answer.goes_on(way), self.now());
        match self.clients.answer_http(id, &head, goes_on, now) {
            true => self.look_again(id),
            false => self.hang_up(id),
        }
        None
    }
}
