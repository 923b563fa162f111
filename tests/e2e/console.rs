//! Those who type: at a bare connection, at our own console, with a file of lines; and those who follow
//! what happens.

use crate::birth;
use crate::client::v4;
use crate::harness::Rig;
use crate::place::{LOOK, free_port, run};
use crate::proc;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tinyjson::JsonValue;

fn rig(n: usize) -> (Rig, u16) {
    let port = free_port();
    let mut rig = Rig::start(format!("-n {n} -p {port} -- ./threaded"));
    rig.up();
    (rig, port)
}

/// Somebody at a bare connection, as with `nc -U`.
pub struct Typist {
    to: UnixStream,
    from: BufReader<UnixStream>,
}

impl Typist {
    fn at(rig: &Rig) -> Typist {
        Typist::on(&rig.socket())
    }

    pub fn on(socket: &Path) -> Typist {
        let to = UnixStream::connect(socket).unwrap();
        to.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let from = BufReader::new(to.try_clone().unwrap());
        Typist { to, from }
    }

    pub fn types(&mut self, line: &str) {
        self.to.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    pub fn reads(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    }

    /// Reads on until a line has that in it.
    pub fn reads_of(&mut self, what: &str) -> String {
        loop {
            let mut line = String::new();
            let n = self.from.read_line(&mut line).unwrap();
            assert!(n > 0, "hung up on before '{what}'");
            if line.contains(what) {
                return line.trim_end().to_string();
            }
        }
    }

    /// Says that it has no more to say.
    pub fn says_no_more(&self) {
        self.to.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// The same, and reads to the end.
    pub fn rest(mut self) -> String {
        self.says_no_more();
        let mut rest = String::new();
        self.from.read_to_string(&mut rest).unwrap();
        rest
    }
}

#[test]
fn words_and_calls_at_a_bare_connection() {
    let (mut rig, _) = rig(2);
    let pids = rig.status().pids();
    let mut t = Typist::at(&rig);
    for asked in ["size", "size()"] {
        t.types(asked);
        assert_eq!(t.reads(), "2");
    }
    for asked in ["pids", "select('pid')", "select pid"] {
        t.types(asked);
        let lines = [t.reads(), t.reads()];
        assert_eq!(
            lines,
            [format!("0  {}", pids[0]), format!("1  {}", pids[1])]
        );
    }
    t.types("states");
    assert_eq!([t.reads(), t.reads()], ["0  ready", "1  ready"]);
    t.types("--json ages");
    let ages: JsonValue = t.reads().parse().unwrap();
    assert!(*ages[1]["value"].get::<f64>().unwrap() > 0.0);
    t.types("resize(3)");
    assert_eq!(t.reads(), "3 workers");
    t.types("resize +1");
    assert_eq!(t.reads(), "4 workers");
    t.types("resize(2)");
    assert_eq!(t.reads(), "2 workers");
    t.types("sock");
    assert_eq!(t.reads(), rig.socket().to_str().unwrap());
    t.types("help select");
    assert!(t.reads().starts_with("select FIELD "));
    // Wrong ones are told, and nobody is thrown out for them.
    for (wrong, why) in [
        ("resise 3", "did you mean resize?"),
        ("resize(", "unknown verb resize("),
        ("select nothing", "is no field"),
        ("debug \"x", "a quote is not closed"),
        ("send {\"a\":", "a bracket is not closed"),
    ] {
        t.types(wrong);
        let said = t.reads();
        assert!(said.contains(why), "{wrong}: {said}");
    }
    // A remark is none, and the flag may stand in front.
    t.types("# resize 7\n--no-wait resize 3");
    assert_eq!(t.reads(), "resizing to 3 workers");
    rig.wait("resized", |_| true);
    t.types("resize 2");
    assert_eq!(t.reads(), "2 workers");
    for leave in [".exit", "exit", ".quit", "quit"] {
        let mut t = Typist::at(&rig);
        t.types(&format!("{leave}\nsize"));
        assert_eq!(t.rest(), "", "{leave}");
    }
    assert_eq!(rig.status().pids(), pids);
    // Half an object of ours is a slip, and no argument of the server.
    t.types(r#"start ./threaded {"cuont":2}"#);
    assert!(t.reads().contains("cuont is none of cwd, count"));
    // What is asked for is no failure, though the master ends as one that was killed.
    t.types("kill");
    assert_eq!(t.rest(), "stopped\n");
    rig.finish(1, &["hard-stop"]);
}

#[test]
fn slots_are_added_as_cluster_service_had_it() {
    let (rig, _) = rig(1);
    let mut t = Typist::at(&rig);
    t.types(r#"start ./threaded --port-of-env {"count":2,"timeout":60000}"#);
    // (It knows no such word, and says so.)
    assert!(t.reads().starts_with("not started:"));
    // Slow enough not to be there in a millisecond.
    let more = r#"{"count":2,"timeout":60000}"#;
    let out = rig.verb(["start", "node", "selecting.js", more]);
    assert_eq!(
        (out.code, out.out.as_str()),
        (0, "2 workers started, 3 in all\n")
    );
    let mut t = Typist::at(&rig);
    t.types(r#"restart all {"timeout":30000}"#);
    assert!(t.reads().contains("generation 2 serves"));
    let out = rig.verb("restart timeout 1ms");
    assert_eq!(out.code, 1, "{out:?}");
    assert!(out.err.contains("not reloaded"), "{out:?}");
    assert_eq!(rig.verb("stop").code, 0);
    rig.finish(0, &["died", "not-ready", "reload-failed", "exec-failed"]);
}

#[test]
fn a_file_of_lines_is_a_console_too() {
    let (rig, _) = rig(2);
    let script = |text: &str| {
        let file = rig.dir().join("script");
        std::fs::write(&file, text).unwrap();
        let mut cmd = rig.command();
        cmd.arg("-C").arg(rig.socket()).arg("console");
        cmd.stdin(std::fs::File::open(file).unwrap());
        run(cmd, rig.deadline())
    };
    let said = script("size\n\nresize(3)\nsize");
    assert_eq!((said.code, said.out.as_str()), (0, "2\n3 workers\n3\n"));
    assert_eq!(said.err, "");
    // The code is that of the last.
    let said = script("nonsense\nsize\n");
    assert_eq!((said.code, said.out.as_str()), (0, "3\n"));
    assert!(said.err.contains("unknown verb nonsense"), "{said:?}");
    let said = script("nonsense\n# and then\n");
    assert_eq!(said.code, 0, "{said:?}");
    let said = script("size\nresize 0\n.exit\nsize\n");
    assert_eq!((said.code, said.out.as_str()), (64, "3\n"));
    let long = format!("debug {}\nsize\n", "x".repeat(70_000));
    let said = script(&long);
    assert_eq!((said.code, said.out.as_str()), (0, "3\n"));
    assert!(said.err.contains("(limit 65536)"), "{said:?}");
    let said = script("kill\nsize\n");
    assert_eq!((said.code, said.out.as_str()), (1, "stopped\n"));
    assert!(said.err.contains("the master has gone"), "{said:?}");
    rig.finish(1, &["hard-stop"]);
}

#[test]
fn what_is_said_reaches_the_log_and_every_console_that_asked() {
    let (mut rig, _) = rig(1);
    let (mut one, mut two, mut deaf) = (Typist::at(&rig), Typist::at(&rig), Typist::at(&rig));
    one.types("events");
    one.reads_of("the worker is ready");
    two.types("--json events follow");
    two.reads_of("all-ready");
    deaf.types("size");
    assert_eq!(deaf.reads(), "1");
    deaf.types("debug('hello, world')");
    assert!(one.reads_of("hello").ends_with("minicluster: hello, world"));
    let json: JsonValue = two.reads_of("hello").parse().unwrap();
    assert_eq!(json["event"].get::<String>().unwrap(), "debug");
    assert_eq!(rig.wait("debug", |_| true).msg, "hello, world");
    assert_eq!(
        rig.verb(["emit", "deployed", r#"{"version":[1,2]}"#]).code,
        0
    );
    let json: JsonValue = two.reads_of("deployed").parse().unwrap();
    assert_eq!(json["data"]["version"][1].get::<f64>(), Some(&2.0));
    assert_eq!(
        json["by_uid"].get::<f64>().map(|n| *n as u32),
        Some(nix::unistd::geteuid().as_raw())
    );
    // Who has heard enough goes on typing.
    one.types("events off");
    one.types("size");
    one.reads_of("deployed");
    assert_eq!(one.reads(), "1");
    rig.verb("debug again");
    two.reads_of("again");
    one.types("size");
    assert_eq!(one.reads(), "1");
    // The one who asked for neither has heard nothing.
    deaf.types("size");
    assert_eq!(deaf.reads(), "1");
    let consoles = rig.verb("connections");
    assert!(consoles.out.ends_with("consoles 3\n"), "{consoles:?}");
    for (bad, why) in [
        ("emit", "which name"),
        ("emit a/b", "is no name"),
        ("emit x {\"a\":}", "bad JSON"),
        ("debug", "say what"),
    ] {
        let said = rig.verb(bad);
        assert_eq!(said.code, 64, "{said:?}");
        assert!(said.err.contains(why), "{said:?}");
    }
    drop((one, two, deaf));
    rig.end(&[]);
}

/// `events follow`, typed in a shell.
fn follow(rig: &Rig, words: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut cmd = rig.command();
    cmd.arg("-C").arg(rig.socket()).args(words);
    let mut child = cmd.stdout(Stdio::piped()).spawn().unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    (child, out)
}

fn ended(mut child: Child) -> Option<i32> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < end, "it does not end");
        std::thread::sleep(LOOK);
    }
}

#[test]
fn who_follows_sees_a_workers_whole_life_and_the_end() {
    let (mut rig, _) = rig(1);
    let (child, out) = follow(&rig, &["events", "follow", "--json"]);
    let pid = rig.status().pids()[0];
    let lines = std::thread::spawn(move || {
        let lines = out
            .lines()
            .map(|l| l.unwrap().parse::<JsonValue>().unwrap());
        lines.collect::<Vec<_>>()
    });
    let new = rig.replace(pid);
    rig.signal(Signal::SIGTERM);
    rig.wait_exit();
    assert_eq!(ended(child), Some(0));
    let lines = lines.join().unwrap();
    let ids: Vec<f64> = lines.iter().map(|l| *l["id"].get().unwrap()).collect();
    let all: Vec<f64> = (1..=lines.len()).map(|n| n as f64).collect();
    assert_eq!(ids, all, "none is missing");
    let of = |pid: i32| -> Vec<String> {
        let pid = f64::from(pid);
        let its = lines.iter().filter(|l| {
            let of = l.get::<std::collections::HashMap<String, JsonValue>>();
            of.unwrap().get("pid").and_then(|p| p.get::<f64>()) == Some(&pid)
        });
        its.map(|l| l["event"].get::<String>().unwrap().clone())
            .collect()
    };
    assert_eq!(of(pid), ["forked", "listening", "ready", "died"]);
    assert_eq!(
        of(new),
        [
            "forked",
            "listening",
            "ready",
            "draining",
            "drained",
            "died"
        ]
    );
    let last = lines.last().unwrap()["event"].get::<String>().unwrap();
    assert_eq!(last, "stopped");
    rig.finish(0, &["died"]);
}

#[test]
fn who_does_not_read_is_told_how_much_is_missing_and_nobody_waits_for_it() {
    let (rig, port) = rig(1);
    let mut lazy = Typist::at(&rig);
    lazy.types("--json events follow");
    let mut busy = Typist::at(&rig);
    let text = "x".repeat(30_000);
    let said = 100;
    for _ in 0..said {
        busy.types(&format!("debug {text}"));
    }
    busy.types("size");
    assert_eq!(busy.reads(), "1");
    crate::client::all_answer(&rig, v4(port), "/", 1);
    // What there was room for, the number of those that are missing, and what came after.
    let line = lazy.reads_of("\"event\":\"missed\"");
    let json: JsonValue = line.parse().unwrap();
    let missed = *json["count"].get::<f64>().unwrap() as u64;
    assert!((1..said).contains(&missed), "{missed}");
    rig.verb("debug after");
    let json: JsonValue = lazy.reads_of("after").parse().unwrap();
    let last = *json["id"].get::<f64>().unwrap() as u64;
    assert!(last > said, "numbers count what was missed");
    drop((lazy, busy));
    rig.end(&["log-lost"]);
}

#[test]
fn status_can_be_watched_until_the_master_goes() {
    let (mut rig, _) = rig(1);
    let (child, mut out) = follow(&rig, &["status", "watch"]);
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.contains(" 1/1 ready generation 1 "), "{line}");
    assert_eq!(rig.verb("reload").code, 0);
    while !line.contains(" generation 2 ") {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "it has ended");
    }
    let mut typed = Typist::at(&rig);
    typed.types("status watch");
    assert!(typed.reads().starts_with("status watch is for a shell"));
    rig.signal(Signal::SIGTERM);
    rig.wait_exit();
    assert_eq!(ended(child), Some(0));
    rig.finish(0, &[]);
}

#[test]
fn connections_are_counted_from_outside() {
    let (rig, port) = rig(2);
    let held: Vec<TcpStream> = (0..5)
        .map(|_| TcpStream::connect(v4(port)).unwrap())
        .collect();
    let sum = |said: &str| -> f64 {
        let v: JsonValue = said.parse().unwrap();
        let all = v["workers"].get::<Vec<JsonValue>>().unwrap();
        all.iter().map(|w| *w["open"].get::<f64>().unwrap()).sum()
    };
    rig.until("the workers have all five", || {
        sum(&rig.verb("connections --json").out) == 5.0
    });
    let info: JsonValue = rig.verb("info --json").out.parse().unwrap();
    assert_eq!(info["net"]["connections_open"].get::<f64>(), Some(&5.0));
    assert_eq!(info["workers"]["ready"].get::<f64>(), Some(&2.0));
    let rss = *info["memory"]["rss"].get::<f64>().unwrap();
    assert!(rss > 1e5, "{rss}");
    let open: JsonValue = rig.verb("select open --json").out.parse().unwrap();
    let open = open.get::<Vec<JsonValue>>().unwrap();
    let all: f64 = open.iter().map(|w| *w["value"].get::<f64>().unwrap()).sum();
    assert_eq!(all, 5.0);
    drop(held);
    rig.until("all have gone", || {
        sum(&rig.verb("connections --json").out) == 0.0
    });
    rig.end(&[]);
}

#[test]
fn options_say_what_holds_and_keep_secrets() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --env TOKEN=sesame --drain-timeout 3s -- ./threaded"
    ));
    rig.up();
    let said = rig.verb("options");
    let line = |flag: &str| {
        let found = said.out.lines().find(|l| l.starts_with(flag));
        let words = found.unwrap_or_default().split_whitespace();
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("--workers"), "--workers 1 typed");
    assert_eq!(line("--drain-timeout"), "--drain-timeout 3s typed");
    assert_eq!(line("--ready-timeout"), "--ready-timeout 60s default");
    assert_eq!(line("--env "), "--env TOKEN=... typed");
    assert!(said.out.ends_with("-- ./threaded\n"), "{said:?}");
    assert!(!rig.verb("options --json").out.contains("sesame"));
    rig.end(&[]);
}

