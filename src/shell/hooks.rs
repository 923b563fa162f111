//! Programs that are run at events (--on-event): one child for each event, in order, one at a time for
//! each of the programs. What happened is in its environment, never in its words.
//!
//! Nobody waits for them: events that come meanwhile wait, at most `MOST_EVENTS`, of more the oldest are
//! lost and the next program is told how many (MINICLUSTER_MISSED). One that fails, or takes longer than
//! `LIMIT` and is killed, is said once, and again when it has been well in between. What is said about
//! programs at events is not told to them, or one that fails would be run for its own failure for ever.

use super::Shell;
use super::jobs::{Lossy, Order, Purpose, variables};
use crate::core::words::human;
use crate::core::{Exit, Level};
use crate::settings::Settings;
use crate::wire::logfmt::Line;
use crate::wire::ran::{End, Ran};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::rc::Rc;
use std::time::Duration;

/// So many events wait for one program.
pub const MOST_EVENTS: usize = 256;
/// So long one has.
const LIMIT: Duration = Duration::from_secs(10);

/// Steps in the life of a worker or of the cluster, which are told however quiet they are.
const STEPS: [&str; 6] = [
    "forked",
    "listening",
    "let-go",
    "respawning",
    "draining",
    "drained",
];

/// What is told of one event; the same for all.
pub(super) type Told = Rc<Vec<(String, Vec<u8>)>>;

/// One program.
#[derive(Serialize, Deserialize)]
struct Hook {
    id: u64,
    words: Vec<String>,
    #[serde(with = "crate::shell::carry")]
    events: Lossy<Told>,
    runs: bool,
    /// Has it lost events since none waited for it? Said once.
    behind: bool,
    /// Times that it has failed in a row.
    failures: u64,
}

/// All of them.
#[derive(Default, Serialize, Deserialize)]
pub struct Hooks {
    all: Vec<Hook>,
    last: u64,
}

impl Hook {
    fn new(id: u64, words: &[String]) -> Hook {
        Hook {
            id,
            words: words.to_vec(),
            events: Lossy::new(MOST_EVENTS),
            runs: false,
            behind: false,
            failures: 0,
        }
    }
}

impl Hooks {
    /// Those that the settings name, each with what waits for it, if it was there before.
    fn keep_to(&mut self, s: &Settings) {
        let same = self.all.iter().map(|h| &h.words).eq(&s.on_event);
        if same {
            return;
        }
        let mut before = std::mem::take(&mut self.all);
        for words in &s.on_event {
            let known = before.iter().position(|h| h.words == *words);
            let hook = match known {
                Some(at) => before.swap_remove(at),
                None => {
                    self.last += 1;
                    Hook::new(self.last, words)
                }
            };
            self.all.push(hook);
        }
    }

    fn get_mut(&mut self, id: u64) -> Option<&mut Hook> {
        self.all.iter_mut().find(|h| h.id == id)
    }
}

/// Is it told? What concerns the programs themselves is not.
fn is_told(line: &Line) -> bool {
    let loud = line.level <= Level::Info || STEPS.contains(&line.event.as_ref());
    loud && !line.event.starts_with("hook-") && !line.event.starts_with("program-")
}

impl Shell {
    /// Something has happened: what is told of it, if it is.
    pub(super) fn for_hooks(&self, line: &Line) -> Option<Told> {
        if !self.has_hooks() || !is_told(line) {
            return None;
        }
        let mut told = variables::of_event(line);
        self.add_generation(&mut told);
        Some(Rc::new(told))
    }

    /// It is told to all.
    pub(super) fn tell_hooks(&mut self, told: Option<Told>) {
        let Some(told) = told else { return };
        let settings = &self.recipes.of(self.cluster.generation()).settings;
        self.hooks.keep_to(settings);
        let mut lost = Vec::new();
        for hook in &mut self.hooks.all {
            if hook.events.push(told.clone()) && !std::mem::replace(&mut hook.behind, true) {
                lost.push(hook.words.join(" "));
            }
        }
        for shown in lost {
            let message = format!(
                "--on-event {shown}: {MOST_EVENTS} events wait, for longer the oldest are lost; it is told how many (MINICLUSTER_MISSED)"
            );
            self.say(Level::Warn, "hook-missed", message);
        }
        self.run_hooks();
    }

