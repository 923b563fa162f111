//! A lane that has a name in the file system: a unix socket.
//!
//! Servers are used to own that name: they remove it before they bind and when they close. Here it
//! is shared, so it is kept: our socket has a second, hidden name beside it, and when the first one
//! goes the kernel tells us (inotify, of this file alone) and it is linked there again. What somebody
//! else has put there meanwhile is left alone, and said.
//!
//! Of several lanes of one path one has the name. How another gets it is in `beside`.

use super::names::{identity, lock_of};
use crate::core::FileIs;
use crate::sys::{procfs, unix};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long another start on the same path is waited for.
const STARTING: Duration = Duration::from_millis(200);

/// Longest path by which clients can come.
pub(super) const LONGEST: usize = 107;

/// So many hidden names a path has. What was passed to us, the lane that has the path, the one that
/// takes it and the moment of the change need four.
const HIDDEN: usize = 8;

/// The file of a lane.
#[derive(Serialize, Deserialize)]
pub struct Filed {
    #[serde(with = "crate::core::carry::paths")]
    pub(super) path: PathBuf,
    /// Its second name, if the file system has such.
    #[serde(with = "crate::core::carry::paths")]
    pub(super) hidden: Option<PathBuf>,
    /// Device and inode.
    pub(super) id: (u64, u64),
    /// Is it ours to remove in the end?
    pub(super) ours: bool,
    pub(super) holds: Holds,
}

/// What a lane has of its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holds {
    /// The path: clients come to it.
    Named,
    /// A hidden name alone, by which it can take the path.
    Hidden,
    /// Nothing: another lane has taken the path. What waits in its queue stays there.
    Left,
}

/// What became of the name.
#[derive(Debug)]
pub enum Mended {
    /// It was there.
    Fine,
    /// It is there again.
    PutBack,
    /// Something else is there.
    Taken,
    /// It cannot be put back.
    Lost(io::Error),
}

