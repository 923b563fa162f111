//! Which lane a worker's bind(2) gets. Each generation has a lane of its own at each port, where the
//! port can have more than one; which of them get new connections is said in `steering`. A socket of a
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
use super::event::Snag;
use super::ids::{Ask, LaneId, PortId, WorkerId};
use super::notice::PassWhy;
use super::own::Owned;
use super::policy::{Policy, Takeover};
use super::table::Table;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

/// So many ports may be learnt (I9).
pub const MAX_LANES: usize = 64;

/// One listening socket of ours.
#[derive(Clone, Debug)]
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
    /// Nothing is steered to it, and nothing was left in it when it was looked at after that.
    pub emptied: bool,
    /// Was nothing steered to it since it was opened or last flushed?
    pub flushed: bool,
    /// Why it had to be the worker's own socket, if it is.
    pub snag: Option<Snag>,
}

/// Whose workers serve a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Those of one generation.
    Generation(u32),
    /// This one alone: it is its own socket.
    Worker(WorkerId),
    /// All: the port can have no other lane.
    All,
}

impl Lane {
    /// Do workers of this generation get connections by it?
    pub fn is_for(&self, generation: u32) -> bool {
        match self.of {
            Of::Generation(g) => g == generation || self.heirs.contains(&generation),
            Of::Worker(_) => false,
            Of::All => true,
        }
    }

    /// Is it one to listen on?
    pub fn is_a_port(&self) -> bool {
        !matches!(self.addr, Addr::Other(_))
    }
}

/// What a lane is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// Asked of the shell, for this worker's bind(2) if it is learnt.
    Opening(Option<(WorkerId, Ask)>),
    /// Bound.
    Open,
    /// Closed for good: the workers listen there by themselves.
    Closed,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Lanes {
    pub(super) list: Vec<Lane>,
    next: u64,
    next_port: u64,
    /// Where new connections of each port go, as it was last said.
    pub(super) steered: BTreeMap<PortId, Table>,
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
    /// A lane for its generation, beside that one.
    Beside(LaneId),
}

impl Lanes {
    /// The first lane of a new port.
    pub(super) fn add(
        &mut self,
        asked: Asked,
        given: bool,
        generation: u32,
        state: LaneState,
    ) -> LaneId {
        self.next += 1;
        self.next_port += 1;
        let (id, port) = (LaneId(self.next), PortId(self.next_port));
        // What is done with something that we only pass on cannot be seen, nor can it be had twice.
        let other = matches!(asked.addr, Addr::Other(_));
        self.list.push(Lane {
            id,
            port,
            of: match other {
                true => Of::All,
                false => Of::Generation(generation),
            },
            heirs: BTreeSet::new(),
            addr: asked.addr,
            device: asked.device,
            given,
            state,
            served: other,
            emptied: false,
            flushed: false,
            snag: None,
        });
        self.steered.insert(port, Table::only(id));
        id
    }

    /// Another lane of the port that this one is a way to.
    pub(super) fn add_beside(&mut self, first: LaneId, of: Of, state: LaneState) -> Option<LaneId> {
        let lane = self.list.iter().find(|l| l.id == first)?.clone();
        self.next += 1;
        let id = LaneId(self.next);
        self.list.push(Lane {
            id,
            of,
            heirs: BTreeSet::new(),
            state,
            served: false,
            emptied: false,
            flushed: true,
            snag: None,
            ..lane
        });
        Some(id)
    }

    /// Forgets it.
    pub(super) fn remove(&mut self, id: LaneId) {
        self.list.retain(|l| l.id != id);
        let ports: BTreeSet<PortId> = self.list.iter().map(|l| l.port).collect();
        self.steered.retain(|port, _| ports.contains(port));
        self.owned.retain(|port, _| ports.contains(&port));
    }

