//! Another number of workers while the cluster runs, by verb and by signal; who they are; signals
//! that are passed on to them; and stops that have a budget.

use crate::birth;
use crate::client::{all_answer, get, v4};
use crate::harness::{Rig, Status};
use crate::place::{Said, free_port, python};
use crate::proc;
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use tinyjson::JsonValue;

fn told(said: &Said) -> (i32, &str, &str) {
    (said.code, &*said.out, &*said.err)
}

/// So many are ready, and no other is left.
fn are(n: usize) -> impl Fn(&Status) -> bool {
    move |s| s.ready == n && s.wanted == n && s.rows.len() == n
}

#[test]
fn more_workers_serve_at_once_and_fewer_leave_the_others_alone() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded --graceful --env"));
    rig.up();
    let old = rig.status().pids();
    let said = rig.verb("resize 4");
    assert_eq!(told(&said), (0, "4 workers\n", ""));
    let four = rig.status();
    assert!(are(4)(&four));
    assert_eq!(four.pids()[..2], old);
    assert_eq!(all_answer(&rig, v4(port), "/", 4).len(), 4);
    for (slot, reason) in [(0, "start"), (3, "resize")] {
        let all = rig.events("forked");
        let forked = all.iter().find(|e| e.slot() == slot).unwrap();
        assert_eq!(forked.text("reason"), reason);
    }
    // Who comes now is told the new number.
    rig.until("a later one answers", || {
        let report = get(v4(port), "/env").unwrap();
        let late = report.env("WORKER_ID") == Some("3");
        assert!(!late || report.env("MINICLUSTER_WORKERS") == Some("4"));
        late
    });
    let said = rig.verb("resize -3");
    assert_eq!(told(&said), (0, "1 worker\n", ""));
    assert_eq!(rig.status().pids(), old[..1]);
    for died in rig.wait_many("died", 3) {
        assert_eq!(
            (died.text("reason"), died.level.as_str()),
            ("resize", "info")
        );
    }
    assert_eq!(rig.tales("term").len(), 3);
    assert!(rig.verb("why 3").out.contains("resize (exit 0)"));
    // It is what is wanted already.
    assert_eq!(told(&rig.verb("resize 1")), (0, "1 worker\n", ""));
    assert_eq!(rig.events("resized").len(), 2);
    assert_eq!(rig.verb("resize +1").out, "2 workers\n");
    rig.end(&[]);
}

#[test]
fn a_size_that_cannot_be_is_refused_with_what_can() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 1 -p {port} -- ./threaded"));
    rig.up();
    for (words, want) in [
        (
            "resize 0",
            "'0' is no number of workers: write one from 1 to 1024",
        ),
        ("resize four", "'four' is no number"),
        ("resize 1025", "1 to 1024"),
        ("resize", "how many workers?"),
        ("resize 2 3", "does not take 3"),
        (
            "resize -1",
            "there is 1 worker, and -1 is refused: there can be 1 to 1024",
        ),
        ("resize +1024", "+1024 is refused"),
        ("workers all", "neither simple nor details"),
        ("signal FOO", "'FOO' is no signal"),
        ("signal", "which signal?"),
        ("signal USR1 worker:1", "slot:N or pid:N"),
        ("signal USR1 slot:1", "there is no slot 1: slots are 0 to 0"),
        ("signal USR1 pid:1", "pid 1 is no worker"),
        (
            "signal USR1 1",
            "1 is neither a slot (0 to 0) nor the pid of a worker",
        ),
    ] {
        let said = rig.verb(words);
        assert_eq!(
            (said.code, said.out.as_str()),
            (64, ""),
            "{words}: {said:?}"
        );
        assert!(said.err.contains(want), "{words}: {said:?}");
    }
    assert!(rig.events("resizing").is_empty());
    rig.end(&[]);
}

#[test]
fn a_person_types_it_at_the_socket_too_and_goes_on() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded"));
    rig.up();
    let stream = UnixStream::connect(rig.socket()).unwrap();
    stream
        .set_read_timeout(Some(std::time::Duration::from_secs(30)))
        .unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut typed = |line: &str| {
        (&stream).write_all(format!("{line}\n").as_bytes()).unwrap();
        lines.next().unwrap().unwrap()
    };
    assert_eq!(typed("resize -1"), "1 worker");
    assert_eq!(typed("resize +2 --no-wait"), "resizing to 3 workers");
    assert_eq!(typed("resize 3"), "3 workers");
    let json = typed("resize 3 --json");
    assert_eq!(
        json,
        r#"{"workers":3,"done":true,"error":null,"stderr":""}"#
    );
    // Of two lines at once the second sees what the first has done.
    assert_eq!(
        typed("resize 2 --no-wait\nstatus --json"),
        "resizing to 2 workers"
    );
    let status: JsonValue = lines.next().unwrap().unwrap().parse().unwrap();
    assert_eq!(status["wanted"].get::<f64>(), Some(&2.0));
    drop((lines, stream));
    rig.wait_status("there are two", are(2));
    rig.end(&[]);
}

