//! Which lane a worker's bind(2) gets. Each generation has a lane of its own at each port, or each
//! worker has one (`balance`), where the port can have more than one; which of them get new connections
//! is said in `steering`. A socket of a
//! worker that cannot be swapped for one is told of in `own`.
//!
//! Rules:
//! 1. A given lane (-p) serves whoever asks for its port, whatever the address: `-p` is the
//!    operator's word on where to listen. What the server loses by it is said, once.
//! 2. A learnt lane is the asked family, address and interface exactly, and serves exactly those who
//!    ask for it. One that a worker connects from was no server's port: it is forgotten at once, or
//!    its connection would be shared.
//! 3. A port that the workers' user may not open is not learnt: nobody becomes privileged by us. One
//!    that the operator has named (-p, a list of --takeover) is.
//! 4. What is not ours passes at once: the worker is blocked in a syscall.

use super::addr::Addr;
use super::balance::Dealt;
use super::event::Snag;
use super::ids::{Ask, LaneId, PortId, Seat, WorkerId};
use super::notice::PassWhy;
use super::own::Owned;
use super::policy::{Policy, Takeover};
use super::table::Table;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

/// So many ports may be learnt (I9).
pub const MAX_LANES: usize = 64;

/// One listening socket of ours.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lane {
    /// Serial.
    pub id: LaneId,
    /// The address that it is a way to.
    pub port: PortId,
    /// Whose it is.
    pub of: Of,
    /// Generations that it is for, too: there was nobody ready of its own when they were to come, so
    /// who waits in it waits for them.
    pub heirs: BTreeSet<u32>,
    /// Where it is bound.
    pub addr: Addr,
    /// To which interface alone, if to one.
    pub device: Option<String>,
    /// Was it given: by -p, by -l, or by whoever started us?
    pub given: bool,
    /// Is it open? If not: who waits in bind(2) for it.
    pub state: LaneState,
    /// Has a worker listened on it, or was one seen waiting for connections there?
    pub served: bool,
    /// Was it learnt, and has not been listened on by the worker that has its seat now? It may be from
    /// the one before, or from what is left of that.
    pub stale: bool,
    /// Nothing is steered to it, and nothing was left in it when it was looked at after that.
    pub emptied: bool,
    /// Was nothing steered to it since it was opened or last flushed?
    pub flushed: bool,
    /// Why it had to be the worker's own socket, if it is.
    pub snag: Option<Snag>,
}

/// Whose workers serve a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Of {
    /// Those of one generation.
    Generation(u32),
    /// The one that has this seat.
    Seat(Seat),
    /// This one alone: it is its own socket.
    Worker(WorkerId),
    /// All: the port can have no other lane.
    All,
}

/// By which lanes a worker gets its connections: where they are shared by its generation, else by its
/// seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Of which code it is.
    pub generation: u32,
    /// Which lanes of one worker alone it has.
    pub seat: Seat,
}

impl Lane {
    /// Does such a worker get connections by it, without a socket of its own?
    pub fn is_for(&self, reader: Reader) -> bool {
        match self.of {
            Of::Generation(_) | Of::All => self.is_shared_by(reader.generation),
            Of::Seat(seat) => seat == reader.seat,
            Of::Worker(_) => false,
        }
    }

    /// Do all workers of this generation get connections by it?
    pub fn is_shared_by(&self, generation: u32) -> bool {
        match self.of {
            Of::Generation(g) => g == generation || self.heirs.contains(&generation),
            Of::Worker(_) | Of::Seat(_) => false,
            Of::All => true,
        }
    }

    /// Is it one to listen on?
    pub fn is_a_port(&self) -> bool {
        !matches!(self.addr, Addr::Other(_))
    }
}

/// What a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaneState {
    /// Asked of the shell, for this worker's bind(2) if it is learnt.
    Opening(Option<(WorkerId, Ask)>),
    /// Bound.
    Open,
    /// Closed for good: the workers listen there by themselves.
    Closed,
}

