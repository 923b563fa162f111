//! Whom workers run as and what they may: users, groups, privileged ports, limits, priority, mask;
//! and a master that may not look into workers of another user by itself.

use crate::birth;
use crate::client::{Answer, all_answer, get, v4};
use crate::harness::{Rig, Words};
use crate::place::{Place, Said, free_port, run, shim};
use crate::proc;
use nix::sys::signal::Signal;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Started in a mount namespace with a user database of its own: what makes users of a machine is
/// different on each.
const DATABASE: [&str; 5] = [
    "unshare",
    "-m",
    "sh",
    "-ec",
    "mount --bind passwd /etc/passwd; mount --bind group /etc/group; exec \"$0\" \"$@\"",
];

fn write_database(dir: &Path) {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nwebby:x:4242:4243:Web:/srv/webby:/bin/dash\n";
    let group =
        "root:x:0:\nwebby:x:4243:\nextra:x:4300:webby\nlogs:x:4301:root,webby\nother:x:4302:\n";
    fs::write(dir.join("passwd"), passwd).unwrap();
    fs::write(dir.join("group"), group).unwrap();
}

/// Starts one that fails before there is a log.
fn refused(words: impl Words) -> Said {
    let place = Place::new();
    let mut cmd = place.command();
    cmd.args(words.words());
    told(run(cmd, Instant::now() + Duration::from_secs(20)))
}

fn told(said: Said) -> Said {
    assert_eq!(said.err.lines().count(), 1, "one sentence: {said:?}");
    assert!(said.err.starts_with("minicluster: "), "{said:?}");
    said
}

/// Numbers of a line of /proc/PID/status, as a worker has read it.
fn ids(report: &Answer, name: &str) -> Vec<u32> {
    let line = report.line(&format!("status {name}"));
    line.split_whitespace()
        .map(|n| n.parse().unwrap())
        .collect()
}

#[test]
fn workers_run_as_the_user_with_its_groups_and_its_home_and_the_master_does_not() {
    for (who, groups) in [
        ("--user webby", vec![4243, 4300, 4301]),
        ("--user 4242", vec![4243, 4300, 4301]),
        ("--user webby --group other", vec![4302, 4300, 4301]),
    ] {
        let port = free_port();
        let words = format!("-n 1 -p {port} {who} --env SHELL=mine -- ./threaded --env");
        let mut rig = Rig::over_nobody(DATABASE, words, |cmd, dir| {
            write_database(dir);
            cmd.env("HOME", "/root")
                .env("USER", "root")
                .env("LOGNAME", "root");
        });
        rig.up();
        let report = get(v4(port), "/env").unwrap();
        assert_eq!(ids(&report, "Uid:"), [4242; 4], "{who}");
        assert_eq!(ids(&report, "Gid:"), [groups[0]; 4], "{who}");
        let mut sorted = groups.clone();
        sorted.sort();
        assert_eq!(ids(&report, "Groups:"), sorted, "{who}");
        for (name, value) in [
            ("HOME", "/srv/webby"),
            ("USER", "webby"),
            ("LOGNAME", "webby"),
            ("SHELL", "mine"),
        ] {
            assert_eq!(report.env(name), Some(value), "{name} with {who}");
        }
        for set in ["CapPrm:", "CapEff:", "CapAmb:"] {
            let set = report.line(&format!("status {set}")).trim().to_string();
            assert_eq!(u64::from_str_radix(&set, 16), Ok(0), "{set}");
        }
        // A change of user forgets it, unless it comes after.
        assert_eq!(report.line("pdeathsig"), libc::SIGKILL.to_string());
        let status = fs::read_to_string(format!("/proc/{}/status", rig.pid())).unwrap();
        assert!(status.contains("Uid:\t0\t0\t0\t0"), "{status}");
        rig.end(&[]);
    }
}

#[test]
fn a_group_alone_leaves_the_user_and_numbers_need_no_database() {
    let port = free_port();
    for (who, uid, gid) in [
        ("--group 4302", 0, 4302),
        ("--user 4711 --group 4712", 4711, 4712),
    ] {
        let words = format!("-n 1 -p {port} {who} -- ./threaded --env");
        let mut rig = Rig::over_nobody("", words, |cmd, _| {
            cmd.env("HOME", "/as/it/was");
        });
        rig.up();
        let report = get(v4(port), "/env").unwrap();
        assert_eq!(ids(&report, "Uid:"), [uid; 4]);
        assert_eq!(ids(&report, "Gid:"), [gid; 4]);
        if uid != 0 {
            assert_eq!(ids(&report, "Groups:"), [gid]);
        }
        assert_eq!(report.env("HOME"), Some("/as/it/was"));
        rig.end(&[]);
    }
}

