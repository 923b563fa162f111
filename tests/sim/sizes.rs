//! The judge of sizes: how many slots are wanted, whether those that are not are emptied at once, and
//! what clients are told of it: each once, and the truth. And of signals that they ask for.

use crate::closing::CLOSES;
use crate::cover::{Cover, Mark};
use crate::judge::Judge;
use crate::records::{Limits, Place};
use crate::reloads::Fate;
use minicluster::core::{Asker, Hitch, Outcome, Size, SlotNr, Time, Whom};
use std::time::Duration;

/// So many clients may wait.
pub const MAX_ASKERS: usize = 192;
/// Most workers there can be.
const MAX_WORKERS: usize = 1024;

/// What is being told that an answer may hang on.
#[derive(Clone, Copy, Debug)]
pub enum Happens {
    /// Another number is asked for, by a client that was too many, or for one that cannot be.
    Size {
        refused: bool,
        full: bool,
        wait: bool,
    },
    /// A worker of that slot has ended, or could not be forked.
    Ended(SlotNr),
    /// A reload is asked for.
    Reload { asker: Option<Asker>, fate: Fate },
    /// A signal is to be passed on.
    Relay {
        asker: Option<Asker>,
        signal: i32,
        sent: usize,
    },
    /// Anything else.
    Other,
}

impl Happens {
    /// Is it what was asked for? Counts it, if so.
    pub fn relays(&mut self, sig: i32, whom: Whom) -> bool {
        match self {
            Happens::Relay { signal, sent, .. } if *signal == sig && whom == Whom::Leader => {
                *sent += 1;
                true
            }
            _ => false,
        }
    }
}

impl Judge {
    /// Another number is asked for.
    pub fn sized(&mut self, to: Size, who: Option<(Asker, bool)>, now: Time, cover: &mut Cover) {
        let wait = who.is_some_and(|(_, wait)| wait);
        if let Some((asker, _)) = who {
            self.resizers.insert(asker);
        }
        let n = match to {
            Size::To(n) => i64::from(n),
            Size::More(n) => self.wanted as i64 + i64::from(n),
            Size::Fewer(n) => self.wanted as i64 - i64::from(n),
        };
        let n = usize::try_from(n)
            .ok()
            .filter(|n| (1..=MAX_WORKERS).contains(n));
        // Fewer there can always be.
        let room = |n: &usize| *n <= self.wanted || *n <= usize::from(self.policy.most);
        if n.is_some_and(|n| !room(&n)) && !self.stopping() {
            cover.mark(Mark::NoRoom);
        }
        let n = n.filter(room);
        let full = wait && self.waiting() > MAX_ASKERS;
        self.happens = Happens::Size {
            refused: n.is_none(),
            full,
            wait,
        };
        if let Some(n) = n.filter(|_| !full && !self.stopping()) {
            // What was read again is older than that.
            if let Some(r) = &mut self.rollout {
                r.workers = None;
            }
            self.counted_anew();
            self.revived(now, cover);
            self.want(n, now, cover);
            // Those that had to wait for others may have none to wait for.
            self.promote(now, cover);
        }
    }

    /// Those that there are to be.
    pub fn open(&self) -> impl Iterator<Item = &Place> + Clone {
        self.places.iter().filter(|p| !p.closed)
    }

    pub fn want(&mut self, n: usize, now: Time, cover: &mut Cover) {
        self.want_without(n, None, now, cover);
    }

