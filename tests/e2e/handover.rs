//! The master is replaced by another binary while all goes on: same pid, same workers, nothing lost; and when it
//! cannot be, nothing has happened.

use crate::client::{get, v4};
use crate::console::Typist;
use crate::harness::{Rig, Words, sigkill};
use crate::house::{House, house};
use crate::load::Load;
use crate::place::{self, Place, free_port, python, script};
use crate::proc;
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const BINARY: &str = env!("CARGO_BIN_EXE_minicluster");

/// The same program from another file. Copied by another process: while a fork of ours has it open for writing it
/// cannot be executed.
fn copy(of: &Path, dir: &Path, name: &str) -> PathBuf {
    let to = dir.join(name);
    let done = Command::new("cp").arg(of).arg(&to).status().unwrap();
    assert!(done.success());
    to
}

/// A build of tomorrow: its state has another version, and something that ours does not know.
fn of_tomorrow() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| place::made("next", "target/next/minicluster"))
}

/// Which file it is executed from.
fn inode(pid: i32) -> u64 {
    fs::metadata(format!("/proc/{pid}/exe")).unwrap().ino()
}

/// One that says it is over, by that binary.
fn to(rig: &Rig, binary: &Path) {
    let said = rig.verb(format!("handover {}", binary.display()));
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.out.starts_with("handed over: minicluster "),
        "{said:?}"
    );
}

/// It does not come to it, for this reason; and all is as it was.
fn in_vain(rig: &Rig, words: &str, why: &str) {
    let (exe, pids) = (inode(rig.pid()), rig.status().pids());
    let before = rig.events("handover-failed").len();
    let said = rig.verb(format!("handover {words}"));
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains(why), "{said:?}");
    assert_eq!((inode(rig.pid()), rig.status().pids()), (exe, pids));
    rig.until("it is in the log", || {
        rig.events("handover-failed").len() == before + 1
    });
}

#[test]
fn the_master_is_replaced_again_and_again_under_load_and_nothing_is_lost_and_nothing_grows() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 4 -p {port} -- ./threaded"));
    rig.up();
    rig.patient(std::time::Duration::from_secs(60));
    let (pid, workers) = (rig.pid(), rig.status().pids());
    let fresh = Load::going(&format!("{port} clients=4"));
    let kept = Load::going(&format!("{port} clients=4 mode=keepalive"));
    let mut before = inode(pid);
    let mut sizes = Vec::new();
    for n in 0..20 {
        let binary = copy(Path::new(BINARY), rig.dir(), &format!("mc-{n}"));
        to(&rig, &binary);
        assert_ne!(inode(pid), before, "the same file");
        before = inode(pid);
        assert_eq!(rig.status().pids(), workers);
        sizes.push(proc::resident(pid));
    }
    for load in [fresh, kept] {
        let (well, tally) = load.finish();
        assert!(well, "{tally:?}");
    }
    let (early, late) = (sizes[4], sizes[19]);
    assert!(late < early + early / 4, "it grows: {sizes:?} KiB");
    assert_eq!(rig.events("handover").len(), 20);
    assert!(rig.events("died").is_empty());
    // It is the master in every way: it replaces who dies, takes over binds, reloads.
    rig.replace(workers[1]);
    assert_eq!(rig.verb("reload").code, 0);
    assert!(get(v4(port), "/").is_ok());
    rig.end(&["died"]);
}

#[test]
fn the_binary_that_has_our_name_on_disk_takes_over() {
    let place = Place::for_nobody();
    let port = free_port();
    let name = place.dir.join("minicluster");
    let words = format!("-n 2 -p {port} --on-signal USR2=handover -- ./threaded");
    let mut rig = Rig::placed(place, &["env".to_string()], words);
    rig.up();
    let before = inode(rig.pid());
    // As packages are replaced: another file under the name.
    let new = copy(Path::new(BINARY), rig.dir(), "new");
    fs::rename(&new, &name).unwrap();
    let said = rig.verb("handover");
    assert_eq!(said.code, 0, "{said:?}");
    let after = inode(rig.pid());
    assert_ne!(after, before);
    assert_eq!(after, fs::metadata(&name).unwrap().ino());
    // By a signal that is mapped to it, too.
    let new = copy(Path::new(BINARY), rig.dir(), "new");
    fs::rename(&new, &name).unwrap();
    rig.signal(Signal::SIGUSR2);
    rig.until("it is another file", || inode(rig.pid()) != after);
    assert_eq!(rig.wait_many("handover", 2).len(), 2);
    // Not to wait for it is fine, too.
    assert_eq!(rig.verb("handover --no-wait").code, 0);
    rig.wait_many("handover", 3);
    rig.end(&[]);
}

