//! Starts that fail, each with the exit code of the manual and a message that says what would be
//! right; and what is worked out at the start: ports, names, the number of workers.

use crate::birth;
use crate::client::{all_answer, get, v4};
use crate::harness::{Rig, Words};
use crate::place::{BINARY, Place, Said, free_port, run};
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Starts one that fails before there is a log.
fn refused(place: &Place, words: impl Words) -> Said {
    let mut cmd = place.command();
    cmd.args(words.words());
    let said = run(cmd, soon());
    let lines = said.err.lines().count();
    assert_eq!(lines, 1, "one sentence: {said:?}");
    assert!(said.err.starts_with("minicluster: "), "{said:?}");
    said
}

/// Is it us whom the message calls the holder? Or a fork of ours that has not executed its program
/// yet: another story is starting something at this moment.
fn names_us(msg: &str) -> bool {
    let holder = msg.split("held by pid ").nth(1).unwrap_or("");
    let (pid, command) = holder.split_once(" (").unwrap_or(("", ""));
    let us = std::env::args().next().unwrap();
    let us: String = us.chars().take(60).collect();
    pid.parse::<i32>().is_ok() && command.starts_with(&us)
}

#[test]
fn a_busy_port_is_exit_75_and_the_holder_is_named() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded"));
    let said = rig.wait("port-failed", |_| true);
    assert!(names_us(&said.msg), "{}", said.msg);
    assert_eq!(said.addr().port(), port);
    rig.wait_exit();
    assert!(rig.events("forked").is_empty());
    rig.finish(75, &["port-failed"]);
}

#[test]
fn a_port_of_another_cluster_is_busy_although_ours_could_be_shared() {
    let port = free_port();
    let mut first = Rig::start(format!("-n 2 -p {port} -- ./threaded"));
    first.up();
    let mut second = Rig::start(format!("-n 2 -p {port} -- ./threaded"));
    let said = second.wait("port-failed", |_| true);
    let mut holders = first.status().pids();
    holders.push(first.pid());
    let named = |pid: &i32| said.msg.contains(&format!("held by pid {pid} ("));
    assert!(holders.iter().any(named), "{}", said.msg);
    second.finish(75, &["port-failed"]);
    all_answer(&first, v4(port), "/", 2);
    first.end(&[]);
}

#[test]
fn a_learnt_port_that_is_busy_is_the_workers_error_and_is_told() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let mut rig = Rig::start(format!(
        "-n 2 --start-timeout 2s -- ./threaded --addr 127.0.0.1 --port {port}"
    ));
    let said = rig.wait("port-failed", |_| true);
    assert!(names_us(&said.msg), "{}", said.msg);
    assert_eq!(rig.told("bind-failed").1, Some(libc::EADDRINUSE));
    rig.finish(69, &["port-failed", "died", "never-ready"]);
}

#[test]
fn a_command_that_is_not_there_is_exit_127_and_one_that_cannot_run_126() {
    let place = Place::new();
    let file = |name: &str, text: &str, mode| {
        let path = place.dir.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    };
    file("plain", "#!/bin/sh\n", 0o644);
    file("orphan", "#!/no/such/interpreter -x\n", 0o755);
    std::fs::create_dir(place.dir.join("directory")).unwrap();
    for (command, code, hint) in [
        ("./missing", 127, "not found"),
        ("no-such-command", 127, "not found in PATH"),
        ("plain", 127, "./plain"),
        ("./plain", 126, "chmod +x"),
        ("./directory", 126, "is a directory"),
        ("./orphan", 127, "/no/such/interpreter"),
        ("./plain/x", 127, "not found"),
    ] {
        let port = free_port();
        let said = refused(&place, format!("-p {port} -- {command} --option"));
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.err.contains(hint), "{said:?}");
        assert!(said.err.contains(command), "{said:?}");
    }
}

#[test]
fn the_command_is_looked_up_before_anything_is_bound() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    let said = refused(&Place::new(), format!("-p {port} -- ./missing"));
    assert_eq!(said.code, 127);
}

