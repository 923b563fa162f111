//! Connections on which nothing has come or gone for too long (--idle-timeout). Rules:
//!
//! 1. Silent is one that some process has, and of which the kernel's books say that neither side has
//!    sent a byte for that long, or since it was established. (Probes of keepalive are no bytes.) One
//!    that waits to be accepted has nobody yet who could end it.
//! 2. Its server is told that the client has no more to say, and closes by itself, as it likes: with TLS
//!    it says good-bye first. One that has not done so some time later, or whose client had no more to
//!    say already, has both sides closed. So its client sees an end and no reset, unless it has said
//!    something that its server has not read.
//! 3. Who was told is known until it has gone, and counts once, whatever moves on it afterwards: of data that
//!    is not acknowledged the kernel goes on sending. One that was found with nobody, or could not be ended, is
//!    let alone for as long again.
//! 4. It is looked again when the first of those that there are could be silent for so long, but not
//!    sooner than some part of that: what comes due meanwhile waits for it. One that opens right after a
//!    look cannot be due before the whole time is over: so long is the wait where there is none.

use super::debt::silent_ms;
use super::sock_diag::{Conn, Info, state};
use crate::core::Time;
use std::collections::BTreeMap;
use std::time::Duration;

/// By so much later than need be one may be ended: that part of the time,
const PART: u32 = 8;
/// but no more than that, and no less.
const LATEST: Duration = Duration::from_secs(1);
const SOONEST: Duration = Duration::from_millis(25);

/// How one is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Its server is told that the client has no more to say.
    Half,
    /// Both are told that the other one has gone.
    Both,
}

/// How it is with one about which something was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Its server was told, then.
    Told(Time),
    /// A byte has moved after that.
    Speaks,
    /// Nobody was found to have it, or it could not be ended: not before that again.
    LetAlone(Time),
    /// Both sides were closed: nothing more can be done, whatever the kernel sends again.
    Over,
}

/// What is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    stage: Stage,
    /// Does it count as one that was ended?
    ended: bool,
}

/// One that is to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// By what no other has.
    pub cookie: u64,
    /// Of its socket.
    pub inode: u64,
    /// So.
    pub how: How,
    /// Was something done about it before, so that it counts already?
    again: bool,
}

impl Due {
    /// Is it the first that is done about it?
    pub fn is_first(&self) -> bool {
        !self.again
    }
}

/// What is known of those that were silent.
#[derive(Clone, Debug, Default)]
pub struct Silences {
    known: BTreeMap<u64, Known>,
}

/// So long between two looks at least, and between the two steps of rule 2.
pub fn gap(limit: Duration) -> Duration {
    (limit / PART).clamp(SOONEST, LATEST)
}

/// How long one may still be silent; `None`: it may no longer.
fn left(silent: u32, limit: Duration) -> Option<Duration> {
    let left = limit.checked_sub(Duration::from_millis(silent.into()))?;
    (!left.is_zero()).then_some(left)
}

/// The same at the last moment, of what one asks the socket itself.
pub fn is_silent(info: &Info, limit: Duration) -> bool {
    left(info.last_sent_ms.min(info.last_recv_ms), limit).is_none()
}

