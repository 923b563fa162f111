//! Signals to the master that mean something else than usual (--on-signal).

use crate::birth;
use crate::harness::Rig;
use crate::place::free_port;
use crate::proc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

#[test]
fn quit_is_a_graceful_stop_where_that_is_what_it_is_to_ask_for() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --on-signal QUIT=stop -- ./threaded --graceful");
    let mut rig = Rig::start(words);
    rig.up();
    rig.signal(Signal::SIGQUIT);
    let why = rig.wait("stopping", |_| true);
    assert_eq!(why.text("reason"), "SIGQUIT received");
    rig.wait_many("died", 2);
    assert_eq!(rig.tales("term").len(), 2);
    rig.finish(0, &[]);
}

#[test]
fn a_second_signal_that_asks_for_a_stop_stops_hard_whichever_it_was() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --on-signal HUP=stop -- ./threaded --deaf");
    let mut rig = Rig::start(words);
    rig.up();
    rig.signal(Signal::SIGTERM);
    rig.wait("stopping", |_| true);
    rig.until("it is hard", || {
        rig.signal(Signal::SIGHUP);
        !rig.events("hard-stop").is_empty()
    });
    let why = rig.wait("hard-stop", |_| true);
    assert_eq!(why.text("reason"), "SIGHUP received");
    rig.finish(1, &["hard-stop"]);
}

#[test]
fn each_signal_asks_for_the_verb_it_stands_for() {
    let script = "trap 'echo got it >&2' USR1; echo up >&2; while :; do sleep 0.02; done";
    let mut rig = Rig::start([
        "--workers=1",
        "--on-signal=WINCH=signal USR1",
        "--on-signal=PWR=signal USR1 slot:7",
        "--on-signal=ALRM=reload",
        "--on-signal=USR1=resize 2",
        "--on-signal=USR2=reopen",
        "--on-signal=TTIN=resize +2",
        "--on-signal=INT=kill",
        "--ready=started",
        "--",
        "sh",
        "-c",
        script,
    ]);
    rig.up();
    rig.wait_line("up");
    rig.signal(Signal::SIGWINCH);
    rig.wait_line("got it");
    let event = rig.wait("signalled", |_| true);
    assert_eq!(event.text("signal"), "SIGUSR1");
    assert_eq!(event.text("reason"), "SIGWINCH received");
    rig.signal(Signal::SIGPWR);
    let event = rig.wait("not-signalled", |_| true);
    assert_eq!(event.text("target"), "slot:7");
    rig.signal(Signal::SIGALRM);
    let event = rig.wait("reload-started", |_| true);
    assert_eq!(event.text("reason"), "SIGALRM received");
    rig.wait("reload-finished", |_| true);
    rig.signal(Signal::SIGUSR1);
    let event = rig.wait("resizing", |_| true);
    assert_eq!(event.text("reason"), "SIGUSR1 received");
    rig.wait("resized", |e| e.number("workers") == 2.0);
    rig.signal(Signal::SIGTTIN);
    rig.wait("resized", |e| e.number("workers") == 4.0);
    rig.signal(Signal::SIGUSR2);
    rig.wait("reopened", |_| true);
    rig.signal(Signal::SIGINT);
    let event = rig.wait("hard-stop", |_| true);
    assert_eq!(event.text("reason"), "SIGINT received");
    rig.finish(1, &["not-signalled", "hard-stop"]);
}

#[test]
fn one_that_is_mapped_to_nothing_is_ignored_by_pid_1_too() {
    let port = free_port();
    let how = birth::namespaces("-pf");
    let start = format!("unshare {how} --mount-proc --kill-child");
    let words = format!(
        "-n 1 -p {port} --on-signal TERM= --on-signal INT= --on-signal TTOU= --on-signal HUP=stop \
         -- ./threaded --graceful"
    );
    let mut rig = Rig::by(start, words);
    rig.wait("all-ready", |_| true);
    let master = proc::children(rig.pid())[0];
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGTTOU] {
        kill(Pid::from_raw(master), signal).unwrap();
    }
    // Heard after those.
    kill(Pid::from_raw(master), Signal::SIGUSR2).unwrap();
    rig.wait("reload-finished", |_| true);
    assert!(rig.events("stopping").is_empty());
    kill(Pid::from_raw(master), Signal::SIGHUP).unwrap();
    let why = rig.wait("stopping", |_| true);
    assert_eq!(why.text("reason"), "SIGHUP received");
    rig.finish(0, &[]);
}

#[test]
fn with_nohup_a_hup_that_was_mapped_is_heard_and_workers_ignore_nothing() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --on-signal HUP=stop --on-signal WINCH= -- ./threaded");
    let mut rig = Rig::dressed(words, |cmd, _| birth::ignoring(cmd, &[libc::SIGHUP]));
    rig.up();
    let worker = rig.status().pids()[0];
    let status = fs::read_to_string(format!("/proc/{worker}/status")).unwrap();
    let ignored = status.lines().find(|l| l.starts_with("SigIgn:")).unwrap();
    let mask = u64::from_str_radix(ignored.trim_start_matches("SigIgn:").trim(), 16).unwrap();
    assert_eq!(mask & (1 | 1 << (libc::SIGWINCH - 1)), 0, "{ignored}");
    rig.signal(Signal::SIGHUP);
    rig.wait("stopping", |_| true);
    rig.finish(0, &[]);
}

#[test]
fn another_meaning_takes_a_restart_of_the_master() {
    let port = free_port();
    let words = format!("-p {port} --config a.conf --on-signal HUP=reopen -- ./threaded");
    let mut rig = Rig::dressed(words, |_, dir| {
        fs::write(
            dir.join("a.conf"),
            "on-signal QUIT=stop\non-signal HUP=kill\n",
        )
        .unwrap();
    });
    rig.wait("all-ready", |_| true);
    // Joined, and what was typed wins.
    rig.signal(Signal::SIGHUP);
    rig.wait("reopened", |_| true);
    // In another order it is the same, and what is typed counts whatever the file says.
    let conf = rig.dir().join("a.conf");
    fs::write(&conf, "on-signal HUP=stop\non-signal QUIT=stop --no-wait\n").unwrap();
    assert_eq!(rig.verb("reload").code, 0);
    assert!(rig.events("config-kept").is_empty());
    fs::write(&conf, "on-signal QUIT=reload\n").unwrap();
    assert_eq!(rig.verb("reload").code, 0);
    let kept = rig.wait("config-kept", |_| true);
    assert!(kept.msg.starts_with("--on-signal changed"), "{}", kept.msg);
    rig.signal(Signal::SIGQUIT);
    rig.wait("stopping", |_| true);
    rig.finish(0, &["config-kept"]);
}
