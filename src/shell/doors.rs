//! The doors that clients come in by: the control socket, and the ports of --monitor and of -C. Who knocks
//! is let in while there is room; over TCP no more than would leave room for those who come by the socket.

use super::carry::Carry;
use super::clients::{Client, ClientId, Clients, MAX_CLIENTS};
use super::conn::Conn;
use super::token::{Kind, token};
use crate::core::codes::EX_NOPERM;
use crate::core::{By, Pid, Time};
use crate::sys::socket::{self, Patience};
use crate::sys::{fds, process, unix};
use crate::wire::command::encode_answer;
use mio::Interest;
use mio::net::{TcpListener, UnixListener};
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::Duration;

/// So many of them over TCP.
pub const MAX_TCP: usize = 192;
/// So many more may knock.
const BACKLOG: i32 = 1024;
/// Accepted in one turn, by each door.
const ACCEPTS: usize = 16;
/// What one over TCP may leave unread in the kernel, twice as much with what that takes for itself: there may be
/// many of them, and anybody may ask for a page.
const IN_KERNEL: i32 = 128 * 1024;
/// A client for which there was no descriptor is tried again after that long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);
/// Where all those that might make room have just come it is tried again after that.
const CROWDED_AGAIN: Duration = Duration::from_millis(10);

/// One that says nothing over TCP, and is told nothing, may have gone without our hearing of it: a host that
/// is down, or one whose last word was that it says no more, which may mean that it listens. The kernel asks.
const THERE: Patience = Patience {
    keepalive: Some(Duration::from_secs(30)),
    user_timeout: None,
};

/// By which one, and so what may be said there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Gate {
    /// The control socket.
    Socket,
    /// --monitor: HTTP alone.
    Monitor,
    /// -C tcp://: HTTP, or the key and then lines.
    Port,
}

/// So many of those that there is room for may come over TCP.
pub(super) fn share_of_tcp(most: usize) -> usize {
    MAX_TCP.min(most / 4 * 3)
}

/// All of them.
#[derive(Default, Serialize, Deserialize)]
pub struct Doors {
    #[serde(with = "crate::shell::carry")]
    socket: Option<UnixListener>,
    #[serde(with = "crate::shell::carry")]
    ports: Vec<(TcpListener, Gate)>,
    /// There may be more to accept although no new edge will come.
    more: bool,
    /// There is no descriptor for the next client: try again then.
    try_again: Option<Time>,
    /// Processes of others that knocked at the socket, and their users.
    turned_away: Vec<By>,
}

/// As it is.
impl Carry for Gate {
    type As = Gate;
    fn written(&self) -> Gate {
        *self
    }
    fn taken(from: Gate) -> Result<Gate, String> {
        Ok(from)
    }
}

/// What accept(2) has come to.
enum Knock {
    Came(Conn),
    Again,
    Nobody,
    /// No descriptor, or no memory, for it: it waits, and no edge will tell of it.
    NoRoom,
}

impl Knock {
    fn of(accepted: io::Result<Conn>) -> Knock {
        match accepted {
            Ok(conn) => Knock::Came(conn),
            Err(e) => match e.kind() {
                io::ErrorKind::WouldBlock => Knock::Nobody,
                // It has gone again; the next may be there.
                io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => Knock::Again,
                _ => Knock::NoRoom,
            },
        }
    }
}

