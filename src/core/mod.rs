//! The part that decides. Pure: no file descriptor, no clock, no environment, no randomness but a
//! seed handed in. `Cluster::handle` takes one piece of news and the time, and appends what is to be
//! done; `Cluster::deadline` says when to call again if nothing happens.
#![deny(clippy::wildcard_enum_match_arm)]

pub mod adoption;
mod balance;
mod binds;
mod birth;
mod budget;
mod busy;
mod check;
mod crash;
mod deadlines;
mod drain;
mod due;
pub mod errno;
pub mod hearers;
mod heirs;
mod hung;
mod kinds;
mod lane;
mod lanes;
mod own;
mod phase;
mod phrases;
mod probing;
mod program;
pub mod progress;
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
mod turn;
mod unserved;
mod verdict;
mod watch;
mod worker;

pub mod action;
pub mod addr;
pub mod carry;
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
pub use adoption::Legacy;
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
pub use lane::{Of, Reader};
pub use notice::{Cause, Hindrance, Level, Notice, PassWhy, Who};
pub use outcome::{Came, Hitch, Outcome};
pub use phase::{MAX_ASKERS, Phase, Step};
pub use phrases::remedy as remedy_of_port;
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
use lane::Lane;
use lanes::Lanes;
use readiness::Launch;
use respawn::Rng;
use rollout::Rollout;
use serde::{Deserialize, Serialize};
use slot::Slot;
use slots::Slots;
use starting::Starting;
use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use swap::Swap;

/// Where actions go.
pub type Out = Vec<Action>;

/// So many different things are said once; later ones are not said at all (I9).
const MAX_SAID: usize = 256;

/// All state there is.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// Ports that were learnt before it began, until they are open.
    legacy: Vec<SocketAddr>,
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
            legacy: Vec::new(),
            counts: Counts::default(),
            policy,
        }
    }

    /// It was written down and read again: what is found by other state is made anew from that.
    pub fn is_carried(&mut self) {
        self.lanes.index_anew();
    }

    /// What is to be done still for the workers that were asked for and not forked.
    pub fn unforked(&self) -> Vec<Action> {
        let waits = |w: &&worker::Worker| w.state == worker::State::Spawning;
        let all = self.fleet.iter().filter(waits);
        let spawn = |w: &worker::Worker| Action::Spawn {
            worker: w.id,
            slot: w.slot,
            program: w.program,
            reader: w.reader(),
        };
        all.map(spawn).collect()
    }

    /// Does it hold together? Else what is wrong.
    pub fn is_sound(&self) -> Result<(), String> {
        self.check()
    }

    /// When to come back if nothing happens, and why.
    pub fn deadline(&self) -> Option<(Time, Why)> {
        self.deadlines.next()
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
