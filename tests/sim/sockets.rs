//! bind(2) and listen(2) in the world: who asks us, what the answer does to the process, and what a
//! look from outside finds. A process that gets an error it did not expect ends, as most servers do.

use crate::kernel::{Process, Serial, Socket};
use crate::records::Lane;
use crate::world::{Happening, World};
use minicluster::core::Addr;
use minicluster::core::{
    Action, Ask, Event, Exit, LaneId, Of, PortId, Seen, Snag, Table, WorkerId,
};
use std::collections::BTreeSet;
use std::time::Duration;

/// What a server does about an error.
const SOON: Duration = Duration::from_micros(300);

impl World {
    /// A process calls bind(2).
    pub fn bind(&mut self, serial: Serial, addr: Addr, snag: Option<Snag>) {
        let worker = self.procs[&serial].worker;
        let Some(job) = self.judge.jobs.get(&worker) else {
            return;
        };
        if job.watched && job.forgotten {
            // Nobody holds the notify fd any more: ENOSYS.
            return self.fails(serial);
        }
        if job.watched {
            let ask = self.ask(serial);
            let odd = addr.port().is_some_and(|p| p % 2 == 1);
            self.news(Event::BindAsked {
                worker,
                ask,
                addr,
                // The same for the same address: it belongs to what a lane is.
                device: odd.then(|| "eth0".to_string()),
                snag,
            });
            return;
        }
        let held = |l: &crate::records::Lane| {
            l.open
                && match addr.port() {
                    Some(port) => l.addr.port() == Some(port),
                    None => l.addr == addr,
                }
        };
        if self.judge.lanes.values().any(held) {
            return self.fails(serial);
        }
        self.socket(serial, addr, None);
    }

    /// A process calls listen(2).
    pub fn listen(&mut self, serial: Serial, n: usize) {
        let Some(p) = self.procs.get_mut(&serial) else {
            return;
        };
        let worker = p.worker;
        let Some(socket) = p.sockets.get_mut(n).filter(|s| s.open) else {
            return;
        };
        let Some(lane) = socket.lane else {
            socket.listens = true;
            return;
        };
        if self.judge.lanes[&lane].connected {
            // What is connected cannot listen.
            return self.fails(serial);
        }
        if self.judge.jobs.get(&worker).is_some_and(|j| j.forgotten) {
            return self.fails(serial);
        }
        let ask = self.ask(serial);
        self.news(Event::ListenAsked { worker, ask, lane });
    }

    /// A process calls connect(2) on what it has bound.
    pub fn connect(&mut self, serial: Serial, n: usize) {
        let socket = self.procs.get(&serial).and_then(|p| p.sockets.get(n));
        let Some(id) = socket.filter(|s| s.open).and_then(|s| s.lane) else {
            return;
        };
        let lane = self.judge.lanes.get_mut(&id).expect("no such lane");
        // On a socket that listens it is an error.
        if lane.open && !lane.listens && !lane.connected {
            lane.connected = true;
            self.news(Event::LaneDied { lane: id });
        }
    }

    fn ask(&mut self, serial: Serial) -> Ask {
        self.next_ask += 1;
        let ask = Ask(self.next_ask);
        self.asks.insert(ask, serial);
        if let Some(p) = self.procs.get_mut(&serial) {
            p.asked = Some(ask);
        }
        ask
    }

    pub fn fails(&mut self, serial: Serial) {
        if let Some(p) = self.procs.get_mut(&serial) {
            // Whatever else it was told, or will be.
            (p.told, p.fails) = (None, true);
        }
        self.after(SOON, Happening::End(serial, Exit::Code(1)));
    }

    fn socket(&mut self, serial: Serial, addr: Addr, lane: Option<LaneId>) {
        if let Some(p) = self.procs.get_mut(&serial) {
            p.sockets.push(Socket {
                addr,
                lane,
                listens: false,
                open: true,
            });
        }
    }

    /// Unblocks whoever asked, if it still runs.
    fn unblock(&mut self, ask: Ask) -> Option<Serial> {
        let serial = self.asks.remove(&ask)?;
        let p = self.procs.get_mut(&serial)?;
        p.asked = None;
        p.lives().then_some(serial)
    }

