//! A control group for each worker (--cgroup): what a worker has started ends with it, wherever it has gone.

use crate::birth;
use crate::harness::{Rig, sigkill};
use crate::place::LOOK;
use crate::proc;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A group of this story's, which is removed with it.
struct Given(PathBuf);

impl Given {
    fn new() -> Given {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let v2 = |l: &str| {
            l.contains(" - cgroup2 ")
                .then(|| l.split(' ').nth(4).map(PathBuf::from))?
        };
        let top = mounts.lines().find_map(v2);
        let top = top
            .expect("this story takes cgroup v2, and root: mount -t cgroup2 none /sys/fs/cgroup");
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = top.join(format!("mc-e2e-{}-{n}", std::process::id()));
        fs::create_dir(&dir).expect("this story takes cgroup v2 that it may write to, and root");
        Given(dir)
    }

    /// As `Delegate=yes` of systemd does it.
    fn to_nobody(&self) {
        for file in ["", "cgroup.procs", "cgroup.subtree_control"] {
            birth::give_to_nobody(&self.0.join(file));
        }
    }

    /// A program that goes there and then on to the rest.
    fn enter(&self, then: &str) -> Vec<String> {
        let script = format!(
            "echo $$ >{}/cgroup.procs; exec {then} \"$@\"",
            self.0.display()
        );
        ["sh", "-c", &script, "sh"].map(String::from).to_vec()
    }

