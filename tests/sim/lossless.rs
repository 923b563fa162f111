//! The judge of what the cluster promises to clients: new ones come only where somebody serves (I2), no
//! worker is asked to stop that still has what it should answer (I3), and no connection is lost on
//! account of a reload, a resize or a graceful stop. It sees the connections, which core never does.

use crate::cover::Mark;
use crate::kernel::Serial;
use crate::net::At;
use crate::records::{Job, Lane};
use crate::world::{Happening, World};
use minicluster::core::{Deal, Drain, Exit, LaneId, Of, PortId, Sight, SlotNr, Table, WorkerId};
use std::collections::BTreeSet;
use std::time::Duration;

impl World {
    /// Lanes that the worker's tree accepts from.
    fn lanes_of(&self, worker: WorkerId) -> Vec<LaneId> {
        let theirs = self.procs.values().filter(|p| p.worker == worker);
        let theirs: Vec<_> = theirs.collect();
        let lanes = self.judge.lanes.keys().copied();
        lanes
            .filter(|l| theirs.iter().any(|p| self.serves(p, *l)))
            .collect()
    }

    /// Does somebody still come to it, by lanes that others serve, too, or by its own?
    pub fn gets_more(&self, worker: WorkerId) -> bool {
        let job = &self.judge.jobs[&worker];
        let ours = |l: &Lane| match l.owner {
            Some(owner) => owner == worker,
            None => l.is_for(job) && !job.owns.contains(&l.port),
        };
        let mut near = self.judge.lanes.iter().filter(|(_, l)| ours(l));
        // Where they listen by themselves nobody can be steered.
        let comes = |id: &LaneId| self.net.steered(*id) && !self.net.refusing;
        near.any(|(id, l)| l.quit && !l.connected || l.open && comes(id))
    }

