//! Signals passed on to workers because a client, or a signal to the master, asks for it. Which worker that is, is decided here;
//! what it makes of it is its own business: one that dies of it is replaced like any other.

use super::action::{Action, Whom};
use super::event::{By, Target};
use super::ids::{Asker, Pid, WorkerId};
use super::notice::{Notice, Who};
use super::outcome::Outcome;
use super::worker::{State, Worker};
use super::{Cluster, Out};

impl Cluster {
    pub(super) fn relay(
        &mut self,
        asker: Asker,
        signal: i32,
        target: Target,
        by: By,
        out: &mut Out,
    ) {
        let outcome = match self.meant(target) {
            None => Outcome::Unknown {
                target,
                slots: self.slots.bound(),
            },
            Some(all) if all.is_empty() => Outcome::Nobody { target },
            Some(all) => {
                let whom = pass_on(signal, all, "asked by a client", Some(by), out);
                Outcome::Signalled { signal, whom }
            }
        };
        out.push(Action::Answer { asker, outcome });
    }

    /// The same because of a signal: nobody waits for an answer, so the log has it.
    pub(super) fn relay_by_signal(
        &mut self,
        signal: i32,
        target: Target,
        why: &'static str,
        out: &mut Out,
    ) {
        match self.meant(target).filter(|all| !all.is_empty()) {
            Some(all) => drop(pass_on(signal, all, why, None, out)),
            None => out.push(Action::Note(Notice::NotSignalled {
                signal,
                target,
                why,
            })),
        }
    }

    /// Those that are meant and run COMMAND now, by slot; `None` if there is no such slot or worker.
    pub fn meant(&self, target: Target) -> Option<Vec<(WorkerId, Who)>> {
        let runs = |w: &&Worker| match w.state {
            State::Spawning | State::Starting { execed: false } | State::Remnant => false,
            State::Starting { execed: true }
            | State::Ready { .. }
            | State::Retiring { .. }
            | State::Draining { .. }
            // (Nor does one that has failed before it, and is on its way out.)
            | State::Killed { .. } => w.pid.is_some() && w.why_not.is_none(),
        };
        let slot_there = |n: u32| {
            let slot = usize::try_from(n).ok().and_then(|n| self.slots.get(n));
            slot.is_some_and(|s| !s.closed || s.current.is_some())
        };
        let pid_of = |n: u32| i32::try_from(n).ok().map(Pid);
        let (slot, pid) = match target {
            Target::All => (None, None),
            Target::Slot(n) => (Some(n), None),
            Target::Number(n) if slot_there(n) => (Some(n), None),
            Target::Pid(n) | Target::Number(n) => (None, Some(pid_of(n)?)),
        };
        let known = |pid: Pid| self.fleet.iter().any(|w| w.pid == Some(pid));
        if !slot.is_none_or(slot_there) || !pid.is_none_or(known) {
            return None;
        }
        let meant = |w: &&Worker| {
            slot.is_none_or(|n| n == u32::from(w.slot.0)) && (pid.is_none() || w.pid == pid)
        };
        let all = self.fleet.iter().filter(meant).filter(runs);
        let mut all: Vec<(WorkerId, Who)> = all.map(|w| (w.id, w.who())).collect();
        all.sort_by_key(|(_, who)| who.slot);
        Some(all)
    }
}

/// To the first process of each.
fn pass_on(
    signal: i32,
    to: Vec<(WorkerId, Who)>,
    why: &'static str,
    by: Option<By>,
    out: &mut Out,
) -> Vec<Who> {
    for (worker, _) in &to {
        out.push(Action::Signal {
            worker: *worker,
            signal,
            whom: Whom::Leader,
        });
    }
    let whom: Vec<Who> = to.into_iter().map(|(_, who)| who).collect();
    out.push(Action::Note(Notice::Signalled {
        signal,
        whom: whom.clone(),
        why,
        by,
    }));
    whom
}
