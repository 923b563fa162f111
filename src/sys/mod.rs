//! The kernel, typed. The only room that may say `unsafe`; imports nothing of ours and decides
//! nothing. Every descriptor made here is CLOEXEC from birth.
#![allow(unsafe_code)]

pub mod burden;
pub mod carried;
pub mod cgroup;
pub mod clock;
pub mod closer;
pub mod cpus;
pub mod execute;
pub mod fds;
pub mod flock;
pub mod guise;
pub mod inherit;
pub mod lifeline;
pub mod netlink;
pub mod notify;
pub mod oom;
pub mod passed;
pub mod pidfd;
pub mod process;
pub mod procfs;
pub mod proclook;
pub mod procmade;
pub mod procnet;
mod report;
pub mod sdnotify;
pub mod seccomp;
pub mod signal;
pub mod socket;
mod sockinfo;
mod sockopt;
pub mod spawn;
pub mod steer;
pub mod trial;
pub mod unix;
pub mod user;
pub mod wait;

use std::io;

/// The one door for what libc returns: -1 becomes the errno's error.
pub(crate) fn cerr<T: Copy + PartialOrd + From<i8>>(ret: T) -> io::Result<T> {
    if ret < T::from(0) {
        Err(io::Error::last_os_error())
    } else {
        Ok(ret)
    }
}

/// The errno in an error; EIO for one that has none.
pub fn errno_of(e: &io::Error) -> i32 {
    e.raw_os_error().unwrap_or(libc::EIO)
}
