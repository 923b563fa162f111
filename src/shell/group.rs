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
//!    share. But where each client has a lane of its own, its clients are steered to its new place before:
//!    what is there until then is shut, and they come again a second later. If there are no others, a
//!    spare, which nothing is steered to, is put at the end first.
//! 3. Spares go as soon as that moves nobody who is in service alone: when they are the last, when others
//!    take the share of the last, or when all but the last are spares (`steer::alone`). Where there are
//!    lanes that stay although nothing is steered to them, that never comes, and there is one spare at
//!    most: clients that come in the microseconds of a move beyond that come again a second later.
//! 4. What was passed to us is never shut down, and stays where it is: it is others', too.
//! 5. Nobody gets in any more when all lanes have a filter; where one cannot have it, everything is
//!    steered to a spare, which is shut. So it is while a port has nobody to serve it.
//! 6. Where the kernel does not take a program of that length connections are dealt out more coarsely,
//!    which is told: each client keeps a lane as long as there are buckets for all.

mod asked;
pub mod found;
mod members;

use crate::core::{Deal, Key, LaneId, Table};
use crate::sys::socket::{self, Reach};
use crate::sys::steer::{self, Raw};
use crate::wire::steering;
use crate::wire::steering::bucket::bucket;
use members::{Member, Members};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What drops those that want to come in.
fn refusal() -> Vec<Raw> {
    steering::raw(&steering::refuse_new())
}

/// New connections are dealt out more coarsely than they should be: the kernel takes no longer program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coarse {
    /// By so many buckets, if by any at all: else at random.
    pub by: Option<usize>,
    /// Instead of so many, of these; if not by CPU.
    pub wanted: Option<(Key, usize)>,
}

/// All lanes of a port.
#[derive(Serialize, Deserialize)]
pub struct Group {
    addr: SocketAddr,
    reach: Reach,
    backlog: i32,
    members: Members,
    /// Where new connections go.
    table: Table,
    /// The lanes that it names.
    named: BTreeSet<LaneId>,
    /// Lanes that somebody asks alone, and from where: nobody else comes by them.
    asked: BTreeMap<LaneId, SocketAddr>,
    /// Does nobody get in any more?
    refusing: bool,
    /// Was its last program not taken? Then the next change tries again.
    failed: bool,
    /// What gives the group a program.
    #[serde(skip, default = "loader")]
    load: fn(BorrowedFd<'_>, &[Raw]) -> io::Result<()>,
    /// Is that which it has a coarser one than its table?
    coarsely: bool,
    /// What was to be told of that, and was not yet.
    coarse: Option<Coarse>,
}

/// What gives a group its program.
fn loader() -> fn(BorrowedFd<'_>, &[Raw]) -> io::Result<()> {
    steer::attach
}

impl Group {
    /// Of a port whose first lane is this.
    pub fn new(addr: SocketAddr, reach: Reach, backlog: i32, first: LaneId) -> Group {
        Group {
            addr,
            reach,
            backlog,
            members: Members::default(),
            table: Table::only(first),
            named: BTreeSet::from([first]),
            asked: BTreeMap::new(),
            refusing: false,
            failed: false,
            load: steer::attach,
            coarsely: false,
            coarse: None,
        }
    }

    /// Is one of them passed to us?
    pub fn has_passed(&self) -> bool {
        self.members.all().iter().any(|m| m.passed)
    }

    /// Of a port that nobody serves yet: nobody gets in.
    pub fn unserved(addr: SocketAddr, reach: Reach, backlog: i32) -> Group {
        Group {
            table: Table::default(),
            named: BTreeSet::new(),
            ..Group::new(addr, reach, backlog, LaneId(0))
        }
    }

    /// Do new connections go to that lane?
    pub fn names(&self, lane: LaneId) -> bool {
        self.named.contains(&lane)
    }

    /// Whom its lanes serve.
    pub fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Does none of its lanes listen yet?
    pub fn is_empty(&self) -> bool {
        self.members.len() == 0
    }

    /// Is it steered more coarsely than it should be? Told once each time that it is.
    pub fn coarse(&mut self) -> Option<Coarse> {
        self.coarse.take()
    }

    /// Where it is.
    pub fn addr(&self) -> &SocketAddr {
        &self.addr
    }

