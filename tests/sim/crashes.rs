//! The judge of crashes: in no minute are there more respawns than may be, no failed worker is replaced
//! beyond the forks there may be, slots come to rest for a reason, and the master leaves of itself when,
//! and only when, no slot will ever have a worker, or at a limit that is to be the end.

use crate::cover::{Cover, Mark};
use crate::judge::Judge;
use minicluster::core::notice::Next;
use minicluster::core::{Exit, Notice, OnCrashLoop, RespawnOn, SlotNr, Time, WorkerId, status_of};
use std::collections::VecDeque;
use std::time::Duration;

const WINDOW: Duration = Duration::from_secs(60);

/// Why a slot gets no worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    Finished(Exit),
    GivenUp,
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Crashes {
    recent: VecDeque<Time>,
    pub forks: u64,
    /// Was it said that they are used up?
    said: bool,
    /// When a respawn was held back last, and until when, at most.
    held: Option<Time>,
    /// There never were more slots.
    pub most: usize,
}

impl Judge {
    /// A failed worker is replaced.
    pub fn respawned(&mut self, slot: SlotNr, now: Time) {
        let (limit, most) = (self.policy.restarts_per_minute, self.policy.max_forks);
        // (It is one of them.)
        assert!(
            most == 0 || self.begun() <= most,
            "slot {slot}: no forks are left"
        );
        if limit > 0 {
            let n = self.in_window(now);
            assert!(n < limit as usize, "slot {slot}: {n} respawns in a minute");
            self.crashes.recent.push_back(now);
        }
    }

    fn in_window(&mut self, now: Time) -> usize {
        let recent = &mut self.crashes.recent;
        while recent.front().is_some_and(|t| now - *t >= WINDOW) {
            recent.pop_front();
        }
        recent.len()
    }

    /// How many were forked, and are on their way to it. (What replaces one that goes on is no respawn.)
    fn begun(&self) -> u64 {
        let swap = self.swap.as_ref().filter(|s| s.failures.is_none());
        let swapped = swap.map(|s| s.new);
        let under_way = |w: &&WorkerId| self.jobs[w].pid.is_none() && Some(**w) != swapped;
        self.crashes.forks + self.living.iter().filter(under_way).count() as u64
    }

    /// Were as many forked as may be?
    pub fn forks_spent(&self) -> bool {
        let most = self.policy.max_forks;
        most > 0 && self.begun() >= most
    }

    /// An operator asks for workers.
    pub fn counted_anew(&mut self) {
        (self.crashes.forks, self.crashes.said) = (0, false);
    }

    /// Slots that were given up are tried again.
    pub fn revived(&mut self, now: Time, cover: &mut Cover) {
        for place in self.places.iter_mut().filter(|p| !p.closed) {
            if place.rest == Some(Rest::GivenUp) {
                cover.mark(Mark::Revived);
                (place.rest, place.proven) = (None, false);
                place.vacant = Some((now, Duration::ZERO, Duration::ZERO));
            }
        }
    }

    /// Is that end of a worker the last in its slot?
    pub fn finishes(&self, worker: WorkerId, exit: Exit) -> Option<Rest> {
        let job = &self.jobs[&worker];
        let meddled = job.abort.or(job.kill).is_some() || job.execed.is_none();
        let last = match self.policy.respawn_on {
            RespawnOn::Any => false,
            RespawnOn::Failure => exit == Exit::Code(0) && !meddled,
            RespawnOn::Never => true,
        };
        last.then_some(Rest::Finished(exit))
    }

    /// How many slots are finished.
    pub fn finished_slots(&self) -> usize {
        self.open().filter_map(ended).count()
    }

    /// How many rest.
    pub fn resting(&self) -> usize {
        let places = self.open();
        places.filter(|p| p.rest.is_some()).count()
    }

    /// The longest time that a slot may be held back.
    pub fn held_most(&self) -> Duration {
        match self.policy.restarts_per_minute as usize {
            0 => Duration::ZERO,
            // (After a pause all are due at once, and are held back then.)
            n => WINDOW * (self.crashes.most / n + 2) as u32 + self.lost,
        }
    }

    /// Something is said about crashes.
    pub fn crash_said(&mut self, notice: &Notice, now: Time, cover: &mut Cover) {
        let exit = self.policy.on_crash_loop == OnCrashLoop::Exit;
        match notice {
            Notice::CrashLoop {
                respawns,
                limit,
                wait,
                ..
            } => {
                let n = self.in_window(now);
                assert!(n == *respawns && *limit == self.policy.restarts_per_minute && *limit > 0);
                assert_eq!(wait.is_none(), exit);
                let fresh = self.crashes.held.is_none_or(|t| now - t > WINDOW);
                assert!(fresh, "the crash loop is said already");
                self.crashes.held = wait.map(|w| now + w);
                match wait {
                    Some(_) => cover.mark(Mark::HeldBack),
                    None => {
                        assert!(n >= *limit as usize, "only {n} respawns of {limit}");
                        cover.mark(Mark::CrashLoopEnds);
                        self.give_up(69, now);
                    }
                }
            }
            Notice::Died {
                next: Next::HeldBack { wait, .. },
                ..
            } => {
                // The loop lasts so much longer, if there is one still.
                if let Some(held) = self.crashes.held.as_mut().filter(|t| now - **t <= WINDOW) {
                    *held = (*held).max(now + *wait);
                }
            }
            Notice::ForksSpent {
                forks,
                limit,
                exit: leaves,
                ..
            } => {
                // (What a rollout forks in the same turn comes before it is said, and is no more in it.)
                assert!(*forks <= self.begun() && *limit == self.policy.max_forks);
                assert!(forks >= limit && *leaves == exit && !self.crashes.said);
                self.crashes.said = true;
                if exit {
                    cover.mark(Mark::ForksEnd);
                    self.give_up(69, now);
                }
            }
            Notice::GivenUp { slot, .. } => {
                assert!(self.crashes.said && self.begun() >= self.policy.max_forks);
                let place = &mut self.places[usize::from(slot.0)];
                assert!(place.worker.is_none() && place.failed && place.rest.is_none());
                (place.rest, place.vacant) = (Some(Rest::GivenUp), None);
            }
            Notice::NoneLeft { end } => {
                assert!(self.none_to_come(), "a slot may have a worker yet");
                let ends: Option<Vec<Exit>> = self.open().map(ended).collect();
                let code = match ends {
                    Some(all) => all.into_iter().map(status_of).max().unwrap(),
                    None => 69,
                };
                assert_eq!(end.map_or(69, status_of), code);
                cover.mark(match end {
                    Some(_) => Mark::AllFinished,
                    None => Mark::AllGivenUp,
                });
                self.finished_with = Some(code);
                self.give_up(code, now);
            }
            _ => {}
        }
    }

    /// Does every slot rest, and is no reload under way that would fill one?
    fn none_to_come(&self) -> bool {
        let rests = self.open().all(|p| p.rest.is_some());
        let fills = |to: u32| !self.all_replaced(to);
        rests && self.opened.is_some() && !self.rollout.as_ref().is_some_and(|r| fills(r.to))
    }

    /// When one piece of news has had all its consequences.
    pub fn crashes_settled(&mut self) {
        self.start_asked = None;
        self.crashes.most = self.crashes.most.max(self.places.len());
        let fine = self.stopping() || !self.none_to_come();
        assert!(fine, "nobody will ever serve, and the master stays");
    }
}

fn ended(p: &crate::records::Place) -> Option<Exit> {
    match p.rest {
        Some(Rest::Finished(exit)) => Some(exit),
        Some(Rest::GivenUp) | None => None,
    }
}
