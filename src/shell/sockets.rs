//! Lanes as real sockets, by id and by inode.

use super::filed::Filed;
use crate::core::{Addr, Given, LaneId};
use crate::settings::Settings;
use crate::sys::socket::{self, Patience, Reach};
use crate::sys::{clock, fds, inherit, passed, unix};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// Addresses that are in use are tried again so often in all,
const AGAIN: u32 = 50;
/// after that long.
const IN_A_MOMENT: Duration = Duration::from_millis(20);

/// One lane.
struct Lane {
    fd: OwnedFd,
    inode: u64,
    addr: Addr,
    /// Was it open before any worker started? Then every worker is handed it, under that name.
    handed: Option<String>,
    /// Should it listen?
    listens: bool,
    /// Of a unix socket.
    filed: Option<Filed>,
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
pub struct Sockets {
    /// What was given and opened; kept when a lane is closed because the workers listen there
    /// themselves.
    given: Vec<Addr>,
    lanes: BTreeMap<LaneId, Lane>,
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
            backlog: settings.backlog,
            patience: Patience {
                keepalive: settings.keepalive,
                user_timeout: settings.user_timeout,
            },
            waits: AGAIN,
        }
    }

    /// Opens what was given, and makes it listen; where is it? (Port 0 has been replaced by a real
    /// one.)
    ///
    /// Workers of a master that was killed hold its sockets for a moment longer: who starts again at
    /// once waits for them, that long.
    pub fn open_given(&mut self, id: LaneId, given: &Given) -> io::Result<Addr> {
        let busy = |e: &io::Error| e.raw_os_error() == Some(libc::EADDRINUSE);
        loop {
            match self.try_given(id, given) {
                Err(e) if busy(&e) && given.passed.is_none() && self.waits > 0 => {
                    self.waits -= 1;
                    clock::pause(IN_A_MOMENT);
                }
                other => return other,
            }
        }
    }

    fn try_given(&mut self, id: LaneId, given: &Given) -> io::Result<Addr> {
        let mut filed = None;
        let (fd, addr) = match (&given.passed, &given.addr) {
            (Some((n, _)), addr) => {
                if let Addr::Unix(path) = addr
                    && path.is_absolute()
                {
                    filed = Filed::passed(path);
                }
                (self.adopt(*n, addr)?, addr.clone())
            }
            (None, Addr::Tcp(addr)) => {
                let fd = socket::open_lane(addr, &Reach::default())?;
                socket::listen_first(fd.as_fd(), self.backlog)?;
                let addr = socket::local_addr(fd.as_fd())?;
                (fd, Addr::Tcp(addr))
            }
            (None, Addr::Unix(path)) if is_abstract(path) => (
                unix::listen_unix(path, None, self.backlog)?,
                given.addr.clone(),
            ),
            (None, Addr::Unix(path)) => {
                let (fd, file) = Filed::open(path, &given.file, self.backlog)?;
                filed = Some(file);
                (fd, given.addr.clone())
            }
            (None, Addr::Other(_)) => return Err(io::Error::from_raw_os_error(libc::EINVAL)),
        };
        if addr.tcp().is_some() {
            self.patience.set(fd.as_fd())?;
        }
        let name = given.passed.as_ref().and_then(|(_, name)| name.clone());
        let lane = Lane {
            inode: fds::inode(fd.as_fd())?,
            fd,
            handed: Some(name.unwrap_or_else(|| name_of(&addr))),
            addr: addr.clone(),
            listens: !matches!(addr, Addr::Other(_)),
            filed,
        };
        self.given.push(addr.clone());
        self.lanes.insert(id, lane);
        Ok(addr)
    }

    fn adopt(&self, n: i32, addr: &Addr) -> io::Result<OwnedFd> {
        let fd = passed::take(n)?;
        let silent = !matches!(addr, Addr::Other(_)) && !socket::is_listening(fd.as_fd());
        if silent {
            socket::listen(fd.as_fd(), self.backlog)?;
        }
        Ok(fd)
    }

    /// Opens a lane for a worker that asks for it; where is it?
    pub fn open_learnt(
        &mut self,
        id: LaneId,
        addr: &SocketAddr,
        reach: &Reach,
    ) -> io::Result<Addr> {
        let fd = socket::open_lane(addr, reach)?;
        self.patience.set(fd.as_fd())?;
        let addr = Addr::Tcp(socket::local_addr(fd.as_fd())?);
        let lane = Lane {
            inode: fds::inode(fd.as_fd())?,
            fd,
            addr: addr.clone(),
            handed: None,
            listens: false,
            filed: None,
        };
        self.lanes.insert(id, lane);
        Ok(addr)
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
        if lane.addr.tcp().is_some() && !socket::is_listening(lane.fd.as_fd()) {
            socket::listen_first(lane.fd.as_fd(), self.backlog)?;
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

    /// Closes it, in the workers that were handed it as well: their copies would go on listening,
    /// and the clients in that queue would hang.
    pub fn close(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.remove(&id) {
            socket::stop_listening(lane.fd.as_fd());
        }
    }

    /// Lanes that do not listen and that somebody connects from.
    pub fn connected(&self) -> Vec<LaneId> {
        let hit = |(_, l): &(&LaneId, &Lane)| {
            !l.listens && l.addr.tcp().is_some() && socket::is_connected(l.fd.as_fd())
        };
        self.lanes.iter().filter(hit).map(|(id, _)| *id).collect()
    }

    /// Lets go of one: what the workers have of it is theirs alone.
    pub fn let_go(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.remove(&id) {
            inherit::no_linger(lane.fd.as_fd());
        }
    }

    /// Closes all: from here on clients are refused. Names go first, so that no client comes by one
    /// to a queue that nobody reads.
    pub fn close_all(&mut self) {
        for lane in self.lanes.values() {
            if let Some(filed) = &lane.filed {
                filed.remove();
            }
        }
        self.lanes.clear();
    }

    /// Their files stay when we go, with one name alone.
    pub fn leave_files(&mut self) {
        for lane in self.lanes.values_mut() {
            if let Some(filed) = lane.filed.take() {
                filed.leave();
            }
        }
    }

    /// The file of a unix lane.
    pub fn filed(&self, id: LaneId) -> Option<&Filed> {
        self.lanes.get(&id)?.filed.as_ref()
    }

    /// All lanes that have one.
    pub fn all_filed(&self) -> Vec<LaneId> {
        let filed = self.lanes.iter().filter(|(_, l)| l.filed.is_some());
        filed.map(|(id, _)| *id).collect()
    }

    /// Are there unix sockets among them that a worker may want to bind?
    pub fn has_unix(&self) -> bool {
        let unix = |l: &Lane| matches!(l.addr, Addr::Unix(_));
        self.lanes.values().any(unix)
    }

    /// The address of the unix lane that a thread means by this path, seen with these eyes.
    pub fn unix_meant<W>(&self, tid: i32, path: &Path, eyes: impl Fn() -> W) -> Option<Addr> {
        let meant = |l: &&Lane| match (&l.filed, &l.addr) {
            (Some(filed), _) => filed.is_meant(tid, path, &eyes),
            (None, Addr::Unix(ours)) => ours == path,
            (None, Addr::Tcp(_) | Addr::Other(_)) => false,
        };
        self.lanes.values().find(meant).map(|l| l.addr.clone())
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

    /// TCP addresses that were given, in their order.
    pub fn given(&self) -> Vec<SocketAddr> {
        self.given.iter().filter_map(Addr::tcp).collect()
    }

    /// What every worker is handed from fd 3 on, in the order in which it was given.
    pub fn handed(&self) -> Vec<Handed<'_>> {
        let handed = self.lanes.values().filter_map(|l| {
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

/// What it is called where it has no name: a colon separates names, so there must be none in one.
fn name_of(addr: &Addr) -> String {
    let name = match addr {
        Addr::Tcp(a) => a.port().to_string(),
        Addr::Unix(path) => path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into(),
        Addr::Other(_) => "unknown".to_string(),
    };
    let harmless = |c: char| c.is_ascii_graphic() && c != ':';
    name.chars().filter(|c| harmless(*c)).collect()
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
