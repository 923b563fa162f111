//! The lanes of one TCP port, as the kernel has them: in the order in which they began to listen, which
//! is how the steering program names them. (What the kernel does with that order is told in
//! `sys::steer`.)
//!
//! Rules:
//! 1. A new lane is kept shut (`steer::keep_out`) until the program is about to name it: a SYN that
//!    comes to it by mistake is dropped and comes again a second later. One that is steered away from
//!    gets a filter behind that, where we may set one. What was passed to us never: if we were killed,
//!    it would be left deaf. Nor does a worker's socket that has a filter of its own: it can have but one.
//! 2. A lane leaves its group by shutdown(2) or by the close of its last descriptor; the last member
//!    moves into its place. If that is in service, nothing is steered to it meanwhile: others take its
//!    share. If there are no others, a spare, which nothing is steered to, is put at the end first.
//! 3. Spares go as soon as that moves nobody who is in service alone: when they are the last, when others
//!    take the share of the last, or when all but the last are spares (`steer::alone`). Where there are
//!    lanes that stay although nothing is steered to them, that never comes, and there is one spare at
//!    most: clients that come in the microseconds of a move beyond that come again a second later.
//! 4. What was passed to us is never shut down, and stays where it is: it is others', too.
//! 5. Nobody gets in any more when all lanes have a filter; where one cannot have it, everything is
//!    steered to a spare, which is shut. So it is while a port has nobody to serve it.

use crate::core::{Deal, LaneId, Table};
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
    /// Was it a worker's?
    own: bool,
    /// Nothing of ours may keep new clients out of it.
    bare: bool,
    /// What keeps new clients out of it, if they are.
    gate: Option<Gate>,
}

impl Member {
    fn is_spare(&self) -> bool {
        self.lane.is_none() && !self.passed
    }

    /// Keeps new clients out, where that can be done without harm to those that are on their way in.
    fn shut(&mut self) {
        if self.gate.is_none() && !self.bare && steer::filter(self.fd.as_fd(), &refusal()).is_ok() {
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
    table: Table,
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
            table: Table::only(first),
            refusing: false,
        }
    }

    /// Of a port that nobody serves yet: nobody gets in.
    pub fn unserved(addr: SocketAddr, reach: Reach, backlog: i32) -> Group {
        Group {
            table: Table::default(),
            ..Group::new(addr, reach, backlog, LaneId(0))
        }
    }

