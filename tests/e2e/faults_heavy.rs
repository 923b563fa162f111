//! "FAULTS", those of many workers: `make test-servers`.

use crate::harness::{Rig, sigkill};
use crate::load::Load;
use crate::place::{BINARY, Place, free_port};
use crate::proc;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long so many of that program take to be forked and executed, one after the other, by nobody in particular.
fn bare(count: usize) -> Duration {
    let place = Place::new();
    let began = Instant::now();
    let mut children: Vec<_> = (0..count)
        .map(|_| {
            let mut cmd = Command::new(place.dir.join("threaded"));
            cmd.arg("--never-listen").env("SAY", "/dev/null");
            cmd.stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    let took = began.elapsed();
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    took
}

#[test]
#[ignore = "a thousand processes: make test-servers"]
fn heavy_a_thousand_workers_that_are_killed_at_once_are_back_at_once() {
    const ALL: usize = 1010;
    const KILLED: usize = 1000;
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n {ALL} -p {port} --respawn 0 --backoff 0 --restarts-per-minute 0 --log-level info -- ./threaded"
    ));
    rig.patient(Duration::from_secs(120));
    rig.up();
    let mut all = proc::children(rig.pid());
    assert_eq!(all.len(), ALL);
    let victims = all.split_off(ALL - KILLED);
    let began = Instant::now();
    victims.iter().for_each(|p| sigkill(*p));
    // What those had accepted goes with them; from here on nothing does.
    rig.until("they have ended", || {
        !victims.iter().any(|p| proc::alive(*p))
    });
    let load = Load::going(&format!("{port} clients=8 pause=20"));
    rig.wait_many("died", KILLED);
    let back = rig.wait_many("ready", ALL + KILLED).len();
    let took = began.elapsed();
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    assert_eq!((back, proc::children(rig.pid()).len()), (ALL + KILLED, ALL));
    assert_eq!(rig.events("died").len(), KILLED);
    let bare = bare(KILLED);
    let ratio = took.as_secs_f64() / bare.as_secs_f64();
    println!(
        "{KILLED} of {ALL} killed at once: all ready again after {:.2} s, {} requests answered meanwhile; {KILLED} bare fork+exec: {:.2} s; ratio {ratio:.1}",
        took.as_secs_f64(),
        tally.of("fresh_ok"),
        bare.as_secs_f64(),
    );
    rig.end(&["died"]);
}

#[test]
#[ignore = "hundreds of processes: make test-servers"]
fn heavy_five_hundred_workers_are_handed_over() {
    const ALL: usize = 500;
    let port = free_port();
    let mut rig = Rig::start(format!("-n {ALL} -p {port} --log-level info -- ./threaded"));
    rig.patient(Duration::from_secs(60));
    rig.up();
    // (More than `status` says in one breath.)
    let workers = proc::children(rig.pid());
    assert_eq!(workers.len(), ALL);
    let load = Load::going(&format!("{port} clients=8 pause=20"));
    for _ in 0..3 {
        let said = rig.verb(format!("handover {BINARY}"));
        assert_eq!(said.code, 0, "{said:?}");
        println!("{}", said.out.trim());
    }
    assert_eq!(proc::children(rig.pid()), workers);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    assert_eq!(rig.events("handover").len(), 3);
    rig.end(&[]);
}