/// All of them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Lanes {
    list: BTreeMap<LaneId, Lane>,
    /// The same, by whose they are.
    #[serde(skip)]
    by: BTreeMap<Of, BTreeSet<LaneId>>,
    /// Has each worker lanes of its own at ports of TCP?
    pub(super) spread: bool,
    next: u64,
    next_port: u64,
    /// Ports that somebody was seen to serve, by whatever lane.
    pub(super) served: BTreeSet<PortId>,
    /// Where new connections of each port go, as it was last said.
    pub(super) steered: BTreeMap<PortId, Table>,
    /// By which lanes of which slots a table of buckets was worked out, and for how many slots.
    pub(super) dealt: BTreeMap<PortId, Dealt>,
    /// Where workers have, or had, sockets of their own.
    pub(super) owned: Owned,
    /// Addresses that workers connect from: no lanes, ever again. The last few (I9).
    pub(super) connect_from: VecDeque<SocketAddr>,
}

/// What a bind(2) asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where. Of a unix socket: the path of our lane, if it leads to the same file.
    pub addr: Addr,
    /// On which interface alone, if on one.
    pub device: Option<String>,
}

/// What to do about one bind(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass(PassWhy),
    Lend(LaneId),
    Learn(SocketAddr, Option<String>),
    /// A lane for it, or for its generation, beside that one.
    Beside(LaneId),
}

impl Lanes {
    /// None yet.
    pub(super) fn new(spread: bool) -> Lanes {
        Lanes {
            spread,
            ..Lanes::default()
        }
    }

    /// The first lane of a new port.
    pub(super) fn add(
        &mut self,
        asked: Asked,
        given: bool,
        reader: Reader,
        state: LaneState,
    ) -> LaneId {
        self.next += 1;
        self.next_port += 1;
        let (id, port) = (LaneId(self.next), PortId(self.next_port));
        // What is done with something that we only pass on cannot be seen, nor can it be had twice.
        let other = matches!(asked.addr, Addr::Other(_));
        self.put(Lane {
            id,
            port,
            of: self.of_new(&asked.addr, reader),
            heirs: BTreeSet::new(),
            addr: asked.addr,
            device: asked.device,
            given,
            state,
            served: other,
            stale: !given,
            emptied: false,
            flushed: false,
            snag: None,
        });
        self.steered.insert(port, Table::only(id));
        id
    }

    /// Whose a lane is that such a worker needs there.
    pub(super) fn of_new(&self, addr: &Addr, reader: Reader) -> Of {
        match addr {
            Addr::Tcp(_) if self.spread => Of::Seat(reader.seat),
            Addr::Tcp(_) | Addr::Unix(_) => Of::Generation(reader.generation),
            Addr::Other(_) => Of::All,
        }
    }

    fn put(&mut self, lane: Lane) {
        self.by.entry(lane.of).or_default().insert(lane.id);
        self.list.insert(lane.id, lane);
    }

    /// By whose they are, from the list.
    pub(super) fn index_anew(&mut self) {
        self.by = BTreeMap::new();
        for lane in self.list.values() {
            self.by.entry(lane.of).or_default().insert(lane.id);
        }
    }

    fn take(&mut self, id: LaneId) -> Option<Lane> {
        let lane = self.list.remove(&id)?;
        if let Some(mates) = self.by.get_mut(&lane.of) {
            mates.remove(&id);
            if mates.is_empty() {
                self.by.remove(&lane.of);
            }
        }
        Some(lane)
    }

    /// From now on it is theirs.
    pub(super) fn give(&mut self, id: LaneId, of: Of) {
        if let Some(lane) = self.take(id) {
            self.put(Lane { of, ..lane });
        }
    }

    /// Somebody else has that seat: which of its learnt lanes that one listens on is to be seen.
    pub(super) fn pass_on(&mut self, seat: Seat) {
        for id in self.by.get(&Of::Seat(seat)).into_iter().flatten() {
            if let Some(lane) = self.list.get_mut(id) {
                lane.stale |= !lane.given;
            }
        }
    }

    /// Those of this seat, of this worker, or of whoever else.
    pub(super) fn of(&self, of: Of) -> impl Iterator<Item = &Lane> {
        let ids = self.by.get(&of).into_iter().flatten();
        ids.filter_map(|id| self.list.get(id))
    }

    /// Have all workers of this generation a lane at that port?
    pub(super) fn is_shared_at(&self, port: PortId, generation: u32) -> bool {
        let mut here = self.shared().filter(|l| l.port == port);
        here.any(|l| l.is_shared_by(generation))
    }

