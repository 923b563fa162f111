//! Files that a cluster reads and leaves: options in a file, pid files, the log.

use crate::client::{all_answer, v4};
use crate::harness::{Rig, Words, sigkill};
use crate::place::{Place, Said, free_port, run, shim};
use crate::proc;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Types this where no cluster is.
fn alone(place: &Place, words: impl Words) -> Said {
    let mut cmd = place.command();
    cmd.args(words.words());
    run(cmd, Instant::now() + Duration::from_secs(30))
}

/// Types this where a rig's cluster is, without -C.
fn typed(rig: &Rig, words: impl Words) -> Said {
    let mut cmd = rig.command();
    cmd.args(words.words());
    run(cmd, rig.deadline())
}

#[test]
fn options_in_a_file_start_a_cluster_and_find_it() {
    let port = free_port();
    let text = format!("# the shop\nworkers 3\nport = {port}\nname shop\nenv A=file\nenv B=file\n");
    let words = "--config app.conf --env B=typed -n 2 -- ./threaded --env";
    let mut rig = Rig::dressed(words, |_, dir| {
        fs::write(dir.join("app.conf"), text).unwrap();
    });
    rig.up();
    let said = typed(&rig, "--config app.conf status --json");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains("\"name\":\"shop\""), "{said:?}");
    all_answer(&rig, v4(port), "/", 2);
    let told = crate::client::get(v4(port), "/env").unwrap();
    assert_eq!(
        (told.env("A"), told.env("B")),
        (Some("file"), Some("typed"))
    );
    rig.end(&[]);
}

#[test]
fn what_is_wrong_in_a_file_of_options_is_told_with_its_line() {
    let place = Place::new();
    fs::write(place.dir.join("app.conf"), "port 80\n\nwokers 4\n").unwrap();
    let said = alone(&place, "--config app.conf -- ./threaded");
    let want = "minicluster: app.conf:3: unknown option 'wokers'; did you mean workers?\n";
    assert_eq!((said.code, said.err.as_str()), (78, want));
    let said = alone(&place, "--config none.conf status");
    let want = "minicluster: --config none.conf: No such file or directory\n";
    assert_eq!((said.code, said.err.as_str()), (78, want));
    let said = alone(&place, "--config /dev/zero -- ./threaded");
    assert_eq!(said.code, 78);
    assert!(said.err.contains("longer than 1048576 bytes"), "{said:?}");
}

/// Its code, and what it said on stderr without our name.
fn refused(said: &Said) -> (i32, &str) {
    let err = said.err.trim_end();
    (said.code, err.strip_prefix("minicluster: ").unwrap_or(err))
}

#[test]
fn a_pid_file_is_held_by_its_master_and_leads_verbs_to_it() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --pid-file app.pid -- ./threaded");
    let mut rig = Rig::start(words);
    rig.up();
    let file = rig.dir().join("app.pid");
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        format!("{}\n", rig.pid())
    );
    let said = typed(&rig, "--pid-file app.pid status");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(said.out.contains(&format!("pid {}", rig.pid())), "{said:?}");
    // A second one leaves no trace, not even in the first one's file.
    let other = free_port();
    let second = typed(&rig, format!("-p {other} --pid-file app.pid -- ./threaded"));
    let (shown, me) = (file.display(), "minicluster --pid-file");
    let want = format!(
        "{shown} is held by pid {}; look at it: {me} {shown} status; end it: {me} {shown} stop",
        rig.pid()
    );
    assert_eq!(refused(&second), (75, want.as_str()));
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        format!("{}\n", rig.pid())
    );
    let said = typed(&rig, "--pid-file app.pid stop");
    assert_eq!((said.code, said.out.as_str()), (0, "stopped\n"), "{said:?}");
    assert!(!file.exists());
    for verb in ["status", "stop", "why"] {
        let said = typed(&rig, format!("--pid-file app.pid {verb}"));
        let want = "not running: there is no pid file app.pid";
        assert_eq!(refused(&said), (3, want), "{verb}");
    }
    rig.finish(0, &[]);
}

