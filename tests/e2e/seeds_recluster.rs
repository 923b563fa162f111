//! What recluster tested of itself (test/*.js), told again with the servers of its tests: they are in its package,
//! and run as they are. They insist on ports of their own, which are served on ours. seeds.md has the list.

use crate::client::{Answer, from, get, v4};
use crate::harness::Rig;
use crate::place::{free_port, packages};
use crate::seeds_masters::WORKER;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::symlink;
use std::path::Path;
use tinyjson::JsonValue;

/// Two of a server of its tests, by the name that all of them had there in turn: server.js.
struct Theirs {
    rig: Rig,
    port: u16,
}

/// `server.js` is this one from now on.
fn set_server(dir: &Path, server: &str) {
    let at = dir.join("server.js");
    let _ = std::fs::remove_file(&at);
    let lib = packages().join("recluster/test/lib");
    let file = lib.join(format!("server-{server}.js"));
    assert!(file.exists(), "{file:?}");
    symlink(file, at).unwrap();
}

impl Theirs {
    /// With these options beside its defaults; it listens on that port.
    fn of(server: &str, insists: u16, more: &str) -> Theirs {
        Theirs::with(server, insists, more, "")
    }

    /// And with these arguments; what Node itself is to have stands before a `--`.
    fn with(server: &str, insists: u16, more: &str, args: &str) -> Theirs {
        let (node, args) = args.split_once("-- ").unwrap_or(("", args));
        let port = free_port();
        let config = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/recluster.conf");
        let words = format!(
            "-n 2 -p {port} --takeover {insists}={port} --config {config} {more} -- node {node} server.js {args}"
        );
        let rig = Rig::dressed(words, |_, dir| set_server(dir, server));
        Theirs { rig, port }
    }

    fn up(mut self) -> Theirs {
        self.rig.up();
        self
    }

    fn get(&self, path: &str) -> Answer {
        get(v4(self.port), path).unwrap()
    }

    fn becomes(&self, server: &str) {
        set_server(self.rig.dir(), server);
    }

    fn reload(&self) -> i32 {
        self.rig.verb("reload").code
    }
}

#[test]
#[ignore = "needs recluster: make test-servers"]
fn heavy_recluster_simple_balancer() {
    let t = Theirs::of("ok", 8000, "").up();
    assert_eq!((t.get("/1").status, t.rig.status().ready), (200, 2));
    t.rig.end(&[]);
}

/// Otherwise: it was refused. Here the port is there before the workers are, and who comes early waits.
#[test]
#[ignore = "needs recluster: make test-servers"]
fn heavy_recluster_async_server_fails_if_ready_when_started() {
    let mut t = Theirs::of("async", 9000, "--ready started");
    t.rig.wait("all-ready", |_| true);
    assert!(t.rig.events("listening").is_empty());
    assert_eq!(t.get("/1").status, 200);
    t.rig.wait("listening", |_| true);
    t.rig.end(&[]);
}

#[test]
#[ignore = "needs recluster: make test-servers"]
fn heavy_recluster_async_server() {
    let t = Theirs::of("async", 9000, "").up();
    assert_eq!(t.rig.events("listening").len(), 2);
    assert_eq!(t.get("/1").status, 200);
    t.rig.end(&[]);
}

#[test]
#[ignore = "needs recluster: make test-servers"]
fn heavy_recluster_manual_ready_signal() {
    let t = Theirs::of("manual-ready", 9001, "--ready ready").up();
    // It listens at once, and says so 200 ms later.
    for ready in t.rig.events("ready") {
        assert!(ready.number("after") >= 0.2, "{ready:?}");
    }
    assert_eq!(t.get("/1").status, 200);
    t.rig.end(&[]);
}