impl Silences {
    /// What a look has shown: those that are due, and when it has to be looked again.
    pub fn look(&mut self, conns: &[Conn], limit: Duration, now: Time) -> (Vec<Due>, Time) {
        let gap = gap(limit);
        let before = std::mem::take(&mut self.known);
        let (mut due, mut next) = (Vec::new(), limit);
        // (Of one that the kernel tells no times of it cannot be said.)
        let theirs = conns.iter().filter(|c| c.inode != 0 && c.info.is_some());
        for c in theirs {
            let known = before.get(&c.cookie).copied();
            let stage = known.map(|k| k.stage);
            let again = known.is_some_and(|k| k.ended);
            if stage == Some(Stage::Over) {
                self.known.extend(known.map(|k| (c.cookie, k)));
                continue;
            }
            if let Some(left) = left(silent_ms(c), limit) {
                next = next.min(left);
                if again {
                    self.set(c.cookie, Stage::Speaks, again);
                }
                continue;
            }
            let open = c.state == state::ESTABLISHED;
            let (how, stage) = match stage {
                Some(stage @ Stage::LetAlone(until)) if now < until => (None, stage),
                Some(stage @ Stage::Told(at)) if now - at < gap => (None, stage),
                None | Some(Stage::LetAlone(_)) if open && !again => {
                    (Some(How::Half), Stage::Told(now))
                }
                None | Some(Stage::LetAlone(_) | Stage::Told(_) | Stage::Speaks | Stage::Over) => {
                    (Some(How::Both), Stage::Over)
                }
            };
            next = next.min(match stage {
                Stage::Told(at) => (at + gap) - now,
                Stage::LetAlone(until) => until - now,
                Stage::Speaks | Stage::Over => limit,
            });
            self.set(c.cookie, stage, again || how.is_some());
            let (cookie, inode) = (c.cookie, c.inode);
            due.extend(how.map(|how| Due {
                cookie,
                inode,
                how,
                again,
            }));
        }
        (due, now + next.max(gap))
    }

    fn set(&mut self, cookie: u64, stage: Stage, ended: bool) {
        self.known.insert(cookie, Known { stage, ended });
    }

    /// That one was found with nobody, or could not be ended.
    pub fn failed(&mut self, due: &Due, limit: Duration, now: Time) {
        self.set(due.cookie, Stage::LetAlone(now + limit), due.again);
    }

