//! The verbs: what they answer, with which exit code, and how they find their master.

use crate::birth;
use crate::client::{get, v4};
use crate::harness::{Rig, Status, Words, sigkill};
use crate::place::{BINARY, Place, Said, free_port, python, run};
use crate::proc;
use nix::sys::signal::Signal;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tinyjson::JsonValue;

fn pair() -> (Rig, u16) {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded"));
    rig.up();
    (rig, port)
}

/// A verb typed without -C.
fn typed(rig: &Rig, words: &str, dress: impl FnOnce(&mut std::process::Command)) -> Said {
    let mut cmd = rig.command();
    cmd.args(words.words());
    dress(&mut cmd);
    run(cmd, rig.deadline())
}

#[test]
fn status_is_a_line_and_a_table() {
    let (rig, port) = pair();
    let said = rig.verb("status");
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    let lines: Vec<&str> = said.out.lines().collect();
    let head = format!("threaded-{port} pid {} up ", rig.pid());
    assert!(lines[0].starts_with(&head), "{said:?}");
    let tail = format!(" 2/2 ready generation 1 tcp://0.0.0.0:{port} takeover on");
    assert!(lines[0].ends_with(&tail), "{said:?}");
    let columns: Vec<&str> = lines[1].split_whitespace().collect();
    assert_eq!(
        columns,
        "SLOT PID STATE AGE RESTARTS RSS CPU OPEN QUEUE LAST".words()
    );
    for (slot, line) in lines[2..].iter().enumerate() {
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(cells[0], slot.to_string());
        assert!(proc::alive(cells[1].parse().unwrap()));
        assert_eq!(
            (cells[2], cells[4], cells[7], cells[8], cells[9]),
            ("ready", "0", "0", "-", "-"),
            "{line}"
        );
    }
    assert_eq!(lines.len(), 4);
    rig.end(&[]);
}

#[test]
fn memory_is_that_of_all_the_processes_behind_a_wrapper() {
    let port = free_port().to_string();
    let script = format!("{} blocking.py {port}; true", python());
    let mut rig = Rig::start(["-n", "1", "-p", &port, "--", "sh", "-c", &script]);
    rig.up();
    let said: JsonValue = rig.verb("status --json").out.parse().unwrap();
    let rss = *said["slots"][0]["rss"].get::<f64>().unwrap();
    // A shell alone has a fifth of that, an interpreter twice as much.
    assert!(rss > 5e6, "{rss}");
    rig.end(&[]);
}

#[test]
fn what_an_answer_has_used_of_memory_is_given_back() {
    let (rig, _) = pair();
    let (pid, kib) = (rig.pid(), |what| proc::kib(rig.pid(), what));
    rig.until("the master rests", || proc::rests(pid));
    let before = kib("VmRSS");
    for verb in ["status", "workers details", "deps"] {
        let said = rig.verb(verb);
        assert_eq!(said.code, 0, "{said:?}");
        // How much of the file is mapped at once is the kernel's choice; most of it is more than a megabyte.
        let most = before + 1024;
        let again = format!("{before} KiB and little more after {verb}");
        rig.until(&again, || proc::rests(pid) && kib("VmRSS") < most);
    }
    rig.end(&[]);
}

#[test]
fn somebody_elses_cluster_does_not_listen_and_says_so() {
    use std::os::unix::fs::PermissionsExt;
    if !birth::root() {
        // Only root can have somebody else try.
        return;
    }
    let (rig, _) = pair();
    // As an administrator might who does not know better.
    let open = std::fs::Permissions::from_mode(0o777);
    let (socket, run_dir) = (rig.socket(), rig.dir().join("run"));
    for path in [&socket, &run_dir] {
        std::fs::set_permissions(path, open.clone()).unwrap();
    }
    let binary = rig.dir().join("client");
    let copied = std::process::Command::new("cp")
        .arg(BINARY)
        .arg(&binary)
        .status();
    assert!(copied.unwrap().success());
    let mut cmd = std::process::Command::new(binary);
    cmd.arg("-C").arg(&socket).arg("stop");
    birth::as_nobody(&mut cmd);
    let said = run(cmd, rig.deadline());
    assert_eq!(said.code, 77, "{said:?}");
    assert!(said.err.contains("of uid 0, not 65534"), "{said:?}");
    rig.end(&["client-refused"]);
}

