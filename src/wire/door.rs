//! Who may do what over HTTP. Asked as soon as a head is whole: who is not let in is told so before
//! anything of a body is waited for.
//!
//! 1. Whoever may connect to the control socket may all: the kernel has checked who it is.
//! 2. Over TCP probes are free, whatever they call us; they only look.
//! 3. All else needs the key, and a Host that is ours. A browser can be made to send a request here by a
//!    page whose name was made to point here (DNS rebinding); it then says that name.
//! 4. What is not there is told before a key is asked for, as cluster-service does: 404, 405, 401.
//!
//! Nothing depends on whether a client is on this machine: whoever relays for others is.

use super::http::response::Response;
use super::http::{Head, Status};
use super::key::Key;
use super::routes::{self, Missed, Route, Who};
use crate::settings::EcvControl;
use std::net::{Ipv4Addr, Ipv6Addr};

/// Where a client came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The control socket.
    Control,
    /// --monitor.
    Tcp,
}

/// What the door knows.
#[derive(Clone, Copy, Debug)]
pub struct House<'a> {
    /// That of --key-file.
    pub key: Option<&'a Key>,
    /// The name of the machine, and that of --monitor-name.
    pub names: &'a [String],
    /// The path of --ecv.
    pub ecv: &'a str,
    pub ecv_control: EcvControl,
}

/// Longest piece of what a client says that it is told again.
const MAX_SHOWN: usize = 80;

/// The texts that clients of cluster-service know.
pub const NO_PAGE: &str = "Page Not Found";
pub const NO_METHOD: &str = "Method Not Allowed";
pub const NOT_AUTHORIZED: &str = "Not authorized";

/// Nobody, whichever way it is said.
pub const NO_CONTROL: &str =
    "--ecv-control is off: use the control socket, as minicluster disable and enable do";

/// May a verb be had there that was asked for by its name? (By a route of its own `judge` says so.)
pub fn may_have(door: Door, verb: &str, control: EcvControl) -> bool {
    let of_rotation = matches!(verb, "enable" | "disable");
    !(of_rotation && door == Door::Tcp && control == EcvControl::Off)
}

/// The route of a request that may have it; or what it is told.
pub fn enter(door: Door, head: &Head, house: &House) -> Result<&'static Route, Response> {
    let route = match routes::find(head.method, &head.path, house.ecv) {
        Ok(route) if head.json => route.as_json(),
        Ok(route) => route,
        Err(Missed::Path) => {
            return Err(Response::verbatim(Status::NOT_FOUND, NO_PAGE, head.json));
        }
        Err(Missed::Method { allow }) => {
            let answer = Response::verbatim(Status::NOT_ALLOWED, NO_METHOD, head.json);
            return Err(answer.with("Allow", allow));
        }
    };
    match judge(door, route, head, house) {
        Verdict::Open => Ok(route),
        Verdict::Forbidden(why) => Err(Response::error(Status::FORBIDDEN, &why, head.json)),
        Verdict::Unauthorized => {
            let answer = Response::verbatim(Status::UNAUTHORIZED, NOT_AUTHORIZED, head.json);
            Err(answer.with("WWW-Authenticate", "Bearer"))
        }
    }
}

/// Whether a request may have its route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Open,
    /// Never, whatever the key.
    Forbidden(String),
    /// The key is missing or wrong.
    Unauthorized,
}

/// May it?
pub fn judge(door: Door, route: &Route, head: &Head, house: &House) -> Verdict {
    let control = house.ecv_control;
    match (door, route.who, control) {
        (Door::Control, Who::Anybody | Who::Key | Who::Control, _) => Verdict::Open,
        (Door::Tcp, Who::Anybody, _) => Verdict::Open,
        (Door::Tcp, Who::Control, EcvControl::Off) => Verdict::Forbidden(NO_CONTROL.into()),
        (Door::Tcp, Who::Control, EcvControl::Open) => match foreign(head, house) {
            Some(why) => Verdict::Forbidden(why),
            None if from_elsewhere(head) => Verdict::Forbidden(
                "the page of another site asks for it; without a key only our own may".into(),
            ),
            None => Verdict::Open,
        },
        (Door::Tcp, Who::Key, _) | (Door::Tcp, Who::Control, EcvControl::Key) => {
            with_key(head, house)
        }
    }
}

fn with_key(head: &Head, house: &House) -> Verdict {
    let Some(key) = house.key else {
        let free = routes::free(house.ecv);
        return Verdict::Forbidden(format!(
            "without a key only {free} can be looked at over TCP: start minicluster with --key-file, or \
             use the control socket"
        ));
    };
    match (foreign(head, house), &head.key) {
        (Some(why), _) => Verdict::Forbidden(why),
        (None, Some(presented)) if key.is(presented) => Verdict::Open,
        (None, Some(_) | None) => Verdict::Unauthorized,
    }
}

