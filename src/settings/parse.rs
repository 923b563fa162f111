//! What people type for settings, understood: values of the kinds that many options have.

use super::{LONGEST, Listen, SocketFile, naming::clean, principal};
use crate::core::Addr;
use crate::core::words::{human, signal_number};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
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

/// None at all, or long enough for a SIGKILL to work.
pub fn budget(text: &str) -> Result<Option<Duration>, String> {
    const LEAST: Duration = Duration::from_secs(1);
    match duration(text)? {
        d if d.is_zero() || d >= LEAST => Ok(Some(d)),
        d => Err(format!(
            "{} is shorter than {}: to kill workers and to leave takes time, too (0: no budget)",
            human(d),
            human(LEAST)
        )),
    }
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

/// `tcp://HOST:PORT`, `unix:PATH[,mode=0660]`, `fd:N`
pub fn listen(text: &str) -> Result<Listen, String> {
    if let Some(n) = text.strip_prefix("fd:") {
        // 1 and 2 are where we and the workers write.
        return match number::<i32>(n, 0, 1_048_575)? {
            1 | 2 => Err(format!("fd:{n} is for output: 0, or 3 and up")),
            n => Ok(Listen::Fd(n)),
        };
    }
    if let Some(rest) = text.strip_prefix("unix:") {
        let (path, file) = socket_file(rest)?;
        return match path {
            "" | "@" => Err(format!("'{text}' names no path")),
            _ if path.ends_with('/') => Err(format!("'{path}' is a directory")),
            _ if path.contains('\0') => Err(format!("'{text}' holds a NUL")),
            _ if path.starts_with('@') && file != SocketFile::default() => Err(format!(
                "'{text}': a name in the abstract namespace has no file, so no mode and no owner"
            )),
            _ => Ok(Listen::Open(Addr::Unix(path.into()), file)),
        };
    }
    let bad = || {
        format!(
            "'{text}' is none of tcp://127.0.0.1:3000, tcp://[::1]:3000, unix:/path, unix:/path,mode=0660,group=NAME, unix:@name, fd:3"
        )
    };
    let rest = text.strip_prefix("tcp://").ok_or_else(bad)?;
    // With the number of an interface, as a link-local address needs it.
    if let Ok(addr) = rest.parse::<SocketAddr>() {
        return Ok(Listen::Open(addr.into(), SocketFile::default()));
    }
    let (name, port) = rest.rsplit_once(':').ok_or_else(bad)?;
    if name.contains(':') && !name.starts_with('[') {
        return Err(bad());
    }
    let addr = SocketAddr::new(host(name)?, number(port, 0, u16::MAX)?);
    Ok(Listen::Open(addr.into(), SocketFile::default()))
}

/// What stands behind the path of a unix socket; a path may have commas and equals signs, too.
fn socket_file(text: &str) -> Result<(&str, SocketFile), String> {
    let (mut path, mut file) = (text, SocketFile::default());
    while let Some((rest, last)) = path.rsplit_once(',') {
        match last.split_once('=') {
            Some(("mode", v)) => file.mode = Some(octal(v)?),
            Some(("user", v)) => file.user = Some(principal(v)?),
            Some(("group", v)) => file.group = Some(principal(v)?),
            Some(_) | None => break,
        }
        path = rest;
    }
    Ok((path, file))
}

/// Permissions, as chmod(1) takes them.
pub fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(n) if n <= 0o777 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(n),
        Ok(_) | Err(_) => Err(format!("'{text}' is no mode: write 0660, 0600, ..")),
    }
}

/// A duration within bounds.
pub fn between(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let d = duration(text)?;
    match d >= least && d <= most {
        true => Ok(d),
        false => Err(format!(
            "'{text}' is not between {} and {}",
            human(least),
            human(most)
        )),
    }
}

/// What is off by default, and is said to be: `off`, or a value.
pub fn unless_off<T>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, String> {
    match text {
        "off" => Ok(None),
        value => Ok(Some(parse(value)?)),
    }
}

/// A signal by name or number.
pub fn signal(text: &str) -> Result<i32, String> {
    signal_number(text)
        .ok_or_else(|| format!("'{text}' is no signal: write TERM, INT, QUIT, .. or its number"))
}