#[test]
#[ignore = "needs recluster: make test-servers"]
fn heavy_recluster_broken_server() {
    let t = Theirs::of("ok", 8000, "").up();
    let pids = t.rig.status().pids();
    t.becomes("broken");
    assert_eq!(t.reload(), 1);
    assert_eq!((t.get("/1").status, t.rig.status().pids()), (200, pids));
    t.becomes("ok");
    assert_eq!(t.reload(), 0);
    assert_eq!(t.get("/1").status, 200);
    t.rig.end(&["died", "reload-failed"]);
}

#[test]
#[ignore = "needs recluster: make test-servers"]
fn heavy_recluster_reload_in_the_middle_of_a_request() {
    let t = Theirs::of("ok", 8000, "").up();
    let port = t.port;
    let slow = std::thread::spawn(move || get(v4(port), "/1500"));
    let open = || {
        let said: JsonValue = t.rig.verb("connections --json").out.parse().unwrap();
        let all: &Vec<JsonValue> = said["workers"].get().unwrap();
        all.iter()
            .map(|w| *w["open"].get::<f64>().unwrap())
            .sum::<f64>()
    };
    t.rig.until("it is under way", || open() == 1.0);
    assert_eq!(t.reload(), 0);
    assert_eq!(slow.join().unwrap().unwrap().status, 200);
    assert_eq!(t.rig.events("reload-finished").len(), 1);
    t.rig.end(&[]);
}

#[test]
#[ignore = "needs recluster: make test-servers"]
fn heavy_recluster_old_workers_dont_respond() {
    let t = Theirs::of("ok", 8000, "").up();
    t.becomes("non-dying");
    assert_eq!(t.reload(), 0);
    assert_eq!(t.get("/1").status, 500, "as the new ones answer");
    t.becomes("ok");
    assert_eq!(t.reload(), 0);
    for _ in 0..10 {
        assert_eq!(t.get("/1").status, 200);
    }
    let now = t.rig.status();
    assert_eq!((now.pids().len(), now.beside.len()), (2, 0));
    t.rig.end(&[]);
}

/// A timer that never rests keeps none of them: nothing has to be killed.
#[test]
#[ignore = "needs recluster: make test-servers"]
fn heavy_recluster_server_with_an_endless_set_interval() {
    let t = Theirs::of("ok", 8000, "").up();
    t.becomes("non-dying");
    for _ in 0..2 {
        assert_eq!(t.reload(), 0);
    }
    let now = t.rig.status();
    assert_eq!((now.pids().len(), now.beside.len()), (2, 0));
    let died = t.rig.events("died");
    assert_eq!(died.len(), 4);
    for end in died {
        assert_eq!(
            (end.text("reason"), end.text("signal")),
            ("restart", "SIGTERM")
        );
    }
    assert!(t.rig.events("killed").is_empty());
    t.rig.end(&[]);
}

#[test]
#[ignore = "needs recluster: make test-servers"]
fn heavy_recluster_server_with_arguments() {
    let t = Theirs::with("with-args", 8000, "", "fail").up();
    assert_eq!(t.get("/").status, 404);
    t.rig.end(&[]);
}

/// test/termination.js: they throw half a second after their start, all of them, again and again.
#[test]
#[ignore = "needs recluster: make test-servers"]
fn heavy_recluster_dying_server() {
    let mut t = Theirs::of("die-halfsec", 8000, "--respawn 1ms");
    t.rig.wait("all-ready", |_| true);
    let ready = t.rig.wait_many("ready", 4);
    let died = t.rig.wait_many("died", 2);
    for end in &died[..2] {
        assert_eq!((end.text("reason"), end.number("code")), ("failure", 1.0));
    }
    let pids: BTreeSet<i32> = ready.iter().map(|e| e.pid()).collect();
    assert_eq!(pids.len(), ready.len(), "each is another process");
    let slots = |all: &[crate::log::Event]| all.iter().map(|e| e.slot()).collect::<BTreeSet<_>>();
    assert_eq!(slots(&ready[2..4]), slots(&ready[..2]));
    // (One that dies takes along what it has accepted.)
    let answered = || get(v4(t.port), "/1").is_ok_and(|a| a.status == 200);
    t.rig.until("the next ones serve", answered);
    t.rig.end(&["died"]);
}

