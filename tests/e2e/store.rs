//! Sockets in the store of whoever supervises the master (FDSTORE): a crash costs no client. The story is the
//! supervisor.

use crate::client::{ask, get, v4};
use crate::harness::Rig;
use crate::place::{free_port, python};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// As systemd keeps it.
struct Store {
    socket: UnixDatagram,
    kept: BTreeMap<String, OwnedFd>,
    removed: Vec<String>,
    /// Was there nothing in it, after there had been something?
    was_empty: bool,
}

impl Store {
    fn at(path: &std::path::Path) -> Store {
        let socket = UnixDatagram::bind(path).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        Store {
            socket,
            kept: BTreeMap::new(),
            removed: Vec::new(),
            was_empty: false,
        }
    }

    /// Hears all that has come so far.
    fn hear(&mut self) {
        let mut bytes = [0u8; 4096];
        let mut space = nix::cmsg_space!([i32; 8]);
        loop {
            let mut part = [IoSliceMut::new(&mut bytes)];
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let came = recvmsg::<()>(self.socket.as_raw_fd(), &mut part, Some(&mut space), flags);
            let Ok(came) = came else { return };
            let fds: Vec<i32> = came
                .cmsgs()
                .unwrap()
                .flat_map(|c| match c {
                    ControlMessageOwned::ScmRights(fds) => fds,
                    _ => Vec::new(),
                })
                .collect();
            let fds: Vec<OwnedFd> = fds.into_iter().map(crate::birth::owned).collect();
            let len = came.bytes;
            let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
            let value = |key: &str| {
                let line = text.lines().find_map(|l| l.strip_prefix(key));
                line.map(String::from)
            };
            if text.lines().any(|l| l == "FDSTORE=1") {
                assert_eq!(value("FDPOLL=").as_deref(), Some("0"), "{text}");
                let name = value("FDNAME=").unwrap();
                assert!(name.starts_with("minicluster-lane-"), "{text}");
                let fd = fds.into_iter().next().unwrap();
                assert!(self.kept.insert(name, fd).is_none(), "{text}");
            }
            if text.lines().any(|l| l == "FDSTOREREMOVE=1") {
                let name = value("FDNAME=").unwrap();
                assert!(self.kept.remove(&name).is_some(), "{text}");
                self.removed.push(name);
                self.was_empty |= self.kept.is_empty();
            }
        }
    }

    /// Hears it until so many are kept, and has removed so many.
    fn until(&mut self, rig: &Rig, kept: usize, removed: usize) {
        rig.until(&format!("{kept} are kept, {removed} removed"), || {
            self.hear();
            (self.kept.len(), self.removed.len()) == (kept, removed)
        });
    }
}

/// Started by it, with what it keeps.
fn start(words: &str, at: &std::path::Path, store: &Store, more: Option<&TcpListener>) -> Rig {
    let pid = "LISTEN_PID=$$ exec \"$0\" \"$@\"";
    let names: Vec<&str> = store.kept.keys().map(String::as_str).collect();
    let mut names = names;
    names.extend(more.map(|_| "web"));
    let listed = names.join(":");
    Rig::dressed_by(["sh", "-c", pid], words, |cmd, _| {
        cmd.env("NOTIFY_SOCKET", at).env("FDSTORE", "8");
        if !names.is_empty() {
            cmd.env("LISTEN_FDS", names.len().to_string())
                .env("LISTEN_FDNAMES", &listed);
        }
        let mut number = 3;
        for fd in store.kept.values() {
            crate::birth::passing(cmd, fd, number);
            number += 1;
        }
        if let Some(listener) = more {
            crate::birth::passing(cmd, listener, number);
        }
    })
}

/// One that was killed when its lane was in the store.
fn killed(words: &str, at: &std::path::Path, store: &mut Store) -> Rig {
    let mut first = start(words, at, store, None);
    first.wait("all-ready", |_| true);
    store.until(&first, 1, 0);
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    first
}

