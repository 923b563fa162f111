//! Files that a cluster reads and leaves: options in a file, pid files, the log.

use crate::client::{all_answer, v4};
use crate::harness::{Rig, Words, sigkill};
use crate::place::{Place, Said, free_port, run};
use crate::proc;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs;
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
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("only stop and kill"), "{said:?}");
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
