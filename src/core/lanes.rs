//! Which lane a worker's bind(2) gets. One lane per port for now.
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

use super::action::{Action, Opening};
use super::addr::{Addr, Given, share_clients};
use super::codes;
use super::event::Snag;
use super::ids::{Ask, LaneId, Time, WorkerId};
use super::notice::{Notice, PassWhy, Who};
use super::policy::{Policy, Takeover};
use super::{Cluster, Out};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

const EADDRINUSE: i32 = 98;
const EOPNOTSUPP: i32 = 95;
/// So many ports may be learnt (I9).
pub const MAX_LANES: usize = 64;

/// One listening socket of ours.
#[derive(Clone, Debug)]
pub struct Lane {
    /// Serial.
    pub id: LaneId,
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
}

impl Lane {
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
    list: Vec<Lane>,
    next: u64,
    /// Addresses that workers connect from: no lanes, ever again. The last few (I9).
    connect_from: VecDeque<SocketAddr>,
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
enum Verdict {
    Pass(PassWhy),
    Lend(LaneId),
    Learn(SocketAddr, Option<String>),
}

impl Lanes {
    fn add(&mut self, asked: Asked, given: bool, state: LaneState) -> LaneId {
        self.next += 1;
        let id = LaneId(self.next);
        // What is done with something that we only pass on cannot be seen.
        let served = matches!(asked.addr, Addr::Other(_));
        self.list.push(Lane {
            id,
            addr: asked.addr,
            device: asked.device,
            given,
            state,
            served,
        });
        id
    }

    fn get_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
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
        self.list.iter().find(|l| l.id == id).map(|l| &l.addr)
    }

    /// Addresses that are served: by our sockets, or where those have been closed, by the workers'.
    pub fn served_addrs(&self) -> Vec<Addr> {
        let bound = |l: &&Lane| match l.state {
            LaneState::Open | LaneState::Closed => l.given || l.served,
            LaneState::Opening(_) => false,
        };
        self.list
            .iter()
            .filter(bound)
            .map(|l| l.addr.clone())
            .collect()
    }

    /// The TCP ports that were given, as they were opened.
    fn given_ports(&self) -> Vec<u16> {
        let given = self.list.iter().filter(|l| l.given);
        let mut ports: Vec<u16> = given.filter_map(|l| l.addr.port()).collect();
        ports.dedup();
        ports
    }

    /// How many addresses are known to be connected from.
    pub fn connect_from(&self) -> usize {
        self.connect_from.len()
    }

    fn verdict(&self, policy: &Policy, asked: &Asked) -> Verdict {
        match &asked.addr {
            Addr::Tcp(addr) => self.tcp_verdict(policy, *addr, &asked.device),
            // Only what was given is ours: paths of all other unix sockets are the worker's own.
            Addr::Unix(_) | Addr::Other(_) if policy.takeover == Takeover::Off => {
                Verdict::Pass(PassWhy::NotListed)
            }
            addr @ (Addr::Unix(_) | Addr::Other(_)) => {
                let same = |l: &&Lane| l.given && l.addr == *addr && l.state != LaneState::Closed;
                match self.list.iter().find(same) {
                    Some(l) => Verdict::Lend(l.id),
                    None => Verdict::Pass(PassWhy::NotServed),
                }
            }
        }
    }

    fn tcp_verdict(
        &self,
        policy: &Policy,
        mut addr: SocketAddr,
        device: &Option<String>,
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
                LaneState::Open | LaneState::Opening(_) => Verdict::Lend(id),
                LaneState::Closed => Verdict::Pass(PassWhy::NotListed),
            };
        }
        let same = |l: &&Lane| {
            l.addr.tcp() == Some(addr) && l.device == *device && l.state == LaneState::Open
        };
        match self.list.iter().find(same) {
            Some(l) => Verdict::Lend(l.id),
            None if self.list.len() >= MAX_LANES => Verdict::Pass(PassWhy::Full),
            None => Verdict::Learn(addr, device.clone()),
        }
    }
}

impl Cluster {
    /// Opens the given ports; workers are spawned by the time the first turn ends.
    pub(super) fn open_given(&mut self, out: &mut Out) {
        for given in self.policy.given.clone() {
            let asked = Asked {
                addr: given.addr.clone(),
                device: None,
            };
            let lane = self.lanes.add(asked, true, LaneState::Opening(None));
            let what = Opening::Given(given);
            out.push(Action::OpenLane { lane, what });
        }
    }

