//! Processes that are not where they were put, or never were ours; and what a worker can do to
//! those it shares a socket with.

use crate::birth;
use crate::client::{get, v4};
use crate::harness::Rig;
use crate::place::{free_port, python};
use crate::proc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

#[test]
fn a_worker_that_has_left_its_group_is_killed_all_the_same() {
    let leave = "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); \
                 os.setpgid(0, os.getpgid(os.getppid())); print('left', file=__import__('sys').stderr, \
                 flush=True); signal.pause()";
    let mut rig = Rig::start([
        "-n",
        "1",
        "--ready",
        "started",
        "--stop-timeout",
        "200ms",
        "--",
        python(),
        "-c",
        leave,
    ]);
    rig.wait_line("left");
    let worker = rig.status().pids()[0];
    assert_ne!(proc::group(worker), Some(worker));
    rig.signal(Signal::SIGTERM);
    let died = rig.wait("died", |_| true);
    assert_eq!(died.text("signal"), "SIGKILL");
    assert!(rig.events("still-there").is_empty());
    rig.finish(0, &["killed"]);
}

#[test]
fn children_that_the_master_was_born_with_are_nobodys_leftovers() {
    let script = "sleep 1000 & echo $! > stranger; exec \"$0\" \"$@\"";
    let mut rig = Rig::by(["sh", "-c", script], "-n 1 --ready started -- sleep 1000");
    rig.wait("all-ready", |_| true);
    let stranger = std::fs::read_to_string(rig.dir().join("stranger")).unwrap();
    let stranger: i32 = stranger.trim().parse().unwrap();
    assert_eq!(proc::parent(stranger), Some(rig.pid()));
    rig.signal(Signal::SIGTERM);
    rig.wait_exit();
    assert!(rig.events("leftovers").is_empty());
    assert!(proc::alive(stranger), "it was ended with the cluster");
    kill(Pid::from_raw(stranger), Signal::SIGKILL).unwrap();
    rig.until("it has gone", || !proc::alive(stranger));
    rig.finish(0, &[]);
}

// On a machine that is busy otherwise the kernel needs long to end so many.
#[test]
#[ignore = "heavy: make test-servers"]
fn heavy_thousands_of_leftovers_that_end_at_once_are_ended_at_once() {
    // Each is a fork that waits to open a pipe nobody writes to.
    let script = "mkfifo pipe; i=0; while [ $i -lt 6000 ]; do i=$((i+1)); ( : < pipe ) & done; \
                  echo all there >&2; wait";
    let rig = Rig::start(["-n", "1", "--ready", "started", "--", "sh", "-c", script]);
    rig.wait_line("all there");
    rig.signal(Signal::SIGQUIT);
    // Not 71: each has ended, and it is not their fault that we have to look at so many.
    rig.finish(1, &["hard-stop"]);
}

#[test]
fn a_socket_that_a_worker_shuts_down_for_all_listens_again() {
    let port = free_port();
    let server = format!("{} silencer.py {port}", python());
    let mut rig = Rig::start(format!("-n 3 -p {port} -- {server}"));
    rig.up();
    for round in 1..=3 {
        let worker = rig.status().pids()[0];
        kill(Pid::from_raw(worker), Signal::SIGUSR1).unwrap();
        rig.until("it is silenced", || rig.tales("silenced").len() == round);
        rig.until("it listens again", || {
            get(v4(port), "/").is_ok_and(|a| a.status == 200)
        });
    }
    let said = rig.events("lane-silenced");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].msg.contains("listens again"), "{}", said[0].msg);
    rig.end(&["lane-silenced"]);
}

#[test]
fn a_bind_in_a_network_of_the_workers_own_is_left_to_itself() {
    let how = if birth::root() { "-n" } else { "-rn" };
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --ready started -- unshare {how} ./threaded"
    ));
    rig.told("listening");
    assert!(
        rig.events("listening").is_empty(),
        "it was given our socket"
    );
    rig.wait("unserved", |_| true);
    rig.end(&["unserved"]);
}

#[test]
fn a_worker_that_wants_to_be_traced_is_not_taken_for_dead() {
    // PTRACE_TRACEME makes its parent, us, the tracer: each signal stops it and tells us.
    let code = "import ctypes, signal, sys; ctypes.CDLL(None).ptrace(0, 0, 0, 0); \
                signal.signal(signal.SIGUSR1, lambda *_: print('got it', file=sys.stderr, flush=True)); \
                print('traced', file=sys.stderr, flush=True); [signal.pause() for _ in range(9)]";
    let mut rig = Rig::start(["-n", "1", "--ready", "started", "--", python(), "-c", code]);
    rig.wait_line("traced");
    let worker = rig.status().pids()[0];
    kill(Pid::from_raw(worker), Signal::SIGUSR1).unwrap();
    rig.wait_line("got it");
    let since = Instant::now();
    assert_eq!(rig.status().pids(), [worker]);
    assert!(rig.events("died").is_empty());
    assert!(since.elapsed() < Duration::from_secs(10));
    rig.signal(Signal::SIGTERM);
    rig.wait_exit();
    rig.finish(0, &[]);
}

#[test]
fn what_a_dead_worker_left_can_write_to_stderr_whether_it_is_watched_or_not() {
    // Its end of the pipe outlives its worker, and where there is no takeover nothing tells of it.
    let helper = "touch up; until test -e go; do sleep 0.01; done; \
                  for n in 1 2 3; do echo helper $n >&2 || exit; done; touch done; exec sleep 60";
    for takeover in ["auto", "off"] {
        // In its session, or it would go with the group of its worker.
        let script = format!("setsid -f sh -c '{helper}'; until test -e up; do :; done; exit 3");
        let mut rig = Rig::start([
            "-n",
            "1",
            "--takeover",
            takeover,
            "--ready",
            "started",
            "--respawn",
            "60s",
            "--backoff",
            "60s",
            "--",
            "sh",
            "-c",
            &script,
        ]);
        rig.wait("died", |_| true);
        // A turn later all that is to be forgotten has been.
        assert_eq!(rig.status().rows[0].state, "waiting");
        std::fs::write(rig.dir().join("go"), "").unwrap();
        rig.wait_line("helper 3");
        rig.until("it goes on", || rig.dir().join("done").exists());
        rig.end(&["died", "leftovers"]);
    }
}

#[test]
fn a_daemon_without_its_first_thread_is_ended_like_any_other() {
    let code = "import ctypes, os, signal, threading, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); \
                threading.Thread(target=time.sleep, args=[300]).start(); \
                open('up', 'w').close(); ctypes.CDLL(None).syscall(60, 0)";
    let exit = match cfg!(target_arch = "aarch64") {
        true => code.replace("syscall(60", "syscall(93"),
        false => code.to_string(),
    };
    let script = "setsid -f \"$0\" -c \"$1\"; until test -e up; do :; done; exec sleep 300";
    let mut rig = Rig::start([
        "-n",
        "1",
        "--ready",
        "started",
        "--stop-timeout",
        "1s",
        "--",
        "sh",
        "-c",
        script,
        python(),
        &exit,
    ]);
    rig.wait("all-ready", |_| true);
    rig.until("it is there", || rig.dir().join("up").exists());
    rig.signal(Signal::SIGTERM);
    let left = rig.wait("leftovers", |e| e.level == "warn");
    assert!(left.msg.contains("killing"), "{}", left.msg);
    rig.finish(0, &["leftovers"]);
}
