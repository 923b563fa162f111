//! "Whether clients may come": what a load balancer is told in the words of cluster2, and the page and the
//! program that are asked for it (--ecv-monitor, --ecv-validator).

use crate::client::v4;
use crate::harness::Rig;
use crate::house::{House, Reply, house_of};
use crate::log::Event;
use crate::place::{free_port, python, script};
use nix::sys::signal::Signal;
use nix::sys::socket::{Backlog, listen};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use tinyjson::JsonValue;

/// A server of somebody else's, which is asked and does what it is told each time: an answer, or none.
struct Dependency {
    at: SocketAddr,
    asked: Receiver<(String, TcpStream)>,
}

impl Dependency {
    fn new() -> Dependency {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (tell, asked): (Sender<_>, _) = channel();
        // It ends when nobody listens to it any more, or with the story.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut head = String::new();
                let mut from = BufReader::new(stream.try_clone().unwrap());
                while !head.ends_with("\r\n\r\n") && from.read_line(&mut head).unwrap_or(0) > 0 {}
                if tell.send((head, stream)).is_err() {
                    return;
                }
            }
        });
        Dependency { at, asked }
    }

    fn next(&self) -> (String, TcpStream) {
        self.asked.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    /// The next one who asks is answered so; returns what was asked.
    fn answers(&self, status: &str) -> String {
        let (head, mut stream) = self.next();
        let text = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok");
        stream.write_all(text.as_bytes()).unwrap();
        head
    }
}

/// How it stands, and why, as `ecv` says it.
fn stands(rig: &Rig) -> (String, Option<String>) {
    let json: JsonValue = rig.verb("ecv --json").out.parse().unwrap();
    let state = json["state"].get::<String>().unwrap().clone();
    (state, json["reason"].get::<String>().cloned())
}

/// Whoever is asked has answered, and well.
fn ends_content(rig: &Rig) {
    rig.until("it is content", || stands(rig).0 == "AVAILABLE");
}

/// Typed as the README of cluster2 has it, with -i.
fn curl(words: &str, url: String) -> Reply {
    let mut cmd = Command::new("curl");
    cmd.args(["-s", "-i", "--max-time", "20"]);
    let out = cmd
        .args(words.split_whitespace())
        .arg(url)
        .output()
        .unwrap();
    assert!(out.status.success(), "{out:?}");
    Reply::of(&String::from_utf8(out.stdout).unwrap())
}

/// `Sun Nov 22 2026 08:15:19 GMT+0000 (Coordinated Universal Time)`
fn is_a_date_of_javascript(text: &str) -> bool {
    let shape = |c: char| match c {
        '0'..='9' => '9',
        'A'..='Z' => 'A',
        'a'..='z' => 'a',
        other => other,
    };
    let shape: String = text.chars().map(shape).collect();
    let (date, zone) = shape.split_once(" (").unwrap_or_default();
    let signs = date.replace("AAA-", "AAA+");
    signs == "Aaa Aaa 99 9999 99:99:99 AAA+9999" && zone.ends_with(')') && zone.len() > 1
}

/// One answer of it, byte by byte.
fn is_told(h: &House, word: &str, serves: bool, status: u16) {
    let r = curl("", format!("http://{}/ecv", h.monitor));
    assert_eq!(r.status, status, "{r:?}");
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let hostname = hostname.trim();
    let begin = format!(
        "status={word}&ServeTraffic={serves}&ip=127.0.0.1&hostname={hostname}&port={}&time=",
        h.port
    );
    let time = r
        .body
        .strip_prefix(&begin)
        .unwrap_or_else(|| panic!("{r:?}"));
    assert!(is_a_date_of_javascript(time), "{time}");
    for (name, value) in [
        ("X-Powered-By", "minicluster"),
        ("Content-Type", "text/plain"),
        ("Cache-Control", "no-cache"),
        ("Connection", "close"),
    ] {
        assert_eq!(r.header(name), Some(value), "{r:?}");
    }
    assert!(is_a_date_of_javascript(r.header("since").unwrap()), "{r:?}");
}

