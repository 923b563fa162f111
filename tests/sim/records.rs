//! What the judge writes down: one record for each worker, lane and ending, kept by what core is told
//! and by what the world knows, never by what core says of itself.

use crate::crashes::Rest;
use crate::kernel::Serial;
use crate::swaps::Due;
use minicluster::core::Addr;
use minicluster::core::{
    Drain, Event, LaneId, Of, Pid, Policy, PortId, Program, Reader, Seat, SlotNr, Time, WorkerId,
};
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// The last connections have so long to come to a moment when nothing is owed on them.
const CLOSING: Duration = Duration::from_secs(1);

/// One worker, as the world knows it.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: WorkerId,
    pub slot: SlotNr,
    pub generation: u32,
    pub seat: Seat,
    /// What it runs.
    pub program: Program,
    /// How long it has to be ready.
    pub ready_most: Option<Duration>,
    /// Its first process until that is reaped, and the group that it founded.
    pub leader: Option<Serial>,
    pub group: Option<Serial>,
    /// When it was forked.
    pub spawned: Time,
    /// What it says on its way to exec, not told yet; and has it said its last?
    pub reports: VecDeque<Event>,
    pub on_its_way: bool,
    pub execed: Option<Time>,
    /// Has it failed before COMMAND? Then it leaves by itself.
    pub failed: bool,
    pub pid: Option<Pid>,
    pub ready: Option<Time>,
    /// Has it said that it is? When was it heard last, since it was? When was it sent SIGABRT?
    pub said: bool,
    pub pulse: Option<Time>,
    pub pinged: bool,
    /// Has it said since then that it is not well?
    pub trigger: bool,
    /// Has it said, ready, that it is on its way out? And may it be replaced, for whatever reason?
    pub announced: bool,
    pub due: Option<Due>,
    /// Has it less time to be ready than others?
    pub hasty: bool,
    /// Is it said to touch nothing that waits for it; and how long has that waited?
    pub untouched: bool,
    pub waited: Option<Duration>,
    pub abort: Option<Time>,
    /// Since when its slot is not wanted: it goes even if that is wanted again.
    pub surplus: Option<Time>,
    /// Since when another one has its place, or it is not to have the one it was for.
    pub replaced: Option<Time>,
    /// Another one, of that generation, has taken its place.
    pub made_room_for: Option<u32>,
    /// When its emptying began, when the stop signal and when the last SIGKILL were sent.
    pub drain: Option<Time>,
    pub stop: Option<Time>,
    pub kill: Option<Time>,
    /// How long they may take, by what was the policy then; and how it is drained.
    pub drain_most: Duration,
    /// So often the rest of its connections was ended.
    pub rests: u32,
    pub stop_most: Duration,
    pub drained_by: Option<Drain>,
    /// Since when it has a time of its own, and how long that is.
    pub own_time: Option<(Time, Duration)>,
    /// Why it may lose what it has, if it may; and is it of one generation too many?
    pub excuse: Option<&'static str>,
    pub queue_late: bool,
    pub too_many: bool,
    /// Was it said that it cannot be ended?
    pub stuck: bool,
    /// What core was told of its end.
    pub exit_told: bool,
    pub gone_told: bool,
    /// Is its tree's end on its way, or told?
    pub hung_up: bool,
    pub forgotten: bool,
    pub watched: bool,
    /// The lane it listened on last.
    pub listened: Option<LaneId>,
    /// Ports at which it has, or had, a socket of its own.
    pub owns: BTreeSet<PortId>,
}

impl Job {
    /// One that is asked for.
    pub fn new(id: WorkerId, slot: SlotNr, reader: Reader, now: Time) -> Job {
        Job {
            id,
            slot,
            generation: reader.generation,
            seat: reader.seat,
            program: Program(0),
            ready_most: None,
            leader: None,
            group: None,
            spawned: now,
            reports: VecDeque::new(),
            on_its_way: false,
            execed: None,
            failed: false,
            pid: None,
            ready: None,
            said: false,
            pulse: None,
            pinged: false,
            trigger: false,
            announced: false,
            due: None,
            hasty: false,
            untouched: false,
            waited: None,
            abort: None,
            surplus: None,
            replaced: None,
            made_room_for: None,
            drain: None,
            stop: None,
            kill: None,
            drain_most: Duration::ZERO,
            rests: 0,
            own_time: None,
            stop_most: Duration::ZERO,
            drained_by: None,
            excuse: None,
            queue_late: false,
            too_many: false,
            stuck: false,
            exit_told: false,
            gone_told: false,
            hung_up: false,
            forgotten: false,
            watched: false,
            listened: None,
            owns: BTreeSet::new(),
        }
    }

