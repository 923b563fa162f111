//! Does what was typed go together, and with what was asked for?

use crate::options::merge::exclude;
use crate::options::{self, Opt, Rivals, Scope, name_of};
use crate::settings::Settings;

/// What says the same is typed once.
pub(super) fn rivals(m: &getopts::Matches, start: bool) -> Result<(), String> {
    for (about, message) in [
        (
            Rivals::Loudness,
            "-q, -v and --log-level exclude each other",
        ),
        (
            Rivals::Which,
            "-C, --name and --pid-file each say which cluster is meant: give one",
        ),
    ] {
        let typed = |o: &&Opt| o.rivals == about && m.opt_present(o.long);
        if exclude(about, start) && options::all().filter(typed).count() > 1 {
            return Err(message.into());
        }
    }
    Ok(())
}

/// What belongs to a start is not typed with a verb, nor the other way round.
pub(super) fn scopes(m: &getopts::Matches, start: bool) -> Result<(), String> {
    let wrong = match start {
        true => Scope::Client,
        false => Scope::Start,
    };
    // What a check says is an answer, too.
    let answers = |o: &&Opt| start && o.long == "json" && m.opt_present("check");
    let wrong = |o: &&Opt| o.scope == wrong && m.opt_present(o.long) && !answers(o);
    match options::all().find(wrong) {
        Some(o) if start => Err(format!(
            "{} belongs to a verb, not to starting a cluster",
            name_of(o)
        )),
        Some(o) => Err(format!(
            "{} belongs to starting a cluster, not to a verb; to start one: minicluster [OPTIONS] -- COMMAND",
            name_of(o)
        )),
        None => Ok(()),
    }
}

/// What takes a master is refused without one.
pub(super) fn single(m: &getopts::Matches, s: &Settings) -> Result<(), String> {
    let several = s.workers.is_some_and(|n| n != 1);
    let idle = |o: &&Opt| m.opt_present(o.long) && !o.alone && (o.long != "workers" || several);
    match options::all().find(idle) {
        Some(o) => Err(format!(
            "--single executes COMMAND once, without a master, so {} means nothing: leave one of them out",
            name_of(o)
        )),
        None => Ok(()),
    }
}
