//! Lanes that one worker alone serves: sockets of the worker's own. A socket that was put into an epoll
//! set, duplicated or shared before bind(2), or has a filter, cannot be swapped for ours: what knows it
//! would go on knowing the old one. So it stays what it is, and is made one of ours. Rules:
//!
//! 1. It is bound by us and not by the worker: where the lanes of its port are, whatever address or
//!    number the worker has named; also where the worker itself might not.
//! 2. Its queue is its worker's. It gets new connections while that one is ready and in a slot, and
//!    goes with it: at once when the worker crashes, since nobody else can read the queue, and clients
//!    rather start anew than wait.
//! 3. A worker that has such a socket does not read the lane of its generation. While none is ready
//!    nothing is steered anywhere: those who come are not let in, and their kernels try again. A queue
//!    that nobody will read would take them in and lose them.
//! 4. What came to a given port before it was known to be such a one is in the lane of the generation.
//!    It cannot be moved: it is ended when one serves, and all of its generation have such sockets.
//! 5. A port that was learnt has beside them a lane of the generation that nothing is steered to: it is
//!    who comes while none of them is left that is not refused.

use super::action::{Action, Opening};
use super::addr::Addr;
use super::errno::{EADDRINUSE, EOPNOTSUPP};
use super::event::Snag;
use super::ids::{Ask, LaneId, PortId, Seat, WorkerId};
use super::lane::{Asked, Lane, LaneState, Of, Reader};
use super::notice::{Hindrance, Notice};
use super::table::Table;
use super::worker::Worker;
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// So many of one worker (I9).
pub const MAX_OWN: usize = 64;

/// At which ports workers of which generations have, or had, sockets of their own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Owned(BTreeSet<(PortId, u32)>);

impl Owned {
    /// Those ports.
    pub(super) fn ports(&self) -> impl Iterator<Item = PortId> {
        self.0.iter().map(|(port, _)| *port)
    }

    /// Is it one of them?
    pub(super) fn is_at(&self, port: PortId) -> bool {
        self.is_at_for(port, |_| true)
    }

    /// Is it one of them, of such a generation?
    fn is_at_for(&self, port: PortId, fits: impl Fn(u32) -> bool) -> bool {
        let mut all = self.0.range((port, 0)..=(port, u32::MAX));
        all.any(|(_, generation)| fits(*generation))
    }

    pub(super) fn retain(&mut self, keep: impl Fn(PortId, u32) -> bool) {
        self.0.retain(|(port, generation)| keep(*port, *generation));
    }
}

impl Lane {
    /// Is it the socket of one worker?
    pub fn owner(&self) -> Option<WorkerId> {
        match self.of {
            Of::Worker(id) => Some(id),
            Of::Generation(_) | Of::Seat(_) | Of::All => None,
        }
    }
}

impl Cluster {
    /// Have workers of its generation their own sockets at its port, or is it one? Then it serves nobody
    /// before somebody was seen there.
    pub(super) fn has_own(&self, lane: &Lane) -> bool {
        match lane.of {
            Of::Generation(_) => {
                let owned = &self.lanes.owned;
                owned.is_at_for(lane.port, |g| lane.is_shared_by(g))
            }
            Of::Seat(seat) => {
                let its = self.fleet.iter().filter(|w| w.seat == seat);
                let its: BTreeSet<u32> = its.map(|w| w.generation).collect();
                self.lanes.owned.is_at_for(lane.port, |g| its.contains(&g))
            }
            Of::Worker(_) => true,
            Of::All => false,
        }
    }

    /// How many sockets of its own a worker has among the lanes.
    pub(super) fn own_lanes(&self, id: WorkerId) -> usize {
        self.lanes.iter().filter(|l| l.owner() == Some(id)).count()
    }

    /// Its socket becomes a lane of the port that this one is a way to.
    pub(super) fn adopt_beside(
        &mut self,
        id: WorkerId,
        ask: Ask,
        asked: Asked,
        snag: Snag,
        first: LaneId,
        out: &mut Out,
    ) {
        let Some(mate) = self.lanes.get(first).cloned() else {
            return out.push(Action::Pass { ask });
        };
        let why = match (&asked.addr, &mate.addr) {
            (Addr::Tcp(theirs), Addr::Tcp(ours)) if theirs.is_ipv4() != ours.is_ipv4() => {
                Some(Hindrance::Family(*ours))
            }
            (Addr::Tcp(_), Addr::Tcp(_)) if mate.of == Of::All => Some(Hindrance::Alone),
            (Addr::Tcp(_), Addr::Tcp(_)) if asked.device != mate.device => Some(Hindrance::Device),
            (Addr::Tcp(_), Addr::Tcp(_)) => self.too_many(id),
            (Addr::Tcp(_) | Addr::Unix(_) | Addr::Other(_), _) => Some(Hindrance::NoTcp),
        };
        if let Some(why) = why {
            return self.cannot_adopt(id, ask, asked.addr, snag, why, out);
        }
        let state = LaneState::Opening(Some((id, ask)));
        if let Some(lane) = self.lanes.add_beside(first, Of::Worker(id), state) {
            self.open_own(lane, snag, ask, true, out);
        }
        if let Some(who) = self.fleet.who(id) {
            self.say_what_is_lost(who, asked, first, out);
        }
    }

