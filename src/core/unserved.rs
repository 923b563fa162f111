//! Ports that were given but that nobody serves: their clients would connect and wait for ever.
//! Rules:
//!
//! 1. A lane is served once a worker has listened on it, or was seen waiting for connections on it.
//! 2. When all workers are ready, given lanes that are not served are looked at, `LOOKS` times: a
//!    server may open its second port a moment after its first, and one look may come while nobody
//!    waits because all are busy.
//! 3. What is not served by then is said, once. It stays open: the operator asked for it.

use super::action::Action;
use super::deadlines::Why;
use super::ids::{LaneId, Time};
use super::lane::{Lane, LaneState, Of};
use super::notice::Notice;
use super::phase::Phase;
use super::worker::Worker;
use super::{Cluster, Out};
use std::time::Duration;

/// So many looks,
const LOOKS: u32 = 3;
/// each that long after the last.
const GAP: Duration = Duration::from_secs(1);

impl Cluster {
    fn unserved(&self) -> Vec<LaneId> {
        let pick =
            |l: &&Lane| l.given && !l.served && l.state == LaneState::Open && self.is_steered(l);
        self.lanes.iter().filter(pick).map(|l| l.id).collect()
    }

    /// Was somebody looked for who serves its port, and nobody found? (That those who are handed lanes of
    /// their own, or of a later generation, wait on them is not looked for again and again.)
    pub(super) fn is_unserved(&self, lane: &Lane) -> bool {
        let served = self.lanes.served.contains(&lane.port);
        lane.given && !served && self.unserved_looks >= LOOKS
    }

    /// All workers are ready.
    pub(super) fn suspect_unserved(&mut self, now: Time) {
        let serving = self.phase == Phase::Serving;
        if serving && self.unserved_looks < LOOKS && !self.unserved().is_empty() {
            self.deadlines.set(Why::Unserved, now + GAP);
        }
    }

    /// It is time to look.
    pub(super) fn look_for_servers(&mut self, out: &mut Out) {
        let lanes = self.unserved();
        if !lanes.is_empty() {
            out.push(Action::LookForServers { lanes });
        }
    }

    /// Somebody waits for connections on these.
    pub(super) fn served(&mut self, lanes: &[LaneId], now: Time, out: &mut Out) {
        for id in lanes {
            self.lanes.mark_served(*id);
            let of = self.lanes.get(*id).map(|l| l.of);
            let its = |w: &&mut Worker| w.unreaped() && of == Some(Of::Seat(w.seat));
            if let Some(w) = self.fleet.iter_mut().find(its) {
                w.serves.insert(*id);
            }
        }
        // A stop came first: nobody needs to be there any more.
        if self.stop_is_hard().is_some() {
            return;
        }
        self.unserved_looks += 1;
        if self.unserved_looks < LOOKS {
            return self.suspect_unserved(now);
        }
        for id in self.unserved() {
            if let Some(addr) = self.lanes.addr(id).cloned() {
                let key = format!("unserved {addr}");
                self.once(key, Notice::Unserved { addr }, out);
            }
        }
    }
}
