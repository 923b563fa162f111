//! Every setting with its unit, default and bounds, and the parsing of what people type for them.
//! No I/O: what has to be looked up (CPUs, addresses in use, the command) is looked up by the shell.

use crate::core::words::{human, signal_number};
use crate::core::{Level, Policy, ReadyRule, Takeover, share_clients};
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Most workers there can be.
pub const MAX_WORKERS: u16 = 1024;
/// Most -p times -H there can be.
pub const MAX_PORTS: usize = 64;
/// Longest of all durations.
pub const LONGEST: Duration = Duration::from_secs(1000 * 86_400);

/// Everything that the command line says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// -n; `None` is auto.
    pub workers: Option<u16>,
    /// -p
    pub ports: Vec<u16>,
    /// -H
    pub hosts: Vec<IpAddr>,
    /// --backlog
    pub backlog: i32,
    /// --takeover
    pub takeover: Takeover,
    /// --ready
    pub ready: ReadyRule,
    /// --ready-timeout; zero is never.
    pub ready_timeout: Duration,
    /// --start-timeout; zero is never.
    pub start_timeout: Duration,
    /// --respawn
    pub respawn: Duration,
    /// --backoff; zero is constant spacing.
    pub backoff: Duration,
    /// --backoff-reset
    pub backoff_reset: Duration,
    /// --stop-signal
    pub stop_signal: i32,
    /// --stop-timeout
    pub stop_timeout: Duration,
    /// --env, in order
    pub env: Vec<(String, String)>,
    /// --cwd
    pub cwd: Option<PathBuf>,
    /// --control
    pub control: Control,
    /// --name
    pub name: Option<String>,
    /// --log-format; `None` is text on a terminal, else logfmt.
    pub log_format: Option<LogFormat>,
    /// --log-level, -q, -v
    pub log_level: Level,
    /// --json
    pub json: bool,
    /// --no-wait
    pub no_wait: bool,
    /// What to run.
    pub command: Vec<OsString>,
}

/// --control
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// NAME.sock in the runtime directory.
    Named,
    /// This path.
    Path(PathBuf),
    /// None.
    Off,
}

/// --log-format
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// key=value.
    Logfmt,
    /// One object a line.
    Json,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            workers: None,
            ports: Vec::new(),
            hosts: Vec::new(),
            backlog: 4096,
            takeover: Takeover::Auto,
            ready: ReadyRule::Auto,
            ready_timeout: Duration::from_secs(60),
            start_timeout: Duration::from_secs(60),
            respawn: Duration::from_millis(100),
            backoff: Duration::from_secs(30),
            backoff_reset: Duration::from_secs(30),
            stop_signal: 15,
            stop_timeout: Duration::from_secs(10),
            env: Vec::new(),
            cwd: None,
            control: Control::Named,
            name: None,
            log_format: None,
            log_level: Level::Info,
            json: false,
            no_wait: false,
            command: Vec::new(),
        }
    }
}

impl Settings {
    /// What has to agree although each value alone is fine.
    pub fn check(&self) -> Result<(), String> {
        if self.ports.is_empty() && !self.hosts.is_empty() {
            return Err("-H says where -p listens, but there is no -p".into());
        }
        if self.addresses().len() > MAX_PORTS {
            let n = self.addresses().len();
            return Err(format!("{n} addresses to listen on (limit {MAX_PORTS})"));
        }
        let all = self.addresses();
        for (n, a) in all.iter().enumerate() {
            for b in all.iter().skip(n + 1).filter(|_| a.port() != 0) {
                match (a == b, share_clients(*a, *b)) {
                    (true, _) => return Err(format!("{a} is given twice")),
                    (_, true) => return Err(format!("{a} and {b}: one of them covers the other")),
                    (false, false) => {}
                }
            }
        }
        if self.backoff > Duration::ZERO && self.respawn > self.backoff {
            return Err(format!(
                "--respawn {} is longer than --backoff {}, its upper limit",
                human(self.respawn),
                human(self.backoff)
            ));
        }
        if let ReadyRule::Alive(d) = self.ready {
            for (name, limit) in [
                ("--ready-timeout", self.ready_timeout),
                ("--start-timeout", self.start_timeout),
            ] {
                if !limit.is_zero() && d >= limit {
                    return Err(format!(
                        "no worker could be alive for {} (--ready): {name} is {}; raise that, or 0 for never",
                        human(d),
                        human(limit)
                    ));
                }
            }
        }
        Ok(())
    }

