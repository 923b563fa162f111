//! Lanes of workers that are not ready yet, by which one client comes alone: who asks whether they are.
//! It is known by its address and port, which nobody else has on this machine, nor can have.

use super::{Group, refusal};
use crate::core::LaneId;
use crate::sys::steer::{self, Gate};
use crate::wire::steering;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

impl Group {
    /// Who comes from there comes by that lane, and is let in.
    pub fn ask(&mut self, lane: LaneId, from: SocketAddr) -> io::Result<()> {
        let Some(member) = self.members.of(lane) else {
            return Err(io::Error::from(io::ErrorKind::NotFound));
        };
        // (Kept out by distance, it is near enough.)
        if member.gate == Some(Gate::Filter) {
            let filter = steering::raw(&steering::refuse_but(from));
            steer::filter(member.fd.as_fd(), &filter)?;
        }
        self.asked.insert(lane, from);
        self.apply()
    }

    /// It does not any more.
    pub fn asked(&mut self, lane: LaneId) -> io::Result<()> {
        if self.asked.remove(&lane).is_none() {
            return Ok(());
        }
        if let Some(member) = self.members.of(lane)
            && member.gate == Some(Gate::Filter)
        {
            steer::filter(member.fd.as_fd(), &refusal())?;
        }
        self.apply()
    }

    pub(super) fn is_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// Those, by the places of their lanes.
    pub(super) fn asked_at(&self) -> Vec<(SocketAddr, u32)> {
        let place = |(lane, from): (&LaneId, &SocketAddr)| {
            let at = self.members.index(*lane)?;
            Some((*from, u32::try_from(at).ok()?))
        };
        self.asked.iter().filter_map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Table;
    use crate::sys::socket::{self, Reach};
    use std::net::TcpListener;
    use std::time::Duration;

    fn listener(fd: std::os::fd::OwnedFd) -> TcpListener {
        let listener = TcpListener::from(fd);
        listener.set_nonblocking(true).unwrap();
        listener
    }

    /// Connects from there; whom has it come to?
    fn asks(group: &Group, fd: &std::os::fd::OwnedFd, lanes: &[TcpListener]) -> Option<usize> {
        let done = socket::connect(fd.as_fd(), group.addr());
        assert!(done.is_ok() || done.unwrap_err().raw_os_error() == Some(libc::EINPROGRESS));
        lanes.iter().position(|l| l.accept().is_ok())
    }

    #[test]
    fn who_asks_comes_by_the_lane_that_is_asked_and_nobody_else_by_whatever_gate_it_is_kept_shut() {
        for (any, gate) in [
            ("127.0.0.1:0", Gate::Filter),
            ("127.0.0.1:0", Gate::Distance),
            ("[::1]:0", Gate::Filter),
            ("[::1]:0", Gate::Distance),
        ] {
            let from = any.parse().unwrap();
            let reach = Reach::default();
            let fd = socket::open_lane(&from, &reach).unwrap();
            socket::listen_first(fd.as_fd(), 64).unwrap();
            let addr = socket::local_addr(fd.as_fd()).unwrap();
            let mut group = Group::new(addr, reach, 64, LaneId(1));
            group.joined(LaneId(1), fd.as_fd(), false).unwrap();
            let mut lanes = vec![listener(fd)];
            for n in 2..=4 {
                lanes.push(listener(group.open(LaneId(n)).unwrap()));
            }
            if gate == Gate::Distance {
                for m in group.members.gates().skip(1) {
                    steer::let_in(m.fd.as_fd(), Gate::Filter).unwrap();
                    m.gate = Some(steer::keep_near(m.fd.as_fd()).unwrap());
                }
            }
            let near = || socket::open_near(&from).unwrap();
            let (first, second) = (near(), near());
            let at = |fd: &std::os::fd::OwnedFd| socket::local_addr(fd.as_fd()).unwrap();
            group.ask(LaneId(3), at(&first)).unwrap();
            group.ask(LaneId(4), at(&second)).unwrap();
            // A lane that goes makes another one move.
            drop(lanes.remove(1));
            group.retire(LaneId(2)).unwrap();
            assert_eq!(asks(&group, &second, &lanes), Some(2), "{any} {gate:?}");
            assert_eq!(asks(&group, &first, &lanes), Some(1), "{any} {gate:?}");
            for _ in 0..20 {
                assert_eq!(asks(&group, &near(), &lanes), Some(0));
            }
            // Also where nobody else gets in at all.
            group.steer(&Table::default()).unwrap();
            let limit = Duration::from_millis(50);
            assert!(!socket::connects_within(group.addr(), limit));
            let again = near();
            group.ask(LaneId(3), at(&again)).unwrap();
            assert!(!socket::connects_within(group.addr(), limit));
            assert_eq!(asks(&group, &again, &lanes), Some(1), "{any} {gate:?}");
            let late = near();
            group.ask(LaneId(3), at(&late)).unwrap();
            group.asked(LaneId(3)).unwrap();
            assert_eq!(asks(&group, &late, &lanes), None);
        }
    }
}
