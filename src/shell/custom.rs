//! Verbs that run a program: those that --command makes, in place of ours or beside them, and `test`.
//! What it writes is the answer, and its status the exit code. Who has asked may hang up: that changes
//! nothing for the program, and its answer is dropped.

use super::Shell;
use super::clients::ClientId;
use super::jobs::{Order, Purpose};
use super::requests::{Answer, behind, no_room_to_wait};
use crate::core::codes::{EX_TEMPFAIL, EX_USAGE};
use crate::core::{Asker, Level};
use crate::settings::{self, Before, RUN_LIMIT};
use crate::verbs;
use crate::wire::command::Request;
use crate::wire::json;
use crate::wire::ran::Ran;
use crate::wire::stream;
use std::ffi::OsString;
use std::time::Duration;

/// So many clients may wait for programs: with those that may wait for core (MAX_ASKERS) fewer than there
/// may be, so that others are heard.
pub const MOST_CLIENTS: usize = 48;

/// What a verb of --command is asked: words for the program, and what is said of the run.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    words: Vec<String>,
    /// JSON, for its stdin.
    body: Option<String>,
    limit: Option<Duration>,
    waits: bool,
}

/// Understands what stands behind it: `ARG.. [JSON] [timeout T] [-- ARG..]`.
fn asked(rest: &[&str]) -> Result<Asked, String> {
    let end = rest.iter().position(|w| *w == settings::END);
    let (ours, theirs) = rest.split_at(end.unwrap_or(rest.len()));
    let (flags, ours): (Vec<&str>, Vec<&str>) = ours.iter().partition(|w| **w == verbs::NO_WAIT);
    let mut limit = Some(RUN_LIMIT);
    let mut ours = ours.as_slice();
    if let [head @ .., "timeout", time] = ours {
        limit = settings::run_limit(time)?;
        ours = head;
    }
    let is_json = |w: &str| w.starts_with(['{', '[']) && json::parse(w).is_ok();
    if let [.., body, "timeout"] = ours
        && is_json(body)
    {
        return Err("timeout of how long?".into());
    }
    let mut body = None;
    if let [head @ .., last] = ours
        && is_json(last)
    {
        body = Some(format!("{last}\n"));
        ours = head;
    }
    let words = ours.iter().chain(theirs.iter().skip(1));
    Ok(Asked {
        words: words.map(|w| w.to_string()).collect(),
        body,
        limit,
        waits: flags.is_empty(),
    })
}

impl Shell {
    /// Is that one of --command, or taken away by it?
    pub(super) fn has_command(&self, name: &str) -> bool {
        self.settings().commands.contains_key(name)
    }

    /// Is there no such verb any more?
    pub(super) fn is_taken_away(&self, name: &str) -> bool {
        let commands = &self.settings().commands;
        commands.get(name).is_some_and(Vec::is_empty)
    }

    /// Is it one of --command? `None`: no, see to it yourself. Else an answer, if there is one already.
    pub(super) fn custom(&mut self, id: ClientId, r: &Request) -> Option<Option<Answer>> {
        let name = r.words.first()?;
        let program = self.settings().commands.get(name)?.clone();
        if program.is_empty() {
            let why = format!("unknown verb {name}: it is taken away (--command {name}=)\n");
            return Some(Some((EX_USAGE, why)));
        }
        let rest: Vec<&str> = behind(r).collect();
        Some(match asked(&rest) {
            Ok(asked) => {
                let words = program.into_iter().chain(asked.words);
                let order = Order {
                    name: name.clone(),
                    words: words.map(OsString::from).collect(),
                    cwd: self.settings().sources.here.clone(),
                    variables: self.program_variables(),
                    stdin: asked.body.unwrap_or_default().into_bytes(),
                    merged: false,
                    limit: asked.limit,
                    ours: false,
                };
                self.run_for_client(id, r, asked.waits, order)
            }
            Err(why) => Some((EX_USAGE, format!("{why}\n"))),
        })
    }

    /// `test`: a script that looks whether all is well.
    pub(super) fn test(&mut self, id: ClientId, r: &Request) -> Option<Answer> {
        let words: Vec<&str> = behind(r).collect();
        let found = match settings::launch(&words, Before::Test) {
            Ok(found) => found,
            Err(why) => return Some((EX_USAGE, format!("{why}\n"))),
        };
        let limit = match found.timeout {
            None => Some(RUN_LIMIT),
            Some(limit) => Some(limit).filter(|d| !d.is_zero()),
        };
        let here = &self.settings().sources.here;
        let order = Order {
            name: found.command.first().cloned().unwrap_or_default(),
            cwd: here.join(found.cwd.unwrap_or_default()),
            words: found.command.into_iter().map(OsString::from).collect(),
            variables: self.program_variables(),
            stdin: Vec::new(),
            merged: true,
            limit,
            ours: false,
        };
        self.run_for_client(id, r, !verbs::no_wait(&words), order)
    }

