//! Consoles, on our side: connections that somebody types at, and what they hear of what happens.

use super::Shell;
use super::clients::ClientId;
use super::requests::{Answer, behind};
use crate::core::Level;
use crate::core::codes::{EX_TEMPFAIL, EX_USAGE};
use crate::core::fields::Value;
use crate::verbs;
use crate::wire::command::Request;
use crate::wire::json::{self, quote};
use crate::wire::outcome::refusal;
use crate::wire::report;
use crate::wire::stream::How;

impl Shell {
    /// Our client, with somebody who types: from here on its lines are as they are typed.
    pub(super) fn console(&mut self, id: ClientId, r: &Request) -> Answer {
        let version = env!("CARGO_PKG_VERSION");
        let name = &self.claim.name;
        let text = format!(
            "minicluster {version}, cluster {name}, pid {}: help lists the verbs, events follow shows what happens, .exit leaves\n",
            std::process::id()
        );
        if r.framed {
            self.clients.set_console(id);
        }
        (0, text)
    }

    /// `events`: those that are kept, and from now on, for who wants that or types.
    pub(super) fn hear_of_events(
        &mut self,
        id: ClientId,
        r: &Request,
        word: Option<&str>,
    ) -> Option<Answer> {
        let console = self.clients.is_console(id);
        let types = console || !r.framed;
        let how = match (r.framed || console, r.json) {
            (false, false) => How::Text,
            (false, true) => How::Json,
            (true, json) => How::Framed { json },
        };
        let plain = match r.json {
            true => How::Json,
            false => How::Text,
        };
        let (_, kept) = self.events.since(0, plain);
        match word {
            Some("off") if !types => {
                let why = "events off is for a console: nothing is followed here\n";
                Some((EX_USAGE, refusal(why, r.json)))
            }
            Some("off") => {
                self.clients.follows(id, None);
                Some((0, String::new()))
            }
            None if !types => Some((0, kept.concat())),
            Some(_) | None => {
                if !self.follow(id, how) {
                    let why = "too many follow the events already: let one of them go\n";
                    return Some((EX_TEMPFAIL, refusal(why, r.json)));
                }
                match types {
                    true => Some((0, kept.concat())),
                    // Its answer has no end.
                    false => {
                        let all = kept.iter().map(|e| crate::wire::stream::framed(e));
                        let text: String = all.collect();
                        self.clients.add(id, &text);
                        if !self.clients.push(id) {
                            self.clients.drop_one(id);
                        }
                        None
                    }
                }
            }
        }
    }

    /// `debug`
    pub(super) fn debug(&mut self, id: ClientId, text: &str, json: bool) -> Answer {
        let by = self.clients.by(id);
        self.say_for_client(Level::Info, "debug", Vec::new(), text.to_string(), by);
        (0, done(json))
    }

    /// `emit`
    pub(super) fn emit(&mut self, id: ClientId, words: &[&str], json: bool) -> Answer {
        let by = self.clients.by(id);
        let name = words.first().copied().unwrap_or_default();
        let mut fields = Vec::new();
        if let Some(data) = words.get(1) {
            if let Err(e) = json::parse(data) {
                return (EX_USAGE, refusal(&format!("{e}\n"), json));
            }
            // Between its parts ends of lines are blanks; within texts there can be none.
            let line = data.replace(['\n', '\r'], " ");
            fields.push(("data", Value::Json(line)));
        }
        let message = match fields.first() {
            Some((_, Value::Json(data))) => format!("{name} {data}"),
            Some(_) | None => name.to_string(),
        };
        self.say_for_client(Level::Info, name.to_string(), fields, message, by);
        (0, done(json))
    }

    /// `cluster`
    pub(super) fn cluster_line(&self, json: bool) -> Answer {
        let (code, text) = self.status(json);
        match json {
            true => (code, text),
            false => (
                code,
                text.lines().take(1).map(|l| format!("{l}\n")).collect(),
            ),
        }
    }

    /// `help`
    pub(super) fn help(&self, r: &Request) -> Answer {
        match self.verbs_here(behind(r).next()) {
            Ok(all) if r.json => (0, report::help_json(&all)),
            Ok(all) => (0, verbs::help(&all)),
            Err(e) => (EX_USAGE, refusal(&format!("{e}\n"), r.json)),
        }
    }

    /// `version`
    pub(super) fn version(&self, json: bool) -> Answer {
        let v = env!("CARGO_PKG_VERSION");
        match json {
            true => (0, format!("{{\"version\":{}}}\n", quote(v))),
            false => (0, format!("{v}\n")),
        }
    }
}

/// It was said; to say so would be one more thing said.
fn done(json: bool) -> String {
    match json {
        true => "{\"said\":true}\n".into(),
        false => String::new(),
    }
}
