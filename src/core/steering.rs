//! Where new connections go, and when a lane has had its day. Rules:
//!
//! 1. Of a port with several lanes those get new connections that a ready worker in a slot serves,
//!    in proportion to their workers (I2). While there is none at all they go where the next one will
//!    be: the queue is kept for it. Where it is not known which that is everything stays as it is.
//! 2. A given port is served by whoever is ready; a learnt one by those who have listened on it.
//! 3. What is wanted is compared with what was said last, after each event: nothing is counted (I7).
//! 4. The sockets of workers' own (`own`) count one each, and their workers for no other lane of that
//!    port; nor do others of their generation, which are the same program, before one was seen there.
//! 5. A lane may be inherited by another generation (`heirs`): who waits there waits for that.
//! 6. A lane is retired when nothing is steered to it and the last process of its generation has
//!    gone: under a worker that still waits on it, it would end or spin. A port that only the dead
//!    have served goes with them.

use super::action::Action;
use super::ids::{LaneId, PortId, WorkerId};
use super::lane::{Lane, LaneState, Of};
use super::phase::Phase;
use super::table::{Deal, Table};
use super::worker::Worker;
use super::{Cluster, Out};
use std::collections::{BTreeMap, BTreeSet};

/// Ready workers in slots, counted once for all lanes.
#[derive(Default)]
struct Servers {
    all: BTreeSet<WorkerId>,
    of: BTreeMap<u32, u16>,
    /// Those that do not serve the port by the lane of their generation.
    apart: BTreeMap<(PortId, u32), u16>,
}

impl Servers {
    fn count(&mut self, w: &Worker) {
        self.all.insert(w.id);
        let more = |n: &mut u16| *n = n.saturating_add(1);
        more(self.of.entry(w.generation).or_default());
        for port in &w.owns {
            more(self.apart.entry((*port, w.generation)).or_default());
        }
    }

    /// How many serve that lane?
    fn of(&self, lane: &Lane) -> u16 {
        let shared = |(g, n): (&u32, &u16)| {
            let apart = self.apart.get(&(lane.port, *g)).copied().unwrap_or(0);
            n.saturating_sub(apart)
        };
        match lane.of {
            Of::Worker(id) => u16::from(self.all.contains(&id)),
            // Of these it is asked who is ready in which slot (`balance`).
            Of::Seat(_) => 0,
            Of::Generation(_) | Of::All => {
                let its = self.of.iter().filter(|(g, _)| lane.is_shared_by(**g));
                its.map(shared).fold(0, u16::saturating_add)
            }
        }
    }
}

impl Cluster {
    /// Who serves.
    fn servers(&self) -> Servers {
        let current = self.slots.iter().filter_map(|s| s.current);
        let workers = current.filter_map(|id| self.fleet.get(id));
        let mut servers = Servers::default();
        for w in workers.filter(|w| w.is_ready()) {
            servers.count(w);
        }
        servers
    }

    /// Open lanes by port: but not where there is one, and everything goes there.
    fn to_choose_from(&self) -> BTreeMap<PortId, Vec<&Lane>> {
        // Of these there may be none left that is open.
        let owned = self.lanes.owned.ports().map(|port| (port, Vec::new()));
        let mut ports: BTreeMap<PortId, Vec<&Lane>> = owned.collect();
        let open = |l: &&Lane| l.state == LaneState::Open && l.last_reader.is_none();
        for lane in self.lanes.iter().filter(open) {
            ports.entry(lane.port).or_default().push(lane);
        }
        let settled = |port: &PortId, lanes: &[&Lane]| match (lanes, self.lanes.steered.get(port)) {
            _ if self.lanes.owned.is_at(*port) || self.asks() => false,
            ([only], Some(table)) => table.is_only(only.id) && table.part.is_none(),
            _ => false,
        };
        ports.retain(|port, lanes| !settled(port, lanes));
        ports
    }

    /// Where the new connections of these lanes' port should go; `None`: as they do.
    fn wanted_table(&self, port: PortId, lanes: &[&Lane], servers: &Servers) -> Option<Table> {
        let owned = self.lanes.owned.is_at(port);
        if let Some(shared) = lanes.iter().find(|l| l.of == Of::All && !owned) {
            return Some(Table::only(shared.id));
        }
        let counts = |l: &&&Lane| l.served || l.given && !self.has_own(l);
        let weigh = |l: &&Lane| (l.id, servers.of(l));
        let table = lanes.iter().filter(counts).map(weigh);
        let table: Vec<(LaneId, u16)> = table.filter(|(_, n)| *n > 0).collect();
        match table.as_slice() {
            // A queue would be kept for whoever comes next, who has one of its own.
            [] if owned => Some(Table::default()),
            [] => self.next_served(lanes).map(Table::only),
            // Its weight does not matter.
            [(only, _)] => Some(Table::only(*only)),
            _ => Some(Table::shares(table)),
        }
    }

    /// While nobody is ready: the lane of whoever will be next, if that is known.
    fn next_served(&self, lanes: &[&Lane]) -> Option<LaneId> {
        let next = match (&self.rollout, self.in_place_to()) {
            _ if self.phase != Phase::Serving => None,
            (None, _) => Some(self.generation),
            (Some(_), Some(to)) => Some(to),
            // No other one of the old comes.
            (Some(r), None) if self.all_rest() => Some(r.to),
            // Whoever comes first: another one of the old, or a successor.
            (Some(_), None) => None,
        }?;
        let its = |l: &&&Lane| (l.given || l.served) && l.owner().is_none() && l.is_shared_by(next);
        lanes.iter().find(its).map(|l| l.id)
    }

