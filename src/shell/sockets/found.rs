//! Sockets that are open from before: a master that has died has left them to its workers, or to whoever
//! supervises it. They become lanes of ours as if we had opened them, with what waits in their queues.

use super::{Lane, Place, Sockets};
use crate::core::{Addr, LaneId, Table};
use crate::shell::filed::Filed;
use crate::shell::group::Group;
use crate::sys::socket::{self, Reach};
use crate::sys::{fds, passed, steer};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One of them.
pub struct Found {
    fd: OwnedFd,
    addr: Addr,
}

impl Found {
    /// What is behind a descriptor, if it is a socket that listens. (One of ours at a path is bound to a hidden
    /// name beside it: of which path that is shows by those that are asked for.)
    pub fn of(fd: OwnedFd, asked: &[Addr]) -> Option<Found> {
        let addr = match passed::look_at(fd.as_fd()) {
            passed::Kind::Tcp(addr) => Addr::Tcp(addr),
            passed::Kind::Unix(bound) => {
                let paths = asked.iter().filter_map(|a| match a {
                    Addr::Unix(path) => Some(path),
                    Addr::Tcp(_) | Addr::Other(_) => None,
                });
                let mut paths = paths.filter(|p| Filed::may_be_bound_to(p, &bound));
                Addr::Unix(paths.next().cloned().unwrap_or(bound))
            }
            passed::Kind::Other(_) | passed::Kind::Unfit(_) | passed::Kind::Closed => return None,
        };
        socket::is_listening(fd.as_fd()).then_some(Found { fd, addr })
    }

    /// Is it what was asked for?
    pub fn fits(&self, asked: &Addr) -> bool {
        fits(asked, &self.addr)
    }

    /// Where it is.
    pub fn addr(&self) -> &Addr {
        &self.addr
    }

    /// Of each address all in the order of the kernel, where somebody has several, one each.
    pub fn in_order(found: &mut Vec<Found>) -> io::Result<()> {
        let mut of: Vec<(Addr, Vec<Found>)> = Vec::new();
        for one in std::mem::take(found) {
            match of.iter_mut().find(|(addr, _)| *addr == one.addr) {
                Some((_, all)) => all.push(one),
                None => of.push((one.addr.clone(), vec![one])),
            }
        }
        for (addr, all) in of {
            let (Addr::Tcp(tcp), true) = (&addr, all.len() > 1) else {
                found.extend(all);
                continue;
            };
            let fds: Vec<BorrowedFd<'_>> = all.iter().map(Found::fd).collect();
            let order = crate::shell::group::found::order(&fds, tcp)?;
            let place: BTreeMap<usize, usize> =
                order.iter().enumerate().map(|(at, n)| (*n, at)).collect();
            let mut sorted: Vec<(usize, Found)> = all.into_iter().enumerate().collect();
            sorted.sort_by_key(|(n, _)| place.get(n).copied());
            found.extend(sorted.into_iter().map(|(_, one)| one));
        }
        Ok(())
    }

    /// One of each address: that which somebody holds, else that in which most wait. The others stop
    /// listening: nobody reads them. `None`: several are held.
    pub fn one_each(found: &mut Vec<Found>, held: &BTreeSet<u64>) -> Option<()> {
        let is_held = |f: &Found| fds::inode(f.fd()).is_ok_and(|i| held.contains(&i));
        let queued = |f: &Found| match f.addr {
            Addr::Tcp(_) => steer::queued(f.fd()).unwrap_or(0),
            Addr::Unix(_) | Addr::Other(_) => u32::from(fds::readable_now(f.fd())),
        };
        let mut all = std::mem::take(found);
        all.sort_by_key(|f| std::cmp::Reverse((is_held(f), queued(f))));
        for one in all {
            match found.iter().any(|f| f.addr == one.addr) {
                true if is_held(&one) => return None,
                true => socket::stop_listening(one.fd()),
                false => found.push(one),
            }
        }
        Some(())
    }

    /// Itself.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Is that what was asked for? Any port will do where any was asked for.
fn fits(asked: &Addr, found: &Addr) -> bool {
    match (asked, found) {
        (Addr::Tcp(a), Addr::Tcp(f)) if a.port() == 0 => a.ip() == f.ip(),
        (asked, found) => asked == found,
    }
}

impl Sockets {
    /// These are there.
    pub fn are_found(&mut self, found: Vec<Found>) {
        self.found = found;
    }

    /// What was not asked for is let go.
    pub fn drop_found(&mut self) -> io::Result<()> {
        self.found.clear();
        self.meant.clear();
        let mut done = Ok(());
        for group in self.groups.values_mut() {
            done = done.and(group.settle());
        }
        done
    }

    /// That lane is to be one of these.
    pub fn mean(&mut self, lane: LaneId, inodes: BTreeSet<u64>) {
        self.meant.insert(lane, inodes);
    }

