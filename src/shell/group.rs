//! The lanes of one TCP port, as the kernel has them: in the order in which they began to listen, which
//! is how the steering program names them. (What the kernel does with that order is told in
//! `sys::steer`.)
//!
//! Rules:
//! 1. A new lane is kept shut (`steer::keep_out`) until the program is about to name it: a SYN that
//!    comes to it by mistake is dropped and comes again a second later. One that is steered away from
//!    gets a filter behind that, where we may set one. What was passed to us never: if we were killed,
//!    it would be left deaf.
//! 2. A lane leaves its group by shutdown(2) or by the close of its last descriptor; the last member
//!    moves into its place. So that a lane in service never moves, a spare, which nothing is steered
//!    to, is put at the end first. It is the next generation's.
//! 3. What was passed to us is never shut down, and stays where it is: it is others', too.
//! 4. Nobody gets in any more when all lanes have a filter; where one cannot have it, everything is
//!    steered to a spare, which is shut.

use crate::core::LaneId;
use crate::sys::socket::{self, Reach};
use crate::sys::steer::{self, Gate, Raw};
use crate::wire::steering;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One socket of a group. `fd` is a second descriptor of the lane's.
struct Member {
    fd: OwnedFd,
    /// `None`: a spare, or one that nobody serves any more but that is not ours to close.
    lane: Option<LaneId>,
    passed: bool,
    /// What keeps new clients out of it, if they are.
    gate: Option<Gate>,
}

impl Member {
    fn is_spare(&self) -> bool {
        self.lane.is_none() && !self.passed
    }

    /// Keeps new clients out, where that can be done without harm to those that are on their way in.
    fn shut(&mut self) {
        if self.gate.is_none() && !self.passed && steer::filter(self.fd.as_fd(), &refusal()).is_ok()
        {
            self.gate = Some(Gate::Filter);
        }
    }
}

/// What drops those that want to come in.
fn refusal() -> Vec<Raw> {
    steering::raw(&steering::refuse_new())
}

/// All lanes of a port.
pub struct Group {
    addr: SocketAddr,
    reach: Reach,
    backlog: i32,
    members: Vec<Member>,
    /// Where new connections go.
    table: Vec<(LaneId, u16)>,
    /// Does nobody get in any more?
    refusing: bool,
}

impl Group {
    /// Of a port whose first lane is this.
    pub fn new(addr: SocketAddr, reach: Reach, backlog: i32, first: LaneId) -> Group {
        Group {
            addr,
            reach,
            backlog,
            members: Vec::new(),
            table: vec![(first, 1)],
            refusing: false,
        }
    }

    /// Does none of its lanes listen yet?
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A lane has begun to listen, if it is not known to do so already.
    pub fn joined(&mut self, lane: LaneId, fd: BorrowedFd<'_>, passed: bool) -> io::Result<()> {
        if self.index(lane).is_none() {
            let fd = fd.try_clone_to_owned()?;
            let lane = Some(lane);
            self.members.push(Member {
                fd,
                lane,
                passed,
                gate: None,
            });
            // Beside others that have a program, it gets nothing until it is in the table.
            self.apply()?;
        }
        Ok(())
    }

    /// A lane beside the others, which listens and gets nothing yet.
    pub fn open(&mut self, lane: LaneId) -> io::Result<OwnedFd> {
        let fd = match self.members.iter_mut().find(|m| m.is_spare()) {
            Some(spare) => {
                let fd = spare.fd.try_clone()?;
                spare.lane = Some(lane);
                fd
            }
            None => self.add(Some(lane))?,
        };
        Ok(fd)
    }

    /// One more at the end.
    fn add(&mut self, lane: Option<LaneId>) -> io::Result<OwnedFd> {
        match self.members.as_slice() {
            [] => {}
            // The first has its program before there is a second: or the kernel would deal them out.
            [only] => match steer::attach(
                only.fd.as_fd(),
                &steering::raw(&steering::program(&[(0, 1)])),
            ) {
                Ok(()) => {}
                // It listened before it shared its port: only a second one makes it a group.
                Err(_) => socket::share_port(only.fd.as_fd())?,
            },
            _ => {}
        }
        let (fd, gate) = socket::open_beside(&self.addr, &self.reach, &refusal(), self.backlog)?;
        let kept = fd.try_clone()?;
        self.members.push(Member {
            fd,
            lane,
            passed: false,
            gate: Some(gate),
        });
        self.apply()?;
        Ok(kept)
    }

    fn index(&self, lane: LaneId) -> Option<usize> {
        self.members.iter().position(|m| m.lane == Some(lane))
    }

