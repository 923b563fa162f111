//! Lanes of each worker's own (--balance hash, ip, cpu): whose they are, and how new connections are
//! dealt out to them. Rules:
//!
//! 1. A worker has a seat, and each port of TCP a lane for each seat. Who comes after one that has ended
//!    has its seat, and with it what waits in these lanes; who comes beside one has another.
//! 2. What a connection is told from others by is dealt into buckets, and each bucket is at home in a
//!    slot: as many in each, and as few of them move as can be when their number changes; to one that is
//!    added when it is ready for the first time.
//! 3. A bucket whose slot has nobody ready goes to another one, each as its number has it, so that all
//!    take their share; and back when somebody is. So do those of one that says that it is on its way out.
//! 4. By CPU it is the slots whose workers run there (slot modulo CPUs), or all where none of these has
//!    anybody ready.
//! 5. While nobody at all is ready all stays as it is, for those that are wanted: what comes waits for
//!    the next worker of the slot.
//!    Where workers are asked whether they are ready nobody else comes by then: nobody is let in.
//! 6. Ports that can have but one lane, and sockets that are no TCP, are shared as without it.

use super::action::{Action, Opening};
use super::addr::Addr;
use super::ids::{LaneId, PortId, Program, Seat, SlotNr, Time, WorkerId};
use super::lane::{Lane, LaneState, Of, Reader};
use super::policy::{Balance, Takeover};
use super::table::{BUCKETS, Deal, Key, Table};
use super::worker::Worker;
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

/// Slots, in order, and the lane of each. (No map: it is put together after each event.)
type Up = Vec<(u16, LaneId)>;

/// What a table of buckets, or of CPUs, hangs on: as long as it is the same, so is the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Dealt {
    /// The slots that serve, in order, and by which lane.
    up: Up,
    /// Their numbers are below that. (One that is closed keeps its home, in which others stand in.)
    wanted: u16,
    /// Those of them that serve, or have since this table was dealt out for the first time. One that is
    /// added gets its clients when it serves: until then they stay where they were, rather than to come
    /// to a third one in between.
    seen: Vec<u16>,
}

impl Dealt {
    fn after(before: Option<&Dealt>, up: Up, wanted: u16) -> Dealt {
        let had = before.into_iter().flat_map(|d| &d.seen).copied();
        let mut seen: Vec<u16> = up.iter().map(|(slot, _)| *slot).chain(had).collect();
        seen.sort_unstable();
        seen.dedup();
        seen.retain(|slot| *slot < wanted);
        Dealt { up, wanted, seen }
    }
}

/// In which slot each bucket is at home. All are in slot 0; then each slot that is added takes its share
/// from those that have the most, if it counts: else they stay, but the next ones take from it. So it hangs
/// on their number and on who counts alone; and from one number to the next, or if one more counts, only
/// those of one slot move.
fn homes(slots: u16, counts: impl Fn(u16) -> bool) -> Vec<u16> {
    let mut of = vec![0; BUCKETS];
    let mut theirs: Vec<Vec<usize>> = vec![(0..BUCKETS).collect()];
    let mut most: BinaryHeap<(usize, u16)> = [(BUCKETS, 0)].into();
    for slot in 1..slots {
        let share = BUCKETS / (usize::from(slot) + 1);
        let mut its = Vec::with_capacity(share);
        while its.len() < share
            && let Some((_, from)) = most.pop()
        {
            // (It is in the heap since it is in the list.)
            let Some(left) = theirs.get_mut(usize::from(from)) else {
                continue;
            };
            its.extend(left.pop());
            most.push((left.len(), from));
        }
        for bucket in its.iter().filter(|_| counts(slot)) {
            if let Some(at) = of.get_mut(*bucket) {
                *at = slot;
            }
        }
        most.push((its.len(), slot));
        theirs.push(its);
    }
    of
}