    /// Why a worker that is asked to stop now may lose what it has, if it may.
    pub fn may_lose(&self, worker: WorkerId) -> Option<&'static str> {
        let job = &self.judge.jobs[&worker];
        let p = self.judge.policy_of(worker);
        let graceful = |s: Serial| self.procs.get(&s).is_some_and(|p| p.plan.graceful);
        let trees = self.procs.iter().filter(|(_, p)| p.worker == worker);
        let ending = self.judge.ending;
        let most = match p.stop_budget.and(ending) {
            Some(_) => p.drain_timeout.min(job.drain_most),
            None => job.drain_most,
        };
        let late = job.drain.is_some_and(|at| self.now - at >= most);
        // Of a budget a third is kept for the stop signal to work.
        let limits = self.judge.limits();
        let cut = limits.cut().zip(ending).is_some_and(|(cut, e)| {
            let time = cut - p.stop_timeout.min(cut / 3);
            self.now - e.since >= time
        });
        let changed = job.drained_by.is_some_and(|d| d != p.drain);
        match p.drain {
            _ if ending.is_some_and(|e| e.hard) => Some("hard"),
            Drain::None => Some("none"),
            _ if late || cut => Some("late"),
            _ if changed => Some("another --drain meanwhile"),
            _ if job.too_many => Some("generations"),
            Drain::Server if !trees.clone().all(|(s, _)| graceful(*s)) => Some("not graceful"),
            Drain::Connections if self.faults.sight != Sight::Full => Some("blind"),
            Drain::Connections | Drain::Server => None,
        }
    }

    /// I3: what a worker has to be when it is asked to stop.
    pub fn asked_to_stop(&mut self, worker: WorkerId) {
        let excuse = self.may_lose(worker);
        let lanes = self.lanes_of(worker);
        // Its own, or one of its siblings': a port that only the old ones serve, for one.
        let steered = self.gets_more(worker);
        match excuse {
            Some("late") => self.cover.mark(Mark::DrainOverdue),
            Some("blind") => self.cover.mark(Mark::Blind),
            Some(_) => {}
            None if steered => self.cover.mark(Mark::SteeredStill),
            None if self.is_own_alone(worker) => self.cover.mark(Mark::OwnEmptied),
            None => self.cover.mark(Mark::Emptied),
        }
        let excuse = excuse.or(steered.then_some("its lane is still steered to"));
        // Nobody knows yet that it runs, still less that it serves.
        let unknown = self.judge.jobs[&worker].execed.is_none();
        let excuse = excuse.or(unknown.then_some("its exec is not known"));
        // One that starts to serve although it was asked to stop does so at its own risk.
        let excuse = excuse.or(lanes.is_empty().then_some("it serves nothing"));
        if let Some(job) = self.judge.jobs.get_mut(&worker) {
            job.excuse = excuse;
        }
        if matches!(excuse, Some("hard" | "none" | "late" | "generations")) {
            return;
        }
        // Its queue has no second more than that.
        let job = &self.judge.jobs[&worker];
        let closing = match job.drained_by {
            Some(Drain::Connections) => Duration::from_secs(1),
            Some(Drain::Server | Drain::None) | None => Duration::ZERO,
        };
        let most = job.drain_most.saturating_sub(closing);
        let late = job.drain.is_some_and(|at| self.now - at >= most);
        if let Some(job) = self.judge.jobs.get_mut(&worker).filter(|_| late) {
            job.queue_late = true;
        }
        // (Where they listen by themselves our descriptor is closed, and nobody sees into the queue.)
        let seen = |l: &LaneId| !self.judge.lanes[l].quit && !self.net.steered(*l);
        for lane in lanes.into_iter().filter(|l| !late && seen(l)) {
            let waiting = self.net.waiting(lane);
            assert_eq!(
                waiting,
                (0, 0),
                "I3: {worker:?} is to stop, and {lane:?} is not empty"
            );
        }
        let full = self.faults.sight == Sight::Full;
        if excuse.is_none() && full && self.judge.policy.drain == Drain::Connections {
            let open = self.load(worker).open;
            assert_eq!(open, 0, "I3: {worker:?} is to stop, and has connections");
        }
    }

    /// I4: no ready worker is given away on account of a reload.
    pub fn capacity_is_kept(&mut self, before: &[WorkerId]) {
        let now: Vec<WorkerId> = self.judge.ready_workers().collect();
        self.net.changed |= before != now;
        // (Old before new is for rollouts alone.)
        let rolls = self.judge.rollout.is_some() || self.judge.rolled;
        if self.judge.stopping() || self.judge.surge() == 0 && rolls {
            return;
        }
        for worker in before.iter().filter(|w| !now.contains(w)) {
            let job = &self.judge.jobs[worker];
            let at_fault = job.exit_told || job.abort.or(job.kill).is_some();
            let heir = self.judge.places.get(usize::from(job.slot.0));
            let heir = heir
                .and_then(|p| p.worker)
                .is_some_and(|w| now.contains(&w));
            let fine = at_fault || job.surplus.is_some() || heir;
            assert!(fine, "I4: {worker:?} goes, and nobody ready has its place");
        }
    }

    /// A process has ended that owed something.
    pub fn lost_by(&mut self, serial: Serial, conn: u64) {
        let p = &self.procs[&serial];
        let job = self.judge.jobs.get(&p.worker);
        let killed = p.killed.is_some() || p.zombie == Some(Exit::Signal(9));
        let at_fault = p.told.is_none() || killed;
        let alone = job.is_none_or(|j| j.stop.is_none());
        if at_fault || alone {
            return self.cover.mark(Mark::LostByCrash);
        }
        let excuse = job.and_then(|j| j.excuse);
        assert!(
            excuse.is_some(),
            "LOST: connection {conn} of {:?} ({:?})",
            p.worker,
            self.net.conns[&conn]
        );
        self.cover.mark(Mark::LostLate);
    }

    /// A lane is retired: nobody of its generation is left, and nobody comes by it.
    pub fn retire(&mut self, id: LaneId) {
        let lane = self.judge.lanes.get_mut(&id).expect("no such lane");
        assert!(std::mem::replace(&mut lane.open, false), "retired twice");
        let lane = lane.clone();
        let (given, shared) = (lane.given, lane.shared);
        assert!(!shared, "{id:?} is everybody's, and retired");
        assert!(
            !given || !self.net.steered(id),
            "{id:?} is steered to, and retired"
        );
        let here = |j: &&Job| lane.is_for(j) && j.known();
        let left = self
            .judge
            .jobs
            .values()
            .filter(here)
            .find(|j| j.group.is_some());
        assert!(left.is_none(), "{id:?} is retired before {left:?} has gone");
        let gone = self.net.steered(id);
        // Others of its port take its share.
        self.net.tables.retain(|_, t| {
            let had = !t.is_empty();
            t.keep(|l| l != id);
            !t.is_empty() || !had
        });
        // A learnt port that only those have served goes with them, whoever still comes.
        if self.lose_queue(id) > 0 && !gone {
            // Nobody ever read it, or somebody of it crashed, or ran out of time.
            let late = |j: &Job| j.queue_late || j.excuse.is_some();
            let fair = |j: &Job| late(j) || j.stop.is_none() || j.kill.is_some();
            // (One that was on its way in had its time, too; and one with a socket of its own there never
            // read this.)
            let own = |w: &WorkerId| {
                let mut lanes = self.judge.lanes.values();
                lanes.any(|l| l.port == lane.port && l.owner == Some(*w))
            };
            let reads = |w: &WorkerId| lane.read_by.contains(w) || !own(w);
            let of = |(w, j): &(&WorkerId, &Job)| {
                lane.is_for(j) && reads(w) && (j.ready.is_some() || late(j))
            };
            let all = self.judge.jobs.iter().filter(of).map(|(_, j)| j);
            let all: Vec<&Job> = all.collect();
            // Old before new: of code that has never come so far as to listen, though all went there, it was waited for.
            let came = |j: &Job| lane.is_for(j) && (j.ready.is_some() || j.listened.is_some());
            let came = self.judge.jobs.values().any(came);
            // (Of several slots others may be on their way in, each to a lane of its own.)
            let in_place = self.judge.surge() == 0 && self.judge.open().count() == 1;
            let waited = in_place && lane.last_reader.is_none() && given && !lane.served && !came;
            assert!(
                !waited || !matches!(lane.of, Of::Generation(_)),
                "LOST: who waited in {id:?}: {lane:?}"
            );
            let fine = !lane.served || all.is_empty() || all.into_iter().any(fair);
            assert!(fine, "LOST: the queue of {id:?} is reset");
            self.cover.mark(Mark::QueueReset);
        }
    }

    /// A lane is for others, too: only when nobody is ready, so that who waits there waits for them.
    pub fn inherit(&mut self, id: LaneId, heirs: BTreeSet<u32>) {
        assert_eq!(self.judge.ready(), 0, "{id:?} is inherited");
        assert!(
            self.net.steered(id),
            "{id:?} is inherited, and nobody comes by it"
        );
        let lane = &self.judge.lanes[&id];
        assert!(
            lane.open && !lane.shared && lane.owner.is_none(),
            "{lane:?} is inherited"
        );
        // Where those it is for had one there, that one is left to who is there by now.
        let last = self.judge.jobs.keys().copied().next_back();
        let port = lane.port;
        let mut after = None;
        let here = |(l, o): &(&LaneId, &mut Lane)| **l != id && o.port == port && o.open;
        for (other, of) in self.judge.lanes.iter_mut().filter(here) {
            let second = of.owner.is_none() && of.last_reader.is_none();
            let whose = heirs.iter().copied().find(|g| of.is_shared_by(*g));
            let Some(whose) = whose.filter(|_| second) else {
                continue;
            };
            assert!(
                !self.net.steered(*other),
                "{heirs:?} have {id:?} and {other:?}"
            );
            assert_eq!(
                whose, self.judge.generation,
                "{other:?} is not the old code's"
            );
            of.last_reader = last;
            after = last.map(|last| (whose, last));
            self.cover.mark(Mark::Bequeathed);
        }
        self.cover.mark(Mark::Inherited);
        let lane = self.judge.lanes.get_mut(&id).expect("it is there");
        (lane.heirs, lane.after) = (heirs, after.or(lane.after));
    }

    /// There can be no lane beside the one there is: all generations share it. Of several none is shared.
    pub fn shared_from_now_on(&mut self, beside: LaneId) {
        let port = self.judge.lanes[&beside].port;
        let open = |l: &&mut Lane| l.port == port && l.open;
        let mut here: Vec<&mut Lane> = self.judge.lanes.values_mut().filter(open).collect();
        if let [only] = here.as_mut_slice()
            && only.owner.is_none()
        {
            only.shared = true;
        }
    }

    /// What is dealt out apart goes to new workers that go ahead, and is as much as was asked for.
    fn part_is_of_canaries(&self, table: &Table) {
        let Some((share, deal)) = &table.part else {
            return;
        };
        assert_eq!(*share, self.judge.policy.canary.share);
        assert!(self.judge.canaries() > 0, "{table:?} without canaries");
        let ahead = self.judge.places.iter().filter_map(|p| p.successor);
        let ahead: Vec<WorkerId> = ahead.collect();
        for id in deal.lanes() {
            let lane = &self.judge.lanes[&id];
            let of = |w: &WorkerId| {
                let job = &self.judge.jobs[w];
                job.serves() && (lane.owner == Some(*w) || lane.owner.is_none() && lane.is_for(job))
            };
            let served = ahead.iter().any(of);
            assert!(served, "I2: {id:?} is no canary's");
        }
    }

    /// Of the worker that has it alone, or of the last one that had.
    fn slot_of(&self, id: LaneId) -> Option<SlotNr> {
        let lane = self.judge.lanes.get(&id)?;
        let its = |j: &&Job| match lane.of {
            Of::Seat(seat) => j.seat == seat,
            Of::Generation(_) | Of::Worker(_) | Of::All => false,
        };
        match lane.owner {
            Some(owner) => Some(self.judge.jobs.get(&owner)?.slot),
            None => self
                .judge
                .jobs
                .values()
                .filter(its)
                .map(|j| j.slot)
                .next_back(),
        }
    }

    /// Buckets of a slot that is ready stay there, unless they go home to one that was not before.
    pub fn dealt_anew(&mut self, port: PortId, table: &Table) {
        let Deal::Buckets(_, lanes) = &table.deal else {
            self.net.homes.remove(&port);
            return;
        };
        let slot = |id: &LaneId| self.slot_of(*id).expect("nobody's lane has a bucket");
        let now: Vec<SlotNr> = lanes.iter().map(slot).collect();
        let open = |p: &crate::records::Place| !p.closed;
        let wanted = self
            .judge
            .places
            .iter()
            .rposition(open)
            .map_or(0, |n| n + 1);
        if let Some((n, before)) = self.net.homes.get(&port).filter(|(n, _)| *n == wanted) {
            let had: BTreeSet<SlotNr> = before.iter().copied().collect();
            let has: BTreeSet<SlotNr> = now.iter().copied().collect();
            for (old, new) in before.iter().zip(&now).filter(|(a, b)| a != b) {
                let fair = !has.contains(old) || !had.contains(new);
                assert!(fair, "a client goes from {old} to {new} of {n}, both ready");
            }
            self.cover.mark(Mark::DealtAnew);
        }
        self.net.homes.insert(port, (wanted, now));
    }

    /// I2: of a port that has a lane with a ready worker, only such lanes are steered to.
    pub fn steering_settled(&mut self) {
        if self.judge.stopping() || !std::mem::take(&mut self.net.changed) {
            return;
        }
        let ready: Vec<WorkerId> = self.judge.ready_workers().collect();
        for (port, table) in &self.net.tables {
            let owned = self.judge.is_owned(*port);
            let reads = |w: &WorkerId| !self.judge.jobs[w].owns.contains(port);
            // One that was learnt from another one of that seat says nothing of the next.
            let seen = |l: &Lane, w: &WorkerId| {
                let learnt = matches!(l.of, Of::Seat(_)) && !l.given && !l.shared;
                !learnt || l.read_by.contains(w)
            };
            let of = |l: &Lane, w: &WorkerId| l.is_for(&self.judge.jobs[w]) && seen(l, w);
            let readers = ready.iter().filter(|w| reads(w));
            let weight = |l: &Lane| match l.owner {
                Some(owner) => usize::from(ready.contains(&owner)),
                None if l.shared && !owned => 1,
                None => {
                    let its = |w: &&WorkerId| of(l, w);
                    readers.clone().filter(its).count()
                }
            };
            let here = |l: &&Lane| l.port == *port && l.open && self.judge.counts(l);
            let served = self
                .judge
                .lanes
                .values()
                .filter(here)
                .any(|l| weight(l) > 0);
            if !served {
                // Its queue would be kept for one who does not read it.
                assert!(!owned || table.is_empty(), "I2: {port:?} lets clients in");
                continue;
            }
            assert!(!table.is_empty(), "I2: {port:?} is served, and shut");
            self.part_is_of_canaries(table);
            let lanes = table.deal.lanes();
            for id in &lanes {
                let n = weight(&self.judge.lanes[id]);
                assert!(n > 0, "I2: {id:?} is steered to, and nobody is ready there");
            }
            let Deal::Shares(shares) = &table.deal else {
                // Each has its part.
                let counts = |l: &&Lane| here(l) && weight(l) > 0;
                let all = self.judge.lanes.iter().filter(|(_, l)| counts(l));
                let slots: BTreeSet<SlotNr> = all.filter_map(|(id, _)| self.slot_of(*id)).collect();
                // (Not one that has said that it goes, while there are others.)
                let goes = |s: &SlotNr| {
                    let worker = self.judge.places[usize::from(s.0)].worker;
                    worker.is_some_and(|w| self.judge.jobs[&w].announced)
                };
                let stay: BTreeSet<SlotNr> = slots.iter().copied().filter(|s| !goes(s)).collect();
                let slots = if stay.is_empty() { slots } else { stay };
                let some = lanes.iter().filter_map(|id| self.slot_of(*id)).collect();
                assert_eq!(slots, some, "I2: somebody has no part of {port:?}");
                continue;
            };
            for (id, share) in shares.iter().filter(|_| lanes.len() > 1) {
                let n = weight(&self.judge.lanes[id]);
                let fair = n == usize::from(*share);
                assert!(fair, "I2: {id:?} has {n} workers and weight {share}");
            }
        }
    }

    /// Of a given port that runs one generation no other lane is left, unless somebody else is.
    pub fn old_lanes_are_gone(&self) {
        let of_one = |l: &Lane| l.open && !l.shared && l.owner.is_none();
        for (id, lane) in self.judge.lanes.iter().filter(|(_, l)| of_one(l)) {
            let alive = |j: &Job| lane.is_for(j) && j.known();
            let left = self.judge.jobs.values().any(alive);
            let vacant = |j: &Job| {
                let place = self.judge.places.get(usize::from(j.slot.0));
                place.is_some_and(|p| p.worker.is_none())
            };
            let runs = match lane.of {
                Of::Seat(seat) => {
                    let mut its = self.judge.jobs.values().filter(|j| j.seat == seat);
                    its.any(vacant)
                }
                Of::Generation(_) | Of::Worker(_) | Of::All => {
                    lane.is_shared_by(self.judge.generation)
                }
            };
            assert!(
                left || runs || self.net.steered(*id),
                "{id:?} is nobody's: {lane:?}"
            );
        }
    }

    /// Nobody waits in a queue that is not read, though others of that port are.
    pub fn no_queue_is_forgotten(&self) {
        for (id, conn) in &self.net.conns {
            // In a lane of old whose workers have crashed it waits for what these have left.
            let old = !self.net.steered(conn.lane);
            if conn.server.is_some() || conn.at == At::Handshake || old {
                continue;
            }
            let port = self.judge.lanes[&conn.lane].port;
            // All of one program are taken for serving what one of them has listened on. Where they are
            // not the same, and one has its own socket there, it is not so.
            // Where each has a lane of its own, one that does not serve takes clients as the others do.
            let mixed =
                self.judge.is_owned(port) || matches!(self.judge.lanes[&conn.lane].of, Of::Seat(_));
            if mixed && self.serving(conn.lane).is_empty() {
                continue;
            }
            let here = |l: &LaneId| {
                let lane = &self.judge.lanes[l];
                lane.port == port && lane.open
            };
            let mut ready = self.judge.ready_workers();
            let read = ready.any(|w| self.lanes_of(w).iter().any(here));
            assert!(!read, "connection {id} waits in {:?} for ever", conn.lane);
        }
    }

    /// A server shuts its lane down when it stops, as some do: the queue is reset, and its siblings
    /// there hear an error.
    pub fn shut_down_lanes(&mut self, serial: Serial) {
        let Some(p) = self.procs.get(&serial).filter(|_| self.faults.shut_downs) else {
            return;
        };
        let listens = p.sockets.iter().filter(|s| s.open && s.listens);
        let mine: Vec<LaneId> = listens.filter_map(|s| s.lane).collect();
        for lane in mine {
            self.cover.mark(Mark::ShutDown);
            let excuse = self.judge.jobs.get(&self.procs[&serial].worker);
            let excuse =
                excuse.is_none_or(|j| j.queue_late || j.excuse.is_some() || j.stop.is_none());
            let lost = self.lose_queue(lane);
            assert!(
                lost == 0 || excuse,
                "LOST: the queue of {lane:?} is shut down"
            );
            if self.judge.lanes[&lane].owner.is_some() {
                self.shut_down_own(lane);
                continue;
            }
            for other in self.serving(lane).into_iter().filter(|s| *s != serial) {
                self.after(Duration::from_millis(1), Happening::NoLane(other));
            }
        }
    }

    /// Its accept(2) fails: unless it is on its way out it ends of that.
    pub fn no_lane(&mut self, serial: Serial) {
        if self.procs.get(&serial).is_some_and(|p| p.told.is_none()) {
            self.end(serial, Exit::Code(1));
        }
    }
}