    /// Of the worker that it is about, if it does not say.
    fn add_generation(&self, told: &mut Vec<(String, Vec<u8>)>) {
        const NAME: &str = "MINICLUSTER_GENERATION";
        let get = |name: &str| {
            let (_, value) = told.iter().find(|(k, _)| k == name)?;
            std::str::from_utf8(value).ok()
        };
        let pid = get("MINICLUSTER_PID").and_then(|v| v.parse::<i32>().ok());
        if get(NAME).is_none()
            && let Some(p) = pid.and_then(|pid| self.procs.map.values().find(|p| p.group == pid))
        {
            told.push((NAME.into(), p.generation.to_string().into()));
        }
    }

    fn has_hooks(&self) -> bool {
        !self.hooks.all.is_empty() || !self.settings().on_event.is_empty()
    }

    /// Each program that rests is run for what waits for it.
    fn run_hooks(&mut self) {
        let idle = |h: &Hook| (!h.runs && h.events.len() > 0).then_some(h.id);
        let idle: Vec<u64> = self.hooks.all.iter().filter_map(idle).collect();
        for id in idle {
            self.run_hook(id);
        }
    }

    fn run_hook(&mut self, id: u64) {
        let base = self.program_variables();
        let cwd = self.settings().sources.here.clone();
        let Some(hook) = self.hooks.get_mut(id) else {
            return;
        };
        let Some((told, missed)) = hook.events.pop() else {
            return;
        };
        hook.runs = true;
        hook.behind &= hook.events.len() > 0;
        let mut variables: Vec<(String, Vec<u8>)> = told.as_ref().clone();
        if missed > 0 {
            variables.push(("MINICLUSTER_MISSED".into(), missed.to_string().into()));
        }
        // What the event says goes before what is said of the cluster.
        let base = base
            .into_iter()
            .filter(|(k, _)| !told.iter().any(|(name, _)| name == k));
        variables.extend(base);
        let order = Order {
            name: format!("--on-event {}", hook.words.join(" ")),
            words: hook.words.iter().map(OsString::from).collect(),
            cwd,
            variables,
            stdin: Vec::new(),
            merged: false,
            limit: Some(LIMIT),
            ours: false,
        };
        if !self.run_job(Purpose::Hook(id), order)
            && let Some(hook) = self.hooks.get_mut(id)
        {
            hook.runs = false;
        }
    }

    /// One has ended: what is there to say of it, and what waits for it is next.
    pub(super) fn hook_done(&mut self, id: u64, ran: &Ran) {
        let Some(hook) = self.hooks.get_mut(id) else {
            return;
        };
        hook.runs = false;
        let before = hook.failures;
        match &ran.end {
            End::Exited(Exit::Code(0)) => hook.failures = 0,
            End::Stopped => {
                let missed = hook.events.clear();
                return self.say_cut_short(&ran.name, missed);
            }
            End::Exited(_) | End::NotRun(..) | End::TooLong(_) | End::NotBegun(_) => {
                hook.failures += 1
            }
        }
        let now = hook.failures;
        self.say_how_it_is(ran, before, now);
        self.run_hook(id);
    }

    /// Failures in a row, before it and now: the first is said loudly, or a program for each of a thousand
    /// events would fill the log.
    fn say_how_it_is(&mut self, ran: &Ran, before: u64, now: u64) {
        let name = &ran.name;
        let Some(why) = ran.end.why() else {
            if before > 0 {
                let message = format!("{name} is well again, after {before} failures");
                self.say_of_program(Level::Info, "hook-well", name, message);
            }
            return;
        };
        let last = match ran.last.as_str() {
            "" => String::new(),
            last => format!("; last:\n{last}"),
        };
        let why = ran.says(&why);
        let message = match now {
            1 => format!(
                "{why}; events go on to it, and this is not logged again before it has been well{last}"
            ),
            _ => format!("{why}; {now} failures in a row{last}"),
        };
        let killed = matches!(ran.end, End::TooLong(_));
        match (killed, now) {
            (true, 1) => self.say_of_program(Level::Warn, "hook-killed", name, message),
            (true, _) => self.say_of_program(Level::Debug, "hook-killed", name, message),
            (false, 1) => self.say_of_program(Level::Warn, "hook-failed", name, message),
            (false, _) => self.say_of_program(Level::Debug, "hook-failed", name, message),
        }
    }

    fn say_cut_short(&mut self, name: &str, missed: u64) {
        let message = format!(
            "{name}: killed, and {missed} more events not told: programs have {} when all workers have gone",
            human(super::jobs::LAST)
        );
        self.say_of_program(Level::Warn, "hook-cut", name, message);
    }

    /// What every program of the operator's is told of the cluster.
    pub(super) fn program_variables(&self) -> Vec<(String, Vec<u8>)> {
        let now = self.cluster.generation();
        self.surroundings(now).of_the_cluster(now)
    }
}
