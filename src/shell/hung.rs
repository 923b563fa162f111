//! The look at who waits for ready workers, and for how long nothing was done for them: what the kernel
//! tells of their queues and connections is kept from look to look, what follows from it is told in
//! `wire::untouched`.
//!
//! All sockets of TCP that the machine has are walked through for a look at a queue that is not empty,
//! and for each look where lanes are shared; whose a connection is, is looked for when nothing was read
//! of it from one look to the next, or nobody was taken of a queue.

use super::Shell;
use super::observer::{MOST_DESCRIPTORS, Observer, Owner, Owners};
use crate::core::words::reason;
use crate::core::{Event, LaneId, Level, PortId, Wait, WorkerId};
use crate::sys::procfs;
use crate::wire::sock_diag::Conn;
use crate::wire::untouched::{self, Held, Mark, Queues, Sharer};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;

/// Workers, and the lanes that they serve: theirs alone, or all of them that they share.
type Asked = [(WorkerId, Vec<LaneId>)];
type Seen = Vec<(WorkerId, Wait)>;
/// Connections by their inodes.
type Inodes = BTreeMap<u64, (u64, Mark)>;

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
    /// Of each worker how it was when it, or one with whom it shares, was last seen to do something.
    sharers: BTreeMap<WorkerId, Sharer>,
    /// Was it another master that has looked before? Then the first look tells nothing of what has moved.
    takes_over: bool,
}

impl Hung {
    /// Another master has looked before.
    pub fn after_another() -> Hung {
        Hung {
            takes_over: true,
            ..Hung::default()
        }
    }

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
            false => self.look_at_shared(workers),
        };
        let mut seen = looked.unwrap_or_else(|e| {
            let message = format!(
                "cannot see who waits for the workers (sock_diag: {}): --hang-timeout has no effect",
                reason(&e)
            );
            self.say_once(Level::Warn, "hang-blind", message);
            all(workers, Wait::Unknown)
        });
        if std::mem::take(&mut self.hung.takes_over) {
            seen = all(workers, Wait::Unknown);
        }
        self.hung.observer.rest();
        self.queue.push_back(Event::Waiting { seen });
    }

    /// Lanes of each worker's own.
    fn look_at_queues(&mut self, workers: &Asked) -> io::Result<Seen> {
        let lengths = self.sockets.lengths();
        let mut now = Queues {
            lengths,
            ..Queues::default()
        };
        if workers.iter().any(|(_, lanes)| now.any(lanes)) {
            let ports = self.sockets.numbers();
            let conns = self.hung.observer.connections(&ports)?;
            now.waiting = self.waiting(&conns);
        }
        self.hung.steered.clear();
        Ok(self.hung.judge(workers, now))
    }

    /// Of these those that nobody has accepted.
    fn waiting(&self, conns: &[Conn]) -> BTreeMap<u64, Option<LaneId>> {
        let waiting = conns.iter().filter(|c| untouched::waits(c));
        waiting.map(|c| (c.cookie, self.lane_of(c))).collect()
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

    /// Lanes that they share, and what they have accepted.
    fn look_at_shared(&mut self, workers: &Asked) -> io::Result<Seen> {
        let lengths = self.sockets.lengths();
        let ports = self.sockets.numbers();
        let conns = self.hung.observer.connections(&ports)?;
        let waiting = self.waiting(&conns);
        self.hung.steered.clear();
        let accepted = conns.iter().filter(|c| c.inode != 0);
        let mark = |c: &Conn| Some((c.inode, (c.cookie, Mark::of(c)?)));
        let Some(mut inodes) = accepted.map(mark).collect::<Option<Inodes>>() else {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        };
        let now = Rc::new(Queues { waiting, lengths });
        let queues = std::mem::replace(&mut self.hung.queues, now.clone());
        let marks: Held = inodes.values().copied().collect();
        let before = std::mem::replace(&mut self.hung.marks, marks);
        let suspects = untouched::suspects(&self.hung.marks, &before);
        let stands = |lanes: &[LaneId]| now.since(&queues, lanes) != Wait::Moves;
        let stuck = workers.iter().filter(|(_, lanes)| stands(lanes));
        let stuck: BTreeSet<WorkerId> = stuck.map(|(w, _)| *w).collect();
        if suspects.is_empty() && stuck.is_empty() {
            self.hung.sharers.clear();
            return Ok(all(workers, Wait::Moves));
        }
        if !procfs::is_ours() {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        let names = self.sockets.unix_names();
        if !names.is_empty() {
            // One that is at work on these is at work.
            let unix = self.hung.observer.unix(&names)?;
            let accepted = unix.iter().filter(|c| c.inode != 0);
            inodes.extend(accepted.map(|c| (c.inode, Mark::of_unix(c))));
        }
        let kept = std::mem::take(&mut self.hung.sharers);
        // Those that have gone from the list meanwhile may be had still.
        for (cookie, mark) in kept.values().flat_map(|s| &s.held) {
            let gone = (*cookie, mark.reset());
            inodes.entry(mark.inode).or_insert(gone);
        }
        let ids: Vec<WorkerId> = workers.iter().map(|(w, _)| *w).collect();
        let found = self.owners(&ids, &inodes.keys().copied().collect());
        if found.cut {
            self.say_too_many();
            return Ok(all(workers, Wait::Unknown));
        }
        let mut held = sorted(&inodes, &found);
        let mut seen = Vec::new();
        for (worker, lanes) in workers {
            let its = Sharer {
                queues: now.clone(),
                held: held.remove(worker).unwrap_or_default(),
            };
            let unread = its.held.keys().any(|cookie| suspects.contains(cookie));
            let (wait, since) = match kept.get(worker) {
                _ if found.unseen.contains(worker) => (Wait::Unknown, None),
                _ if !unread && !stuck.contains(worker) => (Wait::Moves, None),
                Some(then) => match its.since(then, lanes) {
                    Wait::Moves => (Wait::Moves, Some(its)),
                    wait @ (Wait::Stands(_) | Wait::Unknown) => (wait, Some(then.clone())),
                },
                None => (Wait::Moves, Some(its)),
            };
            self.hung.sharers.extend(since.map(|s| (*worker, s)));
            seen.push((*worker, wait));
        }
        Ok(seen)
    }
}

impl Shell {
    /// Among so many it is not looked for those of one worker.
    fn say_too_many(&mut self) {
        let message = format!(
            "the workers have more than {MOST_DESCRIPTORS} descriptors: who waits for which of them cannot be seen: --hang-timeout has no effect"
        );
        self.say_once(Level::Warn, "hang-blind", message);
    }
}

/// Connections by their owners.
fn sorted(inodes: &Inodes, found: &Owners) -> BTreeMap<WorkerId, Held> {
    let mut held: BTreeMap<WorkerId, Held> = BTreeMap::new();
    for (inode, owners) in &found.of {
        for Owner { worker, .. } in owners {
            let its = held.entry(*worker).or_default();
            its.extend(inodes.get(inode).copied());
        }
    }
    held
}

fn all(workers: &Asked, wait: Wait) -> Seen {
    workers.iter().map(|(w, _)| (*w, wait)).collect()
}
