//! "One that leaves clients waiting so long, and touches none of them, hangs": workers that are stopped
//! are replaced, workers that are slow are not.

use crate::client::{Answer, get, v4};
use crate::harness::Rig;
use crate::place::{free_port, python};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Stops a worker: all its threads, or one may still accept who comes first.
pub fn stop(rig: &Rig, pid: i32) {
    send(pid, Signal::SIGSTOP);
    let stopped = |task: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap();
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('T'))
    };
    rig.until("it is stopped", || {
        let mut tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        tasks.all(|task| stopped(task.unwrap()))
    });
}

/// A request of its own thread; what came of it, and how long that took.
fn ask(port: u16) -> JoinHandle<(Result<Answer, String>, Duration)> {
    thread::spawn(move || {
        let begun = Instant::now();
        (
            get(v4(port), "/").map_err(|e| e.to_string()),
            begun.elapsed(),
        )
    })
}

/// Requests come all the time, whatever becomes of those before, until it is so.
fn under_load(
    rig: &Rig,
    port: u16,
    mut so: impl FnMut() -> bool,
) -> Vec<(Result<Answer, String>, Duration)> {
    let mut asked = Vec::new();
    rig.until("it is so under load", || {
        asked.push(ask(port));
        so()
    });
    asked.into_iter().map(|t| t.join().unwrap()).collect()
}

#[test]
fn a_stopped_worker_is_steered_around_and_the_next_one_serves_who_waits() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 4 -p {port} --balance hash --hang-timeout 1s -- ./threaded"
    ));
    rig.up();
    let stopped = rig.status().rows[1].pid.unwrap();
    stop(&rig, stopped);
    let at = Instant::now();
    let asked = under_load(&rig, port, || rig.events("ready").len() == 5);
    let hangs = rig.wait("hangs", |_| true);
    assert_eq!(hangs.pid(), stopped);
    assert!(
        hangs.msg.contains("its queue of") && hangs.msg.contains("(--hang-timeout 1s)"),
        "{}",
        hangs.msg
    );
    assert!(at.elapsed() > Duration::from_secs(3));
    let died = rig.wait("died", |_| true);
    assert_eq!((died.pid(), died.text("reason")), (stopped, "hang"));
    let next = rig.wait("ready", |e| e.slot() == 1).pid();
    let (mut waited, mut most) = (0, Duration::ZERO);
    for (answer, took) in &asked {
        let answer = answer
            .as_ref()
            .unwrap_or_else(|e| panic!("{e} after {took:?}"));
        assert_ne!(answer.pid(), stopped);
        match answer.pid() == next {
            true => waited += usize::from(*took > Duration::from_secs(1)),
            false => most = most.max(*took),
        }
    }
    assert!(waited > 0, "nobody waited for the next one");
    assert!(most < Duration::from_secs(1), "others waited for {most:?}");
    rig.end(&["hangs", "killed", "died"]);
}

#[test]
fn a_slow_worker_with_a_queue_that_never_ends_does_not_hang() {
    let port = free_port();
    let words = format!(
        "-n 2 -p {port} --balance hash --hang-timeout 1s -- {} odd.py slow {port}",
        python()
    );
    let mut rig = Rig::dressed(words, |cmd, _| {
        cmd.env("TAKES", "0.3");
    });
    rig.up();
    // Each waits for longer than that, but somebody is served all the time.
    let clients: Vec<_> = (0..24).map(|_| ask(port)).collect();
    let took = clients.into_iter().map(|t| t.join().unwrap());
    let most = took
        .map(|(answer, took)| answer.map(|_| took).unwrap())
        .max();
    assert!(most.unwrap() > Duration::from_secs(3), "{most:?}");
    assert!(rig.events("hangs").is_empty());
    rig.end(&[]);
}

/// Connections on which one request was answered, more than there are workers.
fn kept(port: u16, count: usize) -> Vec<TcpStream> {
    let one = |_| {
        let mut stream = TcpStream::connect(v4(port)).unwrap();
        request(&mut stream);
        stream
    };
    (0..count).map(one).collect()
}

fn request(stream: &mut TcpStream) -> String {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .unwrap();
    let mut bytes = [0; 1024];
    let n = stream.read(&mut bytes).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..n]).into_owned()
}

/// Says a request on each, and waits for no answer.
fn ask_all(conns: &mut [TcpStream]) {
    for conn in conns {
        conn.set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        let _ = request(conn);
    }
}

#[test]
fn where_lanes_are_shared_one_hangs_that_reads_nothing_of_what_has_come_to_it() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} --hang-timeout 1s -- ./threaded"));
    rig.up();
    let mut conns = kept(port, 200);
    // Nothing is said for a while, as on websockets: nobody hangs.
    let begun = Instant::now();
    rig.until("they have been idle", || {
        begun.elapsed() > Duration::from_secs(3)
    });
    assert!(rig.events("hangs").is_empty());
    let pid = |text: &str| -> i32 {
        let (_, rest) = text.split_once("PID ").unwrap();
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let stopped = pid(&request(&mut conns[0]));
    stop(&rig, stopped);
    // The other one is asked all the time.
    ask_all(&mut conns);
    let hangs = rig.wait("hangs", |_| true);
    assert_eq!(hangs.pid(), stopped);
    assert!(
        hangs
            .msg
            .contains("bytes on a connection of its own unread"),
        "{}",
        hangs.msg
    );
    rig.wait("ready", |e| e.pid() != stopped);
    assert_eq!(rig.events("hangs").len(), 1);
    drop(conns);
    rig.end(&["hangs", "killed", "died"]);
}

