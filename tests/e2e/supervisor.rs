//! "Where NOTIFY_SOCKET is set, whoever started the master is told how it is": the tests play systemd's part.

use crate::birth;
use crate::harness::{Rig, Words};
use crate::place::{LOOK, Place, free_port, run, script};
use minicluster::sys::clock;
use nix::sys::signal::Signal;
use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

/// What hears the master.
struct Manager {
    socket: UnixDatagram,
    /// All that it has heard.
    heard: Vec<String>,
    deadline: Instant,
}

impl Manager {
    fn at(dir: &Path) -> Manager {
        let socket = UnixDatagram::bind(dir.join("notify")).unwrap();
        Manager {
            socket,
            heard: Vec::new(),
            deadline: Instant::now() + Duration::from_secs(120),
        }
    }

    /// What comes within that time.
    fn next(&mut self, within: Duration) -> Option<String> {
        self.socket
            .set_read_timeout(Some(within.max(LOOK)))
            .unwrap();
        let mut buf = [0; 4096];
        let n = self.socket.recv(&mut buf).ok()?;
        let message = String::from_utf8(buf[..n].to_vec()).unwrap();
        self.heard.push(message.clone());
        Some(message)
    }

    /// The next message that has this line, and those before it.
    fn wait(&mut self, line: &str) -> (String, Vec<String>) {
        let mut before = Vec::new();
        loop {
            let left = self.deadline.saturating_duration_since(Instant::now());
            let message = self.next(left);
            let message = message.unwrap_or_else(|| panic!("never heard {line}: {:?}", self.heard));
            if message.lines().any(|l| l == line) {
                return (message, before);
            }
            before.push(message);
        }
    }
}

/// A master that is a service, and what has started it.
fn serves(words: impl Words, watchdog: &[(&str, &str)]) -> (Rig, Manager) {
    let mut manager = None;
    let rig = Rig::dressed(words, |cmd, dir| {
        manager = Some(Manager::at(dir));
        birth::without_terminal(cmd);
        cmd.env("NOTIFY_SOCKET", dir.join("notify"));
        cmd.envs(watchdog.iter().copied());
    });
    (rig, manager.unwrap())
}

/// The value of a line.
fn value(message: &str, key: &str) -> u64 {
    let line = message.lines().find_map(|l| l.strip_prefix(key));
    line.unwrap_or_else(|| panic!("no {key} in {message}"))
        .parse()
        .unwrap()
}

fn micros() -> u64 {
    clock::monotonic() / 1_000
}

#[test]
fn it_is_ready_when_all_workers_are_and_says_how_many_serve() {
    let port = free_port();
    let (mut rig, mut manager) = serves(format!("-n 2 -p {port} -- ./threaded"), &[]);
    let (ready, before) = manager.wait("READY=1");
    assert!(
        ready.contains("\nSTATUS=2/2 ready, generation 1"),
        "{ready}"
    );
    assert!(before[0].starts_with("STATUS=starting: 0/2 ready\n"));
    // --start-timeout, and a margin; whoever has less than that gives it more.
    let extended = value(&before[0], "EXTEND_TIMEOUT_USEC=");
    assert!((61_000_000..=65_000_000).contains(&extended), "{extended}");
    rig.up();
    // What is said is true at that moment, not later.
    assert_eq!(rig.status().ready, 2);
    rig.replace(rig.status().pids()[0]);
    manager.wait("STATUS=1/2 ready, generation 1");
    manager.wait("STATUS=2/2 ready, generation 1");
    assert_eq!(rig.verb("resize 3").code, 0);
    manager.wait("STATUS=3/3 ready, generation 1");
    assert_eq!(rig.verb("resize 2").code, 0);
    manager.wait("STATUS=2/2 ready, generation 1");
    let all = manager.heard.join("\n");
    assert_eq!(all.matches("READY=1").count(), 1, "{all}");
    for never in ["RELOADING", "STOPPING", "WATCHDOG", "MAINPID"] {
        assert!(!all.contains(never), "{all}");
    }
    rig.end(&["died"]);
}

#[test]
fn each_reload_is_told_with_the_time_of_its_begin_and_then_its_end() {
    let port = free_port();
    let (mut rig, mut manager) = serves(format!("-n 2 -p {port} -- ./threaded"), &[]);
    rig.up();
    manager.wait("READY=1");
    for (how, generation) in [("signal", 2), ("verb", 3)] {
        let asked = micros();
        match how {
            "signal" => rig.signal(Signal::SIGHUP),
            _ => assert_eq!(rig.verb("reload").code, 0),
        }
        let (begin, before) = manager.wait("RELOADING=1");
        let at = value(&begin, "MONOTONIC_USEC=");
        assert!((asked..=micros()).contains(&at), "{asked} {at}");
        assert!(before.is_empty(), "{before:?}");
        let status = format!("STATUS=2/2 ready, generation {generation}");
        let (_, before) = manager.wait("READY=1");
        assert!(
            before.iter().all(|m| !m.contains("RELOADING=1")),
            "{before:?}"
        );
        // At its end the old ones have gone, and not before.
        rig.wait("reload-finished", |_| true);
        assert!(manager.heard.last().unwrap().contains(&status));
    }
    rig.end(&[]);
}

