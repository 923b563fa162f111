//! At which moment a connection of TCP may be ended from outside, and when nothing more that its client
//! says may be let in: by what is owed on it, by how its two sides talk, and by how much time there is.
//!
//! 1. Quiet ones end first. In the second half of the time a client that is known never to rest is held
//!    back, so that its connection can be ended when it has its answer.
//! 2. When all have to go they are only looked at first: who answers in parts is known then, and who is
//!    slow (`talk`).
//! 3. Where a client would go on to the end, and be cut off in the middle of its next answer, it is held
//!    back: where an answer comes in parts, where one is waited for, and where that is unclear.
//! 4. One that rests is ended as soon as the last word was the server's. One that is held back, or to
//!    which answers come in parts, has nothing more to lose by waiting: what it has may be the first part
//!    of an answer. It is ended when it was silent for a while, or at the very end.
//! 5. Where it is unclear, and it cannot be held back, it is ended after a silence that gets shorter: what
//!    comes in that moment is read and perhaps answered before the server finds the end.

use super::debt::{Debt, debt, debt_at_last, silent_ms};
use super::sock_diag::Conn;
use super::talk::Talk;
use crate::core::LAST_LOOK;
use std::time::Duration;

/// Nothing is ended while more than that is left.
const OBSERVED: Duration = Duration::from_millis(750);
/// So long a silence is taken for the space between two requests where it is unclear who was last, when
/// the connection has to end anyway.
const BREATH: Duration = Duration::from_millis(20);
/// A client that has been silent for so long, and whose last word it was, waits.
const WAITS: Duration = Duration::from_millis(40);
/// After so long a silence what is not answered would be known not to be (`talk`).
const ANSWERED: Duration = Duration::from_millis(60);
/// A pause of that length within an answer would have been seen by looks that come four times a second.
const PARTS: Duration = Duration::from_millis(500);
/// When so much is left no silence at all is asked for any more: a client that is never silent is told
/// between two looks at its socket rather than cut off by the stop signal.
const BREATHLESS: Duration = Duration::from_millis(300);

/// Which connections of a worker are to end.
#[derive(Clone, Copy, Debug)]
pub enum Ending {
    /// Those on which nothing is owed, and nothing was said for so long; and those of clients that never
    /// rest, if it is late.
    Quiet {
        /// So long.
        silent: Duration,
        /// Is half of the time over?
        late: bool,
    },
    /// All.
    Rest {
        /// Within that time.
        left: Duration,
    },
}

/// What is known of a connection at one look.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// What the look has shown,
    pub conn: &'a Conn,
    /// and those before it.
    pub talk: Talk,
    /// Does nothing more get in that its client says?
    pub held_back: bool,
}

