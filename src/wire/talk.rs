//! How the two sides of a connection talk, as looks at the kernel's counters show it, one after the
//! other: whether an answer comes in parts between which it pauses. At such a pause nothing is seen to be
//! owed, and the answer is not over.

use super::sock_diag::Info;

/// What was learnt of one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Talk {
    came: u64,
    sent: u64,
    /// Looks that found that the server had said something, since the last that found so of the client.
    parts: u8,
    streams: bool,
}

impl Talk {
    /// What another look shows.
    pub fn heard(self, info: &Info) -> Talk {
        let came = info.bytes_received.unwrap_or_default();
        let sent = info.bytes_acked.unwrap_or_default();
        // Who spoke first between two looks is not known: an answer that has begun, at most.
        let before = if came > self.came { 0 } else { self.parts };
        let parts = before.saturating_add(u8::from(sent > self.sent));
        Talk {
            came,
            sent,
            parts,
            streams: self.streams || parts > 1,
        }
    }

    /// Has an answer been seen to come in parts?
    pub fn streams(self) -> bool {
        self.streams
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(looks: &[(u64, u64)]) -> bool {
        let hear = |talk: Talk, (came, sent): &(u64, u64)| {
            talk.heard(&Info {
                bytes_received: Some(*came),
                bytes_acked: Some(*sent),
                ..Info::default()
            })
        };
        looks.iter().fold(Talk::default(), hear).streams()
    }

    #[test]
    fn an_answer_in_parts_is_told_from_several_answers() {
        // Whole answers, whether the request is seen with them or before, and however long it is quiet.
        assert!(!streams(&[(10, 50), (20, 100), (20, 100), (30, 150)]));
        assert!(!streams(&[
            (10, 0),
            (10, 50),
            (20, 50),
            (20, 100),
            (20, 100)
        ]));
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
    fn of_a_kernel_that_does_not_count_nothing_is_learnt() {
        let dumb = Info::default();
        assert!(!Talk::default().heard(&dumb).heard(&dumb).streams());
    }
}
