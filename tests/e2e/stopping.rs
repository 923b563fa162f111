//! Signals to the master and what becomes of the workers: graceful and hard stops, those who do
//! not listen, those behind a shell, those who have left the group.

use crate::client::{get, v4};
use crate::harness::Rig;
use crate::place::free_port;
use crate::proc;
use nix::sys::signal::Signal;

#[test]
fn term_and_int_stop_gracefully() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let port = free_port();
        let mut rig = Rig::start(format!("-n 3 -p {port} -- ./threaded --graceful"));
        rig.up();
        rig.signal(signal);
        let why = rig.wait("stopping", |_| true);
        assert_eq!(why.text("reason"), format!("{signal} received"));
        for died in rig.wait_many("died", 3) {
            assert_eq!(died.text("reason"), "shutdown");
            assert_eq!(died.number("code"), 0.0);
        }
        assert_eq!(rig.wait("stopped", |_| true).number("code"), 0.0);
        // Each was asked once, and only its first process.
        assert_eq!(rig.tales("term").len(), 3);
        rig.finish(0, &[]);
    }
}

#[test]
fn a_second_signal_stops_hard() {
    for second in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let port = free_port();
        let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded --deaf"));
        rig.up();
        rig.signal(Signal::SIGTERM);
        // Two signals in one turn would be one.
        rig.wait("stopping", |_| true);
        rig.until("both are asked", || rig.tales("term").len() == 2);
        // One that follows at once is the echo of the first.
        rig.until("it is hard", || {
            rig.signal(second);
            !rig.events("hard-stop").is_empty()
        });
        for died in rig.wait_many("died", 2) {
            assert_eq!(died.text("signal"), "SIGKILL");
            assert_eq!(died.text("reason"), "kill");
        }
        rig.finish(1, &["hard-stop"]);
    }
}

#[test]
fn a_signal_that_comes_twice_at_once_is_one() {
    // As timeout(1) sends it: to its child, then to the group that its child is in.
    let port = free_port();
    let words = format!("-n 2 -p {port} -- ./threaded --graceful");
    let mut rig = Rig::by("timeout --preserve-status 4", words);
    rig.up();
    rig.wait("stopping", |_| true);
    rig.wait_many("died", 2);
    assert_eq!(rig.wait("stopped", |_| true).number("code"), 0.0);
    assert!(rig.events("hard-stop").is_empty());
    rig.finish(0, &[]);
}

#[test]
fn quit_stops_hard_at_once() {
    let port = free_port();
    let words = format!("-n 2 -p {port} -- ./threaded --graceful --fork-child");
    let mut rig = Rig::start(words);
    rig.up();
    rig.signal(Signal::SIGQUIT);
    let why = rig.wait("hard-stop", |_| true);
    assert_eq!(why.text("reason"), "SIGQUIT received");
    assert!(rig.tales("term").is_empty());
    rig.finish(1, &["hard-stop"]);
}

#[test]
fn a_deaf_worker_is_killed_at_the_stop_timeout_with_its_children() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} --stop-timeout 300ms -- ./threaded --deaf --fork-child"
    ));
    rig.up();
    rig.until("both have a child", || rig.tales("child").len() == 2);
    rig.signal(Signal::SIGTERM);
    let killed = rig.wait("killed", |_| true);
    assert!(killed.msg.contains("(limit 300ms)"), "{}", killed.msg);
    rig.finish(0, &["killed"]);
}

#[test]
fn a_shell_dies_of_the_stop_signal_and_what_it_started_gets_it_then() {
    let port = free_port().to_string();
    let script = "./threaded --graceful; true";
    let mut rig = Rig::start(["-n", "2", "-p", &port, "--", "sh", "-c", script]);
    rig.up();
    rig.signal(Signal::SIGTERM);
    rig.wait("stopped", |_| true);
    // Once: for many servers a second one means to leave everything and go.
    let told = rig.tales("term");
    assert_eq!(told.len(), 2, "{told:?}");
    // They went as they should: there is nothing to worry about.
    rig.finish(0, &[]);
}