    /// Its socket becomes the first lane of a port.
    pub(super) fn adopt_first(
        &mut self,
        id: WorkerId,
        ask: Ask,
        asked: Asked,
        snag: Snag,
        out: &mut Out,
    ) {
        if self.stop_is_hard().is_some() {
            let errno = EADDRINUSE;
            return out.push(Action::Refuse { ask, errno });
        }
        if let Some(why) = self.too_many(id) {
            return self.cannot_adopt(id, ask, asked.addr, snag, why, out);
        }
        let state = LaneState::Opening(Some((id, ask)));
        let (generation, seat) = (0, Seat(0));
        let reader = Reader { generation, seat };
        let lane = self.lanes.add(asked, false, reader, state);
        self.lanes.give(lane, Of::Worker(id));
        if let Some(l) = self.lanes.get(lane) {
            let port = l.port;
            // Nobody is to come in before it serves.
            self.lanes.steered.insert(port, Table::default());
        }
        self.open_own(lane, snag, ask, false, out);
    }

    fn too_many(&self, id: WorkerId) -> Option<Hindrance> {
        (self.own_lanes(id) >= MAX_OWN).then_some(Hindrance::TooMany)
    }

    fn open_own(&mut self, lane: LaneId, snag: Snag, ask: Ask, beside: bool, out: &mut Out) {
        let Some(l) = self.lanes.get_mut(lane) else {
            return;
        };
        l.snag = Some(snag);
        if let Addr::Tcp(addr) = l.addr {
            let what = Opening::Adopted {
                addr,
                ask,
                beside,
                snag,
            };
            self.open_lane(lane, what, out);
        }
    }

    /// It is bound where it should be.
    pub(super) fn adopted(&mut self, lane: LaneId, id: WorkerId, ask: Ask, out: &mut Out) {
        out.push(Action::Bound { ask });
        let Some((port, addr, snag)) = self
            .lanes
            .get(lane)
            .and_then(|l| Some((l.port, l.addr.clone(), l.snag?)))
        else {
            return;
        };
        self.takeover_works.get_or_insert(true);
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        let generation = w.generation;
        w.owns.insert(port);
        let who = w.who();
        let key = format!("adopted {}", port.0);
        self.once(key, Notice::Adopted { who, addr, snag }, out);
        let alive = self.generations();
        let owned = &mut self.lanes.owned;
        owned.retain(|p, g| p != port || alive.contains(&g));
        owned.0.insert((port, generation));
    }

    pub(super) fn adopt_failed(
        &mut self,
        lane: LaneId,
        step: &'static str,
        errno: i32,
        out: &mut Out,
    ) {
        let Some(l) = self.lanes.get(lane).cloned() else {
            return;
        };
        self.lanes.remove(lane);
        if let (LaneState::Opening(Some((id, ask))), Some(snag)) = (l.state, l.snag) {
            let why = Hindrance::Step(step, errno);
            self.cannot_adopt(id, ask, l.addr, snag, why, out);
        }
    }

    fn cannot_adopt(
        &mut self,
        id: WorkerId,
        ask: Ask,
        addr: Addr,
        snag: Snag,
        why: Hindrance,
        out: &mut Out,
    ) {
        let errno = EOPNOTSUPP;
        out.push(Action::Refuse { ask, errno });
        let Some(who) = self.fleet.who(id) else {
            return;
        };
        let key = format!("snag {addr}");
        let notice = Notice::Snagged {
            who,
            addr,
            snag,
            why,
        };
        self.once(key, notice, out);
    }

