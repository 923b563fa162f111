//! Programs that verbs run (--command, `test`): what they write is the answer, their status the exit code.

use crate::birth;
use crate::console::Typist;
use crate::harness::Rig;
use crate::place::{free_port, run, script};
use crate::proc;
use nix::sys::signal::Signal;
use std::fs;
use std::process::Stdio;
use std::time::Instant;
use tinyjson::JsonValue;

/// Shows what it is given, and exits with the last of its words if that is a number.
const SHOW: &str = r#"#!/bin/sh
echo "args:$# $*"
echo "stdin:$(cat)"
echo "cluster:$MINICLUSTER_NAME $MINICLUSTER_WORKERS $HOST:$PORT"
[ -S "$MINICLUSTER_CONTROL" ] && echo socket
for last; do :; done
case $last in [0-9]*) echo gives up >&2; exit "$last" ;; esac
"#;

/// A cluster of one with these --commands.
fn with(commands: &[&str]) -> Rig {
    let port = free_port().to_string();
    let mut words: Vec<String> = ["-n", "1", "-p", &port].map(String::from).to_vec();
    words.extend(commands.iter().map(|c| format!("--command={c}")));
    words.extend(["--", "./threaded"].map(String::from));
    let mut rig = Rig::dressed(words, |_, dir| {
        script(dir, "show", SHOW);
    });
    rig.up();
    rig
}

#[test]
fn a_verb_of_ones_own_answers_with_what_it_writes_and_exits_as_it_does() {
    let rig = with(&["show=./show 'first word'"]);
    let said = rig.verb("show");
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    let name = rig.status().name;
    let (_, port) = name.split_once('-').unwrap();
    let text = format!("args:1 first word\nstdin:\ncluster:{name} 1 0.0.0.0:{port}\nsocket\n");
    assert_eq!(said.out, text);
    // Words go behind its own, and a JSON value at the end into its stdin.
    let said = rig.verb([
        "show",
        "a b",
        "--all",
        "{\"keys\": [1, 2]}",
        "timeout",
        "5s",
    ]);
    assert!(
        said.out
            .starts_with("args:3 first word a b --all\nstdin:{\"keys\": [1, 2]}\n"),
        "{said:?}"
    );
    // Behind -- all is the program's.
    let said = rig.verb(["show", "--", "--json", "timeout", "5", "{}", "x"]);
    assert!(
        said.out
            .starts_with("args:6 first word --json timeout 5 {} x\nstdin:\n"),
        "{said:?}"
    );
    let said = rig.verb("show 3");
    assert_eq!(said.code, 3);
    assert!(said.out.starts_with("args:2 first word 3\n"), "{said:?}");
    assert_eq!(said.err, "minicluster: show: exit 3\n    | gives up\n");
    let said = rig.verb("show 3 --json");
    assert_eq!((said.code, said.err.as_str()), (3, ""), "{said:?}");
    let json: JsonValue = said.out.parse().unwrap();
    assert_eq!(json["exit"].get::<f64>(), Some(&3.0));
    assert_eq!(json["stderr"].get::<String>().unwrap(), "gives up");
    assert!(
        json["stdout"]
            .get::<String>()
            .unwrap()
            .starts_with("args:2")
    );
    rig.end(&[]);
}

#[test]
fn help_shows_it_and_what_is_mistyped_is_told_as_ever() {
    let rig = with(&[
        "show=./show x",
        "status=./show status",
        "upgrade=",
        "flush=true",
    ]);
    let help = rig.verb("help");
    assert_eq!(help.code, 0);
    assert!(help.out.contains("runs ./show x\n"), "{help:?}");
    assert!(help.out.contains("runs ./show status\n"), "{help:?}");
    assert!(
        !help.out.lines().any(|l| l.starts_with("upgrade")),
        "{help:?}"
    );
    let one = rig.verb("show --help");
    assert_eq!((one.code, one.out.lines().count()), (0, 1), "{one:?}");
    assert!(
        one.out.starts_with("show [ARG..] [JSON] [timeout T]"),
        "{one:?}"
    );
    let json: JsonValue = rig.verb("help show --json").out.parse().unwrap();
    assert_eq!(json[0]["runs"][1].get::<String>().unwrap(), "x");
    // In place of ours.
    let said = rig.verb("status");
    assert!(said.out.starts_with("args:1 status\n"), "{said:?}");
    // Taken away.
    let said = rig.verb("upgrade -- ./threaded");
    assert_eq!(said.code, 64);
    assert!(
        said.err.contains("unknown verb upgrade: it is taken away"),
        "{said:?}"
    );
    for (words, why) in [
        ("flsh", "unknown verb flsh; did you mean flush?"),
        ("reloda", "unknown verb reloda; did you mean reload?"),
        (
            "ndoe server.js",
            "did you mean: minicluster ... -- ndoe server.js",
        ),
        ("./server", "did you mean: minicluster ... -- ./server"),
        ("resize", "how many workers?"),
    ] {
        let said = rig.verb(words);
        assert_eq!(said.code, 64, "{said:?}");
        assert!(said.err.contains(why), "{said:?}");
    }
    rig.end(&[]);
    // Where no cluster runs, whatever else runs on this machine.
    let place = crate::place::Place::new();
    let alone = [
        "unshare",
        &birth::namespaces("-m"),
        "sh",
        "-c",
        "mount -t tmpfs none /run; exec \"$0\" \"$@\"",
    ];
    let mut cmd = place.command_by(&alone.map(String::from));
    cmd.args(["flush", "now"]);
    let said = run(cmd, Instant::now() + std::time::Duration::from_secs(20));
    assert_eq!(said.code, 64);
    assert!(said.err.contains("unknown verb flush"), "{said:?}");
}

