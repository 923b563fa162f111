//! "When it answers": workers that are asked whether they are ready, by a way that nobody else has.

use crate::client::{Answer, all_answer, get, v4};
use crate::harness::{Rig, sigkill};
use crate::hung::stop;
use crate::load::Load;
use crate::place::{free_port, python};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

fn warming(options: &str, port: u16, variables: &[(&str, &str)]) -> Rig {
    let words = format!("-p {port} {options} -- {} warming.py {port}", python());
    let variables: Vec<(String, String)> = variables
        .iter()
        .map(|(k, v)| (k.to_string(), v.to_string()))
        .collect();
    Rig::dressed(words, |cmd, _| {
        cmd.envs(variables);
    })
}

/// It is warm from now on.
fn go(rig: &Rig, generation: u32) {
    fs::write(rig.dir().join(format!("go-{generation}")), "").unwrap();
}

/// Clients that come all the time, whatever becomes of them: those that were answered.
fn crowd(port: u16, over: &Arc<AtomicBool>) -> Vec<JoinHandle<Vec<Answer>>> {
    let one = |_| {
        let over = over.clone();
        thread::spawn(move || {
            let mut answers = Vec::new();
            while !over.load(Ordering::Relaxed) {
                answers.extend(get(v4(port), "/"));
                thread::sleep(Duration::from_millis(2));
            }
            answers
        })
    };
    (0..6).map(one).collect()
}

fn answered(crowd: Vec<JoinHandle<Vec<Answer>>>, over: &AtomicBool) -> usize {
    over.store(true, Ordering::Relaxed);
    crowd.into_iter().map(|t| t.join().unwrap().len()).sum()
}

#[test]
fn a_worker_is_ready_when_it_answers_well_and_has_no_other_client_before() {
    let port = free_port();
    let mut rig = warming("-n 3 --ready http:/health", port, &[]);
    rig.wait_many("listening", 3);
    let over = Arc::new(AtomicBool::new(false));
    let clients = crowd(port, &over);
    rig.until("each was asked some times", || {
        rig.tales("asked").len() >= 9
    });
    assert_eq!(rig.status().ready, 0);
    go(&rig, 1);
    rig.up();
    rig.until("all are asked", || get(v4(port), "/").is_ok());
    assert!(answered(clients, &over) > 0);
    assert!(rig.tales("early").is_empty());
    all_answer(&rig, v4(port), "/", 3);
    rig.end(&[]);
}

#[test]
fn new_workers_that_are_not_well_yet_leave_the_clients_to_the_old_ones() {
    let port = free_port();
    let mut rig = warming("-n 2 --ready http:/health", port, &[]);
    go(&rig, 1);
    rig.up();
    let load = Load::going(&format!("{port} clients=8"));
    let reload = rig.meanwhile("reload");
    let asked = rig.tales("asked").len();
    rig.until("the new ones were asked", || {
        rig.tales("asked").len() >= asked + 6
    });
    assert_eq!(rig.status().ready, 2);
    go(&rig, 2);
    assert_eq!(reload.join().unwrap().code, 0);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    assert!(rig.tales("early").is_empty());
    rig.end(&[]);
}

#[test]
fn a_worker_that_is_asked_to_accept_is_ready_when_it_has() {
    let port = free_port();
    let mut rig = warming("-n 2 --ready tcp", port, &[("LATE", "1")]);
    rig.wait_many("listening", 2);
    let over = Arc::new(AtomicBool::new(false));
    let clients = crowd(port, &over);
    let begun = Instant::now();
    rig.until("they were asked", || {
        begun.elapsed() > Duration::from_millis(1500)
    });
    assert_eq!(rig.status().ready, 0);
    go(&rig, 1);
    rig.up();
    all_answer(&rig, v4(port), "/", 2);
    answered(clients, &over);
    rig.end(&[]);
}

#[test]
fn what_was_asked_of_one_that_accepts_nobody_is_no_client_that_is_waited_for() {
    // (Nobody would wait for that long.)
    let options = "-n 2 --ready-timeout 60s --start-timeout 5s --drain-timeout 10m";
    for rule in ["tcp", "http:/health"] {
        let options = format!("{options} --ready {rule}");
        let mut rig = warming(&options, free_port(), &[("LATE", "1")]);
        let told = rig.wait("never-ready", |_| true);
        assert!(!told.msg.contains("never listened"), "{}", told.msg);
        rig.finish(69, &["never-ready"]);
    }
}

#[test]
fn a_client_that_waits_beside_what_was_asked_is_waited_for() {
    let port = free_port();
    let mut rig = warming("-n 1 --ready tcp", port, &[("LATE", "1")]);
    go(&rig, 1);
    rig.up();
    // It waits in the queue of one that ends, and that its successor has from then on.
    let old = rig.status().pids()[0];
    stop(&rig, old);
    let mut client = TcpStream::connect(v4(port)).unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    fs::remove_file(rig.dir().join("go-1")).unwrap();
    sigkill(old);
    rig.wait("listening", |e| e.pid() != old);
    let begun = Instant::now();
    rig.until("it has been asked, in vain", || {
        begun.elapsed() > Duration::from_millis(2500)
    });
    rig.signal(Signal::SIGTERM);
    rig.wait("stopping", |_| true);
    // As long as it takes it to see that nobody else is there.
    let begun = Instant::now();
    rig.until("it was looked at", || {
        begun.elapsed() > Duration::from_secs(1)
    });
    go(&rig, 1);
    let mut said = String::new();
    client.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 200 "), "{said:?}");
    rig.finish(0, &["died"]);
}

#[test]
fn on_a_port_of_both_families_it_is_asked_too() {
    let port = free_port();
    for rule in ["http:/health", "tcp"] {
        let options = format!("-n 2 -H :: --balance ip --ready {rule}");
        let mut rig = warming(&options, port, &[("V6", "1")]);
        go(&rig, 1);
        rig.up();
        assert_eq!(get(crate::client::v6(port), "/").unwrap().status, 200);
        assert_eq!(get(v4(port), "/").unwrap().status, 200);
        rig.end(&[]);
    }
}

#[test]
fn what_was_answered_last_is_told_of_one_that_never_gets_ready() {
    for (rule, variables, hint) in [
        ("http:/health", &[][..], "GET /health answered 503"),
        (
            "tcp",
            &[("LATE", "1")][..],
            "no connection was accepted within",
        ),
    ] {
        let port = free_port();
        let options = format!("-n 1 --ready {rule} --ready-timeout 5s");
        let mut rig = warming(&options, port, variables);
        let said = rig.wait("not-ready", |_| true);
        assert!(said.msg.contains(hint), "{}", said.msg);
        rig.signal(nix::sys::signal::Signal::SIGTERM);
        rig.finish(0, &["not-ready", "died", "killed"]);
    }
}

#[test]
fn where_others_could_answer_it_is_refused() {
    for (words, hint) in [
        ("-p 3000 --balance shared --ready tcp", "--balance hash"),
        ("-p 3000 --ready http:health", "as http:/health"),
        ("-l unix:a.sock --ready http:/", "ask by a port of TCP"),
    ] {
        let place = crate::place::Place::new();
        let mut cmd = place.command();
        cmd.args(words.split(' ')).args(["--", "sleep", "9"]);
        let said = crate::place::run(cmd, Instant::now() + Duration::from_secs(20));
        assert_eq!(said.code, 64, "{said:?}");
        assert!(said.err.contains(hint), "{said:?}");
    }
}