#[test]
fn what_cannot_take_over_leaves_all_as_it_was() {
    let port = free_port();
    let words = format!("-n 2 -p {port} -- ./threaded");
    let mut rig = Rig::dressed(words, |cmd, _| {
        cmd.env("MINICLUSTER_TEST_GOES_BACK", "1");
    });
    rig.up();
    let dir = rig.dir().to_path_buf();
    let path = |name: &str| dir.join(name).display().to_string();
    let load = Load::going(&port.to_string());
    in_vain(
        &rig,
        "/no/such/file",
        "/no/such/file: No such file or directory",
    );
    in_vain(&rig, &dir.display().to_string(), "not a regular file");
    fs::write(path("text"), "not to be executed\n").unwrap();
    in_vain(&rig, &path("text"), "Permission denied");
    in_vain(&rig, "/bin/false", "exit 1");
    in_vain(&rig, "/bin/true", "it has not said that it can");
    script(&dir, "sleeper", "#!/bin/sh\nexec sleep 60\n");
    in_vain(
        &rig,
        &format!("{} timeout 300ms", path("sleeper")),
        "(timeout 300ms)",
    );
    let said = rig.verb("handover minicluster");
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.err.contains("by its whole path"), "{said:?}");
    // One that can, as it says, and then cannot go on: back to the one before, by whatever name it has now.
    let real = copy(Path::new(BINARY), &dir, "mc-first");
    to(&rig, &real);
    let moved = dir.join("mc-moved");
    fs::rename(&real, &moved).unwrap();
    in_vain(
        &rig,
        &of_tomorrow().display().to_string(),
        "could not go on: the test wants it so",
    );
    assert_eq!(inode(rig.pid()), fs::metadata(&moved).unwrap().ino());
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    // It is whole, and can be replaced by one that can.
    to(&rig, &moved);
    rig.replace(rig.status().pids()[0]);
    assert_eq!(rig.verb("reload").code, 0);
    rig.end(&["handover-failed", "died"]);
}

#[test]
fn what_one_that_was_asked_leaves_behind_holds_nothing_of_the_master() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --name shop -- sh -c").words();
    let words = words.into_iter().chain(["./threaded; true".to_string()]);
    let mut rig = Rig::start(words.collect::<Vec<_>>());
    rig.up();
    let dir = rig.dir().to_path_buf();
    let text = "#!/bin/sh\nsetsid sleep 1003 >/dev/null 2>&1 &\necho no\nexit 3\n";
    script(&dir, "leaves", text);
    in_vain(&rig, &dir.join("leaves").display().to_string(), "no");
    let left = |pid: &i32| proc::command(*pid).contains("sleep 1003");
    rig.until("it has left one", || rig.others().iter().any(left));
    let left = rig.others().into_iter().find(left).unwrap();
    let all = fs::read_dir(format!("/proc/{left}/fd")).unwrap().flatten();
    let all: Vec<String> = all
        .filter_map(|e| fs::read_link(e.path()).ok())
        .map(|to| to.display().to_string())
        .collect();
    let ours = |to: &&String| to.contains("socket:") || to.contains("/run/");
    assert!(all.len() > 3 && !all.iter().any(|to| ours(&to)), "{all:?}");
    // So what it is that lives on does not keep workers alive, nor the name from the next start.
    let workers = rig.status().pids();
    rig.signal(Signal::SIGKILL);
    rig.wait_exit();
    let gone = |pid: i32| !proc::alive(pid);
    rig.until("the worker has gone, with all of it", || {
        workers.iter().all(|pid| gone(*pid)) && rig.others() == [left]
    });
    sigkill(left);
    rig.until("nothing is left", || rig.left_behind().is_empty());
}

#[test]
fn an_answer_that_comes_too_late_is_none_to_the_next_question() {
    let mut rig = Rig::start(format!("-n 1 -p {} -- ./threaded", free_port()));
    rig.up();
    let dir = rig.dir().to_path_buf();
    let path = |name: &str| dir.join(name).display().to_string();
    let go = path("go");
    // It hears of its end, and does not care; and has an answer as soon as the next one is asked.
    let late = format!(
        "#!/bin/sh\ntrap '' TERM\nuntil test -e {go}; do sleep 0.02; done\necho 'minicluster-handover: ok 1'\n"
    );
    script(&dir, "late", &late);
    let asked = format!(
        "#!/bin/sh\n: > {go}\nuntil test -e {go}.done; do sleep 0.02; done\necho no\nexit 1\n"
    );
    script(&dir, "asked", &asked);
    in_vain(
        &rig,
        &format!("{} timeout 300ms", path("late")),
        "(timeout 300ms)",
    );
    let said = std::thread::scope(|all| {
        let second = all.spawn(|| rig.verb(format!("handover {}", path("asked"))));
        rig.until("the next one is asked", || Path::new(&go).exists());
        // Both are there, or the late one was killed by now; only then the second one answers.
        rig.until("the late one has gone", || {
            !proc::children(rig.pid()).iter().any(|pid| {
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&line).contains("/late")
            })
        });
        fs::write(format!("{go}.done"), "").unwrap();
        second.join().unwrap()
    });
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("cannot take over: no"), "{said:?}");
    rig.end(&["handover-failed"]);
}