#[test]
fn status_as_json_says_the_same() {
    let (rig, port) = pair();
    let Status {
        name,
        pid,
        ports,
        rows,
        ..
    } = rig.status();
    assert_eq!((name, pid), (format!("threaded-{port}"), rig.pid()));
    assert_eq!(ports, [format!("0.0.0.0:{port}")]);
    assert!(rows.iter().all(|r| r.state == "ready" && r.restarts == 0));
    assert_eq!(rig.verb("--json status").code, 0);
    rig.end(&[]);
}

#[test]
fn workers_are_listed_with_their_commands() {
    let port = free_port();
    let words = format!("-n 2 -p {port} -- ./threaded --backlog {{slot+100}}");
    let mut rig = Rig::start(words);
    rig.up();
    let pids = rig.status().pids();
    let cells = |line: &str| {
        line.split_whitespace()
            .map(String::from)
            .collect::<Vec<_>>()
    };
    let simple = rig.verb("workers").out;
    assert_eq!(simple.lines().count(), 2);
    let first = simple.lines().next().unwrap();
    assert_eq!(cells(first), ["0", &pids[0].to_string(), "ready"]);
    assert_eq!(rig.verb("workers simple").out, simple);
    let details = rig.verb("workers details").out;
    let lines: Vec<&str> = details.lines().collect();
    let head = "PID SLOT GENERATION STATE AGE RSS CPU RESTARTS OPEN COMMAND";
    assert_eq!(cells(lines[0]), head.words());
    assert_eq!(
        cells(lines[2])[..4],
        [&pids[1].to_string(), "1", "1", "ready"]
    );
    assert!(
        lines[2].ends_with("0         0     ./threaded --backlog 101"),
        "{details}"
    );
    let json: JsonValue = rig.verb("workers details --json").out.parse().unwrap();
    assert_eq!(json[0]["pid"].get::<f64>(), Some(&f64::from(pids[0])));
    assert!(*json[0]["rss"].get::<f64>().unwrap() > 1e5);
    let word = json[1]["command"][2].get::<String>();
    assert_eq!(word.unwrap(), "101");
    rig.end(&[]);
}

#[test]
fn why_tells_of_the_last_deaths() {
    let (mut rig, _) = pair();
    assert_eq!(rig.verb("why").out, "no worker has ended\n");
    let victim = rig.status().pids()[1];
    rig.replace(victim);
    let said = rig.verb("why");
    let line = said.out.lines().next().unwrap();
    for part in [
        "ago",
        &format!("worker 1 pid {victim}"),
        "failure (SIGKILL)",
        "respawn",
    ] {
        assert!(line.contains(part), "{said:?}");
    }
    assert_eq!(rig.verb("why 1").out.lines().count(), 1);
    assert_eq!(rig.verb("why 0").out, "no worker has ended\n");
    let bad = rig.verb("why 2");
    assert_eq!(bad.code, 64, "{bad:?}");
    assert!(bad.err.contains("0 to 1"), "{bad:?}");
    let json: JsonValue = rig.verb("why 1 --json").out.parse().unwrap();
    assert_eq!(json[0]["pid"].get::<f64>(), Some(&f64::from(victim)));
    let signal = json[0]["signal"].get::<String>().unwrap();
    assert_eq!(signal, "SIGKILL");
    rig.end(&["died"]);
}

#[test]
fn why_tells_the_last_words_of_a_worker_that_was_never_ready() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --respawn 30s -- ./threaded --crash-at-start"
    ));
    rig.wait("died", |_| true);
    let said = rig.verb("why 0");
    assert!(said.out.contains("failure (exit 3)"), "{said:?}");
    assert!(said.out.contains("never ready"), "{said:?}");
    assert!(
        said.out
            .contains("    | threaded: no such database: stock\n"),
        "{said:?}"
    );
    let row = &rig.status().rows[0];
    assert_eq!((row.pid, row.state.as_str()), (None, "waiting"));
    rig.end(&["died"]);
}

