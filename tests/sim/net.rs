//! The ports as clients see them: who gets a new connection is the table's word, and a handshake takes
//! its time; then it waits in a queue until a process that serves the lane accepts it, asks once or
//! several times, and is answered. A process that ends takes its connections along.

use crate::kernel::{Process, Serial};
use crate::prng::Prng;
use crate::world::{Happening, World};
use minicluster::core::{
    Deal, Event, Exit, LaneId, LaneLook, Load, PortId, Sight, SlotNr, Table, Time, WorkerId,
};
use std::collections::BTreeMap;
use std::time::Duration;

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// Its handshake is under way.
    Handshake,
    /// Nobody has accepted it yet.
    Queued,
    /// Accepted; its first request is still on its way.
    Fresh,
    /// It waits for an answer, or the rest of one.
    Owed,
    /// Between two requests.
    Idle,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Conn {
    pub lane: LaneId,
    pub at: At,
    pub server: Option<Serial>,
    /// Requests to come; an endless answer is never over.
    left: u64,
    endless: bool,
    silent: Time,
    /// From when on it waits to be accepted, or to be read; and is it read?
    pub since: Time,
    pub unread: bool,
    /// Is no further request let in?
    held: bool,
    /// A date set before the last change is void.
    version: u64,
}

impl Conn {
    /// Is something owed on it, or on its way?
    pub fn owed(&self) -> bool {
        matches!(self.at, At::Fresh | At::Owed)
    }
}

/// How clients behave: drawn once for a world.
#[derive(Clone, Debug)]
pub struct Clients {
    /// One comes every so often; none if zero.
    pub gap: Duration,
    /// How many at most.
    pub most: u64,
    /// A handshake takes up to that long,
    pub rtt: Duration,
    /// an answer,
    pub answer: Duration,
    /// and the time until the next request.
    pub pause: Duration,
    /// So many of 100 ask more than once, get an answer without an end, ask late.
    pub keep: u64,
    pub endless: u64,
    pub late: u64,
}

impl Clients {
    /// Nobody comes.
    pub fn none() -> Clients {
        Clients {
            gap: Duration::ZERO,
            most: 0,
            rtt: Duration::ZERO,
            answer: Duration::ZERO,
            pause: Duration::ZERO,
            keep: 0,
            endless: 0,
            late: 0,
        }
    }

    /// Few, who all stay.
    pub fn endless() -> Clients {
        Clients {
            gap: Duration::from_millis(800),
            most: 40,
            rtt: Duration::from_millis(1),
            endless: 100,
            ..Clients::none()
        }
    }

    /// As a seed has it.
    pub fn draw(r: &mut Prng) -> Clients {
        let ms = Duration::from_millis;
        let zero = Duration::ZERO;
        Clients {
            gap: r.weighted(&[(3, zero), (3, ms(10)), (3, ms(100)), (2, ms(700))]),
            most: r.range(10, 80),
            rtt: r.weighted(&[(3, ms(1)), (2, ms(50)), (2, ms(400))]),
            answer: r.weighted(&[(3, ms(5)), (3, ms(100)), (2, ms(3000))]),
            pause: r.weighted(&[(2, ms(100)), (2, ms(3000)), (1, ms(20_000))]),
            keep: r.pick(&[0, 20, 80]),
            endless: r.weighted(&[(5, 0), (1, 3), (1, 20)]),
            late: r.pick(&[0, 10, 50]),
        }
    }
}

/// All of it.
#[derive(Debug, Default)]
pub struct Net {
    /// Where new connections of each port go.
    pub tables: BTreeMap<PortId, Table>,
    pub conns: BTreeMap<u64, Conn>,
    /// Of each port that is dealt out by bucket: the slot of each, and how many slots there were to be.
    pub homes: BTreeMap<PortId, (usize, Vec<SlotNr>)>,
    /// Is nobody let in any more?
    pub refusing: bool,
    /// Is it to be looked whether they go to the right lanes?
    pub changed: bool,
    next: u64,
    came: u64,
    until: Time,
}

impl Net {
    /// Do new connections come by it?
    pub fn steered(&self, lane: LaneId) -> bool {
        !self.refusing && self.tables.values().any(|t| t.names(lane))
    }

    /// The connections of which this is true.
    pub fn ids(&self, is: impl Fn(&Conn) -> bool) -> Vec<u64> {
        let all = self.conns.iter().filter(|(_, c)| is(c));
        all.map(|(id, _)| *id).collect()
    }

