//! What people type for options that choose how something is done: each has its own words.

use super::{MAX_WORKERS, duration, number};
use crate::core::{Balance, Canary, Drain, OnCrashLoop, ReadyRule, RespawnOn, Surge, Takeover};
use serde::{Deserialize, Serialize};

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

/// A longer path than that is not asked for.
pub(super) const MOST_PATH: usize = 1024;

/// Can this be asked for by HTTP?
pub(super) fn is_path(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && b != b'#';
    let rooted = path.starts_with('/') && !path.starts_with("//");
    rooted && path.len() <= MOST_PATH && path.bytes().all(plain)
}

/// --ready, with the number of `fd:N` and the path of `http:/PATH`.
pub type Ready = (ReadyRule, Option<i32>, Option<String>);

/// `started|listening|ready|fd:N|tcp|http:/PATH|DUR`
pub fn ready(text: &str) -> Result<Ready, String> {
    if let Some(n) = text.strip_prefix("fd:") {
        return Ok((ReadyRule::Said, Some(number(n, 3, 1023)?), None));
    }
    if let Some(path) = text.strip_prefix("http:") {
        return match is_path(path) {
            true => Ok((ReadyRule::Answers, None, Some(path.to_string()))),
            false => Err(format!(
                "'{text}' is no http:/PATH, as http:/health: the path begins with one / and has up to {MOST_PATH} characters of ASCII, no blanks and no #; the port is the first one that is given"
            )),
        };
    }
    let rule = match text {
        "auto" => Ok(ReadyRule::Auto),
        "started" => Ok(ReadyRule::Started),
        "listening" => Ok(ReadyRule::Listening),
        "ready" => Ok(ReadyRule::Said),
        "tcp" => Ok(ReadyRule::Answers),
        _ => duration(text).map(ReadyRule::Alive).map_err(|e| {
            match text.starts_with(|c: char| c.is_ascii_digit()) {
                true => e,
                false => {
                    format!(
                        "'{text}' is none of auto, started, listening, ready, fd:N, tcp, http:/PATH, or a duration like 5s"
                    )
                }
            }
        }),
    };
    rule.map(|r| (r, None, None))
}

/// `connections|server|none`
pub fn drain(text: &str) -> Result<Drain, String> {
    match text {
        "connections" => Ok(Drain::Connections),
        "server" => Ok(Drain::Server),
        "none" => Ok(Drain::None),
        _ => Err(format!("'{text}' is none of connections, server, none")),
    }
}

/// `K[:DUR[:P%]]`; what is left out stays as it was.
pub fn canary(text: &str, was: Canary) -> Result<Canary, String> {
    let bad = |e: String| format!("'{text}' is no K[:DURATION[:PERCENT%]], as 1:2s:10%: {e}");
    let mut parts = text.split(':');
    let count = number(parts.next().unwrap_or_default(), 0, MAX_WORKERS).map_err(bad)?;
    let watch = parts.next().map_or(Ok(was.watch), duration).map_err(bad)?;
    let percent = |p: &str| number(p.strip_suffix('%').unwrap_or(p), 0u8, 99);
    let share = parts.next().map_or(Ok(was.share), percent).map_err(bad)?;
    match parts.next() {
        Some(more) => Err(bad(format!(":{more} is too much"))),
        None => Ok(Canary {
            count,
            watch,
            share,
        }),
    }
}

/// --balance
pub fn balance(text: &str) -> Result<Balance, String> {
    let found = Balance::ALL.into_iter().find(|b| b.word() == text);
    found.ok_or_else(|| {
        let words = Balance::ALL.map(Balance::word).join(", ");
        format!("'{text}' is none of {words}")
    })
}

/// `degrade|exit`
pub fn on_crash_loop(text: &str) -> Result<OnCrashLoop, String> {
    match text {
        "degrade" => Ok(OnCrashLoop::Degrade),
        "exit" => Ok(OnCrashLoop::Exit),
        _ => Err(format!("'{text}' is neither degrade nor exit")),
    }
}

