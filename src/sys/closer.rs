//! Descriptors that others had a hand in, closed where that can hold up nobody. Whoever closes the last
//! descriptor of a TCP socket sleeps as long as its SO_LINGER says, if something is unsent; and whoever
//! shares it can set that at any moment, and see to it that ours is the last. A process that exits does
//! not sleep. So another process gets a copy of them, we close ours, and then that one exits.

use super::{cerr, fds, inherit, signal::Blocked};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Are there workers of whom more is to be feared than of ourselves? A worker of our own user can stop
/// us by a signal just as well.
static STRANGERS: AtomicBool = AtomicBool::new(false);

/// From here on copies of workers' descriptors are closed elsewhere.
pub fn beware() {
    STRANGERS.store(true, Ordering::Relaxed);
}

/// A copy of a worker's descriptor.
#[derive(Debug)]
pub struct Copy(ManuallyDrop<OwnedFd>);

impl Copy {
    /// To be closed with care.
    pub fn of(fd: OwnedFd) -> Copy {
        Copy(ManuallyDrop::new(fd))
    }

    /// To be kept: whoever closes it takes care.
    pub fn keep(self) -> OwnedFd {
        let mut copy = ManuallyDrop::new(self);
        // SAFETY: it is taken once, here, and `copy` is never dropped.
        unsafe { ManuallyDrop::take(&mut copy.0) }
    }
}

impl AsFd for Copy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // SAFETY: it is taken once, here, and not used afterwards.
        let fd = unsafe { ManuallyDrop::take(&mut self.0) };
        if STRANGERS.load(Ordering::Relaxed) {
            elsewhere(vec![fd]);
        }
    }
}

/// Closes all of these.
pub fn all(copies: Vec<Copy>) {
    let fds = copies.into_iter().map(Copy::keep).collect();
    match STRANGERS.load(Ordering::Relaxed) {
        // One process for all of them.
        true => elsewhere(fds),
        false => drop(fds),
    }
}

/// Closes these without waiting for anything.
pub fn elsewhere(list: Vec<OwnedFd>) {
    if list.is_empty() {
        return;
    }
    let Ok((read, write)) = fds::pipe() else {
        return unlingering(list);
    };
    let blocked = Blocked::all();
    // SAFETY: we are single-threaded; the child makes system calls only, and leaves by _exit.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let mut gone = libc::pollfd {
            fd: read.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: our own copy of the other end would keep it open; one valid pollfd.
        unsafe {
            libc::close(write.as_raw_fd());
            libc::poll(&mut gone, 1, -1);
            libc::_exit(0)
        }
    }
    drop(blocked);
    match cerr(pid) {
        Ok(_) => drop(list),
        Err(_) => unlingering(list),
    }
}

/// The next best: nobody sets it again in the moment between.
fn unlingering(list: Vec<OwnedFd>) {
    for fd in list {
        inherit::no_linger(fd.as_fd());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    /// A connection that has something unsent, and would wait for it.
    fn lingering() -> (TcpListener, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut s = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (peer, _) = listener.accept().unwrap();
        s.set_nonblocking(true).unwrap();
        while s.write(&[0; 65_536]).is_ok() {}
        s.set_nonblocking(false).unwrap();
        let linger = libc::linger {
            l_onoff: 1,
            l_linger: 30,
        };
        let (p, len) = ((&raw const linger).cast(), size_of_val(&linger) as u32);
        // SAFETY: linger is as long as we say.
        let set =
            unsafe { libc::setsockopt(s.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, p, len) };
        assert_eq!(set, 0);
        (listener, peer, s)
    }

    #[test]
    fn the_last_descriptor_of_a_lingering_socket_holds_up_nobody() {
        let (_listener, _peer, s) = lingering();
        let began = Instant::now();
        elsewhere(vec![s.into()]);
        // Half of what it would take: the machine may be busy.
        assert!(began.elapsed() < Duration::from_secs(15));
    }
}