    /// Are all given ports bound?
    pub(super) fn given_open(&self) -> bool {
        self.lanes
            .iter()
            .all(|l| !matches!(l.state, LaneState::Opening(None)))
    }

    pub(super) fn lane_opened(&mut self, id: LaneId, addr: Addr, out: &mut Out) {
        let Some(lane) = self.lanes.get_mut(id) else {
            return;
        };
        let was = std::mem::replace(&mut lane.state, LaneState::Open);
        lane.addr = addr.clone();
        match was {
            // Whether it is a port to serve shows when the worker listens.
            LaneState::Opening(Some((_, ask))) => out.push(Action::Lend { ask, lane: id }),
            LaneState::Opening(None) | LaneState::Open | LaneState::Closed => {
                let learnt_from = None;
                out.push(Action::Note(Notice::LaneOpen { addr, learnt_from }));
            }
        }
    }

    pub(super) fn lane_failed(
        &mut self,
        id: LaneId,
        errno: i32,
        holder: Option<String>,
        now: Time,
        out: &mut Out,
    ) {
        let Some(lane) = self.lanes.get_mut(id) else {
            return;
        };
        let (addr, given) = (lane.addr.clone(), lane.given);
        let mut who = None;
        match lane.state {
            LaneState::Opening(asked) => {
                self.lanes.list.retain(|l| l.id != id);
                if let Some((worker, ask)) = asked {
                    who = self.fleet.who(worker);
                    out.push(Action::Refuse { ask, errno });
                }
            }
            // It was open and could not be made to listen: the worker has had its error.
            LaneState::Open | LaneState::Closed => {}
        }
        let key = format!("lane {addr} {errno}");
        let notice = Notice::LaneBusy {
            addr,
            errno,
            holder,
            who,
        };
        self.once(key, notice, out);
        if given && !self.ever_execed {
            self.begin_give_up(codes::of_port(errno), now, out);
        }
    }

    /// Would a bind(2) to this address be answered by us? If not, nothing else need be known of it.
    pub fn concerns(&self, addr: Addr) -> bool {
        let device = None;
        let verdict = self.lanes.verdict(&self.policy, &Asked { addr, device });
        !matches!(verdict, Verdict::Pass(_))
    }

    /// A worker connects from it: whoever binds that address is no server. It is the worker's alone.
    pub(super) fn lane_died(&mut self, id: LaneId, now: Time, out: &mut Out) {
        let learnt = |l: &&Lane| l.id == id && !l.given;
        let Some(addr) = self.lanes.iter().find(learnt).and_then(|l| l.addr.tcp()) else {
            return;
        };
        self.lanes.list.retain(|l| l.id != id);
        self.lanes.connect_from.push_back(addr);
        if self.lanes.connect_from.len() > MAX_LANES {
            self.lanes.connect_from.pop_front();
        }
        let notice = Notice::LaneConnects { addr };
        self.once("connects".into(), notice, out);
        if self.lanes.list.is_empty() {
            self.expect_no_port(now);
        }
    }

    pub(super) fn bind_asked(
        &mut self,
        id: WorkerId,
        ask: Ask,
        asked: Asked,
        snag: Option<Snag>,
        out: &mut Out,
    ) {
        let addr = asked.addr.clone();
        // Its worker is unknown only if it was forgotten: let the kernel decide then.
        let Some(who) = self.fleet.who(id) else {
            return out.push(Action::Pass { ask });
        };
        let verdict = self.lanes.verdict(&self.policy, &asked);
        if !matches!(verdict, Verdict::Pass(_)) && snag.is_none() {
            self.takeover_works.get_or_insert(true);
        }
        match (verdict, snag) {
            (Verdict::Pass(why), _) => self.pass_bind(who, ask, addr, why, out),
            (Verdict::Lend(_) | Verdict::Learn(..), Some(snag)) => {
                out.push(Action::Refuse {
                    ask,
                    errno: EOPNOTSUPP,
                });
                let key = format!("snag {addr}");
                let notice = Notice::Snagged { who, addr, snag };
                self.once(key, notice, out);
            }
            (Verdict::Lend(lane), None) => {
                out.push(Action::Lend { ask, lane });
                self.say_what_is_lost(who, asked, lane, out);
            }
            (Verdict::Learn(..), None) if self.stop_is_hard().is_some() => {
                out.push(Action::Refuse {
                    ask,
                    errno: EADDRINUSE,
                })
            }
            (Verdict::Learn(addr, device), None) => {
                let asked = Asked {
                    addr: addr.into(),
                    device,
                };
                let state = LaneState::Opening(Some((id, ask)));
                let lane = self.lanes.add(asked, false, state);
                let what = Opening::Learnt { addr, like: ask };
                out.push(Action::OpenLane { lane, what });
            }
        }
    }

