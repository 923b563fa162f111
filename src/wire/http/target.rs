//! What a request is for: path and query, decoded. A path is taken as it is: nothing in it is collapsed
//! or joined, so what is looked up is what was asked for.

use super::{MAX_PARAMETERS, Refusal, Status};

/// The target of a request line, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Of a URL: whose it is.
    pub host: Option<String>,
    pub path: String,
    pub query: Vec<(String, String)>,
}

/// Takes it apart. It is of visible ASCII characters.
pub(super) fn parse(target: &str) -> Result<Target, Refusal> {
    if target.contains('#') {
        return Err(bad("a fragment (#) is not for servers"));
    }
    let (host, rest) = origin(target)?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let path = match path {
        "" if host.is_some() => "/".to_string(),
        path => decode(path, false).map_err(|why| bad(&format!("{why} in the path")))?,
    };
    if path.chars().any(char::is_control) {
        return Err(bad("a control character in the path"));
    }
    let pieces = || query.split('&').filter(|p| !p.is_empty());
    let count = pieces().count();
    if count > MAX_PARAMETERS {
        let why = format!("{count} parameters (limit {MAX_PARAMETERS})");
        return Err(bad(&why));
    }
    let query = pieces().map(parameter).collect::<Result<Vec<_>, _>>()?;
    Ok(Target { host, path, query })
}

fn bad(why: &str) -> Refusal {
    Refusal::new(Status::BAD_REQUEST, why)
}

/// The host of a URL, and the rest; of all but a URL the rest is all of it.
fn origin(target: &str) -> Result<(Option<String>, &str), Refusal> {
    const SCHEME: &str = "http://";
    if target.starts_with('/') || target == "*" {
        return Ok((None, target));
    }
    let (scheme, rest) = target.split_at_checked(SCHEME.len()).unwrap_or_default();
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(bad("the target is neither a path nor a http URL"));
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, rest) = rest.split_at_checked(end).unwrap_or((rest, ""));
    match is_host(host) && !host.is_empty() {
        true => Ok((Some(host.to_string()), rest)),
        false => Err(bad("the target is a URL without a valid host")),
    }
}

/// May it be a host, with or without a port? Whose it is, is for the door to say.
pub(super) fn is_host(host: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(&b);
    host.bytes().all(fits)
}

fn parameter(piece: &str) -> Result<(String, String), Refusal> {
    let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
    let decode = |text| decode(text, true).map_err(|why| bad(&format!("{why} in the query")));
    Ok((decode(name)?, decode(value)?))
}

/// Undoes percent-encoding; of a form a plus is a space. An encoded slash would make another path than
/// the one that was written.
fn decode(text: &str, form: bool) -> Result<String, &'static str> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        rest = more;
        bytes.push(match (first, rest) {
            (b'%', [high, low, more @ ..]) => {
                rest = more;
                match (hex(*high), hex(*low)) {
                    (Some(0), Some(0)) => return Err("a NUL"),
                    (Some(2), Some(15)) if !form => return Err("an encoded slash"),
                    (Some(high), Some(low)) => high << 4 | low,
                    (_, _) => return Err("a bad percent-encoding"),
                }
            }
            (b'%', _) => return Err("a bad percent-encoding"),
            (b'+', _) if form => b' ',
            (b, _) => *b,
        });
    }
    String::from_utf8(bytes).map_err(|_| "a percent-encoding that is not UTF-8")
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_taken_apart() {
        for (target, host, path, query) in [
            ("/", None, "/", &[][..]),
            ("/ecv", None, "/ecv", &[]),
            ("/ecv?", None, "/ecv", &[]),
            ("/a%20b%c3%a9", None, "/a b\u{e9}", &[]),
            ("/a+b", None, "/a+b", &[]),
            ("/../x/./y//z", None, "/../x/./y//z", &[]),
            ("/%2e%2e/x", None, "/../x", &[]),
            ("//evil/x", None, "//evil/x", &[]),
            ("/c?cmd=a+b%20c%2B1", None, "/c", &[("cmd", "a b c+1")]),
            (
                "/c?a=1&&b&=c&d=e=f?g",
                None,
                "/c",
                &[("a", "1"), ("b", ""), ("", "c"), ("d", "e=f?g")],
            ),
            ("/c?a=%2F%0A", None, "/c", &[("a", "/\n")]),
            ("http://h:1/x?y=z", Some("h:1"), "/x", &[("y", "z")]),
            ("HTTP://[::1]:80", Some("[::1]:80"), "/", &[]),
            ("http://h?y", Some("h"), "/", &[("y", "")]),
            ("*", None, "*", &[]),
        ] {
            let got = parse(target).unwrap();
            assert_eq!(got.host.as_deref(), host, "{target}");
            assert_eq!(got.path, path);
            let pairs = got.query.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            assert_eq!(pairs.collect::<Vec<_>>(), query, "{target}");
        }
    }

    #[test]
    fn doubtful_targets_are_refused() {
        for target in [
            "ecv",
            "h:443",
            "https://h/",
            "ftp://h/",
            "http://",
            "http:///x",
            "http://u@h/",
            "http://h\\x/",
            "http://h,i/",
            "/x#y",
            "/%",
            "/%4",
            "/%zz",
            "/%+1",
            "/%00",
            "/a%2fb",
            "/a%2Fb",
            "/%ff",
            "/%c3",
            "/%0d%0aX:y",
            "/%7f",
            "/%1b[2J",
            "/?a=%",
            "/?a=%00",
            "/?%ff=1",
            "/\u{e9}%",
        ] {
            let refusal = parse(target).unwrap_err();
            assert_eq!(refusal.status, Status::BAD_REQUEST, "{target}");
        }
        let many = format!("/?{}", "a&".repeat(MAX_PARAMETERS + 1));
        assert_eq!(parse(&many).unwrap_err().why, "65 parameters (limit 64)");
        assert!(parse(&format!("/?{}", "a&".repeat(MAX_PARAMETERS))).is_ok());
    }
}
