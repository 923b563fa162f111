//! The part that decides. Pure: no file descriptor, no clock, no environment, no randomness but a
//! seed handed in. `Cluster::handle` takes one piece of news and the time, and appends what is to be
//! done; `Cluster::deadline` says when to call again if nothing happens.
#![deny(clippy::wildcard_enum_match_arm)]

mod balance;
mod binds;
mod budget;
mod check;
mod crash;
mod deadlines;
mod drain;
mod due;
pub mod hearers;
mod hung;
mod kinds;
mod lanes;
mod own;
mod phase;
mod phrases;
mod probing;
mod program;
mod readiness;
mod recycle;
mod relay;
mod remnants;
mod resize;
mod rollout;
mod sentences;
mod shutdown;
mod slot;
mod slots;
mod speech;
mod starting;
mod steering;
mod swap;
mod unserved;
mod watch;
mod worker;

pub mod action;
pub mod addr;
pub mod codes;
pub mod counts;
pub mod death;
pub mod delegation;
pub mod event;
mod exchange;
pub mod fields;
pub mod fleet;
pub mod gather;
pub mod health;
pub mod ids;
pub mod notice;
pub mod outcome;
pub mod policy;
pub mod respawn;
pub mod rotation;
pub mod status;
pub mod table;
pub mod words;

pub use action::{Action, Opening, Whom};
pub use addr::{Addr, FileIs, Given, share_clients};
pub use codes::EXEC_STEP;
pub use crash::{MAX_RESTARTS, Used, status_of};
pub use deadlines::Why;
pub use drain::{LAST_LOOK, Stage};
pub use event::{
    By, Event, Exit, LaneLook, Load, MasterSignal, More, Oom, Restart, Seen, Shutdown, Sight, Size,
    Snag, Target, Terms, Wait, Waits, Word,
};
pub use health::{Check, CheckView, Checks, Page, Question};
pub use hung::Hang;
pub use ids::{Ask, Asker, LaneId, Pid, PortId, Program, Seat, SlotNr, Time, WorkerId};
pub use lanes::{Of, Reader};
pub use notice::{Cause, Hindrance, Level, Notice, PassWhy, Who};
pub use outcome::{Came, Hitch, Outcome};
pub use phase::{MAX_ASKERS, Phase, Step};
pub use policy::{
    Balance, Canary, Drain, MAX_WORKERS, OnCrashLoop, Policy, ReadyRule, Recycle, RespawnOn, Surge,
    Takeover,
};
pub use recycle::Reason;
pub use remnants::MAX_REMNANTS;
pub use rotation::{Ground, Rotation, Standing};
pub use status::Snapshot;
pub use table::{BUCKETS, Deal, Key, Table};

use counts::Counts;
use crash::Tally;
use deadlines::Deadlines;
use death::Death;
use due::Due;
use fleet::Fleet;
use lanes::{Asked, Lane, Lanes};
use readiness::Launch;
use respawn::Rng;
use rollout::{Rollout, Wish};
use slot::Slot;
use slots::Slots;
use starting::Starting;
use std::collections::{BTreeSet, VecDeque};
use swap::Swap;

/// Where actions go.
pub type Out = Vec<Action>;

/// So many different things are said once; later ones are not said at all (I9).
const MAX_SAID: usize = 256;

