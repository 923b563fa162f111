//! How the cluster stands in rotation, as text and as JSON.

use super::json::quote;
use crate::core::words::human;
use crate::core::{CheckView, Ground, Rotation, Time};

/// The answer to `enable` and `disable`, where it stood so before.
pub fn rotated(enable: bool, before: &Ground, stopping: bool, json: bool) -> String {
    let all_the_same = match stopping {
        true => "; the cluster stops all the same",
        false => "",
    };
    let asked = match before {
        Ground::Asked { .. } => Some(before.to_string()),
        Ground::Well
        | Ground::Starting { .. }
        | Ground::TooFew { .. }
        | Ground::Unchecked { .. }
        | Ground::Discontent { .. }
        | Ground::Stopping => None,
    };
    match (json, enable, asked) {
        (true, _, _) => format!("{{\"enabled\":{enable}}}\n"),
        (false, true, _) => format!("enabled{all_the_same}\n"),
        (false, false, None) => format!("disabled{all_the_same}\n"),
        // It stays as it was, with its reason.
        (false, false, Some(why)) => format!("disabled already: {why}\n"),
    }
}

fn reason(why: &Ground) -> Option<String> {
    (*why != Ground::Well).then(|| why.to_string())
}

fn or_null(text: Option<String>) -> String {
    text.map_or_else(|| "null".into(), |t| quote(&t))
}

/// What a client gave as a reason, for a terminal that must not be told anything by it.
fn plain(text: &str) -> String {
    text.replace(|c: char| c.is_control(), "?")
}

/// The answer to `health`.
pub fn health(why: &Ground, json: bool) -> String {
    match (json, reason(why)) {
        (true, why) => {
            let word = if why.is_none() { "OK" } else { "WARNING" };
            format!("{{\"health\":\"{word}\",\"reason\":{}}}\n", or_null(why))
        }
        (false, None) => "OK\n".into(),
        (false, Some(why)) => format!("WARNING: {}\n", plain(&why)),
    }
}

/// The answer to `ecv`; `since`: for how many seconds it is so.
pub fn ecv(r: &Rotation, now: Time, json: bool) -> String {
    let word = r.state.word();
    let how = match (json, reason(&r.why)) {
        (true, _) => return format!("{}\n", object(r, now)),
        (false, None) => String::new(),
        (false, Some(why)) => format!(": {}", plain(&why)),
    };
    let checks: Vec<String> = r.checks.iter().map(check).collect();
    format!(
        "{word} for {}{how}\n{}",
        human(now - r.since),
        checks.concat()
    )
}

/// One of those that are asked, as a line.
fn check(c: &CheckView) -> String {
    let stands = match c.content {
        None => "no answer yet",
        Some(true) => "content",
        Some(false) => "not content",
    };
    let why = c.why.as_ref().map(|why| format!(", {}", plain(why)));
    let row = match c.row {
        0 => String::new(),
        n => format!(", {n} of {} in a row say otherwise", c.needed),
    };
    format!(
        "    {} {}: {stands}{row}{}\n",
        c.check,
        plain(&c.of),
        why.unwrap_or_default()
    )
}

fn check_object(c: &CheckView) -> String {
    let content = c.content.map_or("null".into(), |c| c.to_string());
    format!(
        "{{\"check\":\"{}\",\"of\":{},\"content\":{content},\"row\":{},\"limit\":{},\"reason\":{}}}",
        c.check.word(),
        quote(&c.of),
        c.row,
        c.needed,
        or_null(c.why.clone())
    )
}

/// The same as an object, alone or within `status`.
pub fn object(r: &Rotation, now: Time) -> String {
    let checks: Vec<String> = r.checks.iter().map(check_object).collect();
    format!(
        "{{\"state\":\"{}\",\"reason\":{},\"since\":{:.3},\"checks\":[{}]}}",
        r.state.word(),
        or_null(reason(&r.why)),
        (now - r.since).as_secs_f64(),
        checks.join(",")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{By, Check, Pid, Standing};

    #[test]
    fn each_state_has_its_word_its_reason_and_its_time() {
        let by = Some(By {
            pid: Pid(9),
            uid: 0,
        });
        let why = "new disk\u{1b}[2J".to_string();
        let (ready, quorum) = (1, 2);
        for (state, why, text) in [
            (Standing::Available, Ground::Well, "AVAILABLE for 2s\n"),
            (
                Standing::Warning,
                Ground::TooFew { ready, quorum },
                "WARNING for 2s: 1 ready of 2 (--ready-quorum)\n",
            ),
            (
                Standing::Disabled,
                Ground::Asked { why, by },
                "DISABLED for 2s: new disk?[2J, pid 9 of uid 0\n",
            ),
        ] {
            let since = Time(1_000_000_000);
            let now = Time(3_000_000_000);
            let checks = Vec::new();
            let r = Rotation {
                state,
                why,
                since,
                checks,
            };
            assert_eq!(ecv(&r, now, false), text);
            let json = ecv(&r, now, true);
            crate::wire::json::parse(json.trim_end()).unwrap();
            assert!(json.contains("\"since\":2.000"), "{json}");
        }
    }

    #[test]
    fn those_that_are_asked_have_a_line_each_and_what_was_wrong_last() {
        let mut c = CheckView {
            check: Check::Monitor,
            of: "/up".into(),
            content: Some(true),
            row: 2,
            needed: 3,
            why: Some("GET /up answered 503".into()),
        };
        let line =
            "    --ecv-monitor /up: content, 2 of 3 in a row say otherwise, GET /up answered 503\n";
        assert_eq!(check(&c), line);
        let json = "{\"check\":\"monitor\",\"of\":\"/up\",\"content\":true,\"row\":2,\"limit\":3,\"reason\":\"GET /up answered 503\"}";
        assert_eq!(check_object(&c), json);
        (c.check, c.content, c.row) = (Check::Validator, Some(false), 0);
        c.why = Some("disk\u{1b}[2J".into());
        assert_eq!(
            check(&c),
            "    --ecv-validator /up: not content, disk?[2J\n"
        );
        (c.content, c.why) = (None, None);
        assert_eq!(check(&c), "    --ecv-validator /up: no answer yet\n");
        let r = Rotation {
            state: Standing::Warning,
            why: Ground::Unchecked { check: c.check },
            since: Time(0),
            checks: vec![c],
        };
        assert_eq!(
            ecv(&r, Time(0), false),
            "WARNING for 0s: no answer yet (--ecv-validator)\n    --ecv-validator /up: no answer yet\n"
        );
        let json = crate::wire::json::parse(ecv(&r, Time(0), true).trim_end()).unwrap();
        assert!(json["checks"][0]["content"].is_null());
    }

    #[test]
    fn health_is_ok_or_a_warning_and_why() {
        assert_eq!(health(&Ground::Well, false), "OK\n");
        assert_eq!(
            health(&Ground::Well, true),
            "{\"health\":\"OK\",\"reason\":null}\n"
        );
        assert_eq!(
            health(&Ground::Stopping, false),
            "WARNING: the cluster stops\n"
        );
        assert_eq!(
            health(&Ground::Stopping, true),
            "{\"health\":\"WARNING\",\"reason\":\"the cluster stops\"}\n"
        );
    }
}
