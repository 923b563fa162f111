//! -d: what the caller sees and is let go of, as an init script, a shell and a terminal would.

use crate::birth;
use crate::client::{get, v4};
use crate::place::{BINARY, LOOK, Place, Said, free_port};
use crate::proc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A place where daemons are started: nothing that was started here outlives it.
struct Ground {
    place: Place,
    deadline: Instant,
}

/// A caller, and what it says.
struct Caller {
    child: Child,
    out: Receiver<String>,
    err: Receiver<String>,
}

fn reader(mut from: impl Read + Send + 'static) -> Receiver<String> {
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = tell.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    told
}

impl Ground {
    fn new() -> Ground {
        let deadline = Instant::now() + Duration::from_secs(120);
        let place = Place::new();
        Ground { place, deadline }
    }

    fn call(&self, mut cmd: Command) -> Caller {
        let piped = cmd.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let out = reader(child.stdout.take().unwrap());
        let err = reader(child.stderr.take().unwrap());
        Caller { child, out, err }
    }

    /// Its end, and the end of what it wrote to: nobody may hold that any longer.
    fn wait(&self, mut caller: Caller) -> Said {
        self.until("the caller returns", || {
            caller.child.try_wait().unwrap().is_some()
        });
        let left = || self.deadline.saturating_duration_since(Instant::now());
        let (out, err) = (
            caller.out.recv_timeout(left()),
            caller.err.recv_timeout(left()),
        );
        let held = "somebody still holds what the caller wrote to";
        Said {
            code: caller.child.wait().unwrap().code().unwrap_or(-1),
            out: out.expect(held),
            err: err.expect(held),
        }
    }

    fn command(&self, words: &str) -> Command {
        let mut cmd = self.place.command();
        cmd.args(words.split_whitespace());
        cmd
    }

    fn run(&self, words: &str) -> Said {
        self.wait(self.call(self.command(words)))
    }

    /// The same by a shell; its $0 is the binary.
    fn shell(&self, script: &str) -> Said {
        let words = ["sh", "-c", script].map(String::from);
        self.wait(self.call(self.place.command_by(&words)))
    }

    fn until(&self, what: &str, mut so: impl FnMut() -> bool) {
        while !so() {
            assert!(
                Instant::now() < self.deadline,
                "waited in vain until {what}"
            );
            std::thread::sleep(LOOK);
        }
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.place.dir.join(name)).unwrap_or_default()
    }

    /// The master, by its pid file.
    fn master(&self) -> i32 {
        self.file("app.pid").trim().parse().unwrap()
    }

    fn workers(&self) -> Vec<i32> {
        let master = self.master();
        let all = proc::marked(&self.place.mark).into_iter();
        all.filter(|pid| proc::parent(*pid) == Some(master))
            .collect()
    }

    /// The end of a story: all have gone, and left no file.
    fn end(self) {
        self.until("all have gone", || {
            proc::marked(&self.place.mark).is_empty()
        });
        let run = fs::read_dir(self.place.dir.join("run"));
        assert_eq!(
            run.map_or(0, |d| d.count()),
            0,
            "files in the runtime directory"
        );
        assert!(!self.place.dir.join("app.pid").exists());
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log:\n{}", self.file("app.log"));
        }
        self.place.clear();
    }
}

#[test]
fn an_init_script_starts_asks_stops_and_starts_again() {
    let g = Ground::new();
    let port = free_port();
    let start = format!("-d --pid-file app.pid --log-file app.log -n 2 -p {port} -- ./threaded");
    let said = g.run(&start);
    assert_eq!((said.code, said.out.as_str()), (0, ""), "{said:?}");
    assert!(said.err.contains("all 2 workers ready"), "{said:?}");
    // At this very moment all of them serve.
    let first = g.master();
    assert_eq!(get(v4(port), "/").unwrap().status, 200);
    assert_eq!(g.run("--pid-file app.pid status").code, 0);
    let second = g.run(&start);
    assert_eq!(second.code, 75, "{second:?}");
    assert!(
        second.err.contains(&format!("is held by pid {first}; ")),
        "{second:?}"
    );
    let again = g.shell(&format!("\"$0\" --pid-file app.pid stop && \"$0\" {start}"));
    assert_eq!(
        (again.code, again.out.as_str()),
        (0, "stopped\n"),
        "{again:?}"
    );
    assert_ne!(g.master(), first);
    assert_eq!(g.run("--pid-file app.pid stop").code, 0);
    assert_eq!(g.run("--pid-file app.pid status").code, 3);
    assert_eq!(g.run("--pid-file app.pid stop").code, 3);
    g.end();
}

