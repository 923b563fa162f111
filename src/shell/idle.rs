//! Connections on which nothing moves are ended from outside (--idle-timeout). Which, and when it is
//! looked again, is told in `wire::idle`; here it is done:
//!
//! 1. It is looked, by one question to the kernel, which knows of all connections how long each is silent.
//!    Nothing is kept open or asked from one look to the next.
//! 2. Whose the silent ones are is looked for only if there are any: all descriptors of all workers, so
//!    many in a turn, and in the next turn those that follow. Each is ended where it is found, if it is
//!    silent still.
//! 3. Where that cannot work it is said as soon as there is a worker on whom it can be tried, and what to
//!    add; and then it is not looked at all.

use super::census::{Orphans, roots};
use super::observer::{self, Ended, Observer};
use super::{Kind, Shell, unseen};
use crate::core::fields::Value;
use crate::core::words::{count, human, reason};
use crate::core::{Level, SlotNr, Time, WorkerId};
use crate::sys::burden;
use crate::sys::procfs::{self, Listing, Target};
use crate::sys::{closer, errno_of, guise, pidfd};
use crate::wire::idle::{Due, Silences};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// So many descriptors are looked at in one turn, some milliseconds' worth,
const LOOKS: usize = 2048;
/// and so many connections are ended in one.
const ENDS: usize = 256;

/// So many files of /proc are read in one turn to find what a worker has started, some ten milliseconds' worth.
const MOST_FILES: usize = 2048;

/// What is known of them.
#[derive(Default, Serialize, Deserialize)]
pub struct Idling {
    #[serde(skip)]
    observer: Observer,
    #[serde(skip)]
    silences: Silences,
    /// The next look. `None`: none is asked for, or it cannot work.
    next: Option<Time>,
    /// Those that were found silent, and where they are looked for.
    #[serde(skip)]
    hunt: Option<Hunt>,
    /// Has it been tried on a worker of this generation?
    tried: Option<u32>,
    /// It cannot work.
    refused: bool,
    /// So many were ended, by worker while it lives,
    ended: BTreeMap<WorkerId, u64>,
    /// and by slot.
    of_slots: BTreeMap<SlotNr, u64>,
}

/// A search for those who have the silent ones.
struct Hunt {
    limit: Duration,
    /// By the inodes of their sockets.
    due: BTreeMap<u64, Due>,
    /// Where they are looked for.
    processes: VecDeque<(WorkerId, i32)>,
    /// After the first processes of workers: those whose descendants are still to be looked for, which takes
    /// a look at each thread, and which most have none of;
    others: VecDeque<(WorkerId, i32)>,
    /// and what was left behind, by their groups. `None`: it has not come to that.
    orphans: Option<Orphans>,
    /// The one whose descriptors are read.
    open: Option<Open>,
    /// So many were ended.
    ended: BTreeMap<WorkerId, usize>,
    /// Why some could not be.
    denied: Option<io::Error>,
}

/// A process.
struct Open {
    worker: WorkerId,
    listing: Listing,
    held: OwnedFd,
}

/// What one turn of it has come to.
enum Step {
    /// There is more to do.
    More,
    /// Nothing is left to be found, or nowhere to look.
    Over,
}

impl Idling {
    /// When it is looked again.
    pub fn deadline(&self) -> Option<Time> {
        // While one is hunted for the next turn comes at once.
        self.next.filter(|_| self.hunt.is_none())
    }

    /// How many connections of that one were ended.
    pub fn ended(&self, worker: WorkerId) -> u64 {
        self.ended.get(&worker).copied().unwrap_or(0)
    }

    /// The same of all workers that slots have had.
    pub fn by_slot(&self) -> BTreeMap<SlotNr, u64> {
        self.of_slots.clone()
    }

    /// It has gone.
    pub fn forget(&mut self, worker: WorkerId) {
        self.ended.remove(&worker);
    }

    /// It is not asked for, or cannot work.
    fn rest(&mut self) {
        (self.next, self.hunt) = (None, None);
        self.silences = Silences::default();
        self.observer.rest();
    }
}

impl Shell {
    /// Is it time to look, or to go on with what was found?
    pub(super) fn idle_due(&mut self) {
        let Some(limit) = self.settings().idle_timeout else {
            if self.idling.next.is_some() {
                self.idling.rest();
            }
            return;
        };
        self.try_to_end();
        if self.idling.refused {
            return;
        }
        if let Some(hunt) = self.idling.hunt.take() {
            return self.go_on(hunt);
        }
        let now = self.now();
        // It was asked for just now: nothing is open yet, or has been for some time.
        if self.idling.next.is_none_or(|at| at <= now) {
            self.look_idle(limit, now);
        }
    }