#[test]
fn bad_options_are_exit_64_with_what_would_be_right() {
    let place = Place::new();
    for (words, hint) in [
        ("", "minicluster -n 4 -p 3000 -- ./server"),
        ("./server", "did you mean: minicluster ... -- ./server"),
        ("-n 4 -p 3000 node server.js", "-- node server.js"),
        ("statsu", "did you mean status?"),
        ("-n 0 -- true", "1 to 1024"),
        ("-n 1025 -- true", "1 to 1024"),
        ("-n many -- true", "auto"),
        ("-p 65536 -- true", "0 to 65535"),
        ("-p 80 -p 80 -- true", "twice"),
        ("-p 80 -H :: -H 127.0.0.1 -- true", "covers the other"),
        ("-H ::1 -- true", "no -p"),
        ("-p 80 -H localhos -- true", "localhost"),
        ("--redy started -- true", "--ready"),
        ("--ready soon -- true", "started, listening"),
        ("--stop-timeout 1x -- true", "500ms"),
        ("--respawn 1m -- true", "--backoff"),
        ("--takeover yes -- true", "auto, off, require"),
        ("--stop-signal SIGNAL -- true", "TERM"),
        ("--log-level loud -- true", "debug"),
        ("--on-signal KILL=stop -- true", "cannot be caught"),
        ("--on-signal HUP=status -- true", "resize N|+K|-K"),
        ("--on-signal HUP -- true", "or HUP= to ignore it"),
        ("--single --on-signal HUP= -- true", "--single"),
        ("-q -v -- true", "exclude each other"),
        ("--env LISTEN_FDS=3 -- true", "for each worker"),
        ("--env =x -- true", "NAME=VALUE"),
        ("--name a/b -- true", "A-Z"),
        (
            "--pid-file x.pid --watch ./x.pid -- true",
            "reload for ever",
        ),
        ("--cwd", "needs a value"),
        ("--json -- true", "belongs to a verb"),
        ("-n 2 status", "belongs to starting"),
        ("status -- true", "takes no COMMAND"),
        ("--", "nothing follows --"),
    ] {
        let said = refused(&place, words);
        assert_eq!(said.code, 64, "{words}: {said:?}");
        assert!(said.err.contains(hint), "{words}: {said:?}");
    }
}

#[test]
fn a_directory_that_is_not_there_is_exit_78() {
    for (dir, why) in [("missing", "No such file"), ("threaded", "not a directory")] {
        let said = refused(&Place::new(), format!("--cwd {dir} -- true"));
        assert_eq!(said.code, 78, "{said:?}");
        assert!(
            said.err.contains("--cwd") && said.err.contains(why),
            "{said:?}"
        );
    }
}

#[test]
fn a_path_to_watch_may_be_missing_but_not_its_directory_nor_may_there_be_many() {
    let place = Place::new();
    let said = refused(&place, "--watch missing/app.conf -- true");
    assert_eq!(said.code, 78, "{said:?}");
    let why = "missing/app.conf: No such file or directory: ";
    assert!(said.err.contains(why), "{said:?}");
    let many: Vec<String> = (0..17).map(|n| format!("--watch {n}")).collect();
    let said = refused(&place, format!("{} -- true", many.join(" ")));
    assert_eq!(said.code, 64, "{said:?}");
    let why = "17 paths to watch (limit 16)";
    assert!(said.err.contains(why), "{said:?}");
}

#[test]
fn nor_is_one_of_use_that_must_not_be_entered() {
    let place = Place::for_nobody();
    let dir = place.dir.join("locked");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, Permissions::from_mode(0o000)).unwrap();
    let mut cmd = place.command();
    cmd.args("--cwd locked -- true".words());
    birth::as_nobody(&mut cmd);
    let said = run(cmd, soon());
    assert_eq!(said.code, 78, "{said:?}");
    assert!(said.err.contains("locked: Permission denied"), "{said:?}");
}

#[test]
fn what_only_the_kernel_knows_to_be_no_program_was_never_started() {
    let words = "-n 2 -- ./no-program";
    let mut rig = Rig::dressed(words, |_, dir| {
        let path = dir.join("no-program");
        std::fs::write(&path, [1, 2, 3]).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    });
    let died = rig.wait("died", |_| true);
    assert_eq!(died.text("reason"), "not-started");
    assert_eq!(died.number("code"), 127.0);
    assert!(died.text("stderr").contains("Exec format error"));
    rig.finish(126, &["exec-failed", "cannot-run", "died"]);
}

