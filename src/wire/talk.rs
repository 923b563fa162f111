//! How the two sides of a connection talk, as looks at the kernel's counters show it, one after the
//! other. Three things that one look does not show:
//!
//! Whether an answer comes in parts between which it pauses: at a pause nothing is seen to be owed, and
//! the answer is not over.
//!
//! Whose word was the last, if both have spoken within one tick of the kernel's clock. A server that
//! answers at once acknowledges the request with the answer; one that takes its time has its kernel
//! acknowledge it after 40 ms, or 200 at most, with a segment of its own, and these are counted.
//!
//! Who waits for whom: a client that pauses between two requests, or one that never does, for a server
//! that is slow. Of the looks that tell who spoke last, more tell it of the one that is waited for.

use super::debt::Debt;
use super::sock_diag::Info;
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;

/// After so many milliseconds the kernel has acknowledged what was not answered (TCP_DELACK_MAX, and a
/// tick of its clock).
const ACKNOWLEDGED_MS: u32 = 220;

/// What was learnt of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Talk {
    /// Has it been looked at?
    known: bool,
    came: u64,
    sent: u64,
    /// Looks that found that the server had said something, since the last that found so of the client.
    parts: u8,
    streams: bool,
    /// How many looks found that the server had said something.
    turns: u16,
    /// How many looks found something new, and the last word the client's,
    asked: u16,
    /// or the server's.
    answered: u16,
    /// Segments that did nothing but acknowledge.
    acks: Option<u32>,
    /// The same at the last look before the client spoke last. `None`: it has not been seen to speak.
    acks_before: Option<u32>,
    /// Is there a segment more from the client than from the server? With a request and an answer in one
    /// segment each, as most are, one is not answered.
    one_more: bool,
}

impl Talk {
    /// What another look shows.
    pub fn heard(self, info: &Info) -> Talk {
        let came = info.bytes_received.unwrap_or_default();
        let sent = info.bytes_acked.unwrap_or_default();
        let spoke = came > self.came;
        // Who spoke first between two looks is not known: an answer that has begun, at most.
        let before = if spoke { 0 } else { self.parts };
        let parts = before.saturating_add(u8::from(sent > self.sent));
        let acks = info.acknowledgements();
        let news = u16::from(self.known && (spoke || sent > self.sent));
        let (asked, answered) = match info.last_recv_ms.cmp(&info.last_sent_ms) {
            Ordering::Less => (news, 0),
            Ordering::Greater => (0, news),
            Ordering::Equal => (0, 0),
        };
        Talk {
            known: true,
            came,
            sent,
            parts,
            streams: self.streams || self.known && parts > 1,
            turns: self
                .turns
                .saturating_add(u16::from(self.known && sent > self.sent)),
            asked: self.asked.saturating_add(asked),
            answered: self.answered.saturating_add(answered),
            acks,
            one_more: match (info.data_segs_in, info.data_segs_out) {
                (Some(came), Some(sent)) => came == sent.wrapping_add(1),
                (_, _) => false,
            },
            acks_before: match spoke && self.known {
                true => self.acks,
                false => self.acks_before,
            },
        }
    }

    /// Has an answer been seen to come in parts?
    pub fn streams(self) -> bool {
        self.streams
    }

    /// Is it the client that waits, as a rule, and asks again when it has its answer?
    pub fn waits(self) -> bool {
        self.asked > self.answered && self.turns > 1
    }

    /// Is it seen to rest between an answer and the next request?
    pub fn rests(self) -> bool {
        self.answered > self.asked || self.turns == 0
    }

