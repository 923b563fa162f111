//! The names of unix sockets are watched, and put back when a worker removes them.

use super::filed::{Filed, Mended};
use super::{Kind, Shell, token};
use crate::core::words::reason;
use crate::core::{LaneId, Level, Phase};
use mio::unix::SourceFd;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

/// So often in one turn it is read what has happened to files.
const READS: usize = 16;

impl Shell {
    /// Asks the kernel to tell when a name of the lane's file goes.
    pub(super) fn watch_file(&mut self, lane: LaneId) {
        let hidden = self.sockets.filed(lane).and_then(Filed::hidden);
        let Some(hidden) = hidden.map(Path::to_path_buf) else {
            return;
        };
        if let Err(e) = self.try_watch(&hidden) {
            let message = format!(
                "cannot watch {}: {}; if a worker removes it, it is put back when one binds it again",
                hidden.display(),
                reason(&e)
            );
            self.say_once(Level::Warn, "socket-unwatched", message);
        }
    }

    fn try_watch(&mut self, file: &Path) -> io::Result<()> {
        if self.files.is_none() {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            let fd = inotify.as_fd().as_raw_fd();
            let at = token(Kind::Files, 0);
            let registry = self.poll.registry();
            registry.register(&mut SourceFd(&fd), at, mio::Interest::READABLE)?;
            self.files = Some(inotify);
        }
        if let Some(inotify) = &self.files {
            // A name less is a change of the file's attributes.
            let gone = AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MOVE_SELF;
            inotify.add_watch(
                file,
                gone | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_DONT_FOLLOW,
            )?;
        }
        Ok(())
    }

    /// Something happened to one of them. All are looked at: they are few.
    pub(super) fn files_changed(&mut self) {
        if let Some(inotify) = &self.files {
            let mut reads = 0..READS;
            while reads.next().is_some() && inotify.read_events().is_ok_and(|some| !some.is_empty())
            {
            }
            if reads.is_empty() {
                self.ready.insert((Kind::Files, 0));
            }
        }
        for lane in self.sockets.all_filed() {
            self.mend_file(lane);
        }
    }

    /// Puts the name back if it has gone. Not while stopping: nobody would answer there.
    pub(super) fn mend_file(&mut self, lane: LaneId) {
        if self.cluster.phase() != Phase::Serving {
            return;
        }
        let Some(filed) = self.sockets.filed(lane) else {
            return;
        };
        let (shown, path) = (
            filed.path().display().to_string(),
            filed.path().to_path_buf(),
        );
        let mended = filed.mend();
        if let Mended::Taken = mended {
            // When that goes, it is our turn again.
            let _ = self.try_watch(&path);
        }
        let (level, event, message) = match mended {
            Mended::Fine => return,
            Mended::PutBack => (
                Level::Debug,
                "socket-put-back",
                format!("a worker has removed {shown}, which all workers share: put back"),
            ),
            Mended::Taken => (
                Level::Warn,
                "socket-taken",
                format!(
                    "something else is at {shown} now: clients that come by that path do not reach the workers; remove it, and ours is put back"
                ),
            ),
            Mended::Lost(e) => (
                Level::Error,
                "socket-lost",
                format!(
                    "{shown} was removed and cannot be put back ({}): no client finds it any more; stop and start again",
                    reason(&e)
                ),
            ),
        };
        match level {
            Level::Debug => self.say(level, event, message),
            Level::Error | Level::Warn | Level::Info => self.say_once(level, event, message),
        }
    }
}
