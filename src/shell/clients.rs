//! Clients of the control socket. Each is one buffer with a limit and a deadline; one that is slow
//! or hostile is dropped, and the cluster does not notice.

use crate::core::codes::EX_NOPERM;
use crate::core::{By, Pid, Time};
use crate::sys::{fds, process, unix};
use crate::wire::command::{MAX_LINE, encode_answer};
use crate::wire::stream::{self, How};
use mio::net::{UnixListener, UnixStream};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

/// So many at once.
pub const MAX_CLIENTS: usize = 256;
/// A client for which there was no descriptor is tried again after that long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// So many more may knock.
const BACKLOG: i32 = 1024;
/// Accepted in one turn.
const ACCEPTS: usize = 16;
/// Answers that may wait for one client, behind the first.
const MAX_OUT: usize = 1024 * 1024;
/// So much may wait for one who follows before it misses something,
const MAX_BEHIND: usize = 256 * 1024;
/// and so many may follow.
const MAX_FOLLOWERS: usize = 64;
/// What a buffer keeps of its memory when it is empty.
const KEPT: usize = 4096;
/// Time to send the first line.
const FIRST_LINE: Duration = Duration::from_secs(10);
/// Time for a person to type the next.
const NEXT_LINE: Duration = Duration::from_secs(600);

/// One connection, for as long as it lasts; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// One of them.
struct Client {
    stream: UnixStream,
    /// Its process and its user.
    by: By,
    input: Vec<u8>,
    output: Vec<u8>,
    /// That of it which is the first answer, however long it is (a thousand workers have long commands).
    first: usize,
    /// By when it has to say its next line. Does not count while it waits.
    say_by: Time,
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
    /// Our own client, with somebody who types: lines come as they are typed, answers go in frames.
    console: bool,
}

impl Client {
    /// It will not ask again, and has had what it asked for.
    fn is_done(&self) -> bool {
        self.output.is_empty() && (self.last || self.heard_all && self.waits == 0)
    }

    fn deadline(&self) -> Option<Time> {
        (self.waits == 0 && self.follows.is_none()).then_some(self.say_by)
    }

    /// What it was not told is told to it now, as a number.
    fn confess(&mut self) {
        if let (Some(how), (n @ 1.., at)) = (self.follows, std::mem::take(&mut self.missed)) {
            self.output
                .extend_from_slice(stream::missed(n, at, how).as_bytes());
        }
    }
}

/// All of them, and the socket they come through.
pub struct Clients {
    listener: Option<UnixListener>,
    map: BTreeMap<ClientId, Client>,
    next: u64,
    /// There may be more to accept although no new edge will come.
    pub more_to_accept: bool,
    /// There is no descriptor for the next client: try again then.
    try_again: Option<Time>,
}

/// Where a client stands after a turn.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// A line, without its end.
    Line(Vec<u8>),
    /// Nothing whole yet.
    Nothing,
    /// It has gone, or had to.
    Gone,
}

impl Clients {
    /// Nobody yet, and nowhere to come.
    pub fn closed() -> Clients {
        Clients {
            listener: None,
            map: BTreeMap::new(),
            next: 0,
            more_to_accept: false,
            try_again: None,
        }
    }

    /// Opens the socket: for its owner alone. It gets its name when it listens and is private: who
    /// finds it can use it, and nobody finds it before.
    pub fn open(&mut self, path: &Path) -> io::Result<&mut UnixListener> {
        // Of our own, so that what it was is not somebody's file; short, since the path of a
        // socket has to be.
        let unnamed = path.with_file_name(format!(".{}", std::process::id()));
        if std::fs::symlink_metadata(&unnamed).is_ok_and(|m| m.file_type().is_socket()) {
            let _ = std::fs::remove_file(&unnamed);
        }
        let socket = unix::listen_unix(&unnamed, Some(0o600), BACKLOG)?;
        fds::add_nonblock(socket.as_fd())?;
        if let Err(e) = std::fs::rename(&unnamed, path) {
            let _ = std::fs::remove_file(&unnamed);
            return Err(e);
        }
        let listener = UnixListener::from_std(socket.into());
        Ok(self.listener.insert(listener))
    }

