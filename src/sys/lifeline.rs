//! What ends a child and its whole process group when the master dies, in whatever way: a pipe whose
//! write end the master alone has. Each child has the read end, opened for itself and set so
//! (F_SETOWN, F_SETSIG, O_ASYNC) that the kernel sends SIGKILL to its process group when the last
//! write end is closed. No process waits for that, and nothing wakes up until then.
//!
//! Rules:
//! 1. The death signal (PR_SET_PDEATHSIG) ends the first process alone: what a wrapper has started
//!    (`sh -c`, `npm start`) would live on, and hold the port.
//! 2. Who gets the signal belongs to the open file, so each child needs one of its own. It opens it
//!    by /proc; where there is none of ours the master makes a pipe for each child.
//! 3. Whose right it is to send the signal is that of who set the owner (F_SETOWN): it is set before the
//!    child changes its user, so that a child of root may change it as it likes later. But in a user
//!    namespace root counts for nothing there, and it is set again when the user has been changed.
//! 4. The child closes its copy of the write end at once: on its way to exec it would hold off
//!    the end of all others.
//! 5. It is kept over exec, and by descendants: it is there as long as one of them has it. Those who
//!    close what they do not know have the death signal alone; those who leave the group are not reached.

use super::fds;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// The number that it has in a child, if nothing speaks against that.
pub const NUMBER: RawFd = 250;

/// The master's.
pub struct Lifeline {
    /// Its read end, and its write end; `None`: each child has its own.
    shared: Option<(OwnedFd, OwnedFd)>,
    /// By which a child opens the read end anew.
    path: CString,
    late: bool,
}

/// What is prepared for one child.
pub struct Thread<'a> {
    read: Read<'a>,
    late: bool,
}

enum Read<'a> {
    Shared(&'a (OwnedFd, OwnedFd), &'a CString),
    Own(OwnedFd, OwnedFd),
}

/// The same, as the child takes it.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    read: BorrowedFd<'a>,
    write: BorrowedFd<'a>,
    path: Option<&'a CString>,
    late: bool,
    /// The number that it is to have.
    pub number: RawFd,
}

impl Lifeline {
    /// Held as long as it is there: children end with it.
    pub fn new() -> io::Result<Lifeline> {
        let ends = fds::pipe()?;
        let text = format!("/proc/self/fd/{}", ends.0.as_raw_fd());
        // Is it there, and what we mean?
        let there = fs::File::open(&text);
        let same = there.and_then(|f| Ok(fds::inode(f.as_fd())? == fds::inode(ends.0.as_fd())?));
        Ok(Lifeline {
            shared: same.unwrap_or(false).then_some(ends),
            path: CString::new(text).unwrap_or_default(),
            late: in_user_namespace(),
        })
    }

    /// What it is made of, for whoever takes over from us; `None`: each child has its own.
    pub fn ends(&self) -> Option<(BorrowedFd<'_>, BorrowedFd<'_>)> {
        let ends = self.shared.as_ref()?;
        Some((ends.0.as_fd(), ends.1.as_fd()))
    }

    /// That of whoever was here before us.
    pub fn of(shared: Option<(OwnedFd, OwnedFd)>) -> Lifeline {
        let read = shared.as_ref().map_or(-1, |(read, _)| read.as_raw_fd());
        Lifeline {
            shared,
            path: CString::new(format!("/proc/self/fd/{read}")).unwrap_or_default(),
            late: in_user_namespace(),
        }
    }

    /// For one child.
    pub fn thread(&self) -> io::Result<Thread<'_>> {
        let read = match &self.shared {
            Some(ends) => Read::Shared(ends, &self.path),
            None => {
                let (read, write) = fds::pipe()?;
                Read::Own(read, write)
            }
        };
        let late = self.late;
        Ok(Thread { read, late })
    }

    /// So many descriptors of ours each child takes.
    pub fn cost(&self) -> u64 {
        u64::from(self.shared.is_none())
    }
}

