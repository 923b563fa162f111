//! Programs that live as long as the master and hear what workers say: those of --on-message hear their
//! messages, and have something to say to them; each of --delegate does some work for them. Rules:
//!
//! 1. A line that a program cannot be given is counted; the first one in a row is said, and at the end of
//!    the row how many it were. So it is with lines of its own that are wrong.
//! 2. Work that a program has read when it ends is done by nobody: who waits for it is told at once. What
//!    it had not read is for the one that is run in its place.
//! 3. A reload that has reached its end has those that are named by then: the same ones go on; of the
//!    others each has `RETIRES` to finish what it was given, and is heard until then, while the new one
//!    has all that is new. Work that nobody did before has somebody as soon as there are workers that
//!    may ask for it.

use super::Shell;
use super::jobs::LAST;
use super::messages::shown;
use super::pipe::{Fault, parcel};
use super::speech::ANCESTORS;
use crate::core::delegation::{Begun, Failed, MAX_ASKS, Ticket, To, Wanted};
use crate::core::fields::Value;
use crate::core::words::bytes;
use crate::core::{Level, SlotNr, Time, WorkerId};
use crate::settings::Settings;
use crate::wire::json::quote;
use crate::wire::node_ipc::{MAX_LINE, retyped};
use crate::wire::relayed;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// So long one has that a reload does without.
const RETIRES: Duration = Duration::from_secs(10);
/// After so many lines that were right those that were wrong are history.
const RIGHT: u32 = 64;

/// Lines are shown no closer than that: one that never stops writing must not fill the log, nor take the
/// time that this costs from others.
const SHOWN_EACH: Duration = Duration::from_millis(10);

/// What one is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Role {
    /// All messages.
    Messages,
    /// The work of that name.
    Work(String),
}

/// One program.
#[derive(Serialize, Deserialize)]
struct Relay {
    /// Its number among programs.
    program: u64,
    role: Role,
    words: Vec<String>,
    /// As it is named where it is told of.
    name: String,
    /// A reload does without it.
    retires: bool,
    /// Lines that it could not be given, in a row.
    refused: u64,
    /// Lines of its own that were wrong, and how many were right since.
    wrong: u64,
    right: u32,
    /// Has it let somebody's time pass since it has answered?
    late: bool,
    /// When a line of it was shown.
    shown: Option<Time>,
}

/// All of them.
#[derive(Default, Serialize, Deserialize)]
pub struct Relays {
    all: Vec<Relay>,
    /// Of these settings: what runs, and what is about to.
    of: Option<(u32, Option<u32>)>,
}

impl Relays {
    fn get(&mut self, program: u64) -> Option<&mut Relay> {
        self.all.iter_mut().find(|r| r.program == program)
    }

    fn listeners(&self) -> Vec<u64> {
        let hears = |r: &&Relay| r.role == Role::Messages && !r.retires;
        self.all.iter().filter(hears).map(|r| r.program).collect()
    }

    fn who_does(&self, work: &str) -> Option<u64> {
        let does = |r: &&Relay| matches!(&r.role, Role::Work(name) if name == work) && !r.retires;
        self.all.iter().find(does).map(|r| r.program)
    }
}

/// Those that settings name.
fn named(s: &Settings) -> Vec<(Role, Vec<String>)> {
    let listeners = s.on_message.iter();
    let listeners = listeners.map(|words| (Role::Messages, words.clone()));
    let delegates = s.delegates.iter().filter(|(_, words)| !words.is_empty());
    let delegates = delegates.map(|(name, words)| (Role::Work(name.clone()), words.clone()));
    listeners.chain(delegates).collect()
}

