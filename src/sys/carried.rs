//! Descriptors in a state that is handed to another program by exec: which ones, by their numbers. What is
//! written down is put on a list; what is read must be on the list that came with it, and is taken from there,
//! so that nothing is taken twice, and nothing that is somebody else's.

use super::cerr;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

thread_local! {
    /// Written down, or still to be taken.
    static LIST: RefCell<BTreeSet<RawFd>> = const { RefCell::new(BTreeSet::new()) };
}

/// Nothing is on the list.
pub fn begin() {
    LIST.with_borrow_mut(BTreeSet::clear);
}

/// It is written down: this is its number.
pub fn write(fd: BorrowedFd<'_>) -> RawFd {
    let n = fd.as_raw_fd();
    LIST.with_borrow_mut(|all| all.insert(n));
    n
}

/// All that are on the list.
pub fn list() -> Vec<RawFd> {
    LIST.with_borrow(|all| all.iter().copied().collect())
}

/// These were passed to us by who was here before, with nobody else to close them: they may be taken.
///
/// Standard descriptors are never among them.
pub fn may_take(all: &[RawFd]) {
    let is_open = |n: &RawFd| *n > 2 && set_cloexec(*n, true).is_ok();
    let open = all.iter().copied().filter(is_open).collect();
    LIST.set(open);
}

/// It is not ours, and stays open as it is.
pub fn leave(n: RawFd) {
    LIST.with_borrow_mut(|all| all.remove(&n));
}

/// It is ours from now on: a copy of it, so that what was passed is there still for whoever has to go back, as long
/// as there is room for copies.
pub fn take(n: RawFd) -> io::Result<OwnedFd> {
    if !LIST.with_borrow(|all| all.contains(&n)) {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the number is open, since it is on the list; the copy, if any, is new and ours alone.
    let copy = unsafe { cerr(libc::fcntl(n, libc::F_DUPFD_CLOEXEC, 3)) };
    match copy {
        // SAFETY: as above.
        Ok(copy) => Ok(unsafe { OwnedFd::from_raw_fd(copy) }),
        Err(e) if e.raw_os_error() == Some(libc::EMFILE) => {
            LIST.with_borrow_mut(|all| all.remove(&n));
            // SAFETY: it was passed to this program by exec, it is open, and since it leaves the list nobody
            // else in here owns it.
            Ok(unsafe { OwnedFd::from_raw_fd(n) })
        }
        Err(e) => Err(e),
    }
}

thread_local! {
    static TAKING: Cell<bool> = const { Cell::new(false) };
}

/// A state is being read, or has been and counts from now on. Until it does nothing of it may be given up:
/// a lock is held by whoever was here before, and a file is theirs.
pub fn set_taking(taking: bool) {
    TAKING.set(taking);
}

/// Is one?
pub fn is_taking() -> bool {
    TAKING.get()
}

/// What was passed, and is ours by now in copies or of no use, is closed.
pub fn close_rest() {
    let rest = LIST.take();
    for n in &rest {
        // SAFETY: it was passed to this program by exec, it is open, and nobody else in here owns it.
        drop(unsafe { OwnedFd::from_raw_fd(*n) });
    }
}

/// Do they survive an exec? The last step before it, and the first after one that has failed.
pub fn keep_over_exec(all: &[RawFd], keep: bool) -> io::Result<()> {
    let mut done = Ok(());
    for n in all {
        // One that is not there any more does not keep the others from it.
        done = set_cloexec(*n, !keep).and(done);
    }
    done
}

fn set_cloexec(n: RawFd, close: bool) -> io::Result<()> {
    let flags = match close {
        true => libc::FD_CLOEXEC,
        false => 0,
    };
    // SAFETY: plain numbers; a number that is not open is an error.
    cerr(unsafe { libc::fcntl(n, libc::F_SETFD, flags) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fds;
    use nix::fcntl::{FcntlArg, fcntl};
    use std::os::fd::{AsFd, IntoRawFd};

    #[test]
    fn what_is_listed_can_be_taken_and_what_was_passed_is_closed_in_the_end() {
        let (a, b) = fds::pipe().unwrap();
        begin();
        let (na, nb) = (write(a.as_fd()), write(b.as_fd()));
        let mut both = vec![na, nb];
        both.sort_unstable();
        assert_eq!(list(), both);
        keep_over_exec(&both, true).unwrap();
        let (_, _) = (a.into_raw_fd(), b.into_raw_fd());
        may_take(&[0, na, nb, 900]);
        assert_eq!(list(), both);
        let ours = take(na).unwrap();
        let flags = fcntl(&ours, FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags, libc::FD_CLOEXEC);
        assert!(take(0).is_err() && take(900).is_err());
        // Who goes back has what there was.
        assert_eq!(list(), both);
        close_rest();
        assert!(list().is_empty());
        // Nobody writes there any more.
        assert_eq!(fds::read(ours.as_fd(), &mut [0]).unwrap(), 0);
        assert!(keep_over_exec(&[900], true).is_err());
    }
}
