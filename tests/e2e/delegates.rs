//! Programs that live as long as the master does: those that hear the workers' messages (--on-message),
//! and those that do work for them (--delegate).

use crate::client::{get, v4};
use crate::harness::{Rig, sigkill};
use crate::place::{free_port, run};
use crate::proc;
use nix::sys::signal::Signal;
use std::fs;
use std::time::{Duration, Instant};

const PYTHON: &str = "--ready ready --ipc node -- python3 channel.py";
const NODE: &str = "-- node channel.js";

/// So many workers, with a program in that style for that option.
fn with(n: u16, option: &str, style: &str, workers: &str) -> Rig {
    let port = free_port().to_string();
    let mut words: Vec<String> = ["-n", &n.to_string(), "-p", &port]
        .map(String::from)
        .to_vec();
    words.push(format!("--{option}python3 lines.py {style}"));
    words.extend(workers.split(' ').map(String::from));
    let mut rig = Rig::start(words);
    rig.wait("all-ready", |_| true);
    rig.until("its program runs", || !rig.tales("begun").is_empty());
    rig.note_descriptors();
    rig
}

/// Has a worker, or all, say that.
fn make(rig: &Rig, slot: Option<u16>, said: &str) {
    let text = format!("{{\"cmd\":\"do\",\"say\":{said}}}");
    let mut words = vec!["send".to_string(), text];
    words.extend(slot.map(|s| format!("slot:{s}")));
    let done = rig.verb(words);
    assert_eq!(done.code, 0, "{done:?}");
}

/// Some work, with these fields more.
fn work(n: i32, more: &str) -> String {
    format!(
        "{{\"type\":\"delegate\",\"delegate\":\"work\",\"expect\":\"done\",\"matches\":[\"n\"],\"n\":{n}{more}}}"
    )
}

/// Waits until so many have told this with that number, and no more have.
fn tell(rig: &Rig, event: &str, count: usize, number: i32) {
    let all = || {
        let all = rig.tales(event);
        all.iter().filter(|(_, n)| *n == Some(number)).count()
    };
    rig.until(&format!("{count} tell {event} {number}"), || all() >= count);
    assert_eq!(all(), count, "{event} {number}");
}

fn errors(rig: &Rig) -> String {
    fs::read_to_string(rig.dir().join("errors")).unwrap_or_default()
}

#[test]
fn a_program_hears_the_workers_and_speaks_to_one_of_them_or_to_all() {
    for workers in [NODE, PYTHON] {
        let rig = with(3, "on-message=", "thanks", &format!("{workers} puppet"));
        make(&rig, Some(1), "{\"cmd\":\"one\",\"n\":5}");
        tell(&rig, "thanks", 1, 5);
        make(&rig, Some(2), "{\"cmd\":\"all\",\"n\":6}");
        tell(&rig, "thanks", 3, 6);
        // One without a cmd is heard, too; the answer to somebody's question is not.
        make(&rig, Some(0), "{\"n\":7}");
        tell(&rig, "heard", 1, 7);
        make(&rig, Some(0), "{\"cmd\":\"nobody\",\"n\":8}");
        let dropped = rig.wait_many("program-line-dropped", 1);
        assert!(dropped[0].msg.contains("slot 77 has no worker"));
        make(&rig, None, "{\"cmd\":\"one\",\"n\":9}");
        tell(&rig, "thanks", 3, 9);
        assert_eq!(rig.events("program-line-dropped").len(), 1);
        assert!(rig.tales("over").is_empty());
        let dir = rig.dir().to_path_buf();
        rig.end(&["program-line-dropped"]);
        assert!(!dir.join("said").exists(), "its place has gone");
    }
}

#[test]
fn work_that_many_ask_for_at_the_same_time_is_done_once_and_all_hear_of_it() {
    for workers in [NODE, PYTHON] {
        let rig = with(2, "delegate=work=", "hold", &format!("{workers} puppet"));
        let mine = ",\"targets\":[\"me\"]";
        // Both at once, and what is already under way.
        make(&rig, None, &work(1, mine));
        tell(&rig, "asked", 1, 1);
        make(&rig, Some(0), &work(2, mine));
        fs::write(rig.dir().join("go"), "").unwrap();
        tell(&rig, "done", 2, 1);
        tell(&rig, "done", 1, 2);
        tell(&rig, "asked", 1, 1);
        // Without targets all hear it, once; it is over, and done again.
        make(&rig, Some(1), &work(1, ""));
        tell(&rig, "done", 4, 1);
        tell(&rig, "asked", 2, 1);
        // Nobody waits for this one.
        make(
            &rig,
            Some(1),
            "{\"type\":\"delegate\",\"delegate\":\"work\",\"n\":3}",
        );
        tell(&rig, "asked", 1, 3);
        rig.end(&[]);
    }
}

