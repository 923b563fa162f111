//! Files of others, read. Whoever has them may have put anything there: a FIFO that nobody writes to, a
//! link to a device, a file without end, a directory of millions. So only regular files are opened, without
//! waiting for them, no more of one is read than has a use, and there is a limit to all of it together.

use crate::core::words::{bytes, reason};
use crate::sys::{clock, fds};
use std::cell::Cell;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The look has so long; what is not seen by then is left out. (It is killed later than that.)
const TIME: Duration = Duration::from_secs(15);
/// So many files and directories are opened.
const MOST_OPENED: u32 = 100_000;
/// So many entries of a directory are looked at.
const MOST_ENTRIES: usize = 20_000;

/// What is left of time and files.
pub struct Budget {
    until: u64,
    opened: Cell<u32>,
}

/// When a file was changed last, in microseconds since 1970: whatever its own date says, which may be that
/// of the archive that it was unpacked from.
pub fn changed(m: &Metadata) -> i64 {
    let secs = m.ctime().saturating_mul(1_000_000);
    secs.saturating_add(m.ctime_nsec() / 1000)
}

/// Are both the same file?
pub fn same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

impl Budget {
    /// From now on.
    pub fn new() -> Budget {
        let time = u64::try_from(TIME.as_nanos()).unwrap_or(u64::MAX);
        Budget {
            until: clock::monotonic().saturating_add(time),
            opened: Cell::new(0),
        }
    }

    /// Is it used up?
    pub fn is_over(&self) -> bool {
        self.opened.get() >= MOST_OPENED || clock::monotonic() >= self.until
    }

    fn one_more(&self) -> io::Result<()> {
        if self.is_over() {
            return Err(io::Error::other("there was too much to look at"));
        }
        self.opened.set(self.opened.get().saturating_add(1));
        Ok(())
    }

    /// A regular file, whatever it is called.
    pub fn open(&self, path: &Path) -> io::Result<(File, Metadata)> {
        self.one_more()?;
        let file = fds::open_regular(path)?;
        let meta = file.metadata()?;
        Ok((file, meta))
    }

    /// All of a file that is no longer than that.
    pub fn read(&self, path: &Path, most: u64) -> Result<(Vec<u8>, Metadata), String> {
        let (file, meta) = self.open(path).map_err(|e| reason(&e))?;
        let long = || format!("is longer than {}: not read", bytes(most));
        if meta.size() > most {
            return Err(long());
        }
        let mut all = Vec::new();
        // It may be growing.
        let read = file.take(most.saturating_add(1)).read_to_end(&mut all);
        match read {
            Err(e) => Err(reason(&e)),
            Ok(n) if n as u64 > most => Err(long()),
            Ok(_) => Ok((all, meta)),
        }
    }

    /// What is in a directory, in order. A name that is no UTF-8 is shown as that can be.
    pub fn entries(&self, dir: &Path) -> Vec<(String, fs::DirEntry)> {
        let all = self.one_more().and_then(|()| fs::read_dir(dir));
        let named = |e: fs::DirEntry| (e.file_name().to_string_lossy().into_owned(), e);
        let all = all.into_iter().flatten().flatten().take(MOST_ENTRIES);
        let mut all: Vec<_> = all.map(named).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}

/// So many bytes of the file from there on, or as many as there are.
pub fn part(file: &File, at: u64, len: u64) -> io::Result<Vec<u8>> {
    let mut all = vec![0u8; usize::try_from(len).unwrap_or(0)];
    let mut got = 0usize;
    while let Some(rest) = all.get_mut(got..).filter(|rest| !rest.is_empty()) {
        let from = at.saturating_add(got as u64);
        match file.read_at(rest, from) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    all.truncate(got);
    Ok(all)
}

/// Is there a directory of that name, and no link to one?
pub fn is_real_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.is_dir())
}

/// Is there a regular file?
pub fn is_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file())
}

/// So many directories up we go.
const MOST_UP: usize = 32;

/// That directory and those above it, up to a root.
pub fn upwards(dir: &Path, root: &Path) -> impl Iterator<Item = PathBuf> {
    let below = dir.ancestors().take_while(move |dir| dir.starts_with(root));
    below.take(MOST_UP).map(Path::to_path_buf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_or_too_long_is_not_read() {
        let dir = std::env::temp_dir().join(format!("mc-deps-files-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let at = |name: &str| dir.join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(at("ten"), "0123456789").unwrap();
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, at(name)).unwrap();
        link("loop", "loop");
        link("/dev/zero", "zero");
        let b = Budget::new();
        let read = |name: &str, most| b.read(&at(name), most).map(|(all, _)| all.len());
        assert_eq!(read("ten", 10), Ok(10));
        assert!(read("ten", 9).unwrap_err().contains("longer than 9B"));
        for none in ["fifo", "loop", "zero", "missing", "."] {
            assert!(read(none, 10).is_err(), "{none}");
        }
        let names: Vec<String> = b.entries(&dir).into_iter().map(|e| e.0).collect();
        assert_eq!(names, ["fifo", "loop", "ten", "zero"]);
        assert!(b.entries(&at("fifo")).is_empty());
        let (file, _) = b.open(&at("ten")).unwrap();
        assert_eq!(part(&file, 8, 5).unwrap(), b"89");
        assert!(part(&file, 1000, 5).unwrap().is_empty());
        b.opened.set(MOST_OPENED);
        assert!(b.is_over() && read("ten", 10).is_err() && b.entries(&dir).is_empty());
        fs::remove_dir_all(&dir).unwrap();
    }
}
