//! One request on the control socket: a line. The client sends its words as a JSON array and gets
//! one line of JSON back, `{"exit":0,"out":"text"}`; a person at a bare connection types words, or a
//! call, and gets text.

mod typed;

use super::json;
use crate::settings::{Before, END, nearest};
use crate::verbs;
use serde::{Deserialize, Serialize};
use tinyjson::JsonValue;

/// Longest line accepted.
pub const MAX_LINE: usize = 64 * 1024;

/// What was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// The verb and what follows it.
    pub words: Vec<String>,
    /// Is the answer wanted as JSON?
    pub json: bool,
    /// Did our client ask (so the answer is one line of JSON), or a person?
    pub framed: bool,
}

/// Understands a line, without its end.
pub fn parse(line: &[u8]) -> Result<Request, String> {
    let text = std::str::from_utf8(line).map_err(|_| "not UTF-8".to_string())?;
    let text = text.trim();
    let framed = text.starts_with('[');
    let (words, json) = match framed {
        true => without_json(json::parse_words(text)?),
        // A file of lines has remarks.
        false if text.starts_with('#') => (Vec::new(), false),
        false => {
            let (words, json) = without_json(typed::words(text)?);
            (spelled_out(flag_behind(words))?, json)
        }
    };
    // JSON can say it, and a line hold it; no word of a command line, file name or variable can.
    if let Some(word) = words.iter().find(|w| w.contains('\0')) {
        return Err(format!("{} holds a NUL", json::quote(word)));
    }
    Ok(Request {
        words,
        json,
        framed,
    })
}

/// Without the flag, and was it there? What follows `--` is a command's, whatever it looks like.
fn without_json(mut words: Vec<String>) -> (Vec<String>, bool) {
    let json = take_out(&mut words, "--json");
    (words, json)
}

/// `--no-wait` stands behind the verb, wherever it was said.
fn flag_behind(mut words: Vec<String>) -> Vec<String> {
    if take_out(&mut words, verbs::NO_WAIT) {
        words.insert(1.min(words.len()), verbs::NO_WAIT.into());
    }
    words
}

fn take_out(words: &mut Vec<String>, flag: &str) -> bool {
    let before = words.len();
    let mut ours = true;
    words.retain(|w| {
        ours &= w != END;
        !ours || w != flag
    });
    words.len() < before
}

/// The names that an object behind a verb may have: those of words of ours, whose times are
/// milliseconds in it.
const NAMES: [&str; 4] = ["cwd", "count", "timeout", "watch"];

/// So many of them, alone or together, may stand behind a verb.
const MOST_OPTIONS: usize = 64;

/// Words as cluster-service had them, in ours: an object, or `name:value` words, at the end of what a
/// verb is told. `start ./x {"count":2,"timeout":500}` is `start count 2 timeout 500ms -- ./x`. Behind
/// a `--` all is the command's.
pub fn spelled_out(words: Vec<String>) -> Result<Vec<String>, String> {
    let verb = words.first().and_then(|w| verbs::find(w));
    let Some(verb) = verb.filter(|v| v.objects) else {
        return Ok(words);
    };
    if words.iter().any(|w| w == END) {
        return Ok(words);
    }
    let mut rest = words;
    let mut found = Vec::new();
    while let Some(last) = rest.last().filter(|_| rest.len() > 1) {
        let Some(some) = options(last)? else { break };
        rest.pop();
        found.push(some);
        if found.len() > MOST_OPTIONS {
            return Err(format!(
                "more than {MOST_OPTIONS} options behind {}",
                verb.name
            ));
        }
    }
    let ours: Vec<String> = found.into_iter().rev().flatten().collect();
    if ours.is_empty() {
        return Ok(rest);
    }
    let at = match verb.before {
        // In front of COMMAND, behind what is ours already.
        Some(before) => 1 + begins(&rest, before),
        None => rest.len(),
    };
    let command = rest.split_off(at.min(rest.len()));
    rest.extend(ours);
    if verb.before.is_some() {
        rest.push(END.into());
    }
    rest.extend(command);
    Ok(rest)
}

fn begins(words: &[String], before: Before) -> usize {
    crate::settings::begins(words.get(1..).unwrap_or_default(), before)
}

