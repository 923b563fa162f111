//! Paths whose change asks for a reload (--watch). The kernel tells that something happened (inotify:
//! of each path itself, and of the directory it is in, so that a rename over it, a link that is
//! switched and a file that goes and comes again are seen); when that has been over for a while, a
//! look tells whether anything is another than it was. So what comes and goes, as the files of an
//! editor do, is no change, and neither is what the master writes itself.

use super::{Kind, Shell, token};
use crate::core::codes::{EX_CONFIG, EX_NOPERM, EX_OSERR, EX_USAGE, Failure};
use crate::core::words::reason;
use crate::core::{Level, Phase, Time};
use crate::settings::{LogTo, Settings};
use mio::unix::SourceFd;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// It has to be quiet for so long after a change: a deploy is more than one.
const QUIET: Duration = Duration::from_millis(500);
/// So often in one turn it is read what has happened.
const READS: usize = 16;
/// So many entries of a directory are looked at.
const MAX_ENTRIES: usize = 10_000;
/// So often it is tried again if a directory appears while its own directory begins to be watched.
const TRIES: usize = 8;

/// All of them.
pub struct Watch {
    inotify: Inotify,
    paths: Vec<Watched>,
    ours: Ours,
    /// What the kernel watches for us.
    asked: BTreeSet<WatchDescriptor>,
    /// When it will have been quiet for long enough.
    due: Option<Time>,
}

struct Watched {
    path: PathBuf,
    /// Itself, behind a link; or, a directory, what is directly in it. `None`: it is not there.
    own: Option<WatchDescriptor>,
    /// The directory it is in, or the nearest one above that which is there.
    above: Option<WatchDescriptor>,
    /// Is it that of its own?
    near: bool,
    /// What is there, and how it was when it was looked at last and was there.
    which: Option<(u64, u64)>,
    was: Option<State>,
}

/// A path, and how it was when it was looked at last and was there: for who takes over.
pub type Was = (String, Option<State>);

/// What the master writes.
struct Ours {
    files: Vec<PathBuf>,
    pid_dir: Option<PathBuf>,
}

impl Ours {
    fn of(s: &Settings) -> Ours {
        let log = match &s.log_file {
            Some(LogTo::File(path)) => Some(path.clone()),
            Some(LogTo::Stderr | LogTo::Syslog) | None => None,
        };
        Ours {
            files: log.into_iter().chain(s.pid_file.clone()).collect(),
            pid_dir: s.pid_dir.clone(),
        }
    }

    fn has(&self, path: &Path) -> bool {
        let pid = path.extension().is_some_and(|e| e == "pid");
        self.files.iter().any(|f| f == path) || pid && path.parent() == self.pid_dir.as_deref()
    }
}

/// How it is: the path, where it leads, and what is in there if that is a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    link: Print,
    file: Print,
    inside: u64,
}

/// Which file, and as of when. Of a directory only which: what comes and goes in it leaves a trace.
type Print = (u64, u64, i64, i64, u64);

fn print(m: &Metadata) -> Print {
    match m.is_dir() {
        true => (m.dev(), m.ino(), 0, 0, 0),
        false => (m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.size()),
    }
}

impl State {
    /// `None`: it is not there, or leads nowhere.
    fn of(path: &Path, ours: &Ours) -> Option<State> {
        let (link, file) = (fs::symlink_metadata(path).ok()?, fs::metadata(path).ok()?);
        let mut inside = 0u64;
        if file.is_dir() {
            for entry in fs::read_dir(path).ok()?.flatten().take(MAX_ENTRIES) {
                let Ok(m) = entry.metadata() else { continue };
                let kept = m.is_file() || m.is_dir() || m.is_symlink();
                if !kept || ours.has(&path.join(entry.file_name())) {
                    continue;
                }
                let mut hasher = DefaultHasher::new();
                (entry.file_name(), print(&m)).hash(&mut hasher);
                // In whatever order they are listed.
                inside = inside.wrapping_add(hasher.finish());
            }
        }
        Some(State {
            link: print(&link),
            file: print(&file),
            inside,
        })
    }
}

impl Watched {
    /// What is there, behind links.
    fn which(&self) -> Option<(u64, u64)> {
        let m = fs::metadata(&self.path).ok()?;
        Some((m.dev(), m.ino()))
    }

