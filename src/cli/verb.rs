//! A verb, and the words that it takes.

use super::Invocation;
use super::words::{misplaced, nothing_to_do};
use crate::settings::{self, Settings};
use crate::verbs;
use std::ffi::OsString;

/// What stands behind `--`, if it may.
pub(super) fn command(
    words: &[String],
    behind: Option<Vec<OsString>>,
) -> Result<Option<Vec<OsString>>, String> {
    let name = words.first().ok_or_else(nothing_to_do)?;
    let ours = verbs::find(name);
    let takes = ours.is_none_or(|v| v.before.is_some());
    match behind.is_some() && !takes {
        true => Err(format!("{name} is a verb and takes no COMMAND")),
        false => Ok(behind),
    }
}

/// A verb and its words; its two flags may stand behind it, too, where people type them.
pub(super) fn asked(
    mut s: Settings,
    mut words: Vec<String>,
    command: Option<Vec<OsString>>,
) -> Result<Invocation, String> {
    let mut kept: Vec<String> = Vec::new();
    let option = ["option".to_string()];
    // From COMMAND on nothing is ours.
    let (verb, rest) = words.split_first().ok_or_else(nothing_to_do)?;
    let verb = verb.clone();
    let before = verbs::find(&verb).and_then(|v| v.before);
    let begins = before.map(|b| 1 + settings::begins(rest, b));
    let mut theirs = match begins.filter(|_| command.is_none()) {
        Some(at) => words.split_off(at),
        None => Vec::new(),
    };
    // Where it was not typed, what is at the end may still be options in an object.
    let end = command.is_some();
    for word in command.into_iter().flatten() {
        let shown = word.to_string_lossy().into_owned();
        let text = word.into_string();
        theirs.push(text.map_err(|_| format!("{shown} is not UTF-8: the master is sent text"))?);
    }
    for w in words {
        match w.as_str() {
            "--json" => s.json = true,
            "--no-wait" => s.no_wait = true,
            "-h" | "--help" if verbs::find(&verb).is_none() => {
                let help = vec!["help".to_string(), verb];
                return Ok(Invocation::Control(Box::new(s), help));
            }
            "-h" | "--help" => {
                let one = verbs::named(Some(&verb))?;
                return Ok(Invocation::Print(verbs::help(&one)));
            }
            // What would be said to a start.
            _ if kept.len() > 1
                && before == Some(crate::settings::Before::Replace)
                && kept.ends_with(&option) =>
            {
                kept.push(w);
            }
            // What it takes the master knows, and its program.
            _ if verbs::find(&verb).is_none() => kept.push(w),
            _ if w.starts_with('-') && w.len() > 1 && !kept.is_empty() => {
                if !verbs::find(&verb).is_some_and(|v| v.takes_number(&w)) {
                    return Err(misplaced(&w, &verb));
                }
                kept.push(w);
            }
            _ => kept.push(w),
        }
    }
    let unknown = verbs::find(&verb).is_none();
    if (before.is_some() || unknown) && !theirs.is_empty() {
        kept.extend(end.then(|| settings::END.into()));
        kept.extend(theirs);
    }
    Ok(Invocation::Control(Box::new(s), kept))
}
