//! Commands that come while the cluster runs: an upgrade of all workers, the way back, and slots that
//! run something else.

use super::clients::ClientId;
use super::reload::Change;
use super::requests::{Answer, behind};
use super::{Shell, ahead, client};
use crate::core::codes::FAILED;
use crate::core::{Event, Hitch, More, Notice, Program, Restart, Target, Terms};
use crate::options::reread;
use crate::settings::{Before, Launch, Said, Settings, launch};
use crate::verbs;
use crate::wire::command::Request;
use crate::wire::outcome;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStrExt;

/// What slots run that do not run what the cluster does.
#[derive(Serialize, Deserialize)]
pub struct Made {
    /// As it was said.
    #[serde(with = "crate::core::carry::paths")]
    pub command: Vec<OsString>,
    /// What is executed,
    #[serde(with = "crate::shell::carry")]
    pub program: CString,
    /// where, if not where the others are,
    #[serde(with = "crate::shell::carry")]
    pub cwd: Option<CString>,
    /// and has it Node's channel?
    pub ipc: bool,
}

/// All of them that are still needed, and what ran before.
#[derive(Default, Serialize, Deserialize)]
pub struct Programs {
    made: BTreeMap<Program, Made>,
    last: u32,
    /// What runs, and what ran before that was something else.
    runs: Option<Ran>,
    before: Option<Ran>,
    /// What has come of the last rollout, if there is nothing of it to be undone, and nobody was told who wanted to
    /// roll it back.
    #[serde(default)]
    in_vain: Option<Vain>,
}

/// A rollout that has left everything as it was.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Vain {
    why: WhyVain,
    /// The generation that ran on. Of what has come by another rollout it says nothing.
    runs: u32,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum WhyVain {
    /// It has failed by itself, to this generation.
    Failed(u32),
    /// It was refused.
    Refused,
}

/// A command, and what was said of its directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Ran {
    #[serde(with = "crate::core::carry::paths")]
    command: Vec<OsString>,
    cwd: Option<String>,
}

impl Programs {
    /// Of a cluster that begins.
    pub fn new(s: &Settings) -> Programs {
        Programs {
            runs: Some(Ran::of(s)),
            ..Programs::default()
        }
    }

    /// What a rollback would return to. While the old workers of an upgrade are drained its command serves already, and
    /// what they run is what was there before.
    fn back(&self, now: &Settings) -> Option<&Ran> {
        let now = Ran::of(now);
        let runs = self.runs.as_ref().filter(|ran| **ran != now);
        runs.or(self.before.as_ref())
    }

    /// Its command.
    pub fn previous(&self, now: &Settings) -> Option<&[OsString]> {
        self.back(now).map(|ran| ran.command.as_slice())
    }

    /// If it is not the cluster's.
    pub fn of(&self, program: Program) -> Option<&Made> {
        self.made.get(&program)
    }

    /// A new one; those that nobody runs are dropped.
    fn add(&mut self, made: Made, needed: impl Fn(Program) -> bool) -> Program {
        self.made.retain(|p, _| needed(*p));
        self.last += 1;
        let program = Program(self.last);
        self.made.insert(program, made);
        program
    }
}

impl Ran {
    fn of(s: &Settings) -> Ran {
        Ran {
            command: s.command.clone(),
            cwd: s.typed_cwd().cloned(),
        }
    }

    /// As much of the command as tells it from others.
    fn shown(&self) -> String {
        /// Characters.
        const MOST: usize = 200;
        let words: Vec<_> = self.command.iter().map(|w| w.to_string_lossy()).collect();
        let all = words.join(" ");
        match all.chars().nth(MOST) {
            Some(_) => format!("{}...", all.chars().take(MOST).collect::<String>()),
            None => all,
        }
    }
}

impl Shell {
    /// A rollout may have come to its end.
    pub(super) fn remember_what_runs(&mut self, notice: &Notice) {
        match notice {
            // All workers are of one generation now: is it another command than before?
            Notice::Reloaded { back: false, .. } => {
                let now = Ran::of(self.settings());
                let p = &mut self.programs;
                p.in_vain = None;
                if p.runs.as_ref() != Some(&now) {
                    p.before = p.runs.replace(now);
                }
            }
            Notice::ReloadFailed {
                generation, hitch, ..
            } => {
                let by_itself = !matches!(hitch, Hitch::CalledOff { .. });
                let why = by_itself.then_some(WhyVain::Failed(*generation));
                self.was_in_vain(why);
            }
            Notice::ReloadRefused { .. } => self.was_in_vain(Some(WhyVain::Refused)),
            _ => {}
        }
    }

    fn was_in_vain(&mut self, why: Option<WhyVain>) {
        let runs = self.cluster.generation();
        self.programs.in_vain = why.map(|why| Vain { why, runs });
    }

    fn launch_of(&self, r: &Request, before: Before) -> Result<(bool, Launch), String> {
        let words: Vec<&str> = behind(r).collect();
        let found = launch(&words, before)?;
        Ok((!verbs::no_wait(&words), found))
    }

    /// Core does it, and answers in the end; or at once, where nobody wants to wait.
    pub(super) fn upgrade(&mut self, id: ClientId, r: &Request) -> Result<(), String> {
        let (wait, found) = self.launch_of(r, Before::Upgrade)?;
        if found.target != Target::All {
            return self.upgrade_one(id, r, wait, &found);
        }
        let client = self.asks(id, r, wait);
        let change = Change {
            command: Some(found.command.into_iter().map(OsString::from).collect()),
            cwd: found
                .cwd
                .map(|dir| Some(dir.to_string_lossy().into_owned())),
            terms: Terms {
                upgrade: true,
                watch: found.watch,
                ready: found.timeout,
                exactly: false,
            },
            ..Change::default()
        };
        self.roll(Some(client), "upgraded by a client", change);
        Ok(())
    }

