//! Clients of the control socket. Each is one buffer with a limit and a deadline; one that is slow
//! or hostile is dropped, and the cluster does not notice.

use super::conn::Conn;
use super::doors::{Doors, Gate, share_of_tcp};
use crate::core::{By, Time};
use crate::wire::command::MAX_LINE;
use crate::wire::dialogue::{Dialogue, Turn};
use crate::wire::door::{Door, House};
use crate::wire::http::response::Way;
use crate::wire::http::{Guess, guess};
use crate::wire::routes::What;
use crate::wire::stream::{self, How};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::time::Duration;

/// So many at once.
pub const MAX_CLIENTS: usize = 256;
/// Answers that may wait for one client, behind the first.
const MAX_OUT: usize = 1024 * 1024;
/// So much may wait for one who follows before it misses something,
const MAX_BEHIND: usize = 256 * 1024;
/// and so many may follow.
const MAX_FOLLOWERS: usize = 64;
/// Of all there is room for, and of those over TCP, one in so many is kept for who asks and goes: those who
/// follow, or wait for an end, have no deadline, and nobody may take their place.
const IN_PASSING: usize = 16;
/// After so many, when all have gone, memory is given back.
const MANY: u64 = 64;
/// What a buffer keeps of its memory when it is empty.
const KEPT: usize = 4096;
/// Time to send the first line, or a request.
pub const FIRST_LINE: Duration = Duration::from_secs(10);
/// Time to read an answer over HTTP, and then to ask the next.
const NEXT_REQUEST: Duration = Duration::from_secs(60);
/// Time to read the last answer and to hang up: what is still being sent is read meanwhile, or the answer
/// would be lost with it.
const LINGER: Duration = Duration::from_secs(10);
/// Read at once from one.
const PIECE: usize = 16 * 1024;
/// Whoever has just come makes no room for others for that long.
const MOMENT: Duration = Duration::from_millis(20);
/// Time for a person to type the next.
const NEXT_LINE: Duration = Duration::from_secs(600);

/// One connection, for as long as it lasts; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// One of them.
pub struct Client {
    stream: Conn,
    /// By which door it came.
    pub(super) gate: Gate,
    /// Does it have to say the key before anything else?
    locked: bool,
    /// Is it not clear yet whether it speaks HTTP?
    undecided: bool,
    /// What it says is HTTP.
    http: Option<Box<Http>>,
    /// Its process and its user.
    by: By,
    input: Vec<u8>,
    output: Vec<u8>,
    /// That of it which is the first answer, however long it is (a thousand workers have long commands).
    first: usize,
    /// By when it has to say its next line. Does not count while it waits.
    say_by: Time,
    /// When it came, or last said something whole, or was last told what it waited for: it is silent since.
    pub(super) since: Time,
    /// Has it said something whole?
    spoke: bool,
    /// Has all been read once that was there? When much is to be done that takes a while.
    heard: bool,
    /// Answers that take their time.
    waits: u32,
    /// To be closed once the output is out.
    last: bool,
    /// It will say no more, but may still listen.
    heard_all: bool,
    /// Is it told all that happens?
    follows: Option<How>,
    /// What it was not told of that, since it did not read; and when the last of it was.
    missed: (u64, (u64, u32)),
    /// What stands at the end of the screen of who types at ours.
    prompt: String,
    /// Our own client, with somebody who types: lines come as they are typed, answers go in frames.
    console: bool,
}

/// One that speaks HTTP.
#[derive(Default)]
struct Http {
    dialogue: Dialogue,
    /// Has something come that was not looked at?
    due: bool,
    /// Who has asked what, and how it is to be answered.
    asked: Option<(What, Way)>,
    /// Is the answer to that JSON?
    json: bool,
    /// Was it told that nothing more is said?
    ended: bool,
}

