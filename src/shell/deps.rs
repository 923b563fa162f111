//! `deps`: what the workers are made of.
//!
//! The look may have to read thousands of files, on file systems that answer when they like, and the master
//! has one thread. So it is a job like the operator's programs: a child with a deadline and a limit of what
//! it may write. The child is our own executable, as the kernel has it open (/proc/self/exe: the file may
//! have been replaced on disk), known by its name, which no command line can be by mistake. It has the
//! master's rights and none of its descriptors; it is asked over its stdin, and what it writes is the answer
//! as it is, JSON or text: the master does not even read it.

mod files;
mod look;
mod objects;
mod projects;
mod python;
mod seeker;

pub use look::run;

use super::Shell;
use super::clients::ClientId;
use super::jobs::Order;
use super::requests::{Answer, behind};
use crate::core::codes::{EX_TEMPFAIL, EX_USAGE, FAILED};
use crate::sys::procfs;
use crate::wire::command::Request;
use crate::wire::deps::question::{Question, Worker};
use crate::wire::outcome::refusal;
use std::time::Duration;

/// By that name it is executed, and known.
pub const NAME: &str = "minicluster-deps";
/// It may take so long, the wait for its turn included.
const LIMIT: Duration = Duration::from_secs(30);
/// So many look at once: each may keep a CPU busy, and its answer may be megabytes.
const MOST_LOOKS: usize = 2;

impl Shell {
    /// Of all workers, or of those of one slot.
    pub(super) fn deps(&mut self, id: ClientId, r: &Request) -> Option<Answer> {
        let slot = match self.slot_asked(behind(r).next()) {
            Ok(slot) => slot,
            Err(why) => return Some((EX_USAGE, why)),
        };
        if !procfs::is_ours() {
            let why = "cannot see what workers are made of: /proc is not there, or is another pid namespace's\n";
            return Some((FAILED, refusal(why, r.json)));
        }
        if self.jobs.looks() >= MOST_LOOKS {
            let why =
                format!("{MOST_LOOKS} clients have the workers looked at already: try again\n");
            return Some((EX_TEMPFAIL, refusal(&why, r.json)));
        }
        let all = self.cluster.status(self.now()).slots.into_iter();
        let workers = all.filter(|v| slot.is_none_or(|nr| v.slot.0 == nr));
        let worker = |v: crate::core::status::SlotView| {
            Some(Worker {
                slot: v.slot.0,
                pid: v.pid?.0,
                generation: v.generation,
            })
        };
        let question = Question {
            json: r.json,
            workers: workers.filter_map(worker).collect(),
        };
        let order = Order {
            name: NAME.into(),
            words: vec![NAME.into()],
            // Wherever we are may be on a file system that keeps it waiting, or gone.
            cwd: "/".into(),
            variables: Vec::new(),
            stdin: question.encode().into_bytes(),
            merged: false,
            limit: Some(LIMIT),
            ours: true,
        };
        self.run_for_client(id, r, true, order)
    }

    fn slot_asked(&self, word: Option<&str>) -> Result<Option<u16>, String> {
        let Some(word) = word else {
            return Ok(None);
        };
        let end = self.cluster.bound();
        match word.parse().ok().filter(|nr| *nr < end) {
            Some(nr) => Ok(Some(nr)),
            None => {
                let last = end.saturating_sub(1);
                Err(format!("'{word}' is not a slot from 0 to {last}\n"))
            }
        }
    }
}
