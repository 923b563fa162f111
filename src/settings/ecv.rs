//! Whether clients may come: where load balancers ask for that (--ecv), and what is asked for it in turn
//! (--ecv-monitor, --ecv-validator).

use super::choices::{MOST_PATH, is_path};
use super::{Settings, program};
use crate::core::{Checks, Page};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Shortest and longest --ecv-interval.
pub const ECV_INTERVAL: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(86_400));
/// Most that --ecv-fall and --ecv-rise can be.
pub const MAX_IN_A_ROW: u16 = 1000;

/// Where --ecv is. (Whether something else has that path is looked at by who answers there.)
pub fn ecv(text: &str) -> Result<String, String> {
    match text.starts_with('/') {
        true => Ok(text.to_string()),
        false => Err(format!("'{text}' is no path: it begins with a slash")),
    }
}

/// `http://ADDRESS[:PORT][/PATH]`, or `/PATH` of the cluster's own, or off.
pub fn ecv_monitor(text: &str) -> Result<Option<Page>, String> {
    if text == "off" {
        return Ok(None);
    }
    if text.starts_with('/') {
        let path = path(text, text)?;
        // As cluster2 has addressed it.
        let host = "localhost".to_string();
        return Ok(Some(Page {
            at: None,
            host,
            path,
        }));
    }
    if text.starts_with("https:") {
        return Err(format!(
            "'{text}': no TLS is spoken here; ask http://, or let a program ask: --ecv-validator 'curl -fsS {text}'"
        ));
    }
    let rest = text.strip_prefix("http://").ok_or_else(|| {
        format!("'{text}' is neither http://ADDRESS[:PORT]/PATH, nor /PATH on the port of the workers, nor off")
    })?;
    let (host, rest) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let path = match rest {
        "" => "/".to_string(),
        some => path(some, text)?,
    };
    let at = Some(address(host, text)?);
    let host = host.to_string();
    Ok(Some(Page { at, host, path }))
}

fn path(path: &str, text: &str) -> Result<String, String> {
    match is_path(path) {
        true => Ok(path.to_string()),
        false => Err(format!(
            "'{text}': the path begins with one / and has up to {MOST_PATH} characters of ASCII, no blanks and no #"
        )),
    }
}

/// Nobody is asked where that is: it could take seconds, in which the cluster would do nothing else.
fn address(host: &str, text: &str) -> Result<SocketAddr, String> {
    let name = |name: &str| match name {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        _ => name.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    };
    let (ip, port) = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((ip, port)) => (ip.parse::<Ipv6Addr>().ok().map(IpAddr::V6), port),
        None => {
            let (ip, port) = host.split_at(host.find(':').unwrap_or(host.len()));
            (name(ip), port)
        }
    };
    let Some(ip) = ip else {
        return Err(format!(
            "'{text}': '{host}' is no address and not localhost, and names are not looked up, which could hold up the cluster; let a program ask: --ecv-validator 'curl -fsS {text}'"
        ));
    };
    let number = match port.strip_prefix(':') {
        None if port.is_empty() => Some(80),
        None => None,
        Some(digits) => digits.parse::<u16>().ok().filter(|n| *n > 0),
    };
    match number {
        Some(port) => Ok(SocketAddr::new(ip, port)),
        None => Err(format!("'{text}': '{port}' is not :PORT, 1 to 65535")),
    }
}

/// A program and its words; nothing is none.
pub fn ecv_validator(text: &str) -> Result<Option<Vec<String>>, String> {
    match text.trim() {
        "" => Ok(None),
        line => program(line).map(Some),
    }
}

impl Settings {
    /// What is asked whether clients may come.
    pub(super) fn checks(&self) -> Checks {
        Checks {
            monitor: self.ecv_monitor.clone(),
            validator: self.ecv_validator.clone(),
            interval: self.ecv_interval,
            fall: self.ecv_fall,
            rise: self.ecv_rise,
        }
    }