    /// Each port on each host.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
        let hosts = match self.hosts.as_slice() {
            [] => &any[..],
            some => some,
        };
        self.ports
            .iter()
            .flat_map(|p| hosts.iter().map(|h| SocketAddr::new(*h, *p)))
            .collect()
    }

    /// What core needs of all this.
    pub fn policy(&self, cpus: usize, seed: u64) -> Policy {
        let auto = u16::try_from(cpus).unwrap_or(MAX_WORKERS);
        let unless_zero = |d: Duration| (!d.is_zero()).then_some(d);
        Policy {
            workers: self.workers.unwrap_or(auto).clamp(1, MAX_WORKERS),
            ports: self.addresses(),
            ready: self.ready,
            ready_timeout: unless_zero(self.ready_timeout),
            start_timeout: unless_zero(self.start_timeout),
            respawn: self.respawn,
            backoff: self.backoff,
            backoff_reset: self.backoff_reset,
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout,
            takeover: self.takeover.clone(),
            seed,
        }
    }

    /// The cluster's name if none is given: the command's (an interpreter's script's), and the port.
    pub fn implied_name(&self) -> String {
        let words: Vec<String> = self
            .command
            .iter()
            .map(|w| w.to_string_lossy().into_owned())
            .collect();
        let mut name = clean(&program_word(&words));
        if let Some(p) = self.ports.first().filter(|p| **p != 0) {
            name = format!("{name}-{p}");
        }
        name
    }
}

/// The word that says best what runs.
fn program_word(words: &[String]) -> String {
    const INTERPRETERS: [&str; 14] = [
        "sh", "bash", "dash", "zsh", "node", "nodejs", "bun", "deno", "ruby", "perl", "php",
        "java", "lua", "env",
    ];
    let base = |w: &str| w.rsplit('/').next().unwrap_or(w).to_string();
    let first = words.first().map(|w| base(w)).unwrap_or_default();
    let interpreter = INTERPRETERS.contains(&first.as_str()) || first.starts_with("python");
    let mut rest = words.iter().skip(1);
    match interpreter {
        false => first,
        true => loop {
            match rest.next().map(String::as_str) {
                // What follows is code, not a name.
                None | Some("-c" | "-e") => return first,
                Some(w) if w.starts_with('-') || w.contains('=') => {}
                Some(w) => return base(w),
            }
        },
    }
}

/// As a file name: at most 64 of the harmless characters.
fn clean(text: &str) -> String {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let s: String = text
        .trim_start_matches('.')
        .chars()
        .map(|c| if harmless(c) { c } else { '_' })
        .take(64)
        .collect();
    match s.is_empty() {
        true => "cluster".into(),
        false => s,
    }
}

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
    fn names_come_from_what_runs() {
        let named = |words: &[&str], port: Option<u16>| {
            let s = Settings {
                command: words.iter().map(Into::into).collect(),
                ports: port.into_iter().collect(),
                ..Settings::default()
            };
            s.implied_name()
        };
        assert_eq!(named(&["./server"], Some(3000)), "server-3000");
        assert_eq!(
            named(&["/usr/bin/node", "--inspect", "app/main.js"], None),
            "main.js"
        );
        assert_eq!(
            named(&["python3", "-m", "http.server", "8000"], None),
            "http.server"
        );
        assert_eq!(named(&["sh", "-c", "exec node x.js"], None), "sh");
        assert_eq!(named(&["npm", "start"], Some(0)), "npm");
        assert_eq!(named(&["./.."], None), "cluster");
        assert_eq!(named(&["./a b"], None), "a_b");
    }

    #[test]
    fn a_mistyped_word_finds_its_neighbour() {
        let words = ["--ready", "--respawn", "--backoff", "--backoff-reset"];
        assert_eq!(nearest("--redy", &words), Some("--ready"));
        assert_eq!(nearest("--back", &words), Some("--backoff"));
        assert_eq!(nearest("--zzz", &words), None);
    }

    #[test]
    fn values_that_do_not_agree_are_refused() {
        let base = Settings::default();
        assert!(base.check().is_ok());
        let mut s = base.clone();
        s.hosts = vec!["::".parse().unwrap()];
        assert!(s.check().unwrap_err().contains("no -p"));
        let mut s = base.clone();
        s.ports = vec![80, 80];
        assert!(s.check().unwrap_err().contains("twice"));
        let mut s = base.clone();
        s.ports = vec![80];
        s.hosts = vec!["::".parse().unwrap(), "127.0.0.1".parse().unwrap()];
        assert!(s.check().unwrap_err().contains("covers"));
        s.hosts[0] = "::1".parse().unwrap();
        assert!(s.check().is_ok());
        let mut s = base;
        s.respawn = Duration::from_secs(60);
        assert!(s.check().unwrap_err().contains("--backoff"));
        let mut s = Settings {
            ready: ReadyRule::Alive(Duration::from_secs(60)),
            ..Settings::default()
        };
        assert!(s.check().unwrap_err().contains("--ready-timeout is 1m"));
        s.ready_timeout = Duration::ZERO;
        assert!(s.check().unwrap_err().contains("--start-timeout is 1m"));
        s.start_timeout = Duration::from_secs(61);
        assert!(s.check().is_ok());
    }
}
