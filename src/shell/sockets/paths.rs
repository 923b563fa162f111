//! Unix sockets among the lanes: what they are called, and who is meant by a path.

use super::{Lane, Sockets};
use crate::core::{Addr, LaneId, PortId};
use crate::shell::filed::Filed;
use crate::sys::passed;
use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

impl Sockets {
    /// The path of the unix sockets of that port leads to this one.
    pub(super) fn name_to(&mut self, port: PortId, to: LaneId) -> io::Result<()> {
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

    /// Whoever passed us a unix socket finds it at its path again.
    pub(super) fn give_names_back(&mut self) {
        let passed = self
            .lanes
            .iter()
            .filter(|(_, l)| l.passed && l.filed.is_some());
        let all: Vec<(LaneId, PortId)> = passed.map(|(id, l)| (*id, l.port)).collect();
        for (lane, port) in all {
            // It has its hidden name still, by which the next start gives it back.
            let _ = self.name_to(port, lane);
        }
        for (port, kept) in &mut self.kept {
            let here = self.lanes.values_mut().filter(|l| l.port == *port);
            let mut named = here
                .filter_map(|l| l.filed.as_mut())
                .filter(|f| f.is_named());
            if let Some(holder) = named.next() {
                let _ = kept.take_name(holder);
            }
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
}