#[test]
fn ttin_and_ttou_are_one_worker_more_and_one_fewer() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 1 -p {port} -- ./threaded"));
    rig.up();
    let first = rig.status().pids()[0];
    for (signal, n) in [
        (Signal::SIGTTIN, 2),
        (Signal::SIGTTIN, 3),
        (Signal::SIGTTOU, 2),
    ] {
        rig.signal(signal);
        let resized = rig.wait("resized", |_| true);
        assert_eq!(resized.number("workers"), f64::from(n));
        let now = rig.status();
        assert!(are(n as usize)(&now), "{now:?}");
        assert_eq!(now.pids()[0], first);
    }
    assert_eq!(rig.events("resizing")[0].text("reason"), "SIGTTIN received");
    rig.signal(Signal::SIGTTOU);
    rig.wait("resized", |_| true);
    rig.signal(Signal::SIGTTOU);
    let bound = rig.wait("at-bound", |_| true);
    assert!(
        bound.msg.contains("there can be 1 to 1024"),
        "{}",
        bound.msg
    );
    assert_eq!(rig.status().pids(), [first]);
    rig.end(&["at-bound"]);
}

/// Runs the rest of its words on a terminal, in a background process group of which another member
/// reads from that terminal once there is a file `go`. What the words write to stderr comes to us.
const IN_BACKGROUND: &str = "
import os, pty, signal, sys, time
err = os.dup(2)
child, far = pty.fork()
if child == 0:
    if os.fork() == 0:
        os.setpgid(0, 0)
        reader = os.fork()
        if reader == 0:
            while not os.path.exists('go'):
                time.sleep(0.01)
            os.read(0, 1)
            os._exit(0)
        with open('reader', 'w') as f:
            f.write(str(reader))
        os.dup2(err, 2)
        os.execv(sys.argv[1], sys.argv[1:])
    os.close(err)
    code = os.waitstatus_to_exitcode(os.wait()[1])
    os.kill(int(open('reader').read()), signal.SIGKILL)
    os._exit(code)
os.close(err)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
";

#[test]
fn a_ttin_that_the_terminal_sends_is_not_meant_for_us() {
    let port = free_port();
    let words = format!("-n 1 -p {port} -- ./threaded");
    let mut rig = Rig::by([python(), "-c", IN_BACKGROUND], words);
    rig.wait("all-ready", |_| true);
    let reader = std::fs::read_to_string(rig.dir().join("reader")).unwrap();
    let reader: i32 = reader.parse().unwrap();
    let master = rig.status().pid;
    assert_eq!(proc::group(reader), proc::group(master));
    std::fs::write(rig.dir().join("go"), "").unwrap();
    // It is stopped by the very signal that its whole group was sent.
    rig.until("the reader is stopped", || proc::stopped(reader));
    assert_eq!(rig.status().wanted, 1);
    assert!(rig.events("resizing").is_empty());
    assert_eq!(rig.verb("stop").code, 0);
    rig.finish(0, &[]);
}

#[test]
fn a_signal_is_passed_on_to_all_workers_or_to_one() {
    let script = "trap 'echo got it in $WORKER_ID >&2' USR1; trap 'exit 5' HUP; echo up >&2; \
                  while :; do sleep 0.02; done";
    let mut rig = Rig::start(["-n", "2", "--ready", "started", "--", "sh", "-c", script]);
    rig.up();
    rig.until("both are up", || {
        rig.lines().iter().filter(|l| *l == "up").count() == 2
    });
    let pids = rig.status().pids();
    let said = rig.verb("signal USR1 1");
    let one = format!("SIGUSR1 sent to worker 1 pid {}\n", pids[1]);
    assert_eq!(told(&said), (0, one.as_str(), ""));
    rig.wait_line("got it in 1");
    assert!(!rig.lines().contains(&"got it in 0".to_string()));
    let said = rig.verb("signal 10");
    let all = format!("SIGUSR1 sent to 2 workers: {} {}\n", pids[0], pids[1]);
    assert_eq!(told(&said), (0, all.as_str(), ""));
    rig.wait_line("got it in 0");
    let event = rig.wait("signalled", |e| e.number("workers") == 2.0);
    assert_eq!(event.text("signal"), "SIGUSR1");
    assert!(event.number("by_pid") > 1.0);
    // One that dies of it is replaced as usual.
    let said = rig.verb(format!("signal SIGHUP pid:{} --json", pids[0]));
    let json: JsonValue = said.out.parse().unwrap();
    assert_eq!(json["workers"][0]["slot"].get::<f64>(), Some(&0.0));
    let died = rig.wait("died", |_| true);
    assert_eq!((died.pid(), died.number("code")), (pids[0], 5.0));
    rig.wait("ready", |e| e.slot() == 0);
    rig.end(&["died"]);
}

