//! What the master keeps, what workers have of it, and how little it needs: /proc/PID/status of both, with
//! the sets that minicluster(1), PRIVILEGES, names.

use crate::birth;
use crate::client::{all_answer, v4};
use crate::harness::Rig;
use crate::place::{free_port, run};
use std::fs;
use std::process::Command;

/// A line of /proc/PID/status.
fn line(pid: i32, name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    line.unwrap_or_else(|| panic!("{name} of {pid}"))
        .trim()
        .to_string()
}

/// A set of capabilities.
fn set(pid: i32, name: &str) -> u64 {
    u64::from_str_radix(&line(pid, name), 16).unwrap()
}

const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_RAW: u64 = 1 << 13;
/// With these alone it does all that it does as root, but for what the manual names.
const ENOUGH: &str =
    "-all,+setuid,+setgid,+kill,+net_bind_service,+sys_ptrace,+sys_admin,+net_admin";

#[test]
fn a_worker_of_another_user_has_no_capability_left_by_which_it_could_get_one() {
    // Inheritable ones, as container engines have given them; and securebits by which a change of user
    // costs none.
    let program = "setpriv --inh-caps +net_raw,+net_bind_service --ambient-caps +net_raw \
                   --securebits +no_setuid_fixup";
    let port = free_port();
    let words = format!("-n 2 -p {port} --user nobody -- ./threaded");
    let mut rig = Rig::over_nobody(program, words, |_, _| {});
    rig.up();
    let had = set(rig.pid(), "CapInh:");
    assert_ne!(
        had & (NET_RAW | NET_BIND_SERVICE),
        0,
        "the master keeps its own"
    );
    for pid in rig.status().pids() {
        for name in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(set(pid, name), 0, "{name}");
        }
        assert_eq!(
            line(pid, "Uid:"),
            [birth::NOBODY; 4].map(|n| n.to_string()).join("\t")
        );
        assert_eq!(line(pid, "Groups:"), birth::NOBODY.to_string());
        // Programs that are set-user-ID work for who has CAP_SYS_ADMIN to spare it.
        assert_eq!(line(pid, "NoNewPrivs:"), "0");
        for name in ["SigBlk:", "SigIgn:"] {
            assert_eq!(set(pid, name), 0, "{name}");
        }
    }
    rig.end(&[]);
}

#[test]
fn workers_of_the_same_user_have_what_the_master_has() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 1 -p {port} -- ./threaded"));
    rig.up();
    let worker = rig.status().pids()[0];
    for name in [
        "Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:",
    ] {
        assert_eq!(line(worker, name), line(rig.pid(), name), "{name}");
    }
    rig.end(&[]);
}

#[test]
fn no_new_privileges_is_the_price_of_takeover_without_cap_sys_admin() {
    for (takeover, nnp) in [("auto", "1"), ("off", "0")] {
        let port = free_port();
        let words = format!("-n 1 -p {port} --takeover {takeover} -- ./threaded --accept-adopt");
        let mut rig = Rig::unprivileged(words, |_, _| {});
        rig.up();
        let worker = rig.status().pids()[0];
        assert_eq!(line(worker, "NoNewPrivs:"), nnp, "{takeover}");
        // The master does not pay it.
        assert_eq!(line(rig.pid(), "NoNewPrivs:"), "0");
        assert_eq!(set(worker, "CapEff:"), 0);
        rig.end(&[]);
    }
}

/// A network of its own, in which low ports are privileged; then that program.
fn in_a_network(program: &str) -> Vec<String> {
    let script = format!("busybox ifconfig lo up; exec {program} \"$@\"");
    ["unshare", "--net", "sh", "-ec", &script, "sh"]
        .map(String::from)
        .to_vec()
}

/// Is a client in that network served?
fn is_served(rig: &Rig) -> bool {
    let mut cmd = Command::new("nsenter");
    let pid = rig.pid().to_string();
    cmd.args([
        "--net",
        "--target",
        &pid,
        "curl",
        "-s",
        "-w",
        "%{http_code}",
    ]);
    cmd.args(["-o", "/dev/null", "http://127.0.0.1/"]);
    run(cmd, rig.deadline()).out == "200"
}

#[test]
fn seven_capabilities_are_enough_for_a_root_with_workers_of_another_user() {
    let program = in_a_network(&format!("setpriv --bounding-set {ENOUGH} --inh-caps -all"));
    let words = "-n 2 -p 80 --user nobody --idle-timeout 1h -- ./threaded --graceful";
    let mut rig = Rig::over_nobody(program, words, |_, dir| birth::give_to_root(dir));
    rig.up();
    assert_eq!(set(rig.pid(), "CapEff:").count_ones(), 7);
    assert_eq!(rig.status().takeover, "on");
    assert!(is_served(&rig));
    let said = rig.verb("reload");
    assert_eq!(said.code, 0, "{said:?}");
    let victim = rig.status().pids()[0];
    rig.replace(victim);
    for pid in rig.status().pids() {
        assert_eq!(line(pid, "NoNewPrivs:"), "0");
    }
    rig.end(&["died"]);
}

#[test]
fn one_capability_lets_a_master_that_is_not_root_have_a_privileged_port() {
    let program = in_a_network(
        "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps -all,+net_bind_service \
         --ambient-caps -all,+net_bind_service",
    );
    let mut rig = Rig::over_nobody(program, "-n 2 -p 80 -- ./threaded", |_, _| {});
    rig.up();
    assert_eq!(set(rig.pid(), "CapEff:"), NET_BIND_SERVICE);
    assert!(is_served(&rig));
    // It is ambient, so that workers have it as well, as they would without a master.
    for pid in rig.status().pids() {
        assert_eq!(set(pid, "CapEff:"), NET_BIND_SERVICE);
        assert_eq!(line(pid, "NoNewPrivs:"), "1");
    }
    rig.end(&[]);
}

#[test]
fn a_program_of_the_operators_has_what_the_master_has() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --user nobody --command look=./look -- ./threaded");
    let mut rig = Rig::over_nobody("", words, |_, dir| {
        crate::place::script(
            dir,
            "look",
            "#!/bin/sh\ngrep -e ^Uid: -e ^CapEff: -e ^NoNew /proc/$$/status\n",
        );
    });
    rig.up();
    let said = rig.verb("look").out;
    for name in ["Uid:", "CapEff:", "NoNewPrivs:"] {
        let its = said.lines().find_map(|l| l.strip_prefix(name));
        assert_eq!(
            its.map(str::trim),
            Some(line(rig.pid(), name).as_str()),
            "{name}"
        );
    }
    all_answer(&rig, v4(port), "/", 1);
    rig.end(&[]);
}
