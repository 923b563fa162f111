//! The client that hammers a server while a story goes on, and what it counted; and that it counts
//! right: servers that fail each request in a way of their own, which has to be told apart.

use crate::birth;
use crate::place::{self, LOOK, Place, free_port};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A request that was made while somebody listened, and has failed. Not a kept connection that ended under the next
/// one (`reused`): HTTP has clients ask again.
pub const LOST_WITHIN: [&str; 4] = ["status", "fresh", "half", "timeout"];
/// And one that found nobody.
pub const LOST: [&str; 6] = ["status", "fresh", "half", "timeout", "refused", "connect"];

/// What was counted, by the names that the client gives it.
#[derive(Clone, Debug)]
pub struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn parse(line: &str) -> Tally {
        let pair = |word: &str| {
            let (name, number) = word.split_once('=').unwrap();
            (name.to_string(), number.parse().unwrap())
        };
        Tally(line.split(' ').map(pair).collect())
    }

    /// One of the counts.
    pub fn of(&self, name: &str) -> u64 {
        self.0[name]
    }

    /// Some of the counts together.
    pub fn sum(&self, names: &[&str]) -> u64 {
        names.iter().map(|n| self.of(n)).sum()
    }
}

/// One that runs. It ends with its stdin, and so with whoever started it.
pub struct Load {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Load {
    /// Starts it with these words; returns when each of its clients has had an answer.
    pub fn going(words: &str) -> Load {
        let mut load = Load::start(words);
        assert_eq!(load.line(), "going");
        load
    }

    /// Starts it with these words.
    pub fn start(words: &str) -> Load {
        let mut child = Command::new(place::load())
            .args(words.split_whitespace())
            .arg("tell=1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut load = Load { child, lines };
        assert_eq!(load.line(), "started");
        load
    }

    fn line(&mut self) -> String {
        let line = self.lines.next();
        line.expect("the client has ended").unwrap()
    }

    fn tally(&mut self) -> Tally {
        loop {
            let line = self.line();
            if line != "going" {
                return Tally::parse(&line);
            }
        }
    }

    /// What it has counted so far.
    pub fn so_far(&mut self) -> Tally {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGUSR1).unwrap();
        self.tally()
    }

    /// Asks it until it has counted what is wanted.
    pub fn until(&mut self, what: &str, want: impl Fn(&Tally) -> bool) {
        let give_up = Instant::now() + Duration::from_secs(30);
        loop {
            let tally = self.so_far();
            if want(&tally) {
                return;
            }
            assert!(
                Instant::now() < give_up,
                "waited in vain until {what}: {tally:?}"
            );
            thread::sleep(LOOK);
        }
    }

