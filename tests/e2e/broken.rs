//! A reload to code that does not work, or to a file that is wrong, costs nothing: the old workers go
//! on, all of them, and who asked is told why. What a good one reads again counts from then on.

use crate::client::{get, v4};
use crate::harness::Rig;
use crate::load::Load;
use crate::place::{Said, free_port, free_ports, python};
use std::fs;
use std::os::unix::fs::symlink;
use tinyjson::JsonValue;

/// Asks for a reload under load; it fails, and at every look until then as many were ready as ever.
fn fails(rig: &Rig, port: u16) -> Said {
    let old = rig.status().pids();
    let load = Load::going(&port.to_string());
    let asked = rig.meanwhile("reload");
    rig.until("it is over", || {
        assert_eq!(rig.status().ready, 2);
        asked.is_finished()
    });
    let said = asked.join().unwrap();
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    assert_eq!(rig.status().pids(), old);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    said
}

/// The blocking server, broken or mute while there are such files.
fn breakable(options: &str) -> (Rig, u16) {
    let port = free_port();
    let server = format!("{} blocking.py broken=broken mute=mute", python());
    let mut rig = Rig::start(format!("-n 2 -p {port} {options} -- {server}"));
    rig.up();
    (rig, port)
}

#[test]
fn code_that_ends_at_once_changes_nothing_and_its_last_words_are_told() {
    let (rig, port) = breakable("");
    let file = rig.dir().join("broken");
    fs::write(&file, "").unwrap();
    let said = fails(&rig, port);
    for part in [
        "minicluster: not reloaded: worker ",
        "ended: failure (exit 3) after ",
        ", never ready\n",
        "    | blocking.py: this version is broken\n",
    ] {
        assert!(said.err.contains(part), "{said:?}");
    }
    let json: JsonValue = rig.verb("reload --json").out.parse().unwrap();
    let last = json["stderr"].get::<String>().unwrap();
    assert!(last.contains("this version is broken"), "{last}");
    assert!(rig.verb("status").out.contains(" generation 1 "));
    let failed = rig.wait_many("reload-failed", 2);
    assert_eq!(failed[1].level, "error");
    // Mended, it takes its place.
    fs::remove_file(file).unwrap();
    let said = rig.verb("reload");
    assert!(said.out.starts_with("generation 4 serves"), "{said:?}");
    rig.end(&["died", "reload-failed"]);
}

#[test]
fn code_that_never_listens_changes_nothing() {
    let (rig, port) = breakable("--ready-timeout 5s");
    let file = rig.dir().join("mute");
    fs::write(&file, "").unwrap();
    let said = fails(&rig, port);
    assert!(said.err.contains("not-ready"), "{said:?}");
    fs::remove_file(file).unwrap();
    assert_eq!(rig.verb("reload").code, 0);
    rig.end(&["died", "reload-failed", "not-ready"]);
}

#[test]
fn a_command_that_cannot_be_executed_any_more_changes_nothing() {
    let port = free_port();
    let mut rig = Rig::dressed(format!("-n 2 -p {port} -- ./app"), |_, dir| {
        symlink("threaded", dir.join("app")).unwrap();
    });
    rig.up();
    fs::remove_file(rig.dir().join("app")).unwrap();
    let said = fails(&rig, port);
    assert!(said.err.contains("./app"), "{said:?}");
    // Nobody was even forked for it.
    assert_eq!(rig.events("forked").len(), 2);
    // Nor is it executable.
    fs::write(rig.dir().join("app"), "#!/nowhere\n").unwrap();
    let said = fails(&rig, port);
    assert!(said.err.contains("./app"), "{said:?}");
    fs::remove_file(rig.dir().join("app")).unwrap();
    symlink("threaded", rig.dir().join("app")).unwrap();
    assert_eq!(rig.verb("reload").code, 0);
    rig.end(&["died", "reload-failed"]);
}

