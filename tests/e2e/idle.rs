//! "A connection on which nothing has come or gone for that long ends": --idle-timeout, from outside, whatever
//! the server; and what is said where that cannot work.

use crate::client::{v4, v6};
use crate::harness::{Rig, Words};
use crate::place::{Place, free_port, python, refusing, run};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(1);
/// The kernel counts in ticks.
const TICK: Duration = Duration::from_millis(10);

/// A client, and when it or its server has said something last, at the latest.
struct Client {
    stream: TcpStream,
    last: Instant,
}

impl Client {
    fn come(to: SocketAddr) -> Client {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_nonblocking(true).unwrap();
        let last = Instant::now();
        Client { stream, last }
    }

    /// Asks, and has the whole answer.
    fn ask(&mut self) -> String {
        self.last = Instant::now();
        let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        self.stream.write_all(request).unwrap();
        let (mut text, mut room) = (String::new(), [0; 4096]);
        while !text
            .split("\r\n\r\n")
            .nth(1)
            .is_some_and(|b| b.ends_with('\n'))
        {
            self.wait();
            let n = self.stream.read(&mut room).unwrap();
            assert!(n > 0, "it has ended: {text:?}");
            text.push_str(std::str::from_utf8(&room[..n]).unwrap());
        }
        text
    }

    fn wait(&self) {
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(20_000u16)), Ok(1));
    }

    /// Waits for the end, which has to be one, and no reset; tells how long after the last word.
    fn end(&mut self) -> Duration {
        self.wait();
        let end = self.stream.read(&mut [0; 16]);
        assert!(matches!(end, Ok(0)), "{end:?}");
        self.last.elapsed()
    }

    fn is_open(&mut self) -> bool {
        let read = self.stream.read(&mut [0; 16]);
        matches!(read, Err(e) if e.kind() == ErrorKind::WouldBlock)
    }
}

/// Of those that come half ask once, and the others never; some that ask all the time are there, too.
fn silent_ones_end(mut rig: Rig, to: SocketAddr, allowed: &[&str]) {
    rig.wait("all-ready", |_| true);
    let mut active: Vec<Client> = (0..4).map(|_| Client::come(to)).collect();
    let mut silent: Vec<Client> = (0..40).map(|_| Client::come(to)).collect();
    for client in silent.iter_mut().step_by(2) {
        client.ask();
    }
    let told = |rig: &Rig| -> f64 {
        let all = rig.events("connection-timeout");
        all.iter().map(|e| e.number("connections")).sum()
    };
    rig.until("all have ended", || {
        for client in &mut active {
            assert!(client.ask().starts_with("HTTP/1.1 200"));
        }
        told(&rig) == 40.0
    });
    for client in &mut silent {
        let after = client.end();
        assert!(after + TICK >= LIMIT, "it has ended after {after:?}");
    }
    let one = rig.wait("connection-timeout", |_| true);
    assert_eq!(one.number("limit"), 1.0);
    assert!(
        one.msg.ends_with("without a byte for 1s (--idle-timeout)"),
        "{}",
        one.msg
    );
    assert!(active.iter_mut().all(Client::is_open));
    drop(active);
    rig.end(allowed);
}

#[test]
fn silent_connections_of_a_node_server_end_and_those_that_speak_do_not() {
    let port = free_port();
    let rig = Rig::start(format!(
        "-n 2 -p {port} --idle-timeout 1s -- node selecting.js"
    ));
    silent_ones_end(rig, v4(port), &[]);
}

#[test]
fn so_do_those_of_threads_that_wait_in_read_over_ipv6_behind_a_shell() {
    let port = free_port();
    let words = ["sh", "-c", "./threaded; exit $?"].map(String::from);
    let start = format!("-n 2 -H :: -p {port} --balance hash --idle-timeout 1s --");
    let mut all: Vec<String> = start.split(' ').map(String::from).collect();
    all.extend(words);
    let rig = Rig::start(all);
    silent_ones_end(rig, v6(port), &["address-family"]);
}

#[test]
fn so_do_those_of_workers_of_another_user() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --user nobody --idle-timeout 1s -- ./threaded");
    let rig = Rig::over_nobody("", words, |_, _| {});
    silent_ones_end(rig, v4(port), &[]);
}

#[test]
fn a_request_whose_answer_takes_longer_without_a_byte_is_ended_too_and_an_answer_in_parts_is_not() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --idle-timeout 1s -- node selecting.js"
    ));
    rig.wait("all-ready", |_| true);
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(v4(port)).unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let (mut slow, mut parts) = (ask("/slow?ms=30000"), ask("/stream?n=8&ms=300"));
    let mut text = String::new();
    parts.read_to_string(&mut text).unwrap();
    assert!(
        text.contains("line 1\n") && text.contains("end\n"),
        "{text}"
    );
    text.clear();
    slow.read_to_string(&mut text).unwrap();
    assert_eq!(text, "");
    assert_eq!(rig.wait_many("connection-timeout", 1).len(), 1);
    rig.end(&[]);
}

#[test]
fn where_connections_cannot_be_ended_from_outside_it_is_said_at_the_start_and_what_to_add() {
    let port = free_port();
    let by = format!("{} pidfd_getfd", refusing().display());
    let words = format!("-n 1 -p {port} --idle-timeout 300ms -- ./threaded");
    let mut rig = Rig::by(by, words);
    let said = rig.wait("idle-hands-off", |_| true).msg;
    rig.wait("all-ready", |_| true);
    assert!(said.contains("--idle-timeout has no effect"), "{said}");
    assert!(
        said.contains("(pidfd_getfd: Operation not permitted)"),
        "{said}"
    );
    // As root it has that right: then it is not that which is lacking.
    assert!(said.contains("CAP_SYS_PTRACE"), "{said}");
    assert!(said.contains("--keepalive and --user-timeout"), "{said}");
    let mut silent = Client::come(v4(port));
    silent.ask();
    assert_eq!(rig.verb("reload").code, 0);
    assert!(rig.events("connection-timeout").is_empty());
    rig.end(&["idle-hands-off", "drain-hands-off"]);
}

#[test]
fn of_unix_sockets_the_kernel_tells_no_idle_times_and_that_is_said() {
    let place = Place::new();
    let mut cmd = place.command();
    cmd.args("-l unix:a.sock --idle-timeout 1s -- ./threaded".words());
    let said = run(cmd, Instant::now() + Duration::from_secs(20));
    assert_eq!(said.code, 64);
    assert!(
        said.err.contains(
            "--idle-timeout needs a port of TCP: the kernel tells no idle times of unix sockets"
        ),
        "{}",
        said.err
    );
    let port = free_port();
    let words = format!(
        "-n 1 -p {port} -l unix:b.sock --idle-timeout 1s -- {} sockets.py passed",
        python()
    );
    let mut rig = Rig::start(words);
    let said = rig.wait("idle-unix", |_| true).msg;
    assert!(said.contains("ends connections of TCP alone"), "{said}");
    rig.end(&["idle-unix"]);
}
