//! One request on the control socket: a line. The client sends its words as a JSON array and gets
//! one line of JSON back, `{"exit":0,"out":"text"}`; a person at a bare connection types words and
//! gets text.

use super::json;
use crate::settings::END;

/// Longest line accepted.
pub const MAX_LINE: usize = 64 * 1024;

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    let all = match framed {
        true => json::parse_words(text)?,
        false => split(text)?,
    };
    // JSON can say it, and a line hold it; no word of a command line, file name or variable can.
    if let Some(word) = all.iter().find(|w| w.contains('\0')) {
        return Err(format!("{} holds a NUL", json::quote(word)));
    }
    // What follows `--` is a command's, whatever it looks like.
    let end = all.iter().position(|w| w == END).unwrap_or(all.len());
    let (ours, theirs) = all.split_at(end);
    let json = ours.iter().any(|w| w == "--json");
    let ours = ours.iter().filter(|w| *w != "--json");
    let words = ours.chain(theirs).cloned().collect();
    Ok(Request {
        words,
        json,
        framed,
    })
}

/// Words as people type them: blanks between, quotes around those that hold blanks.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in text.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (Some(_) | None, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed".into());
    }
    words.extend(word);
    Ok(words)
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

/// The answer, read.
pub fn decode_answer(line: &str) -> Result<(u8, String), String> {
    let v = json::parse(line)?;
    let bad = || format!("not an answer: {line}");
    let tinyjson::JsonValue::Object(map) = v else {
        return Err(bad());
    };
    match (map.get("exit"), map.get("out")) {
        (Some(tinyjson::JsonValue::Number(n)), Some(tinyjson::JsonValue::String(out))) => {
            Ok((*n as u8, out.clone()))
        }
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(decode_answer(&answer).unwrap(), (3, "x\ny\"\n".into()));
        assert!(decode_answer("{}").is_err());
    }
}
