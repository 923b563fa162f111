//! Signals that depend on a terminal, and those that mean nothing yet.

use crate::birth;
use crate::client::{get, v4};
use crate::harness::Rig;
use crate::place::{LOOK, Place, free_port};
use crate::proc;
use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

#[test]
fn a_terminal_that_is_gone_stops_gracefully() {
    let port = free_port();
    let (far, near) = birth::open_terminal();
    let words = format!("-n 2 -p {port} -- ./threaded --graceful");
    let mut rig = Rig::dressed(words, |cmd, _| birth::on_terminal(cmd, near));
    rig.up();
    drop(far);
    let why = rig.wait("stopping", |_| true);
    assert_eq!(why.text("reason"), "the terminal has hung up");
    rig.finish(0, &[]);
}

#[test]
fn with_nohup_a_terminal_that_is_gone_changes_nothing() {
    let port = free_port();
    let (far, near) = birth::open_terminal();
    let mut rig = Rig::dressed(format!("-n 2 -p {port} -- ./threaded"), |cmd, _| {
        birth::on_terminal(cmd, near);
        birth::ignoring(cmd, &[libc::SIGHUP]);
    });
    rig.up();
    drop(far);
    rig.signal(Signal::SIGHUP);
    assert_eq!(rig.status().ready, 2);
    assert_eq!(get(v4(port), "/").unwrap().status, 200);
    rig.end(&[]);
}

#[test]
fn a_hang_up_while_the_terminal_is_there_is_a_reload() {
    let port = free_port();
    let (_far, near) = birth::open_terminal();
    let words = format!("-n 2 -p {port} -- ./threaded");
    let mut rig = Rig::dressed(words, |cmd, _| birth::on_terminal(cmd, near));
    rig.up();
    rig.signal(Signal::SIGHUP);
    rig.wait("reload-finished", |_| true);
    assert_eq!(rig.status().ready, 2);
    rig.end(&[]);
}

#[test]
fn other_signals_are_left_alone() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded"));
    rig.up();
    for signal in [
        Signal::SIGCONT,
        Signal::SIGWINCH,
        Signal::SIGURG,
        Signal::SIGCHLD,
    ] {
        rig.signal(signal);
    }
    assert_eq!(rig.status().ready, 2);
    rig.end(&[]);
}

/// A worker that counts the signals it gets: one line for each.
const HEARS: &str = "for s in HUP INT QUIT ABRT USR1 SEGV USR2 PIPE ALRM TERM CONT TSTP TTIN TTOU URG \
    XCPU XFSZ VTALRM PROF WINCH IO PWR SYS; do trap \"echo heard $s >&2\" $s; done; echo up >&2; \
    while :; do sleep 0.05; done";

#[test]
fn no_signal_that_is_not_mapped_goes_to_a_worker_whatever_it_does_to_the_master() {
    // What the kernel does to a process that says nothing about it; the table of signal(7).
    let ignored = [
        Signal::SIGCHLD,
        Signal::SIGCONT,
        Signal::SIGURG,
        Signal::SIGWINCH,
    ];
    let ends = [
        Signal::SIGABRT,
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGFPE,
        Signal::SIGILL,
        Signal::SIGTRAP,
        Signal::SIGSYS,
        Signal::SIGALRM,
        Signal::SIGVTALRM,
        Signal::SIGPROF,
        Signal::SIGIO,
        Signal::SIGPWR,
        Signal::SIGSTKFLT,
        Signal::SIGXCPU,
    ];
    let start = || {
        let words = ["-n", "1", "--ready", "started", "--", "sh", "-c", HEARS];
        let mut rig = Rig::dressed(words, |cmd, _| birth::without_core(cmd));
        rig.up();
        rig.wait_line("up");
        rig
    };
    let rig = start();
    // These two are errors of a write instead.
    for signal in ignored
        .into_iter()
        .chain([Signal::SIGPIPE, Signal::SIGXFSZ])
    {
        rig.signal(signal);
    }
    // One that was stopped goes on where it was. (SIGTSTP does so where somebody could continue it, and these tests
    // may run where nobody could: in an orphaned process group.)
    rig.signal(Signal::SIGSTOP);
    rig.until("the master is stopped", || proc::stopped(rig.pid()));
    rig.signal(Signal::SIGCONT);
    let said = rig.verb("signal USR2");
    assert_eq!(said.code, 0, "{said:?}");
    rig.wait_line("heard USR2");
    assert_eq!(heard(&rig), ["heard USR2"], "and that is the only one");
    assert_eq!(rig.status().ready, 1);
    rig.signal(Signal::SIGQUIT);
    let mut rig = rig;
    rig.wait_exit();
    rig.finish(1, &["hard-stop"]);
    for signal in ends {
        let mut rig = start();
        rig.signal(signal);
        rig.until(&format!("{signal} has ended it"), || {
            !proc::alive(rig.pid())
        });
        let status = rig.wait_exit();
        assert_eq!(status.signal(), Some(signal as i32), "{signal}: {status}");
        // The kernel ends the worker with its master: by a SIGKILL, which says nothing.
        rig.until("the worker has gone", || rig.left_behind().is_empty());
        assert_eq!(heard(&rig), [""; 0], "{signal}");
    }
}

fn heard(rig: &Rig) -> Vec<String> {
    let lines = rig.lines().into_iter();
    lines.filter(|l| l.starts_with("heard")).collect()
}

#[test]
fn an_error_from_the_background_of_a_terminal_ends_the_program() {
    // `stty tostop`: whoever writes from the background is stopped by a signal that a master handles.
    let place = Place::new();
    let (_far, near) = birth::open_terminal();
    let (stdin, stderr) = (near.try_clone().unwrap(), near.try_clone().unwrap());
    let script = "set -m; stty tostop; \"$0\" -C here.sock -- sleep 1000 & wait $!";
    std::fs::write(place.dir.join("here.sock"), "in the way").unwrap();
    let mut cmd = place.command_by(&["sh", "-c", script].map(String::from));
    birth::on_terminal(&mut cmd, near);
    let mut child = cmd.stdin(stdin).stderr(stderr).spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        assert!(Instant::now() < end, "it writes for ever");
        std::thread::sleep(LOOK);
    };
    assert_eq!(code, Some(73));
}
