//! How lanes come to be: those that were given, those that stand beside others, those that were learnt.

use super::{Lane, Place, Sockets, is_abstract};
use crate::core::{Addr, Given, LaneId};
use crate::shell::filed::Filed;
use crate::shell::group::Group;
use crate::sys::socket::{self, Reach};
use crate::sys::{clock, passed, unix};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Addresses that are in use are tried again so often in all,
pub(super) const AGAIN: u32 = 50;
/// after that long.
const IN_A_MOMENT: Duration = Duration::from_millis(20);

impl Sockets {
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
            (None, addr @ Addr::Tcp(_)) if self.finds_several(addr) => self.regroup(at, addr)?,
            (None, addr) if self.finds(addr) => {
                let (fd, addr, file) = self.take_found(addr)?;
                filed = file;
                (fd, addr)
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
        if let Addr::Tcp(addr) = addr
            && !self.groups.contains_key(&at.port)
        {
            let reach = Reach::of(fd.as_fd());
            let mut group = Group::new(addr, reach, self.backlog, at.lane);
            group.joined(at.lane, fd.as_fd(), passed)?;
            self.groups.insert(at.port, group);
        }
        let lane = Lane {
            passed,
            like: given.file,
            handed: Some(name.unwrap_or_else(|| name_of(&addr))),
            listens: !matches!(addr, Addr::Other(_)),
            filed,
            ..Lane::plain(at, fd, addr.clone())?
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
                let fd = group.claim(at.lane, self.meant.get(&at.lane))?;
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
            handed: mate.handed.clone(),
            listens: true,
            filed,
            like: mate.like,
            ..Lane::plain(at, fd, mate.addr.clone())?
        };
        let addr = lane.addr.clone();
        self.lanes.insert(at.lane, lane);
        Ok(addr)
    }

    /// Opens a lane for a worker that asks for it; where is it?
    pub fn open_learnt(&mut self, at: Place, addr: &SocketAddr, reach: &Reach) -> io::Result<Addr> {
        if self.finds(&Addr::Tcp(*addr)) {
            return self.open_found(at, addr);
        }
        let fd = socket::open_lane(addr, reach)?;
        self.patience.set(fd.as_fd())?;
        let local = socket::local_addr(fd.as_fd())?;
        let group = Group::new(local, reach.clone(), self.backlog, at.lane);
        self.groups.insert(at.port, group);
        let lane = Lane::plain(at, fd, Addr::Tcp(local))?;
        self.lanes.insert(at.lane, lane);
        Ok(Addr::Tcp(local))
    }

    fn adopt(&self, n: i32, addr: &Addr) -> io::Result<OwnedFd> {
        let fd = passed::take(n)?;
        let silent = !matches!(addr, Addr::Other(_)) && !socket::is_listening(fd.as_fd());
        if silent {
            socket::listen(fd.as_fd(), self.backlog)?;
        }
        Ok(fd)
    }
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
