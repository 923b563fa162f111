//! One client: its buffers, what it speaks, and by when it has to. What it said is understood here as far
//! as lines and requests go, what they mean elsewhere.

use super::super::conn::Conn;
use super::super::doors::Gate;
use super::feeding::Body;
use super::{FIRST_LINE, Heard, MOMENT, NEXT_LINE, PIECE};
use crate::core::{By, Time};
use crate::wire::command::MAX_LINE;
use crate::wire::dialogue::Dialogue;
use crate::wire::http::response::Way;
use crate::wire::http::{Guess, guess};
use crate::wire::logs;
use crate::wire::routes::What;
use crate::wire::sse;
use crate::wire::stream::{self, How};
use serde::{Deserialize, Serialize};

/// One of them.
#[derive(Serialize, Deserialize)]
pub struct Client {
    pub(in crate::shell) stream: Conn,
    /// By which door it came.
    pub(in crate::shell) gate: Gate,
    /// Does it have to say the key before anything else?
    pub(super) locked: bool,
    /// Is it not clear yet whether it speaks HTTP?
    pub(super) undecided: bool,
    /// What it says is HTTP.
    pub(super) http: Option<Box<Http>>,
    /// Its process and its user.
    pub(super) by: By,
    #[serde(with = "crate::shell::carry")]
    pub(super) input: Vec<u8>,
    #[serde(with = "crate::shell::carry")]
    pub(super) output: Vec<u8>,
    /// That of it which is the first answer, however long it is (a thousand workers have long commands).
    pub(super) first: usize,
    /// By when it has to say its next line. Does not count while it waits.
    pub(super) say_by: Time,
    /// When it came, or last said something whole, or was last told what it waited for: it is silent since.
    pub(in crate::shell) since: Time,
    /// Has it said something whole?
    pub(super) spoke: bool,
    /// Has all been read once that was there? When much is to be done that takes a while.
    pub(super) heard: bool,
    /// A file that it is being sent, behind what waits,
    pub(super) body: Option<Body>,
    /// whether something of it was read since that was looked at,
    pub(super) moved: bool,
    /// and whether it took no more the last time.
    pub(super) stuck: bool,
    /// Answers that take their time.
    pub(super) waits: u32,
    /// To be closed once the output is out.
    pub(super) last: bool,
    /// It will say no more, but may still listen.
    pub(super) heard_all: bool,
    /// Is it told all that happens?
    pub(super) follows: Option<How>,
    /// Is it told what workers write, and of which slot?
    pub(super) hears: Option<Hears>,
    /// Lines that it was not told of, since it did not read.
    pub(super) missed_lines: u64,
    /// Is that what it is here for, though it will say no more? (Somebody who types asks for other things
    /// besides, and says by the end of that that it is over.)
    pub(super) stays: bool,
    /// What it was not told of that, since it did not read; and when the last of it was.
    pub(super) missed: (u64, (u64, u32)),
    /// What stands at the end of the screen of who types at ours.
    pub(super) prompt: String,
    /// Does somebody type there, as far as can be told?
    pub(super) typed: bool,
    /// Our own client, with somebody who types: lines come as they are typed, answers go in frames.
    pub(super) console: bool,
}

/// Who is told what workers write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hears {
    /// Of this slot alone.
    pub slot: Option<u16>,
    pub how: How,
}

/// One that speaks HTTP.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Http {
    pub(super) dialogue: Dialogue,
    /// Has something come that was not looked at?
    pub(super) due: bool,
    /// Who has asked what, and how it is to be answered.
    pub(super) asked: Option<(What, Way)>,
    /// Is the answer to that JSON?
    pub(super) json: bool,
    /// Was it told that nothing more is said?
    pub(super) ended: bool,
}

impl Client {
    /// One that has just come.
    pub(in crate::shell) fn new(stream: Conn, gate: Gate, by: By, now: Time) -> Client {
        Client {
            stream,
            gate,
            locked: gate == Gate::Port,
            undecided: gate != Gate::Monitor,
            http: (gate == Gate::Monitor).then(Box::default),
            by,
            input: Vec::new(),
            output: Vec::new(),
            first: 0,
            say_by: now + FIRST_LINE,
            since: now,
            spoke: false,
            heard: false,
            body: None,
            moved: false,
            stuck: false,
            waits: 0,
            last: false,
            heard_all: false,
            follows: None,
            hears: None,
            missed_lines: 0,
            stays: false,
            missed: (0, (0, 0)),
            prompt: String::new(),
            typed: false,
            console: false,
        }
    }

    /// What it said that was no whole request is looked at again by who did not see it before.
    pub(in crate::shell) fn looks_again(&mut self) {
        if let Some(http) = &mut self.http {
            http.due |= !http.dialogue.is_idle();
        }
    }

    /// It will not ask again, and has had what it asked for.
    pub(super) fn is_done(&self) -> bool {
        // (Over HTTP it hangs up itself, in time.)
        let last = self.last && self.http.is_none();
        let listens = self.waits > 0 || self.follows() && self.stays;
        self.output.is_empty() && (last || self.heard_all && !listens)
    }

