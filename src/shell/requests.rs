//! What clients ask, answered: looking is answered here from a snapshot; doing goes to core.

use super::{Kind, Shell, token};
use crate::core::codes::EX_USAGE;
use crate::core::{Asker, Event, Outcome, Restart, Snapshot, Target, Time};
use crate::settings;
use crate::sys::procfs;
use crate::verbs::{self, Verb, What};
use crate::wire::command::{self, Request, encode_answer};
use crate::wire::json::quote;
use crate::wire::outcome;
use crate::wire::report::{self, Master};
use crate::wire::workers::{self, Row};
use mio::Interest;
use std::collections::BTreeMap;
use std::time::Duration;

use super::clients::{ClientId, Heard};
use super::reload::Client;

/// An answer: exit code and text.
pub(super) type Answer = (u8, String);

/// Lines of one client in one turn.
const LINES: usize = 16;
/// So long a turn is about clients: an answer may need a look at every worker, and workers wait in
/// bind(2) meanwhile. Who has not had their turn is first in the next.
const TURN: Duration = Duration::from_millis(5);

/// Requests that core has not answered yet. One client may have several.
#[derive(Default)]
pub struct Waiting {
    map: BTreeMap<Asker, (ClientId, Request)>,
    /// What those who wait for a reload are told besides: options that are left as they were.
    kept: BTreeMap<Asker, Vec<String>>,
    last: u64,
}

impl Waiting {
    /// This one waits from now on.
    fn add(&mut self, client: ClientId, request: Option<&Request>) -> Asker {
        self.last += 1;
        let asker = Asker(self.last);
        if let Some(r) = request {
            self.map.insert(asker, (client, r.clone()));
        }
        asker
    }

    /// It is to hear of these, too.
    pub fn keeps(&mut self, asker: Asker, options: Vec<String>) {
        self.kept.insert(asker, options);
    }

    /// All requests of one that has gone.
    fn drop_client(&mut self, client: ClientId) -> Vec<Asker> {
        let of_it = self.map.iter().filter(|(_, (c, _))| *c == client);
        let all: Vec<Asker> = of_it.map(|(a, _)| *a).collect();
        self.map.retain(|_, (c, _)| *c != client);
        self.kept.retain(|a, _| !all.contains(a));
        all
    }
}

/// The words behind the verb.
pub(super) fn behind(r: &Request) -> impl Iterator<Item = &str> {
    r.words.iter().skip(1).map(String::as_str)
}

/// `None`: core answers.
fn refused(done: Result<(), String>) -> Option<Answer> {
    done.err().map(|e| (EX_USAGE, format!("{e}\n")))
}

/// As our client reads it, or a person.
fn framed(ours: bool, code: u8, text: String) -> String {
    match ours {
        true => encode_answer(code, &text),
        false => text,
    }
}

impl Shell {
    /// New clients, lines of old ones, and those that are too slow.
    pub(super) fn serve_clients(&mut self, knock: bool, ready: &[u64]) {
        let now = self.now();
        let mut ready: Vec<ClientId> = ready.iter().map(|n| ClientId(*n)).collect();
        if knock || self.clients.knocking(now) {
            for (id, _) in self
                .clients
                .accept(self.room().clients(self.cluster.wanted()), now)
            {
                let registry = self.poll.registry();
                if let Some(stream) = self.clients.stream(id) {
                    let both = Interest::READABLE | Interest::WRITABLE;
                    let _ = registry.register(stream, token(Kind::Client, id.0), both);
                }
                ready.push(id);
            }
        }
        // In turn: after the one who came last the last time.
        let first = ready.iter().position(|id| *id > self.served_last);
        ready.rotate_left(first.unwrap_or(0));
        for id in ready {
            if self.now() - now > TURN {
                self.ready.insert((Kind::Client, id.0));
                continue;
            }
            self.served_last = id;
            if !self.clients.push(id) {
                self.hang_up(id);
                continue;
            }
            if self.hear_lines(id, now) {
                self.ready.insert((Kind::Client, id.0));
            }
        }
        for id in self.clients.overdue(now) {
            self.hang_up(id);
        }
        self.settle();
    }

    /// Lines of one client, no more than its share of a turn. True: there may be more.
    fn hear_lines(&mut self, id: ClientId, now: Time) -> bool {
        for _ in 0..LINES {
            match self.clients.hear(id, now) {
                Heard::Line(line) => {
                    self.request(id, &line);
                    // Before the next one is answered, which may look at what this one has done.
                    self.settle();
                    if self.now() - now > TURN {
                        return true;
                    }
                }
                Heard::Nothing => return false,
                Heard::Gone => {
                    self.hang_up(id);
                    return false;
                }
            }
        }
        true
    }

    fn hang_up(&mut self, id: ClientId) {
        if let Some(stream) = self.clients.stream(id) {
            let _ = self.poll.registry().deregister(stream);
            self.clients.drop_one(id);
            for asker in self.waiting.drop_client(id) {
                self.queue.push_back(Event::AskerGone { asker });
            }
        }
    }

