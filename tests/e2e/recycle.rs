//! Workers are replaced one at a time, by their age, their memory, the connections that they have served,
//! their own wish, or because somebody asks for it; no client notices. The server here dies at once of its
//! stop signal.

use crate::client::{get, v4};
use crate::harness::Rig;
use crate::load::Load;
use crate::place::{free_port, python};
use std::fs;
use tinyjson::JsonValue;

/// So many of the blocking server, with these options of ours and its own.
fn serving(workers: u16, port: u16, ours: &str, its: &str) -> Rig {
    let python = python();
    let words = format!("-n {workers} -p {port} {ours} -- {python} blocking.py backlog=100 {its}");
    let mut rig = Rig::start(words);
    rig.up();
    rig
}

/// Never were there two that were to take a place, nor two that made room: each is recycled when the one
/// before has gone. So many were, by then.
fn one_at_a_time(rig: &Rig) -> usize {
    let began = rig.events("recycling");
    let reasons = ["recycle", "restart"];
    let ended: Vec<_> = rig
        .events("died")
        .into_iter()
        .filter(|e| reasons.contains(&e.text("reason")))
        .collect();
    for (n, next) in began.iter().enumerate().skip(1) {
        let before = &ended[n - 1];
        assert_eq!(
            before.pid(),
            began[n - 1].pid(),
            "in the order of their turns"
        );
        assert!(before.text("ts") <= next.text("ts"), "{before:?} {next:?}");
    }
    let forked = rig.events("forked");
    let successors = forked
        .iter()
        .filter(|e| reasons.contains(&e.text("reason")));
    assert!(successors.count() <= ended.len() + 1);
    ended.len()
}

#[test]
fn workers_of_an_age_are_replaced_and_no_client_notices() {
    let port = free_port();
    let mut rig = serving(3, port, "--max-age 2s --recycle-jitter 50%", "");
    let load = Load::going(&format!("{port} clients=4"));
    for _ in 0..6 {
        let e = rig.wait("recycling", |_| true);
        assert_eq!(e.text("reason"), "age");
        let (age, limit) = (e.number("age"), e.number("limit"));
        assert!((1.0..=2.0).contains(&limit) && age >= limit, "{e:?}");
    }
    let (well, tally) = load.finish();
    assert!(well && tally.of("pids") >= 6, "{tally:?}");
    assert!(one_at_a_time(&rig) >= 5);
    let status = rig.status();
    assert_eq!((status.ready, status.wanted), (3, 3));
    rig.end(&[]);
}

#[test]
fn a_worker_that_leaks_is_replaced() {
    let port = free_port();
    let limit = "--max-rss 60M --recycle-jitter 0%";
    let mut rig = serving(2, port, limit, "leak=200");
    let mut load = Load::going(&format!("{port} clients=4"));
    load.until("enough is lost", |t| t.of("requests") > 1000);
    for _ in 0..2 {
        let e = rig.wait("recycling", |_| true);
        assert_eq!(e.text("reason"), "rss");
        assert_eq!(e.number("limit"), (60 << 20) as f64);
        assert!(e.number("rss") > e.number("limit"), "{e:?}");
    }
    rig.wait_many("died", 2);
    let (well, tally) = load.finish();
    assert!(well && tally.of("pids") >= 4, "{tally:?}");
    assert_eq!(one_at_a_time(&rig), 2);
    rig.end(&[]);
}

/// The kernel keeps 15 bytes of a name, whatever they are the half of.
#[test]
fn a_worker_that_leaks_is_replaced_whatever_its_name_is() {
    let port = free_port();
    let limit = "--max-rss 60M --recycle-jitter 0%";
    let name: String = "xxxxxxxxxxxxxx\u{e9}"
        .bytes()
        .take(15)
        .map(|b| format!("{b:02x}"))
        .collect();
    let mut rig = serving(1, port, limit, &format!("leak=200 name={name}"));
    let pid = rig.status().pids()[0];
    let comm = fs::read(format!("/proc/{pid}/comm")).unwrap();
    assert_eq!(comm, b"xxxxxxxxxxxxxx\xc3\n");
    let said: JsonValue = rig.verb("status --json").out.parse().unwrap();
    let rss = *said["slots"][0]["rss"].get::<f64>().unwrap();
    assert!(rss > 1e6, "{said:?}");
    let mut load = Load::going(&format!("{port} clients=2"));
    let e = rig.wait("recycling", |_| true);
    assert_eq!((e.pid(), e.text("reason")), (pid, "rss"));
    rig.wait("died", |e| e.pid() == pid);
    load.until("the next one serves", |t| t.of("pids") > 1);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    rig.end(&[]);
}

