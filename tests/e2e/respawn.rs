//! "A slot whose worker has gone gets another one": at once or after a wait that grows, under
//! load, and whatever became of the command.

use crate::client::{all_answer, ask, get, v4};
use crate::harness::{Rig, sigkill};
use crate::place::free_port;
use crate::proc;
use nix::sys::signal::Signal;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[test]
fn a_killed_worker_is_replaced_in_its_slot() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 3 -p {port} -- ./threaded"));
    rig.up();
    let before = rig.status().pids();
    let new = rig.replace(before[1]);
    let after = rig.status();
    assert_eq!(after.pids(), [before[0], new, before[2]]);
    assert_eq!(after.rows[1].restarts, 1);
    all_answer(&rig, v4(port), "/", 3);
    rig.until("the new one answers", || {
        let answer = get(v4(port), "/").unwrap();
        answer.pid() == new && answer.slot() == 1
    });
    rig.end(&["died"]);
}

#[test]
fn the_master_keeps_no_descriptor_of_a_dead_worker() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} --respawn 1ms --backoff 1ms -- ./threaded"
    ));
    rig.up();
    for _ in 0..20 {
        let victim = rig.status().pids()[0];
        rig.replace(victim);
    }
    // `end` counts.
    rig.end(&["died"]);
}

/// What clients saw who came one connection a request.
#[derive(Default)]
struct Tally {
    answered: AtomicUsize,
    /// By a worker that was killed with our request in its hands.
    cut: AtomicUsize,
    refused: Mutex<Vec<String>>,
}

fn load(port: u16, tally: &Tally, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match TcpStream::connect_timeout(&v4(port), Duration::from_secs(10)) {
            Err(e) => tally.refused.lock().unwrap().push(e.to_string()),
            Ok(stream) => {
                let kind = match ask(stream, "/") {
                    Ok(_) => &tally.answered,
                    Err(_) => &tally.cut,
                };
                kind.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn under_load_no_connection_is_refused_whoever_is_killed() {
    const KILLS: usize = 30;
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 4 -p {port} --respawn 1ms --backoff 200ms -- ./threaded"
    ));
    rig.up();
    let (tally, stop) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (tally, stop) = (tally.clone(), stop.clone());
            std::thread::spawn(move || load(port, &tally, &stop))
        })
        .collect();
    // A fixed seed: the order of the victims does not matter, that it is no pattern does.
    let mut dice = 12_345_usize;
    for kills in 0..KILLS {
        let living = rig.wait_status("somebody lives", |s| !s.pids().is_empty());
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let pids = living.pids();
        sigkill(pids[(dice >> 33) % pids.len()]);
        rig.wait_many("died", kills + 1);
    }
    rig.wait_status("all are back", |s| s.ready == 4);
    let (before, goal) = (tally.answered.load(Ordering::Relaxed), 200);
    rig.until("it serves as before", || {
        tally.answered.load(Ordering::Relaxed) >= before + goal
    });
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|c| c.join().unwrap());
    let refused = tally.refused.lock().unwrap().clone();
    assert!(refused.is_empty(), "refused: {refused:?}");
    all_answer(&rig, v4(port), "/", 4);
    rig.end(&["died"]);
}

#[test]
fn a_worker_that_finishes_is_respawned_as_finished() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --respawn 10ms -- ./threaded --exit-after-ms 100"
    ));
    rig.up();
    let died = rig.wait("died", |_| true);
    assert_eq!(died.text("reason"), "finished");
    assert_eq!(died.number("code"), 0.0);
    let next = rig.wait("ready", |_| true);
    assert_ne!(next.pid(), died.pid());
    let said = rig.verb("why 0").out;
    assert!(said.contains("finished (exit 0)"), "{said}");
    rig.end(&["died"]);
}