fn notify_path(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("mc-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

#[test]
fn who_waits_when_the_master_crashes_is_served_by_the_next_start() {
    let port = free_port();
    let at = notify_path("store");
    let mut store = Store::at(&at);
    let words = format!("-n 2 -p {port} -- {} blocking.py", python());
    let first = killed(&words, &at, &mut store);
    first.until("its workers have gone", || first.left_behind().is_empty());
    // Nobody is there, and nobody is refused.
    let clients: Vec<_> = (0..5)
        .map(|_| {
            let stream = TcpStream::connect(v4(port)).unwrap();
            std::thread::spawn(move || ask(stream, "/").unwrap())
        })
        .collect();
    let mut second = start(&words, &at, &store, None);
    second.wait("all-ready", |_| true);
    for client in clients {
        assert!(client.join().unwrap().body.starts_with("PID "));
    }
    // It is in the store already.
    store.hear();
    assert_eq!((store.kept.len(), store.removed.len()), (1, 0));
    // Another lane takes its place, and then its place in the store.
    assert_eq!(second.verb("reload").code, 0);
    store.until(&second, 1, 1);
    assert!(
        !store.was_empty,
        "a crash in between would have cost clients"
    );
    get(v4(port), "/").unwrap();
    // A stop leaves nothing there, and nobody hangs though it is us who have a copy.
    let copies: Vec<OwnedFd> = store
        .kept
        .values()
        .map(|fd| fd.try_clone().unwrap())
        .collect();
    second.signal(Signal::SIGTERM);
    store.until(&second, 0, 2);
    second.finish(0, &[]);
    assert!(get(v4(port), "/").is_err());
    drop(copies);
    std::fs::remove_file(at).unwrap();
}

#[test]
fn a_port_that_workers_have_by_themselves_is_in_the_store_too() {
    let port = free_port();
    let at = notify_path("learnt");
    let mut store = Store::at(&at);
    let words = format!("-n 2 -- {} blocking.py {port}", python());
    let first = killed(&words, &at, &mut store);
    first.until("its workers have gone", || first.left_behind().is_empty());
    let stream = TcpStream::connect(v4(port)).unwrap();
    let client = std::thread::spawn(move || ask(stream, "/").unwrap());
    let mut second = start(&words, &at, &store, None);
    second.wait("all-ready", |_| true);
    assert!(client.join().unwrap().body.starts_with("PID "));
    second.signal(Signal::SIGTERM);
    store.until(&second, 0, 1);
    second.finish(0, &[]);
    std::fs::remove_file(at).unwrap();
}

#[test]
fn workers_that_were_kept_and_what_is_in_the_store_go_together() {
    let port = free_port();
    let at = notify_path("both");
    let mut store = Store::at(&at);
    let words = format!("-n 2 -p {port} --name shop --orphans keep -- ./threaded");
    let mut first = start(&words, &at, &store, None);
    first.wait("all-ready", |_| true);
    store.until(&first, 1, 0);
    let workers = first.status().pids();
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    get(v4(port), "/").unwrap();
    let run = first.dir().join("run");
    let pid = "LISTEN_PID=$$ exec \"$0\" \"$@\"";
    let name = store.kept.keys().next().unwrap().clone();
    let fd = store.kept.values().next().unwrap().try_clone().unwrap();
    let mut second = Rig::dressed_by(["sh", "-c", pid], words.as_str(), |cmd, _| {
        cmd.env("NOTIFY_SOCKET", &at)
            .env("FDSTORE", "8")
            .env("RUNTIME_DIRECTORY", &run)
            .env("LISTEN_FDS", "1")
            .env("LISTEN_FDNAMES", name);
        cmd.current_dir(first.dir());
        crate::birth::passing(cmd, &fd, 3);
    });
    second.wait("all-ready", |_| true);
    let mut cmd = first.command();
    cmd.args(["--name", "shop", "status", "--json"]);
    let said = crate::place::run(cmd, first.deadline());
    assert_eq!(crate::harness::Status::parse(&said.out).pids(), workers);
    get(v4(port), "/").unwrap();
    second.signal(Signal::SIGTERM);
    store.until(&second, 0, 1);
    second.finish(0, &["orphans", "died", "unhealthy"]);
    first.until("nothing is left", || first.left_behind().is_empty());
    std::fs::remove_file(at).unwrap();
}

#[test]
fn sockets_that_were_passed_are_not_kept_there_and_go_on_as_they_do() {
    let at = notify_path("passed");
    let mut store = Store::at(&at);
    let passed = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = passed.local_addr().unwrap();
    let mut rig = start("-n 2 -- ./threaded", &at, &store, Some(&passed));
    rig.wait("all-ready", |_| true);
    get(addr, "/").unwrap();
    // Nor is what a reload has beside it: the next start is passed this one again, and it is the port.
    assert_eq!(rig.verb("reload").code, 0);
    get(addr, "/").unwrap();
    store.hear();
    assert!(store.kept.is_empty() && store.removed.is_empty());
    rig.end(&[]);
    std::fs::remove_file(at).unwrap();
}
