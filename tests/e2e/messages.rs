//! Messages: unmodified workers of the clusters of Node, and one in Python, with each other and with
//! whoever asks; and those that say too much or do not listen, which are no matter to anybody else.

use crate::client::{all_answer, get, v4};
use crate::harness::Rig;
use crate::place::free_port;
use nix::sys::signal::Signal;
use std::fs;
use std::time::{Duration, Instant};
use tinyjson::JsonValue;

/// So many workers of channel.js in that style.
fn node(n: u16, port: u16, style: &str, options: &str) -> Rig {
    Rig::start(format!(
        "-n {n} -p {port} {options} -- node channel.js {style}"
    ))
}

/// A verb with JSON in it, which must not be split at blanks.
fn said(rig: &Rig, words: &[&str]) -> (i32, String) {
    let words: Vec<String> = words.iter().map(|w| w.to_string()).collect();
    let said = rig.verb(words);
    (said.code, format!("{}{}", said.out, said.err))
}

/// Waits until so many have told this, each with that number.
fn tell(rig: &Rig, event: &str, count: usize, number: i32) {
    rig.until(&format!("{count} tell {event} {number}"), || {
        let all = rig.tales(event);
        all.iter().filter(|(_, n)| *n == Some(number)).count() == count
    });
}

#[test]
fn a_worker_of_recluster_is_ready_by_its_word_and_closes_when_it_is_told_to() {
    let port = free_port();
    let mut rig = node(2, port, "recluster", "--ready ready");
    rig.up();
    get(v4(port), "/").unwrap();
    assert_eq!(rig.verb("reload").code, 0);
    rig.until("the old ones have closed", || {
        rig.tales("closed").len() == 2
    });
    rig.signal(Signal::SIGTERM);
    rig.until("all have closed", || rig.tales("closed").len() == 4);
    assert_eq!(rig.tales("told").len(), 4);
    rig.finish(0, &[]);
}