    /// The lowest that are closed are opened, or that one or the highest that are open are closed.
    pub fn want_without(&mut self, n: usize, which: Option<SlotNr>, now: Time, cover: &mut Cover) {
        let from = std::mem::replace(&mut self.wanted, n);
        let generation = self.generation;
        let anew = || Place {
            generation,
            closed: n < from,
            ..Place::default()
        };
        let closed = self.places.iter().filter(|p| p.closed).count();
        let len = self.places.len() + n.saturating_sub(from + closed);
        let behind = || Place {
            closed: true,
            ..anew()
        };
        self.places.resize_with(len, behind);
        let like = |p: &(usize, &Place)| p.1.closed == (n > from);
        let mut list: Vec<usize> = self
            .places
            .iter()
            .enumerate()
            .filter(like)
            .map(|p| p.0)
            .collect();
        match (n > from, which) {
            (true, _) => list.truncate(n - from),
            (false, None) => drop(list.drain(..n)),
            (false, Some(slot)) => list = vec![usize::from(slot.0)],
        }
        for nr in list {
            let place = &mut self.places[nr];
            place.closed = n < from;
            let kept = place.kept.take();
            for worker in place.successor.take().into_iter().chain(kept) {
                if let Some(job) = self.jobs.get_mut(&worker) {
                    job.replaced.get_or_insert(now);
                }
            }
            // (One that has the place already goes on without it.)
            // (One that has made room for another there goes on going, and nobody waits for that.)
            let its = |s: &mut crate::swaps::Swap| usize::from(s.slot.0) == nr;
            self.swap.take_if(its);
            let place = &mut self.places[nr];
            let Some(worker) = place.worker else {
                let at_once = Some((now, Duration::ZERO, Duration::ZERO));
                *place = Place {
                    vacant: at_once.filter(|_| n > from && self.opened.is_some()),
                    ..anew()
                };
                continue;
            };
            let job = self.jobs.get_mut(&worker).expect("it was spawned");
            match (n > from, job.leader.is_some()) {
                (true, true) => {
                    (place.proven, place.generation) = (false, generation);
                    cover.mark(Mark::WantedAgain);
                }
                // Not forked yet: it may stay.
                (true, false) if job.generation >= generation && job.program == self.grows_by => {
                    (place.proven, job.surplus) = (false, None);
                }
                // But not of what ran before.
                (true, false) => (place.proven, place.generation) = (false, generation),
                (false, _) => {
                    job.surplus.get_or_insert(now);
                }
            }
        }
    }

    /// Is nobody left above the wanted number?
    pub fn none_above(&self) -> bool {
        let mut closed = self.places.iter().filter(|p| p.closed);
        closed.all(|p| p.worker.is_none())
    }

    fn reached(&self) -> bool {
        let there = |p: &Place| p.proven || p.rest.is_some();
        self.none_above() && self.open().all(there)
    }

    /// When one piece of news has had all its consequences.
    pub fn sizes_settled(&self) {
        if self.stopping() {
            assert!(
                self.resizers.is_empty(),
                "the stop is not told to a resizer"
            );
            return;
        }
        assert!(
            self.resizers.is_empty() || !self.reached(),
            "there are {} workers, and nobody is told",
            self.wanted
        );
        for place in self.places.iter().filter(|p| p.closed) {
            let job = place.worker.and_then(|w| self.jobs.get(&w));
            let fine = job.is_none_or(|j| {
                let asked = j.drain.or(j.stop).or(j.kill).or(j.abort).is_some() || j.failed;
                asked || j.leader.is_none() || j.exit_told
            });
            assert!(fine, "{job:?} is not wanted, and not asked to go");
        }
    }

