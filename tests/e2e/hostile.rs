//! "One client is one buffer with a limit and a deadline": whatever is done to the control socket,
//! the cluster serves on, and those who behave get their answers.

use crate::birth;
use crate::client::all_answer;
use crate::client::v4;
use crate::harness::Rig;
use crate::place::{free_port, run};
use crate::proc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

fn rig() -> (Rig, u16) {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded"));
    rig.up();
    (rig, port)
}

fn connect(rig: &Rig) -> UnixStream {
    let stream = UnixStream::connect(rig.socket()).unwrap();
    let patience = Some(Duration::from_secs(20));
    stream.set_read_timeout(patience).unwrap();
    stream.set_write_timeout(patience).unwrap();
    stream
}

/// What comes back until the master hangs up.
fn answer(mut stream: UnixStream) -> String {
    let mut bytes = Vec::new();
    // A master that hangs up on us with something unread resets the connection.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn all_is_well(rig: Rig, port: u16) {
    assert_eq!(rig.status().ready, 2);
    all_answer(&rig, v4(port), "/", 2);
    rig.end(&[]);
}

#[test]
fn half_a_line_and_silence() {
    let (rig, port) = rig();
    let mut silent = connect(&rig);
    silent.write_all(b"[\"sta").unwrap();
    let nothing = connect(&rig);
    assert_eq!(rig.status().ready, 2);
    drop((silent, nothing));
    all_is_well(rig, port);
}

#[test]
fn a_client_that_says_nothing_is_hung_up_on_in_time() {
    let (rig, port) = rig();
    let slow = connect(&rig);
    // 10 s are what it has for its first line.
    assert_eq!(answer(slow), "");
    all_is_well(rig, port);
}

#[test]
fn a_line_without_end_is_cut() {
    let (rig, port) = rig();
    let mut stream = connect(&rig);
    let block = [b'x'; 4096];
    let mut sent = 0;
    while sent < 1024 * 1024 && stream.write_all(&block).is_ok() {
        sent += block.len();
    }
    assert!(sent < 1024 * 1024, "all of it was taken");
    assert_eq!(answer(stream), "");
    all_is_well(rig, port);
}

#[test]
fn garbage_is_answered_and_changes_nothing() {
    let (rig, port) = rig();
    let deep = format!("{}\n", "[".repeat(60_000));
    let nul = b"status\0\n".to_vec();
    for line in [
        b"\xff\xfe\x00\x80\n".to_vec(),
        deep.into_bytes(),
        nul,
        b"[1,2,{}]\n".to_vec(),
        b"[\"status\"\n".to_vec(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"\"unclosed\n".to_vec(),
    ] {
        let mut stream = connect(&rig);
        stream.write_all(&line).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let said = answer(stream);
        assert!(
            !said.is_empty(),
            "no answer to {:?}",
            String::from_utf8_lossy(&line)
        );
        assert!(!said.contains("ready generation"), "{said}");
    }
    all_is_well(rig, port);
}

#[test]
fn nesting_beyond_any_line_is_cut() {
    let (rig, port) = rig();
    let mut stream = connect(&rig);
    let _ = stream.write_all(&vec![b'['; 100_000]);
    assert_eq!(answer(stream), "");
    all_is_well(rig, port);
}

#[test]
fn three_hundred_clients_at_once() {
    let (rig, port) = rig();
    let socket = rig.socket();
    let crowd: Vec<UnixStream> = (0..300)
        .map(|_| UnixStream::connect(&socket).unwrap())
        .collect();
    all_answer(&rig, v4(port), "/", 2);
    drop(crowd);
    all_is_well(rig, port);
}

#[test]
fn many_questions_and_no_patience() {
    let (rig, port) = rig();
    for _ in 0..100 {
        let mut stream = connect(&rig);
        stream.write_all(b"[\"status\",\"--json\"]\n").unwrap();
        // Gone before the answer.
    }
    for _ in 0..20 {
        let mut stream = connect(&rig);
        stream.write_all(b"[\"status\"").unwrap();
    }
    all_is_well(rig, port);
}

#[test]
fn a_client_that_asks_and_never_reads() {
    let (rig, port) = rig();
    let mut stream = connect(&rig);
    stream.set_nonblocking(true).unwrap();
    let mut asked = 0;
    rig.until("nothing more is taken", || {
        match stream.write(b"status\nwhy\nhelp\n") {
            Ok(_) => asked += 1,
            Err(_) => return true,
        }
        asked > 200_000
    });
    all_is_well(rig, port);
}

#[test]
fn a_person_at_a_bare_connection_types_words() {
    let (rig, port) = rig();
    let mut stream = connect(&rig);
    stream
        .write_all(b"version\n\nstatus\nfrobnicate\n")
        .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let said = answer(stream);
    assert!(said.starts_with(env!("CARGO_PKG_VERSION")), "{said}");
    assert!(said.contains("2/2 ready"), "{said}");
    assert!(said.contains("unknown verb frobnicate"), "{said}");
    all_is_well(rig, port);
}

/// Sets the soft limit of a master that runs.
fn limit_files(rig: &Rig, soft: u64) {
    let mut cmd = Command::new("prlimit");
    cmd.arg("--pid").arg(rig.pid().to_string());
    cmd.arg(format!("--nofile={soft}:"));
    assert_eq!(run(cmd, rig.deadline()).code, 0);
}

#[test]
fn a_client_for_whom_there_was_no_descriptor_is_answered_when_there_is_one() {
    let (rig, port) = rig();
    let before = proc::descriptors(rig.pid()) as u64;
    let crowd: Vec<UnixStream> = (0..10).map(|_| connect(&rig)).collect();
    rig.until("they are let in", || {
        proc::descriptors(rig.pid()) as u64 == before + 10
    });
    limit_files(&rig, before + 10);
    let mut late = connect(&rig);
    late.write_all(b"[\"version\"]\n").unwrap();
    late.shutdown(std::net::Shutdown::Write).unwrap();
    // Nobody knocks any more: those before go, and that is all.
    drop(crowd);
    let said = answer(late);
    assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said:?}");
    limit_files(&rig, 1024);
    all_is_well(rig, port);
}

