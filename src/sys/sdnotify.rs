//! The other end of sd_notify(3): the socket by which whoever started us wants to be told how we are.
//! What is sent goes, or it does not; nothing waits.

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socket,
};
use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

/// So many descriptors can go with one message.
pub const MOST: usize = 253;

/// That socket, and one of ours to speak from.
pub struct Speaker {
    from: OwnedFd,
    to: UnixAddr,
}

impl Speaker {
    /// To the socket at that path, or of that name in the abstract namespace if it begins with `@`.
    pub fn to(address: &OsStr) -> io::Result<Speaker> {
        let to = match address.as_bytes() {
            [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
            path @ [b'/', ..] => UnixAddr::new(path)?,
            // What runs virtual machines has others.
            _ => return Err(io::Error::from_raw_os_error(libc::EAFNOSUPPORT)),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let from = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        Ok(Speaker { from, to })
    }

    /// Sends that, and copies of these descriptors with it, `MOST` at most. EAGAIN: the queue there is
    /// full. (By name each time: it may be another socket by now.)
    pub fn say(&self, message: &str, with: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<RawFd> = with.iter().map(AsRawFd::as_raw_fd).collect();
        let part = [IoSlice::new(message.as_bytes())];
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = match raw.is_empty() {
            true => &rights[..0],
            false => &rights[..],
        };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        loop {
            let done = sendmsg(self.from.as_raw_fd(), &part, rights, flags, Some(&self.to));
            match done {
                Err(nix::errno::Errno::EINTR) => {}
                other => return other.map(drop).map_err(Into::into),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::notify;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn what_is_said_comes_with_its_descriptors_by_path_and_by_name() {
        let me = std::process::id();
        let name = format!("minicluster-test-sd-{me}");
        let path = std::env::temp_dir().join(&name);
        let by_path = UnixDatagram::bind(&path).unwrap();
        let by_name = notify::open(&name).unwrap();
        let address = format!("@{name}");
        let mut buf = [0; 64];
        for (address, hears) in [
            (path.as_os_str(), by_path.as_fd()),
            (OsStr::new(&address), by_name.as_fd()),
        ] {
            let speaker = Speaker::to(address).unwrap();
            speaker.say("READY=1", &[]).unwrap();
            let came = notify::receive(hears, &mut buf).unwrap().unwrap();
            assert_eq!((&buf[..came.bytes], came.fds.len()), (&b"READY=1"[..], 0));
            let many = vec![hears; MOST];
            speaker.say("FDSTORE=1\nFDNAME=x", &many).unwrap();
            let came = notify::receive(hears, &mut buf).unwrap().unwrap();
            assert_eq!(came.fds.len(), MOST);
            assert!(speaker.say("X=1", &vec![hears; MOST + 1]).is_err());
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn who_does_not_read_or_has_gone_is_not_waited_for() {
        let path = std::env::temp_dir().join(format!("mc-test-sd-{}", std::process::id()));
        let hears = UnixDatagram::bind(&path).unwrap();
        let speaker = Speaker::to(path.as_os_str()).unwrap();
        let full = (0..100_000).find_map(|_| speaker.say("X=1", &[]).err());
        assert_eq!(full.unwrap().raw_os_error(), Some(libc::EAGAIN));
        drop(hears);
        let e = speaker.say("X=1", &[]).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ECONNREFUSED));
        std::fs::remove_file(&path).unwrap();
        let e = speaker.say("X=1", &[]).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::ENOENT));
        for wrong in ["", "run/notify", "vsock:2:1234"] {
            let e = Speaker::to(OsStr::new(wrong)).err().unwrap();
            assert_eq!(e.raw_os_error(), Some(libc::EAFNOSUPPORT), "{wrong}");
        }
    }
}
