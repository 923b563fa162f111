//! The environment of an event's program: all that a line of our log says, each field a variable.

use crate::core::fields::Value;
use crate::settings::LogFormat;
use crate::wire::logfmt::{Line, level_word};

/// Longer ones are cut, and JSON that is longer is left out: the kernel refuses a program with a variable
/// of 128 KiB.
pub const LONGEST: usize = 32 * 1024;

/// Those that no field can be in place of.
const OURS: [&str; 6] = ["EVENT", "LEVEL", "MESSAGE", "JSON", "NAME", "CONTROL"];

/// All of them.
pub fn of_event(line: &Line) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    let mut set = |name: &str, value: &str| all.push((named(name), plain(value)));
    set("EVENT", &line.event);
    set("LEVEL", level_word(line.level));
    set("MESSAGE", &line.message);
    let json = line.render(LogFormat::Json);
    let json = json.trim_end();
    if json.len() <= LONGEST {
        set("JSON", json);
    }
    for (key, value) in &line.fields {
        let (Value::Number(value) | Value::Text(value) | Value::Json(value)) = value;
        if !OURS.iter().any(|ours| key.eq_ignore_ascii_case(ours)) {
            set(key, value);
        }
    }
    all
}

/// `by_pid` is MINICLUSTER_BY_PID.
pub fn named(key: &str) -> String {
    let upper = key.chars().map(|c| match c.to_ascii_uppercase() {
        c if c.is_ascii_alphanumeric() => c,
        _ => '_',
    });
    format!("MINICLUSTER_{}", upper.collect::<String>())
}

/// What a variable can hold, and no more than the limit.
fn plain(text: &str) -> Vec<u8> {
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let (kept, _) = text.split_at_checked(end).unwrap_or_default();
    kept.bytes()
        .map(|b| if b == 0 { b'?' } else { b })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Level;

    #[test]
    fn each_field_is_a_variable() {
        let line = Line {
            at: (1_795_305_214, 0),
            offset: 0,
            level: Level::Warn,
            event: "died".into(),
            fields: vec![
                ("slot", Value::Number("2".into())),
                ("by_pid", Value::Number("7".into())),
                ("stderr", Value::Text("a\0b\nc".into())),
                ("name", Value::Text("not ours".into())),
            ],
            message: "worker 2 ended".into(),
        };
        let all = of_event(&line);
        let get = |name: &str| {
            let mut hits = all.iter().filter(|(k, _)| k == name);
            let hit = hits
                .next()
                .map(|(_, v)| String::from_utf8_lossy(v).into_owned());
            assert!(hits.next().is_none(), "{name} twice");
            hit
        };
        assert_eq!(get("MINICLUSTER_EVENT").as_deref(), Some("died"));
        assert_eq!(get("MINICLUSTER_LEVEL").as_deref(), Some("warn"));
        assert_eq!(
            get("MINICLUSTER_MESSAGE").as_deref(),
            Some("worker 2 ended")
        );
        assert_eq!(get("MINICLUSTER_SLOT").as_deref(), Some("2"));
        assert_eq!(get("MINICLUSTER_BY_PID").as_deref(), Some("7"));
        assert_eq!(get("MINICLUSTER_STDERR").as_deref(), Some("a?b\nc"));
        assert_eq!(get("MINICLUSTER_NAME"), None);
        let json = get("MINICLUSTER_JSON").unwrap();
        assert!(json.starts_with('{') && json.ends_with('}'), "{json}");
    }

    #[test]
    fn what_is_too_long_for_the_kernel_is_cut_and_json_left_out() {
        let line = Line {
            at: (0, 0),
            offset: 0,
            level: Level::Info,
            event: "message".into(),
            fields: Vec::new(),
            message: format!("x{}", "\u{20ac}".repeat(LONGEST)),
        };
        let all = of_event(&line);
        let names: Vec<&str> = all.iter().map(|(k, _)| k.as_str()).collect();
        assert_eq!(
            names,
            [
                "MINICLUSTER_EVENT",
                "MINICLUSTER_LEVEL",
                "MINICLUSTER_MESSAGE"
            ]
        );
        let message = String::from_utf8(all[2].1.clone()).unwrap();
        assert!(message.len() <= LONGEST && message.len() > LONGEST - 3);
    }

    #[test]
    fn names_are_what_a_shell_can_say() {
        assert_eq!(named("not-ready"), "MINICLUSTER_NOT_READY");
        assert_eq!(named("\u{e9}=1"), "MINICLUSTER___1");
    }
}