    /// As soon as there is room, and its answer is what comes of it.
    pub(super) fn run_for_client(
        &mut self,
        id: ClientId,
        r: &Request,
        waits: bool,
        order: Order,
    ) -> Option<Answer> {
        let (name, by) = (order.name.clone(), self.clients.by(id));
        if waits && self.jobs.awaited() >= MOST_CLIENTS {
            let why = format!("{MOST_CLIENTS} clients wait for programs already: try again\n");
            return Some((EX_TEMPFAIL, why));
        }
        if waits && !self.clients.may_last(id) {
            return Some(no_room_to_wait());
        }
        let asker = waits.then(|| self.asks(id, r, true).0);
        if !self.run_job(Purpose::Verb(asker), order) {
            if let Some(asker) = asker {
                self.waiting.forget(asker);
            }
            let why = "too many programs run and wait already: try again\n";
            return Some((EX_TEMPFAIL, why.into()));
        }
        // Not its words: they may be nobody's business.
        let message = format!("runs {name}, asked by a client, {by}");
        self.say_of_program(Level::Debug, "command-run", &name, message);
        match waits {
            true => {
                self.takes_its_time(id, r);
                None
            }
            false => Some(match r.json {
                true => (0, "{\"started\":true}\n".into()),
                false => (0, format!("{name} started\n")),
            }),
        }
    }

    /// Our client need not fear that nobody hears it.
    fn takes_its_time(&mut self, id: ClientId, r: &Request) {
        if r.framed || self.clients.is_console(id) {
            self.clients.add(id, stream::framed(""));
            // Whether it is still there the poll tells.
            self.clients.push(id);
        }
    }

    /// It has come to its end.
    pub(super) fn verb_done(&mut self, asker: Option<Asker>, ran: &Ran) {
        let (name, took) = (&ran.name, crate::core::words::human(ran.took));
        let heard = asker.is_some_and(|asker| self.tell_ran(asker, ran));
        match ran.end.why() {
            None => {
                let message = format!("{name} is done, after {took}");
                self.say_of_program(Level::Debug, "command-done", name, message);
            }
            Some(why) if heard => {
                let message = format!("{}, after {took}", ran.says(&why));
                self.say_of_program(Level::Debug, "command-done", name, message);
            }
            Some(why) => {
                let last = match ran.last.as_str() {
                    "" => String::new(),
                    last => format!("; last:\n{last}"),
                };
                let why = ran.says(&why);
                let message = format!("{why}, after {took}, and nobody waits for it{last}");
                self.say_of_program(Level::Warn, "command-failed", name, message);
            }
        }
    }

    /// The verbs that there are here: ours that are not taken away, and those of --command.
    pub(super) fn verbs_here(&self, name: Option<&str>) -> Result<Vec<verbs::Shown>, String> {
        let commands = &self.settings().commands;
        let all = verbs::shown(commands);
        match name {
            None => Ok(all),
            Some(name) => {
                let names: Vec<String> = all.iter().map(|v| v.name.clone()).collect();
                let one = all.into_iter().find(|v| v.name == name);
                one.map(|v| vec![v])
                    .ok_or_else(|| verbs::unknown_among(name, &names))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(line: &[&str]) -> (Vec<String>, Option<String>, Option<u64>, bool) {
        let a = asked(line).unwrap();
        let limit = a.limit.map(|d| d.as_secs());
        (a.words, a.body, limit, a.waits)
    }

    #[test]
    fn whoever_waits_leaves_room_for_others() {
        use super::super::clients::MAX_CLIENTS;
        const { assert!(MOST_CLIENTS + crate::core::MAX_ASKERS < MAX_CLIENTS) };
    }

    #[test]
    fn arguments_then_a_body_then_a_limit() {
        let words = |w: &[&str]| w.iter().map(|w| w.to_string()).collect::<Vec<_>>();
        assert_eq!(understood(&[]), (words(&[]), None, Some(60), true));
        assert_eq!(
            understood(&["a", "{\"b\":1}", "timeout", "5s"]),
            (words(&["a"]), Some("{\"b\":1}\n".into()), Some(5), true)
        );
        assert_eq!(
            understood(&["[1, 2]", "timeout", "0", "--no-wait"]),
            (words(&[]), Some("[1, 2]\n".into()), None, false)
        );
        // What is no JSON is an argument, as is all behind --.
        assert_eq!(
            understood(&["{slot}", "--", "timeout", "5", "{}", "--no-wait"]),
            (
                words(&["{slot}", "timeout", "5", "{}", "--no-wait"]),
                None,
                Some(60),
                true
            )
        );
        assert_eq!(understood(&["timeout"]).0, ["timeout"]);
        assert_eq!(understood(&["3"]).1, None);
        assert!(asked(&["timeout", "soon"]).is_err());
    }
}