/// The other side of a terminal.
pub struct Screen {
    far: std::fs::File,
    shown: String,
}

impl Screen {
    pub fn of(far: OwnedFd) -> Screen {
        Screen {
            far: far.into(),
            shown: String::new(),
        }
    }

    pub fn types(&mut self, line: &str) {
        self.far.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// All that is shown up to that.
    pub fn until(&mut self, what: &str) -> String {
        let mut buf = [0u8; 4096];
        while !self.shown.contains(what) {
            let mut one = [PollFd::new(self.far.as_fd(), PollFlags::POLLIN)];
            assert_eq!(
                poll(&mut one, 20_000u16),
                Ok(1),
                "no {what} in {}",
                self.shown
            );
            let n = self.far.read(&mut buf).unwrap();
            self.shown.push_str(&String::from_utf8_lossy(&buf[..n]));
        }
        let end = self.shown.find(what).unwrap() + what.len();
        let rest = self.shown.split_off(end);
        std::mem::replace(&mut self.shown, rest)
    }
}

#[test]
fn a_console_on_a_terminal_has_a_prompt_and_an_interrupt_harms_nobody() {
    let (rig, _) = rig(1);
    let (far, near) = birth::open_terminal();
    let mut cmd = rig.command();
    cmd.arg("-C").arg(rig.socket()).arg("console");
    cmd.env("TERM", "xterm");
    let (i, o) = (near.try_clone().unwrap(), near.try_clone().unwrap());
    birth::on_terminal(&mut cmd, near);
    let child = cmd.stdin(i).stdout(o).spawn().unwrap();
    drop(cmd);
    let mut screen = Screen::of(far);
    let name = format!(
        "threaded-{}",
        rig.socket().file_stem().unwrap().to_string_lossy()
    );
    let prompt = format!("{}> ", name.strip_prefix("threaded-").unwrap());
    assert!(screen.until(&prompt).contains("help lists the verbs"));
    screen.types("size");
    assert!(screen.until(&prompt).contains("1\r\n"));
    screen.types("bogus");
    let red = screen.until(&prompt);
    assert!(red.contains("\u{1b}[31munknown verb bogus"), "{red}");
    // Somebody else makes something happen: it stands above the prompt.
    screen.types("events follow");
    screen.until("the worker is ready");
    screen.until(&prompt);
    rig.verb("debug hello");
    assert!(screen.until(&prompt).contains("minicluster: hello"));
    screen.types("resize 2");
    rig.wait_status("the resize has begun", |s| s.wanted == 2);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(ended(child), None);
    rig.wait_status("it goes on all the same", |s| s.ready == 2);
    assert_eq!(rig.verb("resize 1").code, 0);
    rig.end(&[]);
}

#[test]
fn a_console_is_told_that_the_master_has_gone() {
    let (mut rig, _) = rig(1);
    let mut cmd = rig.command();
    cmd.arg("-C").arg(rig.socket()).arg("console");
    let mut child = cmd
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"size\n").unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "1\n");
    rig.signal(Signal::SIGTERM);
    rig.wait_exit();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!(
        (rest.as_str(), ended(child)),
        ("the master has gone\n", Some(0))
    );
    drop(stdin);
    rig.finish(0, &[]);
}