impl Filed {
    /// Opens a socket that listens at this path. One that answers there is in use; one that does not
    /// was left by somebody who has gone.
    pub fn open(path: &Path, like: &FileIs, backlog: i32) -> io::Result<(OwnedFd, Filed)> {
        if path.as_os_str().len() > LONGEST {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        let _starting = unix::lock_abstract(&lock_of(path), STARTING);
        remove_stale(path)?;
        let hidden = clear_hidden(path)?;
        let socket = listen_at(&hidden, like, backlog)?;
        let named = dress(&hidden, like).and_then(|()| match fs::hard_link(&hidden, path) {
            Ok(()) => Filed::at(path, Some(hidden.clone())),
            // It appeared in this very moment: that is somebody's.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(in_use()),
            // A file system without second names.
            Err(_) => fs::rename(&hidden, path).and_then(|()| Filed::at(path, None)),
        });
        if named.is_err() {
            let _ = fs::remove_file(&hidden);
        }
        Ok((socket, named?))
    }

    fn at(path: &Path, hidden: Option<PathBuf>) -> io::Result<Filed> {
        Ok(Filed {
            id: identity(path).ok_or_else(io::Error::last_os_error)?,
            path: path.to_path_buf(),
            hidden,
            ours: true,
            holds: Holds::Named,
        })
    }

    /// The file of a socket that was passed to us: it stays when we go, but until then it is kept.
    pub fn passed(path: &Path) -> Option<Filed> {
        give_back_left(path);
        // What is no socket is somebody else's by now.
        if !fs::symlink_metadata(path).ok()?.file_type().is_socket() {
            return None;
        }
        let id = identity(path)?;
        for name in hidden_names(path) {
            match identity(&name) {
                // A master that was killed has left it, of this very socket.
                Some(one) if one == id => drop(fs::remove_file(&name)),
                Some(_) => drop(remove_stale(&name)),
                None => {}
            }
        }
        let linked = |name: &PathBuf| fs::hard_link(path, name).is_ok();
        Some(Filed {
            path: path.to_path_buf(),
            hidden: hidden_names(path).into_iter().find(linked),
            id,
            ours: false,
            holds: Holds::Named,
        })
    }

    /// The file of a socket that was opened by a master of ours that has died.
    pub fn found(path: &Path) -> Option<Filed> {
        Filed::passed(path).map(|filed| Filed {
            ours: true,
            ..filed
        })
    }

    /// Is that how a socket of this path is bound, if it is one of ours?
    pub fn may_be_bound_to(path: &Path, name: &Path) -> bool {
        path == name || hidden_names(path).iter().any(|h| h == name)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Do clients come to it by the path?
    pub fn is_named(&self) -> bool {
        self.holds == Holds::Named
    }

    /// Is that where it should be, and nobody else's?
    pub fn is_in_place(&self) -> bool {
        self.is_named() && identity(&self.path) == Some(self.id)
    }

    /// Takes the path away, if it is ours to take, and leaves the rest: nobody comes any more.
    pub fn hide(&self) {
        if self.ours && self.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Its second name, if it has one.
    pub fn hidden(&self) -> Option<&Path> {
        self.hidden.as_deref()
    }

    /// Makes sure that the name is there, if it is this one's.
    pub fn mend(&self) -> Mended {
        if self.holds != Holds::Named {
            return Mended::Fine;
        }
        match (identity(&self.path), &self.hidden) {
            (Some(id), _) if id == self.id => Mended::Fine,
            (Some(_), _) => Mended::Taken,
            (None, None) => Mended::Lost(io::Error::from(ErrorKind::NotFound)),
            (None, Some(hidden)) => match fs::hard_link(hidden, &self.path) {
                Ok(()) => Mended::PutBack,
                Err(e) if e.kind() == ErrorKind::AlreadyExists => Mended::Taken,
                Err(e) => Mended::Lost(e),
            },
        }
    }

    /// Removes its names, as far as they are its own. What was passed to us and has a hidden name alone
    /// keeps that: without any it could not be found again.
    pub fn remove(&self) {
        let first = Some(&self.path).filter(|_| self.ours);
        let last = !self.ours && self.holds == Holds::Hidden;
        let second = self.hidden.as_ref().filter(|_| !last);
        for name in [first, second].into_iter().flatten() {
            if identity(name) == Some(self.id) {
                let _ = fs::remove_file(name);
            }
        }
    }

    /// Removes the second name alone: nobody will be there to put the first one back.
    pub fn leave(self) {
        Filed {
            ours: false,
            ..self
        }
        .remove();
    }

    /// Does a thread that says `path` mean this one? Relative to its directory and root, where those
    /// can be seen: by these eyes.
    pub fn is_meant<W>(&self, tid: i32, path: &Path, eyes: impl FnOnce() -> W) -> bool {
        if path.file_name() != self.path.file_name() {
            return false;
        }
        if path == self.path {
            return true;
        }
        if !procfs::is_ours() {
            return false;
        }
        let base = match path.is_absolute() {
            true => "root",
            false => "cwd",
        };
        let dir = path.parent().unwrap_or(Path::new(""));
        let dir = dir.strip_prefix("/").unwrap_or(dir);
        let seen = Path::new("/proc")
            .join(tid.to_string())
            .join(base)
            .join(dir);
        let id = |p: &Path| {
            fs::metadata(p).ok().map(|m| {
                use std::os::unix::fs::MetadataExt;
                (m.dev(), m.ino())
            })
        };
        let ours = self.path.parent().and_then(id);
        let _worn = eyes();
        ours.is_some() && ours == id(&seen)
    }
}

/// `.NAME~`, `.NAME~1` and so on beside it; where that is too long for a socket's address, a short one
/// that is always the same, so that the next start finds what this one has left.
pub(super) fn hidden_names(path: &Path) -> [PathBuf; HIDDEN] {
    std::array::from_fn(|n| hidden_name(path, n))
}

fn hidden_name(path: &Path, n: usize) -> PathBuf {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let end = match n {
        0 => "~".to_string(),
        n => format!("~{n}"),
    };
    let mut hidden = [b".", name, end.as_bytes()].concat();
    if path.as_os_str().len() + 1 + end.len() > LONGEST {
        // FNV-1a.
        let mix = |h: u64, b: &u8| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3);
        let hash = name.iter().fold(0xcbf2_9ce4_8422_2325, mix);
        hidden = format!(".{hash:016x}{end}").into_bytes();
    }
    path.with_file_name(std::ffi::OsStr::from_bytes(&hidden))
}

/// Removes what a master that was killed has left under hidden names; the first one that is free. A
/// living socket there says that the path is in use, though its name be missing at this moment.
fn clear_hidden(path: &Path) -> io::Result<PathBuf> {
    let mut free = None;
    for name in hidden_names(path) {
        match remove_stale(&name) {
            Ok(()) => {
                free.get_or_insert(name);
            }
            // No socket: somebody's file, which is left alone.
            Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
            Err(e) => return Err(e),
        }
    }
    free.ok_or_else(|| io::Error::from_raw_os_error(libc::EEXIST))
}

/// A master that was killed while a lane of its own had the path has left a dead socket there, and
/// what was passed to it, which lives, under a hidden name: that gets its path back.
fn give_back_left(path: &Path) {
    let at = identity(path);
    let others = |name: &PathBuf| identity(name).is_some_and(|id| Some(id) != at);
    let living = |name: &PathBuf| {
        remove_stale(name).is_err_and(|e| e.raw_os_error() == Some(libc::EADDRINUSE))
    };
    let mut names = hidden_names(path).into_iter().filter(others);
    if let Some(name) = names.find(living)
        && remove_stale(path).is_ok()
    {
        let _ = fs::rename(name, path);
    }
}

fn in_use() -> io::Error {
    io::Error::from_raw_os_error(libc::EADDRINUSE)
}

/// In a directory whose path leaves no room for it, the second name is reached through that.
pub(super) fn listen_at(hidden: &Path, like: &FileIs, backlog: i32) -> io::Result<OwnedFd> {
    match unix::listen_unix(hidden, like.mode, backlog) {
        Err(e) if e.raw_os_error() == Some(libc::ENAMETOOLONG) => {}
        other => return other,
    }
    let dir = hidden.parent().filter(|d| !d.as_os_str().is_empty());
    let dir = fs::File::open(dir.unwrap_or(Path::new(".")))?;
    let short = Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(hidden.file_name().unwrap_or_default());
    unix::listen_unix(&short, like.mode, backlog)
}

pub(super) fn dress(path: &Path, like: &FileIs) -> io::Result<()> {
    match like.uid.or(like.gid) {
        Some(_) => unix::give_socket(path, like.uid, like.gid),
        None => Ok(()),
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match is_stale(path)? {
        true => fs::remove_file(path),
        false => Ok(()),
    }
}

/// Is there a socket that nobody listens on? An error: something else is there. False: nothing is.
pub(super) fn is_stale(path: &Path) -> io::Result<bool> {
    let kind = match fs::symlink_metadata(path) {
        Ok(m) => m.file_type(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    if !kind.is_socket() {
        return Err(io::Error::from_raw_os_error(libc::EEXIST));
    }
    match unix::connect_unix(path, Duration::from_millis(1)) {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Ok(true),
        // No answer in time is one, too: its queue is full. So is a socket of another type.
        Ok(_) | Err(_) => Err(in_use()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_name_that_is_removed_is_put_back_and_a_strangers_is_left_alone() {
        let dir = std::env::temp_dir().join(format!("mc-filed-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.sock");
        let like = FileIs {
            mode: Some(0o640),
            ..FileIs::default()
        };
        let (socket, filed) = Filed::open(&path, &like, 16).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(matches!(filed.mend(), Mended::Fine));
        fs::remove_file(&path).unwrap();
        assert!(matches!(filed.mend(), Mended::PutBack));
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        // In use: a second one is refused.
        let refused = Filed::open(&path, &FileIs::default(), 16).err().unwrap();
        assert_eq!(refused.raw_os_error(), Some(libc::EADDRINUSE));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        assert!(matches!(filed.mend(), Mended::Taken));
        filed.remove();
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        let refused = Filed::open(&path, &FileIs::default(), 16).err().unwrap();
        assert_eq!(refused.raw_os_error(), Some(libc::EEXIST));
        fs::remove_file(&path).unwrap();
        // Left by one that was killed: both names are stale.
        drop(socket);
        let (dead, _) = Filed::open(&path, &FileIs::default(), 16).unwrap();
        drop(dead);
        let (_socket, filed) = Filed::open(&path, &FileIs::default(), 16).unwrap();
        filed.remove();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn the_longest_path_has_a_second_name_too_and_a_longer_one_is_refused() {
        let dir = std::env::temp_dir().join(format!("mc-long-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let room = LONGEST - dir.as_os_str().len() - 1;
        for (length, fits) in [
            (room - 2, true),
            (room - 1, true),
            (room, true),
            (room + 1, false),
        ] {
            let path = dir.join("x".repeat(length));
            match (Filed::open(&path, &FileIs::default(), 16), fits) {
                (Ok((_socket, filed)), true) => {
                    fs::remove_file(&path).unwrap();
                    assert!(matches!(filed.mend(), Mended::PutBack), "{length}");
                    std::os::unix::net::UnixStream::connect(&path).unwrap();
                    filed.remove();
                }
                (Err(e), false) => assert_eq!(e.raw_os_error(), Some(libc::ENAMETOOLONG)),
                (other, _) => panic!("{length}: {:?}", other.err()),
            }
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        // And in a directory whose path is nearly all of it.
        let deep = dir.join("y".repeat(LONGEST - dir.as_os_str().len() - 3));
        fs::create_dir(&deep).unwrap();
        let (_socket, filed) = Filed::open(&deep.join("z"), &FileIs::default(), 16).unwrap();
        fs::remove_file(deep.join("z")).unwrap();
        assert!(matches!(filed.mend(), Mended::PutBack));
        filed.remove();
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_same_path_by_another_way_is_meant() {
        let dir = std::env::temp_dir().join(format!("mc-meant-{}", std::process::id()));
        fs::create_dir_all(dir.join("sub")).unwrap();
        std::os::unix::fs::symlink(dir.join("sub"), dir.join("link")).unwrap();
        let (_s, filed) = Filed::open(&dir.join("sub/a.sock"), &FileIs::default(), 16).unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        for (path, meant) in [
            (dir.join("sub/a.sock"), true),
            (dir.join("link/a.sock"), true),
            (dir.join("sub/../sub/a.sock"), true),
            (dir.join("a.sock"), false),
            (dir.join("sub/b.sock"), false),
            (PathBuf::from("a.sock"), false),
        ] {
            assert_eq!(filed.is_meant(me, &path, || ()), meant, "{path:?}");
        }
        filed.remove();
        fs::remove_dir_all(&dir).unwrap();
    }
}
