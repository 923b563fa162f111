//! The directory of --log-dir. Who runs us may be root, and who may write there, or beside it, somebody else
//! (the workers' user): so names are opened by the descriptor of the directory, and that itself by the one of
//! its parent; links are not followed, and what is no regular file is neither written nor read.
//!
//! The path that was typed is followed once, at the start: links in it are the operator's wish then, and
//! whoever puts one there later has none.

use crate::sys::{process, procfs};
use crate::wire::logs::File as Entry;
use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, mkdirat};
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// So many files are in a list,
const MAX_LISTED: usize = 4096;
/// and so many entries are looked at for it.
const MAX_LOOKED: usize = 32 * 1024;

/// A file that is written.
#[derive(Debug)]
pub struct Opened {
    pub file: File,
    pub size: u64,
    /// Does it end within a line?
    pub torn: bool,
}

/// It is open.
#[derive(Serialize, Deserialize)]
pub struct Dir {
    #[serde(with = "crate::core::carry::paths")]
    pub path: PathBuf,
    #[serde(with = "crate::shell::carry")]
    fd: OwnedFd,
    /// Where it stood when we began, and its name there, which is no link.
    #[serde(with = "crate::shell::carry")]
    parent: File,
    #[serde(with = "crate::core::carry::paths")]
    name: OsString,
    /// Whose it was then.
    owner: u32,
}

impl Dir {
    /// Opens it; made if only the last component is not there.
    pub fn open(path: &Path) -> io::Result<Dir> {
        whose_link(path)?;
        let real = match fs::canonicalize(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                let made = DirBuilder::new().mode(0o750).create(path);
                made.map_err(|e| without_parent(path, e))?;
                fs::canonicalize(path)?
            }
            found => found?,
        };
        // That of / is / itself.
        let above = real.parent().unwrap_or(&real);
        let name = real.file_name().unwrap_or(OsStr::new(".")).to_os_string();
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let mut options = OpenOptions::new();
        let parent = options.read(true).custom_flags(flags).open(above)?;
        let fd = open_in(&parent, &name)?;
        let owner = fstat(&fd)?.st_uid;
        let path = path.to_path_buf();
        Ok(Dir {
            path,
            fd,
            parent,
            name,
            owner,
        })
    }

    /// The one that has its name now, in the place where it was; made if there is none. If it cannot be had,
    /// or is not what it was, the old one stays.
    pub fn reopen(&mut self) -> io::Result<()> {
        let name = self.name.as_os_str();
        let fd = match open_in(&self.parent, name) {
            Err(Errno::ENOENT) => {
                mkdirat(&self.parent, name, Mode::from_bits_truncate(0o750))?;
                open_in(&self.parent, name)
            }
            opened => opened,
        };
        let fd = fd.map_err(|e| match e {
            Errno::ENOTDIR if self.is_linked() => {
                io::Error::other("a symbolic link stands in place of its directory")
            }
            _ => e.into(),
        })?;
        // Who owns the parent may have put a directory of others there, or one of their own.
        let owner = fstat(&fd)?.st_uid;
        if owner != self.owner && owner != process::euid() {
            return Err(io::Error::other(format!(
                "its directory is of uid {owner} now, and was of uid {}",
                self.owner
            )));
        }
        self.fd = fd;
        Ok(())
    }

    fn is_linked(&self) -> bool {
        let name = self.name.as_os_str();
        let stat = fstatat(&self.parent, name, AtFlags::AT_SYMLINK_NOFOLLOW);
        stat.is_ok_and(|s| kind(&s) == SFlag::S_IFLNK)
    }

    /// A path to show.
    pub fn shown(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    /// Opens a file to append to it; made if it is not there.
    pub fn append(&self, name: &str) -> io::Result<Opened> {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT;
        let (file, stat) = self.open_regular(name, flags)?;
        let size = size_of(&stat);
        let torn = size > 0 && self.is_torn(name);
        Ok(Opened { file, size, torn })
    }

    /// Is its last line not ended? (To be asked of a descriptor of its own: to append takes no right to read.)
    fn is_torn(&self, name: &str) -> bool {
        let mut last = [b'\n'];
        if let Ok((file, entry)) = self.read(name) {
            let _ = file.read_at(&mut last, entry.size.saturating_sub(1));
        }
        last != [b'\n']
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
        ours(&stat)?;
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

    /// Its regular files, and how many more there are at least: first those whose names begin so, then
    /// the others, each by name.
    pub fn list(&self, first: &str) -> io::Result<(Vec<Entry>, usize)> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut dir = nix::dir::Dir::openat(&self.fd, ".", flags, Mode::empty())?;
        let (mut names, mut others) = (Vec::new(), Vec::new());
        let mut count = 0usize;
        for e in dir.iter().take(MAX_LOOKED) {
            let e = e?;
            // A name that is no text could not be asked for.
            let Ok(name) = e.file_name().to_str() else {
                continue;
            };
            if e.file_type().is_some_and(|t| t != Type::File) {
                continue;
            }
            count += 1;
            let kept = match name.starts_with(first) {
                true => &mut names,
                false => &mut others,
            };
            if kept.len() < MAX_LISTED {
                kept.push(name.to_string());
            }
        }
        names.sort();
        others.sort();
        names.append(&mut others);
        names.truncate(MAX_LISTED);
        let left_out = count - names.len();
        let of = |name: String| {
            let stat = fstatat(&self.fd, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW).ok()?;
            ours(&stat).ok()?;
            Some(entry(name, &stat))
        };
        Ok((names.into_iter().filter_map(of).collect(), left_out))
    }
}