/// All state there is.
#[derive(Clone, Debug)]
pub struct Cluster {
    policy: Policy,
    phase: Phase,
    /// Of the code that runs: of that of the last rollout that reached its end.
    generation: u32,
    /// The highest number that was given to one.
    newest: u32,
    /// What replaces the workers by others.
    rollout: Option<Rollout>,
    /// What adds slots.
    starting: Option<Starting>,
    /// The one of them that is being replaced, and those that are to be.
    swap: Option<Swap>,
    due: Vec<Due>,
    /// The last worker that was looked at for its memory.
    weighed: WorkerId,
    /// How often those that are being emptied were looked at, since the last one joined them.
    looks: u32,
    /// When the last worker was asked to stop.
    asked_at: Time,
    started: Time,
    /// How many slots there are to be.
    wanted: u16,
    /// Those, and behind them the ones that are to go but still have a worker.
    slots: Slots,
    fleet: Fleet,
    lanes: Lanes,
    /// How many seats there have been.
    seats: u64,
    deadlines: Deadlines,
    deaths: VecDeque<Death>,
    /// What the limits on respawns and forks are held against.
    tally: Tally,
    /// Who waits for the end.
    askers: Vec<Asker>,
    /// Who waits for there to be as many slots as are wanted.
    resizers: Vec<Asker>,
    /// Who waits for the worker of a slot that was shut down.
    closers: Vec<shutdown::Closer>,
    /// Was another number asked for, and not said to be reached?
    resizing: bool,
    /// When a final stop that has begun is to be over.
    over_by: Option<Time>,
    /// Has somebody asked for the end (or do we give up by ourselves)?
    asked_to_stop: bool,
    /// When the last TERM or INT came that was no echo.
    heard_at: Option<Time>,
    /// What workers left behind, as of the last look.
    left: Vec<Pid>,
    /// Were they asked to stop before they were killed?
    left_asked: bool,
    /// Is the next count of what is left the last?
    last_look: bool,
    /// How many were left when they were killed, or at the last count that might have been the last.
    left_before: Option<usize>,
    said: BTreeSet<String>,
    rng: Rng,
    /// Were all given ports opened, so that workers may start?
    opened: bool,
    ever_execed: bool,
    ever_ready: bool,
    /// Has a worker kept the lane it listened on? Then COMMAND does not merely probe.
    kept_a_lane: bool,
    /// `None` until the first bind(2) or refusal tells.
    takeover_works: Option<bool>,
    /// Is it to have clients?
    rotation: rotation::Kept,
    /// And what is asked about that.
    checks: health::Kept,
    /// Were all workers ready, and said to be?
    full: bool,
    /// Is the start over, for whoever waits for it? It is once, however the cluster changes later.
    launch: Launch,
    /// How often it was looked who serves what was given.
    unserved_looks: u32,
    /// When it is to be looked next who leaves clients waiting.
    hung_look: Time,
    /// How often what has happened.
    counts: Counts,
}

impl Cluster {
    /// A cluster at rest; `begin` sets it going.
    pub fn new(policy: Policy, now: Time) -> Cluster {
        Cluster {
            phase: Phase::Serving,
            generation: 1,
            newest: 1,
            rollout: None,
            starting: None,
            swap: None,
            due: Vec::new(),
            weighed: WorkerId(0),
            looks: 0,
            asked_at: now,
            started: now,
            wanted: policy.workers,
            slots: Slots::new(vec![Slot::of(1); usize::from(policy.workers)]),
            fleet: Fleet::default(),
            lanes: Lanes::new(policy.balance.spreads()),
            seats: 0,
            deadlines: Deadlines::default(),
            deaths: VecDeque::new(),
            tally: Tally::default(),
            askers: Vec::new(),
            resizers: Vec::new(),
            closers: Vec::new(),
            resizing: false,
            over_by: None,
            asked_to_stop: false,
            heard_at: None,
            left: Vec::new(),
            left_asked: false,
            last_look: false,
            left_before: None,
            said: BTreeSet::new(),
            rng: Rng::new(policy.seed),
            opened: false,
            ever_execed: false,
            ever_ready: false,
            kept_a_lane: false,
            takeover_works: None,
            rotation: rotation::Kept::new(now),
            checks: health::Kept::new(&policy.checks),
            full: false,
            launch: Launch::Waiting,
            unserved_looks: 0,
            hung_look: now,
            counts: Counts::default(),
            policy,
        }
    }

    /// The first actions: open the given ports; workers follow when they are open.
    pub fn begin(&mut self, now: Time, out: &mut Out) {
        let before = out.len();
        self.open_given(out);
        self.begin_spawning(now, out);
        self.counts.hear(out.iter().skip(before));
        self.assert_invariants();
    }

    fn begin_spawning(&mut self, now: Time, out: &mut Out) {
        if self.opened || !self.given_open() || self.phase != Phase::Serving {
            return;
        }
        self.opened = true;
        if let Some(limit) = self.policy.start_timeout {
            self.deadlines.set(Why::StartTimeout, now + limit);
        }
        self.spawn_first(now, out);
    }

