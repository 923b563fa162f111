//! Who may do what over TCP: the key, the name that we are called by, and what is refused.

use crate::client::v4;
use crate::harness::Rig;
use crate::house::{KEY, connect, exchange, house, key_file, request};
use crate::place::{Place, Said, free_port, run};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;
use tinyjson::JsonValue;

#[test]
fn what_is_more_than_a_probe_takes_the_key_and_our_name() {
    let mut h = house(2, "--monitor-name front.example.org");
    let wrong = "Authorization: Bearer 0123456789abcdef0123456789abcdee\r\n";
    let right = format!("Authorization: Bearer {KEY}\r\n");
    for line in [
        "GET /status",
        "GET /workers",
        "GET /deps",
        "GET /events",
        "GET /restart",
        "POST /restart",
        "POST /send",
        "POST /sync_send",
        "POST /cli?cmd=resize+9",
        "POST /ecv/disable",
        "POST /disable",
        "POST /enable",
    ] {
        let r = h.asks(line);
        assert_eq!(
            (r.status, r.body.as_str()),
            (401, "Not authorized"),
            "{line}: {r:?}"
        );
        assert_eq!(r.header("WWW-Authenticate"), Some("Bearer"));
        assert_eq!(h.raw(line, wrong, "").status, 401, "{line}");
        for key in ["", "x", &KEY[..31], &format!("{KEY}0")] {
            let r = h.raw(line, &format!("Authorization: Bearer {key}\r\n"), "");
            assert_eq!(r.status, 401, "{line} {key}");
        }
        // A page of another site, whose name was made to point here.
        let r = h.raw(line, &format!("Host: evil.example\r\n{right}"), "");
        assert_eq!(r.status, 403, "{line}: {r:?}");
    }
    let refused = h.rig.wait("request-refused", |_| true);
    assert!(refused.msg.contains("127.0.0.1:"), "{refused:?}");
    assert_eq!(h.rig.status().wanted, 2);
    assert_eq!(h.rig.verb("ecv").code, 0);
    let query = format!("GET /status?accessKey={KEY}");
    for host in [
        "localhost",
        "127.0.0.1:3001",
        "[::1]:80",
        "front.example.org",
    ] {
        let r = h.raw("GET /status", &format!("Host: {host}\r\n{right}"), "");
        assert_eq!(r.status, 200, "{host}: {r:?}");
        assert_eq!(h.raw(&query, &format!("Host: {host}\r\n"), "").status, 200);
    }
    let all = h.rig.lines().join("\n") + &h.rig.verb("events --json").out;
    assert!(
        !all.contains(KEY) && !all.contains(&KEY[..16]),
        "the key is told"
    );
    h.rig.end(&["request-refused"]);
}

#[test]
fn without_a_key_file_nothing_but_probes_is_answered_over_tcp() {
    let (port, monitor) = (free_port(), free_port());
    let mut rig = Rig::start(format!("-n 1 -p {port} --monitor {monitor} -- ./threaded"));
    rig.up();
    let ask = |line: &str| exchange(connect(v4(monitor)), &request(line, "", ""));
    for line in [
        "GET /status",
        "POST /ecv/disable",
        "POST /cli?cmd=stop&accessKey=x",
    ] {
        let r = ask(line);
        assert_eq!(r.status, 403, "{line}");
    }
    assert!(ask("GET /status").body.contains("--key-file"));
    for line in ["GET /ecv", "GET /live", "GET /ready"] {
        assert_eq!(ask(line).status, 200);
    }
    assert_eq!(rig.verb("ecv").code, 0);
    rig.end(&["request-refused"]);
}

fn said_by(from: &mut impl Read, what: &str) {
    let mut all = String::new();
    from.read_to_string(&mut all).unwrap();
    assert!(all.contains(what), "{all}");
}