/// What one word says, if it is an object of such names or `name:value`.
fn options(word: &str) -> Result<Option<Vec<String>>, String> {
    if let Some((name, value)) = word.split_once(':')
        && NAMES.contains(&name)
        && !value.is_empty()
    {
        return one(name, value).map(Some);
    }
    if !word.starts_with('{') {
        return Ok(None);
    }
    let Ok(JsonValue::Object(map)) = json::parse(word) else {
        return Ok(None);
    };
    let strange = map.keys().find(|k| !NAMES.contains(&k.as_str()));
    if let Some(name) = strange {
        let ours = |k: &String| nearest(k, &NAMES).is_some();
        return match map.keys().any(ours) {
            // Half of it is ours, or a slip of that.
            true => Err(format!(
                "{}: {name} is none of {}; an argument of the command goes behind --",
                shown(word),
                NAMES.join(", ")
            )),
            false => Ok(None),
        };
    }
    if map.is_empty() {
        return Ok(None);
    }
    let mut all = Vec::new();
    for name in NAMES {
        match map.get(name) {
            None => {}
            Some(JsonValue::String(text)) => all.extend(one(name, text)?),
            Some(JsonValue::Number(n)) => all.extend(one(name, &n.to_string())?),
            Some(
                JsonValue::Boolean(_)
                | JsonValue::Null
                | JsonValue::Array(_)
                | JsonValue::Object(_),
            ) => return Err(format!("{name} is neither a number nor a text")),
        }
    }
    Ok(Some(all))
}

fn shown(word: &str) -> String {
    let short: String = word.chars().take(80).collect();
    match short.len() == word.len() {
        true => short,
        false => short + "..",
    }
}

/// As our words. A time of 0 is as ever, as it was there.
fn one(name: &str, value: &str) -> Result<Vec<String>, String> {
    let time = matches!(name, "timeout" | "watch");
    let bare = value.bytes().all(|b| b.is_ascii_digit());
    Ok(match (time, value, bare) {
        (true, "0", _) => Vec::new(),
        (true, _, true) => vec![name.into(), format!("{value}ms")],
        (_, _, _) => vec![name.into(), value.into()],
    })
}

/// The words as our client sends them.
pub fn encode(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| json::quote(w)).collect();
    format!("[{}]\n", quoted.join(","))
}

/// The answer as our client reads it.
pub fn encode_answer(code: u8, out: &str) -> String {
    format!("{{\"exit\":{code},\"out\":{}}}\n", json::quote(out))
}

/// Something for who reads the errors of our client, before the answer.
pub fn encode_complaint(text: &str) -> String {
    format!("{{\"err\":{}}}\n", json::quote(text))
}

/// What our client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The answer: exit code and text.
    Answer(u8, String),
    /// Some of it, and more will follow. From here on it may take its time.
    More(String),
    /// Something about it, for stderr; the answer will follow.
    Complaint(String),
}