    /// One worker by one that runs it: core does it, and answers in the end.
    fn upgrade_one(
        &mut self,
        id: ClientId,
        r: &Request,
        wait: bool,
        found: &Launch,
    ) -> Result<(), String> {
        let program = self.add_program(found)?;
        let (asker, by, wait) = self.asks(id, r, wait);
        self.queue.push_back(Event::Restart(Restart {
            asker,
            target: found.target,
            program: Some(program),
            within: found.timeout,
            by,
            wait,
        }));
        Ok(())
    }

    /// One that is to be run.
    fn add_program(&mut self, found: &Launch) -> Result<Program, String> {
        let made = self.make(found)?;
        let (cluster, queue) = (&self.cluster, &self.queue);
        // (Core may not have heard of those that were asked for in this turn.)
        let names = |e: &Event, p: Program| match e {
            Event::Start(more) => more.program == p,
            Event::Restart(wish) => wish.program == Some(p),
            _ => false,
        };
        let asked = |p: Program| queue.iter().any(|e| names(e, p));
        Ok(self.programs.add(made, |p| cluster.runs(p) || asked(p)))
    }

    /// What comes back, if that is what is meant: one who wanted to undo an upgrade that has undone itself in
    /// that moment, or was refused, would lose the version that works.
    fn before(&mut self) -> Result<Ran, String> {
        let Some(before) = self.programs.back(self.settings()).cloned() else {
            return Err("nothing to go back to: no upgrade has reached its end".to_string());
        };
        let runs = self.cluster.generation();
        let in_vain = self.programs.in_vain.take();
        let nothing_to_undo = match in_vain.filter(|v| v.runs == runs).map(|v| v.why) {
            None => return Ok(before),
            Some(WhyVain::Failed(generation)) => {
                format!("generation {generation} has failed and is taken back already")
            }
            Some(WhyVain::Refused) => {
                "the last reload or upgrade was refused and has changed nothing".into()
            }
        };
        Err(format!(
            "not rolled back: {nothing_to_undo}, generation {runs} goes on; another rollback returns to what ran before that: {}",
            before.shown(),
        ))
    }

    /// What is under way is called off; else what ran before comes back.
    pub(super) fn rollback(&mut self, id: ClientId, r: &Request) -> Option<Answer> {
        let words: Vec<&str> = behind(r).collect();
        let wait = !verbs::no_wait(&words);
        if self.cluster.rolls_forward() {
            let (asker, by, _) = self.asks(id, r, wait);
            self.queue.push_back(Event::BackOut { asker, by });
            return None;
        }
        let before = match self.before() {
            Ok(before) => before,
            Err(why) => {
                return Some((FAILED, outcome::refusal(&format!("{why}\n"), r.json)));
            }
        };
        let client = self.asks(id, r, wait);
        let change = Change {
            command: Some(before.command),
            cwd: Some(before.cwd),
            terms: Terms {
                upgrade: true,
                ..Terms::default()
            },
            ..Change::default()
        };
        self.roll(Some(client), "rolled back by a client", change);
        None
    }

    /// What runs is to be exactly what a new start would be.
    pub(super) fn replace(&mut self, id: ClientId, r: &Request) -> Result<(), String> {
        let (wait, found) = self.launch_of(r, Before::Replace)?;
        let here = found.cwd.unwrap_or_default();
        let typed = found.options.iter().map(|o| reread::said(o));
        let typed: Vec<Said> = typed.collect::<Result<_, _>>()?;
        let command = found.command.into_iter().map(OsString::from).collect();
        let now = self.settings();
        let read = |file: &str| client::read_options_again(&here.join(file));
        let settings = reread::replaced(now, typed, here.clone(), command, &read)?;
        let client = self.asks(id, r, wait);
        let change = Change {
            settings: Some(Box::new(settings)),
            terms: Terms {
                upgrade: true,
                exactly: true,
                ..Terms::default()
            },
            ..Change::default()
        };
        self.roll(Some(client), "replaced by a new start", change);
        Ok(())
    }

    /// Slots are added that run it.
    pub(super) fn start(&mut self, id: ClientId, r: &Request) -> Result<(), String> {
        let (wait, found) = self.launch_of(r, Before::Start)?;
        let program = self.add_program(&found)?;
        let (asker, by, wait) = self.asks(id, r, wait);
        self.queue.push_back(Event::Start(More {
            asker,
            count: found.count,
            program,
            ready: found.timeout,
            by,
            wait,
        }));
        Ok(())
    }

    /// Is it there, and can it be executed?
    fn make(&self, found: &Launch) -> Result<Made, String> {
        let recipe = self.recipe(self.cluster.generation());
        let command: Vec<OsString> = found.command.iter().map(OsString::from).collect();
        let mut settings = recipe.settings.clone();
        settings.command.clone_from(&command);
        settings.cwd = found.cwd.clone().or(settings.cwd);
        let here = &recipe.settings.sources.here;
        let (cwd, program) =
            ahead::with_their_eyes(&settings, &recipe.rights, here).map_err(|(_, why)| why)?;
        let ipc = ahead::speaks_node(&settings, &program, &cwd);
        let dir = CString::new(cwd.as_os_str().as_bytes()).unwrap_or_default();
        Ok(Made {
            command,
            program,
            cwd: found.cwd.as_ref().map(|_| dir),
            ipc,
        })
    }
}
