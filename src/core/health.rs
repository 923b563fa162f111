//! What is asked beside the workers, whether clients may come: a page (--ecv-monitor) and a program
//! (--ecv-validator), which look at more than that a worker serves. Rules:
//!
//! 1. Each is asked at once when the first worker is ready, and then every --ecv-interval, counted from
//!    question to question; never twice at the same time. It has that long for its answer, but no less
//!    than a second and no more than ten.
//! 2. What it said first counts. After that it takes --ecv-fall bad answers in a row until it is not
//!    content any more, and --ecv-rise good ones until it is again: one that was lost turns nobody away.
//! 3. While nobody is ready, and from the first moment of a stop, nobody is asked: what it could say is
//!    known. A question under way is called off, and its answer is about nothing. How it stood is kept
//!    meanwhile, over deaths, reloads and resizes, with the answers in a row.
//! 4. What the options say counts when the reload that brings it serves: what the new workers have to
//!    show the old ones need not. Another page, or another program, begins where the one before it stood,
//!    and takes as many answers to change that; one that is new begins content. So a reload alone turns
//!    nobody away, nor does one bad answer after it. It is only at the start that one which has not answered
//!    yet is a reason not to come.
//! 5. How it is asked, and what a good answer is, the shell knows.

use super::action::Action;
use super::deadlines::Why;
use super::ids::Time;
use super::notice::Notice;
use super::phase::Phase;
use super::readiness::Launch;
use super::rotation::{Ground, MAX_REASON};
use super::words::cut;
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Shortest and longest time for an answer.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(10);

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Check {
    /// --ecv-monitor
    Monitor,
    /// --ecv-validator
    Validator,
}

impl Check {
    /// Both.
    pub const ALL: [Check; 2] = [Check::Monitor, Check::Validator];

    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Check::Monitor => "monitor",
            Check::Validator => "validator",
        }
    }
}

/// As the option is called.
impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--ecv-{}", self.word())
    }
}

/// A page of HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// Where; `None`: on the first port of TCP that the cluster serves.
    pub at: Option<SocketAddr>,
    /// As whom the server there is addressed.
    pub host: String,
    /// And of it this.
    pub path: String,
}

/// As it is typed.
impl fmt::Display for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(_) => write!(f, "http://{}{}", self.host, self.path),
            None => f.write_str(&self.path),
        }
    }
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// That page.
    Page(Page),
    /// That program, with its words.
    Program(Vec<String>),
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Question::Page(page) => write!(f, "{page}"),
            Question::Program(words) => f.write_str(&words.join(" ")),
        }
    }
}

/// What the operator wants asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checks {
    /// --ecv-monitor
    pub monitor: Option<Page>,
    /// --ecv-validator
    pub validator: Option<Vec<String>>,
    /// --ecv-interval
    pub interval: Duration,
    /// --ecv-fall
    pub fall: u16,
    /// --ecv-rise
    pub rise: u16,
}

impl Checks {
    fn question(&self, check: Check) -> Option<Question> {
        match check {
            Check::Monitor => self.monitor.clone().map(Question::Page),
            Check::Validator => self.validator.clone().map(Question::Program),
        }
    }

    /// How many answers in a row it takes that say that.
    fn needed(&self, good: bool) -> u16 {
        match good {
            true => self.rise,
            false => self.fall,
        }
    }
}

/// How one of them stands, for who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckView {
    /// Which one.
    pub check: Check,
    /// What is asked.
    pub of: String,
    /// `None`: it has not answered yet.
    pub content: Option<bool>,
    /// So many answers in a row have said otherwise,
    pub row: u16,
    /// of so many that it takes.
    pub needed: u16,
    /// What was wrong last, if it is not well since.
    pub why: Option<String>,
}

/// A question that is under way.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Asked {
    at: Time,
    /// Was it called off?
    stale: bool,
}

/// What is kept of one of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    of: Option<Question>,
    content: Option<bool>,
    /// Does the next answer count, whatever was before?
    first: bool,
    row: u16,
    why: Option<String>,
    asked: Option<Asked>,
}

impl State {
    fn new(of: Option<Question>) -> State {
        State {
            of,
            first: true,
            ..State::default()
        }
    }

    /// Something else is asked from now on, or nothing.
    fn adopt(&mut self, of: Option<Question>, launched: bool) {
        self.content = match (&of, self.content) {
            (None, _) => None,
            (Some(_), None) => launched.then_some(true),
            (Some(_), stands @ Some(_)) => stands,
        };
        if self.content != Some(false) {
            self.why = None;
        }
        // Where nobody has been sent here yet nobody is turned away, either.
        (self.of, self.first, self.row) = (of, !launched, 0);
    }

    /// An answer that counts. Does it say otherwise than it stood? Then so many in a row do.
    fn hear(&mut self, answer: Result<(), String>, needed: u16) -> Option<u16> {
        let good = answer.is_ok();
        let otherwise = self.content != Some(good);
        self.row = match otherwise {
            true => self.row.saturating_add(1),
            false => 0,
        };
        let row = self.row;
        let turns = otherwise && (self.first || row >= needed);
        if turns {
            (self.content, self.row) = (Some(good), 0);
        }
        self.first = false;
        match answer {
            Err(why) => self.why = Some(cut(why)),
            Ok(()) if self.content == Some(true) => self.why = None,
            Ok(()) => {}
        }
        (otherwise && !turns).then_some(row)
    }
}

