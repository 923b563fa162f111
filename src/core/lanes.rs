//! All lanes, by whose they are. Each generation has one of its own at each port, or each worker has one
//! (`balance`), where the port can have more than one; which of them get new connections is said in `steering`,
//! and which one a worker's bind(2) gets in `verdict`.

use super::addr::Addr;
use super::balance::Dealt;
use super::ids::{LaneId, PortId, Seat, WorkerId};
use super::lane::{Asked, Lane, LaneState, Of, Reader};
use super::own::Owned;
use super::table::Table;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

/// So many ports may be learnt (I9).
pub const MAX_LANES: usize = 64;

/// All of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Lanes {
    list: BTreeMap<LaneId, Lane>,
    /// The same, by whose they are.
    #[serde(skip)]
    by: BTreeMap<Of, BTreeSet<LaneId>>,
    /// Has each worker lanes of its own at ports of TCP?
    pub(super) spread: bool,
    next: u64,
    next_port: u64,
    /// Ports that somebody was seen to serve, by whatever lane.
    pub(super) served: BTreeSet<PortId>,
    /// Where new connections of each port go, as it was last said.
    pub(super) steered: BTreeMap<PortId, Table>,
    /// By which lanes of which slots a table of buckets was worked out, and for how many slots.
    pub(super) dealt: BTreeMap<PortId, Dealt>,
    /// Where workers have, or had, sockets of their own.
    pub(super) owned: Owned,
    /// Addresses that workers connect from: no lanes, ever again. The last few (I9).
    pub(super) connect_from: VecDeque<SocketAddr>,
}

impl Lanes {
    /// None yet.
    pub(super) fn new(spread: bool) -> Lanes {
        Lanes {
            spread,
            ..Lanes::default()
        }
    }

    /// The first lane of a new port.
    pub(super) fn add(
        &mut self,
        asked: Asked,
        given: bool,
        reader: Reader,
        state: LaneState,
    ) -> LaneId {
        self.next += 1;
        self.next_port += 1;
        let (id, port) = (LaneId(self.next), PortId(self.next_port));
        // What is done with something that we only pass on cannot be seen, nor can it be had twice.
        let other = matches!(asked.addr, Addr::Other(_));
        self.put(Lane {
            id,
            port,
            of: self.of_new(&asked.addr, reader),
            heirs: BTreeSet::new(),
            last_reader: None,
            addr: asked.addr,
            device: asked.device,
            given,
            state,
            served: other,
            stale: !given,
            emptied: false,
            flushed: false,
            snag: None,
        });
        self.steered.insert(port, Table::only(id));
        id
    }

    /// Whose a lane is that such a worker needs there.
    pub(super) fn of_new(&self, addr: &Addr, reader: Reader) -> Of {
        match addr {
            Addr::Tcp(_) if self.spread => Of::Seat(reader.seat),
            Addr::Tcp(_) | Addr::Unix(_) => Of::Generation(reader.generation),
            Addr::Other(_) => Of::All,
        }
    }

    fn put(&mut self, lane: Lane) {
        self.by.entry(lane.of).or_default().insert(lane.id);
        self.list.insert(lane.id, lane);
    }

    /// By whose they are, from the list.
    pub(super) fn index_anew(&mut self) {
        self.by = BTreeMap::new();
        for lane in self.list.values() {
            self.by.entry(lane.of).or_default().insert(lane.id);
        }
    }

    fn take(&mut self, id: LaneId) -> Option<Lane> {
        let lane = self.list.remove(&id)?;
        if let Some(mates) = self.by.get_mut(&lane.of) {
            mates.remove(&id);
            if mates.is_empty() {
                self.by.remove(&lane.of);
            }
        }
        Some(lane)
    }

    /// From now on it is theirs.
    pub(super) fn give(&mut self, id: LaneId, of: Of) {
        if let Some(lane) = self.take(id) {
            self.put(Lane { of, ..lane });
        }
    }

    /// Somebody else has that seat: which of its learnt lanes that one listens on is to be seen.
    pub(super) fn pass_on(&mut self, seat: Seat) {
        for id in self.by.get(&Of::Seat(seat)).into_iter().flatten() {
            if let Some(lane) = self.list.get_mut(id) {
                lane.stale |= !lane.given;
            }
        }
    }

    /// Those of this seat, of this worker, or of whoever else.
    pub(super) fn of(&self, of: Of) -> impl Iterator<Item = &Lane> {
        let ids = self.by.get(&of).into_iter().flatten();
        ids.filter_map(|id| self.list.get(id))
    }

    /// Have all workers of this generation a lane at that port?
    pub(super) fn is_shared_at(&self, port: PortId, generation: u32) -> bool {
        let mut here = self.shared().filter(|l| l.port == port);
        here.any(|l| l.is_shared_by(generation))
    }

