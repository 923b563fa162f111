//! A line as people type it: words with blanks between, quotes around those that hold blanks, and
//! whole JSON values; or a call, `resize(10)`, which is the same as `resize 10`.

/// Its words.
pub(super) fn words(text: &str) -> Result<Vec<String>, String> {
    match call(text) {
        Some((name, inside)) => {
            let mut all = vec![name.to_string()];
            all.extend(split(inside, true)?);
            Ok(all)
        }
        None => split(text, false),
    }
}

/// `name(..)`, with nothing behind it: the name, and what is inside.
fn call(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_suffix(';').unwrap_or(text).trim_end();
    let (name, rest) = text.split_once('(')?;
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let named = !name.is_empty() && name.chars().all(letters);
    Some((name, rest.strip_suffix(')')?)).filter(|_| named)
}

/// The word that is being read.
#[derive(Default)]
struct Word {
    text: Option<String>,
    /// What has to come to close each bracket that is open, of a JSON value.
    open: Vec<char>,
    /// Within a string of that value; and was the last character a backslash?
    string: Option<bool>,
    /// Within quotes of ours.
    quote: Option<char>,
}

impl Word {
    fn push(&mut self, c: char) {
        self.text.get_or_insert_default().push(c);
    }

    /// Is nothing open?
    fn may_end(&self) -> bool {
        self.open.is_empty() && self.quote.is_none()
    }

    /// One more character of a JSON value.
    fn json(&mut self, c: char) -> Result<(), String> {
        self.push(c);
        self.string = match (self.string, c) {
            (Some(true), _) => Some(false),
            (Some(false), '\\') => Some(true),
            (Some(false), '"') => None,
            (Some(false), _) => Some(false),
            (None, '"') => Some(false),
            (None, _) => None,
        };
        if self.string.is_some() {
            return Ok(());
        }
        match c {
            '{' => self.open.push('}'),
            '[' => self.open.push(']'),
            '}' | ']' => match self.open.pop() {
                Some(due) if due == c => {}
                _ => return Err(format!("a {c} that closes nothing")),
            },
            _ => {}
        }
        Ok(())
    }
}

/// With blanks between them; in a call commas do, too.
fn split(text: &str, commas: bool) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    let mut word = Word::default();
    for c in text.chars() {
        let begins = word.text.is_none();
        match (word.quote, c) {
            _ if !word.open.is_empty() => word.json(c)?,
            (Some(q), c) if c == q => word.quote = None,
            (Some(_), c) => word.push(c),
            (None, '{' | '[') if begins => word.json(c)?,
            (None, '"' | '\'') => {
                word.quote = Some(c);
                word.text.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() || commas && c == ',' => all.extend(word.text.take()),
            (None, c) => word.push(c),
        }
    }
    if !word.may_end() {
        return Err(match word.quote {
            Some(_) => "a quote is not closed".into(),
            None => "a bracket is not closed".into(),
        });
    }
    all.extend(word.text);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_calls_are_the_same() {
        for (line, want) in [
            ("resize 10", &["resize", "10"][..]),
            ("resize(10)", &["resize", "10"]),
            ("resize( 10 );", &["resize", "10"]),
            ("restart()", &["restart"]),
            ("select('pid')", &["select", "pid"]),
            ("debug(\"hello, world\")", &["debug", "hello, world"]),
            ("signal(USR1, 2)", &["signal", "USR1", "2"]),
            (
                "sync-send({\"cmd\":\"a b\"},0)",
                &["sync-send", "{\"cmd\":\"a b\"}", "0"],
            ),
            ("start ./x (y)", &["start", "./x", "(y)"]),
            ("a(b", &["a(b"]),
            ("(b)", &["(b)"]),
            ("debug a,b", &["debug", "a,b"]),
            ("", &[]),
        ] {
            assert_eq!(words(line).unwrap(), want, "{line}");
        }
    }

    #[test]
    fn a_json_value_is_one_word() {
        for value in [
            r#"{"cmd":"x","msg":{"a":[1, 2],"b":"} ]"}}"#,
            r#"["a b", {"c":"\"]"}]"#,
            "{}",
            r#"{"back\\":"s"}"#,
        ] {
            let line = format!("send {value} 3");
            assert_eq!(words(&line).unwrap(), ["send", value, "3"]);
        }
        for (bad, why) in [
            ("send {\"a\":1", "a bracket is not closed"),
            ("send [1}", "closes nothing"),
            ("send 'a", "a quote is not closed"),
            ("send {\"a}", "a bracket is not closed"),
        ] {
            assert!(words(bad).unwrap_err().contains(why), "{bad}");
        }
        // Only where a word begins.
        assert_eq!(words("a{b c}").unwrap(), ["a{b", "c}"]);
    }
}
