//! Three reloads one after the other, under clients that open a connection for each request: whatever
//! the socket and however the server comes by it, none of them notices. Most servers here know nothing
//! of it: one thread, one connection at a time, dead at once by SIGTERM.

use crate::birth;
use crate::harness::Rig;
use crate::load::Load;
use crate::place::{free_port, free_ports, python};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};

/// Exchanges them three times under these clients, each by the words that `load` takes.
fn unnoticed(mut rig: Rig, clients: &[&str]) {
    rig.up();
    exchanged(&mut rig, clients);
    rig.end(&[]);
}

fn exchanged(rig: &mut Rig, clients: &[&str]) {
    let loads: Vec<Load> = clients.iter().map(|words| Load::going(words)).collect();
    for _ in 0..3 {
        let said = rig.verb("reload");
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(rig.status().ready, 2);
    }
    for load in loads {
        let (well, tally) = load.finish();
        assert!(well, "{tally:?}");
        // Those of the first generation, and some of the later ones.
        assert!(tally.of("pids") > 3, "{tally:?}");
    }
}

/// What was passed to us stays open beside the first lane of our own, and only that is one more.
fn passed(mut rig: Rig, clients: &str) {
    assert_eq!(rig.verb("reload").code, 0);
    rig.note_descriptors();
    exchanged(&mut rig, &[clients]);
    // Every other reload leaves a spare for the next one: this one takes it.
    assert_eq!(rig.verb("reload").code, 0);
    rig.end(&[]);
}

fn blocking(options: &str, words: &str) -> Rig {
    let server = format!("{} blocking.py", python());
    Rig::start(format!("-n 2 {options} -- {server} {words}"))
}

#[test]
fn of_a_given_port() {
    let port = free_port();
    unnoticed(blocking(&format!("-p {port}"), ""), &[&port.to_string()]);
}

#[test]
fn of_a_given_port_of_ipv6_alone() {
    let port = free_port();
    let rig = blocking(&format!("-p {port} -H ::1"), "v6=1");
    unnoticed(rig, &[&format!("[::1]:{port}")]);
}

#[test]
fn of_both_families_at_once() {
    let port = free_port();
    let rig = blocking(&format!("-p {port} -H ::"), "v6=1");
    let (v4, v6) = (format!("{port} clients=4"), format!("-6 {port} clients=4"));
    unnoticed(rig, &[&v4, &v6]);
}

#[test]
fn of_a_port_that_was_learnt() {
    let port = free_port();
    unnoticed(blocking("", &port.to_string()), &[&port.to_string()]);
}

#[test]
fn of_a_port_that_was_learnt_by_another_number() {
    let (theirs, ours) = (free_port(), free_port());
    let rig = blocking(&format!("--takeover {theirs}={ours}"), &theirs.to_string());
    unnoticed(rig, &[&ours.to_string()]);
}

#[test]
fn of_two_ports_at_once() {
    let first = free_ports(2);
    let second = first + 1;
    let rig = Rig::start(format!(
        "-n 2 -p {first} -p {second} -- ./threaded --two-ports {first} {second}"
    ));
    let clients = [first, second].map(|p| format!("{p} clients=4"));
    unnoticed(rig, &[&clients[0], &clients[1]]);
}

#[test]
fn of_a_unix_socket() {
    let server = format!("{} blocking.py", python());
    let words = format!("-n 2 -l unix:a.sock -- {server} unix:a.sock");
    let mut rig = Rig::start(words);
    rig.up();
    let path = rig.dir().join("a.sock");
    exchanged(&mut rig, &[&format!("unix:{}", path.display())]);
    let hidden = || {
        let names = std::fs::read_dir(rig.dir()).unwrap().flatten();
        let names = names.map(|e| e.file_name().to_string_lossy().into_owned());
        names.filter(|n| n.starts_with(".a.sock")).count()
    };
    // The one that has the name has a second one, whatever has gone before.
    assert_eq!(hidden(), 1);
    rig.end(&[]);
}

#[test]
fn of_sockets_that_are_handed_over() {
    let port = free_port();
    let server = format!("{} sockets.py passed", python());
    let words = format!("-n 2 -p {port} -l unix:b.sock --takeover off -- {server}");
    let mut rig = Rig::start(words);
    rig.up();
    exchanged(&mut rig, &[&port.to_string()]);
    rig.end(&[]);
}

#[test]
fn of_a_descriptor_that_somebody_has_opened() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let words = format!("-n 2 -l fd:7 -- {} blocking.py {port}", python());
    let mut rig = Rig::dressed(words, |cmd, _| birth::passing(cmd, &listener, 7));
    drop(listener);
    rig.wait("all-ready", |_| true);
    passed(rig, &port.to_string());
}

#[test]
fn of_a_unix_socket_that_somebody_has_opened_and_finds_at_its_path_in_the_end() {
    let server = format!("{} blocking.py", python());
    let mut opened = None;
    let words = format!("-n 2 -l fd:7 -- {server} unix:a.sock");
    let mut rig = Rig::dressed(words, |cmd, dir| {
        let listener = UnixListener::bind(dir.join("a.sock")).unwrap();
        birth::passing(cmd, &listener, 7);
        opened = Some((dir.join("a.sock"), listener));
    });
    let (path, listener) = opened.unwrap();
    rig.wait("all-ready", |_| true);
    let inode = fs::metadata(&path).unwrap().ino();
    exchanged(&mut rig, &[&format!("unix:{}", path.display())]);
    assert_ne!(fs::metadata(&path).unwrap().ino(), inode);
    assert_eq!(rig.verb("stop").code, 0);
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    // Whoever comes now is its own again.
    let _client = UnixStream::connect(&path).unwrap();
    listener.accept().unwrap();
    let left = fs::read_dir(path.parent().unwrap()).unwrap();
    let left: Vec<String> = left
        .map(|f| f.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("a.sock"))
        .collect();
    assert_eq!(left, ["a.sock"]);
    rig.finish(0, &[]);
}

#[test]
fn of_a_socket_of_systemd() {
    let port = free_port();
    let mut tool = vec!["systemd-socket-activate", "-l"];
    let addr = format!("0.0.0.0:{port}");
    tool.push(&addr);
    for name in ["E2E_MARK", "SAY", "RUNTIME_DIRECTORY", "TMPDIR"] {
        tool.extend(["-E", name]);
    }
    let words = format!("-n 2 -- {} blocking.py", python());
    let mut rig = Rig::by(tool.join(" "), words);
    rig.wait_line("Listening on");
    // It waits for a first client.
    let first = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    rig.wait("all-ready", |_| true);
    drop(first);
    passed(rig, &port.to_string());
}

#[test]
fn of_a_server_that_is_woken_by_the_first_byte_alone() {
    let port = free_port();
    let rig = blocking(&format!("-p {port}"), "defer=5");
    unnoticed(rig, &[&port.to_string()]);
}

#[test]
fn of_clients_that_keep_their_connections() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --drain-timeout 4s --drain-quiet 500ms -- ./threaded");
    let keep = format!("{port} mode=keepalive pause=20 clients=4");
    let often = format!("{port} mode=keepalive max=5 clients=2");
    unnoticed(Rig::start(words), &[&keep, &often]);
}
