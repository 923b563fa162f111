//! HTTP, on --monitor and on the control socket: probes, load balancers, verbs, streams of events.

use crate::client::{all_answer, v4};
use crate::harness::sigkill;
use crate::house::{House, KEY, PATIENCE, Reply, connect, exchange, house, house_of, request};
use crate::load::Load;
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use tinyjson::JsonValue;

#[test]
fn a_load_balancer_is_told_in_the_words_of_cluster2() {
    let h = house(2, "--ecv-control open");
    let port = h.port;
    let told = |word: &str, serves: bool| {
        let r = h.asks("GET /ecv");
        let begin = format!("status={word}&ServeTraffic={serves}&ip=127.0.0.1&hostname=");
        assert!(r.body.starts_with(&begin), "{r:?}");
        assert!(r.body.contains(&format!("&port={port}&time=")), "{r:?}");
        assert!(!r.body.ends_with('\n'));
        for (name, value) in [
            ("X-Powered-By", "minicluster"),
            ("Content-Type", "text/plain"),
            ("Cache-Control", "no-cache"),
            ("Connection", "close"),
        ] {
            assert_eq!(r.header(name), Some(value), "{r:?}");
        }
        assert!(r.header("since").unwrap().contains(" GMT"), "{r:?}");
        r.status
    };
    assert_eq!(told("AVAILABLE", true), 200);
    let r = h.asks("POST /ecv/disable");
    assert_eq!((r.status, r.body.as_str()), (204, ""), "{r:?}");
    assert_eq!(r.header("X-Powered-By"), Some("minicluster"));
    assert_eq!(told("DISABLED", false), 400);
    // Clients that come all the same are served.
    all_answer(&h.rig, v4(port), "/", 2);
    // What a worker is told counts for the next one, too.
    let mut h = h;
    let victim = h.rig.status().pids()[0];
    h.rig.replace(victim);
    let r = h.asks("GET /ecv");
    assert!(r.body.starts_with("status=DISABLED"), "{r:?}");
    let r = h.asks("HEAD /ecv");
    assert_eq!((r.status, r.body.as_str()), (400, ""), "{r:?}");
    assert_eq!(h.asks("POST /enable").status, 204);
    assert_eq!(h.asks("GET /ecv").status, 200);
    h.rig.end(&["died"]);
}

#[test]
fn where_it_is_and_what_it_says_of_a_disabled_one_can_be_chosen() {
    let h = house(1, "--ecv /health.html --ecv-down-status 503");
    assert_eq!(h.asks("GET /ecv").status, 404);
    assert_eq!(h.asks("GET /health.html").status, 200);
    assert_eq!(h.asks("POST /health.html/disable").status, 401);
    assert_eq!(h.opens("POST /health.html/disable", "").status, 204);
    assert_eq!(h.asks("GET /health.html").status, 503);
    assert_eq!(h.rig.verb("ecv").code, 1);
    assert_eq!(h.rig.verb("enable").code, 0);
    assert_eq!(h.asks("GET /health.html").status, 200);
    h.rig.end(&["request-refused"]);
}

#[test]
fn probes_turn_clients_away_before_a_stop_and_the_master_lives() {
    let mut h = house(2, "--drain-delay 1500ms");
    let ready = h.asks("GET /ready");
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));
    assert_eq!(h.asks("GET /live").body, "live\n");
    let json = h
        .raw("GET /ready", "Accept: application/json\r\n", "")
        .json();
    assert_eq!(json["ready"].get::<bool>(), Some(&true));
    h.rig.signal(Signal::SIGTERM);
    h.rig.wait("stop-delayed", |_| true);
    let r = h.asks("GET /ready");
    assert_eq!(
        (r.status, r.body.as_str()),
        (503, "not ready: the cluster stops\n")
    );
    let r = h.asks("GET /ecv");
    assert_eq!(r.status, 500);
    assert!(
        r.body.starts_with("status=WARNING&ServeTraffic=false"),
        "{r:?}"
    );
    assert_eq!(h.asks("GET /live").status, 200);
    // It serves those who have not turned away yet.
    assert_eq!(crate::client::get(v4(h.port), "/").unwrap().status, 200);
    h.rig.finish(0, &[]);
}

