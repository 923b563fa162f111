//! Sockets of workers' own that cannot be swapped, in the world and before the judge: each is bound and
//! listens by the master's doing, one worker alone accepts from it, and its queue goes with that worker.

use crate::cover::Mark;
use crate::judge::Judge;
use crate::kernel::{Process, Socket};
use crate::net::At;
use crate::records::{Job, Lane};
use crate::world::World;
use minicluster::core::{Addr, Ask, Event, LaneId, Of, PortId, Table, Takeover, WorkerId};
use std::collections::BTreeSet;

impl World {
    /// `Action::OpenLane` of a worker's own socket.
    pub fn adopt(
        &mut self,
        (id, port, of): (LaneId, PortId, Of),
        addr: Addr,
        ask: Ask,
        beside: bool,
    ) -> Event {
        let asked = self.judge.asks.get(&ask).cloned().flatten();
        let asked = asked.expect("adopted without a bind(2)");
        self.judge.may_adopt(port, &addr, asked, beside);
        if !beside {
            // Nobody is let in before it serves.
            self.net.tables.insert(port, Table::default());
        }
        let given = |l: &Lane| l.port == port && l.given;
        let given = self.judge.lanes.values().any(given);
        let asker = self.asks.get(&ask).and_then(|s| self.procs.get(s));
        let owner = asker.filter(|p| p.lives()).map(|p| p.worker);
        let taken = !beside && self.rng.percent(self.faults.learnt_fails);
        let failed = match owner {
            // There is nothing to copy any more.
            None => Some(("pidfd_getfd", 3)),
            Some(_) if self.rng.percent(self.faults.adopt_fails) => Some(("fchown", 1)),
            Some(_) => None,
        };
        let lane = Lane {
            addr: addr.clone(),
            port,
            of,
            heirs: BTreeSet::new(),
            shared: false,
            owner,
            left: false,
            given,
            open: failed.is_none() && !taken,
            quit: false,
            listens: false,
            connected: false,
            served: false,
            read_by: BTreeSet::new(),
            last_reader: None,
            after: None,
        };
        self.judge.lanes.insert(id, lane);
        if let Some((step, errno)) = failed {
            let lane = id;
            return Event::AdoptFailed { lane, step, errno };
        }
        if taken {
            return Event::LaneFailed {
                lane: id,
                errno: 98,
                holder: None,
            };
        }
        self.adopting.insert(ask, id);
        if let Of::Worker(id) = of {
            let generation = self.judge.jobs[&id].generation;
            self.judge.owned.insert((port, generation));
        }
        if let Some(job) = owner.and_then(|w| self.judge.jobs.get_mut(&w)) {
            job.owns.insert(port);
        }
        Event::LaneOpened { lane: id, addr }
    }

    /// `Action::Bound`: its worker goes on.
    pub fn bound(&mut self, ask: Ask) {
        self.judge.answered(ask).expect("bound without a bind(2)");
        let lane = self.adopting.remove(&ask).expect("it was not bound");
        self.bind_done(ask, Ok(Some(lane)));
    }

    /// Does a process of its worker hold it still?
    fn is_held(&self, lane: LaneId, owner: WorkerId) -> bool {
        let holds = |s: &Socket| s.open && s.lane == Some(lane);
        let theirs = |p: &&Process| p.worker == owner && p.lives();
        let mut procs = self.procs.values().filter(theirs);
        procs.any(|p| p.sockets.iter().any(holds))
    }

    /// A worker that binds anew is looked at: what it has closed meanwhile is nobody's.
    pub fn release_closed(&mut self, worker: WorkerId) {
        let lanes = self.judge.lanes.iter();
        let own = lanes.filter(|(_, l)| l.open && l.owner == Some(worker));
        let own: Vec<LaneId> = own.map(|(id, _)| *id).collect();
        for lane in own {
            if !self.is_held(lane, worker) {
                self.settle(Event::LaneLeft { lane }, None);
            }
        }
    }

