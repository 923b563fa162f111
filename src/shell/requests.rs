//! What clients ask, answered: looking is answered here from a snapshot; doing goes to core.

use super::{Kind, Shell, token};
use crate::core::codes::{EX_TEMPFAIL, EX_USAGE, FAILED};
use crate::core::{Asker, Event, Outcome, Restart, Shutdown, Target, Terms, Time};
use crate::settings;
use crate::verbs::{self, What};
use crate::wire::command::{self, Request, encode_answer, encode_complaint};
use crate::wire::json::quote;
use crate::wire::outcome;
use crate::wire::ran::{Ran, Reply};
use crate::wire::stream;
use mio::Interest;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::clients::{ClientId, Heard};
use super::reload::{Change, Client};

/// An answer: exit code and text.
pub(super) type Answer = (u8, String);

/// Said by a person who wants to leave the console, and nothing else; the second is what people type
/// everywhere.
pub(super) const LEAVE: [&str; 4] = [".exit", "exit", ".quit", "quit"];

/// What cluster-service says to `exit now`.
const EXITING: &str = "Exiting now.\n";
/// Lines of one client in one turn.
const LINES: usize = 16;
/// So long a turn is about clients: an answer may need a look at every worker, and workers wait in
/// bind(2) meanwhile. Who has not had their turn is first in the next.
const TURN: Duration = Duration::from_millis(5);

