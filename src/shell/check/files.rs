//! Files that a start would make: whether it can, tried so that nothing is left, and nobody who starts
//! at this very moment is held up by it.

use crate::core::codes::{EX_CANTCREAT, EX_TEMPFAIL, Failure};
use crate::core::words::reason;
use crate::core::{Addr, Given};
use crate::shell::output::{Dir, without_parent};
use crate::shell::pidfile::{self, Prospect};
use crate::shell::sockets::is_abstract;
use crate::shell::{filed, single};
use crate::sys::process;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Can a file be made in that directory? One without a name is, which is gone when it is closed. Where the
/// file system has no such, one with a name, which is removed.
pub fn can_make_in(dir: &Path) -> io::Result<()> {
    can_put_in(dir, b"")
}

/// And can that be written into it? (On a disk that is full a file can be made.)
pub fn can_put_in(dir: &Path, text: &[u8]) -> io::Result<()> {
    let mut nameless = OpenOptions::new();
    nameless.write(true).mode(0o600);
    match nameless.custom_flags(libc::O_TMPFILE).open(dir) {
        Ok(mut file) => return file.write_all(text),
        Err(e)
            if matches!(
                e.raw_os_error(),
                Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL | libc::ENOENT)
            ) => {}
        Err(e) => return Err(e),
    }
    let path = dir.join(format!(".minicluster-check-{}", process::id()));
    let mut named = OpenOptions::new();
    named.write(true).create_new(true).mode(0o600);
    let written = named.open(&path)?.write_all(text);
    written.and(fs::remove_file(path))
}

/// Can that file be made, with that in it, or written to if it is there?
fn can_write(path: &Path, text: &[u8]) -> io::Result<()> {
    let open = OpenOptions::new()
        .append(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    match open {
        // A FIFO that nobody reads.
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => Ok(()),
        Err(e) if e.kind() == ErrorKind::NotFound => can_put_in(above(path), text),
        other => other.map(drop),
    }
}

/// As long as what is written there.
pub const PID: &[u8] = b"4194304\n";

fn above(path: &Path) -> &Path {
    let above = path.parent().filter(|p| !p.as_os_str().is_empty());
    above.unwrap_or(Path::new("."))
}

/// --log-file; what it has no room for is lost, and no reason not to start.
pub fn log(path: &Path) -> Result<(), Failure> {
    can_write(path, b"").map_err(|e| {
        let shown = path.display();
        (EX_CANTCREAT, format!("--log-file {shown}: {}", reason(&e)))
    })
}

/// --pid-file
pub fn pid_file(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    let cannot = |why: String| (EX_CANTCREAT, format!("--pid-file {shown}: {why}"));
    match pidfile::prospect(path) {
        Ok(Prospect::Held(pid)) => Err((EX_TEMPFAIL, pidfile::held_by_another(path, &pid))),
        Ok(Prospect::NoPid) => Err(cannot(pidfile::NO_PID.into())),
        Ok(Prospect::Free) => can_write(path, PID).map_err(|e| cannot(reason(&e))),
        Err(e) => Err(cannot(reason(&e))),
    }
}

/// --pid-dir
pub fn pid_dir(dir: &Path) -> Result<(), Failure> {
    in_or_beside(dir).map_err(|e| {
        let shown = dir.display();
        (EX_CANTCREAT, format!("--pid-dir {shown}: {}", reason(&e)))
    })
}

/// --log-dir
pub fn log_dir(dir: &Path) -> Result<(), Failure> {
    let there = match fs::symlink_metadata(dir) {
        // It is there: it is opened as by a start, which asks whose links lead to it.
        Ok(_) => Dir::open(dir).map(drop),
        Err(_) => Ok(()),
    };
    there.and_then(|()| in_or_beside(dir)).map_err(|e| {
        let shown = dir.display();
        (EX_CANTCREAT, format!("--log-dir {shown}: {}", reason(&e)))
    })
}

/// In a directory that is there, or made where its parent is.
fn in_or_beside(dir: &Path) -> io::Result<()> {
    match fs::metadata(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            can_make_in(above(dir)).map_err(|e| without_parent(dir, e))
        }
        Err(e) => Err(e),
        Ok(m) if m.is_dir() => can_make_in(dir),
        Ok(_) => Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
    }
}

/// Of -l, one with a name in the file system. `None`: it is no such.
pub fn socket(given: &Given) -> Option<Result<(), Failure>> {
    let path = match (&given.passed, &given.addr) {
        (None, Addr::Unix(path)) if !is_abstract(path) => path,
        (_, Addr::Tcp(_) | Addr::Unix(_) | Addr::Other(_)) => return None,
    };
    let tried = match path.as_os_str().len() > filed::LONGEST {
        true => Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG)),
        false => filed::is_stale(path).and_then(|_| can_make_in(above(path))),
    };
    Some(tried.map_err(|e| single::cannot_open(given, &e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let all = fs::read_dir(dir).unwrap().flatten();
        all.map(|e| e.file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn what_can_be_made_is_known_and_nothing_is_left_or_changed() {
        let dir = std::env::temp_dir().join(format!("mc-check-{}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("stale"), "4000000\n").unwrap();
        fs::write(dir.join("text"), "not a pid\n").unwrap();
        can_make_in(&dir).unwrap();
        assert!(can_make_in(&dir.join("none")).is_err());
        for (name, code) in [
            ("new", None),
            ("stale", None),
            ("text", Some(EX_CANTCREAT)),
            ("none/new", Some(EX_CANTCREAT)),
        ] {
            let got = pid_file(&dir.join(name)).err().map(|(code, _)| code);
            assert_eq!(got, code, "{name}");
        }
        let held = pidfile::PidFile::of_master(&dir.join("held")).unwrap();
        let (code, why) = pid_file(&dir.join("held")).unwrap_err();
        assert_eq!(code, EX_TEMPFAIL);
        assert!(
            why.contains(&format!("held by pid {}", process::id())),
            "{why}"
        );
        drop(held);
        assert!(log(&dir.join("log")).is_ok() && log(&dir.join("none/log")).is_err());
        assert!(log_dir(&dir.join("logs")).is_ok() && log_dir(&dir.join("none/logs")).is_err());
        assert!(log_dir(&dir).is_ok() && log_dir(&dir.join("stale")).is_err());
        assert!(pid_dir(&dir).is_ok() && pid_dir(&dir.join("stale")).is_err());
        let mut left = names(&dir);
        left.sort();
        assert_eq!(left, ["stale", "text"]);
        assert_eq!(fs::read_to_string(dir.join("stale")).unwrap(), "4000000\n");
        fs::remove_dir_all(&dir).unwrap();
    }
}