    /// Handshakes under way, and connections that nobody has accepted.
    pub fn waiting(&self, lane: LaneId) -> (u32, u32) {
        let count = |at: At| {
            let here = self.conns.values().filter(|c| c.lane == lane && c.at == at);
            here.count() as u32
        };
        (count(At::Handshake), count(At::Queued))
    }
}

impl World {
    /// Clients come, for so long.
    pub fn let_clients_come(&mut self, time: Duration) {
        let c = &self.faults.clients;
        if c.gap.is_zero() {
            return;
        }
        let gap = c.gap;
        self.net.until = self.now + time;
        self.net.came = 0;
        let first = self.rng.upto(gap);
        self.after(first, Happening::Client);
    }

    /// One comes, and after it the next.
    pub fn client(&mut self) {
        let c = self.faults.clients.clone();
        self.net.came += 1;
        if self.now < self.net.until && self.net.came < c.most {
            let next = self.rng.upto(c.gap * 2);
            self.after(next, Happening::Client);
        }
        self.arrive();
    }

    /// A new connection is asked for, at any port that can be connected to.
    pub fn arrive(&mut self) -> Option<u64> {
        let c = self.faults.clients.clone();
        let open = |l: &LaneId| {
            let lane = self.judge.lanes.get(l);
            lane.is_some_and(|l| l.open && l.listens && !l.connected)
        };
        let tables = self.net.tables.values();
        // Where nobody serves nobody is let in.
        let tables = tables.filter(|t| !t.is_empty() && t.lanes().iter().all(open));
        let tables: Vec<Table> = tables.cloned().collect();
        // Who is refused comes again when somebody else serves.
        if tables.is_empty() || self.net.refusing {
            return None;
        }
        let table = self.rng.pick(&tables);
        let lane = self.dealt(&table);
        let conn = Conn {
            lane,
            at: At::Handshake,
            server: None,
            left: match self.rng.percent(c.keep) {
                true => self.rng.range(2, 5),
                false => 1,
            },
            endless: self.rng.percent(c.endless),
            silent: self.now,
            since: self.now,
            unread: false,
            held: false,
            version: 0,
        };
        self.net.next += 1;
        let id = self.net.next;
        self.say("client", || format!("{id} to {lane:?}"));
        self.net.conns.insert(id, conn);
        let rtt = self.rng.upto(c.rtt);
        self.next_of(id, At::Handshake, Some(rtt));
        Some(id)
    }

    /// Which lane does the kernel choose?
    fn dealt(&mut self, table: &Table) -> LaneId {
        let deal = match &table.part {
            Some((part, deal)) if self.rng.percent(u64::from(*part)) => deal,
            Some(_) | None => &table.deal,
        };
        match deal {
            Deal::Shares(all) => {
                let all: Vec<(u32, LaneId)> =
                    all.iter().map(|(l, w)| (u32::from(*w), *l)).collect();
                self.rng.weighted(&all)
            }
            Deal::Buckets(_, all) => self.rng.pick(all),
            Deal::Cpus(all) => {
                let (_, lanes) = self.rng.pick(all);
                self.rng.pick(&lanes)
            }
        }
    }

    /// It is there from now on, until that time has passed, if it does.
    fn next_of(&mut self, id: u64, at: At, wait: Option<Duration>) {
        let now = self.now;
        let Some(conn) = self.net.conns.get_mut(&id) else {
            return;
        };
        if conn.at == At::Handshake {
            conn.since = now;
        }
        conn.at = at;
        conn.version += 1;
        let version = conn.version;
        if let Some(wait) = wait {
            self.after(wait, Happening::Conn(id, version));
        }
    }

