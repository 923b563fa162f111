//! The judge of safety: what must never be, whatever the world does. It keeps its own account of
//! workers, slots, lanes and clients from what core is told and what core does, and shares no code
//! with core's own invariants. A breach is a panic; the runner prints seed and trace.

use crate::cover::{Cover, Mark};
use crate::crashes::{Crashes, Rest};
use crate::records::{Ending, Job, Lane, Place};
use crate::reloads::Rollout;
use crate::sizes::Happens;
use crate::swaps::Swap;
use minicluster::core::Addr;
use minicluster::core::{
    Ask, Asker, Event, LaneId, MasterSignal, Oom, Pid, Policy, PortId, Program, ReadyRule, Seen,
    Shutdown, SlotNr, Takeover, Time, Word, WorkerId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub const SIGABRT: i32 = 6;
/// A SIGKILL is given so long to work before anything is called unkillable.
pub const GRACE: Duration = Duration::from_secs(5);
/// After so long at most, SIGKILL is repeated.
const KILL_AGAIN: Duration = Duration::from_secs(30);
/// Ready for so long, a worker is replaced at once.
pub const SETTLED: Duration = Duration::from_secs(1);
/// The first worker goes ahead of the others so long.
pub const LEAD: Duration = Duration::from_millis(10);
/// A TERM or INT so soon after another is the same one.
const ECHO: Duration = Duration::from_millis(100);
/// A fork that failed is not tried again sooner.
const FORK_AGAIN: Duration = Duration::from_millis(100);
/// More calls of `handle` at one instant than this are a loop that never ends.
const CALLS_AT_ONCE: u64 = 20_000;

/// The account.
pub struct Judge {
    pub policy: Policy,
    pub jobs: BTreeMap<WorkerId, Job>,
    /// Those of whose end core was not told.
    pub living: BTreeSet<WorkerId>,
    pub lanes: BTreeMap<LaneId, Lane>,
    /// Ports at which a worker of which generation has, or had, a socket of its own.
    pub owned: BTreeSet<(PortId, u32)>,
    /// How many slots there are to be; those that are to go stand behind them.
    pub wanted: usize,
    /// And how many before what is being told.
    pub wanted_before: usize,
    pub places: Vec<Place>,
    pub asks: BTreeMap<Ask, Option<Addr>>,
    /// Clients that wait, and whether they were answered.
    pub askers: BTreeMap<Asker, Option<u8>>,
    /// Those that wait for a number of workers.
    pub resizers: BTreeSet<Asker>,
    /// Those that wait for a reload, and for which generation.
    pub reloaders: BTreeMap<Asker, u32>,
    /// Those that want slots added, and how many; and of the last that was: how long they have.
    pub starters: BTreeMap<Asker, u16>,
    pub start_ready: Option<Duration>,
    pub added: Option<SlotNr>,
    pub added_last: Option<SlotNr>,
    pub start_program: Program,
    pub start_asked: Option<(Option<Duration>, Program)>,
    /// What slots run that are added now.
    pub grows_by: Program,
    /// Who has asked for a reload to be called off, and whether there was one.
    pub backing_out: Option<(Asker, bool)>,
    /// Of the code that runs, the newest there was, and by what policy it runs.
    pub generation: u32,
    pub newest: u32,
    pub running: Policy,
    pub rollout: Option<Rollout>,
    /// The worker that is replaced alone; and who waits for one to be.
    pub swap: Option<Swap>,
    /// Was a rollout under way before what is being told?
    pub rolled: bool,
    pub restarters: BTreeSet<Asker>,
    /// Those that wait for a slot to go; and which one is to.
    pub closers: BTreeSet<Asker>,
    pub closing: Option<Shutdown>,
    /// An end that is to be told, and whether it is a good one; and what was told.
    pub ends: Option<(u32, bool)>,
    pub over: Option<u32>,
    /// Who has been dropped with the reload that is over now, and what that wanted.
    pub tried: Option<(Vec<WorkerId>, Policy)>,
    pub failed: Option<u32>,
    /// What is being told of sizes and signals.
    pub happens: Happens,
    pub ending: Option<Ending>,
    /// When the last TERM or INT came that was no echo.
    pub heard_at: Option<Time>,
    pub finished: Option<u8>,
    pub stuck: Vec<Pid>,
    pub gave_up_stuck: bool,
    pub opened: Option<Time>,
    pub crashes: Crashes,
    /// It leaves of itself with that.
    pub finished_with: Option<u8>,
    pub ever_execed: bool,
    pub ever_ready: bool,
    pub ever_held: bool,
    pub rotation: crate::rotation::Rotation,
    /// Was it said that the start is over?
    pub launched: bool,
    /// What is being told makes this worker ready, or this one's group reachable.
    pub evidence: Option<WorkerId>,
    pub ending_worker: Option<WorkerId>,
    /// How much time the master did not have.
    pub lost: Duration,
    pub handled: u64,
    pub at_once: (Time, u64),
}

impl Judge {
    /// Nothing has happened yet.
    pub fn new(policy: &Policy) -> Judge {
        Judge {
            policy: policy.clone(),
            jobs: BTreeMap::new(),
            living: BTreeSet::new(),
            lanes: BTreeMap::new(),
            owned: BTreeSet::new(),
            wanted: usize::from(policy.workers),
            wanted_before: usize::from(policy.workers),
            places: vec![
                Place {
                    generation: 1,
                    ..Place::default()
                };
                usize::from(policy.workers)
            ],
            asks: BTreeMap::new(),
            askers: BTreeMap::new(),
            resizers: BTreeSet::new(),
            reloaders: BTreeMap::new(),
            starters: BTreeMap::new(),
            start_ready: None,
            added: None,
            added_last: None,
            start_program: Program(0),
            start_asked: None,
            grows_by: Program(0),
            backing_out: None,
            generation: 1,
            newest: 1,
            running: policy.clone(),
            rollout: None,
            swap: None,
            rolled: false,
            restarters: BTreeSet::new(),
            closers: BTreeSet::new(),
            closing: None,
            ends: None,
            over: None,
            tried: None,
            failed: None,
            happens: Happens::Other,
            ending: None,
            heard_at: None,
            finished: None,
            stuck: Vec::new(),
            gave_up_stuck: false,
            opened: None,
            crashes: Crashes::default(),
            finished_with: None,
            ever_execed: false,
            ever_ready: false,
            ever_held: false,
            rotation: Default::default(),
            launched: false,
            evidence: None,
            ending_worker: None,
            lost: Duration::ZERO,
            handled: 0,
            at_once: (Time(0), 0),
        }
    }

    /// Are workers asked whether they are ready?
    pub fn asks(&self) -> bool {
        self.policy.ready == ReadyRule::Answers
    }

    /// Has it to end?
    pub fn stopping(&self) -> bool {
        self.ending.is_some()
    }

    /// How many workers are ready and not known to have ended.
    pub fn ready(&self) -> usize {
        self.ready_workers().count()
    }

    /// Those.
    pub fn ready_workers(&self) -> impl Iterator<Item = WorkerId> {
        let workers = self.places.iter().filter_map(|p| p.worker);
        workers.filter(|w| self.jobs.get(w).is_some_and(|j| j.serves()))
    }

    pub fn wish(&mut self, code: u8, hard: bool, now: Time) {
        match &mut self.ending {
            None => {
                if self.finished.is_none() {
                    self.rollout_stops();
                    self.swap = None;
                }
                self.ending = Some(Ending {
                    code,
                    hard,
                    asked: true,
                    since: now,
                })
            }
            Some(e) if hard && !e.hard => (e.code, e.hard) = (1, true),
            Some(_) => {}
        }
    }

    /// A cause to give up: only while it serves.
    pub fn give_up(&mut self, code: u8, now: Time) {
        if self.ending.is_none() {
            self.wish(code, false, now);
            self.ending.iter_mut().for_each(|e| e.asked = false);
        }
    }

    /// Core is about to be told this.
    pub fn told(&mut self, event: &Event, now: Time, cover: &mut Cover) {
        self.handled += 1;
        if self.at_once.0 != now {
            self.at_once = (now, 0);
        }
        self.at_once.1 += 1;
        // A hundred reloads at one moment call off as many times all workers.
        let most = CALLS_AT_ONCE * (1 + self.wanted as u64 / 8);
        assert!(self.at_once.1 < most, "the loop spins at {now:?}");
        (self.evidence, self.ending_worker) = (None, None);
        self.happens = Happens::Other;
        self.wanted_before = self.wanted;
        self.rolled = self.rollout.is_some();
        self.due_told(event, now);
        self.rotation_told(event);
        self.closing_told(event, now);
        match event {
            // The second one is hard; while it gives up by itself the first is only heard.
            // And the echo of the first is none.
            Event::Signal(MasterSignal::Stop(_))
                if self.heard_at.is_some_and(|at| now - at < ECHO) => {}
            Event::Signal(MasterSignal::Stop(_)) => {
                self.heard_at = Some(now);
                match &mut self.ending {
                    Some(e) if !e.asked => e.asked = true,
                    Some(_) | None => self.wish(0, self.stopping(), now),
                }
            }
            Event::Signal(MasterSignal::Kill(_)) => {
                self.wish(1, true, now);
            }
            Event::Signal(MasterSignal::HangUp | MasterSignal::CallerGone) => {
                self.wish(0, false, now)
            }
            Event::Signal(MasterSignal::Resize(to, _)) => self.sized(*to, None, now, cover),
            Event::Exit { .. } | Event::StopWithin { .. } | Event::Shutdown(_) => {}
            Event::Rotate { .. } | Event::Signal(MasterSignal::Rotate { .. }) => {}
            Event::Signal(MasterSignal::Relay { signal, .. }) => {
                self.happens = Happens::Relay {
                    asker: None,
                    signal: *signal,
                    sent: 0,
                };
            }
            Event::Resize {
                asker, to, wait, ..
            } => self.sized(*to, Some((*asker, *wait)), now, cover),
            Event::SignalWorkers { asker, signal, .. } => {
                self.happens = Happens::Relay {
                    asker: Some(*asker),
                    signal: *signal,
                    sent: 0,
                };
            }
            Event::Stop { asker, hard, .. } => {
                self.askers.insert(*asker, None);
                self.wish(u8::from(*hard), *hard, now);
            }
            Event::AskerGone { asker } => {
                let waited = self.askers.remove(asker).is_some()
                    | self.resizers.remove(asker)
                    | self.closers.remove(asker)
                    | self.starters.remove(asker).is_some()
                    | self.restarters.remove(asker);
                if waited | self.reloaders.remove(asker).is_some() {
                    cover.mark(Mark::AskerLeft);
                }
            }
            Event::LaneDied { lane } => {
                // (If it is not gone already.)
                let open = |l: &mut Lane| std::mem::replace(&mut l.open, false);
                if self.lanes.get_mut(lane).is_some_and(open) {
                    self.own_connects(*lane);
                }
            }
            Event::LaneLeft { lane } => {
                if let Some(lane) = self.lanes.get_mut(lane) {
                    lane.left = true;
                }
            }
            Event::LaneFailed { lane, errno, .. } => {
                let given = self.lanes.get(lane).is_some_and(|l| l.given);
                if given && !self.ever_execed {
                    let code = match errno {
                        98 => 75,
                        1 | 13 => 77,
                        _ => 71,
                    };
                    self.give_up(code, now);
                }
            }
            Event::SpawnFailed { worker, .. } => {
                self.living.remove(worker);
                if let Some(job) = self.jobs.remove(worker) {
                    self.happens = Happens::Ended(job.slot);
                    let place = &self.places[usize::from(job.slot.0)];
                    if place.worker == Some(*worker) {
                        self.vacate(job.slot, (false, None), None, FORK_AGAIN, now);
                    } else if place.successor == Some(*worker) {
                        self.successor_failed(*worker, now, cover);
                    }
                }
            }
            Event::Checked { check, answer } => self.checked(*check, answer.is_ok()),
            Event::Tick
            | Event::StrayReaped
            | Event::Strays { .. }
            | Event::StraysUnnamed
            | Event::Served { .. }
            | Event::Waiting { .. }
            | Event::LaneAlone { .. }
            | Event::AdoptFailed { .. }
            | Event::Census { .. }
            | Event::Weighed { .. }
            | Event::Counted { .. }
            | Event::Closed { .. }
            | Event::Dismissed { .. }
            | Event::LaneOpened { .. } => {}
            Event::Restart(wish) => self.restart_told(wish),
            Event::Reload { .. } => self.reload_told(event, now, cover),
            Event::BackOut { asker, .. } => self.back_out_told(*asker, now, cover),
            Event::Start(more) => self.start_told(more),
            Event::Spawned { worker, .. }
            | Event::IsThere { worker, .. }
            | Event::TakeoverRefused { worker, .. }
            | Event::Execed { worker }
            | Event::ExecFailed { worker, .. }
            | Event::BindAsked { worker, .. }
            | Event::ListenAsked { worker, .. }
            | Event::Listens { worker, .. }
            | Event::Seen { worker, .. }
            | Event::Probed { worker, .. }
            | Event::Said { worker, .. }
            | Event::Exited { worker, .. }
            | Event::TreeGone { worker } => self.told_of(*worker, event, now, cover),
        }
    }

    fn told_of(&mut self, worker: WorkerId, event: &Event, now: Time, cover: &mut Cover) {
        let required = self.policy.takeover == Takeover::Require;
        match event {
            Event::BindAsked { ask, addr, .. } => {
                self.asks.insert(*ask, Some(addr.clone()));
            }
            Event::ListenAsked { ask, .. } => {
                self.asks.insert(*ask, None);
            }
            _ => {}
        }
        let ending = self.stopping();
        let Some(job) = self.jobs.get_mut(&worker).filter(|j| j.known()) else {
            if matches!(event, Event::BindAsked { .. } | Event::ListenAsked { .. }) {
                cover.mark(Mark::StrangerAsked);
            }
            return;
        };
        match event {
            Event::ExecFailed { .. } => job.failed |= job.execed.is_none(),
            Event::TakeoverRefused { .. } => job.failed |= required && job.execed.is_none(),
            _ => {}
        }
        match event {
            Event::Spawned { pid, .. } => {
                job.pid = Some(*pid);
                // (What replaces one that goes on is no respawn.)
                let in_time = |s: &Swap| s.new == worker && s.failures.is_none();
                let swapped = self.swap.as_ref().is_some_and(in_time);
                self.crashes.forks += u64::from(!swapped);
            }
            Event::Execed { .. } => {
                self.ever_execed = true;
                job.execed.get_or_insert(now);
                let counts = job.said && self.policy.ready.ends_by_word();
                let started = self.policy.ready == ReadyRule::Started;
                self.evidence = (started || counts).then_some(worker);
            }
            Event::ExecFailed { step, errno, .. } if !self.ever_execed => match (*step, errno) {
                ("exec", 2 | 20) => self.give_up(127, now),
                ("exec", _) => self.give_up(126, now),
                ("setuid" | "setrlimit", 1) => self.give_up(77, now),
                ("chdir", 13) => self.give_up(78, now),
                _ => {}
            },
            Event::TakeoverRefused { .. } if required && !self.ever_execed => self.give_up(71, now),
            Event::BindAsked { .. } | Event::ListenAsked { .. } => {
                if job.exit_told {
                    cover.mark(Mark::RemnantAsked);
                } else if job.execed.is_none() {
                    cover.mark(Mark::AskOvertookExec);
                }
            }
            Event::Listens { lane, .. } => {
                job.listened = Some(*lane);
                if let Some(lane) = self.lanes.get(lane).filter(|l| l.owner.is_none()) {
                    // What it had of its own there was a trial.
                    job.owns.remove(&lane.port);
                }
                // It may be a probe, as long as nobody was seen to keep a lane.
                self.evidence = self.ever_held.then_some(worker);
            }
            Event::Seen { what, .. } if *what != Seen::Nothing => {
                self.evidence = Some(worker);
                self.ever_held |= *what == Seen::Holds;
            }
            Event::Probed { answer, .. } if answer.is_ok() => self.evidence = Some(worker),
            Event::Said { word, .. } => match word {
                Word::Ready => {
                    job.said = true;
                    self.evidence = Some(worker);
                }
                Word::Ping | Word::Unheard if job.ready.is_some() => {
                    job.pulse = Some(now);
                    job.pinged |= *word == Word::Ping && job.abort.is_none();
                }
                Word::Trigger if job.ready.is_some() => {
                    job.trigger = true;
                    cover.mark(Mark::Triggered);
                }
                Word::Trigger => {}
                Word::Ping | Word::Unheard | Word::Stopping | Word::Retire => {}
            },
            Event::Exited { status, oom, .. } => {
                assert!(!job.exit_told, "the end of {worker:?} is told twice");
                job.exit_told = true;
                self.living.remove(&worker);
                // One that hangs and never said that it is well was not.
                let unwell = job.abort.is_some() && !job.pinged && !job.untouched;
                let ready_for = job.ready.filter(|_| !unwell).map(|t| now - t);
                if *oom != Oom::No {
                    cover.mark(Mark::OomKilled);
                }
                let (slot, drained) = (job.slot, job.has_to_go());
                // (Nobody wants to be killed for want of memory.)
                let oom = *oom != Oom::No && *status == minicluster::core::Exit::Signal(9);
                let announced = !drained && !oom && job.has_announced(now);
                let never = job.ready.is_none() && !drained;
                let generation = job.generation;
                if job.drain.is_some() && job.stop.is_none() {
                    // What it left is asked now.
                    (job.drain, job.stop_most) = (Some(now), self.policy.stop_timeout);
                }
                if ending && job.execed.is_none() {
                    cover.mark(Mark::StoppedBeforeExec);
                }
                self.ending_worker = Some(worker);
                self.happens = Happens::Ended(slot);
                // Its slot may be gone.
                let place = self
                    .places
                    .get(usize::from(slot.0))
                    .cloned()
                    .unwrap_or_default();
                let watched = self.is_watched(worker, now);
                let announced = announced && !watched && !ending;
                if announced {
                    cover.mark(Mark::Announced);
                }
                let drained = drained || announced;
                let rest = self.finishes(worker, *status).filter(|_| !ending);
                if place.successor == Some(worker) {
                    self.successor_failed(worker, now, cover);
                } else if self.steps_in(worker, ready_for, announced, now, cover) {
                } else if place.kept == Some(worker) {
                    self.places[usize::from(slot.0)].kept = None;
                } else if watched && !drained {
                    match place.kept {
                        Some(_) => self.places[usize::from(slot.0)].worker = None,
                        None => self.vacate_in_vain(slot, now),
                    }
                    self.rollout_fails(now, cover);
                } else if place.worker == Some(worker) {
                    if rest.is_some() && !drained {
                        cover.mark(Mark::SlotFinished);
                    }
                    self.vacate(slot, (drained, rest), ready_for, Duration::ZERO, now);
                    self.came_in_vain(slot, (generation, never), now, cover);
                }
            }
            Event::TreeGone { .. } => {
                job.gone_told = true;
                if !job.exit_told {
                    cover.mark(Mark::TreeGoneOvertook);
                }
            }
            _ => {}
        }
    }

    /// The slot is empty now; how long it may and must stay so is the policy's word.
    /// If it is not wanted, or its worker was asked to go, it begins anew, if it does.
    pub fn vacate(
        &mut self,
        slot: SlotNr,
        (drained, rest): (bool, Option<Rest>),
        ready_for: Option<Duration>,
        floor: Duration,
        now: Time,
    ) {
        let p = &self.policy;
        let place = &mut self.places[usize::from(slot.0)];
        let wanted = !place.closed;
        // The place of one that had been too many begins anew.
        let surplus = place.worker.and_then(|w| self.jobs.get(&w));
        let surplus = !wanted || surplus.is_some_and(|j| j.surplus.is_some());
        if !wanted || drained {
            let at_once = Some((now, Duration::ZERO, Duration::ZERO));
            *place = Place {
                vacant: at_once.filter(|_| wanted),
                generation: place.generation,
                successor: place.successor,
                kept: place.kept,
                proven: place.proven && !surplus,
                closed: place.closed,
                ..Place::default()
            };
            return;
        }
        place.worker = None;
        (place.failed, place.rest) = (rest.is_none(), rest);
        if rest.is_some() {
            return;
        }
        if ready_for.is_some_and(|r| r >= p.backoff_reset) {
            place.failures = 0;
        }
        if ready_for.is_some_and(|r| r >= SETTLED) {
            place.vacant = Some((now, Duration::ZERO, Duration::ZERO));
            return;
        }
        let limit = p.backoff.max(p.respawn);
        let full = match p.backoff.is_zero() {
            true => p.respawn,
            false => (0..place.failures.min(40)).fold(p.respawn, |d, _| (d * 2).min(limit)),
        };
        place.failures += 1;
        let least = full.mul_f64(0.8).saturating_sub(Duration::from_micros(1));
        place.vacant = Some((now, least, full.max(floor)));
    }

    /// A client is answered that asked for the end: each once, and all the same.
    pub fn told_the_end(&mut self, asker: Asker, code: u8, stuck: &[Pid]) {
        match self.finished {
            None => assert_eq!(stuck, self.stuck, "{asker:?} hears of other pids"),
            Some(end) => assert_eq!(code, end, "{asker:?} came late and hears of another end"),
        }
        let answer = self.askers.get_mut(&asker).expect("answer to nobody");
        assert!(answer.is_none(), "{asker:?} answered twice");
        *answer = Some(code);
    }

    /// How many clients wait.
    pub fn waiting(&self) -> usize {
        let ends = self.askers.values().filter(|a| a.is_none()).count();
        let askers = self.resizers.len() + self.reloaders.len() + self.starters.len();
        ends + askers + self.restarters.len() + self.closers.len()
    }

    /// The outcomes of one piece of news are all known.
    pub fn settled(&mut self, now: Time, cover: &mut Cover) {
        assert!(self.asks.is_empty(), "left blocked: {:?}", self.asks);
        self.own_lanes_settled();
        self.sizes_settled();
        self.reloads_settled(now, cover);
        self.swap_settled();
        self.crashes_settled();
    }

    /// What should have been done before this moment has been.
    pub fn nothing_overdue(&self, now: Time) {
        for worker in &self.living {
            let job = &self.jobs[worker];
            let late = job.kill.is_some_and(|t| now - t > KILL_AGAIN);
            let fine = !late || job.leader.is_none();
            assert!(fine, "{worker:?} is not killed again: {job:?}");
            let goes = job.stop.or(job.kill).is_some() || job.exit_told;
            let again = match job.rests {
                ..12 => self.limits().again(),
                12.. => Duration::ZERO,
            };
            let most = job.drain_most + again + Duration::from_secs(1) + self.lost;
            let late = job.drain.is_some_and(|t| now - t > most);
            assert!(goes || !late, "{worker:?} is drained for ever: {job:?}");
        }
        if self.stopping() || self.opened.is_none() {
            return;
        }
        for (nr, place) in self.places.iter().enumerate().filter(|(_, p)| !p.closed) {
            let held = self.held_most();
            let held = if place.failed { held } else { Duration::ZERO };
            let waits = place
                .vacant
                .is_some_and(|(at, _, most)| at + most + held >= now);
            let fine = place.worker.is_some() || waits || place.rest.is_some();
            assert!(fine, "slot {nr} is overdue: {place:?}");
        }
    }

    /// The master leaves with this code.
    pub fn finish(&mut self, code: u8, now: Time, limit: Duration) {
        assert!(self.finished.is_none(), "finished twice");
        self.finished = Some(code);
        let ending = self.ending.expect("finished without a reason");
        let stuck = code == 71 && self.gave_up_stuck;
        assert!(
            stuck || code == ending.code,
            "exit {code}, not {}",
            ending.code
        );
        let took = now - ending.since;
        let most = limit + self.lost;
        assert!(took <= most, "stopping took {took:?}, more than {most:?}");
        assert!(self.resizers.is_empty(), "somebody waits for a resize");
        assert!(self.reloaders.is_empty(), "somebody waits for a reload");
        assert!(self.restarters.is_empty(), "somebody waits for a restart");
        assert!(self.closers.is_empty(), "somebody waits for a slot to go");
        let right: BTreeSet<_> = self.askers.values().collect();
        assert!(
            right.iter().all(|a| **a == Some(code)),
            "clients heard {right:?}, not {code}"
        );
    }
}
