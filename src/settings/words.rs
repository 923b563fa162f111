//! What people type behind verbs, understood.

use super::{LONGEST, MAX_WORKERS, between, number, signal};
use crate::core::{Size, Target};
use std::time::Duration;

/// `N`, `+K`, `-K`: how many workers there are to be.
pub fn size(text: &str) -> Result<Size, String> {
    let (make, digits): (fn(u16) -> Size, &str) = match text.split_at_checked(1) {
        Some(("+", rest)) => (Size::More, rest),
        Some(("-", rest)) => (Size::Fewer, rest),
        Some(_) | None => (Size::To, text),
    };
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let n = number(digits, 1, MAX_WORKERS).ok().filter(|_| plain);
    n.map(make).ok_or_else(|| {
        let what = match text {
            "" => "how many workers?".to_string(),
            _ => format!("'{text}' is no number of workers:"),
        };
        format!("{what} write one from 1 to {MAX_WORKERS}, or +1, -1 for one more, one fewer")
    })
}

/// `all`, `N`, `slot:N`, `pid:N`: which workers.
pub fn target(text: &str) -> Result<Target, String> {
    let bad = || {
        format!("'{text}' is no worker: write all, the number of a slot or a pid, slot:N or pid:N")
    };
    let (make, digits): (fn(u32) -> Target, &str) = match text.split_once(':') {
        None if text == "all" => return Ok(Target::All),
        None => (Target::Number, text),
        Some(("slot", n)) => (Target::Slot, n),
        Some(("pid", n)) => (Target::Pid, n),
        Some(_) => return Err(bad()),
    };
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let n = digits.parse().ok().filter(|_| plain);
    n.map(make).ok_or_else(bad)
}

/// `SIG [all|SLOT|PID]`: what is sent, and to whom.
pub fn signal_to(words: &[&str]) -> Result<(i32, Target), String> {
    let first = words
        .first()
        .ok_or("which signal? write USR1, HUP, .. or its number")?;
    let whom = words.get(1).map_or(Ok(Target::All), |w| target(w))?;
    Ok((signal(first)?, whom))
}

/// `[all|SLOT|PID] [timeout T]`: who is meant, and how soon it has to be over.
pub fn whom_within(words: &[&str]) -> Result<(Target, Option<Duration>), String> {
    let (target, rest) = match words {
        [] | ["timeout", ..] => (Target::All, words),
        [first, rest @ ..] => (target(first)?, rest),
    };
    let within = match rest {
        [] => None,
        ["timeout", time] => Some(between(time, Duration::from_millis(1), LONGEST)?),
        ["timeout"] => return Err("timeout of how long? write timeout 10s".into()),
        [word, ..] => return Err(format!("'{word}' is not timeout T, as timeout 10s")),
    };
    Ok((target, within))
}

/// `JSON [all|SLOT|PID]`: what is said to the workers, and to which.
pub fn send<'a>(words: &[&'a str]) -> Result<(&'a str, Target), String> {
    let first = message(words)?;
    let whom = words.get(1).map_or(Ok(Target::All), |w| target(w))?;
    Ok((first, whom))
}

/// `JSON [timeout T]`: what is said to all workers, and how soon all have to answer.
pub fn sync_send<'a>(words: &[&'a str]) -> Result<(&'a str, Option<Duration>), String> {
    let first = message(words)?;
    let within = match words.get(1..).unwrap_or_default() {
        [] => None,
        ["timeout", time] => Some(between(time, Duration::from_millis(1), LONGEST)?),
        ["timeout"] => return Err("timeout of how long? write timeout 10s".into()),
        [word, ..] => return Err(format!("'{word}' is not timeout T, as timeout 10s")),
    };
    Ok((first, within))
}

/// `[BINARY] [timeout T]`: what is to take over, if not what has our name on disk, and how long that may take.
pub fn handover<'a>(words: &[&'a str]) -> Result<(Option<&'a str>, Option<Duration>), String> {
    let (binary, rest) = match words {
        [] | ["timeout", ..] => (None, words),
        [first, rest @ ..] => (Some(*first), rest),
    };
    let within = match rest {
        [] => None,
        ["timeout", time] => Some(between(time, Duration::from_millis(1), LONGEST)?),
        ["timeout"] => return Err("timeout of how long? write timeout 10s".into()),
        [word, ..] => return Err(format!("'{word}' is not timeout T, as timeout 10s")),
    };
    match binary.filter(|b| !b.starts_with('/')) {
        Some(b) => Err(format!(
            "{b}: which binary takes over is said by its whole path, from / on"
        )),
        None => Ok((binary, within)),
    }
}