#[test]
fn without_a_control_socket_a_pid_file_still_stops() {
    for (verb, code) in [("stop", 0), ("kill", 1)] {
        let port = free_port();
        let words = format!("-n 1 -p {port} -C off --pid-file app.pid -- ./threaded");
        let mut rig = Rig::start(words);
        rig.up();
        let said = typed(&rig, "--pid-file app.pid status");
        assert_eq!(said.code, 0, "{said:?}");
        assert!(
            said.out.contains("runs, without a control socket"),
            "{said:?}"
        );
        let said = typed(&rig, "--pid-file app.pid why");
        assert_eq!(said.code, 1, "{said:?}");
        assert!(
            said.err.contains("only status, stop, kill and reload"),
            "{said:?}"
        );
        let said = typed(&rig, format!("--pid-file app.pid {verb}"));
        assert_eq!((said.code, said.out.as_str()), (0, "the master has gone\n"));
        // It said so when that was true.
        assert!(!proc::alive(rig.pid()));
        rig.finish(code, &["hard-stop"]);
    }
}

#[test]
fn the_pid_file_of_a_master_that_was_killed_is_stale_and_a_start_takes_it_over() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --pid-file app.pid -- ./threaded");
    let mut rig = Rig::start(words.clone());
    rig.up();
    sigkill(rig.pid());
    rig.wait_exit();
    rig.until("the worker has gone, too", || rig.left_behind().is_empty());
    for verb in ["status", "stop", "kill", "why"] {
        let said = typed(&rig, format!("--pid-file app.pid {verb}"));
        let want = format!(
            "dead: app.pid is a stale pid file, of pid {}: nobody holds its lock",
            rig.pid()
        );
        assert_eq!(refused(&said), (1, want.as_str()), "{verb}");
    }
    let file = rig.dir().join("app.pid");
    let next = Rig::start(format!(
        "-n 1 -p {port} --pid-file {} -- ./threaded",
        file.display()
    ));
    next.until("the next has taken it", || {
        fs::read_to_string(&file).is_ok_and(|t| t.trim() == next.pid().to_string())
    });
    next.wait_many("all-ready", 1);
    next.end(&[]);
    assert!(!file.exists());
}

#[test]
fn what_is_no_pid_file_is_not_overwritten() {
    let place = Place::new();
    let precious = place.dir.join("server.js");
    fs::write(&precious, "precious").unwrap();
    let said = alone(&place, "--pid-file server.js -- ./threaded");
    assert_eq!(said.code, 73, "{said:?}");
    assert!(said.err.contains("holds no pid"), "{said:?}");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    let said = alone(&place, "--pid-file no/such/dir.pid -- ./threaded");
    assert_eq!(said.code, 73, "{said:?}");
    let said = alone(&place, "--pid-file server.js stop");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("holds no pid"), "{said:?}");
}

fn names(dir: &Path) -> BTreeSet<String> {
    let all = fs::read_dir(dir).unwrap();
    all.map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn a_directory_of_pid_files_follows_the_workers() {
    let port = free_port();
    let words = format!("-n 3 -p {port} --pid-dir pids -- ./threaded");
    let mut rig = Rig::dressed(words, |_, dir| {
        fs::create_dir(dir.join("pids")).unwrap();
        for name in ["worker.1.pid", "master.1.pid", "other.pid"] {
            fs::write(dir.join("pids").join(name), "1\n").unwrap();
        }
    });
    rig.up();
    let dir = rig.dir().join("pids");
    let expected = |rig: &Rig| -> BTreeSet<String> {
        let workers = rig.status().pids().into_iter();
        let files = workers.map(|pid| format!("worker.{pid}.pid"));
        files
            .chain([format!("master.{}.pid", rig.pid()), "other.pid".into()])
            .collect()
    };
    assert_eq!(names(&dir), expected(&rig));
    let victim = rig.status().pids()[1];
    let next = rig.replace(victim);
    assert_eq!(names(&dir), expected(&rig));
    let text = fs::read_to_string(dir.join(format!("worker.{next}.pid")));
    assert_eq!(text.unwrap(), format!("{next}\n"));
    rig.signal(Signal::SIGTERM);
    rig.wait_exit();
    assert_eq!(names(&dir), BTreeSet::from(["other.pid".to_string()]));
    rig.finish(0, &["died"]);
}

#[test]
fn a_directory_of_pid_files_that_has_gone_is_one_warning() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} --pid-dir pids -- ./threaded"));
    rig.up();
    fs::remove_dir_all(rig.dir().join("pids")).unwrap();
    for pid in rig.status().pids() {
        rig.replace(pid);
    }
    assert_eq!(rig.events("no-pid-file").len(), 1);
    assert_eq!(rig.status().ready, 2);
    // The files of the first workers were held open; those of the later ones could not be made.
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["died", "no-pid-file"]);
}