    fn groups(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(&self.0).unwrap().flatten();
        all.filter(|e| e.path().is_dir())
            .map(|e| e.path())
            .collect()
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        // Those that were killed take a moment.
        for _ in 0..400 {
            for dir in self.groups() {
                for below in fs::read_dir(&dir).into_iter().flatten().flatten() {
                    let _ = fs::remove_dir(below.path());
                }
                let _ = fs::remove_dir(dir);
            }
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Starts a program that leaves its session, its group and its parent, says which one it is, and stays.
const LEAVES: &str = "setsid sh -c '(trap \"\" TERM; exec 3>&2; sh -c \"echo away \\$\\$ >&3; exec sleep 1000\" &)' & \
                      wait; exec sleep 1001";

fn words(more: &str) -> Vec<String> {
    let mut all: Vec<String> = "--ready started --stop-timeout 300ms"
        .split(' ')
        .map(String::from)
        .collect();
    all.extend(more.split_whitespace().map(String::from));
    all.extend(["--", "sh", "-c", LEAVES].map(String::from));
    all
}

/// Those that have said so, once there are that many.
fn away(rig: &Rig, count: usize) -> Vec<i32> {
    let all = || -> Vec<i32> {
        let pid = |l: String| l.strip_prefix("away ").and_then(|p| p.trim().parse().ok());
        rig.lines().into_iter().filter_map(pid).collect()
    };
    rig.until("it is away", || all().len() >= count);
    all()
}

/// The worker's tree is what the kernel says is in its group.
fn group_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.lines()
        .find_map(|l| l.strip_prefix("0::"))
        .unwrap()
        .to_string()
}

#[test]
fn what_has_left_the_group_of_a_worker_ends_with_it_in_a_control_group_and_not_without() {
    for (option, ends) in [("--cgroup auto", true), ("--cgroup off", false)] {
        let given = Given::new();
        let words = words(&format!("-n 1 {option}"));
        let mut rig = Rig::by(given.enter(""), words);
        rig.wait("all-ready", |_| true);
        let first = away(&rig, 1)[0];
        let worker = rig.status().pids()[0];
        assert_eq!(group_of(first), group_of(worker));
        assert_eq!(group_of(worker) == group_of(rig.pid()), !ends);
        sigkill(worker);
        let died = rig.wait("died", |e| e.pid() == worker);
        assert_eq!(died.text("reason"), "failure");
        let second = away(&rig, 2)[1];
        if ends {
            rig.until("it ends with its worker", || !proc::alive(first));
        } else {
            assert!(proc::alive(first), "it stays until the cluster stops");
        }
        assert!(
            proc::alive(second),
            "that of the next worker has nothing to do with it"
        );
        rig.signal(nix::sys::signal::Signal::SIGTERM);
        rig.finish(0, &["died", "killed", "leftovers"]);
        assert!(!proc::alive(first) && !proc::alive(second));
        assert!(given.groups().is_empty(), "{:?}", given.groups());
    }
}

#[test]
fn one_that_has_to_go_takes_along_what_it_has_started_when_its_time_is_over() {
    let given = Given::new();
    let mut rig = Rig::by(given.enter(""), words("-n 2 --cgroup auto"));
    rig.wait("all-ready", |_| true);
    let both = away(&rig, 2);
    assert_eq!(
        given.groups().len(),
        1,
        "one of the master's, with those of its workers"
    );
    let said = rig.verb("resize 1");
    assert_eq!(said.code, 0, "{said:?}");
    rig.until("one of them has gone", || {
        both.iter().filter(|p| proc::alive(**p)).count() == 1
    });
    let ours = given.groups();
    rig.until("its group has gone", || {
        fs::read_dir(&ours[0])
            .unwrap()
            .flatten()
            .filter(|e| e.path().is_dir())
            .count()
            == 1
    });
    rig.signal(nix::sys::signal::Signal::SIGTERM);
    rig.finish(0, &["killed", "leftovers"]);
    assert!(given.groups().is_empty(), "{:?}", given.groups());
}

#[test]
fn a_master_that_is_not_root_divides_what_was_delegated_to_it() {
    let given = Given::new();
    given.to_nobody();
    let program = given.enter("setpriv --reuid 65534 --regid 65534 --clear-groups");
    let mut rig = Rig::over_nobody(program, words("-n 1 --cgroup auto"), |_, _| {});
    rig.wait("all-ready", |_| true);
    let first = away(&rig, 1)[0];
    let worker = rig.status().pids()[0];
    assert_ne!(group_of(worker), group_of(rig.pid()));
    sigkill(worker);
    rig.wait("died", |e| e.pid() == worker);
    rig.until("it ends with its worker", || !proc::alive(first));
    rig.signal(nix::sys::signal::Signal::SIGTERM);
    rig.finish(0, &["died", "killed", "leftovers"]);
    assert!(given.groups().is_empty(), "{:?}", given.groups());
}

#[test]
fn workers_of_another_user_are_in_groups_that_are_not_theirs() {
    let given = Given::new();
    let words = words("-n 1 --cgroup auto --user nobody");
    let mut rig = Rig::over_nobody(given.enter(""), words, |_, _| {});
    rig.wait("all-ready", |_| true);
    let first = away(&rig, 1)[0];
    let worker = rig.status().pids()[0];
    assert_ne!(group_of(first), group_of(rig.pid()));
    sigkill(worker);
    rig.until("it ends with its worker", || !proc::alive(first));
    rig.wait("died", |e| e.pid() == worker);
    rig.signal(nix::sys::signal::Signal::SIGTERM);
    rig.finish(0, &["died", "killed", "leftovers"]);
}

#[test]
fn where_there_is_none_to_divide_that_is_said_once_and_the_cluster_runs() {
    let mut rig = Rig::unprivileged(
        "-n 2 --ready started --cgroup auto -- sleep 1000",
        |_, _| {},
    );
    let said = rig.wait("no-cgroup", |_| true);
    assert!(said.msg.contains("Delegate=yes"), "{}", said.msg);
    rig.wait("all-ready", |_| true);
    rig.end(&["no-cgroup"]);
}

#[test]
fn what_a_killed_master_of_our_pid_has_left_costs_no_control_group() {
    // Empty groups of that very pid and of one that nobody has; and one in which somebody lives.
    let script = "d=$0 how=$1; shift; own=$d/minicluster.$$/worker.1001; other=$d/minicluster.999999998/worker.1001; \
                  mkdir -p $own $other $d/minicluster.999999999/worker.1001; \
                  live() { env -i setsid -f sh -c 'echo $$ >$0/cgroup.procs; exec sleep 1002 >&- 2>&-' $1; \
                  until grep -q . $1/cgroup.procs; do :; done; }; \
                  live $other; case $how in stays) live $own;; esac; exec \"$@\"";
    for (how, ours) in [("goes", ""), ("stays", "-2")] {
        let given = Given::new();
        let mut program = given.enter("sh");
        let dir = given.0.display().to_string();
        program.extend(["-c", script, &dir, how].map(String::from));
        let mut rig = Rig::by(program, "-n 1 --ready started --cgroup auto -- sleep 1000");
        rig.wait("all-ready", |_| true);
        assert!(rig.events("no-cgroup").is_empty());
        let worker = rig.status().pids()[0];
        let wanted = format!("/minicluster.{}{ours}/worker.", rig.pid());
        assert!(group_of(worker).contains(&wanted), "{}", group_of(worker));
        let lives = |name: &str| {
            fs::read_to_string(given.0.join(name).join("worker.1001/cgroup.procs"))
                .is_ok_and(|pids| !pids.is_empty())
        };
        assert!(!given.0.join("minicluster.999999999").exists());
        assert!(lives("minicluster.999999998"));
        assert_eq!(lives(&format!("minicluster.{}", rig.pid())), how == "stays");
        rig.end(&["killed"]);
    }
}
