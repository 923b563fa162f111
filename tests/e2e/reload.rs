//! All workers are exchanged for new ones: by whom it is asked for, what the asker hears, and what
//! comes between. What is exchanged here is a server that dies at once of its stop signal.

use crate::birth;
use crate::client::{get, v4};
use crate::harness::Rig;
use crate::load::Load;
use crate::log::Event;
use crate::place::{free_port, python};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use tinyjson::JsonValue;

/// Two workers of the blocking server.
fn blocking(port: u16) -> Rig {
    let mut rig = Rig::start(format!("-n 2 -p {port} -- {} blocking.py", python()));
    rig.up();
    rig
}

/// Two workers; those of later generations are ready when there is a file `go`.
fn waiting() -> (Rig, u16) {
    let port = free_port();
    let script = "until test $MINICLUSTER_GENERATION = 1 || test -e go; do sleep 0.01; done; \
                  exec ./threaded --polite 5000";
    let p = port.to_string();
    let mut rig = Rig::start(["-n", "2", "-p", &p, "--", "sh", "-c", script]);
    rig.up();
    (rig, port)
}

#[test]
fn hup_and_usr2_exchange_all_workers() {
    for signal in [Signal::SIGHUP, Signal::SIGUSR2] {
        let port = free_port();
        let words = format!("-n 2 -p {port} -- {} blocking.py", python());
        // Of one that has a terminal a HUP may mean another thing.
        let mut rig = Rig::dressed(words, |cmd, _| birth::without_terminal(cmd));
        rig.up();
        let old = rig.status().pids();
        let load = Load::going(&port.to_string());
        rig.signal(signal);
        let begun = rig.wait("reload-started", |_| true);
        assert_eq!(begun.number("generation"), 2.0);
        assert_eq!(begun.text("reason"), format!("{signal} received"));
        let done = rig.wait("reload-finished", |_| true);
        assert_eq!(done.number("generation"), 2.0);
        let (well, tally) = load.finish();
        assert!(well && tally.of("pids") > 2, "{tally:?}");
        let new = rig.status().pids();
        assert!(new.len() == 2 && old.iter().all(|pid| !new.contains(pid)));
        for died in rig.wait_many("died", 2) {
            assert_eq!(died.text("reason"), "restart");
        }
        rig.end(&[]);
    }
}

#[test]
fn the_verb_returns_when_the_new_ones_serve_and_the_old_ones_have_gone() {
    let port = free_port();
    let mut rig = blocking(port);
    let old = rig.status().pids();
    let said = rig.verb("reload");
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    assert!(
        said.out.starts_with("generation 2 serves, after "),
        "{said:?}"
    );
    assert!(rig.status().beside.is_empty());
    // (Our log is read by a thread of its own.)
    rig.wait_many("died", 2);
    assert!(!old.contains(&get(v4(port), "/").unwrap().pid()));
    let begun = rig.wait("reload-started", |_| true);
    assert_eq!(begun.text("reason"), "asked by a client");
    assert!(begun.number("by_pid") > 1.0);

    let said = rig.verb("reload --json");
    let json: JsonValue = said.out.parse().unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(json["generation"].get::<f64>(), Some(&3.0));
    assert!(*json["took"].get::<f64>().unwrap() > 0.0);
    assert!(json["error"].is_null());

    let said = rig.verb("reload --no-wait");
    assert_eq!(
        (said.code, said.out.as_str()),
        (0, "reloading to generation 4\n"),
        "{said:?}"
    );
    rig.wait("reload-finished", |e| e.number("generation") == 4.0);
    assert!(rig.verb("status").out.contains(" generation 4 "));
    assert_eq!(rig.verb("reload 1").code, 64);
    rig.end(&[]);
}

#[test]
fn each_worker_is_told_of_which_generation_it_is() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 1 -p {port} -- ./threaded --env"));
    rig.up();
    for generation in ["1", "2", "3"] {
        let report = get(v4(port), "/env").unwrap();
        report.has_env(&[("MINICLUSTER_GENERATION", generation), ("WORKER_ID", "0")]);
        assert_eq!(rig.verb("reload").code, 0);
    }
    rig.end(&[]);
}

#[test]
fn a_hup_before_anything_is_ready_exchanges_those_that_are_on_their_way() {
    let port = free_port();
    let script = "test $MINICLUSTER_GENERATION = 2 || exec sleep 60; exec ./threaded";
    let words = ["-n", "2", "-p", &port.to_string(), "--", "sh", "-c", script];
    let mut rig = Rig::start(words);
    rig.wait_many("forked", 2);
    rig.signal(Signal::SIGHUP);
    rig.wait("reload-finished", |_| true);
    let status = rig.status();
    assert_eq!((status.ready, status.wanted), (2, 2));
    assert_eq!(get(v4(port), "/").unwrap().status, 200);
    assert_eq!(rig.wait_many("died", 2).len(), 2);
    rig.end(&[]);
}

#[test]
fn the_later_reload_counts_and_who_waits_for_the_first_is_told() {
    let (mut rig, port) = waiting();
    let old = rig.status().pids();
    let load = Load::going(&port.to_string());
    let first = rig.meanwhile("reload");
    rig.wait_many("forked", 4);
    let second = rig.meanwhile("reload");
    let said = first.join().unwrap();
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    assert!(said.err.contains("another reload has begun"), "{said:?}");
    assert_eq!(rig.status().pids(), old);
    fs::write(rig.dir().join("go"), "").unwrap();
    let said = second.join().unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.starts_with("generation 3 serves"), "{said:?}");
    rig.wait("reload-finished", |e| e.number("generation") == 3.0);
    assert_eq!(rig.status().ready, 2);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    rig.end(&[]);
}