impl Moment<'_> {
    fn silent(&self) -> Duration {
        Duration::from_millis(silent_ms(self.conn).into())
    }

    fn settle(&self, debt: Debt) -> Debt {
        self.talk.settle(debt, silent_ms(self.conn))
    }

    /// May something be lost if it ends now? One whose answers come in parts is silent between them.
    pub fn owes(&self, quiet: Duration) -> bool {
        match self.settle(debt(self.conn)) {
            Debt::Owed | Debt::Fresh => true,
            // A request that came together with the answer before it.
            Debt::Unclear => self.silent() < BREATH,
            Debt::Settled => self.talk.streams() && self.silent() < quiet,
        }
    }

    /// Is nothing lost if no more that its client says gets in? Not while it speaks: it is silent, and
    /// all was read. At first only of those of whom it is known that they never rest.
    pub fn may_hold_back(&self, which: Ending) -> bool {
        let (waits, streams) = (self.talk.waits(), self.talk.streams());
        let debt = self.settle(debt_at_last(self.conn));
        let read = self.conn.rqueue == 0;
        match (which, debt) {
            (Ending::Quiet { late: false, .. }, _) | (_, Debt::Fresh) => false,
            (Ending::Quiet { late: true, .. }, Debt::Settled) => false,
            (Ending::Quiet { late: true, .. }, Debt::Unclear) => waits && !streams,
            (Ending::Quiet { late: true, .. }, Debt::Owed) => waits && !streams && read,
            (Ending::Rest { .. }, Debt::Settled) => streams,
            (Ending::Rest { .. }, Debt::Unclear) => waits || streams || !self.talk.rests(),
            (Ending::Rest { .. }, Debt::Owed) => read && (waits || self.silent() >= WAITS),
        }
    }

    /// May it be ended?
    pub fn may_end(&self, which: Ending) -> bool {
        let (silent, streams) = (self.silent(), self.talk.streams());
        match which {
            Ending::Quiet { silent: least, .. } => match self.settle(debt(self.conn)) {
                Debt::Settled if self.held_back && !streams => silent >= least.min(PARTS),
                Debt::Settled | Debt::Unclear => silent >= least,
                Debt::Fresh | Debt::Owed => false,
            },
            Ending::Rest { left } if left > OBSERVED => false,
            Ending::Rest { left } => match self.settle(debt_at_last(self.conn)) {
                Debt::Fresh => true,
                Debt::Settled | Debt::Unclear if streams => is_over(silent, left.max(PARTS), left),
                Debt::Settled if self.held_back => is_over(silent, PARTS, left),
                Debt::Settled => true,
                // Its answer may be still to come, and nothing after it.
                Debt::Unclear if self.held_back => silent >= ANSWERED,
                Debt::Unclear => silent >= breath(left),
                Debt::Owed => false,
            },
        }
    }
}

/// Of a unix socket the kernel tells no times: may it be ended if so much is in its queues?
pub fn unix_may_end(unread: bool, which: Ending) -> bool {
    match which {
        Ending::Quiet { .. } => false,
        Ending::Rest { left } => left <= OBSERVED && !unread,
    }
}

/// Is an answer over that may come in parts? Before the last look a silence says so only if it is longer
/// than a pause within an answer, also on a machine that is busy: what ends too soon is half an answer.
/// Who is not ended at the last one is cut off by the stop signal.
fn is_over(silent: Duration, pause: Duration, left: Duration) -> bool {
    silent >= pause || left <= LAST_LOOK && silent >= left
}

