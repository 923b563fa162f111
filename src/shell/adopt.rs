//! Workers' sockets that ours cannot replace, and that are made ours instead: bound by us while the
//! worker waits in its bind(2). (Bound by the worker it might be bound elsewhere: it can change the
//! address meanwhile.)

use super::sockets::Place;
use super::sockets::own::{Theirs, Unfit};
use super::{Shell, unseen};
use crate::core::words::{count, reason};
use crate::core::{Addr, Ask, Event, LaneId, Level, Snag, WorkerId};
use crate::sys::seccomp::Answer;
use crate::sys::{errno_of, procfs, proclook};
use std::net::SocketAddr;

impl Shell {
    /// Makes the socket of this bind(2) a lane. What became of it?
    pub(super) fn adopt(
        &mut self,
        at: Place,
        addr: &SocketAddr,
        ask: Ask,
        beside: bool,
        snag: Snag,
    ) -> Event {
        let lane = at.lane;
        let filtered = snag == Snag::Filtered;
        let done = match self.theirs(ask, filtered) {
            Ok(theirs) => self.sockets.adopt_own(at, addr, beside, theirs),
            Err(e) => Err(Unfit::Step("pidfd_getfd", e)),
        };
        match done {
            Ok(()) => {
                let addr = Addr::Tcp(*addr);
                self.watch_lane(lane, &addr);
                Event::LaneOpened { lane, addr }
            }
            Err(Unfit::Bind(e)) => Event::LaneFailed {
                lane,
                errno: errno_of(&e),
                holder: self.holder(errno_of(&e), Some(*addr)),
            },
            Err(Unfit::Step(step, e)) => Event::AdoptFailed {
                lane,
                step,
                errno: errno_of(&e),
            },
        }
    }

    fn theirs(&mut self, ask: Ask, filtered: bool) -> std::io::Result<Theirs> {
        let gone = || std::io::Error::from_raw_os_error(libc::ESRCH);
        let p = self.pending.get_mut(&ask).ok_or_else(gone)?;
        let (worker, at) = (p.worker, p.place());
        let copy = match p.take_copy() {
            Some(copy) => copy,
            None => {
                let _worn = self.to_look();
                unseen::copy_of(at.0, at.1)?
            }
        };
        Ok(Theirs {
            copy,
            worker,
            filtered,
        })
    }

    /// It is bound: the worker may go on.
    pub(super) fn bound(&mut self, ask: Ask) {
        self.settle_ask(ask, Answer::Zero);
    }

    /// A worker that binds anew may have closed what it had before: then that is nobody's, and our copy
    /// keeps a queue open that nobody reads.
    pub(super) fn release_closed(&mut self, worker: WorkerId) {
        let own = self.sockets.own_of(worker);
        let pid = self.procs.map.get(&worker).and_then(|p| p.pid);
        let Some(pid) = pid.filter(|_| !own.is_empty() && procfs::is_ours()) else {
            return;
        };
        let tree = procfs::tree(pid);
        let worn = self.to_look();
        let seen = procfs::descriptors(pid).is_some();
        let closed = |(_, inode): &&(LaneId, u64)| seen && !proclook::holds(&tree, *inode, 0);
        let closed: Vec<LaneId> = own.iter().filter(closed).map(|(lane, _)| *lane).collect();
        drop(worn);
        let left = closed.into_iter().map(|lane| Event::LaneLeft { lane });
        self.queue.extend(left);
    }

    /// Nobody will read what is in its queue.
    pub(super) fn flush_lane(&mut self, lane: LaneId) {
        match self.sockets.flush(lane) {
            Ok(0) => {}
            Ok(n) => {
                let message = format!(
                    "reset {}: they came before it was known that each worker has a queue of its own there",
                    count(n as usize, "connection")
                );
                self.say(Level::Warn, "strays-reset", message);
            }
            Err(e) => {
                let message = format!(
                    "cannot empty a queue that no worker reads: {}; who waits in it waits in vain",
                    reason(&e)
                );
                self.say(Level::Error, "steering-error", message);
            }
        }
    }
}
