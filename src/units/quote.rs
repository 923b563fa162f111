//! Words as each kind of file has them, so that what arrives is what was typed.

/// Characters that no format reads into.
fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-+./:,@=".contains(c)
}

/// Words on a line.
pub fn joined(words: &[String], quote: fn(&str) -> String) -> String {
    let all: Vec<String> = words.iter().map(|w| quote(w)).collect();
    all.join(" ")
}

/// A word of ExecStart=: no specifier, no variable, no escape of the word's own.
pub fn systemd(word: &str) -> String {
    let mut text = String::new();
    for c in word.chars() {
        match c {
            '%' => text.push_str("%%"),
            '$' => text.push_str("$$"),
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            // A line with one that is no character is no line for it.
            c if c.is_ascii_control() || odd(c) => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    text.push_str(&format!("\\x{byte:02x}"));
                }
            }
            c => text.push(c),
        }
    }
    let bare = |c: char| plain(c) || c == '%' || c == '$';
    match !text.is_empty() && text.chars().all(bare) {
        true => text,
        false => format!("\"{text}\""),
    }
}

/// Text that is the rest of a line of a unit: only specifiers are read into, and a backslash at the end would
/// take the next line in.
pub fn systemd_text(text: &str) -> String {
    text.trim_end_matches('\\').replace('%', "%%")
}

/// A path that is the rest of a line of a unit, where nothing is unquoted. The slash, which changes no path,
/// keeps what is not taken at the end of a line: a backslash, a space.
pub fn systemd_path(path: &str) -> String {
    let path = path.replace('%', "%%");
    match path.ends_with(|c: char| c == '\\' || c.is_whitespace()) {
        true => path + "/",
        false => path,
    }
}

/// One of several paths on a line of a unit, or its program: no variables there, so a $ is itself. `None`: it
/// cannot be written, since versions differ in what a backslash is there.
pub fn systemd_paths(path: &str) -> Option<String> {
    if path.contains(|c: char| c == '\\' || c.is_control() || odd(c)) {
        return None;
    }
    let text = path.replace('%', "%%");
    match text.chars().all(|c| plain(c) || c == '%') {
        true => Some(text),
        false => Some(format!("\"{}\"", text.replace('"', "\"'\"'\""))),
    }
}

/// Breaks of lines, marks and what is no character at all, though it may be in a text: readers of YAML and of
/// units do not take all of them as they are.
fn odd(c: char) -> bool {
    matches!(
        c,
        '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fdd0}'..='\u{fdef}'
    ) || u32::from(c) & 0xfffe == 0xfffe
}