/// How silent one has to be of which it is unclear who spoke last.
fn breath(left: Duration) -> Duration {
    let over = left.saturating_sub(BREATHLESS).as_secs_f64();
    let all = OBSERVED.saturating_sub(BREATHLESS).as_secs_f64();
    BREATH.mul_f64((over / all).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sock_diag::{Info, state};

    const QUIET: Ending = Ending::Quiet {
        silent: Duration::from_secs(5),
        late: false,
    };
    const LATE: Ending = Ending::Quiet {
        silent: Duration::from_secs(5),
        late: true,
    };

    fn rest(left_ms: u64) -> Ending {
        let left = Duration::from_millis(left_ms);
        Ending::Rest { left }
    }

    /// So long ago the client and the server have spoken.
    fn info(turn: u64, came_ms: u32, sent_ms: u32) -> Info {
        Info {
            last_recv_ms: came_ms,
            last_sent_ms: sent_ms,
            bytes_received: Some(turn * 10),
            bytes_acked: Some(turn * 50),
            ..Info::default()
        }
    }

    fn conn(came_ms: u32, sent_ms: u32) -> Conn {
        let nobody = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
        Conn {
            local: nobody,
            peer: nobody,
            state: state::ESTABLISHED,
            inode: 1,
            cookie: 1,
            rqueue: 0,
            wqueue: 0,
            info: Some(info(9, came_ms, sent_ms)),
        }
    }

    fn learnt(looks: &[Info]) -> Talk {
        looks.iter().fold(Talk::default(), |talk, i| talk.heard(i))
    }

    /// A client that asks again at once, of a slow server; one that pauses; one whose answers come in
    /// parts.
    fn talks() -> [Talk; 3] {
        let waits = [info(1, 3, 4), info(2, 3, 4), info(3, 3, 4)];
        let rests = [info(1, 4, 3), info(2, 4, 3), info(3, 4, 3)];
        let part = |sent| Info {
            bytes_acked: Some(sent),
            ..info(1, 9, 3)
        };
        let parts = [part(50), part(90), part(130), part(170)];
        [learnt(&waits), learnt(&rests), learnt(&parts)]
    }

    fn ends(c: &Conn, talk: Talk, held_back: bool, which: Ending) -> bool {
        Moment {
            conn: c,
            talk,
            held_back,
        }
        .may_end(which)
    }

    fn holds(c: &Conn, talk: Talk, which: Ending) -> bool {
        Moment {
            conn: c,
            talk,
            held_back: false,
        }
        .may_hold_back(which)
    }

    #[test]
    fn one_that_rests_ends_when_it_is_quiet_and_then_as_soon_as_it_can() {
        let [_, rests, _] = talks();
        assert!(ends(&conn(5100, 5000), rests, false, QUIET));
        assert!(!ends(&conn(4000, 3999), rests, false, LATE));
        assert!(!ends(&conn(40, 30), rests, false, rest(900)));
        assert!(ends(&conn(40, 30), rests, false, rest(750)));
        assert!(!ends(&conn(30, 40), rests, false, rest(10)));
        for which in [QUIET, LATE, rest(700)] {
            assert!(!holds(&conn(40, 30), rests, which), "{which:?}");
        }
    }

    #[test]
    fn who_never_rests_is_held_back_and_has_its_answer_to_the_end() {
        let [waits, _, _] = talks();
        let asked = conn(3, 4);
        assert!(!holds(&asked, waits, QUIET));
        assert!(holds(&asked, waits, LATE) && holds(&asked, waits, rest(700)));
        let unread = Conn { rqueue: 1, ..asked };
        assert!(!holds(&unread, waits, LATE));
        // What has come may be the first part of it.
        assert!(!ends(&conn(300, 100), waits, true, LATE));
        assert!(ends(&conn(900, 500), waits, true, LATE));
        assert!(!ends(&conn(700, 499), waits, true, rest(31)));
        assert!(ends(&conn(700, 500), waits, true, rest(600)));
        assert!(ends(&conn(300, 30), waits, true, rest(30)));
        // It is not known whether anything has.
        assert!(!ends(&conn(30, 30), waits, true, rest(10)));
        assert!(ends(&conn(60, 60), waits, true, rest(600)));
    }

    #[test]
    fn an_answer_in_parts_has_all_the_time_there_is() {
        let [_, _, parts] = talks();
        assert!(!holds(&conn(300, 100), parts, LATE) && holds(&conn(300, 100), parts, rest(700)));
        for held_back in [false, true] {
            assert!(!ends(&conn(300, 100), parts, held_back, LATE));
            assert!(!ends(&conn(700, 499), parts, held_back, rest(31)));
            assert!(ends(&conn(700, 500), parts, held_back, rest(500)));
            assert!(!ends(&conn(300, 29), parts, held_back, rest(30)));
            assert!(ends(&conn(300, 30), parts, held_back, rest(30)));
        }
    }

    #[test]
    fn where_it_is_unclear_the_silence_that_is_asked_for_gets_shorter() {
        let unknown = Talk::default();
        assert!(!ends(&conn(19, 19), unknown, false, rest(750)));
        assert!(ends(&conn(20, 20), unknown, false, rest(750)));
        assert!(!ends(&conn(9, 9), unknown, false, rest(525)));
        assert!(ends(&conn(10, 10), unknown, false, rest(525)));
        assert!(ends(&conn(0, 0), unknown, false, rest(300)));
    }

    #[test]
    fn a_unix_socket_ends_in_the_end_if_nothing_is_in_its_queues() {
        let seen = [QUIET, LATE, rest(751), rest(750)].map(|w| unix_may_end(false, w));
        assert_eq!(seen, [false, false, false, true]);
        assert!(!unix_may_end(true, rest(0)));
    }
}
