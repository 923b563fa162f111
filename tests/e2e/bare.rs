//! Servers without a master: that those which other stories rely on do to their clients what they are
//! there for. A reload that loses nothing of a crude server proves something only if it is crude.

use crate::load::{Load, Tally};
use crate::place::{LOOK, Place, free_port, python, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A server, alone.
struct Bare {
    child: Child,
    place: Place,
}

impl Bare {
    /// Starts it; returns when it listens.
    fn listening(words: &str) -> Bare {
        let place = Place::new();
        let mut all = words.split_whitespace();
        let child = Command::new(all.next().unwrap())
            .args(all)
            .current_dir(&place.dir)
            .env("SAY", place.dir.join("said"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let server = Bare { child, place };
        server.told("listening");
        server
    }

    fn told(&self, event: &str) {
        let give_up = Instant::now() + Duration::from_secs(20);
        let said = || fs::read_to_string(self.place.dir.join("said")).unwrap_or_default();
        while !said().lines().any(|l| l.starts_with(event)) {
            assert!(Instant::now() < give_up, "no '{event}' in '{}'", said());
            thread::sleep(LOOK);
        }
    }

    fn terminate(&self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
    }

    fn ended(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// None of these.
fn none(tally: &Tally, names: &[&str]) {
    for name in names {
        assert_eq!(tally.of(name), 0, "{name} in {tally:?}");
    }
}

#[test]
fn a_polite_server_loses_no_kept_connection() {
    let port = free_port();
    let server = Bare::listening(&format!("./threaded --port {port} --polite 5000"));
    let load = Load::going(&format!("{port} mode=keepalive pause=20 clients=4"));
    server.terminate();
    assert!(server.ended().success());
    let (_, tally) = load.finish();
    // Nobody listens afterwards, and there is no master to do it.
    none(&tally, &["reused", "half", "fresh", "timeout", "status"]);
    assert_eq!(tally.of("polite"), 4, "{tally:?}");
}

#[test]
fn a_crude_server_dies_in_the_middle_of_a_request() {
    let port = free_port();
    let words = format!("{} blocking.py {port} handler=10000 start=1", python());
    let server = Bare::listening(&words);
    let mut load = Load::start(&format!("{port} clients=1"));
    server.told("request");
    server.terminate();
    assert!(!server.ended().success());
    load.until("it is lost", |t| t.of("fresh") == 1);
}

#[test]
fn a_version_that_is_broken_or_mute_never_listens() {
    let port = free_port();
    let place = Place::new();
    fs::write(place.dir.join("new"), "").unwrap();
    let mut cmd = Command::new(python());
    cmd.args(["blocking.py", &port.to_string(), "broken=new"])
        .current_dir(&place.dir);
    let said = run(cmd, Instant::now() + Duration::from_secs(20));
    assert_eq!(said.code, 3, "{said:?}");

    let mute = Command::new(python())
        .args(["blocking.py", &port.to_string(), "mute=new"])
        .current_dir(&place.dir)
        .env("SAY", place.dir.join("said"))
        .spawn();
    let server = Bare {
        child: mute.unwrap(),
        place,
    };
    server.told("mute");
    let mut load = Load::start(&format!("{port} clients=1"));
    load.until("nobody is there", |t| t.of("refused") > 0);
}

#[test]
fn a_server_that_hushes_its_socket_has_nobody_listening_before_it_ends() {
    let port = free_port();
    let server = Bare::listening(&format!("./threaded --port {port} --hush"));
    let kept = Load::going(&format!("{port} mode=keepalive clients=1"));
    server.terminate();
    server.told("hushed");
    let mut load = Load::start(&format!("{port} clients=1"));
    load.until("it is refused", |t| t.of("refused") > 0);
    none(&load.so_far(), &["fresh_ok"]);
    assert!(server.ended().success());
    drop(kept);
}

#[test]
fn streams_are_whole_or_said_to_be_cut() {
    let port = free_port();
    let server = Bare::listening(&format!("node selecting.js {port}"));
    let streams = |seconds: &str| {
        let mut cmd = Command::new(python());
        cmd.args(["streams.py", &port.to_string(), seconds])
            .current_dir(&server.place.dir);
        cmd
    };
    let patience = Duration::from_secs(30);
    let said = run(streams("1.5"), Instant::now() + patience);
    assert_eq!(said.code, 0, "{said:?}");
    for kind in ["slow", "stream-300", "stream-1500", "sse", "ws"] {
        let line = said.out.lines().find(|l| l.starts_with(kind)).unwrap();
        assert!(line.contains("cut=0 lost=0 refused=0"), "{said:?}");
        assert!(!line.contains("whole=0"), "{said:?}");
    }

    let before = fs::read_to_string(server.place.dir.join("said")).unwrap();
    let cmd = streams("1.5");
    let (so_many, deadline) = (before.lines().count() + 5, Instant::now() + patience);
    let clients = thread::spawn(move || run(cmd, deadline));
    // Four requests and a websocket are under way again.
    let said = || fs::read_to_string(server.place.dir.join("said")).unwrap();
    while said().lines().count() < so_many {
        assert!(Instant::now() < deadline, "{}", said());
        thread::sleep(LOOK);
    }
    server.terminate();
    let said = clients.join().unwrap();
    assert_eq!(said.code, 1, "{said:?}");
    // One that had not begun when the server died is lost, not cut.
    for kind in ["slow", "stream-300", "stream-1500"] {
        let came = |how: &str| said.out.contains(&format!("{kind} {how} after"));
        assert!(came("lost") || came("cut"), "{kind} in {said:?}");
    }
}