#[test]
fn the_readme_of_cluster2_holds_word_for_word_with_curl() {
    let more = "--ecv-control open --ecv-monitor /up --ecv-interval 100ms --ecv-rise 1";
    let mut h = house_of(2, more, &format!("{} ecv.py", python()));
    let down = h.rig.dir().join("down");
    let url = |path: &str| format!("http://{}{path}", h.monitor);
    let (disable, enable) = (url("/ecv/disable"), url("/ecv/enable"));
    // The page of the workers is good from the beginning,
    ends_content(&h.rig);
    is_told(&h, "AVAILABLE", true, 200);
    // and it is asked as cluster2 has asked it.
    let asked = fs::read_to_string(h.rig.dir().join("asked")).unwrap();
    let asked = asked.to_ascii_lowercase();
    for line in [
        "get /up http/1.1",
        "host: localhost\n",
        "connection: close\n",
        "accept: application/json\n",
    ] {
        assert!(asked.contains(line), "{asked}");
    }
    let done = |r: Reply| {
        assert_eq!((r.status, r.body.as_str()), (204, ""), "{r:?}");
        for (name, value) in [("X-Powered-By", "minicluster"), ("Connection", "close")] {
            assert_eq!(r.header(name), Some(value), "{r:?}");
        }
        assert!(is_a_date_of_javascript(r.header("since").unwrap()), "{r:?}");
    };
    done(curl("-X POST", disable));
    is_told(&h, "DISABLED", false, 400);
    // A worker that is forked after that came up enabled there.
    let victim = h.rig.status().pids()[0];
    h.rig.replace(victim);
    is_told(&h, "DISABLED", false, 400);
    assert_eq!(crate::client::get(v4(h.port), "/").unwrap().status, 200);
    done(curl("-X POST", enable));
    is_told(&h, "AVAILABLE", true, 200);
    // Its clients waited for ever where the page could not be had; here each answer is the last one known.
    fs::write(&down, "").unwrap();
    let event = h.rig.wait("unhealthy", |_| true);
    assert_eq!(event.text("reason"), "GET /up answered 503 (--ecv-monitor)");
    is_told(&h, "WARNING", false, 500);
    let r = h.asks("GET /ready");
    assert_eq!(
        (r.status, r.body.as_str()),
        (503, "not ready: GET /up answered 503 (--ecv-monitor)\n")
    );
    assert!(h.rig.verb("status").out.contains(" unhealthy 2/2 ready "));
    fs::remove_file(&down).unwrap();
    h.rig.wait("healthy", |_| true);
    is_told(&h, "AVAILABLE", true, 200);
    h.rig.end(&["died", "unhealthy"]);
}

