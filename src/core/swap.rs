//! The replacing of one worker by another one, of the same code or not, while the others go on. Rules:
//!
//! 1. New before old (I4), whatever --surge says: a successor is spawned beside it, and takes its place
//!    when it is ready. In that turn new connections are steered to it, and then the old one goes.
//! 2. One at a time, whatever the reasons (I7): the next begins when the old one has gone, or cannot be
//!    ended. Those that operators have asked for come first, the others in the order in which they came
//!    due.
//! 3. A successor that ends, is not ready in time or cannot be forked has changed nothing: the old one
//!    goes on. Who is due is tried again, later each time; who was asked for is not, and the asker hears
//!    why.
//!    One that ends when it has the place is no matter of the swap any more: its slot is respawned (it is
//!    not watched as those of a rollout are). But who waits for the old one to go hears that.
//! 4. If the old one ends meanwhile, its successor has the place at once, ready or not: it is what a
//!    respawn would be, only further. (What waits in a lane of the old one's own goes with it.)
//! 5. Its slot may get another program with that: it has it from the moment in which the new one is
//!    ready, and keeps it over reloads, until an upgrade of all.
//! 6. A rollout calls it off, and while there is one nobody is swapped; so does the end, and a resize that
//!    takes the slot away. Who is due stays so, if it is there still.

use super::action::Action;
use super::deadlines::Why;
use super::event::{By, Restart, Target};
use super::ids::{Asker, Program, SlotNr, Time, WorkerId};
use super::notice::{Cause, Notice, Who};
use super::outcome::{Hitch, Outcome};
use super::phase::{MAX_ASKERS, Phase};
use super::recycle::Reason;
use super::respawn::FORK_AGAIN;
use super::slot::Place;
use super::worker::{State, Worker};
use super::{Cluster, Out};
use std::collections::BTreeSet;
use std::time::Duration;

/// How far a swap is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The new one is on its way in.
    Coming,
    /// The old one has ended meanwhile: the new one has the place, and is not ready yet.
    Alone,
    /// The new one is ready and has the place; the old one is on its way out.
    Leaving,
}

/// One that is under way.
#[derive(Clone, Debug)]
struct Swap {
    slot: SlotNr,
    old: (WorkerId, Who),
    new: WorkerId,
    /// As it was when it was ready.
    new_who: Option<Who>,
    stage: Stage,
    due: Due,
    since: Time,
}

/// A worker that is to be replaced.
#[derive(Clone, Debug)]
struct Due {
    worker: WorkerId,
    who: Who,
    reason: Reason,
    /// What the new one runs, if not what its slot does.
    program: Option<Program>,
    /// The new one has to be ready in that time, if not in that of the policy.
    within: Option<Duration>,
    /// It is not tried before.
    after: Time,
    /// Who waits for its end.
    askers: Vec<Asker>,
}

impl Due {
    fn asked(&self) -> bool {
        matches!(self.reason, Reason::Asked(_)) || !self.askers.is_empty()
    }

    /// The same without those who wait, if there is a reason beside these.
    fn itself(self, after: Time) -> Option<Due> {
        let own = !matches!(self.reason, Reason::Asked(_));
        own.then_some(Due {
            program: None,
            within: None,
            askers: Vec::new(),
            after,
            ..self
        })
    }
}

/// The one that is under way, and who is to be next.
#[derive(Clone, Debug, Default)]
pub(super) struct Swaps {
    now: Option<Swap>,
    /// One entry for each worker at most.
    due: Vec<Due>,
}

impl Swaps {
    /// Is anybody waiting for its turn?
    pub(super) fn are_due(&self) -> bool {
        !self.due.is_empty()
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Due> {
        let now = self.now.iter_mut().map(|s| &mut s.due);
        now.chain(&mut self.due)
    }

    /// Is somebody to run it?
    pub(super) fn run(&self, program: Program) -> bool {
        let now = self.now.iter().map(|s| &s.due);
        now.chain(&self.due).any(|d| d.program == Some(program))
    }

    /// That client has gone.
    pub(super) fn drop_asker(&mut self, asker: Asker) {
        self.all().for_each(|d| d.askers.retain(|a| *a != asker));
    }
}

impl Cluster {
    /// How many clients wait for it.
    pub(super) fn restarters(&self) -> usize {
        let now = self.swaps.now.iter().map(|s| &s.due);
        now.chain(&self.swaps.due).map(|d| d.askers.len()).sum()
    }

