//! How often what has happened, since the master began: for those who watch many clusters (/metrics).
//! Rules:
//!
//! 1. Counted is what is said: each notice comes by here once, so that the log and the counts agree.
//! 2. By slot, never by worker. A slot outlives its workers, and its counts outlive it: those of one that
//!    is not there any more are kept, and go on when it is there again. There are as many as there can be
//!    slots (I9).
//! 3. Where the list of what can happen is closed, all of it is told from the first worker of a slot on, as
//!    0: who looks at how fast a count grows does not see the first step of one that was not there.

use super::action::Action;
use super::event::Exit;
use super::ids::SlotNr;
use super::notice::{Birth, Cause, Notice};
use super::outcome::Came;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What came of a reload, an upgrade or a rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ending {
    /// It has reached its end.
    Finished,
    /// Its new workers were not ready, or failed while they were watched.
    Failed,
    /// Somebody wanted something else meanwhile, or the end.
    CalledOff,
    /// It could not begin.
    Refused,
    /// What one that failed had replaced has its place again.
    TakenBack,
}

impl Ending {
    /// All of them.
    pub const ALL: [Ending; 5] = [
        Ending::Finished,
        Ending::Failed,
        Ending::CalledOff,
        Ending::Refused,
        Ending::TakenBack,
    ];

    /// As a label.
    pub fn word(self) -> &'static str {
        match self {
            Ending::Finished => "finished",
            Ending::Failed => "failed",
            Ending::CalledOff => "called-off",
            Ending::Refused => "refused",
            Ending::TakenBack => "taken-back",
        }
    }

    /// Does what runs now come of it, or not come of it? `None`: that is as it was.
    fn is_success(self) -> Option<bool> {
        match self {
            Ending::Finished => Some(true),
            Ending::Failed | Ending::Refused => Some(false),
            Ending::CalledOff | Ending::TakenBack => None,
        }
    }
}

/// Of one slot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct OfSlot {
    births: BTreeMap<Birth, u64>,
    #[serde(deserialize_with = "super::carry::kept_keys")]
    deaths: BTreeMap<&'static str, u64>,
}

impl OfSlot {
    /// So many workers were forked for it on that account.
    pub fn births(&self, why: Birth) -> u64 {
        self.births.get(&why).copied().unwrap_or(0)
    }

    /// So many ended of that.
    pub fn deaths(&self, cause: Cause) -> u64 {
        self.deaths.get(cause.word()).copied().unwrap_or(0)
    }
}

/// All of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    slots: BTreeMap<SlotNr, OfSlot>,
    #[serde(with = "super::carry::pairs")]
    exits: BTreeMap<Exit, u64>,
    reloads: BTreeMap<Ending, u64>,
    /// Did the last one that ended by itself fail?
    pub reload_failed: bool,
    /// How often a respawn was held back by --restarts-per-minute, or ended the cluster.
    pub crash_loops: u64,
    /// Workers that were killed because they did not stop in time.
    pub overdue: u64,
    /// Connections of workers that were emptied: ended when they were quiet,
    pub closed: u64,
    /// ended when the time was over, when nothing was owed,
    pub ended: u64,
    /// and those that there still were then.
    pub cut: u64,
}

fn one_more<K: Ord>(of: &mut BTreeMap<K, u64>, key: K) {
    add(of.entry(key).or_default(), 1);
}

fn add(to: &mut u64, n: u64) {
    *to = to.saturating_add(n);
}

impl Counts {
    /// Every slot that has ever had a worker.
    pub fn slots(&self) -> impl Iterator<Item = (SlotNr, &OfSlot)> {
        self.slots.iter().map(|(nr, s)| (*nr, s))
    }