/// How much that slot would like to stand in for the home of that bucket.
fn liking(bucket: usize, slot: u16) -> u64 {
    let mut x = (bucket as u64) << 16 | u64::from(slot);
    for _ in 0..2 {
        x = (x ^ x >> 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    x ^ x >> 29
}

/// Each bucket to the lane of its home, or of whoever stands in for that.
fn buckets(homes: &[u16], up: &Up) -> Vec<LaneId> {
    let mut all = Vec::with_capacity(homes.len());
    for (bucket, home) in homes.iter().enumerate() {
        let its = match up.binary_search_by_key(home, |(slot, _)| *slot) {
            Ok(at) => up.get(at),
            Err(_) => up.iter().max_by_key(|(slot, _)| liking(bucket, *slot)),
        };
        all.extend(its.map(|(_, lane)| *lane));
    }
    all
}

/// Each CPU to the lanes of those that run there.
fn by_cpu(cpus: &[u16], slots: u16, up: &Up) -> Vec<(u16, Vec<LaneId>)> {
    let cpus = match cpus {
        [] => &[0],
        some => some,
    };
    let count = cpus.len();
    let few = usize::from(slots) < count;
    let runs = |cpu: usize, slot: u16| match few {
        true => cpu % usize::from(slots) == usize::from(slot),
        false => usize::from(slot) % count == cpu,
    };
    let of = |(nr, cpu): (usize, &u16)| {
        let its = up.iter().filter(|(slot, _)| runs(nr, *slot));
        let mut lanes: Vec<LaneId> = its.map(|(_, lane)| *lane).collect();
        if lanes.is_empty() {
            lanes.extend(up.iter().map(|(_, lane)| *lane));
        }
        // Those below the first that we may use are nobody's else.
        (if nr == 0 { 0 } else { *cpu }, lanes)
    };
    cpus.iter().enumerate().map(of).collect()
}

impl Cluster {
    /// A new worker, which is to be forked; it is handed lanes of its own where it has some.
    pub(super) fn enlist(
        &mut self,
        slot: SlotNr,
        generation: u32,
        program: Program,
        now: Time,
        out: &mut Out,
    ) -> WorkerId {
        let seat = self.seat_in(slot);
        let reader = Reader { generation, seat };
        self.lanes.pass_on(seat);
        self.open_seat(reader, out);
        let watched = self.policy.takeover != Takeover::Off;
        let worker = self.fleet.enlist(slot, reader, watched, now);
        let limit = self.ready_limit(slot, generation);
        if let Some(w) = self.fleet.get_mut(worker) {
            (w.program, w.ready_limit) = (program, limit);
        }
        self.draw_share(worker);
        out.push(Action::Spawn {
            worker,
            slot,
            program,
            reader,
        });
        worker
    }

    /// So long a worker has to be ready that is forked for that slot now.
    fn ready_limit(&self, slot: SlotNr, generation: u32) -> Option<Duration> {
        let terms = self.rollout.as_ref().filter(|r| r.to == generation);
        let asked = terms.and_then(|r| r.terms.ready);
        asked
            .or(self.start_limit(slot))
            .or(self.policy.ready_timeout)
    }

    /// The seat of whoever comes into that slot now.
    pub(super) fn seat_in(&mut self, slot: SlotNr) -> Seat {
        let left = self.slots.get(slot.index()).and_then(|s| s.seat);
        let taken = |seat: &Seat| {
            let mut unreaped = self.fleet.iter().filter(|w| w.unreaped());
            unreaped.any(|w| w.seat == *seat)
        };
        match left {
            Some(seat) if !taken(&seat) => seat,
            Some(_) | None => {
                self.seats += 1;
                Seat(self.seats)
            }
        }
    }

    /// A lane at each given port, for a seat that has none there.
    fn open_seat(&mut self, reader: Reader, out: &mut Out) {
        if !self.lanes.spread {
            return;
        }
        let mut first: BTreeMap<PortId, LaneId> = BTreeMap::new();
        let open = |l: &&Lane| l.given && l.state == LaneState::Open && l.addr.tcp().is_some();
        for lane in self.lanes.iter().filter(open) {
            first.entry(lane.port).or_insert(lane.id);
        }
        for (port, first) in first {
            if self.lanes.at(port, reader).is_some() {
                continue;
            }
            let state = LaneState::Opening(None);
            let of = Of::Seat(reader.seat);
            if let Some(lane) = self.lanes.add_beside(first, of, state) {
                self.open_lane(lane, Opening::Beside { first }, out);
                // Nobody was looked for there yet.
                self.unserved_looks = 0;
            }
        }
    }

    /// Has each worker a lane of its own there?
    pub(super) fn is_spread(&self, lanes: &[&Lane]) -> bool {
        let fits = |l: &&Lane| matches!(l.addr, Addr::Tcp(_)) && l.of != Of::All;
        self.lanes.spread && lanes.iter().all(fits)
    }

    /// Seats that somebody has, or will have.
    pub(super) fn seats(&self) -> BTreeSet<Seat> {
        let slots = self.slots.iter().filter(|s| s.rest.is_none());
        let slots = slots.filter_map(|s| s.seat);
        slots.chain(self.fleet.iter().map(|w| w.seat)).collect()
    }

    /// By which lane this worker gets what comes to that port.
    pub(super) fn lane_of(&self, port: PortId, w: &Worker) -> Option<LaneId> {
        let serves = |l: &&Lane| l.port == port && l.state == LaneState::Open;
        if w.owns.contains(&port) {
            let own = self.lanes.of(Of::Worker(w.id)).filter(serves);
            return own.filter(|l| l.served).map(|l| l.id).last();
        }
        let counts = |l: &&Lane| l.served && !l.stale || l.given && !self.has_own(l);
        let counts = |l: &&Lane| serves(l) && counts(l);
        let shared = || {
            let mut shared = self.lanes.shared_of(w.id, w.reader());
            shared.find(|l| l.of != Of::All && counts(l))
        };
        let own = self.lanes.of(Of::Seat(w.seat)).find(counts);
        own.or_else(shared).map(|l| l.id)
    }

    /// Where the new connections of such a port should go, and what that hangs on; `None`: as they do.
    pub(super) fn spread_table(
        &self,
        port: PortId,
        lanes: &[&Lane],
    ) -> Option<(Table, Option<Dealt>)> {
        let bound = self.slots.bound();
        let ready = |(nr, id): (u16, WorkerId)| {
            let w = self.fleet.get(id).filter(|w| w.is_ready())?;
            Some((nr, self.lane_of(port, w)?, w.announced))
        };
        let current = (0u16..).zip(self.slots.iter()).filter(|(_, s)| !s.closed);
        let current = current.filter_map(|(nr, s)| Some((nr, s.current?)));
        let all: Vec<(u16, LaneId, bool)> = current.filter_map(ready).collect();
        // One that is on its way out by itself may take nothing any more.
        let stays = all.iter().any(|(.., announced)| !announced);
        let up = all.into_iter().filter(|(.., goes)| !(stays && *goes));
        let up: Up = up.map(|(nr, lane, _)| (nr, lane)).collect();
        let (table, dealt) = match up.as_slice() {
            [] if self.lanes.owned.is_at(port) || self.asks() => (Table::default(), None),
            [] => (self.kept_table(port, lanes)?, None),
            [(_, only)] => (Table::only(*only), None),
            [_, _, ..] => {
                let before = self.lanes.dealt.get(&port);
                let dealt = Dealt::after(before, up, bound);
                if before == Some(&dealt) {
                    return None;
                }
                let deal = self.deal(&dealt);
                (Table { deal, part: None }, Some(dealt))
            }
        };
        Some((table, dealt))
    }

    fn deal(&self, to: &Dealt) -> Deal {
        let Dealt { up, wanted, seen } = to;
        let key = match self.policy.balance {
            Balance::Ip => Key::Client,
            Balance::Hash | Balance::Shared => Key::Connection,
            Balance::Cpu => return Deal::Cpus(by_cpu(&self.policy.cpus, *wanted, up)),
        };
        let counts = |slot| seen.binary_search(&slot).is_ok();
        Deal::Buckets(key, buckets(&homes(*wanted, counts), up))
    }

    /// Nobody is ready: it stays as it is, as far as somebody will be; else it is for the first slot.
    /// This is asked after each event while a thousand start or stop: nothing is looked for in a list.
    fn kept_table(&self, port: PortId, lanes: &[&Lane]) -> Option<Table> {
        let wanted = self.slots.open().filter(|s| s.rest.is_none());
        let of: BTreeSet<Of> = wanted.filter_map(|s| s.seat).map(Of::Seat).collect();
        let mut table = self.lanes.steered.get(&port)?.clone();
        let named = table.lanes();
        let theirs = lanes.iter().filter(|l| of.contains(&l.of));
        let theirs: BTreeSet<LaneId> = theirs.map(|l| l.id).collect();
        if named.is_subset(&theirs) && !named.is_empty() {
            return Some(table);
        }
        table.keep(|l| theirs.contains(&l));
        match table.is_empty() {
            false => Some(table),
            true => Some(Table::only(self.first_wanted(&theirs)?)),
        }
    }

    /// Of these lanes, that of the first slot that has one.
    fn first_wanted(&self, lanes: &BTreeSet<LaneId>) -> Option<LaneId> {
        let seats = self.slots.iter().filter_map(|s| s.seat);
        let its = |seat| {
            self.lanes
                .of(Of::Seat(seat))
                .find(|l| lanes.contains(&l.id))
        };
        seats.filter_map(its).map(|l| l.id).next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(of: &[u16], slots: u16) -> Vec<usize> {
        let n = |slot| of.iter().filter(|s| **s == slot).count();
        (0..slots).map(n).collect()
    }

    #[test]
    fn homes_are_even_and_only_those_of_one_slot_move_when_one_is_added() {
        let all = |slots| homes(slots, |_| true);
        let mut before = all(1);
        for slots in 2..=1024u16 {
            let now = all(slots);
            let n = count(&now, slots);
            let (least, most) = (n.iter().min().unwrap(), n.iter().max().unwrap());
            assert!(
                *least >= 1 && most - least <= 1 + BUCKETS / 64,
                "{slots}: {least} {most}"
            );
            let moved = before.iter().zip(&now).filter(|(a, b)| a != b);
            assert!(moved.clone().all(|(_, to)| *to == slots - 1), "{slots}");
            assert_eq!(moved.count(), BUCKETS / usize::from(slots), "{slots}");
            before = now;
        }
    }

    #[test]
    fn one_more_that_counts_takes_its_own_and_nobody_elses() {
        let among = |some: &[u16]| homes(7, |slot| some.contains(&slot));
        let (mut counts, mut before) = (vec![0], among(&[0]));
        for slot in [3, 6, 1, 5, 2, 4] {
            counts.push(slot);
            let now = among(&counts);
            let moved: Vec<u16> = before
                .iter()
                .zip(&now)
                .filter_map(|(a, b)| (a != b).then_some(*b))
                .collect();
            assert!(!moved.is_empty() && moved.iter().all(|to| *to == slot));
            before = now;
        }
        assert_eq!(before, homes(7, |_| true));
    }

    #[test]
    fn who_stands_in_for_a_slot_is_different_for_its_buckets_and_all_others_stay() {
        let h = homes(4, |_| true);
        let all: Up = (0..4).map(|n| (n, LaneId(u64::from(n)))).collect();
        let whole = buckets(&h, &all);
        let mut some = all.clone();
        some.remove(2);
        let now = buckets(&h, &some);
        let mut went: BTreeMap<LaneId, usize> = BTreeMap::new();
        for (old, new) in whole.iter().zip(&now) {
            match *old == LaneId(2) {
                true => *went.entry(*new).or_default() += 1,
                false => assert_eq!(old, new),
            }
        }
        assert!(
            went.len() == 3 && went.values().all(|n| (50..120).contains(n)),
            "{went:?}"
        );
        // Another one fails: those of the first that it stood in for move, no others of them.
        some.remove(2);
        let then = buckets(&h, &some);
        for (old, new) in now.iter().zip(&then).filter(|(old, _)| **old != LaneId(3)) {
            assert_eq!(old, new);
        }
        assert_eq!(buckets(&h, &all), whole);
    }

    #[test]
    fn each_cpu_has_its_workers_or_all_when_these_are_not_there() {
        let lane = |n: u64| LaneId(n);
        let up =
            |slots: &[u16]| -> Up { slots.iter().map(|n| (*n, LaneId(u64::from(*n)))).collect() };
        let four = by_cpu(&[2, 3], 4, &up(&[0, 1, 2, 3]));
        assert_eq!(
            four,
            [(0, vec![lane(0), lane(2)]), (3, vec![lane(1), lane(3)])]
        );
        let one_side = by_cpu(&[2, 3], 4, &up(&[1, 3]));
        assert_eq!(
            one_side,
            [(0, vec![lane(1), lane(3)]), (3, vec![lane(1), lane(3)])]
        );
        let few = by_cpu(&[0, 1, 2], 2, &up(&[0, 1]));
        assert_eq!(
            few,
            [(0, vec![lane(0)]), (1, vec![lane(1)]), (2, vec![lane(0)])]
        );
    }
}
