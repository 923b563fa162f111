//! Every worker that still has a process, by id.

use super::ids::{Pid, Program, SlotNr, Time, WorkerId};
use super::lane::Reader;
use super::notice::Who;
use super::policy::ReadyRule;
use super::worker::{State, Worker};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The living, and those whose first process has gone but left others.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Fleet {
    workers: BTreeMap<WorkerId, Worker>,
    next: u64,
}

impl Fleet {
    /// A new worker, to be spawned for this slot.
    pub fn enlist(&mut self, slot: SlotNr, reader: Reader, watched: bool, now: Time) -> WorkerId {
        self.next += 1;
        let id = WorkerId(self.next);
        let worker = Worker {
            id,
            slot,
            generation: reader.generation,
            seat: reader.seat,
            program: Program::default(),
            ready_limit: None,
            pid: None,
            state: State::Spawning,
            born: now,
            ready_since: None,
            rule: ReadyRule::Auto,
            listened: None,
            serves: BTreeSet::new(),
            accepts: false,
            made_room_for: None,
            said_ready: false,
            pinged: None,
            stands: None,
            untouched: false,
            at_rest_asked: false,
            last_moments: false,
            last_looks: 0,
            again: 0,
            own_time: None,
            looked: 0,
            announced: false,
            share: 1.0,
            tree_gone: false,
            watched,
            adopted: false,
            finished: None,
            stuck: false,
            why_not: None,
            hint: None,
            asked: 0,
            is_asked: false,
            answer: None,
            open: 0,
            closed: 0,
            ended: 0,
            owns: BTreeSet::new(),
            rest_killed: false,
        };
        self.workers.insert(id, worker);
        id
    }

    /// `None`: the news is stale.
    pub fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.get(&id)
    }

    /// `None`: the news is stale.
    pub fn get_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers.get_mut(&id)
    }

    /// Drops it; its id is never used again.
    pub fn strike(&mut self, id: WorkerId) {
        self.workers.remove(&id);
    }

    /// Oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.workers.values()
    }

    /// Oldest first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        self.workers.values_mut()
    }

    /// Ids of those whose first process has not been reaped.
    pub fn unreaped(&self) -> Vec<WorkerId> {
        self.iter().filter(|w| w.unreaped()).map(|w| w.id).collect()
    }

    /// How a message names this worker.
    pub fn who(&self, id: WorkerId) -> Option<Who> {
        self.get(id).map(Worker::who)
    }

    /// Pids of those whose first process has not been reaped.
    pub fn pids(&self) -> Vec<Pid> {
        self.iter()
            .filter(|w| w.unreaped())
            .filter_map(|w| w.pid)
            .collect()
    }
}
