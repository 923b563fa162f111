//! Servers that do nothing for a time, as if they were stopped: who waits for them meanwhile, what a look
//! from outside shows of it, and what the judge makes of a worker that is called hung.

use crate::cover::Mark;
use crate::draw::{self, Faults};
use crate::kernel::Serial;
use crate::net::{At, Clients, Conn};
use crate::plan::{Kind, Step};
use crate::stories::{a, ms, of, secs, stop, told};
use crate::world::{Happening, World};
use minicluster::core::{
    Balance, Event, LaneId, Policy, ReadyRule, Sight, Time, Wait, Waits, WorkerId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What is kept of looks, and of what workers do.
#[derive(Default)]
pub struct Hanging {
    /// Who waited when it was last seen to do something, and how much it had done by then.
    since: BTreeMap<WorkerId, Waiting>,
    /// How much each has done, and when the last of that.
    work: BTreeMap<WorkerId, (u64, Time)>,
    /// When the master went on after a pause that it must have noticed.
    pub woke: Option<Time>,
}

/// Who waits for a worker, and how much it has done for others by then.
struct Waiting {
    queued: BTreeSet<u64>,
    unread: BTreeSet<u64>,
    work: u64,
}

impl Waiting {
    /// What has waited since then, if nothing was done.
    fn since(&self, then: &Waiting, spread: bool) -> Option<Waits> {
        let still = |now: &BTreeSet<u64>, then: &BTreeSet<u64>| {
            (!then.is_empty() && then.is_subset(now)).then_some(now.len() as u32)
        };
        let queued = still(&self.queued, &then.queued);
        match spread {
            true => queued.map(Waits::Queue),
            false if self.work != then.work => None,
            false => {
                let unread = still(&self.unread, &then.unread).map(Waits::Bytes);
                unread.or(queued.map(Waits::Shared))
            }
        }
    }
}

impl World {
    /// The master has paused for so long, and goes on then.
    pub fn paused(&mut self, time: Duration, until: Time) {
        let gap = self.policy.hang_timeout.map(|l| (l / 4).max(ms(100)));
        if gap.is_some_and(|gap| time > gap * 2) {
            self.hanging.woke = self.hanging.woke.max(Some(until));
        }
    }

    /// From now on it does nothing, for so long.
    pub fn hang(&mut self, serial: Serial, time: Duration) {
        if let Some(p) = self.procs.get_mut(&serial) {
            p.hung = true;
            self.after(time, Happening::Resume(serial));
        }
    }

    /// It goes on: with what it has, and with what waits.
    pub fn resume(&mut self, serial: Serial) {
        let Some(p) = self.procs.get_mut(&serial).filter(|p| p.hung) else {
            return;
        };
        p.hung = false;
        self.works(serial);
        let its = |c: &Conn| c.server == Some(serial) && c.at == At::Owed;
        let its: Vec<u64> = self.net.ids(its);
        for id in its {
            self.answer_later(id);
        }
        self.wake_queues();
    }

    /// It does something for a client.
    pub fn works(&mut self, serial: Serial) {
        if let Some(p) = self.procs.get(&serial) {
            let work = self.hanging.work.entry(p.worker).or_insert((0, self.now));
            *work = (work.0 + 1, self.now);
        }
    }

    /// `Action::Probe`: it is asked by a lane that is its own alone. One that serves answers, mostly well.
    pub fn probe(&mut self, worker: WorkerId, lane: LaneId, within: Duration) {
        let job = &self.judge.jobs[&worker];
        assert!(job.ready.is_none(), "{worker:?} is ready, and asked");
        assert!(self.is_its(worker, lane) && !self.judge.lanes[&lane].shared);
        assert!(
            !self.net.steered(lane),
            "{lane:?} has other clients, and is asked"
        );
        assert!(within <= secs(1) && self.judge.asks());
        let serves = |s: &Serial| self.procs[s].worker == worker;
        let served = self.serving(lane).iter().any(serves);
        let (answer, after) = match served {
            true if self.healed || !self.rng.one_in(4) => (Ok(()), self.rng.ms(0, 20)),
            true => (Err("GET / answered 503".to_string()), self.rng.ms(0, 20)),
            false => (Err("no answer".to_string()), within),
        };
        let event = Event::Probed { worker, answer };
        self.after(
            after,
            Happening::News(crate::world::Mail { event, about: None }),
        );
    }

    /// Who waits in the queues of these lanes.
    fn queued(&self, lanes: &[LaneId]) -> BTreeSet<u64> {
        let waits = |c: &Conn| c.at == At::Queued && lanes.contains(&c.lane);
        self.net.ids(waits).into_iter().collect()
    }

    /// Whose bytes that worker has not read.
    fn unread(&self, worker: WorkerId) -> BTreeSet<u64> {
        let its = |s: Serial| self.procs.get(&s).is_some_and(|p| p.worker == worker);
        let waits = |c: &Conn| c.unread && c.server.is_some_and(its);
        self.net.ids(waits).into_iter().collect()
    }

    /// `Action::LookHung`.
    pub fn look_hung(&mut self, workers: &[(WorkerId, Vec<LaneId>)], spread: bool) -> Event {
        let mut before = std::mem::take(&mut self.hanging.since);
        let mut seen = Vec::new();
        for (worker, lanes) in workers {
            let job = &self.judge.jobs[worker];
            assert!(job.serves(), "{worker:?} does not serve, and is looked at");
            for lane in lanes {
                let fine = self.net.steered(*lane) && self.is_its(*worker, *lane);
                assert!(fine, "{lane:?} is not {worker:?}'s, or nobody comes by it");
            }
            let (work, _) = self.hanging.work.get(worker).copied().unwrap_or_default();
            let now = Waiting {
                queued: self.queued(lanes),
                unread: self
                    .unread(*worker)
                    .into_iter()
                    .filter(|_| !spread)
                    .collect(),
                work,
            };
            let then = before.remove(worker);
            let wait = match &then {
                _ if self.faults.sight == Sight::None => Wait::Unknown,
                Some(then) => now.since(then, spread).map_or(Wait::Moves, Wait::Stands),
                None => Wait::Moves,
            };
            let since = match wait {
                Wait::Moves => Some(now).filter(|n| !n.queued.is_empty() || !n.unread.is_empty()),
                Wait::Stands(_) | Wait::Unknown => then,
            };
            self.hanging.since.extend(since.map(|s| (*worker, s)));
            seen.push((*worker, wait));
        }
        Event::Waiting { seen }
    }

    fn is_its(&self, worker: WorkerId, lane: LaneId) -> bool {
        let (job, lane) = (&self.judge.jobs[&worker], &self.judge.lanes[&lane]);
        lane.owner == Some(worker) || lane.owner.is_none() && lane.is_for(job)
    }

    /// It is called hung: how long has a client waited for it, and was nothing done for any?
    pub fn called_hung(&mut self, worker: WorkerId) {
        let now = self.now;
        let (_, last) = self.hanging.work.get(&worker).copied().unwrap_or_default();
        let spread = self.policy.balance.spreads();
        let lanes = self.judge.lanes.keys().copied();
        let lanes: Vec<LaneId> = lanes.filter(|l| self.is_its(worker, *l)).collect();
        let longest = |ids: BTreeSet<u64>| ids.iter().map(|id| self.net.conns[id].since).min();
        let (queued, unread) = (longest(self.queued(&lanes)), longest(self.unread(worker)));
        let (since, mark) = match (spread, unread) {
            (true, _) => (queued, Mark::HungQueue),
            (false, None) => (queued.map(|t| t.max(last)), Mark::HungShared),
            (false, Some(unread)) => {
                let first = queued.map_or(unread, |q| q.min(unread));
                (Some(first.max(last)), Mark::HungBytes)
            }
        };
        let since = since.map(|t| t.max(self.hanging.woke.unwrap_or_default()));
        self.cover.mark(mark);
        if let Some(job) = self.judge.jobs.get_mut(&worker) {
            job.waited = since.map(|t| now - t);
        }
    }
}

fn clients(gap: u64) -> Clients {
    Clients {
        gap: ms(gap),
        most: 10_000,
        rtt: ms(1),
        answer: ms(5),
        pause: ms(50),
        keep: 50,
        ..Clients::none()
    }
}

/// Four workers, of which the first hangs for so long 2.5 s after it listens, under load.
fn one_hangs(balance: Balance, time: Duration) -> World {
    let policy = Policy {
        balance,
        hang_timeout: Some(secs(2)),
        ready: ReadyRule::Listening,
        ..of(4)
    };
    let mut first = a(Kind::Good);
    // (At a moment at which it holds a connection whose client speaks on.)
    first.steps.push((ms(2500), Step::Hang(time)));
    let mut world = told(policy, vec![first], Kind::Good);
    world.faults = Faults {
        clients: clients(10),
        ..draw::calm()
    };
    assert!(world.run_until(secs(2), |w| w.judge.ready() == 4));
    world.let_clients_come(secs(60));
    world
}

#[test]
fn who_hangs_is_steered_around_and_replaced_and_its_queue_is_served_by_the_next() {
    for balance in [Balance::Hash, Balance::Ip, Balance::Cpu] {
        let mut w = one_hangs(balance, secs(100));
        let hangs = |w: &World| w.cover.count("Notice::Hangs") == 1;
        assert!(w.run_until(secs(6), hangs), "{balance:?}");
        let stuck = |w: &World| w.net.ids(|c| c.at == At::Queued);
        let (worker, queue) = (w.judge.jobs.keys().next().copied().unwrap(), stuck(&w));
        assert!(!queue.is_empty());
        // From that moment on nobody more waits there.
        w.run(secs(1));
        let lane = w.net.conns[&queue[0]].lane;
        assert!(!w.net.steered(lane));
        assert!(stuck(&w).iter().filter(|id| !queue.contains(id)).count() < 3);
        assert!(w.run_until(secs(10), |w| w.judge.ready() == 4));
        assert!(w.judge.jobs[&worker].exit_told);
        // Those that waited are served.
        w.run(secs(1));
        assert!(stuck(&w).iter().all(|id| !queue.contains(id)));
        assert_eq!(w.cover.count("Mark::QueueReset"), 0);
        assert_eq!(w.cover.count("Notice::Hangs"), 1);
        assert_eq!(stop(&mut w).0, Some(0));
    }
}

#[test]
fn by_a_shared_lane_it_shows_by_what_it_does_not_read() {
    let mut w = one_hangs(Balance::Shared, secs(100));
    assert!(w.run_until(secs(20), |w| w.cover.count("Mark::HungBytes") == 1));
    assert!(w.run_until(secs(10), |w| w.judge.ready() == 4));
    w.run(secs(20));
    assert_eq!(w.cover.count("Notice::Hangs"), 1);
    assert_eq!(stop(&mut w).0, Some(0));
}

#[test]
fn who_shares_a_queue_that_nobody_takes_from_hangs_too() {
    let policy = Policy {
        balance: Balance::Shared,
        hang_timeout: Some(secs(2)),
        ready: ReadyRule::Listening,
        ..of(2)
    };
    // (Idle: neither has a connection by then.)
    let hanging = || {
        let mut story = a(Kind::Good);
        story.steps.push((ms(2500), Step::Hang(secs(100))));
        story
    };
    let mut w = told(policy, vec![hanging(), hanging()], Kind::Good);
    w.faults = Faults {
        clients: clients(10),
        ..draw::calm()
    };
    assert!(w.run_until(secs(2), |w| w.judge.ready() == 2));
    let both = |w: &World| w.procs.values().filter(|p| p.hung).count() == 2;
    assert!(w.run_until(secs(4), both));
    w.let_clients_come(secs(30));
    let hangs = |w: &World| w.cover.count("Mark::HungShared") == 2;
    assert!(w.run_until(secs(6), hangs));
    assert!(w.run_until(secs(10), |w| w.judge.ready() == 2));
    let waits = |w: &World| !w.net.ids(|c| c.at == At::Queued).is_empty();
    assert!(w.run_until(secs(2), |w| !waits(w)));
    assert_eq!(w.cover.count("Mark::QueueReset"), 0);
    assert_eq!(w.cover.count("Notice::Hangs"), 2);
    assert_eq!(stop(&mut w).0, Some(0));
}

#[test]
fn a_short_pause_is_none() {
    for balance in [Balance::Hash, Balance::Shared] {
        let mut w = one_hangs(balance, ms(1800));
        w.run(secs(60));
        assert_eq!(w.cover.count("Notice::Hangs"), 0);
        assert_eq!(stop(&mut w).0, Some(0));
    }
}

#[test]
fn who_is_asked_whether_it_is_ready_has_no_client_before() {
    let policy = Policy {
        balance: Balance::Hash,
        ready: ReadyRule::Answers,
        ..of(3)
    };
    let mut w = told(policy, vec![], Kind::Slow);
    w.faults.clients = clients(10);
    w.let_clients_come(secs(60));
    let asked = |w: &World| w.cover.count("Action::Probe") > 0;
    assert!(w.run_until(secs(20), asked));
    assert!(w.run_until(secs(60), |w| w.judge.ready() == 3));
    assert!(w.cover.count("Mark::NobodyLetIn") > 0);
    assert_eq!(stop(&mut w).0, Some(0));
}
