//! Connections that we have made to ports of our own, to ask workers something: they must not be taken
//! for clients, whom a worker that drains has to answer, nor be counted with them.
//!
//! One that was given up waits on, until somebody accepts it or sees its end: it is remembered, by what
//! no other has, since its address may be another one's tomorrow.

use crate::core::LaneId;
use crate::wire::sock_diag::Conn;
use crate::wire::untouched;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

/// So many that were given up are remembered, the last ones.
const LEFT_MOST: usize = 1024;
/// And the addresses of so many that have ended, until the kernel says so.
const ENDED_MOST: usize = 32;

/// Where our end of it is, whatever family the server sees it in.
type End = (IpAddr, u16);

/// All of them.
#[derive(Default)]
pub struct Ours {
    /// By which lane they have come, if that is known.
    open: BTreeMap<End, Option<LaneId>>,
    left: VecDeque<(Option<LaneId>, u64)>,
    ended: VecDeque<End>,
}

fn end(at: SocketAddr) -> End {
    (at.ip().to_canonical(), at.port())
}

impl Ours {
    /// One is made from there.
    pub fn made(&mut self, from: SocketAddr, lane: Option<LaneId>) {
        self.open.insert(end(from), lane);
    }

    /// It is over.
    pub fn over(&mut self, from: SocketAddr) {
        self.open.remove(&end(from));
        self.ended.push_back(end(from));
        if self.ended.len() > ENDED_MOST {
            self.ended.pop_front();
        }
    }

    /// It is over, on our side: is it still in this list of all? (Who cannot be seen is a client.)
    pub fn given_up(&mut self, from: SocketAddr, all: &[Conn]) {
        let lane = self.open.get(&end(from)).copied().flatten();
        if let Some(conn) = all.iter().find(|c| end(c.peer) == end(from)) {
            self.left.push_back((lane, conn.cookie));
        }
        if self.left.len() > LEFT_MOST {
            self.left.pop_front();
        }
        self.over(from);
    }

    /// Is it one of ours?
    pub fn has(&self, conn: &Conn) -> bool {
        let left = self.left.iter().any(|(_, cookie)| *cookie == conn.cookie);
        left || self.open.contains_key(&end(conn.peer))
    }

    /// Was it, that has come from there and has ended just now? Told once.
    pub fn had(&mut self, from: SocketAddr) -> bool {
        let at = self.ended.iter().position(|e| *e == end(from));
        at.is_some_and(|at| self.ended.remove(at).is_some()) || self.open.contains_key(&end(from))
    }

    /// How many of ours wait in that lane, of these?
    pub fn waiting(&self, lane: LaneId, conns: &[Conn]) -> u32 {
        let left = |c: &Conn| self.left.contains(&(Some(lane), c.cookie));
        let open = |c: &Conn| self.open.get(&end(c.peer)) == Some(&Some(lane));
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
