//! "What cannot be taken over, and what happens instead": each case is said, and either works by
//! another way or fails loudly.

use crate::client::{all_answer, get, v4};
use crate::harness::Rig;
use crate::place::{BINARY, free_port};
use nix::sys::signal::Signal;

#[test]
fn a_socket_that_cannot_stand_beside_ours_is_refused_loudly() {
    refused(
        "--epoll-before-bind --v6",
        &["epoll set", "another family", "-H"],
    );
    refused("--dup-before-bind --v6", &["duplicated"]);
}

fn refused(habit: &str, why: &[&str]) {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded {habit}"));
    let said = rig.wait("takeover-snag", |_| true);
    assert_eq!(said.level, "error");
    for part in ["EOPNOTSUPP", "LISTEN_FDS", "--takeover off"]
        .iter()
        .chain(why)
    {
        assert!(said.msg.contains(part), "{}", said.msg);
    }
    let (_, errno) = rig.told("bind-failed");
    assert_eq!(errno, Some(libc::EOPNOTSUPP));
    // It dies of it, again and again; that is said once.
    rig.wait_many("died", 4);
    assert_eq!(rig.events("takeover-snag").len(), 1);
    rig.end(&["takeover-snag", "died"]);
}

#[test]
fn without_takeover_a_server_can_use_the_socket_passed_to_it() {
    for habit in ["--accept-adopt", "--no-listen-adopt"] {
        let port = free_port();
        let mut rig = Rig::start(format!(
            "-n 4 -p {port} --takeover off -- ./threaded {habit}"
        ));
        rig.up();
        all_answer(&rig, v4(port), "/", 4);
        assert_eq!(rig.status().takeover, "off");
        let victim = rig.status().pids()[3];
        rig.replace(victim);
        all_answer(&rig, v4(port), "/", 4);
        rig.end(&["died"]);
    }
}

#[test]
fn without_takeover_our_socket_is_closed_when_a_server_shares_the_port_by_itself() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 4 -p {port} --takeover off -- ./threaded --reuseport"
    ));
    rig.wait("all-ready", |_| true);
    let closed = rig.events("port-closed");
    assert_eq!(closed.len(), 1, "{closed:?}");
    // It is served all the same.
    assert_eq!(rig.status().ports, [format!("0.0.0.0:{port}")]);
    // A queue of ours would keep a fifth of them waiting.
    all_answer(&rig, v4(port), "/", 4);
    for _ in 0..50 {
        assert_eq!(get(v4(port), "/").unwrap().status, 200);
    }
    rig.note_descriptors();
    let victim = rig.status().pids()[0];
    rig.replace(victim);
    all_answer(&rig, v4(port), "/", 4);
    rig.end(&["port-closed", "died"]);
}

#[test]
fn without_takeover_a_server_that_binds_by_itself_fails_and_its_last_words_are_told() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} --takeover off --start-timeout 2s -- ./threaded"
    ));
    let gave_up = rig.wait("never-ready", |_| true);
    let last = "threaded: bind: Address already in use";
    assert!(gave_up.msg.contains(last), "{}", gave_up.msg);
    // It does not know why; we do.
    let why = rig.events("handed-only");
    assert_eq!(why.len(), 1, "{why:?}");
    for part in ["fd 3", "LISTEN_FDS", "SO_REUSEPORT"] {
        assert!(why[0].msg.contains(part), "{}", why[0].msg);
    }
    rig.finish(69, &["handed-only", "never-ready", "died"]);
}

#[test]
fn without_takeover_and_a_port_only_one_worker_can_have_it_and_that_is_said() {
    let port = free_port();
    let words = format!("-n 2 --takeover off --ready 500ms -- ./threaded --port {port}");
    let mut rig = Rig::start(words);
    let said = rig.wait("handed-only", |_| true);
    for part in ["one worker only", "SO_REUSEPORT", "LISTEN_FDS"] {
        assert!(said.msg.contains(part), "{}", said.msg);
    }
    rig.wait_many("died", 3);
    assert_eq!(rig.events("handed-only").len(), 1);
    rig.wait_status("one has it", |s| s.ready == 1);
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["handed-only", "died"]);
}

#[test]
fn a_list_of_ports_that_lacks_the_given_one_is_told_what_to_add() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} --takeover 1 --start-timeout 2s -- ./threaded"
    ));
    let said = rig.wait("bind-passed", |_| true);
    assert!(
        said.msg.contains(&format!("add {port} to the list")),
        "{}",
        said.msg
    );
    rig.finish(69, &["bind-passed", "never-ready", "died"]);
}

#[test]
fn inside_the_worker_of_another_it_goes_on_without_takeover() {
    let (outer, inner) = (free_port(), free_port());
    // The inner one speaks text, so that its lines are not taken for the outer one's.
    let rig = Rig::start(format!(
        "-n 1 --takeover {outer} --ready 1s -- {BINARY} -n 2 -p {inner} --log-format text -- \
         ./threaded --accept-adopt"
    ));
    rig.wait_line("all 2 workers ready");
    all_answer(&rig, v4(inner), "/", 2);
    let refusals = rig.lines();
    let refusals = refusals.iter().filter(|l| l.contains("cannot watch"));
    let refusals: Vec<&String> = refusals.collect();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(refusals[0].contains("warning: "), "{refusals:?}");
    assert!(refusals[0].contains("outer supervisor"), "{refusals:?}");
    rig.end(&[]);
}

#[test]
fn inside_the_worker_of_another_both_can_have_the_same_port() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} -- {BINARY} -n 2 -p {port} --log-format text -- ./threaded --accept-adopt"
    ));
    rig.up();
    rig.wait_line("all 2 workers ready");
    all_answer(&rig, v4(port), "/", 2);
    rig.end(&[]);
}

#[test]
fn takeover_that_is_required_and_refused_is_exit_71() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 1 --takeover 1 --ready started -- {BINARY} -n 2 -p {port} --takeover require \
         --log-format text -- ./threaded --accept-adopt"
    ));
    let died = rig.wait("died", |_| true);
    assert_eq!(died.number("code"), 71.0);
    rig.wait_line("--takeover require: not running it");
    rig.end(&["died"]);
}
