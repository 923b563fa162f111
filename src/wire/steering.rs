//! Classic BPF for the kernel: which lane of a port gets a new connection, and that none gets any.
//!
//! A steering program sees every SYN (or the ACK that ends a handshake of SYN cookies) and returns the
//! index, within the group of sockets that share the port, of the one that gets the connection. What
//! it returns must be in the group: otherwise the kernel falls back to its own hash over all of them.
//!
//! Jumps are of eight bits and forwards only, so what is chosen from is a tree of comparisons, and what
//! is out of reach is jumped to by one more instruction.

pub mod bucket;
pub(super) mod ins;

use crate::core::{self, Key, LaneId};
use ins::*;
pub use ins::{Ins, raw};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// So many lanes are told apart: one for each worker there may be, and for each generation alive.
pub const MAX_LANES: usize = 1024 + 8;
/// The greatest weight of a lane.
pub const MAX_WEIGHT: u32 = 1024;
/// More instructions the kernel takes from nobody (BPF_MAXINSNS).
pub const MOST: usize = 4096;
/// An index that no group has.
const NOWHERE: u32 = u32::MAX;

/// What gets the new connections of one port: core's table, by the places of its lanes in their group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// How they are dealt out.
    pub deal: Deal,
    /// So many of 100 of them are dealt out so instead.
    pub part: Option<(u8, Deal)>,
}

/// How connections are dealt out, by index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deal {
    /// At random, each in proportion.
    Shares(Vec<(u32, u32)>),
    /// By what they have in common: of each bucket the lane.
    Buckets(Key, Vec<u32>),
    /// By the CPU: those from that number on to one of these at random.
    Cpus(Vec<(u16, Vec<u32>)>),
}

impl Table {
    /// Of one that names no others than these, which are there.
    pub fn of(table: &core::Table, at: &BTreeMap<LaneId, u32>) -> Table {
        Table {
            deal: Deal::of(&table.deal, at),
            part: table.part.as_ref().map(|(n, d)| (*n, Deal::of(d, at))),
        }
    }

    /// All to that one.
    pub fn only(index: u32) -> Table {
        Table::shares(&[(index, 1)])
    }

    /// In proportion.
    pub fn shares(all: &[(u32, u32)]) -> Table {
        Table {
            deal: Deal::Shares(all.to_vec()),
            part: None,
        }
    }

    fn deals(&mut self) -> impl Iterator<Item = &mut Deal> {
        let part = self.part.iter_mut().map(|(_, deal)| deal);
        std::iter::once(&mut self.deal).chain(part)
    }

    /// By how many buckets is it dealt, if it is?
    pub fn buckets(&self) -> Option<(Key, usize)> {
        let part = self.part.iter().map(|(_, deal)| deal);
        let count = |deal: &Deal| match deal {
            Deal::Buckets(key, all) => Some((*key, all.len())),
            Deal::Shares(_) | Deal::Cpus(_) => None,
        };
        let all = std::iter::once(&self.deal).chain(part);
        all.filter_map(count).max_by_key(|(_, n)| *n)
    }

    /// For a kernel that does not take a program of that size: with half as many buckets, while each
    /// lane still has one; else at random. Can it be any smaller?
    pub fn shrink(&mut self) -> bool {
        let mut less = false;
        self.deals().for_each(|deal| less |= deal.halve());
        if !less {
            self.deals().for_each(|deal| less |= deal.toss());
        }
        less
    }
}

impl Deal {
    fn of(deal: &core::Deal, at: &BTreeMap<LaneId, u32>) -> Deal {
        let each = |lanes: &[LaneId]| lanes.iter().filter_map(|l| at.get(l).copied()).collect();
        match deal {
            core::Deal::Shares(all) => {
                let entry = |(lane, weight): &(LaneId, u16)| {
                    at.get(lane).map(|index| (*index, u32::from(*weight)))
                };
                Deal::Shares(all.iter().filter_map(entry).collect())
            }
            core::Deal::Buckets(key, all) => Deal::Buckets(*key, each(all)),
            core::Deal::Cpus(all) => {
                Deal::Cpus(all.iter().map(|(from, l)| (*from, each(l))).collect())
            }
        }
    }

