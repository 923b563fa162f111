//! Lanes that were workers' own sockets. Each is bound and made to listen by us, as ours are, but what
//! its worker has set on it, and whoever holds it, stays.

use super::{Lane, Place, Sockets};
use crate::core::{Addr, LaneId, WorkerId};
use crate::shell::group::Group;
use crate::sys::closer::Copy;
use crate::sys::socket::{self, Reach};
use crate::sys::{fds, inherit};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

/// A socket that a worker wants to bind.
pub struct Theirs {
    /// A copy of it.
    pub copy: Copy,
    /// Whose.
    pub worker: WorkerId,
    /// Has it a filter of its own?
    pub filtered: bool,
}

/// What a lane is, if it was a worker's socket.
#[derive(Serialize, Deserialize)]
pub(super) struct Own {
    worker: WorkerId,
    filtered: bool,
}

/// Why it cannot be one of ours.
pub enum Unfit {
    /// The kernel does not take the address.
    Bind(io::Error),
    /// This step has failed before.
    Step(&'static str, io::Error),
}

impl Sockets {
    /// Binds it, beside the other lanes of its port, or where nobody else listens.
    pub fn adopt_own(
        &mut self,
        at: Place,
        addr: &SocketAddr,
        beside: bool,
        theirs: Theirs,
    ) -> Result<(), Unfit> {
        let fd = theirs.copy.as_fd();
        let group = self.groups.get(&at.port).filter(|_| beside);
        let unfit = |(step, e)| Unfit::Step(step, e);
        socket::make_ours(fd, group.map(|g| g.reach().v6only)).map_err(unfit)?;
        let reach = Reach::of(fd);
        let done = match beside {
            true => socket::bind(fd, addr),
            false => socket::bind_alone(fd, addr, &reach),
        };
        done.map_err(Unfit::Bind)?;
        let inode = fds::inode(fd).map_err(|e| Unfit::Step("fstat", e))?;
        // The operator's word counts for more than the server's; that it cannot be set harms nobody.
        let _ = self.patience.set(fd);
        if group.is_none() {
            let group = Group::unserved(*addr, reach, self.backlog);
            self.groups.insert(at.port, group);
        }
        let lane = Lane {
            own: Some(Own {
                worker: theirs.worker,
                filtered: theirs.filtered,
            }),
            ..Lane::of(at, (theirs.copy.keep(), inode), Addr::Tcp(*addr))
        };
        self.lanes.insert(at.lane, lane);
        Ok(())
    }

    /// Makes it listen, among the others.
    pub(super) fn listen_own(&mut self, id: LaneId) -> io::Result<()> {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        let fd = lane.fd.as_fd();
        // What was attached since bind(2) shall stay, too.
        let theirs = lane.own.as_ref().is_some_and(|o| o.filtered);
        let filtered = !lane.listens && (theirs || socket::is_filtered(fd));
        if let Some(group) = self.groups.get_mut(&lane.port) {
            group.take_in(id, fd, filtered)?;
        }
        lane.listens = true;
        Ok(())
    }

    /// Is it a worker's own socket?
    pub fn is_own(&self, id: LaneId) -> bool {
        self.lanes.get(&id).is_some_and(|l| l.own.is_some())
    }

    /// All of a worker's, with their inodes.
    pub fn own_of(&self, worker: WorkerId) -> Vec<(LaneId, u64)> {
        let theirs = |l: &Lane| l.own.as_ref().is_some_and(|o| o.worker == worker);
        let lanes = self.lanes.iter().filter(|(_, l)| theirs(l));
        lanes.map(|(id, l)| (*id, l.inode)).collect()
    }

    /// Inodes of those that are not.
    pub fn shared_inodes(&self) -> Vec<u64> {
        let shared = self.lanes.values().filter(|l| l.own.is_none());
        shared.map(|l| l.inode).collect()
    }

    /// Ends what is in a queue that nobody will read. How much was it?
    pub fn flush(&mut self, id: LaneId) -> io::Result<u32> {
        let port = self.lanes.get(&id).map(|l| l.port);
        match port.and_then(|p| self.groups.get_mut(&p)) {
            Some(group) => group.flush(id),
            None => Ok(0),
        }
    }

    /// A worker's socket that connects is closed here with care.
    pub(super) fn give_back(lane: Lane) {
        inherit::no_linger(lane.fd.as_fd());
        if lane.own.is_some() {
            drop(Copy::of(lane.fd));
        }
    }
}
