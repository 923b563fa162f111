//! What clients ask, answered: looking is answered here from a snapshot; doing goes to core.

use super::{Kind, Shell, token};
use crate::core::codes::EX_USAGE;
use crate::core::{Asker, Event, MAX_ASKERS, Phase, Pid, Time};
use crate::sys::procfs;
use crate::verbs::{self, What};
use crate::wire::command::{self, Request, encode_answer};
use crate::wire::json::quote;
use crate::wire::report::{self, Master};
use crate::wire::workers::{self, Row};
use mio::Interest;
use std::time::Duration;

use super::clients::Heard;

/// An answer: exit code and text.
type Answer = (u8, String);

/// Lines of one client in one turn.
const LINES: usize = 16;
/// So long a turn is about clients: an answer may need a look at every worker, and workers wait in
/// bind(2) meanwhile. Who has not had their turn is first in the next.
const TURN: Duration = Duration::from_millis(5);

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
        let mut ready: Vec<Asker> = ready.iter().map(|n| Asker(*n)).collect();
        if knock || self.clients.knocking(now) {
            for (id, _) in self.clients.accept(now) {
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
    fn hear_lines(&mut self, id: Asker, now: Time) -> bool {
        for _ in 0..LINES {
            match self.clients.hear(id, now) {
                Heard::Line(line) => {
                    self.request(id, &line);
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

    fn hang_up(&mut self, id: Asker) {
        if let Some(stream) = self.clients.stream(id) {
            let _ = self.poll.registry().deregister(stream);
            self.clients.drop_one(id);
            self.waiting.remove(&id);
            self.queue.push_back(Event::AskerGone { asker: id });
        }
    }

    fn request(&mut self, id: Asker, line: &[u8]) {
        let speaker = self.clients.by(id).pid.0;
        if let Some(text) = self.acknowledge(line, speaker) {
            if !self.clients.answer(id, &text, false) {
                self.hang_up(id);
            }
            return;
        }
        let (ours, answer) = match command::parse(line) {
            Ok(r) => (r.framed, self.dispatch(id, &r)),
            Err(e) => (line.starts_with(b"["), Some((EX_USAGE, format!("{e}\n")))),
        };
        let Some((code, text)) = answer else {
            return self.clients.patient(id);
        };
        let text = framed(ours, code, text);
        if !self.clients.answer(id, &text, ours) {
            self.hang_up(id);
        }
    }

    /// `None`: the answer comes when it is over.
    fn dispatch(&mut self, id: Asker, r: &Request) -> Option<Answer> {
        let verb = match r.words.first() {
            // A person pressed return.
            None => return Some((0, String::new())),
            Some(word) => match verbs::find(word) {
                Some(v) => v,
                None => return Some((EX_USAGE, format!("{}\n", verbs::unknown(word)))),
            },
        };
        let rest: Vec<&str> = r.words.iter().skip(1).map(String::as_str).collect();
        if let Err(e) = verb.check(&rest) {
            return Some((EX_USAGE, format!("{e}\n")));
        }
        let wait = !rest.contains(&verbs::NO_WAIT);
        match verb.what {
            What::Status => Some(self.status(r.json)),
            What::Workers => Some(self.workers(rest.first().copied(), r.json)),
            What::Why => Some(self.why(rest.first().copied(), r.json)),
            What::Reopen => {
                let (code, what) = self.reopen_logs();
                Some(match r.json {
                    true => (code, format!("{{\"reopened\":{}}}\n", code == 0)),
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
            What::Stop | What::Kill => {
                let hard = verb.what == What::Kill;
                let by = self.clients.by(id);
                self.queue.push_back(Event::Stop {
                    asker: id,
                    hard,
                    by,
                });
                if !wait {
                    return Some(match r.json {
                        true => (0, "{\"stopping\":true}\n".to_string()),
                        false => (0, "stopping\n".to_string()),
                    });
                }
                self.waiting.insert(id, r.clone());
                None
            }
        }
    }

    /// What one who waited for the end is told; sent when it has come.
    pub(super) fn farewell(&mut self, id: Asker, code: u8, stuck: &[Pid]) {
        let Some(r) = self.waiting.remove(&id) else {
            return;
        };
        if !matches!(self.cluster.phase(), Phase::Done(_)) {
            return self.too_many(id, &r, code);
        }
        let pids: Vec<String> = stuck.iter().map(Pid::to_string).collect();
        let text = match (r.json, pids.is_empty()) {
            (true, _) => format!("{{\"code\":{code},\"left\":[{}]}}\n", pids.join(",")),
            (false, true) => "stopped\n".to_string(),
            (false, false) => format!(
                "stopped, but not even SIGKILL has ended: {}\n",
                pids.join(" ")
            ),
        };
        let text = framed(r.framed, code, text);
        self.farewells.push((id, text));
    }

    /// It is not told when the end has come, so it hears of that now.
    fn too_many(&mut self, id: Asker, r: &Request, code: u8) {
        let text = format!("stopping, but {MAX_ASKERS} clients wait for the end already\n");
        let text = framed(r.framed, code, text);
        if !self.clients.answer(id, &text, true) {
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
        let m = self.master(usage);
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
        let around = self.surroundings();
        let alive = s.slots.into_iter().filter(|v| v.pid.is_some());
        let rows: Vec<Row> = alive
            .map(|view| {
                let usage = view.pid.filter(|_| details);
                let words = around.argv(view.slot);
                let word = |w: &std::ffi::CString| w.to_string_lossy().into_owned();
                Row {
                    usage: usage.and_then(|p| procfs::tree_usage(p.0)),
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
        let mut deaths = self.cluster.status(self.now()).deaths;
        if let Some(word) = slot {
            match word.parse::<u16>() {
                Ok(n) if usize::from(n) < self.worker_count => deaths.retain(|d| d.who.slot.0 == n),
                _ => {
                    let last = self.worker_count - 1;
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
            false => (0, report::why_text(&deaths, &m)),
        }
    }

    fn master(&self, usage: Vec<Option<(u64, u64)>>) -> Master<'_> {
        Master {
            name: &self.claim.name,
            pid: std::process::id(),
            now: self.now(),
            usage,
        }
    }
}
