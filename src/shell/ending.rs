//! How connections of a worker that is being emptied are ended: each at a moment when nothing is owed on
//! it, as far as that can be seen. First those that are quiet. In the second half of the time a client
//! that is known never to rest is held back: nothing more that it says gets in, so that its connection
//! can be ended when it has its answer. When the time is over all of them have to go within the last
//! second:
//!
//! 1. At first they are only looked at: who answers in parts is known then, and who is slow
//!    (`wire::talk`).
//! 2. Where a client would go on to the end, and be cut off in the middle of its next answer, it is held
//!    back, if we may: where an answer comes in parts, and where one is waited for.
//! 3. A connection is ended as soon as the last word was the server's; one on which answers come in
//!    parts, when it has been silent for as long as there is time left.
//! 4. Where it is unclear, since the client asks again at once, it is held back as well, and ended when
//!    what it may have asked is answered. Where it cannot be, it is ended after a silence that gets
//!    shorter: what comes in that moment is read and perhaps answered before the server finds the end.

use super::Shell;
use super::observer::{self, Hold, How, Owner};
use crate::core::words::reason;
use crate::core::{Event, Level, WorkerId};
use crate::sys::{clock, errno_of};
use crate::wire::debt::{Debt, debt, debt_at_last, silent_ms};
use crate::wire::sock_diag::Conn;
use crate::wire::talk::Talk;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

/// Nothing is ended while more than that is left.
const OBSERVED: Duration = Duration::from_millis(750);
/// Silent for so many milliseconds, a connection of which it is unclear whose word was the last is taken
/// for one between two requests, when it has to end anyway.
const BREATH: u32 = 20;
/// A client that has said nothing for so many milliseconds, and whose last word it was, waits.
const WAITS: u32 = 40;
/// After so long a silence what is not answered would be known not to be (`wire::talk`).
const ANSWERED: Duration = Duration::from_millis(60);
/// When so much is left no silence at all is asked for any more: a client that is never silent is told
/// between two looks at its socket rather than cut off by the stop signal.
const BREATHLESS: Duration = Duration::from_millis(300);
/// A server that was told that the client is done, and has not closed after so many nanoseconds, has
/// both sides closed.
const PATIENCE: u64 = 1_000_000_000;

/// Which connections of a worker are to end.
#[derive(Clone, Copy)]
pub enum Ending {
    /// Those on which nothing is owed, and nothing was said for so long; and those of clients that never
    /// rest, if it is late.
    Quiet { silent: Duration, late: bool },
    /// All, within that time.
    Rest { left: Duration },
}

/// What is known of connections while somebody drains.
#[derive(Default)]
pub struct Endings {
    /// Those whose server was told that the client has no more to say, and when.
    nudged: BTreeMap<u64, u64>,
    /// Those whose clients are held back,
    held_back: BTreeSet<u64>,
    /// unless we may not.
    lets_in: bool,
    /// How their two sides talk.
    talks: BTreeMap<u64, Talk>,
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

    fn talk(&self, held: &Held) -> Talk {
        self.talks.get(&held.inode).copied().unwrap_or_default()
    }

    /// What is owed on it, with all that is known.
    fn settle(&self, held: &Held, debt: Debt) -> Debt {
        self.talk(held).settle(debt, held.silent())
    }

    /// May something be lost if it ends now?
    pub fn owes(&self, held: &Held) -> bool {
        match &held.what {
            What::Tcp(c) => match self.settle(held, debt(c)) {
                Debt::Owed | Debt::Fresh => true,
                // A request that came together with the answer before it.
                Debt::Unclear => silent_ms(c) < BREATH,
                Debt::Settled => false,
            },
            // Whether an answer is being made cannot be seen.
            What::Unix { .. } => true,
        }
    }

    /// Is nothing lost if no more that its client says gets in? Not while it speaks: it is silent, and
    /// all was read. At first only of those of whom it is known that they never rest.
    fn may_hold_back(&self, held: &Held, which: Ending) -> bool {
        let talk = self.talk(held);
        let last = match which {
            Ending::Quiet { late: false, .. } => return false,
            Ending::Quiet { late: true, .. } => false,
            Ending::Rest { .. } => true,
        };
        let may = |c: &Conn| match self.settle(held, debt_at_last(c)) {
            Debt::Settled => last && talk.streams(),
            Debt::Unclear => talk.waits() || last && (talk.streams() || !talk.rests()),
            Debt::Owed => c.rqueue == 0 && (talk.waits() || last && silent_ms(c) >= WAITS),
            Debt::Fresh => false,
        };
        held.tcp().is_some_and(may)
    }

    /// May it be ended at this moment?
    fn may_end(&self, held: &Held, which: Ending) -> bool {
        let silent = Duration::from_millis(held.silent().into());
        match (&held.what, which) {
            (What::Tcp(c), Ending::Quiet { silent: least, .. }) => {
                match self.settle(held, debt(c)) {
                    // What it waited for is answered, and nothing more gets in.
                    Debt::Settled if self.held_back.contains(&held.inode) => true,
                    Debt::Settled | Debt::Unclear => silent >= least,
                    Debt::Fresh | Debt::Owed => false,
                }
            }
            (What::Unix { .. }, Ending::Quiet { .. }) => false,
            (_, Ending::Rest { left }) if left > OBSERVED => false,
            (What::Tcp(c), Ending::Rest { left }) => match self.settle(held, debt_at_last(c)) {
                Debt::Fresh => true,
                Debt::Settled | Debt::Unclear if self.talk(held).streams() => silent >= left,
                Debt::Settled => true,
                // Its answer may be still to come, and nothing after it.
                Debt::Unclear if self.held_back.contains(&held.inode) => silent >= ANSWERED,
                Debt::Unclear => silent >= breath(left),
                Debt::Owed => false,
            },
            (What::Unix { unread }, Ending::Rest { .. }) => !unread,
        }
    }
}

/// How silent one has to be of which it is unclear who spoke last.
fn breath(left: Duration) -> Duration {
    let over = left.saturating_sub(BREATHLESS).as_secs_f64();
    let all = OBSERVED.saturating_sub(BREATHLESS).as_secs_f64();
    Duration::from_millis(BREATH.into()).mul_f64((over / all).min(1.0))
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
            if !endings.may_hold_back(held, which) || endings.held_back.contains(&held.inode) {
                continue;
            }
            match observer::hold_back(owner.pid, owner.fd, held.inode) {
                Ok(Hold::Done) => {
                    endings.held_back.insert(held.inode);
                }
                Ok(Hold::Refused) => {
                    endings.lets_in = true;
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
