//! What the slots run: the command of the cluster, or one of their own. And the way back from one that
//! is under way. Rules:
//!
//! 1. A slot runs what its worker does. One that is added runs the cluster's command, unless it is added
//!    for another one (`starting`), or its worker is replaced by one of another (`swap`).
//! 2. A reload leaves each slot its own; an upgrade gives all the cluster's, which is new.
//! 3. What fails, or is called off, gives each slot back what it ran before.

use super::action::Action;
use super::event::By;
use super::ids::{Asker, Program, SlotNr, Time, WorkerId};
use super::outcome::{Hitch, Outcome};
use super::phase::Phase;
use super::rollout::Rollout;
use super::{Cluster, Out};

impl Cluster {
    /// What a worker of that generation runs in that slot.
    pub(super) fn program_in(&self, nr: SlotNr, generation: u32) -> Program {
        let slot = self.slots.get(nr.index());
        let own = slot.map(|s| s.program).unwrap_or_default();
        match &self.rollout {
            Some(r) if r.to == generation && r.terms.upgrade => Program::default(),
            Some(_) | None => own,
        }
    }

    /// The slot runs from now on what that worker does.
    pub(super) fn runs_now(&mut self, nr: SlotNr, id: WorkerId) {
        let Some(slot) = self.slots.of_mut(nr) else {
            return;
        };
        let program = self.fleet.get(id).map_or(slot.program, |w| w.program);
        let before = std::mem::replace(&mut slot.program, program);
        if let Some(r) = self.rollout.as_mut().filter(|_| before != program) {
            r.before.entry(nr).or_insert(before);
        }
    }

    /// Is one under way to code that does not run yet?
    pub fn rolls_forward(&self) -> bool {
        let r = self.rollout.as_ref();
        r.is_some_and(|r| !r.back && r.to != self.generation)
    }

    /// Does a slot run it, or a worker?
    pub fn runs(&self, program: Program) -> bool {
        let before = self.rollout.iter().flat_map(|r| r.before.values());
        let slots = self.slots.iter().map(|s| &s.program);
        let workers = self.fleet.iter().map(|w| &w.program);
        before.chain(slots).chain(workers).any(|p| *p == program) || self.is_to_be_run(program)
    }

    /// The one that is under way is called off by an operator.
    pub(super) fn back_out(&mut self, asker: Asker, by: By, now: Time, out: &mut Out) {
        let runs = self.generation;
        let under_way = self.phase == Phase::Serving;
        let forward = |r: &mut Rollout| under_way && !r.back && r.to != runs;
        let outcome = match self.rollout.take_if(forward) {
            Some(r) => {
                let (why, by) = ("rolled back by a client", Some(by));
                let generation = r.to;
                self.rollout_failed(r, Hitch::CalledOff { why, by }, now, out);
                Outcome::BackedOut {
                    generation,
                    goes_on: runs,
                }
            }
            None => Outcome::NothingToBackOut,
        };
        out.push(Action::Answer { asker, outcome });
    }
}
