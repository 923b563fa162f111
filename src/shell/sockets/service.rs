//! What becomes of lanes: who gets new connections, when they listen, and how they end.

use super::{Lane, Sockets};
use crate::core::{Addr, LaneId, PortId, Table};
use crate::shell::group::{Coarse, Group};
use crate::sys::{fds, inherit, socket};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

impl Sockets {
    /// From now on new connections of the port go there.
    pub fn steer(&mut self, port: PortId, table: &Table) -> io::Result<()> {
        if let Some(group) = self.groups.get_mut(&port) {
            return group.steer(table);
        }
        // A name can lead to one of them only: to the newest.
        match table.lanes().into_iter().max() {
            Some(lane) => self.name_to(port, lane),
            None => Ok(()),
        }
    }

    /// What was steered more coarsely than it should be, and was not told yet.
    pub fn coarse(&mut self) -> Vec<(SocketAddr, Coarse)> {
        let each = |g: &mut Group| Some((*g.addr(), g.coarse()?));
        self.groups.values_mut().filter_map(each).collect()
    }

    /// From now on nobody gets in, by whatever lane.
    pub fn refuse_new(&mut self) -> io::Result<()> {
        for lane in self.lanes.values() {
            if let Some(filed) = &lane.filed {
                filed.hide();
            }
        }
        self.groups.values_mut().try_for_each(Group::refuse)
    }

    /// How many connections nobody has accepted yet; of a unix socket whether there are any.
    pub fn queued(&self, id: LaneId) -> u32 {
        match self.lanes.get(&id) {
            Some(lane) => match self.groups.get(&lane.port) {
                Some(group) => group.queued(id),
                None => u32::from(fds::readable_now(lane.fd.as_fd())),
            },
            None => 0,
        }
    }

    /// The same of all that have a queue.
    pub fn lengths(&self) -> BTreeMap<LaneId, u32> {
        let lanes = self.lanes.iter();
        let tcp = lanes.filter(|(_, l)| self.groups.contains_key(&l.port));
        tcp.map(|(id, _)| (*id, self.queued(*id))).collect()
    }

    /// The queue of each lane that listens, by TCP: how many wait, and how many can. Of the others, by their
    /// inodes, whoever knows has to be asked.
    pub fn queues(&self, of: &BTreeMap<u64, (u32, u32)>) -> Vec<(LaneId, &Addr, (u32, u32))> {
        let mut all = Vec::new();
        for (id, lane) in &self.lanes {
            let queue = match self.groups.get(&lane.port) {
                Some(group) => group.queue(*id),
                None => of.get(&lane.inode).copied(),
            };
            all.extend(queue.map(|q| (*id, &lane.addr, q)));
        }
        all
    }

    /// By which lane of which port a client has come, if its address and the table in force tell.
    pub fn lane_of(&self, local: SocketAddr, peer: SocketAddr) -> Option<(PortId, LaneId)> {
        let here = |(_, g): &(&PortId, &Group)| g.addr().port() == local.port();
        let mut groups = self.groups.iter().filter(here);
        // Where several share a number it would have to be told which.
        let (Some((port, group)), None) = (groups.next(), groups.next()) else {
            return None;
        };
        Some((*port, group.lane_of(peer)?))
    }

    /// Where this lane can be reached, and from where: this machine alone.
    pub fn way_to(&self, lane: LaneId) -> Option<(SocketAddr, SocketAddr)> {
        let lane = self.lanes.get(&lane)?;
        let group = self.groups.get(&lane.port)?;
        let at = lane.addr.tcp()?;
        let ip = match at.ip() {
            IpAddr::V6(ip) if ip.is_unspecified() && group.reach().v6only => {
                Ipv6Addr::LOCALHOST.into()
            }
            ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            ip => ip,
        };
        let (mut to, mut from) = (at, at);
        for addr in [&mut to, &mut from] {
            addr.set_ip(ip);
        }
        from.set_port(0);
        Some((to, from))
    }

    /// Where this port can be reached from this machine.
    pub fn way_to_port(&self, number: u16) -> Option<SocketAddr> {
        let here = |(_, l): &(&LaneId, &Lane)| l.addr.tcp().is_some_and(|a| a.port() == number);
        let mut lanes = self.lanes.iter().filter(here);
        lanes.find_map(|(id, _)| Some(self.way_to(*id)?.0))
    }

