//! Workers that another master has left (--orphans keep), and sockets that are open from before. Rules:
//!
//! 1. A cluster that has some begins where that one was: its generation, its lanes, and each of these
//!    workers in the slot that it had, where it is ready at once: nobody who comes is kept waiting.
//! 2. Such a worker is no child of ours. Nobody hears what it says, or sees what it binds, and how it ends
//!    is not told (`Exit::Unknown`); otherwise it is like any other. It is no respawn, and was not forked.
//! 3. What it runs is of the generation with which the cluster begins, whatever command that is: who wants
//!    it replaced, reloads.
//! 4. Ports that it has learnt are learnt ones, which it serves.

use super::action::Opening;
use super::addr::Addr;
use super::ids::{LaneId, Pid, Time, WorkerId};
use super::lane::{Asked, LaneState, Reader};
use super::policy::ReadyRule;
use super::{Cluster, Out};
use std::net::SocketAddr;

/// What a cluster begins with that is there already. (What is open of the given ports shows when they are
/// opened.)
#[derive(Clone, Debug, Default)]
pub struct Legacy {
    /// Of which generation the workers are.
    pub generation: u32,
    /// Ports that they have learnt.
    pub learnt: Vec<SocketAddr>,
}

impl Cluster {
    /// Before it is set going: it goes on from there.
    pub fn inherits(&mut self, from: Legacy) {
        let generation = from.generation.max(1);
        (self.generation, self.newest) = (generation, generation);
        for nr in self.slot_numbers() {
            if let Some(slot) = self.slots.of_mut(nr) {
                slot.generation = generation;
            }
        }
        self.legacy = from.learnt;
    }

    /// Lanes of ports that were learnt before.
    pub(super) fn open_learnt_before(&mut self, reader: Reader, out: &mut Out) {
        for addr in std::mem::take(&mut self.legacy) {
            let asked = Asked {
                addr: Addr::Tcp(addr),
                device: None,
            };
            let state = LaneState::Opening(None);
            let lane = self.lanes.add(asked, false, reader, state);
            self.open_lane(lane, Opening::Found { addr }, out);
        }
    }

    /// The worker that is to be in that slot is there already, and serves these.
    pub(super) fn is_there(
        &mut self,
        (id, pid, since): (WorkerId, Pid, Time),
        lanes: &[LaneId],
        now: Time,
        out: &mut Out,
    ) {
        let Some(w) = self.first_news(id, pid, true) else {
            return;
        };
        (w.adopted, w.watched, w.rule) = (true, false, ReadyRule::Started);
        self.ever_execed = true;
        self.end_lead(now);
        for lane in lanes {
            self.serves_from_before(id, *lane, out);
        }
        match self.stop_is_hard() {
            Some(hard) => self.end_worker(id, hard, now, out),
            None => {
                self.become_ready(id, now, out);
                self.lives_since(id, since.min(now), now);
            }
        }
    }

    /// Its age is its own, and it has been ready nearly as long.
    fn lives_since(&mut self, id: WorkerId, since: Time, now: Time) {
        if let Some(w) = self.fleet.get_mut(id) {
            (w.born, w.ready_since) = (since, Some(since));
        }
        self.begin_recycling(id, now);
    }

    fn serves_from_before(&mut self, id: WorkerId, lane: LaneId, out: &mut Out) {
        self.lanes.mark_served(lane);
        self.reads(id, lane, out);
        self.kept_a_lane = true;
        if let Some(w) = self.fleet.get_mut(id) {
            w.listened = Some(lane);
            w.serves.insert(lane);
        }
        if let Some(l) = self.lanes.get_mut(lane) {
            l.stale = false;
        }
    }
}