    /// Why this one is forked, if it is to replace one.
    pub(super) fn swapped_in(&self, id: WorkerId) -> Option<Reason> {
        let now = self.swaps.now.as_ref().filter(|s| s.new == id);
        now.map(|s| s.due.reason)
    }

    /// It is to be replaced from now on; unless it is not ready, or that was known before.
    pub(super) fn is_due(&mut self, worker: WorkerId, reason: Reason, now: Time) {
        let ready = self.fleet.get(worker).filter(|w| w.is_ready());
        let Some(who) = ready.map(Worker::who) else {
            return;
        };
        if let Some(due) = self.swaps.all().find(|d| d.worker == worker) {
            // What an operator has asked for is tried once, this until it is done.
            if let Reason::Asked(_) = due.reason {
                due.reason = reason;
            }
        } else if self.phase == Phase::Serving {
            self.swaps.due.push(Due {
                worker,
                who,
                reason,
                program: None,
                within: None,
                after: now,
                askers: Vec::new(),
            });
        }
    }

    /// A client asks for it.
    pub(super) fn restart_asked(&mut self, wish: Restart, now: Time, out: &mut Out) {
        let ready = self.ready_count();
        let not = |hitch| Outcome::NotRestarted { hitch, ready };
        let coming = self.swaps.now.as_ref().map(|s| s.due.worker);
        let found = match (self.phase, self.one_meant(wish.target)) {
            (Phase::Stopping { .. } | Phase::Done(_), _) => Err(not(Hitch::Stopping)),
            (Phase::Serving, Err(outcome)) => Err(outcome),
            (Phase::Serving, Ok(_)) if self.rollout.is_some() => Err(not(Hitch::Replacing)),
            (Phase::Serving, Ok(_)) if wish.wait && self.waiting() >= MAX_ASKERS => {
                Err(Outcome::TooMany)
            }
            (Phase::Serving, Ok(found)) => Ok(found),
        };
        let asker = wish.asker;
        let (worker, who) = match found {
            Ok(found) => found,
            Err(outcome) => return out.push(Action::Answer { asker, outcome }),
        };
        let of = self.swaps.all().find(|d| d.worker == worker);
        if wish.program.is_some() && of.is_some_and(|d| d.asked() || coming == Some(worker)) {
            let outcome = not(Hitch::UnderWay("another restart of it"));
            return out.push(Action::Answer { asker, outcome });
        }
        let askers = match wish.wait {
            true => vec![asker],
            false => Vec::new(),
        };
        if let Some(due) = self.swaps.all().find(|d| d.worker == worker) {
            // It waits for no backoff any more.
            due.askers.extend(askers);
            due.program = wish.program.or(due.program);
            due.within = wish.within.or(due.within);
            due.after = due.after.min(now);
        } else {
            self.swaps.due.push(Due {
                worker,
                who,
                reason: Reason::Asked(wish.by),
                program: wish.program,
                within: wish.within,
                after: now,
                askers,
            });
        }
        if !wish.wait {
            let outcome = Outcome::Restarting { who };
            out.push(Action::Answer { asker, outcome });
        }
    }

    /// The one that has its place and can be replaced.
    fn one_meant(&self, target: Target) -> Result<(WorkerId, Who), Outcome> {
        let slots = self.wanted;
        let all = self
            .meant(target)
            .ok_or(Outcome::Unknown { target, slots })?;
        let stays = |w: &Worker| match w.state {
            State::Starting { .. } | State::Ready { .. } => {
                self.place_of(w.id) == Place::Current(w.slot) && self.is_wanted(w.slot)
            }
            State::Spawning
            | State::Retiring { .. }
            | State::Draining { .. }
            | State::Killed { .. }
            | State::Remnant => false,
        };
        let mut stay = all
            .iter()
            .filter(|(id, _)| self.fleet.get(*id).is_some_and(stays));
        match (stay.next(), all.first()) {
            (Some(one), _) => Ok(*one),
            (None, None) => Err(Outcome::Nobody { target }),
            (None, Some((_, who))) => Err(Outcome::NotRestarted {
                hitch: Hitch::Leaves(*who),
                ready: self.ready_count(),
            }),
        }
    }