    /// A lane has begun to listen, if it is not known to do so already.
    pub fn joined(&mut self, lane: LaneId, fd: BorrowedFd<'_>, passed: bool) -> io::Result<()> {
        if self.members.index(lane).is_none() {
            let fd = fd.try_clone_to_owned()?;
            let lane = Some(lane);
            self.members.push(Member {
                fd,
                lane,
                passed,
                own: false,
                kept: false,
                bare: passed,
                gate: None,
            });
            // Beside others that have a program, it gets nothing until it is in the table.
            self.apply_to_last()?;
        }
        Ok(())
    }

    /// A socket that was made elsewhere and is bound begins to listen, among the others; its own filter
    /// stays, if it has one.
    pub fn take_in(&mut self, lane: LaneId, fd: BorrowedFd<'_>, filtered: bool) -> io::Result<()> {
        if self.members.index(lane).is_some() {
            return Ok(());
        }
        let kept = fd.try_clone_to_owned()?;
        self.form()?;
        // Not every kind of TCP can be shut (MPTCP).
        let gate = match filtered {
            true => None,
            false => steer::keep_out(fd, &refusal()).ok(),
        };
        let done = match self.is_empty() {
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
            kept: false,
            bare: gate.is_none(),
            gate,
        });
        self.apply_to_last()
    }