    fn request(&mut self, id: ClientId, line: &[u8]) {
        let speaker = self.clients.by(id).pid.0;
        if let Some(text) = self.acknowledge(line, speaker) {
            if !self.clients.answer(id, &text, false) {
                self.hang_up(id);
            }
            return;
        }
        // First: core may answer before this is over (a reload that is refused).
        self.clients.patient(id);
        let (ours, answer) = match command::parse(line) {
            Ok(r) => (r.framed, self.dispatch(id, &r)),
            Err(e) => (line.starts_with(b"["), Some((EX_USAGE, format!("{e}\n")))),
        };
        let Some((code, text)) = answer else {
            return;
        };
        self.clients.waited(id, self.now());
        let text = framed(ours, code, text);
        if !self.clients.answer(id, &text, ours) {
            self.hang_up(id);
        }
    }

    /// `None`: the answer comes when it is over.
    fn dispatch(&mut self, id: ClientId, r: &Request) -> Option<Answer> {
        let verb = match r.words.first() {
            // A person pressed return.
            None => return Some((0, String::new())),
            Some(word) => match verbs::find(word) {
                Some(v) => v,
                None => return Some((EX_USAGE, format!("{}\n", verbs::unknown(word)))),
            },
        };
        let rest: Vec<&str> = behind(r).collect();
        if let Err(e) = verb.check(&rest) {
            return Some((EX_USAGE, format!("{e}\n")));
        }
        match verb.what {
            What::Status => Some(self.status(r.json)),
            What::Workers => Some(self.workers(rest.first().copied(), r.json)),
            What::Why => Some(self.why(rest.first().copied(), r.json)),
            What::Reopen => {
                let (code, what) = self.reopen_logs();
                Some(match r.json {
                    true => {
                        let (done, what) = (code == 0, quote(&what));
                        (code, format!("{{\"reopened\":{done},\"what\":{what}}}\n"))
                    }
                    false => (code, format!("{what}\n")),
                })
            }
            What::Version => {
                let v = env!("CARGO_PKG_VERSION");
                Some(match r.json {
                    true => (0, format!("{{\"version\":{}}}\n", quote(v))),
                    false => (0, format!("{v}\n")),
                })
            }
            What::Help => Some(match verbs::named(rest.first().copied()) {
                Ok(all) if r.json => (0, report::help_json(&all)),
                Ok(all) => (0, verbs::help(&all)),
                Err(e) => (EX_USAGE, format!("{e}\n")),
            }),
            What::Stop | What::Kill => self.stop(id, verb, r),
            What::Reload => self.reload(id, r),
            What::Upgrade => refused(self.upgrade(id, r)),
            What::Rollback => self.rollback(id, r),
            What::Start => refused(self.start(id, r)),
            What::Replace => refused(self.replace(id, r)),
            What::Restart => self.restart(id, r),
            What::Resize => refused(self.resize(id, r)),
            What::Signal => refused(self.signal_workers(id, r)),
        }
    }

    fn stop(&mut self, id: ClientId, verb: &Verb, r: &Request) -> Option<Answer> {
        let hard = verb.what == What::Kill;
        let by = self.clients.by(id);
        let wait = !behind(r).any(|w| w == verbs::NO_WAIT);
        let asker = self.waiting.add(id, wait.then_some(r));
        self.queue.push_back(Event::Stop { asker, hard, by });
        if wait {
            return None;
        }
        // Of the end it does not want to hear.
        self.queue.push_back(Event::AskerGone { asker });
        Some(match r.json {
            true => (0, "{\"stopping\":true}\n".to_string()),
            false => (0, "stopping\n".to_string()),
        })
    }

    /// Core does it, and answers in the end; or at once, where nobody wants to wait.
    fn resize(&mut self, id: ClientId, r: &Request) -> Result<(), String> {
        let (no_wait, words): (Vec<&str>, Vec<&str>) =
            behind(r).partition(|w| *w == verbs::NO_WAIT);
        let to = settings::size(words.first().copied().unwrap_or_default())?;
        let (wait, by) = (no_wait.is_empty(), self.clients.by(id));
        let asker = self.waiting.add(id, Some(r));
        self.queue.push_back(Event::Resize {
            asker,
            to,
            by,
            wait,
        });
        Ok(())
    }

    /// It waits for the end from now on (or only to hear that it has begun).
    pub(super) fn asks(&mut self, id: ClientId, r: &Request, wait: bool) -> Client {
        let by = self.clients.by(id);
        (self.waiting.add(id, Some(r)), by, wait)
    }

    /// All is read again first; core does the rest, and answers in the end.
    fn reload(&mut self, id: ClientId, r: &Request) -> Option<Answer> {
        let wait = !behind(r).any(|w| w == verbs::NO_WAIT);
        let by = self.clients.by(id);
        let asker = self.waiting.add(id, Some(r));
        self.reload_for(Some((asker, by, wait)), "asked by a client");
        None
    }

