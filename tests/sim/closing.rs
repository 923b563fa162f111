//! The judge of slots that are shut down, and of the ends that are asked for in other words: that slot
//! goes and no other, and who asked hears it. And their stories.

use crate::cover::{Cover, Mark};
use crate::draw::Mischief;
use crate::judge::Judge;
use crate::plan::Kind;
use crate::reloading::{broken, good, reload};
use crate::stories::{end, ms, of, secs, stopping_in, told};
use crate::world::World;
use minicluster::core::{
    Asker, By, Event, Hitch, More, Outcome, Pid, Policy, Restart, Shutdown, Size, SlotNr, Target,
    Time,
};
use std::time::Duration;

/// Why a slot goes, as it is said.
pub const CLOSES: &str = "a slot is shut down by a client";

/// Who hears what comes of it.
pub fn asks(event: &Event) -> Option<Asker> {
    match event {
        Event::Stop { asker, .. }
        | Event::Exit { asker, .. }
        | Event::StopWithin { asker, .. }
        | Event::Shutdown(Shutdown { asker, .. })
        | Event::Resize { asker, .. }
        | Event::BackOut { asker, .. }
        | Event::Start(More { asker, .. })
        | Event::Restart(Restart { asker, .. })
        | Event::Reload {
            asker: Some(asker), ..
        }
        | Event::SignalWorkers { asker, .. } => Some(*asker),
        _ => None,
    }
}

impl Judge {
    /// Somebody wants it so.
    pub fn closing_told(&mut self, event: &Event, now: Time) {
        self.closing = None;
        match event {
            Event::Exit { asker, .. } => {
                self.askers.insert(*asker, None);
                let was = self.ending.map(|e| e.hard);
                self.wish(0, true, now);
                if let (Some(e), Some(false) | None) = (&mut self.ending, was) {
                    e.code = 0;
                }
            }
            Event::StopWithin { asker, within, .. } => {
                self.askers.insert(*asker, None);
                if !self.stopping() {
                    self.policy.stop_budget = Some(*within);
                }
                self.wish(0, false, now);
            }
            Event::Shutdown(wish) => {
                self.closers.insert(wish.asker);
                self.closing = Some(*wish);
            }
            _ => {}
        }
    }

    /// One slot goes: that which was meant.
    pub fn closes(&mut self, to: usize, now: Time, cover: &mut Cover) {
        let wish = self.closing.take().expect("nobody has asked for that");
        assert!(to >= 1 && to + 1 == self.wanted && !self.stopping());
        let open = |n: u32| self.places.get(n as usize).is_some_and(|p| !p.closed);
        let by_pid = |n: u32| {
            let its = |j: &crate::records::Job| j.pid == Some(Pid(n as i32)) && !j.exit_told;
            let job = self.jobs.values().find(|j| its(j)).expect("nobody has it");
            job.slot
        };
        let slot = match wish.target {
            Target::All => panic!("that is a stop"),
            Target::Slot(n) => SlotNr(n as u16),
            Target::Number(n) if open(n) => SlotNr(n as u16),
            Target::Number(n) | Target::Pid(n) => by_pid(n),
        };
        assert!(!self.places[usize::from(slot.0)].closed, "{slot} is closed");
        self.counted_anew();
        self.revived(now, cover);
        if let Some(within) = wish.within {
            let worker = self.places[usize::from(slot.0)].worker;
            if let Some(job) = worker.and_then(|w| self.jobs.get_mut(&w)) {
                job.own_time = Some((now, within));
            }
        }
        self.want_without(to, Some(slot), now, cover);
        cover.mark(Mark::Closed);
    }