#[test]
fn the_terminal_of_the_master_is_a_console_if_it_is_asked_for() {
    let port = free_port();
    let (far, near) = birth::open_terminal();
    let words = format!("-n 1 -p {port} --console -- ./threaded");
    let mut rig = Rig::dressed(words, |cmd, _| {
        let (i, o) = (near.try_clone().unwrap(), near.try_clone().unwrap());
        birth::on_terminal(cmd, near);
        cmd.stdin(i).stdout(o);
    });
    rig.up();
    let mut screen = Screen::of(far);
    let prompt = format!("threaded-{port}> ");
    assert!(screen.until(&prompt).contains("help lists the verbs"));
    screen.types("size");
    assert!(screen.until(&prompt).contains("1\r\n"));
    screen.types("resize(2)");
    assert!(screen.until(&prompt).contains("2 workers\r\n"));
    assert!(rig.verb("repl").out.starts_with("1 console\n"));
    screen.types("events");
    screen.until(&prompt);
    rig.verb("debug hello");
    assert!(screen.until(&prompt).contains("minicluster: hello"));
    screen.types("stop");
    rig.finish(0, &[]);
}

#[test]
fn lines_may_come_from_a_pipe_and_their_end_is_not_that_of_the_cluster() {
    let port = free_port();
    let (read, write) = nix::unistd::pipe().unwrap();
    let (told, tell) = nix::unistd::pipe().unwrap();
    let words = format!("-n 1 -p {port} --console -- ./threaded");
    let mut rig = Rig::dressed(words, |cmd, _| {
        cmd.stdin(read).stdout(tell);
    });
    rig.up();
    let mut to = std::fs::File::from(write);
    to.write_all(b"size\nnonsense\nreload\n").unwrap();
    drop(to);
    rig.wait("reload-finished", |_| true);
    assert_eq!(rig.status().ready, 1);
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &[]);
    let mut said = String::new();
    std::fs::File::from(told).read_to_string(&mut said).unwrap();
    assert!(said.starts_with("1\nunknown verb nonsense"), "{said}");
    assert!(said.contains("\ngeneration 2 serves"), "{said}");
}