#[test]
fn who_has_waited_long_enough_gets_an_error_that_says_so() {
    let rig = with(2, "delegate=work=", "hangs", &format!("{PYTHON} puppet"));
    make(
        &rig,
        Some(0),
        &work(1, ",\"timeOut\":100,\"targets\":[\"me\"]"),
    );
    tell(&rig, "error", 1, 1);
    assert_eq!(errors(&rig), "work has not answered in time\n");
    make(&rig, Some(1), &work(2, ",\"timeOut\":50"));
    tell(&rig, "error", 2, 2);
    assert_eq!(rig.events("program-late").len(), 1);
    // One that hangs does not hold up a stop for long.
    let begun = Instant::now();
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["program-late", "program-ended"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn notifications_follow_an_answer_for_as_long_as_who_has_asked_lives() {
    let mut rig = with(2, "delegate=work=", "twice", &format!("{PYTHON} puppet"));
    let mine = ",\"targets\":[\"me\"],\"notification\":true";
    make(&rig, Some(0), &work(10, mine));
    tell(&rig, "done", 1, 12);
    tell(&rig, "done", 1, 11);
    make(&rig, Some(1), &work(20, ",\"targets\":[\"me\"]"));
    // (The first one hears all of it; the other one its answer.)
    tell(&rig, "done", 2, 20);
    tell(&rig, "done", 1, 22);
    let first = rig.status().rows[0].pid.unwrap();
    rig.replace(first);
    make(&rig, Some(1), &work(30, ",\"targets\":[\"me\"]"));
    tell(&rig, "done", 1, 30);
    make(&rig, Some(1), &work(40, ",\"targets\":[\"me\"]"));
    tell(&rig, "done", 1, 40);
    assert!(rig.tales("done").iter().all(|(_, n)| *n != Some(32)));
    rig.end(&["died"]);
}

#[test]
fn who_names_ever_new_pids_for_notifications_is_refused_at_a_limit() {
    let mut rig = with(1, "delegate=work=", "work", &format!("{PYTHON} puppet"));
    // Pids that nobody has.
    let ask = |n: i32| {
        let first = 5_000_000 + 500 * n;
        let pids: Vec<String> = (first..first + 500).map(|p| p.to_string()).collect();
        let more = format!(
            ",\"notification\":true,\"targets\":[\"me\",{}]",
            pids.join(",")
        );
        make(&rig, Some(0), &work(n, &more));
    };
    // The third one finds no room, and that those before are nobody's.
    for n in 1..=4 {
        ask(n);
        tell(&rig, "done", 1, n);
    }
    // That was just now.
    for n in 5..=7 {
        ask(n);
        tell(&rig, "error", 1, n);
    }
    let why = "its notifications would go to 1501 pids (limit 1024)\n";
    assert_eq!(errors(&rig), why.repeat(3));
    let dropped = rig.wait("message-dropped", |_| true);
    assert!(
        dropped.msg.contains("1501 pids (limit 1024)"),
        "{dropped:?}"
    );
    assert_eq!(rig.events("message-dropped").len(), 1);
    // Nothing was done of it, and those that hear go on doing so.
    make(&rig, Some(0), &work(8, ",\"targets\":[]"));
    tell(&rig, "done", 1, 8);
    for n in 5..=7 {
        tell(&rig, "asked", 0, n);
    }
    rig.end(&["message-dropped"]);
}

#[test]
fn a_program_that_dies_is_run_again_and_who_waited_for_it_is_told_at_once() {
    let rig = with(2, "delegate=work=", "dies", &format!("{PYTHON} puppet"));
    let begun = Instant::now();
    make(
        &rig,
        None,
        &work(1, ",\"targets\":[\"me\"],\"timeOut\":40000"),
    );
    tell(&rig, "error", 2, 1);
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(errors(&rig).contains("the program that does work has ended"));
    let ended = rig.wait_many("program-ended", 1);
    assert!(ended[0].msg.contains("exit 3; it is run again"));
    // Nothing was done twice; the next one does what is new.
    make(&rig, Some(1), &work(2, ",\"targets\":[\"me\"]"));
    tell(&rig, "done", 1, 2);
    tell(&rig, "asked", 1, 1);
    assert_eq!(rig.tales("begun").len(), 2);
    // By whatever end.
    let pid = rig.tales("begun")[1].0;
    sigkill(pid);
    rig.until("it runs again", || rig.tales("begun").len() == 3);
    rig.end(&["program-ended"]);
}

#[test]
fn garbage_that_a_program_writes_is_dropped_and_said_once() {
    let rig = with(1, "delegate=work=", "garbage", &format!("{PYTHON} puppet"));
    for n in 1..=3 {
        make(&rig, Some(0), &work(n, ""));
        tell(&rig, "done", 1, n);
    }
    let dropped = rig.events("program-line-dropped");
    assert_eq!(dropped.len(), 1);
    assert!(dropped[0].msg.contains("no JSON value"), "{dropped:?}");
    rig.end(&["program-line-dropped"]);
}

#[test]
fn a_program_that_does_not_read_has_a_limit_and_is_no_matter_to_others() {
    let rig = with(2, "delegate=work=", "hangs", &format!("{PYTHON} puppet"));
    let long = format!(",\"timeOut\":1,\"x\":\"{}\"", "x".repeat(60_000));
    let mut n = 0;
    rig.until("there is no room", || {
        n += 1;
        make(&rig, Some(0), &work(n, &long));
        !rig.events("program-behind").is_empty()
    });
    // 1 MiB waits, and what the pipe holds.
    assert!((15..40).contains(&n), "{n}");
    rig.until("each has had its answer", || {
        errors(&rig).lines().count() == 2 * n as usize
    });
    // (Each of the two hears of each.)
    let refused = errors(&rig).matches("does not keep up").count() / 2;
    assert!(refused > 0);
    fs::write(rig.dir().join("go"), "").unwrap();
    rig.until("it has read all that it was given", || {
        rig.tales("asked").len() == n as usize - refused
    });
    make(&rig, Some(1), &work(1000, ""));
    tell(&rig, "done", 2, 1000);
    let room = rig.wait_many("program-room", 1);
    assert!(
        room[0].msg.contains(&format!("{refused} messages")),
        "{room:?}"
    );
    rig.end(&["program-behind", "program-late"]);
}

#[test]
fn after_thousands_of_delegations_nothing_is_left() {
    let rig = with(2, "delegate=work=", "quiet", &format!("{PYTHON} asks"));
    let load = |count: usize, rounds: usize| {
        let text = format!("{{\"cmd\":\"load\",\"count\":{count}}}");
        assert_eq!(rig.verb(vec!["send".into(), text]).code, 0);
        rig.until("all is done", || rig.tales("loaded").len() == 2 * rounds);
    };
    load(200, 1);
    let before = proc::resident(rig.pid());
    let begun = Instant::now();
    load(5000, 2);
    println!("10000 delegations took {:?}", begun.elapsed());
    let after = proc::resident(rig.pid());
    println!("resident: {before} KiB before, {after} KiB after");
    assert!(after < before + 512, "{before} {after} KiB");
    assert!(rig.tales("loaded").iter().any(|(_, n)| *n == Some(5000)));
    rig.end(&["log-lost"]);
}

#[test]
fn a_program_that_cannot_be_run_is_told_at_the_start_and_refuses_a_reload() {
    let place = crate::place::Place::new();
    for option in ["--on-message=./nowhere", "--delegate=work=./nowhere"] {
        let mut cmd = place.command();
        cmd.args(["-n", "1", option, "--", "./threaded"]);
        let said = run(cmd, Instant::now() + Duration::from_secs(20));
        assert_eq!(said.code, 78, "{said:?}");
        assert!(said.err.contains("./nowhere: not found"), "{said:?}");
    }
    let port = free_port();
    let words = format!("-n 1 -p {port} --config a.conf {PYTHON} puppet");
    let mut rig = Rig::dressed(words, |_, dir| {
        fs::write(dir.join("a.conf"), "delegate work=python3 lines.py work\n").unwrap();
    });
    rig.wait("all-ready", |_| true);
    make(&rig, Some(0), &work(1, ""));
    tell(&rig, "done", 1, 1);
    let conf = rig.dir().join("a.conf");
    fs::write(&conf, "delegate work=./nowhere\n").unwrap();
    let said = rig.verb("reload");
    assert_eq!(said.code, 1);
    assert!(said.err.contains("--delegate work: ./nowhere: not found"));
    // One that is the same goes on.
    let same = "on-message python3 lines.py thanks\ndelegate work=python3 lines.py work\n";
    fs::write(&conf, same).unwrap();
    assert_eq!(rig.verb("reload").code, 0);
    rig.until("the other one runs, too", || rig.tales("begun").len() == 2);
    make(&rig, Some(0), "{\"cmd\":\"one\",\"n\":2}");
    tell(&rig, "thanks", 1, 2);
    assert!(rig.tales("over").is_empty());
    // Both are exchanged; the old ones come to their end by themselves.
    let other = "on-message python3 lines.py thanks x\ndelegate work=python3 lines.py twice\n";
    fs::write(&conf, other).unwrap();
    assert_eq!(rig.verb("reload").code, 0);
    rig.until("both old ones are over", || rig.tales("over").len() == 2);
    make(&rig, Some(0), &work(5, ",\"notification\":true"));
    tell(&rig, "done", 1, 7);
    // And without any.
    fs::write(&conf, "").unwrap();
    assert_eq!(rig.verb("reload").code, 0);
    rig.until("all are over", || rig.tales("over").len() == 4);
    make(&rig, Some(0), &work(6, ""));
    tell(&rig, "error", 1, 6);
    // (They tell that before they end.)
    rig.until("only the worker is left", || {
        proc::children(rig.pid()).len() == 1
    });
    rig.end(&["reload-failed"]);
}

#[test]
fn new_workers_find_who_does_new_work_and_a_reload_that_fails_takes_it_back() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --config a.conf {PYTHON} puppet");
    let mut rig = Rig::dressed(words, |_, dir| {
        fs::write(dir.join("a.conf"), "ready-timeout 20s\n").unwrap();
    });
    rig.wait("all-ready", |_| true);
    // The new worker does not get ready before it is killed; its work is there meanwhile.
    let conf = rig.dir().join("a.conf");
    let new = "env HOLD=1\ndelegate work=python3 lines.py work\n";
    fs::write(&conf, new).unwrap();
    let reload = rig.meanwhile("reload");
    rig.until("somebody does it", || !rig.tales("begun").is_empty());
    make(&rig, Some(0), &work(1, ",\"targets\":[\"me\"]"));
    tell(&rig, "done", 1, 1);
    // Its attempts are over by a rollback.
    assert_eq!(rig.verb("rollback").code, 0);
    assert_ne!(reload.join().unwrap().code, 0);
    rig.until("nobody does it", || !rig.tales("over").is_empty());
    make(&rig, Some(0), &work(2, ""));
    tell(&rig, "error", 1, 2);
    rig.end(&["reload-failed", "died", "killed"]);
}

#[test]
fn a_program_that_never_rests_does_not_keep_workers_from_serving() {
    let port = free_port();
    let mut rig = Rig::start([
        "-n",
        "2",
        "-p",
        &port.to_string(),
        "--on-message=yes '{\"msg\":{\"x\":1}}'",
        "--on-message=yes rubbish",
        "--ipc",
        "node",
        "--",
        "./threaded",
    ]);
    rig.wait("all-ready", |_| true);
    // (These workers read nothing of their channels. The log has all that is written, and lags behind.)
    rig.until("there is no room in their channels", || {
        // (With an error when it is so with both.)
        rig.verb("send {}").err.contains("too much waits already")
    });
    for _ in 0..20 {
        let begun = Instant::now();
        get(v4(port), "/").unwrap();
        assert_eq!(rig.status().ready, 2);
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
    assert!(rig.events("message-refused").len() <= 2);
    assert!(rig.events("program-line-dropped").len() <= 1);
    let begun = Instant::now();
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["message-refused", "program-line-dropped", "log-lost"]);
    assert!(begun.elapsed() < Duration::from_secs(8));
}

#[test]
fn a_program_that_never_stops_complaining_has_so_many_lines_a_second_of_the_log() {
    for ends in ["", "& sleep 0.2"] {
        let port = free_port();
        let program = format!("--delegate=x=sh -c 'yes why >&2 {ends}'");
        let mut rig = Rig::start([
            "-n",
            "1",
            "-p",
            &port.to_string(),
            &program,
            "--",
            "./threaded",
        ]);
        rig.wait("all-ready", |_| true);
        let dropped = rig.wait_many("program-line-dropped", 3);
        assert!(dropped[0].msg.contains("(limit 100 in 1s)"), "{dropped:?}");
        let (says, dropped) = (
            rig.events("program-says"),
            rig.events("program-line-dropped"),
        );
        assert!(says.len() <= 100 * (dropped.len() + 1), "{}", says.len());
        get(v4(port), "/").unwrap();
        assert_eq!(rig.status().ready, 1);
        rig.signal(Signal::SIGTERM);
        rig.finish(0, &["program-line-dropped", "program-ended", "log-lost"]);
    }
}

#[test]
fn a_program_that_goes_by_nothing_does_not_hold_up_a_stop() {
    let rig = with(1, "delegate=work=", "deaf", &format!("{PYTHON} puppet"));
    let begun = Instant::now();
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &[]);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_example_does_what_it_says() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/delegate.py");
    let port = free_port();
    let option = format!("--delegate=square=python3 {example} program");
    let (p, ready) = (port.to_string(), "listening");
    let mut rig = Rig::start([
        "-n", "2", "-p", &p, "--ready", ready, "--ipc", "node", &option, "--", "python3", example,
        "worker",
    ]);
    rig.up();
    let page = get(v4(port), "/12").unwrap();
    assert!(
        page.body.contains("the square of 12 is 144 (asked once)"),
        "{page:?}"
    );
    let again = get(v4(port), "/12").unwrap();
    assert!(again.body.contains("144 (asked 2 times)"), "{again:?}");
    rig.end(&[]);
}