    /// One that asks itself would never be content again.
    pub(super) fn check_ecv(&self, doors: &[(&str, SocketAddr)]) -> Result<(), String> {
        let Some(page) = &self.ecv_monitor else {
            return Ok(());
        };
        let Some(at) = page.at else { return Ok(()) };
        // Of this machine, by no address that others have.
        let near = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
        let there = |ip: IpAddr| ip == at.ip() || near(ip) && near(at.ip());
        let same = |a: SocketAddr| a.port() == at.port() && there(a.ip());
        match doors.iter().find(|(_, door)| same(*door)) {
            Some((option, door)) => Err(format!(
                "--ecv-monitor {page} asks the master itself, at {option} {door}, which would answer what it says: ask the workers, as --ecv-monitor {} does",
                page.path
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_of_an_address_or_of_the_cluster_itself() {
        for (text, at, host, path) in [
            ("/", None, "localhost", "/"),
            ("/health?full=1", None, "localhost", "/health?full=1"),
            ("http://127.0.0.1", Some("127.0.0.1:80"), "127.0.0.1", "/"),
            (
                "http://127.0.0.1:8080/a/b",
                Some("127.0.0.1:8080"),
                "127.0.0.1:8080",
                "/a/b",
            ),
            (
                "http://localhost:81/",
                Some("127.0.0.1:81"),
                "localhost:81",
                "/",
            ),
            ("http://[::1]:81/x", Some("[::1]:81"), "[::1]:81", "/x"),
            ("http://[::1]/x", Some("[::1]:80"), "[::1]", "/x"),
        ] {
            let want = Page {
                at: at.map(|a| a.parse().unwrap()),
                host: host.into(),
                path: path.into(),
            };
            let got = ecv_monitor(text).unwrap().unwrap();
            assert_eq!(got, want, "{text}");
            assert_eq!(ecv_monitor(&got.to_string()), Ok(Some(want)));
        }
        assert_eq!(ecv_monitor("off"), Ok(None));
    }

    #[test]
    fn what_cannot_be_asked_without_waiting_is_refused_with_a_way_out() {
        let long = format!("/{}", "a".repeat(MOST_PATH));
        for (text, why) in [
            ("", "is neither http://"),
            ("health", "is neither http://"),
            ("ftp://127.0.0.1/", "is neither http://"),
            ("unix:/run/x.sock", "is neither http://"),
            ("https://127.0.0.1/", "no TLS"),
            ("http://web/", "names are not looked up"),
            ("http://", "names are not looked up"),
            ("http://:80/", "names are not looked up"),
            ("http://user@127.0.0.1/", "names are not looked up"),
            ("http://::1/", "names are not looked up"),
            ("http://[1.2.3.4]/", "names are not looked up"),
            ("http://127.0.0.1:0/", "':0' is not :PORT"),
            ("http://127.0.0.1:/", "':' is not :PORT"),
            ("http://127.0.0.1:65536/", "is not :PORT"),
            ("http://[::1]80/", "'80' is not :PORT"),
            ("http://127.0.0.1?x", "the path begins with"),
            ("http://127.0.0.1/#a", "the path begins with"),
            ("//x", "the path begins with"),
            ("/a b", "the path begins with"),
            ("/a\r\nX: y", "the path begins with"),
            (&long, "the path begins with"),
        ] {
            let e = ecv_monitor(text).unwrap_err();
            assert!(e.contains(why), "{text}: {e}");
        }
    }

    #[test]
    fn a_validator_is_a_program_or_nothing() {
        let words = vec!["./v".to_string(), "a b".into()];
        assert_eq!(ecv_validator("./v 'a b'"), Ok(Some(words)));
        assert_eq!(ecv_validator(" "), Ok(None));
        assert!(ecv_validator("a | b").unwrap_err().contains("sh -c"));
    }

    #[test]
    fn where_it_is_asked_for_is_a_path() {
        assert_eq!(ecv("/up").as_deref(), Ok("/up"));
        assert!(ecv("up").is_err());
    }

    #[test]
    fn a_monitor_that_would_ask_the_master_itself_is_refused() {
        for (monitor, page, fine) in [
            ("127.0.0.1:3001", "http://127.0.0.1:3001/ecv", false),
            ("0.0.0.0:3001", "http://127.0.0.1:3001/ecv", false),
            ("[::]:3001", "http://[::1]:3001/live", false),
            ("192.0.2.1:3001", "http://192.0.2.1:3001/live", false),
            ("192.0.2.1:3001", "http://192.0.2.2:3001/live", true),
            ("[::]:3001", "http://0.0.0.0:3001/live", false),
            ("127.0.0.1:3001", "http://192.0.2.1:3001/", true),
            ("192.0.2.1:3001", "http://127.0.0.1:3001/", true),
            ("127.0.0.1:3001", "http://127.0.0.1:3000/ecv", true),
            ("127.0.0.1:3001", "/ecv", true),
        ] {
            let s = Settings {
                monitor: Some(monitor.parse().unwrap()),
                ecv_monitor: ecv_monitor(page).unwrap(),
                ..Settings::default()
            };
            assert_eq!(s.check().is_ok(), fine, "{page}");
            if let Err(e) = s.check() {
                assert!(e.contains("asks the master itself"), "{e}");
            }
        }
    }
}