    /// Whom its lanes serve.
    pub fn reach(&self) -> &Reach {
        &self.reach
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
                own: false,
                bare: passed,
                gate: None,
            });
            // Beside others that have a program, it gets nothing until it is in the table.
            self.apply()?;
        }
        Ok(())
    }

    /// A socket that was made elsewhere and is bound begins to listen, among the others; its own filter
    /// stays, if it has one.
    pub fn take_in(&mut self, lane: LaneId, fd: BorrowedFd<'_>, filtered: bool) -> io::Result<()> {
        if self.index(lane).is_some() {
            return Ok(());
        }
        let kept = fd.try_clone_to_owned()?;
        self.form()?;
        // Not every kind of TCP can be shut (MPTCP).
        let gate = match filtered {
            true => None,
            false => steer::keep_out(fd, &refusal()).ok(),
        };
        let done = match self.members.is_empty() {
            true => socket::listen_first(fd, self.backlog),
            false => socket::listen(fd, self.backlog),
        };
        if let (Err(_), Some(gate)) = (&done, gate) {
            let _ = steer::let_in(fd, gate);
        }
        done?;
        self.members.push(Member {
            fd: kept,
            lane: Some(lane),
            passed: false,
            own: true,
            bare: gate.is_none(),
            gate,
        });
        self.apply()
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
        self.form()?;
        let (fd, gate) = socket::open_beside(&self.addr, &self.reach, &refusal(), self.backlog)?;
        let kept = fd.try_clone()?;
        self.members.push(Member {
            fd,
            lane,
            passed: false,
            own: false,
            bare: false,
            gate: Some(gate),
        });
        self.apply()?;
        Ok(kept)
    }

    /// Where there is one alone, it is made one that others can stand beside.
    fn form(&self) -> io::Result<()> {
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
        Ok(())
    }

    fn index(&self, lane: LaneId) -> Option<usize> {
        self.members.iter().position(|m| m.lane == Some(lane))
    }

    /// From now on new connections go there.
    pub fn steer(&mut self, table: &Table) -> io::Result<()> {
        self.table = table.clone();
        if self.refusing {
            return Ok(());
        }
        let steered = |m: &Member| m.lane.is_some_and(|l| table.names(l));
        // Before the program names it, or it would drop what it is to have.
        for m in self.members.iter_mut().filter(|m| steered(m)) {
            if let Some(gate) = m.gate.take() {
                steer::let_in(m.fd.as_fd(), gate)?;
            }
        }
        if table.is_empty() {
            self.shut_all()?;
        }
        self.apply()?;
        for m in self.members.iter_mut().filter(|m| !steered(m)) {
            m.shut();
        }
        self.tidy()
    }

    /// Gives the group the program that its table asks for.
    fn apply(&mut self) -> io::Result<()> {
        if self.members.len() < 2 {
            return Ok(());
        }
        let mut table = self.indices();
        let shut = |m: &Member| m.gate.is_some() && (m.is_spare() || !self.refusing);
        if (self.refusing || self.table.is_empty())
            && let Some(at) = self.members.iter().position(shut)
        {
            table = vec![(u32::try_from(at).unwrap_or(0), 1)];
        }
        if table.is_empty() {
            return Ok(());
        }
        self.attach(&table)
    }

    /// The table, by the places that its lanes have in the group.
    fn indices(&self) -> Vec<(u32, u32)> {
        let entry = |(lane, weight): &(LaneId, u16)| {
            let index = u32::try_from(self.index(*lane)?).ok()?;
            Some((index, u32::from(*weight)))
        };
        match &self.table.deal {
            Deal::Shares(all) => all.iter().filter_map(entry).collect(),
            Deal::Buckets(..) | Deal::Cpus(_) => Vec::new(),
        }
    }

    fn attach(&self, table: &[(u32, u32)]) -> io::Result<()> {
        let program = steering::raw(&steering::program(table));
        steer::attach(self.members[0].fd.as_fd(), &program)
    }

    /// From now on nobody gets in, by whatever lane; who is in stays.
    pub fn refuse(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.refusing, true) {
            return Ok(());
        }
        self.shut_all()?;
        self.apply()
    }

    /// All lanes are shut, or there is a spare, which is, for those who come.
    fn shut_all(&mut self) -> io::Result<()> {
        let mut all_shut = true;
        for m in &mut self.members {
            m.shut();
            all_shut &= m.gate.is_some();
        }
        let spare = self.members.iter().any(Member::is_spare);
        if !all_shut && !spare && !self.members.is_empty() {
            self.add(None)?;
        }
        Ok(())
    }

    /// Takes a lane out whose workers have gone; how many waited in its queue? They are reset.
    pub fn retire(&mut self, lane: LaneId) -> io::Result<u32> {
        let Some(at) = self.index(lane) else {
            return Ok(0);
        };
        self.table.keep(|l| l != lane);
        if self.members[at].passed {
            self.members[at].lane = None;
            return Ok(0);
        }
        self.before_a_hole(at)?;
        let queued = steer::queued(self.members[at].fd.as_fd()).unwrap_or(0);
        self.take_out(at)?;
        self.tidy()?;
        Ok(queued)
    }

    /// Its place is the last one's from then on.
    fn take_out(&mut self, at: usize) -> io::Result<()> {
        let fd = self.members[at].fd.as_fd();
        // Where it cannot be hidden a client may find it for as long as it takes to close it.
        let _ = steer::hide(fd);
        socket::stop_listening(fd);
        self.members.swap_remove(at);
        self.apply()
    }

    /// Sees to it that nothing is steered to the last member, which will move there.
    fn before_a_hole(&mut self, at: usize) -> io::Result<()> {
        let last = self.members.len() - 1;
        let mut table = self.indices();
        let is_last = |(i, _): &(u32, u32)| usize::try_from(*i) == Ok(last);
        if at == last || self.members.len() <= 2 || self.refusing || !table.iter().any(is_last) {
            return Ok(());
        }
        table.retain(|e| !is_last(e));
        if table.is_empty() {
            let stays = |m: &Member| m.passed || m.own;
            let spare = self.members.iter().any(Member::is_spare);
            if !spare || !self.members.iter().any(stays) {
                return self.add(None).map(drop);
            }
            let shut = |(i, m): &(usize, &Member)| ![at, last].contains(i) && m.gate.is_some();
            let shut = self.members.iter().enumerate().find(shut);
            table.extend(shut.and_then(|(i, _)| Some((u32::try_from(i).ok()?, 1))));
        }
        match table.is_empty() {
            true => Ok(()),
            false => self.attach(&table),
        }
    }

    /// Closes spares, where that moves nobody who is in service alone.
    fn tidy(&mut self) -> io::Result<()> {
        while let Some(at) = self.members.iter().position(Member::is_spare) {
            let table = self.indices();
            if self.refusing || table.is_empty() {
                break;
            }
            let last = self.members.len() - 1;
            let is_last = |(i, _): &(u32, u32)| usize::try_from(*i) == Ok(last);
            let at = if self.members[last].is_spare() {
                last
            } else {
                at
            };
            if at != last && table.iter().all(is_last) {
                let others = &self.members[..last];
                if !others.iter().all(Member::is_spare) {
                    break;
                }
                return self.leave_alone(last);
            }
            if at != last {
                // It moves to where the spare is.
                let others: Vec<(u32, u32)> = table.into_iter().filter(|e| !is_last(e)).collect();
                self.attach(&others)?;
            }
            self.take_out(at)?;
        }
        Ok(())
    }

    /// Closes all others, which are spares; where the kernel cannot do that unnoticed they stay.
    fn leave_alone(&mut self, at: usize) -> io::Result<()> {
        let one = self.members.swap_remove(at);
        let spares: Vec<BorrowedFd<'_>> = self.members.iter().map(|m| m.fd.as_fd()).collect();
        let alone = steer::alone(one.fd.as_fd(), &spares).is_ok();
        if !alone {
            self.members.push(one);
            return Ok(());
        }
        for spare in spares {
            socket::stop_listening(spare);
        }
        self.members = vec![one];
        // Whatever the program says from here on, there is but one.
        socket::share_port(self.members[0].fd.as_fd())
    }

    /// Ends what is in the queue of a lane that is not in service, which stays, at the end. How many were
    /// they?
    pub fn flush(&mut self, lane: LaneId) -> io::Result<u32> {
        let at = self.index(lane).filter(|at| !self.members[*at].bare);
        let Some(at) = at else {
            return Ok(0);
        };
        self.before_a_hole(at)?;
        let queued = steer::queued(self.members[at].fd.as_fd()).unwrap_or(0);
        socket::stop_listening(self.members[at].fd.as_fd());
        self.heal(lane)?;
        self.tidy()?;
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
mod tests;
