//! What becomes of connections when their worker has to go: those that are idle, those on which an
//! answer is under way, those that never end; and of the cluster's last ones when it stops.

use crate::client::{get, v4};
use crate::environments::refuse;
use crate::harness::Rig;
use crate::load::{LOST_WITHIN, Load};
use crate::place::free_port;
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A client that keeps its connection.
struct Kept {
    reader: BufReader<TcpStream>,
}

impl Kept {
    fn new(port: u16) -> Kept {
        let stream = TcpStream::connect(v4(port)).unwrap();
        let patience = Duration::from_secs(20);
        stream.set_read_timeout(Some(patience)).unwrap();
        let reader = BufReader::new(stream);
        Kept { reader }
    }

    fn ask(&mut self, path: &str) {
        let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.reader.get_mut().write_all(text.as_bytes()).unwrap();
    }

    /// The next line of the answer, without its end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    }

    /// Reads up to a line that begins so.
    fn line_with(&mut self, head: &str) -> String {
        loop {
            let line = self.line();
            if line.starts_with(head) {
                return line;
            }
        }
    }

    /// An answer; who has given it?
    fn answer(&mut self) -> i32 {
        assert_eq!(self.line(), "HTTP/1.1 200 OK");
        let body = self.line_with("PID ");
        body.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// What is left until the end of file; anything but a clean end is none.
    fn rest(&mut self) -> String {
        let mut text = String::new();
        self.reader.read_to_string(&mut text).unwrap();
        text
    }
}

/// Two workers of the plain node server, which knows no graceful stop.
fn node(options: &str) -> (Rig, u16) {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} {options} -- node selecting.js"));
    rig.up();
    (rig, port)
}

#[test]
fn an_idle_connection_is_ended_cleanly_when_it_was_quiet_for_so_long() {
    for server in ["./threaded", "node selecting.js"] {
        let port = free_port();
        let options = "--drain-timeout 8s --drain-quiet 1s";
        let mut rig = Rig::start(format!("-n 2 -p {port} {options} -- {server}"));
        rig.up();
        let mut kept = Kept::new(port);
        kept.ask("/");
        let old = kept.answer();
        let asked = Instant::now();
        let reload = rig.meanwhile("reload");
        assert_eq!(kept.rest(), "");
        let after = asked.elapsed();
        assert!(after >= Duration::from_millis(900), "{after:?}");
        assert!(after < Duration::from_secs(7), "{after:?}");
        assert_eq!(reload.join().unwrap().code, 0);
        let drained = rig.wait("drained", |e| e.pid() == old);
        assert_eq!(
            (drained.number("closed"), drained.number("cut")),
            (1.0, 0.0)
        );
        rig.end(&[]);
    }
}

#[test]
fn a_slow_answer_is_waited_for_and_the_connection_ended_behind_it() {
    let (mut rig, port) = node("--drain-timeout 8s --drain-quiet 500ms");
    let mut kept = Kept::new(port);
    kept.ask("/slow?ms=1500");
    let (old, _) = rig.told("request");
    let reload = rig.meanwhile("reload");
    assert_eq!(kept.answer(), old);
    // New ones have long been served by others.
    assert_ne!(get(v4(port), "/").unwrap().pid(), old);
    assert_eq!(kept.rest(), "");
    assert_eq!(reload.join().unwrap().code, 0);
    let drained = rig.wait("drained", |e| e.pid() == old);
    assert!(drained.number("after") > 1.0, "{drained:?}");
    assert_eq!(drained.number("cut"), 0.0);
    rig.end(&[]);
}

#[test]
fn an_answer_that_pauses_for_less_than_the_quiet_time_is_whole() {
    let (rig, port) = node("--drain-timeout 10s --drain-quiet 2s");
    let mut kept = Kept::new(port);
    kept.ask("/stream?n=5&ms=400");
    rig.told("request");
    assert_eq!(rig.verb("reload").code, 0);
    let text = kept.rest();
    assert!(
        text.contains("line 1\n") && text.contains("end\n"),
        "{text}"
    );
    assert!(text.ends_with("0\r\n\r\n"), "{text}");
    rig.end(&[]);
}

