//! "--check": what would keep a start from being one is told beforehand, with the code that the start would
//! exit with; and what people read. (What each environment refuses is in `environments`.)

use crate::birth;
use crate::client::{all_answer, get, v4};
use crate::environments::{WORKERS, check, command, refuse, refused, rows, text, wanted, without};
use crate::harness::{Rig, Words};
use crate::load::Load;
use crate::place::{Place, free_port, run};
use crate::proc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};
use tinyjson::JsonValue;

/// A start that the check says no to, with the same code.
fn fails(
    name: &'static str,
    by: Vec<String>,
    words: &str,
    refused_row: &'static [&'static str],
    code: i32,
    add: &'static str,
) {
    let place = Place::new();
    let (said, json) = check(&place, &by, words);
    assert_eq!(said.code, code, "{name}: {said:?}");
    let wanted = wanted(refused_row, &by);
    assert_eq!(refused(&json), wanted, "{name}: {}", said.out);
    let row = rows(&json)
        .iter()
        .find(|m| text(m, "name") == refused_row[0]);
    let told = text(row.unwrap(), "add");
    assert!(told.contains(add), "{name}: {told}");
    assert_eq!(json["code"].get::<f64>(), Some(&f64::from(code)));
    let problems: &Vec<JsonValue> = json["problems"].get().unwrap();
    assert!(!problems.is_empty(), "{name}");
    let mut cmd = command(&place, &by);
    cmd.args(words.words());
    let start = run(cmd, Instant::now() + Duration::from_secs(30));
    assert_eq!(start.code, code, "{name}: {start:?}");
    println!(
        "{name:<44} {:<28} exit {code}, as the check says",
        refused_row.join(" ")
    );
}

#[test]
fn what_no_start_gets_past_has_the_code_that_the_check_gives() {
    assert!(birth::root(), "this story takes root: run it as root");
    let port = free_port();
    let on = |options: &str| format!("-n 2 -p {port} --start-timeout 1s {options} -- ./threaded");
    let user = on("--user 65534 --group 65534");
    fails(
        "--user",
        refuse("setuid"),
        &user,
        &["setuid"],
        77,
        "--cap-add SETUID",
    );
    let unmapped = on("--user 4242 --group 0");
    fails(
        "--user in a user namespace",
        "unshare -Ur".words(),
        &unmapped,
        &["setuid"],
        77,
        "uid_map",
    );
    fails(
        "--nice",
        refuse("setpriority"),
        &on("--nice -5"),
        &["nice"],
        77,
        "LimitNICE=",
    );
    fails(
        "--rlimit",
        refuse("setlimit"),
        &on("--rlimit core=0"),
        &["rlimit"],
        77,
        "--ulimit",
    );
    fails(
        "--cpu-affinity",
        refuse("affinity"),
        &on("--cpu-affinity"),
        &["cpu-affinity"],
        69,
        "--cpuset-cpus",
    );
    let required = on("--takeover require");
    fails(
        "--takeover require",
        refuse("listener"),
        &required,
        &["seccomp-notify"],
        71,
        "seccomp",
    );
    let low = "-n 2 -p 81 -- ./threaded";
    fails(
        "a low port",
        without("net_bind_service"),
        low,
        &["ports"],
        77,
        "--cap-add NET_BIND_SERVICE",
    );
    let many = format!("-n 50 -p {port} -- ./threaded");
    fails(
        "few descriptors",
        "prlimit --nofile=64:64".words(),
        &many,
        &["open-files"],
        78,
        "LimitNOFILE=",
    );
    let nowhere = "-n 1 -l unix:no/such.sock -- ./threaded";
    fails(
        "-l unix:PATH",
        Vec::new(),
        nowhere,
        &["ports"],
        73,
        "a directory that is there",
    );
    let alone = "--single --nice 5 -- ./threaded";
    fails(
        "--single --nice",
        refuse("setpriority"),
        alone,
        &["nice"],
        77,
        "SYS_NICE",
    );
    // A directory that this user has no way to.
    let closed = Place::new();
    std::fs::create_dir(closed.dir.join("closed")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(closed.dir.join("closed"), mode).unwrap();
    let dir = closed.dir.join("closed").display().to_string();
    let there = format!("-n 2 -p {port} --user 65534 --group 65534 --cwd {dir} -- /bin/sleep 9");
    fails("--cwd", Vec::new(), &there, &["directory"], 78, "chmod +x");
}

#[test]
fn a_busy_port_a_running_name_and_files_that_cannot_be_made_are_all_told_at_once() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --name web --pid-file pid -- ./threaded"
    ));
    rig.up();
    let check = |words: &str| {
        let mut cmd = rig.command();
        cmd.args("--check --json".words()).args(words.words());
        let said = run(cmd, rig.deadline());
        let json: JsonValue = said.out.parse().unwrap();
        let problems: &Vec<JsonValue> = json["problems"].get().unwrap();
        let codes: Vec<f64> = problems
            .iter()
            .map(|p| *p["code"].get::<f64>().unwrap())
            .collect();
        (said.code, codes, said.out)
    };
    let words = format!(
        "-p {port} --name web --pid-file pid --pid-dir no/such --log-dir no/such --log-file no/such/log -- ./threaded"
    );
    let (code, codes, out) = check(&words);
    assert_eq!(codes, [75.0, 73.0, 73.0, 73.0, 75.0, 75.0], "{out}");
    assert_eq!(code, 75);
    for part in ["web runs already", &format!("held by pid {}", rig.pid())] {
        assert!(out.contains(part), "{part} in {out}");
    }
    // What would be exchanged is not in the way.
    let (code, codes, out) = check(&words.replace(
        "--pid-dir no/such --log-dir no/such --log-file no/such/log",
        "--replace",
    ));
    assert_eq!((code, codes.len()), (0, 0), "{out}");
    assert!(out.contains("--replace exchanges its workers"), "{out}");
    let (code, _, out) = check("-n 1 -- ./nothing-there");
    assert_eq!(code, 127, "{out}");
    std::fs::write(rig.dir().join("no-program"), "garbage\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(rig.dir().join("no-program"), mode).unwrap();
    let (code, _, out) = check("-n 1 -- ./no-program");
    assert_eq!(code, 126, "{out}");
    assert_eq!(rig.status().ready, 1);
    rig.end(&[]);
}