impl Shell {
    /// Those run that are to.
    pub(super) fn keep_programs(&mut self) {
        let now = self.cluster.generation();
        let (newest, _) = self.recipes.newest();
        let coming = (newest != now && self.cluster.is_alive(newest)).then_some(newest);
        if self.relays.of == Some((now, coming)) || self.finished.is_some() {
            return;
        }
        self.relays.of = Some((now, coming));
        let mut wanted = named(self.settings());
        if coming.is_some() {
            let more = named(self.recipes.newest().1).into_iter();
            let new = |(role, _): &(Role, Vec<String>)| {
                *role != Role::Messages && !wanted.iter().any(|(r, _)| r == role)
            };
            let more: Vec<_> = more.filter(new).collect();
            wanted.extend(more);
        }
        let mut gone = Vec::new();
        for relay in &mut self.relays.all {
            let same = |(role, words): &(Role, Vec<String>)| {
                !relay.retires && *role == relay.role && *words == relay.words
            };
            match wanted.iter().position(same) {
                Some(at) => drop(wanted.remove(at)),
                None => {
                    // One that retires already makes room for the next one to.
                    let within = if relay.retires { LAST } else { RETIRES };
                    relay.retires = true;
                    gone.push((relay.program, within));
                }
            }
        }
        for (program, within) in gone {
            self.end_coprocess(program, within);
        }
        for (role, words) in wanted {
            self.begin_program(role, words);
        }
    }

    fn begin_program(&mut self, role: Role, words: Vec<String>) {
        let name = match &role {
            Role::Messages => format!("--on-message {}", words.join(" ")),
            Role::Work(name) => format!("--delegate {name}"),
        };
        let program = self.start_coprocess(&name, &words);
        self.relays.all.push(Relay {
            program,
            role,
            words,
            name,
            retires: false,
            refused: 0,
            wrong: 0,
            right: 0,
            late: false,
            shown: None,
        });
    }

    /// A worker's message is for those who hear them all.
    pub(super) fn tell_listeners(&mut self, worker: WorkerId, text: &str) {
        let all = self.relays.listeners();
        let Some(who) = self.cluster.fleet().who(worker).filter(|_| !all.is_empty()) else {
            return;
        };
        let line = relayed::heard(who.slot.0, who.pid.map_or(0, |p| p.0), text);
        for program in all {
            // That it does not keep up is said.
            let _ = self.tell_program(program, &line);
        }
    }

    /// A worker wants something done.
    pub(super) fn delegate(&mut self, worker: WorkerId, wanted: Wanted, text: &str) {
        let to = To::of(wanted.targets.as_ref());
        let who = self.cluster.fleet().who(worker);
        let program = self.relays.who_does(&wanted.delegate);
        let (Some(program), Some(who)) = (program, who) else {
            if let Some(expect) = &wanted.expect {
                let error = format!("nobody does {}", wanted.delegate);
                self.deliver(&answer(text, expect, Some(&error)), &to);
            }
            return;
        };
        let line = self.jobs.next_line(program);
        let ticket = Ticket { program, line };
        let now = self.now();
        self.forget_strangers(worker, &wanted);
        let delegations = &mut self.messages.delegations;
        match delegations.ask(worker, wanted, text, ticket, now) {
            Begun::Joined => {}
            Begun::Full(failed) => {
                let waiting = delegations.len();
                let why = format!(
                    "{waiting} workers' requests wait for answers (limit {MAX_ASKS}, or 16 MiB)"
                );
                self.is_behind(program, &why);
                self.fail(vec![failed], |_| why.clone());
            }
            Begun::Crowded(failed, why) => {
                let what = format!("delegates something, but {why}");
                self.at_fault(worker, Fault::Delegation, &what);
                self.fail(vec![failed], |_| why.clone());
            }
            Begun::Work => {
                let line = relayed::work(who.slot.0, who.pid.map_or(0, |p| p.0), text);
                if let Err(why) = self.tell_program(program, &line) {
                    let failed = self.messages.delegations.lost(|t| t == ticket);
                    self.fail(failed, |_| why.clone());
                }
            }
        }
    }

