//! What the workers of each generation are made of, and how a reload begins: all is read again first;
//! only if that is right core is asked, and only if core begins a new generation it is kept.

use super::Shell;
use super::reread::{self, Fresh};
use super::rights::Rights;
use super::room::Room;
use crate::core::{Asker, By, Event, Level, Terms};
use crate::settings::Settings;
use crate::sys::{cpus, process};
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};

/// What workers of one generation are made of.
pub struct Recipe {
    /// What the operator said.
    pub settings: Settings,
    /// Whose they are.
    pub rights: Rights,
    /// What they execute,
    pub program: CString,
    /// and where.
    pub cwd: CString,
    /// Do they have Node's channel?
    pub ipc: bool,
}

/// Who wants to hear of the end (or, if it does not wait, at once that it has begun).
pub(super) type Client = (Asker, By, bool);

/// What a rollout changes beside what is read again.
#[derive(Default)]
pub(super) struct Change {
    /// What is run,
    pub command: Option<Vec<OsString>>,
    /// and what is said of the directory, as if it had been typed; `None`: what was.
    pub cwd: Option<Option<String>>,
    /// All of it, and how many workers.
    pub settings: Option<Box<Settings>>,
    /// What is asked for besides.
    pub terms: Terms,
}

/// All of them that are still needed.
pub struct Recipes {
    newest: Recipe,
    of: u32,
    older: BTreeMap<u32, Recipe>,
}

impl Recipes {
    /// The first.
    pub fn new(of: u32, recipe: Recipe) -> Recipes {
        Recipes {
            newest: recipe,
            of,
            older: BTreeMap::new(),
        }
    }

    /// That of a generation.
    pub fn of(&self, generation: u32) -> &Recipe {
        let older = self.older.get(&generation);
        older.unwrap_or(&self.newest)
    }

    /// The newest one, and its settings.
    pub fn newest(&self) -> (u32, &Settings) {
        (self.of, &self.newest.settings)
    }

    /// From now on there is this one, too; of the others those that are still needed.
    fn add(&mut self, of: u32, recipe: Recipe, needed: impl Fn(u32) -> bool) {
        let before = std::mem::replace(&mut self.newest, recipe);
        self.older.insert(self.of, before);
        self.of = of;
        self.older.retain(|g, _| needed(*g));
    }
}

impl Shell {
    /// What workers of this generation are made of.
    pub(super) fn recipe(&self, generation: u32) -> &Recipe {
        self.recipes.of(generation)
    }

    /// What counts now: as of the last reload that reached its end.
    pub(super) fn settings(&self) -> &Settings {
        &self.recipe(self.cluster.generation()).settings
    }

    /// How much room there is for workers as they are now.
    pub(super) fn room(&self) -> Room {
        let now = self.recipe(self.cluster.generation());
        let handed = self.sockets.handed_count();
        Room::of(&now.settings, now.ipc, handed, self.inherited)
    }

    /// So many clients have room beside the workers that there are to be: as those are now, and as a reload makes
    /// them that is under way.
    pub(super) fn room_for_clients(&self) -> usize {
        let wanted = self.cluster.wanted();
        let handed = self.sockets.handed_count();
        let (newest, _) = self.recipes.newest();
        let coming = self.recipe(newest);
        let coming = Room::of(&coming.settings, coming.ipc, handed, self.inherited);
        let now = self.room().clients(wanted);
        match self.cluster.is_alive(newest) {
            true => now.min(coming.clients(wanted)),
            false => now,
        }
    }

    /// Before something is opened for workers: clients were let in while there was room beside fewer of them, or
    /// beside workers that cost less.
    pub(super) fn make_room_for_workers(&mut self) {
        let room = self.room_for_clients();
        let now = self.now();
        let gone = self.clients.too_many(room, now);
        if gone.is_empty() {
            return;
        }
        for id in &gone {
            self.hang_up(*id);
        }
        let message = format!(
            "hung up on {} clients: {} workers leave room for {room} (hard limit of open files {})",
            gone.len(),
            self.cluster.wanted(),
            process::most_files()
        );
        self.say(Level::Info, "clients-dropped", message);
    }

    /// A client, or a signal, wants new workers.
    pub(super) fn reload_for(&mut self, client: Option<Client>, why: &'static str) {
        self.roll(client, why, Change::default());
    }

    /// The same, of what is changed so.
    pub(super) fn roll(&mut self, client: Option<Client>, why: &'static str, change: Change) {
        self.supervisor.reload_asked();
        let now = self.cluster.generation();
        let handed = self.sockets.handed_count();
        let mut now = self.recipe(now).settings.clone();
        let exactly = change.settings.is_some();
        if let Some(settings) = change.settings {
            now = *settings;
        }
        if let Some(command) = change.command {
            now.command = command;
        }
        if let Some(dir) = change.cwd {
            now.retype_cwd(dir);
        }
        let fresh = reread::look(&now, handed);
        let room = |r: &Recipe| Room::of(&r.settings, r.ipc, handed, self.inherited);
        let fresh = fresh.and_then(|f| {
            let mut f = f;
            if exactly {
                f.workers = Some(f.recipe.settings.wanted(cpus::usable()));
            }
            let workers = f.workers.unwrap_or(self.cluster.wanted());
            room(&f.recipe).check(workers).map_err(|(_, why)| why)?;
            Ok((room(&f.recipe).most(), f))
        });
        let with = match fresh {
            Ok((most, fresh)) => {
                let Fresh {
                    recipe,
                    restart,
                    workers,
                } = fresh;
                self.say_restart(&restart);
                if let Some((asker, ..)) = client {
                    self.waiting.keeps(asker, restart);
                }
                // What is of the master core keeps.
                let mut policy = recipe.settings.policy(cpus::usable(), 0, Vec::new());
                policy.most = most;
                policy.workers = workers.unwrap_or(self.cluster.asked_for());
                self.fresh = Some(recipe);
                Ok(Box::new(policy))
            }
            Err(why) => Err(why),
        };
        let (asker, by, wait) = match client {
            Some((asker, by, wait)) => (Some(asker), Some(by), wait),
            None => (None, None, false),
        };
        self.queue.push_back(Event::Reload {
            asker,
            wait,
            by,
            why,
            with,
            terms: change.terms,
        });
        self.settle();
        // Core has not begun one.
        self.fresh = None;
    }

    fn say_restart(&mut self, options: &[String]) {
        if options.is_empty() {
            return;
        }
        let message = format!(
            "{} changed in --config: what is of the master itself stays as it is until that is started again",
            options.join(", ")
        );
        self.say(Level::Warn, "config-kept", message);
    }

    /// What was read is for this generation.
    pub(super) fn new_generation(&mut self, generation: u32) {
        if let Some(recipe) = self.fresh.take() {
            self.log.set_level(recipe.settings.log_level);
            if let Some(output) = &mut self.output {
                output.limit(&recipe.settings);
            }
            let cluster = &self.cluster;
            self.recipes
                .add(generation, recipe, |g| cluster.is_alive(g));
        }
    }
}
