//! How many CPUs we may use: affinity, cut by the cgroup quota, rounded up, at least one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The default of -n.
pub fn usable() -> usize {
    let affinity = affinity().max(1);
    match quota(Path::new("/")) {
        Some(q) => affinity.min(q.ceil().max(1.0) as usize),
        None => affinity,
    }
}

fn affinity() -> usize {
    allowed().map_or(1, |all| all.len())
}

/// Which ones we may use, in order.
pub fn allowed() -> io::Result<Vec<usize>> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
    let all = 0..nix::sched::CpuSet::count();
    Ok(all.filter(|cpu| set.is_set(*cpu) == Ok(true)).collect())
}

/// The smallest quota on the way from our cgroup to the root, in CPUs.
fn quota(root: &Path) -> Option<f64> {
    let own = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mut least: Option<f64> = None;
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let (base, read): (PathBuf, fn(&Path) -> Option<f64>) = if controllers.is_empty() {
            (root.join("sys/fs/cgroup"), quota_v2)
        } else if controllers.split(',').any(|c| c == "cpu") {
            (root.join("sys/fs/cgroup/cpu"), quota_v1)
        } else {
            continue;
        };
        let rel = path.trim_start_matches('/');
        let mut dir = base.join(rel);
        // In a container the path may be the host's: then the mount's own root is ours.
        if !dir.is_dir() {
            dir = base.clone();
        }
        while dir.starts_with(&base) {
            if let Some(q) = read(&dir) {
                least = Some(least.map_or(q, |l: f64| l.min(q)));
            }
            if !dir.pop() {
                break;
            }
        }
    }
    least
}

fn quota_v2(dir: &Path) -> Option<f64> {
    let text = fs::read_to_string(dir.join("cpu.max")).ok()?;
    let mut words = text.split_whitespace();
    ratio(words.next()?, words.next()?)
}

fn quota_v1(dir: &Path) -> Option<f64> {
    let quota = fs::read_to_string(dir.join("cpu.cfs_quota_us")).ok()?;
    let period = fs::read_to_string(dir.join("cpu.cfs_period_us")).ok()?;
    ratio(quota.trim(), period.trim())
}

/// `max` and -1 are no quota.
fn ratio(quota: &str, period: &str) -> Option<f64> {
    let (q, p): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (q > 0.0 && p > 0.0).then_some(q / p)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> PathBuf {
        static N: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = N.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("mc-cpus-{}-{n}", std::process::id()));
        for (path, text) in files {
            let p = root.join(path);
            fs::create_dir_all(p.parent().unwrap()).unwrap();
            fs::write(p, text).unwrap();
        }
        root
    }

    #[test]
    fn the_tightest_quota_on_the_way_up_counts() {
        let v2 = tree(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
        ]);
        assert_eq!(quota(&v2), Some(1.5));
        let v1 = tree(&[
            ("proc/self/cgroup", "3:cpu,cpuacct:/x\n1:memory:/x\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ]);
        assert_eq!(quota(&v1), Some(0.5));
        let none = tree(&[("proc/self/cgroup", "0::/\n")]);
        assert_eq!(quota(&none), None);
        for dir in [v2, v1, none] {
            fs::remove_dir_all(dir).unwrap();
        }
    }

    #[test]
    fn there_is_always_one() {
        assert!(usable() >= 1);
    }
}