/// --orphans: what becomes of workers when the master dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Orphans {
    /// They end with it.
    Stop,
    /// They go on, and the next start has them.
    Keep,
}

/// `stop|keep`
pub fn orphans(text: &str) -> Result<Orphans, String> {
    match text {
        "stop" => Ok(Orphans::Stop),
        "keep" => Ok(Orphans::Keep),
        _ => Err(format!("'{text}' is neither stop nor keep")),
    }
}

/// `any|failure|never`
pub fn respawn_on(text: &str) -> Result<RespawnOn, String> {
    match text {
        "any" => Ok(RespawnOn::Any),
        "failure" => Ok(RespawnOn::Failure),
        "never" => Ok(RespawnOn::Never),
        _ => Err(format!("'{text}' is none of any, failure, never")),
    }
}

/// `K|P%`
pub fn surge(text: &str) -> Result<Surge, String> {
    let plain = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    let found = match text.strip_suffix('%') {
        Some(part) if plain(part) => number(part, 0, 100).map(Surge::Percent),
        None if plain(text) => number(text, 0, MAX_WORKERS).map(Surge::Count),
        Some(_) | None => Err(String::new()),
    };
    found.map_err(|_| {
        format!("'{text}' is neither workers, 0 to {MAX_WORKERS}, nor a part of them, 0% to 100%")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn what_becomes_of_crashes_is_a_word() {
        assert_eq!(on_crash_loop("exit"), Ok(OnCrashLoop::Exit));
        assert_eq!(on_crash_loop("degrade"), Ok(OnCrashLoop::Degrade));
        assert_eq!(
            on_crash_loop("stop"),
            Err("'stop' is neither degrade nor exit".into())
        );
        assert_eq!(respawn_on("any"), Ok(RespawnOn::Any));
        assert_eq!(respawn_on("failure"), Ok(RespawnOn::Failure));
        assert_eq!(respawn_on("never"), Ok(RespawnOn::Never));
        assert_eq!(
            respawn_on("Any"),
            Err("'Any' is none of any, failure, never".into())
        );
    }

    #[test]
    fn how_workers_are_drained_and_how_many_at_once() {
        for (text, want) in [
            ("connections", Drain::Connections),
            ("server", Drain::Server),
            ("none", Drain::None),
        ] {
            assert_eq!(drain(text), Ok(want), "{text}");
        }
        for bad in ["", "connection", "Server", "off"] {
            assert!(drain(bad).unwrap_err().contains("connections"), "{bad}");
        }
        for (text, want) in [
            ("0", Surge::Count(0)),
            ("1024", Surge::Count(1024)),
            ("0%", Surge::Percent(0)),
            ("25%", Surge::Percent(25)),
            ("100%", Surge::Percent(100)),
        ] {
            assert_eq!(surge(text), Ok(want), "{text}");
        }
        for bad in [
            "", "%", "101%", "1025", "-1", "+1", "+1%", "1.5", "50 %", "half", "99999%",
        ] {
            assert!(surge(bad).unwrap_err().contains("0% to 100%"), "{bad}");
        }
    }

    #[test]
    fn a_path_to_be_asked_for_is_one_word_that_begins_at_the_root() {
        for path in ["/", "/a/b?c=d&e=%20"] {
            let rule = (ReadyRule::Answers, None, Some(path.to_string()));
            assert_eq!(ready(&format!("http:{path}")), Ok(rule));
        }
        let long = "/a".repeat(MOST_PATH);
        for path in [
            "",
            "a",
            "/a b",
            "/a#b",
            "/a\r\nX: y",
            "/\u{e9}",
            "//host/a",
            &long,
        ] {
            assert!(
                ready(&format!("http:{path}"))
                    .unwrap_err()
                    .contains("as http:/health")
            );
        }
        assert_eq!(ready("tcp"), Ok((ReadyRule::Answers, None, None)));
    }
}
