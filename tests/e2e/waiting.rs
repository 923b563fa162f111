//! Reloads while nobody is there to serve: who has come in by then waits in the queue of the port, and
//! that is the new worker's when it comes.

use crate::harness::{Rig, Words, sigkill};
use crate::load::Load;
use crate::place::{Said, free_port, python};
use minicluster::sys::procnet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::Duration;

/// One that has asked, and waits.
fn asks(port: u16) -> TcpStream {
    let mut conn = TcpStream::connect(("127.0.0.1", port)).unwrap();
    conn.set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    conn.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .unwrap();
    conn
}

/// By whom?
fn is_answered(mut conn: TcpStream) -> u32 {
    let mut answer = String::new();
    conn.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer:?}");
    let pid = answer
        .split("PID ")
        .nth(1)
        .and_then(|s| s.split(' ').next());
    pid.unwrap().parse().unwrap()
}

fn are_answered(conns: Vec<TcpStream>) {
    for conn in conns {
        is_answered(conn);
    }
}

/// The only worker is exchanged, old before new; clients come all the time.
fn in_place(mut rig: Rig, port: u16) {
    rig.up();
    let load = Load::going(&format!("{port} clients=4"));
    for _ in 0..3 {
        assert_eq!(rig.verb("reload").code, 0);
    }
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    assert_eq!(tally.of("pids"), 4, "{tally:?}");
    // For a moment nobody is ready, as it was asked for.
    rig.end(&["unhealthy"]);
}

#[test]
fn the_only_worker_makes_room_for_its_successor_and_who_comes_meanwhile_waits_for_that() {
    let port = free_port();
    let server = format!("{} blocking.py start=100 backlog=100", python());
    in_place(
        Rig::start(format!("-n 1 -p {port} --surge 0 -- {server}")),
        port,
    );
}

#[test]
fn so_it_is_where_the_port_was_learnt() {
    let port = free_port();
    let server = "./threaded --polite 5000";
    in_place(
        Rig::start(format!("-n 1 --surge 0 -- {server} --port {port}")),
        port,
    );
}

/// With old before new who comes while there is nobody waits by the queue of the new code; if that is broken, by
/// that of the old one, whichever generation that is.
#[test]
fn who_waits_for_new_code_that_is_broken_is_served_by_the_old() {
    let port = free_port();
    let server = format!(
        "{} blocking.py start=100 broken=broken backlog=100",
        python()
    );
    let mut rig = Rig::start(format!("-n 1 -p {port} --surge 0 --canary 0 -- {server}"));
    rig.up();
    let load = Load::going(&format!("{port} clients=4"));
    let broken = rig.dir().join("broken");
    for _ in 0..3 {
        fs::write(&broken, "").unwrap();
        let told = rig.meanwhile("reload");
        rig.until("it has failed", || told.is_finished());
        assert_eq!(told.join().unwrap().code, 1);
        fs::remove_file(&broken).unwrap();
        rig.wait_status("the old code is back", |s| s.ready == 1);
        assert_eq!(rig.verb("reload").code, 0);
    }
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    let births = rig.events("forked");
    let restarts = births.iter().filter(|e| e.text("reason") == "restart");
    // (Three that were broken, three by which the old code came back, three that were well.)
    assert_eq!(restarts.count(), 9, "{births:?}");
    rig.end(&["died", "reload-failed", "unhealthy"]);
}

/// One worker, whose clients it takes some time to answer, makes room for other code: until it has answered who comes
/// waits.
fn making_room(options: &str, port: u16) -> (Rig, TcpStream, JoinHandle<Said>) {
    let server = format!("{} blocking.py {port} handler=1500 backlog=100", python());
    let mut rig = Rig::start(format!("-n 1 --surge 0 {options} -- {server}"));
    rig.up();
    let first = asks(port);
    let asked = rig.meanwhile(format!("upgrade {server} keepalive=0"));
    rig.until("the old one is emptied", || {
        !rig.events("draining").is_empty()
    });
    (rig, first, asked)
}

