//! Has the kernel killed a process because there was no memory left? It counts such kills for each
//! memory cgroup (`oom_kill` in memory.events, or in memory.oom_control of v1) and for the machine
//! (/proc/vmstat). What has grown since the last look tells: a look is taken when a child has died of a
//! SIGKILL that nobody is known to have sent, never without a reason.

use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

/// Children that were killed together are reaped one after the other: so long (ns) a kill that was
/// counted waits for its own.
const TOGETHER: u64 = 1_000_000_000;

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kill {
    /// None that could be this one.
    None,
    /// One of our memory cgroup, or beneath it.
    Ours,
    /// One somewhere on this machine: of where the process was nothing else can be read.
    Somewhere,
}

/// Where a counter stood, and what it has counted that no child was named for yet.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Counter {
    last: u64,
    spare: u64,
    at: u64,
}

impl Counter {
    /// It stands there now. Has it counted one for this child?
    fn counts(&mut self, stands: u64, now: u64) -> bool {
        let new = stands.saturating_sub(self.last);
        self.last = stands;
        if new > 0 {
            (self.spare, self.at) = (new, now);
        } else if now.saturating_sub(self.at) > TOGETHER {
            self.spare = 0;
        }
        let one = self.spare > 0;
        self.spare -= u64::from(one);
        one
    }
}

/// The counters that matter to us.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kills {
    root: PathBuf,
    /// Of our own memory cgroup, if it has one.
    file: Option<PathBuf>,
    ours: Counter,
    machine: Counter,
}

impl Kills {
    /// What happens from now on counts. The root is `/`.
    pub fn from_now(root: &Path) -> Kills {
        let mut kills = Kills {
            root: root.into(),
            file: file_of(root),
            ours: Counter::default(),
            machine: Counter::default(),
        };
        kills.ours.last = kills.in_group().unwrap_or(0);
        kills.machine.last = kills.on_machine().unwrap_or(0);
        kills
    }

    fn in_group(&self) -> Option<u64> {
        self.file.as_ref().and_then(|f| count(f))
    }

    fn on_machine(&self) -> Option<u64> {
        count(&self.root.join("proc/vmstat"))
    }

    /// That child, which is a zombie, has died of SIGKILL.
    pub fn look(&mut self, pid: i32, now: u64) -> Kill {
        let (group, machine) = (self.in_group(), self.on_machine());
        let ours = group.is_some_and(|n| self.ours.counts(n, now));
        let somewhere = machine.is_some_and(|n| self.machine.counts(n, now));
        match (ours, somewhere) {
            (true, _) => Kill::Ours,
            (false, true) if group.is_none() || self.is_elsewhere(pid) => Kill::Somewhere,
            (false, _) => Kill::None,
        }
    }

    /// Was it in another cgroup, not beneath ours? (A zombie is where it was; not so in v1.)
    fn is_elsewhere(&self, pid: i32) -> bool {
        let of = |who: &str| unified(&self.root.join("proc").join(who).join("cgroup"));
        match (of("self"), of(&pid.to_string())) {
            (Some(ours), Some(theirs)) => !Path::new(&theirs).starts_with(ours),
            (None, _) | (_, None) => false,
        }
    }
}

/// The number behind `oom_kill`.
fn count(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let number = |l: &str| l.strip_prefix("oom_kill ")?.trim().parse().ok();
    text.lines().find_map(number)
}

/// The path in the one hierarchy of v2.
fn unified(file: &Path) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let path = text.lines().find_map(|l| l.strip_prefix("0::"))?;
    Some(path.trim_end_matches(" (deleted)").to_string())
}

/// Where the kills of our memory cgroup are counted.
fn file_of(root: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let place = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let (base, name) = match controllers {
            "" => ("sys/fs/cgroup", "memory.events"),
            all if all.split(',').any(|c| c == "memory") => {
                ("sys/fs/cgroup/memory", "memory.oom_control")
            }
            _ => return None,
        };
        let base = root.join(base);
        let dir = base.join(path.trim_start_matches('/'));
        // In a container the path may be the host's: then the mount's own root is ours.
        let dirs = [dir, base].into_iter();
        dirs.map(|d| d.join(name)).find(|f| count(f).is_some())
    };
    text.lines().find_map(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Our cgroup is /a, a child of pid 7 is where that says.
    fn tree(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("mc-oom-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for (file, text) in files {
            write(&root, file, text);
        }
        root
    }

    fn write(root: &Path, file: &str, text: &str) {
        let path = root.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    const MS: u64 = 1_000_000;

    #[test]
    fn a_kill_in_our_group_is_told_once_for_each_that_was_counted() {
        let events = "sys/fs/cgroup/a/memory.events";
        let root = tree(
            "v2",
            &[
                ("proc/self/cgroup", "0::/a\n"),
                ("proc/7/cgroup", "0::/a/b\n"),
                ("proc/vmstat", "pgfault 9\noom_kill 40\n"),
                (events, "oom 5\noom_kill 3\noom_group_kill 0\n"),
            ],
        );
        let mut kills = Kills::from_now(&root);
        assert_eq!(kills.look(7, 0), Kill::None, "killed by hand");
        write(&root, events, "oom 6\noom_kill 5\n");
        write(&root, "proc/vmstat", "oom_kill 42\n");
        assert_eq!(kills.look(7, MS), Kill::Ours);
        assert_eq!(kills.look(7, 2 * MS), Kill::Ours);
        assert_eq!(kills.look(7, 3 * MS), Kill::None);
        // Two were counted, of which one was no child of ours: it excuses nobody for long.
        write(&root, events, "oom_kill 7\n");
        assert_eq!(kills.look(7, 4 * MS), Kill::Ours);
        assert_eq!(kills.look(7, 2000 * MS), Kill::None);
        // Somewhere else on the machine, where this child was not.
        write(&root, "proc/vmstat", "oom_kill 50\n");
        assert_eq!(kills.look(7, 2001 * MS), Kill::None);
        // And where it was.
        write(&root, "proc/7/cgroup", "0::/c (deleted)\n");
        write(&root, "proc/vmstat", "oom_kill 51\n");
        assert_eq!(kills.look(7, 2002 * MS), Kill::Somewhere);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn v1_has_it_elsewhere_and_without_a_group_it_is_only_likely() {
        let control = "sys/fs/cgroup/memory/a/memory.oom_control";
        let root = tree(
            "v1",
            &[
                ("proc/self/cgroup", "9:cpu:/\n4:hugetlb,memory:/a\n0::/\n"),
                ("proc/vmstat", "oom_kill 1\n"),
                (control, "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n"),
            ],
        );
        let mut kills = Kills::from_now(&root);
        write(&root, control, "oom_kill_disable 0\noom_kill 1\n");
        assert_eq!(kills.look(7, 0), Kill::Ours);
        fs::remove_dir_all(root.join("sys")).unwrap();
        let mut kills = Kills::from_now(&root);
        assert_eq!(kills.look(7, 0), Kill::None);
        write(&root, "proc/vmstat", "oom_kill 2\n");
        assert_eq!(kills.look(7, 1), Kill::Somewhere);
        fs::remove_dir_all(root.join("proc")).unwrap();
        assert_eq!(Kills::from_now(&root).look(7, 2), Kill::None);
        fs::remove_dir_all(root).unwrap();
    }
}