    /// Is the news about it?
    fn is_meant(&self, e: &InotifyEvent, ours: &Ours) -> bool {
        let name = e.name.as_ref();
        if self.own == Some(e.wd) {
            return !name.is_some_and(|n| ours.has(&self.path.join(n)));
        }
        let named =
            name.is_none_or(|n| Some(n) == self.path.file_name().map(OsString::from).as_ref());
        self.above == Some(e.wd) && (!self.near || named)
    }
}

/// The kernel has limits of its own for this, and errors that do not say so.
fn why(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(libc::ENOSPC) => "too many are watched (see fs.inotify.max_user_watches)".into(),
        Some(libc::EMFILE) => "too many watch (see fs.inotify.max_user_instances)".into(),
        Some(_) | None => reason(e),
    }
}

/// It is not there: that is for later.
fn is_missing(e: Errno) -> bool {
    matches!(e, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)
}

impl Watch {
    /// Begins to watch them. The directory of each has to be there.
    pub fn open(s: &Settings) -> Result<Option<Watch>, Failure> {
        let Some(first) = s.watch.first() else {
            return Ok(None);
        };
        let cannot = |path: &Path, e: io::Error| {
            let code = match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => EX_CONFIG,
                io::ErrorKind::PermissionDenied => EX_NOPERM,
                _ => EX_OSERR,
            };
            (code, format!("--watch {}: {}", path.display(), why(&e)))
        };
        let ours = Ours::of(s);
        for path in &s.watch {
            if ours.has(path) {
                let why = "is written by the master itself, which would reload for ever";
                return Err((EX_USAGE, format!("--watch {} {why}", path.display())));
            }
            let dir = path.parent().unwrap_or(path);
            let there = fs::metadata(dir).and_then(|m| match m.is_dir() {
                true => Ok(()),
                false => Err(Errno::ENOTDIR.into()),
            });
            // (Of the path itself nothing need be there.)
            there.map_err(|e| {
                let (code, why) = cannot(path, e);
                (code, format!("{why}: {}", dir.display()))
            })?;
        }
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        let mut watch = Watch {
            inotify: inotify.map_err(|e| cannot(first, e.into()))?,
            paths: s.watch.iter().map(|path| Watched::new(path)).collect(),
            ours,
            asked: BTreeSet::new(),
            due: None,
        };
        watch.ask().map_err(|(path, e)| cannot(&path, e.into()))?;
        watch.changed();
        Ok(Some(watch))
    }

    fn add(&self, path: &Path) -> nix::Result<WatchDescriptor> {
        let entries = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE;
        let content = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CLOSE_WRITE;
        let itself = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
        self.inotify.add_watch(path, entries | content | itself)
    }

    /// Asks the kernel about what is there by now; and about nothing else any more.
    fn ask(&mut self) -> Result<(), (PathBuf, Errno)> {
        let mut asked = BTreeSet::new();
        for path in self
            .paths
            .iter()
            .map(|w| w.path.clone())
            .collect::<Vec<_>>()
        {
            let (above, near) = self.ask_above(&path)?;
            // After the directory: what appears meanwhile is told.
            let own = match self.add(&path) {
                Ok(wd) => Some(wd),
                Err(e) if is_missing(e) => None,
                Err(e) => return Err((path, e)),
            };
            asked.extend(own.into_iter().chain(above));
            for w in self.paths.iter_mut().filter(|w| w.path == path) {
                (w.own, w.above, w.near) = (own, above, near);
                w.which = w.which();
            }
        }
        for old in self.asked.difference(&asked) {
            // It may have gone by itself.
            let _ = self.inotify.rm_watch(*old);
        }
        self.asked = asked;
        Ok(())
    }

    /// The directory that a path is in, or what there is above it; and whether it is the former.
    fn ask_above(&self, path: &Path) -> Result<(Option<WatchDescriptor>, bool), (PathBuf, Errno)> {
        let mut found = (None, false);
        for _ in 0..TRIES {
            let mut below = path;
            for dir in path.ancestors().skip(1) {
                match self.add(dir) {
                    Ok(wd) => {
                        found = (Some(wd), below == path);
                        break;
                    }
                    Err(e) if is_missing(e) => below = dir,
                    Err(e) => return Err((dir.into(), e)),
                }
            }
            // What has appeared before its directory was watched is told by nobody.
            if found.1 || fs::symlink_metadata(below).is_err() {
                break;
            }
        }
        Ok(found)
    }

    /// Reads what has happened. True: some of it may be a change. Else, in the second place: there is
    /// more to read.
    fn hear(&mut self) -> (bool, bool) {
        let mut meant = false;
        let mut more = true;
        for _ in 0..READS {
            match self.inotify.read_events() {
                Ok(all) if !all.is_empty() => {
                    let told = |e: &InotifyEvent| e.mask != AddWatchFlags::IN_IGNORED;
                    meant |= all.iter().filter(|e| told(e)).any(|e| {
                        e.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)
                            || self.paths.iter().any(|w| w.is_meant(e, &self.ours))
                    });
                }
                Ok(_) | Err(_) => {
                    more = false;
                    break;
                }
            }
        }
        // By another name in its directory, to which its link leads.
        meant |= self.paths.iter().any(|w| w.which != w.which());
        (meant, more)
    }

    /// How they were.
    pub fn was(&self) -> Vec<Was> {
        let was = |w: &Watched| (w.path.display().to_string(), w.was.clone());
        self.paths.iter().map(was).collect()
    }

    /// When it will have been quiet for long enough, if something has happened.
    pub fn due(&self) -> Option<Time> {
        self.due
    }

    /// They were so when another one was here: what has changed since is seen in a moment, or when that one would
    /// have looked, if it was to: however often one takes the place of another.
    pub fn go_on(&mut self, was: Vec<Was>, due: Option<Time>, now: Time) {
        for (path, state) in was {
            let mut all = self.paths.iter_mut();
            if let Some(w) = all.find(|w| w.path.display().to_string() == path) {
                w.was = state;
            }
        }
        let soon = now + QUIET;
        self.due = Some(due.map_or(soon, |due| due.min(soon)));
    }

    /// Which of them are another than they were. One that is not there is waited for.
    fn changed(&mut self) -> Vec<String> {
        let ours = &self.ours;
        let changed = |w: &mut Watched| {
            let now = State::of(&w.path, ours);
            let other = now.is_some() && now != w.was;
            if other {
                w.was = now;
            }
            other.then(|| w.path.display().to_string())
        };
        self.paths.iter_mut().filter_map(changed).collect()
    }
}