#[test]
fn a_daemon_whose_master_was_killed_is_dead_with_a_pid_file_and_starts_again() {
    let g = Ground::new();
    let port = free_port();
    let start = format!("-d --pid-file app.pid --log-file app.log -n 1 -p {port} -- ./threaded");
    assert_eq!(g.run(&start).code, 0);
    kill(Pid::from_raw(g.master()), Signal::SIGKILL).unwrap();
    g.until("the workers have gone with it", || {
        proc::marked(&g.place.mark).is_empty()
    });
    assert_eq!(g.run("--pid-file app.pid status").code, 1);
    assert_eq!(g.run("--pid-file app.pid stop").code, 1);
    assert_eq!(g.run(&start).code, 0);
    assert_eq!(g.run("--pid-file app.pid stop").code, 0);
    g.end();
}

#[test]
fn a_start_that_fails_says_why_on_the_callers_stderr_and_in_the_log() {
    let g = Ground::new();
    let port = free_port();
    let said = g.run(&format!(
        "-d --pid-file app.pid --log-file app.log --start-timeout 1s -n 1 -p {port} -- ./threaded --crash-at-start"
    ));
    assert_eq!(said.code, 69, "{said:?}");
    for text in [&said.err, &g.file("app.log")] {
        assert!(
            text.contains("threaded: no such database: stock\n"),
            "{text}"
        );
        assert!(text.contains("its last words on stderr"), "{text}");
    }
    for (words, code, why) in [
        (
            "-d --log-file app.log -- ./no-such-server",
            127,
            "not found",
        ),
        (
            "-d --log-file no/such/app.log -- ./threaded",
            73,
            "--log-file /",
        ),
        ("-d --log-file - -- ./threaded", 64, "-d lets go of stderr"),
        (
            "-d --log-file /dev/stderr -- ./threaded",
            64,
            "is the caller's",
        ),
        (
            "-d --log-file app.log --cwd nowhere -- ./threaded",
            78,
            "--cwd",
        ),
    ] {
        let said = g.run(words);
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.err.contains(why), "{said:?}");
    }
    g.end();
}

#[test]
fn a_port_that_is_busy_is_told_to_the_caller() {
    let g = Ground::new();
    let holder = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let said = g.run(&format!("-d --log-file app.log -p {port} -- ./threaded"));
    assert_eq!(said.code, 75, "{said:?}");
    assert!(said.err.contains("Address already in use"), "{said:?}");
    g.end();
}

#[test]
fn nothing_of_the_callers_is_held_when_it_returns() {
    let g = Ground::new();
    let port = free_port();
    // The substitution ends when nobody holds its pipe, under whatever number.
    let said = g.shell(&format!(
        "x=$(\"$0\" -d --pid-file app.pid --log-file app.log -n 2 -p {port} -- ./threaded 7>&1) && echo back"
    ));
    assert_eq!((said.code, said.out.as_str()), (0, "back\n"), "{said:?}");
    let master = g.master();
    let cwd = |pid: i32| fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert_eq!(cwd(master).to_str(), Some("/"));
    for fd in 0..3 {
        assert_eq!(proc::descriptor(master, fd), "/dev/null");
    }
    let log = g.place.dir.join("app.log").display().to_string();
    for worker in g.workers() {
        let all = [0, 1, 2].map(|fd| proc::descriptor(worker, fd));
        assert_eq!(all, ["/dev/null", &log, &log]);
        assert_eq!(cwd(worker), g.place.dir);
    }
    // No session leader, so no terminal can ever become its own.
    assert_ne!(proc::session(master), Some(master));
    assert_ne!(
        proc::session(master),
        proc::session(std::process::id() as i32)
    );
    assert_eq!(g.workers().len(), 2);
    all_answer_on(&g, port);
    assert_eq!(g.run("--pid-file app.pid stop").code, 0);
    g.end();
}

fn all_answer_on(g: &Ground, port: u16) {
    let pid = get(v4(port), "/").unwrap().pid();
    assert!(g.workers().contains(&pid));
}

