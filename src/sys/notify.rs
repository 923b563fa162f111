//! The socket that a worker speaks to as to systemd (sd_notify): datagrams with their sender's user.

use super::{cerr, socket};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// A socket of that name in the abstract namespace.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    let s = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    s.set_nonblocking(true)?;
    socket::set(s.as_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, 1)?;
    Ok(s.into())
}

/// The next datagram, and the user who sent it; `None`: no more. Descriptors that come with it are
/// closed by the kernel, since there is no room for them: which is what a barrier waits for.
pub fn receive(s: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<Option<(usize, u32)>> {
    let mut room = nix::cmsg_space!(UnixCredentials);
    let mut parts = [IoSliceMut::new(into)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let got = match recvmsg::<()>(s.as_raw_fd(), &mut parts, Some(&mut room), flags) {
        Ok(got) => got,
        Err(nix::errno::Errno::EAGAIN) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let uid = got.cmsgs().ok().and_then(|mut all| {
        all.find_map(|c| match c {
            ControlMessageOwned::ScmCredentials(who) => Some(who.uid()),
            _ => None,
        })
    });
    // Who it is not known of is nobody we trust.
    Ok(Some((got.bytes, uid.unwrap_or(u32::MAX))))
}

/// Bytes that nobody can guess.
pub fn random() -> [u8; 8] {
    let mut bytes = [0u8; 8];
    // SAFETY: bytes has room for its length. Short or failed, some of them stay 0: then the sender's
    // user is all that is asked for.
    let _ = cerr(unsafe {
        libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), libc::GRND_NONBLOCK)
    });
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_tells_its_sender() {
        let name = format!("minicluster-test-notify-{}", std::process::id());
        let s = open(&name).unwrap();
        let mut buf = [0u8; 64];
        assert!(receive(s.as_fd(), &mut buf).unwrap().is_none());
        let c = UnixDatagram::unbound().unwrap();
        let to = SocketAddr::from_abstract_name(&name).unwrap();
        c.send_to_addr(b"READY=1", &to).unwrap();
        let (n, uid) = receive(s.as_fd(), &mut buf).unwrap().unwrap();
        assert_eq!(&buf[..n], b"READY=1");
        assert_eq!(uid, crate::sys::process::euid());
        assert_ne!(random(), random());
    }
}
