//! Lanes kept by whoever supervises us (systemd's FileDescriptorStoreMax=), so that a crash of ours costs no
//! client: the next start gets them with LISTEN_FDS, and what waits in their queues is served.
//!
//! Rules:
//! 1. Only where $FDSTORE says that there is a store (systemd 254), and as many as it takes.
//! 2. A lane is kept as long as new connections go to it: so there is one of each port, as a rule. It is called
//!    after its inode, by which it is known again, and no other lane is called so.
//! 3. FDPOLL=0: a listening socket that a worker shuts down is not to vanish from there by itself.
//! 4. A graceful end leaves nothing there. What could not be told is told again soon. A lane is taken out when the
//!    one in its place is in, so that a crash in between costs nobody.
//! 5. Where each worker has lanes of its own none is kept: their order in the kernel, by which they are
//!    steered, would be lost. Nor is one that is beside a socket that was passed to us: whoever starts us passes
//!    that again, and it alone is the port.

use super::Shell;
use super::sockets::found::Found;
use crate::core::words::reason;
use crate::core::{Addr, Level, Time};
use crate::sys::{fds, socket};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// After so long what could not be told is told again.
const AGAIN: Duration = Duration::from_secs(2);

/// What stands before the inode.
const PREFIX: &str = "minicluster-lane-";

/// Is that the name of one of ours?
pub fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}

fn name_of(inode: u64) -> String {
    format!("{PREFIX}{inode}")
}

/// What is in the store, as far as we know.
#[derive(Default, Serialize, Deserialize)]
pub struct Store {
    most: usize,
    kept: BTreeSet<u64>,
    /// Did it fail, and was that said?
    failed: bool,
    /// When it is tried again.
    #[serde(skip)]
    again: Option<Time>,
}

impl Store {
    /// As our environment says; these were in it.
    pub fn from_environment(spread: bool, were: &[OwnedFd]) -> Store {
        let most = std::env::var("FDSTORE").unwrap_or_default();
        Store {
            most: match spread {
                true => 0,
                false => most.trim().parse().unwrap_or(0),
            },
            kept: were
                .iter()
                .filter_map(|fd| fds::inode(fd.as_fd()).ok())
                .collect(),
            failed: false,
            again: None,
        }
    }

    /// Is there nothing to do, ever?
    fn is_idle(&self) -> bool {
        self.most == 0 && self.kept.is_empty()
    }
}

/// Those that were in the store, as what they are.
pub fn found(were: Vec<OwnedFd>, asked: &[Addr]) -> Vec<Found> {
    let each = were.into_iter();
    each.filter_map(|fd| Found::of(fd, asked)).collect()
}

impl Shell {
    /// What is kept becomes what should be.
    pub(super) fn keep_store(&mut self) {
        if self.store.is_idle() {
            return;
        }
        let wanted: BTreeSet<u64> = self
            .sockets
            .to_keep()
            .into_iter()
            .take(self.store.most)
            .collect();
        let now = self.now();
        if wanted == self.store.kept || self.store.again.is_some_and(|at| at > now) {
            return;
        }
        self.store.again = None;
        // What is new first: between the two there is no moment without one. (More than it takes it closes.)
        let mut done = self.store_new(&wanted);
        for inode in self.store.kept.clone().difference(&wanted) {
            done = done.and_then(|()| self.supervisor.unstore(&name_of(*inode)));
            if done.is_ok() {
                self.store.kept.remove(inode);
            }
        }
        let done = done.and_then(|()| self.store_new(&wanted));
        let Err(e) = done else {
            self.store.failed = false;
            return;
        };
        self.store.again = Some(now + AGAIN);
        if !std::mem::replace(&mut self.store.failed, true) {
            let message = format!(
                "cannot keep sockets in the store of whoever supervises us (FDSTORE): {}; if we crash, clients are refused until the next start",
                reason(&e)
            );
            self.say(Level::Warn, "store-failed", message);
        }
    }

    /// Those that are not in it yet, as far as there is room.
    fn store_new(&mut self, wanted: &BTreeSet<u64>) -> io::Result<()> {
        for inode in wanted {
            if self.store.kept.len() >= self.store.most || self.store.kept.contains(inode) {
                continue;
            }
            // (One that was found may be no lane yet.)
            let lane = self.sockets.by_inode(*inode);
            if let Some(fd) = lane.and_then(|lane| self.sockets.fd(lane)) {
                self.supervisor.store(&name_of(*inode), &[fd], false)?;
                self.store.kept.insert(*inode);
            }
        }
        Ok(())
    }

    /// When what it did not take is told again.
    pub(super) fn store_deadline(&self) -> Option<Time> {
        self.store.again
    }

    /// The end: nothing is kept.
    pub(super) fn empty_store(&mut self) {
        for inode in std::mem::take(&mut self.store.kept) {
            // It has a copy for a moment still, which is to keep no client waiting.
            let lane = self.sockets.by_inode(inode);
            if let Some(fd) = lane.and_then(|lane| self.sockets.fd(lane)) {
                socket::stop_listening(fd);
            }
            // Whoever hears it, or does not, ends us.
            let _ = self.supervisor.unstore(&name_of(inode));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_ours_is_known_and_is_one_that_the_store_takes() {
        let name = name_of(u64::MAX);
        assert!(is_ours(&name) && !is_ours("http") && name.len() <= 255);
        assert!(name.chars().all(|c| c.is_ascii_graphic() && c != ':'));
    }
}
