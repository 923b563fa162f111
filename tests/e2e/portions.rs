//! Reloads by portions, and of servers with habits: those that hush their socket as they leave, those
//! that leave daemons, those that stay; masters with fewer rights; and what many reloads leave behind:
//! nothing.

use crate::birth;
use crate::client::{get, v4};
use crate::harness::{Rig, Status};
use crate::load::Load;
use crate::place::{free_port, python};
use crate::proc;
use std::fs;
use std::io::Write;
use std::net::TcpStream;

fn pair(options: &str, server: &str) -> (Rig, u16) {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} {options} -- {server}"));
    rig.up();
    (rig, port)
}

/// Exchanges all workers so often, under clients with a connection per request. None is lost.
fn unnoticed(rig: &Rig, port: u16, times: usize) {
    let load = Load::going(&port.to_string());
    for _ in 0..times {
        let said = rig.verb("reload");
        assert_eq!(said.code, 0, "{said:?}");
    }
    let (well, tally) = load.finish();
    assert!(well && tally.of("pids") > 2, "{tally:?}");
}

/// The most processes that there were at one time, as the log has it.
fn most(rig: &Rig) -> usize {
    let mut now = 0_usize;
    let mut most = 0;
    let steps = rig.births_and_deaths();
    for born in steps {
        match born {
            true => now += 1,
            false => now -= 1,
        }
        most = most.max(now);
    }
    most
}

#[test]
fn so_many_workers_are_there_at_a_time_as_the_surge_allows() {
    for (surge, limit) in [("1", 5), ("50%", 6), ("100%", 8), ("0", 4)] {
        let port = free_port();
        let server = "./threaded --polite 5000";
        let words = format!("-n 4 -p {port} --surge {surge} -- {server}");
        let mut rig = Rig::start(words);
        rig.up();
        let old = rig.status().pids();
        unnoticed(&rig, port, 1);
        assert_eq!(most(&rig), limit, "--surge {surge}");
        let new = rig.status().pids();
        assert_eq!(new.len(), 4);
        assert!(old.iter().all(|pid| !new.contains(pid)));
        rig.end(&[]);
    }
}

#[test]
fn requests_are_waited_for_that_processes_answer_whose_parents_have_gone() {
    let port = free_port();
    let server = format!("{} blocking.py fork=1 handler=1500", python());
    let mut rig = Rig::start(format!("-n 1 -p {port} -- {server}"));
    rig.up();
    let load = Load::start(&format!("{port} clients=6"));
    rig.until("all are under way", || rig.tales("request").len() >= 6);
    let said = rig.verb("reload");
    assert_eq!(said.code, 0, "{said:?}");
    let (well, tally) = load.finish();
    assert!(well && tally.of("requests") >= 6, "{tally:?}");
    rig.end(&[]);
}

#[test]
fn a_server_that_shuts_its_socket_down_as_it_stops_takes_it_from_nobody() {
    let (rig, port) = pair("", "./threaded --hush");
    unnoticed(&rig, port, 3);
    assert!(rig.tales("hushed").len() >= 6);
    // One of them goes alone: it is the others' socket, too, and listens again.
    assert_eq!(rig.verb("resize 1").code, 0);
    for _ in 0..20 {
        assert_eq!(get(v4(port), "/").unwrap().status, 200);
    }
    assert_eq!(rig.verb("resize 2").code, 0);
    rig.end(&["lane-silenced"]);
}

#[test]
fn what_a_worker_has_left_behind_keeps_its_socket_and_is_nobodys_hurry() {
    let (mut rig, port) = pair("--stop-timeout 1s", "./threaded --setsid-child");
    rig.until("both have a daemon", || rig.tales("daemon").len() == 2);
    let (daemon, _) = rig.tales("daemon")[0];
    unnoticed(&rig, port, 2);
    assert!(proc::alive(daemon));
    assert_eq!(get(v4(port), "/").unwrap().status, 200);
    for (pid, _) in rig.tales("daemon") {
        crate::harness::sigkill(pid);
    }
    rig.until("the descriptors of the dead are gone", || {
        let now = proc::descriptors(rig.pid());
        now < 40
    });
    rig.signal(nix::sys::signal::Signal::SIGTERM);
    rig.wait("stopped", |_| true);
    rig.finish(0, &["leftovers"]);
}