    /// Those that several workers share.
    pub(super) fn shared(&self) -> impl Iterator<Item = &Lane> {
        let generations = self.by.range(..Of::Seat(Seat(0))).map(|(_, ids)| ids);
        let ids = generations.chain(self.by.get(&Of::All)).flatten();
        ids.filter_map(|id| self.list.get(id))
    }

    /// Those by which this worker gets connections, which is one per port: where there are two for its generation,
    /// who was there before the second has the first.
    pub(super) fn shared_of(&self, id: WorkerId, reader: Reader) -> impl Iterator<Item = &Lane> {
        let has = move |l: &Lane| l.is_for(reader) && l.last_reader.is_some_and(|last| id <= last);
        let before: BTreeSet<PortId> = self.shared().filter(|l| has(l)).map(|l| l.port).collect();
        let its = self.shared().filter(move |l| l.is_for(reader));
        its.filter(move |l| has(l) || l.last_reader.is_none() && !before.contains(&l.port))
    }

    /// Another lane of the port that this one is a way to.
    pub(super) fn add_beside(&mut self, first: LaneId, of: Of, state: LaneState) -> Option<LaneId> {
        let lane = self.list.get(&first)?.clone();
        self.next += 1;
        let id = LaneId(self.next);
        self.put(Lane {
            id,
            of,
            heirs: BTreeSet::new(),
            last_reader: None,
            state,
            served: false,
            stale: !lane.given,
            emptied: false,
            flushed: true,
            snag: None,
            ..lane
        });
        Some(id)
    }

    /// Forgets it.
    pub(super) fn remove(&mut self, id: LaneId) {
        let Some(Lane { port, .. }) = self.take(id) else {
            return;
        };
        if !self.iter().any(|l| l.port == port) {
            self.steered.remove(&port);
            self.dealt.remove(&port);
            self.served.remove(&port);
            self.owned.retain(|p, _| p != port);
        }
    }

    /// The lane by which such a worker serves the port, or is about to.
    pub(super) fn at(&self, port: PortId, reader: Reader) -> Option<&Lane> {
        // Never that of another one, though it be the older that comes late: what it does to the
        // lane when it stops (shutdown(2)) would end the others.
        // (Heirs have no other.)
        let fits = |l: &&Lane| l.port == port && l.is_for(reader);
        if let Some(its) = self.of(Of::Seat(reader.seat)).find(fits) {
            return Some(its);
        }
        // What stands in for sockets of workers' own is for nobody who can have another one.
        let stands_in = |l: &Lane| self.spread && l.addr.tcp().is_some() && l.of != Of::All;
        let mut shared = self.shared().filter(fits);
        shared.find(|l| !stands_in(l) && l.last_reader.is_none())
    }

    pub(super) fn get_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.list.get_mut(&id)
    }

    /// All, in the order of their opening.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.list.values_mut()
    }

    /// Somebody takes its connections. True: for the first time.
    pub fn mark_served(&mut self, id: LaneId) -> bool {
        let Some(lane) = self.get_mut(id) else {
            return false;
        };
        let (first, port) = (!std::mem::replace(&mut lane.served, true), lane.port);
        self.served.insert(port);
        first
    }

    /// Was it learnt?
    pub fn is_learnt(&self, id: LaneId) -> bool {
        self.get(id).is_some_and(|l| !l.given)
    }

    /// All, in the order of their opening.
    pub fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.list.values()
    }

    /// Where it is bound, if it is.
    pub fn addr(&self, id: LaneId) -> Option<&Addr> {
        self.get(id).map(|l| &l.addr)
    }

    /// It.
    pub fn get(&self, id: LaneId) -> Option<&Lane> {
        self.list.get(&id)
    }

    /// How many ports there are.
    pub fn ports(&self) -> usize {
        // Kept in step by `remove`.
        self.steered.len()
    }

    /// Is it the only lane of its port?
    pub(super) fn is_alone(&self, id: LaneId) -> bool {
        let port = self.get(id).map(|l| l.port);
        self.iter()
            .filter(|l| Some(l.port) == port)
            .nth(1)
            .is_none()
    }

    /// Addresses that are served: by our sockets, or where those have been closed, by the workers'.
    pub fn served_addrs(&self) -> Vec<Addr> {
        let bound = |l: &&Lane| match l.state {
            LaneState::Open | LaneState::Closed => l.given || l.served,
            LaneState::Opening(_) => false,
        };
        let mut seen = BTreeSet::new();
        self.iter()
            .filter(bound)
            .filter(|l| seen.insert(l.port))
            .map(|l| l.addr.clone())
            .collect()
    }

    /// The TCP ports that were given, as they were opened.
    pub(super) fn given_ports(&self) -> Vec<u16> {
        let given = self.iter().filter(|l| l.given);
        let mut ports: Vec<u16> = given.filter_map(|l| l.addr.port()).collect();
        ports.dedup();
        ports
    }

    /// How many addresses are known to be connected from.
    pub fn connect_from(&self) -> usize {
        self.connect_from.len()
    }
}
