//! Whole programs of those who come from elsewhere, run as one worker: the master that they have below ours, its
//! workers below that. Nobody is told to do this, and it is what is tried first.

use crate::client::{all_answer, v4};
use crate::harness::{Rig, sigkill};
use crate::load::Load;
use crate::place::{free_port, packages};
use crate::proc;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;

/// What has them be workers of ours.
pub const WORKER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/node/worker.js");

/// One of these programs, on a port that it is given and under another number than it wants, if that is said.
fn program(which: &str, options: &str) -> (Rig, u16) {
    let port = free_port();
    let rest = free_port();
    let there = packages().display();
    let rig = Rig::start(format!(
        "-n 1 -p {port} --env PACKAGES={there} --env REST={rest} --env WHICH={which} {options} -- node heavy/master.js"
    ));
    (rig, port)
}

/// It is ready when its workers serve; one of them that is killed is its own affair; at a reload the next
/// program is there, with workers of its own, before this one goes, and no client notices; and none is left.
fn serves_and_is_reloaded(which: &str) {
    let (mut rig, port) = program(which, "");
    rig.up();
    let first = all_answer(&rig, v4(port), "/", 2);
    let master = rig.status().pids()[0];
    assert!(!first.contains(&master), "its master does not serve");
    // Nobody asks meanwhile: what Node's cluster has handed to one that dies is lost.
    let (all, victim) = (rig.others().len(), *first.first().unwrap());
    sigkill(victim);
    rig.until("it has replaced its own", || {
        let now = rig.others();
        now.len() == all && !now.contains(&victim)
    });
    let first = all_answer(&rig, v4(port), "/", 2);
    assert!(!first.contains(&victim));
    let before = rig.others();
    let load = Load::going(&format!("{port} clients=4 pause=1"));
    assert_eq!(rig.verb("reload").code, 0);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    let second = all_answer(&rig, v4(port), "/", 2);
    assert!(second.is_disjoint(&first));
    rig.until("all of the old ones have gone", || {
        before.iter().all(|p| !proc::alive(*p))
    });
    assert_eq!(rig.events("died").len(), 1, "that of the old program");
    rig.end(&[]);
}

#[test]
#[ignore = "needs recluster: make test-servers"]
fn heavy_a_program_of_recluster_is_a_worker_with_workers() {
    serves_and_is_reloaded("recluster");
}

#[test]
#[ignore = "needs cluster-master: make test-servers"]
fn heavy_a_program_of_cluster_master_is_a_worker_with_workers() {
    serves_and_is_reloaded("cluster-master");
}

/// The port of its REST service is the first one's, so the second one takes itself for a console of that, and
/// never serves. What is there goes on.
#[test]
#[ignore = "needs cluster-service: make test-servers"]
fn heavy_a_program_of_cluster_service_serves_and_cannot_be_reloaded() {
    let (mut rig, port) = program("cluster-service", "--ready-timeout 10s");
    rig.up();
    let first = all_answer(&rig, v4(port), "/", 2);
    let load = Load::going(&format!("{port} clients=4 pause=1"));
    let said = rig.verb("reload");
    assert!(
        said.code == 1 && said.err.contains("not ready in time"),
        "{said:?}"
    );
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    assert_eq!(all_answer(&rig, v4(port), "/", 2), first);
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["not-ready", "reload-failed", "died"]);
}

/// With our worker.js it finds itself to be a worker, and has no master of its own below ours; so the number does
/// not matter, either.
#[test]
fn with_our_worker_a_program_of_nodes_cluster_does_the_workers_part_alone() {
    let (port, theirs) = (free_port(), free_port());
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} --takeover {theirs}={port} --env PORT={theirs} --env WHICH=node \
         -- node -r {WORKER} heavy/master.js"
    ));
    rig.up();
    let pids: BTreeSet<i32> = rig.status().pids().into_iter().collect();
    assert_eq!(all_answer(&rig, v4(port), "/", 2), pids);
    assert_eq!(rig.others().len(), 2, "nothing below them");
    let load = Load::going(&format!("{port} clients=4 pause=1"));
    assert_eq!(rig.verb("reload").code, 0);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    rig.end(&[]);
}

/// cluster.worker: its id is that of the slot, from 1 on; what it sends and hears goes by us; it may ask to be
/// replaced, and serves until its successor does. (How it ends is not looked at: one that has closed its server
/// may be on its way out when the stop signal comes, and then dies of that.)
#[test]
fn with_our_worker_cluster_worker_is_there() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} --ready ready -- node -r {WORKER} channel.js clustered"
    ));
    rig.up();
    rig.until("both have said who they are", || rig.tales("id").len() == 2);
    assert!(
        rig.tales("udp")
            .iter()
            .all(|(_, p)| p.is_some_and(|p| p > 0))
    );
    assert!(rig.lines().is_empty(), "{:?}", rig.lines());
    for (pid, id) in rig.tales("id") {
        let slot = rig.status().rows.iter().position(|r| r.pid == Some(pid));
        assert_eq!(id, Some(slot.unwrap() as i32 + 1));
    }
    let said = rig.verb(["sync-send", r#"{"cmd":"who"}"#]);
    assert_eq!((said.code, said.out.as_str()), (0, "[1,2]\n"));
    let leaver = rig.status().pids()[1];
    assert_eq!(rig.verb(["send", r#"{"cmd":"leave"}"#, "slot:1"]).code, 0);
    let due = rig.wait("recycling", |e| e.pid() == leaver);
    assert_eq!(due.text("reason"), "wish");
    rig.wait("ready", |e| e.slot() == 1);
    let died = rig.wait("died", |e| e.pid() == leaver);
    assert_eq!(died.text("reason"), "recycle");
    assert_eq!(rig.births_and_deaths(), [true, true, true, false]);
    assert_eq!(rig.tales("closed").len(), 1);
    rig.end(&[]);
}

/// Node's cluster looks at the number of the port that it has got, and takes another one for a failure: there
/// its workers end. Where it is the same one they serve.
#[test]
fn a_program_of_nodes_cluster_is_served_on_its_own_number_alone() {
    let port = free_port();
    let start = |options: &str| {
        Rig::start(format!(
            "-n 1 {options} --env WHICH=node -- node heavy/master.js"
        ))
    };
    let mut rig = start(&format!("-p {port}"));
    rig.up();
    all_answer(&rig, v4(port), "/", 2);
    rig.end(&[]);
    let theirs = free_port();
    let rig = start(&format!(
        "-p {port} --takeover {theirs}={port} --env PORT={theirs}"
    ));
    rig.wait_line(&format!("EADDRINUSE null:{theirs}"));
    let died = rig.wait_many("died", 1);
    assert_eq!(died[0].number("code"), 3.0);
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["died"]);
}