#[test]
fn people_read_it_and_the_last_line_is_the_verdict() {
    let place = Place::new();
    let port = free_port();
    let mut cmd = place.command();
    cmd.args(format!("--check -n 2 -p {port} -- ./threaded").words());
    let said = run(cmd, Instant::now() + Duration::from_secs(30));
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    for part in [
        "command     ./threaded",
        "workers     2 (-n)",
        "MECHANISM",
        "pidfd-getfd",
    ] {
        assert!(said.out.contains(part), "{part} in {}", said.out);
    }
    let last = said.out.lines().last().unwrap();
    assert!(
        last.starts_with("verdict: it would start; takeover yes"),
        "{last}"
    );
    // Under a service manager its patience is known, and that it is too short.
    let mut cmd = place.command();
    cmd.env("INVOCATION_ID", "x");
    cmd.args(format!("--check -p {port} --drain-timeout 2m -- ./threaded").words());
    let said = run(cmd, Instant::now() + Duration::from_secs(30));
    assert!(
        said.out.contains("warning: a stop may take 2m16s"),
        "{}",
        said.out
    );
    assert!(said.out.contains("TimeoutStopSec= 137"), "{}", said.out);
    let mut cmd = place.command();
    cmd.args("--check -d -p 0 -- ./threaded".words());
    let said = run(cmd, Instant::now() + Duration::from_secs(30));
    let syslog = std::fs::exists("/dev/log").unwrap();
    let row = said.out.lines().find(|l| l.starts_with("syslog")).unwrap();
    assert_eq!(row.contains(" ok "), syslog, "{row}");
}

/// Where our side has ended a connection the kernel keeps its ports for a minute, which is in no start's way.
#[test]
fn connections_that_have_ended_there_a_moment_ago_are_in_no_start_s_way() {
    let (port, monitor) = (free_port(), free_port());
    let words = format!("-n 1 -p {port} --monitor {monitor} -- ./threaded");
    let mut rig = Rig::start(words.as_str());
    rig.up();
    for _ in 0..3 {
        assert!(get(v4(monitor), "/ecv").is_ok());
    }
    rig.end(&[]);
    let place = Place::new();
    let (said, _) = check(&place, &[], &words);
    assert_eq!(said.code, 0, "{said:?}");
    // Somebody who listens is.
    let _other = std::net::TcpListener::bind(v4(monitor)).unwrap();
    let (said, _) = check(&place, &[], &words);
    assert_eq!(said.code, 75, "{said:?}");
}

/// Where no interface is up, not even that to ourselves, nothing is refused that is allowed.
#[test]
fn without_a_network_the_mechanisms_are_what_they_are_with_one() {
    assert!(birth::root(), "this story takes root: run it as root");
    let place = Place::new();
    let words = format!("-n 1 -p {} -- ./threaded", free_port());
    let (said, json) = check(&place, &"unshare -n".words(), &words);
    let refused = refused(&json);
    assert!(
        said.code == 0 && refused.is_empty(),
        "{refused:?}: {}",
        said.out
    );
}

