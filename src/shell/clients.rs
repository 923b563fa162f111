//! Clients, by whichever door they came. Each (`one`) is one buffer with a limit and a deadline; one that is
//! slow or hostile is dropped, and the cluster does not notice.

mod asking;
mod feeding;
mod one;

use super::conn::Conn;
use super::doors::{Doors, Gate, share_of_tcp};
use crate::core::{By, Time};
use crate::sys::socket;
use crate::wire::logs::harmless;
use crate::wire::stream::How;
use feeding::Fed;
pub use feeding::{Body, MAX_FILES};
pub use one::{Client, Hears};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::AsFd;
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
/// When all have gone memory is given back, but no more often.
const LATELY: Duration = Duration::from_secs(1);
/// So many portions of a file one is sent in a turn.
const PORTIONS: usize = 4;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ClientId(pub u64);

/// All of them, and the doors they come by.
#[derive(Default, Serialize, Deserialize)]
pub struct Clients {
    pub(super) doors: Doors,
    pub(super) map: BTreeMap<ClientId, Client>,
    pub(super) next: u64,
    /// So many there was room for when the last of them came, or a worker was to be forked.
    pub(super) most: usize,
    /// The one at our own standard input, if there is one, or was.
    pub(super) own: Option<ClientId>,
    /// The last one when memory was given back.
    pub(super) small_at: u64,
    /// and when that was.
    #[serde(skip)]
    pub(super) small_since: Option<Time>,
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
        (client.prompt, client.undecided, client.typed) = (prompt, false, true);
        self.map.insert(id, client);
        self.own = Some(id);
        id
    }

    /// The one at our own standard output, if something waits for that to take more.
    pub fn own_waits(&self) -> Option<ClientId> {
        let id = self.own?;
        let waits = !self.map.get(&id)?.output.is_empty();
        waits.then_some(id)
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
        if (c.heard_all || c.waits > 0) && c.stream.has_hung_up() {
            return Heard::Gone;
        }
        loop {
            c.decide();
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
                    c.said_all();
                    return match self.push(id) {
                        true => Heard::Nothing,
                        false => Heard::Gone,
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
        let text = match c.prompt.is_empty() {
            true => text.into(),
            // A terminal.
            false => harmless(text),
        };
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
        for _ in 0..PORTIONS {
            if c.write_out().is_err() {
                return false;
            }
            match c.feed() {
                Fed::More => {}
                Fed::All => break,
                Fed::Less => return false,
            }
        }
        !c.is_done() && c.output.len().saturating_sub(c.first) <= MAX_OUT
    }

    /// From here on it is told all that happens, or not any more; does it stay for that alone?
    pub fn follows(&mut self, id: ClientId, how: Option<How>, stays: bool) {
        if let Some(c) = self.map.get_mut(&id) {
            c.follows = how;
            c.stays = stays || c.stays && c.hears.is_some();
        }
    }

    /// May one more follow?
    pub fn may_follow(&self, id: ClientId) -> bool {
        let others = self.map.iter().filter(|(i, c)| **i != id && c.follows());
        others.count() < MAX_FOLLOWERS && self.may_last(id)
    }

    /// May one more follow, or wait for an end that may be far away, and leave room for others?
    pub fn may_last(&self, id: ClientId) -> bool {
        // Who sits at our own terminal takes nobody's place.
        if self.map.get(&id).is_some_and(Client::is_own) {
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

    /// From here on it is told what workers write, or not any more.
    pub fn hears(&mut self, id: ClientId, hears: Option<Hears>, stays: bool) {
        if let Some(c) = self.map.get_mut(&id) {
            (c.hears, c.missed_lines) = (hears, 0);
            c.stays = stays || c.stays && c.follows.is_some();
        }
    }

    /// Those who are.
    pub fn hearers(&self) -> Vec<(ClientId, Hears)> {
        let all = self.map.iter();
        all.filter_map(|(id, c)| Some((*id, c.hears?))).collect()
    }

    /// Does so much wait for it that it misses what is told?
    pub fn is_behind(&self, id: ClientId) -> bool {
        let c = self.map.get(&id);
        c.is_some_and(|c| c.output.len() > MAX_BEHIND)
    }

    /// So many lines it is not told.
    pub fn misses(&mut self, id: ClientId, lines: u64) {
        if let Some(c) = self.map.get_mut(&id) {
            c.missed_lines = c.missed_lines.saturating_add(lines);
        }
    }

    /// Lines, for one who is, and that it is not told so many behind them.
    pub fn tell_lines(&mut self, id: ClientId, text: &str, missed: u64) {
        if !text.is_empty() {
            self.add_shown(id, text);
        }
        self.misses(id, missed);
        // It is said when all is out that waits, and that may be now.
        if let Some(c) = self.map.get_mut(&id).filter(|c| c.output.is_empty()) {
            c.confess();
        }
        self.push(id);
    }

    /// Does it?
    pub fn is_following(&self, id: ClientId) -> bool {
        self.map.get(&id).is_some_and(|c| c.follows.is_some())
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
        self.show(id, text);
    }

    fn show(&mut self, id: ClientId, text: &str) {
        self.add_shown(id, text);
        self.push(id);
    }

    fn add_shown(&mut self, id: ClientId, text: &str) {
        let Some(c) = self.map.get_mut(&id) else {
            return;
        };
        c.confess();
        if c.prompt.is_empty() {
            self.add(id, text);
        } else {
            // Above the prompt.
            let text = format!("\r\u{1b}[K{}{}", harmless(text), c.prompt);
            self.add(id, text);
        }
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

    /// Somebody types there.
    pub fn set_typed(&mut self, id: ClientId) {
        if let Some(c) = self.map.get_mut(&id) {
            c.typed = true;
        }
    }

    /// Those connections that somebody types at, as far as can be told; and whose they are.
    pub fn consoles(&self) -> Vec<(ClientId, By)> {
        let all = self.map.iter().filter(|(_, c)| c.typed || c.console);
        all.map(|(id, c)| (*id, c.by)).collect()
    }

    /// How many came by the control socket, or the port in its place; and how many by --monitor.
    pub fn by_door(&self) -> (u64, u64) {
        let monitor = self
            .map
            .values()
            .filter(|c| c.gate == Gate::Monitor)
            .count();
        ((self.map.len() - monitor) as u64, monitor as u64)
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

    /// It had its time, and is dropped in the next moment: what it has not read the kernel would keep for it,
    /// and try to send, for minutes.
    pub fn forsake(&mut self, id: ClientId) {
        let c = self.map.get(&id).filter(|c| c.stream.peer().is_some());
        if let Some(c) = c.filter(|c| !c.output.is_empty() || c.body.is_some()) {
            socket::forsake(c.stream.as_fd());
        }
    }

    /// When is memory to be given back? As soon as all have gone who have come since the last time.
    fn small_from(&self) -> Option<Time> {
        let none = self.map.is_empty() && self.next > self.small_at;
        none.then(|| self.small_since.map_or(Time(0), |t| t + LATELY))
    }

    /// Is it time to give memory back? Said once.
    pub fn may_be_small(&mut self, now: Time) -> bool {
        let so = self.small_from().is_some_and(|t| now >= t);
        if so {
            (self.small_at, self.small_since) = (self.next, Some(now));
        }
        so
    }

    /// The earliest deadline.
    pub fn deadline(&self) -> Option<Time> {
        let all = self.map.values().filter_map(Client::deadline);
        let more = self.doors.deadline().into_iter().chain(self.small_from());
        all.chain(more).min()
    }

    /// Those whose deadline has passed.
    pub fn overdue(&self, now: Time) -> Vec<ClientId> {
        let late =
            |(id, c): (&ClientId, &Client)| c.deadline().is_some_and(|d| d <= now).then_some(*id);
        self.map.iter().filter_map(late).collect()
    }
}
