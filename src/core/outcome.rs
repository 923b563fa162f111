//! How what a client asked for has ended. Each request that takes an answer from core has exactly
//! one of these; its words are in `wire`.

use super::death::Death;
use super::event::{By, Size, Target};
use super::ids::{Pid, SlotNr};
use super::notice::{Cause, Who};
use super::words::{count, errno_text, human};
use std::fmt;
use std::time::Duration;

/// The outcome of one request.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Of a stop: the master leaves with this code, and these could not be ended.
    Ended { code: u8, stuck: Vec<Pid> },
    /// As many clients as may wait do so already. A stop goes on; a resize was not begun.
    TooMany,
    /// Of a resize that is not waited for: it has begun.
    Resizing { workers: u16 },
    /// So many slots there are now; each has been ready, and no other worker is left.
    Resized { workers: u16 },
    /// So many are wanted, but that came between.
    NotResized { workers: u16, hitch: Hitch },
    /// Of a reload that is not waited for: it has begun.
    Reloading { generation: u32 },
    /// All workers are of that generation now, and the old ones have gone.
    Reloaded { generation: u32, took: Duration },
    /// That generation is not to be, on account of that: the old workers go on, so many of them ready.
    NotReloaded {
        generation: u32,
        hitch: Hitch,
        ready: usize,
    },
    /// That one is called off, and this one goes on.
    BackedOut { generation: u32, goes_on: u32 },
    /// Nothing is under way that could be called off.
    NothingToBackOut,
    /// Of a start that is not waited for: it has begun.
    Starting { count: u16 },
    /// So many slots have been added, each has been ready, and so many there are now.
    Started { count: u16, workers: u16 },
    /// So many were, and then that came; the slot is not there any more.
    NotStarted { started: u16, hitch: Hitch },
    /// Of a restart that is not waited for: it has begun, or is the next but some.
    Restarting { who: Who },
    /// The one has the place of the other, which has gone.
    Restarted { old: Who, new: Who, took: Duration },
    /// That one goes on as if nothing had been, or is replaced by other means; so many are ready.
    NotRestarted { hitch: Hitch, ready: usize },
    /// Of a shutdown of one slot that is not waited for: it has begun.
    ShuttingDown { who: Who },
    /// That one has gone, and its slot; so many there are to be now.
    ShutDown { who: Who, workers: u16 },
    /// It has not, on account of that.
    NotShutDown { hitch: Hitch },
    /// There would be no slot left.
    LastSlot { slot: SlotNr },
    /// There cannot be so many.
    OutOfBounds { workers: u16, asked: Size },
    /// There is no room for so many.
    NoRoom { workers: u16, asked: u16, most: u16 },
    /// These got the signal.
    Signalled { signal: i32, whom: Vec<Who> },
    /// Whoever is meant has no process that runs COMMAND now.
    Nobody { target: Target },
    /// There is no such slot, or no worker of that pid.
    Unknown { target: Target, slots: u16 },
}

/// What keeps a resize or a reload from its end, or its asker from hearing of it.
#[derive(Clone, Debug)]
pub enum Hitch {
    /// A worker of a slot that has never been ready has ended; the slot tries again.
    Died(Box<Death>),
    /// There was no process for one; the slot tries again.
    NotForked { slot: SlotNr, errno: i32 },
    /// One does not even mind SIGKILL; it is killed again and again.
    Stuck(Who),
    /// A new one was not heard in time, or left clients waiting, while it was watched.
    Hangs(Who),
    /// Another number is wanted by now.
    Superseded {
        to: u16,
        why: &'static str,
        by: Option<By>,
    },
    /// The cluster stops.
    Stopping,
    /// What was read again for it is wrong, or could not be read.
    Unreadable(String),
    /// The ports are not open yet.
    TooEarly,
    /// A reload is under way, which replaces all.
    Replacing,
    /// It is on its way out already.
    Leaves(Who),
    /// It has ended by itself before its turn.
    Gone(Who),
    /// Another reload has taken its place.
    Overtaken { why: &'static str, by: Option<By> },
    /// An operator does not want it any more.
    CalledOff { why: &'static str, by: Option<By> },
    /// Something else is under way.
    UnderWay(&'static str),
}

/// What kind of thing it is that came between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// A worker failed.
    Failure,
    /// Somebody wanted something else.
    Wish,
    /// It could not begin.
    Refusal,
}

impl Hitch {
    /// Of which kind it is.
    pub fn came(&self) -> Came {
        match self {
            Hitch::Died(_) | Hitch::NotForked { .. } | Hitch::Stuck(_) | Hitch::Hangs(_) => {
                Came::Failure
            }
            Hitch::Stopping
            | Hitch::Overtaken { .. }
            | Hitch::CalledOff { .. }
            | Hitch::Superseded { .. } => Came::Wish,
            Hitch::Unreadable(_)
            | Hitch::TooEarly
            | Hitch::Replacing
            | Hitch::Leaves(_)
            | Hitch::Gone(_)
            | Hitch::UnderWay(_) => Came::Refusal,
        }
    }

    /// What the worker has written last that it came by, if it was one that ended.
    pub fn last_words(&self) -> &str {
        if let Hitch::Died(d) = self {
            return &d.last;
        }
        ""
    }
}

impl fmt::Display for Hitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = |by: &Option<By>| by.map_or(String::new(), |by| format!(", {by}"));
        match self {
            Hitch::Died(d) => {
                write!(
                    f,
                    "{} ended: {} ({}) after {}",
                    d.who,
                    d.cause,
                    d.exit,
                    human(d.lived)
                )?;
                match (d.ready_for, &d.hint) {
                    (None, Some(hint)) if d.cause == Cause::NotReady => {
                        write!(f, ", not ready in time: {hint}")
                    }
                    (None, _) => f.write_str(", never ready"),
                    (Some(_), _) => f.write_str(", ready, but it was watched still (--canary)"),
                }
            }
            Hitch::NotForked { slot, errno } => {
                write!(f, "cannot fork for worker {slot}: {}", errno_text(*errno))
            }
            Hitch::Stuck(who) => write!(f, "{who} was killed and does not end"),
            Hitch::Hangs(who) => write!(f, "{who} hangs"),
            Hitch::Superseded { to, why, by: b } => {
                let them = count(usize::from(*to), "worker");
                write!(f, "{them} wanted by now ({why}{})", by(b))
            }
            Hitch::Stopping => f.write_str("the cluster stops"),
            Hitch::Unreadable(why) => f.write_str(why),
            Hitch::TooEarly => f.write_str("its ports are not open yet"),
            Hitch::CalledOff { why, by: b } => write!(f, "{why}{}", by(b)),
            Hitch::UnderWay(what) => write!(f, "{what} is under way"),
            Hitch::Replacing => f.write_str("a reload is under way: it replaces all workers"),
            Hitch::Leaves(who) => write!(f, "{who} is on its way out already"),
            Hitch::Gone(who) => {
                write!(f, "{who} has ended by itself before its turn had come")
            }
            Hitch::Overtaken { why, by: b } => {
                write!(f, "another reload has begun ({why}{})", by(b))
            }
        }
    }
}