#[test]
fn one_that_takes_too_long_is_killed_with_all_its_group() {
    let rig = with(&[
        "slow=sh -c 'echo begun; trap \"echo tidied; exit 0\" TERM; sleep 1000 & wait'",
        "deaf=sh -c 'trap \"\" TERM; echo $$; sleep 1000; sleep 1000'",
    ]);
    let said = rig.verb("slow timeout 200ms");
    assert_eq!(
        (said.code, said.out.as_str()),
        (124, "begun\ntidied\n"),
        "{said:?}"
    );
    assert_eq!(
        said.err,
        "minicluster: slow: killed: not done within 200ms\n"
    );
    let said = rig.verb("deaf timeout 200ms --json");
    assert_eq!(said.code, 124);
    let json: JsonValue = said.out.parse().unwrap();
    assert!(json["exit"].is_null());
    let pid: i32 = json["stdout"]
        .get::<String>()
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert!(!proc::alive(pid));
    let master = rig.pid();
    rig.until("only the worker is left", || {
        proc::children(master).len() == 1
    });
    rig.end(&[]);
}

#[test]
fn who_hangs_up_changes_nothing_and_output_is_cut_where_it_is_too_much() {
    let rig = with(&[
        "lots=sh -c 'yes | head -c 3000000'",
        "wait=sh -c 'while [ ! -e go ]; do sleep 0.02; done; echo done >done; exit 4'",
    ]);
    // More than a pipe holds: it goes to a file.
    let mut cmd = rig.command();
    cmd.arg("-C").arg(rig.socket()).arg("lots");
    cmd.stdout(fs::File::create(rig.dir().join("out")).unwrap());
    let done = cmd.stderr(Stdio::piped()).spawn().unwrap();
    let done = done.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(0));
    let size = fs::metadata(rig.dir().join("out")).unwrap().len();
    assert_eq!(size, 1 << 20);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("lots: its output is cut: "), "{said}");
    let mut cmd = rig.command();
    cmd.arg("-C").arg(rig.socket()).args(["wait"]);
    let mut client = cmd.spawn().unwrap();
    rig.wait_many("command-run", 2);
    client.kill().unwrap();
    client.wait().unwrap();
    fs::write(rig.dir().join("go"), "").unwrap();
    let failed = rig.wait_many("command-failed", 1);
    assert!(failed[0].msg.contains("wait: exit 4, after "), "{failed:?}");
    assert!(rig.dir().join("done").exists());
    // As if somebody had not wanted to wait.
    let said = rig.verb("wait --no-wait");
    assert_eq!((said.code, said.out.as_str()), (0, "wait started\n"));
    rig.wait_many("command-failed", 2);
    rig.end(&["command-failed"]);
}

#[test]
fn a_stop_kills_what_runs_and_who_waits_hears_of_it() {
    let mut rig = with(&["slow=sh -c 'sleep 1000; true'"]);
    let waits = rig.meanwhile("slow timeout 0");
    rig.wait("command-run", |_| true);
    let before = Instant::now();
    assert_eq!(rig.verb("stop").code, 0);
    assert!(
        before.elapsed().as_secs_f64() < 4.0,
        "{:?}",
        before.elapsed()
    );
    let said = waits.join().unwrap();
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("slow: killed: the cluster stops"),
        "{said:?}"
    );
    rig.finish(0, &[]);
}

