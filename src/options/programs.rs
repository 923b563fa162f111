//! Programs of the operator's that the master runs.

use super::{Opt, opt};
use crate::settings::{self, MAX_COMMANDS, MAX_HOOKS};

/// In the order of --help.
pub(super) static PROGRAMS: &[Opt] = &[
    opt(
        "",
        "on-event",
        "CMD",
        "",
        "run at each event, which is told in MINICLUSTER_EVENT, ..",
        |s, v| {
            if s.on_event.len() >= MAX_HOOKS {
                return Err(format!(
                    "at most {MAX_HOOKS} programs can be told of events"
                ));
            }
            s.on_event.push(settings::program(v)?);
            Ok(())
        },
    )
    .many(),
    opt(
        "",
        "command",
        "NAME=CMD",
        "",
        "a verb that runs CMD; with nothing to run: no such verb",
        |s, v| {
            let (name, words) = settings::command(v)?;
            s.commands.insert(name, words);
            if s.commands.len() > MAX_COMMANDS {
                return Err(format!("at most {MAX_COMMANDS} verbs can be made"));
            }
            Ok(())
        },
    )
    .keyed(),
];