    /// What is owed on it that is silent for so long, given what one look shows.
    pub fn settle(self, debt: Debt, silent_ms: u32) -> Debt {
        match (debt, self.acks_before, self.acks) {
            (Debt::Unclear, Some(before), Some(now)) if now != before => Debt::Owed,
            (Debt::Unclear, Some(_), Some(_)) if silent_ms >= ACKNOWLEDGED_MS => Debt::Settled,
            // It was there before anybody looked.
            (Debt::Unclear, None, _) if self.one_more => Debt::Owed,
            (debt, _, _) => debt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that came and went, and acknowledgements.
    fn heard(looks: &[(u64, u64, u32)]) -> Talk {
        let hear = |talk: Talk, (came, sent, acks): &(u64, u64, u32)| {
            talk.heard(&Info {
                bytes_received: Some(*came),
                bytes_acked: Some(*sent),
                data_segs_out: Some(7),
                segs_out: Some(7 + acks),
                ..Info::default()
            })
        };
        looks.iter().fold(Talk::default(), hear)
    }

    #[test]
    fn an_answer_in_parts_is_told_from_several_answers() {
        let streams = |looks: &[(u64, u64)]| {
            let looks: Vec<_> = looks.iter().map(|(c, s)| (*c, *s, 0)).collect();
            heard(&looks).streams()
        };
        // Whole answers, whether the request is seen with them or before, and however long it is quiet.
        assert!(!streams(&[(10, 50), (20, 100), (20, 100), (30, 150)]));
        assert!(!streams(&[
            (10, 0),
            (10, 50),
            (20, 50),
            (20, 100),
            (20, 100)
        ]));
        // One that was under way at the first look.
        assert!(!streams(&[(20, 70), (30, 90)]));
        // Parts of one.
        assert!(streams(&[(10, 0), (10, 50), (10, 100)]));
        assert!(streams(&[(10, 50), (10, 50), (10, 100), (20, 100)]));
        // What was learnt is kept.
        assert!(streams(&[
            (10, 0),
            (10, 50),
            (10, 100),
            (20, 150),
            (30, 200)
        ]));
    }

    #[test]
    fn who_waits_is_seen_by_who_is_seen_to_have_spoken_last() {
        let hear = |talk: Talk, (came, recv, sent): &(u64, u32, u32)| {
            talk.heard(&Info {
                last_recv_ms: *recv,
                last_sent_ms: *sent,
                bytes_received: Some(*came),
                bytes_acked: Some(*came),
                ..Info::default()
            })
        };
        let waits = |looks: &[_]| looks.iter().fold(Talk::default(), hear).waits();
        // Mostly in one tick: what tells it counts.
        assert!(waits(&[(1, 8, 8), (2, 12, 12), (3, 8, 12), (4, 4, 4)]));
        assert!(!waits(&[(1, 8, 8), (2, 12, 12), (3, 12, 8), (4, 4, 4)]));
        // Nothing does, or both do.
        assert!(!waits(&[(1, 8, 8), (2, 12, 12)]));
        assert!(!waits(&[(1, 8, 8), (2, 8, 12), (3, 12, 8)]));
        // Nothing new is no second witness; nor is what was there before anybody looked.
        assert!(!waits(&[
            (1, 8, 8),
            (2, 8, 12),
            (2, 208, 212),
            (3, 12, 8),
            (4, 12, 8)
        ]));
        assert!(!waits(&[(1, 8, 12), (1, 208, 212)]));
        let rests = |looks: &[_]| looks.iter().fold(Talk::default(), hear).rests();
        assert!(rests(&[(1, 8, 8), (1, 208, 208)]));
        assert!(rests(&[(1, 8, 8), (2, 12, 8)]));
        assert!(!rests(&[(1, 8, 8), (2, 12, 12)]));
    }

    #[test]
    fn an_acknowledgement_of_its_own_tells_that_there_was_no_answer_to_go_with() {
        let settle = |looks: &[_], silent| heard(looks).settle(Debt::Unclear, silent);
        // A request with the answer before it, that is not answered.
        assert_eq!(settle(&[(10, 50, 3), (20, 90, 4)], 60), Debt::Owed);
        assert_eq!(
            settle(&[(10, 50, 3), (20, 90, 3), (20, 90, 4), (20, 90, 4)], 900),
            Debt::Owed
        );
        // A request with its answer.
        assert_eq!(
            settle(&[(10, 50, 3), (20, 90, 3), (20, 90, 3)], 250),
            Debt::Settled
        );
        // Too early to tell; and it was there before anybody looked.
        assert_eq!(settle(&[(10, 50, 3), (20, 90, 3)], 60), Debt::Unclear);
        assert_eq!(settle(&[(10, 50, 3), (10, 50, 3)], 900), Debt::Unclear);
        let counts = |came, sent| {
            let info = Info {
                data_segs_in: Some(came),
                data_segs_out: Some(sent),
                ..Info::default()
            };
            Talk::default().heard(&info).settle(Debt::Unclear, 900)
        };
        assert_eq!(counts(2, 1), Debt::Owed);
        assert_eq!(
            [counts(1, 1), counts(2, 3), counts(9, 1)],
            [Debt::Unclear; 3]
        );
        // What one look has shown is not doubted.
        let talk = heard(&[(10, 50, 3), (20, 90, 4)]);
        for debt in [Debt::Fresh, Debt::Owed, Debt::Settled] {
            assert_eq!(talk.settle(debt, 900), debt);
        }
    }

    #[test]
    fn of_a_kernel_that_does_not_count_nothing_is_learnt() {
        let dumb = Info::default();
        let talk = Talk::default().heard(&dumb).heard(&dumb);
        assert!(!talk.streams());
        assert_eq!(talk.settle(Debt::Unclear, 900), Debt::Unclear);
    }
}