#[test]
fn workers_of_proteus_are_spoken_to_and_answer() {
    let port = free_port();
    let mut rig = node(3, port, "proteus", "");
    rig.up();
    let ping = "{\"cmd\":\"ping\"}";
    assert_eq!(
        said(&rig, &["send", "{\"cmd\":\"say\",\n\"n\":7}"]).1,
        "told 3 workers\n"
    );
    tell(&rig, "heard", 3, 7);
    assert_eq!(
        said(&rig, &["send", "{\"cmd\":\"say\",\"n\":8}", "1"]).1,
        "told 1 worker\n"
    );
    tell(&rig, "heard", 1, 8);
    // What nobody waits for is an event.
    let long = format!("{{\"cmd\":\"echo\",\"x\":\"{}\"}}", "ü".repeat(5000));
    said(&rig, &["send", &long, "0"]);
    let event = rig.wait("message", |e| e.text("message").contains("echo"));
    assert_eq!(event.slot(), 0);
    assert!(event.text("message").len() <= 4096);
    assert!(event.msg.contains("bytes, cut at 4096"), "{}", event.msg);
    let all = "[\"pong 0\",\"pong 1\",\"pong 2\"]\n";
    assert_eq!(said(&rig, &["sync-send", ping]), (0, all.into()));
    assert_eq!(
        said(&rig, &["sync-send", "{\"cmd\":\"nothing\"}", "--json"]),
        (0, "[\"\",\"\",\"\"]\n".into())
    );
    // Without a cmd nothing is waited for.
    let ok = "[\"OK\",\"OK\",\"OK\"]\n";
    assert_eq!(said(&rig, &["sync-send", "{\"x\":1}"]), (0, ok.into()));
    // One that asks is told even if all ask at the same time.
    for n in 0..3 {
        let text = format!("{{\"cmd\":\"all\",\"n\":{n}}}");
        said(&rig, &["send", &text, &n.to_string()]);
        tell(&rig, "flush", 3, n);
    }
    said(&rig, &["send", "{\"cmd\":\"work\",\"n\":5}", "2"]);
    tell(&rig, "refused", 1, 5);
    said(&rig, &["send", "{\"cmd\":\"bad\",\"n\":6}", "2"]);
    tell(&rig, "faulty", 1, 6);
    // As somebody types it.
    use std::io::{BufRead, BufReader, Write};
    let mut door = std::os::unix::net::UnixStream::connect(rig.socket()).unwrap();
    for typed in [
        "sync-send {\"cmd\": \"ping\"}\n",
        "sync-send({\"cmd\": \"ping\"})\n",
    ] {
        door.write_all(typed.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(&door).read_line(&mut answer).unwrap();
        assert_eq!(answer, all);
    }
    drop(door);
    rig.end(&["message-dropped"]);
}

#[test]
fn a_worker_behind_a_wrapper_names_itself_by_the_pid_it_has() {
    let port = free_port();
    let p = port.to_string();
    let line = "node channel.js proteus; exit";
    let mut rig = Rig::start(["-n", "1", "-p", &p, "--ipc", "node", "--", "sh", "-c", line]);
    rig.up();
    assert_eq!(said(&rig, &["send", "{\"cmd\":\"work\",\"n\":5}"]).0, 0);
    tell(&rig, "refused", 1, 5);
    rig.end(&[]);
}

#[test]
fn who_asks_for_a_day_and_hangs_up_does_not_keep_others_from_asking() {
    use std::io::Write;
    let port = free_port();
    let mut rig = node(2, port, "proteus", "");
    rig.up();
    // As many as there may be, each for a cmd that nobody answers.
    let full = 64;
    for n in 0..full {
        let mut door = std::os::unix::net::UnixStream::connect(rig.socket()).unwrap();
        let text = format!("{{\\\"cmd\\\":\\\"c{n}\\\"}}");
        let line = format!("[\"sync-send\",\"{text}\",\"timeout\",\"1d\"]\n");
        door.write_all(line.as_bytes()).unwrap();
    }
    let late = rig.wait_many("message-unanswered", full);
    let text = &late[0].msg;
    assert!(
        text.contains("2 of 2 workers") && !text.contains("1d"),
        "{text}"
    );
    let all = "[\"pong 0\",\"pong 1\"]\n";
    let again = said(&rig, &["sync-send", "{\"cmd\":\"ping\"}"]);
    assert_eq!(again, (0, all.into()));
    rig.end(&[]);
}

#[test]
fn who_does_not_answer_is_not_waited_for_for_ever() {
    let port = free_port();
    let mut rig = node(2, port, "proteus", "");
    rig.up();
    let begun = Instant::now();
    let late = said(&rig, &["sync-send", "{\"cmd\":\"who\",\"timeout\":10}"]);
    assert_eq!(late.0, 1);
    assert!(late.1.contains("worker timeout."), "{late:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let story = rig.wait("message-unanswered", |_| true);
    assert!(story.msg.contains("2 of 2 workers"), "{}", story.msg);
    // One at a time for each cmd.
    let patient = "{\"cmd\":\"say\",\"n\":9}";
    let words = ["sync-send", patient, "timeout", "40s"].map(String::from);
    let first = rig.meanwhile(words.to_vec());
    tell(&rig, "heard", 2, 9);
    let (code, text) = said(&rig, &["sync-send", patient]);
    assert!(code == 1 && text.contains("server too busy."), "{text}");
    let other = said(&rig, &["sync-send", "{\"cmd\":\"ping\"}"]);
    assert_eq!(other, (0, "[\"pong 0\",\"pong 1\"]\n".into()));
    // Those that are gone say nothing; the next ones were not asked.
    for pid in rig.status().pids() {
        rig.replace(pid);
    }
    let first = first.join().unwrap();
    assert_eq!((first.code, first.out.as_str()), (0, "[\"\",\"\"]\n"));
    let all: JsonValue = rig.verb("status --json").out.parse().unwrap();
    assert_eq!(*all["ready"].get::<f64>().unwrap(), 2.0);
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["died"]);
}

#[test]
fn what_a_worker_says_before_it_ends_is_heard() {
    let port = free_port();
    let mut rig = node(2, port, "once", "");
    rig.up();
    for round in 1..=3 {
        let text = format!("{{\"cmd\":\"c{round}\"}}");
        let (code, out) = said(&rig, &["sync-send", &text]);
        assert_eq!((code, out.as_str()), (0, "[\"bye\",\"bye\"]\n"));
        rig.wait_many("died", 2 * round);
        rig.wait_many("ready", 2 + 2 * round);
    }
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["died", "log-lost"]);
}

