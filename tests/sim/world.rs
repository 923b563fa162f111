//! The world around one cluster, with virtual time: what is going to happen, by date, and the loop
//! that jumps from one date to the next. The kernel's part is in `kernel`, the shell's in `shell`;
//! `judge` says what must not be.

use crate::cover::{Cover, Mark, kind_name};
use crate::draw::{Faults, Mischief, Reload};
use crate::hanging::Hanging;
use crate::judge::Judge;
use crate::kernel::{Process, Serial};
use crate::net::Net;
use crate::plan::{self, Kind, Plan};
use crate::prng::Prng;
use crate::trace;
use minicluster::core::{
    Ask, Asker, By, Cluster, Event, Exit, LaneId, More, Outcome, Pid, Policy, Program, Recycle,
    Size, Takeover, Time, WorkerId,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// Chaos ends after so many events, however busy the seed is: a crash loop without a delay would
/// take all the time there is.
const CHAOS_EVENTS: u64 = 1500;

/// Near the limit of ports that may be learnt.
const LANES_FULL: usize = 60;

/// What is going to happen.
#[derive(Clone, Debug)]
pub enum Happening {
    Exec(Serial),
    Step(Serial),
    Resume(Serial),
    End(Serial, Exit),
    Unstick(Serial),
    News(Mail),
    Mischief(Mischief),
    NoLane(Serial),
    Client,
    Conn(u64, u64),
}

/// A piece of news on its way to the master; `about` is the zombie that is reaped with it.
#[derive(Clone, Debug)]
pub struct Mail {
    pub event: Event,
    pub about: Option<Serial>,
}

/// Everything.
pub struct World {
    pub now: Time,
    pub rng: Prng,
    /// Dice of their own: what a seed draws else stays what it was.
    pub handing: Prng,
    pub policy: Policy,
    pub faults: Faults,
    pub cluster: Cluster,
    pub judge: Judge,
    pub cover: Cover,
    pub procs: BTreeMap<Serial, Process>,
    pub inbox: Vec<Mail>,
    /// Plans for the next forks; when there is none, one is drawn.
    pub script: VecDeque<Plan>,
    /// How the clients fare.
    pub net: Net,
    /// And those who wait in vain.
    pub hanging: Hanging,
    /// Whose code is broken, and how; and that of the next generation.
    pub code: BTreeMap<u32, Kind>,
    pub broken: Option<Kind>,
    /// News that was told, some of it, to be told again.
    pub told: VecDeque<Event>,
    pub asks: BTreeMap<Ask, Serial>,
    /// Sockets that are bound, of workers that are not told yet.
    pub adopting: BTreeMap<Ask, LaneId>,
    pub next_ask: u64,
    pub next_asker: u64,
    pub next_pid: i32,
    pub next_serial: u64,
    pub healed: bool,
    /// Forks that wait for their turn.
    pub later: VecDeque<WorkerId>,
    /// Has this turn had its fork?
    pub forked: bool,
    /// What clients were told.
    pub answers: Vec<(Asker, Outcome)>,
    /// Strays that had the stop signal from a sweep.
    pub asked: BTreeSet<Serial>,
    /// How many the last sweep found, and how often one found fewer than the one before.
    pub swept: Option<usize>,
    pub fell: u32,
    agenda: BTreeMap<(Time, u64), Happening>,
    next_entry: u64,
    stalled_until: Time,
}

impl World {
    /// The cluster is begun; nothing has happened yet.
    pub fn new(policy: Policy, faults: Faults, rng: Prng) -> World {
        let now = Time(1_000_000_000);
        let mut world = World {
            now,
            handing: Prng::new(rng.clone().bits()),
            rng,
            cluster: Cluster::new(policy.clone(), now),
            judge: Judge::new(&policy),
            cover: Cover::default(),
            procs: BTreeMap::new(),
            inbox: Vec::new(),
            script: VecDeque::new(),
            net: Net::default(),
            hanging: Hanging::default(),
            code: BTreeMap::new(),
            broken: None,
            told: VecDeque::new(),
            asks: BTreeMap::new(),
            adopting: BTreeMap::new(),
            next_ask: 0,
            next_asker: 0,
            next_pid: 0,
            next_serial: 0,
            healed: false,
            later: VecDeque::new(),
            forked: false,
            answers: Vec::new(),
            asked: BTreeSet::new(),
            swept: None,
            fell: 0,
            agenda: BTreeMap::new(),
            next_entry: 0,
            stalled_until: now,
            policy,
            faults,
        };
        for (at, what) in world.faults.mischief.clone() {
            world.after(at, Happening::Mischief(what));
        }
        world
    }

    /// Core's first actions.
    pub fn begin(&mut self) {
        let mut out = Vec::new();
        self.cluster.begin(self.now, &mut out);
        self.act(out);
        self.end_turn();
    }

    /// Puts a line into the trace, if there is one.
    pub fn say(&self, what: &str, line: impl FnOnce() -> String) {
        trace::line(self.now, what, line);
    }

    /// Puts it on the agenda.
    pub fn after(&mut self, wait: Duration, what: Happening) {
        self.next_entry += 1;
        let at = self.now + wait;
        self.agenda.insert((at, self.next_entry), what);
    }

    /// The master hears of it, some time later.
    pub fn news(&mut self, event: Event) {
        self.news_of(event, None);
    }

    /// As `news`; with it this zombie is reaped.
    pub fn news_of(&mut self, event: Event, about: Option<Serial>) {
        let wait = self.rng.upto(self.faults.latency);
        self.after(wait, Happening::News(Mail { event, about }));
    }

    /// How the next process behaves.
    pub fn next_plan(&mut self, worker: WorkerId) -> Plan {
        let generation = self.judge.jobs[&worker].generation;
        let broken = self.code.get(&generation).copied();
        let plan = match self.script.pop_front() {
            Some(plan) => plan,
            None if self.healed => {
                let learnt = self
                    .judge
                    .lanes
                    .values()
                    .filter(|l| l.open && !l.given && !l.connected);
                let only = learnt.clone().next().map(|l| l.addr.clone());
                let full = learnt.count() >= LANES_FULL;
                // A port that can have one lane alone has no room for a worker's own socket.
                let shared = self.judge.lanes.values().any(|l| l.open && l.shared);
                let own = !shared && !self.faults.alone && self.rng.one_in(4);
                match self.judge.lanes.values().any(|l| l.quit && l.given) {
                    // As those that share their port by themselves.
                    true => plan::content(Kind::OwnSocket, &mut self.rng, &self.policy),
                    false => {
                        let only = only.filter(|_| full);
                        plan::healthy(&mut self.rng, &self.policy, only, own)
                    }
                }
            }
            None => {
                let kind = broken.unwrap_or_else(|| self.rng.weighted(&self.faults.mix));
                plan::draw(kind, &mut self.rng, &self.policy)
            }
        };
        self.cover.hit(kind_name(&plan.kind));
        plan
    }

    pub fn requires_takeover(&self) -> bool {
        self.policy.takeover == Takeover::Require
    }

    /// The first process of a worker, until it is reaped.
    pub fn leader(&self, worker: WorkerId) -> Option<Serial> {
        self.judge.jobs.get(&worker).and_then(|j| j.leader)
    }

    /// Jumps to the next date, if there is one until `end`, and lives through it.
    pub fn advance(&mut self, end: Time) -> bool {
        if self.judge.finished.is_some() {
            return false;
        }
        let due = self.cluster.deadline().map(|(at, _)| at);
        let fork = (!self.later.is_empty()).then(|| self.way_is_free());
        let news = (!self.inbox.is_empty()).then_some(self.now);
        let wakes = due.into_iter().chain(fork).chain(news).min();
        let wakes = wakes.map(|at| at.max(self.stalled_until));
        let happens = self.agenda.keys().next().map(|(at, _)| *at);
        let Some(at) = wakes.into_iter().chain(happens).min() else {
            self.now = self.now.max(end);
            return false;
        };
        if at > end {
            self.now = self.now.max(end);
            return false;
        }
        if self.stalled_until < at {
            self.nothing_overdue(at);
        }
        self.now = self.now.max(at);
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let what = entry.remove();
            self.happen(what);
        }
        let fork = fork.is_some_and(|at| at <= self.now);
        let due = self.cluster.deadline().is_some_and(|(t, _)| t <= self.now);
        if self.stalled_until <= self.now && (due || fork || !self.inbox.is_empty()) {
            self.turn();
        }
        true
    }

    /// Lives on for so long, or until the master has left.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.advance(end) {}
    }

    /// Lives on until this is true; false if it never was in all that time.
    pub fn run_until(&mut self, limit: Duration, is: impl Fn(&World) -> bool) -> bool {
        let end = self.now + limit;
        while !is(self) {
            if !self.advance(end) {
                return is(self);
            }
        }
        true
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Exec(serial) => self.exec(serial),
            Happening::Step(serial) => self.step(serial),
            Happening::Resume(serial) => self.resume(serial),
            Happening::End(serial, exit) => self.end(serial, exit),
            Happening::Unstick(serial) => self.unstick(serial),
            Happening::News(mail) => self.inbox.push(mail),
            Happening::Mischief(what) => self.mischief(what),
            Happening::NoLane(serial) => self.no_lane(serial),
            Happening::Client => self.client(),
            Happening::Conn(id, version) => self.conn(id, version),
        }
    }

    /// Something is done to the cluster.
    pub fn mischief(&mut self, what: Mischief) {
        self.say("world", || format!("{what:?}"));
        match what {
            Mischief::Storm(share) => {
                self.cover.mark(Mark::Stormed);
                for serial in self.those(Process::lives) {
                    if self.rng.percent(share) {
                        self.end(serial, Exit::Signal(9));
                    }
                }
            }
            Mischief::Stall(time) => {
                self.cover.mark(Mark::Stalled);
                self.stalled_until = self.stalled_until.max(self.now + time);
                self.paused(time, self.stalled_until);
                self.judge.lost += time;
            }
            Mischief::Jump(time) => {
                self.cover.mark(Mark::Jumped);
                self.now = self.now + time;
                self.paused(time, self.now);
                for ((at, n), what) in std::mem::take(&mut self.agenda) {
                    // What has happened already is known at once when the master goes on.
                    let at = match what {
                        Happening::News(_) => self.now,
                        _ => at + time,
                    };
                    self.agenda.insert((at, n), what);
                }
                self.judge.lost += time;
                self.cluster.stood_still(time);
            }
            Mischief::Tick => self.post(Event::Tick),
            Mischief::Stale => self.stale(),
            Mischief::Signal(signal) => self.post(Event::Signal(signal)),
            Mischief::Stop { hard } => {
                self.next_asker += 1;
                let asker = Asker(self.next_asker);
                let by = By {
                    pid: Pid(1),
                    uid: 0,
                };
                self.post(Event::Stop { asker, hard, by });
            }
            Mischief::Resize { to, wait } => {
                self.next_asker += 1;
                let asker = Asker(self.next_asker);
                let by = By {
                    pid: Pid(1),
                    uid: 0,
                };
                self.post(Event::Resize {
                    asker,
                    to,
                    by,
                    wait,
                });
            }
            Mischief::BackOut => {
                self.next_asker += 1;
                let asker = Asker(self.next_asker);
                let by = By {
                    pid: Pid(1),
                    uid: 0,
                };
                self.post(Event::BackOut { asker, by });
            }
            Mischief::Start { count, ready, wait } => {
                self.next_asker += 1;
                let asker = Asker(self.next_asker);
                let by = By {
                    pid: Pid(1),
                    uid: 0,
                };
                self.post(Event::Start(More {
                    asker,
                    count,
                    program: Program(self.next_asker as u32),
                    ready,
                    by,
                    wait,
                }));
            }
            Mischief::Relay(signal, target) => {
                self.next_asker += 1;
                let asker = Asker(self.next_asker);
                let by = By {
                    pid: Pid(1),
                    uid: 0,
                };
                self.post(Event::SignalWorkers {
                    asker,
                    signal,
                    target,
                    by,
                });
            }
            Mischief::Rotate(enable) => self.post(Event::Rotate {
                enable,
                why: "asked".into(),
                by: None,
            }),
            Mischief::Shutdown {
                target,
                within,
                wait,
            } => self.shut_down(target, within, wait),
            Mischief::Exit => self.exit(),
            Mischief::StopWithin(within) => self.stop_within(within),
            Mischief::Reload(reload) => self.reload(reload),
            Mischief::Restart { target, wait } => self.restart(target, wait),
            Mischief::Counted => self.count_some(),
            Mischief::CrowdOfReloads => {
                self.mischief(Mischief::Reload(Reload::same()));
                // (Each forks as many as there are workers: of many the judge would have minutes' work.)
                let crowd = match self.judge.wanted {
                    ..=4 => 300,
                    _ => 20,
                };
                for _ in 0..crowd {
                    self.mischief(Mischief::Resize {
                        to: Size::To(self.judge.wanted as u16 % 1024 + 1),
                        wait: true,
                    });
                    self.mischief(Mischief::Reload(Reload::same()));
                }
            }
            Mischief::CrowdOfSizes => {
                // One that takes its time, and then all of them for that.
                let to = Size::To(self.judge.wanted as u16 % 1024 + 1);
                for _ in 0..300 {
                    self.mischief(Mischief::Resize { to, wait: true });
                }
            }
            Mischief::Crowd => {
                for _ in 0..300 {
                    self.mischief(Mischief::Stop { hard: false });
                }
            }
            Mischief::HangUp => {
                if self.next_asker > 0 {
                    let asker = Asker(self.rng.range(1, self.next_asker));
                    self.post(Event::AskerGone { asker });
                }
            }
        }
    }

    /// What is read again, and that somebody asks for it.
    fn reload(&mut self, reload: Reload) {
        let mut policy = self.judge.policy.clone();
        policy.workers = reload.workers.unwrap_or(self.cluster.asked_for());
        policy.drain = reload.drain.unwrap_or(policy.drain);
        policy.surge = reload.surge.unwrap_or(policy.surge);
        policy.stop_timeout = reload.stop_timeout.unwrap_or(policy.stop_timeout);
        self.broken = reload.broken.or(self.broken);
        let asker = reload.client.then(|| {
            self.next_asker += 1;
            Asker(self.next_asker)
        });
        let by = By {
            pid: Pid(1),
            uid: 0,
        };
        self.post(Event::Reload {
            asker,
            wait: reload.wait,
            by: asker.map(|_| by),
            why: match asker {
                Some(_) => "asked by a client",
                None => "SIGHUP received",
            },
            with: match reload.unreadable {
                true => Err("--drain: what is that?".to_string()),
                false => Ok(Box::new(policy)),
            },
            terms: reload.terms,
        });
    }

    /// The master hears of it now.
    pub fn post(&mut self, event: Event) {
        self.inbox.push(Mail { event, about: None });
    }

    /// Phase one: everything that can go wrong does.
    pub fn chaos(&mut self) {
        let end = self.now + self.faults.chaos;
        self.let_clients_come(self.faults.chaos);
        while self.judge.handled < CHAOS_EVENTS && self.advance(end) {}
    }

    /// From now on nothing goes wrong any more, and what is half broken has ended.
    pub fn heal(&mut self) {
        self.say("world", || "healed".to_string());
        self.healed = true;
        self.faults.spawn_fails = 0;
        self.faults.learnt_fails = 0;
        self.faults.listen_fails = 0;
        self.faults.adopt_fails = 0;
        self.faults.alone = false;
        // Where workers are replaced for ever somebody would shut down the queue of all for ever.
        self.faults.shut_downs &= self.policy.recycle == Recycle::default();
        self.stalled_until = self.now;
        self.hanging.woke = self.hanging.woke.map(|t| t.min(self.now));
        self.agenda.retain(|_, what| {
            let ends = matches!(what, Happening::Mischief(_) | Happening::Unstick(_));
            !ends && !matches!(what, Happening::Client)
        });
        for serial in self.those(|_| true) {
            let worker = self.procs[&serial].worker;
            let leads = self.leader(worker) == Some(serial);
            let ready = self
                .judge
                .jobs
                .get(&worker)
                .is_some_and(|j| j.ready.is_some());
            self.calm_down(serial);
            // One that is never going to be ready, and without a limit, is legitimately kept.
            // (It ends by itself, whatever it was told.)
            if leads && !ready && self.policy.ready_timeout.is_none() {
                if let Some(p) = self.procs.get_mut(&serial) {
                    p.told = None;
                }
                self.end(serial, Exit::Code(1));
            }
        }
    }

    /// Longest time from the healing until everything must be ready.
    pub fn convergence(&self) -> Duration {
        let p = &self.policy;
        let again = Duration::from_secs(30 + 5);
        let backoff = p.respawn.max(p.backoff);
        let going =
            self.judge.limits().drain() + p.stop_timeout + p.ready_timeout.unwrap_or_default();
        let rollout = self.judge.rollout_limit() * 2;
        let held = self.judge.held_most() * 2;
        backoff * 3 + going * 2 + again + rollout + held + Duration::from_secs(10)
    }

    /// Longest time from the first wish to stop until the master has left.
    pub fn stop_limit(&self) -> Duration {
        let grace = Duration::from_secs(5 + 5);
        let more = Duration::from_secs(5) * self.fell;
        let slack = self.faults.latency * 20 + Duration::from_secs(1);
        let all = more + self.judge.limits().kill() + grace + slack;
        // That one is a promise.
        self.judge.policy.stop_budget.map_or(all, |b| all.min(b))
    }

    /// Is nothing on its way any more?
    pub fn still(&self) -> bool {
        self.agenda.is_empty() && self.inbox.is_empty()
    }
}
