//! Files that are sent to clients: read in portions, when what was read before is out, so that one costs no
//! memory however long it is, and nobody waits long for its turn.

use super::one::Client;
use super::{ClientId, Clients, KEPT, NEXT_REQUEST};
use crate::core::Time;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

/// Read at once.
const PORTION: u64 = 64 * 1024;
/// So many may be sent at a time: each is a descriptor more.
pub const MAX_FILES: usize = 16;

/// What is left to be sent of a file.
pub struct Body {
    pub file: File,
    pub at: u64,
    pub left: u64,
}

/// How sending goes on.
#[derive(PartialEq, Eq)]
pub(super) enum Fed {
    /// There is more to be written.
    More,
    /// That is all.
    All,
    /// There is less than was promised: somebody has emptied the file.
    Less,
}

impl Client {
    /// Writes what waits, as far as it goes.
    pub(super) fn write_out(&mut self) -> io::Result<()> {
        self.stuck = false;
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(n) => {
                    self.first = self.first.saturating_sub(n);
                    drop(self.output.drain(..n));
                    self.rest();
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.stuck = true;
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// All is out, if so.
    fn rest(&mut self) {
        if self.output.is_empty() && self.body.is_none() {
            self.output.shrink_to(KEPT);
            self.confess();
            self.end_writing();
        }
    }

    /// The next portion of the file that is sent, if there is one.
    pub(super) fn feed(&mut self) -> Fed {
        if !self.output.is_empty() {
            return Fed::All;
        }
        let Some(body) = &mut self.body else {
            return Fed::All;
        };
        self.moved = true;
        if body.left == 0 {
            self.body = None;
            if let Some(http) = &mut self.http {
                // The next request may have come.
                http.due = true;
            }
            self.rest();
            return Fed::All;
        }
        let length = usize::try_from(body.left.min(PORTION)).unwrap_or(0);
        let mut bytes = vec![0; length];
        let n = match body.file.read_at(&mut bytes, body.at) {
            Ok(n) if n > 0 => n,
            // The promise cannot be kept, and the client has to know.
            Ok(_) | Err(_) => return Fed::Less,
        };
        bytes.truncate(n);
        body.at = body.at.saturating_add(n as u64);
        body.left = body.left.saturating_sub(n as u64);
        self.output.append(&mut bytes);
        Fed::More
    }
}

impl Clients {
    /// May one more be sent?
    pub fn may_send_file(&self) -> bool {
        let sent = self.map.values().filter(|c| c.body.is_some());
        sent.count() < MAX_FILES
    }

    /// A file follows the head of an answer that is sent next.
    pub fn sends(&mut self, id: ClientId, body: Body) {
        if let Some(c) = self.map.get_mut(&id) {
            c.body = Some(body);
        }
    }

    /// Is there more to be sent at once? Who takes what it is sent has time for the rest.
    pub fn goes_on(&mut self, id: ClientId, now: Time) -> bool {
        let Some(c) = self.map.get_mut(&id) else {
            return false;
        };
        if std::mem::take(&mut c.moved) {
            c.say_by = now + NEXT_REQUEST;
            c.speaks(now);
        }
        c.body.is_some() && !c.stuck
    }
}
