//! JSON, a little: strings out, and values in, with the nesting looked at before the parser sees
//! it (it recurses without limit of its own).

use tinyjson::JsonValue;

/// Deepest nesting accepted.
pub const MAX_DEPTH: usize = 64;
/// Longest that is said of what is wrong with a text.
const MAX_WHY: usize = 200;

/// A JSON string, quotes included.
pub fn quote(text: &str) -> String {
    let mut s = String::with_capacity(text.len() + 2);
    s.push('"');
    for c in text.chars() {
        match c {
            '"' => s.push_str("\\\""),
            '\\' => s.push_str("\\\\"),
            '\n' => s.push_str("\\n"),
            '\r' => s.push_str("\\r"),
            '\t' => s.push_str("\\t"),
            c if c.is_control() => s.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => s.push(c),
        }
    }
    s.push('"');
    s
}

/// Parses a value that is nested no deeper than `MAX_DEPTH`.
pub fn parse(text: &str) -> Result<JsonValue, String> {
    let deepest = depth(text);
    if deepest > MAX_DEPTH {
        return Err(format!("JSON nested {deepest} deep (limit {MAX_DEPTH})"));
    }
    text.parse::<JsonValue>().map_err(|e| {
        // It may say again all that was said to it, as what is no key of an object.
        let why: String = e.to_string().chars().take(MAX_WHY).collect();
        format!("bad JSON: {why}")
    })
}

/// An array of strings.
pub fn parse_words(text: &str) -> Result<Vec<String>, String> {
    let JsonValue::Array(items) = parse(text)? else {
        return Err("not a JSON array".into());
    };
    items
        .into_iter()
        .map(|v| match v {
            JsonValue::String(s) => Ok(s),
            JsonValue::Number(_)
            | JsonValue::Boolean(_)
            | JsonValue::Null
            | JsonValue::Array(_)
            | JsonValue::Object(_) => Err("not a JSON array of strings".into()),
        })
        .collect()
}

/// How deep brackets are nested outside strings.
fn depth(text: &str) -> usize {
    let (mut now, mut most, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for b in text.bytes() {
        match (in_string, escaped, b) {
            (true, true, _) => escaped = false,
            (true, false, b'\\') => escaped = true,
            (true, false, b'"') => in_string = false,
            (true, false, _) => {}
            (false, _, b'"') => in_string = true,
            (false, _, b'[' | b'{') => {
                now += 1;
                most = most.max(now);
            }
            (false, _, b']' | b'}') => now = now.saturating_sub(1),
            (false, _, _) => {}
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_parses_back() {
        for text in ["", "plain", "a\"b\\c\nd\te\u{1}", "ü€😀", "\u{7f}\u{85}"] {
            let JsonValue::String(back) = parse(&quote(text)).unwrap() else {
                panic!("{text}");
            };
            assert_eq!(back, text);
        }
    }

    #[test]
    fn deep_nesting_is_refused_before_the_parser_sees_it() {
        let deep = "[".repeat(1_000_000);
        assert!(parse(&deep).unwrap_err().contains("limit 64"));
        let fine = format!("{}{}", "[".repeat(64), "]".repeat(64));
        assert!(parse(&fine).is_ok());
        assert!(parse("\"[[[[\\\"[[[\"").is_ok());
    }

    #[test]
    fn what_is_wrong_is_said_shortly() {
        let long = format!("{{[{}1]:2}}", "1,".repeat(10_000));
        assert!(parse(&long).unwrap_err().len() <= 240);
    }

    #[test]
    fn words_are_strings_and_nothing_else() {
        assert_eq!(parse_words(r#"["a","b c"]"#).unwrap(), ["a", "b c"]);
        for bad in ["", "[", "{}", "[1]", "[\"a\",null]", "\"a\"", "[\"a\"] x"] {
            assert!(parse_words(bad).is_err(), "{bad}");
        }
    }
}
