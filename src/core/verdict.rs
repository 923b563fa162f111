//! Which lane a worker's bind(2) gets. A socket of a worker that cannot be swapped for one is told of in `own`.
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
use super::ids::LaneId;
use super::lane::{Asked, Lane, LaneState, Reader};
use super::lanes::{Lanes, MAX_LANES};
use super::notice::PassWhy;
use super::policy::{Policy, Takeover};
use std::net::SocketAddr;

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
    use crate::core::ids::Seat;
    use crate::core::policy::tests::policy;

    const FIRST: Reader = Reader {
        generation: 1,
        seat: Seat(1),
    };

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