fn message<'a>(words: &[&'a str]) -> Result<&'a str, String> {
    let none = "which message? write JSON, as one word: '{\"cmd\":\"ping\"}'";
    words.first().copied().ok_or_else(|| none.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_or_steps() {
        for (text, want) in [
            ("1", Size::To(1)),
            ("1024", Size::To(1024)),
            ("+3", Size::More(3)),
            ("-1", Size::Fewer(1)),
        ] {
            assert_eq!(size(text), Ok(want), "{text}");
        }
        for bad in [
            "", "0", "1025", "+0", "-0", "+", "-", "++1", "+-1", "four", "1.5", "é", "-2000",
        ] {
            assert!(size(bad).unwrap_err().contains("1 to 1024"), "{bad}");
        }
    }

    #[test]
    fn who_is_meant_and_how_soon_it_has_to_be_over() {
        let secs = |n| Some(Duration::from_secs(n));
        for (words, want) in [
            (&["2"][..], (Target::Number(2), None)),
            (&["slot:2", "timeout", "5s"], (Target::Slot(2), secs(5))),
            (&["pid:7", "timeout", "1m"], (Target::Pid(7), secs(60))),
            (&["all"], (Target::All, None)),
            (&[], (Target::All, None)),
            (&["timeout", "5s"], (Target::All, secs(5))),
            (&["all", "timeout", "5s"], (Target::All, secs(5))),
        ] {
            assert_eq!(whom_within(words), Ok(want), "{words:?}");
        }
        for (words, why) in [
            (&["x"][..], "is no worker"),
            (&["2", "5s"], "'5s' is not timeout T"),
            (&["2", "timeout"], "of how long"),
            (&["2", "timeout", "0"], "not between"),
            (&["2", "timeout", "x"], "no duration"),
        ] {
            let e = whom_within(words).unwrap_err();
            assert!(e.contains(why), "{words:?}: {e}");
        }
    }

    #[test]
    fn what_is_sent_to_whom_and_how_soon_it_is_answered() {
        assert_eq!(send(&["{}"]), Ok(("{}", Target::All)));
        assert_eq!(send(&["1", "slot:2"]), Ok(("1", Target::Slot(2))));
        assert_eq!(sync_send(&["{}"]), Ok(("{}", None)));
        let soon = Some(Duration::from_secs(2));
        assert_eq!(sync_send(&["{}", "timeout", "2s"]), Ok(("{}", soon)));
        assert!(send(&[]).unwrap_err().contains("which message?"));
        assert!(send(&["{}", "who"]).unwrap_err().contains("no worker"));
        assert!(
            sync_send(&["{}", "2s"])
                .unwrap_err()
                .contains("not timeout T")
        );
        assert!(sync_send(&["{}", "timeout", "0"]).is_err());
    }

    #[test]
    fn a_worker_is_named_by_slot_or_pid() {
        for (text, want) in [
            ("all", Target::All),
            ("0", Target::Number(0)),
            ("4711", Target::Number(4711)),
            ("slot:3", Target::Slot(3)),
            ("pid:3", Target::Pid(3)),
        ] {
            assert_eq!(target(text), Ok(want), "{text}");
        }
        for bad in [
            "",
            "-1",
            "+1",
            "slot:",
            "slot:x",
            "pid:-3",
            "worker:3",
            "99999999999",
            "ALL",
        ] {
            assert!(target(bad).is_err(), "{bad}");
        }
        assert_eq!(signal_to(&["SIGUSR1"]), Ok((10, Target::All)));
        assert_eq!(signal_to(&["hup", "slot:1"]), Ok((1, Target::Slot(1))));
        assert!(signal_to(&[]).unwrap_err().contains("which signal"));
        assert!(signal_to(&["all", "USR1"]).is_err());
    }
}