    /// Takes in who knocks, as far as there is room; names those who were let in, for registration.
    pub fn accept(&mut self, room: usize, now: Time) -> Vec<(ClientId, i32)> {
        let most = room.min(MAX_CLIENTS);
        let mut new = Vec::new();
        self.more_to_accept = true;
        self.try_again = None;
        for _ in 0..ACCEPTS {
            let Some(listener) = &self.listener else {
                break;
            };
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    self.more_to_accept = false;
                    // No descriptor, or no memory, for it: it waits, and no edge will tell of it.
                    let none = e.kind() == io::ErrorKind::WouldBlock;
                    self.try_again = (!none).then(|| now + ACCEPT_AGAIN);
                    break;
                }
            };
            let Ok((pid, uid)) = unix::peer(stream.as_fd()) else {
                continue;
            };
            if uid != 0 && uid != process::euid() {
                // Only where somebody has opened the socket's mode: its buffer takes the answer.
                let no = format!("this cluster is of uid {}, not {uid}", process::euid());
                let _ = (&stream).write_all(encode_answer(EX_NOPERM, &no).as_bytes());
                continue;
            }
            while self.map.len() >= most && self.make_room() {}
            if self.map.len() >= most {
                continue;
            }
            let by = By { pid: Pid(pid), uid };
            self.next += 1;
            let id = ClientId(self.next);
            new.push((id, stream.as_raw_fd()));
            let client = Client {
                stream,
                by,
                input: Vec::new(),
                output: Vec::new(),
                first: 0,
                say_by: now + FIRST_LINE,
                waits: 0,
                last: false,
                heard_all: false,
                follows: None,
                missed: (0, (0, 0)),
                console: false,
            };
            self.map.insert(id, client);
        }
        new
    }

    /// Hangs up on the one that has been silent longest. Those who wait for an answer stay.
    fn make_room(&mut self) -> bool {
        let silent = |(id, c): (&ClientId, &Client)| Some((c.deadline()?, *id));
        let victim = self.map.iter().filter_map(silent).min();
        // Its descriptor leaves the poll by being closed: nobody has another one of it.
        victim.is_some_and(|(_, id)| self.map.remove(&id).is_some())
    }

    /// Who it is.
    pub fn by(&self, id: ClientId) -> By {
        let nobody = By {
            pid: Pid(0),
            uid: u32::MAX,
        };
        self.map.get(&id).map_or(nobody, |c| c.by)
    }

    /// For registration with the poll.
    pub fn stream(&mut self, id: ClientId) -> Option<&mut UnixStream> {
        self.map.get_mut(&id).map(|c| &mut c.stream)
    }

    /// Reads what has come from one. Call again until it says Nothing or Gone.
    pub fn hear(&mut self, id: ClientId, now: Time) -> Heard {
        let Some(c) = self.map.get_mut(&id) else {
            return Heard::Gone;
        };
        if c.last {
            return Heard::Nothing;
        }
        if c.heard_all && fds::hung_up(c.stream.as_fd()) {
            return Heard::Gone;
        }
        loop {
            if let Some(end) = c.input.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = c.input.drain(..=end).collect();
                line.pop();
                c.say_by = now + NEXT_LINE;
                return Heard::Line(line);
            }
            if c.input.len() > MAX_LINE {
                return Heard::Gone;
            }
            let mut buf = [0u8; 4096];
            match c.stream.read(&mut buf) {
                // `printf 'stop\n' | nc -U` has said all, and wants to hear the answer.
                Ok(0) if !fds::hung_up(c.stream.as_fd()) => {
                    c.heard_all = true;
                    return match c.is_done() {
                        true => Heard::Gone,
                        false => Heard::Nothing,
                    };
                }
                Ok(0) => return Heard::Gone,
                Ok(n) => {
                    // One that sends without end and without a line's end runs into MAX_LINE.
                    c.input.extend(buf.iter().take(n));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Heard::Nothing,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Heard::Gone,
            }
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
        others.count() < MAX_FOLLOWERS
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
        self.add(id, text);
        self.push(id);
    }

    /// What goes out to it with the rest.
    pub fn add(&mut self, id: ClientId, text: &str) {
        if let Some(c) = self.map.get_mut(&id) {
            c.output.extend_from_slice(text.as_bytes());
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
        let typed = |c: &Client| c.console || c.follows == Some(How::Text);
        let all = self.map.iter().filter(|(_, c)| typed(c));
        all.map(|(id, c)| (*id, c.by)).collect()
    }

    /// Has it hung up, even if nobody has noticed yet?
    pub fn has_gone(&self, id: ClientId) -> bool {
        let c = self.map.get(&id);
        c.is_none_or(|c| fds::hung_up(c.stream.as_fd()))
    }

    /// Forgets one. The caller deregisters it first.
    pub fn drop_one(&mut self, id: ClientId) {
        self.map.remove(&id);
    }

    /// The earliest deadline.
    pub fn deadline(&self) -> Option<Time> {
        let all = self.map.values().filter_map(Client::deadline);
        all.chain(self.try_again).min()
    }

    /// Is there somebody to accept, as far as we know?
    pub fn knocking(&self, now: Time) -> bool {
        self.more_to_accept || self.try_again.is_some_and(|at| at <= now)
    }

    /// Those whose deadline has passed.
    pub fn overdue(&self, now: Time) -> Vec<ClientId> {
        let late =
            |(id, c): (&ClientId, &Client)| c.deadline().is_some_and(|d| d <= now).then_some(*id);
        self.map.iter().filter_map(late).collect()
    }
}
