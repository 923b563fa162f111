//! Control groups (v2), as far as a supervisor needs them that has been given a part of the tree: a group for
//! each of its children's trees. No fork, no setsid(2) and no change of the process group leads out of one, and
//! one write kills all that is in it.
//!
//! They are files; nothing here blocks but what a local file system of the kernel's does.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Where our own group is in the file system. The root is `/`.
pub fn own(root: &Path) -> io::Result<PathBuf> {
    let none = |what: &str| io::Error::new(io::ErrorKind::NotFound, what.to_string());
    let text = fs::read_to_string(root.join("proc/self/cgroup"))?;
    let path = text.lines().find_map(|l| l.strip_prefix("0::"));
    let path = path.ok_or_else(|| none("the kernel has no cgroup v2"))?;
    let mounts = fs::read_to_string(root.join("proc/self/mountinfo"))?;
    let dir = mounts.lines().find_map(|line| below(line, path));
    let dir =
        dir.ok_or_else(|| none("cgroup v2 is mounted nowhere, or not as far as our own group"))?;
    Ok(root.join(dir.trim_start_matches('/')))
}

/// `36 25 0:31 /ROOT /MOUNTPOINT options .. - cgroup2 ..`: where that path is in that mount, if it is.
fn below(line: &str, path: &str) -> Option<String> {
    let (left, right) = line.split_once(" - ")?;
    if right.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = left.split(' ').skip(3);
    let (top, at) = (fields.next()?, fields.next()?);
    let rest = match top {
        "/" => path,
        top => path
            .strip_prefix(top)
            .filter(|r| r.is_empty() || r.starts_with('/'))?,
    };
    Some(format!("{}{}", unescaped(at), rest.trim_end_matches('/')))
}

/// Blanks and their like are written as `\040` there.
fn unescaped(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut out = parts.next().unwrap_or_default().to_string();
    for part in parts {
        let (digits, rest) = part.split_at_checked(3).unwrap_or((part, ""));
        match u8::from_str_radix(digits, 8) {
            Ok(byte) => out.push(char::from(byte)),
            Err(_) => out.push_str(digits),
        }
        out.push_str(rest);
    }
    out
}

/// The processes that are in it, not below it; 0: somebody whom our pid namespace does not see.
pub fn members(dir: &Path) -> io::Result<Vec<i32>> {
    let text = fs::read_to_string(dir.join("cgroup.procs"))?;
    let pid = |l: &str| l.parse().map_err(io::Error::other);
    text.lines().map(pid).collect()
}

/// Those right below it whose names begin so, and how these go on.
pub fn groups(dir: &Path, head: &str) -> Vec<(PathBuf, String)> {
    let all = fs::read_dir(dir).into_iter().flatten().flatten();
    let rest = |e: fs::DirEntry| {
        let name = e.file_name();
        let rest = name.to_str()?.strip_prefix(head)?.to_string();
        e.file_type()
            .is_ok_and(|t| t.is_dir())
            .then(|| (e.path(), rest))
    };
    all.filter_map(rest).collect()
}

/// A new group. Error if there is one of that name.
pub fn make(dir: &Path) -> io::Result<()> {
    fs::create_dir(dir)
}

/// Has the kernel a way to kill all of it (Linux 5.14)?
pub fn can_kill(dir: &Path) -> bool {
    dir.join("cgroup.kill").exists()
}

/// By that a process that writes 0 moves itself there.
pub fn door(dir: &Path) -> io::Result<File> {
    fs::OpenOptions::new()
        .write(true)
        .open(dir.join("cgroup.procs"))
}

/// Kills every process in there and in groups below.
pub fn kill(dir: &Path) -> io::Result<()> {
    fs::write(dir.join("cgroup.kill"), "1")
}

/// Removes a group with no process in it (zombies do not count), and those that its processes have made in it.
pub fn remove(dir: &Path) -> io::Result<()> {
    // So deep a program of somebody else's may have built; deeper ones stay.
    const DEPTH: usize = 8;
    remove_below(dir, DEPTH)
}

fn remove_below(dir: &Path, depth: usize) -> io::Result<()> {
    match fs::remove_dir(dir) {
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) && depth > 0 => {}
        done => return done,
    }
    for entry in fs::read_dir(dir)?.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_below(&entry.path(), depth - 1)?;
        }
    }
    fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_group_is_found_where_it_is_mounted() {
        let line = |top: &str, at: &str| {
            format!("31 23 0:27 {top} {at} rw,nosuid shared:9 - cgroup2 cgroup2 rw")
        };
        for (top, at, path, want) in [
            (
                "/",
                "/sys/fs/cgroup",
                "/a/b.service",
                Some("/sys/fs/cgroup/a/b.service"),
            ),
            ("/", "/sys/fs/cgroup", "/", Some("/sys/fs/cgroup")),
            // A container's, whose own group is all it sees.
            ("/a", "/sys/fs/cgroup", "/a/b", Some("/sys/fs/cgroup/b")),
            ("/a", "/sys/fs/cgroup", "/a", Some("/sys/fs/cgroup")),
            ("/a", "/sys/fs/cgroup", "/ab", None),
            ("/..", "/sys/fs/cgroup", "/a", None),
            ("/", "/odd\\040place\\134", "/a", Some("/odd place\\/a")),
        ] {
            assert_eq!(below(&line(top, at), path).as_deref(), want, "{top} {path}");
        }
        let other = line("/", "/x").replace("cgroup2", "tmpfs");
        assert_eq!(below(&other, "/a"), None);
        assert_eq!(below("garbage", "/a"), None);
    }
}
