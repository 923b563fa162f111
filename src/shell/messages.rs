//! Messages between the workers, and between them and whoever asks us: what comes over their
//! channels is heard, in turns that have a limit, and what is for others waits in theirs, which has
//! one, too. So a worker that says too much, or does not read, is no matter to anybody else.

use super::pipe::{Fault, Parcel, Pipe, Read, parcel};
use super::{Kind, Shell, token};
use crate::core::delegation::{Delegations, To};
use crate::core::fields::Value;
use crate::core::gather::{Gathers, Heard};
use crate::core::words::human;
use crate::core::{Level, Time, WorkerId};
use crate::wire::node_ipc::{DISCONNECT, HANDLE_REFUSED, Line, MAX_LINE, Message, What};
use crate::wire::node_ipc::{msg_of, retyped};
use crate::wire::raw::Raw;
use mio::Interest;
use mio::unix::SourceFd;
use std::collections::BTreeSet;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// Messages of one worker in one turn, and pieces of its channel.
const LINES: usize = 64;
const PIECES: usize = 16;
/// So long the last messages of one that has ended are heard. It may have left somebody there who goes on
/// writing, and messages may take long.
const LAST: Duration = Duration::from_millis(50);
/// So long a turn is about messages: other workers wait in bind(2) meanwhile. Who has not had their
/// turn is first in the next.
const TURN: Duration = Duration::from_millis(5);

/// So many processes are looked at for one message, to find the workers that have started those it is for.
const LOOKS: usize = 128;
/// So much of a message an event shows.
const SHOWN: usize = 4096;

/// What is under way.
#[derive(Default)]
pub struct Messages {
    /// Who waits for an answer of each worker.
    pub gathers: Gathers,
    /// What they have delegated.
    pub delegations: Delegations,
    /// Something has been put into the pipes of these, or there is room again.
    to_post: BTreeSet<WorkerId>,
    /// The one that was heard last.
    heard_last: u64,
}

impl Messages {
    /// When something is to be given up.
    pub fn deadline(&self) -> Option<Time> {
        let gathers = self.gathers.deadline().into_iter();
        gathers.chain(self.delegations.deadline()).min()
    }
}

/// Whom a message has reached.
#[derive(Default)]
pub(super) struct Reached {
    /// These.
    pub told: Vec<WorkerId>,
    /// Not these, which do not read.
    pub deaf: Vec<WorkerId>,
}

impl Shell {
    /// What has come over the channels.
    pub(super) fn hear_channels(&mut self, ready: &[u64]) {
        let begun = self.now();
        let mut ready = ready.to_vec();
        let last = self.messages.heard_last;
        let first = ready.iter().position(|n| *n > last);
        ready.rotate_left(first.unwrap_or(0));
        for n in ready {
            if self.now() - begun > TURN {
                self.ready.insert((Kind::Ipc, n));
                continue;
            }
            self.messages.heard_last = n;
            // Perhaps it has made room.
            self.messages.to_post.insert(WorkerId(n));
            if self.hear_channel(WorkerId(n), begun + TURN) {
                self.ready.insert((Kind::Ipc, n));
            }
        }
        let now = self.now();
        self.gathers_due(now);
        self.delegations_due(now);
        self.post();
    }

    fn pipe(&mut self, worker: WorkerId) -> Option<&mut Pipe> {
        let speech = self.speech.get_mut(&worker)?;
        speech.pipe.as_deref_mut()
    }

    /// One worker's share of a turn, which ends then. True: there may be more.
    fn hear_channel(&mut self, worker: WorkerId, until: Time) -> bool {
        let mut pieces = 0;
        for n in 0..LINES + PIECES {
            // (One message or piece is heard whenever it is.)
            if n > 0 && self.now() > until {
                return true;
            }
            // It may have been dismissed for what it has just said.
            let Some(pipe) = self.pipe(worker) else {
                return false;
            };
            if let Some(line) = pipe.line() {
                self.hear_line(worker, line);
                continue;
            }
            pieces += 1;
            if pieces > PIECES {
                return true;
            }
            match pipe.read() {
                Read::Some => {}
                Read::Nothing => return false,
                Read::Closed => {
                    self.close_ipc(worker);
                    return false;
                }
            }
        }
        true
    }

