//! What the words behind each verb have to be. Slots and names of verbs are not looked at here: who
//! answers knows them.

use crate::settings;

/// Anything, as far as it is not too much.
pub(super) fn nothing(_: &[&str]) -> Result<(), String> {
    Ok(())
}

/// `simple|details`
pub(super) fn workers(words: &[&str]) -> Result<(), String> {
    super::details(words.first().copied()).map(drop)
}

/// `N|+K|-K`
pub(super) fn resize(words: &[&str]) -> Result<(), String> {
    settings::size(words.first().copied().unwrap_or_default()).map(drop)
}

/// `all|SLOT|PID [timeout T]`
pub(super) fn restart(words: &[&str]) -> Result<(), String> {
    settings::restart(words).map(drop)
}

/// `SIG [all|SLOT|PID]`
pub(super) fn signal(words: &[&str]) -> Result<(), String> {
    settings::signal_to(words).map(drop)
}