#[test]
fn a_caller_that_goes_before_the_workers_are_ready_takes_the_daemon_along() {
    for signal in [Signal::SIGINT, Signal::SIGKILL] {
        let g = Ground::new();
        let port = free_port();
        let caller = g.call(g.command(&format!(
            "-d --pid-file app.pid --log-file app.log -n 1 -p {port} -- ./threaded --never-listen"
        )));
        g.until("a worker runs", || g.file("said").contains("idle"));
        kill(Pid::from_raw(caller.child.id() as i32), signal).unwrap();
        let said = g.wait(caller);
        assert_eq!(said.code, -1, "{said:?}");
        g.until("the daemon has stopped", || {
            g.file("app.log").contains("event=stopped code=0")
        });
        let log = g.file("app.log");
        let why = "stopping: the caller of -d has gone before the workers were ready";
        assert!(log.contains(why), "{log}");
        g.end();
    }
}

#[test]
fn a_daemon_that_is_killed_before_it_is_ready_is_not_waited_for() {
    let g = Ground::new();
    let port = free_port();
    let words = format!(
        "-d --pid-file app.pid --log-file app.log -n 1 -p {port} -- ./threaded --never-listen"
    );
    for (signal, code, why) in [
        (Signal::SIGKILL, 71, "without a word"),
        // It did as it was told, but it does not serve.
        (Signal::SIGTERM, 1, "SIGTERM received"),
    ] {
        let _ = fs::remove_file(g.place.dir.join("said"));
        let caller = g.call(g.command(&words));
        g.until("a worker runs", || g.file("said").contains("idle"));
        kill(Pid::from_raw(g.master()), signal).unwrap();
        let said = g.wait(caller);
        assert_eq!(said.code, code, "{said:?}");
        assert!(said.err.contains(why), "{said:?}");
        g.until("the worker has gone", || {
            proc::marked(&g.place.mark).is_empty()
        });
    }
    g.end();
}

#[test]
fn some_workers_will_do_when_the_start_timeout_has_passed() {
    let g = Ground::new();
    let port = free_port();
    let script = "[ {slot} = 0 ] && exec ./threaded; exec sleep 1000";
    let mut cmd = g.command(&format!(
        "-d --pid-file app.pid --log-file app.log --start-timeout 3s -n 2 -p {port} -- sh -c"
    ));
    cmd.arg(script);
    let said = g.wait(g.call(cmd));
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.err.contains("only 1/2 workers are ready after 3s"),
        "{said:?}"
    );
    assert_eq!(get(v4(port), "/").unwrap().status, 200);
    assert_eq!(g.run("--pid-file app.pid stop").code, 0);
    g.end();
}

#[test]
fn what_workers_write_goes_to_the_log_file_and_a_rotated_one_is_let_go_of() {
    let g = Ground::new();
    let port = free_port();
    let script = "echo out $WORKER_ID; echo err $WORKER_ID >&2; exec ./threaded --bye";
    let mut cmd = g.command(&format!(
        "-d --pid-file app.pid --log-file app.log -n 2 -p {port} -- sh -c"
    ));
    cmd.arg(script);
    let said = g.wait(g.call(cmd));
    assert_eq!(said.code, 0, "{said:?}");
    // While it waits the caller sees what workers complain of; what they print is none of that.
    assert!(
        said.err.contains("err 1\n") && !said.err.contains("out 1\n"),
        "{said:?}"
    );
    let log = g.file("app.log");
    for line in ["out 0", "out 1", "err 0", "err 1"] {
        assert!(log.lines().any(|l| l == line), "{log}");
    }
    let at = |name: &str| g.place.dir.join(name);
    fs::rename(at("app.log"), at("app.log.1")).unwrap();
    let old = g.workers();
    kill(Pid::from_raw(g.master()), Signal::SIGUSR1).unwrap();
    g.until("the log is reopened", || {
        g.file("app.log").contains("event=reopened")
    });
    // Those that run have the old one open; the next has the new one.
    kill(Pid::from_raw(old[0]), Signal::SIGKILL).unwrap();
    // It is asked to stop only when it knows what to say then.
    g.until("another worker writes, and serves", || {
        let log = g.file("app.log");
        log.contains("\nerr ") && log.contains("event=ready")
    });
    assert_eq!(g.run("--pid-file app.pid stop").code, 0);
    assert!(g.file("app.log").lines().any(|l| l == "bye"));
    assert!(g.file("app.log.1").lines().any(|l| l == "bye"));
    assert!(g.file("app.log").contains("event=stopped"));
    g.end();
}

