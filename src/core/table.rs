//! Where the new connections of a port go, as the kernel is to be told: core says which lanes, the shell
//! where these are in their group, `wire` by which program.

use super::ids::LaneId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// So many buckets clients or connections are dealt into, so that every worker there may be has some.
pub const BUCKETS: usize = 1024;

/// What gets the new connections of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// How they are dealt out.
    pub deal: Deal,
    /// So many of 100 of them are dealt out so instead.
    pub part: Option<(u8, Deal)>,
}

/// How connections are dealt out to lanes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Deal {
    /// At random, each lane in proportion. None at all: who comes waits outside, and tries again.
    Shares(Vec<(LaneId, u16)>),
    /// By what they have in common: of each bucket the lane. Their number is a power of two.
    Buckets(Key, Vec<LaneId>),
    /// By the CPU that has received them: those from that number on, up to the next, to one of these
    /// at random. In the order of the numbers, of which the first is 0.
    Cpus(Vec<(u16, Vec<LaneId>)>),
}

/// What the connections of one bucket have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Key {
    /// Address and port of their client: nothing but chance.
    Connection,
    /// The address of their client: of IPv6 its first half, which is one household's.
    Client,
}

impl Default for Deal {
    fn default() -> Deal {
        Deal::Shares(Vec::new())
    }
}

/// Of buckets how many each lane has: a thousand numbers tell nobody anything.
impl fmt::Debug for Deal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deal::Shares(all) => f.debug_tuple("Shares").field(all).finish(),
            Deal::Buckets(key, all) => {
                let mut count: BTreeMap<LaneId, usize> = BTreeMap::new();
                for lane in all {
                    *count.entry(*lane).or_default() += 1;
                }
                f.debug_tuple("Buckets").field(key).field(&count).finish()
            }
            Deal::Cpus(all) => f.debug_tuple("Cpus").field(all).finish(),
        }
    }
}

impl Deal {
    /// Only these are there: they take the share of the others.
    pub fn keep(&mut self, there: impl Fn(LaneId) -> bool) {
        match self {
            Deal::Shares(all) => all.retain(|(lane, _)| there(*lane)),
            Deal::Buckets(_, all) => {
                let left: BTreeSet<LaneId> = all.iter().copied().filter(|l| there(*l)).collect();
                let mut others = left.iter().copied().cycle();
                all.retain(|_| !left.is_empty());
                for lane in all.iter_mut().filter(|l| !there(**l)) {
                    *lane = others.next().unwrap_or(*lane);
                }
            }
            Deal::Cpus(all) => {
                let left = all.iter().flat_map(|(_, lanes)| lanes).copied();
                let left: BTreeSet<LaneId> = left.filter(|l| there(*l)).collect();
                all.retain(|_| !left.is_empty());
                for (_, lanes) in all.iter_mut() {
                    lanes.retain(|l| there(*l));
                    if lanes.is_empty() {
                        lanes.extend(&left);
                    }
                }
            }
        }
    }

    /// Those that may get some.
    pub fn lanes(&self) -> BTreeSet<LaneId> {
        match self {
            Deal::Shares(all) => all.iter().map(|(lane, _)| *lane).collect(),
            Deal::Buckets(_, all) => all.iter().copied().collect(),
            Deal::Cpus(all) => all.iter().flat_map(|(_, lanes)| lanes).copied().collect(),
        }
    }

    /// Is one of those like that? (It is asked after each event: there are a thousand buckets to sort.)
    fn any(&self, like: impl Fn(LaneId) -> bool) -> bool {
        match self {
            Deal::Shares(all) => all.iter().any(|(lane, _)| like(*lane)),
            Deal::Buckets(_, all) => all.iter().any(|lane| like(*lane)),
            Deal::Cpus(all) => {
                let mut lanes = all.iter().flat_map(|(_, lanes)| lanes);
                lanes.any(|lane| like(*lane))
            }
        }
    }