    /// From now on new connections go there.
    pub fn steer(&mut self, table: &[(LaneId, u16)]) -> io::Result<()> {
        self.table = table.to_vec();
        if self.refusing {
            return Ok(());
        }
        let steered = |m: &Member| m.lane.is_some_and(|l| table.iter().any(|(t, _)| *t == l));
        // Before the program names it, or it would drop what it is to have.
        for m in self.members.iter_mut().filter(|m| steered(m)) {
            if let Some(gate) = m.gate.take() {
                steer::let_in(m.fd.as_fd(), gate)?;
            }
        }
        self.apply()?;
        for m in self.members.iter_mut().filter(|m| !steered(m)) {
            m.shut();
        }
        Ok(())
    }

    /// Gives the group the program that its table asks for.
    fn apply(&mut self) -> io::Result<()> {
        if self.members.len() < 2 {
            return Ok(());
        }
        let entry = |(lane, weight): &(LaneId, u16)| {
            let index = u32::try_from(self.index(*lane)?).ok()?;
            Some((index, u32::from(*weight)))
        };
        let mut table: Vec<(u32, u32)> = self.table.iter().filter_map(entry).collect();
        if self.refusing
            && let Some(at) = self.members.iter().position(Member::is_spare)
        {
            table = vec![(u32::try_from(at).unwrap_or(0), 1)];
        }
        if table.is_empty() {
            return Ok(());
        }
        let program = steering::raw(&steering::program(&table));
        steer::attach(self.members[0].fd.as_fd(), &program)
    }