    /// How workers ended, as far as some did.
    pub fn exits(&self) -> impl Iterator<Item = (Exit, u64)> + '_ {
        self.exits.iter().map(|(e, n)| (*e, *n))
    }

    /// So many reloads came to that.
    pub fn reloads(&self, result: Ending) -> u64 {
        self.reloads.get(&result).copied().unwrap_or(0)
    }

    /// What was said in one step.
    pub(super) fn hear<'a>(&mut self, said: impl Iterator<Item = &'a Action>) {
        for action in said {
            if let Action::Note(notice) = action {
                self.count(notice);
            }
        }
    }

    fn reloaded(&mut self, result: Ending) {
        one_more(&mut self.reloads, result);
        if let Some(success) = result.is_success() {
            self.reload_failed = !success;
        }
    }

    fn count(&mut self, notice: &Notice) {
        match notice {
            Notice::Forked { who, reason, .. } => {
                one_more(&mut self.slots.entry(who.slot).or_default().births, *reason);
            }
            Notice::Died {
                who, cause, exit, ..
            } => {
                let slot = self.slots.entry(who.slot).or_default();
                one_more(&mut slot.deaths, cause.word());
                one_more(&mut self.exits, *exit);
            }
            Notice::Reloaded { back: false, .. } => self.reloaded(Ending::Finished),
            Notice::Reloaded { back: true, .. } => self.reloaded(Ending::TakenBack),
            Notice::ReloadRefused { hitch } | Notice::ReloadFailed { hitch, .. } => {
                self.reloaded(match hitch.came() {
                    Came::Failure => Ending::Failed,
                    Came::Wish => Ending::CalledOff,
                    Came::Refusal => Ending::Refused,
                });
            }
            Notice::CrashLoop { .. } => add(&mut self.crash_loops, 1),
            Notice::TooSlowToStop { .. } => add(&mut self.overdue, 1),
            Notice::Drained {
                closed, ended, cut, ..
            } => {
                add(&mut self.closed, (*closed).into());
                add(&mut self.ended, (*ended).into());
                add(&mut self.cut, (*cut).into());
            }
            // All else that is said is counted as an event.
            Notice::LaneOpen { .. }
            | Notice::LaneBusy { .. }
            | Notice::LaneQuits { .. }
            | Notice::SpawnFailed { .. }
            | Notice::ExecFailed { .. }
            | Notice::Listening { .. }
            | Notice::LetGo { .. }
            | Notice::Ready { .. }
            | Notice::AllReady { .. }
            | Notice::PartlyReady { .. }
            | Notice::Unserved { .. }
            | Notice::NotReady { .. }
            | Notice::Said { .. }
            | Notice::Hangs { .. }
            | Notice::LeftRunning { .. }
            | Notice::Recycling { .. }
            | Notice::NotRecycled { .. }
            | Notice::RecyclesLater { .. }
            | Notice::Respawning { .. }
            | Notice::ForksSpent { .. }
            | Notice::GivenUp { .. }
            | Notice::NoneLeft { .. }
            | Notice::StillThere { .. }
            | Notice::Forgotten { .. }
            | Notice::Stopping { .. }
            | Notice::StopDelayed { .. }
            | Notice::HardStop { .. }
            | Notice::NeverReady { .. }
            | Notice::CannotRun { .. }
            | Notice::Leftovers { .. }
            | Notice::Stuck { .. }
            | Notice::Stopped { .. }
            | Notice::Resizing { .. }
            | Notice::Resized { .. }
            | Notice::Disabled { .. }
            | Notice::Enabled { .. }
            | Notice::Unhealthy { .. }
            | Notice::Healthy { .. }
            | Notice::Wavers { .. }
            | Notice::AtBound { .. }
            | Notice::NoRoom { .. }
            | Notice::Reloading { .. }
            | Notice::Exchanged { .. }
            | Notice::TooManyGenerations { .. }
            | Notice::Draining { .. }
            | Notice::LaneAlone { .. }
            | Notice::Signalled { .. }
            | Notice::NotSignalled { .. }
            | Notice::TakeoverRefused { .. }
            | Notice::BindPassed { .. }
            | Notice::HandedOnly { .. }
            | Notice::Narrower { .. }
            | Notice::V4Only { .. }
            | Notice::FamilyNeeded { .. }
            | Notice::DeviceWider { .. }
            | Notice::LaneConnects { .. }
            | Notice::Snagged { .. }
            | Notice::Adopted { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::notice::{Limit, Next, Who};
    use crate::core::outcome::Hitch;
    use crate::core::{Oom, Pid};
    use std::time::Duration;

    /// What comes behind it, so that whoever adds one comes by here.
    fn after(cause: Cause) -> Option<Cause> {
        match cause {
            Cause::Failure => Some(Cause::Finished),
            Cause::Finished => Some(Cause::Shutdown),
            Cause::Shutdown => Some(Cause::Resize),
            Cause::Resize => Some(Cause::Restart),
            Cause::Restart => Some(Cause::Recycle),
            Cause::Recycle => Some(Cause::Kill),
            Cause::Kill => Some(Cause::NotReady),
            Cause::NotReady => Some(Cause::Hang),
            Cause::Hang => Some(Cause::NotStarted),
            Cause::NotStarted => Some(Cause::Oom(Oom::Yes)),
            Cause::Oom(_) => None,
        }
    }

    #[test]
    fn every_cause_is_in_the_list() {
        let chain = std::iter::successors(Some(Cause::Failure), |c| after(*c));
        let words: Vec<_> = chain.map(Cause::word).collect();
        assert_eq!(Cause::ALL.map(Cause::word).to_vec(), words);
    }

    fn who(slot: u16) -> Who {
        Who {
            slot: SlotNr(slot),
            pid: Some(Pid(7)),
        }
    }

    fn forked(slot: u16, reason: Birth) -> Notice {
        Notice::Forked {
            who: who(slot),
            generation: 1,
            reason,
        }
    }

    fn died(slot: u16, cause: Cause, exit: Exit) -> Notice {
        Notice::Died {
            who: who(slot),
            cause,
            exit,
            lived: Duration::ZERO,
            was_ready: true,
            next: Next::Nothing,
            last: String::new(),
        }
    }

    #[test]
    fn what_is_said_is_counted_by_slot_and_reason() {
        let mut counts = Counts::default();
        let said = [
            forked(0, Birth::Start),
            forked(1, Birth::Start),
            died(1, Cause::Failure, Exit::Signal(9)),
            forked(1, Birth::Failure),
            died(1, Cause::Oom(Oom::Yes), Exit::Signal(9)),
            died(1, Cause::Oom(Oom::Probably), Exit::Signal(9)),
            died(0, Cause::Resize, Exit::Code(0)),
            Notice::Drained {
                who: who(0),
                after: Duration::ZERO,
                closed: 3,
                ended: 2,
                cut: u32::MAX,
                limit: Limit::Timeout(Duration::ZERO),
            },
        ];
        let said = said.map(Action::Note);
        counts.hear(said.iter().chain([&Action::Finish(0)]));
        let of = |nr: u16| counts.slots.get(&SlotNr(nr)).unwrap();
        assert_eq!(of(0).births(Birth::Failure), 0);
        assert_eq!(of(1).births(Birth::Failure), 1);
        assert_eq!(of(1).deaths(Cause::Failure), 1);
        assert_eq!(of(1).deaths(Cause::Oom(Oom::Yes)), 2);
        assert_eq!(of(0).deaths(Cause::Resize), 1);
        let exits: Vec<_> = counts.exits().collect();
        assert_eq!(exits, [(Exit::Code(0), 1), (Exit::Signal(9), 3)]);
        assert_eq!((counts.closed, counts.ended), (3, 2));
        assert_eq!(counts.cut, u64::from(u32::MAX));
        assert_eq!(counts.slots().count(), 2);
    }

    #[test]
    fn a_reload_comes_to_one_of_these() {
        let failed = |hitch| Notice::ReloadFailed {
            generation: 2,
            hitch,
            ready: 1,
            back: false,
        };
        let over = |back| Notice::Reloaded {
            generation: 2,
            took: Duration::ZERO,
            back,
        };
        let refused = |hitch| Notice::ReloadRefused { hitch };
        let mut counts = Counts::default();
        for (notice, result, failed) in [
            (over(false), Ending::Finished, false),
            (failed(Hitch::Hangs(who(0))), Ending::Failed, true),
            // What runs is still not what was wanted,
            (over(true), Ending::TakenBack, true),
            (over(false), Ending::Finished, false),
            (refused(Hitch::TooEarly), Ending::Refused, true),
            // nor does it become so by something that was given up.
            (failed(Hitch::Stopping), Ending::CalledOff, true),
            (failed(Hitch::Unreadable("x".into())), Ending::Refused, true),
        ] {
            let before = counts.reloads(result);
            counts.hear([Action::Note(notice)].iter());
            assert_eq!(counts.reloads(result), before + 1, "{result:?}");
            assert_eq!(counts.reload_failed, failed, "{result:?}");
        }
        let all: u64 = Ending::ALL.iter().map(|r| counts.reloads(*r)).sum();
        assert_eq!(all, 7);
    }
}