/// No link is followed to it.
fn open_in(parent: impl AsFd, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// If the path itself is a link it has to be the operator's: who may write beside the directory could have put
/// it there, and wait for the next start.
fn whose_link(path: &Path) -> io::Result<()> {
    // (With a slash behind it the link would be followed.)
    let bare = path.components().as_path();
    match fs::symlink_metadata(bare) {
        Ok(m) if m.is_symlink() && ![0, process::euid()].contains(&m.uid()) => {
            let uid = m.uid();
            Err(io::Error::other(format!(
                "it is a symbolic link of uid {uid}, and is followed only if it is yours or root's"
            )))
        }
        Ok(_) | Err(_) => Ok(()),
    }
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

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn regular(stat: &FileStat) -> io::Result<()> {
    let what = match kind(stat) {
        SFlag::S_IFREG => return Ok(()),
        SFlag::S_IFIFO => "a FIFO",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFCHR | SFlag::S_IFBLK => "a device",
        _ => "no regular file",
    };
    Err(io::Error::other(format!("it is {what}")))
}

/// Is it a file, and one of this directory? Whoever may write here could have given /etc/shadow another name
/// here, and we would show it, or write what workers write behind it. Where the kernel sees to it that nobody
/// links what they may not write, a second name of a file of ours is our own doing, or a backup's, and no reason
/// to lose lines; we have made all files here, so one of somebody else needs none.
fn ours(stat: &FileStat) -> io::Result<()> {
    regular(stat)?;
    match is_linked(stat, process::euid(), procfs::hard_links_are_protected) {
        false => Ok(()),
        true => Err(io::Error::other(
            "it has more than one name (a hard link), and may be another file",
        )),
    }
}

fn is_linked(stat: &FileStat, us: u32, protected: impl FnOnce() -> bool) -> bool {
    stat.st_nlink > 1 && (stat.st_uid != us || !protected())
}

/// Only the last component of a path is made.
pub fn without_parent(path: &Path, e: io::Error) -> io::Error {
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
    use std::os::unix::fs::symlink;

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
        let mode = fstat(&dir.fd).unwrap().st_mode;
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
        assert_eq!(names(&dir), ["a.log"]);
        std::fs::remove_dir_all(place).unwrap();
    }

    fn names(dir: &Dir) -> Vec<String> {
        let (all, _) = dir.list("w.").unwrap();
        all.into_iter().map(|e| e.name).collect()
    }

    #[test]
    fn whoever_puts_another_directory_in_its_place_gains_nothing() {
        let place = place("place");
        let at = place.join("logs");
        let mut dir = Dir::open(&at).unwrap();
        dir.append("w.log").unwrap();
        fs::create_dir(place.join("secrets")).unwrap();
        fs::write(place.join("secrets/key"), "").unwrap();
        fs::rename(&at, place.join("moved")).unwrap();
        symlink("secrets", &at).unwrap();
        let why = dir.reopen().unwrap_err().to_string();
        assert_eq!(why, "a symbolic link stands in place of its directory");
        dir.append("new.log").unwrap();
        assert!(place.join("moved/new.log").exists() && !at.join("new.log").exists());
        assert_eq!(names(&dir), ["w.log", "new.log"]);
        assert!(dir.read("key").is_err());
        fs::remove_file(&at).unwrap();
        fs::write(&at, "").unwrap();
        assert!(dir.reopen().is_err());
        // What has gone is made anew, where it was.
        fs::remove_file(&at).unwrap();
        dir.reopen().unwrap();
        assert!(at.is_dir() && names(&dir).is_empty());
        if process::euid() == 0 {
            let give = |uid| std::os::unix::fs::chown(&at, Some(uid), None).unwrap();
            give(65534);
            let why = dir.reopen().unwrap_err().to_string();
            assert_eq!(why, "its directory is of uid 65534 now, and was of uid 0");
            // One that was theirs when we began may be so again, or ours.
            let mut dir = Dir::open(&at).unwrap();
            dir.reopen().unwrap();
            give(0);
            dir.reopen().unwrap();
            give(65533);
            assert!(dir.reopen().is_err());
        }
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn of_too_many_files_ours_are_listed_and_the_others_counted() {
        let place = place("many");
        let dir = Dir::open(&place).unwrap();
        for n in 0..MAX_LISTED + 3 {
            fs::write(place.join(format!("a.{n}")), "").unwrap();
        }
        for n in 0..100 {
            fs::create_dir(place.join(format!("sub.{n}"))).unwrap();
        }
        fs::write(place.join("w.log"), "").unwrap();
        fs::write(place.join("w.0.log"), "").unwrap();
        let (all, left_out) = dir.list("w.").unwrap();
        assert_eq!((all.len(), left_out), (MAX_LISTED, 5));
        assert_eq!([&all[0].name, &all[1].name], ["w.0.log", "w.log"]);
        assert!(all[2..].iter().is_sorted_by(|a, b| a.name < b.name));
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_link_that_is_the_operators_is_followed_once() {
        let place = place("wish");
        for day in ["one", "two"] {
            fs::create_dir(place.join(day)).unwrap();
        }
        let link = place.join("current");
        symlink("one", &link).unwrap();
        let mut dir = Dir::open(&link.join("")).unwrap();
        fs::remove_file(&link).unwrap();
        symlink("two", &link).unwrap();
        dir.reopen().unwrap();
        dir.append("w.log").unwrap();
        assert!(place.join("one/w.log").exists());
        if process::euid() == 0 {
            std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
            for path in [link.clone(), link.join("")] {
                let why = Dir::open(&path).err().unwrap().to_string();
                assert!(
                    why.starts_with("it is a symbolic link of uid 65534"),
                    "{why}"
                );
            }
        }
        fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_second_name_of_something_else_is_no_file_of_ours() {
        let place = place("names");
        let dir = Dir::open(&place).unwrap();
        dir.append("w.log").unwrap();
        let mut stat = fstatat(&dir.fd, "w.log", AtFlags::empty()).unwrap();
        let us = stat.st_uid;
        for (names, uid, protected, linked) in [
            (1, us, true, false),
            (1, us, false, false),
            (1, us + 1, false, false),
            (2, us, true, false),
            (2, us, false, true),
            (2, us + 1, true, true),
            (2, us + 1, false, true),
        ] {
            (stat.st_nlink, stat.st_uid) = (names, uid);
            let case = (names, uid, protected);
            assert_eq!(is_linked(&stat, us, || protected), linked, "{case:?}");
        }
        if process::euid() == 0 {
            fs::write(place.join("theirs"), "").unwrap();
            std::os::unix::fs::chown(place.join("theirs"), Some(65534), None).unwrap();
            assert_eq!(names(&dir), ["w.log", "theirs"]);
            fs::hard_link(place.join("theirs"), place.join("w.0.log")).unwrap();
            assert!(dir.append("w.0.log").is_err() && dir.read("theirs").is_err());
            assert_eq!(names(&dir), ["w.log"]);
        }
        fs::remove_dir_all(place).unwrap();
    }
}
