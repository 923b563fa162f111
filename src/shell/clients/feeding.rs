//! Files that are sent to clients, and long pages that many may ask for: in portions, when what was sent
//! before is out, so that one costs no memory however long it is, and nobody waits long for its turn.

use super::one::Client;
use super::{ClientId, Clients, KEPT, NEXT_REQUEST};
use crate::core::Time;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::Duration;

/// Read at once.
const PORTION: u64 = 64 * 1024;
/// So many may be sent at a time: each is a descriptor more.
pub const MAX_FILES: usize = 16;

/// The same of a page, which is in memory already.
const PAGE_PORTION: u64 = 16 * 1024;
/// Who has asked for a page reads it within that time: it is kept for them.
const PAGE_WITHIN: Duration = Duration::from_secs(10);

/// Where it comes from.
#[derive(Serialize, Deserialize)]
enum Source {
    File(#[serde(with = "crate::shell::carry")] File),
    /// All who have asked for it are sent the same.
    Page(#[serde(with = "crate::shell::carry")] Rc<[u8]>),
    /// What we have anyway. (After a handover it is what was promised, not what the next one has.)
    Still(#[serde(with = "crate::shell::carry")] Cow<'static, [u8]>),
}

/// What is left to be sent.
#[derive(Serialize, Deserialize)]
pub struct Body {
    from: Source,
    at: u64,
    left: u64,
    /// By when all of it has to be out.
    by: Option<Time>,
}

impl Body {
    /// So much of a file, from there.
    pub fn of_file(file: File, at: u64, left: u64) -> Body {
        let from = Source::File(file);
        let by = None;
        Body { from, at, left, by }
    }

    /// A whole page.
    pub fn of_page(page: Rc<[u8]>, now: Time) -> Body {
        let (at, left) = (0, page.len() as u64);
        let (from, by) = (Source::Page(page), Some(now + PAGE_WITHIN));
        Body { from, at, left, by }
    }

    /// Of what we have anyway.
    pub fn still(bytes: &'static [u8], now: Time) -> Body {
        let (at, left) = (0, bytes.len() as u64);
        let (from, by) = (Source::Still(Cow::Borrowed(bytes)), Some(now + PAGE_WITHIN));
        Body { from, at, left, by }
    }

    /// So many bytes are to be sent.
    pub fn left(&self) -> u64 {
        self.left
    }

    fn is_file(&self) -> bool {
        matches!(self.from, Source::File(_))
    }

    /// The next portion; nothing, if there is none although there should be.
    fn portion(&self) -> Vec<u8> {
        let most = match self.from {
            Source::File(_) => PORTION,
            Source::Page(_) | Source::Still(_) => PAGE_PORTION,
        };
        let length = usize::try_from(self.left.min(most)).unwrap_or(0);
        match &self.from {
            Source::File(file) => {
                let mut bytes = vec![0; length];
                let n = file.read_at(&mut bytes, self.at).unwrap_or(0);
                bytes.truncate(n);
                bytes
            }
            Source::Page(page) => self.part(page, length),
            Source::Still(bytes) => self.part(bytes, length),
        }
    }

    fn part(&self, of: &[u8], length: usize) -> Vec<u8> {
        let at = usize::try_from(self.at).unwrap_or(usize::MAX);
        let rest = of.get(at..).unwrap_or_default();
        rest.get(..length).unwrap_or(rest).to_vec()
    }
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
                // Nothing that it takes later, either: tried again it would be so for ever.
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
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
        let mut bytes = body.portion();
        if bytes.is_empty() {
            // The promise cannot be kept, and the client has to know.
            return Fed::Less;
        }
        let n = bytes.len() as u64;
        body.at = body.at.saturating_add(n);
        body.left = body.left.saturating_sub(n);
        self.output.append(&mut bytes);
        Fed::More
    }
}

impl Clients {
    /// May one more be sent?
    pub fn may_send_file(&self) -> bool {
        let file = |c: &&Client| c.body.as_ref().is_some_and(Body::is_file);
        self.map.values().filter(file).count() < MAX_FILES
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
            let by = c.body.as_ref().and_then(|b| b.by);
            c.say_by = by.unwrap_or(now + NEXT_REQUEST);
            c.speaks(now);
        }
        c.body.is_some() && !c.stuck
    }
}