#[test]
fn version_and_help() {
    let (rig, _) = pair();
    assert_eq!(rig.verb("version").out.trim(), env!("CARGO_PKG_VERSION"));
    let help = rig.verb("help");
    for verb in ["status", "why", "stop", "kill", "reopen", "version", "help"] {
        assert!(help.out.contains(verb), "{help:?}");
    }
    assert_eq!(rig.verb("help stop").out.lines().count(), 1);
    let json: JsonValue = rig.verb("help stop --json").out.parse().unwrap();
    assert_eq!(json[0]["verb"].get::<String>().unwrap(), "stop");
    let unknown = rig.verb("help statu");
    assert_eq!(unknown.code, 64);
    assert!(unknown.err.contains("status"), "{unknown:?}");
    assert_eq!(rig.verb("status now").code, 64);
    let stray = rig.verb("stop now");
    assert_eq!(
        (stray.code, stray.err.trim()),
        (64, "minicluster: stop does not take now")
    );
    rig.end(&[]);
}

#[test]
fn words_that_a_verb_does_not_take_are_told_without_a_cluster() {
    let place = Place::new();
    for words in ["status now", "stop stop", "--no-wait status", "why 1 2"] {
        let mut cmd = place.command();
        cmd.args(words.words());
        let said = run(cmd, Instant::now() + Duration::from_secs(20));
        assert_eq!(said.code, 64, "{said:?}");
        assert!(said.err.contains("does not take"), "{said:?}");
    }
}

#[test]
fn bash_completes_verbs_options_and_their_values() {
    let place = Place::new();
    let script = "eval \"$($0 --completions bash)\"; \
                  t() { COMP_WORDS=(minicluster \"$@\"); COMP_CWORD=$#; _minicluster; \
                  echo \"${COMPREPLY[*]}\"; }; \
                  t st; t --takeover = re; t --ready s; t --log-fo; t help ki; t stop --n; t --name s";
    let run_dir = place.dir.join("run");
    std::fs::create_dir_all(&run_dir).unwrap();
    std::fs::write(run_dir.join("shop.lock"), "").unwrap();
    let mut cmd = std::process::Command::new("bash");
    cmd.args(["-c", script, BINARY]);
    cmd.env("RUNTIME_DIRECTORY", &run_dir);
    let said = cmd.output().unwrap();
    let lines: Vec<&str> = std::str::from_utf8(&said.stdout).unwrap().lines().collect();
    let names: Vec<&str> = lines[6].split(' ').filter(|n| *n == "shop").collect();
    assert_eq!(names, ["shop"]);
    let want = [
        "status states start stop",
        "require",
        "started",
        "--log-format",
        "kill",
        "--no-wait",
    ];
    assert_eq!(lines[..6], want, "{said:?}");
}

#[test]
fn stop_returns_when_the_master_is_gone_so_that_a_start_may_follow() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --name loop -- ./threaded");
    for _ in 0..5 {
        // At once on the same port, whatever the last round has left.
        let mut rig = Rig::start(words.as_str());
        rig.up();
        let said = rig.verb("stop");
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
        assert!(!proc::alive(rig.pid()), "the master is still there");
        // Which client it was, so that one can look for it.
        let why = rig.wait("stopping", |_| true);
        assert_eq!(
            why.number("by_uid"),
            f64::from(nix::unistd::geteuid().as_raw())
        );
        assert!(why.number("by_pid") > 1.0, "{why:?}");
        rig.finish(0, &[]);
    }
}

#[test]
fn stop_without_waiting_returns_at_once() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --stop-timeout 40s -- ./threaded --deaf"
    ));
    rig.up();
    let descriptors = || proc::descriptors(rig.pid());
    // (Before anybody asks: who has hung up is there until that is noticed.)
    let alone = descriptors();
    let worker = rig.status().pids()[0];
    let said = rig.verb("stop --no-wait");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(rig.events("stopped").is_empty());
    // It can be waited for later; that does not make it harder.
    rig.until("that client is gone", || descriptors() == alone);
    std::thread::scope(|s| {
        let waits = s.spawn(|| rig.verb("stop"));
        rig.until("it is being waited for", || descriptors() > alone);
        sigkill(worker);
        let said = waits.join().unwrap();
        assert_eq!(said.code, 0, "{said:?}");
    });
    rig.wait("stopped", |_| true);
    assert!(rig.events("hard-stop").is_empty());
    rig.finish(0, &[]);
}