    /// Its worker has shut it down: nobody comes by it any more, and the master sees that.
    pub fn shut_down_own(&mut self, id: LaneId) {
        if let Some(lane) = self.judge.lanes.get_mut(&id) {
            lane.listens = false;
        }
        self.news(Event::LaneLeft { lane: id });
    }

    /// `Action::RetireLane` of one: steered away from first, and never before its worker is through
    /// with it.
    pub fn retire_own(&mut self, id: LaneId, owner: WorkerId) {
        let lane = self.judge.lanes.get_mut(&id).expect("no such lane");
        assert!(std::mem::replace(&mut lane.open, false), "retired twice");
        let (left, port) = (lane.left, lane.port);
        let other = |l: &Lane| l.port == port && l.open;
        match self.judge.lanes.values().any(other) {
            true => assert!(!self.net.steered(id), "{id:?} is steered to, and retired"),
            // The port goes with it.
            false => drop(self.net.tables.remove(&port)),
        }
        let let_go = left || !self.is_held(id, owner);
        let job = &self.judge.jobs[&owner];
        assert!(
            let_go || self.judge.rest_is_killed(job) || !job.known(),
            "{id:?} is retired before {job:?} has gone"
        );
        let leaves = job.stop.is_some() && job.kill.is_none();
        let fair = !leaves || job.queue_late || job.excuse.is_some();
        if self.lose_queue(id) > 0 {
            assert!(fair, "LOST: the queue of {id:?} of {owner:?} is reset");
            self.cover.mark(Mark::OwnQueueLost);
        }
    }

    /// `Action::FlushLane`: nobody reads it, and nobody comes by it.
    pub fn flush(&mut self, id: LaneId) {
        let lane = &self.judge.lanes[&id];
        let fits = lane.open && lane.given && lane.owner.is_none() && !lane.shared;
        let owned = self.judge.is_owned(lane.port);
        assert!(fits && owned, "{id:?} is no queue to be emptied: {lane:?}");
        assert!(!self.net.steered(id), "{id:?} is steered to, and emptied");
        let reads = |j: &Job| {
            let ready = j.ready.is_some() && !j.exit_told;
            ready && self.judge.counts(lane) && !j.owns.contains(&lane.port)
        };
        let readers = self.serving(id);
        let mut readers = readers
            .iter()
            .map(|s| &self.judge.jobs[&self.procs[s].worker]);
        let reader = readers.find(|j| reads(j));
        assert!(
            reader.is_none(),
            "{id:?} is emptied, and {reader:?} reads it"
        );
        if self.lose_queue(id) > 0 {
            self.cover.mark(Mark::Flushed);
        }
    }

    /// Has it nothing but sockets of its own?
    pub fn is_own_alone(&self, worker: WorkerId) -> bool {
        let mut lanes = self.judge.lanes.iter().filter(|(_, l)| l.open);
        let theirs = |p: &&Process| p.worker == worker;
        let serves = |id: LaneId| {
            let mut procs = self.procs.values().filter(theirs);
            procs.any(|p| self.serves(p, id))
        };
        let job = &self.judge.jobs[&worker];
        !job.owns.is_empty() && lanes.all(|(id, l)| l.owner == Some(worker) || !serves(*id))
    }

    /// In a world at rest each that is left is in service, and no queue is kept that they do not read.
    pub fn own_sockets_serve(&mut self) {
        let ready: Vec<WorkerId> = self.judge.ready_workers().collect();
        let lanes = self.judge.lanes.iter().filter(|(_, l)| l.open);
        let mut serves = false;
        for (id, lane) in lanes {
            match lane.owner {
                Some(owner) => {
                    let job = &self.judge.jobs[&owner];
                    assert!(job.known(), "{id:?} is nobody's: {lane:?}");
                    serves |= ready.contains(&owner) && self.net.steered(*id);
                }
                None if self.judge.is_owned(lane.port) && lane.given && !lane.shared => {
                    let waits = |c: &crate::net::Conn| c.lane == *id && c.at == At::Queued;
                    let waits = self.net.conns.values().any(waits);
                    // What is left of those that have read it may read it still.
                    let reads = |j: &Job| {
                        let own = j.owns.contains(&lane.port);
                        lane.is_for(j) && j.known() && j.ready.is_some() && !own
                    };
                    let left = self.judge.jobs.values().any(reads);
                    let idle = self.serving(*id).is_empty() && !self.net.steered(*id) && !left;
                    assert!(!(waits && idle), "who waits in {id:?} waits in vain");
                }
                None => {}
            }
        }
        if serves {
            self.cover.mark(Mark::OwnServes);
        }
    }
}