    /// Compares what there is with what is wanted, and goes on from there.
    pub(super) fn swap_progress(&mut self, now: Time, out: &mut Out) {
        if self.phase != Phase::Serving {
            return;
        }
        self.forget_gone(out);
        let stage = self.swaps.now.as_ref().map(|s| (s.stage, s.new, s.old.0));
        let old_who = self.swaps.now.as_ref().map(|s| s.old.1);
        let ready = |id| self.fleet.get(id).is_some_and(Worker::is_ready);
        let over = |id| {
            let w = self.fleet.get(id);
            w.is_none_or(|w| !w.unreaped() || w.stuck)
        };
        match stage {
            Some((Stage::Coming, new, _)) if ready(new) => self.take_place(now, out),
            Some((Stage::Alone, new, _)) if ready(new) => self.swap_done(now, out),
            // (A failure of its start is told by itself.)
            Some((Stage::Alone, new, _)) if over(new) => {
                let who = self.fleet.who(new).or(old_who);
                let hitch = who.map_or(Hitch::Stopping, Hitch::Stuck);
                self.swap_over(&hitch, out);
            }
            Some((Stage::Leaving, _, old)) if over(old) => self.swap_done(now, out),
            Some((Stage::Coming | Stage::Alone | Stage::Leaving, ..)) | None => {}
        }
        self.deadlines.stop(Why::Swap);
        if self.swaps.now.is_none() && self.rollout.is_none() {
            self.swap_next(now, out);
        }
    }

    /// The next one begins, or has its date.
    fn swap_next(&mut self, now: Time, out: &mut Out) {
        let turn = |d: &Due| d.after <= now;
        let asked = self.swaps.due.iter().position(|d| turn(d) && d.asked());
        let next = asked.or_else(|| self.swaps.due.iter().position(turn));
        let Some(next) = next else {
            if let Some(at) = self.swaps.due.iter().map(|d| d.after).min() {
                self.deadlines.set(Why::Swap, at);
            }
            return;
        };
        let due = self.swaps.due.remove(next);
        let Some(w) = self.fleet.get(due.worker) else {
            return;
        };
        let (slot, who) = (w.slot, w.who());
        let generation = w.generation;
        let why = due.reason;
        out.push(Action::Note(Notice::Recycling { who, why }));
        let program = due.program;
        let program = program.unwrap_or_else(|| self.program_in(slot, generation));
        let new = self.enlist(slot, generation, program, now, out);
        if let Some(w) = self.fleet.get_mut(new) {
            w.ready_limit = due.within.or(w.ready_limit);
        }
        if let Some(slot) = self.slots.of_mut(slot) {
            slot.successor = Some(new);
        }
        self.swaps.now = Some(Swap {
            slot,
            old: (due.worker, who),
            new,
            new_who: None,
            stage: Stage::Coming,
            due,
            since: now,
        });
    }

    /// Those that have gone, or are on their way out, are not waited for.
    fn forget_gone(&mut self, out: &mut Out) {
        let stays = |d: &Due| {
            let state = self.fleet.get(d.worker).map(|w| w.state);
            match state {
                Some(State::Ready { .. }) => true,
                // Only operators replace one that is not ready.
                Some(State::Starting { .. }) => d.asked(),
                Some(
                    State::Spawning
                    | State::Retiring { .. }
                    | State::Draining { .. }
                    | State::Killed { .. }
                    | State::Remnant,
                )
                | None => false,
            }
        };
        let gone: Vec<bool> = self.swaps.due.iter().map(|d| !stays(d)).collect();
        let mut gone = gone.into_iter();
        let mut moot = Vec::new();
        self.swaps.due.retain(|d| {
            let goes = gone.next().unwrap_or(false);
            if goes {
                moot.extend(d.askers.iter().map(|a| (*a, d.who)));
            }
            !goes
        });
        for (asker, who) in moot {
            self.not_restarted(&[asker], &Hitch::Gone(who), out);
        }
    }

    /// It is ready: it takes its place, is steered to, and then the old one goes.
    fn take_place(&mut self, now: Time, out: &mut Out) {
        let Some(s) = &mut self.swaps.now else {
            return;
        };
        s.stage = Stage::Leaving;
        s.new_who = self.fleet.who(s.new);
        let (nr, new, cause) = (s.slot, s.new, s.due.reason.cause());
        let old = self.takes_place(nr, new);
        let generation = self.fleet.get(new).map(|w| w.generation);
        // Who is steered away from a worker is steered away before that is looked at.
        self.steer(out);
        if let Some(old) = old {
            if let Some(w) = self.fleet.get_mut(old) {
                w.made_room_for = generation;
            }
            self.retire(old, cause, now, out);
        }
        self.suspect_unserved(now);
        self.say_if_full(now, out);
        self.resize_progress(out);
    }

