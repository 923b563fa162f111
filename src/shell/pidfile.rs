//! Pid files. A file is held by a lock on it as long as its master lives; the number in it is for
//! people and scripts, and is never trusted without the lock. Rules:
//!
//! 1. Whoever cannot have the lock changes nothing.
//! 2. What is no pid file is not overwritten, whatever it was named for.
//! 3. A file is removed by its holder alone, and only while the path still leads to it.

use super::Shell;
use super::names::lock_file;
use crate::core::codes::{EX_CANTCREAT, EX_NOPERM, EX_TEMPFAIL, FAILED, Failure, NOT_RUNNING};
use crate::core::words::reason;
use crate::core::{Level, WorkerId};
use crate::sys::carried;
use crate::sys::flock::{Locked, Share};
use crate::sys::{clock, pidfd, process, procfs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No pid file is longer.
const LONGEST: u64 = 64;
/// So many entries of a directory are looked at for stale files.
const SWEEP: usize = 65_536;
/// So often a client looks again at a file that is being written.
const LOOKS: usize = 100;
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// So far apart are two looks at a file that somebody else has locked.
const STRANGER: Duration = Duration::from_millis(100);

/// One that is ours.
#[derive(Serialize, Deserialize)]
pub struct PidFile {
    #[serde(with = "crate::shell::carry")]
    lock: Locked,
    #[serde(with = "crate::core::carry::paths")]
    path: PathBuf,
}

/// Why it is not.
pub enum Refused {
    /// Somebody holds it: this pid, as far as it says.
    Held(String),
    /// A whole reason.
    Cannot(String),
}

impl From<io::Error> for Refused {
    fn from(e: io::Error) -> Refused {
        let text = match e.raw_os_error() {
            Some(libc::ELOOP) => "it is a symbolic link".into(),
            _ => reason(&e),
        };
        Refused::Cannot(text)
    }
}

impl PidFile {
    /// Takes it for this process.
    pub fn take(path: &Path, pid: i32) -> Result<PidFile, Refused> {
        let mut lock = lock_file(path, 0o644)?;
        if lock.is_none() && is_held_by_a_stranger(path) {
            // It was a dead master's. The stranger keeps that file, and we have a new one.
            fs::remove_file(path)?;
            lock = lock_file(path, 0o644)?;
        }
        let Some(mut lock) = lock else {
            let text = fs::read_to_string(path).unwrap_or_default();
            return Err(Refused::Held(text.trim().to_string()));
        };
        let m = lock.metadata()?;
        if !m.is_file() {
            return Err(Refused::Cannot("it is not a regular file".into()));
        }
        if m.len() > LONGEST || !is_number(&read(&mut lock)?) {
            return Err(Refused::Cannot(NO_PID.into()));
        }
        let path = path.to_path_buf();
        let file = PidFile { lock, path };
        // Dropped, it is removed: on a full disk no empty one stays.
        file.lock.set_len(0)?;
        file.lock.write_all_at(format!("{pid}\n").as_bytes(), 0)?;
        Ok(file)
    }

    /// That of --pid-file.
    pub fn of_master(path: &Path) -> Result<PidFile, Failure> {
        let shown = path.display();
        PidFile::take(path, process::id()).map_err(|refused| match refused {
            Refused::Held(pid) => (EX_TEMPFAIL, held_by_another(path, &pid)),
            Refused::Cannot(why) => (EX_CANTCREAT, format!("--pid-file {shown}: {why}")),
        })
    }
}

/// Why it cannot be had.
pub(super) fn held_by_another(path: &Path, pid: &str) -> String {
    let by = match pid.is_empty() {
        true => "a master that starts".to_string(),
        false => format!("pid {pid}"),
    };
    let (shown, me) = (path.display(), "minicluster --pid-file");
    format!("{shown} is held by {by}; look at it: {me} {shown} status; end it: {me} {shown} stop")
}

/// Why it is left alone.
pub(super) const NO_PID: &str =
    "it is there and holds no pid: is it another program's file? Remove it, or choose another path";

/// What a start would find there.
pub(super) enum Prospect {
    /// Nothing, or what a dead master has left.
    Free,
    /// The file of this pid.
    Held(String),
    /// Something that is no pid file.
    NoPid,
}

/// Looks, and takes nothing.
pub(super) fn prospect(path: &Path) -> io::Result<Prospect> {
    match held_by(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Prospect::Free),
        Err(e) => Err(e),
        Ok(Held::No(text)) if is_number(&text) => Ok(Prospect::Free),
        Ok(Held::No(_)) => Ok(Prospect::NoPid),
        Ok(Held::Yes(_)) if is_held_by_a_stranger(path) => Ok(Prospect::Free),
        Ok(Held::Yes(pid)) => Ok(Prospect::Held(pid)),
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if !carried::is_taking() && is_at(&self.lock, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Does the path lead to this file?
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(there)) = (file.metadata(), fs::symlink_metadata(path)) else {
        return false;
    };
    (held.dev(), held.ino()) == (there.dev(), there.ino())
}

fn read(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_string())
}

