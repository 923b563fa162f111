//! Servers whose socket cannot be swapped for ours: "it stays the worker's, which has a queue of its own
//! then". They share the port all the same, and nobody who comes is lost when one of them leaves.

use crate::birth;
use crate::client::{all_answer, ask, get, v4};
use crate::harness::{Rig, sigkill};
use crate::load::Load;
use crate::place::{free_port, python};
use crate::proc;
use std::io::Read;
use std::net::TcpStream;
use std::process::Command;

const HABITS: [&str; 4] = ["epoll", "dup", "shared", "filter"];

/// A server of that habit which listens there.
fn server(habit: &str, port: u16) -> String {
    match habit {
        "epoll" | "dup" => {
            let option = match habit {
                "epoll" => "--epoll-before-bind",
                _ => "--dup-before-bind",
            };
            format!("./threaded --port {port} --print-opts {option}")
        }
        other => format!("{} odd.py {other} {port}", python()),
    }
}

/// The sockets among a process's descriptors.
fn sockets(pid: i32) -> Vec<String> {
    let all = (0..64).map(|fd| proc::descriptor(pid, fd));
    all.filter(|d| d.starts_with("socket:")).collect()
}

/// The option that gives the port, if it is to be given.
fn given_or_not(given: bool, port: u16) -> String {
    match given {
        true => format!("-p {port}"),
        false => String::new(),
    }
}

#[test]
fn a_socket_that_cannot_be_swapped_is_made_one_of_ours() {
    for habit in HABITS {
        let port = free_port();
        for given in ["".to_string(), format!("-p {port}")] {
            let mut rig = Rig::start(format!("-n 3 {given} -- {}", server(habit, port)));
            rig.up();
            let pids = all_answer(&rig, v4(port), "/", 3);
            assert_eq!(rig.status().ports, [format!("0.0.0.0:{port}")]);
            assert_eq!(rig.status().takeover, "on");
            let said = rig.events("takeover-adopted");
            assert_eq!(said.len(), 1, "{habit}: {said:?}");
            // Each has its own.
            let all: Vec<String> = pids.iter().flat_map(|pid| sockets(*pid)).collect();
            let mut own: Vec<&String> = all
                .iter()
                .filter(|s| all.iter().filter(|t| t == s).count() < 3)
                .collect();
            own.sort();
            own.dedup();
            assert_eq!(own.len(), 3, "{habit}: {all:?}");
            rig.end(&[]);
        }
    }
}

#[test]
fn its_options_stay_and_ours_are_added() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} --backlog 77 --user-timeout 5s -- ./threaded --print-opts --nodelay --epoll-before-bind"
    ));
    rig.up();
    let opts = get(v4(port), "/opts").unwrap();
    for (name, value) in [
        ("TCP_NODELAY", "1"),
        ("TCP_USER_TIMEOUT", "5000"),
        ("SO_REUSEPORT", "1"),
        ("SO_ACCEPTCONN", "1"),
    ] {
        assert_eq!(opts.line(&format!("listener {name}")), value, "{name}");
    }
    let ss = Command::new("ss")
        .args(["-ltnH", &format!("sport = :{port}")])
        .output();
    if let Ok(ss) = ss {
        let text = String::from_utf8(ss.stdout).unwrap();
        let backlogs: Vec<&str> = text
            .lines()
            .filter_map(|l| l.split_whitespace().nth(2))
            .collect();
        assert_eq!(backlogs, ["77"; 3], "{text}");
    }
    rig.end(&[]);
}

#[test]
fn a_reload_of_such_servers_under_load_loses_nothing() {
    for habit in HABITS {
        let port = free_port();
        let words = format!(
            "-n 3 -p {port} --drain-quiet 200ms -- {}",
            server(habit, port)
        );
        let mut rig = Rig::start(words);
        rig.up();
        let load = Load::going(&format!("{port} clients=16 mode=fresh"));
        for _ in 0..3 {
            let said = rig.verb("reload");
            assert_eq!(said.code, 0, "{habit}: {said:?}");
        }
        let (well, tally) = load.finish();
        assert!(well, "{habit}: {tally:?}");
        assert!(tally.of("pids") >= 12, "{habit}: {tally:?}");
        // One spare may have come.
        rig.note_descriptors();
        rig.end(&[]);
    }
}

#[test]
fn nor_does_taking_one_of_them_away() {
    let port = free_port();
    let words = format!("-n 4 -p {port} -- {}", server("epoll", port));
    let mut rig = Rig::start(words);
    rig.up();
    let load = Load::going(&format!("{port} clients=16 mode=fresh"));
    for size in ["1", "4", "2", "3"] {
        let said = rig.verb(format!("resize {size}"));
        assert_eq!(said.code, 0, "{said:?}");
    }
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    all_answer(&rig, v4(port), "/", 3);
    rig.note_descriptors();
    rig.end(&[]);
}

#[test]
fn when_one_of_them_dies_nobody_is_left_waiting() {
    for habit in HABITS {
        for given in [true, false] {
            let port = free_port();
            let option = given_or_not(given, port);
            let mut rig = Rig::start(format!("-n 3 {option} -- {}", server(habit, port)));
            rig.up();
            let pids = rig.status().pids();
            for pid in pids {
                rig.replace(pid);
                for _ in 0..20 {
                    assert_eq!(get(v4(port), "/").unwrap().status, 200, "{habit}");
                }
            }
            all_answer(&rig, v4(port), "/", 3);
            rig.note_descriptors();
            rig.end(&["died"]);
        }
    }
}

