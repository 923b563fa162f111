//! The executable of a process and its shared objects: which files they are, and whether their names still
//! mean them. What one process has, others have as a rule, so each file is looked at once.

use super::files::{self, Budget};
use crate::sys::procmade;
use crate::wire::deps::elf::{self, HEAD, Head};
use crate::wire::deps::golang;
use crate::wire::deps::maps::{self, Mapping};
use crate::wire::deps::packages::List;
use crate::wire::deps::{File, Object, State};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// So many shared objects of a process are told,
const MOST_OBJECTS: usize = 1024;
/// with so many bytes of paths.
const MOST_BYTES: usize = 128 * 1024;

/// What the kernel puts behind a name that is none any more.
const DELETED: &[u8] = b" (deleted)";

/// A file may have been changed in the moment in which the process began, and the clock of the kernel's
/// that says so ticks.
pub const MOMENT: i64 = 20_000;

/// Whose paths are these?
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix(pub PathBuf);

impl Prefix {
    /// Where we find what has that name there.
    pub fn of(&self, path: &Path) -> PathBuf {
        match self.0.as_os_str().is_empty() {
            true => path.to_path_buf(),
            false => self.0.join(path.strip_prefix("/").unwrap_or(path)),
        }
    }

    /// What that, as we find it, is called there.
    pub fn without(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.0) {
            Ok(rest) if !self.0.as_os_str().is_empty() => Path::new("/").join(rest),
            Ok(_) | Err(_) => path.to_path_buf(),
        }
    }
}

/// A file that is mapped, and as whom it is known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    prefix: Prefix,
    dev: (u32, u32),
    inode: u64,
    path: PathBuf,
    deleted: bool,
}

/// What a look at it has shown.
#[derive(Clone, Debug)]
struct Seen {
    path: String,
    state: State,
    /// When it was written to last, in microseconds.
    written: i64,
    build_id: Option<String>,
}

/// All files that were looked at.
#[derive(Default)]
pub struct Objects {
    seen: BTreeMap<Key, Seen>,
}

/// A name that the kernel tells of a file, without what it puts behind it.
fn bare(path: &Path) -> Option<PathBuf> {
    let bytes = path.as_os_str().as_bytes().strip_suffix(DELETED)?;
    Some(PathBuf::from(OsStr::from_bytes(bytes)))
}

fn written(m: &Metadata) -> i64 {
    let secs = m.mtime().saturating_mul(1_000_000);
    secs.saturating_add(m.mtime_nsec() / 1000)
}

/// Of a file of that name that is not the one that is meant.
fn by_name(found: io::Result<Metadata>) -> State {
    match found {
        Ok(_) => State::Replaced,
        Err(_) => State::Deleted,
    }
}

/// The executable of a process.
pub struct Running {
    pub file: File,
    /// Its path without anything behind it, as the process's root has it.
    pub path: PathBuf,
    /// What Go says of it.
    pub modules: Option<List>,
}

/// Which file a process runs.
pub fn running(pid: i32, prefix: &Prefix, budget: &Budget) -> io::Result<Running> {
    let told = procmade::name_of(pid, "exe")?;
    let at = procmade::link(pid, "exe");
    let meta = fs::metadata(&at)?;
    let is_it = |path: &Path| fs::metadata(prefix.of(path)).is_ok_and(|m| files::same(&m, &meta));
    let (path, state) = match bare(&told) {
        // (A file may be called so.)
        _ if is_it(&told) => (told, State::Present),
        Some(path) if is_it(&path) => (path, State::Present),
        Some(path) => {
            let state = by_name(fs::metadata(prefix.of(&path)));
            (path, state)
        }
        // It cannot be seen from here, or another one was mounted over it.
        None => match fs::metadata(prefix.of(&told)) {
            Ok(_) => (told, State::Replaced),
            Err(_) => (told, State::Present),
        },
    };
    let elf = Elf::open(&at, budget);
    let file = File {
        path: path.to_string_lossy().into_owned(),
        state,
        inode: meta.ino(),
        size: meta.size(),
        mtime: meta.mtime(),
        build_id: elf.as_ref().and_then(Elf::build_id),
    };
    let modules = elf.and_then(|e| golang::modules(&e.section(golang::SECTION)?));
    Ok(Running {
        file,
        path,
        modules,
    })
}

