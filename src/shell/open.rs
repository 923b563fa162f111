//! The workers' connections at one moment, for whoever asks: who has how many, for how long nothing has
//! moved on them, who waits. Nothing is looked at between one question and the next.

use super::Shell;
use super::census::{Orphans, roots};
use super::ending::{Held, What};
use super::observer::{Observer, Owners};
use crate::core::WorkerId;
use crate::core::status::SlotView;
use crate::sys::burden::{self, Tree};
use crate::sys::procfs;
use crate::wire::debt::silent_ms;
use crate::wire::traffic::{Seen, Traffic};
use crate::wire::untouched;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

/// So many files of /proc are read for one worker, some ten milliseconds' worth: a few for each process, and one
/// for each thread that may have started some;
const MOST_OF_ONE: usize = 4096;
/// and so many for all of them.
const MOST: usize = 16 * 1024;

/// Who has which connections.
pub(super) struct Open {
    of: BTreeMap<WorkerId, Seen>,
    /// Of these it cannot be seen.
    unseen: BTreeSet<WorkerId>,
    /// Those that no worker has accepted yet,
    pub waiting: u64,
    /// that nobody has who is a worker,
    pub others: u64,
    /// and all that are accepted.
    pub all: u64,
}

impl Open {
    /// Of this one, if that can be seen.
    pub fn of_worker(&self, worker: WorkerId) -> Option<Seen> {
        match self.unseen.contains(&worker) {
            true => None,
            false => Some(self.of.get(&worker).copied().unwrap_or_default()),
        }
    }
}

/// The processes of workers, and what they use.
#[derive(Default)]
pub(super) struct Burdens {
    of: BTreeMap<WorkerId, Tree>,
    /// Of these it is the first process alone: they have too many, or too many threads.
    partly: BTreeSet<WorkerId>,
}

/// What is seen of workers from outside.
#[derive(Default)]
pub(super) struct Theirs {
    burdens: Burdens,
    open: Option<Open>,
    queues: Option<BTreeMap<WorkerId, u64>>,
}

impl Theirs {
    /// How many are accepted, wait to be, and are nobody's; if that can be seen.
    pub fn open(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    /// Resident bytes and CPU milliseconds of that one.
    pub fn usage(&self, worker: WorkerId) -> Option<(u64, u64)> {
        let tree = self.burdens.of.get(&worker)?;
        Some((tree.resident, tree.cpu / 1000))
    }
}

/// What a worker's processes use, and whether these are all of them: else it is its first one alone.
pub(super) fn burden_of(pid: i32, orphans: &Orphans, left: &mut usize) -> Option<(Tree, bool)> {
    let most = MOST_OF_ONE.min(*left);
    let mut rest = most;
    let tree = burden::tree(roots(pid, orphans), &mut rest);
    *left -= most - rest.min(most);
    if let Some(tree) = tree {
        return Some((tree, true));
    }
    let (resident, ms) = procfs::usage(pid)?;
    let tree = Tree {
        pids: vec![pid],
        resident,
        cpu: ms.saturating_mul(1000),
        ..Tree::default()
    };
    Some((tree, false))
}

impl Shell {
    /// What they use, as it is now.
    pub(super) fn burdens(&self) -> Theirs {
        let (orphans, mut left) = (self.orphans(), MOST);
        let mut burdens = Burdens::default();
        for (worker, p) in &self.procs.map {
            let Some(pid) = p.pid else { continue };
            let Some((tree, all)) = burden_of(pid, &orphans, &mut left) else {
                continue;
            };
            burdens.of.insert(*worker, tree);
            if !all {
                burdens.partly.insert(*worker);
            }
        }
        Theirs {
            burdens,
            ..Theirs::default()
        }
    }

    /// That, and their connections; or why these cannot be seen.
    pub(super) fn traffic(&mut self) -> (Theirs, Option<io::Error>) {
        let mut all = self.burdens();
        let open = self.open_connections(&all.burdens);
        all.queues = Some(self.own_queues());
        match open {
            Ok(open) => {
                all.open = Some(open);
                (all, None)
            }
            Err(e) => (all, Some(e)),
        }
    }

    /// Of that one.
    pub(super) fn of_slot(&self, view: &SlotView, seen: &Theirs) -> Traffic {
        let Some(worker) = view.pid.and_then(|p| self.procs.by_pid(p.0)) else {
            return Traffic::default();
        };
        let limit = self.settings().idle_timeout;
        Traffic {
            seen: seen.open.as_ref().and_then(|o| o.of_worker(worker)),
            queue: seen.queues.as_ref().and_then(|q| q.get(&worker).copied()),
            tally: self.served.of(worker, self.told_apart()),
            timeouts: limit.map(|_| self.idling.ended(worker)),
        }
    }

    /// Those that there are at this moment. An observer of its own: those who drain, or look who hangs,
    /// have theirs.
    fn open_connections(&mut self, burdens: &Burdens) -> io::Result<Open> {
        let ports = self.sockets.numbers();
        let tcp = Observer::default().connections(&ports)?;
        let tcp = self.without_ours(tcp);
        let waiting = tcp.iter().filter(|c| untouched::waits(c)).count();
        let now = self.now();
        self.ages.see(&tcp, now);
        let held = self.held(tcp)?;
        let inodes: BTreeSet<u64> = held.iter().map(|h| h.inode).collect();
        let all: Vec<WorkerId> = self.procs.map.keys().copied().collect();
        let mut owners = match procfs::is_ours() && !inodes.is_empty() {
            true => {
                let trees = burdens.of.iter().map(|(w, t)| (*w, t.pids.clone()));
                self.owners_in(&trees.collect::<Vec<_>>(), &inodes)
            }
            false => Owners::default(),
        };
        if !inodes.is_empty() {
            owners.unseen.extend(&burdens.partly);
        }
        let blind = owners.cut || !procfs::is_ours() && !inodes.is_empty();
        let mut of: BTreeMap<WorkerId, Seen> = BTreeMap::new();
        for one in &held {
            let list = owners.of.get(&one.inode).into_iter().flatten();
            // One that several workers have is that of each of them.
            let its: BTreeSet<WorkerId> = list.map(|o| o.worker).collect();
            let (silent, age) = self.times(one);
            for worker in its {
                let seen = of.entry(worker).or_default();
                seen.open += 1;
                seen.silent = seen.silent.max(silent);
                seen.oldest = seen.oldest.max(age);
            }
        }
        Ok(Open {
            of,
            unseen: match blind {
                true => all.into_iter().collect(),
                false => owners.unseen,
            },
            waiting: waiting as u64,
            others: inodes.len().saturating_sub(owners.of.len()) as u64,
            all: inodes.len() as u64,
        })
    }

    /// For how long nothing has moved on it, and how old it is at least.
    fn times(&self, held: &Held) -> (Option<Duration>, Option<Duration>) {
        match &held.what {
            What::Tcp(c) => (
                Some(Duration::from_millis(silent_ms(c).into())),
                Some(self.ages.of(c, self.now())),
            ),
            What::Unix { .. } => (None, None),
        }
    }

    /// How many wait in the queues that are one worker's alone.
    pub(super) fn own_queues(&self) -> BTreeMap<WorkerId, u64> {
        let mut all: BTreeMap<WorkerId, u64> = BTreeMap::new();
        for (lane, length) in self.sockets.lengths() {
            if let Some(worker) = self.cluster.server_of(lane) {
                *all.entry(worker).or_default() += u64::from(length);
            }
        }
        all
    }
}
