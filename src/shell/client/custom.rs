//! A verb that we do not know, or words of one that we do not understand: the master may, which has
//! verbs of its own (--command). If there is none, or it does not know either, the error is what it
//! would have been here.

use super::talk::{PATIENCE, ask};
use super::{find, print};
use crate::core::codes::{EX_USAGE, Failure, NOT_RUNNING};
use crate::settings::{Control, Settings};
use crate::verbs;
use crate::wire::report;
use std::os::unix::net::UnixStream;

/// What is no verb of ours.
pub(super) fn unknown(s: &Settings, mut words: Vec<String>) -> Result<u8, Failure> {
    let said: Vec<&str> = words.iter().map(String::as_str).collect();
    let why = verbs::no_such(&said, false);
    let hint = verbs::is_near(&words);
    let stream = match reach(s) {
        Ok(stream) => stream,
        // Whoever mistypes a verb need not hear which clusters there are.
        Err((code, e)) if !hint && (code != NOT_RUNNING || names_one(s)) => return Err((code, e)),
        Err(_) => return Err((EX_USAGE, why)),
    };
    flags(s, &mut words);
    let (code, text) = answer(stream, &words)?;
    let knows = code != EX_USAGE || !text.starts_with("unknown verb ");
    match knows || hint || text.contains("did you mean") {
        true => end(code, text),
        // Perhaps a COMMAND.
        false if words.len() > 1 => Err((EX_USAGE, why)),
        false => end(code, text),
    }
}

/// Words of a verb of ours that it does not take: something else may run by its name.
pub(super) fn misfit(s: &Settings, mut words: Vec<String>, why: String) -> Result<u8, Failure> {
    let Ok(stream) = reach(s) else {
        return Err((EX_USAGE, why));
    };
    if s.json {
        words.insert(1, "--json".into());
    }
    let (code, text) = answer(stream, &words)?;
    end(code, text)
}

/// The verbs that there are: of the master, if there is one, else ours.
pub(super) fn help(s: &Settings, mut words: Vec<String>) -> Result<u8, Failure> {
    let name = words.get(1).cloned();
    if let Ok(stream) = reach(s) {
        if s.json {
            words.insert(1, "--json".into());
        }
        if let Ok((code, text)) = answer(stream, &words) {
            return end(code, text);
        }
    }
    let all = verbs::named(name.as_deref()).map_err(|e| (EX_USAGE, e))?;
    print(&match s.json {
        true => report::help_json(&all),
        false => verbs::help(&all),
    })
}

/// The flags of ours that stand before what is the program's.
fn flags(s: &Settings, words: &mut Vec<String>) {
    for (said, flag) in [(s.no_wait, verbs::NO_WAIT), (s.json, "--json")] {
        if said {
            words.insert(1, flag.into());
        }
    }
}

fn names_one(s: &Settings) -> bool {
    s.name.is_some() || s.pid_file.is_some() || s.control != Control::Named
}

fn reach(s: &Settings) -> Result<UnixStream, Failure> {
    find(s)?.connect(s)
}

/// One that begins a program says so, and is waited for from then on.
fn answer(stream: UnixStream, words: &[String]) -> Result<(u8, String), Failure> {
    let _ = stream.set_read_timeout(Some(PATIENCE));
    ask(stream, words)
}

fn end(code: u8, text: String) -> Result<u8, Failure> {
    match (code, text.trim_end()) {
        (0, _) => print(&text),
        // All has been said.
        (_, "") => Ok(code),
        (_, why) => Err((code, why.to_string())),
    }
}
