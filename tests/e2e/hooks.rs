//! Programs at events (--on-event): told all that happens, in order, and nobody waits for them.

use crate::harness::{Rig, sigkill};
use crate::place::{free_port, script};
use crate::proc;
use nix::sys::signal::Signal;
use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

/// What a hook in sh has written: a line for each event, `key=value` of what it was told.
fn told(dir: &Path) -> Vec<HashMap<String, String>> {
    let text = fs::read_to_string(dir.join("told")).unwrap_or_default();
    let pairs = |line: &str| {
        let pair = |p: &str| p.split_once('=').map(|(k, v)| (k.into(), v.into()));
        line.split('|').filter_map(pair).collect()
    };
    text.lines().map(pairs).collect()
}

/// Writes some of what it is told into the file `told`.
const TELL: &str = r#"#!/bin/sh
e="event=$MINICLUSTER_EVENT|level=$MINICLUSTER_LEVEL|slot=$MINICLUSTER_SLOT|pid=$MINICLUSTER_PID"
e="$e|reason=$MINICLUSTER_REASON|generation=$MINICLUSTER_GENERATION|signal=$MINICLUSTER_SIGNAL"
e="$e|name=$MINICLUSTER_NAME|port=$PORT|missed=$MINICLUSTER_MISSED|code=$MINICLUSTER_CODE"
e="$e|secret=$SECRET|notify=$NOTIFY_SOCKET|fds=$(ls -l /proc/$$/fd | grep -c -e socket: -e anon_inode: -e /run/)"
case "$MINICLUSTER_JSON" in "{"*'"event":"'$MINICLUSTER_EVENT'"'*"}") e="$e|json=yes";; esac
[ -n "$MINICLUSTER_MESSAGE" ] && e="$e|message=yes"
echo "$e" >>told
"#;

#[test]
fn a_program_is_told_the_whole_life_of_a_worker_with_its_reasons() {
    let port = free_port();
    let words =
        format!("-n 1 -p {port} --env SECRET=s3cret --on-event ./tell -- ./threaded --graceful");
    let mut rig = Rig::dressed(words, |cmd, dir| {
        script(dir, "tell", TELL);
        cmd.env("WATCHDOG_USEC", "1");
    });
    rig.wait("all-ready", |_| true);
    let dir = rig.dir().to_path_buf();
    let pid = rig.pid();
    let is_told = |event: &str| told(&dir).iter().any(|t| t["event"] == event);
    rig.until("all is told, and no program is left", || {
        is_told("all-ready") && proc::children(pid).len() == 1
    });
    let fds = proc::descriptors(pid);
    let first = rig.status().pids()[0];
    rig.replace(first);
    rig.until("all is told, and no program is left", || {
        told(&dir).iter().filter(|t| t["event"] == "ready").count() == 2
            && proc::children(pid).len() == 1
    });
    let all = told(&dir);
    let of_first: Vec<&str> = all
        .iter()
        .filter(|t| t["pid"] == first.to_string())
        .map(|t| t["event"].as_str())
        .collect();
    assert_eq!(of_first, ["forked", "listening", "ready", "died"]);
    let find = |event: &str, nth: usize| all.iter().filter(|t| t["event"] == event).nth(nth);
    let died = find("died", 0).unwrap();
    assert_eq!(
        (died["reason"].as_str(), died["signal"].as_str()),
        ("failure", "SIGKILL")
    );
    assert_eq!(
        (died["slot"].as_str(), died["level"].as_str()),
        ("0", "warn")
    );
    assert_eq!(find("forked", 0).unwrap()["reason"], "start");
    assert_eq!(find("forked", 1).unwrap()["reason"], "failure");
    for t in &all {
        assert_eq!((t["secret"].as_str(), t["notify"].as_str()), ("", ""));
        assert_eq!((t["json"].as_str(), t["message"].as_str()), ("yes", "yes"));
        assert_eq!(t["port"], port.to_string());
        assert_eq!(t["name"], format!("threaded-{port}"));
        assert_eq!(t["generation"], "1");
        // Nothing of the master's.
        assert_eq!(t["fds"], "0", "{t:?}");
    }
    rig.until("no descriptor is left", || proc::descriptors(pid) == fds);
    rig.signal(Signal::SIGTERM);
    rig.wait_exit();
    let events: Vec<String> = told(&dir).iter().map(|t| t["event"].clone()).collect();
    let place = |e: &str| events.iter().position(|x| x == e).unwrap();
    assert!(place("stopping") < place("stopped"), "{events:?}");
    assert_eq!(events.last().unwrap(), "stopped");
    rig.finish(0, &["died"]);
}

