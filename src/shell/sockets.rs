//! Lanes as real sockets, by id and by inode.

use super::filed::Filed;
use super::group::Group;
use super::observer::Ports;
use crate::core::{Addr, FileIs, Given, LaneId, PortId};
use crate::settings::Settings;
use crate::sys::socket::{self, Patience, Reach};
use crate::sys::{clock, fds, inherit, passed, unix};
use std::collections::{BTreeMap, BTreeSet};
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
    port: PortId,
    /// Whose workers it is for.
    generation: u32,
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
}

/// Which lane of what is to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// It.
    pub lane: LaneId,
    /// Where it is.
    pub port: PortId,
    /// Whose workers it is for.
    pub generation: u32,
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
    /// Of the ports of TCP.
    groups: BTreeMap<PortId, Group>,
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
            groups: BTreeMap::new(),
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
    pub fn open_given(&mut self, at: Place, given: &Given) -> io::Result<Addr> {
        let busy = |e: &io::Error| e.raw_os_error() == Some(libc::EADDRINUSE);
        loop {
            match self.try_given(at, given) {
                Err(e) if busy(&e) && given.passed.is_none() && self.waits > 0 => {
                    self.waits -= 1;
                    clock::pause(IN_A_MOMENT);
                }
                other => return other,
            }
        }
    }

    fn try_given(&mut self, at: Place, given: &Given) -> io::Result<Addr> {
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
        let passed = given.passed.is_some();
        if let Addr::Tcp(addr) = addr {
            let reach = Reach::of(fd.as_fd());
            let mut group = Group::new(addr, reach, self.backlog, at.lane);
            group.joined(at.lane, fd.as_fd(), passed)?;
            self.groups.insert(at.port, group);
        }
        let lane = Lane {
            inode: fds::inode(fd.as_fd())?,
            fd,
            port: at.port,
            generation: at.generation,
            passed,
            like: given.file,
            handed: Some(name.unwrap_or_else(|| name_of(&addr))),
            addr: addr.clone(),
            listens: !matches!(addr, Addr::Other(_)),
            filed,
        };
        self.given.push(addr.clone());
        self.lanes.insert(at.lane, lane);
        Ok(addr)
    }

    /// Opens a lane beside the others of its port: it listens, and nothing comes in yet.
    pub fn open_beside(&mut self, at: Place, first: LaneId) -> io::Result<Addr> {
        let unsupported = || io::Error::from(io::ErrorKind::Unsupported);
        let mate = self.lanes.get(&first).ok_or_else(unsupported)?;
        let mut filed = None;
        let fd = match (&mate.addr, &mate.filed) {
            (Addr::Tcp(_), _) => {
                let group = self.groups.get_mut(&at.port).ok_or_else(unsupported)?;
                let fd = group.open(at.lane)?;
                self.patience.set(fd.as_fd())?;
                fd
            }
            (Addr::Unix(_), Some(name)) => {
                let (fd, file) = name.beside(&mate.like, self.backlog)?;
                filed = Some(file);
                fd
            }
            (Addr::Unix(_) | Addr::Other(_), _) => return Err(unsupported()),
        };
        let lane = Lane {
            inode: fds::inode(fd.as_fd())?,
            fd,
            addr: mate.addr.clone(),
            port: at.port,
            generation: at.generation,
            passed: false,
            handed: mate.handed.clone(),
            listens: true,
            filed,
            like: mate.like,
        };
        let addr = lane.addr.clone();
        self.lanes.insert(at.lane, lane);
        Ok(addr)
    }

    /// From now on new connections of the port go there.
    pub fn steer(&mut self, port: PortId, table: &[(LaneId, u16)]) -> io::Result<()> {
        if let Some(group) = self.groups.get_mut(&port) {
            return group.steer(table);
        }
        // A name can lead to one of them only: to the newest.
        match table.iter().map(|(lane, _)| *lane).max() {
            Some(lane) => self.name_to(port, lane),
            None => Ok(()),
        }
    }

    /// The path of the unix sockets of that port leads to this one.
    fn name_to(&mut self, port: PortId, to: LaneId) -> io::Result<()> {
        let holds = |l: &Lane| l.filed.as_ref().is_some_and(Filed::is_named);
        let mut holder = self
            .lanes
            .iter()
            .filter(|(_, l)| l.port == port && holds(l));
        let Some(from) = holder.next().map(|(id, _)| *id).filter(|from| *from != to) else {
            return Ok(());
        };
        let mut taken = |id| {
            self.lanes
                .get_mut(&id)
                .and_then(|l: &mut Lane| l.filed.take())
        };
        let (Some(mut old), Some(mut new)) = (taken(from), taken(to)) else {
            return Ok(());
        };
        let done = new.take_name(&mut old);
        for (id, filed) in [(from, old), (to, new)] {
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.filed = Some(filed);
            }
        }
        done
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

    /// Takes a lane out that nobody serves any more. How many waited in its queue?
    pub fn retire(&mut self, id: LaneId) -> io::Result<u32> {
        let Some(lane) = self.lanes.remove(&id) else {
            return Ok(0);
        };
        if let Some(group) = self.groups.get_mut(&lane.port) {
            let queued = group.retire(id)?;
            let more = self.lanes.values().any(|l| l.port == lane.port);
            if !more && !lane.passed {
                self.groups.remove(&lane.port);
            }
            return Ok(queued);
        }
        let waits = u32::from(fds::readable_now(lane.fd.as_fd()));
        if let Some(filed) = lane.filed.filter(|_| !lane.passed) {
            filed.remove();
        }
        Ok(waits)
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

    /// Where a lane is.
    pub fn addr(&self, id: LaneId) -> Option<&Addr> {
        self.lanes.get(&id).map(|l| &l.addr)
    }

    /// The port that a lane is a way to.
    pub fn port(&self, id: LaneId) -> Option<PortId> {
        self.lanes.get(&id).map(|l| l.port)
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

    fn adopt(&self, n: i32, addr: &Addr) -> io::Result<OwnedFd> {
        let fd = passed::take(n)?;
        let silent = !matches!(addr, Addr::Other(_)) && !socket::is_listening(fd.as_fd());
        if silent {
            socket::listen(fd.as_fd(), self.backlog)?;
        }
        Ok(fd)
    }

    /// Opens a lane for a worker that asks for it; where is it?
    pub fn open_learnt(&mut self, at: Place, addr: &SocketAddr, reach: &Reach) -> io::Result<Addr> {
        let fd = socket::open_lane(addr, reach)?;
        self.patience.set(fd.as_fd())?;
        let local = socket::local_addr(fd.as_fd())?;
        let group = Group::new(local, reach.clone(), self.backlog, at.lane);
        self.groups.insert(at.port, group);
        let lane = Lane {
            inode: fds::inode(fd.as_fd())?,
            fd,
            addr: Addr::Tcp(local),
            port: at.port,
            generation: at.generation,
            passed: false,
            handed: None,
            listens: false,
            filed: None,
            like: FileIs::default(),
        };
        self.lanes.insert(at.lane, lane);
        Ok(Addr::Tcp(local))
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
            if let Some(group) = self.groups.get_mut(&lane.port) {
                // What happens to its queue happens to it in any case.
                let _ = group.retire(id);
            }
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
            self.groups.remove(&lane.port);
            inherit::no_linger(lane.fd.as_fd());
        }
    }

    /// Closes all: from here on clients are refused. Names go first, so that no client comes by one
    /// to a queue that nobody reads.
    pub fn close_all(&mut self) {
        self.give_names_back();
        for lane in self.lanes.values() {
            if let Some(filed) = &lane.filed {
                filed.remove();
            }
        }
        self.groups.clear();
        self.lanes.clear();
    }

    /// Whoever passed us a unix socket finds it at its path again.
    fn give_names_back(&mut self) {
        let passed = self
            .lanes
            .iter()
            .filter(|(_, l)| l.passed && l.filed.is_some());
        let all: Vec<(LaneId, PortId)> = passed.map(|(id, l)| (*id, l.port)).collect();
        for (lane, port) in all {
            // It has its hidden name still, by which the next start gives it back.
            let _ = self.name_to(port, lane);
        }
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

    /// What the unix sockets among them were bound to: their connections have the same.
    pub fn unix_names(&self) -> BTreeSet<Vec<u8>> {
        let unix = |l: &&Lane| matches!(l.addr, Addr::Unix(_));
        let lanes = self.lanes.values().filter(unix);
        lanes
            .filter_map(|l| passed::bound_to(l.fd.as_fd()))
            .collect()
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

    /// Does a thread that says `path` mean the name of a unix lane, and is that still there?
    pub fn keeps_name<W>(&self, tid: i32, path: &Path, eyes: impl Fn() -> W) -> bool {
        let named = |l: &&Lane| l.filed.as_ref().is_some_and(Filed::is_in_place);
        let meant = |l: &Lane| {
            l.filed
                .as_ref()
                .is_some_and(|f| f.is_meant(tid, path, &eyes))
        };
        self.lanes.values().filter(named).any(meant)
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

    /// What every worker of this generation is handed from fd 3 on, in the order in which it was given:
    /// of each port its own lane, or the one that all share.
    pub fn handed(&self, generation: u32) -> Vec<Handed<'_>> {
        let mut of: BTreeMap<PortId, &Lane> = BTreeMap::new();
        let fits = |l: &&Lane| l.handed.is_some() && l.generation <= generation;
        for lane in self.lanes.values().filter(fits) {
            let best = of.entry(lane.port).or_insert(lane);
            if best.generation <= lane.generation {
                *best = lane;
            }
        }
        let handed = of.into_values().filter_map(|l| {
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
