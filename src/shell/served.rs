//! How many connections each worker has served, and their bytes (--count-connections, --max-connections):
//! the kernel tells of each TCP socket that ends (sock_diag(7), SKNLGRP_INET_TCP_DESTROY), and who dealt it
//! out we know: we have written the program. Rules:
//!
//! 1. It is heard only while it is asked for, of our ports alone, so many in a turn.
//! 2. The table in force when a connection came decides. When one takes the place of another those that
//!    are open are listed with the lane that they came by.
//! 3. Of which one it was cannot be told is nobody's: dealt at random, or to several who share a lane. It
//!    counts for the cluster alone.
//! 4. What the kernel had no room to tell of is not counted; how many these were it tells. So the numbers
//!    are lower bounds.

use super::ours::Line;
use super::{Kind, Shell, token};
use crate::core::words::reason;
use crate::core::{BUCKETS, Deal, Event, LaneId, Level, PortId, SlotNr, Table, Time, WorkerId};
use crate::sys::netlink::{self, Netlink};
use crate::wire::metrics::Ended;
use crate::wire::ports_filter::Ports;
use crate::wire::sock_diag::{Conn, Info};
use crate::wire::traffic::Tally;
use crate::wire::{sock_diag, steering};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Duration;

/// So many are heard in one turn.
const TURN: usize = 512;
/// Who has heard of some looks again so much later, and is not woken up by each. There is room for many
/// times as many as end in that time.
const PAUSE: Duration = Duration::from_millis(10);
/// Of so many that are open it is kept by which lane they came (I9); others count for the lane that has
/// their bucket when they end.
const MOST_OPEN: usize = 1 << 16;

/// What is known of them.
#[derive(Default, Serialize, Deserialize)]
pub struct Served {
    #[serde(with = "crate::shell::carry")]
    news: Option<Netlink>,
    /// The generation for which it was begun, or tried.
    tried: Option<u32>,
    /// When it is looked again; meanwhile the poll does not tell.
    again: Option<Time>,
    /// The ports that the kernel tells of.
    ports: Vec<u16>,
    tables: BTreeMap<u16, Dealt>,
    /// By own port and client: those that came by an older table.
    #[serde(with = "crate::core::carry::pairs")]
    open: BTreeMap<(u16, SocketAddr), LaneId>,
    /// By worker, while it lives,
    counts: BTreeMap<WorkerId, Tally>,
    /// by slot,
    of_slots: BTreeMap<SlotNr, Tally>,
    /// and those of which it is not known.
    nobodys: Tally,
}

/// How the connections of a port are dealt out.
#[derive(Serialize, Deserialize)]
struct Dealt {
    table: Table,
    /// By so many buckets; 0: at random.
    buckets: usize,
}

impl Dealt {
    /// By which lane does, or did, that client's connection come?
    fn lane(&self, peer: SocketAddr) -> Option<LaneId> {
        match &self.table.deal {
            Deal::Shares(all) => match all.as_slice() {
                [(only, _)] => Some(*only),
                _ => None,
            },
            Deal::Buckets(key, lanes) if self.buckets > 0 => {
                // Of a coarser table the first of some neighbours has them all.
                let at = steering::bucket::bucket(*key, peer, self.buckets);
                lanes.get(at * (lanes.len() / self.buckets).max(1)).copied()
            }
            Deal::Buckets(..) | Deal::Cpus(_) => None,
        }
    }
}

impl Served {
    /// When it is looked again.
    pub fn deadline(&self) -> Option<Time> {
        self.again
    }

    /// How many this one has, if that is known.
    pub fn of(&self, worker: WorkerId, told_apart: bool) -> Option<Tally> {
        self.news.as_ref()?;
        let counted = self.counts.get(&worker).copied();
        counted.or_else(|| told_apart.then(Tally::default))
    }

    /// All that were counted.
    pub fn all(&self) -> Option<Tally> {
        self.news.as_ref()?;
        let mut all = self.nobodys;
        self.of_slots.values().for_each(|t| all.add(*t));
        Some(all)
    }