    /// Can connections of workers be ended from outside? A copy of a descriptor of one is all it takes,
    /// and all that may be refused.
    fn try_to_end(&mut self) {
        let runs = self.procs.map.values();
        let mut runs = runs.filter(|p| p.report.is_none());
        let Some((pid, generation)) = runs.find_map(|p| Some((p.pid?, p.generation))) else {
            return;
        };
        if self.idling.tried.is_some_and(|g| g >= generation) {
            return;
        }
        self.idling.tried = Some(generation);
        let tried = {
            let _worn = self.to_look();
            unseen::copy_of(pid, 0)
        };
        let why = match tried {
            Err(e) if is_refusal(&e) => Some(refusal(&e)),
            _ if !procfs::is_ours() => {
                Some("whose a connection is cannot be seen: there is no /proc of this pid namespace; mount one (unshare --mount-proc)".to_string())
            }
            // One that has just gone, or has no such descriptor, could have been asked.
            Ok(_) | Err(_) => None,
        };
        self.idling.refused = why.is_some();
        match why {
            Some(why) => {
                self.idling.rest();
                self.say_hands_off("", &why);
            }
            None if !self.sockets.unix_names().is_empty() => {
                let message = "the kernel tells no idle times of unix sockets: --idle-timeout ends connections of TCP alone".to_string();
                self.say_once(Level::Warn, "idle-unix", message);
            }
            None => {}
        }
    }

    /// On all of them, or on some.
    fn say_hands_off(&mut self, what: &str, why: &str) {
        let message = format!(
            "--idle-timeout has no effect{what}: {why}; --keepalive and --user-timeout still end connections whose clients are gone"
        );
        match what {
            "" => self.say_once(Level::Warn, "idle-hands-off", message),
            _ => self.say_once(Level::Warn, "idle-denied", message),
        }
    }

    fn look_idle(&mut self, limit: Duration, now: Time) {
        let ports = self.sockets.numbers();
        let looked = self.idling.observer.connections(&ports);
        self.idling.observer.rest();
        let conns = match looked {
            Ok(conns) => self.without_ours(conns),
            Err(e) => {
                let message = format!(
                    "cannot see the workers' connections (sock_diag: {}): --idle-timeout has no effect while that is so",
                    reason(&e)
                );
                self.say_once(Level::Warn, "idle-blind", message);
                Vec::new()
            }
        };
        let (due, next) = self.idling.silences.look(&conns, limit, now);
        self.idling.next = Some(next);
        if due.is_empty() {
            return;
        }
        let firsts = self.procs.map.iter();
        let hunt = Hunt {
            limit,
            due: due.into_iter().map(|d| (d.inode, d)).collect(),
            processes: firsts.filter_map(|(w, p)| Some((*w, p.pid?))).collect(),
            others: VecDeque::new(),
            orphans: None,
            open: None,
            ended: BTreeMap::new(),
            denied: None,
        };
        self.go_on(hunt);
    }

    /// As far as it goes in one turn.
    fn go_on(&mut self, mut hunt: Hunt) {
        let step = {
            let _worn = self.to_look();
            hunt.step(&mut self.idling.silences)
        };
        match step {
            Step::More => {
                self.idling.hunt = Some(hunt);
                self.ready.insert((Kind::Idle, 0));
            }
            Step::Over if !hunt.due.is_empty() && self.descend(&mut hunt) => {
                self.idling.hunt = Some(hunt);
                self.ready.insert((Kind::Idle, 0));
            }
            Step::Over => self.hunted(hunt),
        }
    }

    /// Goes on with what the next worker has started. False: there is none.
    fn descend(&mut self, hunt: &mut Hunt) -> bool {
        let all = self.procs.map.iter();
        let orphans = hunt.orphans.get_or_insert_with(|| {
            hunt.others = all.filter_map(|(w, p)| Some((*w, p.pid?))).collect();
            self.orphans()
        });
        let Some((worker, pid)) = hunt.others.pop_front() else {
            return false;
        };
        let mut left = MOST_FILES;
        let tree = burden::tree(roots(pid, orphans), &mut left);
        let cut = tree.is_none() && procfs::parent_of(pid).is_some();
        let all = tree.into_iter().flat_map(|t| t.pids);
        let others = all.filter(|other| *other != pid);
        hunt.processes.extend(others.map(|pid| (worker, pid)));
        if cut {
            let message = format!(
                "a worker has more processes and threads than are looked at (limit {MOST_FILES}): silent connections that its descendants have are not ended"
            );
            self.say_once(Level::Warn, "idle-cut", message);
        }
        true
    }