#[test]
fn a_message_that_can_reach_nobody_says_how_it_could() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded"));
    rig.up();
    for words in [&["send", "{}"][..], &["sync-send", "{\"cmd\":\"x\"}"]] {
        let (code, text) = said(&rig, words);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("--ipc node"), "{text}");
    }
    for (words, why) in [
        (&["send", "{cmd:1}"][..], "no JSON value"),
        (&["send"], "which message?"),
        (&["send", "{}", "9"], "9 is neither a slot"),
        (&["sync-send", "{}", "now"], "not timeout T"),
    ] {
        let (code, text) = said(&rig, words);
        assert_eq!(code, 64, "{text}");
        assert!(text.contains(why), "{text}");
    }
    rig.end(&[]);
}

#[test]
fn a_worker_in_python_speaks_the_channel_and_messages_keep_every_digit() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} --ipc node --ready ready -- python3 channel.py echo"
    ));
    rig.up();
    let text = "{ \"cmd\" : \"e\",\"n\":12345678901234567890, \"u\":\"ü\\u0000\" }";
    let (code, out) = said(&rig, &["sync-send", text]);
    assert_eq!(code, 0, "{out}");
    let all: JsonValue = out.parse().unwrap();
    let all: &Vec<JsonValue> = all.get().unwrap();
    assert_eq!(all.len(), 2);
    for one in all {
        assert_eq!(one.get::<String>().unwrap(), text);
    }
    rig.end(&[]);
}

#[test]
fn a_worker_that_never_rests_does_not_keep_the_others_from_serving() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} --ipc node --ready ready -- python3 channel.py echo"
    ));
    rig.up();
    let started = rig.verb("start count 1 -- python3 channel.py flood");
    assert_eq!(started.code, 0, "{started:?}");
    let before = rig.tales("flooded").len();
    rig.told("flooded");
    assert!(before <= 1);
    rig.wait("message-dropped", |e| e.msg.contains("no JSON"));
    rig.wait("message-dropped", |e| e.msg.contains("1048576"));
    // Said once each, although it goes on.
    for n in 0..20 {
        let text = format!("{{\"cmd\":\"e{n}\"}}");
        let begun = Instant::now();
        let (code, out) = said(&rig, &["sync-send", &text, "timeout", "100ms"]);
        // (The noisy one does not answer.)
        assert!(code == 1 && out.contains("worker timeout."), "{out}");
        assert!(begun.elapsed() < Duration::from_secs(5));
        get(v4(port), "/").unwrap();
        assert_eq!(rig.status().ready, 3);
    }
    assert_eq!(rig.events("message-dropped").len(), 2);
    rig.signal(Signal::SIGTERM);
    // (Nor is all of it in the log.)
    rig.finish(0, &["message-dropped", "message-refused", "log-lost"]);
}

#[test]
fn a_worker_that_does_not_read_has_a_limit_and_the_others_hear_all() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --ipc node --ready ready -- python3 channel.py echo"
    ));
    rig.up();
    let started = rig.verb("start count 1 -- python3 channel.py deaf");
    assert_eq!(started.code, 0, "{started:?}");
    rig.note_descriptors();
    let deaf = rig.status().rows[1].pid.unwrap();
    let long = format!("{{\"x\":\"{}\"}}", "x".repeat(40_000));
    let mut sent = 0;
    rig.until("there is no room", || {
        sent += 1;
        let (code, text) = said(&rig, &["send", &long]);
        assert_eq!(code, 0, "{text}");
        text.contains("too much waits already for worker 1")
    });
    // 1 MiB waits, and what the socket holds.
    assert!((20..80).contains(&sent), "{sent}");
    let story = rig.wait("message-refused", |_| true);
    assert!(story.msg.contains(&deaf.to_string()), "{}", story.msg);
    assert_eq!(said(&rig, &["send", &long, "slot:1"]).0, 1);
    fs::write(rig.dir().join("go"), "").unwrap();
    rig.until("it hears the last", || {
        said(&rig, &["send", "{\"last\":1}", "slot:1"]).0 == 0
    });
    rig.until("it has got all that it was sent", || {
        rig.tales("got")
            .iter()
            .any(|(_, n)| n.is_some_and(|n| n >= sent))
    });
    assert_eq!(rig.events("message-refused").len(), 1);
    rig.end(&["message-refused"]);
}

