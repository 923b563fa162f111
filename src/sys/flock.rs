//! Locks on files that last as long as whoever holds them (flock(2)).

use super::{carried, cerr};
use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;

/// With whom it is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// With nobody.
    No,
    /// With others that share it.
    Yes,
}

/// A file that is locked. Dropped, it is unlocked first: a child between fork and exec has a copy of the
/// descriptor, and with it would have the lock. Where that fails (a server of files that has gone) it is
/// closed all the same, which does it as soon as there is no copy.
#[derive(Debug)]
pub struct Locked(File);

impl Locked {
    /// One that is locked already: by another program that was this process before.
    pub fn held(file: File) -> Locked {
        Locked(file)
    }

    /// Locks it, or gives it back with the reason; WouldBlock: somebody else has it.
    pub fn lock(file: File, share: Share) -> Result<Locked, (File, io::Error)> {
        let how = match share {
            Share::No => libc::LOCK_EX,
            Share::Yes => libc::LOCK_SH,
        };
        match flock(&file, how | libc::LOCK_NB) {
            Ok(()) => Ok(Locked(file)),
            Err(e) => Err((file, e)),
        }
    }
}

fn flock(file: &File, how: i32) -> io::Result<()> {
    // SAFETY: plain numbers, of a descriptor that is open.
    cerr(unsafe { libc::flock(file.as_raw_fd(), how) }).map(drop)
}

impl Drop for Locked {
    fn drop(&mut self) {
        if carried::is_taking() {
            return;
        }
        let _ = flock(&self.0, libc::LOCK_UN);
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_unlocked_though_there_is_a_copy() {
        let at = std::env::temp_dir().join(format!("mc-flock-{}", std::process::id()));
        let open = || File::create(&at).unwrap();
        let refused = |share| {
            let (_, e) = Locked::lock(open(), share).unwrap_err();
            e.kind() == io::ErrorKind::WouldBlock
        };
        let one = Locked::lock(open(), Share::No).unwrap();
        let copy = one.try_clone().unwrap();
        assert!(refused(Share::No) && refused(Share::Yes));
        drop(one);
        let one = Locked::lock(open(), Share::Yes).unwrap();
        assert!(Locked::lock(open(), Share::Yes).is_ok() && refused(Share::No));
        drop((one, copy));
        std::fs::remove_file(&at).unwrap();
    }
}