/// A start that is refused for what is in its files has not taken its name: no lock of it is left.
#[test]
fn a_start_that_is_refused_for_its_key_file_leaves_nothing() {
    let place = Place::new();
    let (port, monitor) = (free_port(), free_port());
    let mut cmd = place.command();
    let words = format!("-n 1 -p {port} --monitor {monitor} --key-file nosuch -- ./threaded");
    let run_dir = place.dir.join("of-it");
    std::fs::create_dir_all(&run_dir).unwrap();
    cmd.env("RUNTIME_DIRECTORY", &run_dir);
    cmd.args(words.words());
    let start = run(cmd, Instant::now() + Duration::from_secs(30));
    assert_eq!(start.code, 78, "{start:?}");
    let left = std::fs::read_dir(run_dir).unwrap();
    let left: Vec<_> = left.map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_first_process_of_a_container_with_a_read_only_root_and_a_user_without_a_name() {
    assert!(birth::root(), "this story takes root: run it as root");
    let place = Place::with_empty_root();
    let root = place.dir.join("root").display().to_string();
    let script = "root=$1; shift; mount --bind \"$root\" \"$root\" && \
                  mount -o remount,bind,ro \"$root\" && \
                  exec chroot --userspec=12345:12345 \"$root\" \"$@\"";
    let by = [
        "unshare",
        "-pfm",
        "--kill-child",
        "env",
        "HOME=/",
        "sh",
        "-c",
        script,
        "sh",
        &root,
    ];
    let by = by.map(String::from).to_vec();
    let port = free_port();
    let words = format!("-n {WORKERS} -p {port} -- /forker");
    let (said, json) = check(&place, &by, &words);
    assert_eq!(said.code, 0, "{said:?}");
    let wanted = wanted(&["privileges", "proc", "runtime-directory"], &by);
    assert_eq!(refused(&json), wanted, "{}", said.out);
    // The clients are outside of a network namespace: what may be done in one is asked in one.
    let mut apart = by.clone();
    apart[1] = "-pfmn".into();
    let (said, json) = check(&place, &apart, &words);
    assert_eq!(said.code, 0, "{}", said.out);
    assert_eq!(refused(&json), wanted, "{}", said.out);
    let mut rig = Rig::placed(place, &by, words);
    rig.wait("all-ready", |_| true);
    rig.until("there is a master", || proc::children(rig.pid()).len() == 1);
    let master = proc::children(rig.pid())[0];
    all_answer(&rig, v4(port), "/", WORKERS);
    let victim = proc::children(master)[0];
    kill(Pid::from_raw(victim), Signal::SIGKILL).unwrap();
    let died = rig.wait("died", |_| true);
    rig.wait("ready", |e| e.slot() == died.slot());
    let load = Load::going(&format!("{port} pause=2"));
    kill(Pid::from_raw(master), Signal::SIGUSR2).unwrap();
    rig.wait("reload-finished", |_| true);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    for event in ["no-proc", "no-control"] {
        assert_eq!(rig.events(event).len(), 1, "{event}");
    }
    kill(Pid::from_raw(master), Signal::SIGTERM).unwrap();
    rig.wait_exit();
    println!(
        "{:<44} {:<28} serves; stop 0",
        "PID 1, read-only root, uid 12345",
        wanted.into_iter().collect::<Vec<_>>().join(" ")
    );
    rig.finish(0, &["no-proc", "no-control", "died"]);
}

#[test]
fn who_may_not_signal_other_users_gets_an_answer_and_nothing_is_left() {
    assert!(birth::root(), "this story takes root: run it as root");
    let place = Place::new();
    let by = "setpriv --bounding-set -kill --inh-caps -kill".words();
    let start = Instant::now();
    let (said, _) = check(&place, &by, "-n 1 -p 0 --user nobody -- ./threaded");
    assert_eq!(said.code, 0, "{said:?}");
    // Less than one trial that is given up has.
    assert!(start.elapsed() < Duration::from_secs(5), "{said:?}");
    let left = proc::marked(&place.mark);
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_missing_directory_and_user_are_told_with_all_that_is_wrong_besides() {
    let place = Place::new();
    let (said, json) = check(&place, &[], "-n 1 -p 0 --cwd /no/such -- no-such-program");
    assert_eq!(said.code, 78, "{said:?}");
    let problems: &Vec<JsonValue> = json["problems"].get().unwrap();
    let all: Vec<&str> = problems.iter().map(|p| text(p, "message")).collect();
    assert!(all.iter().any(|p| p.contains("/no/such")), "{all:?}");
    assert!(all.iter().any(|p| p.contains("no-such-program")), "{all:?}");
    let row = rows(&json).iter().find(|m| text(m, "name") == "directory");
    assert!(
        text(row.unwrap(), "add").contains("mkdir -p"),
        "{}",
        said.out
    );
    let (_, json) = check(&place, &[], "-n 1 -p 0 --user no-such-user -- ./threaded");
    let user = json["plan"]["user"].get::<String>().unwrap();
    assert!(
        user.starts_with("no-such-user, which cannot be had"),
        "{user}"
    );
}