#[test]
fn clients_that_reset_do_not_keep_a_worker_from_being_found() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} --hang-timeout 1s -- ./threaded"));
    rig.up();
    let mut conns = kept(port, 60);
    let stopped = rig.status().pids()[0];
    stop(&rig, stopped);
    ask_all(&mut conns);
    // One each 100 ms, of both workers.
    let mut last = Instant::now();
    rig.until("it is found", || {
        if last.elapsed() > Duration::from_millis(100)
            && let Some(conn) = conns.pop()
        {
            last = Instant::now();
            let at_once = libc::linger {
                l_onoff: 1,
                l_linger: 0,
            };
            setsockopt(&conn, sockopt::Linger, &at_once).unwrap();
        }
        !rig.events("hangs").is_empty()
    });
    assert!(conns.len() > 20, "none are left to wait");
    assert_eq!(rig.events("hangs")[0].pid(), stopped);
    rig.wait("ready", |e| e.pid() != stopped);
    drop(conns);
    rig.end(&["hangs", "killed", "died"]);
}

#[test]
fn where_lanes_are_shared_all_hang_that_leave_their_queue_alone_and_who_waits_is_served_by_the_next()
 {
    for n in [1, 3] {
        let port = free_port();
        let words = format!("-n {n} -p {port} --hang-timeout 1s -- ./threaded");
        let mut rig = Rig::start(words);
        rig.up();
        let stopped = rig.status().pids();
        stopped.iter().for_each(|pid| stop(&rig, *pid));
        let asked: Vec<_> = (0..8).map(|_| ask(port)).collect();
        rig.wait_many("hangs", n);
        for hangs in rig.events("hangs") {
            assert!(stopped.contains(&hangs.pid()));
            assert!(
                hangs
                    .msg
                    .contains("nobody has taken any of 8 connections in the queue that it shares")
                    && hangs.msg.contains("(--hang-timeout 1s)"),
                "{}",
                hangs.msg
            );
        }
        for answer in asked {
            let (answer, took) = answer.join().unwrap();
            let pid = answer
                .unwrap_or_else(|e| panic!("{e} after {took:?}"))
                .pid();
            assert!(!stopped.contains(&pid));
        }
        rig.wait_status("all are there", |s| s.ready == n);
        assert_eq!(rig.events("hangs").len(), n);
        rig.end(&["hangs", "killed", "died"]);
    }
}

#[test]
fn where_lanes_are_shared_one_that_works_does_not_hang_though_nobody_takes_the_queue() {
    let port = free_port();
    let words = format!(
        "-n 1 -p {port} --hang-timeout 1s -- {} odd.py slow {port}",
        python()
    );
    let mut rig = Rig::dressed(words, |cmd, _| {
        cmd.env("TAKES", "0.3");
    });
    rig.up();
    let clients: Vec<_> = (0..12).map(|_| ask(port)).collect();
    let took = clients.into_iter().map(|t| t.join().unwrap());
    let most = took
        .map(|(answer, took)| answer.map(|_| took).unwrap())
        .max();
    assert!(most.unwrap() > Duration::from_secs(2), "{most:?}");
    assert!(rig.events("hangs").is_empty());
    rig.end(&[]);
}

#[test]
fn a_canary_that_leaves_its_part_of_the_clients_waiting_fails_the_reload() {
    for balance in ["hash", "shared"] {
        let port = free_port();
        let words = format!(
            "-n 2 -p {port} --balance {balance} --canary 1:60s:50% --hang-timeout 1s -- ./threaded"
        );
        let mut rig = Rig::start(words);
        rig.up();
        let old = rig.status().pids();
        let asked = rig.meanwhile("reload");
        let canary = rig.wait("ready", |e| !old.contains(&e.pid())).pid();
        stop(&rig, canary);
        let loaded = under_load(&rig, port, || asked.is_finished());
        let said = asked.join().unwrap();
        assert_eq!(said.code, 1, "{balance}: {said:?}");
        assert!(said.err.contains("hang"), "{balance}: {said:?}");
        let hangs = rig.wait("hangs", |_| true);
        assert_eq!(hangs.pid(), canary, "{balance}: {}", hangs.msg);
        // Those of the canary waited, and are lost with it or not; the others were served by the old ones.
        let served = loaded.iter().filter_map(|(answer, _)| answer.as_ref().ok());
        assert!(served.clone().count() > loaded.len() / 3, "{balance}");
        assert!(served.clone().all(|a| old.contains(&a.pid())), "{balance}");
        assert_eq!(rig.status().pids(), old);
        rig.end(&["hangs", "killed", "died", "reload-failed", "strays-reset"]);
    }
}

#[test]
fn a_master_that_was_stopped_with_its_workers_calls_nobody_hung_for_that_time() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} --balance hash --hang-timeout 2s -- ./threaded"
    ));
    rig.up();
    let pids = rig.status().pids();
    pids.iter().for_each(|pid| stop(&rig, *pid));
    let clients: Vec<_> = (0..8).map(|_| ask(port)).collect();
    let begun = Instant::now();
    rig.until("they have waited", || {
        begun.elapsed() > Duration::from_secs(1)
    });
    rig.signal(Signal::SIGSTOP);
    rig.until("the time is over", || {
        begun.elapsed() > Duration::from_secs(5)
    });
    rig.signal(Signal::SIGCONT);
    // It has looked by then, at queues that nobody has touched.
    rig.until("it has gone on", || {
        begun.elapsed() > Duration::from_secs(6)
    });
    assert!(rig.events("hangs").is_empty());
    pids.iter().for_each(|pid| send(*pid, Signal::SIGCONT));
    assert!(clients.into_iter().all(|t| t.join().unwrap().0.is_ok()));
    rig.end(&[]);
}
