//! Workers that live longer than their master (--orphans keep): they serve on, and the next start has them.

use crate::client::{get, get_unix, v4};
use crate::harness::{Rig, Words, sigkill};
use crate::load::Load;
use crate::place::{free_port, python};
use crate::{birth, proc};
use nix::sys::signal::Signal;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

/// A cluster `shop` whose master is killed when all are ready; and its workers, which live on.
fn killed(mut first: Rig) -> (Rig, Vec<i32>) {
    first.wait("all-ready", |_| true);
    killed_now(first)
}

/// The same of one that is ready.
fn killed_now(mut first: Rig) -> (Rig, Vec<i32>) {
    let workers = first.status().pids();
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    assert!(workers.iter().all(|pid| proc::alive(*pid)));
    (first, workers)
}

fn shop(words: impl Words) -> Vec<String> {
    let mut all = "--name shop --orphans keep".words();
    all.extend(words.words());
    all
}

/// The next start of the same name, where the first one was.
fn next(first: &Rig, words: impl Words) -> Rig {
    let dir = first.dir().to_path_buf();
    Rig::dressed(words, |cmd, _| {
        cmd.current_dir(&dir)
            .env("RUNTIME_DIRECTORY", dir.join("run"));
    })
}

/// `status --json` of it, by its name.
fn json(first: &Rig) -> String {
    let mut cmd = first.command();
    cmd.args(["--name", "shop", "status", "--json"]);
    let said = crate::place::run(cmd, first.deadline());
    assert_eq!(said.code, 0, "{said:?}");
    said.out
}

/// The pids of its workers.
fn pids(first: &Rig) -> Vec<i32> {
    crate::harness::Status::parse(&json(first)).pids()
}

fn verb(first: &Rig, verb: &str) {
    let mut cmd = first.command();
    cmd.args(["--name", "shop"]).args(verb.split(' '));
    let said = crate::place::run(cmd, first.deadline());
    assert_eq!(said.code, 0, "{said:?}");
}

