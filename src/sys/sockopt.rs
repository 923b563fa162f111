//! What every kind of socket has: options that are numbers, and a queue to listen with.

use super::cerr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// An int option.
pub(super) fn get(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<i32> {
    let mut value: i32 = 0;
    let mut len = 4 as libc::socklen_t;
    // SAFETY: value has room for len bytes.
    unsafe {
        cerr(libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &mut len,
        ))?
    };
    Ok(value)
}

/// Sets it.
pub(super) fn set(fd: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: value is four bytes.
    unsafe {
        cerr(libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            4,
        ))
    }
    .map(drop)
}

/// listen(2)
pub fn listen(fd: BorrowedFd<'_>, backlog: i32) -> io::Result<()> {
    // SAFETY: plain numbers.
    unsafe { cerr(libc::listen(fd.as_raw_fd(), backlog)) }.map(drop)
}
