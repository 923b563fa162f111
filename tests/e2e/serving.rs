//! "The command is any server that runs in the foreground. It need not know of minicluster": real
//! servers, unmodified, four copies on one port that was given (-p) or is learnt from the first
//! bind(2). All requests are answered, by all copies; one of them is killed and replaced.

use crate::client::{all_answer, get, v4};
use crate::harness::Rig;
use crate::place::{free_port, python};

/// What is true of every server that tells who answers.
fn four_serve(mut rig: Rig, port: u16) {
    rig.wait("all-ready", |_| true);
    let takeover = |s: &crate::harness::Status| s.takeover == "on" && s.ready == 4;
    // A port that is learnt is there when the first one has started up.
    rig.wait_status("4 are ready, taken over", takeover);
    rig.until("it answers", || get(v4(port), "/").is_ok());
    let before = all_answer(&rig, v4(port), "/", 4);
    rig.note_descriptors();
    let victim = rig.status().rows[2].pid.unwrap();
    rig.replace(victim);
    let after = all_answer(&rig, v4(port), "/", 4);
    assert_eq!(before.intersection(&after).count(), 3);
    let s = rig.status();
    assert_eq!((s.ready, s.wanted, s.rows[2].restarts), (4, 4, 1), "{s:?}");
    assert_eq!(s.ports.len(), 1, "{s:?}");
    assert!(s.ports[0].ends_with(&format!(":{port}")), "{s:?}");
    rig.end(&["died"]);
}

/// For servers that do not tell: all requests are answered, after a death, too.
fn four_answer(mut rig: Rig, port: u16, path: &str) {
    let all_well = |rig: &Rig| {
        rig.wait_status("4 are ready, taken over", |s| {
            s.takeover == "on" && s.ready == 4 && s.wanted == 4
        });
        rig.until("it answers", || get(v4(port), path).is_ok());
        for _ in 0..40 {
            assert_eq!(get(v4(port), path).unwrap().status, 200);
        }
    };
    all_well(&rig);
    let victim = rig.status().rows[1].pid.unwrap();
    rig.replace(victim);
    all_well(&rig);
    rig.end(&["died"]);
}

#[test]
fn a_blocking_python_server_on_a_given_port() {
    let port = free_port();
    let rig = Rig::start(format!("-n 4 -p {port} -- {} blocking.py", python()));
    four_serve(rig, port);
}

#[test]
fn a_blocking_python_server_on_its_own_port() {
    let port = free_port();
    let rig = Rig::start(format!("-n 4 -- {} blocking.py {port}", python()));
    four_serve(rig, port);
}

#[test]
fn python_http_server_on_a_given_port() {
    let port = free_port();
    let rig = Rig::start(format!(
        "-n 4 -p {port} -- {} -m http.server {port}",
        python()
    ));
    four_answer(rig, port, "/blocking.py");
}

#[test]
fn python_http_server_on_its_own_port() {
    let port = free_port();
    let rig = Rig::start(format!("-n 4 -- {} -m http.server {port}", python()));
    four_answer(rig, port, "/blocking.py");
}

#[test]
fn node_on_a_given_port() {
    let port = free_port();
    four_serve(
        Rig::start(format!("-n 4 -p {port} -- node selecting.js")),
        port,
    );
}

#[test]
fn node_on_its_own_port() {
    let port = free_port();
    four_serve(
        Rig::start(format!("-n 4 -- node selecting.js {port}")),
        port,
    );
}

#[test]
fn node_behind_a_shell() {
    let port = free_port();
    let given = port.to_string();
    // With a second command, so that the shell stays.
    let script = "node selecting.js; true";
    let rig = Rig::start(["-n", "4", "-p", &given, "--", "sh", "-c", script]);
    four_serve(rig, port);
}

#[test]
fn npm_start_on_a_given_port() {
    let port = free_port();
    let rig = Rig::start(format!("-n 4 -p {port} --cwd npm-app -- npm start"));
    four_serve(rig, port);
}

#[test]
fn npm_start_on_its_own_port() {
    let port = free_port();
    let rig = Rig::start(format!("-n 4 --env PORT={port} --cwd npm-app -- npm start"));
    four_serve(rig, port);
}

#[test]
fn busybox_httpd_on_a_given_port() {
    let port = free_port();
    let rig = Rig::start(format!("-n 4 -p {port} -- busybox httpd -f -p {port}"));
    four_answer(rig, port, "/blocking.py");
}

#[test]
fn busybox_httpd_on_its_own_port() {
    let port = free_port();
    let rig = Rig::start(format!("-n 4 -- busybox httpd -f -p {port}"));
    four_answer(rig, port, "/blocking.py");
}

#[test]
fn a_threaded_server_in_c_on_a_given_port() {
    let port = free_port();
    four_serve(Rig::start(format!("-n 4 -p {port} -- ./threaded")), port);
}

#[test]
fn a_threaded_server_in_c_on_its_own_port() {
    let port = free_port();
    let rig = Rig::start(format!("-n 4 -- ./threaded --port {port}"));
    four_serve(rig, port);
}
