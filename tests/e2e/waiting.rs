//! Reloads while nobody is there to serve: who has come in by then waits in the queue of the port, and
//! that is the new worker's when it comes.

use crate::harness::{Rig, sigkill};
use crate::load::Load;
use crate::place::{free_port, python};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
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

fn is_answered(mut conn: TcpStream) {
    let mut answer = String::new();
    conn.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer:?}");
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
    assert_eq!(restarts.count(), 6, "{births:?}");
    rig.end(&["died", "reload-failed", "unhealthy"]);
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
        waiting.into_iter().for_each(is_answered);
        is_answered(asks(port));
        rig.end(&["died", "reload-failed"]);
    }
}