    /// When to come back if nothing happens, and why.
    pub fn deadline(&self) -> Option<(Time, Why)> {
        self.deadlines.next()
    }

    /// One piece of news. Stale news is dropped; anything may be told at any time. Deadlines fire at
    /// `Tick` alone, which the shell tells last in a turn: after a pause of the master, what has
    /// happened comes before what should have.
    pub fn handle(&mut self, event: Event, now: Time, out: &mut Out) {
        let before = out.len();
        self.step(event, now, out);
        self.counts.hear(out.iter().skip(before));
    }

    fn step(&mut self, event: Event, now: Time, out: &mut Out) {
        if let Phase::Done(code) = self.phase {
            return self.too_late(event, code, out);
        }
        match event {
            Event::Spawned { worker, pid } => self.spawned(worker, pid, now, out),
            Event::SpawnFailed { worker, errno } => self.spawn_failed(worker, errno, now, out),
            Event::TakeoverRefused { worker, errno } => {
                self.takeover_refused(worker, errno, now, out)
            }
            Event::Execed { worker } => self.execed(worker, now, out),
            Event::ExecFailed {
                worker,
                step,
                errno,
            } => self.exec_failed(worker, step, errno, now, out),
            Event::BindAsked {
                worker,
                ask,
                addr,
                device,
                snag,
            } => self.bind_asked(worker, ask, Asked { addr, device }, snag, out),
            Event::ListenAsked { worker, ask, lane } => self.listen_asked(worker, ask, lane, out),
            Event::Listens { worker, lane } => self.listened(worker, lane, now, out),
            Event::Seen { worker, what } => self.seen(worker, what, now, out),
            Event::Probed { worker, answer } => self.probed(worker, answer, now, out),
            Event::Checked { check, answer } => self.checked(check, answer, now, out),
            Event::Said { worker, word } => self.said(worker, word, now, out),
            Event::LaneOpened { lane, addr } => {
                self.lane_opened(lane, addr, out);
                self.begin_spawning(now, out);
            }
            Event::LaneFailed {
                lane,
                errno,
                holder,
            } => self.lane_failed(lane, errno, holder, now, out),
            Event::LaneAlone { lane } => {
                self.lane_alone(lane, out);
                self.begin_spawning(now, out);
            }
            Event::Census { lanes, loads, took } => self.census(&lanes, &loads, took, now, out),
            Event::Weighed { sizes } => self.weighed(&sizes, now),
            Event::Counted { worker, served } => self.counted(worker, served, now),
            Event::Closed { worker, count } => self.closed(worker, count),
            Event::Dismissed { worker, done, took } => self.dismissed(worker, done, took, now, out),
            Event::Reload {
                asker,
                wait,
                by,
                why,
                with,
                terms,
            } => {
                let wish = Wish {
                    asker,
                    wait,
                    by,
                    why,
                    terms,
                };
                self.reload_asked(wish, with, now, out)
            }
            Event::BackOut { asker, by } => self.back_out(asker, by, now, out),
            Event::Start(more) => self.start_asked(more, now, out),
            Event::LaneDied { lane } => self.lane_died(lane, now, out),
            Event::LaneLeft { lane } => self.lane_left(lane, out),
            Event::AdoptFailed { lane, step, errno } => self.adopt_failed(lane, step, errno, out),
            Event::Exited {
                worker,
                status,
                oom,
                last,
            } => self.exited(worker, (status, oom), last, now, out),
            Event::TreeGone { worker } => self.tree_gone(worker),
            Event::StrayReaped => self.stray_reaped(out),
            Event::Served { lanes } => self.served(&lanes, now, out),
            Event::Waiting { seen } => self.waiting_seen(&seen, now, out),
            Event::Strays { left, zombies } => self.strays(left, 0, zombies, now, out),
            // At least one.
            Event::StraysUnnamed => self.strays(Vec::new(), 1, false, now, out),
            Event::Signal(signal) => self.signalled(signal, now, out),
            Event::Stop { asker, hard, by } => self.stop_asked(asker, hard, by, now, out),
            Event::Resize {
                asker,
                to,
                by,
                wait,
            } => self.resize_asked(asker, to, by, wait, now, out),
            Event::Restart(wish) => self.restart_asked(wish, now, out),
            Event::Shutdown(wish) => self.shutdown_asked(wish, now, out),
            Event::Exit { asker, by } => self.exit_asked(asker, by, now, out),
            Event::StopWithin { asker, within, by } => {
                self.stop_within(asker, within, by, now, out)
            }
            Event::Rotate { enable, why, by } => self.rotate(enable, why, by, out),
            Event::SignalWorkers {
                asker,
                signal,
                target,
                by,
            } => self.relay(asker, signal, target, by, out),
            Event::AskerGone { asker } => {
                self.askers.retain(|a| *a != asker);
                self.resizers.retain(|a| *a != asker);
                self.restarter_gone(asker);
                if let Some(r) = &mut self.rollout {
                    r.askers.retain(|a| *a != asker);
                }
                self.starter_gone(asker);
                self.closer_gone(asker);
            }
            Event::Tick => self.expire(now, out),
        }
        // Before anything else is begun, and again if that has left nothing.
        self.leave_if_over(now, out);
        self.rollout_progress(now, out);
        self.starting_progress(now, out);
        self.swap_progress(now, out);
        self.leave_if_over(now, out);
        self.steer(out);
        self.drain_progress(now, out);
        self.retire_lanes(out);
        self.shutdown_progress(out);
        self.checks_progress(now, out);
        self.rotation_progress(now, out);
        self.assert_invariants();
    }

