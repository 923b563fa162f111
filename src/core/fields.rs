//! What a machine wants of each notice apart from its sentence: fields, by name.

use super::event::{By, Exit};
use super::notice::{Cause, Notice};
use super::recycle::Reason;
use super::words::signal_name;
use std::time::Duration;

/// What a field of a notice holds: machines want to know which, whatever it looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Digits.
    Number(String),
    /// Anything.
    Text(String),
    /// A whole JSON value, on one line.
    Json(String),
}

/// May what a worker that was ready has written last say why it ended? (With --log-dir it is known of all, and of
/// one that was asked to end it is what it did all day.)
fn explains(cause: Cause) -> bool {
    match cause {
        Cause::Failure
        | Cause::Finished
        | Cause::NotReady
        | Cause::Hang
        | Cause::NotStarted
        | Cause::Oom(_) => true,
        Cause::Shutdown | Cause::Resize | Cause::Restart | Cause::Recycle | Cause::Kill => false,
    }
}

fn number(n: impl ToString) -> Value {
    Value::Number(n.to_string())
}

fn text(t: impl ToString) -> Value {
    Value::Text(t.to_string())
}

/// And who asked for it.
fn asked(mut fields: Vec<(&'static str, Value)>, by: &Option<By>) -> Vec<(&'static str, Value)> {
    if let Some(by) = by.filter(|by| *by != By::REMOTE) {
        fields.push(("by_pid", number(by.pid)));
        fields.push(("by_uid", number(by.uid)));
    }
    fields
}

impl Notice {
    /// What a machine wants apart from the sentence. Durations in seconds.
    pub fn fields(&self) -> Vec<(&'static str, Value)> {
        // Cut off, not rounded, as the message has it.
        let secs =
            |d: &Duration| Value::Number(format!("{}.{:03}", d.as_secs(), d.subsec_millis()));
        let exit_field = |exit: &Exit| match exit {
            Exit::Code(c) => ("code", number(c)),
            Exit::Signal(s) => ("signal", text(format!("SIG{}", signal_name(*s)))),
            Exit::Unknown => ("code", Value::Json("null".into())),
        };
        match self {
            Notice::LaneOpen { addr, .. }
            | Notice::Unserved { addr }
            | Notice::HandedOnly {
                addr: Some(addr), ..
            }
            | Notice::Snagged { addr, .. }
            | Notice::Adopted { addr, .. } => vec![("addr", text(addr))],
            Notice::LaneConnects { addr }
            | Notice::LaneQuits { addr, .. }
            | Notice::BindPassed { addr, .. } => vec![("addr", text(addr))],
            Notice::LaneBusy { addr, errno, .. } => {
                vec![("addr", text(addr)), ("errno", number(errno))]
            }
            Notice::Forked {
                generation, reason, ..
            } => vec![("generation", number(generation)), ("reason", text(reason))],
            Notice::SpawnFailed { errno, .. }
            | Notice::ExecFailed { errno, .. }
            | Notice::TakeoverRefused { errno, .. } => vec![("errno", number(errno))],
            Notice::Listening { addr, after, .. } => {
                vec![("addr", text(addr)), ("after", secs(after))]
            }
            Notice::Ready { after, .. } | Notice::NotReady { after, .. } => {
                vec![("after", secs(after))]
            }
            Notice::TooSlowToStop { after, limit, .. } => {
                vec![("after", secs(after)), ("limit", secs(&limit.time()))]
            }
            Notice::AllReady { ready, .. } => vec![("ready", number(ready))],
            Notice::PartlyReady { ready, wanted, .. } => {
                vec![("ready", number(ready)), ("wanted", number(wanted))]
            }
            Notice::Died {
                cause,
                exit,
                lived,
                last,
                was_ready,
                ..
            } => {
                let mut fields = vec![
                    ("reason", text(cause.word())),
                    exit_field(exit),
                    ("lived", secs(lived)),
                ];
                // Not in the sentence: on the same stderr they stand right above it.
                if !last.is_empty() && (!was_ready || explains(*cause)) {
                    fields.push(("stderr", text(last)));
                }
                fields
            }
            Notice::Recycling { why, failures, .. } => {
                let fields = vec![("reason", text(why.word()))];
                match why {
                    Reason::Age { age, limit } => {
                        [fields, vec![("age", secs(age)), ("limit", secs(limit))]].concat()
                    }
                    Reason::Rss { rss: n, limit } | Reason::Connections { served: n, limit } => {
                        let numbers = vec![(why.word(), number(n)), ("limit", number(limit))];
                        [fields, numbers].concat()
                    }
                    Reason::Wish(word) => {
                        let failures = failures.iter().map(|n| ("failures", number(n)));
                        let word = vec![("word", text(word.name()))].into_iter();
                        fields.into_iter().chain(word).chain(failures).collect()
                    }
                    Reason::Asked(by) => asked(fields, &Some(*by)),
                }
            }
            Notice::NotRecycled { again, .. } => again.iter().map(|d| ("delay", secs(d))).collect(),
            Notice::RecyclesLater { wait, failures, .. } => {
                let failures = vec![("failures", number(failures))];
                let wait = wait.iter().map(|w| ("delay", secs(w)));
                wait.chain(failures).collect()
            }
            Notice::Respawning {
                delay, failures, ..
            } => vec![("delay", secs(delay)), ("failures", number(failures))],
            Notice::CrashLoop {
                respawns,
                limit,
                wait,
                ..
            } => {
                let numbers = vec![("respawns", number(respawns)), ("limit", number(limit))];
                let wait = wait.iter().map(|w| ("delay", secs(w)));
                numbers.into_iter().chain(wait).collect()
            }
            Notice::ForksSpent { forks, limit, .. } => {
                vec![("forks", number(forks)), ("limit", number(limit))]
            }
            Notice::GivenUp { limit, .. } => vec![("limit", number(limit))],
            Notice::NoneLeft { end: Some(end) } => vec![exit_field(end)],
            Notice::Stopping { why, by, .. } | Notice::HardStop { why, by, .. } => {
                asked(vec![("reason", text(why))], by)
            }
            Notice::Disabled { why, by } | Notice::Enabled { why, by } => {
                asked(vec![("reason", text(why))], by)
            }
            Notice::Unhealthy { ready, quorum, why }
            | Notice::Healthy {
                ready,
                quorum,
                was: why,
            } => vec![
                ("reason", text(why)),
                ("ready", number(ready)),
                ("quorum", number(quorum)),
            ],
            Notice::Wavers {
                check,
                why,
                row,
                needed,
            } => {
                let fields = vec![
                    ("check", text(check.word())),
                    ("row", number(row)),
                    ("limit", number(needed)),
                ];
                let why = why.iter().map(|why| ("reason", text(why)));
                fields.into_iter().chain(why).collect()
            }
            Notice::Resizing { from, to, why, by } => {
                let numbers = vec![("from", number(from)), ("to", number(to))];
                asked([numbers, vec![("reason", text(why))]].concat(), by)
            }
            Notice::Signalled {
                signal,
                whom,
                why,
                by,
            } => {
                let signal = text(format!("SIG{}", signal_name(*signal)));
                let fields = vec![("signal", signal), ("workers", number(whom.len()))];
                asked([fields, vec![("reason", text(why))]].concat(), by)
            }
            Notice::NotSignalled {
                signal,
                target,
                why,
            } => vec![
                ("signal", text(format!("SIG{}", signal_name(*signal)))),
                ("target", text(target)),
                ("reason", text(why)),
            ],
            Notice::Reloading {
                generation,
                workers,
                why,
                by,
            } => {
                let numbers = vec![
                    ("generation", number(generation)),
                    ("workers", number(workers)),
                ];
                asked([numbers, vec![("reason", text(why))]].concat(), by)
            }
            Notice::Reloaded {
                generation, took, ..
            } => vec![("generation", number(generation)), ("took", secs(took))],
            Notice::ReloadFailed {
                generation, ready, ..
            } => vec![("generation", number(generation)), ("ready", number(ready))],
            Notice::ReloadRefused { .. } => Vec::new(),
            Notice::Exchanged {
                generation, old, ..
            } => vec![("generation", number(generation)), ("old", number(old))],
            Notice::TooManyGenerations {
                generation,
                limit,
                workers,
            } => vec![
                ("generation", number(generation)),
                ("limit", number(limit)),
                ("workers", number(workers)),
            ],
            Notice::StopDelayed { delay } => vec![("delay", secs(delay))],
            Notice::Draining { cause, .. } => vec![("reason", text(cause.word()))],
            Notice::Drained {
                after,
                closed,
                ended,
                cut,
                ..
            } => vec![
                ("after", secs(after)),
                ("closed", number(closed)),
                ("ended", number(ended)),
                ("cut", number(cut)),
            ],
            Notice::LaneAlone { addr } => vec![("addr", text(addr))],
            Notice::Resized { workers } | Notice::AtBound { workers, .. } => {
                vec![("workers", number(workers))]
            }
            Notice::NoRoom { asked, most, .. } => {
                vec![("workers", number(asked)), ("limit", number(most))]
            }
            Notice::CannotRun { code } | Notice::Stopped { code } => {
                vec![("code", number(code))]
            }
            Notice::Narrower { asked, lane, .. }
            | Notice::V4Only { asked, lane, .. }
            | Notice::DeviceWider { asked, lane, .. }
            | Notice::FamilyNeeded { asked, lane, .. } => {
                vec![("asked", text(asked)), ("addr", text(lane))]
            }
            Notice::Said { word, .. } => vec![("word", text(word.name()))],
            Notice::Hangs { how, .. } => how.limit().iter().map(|l| ("limit", secs(l))).collect(),
            Notice::LetGo { .. }
            | Notice::NoneLeft { end: None }
            | Notice::HandedOnly { addr: None, .. }
            | Notice::LeftRunning { .. }
            | Notice::StillThere { .. }
            | Notice::Forgotten { .. }
            | Notice::NeverReady { .. }
            | Notice::Leftovers { .. }
            | Notice::Stuck { .. } => Vec::new(),
        }
    }
}