#[test]
fn kill_is_0_for_who_asked_and_1_for_the_master() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded --deaf"));
    rig.up();
    let said = rig.verb("kill");
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    rig.finish(1, &["hard-stop"]);
}

#[test]
fn a_stop_that_another_makes_hard_is_a_failure_for_who_asked_for_it() {
    // A script reads the same from its answer, and nothing else is said.
    let json = "{\"code\":1,\"left\":[]}\n";
    let text = "minicluster: stopped (the master exits 1)\n";
    for (words, out, err) in [("stop", "", text), ("stop --json", json, "")] {
        let port = free_port();
        let mut rig = Rig::start(format!("-n 1 -p {port} -- ./threaded --deaf"));
        rig.up();
        let mut cmd = rig.command();
        cmd.arg("-C").arg(rig.socket()).args(words.words());
        let deadline = rig.deadline();
        let waiting = std::thread::spawn(move || run(cmd, deadline));
        rig.wait("stopping", |_| true);
        rig.signal(Signal::SIGQUIT);
        let said = waiting.join().unwrap();
        assert_eq!(
            (said.code, &*said.out, &*said.err),
            (1, out, err),
            "{said:?}"
        );
        rig.finish(1, &["hard-stop"]);
    }
}

#[test]
fn several_clusters_are_listed_and_one_is_named() {
    let (a, b) = (free_port(), free_port());
    let mut first = Rig::start(format!("-n 1 -p {a} --name left -- ./threaded"));
    first.up();
    let run_dir = first.dir().join("run");
    let words = format!("-n 1 -p {b} --name right -- ./threaded");
    let mut second = Rig::dressed(words, |cmd, _| {
        cmd.env("RUNTIME_DIRECTORY", &run_dir);
    });
    second.up();
    let said = typed(&first, "status", |_| {});
    assert_eq!(said.code, 64, "{said:?}");
    for (name, pid) in [("left", first.pid()), ("right", second.pid())] {
        let line = format!("--name {name}  (pid {pid})");
        assert!(said.err.contains(&line), "{said:?}");
        let one = typed(&first, &format!("--name {name} status"), |_| {});
        assert!(
            one.out.starts_with(&format!("{name} pid {pid} ")),
            "{one:?}"
        );
    }
    let socket = run_dir.join("right.sock");
    let by_path = typed(&first, &format!("-C {} status", socket.display()), |_| {});
    assert!(by_path.out.starts_with("right "), "{by_path:?}");
    let by_env = typed(&first, "status", |cmd| {
        cmd.env("MINICLUSTER_CONTROL", &socket);
    });
    assert!(by_env.out.starts_with("right "), "{by_env:?}");
    // What is typed is stronger than what a worker's environment says.
    let by_name = typed(&first, "--name left status", |cmd| {
        cmd.env("MINICLUSTER_CONTROL", &socket);
    });
    assert!(by_name.out.starts_with("left "), "{by_name:?}");
    second.end(&[]);
    first.end(&[]);
}

#[test]
fn the_only_one_needs_no_name() {
    let port = free_port();
    let words = format!("-n 1 -p {port} -- ./threaded");
    // As nobody, since root also looks where other clusters of root may be.
    let mut rig = Rig::unprivileged(words, |_, _| {});
    rig.up();
    let said = typed(&rig, "status", crate::birth::as_nobody);
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.out.starts_with(&format!("threaded-{port} ")),
        "{said:?}"
    );
    rig.end(&[]);
}

#[test]
fn not_running_is_exit_3() {
    let (rig, _) = pair();
    let said = typed(&rig, "--name nobody status", |_| {});
    assert_eq!(said.code, 3, "{said:?}");
    assert!(said.err.contains("not running"), "{said:?}");
    for path in ["/nowhere/x.sock", "/dev/null"] {
        let said = typed(&rig, &format!("-C {path} stop"), |_| {});
        assert_eq!(said.code, 3, "{said:?}");
    }
    rig.end(&[]);
}