#[test]
fn a_stream_without_end_is_ended_at_the_drain_timeout() {
    let (mut rig, port) = node("--drain-timeout 2s --drain-quiet 1s");
    let mut kept = Kept::new(port);
    kept.ask("/sse?ms=100");
    kept.line_with("id: 3");
    let (old, _) = rig.told("request");
    let reload = rig.meanwhile("reload");
    let said = reload.join().unwrap();
    assert_eq!(said.code, 0, "{said:?}");
    let drained = rig.wait("drained", |e| e.pid() == old);
    assert!(drained.number("after") >= 2.0, "{drained:?}");
    // Between two of its events, or by the stop signal: it says which.
    assert_eq!(drained.number("ended") + drained.number("cut"), 1.0);
    let told = drained.level == "warn";
    assert_eq!(told, drained.number("cut") == 1.0);
    let mut rest = Vec::new();
    let _ = kept.reader.read_to_end(&mut rest);
    rig.end(&["drained"]);
}

#[test]
fn clients_that_ask_without_a_pause_are_moved_all_the_same() {
    let port = free_port();
    let options = "--drain-timeout 2s --drain-quiet 1s";
    let mut rig = Rig::start(format!("-n 2 -p {port} {options} -- ./threaded"));
    rig.up();
    let loads = ["pause=0 clients=2", "pause=15 clients=6"];
    let loads = loads.map(|words| Load::going(&format!("{port} mode=keepalive {words}")));
    let said = rig.verb("reload");
    assert_eq!(said.code, 0, "{said:?}");
    for load in loads {
        let (well, tally) = load.finish();
        assert!(well, "{tally:?}");
    }
    let drained = rig.wait_many("drained", 2);
    let sum = |what: &str| drained.iter().map(|e| e.number(what)).sum::<f64>();
    // One that is never silent may be unlucky at each look.
    assert!(sum("ended") >= 6.0, "{drained:?}");
    rig.end(&["drained"]);
}

#[test]
fn an_answer_in_parts_is_whole_when_the_time_to_drain_is_over_and_its_client_never_rests() {
    let (rig, port) = node("--drain-timeout 3s");
    let words = "mode=keepalive pause=0 clients=8 path=/stream?n=5&ms=60";
    let load = Load::going(&format!("{port} {words}"));
    for _ in 0..2 {
        let said = rig.verb("reload");
        assert_eq!(said.code, 0, "{said:?}");
    }
    // The next request of each may find no server any more, and gets no part of an answer.
    let (_, tally) = load.finish();
    assert_eq!(tally.of("half"), 0, "{tally:?}");
    assert_eq!(tally.of("fresh"), 0, "{tally:?}");
    let asked_once_more = tally.of("reused") + tally.of("polite");
    assert_eq!(asked_once_more, 16, "{tally:?}");
    rig.end(&["drained"]);
}

#[test]
fn a_server_that_drains_by_itself_is_asked_as_soon_as_nothing_new_comes() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --drain server -- ./threaded --polite 8000");
    let mut rig = Rig::start(words);
    rig.up();
    let mut kept = Kept::new(port);
    kept.ask("/");
    let old = kept.answer();
    let load = Load::going(&port.to_string());
    let reload = rig.meanwhile("reload");
    let drained = rig.wait("drained", |e| e.pid() == old);
    assert!(drained.number("after") < 5.0, "{drained:?}");
    rig.until("it is asked, and heeds it", || {
        rig.tales("polite").iter().any(|t| t.0 == old)
    });
    // It answers this one still, and says that it is the last.
    kept.ask("/");
    assert_eq!(kept.line_with("Connection"), "Connection: close");
    assert!(kept.rest().contains(&format!("PID {old} ")));
    assert_eq!(reload.join().unwrap().code, 0);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    rig.end(&[]);
}

#[test]
fn with_none_a_worker_is_asked_at_once() {
    let (mut rig, port) = node("--drain none");
    let mut kept = Kept::new(port);
    kept.ask("/slow?ms=30000");
    rig.told("request");
    assert_eq!(rig.verb("reload").code, 0);
    assert!(rig.events("draining").is_empty());
    let mut rest = Vec::new();
    let _ = kept.reader.read_to_end(&mut rest);
    assert!(rest.is_empty());
    assert_ne!(rig.wait("died", |_| true).text("reason"), "shutdown");
    rig.end(&[]);
}