    /// Does core still know it?
    pub fn known(&self) -> bool {
        !(self.forgotten || self.exit_told && self.gone_told)
    }

    /// Is it ready, and to stay?
    pub fn serves(&self) -> bool {
        let goes = self.drain.or(self.stop).or(self.kill).or(self.abort);
        self.ready.is_some() && goes.is_none() && !self.exit_told
    }

    /// Has it been emptied, or asked to stop?
    pub fn has_to_go(&self) -> bool {
        self.drain.or(self.stop).is_some()
    }
}

/// One lane, as the world knows it.
#[derive(Clone, Debug)]
pub struct Lane {
    pub addr: Addr,
    pub port: PortId,
    /// Whose it is; unless it is everybody's, or this worker's alone.
    pub of: Of,
    /// And whose else.
    pub heirs: BTreeSet<u32>,
    pub shared: bool,
    pub owner: Option<WorkerId>,
    /// Was it told that this worker has let go of it?
    pub left: bool,
    pub given: bool,
    pub open: bool,
    /// Was it closed because workers listen there by themselves?
    pub quit: bool,
    pub listens: bool,
    /// Does somebody connect from it?
    pub connected: bool,
    /// Has a worker listened on it, or been seen to wait there?
    pub served: bool,
    /// Those that have.
    pub read_by: BTreeSet<WorkerId>,
    /// Whoever comes after that one has another lane there.
    pub last_reader: Option<WorkerId>,
    /// Of the generation that has inherited it so, those who come after that one.
    pub after: Option<(u32, WorkerId)>,
}

impl Lane {
    /// Do such workers accept from it?
    pub fn is_for(&self, job: &Job) -> bool {
        let of_time = self.last_reader.is_none_or(|last| job.id <= last);
        let too_old = |(g, last): (u32, WorkerId)| g == job.generation && job.id <= last;
        match self.of {
            _ if self.shared => true,
            Of::Generation(_) => {
                self.is_shared_by(job.generation) && of_time && !self.after.is_some_and(too_old)
            }
            Of::Seat(seat) => job.seat == seat,
            Of::Worker(_) | Of::All => false,
        }
    }

    /// Do all workers of this generation?
    pub fn is_shared_by(&self, generation: u32) -> bool {
        let own = self.of == Of::Generation(generation);
        self.shared || own || self.heirs.contains(&generation)
    }
}

/// Why and since when the cluster has to end.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    pub code: u8,
    pub hard: bool,
    /// Did somebody ask for it, or does it give up by itself?
    pub asked: bool,
    pub since: Time,
}

/// One slot, as the policy wants it.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Is there to be no such slot?
    pub closed: bool,
    pub worker: Option<WorkerId>,
    /// Who is to take its place, when all of them are ready.
    pub successor: Option<WorkerId>,
    /// Who made room for one that is watched still.
    pub kept: Option<WorkerId>,
    pub generation: u32,
    /// When it fell vacant, and the shortest and longest time it may stay so.
    pub vacant: Option<(Time, Duration, Duration)>,
    pub failures: u32,
    /// Is it vacant on account of a failure? Or does it rest?
    pub failed: bool,
    pub rest: Option<Rest>,
    /// Has a worker of it been ready?
    pub proven: bool,
}

/// How long things may take, by the policy.
pub struct Limits<'a>(pub &'a Policy);

impl Limits<'_> {
    /// A worker may be drained so long.
    pub fn drain(&self) -> Duration {
        let p = self.0;
        match p.drain {
            Drain::Connections => p.drain_timeout + CLOSING,
            Drain::Server => p.drain_timeout,
            Drain::None => Duration::ZERO,
        }
    }

    /// So much longer if nobody could look often.
    pub fn again(&self) -> Duration {
        match self.0.drain {
            Drain::Connections => CLOSING * 2,
            Drain::Server | Drain::None => Duration::ZERO,
        }
    }

    /// The budget, less what is kept for SIGKILL to work: from then on of a final stop nobody has
    /// any more time.
    pub fn cut(&self) -> Option<Duration> {
        let cut = |b: Duration| b - (b / 4).min(Duration::from_millis(500));
        self.0.stop_budget.map(cut)
    }

    /// The longest time from the beginning of a final stop until SIGKILL.
    pub fn kill(&self) -> Duration {
        // One that was being emptied when a reload has set --drain to something else has its last moments.
        let last = match self.0.drain {
            Drain::Connections => Duration::ZERO,
            Drain::Server | Drain::None => CLOSING,
        };
        let all = self.0.drain_delay + self.drain() + self.again() + last + self.0.stop_timeout;
        self.cut().map_or(all, |c| all.min(c))
    }
}