    /// From now on nobody gets in, by whatever lane; who is in stays.
    pub fn refuse(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.refusing, true) {
            return Ok(());
        }
        let mut all_shut = true;
        for m in &mut self.members {
            m.shut();
            all_shut &= m.gate.is_some();
        }
        let spare = self.members.iter().any(Member::is_spare);
        if !all_shut && !spare && !self.members.is_empty() {
            self.add(None)?;
        }
        self.apply()
    }

    /// Takes a lane out whose workers have gone; how many waited in its queue? They are reset.
    pub fn retire(&mut self, lane: LaneId) -> io::Result<u32> {
        let Some(at) = self.index(lane) else {
            return Ok(0);
        };
        self.table.retain(|(l, _)| *l != lane);
        if self.members[at].passed {
            self.members[at].lane = None;
            return Ok(0);
        }
        let last = self.members.len() - 1;
        let in_service = |m: &Member| m.lane.is_some_and(|l| self.table.iter().any(|t| t.0 == l));
        if at != last && self.members.len() > 2 && in_service(&self.members[last]) {
            self.add(None)?;
        }
        let queued = steer::queued(self.members[at].fd.as_fd()).unwrap_or(0);
        socket::stop_listening(self.members[at].fd.as_fd());
        self.members.swap_remove(at);
        self.apply()?;
        Ok(queued)
    }

    /// A worker has shut a lane down: it listens again, at the end.
    pub fn heal(&mut self, lane: LaneId) -> io::Result<()> {
        let Some(at) = self.index(lane) else {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        if socket::is_listening(self.members[at].fd.as_fd()) {
            return Ok(());
        }
        let member = self.members.swap_remove(at);
        self.apply()?;
        let done = socket::listen(member.fd.as_fd(), self.backlog);
        if done.is_ok() {
            self.members.push(member);
            self.apply()?;
        }
        done
    }

    /// How many connections wait in the queue of a lane.
    pub fn queued(&self, lane: LaneId) -> u32 {
        let fd = self.index(lane).map(|at| self.members[at].fd.as_fd());
        fd.and_then(|fd| steer::queued(fd).ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    struct Port {
        group: Group,
        lanes: Vec<(LaneId, TcpListener)>,
    }

    impl Port {
        fn new() -> Port {
            let any = "127.0.0.1:0".parse().unwrap();
            let reach = Reach::default();
            let fd = socket::open_lane(&any, &reach).unwrap();
            socket::listen_first(fd.as_fd(), 64).unwrap();
            let addr = socket::local_addr(fd.as_fd()).unwrap();
            let mut group = Group::new(addr, reach, 64, LaneId(1));
            group.joined(LaneId(1), fd.as_fd(), false).unwrap();
            let lanes = vec![(LaneId(1), listener(fd))];
            Port { group, lanes }
        }

        fn open(&mut self, n: u64) {
            let fd = self.group.open(LaneId(n)).unwrap();
            self.lanes.push((LaneId(n), listener(fd)));
        }

        fn retire(&mut self, n: u64) -> u32 {
            self.lanes.retain(|(l, _)| *l != LaneId(n));
            self.group.retire(LaneId(n)).unwrap()
        }

        /// So many clients come; how many does each lane get?
        fn clients(&self, n: usize) -> Vec<(u64, usize)> {
            for _ in 0..n {
                TcpStream::connect(self.group.addr).unwrap();
            }
            let mut got = Vec::new();
            for (lane, listener) in &self.lanes {
                let mut count = 0;
                while listener.accept().is_ok() {
                    count += 1;
                }
                if count > 0 {
                    got.push((lane.0, count));
                }
            }
            got
        }
    }

    fn listener(fd: OwnedFd) -> TcpListener {
        let listener = TcpListener::from(fd);
        listener.set_nonblocking(true).unwrap();
        listener
    }

    #[test]
    fn a_lane_in_service_keeps_its_clients_whichever_other_goes() {
        let mut port = Port::new();
        assert_eq!(port.clients(5), [(1, 5)]);
        port.open(2);
        assert_eq!(port.clients(20), [(1, 20)]);
        port.group.steer(&[(LaneId(2), 1)]).unwrap();
        assert_eq!(port.clients(20), [(2, 20)]);
        port.open(3);
        port.group.steer(&[(LaneId(3), 1)]).unwrap();
        // 3 is the last, and would move into the place of 1: so there is a spare behind it.
        port.retire(1);
        assert_eq!(port.group.members.len(), 3);
        assert_eq!(port.clients(20), [(3, 20)]);
        // The spare is the next one's.
        port.open(4);
        assert_eq!(port.group.members.len(), 3);
        port.group.steer(&[(LaneId(4), 1)]).unwrap();
        assert_eq!(port.clients(20), [(4, 20)]);
        port.retire(2);
        port.retire(3);
        assert_eq!(port.clients(20), [(4, 20)]);
    }

    #[test]
    fn two_lanes_share_by_weight_and_a_third_gets_nothing() {
        let mut port = Port::new();
        port.open(2);
        port.open(3);
        port.group.steer(&[(LaneId(1), 3), (LaneId(2), 1)]).unwrap();
        let got = port.clients(60);
        assert!(got.len() == 2 && got.iter().all(|(_, n)| *n > 0), "{got:?}");
    }

    #[test]
    fn a_lane_that_a_worker_has_shut_down_serves_again_and_so_do_the_others() {
        let mut port = Port::new();
        port.open(2);
        port.open(3);
        for (shut, steered) in [(1, 1), (1, 2), (2, 2), (3, 2), (2, 3)] {
            port.group.steer(&[(LaneId(steered), 1)]).unwrap();
            let victim = port.lanes.iter().find(|(l, _)| *l == LaneId(shut));
            socket::stop_listening(victim.unwrap().1.as_fd());
            port.group.heal(LaneId(shut)).unwrap();
            assert_eq!(port.clients(20), [(steered, 20)], "{shut} {steered}");
        }
    }

    #[test]
    fn what_waits_in_a_lane_that_goes_is_counted() {
        let mut port = Port::new();
        let _client = TcpStream::connect(port.group.addr).unwrap();
        port.open(2);
        port.group.steer(&[(LaneId(2), 1)]).unwrap();
        assert_eq!(port.group.queued(LaneId(1)), 1);
        assert_eq!(port.retire(1), 1);
        assert_eq!(port.group.queued(LaneId(1)), 0);
        assert_eq!(port.clients(3), [(2, 3)]);
    }

    #[test]
    fn what_was_passed_to_us_is_never_shut_and_has_no_filter() {
        let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = theirs.local_addr().unwrap();
        let mut group = Group::new(addr, Reach::of(theirs.as_fd()), 64, LaneId(1));
        group.joined(LaneId(1), theirs.as_fd(), true).unwrap();
        let new = listener(group.open(LaneId(2)).unwrap());
        group.steer(&[(LaneId(2), 1)]).unwrap();
        TcpStream::connect(addr).unwrap();
        assert!(new.accept().is_ok());
        assert_eq!(group.retire(LaneId(1)).unwrap(), 0);
        // Nobody gets in while we leave; then it is theirs again.
        group.refuse().unwrap();
        let shut = socket::connects_within(&addr, std::time::Duration::from_millis(50));
        assert!(!shut);
        drop((new, group));
        TcpStream::connect(addr).unwrap();
        assert!(theirs.accept().is_ok());
    }

    #[test]
    fn who_may_set_no_filter_refuses_by_a_spare_that_is_shut() {
        let mut port = Port::new();
        port.open(2);
        // As if the filters had been refused.
        port.group.refusing = true;
        port.group.add(None).unwrap();
        let soon = std::time::Duration::from_millis(50);
        assert!(!socket::connects_within(&port.group.addr, soon));
        assert!(port.clients(0).is_empty());
    }
}