#[test]
fn a_user_or_group_that_is_unknown_is_exit_78_before_anything_is_bound() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    for (who, hint) in [
        ("--user no.such.user", "a number would do"),
        ("--group no.such.group", "a number would do"),
        ("--user 4294900001", "give that by --group"),
    ] {
        let said = refused(format!("-p {port} {who} -- ./threaded"));
        assert_eq!(said.code, 78, "{said:?}");
        assert!(said.err.contains(hint), "{said:?}");
    }
}

#[test]
fn who_is_not_root_may_ask_for_what_it_is_and_for_nothing_else() {
    let place = Place::for_nobody();
    let unprivileged = |words: &str| {
        let mut cmd = place.command();
        cmd.args(words.words());
        birth::as_nobody(&mut cmd);
        cmd
    };
    for who in ["--user 4242 --group 4242", "--user root", "--group root"] {
        let cmd = unprivileged(&format!("{who} -- ./threaded"));
        let said = told(run(cmd, Instant::now() + Duration::from_secs(20)));
        assert_eq!(said.code, 77, "{said:?}");
        assert!(said.err.contains("start as root"), "{said:?}");
        assert!(said.err.contains("CAP_SETGID"), "{said:?}");
    }
    if !birth::root() {
        return;
    }
    let port = free_port();
    let words = format!("-n 1 -p {port} --user 65534 --group 65534 -- ./threaded --env");
    let mut rig = Rig::unprivileged(words, |_, _| {});
    rig.up();
    let report = get(v4(port), "/env").unwrap();
    assert_eq!(ids(&report, "Uid:"), [birth::NOBODY; 4]);
    rig.end(&[]);
}

#[test]
fn a_right_that_is_lacking_ends_the_first_try_with_exit_77() {
    // The user namespace has one number only, and no say over groups.
    let mut rig = Rig::by(
        "unshare -r",
        "-n 2 --ready started --user 4242 --group 4242 -- sleep 1000",
    );
    let said = rig.wait("exec-failed", |_| true);
    assert!(said.msg.contains("setgroups"), "{}", said.msg);
    assert!(said.msg.contains("CAP_SETGID"), "{}", said.msg);
    rig.finish(77, &["exec-failed", "died"]);

    let mut rig = Rig::unprivileged("-n 2 --ready started --nice -5 -- sleep 1000", |_, _| {});
    let said = rig.wait("exec-failed", |_| true);
    assert!(said.msg.contains("setpriority"), "{}", said.msg);
    assert!(said.msg.contains("CAP_SYS_NICE"), "{}", said.msg);
    rig.finish(77, &["exec-failed", "died"]);
}

#[test]
fn a_limit_of_processes_that_is_reached_is_named_and_tried_again() {
    let words = "-n 1 --ready started --user 4713 --group 4713 -- sleep 1000";
    let mut first = Rig::over_nobody("", words, |_, _| {});
    first.up();
    // The kernel counts those that were there before.
    let words = format!("--start-timeout 1s --rlimit nproc=0 {words}");
    let mut rig = Rig::over_nobody("", words, |_, _| {});
    let said = rig.wait("exec-failed", |_| true);
    assert!(said.msg.contains("--rlimit nproc"), "{}", said.msg);
    rig.wait_many("died", 2);
    assert_eq!(rig.events("exec-failed").len(), 1);
    rig.finish(69, &["exec-failed", "died", "never-ready"]);
    first.end(&[]);
}

/// A network of its own, with a loopback and the privileged ports that a kernel begins with.
const NETWORK: [&str; 5] = [
    "unshare",
    "--net",
    "sh",
    "-ec",
    "busybox ifconfig lo up; exec \"$0\" \"$@\"",
];

