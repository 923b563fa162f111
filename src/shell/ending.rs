//! How connections of a worker that is being emptied are ended, each at its moment (`wire::moment`).

use super::Shell;
use super::observer::{self, Hold, How, Owner};
use crate::core::words::reason;
use crate::core::{Event, Level, WorkerId};
use crate::sys::{clock, errno_of};
use crate::wire::debt::silent_ms;
use crate::wire::moment::{Ending, Moment, unix_may_end};
use crate::wire::sock_diag::Conn;
use crate::wire::talk::Talk;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

/// A server that was told that the client is done, and has not closed after so many nanoseconds, has
/// both sides closed.
const PATIENCE: u64 = 1_000_000_000;

/// What is known of connections while somebody drains.
#[derive(Default, Serialize, Deserialize)]
pub struct Endings {
    /// Those whose server was told that the client has no more to say, and when.
    nudged: BTreeMap<u64, u64>,
    /// Those whose clients are held back,
    held_back: BTreeSet<u64>,
    /// unless we may not.
    lets_in: bool,
    /// How their two sides talk.
    talks: BTreeMap<u64, Talk>,
    /// After such a silence a streamed answer counts as over (--drain-quiet).
    pub(super) quiet: Duration,
}

impl Endings {
    /// Nobody drains any more.
    pub fn rest(&mut self) {
        self.nudged.clear();
        self.held_back.clear();
        self.talks.clear();
    }

    /// What a look has shown; of others nothing is remembered.
    pub fn heard<'a>(&mut self, all: impl Iterator<Item = &'a Held>) {
        let before = std::mem::take(&mut self.talks);
        let hear = |held: &Held| {
            let talk = before.get(&held.inode).copied().unwrap_or_default();
            Some((held.inode, talk.heard(held.tcp()?.info.as_ref()?)))
        };
        self.talks = all.filter_map(hear).collect();
    }

    fn moment<'a>(&self, inode: u64, conn: &'a Conn) -> Moment<'a> {
        Moment {
            conn,
            talk: self.talks.get(&inode).copied().unwrap_or_default(),
            held_back: self.held_back.contains(&inode),
        }
    }

    /// May something be lost if it ends now?
    pub fn owes(&self, held: &Held) -> bool {
        match &held.what {
            What::Tcp(c) => self.moment(held.inode, c).owes(self.quiet),
            // Whether an answer is being made cannot be seen.
            What::Unix { .. } => true,
        }
    }

    fn may_hold_back(&self, held: &Held, which: Ending) -> bool {
        let moment = held.tcp().map(|c| self.moment(held.inode, c));
        moment.is_some_and(|m| !m.held_back && m.may_hold_back(which))
    }

    fn may_end(&self, held: &Held, which: Ending) -> bool {
        match &held.what {
            What::Tcp(c) => self.moment(held.inode, c).may_end(which),
            What::Unix { unread } => unix_may_end(*unread, which),
        }
    }
}

impl Shell {
    /// Keeps out what clients would say next: of those to whom answers come in parts, and of those who
    /// wait for one.
    fn hold_back(&mut self, list: &[(Held, Owner)], which: Ending) {
        if self.census.endings.lets_in {
            return;
        }
        let _worn = self.to_look();
        for (held, owner) in list {
            let endings = &mut self.census.endings;
            if !endings.may_hold_back(held, which) {
                continue;
            }
            match observer::hold_back(owner.pid, owner.fd, held.inode) {
                Ok(Hold::Done) => {
                    endings.held_back.insert(held.inode);
                }
                Ok(Hold::Refused) => {
                    endings.lets_in = true;
                    let message = "cannot keep the next request out of connections that never rest (SO_ATTACH_FILTER: not permitted): one that has no time left may be cut in the middle of a request; CAP_NET_ADMIN allows it, or say --drain server";
                    self.say_once(Level::Warn, "drain-lets-in", message.into());
                    return;
                }
                // Whoever ends it says what is wrong.
                Ok(Hold::Gone) | Err(_) => {}
            }
        }
    }

    /// Ends connections of a worker, seen by the look of this turn.
    pub(super) fn end_connections(&mut self, worker: WorkerId, which: Ending) {
        let mut list = self.census.theirs.get(&worker).cloned().unwrap_or_default();
        self.hold_back(&list, which);
        list.retain(|(held, _)| self.census.endings.may_end(held, which));
        list.sort_by_key(|(held, _)| std::cmp::Reverse(held.silent()));
        let quiet = matches!(which, Ending::Quiet { .. });
        let (count, refused) = self.end_these(&list, quiet);
        if let Some(e) = refused {
            self.census.hands_off = true;
            let message = format!(
                "cannot end connections of workers from outside (pidfd_getfd: {}): each is asked to stop when it owes nothing; CAP_SYS_PTRACE lets idle ones be ended first",
                reason(&e)
            );
            self.say_once(Level::Warn, "drain-hands-off", message);
        }
        self.queue.push_back(Event::Closed { worker, count });
    }

    /// How many were ended, and why no more of them can be.
    fn end_these(&mut self, list: &[(Held, Owner)], quiet: bool) -> (u32, Option<io::Error>) {
        let now = clock::monotonic();
        let mut ended = 0;
        let _worn = self.to_look();
        let Endings {
            nudged, held_back, ..
        } = &mut self.census.endings;
        for (held, owner) in list {
            let how = match nudged.get(&held.inode) {
                None if quiet && !held_back.contains(&held.inode) => How::Half,
                None => How::Last,
                Some(at) if now >= at + PATIENCE => How::Both,
                Some(_) => continue,
            };
            match observer::close_gently(owner.pid, owner.fd, held.inode, how) {
                Ok(true) if how != How::Both => {
                    ended += 1;
                    nudged.insert(held.inode, now);
                }
                Ok(true) => {}
                Ok(false) => {}
                Err(e) if matches!(errno_of(&e), libc::EPERM | libc::ENOSYS) => {
                    return (ended, Some(e));
                }
                // It has gone meanwhile.
                Err(_) => {}
            }
        }
        (ended, None)
    }
}

/// A connection that some process has.
#[derive(Clone, Copy)]
pub struct Held {
    /// Of its socket.
    pub inode: u64,
    /// What is seen of it.
    pub what: What,
}

/// What is seen of a connection.
#[derive(Clone, Copy)]
pub enum What {
    /// All that the kernel counts.
    Tcp(Conn),
    /// Of these the kernel tells no times.
    Unix {
        /// Is something in its queues?
        unread: bool,
    },
}

impl Held {
    fn tcp(&self) -> Option<&Conn> {
        match &self.what {
            What::Tcp(c) => Some(c),
            What::Unix { .. } => None,
        }
    }

    fn silent(&self) -> u32 {
        self.tcp().map_or(0, silent_ms)
    }
}