    /// Makes room for those who shall hear of this later, where there is none: pids that are no worker's, and
    /// of no process that one has started, hear nothing.
    fn forget_strangers(&mut self, worker: WorkerId, wanted: &Wanted) {
        let now = self.now();
        let look = self.messages.delegations.look_at(worker, wanted, now);
        let nobodys = |pid: &i32| self.worker_with(*pid, &mut { ANCESTORS }).is_none();
        let nobodys: Vec<i32> = look.into_iter().filter(nobodys).collect();
        let delegations = &mut self.messages.delegations;
        delegations.forget(worker, wanted, &nobodys);
    }

    /// An error says why it does not hear of it.
    fn tell_program(&mut self, program: u64, line: &str) -> Result<(), String> {
        let told = self.tell_coprocess(program, line.as_bytes());
        match &told {
            Ok(()) => self.keeps_up(program),
            Err(why) => self.is_behind(program, why),
        }
        told
    }

    fn is_behind(&mut self, program: u64, why: &str) {
        let Some(relay) = self.relays.get(program) else {
            return;
        };
        relay.refused += 1;
        if relay.refused == 1 {
            let name = relay.name.clone();
            let message = format!("{name} is not told what is new until there is room: {why}");
            self.say_of_program(Level::Warn, "program-behind", &name, message);
        }
    }

    fn keeps_up(&mut self, program: u64) {
        let waiting = self.messages.delegations.len();
        let eased = self.jobs.is_at_ease(program) && waiting < MAX_ASKS / 2;
        let Some(relay) = self.relays.get(program).filter(|_| eased) else {
            return;
        };
        let refused = std::mem::take(&mut relay.refused);
        if refused > 0 {
            let name = relay.name.clone();
            let message = format!("{name} keeps up again; {refused} messages did not reach it");
            self.say_of_program(Level::Info, "program-room", &name, message);
        }
    }

    /// A program has written a line.
    pub(super) fn program_writes(&mut self, program: u64, line: &[u8]) {
        let line = line.trim_ascii();
        let Some(relay) = self.relays.get(program).filter(|_| !line.is_empty()) else {
            return;
        };
        let (role, name, before) = (relay.role.clone(), relay.name.clone(), relay.shown);
        let now = self.now();
        if before.is_none_or(|t| now - t >= SHOWN_EACH) && self.hears(Level::Debug) {
            if let Some(relay) = self.relays.get(program) {
                relay.shown = Some(now);
            }
            let text = String::from_utf8_lossy(line);
            let (shown, cut) = shown(&text);
            let message = format!("{name} writes{cut}: {shown}");
            let fields = vec![("program", Value::Text(name.clone()))];
            let line = self
                .log
                .own(Level::Debug, "program-answers", fields, message);
            self.pass_on(line);
        }
        let done = match role {
            Role::Messages => self.pass_to_workers(line),
            Role::Work(work) => self.work_done(program, &work, line),
        };
        match done {
            Ok(()) => self.program_is_right(program),
            Err(why) => self.program_is_wrong(program, &why),
        }
    }

    fn pass_to_workers(&mut self, line: &[u8]) -> Result<(), String> {
        let said = relayed::said(line)?;
        let size = said.msg.len();
        if size > MAX_LINE {
            return Err(format!("msg has {size} bytes (limit {MAX_LINE})"));
        }
        let parcel = parcel(&said.msg);
        let Some(slot) = said.slot else {
            let reached = self.broadcast(&parcel);
            return match reached.told.is_empty() && reached.deaf.is_empty() {
                true => Err("no worker has a channel (--ipc node gives them one)".into()),
                false => Ok(()),
            };
        };
        let mut currents = self.cluster.currents();
        let current = currents.find(|(nr, _)| *nr == SlotNr(slot));
        drop(currents);
        let (_, worker) = current.ok_or_else(|| format!("slot {slot} has no worker"))?;
        // Whether it reads is said of it.
        match self.send_to(worker, &parcel) {
            Some(_) => Ok(()),
            None => Err(format!(
                "the worker in slot {slot} has no channel (--ipc node gives it one)"
            )),
        }
    }