impl Doors {
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
        Ok(self.socket.insert(listener))
    }

    /// Opens a port.
    pub fn open_port(&mut self, at: SocketAddr, gate: Gate) -> io::Result<&mut TcpListener> {
        let listener = TcpListener::bind(at)?;
        THERE.set(listener.as_fd())?;
        self.ports.push((listener, gate));
        let last = self.ports.last_mut();
        last.map(|(l, _)| l)
            .ok_or_else(|| io::ErrorKind::Other.into())
    }

    /// Is there somebody to accept, as far as we know?
    pub fn knocking(&self, now: Time) -> bool {
        self.more || self.try_again.is_some_and(|at| at <= now)
    }

    /// There is more to accept.
    pub fn more(&self) -> bool {
        self.more
    }

    /// When it is to be tried again.
    pub fn deadline(&self) -> Option<Time> {
        self.try_again
    }

    /// Those who were not let in, since they are somebody else's.
    pub fn turned_away(&mut self) -> Vec<By> {
        std::mem::take(&mut self.turned_away)
    }

    /// What door that is.
    fn gate(&self, nth: usize) -> Option<Gate> {
        match nth.checked_sub(1) {
            None => Some(Gate::Socket),
            Some(nth) => self.ports.get(nth).map(|(_, gate)| *gate),
        }
    }

    /// The next one at that door.
    fn next(&self, nth: usize) -> Option<(Knock, Gate)> {
        match nth.checked_sub(1) {
            None => {
                let listener = self.socket.as_ref()?;
                let came = listener.accept().map(|(s, _)| Conn::Unix(s));
                Some((Knock::of(came), Gate::Socket))
            }
            Some(nth) => {
                let (listener, gate) = self.ports.get(nth)?;
                let came = listener.accept().map(|(s, peer)| Conn::Tcp(s, peer));
                Some((Knock::of(came), *gate))
            }
        }
    }

    /// Whose it is; `None`: somebody else's, who is told so.
    fn who(&mut self, conn: &mut Conn) -> Option<By> {
        if conn.peer().is_some() {
            return Some(By::REMOTE);
        }
        let (pid, uid) = unix::peer(conn.as_fd()).ok()?;
        let by = By { pid: Pid(pid), uid };
        if uid != 0 && uid != process::euid() {
            // Only where somebody has opened the socket's mode: its buffer takes the answer.
            let no = format!("this cluster is of uid {}, not {uid}", process::euid());
            let _ = conn.write_all(encode_answer(EX_NOPERM, &no).as_bytes());
            self.turned_away.push(by);
            return None;
        }
        Some(by)
    }
}

impl Clients {
    /// So many there is room for from now on. Those beyond that have to go: first who is silent, those over TCP
    /// before others, then who has just come; last who waits or follows. Of each the one that has said nothing
    /// for longest is the first, so whoever has just asked for what takes the room hears of its end.
    pub fn too_many(&mut self, room: usize, now: Time) -> Vec<ClientId> {
        self.most = room.min(MAX_CLIENTS);
        let over = self.map.len().saturating_sub(self.most);
        if over == 0 {
            return Vec::new();
        }
        let others = self.map.iter().filter(|(_, c)| !c.is_own());
        let turn = |c: &Client| (c.lasts(), c.is_new(now), c.gate == Gate::Socket, c.since);
        let mut all: Vec<_> = others.map(|(id, c)| (turn(c), *id)).collect();
        all.sort();
        all.into_iter().take(over).map(|(_, id)| id).collect()
    }

    /// Takes in who knocks, as far as there is room; names those who were let in, for registration.
    pub fn accept(&mut self, room: usize, now: Time) -> Vec<ClientId> {
        let mut new = Vec::new();
        self.doors.more = false;
        self.doors.try_again = None;
        self.most = room.min(MAX_CLIENTS);
        for nth in 0..=self.doors.ports.len() {
            self.accept_at(nth, now, &mut new);
        }
        new
    }

    fn accept_at(&mut self, nth: usize, now: Time, new: &mut Vec<ClientId>) {
        for _ in 0..ACCEPTS {
            let Some(gate) = self.doors.gate(nth) else {
                return;
            };
            if self.is_crowded(gate, now) {
                self.doors.try_again = Some(now + CROWDED_AGAIN);
                return;
            }
            let Some((knock, gate)) = self.doors.next(nth) else {
                return;
            };
            let mut conn = match knock {
                Knock::Came(conn) => conn,
                Knock::Again => continue,
                Knock::Nobody => return,
                Knock::NoRoom => {
                    self.doors.try_again = Some(now + ACCEPT_AGAIN);
                    return;
                }
            };
            let Some(by) = self.doors.who(&mut conn) else {
                continue;
            };
            if !self.make_room_for(gate, now) {
                continue;
            }
            if conn.peer().is_some() {
                socket::keep_small(conn.as_fd(), IN_KERNEL);
            }
            self.next += 1;
            let id = ClientId(self.next);
            let client = Client::new(conn, gate, by, now);
            self.map.insert(id, client);
            new.push(id);
        }
        self.doors.more = true;
    }

