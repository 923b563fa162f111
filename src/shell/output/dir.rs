//! The directory of --log-dir. Who runs us may be root, and who may write there somebody else (the workers'
//! user): so names are opened by the descriptor of the directory, links are not followed, and what is no
//! regular file is neither written nor read.

use crate::wire::logs::File as Entry;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// So many of its entries are looked at for a list.
const MAX_LISTED: usize = 4096;

/// It is open.
pub struct Dir {
    pub path: PathBuf,
    fd: File,
}

impl Dir {
    /// Opens it; made if only the last component is not there.
    pub fn open(path: &Path) -> io::Result<Dir> {
        let fd = match open(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let made = DirBuilder::new().mode(0o750).create(path);
                made.map_err(|e| without_parent(path, e))?;
                open(path)?
            }
            opened => opened?,
        };
        let path = path.to_path_buf();
        Ok(Dir { path, fd })
    }

    /// The one that has its name now.
    pub fn reopen(&mut self) -> io::Result<()> {
        *self = Dir::open(&self.path)?;
        Ok(())
    }

    /// A path to show.
    pub fn shown(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// Opens a file to append to it; made if it is not there. How long it is.
    pub fn append(&self, name: &str) -> io::Result<(File, u64)> {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT;
        let (file, stat) = self.open_regular(name, flags)?;
        Ok((file, size_of(&stat)))
    }

    /// Opens a file to read it.
    pub fn read(&self, name: &str) -> io::Result<(File, Entry)> {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(ErrorKind::NotFound.into());
        }
        // Before it is opened: to open a device may do something.
        let stat = fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        regular(&stat)?;
        let (file, stat) = self.open_regular(name, OFlag::O_RDONLY)?;
        Ok((file, entry(name.to_string(), &stat)))
    }

    fn open_regular(&self, name: &str, flags: OFlag) -> io::Result<(File, FileStat)> {
        // Of a FIFO nobody is waited for.
        let usual = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let mode = Mode::from_bits_truncate(0o640);
        let fd = openat(&self.fd, name, flags | usual, mode).map_err(|e| match e {
            // A FIFO that nobody reads, a socket.
            nix::Error::ENXIO => self.no_file(name).unwrap_or(e.into()),
            _ => io::Error::from(e),
        })?;
        let stat = fstat(&fd)?;
        regular(&stat)?;
        Ok((fd.into(), stat))
    }

    /// What it is instead of a file, if that can be seen.
    fn no_file(&self, name: &str) -> Option<io::Error> {
        let stat = fstatat(&self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
        regular(&stat).err()
    }

    /// Gives a file another name, in place of what had that. One that is not there is none to rename.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match renameat(&self.fd, from, &self.fd, to) {
            Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Its regular files, by name.
    pub fn list(&self) -> io::Result<Vec<Entry>> {
        let some = std::fs::read_dir(&self.path)?.take(MAX_LISTED).flatten();
        let of = |name: String| {
            let stat = fstatat(&self.fd, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
            regular(&stat).ok()?;
            Some(entry(name, &stat))
        };
        // A name that is no text could not be asked for.
        let names = some.filter_map(|e| e.file_name().into_string().ok());
        let mut all: Vec<Entry> = names.filter_map(of).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_DIRECTORY | libc::O_CLOEXEC;
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn entry(name: String, stat: &FileStat) -> Entry {
    Entry {
        name,
        size: size_of(stat),
        modified: u64::try_from(stat.st_mtime).unwrap_or(0),
    }
}

fn size_of(stat: &FileStat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn regular(stat: &FileStat) -> io::Result<()> {
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    let what = match kind {
        SFlag::S_IFREG => return Ok(()),
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFCHR | SFlag::S_IFBLK => "a device",
        _ => "no regular file",
    };
    Err(io::Error::other(format!("it is {what}")))
}

/// Only the last component of a path is made.
fn without_parent(path: &Path, e: io::Error) -> io::Error {
    match path.parent() {
        Some(parent) if e.kind() == ErrorKind::NotFound => io::Error::other(format!(
            "it is not made, because {} is not there: make that first",
            parent.display()
        )),
        _ => e,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::{PermissionsExt, symlink};

    pub fn place(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("mc-output-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn it_is_made_if_only_its_last_component_is_missing() {
        let place = place("made");
        let dir = Dir::open(&place.join("logs")).unwrap();
        let mode = dir.fd.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o027, 0, "{mode:o}");
        assert!(Dir::open(&place.join("a/b")).is_err());
        std::fs::write(place.join("file"), "").unwrap();
        assert!(Dir::open(&place.join("file")).is_err());
        std::fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn nothing_but_its_own_regular_files_is_opened() {
        let place = place("escape");
        std::fs::write(place.join("secret"), "secret").unwrap();
        let at = place.join("logs");
        let dir = Dir::open(&at).unwrap();
        std::fs::write(at.join("a.log"), "said").unwrap();
        std::fs::create_dir(at.join("sub")).unwrap();
        std::fs::write(at.join("sub/b.log"), "").unwrap();
        symlink("../secret", at.join("link")).unwrap();
        symlink("a.log", at.join("near")).unwrap();
        nix::unistd::mkfifo(&at.join("fifo"), Mode::S_IRWXU).unwrap();
        let (mut file, entry) = dir.read("a.log").unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), entry.size), ("said", 4));
        for name in [
            "",
            ".",
            "..",
            "../secret",
            "/etc/passwd",
            "sub",
            "sub/b.log",
            "link",
            "near",
            "fifo",
            "nothing",
            "a.log/",
            "./a.log",
            "a.log\0",
        ] {
            assert!(dir.read(name).is_err(), "{name:?}");
        }
        for name in ["link", "near", "fifo", "sub"] {
            assert!(dir.append(name).is_err(), "{name:?}");
        }
        let why = |name| dir.append(name).unwrap_err().to_string();
        assert_eq!(why("fifo"), "it is a FIFO");
        let _reader = File::options().read(true).write(true).open(at.join("fifo"));
        assert_eq!(why("fifo"), "it is a FIFO");
        let _bound = std::os::unix::net::UnixListener::bind(at.join("socket")).unwrap();
        assert_eq!(why("socket"), "it is a socket");
        let all = dir.list().unwrap();
        let names: Vec<&str> = all.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["a.log"]);
        std::fs::remove_dir_all(place).unwrap();
    }
}
