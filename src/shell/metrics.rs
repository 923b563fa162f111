//! What `/metrics` takes that core does not know: what the workers use, their queues and connections, and
//! ourselves. Read when somebody asks, and at no other time. Rules:
//!
//! 1. Workers are looked at one after the other, for so long in a turn: a thousand of them must not hold up
//!    those who wait for something else. Whoever has asked waits for the last of them; of few there is no
//!    wait.
//! 2. In all there is a limit, too: what there is no room for is left out.
//! 3. Whoever asks again soon gets the same readings: anybody may ask, and nobody may keep us busy with
//!    it. They are kept for as long as they are worth it, by what they took; so is the page made of them,
//!    which has what is counted as well, but that is a matter of milliseconds.

use super::Shell;
use super::census::{Orphans, roots};
use super::clients::{Body, ClientId};
use super::output::Output;
use super::spent::Spent;
use crate::core::{SlotNr, Time, WorkerId};
use crate::sys::burden::{self, Tree};
use crate::sys::{clock, fds, process, procfs};
use crate::wire::http::response::Response;
use crate::wire::metrics::{self, Own, Queue, Reading, Usage};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// For so long workers are looked at in one turn, and at least at one.
const STEP: Duration = Duration::from_millis(2);
/// So many files of /proc are read for one of them, some tens of milliseconds' worth,
const MOST_OF_ONE: usize = 8 * 1024;
/// and so many for all of them together.
const MOST_FILES: usize = 64 * 1024;
/// Readings, and the page, are kept so many times as long as they took: a twentieth of our time at most.
const WORTH: u32 = 20;
/// The clock of the machine was set if it is off by more than that; less is how one reads two clocks.
const SET: u64 = 1_000_000;

/// What was read last, and what has to be kept.
#[derive(Default, Serialize, Deserialize)]
pub struct Metrics {
    pub spent: Spent,
    #[serde(skip)]
    walk: Option<Walk>,
    /// Who has asked, and waits for the end of that.
    #[serde(skip)]
    waiting: Vec<ClientId>,
    #[serde(skip)]
    read_at: Option<Time>,
    #[serde(skip)]
    took: Duration,
    #[serde(skip)]
    usage: BTreeMap<WorkerId, Usage>,
    #[serde(skip)]
    open: BTreeMap<WorkerId, u64>,
    #[serde(skip)]
    queues: Vec<Queue>,
    #[serde(skip)]
    page: Option<Page>,
    /// When the time of ours began, in microseconds since 1970.
    epoch: u64,
}

/// The last one.
struct Page {
    made_at: Time,
    took: Duration,
    /// Its head, and itself.
    answer: (Response, Rc<[u8]>),
}

/// On the way from one worker to the next.
struct Walk {
    todo: VecDeque<WorkerId>,
    /// So many files may still be read.
    budget: usize,
    /// Those whose parents have gone, by their groups.
    orphans: Orphans,
    /// The connections that there are; `None`: that cannot be seen.
    inodes: Option<BTreeSet<u64>>,
    took: Duration,
    usage: BTreeMap<WorkerId, Usage>,
    open: BTreeMap<WorkerId, u64>,
}

impl Metrics {
    /// Are there workers to be looked at still?
    pub fn reads(&self) -> bool {
        self.walk.is_some()
    }

    /// Nobody has asked for some time: gives back what can be made again.
    pub fn rest(&mut self) {
        self.page = None;
    }

    /// What time it is, in microseconds since 1970; by our own clock, so that what happened once does not
    /// seem to have happened at another time at the next look.
    fn wall(&mut self, now: Time) -> u64 {
        let (secs, micros) = clock::wall();
        let wall = secs.saturating_mul(1_000_000).saturating_add(micros.into());
        let epoch = wall.saturating_sub(now.0 / 1000);
        if epoch.abs_diff(self.epoch) > SET {
            self.epoch = epoch;
        }
        self.epoch.saturating_add(now.0 / 1000)
    }