    fn hunted(&mut self, hunt: Hunt) {
        let now = self.now();
        for due in hunt.due.values() {
            self.idling.silences.failed(due, hunt.limit, now);
        }
        if let Some(e) = &hunt.denied {
            self.say_hands_off(" on some connections", &refusal(e));
        }
        for (worker, n) in hunt.ended {
            self.say_ended(worker, n, hunt.limit);
        }
    }

    fn say_ended(&mut self, worker: WorkerId, n: usize, limit: Duration) {
        let Some(who) = self.cluster.fleet().who(worker) else {
            return;
        };
        let Idling {
            ended, of_slots, ..
        } = &mut self.idling;
        for count in [
            ended.entry(worker).or_default(),
            of_slots.entry(who.slot).or_default(),
        ] {
            *count = count.saturating_add(n as u64);
        }
        let number = |n: String| Value::Number(n);
        let pid = who.pid.map(|pid| ("pid", number(pid.to_string())));
        let fields = [("slot", number(who.slot.to_string()))].into_iter();
        let counts = [
            ("connections", number(n.to_string())),
            ("limit", number(format!("{:.3}", limit.as_secs_f64()))),
        ];
        let fields = fields.chain(pid).chain(counts).collect();
        let message = format!(
            "{who}: ended {} without a byte for {} (--idle-timeout)",
            count(n, "connection"),
            human(limit)
        );
        let line = (self.log).own(Level::Debug, "connection-timeout", fields, message);
        self.publish(line);
    }
}

impl Hunt {
    fn step(&mut self, silences: &mut Silences) -> Step {
        let (mut looks, mut copies) = (LOOKS, Vec::new());
        let step = loop {
            if self.due.is_empty() {
                break Step::Over;
            }
            if looks == 0 || copies.len() >= ENDS {
                break Step::More;
            }
            let Some(mut open) = self.next() else {
                break Step::Over;
            };
            let most = looks.min(ENDS);
            let (list, more) = open.listing.some(most);
            looks -= most;
            for (fd, target) in list {
                let Target::Socket(inode) = target else {
                    continue;
                };
                let Some(due) = self.due.get(&inode).copied() else {
                    continue;
                };
                let process = (open.listing.pid, open.held.as_fd());
                let what = (inode, self.limit, due.how);
                match observer::end_silent(process, fd, what, &mut copies) {
                    Ok(Ended::Done) => {
                        self.due.remove(&inode);
                        if due.is_first() {
                            *self.ended.entry(open.worker).or_default() += 1;
                        }
                    }
                    Ok(Ended::Moved) => {
                        self.due.remove(&inode);
                        silences.moved(&due);
                    }
                    // Another descriptor may be it.
                    Ok(Ended::Gone) => {}
                    Err(e) if is_refusal(&e) => self.denied = Some(e),
                    Err(_) => {}
                }
            }
            if more {
                self.open = Some(open);
            }
        };
        closer::all(copies);
        step
    }

    /// Whose descriptors are read next.
    fn next(&mut self) -> Option<Open> {
        if let Some(open) = self.open.take() {
            return Some(open);
        }
        loop {
            let (worker, pid) = self.processes.pop_front()?;
            match (Listing::of(pid), pidfd::open(pid)) {
                (Some(listing), Ok(held)) => {
                    return Some(Open {
                        worker,
                        listing,
                        held,
                    });
                }
                (_, Err(e)) if is_refusal(&e) => self.denied = Some(e),
                (_, _) => {}
            }
        }
    }
}

fn is_refusal(e: &io::Error) -> bool {
    matches!(errno_of(e), libc::EPERM | libc::EACCES | libc::ENOSYS)
}

/// Why, and what to add.
fn refusal(e: &io::Error) -> String {
    let what = format!(
        "connections of workers cannot be ended from outside (pidfd_getfd: {})",
        reason(e)
    );
    let add = match (errno_of(e), guise::capable(guise::SYS_PTRACE)) {
        (libc::ENOSYS, _) => "it takes Linux 5.6, and a sandbox that lets it pass",
        (_, true) => {
            "a seccomp profile or a security module (Yama: kernel.yama.ptrace_scope 0 or 1) forbids it although CAP_SYS_PTRACE is here"
        }
        (_, false) => {
            "add CAP_SYS_PTRACE (docker run --cap-add SYS_PTRACE; Kubernetes: securityContext.capabilities.add [\"SYS_PTRACE\"])"
        }
    };
    format!("{what}: {add}")
}