    /// The answer to bind(2): a lane, nothing of ours, or an error.
    pub fn bind_done(&mut self, ask: Ask, answer: Result<Option<LaneId>, i32>) {
        let Some(serial) = self.unblock(ask) else {
            return;
        };
        match answer {
            Ok(lane) => {
                let addr = lane
                    .and_then(|id| self.judge.lanes.get(&id))
                    .map_or("0.0.0.0:9229".parse().unwrap(), |l| l.addr.clone());
                self.socket(serial, addr, lane);
                self.plan_step(serial);
            }
            // One in eight goes on without; it has no socket of that number then.
            Err(_) if self.rng.one_in(8) => {
                let nowhere = "0.0.0.0:0".parse().unwrap();
                self.socket(serial, nowhere, None);
                if let Some(s) = self
                    .procs
                    .get_mut(&serial)
                    .and_then(|p| p.sockets.last_mut())
                {
                    s.open = false;
                }
                self.plan_step(serial);
            }
            Err(_) => self.fails(serial),
        }
    }

    /// The kernel does what was asked.
    pub fn pass(&mut self, ask: Ask) {
        match self.judge.answered(ask) {
            Some(addr) => {
                let Some(serial) = self.unblock(ask) else {
                    return;
                };
                self.socket(serial, addr, None);
                self.plan_step(serial);
            }
            None => self.listening(ask),
        }
    }

    pub fn listening(&mut self, ask: Ask) {
        let Some(serial) = self.unblock(ask) else {
            return;
        };
        if let Some(p) = self.procs.get_mut(&serial)
            && let Some(s) = p.sockets.iter_mut().rev().find(|s| s.open)
        {
            s.listens = true;
        }
        self.wake_queues();
        self.plan_step(serial);
    }

    /// `Action::Listen`: the lane listens from now on, or cannot.
    pub fn make_listen(&mut self, ask: Ask, id: LaneId) -> Option<Event> {
        let asked = self.judge.answered(ask);
        assert!(
            asked.is_none(),
            "bind(2) answered by {:?}",
            Action::Listen { ask, lane: id }
        );
        let lane = self.judge.lanes.get_mut(&id).expect("no such lane");
        assert!(lane.open, "{id:?} is to listen but is closed");
        let cannot = lane.connected || self.rng.percent(self.faults.listen_fails);
        if !lane.listens && cannot {
            if let Some(serial) = self.unblock(ask) {
                self.fails(serial);
            }
            return Some(Event::LaneFailed {
                lane: id,
                errno: 98,
                holder: None,
            });
        }
        let asker = self.asks.get(&ask).and_then(|s| self.procs.get(s));
        // Nobody hears of one that has ended meanwhile.
        lane.listens = true;
        lane.served |= asker.is_some();
        lane.read_by.extend(asker.map(|p| p.worker));
        let worker = asker.map(|p| p.worker);
        self.listening(ask);
        worker.map(|worker| Event::Listens { worker, lane: id })
    }

    fn tree(&self, worker: WorkerId) -> impl Iterator<Item = &Process> {
        let ours = move |p: &&Process| p.worker == worker && p.lives();
        self.procs.values().filter(ours)
    }

    /// Does the worker still hold the lane it listened on?
    pub fn held(&self, worker: WorkerId) -> Seen {
        let lane = self.judge.jobs.get(&worker).and_then(|j| j.listened);
        let holds = |s: &Socket| s.open && s.listens && s.lane.is_some() && s.lane == lane;
        match self.tree(worker).any(|p| p.sockets.iter().any(holds)) {
            true => Seen::Holds,
            false => Seen::Nothing,
        }
    }

