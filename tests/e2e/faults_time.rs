//! "FAULTS", those of time: a master that is stopped, a clock that is set, signals without end.

use crate::harness::{Rig, sigkill};
use crate::load::Load;
use crate::place::{free_port, python, shim};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// So long it is stopped: longer than any time that somebody is given.
const STOPPED: Duration = Duration::from_secs(10);

#[test]
fn by_the_time_that_the_master_was_stopped_nobody_is_judged() {
    // One that starts, and waits in bind(2) for the answer of a master that sleeps;
    let port = free_port();
    let words = "--ready-timeout 5s --hang-timeout 4s --respawn 10ms --backoff 0";
    let server = format!("{} blocking.py start=1500", python());
    let mut starts = Rig::start(format!("-n 3 -p {port} {words} -- {server}"));
    // and those who say that they are well to somebody who does not read it, until the socket is full.
    let (other, words) = (free_port(), "--ready ready --watchdog 4s --hang-timeout 4s");
    let server = format!("{} speech.py pulse 1000", python());
    let mut pulses = Rig::start(format!("-n 2 -p {other} {words} -- {server}"));
    fs::write(pulses.dir().join("go"), "").unwrap();
    starts.up();
    pulses.wait("all-ready", |_| true);
    sigkill(starts.status().pids()[0]);
    let new = starts.wait("forked", |_| true).pid();
    for rig in [&mut starts, &mut pulses] {
        rig.patient(STOPPED);
        rig.signal(Signal::SIGSTOP);
    }
    let since = Instant::now();
    let mut loads = [port, other].map(|p| Load::going(&format!("{p} clients=4 pause=5")));
    starts.until("the time is over", || since.elapsed() > STOPPED);
    for load in &mut loads {
        let before = load.so_far().of("requests");
        load.until("they are served all the while", |t| {
            t.of("requests") > before + 20
        });
    }
    let said = pulses.tales("pulse").len();
    starts.signal(Signal::SIGCONT);
    pulses.signal(Signal::SIGCONT);
    starts.wait("stood-still", |_| true);
    assert_eq!(starts.wait("ready", |_| true).pid(), new);
    pulses.wait("stood-still", |_| true);
    pulses.until("they go on", || pulses.tales("pulse").len() > said + 8);
    for load in loads {
        let (well, tally) = load.finish();
        assert!(well, "{tally:?}");
    }
    for rig in [&starts, &pulses] {
        for bad in ["hangs", "not-ready", "killed", "unhealthy"] {
            assert!(rig.events(bad).is_empty(), "{bad}");
        }
    }
    assert_eq!(starts.events("died").len(), 1);
    assert!(pulses.events("died").is_empty());
    // And the time that it was not stopped counts as ever: one that does not listen has no more than that.
    fs::write(starts.dir().join("mute"), "").unwrap();
    let said = starts.verb(format!("upgrade -- {} blocking.py mute=mute", python()));
    assert_eq!(said.code, 1, "{said:?}");
    starts.end(&["died", "not-ready", "reload-failed"]);
    pulses.end(&[]);
}

/// Whole at once: the master reads it at any moment.
fn set_clock(dir: &Path, seconds: i64) {
    let draft = dir.join("draft");
    fs::write(&draft, seconds.to_string()).unwrap();
    fs::rename(draft, dir.join("shim-clock")).unwrap();
}

#[test]
fn a_clock_that_is_set_changes_stamps_and_nothing_else() {
    const YEARS: i64 = 366 * 86_400;
    let port = free_port();
    let words = "--canary 1:200ms --ready ready --watchdog 6s --hang-timeout 6s --idle-timeout 1h";
    let server = format!("{} speech.py pulse 1000", python());
    let words = format!("-n 2 -p {port} {words} -- {server}");
    let mut rig = Rig::dressed(words, |cmd, dir| {
        fs::write(dir.join("go"), "").unwrap();
        cmd.env("LD_PRELOAD", shim());
    });
    rig.wait("all-ready", |_| true);
    rig.patient(Duration::from_secs(15));
    let year = |e: &crate::log::Event| -> i64 { e.text("ts")[..4].parse().unwrap() };
    let now = year(&rig.events("all-ready")[0]);
    let load = Load::going(&format!("{port} clients=4 pause=5"));
    for steps in [30 * YEARS, -20 * YEARS, 3600, -YEARS] {
        set_clock(rig.dir(), steps);
        let said = rig.verb("reload");
        assert_eq!(said.code, 0, "{said:?}");
        let pulses = rig.tales("pulse").len();
        rig.until("they are heard", || rig.tales("pulse").len() > pulses + 2);
    }
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    let years: Vec<i64> = rig.events("reload-finished").iter().map(year).collect();
    assert_eq!(years.len(), 4);
    assert!(years[0] > now + 28 && years[1] < now - 18, "{years:?}");
    // A machine that is busy may hold it up; not for years, which the clock has stepped by.
    for held in rig.events("stood-still") {
        let long = held.msg.split("for up to ").nth(1).unwrap();
        let long = long.split(' ').next().unwrap().strip_suffix('s');
        let seconds = long.and_then(|s| s.parse::<f64>().ok());
        assert!(seconds.is_some_and(|s| s < 30.0), "{held:?}");
    }
    set_clock(rig.dir(), 30 * YEARS);
    rig.replace(rig.status().pids()[0]);
    rig.end(&["died"]);
}

#[test]
fn signals_without_end_keep_nobody_waiting() {
    const BURST: u64 = 64;
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 3 -p {port} --canary 1:300ms --hang-timeout 1s --respawn 300ms -- ./threaded"
    ));
    rig.up();
    let over = Arc::new(AtomicBool::new(false));
    let storms = [Signal::SIGCHLD, Signal::SIGCONT, Signal::SIGWINCH].map(|signal| {
        let (over, master) = (over.clone(), Pid::from_raw(rig.pid()));
        std::thread::spawn(move || {
            let mut sent = 0u64;
            while !over.load(Ordering::Relaxed) {
                // Many at a time: where much else runs it may be long until the next turn.
                for _ in 0..BURST {
                    kill(master, signal).unwrap();
                }
                sent += BURST;
                std::thread::yield_now();
            }
            sent
        })
    });
    let load = Load::going(&format!("{port} clients=4 pause=2"));
    for _ in 0..3 {
        let said = rig.verb("reload");
        assert_eq!(said.code, 0, "{said:?}");
    }
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    let victim = rig.status().pids()[1];
    rig.replace(victim);
    over.store(true, Ordering::Relaxed);
    for storm in storms {
        let sent = storm.join().unwrap();
        assert!(sent > 1000, "{sent} signals are no storm");
    }
    rig.end(&["died"]);
}