#[test]
fn reloads_that_follow_at_once_end_with_the_last() {
    let port = free_port();
    let rig = blocking(port);
    let load = Load::going(&port.to_string());
    for _ in 0..5 {
        assert_eq!(rig.verb("reload --no-wait").code, 0);
    }
    let said = rig.verb("reload");
    assert!(said.out.starts_with("generation 7 serves"), "{said:?}");
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    let status = rig.status();
    assert_eq!((status.ready, status.rows.len()), (2, 2));
    rig.wait_many("died", rig.events("forked").len() - 2);
    rig.end(&[]);
}

#[test]
fn a_stop_comes_before_a_reload_and_is_told() {
    let (rig, _) = waiting();
    let reload = rig.meanwhile("reload --json");
    rig.wait_many("forked", 4);
    assert_eq!(rig.verb("stop").code, 0);
    let said = reload.join().unwrap();
    assert_eq!(said.code, 1, "{said:?}");
    let json: JsonValue = said.out.parse().unwrap();
    assert!(json["took"].is_null());
    let error = json["error"].get::<String>().unwrap();
    assert_eq!(error, "the cluster stops");
    rig.finish(0, &[]);
}

#[test]
fn a_client_that_hangs_up_does_not_call_a_reload_off() {
    let (mut rig, port) = waiting();
    let mut cmd = rig.command();
    cmd.arg("-C").arg(rig.socket()).arg("reload");
    let mut client = cmd.spawn().unwrap();
    rig.wait_many("forked", 4);
    client.kill().unwrap();
    client.wait().unwrap();
    fs::write(rig.dir().join("go"), "").unwrap();
    rig.wait("reload-finished", |_| true);
    assert_eq!(get(v4(port), "/").unwrap().status, 200);
    rig.end(&[]);
}

#[test]
fn another_number_of_workers_may_be_asked_for_meanwhile() {
    let (mut rig, port) = waiting();
    let load = Load::going(&port.to_string());
    let reload = rig.meanwhile("reload");
    rig.wait_many("forked", 4);
    let more = rig.meanwhile("resize 3");
    rig.wait("resizing", |_| true);
    fs::write(rig.dir().join("go"), "").unwrap();
    assert_eq!(more.join().unwrap().code, 0);
    let said = reload.join().unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    let status = rig.status();
    assert_eq!((status.ready, status.rows.len()), (3, 3));
    // And fewer, while the next one is under way.
    let reload = rig.meanwhile("reload");
    rig.wait("reload-started", |_| true);
    assert_eq!(rig.verb("resize 2").code, 0);
    assert_eq!(reload.join().unwrap().code, 0);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    let status = rig.status();
    assert_eq!((status.ready, status.rows.len()), (2, 2));
    rig.end(&[]);
}

#[test]
fn a_worker_that_dies_meanwhile_is_nobodys_failure() {
    let (mut rig, port) = waiting();
    let reload = rig.meanwhile("reload");
    rig.wait_many("forked", 4);
    let victim = rig.status().pids()[0];
    crate::harness::sigkill(victim);
    rig.wait("died", |e| e.pid() == victim);
    fs::write(rig.dir().join("go"), "").unwrap();
    let said = reload.join().unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    let status = rig.status();
    assert_eq!((status.ready, status.rows.len()), (2, 2));
    assert_eq!(get(v4(port), "/").unwrap().status, 200);
    rig.end(&["died"]);
}

/// Each reload takes the place of the one before, and has workers of its own forked. Who asks for them faster than a
/// child is born keeps nobody else from being replaced.
#[test]
fn reloads_without_end_keep_no_dead_worker_from_being_replaced() {
    let port = free_port();
    let server = format!("{} blocking.py start=300", python());
    let words = format!("-n 2 -p {port} --respawn 0 --backoff 0 -- {server}");
    let mut rig = Rig::start(words);
    rig.up();
    let over = Arc::new(AtomicBool::new(false));
    let storms: [_; 4] = std::array::from_fn(|_| {
        let (over, socket) = (over.clone(), rig.socket());
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let mut stream = UnixStream::connect(&socket).unwrap();
                stream.write_all(b"reload --no-wait\n").unwrap();
                // Answered, and so begun.
                let _ = stream.read(&mut [0; 100]);
            }
        })
    });
    rig.until("there is a storm", || {
        rig.events("reload-started").len() > 100
    });
    // One at a time, so that somebody serves.
    for slot in [0, 1, 0, 1] {
        let of_it = |e: &Event| e.slot() == slot && e.number("generation") == 1.0;
        let born = rig.events("forked").into_iter().rfind(of_it).unwrap().pid();
        let before = rig.events("reload-started").len();
        rig.replace(born);
        let since = rig.events("reload-started").len() - before;
        println!("slot {slot} had its next worker after {since} reloads");
    }
    over.store(true, Ordering::Relaxed);
    storms.into_iter().for_each(|s| s.join().unwrap());
    // What was asked for last comes to its end.
    rig.until("all is calm", || rig.verb("reload").code == 0);
    rig.end(&["died", "reload-failed", "unhealthy"]);
}