    /// The slot has lost its worker, for which a successor is on its way: that has the place now.
    pub(super) fn successor_steps_in(
        &mut self,
        nr: SlotNr,
        cause: Cause,
        ready_for: Option<Duration>,
    ) -> bool {
        if self.phase != Phase::Serving || !self.is_wanted(nr) {
            return false;
        }
        let coming = |s: &&mut Swap| s.stage == Stage::Coming && s.slot == nr;
        let Some(s) = self.swaps.now.as_mut().filter(coming) else {
            return false;
        };
        s.stage = Stage::Alone;
        let new = s.new;
        let Some(seat) = self.fleet.get(new).map(|w| w.seat) else {
            return false;
        };
        let Some(slot) = self.slots.of_mut(nr) else {
            return false;
        };
        (slot.current, slot.successor) = (Some(new), None);
        slot.seat = Some(seat);
        // It has failed all the same: if the next one does, too, that is the second time.
        let (policy, rng) = (&self.policy, &mut self.rng);
        match cause {
            Cause::Recycle => slot.backoff = Default::default(),
            Cause::Failure
            | Cause::Finished
            | Cause::Shutdown
            | Cause::Resize
            | Cause::Restart
            | Cause::Kill
            | Cause::NotReady
            | Cause::Hang
            | Cause::NotStarted
            | Cause::Oom(_) => drop(slot.backoff.after_death(ready_for, policy, rng)),
        }
        self.full = false;
        true
    }

    /// The successor is no more, or there was none: the old one goes on.
    pub(super) fn swap_failed(&mut self, nr: SlotNr, hitch: Hitch, now: Time, out: &mut Out) {
        let coming = |s: &mut Swap| s.stage == Stage::Coming && s.slot == nr;
        let Some(s) = self.swaps.now.take_if(coming) else {
            return;
        };
        let due = s.due;
        self.not_restarted(&due.askers, &hitch, out);
        let again = match due.reason {
            Reason::Asked(_) => None,
            Reason::Age { .. }
            | Reason::Rss { .. }
            | Reason::Connections { .. }
            | Reason::Wish(_) => {
                let slot = self.slots.get_mut(nr.index());
                let (policy, rng) = (&self.policy, &mut self.rng);
                let delay = slot.map(|s| s.swaps.after_death(None, policy, rng));
                Some(delay.unwrap_or_default().max(FORK_AGAIN))
            }
        };
        out.push(Action::Note(Notice::NotRecycled {
            who: s.old.1,
            hitch,
            again,
        }));
        let due = again.and_then(|delay| due.itself(now + delay));
        self.swaps.due.extend(due);
    }

    /// The one that has the place alone has failed before it was ready: its slot goes on by itself.
    pub(super) fn swap_broken(
        &mut self,
        id: WorkerId,
        hitch: impl FnOnce() -> Hitch,
        out: &mut Out,
    ) {
        let alone = |s: &&Swap| s.stage == Stage::Alone && s.new == id;
        if self.swaps.now.as_ref().filter(alone).is_some() {
            self.swap_over(&hitch(), out);
        }
    }

    /// The new one has the place, and has ended before the old one has gone: whoever waits hears that. The
    /// slot goes on as it does after any death.
    pub(super) fn swap_in_vain(
        &mut self,
        id: WorkerId,
        hitch: impl FnOnce() -> Hitch,
        out: &mut Out,
    ) {
        let leaving = |s: &&mut Swap| s.stage == Stage::Leaving && s.new == id;
        let now = self.swaps.now.as_mut().filter(leaving);
        let askers = now.map(|s| std::mem::take(&mut s.due.askers));
        if let Some(askers) = askers.filter(|a| !a.is_empty()) {
            self.not_restarted(&askers, &hitch(), out);
        }
    }

    /// The new one has the place, and the old one has gone.
    fn swap_done(&mut self, now: Time, out: &mut Out) {
        let Some(s) = self.swaps.now.take() else {
            return;
        };
        // (Its slot may have gone meanwhile.)
        if self.place_of(s.new) == Place::Current(s.slot) {
            self.runs_now(s.slot, s.new);
        }
        let new = s.new_who.or(self.fleet.who(s.new)).unwrap_or(Who {
            slot: s.slot,
            pid: None,
        });
        for asker in s.due.askers {
            let outcome = Outcome::Restarted {
                old: s.old.1,
                new,
                took: now - s.since,
            };
            out.push(Action::Answer { asker, outcome });
        }
    }

