//! What becomes of a worker's bind(2), and of lanes while they are opened: the answers that `lanes` has
//! decided, what is said of them, and what follows when one cannot be had.

use super::action::{Action, Opening};
use super::addr::{Addr, Given, share_clients};
use super::codes;
use super::errno::{EADDRINUSE, EAGAIN, ECANCELED};
use super::event::Snag;
use super::ids::{Ask, LaneId, PortId, Seat, SlotNr, Time, WorkerId};
use super::lane::{Asked, Lane, LaneState, Of, Reader};
use super::lanes::MAX_LANES;
use super::notice::{Notice, PassWhy, Who};
use super::verdict::Verdict;
use super::worker::Worker;
use super::{Cluster, Out};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

impl Cluster {
    /// Opens the given ports; workers are spawned by the time the first turn ends.
    pub(super) fn open_given(&mut self, out: &mut Out) {
        // (The first worker's, where each has its own.)
        let generation = self.generation;
        let seat = self.seat_in(SlotNr(0));
        let reader = Reader { generation, seat };
        if let Some(slot) = self.slots.first_mut() {
            slot.seat = Some(seat);
        }
        for given in self.policy.given.clone() {
            let asked = Asked {
                addr: given.addr.clone(),
                device: None,
            };
            let state = LaneState::Opening(None);
            let lane = self.lanes.add(asked, true, reader, state);
            self.open_lane(lane, Opening::Given(given), out);
        }
        self.open_learnt_before(reader, out);
    }

    pub(super) fn open_lane(&self, lane: LaneId, what: Opening, out: &mut Out) {
        let Some(l) = self.lanes.get(lane) else {
            return;
        };
        out.push(Action::OpenLane {
            lane,
            port: l.port,
            of: l.of,
            what,
        });
    }

    /// Opens a lane for this generation at each given port: its workers may be handed them. (At a
    /// learnt one when one of them asks for it.)
    pub(super) fn open_beside(&mut self, generation: u32, out: &mut Out) {
        let of_one = |l: &&Lane| matches!(l.of, Of::Generation(_));
        let open = |l: &&Lane| l.given && of_one(l) && l.state == LaneState::Open;
        let all: BTreeMap<PortId, LaneId> = self
            .lanes
            .iter()
            .filter(open)
            .map(|l| (l.port, l.id))
            .collect();
        for (port, first) in all {
            if self.lanes.is_shared_at(port, generation) {
                continue;
            }
            let (of, state) = (Of::Generation(generation), LaneState::Opening(None));
            if let Some(lane) = self.lanes.add_beside(first, of, state) {
                self.open_lane(lane, Opening::Beside { first }, out);
            }
        }
    }