#[test]
fn a_control_socket_is_never_put_over_what_is_no_socket() {
    let place = Place::new();
    let file = place.dir.join("precious");
    std::fs::write(&file, "data").unwrap();
    let said = refused(&place, format!("-C {} -- true", file.display()));
    assert_eq!(said.code, 73, "{said:?}");
    assert!(said.err.contains("is not a socket"), "{said:?}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
}

#[test]
fn help_and_version_go_to_stdout() {
    let place = Place::new();
    for (words, text) in [
        ("--help", "--takeover HOW"),
        ("-V", env!("CARGO_PKG_VERSION")),
        ("--completions bash", "complete"),
        ("help", "status"),
    ] {
        let mut cmd = place.command();
        cmd.args(words.words());
        let said = run(cmd, soon());
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
        assert!(said.out.contains(text), "{said:?}");
    }
}

#[test]
fn a_name_that_is_taken_is_exit_75_and_says_what_to_type() {
    let port = free_port();
    let mut first = Rig::start(format!("-n 1 -p {port} --name shop -- ./threaded"));
    first.up();
    let mut cmd = first.command();
    cmd.args(format!("-n 1 -p {} --name shop -- ./threaded", free_port()).words());
    let said = run(cmd, soon());
    assert_eq!(said.code, 75, "{said:?}");
    let pid = format!("pid {}", first.pid());
    let (look, end) = (
        "minicluster --name shop status",
        "minicluster --name shop stop",
    );
    for part in [pid.as_str(), look, end] {
        assert!(said.err.contains(part), "{said:?}");
    }
    assert_eq!(first.status().ready, 1);
    first.end(&[]);
}

#[test]
fn an_implied_name_that_is_taken_gets_a_number() {
    let (a, b) = (free_port(), free_port());
    let mut first = Rig::start(format!("-n 1 -- ./threaded --port {a}"));
    first.up();
    assert_eq!(first.status().name, "threaded");
    let run_dir = first.dir().join("run");
    let words = format!("-n 1 -- ./threaded --env --port {b}");
    let mut second = Rig::dressed(words, |cmd, _| {
        cmd.env("RUNTIME_DIRECTORY", &run_dir);
    });
    second.up();
    let report = get(v4(b), "/env").unwrap();
    assert_eq!(report.env("MINICLUSTER_NAME"), Some("threaded-2"));
    second.end(&[]);
    first.end(&[]);
}

#[test]
fn a_runtime_directory_that_cannot_be_used_is_one_warning() {
    let port = free_port();
    // A file stands where directories would have to be made.
    let words = format!("-n 2 -p {port} -- ./threaded --env");
    let mut rig = Rig::unprivileged(words, |cmd, dir| {
        let file = dir.join("threaded");
        cmd.env("RUNTIME_DIRECTORY", file.join("run"))
            .env("XDG_RUNTIME_DIR", &file)
            .env("TMPDIR", &file);
    });
    rig.up();
    let said = rig.events("no-control");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].msg.contains("-C"), "{}", said[0].msg);
    let report = get(v4(port), "/env").unwrap();
    assert_eq!(report.env("MINICLUSTER_CONTROL"), None);
    rig.end(&["no-control"]);
}

#[test]
fn a_port_that_needs_privileges_is_exit_77() {
    // In a network of its own, where the limit is what the kernel starts with.
    let place = Place::for_nobody();
    let inner = "-n 1 -p 80 --log-format json -- ./threaded";
    let mut cmd = Command::new("unshare");
    let binary = place.dir.join("minicluster");
    match birth::root() {
        true => cmd.args("--net setpriv --reuid 65534 --regid 65534 --clear-groups".words()),
        false => cmd.args("--user --net".words()),
    };
    cmd.arg(binary).args(inner.words()).current_dir(&place.dir);
    cmd.env("RUNTIME_DIRECTORY", place.dir.join("run"));
    let said = run(cmd, soon());
    assert_eq!(said.code, 77, "{said:?}");
    assert!(said.err.contains("Permission denied"), "{said:?}");
    assert!(said.err.contains("CAP_NET_BIND_SERVICE"), "{said:?}");
}

#[test]
fn an_address_that_is_not_of_this_machine_is_exit_71_with_a_hint() {
    // Of a range that is for documents only.
    let mut rig = Rig::start("-n 1 -p 3000 -H 192.0.2.1 -- ./threaded");
    let said = rig.wait("port-failed", |_| true);
    assert!(
        said.msg.contains("no interface has that address"),
        "{}",
        said.msg
    );
    rig.finish(71, &["port-failed"]);
}