    /// Who comes from there comes by that lane, alone; or no more.
    pub fn ask(&mut self, lane: LaneId, from: Option<SocketAddr>) -> io::Result<()> {
        let port = self.port(lane);
        match (port.and_then(|p| self.groups.get_mut(&p)), from) {
            (Some(group), Some(from)) => group.ask(lane, from),
            (Some(group), None) => group.asked(lane),
            (None, _) => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }

    /// Makes it as patient with its clients as the socket is that it stands in for, unless the
    /// operator has said how patient.
    pub fn dress(&self, id: LaneId, theirs: BorrowedFd<'_>) {
        let Some(lane) = self.lanes.get(&id) else {
            return;
        };
        match lane.addr {
            Addr::Tcp(_) => {
                let _ = inherit::carry_options(theirs, lane.fd.as_fd());
                let _ = self.patience.set(lane.fd.as_fd());
            }
            Addr::Unix(_) => inherit::carry_unix_options(theirs, lane.fd.as_fd()),
            Addr::Other(_) => {}
        }
    }

    /// Makes sure that it listens.
    pub fn listen(&mut self, id: LaneId) -> io::Result<()> {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        if lane.own.is_some() {
            return self.listen_own(id);
        }
        if let Some(group) = self.groups.get_mut(&lane.port) {
            if !socket::is_listening(lane.fd.as_fd()) {
                match group.is_empty() {
                    true => socket::listen_first(lane.fd.as_fd(), self.backlog)?,
                    false => socket::listen(lane.fd.as_fd(), self.backlog)?,
                }
            }
            group.joined(id, lane.fd.as_fd(), lane.passed)?;
        }
        lane.listens = true;
        Ok(())
    }

    /// Where it is, if it should listen and does not: a worker has shut it down, for all.
    pub fn silenced(&self, id: LaneId) -> Option<&Addr> {
        let silent = |l: &&Lane| {
            l.listens
                && match l.addr {
                    Addr::Tcp(_) => !socket::is_listening(l.fd.as_fd()),
                    // Shut down it is so for good.
                    Addr::Unix(_) | Addr::Other(_) => fds::hung_up(l.fd.as_fd()),
                }
        };
        self.lanes.get(&id).filter(silent).map(|l| &l.addr)
    }

    /// Makes a lane that a worker has shut down listen again. A unix socket cannot: another takes its
    /// place, for the workers to come.
    pub fn heal(&mut self, id: LaneId) -> io::Result<()> {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        if let Some(group) = self.groups.get_mut(&lane.port) {
            return group.heal(id);
        }
        let Some(mut old) = lane.filed.take() else {
            return Err(io::Error::from(io::ErrorKind::Unsupported));
        };
        let healed = old
            .beside(&lane.like, self.backlog)
            .and_then(|(fd, mut new)| {
                if old.is_named() {
                    new.take_name(&mut old)?;
                }
                Ok((fds::inode(fd.as_fd())?, fd, new))
            });
        match healed {
            Ok((inode, fd, new)) => {
                (lane.inode, lane.fd, lane.filed) = (inode, fd, Some(new));
                Ok(())
            }
            Err(e) => {
                lane.filed = Some(old);
                Err(e)
            }
        }
    }

    /// Lanes that do not listen and that somebody connects from.
    pub fn connected(&self) -> Vec<LaneId> {
        let hit = |(_, l): &(&LaneId, &Lane)| {
            !l.listens && l.addr.tcp().is_some() && socket::is_connected(l.fd.as_fd())
        };
        self.lanes.iter().filter(hit).map(|(id, _)| *id).collect()
    }

    /// Takes a lane out that nobody serves any more. How many waited in its queue?
    pub fn retire(&mut self, id: LaneId) -> io::Result<u32> {
        let Some(lane) = self.lanes.remove(&id) else {
            return Ok(0);
        };
        if let Some(group) = self.groups.get_mut(&lane.port) {
            let queued = group.retire(id)?;
            if lane.own.is_some() {
                // Or it would be a member that we do not know of.
                socket::unshare_port(lane.fd.as_fd());
            }
            let more = self.lanes.values().any(|l| l.port == lane.port);
            if !more && !lane.passed {
                self.groups.remove(&lane.port);
            }
            return Ok(queued);
        }
        let waits = u32::from(fds::readable_now(lane.fd.as_fd()));
        match lane.filed {
            Some(filed) if lane.passed => self.kept.push((lane.port, filed)),
            Some(filed) => filed.remove(),
            None => {}
        }
        Ok(waits)
    }

    /// Closes it, in the workers that were handed it as well: their copies would go on listening,
    /// and the clients in that queue would hang.
    pub fn close(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.remove(&id) {
            if let Some(group) = self.groups.get_mut(&lane.port) {
                // What happens to its queue happens to it in any case.
                let _ = group.retire(id);
            }
            socket::stop_listening(lane.fd.as_fd());
        }
    }

    /// Lets go of one: what the workers have of it is theirs alone.
    pub fn let_go(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.remove(&id) {
            // Others may stand beside it.
            if !self.lanes.values().any(|l| l.port == lane.port) {
                self.groups.remove(&lane.port);
            }
            Sockets::give_back(lane);
        }
    }

    /// Closes all: from here on clients are refused. Names go first, so that no client comes by one
    /// to a queue that nobody reads.
    pub fn close_all(&mut self) {
        self.give_names_back();
        let kept = std::mem::take(&mut self.kept);
        let lanes = self.lanes.values().filter_map(|l| l.filed.as_ref());
        for filed in lanes.chain(kept.iter().map(|(_, filed)| filed)) {
            filed.remove();
        }
        self.groups.clear();
        self.lanes.clear();
    }
}