#[test]
fn verbs_are_asked_for_as_cluster_service_had_it() {
    let h = house(2, "--command pids=");
    let cli = |cmd: &str| h.opens(&format!("POST /cli?cmd={cmd}"), "");
    let r = cli("health");
    assert_eq!((r.status, r.body.as_str()), (200, "\"OK\""));
    assert_eq!(r.header("Content-Type"), Some("text/json; charset=UTF-8"));
    assert!(r.header("Content-Length").is_some());
    let r = cli("version");
    assert_eq!(r.body, format!("\"{}\"", env!("CARGO_PKG_VERSION")));
    assert_eq!(
        cli("workers").json()[1]["state"].get::<String>().unwrap(),
        "ready"
    );
    assert_eq!(
        cli("info").json()["workers"]["active"].get::<f64>(),
        Some(&2.0)
    );
    assert_eq!(cli("resize+3").body, "\"3 workers\"");
    assert_eq!(cli("debug+hello").body, "No data");
    // The body goes behind the line.
    let r = h.opens("POST /cli?cmd=restart+all", r#"{"timeout":30000}"#);
    assert!(r.body.starts_with("\"generation 2 serves"), "{r:?}");
    assert_eq!(h.opens("POST /cli", "resize 2\n").body, "\"2 workers\"");
    for (line, status, text) in [
        ("GET /cli?cmd=health", 405, "Method Not Allowed"),
        ("POST /clix", 404, "Page Not Found"),
        ("POST /cli?cmd=nonsense", 404, "Not found. Try /help"),
        (
            "POST /cli?cmd=console",
            401,
            "Not authorized to execute 'console' remotely",
        ),
        ("POST /cli?cmd=resize+0", 400, "1 to 1024"),
        ("POST /cli?cmd=debug+%22x", 400, "a quote is not closed"),
        ("POST /cli?cmd=why+99", 400, "is not a slot"),
        ("POST /cli?cmd=select+bogus+--json", 400, "is no field"),
        ("POST /cli?cmd=pids", 404, "Not found. Try /help"),
        ("GET /help", 200, "resize N|+K|-K"),
    ] {
        let r = h.opens(line, "");
        assert_eq!(r.status, status, "{line}: {r:?}");
        assert!(r.body.contains(text), "{line}: {r:?}");
    }
    // Path before method before key before verb.
    assert_eq!(h.asks("POST /clix").status, 404);
    assert_eq!(h.asks("GET /cli").status, 405);
    assert_eq!(h.asks("POST /cli?cmd=nonsense").status, 401);
    // An end is answered, too, when it has come.
    let r = h.opens("POST /cli?cmd=kill", "");
    assert_eq!((r.status, r.body.as_str()), (200, "\"stopped\""));
    h.rig.finish(1, &["request-refused", "hard-stop"]);
}

#[test]
fn messages_and_restarts_are_asked_for_as_proteus_cluster_had_it() {
    let h = house_of(2, "", "node channel.js proteus");
    let r = h.opens("POST /send", r#"{"cmd":"ping","msg":1}"#);
    assert_eq!((r.status, r.body.as_str()), (200, "OK"), "{r:?}");
    let r = h.opens("POST /sync_send", r#"{"cmd":"ping"}"#);
    assert_eq!(
        (r.status, r.body.as_str()),
        (200, r#"["pong 0","pong 1"]"#),
        "{r:?}"
    );
    assert_eq!(r.header("Content-Type"), Some("application/json"));
    let r = h.opens("POST /cli?cmd=sync-send", r#"{"cmd":"ping"}"#);
    assert_eq!(r.body, r#"["pong 0","pong 1"]"#);
    let r = h.opens("POST /sync_send", r#"{"cmd":"say","n":1,"timeout":50}"#);
    assert_eq!(
        (r.status, r.body.as_str()),
        (500, "worker timeout."),
        "{r:?}"
    );
    for bad in ["", "{", "not json"] {
        let r = h.opens("POST /send", bad);
        assert_eq!(
            (r.status, r.body.as_str()),
            (400, "request body parse failure.")
        );
    }
    // Who only looks whether it is there changes nothing.
    assert_eq!(h.opens("HEAD /restart", "").status, 405);
    let r = h.opens("GET /restart", "");
    assert_eq!((r.status, r.body.as_str()), (200, "OK"), "{r:?}");
    assert!(h.rig.verb("cluster").out.contains(" generation 2 "));
    h.rig.signal(Signal::SIGTERM);
    h.rig.finish(0, &[]);
}

#[test]
fn a_restart_that_is_taken_back_says_why() {
    let h = house(1, "--ready-timeout 200ms --env-file env");
    std::fs::write(h.rig.dir().join("env"), "NOT AN ASSIGNMENT\n").unwrap();
    let r = h.opens("POST /restart", "");
    assert_eq!(r.status, 500, "{r:?}");
    assert!(r.body.contains("env"), "{r:?}");
    h.rig.end(&["reload-failed"]);
}

/// A stream of events, and its lines.
fn stream(h: &House, headers: &str) -> BufReader<TcpStream> {
    let mut to = connect(h.monitor);
    let head = format!(
        "GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n{headers}\r\n"
    );
    to.write_all(head.as_bytes()).unwrap();
    BufReader::new(to)
}

/// Reads on to an event of that name: its number and its data.
fn next(from: &mut BufReader<TcpStream>, name: &str) -> (String, JsonValue) {
    let mut id = String::new();
    let mut hit = false;
    loop {
        let mut line = String::new();
        assert!(
            from.read_line(&mut line).unwrap() > 0,
            "it has ended before {name}"
        );
        if let Some(n) = line.strip_prefix("id: ") {
            id = n.trim().to_string();
        }
        if let Some(event) = line.strip_prefix("event: ") {
            hit = event.trim() == name;
        }
        if let (true, Some(data)) = (hit, line.strip_prefix("data: ")) {
            return (id, data.trim().parse().unwrap());
        }
    }
}

#[test]
fn events_are_streamed_and_one_who_comes_back_misses_none() {
    let mut h = house(1, "");
    let mut one = stream(&h, "");
    let (_, ready) = next(&mut one, "all-ready");
    assert_eq!(ready["ready"].get::<f64>(), Some(&1.0));
    let pid = h.rig.status().pids()[0];
    let new = h.rig.replace(pid);
    let (id, died) = next(&mut one, "died");
    assert_eq!(died["pid"].get::<f64>(), Some(&f64::from(pid)));
    assert_eq!(died["signal"].get::<String>().unwrap(), "SIGKILL");
    let (_, ready) = next(&mut one, "ready");
    assert_eq!(ready["pid"].get::<f64>(), Some(&f64::from(new)));
    drop(one);
    h.rig.verb("debug meanwhile");
    let mut back = stream(&h, &format!("Last-Event-ID: {id}\r\n"));
    let (after, _) = next(&mut back, "ready");
    let parts = |id: &str| {
        let (life, number) = id.split_once('-').unwrap();
        (life.to_string(), number.parse::<u64>().unwrap())
    };
    let ((life, after), (same, before)) = (parts(&after), parts(&id));
    assert!(life == same && after > before);
    let (_, said) = next(&mut back, "debug");
    assert_eq!(said["msg"].get::<String>().unwrap(), "meanwhile");
    // From one that is no more all is told that there is, and that there was more.
    let mut other = stream(&h, &format!("Last-Event-ID: 1-{before}\r\n"));
    let (_, missed) = next(&mut other, "missed");
    let text = missed["msg"].get::<String>().unwrap();
    assert!(text.contains("the master has begun anew"), "{text}");
    next(&mut other, "all-ready");
    drop(other);
    // One that cannot be does no harm.
    for number in ["18446744073709551615", "1-18446744073709551615"] {
        let mut far = stream(&h, &format!("Last-Event-ID: {number}\r\n"));
        next(&mut far, "all-ready");
    }
    h.rig.signal(Signal::SIGTERM);
    next(&mut back, "stopped");
    h.rig.finish(0, &["died", "unhealthy"]);
}

#[test]
fn a_stream_whose_reader_says_no_more_goes_on_until_it_has_gone() {
    let h = house(1, "");
    let mut one = stream(&h, "");
    one.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    next(&mut one, "all-ready");
    for n in 0..3 {
        h.rig.verb(format!("debug hello-{n}"));
        let (_, said) = next(&mut one, "debug");
        assert_eq!(said["msg"].get::<String>().unwrap(), &format!("hello-{n}"));
    }
    // One that is silent is asked by the kernel: its timer is that of keepalive, 02.
    let port = format!(":{:04X}", h.monitor.port());
    let its = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words[1].ends_with(&port) && words[3] != "0A" && words[5].starts_with("02:")
    };
    h.rig
        .until("that timer runs, when all is acknowledged", || {
            let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
            table.lines().filter(its).count() == 1
        });
    drop(one);
    // One that has gone and one that listens on look the same, until something is said to them: at once.
    for _ in 0..3 {
        let mut gone = stream(&h, "");
        next(&mut gone, "all-ready");
    }
    h.rig.end(&[]);
}

#[test]
fn a_connection_goes_on_and_requests_may_come_at_once() {
    let h = house(1, "");
    let mut to = connect(h.monitor);
    let one = "GET /live HTTP/1.1\r\nHost: x\r\n\r\n";
    let slow = format!(
        "POST /cli HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 6\r\n\r\nreload"
    );
    let last = "GET /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    to.write_all(format!("{one}{slow}{one}{last}").as_bytes())
        .unwrap();
    let mut all = String::new();
    to.read_to_string(&mut all).unwrap();
    let bodies: Vec<&str> = all.split("HTTP/1.1 200 OK").skip(1).collect();
    assert_eq!(bodies.len(), 4, "{all}");
    assert!(bodies[0].ends_with("live\n") && bodies[2].ends_with("live\n"));
    assert!(bodies[1].contains("generation 2 serves"), "in order: {all}");
    assert!(bodies[3].ends_with("ready\n"));
    // With Expect the body comes when it is asked for.
    let mut to = connect(h.monitor);
    let head = format!(
        "POST /cli HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    );
    to.write_all(head.as_bytes()).unwrap();
    let mut first = [0u8; 25];
    to.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(exchange(to, "size").body, "1");
    h.rig.end(&[]);
}

#[test]
fn what_is_no_request_is_told_so_and_hung_up_on() {
    let h = house(1, "");
    let long = "x".repeat(20_000);
    let key = format!("Authorization: Bearer {KEY}\r\nHost: localhost\r\n");
    for (text, status) in [
        ("nonsense\r\n\r\n".to_string(), 400),
        ("GET /live HTTP/1.1\r\n\r\n".into(), 400),
        (format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), 414),
        (
            format!("GET /live HTTP/1.1\r\nHost: x\r\nA: {long}\r\n\r\n"),
            431,
        ),
        (
            format!("POST /cli HTTP/1.1\r\n{key}Content-Length: 9999999\r\n\r\n"),
            413,
        ),
        (
            format!(
                "POST /cli HTTP/1.1\r\n{key}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
            ),
            400,
        ),
        ("GET /live HTTP/9.9\r\nHost: x\r\n\r\n".into(), 505),
        (
            "BREW /live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
            405,
        ),
    ] {
        let mut to = connect(h.monitor);
        let _ = to.write_all(text.as_bytes());
        let mut bytes = Vec::new();
        to.read_to_end(&mut bytes).unwrap();
        let r = Reply::of(&String::from_utf8_lossy(&bytes));
        assert_eq!(r.status, status, "{}: {r:?}", &text[..40.min(text.len())]);
    }
    // One that sends its megabytes all the same still hears why not.
    let mut to = connect(h.monitor);
    let head = format!("POST /cli HTTP/1.1\r\n{key}Content-Length: 3000000\r\n\r\n");
    to.write_all(head.as_bytes()).unwrap();
    let _ = to.write_all(&vec![b'x'; 3_000_000]);
    let _ = to.shutdown(std::net::Shutdown::Write);
    let mut bytes = Vec::new();
    to.read_to_end(&mut bytes).unwrap();
    assert_eq!(Reply::of(&String::from_utf8_lossy(&bytes)).status, 413);
    assert_eq!(h.asks("GET /live").status, 200);
    h.rig.end(&[]);
}

#[test]
fn those_who_dribble_their_requests_keep_nobody_out() {
    let h = house(2, "");
    let rss = |h: &House| crate::proc::kib(h.rig.pid(), "VmRSS");
    let before = rss(&h);
    let load = Load::going(&h.port.to_string());
    let mut crowd = Vec::new();
    for n in 0..300 {
        let mut to = connect(h.monitor);
        let _ = to.write_all(format!("GET /live HTTP/1.1\r\nX-{n}: ").as_bytes());
        crowd.push(to);
    }
    // Others are served meanwhile: over TCP, on the control socket, and by the workers.
    assert_eq!(h.asks("GET /live").status, 200);
    assert_eq!(h.inside("GET /ready", "").status, 200);
    assert_eq!(h.rig.verb("reload").code, 0);
    for to in &mut crowd {
        let _ = to.write_all(b"x");
    }
    assert_eq!(h.rig.verb("size").out, "2\n");
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    drop(crowd);
    h.rig
        .until("what they took is given back", || rss(&h) < before + 4096);
    h.rig.end(&[]);
}

#[test]
fn a_request_that_is_not_whole_in_time_is_told_so() {
    let h = house(1, "");
    let mut to = connect(h.monitor);
    to.write_all(b"GET /live HTTP/1.1\r\nHost: ").unwrap();
    let mut bytes = Vec::new();
    to.read_to_end(&mut bytes).unwrap();
    assert_eq!(Reply::of(&String::from_utf8_lossy(&bytes)).status, 408);
    h.rig.end(&[]);
}

#[test]
fn the_control_socket_speaks_http_without_a_key() {
    let h = house(1, "");
    assert_eq!(
        h.inside("GET /status", "").json()["ready"].get::<f64>(),
        Some(&1.0)
    );
    assert_eq!(h.inside("POST /cli?cmd=resize+2", "").body, "\"2 workers\"");
    assert_eq!(h.inside("POST /disable", "").status, 204);
    assert_eq!(h.asks("GET /ecv").status, 400);
    assert_eq!(h.inside("POST /cli?cmd=enable", "").status, 200);
    // A line of words is no request.
    let mut words = UnixStream::connect(h.rig.socket()).unwrap();
    words.set_read_timeout(PATIENCE).unwrap();
    words.write_all(b"GET\nsize\n.exit\n").unwrap();
    let mut said = String::new();
    words.read_to_string(&mut said).unwrap();
    assert!(
        said.starts_with("unknown verb GET") && said.ends_with("\n2\n"),
        "{said}"
    );
    assert_eq!(h.rig.verb("resize 1").code, 0);
    h.rig.end(&[]);
}

#[test]
fn a_worker_that_dies_while_many_ask_is_replaced_like_any_other() {
    let mut h = house(2, "");
    let at = h.monitor;
    let crowd: Vec<_> = (0..8)
        .map(|_| {
            std::thread::spawn(move || {
                for _ in 0..50 {
                    let r = exchange(connect(at), &request("GET /ready", "", ""));
                    assert!(matches!(r.status, 200 | 503), "{r:?}");
                }
            })
        })
        .collect();
    for _ in 0..3 {
        let pid = h.rig.wait_status("both are ready", |s| s.ready == 2).pids()[0];
        sigkill(pid);
        h.rig.wait("died", |e| e.pid() == pid);
    }
    for one in crowd {
        one.join().unwrap();
    }
    h.rig.wait_status("all are there again", |s| s.ready == 2);
    h.rig.end(&["died"]);
}
