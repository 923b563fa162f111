//! The heavier servers: a JVM, Go, Ruby, unmodified. `make test-servers` runs these; the packages
//! they need are listed in scripts/packages.servers.

use crate::client::{all_answer, get, v4};
use crate::harness::Rig;
use crate::place::free_port;
use std::path::Path;
use std::process::Command;

/// Four copies, on a given port and on their own, answer; one is killed and replaced.
fn four_serve(words: impl Fn(&str) -> String, prepare: impl Fn(&Path), allowed: &[&str]) {
    for given in [true, false] {
        let port = free_port();
        let options = match given {
            true => format!("-n 4 -p {port}"),
            false => format!("-n 4 --env PORT={port}"),
        };
        let mut rig = Rig::dressed(words(&options), |_, dir| prepare(dir));
        rig.wait("all-ready", |_| true);
        rig.until("it answers", || get(v4(port), "/").is_ok());
        all_answer(&rig, v4(port), "/", 4);
        let status = rig.wait_status("4 are ready", |s| s.ready == 4);
        assert_eq!(status.takeover, "on");
        rig.note_descriptors();
        rig.replace(status.pids()[0]);
        all_answer(&rig, v4(port), "/", 4);
        rig.end(&[&["died"], allowed].concat());
    }
}

fn build(cmd: &mut Command) {
    let done = cmd.output().unwrap();
    assert!(done.status.success(), "{cmd:?}: {done:?}");
}

#[test]
#[ignore = "needs a JDK: make test-servers"]
fn heavy_jvm() {
    // Small heaps: the copies share the machine with other tests.
    let words = |options: &str| format!("{options} -- java -Xmx64m -cp . Server");
    let compile = |dir: &Path| {
        let mut javac = Command::new("javac");
        build(
            javac
                .current_dir(dir)
                .args(["-d", ".", "heavy/Server.java"]),
        );
    };
    // A JVM binds a blocking socket and sets O_NONBLOCK afterwards, so the second one asks for a
    // blocking socket where the first has made ours non-blocking; that is said, and harmless here.
    four_serve(words, compile, &["lane-nonblocking"]);
}

#[test]
#[ignore = "needs Go: make test-servers"]
fn heavy_go() {
    let words = |options: &str| format!("{options} -- ./server-go");
    let compile = |dir: &Path| {
        let cache = concat!(env!("CARGO_TARGET_TMPDIR"), "/go");
        let mut go = Command::new("go");
        go.current_dir(dir).env("GOCACHE", cache);
        build(go.args(["build", "-o", "server-go", "heavy/server.go"]));
    };
    four_serve(words, compile, &[]);
}

#[test]
#[ignore = "needs Ruby: make test-servers"]
fn heavy_ruby() {
    let words = |options: &str| format!("{options} -- ruby heavy/server.rb");
    four_serve(words, |_| {}, &[]);
}

/// Two copies serve what was given, by descriptor; one is killed and replaced.
fn two_serve_what_they_are_passed(options: &str, command: &str) {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} {options} -- {command}"));
    rig.up();
    all_answer(&rig, v4(port), "/", 2);
    let pid = rig.status().pids()[0];
    rig.replace(pid);
    all_answer(&rig, v4(port), "/", 2);
    rig.end(&["died"]);
}

#[test]
#[ignore = "needs gunicorn: make test-servers"]
fn heavy_gunicorn_is_ready_when_it_tells_systemd_so_and_serves_listen_fds() {
    let command = "gunicorn --chdir heavy -w 1 app:app";
    two_serve_what_they_are_passed("--ready ready", command);
}

#[test]
#[ignore = "needs Server::Starter: make test-servers"]
fn heavy_a_client_of_server_starter() {
    two_serve_what_they_are_passed("", "perl heavy/starter.pl");
}