/// Requests that core has not answered yet. One client may have several.
#[derive(Default, Serialize, Deserialize)]
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

    /// Who it is that waits,
    pub fn client(&self, asker: Asker) -> Option<ClientId> {
        self.map.get(&asker).map(|(client, _)| *client)
    }

    /// and what it has asked, when that is to be answered.
    pub fn take(&mut self, asker: Asker) -> Option<(ClientId, Request)> {
        self.map.remove(&asker)
    }

    /// It does not wait any more: it is answered otherwise.
    pub fn forget(&mut self, asker: Asker) {
        self.map.remove(&asker);
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

/// So many wait already that nobody else would be heard.
pub(super) fn no_room_to_wait() -> Answer {
    let why = "too many clients wait and follow already, and nothing was done: try again, or with --no-wait\n";
    (EX_TEMPFAIL, why.into())
}

/// As our client reads it, or a person.
pub(super) fn framed(ours: bool, code: u8, text: String) -> String {
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
        if knock || self.clients.doors.knocking(now) {
            let room = self.room_for_clients();
            for id in self.clients.accept(room, now) {
                let registry = self.poll.registry();
                if let Some(stream) = self.clients.stream(id) {
                    let both = Interest::READABLE | Interest::WRITABLE;
                    let _ = registry.register(stream, token(Kind::Client, id.0), both);
                }
                ready.push(id);
            }
            self.say_turned_away();
        }
        // In turn: after the one who came last the last time.
        let first = ready.iter().position(|id| *id > self.served_last);
        ready.rotate_left(first.unwrap_or(0));
        let mut unheard = BTreeSet::new();
        for id in ready {
            if self.now() - now > TURN {
                self.ready.insert((Kind::Client, id.0));
                unheard.insert(id);
                continue;
            }
            self.served_last = id;
            if !self.clients.push(id) {
                self.hang_up(id);
                continue;
            }
            if self.hear_lines(id, now) || self.clients.goes_on(id, now) {
                self.ready.insert((Kind::Client, id.0));
            }
        }
        // Who has said something that we had no time for is not late: its turn comes.
        let overdue = self.clients.overdue(now).into_iter();
        for id in overdue.filter(|id| !unheard.contains(id)) {
            self.too_slow(id, now);
        }
        self.settle();
        self.grown |= self.clients.may_be_small(now);
    }

    /// Lines of one client, no more than its share of a turn. True: there may be more.
    fn hear_lines(&mut self, id: ClientId, now: Time) -> bool {
        for _ in 0..LINES {
            match self.clients.hear(id, now) {
                Heard::Line(line) => self.request(id, &line),
                Heard::Key(line) => self.hear_key(id, &line),
                Heard::Http => self.http_turn(id),
                Heard::Dropped => {}
                Heard::Nothing => return false,
                Heard::Gone => {
                    self.hang_up(id);
                    return false;
                }
            }
            // Before the next one is answered, which may look at what this one has done.
            self.settle();
            if self.now() - now > TURN {
                return true;
            }
        }
        true
    }

    pub(super) fn hang_up(&mut self, id: ClientId) {
        if let Some(stream) = self.clients.stream(id) {
            let _ = self.poll.registry().deregister(stream);
            self.clients.drop_one(id);
            let now = self.now();
            for asker in self.waiting.drop_client(id) {
                self.jobs.nobody_waits(asker, settings::RUN_LIMIT, now);
                self.messages.gathers.asker_gone(asker, now);
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
            Ok(r) => {
                if !r.framed {
                    self.clients.set_typed(id);
                }
                (r.framed, self.dispatch(id, &r))
            }
            Err(e) => (line.starts_with(b"["), Some((EX_USAGE, format!("{e}\n")))),
        };
        let Some((code, text)) = answer else {
            return;
        };
        self.clients.waited(id, self.now());
        self.send_answer(id, ours, code, text);
    }

    /// The end has come of what it asked: what it said after that is heard now.
    pub(super) fn need_not_wait(&mut self, id: ClientId) {
        self.clients.waited(id, self.now());
        self.ready.insert((Kind::Client, id.0));
    }

    /// As who asked reads it: our client asks once, unless somebody types there.
    pub(super) fn send_answer(&mut self, id: ClientId, ours: bool, code: u8, text: String) {
        if self.clients.speaks_http(id) {
            return self.answer_asked(id, code, &text);
        }
        let console = self.clients.is_console(id);
        let text = framed(ours || console, code, text);
        if !self.clients.answer(id, &text, ours && !console) {
            self.hang_up(id);
        }
    }

    /// Is it a person who says a word of `LEAVE`, and means no verb of --command by it?
    fn wants_to_leave(&self, id: ClientId, r: &Request) -> bool {
        let typed = !r.framed && !self.clients.speaks_http(id);
        let leave = |w: &String| LEAVE.contains(&w.as_str()) && !self.has_command(w);
        typed && r.words.len() == 1 && r.words.first().is_some_and(leave)
    }

    /// `None`: the answer comes when it is over.
    pub(super) fn dispatch(&mut self, id: ClientId, r: &Request) -> Option<Answer> {
        let verb = match r.words.first() {
            // A person pressed return.
            None => return Some((0, String::new())),
            // (Our client sees to that itself.)
            Some(_) if self.wants_to_leave(id, r) => {
                self.clients.leaves(id);
                return Some((0, String::new()));
            }
            Some(word) => {
                if let Some(answered) = self.custom(id, r) {
                    return answered;
                }
                match (verbs::find(word), self.verbs_here(Some(word))) {
                    (Some(v), _) => v,
                    (None, Err(why)) => return Some((EX_USAGE, format!("{why}\n"))),
                    (None, Ok(_)) => {
                        return Some((EX_USAGE, format!("{}\n", verbs::unknown(word))));
                    }
                }
            }
        };
        let rest: Vec<&str> = behind(r).collect();
        if let Err(e) = verb.check(&rest) {
            return Some((EX_USAGE, format!("{e}\n")));
        }
        // (A stop is done for everybody.)
        let waits = verb.waits && !matches!(verb.what, What::Stop | What::Kill | What::Exit);
        if waits && !verbs::no_wait(&rest) && !self.clients.may_last(id) {
            return Some(no_room_to_wait());
        }
        match verb.what {
            What::Status if rest.first() == Some(&"watch") => Some((
                EX_USAGE,
                "status watch is for a shell; here events follow tells what happens\n".into(),
            )),
            What::Status => Some(self.status(r.json)),
            What::Workers => Some(self.workers(rest.first().copied(), r.json)),
            What::Why => Some(self.why(rest.first().copied(), r.json)),
            What::Info => Some(self.info(r.json)),
            What::Size => Some((0, format!("{}\n", self.cluster.wanted()))),
            What::Select("") => Some(self.select(rest.first().copied().unwrap_or(""), r.json)),
            What::Select(field) => Some(self.select(field, r.json)),
            What::Connections => Some(self.connections(r.json)),
            What::Health => Some(self.health(r.json)),
            What::Ecv => Some(self.ecv(r.json)),
            What::Enable => Some(self.rotate_for(id, true, &rest, r.json)),
            What::Disable => Some(self.rotate_for(id, false, &rest, r.json)),
            What::Deps => self.deps(id, r),
            What::Options => Some(self.options(r.json)),
            What::Cluster => Some(self.cluster_line(r.json)),
            What::Repl => Some(self.repl(id, r.json)),
            What::Sock => Some(self.sock(r.json)),
            What::Events => self.hear_of_events(id, r, rest.first().copied()),
            What::Logs => self.hear_logs(id, r, &rest),
            What::Debug => Some(self.debug(id, &rest.join(" "), r.json)),
            What::Emit => Some(self.emit(id, &rest, r.json)),
            What::Console => Some(self.console(id, r)),
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
            What::Version => Some(self.version(r.json)),
            What::Help => Some(self.help(r)),
            What::Stop | What::Kill | What::Exit => self.stop(id, verb.what, None, r),
            What::Shutdown => self.shutdown(id, r),
            What::Reload => self.reload(id, r),
            What::Handover => self.hand_over(id, r),
            What::Upgrade => refused(self.upgrade(id, r)),
            What::Rollback => self.rollback(id, r),
            What::Start => refused(self.start(id, r)),
            What::Replace => refused(self.replace(id, r)),
            What::Test => self.test(id, r),
            What::Restart => self.restart(id, r),
            What::Resize => refused(self.resize(id, r)),
            What::Signal => refused(self.signal_workers(id, r)),
            What::Send => Some(self.send(r)),
            What::SyncSend => self.sync_send(id, r),
        }
    }

    /// Of all it is a stop; of one slot core does it, and answers in the end.
    fn shutdown(&mut self, id: ClientId, r: &Request) -> Option<Answer> {
        let (no_wait, words): (Vec<&str>, Vec<&str>) =
            behind(r).partition(|w| *w == verbs::NO_WAIT);
        let (target, within) = match settings::whom_within(&words) {
            Ok((Target::All, within)) => return self.stop(id, What::Stop, within, r),
            Ok(found) => found,
            Err(e) => return Some((EX_USAGE, format!("{e}\n"))),
        };
        let (asker, by, wait) = self.asks(id, r, no_wait.is_empty());
        self.queue.push_back(Event::Shutdown(Shutdown {
            asker,
            target,
            within,
            by,
            wait,
        }));
        None
    }

    fn stop(
        &mut self,
        id: ClientId,
        what: What,
        within: Option<Duration>,
        r: &Request,
    ) -> Option<Answer> {
        let hard = what == What::Kill;
        let by = self.clients.by(id);
        let wait = !behind(r).any(|w| w == verbs::NO_WAIT);
        let asker = self.waiting.add(id, wait.then_some(r));
        self.queue.push_back(match (what, within) {
            (What::Exit, _) => Event::Exit { asker, by },
            (_, Some(within)) => Event::StopWithin { asker, within, by },
            (_, None) => Event::Stop { asker, hard, by },
        });
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
        let (target, within) = match settings::whom_within(&words) {
            Ok(found) => found,
            Err(e) => return Some((EX_USAGE, format!("{e}\n"))),
        };
        let (asker, by, wait) = self.asks(id, r, no_wait.is_empty());
        if target == Target::All {
            let change = Change {
                terms: Terms {
                    ready: within,
                    ..Terms::default()
                },
                ..Change::default()
            };
            self.roll(Some((asker, by, wait)), "asked by a client", change);
            return None;
        }
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

    /// What a program has come to that somebody had run. False: nobody waits for it any more.
    pub(super) fn tell_ran(&mut self, asker: Asker, ran: &Ran) -> bool {
        let Some((id, r)) = self.waiting.map.remove(&asker) else {
            return false;
        };
        self.need_not_wait(id);
        if self.clients.has_gone(id) {
            self.hang_up(id);
            return false;
        }
        let Reply { code, out, err } = ran.reply(r.json);
        if self.clients.speaks_http(id) {
            self.answer_asked(id, code, &format!("{out}{err}"));
            return true;
        }
        let console = self.clients.is_console(id);
        let text = match (r.framed || console, code, err.is_empty()) {
            (false, _, _) => format!("{out}{err}"),
            (true, 0, true) => encode_answer(0, &out),
            (true, 0, false) => {
                let frames = [encode_complaint(&err), encode_answer(0, &out)];
                frames.concat()
            }
            (true, _, _) => format!("{}{}", stream::framed(&out), encode_answer(code, &err)),
        };
        if !self.clients.answer(id, &text, r.framed && !console) {
            self.hang_up(id);
        }
        true
    }

    /// What a request has come to that core knows nothing of.
    pub(super) fn reply(&mut self, asker: Asker, with: impl FnOnce(&Request) -> Answer) {
        let Some((id, r)) = self.waiting.map.remove(&asker) else {
            return;
        };
        let (code, text) = with(&r);
        self.need_not_wait(id);
        self.send_answer(id, r.framed, code, text);
    }

    /// What a request has come to. Of the end it is told when the end has come.
    pub(super) fn tell(&mut self, asker: Asker, outcome: Outcome) {
        let Some((id, r)) = self.waiting.map.remove(&asker) else {
            return;
        };
        let kept = self.waiting.kept.remove(&asker).unwrap_or_default();
        let (code, mut text) = outcome::answer(&outcome, r.json, &kept);
        let verb = r.words.first().map_or("", String::as_str);
        let is_the_end = matches!(outcome, Outcome::Ended { .. });
        if verb == "exit" && !r.json && code == 0 {
            text = EXITING.into();
        }
        // The master ends with that code as it has been asked to.
        let code = match (verb, code) {
            ("kill", FAILED) if is_the_end => 0,
            (_, code) => code,
        };
        if is_the_end {
            let ours = r.framed || self.clients.is_console(id);
            return self.farewells.push((id, ours, code, text));
        }
        self.need_not_wait(id);
        self.send_answer(id, r.framed, code, text);
    }
}