#[test]
fn a_console_whose_reader_pauses_is_told_the_rest_when_it_reads_on() {
    let port = free_port();
    let (read, write) = nix::unistd::pipe().unwrap();
    let (told, tell) = nix::unistd::pipe().unwrap();
    // The least there is: the answers are many times that.
    fcntl(&tell, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    fcntl(&told, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let words = format!("-n 1 -p {port} --console -- ./threaded");
    let mut rig = Rig::dressed(words, |cmd, _| {
        cmd.stdin(read).stdout(tell.try_clone().unwrap());
    });
    rig.up();
    let answer = format!("{}\n", rig.socket().display());
    let (mut told, mut to) = (std::fs::File::from(told), Some(std::fs::File::from(write)));
    let lines = 400;
    // The second time nobody will type again.
    for last in [false, true] {
        let lines_of = "sock\n".repeat(lines);
        to.as_mut().unwrap().write_all(lines_of.as_bytes()).unwrap();
        to = to.filter(|_| !last);
        let full = || {
            let mut end = [PollFd::new(tell.as_fd(), PollFlags::POLLOUT)];
            poll(&mut end, 0u8).unwrap() == 0
        };
        rig.until("all is read, and nothing more is written", || {
            full() && proc::sleeps_for_good(rig.pid())
        });
        let mut said = Vec::new();
        rig.until("all is answered", || {
            let mut piece = [0u8; 1000];
            match told.read(&mut piece) {
                Ok(n) => said.extend_from_slice(&piece[..n]),
                Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock),
            }
            said.len() >= lines * answer.len()
        });
        assert_eq!(String::from_utf8_lossy(&said), answer.repeat(lines));
    }
    // Nothing is watched any more, nor tried again by the clock.
    rig.until("it rests", || proc::sleeps_for_good(rig.pid()));
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &[]);
}

#[test]
fn lines_that_are_sent_at_once_are_answered_in_their_order() {
    let (rig, _) = rig(1);
    let mut t = Typist::at(&rig);
    t.types("resize(2)\nsize\nreload\nstates\nresize(1)\nstates\nconnections");
    let said = t.rest();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..2], ["2 workers", "2"], "{said}");
    assert!(lines[2].starts_with("generation 2 serves"), "{said}");
    let rest = ["0  ready", "1  ready", "1 worker", "0  ready"];
    assert_eq!(lines[3..7], rest, "{said}");
    assert_eq!(lines.last(), Some(&"consoles 1"), "{said}");
    // One who goes in the midst of it does not get the rest done, and harms nobody.
    let mut t = Typist::at(&rig);
    t.types("resize(2)\nresize(1)\nresize(3)");
    drop(t);
    rig.wait_status("the first was done", |s| s.ready == 2);
    assert_eq!(rig.verb("resize 1").code, 0);
    rig.end(&[]);
}
