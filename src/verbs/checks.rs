//! What the words behind each verb have to be. Slots and names of verbs are not looked at here: who
//! answers knows them.

use crate::settings::{self, MAX_REASON};

/// Anything, as far as it is not too much.
pub(super) fn nothing(_: &[&str]) -> Result<(), String> {
    Ok(())
}

/// `[watch]`
pub(super) fn status(words: &[&str]) -> Result<(), String> {
    match words.first() {
        None | Some(&"watch") => Ok(()),
        Some(word) => Err(format!("status does not take {word}")),
    }
}

/// `simple|details`
pub(super) fn workers(words: &[&str]) -> Result<(), String> {
    super::details(words.first().copied()).map(drop)
}

/// `N|+K|-K`
pub(super) fn resize(words: &[&str]) -> Result<(), String> {
    settings::size(words.first().copied().unwrap_or_default()).map(drop)
}

/// `[all|SLOT|PID] [timeout T]`
pub(super) fn restart(words: &[&str]) -> Result<(), String> {
    settings::whom_within(words).map(drop)
}

/// `[REASON..]`
pub(super) fn rotate(words: &[&str]) -> Result<(), String> {
    let length = words.join(" ").len();
    match length <= MAX_REASON {
        true => Ok(()),
        false => Err(format!(
            "a reason of {length} bytes is too long (limit {MAX_REASON})"
        )),
    }
}

/// `now`
pub(super) fn exit(words: &[&str]) -> Result<(), String> {
    match words {
        ["now"] => Ok(()),
        _ => Err("'now' is required: exit now".into()),
    }
}

/// `SIG [all|SLOT|PID]`
pub(super) fn signal(words: &[&str]) -> Result<(), String> {
    settings::signal_to(words).map(drop)
}

/// `FIELD`
pub(super) fn select(words: &[&str]) -> Result<(), String> {
    match words.first() {
        Some(_) => Ok(()),
        None => Err("which field? write select pid, state, age, ..".into()),
    }
}

/// `[follow|off]`
pub(super) fn events(words: &[&str]) -> Result<(), String> {
    match words.first() {
        None | Some(&("follow" | "off")) => Ok(()),
        Some(word) => Err(format!("'{word}' is neither follow nor off")),
    }
}

/// `[SLOT] [lines N] [follow|off]`
pub(super) fn logs(words: &[&str]) -> Result<(), String> {
    settings::logs(words).map(drop)
}

/// `TEXT..`
pub(super) fn debug(words: &[&str]) -> Result<(), String> {
    match words {
        [] => Err("say what? write debug TEXT".into()),
        _ => Ok(()),
    }
}

/// `NAME [JSON]`; that it is JSON is looked at by who does it.
pub(super) fn emit(words: &[&str]) -> Result<(), String> {
    let letters = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    match words.first() {
        None => Err("an event of which name? write emit NAME".into()),
        Some(name) if name.is_empty() || name.len() > 64 || !name.chars().all(letters) => Err(
            format!("'{name}' is no name of an event: up to 64 letters, digits and - _ . :"),
        ),
        Some(_) => Ok(()),
    }
}

/// `JSON [all|SLOT|PID]`
pub(super) fn send(words: &[&str]) -> Result<(), String> {
    settings::send(words).map(drop)
}

/// `JSON [timeout T]`
pub(super) fn sync_send(words: &[&str]) -> Result<(), String> {
    settings::sync_send(words).map(drop)
}

/// `[BINARY] [timeout T]`
pub(super) fn handover(rest: &[&str]) -> Result<(), String> {
    settings::handover(rest).map(drop)
}