    /// Leaves it to the kernel, and says so where siblings will want the same port.
    fn pass_bind(&mut self, who: Who, ask: Ask, addr: Addr, why: PassWhy, out: &mut Out) {
        out.push(Action::Pass { ask });
        let Addr::Tcp(addr) = addr else { return };
        let worth_it = match why {
            // What it is has been said.
            PassWhy::Connects => false,
            // Not even one worker can have it.
            PassWhy::Privileged(_) => true,
            PassWhy::NotServed | PassWhy::NotListed | PassWhy::Full => self.wanted > 1,
        };
        if worth_it {
            let ours = self.lanes.given_ports();
            let picked = |g: &Given| g.addr.port().map(|p| p == 0);
            let picked = self.policy.given.iter().find_map(picked) == Some(true);
            let key = match why {
                PassWhy::NotServed | PassWhy::NotListed | PassWhy::Privileged(_) => {
                    format!("passed {}", addr.port())
                }
                PassWhy::Full | PassWhy::Connects => "passed, full".to_string(),
            };
            let notice = Notice::BindPassed {
                who,
                addr,
                ours,
                picked,
                why,
            };
            self.once(key, notice, out);
        }
    }

    /// A worker that we do not watch failed before it was ready. The most likely reason: it binds a
    /// port by itself, and we have that open, or a sibling has it.
    pub(super) fn say_handed_only(&mut self, who: Who, out: &mut Out) {
        let open = |l: &&Lane| l.given && l.state == LaneState::Open;
        let addr = self.lanes.iter().find(open).map(|l| l.addr.clone());
        if addr.is_some() || self.policy.given.is_empty() && self.wanted > 1 {
            let notice = Notice::HandedOnly { who, addr };
            self.once("handed only".into(), notice, out);
        }
    }

    /// The server listens beside us (its own SO_REUSEPORT): a queue of ours that nobody reads
    /// would make its share of the clients hang, so it is closed.
    pub(super) fn own_socket(&mut self, who: Who, addr: SocketAddr, out: &mut Out) {
        let beside: Vec<LaneId> = self
            .lanes
            .iter()
            .filter(|l| l.addr.tcp().is_some_and(|a| share_clients(a, addr)))
            .filter(|l| l.state == LaneState::Open)
            .map(|l| l.id)
            .collect();
        for lane in beside {
            let served = self
                .fleet
                .iter()
                .any(|w| w.listened == Some(lane) && w.unreaped());
            if served {
                continue;
            }
            if let Some(l) = self.lanes.get_mut(lane) {
                l.state = LaneState::Closed;
            }
            out.push(Action::CloseLane { lane });
            out.push(Action::Note(Notice::LaneQuits { addr, who }));
        }
    }