#[test]
fn who_comes_while_none_of_them_is_there_waits_and_is_served() {
    for given in [true, false] {
        let port = free_port();
        let option = given_or_not(given, port);
        let mut rig = Rig::start(format!("-n 1 {option} -- {}", server("epoll", port)));
        rig.up();
        // Not even by the one that is killed: its queue goes with it.
        let pid = rig.status().pids()[0];
        sigkill(pid);
        rig.wait("died", |e| e.pid() == pid);
        let answer = get(v4(port), "/").unwrap();
        assert_ne!(answer.pid(), pid);
        rig.note_descriptors();
        rig.end(&["died"]);
    }
}

#[test]
fn what_came_before_it_was_known_is_reset_and_counted() {
    let port = free_port();
    let script = "read x < go$WORKER_ID; exec ./threaded --epoll-before-bind";
    let number = port.to_string();
    let words = ["-n", "2", "-p", &number, "--", "sh", "-c", script];
    let mut rig = Rig::dressed(words, |_, dir| {
        let fifos = [dir.join("go0"), dir.join("go1")];
        assert!(
            Command::new("mkfifo")
                .args(fifos)
                .status()
                .unwrap()
                .success()
        );
    });
    rig.wait_many("forked", 2);
    let mut early = TcpStream::connect(v4(port)).unwrap();
    for fifo in ["go0", "go1"] {
        std::fs::write(rig.dir().join(fifo), "go\n").unwrap();
    }
    let said = rig.wait("strays-reset", |_| true);
    assert!(
        said.msg.starts_with("reset 1 connection: they came before"),
        "{}",
        said.msg
    );
    let end = early.read(&mut [0]).unwrap_err();
    assert_eq!(end.raw_os_error(), Some(libc::ECONNRESET));
    rig.wait("all-ready", |_| true);
    all_answer(&rig, v4(port), "/", 2);
    rig.end(&["strays-reset"]);
}

#[test]
fn one_that_tries_the_port_first_is_not_taken_in() {
    for given in [true, false] {
        let port = free_port();
        let option = given_or_not(given, port);
        let words = format!("-n 2 {option} -- {} --probe", server("epoll", port));
        let mut rig = Rig::start(words);
        rig.up();
        assert_eq!(rig.tales("probed").len(), 2);
        all_answer(&rig, v4(port), "/", 2);
        for _ in 0..40 {
            assert_eq!(get(v4(port), "/").unwrap().status, 200);
        }
        rig.end(&[]);
    }
}

#[test]
fn it_is_served_where_we_listen_whatever_it_asks_for() {
    let (ours, theirs) = (free_port(), free_port());
    let words = format!(
        "-n 2 -p {ours} --takeover {theirs}={ours} -- {} --addr 127.0.0.1",
        server("epoll", theirs)
    );
    let mut rig = Rig::start(words);
    rig.up();
    all_answer(&rig, v4(ours), "/", 2);
    assert!(get(v4(theirs), "/").is_err());
    rig.end(&["address-wider"]);
}

#[test]
fn so_is_one_of_another_user() {
    if !birth::root() {
        return;
    }
    let port = free_port();
    let words = format!("-n 3 -p {port} --user nobody -- ./threaded --epoll-before-bind");
    let mut rig = Rig::start(words);
    rig.up();
    all_answer(&rig, v4(port), "/", 3);
    assert_eq!(rig.verb("reload").code, 0);
    all_answer(&rig, v4(port), "/", 3);
    rig.note_descriptors();
    rig.end(&[]);
}

#[test]
fn a_connection_that_waits_for_one_of_them_is_answered_before_it_leaves() {
    let port = free_port();
    let words = format!("-n 2 -p {port} -- {}", server("epoll", port));
    let mut rig = Rig::start(words);
    rig.up();
    // Stopped, they accept nothing: these wait in the queues of both.
    let pids = rig.status().pids();
    for pid in &pids {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(*pid),
            nix::sys::signal::Signal::SIGSTOP,
        )
        .unwrap();
    }
    let waiting: Vec<TcpStream> = (0..20)
        .map(|_| TcpStream::connect(v4(port)).unwrap())
        .collect();
    let said = rig.verb("reload --no-wait");
    assert_eq!(said.code, 0, "{said:?}");
    rig.wait_many("draining", 2);
    for pid in &pids {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(*pid),
            nix::sys::signal::Signal::SIGCONT,
        )
        .unwrap();
    }
    for stream in waiting {
        let pid = ask(stream, "/").unwrap().pid();
        assert!(pids.contains(&pid), "{pid} of {pids:?}");
    }
    rig.wait("reload-finished", |_| true);
    rig.note_descriptors();
    rig.end(&[]);
}

#[test]
fn an_unprivileged_master_does_it_as_well() {
    for given in [true, false] {
        let port = free_port();
        let option = given_or_not(given, port);
        let words = format!("-n 3 {option} -- {}", server("epoll", port));
        let mut rig = Rig::unprivileged(words, |_, _| {});
        rig.up();
        let load = Load::going(&format!("{port} clients=16 mode=fresh"));
        let said = rig.verb("reload");
        assert_eq!(said.code, 0, "{said:?}");
        let (well, tally) = load.finish();
        assert!(well, "{tally:?}");
        let pids = rig.status().pids();
        for pid in &pids {
            sigkill(*pid);
        }
        // Those that the reload replaced, and these.
        rig.wait_many("died", 6);
        let answer = get(v4(port), "/").unwrap();
        assert!(!pids.contains(&answer.pid()));
        rig.wait_status("all are back", |s| s.ready == 3);
        rig.note_descriptors();
        rig.end(&["died"]);
    }
}