    /// A worker's own socket at a given port only connects from there: that was no server's, and what
    /// was said of the port on account of it is not true.
    pub(super) fn own_connects(&mut self, lane: LaneId) {
        let Some((port, owner)) = self
            .lanes
            .get(lane)
            .and_then(|l| Some((l.port, l.owner()?)))
        else {
            return;
        };
        self.lanes.remove(lane);
        let has_more = |l: &Lane| l.port == port && l.owner() == Some(owner);
        if let Some(w) = self.fleet.get_mut(owner)
            && !self.lanes.iter().any(has_more)
        {
            w.owns.remove(&port);
        }
        let owns = |g: u32| {
            let mut of_it = self.fleet.iter().filter(|w| w.generation == g);
            of_it.any(|w| w.owns.contains(&port))
        };
        self.lanes.owned.retain(|p, g| p != port || owns(g));
    }

    /// A worker listens on a lane: which of them does it read?
    pub(super) fn reads(&mut self, id: WorkerId, lane: LaneId, out: &mut Out) {
        let Some(l) = self.lanes.get(lane).cloned() else {
            return;
        };
        match l.of {
            // What it had of its own there was to try the port.
            Of::Generation(_) | Of::Seat(_) | Of::All => {
                if let Some(w) = self.fleet.get_mut(id) {
                    w.owns.remove(&l.port);
                }
            }
            Of::Worker(_) if l.given => {}
            Of::Worker(owner) => self.stand_in(owner, l.port, lane, out),
        }
    }

    /// A lane at a learnt port, for those who come while there is nobody to serve them.
    fn stand_in(&mut self, owner: WorkerId, port: PortId, first: LaneId, out: &mut Out) {
        let Some(generation) = self.fleet.get(owner).map(|w| w.generation) else {
            return;
        };
        if self.lanes.is_shared_at(port, generation) {
            return;
        }
        let of = Of::Generation(generation);
        let state = LaneState::Opening(None);
        if let Some(lane) = self.lanes.add_beside(first, of, state) {
            self.open_lane(lane, Opening::Beside { first }, out);
        }
    }

    /// The one worker of a lane has closed it, or shut it down, and goes on without.
    pub(super) fn lane_left(&mut self, lane: LaneId, out: &mut Out) {
        let Some(id) = self.lanes.get(lane).and_then(Lane::owner) else {
            return;
        };
        if let Some(w) = self.fleet.get_mut(id)
            && w.listened == Some(lane)
        {
            w.listened = None;
            let who = w.who();
            out.push(Action::Note(Notice::LetGo { who }));
        }
        self.lanes.remove(lane);
        // Who comes from here on is steered away before what is in it is ended.
        self.steer(out);
        out.push(Action::RetireLane { lane });
    }

    /// Has the worker been killed, with all that might read a socket of its own?
    pub(super) fn is_orphan(&self, id: WorkerId) -> bool {
        self.fleet.get(id).is_none_or(|w| w.rest_killed)
    }

    /// Will nobody read this lane any more, that was its worker's own?
    pub(super) fn is_orphaned(&self, lane: &Lane) -> bool {
        lane.owner().is_some_and(|id| self.is_orphan(id))
    }

    /// Ends what is in queues that nobody will read: rule 4.
    pub(super) fn flush_unread(&mut self, out: &mut Out) {
        let unread = |l: &&Lane| match l.of {
            Of::Generation(_) | Of::Seat(_) => {
                let steered = self.lanes.steered.get(&l.port);
                // One that has not bound it yet, or shares it: not all need be alike.
                let reader = |w: &Worker| {
                    let may = w.unreaped() && !w.owns.contains(&l.port);
                    l.is_for(w.reader()) && may
                };
                let wanted = self.slots.open();
                // (One that has just ended is in its slot still.)
                let mut vacant = wanted.filter(|s| {
                    let worker = s.current.and_then(|id| self.fleet.get(id));
                    s.rest.is_none() && worker.is_none_or(|w| !w.unreaped())
                });
                l.given
                    && l.state == LaneState::Open
                    && !l.flushed
                    && self.lanes.owned.is_at(l.port)
                    && steered.is_some_and(|t| !t.is_empty() && !t.names(l.id))
                    && !self.fleet.iter().any(reader)
                    && !vacant.any(|s| match l.of {
                        Of::Seat(seat) => s.seat == Some(seat),
                        Of::Generation(_) | Of::Worker(_) | Of::All => l.is_shared_by(s.generation),
                    })
            }
            Of::Worker(_) | Of::All => false,
        };
        let unread: Vec<LaneId> = self.lanes.iter().filter(unread).map(|l| l.id).collect();
        for lane in unread {
            out.push(Action::FlushLane { lane });
            if let Some(l) = self.lanes.get_mut(lane) {
                l.flushed = true;
            }
        }
    }
}
