//! Sockets of every kind: unix sockets, several at once, and those that somebody else has opened,
//! served by servers that know of it and by servers that do not.

use crate::birth;
use crate::client::{Answer, get, get_unix, v4, v6};
use crate::harness::Rig;
use crate::place::{free_port, free_ports, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

fn at(path: &Path) -> Answer {
    get_unix(UnixStream::connect(path).unwrap()).unwrap()
}

/// Asks until all of these have answered.
fn all_answer(rig: &Rig, pids: &[i32], mut once: impl FnMut() -> Answer) {
    let wanted: BTreeSet<i32> = pids.iter().copied().collect();
    let mut seen = BTreeSet::new();
    rig.until("all workers have answered", || {
        seen.insert(once().pid());
        seen == wanted
    });
}

#[test]
fn a_unix_socket_is_shared_by_servers_that_remove_and_bind_it() {
    let mut rig = Rig::start("-n 3 -l unix:a.sock,mode=0660 -- python3 sockets.py plain a.sock");
    rig.up();
    let path = rig.dir().join("a.sock");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let status = rig.status();
    assert_eq!(status.ports, [format!("unix:{}", path.display())]);
    assert_eq!(status.takeover, "on");
    all_answer(&rig, &status.pids(), || at(&path));
    // Each of them removed it before it bound it; and so does whoever replaces one.
    rig.replace(status.pids()[1]);
    fs::remove_file(&path).unwrap();
    rig.until("the name is there again", || path.exists());
    all_answer(&rig, &rig.status().pids(), || at(&path));
    let dir = rig.dir().to_path_buf();
    rig.signal(Signal::SIGTERM);
    rig.until("the socket has gone, by all its names", || {
        let left = fs::read_dir(&dir).unwrap().flatten();
        let mut names = left.map(|e| e.file_name().to_string_lossy().into_owned());
        !names.any(|n| n.contains("a.sock"))
    });
    rig.finish(0, &["died"]);
}

#[test]
fn node_shares_a_unix_socket_and_its_graceful_stop_takes_it_from_nobody() {
    let server = "const s = require('http').createServer((q, r) => r.end(`PID ${process.pid} SLOT 0`)); \
                  s.listen('n.sock'); process.on('SIGTERM', () => s.close());";
    let mut rig = Rig::start(["-n", "2", "-l", "unix:n.sock", "--", "node", "-e", server]);
    rig.up();
    let path = rig.dir().join("n.sock");
    let pids = rig.status().pids();
    all_answer(&rig, &pids, || at(&path));
    // It removes the file when it closes.
    kill(Pid::from_raw(pids[0]), Signal::SIGTERM).unwrap();
    rig.wait("died", |e| e.pid() == pids[0]);
    rig.wait("ready", |_| true);
    rig.until("the name is there again", || path.exists());
    all_answer(&rig, &rig.status().pids(), || at(&path));
    rig.end(&["died"]);
}

#[test]
fn a_name_without_a_file_is_shared_as_well() {
    let name = format!("minicluster-e2e-{}", std::process::id());
    let mut rig = Rig::start(format!(
        "-n 2 -l unix:@{name} -- python3 sockets.py bind @{name}"
    ));
    rig.up();
    let addr = SocketAddr::from_abstract_name(&name).unwrap();
    let once = || get_unix(UnixStream::connect_addr(&addr).unwrap()).unwrap();
    all_answer(&rig, &rig.status().pids(), once);
    rig.end(&[]);
}

#[test]
fn every_kind_of_socket_at_once_by_descriptor() {
    let (a, b) = (free_port(), free_port());
    let mut rig = Rig::start(format!(
        "-n 2 -p {a} -l tcp://[::1]:{b} -l unix:c.sock -- python3 sockets.py passed"
    ));
    rig.up();
    let path = rig.dir().join("c.sock");
    assert_eq!(
        get(v4(a), "/").unwrap().line("PID").split(' ').nth(4),
        Some("3")
    );
    assert_eq!(
        get(v6(b), "/").unwrap().line("PID").split(' ').nth(4),
        Some("4")
    );
    assert_eq!(at(&path).line("PID").split(' ').nth(4), Some("5"));
    rig.end(&[]);
}

/// What systemd does for a socket unit, done by its own tool. It waits for a first client.
fn activated(sockets: &[String], words: &str) -> Rig {
    let mut tool = vec!["systemd-socket-activate".to_string()];
    tool.extend(sockets.iter().flat_map(|s| ["-l".to_string(), s.clone()]));
    for name in ["E2E_MARK", "SAY", "RUNTIME_DIRECTORY", "TMPDIR"] {
        tool.extend(["-E".to_string(), name.to_string()]);
    }
    Rig::by(tool.join(" "), words)
}

#[test]
fn sockets_of_systemd_are_served_by_servers_that_know_of_it() {
    let first = free_ports(2);
    let mut rig = activated(
        &[format!("127.0.0.1:{first}"), format!("[::1]:{}", first + 1)],
        "-n 2 -- python3 sockets.py passed",
    );
    rig.wait_line("Listening on");
    let held = std::net::TcpStream::connect(v4(first)).unwrap();
    rig.up();
    drop(held);
    let pids = rig.status().pids();
    all_answer(&rig, &pids, || get(v4(first), "/").unwrap());
    all_answer(&rig, &pids, || get(v6(first + 1), "/").unwrap());
    rig.end(&[]);
}

#[test]
fn sockets_of_systemd_are_served_by_servers_that_bind_them_themselves() {
    let port = free_port();
    let mut rig = activated(&[format!("0.0.0.0:{port}")], "-n 2 -- ./threaded --env");
    rig.wait_line("Listening on");
    let held = std::net::TcpStream::connect(v4(port)).unwrap();
    rig.up();
    drop(held);
    let report = get(v4(port), "/env").unwrap();
    assert_eq!(report.env("PORT"), Some(port.to_string().as_str()));
    assert_eq!(report.env("LISTEN_FDS"), Some("1"));
    let pids = rig.status().pids();
    all_answer(&rig, &pids, || get(v4(port), "/").unwrap());
    rig.end(&[]);
}

#[test]
fn a_descriptor_that_is_open_already_is_served_and_its_file_kept_and_left() {
    let place = std::env::temp_dir().join(format!("mc-passed-{}", std::process::id()));
    let _ = fs::remove_file(&place);
    let listener = UnixListener::bind(&place).unwrap();
    let words = format!(
        "-n 2 -l fd:7 -- python3 sockets.py plain {}",
        place.display()
    );
    let mut rig = Rig::dressed(words, |cmd, _| birth::passing(cmd, &listener, 7));
    rig.up();
    // Whoever passed it may go.
    drop(listener);
    all_answer(&rig, &rig.status().pids(), || at(&place));
    rig.end(&[]);
    // What is left is the file, as its owner had it, and nobody behind it.
    assert!(UnixStream::connect(&place).is_err());
    fs::remove_file(&place).unwrap();
    let hidden = place.with_file_name(format!(
        ".{}~",
        place.file_name().unwrap().to_string_lossy()
    ));
    assert!(!hidden.exists());
}

#[test]
fn what_is_passed_and_cannot_be_served_is_refused_by_name() {
    let rig = Rig::start("-n 1 --ready started -- sleep 60");
    let pair = UnixStream::pair().unwrap();
    let bound = TcpListener::bind("127.0.0.1:0").unwrap();
    for (words, code, text) in [
        ("-l fd:9 -- true", 78, "fd 9 is not open"),
        ("-l fd:8 -- true", 78, "Accept=no"),
        ("-l unix:said/x -- true", 73, "Not a directory"),
        ("-l unix:sockets.py -- true", 73, "no socket"),
    ] {
        fs::write(rig.dir().join("said"), "").unwrap();
        let mut cmd = rig.command();
        birth::passing(&mut cmd, &pair.0, 8);
        cmd.args(words.split(' '));
        let said = run(cmd, rig.deadline());
        assert_eq!(said.code, code, "{words}: {said:?}");
        assert!(said.err.contains(text), "{words}: {said:?}");
    }
    drop(bound);
    rig.end(&[]);
}

#[test]
fn a_unix_socket_that_another_program_serves_is_75_and_one_it_left_is_not() {
    let mut rig = Rig::start("-n 1 -l unix:b.sock -- python3 sockets.py bind b.sock");
    rig.up();
    let mut cmd = rig.command();
    cmd.args("-n 1 -l unix:b.sock -- true".split(' '));
    let said = run(cmd, rig.deadline());
    assert_eq!(said.code, 75, "{said:?}");
    assert!(
        said.err.contains("another program listens there"),
        "{said:?}"
    );
    let path = rig.dir().join("left.sock");
    drop(UnixListener::bind(&path).unwrap());
    let mut cmd = rig.command();
    cmd.args("-n 1 -l unix:left.sock --ready listening --start-timeout 500ms -- false".split(' '));
    // The command is no server; that the socket was taken shows in that it is gone in the end.
    let said = run(cmd, rig.deadline());
    assert!(!path.exists(), "{said:?}");
    rig.end(&[]);
}

#[test]
fn connections_are_as_patient_as_the_operator_says() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --keepalive 20s --user-timeout 7500ms -- python3 sockets.py passed"
    ));
    rig.up();
    let report = get(v4(port), "/").unwrap();
    for (name, value) in [
        ("keepalive", "1"),
        ("idle", "20"),
        ("interval", "7"),
        ("count", "3"),
        ("user-timeout", "7500"),
    ] {
        assert_eq!(report.line(name), value, "{name}");
    }
    rig.end(&[]);
}

