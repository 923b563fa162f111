//! The look at workers that are being emptied: how empty their lanes are, and what they have to do
//! still. In this order, and why: handshakes that were under way when a lane was steered away from, and
//! connections, in one look; then the queues; then connections again, if one waited in a queue; then
//! whose they are. What moves on meanwhile is seen later, or twice, but never not at all.

use super::Shell;
use super::ending::{Endings, Held, What};
use super::observer::{self, Observer, Owner, Owners};
use crate::core::words::{count, reason};
use crate::core::{Event, LaneId, LaneLook, Level, Load, PortId, Sight, Table, WorkerId};
use crate::sys::{clock, procfs, steer};
use crate::wire::ports_filter::Ports;
use crate::wire::sock_diag::Conn;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// The kernel lists more than that in parts, between which a connection can slip through: then two
/// looks have to agree that there is none.
pub(super) const AT_ONCE: usize = 200;
/// Processes whose parents have gone, by their groups.
pub(super) type Orphans = BTreeMap<i32, Vec<i32>>;

/// What is known of those that are being emptied.
#[derive(Default, Serialize, Deserialize)]
pub struct Census {
    #[serde(skip)]
    observer: Observer,
    /// Handshakes under way when the port was last steered, as far as they still are. `None`: not
    /// looked at yet.
    under_way: BTreeMap<PortId, BTreeSet<SocketAddr>>,
    /// Of the last look: connections of each worker that may be ended.
    #[serde(skip)]
    pub(super) theirs: BTreeMap<WorkerId, Vec<(Held, Owner)>>,
    /// Of connections that are ended from outside.
    pub(super) endings: Endings,
    /// Connections that nobody was seen to have, from when nothing new came by the lanes any more.
    /// `None`: it was not looked for them yet.
    nobodys: Option<BTreeSet<u64>>,
    /// Had it none at the last look?
    had_none: BTreeSet<WorkerId>,
    /// Connections cannot be ended from outside.
    pub(super) hands_off: bool,
}

/// The lanes, and the workers.
type Seen = (Vec<LaneLook>, Vec<(WorkerId, Load)>);

impl Census {
    /// All that there are at these ports.
    pub fn connections(&mut self, at: &Ports) -> io::Result<Vec<Conn>> {
        self.observer.connections(at)
    }

    /// The queues of all unix sockets that listen, by inode.
    pub fn unix_queues(&mut self) -> io::Result<BTreeMap<u64, (u32, u32)>> {
        self.observer.unix_queues()
    }

    /// Nobody drains any more: gives back what it holds.
    pub fn rest(&mut self) {
        self.observer.rest();
        self.under_way.clear();
        self.theirs.clear();
        self.endings.rest();
        self.had_none.clear();
        self.nobodys = None;
    }
}

impl Shell {
    /// New connections of the port go there from now on.
    pub(super) fn steer(&mut self, port: PortId, table: &Table) {
        self.census.under_way.remove(&port);
        self.count_anew(port, table);
        self.hung.steered(port);
        if let Err(e) = self.sockets.steer(port, table) {
            let message = format!(
                "cannot steer new connections to the new workers: {}; old and new ones share them",
                reason(&e)
            );
            self.say(Level::Error, "steering-error", message);
        }
        self.say_coarse();
        for lane in table.lanes() {
            self.mend_file(lane);
        }
    }

    /// Nobody comes in any more.
    pub(super) fn refuse_new(&mut self) {
        self.census.under_way.clear();
        if let Err(e) = self.sockets.refuse_new() {
            let message = format!(
                "cannot refuse new connections: {}; those that come while the workers stop may be lost",
                reason(&e)
            );
            self.say(Level::Warn, "refuse-error", message);
        }
    }

    /// Nobody serves it any more.
    pub(super) fn retire_lane(&mut self, lane: LaneId) {
        if let Some(fd) = self.sockets.fd(lane) {
            self.deregister(fd);
        }
        let ours = self.ours.forget(lane);
        match self.sockets.retire(lane).map(|n| n.saturating_sub(ours)) {
            Ok(0) => {}
            Ok(n) => {
                let them = count(n as usize, "connection");
                let message = match steer::migrates() {
                    false => {
                        format!(
                            "reset {them}: the workers of the socket that they came by have gone"
                        )
                    }
                    true => format!(
                        "{them} waited on a socket whose workers have gone: to be served by others of the port, if there are any (net.ipv4.tcp_migrate_req)"
                    ),
                };
                self.say(Level::Warn, "strays-reset", message);
            }
            Err(e) => {
                let message = format!("cannot take a socket out of its port: {}", reason(&e));
                self.say(Level::Error, "steering-error", message);
            }
        }
    }