/// What is kept of all of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    monitor: State,
    validator: State,
}

impl Kept {
    /// At the start nobody has answered.
    pub(super) fn new(wanted: &Checks) -> Kept {
        let new = |check| State::new(wanted.question(check));
        Kept {
            monitor: new(Check::Monitor),
            validator: new(Check::Validator),
        }
    }

    fn of(&self, check: Check) -> &State {
        match check {
            Check::Monitor => &self.monitor,
            Check::Validator => &self.validator,
        }
    }

    fn of_mut(&mut self, check: Check) -> &mut State {
        match check {
            Check::Monitor => &mut self.monitor,
            Check::Validator => &mut self.validator,
        }
    }
}

impl Cluster {
    /// What is wanted: as of what runs, like all that is asked of it.
    fn checks_wanted(&self) -> &Checks {
        let before = self.rollout.as_ref();
        let before = before.and_then(|r| r.policy_before(self.generation));
        &before.unwrap_or(&self.policy).checks
    }

    /// Is anybody asked now?
    fn checks_rest(&self) -> bool {
        let serving = match self.phase {
            Phase::Serving => true,
            Phase::Stopping { .. } | Phase::Done(_) => false,
        };
        !serving || self.ready_count() == 0
    }

    /// After each event: is somebody to be asked, or not any more?
    pub(super) fn checks_progress(&mut self, now: Time, out: &mut Out) {
        let rests = self.checks_rest();
        let launched = self.launch == Launch::Over;
        for check in Check::ALL {
            let wanted = self.checks_wanted().question(check);
            let within = self.checks_wanted().interval.clamp(SHORTEST, LONGEST);
            let state = self.checks.of_mut(check);
            let other = state.of != wanted;
            if other {
                state.adopt(wanted, launched);
            }
            let of = state.of.clone().filter(|_| !rests);
            let waits = self.deadlines.get(Why::Check(check)).is_some();
            match (&mut state.asked, of) {
                // The next question is due at its time.
                (None, Some(_)) if waits && !other => {}
                (None, Some(of)) => {
                    let (at, stale) = (now, false);
                    state.asked = Some(Asked { at, stale });
                    self.deadlines.stop(Why::Check(check));
                    out.push(Action::Check { check, of, within });
                }
                (Some(Asked { stale: false, .. }), Some(_)) if !other => {}
                (Some(asked @ Asked { stale: false, .. }), _) => {
                    asked.stale = true;
                    out.push(Action::CallOff { check });
                }
                // Asked anew when that has come to its end.
                (Some(Asked { stale: true, .. }), _) => {}
                (None, None) => self.deadlines.stop(Why::Check(check)),
            }
        }
    }

    /// It has answered: well, or what is wrong.
    pub(super) fn checked(
        &mut self,
        check: Check,
        answer: Result<(), String>,
        now: Time,
        out: &mut Out,
    ) {
        let (interval, good) = (self.checks_wanted().interval, answer.is_ok());
        let needed = self.checks_wanted().needed(good);
        let state = self.checks.of_mut(check);
        let at = match state.asked.take() {
            Some(Asked { at, stale: false }) => at,
            Some(Asked { stale: true, .. }) | None => return,
        };
        self.deadlines
            .set(Why::Check(check), (at + interval).max(now));
        let why = answer.clone().err();
        if let Some(row) = state.hear(answer, needed) {
            out.push(Action::Note(Notice::Wavers {
                check,
                why,
                row,
                needed,
            }));
        }
    }

    /// Who is not content, or has not said yet whether it is.
    pub(super) fn discontent(&self) -> Option<Ground> {
        let ground = |check| {
            let state = self.checks.of(check);
            let why = || state.why.clone().unwrap_or_default();
            match (&state.of, state.content) {
                (None, _) | (Some(_), Some(true)) => None,
                (Some(_), Some(false)) => Some(Ground::Discontent { check, why: why() }),
                (Some(_), None) => Some(Ground::Unchecked { check }),
            }
        };
        Check::ALL.into_iter().find_map(ground)
    }

    /// How those stand that are asked.
    pub(super) fn check_views(&self) -> Vec<CheckView> {
        let view = |check| {
            let state = self.checks.of(check);
            let good = state.content == Some(true);
            Some(CheckView {
                check,
                of: state.of.as_ref()?.to_string(),
                content: state.content,
                row: state.row,
                needed: self.checks_wanted().needed(!good),
                why: state.why.clone(),
            })
        };
        Check::ALL.into_iter().filter_map(view).collect()
    }

    /// Is it asked at a time at which it may be?
    pub(super) fn check_checks(&self) -> Result<(), String> {
        for check in Check::ALL {
            let state = self.checks.of(check);
            let due = self.deadlines.get(Why::Check(check)).is_some();
            let asked = state.asked.is_some_and(|a| !a.stale);
            let wanted = state.of.is_some() && !self.checks_rest();
            let fine = match (wanted, due, asked) {
                (true, true, true) | (false, true, _) | (false, _, true) => false,
                // (Or what was called off is waited for.)
                (true, false, false) => state.asked.is_some(),
                (true, true, false) | (true, false, true) | (false, false, false) => true,
            };
            let long = state.why.as_ref().is_some_and(|w| w.len() > MAX_REASON);
            if !fine || long {
                return Err(format!("I6/I9: {check}, due {due}: {state:?}"));
            }
        }
        Ok(())
    }
}
