//! What people type for settings, understood.

use super::{LONGEST, clean};
use crate::core::words::{human, signal_number};
use crate::core::{ReadyRule, Takeover};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
/// `500ms 10s 5m 1h 1d`, a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is no duration: write 500ms, 10s, 5m, 1h, 1d or seconds");
    let at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit_ns: f64 = match unit {
        "us" => 1e3,
        "ms" => 1e6,
        "" | "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        "d" => 86_400e9,
        _ => return Err(bad()),
    };
    let digits = number.chars().any(|c| c.is_ascii_digit());
    let n: f64 = number.parse().ok().filter(|_| digits).ok_or_else(bad)?;
    let ns = n * unit_ns;
    if ns > LONGEST.as_nanos() as f64 {
        return Err(format!("'{text}' is longer than {}", human(LONGEST)));
    }
    Ok(Duration::from_nanos(ns.round() as u64))
}

/// A whole number within bounds.
pub fn number<T>(text: &str, least: T, most: T) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + std::fmt::Display + Copy,
{
    match text.parse::<T>() {
        Ok(n) if n >= least && n <= most => Ok(n),
        Ok(_) | Err(_) => Err(format!("'{text}' is not a number from {least} to {most}")),
    }
}

/// An address; names are not looked up, but for localhost.
pub fn host(text: &str) -> Result<IpAddr, String> {
    let bare = text
        .strip_prefix('[')
        .and_then(|t| t.strip_suffix(']'))
        .unwrap_or(text);
    match bare {
        "localhost" => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => bare.parse().map_err(|_| {
            format!("'{text}' is not an address: write 127.0.0.1, 0.0.0.0, ::1, :: or localhost")
        }),
    }
}

/// `auto|off|require|PORT[=OURPORT],...`
pub fn takeover(text: &str) -> Result<Takeover, String> {
    let port = |t: &str| number::<u16>(t, 1, u16::MAX);
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    match text {
        "auto" => Ok(Takeover::Auto),
        "off" => Ok(Takeover::Off),
        "require" => Ok(Takeover::Require),
        list => {
            let mut map = Vec::new();
            for item in list.split(',') {
                let (theirs, ours) = item.split_once('=').unwrap_or((item, item));
                if !digits(theirs) || !digits(ours) {
                    return Err(format!(
                        "'{text}' is none of auto, off, require, or a list of PORT[=OURPORT] like 3000,8080=80"
                    ));
                }
                let (theirs, ours) = (port(theirs)?, port(ours)?);
                if map.iter().any(|(t, _)| *t == theirs) {
                    return Err(format!("'{text}' names port {theirs} twice"));
                }
                map.push((theirs, ours));
            }
            Ok(Takeover::Ports(map))
        }
    }
}

/// `started|listening|DUR`
pub fn ready(text: &str) -> Result<ReadyRule, String> {
    match text {
        "auto" => Ok(ReadyRule::Auto),
        "started" => Ok(ReadyRule::Started),
        "listening" => Ok(ReadyRule::Listening),
        _ => duration(text).map(ReadyRule::Alive).map_err(|e| {
            match text.starts_with(|c: char| c.is_ascii_digit()) {
                true => e,
                false => {
                    format!("'{text}' is none of auto, started, listening, or a duration like 5s")
                }
            }
        }),
    }
}

/// A signal by name or number.
pub fn signal(text: &str) -> Result<i32, String> {
    signal_number(text)
        .ok_or_else(|| format!("'{text}' is no signal: write TERM, INT, QUIT, .. or its number"))
}

/// `K=V`
pub fn env_pair(text: &str) -> Result<(String, String), String> {
    // They say which descriptors the worker is born with: a wrong word is a wrong descriptor.
    const OURS: [&str; 3] = ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"];
    match text.split_once('=') {
        Some((k, _)) if OURS.contains(&k) => Err(format!(
            "{k} is set for each worker, by the sockets that it is given"
        )),
        Some((k, v)) if !k.is_empty() && !text.contains('\0') => Ok((k.into(), v.into())),
        _ => Err(format!("'{text}' is not NAME=VALUE")),
    }
}