#[test]
fn one_that_breaks_when_its_siblings_serve_already_is_taken_back() {
    let port = free_port();
    // With one at a time the first has taken its place when the second fails.
    let script =
        "test $MINICLUSTER_GENERATION = 1 || test $WORKER_ID = 0 || exit 4; exec ./threaded";
    let p = port.to_string();
    let words = [
        "-n", "2", "-p", &p, "--surge", "1", "--", "sh", "-c", script,
    ];
    let mut rig = Rig::start(words);
    rig.up();
    let said = rig.verb("reload");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("(exit 4)"), "{said:?}");
    let failed = rig.wait("reload-failed", |_| true);
    assert!(failed.msg.contains("taken back"), "{}", failed.msg);
    let back = rig.wait("reload-finished", |_| true);
    assert_eq!(back.number("generation"), 1.0);
    assert_eq!(rig.status().ready, 2);
    assert!(rig.verb("status").out.contains(" generation 1 "));
    assert_eq!(get(v4(port), "/").unwrap().status, 200);
    rig.end(&["died", "reload-failed"]);
}

#[test]
fn a_directory_behind_a_link_that_was_switched_is_entered_anew() {
    let port = free_port();
    let release = |dir: &std::path::Path, n: u8| {
        let here = dir.join(format!("v{n}"));
        fs::create_dir(&here).unwrap();
        symlink("../threaded", here.join("app")).unwrap();
        fs::write(here.join("vars"), format!("RELEASE={n}\n")).unwrap();
    };
    let words = format!("-n 2 -p {port} --cwd current --env-file current/vars -- ./app --env");
    let mut rig = Rig::dressed(words, |_, dir| {
        release(dir, 1);
        release(dir, 2);
        symlink("v1", dir.join("current")).unwrap();
    });
    rig.up();
    assert_eq!(get(v4(port), "/env").unwrap().env("RELEASE"), Some("1"));
    let new = rig.dir().join("new");
    symlink("v2", &new).unwrap();
    fs::rename(&new, rig.dir().join("current")).unwrap();
    assert_eq!(rig.verb("reload").code, 0);
    assert_eq!(get(v4(port), "/env").unwrap().env("RELEASE"), Some("2"));
    for pid in rig.status().pids() {
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
        assert!(cwd.ends_with("v2"), "{cwd:?}");
    }
    rig.end(&[]);
}

#[test]
fn what_the_file_of_options_says_is_read_again() {
    let first = free_ports(2);
    let file = |text: &str| format!("port {first}\n{text}");
    let mut rig = Rig::dressed("--config a.conf -- ./threaded --env", |_, dir| {
        fs::write(dir.join("a.conf"), file("env A=1\nworkers 2\n")).unwrap();
    });
    rig.wait("all-ready", |_| true);
    let conf = rig.dir().join("a.conf");
    assert_eq!(get(v4(first), "/env").unwrap().env("A"), Some("1"));

    fs::write(&conf, file("env A=2\nworkers 3\nstop-signal QUIT\n")).unwrap();
    let said = rig.verb("reload");
    assert_eq!(said.code, 0, "{said:?}");
    let status = rig.status();
    assert_eq!((status.ready, status.wanted), (3, 3));
    assert_eq!(get(v4(first), "/env").unwrap().env("A"), Some("2"));

    // Three have more descriptors than two.
    rig.note_descriptors();
    // A wrong one changes nothing.
    let old = rig.status().pids();
    fs::write(&conf, file("env A=3\nbacklog many\n")).unwrap();
    let said = rig.verb("reload");
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    assert!(said.err.contains("a.conf:3: --backlog: "), "{said:?}");
    assert_eq!(rig.status().pids(), old);

    // What is of the master itself is kept, and that is said.
    let moved = format!("port {}\nworkers 3\nenv A=4\n", first + 1);
    fs::write(&conf, moved).unwrap();
    assert_eq!(rig.verb("reload").code, 0);
    let kept = rig.wait("config-kept", |_| true);
    assert!(kept.msg.starts_with("--port changed"), "{}", kept.msg);
    assert_eq!(get(v4(first), "/env").unwrap().env("A"), Some("4"));
    assert!(get(v4(first + 1), "/").is_err());
    rig.end(&["reload-failed", "config-kept"]);
}