/// Why the host that the client speaks to is not ours. Whoever says none is no browser.
fn foreign(head: &Head, house: &House) -> Option<String> {
    let host = head.host.as_deref()?;
    if is_ours(host, house.names) {
        return None;
    }
    let shown: String = host.chars().take(MAX_SHOWN).collect();
    let mut known = vec!["an address", "localhost"];
    known.extend(house.names.iter().map(String::as_str));
    Some(format!(
        "the Host {shown:?} is not known here, so this may be a page of another site that was made to \
         point here; known are {}; --monitor-name adds one",
        known.join(", ")
    ))
}

/// An address, localhost or one of the names, with or without a port?
fn is_ours(host: &str, names: &[String]) -> bool {
    let is_port = |p: &str| p.len() <= 5 && p.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else {
            return false;
        };
        // A link-local one may name its interface.
        let address = address.split('%').next().unwrap_or_default();
        let port = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return port && address.parse::<Ipv6Addr>().is_ok();
    }
    let (name, port) = host.split_once(':').unwrap_or((host, ""));
    let name = name.strip_suffix('.').unwrap_or(name);
    let same = |n: &str| !n.is_empty() && n.eq_ignore_ascii_case(name);
    let known = name.parse::<Ipv4Addr>().is_ok() || same("localhost");
    is_port(port) && (known || names.iter().any(|n| same(n.strip_suffix('.').unwrap_or(n))))
}