#[test]
fn more_than_run_at_once_wait_for_their_turn() {
    let rig = with(&["turn=sh -c 'echo $$ >>turns; while [ ! -e go ]; do sleep 0.05; done'"]);
    let all: Vec<_> = (0..20).map(|_| rig.meanwhile("turn")).collect();
    let turns = || {
        fs::read_to_string(rig.dir().join("turns"))
            .unwrap_or_default()
            .lines()
            .count()
    };
    rig.wait_many("command-run", 20);
    rig.until("sixteen run", || turns() == 16);
    // It is heard all the same.
    assert_eq!(rig.verb("size").out, "1\n");
    assert_eq!(turns(), 16);
    fs::write(rig.dir().join("go"), "").unwrap();
    for one in all {
        assert_eq!(one.join().unwrap().code, 0);
    }
    assert_eq!(turns(), 20);
    rig.end(&[]);
}

#[test]
fn programs_of_clients_that_have_gone_keep_neither_events_from_being_told_nor_others_waiting() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --on-event ./tell -- ./threaded");
    let mut rig = Rig::dressed(words, |_, dir| {
        script(dir, "tell", "#!/bin/sh\necho $MINICLUSTER_EVENT >>told\n");
        script(dir, "forever", "#!/bin/sh\necho >>begun; exec sleep 1000\n");
    });
    rig.up();
    let line = format!("test timeout 0 -- {}", rig.dir().join("forever").display());
    for _ in 0..20 {
        Typist::on(&rig.socket()).types(&line);
    }
    let count = |name: &str| fs::read_to_string(rig.dir().join(name)).unwrap_or_default();
    rig.until("as many run as may", || count("begun").len() == 16);
    assert_eq!(rig.verb("emit hello").code, 0);
    rig.until("it is told", || count("told").contains("hello\n"));
    let said = rig.verb("test timeout 300ms -- true");
    assert_eq!(said.code, 124, "{said:?}");
    let why = "true: not begun within 300ms: as many programs run as may";
    assert!(said.err.contains(why), "{said:?}");
    assert_eq!(count("begun").len(), 16);
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["command-failed"]);
}

#[test]
fn a_script_tests_the_cluster_from_where_it_is_asked_for() {
    let rig = with(&[]);
    let dir = rig.dir().join("elsewhere");
    fs::create_dir(&dir).unwrap();
    script(
        &dir,
        "smoke",
        "#!/bin/sh\npwd\necho \"$HOST:$PORT $MINICLUSTER_NAME $*\"\necho oops >&2\nexit ${1:-0}\n",
    );
    let ask = |words: &[&str]| {
        let mut cmd = rig.command();
        cmd.current_dir(&dir)
            .arg("-C")
            .arg(rig.socket())
            .args(words);
        run(cmd, rig.deadline())
    };
    let name = rig.status().name;
    let (_, port) = name.split_once('-').unwrap();
    let said = ask(&["test", "./smoke"]);
    let text = format!("{}\n0.0.0.0:{port} {name} \noops\n", dir.display());
    assert_eq!(
        (said.code, said.out.as_str(), said.err.as_str()),
        (0, text.as_str(), "")
    );
    let said = ask(&["test", "timeout", "0", "./smoke", "7", "timeout", "3"]);
    assert_eq!(said.code, 7);
    assert!(said.out.ends_with("7 timeout 3\noops\n"), "{said:?}");
    assert!(said.err.contains("smoke: exit 7"), "{said:?}");
    let said = ask(&["test", "timeout", "100ms", "sleep", "1000"]);
    assert_eq!(said.code, 124);
    assert!(
        said.err.contains("sleep: killed: not done within 100ms"),
        "{said:?}"
    );
    let said = ask(&["test", "./nowhere"]);
    assert_eq!(said.code, 127);
    assert!(said.err.contains("not found"), "{said:?}");
    assert_eq!(ask(&["test"]).code, 64);
    rig.end(&[]);
}

#[test]
fn a_reload_takes_new_verbs_and_refuses_those_that_cannot_be_run() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --config a.conf -- ./threaded");
    let mut rig = Rig::dressed(words, |_, dir| {
        fs::write(dir.join("a.conf"), "command one=echo 1\n").unwrap();
    });
    rig.up();
    assert_eq!(rig.verb("one").out, "1\n");
    let conf = rig.dir().join("a.conf");
    fs::write(&conf, "command two=echo 2\n").unwrap();
    assert_eq!(rig.verb("two").code, 64);
    assert_eq!(rig.verb("reload").code, 0);
    assert_eq!(rig.verb("two").out, "2\n");
    assert_eq!(rig.verb("one").code, 64);
    fs::write(&conf, "command two=./nowhere\n").unwrap();
    let said = rig.verb("reload");
    assert_eq!(said.code, 1);
    assert!(
        said.err.contains("--command two: ./nowhere: not found"),
        "{said:?}"
    );
    assert_eq!(rig.verb("two").out, "2\n");
    rig.end(&["reload-failed"]);
}