    /// A byte has moved on it in the last moment.
    pub fn moved(&mut self, due: &Due) {
        match due.again {
            true => self.set(due.cookie, Stage::Speaks, true),
            false => drop(self.known.remove(&due.cookie)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    fn at(ms: u64) -> Time {
        Time(ms * 1_000_000)
    }

    fn conn(cookie: u64, state: u8, sent_ms: u32, recv_ms: u32) -> Conn {
        let info = Info {
            last_sent_ms: sent_ms,
            last_recv_ms: recv_ms,
            ..Info::default()
        };
        Conn {
            local: "127.0.0.1:80".parse().unwrap(),
            peer: "127.0.0.1:9".parse().unwrap(),
            state,
            inode: cookie + 100,
            cookie,
            rqueue: 0,
            wqueue: 0,
            info: Some(info),
        }
    }

    fn open(cookie: u64, silent: u32) -> Conn {
        conn(cookie, state::ESTABLISHED, silent, silent)
    }

    fn ends(due: &[Due]) -> Vec<(u64, How)> {
        due.iter().map(|d| (d.cookie, d.how)).collect()
    }

    #[test]
    fn without_connections_it_is_looked_once_in_that_time() {
        let mut s = Silences::default();
        assert_eq!(s.look(&[], LIMIT, at(0)), (vec![], at(2000)));
        // Those that nobody has yet are no reason to look sooner.
        let waits = Conn {
            inode: 0,
            ..open(1, 5000)
        };
        assert_eq!(s.look(&[waits], LIMIT, at(0)), (vec![], at(2000)));
    }

    #[test]
    fn the_next_look_is_when_the_first_could_be_due() {
        let mut s = Silences::default();
        for (silent, next) in [(0, 2000), (500, 1500), (1700, 300), (1999, 250)] {
            let all = [open(1, 0), open(2, silent)];
            assert_eq!(
                s.look(&all, LIMIT, at(0)),
                (vec![], at(next)),
                "silent {silent}"
            );
        }
        // A byte of either side counts.
        for (sent, recv) in [(9000, 500), (500, 9000)] {
            let one = conn(1, state::ESTABLISHED, sent, recv);
            assert_eq!(s.look(&[one], LIMIT, at(0)), (vec![], at(1500)));
        }
    }

    #[test]
    fn its_server_is_told_first_and_has_a_moment() {
        let mut s = Silences::default();
        let (due, next) = s.look(&[open(1, 2000)], LIMIT, at(0));
        assert_eq!((ends(&due), next), (vec![(1, How::Half)], at(250)));
        assert_eq!(due[0].inode, 101);
        // Another look comes for another one.
        let (due, next) = s.look(&[open(1, 2100), open(2, 2000)], LIMIT, at(100));
        assert_eq!((ends(&due), next), (vec![(2, How::Half)], at(350)));
        assert!(due[0].is_first());
        let (due, next) = s.look(&[open(1, 2250)], LIMIT, at(250));
        assert_eq!((ends(&due), next), (vec![(1, How::Both)], at(2250)));
        assert!(!due[0].is_first());
        // It is there still: nothing else can be done, whatever the kernel sends again.
        for (silent, now) in [(3000, 1000), (10, 2250), (2000, 5000)] {
            let gone = conn(1, state::FIN_WAIT1, silent, silent);
            let (due, next) = s.look(&[gone], LIMIT, at(now));
            assert_eq!((ends(&due), next), (vec![], at(now + 2000)));
        }
    }

    #[test]
    fn whose_client_has_no_more_to_say_is_closed_at_once() {
        for state in [state::CLOSE_WAIT, state::FIN_WAIT2, state::FIN_WAIT1] {
            let mut s = Silences::default();
            let (due, next) = s.look(&[conn(1, state, 2500, 2500)], LIMIT, at(0));
            assert_eq!((ends(&due), next), (vec![(1, How::Both)], at(2000)));
        }
    }

    #[test]
    fn one_that_has_spoken_again_begins_anew() {
        let mut s = Silences::default();
        s.look(&[open(1, 2000)], LIMIT, at(0));
        let (due, next) = s.look(&[open(1, 100)], LIMIT, at(250));
        assert_eq!((ends(&due), next), (vec![], at(250 + 1900)));
        // (Its server does not hear that it was told: it was that already.)
        let (due, _) = s.look(&[open(1, 2000)], LIMIT, at(2150));
        assert_eq!(
            (ends(&due), due[0].is_first()),
            (vec![(1, How::Both)], false)
        );
        s.moved(&due[0]);
        let (due, _) = s.look(&[open(1, 2000)], LIMIT, at(4150));
        assert_eq!(
            (ends(&due), due[0].is_first()),
            (vec![(1, How::Both)], false)
        );
        // One that has moved before anything was done is a new one.
        let (due, _) = s.look(&[open(2, 2000)], LIMIT, at(5000));
        s.moved(&due[0]);
        let (due, _) = s.look(&[open(2, 2000)], LIMIT, at(7000));
        assert_eq!(
            (ends(&due), due[0].is_first()),
            (vec![(2, How::Half)], true)
        );
    }

    #[test]
    fn one_that_nobody_has_is_let_alone_for_as_long() {
        let mut s = Silences::default();
        let (due, _) = s.look(&[open(1, 2000)], LIMIT, at(0));
        s.failed(&due[0], LIMIT, at(10));
        for (now, some) in [(250, false), (2000, false), (2010, true)] {
            let (due, next) = s.look(&[open(1, 9000)], LIMIT, at(now));
            assert_eq!(due.iter().any(Due::is_first), some, "{now}");
            assert!(next >= at(now) + gap(LIMIT));
        }
        // What has gone is forgotten.
        s.look(&[], LIMIT, at(3000));
        assert!(s.known.is_empty());
    }

    #[test]
    fn looks_are_a_part_of_the_time_apart() {
        for (limit, ms) in [(100, 25), (2000, 250), (60_000, 1000), (1, 25)] {
            assert_eq!(
                gap(Duration::from_millis(limit)),
                Duration::from_millis(ms),
                "{limit}"
            );
        }
    }
}
