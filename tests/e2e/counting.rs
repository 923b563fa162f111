//! "What the master knows of connections the kernel tells it": how many each worker has, for how long they
//! are silent, who waits, and with --count-connections how many have ended and their bytes.

use crate::client::{get, v4};
use crate::harness::Rig;
use crate::hung::stop;
use crate::place::free_port;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::TcpStream;
use tinyjson::JsonValue;

fn json(rig: &Rig, verb: &str) -> JsonValue {
    let said = rig.verb(format!("{verb} --json"));
    assert_eq!(said.code, 0, "{said:?}");
    said.out.parse().unwrap()
}

fn number(value: &JsonValue) -> Option<f64> {
    value.get::<f64>().copied()
}

/// That field of each worker.
fn field(rig: &Rig, name: &str) -> Vec<Option<f64>> {
    let [all] = fields(rig, [name]);
    all
}

/// Several, at one moment.
fn fields<const N: usize>(rig: &Rig, names: [&str; N]) -> [Vec<Option<f64>>; N] {
    let all = json(rig, "connections");
    let workers = all["workers"].get::<Vec<JsonValue>>().unwrap();
    names.map(|name| workers.iter().map(|w| number(&w[name])).collect())
}

fn most(all: Vec<Option<f64>>) -> f64 {
    all.into_iter().flatten().fold(0.0, f64::max)
}

fn sum(rig: &Rig, name: &str) -> f64 {
    field(rig, name).into_iter().flatten().sum()
}

fn counted(rig: &Rig) -> Option<f64> {
    number(&json(rig, "info")["net"]["connections"])
}

#[test]
fn what_has_ended_is_counted_with_its_bytes_for_the_worker_that_had_it() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} --balance hash --count-connections -- ./threaded"
    ));
    rig.up();
    assert_eq!(field(&rig, "served"), [Some(0.0), Some(0.0)]);
    let mut of: Vec<i32> = Vec::new();
    let (mut asked, mut answered) = (0, 0);
    for _ in 0..30 {
        let mut stream = TcpStream::connect(v4(port)).unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        (asked, answered) = (asked + request.len(), answered + text.len());
        let pid = text.split("PID ").nth(1).unwrap();
        of.push(pid.split_whitespace().next().unwrap().parse().unwrap());
    }
    rig.until("all are counted", || sum(&rig, "served") == 30.0);
    let its = |pid: &i32| Some(of.iter().filter(|p| *p == pid).count() as f64);
    let want: Vec<_> = rig.status().pids().iter().map(its).collect();
    assert_eq!(field(&rig, "served"), want);
    // The end of either side may be a byte, too.
    for (name, least) in [("received", asked), ("sent", answered)] {
        let all = sum(&rig, name);
        let least = least as f64;
        assert!(
            (least..=least + 30.0).contains(&all),
            "{name}: {all} of {least}"
        );
    }
    let text = rig.verb("connections").out;
    let head: Vec<&str> = text.lines().next().unwrap().split_whitespace().collect();
    let want = ["SLOT", "PID", "OPEN", "QUEUE", "SERVED", "RECEIVED", "SENT"];
    assert_eq!(head, want);
    // The numbers of a worker begin with it; those of the cluster go on.
    assert_eq!(rig.verb("reload").code, 0);
    assert_eq!(field(&rig, "served"), [Some(0.0), Some(0.0)]);
    get(v4(port), "/").unwrap();
    rig.until("all are counted", || counted(&rig) == Some(31.0));
    assert_eq!(sum(&rig, "served"), 1.0);
    rig.end(&[]);
}

#[test]
fn of_a_queue_that_is_shared_the_cluster_is_told_and_of_one_worker_it_is_that_one() {
    for (n, want) in [(2, None), (1, Some(5.0))] {
        let port = free_port();
        let words = format!("-n {n} -p {port} --count-connections -- ./threaded");
        let mut rig = Rig::start(words);
        rig.up();
        for _ in 0..5 {
            get(v4(port), "/").unwrap();
        }
        rig.until("all are counted", || counted(&rig) == Some(5.0));
        let served = field(&rig, "served");
        assert_eq!(served.first().copied().flatten(), want);
        rig.end(&[]);
    }
}

#[test]
fn those_that_are_open_are_told_with_how_long_they_are_silent_and_who_waits() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} --balance hash -- ./threaded"));
    rig.up();
    let kept: Vec<TcpStream> = (0..8)
        .map(|_| TcpStream::connect(v4(port)).unwrap())
        .collect();
    rig.until("all are accepted", || sum(&rig, "open") == 8.0);
    rig.until("they are silent", || most(field(&rig, "silent")) > 0.1);
    for mut stream in &kept {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            .unwrap();
        assert!(stream.read(&mut [0; 64]).unwrap() > 0);
    }
    // One that has spoken is as old as before.
    let [age, since] = fields(&rig, ["oldest", "silent"]).map(most);
    assert!(age > 0.1, "{age}");
    assert!(since + 0.05 < age, "{since} {age}");
    assert_eq!(field(&rig, "served"), [None, None]);
    // One does not accept: those that come to it wait, and are told to.
    let stopped = rig.status().pids()[0];
    stop(&rig, stopped);
    let more: Vec<TcpStream> = (0..16)
        .map(|_| TcpStream::connect(v4(port)).unwrap())
        .collect();
    rig.until("some wait", || {
        let queue = field(&rig, "queue");
        let waiting = number(&json(&rig, "connections")["waiting"]);
        queue[0] > Some(0.0) && queue[1] == Some(0.0) && waiting == queue[0]
    });
    let queue = number(&json(&rig, "status")["slots"][0]["queue"]);
    assert_eq!(queue, field(&rig, "queue")[0]);
    kill(Pid::from_raw(stopped), Signal::SIGCONT).unwrap();
    rig.until("nobody waits", || sum(&rig, "queue") == 0.0);
    drop((kept, more));
    rig.until("all have gone", || sum(&rig, "open") == 0.0);
    rig.end(&[]);
}

#[test]
fn a_reload_begins_to_count_and_ends_it() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --config conf -- ./threaded");
    let mut rig = Rig::dressed(words, |_, dir| {
        std::fs::write(dir.join("conf"), "").unwrap();
    });
    rig.up();
    assert_eq!(counted(&rig), None);
    let says = |text: &str| {
        std::fs::write(rig.dir().join("conf"), text).unwrap();
        assert_eq!(rig.verb("reload").code, 0);
    };
    says("count-connections");
    assert_eq!(counted(&rig), Some(0.0));
    get(v4(port), "/").unwrap();
    rig.until("it is counted", || counted(&rig) == Some(1.0));
    says("");
    assert_eq!(counted(&rig), None);
    // Who asks again goes on with what was counted.
    says("count-connections");
    assert_eq!(counted(&rig), Some(1.0));
    rig.end(&[]);
}