    /// Its first process has ended: what it has said before that counts, and it says nothing more.
    pub(super) fn hear_last_messages(&mut self, worker: WorkerId) {
        let until = self.now() + LAST;
        while self.hear_channel(worker, until) {
            if self.now() > until {
                let what = format!(
                    "has ended, and what it has said is not heard within {}",
                    human(LAST)
                );
                self.at_fault(worker, Fault::Late, &what);
                break;
            }
        }
        self.says_no_more(worker);
    }

    fn hear_line(&mut self, worker: WorkerId, line: Line) {
        let line = match line {
            Line::TooLong => {
                let what = format!("sends a message of more than {MAX_LINE} bytes");
                return self.at_fault(worker, Fault::Long, &what);
            }
            Line::Whole(line) if line.trim_ascii().is_empty() => return,
            Line::Whole(line) => line,
        };
        let Some(message) = Message::parse(line) else {
            let what = "sends a line that is no JSON value";
            return self.at_fault(worker, Fault::Garbled, what);
        };
        let text = message.text;
        if message.to_all {
            self.broadcast(&parcel(&text));
        }
        match message.what {
            What::Internal => {}
            What::Handle => {
                self.send_to(worker, &parcel(HANDLE_REFUSED));
                let what =
                    "sends a socket along with a message, and there is nobody who could take it";
                self.at_fault(worker, Fault::Socket, what);
            }
            What::Word(word) => self.say_for(worker, vec![word]),
            What::Cmd(cmd) => match self.messages.gathers.heard(worker, &cmd, msg_of(&text)) {
                Heard::NotAwaited => self.message(worker, &text),
                Heard::Taken => {}
                Heard::Over(over) => self.gathered(over),
            },
            What::Delegate(wanted) => self.delegate(worker, *wanted, &text),
            What::BadDelegate(why) => {
                // It may wait for an answer.
                let expect = Raw::parse(&text).and_then(|raw| {
                    let [expect] = raw.members(["expect"]);
                    expect?.string()
                });
                if let Some(expect) = expect {
                    self.send_to(worker, &parcel(&retyped(&text, &expect, Some(&why))));
                }
                let what = format!("delegates something, but {why}");
                self.at_fault(worker, Fault::Delegation, &what);
            }
            What::Other => self.message(worker, &text),
        }
    }

    /// Something is dropped. Said once of each worker, or its log would be full of it.
    pub(super) fn at_fault(&mut self, worker: WorkerId, fault: Fault, what: &str) {
        let new = self.pipe(worker).is_some_and(|p| p.first(fault));
        if let (true, Some(who)) = (new, self.cluster.fleet().who(worker)) {
            let message = format!("{who} {what}: it is dropped, and so are others like it");
            self.say(Level::Warn, "message-dropped", message);
        }
    }

    /// To those who shall hear it.
    pub(super) fn deliver(&mut self, text: &str, to: &To) {
        let parcel = parcel(text);
        match to {
            To::All => drop(self.broadcast(&parcel)),
            To::Pids(pids) => {
                // Its program may be behind a wrapper; but it can name pids that are nobody's.
                let direct = pids.iter().filter_map(|pid| self.procs.by_pid(*pid));
                let mut all: BTreeSet<WorkerId> = direct.collect();
                let mut looks = LOOKS;
                for pid in pids.iter().filter(|pid| self.procs.by_pid(**pid).is_none()) {
                    all.extend(self.worker_with(*pid, &mut looks));
                }
                for worker in all {
                    self.send_to(worker, &parcel);
                }
            }
        }
    }

    /// To every worker with an open channel: also those that start, which read it when they are
    /// that far, and those that retire, which still serve.
    pub(super) fn broadcast(&mut self, parcel: &Parcel) -> Reached {
        let all: Vec<WorkerId> = self.speech.keys().copied().collect();
        let mut reached = Reached::default();
        for worker in all {
            match self.send_to(worker, parcel) {
                Some(true) => reached.told.push(worker),
                Some(false) => reached.deaf.push(worker),
                None => {}
            }
        }
        reached
    }