#[test]
fn with_a_delay_a_stop_goes_on_serving_first() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --drain-delay 1s -- ./threaded");
    let mut rig = Rig::start(words);
    rig.up();
    rig.signal(Signal::SIGTERM);
    let delayed = rig.wait("stop-delayed", |_| true);
    assert_eq!(delayed.number("delay"), 1.0);
    // Until it is over every single one is answered.
    let mut answered = 0;
    while rig.events("draining").is_empty() {
        match get(v4(port), "/") {
            Ok(answer) => assert_eq!(answer.status, 200),
            // It was over between the two.
            Err(_) => break,
        }
        answered += 1;
    }
    assert!(answered > 10, "{answered}");
    rig.finish(0, &[]);
}

#[test]
fn a_stop_answers_what_was_accepted_and_refuses_what_comes_later() {
    let (mut rig, port) = node("");
    let mut slow: Vec<Kept> = (0..8).map(|_| Kept::new(port)).collect();
    for kept in &mut slow {
        let text = "GET /slow?ms=1000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        kept.reader.get_mut().write_all(text.as_bytes()).unwrap();
    }
    rig.until("all are under way", || rig.tales("request").len() == 8);
    rig.signal(Signal::SIGTERM);
    for kept in &mut slow {
        kept.answer();
    }
    rig.wait("stopped", |_| true);
    assert!(TcpStream::connect(v4(port)).is_err());
    for drained in rig.wait_many("drained", 2) {
        assert_eq!(drained.number("cut"), 0.0);
    }
    rig.finish(0, &[]);
}

#[test]
fn under_load_a_stop_loses_nothing_that_it_has_accepted() {
    let port = free_port();
    let server = format!("{} blocking.py", crate::place::python());
    let mut rig = Rig::start(format!("-n 2 -p {port} -- {server}"));
    rig.up();
    let load = Load::going(&port.to_string());
    assert_eq!(rig.verb("stop").code, 0);
    let (_, tally) = load.finish();
    // Who came later was refused, or had no answer to its SYN.
    for what in LOST_WITHIN {
        assert_eq!(tally.of(what), 0, "{what}: {tally:?}");
    }
    assert!(tally.of("fresh_ok") > 0);
    rig.finish(0, &[]);
}

#[test]
fn a_second_signal_ends_what_drains() {
    let (mut rig, port) = node("");
    let mut kept = Kept::new(port);
    kept.ask("/slow?ms=30000");
    rig.told("request");
    rig.signal(Signal::SIGTERM);
    rig.wait("draining", |_| true);
    rig.until("it is hard", || {
        rig.signal(Signal::SIGINT);
        !rig.events("hard-stop").is_empty()
    });
    rig.finish(1, &["hard-stop"]);
}

#[test]
fn the_budget_of_a_stop_cuts_draining_short() {
    let (mut rig, port) = node("--stop-budget 2s");
    let mut kept = Kept::new(port);
    kept.ask("/slow?ms=30000");
    rig.told("request");
    let asked = Instant::now();
    rig.signal(Signal::SIGTERM);
    let drained = rig.wait("drained", |e| e.number("cut") == 1.0);
    assert_eq!(drained.level, "warn");
    rig.wait_exit();
    assert!(asked.elapsed() < Duration::from_secs(4));
    rig.finish(0, &["drained", "killed"]);
}

/// To keep the next request out of a connection that never rests takes a right that newer kernels ask for.
#[test]
fn where_requests_cannot_be_kept_out_it_is_said_once_and_the_reload_goes_on() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --drain-timeout 1s --canary 0 -- ./threaded");
    let mut rig = Rig::dressed_by(refuse("filter"), words, |_, _| {});
    rig.up();
    let load = Load::going(&format!("{port} mode=keepalive clients=4"));
    for _ in 0..2 {
        assert_eq!(rig.verb("reload").code, 0);
    }
    load.finish();
    let said = rig.events("drain-lets-in");
    assert_eq!(said.len(), 1, "{said:?}");
    // (And what is left then is told as ever.)
    rig.end(&["drain-lets-in", "drained"]);
}
