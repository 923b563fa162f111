//! CPU time by slot, as a count that only grows: that of the workers there are, as it was last read, and of
//! all that there were. A worker's own goes on to be that of its slot when it ends.

use crate::core::{SlotNr, WorkerId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// In microseconds. As many slots as there can be, and the workers that are alive.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Spent {
    by_gone: BTreeMap<SlotNr, u64>,
    living: BTreeMap<WorkerId, Life>,
}

/// Of one that is alive.
#[derive(Debug, Serialize, Deserialize)]
struct Life {
    slot: SlotNr,
    /// What it and all that it has started had used when that was last read,
    last: u64,
    /// and what is not in that: of what it has started some may go without being waited for, and take
    /// what they have used along.
    lost: u64,
}

impl Life {
    fn read(&mut self, used: u64) {
        let gone = self.last.saturating_sub(used);
        self.lost = self.lost.saturating_add(gone);
        self.last = used;
    }
}

impl Spent {
    /// It has used that by now.
    pub fn read(&mut self, worker: WorkerId, slot: SlotNr, used: u64) {
        let (last, lost) = (0, 0);
        let life = Life { slot, last, lost };
        self.living.entry(worker).or_insert(life).read(used);
    }

    /// It has ended, and had used that, with what it had waited for. What it leaves behind is nobody's.
    pub fn ended(&mut self, worker: WorkerId, slot: SlotNr, used: u64) {
        self.read(worker, slot, used);
        if let Some(life) = self.living.remove(&worker) {
            let its = life.last.saturating_add(life.lost);
            let all = self.by_gone.entry(life.slot).or_default();
            *all = all.saturating_add(its);
        }
    }

    /// By slot.
    pub fn all(&self) -> BTreeMap<SlotNr, u64> {
        let mut all = self.by_gone.clone();
        for life in self.living.values() {
            let its = all.entry(life.slot).or_default();
            *its = its.saturating_add(life.last).saturating_add(life.lost);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_grows_over_deaths_and_what_goes_unwaited() {
        let mut s = Spent::default();
        let (a, b) = (WorkerId(1), WorkerId(2));
        let (one, two) = (SlotNr(0), SlotNr(1));
        type Step<'a> = &'a dyn Fn(&mut Spent);
        let steps: [(Step<'_>, [u64; 2]); 7] = [
            (&|s| s.read(a, one, 500), [500, 0]),
            // A child of it has gone with 300, unseen by anybody, and it goes on.
            (&|s| s.read(a, one, 200), [500, 0]),
            (&|s| s.read(a, one, 250), [550, 0]),
            // Beside it is its successor; elsewhere another one, never read before its end.
            (&|s| s.read(b, one, 10), [560, 0]),
            (&|s| s.ended(WorkerId(3), two, 70), [560, 70]),
            (&|s| s.ended(a, one, 260), [570, 70]),
            // Less than was read before: ticks are no microseconds.
            (&|s| s.ended(b, one, 9), [570, 70]),
        ];
        for (nth, (step, want)) in steps.into_iter().enumerate() {
            step(&mut s);
            let all = s.all();
            let of = |slot| all.get(&slot).copied().unwrap_or(0);
            assert_eq!([of(one), of(two)], want, "step {nth}");
        }
        assert!(s.living.is_empty());
    }
}