#[test]
fn what_a_killed_master_left_does_not_matter() {
    let port = free_port();
    let mut first = Rig::start(format!("-n 1 -p {port} --name shop -- ./threaded"));
    first.up();
    let run_dir = first.dir().join("run");
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    assert!(run_dir.join("shop.sock").exists() && run_dir.join("shop.lock").exists());
    let said = typed(&first, "--name shop status", |_| {});
    assert_eq!(said.code, 3, "{said:?}");
    first.until("its worker has gone", || first.left_behind().is_empty());
    let words = format!("-n 1 -p {port} --name shop -- ./threaded");
    let mut second = Rig::dressed(words, |cmd, _| {
        cmd.env("RUNTIME_DIRECTORY", &run_dir);
    });
    second.up();
    let said = typed(&first, "--name shop status", |_| {});
    let head = format!("shop pid {} ", second.pid());
    assert!(said.out.starts_with(&head), "{said:?}");
    second.end(&[]);
}

#[test]
fn the_socket_is_where_it_is_said_and_for_its_owner_only() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 1 -p {port} -C here.sock -- ./threaded"));
    rig.up();
    let socket = rig.dir().join("here.sock");
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);
    assert_eq!(mode(&rig.dir().join("run")), 0o700);
    let name = format!("threaded-{port}");
    // By its path, and from anywhere by its name.
    for how in ["-C here.sock", &format!("--name {name}")] {
        let said = typed(&rig, &format!("{how} status"), |cmd| {
            if how.starts_with("--name") {
                cmd.current_dir("/");
            }
        });
        assert!(said.out.starts_with(&format!("{name} pid ")), "{said:?}");
    }
    rig.end(&[]);
    assert!(!socket.exists(), "it goes with its master");
}

#[test]
fn a_path_longer_than_the_address_of_a_socket_may_be_works_too() {
    let port = free_port();
    let long = format!("{}.sock", "long".repeat(40));
    let start = format!("-n 1 -p {port} -C {long} -- ./threaded");
    let mut rig = Rig::start(&*start);
    rig.up();
    for how in [format!("-C {long}"), format!("--name threaded-{port}")] {
        let said = typed(&rig, &format!("{how} status"), |_| {});
        assert_eq!(said.code, 0, "{said:?}");
    }
    let second = typed(&rig, &start, |_| {});
    assert_eq!(second.code, 75, "{second:?}");
    rig.end(&[]);
}

#[test]
fn one_without_a_control_socket_is_known_all_the_same() {
    let port = free_port();
    let words = format!("-n 1 -p {port} -C off --name mute -- ./threaded --env");
    let mut rig = Rig::start(words);
    rig.up();
    let worker = get(v4(port), "/env").unwrap();
    assert_eq!(worker.env("MINICLUSTER_CONTROL"), None);
    let pid = rig.pid();
    let asked = typed(&rig, "--name mute status", |_| {});
    let why = format!("mute runs, pid {pid}, without a control socket; end it: kill {pid}");
    assert_eq!(asked.code, 1, "{asked:?}");
    assert!(asked.err.contains(&why), "{asked:?}");
    let started = typed(&rig, "--name mute -- true", |_| {});
    assert_eq!(started.code, 75, "{started:?}");
    assert!(started.err.contains(&format!("end it: kill {pid}")));
    rig.end(&[]);
}

#[test]
fn a_look_of_a_client_does_not_keep_a_name_from_a_master() {
    let place = Place::new();
    let run_dir = place.dir.join("run");
    std::fs::create_dir_all(&run_dir).unwrap();
    std::fs::set_permissions(&run_dir, Permissions::from_mode(0o700)).unwrap();
    // Left by a master that was killed; so every look has it for a moment.
    std::fs::write(run_dir.join("shop.lock"), "1").unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let lock = std::fs::File::open(run_dir.join("shop.lock"));
                let how = nix::fcntl::FlockArg::LockSharedNonblock;
                drop(lock.map(|l| nix::fcntl::Flock::lock(l, how)));
            }
        });
        let end = Instant::now() + Duration::from_secs(20);
        let codes = (0..50).map(|_| {
            let mut cmd = place.command();
            // Refused after the name is taken: there is no such address.
            cmd.args("--name shop -p 1 -H 192.0.2.1 -- true".words());
            run(cmd, end).code
        });
        let codes: Vec<i32> = codes.collect();
        over.store(true, Ordering::Relaxed);
        assert!(codes.iter().all(|c| *c == 71), "{codes:?}");
    });
}