/// Why a variable cannot be set by the operator, if it is one of those.
pub(super) fn ours_alone(name: &str) -> Option<String> {
    // They say which descriptors the worker is born with: a wrong word is a wrong descriptor.
    const OURS: [&str; 3] = ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"];
    OURS.contains(&name)
        .then(|| format!("{name} is set for each worker, by the sockets that it is given"))
}

/// `K=V`
pub fn env_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((k, v)) if !k.is_empty() && !text.contains('\0') => match ours_alone(k) {
            Some(why) => Err(why),
            None => Ok((k.into(), v.into())),
        },
        // What is behind a = may be secret.
        Some(_) => Err("not NAME=VALUE: nothing stands before the =".into()),
        None => Err("not NAME=VALUE: there is no = in it".into()),
    }
}

/// A path.
pub fn path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("a path is needed".into()),
        _ => Ok(PathBuf::from(text)),
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
    const MARK: &[u8] = b"{slot";
    let mark = |text: &[u8]| text.windows(MARK.len()).position(|w| w == MARK);
    while let Some((before, tail)) = mark(rest).and_then(|at| rest.split_at_checked(at)) {
        out.extend_from_slice(before);
        let tail = tail.strip_prefix(MARK).unwrap_or_default();
        let close = tail.iter().position(|b| *b == b'}');
        let inner = close.and_then(|c| tail.split_at_checked(c));
        let plus = inner.and_then(|(inner, _)| match inner {
            b"" => Some(0u64),
            [b'+', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
                std::str::from_utf8(digits).ok()?.parse().ok()
            }
            _ => None,
        });
        match (inner, plus.and_then(|n| n.checked_add(u64::from(slot)))) {
            (Some((_, [_, behind @ ..])), Some(n)) => {
                out.extend_from_slice(n.to_string().as_bytes());
                rest = behind;
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

#[cfg(test)]
mod tests {
    use super::super::Principal;
    use super::*;

    #[test]
    fn what_is_off_by_default_can_be_said_to_be() {
        assert_eq!(unless_off("off", duration), Ok(None));
        let two = Duration::from_secs(2);
        assert_eq!(unless_off("2s", duration), Ok(Some(two)));
        assert!(unless_off("Off", duration).is_err());
    }

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
    fn addresses_to_listen_on_in_all_their_forms() {
        for (text, shown) in [
            ("tcp://127.0.0.1:3000", "tcp://127.0.0.1:3000"),
            ("tcp://[::1]:80", "tcp://[::1]:80"),
            ("tcp://[fe80::1%2]:80", "tcp://[fe80::1%2]:80"),
            ("tcp://localhost:0", "tcp://127.0.0.1:0"),
            ("unix:/run/a,b.sock", "unix:/run/a,b.sock"),
            ("unix:@name", "unix:@name"),
            ("fd:0", "fd:0"),
        ] {
            assert_eq!(listen(text).unwrap().to_string(), shown);
        }
        let path = Addr::Unix("x.sock".into());
        let file = SocketFile {
            mode: Some(0o660),
            user: Some(Principal::Number(33)),
            group: Some(Principal::Named("web".into())),
        };
        for text in [
            "unix:x.sock,mode=0660,user=33,group=web",
            "unix:x.sock,group=web,user=33,mode=660",
        ] {
            assert_eq!(
                listen(text),
                Ok(Listen::Open(path.clone(), file.clone())),
                "{text}"
            );
        }
        for bad in [
            "",
            "3000",
            "127.0.0.1:3000",
            "tcp://127.0.0.1",
            "tcp://::1:80",
            "tcp://example.org:80",
            "tcp://127.0.0.1:70000",
            "udp://127.0.0.1:53",
            "unix:",
            "unix:@",
            "unix:/run/",
            "unix:@x,mode=0600",
            "unix:@x,user=1",
            "unix:/x,user=",
            "unix:/x,mode=+rw",
            "unix:/x,mode=1777",
            "fd:1",
            "fd:-1",
            "fd:x",
        ] {
            assert!(listen(bad).is_err(), "{bad}");
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
}