#[test]
fn a_lock_of_a_pid_file_that_cannot_be_given_back_ends_nobody() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --pid-dir pids --pid-file app.pid -- ./threaded");
    let mut rig = Rig::dressed(words, |cmd, _| {
        cmd.env("LD_PRELOAD", shim());
    });
    rig.up();
    let fails = rig.dir().join("shim-unlock");
    fs::write(&fails, "").unwrap();
    for pid in rig.status().pids() {
        rig.replace(pid);
    }
    assert_eq!(rig.status().ready, 2);
    let names = fs::read_dir(rig.dir().join("pids")).unwrap();
    assert_eq!(names.count(), 3);
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["died"]);
}

#[test]
fn the_log_goes_to_a_file_and_what_workers_write_stays_on_stderr() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --log-file app.log -- ./threaded --bye --stderr-flood");
    let mut rig = Rig::start(words);
    rig.wait_status("it serves", |s| s.ready == 1);
    let log = rig.dir().join("app.log");
    let text = || fs::read_to_string(&log).unwrap_or_default();
    assert!(text().contains("\"event\":\"all-ready\""), "{}", text());
    assert_eq!(fs::metadata(&log).unwrap().mode() & 0o777, 0o640);
    // A rotation, by signal and by verb.
    for (n, how) in ["SIGUSR1", "reopen"].into_iter().enumerate() {
        fs::rename(&log, rig.dir().join(format!("app.log.{n}"))).unwrap();
        match how {
            "reopen" => {
                let said = rig.verb("reopen");
                let want = format!("reopened {}\n", log.display());
                assert_eq!((said.code, said.out), (0, want));
            }
            _ => rig.signal(Signal::SIGUSR1),
        }
        rig.until("the log is reopened", || text().contains("\"reopened\""));
    }
    rig.signal(Signal::SIGTERM);
    rig.wait_exit();
    let end = text();
    let stopped = end.contains("\"event\":\"stopped\"");
    assert!(stopped && !end.contains("bye\n"), "{end}");
    assert!(rig.lines().iter().any(|l| l == "bye"));
    assert!(rig.events("all-ready").is_empty());
    rig.finish(0, &[]);
}

#[test]
fn a_log_that_cannot_be_written_or_reopened_costs_lines_and_no_more() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --log-file logs/app.log -- ./threaded");
    let mut rig = Rig::dressed(words, |_, dir| {
        fs::create_dir(dir.join("logs")).unwrap();
        std::os::unix::fs::symlink("/dev/full", dir.join("logs/app.log")).unwrap();
    });
    rig.wait_status("it serves", |s| s.ready == 1);
    let logs = rig.dir().join("logs");
    // The disk has room again.
    fs::remove_file(logs.join("app.log")).unwrap();
    assert_eq!(rig.verb("reopen").code, 0);
    let text = fs::read_to_string(logs.join("app.log")).unwrap();
    let first = text.lines().next().unwrap();
    assert!(first.contains("log lines were lost"), "{text}");
    assert!(
        text.lines().nth(1).unwrap().contains("\"reopened\""),
        "{text}"
    );
    let stream = rig.verb("events --json").out;
    let told = stream.lines().find(|l| l.contains("\"log-lost\"")).unwrap();
    let count = told.split_once("\"count\":").unwrap().1;
    let count = count.split(',').next().unwrap();
    assert!(first.contains(&format!("\"count\":{count},")), "{first}");
    fs::rename(&logs, rig.dir().join("elsewhere")).unwrap();
    let said = rig.verb("reopen");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("going on with the old one"), "{said:?}");
    rig.signal(Signal::SIGTERM);
    rig.wait_exit();
    let text = fs::read_to_string(rig.dir().join("elsewhere/app.log")).unwrap();
    for event in ["reopen-failed", "stopped"] {
        assert!(text.contains(&format!("\"event\":\"{event}\"")), "{text}");
    }
    rig.finish(0, &[]);
}

#[test]
fn where_the_log_goes_to_stderr_usr1_is_harmless() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 1 -p {port} -- ./threaded"));
    rig.up();
    rig.signal(Signal::SIGUSR1);
    let said = rig.wait("reopened", |_| true);
    assert!(said.msg.contains("nothing to reopen"), "{said:?}");
    assert_eq!(rig.status().ready, 1);
    rig.end(&[]);
}
