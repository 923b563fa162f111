//! Lanes kept by whoever supervises us (systemd's FileDescriptorStoreMax=), so that a crash of ours costs no
//! client: the next start gets them with LISTEN_FDS, and what waits in their queues is served.
//!
//! Rules:
//! 1. Only where $FDSTORE says that there is a store (systemd 254), and as many as it takes.
//! 2. A lane is kept as long as new connections go to it: so there is one of each port, as a rule. It is called
//!    after its inode, by which it is known again, and no other lane is called so.
//! 3. FDPOLL=0: a listening socket that a worker shuts down is not to vanish from there by itself.
//! 4. A graceful end leaves nothing there. What could not be told is told again when there is anything else
//!    to do: it knows a descriptor that it has already.
//! 5. Where each worker has lanes of its own none is kept: their order in the kernel, by which they are
//!    steered, would be lost.

use super::Shell;
use super::sockets::found::Found;
use crate::core::words::reason;
use crate::core::{Addr, Level};
use crate::sys::{fds, socket};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

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
        if wanted == self.store.kept {
            return;
        }
        let mut done = Ok(());
        for inode in self.store.kept.difference(&wanted) {
            done = done.and(self.supervisor.unstore(&name_of(*inode)));
        }
        for inode in wanted.difference(&self.store.kept) {
            let lane = self.sockets.by_inode(*inode);
            if let Some(fd) = lane.and_then(|lane| self.sockets.fd(lane)) {
                done = done.and(self.supervisor.store(&name_of(*inode), &[fd], false));
            }
        }
        let Err(e) = done else {
            (self.store.kept, self.store.failed) = (wanted, false);
            return;
        };
        if !std::mem::replace(&mut self.store.failed, true) {
            let message = format!(
                "cannot keep sockets in the store of whoever supervises us (FDSTORE): {}; if we crash, clients are refused until the next start",
                reason(&e)
            );
            self.say(Level::Warn, "store-failed", message);
        }
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
