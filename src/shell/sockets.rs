//! Lanes as real sockets, by id and by inode.

pub mod found;
mod opening;
pub mod own;
mod paths;
mod service;

use super::filed::Filed;
use super::group::Group;
use crate::core::{Addr, FileIs, LaneId, Of, PortId, Reader};
use crate::settings::Settings;
use crate::sys::fds;
use crate::sys::socket::Patience;
use crate::wire::ports_filter::Ports;
use found::Found;
use own::Own;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// One lane.
#[derive(Serialize, Deserialize)]
struct Lane {
    #[serde(with = "crate::shell::carry")]
    fd: OwnedFd,
    inode: u64,
    addr: Addr,
    port: PortId,
    /// Whose workers it is for.
    of: Of,
    /// And whose else.
    heirs: BTreeSet<u32>,
    /// Was it passed to us? Then it is others', too.
    passed: bool,
    /// Was it open before any worker started? Then every worker is handed it, under that name.
    handed: Option<String>,
    /// Should it listen?
    listens: bool,
    /// Of a unix socket.
    filed: Option<Filed>,
    /// What its file was to be like.
    like: FileIs,
    /// Was it a worker's own socket?
    own: Option<Own>,
}

impl Lane {
    /// A new one of ours.
    fn plain(at: Place, fd: OwnedFd, addr: Addr) -> io::Result<Lane> {
        let inode = fds::inode(fd.as_fd())?;
        Ok(Lane::of(at, (fd, inode), addr))
    }

    fn of(at: Place, (fd, inode): (OwnedFd, u64), addr: Addr) -> Lane {
        Lane {
            fd,
            inode,
            addr,
            port: at.port,
            of: at.of,
            heirs: BTreeSet::new(),
            passed: false,
            handed: None,
            listens: false,
            filed: None,
            like: FileIs::default(),
            own: None,
        }
    }
}

/// How much a lane is a worker's own: shared by all, by its generation or an older one, inherited by
/// that, its own alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    All,
    Generation(u32),
    Inherited,
    Own,
}

impl Lane {
    /// `None`: it is not for it.
    fn nearness(&self, reader: Reader) -> Option<Nearness> {
        match self.of {
            Of::All => Some(Nearness::All),
            Of::Generation(_) if self.heirs.contains(&reader.generation) => {
                Some(Nearness::Inherited)
            }
            Of::Generation(g) => (g <= reader.generation).then_some(Nearness::Generation(g)),
            Of::Seat(seat) => (seat == reader.seat).then_some(Nearness::Own),
            Of::Worker(_) => None,
        }
    }
}

/// Which lane of what is to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// It.
    pub lane: LaneId,
    /// Where it is.
    pub port: PortId,
    /// Whose workers it is for.
    pub of: Of,
}

/// What every worker is handed.
pub struct Handed<'a> {
    /// Where it is.
    pub addr: &'a Addr,
    /// What it is called (LISTEN_FDNAMES).
    pub name: &'a str,
    /// Itself.
    pub fd: BorrowedFd<'a>,
}

/// All lanes of all ports.
#[derive(Serialize, Deserialize)]
pub struct Sockets {
    /// What was given and opened; kept when a lane is closed because the workers listen there
    /// themselves.
    given: Vec<Addr>,
    lanes: BTreeMap<LaneId, Lane>,
    /// Names of unix sockets that were passed to us and have no workers any more: they are put back in
    /// the end.
    kept: Vec<(PortId, Filed)>,
    /// Of the ports of TCP.
    groups: BTreeMap<PortId, Group>,
    /// Sockets that are open from before, for what is to be opened.
    #[serde(skip)]
    found: Vec<Found>,
    /// Which of these a lane is to be, if it is one that some worker has.
    meant: BTreeMap<LaneId, BTreeSet<u64>>,
    backlog: i32,
    patience: Patience,
    /// So often an address that is in use may still be tried again.
    waits: u32,
}