/// Or `systemctl reload` would wait for its end for ever.
#[test]
fn a_reload_that_fails_is_refused_or_overtaken_has_an_end_too() {
    let port = free_port();
    let place = Place::new();
    let words = format!("-n 2 -p {port} --config a.conf -- sh ./app");
    fs::write(place.dir.join("a.conf"), "ready-timeout 30s\n").unwrap();
    script(&place.dir, "app", "exec ./threaded\n");
    let manager = Manager::at(&place.dir);
    let mut program = vec!["env".to_string()];
    program.push(format!(
        "NOTIFY_SOCKET={}",
        place.dir.join("notify").display()
    ));
    program.push("setsid".into());
    let (mut rig, mut manager) = (Rig::placed(place, &program, words), manager);
    rig.up();
    manager.wait("READY=1");
    let over = |manager: &mut Manager| {
        manager.wait("RELOADING=1");
        let (_, before) = manager.wait("READY=1");
        before.iter().filter(|m| m.contains("RELOADING=1")).count()
    };
    // Refused: nothing was begun.
    fs::write(rig.dir().join("a.conf"), "no such option\n").unwrap();
    assert_eq!(rig.verb("reload").code, 1);
    assert_eq!(over(&mut manager), 0);
    // Rolled back: the old ones stay.
    fs::write(rig.dir().join("a.conf"), "").unwrap();
    script(rig.dir(), "app", "exit 3\n");
    rig.signal(Signal::SIGHUP);
    assert_eq!(over(&mut manager), 0);
    assert!(
        manager
            .heard
            .last()
            .unwrap()
            .contains("2/2 ready, generation 1")
    );
    // Overtaken by another one: who has asked for that sees a begin that is younger.
    script(
        rig.dir(),
        "app",
        "test -e go && exec ./threaded\nexec sleep 60\n",
    );
    rig.signal(Signal::SIGHUP);
    let (first, _) = manager.wait("RELOADING=1");
    fs::write(rig.dir().join("go"), "").unwrap();
    let asked = micros();
    rig.signal(Signal::SIGHUP);
    let (second, before) = manager.wait("RELOADING=1");
    assert!(before.iter().all(|m| !m.contains("READY=1")), "{before:?}");
    let at = |m: &str| value(m, "MONOTONIC_USEC=");
    assert!(at(&first) < asked && asked <= at(&second));
    let (end, _) = manager.wait("READY=1");
    assert!(end.contains("generation 4"), "{end}");
    rig.end(&["reload-failed", "died", "leftovers"]);
}

#[test]
fn a_stop_is_told_from_its_first_moment_with_the_time_it_may_take() {
    let port = free_port();
    let words =
        format!("-n 2 -p {port} --drain-delay 300ms --stop-timeout 2s -- ./threaded --deaf");
    let (mut rig, mut manager) = serves(words, &[]);
    rig.up();
    manager.wait("READY=1");
    rig.signal(Signal::SIGTERM);
    let begun = Instant::now();
    let (stop, before) = manager.wait("STOPPING=1");
    assert!(before.is_empty() && stop.contains("STATUS=stopping: 2 workers are left"));
    rig.wait("stop-delayed", |_| true);
    let mut promised = begun + Duration::from_micros(value(&stop, "EXTEND_TIMEOUT_USEC="));
    rig.finish(0, &["stuck", "killed"]);
    let ended = Instant::now();
    while let Some(message) = manager.next(LOOK) {
        assert!(!message.contains("READY=1"), "{message}");
        if message.contains("EXTEND_TIMEOUT_USEC=") {
            let more = Duration::from_micros(value(&message, "EXTEND_TIMEOUT_USEC="));
            // Not heard later than said, so this is later than it was meant.
            promised = promised.max(begun + more);
        }
    }
    // No longer than promised, which is no longer than our own limits and a margin each.
    let longest = Duration::from_millis(300) + Duration::from_secs(10 + 2 + 5 + 5);
    assert!(ended < promised && promised < ended + longest);
    assert_eq!(manager.heard.last().unwrap(), "STATUS=stopping");
}

