//! What a process is made of, by /proc: whose it is, when it began, which files it runs and has mapped. As
//! in `procfs`, a look at a moving target.

use super::cerr;
use super::guise::{Guise, Worn};
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Longest list of mappings that is read, and longest command line.
const MAX_MAPS: u64 = 8 * 1024 * 1024;
const MAX_WORDS: u64 = 128 * 1024;
/// So many groups a process can have.
const MAX_GROUPS: usize = 65_536;

/// Whose it is, for the kernel that asks who may read what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Effective user,
    pub uid: u32,
    /// and group,
    pub gid: u32,
    groups: Vec<u32>,
}

fn some(pid: i32, name: &str, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(format!("/proc/{pid}/{name}"))?;
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Whose that process is.
pub fn owner(pid: i32) -> io::Result<Owner> {
    let text = some(pid, "status", 1024 * 1024)?;
    let text = String::from_utf8_lossy(&text);
    let words = |name: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(name));
        let words = line.unwrap_or_default().split_whitespace();
        words
            .filter_map(|w| w.parse().ok())
            .take(MAX_GROUPS)
            .collect()
    };
    let (uids, gids): (Vec<u32>, Vec<u32>) = (words("Uid:"), words("Gid:"));
    match (uids.get(1), gids.get(1)) {
        (Some(uid), Some(gid)) => Ok(Owner {
            uid: *uid,
            gid: *gid,
            groups: words("Groups:"),
        }),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

impl Owner {
    /// Looks are with its eyes from here on, as long as the guise is worn, and as far as that can be put on:
    /// the kernel sees to it that nothing is read which it may not read. `None`: it has the eyes that we have.
    pub fn wear(&self) -> Option<Worn> {
        let ours = (super::process::euid(), super::process::egid());
        let guise = Guise {
            uid: self.uid,
            gid: self.gid,
        };
        (ours != (self.uid, self.gid)).then(|| guise.wear_with(Some(&self.groups)))
    }
}

fn clock(which: libc::clockid_t) -> i64 {
    let mut ts = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: ts is a valid timespec for the kernel to fill.
    unsafe { libc::clock_gettime(which, &mut ts) };
    let micros = ts.tv_nsec / 1000;
    ts.tv_sec.saturating_mul(1_000_000).saturating_add(micros)
}

/// What tells a process from a later one of its number: ticks since the machine began.
pub fn birth(pid: i32) -> Option<u64> {
    let text = some(pid, "stat", 4096).ok()?;
    let text = String::from_utf8_lossy(&text);
    // Behind the name, which may hold blanks and parentheses.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// The same in microseconds.
fn micros(birth: u64) -> Option<i64> {
    // SAFETY: sysconf takes any number.
    let tick = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let per_second = u64::try_from(tick).ok().filter(|t| *t > 0)?;
    i64::try_from(birth.saturating_mul(1_000_000) / per_second).ok()
}

/// How long ago that was, in nanoseconds.
pub fn age(birth: u64) -> u64 {
    let begun = micros(birth).unwrap_or(i64::MAX);
    let age = clock(libc::CLOCK_BOOTTIME).saturating_sub(begun);
    u64::try_from(age).unwrap_or(0).saturating_mul(1000)
}

/// When that was, in microseconds since 1970; as exact as a tick.
pub fn began(birth: u64) -> Option<i64> {
    let booted = clock(libc::CLOCK_REALTIME).saturating_sub(clock(libc::CLOCK_BOOTTIME));
    Some(booted.saturating_add(micros(birth)?))
}

/// A link of /proc, which the kernel follows without a name.
pub fn link(pid: i32, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/{name}"))
}

/// Its executable, and its directory: their names now. An error: we may not look, or it has gone.
pub fn name_of(pid: i32, name: &str) -> io::Result<PathBuf> {
    fs::read_link(link(pid, name))
}

/// Is there a process of that number, whether we may look at it or not?
pub fn is_there(pid: i32) -> bool {
    match super::signal::kill(pid, 0) {
        Ok(()) => true,
        Err(e) => e.raw_os_error() == Some(libc::EPERM),
    }
}

/// Its mappings, a line each.
pub fn maps(pid: i32) -> io::Result<Vec<u8>> {
    some(pid, "maps", MAX_MAPS)
}

/// The words that it was executed with, or what it has made of them since.
pub fn words(pid: i32) -> Vec<Vec<u8>> {
    let bytes = some(pid, "cmdline", MAX_WORDS).unwrap_or_default();
    let words = bytes.split(|b| *b == 0);
    words.map(<[u8]>::to_vec).collect()
}

/// From where the paths of a process are seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// From where we are.
    Ours,
    /// From a directory of ours: the kernel tells its names as we have them, but not the process its own.
    Below,
    /// From what is mounted for it alone: before its names stands that.
    Apart(PathBuf),
}

/// Where that is.
pub fn view(pid: i32) -> View {
    let mounts = |at: &Path| fs::read_link(at).ok();
    let (ours, theirs) = (
        mounts(Path::new("/proc/self/ns/mnt")),
        mounts(&link(pid, "ns/mnt")),
    );
    if theirs.is_some() && theirs != ours {
        return View::Apart(link(pid, "root"));
    }
    let root = |at: &Path| fs::metadata(at).map(|m| (m.dev(), m.ino())).ok();
    match root(&link(pid, "root")) == root(Path::new("/")) {
        true => View::Ours,
        false => View::Below,
    }
}

/// Others have the CPU first from now on.
pub fn be_nice() {
    const LAST: libc::c_int = 10;
    // SAFETY: plain numbers; refused it changes nothing.
    let _ = cerr(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LAST) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_when_it_began() {
        let me = std::process::id().cast_signed();
        let began = began(birth(me).unwrap()).unwrap();
        let now = clock(libc::CLOCK_REALTIME);
        let day = 86_400_000_000;
        assert!((now - day..=now).contains(&began), "{began} {now}");
        assert_eq!(owner(me).unwrap().uid, super::super::process::euid());
        assert!(owner(me).unwrap().wear().is_none());
        assert_eq!(view(me), View::Ours);
        let exe = name_of(me, "exe").unwrap();
        assert_eq!(exe, std::env::current_exe().unwrap());
        assert!(is_there(me) && birth(i32::MAX).is_none());
        assert!(!maps(me).unwrap().is_empty() && !words(me).is_empty());
    }
}
