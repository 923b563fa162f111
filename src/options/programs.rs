//! Programs of the operator's that the master runs.

use super::{Opt, opt};
use crate::settings::{self, MAX_HOOKS};

/// In the order of --help.
pub(super) static PROGRAMS: &[Opt] = &[opt(
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
.many()];