    /// Are there several for that?
    pub(super) fn finds_several(&self, asked: &Addr) -> bool {
        let first = self.found.iter().find(|f| fits(asked, &f.addr));
        let at_one = |one: &Found| self.found.iter().filter(|f| f.addr == one.addr).count();
        first.map_or(0, at_one) > 1
    }

    /// All of them are a group, in which each that is meant becomes a lane; this lane is the first.
    pub(super) fn regroup(&mut self, place: Place, asked: &Addr) -> io::Result<(OwnedFd, Addr)> {
        let none = || io::Error::from(io::ErrorKind::NotFound);
        let all = std::mem::take(&mut self.found).into_iter();
        // (Where any port was asked for, those of the first one that there is.)
        let all: Vec<Found> = all.collect();
        let first = all.iter().find(|f| fits(asked, &f.addr));
        let at = first.map(|f| f.addr.clone()).ok_or_else(none);
        let at_it = |f: &Found| at.as_ref().is_ok_and(|at| f.addr == *at);
        let (ours, others): (Vec<Found>, Vec<Found>) = all.into_iter().partition(at_it);
        self.found = others;
        let first = ours.first().ok_or_else(none)?;
        let (addr, reach) = (first.addr.tcp().ok_or_else(none)?, Reach::of(first.fd()));
        let sockets = ours.into_iter().map(|f| f.fd).collect();
        let mut group = Group::of_found(addr, reach, self.backlog, sockets)?;
        let fd = group.claim(place.lane, self.meant.get(&place.lane))?;
        // As where it is opened: what is beside it is steered to when it is served.
        group.steer(&Table::only(place.lane))?;
        self.groups.insert(place.port, group);
        Ok((fd, Addr::Tcp(addr)))
    }

    /// Is there one for that?
    pub(super) fn finds(&self, asked: &Addr) -> bool {
        self.found.iter().any(|f| fits(asked, &f.addr))
    }

    /// It is taken: it listens, whoever comes is let in, and it is a lane like any other.
    pub(super) fn take_found(
        &mut self,
        asked: &Addr,
    ) -> io::Result<(OwnedFd, Addr, Option<Filed>)> {
        let none = || io::Error::from(io::ErrorKind::NotFound);
        let at = self.found.iter().position(|f| fits(asked, &f.addr));
        let Found { fd, addr } = self.found.swap_remove(at.ok_or_else(none)?);
        let mut filed = None;
        match &addr {
            Addr::Tcp(_) => {
                // Its last master may have begun to keep clients out.
                steer::let_in(fd.as_fd(), steer::Gate::Filter)?;
                steer::let_in(fd.as_fd(), steer::Gate::Distance)?;
            }
            Addr::Unix(path) if path.is_absolute() => filed = Filed::found(path),
            Addr::Unix(_) | Addr::Other(_) => {}
        }
        socket::listen(fd.as_fd(), self.backlog)?;
        Ok((fd, addr, filed))
    }

    /// A lane of a port that was learnt before.
    pub fn open_found(&mut self, at: Place, addr: &SocketAddr) -> io::Result<Addr> {
        let (fd, addr, _) = self.take_found(&Addr::Tcp(*addr))?;
        self.patience.set(fd.as_fd())?;
        if let Addr::Tcp(addr) = addr {
            let mut group = Group::new(addr, Reach::of(fd.as_fd()), self.backlog, at.lane);
            group.joined(at.lane, fd.as_fd(), false)?;
            self.groups.insert(at.port, group);
        }
        let lane = Lane {
            listens: true,
            ..Lane::plain(at, fd, addr.clone())?
        };
        self.lanes.insert(at.lane, lane);
        Ok(addr)
    }

    /// Inodes of those that new connections go to, and that are ours alone; and of those that are there from
    /// before, as long as they may be asked for.
    pub fn to_keep(&self) -> Vec<u64> {
        let serves = |(id, l): &(&LaneId, &Lane)| {
            let here = match (self.groups.get(&l.port), &l.filed) {
                (Some(group), _) => group.names(**id) && !group.has_passed(),
                (None, filed) => filed.as_ref().is_none_or(Filed::is_named),
            };
            here && l.listens && l.own.is_none() && !l.passed
        };
        let all = self.lanes.iter().filter(serves).map(|(_, l)| l.inode);
        let found = self.found.iter().filter_map(|f| fds::inode(f.fd()).ok());
        all.chain(found).collect()
    }

    /// Lanes that a master after us could have: inode, whether it was given, address.
    pub fn to_leave(&self) -> Vec<(u64, bool, String)> {
        let listens = self.lanes.values().filter(|l| l.listens && l.own.is_none());
        let line = |l: &Lane| (l.inode, l.handed.is_some(), l.addr.to_string());
        listens.map(line).collect()
    }
}