/// A cluster's name: a harmless file name.
pub fn name(text: &str) -> Result<String, String> {
    match !text.is_empty() && clean(text) == text {
        true => Ok(text.into()),
        false => Err(format!(
            "'{text}' is not a name: at most 64 of A-Z a-z 0-9 . _ -, the first no dot"
        )),
    }
}

/// Replaces `{slot}` and `{slot+N}`; other braces stay.
pub fn expand(template: &[u8], slot: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.windows(5).position(|w| w == b"{slot") {
        out.extend_from_slice(&rest[..at]);
        let tail = &rest[at + 5..];
        let close = tail.iter().position(|b| *b == b'}');
        let plus = close.and_then(|c| match &tail[..c] {
            b"" => Some(0u64),
            [b'+', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                std::str::from_utf8(digits).ok()?.parse().ok()
            }
            _ => None,
        });
        match (close, plus.and_then(|n| n.checked_add(u64::from(slot)))) {
            (Some(c), Some(n)) => {
                out.extend_from_slice(n.to_string().as_bytes());
                rest = &tail[c + 1..];
            }
            _ => {
                out.extend_from_slice(b"{slot");
                rest = tail;
            }
        }
    }
    out.extend_from_slice(rest);
    out
}

/// The candidate that a mistyped word most likely meant.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let starts = |c: &&&str| word.len() >= 3 && c.starts_with(word);
    if let Some(whole) = candidates.iter().find(starts) {
        return Some(whole);
    }
    let by_distance = |c: &&'a str| (distance(word, c), c.len());
    let best = candidates.iter().copied().min_by_key(by_distance)?;
    (distance(word, best) <= 1 + word.len() / 4).then_some(best)
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut before = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let substitute = before + usize::from(ca != *cb);
            before = row[j + 1];
            row[j + 1] = substitute.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_people_type_them() {
        for (text, ms) in [
            ("0", 0),
            ("10", 10_000),
            ("500ms", 500),
            ("1.5s", 1500),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
            (".5", 500),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in [
            "", "s", "ten", "-1", "1w", "1 s", "1e3", ".", "1.2.3", "2000d", "inf", "NaN",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn takeover_in_all_its_forms() {
        assert_eq!(takeover("auto"), Ok(Takeover::Auto));
        assert_eq!(takeover("off"), Ok(Takeover::Off));
        assert_eq!(takeover("require"), Ok(Takeover::Require));
        let list = Takeover::Ports(vec![(3000, 3000), (8080, 80)]);
        assert_eq!(takeover("3000,8080=80"), Ok(list));
        for bad in ["", "on", "0", "80=", "=80", "80,80=81", "80=99999", "80;81"] {
            assert!(takeover(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn slots_are_expanded_and_other_braces_stay() {
        for (template, want) in [
            ("a{slot}b", "a3b"),
            ("{slot+9000}", "9003"),
            ("{slot}{slot+1}", "34"),
            ("{slots}", "{slots}"),
            ("{slot", "{slot"),
            ("{slot+}", "{slot+}"),
            ("{slot+x}", "{slot+x}"),
            ("{}", "{}"),
            ("{slot{slot}}", "{slot3}"),
            ("{slot+99999999999999999999}", "{slot+99999999999999999999}"),
        ] {
            let got = expand(template.as_bytes(), 3);
            assert_eq!(String::from_utf8(got).unwrap(), want);
        }
    }

    #[test]
    fn a_mistyped_word_finds_its_neighbour() {
        let words = ["--ready", "--respawn", "--backoff", "--backoff-reset"];
        assert_eq!(nearest("--redy", &words), Some("--ready"));
        assert_eq!(nearest("--back", &words), Some("--backoff"));
        assert_eq!(nearest("--zzz", &words), None);
    }
}
