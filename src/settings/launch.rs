//! What is typed behind the verbs that name a COMMAND: our words first, and from COMMAND on everything is
//! the command's, verbatim. `--` may stand before it, and has to where it looks like one of ours.

use super::{LONGEST, MAX_WORKERS, between, number, target};
use crate::core::Target;
use std::path::PathBuf;
use std::time::Duration;

/// Stands before COMMAND.
pub const END: &str = "--";

/// Which of our words may stand before COMMAND.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// `[all|SLOT|PID] [cwd D] [watch T] [timeout T]`
    Upgrade,
    /// `[count N] [cwd D] [timeout T]`
    Start,
    /// `cwd D [option --NAME=VALUE]..`
    Replace,
    /// `[cwd D] [timeout T]`: no workers, but something to be run once.
    Test,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Whose.
    pub target: Target,
    /// How many.
    pub count: u16,
    /// Where it runs, if not where the others do.
    pub cwd: Option<PathBuf>,
    /// How long new workers are watched, if not as ever.
    pub watch: Option<Duration>,
    /// How long each has to be ready, if not as ever.
    pub timeout: Option<Duration>,
    /// What else was typed, as options.
    pub options: Vec<String>,
    /// What to run.
    pub command: Vec<String>,
}

/// Where COMMAND begins: behind `--`, if that is there.
pub fn begins<W: AsRef<str>>(words: &[W], before: Before) -> usize {
    let word = |at: usize| words.get(at).map(AsRef::as_ref);
    let flag = |w: Option<&str>| matches!(w, Some("--no-wait" | "--json"));
    let mut at = (0..).take_while(|at| flag(word(*at))).count();
    if before == Before::Upgrade && word(at).is_some_and(|w| target(w).is_ok()) {
        at += 1;
    }
    loop {
        match (before, word(at)) {
            (Before::Replace, Some("option")) | (_, Some("cwd" | "timeout")) => at += 2,
            (Before::Upgrade, Some("watch")) | (Before::Start, Some("count")) => at += 2,
            // Flags of ours.
            (_, Some("--no-wait" | "--json")) => at += 1,
            (_, Some(END)) => return at + 1,
            (_, _) => return at.min(words.len()),
        }
    }
}

/// Understands them.
pub fn launch(words: &[&str], before: Before) -> Result<Launch, String> {
    let at = begins(words, before);
    let mut found = Launch {
        target: Target::All,
        count: 1,
        cwd: None,
        watch: None,
        timeout: None,
        options: Vec::new(),
        command: words.iter().skip(at).map(|w| w.to_string()).collect(),
    };
    let flag = |w: &&&str| [END, "--no-wait", "--json"].contains(*w);
    let mut ours = words.iter().take(at).filter(|w| !flag(w));
    while let Some(word) = ours.next() {
        let mut value = || {
            let missing = || format!("{word} needs a value, and a COMMAND behind that");
            ours.next().copied().ok_or_else(missing)
        };
        let time = |text: &str| between(text, Duration::from_millis(1), LONGEST);
        match *word {
            "cwd" => found.cwd = Some(PathBuf::from(value()?)),
            "watch" => found.watch = Some(super::duration(value()?)?),
            "timeout" if before == Before::Test => {
                found.timeout = Some(super::duration(value()?)?);
            }
            "timeout" => found.timeout = Some(time(value()?)?),
            "option" => found.options.push(value()?.to_string()),
            "count" => found.count = number(value()?, 1, MAX_WORKERS)?,
            other => found.target = target(other)?,
        }
    }
    let one = found.target != Target::All;
    match found.command.first().map(String::as_str) {
        None | Some("") if before == Before::Test => Err("no SCRIPT: what is to be run?".into()),
        None | Some("") => Err("no COMMAND: what are the workers to run?".into()),
        Some(_) if one && found.watch.is_some() => Err(
            "watch is for an upgrade of all: one new worker has its place as soon as it is ready"
                .into(),
        ),
        Some(_) => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upgrade(line: &str) -> Result<Launch, String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        launch(&words, Before::Upgrade)
    }

    #[test]
    fn our_words_end_where_the_command_begins() {
        let l = upgrade("all cwd /srv/v2 watch 10s timeout 5s ./server --json cwd x").unwrap();
        assert_eq!(l.command, ["./server", "--json", "cwd", "x"]);
        assert_eq!((l.target, l.cwd), (Target::All, Some("/srv/v2".into())));
        let secs = |n| Some(Duration::from_secs(n));
        assert_eq!((l.watch, l.timeout), (secs(10), secs(5)));
        let l = upgrade("3 ./server").unwrap();
        assert_eq!(
            (l.target, l.command),
            (Target::Number(3), vec!["./server".into()])
        );
        // A command may be called as a word of ours is.
        for (line, command) in [("-- cwd x", "cwd"), ("-- 3", "3"), ("slot:1 -- all", "all")] {
            assert_eq!(upgrade(line).unwrap().command[0], command, "{line}");
        }
        assert_eq!(
            upgrade("--no-wait -- x --no-wait").unwrap().command,
            ["x", "--no-wait"]
        );
        // The flag may stand before all of it.
        let l = upgrade("--no-wait 1 -- ./server").unwrap();
        assert_eq!((l.target, l.command.len()), (Target::Number(1), 1));
        let l = launch(&["count", "3", "./worker", "count"], Before::Start).unwrap();
        assert_eq!((l.count, l.command.len()), (3, 2));
        // To test has a time without end.
        let l = launch(&["timeout", "0", "./smoke", "timeout", "1"], Before::Test).unwrap();
        assert_eq!((l.timeout, l.command.len()), (Some(Duration::ZERO), 3));
        let e = launch(&["timeout", "0"], Before::Test).unwrap_err();
        assert!(e.contains("no SCRIPT"), "{e}");
        // To start has no target, and nothing to watch.
        let l = launch(&["all"], Before::Start).unwrap();
        assert_eq!(l.command, ["all"]);
    }

    #[test]
    fn what_is_not_said_or_wrong_is_told() {
        for (line, want) in [
            ("", "no COMMAND"),
            ("all", "no COMMAND"),
            ("cwd", "cwd needs a value"),
            ("cwd /x", "no COMMAND"),
            ("timeout soon ./x", "'soon'"),
            ("2 watch 3s ./x", "an upgrade of all"),
            ("timeout 0 ./x", "1ms"),
        ] {
            let e = upgrade(line).unwrap_err();
            assert!(e.contains(want), "{line}: {e}");
        }
        let e = launch(&["count", "0", "x"], Before::Start).unwrap_err();
        assert!(e.contains("1 to 1024"), "{e}");
    }
}