#[test]
fn what_survives_the_signal_to_its_group_is_killed_at_the_stop_timeout() {
    let port = free_port().to_string();
    let script = "./threaded --deaf; true";
    let mut rig = Rig::start([
        "-n",
        "2",
        "-p",
        &port,
        "--stop-timeout",
        "2s",
        "--",
        "sh",
        "-c",
        script,
    ]);
    rig.up();
    rig.signal(Signal::SIGTERM);
    rig.wait("stopped", |_| true);
    assert_eq!(rig.tales("term").len(), 2, "each was asked once");
    rig.finish(0, &["leftovers"]);
}

#[test]
fn a_daemon_that_left_its_group_is_found_and_ended() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded --setsid-child"));
    rig.up();
    rig.until("both have a daemon", || rig.tales("daemon").len() == 2);
    let (daemon, _) = rig.tales("daemon")[0];
    assert!(proc::alive(daemon));
    rig.signal(Signal::SIGTERM);
    let left = rig.wait("leftovers", |_| true);
    assert!(left.msg.contains(&daemon.to_string()), "{}", left.msg);
    rig.finish(0, &["leftovers"]);
}

#[test]
fn a_daemon_outlives_a_worker_that_is_replaced_but_not_the_cluster() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 1 -p {port} -- ./threaded --setsid-child"));
    rig.wait("all-ready", |_| true);
    let (daemon, _) = rig.told("daemon");
    let victim = rig.status().pids()[0];
    rig.replace(victim);
    assert!(proc::alive(daemon));
    rig.end(&["died", "leftovers"]);
}

#[test]
fn the_stop_signal_can_be_another() {
    for (name, number) in [("INT", 2), ("USR1", 10), ("SIGWINCH", 28), ("34", 34)] {
        // Everything is loud but that one.
        let script = format!("trap 'exit 7' {number}; echo up >&2; while :; do sleep 0.02; done");
        let words = ["-n", "1", "--stop-signal", name, "--", "sh", "-c", &script];
        let mut rig = Rig::start(words);
        rig.up();
        rig.wait_line("up");
        rig.signal(Signal::SIGTERM);
        let died = rig.wait("died", |_| true);
        assert_eq!(died.text("reason"), "shutdown");
        assert_eq!(died.number("code"), 7.0, "{name}");
        rig.finish(0, &[]);
    }
}

#[test]
fn a_stop_before_the_workers_are_ready_is_a_stop() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded --never-listen"));
    rig.wait_many("forked", 2);
    rig.signal(Signal::SIGTERM);
    rig.wait_exit();
    assert!(rig.events("ready").is_empty());
    rig.finish(0, &[]);
}

#[test]
fn a_stop_in_the_first_moment_is_a_stop() {
    // At whatever point of the start it comes; before the handlers are there it is a plain death.
    for _ in 0..10 {
        let port = free_port();
        let mut rig = Rig::start(format!("-n 8 -p {port} -- ./threaded"));
        rig.wait("port-open", |_| true);
        rig.signal(Signal::SIGTERM);
        rig.finish(0, &[]);
    }
}

#[test]
fn a_crash_loop_is_stopped_at_once() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 3 -p {port} --respawn 30s -- false"));
    rig.wait_many("respawning", 3);
    rig.signal(Signal::SIGTERM);
    let stopping = rig.wait("stopping", |_| true);
    assert!(
        stopping.msg.contains("no worker to wait for"),
        "{}",
        stopping.msg
    );
    rig.finish(0, &["died"]);
}

#[test]
fn a_request_under_way_is_finished_by_a_server_that_does_so() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded --graceful"));
    rig.up();
    for _ in 0..20 {
        assert_eq!(get(v4(port), "/").unwrap().status, 200);
    }
    rig.signal(Signal::SIGTERM);
    rig.wait("stopped", |_| true);
    assert!(get(v4(port), "/").is_err(), "the port is closed");
    rig.finish(0, &[]);
}