    /// Each two neighbours become one: the clients of the first stay where they are.
    fn halve(&mut self) -> bool {
        let Deal::Buckets(_, all) = self else {
            return false;
        };
        let mut has: BTreeMap<u32, usize> = all.iter().map(|lane| (*lane, 0)).collect();
        let half = all.len() / 2;
        if half == 0 || has.len() > half {
            return false;
        }
        let mut left: Vec<u32> = all.iter().step_by(2).copied().collect();
        let count = |lane: &u32| *has.entry(*lane).or_default() += 1;
        left.iter().for_each(count);
        // None goes empty: it has the bucket of one that has others, one of its own if it can be.
        let none: Vec<u32> = has
            .iter()
            .filter(|(_, n)| **n == 0)
            .map(|(l, _)| *l)
            .collect();
        let mut odd: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (b, lane) in all.iter().skip(1).step_by(2).enumerate() {
            odd.entry(*lane).or_default().push(b);
        }
        let mut next = 0;
        for lane in none {
            let of = |b: usize| left.get(b).and_then(|lane| has.get(lane));
            let rich = |b: &usize| of(*b).is_some_and(|n| *n > 1);
            let own = odd
                .get(&lane)
                .and_then(|all| all.iter().copied().find(rich));
            let at = own.or_else(|| (next..half).find(rich));
            if let Some((at, bucket)) = at.and_then(|at| Some((at, left.get_mut(at)?))) {
                next = if own.is_none() { at } else { next };
                has.entry(*bucket).and_modify(|n| *n -= 1);
                has.insert(lane, 1);
                *bucket = lane;
            }
        }
        *all = left;
        true
    }

    /// To the same ones at random.
    fn toss(&mut self) -> bool {
        let mut all: Vec<u32> = match self {
            Deal::Shares(_) => return false,
            Deal::Buckets(_, all) => all.clone(),
            Deal::Cpus(all) => all.iter().flat_map(|(_, lanes)| lanes).copied().collect(),
        };
        all.sort_unstable();
        all.dedup();
        *self = Deal::Shares(all.into_iter().map(|index| (index, 1)).collect());
        true
    }

    fn program(&self) -> Vec<Ins> {
        match self {
            Deal::Shares(all) => shares(all),
            Deal::Buckets(key, all) => buckets(*key, all),
            Deal::Cpus(all) => cpus(all),
        }
    }
}

/// Deals new connections out as the table says. Of lanes that share by weight one of weight 0 gets
/// none, at most `MAX_LANES` are looked at, and no weight counts for more than `MAX_WEIGHT`. If nothing
/// is left to steer to, the kernel deals as it would without a program.
pub fn program(table: &Table) -> Vec<Ins> {
    let all = table.deal.program();
    let Some((percent, part)) = &table.part else {
        return all;
    };
    // One client always meets the same code.
    let mut whole = match &table.deal {
        Deal::Buckets(Key::Client, _) => bucket::percentile(),
        Deal::Shares(_) | Deal::Buckets(Key::Connection, _) | Deal::Cpus(_) => {
            vec![Ins::new(LOAD_WORD, RANDOM), Ins::new(MOD, 100)]
        }
    };
    let part = part.program();
    whole.extend(from(u32::from(*percent), part.len()));
    whole.extend(part);
    whole.extend(all);
    whole
}

/// Each in proportion to its weight. Neighbours of weight 1 are one leaf.
fn shares(all: &[(u32, u32)]) -> Vec<Ins> {
    let some = all.iter().take(MAX_LANES).filter(|(_, w)| *w > 0);
    let mut some: Vec<(u32, u32)> = some.map(|(i, w)| (*i, (*w).min(MAX_WEIGHT))).collect();
    some.sort_unstable();
    let total = some.iter().map(|(_, w)| w).sum();
    let mut leaves: Vec<(u32, Vec<Ins>)> = Vec::new();
    let (mut below, mut before) = (0, None);
    for (index, weight) in some {
        let next = |(i, w): (u32, u32)| w == 1 && weight == 1 && i.checked_add(1) == Some(index);
        match (before.is_some_and(next), leaves.last_mut()) {
            (true, Some((first, leaf))) => {
                let add = (index - (below - *first)).wrapping_sub(*first);
                *leaf = vec![Ins::new(ADD, add), Ins::new(RET_A, 0)];
            }
            _ => leaves.push((below, vec![Ins::new(RET, index)])),
        }
        below += weight;
        before = Some((index, weight));
    }
    let mut whole = match leaves.as_slice() {
        // One needs no dice.
        [] => Vec::new(),
        [(_, leaf)] if leaf.len() == 1 => Vec::new(),
        _ => vec![Ins::new(LOAD_WORD, RANDOM), Ins::new(MOD, total)],
    };
    whole.extend(tree(&leaves));
    whole
}