    /// What stays as it is, as far as it is there: where workers have gone over to sockets of their own
    /// their lane is closed. Then canaries have what there is. `None`: nobody has.
    fn still_there(&self, now: &Table, part: Option<&(u8, Deal)>) -> Option<Table> {
        let open = |id: LaneId| {
            let lane = self.lanes.get(id);
            lane.is_some_and(|l| l.state == LaneState::Open)
        };
        let (shut, mut deal) = (now.deal.is_empty(), now.deal.clone());
        deal.keep(open);
        if deal.is_empty() && !shut {
            deal = part?.1.clone();
        }
        Some(Table { deal, part: None })
    }

    /// Steers where it should be steered and is not.
    pub(super) fn steer(&mut self, out: &mut Out) {
        let ports = self.to_choose_from();
        if ports.is_empty() {
            return;
        }
        // A thousand workers have such lanes of their own: they are not counted after each event.
        let some = ports.values().any(|lanes| !self.is_spread(lanes));
        let servers = match some {
            true => self.servers(),
            false => Servers::default(),
        };
        let wanted = |(port, lanes): (PortId, Vec<&Lane>)| {
            let found = match self.is_spread(&lanes) {
                true => self.spread_table(port, &lanes),
                false => {
                    let table = self.wanted_table(port, &lanes, &servers);
                    table.map(|t| (t, None))
                }
            };
            let now = self.lanes.steered.get(&port);
            let part = self.canary_part(port);
            if found.is_none() && now.is_none_or(|now| now.part == part) {
                return None;
            }
            let (mut table, dealt) = match found {
                Some(found) => found,
                None => {
                    let kept = self.still_there(now?, part.as_ref())?;
                    (kept, self.lanes.dealt.get(&port).cloned())
                }
            };
            let all = table.deal.lanes();
            let shut = all.is_empty();
            // (Where canaries have inherited the only lane they get all there is.)
            let apart = |(_, deal): &(u8, Deal)| !shut && deal.lanes() != all;
            table.part = part.filter(apart);
            (now != Some(&table)).then_some((port, table, dealt))
        };
        let changed: Vec<_> = ports.into_iter().filter_map(wanted).collect();
        for (port, table, dealt) in changed {
            match dealt {
                Some(dealt) => self.lanes.dealt.insert(port, dealt),
                None => self.lanes.dealt.remove(&port),
            };
            let named = table.lanes();
            for lane in self.lanes.iter_mut().filter(|l| l.port == port) {
                lane.emptied = false;
                lane.flushed &= !named.contains(&lane.id);
            }
            self.lanes.steered.insert(port, table.clone());
            out.push(Action::Steer { port, table });
        }
        self.flush_unread(out);
    }

    /// Do new connections come by it?
    pub(super) fn is_steered(&self, lane: &Lane) -> bool {
        let table = self.lanes.steered.get(&lane.port);
        table.is_some_and(|t| t.names(lane.id))
    }

    /// Generations that have workers, or are to have some.
    pub(super) fn generations(&self) -> BTreeSet<u32> {
        // (Who still goes from a closed one is among the workers.)
        let slots = self.slots.open().map(|s| s.generation);
        let workers = self.fleet.iter().map(|w| w.generation);
        let target = self.rollout.as_ref().map(|r| r.to);
        let mut all = BTreeSet::from([self.generation]);
        // There are few, of a thousand workers.
        for generation in slots.chain(workers).chain(target) {
            all.insert(generation);
        }
        all
    }

    /// Is there, or will there be, a worker of this generation?
    pub fn is_alive(&self, generation: u32) -> bool {
        self.generations().contains(&generation)
    }

    /// Retires the lanes that nobody serves any more.
    pub(super) fn retire_lanes(&mut self, out: &mut Out) {
        let serving = self.phase == Phase::Serving;
        let old = |l: &Lane| match l.of {
            Of::Generation(_) => {
                serving && (l.last_reader.is_some() || !l.is_shared_by(self.generation))
            }
            Of::Seat(_) => serving,
            Of::Worker(_) => true,
            Of::All => false,
        };
        if !self.lanes.iter().any(old) {
            return;
        }
        let alive = self.generations();
        let seats = self.seats();
        let dead = |l: &&Lane| match l.of {
            Of::Generation(_) => {
                let gone = match l.last_reader {
                    Some(last) => {
                        let mut before = self.fleet.iter().take_while(|w| w.id <= last);
                        !before.any(|w| l.is_for(w.reader()))
                    }
                    None => !alive.iter().any(|g| l.is_shared_by(*g)),
                };
                serving && l.state == LaneState::Open && gone
            }
            Of::Seat(seat) => serving && l.state == LaneState::Open && !seats.contains(&seat),
            Of::Worker(_) => l.state == LaneState::Open && self.is_orphaned(l),
            Of::All => false,
        };
        let dead: Vec<Lane> = self.lanes.iter().filter(dead).cloned().collect();
        for lane in dead {
            // A given port is open as long as we are.
            let last = self.is_steered(&lane) || self.asks() && self.lanes.is_alone(lane.id);
            if last && lane.given && lane.owner().is_none() {
                continue;
            }
            out.push(Action::RetireLane { lane: lane.id });
            self.lanes.remove(lane.id);
            // Others of its port take its share by that.
            if let Some(table) = self.lanes.steered.get_mut(&lane.port) {
                table.keep(|l| l != lane.id);
            }
        }
    }
}