impl Objects {
    /// The shared objects of a process that began then and runs that; and how many are left out.
    pub fn of(
        &mut self,
        pid: i32,
        began: i64,
        prefix: &Prefix,
        exe: &Path,
        budget: &Budget,
    ) -> io::Result<(Vec<Object>, usize)> {
        let text = procmade::maps(pid)?;
        let lines = text.split(|b| *b == b'\n');
        let mut keys: BTreeSet<Key> = BTreeSet::new();
        let (mut all, mut bytes, mut left_out) = (Vec::new(), 0usize, 0);
        for mapping in lines.filter_map(maps::line).filter(is_object) {
            let path = PathBuf::from(std::ffi::OsString::from_vec(mapping.path.to_vec()));
            if path == exe {
                continue;
            }
            let key = Key {
                prefix: prefix.clone(),
                dev: mapping.dev,
                inode: mapping.inode,
                path,
                deleted: mapping.deleted,
            };
            if !keys.insert(key.clone()) {
                continue;
            }
            bytes = bytes.saturating_add(mapping.path.len());
            if all.len() >= MOST_OBJECTS || bytes > MOST_BYTES || budget.is_over() {
                left_out += 1;
                continue;
            }
            let look = || look(&key, pid, mapping.range, budget);
            let seen = self.seen.entry(key.clone()).or_insert_with(look);
            let late = seen.written > began.saturating_add(MOMENT);
            all.push(Object {
                path: seen.path.clone(),
                state: match seen.state {
                    State::Present if late => State::Changed,
                    state => state,
                },
                build_id: seen.build_id.clone(),
            });
        }
        all.sort();
        Ok((all, left_out))
    }
}

/// Is it more than a file that somebody makes in passing, to write code into?
fn is_object(m: &Mapping<'_>) -> bool {
    const MADE: [&[u8]; 4] = [b"/memfd:", b"/dev/", b"/SYSV", b"/anon_"];
    let named = |part: &[u8]| m.path.windows(part.len()).any(|w| w == part);
    let lasting = !m.deleted || named(b".so") || named(b".node");
    m.code && lasting && !MADE.iter().any(|p| m.path.starts_with(p))
}

fn look(key: &Key, pid: i32, range: &str, budget: &Budget) -> Seen {
    let at = key.prefix.of(&key.path);
    let found = fs::metadata(&at);
    // Where a file system has devices of its own (btrfs, overlays) both have nothing to do with each
    // other; then the kernel's word alone counts.
    let (major, minor) = key.dev;
    let one_device = |m: &Metadata| m.dev() == libc::makedev(major, minor);
    let state = match &found {
        Ok(m) if one_device(m) && m.ino() == key.inode => State::Present,
        Ok(m) if key.deleted || one_device(m) => State::Replaced,
        Ok(_) => State::Present,
        Err(e) if key.deleted || e.kind() == io::ErrorKind::NotFound => State::Deleted,
        Err(_) => State::Present,
    };
    let (path, written) = match (state, &found) {
        (State::Present, Ok(m)) => (at, written(m)),
        // Only who may do much may look at it by this.
        _ => (procmade::link(pid, &format!("map_files/{range}")), 0),
    };
    Seen {
        path: key.path.to_string_lossy().into_owned(),
        state,
        written,
        build_id: Elf::open(&path, budget).and_then(|e| e.build_id()),
    }
}

/// A file in that format.
struct Elf {
    file: fs::File,
    head: Head,
}

impl Elf {
    fn open(path: &Path, budget: &Budget) -> Option<Elf> {
        let (file, _) = budget.open(path).ok()?;
        let head = elf::head(&files::part(&file, 0, HEAD as u64).ok()?)?;
        Some(Elf { file, head })
    }

    fn part(&self, p: elf::Part) -> Option<Vec<u8>> {
        files::part(&self.file, p.at, p.len).ok()
    }

    fn build_id(&self) -> Option<String> {
        let notes = self.head.notes(&self.part(self.head.segments())?);
        let mut ids = notes
            .iter()
            .filter_map(|n| self.head.build_id(*n, &self.part(n.part)?));
        ids.next()
    }

    fn section(&self, name: &str) -> Option<Vec<u8>> {
        let table = self.part(self.head.sections())?;
        let names = self.part(self.head.names(&table)?)?;
        let elf::Part { at, len } = self.head.section(&table, &names, name)?;
        let len = len.min(golang::MAX_SECTION);
        self.part(elf::Part { at, len })
    }
}
