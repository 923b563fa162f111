//! How durations, errors, signals and exit statuses are spelled, everywhere.

use super::event::{Exit, Target};
use super::rotation::MAX_REASON;
use std::fmt;
use std::time::Duration;

/// No longer than a reason may be: what others say goes into events and answers.
pub fn cut(mut why: String) -> String {
    let mut end = why.len().min(MAX_REASON);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    why.truncate(end);
    why
}

/// A duration as people say it: `350us 50ms 1.6s 4m10s 3h5m 2d4h`.
pub fn human(d: Duration) -> String {
    let ms = d.as_millis();
    if d.is_zero() {
        "0s".into()
    } else if d < Duration::from_millis(1) {
        format!("{}us", d.as_micros())
    } else if ms < 1000 {
        format!("{ms}ms")
    } else if ms < 60_000 {
        let tenths = ms / 100 % 10;
        match tenths {
            0 => format!("{}s", ms / 1000),
            t => format!("{}.{t}s", ms / 1000),
        }
    } else {
        let two = |big: u64, bu: &str, small: u64, su: &str| match small {
            0 => format!("{big}{bu}"),
            s => format!("{big}{bu}{s}{su}"),
        };
        let s = d.as_secs();
        if s < 3600 {
            two(s / 60, "m", s % 60, "s")
        } else if s < 86_400 {
            two(s / 3600, "h", s % 3600 / 60, "m")
        } else {
            two(s / 86_400, "d", s % 86_400 / 3600, "h")
        }
    }
}

/// errno as text, without the number.
pub fn errno_text(errno: i32) -> String {
    let s = std::io::Error::from_raw_os_error(errno).to_string();
    match s.split_once(" (os error") {
        Some((text, _)) => text.to_string(),
        None => s,
    }
}

/// Why it failed, without the number.
pub fn reason(e: &std::io::Error) -> String {
    match e.raw_os_error() {
        Some(errno) => errno_text(errno),
        None => e.to_string(),
    }
}

/// `1 worker`, `3 workers`; for what has its plural by an s.
pub fn count(n: usize, what: &str) -> String {
    match n {
        1 => format!("1 {what}"),
        _ => format!("{n} {what}s"),
    }
}

/// A number of bytes: `512B 1.5K 300M 2.0G`.
pub fn bytes(n: u64) -> String {
    let (mut big, mut unit) = (n as f64, "B");
    for next in ["K", "M", "G", "T"] {
        if big < 1024.0 {
            break;
        }
        (big, unit) = (big / 1024.0, next);
    }
    match unit {
        "B" => format!("{n}B"),
        _ if big < 10.0 => format!("{big:.1}{unit}"),
        _ => format!("{big:.0}{unit}"),
    }
}

/// Why there can be no more workers than that.
pub fn no_room(most: u16) -> String {
    format!(
        "the master's hard limit of open files has room for {most}; raise that (ulimit -Hn, LimitNOFILE=) and start it again"
    )
}

/// Of each signal its name, and the words for that it came to us.
macro_rules! signals {
    ($($name:literal)*) => {
        const SIGNALS: &[(&str, &str)] = &[$(($name, concat!("SIG", $name, " received"))),*];
    };
}

signals! {
    "HUP" "INT" "QUIT" "ILL" "TRAP" "ABRT" "BUS" "FPE" "KILL" "USR1" "SEGV" "USR2"
    "PIPE" "ALRM" "TERM" "STKFLT" "CHLD" "CONT" "STOP" "TSTP" "TTIN" "TTOU" "URG"
    "XCPU" "XFSZ" "VTALRM" "PROF" "WINCH" "IO" "PWR" "SYS"
}

fn signal(n: i32) -> Option<(&'static str, &'static str)> {
    let at = usize::try_from(n.checked_sub(1)?).ok()?;
    SIGNALS.get(at).copied()
}

/// `TERM` for 15; the number where there is no name.
pub fn signal_name(n: i32) -> String {
    signal(n).map_or_else(|| n.to_string(), |(name, _)| name.to_string())
}

/// `SIGTERM received`
pub fn signal_received(n: i32) -> &'static str {
    signal(n).map_or("signal received", |(_, received)| received)
}

/// The number of a signal given by name (`TERM`, `SIGTERM`) or number.
pub fn signal_number(name: &str) -> Option<i32> {
    if let Ok(n) = name.parse::<i32>() {
        return (1..=64).contains(&n).then_some(n);
    }
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    (1..=31).find(|n| signal_name(*n) == bare)
}

/// As it is typed.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::All => f.write_str("all"),
            Target::Slot(n) => write!(f, "slot:{n}"),
            Target::Pid(n) => write!(f, "pid:{n}"),
            Target::Number(n) => write!(f, "{n}"),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(c) => write!(f, "exit {c}"),
            Exit::Signal(s) => write!(f, "SIG{}", signal_name(*s)),
            Exit::Unknown => f.write_str("status unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_said_as_people_say_them() {
        for (ns, want) in [
            (0, "0s"),
            (400, "0us"),
            (350_000, "350us"),
            (50_000_000, "50ms"),
            (1_000_000_000, "1s"),
            (1_649_000_000, "1.6s"),
            (60_000_000_000, "1m"),
            (250_000_000_000, "4m10s"),
            (11_100_000_000_000, "3h5m"),
            (187_200_000_000_000, "2d4h"),
        ] {
            assert_eq!(human(Duration::from_nanos(ns)), want);
        }
    }

    #[test]
    fn signals_have_names_both_ways() {
        for n in 1..=31 {
            assert_eq!(signal_number(&signal_name(n)), Some(n));
            assert_eq!(signal_number(&format!("sig{}", signal_name(n))), Some(n));
        }
        assert_eq!(signal_number("40"), Some(40));
        assert_eq!(signal_received(15), "SIGTERM received");
        for bad in ["", "0", "65", "-1", "TERMINATE", "SIG"] {
            assert_eq!(signal_number(bad), None, "{bad}");
        }
    }

    #[test]
    fn errno_text_has_no_number() {
        assert_eq!(errno_text(2), "No such file or directory");
    }
}