/// The end of both: nothing is left, and nothing is written down.
fn over(first: Rig, second: Rig) {
    second.signal(Signal::SIGTERM);
    let allowed = ["orphans", "died", "unhealthy"];
    second.finish(0, &allowed);
    first.until("nothing is left", || first.left_behind().is_empty());
    let left: Vec<_> = std::fs::read_dir(first.dir().join("run"))
        .unwrap()
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn nobody_is_lost_while_the_master_is_dead_nor_when_the_next_one_adopts_and_reloads() {
    let port = free_port();
    let words = || shop(format!("-n 2 -p {port} -- {} blocking.py", python()));
    let first = Rig::start(words());
    first.until("it answers", || get(v4(port), "/").is_ok());
    let mut load = Load::going(&port.to_string());
    let (first, workers) = killed(first);
    let answered = load.so_far().of("requests");
    load.until("some are answered without a master", |t| {
        t.of("requests") > answered + 20
    });
    let mut second = next(&first, words());
    second.wait("orphans", |e| e.msg.contains("adopting 2 workers"));
    second.wait("all-ready", |_| true);
    assert_eq!(pids(&first), workers);
    let shown = json(&first);
    assert_eq!(shown.matches("\"adopted\":true").count(), 2, "{shown}");
    let answered = load.so_far().of("requests");
    load.until("some are answered by the adopted", |t| {
        t.of("requests") > answered + 20
    });
    verb(&first, "reload");
    let new = pids(&first);
    assert!(new.len() == 2 && workers.iter().all(|pid| !new.contains(pid)));
    assert!(json(&first).matches("\"adopted\":true").count() == 0);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    over(first, second);
}

#[test]
fn an_adopted_worker_that_ends_has_another_one_in_its_place() {
    let port = free_port();
    let words = || shop(format!("-n 2 -p {port} -- ./threaded"));
    let (first, workers) = killed(Rig::start(words()));
    let mut second = next(&first, words());
    second.wait("all-ready", |_| true);
    sigkill(workers[0]);
    let died = second.wait("died", |e| e.pid() == workers[0]);
    assert!(
        died.msg.contains("failure (status unknown)"),
        "{}",
        died.msg
    );
    let new = second.wait("ready", |e| e.slot() == 0).pid();
    assert_eq!(pids(&first), [new, workers[1]]);
    // That one is the master's child: how it ends is known.
    sigkill(new);
    let died = second.wait("died", |e| e.pid() == new);
    assert_eq!(died.text("signal"), "SIGKILL");
    second.wait("ready", |e| e.slot() == 0);
    over(first, second);
}

#[test]
fn a_worker_behind_a_shell_is_adopted_with_its_shell_and_goes_with_it() {
    let port = free_port();
    let words = || {
        let mut all = shop(format!("-n 2 -p {port} -- sh -c"));
        all.push("node selecting.js; true".to_string());
        all
    };
    let (first, workers) = killed(Rig::start(words()));
    assert_eq!(first.left_behind().len(), 4);
    let mut second = next(&first, words());
    second.wait("all-ready", |_| true);
    assert_eq!(pids(&first), workers);
    get(v4(port), "/").unwrap();
    verb(&first, "reload");
    first.until("the old ones have gone, with what they had started", || {
        first.left_behind().is_empty()
    });
    get(v4(port), "/").unwrap();
    over(first, second);
}

#[test]
fn the_port_that_workers_have_by_themselves_is_theirs_still() {
    let port = free_port();
    let words = || shop(format!("-n 2 -- {} blocking.py {port}", python()));
    let first = Rig::start(words());
    first.until("it answers", || get(v4(port), "/").is_ok());
    let load = Load::going(&port.to_string());
    let (first, workers) = killed(first);
    let mut second = next(&first, words());
    second.wait("all-ready", |e| e.msg.contains(&port.to_string()));
    assert_eq!(pids(&first), workers);
    verb(&first, "reload");
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    over(first, second);
}

#[test]
fn a_unix_socket_is_kept_with_its_name() {
    let words = || {
        shop(format!(
            "-n 2 -l unix:at.sock -- {} blocking.py unix:at.sock",
            python()
        ))
    };
    let (first, workers) = killed(Rig::start(words()));
    let at = first.dir().join("at.sock");
    get_unix(UnixStream::connect(&at).unwrap()).unwrap();
    let mut second = next(&first, words());
    second.wait("all-ready", |_| true);
    assert_eq!(pids(&first), workers);
    get_unix(UnixStream::connect(&at).unwrap()).unwrap();
    verb(&first, "reload");
    get_unix(UnixStream::connect(&at).unwrap()).unwrap();
    over(first, second);
}

#[test]
fn a_start_that_asks_for_something_else_has_them_serve_until_that_does() {
    let port = free_port();
    let first = Rig::start(shop(format!("-n 4 -p {port} -- {} blocking.py", python())));
    first.until("it answers", || get(v4(port), "/").is_ok());
    let load = Load::going(&port.to_string());
    let (first, workers) = killed(first);
    // Nor need it say again that they are to be kept.
    let words = format!(
        "-n 2 -p {port} --name shop -- {} blocking.py name=aa",
        python()
    );
    let mut second = next(&first, words);
    second.wait("orphans", |e| e.msg.contains("adopting 4 workers"));
    second.wait("reload-finished", |_| true);
    let new = pids(&first);
    assert!(new.len() == 2 && workers.iter().all(|pid| !new.contains(pid)));
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    let stays = |pid: &i32| proc::alive(*pid);
    second.until("all old ones have gone", || !workers.iter().any(stays));
    assert!(!first.dir().join("run/shop.workers").exists());
    over(first, second);
}

#[test]
fn they_stop_with_the_cluster_that_has_adopted_them() {
    let port = free_port();
    let words = || {
        shop(format!(
            "-n 2 -p {port} --stop-timeout 1s -- ./threaded --deaf"
        ))
    };
    let (first, workers) = killed(Rig::start(words()));
    let mut second = next(&first, words());
    second.wait("all-ready", |_| true);
    second.signal(Signal::SIGTERM);
    second.wait("killed", |_| true);
    second.finish(0, &["orphans", "died", "killed", "unhealthy"]);
    assert!(!workers.iter().any(|pid| proc::alive(*pid)));
    assert!(get(v4(port), "/").is_err());
}

#[test]
fn a_pid_that_is_anothers_by_now_is_not_touched() {
    let port = free_port();
    let mut stranger = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let record = format!(
        "minicluster-workers 1\nboot {}\nmaster 2\ncommand / x\nlane 1 given 0.0.0.0:{port}\n\
         worker {} 12345 0 1 serves\nworker 999999999 5 1 1 serves\n",
        boot.trim(),
        stranger.id()
    );
    let words = shop(format!("-n 2 -p {port} -- ./threaded"));
    let mut rig = Rig::dressed(words, |_, dir| {
        use std::os::unix::fs::DirBuilderExt;
        let run = dir.join("run");
        std::fs::DirBuilder::new().mode(0o700).create(&run).unwrap();
        std::fs::write(run.join("shop.workers"), record).unwrap();
    });
    rig.up();
    assert!(rig.events("orphans").is_empty());
    rig.end(&[]);
    assert!(proc::alive(stranger.id() as i32));
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn where_each_worker_has_a_queue_of_its_own_each_has_its_own_again() {
    let port = free_port();
    let words = || {
        let server = format!("{} blocking.py", python());
        shop(format!("-n 4 -p {port} --balance hash -- {server}"))
    };
    let first = Rig::start(words());
    first.until("it answers", || get(v4(port), "/").is_ok());
    // One that was replaced has left a hole in the kernel's order.
    first.wait_many("ready", 4);
    sigkill(first.status().pids()[1]);
    first.wait_many("ready", 5);
    let load = Load::going(&format!("{port} clients=8"));
    let (first, workers) = killed(first);
    let mut second = next(&first, words());
    second.wait("all-ready", |_| true);
    assert_eq!(pids(&first), workers);
    verb(&first, "reload");
    let new = pids(&first);
    assert!(new.len() == 4 && workers.iter().all(|pid| !new.contains(pid)));
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    over(first, second);
}

#[test]
fn those_whose_sockets_cannot_be_had_are_stopped_before_others_start() {
    let port = free_port();
    let words = || {
        shop(format!(
            "-n 2 --balance hash -- {} blocking.py {port}",
            python()
        ))
    };
    let (first, workers) = killed(Rig::start(words()));
    let mut second = next(&first, words());
    second.wait("all-ready", |_| true);
    let said = &second.events("orphans")[0];
    assert!(said.msg.contains("cannot be adopted"), "{}", said.msg);
    assert!(!workers.iter().any(|pid| proc::alive(*pid)));
    over(first, second);
}

#[test]
fn those_of_an_ordinary_user_are_adopted_by_that_user() {
    let port = free_port();
    let words = || shop(format!("-n 2 -p {port} -- ./threaded"));
    let (first, workers) = killed(Rig::unprivileged(words(), |_, _| {}));
    let dir = first.dir().to_path_buf();
    let mut second = Rig::unprivileged(words(), |cmd, _| {
        cmd.current_dir(&dir)
            .env("RUNTIME_DIRECTORY", dir.join("run"));
    });
    second.wait("all-ready", |_| true);
    // (Its directory is nobody else's.)
    let mut cmd = first.command();
    cmd.args(["--name", "shop", "status", "--json"]);
    birth::as_nobody(&mut cmd);
    let said = crate::place::run(cmd, first.deadline());
    assert_eq!(crate::harness::Status::parse(&said.out).pids(), workers);
    over(first, second);
}

#[test]
fn those_of_another_user_are_adopted_by_root() {
    let port = free_port();
    let words = || shop(format!("-n 2 -p {port} --user nobody -- ./threaded"));
    let (first, workers) = killed(Rig::over_nobody("", words(), |_, _| {}));
    let mut second = next(&first, words());
    second.wait("all-ready", |_| true);
    assert_eq!(pids(&first), workers);
    verb(&first, "reload");
    over(first, second);
}

/// `--check` of the next start, where the first one was.
fn checked(first: &Rig, words: impl Words) -> crate::place::Said {
    let mut cmd = first.command();
    cmd.arg("--check").args(words.words());
    crate::place::run(cmd, first.deadline())
}

#[test]
fn the_check_of_a_start_that_adopts_says_so_and_leaves_the_workers_as_they_are() {
    let port = free_port();
    let words = || {
        shop(format!(
            "-n 2 -p {port} -l unix:at.sock -- {} blocking.py {port}",
            python()
        ))
    };
    let first = Rig::start(words());
    // Before that it may not have its name yet.
    first.wait_many("all-ready", 1);
    let running = checked(&first, words());
    assert_eq!(running.code, 75, "{running:?}");
    let (first, workers) = killed(first);
    let said = checked(&first, words());
    assert_eq!(said.code, 0, "{said:?}");
    let wanted = format!(
        "2 workers of the last master, pid {}, would be adopted",
        first.pid()
    );
    assert!(said.out.contains(&wanted), "{said:?}");
    // Of another name they are strangers, who are in its way.
    let other = format!("-n 2 -p {port} --name other -- ./threaded");
    let said = checked(&first, other);
    assert_eq!(said.code, 75, "{said:?}");
    assert!(!said.out.contains("would be adopted"), "{said:?}");
    // As the start finds.
    get(v4(port), "/").unwrap();
    let mut second = next(&first, words());
    second.wait("all-ready", |_| true);
    assert_eq!(pids(&first), workers);
    over(first, second);
}

#[test]
fn who_asks_for_a_cluster_whose_workers_alone_live_is_told_what_to_do() {
    let port = free_port();
    let words = || shop(format!("-n 2 -p {port} -- ./threaded"));
    let (first, _) = killed(Rig::start(words()));
    let mut cmd = first.command();
    cmd.args(["--name", "shop", "stop"]);
    let said = crate::place::run(cmd, first.deadline());
    assert_eq!(said.code, 3, "{said:?}");
    assert!(
        said.err.contains("2 workers of its last master live on"),
        "{said:?}"
    );
    let mut second = next(&first, words());
    second.wait("all-ready", |_| true);
    over(first, second);
}

#[test]
fn what_is_written_down_by_somebody_else_is_not_believed_and_that_is_said() {
    assert!(birth::root(), "this story takes root: run it as root");
    let port = free_port();
    let words = || shop(format!("-n 1 -p {port} -- ./threaded"));
    let (first, workers) = killed(Rig::start(words()));
    birth::give_to_nobody(&first.dir().join("run/shop.workers"));
    let other = free_port();
    let words = shop(format!("-n 1 -p {other} -- ./threaded"));
    let said = checked(&first, words.clone());
    assert!(said.out.contains("belongs to uid 65534"), "{said:?}");
    let mut second = next(&first, words);
    let ignored = second.wait("orphans", |e| e.msg.contains("is ignored"));
    assert!(
        ignored
            .msg
            .contains("it belongs to uid 65534, and we are 0"),
        "{}",
        ignored.msg
    );
    second.wait("all-ready", |_| true);
    assert_ne!(pids(&first), workers);
    assert!(proc::alive(workers[0]));
    sigkill(workers[0]);
    over(first, second);
}

#[test]
fn what_could_not_be_written_down_on_a_full_disk_is_when_there_is_room_again() {
    let how = birth::namespaces("-m");
    let mount =
        "mkdir -m 700 run; mount -t tmpfs -o size=64k,mode=700 none run; exec \"$0\" \"$@\"";
    let start = ["unshare", &how, "sh", "-ec", mount].map(String::from);
    let port = free_port();
    let mut rig = Rig::dressed_by(
        start.to_vec(),
        shop(format!("-n 2 -p {port} -- ./threaded")),
        |cmd, dir| {
            cmd.env("RUNTIME_DIRECTORY", dir.join("run"));
        },
    );
    rig.wait("all-ready", |_| true);
    let run = format!("/proc/{}/root{}/run", rig.pid(), rig.dir().display());
    let record = format!("{run}/shop.workers");
    let text = || std::fs::read_to_string(&record).unwrap_or_default();
    let first = rig.events("ready")[0].pid();
    rig.until("it is written down", || {
        text().contains(&format!("worker {first} "))
    });
    let full = std::fs::write(format!("{run}/fill"), vec![b'x'; 1 << 17]);
    assert!(full.is_err(), "64k have room for 128k");
    sigkill(first);
    let failed = rig.wait("orphans", |e| e.msg.contains("cannot write"));
    assert!(failed.msg.contains("tried again"), "{}", failed.msg);
    rig.wait_many("ready", 3);
    assert!(!std::path::Path::new(&format!("{record}.new")).exists());
    std::fs::remove_file(format!("{run}/fill")).unwrap();
    rig.wait("orphans", |e| e.msg.contains("is written again"));
    let new = rig.events("ready")[2].pid();
    assert!(text().contains(&format!("worker {new} ")), "{}", text());
    assert!(!text().contains(&format!("worker {first} ")), "{}", text());
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["orphans", "died", "unhealthy"]);
}

#[test]
fn a_port_that_was_passed_is_that_socket_again_whatever_workers_had_beside_it() {
    let passed = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = passed.local_addr().unwrap();
    let words = shop(format!(
        "-n 2 -l fd:7 -- {} blocking.py {}",
        python(),
        addr.port()
    ));
    let mut first = Rig::dressed(words.clone(), |cmd, _| birth::passing(cmd, &passed, 7));
    first.wait("all-ready", |_| true);
    // From here on they have one of ours beside it.
    assert_eq!(first.verb("reload").code, 0);
    let (first, workers) = killed_now(first);
    let dir = first.dir().to_path_buf();
    let mut second = Rig::dressed(words, |cmd, _| {
        cmd.current_dir(&dir)
            .env("RUNTIME_DIRECTORY", dir.join("run"));
        birth::passing(cmd, &passed, 7);
    });
    second.wait("all-ready", |_| true);
    let said = &second.events("orphans")[0];
    assert!(
        said.msg.contains("beside the one that is passed"),
        "{said:?}"
    );
    // They have gone, nobody else has that address, and clients come by what was passed.
    assert!(workers.iter().all(|pid| !proc::alive(*pid)));
    let theirs = pids(&first);
    for _ in 0..50 {
        let pid = get(addr, "/").unwrap().pid();
        assert!(theirs.contains(&pid), "{pid} of {theirs:?}");
    }
    verb(&first, "reload");
    for _ in 0..50 {
        get(addr, "/").unwrap();
    }
    over(first, second);
}

#[test]
fn of_those_that_a_master_forks_when_it_is_killed_none_lives_on_unknown() {
    for n in 1..=16 {
        let mut first = Rig::start(shop(
            "-n 24 --ready started --takeover off --log-level debug -- sleep 3333",
        ));
        first.wait_many("forked", n);
        first.signal(Signal::SIGKILL);
        first.wait_exit();
        let all = || first.others();
        // One that had not executed its program yet ends, or does.
        let sleeps = |pid: &i32| proc::command(*pid).contains("(sleep 3333");
        first.until("all are workers", || all().iter().all(sleeps));
        let text = std::fs::read_to_string(first.dir().join("run/shop.workers"));
        let text = text.unwrap_or_default();
        let known = |pid: &i32| {
            text.lines()
                .any(|l| l.starts_with(&format!("worker {pid} ")))
        };
        let left = all();
        assert!(left.iter().all(known), "{left:?} are not all in\n{text}");
        left.iter().for_each(|pid| sigkill(*pid));
        first.until("nothing is left", || first.left_behind().is_empty());
    }
}
