//! What a worker is born with, told by the worker itself: environment, descriptors, signals,
//! limits; and that it dies with the master.

use crate::birth;
use crate::client::{Answer, get, v4};
use crate::harness::Rig;
use crate::place::free_port;
use crate::proc;
use nix::sys::signal::Signal;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

/// A cluster of one worker, and what that worker reports of its birth.
fn born(words: &str, dress: impl FnOnce(&mut Command, &Path)) -> (Rig, Answer) {
    let port = free_port();
    let mut rig = Rig::dressed(format!("-n 1 -p {port} {words}"), dress);
    rig.up();
    let report = get(v4(port), "/env").unwrap();
    (rig, report)
}

const REPORT: &str = "-- ./threaded --env";

#[test]
fn it_is_told_its_port_its_slot_and_its_cluster() {
    let (rig, report) = born(REPORT, |_, _| {});
    let status = rig.status();
    let port = status.ports[0].rsplit(':').next().unwrap().to_string();
    let socket = rig.socket().to_string_lossy().into_owned();
    let pid = status.pids()[0].to_string();
    report.has_env(&[
        ("PORT", port.as_str()),
        ("HOST", "0.0.0.0"),
        ("WORKER_ID", "0"),
        ("NODE_APP_INSTANCE", "0"),
        ("MINICLUSTER_NAME", &format!("threaded-{port}")),
        ("MINICLUSTER_CONTROL", &socket),
        ("MINICLUSTER_GENERATION", "1"),
        ("MINICLUSTER_WORKERS", "1"),
        ("LISTEN_FDS", "1"),
        ("LISTEN_PID", &pid),
        ("LISTEN_FDNAMES", &port),
    ]);
    rig.end(&[]);
}

#[test]
fn each_slot_has_its_number_and_each_port_a_descriptor() {
    let (a, b) = (free_port(), free_port());
    let mut rig = Rig::start(format!("-n 3 -p {a} -p {b} -- ./threaded --env --port {b}"));
    rig.up();
    let mut seen = [false; 3];
    rig.until("all have answered", || {
        let report = get(v4(b), "/env").unwrap();
        let env = |name| report.env(name).unwrap().to_string();
        assert_eq!(env("PORT"), a.to_string());
        assert_eq!(env("LISTEN_FDS"), "2");
        assert_eq!(env("LISTEN_FDNAMES"), format!("{a}:{b}"));
        assert_eq!(env("LISTEN_PID"), report.line("pid"));
        assert_eq!(report.lines("fd 3").len() + report.lines("fd 4").len(), 2);
        seen[env("WORKER_ID").parse::<usize>().unwrap()] = true;
        seen == [true; 3]
    });
    rig.end(&[]);
}

#[test]
fn what_was_meant_for_the_master_is_not_passed_on() {
    let foreign = [
        ("LISTEN_FDS", "7"),
        ("LISTEN_PID", "1"),
        ("LISTEN_FDNAMES", "a:b:c:d:e:f:g"),
        ("WATCHDOG_USEC", "1000000"),
        ("WATCHDOG_PID", "1"),
        ("WEB_CONCURRENCY", "9"),
        ("MINICLUSTER_CONTROL", "/run/another"),
        ("MINICLUSTER_NAME", "another"),
    ];
    // Whoever hears the master there.
    let mut manager = None;
    let (rig, report) = born(REPORT, |cmd, dir| {
        let at = dir.join("notify");
        manager = Some(UnixDatagram::bind(&at).unwrap());
        cmd.envs(foreign)
            .env("NOTIFY_SOCKET", at)
            .env("KEPT", "yes = yes");
    });
    let theirs = rig.dir().join("notify");
    assert_ne!(report.env("NOTIFY_SOCKET"), theirs.to_str());
    for name in ["WATCHDOG_USEC", "WATCHDOG_PID", "WEB_CONCURRENCY"] {
        assert_eq!(report.env(name), None, "{name}");
    }
    for (name, value) in foreign {
        assert_ne!(report.env(name), Some(value), "{name}");
    }
    assert_eq!(report.env("KEPT"), Some("yes = yes"));
    rig.end(&[]);
    drop(manager);

    // Without -p there is nothing to pass.
    let port = free_port();
    let words = format!("-n 1 -- ./threaded --env --port {port}");
    let mut rig = Rig::dressed(words, |cmd, _| {
        cmd.env("LISTEN_FDS", "7").env("PORT", "as it was");
    });
    rig.wait("listening", |_| true);
    let report = get(v4(port), "/env").unwrap();
    assert_eq!(report.env("LISTEN_FDS"), None);
    assert_eq!(report.env("LISTEN_PID"), None);
    assert_eq!(report.env("PORT"), Some("as it was"));
    rig.end(&[]);
}

#[test]
fn the_slot_is_filled_into_values_and_arguments() {
    let (a, b) = (free_port(), free_port());
    let mut rig = Rig::start(format!(
        "-n 2 -p {a} -p {b} --env LOG=x{{slot}}y{{slot+9000}} --env BRACE={{}} -- \
         ./threaded --env --unix {{slot}}.sock --port {a}"
    ));
    rig.up();
    let mut seen = [false; 2];
    rig.until("both have answered", || {
        let report = get(v4(a), "/env").unwrap();
        let slot: usize = report.env("WORKER_ID").unwrap().parse().unwrap();
        let log = format!("x{slot}y{}", 9000 + slot);
        assert_eq!(report.env("LOG"), Some(log.as_str()));
        assert_eq!(report.env("BRACE"), Some("{}"));
        let arg = format!("{slot}.sock");
        assert!(report.lines("arg").contains(&arg.as_str()), "{report:?}");
        seen[slot] = true;
        seen == [true; 2]
    });
    rig.end(&[]);
}