#[test]
fn a_worker_that_wants_to_be_replaced_as_soon_as_it_is_ready_is_no_fork_loop() {
    let place = |dir: &std::path::Path| dir.join("su.sh");
    let script = r##"#!/bin/sh
eval "printf '\"ready\"\n{\"type\":\"suicide\"}\n' >&$NODE_CHANNEL_FD"
exec sleep 1000
"##;
    let limits = "--restarts-per-minute 3 --max-forks 50 --respawn 20ms";
    let words = format!("-n 1 --ipc node --ready ready --drain none {limits} -- sh su.sh");
    let mut rig = Rig::dressed(words, |_, dir| fs::write(place(dir), script).unwrap());
    let first = rig.wait("recycle-later", |_| true);
    assert!(
        first.msg.contains("(failures in a row: 1)"),
        "{}",
        first.msg
    );
    let story = rig.wait("crash-loop", |_| true);
    assert_eq!(story.number("respawns"), 3.0);
    assert!(story.msg.contains("1/1 workers ready"), "{}", story.msg);
    // The first one, and those that there was room for; the last one serves on.
    let failures: Vec<f64> = rig
        .events("recycling")
        .iter()
        .map(|e| e.number("failures"))
        .collect();
    assert_eq!(failures, [1.0, 2.0, 3.0]);
    assert_eq!(rig.events("forked").len(), 4);
    rig.wait_status("it serves", |s| s.ready == 1);
    rig.wait_many("died", 3);
    rig.note_descriptors();
    // An operator need not wait.
    assert_eq!(rig.verb("restart 0").code, 0);
    rig.end(&["crash-loop"]);
}

#[test]
fn who_has_served_as_many_connections_as_it_may_is_replaced() {
    let port = free_port();
    let limit = "--max-connections 100 --recycle-jitter 0%";
    let mut rig = serving(1, port, limit, "");
    let served = |rig: &Rig| {
        let said = rig.verb("workers details --json");
        let json: JsonValue = said.out.parse().unwrap();
        *json[0]["served"].get::<f64>().unwrap()
    };
    let first = get(v4(port), "/").unwrap().pid();
    for _ in 1..99 {
        assert_eq!(get(v4(port), "/").unwrap().pid(), first);
    }
    rig.until("all are counted", || served(&rig) == 99.0);
    assert!(rig.events("recycling").is_empty());
    // The next is one too many, or one of the next: what has ended is heard a moment later.
    for _ in 0..10 {
        get(v4(port), "/").unwrap();
    }
    let e = rig.wait("recycling", |_| true);
    assert_eq!((e.pid(), e.text("reason")), (first, "connections"));
    assert_eq!(e.number("limit"), 100.0);
    let n = e.number("connections");
    assert!((100.0..=110.0).contains(&n), "{e:?}");
    // By a client that has several at a time, as fast as it can.
    let load = Load::going(&format!("{port} clients=4"));
    for _ in 0..3 {
        let e = rig.wait("recycling", |_| true);
        assert!(e.number("connections") >= 100.0, "{e:?}");
        rig.wait("died", |d| d.pid() == e.pid());
    }
    let (well, tally) = load.finish();
    assert!(well && tally.of("pids") >= 3, "{tally:?}");
    one_at_a_time(&rig);
    rig.end(&[]);
}

#[test]
fn what_does_not_tell_whose_a_connection_was_is_refused() {
    for balance in ["shared", "cpu"] {
        let words = format!("--max-connections 9 --balance {balance} -- ./threaded");
        let rig = Rig::start(words);
        rig.wait_line("--max-connections needs --balance hash or ip");
        rig.finish(64, &[]);
    }
}

#[test]
fn one_worker_is_restarted_while_the_others_go_on() {
    let port = free_port();
    let rig = serving(3, port, "--balance hash", "");
    let old = rig.status().pids();
    let load = Load::going(&format!("{port} clients=4"));
    let said = rig.verb("restart 1");
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    assert!(
        said.out
            .contains(&format!(" in place of worker 1 pid {}", old[1])),
        "{said:?}"
    );
    let now = rig.status().pids();
    assert_eq!((now[0], now[2]), (old[0], old[2]));
    assert_ne!(now[1], old[1]);
    let said = rig.verb(format!("restart pid:{} --json", now[2]));
    let json: JsonValue = said.out.parse().unwrap();
    assert_eq!(json["old"].get::<f64>(), Some(&f64::from(now[2])));
    assert_eq!(json["slot"].get::<f64>(), Some(&2.0));
    // Several are made one after the other.
    let all: Vec<_> = (0..3)
        .map(|n| rig.meanwhile(format!("restart {n}")))
        .collect();
    for said in all {
        assert_eq!(said.join().unwrap().code, 0);
    }
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    assert_eq!(one_at_a_time(&rig), 5);
    for (words, code) in [("restart 3", 64), ("restart 1 soon", 64)] {
        assert_eq!(rig.verb(words).code, code, "{words}");
    }
    let said = rig.verb("restart all");
    assert!(said.out.starts_with("generation 2 serves"), "{said:?}");
    rig.end(&[]);
}

