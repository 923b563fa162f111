//! /metrics, read by Prometheus's own parser: "what is counted goes on over respawns, reloads and resizes",
//! "nothing is counted by pid", "what cannot be seen is left out".

use crate::birth;
use crate::client::{get, v4};
use crate::harness::{Rig, sigkill};
use crate::house::{House, PATIENCE, Reply, connect, exchange, house, house_of, request};
use crate::place::free_port;
use crate::proc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use tinyjson::JsonValue;

/// Reads a page as Prometheus's client for Python does, and shows what it has understood. (Of Debian, which
/// another python3 in the path knows nothing of.)
const PARSE: &str = "
import json, sys
from prometheus_client.parser import text_string_to_metric_families as parse
for family in parse(sys.stdin.read()):
    assert family.documentation and family.type != 'unknown', family
    for s in family.samples:
        labels = ','.join(f'{k}={v}' for k, v in sorted(s.labels.items()))
        print(json.dumps([family.type, f'{s.name}{{{labels}}}', s.value]))
";

/// One page.
#[derive(Debug)]
struct Page {
    /// By name and labels: `name{slot=0}`.
    values: BTreeMap<String, f64>,
    counters: BTreeSet<String>,
}

impl Page {
    fn of(reply: &Reply) -> Page {
        assert_eq!(reply.status, 200, "{reply:?}");
        let kind = "text/plain; version=0.0.4; charset=utf-8";
        assert_eq!(reply.header("Content-Type"), Some(kind), "{reply:?}");
        let mut parser = Command::new("/usr/bin/python3")
            .args(["-c", PARSE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut page = parser.stdin.take().unwrap();
        page.write_all(reply.body.as_bytes()).unwrap();
        drop(page);
        let said = parser.wait_with_output().unwrap();
        assert!(said.status.success(), "{}", reply.body);
        let (mut values, mut counters) = (BTreeMap::new(), BTreeSet::new());
        for line in String::from_utf8(said.stdout).unwrap().lines() {
            let sample: JsonValue = line.parse().unwrap();
            let name = sample[1].get::<String>().unwrap().clone();
            if sample[0].get::<String>().unwrap() == "counter" {
                counters.insert(name.clone());
            }
            let value = *sample[2].get::<f64>().unwrap();
            assert_eq!(values.insert(name.clone(), value), None, "{name} twice");
        }
        Page { values, counters }
    }

    fn get(&self, name: &str) -> f64 {
        let value = self.values.get(name);
        *value.unwrap_or_else(|| panic!("no {name} in {self:#?}"))
    }

    fn has(&self, family: &str) -> bool {
        let head = format!("{family}{{");
        self.values.keys().any(|name| name.starts_with(&head))
    }

    /// All that is counted there is counted here, and is not less.
    fn goes_on_from(&self, before: &Page) {
        for name in &before.counters {
            let (was, is) = (before.get(name), self.get(name));
            assert!(is >= was, "{name}: {is} after {was}");
        }
    }

    /// Of all slots together.
    fn sum(&self, family: &str, label: &str) -> f64 {
        let head = format!("{family}{{{label}");
        let all = self.values.iter().filter(|(n, _)| n.starts_with(&head));
        all.map(|(_, value)| value).sum()
    }
}

fn page(h: &House) -> Page {
    Page::of(&h.asks("GET /metrics"))
}

#[test]
fn counts_go_on_over_deaths_reloads_and_resizes_and_are_by_slot() {
    let mut h = house(3, "--env-file env");
    let first = page(&h);
    for (name, value) in [
        ("minicluster_workers{state=ready}", 3.0),
        ("minicluster_workers{state=given-up}", 0.0),
        ("minicluster_workers_wanted{}", 3.0),
        ("minicluster_in_rotation{}", 1.0),
        ("minicluster_generation{}", 1.0),
        ("minicluster_reloads_total{result=failed}", 0.0),
        ("minicluster_worker_ready{slot=2}", 1.0),
        (
            "minicluster_worker_deaths_total{reason=failure,slot=2}",
            0.0,
        ),
        ("minicluster_events_total{event=all-ready}", 1.0),
        ("minicluster_clients{door=monitor}", 1.0),
    ] {
        assert_eq!(first.get(name), value, "{name}");
    }
    let version = env!("CARGO_PKG_VERSION");
    first.get(&format!("minicluster_build_info{{version={version}}}"));
    assert!(first.get("minicluster_worker_resident_memory_bytes{slot=0}") > 100_000.0);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let began = first.get("process_start_time_seconds{}");
    let worker = first.get("minicluster_worker_start_time_seconds{slot=0}");
    assert!(began <= worker && worker <= now.as_secs_f64() + 1.0);

    let mut pids: BTreeSet<i32> = h.rig.status().pids().into_iter().collect();
    let victim = h.rig.status().rows[2].pid.unwrap();
    pids.insert(h.rig.replace(victim));
    let died = page(&h);
    died.goes_on_from(&first);
    let deaths = "minicluster_worker_deaths_total{reason=failure,slot=2}";
    assert_eq!(died.get(deaths), 1.0);
    let restarts = "minicluster_worker_restarts_total{reason=failure,slot=2}";
    assert_eq!(died.get(restarts), 1.0);
    assert_eq!(
        died.get("minicluster_worker_exits_total{status=SIGKILL}"),
        1.0
    );
    // It was never looked at before its end, and its time is known all the same.
    assert!(died.get("minicluster_worker_cpu_seconds_total{slot=2}") > 0.0);

    assert_eq!(h.rig.verb("reload").code, 0);
    pids.extend(h.rig.status().pids());
    let reloaded = page(&h);
    reloaded.goes_on_from(&died);
    assert_eq!(reloaded.get("minicluster_generation{}"), 2.0);
    let finished = "minicluster_reloads_total{result=finished}";
    assert_eq!(reloaded.get(finished), 1.0);
    let restarted = |p: &Page| p.sum("minicluster_worker_restarts_total", "reason=restart");
    assert_eq!(restarted(&reloaded), 3.0);
    assert_eq!(reloaded.get(deaths), 1.0);

    assert_eq!(h.rig.verb("resize 1").code, 0);
    let fewer = page(&h);
    fewer.goes_on_from(&reloaded);
    assert!(
        !fewer
            .values
            .contains_key("minicluster_worker_ready{slot=2}")
    );
    let resized = "minicluster_worker_deaths_total{reason=resize,slot=2}";
    assert_eq!(fewer.get(resized), 1.0);
    assert_eq!(h.rig.verb("resize 3").code, 0);
    pids.extend(h.rig.status().pids());
    let again = page(&h);
    again.goes_on_from(&fewer);
    assert_eq!(again.get("minicluster_worker_ready{slot=2}"), 1.0);
    assert_eq!((again.get(deaths), again.get(resized)), (1.0, 1.0));

    // One that cannot begin is not what was wanted, until one has come to its end.
    std::fs::write(h.rig.dir().join("env"), "NOT AN ASSIGNMENT\n").unwrap();
    assert_eq!(h.rig.verb("reload").code, 1);
    let refused = page(&h);
    let success = "minicluster_last_reload_successful{}";
    assert_eq!(refused.get(success), 0.0);
    assert_eq!(
        refused.get("minicluster_reloads_total{result=refused}"),
        1.0
    );
    std::fs::write(h.rig.dir().join("env"), "A=2\n").unwrap();
    assert_eq!(h.rig.verb("reload").code, 0);
    pids.extend(h.rig.status().pids());
    let last = page(&h);
    last.goes_on_from(&refused);
    assert_eq!(last.get(success), 1.0);
    // Everything is called by what outlives a worker.
    for name in last.values.keys() {
        let named = pids.iter().find(|pid| name.contains(&format!("={pid}")));
        assert_eq!(named, None, "{name}");
    }
    h.rig.end(&["died", "reload-failed"]);
}

/// So many that nobody accepts until the worker goes on.
fn crowd(port: u16, n: usize) -> Vec<TcpStream> {
    (0..n).map(|_| connect(v4(port))).collect()
}

#[test]
fn queues_and_connections_are_those_of_their_slots_and_a_shared_queue_is_nobodys() {
    for balance in ["shared", "hash"] {
        let options = format!("--balance {balance} --backlog 64 -l unix:web.sock");
        let h = house_of(2, &options, "./threaded --unix web.sock");
        let held = crowd(h.port, 6);
        h.rig.until("all are accepted", || {
            page(&h).sum("minicluster_connections", "slot=") == 6.0
        });
        let stop = |signal| {
            for pid in h.rig.status().pids() {
                kill(Pid::from_raw(pid), signal).unwrap();
            }
        };
        stop(Signal::SIGSTOP);
        for pid in h.rig.status().pids() {
            h.rig.until("a worker is stopped", || proc::stopped(pid));
        }
        let waiting = crowd(h.port, 5);
        let port = format!("port=0.0.0.0:{}", h.port);
        h.rig.until("all of these wait", || {
            // (A thread that is in accept(2) takes one as it is stopped.)
            let page = page(&h);
            let open = page.sum("minicluster_connections", "slot=");
            page.sum("minicluster_accept_queue", &port) + open >= 11.0
                && page.sum("minicluster_accept_queue", &port) > 0.0
        });
        let page = page(&h);
        let limit = |slot: &str| {
            page.values.get(&format!(
                "minicluster_accept_queue_limit{{{port},slot={slot}}}"
            ))
        };
        let shared = balance == "shared";
        assert_eq!(limit("").is_some(), shared);
        assert_eq!(limit("0").is_some() && limit("1").is_some(), !shared);
        assert!(page.values.iter().any(|(name, limit)| {
            name.starts_with("minicluster_accept_queue_limit{port=unix:")
                && name.ends_with("web.sock,slot=}")
                && *limit == 64.0
        }));
        stop(Signal::SIGCONT);
        drop((held, waiting));
        h.rig.end(&[]);
    }
}

#[test]
fn anybody_may_ask_whatever_they_call_us_and_who_asks_again_gets_the_same_readings() {
    // So many that they are not all looked at in one turn.
    let h = house(48, "");
    let foreign = "Host: prometheus.example:9090\r\nAccept: application/openmetrics-text; version=1.0.0, */*;q=0.1\r\n";
    let over_tcp = Page::of(&h.raw("GET /metrics", foreign, ""));
    assert_eq!(over_tcp.sum("minicluster_worker_processes", "slot="), 48.0);
    // Who goes while they are looked at is missed by nobody.
    for _ in 0..20 {
        let mut gone = connect(h.monitor);
        let asks = request("GET /metrics", "", "");
        gone.write_all(asks.as_bytes()).unwrap();
    }
    let inside = || {
        let socket = UnixStream::connect(h.rig.socket()).unwrap();
        socket.set_read_timeout(PATIENCE).unwrap();
        Page::of(&exchange(socket, &request("GET /metrics", "", "")))
    };
    // (The page that those were to have may be told to the next one, too.)
    h.rig.until("who asks inside is in the page", || {
        inside().get("minicluster_clients{door=control}") == 1.0
    });
    inside().goes_on_from(&over_tcp);
    let head = h.asks("HEAD /metrics");
    assert_eq!((head.status, head.body.as_str()), (200, ""), "{head:?}");
    assert!(head.header("Content-Length").is_some());
    assert_eq!(h.asks("POST /metrics").status, 405);
    // What it took in microseconds is not the same twice, unless it was not read twice.
    let one = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = request("GET /metrics", "", "");
    h.rig.until("two have the same readings", || {
        let all = exchange(connect(h.monitor), &format!("{one}{last}"));
        let lines = all.body.lines();
        let took = lines.filter(|l| l.starts_with("minicluster_reading_seconds "));
        let took: Vec<&str> = took.collect();
        assert_eq!(took.len(), 2, "{all:?}");
        took[0] == took[1]
    });
    h.rig.end(&[]);
}

#[test]
fn what_cannot_be_seen_is_left_out() {
    let (port, monitor) = (free_port(), free_port());
    let how = birth::namespaces("-pf");
    let start = ["unshare", &how, "--kill-child"];
    let words = format!("-n 2 -p {port} --monitor {monitor} -- ./threaded");
    let mut rig = Rig::by(start, words);
    rig.wait("all-ready", |_| true);
    let page = || {
        let reply = exchange(connect(v4(monitor)), &request("GET /metrics", "", ""));
        Page::of(&reply)
    };
    let now = page();
    assert_eq!(now.get("minicluster_workers_ready{}"), 2.0);
    assert_eq!(now.sum("minicluster_worker_ready", "slot="), 2.0);
    assert!(now.has("minicluster_accept_queue") && now.get("process_cpu_seconds_total{}") > 0.0);
    for family in [
        "minicluster_worker_resident_memory_bytes",
        "minicluster_worker_threads",
        "minicluster_connections",
        "process_open_fds",
    ] {
        assert!(!now.has(family), "{family}");
    }
    // What it has used is told by its end.
    let master = proc::children(rig.pid())[0];
    sigkill(proc::children(master)[0]);
    rig.wait("died", |_| true);
    rig.until("both are ready again", || {
        page().get("minicluster_workers_ready{}") == 2.0
    });
    assert!(page().sum("minicluster_worker_cpu_seconds_total", "slot=") > 0.0);
    kill(Pid::from_raw(master), Signal::SIGTERM).unwrap();
    rig.wait("stopped", |_| true);
    rig.finish(0, &["no-proc", "died"]);
}

/// Of Prometheus itself, where it was fetched to.
const PROMTOOL: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/target/prometheus/usr/bin/promtool"
);

#[test]
#[ignore = "needs promtool: make test-servers"]
fn heavy_prometheus_has_nothing_to_say_against_the_page_and_the_alerts() {
    assert!(Path::new(PROMTOOL).exists(), "make test-servers fetches it");
    let h = house(2, "--balance hash");
    let check = |words: &[&str], text: &str| {
        let mut tool = Command::new(PROMTOOL)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut page = tool.stdin.take().unwrap();
        page.write_all(text.as_bytes()).unwrap();
        drop(page);
        let said = tool.wait_with_output().unwrap();
        assert!(said.status.success(), "{words:?}: {said:?}");
        String::from_utf8(said.stderr).unwrap()
    };
    let reply = h.asks("GET /metrics");
    assert_eq!(check(&["check", "metrics"], &reply.body), "");
    let contrib = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib");
    check(
        &["check", "config", &format!("{contrib}/prometheus.yml")],
        "",
    );
    check(&["check", "rules", &format!("{contrib}/alerts.yml")], "");
    h.rig.end(&[]);
}

#[test]
fn connections_that_have_ended_are_counted_by_slot_and_go_on_over_a_reload() {
    let h = house(2, "--balance hash --count-connections --idle-timeout 1s");
    let ended = "minicluster_connections_ended_total";
    let before = page(&h);
    assert_eq!(before.get(&format!("{ended}{{slot=1}}")), 0.0);
    for _ in 0..12 {
        get(v4(h.port), "/").unwrap();
    }
    let slots = |p: &Page| p.sum(ended, "slot=0") + p.sum(ended, "slot=1");
    h.rig.until("all are counted", || slots(&page(&h)) == 12.0);
    let counted = page(&h);
    assert!(counted.sum("minicluster_connection_sent_bytes_total", "slot") > 12.0 * 64.0);
    assert_eq!(counted.get("minicluster_connections_unheard_total{}"), 0.0);
    assert_eq!(h.rig.verb("reload").code, 0);
    get(v4(h.port), "/").unwrap();
    // One that says nothing is ended, and then it has ended.
    let _silent = TcpStream::connect(v4(h.port)).unwrap();
    let timeouts = "minicluster_connection_timeouts_total";
    h.rig.until("all are counted", || {
        let now = page(&h);
        now.goes_on_from(&counted);
        (slots(&now), now.sum(timeouts, "slot")) == (14.0, 1.0)
    });
    h.rig.end(&[]);
}
