//! New workers that go ahead of the others, and are watched: code that does not work, or not for long,
//! is taken back in the moment in which that is seen, and nobody but its own clients has noticed.

use crate::client::{ask, from, get, v4};
use crate::harness::{Rig, sigkill};
use crate::load::{Load, Tally};
use crate::place::{Said, free_port};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};

/// The server, but what the file `broken` says while there is one.
const SCRIPT: &str =
    "test -e broken || exec ./threaded; echo this version is broken >&2; . ./broken";

/// Four workers, and how a reload of them goes.
fn four(options: &str, broken: &str) -> (Rig, u16) {
    let port = free_port();
    let words = format!("-n 4 -p {port} --ready-timeout 5s {options} -- sh -c");
    let words = words.split_whitespace().chain([SCRIPT]);
    let mut rig = Rig::start(words.map(String::from).collect::<Vec<String>>());
    rig.up();
    fs::write(rig.dir().join("broken"), broken).unwrap();
    (rig, port)
}

/// Asks for a reload under load. It fails, and there are never fewer than four ready meanwhile.
fn fails(rig: &Rig, port: u16) -> (Said, Tally) {
    let old = rig.status().pids();
    let load = Load::going(&port.to_string());
    let asked = rig.meanwhile("reload");
    rig.until("it is over", || {
        let status = rig.status();
        assert!(status.ready >= 4, "{status:?}");
        asked.is_finished()
    });
    let said = asked.join().unwrap();
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    assert_eq!(rig.status().pids(), old);
    let (_, tally) = load.finish();
    (said, tally)
}

/// Mended, all of them are exchanged.
fn mended(rig: &Rig) {
    fs::remove_file(rig.dir().join("broken")).unwrap();
    let said = rig.verb("reload");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(rig.status().ready, 4);
}

fn failed(tally: &Tally) -> u64 {
    tally.of("requests") - tally.of("fresh_ok")
}

#[test]
fn one_that_does_not_get_ready_or_ends_while_it_is_watched_is_all_that_was_started() {
    for (broken, why) in [
        ("exit 3", "exit 3"),
        ("exec sleep 60", "not-ready"),
        (
            "exec ./threaded --exit-after-ms 700 --exit-code 4",
            "exit 4",
        ),
    ] {
        for options in ["--canary 1:2s", "--canary 1:2s --balance hash"] {
            let (rig, port) = four(options, broken);
            let (said, tally) = fails(&rig, port);
            for part in [
                "minicluster: not reloaded: worker 0 ",
                why,
                "    | this version is broken\n",
            ] {
                assert!(
                    said.err.contains(part),
                    "{options} {broken}: {part}: {said:?}"
                );
            }
            assert_eq!(failed(&tally), 0, "{options} {broken}: {tally:?}");
            assert_eq!(rig.events("forked").len(), 5, "{options} {broken}");
            if why == "exit 3" {
                mended(&rig);
            }
            rig.end(&["died", "reload-failed", "not-ready"]);
        }
    }
}

#[test]
fn one_that_ends_when_all_are_exchanged_brings_back_those_that_were_kept() {
    let broken = "test $WORKER_ID = 2 || exec ./threaded; \
                  exec ./threaded --exit-after-ms 2500 --exit-code 4";
    // (Long enough for all of them to have their places before, and to be watched still.)
    for options in [
        "--canary 1:3s",
        "--canary 1:3s --balance hash",
        "--canary 1:3s --balance ip",
    ] {
        let (mut rig, port) = four(options, broken);
        let (said, tally) = fails(&rig, port);
        for part in ["worker 2 ", "exit 4", "    | this version is broken\n"] {
            assert!(said.err.contains(part), "{options}: {part}: {said:?}");
        }
        // Of each of eight clients one that was in work there when it ended, at most; and when that one comes
        // again before others have its place, one that waits in its queue.
        assert!(failed(&tally) <= 16, "{options}: {tally:?}");
        assert_eq!(rig.events("forked").len(), 8, "{options}");
        // All had their places for a while: more than the old four, and the first new one, have answered.
        assert!(tally.of("pids") > 5, "{options}: {tally:?}");
        rig.wait_many("died", 4);
        rig.wait_status("nobody is beside", |s| s.beside.is_empty());
        assert_eq!(get(v4(port), "/").unwrap().status, 200);
        // Those that were kept are watched over like any other.
        let pid = rig.status().pids()[1];
        fs::remove_file(rig.dir().join("broken")).unwrap();
        sigkill(pid);
        rig.wait("died", |e| e.pid() == pid);
        rig.wait_status("all are there", |s| s.ready == 4);
        let said = rig.verb("reload");
        assert_eq!(said.code, 0, "{said:?}");
        // Of a queue of its own nobody else can take what waited; of a shared one its siblings do.
        let lost: &[&str] = match options.contains("--balance") {
            true => &["strays-reset"],
            false => &[],
        };
        rig.end(&[&["died", "reload-failed"], lost].concat());
    }
}

