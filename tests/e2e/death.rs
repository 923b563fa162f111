//! The master dies, in whatever way: nothing of it lives on, and the next start has the port.

use crate::birth;
use crate::client::{get, v4};
use crate::harness::{Rig, Words};
use crate::place::{free_port, python};
use nix::sys::signal::Signal;
use std::net::TcpListener;

/// Kills the master. All that it had started goes, its port is free at once, and the next start has it.
fn dies(mut first: Rig, port: u16, next: impl Words) {
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    first.until("nothing is left", || first.left_behind().is_empty());
    // (One that is on its way out has no environment any more, and its descriptors still.)
    first.until("the port is free", || TcpListener::bind(v4(port)).is_ok());
    let mut second = Rig::start(next);
    second.up();
    get(v4(port), "/").unwrap();
    second.end(&[]);
}

/// A server behind a shell that waits for it.
fn behind_a_shell(port: u16) -> Vec<String> {
    let server = format!("{} blocking.py; true", python());
    let mut words = format!("-n 2 -p {port} -- sh -c").words();
    words.push(server);
    words
}

#[test]
fn a_killed_master_takes_along_what_a_shell_has_started() {
    let port = free_port();
    let mut rig = Rig::start(behind_a_shell(port));
    rig.up();
    // Two shells, two servers.
    assert_eq!(rig.left_behind().len(), 4);
    dies(rig, port, format!("-n 2 -p {port} -- ./threaded"));
}

#[test]
fn a_killed_master_takes_along_what_npm_has_started() {
    let port = free_port();
    let words = || format!("-n 2 -p {port} --cwd npm-app -- npm start");
    let mut rig = Rig::start(words());
    rig.up();
    assert!(rig.left_behind().len() >= 4, "{:?}", rig.left_behind());
    dies(rig, port, words());
}

#[test]
fn a_killed_master_takes_along_what_runs_as_another_user_behind_a_shell() {
    let port = free_port();
    let mut words = format!("-n 2 -p {port} --user nobody -- sh -c").words();
    words.push("./threaded; true".to_string());
    let mut rig = Rig::over_nobody("", words, |_, _| {});
    rig.up();
    assert_eq!(rig.left_behind().len(), 4);
    dies(rig, port, format!("-n 2 -p {port} -- ./threaded"));
}

/// Becomes root in a user namespace, as that of a container: other users are none of the machine's.
const USER_NAMESPACE: &str = "
import ctypes, os, sys
ready, gone = os.pipe()
us = os.getpid()
if os.fork() == 0:
    os.read(ready, 1)
    for of in 'uid', 'gid':
        with open(f'/proc/{us}/{of}_map', 'w') as f:
            f.write('0 0 1\\n1 100000 65536\\n')
    os._exit(0)
if ctypes.CDLL(None).unshare(0x10000000):
    sys.exit('unshare')
os.write(gone, b'.')
os.wait()
os.execvp(sys.argv[1], sys.argv[1:])
";

#[test]
fn so_does_one_whose_root_is_none_of_the_machine() {
    let port = free_port();
    let script = "./threaded; true";
    let mut words = format!("-n 2 -p {port} --user 4242 --group 4242 -- sh -c").words();
    words.push(script.to_string());
    let mut rig = Rig::over_nobody([python(), "-c", USER_NAMESPACE], words, |_, dir| {
        open_to_all(dir);
    });
    rig.up();
    assert_eq!(rig.left_behind().len(), 4);
    dies(rig, port, format!("-n 2 -p {port} -- ./threaded"));
}

/// Another user executes what is there.
fn open_to_all(dir: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    let all = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(dir, all).unwrap();
}

#[test]
fn so_does_one_that_sees_no_proc() {
    let port = free_port();
    let how = birth::namespaces("-m");
    let hidden = "mount -t tmpfs none /proc; exec \"$0\" \"$@\"";
    let start = ["unshare", &how, "sh", "-c", hidden];
    let words = ["-n", "2", "-p", &port.to_string(), "--", "sh", "-c"].map(String::from);
    let mut words = words.to_vec();
    words.push("./threaded; true".to_string());
    let mut rig = Rig::by(start, words);
    rig.wait("all-ready", |_| true);
    assert_eq!(rig.left_behind().len(), 4);
    dies(rig, port, format!("-n 2 -p {port} -- ./threaded"));
}

#[test]
fn a_killed_master_takes_along_what_programs_of_the_operator_have_started() {
    let port = free_port();
    let lasting = "sh -c 'sleep 1001; true'";
    let hook = "sleep 1002 & wait";
    let mut words = format!("-n 1 -p {port}").words();
    words.extend(["--on-message".to_string(), lasting.to_string()]);
    words.extend(["--on-event".to_string(), format!("sh -c '{hook}'")]);
    words.extend("-- ./threaded".words());
    let mut rig = Rig::start(words);
    rig.up();
    let has = |what: &str| rig.left_behind().iter().any(|c| c.contains(what));
    rig.until("both have started what they start", || {
        has("(sleep 1001)") && has("(sleep 1002)")
    });
    dies(rig, port, format!("-n 2 -p {port} -- ./threaded"));
}

#[test]
fn whoever_has_left_the_group_stays() {
    let port = free_port();
    let script = "setsid sleep 1003 & exec ./threaded";
    let mut words = format!("-n 1 -p {port} -- sh -c").words();
    words.push(script.to_string());
    let mut rig = Rig::start(words);
    rig.up();
    rig.until("it is there", || rig.left_behind().len() == 2);
    rig.signal(Signal::SIGKILL);
    rig.wait_exit();
    rig.until("the worker has gone", || rig.left_behind().len() == 1);
    assert!(rig.left_behind()[0].contains("(sleep 1003)"));
}