/// Did the page of another origin make the request?
fn from_elsewhere(head: &Head) -> bool {
    let Some(origin) = head.origin.as_deref() else {
        return false;
    };
    let host = head.host.as_deref().unwrap_or_default();
    let own = origin.strip_prefix("http://");
    !own.is_some_and(|own| own.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::{Parser, Progress};

    const KEY: &str = "0123456789abcdef";

    fn head(line: &str, headers: &str) -> Head {
        let text = format!("{line} HTTP/1.1\r\n{headers}\r\n");
        match Parser::default().parse(text.as_bytes()) {
            Progress::Request(r) => r.head,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn told(door: Door, with_key: bool, control: EcvControl, head: &Head) -> u16 {
        let key = Key::parse(KEY.as_bytes()).unwrap();
        let house = House {
            key: with_key.then_some(&key),
            names: &["web-1".into(), "status.example".into()],
            ecv: "/ecv",
            ecv_control: control,
        };
        match enter(door, head, &house) {
            Ok(_) => 200,
            Err(response) => response.status.0,
        }
    }

    #[test]
    fn probes_are_free_whatever_they_call_us() {
        for path in ["/ecv", "/live", "/ready"] {
            for method in ["GET", "HEAD"] {
                let head = head(&format!("{method} {path}"), "Host: evil.example\r\n");
                for with_key in [false, true] {
                    assert_eq!(told(Door::Tcp, with_key, EcvControl::Key, &head), 200);
                }
            }
        }
    }

    #[test]
    fn all_else_needs_a_key_and_without_a_key_file_there_is_none() {
        for line in [
            "GET /status",
            "GET /workers",
            "GET /events",
            "GET /restart",
            "POST /restart",
            "POST /cli",
            "POST /send",
            "POST /sync_send",
            "POST /ecv/disable",
            "POST /enable",
        ] {
            let none = head(line, "Host: localhost\r\n");
            let wrong = head(
                &format!("{line}?accessKey=0123456789abcdee"),
                "Host: localhost\r\n",
            );
            let right = head(&format!("{line}?accessKey={KEY}"), "Host: localhost\r\n");
            let bearer = format!("Host: localhost\r\nAuthorization: Bearer {KEY}\r\n");
            let bearer = head(line, &bearer);
            let foreign = head(&format!("{line}?accessKey={KEY}"), "Host: evil.example\r\n");
            for (head, with_key, want) in [
                (&none, true, 401),
                (&wrong, true, 401),
                (&right, true, 200),
                (&bearer, true, 200),
                (&foreign, true, 403),
                (&none, false, 403),
                (&right, false, 403),
            ] {
                let got = told(Door::Tcp, with_key, EcvControl::Key, head);
                assert_eq!(got, want, "{line} {head:?}");
                assert_eq!(told(Door::Control, with_key, EcvControl::Off, head), 200);
            }
        }
    }

    #[test]
    fn rotation_is_not_controlled_by_a_detour() {
        for (door, verb, control, may) in [
            (Door::Tcp, "disable", EcvControl::Off, false),
            (Door::Tcp, "enable", EcvControl::Off, false),
            (Door::Tcp, "reload", EcvControl::Off, true),
            (Door::Tcp, "disable", EcvControl::Key, true),
            (Door::Control, "disable", EcvControl::Off, true),
        ] {
            assert_eq!(
                may_have(door, verb, control),
                may,
                "{door:?} {verb} {control:?}"
            );
        }
    }

    #[test]
    fn the_page_is_free_and_what_it_shows_is_not() {
        let json = "Host: localhost\r\nAccept: application/json\r\n";
        for path in ["/", "/page.css", "/page.js"] {
            let plain = head(&format!("GET {path}"), "Host: evil.example\r\n");
            let json = head(&format!("GET {path}"), json);
            let want = if path == "/" { 401 } else { 200 };
            assert_eq!(told(Door::Tcp, true, EcvControl::Key, &plain), 200);
            assert_eq!(
                told(Door::Tcp, true, EcvControl::Key, &json),
                want,
                "{path}"
            );
        }
        let key = head(&format!("GET /?accessKey={KEY}"), json);
        assert_eq!(told(Door::Tcp, true, EcvControl::Key, &key), 200);
    }

    #[test]
    fn what_is_not_there_is_said_before_a_key_is_asked_for() {
        let of = |line: &str| told(Door::Tcp, true, EcvControl::Key, &head(line, "Host: h\r\n"));
        assert_eq!(of("POST /clx"), 404);
        assert_eq!(of("GET /cli"), 405);
        assert_eq!(of("OPTIONS /cli"), 405);
        assert_eq!(of("POST /live"), 405);
        let local = head("POST /cli", "Host: localhost\r\n");
        assert_eq!(told(Door::Tcp, true, EcvControl::Key, &local), 401);
    }

    #[test]
    fn rotation_is_controlled_as_the_option_says() {
        let own = "Host: localhost:9\r\nOrigin: http://localhost:9\r\n";
        for (headers, off, open) in [
            ("Host: localhost:9\r\n", 403, 200),
            (own, 403, 200),
            ("Host: localhost:9\r\nOrigin: http://evil\r\n", 403, 403),
            ("Host: localhost:9\r\nOrigin: null\r\n", 403, 403),
            (
                "Host: localhost:9\r\nOrigin: https://localhost:9\r\n",
                403,
                403,
            ),
            ("Host: evil\r\n", 403, 403),
        ] {
            let head = head("POST /disable", headers);
            for with_key in [false, true] {
                assert_eq!(told(Door::Tcp, with_key, EcvControl::Off, &head), off);
                assert_eq!(
                    told(Door::Tcp, with_key, EcvControl::Open, &head),
                    open,
                    "{headers}"
                );
            }
        }
    }

    #[test]
    fn hosts_that_are_ours() {
        let names = [
            "web-1".to_string(),
            "status.example.".to_string(),
            String::new(),
        ];
        for (host, want) in [
            ("localhost", true),
            ("LocalHost:80", true),
            ("localhost.", true),
            ("localhost:", true),
            ("127.0.0.1", true),
            ("10.1.2.3:9000", true),
            ("[::1]", true),
            ("[fe80::1%25eth0]:9000", true),
            ("web-1:9000", true),
            ("WEB-1", true),
            ("status.example", true),
            ("", false),
            (".", false),
            (":80", false),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("evil-localhost", false),
            ("127.0.0.1.evil.example", false),
            ("127.0.0.1:80:80", false),
            ("127.1", false),
            ("2130706433", false),
            ("0x7f.0.0.1", false),
            ("::1", false),
            ("[::1", false),
            ("[::1]x", false),
            ("[::1]:x", false),
            ("[127.0.0.1]", false),
            ("[web-1]", false),
            ("localhost:evil", false),
            ("web-10", false),
        ] {
            assert_eq!(is_ours(host, &names), want, "{host}");
        }
    }

    #[test]
    fn who_is_not_let_in_is_told_why() {
        let key = Key::parse(KEY.as_bytes()).unwrap();
        let mut house = House {
            key: Some(&key),
            names: &["web-1".into()],
            ecv: "/up",
            ecv_control: EcvControl::Key,
        };
        let say = |house: &House, head: &Head| {
            let answer = enter(Door::Tcp, head, house).unwrap_err();
            (String::from_utf8(answer.body).unwrap(), answer.headers)
        };
        let (said, _) = say(&house, &head("GET /status", "Host: evil.example\r\n"));
        assert!(
            said.contains("\"evil.example\" is not known here"),
            "{said}"
        );
        assert!(
            said.contains("an address, localhost, web-1; --monitor-name"),
            "{said}"
        );
        let local = head("GET /status", "Host: localhost\r\n");
        let (said, headers) = say(&house, &local);
        assert_eq!(said, "Not authorized");
        assert_eq!(headers, [("WWW-Authenticate", "Bearer".to_string())]);
        let json = head("GET /cli", "Host: x\r\nAccept: application/json\r\n");
        let (said, headers) = say(&house, &json);
        assert_eq!(said, "{\"error\":\"Method Not Allowed\"}\n");
        assert_eq!(headers, [("Allow", "POST".to_string())]);
        house.key = None;
        let (said, _) = say(&house, &local);
        assert!(
            said.contains("only /up, /live, /ready, /metrics can"),
            "{said}"
        );
        assert!(said.contains("--key-file"), "{said}");
    }
}