#[test]
fn as_pid_1_there_is_no_background() {
    let g = Ground::new();
    let mut cmd = Command::new("unshare");
    cmd.args(["-r", "-pf", "--kill-child", BINARY]);
    let said = g.wait(g.call({
        cmd.args("-d --log-file /dev/null -- sleep 1000".split(' '));
        cmd
    }));
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.err.contains("-d as PID 1"), "{said:?}");
    g.end();
}

/// The words in a mount namespace whose /dev has few files, and, if wanted, a /dev/log that is the
/// socket `syslog` of this place.
fn in_a_dev_of_its_own(g: &Ground, syslog: bool, words: &str) -> Command {
    let script = "mkdir -p dev; mount -t tmpfs none dev; \
        for f in null zero; do touch dev/$f; mount --bind /dev/$f dev/$f; done; \
        [ $2 = false ] || ln -s $1/syslog dev/log; \
        mount --rbind dev /dev; b=$0; shift 2; exec $b \"$@\"";
    let binary = BINARY.to_string();
    let how = match birth::root() {
        true => vec!["unshare", "-m", "sh", "-ec", script],
        false => vec!["unshare", "-rm", "sh", "-ec", script],
    };
    let how: Vec<String> = how.into_iter().map(String::from).collect();
    let mut cmd = g.place.command_by(&how);
    assert_eq!(cmd.get_args().last().unwrap(), binary.as_str());
    cmd.arg(&g.place.dir).arg(syslog.to_string());
    cmd.args(words.split_whitespace());
    cmd
}

#[test]
fn without_syslog_a_daemon_runs_and_warns_once() {
    let g = Ground::new();
    let port = free_port();
    let words = format!("-d --pid-file app.pid -n 1 -p {port} -- ./threaded --stderr-flood");
    let said = g.wait(g.call(in_a_dev_of_its_own(&g, false, &words)));
    assert_eq!(said.code, 0, "{said:?}");
    // The only other one there may be: that a caller who reads slowly missed some of the flood.
    let loud: Vec<&str> = said.err.lines().filter(|l| l.contains(" level=")).collect();
    let loud = loud
        .iter()
        .filter(|l| !l.contains("level=info") && !l.contains("event=log-lost"));
    let loud: Vec<_> = loud.collect();
    assert!(
        loud.len() == 1 && loud[0].contains("event=no-log"),
        "{loud:?}"
    );
    assert_eq!(get(v4(port), "/").unwrap().status, 200);
    assert_eq!(g.run("--pid-file app.pid stop").code, 0);
    let words = "-d --log-file syslog -- ./threaded";
    let said = g.wait(g.call(in_a_dev_of_its_own(&g, false, words)));
    assert_eq!(said.code, 73, "{said:?}");
    assert!(
        said.err
            .contains("--log-file syslog: /dev/log: No such file"),
        "{said:?}"
    );
    g.end();
}

/// A syslogd, as far as we need one: a socket, and what was read from it.
struct Syslogd {
    socket: UnixDatagram,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Syslogd {
    /// One that listens, but reads nothing.
    fn frozen(g: &Ground) -> Syslogd {
        let at = g.place.dir.join("syslog");
        let _ = fs::remove_file(&at);
        let socket = UnixDatagram::bind(at).unwrap();
        let lines = Arc::default();
        Syslogd { socket, lines }
    }

    fn new(g: &Ground) -> Syslogd {
        let syslogd = Syslogd::frozen(g);
        syslogd.thaw();
        syslogd
    }

    fn thaw(&self) {
        let socket = self.socket.try_clone().unwrap();
        let lines = self.lines.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Shut down at the end of the story.
            while let Ok(n @ 1..) = socket.recv(&mut bytes) {
                let line = String::from_utf8_lossy(&bytes[..n]).into_owned();
                lines.lock().unwrap().push(line);
            }
        });
    }

    /// One that holds this.
    fn wait(&self, g: &Ground, text: &str) -> String {
        let find = || {
            let lines = self.lines.lock().unwrap();
            lines.iter().find(|l| l.contains(text)).cloned()
        };
        g.until(&format!("syslogd hears '{text}'"), || find().is_some());
        find().unwrap()
    }
}