    /// The same, by whose they were.
    pub fn ended_by_slot(&self, told_apart: bool) -> Option<Ended> {
        Some(Ended {
            told_apart,
            missed: self.missed()?,
            of_slots: self.of_slots.clone(),
            nobodys: self.nobodys,
        })
    }

    /// Of how many the kernel had no room to tell.
    pub fn missed(&self) -> Option<u64> {
        let news = self.news.as_ref()?;
        Some(news.dropped().map_or(0, u64::from))
    }

    /// One has ended, which was that worker's, in that slot, or nobody knows whose.
    fn count(&mut self, whose: Option<(WorkerId, SlotNr)>, one: Tally) {
        let Some((worker, slot)) = whose else {
            return self.nobodys.add(one);
        };
        self.counts.entry(worker).or_default().add(one);
        self.of_slots.entry(slot).or_default().add(one);
    }

    /// It has gone.
    pub fn forget(&mut self, worker: WorkerId) {
        self.counts.remove(&worker);
    }

    /// Another table is in force for that port; these are open by the one before.
    fn deal(&mut self, port: u16, table: &Table, open: impl Iterator<Item = SocketAddr>) {
        let mut before = std::mem::take(&mut self.open);
        let old = self.tables.get(&port);
        for peer in open.take(MOST_OPEN) {
            let key = (port, peer);
            let lane = before.remove(&key).or_else(|| old?.lane(peer));
            if let Some(lane) = lane {
                self.open.insert(key, lane);
            }
        }
        // Those of others stay.
        before.retain(|(of, _), _| *of != port);
        self.open.append(&mut before);
        let table = table.clone();
        let buckets = BUCKETS;
        self.tables.insert(port, Dealt { table, buckets });
    }

    /// One has ended: by which lane had it come?
    fn ended(&mut self, port: u16, peer: SocketAddr) -> Option<LaneId> {
        let known = self.open.remove(&(port, peer));
        known.or_else(|| self.tables.get(&port)?.lane(peer))
    }
}

impl Shell {
    /// From here on it is counted, if that is asked for.
    pub(super) fn begin_counting(&mut self) {
        if !self.settings().counts() || self.served.news.is_some() {
            return;
        }
        match Netlink::of_ended(&steering::raw(&sock_diag::ended_at(&[]))) {
            Ok(news) => {
                self.register(news.as_fd(), token(Kind::Served, 0));
                self.served.news = Some(news);
            }
            Err(e) => self.say_uncounted(&e),
        }
    }

    /// The kernel tells of them as before.
    pub(super) fn relisten(&mut self) {
        let raw = self.served.news.as_ref().map(|n| n.as_fd().as_raw_fd());
        if let Some(raw) = raw.filter(|_| self.served.again.is_none()) {
            self.register_raw(raw, token(Kind::Served, 0));
        }
    }

    /// A reload may have asked for it. Where it cannot be had it is not tried again before the next.
    fn count_if_asked(&mut self) {
        let generation = Some(self.cluster.generation());
        if self.served.tried != generation {
            self.served.tried = generation;
            self.begin_counting();
            self.count_at_ports();
        }
    }

    /// Nobody asks for it any more. (What was counted is kept for who asks again.)
    fn stop_counting(&mut self) {
        let Some(news) = self.served.news.take() else {
            return;
        };
        self.deregister(news.as_fd());
        let Served {
            of_slots, nobodys, ..
        } = std::mem::take(&mut self.served);
        (self.served.of_slots, self.served.nobodys) = (of_slots, nobodys);
    }

    fn say_uncounted(&mut self, e: &io::Error) {
        let message = format!(
            "cannot hear which connections end (sock_diag: {}): {} has no effect",
            reason(e),
            self.asked_by()
        );
        self.say_once(Level::Warn, "connections-unseen", message);
    }