    /// The port can have no lane beside the one it has: that is for all from now on. If it has several
    /// the kernel is short of something, and whoever asks is to come again: none of them is served by
    /// all.
    pub(super) fn lane_alone(&mut self, id: LaneId, out: &mut Out) {
        let Some(lane) = self.lanes.get(id).cloned() else {
            return;
        };
        self.lanes.remove(id);
        let addr = lane.addr;
        let open = |l: &&mut Lane| l.port == lane.port && l.state == LaneState::Open;
        let mut mates: Vec<&mut Lane> = self.lanes.iter_mut().filter(open).collect();
        let (shared, several) = match mates.as_mut_slice() {
            [only] if only.owner().is_none() => (Some(only.id), false),
            [] => (None, false),
            [_, ..] => (None, true),
        };
        if let Some(only) = shared {
            self.lanes.give(only, Of::All);
            out.push(Action::ShareLane { lane: only });
        }
        let asked = match lane.state {
            LaneState::Opening(asked) => asked,
            LaneState::Open | LaneState::Closed => None,
        };
        let who = asked.and_then(|(worker, _)| self.fleet.who(worker));
        if let Some((_, ask)) = asked {
            out.push(match shared {
                Some(lane) => Action::Lend { ask, lane },
                None if several => Action::Refuse { ask, errno: EAGAIN },
                None => Action::Pass { ask },
            });
        }
        let (key, notice) = match several {
            false => (format!("alone {addr}"), Notice::LaneAlone { addr }),
            true => {
                let (errno, holder) = (EAGAIN, None);
                let busy = Notice::LaneBusy {
                    addr: addr.clone(),
                    errno,
                    holder,
                    who,
                };
                (format!("lane {addr} {errno}"), busy)
            }
        };
        self.once(key, notice, out);
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
        let own = lane.owner().is_some();
        let first = self.lanes.is_alone(id);
        match was {
            // Whether it is a port to serve shows when the worker listens.
            LaneState::Opening(Some((worker, ask))) if own => self.adopted(id, worker, ask, out),
            LaneState::Opening(Some((_, ask))) => out.push(Action::Lend { ask, lane: id }),
            LaneState::Opening(None) | LaneState::Open | LaneState::Closed if !first => {}
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
                self.lanes.remove(id);
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
        let asked = Asked { addr, device };
        // Whose it would be does not matter.
        let (generation, seat) = (self.generation, Seat(0));
        let reader = Reader { generation, seat };
        let verdict = self.lanes.verdict(&self.policy, &asked, reader);
        !matches!(verdict, Verdict::Pass(_))
    }

    /// A worker connects from it: whoever binds that address is no server. It is the worker's alone.
    pub(super) fn lane_died(&mut self, id: LaneId, now: Time, out: &mut Out) {
        let learnt = |l: &&Lane| l.id == id && !l.given;
        // One at a port that others serve: only its worker's own socket is no server's.
        let shares = |l: &Lane| l.given || l.owner().is_some() && !self.lanes.is_alone(id);
        if self.lanes.get(id).is_some_and(shares) {
            return self.own_connects(id);
        }
        let Some(addr) = self.lanes.iter().find(learnt).and_then(|l| l.addr.tcp()) else {
            return;
        };
        self.lanes.remove(id);
        self.lanes.connect_from.push_back(addr);
        if self.lanes.connect_from.len() > MAX_LANES {
            self.lanes.connect_from.pop_front();
        }
        let notice = Notice::LaneConnects { addr };
        self.once("connects".into(), notice, out);
        if self.lanes.iter().next().is_none() {
            self.expect_no_port(now);
        }
    }

    /// Whoever asks may have it: it is said that it listens when it does.
    pub(super) fn listen_asked(&self, id: WorkerId, ask: Ask, lane: LaneId, out: &mut Out) {
        out.push(match self.lanes.addr(lane) {
            Some(_) if self.comes_too_late(id) => Action::Refuse {
                ask,
                errno: ECANCELED,
            },
            Some(_) => Action::Listen { ask, lane },
            None => Action::Pass { ask },
        });
    }

    /// Is it to go, and has never served? Then it does not begin to: it would take clients that it
    /// cannot keep, as it may have been asked to stop already. (ECANCELED: what it says of that is true.)
    /// Unless it has not been asked, and nothing new would come to it: then who waits in its lane waits
    /// for it.
    fn comes_too_late(&self, id: WorkerId) -> bool {
        let late = |w: &Worker| {
            let empties = w.stage().is_some() && self.is_apart(w);
            w.is_leaving() && w.listened.is_none() && !empties
        };
        self.fleet.get(id).is_some_and(late)
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
        let Some((who, reader)) = self.fleet.get(id).map(|w| (w.who(), w.reader())) else {
            return out.push(Action::Pass { ask });
        };
        let verdict = self.lanes.verdict(&self.policy, &asked, reader);
        if !matches!(verdict, Verdict::Pass(_)) && snag.is_none() {
            self.takeover_works.get_or_insert(true);
        }
        match (verdict, snag) {
            (Verdict::Pass(why), _) => self.pass_bind(who, ask, addr, why, out),
            (Verdict::Lend(_) | Verdict::Learn(..) | Verdict::Beside(_), _)
                if self.comes_too_late(id) || snag.is_some() && self.is_orphan(id) =>
            {
                out.push(Action::Refuse {
                    ask,
                    errno: ECANCELED,
                });
            }
            (Verdict::Lend(lane) | Verdict::Beside(lane), Some(snag)) => {
                self.adopt_beside(id, ask, asked, snag, lane, out)
            }
            (Verdict::Learn(addr, device), Some(snag)) => {
                let addr = addr.into();
                self.adopt_first(id, ask, Asked { addr, device }, snag, out)
            }
            (Verdict::Lend(lane), None) => {
                out.push(Action::Lend { ask, lane });
                self.say_what_is_lost(who, asked, lane, out);
            }
            (Verdict::Learn(..) | Verdict::Beside(_), None) if self.stop_is_hard().is_some() => out
                .push(Action::Refuse {
                    ask,
                    errno: EADDRINUSE,
                }),
            (Verdict::Learn(addr, device), None) => {
                let asked = Asked {
                    addr: addr.into(),
                    device,
                };
                let state = LaneState::Opening(Some((id, ask)));
                let lane = self.lanes.add(asked, false, reader, state);
                self.open_lane(lane, Opening::Learnt { addr, like: ask }, out);
            }
            (Verdict::Beside(first), None) => {
                let of = self.lanes.of_new(&addr, reader);
                let state = LaneState::Opening(Some((id, ask)));
                match self.lanes.add_beside(first, of, state) {
                    Some(lane) => self.open_lane(lane, Opening::Beside { first }, out),
                    None => out.push(Action::Pass { ask }),
                }
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
            // (Its worker's own is read by that.)
            .filter(|l| l.state == LaneState::Open && l.owner().is_none())
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
    pub(super) fn say_what_is_lost(&mut self, who: Who, asked: Asked, lane: LaneId, out: &mut Out) {
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
