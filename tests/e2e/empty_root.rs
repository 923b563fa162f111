//! The first process of a container, with nothing around it: the static binary in a root without /proc,
//! /dev, /run and /tmp; and what becomes of processes whose parents are gone.

use crate::birth;
use crate::client::{get, v4};
use crate::harness::{Rig, Status};
use crate::place::{Said, forker, free_port, run};
use crate::proc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::process::Command;

/// The master, as we see it from outside: the only child of unshare(1).
fn master(rig: &Rig) -> i32 {
    rig.until("there is a master", || proc::children(rig.pid()).len() == 1);
    proc::children(rig.pid())[0]
}

/// Waits until so many lines on stderr are this.
fn count(rig: &Rig, line: &str, wanted: usize) {
    let so_many = || rig.lines().iter().filter(|l| *l == line).count();
    rig.until(&format!("{wanted} have said '{line}'"), || {
        so_many() >= wanted
    });
    assert_eq!(so_many(), wanted, "{line}");
}

/// `status --json`, typed in that root.
fn status(rig: &Rig) -> Status {
    let said = typed(rig, "status");
    assert_eq!(said.code, 0, "{said:?}");
    Status::parse(&said.out)
}

/// A verb, typed there, with its answer in JSON.
fn typed(rig: &Rig, verb: &str) -> Said {
    let mut cmd = match birth::root() {
        true => Command::new("chroot"),
        false => Command::new("unshare"),
    };
    if !birth::root() {
        cmd.args(["-r", "chroot"]);
    }
    cmd.arg(rig.dir().join("root"));
    cmd.args(["/minicluster", verb, "--json"]);
    run(cmd, rig.deadline())
}

#[test]
fn a_static_master_needs_nothing_but_its_command() {
    let port = free_port();
    let mut rig = Rig::in_empty_root(format!(
        "-n 4 -p {port} --stop-timeout 3s --stop-signal 40 \
         -- /forker --storm 100 --leave --mate --deaf"
    ));
    rig.wait("all-ready", |_| true);
    let answer = get(v4(port), "/").unwrap();
    assert!(answer.body.starts_with("PID "), "{}", answer.body);
    count(&rig, "nothing to read", 4);
    let now = status(&rig);
    assert_eq!((now.pid, now.ready), (1, 4));
    assert_eq!(now.takeover, "on");
    let said = typed(&rig, "deps");
    assert!(
        said.code == 1 && said.out.contains("/proc is not there"),
        "{said:?}"
    );
    // Those that leave, and leave, and leave are reaped.
    count(&rig, "stormed 100", 4);
    let master = master(&rig);
    rig.until("no zombie is left", || proc::zombies(master).is_empty());
    // A daemon and a mate of each worker stay, and one that does not listen.
    count(&rig, "stays", 8);
    count(&rig, "deaf", 4);
    kill(Pid::from_raw(master), Signal::SIGTERM).unwrap();
    rig.wait("stopped", |_| true);
    rig.wait_exit();
    // Each was asked once, in its worker's group or without: a second time may mean something else.
    count(&rig, "asked", 8);
    let told: Vec<String> = ["no-proc", "leftovers"]
        .iter()
        .flat_map(|name| rig.events(name))
        .map(|e| format!("{} {}", e.level, e.name))
        .collect();
    assert_eq!(told, ["warn no-proc", "info leftovers", "warn leftovers"]);
    let run = rig.dir().join("root/run/minicluster");
    assert_eq!(std::fs::read_dir(run).unwrap().count(), 0);
    rig.finish(0, &["no-proc", "leftovers"]);
}

#[test]
fn a_static_master_is_small_and_gives_back_what_only_its_start_needed() {
    let port = free_port();
    let sizes = |_| {
        let mut rig = Rig::in_empty_root(format!("-n 4 -p {port} -- /forker"));
        rig.wait("all-ready", |_| true);
        let master = master(&rig);
        rig.until("nothing more is due", || proc::sleeps_for_good(master));
        let [own, all, most] = ["RssAnon", "VmRSS", "VmHWM"].map(|what| proc::kib(master, what));
        kill(Pid::from_raw(master), Signal::SIGTERM).unwrap();
        rig.wait_exit();
        rig.finish(0, &["no-proc"]);
        (own, all, most)
    };
    // Its own memory is the same wherever it runs. Of its file, whose size says nothing here (the tests
    // have a bigger one than is installed), the kernel chooses how much is mapped at once, and rarely,
    // on a busy machine, that is most of it: hence shares of what it was, and more than one try.
    let tries: Vec<(u64, u64, u64)> = (0..5).map(sizes).collect();
    assert!(
        tries.iter().all(|(own, ..)| (1..512).contains(own)),
        "own, all and most, KiB: {tries:?}"
    );
    assert!(
        tries.iter().any(|(_, all, most)| all * 3 < most * 2),
        "own, all and most, KiB: {tries:?}"
    );
}

#[test]
fn the_first_process_of_a_container_leaves_no_zombie() {
    let port = free_port();
    let how = birth::namespaces("-pf");
    let start = format!("unshare {how} --mount-proc --kill-child");
    let server = forker().display();
    let words = format!("-n 2 -p {port} --stop-timeout 3s -- {server} --storm 1000 --leave");
    let mut rig = Rig::by(start, words);
    rig.wait("all-ready", |_| true);
    count(&rig, "stormed 1000", 2);
    let master = master(&rig);
    rig.until("no zombie is left", || proc::zombies(master).is_empty());
    // Two workers, and what each has left; the storms themselves go.
    count(&rig, "stays", 2);
    rig.until("four processes are left", || {
        proc::children(master).len() == 4
    });
    assert!(get(v4(port), "/").is_ok_and(|a| a.status == 200));
    kill(Pid::from_raw(master), Signal::SIGTERM).unwrap();
    rig.wait("stopped", |_| true);
    count(&rig, "asked", 2);
    rig.finish(0, &[]);
}