    pub(super) fn take_census(&mut self, workers: &[WorkerId], lanes: &[LaneId]) {
        let begun = clock::monotonic();
        let event = self.try_census(workers, lanes).unwrap_or_else(|e| {
            let message = format!(
                "cannot see the workers' connections (sock_diag: {}): each worker is given all of --drain-timeout",
                reason(&e)
            );
            self.say_once(Level::Warn, "drain-blind", message);
            let blind = Load {
                sight: Sight::None,
                ..Load::default()
            };
            (Vec::new(), workers.iter().map(|w| (*w, blind)).collect())
        });
        let took = Duration::from_nanos(clock::monotonic().saturating_sub(begun));
        let (lanes, loads) = event;
        self.queue.push_back(Event::Census { lanes, loads, took });
    }

    fn try_census(&mut self, workers: &[WorkerId], lanes: &[LaneId]) -> io::Result<Seen> {
        let ports = self.sockets.numbers();
        let look = self.census.observer.look(&ports)?;
        let waits = look.has_waiting();
        let mut conns = look.conns;
        let mut lanes = self.look_at_lanes(lanes, &look.handshakes);
        // One that waited may have been accepted before its queue was looked at: then it has an owner
        // by now. (All queues are looked at as one: the kernel does not tell which it was.)
        if waits && !lanes.is_empty() {
            conns = self.census.observer.connections(&ports)?;
            // Ours that wait by now did so before: what is left of the queue are clients.
            for l in &mut lanes {
                l.queued = l.queued.saturating_sub(self.ours.waiting(l.lane, &conns));
            }
        }
        let loads = self.loads(workers, conns, !lanes.is_empty())?;
        Ok((lanes, loads))
    }

    fn look_at_lanes(
        &mut self,
        lanes: &[LaneId],
        seen: &BTreeSet<(u16, SocketAddr)>,
    ) -> Vec<LaneLook> {
        let look = |lane: &LaneId| {
            let port = self.sockets.port(*lane)?;
            let number = self.sockets.addr(*lane)?.port();
            let here = seen.iter().filter(|(n, _)| Some(*n) == number);
            let here: BTreeSet<SocketAddr> = here.map(|(_, peer)| *peer).collect();
            let under_way = self.census.under_way.entry(port);
            let under_way = under_way.or_insert_with(|| here.clone());
            under_way.retain(|peer| here.contains(peer));
            Some(LaneLook {
                lane: *lane,
                handshakes: u32::try_from(under_way.len()).unwrap_or(u32::MAX),
                queued: self.sockets.queued(*lane),
            })
        };
        lanes.iter().filter_map(look).collect()
    }

    fn loads(
        &mut self,
        workers: &[WorkerId],
        conns: Vec<Conn>,
        filling: bool,
    ) -> io::Result<Vec<(WorkerId, Load)>> {
        let conns = self.without_ours(conns);
        let held = self.held(conns)?;
        self.hear(&held);
        if !procfs::is_ours() {
            // Whose they are cannot be seen: all are anybody's.
            let load = Load {
                open: number(held.len()),
                owed: number(held.iter().filter(|h| self.census.endings.owes(h)).count()),
                sight: Sight::LookOnly,
            };
            return Ok(workers.iter().map(|w| (*w, load)).collect());
        }
        let inodes: BTreeSet<u64> = held.iter().map(|h| h.inode).collect();
        let owners = self.owners(workers, &inodes);
        if workers.iter().any(|w| owners.unseen.contains(w)) {
            let message = "cannot see whose connections these are (/proc/PID/fd of a worker may not be read: CAP_SYS_PTRACE, or a /proc without hidepid=, lets it): each such worker is given all of --drain-timeout".to_string();
            self.say_once(Level::Warn, "drain-blind", message);
        }
        let usual = match self.census.hands_off {
            true => Sight::LookOnly,
            false => Sight::Full,
        };
        // Between accept(2) and the descriptor nobody has it: then it counts for all. So does, once, one
        // that was closed between the look and the search; what nobody has in the next look either, when
        // nothing new could come by their lanes any more, is such a one.
        let nobodys = self.strays(workers, &inodes, &owners);
        let before = &mut self.census.nobodys;
        match (nobodys, before.as_mut()) {
            (Some(now), Some(before)) if !filling => before.retain(|inode| now.contains(inode)),
            (Some(now), _) => *before = Some(now),
            (None, Some(before)) => before.retain(|inode| inodes.contains(inode)),
            (None, None) => {}
        }
        let strays = number(self.census.nobodys.as_ref().map_or(0, BTreeSet::len));
        let unsure = held.len() > AT_ONCE;
        let before = std::mem::take(&mut self.census.had_none);
        self.census.theirs.clear();
        let mut loads = Vec::new();
        for worker in workers {
            let mut load = Load {
                open: strays,
                owed: strays,
                sight: match owners.cut || owners.unseen.contains(worker) {
                    true => Sight::None,
                    false => usual,
                },
            };
            let mut theirs = Vec::new();
            for one in &held {
                let of = owners.of.get(&one.inode).map_or(&[][..], Vec::as_slice);
                if let Some(owner) = of.iter().find(|o| o.worker == *worker) {
                    load.open += 1;
                    load.owed += u32::from(self.census.endings.owes(one));
                    theirs.push((*one, *owner));
                }
            }
            if load.open == 0 {
                self.census.had_none.insert(*worker);
                if unsure && !before.contains(worker) {
                    (load.open, load.owed) = (1, 1);
                }
            }
            self.census.theirs.insert(*worker, theirs);
            loads.push((*worker, load));
        }
        Ok(loads)
    }