    /// Ends it when what is under way is answered; returns whether all was well, and all it counted.
    pub fn finish(mut self) -> (bool, Tally) {
        self.child.stdin.take();
        let tally = self.tally();
        (self.child.wait().unwrap().success(), tally)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const WHOLE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nPID 11\n";
const LAST: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 7\r\n\r\nPID 12\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
    4;x=y\r\nPID \r\n3\r\n13\n\r\n0\r\nA: b\r\n\r\n";
const HALF: &str = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nPID 14\n";
const HALF_CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nPID ";
const BROKEN: &str = "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n";

/// A request, or the end of the connection.
fn request(from: &mut TcpStream) -> bool {
    let (mut all, mut byte) = (Vec::new(), [0]);
    while !all.ends_with(b"\r\n\r\n") {
        match from.read(&mut byte) {
            Ok(1) => all.push(byte[0]),
            _ => return false,
        }
    }
    true
}

/// A server that answers so on its n-th connection, then closes it after one more request, if
/// `also_asked`, or at once. From the last of them on it answers all with `Connection: close`.
fn serve(listener: TcpListener, connections: &[&[&'static str]], also_asked: bool) {
    let scripts: Vec<Vec<&str>> = connections.iter().map(|c| c.to_vec()).collect();
    thread::spawn(move || {
        for n in 0.. {
            let (mut peer, _) = listener.accept().unwrap();
            let script = scripts.get(n).cloned();
            for answer in script.clone().unwrap_or(vec![LAST]) {
                if request(&mut peer) {
                    let _ = peer.write_all(answer.as_bytes());
                }
            }
            if script.is_some() && also_asked {
                request(&mut peer);
            }
        }
    });
}

/// What a client counts that is served so, when it has had as many answers as asked for.
fn counted(words: &str, connections: &[&[&'static str]], also_asked: bool) -> (bool, Tally) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    serve(listener, connections, also_asked);
    let mut load = Load::going(&format!("{port} clients=1 {words}"));
    // More than any script has: behind it all answers are the server's own.
    load.until("the script is over", |t| t.of("fresh_ok") > 20);
    load.finish()
}

fn has(tally: &Tally, wanted: &[(&str, u64)]) {
    for (name, number) in wanted {
        assert_eq!(tally.of(name), *number, "{name} in {tally:?}");
    }
}

#[test]
fn what_is_answered_whole_is_no_failure() {
    let (well, tally) = counted("", &[&[WHOLE], &[CHUNKED], &[LAST]], false);
    assert!(well, "{tally:?}");
    has(&tally, &[("reused_ok", 0), ("polite", 0), ("pids", 3)]);
    assert_eq!(tally.of("requests"), tally.of("fresh_ok"));
    assert!(tally.of("p50_us") <= tally.of("p99_us"));
    assert!(tally.of("p99_us") <= tally.of("max_us") && tally.of("max_us") > 0);
}

#[test]
fn the_first_request_of_a_connection_is_never_lost_politely() {
    let scripts: [&[&str]; 4] = [&[""], &[HALF], &[HALF_CHUNKED], &["HTTP/1.1 2"]];
    for mode in ["mode=fresh", "mode=keepalive"] {
        let (well, tally) = counted(mode, &scripts, false);
        assert!(!well);
        has(&tally, &[("fresh", 4), ("half", 0), ("reused", 0)]);
    }
}

#[test]
fn a_kept_connection_that_ends_under_a_request_is_tried_again_half_an_answer_is_not() {
    let kept: &[&str] = &[WHOLE, CHUNKED, WHOLE];
    let (well, tally) = counted("mode=keepalive", &[kept, kept], true);
    assert!(well, "{tally:?}");
    has(&tally, &[("reused", 2), ("reused_ok", 4), ("fresh", 0)]);

    // Whether a POST was heard nobody knows.
    let (well, tally) = counted("mode=keepalive method=POST", &[kept, kept], true);
    assert!(!well);
    has(&tally, &[("half", 2), ("reused", 0), ("reused_ok", 4)]);

    let (well, tally) = counted("mode=keepalive", &[&[WHOLE, HALF]], false);
    assert!(!well);
    has(&tally, &[("half", 1), ("reused", 0), ("fresh", 0)]);
}

#[test]
fn a_connection_that_ends_between_requests_is_no_failure() {
    let kept: &[&str] = &[WHOLE, WHOLE];
    let (well, tally) = counted("mode=keepalive pause=30", &[kept, kept, kept], false);
    assert!(well, "{tally:?}");
    has(&tally, &[("reused", 0), ("reused_ok", 3)]);
    assert_eq!(tally.of("polite"), tally.of("fresh_ok"));
}

#[test]
fn a_connection_that_we_close_is_not_the_servers() {
    let kept: &[&str] = &[WHOLE, WHOLE];
    let (well, tally) = counted("mode=keepalive max=2", &[kept; 3], true);
    assert!(well, "{tally:?}");
    has(&tally, &[("reused_ok", 3), ("reused", 0)]);
    assert_eq!(tally.of("polite") + 3, tally.of("fresh_ok"));
}

#[test]
fn an_answer_that_complains_is_a_failure() {
    let (well, tally) = counted("", &[&[BROKEN], &["SSH-2.0-x\r\n\r\n"]], false);
    assert!(!well);
    has(&tally, &[("status", 2), ("fresh", 0)]);
}

#[test]
fn who_is_refused_is_told_and_waits_a_little() {
    let mut load = Load::start(&format!("{} clients=2", free_port()));
    load.until("it was refused some times", |t| t.of("refused") > 5);
    let (well, tally) = load.finish();
    assert!(!well);
    assert_eq!(tally.of("requests"), tally.of("refused"));
}

#[test]
fn behind_a_link_each_answer_takes_two_ways_there_and_back() {
    let place = Place::new();
    let script = "./threaded --port 80 & \"$@\" 10.9.0.1:80 secs=1 clients=4; kill $!";
    let how = birth::namespaces("-n");
    let mut cmd = Command::new("unshare");
    cmd.args([&how, "sh", "-c", script, "sh"])
        .arg(place::link())
        .arg("20000")
        .arg(place::load())
        .current_dir(&place.dir);
    let said = place::run(cmd, Instant::now() + Duration::from_secs(30));
    let line = said.out.lines().last();
    let tally = Tally::parse(line.unwrap_or_else(|| panic!("{said:?}")));
    // Whoever comes before the server listens is refused.
    let all = tally.of("fresh_ok") + tally.of("refused");
    assert_eq!(tally.of("requests"), all, "{tally:?}");
    // A handshake, then the request and its answer.
    assert!(tally.of("fresh_ok") > 3, "{tally:?}");
    assert!(tally.of("p50_us") >= 80_000, "{tally:?}");
}
