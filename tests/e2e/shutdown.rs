//! One worker that is ended for good, while the others keep their numbers; and other words for the end.

use crate::harness::Rig;
use crate::place::free_port;
use tinyjson::JsonValue;

fn slots(rig: &Rig) -> Vec<u64> {
    let json: JsonValue = rig.verb("status --json").out.parse().unwrap();
    let all = json["slots"].get::<Vec<JsonValue>>().unwrap();
    all.iter()
        .map(|s| *s["slot"].get::<f64>().unwrap() as u64)
        .collect()
}

#[test]
fn one_worker_is_shut_down_and_the_others_keep_their_numbers() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 4 -p {port} -- ./threaded --graceful"));
    rig.up();
    let pids = rig.status().pids();
    let said = rig.verb("shutdown 2");
    let want = format!("worker 2 pid {} shut down, 3 workers\n", pids[2]);
    assert_eq!((said.code, said.out), (0, want));
    assert_eq!(slots(&rig), [0, 1, 3]);
    assert_eq!(rig.verb("size").out, "3\n");
    assert_eq!(rig.verb("reload").code, 0);
    assert_eq!(slots(&rig), [0, 1, 3]);
    let said = rig.verb("shutdown 2");
    assert_eq!(said.code, 64);
    assert!(said.err.contains("slot 2 was shut down"), "{said:?}");
    // By pid, and with a time of its own.
    let pid = rig.status().pids()[0];
    let said = rig.verb(format!("shutdown pid:{pid} timeout 5s --json"));
    let json: JsonValue = said.out.parse().unwrap();
    assert_eq!(*json["workers"].get::<f64>().unwrap(), 2.0);
    assert_eq!(slots(&rig), [1, 3]);
    // More opens the lowest first.
    assert_eq!(rig.verb("resize +1").out, "3 workers\n");
    assert_eq!(slots(&rig), [0, 1, 3]);
    assert_eq!(rig.verb("resize 1").out, "1 worker\n");
    assert_eq!(slots(&rig), [0]);
    let said = rig.verb("shutdown 0");
    assert_eq!(said.code, 1);
    assert!(said.err.contains("the last one"), "{said:?}");
    let said = rig.verb("shutdown");
    assert_eq!((said.code, said.out.as_str()), (0, "stopped\n"));
    rig.finish(0, &[]);
}

#[test]
fn a_deaf_worker_is_killed_when_the_time_it_was_given_is_over() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded --deaf"));
    rig.up();
    assert_eq!(rig.verb("shutdown 1 timeout 300ms").code, 0);
    rig.wait("killed", |e| e.slot() == 1);
    let said = rig.verb("shutdown all timeout 1s");
    assert_eq!((said.code, said.out.as_str()), (0, "stopped\n"));
    rig.finish(0, &["killed"]);
}

#[test]
fn exit_now_is_a_hard_stop_with_a_good_end() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded --deaf"));
    rig.up();
    let said = rig.verb("exit");
    assert_eq!(said.code, 64);
    assert!(said.err.contains("'now' is required: exit now"), "{said:?}");
    let said = rig.verb("exit now");
    assert_eq!((said.code, said.out.as_str()), (0, "Exiting now.\n"));
    rig.finish(0, &["hard-stop"]);
}