    /// How those talk that there are now, and for how long one that streams may be silent.
    pub(super) fn hear(&mut self, held: &[Held]) {
        self.census.endings.quiet = self.settings().quiet();
        self.census.endings.heard(held.iter());
    }

    /// Who asks whether one is ready, or whether clients may come, is no client.
    pub(super) fn without_ours(&self, mut conns: Vec<Conn>) -> Vec<Conn> {
        conns.retain(|c| !self.ours.has(c));
        conns
    }

    /// All that there are now.
    pub(super) fn clients(&mut self) -> io::Result<Vec<Conn>> {
        let ports = self.sockets.numbers();
        let conns = self.census.observer.connections(&ports)?;
        Ok(self.without_ours(conns))
    }

    /// Connections that some process has, of unix sockets, too.
    pub(super) fn held(&mut self, tcp: Vec<Conn>) -> io::Result<Vec<Held>> {
        let tcp = tcp.into_iter().map(|c| Held {
            inode: c.inode,
            what: What::Tcp(c),
        });
        let names = self.sockets.unix_names();
        let unix = match names.is_empty() {
            true => Vec::new(),
            false => self.census.observer.unix(&names)?,
        };
        let unix = unix.into_iter().map(|c| Held {
            inode: c.inode,
            what: What::Unix {
                unread: c.rqueue > 0 || c.wqueue > 0,
            },
        });
        Ok(tcp.chain(unix).filter(|h| h.inode != 0).collect())
    }

    /// Those whose parents have gone are ours by now. They belong to the worker in whose group they are.
    pub(super) fn orphans(&self) -> Orphans {
        let ours = procfs::children(i32::try_from(std::process::id()).unwrap_or(0));
        let leaders: BTreeSet<i32> = self.procs.map.values().filter_map(|p| p.pid).collect();
        let orphans = ours.into_iter().filter(|pid| !leaders.contains(pid));
        let mut left: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
        for (group, pid) in orphans.filter_map(|pid| Some((procfs::group_of(pid)?, pid))) {
            left.entry(group).or_default().push(pid);
        }
        left
    }

    pub(super) fn owners(&self, workers: &[WorkerId], inodes: &BTreeSet<u64>) -> Owners {
        self.owners_in(&self.trees(workers), inodes)
    }

    /// The processes of each.
    fn trees(&self, workers: &[WorkerId]) -> Vec<(WorkerId, Vec<i32>)> {
        let left = self.orphans();
        let tree = |w: &WorkerId| {
            let pid = self.procs.map.get(w)?.pid?;
            Some((*w, roots(pid, &left).flat_map(procfs::tree).collect()))
        };
        workers.iter().filter_map(tree).collect()
    }

    /// The same, where it is known who belongs to whom.
    pub(super) fn owners_in(
        &self,
        trees: &[(WorkerId, Vec<i32>)],
        inodes: &BTreeSet<u64>,
    ) -> Owners {
        let _worn = self.to_look();
        observer::owners(trees, inodes)
    }

    /// Connections that nobody at all has: looked for when those that drain seem to have none, as
    /// the others have many. `None`: it was not, or could not be.
    fn strays(
        &self,
        workers: &[WorkerId],
        held: &BTreeSet<u64>,
        owners: &Owners,
    ) -> Option<BTreeSet<u64>> {
        let idle = |w: &&WorkerId| !owners.of.values().flatten().any(|o| o.worker == **w);
        let mut rest = held.clone();
        rest.retain(|inode| !owners.of.contains_key(inode));
        if rest.is_empty() {
            return Some(rest);
        }
        if !workers.iter().any(|w| idle(&w)) {
            return None;
        }
        let all = self.procs.map.keys().copied();
        let others: Vec<WorkerId> = all.filter(|w| !workers.contains(w)).collect();
        let theirs = self.owners(&others, &rest);
        if theirs.cut || owners.cut {
            // More than can be looked at: what is not found need not be there.
            return Some(BTreeSet::new());
        }
        rest.retain(|inode| !theirs.of.contains_key(inode));
        Some(rest)
    }
}

/// The processes whose descendants are a worker's: its first one, and what it has left behind.
pub(super) fn roots(pid: i32, orphans: &Orphans) -> impl Iterator<Item = i32> + use<'_> {
    let left = orphans.get(&pid).into_iter().flatten().copied();
    std::iter::once(pid).chain(left)
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