    /// It is over without having reached its end.
    fn swap_over(&mut self, hitch: &Hitch, out: &mut Out) {
        if let Some(s) = self.swaps.now.take() {
            self.not_restarted(&s.due.askers, hitch, out);
        }
    }

    fn not_restarted(&self, askers: &[Asker], hitch: &Hitch, out: &mut Out) {
        for asker in askers {
            let outcome = Outcome::NotRestarted {
                hitch: hitch.clone(),
                ready: self.ready_count(),
            };
            let asker = *asker;
            out.push(Action::Answer { asker, outcome });
        }
    }

    /// It is called off, if it can be still: the successor goes, and who was due is so again.
    fn drop_swap(&mut self, hitch: &Hitch, now: Time, out: &mut Out) {
        match self.swaps.now.as_ref().map(|s| s.stage) {
            None => {}
            // What is left of it is only for the old one to go.
            Some(Stage::Leaving) => self.swap_done(now, out),
            Some(Stage::Alone) => self.swap_over(hitch, out),
            Some(Stage::Coming) => {
                let Some(s) = self.swaps.now.take() else {
                    return;
                };
                let slot = self.slots.get_mut(usize::from(s.slot.0));
                if let Some(new) = slot.and_then(|slot| slot.successor.take()) {
                    self.retire(new, s.due.reason.cause(), now, out);
                }
                self.not_restarted(&s.due.askers, hitch, out);
                let hitch = hitch.clone();
                let (who, again) = (s.old.1, None);
                out.push(Action::Note(Notice::NotRecycled { who, hitch, again }));
                self.swaps.due.extend(s.due.itself(now));
            }
        }
    }

    /// A reload begins.
    pub(super) fn call_off_swap(
        &mut self,
        why: &'static str,
        by: Option<By>,
        now: Time,
        out: &mut Out,
    ) {
        let hitch = Hitch::Overtaken { why, by };
        self.drop_swap(&hitch, now, out);
        self.deadlines.stop(Why::Swap);
        for due in std::mem::take(&mut self.swaps.due) {
            self.not_restarted(&due.askers, &hitch, out);
            let after = due.after;
            self.swaps.due.extend(due.itself(after));
        }
    }

    /// There are to be so many slots: the one that is swapped may not be one of them.
    pub(super) fn swap_unwanted(
        &mut self,
        to: u16,
        why: &'static str,
        by: Option<By>,
        out: &mut Out,
    ) {
        let hitch = Hitch::Superseded { to, why, by };
        let goes = |s: &mut Swap| s.slot.0 >= to && s.stage != Stage::Leaving;
        if let Some(s) = self.swaps.now.take_if(goes) {
            self.not_restarted(&s.due.askers, &hitch, out);
        }
    }

    /// The cluster stops: nobody is replaced any more.
    pub(super) fn end_swaps(&mut self, out: &mut Out) {
        for why in [Why::Swap, Why::Weigh] {
            self.deadlines.stop(why);
        }
        let swaps = std::mem::take(&mut self.swaps);
        let now = swaps.now.map(|s| s.due);
        for due in now.into_iter().chain(swaps.due) {
            self.not_restarted(&due.askers, &Hitch::Stopping, out);
        }
    }

    /// A successor is that of a rollout or of the one swap there is; only workers that may stay are due.
    pub(super) fn check_swap(&self) -> Result<(), String> {
        let coming = self.swaps.now.as_ref();
        let coming = coming.filter(|s| s.stage == Stage::Coming).map(|s| s.new);
        let of = self.slots.iter().filter_map(|s| s.successor);
        let mut stray = of.filter(|id| Some(*id) != coming);
        if self.phase == Phase::Serving && self.rollout.is_none() {
            if let Some(id) = stray.next() {
                return Err(format!("I7: {id:?} is to replace nobody"));
            }
            if let Some(id) = coming.filter(|id| !matches!(self.place_of(*id), Place::Successor(_)))
            {
                return Err(format!("I7: {id:?} of a swap has no slot"));
            }
        }
        if coming.is_some() && self.rollout.is_some() {
            return Err("I7: a swap beside a rollout".into());
        }
        let mut seen = BTreeSet::new();
        match self.swaps.due.iter().find(|d| !seen.insert(d.worker)) {
            Some(d) => Err(format!("I9: {:?} is due twice", d.worker)),
            None => Ok(()),
        }
    }
}
