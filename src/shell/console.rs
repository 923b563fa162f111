//! Consoles, on our side: connections that somebody types at, and what they hear of what happens.

use super::Shell;
use super::clients::ClientId;
use super::requests::{Answer, behind};
use crate::core::codes::{EX_TEMPFAIL, EX_USAGE};
use crate::core::fields::Value;
use crate::core::{By, Level, Pid};
use crate::sys::{fds, process};
use crate::verbs;
use crate::wire::command::Request;
use crate::wire::json::{self, quote};
use crate::wire::outcome::refusal;
use crate::wire::report;
use crate::wire::stream::How;
use mio::unix::SourceFd;
use std::os::fd::AsRawFd;

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

    /// --console: whoever sits where we were started types verbs there.
    pub(super) fn open_own_console(&mut self) {
        if !self.settings().console {
            return;
        }
        let by = By {
            pid: Pid(i32::try_from(std::process::id()).unwrap_or(0)),
            uid: process::euid(),
        };
        let person = fds::is_terminal(process::STDIN) && fds::is_terminal(process::STDOUT);
        let prompt = match person {
            true => format!("{}> ", self.claim.name),
            false => String::new(),
        };
        let id = self.clients.at_our_own(by, prompt);
        let token = super::token(super::Kind::Client, id.0);
        let registry = self.poll.registry();
        let stream = self.clients.stream(id);
        let done = stream.map(|s| registry.register(s, token, mio::Interest::READABLE));
        if let Some(Err(e)) = done {
            // A file, or nothing at all.
            self.clients.drop_one(id);
            let why = crate::core::words::reason(&e);
            let message = format!(
                "--console: standard input is neither a terminal nor a pipe ({why}): there is no console"
            );
            return self.say(Level::Warn, "no-console", message);
        }
        if person {
            let (_, greeting) = self.console(id, &Request::default());
            self.clients.answer(id, &greeting, false);
        }
        self.ready.insert((super::Kind::Client, id.0));
    }

    /// Watches our stdout exactly while something of our own console waits for it. (It may be the terminal
    /// that stdin is: by another number that is another source.)
    pub(super) fn watch_console(&mut self) {
        let waits = self.clients.own_waits();
        if waits.is_some() == self.console_watched {
            return;
        }
        let stdout = process::STDOUT.as_raw_fd();
        let mut source = SourceFd(&stdout);
        let registry = self.poll.registry();
        let done = match waits {
            Some(id) => {
                let its = super::token(super::Kind::Client, id.0);
                registry.register(&mut source, its, mio::Interest::WRITABLE)
            }
            None => registry.deregister(&mut source),
        };
        self.console_watched = waits.is_some() && done.is_ok();
    }

    /// The one of our own, if what waits there is to be tried again by the clock: a terminal may announce
    /// nothing (see `log_stalls`), nor does what the poll does not take.
    pub(super) fn console_stalls(&self) -> Option<ClientId> {
        let id = self.clients.own_waits()?;
        let by_clock = !self.console_watched || fds::is_terminal(process::STDOUT);
        by_clock.then_some(id)
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
        let kept = |how| self.events.since(0, how).1.concat();
        let plain = match r.json {
            true => How::Json,
            false => How::Text,
        };
        let answer = match types || word.is_none() {
            true => kept(plain),
            // It has no end, so it is all frames.
            false => kept(how),
        };
        match word {
            Some("off") if !types => {
                let why = "events off is for a console: nothing is followed here\n";
                Some((EX_USAGE, why.into()))
            }
            Some("off") => {
                self.clients.follows(id, None, false);
                Some((0, String::new()))
            }
            None if !types => Some((0, answer)),
            Some(_) | None => {
                if !self.follow(id, how, word.is_some()) {
                    let why = "too many follow the events already: let one of them go\n";
                    return Some((EX_TEMPFAIL, refusal(why, r.json)));
                }
                if types {
                    return Some((0, answer));
                }
                self.clients.add(id, &answer);
                if !self.clients.push(id) {
                    self.hang_up(id);
                }
                None
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
                return (
                    EX_USAGE,
                    format!("what {name} says is no JSON value: {e}\n"),
                );
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
    pub(super) fn cluster_line(&mut self, json: bool) -> Answer {
        match json {
            true => self.status(true),
            // (Of the workers nothing is read for it.)
            false => (0, self.cluster_text()),
        }
    }

    /// `help`
    pub(super) fn help(&self, r: &Request) -> Answer {
        match self.verbs_here(behind(r).next()) {
            Ok(all) if r.json => (0, report::help_json(&all)),
            Ok(all) => (0, verbs::help(&all)),
            Err(e) => (EX_USAGE, format!("{e}\n")),
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
