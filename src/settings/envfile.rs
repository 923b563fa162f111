//! Files of environment variables, understood. What is in them may be secret: no message repeats
//! any of it but the name of a variable that is ours.

use super::parse::ours_alone;

/// Longest such file.
pub const MAX_ENV_FILE: usize = 1 << 20;

/// A name, and a value of any bytes.
pub type Variable = (String, Vec<u8>);

/// The variables of a file, in order. An error is the number of the line, from 1, and what would be
/// right.
pub fn env_file(text: &[u8]) -> Result<Vec<Variable>, (usize, String)> {
    // Editors of another system mark the file as UTF-8 by these.
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let mut all = Vec::new();
    for (n, line) in text.split(|b| *b == b'\n').enumerate() {
        match env_line(line) {
            Ok(Some(pair)) => all.push(pair),
            Ok(None) => {}
            Err(e) => return Err((n + 1, e)),
        }
    }
    Ok(all)
}

/// `[export ]NAME=VALUE`, or nothing.
fn env_line(line: &[u8]) -> Result<Option<Variable>, String> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let exported = line.strip_prefix(b"export");
    let exported = exported.filter(|rest| rest.first().is_some_and(u8::is_ascii_whitespace));
    let line = exported.unwrap_or(line).trim_ascii_start();
    let mut parts = line.splitn(2, |b| *b == b'=');
    let (name, value) = match (parts.next().unwrap_or_default(), parts.next()) {
        (name, Some(value)) if !line.contains(&0) => (name, value),
        (_, Some(_)) => return Err("holds a NUL".into()),
        (_, None) => return Err("not NAME=VALUE, nor a comment (#)".into()),
    };
    let odd = |b: &u8| b.is_ascii_whitespace() || b.is_ascii_control() || b"'\"".contains(b);
    let name = std::str::from_utf8(name).ok().filter(|n| !n.is_empty());
    let Some(name) = name.filter(|n| !n.as_bytes().iter().any(odd)) else {
        return Err("what stands before the = is no name of a variable".into());
    };
    if let Some(why) = ours_alone(name) {
        return Err(why);
    }
    Ok(Some((name.into(), unquoted(value.trim_ascii_start())?)))
}

/// Without the pair of quotes around it, if there is one.
fn unquoted(value: &[u8]) -> Result<Vec<u8>, String> {
    match value {
        [open @ (b'"' | b'\''), inner @ .., close] if open == close => Ok(inner.to_vec()),
        [b'"' | b'\'', ..] => Err(
            "a quote is opened and not closed at the end of the line: a value is one line, and a comment stands on a line of its own".into(),
        ),
        plain => Ok(plain.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_file() {
        let text =
            b"\xEF\xBB\xBF# comment\n\nA=1\n export B = x \n\texport\tC=\nD=\"two words \"\r\n\
            E='it'\nF=a=b # kept\nexported=1\nG=\"\nH=\xFF\n";
        let (line, why) = env_file(text).unwrap_err();
        assert_eq!(line, 4, "{why}");
        let fixed: Vec<u8> = String::from_utf8_lossy(text)
            .replace("B = x", "B= x")
            .replace("G=\"\n", "G=\"\"\n")
            .into_bytes();
        let all = env_file(&fixed).unwrap();
        let shown: Vec<(String, String)> = all
            .into_iter()
            .map(|(k, v)| (k, String::from_utf8_lossy(&v).into_owned()))
            .collect();
        let want = [
            ("A", "1"),
            ("B", "x"),
            ("C", ""),
            ("D", "two words "),
            ("E", "it"),
            ("F", "a=b # kept"),
            ("exported", "1"),
            ("G", ""),
            ("H", "\u{FFFD}"),
        ];
        let want: Vec<(String, String)> = want.map(|(k, v)| (k.into(), v.into())).to_vec();
        assert_eq!(shown, want);
        assert_eq!(env_file(b"X=\xFE").unwrap()[0].1, b"\xFE");
        assert_eq!(env_file(b"").unwrap(), []);
    }

    #[test]
    fn a_bad_line_is_told_by_its_number_and_never_repeated() {
        for (text, line, hint) in [
            ("A=1\nhunter2\n", 2, "NAME=VALUE"),
            ("\n\nKEY=\"hunter2\nmore\"", 3, "one line"),
            ("KEY='hunter2\" # x", 1, "not closed"),
            ("=hunter2", 1, "no name"),
            ("two words=hunter2", 1, "no name"),
            ("A=hunter2\0", 1, "NUL"),
            ("export hunter2", 1, "NAME=VALUE"),
            ("LISTEN_FDS=hunter2", 1, "LISTEN_FDS is set for each worker"),
        ] {
            let (at, why) = env_file(text.as_bytes()).unwrap_err();
            assert_eq!(at, line, "{text:?}");
            assert!(why.contains(hint), "{text:?}: {why}");
            assert!(!why.contains("hunter2"), "{why}");
        }
    }
}