#[test]
fn a_privileged_port_is_opened_by_the_master_and_served_by_who_may_not() {
    let mut rig = Rig::over_nobody(
        NETWORK,
        "-n 2 -p 80 --user nobody -- ./threaded --env",
        |_, _| {},
    );
    rig.up();
    let mut cmd = Command::new("nsenter");
    cmd.args(["--net", "--target", &rig.pid().to_string()]);
    cmd.args(["curl", "-s", "http://127.0.0.1/env"]);
    let said = run(cmd, rig.deadline());
    let uid = format!("status Uid:\t{0}\t{0}\t{0}\t{0}", birth::NOBODY);
    assert!(said.out.contains(&uid), "{said:?}");
    assert!(said.out.contains("env PORT=80\n"), "{said:?}");
    let victim = rig.status().pids()[0];
    rig.replace(victim);
    rig.end(&["died"]);
}

#[test]
fn a_privileged_port_that_nobody_named_is_not_opened_for_who_may_not() {
    let mut rig = Rig::over_nobody(
        NETWORK,
        "-n 2 --user nobody --start-timeout 2s -- ./threaded --port 80",
        |_, _| {},
    );
    let said = rig.wait("bind-passed", |_| true);
    for part in ["below 1024", "-p 80"] {
        assert!(said.msg.contains(part), "{}", said.msg);
    }
    assert_eq!(rig.told("bind-failed").1, Some(libc::EACCES));
    rig.wait("never-ready", |_| true);
    assert_eq!(rig.events("bind-passed").len(), 1);
    rig.finish(69, &["bind-passed", "died", "never-ready"]);

    // A list of ports is the operator's word, and what is not privileged is learnt as ever.
    for (words, port) in [
        ("--takeover 8080=80 -- ./threaded --port 8080", 80),
        ("-- ./threaded --port 8080", 8080),
    ] {
        let words = format!("-n 2 --user nobody {words}");
        let mut rig = Rig::over_nobody(NETWORK, words, |_, _| {});
        rig.up();
        assert_eq!(rig.status().ports, [format!("0.0.0.0:{port}")]);
        rig.end(&[]);
    }
}

#[test]
fn mask_priority_and_limits_are_what_was_asked_for() {
    let port = free_port();
    let words = format!(
        "-n 1 -p {port} --umask 027 --nice 7 --rlimit nofile=200:300 --rlimit core=0:4K \
         --rlimit nofile=222:333 -- ./threaded --env"
    );
    let mut rig = Rig::start(words);
    rig.up();
    let report = get(v4(port), "/env").unwrap();
    assert_eq!(report.line("umask"), "0027");
    assert_eq!(report.line("nice"), "7");
    // The last of one name counts.
    assert_eq!(report.line("nofile"), "222 333");
    let limits = |pid: i32, name: &str| -> Vec<String> {
        let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).map(String::from).collect()
    };
    let worker = rig.status().pids()[0];
    assert_eq!(limits(worker, "Max core file size"), ["0", "4096"]);
    // The master's own are its own.
    assert_ne!(limits(rig.pid(), "Max open files"), ["222", "333"]);
    rig.end(&[]);
}

/// The CPUs that a process may use, in order.
fn cpus(pid: i32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let list = text
        .lines()
        .find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        first.parse::<u32>().unwrap()..=last.parse::<u32>().unwrap()
    };
    list.unwrap().trim().split(',').flat_map(range).collect()
}

#[test]
fn each_slot_has_a_cpu_of_its_own_as_long_as_there_are_some() {
    let port = free_port();
    let words = format!("-p {port} --config a.conf -- ./threaded");
    let mut rig = Rig::dressed(words, |cmd, dir| {
        fs::write(dir.join("a.conf"), "cpu-affinity\nworkers 3\n").unwrap();
        cmd.env("LD_PRELOAD", shim());
    });
    rig.up();
    let all = cpus(rig.pid());
    for row in &rig.status().rows {
        let its = cpus(row.pid.unwrap());
        assert_eq!(its, [all[usize::from(row.slot) % all.len()]], "{row:?}");
    }
    let old = rig.status().pids()[1];
    let new = rig.replace(old);
    assert_eq!(cpus(new), [all[1 % all.len()]]);
    // What cannot be done is told, by name.
    fs::write(rig.dir().join("shim-cpu"), "").unwrap();
    let said = rig.verb("reload");
    assert_eq!(said.code, 1, "{said:?}");
    let failed = rig.wait("exec-failed", |_| true);
    for part in [
        "sched_setaffinity: Invalid argument",
        "a reload looks again",
    ] {
        assert!(failed.msg.contains(part), "{}", failed.msg);
    }
    // A reload takes it back.
    fs::write(rig.dir().join("a.conf"), "workers 3\n").unwrap();
    assert_eq!(rig.verb("reload").code, 0);
    for pid in rig.status().pids() {
        assert_eq!(cpus(pid), all);
    }
    rig.end(&["died", "exec-failed", "reload-failed"]);
}