#[test]
fn nobody_is_there_for_a_signal_while_a_slot_waits() {
    let mut rig = Rig::start("-n 1 --respawn 30s -- false");
    rig.wait("respawning", |_| true);
    for (words, want) in [
        ("signal USR1", "minicluster: there is no worker now\n"),
        (
            "signal USR1 0",
            "minicluster: slot 0 has no worker now (status tells why; a reload or an upgrade of all fills it)\n",
        ),
    ] {
        assert_eq!(told(&rig.verb(words)), (1, "", want));
    }
    assert_eq!(rig.verb("workers").out, "there is no worker now\n");
    assert_eq!(rig.verb("workers --json").out, "[]\n");
    rig.end(&["died"]);
}

#[test]
fn who_asks_for_more_hears_the_last_words_of_the_one_that_is_not_ready() {
    let port = free_port().to_string();
    let script = "test $WORKER_ID = 0 || test -e stock || { echo no such database >&2; exit 3; }; \
                  exec ./threaded";
    let mut rig = Rig::start(["-n", "1", "-p", &port, "--", "sh", "-c", script]);
    rig.up();
    let said = rig.verb("resize 2");
    assert_eq!(said.code, 1, "{said:?}");
    for part in [
        "not 2 workers yet: worker 1 pid ",
        "ended: failure (exit 3) after",
        "never ready; its slot goes on trying",
        "\n    | no such database\n",
    ] {
        assert!(said.err.contains(part), "{said:?}");
    }
    let json: JsonValue = rig.verb("resize 2 --json").out.parse().unwrap();
    assert_eq!(json["done"].get::<bool>(), Some(&false));
    assert_eq!(json["stderr"].get::<String>().unwrap(), "no such database");
    // The slot is still wanted, and comes to be ready when it can.
    std::fs::write(rig.dir().join("stock"), "").unwrap();
    rig.wait_status("there are two", are(2));
    rig.wait("resized", |e| e.number("workers") == 2.0);
    assert_eq!(rig.verb("resize 1").code, 0);
    rig.end(&["died"]);
}

/// Workers beyond the first are ready when there is a file `go`.
fn waiting() -> Rig {
    let port = free_port().to_string();
    let script = "until test $WORKER_ID = 0 || test -e go; do sleep 0.01; done; exec ./threaded";
    let mut rig = Rig::start(["-n", "1", "-p", &port, "--", "sh", "-c", script]);
    rig.up();
    rig
}

#[test]
fn the_later_size_counts_and_who_waits_for_the_first_is_told() {
    let rig = waiting();
    let first = rig.meanwhile("resize 3");
    rig.wait_many("forked", 3);
    let second = rig.meanwhile("resize 2");
    let said = first.join().unwrap();
    assert_eq!((said.code, said.out.as_str()), (1, ""), "{said:?}");
    let head = "minicluster: superseded by resize 2: asked by a client, pid ";
    assert!(said.err.starts_with(head), "{said:?}");
    std::fs::write(rig.dir().join("go"), "").unwrap();
    assert_eq!(told(&second.join().unwrap()), (0, "2 workers\n", ""));
    rig.wait_status("there are two", are(2));
    // As many descriptors are open in the end as in the beginning.
    assert_eq!(rig.verb("resize 1").code, 0);
    rig.end(&[]);
}

#[test]
fn a_stop_comes_before_a_resize_and_is_told() {
    let rig = waiting();
    let resize = rig.meanwhile("resize 2 --json");
    rig.wait_many("forked", 2);
    assert_eq!(rig.verb("stop").code, 0);
    let said = resize.join().unwrap();
    let json = "{\"workers\":2,\"done\":false,\"error\":\"the cluster stops\",\"stderr\":\"\"}\n";
    assert_eq!(told(&said), (1, json, ""));
    rig.finish(0, &[]);
}