    /// A lane beside the others, which listens and gets nothing yet.
    pub fn open(&mut self, lane: LaneId) -> io::Result<OwnedFd> {
        match self.members.spare() {
            Some(at) => {
                let fd = self.members.get(at)?.fd.try_clone()?;
                self.members.name(at, Some(lane));
                Ok(fd)
            }
            None => self.add(Some(lane)),
        }
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
            kept: false,
            bare: false,
            gate: Some(gate),
        });
        self.apply_to_last()?;
        Ok(kept)
    }

    /// Where there is one alone, it is made one that others can stand beside.
    fn form(&self) -> io::Result<()> {
        let [only] = self.members.all() else {
            return Ok(());
        };
        // The first has its program before there is a second: or the kernel would deal them out.
        let first = steering::program(&steering::Table::only(0));
        match (self.load)(only.fd.as_fd(), &steering::raw(&first)) {
            Ok(()) => Ok(()),
            // A second one would have its share whatever is steered, and nobody would get in there.
            Err(e) if steer::is_forbidden(&e) => Err(e),
            // It listened before it shared its port: only a second one makes it a group.
            Err(_) => socket::share_port(only.fd.as_fd()),
        }
    }

    /// From now on new connections go there.
    pub fn steer(&mut self, table: &Table) -> io::Result<()> {
        (self.table, self.named) = (table.clone(), table.lanes());
        if self.refusing {
            return Ok(());
        }
        // Before the program names it, or it would drop what it is to have.
        for m in self.members.gates().filter(|m| m.is_in(&self.named)) {
            if let Some(gate) = m.gate.take() {
                steer::let_in(m.fd.as_fd(), gate)?;
            }
        }
        if self.named.is_empty() {
            self.shut_all()?;
        }
        self.apply()?;
        let refusal = refusal();
        for m in self.members.gates().filter(|m| !m.is_in(&self.named)) {
            m.shut(&refusal);
        }
        self.tidy()
    }

    /// Gives the group the program that its table asks for.
    fn apply(&mut self) -> io::Result<()> {
        if self.members.len() < 2 {
            return Ok(());
        }
        let shut = |m: &Member| m.gate.is_some() && (m.is_spare() || !self.refusing);
        if (self.refusing || self.named.is_empty())
            && let Some(at) = self.members.all().iter().position(shut)
        {
            return self.attach(only(at));
        }
        match self.there() {
            Some(table) => self.attach(self.places(&table)),
            None => Ok(()),
        }
    }

    /// The same when one has joined, at the end: where it has no say, the program is as it was.
    fn apply_to_last(&mut self) -> io::Result<()> {
        let last = self.members.len().saturating_sub(1);
        match last < 2 || self.is_unsettled() || self.is_named(last) || self.is_asked() {
            true => self.apply(),
            false => Ok(()),
        }
    }

    /// May there be another program than its table asks for, though its lanes stay where they are?
    fn is_unsettled(&self) -> bool {
        self.refusing || self.named.is_empty() || self.failed
    }

    /// The table, as far as its lanes are there, if any are.
    fn there(&self) -> Option<Table> {
        let there = |lane| self.members.index(lane).is_some();
        let mut table = self.table.clone();
        if !self.named.iter().all(|l| there(*l)) {
            table.keep(there);
        }
        self.any_there(None).then_some(table)
    }

    /// Its lanes by the places that they have in the group.
    fn places(&self, table: &Table) -> steering::Table {
        self.places_with(table, None)
    }

    /// The same, as if that one were there already.
    fn places_with(&self, table: &Table, moved: Option<(LaneId, usize)>) -> steering::Table {
        let place = |lane: &LaneId| {
            let there = moved.filter(|(l, _)| l == lane).map(|(_, at)| at);
            let at = there.or_else(|| self.members.index(*lane))?;
            Some((*lane, u32::try_from(at).ok()?))
        };
        let at: BTreeMap<LaneId, u32> = self.named.iter().filter_map(place).collect();
        steering::Table::of(table, &at)
    }

    /// Where the kernel does not take all of the program, it gets a coarser one.
    fn attach(&mut self, mut table: steering::Table) -> io::Result<()> {
        let Some(first) = self.members.all().first() else {
            return Ok(());
        };
        let wanted = table.buckets();
        let mut coarse = false;
        loop {
            let program = steering::ahead(&self.asked_at(), steering::program(&table));
            let program = steering::raw(&program);
            match (self.load)(first.fd.as_fd(), &program) {
                Err(e) if steer::is_too_long(&e, &program) && table.shrink() => coarse = true,
                other => {
                    (self.failed, self.coarsely) = (other.is_err(), coarse);
                    if coarse && other.is_ok() {
                        let by = table.buckets().map(|(_, n)| n);
                        self.coarse = Some(Coarse { by, wanted });
                    }
                    return other;
                }
            }
        }
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
        let (mut all_shut, refusal) = (true, refusal());
        for m in self.members.gates() {
            m.shut(&refusal);
            all_shut &= m.gate.is_some();
        }
        if !all_shut && self.members.spare().is_none() {
            self.add(None)?;
        }
        Ok(())
    }

    /// Takes a lane out whose workers have gone; how many waited in its queue? They are reset.
    pub fn retire(&mut self, lane: LaneId) -> io::Result<u32> {
        let Some(at) = self.members.index(lane) else {
            return Ok(0);
        };
        if self.named.remove(&lane) {
            self.table.keep(|l| l != lane);
            if !self.named.is_empty() {
                self.apply()?;
            }
        }
        let member = self.members.get(at)?;
        if member.passed {
            self.members.name(at, None);
            return Ok(0);
        }
        self.before_a_hole(at)?;
        let queued = steer::queued(self.members.get(at)?.fd.as_fd()).unwrap_or(0);
        self.take_out(at)?;
        self.tidy()?;
        Ok(queued)
    }

    /// Its place is the last one's from then on.
    fn take_out(&mut self, at: usize) -> io::Result<()> {
        let fd = self.members.get(at)?.fd.as_fd();
        // Where it cannot be hidden a client may find it for as long as it takes to close it.
        let _ = steer::hide(fd);
        socket::stop_listening(fd);
        self.members.swap_remove(at)?;
        // The program is as it was if none that it names has moved.
        match self.is_unsettled() || self.is_named(at) || self.is_asked() {
            true => self.apply(),
            false => Ok(()),
        }
    }

    /// Does the table name the lane there?
    fn is_named(&self, at: usize) -> bool {
        let member = self.members.all().get(at);
        member.is_some_and(|m| m.is_in(&self.named))
    }

    /// How the program is while the last member moves there: by the table of the others; `None`: they are
    /// none. Or as it will be, if its clients are its alone.
    fn while_last_moves(&self, to: usize) -> Option<steering::Table> {
        let last = self.members.all().last().and_then(|m| m.lane);
        let shut = self.members.get(to).is_ok_and(|m| m.gate.is_some());
        match (&self.table.deal, last) {
            (Deal::Buckets(Key::Client, _), Some(last)) if shut => {
                Some(self.places_with(&self.table, Some((last, to))))
            }
            _ => self.without_last().map(|table| self.places(&table)),
        }
    }

    /// The table of the others; `None`: they are none.
    fn without_last(&self) -> Option<Table> {
        let last = self.members.all().last().and_then(|m| m.lane);
        if !self.any_there(last) {
            return None;
        }
        let mut table = self.table.clone();
        table.keep(|l| Some(l) != last && self.members.index(l).is_some());
        Some(table)
    }

    /// Sees to it that nothing is steered to the last member, which will move there.
    fn before_a_hole(&mut self, at: usize) -> io::Result<()> {
        let last = self.members.len() - 1;
        if at == last || self.members.len() <= 2 || self.refusing || !self.is_named(last) {
            return Ok(());
        }
        if let Some(table) = self.while_last_moves(at) {
            return self.attach(table);
        }
        if self.members.spare().is_none() || !self.members.any_stays() {
            return self.add(None).map(drop);
        }
        let shut = |(i, m): &(usize, &Member)| ![at, last].contains(i) && m.gate.is_some();
        match self.members.all().iter().enumerate().find(shut) {
            Some((i, _)) => self.attach(only(i)),
            None => Ok(()),
        }
    }

    /// Closes spares, where that moves nobody who is in service alone.
    fn tidy(&mut self) -> io::Result<()> {
        while let Some(first) = self.members.spare() {
            if self.refusing || !self.any_there(None) {
                break;
            }
            let last = self.members.len() - 1;
            let at = if self.members.is_spare(last) {
                last
            } else {
                first
            };
            if at != last && self.is_named(last) {
                // It moves to where the spare is.
                match self.while_last_moves(at) {
                    Some(others) => self.attach(others)?,
                    None if self.members.spares() == last => return self.leave_alone(last),
                    None => break,
                }
            }
            self.take_out(at)?;
        }
        Ok(())
    }

    /// Is there one that the table names, beside that one?
    fn any_there(&self, but: Option<LaneId>) -> bool {
        let there = |l: &&LaneId| Some(**l) != but && self.members.index(**l).is_some();
        self.named.iter().any(|l| there(&l))
    }

    /// Closes all others, which are spares; where the kernel cannot do that unnoticed they stay.
    fn leave_alone(&mut self, at: usize) -> io::Result<()> {
        let one = self.members.swap_remove(at)?;
        let spares = self.members.all().iter().map(|m| m.fd.as_fd());
        let spares: Vec<BorrowedFd<'_>> = spares.collect();
        let alone = steer::alone(one.fd.as_fd(), &spares).is_ok();
        if !alone {
            self.members.push(one);
            return Ok(());
        }
        for spare in spares {
            socket::stop_listening(spare);
        }
        // Whatever the program says from here on, there is but one.
        let shared = socket::share_port(one.fd.as_fd());
        self.members = Members::default();
        self.members.push(one);
        shared
    }

    /// Ends what is in the queue of a lane that is not in service, which stays, at the end. How many were
    /// they?
    pub fn flush(&mut self, lane: LaneId) -> io::Result<u32> {
        let at = self.members.index(lane);
        let at = at.filter(|at| self.members.get(*at).is_ok_and(|m| !m.bare));
        let Some(at) = at else {
            return Ok(0);
        };
        self.before_a_hole(at)?;
        let fd = self.members.get(at)?.fd.as_fd();
        let queued = steer::queued(fd).unwrap_or(0);
        socket::stop_listening(fd);
        self.heal(lane)?;
        self.tidy()?;
        Ok(queued)
    }

    /// A worker has shut a lane down: it listens again, at the end.
    pub fn heal(&mut self, lane: LaneId) -> io::Result<()> {
        let Some(at) = self.members.index(lane) else {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        if socket::is_listening(self.members.get(at)?.fd.as_fd()) {
            return Ok(());
        }
        let member = self.members.swap_remove(at)?;
        self.apply()?;
        let done = socket::listen(member.fd.as_fd(), self.backlog);
        if done.is_ok() {
            self.members.push(member);
            self.apply()?;
        }
        done
    }

    /// The lane that the table has for that client, if that hangs on its address alone.
    pub fn lane_of(&self, peer: SocketAddr) -> Option<LaneId> {
        let settled = !self.is_unsettled() && !self.coarsely;
        match (&self.table.deal, &self.table.part) {
            (Deal::Shares(all), None) if let [(lane, _)] = all.as_slice() => Some(*lane),
            (Deal::Buckets(key, all), None) if settled => {
                all.get(bucket(*key, peer, all.len())).copied()
            }
            (Deal::Shares(_) | Deal::Buckets(..) | Deal::Cpus(_), _) => None,
        }
    }

    /// How many connections wait in the queue of a lane.
    pub fn queued(&self, lane: LaneId) -> u32 {
        let fd = self.members.of(lane).map(|m| m.fd.as_fd());
        fd.and_then(|fd| steer::queued(fd).ok()).unwrap_or(0)
    }

    /// The same, and how many can wait there, if it listens.
    pub fn queue(&self, lane: LaneId) -> Option<(u32, u32)> {
        let fd = self.members.of(lane).map(|m| m.fd.as_fd());
        steer::queue(fd?).ok()
    }
}

fn only(at: usize) -> steering::Table {
    steering::Table::only(u32::try_from(at).unwrap_or(0))
}

#[cfg(test)]
mod tests;