#[test]
fn who_asks_for_metrics_meanwhile_gets_all_of_it() {
    let h = house(40, "");
    let over = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::SeqCst;
    let pages = std::thread::scope(|all| {
        let asks = all.spawn(|| {
            let mut pages = 0;
            while !over.load(order) {
                let body = h.asks("GET /metrics").body;
                assert!(body.contains("minicluster_workers"), "{body}");
                pages += 1;
            }
            pages
        });
        // (What was read once is kept for some time, but not by the next one.)
        for _ in 0..10 {
            to(&h.rig, Path::new(BINARY));
        }
        over.store(true, order);
        asks.join().unwrap()
    });
    assert!(pages >= 2, "{pages}");
    h.rig.end(&[]);
}

#[test]
fn a_binary_in_a_script_takes_over_as_one_master() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded"));
    rig.up();
    let (pid, workers) = (rig.pid(), rig.status().pids());
    let dir = rig.dir().to_path_buf();
    for (name, text) in [
        ("wrap", format!("#!/bin/sh\nexec {BINARY} \"$@\"\n")),
        (
            "wrap-name",
            format!("#!/bin/bash\nexec -a \"$0\" {BINARY} \"$@\"\n"),
        ),
    ] {
        script(&dir, name, &text);
        to(&rig, &dir.join(name));
        assert_eq!(rig.status().pid, pid, "another one answers");
        assert_eq!(rig.status().pids(), workers);
        let children = proc::children(pid);
        assert!(children.iter().all(|c| workers.contains(c)), "{children:?}");
    }
    rig.replace(workers[0]);
    rig.end(&["died"]);
}

#[test]
fn what_could_be_somebody_elses_is_not_executed() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 1 -p {port} -- ./threaded"));
    rig.up();
    let theirs = copy(Path::new(BINARY), rig.dir(), "theirs");
    let chown = Command::new("chown").arg("65534").arg(&theirs).status();
    assert!(chown.unwrap().success());
    let words = theirs.display().to_string();
    in_vain(
        &rig,
        &words,
        "it is of uid 65534, who could have uid 0 run anything",
    );
    let chown = Command::new("chown").arg("0").arg(&theirs).status();
    assert!(chown.unwrap().success());
    let chmod = |how: &str| {
        let done = Command::new("chmod").arg(how).arg(&theirs).status();
        assert!(done.unwrap().success());
    };
    chmod("o+w");
    in_vain(&rig, &words, "everybody may write it");
    let chgrp = Command::new("chgrp").arg("65534").arg(&theirs).status();
    assert!(chgrp.unwrap().success());
    chmod("o-w,g+w");
    in_vain(&rig, &words, "gid 65534 may write it");
    chmod("g-w");
    to(&rig, &theirs);
    rig.end(&["handover-failed"]);
}

#[test]
fn builds_with_older_and_newer_states_take_over_from_each_other() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} --balance hash -- ./threaded"));
    rig.up();
    let workers = rig.status().pids();
    let load = Load::going(&port.to_string());
    for _ in 0..2 {
        to(&rig, of_tomorrow());
        assert_eq!(rig.status().pids(), workers);
        to(&rig, Path::new(BINARY));
        assert_eq!(rig.status().pids(), workers);
    }
    to(&rig, of_tomorrow());
    assert_eq!(rig.verb("reload").code, 0);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    rig.end(&[]);
}

#[test]
fn who_waits_for_a_reload_follows_or_types_hears_on() {
    let port = free_port();
    let server = format!("{} blocking.py", python());
    let mut rig = Rig::start(format!(
        "-n 3 -p {port} --canary 1:2s --ready-timeout 20s -- {server}"
    ));
    rig.up();
    let mut typist = Typist::on(&rig.socket());
    typist.types("version");
    typist.reads();
    let mut follower = Typist::on(&rig.socket());
    follower.types("events follow");
    let waits = rig.meanwhile("upgrade -- ".to_string() + &server + " start=1");
    rig.wait("reload-started", |_| true);
    rig.wait("ready", |_| true);
    to(&rig, Path::new(BINARY));
    // The reload goes on in the new one, and ends as it would have.
    to(&rig, Path::new(BINARY));
    let said = waits.join().unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    typist.reads_of("handed over: ");
    typist.types("status");
    typist.reads_of("3/3 ready generation 2");
    follower.reads_of("handed over: ");
    follower.reads_of("generation 2");
    // What ran before is known still.
    let said = rig.verb("rollback");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(!rig.verb("workers details").out.contains("start=1"));
    drop((typist, follower));
    rig.end(&[]);
}