/// A line that our client has read.
pub fn decode(line: &str) -> Result<Told, String> {
    if line.starts_with("HTTP/") {
        let why = "HTTP is spoken there: that is no control port (of --monitor verbs are asked by POST /cli)";
        return Err(why.into());
    }
    let v = json::parse(line)?;
    let bad = || format!("not an answer: {}", shown(line));
    let JsonValue::Object(map) = v else {
        return Err(bad());
    };
    if let Some(JsonValue::String(text)) = map.get("err") {
        return Ok(Told::Complaint(text.clone()));
    }
    match (map.get("exit"), map.get("out"), map.get("more")) {
        (Some(JsonValue::Number(n)), Some(JsonValue::String(out)), _) => {
            Ok(Told::Answer(*n as u8, out.clone()))
        }
        (_, _, Some(JsonValue::String(more))) => Ok(Told::More(more.clone())),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_flags_may_stand_anywhere_before_the_end_of_ours() {
        for (line, want, json) in [
            (
                "start ./x {\"count\":2} --json",
                "start count 2 -- ./x",
                true,
            ),
            (
                "--json start ./x {\"count\":2}",
                "start count 2 -- ./x",
                true,
            ),
            ("start ./x --no-wait", "start --no-wait ./x", false),
            (
                "restart all {\"timeout\":60} --no-wait --json",
                "restart --no-wait all timeout 60ms",
                true,
            ),
            (
                "start -- ./x --json --no-wait",
                "start -- ./x --json --no-wait",
                false,
            ),
            ("--no-wait resize 2", "resize --no-wait 2", false),
            ("--no-wait", "--no-wait", false),
            ("--json", "", true),
        ] {
            let r = parse(line.as_bytes()).unwrap();
            assert_eq!((r.words.join(" ").as_str(), r.json), (want, json), "{line}");
        }
    }

    #[test]
    fn a_megabyte_of_options_is_refused_at_once() {
        for one in ["count:1 ", "{\"count\":1} "] {
            let line = format!("restart 0 {}", one.repeat(1024 * 1024 / one.len()));
            let e = parse(line.as_bytes()).unwrap_err();
            assert_eq!(e, "more than 64 options behind restart");
        }
        let word = "x".repeat(1024 * 1024);
        assert!(crate::verbs::unknown(&word).contains("there are: status"));
    }

    #[test]
    fn a_line_of_our_client_and_one_of_a_person() {
        let r = parse(br#"["--json","why","3"]"#).unwrap();
        assert_eq!(
            (r.words, r.json, r.framed),
            (vec!["why".into(), "3".into()], true, true)
        );
        let r = parse(b"  say \"two words\" '' --json\r").unwrap();
        assert_eq!(r.words, ["say", "two words", ""]);
        assert!(r.json && !r.framed);
        assert!(parse(b"").unwrap().words.is_empty());
        for bad in [&b"\xff\xfe"[..], b"[1,2", b"say \"x"] {
            assert!(parse(bad).is_err());
        }
        for bad in [&br#"["start","--","a\u0000b"]"#[..], b"start a\0b"] {
            assert_eq!(parse(bad).unwrap_err(), "\"a\\u0000b\" holds a NUL");
        }
    }

    #[test]
    fn words_and_answers_survive_the_wire() {
        let words = vec!["a\nb".to_string(), "ü\"".into()];
        let line = encode(&words);
        assert_eq!(line.matches('\n').count(), 1);
        assert_eq!(parse(line.as_bytes()).unwrap().words, words);
        let answer = encode_answer(3, "x\ny\"\n");
        assert_eq!(decode(&answer).unwrap(), Told::Answer(3, "x\ny\"\n".into()));
        let more = crate::wire::stream::framed("a\n");
        assert_eq!(decode(&more).unwrap(), Told::More("a\n".into()));
        let complaint = encode_complaint("cut\n");
        assert_eq!(decode(&complaint).unwrap(), Told::Complaint("cut\n".into()));
        assert!(decode("{}").is_err());
    }

    #[test]
    fn an_object_at_the_end_is_words_of_ours_and_milliseconds() {
        for (line, want) in [
            (
                r#"start ./x {"count":2,"timeout":60000}"#,
                "start count 2 timeout 60000ms -- ./x",
            ),
            (
                r#"start ./x a {"cwd":"/srv/v 2"}"#,
                "start cwd /srv/v 2 -- ./x a",
            ),
            (
                "start ./x count:2 timeout:60",
                "start count 2 timeout 60ms -- ./x",
            ),
            (
                r#"upgrade all ./x {"timeout":500,"watch":2000}"#,
                "upgrade all timeout 500ms watch 2000ms -- ./x",
            ),
            (
                r#"restart all {"timeout":30000}"#,
                "restart all timeout 30000ms",
            ),
            (r#"restart all {"timeout":0}"#, "restart all"),
            (r#"restart 3 {"timeout":"5s"}"#, "restart 3 timeout 5s"),
            // A command's own.
            (r#"start ./x {"port":1}"#, r#"start ./x {"port":1}"#),
            ("start ./x {}", "start ./x {}"),
            (r#"start -- ./x {"count":2}"#, r#"start -- ./x {"count":2}"#),
            (r#"why {"count":2}"#, r#"why {"count":2}"#),
            ("start count:2", "start count 2 --"),
        ] {
            let r = parse(line.as_bytes()).unwrap();
            assert_eq!(r.words.join(" "), want, "{line}");
        }
        let e = parse(br#"start ./x {"count":[]}"#).unwrap_err();
        assert!(e.contains("count is neither"), "{e}");
    }
}