    /// It will say no more. Over TCP one that listens on cannot be told from one that has gone, before
    /// something is sent to it: so a stream gets a line that means nothing. (For others the kernel asks,
    /// in its time: see `doors`.)
    pub(super) fn said_all(&mut self) {
        let knows = std::mem::replace(&mut self.heard_all, true);
        if !knows && self.stream.peer().is_some() && self.follows == Some(How::Sse) {
            self.output.extend_from_slice(sse::HEARTBEAT.as_bytes());
        }
    }

    pub(in crate::shell) fn deadline(&self) -> Option<Time> {
        // Whoever sits at our own terminal may take their time.
        (!self.is_own() && !self.lasts()).then_some(self.say_by)
    }

    /// Does it sit at our own terminal?
    pub(in crate::shell) fn is_own(&self) -> bool {
        matches!(self.stream, Conn::Own)
    }

    pub(super) fn speaks(&mut self, now: Time) {
        (self.since, self.spoke) = (now, true);
    }

    /// Has it had no time yet to say anything?
    pub(in crate::shell) fn is_new(&self, now: Time) -> bool {
        !self.spoke && (!self.heard || now - self.since < MOMENT)
    }

    /// Does it follow, what happens or what workers write?
    pub(super) fn follows(&self) -> bool {
        self.follows.is_some() || self.hears.is_some()
    }

    /// Does it follow, or wait for an end that may be far away?
    pub(in crate::shell) fn lasts(&self) -> bool {
        self.waits > 0 || self.follows()
    }

    /// Its last answer is out, if so: it is told that nothing follows.
    pub(super) fn end_writing(&mut self) {
        if let Some(http) = &mut self.http
            && self.last
            && self.output.is_empty()
            && !std::mem::replace(&mut http.ended, true)
        {
            self.stream.end_writing();
        }
    }

    /// Does it speak HTTP? Its first line says so, or that it never will.
    pub(super) fn decide(&mut self) {
        if !self.undecided || self.input.is_empty() {
            return;
        }
        match guess(&self.input) {
            Guess::More => {}
            Guess::Words => self.undecided = false,
            Guess::Http => {
                let mut http = Box::<Http>::default();
                http.dialogue.hear(&std::mem::take(&mut self.input));
                http.due = true;
                (self.http, self.undecided) = (Some(http), false);
            }
        }
    }

    /// So many bytes may be read.
    pub(super) fn room(&self) -> usize {
        match &self.http {
            // What comes behind the last request is read to be dropped.
            Some(http) if !self.last => http.dialogue.room(),
            Some(_) | None => PIECE,
        }
    }

    pub(super) fn take(&mut self, bytes: &[u8], now: Time) {
        match &mut self.http {
            Some(http) => {
                if http.dialogue.is_idle() {
                    self.say_by = now + FIRST_LINE;
                }
                http.dialogue.hear(bytes);
                http.due = true;
            }
            // One that sends without end and without a line's end runs into MAX_LINE.
            None => self.input.extend_from_slice(bytes),
        }
    }

    /// What there is without reading on.
    pub(super) fn heard(&mut self, now: Time) -> Option<Heard> {
        // One after the other; that it says no more is no reason not to send it the rest.
        if self.body.is_some() {
            return Some(Heard::Nothing);
        }
        if let Some(http) = &mut self.http {
            return match (self.waits, http.due) {
                _ if self.last => None,
                // One after the other; and who does not read what it has asked for is not heard any further.
                (1.., _) => Some(Heard::Nothing),
                (0, true) if !self.output.is_empty() => Some(Heard::Nothing),
                (0, true) => {
                    http.due = false;
                    Some(Heard::Http)
                }
                (0, false) => None,
            };
        }
        if self.undecided {
            return None;
        }
        // What is asked is answered in that order: the next line is not even read before that.
        if self.waits > 0 {
            return Some(Heard::Nothing);
        }
        if let Some(end) = self.input.iter().position(|b| *b == b'\n') {
            let mut line: Vec<u8> = self.input.drain(..=end).collect();
            line.pop();
            self.say_by = now + NEXT_LINE;
            self.speaks(now);
            return Some(match self.locked {
                true => Heard::Key(line),
                false => Heard::Line(line),
            });
        }
        (self.input.len() > MAX_LINE).then_some(Heard::Gone)
    }

    /// What it was not told is told to it now, as a number.
    pub(super) fn confess(&mut self) {
        if let (Some(how), (n @ 1.., at)) = (self.follows, std::mem::take(&mut self.missed)) {
            self.output
                .extend_from_slice(stream::missed(n, at, how).as_bytes());
        }
        if let (Some(hears), n @ 1..) = (self.hears, std::mem::take(&mut self.missed_lines)) {
            let text = logs::missed(n, hears.how);
            self.output.extend_from_slice(text.as_bytes());
        }
    }
}