    /// One more may come by this door. Those who come over TCP make room for each other alone, and whoever
    /// comes by the socket has the place of one of them first.
    fn make_room_for(&mut self, gate: Gate, now: Time) -> bool {
        while !self.has_room_for(gate) {
            let Some(victim) = self.victim(gate, now) else {
                return false;
            };
            // Its descriptor leaves the poll by being closed: nobody has another one of it.
            self.map.remove(&victim);
        }
        true
    }

    fn has_room_for(&self, gate: Gate) -> bool {
        let over_tcp = || self.map.values().filter(|c| c.gate != Gate::Socket).count();
        let fits = self.map.len() < self.most;
        fits && (gate == Gate::Socket || over_tcp() < share_of_tcp(self.most))
    }

    /// The one that has been silent longest. Those who wait for an answer stay, and those who came a moment
    /// ago. (Not by their deadlines: who has just come has less time than who has said a line, and would
    /// have to go first, unheard.)
    fn victim(&self, gate: Gate, now: Time) -> Option<ClientId> {
        let silent = |of: &dyn Fn(Gate) -> bool| {
            let some = self.map.iter().filter(|(_, c)| of(c.gate));
            let some = some.filter(|(_, c)| !c.lasts() && !c.is_new(now));
            some.map(|(id, c)| (c.since, *id)).min()
        };
        let over_tcp = silent(&|g| g != Gate::Socket);
        let any = || (gate == Gate::Socket).then(|| silent(&|_| true)).flatten();
        over_tcp.or_else(any).map(|(_, id)| id)
    }

    /// Is there no room by this door, but in a moment? Then whoever knocks waits, in the kernel's queue.
    fn is_crowded(&self, gate: Gate, now: Time) -> bool {
        !self.has_room_for(gate)
            && self.victim(gate, now).is_none()
            && self.map.values().any(|c| c.is_new(now))
    }
}