impl Thread<'_> {
    /// For the plan of its birth.
    pub fn line(&self, number: RawFd) -> Line<'_> {
        let (ends, path) = match &self.read {
            Read::Shared(ends, path) => ((&ends.0, &ends.1), Some(*path)),
            Read::Own(read, write) => ((read, write), None),
        };
        Line {
            read: ends.0.as_fd(),
            write: ends.1.as_fd(),
            path,
            late: self.late,
            number,
        }
    }

    /// What has to be kept as long as that child, or anything that it has left, is there.
    pub fn keep(self) -> Option<OwnedFd> {
        match self.read {
            Read::Shared(..) => None,
            Read::Own(_, write) => Some(write),
        }
    }
}

/// Which number it gets: below the limit of open files, beside all that a child has by a number that
/// it is told (`taken`), all below `above` among it.
pub fn number(limit: Option<u64>, above: RawFd, taken: &[RawFd]) -> RawFd {
    let limit = limit.and_then(|l| RawFd::try_from(l).ok());
    let mut n = limit.map_or(NUMBER, |l| NUMBER.min(l.saturating_sub(1)));
    while n > above && taken.contains(&n) {
        n -= 1;
    }
    n = n.max(above);
    while taken.contains(&n) {
        n = n.saturating_add(1);
    }
    n
}

/// Its own open file, with its process group as the owner; -1: it cannot be had.
///
/// # Safety
/// Only in a new child of a single-threaded process, which leads its process group.
pub(super) unsafe fn take(line: &Line<'_>) -> RawFd {
    // SAFETY: descriptors that are open, a path that ends with NUL, plain numbers; contract above.
    unsafe {
        libc::close(line.write.as_raw_fd());
        let fd = match line.path {
            Some(path) => libc::open(
                path.as_ptr(),
                libc::O_RDONLY | libc::O_NONBLOCK | libc::O_CLOEXEC,
            ),
            None => line.read.as_raw_fd(),
        };
        if fd < 0
            || own(fd) < 0
            || libc::fcntl(fd, F_SETSIG, libc::SIGKILL) < 0
            || libc::fcntl(fd, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK) < 0
        {
            return -1;
        }
        fd
    }
}

/// The user has been changed.
///
/// # Safety
/// As `take`; `fd` is what that gave, if it is not negative.
pub(super) unsafe fn renew(line: &Line<'_>, fd: RawFd) {
    if line.late && fd >= 0 {
        // SAFETY: an open descriptor.
        unsafe { own(fd) };
    }
}

const F_SETSIG: i32 = 10;

/// # Safety
/// As `take`.
unsafe fn own(fd: RawFd) -> i32 {
    // SAFETY: plain numbers.
    unsafe { libc::fcntl(fd, libc::F_SETOWN, -libc::getpid()) }
}

/// Is our root not that of the machine? (Where it cannot be told, it is.)
fn in_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut words = map.split_whitespace();
    let whole = ["0", "0", "4294967295"]
        .iter()
        .all(|w| words.next() == Some(w));
    !map.is_empty() && !whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_number_is_out_of_the_way_of_all_others() {
        for (limit, above, taken, wanted) in [
            (Some(1024), 3, vec![], 250),
            (None, 3, vec![], 250),
            (Some(u64::MAX), 3, vec![], 250),
            (Some(1024), 5, vec![250], 249),
            (Some(1024), 5, vec![250, 249, 4], 248),
            (Some(64), 5, vec![63], 62),
            (Some(5), 5, vec![], 5),
            (Some(4), 5, vec![5, 6], 7),
            (Some(1024), 300, vec![300], 301),
        ] {
            let got = number(limit, above, &taken);
            assert_eq!(got, wanted, "{limit:?} {above} {taken:?}");
        }
    }

    #[test]
    fn a_child_has_the_shared_pipe_or_one_of_its_own() {
        let mut lifeline = Lifeline::new().unwrap();
        assert_eq!(lifeline.cost(), 0);
        assert!(lifeline.thread().unwrap().line(250).path.is_some());
        assert!(lifeline.thread().unwrap().keep().is_none());
        lifeline.shared = None;
        assert_eq!(lifeline.cost(), 1);
        assert!(lifeline.thread().unwrap().line(250).path.is_none());
        assert!(lifeline.thread().unwrap().keep().is_some());
    }
}
