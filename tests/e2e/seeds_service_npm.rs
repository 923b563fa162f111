//! The workers of cluster-service's examples and tests, which are in its package, as they are; and what its README
//! shows of a worker. Those that speak to it (workerReady) find their master in our worker.js. seeds.md has the list.

use crate::client::{get, v4};
use crate::harness::Rig;
use crate::place::{free_port, packages};
use crate::seeds_masters::WORKER;

/// So many of one of its workers, with its defaults, which insists on its port; and that port.
fn workers(n: u16, options: &str, node: &str, file: &str) -> (Rig, u16) {
    let port = free_port();
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/cluster-service.conf");
    let file = match file.ends_with(".js") {
        true => packages().join("cluster-service").join(file),
        false => file.into(),
    };
    // (The monitor of its defaults is at one port for all.)
    let words = format!(
        "-n {n} -p {port} --takeover 1337={port} --config {config} --monitor 127.0.0.1:{} {options} -- node {node} {}",
        free_port(),
        file.display()
    );
    (Rig::start(words), port)
}

/// They ask for 127.0.0.1, and are served where we are told to.
const WIDER: &[&str] = &["address-wider"];

/// examples/server.js, of which its README says that nothing has to be changed.
#[test]
#[ignore = "needs cluster-service: make test-servers"]
fn heavy_service_example_server() {
    let (mut rig, port) = workers(2, "", "", "examples/server.js");
    rig.up();
    let answer = get(v4(port), "/").unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("Hello World\n"), "{answer:?}");
    assert_eq!(rig.verb("restart all").code, 0);
    assert_eq!(get(v4(port), "/").unwrap().status, 200);
    rig.end(WIDER);
}

/// examples/slow.js answers two seconds later, of which it does not even wait itself; a restart does.
#[test]
#[ignore = "needs cluster-service: make test-servers"]
fn heavy_service_example_slow() {
    let (mut rig, port) = workers(2, "", "", "examples/slow.js");
    rig.up();
    let client = std::thread::spawn(move || get(v4(port), "/"));
    let open = || {
        let info = rig.verb("info --json");
        info.out.contains("\"connections_open\":1")
    };
    rig.until("it is under way", open);
    assert_eq!(rig.verb("restart all").code, 0);
    assert_eq!(client.join().unwrap().unwrap().status, 200);
    rig.end(WIDER);
}

/// examples/lazy.js listens two seconds after it was started. Without its master it is ready when it listens;
/// with our worker.js when it says so.
#[test]
#[ignore = "needs cluster-service: make test-servers"]
fn heavy_service_example_lazy() {
    let worker = format!("-r {WORKER}");
    for (options, node) in [("", ""), ("--ready ready", worker.as_str())] {
        let (mut rig, port) = workers(2, options, node, "examples/lazy.js");
        rig.up();
        for ready in rig.events("ready") {
            assert!(ready.number("after") >= 2.0, "{ready:?}");
        }
        assert_eq!(get(v4(port), "/").unwrap().status, 200);
        rig.end(WIDER);
    }
}

/// test/workers: they serve nothing, and are ready when they say so: at once, 100 ms or a second later.
/// (`Start inline async worker` of test/start-stop.js.)
#[test]
#[ignore = "needs cluster-service: make test-servers"]
fn heavy_service_workers_are_ready_when_they_say_so() {
    for (file, after) in [
        ("basic", 0.0),
        ("basic2", 0.1),
        ("inlineReady", 1.0),
        ("legacyReady", 1.0),
    ] {
        let node = format!("-r {WORKER}");
        let file = format!("test/workers/{file}.js");
        let (mut rig, _) = workers(1, "--ready ready", &node, &file);
        let ready = rig.wait("ready", |_| true);
        assert!(ready.number("after") >= after, "{file}: {ready:?}");
        // It stays, since it hears its master; and goes when that says so.
        assert_eq!(rig.verb("restart all").code, 0);
        let died = rig.wait("died", |_| true);
        assert_eq!(died.text("reason"), "restart");
        rig.end(&[]);
    }
}

/// test/workers/longInit.js takes ten seconds. (`Timeout on new worker` of test/start-stop.js.)
#[test]
#[ignore = "needs cluster-service: make test-servers"]
fn heavy_service_timeout_on_new_worker() {
    let node = format!("-r {WORKER}");
    let (mut rig, _) = workers(1, "--ready ready", &node, "test/workers/basic.js");
    rig.up();
    let long = packages().join("cluster-service/test/workers/longInit.js");
    let long = long.display().to_string();
    let said = rig.verb([
        "start",
        "node",
        "-r",
        WORKER,
        long.as_str(),
        r#"{"timeout":300}"#,
    ]);
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("not-ready"), "{said:?}");
    assert_eq!(rig.status().pids().len(), 1);
    rig.end(&["died", "not-ready"]);
}

/// What its README shows: `workerReady({onWorkerStop})`, which is called when its servers are closed.
#[test]
#[ignore = "needs cluster-service: make test-servers"]
fn heavy_service_on_worker_stop() {
    let port = free_port();
    let there = packages().display();
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} --ready ready --env PACKAGES={there} -- node -r {WORKER} heavy/service.js"
    ));
    rig.up();
    let asked = get(v4(port), "/").unwrap();
    assert!(rig.status().pids().contains(&asked.pid()));
    assert_eq!(rig.verb("reload").code, 0);
    let told = rig.tales("stopping");
    assert_eq!(told.len(), 2, "each is told once");
    assert!(
        told.iter().all(|t| t.1 == Some(0)),
        "{told:?}: closed by then"
    );
    rig.end(&[]);
}