#[test]
fn who_waits_when_other_code_still_is_wanted_waits_for_that() {
    for learnt in [false, true] {
        let port = free_port();
        let options = if learnt { "" } else { &format!("-p {port}") };
        let (rig, first, asked) = making_room(options, port);
        let waiting: Vec<TcpStream> = (0..4).map(|_| asks(port)).collect();
        let py = python();
        let said = rig.verb(format!("upgrade {py} blocking.py {port} backlog=100"));
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(asked.join().unwrap().code, 1);
        is_answered(first);
        are_answered(waiting);
        is_answered(asks(port));
        rig.end(&["reload-failed", "unhealthy"]);
    }
}

#[test]
fn who_waits_when_it_is_called_off_waits_for_the_old_code() {
    for learnt in [false, true] {
        let port = free_port();
        let options = if learnt { "" } else { &format!("-p {port}") };
        let (rig, first, asked) = making_room(options, port);
        let waiting: Vec<TcpStream> = (0..2).map(|_| asks(port)).collect();
        assert_eq!(rig.verb("rollback").code, 0);
        assert_eq!(asked.join().unwrap().code, 1);
        is_answered(first);
        are_answered(waiting);
        is_answered(asks(port));
        assert!(!rig.verb("status --json").out.contains("keepalive=0"));
        // The lane that was left is gone, and the next one works as ever.
        assert_eq!(rig.verb("reload").code, 0);
        is_answered(asks(port));
        rig.end(&["reload-failed", "unhealthy"]);
    }
}

/// New code that listens, and takes nobody; is it called off, or does it hang before it has been watched, the old code
/// has those who wait.
#[test]
fn who_waits_for_new_code_that_takes_nobody_is_served_by_the_old() {
    let port = free_port();
    let old = format!("exec {} blocking.py backlog=100", python());
    let new = format!("LATE=1 exec {} warming.py {port}", python());
    let options = "--surge 0 --ready fd:9 --hang-timeout 1s --canary 1:60s";
    for hangs in [false, true] {
        let mut words = format!("-n 1 -p {port} {options} -- sh -c").words();
        words.push(format!("echo >&9; {old}"));
        let mut rig = Rig::start(words);
        rig.up();
        rig.until("the old one listens", || rig.events("listening").len() == 1);
        // (It was ready before.)
        rig.note_descriptors();
        let says = if hangs { "echo >&9;" } else { "" };
        let upgrade = ["upgrade", "sh", "-c"].map(String::from).to_vec();
        let asked = rig.meanwhile([upgrade, vec![format!("{says} {new}")]].concat());
        rig.until("the new one listens", || rig.events("listening").len() == 2);
        let waiting: Vec<TcpStream> = (0..3).map(|_| asks(port)).collect();
        if !hangs {
            assert_eq!(rig.verb("rollback").code, 0);
        }
        assert_eq!(asked.join().unwrap().code, 1);
        are_answered(waiting);
        rig.end(&["died", "hangs", "reload-failed", "unhealthy"]);
    }
}

/// How new code ends says nothing of the old.
#[test]
fn new_code_that_finishes_does_not_finish_the_slot_of_the_old() {
    for when in ["failure", "never"] {
        let port = free_port();
        let server = format!("{} blocking.py backlog=100", python());
        let mut rig = Rig::start(format!(
            "-n 1 -p {port} --surge 0 --respawn 20s --respawn-on {when} -- {server}"
        ));
        rig.up();
        let load = Load::going(&format!("{port} clients=2"));
        assert_eq!(rig.verb("upgrade true").code, 1);
        rig.wait_status("the old code is back", |s| s.ready == 1);
        is_answered(asks(port));
        let (well, tally) = load.finish();
        assert!(well, "{tally:?}");
        let births = rig.events("forked");
        let reasons: Vec<_> = births.iter().map(|e| e.text("reason")).collect();
        assert_eq!(reasons, ["start", "restart", "restart"]);
        rig.end(&["died", "reload-failed", "unhealthy"]);
    }
}