#[test]
fn so_many_bad_answers_in_a_row_turn_clients_away_and_so_many_good_ones_bring_them_back() {
    let d = Dependency::new();
    let port = free_port();
    let words = format!(
        "-n 1 -p {port} --ecv-monitor http://{}/db?x=1 --ecv-interval 100ms -- ./threaded --graceful",
        d.at
    );
    let mut rig = Rig::start(words);
    let head = d.answers("204 No Content");
    assert!(head.starts_with("GET /db?x=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains(&format!("\r\nHost: {}\r\n", d.at)), "{head}");
    rig.wait("all-ready", |_| true);
    // Two of three: a redirection is no good answer, and neither is none.
    d.answers("302 Found");
    rig.wait("check-failed", |e| e.number("row") == 1.0);
    drop(d.next());
    let event = rig.wait("check-failed", |e| e.number("row") == 2.0);
    assert_eq!(event.text("check"), "monitor");
    assert!(rig.events("unhealthy").is_empty());
    // From here on it takes three again.
    d.answers("200 OK");
    while rig.events("unhealthy").is_empty() {
        d.answers("500 Oh");
    }
    assert_eq!(rig.events("check-failed").len(), 4);
    let event = rig.wait("unhealthy", |_| true);
    let why = format!("GET http://{}/db?x=1 answered 500 (--ecv-monitor)", d.at);
    assert_eq!(event.text("reason"), why);
    assert_eq!(stands(&rig), ("WARNING".into(), Some(why.clone())));
    let said = rig.verb("health");
    assert_eq!((said.code, said.out), (1, format!("WARNING: {why}\n")));
    // It is the master that knows it: not over a death, nor a reload, nor another number is it forgotten.
    while rig.events("check-passed").is_empty() {
        d.answers("200 OK");
        d.answers("500 Oh");
    }
    assert_eq!(rig.verb("resize 2").code, 0);
    assert_eq!(stands(&rig).0, "WARNING");
    let (reload, mut done) = (rig.meanwhile("reload"), false);
    while !done {
        d.answers("500 Oh");
        done = reload.is_finished();
    }
    assert_eq!(reload.join().unwrap().code, 0);
    assert_eq!(stands(&rig).0, "WARNING");
    while rig.events("healthy").is_empty() {
        d.answers("200 OK");
    }
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["unhealthy"]);
}

#[test]
fn one_that_does_not_answer_holds_nobody_up_and_is_no_client() {
    let port = free_port();
    let words = format!(
        "-n 1 -p {port} --ecv-monitor /hang --ecv-interval 2s --drain-timeout 20s --drain-quiet 20s -- {} ecv.py",
        python()
    );
    let mut rig = Rig::start(words);
    rig.wait("all-ready", |_| true);
    let dir = rig.dir().to_path_buf();
    rig.until("it is asked", || dir.join("asked").exists());
    let (state, why) = stands(&rig);
    assert_eq!(
        (state.as_str(), why.as_deref()),
        ("WARNING", Some("no answer yet (--ecv-monitor)"))
    );
    // It is on its way, and is seen not to be a client,
    let json: JsonValue = rig.verb("connections --json").out.parse().unwrap();
    assert_eq!(
        json["workers"][0]["open"].get::<f64>(),
        Some(&0.0),
        "{json:?}"
    );
    let event = rig.wait("unhealthy", |_| true);
    let why = "GET /hang: no answer within 2s (--ecv-monitor)";
    assert_eq!(event.text("reason"), why);
    // nor is the one that was given up, for which the worker makes an answer still.
    let json: JsonValue = rig.verb("connections --json").out.parse().unwrap();
    assert_eq!(
        json["workers"][0]["open"].get::<f64>(),
        Some(&0.0),
        "{json:?}"
    );
    rig.signal(Signal::SIGTERM);
    let event = rig.wait("drained", |_| true);
    for owed in ["closed", "ended", "cut"] {
        assert_eq!(event.number(owed), 0.0, "{event:?}");
    }
    assert!(event.number("after") < 10.0, "{event:?}");
    rig.finish(0, &["unhealthy"]);
}

#[test]
fn a_worker_that_goes_while_it_is_asked_has_not_answered_badly() {
    let port = free_port();
    let words = format!(
        "-n 1 -p {port} --ecv-monitor /odd --ecv-interval 100ms -- {} ecv.py",
        python()
    );
    let mut rig = Rig::start(words);
    rig.up();
    let asked = rig.dir().join("asked");
    // Every other one is hung up on.
    let times = || fs::read_to_string(&asked).map_or(0, |t| t.matches("GET /odd").count());
    rig.until("it is asked three times, and once more each", || {
        times() > 6
    });
    let hung_up = |e: &Event| e.text("reason").contains("closed the connection");
    assert!(!rig.events("check-failed").iter().any(hung_up));
    rig.end(&["unhealthy"]);
}

#[test]
fn a_program_says_with_its_first_line_why_clients_should_not_come() {
    let port = free_port();
    let words = format!(
        "-n 1 -p {port} --ecv-validator ./valid --ecv-interval 100ms --ecv-fall 2 --ecv-rise 1 -- ./threaded --graceful"
    );
    let valid = |dir: &Path, text: &str| {
        // (In one step: the one before may run just now.)
        script(dir, "next", &format!("#!/bin/sh\n{text}\n"));
        fs::rename(dir.join("next"), dir.join("valid")).unwrap();
    };
    let mut rig = Rig::dressed(words, |_, dir| {
        valid(dir, "echo $$ $MINICLUSTER_NAME $PORT >> ran");
    });
    rig.wait("all-ready", |_| true);
    ends_content(&rig);
    let dir = rig.dir().to_path_buf();
    let ran = fs::read_to_string(dir.join("ran")).unwrap();
    assert!(ran.ends_with(&format!(" {port}\n")), "{ran}");
    valid(
        &dir,
        "echo; printf 'disk\\007 full\\n' >&2; echo more; exit 3",
    );
    let event = rig.wait("unhealthy", |_| true);
    assert_eq!(event.text("reason"), "disk? full (--ecv-validator)");
    let said = rig.verb("ecv").out;
    assert!(said.contains(": disk? full (--ecv-validator)\n"), "{said}");
    let line = "\n    --ecv-validator ./valid: not content, disk? full\n";
    assert!(said.contains(line), "{said}");
    valid(&dir, "exit 0");
    rig.wait("healthy", |_| true);
    // One that never ends is killed at its time, with what it has begun; and it is one at a time.
    valid(
        &dir,
        "mkdir lock || touch twice; trap 'rmdir lock; exit 1' TERM; sleep 60 & wait; echo never",
    );
    let event = rig.wait("check-failed", |_| true);
    assert_eq!(event.text("reason"), "killed: not done within 1s");
    assert!(!dir.join("twice").exists());
    valid(&dir, "exit 0");
    ends_content(&rig);
    // In a stop it is not waited for.
    valid(&dir, "touch begun; sleep 60");
    rig.until("it is asked", || dir.join("begun").exists());
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["unhealthy"]);
}