/// Nothing is one, too: that of a master which died before it wrote.
fn is_number(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

/// A master found by its pid file, and proven.
pub struct Found {
    /// Its pid.
    pub pid: i32,
    /// Itself.
    pub process: OwnedFd,
}

/// The master that holds this file. The lock says that one lives; the number is read before and
/// after the descriptor of its process is opened, while the lock is held, so it is that one.
pub fn find(path: &Path) -> Result<Found, Failure> {
    let shown = path.display();
    let cannot = |e: io::Error| match e.kind() {
        ErrorKind::NotFound => (
            NOT_RUNNING,
            format!("not running: there is no pid file {shown}"),
        ),
        ErrorKind::PermissionDenied => (EX_NOPERM, format!("--pid-file {shown}: {}", reason(&e))),
        _ => (FAILED, format!("--pid-file {shown}: {}", reason(&e))),
    };
    for _ in 0..LOOKS {
        let pid = match held_by(path).map_err(cannot)? {
            Held::No(text) if !is_number(&text) => {
                return Err((
                    FAILED,
                    format!("--pid-file {shown} holds no pid: is it another file?"),
                ));
            }
            Held::No(text) => {
                let was = match text.is_empty() {
                    true => String::new(),
                    false => format!(", of pid {text}"),
                };
                let why = format!("dead: {shown} is a stale pid file{was}: nobody holds its lock");
                return Err((FAILED, why));
            }
            Held::Yes(pid) => pid,
        };
        // Between its lock and its number: it starts.
        let process = pid.parse().ok().map(|n: i32| (n, pidfd::open(n)));
        if let Some((pid, Ok(process))) = process
            && matches!(held_by(path), Ok(Held::Yes(again)) if again == pid.to_string())
        {
            proves(path, pid)?;
            return Ok(Found { pid, process });
        }
        clock::pause(LOOK_AGAIN);
    }
    let why = "is locked, but holds no pid of a process that can be seen from here";
    Err((FAILED, format!("--pid-file {shown} {why}")))
}

/// Anybody who may read the file can lock it, and a stale number is a stranger's: so where we can
/// look, the process has to have the file open.
fn proves(path: &Path, pid: i32) -> Result<(), Failure> {
    let m = fs::metadata(path).ok();
    match m.and_then(|m| procfs::has_open(pid, m.dev(), m.ino())) {
        Some(false) => Err((
            FAILED,
            format!(
                "dead: {} is a stale pid file: pid {pid} is another process, and somebody else has locked the file",
                path.display()
            ),
        )),
        Some(true) | None => Ok(()),
    }
}

/// Is it locked by somebody who is not the process it names? A master that starts has the lock for a
/// moment before the number is its own, so two looks must agree.
fn is_held_by_a_stranger(path: &Path) -> bool {
    let look = || {
        let m = fs::symlink_metadata(path).ok().filter(|m| m.is_file())?;
        let text = fs::read_to_string(path).ok()?;
        let pid: i32 = text.trim().parse().ok()?;
        let none = |e: io::Error| e.raw_os_error() == Some(libc::ESRCH);
        let gone = pidfd::open(pid).is_err_and(none);
        let other = procfs::has_open(pid, m.dev(), m.ino()) == Some(false);
        (gone || other).then_some(pid)
    };
    let first = look();
    first.is_some() && {
        clock::pause(STRANGER);
        look() == first
    }
}

enum Held {
    Yes(String),
    No(String),
}

/// What it says, and does anybody hold it?
fn held_by(path: &Path) -> io::Result<Held> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let text = read(&mut file)?;
    match Locked::lock(file, Share::Yes) {
        Err((_, e)) if e.kind() == ErrorKind::WouldBlock => Ok(Held::Yes(text)),
        Err((_, e)) => Err(e),
        Ok(_) => Ok(Held::No(text)),
    }
}