    /// To this one; `None`: it has no channel. False: it does not read, and there is no room.
    pub(super) fn send_to(&mut self, worker: WorkerId, parcel: &Parcel) -> Option<bool> {
        let pipe = self.pipe(worker)?;
        // (What was written since the last turn has made room.)
        let sent = pipe.put(parcel);
        let news = !sent && pipe.first(Fault::Deaf);
        self.messages.to_post.insert(worker);
        if let (true, Some(who)) = (news, self.cluster.fleet().who(worker)) {
            let most = super::pipe::MAX_WAITING;
            let message = format!(
                "{who} does not read its channel: {most} bytes of messages wait for it, and newer ones are not sent to it until there is room"
            );
            self.say(Level::Warn, "message-refused", message);
        }
        Some(sent)
    }

    /// Its programs may know what that means.
    pub(super) fn tell_to_disconnect(&mut self, worker: WorkerId) {
        if let Some(pipe) = self.pipe(worker) {
            // Full or closed: then there is the signal.
            pipe.put_anyway(&parcel(DISCONNECT));
            pipe.push();
            self.watch_pipe(worker);
        }
    }

    /// Writes what waits in the pipes that have something new in them.
    pub(super) fn post(&mut self) {
        for worker in std::mem::take(&mut self.messages.to_post) {
            if let Some(pipe) = self.pipe(worker) {
                pipe.push();
                self.watch_pipe(worker);
            }
        }
    }

    /// Who has something to read is told by the poll that there is room for more; nobody else.
    fn watch_pipe(&mut self, worker: WorkerId) {
        let Some(pipe) = self.pipe(worker) else {
            return;
        };
        let (waits, raw) = (pipe.waits(), pipe.fd().as_raw_fd());
        if std::mem::replace(&mut pipe.watched, waits) == waits {
            return;
        }
        let interest = match waits {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        let at = token(Kind::Ipc, worker.0);
        let registry = self.poll.registry();
        if let Err(e) = registry.reregister(&mut SourceFd(&raw), at, interest) {
            self.say(Level::Error, "poll-error", format!("epoll_ctl: {e}"));
        }
    }

    pub(super) fn close_ipc(&mut self, worker: WorkerId) {
        let speech = self.speech.get_mut(&worker);
        let Some(pipe) = speech.and_then(|s| s.pipe.take()) else {
            return;
        };
        self.deregister(pipe.fd());
        if let (1.., Some(who)) = (pipe.refused, self.cluster.fleet().who(worker)) {
            let n = pipe.refused;
            let message = format!("{n} messages were not sent to {who}, which did not read");
            self.say(Level::Info, "message-refused", message);
        }
        self.says_no_more(worker);
    }

    /// Nothing more comes from it, or reaches it.
    fn says_no_more(&mut self, worker: WorkerId) {
        let pid = self.cluster.fleet().who(worker).and_then(|who| who.pid);
        self.messages.delegations.gone(worker, pid.map(|p| p.0));
        for over in self.messages.gathers.gone(worker) {
            self.gathered(over);
        }
    }

    /// A message for whoever listens to all of them.
    fn message(&mut self, worker: WorkerId, text: &str) {
        self.tell_listeners(worker, text);
        let who = self.cluster.fleet().who(worker);
        let Some(who) = who.filter(|_| self.hears(Level::Debug)) else {
            return;
        };
        let (shown, cut) = shown(text);
        let pid = who.pid.map(|pid| ("pid", Value::Number(pid.to_string())));
        let fields = [("slot", Value::Number(who.slot.to_string()))];
        let fields = fields.into_iter().chain(pid);
        let fields = fields.chain([("message", Value::Text(shown.to_string()))]);
        let sentence = format!("{who} sends{cut}: {shown}");
        let line = self
            .log
            .own(Level::Debug, "message", fields.collect(), sentence);
        self.pass_on(line);
    }
}

/// So much of a message as an event shows, and what is said of the rest.
pub(super) fn shown(text: &str) -> (&str, String) {
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    let end = ends.take_while(|end| *end <= SHOWN).last().unwrap_or(0);
    let shown = text.get(..end).unwrap_or_default();
    let cut = match text.len() {
        n if n > shown.len() => format!(" ({n} bytes, cut at {SHOWN})"),
        _ => String::new(),
    };
    (shown, cut)
}