#[test]
fn what_is_asked_is_read_again_by_a_reload_that_turns_nobody_away() {
    let port = free_port();
    let mut rig = Rig::dressed(
        format!("-n 1 -p {port} --config conf -- ./threaded --graceful"),
        |_, dir| fs::write(dir.join("conf"), "").unwrap(),
    );
    rig.up();
    let file = rig.dir().join("conf");
    let says = |text: &str| fs::write(&file, text).unwrap();
    assert_eq!(rig.verb("ecv").out.lines().count(), 1);
    // What is not there is said, and changes nothing.
    for (line, why) in [
        (
            "ecv-validator ./missing",
            "--ecv-validator: ./missing: not found",
        ),
        ("ecv-monitor https://127.0.0.1/", "no TLS"),
        ("ecv-monitor http://web/", "names are not looked up"),
        ("ecv-interval 10ms", "is not between 100ms and 1d"),
        ("ecv-fall 0", "1 to 1000"),
    ] {
        says(line);
        let said = rig.verb("reload");
        assert!(said.code == 1 && said.err.contains(why), "{line}: {said:?}");
    }
    says("ecv-monitor /\necv-interval 10s");
    assert_eq!(rig.verb("reload").code, 0);
    assert_eq!(stands(&rig).0, "AVAILABLE");
    rig.until("it has answered", || {
        rig.verb("ecv").out.contains("--ecv-monitor /: content\n")
    });
    let silent = free_port();
    let often = "ecv-interval 200ms\necv-fall 2";
    says(&format!("ecv-monitor http://127.0.0.1:{silent}/x\n{often}"));
    assert_eq!(rig.verb("reload").code, 0);
    let event = rig.wait("unhealthy", |_| true);
    let why = format!("GET http://127.0.0.1:{silent}/x: Connection refused (--ecv-monitor)");
    assert_eq!(event.text("reason"), why);
    says("");
    assert_eq!(rig.verb("reload").code, 0);
    rig.wait("healthy", |_| true);
    assert_eq!(stands(&rig).0, "AVAILABLE");
    rig.end(&["unhealthy", "reload-failed"]);
}

