//! "When a worker counts as ready", and what becomes of one that never is.

use crate::client::{all_answer, v4};
use crate::harness::{Rig, sigkill};
use crate::place::free_port;
use nix::sys::signal::Signal;

#[test]
fn started_is_ready_as_soon_as_the_command_is_executed() {
    let mut rig = Rig::start("-n 3 --ready started -- ./threaded --never-listen");
    rig.up();
    assert!(rig.events("listening").is_empty());
    let status = rig.status();
    assert_eq!((status.ready, status.takeover.as_str()), (3, "unused"));
    rig.end(&[]);
}

#[test]
fn auto_is_started_without_a_port() {
    let mut rig = Rig::start("-n 2 -- ./threaded --never-listen");
    rig.up();
    rig.end(&[]);
}

#[test]
fn listening_waits_for_listen_and_50_ms_more_for_the_first() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 2 --ready listening -- ./threaded --port {port}"
    ));
    rig.up();
    let (listening, ready) = (rig.events("listening"), rig.events("ready"));
    let first = ready[0].number("after");
    let heard = listening
        .iter()
        .find(|e| e.pid() == ready[0].pid())
        .unwrap();
    assert!(
        first - heard.number("after") >= 0.049,
        "{heard:?} {ready:?}"
    );
    // From then on it is known that the command does not merely probe.
    let victim = ready[0].pid();
    rig.replace(victim);
    let (listening, ready) = (rig.events("listening"), rig.events("ready"));
    let gap = ready[2].number("after") - listening[2].number("after");
    assert!(gap < 0.049, "{gap}");
    rig.end(&["died"]);
}

#[test]
fn a_duration_is_ready_when_it_has_been_alive_that_long() {
    let mut rig = Rig::start("-n 2 --ready 400ms -- ./threaded --never-listen");
    rig.up();
    for ready in rig.events("ready") {
        let after = ready.number("after");
        assert!(after >= 0.4, "{after}");
    }
    rig.end(&[]);
}

#[test]
fn one_that_dies_before_its_duration_is_over_never_was_ready() {
    let rig = Rig::start(
        "-n 1 --ready 10s --respawn 10ms -- ./threaded --never-listen --exit-after-ms 50",
    );
    rig.wait_many("died", 3);
    assert!(rig.events("ready").is_empty());
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["died"]);
}

#[test]
fn a_program_that_probes_for_a_port_is_not_ready_by_that() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} -- ./threaded --probe --probe-pause 400"
    ));
    for pid in rig.wait_many("let-go", 2).iter().map(|e| e.pid()) {
        let ready = rig.wait_many("ready", 2);
        let ready = ready.iter().find(|e| e.pid() == pid).unwrap();
        assert!(ready.number("after") >= 0.4, "{ready:?}");
    }
    rig.up();
    all_answer(&rig, v4(port), "/", 2);
    // Once a command has kept its socket, the replacement counts at once, probe or not.
    rig.end(&[]);
}

#[test]
fn a_server_that_uses_the_socket_passed_to_it_need_not_call_listen() {
    for habit in ["--no-listen-adopt", "--accept-adopt"] {
        let port = free_port();
        let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded {habit}"));
        rig.up();
        assert!(rig.events("listening").is_empty());
        all_answer(&rig, v4(port), "/", 2);
        rig.end(&[]);
    }
}

#[test]
fn a_worker_that_never_listens_is_killed_and_told_both_numbers() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --ready-timeout 300ms --respawn 10ms -- ./threaded --never-listen"
    ));
    let told = rig.wait("not-ready", |_| true);
    assert!(told.number("after") >= 0.3, "{told:?}");
    for part in [
        "not ready after ",
        "(limit 300ms)",
        "--ready started",
        "--takeover",
    ] {
        assert!(told.msg.contains(part), "{}", told.msg);
    }
    let died = rig.wait("died", |e| e.pid() == told.pid());
    assert_eq!(died.text("reason"), "not-ready");
    assert_eq!(died.text("signal"), "SIGKILL");
    rig.wait("forked", |e| e.text("reason") != "start");
    rig.end(&["not-ready", "died"]);
}

#[test]
fn a_cluster_that_never_had_a_ready_worker_gives_up_with_its_last_words() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} --start-timeout 2s --respawn 50ms -- ./threaded --crash-at-start"
    ));
    let told = rig.wait("never-ready", |_| true);
    let last = "threaded: reading the configuration\nthreaded: no such database: stock\n\
                threaded: cannot go on";
    assert!(told.msg.contains(last), "{}", told.msg);
    assert!(told.msg.contains("within 2s"), "{}", told.msg);
    // They were passed on as they came, too.
    rig.wait_line("no such database");
    rig.finish(69, &["never-ready", "died"]);
}

#[test]
fn a_port_that_was_given_and_that_nobody_serves_is_said() {
    let (one, two) = (free_port(), free_port());
    // It knows PORT, and that is the first.
    let mut rig = Rig::start(format!("-n 2 -p {one} -p {two} -- ./threaded"));
    rig.up();
    let said = rig.wait("unserved", |_| true);
    assert_eq!(said.addr().port(), two);
    assert!(said.msg.contains("its clients hang"), "{}", said.msg);
    all_answer(&rig, v4(one), "/", 2);
    rig.end(&["unserved"]);
}

#[test]
fn one_that_waits_for_ever_at_its_start_is_quoted_although_it_lives() {
    let port = free_port().to_string();
    let script = "echo 'still waiting for the database' >&2; exec ./threaded --never-listen";
    let mut rig = Rig::start([
        "-n",
        "2",
        "-p",
        &port,
        "--start-timeout",
        "2s",
        "--",
        "sh",
        "-c",
        script,
    ]);
    rig.wait_line("still waiting");
    let told = rig.wait("never-ready", |_| true);
    let last = "its last words on stderr:\nstill waiting for the database";
    assert!(told.msg.ends_with(last), "{}", told.msg);
    assert!(told.msg.contains("fd 3"), "{}", told.msg);
    rig.finish(69, &["never-ready"]);
}

#[test]
fn a_cluster_that_was_ready_once_does_not_give_up() {
    let port = free_port();
    // The first worker is ready in time, and no other is ever.
    let script = "mkdir once || exit 1; exec ./threaded";
    let mut rig = Rig::start([
        "-n",
        "1",
        "-p",
        &port.to_string(),
        "--start-timeout",
        "2s",
        "--respawn",
        "100ms",
        "--backoff",
        "0",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let first = rig.wait("ready", |_| true);
    sigkill(first.pid());
    // Each wait takes 80 ms or more: the start timeout is over long since.
    rig.wait_many("died", 30);
    assert!(rig.events("never-ready").is_empty());
    rig.wait_status("it goes on", |s| s.rows[0].state == "waiting");
    rig.end(&["died"]);
}