    /// What was to come of a connection comes.
    pub fn conn(&mut self, id: u64, version: u64) {
        let c = self.faults.clients.clone();
        let now = self.now;
        let Some(conn) = self.net.conns.get_mut(&id) else {
            return;
        };
        if conn.version != version {
            return;
        }
        let answer = (!conn.endless).then(|| self.rng.upto(c.answer));
        if let Some(server) = conn.server {
            if self.procs.get(&server).is_some_and(|p| p.hung) {
                // What comes is not read; an answer comes when it goes on.
                if conn.at != At::Owed {
                    (conn.unread, conn.since) = (true, now);
                }
                return self.next_of(id, At::Owed, None);
            }
            self.works(server);
        }
        let Some(conn) = self.net.conns.get_mut(&id) else {
            return;
        };
        match conn.at {
            At::Handshake => {
                let soon = self.rng.ms(0, 2);
                self.next_of(id, At::Queued, Some(soon));
            }
            At::Queued => {
                let lane = conn.lane;
                let servers = self.serving(lane);
                // It waits for whoever comes.
                if servers.is_empty() {
                    return;
                }
                let owner = self.judge.lanes[&lane].owner;
                let theirs = |s: &Serial| owner.is_none_or(|w| self.procs[s].worker == w);
                assert!(
                    servers.iter().all(theirs),
                    "{lane:?} is of {owner:?}, and others accept from it"
                );
                let server = self.rng.pick(&servers);
                self.say("client", || format!("{id} accepted by {server:?}"));
                self.works(server);
                if let Some(conn) = self.net.conns.get_mut(&id) {
                    (conn.server, conn.silent) = (Some(server), now);
                }
                match self.rng.percent(c.late) {
                    true => {
                        let late = self.rng.ms(0, 3000);
                        self.next_of(id, At::Fresh, Some(late));
                    }
                    false => self.next_of(id, At::Owed, answer),
                }
            }
            At::Idle if conn.held => {}
            At::Fresh | At::Idle => self.next_of(id, At::Owed, answer),
            At::Owed => {
                conn.silent = now;
                conn.left -= 1;
                let server = conn.server;
                let leaves = server.and_then(|s| self.procs.get(&s));
                match conn.left > 0 && !leaves.is_some_and(|p| p.leaving) {
                    true => {
                        let pause = self.rng.upto(c.pause);
                        self.next_of(id, At::Idle, Some(pause));
                    }
                    false => self.close(id),
                }
            }
        }
    }

    /// Its server goes on.
    pub fn answer_later(&mut self, id: u64) {
        let most = self.faults.clients.answer;
        let answer = self.rng.upto(most);
        if let Some(conn) = self.net.conns.get_mut(&id) {
            conn.unread = false;
            let wait = (!conn.endless).then_some(answer);
            self.next_of(id, At::Owed, wait);
        }
    }

    /// It is over, to everybody's content.
    pub fn close(&mut self, id: u64) {
        let Some(conn) = self.net.conns.remove(&id) else {
            return;
        };
        if let Some(server) = conn.server {
            self.leave_if_done(server);
        }
    }

    /// Processes that accept what comes by this lane.
    pub fn serving(&self, lane: LaneId) -> Vec<Serial> {
        let serves = |(_, p): &(&Serial, &Process)| self.serves(p, lane);
        let all = self.procs.iter().filter(serves);
        all.map(|(s, _)| *s).collect()
    }

    /// Does this process accept what comes by this lane?
    pub fn serves(&self, p: &Process, id: LaneId) -> bool {
        let on_it = |s: &crate::kernel::Socket| s.open && s.listens && s.lane == Some(id);
        let works = p.lives() && p.execed && !p.leaving && !p.hung;
        works && (p.sockets.iter().any(on_it) || p.accepts && self.handed(p.worker, id))
    }

    /// Was the worker handed this lane when it was forked?
    pub fn handed(&self, worker: WorkerId, lane: LaneId) -> bool {
        let (lane, job) = (self.judge.lanes.get(&lane), self.judge.jobs.get(&worker));
        let (Some(lane), Some(job)) = (lane, job) else {
            return false;
        };
        let there = lane.given && lane.owner.is_none() && (lane.open || lane.quit);
        there && lane.is_for(job)
    }

    /// Somebody may have come to serve: what waits in queues is looked at again.
    pub fn wake_queues(&mut self) {
        let queued = self.net.conns.iter().filter(|(_, c)| c.at == At::Queued);
        let queued: Vec<u64> = queued.map(|(id, _)| *id).collect();
        for id in queued {
            let soon = self.rng.ms(0, 2);
            self.next_of(id, At::Queued, Some(soon));
        }
    }

    /// The process has ended: what it had to answer is lost, unless it was at fault itself.
    pub fn lose_connections(&mut self, serial: Serial) {
        let theirs = |(_, c): &(&u64, &Conn)| c.server == Some(serial);
        let theirs: Vec<(u64, bool)> = self
            .net
            .conns
            .iter()
            .filter(theirs)
            .map(|(id, c)| (*id, c.owed()))
            .collect();
        for (id, owed) in theirs {
            if owed {
                self.lost_by(serial, id);
            }
            self.net.conns.remove(&id);
        }
    }

