//! --single: the command in our own place, as a worker would have been, and no master.

use crate::client::{get, get_unix, v4};
use crate::harness::Rig;
use crate::place::{Place, Said, free_port, run};
use nix::sys::signal::Signal;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

#[test]
fn the_command_takes_our_place_with_the_socket_and_what_a_worker_has() {
    let port = free_port();
    let words = format!(
        "--single -p {port} --env A=x{{slot}} --rlimit core=0 -- ./threaded --env --accept-adopt --graceful"
    );
    let rig = Rig::dressed(words, |cmd, _| {
        cmd.env("NOTIFY_SOCKET", "/run/ours");
    });
    rig.told("listening");
    let report = get(v4(port), "/env").unwrap();
    // The same process: whoever supervises us supervises it.
    let pid = rig.pid().to_string();
    assert_eq!(report.line("pid"), pid);
    report.has_env(&[
        ("PORT", port.to_string().as_str()),
        ("LISTEN_FDS", "1"),
        ("LISTEN_PID", &pid),
        ("WORKER_ID", "0"),
        ("A", "x0"),
        ("NOTIFY_SOCKET", "/run/ours"),
    ]);
    for name in ["MINICLUSTER_CONTROL", "EINHORN_MASTER_PID"] {
        assert_eq!(report.env(name), None, "{name}");
    }
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &[]);
}

#[test]
fn its_standard_input_is_ours() {
    let place = Place::new();
    let mut cmd = place.command();
    cmd.args("--single -- cat".split(' '));
    let mut child = cmd
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"typed").unwrap();
    let mut out = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut out)
        .unwrap();
    assert_eq!(out, "typed");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_unix_socket_is_left_to_the_command_under_its_one_name() {
    let rig = Rig::start("--single -l unix:a.sock -- python3 sockets.py passed");
    let path = rig.dir().join("a.sock");
    rig.until("it is there", || path.exists());
    // Its queue is open before the server is.
    get_unix(UnixStream::connect(&path).unwrap()).unwrap();
    assert!(!rig.dir().join(".a.sock~").exists());
    rig.signal(Signal::SIGKILL);
    drop(rig);
}

#[test]
fn what_was_ignored_and_what_was_open_stays_so() {
    let place = Place::new();
    let mut cmd = place.command();
    let null = std::fs::File::open("/dev/null").unwrap();
    crate::birth::passing(&mut cmd, &null, 9);
    crate::birth::ignoring(&mut cmd, &[libc::SIGHUP, libc::SIGPIPE]);
    cmd.args("--single -- grep SigIgn /proc/self/status /proc/self/fdinfo/9".split(' '));
    let said = run(cmd, Instant::now() + Duration::from_secs(30));
    let ignored = |said: &Said, n: i32| {
        let hex = said.out.split_whitespace().last().unwrap();
        u64::from_str_radix(hex, 16).unwrap() >> (n - 1) & 1 == 1
    };
    for n in [libc::SIGHUP, libc::SIGPIPE] {
        assert!(ignored(&said, n), "{said:?}");
    }
    assert!(!said.err.contains("No such file"), "{said:?}");
    // What only we ignore it does not.
    let mut cmd = place.command();
    cmd.args("--single -- grep SigIgn /proc/self/status".split(' '));
    let said = run(cmd, Instant::now() + Duration::from_secs(30));
    assert!(!ignored(&said, libc::SIGPIPE), "{said:?}");
}

#[test]
fn what_cannot_be_is_the_same_exit_code_as_with_a_master() {
    let place = Place::new();
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    std::fs::write(place.dir.join("bad"), "no program").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place.dir.join("bad"), mode).unwrap();
    for (words, code, text) in [
        (
            format!("--single -p {port} -H 127.0.0.1 -- true"),
            75,
            "held by pid",
        ),
        ("--single -- ./missing".into(), 127, "not found"),
        (
            "--single -- ./bad".into(),
            126,
            "cannot start COMMAND: exec",
        ),
        (
            "--single --stop-timeout 5 -- true".into(),
            64,
            "without a master",
        ),
        ("--single -- true".into(), 0, ""),
        ("--single -- false".into(), 1, ""),
    ] {
        let mut cmd = place.command();
        cmd.args(words.split(' '));
        let said = run(cmd, Instant::now() + Duration::from_secs(30));
        assert_eq!(said.code, code, "{words}: {said:?}");
        assert!(said.err.contains(text), "{words}: {said:?}");
    }
}