#[test]
fn a_client_that_hangs_up_does_not_call_a_resize_off() {
    let mut rig = waiting();
    let mut cmd = rig.command();
    cmd.arg("-C").arg(rig.socket()).args(["resize", "2"]);
    let mut client = cmd.spawn().unwrap();
    rig.wait_many("forked", 2);
    client.kill().unwrap();
    client.wait().unwrap();
    std::fs::write(rig.dir().join("go"), "").unwrap();
    rig.wait("resized", |e| e.number("workers") == 2.0);
    assert!(are(2)(&rig.status()));
    assert_eq!(rig.verb("resize 1").code, 0);
    rig.end(&[]);
}

#[test]
fn a_deaf_worker_that_is_too_many_is_killed_at_the_stop_timeout() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --stop-timeout 300ms -- ./threaded --deaf");
    let mut rig = Rig::start(words);
    rig.up();
    assert_eq!(told(&rig.verb("resize 1")), (0, "1 worker\n", ""));
    let killed = rig.wait("killed", |_| true);
    assert!(killed.number("after") >= 0.3 && killed.number("limit") == 0.3);
    let died = rig.wait("died", |_| true);
    assert_eq!(
        (died.text("reason"), died.text("signal")),
        ("resize", "SIGKILL")
    );
    assert_eq!(rig.verb("resize 2").code, 0);
    rig.end(&["killed"]);
}

#[test]
fn the_deaf_server_of_a_shell_that_is_too_many_is_killed_at_the_stop_timeout() {
    let port = free_port().to_string();
    let script = "./threaded --deaf; true";
    let words = [
        "-n",
        "2",
        "-p",
        &port,
        "--stop-timeout",
        "1s",
        "--",
        "sh",
        "-c",
        script,
    ];
    let mut rig = Rig::start(words);
    rig.up();
    let second = rig.status().pids()[1];
    let server = proc::all()
        .into_iter()
        .find(|p| proc::parent(*p) == Some(second));
    let server = server.unwrap();
    assert_eq!(rig.verb("resize 1").code, 0);
    // The shell has gone at once, and left it where nobody would look for it.
    rig.until("the server has gone", || !proc::alive(server));
    assert_eq!(get(v4(port.parse().unwrap()), "/").unwrap().status, 200);
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["leftovers"]);
}

/// PID 1 of a pid namespace of its own.
fn as_pid_1(words: &str) -> Rig {
    let how = if birth::root() { "-pf" } else { "-rpf" };
    Rig::by(["unshare", how, "--mount-proc", "--kill-child"], words)
}

#[test]
fn pid_1_leaves_within_its_budget_however_deaf_its_workers_are() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --stop-budget 2s --stop-timeout 40s -- ./threaded --deaf");
    let mut rig = as_pid_1(&words);
    rig.wait("all-ready", |_| true);
    assert_eq!(rig.verb("stop").code, 0);
    let stopping = rig.wait("stopping", |_| true);
    let limits = "2 workers, drained for up to 777ms, then asked to stop, all has to be over in 2s (--stop-budget)";
    assert!(stopping.msg.ends_with(limits), "{}", stopping.msg);
    for killed in rig.wait_many("killed", 2) {
        // Of the time of all workers a little went to draining.
        assert_eq!(killed.number("limit"), 1.5);
        assert!((1.0..40.0).contains(&killed.number("after")), "{killed:?}");
        assert!(killed.msg.contains("--stop-budget 2s"), "{}", killed.msg);
    }
    assert!(rig.events("stuck").is_empty());
    rig.finish(0, &["killed"]);
}

#[test]
fn pid_1_has_a_budget_of_its_own_and_nobody_else_has() {
    let words = |budget| {
        let port = free_port();
        format!("-n 1 -p {port} {budget} -- ./threaded --graceful")
    };
    let masters = [
        (
            as_pid_1(&words("")),
            "drained for up to 4.6s, then asked to stop, all has to be over in 9s",
        ),
        (
            as_pid_1(&words("--stop-budget 0")),
            "drained for up to 10s, then asked to stop and killed 10s later",
        ),
        (
            Rig::start(words("")),
            "drained for up to 10s, then asked to stop and killed 10s later",
        ),
    ];
    for (mut rig, want) in masters {
        rig.wait("all-ready", |_| true);
        assert_eq!(rig.verb("stop").code, 0);
        let stopping = rig.wait("stopping", |_| true);
        assert!(stopping.msg.contains(want), "{}", stopping.msg);
        let budget = stopping.msg.contains("--stop-budget");
        assert_eq!(budget, want.contains("9s"), "{}", stopping.msg);
        rig.finish(0, &[]);
    }
}