    /// The lane is not quite what the server asked for.
    fn say_what_is_lost(&mut self, who: Who, asked: Asked, lane: LaneId, out: &mut Out) {
        let Some(lane) = self.lanes.iter().find(|l| l.id == lane) else {
            return;
        };
        let (Addr::Tcp(addr), Addr::Tcp(asked), device) = (&lane.addr, asked.addr, asked.device)
        else {
            return;
        };
        let addr = *addr;
        if let Some(device) = device.filter(|d| lane.device.as_ref() != Some(d)) {
            let key = format!("device {device} for {asked}");
            let notice = Notice::DeviceWider {
                who,
                asked,
                device,
                lane: addr,
            };
            self.once(key, notice, out);
        }
        let (a, l) = (asked.ip(), addr.ip());
        let notice = match (a, l) {
            (IpAddr::V4(_), IpAddr::V6(_)) => Notice::FamilyNeeded {
                who,
                asked,
                lane: addr,
            },
            (IpAddr::V6(_), IpAddr::V4(_)) => Notice::V4Only {
                who,
                asked,
                lane: addr,
            },
            _ if l.is_unspecified() && !a.is_unspecified() => Notice::Narrower {
                who,
                asked,
                lane: addr,
            },
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => return,
        };
        self.once(format!("{} for {asked}", notice.event()), notice, out);
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
            l.add(on(g), true, LaneState::Open);
        }
        for g in learnt {
            l.add(on(g), false, LaneState::Open);
        }
        l
    }

    #[test]
    fn who_gets_which_lane() {
        let auto = policy();
        let one = lanes(&["0.0.0.0:3000"], &[]);
        for asked in ["0.0.0.0:3000", "127.0.0.1:3000", "[::]:3000", "[::1]:3000"] {
            assert_eq!(one.verdict(&auto, &on(asked)), Verdict::Lend(LaneId(1)));
        }
        let pass = Verdict::Pass(PassWhy::NotServed);
        assert_eq!(one.verdict(&auto, &on("0.0.0.0:9229")), pass);

        let both = lanes(&["127.0.0.1:80", "[::1]:80", "0.0.0.0:81", "[::]:81"], &[]);
        for (asked, id) in [
            ("127.0.0.1:80", 1),
            ("[::1]:80", 2),
            ("[::]:80", 2),
            ("0.0.0.0:81", 3),
            ("[::]:81", 4),
            ("10.0.0.1:81", 3),
        ] {
            assert_eq!(both.verdict(&auto, &on(asked)), Verdict::Lend(LaneId(id)));
        }

        let learnt = lanes(&[], &["0.0.0.0:3000"]);
        let same = learnt.verdict(&auto, &on("0.0.0.0:3000"));
        assert_eq!(same, Verdict::Lend(LaneId(1)));
        for other in ["[::]:3000", "127.0.0.1:3000", "0.0.0.0:3001"] {
            assert_eq!(learnt.verdict(&auto, &on(other)), learn(other));
        }
        // One interface alone is another lane, and the same for the next who asks so.
        let mut vpn = on("0.0.0.0:3000");
        vpn.device = Some("vpn0".into());
        assert_eq!(
            learnt.verdict(&auto, &vpn),
            Verdict::Learn("0.0.0.0:3000".parse().unwrap(), vpn.device.clone())
        );
        let mut both = learnt;
        both.add(vpn.clone(), false, LaneState::Open);
        assert_eq!(both.verdict(&auto, &vpn), Verdict::Lend(LaneId(2)));
        assert_eq!(
            both.verdict(&auto, &on("0.0.0.0:3000")),
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
            l.verdict(&list, &on("127.0.0.1:8080")),
            Verdict::Lend(LaneId(1))
        );
        assert_eq!(l.verdict(&list, &on("[::]:9000")), learn("[::]:9000"));
        let pass = Verdict::Pass(PassWhy::NotListed);
        assert_eq!(l.verdict(&list, &on("0.0.0.0:80")), pass);
    }

    #[test]
    fn a_privileged_port_is_not_learnt_unless_the_operator_has_named_it() {
        let mut p = policy();
        p.learn_from = 1024;
        let none = lanes(&[], &[]);
        let refused = Verdict::Pass(PassWhy::Privileged(1024));
        for low in ["0.0.0.0:80", "[::]:80", "127.0.0.1:1023"] {
            assert_eq!(none.verdict(&p, &on(low)), refused, "{low}");
        }
        let high = "0.0.0.0:1024";
        assert_eq!(none.verdict(&p, &on(high)), learn(high));
        let given = lanes(&["0.0.0.0:80"], &[]);
        let lent = Verdict::Lend(LaneId(1));
        assert_eq!(given.verdict(&p, &on("0.0.0.0:80")), lent);
        p.takeover = Takeover::Ports(vec![(8080, 80)]);
        let named = learn("0.0.0.0:80");
        assert_eq!(none.verdict(&p, &on("0.0.0.0:8080")), named);
    }
}