#[test]
fn clients_take_no_descriptor_that_a_worker_needs() {
    let port = free_port();
    let words = format!("-n 2 -p {port} -- ./threaded");
    let mut rig = Rig::dressed(words, |cmd, _| birth::with_nofile(cmd, 120, 120));
    rig.up();
    let crowd: Vec<UnixStream> = (0..120)
        .map(|_| {
            let mut stream = connect(&rig);
            stream.write_all(b"version\n").unwrap();
            stream
        })
        .collect();
    assert_eq!(rig.status().ready, 2);
    let room = proc::descriptors(rig.pid());
    assert!(room < 110, "{room} descriptors");
    for pid in rig.status().pids() {
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    }
    rig.until("both are there again", || {
        rig.events("died").len() == 2 && rig.status().ready == 2
    });
    assert_eq!(rig.verb("reload").code, 0);
    drop(crowd);
    assert_eq!(rig.status().ready, 2);
    all_answer(&rig, v4(port), "/", 2);
    rig.end(&["died", "died"]);
}

#[test]
fn clients_make_room_for_the_workers_that_a_resize_adds() {
    let ports = [(); 4].map(|()| format!("-p {}", free_port())).join(" ");
    let words = format!("-n 1 {ports} --balance hash --ready ready --ipc node");
    let words = format!("{words} -- python3 channel.py echo");
    let mut rig = Rig::dressed(words, |cmd, _| birth::with_nofile(cmd, 300, 300));
    rig.up();
    let said = rig.verb("resize 1000");
    let most = said.err.split("room for ").nth(1).unwrap();
    let most: usize = most.split(';').next().unwrap().parse().unwrap();
    assert!((4..12).contains(&most), "{said:?}");
    let mut follower = connect(&rig);
    follower.write_all(b"events follow\n").unwrap();
    let crowd: Vec<UnixStream> = (0..255)
        .map(|_| {
            let mut stream = connect(&rig);
            stream.write_all(b"version\n").unwrap();
            let mut said = [0; 16];
            assert_ne!(stream.read(&mut said).unwrap(), 0, "it is let in");
            stream
        })
        .collect();
    let before = proc::descriptors(rig.pid());
    assert!(before > 200, "{before} descriptors are in use");
    let said = rig.verb(format!("resize {most}"));
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(rig.status().ready, most);
    let dropped = rig.wait("clients-dropped", |_| true);
    assert!(
        dropped.msg.contains("hard limit of open files 300"),
        "{dropped:?}"
    );
    // As many as may be replaced at once are, and who follows was not hung up on.
    assert_eq!(rig.verb("reload").code, 0);
    assert!(rig.events("spawn-failed").is_empty());
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains("generation 2 serves") {
        let mut piece = [0; 4096];
        let n = follower.read(&mut piece).unwrap();
        assert_ne!(n, 0, "hung up on after {}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&piece[..n]);
    }
    drop((crowd, follower));
    assert_eq!(rig.verb("resize 1").code, 0);
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &[]);
}