    /// Of one by core, which answers in the end; of all it is a reload.
    fn restart(&mut self, id: ClientId, r: &Request) -> Option<Answer> {
        let (no_wait, words): (Vec<&str>, Vec<&str>) =
            behind(r).partition(|w| *w == verbs::NO_WAIT);
        let (target, within) = match settings::restart(&words) {
            Ok((Target::All, _)) => return self.reload(id, r),
            Ok(found) => found,
            Err(e) => return Some((EX_USAGE, format!("{e}\n"))),
        };
        let (wait, by) = (no_wait.is_empty(), self.clients.by(id));
        let asker = self.waiting.add(id, Some(r));
        self.queue.push_back(Event::Restart(Restart {
            asker,
            target,
            program: None,
            within,
            by,
            wait,
        }));
        None
    }

    fn signal_workers(&mut self, id: ClientId, r: &Request) -> Result<(), String> {
        let words: Vec<&str> = behind(r).collect();
        let (signal, target) = settings::signal_to(&words)?;
        let by = self.clients.by(id);
        let asker = self.waiting.add(id, Some(r));
        self.queue.push_back(Event::SignalWorkers {
            asker,
            signal,
            target,
            by,
        });
        Ok(())
    }

    /// What a request has come to. Of the end it is told when the end has come.
    pub(super) fn tell(&mut self, asker: Asker, outcome: Outcome) {
        let Some((id, r)) = self.waiting.map.remove(&asker) else {
            return;
        };
        let kept = self.waiting.kept.remove(&asker).unwrap_or_default();
        let (code, text) = outcome::answer(&outcome, r.json, &kept);
        let text = framed(r.framed, code, text);
        if matches!(outcome, Outcome::Ended { .. }) {
            return self.farewells.push((id, text));
        }
        self.clients.waited(id, self.now());
        if !self.clients.answer(id, &text, r.framed) {
            self.hang_up(id);
        }
    }

    fn status(&self, json: bool) -> Answer {
        let s = self.cluster.status(self.now());
        let usage = s
            .slots
            .iter()
            .map(|v| procfs::tree_usage(v.pid?.0))
            .collect();
        let m = Master {
            says: s.slots.iter().map(|v| self.status_of(v.pid)).collect(),
            ..self.master(usage)
        };
        match json {
            true => (0, report::status_json(&s, &m)),
            false => (0, report::status_text(&s, &m)),
        }
    }

    fn workers(&self, word: Option<&str>, json: bool) -> Answer {
        let details = match verbs::details(word) {
            Ok(details) => details,
            Err(e) => return (EX_USAGE, format!("{e}\n")),
        };
        let s = self.cluster.status(self.now());
        let alive = s.slots.into_iter().filter(|v| v.pid.is_some());
        let rows: Vec<Row> = alive
            .map(|view| {
                let usage = view.pid.filter(|_| details);
                let own = self.programs.of(view.program).map(|m| &m.command);
                let around = self.surroundings(view.generation);
                let words = around.argv(own.unwrap_or(&around.settings.command), view.slot);
                let word = |w: &std::ffi::CString| w.to_string_lossy().into_owned();
                Row {
                    usage: usage.and_then(|p| procfs::tree_usage(p.0)),
                    served: view
                        .pid
                        .and_then(|p| self.served.of(self.procs.by_pid(p.0)?)),
                    says: self.status_of(view.pid).filter(|_| details),
                    command: words.iter().map(word).collect(),
                    view,
                }
            })
            .collect();
        let text = match (details, json) {
            (false, false) => workers::simple_text(&rows),
            (false, true) => workers::simple_json(&rows),
            (true, false) => workers::details_text(&rows),
            (true, true) => workers::details_json(&rows),
        };
        (0, text)
    }

    fn why(&self, slot: Option<&str>, json: bool) -> Answer {
        let Snapshot {
            mut deaths,
            mut standing,
            ..
        } = self.cluster.status(self.now());
        if let Some(word) = slot {
            let wanted = self.cluster.wanted();
            let nr = word.parse::<u16>().ok();
            // One that is not there any more may still have a story.
            let known = |n: u16| n < wanted || deaths.iter().any(|d| d.who.slot.0 == n);
            match nr.filter(|n| known(*n)) {
                Some(n) => {
                    deaths.retain(|d| d.who.slot.0 == n);
                    standing.clear();
                }
                None => {
                    let last = wanted.saturating_sub(1);
                    return (
                        EX_USAGE,
                        format!("'{word}' is not a slot from 0 to {last}\n"),
                    );
                }
            }
        }
        let m = self.master(Vec::new());
        match json {
            true => (0, report::why_json(&deaths, &m)),
            false => (0, report::why_text(&standing, &deaths, &m)),
        }
    }

    fn master(&self, usage: Vec<Option<(u64, u64)>>) -> Master<'_> {
        Master {
            name: &self.claim.name,
            pid: std::process::id(),
            now: self.now(),
            usage,
            says: Vec::new(),
        }
    }
}