    fn work_done(&mut self, program: u64, work: &str, line: &[u8]) -> Result<(), String> {
        let done = relayed::answer(line)?;
        let delegations = &mut self.messages.delegations;
        let all = delegations.answered(work, done.called.as_deref(), done.fields());
        if let (false, Some(relay)) = (all.is_empty(), self.relays.get(program)) {
            relay.late = false;
        }
        for (expect, to) in all {
            self.deliver(&answer(&done.text, &expect, None), &to);
        }
        Ok(())
    }

    fn program_is_right(&mut self, program: u64) {
        let Some(relay) = self.relays.get(program).filter(|r| r.wrong > 0) else {
            return;
        };
        relay.right += 1;
        if relay.right >= RIGHT {
            let wrong = std::mem::take(&mut relay.wrong);
            let name = &relay.name;
            let message = format!("{name} writes what it should again; {wrong} lines were dropped");
            self.say(Level::Info, "program-line-dropped", message);
        }
    }

    /// A line of it is not as it should be.
    pub(super) fn program_is_wrong(&mut self, program: u64, why: &str) {
        let Some(relay) = self.relays.get(program) else {
            return;
        };
        relay.wrong += 1;
        relay.right = 0;
        if relay.wrong == 1 {
            let name = relay.name.clone();
            let message = format!(
                "{name}: a line that it has written is dropped: {why}; this is not said again before {RIGHT} in a row were right"
            );
            self.say_of_program(Level::Warn, "program-line-dropped", &name, message);
        }
    }

    /// It has ended, and is run again: lines up to that one have gone with it.
    pub(super) fn program_ended(&mut self, program: u64, line: u64) {
        let lost = |t: Ticket| t.program == program && t.line <= line;
        let failed = self.messages.delegations.lost(lost);
        self.fail(failed, has_ended);
    }

    /// It has ended, and is not run again.
    pub(super) fn program_is_over(&mut self, program: u64) {
        let failed = self.messages.delegations.lost(|t| t.program == program);
        self.fail(failed, has_ended);
        let relay = self.relays.get(program);
        if let Some((refused @ 1.., name)) = relay.map(|r| (r.refused, r.name.clone())) {
            let message = format!("{name} has ended; {refused} messages did not reach it");
            self.say_of_program(Level::Info, "program-room", &name, message);
        }
        self.relays.all.retain(|r| r.program != program);
    }

    /// Those whose time is over.
    pub(super) fn delegations_due(&mut self, now: Time) {
        let failed = self.messages.delegations.overdue(now);
        for one in &failed {
            let Some(program) = self.relays.who_does(&one.delegate) else {
                continue;
            };
            if let Some(relay) = self.relays.get(program)
                && !std::mem::replace(&mut relay.late, true)
            {
                let name = relay.name.clone();
                let message = format!(
                    "{name} has not answered within the time that a worker gave it; who waits gets an error, and this is not said again before it has answered"
                );
                self.say_of_program(Level::Warn, "program-late", &name, message);
            }
        }
        self.fail(failed, |f| {
            format!("{} has not answered in time", f.delegate)
        });
    }

    /// They get their own messages back.
    fn fail(&mut self, all: Vec<Failed>, why: impl Fn(&Failed) -> String) {
        for failed in all {
            let text = answer(&failed.message, &failed.expect, Some(&why(&failed)));
            self.deliver(&text, &failed.to);
        }
    }
}

fn has_ended(failed: &Failed) -> String {
    format!("the program that does {} has ended", failed.delegate)
}

/// What goes to those who wait for it; in place of what is too long for their channels an error.
fn answer(text: &str, expect: &str, error: Option<&str>) -> String {
    let whole = retyped(text, expect, error);
    if whole.len() <= MAX_LINE {
        return whole;
    }
    let long = format!(
        "the answer has {} bytes (limit {})",
        whole.len(),
        bytes(MAX_LINE as u64)
    );
    let error = quote(error.unwrap_or(&long));
    format!("{{\"type\":{},\"error\":{error}}}", quote(expect))
}