/// Two buckets are one leaf: each comparison is between leaves, and a return takes more room in the
/// kernel than what picks one of two. So there is room for 1,024 where net.core.optmem_max is 20480.
fn buckets(key: Key, all: &[u32]) -> Vec<Ins> {
    let first = all.first().copied().unwrap_or(NOWHERE);
    if all.iter().all(|lane| *lane == first) {
        return vec![Ins::new(RET, first)];
    }
    let mut runs: Vec<(u32, [u32; 2])> = Vec::new();
    for (at, two) in (0..).step_by(2).zip(all.chunks(2)) {
        let one = |lane: Option<&u32>| lane.copied().unwrap_or(NOWHERE);
        let two = [one(two.first()), one(two.last())];
        if runs.last().is_none_or(|(_, before)| *before != two) {
            runs.push((at, two));
        }
    }
    let leaf = |[even, odd]: [u32; 2]| match even == odd {
        true => vec![Ins::new(RET, even)],
        false => vec![
            Ins::new(LOAD, odd << 16 | even & 0xffff),
            Ins::new(JA, TO_END),
        ],
    };
    let leaves: Vec<(u32, Vec<Ins>)> = runs.into_iter().map(|(at, two)| (at, leaf(two))).collect();
    let mut whole = bucket::of(key, all.len());
    // X: by how much the pair is shifted.
    whole.extend([
        Ins::new(STORE, 0),
        Ins::new(AND, 1),
        Ins::new(LSH, 4),
        Ins::new(TAX, 0),
        Ins::new(LOAD_KEPT, 0),
    ]);
    whole.extend(tree(&leaves));
    let end = whole.len();
    for (at, i) in whole.iter_mut().enumerate() {
        if i.code == JA && i.k == TO_END {
            i.k = u32::try_from(end - at - 1).unwrap_or(0);
        }
    }
    whole.extend([
        Ins::new(RSH_X, 0),
        Ins::new(AND, 0xffff),
        Ins::new(RET_A, 0),
    ]);
    whole
}

/// By the number of the CPU.
fn cpus(all: &[(u16, Vec<u32>)]) -> Vec<Ins> {
    let mut runs: Vec<(u16, &[u32])> = Vec::new();
    for (from, lanes) in all {
        if runs.last().is_none_or(|(_, before)| before != lanes) {
            runs.push((*from, lanes));
        }
    }
    let leaf = |lanes: &[u32]| shares(&lanes.iter().map(|l| (*l, 1)).collect::<Vec<_>>());
    let leaves = runs
        .into_iter()
        .map(|(from, lanes)| (u32::from(from), leaf(lanes)));
    let mut whole = vec![Ins::new(LOAD_WORD, CPU)];
    whole.extend(tree(&leaves.collect::<Vec<_>>()));
    whole
}

/// Goes on by what A is: each leaf is for what is at or above its number, and below the next one's.
fn tree(leaves: &[(u32, Vec<Ins>)]) -> Vec<Ins> {
    match leaves {
        [] => vec![Ins::new(RET, NOWHERE)],
        [(_, leaf)] => leaf.clone(),
        _ => {
            let (low, high) = leaves.split_at(leaves.len() / 2);
            let below = tree(low);
            let least = high.first().map_or(0, |(at, _)| *at);
            let mut whole = from(least, below.len());
            whole.extend(below);
            whole.extend(tree(high));
            whole
        }
    }
}

/// Where A is at or above that, so many instructions are skipped.
fn from(least: u32, skipped: usize) -> Vec<Ins> {
    match u8::try_from(skipped) {
        Ok(near) => vec![Ins::jump(JGE, least, near, 0)],
        Err(_) => vec![
            Ins::jump(JGE, least, 0, 1),
            Ins::new(JA, u32::try_from(skipped).unwrap_or(0)),
        ],
    }
}

