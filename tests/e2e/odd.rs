//! Programs that do with their sockets what few do: what was set on a socket before bind(2) and
//! decides whom it serves is kept, or it is said that it is not; and who only connects is left alone.

use crate::client::{all_answer, get, v4};
use crate::harness::Rig;
use crate::place::{free_port, python};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

fn odd(options: &str, habit: &str) -> Rig {
    let words = format!("{options} -- {} odd.py {habit}", python());
    Rig::dressed(words, |cmd, _| {
        cmd.env("DEVICE", "lo");
    })
}

#[test]
fn a_program_that_is_being_started_meanwhile_does_not_count_as_another() {
    let port = free_port();
    let mut rig = odd(&format!("-n 2 -p {port}"), &format!("forking {port}"));
    rig.up();
    all_answer(&rig, v4(port), "/", 2);
    assert!(rig.tales("bind-failed").is_empty());
    rig.end(&[]);
}

#[test]
fn a_learnt_port_stays_on_the_interface_that_was_asked_for() {
    let port = free_port();
    let mut rig = odd("-n 3", &format!("device {port}"));
    rig.up();
    all_answer(&rig, v4(port), "/", 3);
    assert_eq!(get(v4(port), "/").unwrap().line("device"), "lo");
    rig.end(&[]);
}

#[test]
fn a_given_port_is_on_every_interface_and_that_is_said() {
    let port = free_port();
    let mut rig = odd(&format!("-n 2 -p {port}"), &format!("device {port}"));
    let said = rig.wait("address-device", |_| true);
    assert!(said.msg.contains("the interface lo alone"), "{}", said.msg);
    rig.up();
    all_answer(&rig, v4(port), "/", 2);
    assert_eq!(get(v4(port), "/").unwrap().line("device"), "-");
    assert_eq!(rig.events("address-device").len(), 1);
    rig.end(&["address-device"]);
}

#[test]
fn an_address_that_is_not_there_yet_can_be_learnt() {
    let port = free_port();
    let mut rig = odd("-n 2", &format!("freebind {port}"));
    rig.up();
    assert_eq!(rig.tales("listening").len(), 2);
    assert_eq!(rig.status().ports, [format!("198.51.100.7:{port}")]);
    rig.end(&[]);
}

/// What comes over one connection, up to its end.
fn heard(mut conn: TcpStream) -> String {
    conn.set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut text = Vec::new();
    let mut buf = [0; 256];
    while let Ok(n @ 1..) = conn.read(&mut buf) {
        text.extend(&buf[..n]);
    }
    conn.write_all(b"bye").unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_client_that_binds_the_port_it_connects_from_is_left_alone() {
    let sink = TcpListener::bind("127.0.0.1:0").unwrap();
    let to = sink.local_addr().unwrap().port();
    let from = free_port();
    let mut rig = odd("-n 2", &format!("connects {from} {to}"));
    let mut lines = Vec::new();
    for _ in 0..5 {
        // Never the words of two workers on one connection; and each ends when its worker ends it.
        let (conn, peer) = sink.accept().unwrap();
        assert_eq!(peer.port(), from);
        lines.push(heard(conn));
    }
    for line in &lines {
        assert!(
            ["slot 0\n", "slot 1\n"].contains(&line.as_str()),
            "{lines:?}"
        );
    }
    let said = rig.wait("port-connects", |_| true);
    assert!(said.msg.contains("left to that worker"), "{}", said.msg);
    assert_eq!(rig.events("port-connects").len(), 1, "said once");
    // They are not servers, and count as ready when they have lived.
    rig.wait("all-ready", |_| true);
    assert!(rig.status().ports.is_empty());
    rig.end(&["port-connects"]);
}

#[test]
fn one_that_forks_and_ends_all_the_time_does_not_outlive_the_stop() {
    let port = free_port();
    for _ in 0..3 {
        let options = format!("-n 1 -p {port} --stop-timeout 500ms");
        let mut rig = odd(&options, &format!("comet {port}"));
        rig.up();
        rig.told("comet");
        rig.signal(nix::sys::signal::Signal::SIGTERM);
        let left = rig.wait("leftovers", |e| e.level == "warn");
        assert!(left.msg.contains("killing"), "{}", left.msg);
        rig.finish(0, &["leftovers"]);
    }
}