/// --pid-dir: a file for the master and for each worker.
#[derive(Serialize, Deserialize)]
pub struct PidDir {
    #[serde(with = "crate::core::carry::paths")]
    dir: PathBuf,
    _master: PidFile,
    workers: BTreeMap<WorkerId, PidFile>,
}

impl PidDir {
    /// Makes it if its parent is there, and sweeps out what dead masters left.
    pub fn open(dir: &Path) -> Result<PidDir, Failure> {
        let shown = dir.display();
        let cannot = |why: String| (EX_CANTCREAT, format!("--pid-dir {shown}: {why}"));
        match DirBuilder::new().mode(0o755).create(dir) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(cannot(reason(&e))),
            Ok(()) | Err(_) => {}
        }
        sweep(dir).map_err(|e| cannot(reason(&e)))?;
        let pid = process::id();
        let master = PidFile::take(&dir.join(format!("master.{pid}.pid")), pid);
        let master = master.map_err(|refused| match refused {
            Refused::Held(_) => cannot(format!("master.{pid}.pid is held by somebody else")),
            Refused::Cannot(why) => cannot(format!("master.{pid}.pid: {why}")),
        })?;
        Ok(PidDir {
            dir: dir.to_path_buf(),
            _master: master,
            workers: BTreeMap::new(),
        })
    }

    fn add(&mut self, worker: WorkerId, pid: i32) -> Result<(), String> {
        let path = self.dir.join(format!("worker.{pid}.pid"));
        match PidFile::take(&path, pid) {
            Ok(file) => {
                self.workers.insert(worker, file);
                Ok(())
            }
            Err(Refused::Held(_)) => Err(format!("{}: somebody else holds it", path.display())),
            Err(Refused::Cannot(why)) => Err(format!("{}: {why}", path.display())),
        }
    }
}