#[test]
fn who_types_what_is_refused_is_hung_up_on_like_others() {
    let (rig, port) = rig();
    for asked in ["upgrade ./missing", "upgrade 0 ./missing", "reload 1 2"] {
        let mut stream = connect(&rig);
        stream.write_all(format!("{asked}\n").as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        assert!(
            said.contains("missing") || said.contains("reload"),
            "{said}"
        );
    }
    assert_eq!(rig.status().ready, 2);
    all_answer(&rig, v4(port), "/", 2);
    rig.end(&["reload-failed"]);
}

#[test]
fn a_nul_that_only_json_can_say_is_refused_and_starts_nobody() {
    let (rig, port) = rig();
    for words in [
        r#"["replace","cwd","/\u0000","--","sleep","5"]"#,
        r#"["upgrade","cwd","/x","slee\u0000p"]"#,
        r#"["replace","cwd","/","option","--group=a\u0000","--","sleep","5"]"#,
        "start \"a\0b\"",
    ] {
        let mut stream = connect(&rig);
        stream.write_all(format!("{words}\n").as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let said = answer(stream);
        assert!(said.contains("holds a NUL"), "{words}: {said}");
    }
    assert_eq!(rig.events("forked").len(), 2);
    all_is_well(rig, port);
}

#[test]
fn workers_with_very_long_commands_are_listed_whole() {
    let long = "x".repeat(100_000);
    let words = format!("-n 24 --ready started -- env LONG={long} sleep 1000");
    let mut rig = Rig::start(words);
    rig.wait("all-ready", |_| true);
    for words in [
        "workers details\n",
        "[\"workers\",\"details\",\"--json\"]\n",
    ] {
        let mut stream = connect(&rig);
        stream.write_all(words.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let said = answer(stream);
        assert_eq!(said.matches(&long).count(), 24, "{} bytes", said.len());
        assert!(said.ends_with('\n'));
    }
    rig.end(&[]);
}

#[test]
fn those_who_say_nothing_make_room_for_those_who_do() {
    let (rig, port) = rig();
    let idle = |_| {
        let mut stream = connect(&rig);
        // Its first line gives it ten minutes for the next.
        stream.write_all(b"version\n").unwrap();
        stream
    };
    let crowd: Vec<UnixStream> = (0..260).map(idle).collect();
    assert_eq!(rig.verb("version").code, 0);
    drop(crowd);
    all_is_well(rig, port);
}

#[test]
fn a_client_that_has_said_all_still_hears_the_answer() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --stop-timeout 500ms -- ./threaded --deaf"
    ));
    rig.up();
    let mut stream = connect(&rig);
    stream.write_all(b"[\"stop\"]\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let said = answer(stream);
    assert!(said.contains("stopped"), "{said:?}");
    rig.finish(0, &["killed"]);
}

#[test]
fn many_stops_at_once_all_succeed_or_come_too_late() {
    for _ in 0..8 {
        let port = free_port();
        let mut rig = Rig::start(format!("-n 1 -p {port} -- ./threaded"));
        rig.up();
        let (socket, deadline) = (rig.socket(), rig.deadline());
        let stop = |_| {
            let mut cmd = rig.command();
            cmd.arg("-C").arg(&socket).arg("stop");
            std::thread::spawn(move || run(cmd, deadline))
        };
        let all: Vec<_> = (0..8).map(stop).collect();
        for said in all.into_iter().map(|t| t.join().unwrap()) {
            assert!([0, 3].contains(&said.code), "{said:?}");
        }
        rig.finish(0, &[]);
    }
}

#[test]
fn a_master_that_does_not_answer_is_exit_124() {
    let (rig, port) = rig();
    rig.signal(Signal::SIGSTOP);
    let said = rig.verb("status");
    rig.signal(Signal::SIGCONT);
    assert_eq!(said.code, 124, "{said:?}");
    assert!(said.err.contains("within 10s"), "{said:?}");
    all_is_well(rig, port);
}

#[test]
fn questions_without_end_keep_nobody_waiting() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 64 -p {port} --ready started -- sleep 1000"));
    rig.wait("all-ready", |_| true);
    let mut crowd: Vec<UnixStream> = (0..20).map(|_| connect(&rig)).collect();
    for stream in &mut crowd {
        stream.write_all("status\n".repeat(200).as_bytes()).unwrap();
    }
    // 4,000 looks at 64 processes: seconds of work, and none of them in its way.
    let victim = rig.verb("version");
    assert_eq!(victim.code, 0, "{victim:?}");
    drop(crowd);
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["unserved"]);
}

#[test]
fn many_who_wait_for_the_end_leave_room_for_others() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --stop-timeout 40s -- ./threaded --deaf"
    ));
    rig.up();
    let waits = |_| {
        let mut stream = connect(&rig);
        stream.write_all(b"[\"stop\"]\n").unwrap();
        stream
    };
    let crowd: Vec<UnixStream> = (0..192).map(waits).collect();
    let said = rig.verb("status");
    assert_eq!(said.code, 0, "{said:?}");
    // One more stops it as well, and is not told when.
    let said = rig.verb("stop");
    assert_eq!(said.code, 75, "{said:?}");
    assert!(said.err.contains("192 clients wait"), "{said:?}");
    // It is the master's end that this one waits for, so it is no matter who is told.
    rig.signal(Signal::SIGQUIT);
    for stream in crowd {
        assert!(answer(stream).contains("stopped"));
    }
    rig.finish(1, &["hard-stop"]);
}

#[test]
fn a_worker_that_passes_sockets_which_linger_holds_up_nobody() {
    let mut rig = Rig::start("-n 1 --ready started --ipc node -- python3 odd.py passes");
    rig.up();
    // Each of them would take half a minute, and a client has ten seconds of patience.
    while rig.tales("passed").is_empty() {
        assert_eq!(rig.status().ready, 1);
    }
    assert_eq!(rig.status().ready, 1);
    rig.signal(nix::sys::signal::Signal::SIGTERM);
    rig.finish(0, &[]);
}
