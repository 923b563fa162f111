//! How far workers may come until they are replaced, and what that implies.

use super::{Settings, number};
use crate::core::{Balance, ReadyRule, Recycle};

/// `512K 300M 2G`, a bare number is bytes.
pub fn bytes(text: &str) -> Result<u64, String> {
    between_bytes(text, 1 << 20, "1M")
}

/// The same from so many on, which are spelt so.
pub fn between_bytes(text: &str, least: u64, spelt: &str) -> Result<u64, String> {
    const MOST: u64 = 1 << 50;
    let bad = || format!("'{text}' is no size: write 300M, 2G or bytes");
    let at = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(at);
    let shift = match unit {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        "T" | "t" => 40,
        _ => return Err(bad()),
    };
    let n: u64 = digits.parse().map_err(|_| bad())?;
    match n.checked_mul(1 << shift) {
        Some(n) if (least..=MOST).contains(&n) => Ok(n),
        Some(_) | None => Err(format!("'{text}' is not between {spelt} and 1024T")),
    }
}

/// Of 100, no more than half.
pub fn jitter(text: &str) -> Result<u8, String> {
    number(text.strip_suffix('%').unwrap_or(text), 0, 50)
        .map_err(|_| format!("'{text}' is not from 0% to 50%"))
}

impl Settings {
    /// To whom connections go. One of several workers that share a queue could neither be emptied
    /// alone, nor be asked.
    pub fn balance(&self) -> Balance {
        let recycles =
            self.max_age.is_some() || self.max_rss.is_some() || self.max_connections.is_some();
        let alone = recycles || self.ready == ReadyRule::Answers;
        self.balance.unwrap_or(match alone {
            true => Balance::Hash,
            false => Balance::Shared,
        })
    }

    /// Is it counted what becomes of connections?
    pub fn counts(&self) -> bool {
        self.count_connections || self.max_connections.is_some()
    }

    /// What core needs of it.
    pub(super) fn recycle(&self) -> Recycle {
        Recycle {
            age: self.max_age,
            rss: self.max_rss,
            connections: self.max_connections,
            jitter: self.recycle_jitter,
        }
    }

    /// Can it be told whose a connection was?
    pub(super) fn check_recycling(&self) -> Result<(), String> {
        if self.max_connections.is_some() && !self.balance().tells_apart() {
            return Err(
                "--max-connections needs --balance hash or ip: else nothing tells whose a connection was".into(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sizes_of_memory_and_parts_of_limits() {
        for (text, n) in [
            ("1048576", 1 << 20),
            ("2048K", 2 << 20),
            ("300M", 300 << 20),
            ("2g", 2 << 30),
            ("1T", 1 << 40),
        ] {
            assert_eq!(bytes(text), Ok(n), "{text}");
        }
        for bad in [
            "",
            "M",
            "1.5G",
            "512K",
            "0",
            "-1M",
            "1P",
            "2000T",
            "99999999999999999999",
            "1 M",
            "16777216T",
        ] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(
            (jitter("0"), jitter("10%"), jitter("50%")),
            (Ok(0), Ok(10), Ok(50))
        );
        for bad in ["", "51%", "%", "-1", "1.5%"] {
            assert!(jitter(bad).unwrap_err().contains("50%"), "{bad}");
        }
    }

    #[test]
    fn who_recycles_has_a_queue_for_each_worker_unless_it_is_said_otherwise() {
        let mut s = Settings::default();
        assert_eq!(s.balance(), Balance::Shared);
        s.max_age = Some(Duration::from_secs(60));
        assert_eq!((s.balance(), s.check()), (Balance::Hash, Ok(())));
        s.balance = Some(Balance::Shared);
        assert_eq!((s.balance(), s.check()), (Balance::Shared, Ok(())));
        s.max_connections = Some(100);
        for (balance, fine) in [
            (Some(Balance::Shared), false),
            (Some(Balance::Cpu), false),
            (Some(Balance::Ip), true),
            (Some(Balance::Hash), true),
            (None, true),
        ] {
            s.balance = balance;
            let e = s.check();
            assert_eq!(e.is_ok(), fine, "{balance:?}");
            assert!(fine || e.unwrap_err().contains("--balance hash or ip"));
        }
    }
}