/// Removes the pid files of the dead: named as ours are, and held by nobody.
fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)?.take(SWEEP).flatten() {
        let path = entry.path();
        let regular = entry.file_type().is_ok_and(|t| t.is_file());
        if !regular || !entry.file_name().to_str().is_some_and(is_name) {
            continue;
        }
        let open = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path);
        // Whoever makes it anew at this moment sees that the path leads elsewhere, and tries again.
        if let Ok(file) = open
            && let Ok(lock) = Locked::lock(file, Share::No)
            && is_at(&lock, &path)
        {
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

/// master.PID.pid or worker.PID.pid
fn is_name(name: &str) -> bool {
    let rest = name
        .strip_prefix("master.")
        .or_else(|| name.strip_prefix("worker."));
    let pid = rest.and_then(|r| r.strip_suffix(".pid"));
    pid.is_some_and(|p| !p.is_empty() && is_number(p))
}

impl Shell {
    /// A worker has been born.
    pub(super) fn note_pid(&mut self, worker: WorkerId, pid: i32) {
        if let Some(dir) = &mut self.pid_dir
            && let Err(why) = dir.add(worker, pid)
        {
            let message = format!(
                "cannot write a worker's pid file: {why}; the cluster goes on, and what else fails there is not said"
            );
            self.say_once(Level::Warn, "no-pid-file", message);
        }
    }

    /// It has been reaped.
    pub(super) fn drop_pid(&mut self, worker: WorkerId) {
        if let Some(dir) = &mut self.pid_dir {
            dir.workers.remove(&worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("mc-pid-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn only_one_has_it_and_what_is_no_pid_file_is_left_alone() {
        let dir = place("one");
        let at = dir.join("x.pid");
        fs::write(&at, "12345\n").unwrap();
        let me = process::id();
        let text = format!("{me}\n");
        let first = PidFile::take(&at, me).ok().unwrap();
        assert_eq!(fs::read_to_string(&at).unwrap(), text);
        let held =
            |r: Result<PidFile, Refused>| matches!(r, Err(Refused::Held(p)) if p == me.to_string());
        assert!(held(PidFile::take(&at, 78)));
        assert_eq!(fs::read_to_string(&at).unwrap(), text);
        drop(first);
        assert!(!at.exists());
        fs::write(&at, "precious").unwrap();
        assert!(matches!(PidFile::take(&at, 77), Err(Refused::Cannot(w)) if w.contains("no pid")));
        assert_eq!(fs::read_to_string(&at).unwrap(), "precious");
        let link = dir.join("link");
        std::os::unix::fs::symlink("x.pid", &link).unwrap();
        assert!(matches!(PidFile::take(&link, 77), Err(Refused::Cannot(w)) if w.contains("link")));
        assert!(matches!(
            PidFile::take(Path::new("/dev/null"), 77),
            Err(Refused::Cannot(_))
        ));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_strangers_lock_on_a_dead_masters_file_keeps_nobody_from_starting() {
        let dir = place("stranger");
        let at = dir.join("x.pid");
        // No process has the highest number there can be.
        fs::write(&at, "4194304\n").unwrap();
        for how in [Share::No, Share::Yes] {
            let stranger = Locked::lock(File::open(&at).unwrap(), how).unwrap();
            let file = PidFile::take(&at, process::id()).ok().unwrap();
            assert_eq!(find(&at).ok().unwrap().pid, process::id());
            drop((file, stranger));
            assert!(!at.exists());
            fs::write(&at, "4194304\n").unwrap();
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn another_file_that_took_its_name_is_not_removed() {
        let dir = place("moved");
        let at = dir.join("x.pid");
        let file = PidFile::take(&at, 77).ok().unwrap();
        fs::rename(&at, dir.join("y.pid")).unwrap();
        fs::write(&at, "78\n").unwrap();
        drop(file);
        assert_eq!(fs::read_to_string(&at).unwrap(), "78\n");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_number_without_its_lock_is_nobody() {
        let dir = place("stale");
        let at = dir.join("x.pid");
        assert_eq!(find(&at).err().unwrap().0, NOT_RUNNING);
        fs::write(&at, format!("{}\n", process::id())).unwrap();
        assert_eq!(find(&at).err().unwrap().0, FAILED);
        let held = PidFile::take(&at, process::id()).ok().unwrap();
        assert_eq!(find(&at).ok().unwrap().pid, process::id());
        // Somebody's lock on a number that is not his.
        held.lock.set_len(0).unwrap();
        held.lock.write_all_at(b"1\n", 0).unwrap();
        let (code, why) = find(&at).err().unwrap();
        assert_eq!(code, FAILED);
        assert!(why.contains("pid 1 is another process"), "{why}");
        drop(held);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_directory_is_swept_of_the_dead_and_of_nothing_else() {
        let dir = place("dir");
        let held = PidFile::take(&dir.join("worker.5.pid"), 5).ok().unwrap();
        for name in ["master.1.pid", "worker.2.pid", "worker.x.pid", "nginx.pid"] {
            fs::write(dir.join(name), "1\n").unwrap();
        }
        let ours = PidDir::open(&dir).unwrap_or_else(|(_, why)| panic!("{why}"));
        let mut left: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let me = format!("master.{}.pid", process::id());
        assert_eq!(left, [&me, "nginx.pid", "worker.5.pid", "worker.x.pid"]);
        drop((ours, held));
        assert!(!dir.join(me).exists());
        fs::remove_dir_all(&dir).unwrap();
    }
}
