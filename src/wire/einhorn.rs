//! The one command of einhorn's that its workers send: `worker:ack`. It comes as one line: YAML with
//! its line breaks escaped, or JSON, which newer clients write and which is YAML as well.

use super::json;
use tinyjson::JsonValue;

/// The pid of a worker that says it is ready; `None`: it is something else.
pub fn ack(line: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(line).ok()?.trim();
    match text.starts_with('{') {
        true => of_json(text),
        false if text.starts_with("---") => of_yaml(&unescape(text)),
        false => None,
    }
}

/// The answer, in both languages.
pub fn answer(message: &str) -> String {
    format!("{{\"message\":{}}}\n", json::quote(message))
}

fn of_json(text: &str) -> Option<i32> {
    let JsonValue::Object(map) = json::parse(text).ok()? else {
        return None;
    };
    match (map.get("command"), map.get("pid")) {
        (Some(JsonValue::String(c)), Some(JsonValue::Number(n))) if c == "worker:ack" => {
            Some(*n as i32)
        }
        _ => None,
    }
}

/// `command: worker:ack` and `pid: 4711` on lines of their own; keys may be symbols, values quoted.
fn of_yaml(text: &str) -> Option<i32> {
    let value = |key: &str| {
        text.lines().find_map(|line| {
            let line = line.trim();
            let line = line.strip_prefix(':').unwrap_or(line);
            let rest = line.strip_prefix(key)?.strip_prefix(':')?;
            Some(rest.trim().trim_matches(['"', '\'']).to_string())
        })
    };
    match value("command")?.as_str() {
        "worker:ack" => value("pid")?.parse().ok(),
        _ => None,
    }
}

fn unescape(text: &str) -> String {
    text.replace("%0A", "\n").replace("%25", "%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_acknowledgement_of_old_and_new_clients() {
        for line in [
            "--- %0Acommand: worker:ack%0Apid: 4711%0A",
            "---%0A:command: \"worker:ack\"%0A:pid: 4711%0A",
            "{\"command\":\"worker:ack\",\"pid\":4711}",
        ] {
            assert_eq!(ack(line.as_bytes()), Some(4711), "{line}");
        }
        for other in [
            "status",
            "[\"status\"]",
            "{\"command\":\"state\",\"pid\":1}",
            "--- %0Acommand: upgrade%0A",
            "{",
            "",
        ] {
            assert_eq!(ack(other.as_bytes()), None, "{other}");
        }
        assert_eq!(answer("ok"), "{\"message\":\"ok\"}\n");
    }
}
