//! Reloads because something has changed (--watch).

use crate::client::{get, v4};
use crate::harness::Rig;
use crate::place::free_port;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

fn switch(dir: &Path, to: &str) {
    symlink(to, dir.join("new")).unwrap();
    fs::rename(dir.join("new"), dir.join("current")).unwrap();
}

#[test]
fn a_link_that_a_deploy_switches_is_a_reload() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --cwd current --watch current/ -- ../threaded");
    let mut rig = Rig::dressed(words, |_, dir| {
        for release in ["v1", "v2"] {
            fs::create_dir(dir.join(release)).unwrap();
        }
        symlink("v1", dir.join("current")).unwrap();
    });
    rig.up();
    switch(rig.dir(), "v2");
    let changed = rig.wait("changed", |_| true);
    assert!(changed.msg.ends_with("/current"), "{}", changed.msg);
    let began = rig.wait("reload-started", |_| true);
    assert_eq!(began.text("reason"), "a path of --watch has changed");
    rig.wait("reload-finished", |_| true);
    for pid in rig.status().pids() {
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        assert!(cwd.ends_with("v2"), "{cwd:?}");
    }
    rig.end(&[]);
}

#[test]
fn what_changes_while_a_reload_is_under_way_leads_to_one_more() {
    let port = free_port();
    // So a reload takes longer than it has to be quiet.
    let words = format!("-n 2 -p {port} --ready 1s --watch a --watch b -- ./threaded");
    let mut rig = Rig::start(words);
    rig.up();
    let (a, b) = (rig.dir().join("a"), rig.dir().join("b"));
    // One for all that is written at once.
    for n in 0..20 {
        fs::write(&a, "1".repeat(n)).unwrap();
        fs::write(&b, "1".repeat(n)).unwrap();
    }
    let changed = rig.wait("changed", |_| true);
    assert!(changed.msg.contains("/a, /"), "{}", changed.msg);
    rig.wait("reload-started", |_| true);
    fs::write(&a, "2").unwrap();
    // The one that runs is not called off.
    rig.wait("reload-serving", |_| true);
    let changed = rig.wait("changed", |_| true);
    assert!(changed.msg.ends_with("/a"), "{}", changed.msg);
    rig.wait("reload-serving", |_| true);
    rig.wait("reload-finished", |_| true);
    assert_eq!(rig.events("reload-started").len(), 2);
    assert!(rig.events("reload-failed").is_empty());
    rig.end(&[]);
}

#[test]
fn after_a_reload_that_failed_the_next_change_tries_again() {
    let port = free_port().to_string();
    let script = "grep -q good app.conf || { echo bad >&2; exit 3; }; exec ./threaded";
    let words = [
        "-n2",
        "-p",
        &port,
        "--watch=app.conf",
        "--",
        "sh",
        "-c",
        script,
    ];
    let mut rig = Rig::dressed(words, |_, dir| {
        fs::write(dir.join("app.conf"), "good").unwrap();
    });
    rig.up();
    let old = rig.status().pids();
    let conf = rig.dir().join("app.conf");
    fs::write(&conf, "wrong").unwrap();
    let failed = rig.wait("reload-failed", |_| true);
    assert!(failed.msg.contains("(exit 3)"), "{}", failed.msg);
    assert_eq!(rig.status().pids(), old);
    assert_eq!(get(v4(port.parse().unwrap()), "/").unwrap().status, 200);
    // By a rename, as editors do.
    fs::write(rig.dir().join("app.new"), "good again").unwrap();
    fs::rename(rig.dir().join("app.new"), &conf).unwrap();
    rig.wait("reload-finished", |_| true);
    assert_ne!(rig.status().pids(), old);
    rig.end(&["reload-failed", "died"]);
}