    /// What waits in a lane that is no more is reset.
    pub fn lose_queue(&mut self, lane: LaneId) -> usize {
        let here = |(_, c): &(&u64, &Conn)| c.lane == lane && c.server.is_none();
        let here: Vec<u64> = self
            .net
            .conns
            .iter()
            .filter(here)
            .map(|(n, _)| *n)
            .collect();
        for id in &here {
            self.net.conns.remove(id);
        }
        here.len()
    }

    /// A server that stops gracefully accepts no more, and ends when it owes nothing.
    pub fn stop_gracefully(&mut self, serial: Serial) {
        if let Some(p) = self.procs.get_mut(&serial) {
            p.leaving = true;
        }
        let idle = |(_, c): &(&u64, &Conn)| c.server == Some(serial) && c.at == At::Idle;
        let idle: Vec<u64> = self
            .net
            .conns
            .iter()
            .filter(idle)
            .map(|(n, _)| *n)
            .collect();
        for id in idle {
            self.net.conns.remove(&id);
        }
        self.leave_if_done(serial);
    }

    fn leave_if_done(&mut self, serial: Serial) {
        let busy = self.net.conns.values().any(|c| c.server == Some(serial));
        let leaving = self.procs.get(&serial).filter(|p| p.leaving && p.lives());
        if let Some(wait) = leaving.filter(|_| !busy).and_then(|p| p.plan.term) {
            self.after(wait, Happening::End(serial, Exit::Code(0)));
        }
    }

    /// `Action::TakeCensus`: the queues first, then the connections.
    pub fn census(&mut self, workers: &[WorkerId], lanes: &[LaneId]) -> Event {
        let look = |lane: &LaneId| {
            let (handshakes, queued) = self.net.waiting(*lane);
            LaneLook {
                lane: *lane,
                handshakes,
                queued,
            }
        };
        let lanes = lanes.iter().map(look).collect();
        let loads = workers.iter().map(|w| (*w, self.load(*w))).collect();
        let took = self.rng.upto(self.faults.census_takes);
        Event::Census { lanes, loads, took }
    }

    /// What the worker's tree has accepted.
    pub fn load(&self, worker: WorkerId) -> Load {
        let sight = self.faults.sight;
        let mut load = Load {
            sight,
            ..Load::default()
        };
        if sight == Sight::None {
            return load;
        }
        for conn in self.net.conns.values() {
            let server = conn.server.and_then(|s| self.procs.get(&s));
            if server.is_some_and(|p| p.worker == worker) {
                load.open += 1;
                load.owed += u32::from(conn.owed());
            }
        }
        load
    }

    /// `Action::CloseRest`: where clients can be held back none of them asks again, and they are ended
    /// in the last moments.
    pub fn close_rest(&mut self, worker: WorkerId, left: Duration) -> Event {
        if !self.faults.holds {
            return self.close_quiet(worker, Duration::ZERO);
        }
        self.hold_back(worker);
        if left > Duration::from_millis(200) {
            return Event::Closed { worker, count: 0 };
        }
        self.close_quiet(worker, left)
    }

    /// No client who waits for an answer, or has had one, asks again.
    pub fn hold_back(&mut self, worker: WorkerId) {
        let (procs, holds) = (&self.procs, self.faults.holds);
        let theirs = |c: &Conn| {
            let server = c.server.and_then(|s| procs.get(&s));
            holds && c.at != At::Fresh && server.is_some_and(|p| p.worker == worker)
        };
        for conn in self.net.conns.values_mut().filter(|c| theirs(c)) {
            conn.held = true;
        }
    }

    /// `Action::CloseQuiet`: ends what has been silent for so long, and who has the last answer.
    pub fn close_quiet(&mut self, worker: WorkerId, silent: Duration) -> Event {
        let now = self.now;
        let quiet = |(_, c): &(&u64, &Conn)| {
            let server = c.server.and_then(|s| self.procs.get(&s));
            let theirs = server.is_some_and(|p| p.worker == worker);
            let done = now - c.silent >= silent || c.held && silent > Duration::ZERO;
            theirs && !c.owed() && done
        };
        let quiet: Vec<u64> = self
            .net
            .conns
            .iter()
            .filter(quiet)
            .map(|(n, _)| *n)
            .collect();
        for id in &quiet {
            self.close(*id);
        }
        let count = quiet.len() as u32;
        Event::Closed { worker, count }
    }
}
