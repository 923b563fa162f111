//! What a tree of processes uses, read from /proc in one walk: each process once, and so many files at most.
//! (`procfs`, which looks at single ones, has what a process is; here it is many at once that must not hold
//! us up.)

use super::cerr;
use super::procfs::base;
use std::collections::VecDeque;
use std::fs;

/// A process and its descendants, and what they use together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// Parents before their children.
    pub pids: Vec<i32>,
    /// Bytes; what several have is counted for each.
    pub resident: u64,
    /// Microseconds, with those of descendants that have gone and were waited for.
    pub cpu: u64,
    pub threads: u64,
    /// Were all that were named still there? Else what is told of the time may be too little.
    pub whole: bool,
}

/// Looks at all that descends from these, if so many files are enough for that; what it takes is taken off.
/// `None`: they are not, or there is no such process that we can see.
pub fn tree(roots: impl Iterator<Item = i32>, budget: &mut usize) -> Option<Tree> {
    let mut tree = Tree {
        whole: true,
        ..Tree::default()
    };
    let mut named: VecDeque<i32> = roots.collect();
    while let Some(one) = named.pop_front() {
        *budget = budget.checked_sub(3)?;
        let Some(stat) = Stat::of(one) else {
            // It has gone since it was named, and who has waited for it may have been looked at before.
            tree.whole = false;
            continue;
        };
        tree.pids.push(one);
        tree.resident = tree.resident.saturating_add(resident(one).unwrap_or(0));
        tree.cpu = tree.cpu.saturating_add(stat.cpu);
        tree.threads = tree.threads.saturating_add(stat.threads);
        // (A first thread that has ended is still the one by which all are named.)
        let threads = match stat.threads {
            0 | 1 => vec![one],
            _ => super::procfs::threads(one),
        };
        *budget = budget.checked_sub(threads.len())?;
        for tid in threads {
            let text = fs::read_to_string(format!("{}/{one}/task/{tid}/children", base()));
            let text = text.unwrap_or_default();
            named.extend(
                text.split_whitespace()
                    .filter_map(|w| w.parse::<i32>().ok()),
            );
        }
    }
    (!tree.pids.is_empty()).then_some(tree)
}

/// What we use ourselves: microseconds of CPU, bytes resident, bytes of address space.
pub fn own() -> (Option<u64>, Option<u64>, Option<u64>) {
    let text = fs::read_to_string(format!("{}/self/statm", base())).unwrap_or_default();
    let page = page();
    let nth = |n| text.split_whitespace().nth(n)?.parse::<u64>().ok();
    let bytes = |n| Some(nth(n)?.saturating_mul(page?));
    (own_cpu(), bytes(1), bytes(0))
}

fn own_cpu() -> Option<u64> {
    // SAFETY: rusage is plain data that the kernel fills.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        cerr(libc::getrusage(libc::RUSAGE_SELF, &mut used)).map(|_| used)
    };
    used.ok().map(|used| micros(&used))
}

/// User and system time.
pub(super) fn micros(used: &libc::rusage) -> u64 {
    let of = |t: libc::timeval| {
        let whole = u64::try_from(t.tv_sec)
            .unwrap_or(0)
            .saturating_mul(1_000_000);
        whole.saturating_add(u64::try_from(t.tv_usec).unwrap_or(0))
    };
    of(used.ru_utime).saturating_add(of(used.ru_stime))
}

/// What is wanted of a process's `stat`.
struct Stat {
    cpu: u64,
    threads: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Stat> {
        // Its name, which may hold anything, is no text.
        let bytes = fs::read(format!("{}/{pid}/stat", base())).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
        // utime, stime, and those of children that were waited for (which are signed).
        let ticks = [11, 12, 13, 14].map(|n| number(n).unwrap_or(0));
        let ticks = ticks.into_iter().fold(0, u64::saturating_add);
        Some(Stat {
            cpu: ticks.saturating_mul(1_000_000) / per_second()?,
            threads: number(17)?,
        })
    }
}

fn resident(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("{}/{pid}/statm", base())).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(page()?))
}

fn page() -> Option<u64> {
    // SAFETY: sysconf takes any number.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()
}

fn per_second() -> Option<u64> {
    // SAFETY: as above.
    let tick = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) });
    tick.ok().filter(|t| *t > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{procfs, wait};
    use std::io::Read;
    use std::iter::once;
    use std::process::{Command, Stdio};

    #[test]
    fn a_tree_is_all_that_descends_from_it_and_keeps_the_time_of_those_that_have_gone() {
        let work = "python3 -c 'for _ in range(3_000_000): pass'";
        let script = format!("{work}; sleep 60 & echo; wait");
        let mut child = Command::new("sh")
            .args(["-c", &script])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id().cast_signed();
        let mut told = [0u8; 1];
        child.stdout.take().unwrap().read_exact(&mut told).unwrap();
        let mut budget = 100;
        let seen = tree(once(pid), &mut budget).unwrap();
        let [shell, sleep] = seen.pids[..] else {
            panic!("{seen:?}");
        };
        assert_eq!((shell, seen.threads, budget), (pid, 2, 100 - 2 * 4));
        assert!(procfs::children(pid) == [sleep] && seen.resident > 100_000);
        assert!(seen.cpu > 0 && seen.whole, "{seen:?}");
        let mut small = 7;
        assert_eq!(tree(once(pid), &mut small), None);
        for pid in [pid, sleep] {
            crate::sys::signal::kill(pid, libc::SIGKILL).unwrap();
        }
        while !procfs::is_zombie(pid) {
            std::thread::yield_now();
        }
        // The exact time is that of the wait, ticks are cut off.
        let used = wait::reap(pid).unwrap();
        assert!(used >= seen.cpu, "{used} < {}", seen.cpu);
        assert!(child.wait().is_err(), "it is reaped already");
        assert_eq!(tree(once(pid), &mut budget), None);
    }

    #[test]
    fn what_we_use_ourselves_is_known() {
        let (cpu, resident, size) = own();
        assert!(cpu.is_some());
        assert!(size.unwrap() > resident.unwrap() && resident.unwrap() > 100_000);
    }
}