#[test]
fn verbs_over_tcp_take_the_key() {
    let (port, control) = (free_port(), free_port());
    let at = format!("tcp://127.0.0.1:{control}");
    let mut key = PathBuf::new();
    let words = format!("-n 1 -p {port} -C {at} --key-file key --pid-file pid -- ./threaded");
    let mut rig = Rig::dressed(words, |_, dir| key = key_file(dir, 0o600, KEY));
    rig.up();
    let deadline = rig.deadline();
    let verb = |rig: &Rig, key: Option<&PathBuf>, words: &str| -> Said {
        let mut cmd = rig.command();
        cmd.arg("-C").arg(&at);
        if let Some(key) = key {
            cmd.arg("--key-file").arg(key);
        }
        cmd.args(words.split_whitespace());
        run(cmd, deadline)
    };
    assert_eq!(verb(&rig, Some(&key), "size").out, "1\n");
    assert_eq!(verb(&rig, Some(&key), "resize 2").out, "2 workers\n");
    assert_eq!(verb(&rig, Some(&key), "reload").code, 0);
    assert_eq!(verb(&rig, None, "size").code, 64);
    let other = rig.dir().join("other");
    std::fs::write(&other, "another-key-of-that-length-at-least").unwrap();
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
    let said = verb(&rig, Some(&other), "stop");
    assert_eq!(said.code, 77, "{said:?}");
    assert!(said.err.contains("not the key of this cluster"), "{said:?}");
    rig.wait("request-refused", |_| true);
    // HTTP is spoken there as well.
    let r = exchange(connect(v4(control)), &request("GET /live", "", ""));
    assert_eq!(r.status, 200);
    let r = exchange(connect(v4(control)), &request("GET /status", "", ""));
    assert_eq!(r.status, 401);
    // Lines, after the key.
    let mut to = connect(v4(control));
    to.write_all(format!("key {KEY}\nsize()\n.exit\n").as_bytes())
        .unwrap();
    let mut said = String::new();
    to.read_to_string(&mut said).unwrap();
    assert_eq!(said, "2\n");
    let mut to = connect(v4(control));
    to.write_all(b"stop\n").unwrap();
    said.clear();
    let _ = to.read_to_string(&mut said);
    assert!(said.contains("the first line has to be"), "{said}");
    // It is found like any other, by who has the key: by name, by its pid file, in a worker.
    let found = |way: &dyn Fn(&mut std::process::Command), key: bool, words: &str| -> Said {
        let mut cmd = rig.command();
        way(&mut cmd);
        if key {
            cmd.args(["--key-file", "key"]);
        }
        cmd.args(words.split_whitespace());
        run(cmd, deadline)
    };
    let alone = |_: &mut std::process::Command| {};
    let inside = |cmd: &mut std::process::Command| {
        cmd.env("MINICLUSTER_CONTROL", &at);
    };
    let filed = |cmd: &mut std::process::Command| {
        cmd.args(["--pid-file", "pid"]);
    };
    for way in [
        &alone as &dyn Fn(&mut std::process::Command),
        &inside,
        &filed,
    ] {
        let said = found(way, true, "size");
        assert_eq!((said.code, said.out.as_str()), (0, "2\n"), "{said:?}");
    }
    let said = found(&alone, false, "size");
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.err.contains(&format!("listens on {at}")), "{said:?}");
    // Who may read the file needs none for what a signal says.
    assert_eq!(found(&filed, false, "status").code, 0);
    let repl: JsonValue = found(&alone, true, "--json repl").out.parse().unwrap();
    assert!(repl.get::<Vec<JsonValue>>().unwrap().is_empty());
    let mut to = connect(v4(control));
    to.write_all(format!("key {KEY}\nrepl\n").as_bytes())
        .unwrap();
    to.shutdown(std::net::Shutdown::Write).unwrap();
    said_by(&mut to, "over TCP from 127.0.0.1:");
    assert_eq!(verb(&rig, Some(&key), "stop").code, 0);
    rig.finish(0, &["request-refused"]);
}

#[test]
fn doors_that_cannot_be_are_refused_at_the_start() {
    let place = Place::new();
    let refused = |words: &str| {
        let mut cmd = place.command();
        cmd.args(words.split_whitespace());
        run(cmd, std::time::Instant::now() + Duration::from_secs(20))
    };
    let (port, other) = (free_port(), free_port());
    let held = std::net::TcpListener::bind(v4(other)).unwrap();
    key_file(&place.dir, 0o644, KEY);
    for (options, code, why) in [
        (format!("--monitor {port}"), 64, "which the workers serve"),
        (format!("--monitor {other}"), 75, "--monitor 127.0.0.1:"),
        (
            format!("-C tcp://127.0.0.1:{other}"),
            64,
            "needs --key-file",
        ),
        ("-C tcp://nowhere".into(), 64, "tcp://ADDRESS:PORT"),
        ("--monitor x".into(), 64, "neither PORT"),
        ("--key-file key".into(), 77, "mode 0644 lets others have it"),
        ("--key-file none".into(), 78, "No such file"),
        (
            "--ecv /live".into(),
            64,
            "is a path of another answer of ours",
        ),
        ("--ecv-control maybe".into(), 64, "off, key, open"),
        ("--ecv-down-status 399".into(), 64, "400 to 599"),
    ] {
        let said = refused(&format!("-p {port} {options} -- ./threaded"));
        assert_eq!(said.code, code, "{options}: {said:?}");
        assert!(said.err.contains(why), "{options}: {said:?}");
    }
    key_file(&place.dir, 0o600, "short\n");
    let said = refused(&format!("-p {port} --key-file key -- ./threaded"));
    assert_eq!(said.code, 78, "{said:?}");
    drop(held);
}
