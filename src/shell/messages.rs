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
use crate::sys::closer;
use crate::wire::node_ipc::{DISCONNECT, HANDLE_REFUSED, Line, MAX_LINE, Message, What};
use crate::wire::node_ipc::{msg_of, retyped};
use crate::wire::raw::Raw;
use mio::Interest;
use mio::unix::SourceFd;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// Messages of one worker in one turn, and pieces of its channel.
const LINES: usize = 64;
const PIECES: usize = 16;
/// So long the last messages of one that has ended are heard. It may have left somebody there who goes on
/// writing, and messages may take long.
const LAST: Duration = Duration::from_millis(50);
/// So many descriptors that have come with its messages end a worker's turn. (Fewer are kept while its lines are
/// heard, for which something may be opened: there is room for these, see `room`.)
const HANDED: usize = 16;
/// So long a worker is not heard whose turn had any: to close them elsewhere takes a fork.
const RESTS: Duration = Duration::from_millis(20);
/// So long a turn is about messages: other workers wait in bind(2) meanwhile. Who has not had their
/// turn is first in the next.
const TURN: Duration = Duration::from_millis(5);

/// So many processes are looked at for one message, to find the workers that have started those it is for.
const LOOKS: usize = 128;
/// So much of a message an event shows.
const SHOWN: usize = 4096;

/// What is under way.
#[derive(Default, Serialize, Deserialize)]
pub struct Messages {
    /// Who waits for an answer of each worker.
    pub gathers: Gathers,
    /// What they have delegated.
    pub delegations: Delegations,
    /// Something has been put into the pipes of these, or there is room again.
    to_post: BTreeSet<WorkerId>,
    /// The one that was heard last.
    heard_last: u64,
    /// Those that have passed descriptors are not heard before that.
    rests: BTreeMap<WorkerId, Time>,
}

/// What became of a worker's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing more is there.
    Over,
    /// There may be more.
    More,
    /// There may be, and descriptors have come.
    Handed,
}

/// Descriptors that have come in a turn.
#[derive(Default)]
struct Handed {
    fds: Vec<OwnedFd>,
    /// They were so many that the turn ends.
    many: bool,
}

impl Handed {
    fn close_many(&mut self) {
        if self.fds.len() >= HANDED {
            self.many = true;
            closer::elsewhere(std::mem::take(&mut self.fds));
        }
    }
}

impl Messages {
    /// When something is to be given up.
    pub fn deadline(&self) -> Option<Time> {
        let gathers = self.gathers.deadline().into_iter();
        let all = gathers.chain(self.delegations.deadline());
        all.chain(self.rests.values().copied()).min()
    }

    /// Those of them that do not rest, and those whose rest is over.
    fn awake(&mut self, ready: &[u64], now: Time) -> Vec<u64> {
        let mut all: BTreeSet<u64> = ready.iter().copied().collect();
        all.extend(self.rests.keys().map(|worker| worker.0));
        self.rests.retain(|_, until| *until > now);
        all.retain(|n| !self.rests.contains_key(&WorkerId(*n)));
        all.into_iter().collect()
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
        let mut ready = self.messages.awake(ready, begun);
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
            match self.hear_channel(WorkerId(n), begun + TURN) {
                Turn::Over => {}
                Turn::More => drop(self.ready.insert((Kind::Ipc, n))),
                Turn::Handed => {
                    let until = self.now() + RESTS;
                    self.messages.rests.insert(WorkerId(n), until);
                }
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

    /// One worker's share of a turn, which ends then. What it has passed with its messages is closed at the end,
    /// all at once.
    fn hear_channel(&mut self, worker: WorkerId, until: Time) -> Turn {
        let mut handed = Handed::default();
        let turn = self.hear_pieces(worker, until, &mut handed);
        if handed.fds.is_empty() && !handed.many {
            return turn;
        }
        closer::elsewhere(handed.fds);
        Turn::Handed
    }

    fn hear_pieces(&mut self, worker: WorkerId, until: Time, handed: &mut Handed) -> Turn {
        let mut pieces = 0;
        for n in 0..LINES + PIECES {
            // (One message or piece is heard whenever it is.)
            if n > 0 && self.now() > until {
                return Turn::More;
            }
            // It may have been dismissed for what it has just said.
            let Some(pipe) = self.pipe(worker) else {
                return Turn::Over;
            };
            if let Some(line) = pipe.line() {
                self.hear_line(worker, line);
                continue;
            }
            pieces += 1;
            if pieces > PIECES || handed.many {
                return Turn::More;
            }
            match pipe.read(&mut handed.fds) {
                Read::Some => handed.close_many(),
                Read::Nothing => return Turn::Over,
                Read::Closed => {
                    self.close_ipc(worker);
                    return Turn::Over;
                }
            }
        }
        Turn::More
    }

    /// Its first process has ended: what it has said before that counts, and it says nothing more.
    pub(super) fn hear_last_messages(&mut self, worker: WorkerId) {
        let until = self.now() + LAST;
        while self.hear_channel(worker, until) != Turn::Over {
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

    /// The poll has it anew, and says at first only that there is something to read.
    pub(super) fn rewatch_pipe(&mut self, worker: WorkerId) {
        if let Some(pipe) = self.pipe(worker) {
            pipe.watched = false;
        }
        self.watch_pipe(worker);
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