    /// Who asked for it is answered.
    pub fn close_replied(&mut self, asker: Asker, outcome: &Outcome) {
        assert!(self.closers.remove(&asker), "{asker:?} is answered twice");
        match outcome {
            Outcome::ShutDown { who, workers } => {
                assert_eq!(usize::from(*workers), self.wanted);
                let gone = |j: &&crate::records::Job| j.pid == who.pid && j.slot == who.slot;
                if let (Some(_), Some(job)) = (who.pid, self.jobs.values().rfind(gone)) {
                    assert!(job.exit_told, "{who} has not gone");
                }
            }
            Outcome::LastSlot { .. } => assert_eq!(self.wanted, 1),
            Outcome::NotShutDown {
                hitch: Hitch::Stopping,
            } => assert!(self.stopping()),
            Outcome::NotShutDown {
                hitch: Hitch::Replacing,
            } => assert!(self.rolled || self.rollout.is_some()),
            Outcome::NotShutDown {
                hitch: Hitch::Superseded { to, .. },
            } => assert_eq!(usize::from(*to), self.wanted),
            Outcome::ShuttingDown { .. }
            | Outcome::NotShutDown { .. }
            | Outcome::Unknown { .. }
            | Outcome::TooMany => {}
            other => panic!("{other:?} to a shutdown"),
        }
    }
}

impl World {
    fn asker(&mut self) -> (Asker, By) {
        self.next_asker += 1;
        let by = By {
            pid: Pid(1),
            uid: 0,
        };
        (Asker(self.next_asker), by)
    }

    pub fn shut_down(&mut self, target: Target, within: Option<Duration>, wait: bool) {
        let (asker, by) = self.asker();
        self.post(Event::Shutdown(Shutdown {
            asker,
            target,
            within,
            by,
            wait,
        }));
    }

    pub fn exit(&mut self) {
        let (asker, by) = self.asker();
        self.post(Event::Exit { asker, by });
    }

    pub fn stop_within(&mut self, within: Duration) {
        let (asker, by) = self.asker();
        self.post(Event::StopWithin { asker, within, by });
    }
}

fn slot(n: u32, within: Option<Duration>) -> Mischief {
    Mischief::Shutdown {
        target: Target::Slot(n),
        within,
        wait: true,
    }
}

/// The numbers of those that have a worker.
fn numbers(w: &World) -> Vec<u16> {
    let all = w.cluster.status(w.now).slots;
    all.iter().map(|v| v.slot.0).collect()
}

fn last(w: &World) -> &Outcome {
    &w.answers.last().expect("nobody is told anything").1
}

#[test]
fn one_slot_goes_and_the_others_stay_what_they_are_until_it_is_opened_again() {
    let mut w = told(of(4), vec![], Kind::Good);
    w.run(secs(5));
    w.mischief(slot(1, None));
    w.run(secs(2));
    assert!(matches!(last(&w), Outcome::ShutDown { who, workers: 3 } if who.slot.0 == 1));
    assert_eq!(numbers(&w), [0, 2, 3]);
    assert_eq!(w.cluster.wanted(), 3);
    // Nothing is left to wake up for.
    assert_eq!(w.cluster.deadline(), None);
    // A reload leaves it closed, a death of another one does, too.
    w.mischief(Mischief::Reload(crate::draw::Reload::same()));
    w.mischief(Mischief::Storm(100));
    w.run(secs(60));
    assert_eq!(numbers(&w), [0, 2, 3]);
    // It is not there: nobody can be meant by it.
    w.mischief(slot(1, None));
    w.run(ms(1));
    assert!(matches!(last(&w), Outcome::Unknown { .. }));
    // More opens it first, fewer closes the highest.
    let wait = true;
    w.mischief(Mischief::Resize {
        to: Size::More(1),
        wait,
    });
    w.run(secs(5));
    assert_eq!(numbers(&w), [0, 1, 2, 3]);
    w.mischief(slot(0, None));
    w.run(secs(2));
    w.mischief(Mischief::Resize {
        to: Size::To(2),
        wait,
    });
    w.run(secs(2));
    assert_eq!(numbers(&w), [1, 2]);
    w.mischief(Mischief::Resize {
        to: Size::To(5),
        wait,
    });
    w.run(secs(2));
    assert_eq!(numbers(&w), [0, 1, 2, 3, 4]);
}

