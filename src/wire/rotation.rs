//! How the cluster stands in rotation, as text and as JSON.

use super::json::quote;
use crate::core::words::human;
use crate::core::{Ground, Rotation, Time};

/// The answer to `enable` and `disable`, where it stood so before.
pub fn rotated(enable: bool, before: &Ground, json: bool) -> String {
    let asked = match before {
        Ground::Asked { .. } => Some(before.to_string()),
        Ground::Well | Ground::Starting { .. } | Ground::TooFew { .. } | Ground::Stopping => None,
    };
    match (json, enable, asked) {
        (true, _, _) => format!("{{\"enabled\":{enable}}}\n"),
        (false, true, _) => "enabled\n".into(),
        (false, false, None) => "disabled\n".into(),
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
    match (json, reason(&r.why)) {
        (true, _) => format!("{}\n", object(r, now)),
        (false, None) => format!("{word} for {}\n", human(now - r.since)),
        (false, Some(why)) => {
            format!("{word} for {}: {}\n", human(now - r.since), plain(&why))
        }
    }
}

/// The same as an object, alone or within `status`.
pub fn object(r: &Rotation, now: Time) -> String {
    format!(
        "{{\"state\":\"{}\",\"reason\":{},\"since\":{:.3}}}",
        r.state.word(),
        or_null(reason(&r.why)),
        (now - r.since).as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{By, Pid, Standing};

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
            let r = Rotation { state, why, since };
            assert_eq!(ecv(&r, now, false), text);
            let json = ecv(&r, now, true);
            crate::wire::json::parse(json.trim_end()).unwrap();
            assert!(json.contains("\"since\":2.000"), "{json}");
        }
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