#[test]
fn the_watchdog_is_fed_by_the_loop_alone() {
    let port = free_port();
    let words = || format!("-n 1 -p {port} -- ./threaded");
    let (mut rig, mut manager) = serves(words(), &[("WATCHDOG_USEC", "400000")]);
    rig.up();
    manager.wait("READY=1");
    // It comes by itself, twice in that time.
    let begun = Instant::now();
    for _ in 0..6 {
        let (_, others) = manager.wait("WATCHDOG=1");
        assert!(others.is_empty(), "{others:?}");
    }
    assert!(begun.elapsed() > Duration::from_millis(1000), "{begun:?}");
    // Who is stopped does not turn, and is not alive.
    rig.signal(Signal::SIGSTOP);
    rig.until("it is stopped", || !crate::proc::sleeps(rig.pid()));
    while manager.next(Duration::from_millis(1)).is_some() {}
    assert_eq!(manager.next(Duration::from_millis(900)), None);
    rig.signal(Signal::SIGCONT);
    manager.wait("WATCHDOG=1");
    rig.end(&[]);
    // One that is for another process is not ours.
    let others = [("WATCHDOG_USEC", "20000"), ("WATCHDOG_PID", "1")];
    let (mut rig, mut manager) = serves(words(), &others);
    rig.up();
    manager.wait("READY=1");
    assert_eq!(manager.next(Duration::from_millis(300)), None);
    rig.end(&[]);
}

#[test]
fn workers_hear_nothing_of_it() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --watchdog 20s -- ./threaded");
    let (mut rig, mut manager) = serves(words, &[("WATCHDOG_USEC", "60000000")]);
    rig.up();
    manager.wait("READY=1");
    let pid = rig.status().pids()[0];
    let environ = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let of = |name: &str| environ.split('\0').find_map(|v| v.strip_prefix(name));
    assert!(of("NOTIFY_SOCKET=").unwrap().starts_with("@minicluster"));
    assert_eq!(of("WATCHDOG_USEC="), Some("20000000"));
    assert_eq!(of("WATCHDOG_PID="), None);
    rig.end(&["watchdog-unused"]);
}

#[test]
fn why_a_start_fails_is_told_with_the_number_of_the_error() {
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let (rig, mut manager) = serves(format!("-n 1 -p {port} -- ./threaded"), &[]);
    let (last, _) = manager.wait("EXIT_STATUS=75");
    assert!(last.contains("\nERRNO=98"), "{last}");
    let why = format!("STATUS=exit status 75: cannot open 0.0.0.0:{port}: Address already in use");
    assert!(last.starts_with(&why), "{last}");
    rig.finish(75, &["port-failed"]);
    assert_eq!(manager.next(LOOK), None);
    // Also of one that does not even begin.
    let (rig, mut manager) = serves("-n 1 -- ./no-such-server", &[]);
    let (last, _) = manager.wait("EXIT_STATUS=127");
    assert!(last.contains("no-such-server"), "{last}");
    rig.finish(127, &[]);
}

#[test]
fn who_does_not_hear_is_not_waited_for_and_that_is_said_once() {
    let port = free_port();
    let (mut rig, mut manager) = serves(format!("-n 1 -p {port} -- ./threaded"), &[]);
    rig.up();
    manager.wait("READY=1");
    // A queue that is full: what is so in the end is told when there is room.
    // (Each sender alone has room for fewer than that may be.)
    for _ in 0..20 {
        let filler = UnixDatagram::unbound().unwrap();
        filler.set_nonblocking(true).unwrap();
        while filler.send_to(b"X=1", rig.dir().join("notify")).is_ok() {}
    }
    for _ in 0..2 {
        assert_eq!(rig.verb("reload").code, 0);
    }
    rig.wait("supervisor-deaf", |e| {
        e.msg.contains("Resource temporarily")
    });
    let (begin, _) = manager.wait("RELOADING=1");
    assert!(begin.contains("MONOTONIC_USEC="));
    manager.wait("STATUS=1/1 ready, generation 3");
    // One that has gone.
    fs::remove_file(rig.dir().join("notify")).unwrap();
    for _ in 0..2 {
        assert_eq!(rig.verb("reload").code, 0);
    }
    rig.wait("supervisor-deaf", |e| e.msg.contains("No such file"));
    assert_eq!(rig.events("supervisor-deaf").len(), 2);
    rig.end(&["supervisor-deaf"]);
}

/// systemd hears only its own child, unless NotifyAccess=all.
#[test]
fn a_daemon_says_that_it_is_another_process_and_that_it_should_not_be_one() {
    let port = free_port();
    let place = Place::new();
    let mut manager = Manager::at(&place.dir);
    let mut cmd = place.command();
    cmd.args(
        format!("-d --pid-file app.pid -n 1 -p {port} --canary 0 --log-file log -- ./threaded")
            .words(),
    )
    .env("NOTIFY_SOCKET", place.dir.join("notify"));
    let said = run(cmd, manager.deadline);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.err.contains("leave -d out there"), "{said:?}");
    let pid = fs::read_to_string(place.dir.join("app.pid")).unwrap();
    // Before the caller has returned, which would be an end without a READY=1.
    let heard = |m: &mut Manager| m.next(LOOK).unwrap();
    assert_eq!(heard(&mut manager), format!("MAINPID={}", pid.trim()));
    manager.wait("READY=1");
    let mut cmd = place.command();
    cmd.args("--pid-file app.pid stop".words());
    assert_eq!(run(cmd, manager.deadline).code, 0);
    manager.wait("STOPPING=1");
    place.clear();
}