impl Judge {
    /// Has a worker its own socket at that port, or had it?
    pub fn is_owned(&self, port: PortId) -> bool {
        self.owned.iter().any(|(p, _)| *p == port)
    }

    /// A socket of a worker's own is none to serve by: the port is as it was, if it has no other.
    pub fn own_connects(&mut self, lane: LaneId) {
        let Some((port, owner)) = self.lanes.get(&lane).and_then(|l| Some((l.port, l.owner?)))
        else {
            return;
        };
        let left = |l: &Lane| l.open && l.port == port && l.owner == Some(owner);
        if !self.lanes.values().any(left)
            && let Some(job) = self.jobs.get_mut(&owner)
        {
            job.owns.remove(&port);
        }
        let jobs = &self.jobs;
        let owns = |g: u32| {
            let mut of_it = jobs.values().filter(|j| j.generation == g && j.known());
            of_it.any(|j| j.owns.contains(&port))
        };
        self.owned.retain(|(p, g)| *p != port || owns(*g));
    }

    /// Of a port at which workers of its generation have their own sockets it is seen who serves it.
    pub fn counts(&self, lane: &Lane) -> bool {
        let of_it = |g: u32| match lane.of {
            Of::Seat(seat) if !lane.shared => {
                let its = |j: &Job| j.seat == seat && j.generation == g && j.known();
                self.jobs.values().any(its)
            }
            Of::Generation(_) | Of::Seat(_) | Of::Worker(_) | Of::All => lane.is_shared_by(g),
        };
        let its = |(p, g): &(PortId, u32)| *p == lane.port && of_it(*g);
        let own = self.owned.iter().any(its);
        lane.served || lane.given && lane.owner.is_none() && (!own || lane.shared)
    }

    /// Has all been killed that this worker may have left in its group?
    pub fn rest_is_killed(&self, job: &Job) -> bool {
        job.exit_told && (!job.has_to_go() || job.kill.is_some() || job.abort.is_some())
    }

    /// It is bound where its port is, whatever was asked for; the first of a port where nobody is.
    fn may_adopt(&self, port: PortId, addr: &Addr, mut asked: Addr, beside: bool) {
        if let (Takeover::Ports(map), Addr::Tcp(asked)) = (&self.policy.takeover, &mut asked) {
            let ours = map.iter().find(|(theirs, _)| *theirs == asked.port());
            asked.set_port(ours.expect("not a port to take over").1);
        }
        assert_eq!(addr.port(), asked.port(), "{asked} was asked for");
        let mates = self.lanes.values().filter(|l| l.port == port && l.open);
        assert_eq!(mates.clone().count() > 0, beside, "has {port:?} lanes?");
        for mate in mates {
            assert!(mate.addr == *addr && !mate.shared, "{addr} beside {mate:?}");
        }
        let given = self.lanes.values().any(|l| l.port == port && l.given);
        assert!(given || *addr == asked, "{asked} is bound to {addr}");
    }

    /// What belongs to a worker that crashed is retired in the turn in which that is told; of one that
    /// was asked to go, when all of it has gone.
    pub fn own_lanes_settled(&self) {
        for (id, lane) in self.lanes.iter().filter(|(_, l)| l.open) {
            let Some(job) = lane.owner.and_then(|w| self.jobs.get(&w)) else {
                continue;
            };
            let late = lane.left || self.rest_is_killed(job) || !job.known();
            assert!(!late, "{id:?} outlives {job:?}");
        }
    }
}