#[test]
fn env_overrides_what_is_inherited_and_what_is_ours() {
    let words = "--env HOST=example --env WORKER_ID=w{slot} --env A=1 --env A=2 --env HOME= \
                 -- ./threaded --env";
    let (rig, report) = born(words, |cmd, _| {
        cmd.env("HOME", "/nowhere").env("A", "0");
    });
    report.has_env(&[
        ("HOST", "example"),
        ("WORKER_ID", "w0"),
        ("A", "2"),
        ("HOME", ""),
    ]);
    rig.end(&[]);
}

#[test]
fn a_directory_behind_a_symlink_is_resolved_anew_for_each_worker() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --cwd current -- ../threaded --env");
    let mut rig = Rig::dressed(words, |_, dir| {
        std::fs::create_dir(dir.join("one")).unwrap();
        std::fs::create_dir(dir.join("two")).unwrap();
        symlink("one", dir.join("current")).unwrap();
    });
    rig.up();
    let real = rig.dir().canonicalize().unwrap();
    let cwd = |name: &str| real.join(name).to_string_lossy().into_owned();
    assert_eq!(get(v4(port), "/env").unwrap().line("cwd"), cwd("one"));
    // As a deploy does it: a new link, renamed over the old one.
    symlink("two", rig.dir().join("next")).unwrap();
    std::fs::rename(rig.dir().join("next"), rig.dir().join("current")).unwrap();
    let victim = rig.status().pids()[0];
    rig.replace(victim);
    assert_eq!(get(v4(port), "/env").unwrap().line("cwd"), cwd("two"));
    rig.end(&["died"]);
}

#[test]
fn every_descriptor_but_the_three_and_the_sockets_is_closed() {
    let (rig, report) = born(REPORT, |cmd, _| {
        birth::with_descriptors(cmd, &[3, 4, 9, 77, 500]);
    });
    let fds = report.lines("fd");
    let numbers: Vec<&str> = fds.iter().filter_map(|l| l.split(' ').next()).collect();
    assert_eq!(numbers, ["0", "1", "2", "3", "250"], "{fds:?}");
    assert!(fds[0].starts_with("0 /dev/null"), "{fds:?}");
    assert!(fds[2].starts_with("2 pipe:"), "{fds:?}");
    assert!(fds[3].starts_with("3 socket:"), "{fds:?}");
    assert!(fds[4].starts_with("250 pipe:"), "{fds:?}");
    rig.end(&[]);
}

#[test]
fn it_leads_a_process_group_and_dies_with_the_master() {
    let (rig, report) = born(REPORT, |_, _| {});
    assert_eq!(report.line("pgid"), report.line("pid"));
    assert_eq!(report.line("ppid"), rig.pid().to_string());
    assert_eq!(report.line("pdeathsig"), libc::SIGKILL.to_string());
    rig.end(&[]);
}

#[test]
fn no_signal_is_blocked_or_ignored_whatever_the_master_was_started_with() {
    let clean = |report: &Answer| {
        for name in ["SigBlk:", "SigIgn:", "SigPnd:", "ShdPnd:"] {
            let set = report.line(&format!("status {name}")).trim().to_string();
            assert_eq!(u64::from_str_radix(&set, 16), Ok(0), "{name} {set}");
        }
    };
    let (rig, report) = born(REPORT, |_, _| {});
    clean(&report);
    rig.end(&[]);
    let (rig, report) = born(REPORT, |cmd, _| {
        birth::ignoring(
            cmd,
            &[libc::SIGHUP, libc::SIGPIPE, libc::SIGUSR1, libc::SIGCHLD],
        );
        birth::blocking(
            cmd,
            &[libc::SIGTERM, libc::SIGCHLD, libc::SIGINT, libc::SIGUSR2],
        );
    });
    clean(&report);
    // Nor are those deaf masters: this one hears the end of a worker and SIGTERM.
    rig.end(&[]);
}

#[test]
fn the_limit_of_open_files_is_the_one_the_master_was_started_with() {
    let (rig, report) = born(REPORT, |cmd, _| birth::with_nofile(cmd, 256, 1024));
    assert_eq!(report.line("nofile"), "256 1024");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", rig.pid())).unwrap();
    let line = limits.lines().find(|l| l.starts_with("Max open files"));
    let soft = line.unwrap().split_whitespace().nth(3);
    assert_eq!(soft, Some("1024"), "the master raises its own");
    rig.end(&[]);
}

#[test]
fn a_master_that_is_killed_leaves_no_worker_behind() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 4 -p {port} -- ./threaded --deaf"));
    rig.up();
    let workers = rig.status().pids();
    rig.signal(Signal::SIGKILL);
    rig.wait_exit();
    rig.until("all workers have gone", || {
        !workers.iter().any(|pid| proc::alive(*pid))
    });
    assert!(rig.left_behind().is_empty());
    assert!(get(v4(port), "/").is_err());
}