impl Watched {
    fn new(path: &Path) -> Watched {
        Watched {
            path: path.to_path_buf(),
            own: None,
            above: None,
            near: false,
            which: None,
            was: None,
        }
    }
}

impl Shell {
    /// For the poll.
    pub(super) fn register_watch(&mut self) -> io::Result<()> {
        let Some(watch) = &self.watch else {
            return Ok(());
        };
        let fd = watch.inotify.as_fd().as_raw_fd();
        let at = token(Kind::Watch, 0);
        let registry = self.poll.registry();
        registry.register(&mut SourceFd(&fd), at, mio::Interest::READABLE)
    }

    /// Something has happened near a path that is watched.
    pub(super) fn hear_watch(&mut self) {
        let now = self.now();
        let Some(watch) = &mut self.watch else {
            return;
        };
        let (meant, more) = watch.hear();
        if more {
            self.ready.insert((Kind::Watch, 0));
        }
        if !meant {
            return;
        }
        watch.due = Some(now + QUIET);
        if let Err((path, e)) = watch.ask() {
            let message = format!(
                "cannot watch {}: {}; what changes there may not be noticed",
                path.display(),
                why(&e.into())
            );
            self.say_once(Level::Warn, "unwatched", message);
        }
    }

    /// When it will have been quiet for long enough. A change while a reload is under way waits for
    /// its end.
    pub(super) fn watch_deadline(&self) -> Option<Time> {
        let serving = self.cluster.phase() == Phase::Serving;
        let due = self.watch.as_ref().and_then(|w| w.due);
        due.filter(|_| serving && !self.cluster.is_replacing())
    }

    /// It is: what has changed is a reason to reload.
    pub(super) fn watch_due(&mut self) {
        if self.watch_deadline().is_none_or(|at| at > self.now()) {
            return;
        }
        let Some(watch) = &mut self.watch else {
            return;
        };
        watch.due = None;
        let changed = watch.changed();
        if changed.is_empty() {
            return;
        }
        let message = format!("changed: {}", changed.join(", "));
        self.say(Level::Info, "changed", message);
        self.reload_for(None, "a path of --watch has changed");
        self.settle();
    }
}

#[cfg(test)]
mod tests;
