//! The look at who waits for ready workers, and for how long nothing was done for them: what the kernel
//! tells of their queues and connections is kept from look to look, what follows from it is told in
//! `wire::untouched`.
//!
//! All sockets of TCP that the machine has are walked through for a look at a queue that is not empty,
//! and for each look where lanes are shared; whose a connection is, is looked for when nothing was read
//! of it from one look to the next.

use super::Shell;
use super::observer::{self, Observer};
use crate::core::words::reason;
use crate::core::{Event, LaneId, Level, PortId, Wait, WorkerId};
use crate::sys::procfs;
use crate::wire::sock_diag::Conn;
use crate::wire::untouched::{self, Held, Mark, Queues};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

/// Workers, and the lanes that are theirs alone.
type Asked = [(WorkerId, Vec<LaneId>)];
type Seen = Vec<(WorkerId, Wait)>;

/// What is kept from look to look.
#[derive(Default)]
pub struct Hung {
    observer: Observer,
    /// The last look at queues.
    queues: Rc<Queues>,
    /// Ports whose table was another one at that look: of those who have come since it is not known by
    /// which of both.
    steered: BTreeSet<PortId>,
    /// Of each worker the look since which its queues were not touched.
    since: BTreeMap<WorkerId, Rc<Queues>>,
    /// All connections, at the last look.
    marks: Held,
    /// Of each worker those that it had when it was last seen to do something.
    held: BTreeMap<WorkerId, Held>,
}

impl Hung {
    /// The port's new connections go elsewhere from now on.
    pub fn steered(&mut self, port: PortId) {
        self.steered.insert(port);
    }

    /// How it is with these lanes' queues.
    fn judge(&mut self, workers: &Asked, now: Queues) -> Seen {
        let now = Rc::new(now);
        let before = std::mem::take(&mut self.since);
        let mut seen = Vec::new();
        for (worker, lanes) in workers {
            let then = before.get(worker);
            let wait = then.map_or(Wait::Moves, |then| now.since(then, lanes));
            let since = match wait {
                Wait::Moves => Some(now.clone()).filter(|q| q.any(lanes)),
                Wait::Stands(_) | Wait::Unknown => then.cloned(),
            };
            self.since.extend(since.map(|q| (*worker, q)));
            seen.push((*worker, wait));
        }
        self.queues = now;
        seen
    }
}

impl Shell {
    pub(super) fn look_hung(&mut self, workers: &Asked, spread: bool) {
        let looked = match spread {
            true => self.look_at_queues(workers),
            false => self.look_at_held(workers),
        };
        let seen = looked.unwrap_or_else(|e| {
            let message = format!(
                "cannot see who waits for the workers (sock_diag: {}): --hang-timeout has no effect",
                reason(&e)
            );
            self.say_once(Level::Warn, "hang-blind", message);
            workers.iter().map(|(w, _)| (*w, Wait::Unknown)).collect()
        });
        self.hung.observer.rest();
        self.queue.push_back(Event::Waiting { seen });
    }

    /// Lanes of each worker's own.
    fn look_at_queues(&mut self, workers: &Asked) -> io::Result<Seen> {
        let mut now = Queues {
            lengths: self.sockets.lengths(),
            ..Queues::default()
        };
        if workers.iter().any(|(_, lanes)| now.any(lanes)) {
            let ports = self.sockets.numbers();
            let conns = self.hung.observer.connections(&ports)?;
            let waiting = conns.iter().filter(|c| untouched::waits(c));
            now.waiting = waiting.map(|c| (c.cookie, self.lane_of(c))).collect();
        }
        self.hung.steered.clear();
        Ok(self.hung.judge(workers, now))
    }

    /// In whose queue it is.
    fn lane_of(&self, conn: &Conn) -> Option<LaneId> {
        match self.hung.queues.waiting.get(&conn.cookie) {
            Some(known) => *known,
            None => {
                let (port, lane) = self.sockets.lane_of(conn.local, conn.peer)?;
                let sure = !self.hung.steered.contains(&port);
                sure.then_some(lane)
            }
        }
    }

    /// What they have accepted.
    fn look_at_held(&mut self, workers: &Asked) -> io::Result<Seen> {
        let all = |wait: Wait| workers.iter().map(|(w, _)| (*w, wait)).collect();
        let ports = self.sockets.numbers();
        let mut conns = self.hung.observer.connections(&ports)?;
        conns.retain(|c| c.inode != 0);
        let mark = |c: &Conn| Some((c.inode, (c.cookie, Mark::of(c)?)));
        let all_told: Option<BTreeMap<u64, (u64, Mark)>> = conns.iter().map(mark).collect();
        let Some(inodes) = all_told else {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        };
        let now: Held = inodes.values().copied().collect();
        let before = std::mem::replace(&mut self.hung.marks, now);
        let suspects = untouched::suspects(&self.hung.marks, &before);
        if suspects.is_empty() {
            self.hung.held.clear();
            return Ok(all(Wait::Moves));
        }
        if !procfs::is_ours() {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        let ids: Vec<WorkerId> = workers.iter().map(|(w, _)| *w).collect();
        let found = self.owners(&ids, &inodes.keys().copied().collect());
        if found.cut {
            return Ok(all(Wait::Unknown));
        }
        let mut held: BTreeMap<WorkerId, Held> = BTreeMap::new();
        for (inode, owners) in &found.of {
            for observer::Owner { worker, .. } in owners {
                let its = held.entry(*worker).or_default();
                its.extend(inodes.get(inode).copied());
            }
        }
        let kept = std::mem::take(&mut self.hung.held);
        let mut seen = Vec::new();
        for worker in ids {
            let its = held.remove(&worker).unwrap_or_default();
            let suspect = its.keys().any(|cookie| suspects.contains(cookie));
            let (wait, since) = match kept.get(&worker) {
                _ if found.unseen.contains(&worker) => (Wait::Unknown, None),
                _ if !suspect => (Wait::Moves, None),
                Some(then) => match untouched::since(&its, then) {
                    Wait::Moves => (Wait::Moves, Some(its)),
                    wait @ (Wait::Stands(_) | Wait::Unknown) => (wait, Some(then.clone())),
                },
                None => (Wait::Moves, Some(its)),
            };
            self.hung.held.extend(since.map(|s| (worker, s)));
            seen.push((worker, wait));
        }
        Ok(seen)
    }
}
