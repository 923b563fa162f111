//! "FAULTS", those of a handover: what is refused to it, and what happens in the very moment of the exec.

use crate::client::{ask, get, v4};
use crate::harness::{Rig, sigkill};
use crate::load::Load;
use crate::place::{BINARY, free_port, shim};
use crate::proc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::net::TcpStream;
use std::process::Command;

/// A master that rare things may happen to.
fn shimmed(words: String) -> Rig {
    let mut rig = Rig::dressed(words, |cmd, _| {
        cmd.env("LD_PRELOAD", shim());
    });
    rig.up();
    rig
}

fn hand_over(rig: &Rig) {
    let said = rig.verb(format!("handover {BINARY}"));
    assert_eq!(said.code, 0, "{said:?}");
}

/// It does not come to it, for this reason; and the workers are those that there were.
fn in_vain(rig: &Rig, why: &str) {
    let before = rig.status().pids();
    let said = rig.verb(format!("handover {BINARY}"));
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("not handed over: "), "{said:?}");
    assert!(said.err.contains(why), "{said:?}");
    assert_eq!(rig.status().pids(), before);
}

fn limit(rig: &Rig, what: &str) {
    let pid = rig.pid().to_string();
    let done = Command::new("prlimit").args(["--pid", &pid, what]).status();
    assert!(done.unwrap().success(), "prlimit {what}");
}

#[test]
fn what_is_refused_to_a_handover_leaves_all_as_it_was() {
    let port = free_port();
    let rig = shimmed(format!("-n 3 -p {port} -- ./threaded"));
    let load = Load::going(&format!("{port} clients=4"));
    let refused = [
        ("shim-memfd", libc::ENOSYS, "Function not implemented"),
        ("shim-memfd", libc::EPERM, "Operation not permitted"),
        ("shim-exec", libc::EPERM, "Operation not permitted"),
        ("shim-exec", libc::ENOMEM, "Cannot allocate memory"),
        (
            "shim-fork",
            libc::EAGAIN,
            "Resource temporarily unavailable",
        ),
    ];
    for (name, errno, why) in refused {
        let path = rig.dir().join(name);
        fs::write(&path, errno.to_string()).unwrap();
        in_vain(&rig, why);
        fs::remove_file(&path).unwrap();
    }
    // Any number of descriptors that is not enough is too few at another place; and with enough it goes.
    let open = proc::descriptors(rig.pid());
    let mut failed = 0;
    for more in 1..60 {
        let before = rig.status().pids();
        limit(&rig, &format!("--nofile={}:", open + more));
        let said = rig.verb(format!("handover {BINARY} timeout 10s"));
        limit(&rig, "--nofile=4096:");
        assert_eq!(rig.status().pids(), before, "with {more} more");
        match said.code {
            1 => failed += 1,
            0 => break,
            _ => panic!("with {more} more: {said:?}"),
        }
    }
    assert!((1..59).contains(&failed), "{failed} have failed");
    hand_over(&rig);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    assert!(rig.events("died").is_empty());
    assert_eq!(rig.verb("reload").code, 0);
    rig.end(&["handover-failed"]);
}

#[test]
fn without_proc_nothing_is_handed_over_and_nothing_lost() {
    let port = free_port();
    let script = "mount -t tmpfs none /proc && exec \"$@\"";
    let by = ["unshare", "-m", "sh", "-c", script, "sh"];
    let mut rig = Rig::by(by, format!("-n 2 -p {port} -- ./threaded"));
    rig.wait("all-ready", |_| true);
    let load = Load::going(&port.to_string());
    in_vain(&rig, "there would be no way back");
    assert_eq!(rig.verb("reload").code, 0);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    rig.end(&["handover-failed", "no-proc", "drain-blind"]);
}

#[test]
fn a_signal_in_the_very_moment_is_heard_by_the_next() {
    let port = free_port();
    let mut rig = shimmed(format!("-n 2 -p {port} -- ./threaded"));
    let load = Load::going(&port.to_string());
    let path = rig.dir().join("shim-exec-signal");
    let at_once = |rig: &Rig, signal: Signal| {
        fs::write(&path, (signal as i32).to_string()).unwrap();
        hand_over(rig);
        assert!(!path.exists(), "{signal} was not sent");
    };
    at_once(&rig, Signal::SIGCHLD);
    let before = rig.status().pids();
    at_once(&rig, Signal::SIGHUP);
    rig.wait("reload-finished", |_| true);
    let after = rig.status().pids();
    assert!(after.iter().all(|p| !before.contains(p)));
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    assert_eq!(rig.wait_many("handover", 2).len(), 2);
    // Whoever waits hears that it is handed over, or that it is over.
    fs::write(&path, (Signal::SIGTERM as i32).to_string()).unwrap();
    let _ = rig.verb(format!("handover {BINARY}"));
    rig.wait("stopped", |_| true);
    assert!(!path.exists());
    assert_eq!(rig.events("handover").len(), 3);
    rig.finish(0, &[]);
}

#[test]
fn a_worker_that_dies_in_the_very_moment_is_replaced_by_the_next() {
    let port = free_port();
    let mut rig = shimmed(format!("-n 3 -p {port} --respawn 10ms -- ./threaded"));
    for _ in 0..5 {
        let victim = rig.status().pids()[0];
        let path = rig.dir().join("shim-exec-kill");
        fs::write(&path, victim.to_string()).unwrap();
        hand_over(&rig);
        assert!(!path.exists());
        let died = rig.wait("died", |e| e.pid() == victim);
        let new = rig.wait("ready", |e| e.slot() == died.slot());
        assert_ne!(new.pid(), victim);
    }
    rig.wait_status("all are ready", |s| s.ready == 3);
    assert!(get(v4(port), "/").is_ok());
    assert_eq!(rig.events("handover").len(), 5);
    rig.end(&["died"]);
}

#[test]
fn who_waits_in_the_queue_is_served_behind_it() {
    let port = free_port();
    let rig = shimmed(format!("-n 2 -p {port} -- ./threaded"));
    let workers = rig.status().pids();
    let send = |signal| {
        let all = workers.iter().map(|p| Pid::from_raw(*p));
        all.for_each(|p| kill(p, signal).unwrap());
    };
    send(Signal::SIGSTOP);
    rig.until("they stand", || workers.iter().all(|p| proc::stopped(*p)));
    // They are connected, which nobody but the kernel has had a hand in.
    let clients: Vec<_> = (0..50)
        .map(|_| TcpStream::connect(v4(port)).unwrap())
        .collect();
    hand_over(&rig);
    hand_over(&rig);
    send(Signal::SIGCONT);
    for client in clients {
        assert!(ask(client, "/").is_ok());
    }
    assert_eq!(rig.status().pids(), workers);
    rig.end(&[]);
}

#[test]
fn a_master_killed_behind_a_failed_handover_takes_its_workers_along() {
    let port = free_port();
    let mut rig = shimmed(format!("-n 2 -p {port} -- ./threaded"));
    fs::write(rig.dir().join("shim-exec"), libc::EPERM.to_string()).unwrap();
    // What was made to survive the exec must not survive in the programs that are executed later.
    in_vain(&rig, "Operation not permitted");
    assert_eq!(rig.verb("reload").code, 0);
    let workers = rig.status().pids();
    sigkill(rig.pid());
    rig.until("all have gone", || !workers.iter().any(|p| proc::alive(*p)));
    rig.wait_exit();
}