#[test]
fn port_0_is_one_that_is_free_and_is_said() {
    let mut rig = Rig::start("-n 2 -p 0 -- ./threaded --env");
    let port = rig.wait("port-open", |_| true).addr().port();
    assert_ne!(port, 0);
    rig.up();
    all_answer(&rig, v4(port), "/", 2);
    let report = get(v4(port), "/env").unwrap();
    assert_eq!(report.env("PORT"), Some(port.to_string().as_str()));
    rig.end(&[]);
}

#[test]
fn as_many_workers_as_cpus_that_may_be_used() {
    let port = free_port();
    let words = format!("-p {port} -- ./threaded");
    let mut rig = Rig::dressed(words, |cmd, _| birth::on_one_cpu(cmd));
    rig.up();
    assert_eq!(rig.status().wanted, 1);
    rig.end(&[]);
}

#[test]
fn web_concurrency_is_the_number_unless_the_option_is_given() {
    for (words, wanted) in [("", 3), ("-n 2", 2)] {
        let port = free_port();
        let words = format!("{words} -p {port} -- ./threaded");
        let mut rig = Rig::dressed(words, |cmd, _| {
            cmd.env("WEB_CONCURRENCY", "3");
        });
        rig.up();
        assert_eq!(rig.status().wanted, wanted);
        rig.end(&[]);
    }
}

#[test]
fn started_by_a_full_path_from_another_directory_it_finds_its_command() {
    // As a unit file would: nothing but absolute paths, and / as the directory.
    let port = free_port();
    let place = Place::new();
    let server = place.dir.join("threaded").to_string_lossy().into_owned();
    let mut rig = Rig::dressed(format!("-n 1 -p {port} -- {server}"), |cmd, _| {
        assert_eq!(cmd.get_program(), BINARY);
        cmd.current_dir("/");
    });
    rig.up();
    assert_eq!(get(v4(port), "/").unwrap().status, 200);
    rig.end(&[]);
}

#[test]
fn what_is_no_control_socket_is_left_where_it_is() {
    use std::os::unix::net::UnixDatagram;
    let place = Place::new();
    let other = place.dir.join("other.sock");
    let _held = UnixDatagram::bind(&other).unwrap();
    let said = refused(&place, "-C other.sock --ready started -- sleep 1000");
    assert_eq!(said.code, 73, "{said:?}");
    assert!(said.err.contains("not a control socket"), "{said:?}");
    assert!(other.exists());

    // Nor are its neighbours touched, whatever they are called.
    let mut rig = Rig::dressed(
        "-n 1 -C here.sock --ready started -- sleep 1000",
        |_, dir| {
            std::fs::write(dir.join("here.sock.new"), "precious").unwrap();
        },
    );
    rig.up();
    let neighbour = rig.dir().join("here.sock.new");
    assert_eq!(std::fs::read_to_string(neighbour).unwrap(), "precious");
    // What has taken its place meanwhile is not removed with it.
    let here = rig.dir().join("here.sock");
    std::fs::remove_file(&here).unwrap();
    std::fs::write(&here, "somebody else's").unwrap();
    rig.signal(nix::sys::signal::Signal::SIGTERM);
    rig.wait_exit();
    assert!(here.exists());
    rig.finish(0, &[]);
}

#[test]
fn of_several_that_start_together_on_one_path_one_runs() {
    for _ in 0..5 {
        let place = Place::new();
        let start = || {
            let mut cmd = place.command();
            cmd.args("-n 1 -C one.sock --ready started -- sleep 1000".words());
            cmd.stderr(std::process::Stdio::null());
            cmd.spawn().unwrap()
        };
        let mut all: Vec<_> = (0..4).map(|_| start()).collect();
        let end = soon();
        let mut codes = Vec::new();
        while codes.len() < 3 {
            assert!(Instant::now() < end, "{codes:?}");
            all.retain_mut(|child| match child.try_wait().unwrap() {
                Some(status) => {
                    codes.push(status.code());
                    false
                }
                None => true,
            });
        }
        assert_eq!(codes, [Some(75); 3]);
        let mut cmd = place.command();
        cmd.args("-C one.sock stop".words());
        let said = run(cmd, end);
        assert_eq!(said.code, 0, "{said:?}");
        assert!(all[0].wait().unwrap().success());
    }
}