    /// Those that several workers share.
    pub(super) fn shared(&self) -> impl Iterator<Item = &Lane> {
        let generations = self.by.range(..Of::Seat(Seat(0))).map(|(_, ids)| ids);
        let ids = generations.chain(self.by.get(&Of::All)).flatten();
        ids.filter_map(|id| self.list.get(id))
    }

    /// Another lane of the port that this one is a way to.
    pub(super) fn add_beside(&mut self, first: LaneId, of: Of, state: LaneState) -> Option<LaneId> {
        let lane = self.list.get(&first)?.clone();
        self.next += 1;
        let id = LaneId(self.next);
        self.put(Lane {
            id,
            of,
            heirs: BTreeSet::new(),
            state,
            served: false,
            stale: !lane.given,
            emptied: false,
            flushed: true,
            snag: None,
            ..lane
        });
        Some(id)
    }

    /// Forgets it.
    pub(super) fn remove(&mut self, id: LaneId) {
        let Some(Lane { port, .. }) = self.take(id) else {
            return;
        };
        if !self.iter().any(|l| l.port == port) {
            self.steered.remove(&port);
            self.dealt.remove(&port);
            self.served.remove(&port);
            self.owned.retain(|p, _| p != port);
        }
    }

    /// The lane by which such a worker serves the port, or is about to.
    pub(super) fn at(&self, port: PortId, reader: Reader) -> Option<&Lane> {
        // Never that of another one, though it be the older that comes late: what it does to the
        // lane when it stops (shutdown(2)) would end the others.
        // (Heirs have no other.)
        let fits = |l: &&Lane| l.port == port && l.is_for(reader);
        if let Some(its) = self.of(Of::Seat(reader.seat)).find(fits) {
            return Some(its);
        }
        // What stands in for sockets of workers' own is for nobody who can have another one.
        let stands_in = |l: &Lane| self.spread && l.addr.tcp().is_some() && l.of != Of::All;
        self.shared().filter(fits).find(|l| !stands_in(l))
    }