impl super::Shell {
    /// The doors, and all who came by them, of a master that was here before us.
    pub(super) fn reopen_doors(&mut self) {
        let registry = self.poll.registry();
        let at = token(Kind::Door, 0);
        let doors = &mut self.clients.doors;
        if let Some(socket) = &mut doors.socket {
            let _ = registry.register(socket, at, Interest::READABLE);
        }
        for (port, _) in &mut doors.ports {
            let _ = registry.register(port, at, Interest::READABLE);
        }
        for (id, client) in &mut self.clients.map {
            let both = match client.is_own() {
                true => Interest::READABLE,
                false => Interest::READABLE | Interest::WRITABLE,
            };
            let _ = registry.register(&mut client.stream, token(Kind::Client, id.0), both);
            client.looks_again();
            self.ready.insert((Kind::Client, id.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::clients::Heard;
    use super::*;
    use crate::core::Time;
    use crate::wire::stream::How;
    use mio::net::UnixStream;

    const NOBODY: By = By {
        pid: Pid(0),
        uid: 0,
    };

    fn at(s: u64) -> Time {
        Time(0) + Duration::from_secs(s)
    }

    /// One more comes by that door, and what it has to say is there.
    fn comes(all: &mut Clients, gate: Gate, said: &[u8], now: Time) -> (ClientId, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(said).unwrap();
        assert!(all.make_room_for(gate, now), "no room");
        all.next += 1;
        let id = ClientId(all.next);
        let client = Client::new(Conn::Unix(ours), gate, NOBODY, now);
        all.map.insert(id, client);
        (id, theirs)
    }

    fn room_for(most: usize) -> Clients {
        Clients {
            most,
            ..Clients::default()
        }
    }

    #[test]
    fn who_has_just_come_is_heard_before_those_who_are_silent_have_all_gone() {
        let mut all = room_for(8);
        let mut crowd = Vec::new();
        for s in 0..8 {
            let (id, stream) = comes(&mut all, Gate::Socket, b"version\n", at(s));
            assert_eq!(all.hear(id, at(s)), Heard::Line(b"version".to_vec()));
            crowd.push((id, stream));
        }
        // They have ten minutes for their next lines, these have ten seconds for their first.
        for s in 10..17 {
            let one = comes(&mut all, Gate::Socket, b"status\n", at(s));
            crowd.push(one);
        }
        for (id, _) in crowd.iter().skip(8) {
            assert_eq!(all.hear(*id, at(17)), Heard::Line(b"status".to_vec()));
        }
        assert_eq!(all.map.len(), 8);
    }

    #[test]
    fn where_all_have_just_come_the_next_one_has_to_wait_a_moment() {
        let mut all = room_for(8);
        let mut crowd: Vec<_> = (0..8)
            .map(|_| comes(&mut all, Gate::Socket, b"", at(1)))
            .collect();
        assert!(all.is_crowded(Gate::Socket, at(2)), "nobody has listened");
        for (id, _) in &crowd {
            assert_eq!(all.hear(*id, at(1)), Heard::Nothing);
        }
        assert!(all.is_crowded(Gate::Socket, at(1)));
        assert!(!all.is_crowded(Gate::Socket, at(2)), "they had their time");
        // One that has said something may go.
        crowd[3].1.write_all(b"\n").unwrap();
        assert_eq!(all.hear(crowd[3].0, at(1)), Heard::Line(Vec::new()));
        assert!(!all.is_crowded(Gate::Socket, at(1)));
        assert_eq!(all.victim(Gate::Socket, at(1)), Some(crowd[3].0));
        assert_eq!(all.victim(Gate::Monitor, at(1)), None);
    }

    #[test]
    fn those_who_wait_and_follow_leave_room_for_those_who_ask_and_go() {
        let mut all = room_for(256);
        let mut crowd = Vec::new();
        let mut refused = 0;
        for n in 0..260 {
            let one = comes(&mut all, Gate::Socket, b"", at(n));
            assert_eq!(all.hear(one.0, at(n)), Heard::Nothing);
            match (all.may_last(one.0), n % 8) {
                (false, _) => refused += 1,
                (true, 0) => all.follows(one.0, Some(How::Text), true),
                (true, _) => all.patient(one.0),
            }
            crowd.push(one);
        }
        assert_eq!((all.map.len(), refused), (256, 20));
        assert_eq!(all.map.values().filter(|c| c.lasts()).count(), 240);
        // Whoever waits already may wait for something else, too.
        assert!(all.may_last(crowd[1].0));
    }

    #[test]
    fn who_is_silent_goes_first_when_there_is_less_room_and_who_waits_last() {
        let mut all = room_for(8);
        let mut crowd = Vec::new();
        for (s, gate) in [
            (1, Gate::Socket),
            (2, Gate::Socket),
            (3, Gate::Socket),
            (4, Gate::Port),
            (5, Gate::Socket),
        ] {
            let (id, stream) = comes(&mut all, gate, b"", at(s));
            assert_eq!(all.hear(id, at(s)), Heard::Nothing);
            crowd.push((id, stream));
        }
        let by_age: Vec<ClientId> = crowd.iter().map(|(id, _)| *id).collect();
        all.follows(by_age[0], Some(How::Text), false);
        all.patient(by_age[2]);
        let goes = |all: &mut Clients, room| all.too_many(room, at(5));
        assert!(goes(&mut all, 5).is_empty());
        // The second is silent, the fourth came over TCP; the last has just come.
        assert_eq!(goes(&mut all, 4), [by_age[3]]);
        let order = [3, 1, 4, 0, 2].map(|n: usize| by_age[n]);
        assert_eq!(goes(&mut all, 0), order);
        assert!(!all.has_room_for(Gate::Socket));
        // Who sits at our own terminal takes nobody's descriptor.
        all.at_our_own(NOBODY, String::new());
        assert_eq!(goes(&mut all, 0), order);
        assert!(goes(&mut all, 1000).is_empty());
        assert_eq!(all.most, MAX_CLIENTS);
    }

    #[test]
    fn those_over_tcp_leave_room_for_each_other() {
        let mut all = room_for(256);
        let mut crowd = Vec::new();
        for n in 0..200 {
            let one = comes(&mut all, Gate::Monitor, b"", at(n));
            assert_eq!(all.hear(one.0, at(n)), Heard::Nothing);
            if all.may_last(one.0) {
                all.patient(one.0);
            }
            crowd.push(one);
        }
        assert_eq!(all.map.values().filter(|c| c.lasts()).count(), 180);
        let (id, _s) = comes(&mut all, Gate::Socket, b"", at(200));
        assert!(all.may_last(id));
    }
}
