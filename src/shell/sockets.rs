//! Lanes as real sockets, by id and by inode.

use crate::core::LaneId;
use crate::sys::socket::{self, Reach};
use crate::sys::{fds, inherit};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// One lane.
struct Lane {
    fd: OwnedFd,
    inode: u64,
    addr: SocketAddr,
    /// Was it open before any worker started? Then every worker is handed it.
    handed: bool,
    /// Should it listen?
    listens: bool,
}

/// All lanes of all ports.
pub struct Sockets {
    /// Where -p was opened; kept when a lane is closed because the workers listen there themselves.
    given: Vec<SocketAddr>,
    lanes: BTreeMap<LaneId, Lane>,
    backlog: i32,
}

impl Sockets {
    /// None yet.
    pub fn new(backlog: i32) -> Sockets {
        Sockets {
            given: Vec::new(),
            lanes: BTreeMap::new(),
            backlog,
        }
    }

    /// Opens a lane; where is it? (Port 0 has been replaced by a real one.)
    pub fn open(
        &mut self,
        id: LaneId,
        addr: &SocketAddr,
        reach: &Reach,
        listen: bool,
    ) -> io::Result<SocketAddr> {
        let fd = socket::open_lane(addr, reach)?;
        if listen {
            socket::listen_first(fd.as_fd(), self.backlog)?;
        }
        let addr = socket::local_addr(fd.as_fd())?;
        if listen {
            self.given.push(addr);
        }
        let lane = Lane {
            inode: fds::inode(fd.as_fd())?,
            fd,
            addr,
            handed: listen,
            listens: listen,
        };
        self.lanes.insert(id, lane);
        Ok(addr)
    }

    /// Makes sure that it listens.
    pub fn listen(&mut self, id: LaneId) -> io::Result<()> {
        let Some(lane) = self.lanes.get_mut(&id) else {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        };
        if !socket::is_listening(lane.fd.as_fd()) {
            socket::listen_first(lane.fd.as_fd(), self.backlog)?;
        }
        lane.listens = true;
        Ok(())
    }

    /// Where it is, if it should listen and does not: a worker has shut it down, for all.
    pub fn silenced(&self, id: LaneId) -> Option<SocketAddr> {
        let silent = |l: &&Lane| l.listens && !socket::is_listening(l.fd.as_fd());
        self.lanes.get(&id).filter(silent).map(|l| l.addr)
    }

    /// Closes it, in the workers that were handed it as well: their copies would go on listening,
    /// and the clients in that queue would hang.
    pub fn close(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.remove(&id) {
            socket::stop_listening(lane.fd.as_fd());
        }
    }

    /// Lanes that do not listen and that somebody connects from.
    pub fn connected(&self) -> Vec<LaneId> {
        let hit = |(_, l): &(&LaneId, &Lane)| !l.listens && socket::is_connected(l.fd.as_fd());
        self.lanes.iter().filter(hit).map(|(id, _)| *id).collect()
    }

    /// Lets go of one: what the workers have of it is theirs alone.
    pub fn let_go(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.remove(&id) {
            inherit::no_linger(lane.fd.as_fd());
        }
    }

    /// Closes all: from here on clients are refused.
    pub fn close_all(&mut self) {
        self.lanes.clear();
    }

    /// The socket.
    pub fn fd(&self, id: LaneId) -> Option<BorrowedFd<'_>> {
        self.lanes.get(&id).map(|l| l.fd.as_fd())
    }

    /// Its inode.
    pub fn inode(&self, id: LaneId) -> Option<u64> {
        self.lanes.get(&id).map(|l| l.inode)
    }

    /// Inodes of all.
    pub fn inodes(&self) -> Vec<u64> {
        self.lanes.values().map(|l| l.inode).collect()
    }

    /// The lane behind an inode.
    pub fn by_inode(&self, inode: u64) -> Option<LaneId> {
        let hit = |(_, l): &(&LaneId, &Lane)| l.inode == inode;
        self.lanes.iter().find(hit).map(|(id, _)| *id)
    }

    /// Where -p was opened, in its order.
    pub fn given(&self) -> &[SocketAddr] {
        &self.given
    }

    /// What every worker is handed from fd 3 on, in the order of -p.
    pub fn handed(&self) -> Vec<(SocketAddr, BorrowedFd<'_>)> {
        let given = self.lanes.values().filter(|l| l.handed);
        given.map(|l| (l.addr, l.fd.as_fd())).collect()
    }
}

/// What the shell keeps of one worker's listen(2): to look later whether it still holds the lane.
#[derive(Clone, Copy, Debug)]
pub struct Listened {
    /// The thread that called: the first one of its process may have ended.
    pub pid: i32,
    /// Its descriptor.
    pub fd: i32,
    /// The lane behind it.
    pub lane: LaneId,
}