#[test]
fn all_are_exchanged_after_two_watches_and_none_of_the_old_has_gone_before() {
    let (mut rig, port) = four("--canary 1:500ms", "");
    fs::remove_file(rig.dir().join("broken")).unwrap();
    let load = Load::going(&port.to_string());
    let said = rig.verb("reload");
    assert_eq!(said.code, 0, "{said:?}");
    let took = rig.wait("reload-finished", |_| true).number("took");
    assert!(took >= 1.0, "{took}");
    // Births of all four new ones come before the first death.
    let steps = rig.births_and_deaths();
    assert_eq!(steps[..8], [true; 8]);
    let (well, tally) = load.finish();
    assert!(well && tally.of("pids") > 5, "{tally:?}");
    rig.end(&[]);
}

/// Waits until the first new one gets connections.
fn one_goes_ahead(rig: &mut Rig) {
    let new = rig.wait("forked", |e| e.number("generation") == 2.0).pid();
    rig.wait("ready", |e| e.pid() == new);
    // A turn later it is steered to.
    assert_eq!(rig.status().beside.len(), 1);
}

/// Of which generation is each process?
fn generations(rig: &Rig) -> BTreeMap<i32, u32> {
    let forked = rig.events("forked");
    let of = |e: &crate::log::Event| (e.pid(), e.number("generation") as u32);
    forked.iter().map(of).collect()
}

#[test]
fn a_part_of_new_connections_goes_to_those_that_go_ahead() {
    for balance in ["shared", "hash", "cpu"] {
        let (mut rig, port) = four(&format!("--canary 1:30s:10% --balance {balance}"), "");
        fs::remove_file(rig.dir().join("broken")).unwrap();
        assert_eq!(rig.verb("reload --no-wait").code, 0);
        one_goes_ahead(&mut rig);
        let pids: Vec<i32> = (0..5000)
            .map(|_| get(v4(port), "/").unwrap().pid())
            .collect();
        let of = generations(&rig);
        let new = pids.iter().filter(|pid| of[pid] == 2).count();
        assert!((400..=600).contains(&new), "{balance}: {new} of 5000");
        // It stops in the middle of that.
        rig.signal(Signal::SIGTERM);
        rig.finish(0, &[]);
    }
}

#[test]
fn by_address_it_is_always_the_same_clients_that_meet_those_that_go_ahead() {
    let (mut rig, port) = four("--canary 1:30s:10% --balance ip", "");
    fs::remove_file(rig.dir().join("broken")).unwrap();
    let client = |n: u16| IpAddr::from(Ipv4Addr::from(0x7f01_0000 + u32::from(n)));
    let who = || -> Vec<i32> {
        let one = |n| ask(from(client(n), v4(port)).unwrap(), "/").unwrap().pid();
        (0..400).map(one).collect()
    };
    let before = who();
    assert_eq!(rig.verb("reload --no-wait").code, 0);
    one_goes_ahead(&mut rig);
    let pids = who();
    let of = generations(&rig);
    let new = pids.iter().filter(|pid| of[pid] == 2).count();
    assert!((20..=60).contains(&new), "{new} of 400");
    assert_eq!(who(), pids);
    // All others are where they were.
    for (before, now) in before.iter().zip(&pids) {
        assert!(of[now] == 2 || before == now);
    }
    // It stops in the middle of that.
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &[]);
}
