//! Programs of the operator's that the master runs.

use super::{Opt, opt};
use crate::settings::{self, MAX_COMMANDS, MAX_DELEGATES, MAX_HOOKS, MAX_LISTENERS};
use crate::verbs;

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
        "on-message",
        "CMD",
        "",
        "hears the workers' messages, a line of JSON each; what it writes goes to them",
        |s, v| {
            if s.on_message.len() >= MAX_LISTENERS {
                return Err(format!(
                    "at most {MAX_LISTENERS} programs can hear the workers' messages"
                ));
            }
            s.on_message.push(settings::program(v)?);
            Ok(())
        },
    )
    .many(),
    opt(
        "",
        "delegate",
        "NAME=CMD",
        "",
        "does the work NAME that workers delegate, a line of JSON each",
        |s, v| {
            let (name, words) = settings::delegate(v)?;
            s.delegates.insert(name, words);
            if s.delegates.len() > MAX_DELEGATES {
                return Err(format!("at most {MAX_DELEGATES} programs can do work"));
            }
            Ok(())
        },
    )
    .keyed(),
    opt(
        "",
        "command",
        "NAME=CMD",
        "",
        "a verb that runs CMD; with nothing to run: no such verb",
        |s, v| {
            let (name, words) = settings::command(v)?;
            if let Some(ours) = verbs::but_for_capitals(&name) {
                return Err(format!("'{name}' would be taken for {ours}: another name"));
            }
            s.commands.insert(name, words);
            if s.commands.len() > MAX_COMMANDS {
                return Err(format!("at most {MAX_COMMANDS} verbs can be made"));
            }
            Ok(())
        },
    )
    .keyed(),
];