    pub(super) fn get_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.list.get_mut(&id)
    }

    /// All, in the order of their opening.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Lane> {
        self.list.values_mut()
    }

    /// Somebody takes its connections. True: for the first time.
    pub fn mark_served(&mut self, id: LaneId) -> bool {
        let Some(lane) = self.get_mut(id) else {
            return false;
        };
        let (first, port) = (!std::mem::replace(&mut lane.served, true), lane.port);
        self.served.insert(port);
        first
    }

    /// Was it learnt?
    pub fn is_learnt(&self, id: LaneId) -> bool {
        self.get(id).is_some_and(|l| !l.given)
    }

    /// All, in the order of their opening.
    pub fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.list.values()
    }

    /// Where it is bound, if it is.
    pub fn addr(&self, id: LaneId) -> Option<&Addr> {
        self.get(id).map(|l| &l.addr)
    }

    /// It.
    pub fn get(&self, id: LaneId) -> Option<&Lane> {
        self.list.get(&id)
    }

    /// How many ports there are.
    pub fn ports(&self) -> usize {
        // Kept in step by `remove`.
        self.steered.len()
    }

    /// Is it the only lane of its port?
    pub(super) fn is_alone(&self, id: LaneId) -> bool {
        let port = self.get(id).map(|l| l.port);
        self.iter()
            .filter(|l| Some(l.port) == port)
            .nth(1)
            .is_none()
    }

    /// Addresses that are served: by our sockets, or where those have been closed, by the workers'.
    pub fn served_addrs(&self) -> Vec<Addr> {
        let bound = |l: &&Lane| match l.state {
            LaneState::Open | LaneState::Closed => l.given || l.served,
            LaneState::Opening(_) => false,
        };
        let mut seen = BTreeSet::new();
        self.iter()
            .filter(bound)
            .filter(|l| seen.insert(l.port))
            .map(|l| l.addr.clone())
            .collect()
    }

    /// The TCP ports that were given, as they were opened.
    pub(super) fn given_ports(&self) -> Vec<u16> {
        let given = self.iter().filter(|l| l.given);
        let mut ports: Vec<u16> = given.filter_map(|l| l.addr.port()).collect();
        ports.dedup();
        ports
    }

    /// How many addresses are known to be connected from.
    pub fn connect_from(&self) -> usize {
        self.connect_from.len()
    }

    pub(super) fn verdict(&self, policy: &Policy, asked: &Asked, reader: Reader) -> Verdict {
        match &asked.addr {
            Addr::Tcp(addr) => self.tcp_verdict(policy, *addr, &asked.device, reader),
            // Only what was given is ours: paths of all other unix sockets are the worker's own.
            Addr::Unix(_) | Addr::Other(_) if policy.takeover == Takeover::Off => {
                Verdict::Pass(PassWhy::NotListed)
            }
            addr @ (Addr::Unix(_) | Addr::Other(_)) => {
                let same = |l: &&Lane| l.given && l.addr == *addr && l.state != LaneState::Closed;
                match self.iter().find(same) {
                    Some(l) => self.lend(l, reader),
                    None => Verdict::Pass(PassWhy::NotServed),
                }
            }
        }
    }

    /// The lane of such a worker at the port that this one is a way to.
    fn lend(&self, some: &Lane, reader: Reader) -> Verdict {
        match self.at(some.port, reader) {
            // Those of its generation listen by themselves.
            Some(l) if l.state == LaneState::Closed => Verdict::Pass(PassWhy::NotListed),
            Some(l) => Verdict::Lend(l.id),
            None => Verdict::Beside(some.id),
        }
    }

    fn tcp_verdict(
        &self,
        policy: &Policy,
        mut addr: SocketAddr,
        device: &Option<String>,
        reader: Reader,
    ) -> Verdict {
        let given = || {
            let tcp = |l: &'_ Lane| Some((l.addr.tcp()?, l.id, l.state));
            self.iter().filter(|l| l.given).filter_map(tcp)
        };
        match &policy.takeover {
            // Not watched at all, so nobody asks; a stray ask is harmless.
            Takeover::Off => return Verdict::Pass(PassWhy::NotListed),
            Takeover::Ports(map) => match map.iter().find(|(theirs, _)| *theirs == addr.port()) {
                Some((_, ours)) => addr.set_port(*ours),
                None => return Verdict::Pass(PassWhy::NotListed),
            },
            Takeover::Auto | Takeover::Require => {
                if given().count() > 0 && !given().any(|(a, ..)| a.port() == addr.port()) {
                    return Verdict::Pass(PassWhy::NotServed);
                }
                if given().count() == 0 && addr.port() < policy.learn_from {
                    return Verdict::Pass(PassWhy::Privileged(policy.learn_from));
                }
            }
        }
        if self.connect_from.contains(&addr) {
            return Verdict::Pass(PassWhy::Connects);
        }
        let fits = |a: SocketAddr| {
            let family = a.is_ipv4() == addr.is_ipv4();
            (a == addr, family, a.ip().is_unspecified())
        };
        let same_port = given().filter(|(a, ..)| a.port() == addr.port());
        if let Some((_, id, state)) = same_port.max_by_key(|(a, ..)| fits(*a)) {
            return match state {
                LaneState::Open | LaneState::Opening(_) => match self.get(id) {
                    Some(l) => self.lend(l, reader),
                    None => Verdict::Lend(id),
                },
                LaneState::Closed => Verdict::Pass(PassWhy::NotListed),
            };
        }
        let same = |l: &&Lane| {
            l.addr.tcp() == Some(addr) && l.device == *device && l.state == LaneState::Open
        };
        match self.iter().find(same) {
            Some(l) => self.lend(l, reader),
            None if self.ports() >= MAX_LANES => Verdict::Pass(PassWhy::Full),
            None => Verdict::Learn(addr, device.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Reader = Reader {
        generation: 1,
        seat: Seat(1),
    };
    use crate::core::policy::tests::policy;

    fn a(s: &str) -> Addr {
        s.parse().unwrap()
    }

    fn on(s: &str) -> Asked {
        let (addr, device) = (a(s), None);
        Asked { addr, device }
    }

    fn learn(s: &str) -> Verdict {
        Verdict::Learn(s.parse().unwrap(), None)
    }

    fn lanes(given: &[&str], learnt: &[&str]) -> Lanes {
        let mut l = Lanes::default();
        for g in given {
            l.add(on(g), true, FIRST, LaneState::Open);
        }
        for g in learnt {
            l.add(on(g), false, FIRST, LaneState::Open);
        }
        l
    }

    #[test]
    fn who_gets_which_lane() {
        let auto = policy();
        let one = lanes(&["0.0.0.0:3000"], &[]);
        for asked in ["0.0.0.0:3000", "127.0.0.1:3000", "[::]:3000", "[::1]:3000"] {
            assert_eq!(
                one.verdict(&auto, &on(asked), FIRST),
                Verdict::Lend(LaneId(1))
            );
        }
        let pass = Verdict::Pass(PassWhy::NotServed);
        assert_eq!(one.verdict(&auto, &on("0.0.0.0:9229"), FIRST), pass);

        let both = lanes(&["127.0.0.1:80", "[::1]:80", "0.0.0.0:81", "[::]:81"], &[]);
        for (asked, id) in [
            ("127.0.0.1:80", 1),
            ("[::1]:80", 2),
            ("[::]:80", 2),
            ("0.0.0.0:81", 3),
            ("[::]:81", 4),
            ("10.0.0.1:81", 3),
        ] {
            assert_eq!(
                both.verdict(&auto, &on(asked), FIRST),
                Verdict::Lend(LaneId(id))
            );
        }

        let learnt = lanes(&[], &["0.0.0.0:3000"]);
        let same = learnt.verdict(&auto, &on("0.0.0.0:3000"), FIRST);
        assert_eq!(same, Verdict::Lend(LaneId(1)));
        for other in ["[::]:3000", "127.0.0.1:3000", "0.0.0.0:3001"] {
            assert_eq!(learnt.verdict(&auto, &on(other), FIRST), learn(other));
        }
        // One interface alone is another lane, and the same for the next who asks so.
        let mut vpn = on("0.0.0.0:3000");
        vpn.device = Some("vpn0".into());
        assert_eq!(
            learnt.verdict(&auto, &vpn, FIRST),
            Verdict::Learn("0.0.0.0:3000".parse().unwrap(), vpn.device.clone())
        );
        let mut both = learnt;
        both.add(vpn.clone(), false, FIRST, LaneState::Open);
        assert_eq!(both.verdict(&auto, &vpn, FIRST), Verdict::Lend(LaneId(2)));
        assert_eq!(
            both.verdict(&auto, &on("0.0.0.0:3000"), FIRST),
            Verdict::Lend(LaneId(1))
        );
    }

    #[test]
    fn a_list_of_ports_takes_over_those_and_no_others() {
        let list = Policy {
            takeover: Takeover::Ports(vec![(8080, 80), (9000, 9000)]),
            ..policy()
        };
        let l = lanes(&["0.0.0.0:80"], &[]);
        assert_eq!(
            l.verdict(&list, &on("127.0.0.1:8080"), FIRST),
            Verdict::Lend(LaneId(1))
        );
        assert_eq!(
            l.verdict(&list, &on("[::]:9000"), FIRST),
            learn("[::]:9000")
        );
        let pass = Verdict::Pass(PassWhy::NotListed);
        assert_eq!(l.verdict(&list, &on("0.0.0.0:80"), FIRST), pass);
    }

    #[test]
    fn a_privileged_port_is_not_learnt_unless_the_operator_has_named_it() {
        let mut p = policy();
        p.learn_from = 1024;
        let none = lanes(&[], &[]);
        let refused = Verdict::Pass(PassWhy::Privileged(1024));
        for low in ["0.0.0.0:80", "[::]:80", "127.0.0.1:1023"] {
            assert_eq!(none.verdict(&p, &on(low), FIRST), refused, "{low}");
        }
        let high = "0.0.0.0:1024";
        assert_eq!(none.verdict(&p, &on(high), FIRST), learn(high));
        let given = lanes(&["0.0.0.0:80"], &[]);
        let lent = Verdict::Lend(LaneId(1));
        assert_eq!(given.verdict(&p, &on("0.0.0.0:80"), FIRST), lent);
        p.takeover = Takeover::Ports(vec![(8080, 80)]);
        let named = learn("0.0.0.0:80");
        assert_eq!(none.verdict(&p, &on("0.0.0.0:8080"), FIRST), named);
    }
}