/// A word of a shell.
pub fn shell(word: &str) -> String {
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// A string of JSON.
pub use crate::wire::json::quote as json;

/// A string of YAML: one of JSON, but that what breaks lines there, or is not taken, is escaped.
pub fn yaml(text: &str) -> String {
    let mut s = String::new();
    for c in json(text).chars() {
        match odd(c) {
            true => {
                // (Two halves, as in JSON, it would not take.)
                let n = u32::from(c);
                s.push_str(&match n > 0xffff {
                    true => format!("\\U{n:08x}"),
                    false => format!("\\u{n:04x}"),
                });
            }
            false => s.push(c),
        }
    }
    s
}

/// A word of a container's command in Kubernetes, which puts variables in place of $(NAME) and one $ in place
/// of two, wherever they are.
pub fn k8s(word: &str) -> String {
    yaml(&word.replace('$', "$$"))
}

/// Text of others in a comment: one line.
pub fn comment(text: &str) -> String {
    let one = |c: char| if c.is_control() || odd(c) { ' ' } else { c };
    text.chars().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_as_they_were_typed() {
        for (word, sd, sh) in [
            ("./server", "./server", "./server"),
            ("", "\"\"", "''"),
            ("a b", "\"a b\"", "'a b'"),
            ("100%", "100%%", "'100%'"),
            ("$HOME", "$$HOME", "'$HOME'"),
            ("it's", "\"it's\"", "'it'\\''s'"),
            ("a\"b\\c", "\"a\\\"b\\\\c\"", "'a\"b\\c'"),
            (";", "\";\"", "';'"),
            ("{slot}", "\"{slot}\"", "'{slot}'"),
            ("a\nb\x01", "\"a\\nb\\x01\"", "'a\nb\x01'"),
            ("\u{e9}", "\"\u{e9}\"", "'\u{e9}'"),
        ] {
            assert_eq!((systemd(word).as_str(), shell(word).as_str()), (sd, sh));
        }
        assert_eq!(k8s("$(HOME) \"$$\""), "\"$$(HOME) \\\"$$$$\\\"\"");
        assert_eq!(comment("a\nb\u{2028}c"), "a b c");
        assert_eq!(systemd("\u{fdd0}\u{feff}"), r#""\xef\xb7\x90\xef\xbb\xbf""#);
    }

    /// What Kubernetes does to a word (its third_party/forked/golang/expansion), where every variable is known.
    fn expanded(word: &str) -> String {
        let bytes = word.as_bytes();
        let mut out = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            match (bytes[at], bytes.get(at + 1)) {
                (b'$', Some(b'$')) => {
                    out.push(b'$');
                    at += 2;
                }
                (b'$', Some(b'(')) => match bytes[at..].iter().position(|b| *b == b')') {
                    Some(end) => {
                        out.extend(b"VALUE");
                        at += end + 1;
                    }
                    None => {
                        out.extend(b"$(");
                        at += 2;
                    }
                },
                // It takes the next byte for a character.
                (b'$', Some(next)) => {
                    out.push(b'$');
                    out.extend(char::from(*next).to_string().as_bytes());
                    at += 2;
                }
                (byte, _) => {
                    out.push(byte);
                    at += 1;
                }
            }
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn no_word_is_another_one_in_a_pod() {
        assert_eq!(
            expanded("$$(A) $(A) $A $ $$ $$$(A) $(A"),
            "$(A) VALUE $A $ $ $VALUE $(A"
        );
        // All words of up to six of these.
        let parts = ["$", "(", ")", "A", "\u{e9}", "\u{2028}"];
        let mut words = vec![String::new()];
        let mut from = 0;
        for _ in 0..6 {
            let till = words.len();
            for n in from..till {
                for part in parts {
                    words.push(format!("{}{part}", words[n]));
                }
            }
            from = till;
        }
        for word in &words {
            let text = k8s(word);
            assert!(!text.contains('\u{2028}'), "it would break the line");
            let read = crate::wire::json::parse_words(&format!("[{text}]")).unwrap();
            assert_eq!(&expanded(&read[0]), word, "{text}");
        }
        for c in [
            '\u{85}',
            '\u{7f}',
            '\u{feff}',
            '\u{fffe}',
            '\u{1ffff}',
            '\u{2029}',
            '\u{fdd0}',
        ] {
            let text = yaml(&c.to_string());
            assert!(text.is_ascii(), "{text}");
            match u32::from(c) {
                // Of YAML alone.
                n @ 0x10000.. => assert_eq!(text, format!("\"\\U{n:08x}\"")),
                _ => {
                    let read = crate::wire::json::parse_words(&format!("[{text}]")).unwrap();
                    assert_eq!(read, [c.to_string()]);
                }
            }
        }
    }

    #[test]
    fn a_path_of_a_unit_is_no_word_of_its_command() {
        for (path, rest) in [
            ("/srv/app", "/srv/app"),
            ("/a b", "/a b"),
            ("/a\\", "/a\\/"),
            ("/a ", "/a /"),
            ("/50%$X", "/50%%$X"),
        ] {
            assert_eq!(systemd_path(path), rest);
        }
        assert_eq!(systemd_text("x 5% \\\\\\"), "x 5%% ");
        for (path, one) in [
            ("/usr/a", Some("/usr/a")),
            ("/usr/50%", Some("/usr/50%%")),
            ("/usr/$X y", Some("\"/usr/$X y\"")),
            ("/usr/it's", Some("\"/usr/it's\"")),
            ("/usr/\"", Some("\"/usr/\"'\"'\"\"")),
            ("/usr/a\\", None),
            ("/usr/a\nb", None),
        ] {
            assert_eq!(systemd_paths(path).as_deref(), one, "{path}");
        }
    }
}
