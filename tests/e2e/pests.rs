//! Clients that misbehave, in every way that came to mind: a crowd of them, driven by one seed from one
//! thread. Nobody of them ever waits for the master; what they draw is the same for the same seed, when
//! it happens is not.

use crate::house::KEY;
use crate::prng::Prng;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A dribble is so many bytes,
const DRIP: usize = 3;
/// that far apart.
const DRIPS: Duration = Duration::from_millis(15);
/// Written or read by one of them in one step.
const PIECE: usize = 64 * 1024;
/// So many come in one step.
const NEWCOMERS: usize = 32;
/// The longest that one of them stays.
const LONGEST_MS: u64 = 1500;

/// A connection, by whichever door.
enum Line {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Line::Unix(s) => s.write(bytes),
            Line::Tcp(s) => s.write(bytes),
        }
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Line::Unix(s) => s.read(buf),
            Line::Tcp(s) => s.read(buf),
        }
    }

    fn half_close(&mut self) {
        let _ = match self {
            Line::Unix(s) => s.shutdown(Shutdown::Write),
            Line::Tcp(s) => s.shutdown(Shutdown::Write),
        };
    }
}

/// What one of them does.
struct Plan {
    /// For the tally.
    habit: &'static str,
    bytes: Vec<u8>,
    /// A few bytes at a time.
    dribbles: bool,
    /// So many bytes of the answer are read; then it hangs up, with the rest unread.
    reads: usize,
    /// It says that it has said all.
    half_closes: bool,
}

struct Pest {
    line: Line,
    plan: Plan,
    sent: usize,
    heard: usize,
    next_drip: Instant,
    until: Instant,
}

impl Pest {
    /// One step. False: it has gone, one way or the other.
    fn step(&mut self, now: Instant) -> bool {
        now < self.until && self.says(now) && self.hears()
    }

    fn says(&mut self, now: Instant) -> bool {
        let left = &self.plan.bytes[self.sent..];
        if left.is_empty() || self.plan.dribbles && now < self.next_drip {
            return true;
        }
        let most = if self.plan.dribbles { DRIP } else { PIECE };
        match self.line.write(&left[..left.len().min(most)]) {
            Ok(n) => {
                self.sent += n;
                self.next_drip = now + DRIPS;
                if self.sent == self.plan.bytes.len() && self.plan.half_closes {
                    self.line.half_close();
                }
                true
            }
            Err(e) => e.kind() == io::ErrorKind::WouldBlock,
        }
    }