#[test]
fn limits_that_cannot_be_had_are_told_at_the_start() {
    let place = Place::for_nobody();
    let mut cmd = place.command();
    cmd.args("--rlimit nofile=512:2048 -- ./threaded".words());
    birth::with_nofile(&mut cmd, 512, 1024);
    birth::as_nobody(&mut cmd);
    let said = told(run(cmd, Instant::now() + Duration::from_secs(20)));
    assert_eq!(said.code, 77, "{said:?}");
    for part in ["2048", "above ours, 1024", "CAP_SYS_RESOURCE"] {
        assert!(said.err.contains(part), "{said:?}");
    }
    for (words, hint) in [
        ("--rlimit files=1 -- true", "nofile"),
        ("--rlimit core=2:1 -- true", "above the hard one"),
        ("--umask 8 -- true", "octal"),
        ("--nice 20 -- true", "-20 to 19"),
        ("--user web:web -- true", "--user USER --group GROUP"),
    ] {
        let said = refused(words);
        assert_eq!(said.code, 64, "{said:?}");
        assert!(said.err.contains(hint), "{said:?}");
    }
}

/// A root of containers: no ptrace, and no_new_privs as the price of the filter.
const CONTAINED: &str =
    "setpriv --bounding-set -sys_ptrace,-sys_admin --inh-caps -sys_ptrace,-sys_admin";

#[test]
fn without_the_right_to_look_into_other_users_processes_takeover_works_all_the_same() {
    for given in [true, false] {
        let port = free_port();
        let (option, own) = match given {
            true => (format!("-p {port}"), String::new()),
            false => (String::new(), format!("--port {port}")),
        };
        let words = format!("-n 3 {option} --user nobody -- ./threaded --env {own}");
        let mut rig = Rig::over_nobody(CONTAINED, words, |_, _| {});
        rig.up();
        assert_eq!(rig.status().takeover, "on");
        all_answer(&rig, v4(port), "/", 3);
        let report = get(v4(port), "/env").unwrap();
        assert_eq!(ids(&report, "Uid:"), [birth::NOBODY; 4]);
        assert_eq!(ids(&report, "NoNewPrivs:"), [1]);
        assert_eq!(rig.events("listening").len(), 3);
        let victim = rig.status().pids()[1];
        rig.replace(victim);
        all_answer(&rig, v4(port), "/", 3);
        // It wears the workers' ids for its looks only.
        let status = fs::read_to_string(format!("/proc/{}/status", rig.pid())).unwrap();
        assert!(status.contains("Uid:\t0\t0\t0\t0"), "{status}");
        assert!(status.contains("Gid:\t0\t0\t0\t0"), "{status}");
        rig.end(&["died"]);
    }
}

#[test]
fn without_that_right_servers_that_take_the_socket_they_are_handed_are_seen() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --user nobody -- ./threaded --no-listen-adopt");
    let mut rig = Rig::over_nobody(CONTAINED, words, |_, _| {});
    rig.up();
    all_answer(&rig, v4(port), "/", 2);
    rig.end(&[]);
}

#[test]
fn without_that_right_the_options_of_a_workers_socket_are_carried_over() {
    let port = free_port();
    let words =
        format!("-n 2 -p {port} --user nobody -- ./threaded --print-opts --keepalive --no-cloexec");
    let mut rig = Rig::over_nobody(CONTAINED, words, |_, _| {});
    rig.up();
    let opts = get(v4(port), "/opts").unwrap();
    assert_eq!(opts.line("accepted SO_KEEPALIVE"), "1");
    assert_eq!(opts.line("listener FD_CLOEXEC"), "0");
    rig.end(&[]);
}