#[test]
fn the_file_of_a_unix_socket_is_whose_it_is_said_to_be_else_the_workers() {
    use std::os::unix::fs::MetadataExt;
    for (said, uid, gid) in [("", 4718, 4719), (",user=4720,group=4721", 4720, 4721)] {
        let words = format!(
            "-n 2 -l unix:u.sock,mode=0600{said} --user 4718 --group 4719 -- python3 sockets.py passed"
        );
        let mut rig = Rig::dressed(words, |_, dir| {
            // They may have no way to the original.
            let server = dir.join("sockets.py");
            let text = fs::read(&server).unwrap();
            fs::remove_file(&server).unwrap();
            fs::write(&server, text).unwrap();
        });
        rig.up();
        let path = rig.dir().join("u.sock");
        let m = fs::metadata(&path).unwrap();
        assert_eq!((m.uid(), m.gid(), m.mode() & 0o777), (uid, gid, 0o600));
        all_answer(&rig, &rig.status().pids(), || at(&path));
        rig.end(&[]);
    }
}

#[test]
fn a_name_that_a_stranger_has_taken_is_put_back_when_it_has_gone() {
    let mut rig = Rig::start("-n 1 -l unix:a.sock -- python3 sockets.py bind a.sock");
    rig.up();
    let (path, strange) = (rig.dir().join("a.sock"), rig.dir().join("strange"));
    fs::write(&strange, "strange").unwrap();
    fs::rename(&strange, &path).unwrap();
    rig.wait("socket-taken", |_| true);
    assert_eq!(fs::read_to_string(&path).unwrap(), "strange");
    fs::remove_file(&path).unwrap();
    rig.until("it is there again", || path.exists());
    at(&path);
    // Nor does it stay away under another name.
    fs::rename(&path, rig.dir().join("moved")).unwrap();
    rig.until("it is there again", || path.exists());
    at(&path);
    rig.end(&["socket-taken"]);
}