#[test]
fn what_was_counted_said_and_decided_stays() {
    let mut h = house(2, "--count-connections --max-forks 100");
    let rig = &mut h.rig;
    let first = rig.status().pids()[0];
    for _ in 0..5 {
        assert!(get(v4(h.port), "/").is_ok());
    }
    rig.replace(first);
    assert_eq!(rig.verb("disable for a while").code, 0);
    let said = |rig: &Rig| -> Vec<String> {
        let first = |verb: &str| {
            let out = rig.verb(verb).out;
            out.split(" for ").next().unwrap_or_default().to_string()
        };
        ["ecv", "size"].map(first).to_vec()
    };
    let of = |h: &House, name: &str| -> f64 {
        let body = h.asks("GET /metrics").body;
        let all = body.lines().filter(|l| l.starts_with(name));
        let all = all.filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok());
        all.sum()
    };
    let counters = [
        "minicluster_worker_restarts_total",
        "minicluster_worker_exits_total",
        "minicluster_events_total{event=\"ready\"",
        "minicluster_connections_ended_total",
    ];
    let rig = &h.rig;
    rig.until("all connections are counted", || of(&h, counters[3]) >= 5.0);
    let (before, counts) = (said(rig), counters.map(|c| of(&h, c)));
    assert!(counts.iter().all(|n| *n >= 1.0), "{counts:?}");
    to(rig, Path::new(BINARY));
    assert_eq!(said(rig), before);
    assert!(before[0].contains("DISABLED"), "{before:?}");
    assert_eq!(counters.map(|c| of(&h, c)), counts);
    let why = rig.verb("why 0").out;
    assert!(why.contains("SIGKILL"), "{why}");
    let events = rig.verb("events").out;
    assert!(
        events.contains("disabled") || events.contains("out of rotation"),
        "{events}"
    );
    // And goes on: one more is one more.
    assert!(get(v4(h.port), "/").is_ok());
    rig.until("it is counted", || of(&h, counters[3]) > counts[3]);
    h.rig.end(&["died"]);
}

#[test]
fn a_worker_that_binds_while_the_master_is_replaced_is_answered_by_the_next() {
    let port = free_port();
    let binder = "import socket, time\n\
        while True:\n    \
            s = socket.socket()\n    \
            s.bind(('', PORT))\n    \
            s.listen()\n    \
            s.close()\n";
    let place = Place::new();
    let text = binder.replace("PORT", &port.to_string());
    fs::write(place.dir.join("binder.py"), text).unwrap();
    let words = format!("-n 3 -p {port} --ready started -- {} binder.py", python());
    let mut rig = Rig::placed(place, &["env".to_string()], words);
    rig.wait("all-ready", |_| true);
    let workers = rig.status().pids();
    for _ in 0..10 {
        to(&rig, Path::new(BINARY));
    }
    assert_eq!(rig.status().pids(), workers, "bind(2) has failed");
    rig.end(&["unserved", "died"]);
}

#[test]
fn programs_of_ours_and_channels_of_workers_stay_what_they_are() {
    let port = free_port();
    let port = port.to_string();
    let mut words: Vec<String> = ["-n", "2", "-p", &port].map(String::from).to_vec();
    words.push("--on-message=python3 lines.py thanks".into());
    words.extend(
        "--ready ready --ipc node -- python3 channel.py puppet"
            .split(' ')
            .map(String::from),
    );
    let mut rig = Rig::start(words);
    rig.wait("all-ready", |_| true);
    rig.until("its program runs", || !rig.tales("begun").is_empty());
    to(&rig, Path::new(BINARY));
    assert_eq!(rig.tales("begun").len(), 1, "it was started again");
    // A message to the workers, and back.
    let said = rig.verb(["send", "{\"cmd\":\"do\",\"say\":{\"cmd\":\"one\",\"n\":7}}"]);
    assert_eq!(said.code, 0, "{said:?}");
    // What a worker says comes to the same program.
    rig.until("it has heard both", || rig.tales("heard").len() == 2);
    assert_eq!(rig.tales("begun").len(), 1, "it was started again");
    rig.end(&[]);
}

#[test]
fn a_master_that_is_killed_behind_a_handover_takes_its_workers_along() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded"));
    rig.up();
    to(&rig, Path::new(BINARY));
    let workers = rig.status().pids();
    sigkill(rig.pid());
    rig.until("all have gone", || !workers.iter().any(|p| proc::alive(*p)));
    rig.wait_exit();
}