/// A filter for a listening socket: segments that open a connection (SYN without ACK) are dropped,
/// all others pass, so that handshakes under way are completed. Their clients try again as long as
/// they have patience: it is neither refused nor lost if the filter goes in time.
///
/// It sees the segment from its TCP header on, whose byte 13 holds the flags. Connections inherit it,
/// and none of them is harmed by it.
pub fn refuse_new() -> Vec<Ins> {
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    vec![
        Ins::new(LOAD_BYTE, FLAGS),
        Ins::new(AND, SYN | ACK),
        Ins::jump(JEQ, SYN, 0, 1),
        Ins::new(RET, 0),
        Ins::new(RET, u32::MAX),
    ]
}

/// The same, but who comes from there may open one.
pub fn refuse_but(from: SocketAddr) -> Vec<Ins> {
    let mut all = refuse_new();
    let open = all.split_off(3);
    let let_in = only_from(from, vec![Ins::new(RET, u32::MAX)]);
    // (SYN falls through to it, all else is let in as before.)
    let past = u8::try_from(let_in.len() + 1).unwrap_or(0);
    // The question for the SYN.
    if let Some(asks) = all.last_mut() {
        *asks = Ins::jump(JEQ, asks.k, 0, past);
    }
    all.extend(let_in);
    all.extend(open);
    all
}

/// What comes from these goes to the lane of that index, whatever the program says of all others.
pub fn ahead(from: &[(SocketAddr, u32)], program: Vec<Ins>) -> Vec<Ins> {
    let one = |(from, index): &(SocketAddr, u32)| only_from(*from, vec![Ins::new(RET, *index)]);
    let mut all: Vec<Ins> = from.iter().flat_map(one).collect();
    all.extend(program);
    all
}

/// Goes on with that for what comes from there, and behind it for all else.
fn only_from(from: SocketAddr, then: Vec<Ins>) -> Vec<Ins> {
    let word = |at: u32, is: u32| (vec![Ins::new(LOAD_WORD, NET + at)], is);
    let version = |is| (vec![Ins::new(LOAD_BYTE, NET), Ins::new(AND, 0xf0)], is);
    let port = u32::from(from.port());
    let mut steps: Vec<(Vec<Ins>, u32)> = Vec::new();
    match from.ip() {
        IpAddr::V4(ip) => {
            // Behind what options there are.
            let load = vec![Ins::new(LOADX_HEADER, NET), Ins::new(LOAD_HALF_X, NET)];
            steps.extend([version(0x40), word(12, ip.to_bits()), (load, port)]);
        }
        IpAddr::V6(ip) => {
            steps.push(version(0x60));
            let words = bucket::words(ip).into_iter().zip([8, 12, 16, 20]);
            steps.extend(words.map(|(is, at)| word(at, is)));
            steps.push((vec![Ins::new(LOAD_HALF, NET + 40)], port));
        }
    }
    let total: usize = steps.iter().map(|(load, _)| load.len() + 1).sum();
    let total = total + then.len();
    let mut all = Vec::with_capacity(total);
    for (load, is) in steps {
        all.extend(load);
        let rest = u8::try_from(total - all.len() - 1).unwrap_or(0);
        all.push(Ins::jump(JEQ, is, 0, rest));
    }
    all.extend(then);
    all
}

/// A filter for a connection: nothing more that the client says gets in, but what it acknowledges does.
/// The kernel cuts a segment down to what a filter returns, but never into its header; so 1 is a header
/// alone, whose data is not acknowledged and is sent again. The end of the client's words is dropped
/// altogether, or it would come before those that are held back.
pub fn hold_back() -> Vec<Ins> {
    const FLAGS: u32 = 13;
    const FIN: u32 = 0x01;
    vec![
        Ins::new(LOAD_BYTE, FLAGS),
        Ins::new(AND, FIN),
        Ins::jump(JEQ, FIN, 0, 1),
        Ins::new(RET, 0),
        Ins::new(RET, 1),
    ]
}

#[cfg(test)]
mod tests;