    /// The lane by which that generation serves the port, or is about to.
    pub(super) fn of_generation(&self, port: PortId, generation: u32) -> Option<&Lane> {
        let mut all = self.list.iter().filter(|l| l.port == port);
        // Never that of another one, though it be the older that comes late: what it does to the
        // lane when it stops (shutdown(2)) would end the others.
        // (Heirs have no other.)
        all.find(|l| l.is_for(generation))
    }

    pub(super) fn get_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        self.list.iter_mut().find(|l| l.id == id)
    }

    /// Somebody takes its connections. True: for the first time.
    pub fn mark_served(&mut self, id: LaneId) -> bool {
        let lane = self.get_mut(id);
        lane.is_some_and(|lane| !std::mem::replace(&mut lane.served, true))
    }

    /// Was it learnt?
    pub fn is_learnt(&self, id: LaneId) -> bool {
        self.list.iter().any(|l| l.id == id && !l.given)
    }

    /// All, in the order of their opening.
    pub fn iter(&self) -> impl Iterator<Item = &Lane> {
        self.list.iter()
    }

    /// Where it is bound, if it is.
    pub fn addr(&self, id: LaneId) -> Option<&Addr> {
        self.get(id).map(|l| &l.addr)
    }

    /// It.
    pub fn get(&self, id: LaneId) -> Option<&Lane> {
        self.list.iter().find(|l| l.id == id)
    }

    /// How many ports there are.
    pub fn ports(&self) -> usize {
        // Kept in step by `remove`.
        self.steered.len()
    }

    /// Is it the only lane of its port?
    pub(super) fn is_alone(&self, id: LaneId) -> bool {
        let port = self.get(id).map(|l| l.port);
        self.list.iter().filter(|l| Some(l.port) == port).count() == 1
    }

    /// Addresses that are served: by our sockets, or where those have been closed, by the workers'.
    pub fn served_addrs(&self) -> Vec<Addr> {
        let bound = |l: &&Lane| match l.state {
            LaneState::Open | LaneState::Closed => l.given || l.served,
            LaneState::Opening(_) => false,
        };
        let mut seen = BTreeSet::new();
        self.list
            .iter()
            .filter(bound)
            .filter(|l| seen.insert(l.port))
            .map(|l| l.addr.clone())
            .collect()
    }

    /// The TCP ports that were given, as they were opened.
    pub(super) fn given_ports(&self) -> Vec<u16> {
        let given = self.list.iter().filter(|l| l.given);
        let mut ports: Vec<u16> = given.filter_map(|l| l.addr.port()).collect();
        ports.dedup();
        ports
    }

    /// How many addresses are known to be connected from.
    pub fn connect_from(&self) -> usize {
        self.connect_from.len()
    }

    pub(super) fn verdict(&self, policy: &Policy, asked: &Asked, generation: u32) -> Verdict {
        match &asked.addr {
            Addr::Tcp(addr) => self.tcp_verdict(policy, *addr, &asked.device, generation),
            // Only what was given is ours: paths of all other unix sockets are the worker's own.
            Addr::Unix(_) | Addr::Other(_) if policy.takeover == Takeover::Off => {
                Verdict::Pass(PassWhy::NotListed)
            }
            addr @ (Addr::Unix(_) | Addr::Other(_)) => {
                let same = |l: &&Lane| l.given && l.addr == *addr && l.state != LaneState::Closed;
                match self.list.iter().find(same) {
                    Some(l) => self.lend(l, generation),
                    None => Verdict::Pass(PassWhy::NotServed),
                }
            }
        }
    }

    /// The lane of that generation at the port that this one is a way to.
    fn lend(&self, some: &Lane, generation: u32) -> Verdict {
        match self.of_generation(some.port, generation) {
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
        generation: u32,
    ) -> Verdict {
        let given = || {
            let tcp = |l: &'_ Lane| Some((l.addr.tcp()?, l.id, l.state));
            self.list.iter().filter(|l| l.given).filter_map(tcp)
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
                    Some(l) => self.lend(l, generation),
                    None => Verdict::Lend(id),
                },
                LaneState::Closed => Verdict::Pass(PassWhy::NotListed),
            };
        }
        let same = |l: &&Lane| {
            l.addr.tcp() == Some(addr) && l.device == *device && l.state == LaneState::Open
        };
        match self.list.iter().find(same) {
            Some(l) => self.lend(l, generation),
            None if self.ports() >= MAX_LANES => Verdict::Pass(PassWhy::Full),
            None => Verdict::Learn(addr, device.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
            l.add(on(g), true, 1, LaneState::Open);
        }
        for g in learnt {
            l.add(on(g), false, 1, LaneState::Open);
        }
        l
    }

    #[test]
    fn who_gets_which_lane() {
        let auto = policy();
        let one = lanes(&["0.0.0.0:3000"], &[]);
        for asked in ["0.0.0.0:3000", "127.0.0.1:3000", "[::]:3000", "[::1]:3000"] {
            assert_eq!(one.verdict(&auto, &on(asked), 1), Verdict::Lend(LaneId(1)));
        }
        let pass = Verdict::Pass(PassWhy::NotServed);
        assert_eq!(one.verdict(&auto, &on("0.0.0.0:9229"), 1), pass);

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
                both.verdict(&auto, &on(asked), 1),
                Verdict::Lend(LaneId(id))
            );
        }

        let learnt = lanes(&[], &["0.0.0.0:3000"]);
        let same = learnt.verdict(&auto, &on("0.0.0.0:3000"), 1);
        assert_eq!(same, Verdict::Lend(LaneId(1)));
        for other in ["[::]:3000", "127.0.0.1:3000", "0.0.0.0:3001"] {
            assert_eq!(learnt.verdict(&auto, &on(other), 1), learn(other));
        }
        // One interface alone is another lane, and the same for the next who asks so.
        let mut vpn = on("0.0.0.0:3000");
        vpn.device = Some("vpn0".into());
        assert_eq!(
            learnt.verdict(&auto, &vpn, 1),
            Verdict::Learn("0.0.0.0:3000".parse().unwrap(), vpn.device.clone())
        );
        let mut both = learnt;
        both.add(vpn.clone(), false, 1, LaneState::Open);
        assert_eq!(both.verdict(&auto, &vpn, 1), Verdict::Lend(LaneId(2)));
        assert_eq!(
            both.verdict(&auto, &on("0.0.0.0:3000"), 1),
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
            l.verdict(&list, &on("127.0.0.1:8080"), 1),
            Verdict::Lend(LaneId(1))
        );
        assert_eq!(l.verdict(&list, &on("[::]:9000"), 1), learn("[::]:9000"));
        let pass = Verdict::Pass(PassWhy::NotListed);
        assert_eq!(l.verdict(&list, &on("0.0.0.0:80"), 1), pass);
    }

    #[test]
    fn a_privileged_port_is_not_learnt_unless_the_operator_has_named_it() {
        let mut p = policy();
        p.learn_from = 1024;
        let none = lanes(&[], &[]);
        let refused = Verdict::Pass(PassWhy::Privileged(1024));
        for low in ["0.0.0.0:80", "[::]:80", "127.0.0.1:1023"] {
            assert_eq!(none.verdict(&p, &on(low), 1), refused, "{low}");
        }
        let high = "0.0.0.0:1024";
        assert_eq!(none.verdict(&p, &on(high), 1), learn(high));
        let given = lanes(&["0.0.0.0:80"], &[]);
        let lent = Verdict::Lend(LaneId(1));
        assert_eq!(given.verdict(&p, &on("0.0.0.0:80"), 1), lent);
        p.takeover = Takeover::Ports(vec![(8080, 80)]);
        let named = learn("0.0.0.0:80");
        assert_eq!(none.verdict(&p, &on("0.0.0.0:8080"), 1), named);
    }
}
