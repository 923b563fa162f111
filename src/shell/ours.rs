//! Connections that we have made to ports of our own, to ask workers something: they must not be taken
//! for clients, whom a worker that drains has to answer, nor be counted with them.
//!
//! One that was given up waits on, until somebody accepts it or sees its end: it is remembered, by what
//! no other has, since its address may be another one's tomorrow.

use crate::core::LaneId;
use crate::wire::sock_diag::Conn;
use crate::wire::untouched;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// So many that were given up are remembered, the last ones.
const LEFT_MOST: usize = 1024;
/// And so many that have ended, until the kernel says so.
const ENDED_MOST: usize = 32;

/// Where our end of it is, whatever family the server sees it in, and the port of the other. (From the
/// same address somebody else may have one to another port.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Line {
    from: (IpAddr, u16),
    to: u16,
}

impl Line {
    /// From there to that port.
    pub fn new(from: SocketAddr, to: u16) -> Line {
        let from = (from.ip().to_canonical(), from.port());
        Line { from, to }
    }

    /// As it is seen from outside.
    pub fn of(conn: &Conn) -> Line {
        Line::new(conn.peer, conn.local.port())
    }
}

/// All of them.
#[derive(Default, Serialize, Deserialize)]
pub struct Ours {
    /// By which lane they have come, if that is known.
    #[serde(with = "crate::core::carry::pairs")]
    open: BTreeMap<Line, Option<LaneId>>,
    left: VecDeque<(Option<LaneId>, u64)>,
    ended: VecDeque<Line>,
}

impl Ours {
    /// One is made.
    pub fn made(&mut self, line: Line, lane: Option<LaneId>) {
        self.open.insert(line, lane);
    }

    /// It is over.
    pub fn over(&mut self, line: Line) {
        self.open.remove(&line);
        self.ended.push_back(line);
        if self.ended.len() > ENDED_MOST {
            self.ended.pop_front();
        }
    }

    /// It is over, on our side: is it still in this list of all? (Who cannot be seen is a client.)
    pub fn given_up(&mut self, line: Line, all: &[Conn]) {
        let lane = self.open.get(&line).copied().flatten();
        if let Some(conn) = all.iter().find(|c| Line::of(c) == line) {
            self.left.push_back((lane, conn.cookie));
        }
        if self.left.len() > LEFT_MOST {
            self.left.pop_front();
        }
        self.over(line);
    }

    /// Is it one of ours?
    pub fn has(&self, conn: &Conn) -> bool {
        let left = self.left.iter().any(|(_, cookie)| *cookie == conn.cookie);
        left || self.open.contains_key(&Line::of(conn))
    }

    /// Was it, that has ended just now? Told once.
    pub fn had(&mut self, line: Line) -> bool {
        let at = self.ended.iter().position(|e| *e == line);
        at.is_some_and(|at| self.ended.remove(at).is_some()) || self.open.contains_key(&line)
    }

    /// How many of ours wait in that lane, of these?
    pub fn waiting(&self, lane: LaneId, conns: &[Conn]) -> u32 {
        let left = |c: &Conn| self.left.contains(&(Some(lane), c.cookie));
        let open = |c: &Conn| self.open.get(&Line::of(c)) == Some(&Some(lane));
        let ours = |c: &&Conn| untouched::waits(c) && (left(c) || open(c));
        u32::try_from(conns.iter().filter(ours).count()).unwrap_or(u32::MAX)
    }

    /// How many of ours there are in that lane, which is no more.
    pub fn forget(&mut self, lane: LaneId) -> u32 {
        let before = self.left.len();
        self.left.retain(|(of, _)| *of != Some(lane));
        let open = self.open.values().filter(|of| **of == Some(lane));
        u32::try_from(before - self.left.len() + open.count()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sock_diag::state;

    fn conn(peer: &str, port: u16, cookie: u64) -> Conn {
        Conn {
            local: SocketAddr::from(([127, 0, 0, 1], port)),
            peer: peer.parse().unwrap(),
            state: state::ESTABLISHED,
            inode: 0,
            cookie,
            rqueue: 0,
            wqueue: 0,
            info: None,
        }
    }

    #[test]
    fn ours_are_known_while_they_are_open_and_when_they_were_given_up() {
        let (lane, other) = (LaneId(1), LaneId(2));
        let line = Line::new("127.0.0.1:9".parse().unwrap(), 80);
        let mut ours = Ours::default();
        ours.made(line, Some(lane));
        // A server of IPv6 sees it so.
        let it = conn("[::ffff:127.0.0.1]:9", 80, 5);
        assert!(ours.has(&it) && ours.has(&conn("127.0.0.1:9", 80, 5)));
        assert!(!ours.has(&conn("127.0.0.1:8", 80, 5)) && !ours.has(&conn("127.0.0.1:9", 81, 5)));
        assert_eq!(ours.waiting(lane, &[it]), 1);
        assert_eq!(ours.waiting(other, &[it]), 0);
        ours.given_up(line, &[conn("127.0.0.1:8", 80, 4), it]);
        assert!(ours.has(&it));
        assert_eq!(ours.waiting(lane, &[it, conn("127.0.0.1:7", 80, 4)]), 1);
        // Who has its address tomorrow is a client.
        assert!(!ours.has(&conn("127.0.0.1:9", 80, 6)));
        assert_eq!((ours.forget(other), ours.forget(lane)), (0, 1));
        assert!(!ours.has(&it));
    }

    #[test]
    fn an_end_is_ours_once_and_no_list_has_no_end() {
        let line = |n: u16| Line::new(SocketAddr::from(([127, 0, 0, 1], n)), 80);
        let mut ours = Ours::default();
        for n in 1..3000 {
            ours.made(line(n), None);
            assert!(ours.had(line(n)));
            ours.given_up(line(n), &[conn(&format!("127.0.0.1:{n}"), 80, n.into())]);
        }
        assert_eq!((ours.left.len(), ours.ended.len()), (LEFT_MOST, ENDED_MOST));
        assert!(ours.had(line(2999)) && !ours.had(line(2999)) && !ours.had(line(1)));
    }
}
