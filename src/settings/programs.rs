//! Programs of the operator's that the master runs: at events (--on-event), as verbs (--command), and as
//! long as it lives itself, for the workers' messages (--on-message) and the work they delegate (--delegate).

use super::duration;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most programs that events are told to.
pub const MAX_HOOKS: usize = 8;
/// Most programs that hear the workers' messages,
pub const MAX_LISTENERS: usize = 8;
/// and most that do work for them.
pub const MAX_DELEGATES: usize = 32;
/// Longest name of some work.
const MAX_WORK: usize = 64;
/// Most verbs that --command can make.
pub const MAX_COMMANDS: usize = 256;
/// So long a program may take that a verb runs, unless something else is said.
pub const RUN_LIMIT: Duration = Duration::from_secs(60);
/// Longest name of one.
const MAX_NAME: usize = 32;

/// Verbs that --command makes, or, with nothing to run, takes away.
pub type Commands = BTreeMap<String, Vec<String>>;

/// Who does which work: a program for each name, or, with nothing to run, none.
pub type Delegates = BTreeMap<String, Vec<String>>;

/// `timeout T`, of a verb that runs a program: how long it may take; 0 is as long as it likes.
pub fn run_limit(text: &str) -> Result<Option<Duration>, String> {
    let limit = duration(text)?;
    Ok(Some(limit).filter(|d| !d.is_zero()))
}

/// Verbs that stay what they are: without them a cluster could be in nobody's hands any more.
pub const KEPT_VERBS: [&str; 6] = ["console", "help", "kill", "replace", "stop", "version"];

/// A program and its words, as typed on a line: blanks between, quotes around what holds blanks. No shell
/// sees it.
pub fn program(text: &str) -> Result<Vec<String>, String> {
    /// What only a shell would understand.
    const SHELL: [&str; 11] = [
        "|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "2>&1", "&>",
    ];
    let words = split(text)?;
    if words.first().is_none_or(String::is_empty) {
        return Err("there is nothing to run: write a program and its words".into());
    }
    if let Some(word) = words.iter().find(|w| SHELL.contains(&w.as_str())) {
        return Err(format!(
            "'{word}' is for a shell, and none is asked: write sh -c '...' around all of it"
        ));
    }
    Ok(words)
}

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

/// Can a verb be called that?
pub fn is_verb_name(name: &str) -> bool {
    let harmless = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let first = |c: char| c.is_ascii_alphabetic();
    name.len() <= MAX_NAME && name.starts_with(first) && name.chars().all(harmless)
}

/// `NAME=CMD`: a verb, and what it runs; with nothing to run it is no verb any more.
pub fn command(text: &str) -> Result<(String, Vec<String>), String> {
    let (name, line) = text
        .split_once('=')
        .ok_or_else(|| format!("'{text}' is not NAME=CMD: write flush='redis-cli flushall'"))?;
    if !is_verb_name(name) {
        return Err(format!(
            "'{name}' cannot be a verb: letters, digits, - and _, a letter first, at most {MAX_NAME} of them"
        ));
    }
    if KEPT_VERBS.contains(&name) {
        let kept = KEPT_VERBS.join(", ");
        return Err(format!("{name} stays what it is, as do all of {kept}"));
    }
    match line.trim() {
        "" => Ok((name.into(), Vec::new())),
        line => program(line).map(|words| (name.into(), words)),
    }
}

/// `NAME=CMD`: some work, and who does it; with nothing to run nobody does.
pub fn delegate(text: &str) -> Result<(String, Vec<String>), String> {
    let (name, line) = text
        .split_once('=')
        .ok_or_else(|| format!("'{text}' is not NAME=CMD: write resize=./resize.py"))?;
    let harmless = |c: char| !c.is_whitespace() && !c.is_control();
    if name.is_empty() || name.len() > MAX_WORK || !name.chars().all(harmless) {
        return Err(format!(
            "'{name}' cannot be the name of some work: no blanks, and 1 to {MAX_WORK} bytes"
        ));
    }
    match line.trim() {
        "" => Ok((name.into(), Vec::new())),
        line => program(line).map(|words| (name.into(), words)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_split_like_a_line_and_no_shell_sees_it() {
        for (text, want) in [
            ("./notify", &["./notify"][..]),
            (
                " curl  -s 'a b' \"c'd\" ''",
                &["curl", "-s", "a b", "c'd", ""],
            ),
            ("sh -c 'a | b > c'", &["sh", "-c", "a | b > c"]),
            ("echo $HOME *", &["echo", "$HOME", "*"]),
        ] {
            assert_eq!(program(text).unwrap(), want, "{text}");
        }
        for (bad, why) in [
            ("", "nothing to run"),
            ("  ", "nothing to run"),
            ("'' x", "nothing to run"),
            ("a 'b", "not closed"),
            ("a | b", "sh -c"),
            ("a && b", "'&&' is for a shell"),
        ] {
            let e = program(bad).unwrap_err();
            assert!(e.contains(why), "{bad}: {e}");
        }
    }

    #[test]
    fn a_command_has_a_name_that_can_be_typed_and_may_be_nothing() {
        let words = |name: &str, words: &[&str]| {
            let words = words.iter().map(|w| w.to_string()).collect();
            Ok((name.to_string(), words))
        };
        assert_eq!(
            command("flush=redis-cli x=1"),
            words("flush", &["redis-cli", "x=1"])
        );
        assert_eq!(command("upgrade="), words("upgrade", &[]));
        assert_eq!(command("a-b_2= "), words("a-b_2", &[]));
        // Those of JavaScript have humps.
        assert_eq!(command("customName=x"), words("customName", &["x"]));
        for (bad, why) in [
            ("flush", "not NAME=CMD"),
            ("=x", "cannot be a verb"),
            ("-x=y", "cannot be a verb"),
            ("a/b=y", "cannot be a verb"),
            ("2nd=y", "cannot be a verb"),
            ("stop=", "stays what it is"),
            ("kill=x", "stays what it is"),
            ("help=x", "stays what it is"),
            ("x=a 'b", "not closed"),
        ] {
            let e = command(bad).unwrap_err();
            assert!(e.contains(why), "{bad}: {e}");
        }
    }

    #[test]
    fn work_has_the_name_that_workers_give_it() {
        let words = |name: &str, w: &[&str]| {
            let words = w.iter().map(|w| w.to_string()).collect();
            (name.to_string(), words)
        };
        for (text, want) in [
            (
                "read-config=./read a=b",
                words("read-config", &["./read", "a=b"]),
            ),
            ("com.x/Y:1=node w.js", words("com.x/Y:1", &["node", "w.js"])),
            ("gone=", words("gone", &[])),
        ] {
            assert_eq!(delegate(text).unwrap(), want);
        }
        let long = format!("{}=x", "x".repeat(MAX_WORK + 1));
        for bad in ["x", "=x", "a b=x", &long, "x='"] {
            assert!(delegate(bad).is_err(), "{bad}");
        }
    }
}