/// Nor does it, when it has finished before the whole is called off.
#[test]
fn a_slot_in_which_new_code_has_finished_is_the_old_code_s_when_that_is_called_off() {
    let port = free_port();
    let options = "--surge 0 --canary 0 --ready started --respawn-on failure --drain-timeout 2s";
    let server = format!("{} blocking.py handler=500 threads=1 backlog=100", python());
    let mut rig = Rig::start(format!("-n 2 -p {port} {options} -- {server}"));
    rig.up();
    rig.until("they listen", || rig.events("listening").len() == 2);
    // (They were ready before.)
    rig.note_descriptors();
    let load = Load::going(&format!("{port} clients=2"));
    let asked = rig.meanwhile("upgrade true");
    // The other one has clients, and takes its time to go.
    rig.until(
        "the new code has finished, and the next slot has its turn",
        || rig.events("draining").len() == 2,
    );
    assert_eq!(rig.verb("rollback").code, 0);
    assert_eq!(asked.join().unwrap().code, 1);
    rig.wait_status("both are back", |s| s.ready == 2 && s.beside.is_empty());
    // (It was ready as soon as it had started: who came to it before it ended is lost.)
    let (_, tally) = load.finish();
    assert_eq!(tally.of("refused") + tally.of("timeout"), 0, "{tally:?}");
    is_answered(asks(port));
    // (The first to go shares its queue, and may have clients to the end of its time.)
    rig.end(&[
        "died",
        "drained",
        "reload-failed",
        "strays-reset",
        "unhealthy",
    ]);
}

/// A port that only new code has had goes with it.
#[test]
fn a_port_of_code_that_has_failed_is_not_left_open() {
    for dies in [true, false] {
        let (port, other) = (free_port(), free_port());
        let server = |port: u16| format!("{} blocking.py {port} backlog=100", python());
        let options = "-n 1 --surge 0 --canary 1:60s";
        let mut rig = Rig::start(format!("{options} -- {}", server(port)));
        rig.up();
        let asked = rig.meanwhile(format!("upgrade {}", server(other)));
        rig.until("the new one is ready", || rig.events("ready").len() == 2);
        match dies {
            true => sigkill(rig.status().pids()[0]),
            false => assert_eq!(rig.verb("rollback").code, 0),
        }
        assert_eq!(asked.join().unwrap().code, 1);
        rig.until("the port is closed", || {
            procnet::listeners().iter().all(|(a, _)| a.port() != other)
        });
        is_answered(asks(port));
        rig.end(&["died", "reload-failed", "unhealthy"]);
    }
}

/// The worker crashes, and its code is broken: the next one of it is some time away.
fn crashed(options: &str, port: u16) -> Rig {
    let server = format!("{} blocking.py broken=broken backlog=100", python());
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --respawn 20s --backoff 30s {options} -- {server}"
    ));
    rig.up();
    fs::write(rig.dir().join("broken"), "").unwrap();
    sigkill(rig.status().pids()[0]);
    rig.wait_status("its slot waits", |s| s.pids().is_empty());
    rig
}

#[test]
fn who_waits_while_nothing_runs_is_served_by_the_code_that_a_reload_brings() {
    for options in ["", "--surge 0"] {
        let port = free_port();
        let rig = crashed(options, port);
        let waiting: Vec<TcpStream> = (0..5).map(|_| asks(port)).collect();
        // It is broken still: whoever waits goes on waiting.
        let said = rig.verb("reload");
        assert_eq!(said.code, 1, "{said:?}");
        fs::remove_file(rig.dir().join("broken")).unwrap();
        let said = rig.verb("reload");
        assert_eq!(said.code, 0, "{said:?}");
        are_answered(waiting);
        is_answered(asks(port));
        rig.end(&["died", "reload-failed"]);
    }
}
