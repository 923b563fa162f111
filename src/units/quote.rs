//! Words as each kind of file has them, so that what arrives is what was typed.

/// Characters that no format reads into.
fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-+./:,@=".contains(c)
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
            c if u32::from(c) < 0x80 && c.is_control() => {
                text.push_str(&format!("\\x{:02x}", u32::from(c)));
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

/// The value of a setting of a unit that is one path: only specifiers are read into.
pub fn systemd_path(path: &str) -> String {
    path.replace('%', "%%")
}

/// A word of a shell.
pub fn shell(word: &str) -> String {
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

/// A string of JSON, and so of YAML.
pub use crate::wire::json::quote as json;

/// A word of a container's command in Kubernetes, which puts variables in place of $(NAME).
pub fn k8s(word: &str) -> String {
    json(&word.replace("$(", "$$("))
}

/// Text of others in a comment: one line.
pub fn comment(text: &str) -> String {
    let one = |c: char| if c.is_control() { ' ' } else { c };
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
        assert_eq!(k8s("$(HOME) \"$$\""), "\"$$(HOME) \\\"$$\\\"\"");
        assert_eq!(comment("a\nb"), "a b");
    }
}