impl Drop for Syslogd {
    fn drop(&mut self) {
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
    }
}

#[test]
fn the_log_and_what_workers_write_go_to_syslog() {
    let g = Ground::new();
    let port = free_port();
    let syslogd = Syslogd::new(&g);
    let script = "printf 'out of '; echo one; echo err >&2; exec ./threaded --bye";
    let words = format!("-d --pid-file app.pid --name shop -n 1 -p {port} -- sh -c");
    let mut cmd = in_a_dev_of_its_own(&g, true, &words);
    cmd.arg(script);
    let said = g.wait(g.call(cmd));
    assert_eq!(
        (said.code, said.err.contains("no-log")),
        (0, false),
        "{said:?}"
    );
    let (master, worker) = (g.master(), g.workers()[0]);
    for (text, head, tail) in [
        (
            "out of one",
            "<30>",
            format!(" shop[{worker}]: worker 0: out of one"),
        ),
        ("err", "<30>", format!(" shop[{worker}]: worker 0: err")),
        (
            "is ready on",
            "<30>",
            format!(" minicluster[{master}]: the worker is ready on 0.0.0.0:{port}"),
        ),
    ] {
        let line = syslogd.wait(&g, text);
        assert!(line.starts_with(head) && line.ends_with(&tail), "{line}");
    }
    // One that is started anew has another socket under the same name.
    drop(syslogd);
    let syslogd = Syslogd::new(&g);
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    let line = syslogd.wait(&g, "ended: failure");
    let head = format!(" minicluster[{master}]: warning: worker 0 pid {worker} ended");
    assert!(line.starts_with("<28>") && line.contains(&head), "{line}");
    // That says goodbye when it has begun to listen for that.
    syslogd.wait(&g, "ready after");
    assert_eq!(g.run("--pid-file app.pid stop").code, 0);
    syslogd.wait(&g, "worker 0: bye");
    syslogd.wait(&g, "stopped (exit 0)");
    g.end();
}

#[test]
fn a_syslogd_that_is_frozen_stops_neither_master_nor_workers() {
    let g = Ground::new();
    let port = free_port();
    let syslogd = Syslogd::frozen(&g);
    let words = format!("-d --pid-file app.pid -n 1 -p {port} -- ./threaded --stderr-flood");
    let said = g.wait(g.call(in_a_dev_of_its_own(&g, true, &words)));
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(g.run("--pid-file app.pid status").code, 0);
    // It has written far more than any pipe or queue holds.
    assert_eq!(get(v4(port), "/").unwrap().status, 200);
    syslogd.thaw();
    // It is said with the next line, if there is room for that by then.
    g.until("syslogd hears of the loss", || {
        kill(Pid::from_raw(g.master()), Signal::SIGUSR1).unwrap();
        let lines = syslogd.lines.lock().unwrap();
        lines.iter().any(|l| l.contains("log lines were lost"))
    });
    let lost = syslogd.wait(&g, "log lines were lost");
    let n = lost.split_whitespace().find_map(|w| w.parse::<u32>().ok());
    assert!(n.is_some_and(|n| n > 0), "{lost}");
    syslogd.wait(&g, "connected to syslog");
    assert_eq!(g.run("--pid-file app.pid stop").code, 0);
    g.end();
}

#[test]
fn a_socket_that_was_passed_is_served_by_a_daemon_and_nothing_else_is_kept() {
    let g = Ground::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let words =
        "-d --pid-file app.pid --log-file app.log -n 1 -l fd:7 -- ./threaded --accept-adopt";
    let mut cmd = g.command(words);
    birth::passing(&mut cmd, &listener, 7);
    birth::with_descriptors(&mut cmd, &[9]);
    let said = g.wait(g.call(cmd));
    assert_eq!(said.code, 0, "{said:?}");
    drop(listener);
    assert_eq!(get(addr, "/").unwrap().status, 200);
    let said = g.run("-d --log-file app.log -l fd:0 -- ./threaded");
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.err.contains("-d lets go of fd 0"), "{said:?}");
    assert_eq!(g.run("--pid-file app.pid stop").code, 0);
    g.end();
}