#[test]
fn without_that_right_a_unix_socket_is_known_by_whatever_way_a_worker_names_it() {
    let port = free_port();
    let words =
        format!("-n 2 -p {port} -l unix:one/s.sock --user nobody -- ./threaded --unix two/s.sock");
    let mut rig = Rig::over_nobody(CONTAINED, words, |_, dir| {
        fs::create_dir(dir.join("one")).unwrap();
        symlink("one", dir.join("two")).unwrap();
    });
    rig.up();
    // A second one could not bind it.
    assert_eq!(rig.tales("unix").len(), 2);
    all_answer(&rig, v4(port), "/", 2);
    rig.end(&[]);
}

#[test]
fn without_the_right_to_signal_other_users_it_stops_them_all_the_same() {
    let port = free_port();
    let program = "setpriv --bounding-set -kill --inh-caps -kill";
    let words = format!("-n 2 -p {port} --user nobody --stop-timeout 200ms -- ./threaded --deaf");
    let mut rig = Rig::over_nobody(program, words, |_, _| {});
    rig.up();
    rig.signal(Signal::SIGTERM);
    assert_eq!(rig.wait_many("killed", 2).len(), 2);
    assert_eq!(rig.tales("term").len(), 2);
    rig.finish(0, &["killed"]);
}

#[test]
fn workers_of_another_user_die_with_the_master_all_the_same() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --user nobody -- ./threaded --deaf");
    let mut rig = Rig::over_nobody(CONTAINED, words, |_, _| {});
    rig.up();
    let workers = rig.status().pids();
    rig.signal(Signal::SIGKILL);
    rig.wait_exit();
    rig.until("all workers have gone", || {
        !workers.iter().any(|pid| proc::alive(*pid))
    });
}

#[test]
fn the_directory_is_entered_by_the_user_and_a_switched_link_is_followed() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --user nobody --cwd current -- ../threaded --env");
    let mut rig = Rig::over_nobody("", words, |_, dir| {
        for name in ["one", "two"] {
            fs::create_dir(dir.join(name)).unwrap();
            birth::give_to_nobody(&dir.join(name));
            fs::set_permissions(dir.join(name), Permissions::from_mode(0o700)).unwrap();
        }
        symlink("one", dir.join("current")).unwrap();
    });
    rig.up();
    let cwd = || get(v4(port), "/env").unwrap().line("cwd").to_string();
    assert!(cwd().ends_with("/one"), "{}", cwd());
    symlink("two", rig.dir().join("next")).unwrap();
    fs::rename(rig.dir().join("next"), rig.dir().join("current")).unwrap();
    let victim = rig.status().pids()[0];
    rig.replace(victim);
    assert!(cwd().ends_with("/two"), "{}", cwd());
    // Where the user has no way to, we do not bring it.
    let closed = rig.dir().join("two");
    birth::give_to_root(&closed);
    let victim = rig.status().pids()[0];
    crate::harness::sigkill(victim);
    let failed = rig.wait("exec-failed", |_| true);
    assert!(
        failed.msg.contains("chdir: Permission denied"),
        "{}",
        failed.msg
    );
    birth::give_to_nobody(&closed);
    rig.wait("ready", |_| true);
    rig.end(&["died", "exec-failed"]);
}

#[test]
fn a_directory_that_the_user_may_not_enter_is_exit_78_but_where_we_are_it_is_left() {
    let place = Place::for_nobody();
    let closed = place.dir.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let mut cmd = place.command();
    cmd.args("--user nobody --cwd closed -- ../threaded".words());
    let said = told(run(cmd, Instant::now() + Duration::from_secs(20)));
    assert_eq!(said.code, 78, "{said:?}");
    assert!(said.err.contains("--user nobody"), "{said:?}");
    let mut cmd = place.command();
    fs::copy("/bin/true", closed.join("server")).unwrap();
    cmd.args("--user nobody -- closed/server".words());
    let said = told(run(cmd, Instant::now() + Duration::from_secs(20)));
    assert_eq!(said.code, 126, "{said:?}");
    assert!(said.err.contains("--user nobody"), "{said:?}");

    let port = free_port();
    let server = place.dir.join("threaded");
    let words = format!("-n 1 -p {port} --user nobody -- {} --env", server.display());
    let mut rig = Rig::over_nobody("", words, |cmd, dir| {
        let here = dir.join("closed");
        fs::create_dir(&here).unwrap();
        fs::set_permissions(&here, Permissions::from_mode(0o700)).unwrap();
        cmd.current_dir(here);
    });
    rig.up();
    rig.end(&[]);
}