    /// On which of these does somebody wait? Whoever uses what was handed uses all of it.
    pub fn servers(&mut self, mut lanes: Vec<LaneId>) -> Event {
        let waits = |lane: &LaneId| {
            let on_it = |s: &Socket| s.open && s.listens && s.lane == Some(*lane);
            let lives = self.procs.values().filter(|p| p.lives());
            lives
                .into_iter()
                .any(|p| p.accepts || p.sockets.iter().any(on_it))
        };
        lanes.retain(waits);
        for lane in &lanes {
            if let Some(lane) = self.judge.lanes.get_mut(lane) {
                lane.served = true;
            }
        }
        Event::Served { lanes }
    }

    /// What does a starting worker do with the lanes it was handed?
    pub fn look(&self, worker: WorkerId) -> Seen {
        let served = |port: u16| {
            let lanes = &self.judge.lanes;
            lanes.values().any(|l| l.addr.port() == Some(port))
        };
        let own = |s: &Socket| {
            let own = s.open && s.listens && s.lane.is_none();
            s.addr.tcp().filter(|a| own && served(a.port()))
        };
        let mut accepts = false;
        for p in self.tree(worker) {
            if let Some(addr) = p.sockets.iter().find_map(own) {
                return Seen::OwnSocket(addr);
            }
            let lanes = &mut self.judge.lanes.keys();
            accepts |= p.accepts && lanes.any(|l| self.handed(worker, *l));
            accepts |= p.sockets.iter().any(|s| s.open && s.listens);
        }
        match accepts && !self.judge.lanes.is_empty() {
            true => Seen::Accepts,
            false => Seen::Nothing,
        }
    }

    /// A further lane of the port, like the first one: if there can be another.
    pub fn open_beside(&mut self, id: LaneId, port: PortId, of: Of, first: LaneId) -> Event {
        let first = self.judge.lanes[&first].clone();
        let shared = |l: &Lane| l.port == port && l.open && l.owner.is_none();
        let same = |l: &Lane| match of {
            Of::Generation(g) => shared(l) && l.is_shared_by(g),
            Of::Seat(_) | Of::Worker(_) | Of::All => shared(l) && l.of == of,
        };
        let twice = self.judge.lanes.values().any(same);
        assert!(!twice, "{of:?} has two lanes at {}", first.addr);
        assert!(first.port == port && first.open && !first.shared);
        // For whatever reason.
        let fails = !first.given && self.rng.percent(self.faults.learnt_fails);
        if fails || self.faults.alone && port.0 % 2 == 1 {
            let none = Lane {
                open: false,
                ..first
            };
            self.judge.lanes.insert(id, none);
            return Event::LaneAlone { lane: id };
        }
        let lane = Lane {
            of,
            heirs: BTreeSet::new(),
            listens: true,
            served: false,
            read_by: BTreeSet::new(),
            last_reader: None,
            after: None,
            owner: None,
            left: false,
            ..first
        };
        let addr = lane.addr.clone();
        self.judge.lanes.insert(id, lane);
        Event::LaneOpened { lane: id, addr }
    }

    pub fn open_lane(
        &mut self,
        id: LaneId,
        port: PortId,
        of: Of,
        addr: Addr,
        listens: bool,
    ) -> Event {
        // Those that listen at once are the given ones.
        let given = listens;
        let twice = self.judge.lanes.values().any(|l| l.open && l.addr == addr);
        self.net.tables.insert(port, Table::only(id));
        assert!(!twice, "{addr} opened twice");
        let errno = match given {
            true => self.faults.given_fails.filter(|_| id == LaneId(1)),
            false => self.rng.percent(self.faults.learnt_fails).then_some(98),
        };
        let lane = Lane {
            addr: addr.clone(),
            port,
            of,
            heirs: BTreeSet::new(),
            shared: false,
            owner: None,
            left: false,
            given,
            open: errno.is_none(),
            quit: false,
            listens,
            connected: false,
            served: false,
            read_by: BTreeSet::new(),
            last_reader: None,
            after: None,
        };
        self.judge.lanes.insert(id, lane);
        match errno {
            None => Event::LaneOpened { lane: id, addr },
            Some(errno) => Event::LaneFailed {
                lane: id,
                errno,
                holder: self.rng.one_in(2).then(|| "pid 4711 (nginx)".to_string()),
            },
        }
    }
}