    /// Does nobody get any?
    pub fn is_empty(&self) -> bool {
        !self.any(|_| true)
    }
}

impl Table {
    /// In proportion.
    pub fn shares(all: Vec<(LaneId, u16)>) -> Table {
        Table {
            deal: Deal::Shares(all),
            part: None,
        }
    }

    /// All to that one.
    pub fn only(lane: LaneId) -> Table {
        Table::shares(vec![(lane, 1)])
    }

    /// Only these lanes are there: they take the share of the others.
    pub fn keep(&mut self, there: impl Fn(LaneId) -> bool) {
        self.deal.keep(&there);
        if let Some((_, part)) = &mut self.part {
            part.keep(&there);
        }
        let some = |(_, part): &(u8, Deal)| !part.is_empty();
        self.part = self.part.take().filter(some);
        if self.deal.is_empty()
            && let Some((_, part)) = self.part.take()
        {
            self.deal = part;
        }
    }

    /// Those that may get some.
    pub fn lanes(&self) -> BTreeSet<LaneId> {
        let mut all = self.deal.lanes();
        all.extend(self.part.iter().flat_map(|(_, deal)| deal.lanes()));
        all
    }

    /// Is it one of those?
    pub fn names(&self, lane: LaneId) -> bool {
        self.any(|l| l == lane)
    }

    fn any(&self, like: impl Fn(LaneId) -> bool) -> bool {
        let part = self.part.as_ref();
        self.deal.any(&like) || part.is_some_and(|(_, deal)| deal.any(&like))
    }

    /// Does it name none?
    pub fn is_empty(&self) -> bool {
        !self.any(|_| true)
    }

    /// Is that one all that it names?
    pub fn is_only(&self, lane: LaneId) -> bool {
        !self.is_empty() && !self.any(|l| l != lane)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: LaneId = LaneId(1);
    const B: LaneId = LaneId(2);
    const C: LaneId = LaneId(3);

    fn without(gone: LaneId, mut deal: Deal) -> Deal {
        deal.keep(|l| l != gone);
        deal
    }

    #[test]
    fn the_others_take_the_share_of_one_that_has_gone_and_keep_their_own() {
        let shares = Deal::Shares(vec![(A, 1), (B, 3)]);
        assert_eq!(without(A, shares), Deal::Shares(vec![(B, 3)]));
        let by = Key::Client;
        assert_eq!(
            without(C, Deal::Buckets(by, vec![A, C, B, C])),
            Deal::Buckets(by, vec![A, A, B, B])
        );
        assert_eq!(
            without(B, Deal::Cpus(vec![(0, vec![A, B]), (2, vec![B])])),
            Deal::Cpus(vec![(0, vec![A]), (2, vec![A])])
        );
        for none in [
            without(A, Deal::Shares(vec![(A, 1)])),
            without(A, Deal::Buckets(by, vec![A, A])),
            without(A, Deal::Cpus(vec![(0, vec![A])])),
        ] {
            assert!(none.is_empty(), "{none:?}");
        }
    }

    #[test]
    fn a_part_goes_with_its_last_lane_and_is_all_when_the_rest_has_gone() {
        let of = |part: Option<(u8, Deal)>| Table {
            deal: Deal::Shares(vec![(A, 1)]),
            part,
        };
        let both = of(Some((10, Deal::Shares(vec![(B, 1)]))));
        let mut table = both.clone();
        table.keep(|l| l != B);
        assert_eq!(table, of(None));
        let mut table = both.clone();
        table.keep(|l| l != A);
        assert!(table.is_only(B) && table.part.is_none(), "{table:?}");
        let mut table = both.clone();
        table.keep(|_| true);
        assert_eq!(table, both);
        table.keep(|_| false);
        assert!(table.is_empty() && table.part.is_none(), "{table:?}");
        assert!(both.names(A) && both.names(B) && !both.names(C) && !both.is_only(A));
    }
}
