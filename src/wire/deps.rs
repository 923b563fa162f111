//! What workers are made of: the values of the answer to `deps`, and the parsers of what it is read from.
//!
//! The look is a process of its own (shell's `deps`): the master writes the `question`, and what comes back
//! is passed on to whoever asked as it is, JSON or text. So the master never reads a word of it.

pub mod elf;
pub mod golang;
pub mod json;
pub mod maps;
pub mod packages;
pub mod question;
pub mod text;

use super::http::Status;
use super::http::response::Response;
use crate::core::codes::{EX_TEMPFAIL, EX_USAGE};
use packages::List;

/// A worker, by its slot and the process that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    pub slot: u16,
    pub pid: i32,
}

/// What has become of a file since the process took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It is what its name means.
    Present,
    /// Its name means another file now: that is what the next worker will have.
    Replaced,
    /// Its name means nothing any more.
    Deleted,
    /// It was written to in place.
    Changed,
}

impl State {
    /// In JSON.
    pub fn word(self) -> &'static str {
        match self {
            State::Present => "present",
            State::Replaced => "replaced",
            State::Deleted => "deleted",
            State::Changed => "changed",
        }
    }

    /// Has the worker something else than what is there?
    pub fn is_stale(self) -> bool {
        match self {
            State::Present => false,
            State::Replaced | State::Deleted | State::Changed => true,
        }
    }
}

/// An executable, or a script.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct File {
    pub path: String,
    pub state: State,
    pub inode: u64,
    pub size: u64,
    /// In seconds since 1970.
    pub mtime: i64,
    /// Of an executable, if it has one and that can be read.
    pub build_id: Option<String>,
}

/// A shared object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    pub path: String,
    pub state: State,
    pub build_id: Option<String>,
}

/// A source of packages that a process has, by its path; and was it changed since the process began?
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Used {
    pub path: String,
    pub changed: bool,
}

/// All that a process is made of. Those for which it is the same are told together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Made {
    pub generation: u32,
    pub executable: File,
    pub script: Option<File>,
    /// The working directory; `None`: it cannot be seen.
    pub cwd: Option<String>,
    /// Is its root another one than the master's, or has it mounts of its own?
    pub other_root: bool,
    pub objects: Vec<Object>,
    /// So many objects more it has.
    pub objects_left_out: usize,
    pub packages: Vec<Used>,
}

impl Made {
    /// What of it is not what is there now: what is changed, and how.
    pub fn stale(&self) -> Vec<(&str, State)> {
        let file = |f: &File| (f.state.is_stale()).then_some(f.state);
        let executable = file(&self.executable).map(|s| (self.executable.path.as_str(), s));
        let script = self.script.as_ref();
        let script = script.and_then(|f| file(f).map(|s| (f.path.as_str(), s)));
        let objects = self.objects.iter().filter(|o| o.state.is_stale());
        let objects = objects.map(|o| (o.path.as_str(), o.state));
        let used = self.packages.iter().filter(|u| u.changed);
        let used = used.map(|u| (u.path.as_str(), State::Changed));
        let first = executable.into_iter().chain(script);
        first.chain(objects).chain(used).collect()
    }
}

/// Processes that are made of the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub made: Made,
    pub members: Vec<Member>,
}

/// Where packages are listed, or are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// `npm`, `python`, ..
    pub kind: &'static str,
    pub path: String,
    pub size: u64,
    /// In seconds since 1970.
    pub mtime: i64,
    /// What is there; or why that is not told.
    pub list: Result<List, String>,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub groups: Vec<Group>,
    pub sources: Vec<Source>,
    /// Workers that ended meanwhile.
    pub gone: Vec<Member>,
    /// Workers that cannot be looked at, and why.
    pub unseen: Vec<(Member, String)>,
    /// So many processes were not looked at, and places of packages: there were too many, or no time was left.
    pub left_out: usize,
}

impl Answer {
    /// So many objects and packages are left out of groups and places that are told.
    fn left_out_within(&self) -> usize {
        let objects = self.groups.iter().map(|g| g.made.objects_left_out);
        let lists = self.sources.iter().filter_map(|s| s.list.as_ref().ok());
        let all = objects.chain(lists.map(|l| l.left_out));
        all.fold(0, usize::saturating_add)
    }
}

/// So long may the groups be in an answer, and so long the sources; groups beyond are left out, and
/// counted.
const MAX_PART: usize = 1024 * 1024;
/// So long an answer is at most: two such parts, the last of each whole, in JSON or as text.
pub const MAX_ANSWER: usize = 4 * 1024 * 1024;

/// These as they are told, as far as there is room for them: all of them, and how many are missing.
fn within<T>(all: &[T], mut told: impl FnMut(&T) -> String) -> (Vec<String>, usize) {
    let (mut parts, mut length) = (Vec::new(), 0usize);
    for one in all {
        let part = told(one);
        length = length.saturating_add(part.len());
        // The first one is told whatever it is: one alone has a limit of its own.
        if length > MAX_PART && !parts.is_empty() {
            break;
        }
        parts.push(part);
    }
    let missing = all.len() - parts.len();
    (parts, missing)
}

/// What `deps` has come to, over HTTP: an object, or one that says why not.
pub fn answer(exit: u8, said: &str) -> Response {
    let status = match exit {
        0 => Status::OK,
        EX_USAGE => Status::BAD_REQUEST,
        EX_TEMPFAIL => Status::UNAVAILABLE,
        _ => Status::FAILED,
    };
    match said.starts_with('{') {
        true => Response::json(status, said),
        false => Response::error(status, said.trim_end(), true),
    }
}

#[cfg(test)]
mod tests;