#[test]
fn a_worker_that_sends_a_socket_is_heard_on() {
    let port = free_port();
    let mut rig = node(1, port, "handle", "--ready ready");
    let dropped = rig.wait("message-dropped", |_| true);
    assert!(dropped.msg.contains("socket"), "{}", dropped.msg);
    // What it has sent behind it has come, too.
    rig.up();
    rig.told("sent");
    rig.end(&["message-dropped"]);
}

#[test]
fn a_worker_that_leaves_its_channel_serves_on_and_cannot_be_told() {
    let port = free_port();
    let mut rig = node(1, port, "quits", "");
    rig.wait("all-ready", |_| true);
    rig.told("quit");
    get(v4(port), "/").unwrap();
    rig.until("it cannot be told", || said(&rig, &["send", "{}"]).0 == 1);
    rig.note_descriptors();
    rig.end(&[]);
}

#[test]
fn a_plain_server_that_may_get_messages_ends_at_the_stop_signal() {
    let port = free_port();
    let mut rig = node(2, port, "master", "");
    rig.up();
    all_answer(&rig, v4(port), "/", 2);
    let begun = Instant::now();
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &[]);
    assert!(begun.elapsed() < Duration::from_secs(8));
}

#[test]
fn a_worker_that_waits_for_its_channel_to_close_ends_by_that() {
    let port = free_port();
    let mut rig = node(2, port, "disconnects", "");
    rig.up();
    rig.signal(Signal::SIGTERM);
    rig.until("both have heard", || rig.tales("disconnected").len() == 2);
    rig.finish(0, &[]);
}

#[test]
fn with_our_preload_a_plain_server_closes_and_its_program_hears_of_it() {
    let port = free_port();
    let preload = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/node/preload.js");
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --drain none -- node -r {preload} channel.js plain"
    ));
    rig.up();
    // A connection that is kept, and one with a request under way.
    use std::io::{Read, Write};
    let mut kept = std::net::TcpStream::connect(v4(port)).unwrap();
    kept.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut head = [0; 12];
    kept.read_exact(&mut head).unwrap();
    let slow = std::thread::spawn(move || get(v4(port), "/slow"));
    rig.told("begun");
    rig.signal(Signal::SIGTERM);
    // The one that waits is closed.
    let mut rest = Vec::new();
    kept.read_to_end(&mut rest).unwrap();
    assert!(rig.tales("closed").is_empty());
    fs::write(rig.dir().join("go"), "").unwrap();
    slow.join().unwrap().unwrap();
    rig.told("closed");
    rig.finish(0, &[]);
}

#[test]
fn our_preload_leaves_a_program_alone_that_closes_by_itself() {
    let port = free_port();
    let preload = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/node/preload.js");
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --ready ready -- node -r {preload} channel.js recluster"
    ));
    rig.up();
    rig.signal(Signal::SIGTERM);
    rig.until("it has closed", || rig.tales("closed").len() == 1);
    assert_eq!(rig.tales("told").len(), 1);
    rig.finish(0, &[]);
}

#[test]
fn a_worker_that_passes_a_descriptor_with_each_message_has_small_turns() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --ready ready --ipc node -- python3 channel.py passes");
    let mut rig = Rig::start(words);
    rig.up();
    let load = "{\"cmd\":\"load\",\"count\":3000}";
    assert_eq!(said(&rig, &["send", load, "0"]).0, 0);
    // Others are no matter to it, nor it to them.
    let few = "{\"cmd\":\"load\",\"count\":3}";
    assert_eq!(said(&rig, &["send", few, "1"]).0, 0);
    rig.wait("message", |e| e.slot() == 1);
    all_answer(&rig, v4(port), "/", 2);
    // The last is heard, too.
    rig.wait("message", |e| e.slot() == 0);
    // 16 are closed at a time, each 20 ms; the first few hundred are what the channel holds. One by one it
    // would take as long as 3000 forks.
    let longest = rig.tales("took").iter().filter_map(|(_, ms)| *ms).max();
    assert!(longest.is_some_and(|ms| ms >= 1500), "{longest:?} ms");
    rig.end(&[]);
}