#[test]
fn a_new_one_that_fails_leaves_the_old_one_where_it_is() {
    let port = free_port();
    let mut rig = serving(2, port, "--balance hash", "broken=bad mute=mute");
    let old = rig.status().pids();
    fs::write(rig.dir().join("bad"), "").unwrap();
    let said = rig.verb("restart 0");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err.contains("not restarted: worker 0 pid "),
        "{said:?}"
    );
    assert!(said.err.contains("this version is broken"), "{said:?}");
    fs::remove_file(rig.dir().join("bad")).unwrap();
    fs::write(rig.dir().join("mute"), "").unwrap();
    let said = rig.verb("restart 0 timeout 500ms");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("not-ready"), "{said:?}");
    assert_eq!(rig.status().pids(), old);
    // And a reload that begins meanwhile is what happens instead.
    let before = rig.tales("mute").len();
    let waits = rig.meanwhile("restart 1");
    rig.wait("recycling", |e| e.slot() == 1);
    rig.until("that one is mute", || rig.tales("mute").len() > before);
    fs::remove_file(rig.dir().join("mute")).unwrap();
    assert_eq!(rig.verb("reload").code, 0);
    let said = waits.join().unwrap();
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("a reload has begun"), "{said:?}");
    rig.end(&["recycle-failed", "died", "not-ready"]);
}

#[test]
fn a_worker_that_says_that_it_goes_is_replaced_first() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --balance hash --ready ready -- python3 speech.py says");
    let mut rig = Rig::start(words);
    fs::write(rig.dir().join("go"), "").unwrap();
    rig.up();
    fs::write(rig.dir().join("words"), "STOPPING=1").unwrap();
    let pid = rig.status().pids()[1];
    assert_eq!(rig.verb("signal USR1 1").code, 0);
    let e = rig.wait("recycling", |_| true);
    assert_eq!(
        (e.pid(), e.text("reason"), e.text("word")),
        (pid, "wish", "stopping")
    );
    let e = rig.wait("died", |_| true);
    assert_eq!((e.pid(), e.text("reason")), (pid, "recycle"));
    assert_eq!(rig.status().ready, 2);
    rig.end(&[]);
}

/// One that shares its queue gets connections until the moment in which it is asked to stop.
#[test]
fn of_those_that_share_a_queue_one_goes_at_rest_and_no_client_notices() {
    let python = format!("{} blocking.py backlog=100", python());
    for server in ["./threaded", &python] {
        let port = free_port();
        let mut rig = Rig::start(format!("-n 4 -p {port} -- {server}"));
        rig.up();
        let load = Load::going(&format!("{port} clients=6"));
        for slot in 0..8 {
            let said = rig.verb(format!("restart {}", slot % 4));
            assert_eq!(said.code, 0, "{server}: {said:?}");
        }
        for n in [3, 4, 2, 4] {
            let said = rig.verb(format!("resize {n}"));
            assert_eq!(said.code, 0, "{server}: {said:?}");
        }
        let (well, tally) = load.finish();
        assert!(well && tally.of("pids") >= 12, "{server}: {tally:?}");
        rig.end(&[]);
    }
}

/// Whose clients keep their connections is emptied as with a queue of its own, and then goes at rest.
#[test]
fn one_that_shares_its_queue_ends_the_connections_of_clients_that_never_rest() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 3 -p {port} --drain-timeout 2s -- ./threaded"));
    rig.up();
    let load = Load::going(&format!("{port} clients=6 mode=keepalive"));
    let old = rig.status().pids();
    for slot in 0..3 {
        let said = rig.verb(format!("restart {slot}"));
        assert_eq!(said.code, 0, "{said:?}");
    }
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    let drained = rig.events("drained");
    let of_old = drained.iter().filter(|e| old.contains(&e.pid()));
    let cut: f64 = of_old.map(|e| e.number("cut")).sum();
    // All connections that there were have ended: quiet ones, in the last second, or with a worker that was
    // at rest. Those that have come in the very last moment may be cut, and most are not.
    let ends = (tally.of("polite") + tally.of("reused")) as f64;
    assert!(2.0 * cut < ends, "{cut} of {ends} cut: {drained:?}");
    rig.end(&["drained"]);
}

#[test]
fn one_that_an_operator_has_stopped_or_whose_child_is_in_a_group_of_its_own_goes_as_it_is() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded --setsid-child"));
    rig.up();
    let old = rig.status().pids();
    assert_eq!(rig.verb("restart 0").code, 0);
    crate::hung::stop(&rig, old[1]);
    assert_eq!(rig.verb("restart 1").code, 0);
    assert!(rig.status().pids().iter().all(|pid| !old.contains(pid)));
    assert_eq!(get(v4(port), "/").unwrap().status, 200);
    // The children of those that have gone are there still, and are watched over.
    rig.note_descriptors();
    rig.end(&[]);
}