#[test]
fn what_can_only_be_passed_on_is_no_port_to_wait_for() {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = socket.local_addr().unwrap();
    let server = "import os,socket; s=socket.socket(fileno=3); \
                  [s.sendto(b'%d' % os.getpid(), s.recvfrom(99)[1]) for _ in iter(int, 1)]";
    let mut rig = Rig::dressed(
        ["-n", "2", "-l", "fd:7", "--", "python3", "-c", server],
        |cmd, _| birth::passing(cmd, &socket, 7),
    );
    // By the rule for commands without a port: they have lived for a second.
    rig.up();
    let pids = rig.status().pids();
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"who", to).unwrap();
    let mut answer = [0; 32];
    let (n, _) = client.recv_from(&mut answer).unwrap();
    let pid: i32 = std::str::from_utf8(&answer[..n]).unwrap().parse().unwrap();
    assert!(pids.contains(&pid));
    rig.end(&[]);
}

#[test]
fn what_is_only_passed_on_is_nothing_to_empty() {
    // It can always be read.
    let always = fs::File::open("/dev/zero").unwrap();
    let port = free_port();
    let words = format!("-n 1 -p {port} -l fd:7 --drain-timeout 60s -- ./threaded");
    let mut rig = Rig::dressed(words, |cmd, _| birth::passing(cmd, &always, 7));
    rig.up();
    assert_eq!(rig.verb("reload").code, 0);
    rig.signal(Signal::SIGTERM);
    let drained = rig.wait_many("drained", 2);
    assert!(
        drained.iter().all(|e| e.number("after") < 30.0),
        "{drained:?}"
    );
    rig.finish(0, &[]);
}