#[test]
fn waits_double_up_to_the_limit() {
    let mut rig = Rig::start("-n 1 --respawn 20ms --backoff 300ms -- false");
    let waits = rig.wait_many("respawning", 8);
    for (n, e) in waits.iter().enumerate() {
        let full = (20 << n).min(300);
        let (wait, full) = (e.number("delay"), f64::from(full) / 1000.0);
        // Up to a fifth is taken off at random, nothing is added.
        assert!(
            wait <= full && wait >= full * 0.8 - 0.001,
            "{n}: {wait} for {full}"
        );
        assert_eq!(e.number("failures"), (n + 1) as f64);
    }
    rig.signal(Signal::SIGTERM);
    rig.wait("stopped", |_| true);
    rig.finish(0, &["died"]);
}

#[test]
fn backoff_0_keeps_the_wait_constant() {
    let rig = Rig::start("-n 1 --respawn 40ms --backoff 0 -- false");
    for e in rig.wait_many("respawning", 6) {
        assert!((0.031..=0.04).contains(&e.number("delay")), "{e:?}");
    }
    rig.end(&["died"]);
}

#[test]
fn a_worker_that_was_ready_for_a_second_is_replaced_at_once() {
    let mut rig = Rig::start(
        "-n 1 --ready started --respawn 20s -- ./threaded --never-listen --exit-after-ms 1100",
    );
    let died = rig.wait("died", |_| true);
    assert!(died.msg.contains("respawns now"), "{}", died.msg);
    rig.wait("ready", |_| true);
    rig.end(&["died"]);
}

#[test]
fn a_command_that_is_gone_for_a_while_is_waited_for() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --respawn 20ms --backoff 100ms -- ./command");
    let target = |dir: &std::path::Path| std::fs::read_link(dir.join("threaded")).unwrap();
    let mut rig = Rig::dressed(words, |_, dir| {
        symlink(target(dir), dir.join("command")).unwrap();
    });
    rig.up();
    std::fs::remove_file(rig.dir().join("command")).unwrap();
    let victim = rig.status().pids()[1];
    sigkill(victim);
    let said = rig.wait("exec-failed", |_| true);
    assert!(
        said.msg.contains("No such file or directory"),
        "{}",
        said.msg
    );
    let not_started = |e: &crate::log::Event| e.text("reason") == "not-started";
    for _ in 0..4 {
        assert_eq!(rig.wait("died", not_started).slot(), 1);
    }
    // It goes on trying, and the other one goes on serving.
    assert_eq!(get(v4(port), "/").unwrap().slot(), 0);
    rig.wait_status("it waits", |s| s.rows[1].state == "waiting");
    assert_eq!(rig.events("exec-failed").len(), 1, "said once");
    symlink(target(rig.dir()), rig.dir().join("command")).unwrap();
    rig.wait("ready", |e| e.slot() == 1);
    all_answer(&rig, v4(port), "/", 2);
    rig.end(&["died", "exec-failed"]);
}

#[test]
fn a_worker_that_ends_takes_its_process_group_along() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --stop-timeout 300ms -- ./threaded --fork-child"
    ));
    rig.up();
    let worker = rig.status().pids()[0];
    let (child, _) = rig.told("child");
    assert_eq!(proc::group(child), Some(worker));
    assert_eq!(proc::parent(child), Some(worker));
    rig.replace(worker);
    rig.until("its child has gone, too", || !proc::alive(child));
    // The child of the new one is deaf.
    rig.end(&["died", "leftovers"]);
}

#[test]
fn one_that_puts_itself_into_the_background_is_told_to_stay() {
    // A session of its own: what stays in the group goes with the worker.
    let script = "setsid -f sh -c 'echo > up; exec sleep 60'; until test -e up; do :; done; exit 0";
    let words = [
        "-n",
        "1",
        "--ready",
        "started",
        "--respawn",
        "100ms",
        "--",
        "sh",
        "-c",
        script,
    ];
    let mut rig = Rig::start(words);
    let died = rig.wait("died", |_| true);
    assert_eq!(died.text("reason"), "finished");
    rig.wait("left-running", |_| true);
    rig.end(&["died", "left-running"]);
}

#[test]
fn sixty_four_workers_start_and_stop_cleanly() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 64 -p {port} -- ./threaded"));
    rig.up();
    let status = rig.status();
    assert_eq!((status.ready, status.pids().len()), (64, 64));
    rig.end(&[]);
}
