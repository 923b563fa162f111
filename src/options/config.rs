//! The file of --config, understood: one long option a line, as it would be typed, and the rest of
//! the line is its value. `#` begins a comment where it is the first thing in a line.

use super::{Opt, all, name_of};
use crate::settings::nearest;

/// Most bytes such a file may have.
pub const MAX_BYTES: usize = 1024 * 1024;

/// Options that are of the command line alone: they do not start a cluster, or name the file.
const TYPED: [&str; 6] = [
    "config",
    "help",
    "version",
    "completions",
    "print-unit",
    "check",
];

/// One line that says something.
pub struct Entry {
    /// Its number, from 1.
    pub line: usize,
    /// Which option.
    pub opt: &'static Opt,
    /// Its value; empty if it has none.
    pub value: String,
}

impl Entry {
    /// The head of every message about it.
    pub fn at(&self, file: &str) -> String {
        format!("{file}:{}", self.line)
    }
}

/// All lines that can be understood, and what is wrong with the first that cannot, with file and line.
/// Values are looked at by whoever applies them.
pub fn parse(file: &str, bytes: &[u8]) -> (Vec<Entry>, Option<String>) {
    let mut entries: Vec<Entry> = Vec::new();
    if bytes.len() > MAX_BYTES {
        let wrong = format!("{file}: longer than {MAX_BYTES} bytes, so it is no file of options");
        return (entries, Some(wrong));
    }
    let mut wrong = None;
    for (n, line) in (1..).zip(bytes.split(|b| *b == b'\n')) {
        match entry(n, line, &entries) {
            Ok(entry) => entries.extend(entry),
            Err(why) => drop(wrong.get_or_insert(format!("{file}:{n}: {why}"))),
        }
    }
    (entries, wrong)
}

/// What this line says, if anything, after those before it.
fn entry(line: usize, bytes: &[u8], before: &[Entry]) -> Result<Option<Entry>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    // Some editors begin a file with a mark of its byte order.
    let text = match line {
        1 => text.trim_start_matches('\u{feff}').trim(),
        _ => text.trim(),
    };
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    if text.contains('\0') {
        return Err("it holds a NUL".into());
    }
    let (opt, value) = option(text)?;
    let mut twice = before.iter().filter(|e| std::ptr::eq(e.opt, opt));
    if let (Some(e), false) = (twice.next(), opt.many) {
        let (name, first) = (opt.long, e.line);
        return Err(format!("{name} is given in line {first} already"));
    }
    let value = value.into();
    Ok(Some(Entry { line, opt, value }))
}

/// `workers 4`, `workers=4`, `workers = 4`, `--workers 4`; a flag stands alone.
fn option(text: &str) -> Result<(&'static Opt, &str), String> {
    let end = text.find(|c: char| c == '=' || c.is_whitespace());
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    let rest = rest.trim_start();
    let value = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let name = word.strip_prefix("--").unwrap_or(word);
    let opt = all()
        .find(|o| o.long == name)
        .ok_or_else(|| unknown(word))?;
    if TYPED.contains(&opt.long) {
        return Err(format!("{name} can be typed, but not stand in a file"));
    }
    match (opt.arg, value) {
        ("", "") => Ok((opt, value)),
        ("", _) => Err(format!("{name} takes no value")),
        (arg, "") => Err(format!("{name} needs a value: {arg} ({})", opt.help)),
        _ => Ok((opt, value)),
    }
}

fn unknown(word: &str) -> String {
    let bare = word.trim_start_matches('-');
    if word == "--" {
        return "COMMAND stands on the command line: minicluster --config FILE -- COMMAND".into();
    }
    if bare.is_empty() {
        return "no option is named here; each line is NAME VALUE or NAME=VALUE".into();
    }
    if let Some(o) = all().find(|o| o.short == bare) {
        return format!("options have their long names here: {} for -{bare}", o.long);
    }
    let names: Vec<&str> = all().map(|o| o.long).collect();
    match nearest(bare, &names) {
        Some(n) => format!("unknown option '{bare}'; did you mean {n}?"),
        None => format!("unknown option '{bare}'; minicluster --help lists all"),
    }
}

/// What is wrong with the value of an entry.
pub fn misfit(file: &str, entry: &Entry, why: &str) -> String {
    format!("{}: {}: {why}", entry.at(file), name_of(entry.opt))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(usize, &'static str, String)> {
        let (all, wrong) = parse("f", text.as_bytes());
        assert_eq!(wrong, None);
        all.into_iter()
            .map(|e| (e.line, e.opt.long, e.value))
            .collect()
    }

    #[test]
    fn lines_as_people_write_them() {
        let text = "\u{feff}# a comment\r\n\n  workers 4\nport=3000\r\n--port = 3001\nenv\tA=b = c #d\n\
                    --name=web\nquiet\nenv B=";
        let got = pairs(text);
        let want = [
            (3, "workers", "4"),
            (4, "port", "3000"),
            (5, "port", "3001"),
            (6, "env", "A=b = c #d"),
            (7, "name", "web"),
            (8, "quiet", ""),
            (9, "env", "B="),
        ];
        assert_eq!(got, want.map(|(n, o, v)| (n, o, v.to_string())));
        assert!(pairs("").is_empty());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, want) in [
            (
                "\nwokers 4",
                "f:2: unknown option 'wokers'; did you mean workers?",
            ),
            ("zzz", "f:1: unknown option 'zzz'; minicluster --help"),
            ("-n 4", "f:1: options have their long names here: workers"),
            ("workers", "f:1: workers needs a value: N"),
            ("quiet yes", "f:1: quiet takes no value"),
            ("workers 4\n#\nworkers 5", "f:3: workers is given in line 1"),
            ("config x", "f:1: config can be typed"),
            ("help", "f:1: help can be typed"),
            ("-- ./server", "f:1: COMMAND stands on the command line"),
            ("= 4", "f:1: no option is named here; each line is"),
            ("=", "f:1: no option is named here"),
            ("- 4", "f:1: no option is named here"),
            ("name a\0b", "f:1: it holds a NUL"),
        ] {
            let e = parse("f", text.as_bytes()).1.unwrap();
            assert!(e.starts_with(want), "{text:?}: {e}");
        }
        let (entries, e) = parse("f", b"name \xff\nport 1\nname \xff\n");
        let e = e.unwrap();
        assert_eq!(entries.len(), 1, "what is right is understood");
        assert_eq!(e, "f:1: it is not UTF-8");
        let (_, long) = parse("f", &vec![b'\n'; MAX_BYTES + 1]);
        assert!(long.unwrap().contains("longer than"));
    }
}