#[test]
fn a_slot_that_is_opened_again_before_its_worker_was_forked_has_the_time_of_all_others() {
    let mut w = told(of(2), vec![stopping_in(Some(ms(500))); 4], Kind::Good);
    w.run(secs(5));
    let more = |n| Mischief::Resize {
        to: Size::More(n),
        wait: false,
    };
    // The second one waits for the first to be on its way.
    w.mischief(more(2));
    w.mischief(slot(3, Some(ms(300))));
    w.mischief(more(1));
    w.run(secs(10));
    assert_eq!(numbers(&w), [0, 1, 2, 3]);
    w.mischief(Mischief::Resize {
        to: Size::Fewer(1),
        wait: false,
    });
    w.run(secs(5));
    assert_eq!(numbers(&w), [0, 1, 2]);
    assert_eq!(w.cover.count("Notice::TooSlowToStop"), 0);
}

#[test]
fn a_slot_that_is_closed_keeps_nothing_of_before_alive() {
    let mut w = told(of(3), vec![], Kind::Good);
    w.run(secs(5));
    w.mischief(slot(1, None));
    w.run(secs(2));
    // One that is taken back gives all slots what they had.
    reload(&mut w, broken(Kind::Crash));
    w.run(secs(30));
    reload(&mut w, good());
    w.run(secs(60));
    assert_eq!(numbers(&w), [0, 2]);
    assert!(!w.cluster.is_alive(1));
    w.old_lanes_are_gone();
}

#[test]
fn the_last_one_is_not_shut_down() {
    let mut w = told(of(2), vec![], Kind::Good);
    w.run(secs(5));
    w.mischief(slot(0, None));
    w.run(secs(2));
    w.mischief(slot(1, None));
    w.run(secs(2));
    assert!(matches!(last(&w), Outcome::LastSlot { .. }));
    assert_eq!(numbers(&w), [1]);
}

#[test]
fn a_worker_that_has_a_time_of_its_own_is_killed_when_that_is_over() {
    let mut w = told(of(2), vec![stopping_in(None); 2], Kind::Good);
    w.run(secs(5));
    w.mischief(slot(1, Some(secs(2))));
    w.run(ms(1900));
    assert_eq!(w.procs.len(), 2);
    w.run(ms(200));
    assert!(matches!(last(&w), Outcome::ShutDown { .. }));
    assert_eq!(w.cover.count("Notice::TooSlowToStop"), 1);
}

#[test]
fn a_slot_that_has_no_worker_goes_at_once() {
    let policy = Policy {
        respawn: secs(30),
        ..of(2)
    };
    let mut w = told(policy, vec![], Kind::Good);
    w.run(secs(5));
    w.faults.mix = vec![(1, Kind::Crash)];
    w.mischief(Mischief::Relay(9, Target::Slot(1)));
    w.run(secs(40));
    w.faults.mix = vec![(1, Kind::Good)];
    w.mischief(slot(1, None));
    w.run(secs(12));
    assert!(matches!(last(&w), Outcome::ShutDown { workers: 1, .. }));
    assert_eq!(numbers(&w), [0]);
}

#[test]
fn exit_now_is_hard_and_good() {
    let mut w = told(of(2), vec![stopping_in(None); 2], Kind::Good);
    w.run(secs(5));
    w.mischief(Mischief::Exit);
    let (code, took) = end(&mut w);
    assert_eq!(code, Some(0));
    assert!(took < secs(1), "{took:?}");
}

#[test]
fn a_stop_within_a_time_is_cut_as_by_a_budget() {
    let mut w = told(of(2), vec![stopping_in(None); 2], Kind::Good);
    w.run(secs(5));
    w.mischief(Mischief::StopWithin(secs(3)));
    let (code, took) = end(&mut w);
    assert_eq!(code, Some(0));
    assert!(took > secs(2) && took <= secs(3), "{took:?}");
}
