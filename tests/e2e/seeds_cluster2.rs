//! What cluster2 tested of itself, told again of servers that know nothing of it; seeds.md has the list. Its own
//! programs do not start on a Node of today: parts of what they need were never built for one.

use crate::client::{get, v4};
use crate::house::PATIENCE;
use crate::load::{LOST_WITHIN, Load, Tally};
use crate::seeds::{Guest, list, pid_files};
use std::io::{Read, Write};
use std::net::TcpStream;
use tinyjson::JsonValue;

/// Its `start, check heartbeat and stop`: of each process there is its pid, how old it is, and how many
/// connections it has had. Nobody has to send it, and so nobody has to wait for it.
#[test]
fn cluster2_start_check_heartbeat_and_stop() {
    let g = Guest::of("cluster2", "--ecv-monitor off", "./threaded");
    for _ in 0..5 {
        assert_eq!(get(v4(g.port), "/").unwrap().status, 200);
    }
    let number = |w: &JsonValue, name: &str| *w[name].get::<f64>().unwrap();
    let looks = || {
        let said: JsonValue = g.types("workers details --json").out.parse().unwrap();
        list(&said)
    };
    let all_counted = || looks().iter().map(|w| number(w, "served")).sum::<f64>() == 5.0;
    g.rig.until("each connection is counted", all_counted);
    let beats = looks();
    let pids: Vec<i32> = beats.iter().map(|w| number(w, "pid") as i32).collect();
    assert_eq!(pids, g.rig.status().pids());
    for w in &beats {
        assert!(number(w, "age") > 0.0 && number(w, "rss") > 1e5, "{w:?}");
    }
    assert_eq!(g.types("stop").code, 0);
    assert_eq!(pid_files(&g), 0);
    g.rig.finish(0, &[]);
}

/// Its `start, send traffic, get responses, and then shutdown`.
#[test]
fn cluster2_start_send_traffic_get_responses_and_then_shutdown() {
    let g = Guest::of("cluster2", "", "node selecting.js");
    let port = g.port;
    let clients: Vec<_> = (0..10)
        .map(|_| std::thread::spawn(move || get(v4(port), "/")))
        .collect();
    for c in clients {
        let answer = c.join().unwrap().unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(g.rig.status().pids().contains(&answer.pid()));
    }
    assert_eq!(g.types("stop").code, 0);
    assert_eq!(pid_files(&g), 0);
    g.rig.finish(0, &[]);
}

/// One that stays: what it says is said back.
struct WebSocket(TcpStream);

impl WebSocket {
    fn open(port: u16) -> WebSocket {
        let mut to = TcpStream::connect(v4(port)).unwrap();
        to.set_read_timeout(PATIENCE).unwrap();
        let head = "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        to.write_all(head.as_bytes()).unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            to.read_exact(&mut byte).unwrap();
            said.push(byte[0]);
        }
        assert!(said.starts_with(b"HTTP/1.1 101 "));
        WebSocket(to)
    }

    /// A frame of text, masked with nothing.
    fn echoes(&mut self, text: &str) {
        let length = text.len() as u8;
        let frame = [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat();
        self.0.write_all(&frame).unwrap();
        let mut back = vec![0; text.len() + 2];
        self.0.read_exact(&mut back).unwrap();
        assert_eq!(back, [&[0x81, length], text.as_bytes()].concat());
    }

    /// As the protocol has it: said, and said back.
    fn close(mut self) {
        self.0.write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap();
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, [0x88, 0]);
    }
}

/// Its `wscluster`, of which nothing but a remark is left: ten that stay. Those of a worker that goes are served
/// by it for as long as they speak, and a restart waits for them.
#[test]
fn cluster2_websockets() {
    let mut g = Guest::of("cluster2", "--ecv-monitor off", "node selecting.js");
    let mut all: Vec<WebSocket> = (0..10).map(|_| WebSocket::open(g.port)).collect();
    all.iter_mut().for_each(|s| s.echoes("one"));
    let reload = g.rig.meanwhile("reload");
    g.rig.wait("reload-serving", |_| true);
    g.rig.wait_many("draining", 2);
    for round in 0..3 {
        all.iter_mut()
            .for_each(|s| s.echoes(&format!("round {round}")));
    }
    assert!(g.rig.events("died").is_empty() && g.rig.events("reload-finished").is_empty());
    all.into_iter().for_each(WebSocket::close);
    assert_eq!(reload.join().unwrap().code, 0);
    let ended = g.rig.events("drained");
    let counted = ended.iter().map(|e| e.number("cut")).sum::<f64>();
    assert_eq!((ended.len(), counted), (2, 0.0), "none was cut off");
    assert_eq!(g.types("stop").code, 0);
    g.rig.finish(0, &[]);
}

/// So many are under way at once, each for a second.
const MANY: u64 = 2000;

/// A cluster under so many requests of which none is answered soon, and what was counted before it ends.
fn with_many_under_way() -> (Guest, Load, Tally) {
    // Four, so that none of them has more connections than a process may have files.
    let g = Guest::of("cluster2", "-n 4 --ecv-monitor off", "node selecting.js");
    let words = format!("{} clients={MANY} path=/slow?ms=1000", g.port);
    let mut load = Load::start(&words);
    let asked = || g.rig.tales("request").len() as u64;
    g.rig.until("all have asked", || asked() >= MANY);
    let before = load.so_far();
    (g, load, before)
}

/// Its `start, graceful shutdown` (of ql.io): all who have asked are answered.
#[test]
fn cluster2_start_graceful_shutdown() {
    let (g, load, before) = with_many_under_way();
    assert_eq!(g.types("stop").code, 0);
    let (_, after) = load.finish();
    // Whoever comes later is refused, or was on its way in while the door was shut.
    for what in LOST_WITHIN {
        assert_eq!(after.of(what), 0, "{what}: {after:?}");
    }
    let late = after.of("fresh_ok") - before.of("fresh_ok");
    assert!(late > MANY / 2, "{before:?}, {after:?}");
    assert_eq!(g.rig.tales("request").len() as u64, after.of("fresh_ok"));
    assert_eq!(pid_files(&g), 0);
    g.rig.finish(0, &[]);
}

/// Its `abrupt stop`: it ends, whoever waits.
#[test]
fn cluster2_abrupt_stop() {
    let (g, load, _) = with_many_under_way();
    assert_eq!(g.types("kill").code, 0);
    assert_eq!(pid_files(&g), 0);
    let (well, after) = load.finish();
    assert!(!well && after.of("fresh") > MANY / 2, "{after:?}");
    g.rig.finish(1, &["hard-stop"]);
}
