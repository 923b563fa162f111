//! Where new connections go, and when a lane has had its day. Rules:
//!
//! 1. Of a port with several lanes those get new connections that a ready worker in a slot serves,
//!    in proportion to their workers (I2). While there is none at all, everything stays as it is: the
//!    queue is kept for the next one.
//! 2. A given port is served by whoever is ready; a learnt one by those who have listened on it.
//! 3. What is wanted is compared with what was said last, after each event: nothing is counted (I7).
//! 4. A lane is retired when nothing is steered to it and the last process of its generation has
//!    gone: under a worker that still waits on it, it would end or spin. A port that only the dead
//!    have served goes with them.

use super::action::Action;
use super::ids::{LaneId, PortId};
use super::lanes::{Lane, LaneState, Of};
use super::phase::Phase;
use super::{Cluster, Out};
use std::collections::{BTreeMap, BTreeSet};

impl Cluster {
    /// How many ready workers in slots each generation has.
    fn servers(&self) -> BTreeMap<u32, u16> {
        let current = self.slots.iter().filter_map(|s| s.current);
        let workers = current.filter_map(|id| self.fleet.get(id));
        let mut servers: BTreeMap<u32, u16> = BTreeMap::new();
        for w in workers.filter(|w| w.is_ready()) {
            let n = servers.entry(w.generation).or_default();
            *n = n.saturating_add(1);
        }
        servers
    }

    /// Open lanes by port: but not where there is one, and everything goes there.
    fn to_choose_from(&self) -> BTreeMap<PortId, Vec<&Lane>> {
        let mut ports: BTreeMap<PortId, Vec<&Lane>> = BTreeMap::new();
        for lane in self.lanes.iter().filter(|l| l.state == LaneState::Open) {
            ports.entry(lane.port).or_default().push(lane);
        }
        let settled = |port: &PortId, lanes: &[&Lane]| match (lanes, self.lanes.steered.get(port)) {
            ([only], Some(table)) => table.len() == 1 && table[0].0 == only.id,
            _ => false,
        };
        ports.retain(|port, lanes| !settled(port, lanes));
        ports
    }

    /// Where the new connections of these lanes' port should go; `None`: as they do.
    fn wanted_table(lanes: &[&Lane], servers: &BTreeMap<u32, u16>) -> Option<Vec<(LaneId, u16)>> {
        if let Some(shared) = lanes.iter().find(|l| l.of == Of::All) {
            return Some(vec![(shared.id, 1)]);
        }
        let weigh = |l: &&Lane| match l.of {
            Of::Generation(g) if l.given || l.served => {
                (l.id, servers.get(&g).copied().unwrap_or(0))
            }
            Of::Generation(_) | Of::All => (l.id, 0),
        };
        let table: Vec<(LaneId, u16)> = lanes.iter().map(weigh).filter(|(_, n)| *n > 0).collect();
        match table.as_slice() {
            [] => None,
            // Its weight does not matter.
            [(only, _)] => Some(vec![(*only, 1)]),
            _ => Some(table),
        }
    }

    /// Steers where it should be steered and is not.
    pub(super) fn steer(&mut self, out: &mut Out) {
        let ports = self.to_choose_from();
        if ports.is_empty() {
            return;
        }
        let servers = self.servers();
        let wanted = |(port, lanes): (PortId, Vec<&Lane>)| {
            let table = Cluster::wanted_table(&lanes, &servers)?;
            (self.lanes.steered.get(&port) != Some(&table)).then_some((port, table))
        };
        let changed: Vec<_> = ports.into_iter().filter_map(wanted).collect();
        for (port, table) in changed {
            for lane in self.lanes.list.iter_mut().filter(|l| l.port == port) {
                lane.emptied = false;
            }
            self.lanes.steered.insert(port, table.clone());
            out.push(Action::Steer { port, table });
        }
    }

    /// Do new connections come by it?
    pub(super) fn is_steered(&self, lane: &Lane) -> bool {
        let table = self.lanes.steered.get(&lane.port);
        table.is_some_and(|t| t.iter().any(|(id, _)| *id == lane.id))
    }

    /// Generations that have workers, or are to have some.
    fn generations(&self) -> BTreeSet<u32> {
        let slots = self.slots.iter().map(|s| s.generation);
        let workers = self.fleet.iter().map(|w| w.generation);
        let target = self.rollout.as_ref().map(|r| r.to);
        let all = slots.chain(workers).chain(target);
        all.chain([self.generation]).collect()
    }

    /// Is there, or will there be, a worker of this generation?
    pub fn is_alive(&self, generation: u32) -> bool {
        self.generations().contains(&generation)
    }

    /// Retires the lanes that nobody serves any more.
    pub(super) fn retire_lanes(&mut self, out: &mut Out) {
        if self.phase != Phase::Serving {
            return;
        }
        let old = |l: &Lane| l.of != Of::All && l.of != Of::Generation(self.generation);
        if !self.lanes.iter().any(old) {
            return;
        }
        let alive = self.generations();
        let dead = |l: &&Lane| match l.of {
            Of::Generation(g) => l.state == LaneState::Open && !alive.contains(&g),
            Of::All => false,
        };
        let dead: Vec<Lane> = self.lanes.iter().filter(dead).cloned().collect();
        for lane in dead {
            // A given port is open as long as we are.
            if self.is_steered(&lane) && lane.given {
                continue;
            }
            out.push(Action::RetireLane { lane: lane.id });
            self.lanes.remove(lane.id);
        }
    }
}