    fn hears(&mut self) -> bool {
        if self.plan.reads == 0 {
            return true;
        }
        let mut buf = [0; PIECE];
        let most = (self.plan.reads - self.heard).min(PIECE);
        match self.line.read(&mut buf[..most]) {
            Ok(0) => false,
            Ok(n) => {
                self.heard += n;
                self.heard < self.plan.reads
            }
            Err(e) => e.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// All of them.
pub struct Swarm {
    chance: Prng,
    socket: PathBuf,
    monitor: SocketAddr,
    most: usize,
    all: Vec<Pest>,
    /// How many there were of each habit.
    pub tally: BTreeMap<&'static str, u64>,
}

impl Swarm {
    /// So many at once.
    pub fn new(seed: u64, most: usize, socket: PathBuf, monitor: SocketAddr) -> Swarm {
        Swarm {
            chance: Prng::new(seed),
            socket,
            monitor,
            most,
            all: Vec::new(),
            tally: BTreeMap::new(),
        }
    }

    /// Each of them does a little; for those that have gone others come.
    pub fn step(&mut self) {
        let now = Instant::now();
        self.all.retain_mut(|pest| pest.step(now));
        let missing = self.most - self.all.len();
        for _ in 0..missing.min(NEWCOMERS) {
            match self.next(now) {
                Some(pest) => self.all.push(pest),
                // Nothing is free at the moment.
                None => return,
            }
        }
    }

    /// All hang up at once.
    pub fn vanish(&mut self) {
        self.all.clear();
    }

    fn next(&mut self, now: Instant) -> Option<Pest> {
        let chance = &mut self.chance;
        let (by_tcp, http) = (chance.percent(50), chance.percent(60));
        let mut plan = match by_tcp || http {
            true => request(chance),
            false => lines(chance),
        };
        if chance.one_in(10) {
            plan.dribbles = true;
        }
        // Cut anywhere: what follows is silence, or the end.
        if chance.one_in(6) {
            let most = plan.bytes.len() as u64;
            plan.bytes.truncate(chance.below(most + 1) as usize);
        }
        plan.half_closes |= chance.one_in(8);
        if chance.one_in(5) {
            plan.reads = chance.range(1, 400) as usize;
        }
        let life = chance.ms(0, LONGEST_MS);
        let line = match by_tcp {
            true => {
                let s = TcpStream::connect(self.monitor).ok()?;
                s.set_nonblocking(true).ok()?;
                Line::Tcp(s)
            }
            false => {
                let s = UnixStream::connect(&self.socket).ok()?;
                s.set_nonblocking(true).ok()?;
                Line::Unix(s)
            }
        };
        *self.tally.entry(plan.habit).or_default() += 1;
        Some(Pest {
            line,
            plan,
            sent: 0,
            heard: 0,
            next_drip: now,
            until: now + life,
        })
    }
}

fn plan(habit: &'static str, bytes: impl Into<Vec<u8>>, reads: usize) -> Plan {
    Plan {
        habit,
        bytes: bytes.into(),
        dribbles: false,
        reads,
        half_closes: false,
    }
}

/// Reads whatever comes.
const ALL: usize = usize::MAX;

fn garbage(chance: &mut Prng, most: u64) -> Vec<u8> {
    let n = chance.range(1, most);
    (0..n).map(|_| chance.bits() as u8).collect()
}

/// One that says lines, or what it takes for lines.
fn lines(chance: &mut Prng) -> Plan {
    match chance.below(20) {
        0 => plan("says nothing", "", 0),
        1 => plan("garbage", garbage(chance, 4000), ALL),
        2 => plan("a line without end", vec![b'x'; 200_000], ALL),
        3 => plan("deep JSON", "[".repeat(60_000) + "\n", ALL),
        4 => plan("NUL", "status\0\n[\"sta\\u0000tus\"]\n", ALL),
        5 => plan("follows and never reads", "events follow\n", 0),
        6 => plan("follows in JSON", "[\"events\",\"follow\",\"--json\"]\n", 0),
        7 => plan("follows and reads", "events follow\n", ALL),
        8 => plan("pipelines", "status\nwhy\nevents\n".repeat(120), ALL),
        9 => plan(
            "pipelines, unread",
            "workers details\nhelp\n".repeat(200),
            0,
        ),
        10 => plan("reloads", "[\"reload\",\"--no-wait\"]\n", ALL),
        11 => plan("reloads and hangs up", "[\"reload\"]\n", 1),
        12 => plan("resizes", "resize +1\nresize -1\n", ALL),
        13 => plan("gathers", gathers(chance), ALL),
        14 => plan("runs what hangs", "[\"hang\",\"timeout\",\"300ms\"]\n", ALL),
        15 => plan("runs what is loud", "loud\n", 0),
        16 => plan("runs what is quick", "quick\nquick --json\n.exit\n", ALL),
        17 => plan(
            "says something",
            "debug a\nemit soak {\"a\":[1]}\nemit 7\n",
            ALL,
        ),
        18 => plan("a console", "[\"console\"]\n[\"status\"]\n[\"why\"]\n", ALL),
        _ => plan(
            "typing errors",
            "stauts\nresize x\nreload 1 2\nsend {\n",
            ALL,
        ),
    }
}

/// A message to all workers that nobody of them answers.
fn gathers(chance: &mut Prng) -> String {
    let n = chance.below(40);
    format!("[\"sync-send\",\"{{\\\"cmd\\\":\\\"c{n}\\\"}}\",\"timeout\",\"500ms\"]\n")
}

/// One that speaks HTTP, or something like it.
fn request(chance: &mut Prng) -> Plan {
    let key = format!("Authorization: Bearer {KEY}\r\n");
    let wrong = format!("Authorization: Bearer {}e\r\n", &KEY[..31]);
    let host = "Host: localhost\r\n";
    let get = |what: &str, head: &str| format!("GET {what} HTTP/1.1\r\n{head}\r\n");
    let post = |what: &str, head: &str| format!("POST {what} HTTP/1.1\r\n{host}{key}{head}\r\n");
    let events = get("/events", &format!("{host}{key}"));
    match chance.below(26) {
        0 => plan("says nothing", "", 0),
        1 => plan("garbage", garbage(chance, 4000), ALL),
        2 => plan(
            "wrong key",
            get("/status", &(host.to_string() + &wrong)),
            ALL,
        ),
        3 => plan("no key", get("/workers", host), ALL),
        4 => plan(
            "foreign Host",
            get("/status", &format!("Host: evil.example\r\n{key}")),
            ALL,
        ),
        5 => plan(
            "probes",
            get("/live", host) + &get("/ready", host) + &get("/ecv", host),
            ALL,
        ),
        6 => plan(
            "pipelines",
            get("/status", &format!("{host}{key}")).repeat(150),
            ALL,
        ),
        7 => plan(
            "pipelines, unread",
            get("/workers", &format!("{host}{key}")).repeat(200),
            0,
        ),
        8 => plan("a stream, unread", events, 0),
        9 => plan("a stream, read", events, ALL),
        10 => plan("a stream, for a while", events, 700),
        11 => plan(
            "key in the target",
            get(&format!("/status?accessKey={KEY}"), host),
            ALL,
        ),
        12 => plan(
            "key in nonsense",
            format!("GET /x?accessKey={KEY} HTTP/9.9\r\n\r\n"),
            ALL,
        ),
        13 => {
            let target = format!("/cli?cmd=frobnicate&accessKey={KEY}");
            plan("unknown verb", post(&target, "Content-Length: 0\r\n"), ALL)
        }
        14 => plan(
            "Expect, no body",
            post("/send", "Expect: 100-continue\r\nContent-Length: 99\r\n"),
            ALL,
        ),
        15 => plan(
            "huge length",
            post("/send", "Content-Length: 99999999999999999999\r\n"),
            ALL,
        ),
        16 => plan(
            "a body too large",
            post("/send", "Content-Length: 9000000\r\n") + &"x".repeat(300_000),
            ALL,
        ),
        17 => {
            let body = "6\r\n{\"cmd\"\r\n5;x=y\r\n:\"a\"}\r\n0\r\n\r\n";
            let whole = post("/send", "Transfer-Encoding: chunked\r\n") + body;
            let cut = whole.len() - chance.below(body.len() as u64) as usize;
            plan("chunks, cut", &whole.as_bytes()[..cut], ALL)
        }
        18 => plan(
            "bad chunks",
            post("/send", "Transfer-Encoding: chunked\r\n") + "zz\r\n",
            ALL,
        ),
        19 => plan(
            "both lengths",
            post(
                "/send",
                "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            ) + "abc",
            ALL,
        ),
        20 => plan(
            "long head",
            get("/live", &format!("X: {}\r\n", "y".repeat(40_000))),
            ALL,
        ),
        21 => plan("many headers", get("/live", &"A: b\r\n".repeat(300)), ALL),
        22 => plan(
            "long target",
            get(&format!("/{}", "z".repeat(20_000)), host),
            ALL,
        ),
        23 => plan(
            "reloads",
            post("/restart?async=1", "Content-Length: 0\r\n"),
            ALL,
        ),
        24 => {
            let n = chance.below(40);
            let body = format!("{{\"cmd\":\"h{n}\",\"timeout\":500}}");
            let head = format!("Content-Length: {}\r\n", body.len());
            plan(
                "gathers",
                post("/sync_send", &head) + &body,
                chance.below(2) as usize,
            )
        }
        _ => plan(
            "runs what hangs",
            post("/cli?cmd=hang+timeout+300ms", "Content-Length: 0\r\n"),
            ALL,
        ),
    }
}