    /// Nothing follows Finish; but who asks in this very turn hears of it.
    fn too_late(&self, event: Event, code: u8, out: &mut Out) {
        let (asker, outcome) = match event {
            Event::Stop { asker, .. }
            | Event::Exit { asker, .. }
            | Event::StopWithin { asker, .. } => {
                let stuck = Vec::new();
                (asker, Outcome::Ended { code, stuck })
            }
            Event::Resize { asker, .. } => {
                let (workers, hitch) = (self.wanted, Hitch::Stopping);
                (asker, Outcome::NotResized { workers, hitch })
            }
            Event::Reload {
                asker: Some(asker), ..
            } => {
                let outcome = Outcome::NotReloaded {
                    generation: self.generation,
                    hitch: Hitch::Stopping,
                    ready: 0,
                };
                (asker, outcome)
            }
            Event::BackOut { asker, .. } => (asker, Outcome::NothingToBackOut),
            Event::Start(More { asker, .. }) => {
                let (started, hitch) = (0, Hitch::Stopping);
                (asker, Outcome::NotStarted { started, hitch })
            }
            Event::Restart(Restart { asker, .. }) => {
                let (hitch, ready) = (Hitch::Stopping, 0);
                (asker, Outcome::NotRestarted { hitch, ready })
            }
            Event::Shutdown(Shutdown { asker, .. }) => {
                let hitch = Hitch::Stopping;
                (asker, Outcome::NotShutDown { hitch })
            }
            Event::SignalWorkers { asker, target, .. } => (asker, Outcome::Nobody { target }),
            Event::Spawned { .. }
            | Event::SpawnFailed { .. }
            | Event::TakeoverRefused { .. }
            | Event::Execed { .. }
            | Event::ExecFailed { .. }
            | Event::BindAsked { .. }
            | Event::ListenAsked { .. }
            | Event::Listens { .. }
            | Event::Seen { .. }
            | Event::Checked { .. }
            | Event::Probed { .. }
            | Event::Said { .. }
            | Event::LaneOpened { .. }
            | Event::LaneFailed { .. }
            | Event::LaneDied { .. }
            | Event::LaneLeft { .. }
            | Event::AdoptFailed { .. }
            | Event::LaneAlone { .. }
            | Event::Census { .. }
            | Event::Weighed { .. }
            | Event::Counted { .. }
            | Event::Closed { .. }
            | Event::Dismissed { .. }
            | Event::Reload { asker: None, .. }
            | Event::Exited { .. }
            | Event::TreeGone { .. }
            | Event::StrayReaped
            | Event::Strays { .. }
            | Event::StraysUnnamed
            | Event::Served { .. }
            | Event::Waiting { .. }
            | Event::Signal(_)
            | Event::Rotate { .. }
            | Event::AskerGone { .. }
            | Event::Tick => return,
        };
        out.push(Action::Answer { asker, outcome });
    }