#[test]
fn status_shows_who_is_on_the_way_in_and_who_on_the_way_out() {
    let port = free_port();
    let script = "until test $MINICLUSTER_GENERATION = 1 || test -e go; do sleep 0.01; done; \
                  exec node selecting.js";
    let p = port.to_string();
    let mut rig = Rig::start(["-n", "2", "-p", &p, "--", "sh", "-c", script]);
    rig.up();
    let old = rig.status().pids();
    // An answer that one of them owes keeps both.
    let mut slow = TcpStream::connect(v4(port)).unwrap();
    slow.write_all(b"GET /slow?ms=3000 HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    rig.told("request");
    let reload = rig.meanwhile("reload");
    let states = |s: &Status| -> Vec<(u16, String)> {
        let row = |r: &crate::harness::Row| (r.slot, r.state.clone());
        s.beside.iter().map(row).collect()
    };
    let both = |state: &str| vec![(0, state.to_string()), (1, state.to_string())];
    rig.wait_status("two are on their way in", |s| {
        states(s) == both("starting") && s.pids() == old
    });
    fs::write(rig.dir().join("go"), "").unwrap();
    let status = rig.wait_status("two are on their way out", |s| {
        states(s) == both("draining")
    });
    let beside: Vec<i32> = status.beside.iter().filter_map(|r| r.pid).collect();
    assert_eq!(beside, old);
    assert_eq!(status.ready, 2);
    let text = rig.verb("status").out;
    let out = text.lines().filter(|l| l.contains(" draining ")).count();
    assert_eq!(out, 2, "{text}");
    assert_eq!(rig.verb("workers").out.lines().count(), 4);
    drop(slow);
    assert_eq!(reload.join().unwrap().code, 0);
    assert!(rig.status().beside.is_empty());
    rig.end(&[]);
}

#[test]
fn a_master_that_is_nobodys_loses_nothing_either() {
    let port = free_port();
    let words = format!("-n 2 -p {port} -- ./threaded");
    let mut rig = Rig::unprivileged(words, |_, _| {});
    rig.up();
    unnoticed(&rig, port, 3);
    rig.end(&[]);
}

#[test]
fn nor_does_one_whose_workers_are_another_users() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --user nobody -- ./threaded");
    let mut rig = Rig::over_nobody("", words, |_, _| {});
    rig.up();
    unnoticed(&rig, port, 3);
    rig.end(&[]);
}

#[test]
fn nor_does_one_that_may_not_look_into_other_users_processes() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --user nobody -- ./threaded");
    let without = "setpriv --bounding-set -sys_ptrace --inh-caps -sys_ptrace";
    let mut rig = Rig::over_nobody(without, words, |_, _| {});
    rig.up();
    unnoticed(&rig, port, 3);
    // An idle connection is ended there, too, or its worker goes when it owes nothing.
    let mut idle = TcpStream::connect(v4(port)).unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    assert_eq!(rig.verb("reload").code, 0);
    rig.end(&["drain-hands-off"]);
}

#[test]
fn after_many_reloads_the_master_is_as_it_was_after_one() {
    let unix = format!("-l unix:h.sock -- {} sockets.py plain h.sock", python());
    let tcp = format!("-p {} -- ./threaded", free_port());
    for words in [unix, tcp] {
        let mut rig = Rig::start(format!("-n 2 {words}"));
        rig.wait("all-ready", |_| true);
        for _ in 0..4 {
            assert_eq!(rig.verb("reload").code, 0);
        }
        rig.note_descriptors();
        // (Pages of the binary come and go by sixteen.)
        let memory = |rig: &Rig| proc::kib(rig.pid(), "RssAnon");
        let (before, files) = (memory(&rig), names(&rig));
        for _ in 0..26 {
            assert_eq!(rig.verb("reload").code, 0);
        }
        let grown = memory(&rig).saturating_sub(before);
        // What the allocator keeps is 430 to 470 KiB after four, and up to 100 more after thirty, as
        // after a hundred: pages that were needed at one time, when looks and deaths came together.
        assert!(grown <= 128, "{before} KiB and {grown} more");
        // (One that has just ended is waited for in the next turn.)
        rig.until("no zombie is left", || proc::zombies(rig.pid()).is_empty());
        assert_eq!(names(&rig), files);
        assert_eq!(rig.left_behind().len(), 2);
        rig.end(&[]);
    }
}

/// The names of the unix socket.
fn names(rig: &Rig) -> Vec<String> {
    let all = fs::read_dir(rig.dir()).unwrap().flatten();
    let all = all.map(|e| e.file_name().to_string_lossy().into_owned());
    let mut all: Vec<String> = all.filter(|n| n.contains("h.sock")).collect();
    all.sort();
    all
}

#[test]
fn without_a_proc_a_reload_loses_nothing_that_is_answered_in_time() {
    let port = free_port();
    let how = birth::namespaces("-pf");
    let start = format!("unshare {how} --kill-child");
    let words = format!("-n 2 -p {port} --drain-timeout 2s -- ./threaded");
    let mut rig = Rig::by(start, words);
    rig.wait("all-ready", |_| true);
    unnoticed(&rig, port, 2);
    assert_eq!(rig.verb("stop").code, 0);
    rig.finish(0, &["no-proc", "drained", "drain-blind"]);
}
