//! How many lines a program may have in our log: what it complains of is somebody's to read, and one that
//! never stops would leave room for nothing else there, nor time for anybody. Of more it is said how many
//! they were.

use crate::core::Time;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// So many lines
pub const MOST: u32 = 100;
/// in that time.
pub const WITHIN: Duration = Duration::from_secs(1);

/// What one has left of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Allowance {
    since: Time,
    said: u32,
    left_out: u64,
}

impl Allowance {
    /// One more line: may it be said, and how many were not before it?
    pub fn one(&mut self, now: Time) -> (bool, u64) {
        let before = match now - self.since >= WITHIN {
            true => {
                (self.since, self.said) = (now, 0);
                self.rest()
            }
            false => 0,
        };
        let may = self.said < MOST;
        match may {
            true => self.said += 1,
            false => self.left_out += 1,
        }
        (may, before)
    }

    /// How many were left out, and nobody was told.
    pub fn rest(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }

    /// When that is to be told, whether more comes or not.
    pub fn due(&self) -> Option<Time> {
        (self.left_out > 0).then(|| self.since + WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_a_second_and_of_more_their_number() {
        let ms = |n: u64| Time(0) + Duration::from_millis(5_000 + n);
        let mut a = Allowance::default();
        for _ in 0..MOST {
            assert_eq!(a.one(ms(0)), (true, 0));
            assert_eq!(a.due(), None);
        }
        for n in 0..7 {
            assert_eq!(a.one(ms(n)), (false, 0));
            assert_eq!(a.due(), Some(ms(1_000)));
        }
        // What comes then tells of them, or the clock.
        assert_eq!(a.one(ms(1_000)), (true, 7));
        assert_eq!((a.due(), a.rest()), (None, 0));
        for _ in 0..MOST {
            a.one(ms(1_500));
        }
        assert_eq!((a.due(), a.rest(), a.due()), (Some(ms(2_000)), 1, None));
    }
}