impl Sockets {
    /// None yet.
    pub fn of(settings: &Settings) -> Sockets {
        Sockets {
            given: Vec::new(),
            lanes: BTreeMap::new(),
            kept: Vec::new(),
            groups: BTreeMap::new(),
            found: Vec::new(),
            meant: BTreeMap::new(),
            backlog: settings.backlog,
            patience: Patience {
                keepalive: settings.keepalive,
                user_timeout: settings.user_timeout,
            },
            waits: opening::AGAIN,
        }
    }

    /// Where a lane is.
    pub fn addr(&self, id: LaneId) -> Option<&Addr> {
        self.lanes.get(&id).map(|l| &l.addr)
    }

    /// The port that a lane is a way to.
    pub fn port(&self, id: LaneId) -> Option<PortId> {
        self.lanes.get(&id).map(|l| l.port)
    }

    /// Is it there?
    pub fn is_port(&self, port: PortId) -> bool {
        self.lanes.values().any(|l| l.port == port)
    }

    /// The one lane at that number, if there is but one.
    pub fn only_lane(&self, number: u16) -> Option<LaneId> {
        let here = |l: &Lane| l.addr.port() == Some(number);
        let mut all = self.lanes.iter().filter(|(_, l)| here(l));
        let first = all.next().map(|(id, _)| *id);
        first.filter(|_| all.next().is_none())
    }

    /// All ports of TCP. Where workers listen by themselves it may be in either family.
    pub fn numbers(&self) -> Ports {
        let mut ports = Ports::default();
        for addr in self.lanes.values().filter_map(|l| l.addr.tcp()) {
            match addr {
                SocketAddr::V4(_) => ports.v4.insert(addr.port()),
                SocketAddr::V6(_) => ports.v6.insert(addr.port()),
            };
        }
        for port in self.given.iter().filter_map(Addr::port) {
            if !ports.v4.contains(&port) && !ports.v6.contains(&port) {
                ports.v4.insert(port);
                ports.v6.insert(port);
            }
        }
        ports
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

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = LaneId> {
        self.lanes.keys().copied()
    }

    /// The lane behind an inode.
    pub fn by_inode(&self, inode: u64) -> Option<LaneId> {
        let hit = |(_, l): &(&LaneId, &Lane)| l.inode == inode;
        self.lanes.iter().find(hit).map(|(id, _)| *id)
    }

    /// TCP addresses that were given, in their order.
    pub fn given(&self) -> Vec<SocketAddr> {
        self.given.iter().filter_map(Addr::tcp).collect()
    }

    /// It is for these, too.
    pub fn inherit(&mut self, lane: LaneId, heirs: BTreeSet<u32>) {
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.heirs = heirs;
        }
    }

    /// So many every worker is handed.
    pub fn handed_count(&self) -> usize {
        let handed = self.lanes.values().filter(|l| l.handed.is_some());
        handed.map(|l| l.port).collect::<BTreeSet<_>>().len()
    }

    /// All workers are to share it.
    pub fn share(&mut self, lane: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&lane) {
            lane.of = Of::All;
        }
    }

    /// What such a worker is handed from fd 3 on, in the order in which it was given: of each port its
    /// own lane, or the one that it shares.
    pub fn handed(&self, reader: Reader) -> Vec<Handed<'_>> {
        let mut of: BTreeMap<PortId, (Nearness, &Lane)> = BTreeMap::new();
        for lane in self.lanes.values().filter(|l| l.handed.is_some()) {
            let Some(near) = lane.nearness(reader) else {
                continue;
            };
            let best = of.entry(lane.port).or_insert((near, lane));
            if best.0 <= near {
                *best = (near, lane);
            }
        }
        let handed = of.into_values().filter_map(|(_, l)| {
            Some(Handed {
                name: l.handed.as_ref()?,
                addr: &l.addr,
                fd: l.fd.as_fd(),
            })
        });
        handed.collect()
    }
}

/// Is it a name that is in no file system?
pub fn is_abstract(path: &Path) -> bool {
    path.as_os_str().as_bytes().starts_with(b"@")
}

/// What the shell keeps of one worker's listen(2): to look later whether it still holds the lane.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Listened {
    /// The thread that called: the first one of its process may have ended.
    pub pid: i32,
    /// Its descriptor.
    pub fd: i32,
    /// The lane behind it.
    pub lane: LaneId,
}