impl Client {
    /// One that has just come.
    pub(super) fn new(stream: Conn, gate: Gate, by: By, now: Time) -> Client {
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
            waits: 0,
            last: false,
            heard_all: false,
            follows: None,
            missed: (0, (0, 0)),
            prompt: String::new(),
            console: false,
        }
    }

    /// It will not ask again, and has had what it asked for.
    fn is_done(&self) -> bool {
        // (Over HTTP it hangs up itself, in time.)
        let last = self.last && self.http.is_none();
        self.output.is_empty() && (last || self.heard_all && self.waits == 0)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        // Whoever sits at our own terminal may take their time.
        let own = matches!(self.stream, Conn::Own);
        (!own && !self.lasts()).then_some(self.say_by)
    }

    fn speaks(&mut self, now: Time) {
        (self.since, self.spoke) = (now, true);
    }

    /// Has it had no time yet to say anything?
    pub(super) fn is_new(&self, now: Time) -> bool {
        !self.spoke && (!self.heard || now - self.since < MOMENT)
    }

    /// Does it follow, or wait for an end that may be far away?
    pub(super) fn lasts(&self) -> bool {
        self.waits > 0 || self.follows.is_some()
    }

    /// Is it not clear yet? Whoever has typed a line, or sends frames, goes on so.
    fn may_be_http(&self) -> bool {
        !self.console && self.undecided
    }

    /// Its last answer is out, if so: it is told that nothing follows.
    fn end_writing(&mut self) {
        if let Some(http) = &mut self.http
            && self.last
            && self.output.is_empty()
            && !std::mem::replace(&mut http.ended, true)
        {
            self.stream.end_writing();
        }
    }

    fn becomes_http(&mut self) {
        let mut http = Box::<Http>::default();
        http.dialogue.hear(&std::mem::take(&mut self.input));
        http.due = true;
        (self.http, self.undecided) = (Some(http), false);
    }

    fn locked_out(&mut self) {
        self.undecided = false;
    }

    /// So many bytes may be read.
    fn room(&self) -> usize {
        match &self.http {
            // What comes behind the last request is read to be dropped.
            Some(http) if !self.last => http.dialogue.room(),
            Some(_) | None => PIECE,
        }
    }

    fn take(&mut self, bytes: &[u8], now: Time) {
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
    fn heard(&mut self, now: Time) -> Option<Heard> {
        if let Some(http) = &mut self.http {
            return match (self.waits, http.due) {
                _ if self.last => None,
                // One after the other.
                (1.., _) => Some(Heard::Nothing),
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
    fn confess(&mut self) {
        if let (Some(how), (n @ 1.., at)) = (self.follows, std::mem::take(&mut self.missed)) {
            self.output
                .extend_from_slice(stream::missed(n, at, how).as_bytes());
        }
    }
}

/// All of them, and the doors they come by.
#[derive(Default)]
pub struct Clients {
    pub(super) doors: Doors,
    pub(super) map: BTreeMap<ClientId, Client>,
    pub(super) next: u64,
    /// So many there was room for when the last of them came.
    pub(super) most: usize,
    /// The last one when memory was given back.
    pub(super) small_at: u64,
}

/// Where a client stands after a turn.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A line, without its end.
    Line(Vec<u8>),
    /// The key, or what it takes for that, without a line's end.
    Key(Vec<u8>),
    /// Something of HTTP: see `turn`.
    Http,
    /// Something that nobody wants to know any more.
    Dropped,
    /// Nothing whole yet.
    Nothing,
    /// It has gone, or had to.
    Gone,
}

impl Clients {
    /// One at our own standard input; with a prompt if that is a terminal.
    pub fn at_our_own(&mut self, by: By, prompt: String) -> ClientId {
        self.next += 1;
        let id = ClientId(self.next);
        let mut client = Client::new(Conn::Own, Gate::Socket, by, Time(u64::MAX));
        (client.prompt, client.undecided) = (prompt, false);
        self.map.insert(id, client);
        id
    }

    /// Who it is.
    pub fn by(&self, id: ClientId) -> By {
        self.map.get(&id).map_or(By::REMOTE, |c| c.by)
    }

    /// For registration with the poll.
    pub fn stream(&mut self, id: ClientId) -> Option<&mut Conn> {
        self.map.get_mut(&id).map(|c| &mut c.stream)
    }

    /// Reads what has come from one. Call again until it says Nothing or Gone.
    pub fn hear(&mut self, id: ClientId, now: Time) -> Heard {
        let Some(c) = self.map.get_mut(&id) else {
            return Heard::Gone;
        };
        if c.last && c.http.is_none() {
            return Heard::Nothing;
        }
        if c.heard_all && c.stream.has_hung_up() {
            return Heard::Gone;
        }
        loop {
            if c.http.is_none() && !c.input.is_empty() && c.may_be_http() {
                match guess(&c.input) {
                    Guess::More => {}
                    Guess::Http => c.becomes_http(),
                    Guess::Words => c.locked_out(),
                }
            }
            if let Some(heard) = c.heard(now) {
                return heard;
            }
            let mut buf = [0u8; PIECE];
            let most = c.room().min(buf.len());
            let Some(buf) = buf.get_mut(..most) else {
                return Heard::Nothing;
            };
            match c.stream.read(buf) {
                // `printf 'stop\n' | nc -U` has said all, and wants to hear the answer.
                Ok(0) if !c.stream.has_hung_up() && !c.last => {
                    c.heard_all = true;
                    return match c.is_done() {
                        true => Heard::Gone,
                        false => Heard::Nothing,
                    };
                }
                Ok(0) => return Heard::Gone,
                Ok(_) if c.last => return Heard::Dropped,
                Ok(n) => c.take(buf.get(..n).unwrap_or_default(), now),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    c.heard = true;
                    return Heard::Nothing;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Heard::Gone,
            }
        }
    }

    /// The next step of one that speaks HTTP.
    pub fn turn(&mut self, id: ClientId, house: &House<'_>, at: u64) -> Turn {
        let Some(c) = self.map.get_mut(&id) else {
            return Turn::Wait;
        };
        let door = match c.gate {
            Gate::Socket => Door::Control,
            Gate::Monitor | Gate::Port => Door::Tcp,
        };
        match &mut c.http {
            Some(http) => http.dialogue.turn(door, house, Some(at)),
            None => Turn::Wait,
        }
    }

    /// What it has said already is to be looked at.
    pub fn look_again(&mut self, id: ClientId) {
        if let Some(http) = self.map.get_mut(&id).and_then(|c| c.http.as_mut()) {
            http.due = true;
        }
    }

    /// Is the answer that it waits for JSON?
    pub fn as_json(&mut self, id: ClientId, json: bool) {
        if let Some(http) = self.map.get_mut(&id).and_then(|c| c.http.as_mut()) {
            http.json = json;
        }
    }

    /// The same, told.
    pub fn is_json(&self, id: ClientId) -> bool {
        let http = self.map.get(&id).and_then(|c| c.http.as_ref());
        http.is_some_and(|h| h.json)
    }

    /// That is what it has asked.
    pub fn asked(&mut self, id: ClientId, what: What, way: Way) {
        if let Some(http) = self.map.get_mut(&id).and_then(|c| c.http.as_mut()) {
            http.asked = Some((what, way));
        }
    }

    /// What it has asked, if it speaks HTTP: to be answered once.
    pub fn take_asked(&mut self, id: ClientId) -> Option<(What, Way)> {
        self.map.get_mut(&id)?.http.as_mut()?.asked.take()
    }

    /// Does it speak HTTP?
    pub fn speaks_http(&self, id: ClientId) -> bool {
        self.map.get(&id).is_some_and(|c| c.http.is_some())
    }

    /// Has a request of it begun that is not whole?
    pub fn is_asking(&self, id: ClientId) -> bool {
        let http = self.map.get(&id).and_then(|c| c.http.as_ref());
        http.is_some_and(|h| !h.dialogue.is_idle())
    }

    /// An answer over HTTP, and whether another request may follow. False: it is gone.
    pub fn answer_http(&mut self, id: ClientId, bytes: &[u8], goes_on: bool, now: Time) -> bool {
        let Some(c) = self.map.get_mut(&id) else {
            return false;
        };
        if c.output.is_empty() {
            c.first = bytes.len();
        }
        c.output.extend_from_slice(bytes);
        c.say_by = match goes_on {
            true => now + NEXT_REQUEST,
            false => now + LINGER,
        };
        c.speaks(now);
        if let Some(http) = &mut c.http {
            // What has come behind it is looked at now.
            if !goes_on {
                http.dialogue.end();
            }
        }
        c.last |= !goes_on;
        self.push(id)
    }

    /// What it has asked has no end but that of the connection: it asks nothing more.
    pub fn streams(&mut self, id: ClientId) {
        if let Some(http) = self.map.get_mut(&id).and_then(|c| c.http.as_mut()) {
            http.dialogue.end();
        }
    }

    /// The address that it has asked, and its own.
    pub fn ends(
        &self,
        id: ClientId,
    ) -> (Option<std::net::SocketAddr>, Option<std::net::SocketAddr>) {
        let stream = self.map.get(&id).map(|c| &c.stream);
        (stream.and_then(Conn::asked), stream.and_then(Conn::peer))
    }

    /// It has said the key.
    pub fn unlock(&mut self, id: ClientId) {
        if let Some(c) = self.map.get_mut(&id) {
            c.locked = false;
        }
    }

    /// It waits for the end of what it asked: no deadline runs.
    pub fn patient(&mut self, id: ClientId) {
        if let Some(c) = self.map.get_mut(&id) {
            c.waits += 1;
        }
    }

    /// The end has come; what is to be said of it follows.
    pub fn waited(&mut self, id: ClientId, now: Time) {
        if let Some(c) = self.map.get_mut(&id) {
            c.waits = c.waits.saturating_sub(1);
            c.say_by = now + NEXT_LINE;
            c.speaks(now);
        }
    }

    /// Answers; after a `last` one it is hung up on. False: it is gone.
    pub fn answer(&mut self, id: ClientId, text: &str, last: bool) -> bool {
        let Some(c) = self.map.get_mut(&id) else {
            return false;
        };
        if c.output.is_empty() {
            c.first = text.len();
        }
        c.output.extend_from_slice(text.as_bytes());
        c.output.extend_from_slice(c.prompt.as_bytes());
        c.last |= last;
        self.push(id)
    }

    /// Writes what waits. False: it is gone.
    pub fn push(&mut self, id: ClientId) -> bool {
        let Some(c) = self.map.get_mut(&id) else {
            return false;
        };
        while !c.output.is_empty() {
            match c.stream.write(&c.output) {
                Ok(n) => {
                    c.first = c.first.saturating_sub(n);
                    drop(c.output.drain(..n));
                    if c.output.is_empty() {
                        c.output.shrink_to(KEPT);
                        c.confess();
                        c.end_writing();
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        !c.is_done() && c.output.len().saturating_sub(c.first) <= MAX_OUT
    }

    /// From here on it is told all that happens, or not any more.
    pub fn follows(&mut self, id: ClientId, how: Option<How>) {
        if let Some(c) = self.map.get_mut(&id) {
            c.follows = how;
        }
    }

    /// May one more follow?
    pub fn may_follow(&self, id: ClientId) -> bool {
        let others = self
            .map
            .iter()
            .filter(|(i, c)| **i != id && c.follows.is_some());
        others.count() < MAX_FOLLOWERS && self.may_last(id)
    }

    /// May one more follow, or wait for an end that may be far away, and leave room for others?
    pub fn may_last(&self, id: ClientId) -> bool {
        // Who sits at our own terminal takes nobody's place.
        let own = |c: &Client| matches!(c.stream, Conn::Own);
        if self.map.get(&id).is_some_and(own) {
            return true;
        }
        let tcp = |c: &Client| c.gate != Gate::Socket;
        let by_tcp = self.map.get(&id).is_some_and(tcp);
        let others = self.map.iter().filter(|(i, c)| **i != id && c.lasts());
        let (over_tcp, by_socket): (Vec<_>, Vec<_>) = others.partition(|(_, c)| tcp(c));
        let most = |of: usize| of - of / IN_PASSING;
        over_tcp.len() + by_socket.len() < most(self.most)
            && (!by_tcp || over_tcp.len() < most(share_of_tcp(self.most)))
    }

    /// Those who do.
    pub fn followers(&self) -> Vec<(ClientId, How)> {
        let all = self.map.iter();
        all.filter_map(|(id, c)| Some((*id, c.follows?))).collect()
    }

    /// An event, for one who follows. One that has gone is found gone by the poll.
    pub fn tell(&mut self, id: ClientId, text: &str, at: (u64, u32)) {
        let Some(c) = self.map.get_mut(&id) else {
            return;
        };
        if c.output.len() > MAX_BEHIND {
            c.missed = (c.missed.0 + 1, at);
            return;
        }
        c.confess();
        if c.prompt.is_empty() {
            self.add(id, text);
        } else {
            // Above the prompt.
            let text = format!("\r\u{1b}[K{text}{}", c.prompt);
            self.add(id, text);
        }
        self.push(id);
    }

    /// What goes out to it with the rest.
    pub fn add(&mut self, id: ClientId, text: impl AsRef<[u8]>) {
        if let Some(c) = self.map.get_mut(&id) {
            c.output.extend_from_slice(text.as_ref());
        }
    }

    /// It has nothing more to say, and is hung up on.
    pub fn leaves(&mut self, id: ClientId) {
        if let Some(c) = self.map.get_mut(&id) {
            c.last = true;
        }
    }

    /// It is a console of our own client.
    pub fn set_console(&mut self, id: ClientId) {
        if let Some(c) = self.map.get_mut(&id) {
            c.console = true;
        }
    }

    /// Is it?
    pub fn is_console(&self, id: ClientId) -> bool {
        self.map.get(&id).is_some_and(|c| c.console)
    }

    /// Those connections that somebody types at, as far as can be told: our consoles, and those that
    /// follow in lines for people; and whose they are.
    pub fn consoles(&self) -> Vec<(ClientId, By)> {
        let own = |c: &Client| matches!(c.stream, Conn::Own);
        let typed = |c: &Client| own(c) || c.console || c.follows == Some(How::Text);
        let all = self.map.iter().filter(|(_, c)| typed(c));
        all.map(|(id, c)| (*id, c.by)).collect()
    }

    /// Has it hung up, even if nobody has noticed yet?
    pub fn has_gone(&self, id: ClientId) -> bool {
        let c = self.map.get(&id);
        c.is_none_or(|c| c.stream.has_hung_up())
    }

    /// Forgets one. The caller deregisters it first.
    pub fn drop_one(&mut self, id: ClientId) {
        self.map.remove(&id);
    }

    /// Have all gone, and were many? Said once.
    pub fn may_be_small(&mut self) -> bool {
        let so = self.map.is_empty() && self.next - self.small_at >= MANY;
        if so {
            self.small_at = self.next;
        }
        so
    }

    /// The earliest deadline.
    pub fn deadline(&self) -> Option<Time> {
        let all = self.map.values().filter_map(Client::deadline);
        all.chain(self.doors.deadline()).min()
    }

    /// Those whose deadline has passed.
    pub fn overdue(&self, now: Time) -> Vec<ClientId> {
        let late =
            |(id, c): (&ClientId, &Client)| c.deadline().is_some_and(|d| d <= now).then_some(*id);
        self.map.iter().filter_map(late).collect()
    }
}