    /// Is it known of each connection whose it was?
    pub(super) fn told_apart(&self) -> bool {
        self.settings().balance().tells_apart() || self.cluster.bound() == 1
    }

    /// The option by which it is counted.
    fn asked_by(&self) -> &'static str {
        match self.settings().max_connections {
            Some(_) => "--max-connections",
            None => "--count-connections",
        }
    }

    /// There may be other ports by now.
    pub(super) fn count_at_ports(&mut self) {
        let Some(news) = &self.served.news else {
            return;
        };
        let Ports { v4, v6 } = self.sockets.numbers();
        let ports: Vec<u16> = v4.union(&v6).copied().collect();
        if ports == self.served.ports {
            return;
        }
        let filter = steering::raw(&sock_diag::ended_at(&ports));
        match news.filter(&filter) {
            Ok(()) => self.served.ports = ports,
            Err(e) => self.say_uncounted(&e),
        }
    }

    /// Other lanes get the new connections of that port from now on.
    pub(super) fn count_anew(&mut self, port: PortId, table: &Table) {
        if self.served.news.is_none() {
            return;
        }
        self.count_at_ports();
        // What has ended by now came by the tables before.
        self.hear_ended();
        let mut lanes = table.lanes().into_iter();
        let addr = lanes.next().and_then(|l| self.sockets.addr(l)?.tcp());
        let Some(addr) = addr.filter(|_| self.sockets.is_port(port)) else {
            return;
        };
        let mut at = Ports::default();
        match addr.is_ipv4() {
            true => at.v4.insert(addr.port()),
            false => at.v6.insert(addr.port()),
        };
        let open = self.census.connections(&at).unwrap_or_default();
        let peers = open.into_iter().map(|c| c.peer);
        self.served.deal(addr.port(), table, peers);
    }

    /// The kernel has taken that port's program in part only: by so many buckets, or none.
    pub(super) fn counts_by(&mut self, port: u16, buckets: Option<usize>) {
        if let Some(dealt) = self.served.tables.get_mut(&port) {
            dealt.buckets = buckets.unwrap_or(0);
        }
    }

    /// The poll says that some have ended, or it is time to look whether more have.
    pub(super) fn ends_due(&mut self, told: bool) {
        if !self.settings().counts() {
            return self.stop_counting();
        }
        self.count_if_asked();
        let now = self.now();
        if !told && self.served.again.is_none_or(|at| at > now) {
            return;
        }
        let heard = self.hear_ended();
        let (some, paused) = (heard > 0, self.served.again.is_some());
        self.served.again = some.then(|| now + PAUSE);
        let Some(news) = self.served.news.take() else {
            return;
        };
        match (some, paused) {
            (true, false) => self.deregister(news.as_fd()),
            // What has come meanwhile is told at once.
            (false, true) => self.register(news.as_fd(), token(Kind::Served, 0)),
            (true, true) | (false, false) => {}
        }
        self.served.news = Some(news);
    }

    /// Some have ended, perhaps: how many?
    fn hear_ended(&mut self) -> usize {
        let mut heard = 0;
        let mut room = vec![0; netlink::ROOM_OF_ONE];
        let mut counted: BTreeSet<WorkerId> = BTreeSet::new();
        let mut more = true;
        for _ in 0..TURN {
            let Some(news) = &self.served.news else {
                return heard;
            };
            match news.hear(&mut room) {
                Ok(None) => {
                    more = false;
                    break;
                }
                Ok(Some(n)) => {
                    heard += 1;
                    let told = room.get(..n).unwrap_or_default();
                    let ended = sock_diag::parse(told, 0).map(|p| p.items);
                    for c in ended.unwrap_or_default() {
                        counted.extend(self.count_ended(&c));
                    }
                }
                Err(e) if netlink::was_full(&e) => {
                    let message = format!(
                        "more connections have ended at once than could be heard: {} counts fewer than there were",
                        self.asked_by()
                    );
                    self.say_once(Level::Warn, "connections-missed", message);
                }
                Err(_) => {
                    more = false;
                    break;
                }
            }
        }
        for worker in counted {
            let served = self.served.of(worker, true).map_or(0, |t| t.served);
            self.queue.push_back(Event::Counted { worker, served });
        }
        if more {
            self.ready.insert((Kind::Served, 0));
        }
        heard
    }

    /// This one; whose it was, if that can be told.
    fn count_ended(&mut self, c: &Conn) -> Option<WorkerId> {
        let bytes = |of: fn(&Info) -> Option<u64>| c.info.as_ref().and_then(of).unwrap_or(0);
        let one = Tally {
            served: 1,
            received: bytes(|i| i.bytes_received),
            sent: bytes(|i| i.bytes_acked),
        };
        let has_peer = c.peer.port() != 0;
        if !has_peer && one.received == 0 && one.sent == 0 {
            // A lane that has closed, or one that was aborted before anything was said.
            return None;
        }
        let port = c.local.port();
        let lane = self.served.ended(port, c.peer);
        if self.ours.had(Line::of(c)) {
            return None;
        }
        let lane = lane.or_else(|| self.sockets.only_lane(port));
        // (One that was aborted has no peer any more.)
        let lane = lane.filter(|_| has_peer);
        let worker = lane.and_then(|l| self.cluster.server_of(l));
        let worker = worker.or_else(|| self.only_worker());
        let who = worker.and_then(|w| self.cluster.fleet().who(w));
        let whose = worker.zip(who.map(|w| w.slot));
        self.served.count(whose, one);
        worker
    }

    /// Whoever it is, if there is but one.
    fn only_worker(&self) -> Option<WorkerId> {
        let mut all = self.procs.map.keys();
        let first = all.next().copied();
        first.filter(|_| all.next().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Key;

    fn peer(n: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 10_000 + n))
    }

    fn table(lanes: &[u64]) -> Table {
        let all = (0..BUCKETS).map(|n| LaneId(lanes[n % lanes.len()]));
        Table {
            deal: Deal::Buckets(Key::Connection, all.collect()),
            part: None,
        }
    }

    #[test]
    fn the_table_at_the_time_of_its_coming_says_whose_a_connection_was() {
        let mut s = Served::default();
        assert_eq!(s.ended(80, peer(0)), None);
        s.deal(80, &table(&[1]), std::iter::empty());
        assert_eq!(s.ended(80, peer(0)), Some(LaneId(1)));
        assert_eq!(s.ended(81, peer(0)), None);
        // Two are open when others get what comes.
        s.deal(80, &table(&[2]), [peer(1), peer(2)].into_iter());
        assert_eq!(s.ended(80, peer(1)), Some(LaneId(1)));
        assert_eq!(s.ended(80, peer(1)), Some(LaneId(2)));
        // One of them still is.
        s.deal(80, &table(&[3]), [peer(2), peer(3)].into_iter());
        assert_eq!(s.open.len(), 2);
        assert_eq!(s.ended(80, peer(2)), Some(LaneId(1)));
        assert_eq!(s.ended(80, peer(3)), Some(LaneId(2)));
        assert_eq!(s.ended(80, peer(4)), Some(LaneId(3)));
    }

    #[test]
    fn of_a_coarser_table_neighbours_are_one_and_at_random_nothing_is_told() {
        let mut s = Served::default();
        s.deal(80, &table(&[1, 2]), std::iter::empty());
        let lanes = |s: &mut Served| -> Vec<_> { (0..64).map(|n| s.ended(80, peer(n))).collect() };
        let all = lanes(&mut s);
        assert!(all.contains(&Some(LaneId(1))) && all.contains(&Some(LaneId(2))));
        for (buckets, want) in [(BUCKETS / 2, Some(LaneId(1))), (0, None)] {
            if let Some(d) = s.tables.get_mut(&80) {
                d.buckets = buckets;
            }
            assert!(lanes(&mut s).iter().all(|l| *l == want), "{buckets}");
        }
    }
}
