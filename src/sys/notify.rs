//! The socket that a worker speaks to as to systemd (sd_notify): datagrams with their sender's user.

use super::{cerr, sockopt};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// A socket of that name in the abstract namespace.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    let s = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)?;
    s.set_nonblocking(true)?;
    sockopt::set(s.as_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, 1)?;
    Ok(s.into())
}

/// So many descriptors can come with one message.
const MOST: usize = 253;

/// What came.
pub struct Came {
    /// So many bytes.
    pub bytes: usize,
    /// From this user; of a stream it is not told.
    pub uid: Option<u32>,
    /// With these, to be closed elsewhere: what they are somebody else has decided. (If there were no
    /// room for them the kernel would close them in our place.)
    pub fds: Vec<OwnedFd>,
}

/// What has come next; `None`: nothing more.
pub fn receive(s: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<Option<Came>> {
    let mut room = nix::cmsg_space!(UnixCredentials, [RawFd; MOST]);
    let mut parts = [IoSliceMut::new(into)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let got = match recvmsg::<()>(s.as_raw_fd(), &mut parts, Some(&mut room), flags) {
        Ok(got) => got,
        Err(nix::errno::Errno::EAGAIN) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let mut came = Came {
        bytes: got.bytes,
        uid: None,
        fds: Vec::new(),
    };
    for message in got.cmsgs().into_iter().flatten() {
        match message {
            ControlMessageOwned::ScmCredentials(who) => came.uid = Some(who.uid()),
            ControlMessageOwned::ScmRights(raw) => {
                // SAFETY: the kernel has just made them for us, CLOEXEC, and nobody else knows them.
                let own = raw
                    .into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
                came.fds.extend(own);
            }
            _ => {}
        }
    }
    Ok(Some(came))
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
    fn descriptors_that_come_along_are_told_and_so_is_who_sent_them() {
        use nix::sys::socket::{ControlMessage, sendmsg};
        let (a, b) = UnixDatagram::pair().unwrap();
        sockopt::set(b.as_fd(), libc::SOL_SOCKET, libc::SO_PASSCRED, 1).unwrap();
        let many = vec![a.as_raw_fd(); MOST];
        let part = [io::IoSlice::new(b"READY=1")];
        let with = [ControlMessage::ScmRights(&many)];
        sendmsg::<()>(a.as_raw_fd(), &part, &with, MsgFlags::empty(), None).unwrap();
        let came = receive(b.as_fd(), &mut [0; 64]).unwrap().unwrap();
        assert_eq!((came.bytes, came.fds.len()), (7, MOST));
        assert_eq!(came.uid, Some(crate::sys::process::euid()));
    }

    #[test]
    fn a_datagram_tells_its_sender() {
        let name = format!("minicluster-test-notify-{}", std::process::id());
        let s = open(&name).unwrap();
        let mut buf = [0u8; 64];
        assert!(receive(s.as_fd(), &mut buf).unwrap().is_none());
        let c = UnixDatagram::unbound().unwrap();
        let to = SocketAddr::from_abstract_name(&name).unwrap();
        c.send_to_addr(b"READY=1", &to).unwrap();
        let came = receive(s.as_fd(), &mut buf).unwrap().unwrap();
        assert_eq!(&buf[..came.bytes], b"READY=1");
        assert_eq!(came.uid, Some(crate::sys::process::euid()));
        assert!(came.fds.is_empty());
        assert_ne!(random(), random());
    }
}