    /// How long things may take.
    pub fn limits(&self) -> Limits<'_> {
        Limits(&self.policy)
    }

    /// A client is answered.
    pub fn replied(&mut self, asker: Asker, outcome: &Outcome, now: Time, cover: &mut Cover) {
        // A watch may be over by now, which nothing else has told.
        self.promote(now, cover);
        if self.reloaders.contains_key(&asker) {
            return self.reload_replied(asker, outcome, cover);
        }
        if self.starters.contains_key(&asker) {
            return self.start_replied(asker, outcome, cover);
        }
        if let Some((of, under_way)) = self.backing_out.take_if(|(of, _)| *of == asker) {
            let done = matches!(outcome, Outcome::BackedOut { .. });
            assert_eq!((of, under_way), (asker, done));
            return;
        }
        if self.closers.contains(&asker) {
            return self.close_replied(asker, outcome);
        }
        if self.restarters.contains(&asker) {
            return self.restart_replied(asker, outcome, cover);
        }
        match (outcome, self.happens) {
            (
                Outcome::BackedOut { .. }
                | Outcome::NothingToBackOut
                | Outcome::Starting { .. }
                | Outcome::Started { .. }
                | Outcome::NotStarted { .. },
                _,
            ) => panic!("{outcome:?} without a question"),
            (Outcome::Ended { code, stuck }, _) => {
                return self.told_the_end(asker, *code, stuck);
            }
            (Outcome::TooMany, Happens::Size { full, .. }) => {
                assert!(full, "{asker:?} was not too many");
                cover.mark(Mark::SizesRefused);
            }
            (Outcome::TooMany, _) => {
                assert!(self.waiting() > MAX_ASKERS, "{asker:?} was not too many");
                cover.mark(Mark::AskersRefused);
                self.askers.remove(&asker).expect("answer to nobody");
                return;
            }
            (
                Outcome::Signalled { signal, whom },
                Happens::Relay {
                    asker: of,
                    signal: asked,
                    sent,
                },
            ) => {
                assert_eq!((Some(asker), *signal, whom.len()), (of, asked, sent));
                assert!(sent > 0 && whom.iter().all(|w| w.pid.is_some()));
                self.happens = Happens::Other;
                return;
            }
            (
                Outcome::Nobody { .. } | Outcome::Unknown { .. },
                Happens::Relay {
                    asker: of, sent, ..
                },
            ) => {
                assert_eq!((Some(asker), 0), (of, sent));
                self.happens = Happens::Other;
                return;
            }
            (Outcome::Signalled { .. } | Outcome::Nobody { .. } | Outcome::Unknown { .. }, _) => {
                panic!("{outcome:?} without a question")
            }
            (
                Outcome::Reloading { .. }
                | Outcome::Reloaded { .. }
                | Outcome::NotReloaded { .. }
                | Outcome::Restarting { .. }
                | Outcome::ShuttingDown { .. }
                | Outcome::ShutDown { .. }
                | Outcome::NotShutDown { .. }
                | Outcome::LastSlot { .. }
                | Outcome::Restarted { .. }
                | Outcome::NotRestarted { .. },
                _,
            ) => panic!("{outcome:?} without a question"),
            (Outcome::OutOfBounds { .. } | Outcome::NoRoom { .. }, happens) => {
                assert!(matches!(happens, Happens::Size { refused: true, .. }));
            }
            (Outcome::Resizing { workers }, happens) => {
                assert!(matches!(happens, Happens::Size { wait: false, .. }));
                assert_eq!(usize::from(*workers), self.wanted);
            }
            (Outcome::Resized { workers }, _) => {
                assert_eq!(usize::from(*workers), self.wanted);
                assert!(self.reached(), "not all are ready, or some are left");
                cover.mark(Mark::Resized);
            }
            (Outcome::NotResized { workers, hitch }, _) => {
                if let Hitch::Superseded {
                    why: "read again", ..
                } = hitch
                {
                    self.promote(now, cover);
                    self.settle_generation(now, cover);
                }
                // What fails first may fail a reload next, which had wanted that number.
                let n = usize::from(*workers);
                // (What is added, or taken away again, is said next.)
                let added = match hitch {
                    Hitch::Superseded { to, why, .. } => {
                        let ours = [
                            "added by a client",
                            "the added slot has failed",
                            "its start is called off",
                            CLOSES,
                        ];
                        usize::from(*to) == n && ours.contains(why)
                    }
                    _ => false,
                };
                assert!(added || n == self.wanted || n == self.wanted_before);
                self.hitch(hitch, now, cover);
            }
        }
        assert!(self.resizers.remove(&asker), "{asker:?} is answered twice");
    }

    fn hitch(&self, hitch: &Hitch, now: Time, cover: &mut Cover) {
        let unproven = |slot: SlotNr| {
            let nr = usize::from(slot.0);
            !self.places[nr].proven
        };
        match (hitch, self.happens) {
            (Hitch::Died(d), Happens::Ended(slot)) => {
                assert!(d.who.slot == slot && unproven(slot) && d.ready_for.is_none());
                cover.mark(Mark::ResizeFailed);
            }
            (Hitch::NotForked { slot, .. }, Happens::Ended(of)) => {
                assert!(*slot == of && unproven(of));
                cover.mark(Mark::ResizeFailed);
            }
            (Hitch::Stuck(who), _) => {
                let nr = usize::from(who.slot.0);
                let worker = self.places[nr].worker.expect("nobody is stuck");
                // Which was not too soon, or it would have been a breach.
                let again = self.jobs[&worker].kill == Some(now);
                assert!(again && (self.places[nr].closed || unproven(who.slot)));
                cover.mark(Mark::ResizeStuck);
            }
            (
                Hitch::Superseded { to, why, .. },
                Happens::Size { .. } | Happens::Reload { .. } | Happens::Ended(_) | Happens::Other,
            ) => {
                let ours = [
                    "added by a client",
                    "the added slot has failed",
                    "its start is called off",
                    CLOSES,
                ];
                assert!(usize::from(*to) == self.wanted || ours.contains(why));
                cover.mark(Mark::ResizeSuperseded);
            }
            (Hitch::Stopping, _) => {
                assert!(self.stopping());
                cover.mark(Mark::ResizeStopped);
            }
            (
                Hitch::Died(_)
                | Hitch::NotForked { .. }
                | Hitch::Superseded { .. }
                | Hitch::Unreadable(_)
                | Hitch::TooEarly
                | Hitch::Hangs(_)
                | Hitch::CalledOff { .. }
                | Hitch::UnderWay(_)
                | Hitch::Replacing
                | Hitch::Leaves(_)
                | Hitch::Gone(_)
                | Hitch::Overtaken { .. },
                happens,
            ) => {
                panic!("{hitch:?} although {happens:?}")
            }
        }
    }
}