    fn is_fresh(&self, now: Time) -> bool {
        let kept = self.took.saturating_mul(WORTH);
        self.read_at.is_some_and(|at| now - at < kept)
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

impl Shell {
    /// It is answered when all workers were looked at.
    pub(super) fn metrics(&mut self, id: ClientId) {
        let now = self.now();
        if !self.metrics.reads() && !self.metrics.is_fresh(now) {
            self.begin_reading(now);
            self.read_some();
        }
        if self.metrics.reads() {
            self.metrics.waiting.push(id);
            self.clients.patient(id);
            return;
        }
        let page = self.metrics_page();
        self.send_metrics(id, &page);
    }

    /// The same for all who have asked: one who does not read it has no other one of it.
    fn send_metrics(&mut self, id: ClientId, (head, body): &(Response, Rc<[u8]>)) {
        if let Some((_, way)) = self.clients.take_asked(id) {
            let body = Body::of_page(body.clone(), self.now());
            self.send_page(id, head, way, body);
        }
    }

    /// Some more of the workers; and after the last of them whoever has waited is answered.
    pub(super) fn read_on(&mut self) {
        if !self.metrics.reads() {
            return;
        }
        self.read_some();
        if self.metrics.reads() {
            return;
        }
        let page = self.metrics_page();
        for id in std::mem::take(&mut self.metrics.waiting) {
            self.clients.waited(id, self.now());
            self.send_metrics(id, &page);
        }
    }

    fn begin_reading(&mut self, begun: Time) {
        let inodes = self.all_connections().ok();
        // (A reload may go on for long, and its workers are seen to have what they have.)
        if !self.cluster.drains() {
            self.census.rest();
        }
        self.metrics.walk = Some(Walk {
            todo: self.procs.map.keys().copied().collect(),
            budget: MOST_FILES,
            orphans: self.orphans(),
            inodes,
            took: self.now() - begun,
            usage: BTreeMap::new(),
            open: BTreeMap::new(),
        });
    }

    fn read_some(&mut self) {
        let Some(mut walk) = self.metrics.walk.take() else {
            return;
        };
        let begun = self.now();
        while let Some(worker) = walk.todo.pop_front() {
            self.read_one(worker, &mut walk);
            if self.now() - begun >= STEP {
                break;
            }
        }
        walk.took += self.now() - begun;
        if !walk.todo.is_empty() {
            self.metrics.walk = Some(walk);
            return;
        }
        let begun = self.now();
        self.metrics.queues = self.read_queues();
        let now = self.now();
        (self.metrics.usage, self.metrics.open) = (walk.usage, walk.open);
        self.metrics.took = walk.took + (now - begun);
        self.metrics.read_at = Some(now);
    }

    fn read_one(&mut self, worker: WorkerId, walk: &mut Walk) {
        let Some(pid) = self.procs.map.get(&worker).and_then(|p| p.pid) else {
            return;
        };
        let most = walk.budget.min(MOST_OF_ONE);
        let mut left = most;
        let tree = burden::tree(roots(pid, &walk.orphans), &mut left);
        walk.budget -= most - left;
        let Some(tree) = tree else {
            return;
        };
        let usage = Usage {
            resident: tree.resident,
            processes: tree.pids.len() as u64,
            threads: tree.threads,
        };
        walk.usage.insert(worker, usage);
        // (What is missing for a moment would be counted again when it is back.)
        let slot = self.cluster.fleet().get(worker).map(|w| w.slot);
        if let Some(slot) = slot.filter(|_| tree.whole) {
            self.metrics.spent.read(worker, slot, tree.cpu);
        }
        let open = walk
            .inodes
            .as_ref()
            .and_then(|i| self.has_open(worker, tree, i));
        walk.open.extend(open.map(|n| (worker, n)));
    }

    /// How many of these it has, if that can be seen. One that several workers have is that of each.
    fn has_open(&self, worker: WorkerId, tree: Tree, inodes: &BTreeSet<u64>) -> Option<u64> {
        if inodes.is_empty() {
            return Some(0);
        }
        let owners = self.owners_in(&[(worker, tree.pids)], inodes);
        let seen = !owners.cut && owners.unseen.is_empty();
        seen.then_some(owners.of.len() as u64)
    }

    /// Those that some process has.
    fn all_connections(&mut self) -> io::Result<BTreeSet<u64>> {
        let conns = self.clients()?;
        let held = self.held(conns)?;
        Ok(held.into_iter().map(|h| h.inode).collect())
    }

    /// By port and slot: a port may have several for one slot, of which one is being emptied.
    pub(super) fn read_queues(&mut self) -> Vec<Queue> {
        let unix = match self.sockets.has_unix() {
            true => self.census.unix_queues().unwrap_or_default(),
            false => BTreeMap::new(),
        };
        let slots = self.cluster.slots_of_lanes();
        let mut all: BTreeMap<(String, Option<SlotNr>), (u64, u64)> = BTreeMap::new();
        for (lane, addr, (length, limit)) in self.sockets.queues(&unix) {
            let key = (addr.to_string(), slots.get(&lane).copied());
            let sum = all.entry(key).or_default();
            *sum = (sum.0 + u64::from(length), sum.1 + u64::from(limit));
        }
        let queue = |((port, slot), (length, limit))| Queue {
            port,
            slot,
            length,
            limit,
        };
        all.into_iter().map(queue).collect()
    }

    fn metrics_page(&mut self) -> (Response, Rc<[u8]>) {
        let begun = self.now();
        let fresh = |p: &&Page| begun - p.made_at < p.took.saturating_mul(WORTH);
        if let Some(page) = self.metrics.page.as_ref().filter(fresh) {
            return page.answer.clone();
        }
        let mut head = self.make_page(begun);
        let body: Rc<[u8]> = std::mem::take(&mut head.body).into();
        let answer = (head, body);
        let made_at = self.now();
        self.metrics.page = Some(Page {
            made_at,
            took: made_at - begun,
            answer: answer.clone(),
        });
        self.grown = true;
        answer
    }

    fn make_page(&mut self, now: Time) -> Response {
        let cluster = self.cluster.glance(now);
        let wall = self.metrics.wall(now);
        let (cpu, resident, size) = burden::own();
        let own = Own {
            cpu,
            resident,
            size,
            // (Without /proc it would be those of the first numbers alone.)
            open_fds: procfs::is_ours().then(fds::count),
            max_fds: process::nofile().map(|(soft, _)| soft),
            started: wall.saturating_sub(micros(cluster.up)),
        };
        let m = &self.metrics;
        let reading = Reading {
            name: &self.claim.name,
            cluster,
            counts: self.cluster.counts(),
            quorum: self.settings().ready_quorum,
            now: wall,
            cpu: m.spent.all(),
            usage: self.by_slot(&m.usage, Usage::join),
            queues: &m.queues,
            connections: self.by_slot(&m.open, u64::saturating_add),
            ended: self.served.ended_by_slot(self.told_apart()),
            timeouts: (self.settings().idle_timeout).map(|_| self.idling.by_slot()),
            clients: self.clients.by_door(),
            followers: self.clients.followers().len() as u64,
            events: self.events.counts(),
            lines_lost: self.log.lost_ever(),
            output_lost: self.output.as_ref().map(Output::lost_ever),
            took: micros(m.took),
            own,
        };
        metrics::answer(&reading)
    }

    /// What is known of workers, for the slots that they are of. (A slot may have several, during a reload.)
    fn by_slot<T: Copy>(
        &self,
        of: &BTreeMap<WorkerId, T>,
        join: impl Fn(T, T) -> T,
    ) -> BTreeMap<SlotNr, T> {
        let mut all: BTreeMap<SlotNr, T> = BTreeMap::new();
        for w in self.cluster.fleet().iter().filter(|w| w.unreaped()) {
            if let Some(new) = of.get(&w.id).copied() {
                let sum = all.get(&w.slot).map_or(new, |old| join(*old, new));
                all.insert(w.slot, sum);
            }
        }
        all
    }
}