    /// Every deadline that is due, each once.
    fn expire(&mut self, now: Time, out: &mut Out) {
        while let Some((due, why)) = self.deadlines.take_due(now) {
            match why {
                Why::Hold(id)
                | Why::Look(id)
                | Why::Probe(id)
                | Why::Alive(id)
                | Why::Ready(id)
                | Why::Watchdog(id)
                | Why::Age(id)
                | Why::Drain(id)
                | Why::Kill(id)
                | Why::KillAgain(id) => self.worker_due(id, (due, why), now, out),
                Why::Respawn(_) => {
                    self.spawn_due(now, out);
                    // One that is given up instead is the last that was waited for, perhaps.
                    self.resize_progress(out);
                }
                Why::Census => self.take_census(now, out),
                Why::DrainDelay => self.leave_service(now, out),
                // What is due then is seen to after every event.
                Why::Successors | Why::Watch | Why::Swap | Why::Check(_) => {}
                Why::Weigh => self.weigh(now, out),
                Why::StartTimeout => self.start_overdue(now, out),
                Why::Unserved => self.look_for_servers(out),
                Why::Hung => self.look_for_hung(now, out),
                Why::Leftovers => self.kill_leftovers(now, out),
                Why::GiveUp => self.look_once_more(out),
            }
        }
    }

    /// In the builds that tests run; what is installed only goes on.
    #[allow(clippy::panic)]
    fn assert_invariants(&self) {
        if cfg!(debug_assertions)
            && let Err(breach) = self.check()
        {
            panic!("invariant broken: {breach}\n{self:#?}");
        }
    }

    /// Where the cluster is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Of the code that runs.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// How many workers the operator has asked for, by word or file: as of what runs.
    pub fn asked_for(&self) -> u16 {
        match &self.rollout {
            Some(r) => r.asked_for(self.generation).unwrap_or(self.policy.workers),
            None => self.policy.workers,
        }
    }

    /// Has a reload still workers to replace, so that another one would call that off? Not one that
    /// might wait for ever, nor one that only takes back what was replaced.
    pub fn is_replacing(&self) -> bool {
        let ends = self.policy.ready_timeout.is_some();
        let forward = |r: &Rollout| !r.back && r.to != self.generation;
        ends && self.rollout.as_ref().is_some_and(forward)
    }

    /// Is a reload under way, or the return from one that has failed?
    pub fn is_reloading(&self) -> bool {
        self.rollout.is_some()
    }

    /// How many serve.
    pub fn ready_count(&self) -> usize {
        let current = self.slots.iter().filter_map(|s| s.current);
        let workers = current.filter_map(|id| self.fleet.get(id));
        workers.filter(|w| w.is_ready()).count()
    }

    /// The worker of each slot that has one, in their order.
    pub fn currents(&self) -> impl Iterator<Item = (SlotNr, WorkerId)> + '_ {
        let all = self.slot_numbers().zip(self.slots.iter());
        all.filter_map(|(nr, s)| Some((nr, s.current?)))
    }

    /// How often what has happened.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Every worker with a process.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    fn slot_numbers(&self) -> impl Iterator<Item = SlotNr> + use<> {
        (0..self.slots.len()).map(|n| SlotNr(u16::try_from(n).unwrap_or(u16::MAX)))
    }

    /// --ready, settled: a worker executed now waits for listen(2) if we know a port by now.
    fn ready_rule(&self) -> ReadyRule {
        match self.policy.ready {
            ReadyRule::Auto if self.lanes.iter().any(Lane::is_a_port) => ReadyRule::Listening,
            rule @ (ReadyRule::Auto
            | ReadyRule::Started
            | ReadyRule::Listening
            | ReadyRule::Said
            | ReadyRule::Answers
            | ReadyRule::Alive(_)) => rule,
        }
    }

    /// Says it unless the same was said before.
    fn once(&mut self, key: String, notice: Notice, out: &mut Out) {
        if self.said.len() < MAX_SAID && self.said.insert(key) {
            out.push(Action::Note(notice));
        }
    }
}

#[cfg(test)]
mod tests;