/// Each wants to be replaced half a second after its start, and stays for five seconds more unless it is ended.
/// This is how each of the first two ends.
fn they_want_to_go(server: &str, args: &str, end: &str, allowed: &[&str]) {
    let limits = "--drain-timeout 300ms --drain-quiet 300ms --stop-timeout 300ms";
    let mut t = Theirs::with(server, 8000, limits, args);
    t.rig.wait("all-ready", |_| true);
    let first = t.rig.status().pids();
    for _ in 0..2 {
        let due = t.rig.wait("recycling", |e| first.contains(&e.pid()));
        assert_eq!(due.text("reason"), "wish");
        // One at a time; its successor is ready before it goes.
        t.rig.wait("ready", |e| e.slot() == due.slot());
        let died = t.rig.wait("died", |e| e.pid() == due.pid());
        assert_eq!((died.text("reason"), died.text("signal")), ("recycle", end));
        assert_eq!(t.rig.status().ready, 2);
        assert_eq!(t.get("/1").status, 200);
    }
    assert!(!t.rig.status().pids().iter().any(|p| first.contains(p)));
    t.rig.end(allowed);
}

/// With our worker.js, since `cluster.worker` is of Node's own cluster. That closes its server, and the timer is
/// left: what upstream had killed after 300 ms is so killed here.
#[test]
#[ignore = "needs recluster: make test-servers"]
fn heavy_recluster_ipc_disconnecting_server() {
    let node = format!("-r {WORKER} -- ");
    they_want_to_go("disconnect-halfsec", &node, "SIGKILL", &["killed"]);
}

#[test]
#[ignore = "needs recluster: make test-servers"]
fn heavy_recluster_ipc_disconnecting_server_via_msg() {
    they_want_to_go("msg-disconnect-halfsec", "", "SIGTERM", &[]);
}

/// Otherwise: they were left alone. Here a cluster whose workers may end, and are not replaced, ends as they did.
#[test]
#[ignore = "needs recluster: make test-servers"]
fn heavy_recluster_stopped_cluster() {
    let mut t = Theirs::of("die-halfsec", 8000, "--respawn-on never");
    t.rig.wait("all-ready", |_| true);
    t.rig.wait("none-left", |_| true);
    t.rig.wait_exit();
    assert_eq!(t.rig.events("forked").len(), 2);
    t.rig.finish(1, &["died", "none-left"]);
}

/// test/listener-leaks.js: thirty reloads in a row leave nothing open.
#[test]
#[ignore = "needs recluster: make test-servers"]
fn heavy_recluster_maxlisteners_warning() {
    let t = Theirs::of("ok", 8000, "").up();
    for _ in 0..31 {
        assert_eq!(t.reload(), 0);
    }
    assert_eq!(t.rig.events("reload-finished").len(), 31);
    t.rig.end(&[]);
}

/// sticky-listen's test/test-basic.js: a hundred clients of one address at once all come to one worker.
#[test]
fn sticky_listen_test_basic() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 4 -p {port} --balance ip -- ./threaded"));
    rig.up();
    let ask = move |a: u8| {
        let client = IpAddr::V4(Ipv4Addr::new(127, 0, 0, a));
        let answer = crate::client::ask(from(client, v4(port)).unwrap(), "/").unwrap();
        assert_eq!(answer.status, 200);
        answer.pid()
    };
    let clients: Vec<_> = (0..100)
        .map(|_| std::thread::spawn(move || ask(1)))
        .collect();
    let pids: BTreeSet<i32> = clients.into_iter().map(|c| c.join().unwrap()).collect();
    assert_eq!(pids.len(), 1);
    // And not because there is no other.
    let others: BTreeSet<i32> = (2..40).map(ask).collect();
    assert_eq!(others.len(), 4);
    rig.end(&[]);
}