#[test]
fn a_worker_of_another_user_can_open_its_standard_error_by_name() {
    let script = "echo by name >/dev/stderr; exec sleep 1000";
    let words = [
        "-n", "1", "--user", "nobody", "--ready", "200ms", "--", "sh", "-c", script,
    ];
    let mut rig = Rig::over_nobody("", words, |_, _| {});
    rig.up();
    rig.wait_line("by name");
    rig.end(&[]);
}

#[test]
fn files_of_variables_stand_between_what_is_inherited_and_what_is_typed() {
    let port = free_port();
    let words = format!(
        "-n 1 -p {port} --env-file first.env --env-file second.env --env TYPED=typed \
         --env BOTH={{slot}} -- ./threaded --env"
    );
    let mut rig = Rig::dressed(words, |cmd, dir| {
        let first = "# secrets\n\nexport FILED=\"from {slot+7} the file\"\r\nTYPED=filed\nBOTH=filed\n\
                     INHERITED=filed\nTWICE=first\nWORKER_ID=filed\n";
        fs::write(dir.join("first.env"), first).unwrap();
        fs::write(dir.join("second.env"), "TWICE='second'").unwrap();
        cmd.env("INHERITED", "inherited").env("KEPT", "kept");
    });
    rig.up();
    let report = get(v4(port), "/env").unwrap();
    report.has_env(&[
        ("FILED", "from 7 the file"),
        ("TYPED", "typed"),
        ("BOTH", "0"),
        ("INHERITED", "filed"),
        ("TWICE", "second"),
        ("WORKER_ID", "filed"),
        ("KEPT", "kept"),
    ]);
    rig.end(&[]);
}

#[test]
fn with_clear_env_a_worker_has_what_we_give_it_and_nothing_else() {
    let port = free_port();
    let words =
        format!("-n 1 -p {port} --clear-env --env-file one.env --env TYPED=1 -- ./threaded --env");
    let mut rig = Rig::dressed(words, |cmd, dir| {
        fs::write(dir.join("one.env"), "FILED=2").unwrap();
        cmd.env("INHERITED", "x");
    });
    rig.up();
    let report = get(v4(port), "/env").unwrap();
    for name in ["FILED", "TYPED", "PORT", "WORKER_ID", "MINICLUSTER_CONTROL"] {
        assert!(report.env(name).is_some(), "{name}");
    }
    let masters = fs::read_to_string(format!("/proc/{}/environ", rig.pid())).unwrap();
    let masters = masters.split('\0').filter_map(|pair| pair.split_once('='));
    let passed: Vec<&str> = masters
        .map(|(k, _)| k)
        .filter(|k| report.env(k).is_some())
        .collect();
    assert!(passed.is_empty(), "{passed:?}");
    // It has no mark to be found by.
    let worker = rig.status().pids()[0];
    rig.signal(Signal::SIGTERM);
    rig.wait_exit();
    assert!(!proc::alive(worker));
    rig.finish(0, &[]);
}

#[test]
fn a_bad_file_of_variables_is_exit_78_with_its_line_and_without_its_secrets() {
    let place = Place::new();
    let file = |name: &str, text: &[u8]| fs::write(place.dir.join(name), text).unwrap();
    file("bad.env", b"A=1\n\nhunter2 is no pair\n");
    file("ours.env", b"LISTEN_PID=hunter2");
    file("quote.env", b"KEY=\"hunter2\nmore\"\n");
    file("long.env", &[b'#'; (1 << 20) + 1]);
    for (name, hint) in [
        ("bad.env", "bad.env:3: not NAME=VALUE"),
        ("ours.env", "ours.env:1: LISTEN_PID is set for each worker"),
        ("quote.env", "quote.env:1: a quote is opened"),
        ("long.env", "longer than 1024 KiB"),
        ("missing.env", "missing.env: No such file"),
        (".", "Is a directory"),
    ] {
        let mut cmd = place.command();
        cmd.args(["--env-file", name, "--", "./threaded"]);
        let said = told(run(cmd, Instant::now() + Duration::from_secs(20)));
        assert_eq!(said.code, 78, "{said:?}");
        assert!(said.err.contains(hint), "{said:?}");
        assert!(!said.err.contains("hunter2"), "{said:?}");
    }
}
