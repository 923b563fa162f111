//! How long connections have been there, as far as that can be told: the kernel does not say when one was
//! established. It is known since when one was seen, and for how long it has been silent, and it is as old
//! as the longer of both at least.

use super::debt::silent_ms;
use super::sock_diag::Conn;
use crate::core::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Of so many it is remembered since when they were seen (I9): where there are more, of none.
const MOST: usize = 8192;

/// Since when those that there are were there, by what no other connection has.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Ages {
    since: BTreeMap<u64, Time>,
}

impl Ages {
    /// These are there now; others are forgotten.
    pub fn see(&mut self, conns: &[Conn], now: Time) {
        let before = std::mem::take(&mut self.since);
        if conns.len() > MOST {
            return;
        }
        let since = |c: &Conn| {
            let then = now.before(Duration::from_millis(silent_ms(c).into()));
            let first = before.get(&c.cookie).copied().unwrap_or(then);
            (c.cookie, first.min(then))
        };
        self.since = conns.iter().map(since).collect();
    }

    /// How old that one is, at least.
    pub fn of(&self, conn: &Conn, now: Time) -> Duration {
        let silent = Duration::from_millis(silent_ms(conn).into());
        let seen = self.since.get(&conn.cookie).map(|at| now - *at);
        seen.map_or(silent, |seen| seen.max(silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sock_diag::{Info, state};

    fn conn(cookie: u64, silent_ms: u32) -> Conn {
        let info = Info {
            last_sent_ms: silent_ms,
            last_recv_ms: silent_ms,
            ..Info::default()
        };
        Conn {
            local: "127.0.0.1:80".parse().unwrap(),
            peer: "127.0.0.1:9".parse().unwrap(),
            state: state::ESTABLISHED,
            inode: 1,
            cookie,
            rqueue: 0,
            wqueue: 0,
            info: Some(info),
        }
    }

    #[test]
    fn one_is_as_old_as_it_was_seen_or_as_it_is_silent() {
        let at = |secs: u64| Time(secs * 1_000_000_000);
        let secs = Duration::from_secs;
        let mut ages = Ages::default();
        assert_eq!(ages.of(&conn(1, 3000), at(100)), secs(3));
        ages.see(&[conn(1, 3000), conn(2, 0)], at(100));
        // It has spoken since.
        assert_eq!(ages.of(&conn(1, 0), at(105)), secs(8));
        assert_eq!(ages.of(&conn(2, 4000), at(105)), secs(5));
        ages.see(&[conn(1, 0)], at(106));
        assert_eq!(ages.of(&conn(1, 0), at(110)), secs(13));
        assert_eq!(ages.of(&conn(2, 0), at(110)), secs(0));
        // More than are remembered; and a clock that has not got that far.
        let many: Vec<Conn> = (0..=MOST as u64).map(|n| conn(n, 0)).collect();
        ages.see(&many, at(111));
        assert_eq!(ages.of(&conn(1, 2000), at(112)), secs(2));
        ages.see(&[conn(1, 5000)], at(1));
        assert_eq!(ages.of(&conn(1, 5000), at(1)), secs(5));
    }
}
