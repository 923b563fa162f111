//! The doors that clients come in by: the control socket, and the ports of --monitor and of -C. Who knocks
//! is let in while there is room; over TCP no more than would leave room for those who come by the socket.

use super::clients::{Client, ClientId, Clients, FIRST_LINE, MAX_CLIENTS};
use super::conn::Conn;
use crate::core::codes::EX_NOPERM;
use crate::core::{By, Pid, Time};
use crate::sys::{fds, process, unix};
use crate::wire::command::encode_answer;
use mio::net::{TcpListener, UnixListener};
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
/// A client for which there was no descriptor is tried again after that long.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// By which one, and so what may be said there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// The control socket.
    Socket,
    /// --monitor: HTTP alone.
    Monitor,
    /// -C tcp://: HTTP, or the key and then lines.
    Port,
}

/// All of them.
#[derive(Default)]
pub struct Doors {
    socket: Option<UnixListener>,
    ports: Vec<(TcpListener, Gate)>,
    /// There may be more to accept although no new edge will come.
    more: bool,
    /// There is no descriptor for the next client: try again then.
    try_again: Option<Time>,
    /// Processes of others that knocked at the socket, and their users.
    turned_away: Vec<By>,
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
    /// Takes in who knocks, as far as there is room; names those who were let in, for registration.
    pub fn accept(&mut self, room: usize, now: Time) -> Vec<ClientId> {
        let mut new = Vec::new();
        self.doors.more = false;
        self.doors.try_again = None;
        for nth in 0..=self.doors.ports.len() {
            self.accept_at(nth, room, now, &mut new);
        }
        new
    }

    fn accept_at(&mut self, nth: usize, room: usize, now: Time, new: &mut Vec<ClientId>) {
        for _ in 0..ACCEPTS {
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
            if !self.make_room_for(gate, room.min(MAX_CLIENTS)) {
                continue;
            }
            self.next += 1;
            let id = ClientId(self.next);
            let client = Client::new(conn, gate, by, now + FIRST_LINE);
            self.map.insert(id, client);
            new.push(id);
        }
        self.doors.more = true;
    }

    /// One more may come by this door. Those who come over TCP make room for each other alone, and whoever
    /// comes by the socket has the place of one of them first.
    fn make_room_for(&mut self, gate: Gate, most: usize) -> bool {
        let tcp = gate != Gate::Socket;
        let share = match tcp {
            true => MAX_TCP.min(most / 4 * 3),
            false => most,
        };
        loop {
            let over_tcp = self.map.values().filter(|c| c.gate != Gate::Socket).count();
            let fits = match tcp {
                true => over_tcp < share && self.map.len() < most,
                false => self.map.len() < most,
            };
            if fits {
                return true;
            }
            let made = match (tcp, over_tcp) {
                (false, 0) => self.drop_silent(|_| true),
                (_, _) => {
                    self.drop_silent(|g| g != Gate::Socket) || !tcp && self.drop_silent(|_| true)
                }
            };
            if !made {
                return false;
            }
        }
    }

    /// Hangs up on the one of these that has been silent longest. Those who wait for an answer stay.
    fn drop_silent(&mut self, of: impl Fn(Gate) -> bool) -> bool {
        let silent = |(id, c): (&ClientId, &Client)| Some((c.deadline()?, *id));
        let some = self.map.iter().filter(|(_, c)| of(c.gate));
        let victim = some.filter_map(silent).min();
        // Its descriptor leaves the poll by being closed: nobody has another one of it.
        victim.is_some_and(|(_, id)| self.map.remove(&id).is_some())
    }
}
