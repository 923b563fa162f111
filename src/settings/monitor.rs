//! Doors over TCP: where they are, and what may be done there.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// --ecv-control: who may take the cluster out of rotation over TCP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum EcvControl {
    /// Nobody.
    Off,
    /// Who has the key.
    #[default]
    Key,
    /// All.
    Open,
}

/// `[HOST:]PORT`, or off; without a host it is this machine alone.
pub fn monitor(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    let bad = || {
        format!("'{text}' is neither PORT nor ADDRESS:PORT, with a port from 1 to 65535, nor off")
    };
    let at = match text.parse::<u16>() {
        Ok(port) => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
        Err(_) => match text.strip_prefix("localhost:") {
            Some(port) => {
                let port = port.parse().map_err(|_| bad())?;
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
            }
            None => text.parse().map_err(|_| bad())?,
        },
    };
    match at.port() {
        0 => Err("port 0 would be one that nobody knows".into()),
        _ => Ok(Some(at)),
    }
}

/// `tcp://ADDRESS:PORT` as -C has it.
pub fn control_port(text: &str) -> Result<SocketAddr, String> {
    let alone = text.parse::<u16>().is_ok();
    let at = monitor(text).ok().flatten().filter(|_| !alone);
    at.ok_or_else(|| format!("tcp://{text} is not tcp://ADDRESS:PORT"))
}

/// A name that a Host header may have.
pub fn host_name(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    match text.is_empty() || text.len() > 253 || !text.bytes().all(plain) {
        true => Err(format!("'{text}' is no name of a host")),
        false => Ok(text.to_string()),
    }
}

/// `off|key|open`
pub fn ecv_control(text: &str) -> Result<EcvControl, String> {
    match text {
        "off" => Ok(EcvControl::Off),
        "key" => Ok(EcvControl::Key),
        "open" => Ok(EcvControl::Open),
        _ => Err(format!("'{text}' is none of off, key, open")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_monitor_is() {
        for (text, want) in [
            ("3001", "127.0.0.1:3001"),
            ("localhost:3001", "127.0.0.1:3001"),
            ("0.0.0.0:3001", "0.0.0.0:3001"),
            ("[::]:3001", "[::]:3001"),
        ] {
            assert_eq!(monitor(text), Ok(Some(want.parse().unwrap())), "{text}");
        }
        assert_eq!(monitor("off"), Ok(None));
        for bad in [
            "",
            "x",
            "0",
            "65536",
            "host:1",
            "1.2.3.4",
            "::1:80",
            "localhost:",
        ] {
            assert!(monitor(bad).is_err(), "{bad}");
        }
        assert!(control_port("127.0.0.1:99").is_ok());
        for bad in ["99", "off", "127.0.0.1", "x:1"] {
            assert!(control_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_and_paths() {
        assert!(host_name("web-1.example.org").is_ok());
        for bad in ["", "a b", "a:1", "http://x", "ü"] {
            assert!(host_name(bad).is_err(), "{bad}");
        }
        assert_eq!(ecv_control("open"), Ok(EcvControl::Open));
        assert!(ecv_control("yes").is_err());
    }
}