#[test]
fn one_that_hangs_is_killed_and_said_once_and_the_cluster_goes_on() {
    let port = free_port();
    let mut rig = Rig::dressed(
        [
            "-n",
            "2",
            "-p",
            &port.to_string(),
            "--on-event",
            "./hang",
            "--on-event",
            "./tell",
            "--",
            "./threaded",
        ],
        |_, dir| {
            script(dir, "tell", TELL);
            // It says that it runs, and hears nothing.
            let hang = "#!/bin/sh\ntrap '' TERM\necho $$ >>hangs\nwhile :; do sleep 1000; done\n";
            script(dir, "hang", hang);
        },
    );
    rig.wait("all-ready", |_| true);
    let dir = rig.dir().to_path_buf();
    // The other one has heard of it all meanwhile.
    rig.until("the other is told", || {
        told(&dir).iter().any(|t| t["event"] == "all-ready")
    });
    assert_eq!(rig.status().ready, 2);
    let killed = rig.wait("hook-killed", |_| true);
    assert!(
        killed
            .msg
            .contains("--on-event ./hang: killed: not done within 10s"),
        "{killed:?}"
    );
    let first: i32 = fs::read_to_string(dir.join("hangs"))
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(!proc::alive(first));
    // It is run for the next one.
    rig.until("the next is told", || {
        fs::read_to_string(dir.join("hangs"))
            .unwrap()
            .lines()
            .count()
            > 1
    });
    let before = Instant::now();
    rig.signal(Signal::SIGTERM);
    rig.wait("stopped", |_| true);
    rig.wait_exit();
    let took = before.elapsed();
    assert!(took.as_secs_f64() < 4.0, "{took:?}");
    let cut = rig.events("hook-cut");
    assert_eq!(cut.len(), 1, "{cut:?}");
    let said: Vec<_> = rig
        .events("hook-killed")
        .into_iter()
        .filter(|e| e.is_loud())
        .collect();
    assert_eq!(said.len(), 1);
    rig.finish(0, &["hook-killed", "hook-cut"]);
}

#[test]
fn of_three_hundred_events_that_come_while_it_hangs_the_oldest_are_lost_and_that_is_told() {
    let port = free_port();
    let mut rig = Rig::dressed(
        format!("-n 1 -p {port} --on-event ./tell -- ./threaded"),
        |_, dir| {
            let wait =
                "[ -e go ] || { echo waits >>told; while [ ! -e go ]; do sleep 0.05; done; }\n";
            let text = TELL.replace("#!/bin/sh\n", &format!("#!/bin/sh\n{wait}"));
            script(dir, "tell", &text);
        },
    );
    rig.wait("all-ready", |_| true);
    let dir = rig.dir().to_path_buf();
    rig.until("it hangs", || dir.join("told").exists());
    let before = rig.status();
    // By one connection: it must not hang for longer than it may.
    let mut types = UnixStream::connect(rig.socket()).unwrap();
    types.write_all("reopen\n".repeat(300).as_bytes()).unwrap();
    types.shutdown(std::net::Shutdown::Write).unwrap();
    let mut said = String::new();
    types.read_to_string(&mut said).unwrap();
    let full = rig.wait("hook-missed", |_| true);
    assert!(full.msg.contains("256 events wait"), "{full:?}");
    fs::write(dir.join("go"), "").unwrap();
    let reopened = || {
        told(&dir)
            .iter()
            .filter(|t| t.get("event").is_some_and(|e| e == "reopened"))
            .count()
    };
    rig.until("the last ones are told", || reopened() == 256);
    let missed: Vec<u64> = told(&dir)
        .iter()
        .filter_map(|t| t.get("missed")?.parse().ok())
        .collect();
    // forked, listening, ready, .. were before them.
    assert_eq!(missed.len(), 1, "{missed:?}");
    assert!((44..=60).contains(&missed[0]), "{missed:?}");
    assert_eq!(rig.status().pids(), before.pids());
    rig.end(&["hook-missed"]);
}

#[test]
fn one_that_fails_is_said_once_with_what_it_complains_of_and_again_after_it_was_well() {
    let port = free_port();
    let mut rig = Rig::dressed(
        format!("-n 1 -p {port} --on-event ./fail -- ./threaded"),
        |_, dir| {
            let text = "#!/bin/sh\n[ -e well ] && exit 0\necho no route >&2\nsleep 300 >&2 & echo $! >>left\nexit 7\n";
            script(dir, "fail", text);
        },
    );
    rig.wait("all-ready", |_| true);
    let dir = rig.dir().to_path_buf();
    let failed = rig.wait_many("hook-failed", 4);
    let loud: Vec<_> = failed.iter().filter(|e| e.is_loud()).collect();
    assert_eq!(loud.len(), 1, "{failed:?}");
    assert!(
        loud[0].msg.contains("--on-event ./fail: exit 7; "),
        "{loud:?}"
    );
    assert!(loud[0].msg.contains("no route"), "{loud:?}");
    fs::write(dir.join("well"), "").unwrap();
    rig.verb("reopen");
    let well = rig.wait("hook-well", |_| true);
    assert!(well.msg.contains("is well again"), "{well:?}");
    fs::remove_file(dir.join("well")).unwrap();
    let n = rig.events("hook-failed").len();
    rig.verb("reopen");
    let failed = rig.wait_many("hook-failed", n + 1);
    assert!(failed[n].is_loud());
    // What it has left behind did not keep it, and goes with the cluster.
    let left = fs::read_to_string(dir.join("left")).unwrap();
    assert!(left.lines().all(|pid| proc::alive(pid.parse().unwrap())));
    let any: i32 = left.lines().next().unwrap().parse().unwrap();
    sigkill(any);
    rig.end(&["hook-failed"]);
}

#[test]
fn one_that_is_not_there_is_said_before_anything_is_begun() {
    let mut rig = Rig::start("-n 1 --on-event ./nowhere -- sleep 60");
    let status = rig.wait_exit();
    assert_eq!(status.code(), Some(78));
    assert!(rig.wait_line("--on-event").contains("./nowhere: not found"));
    rig.finish(78, &[]);
    let mut rig = Rig::start(["-n", "1", "--on-event", "a | b", "--", "sleep", "60"]);
    assert_eq!(rig.wait_exit().code(), Some(64));
    rig.wait_line("sh -c");
    rig.finish(64, &[]);
}