#[test]
fn out_of_rotation_from_the_first_moment_of_a_stop_for_the_drain_delay_while_it_serves_still() {
    let more = "--drain-delay 60s --ecv-monitor / --ecv-interval 100ms";
    let mut h = house_of(1, more, "./threaded --graceful");
    ends_content(&h.rig);
    is_told(&h, "AVAILABLE", true, 200);
    h.rig.signal(Signal::SIGTERM);
    h.rig.wait("stop-delayed", |_| true);
    is_told(&h, "WARNING", false, 500);
    let r = h.asks("GET /ready");
    assert_eq!(r.body, "not ready: the cluster stops\n");
    assert_eq!(stands(&h.rig).1.as_deref(), Some("the cluster stops"));
    let status: JsonValue = h.rig.verb("status --json").out.parse().unwrap();
    assert_eq!(status["phase"].get::<String>().unwrap(), "stopping");
    assert!(h.rig.verb("status").out.contains(" stopping 1/1 ready "));
    assert_eq!(crate::client::get(v4(h.port), "/").unwrap().status, 200);
    h.rig.signal(Signal::SIGQUIT);
    h.rig.finish(1, &["hard-stop"]);
}

#[test]
fn what_cannot_be_asked_is_refused_before_anything_starts() {
    let (port, monitor) = (free_port(), free_port());
    for (option, code, why) in [
        (
            "--ecv-monitor https://127.0.0.1/".to_string(),
            64,
            "no TLS is spoken here",
        ),
        (
            "--ecv-monitor http://web/".into(),
            64,
            "names are not looked up",
        ),
        (
            format!("--monitor {monitor} --ecv-monitor http://localhost:{monitor}/ecv"),
            64,
            "asks the master itself",
        ),
        (
            "--ecv-validator ./missing".into(),
            78,
            "--ecv-validator: ./missing: not found",
        ),
        ("--ecv-rise 0".into(), 64, "1 to 1000"),
    ] {
        let rig = Rig::start(format!("-n 1 -p {port} {option} -- ./threaded"));
        rig.wait_line(why);
        rig.finish(code, &[]);
    }
    // What has no end is not read to its end, and bytes that are no HTTP are no answer.
    let d = Dependency::new();
    let words = format!(
        "-n 1 -p {port} --ecv-monitor http://{} --ecv-interval 100ms -- ./threaded --graceful",
        d.at
    );
    let mut rig = Rig::start(words);
    let (head, mut stream) = d.next();
    assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
    stream.write_all(b"SSH-2.0-OpenSSH\r\n").unwrap();
    let event = rig.wait("unhealthy", |_| true);
    assert!(
        event
            .text("reason")
            .contains("answered with what is no HTTP")
    );
    let (_, mut stream) = d.next();
    stream.write_all(b"HTTP/1.1 103 A\r\n").unwrap();
    while stream.write_all(&[b'a'; 1024]).is_ok() {}
    let mut rest = Vec::new();
    // Who would have us read for ever is hung up on.
    let _ = stream.read_to_end(&mut rest);
    assert_eq!(stands(&rig).0, "WARNING");
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["unhealthy"]);
}

#[test]
fn the_address_that_is_asked_may_be_one_that_drops_everything() {
    // A server that takes nobody, whose queue is full.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    listen(&server, Backlog::new(0).unwrap()).unwrap();
    let nobody = server.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&nobody, Duration::from_millis(100)) {
        queue.push(stream);
    }
    let port = free_port();
    let words = format!(
        "-n 1 -p {port} --ecv-monitor http://{nobody}/ --ecv-interval 1s -- ./threaded --graceful"
    );
    let mut rig = Rig::start(words);
    let event = rig.wait("unhealthy", |_| true);
    let why = format!("GET http://{nobody}/: no answer within 1s (--ecv-monitor)");
    assert_eq!(event.text("reason"), why);
    assert_eq!(crate::client::get(v4(port), "/").unwrap().status, 200);
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["unhealthy"]);
}
