//! "Whatever the surroundings do, the cluster serves and stops": calls that the kernel refuses,
//! another master on the same port, few descriptors, a stderr that is not read or has no room, a
//! /proc that is not ours, a process without its first thread.

use crate::birth;
use crate::client::{all_answer, get, v4};
use crate::harness::{Rig, Words, sigkill};
use crate::place::{LOOK, Place, free_port, python, run, script, shim};
use crate::proc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

/// What became of each odd bind: its errno, 0 if it went well.
fn odd_binds(said: &str) -> BTreeMap<String, i32> {
    let tale = |line: &str| {
        let mut words = line.strip_prefix("odd-")?.split(' ');
        let what = words.next()?.to_string();
        Some((what, words.nth(1)?.parse().ok()?))
    };
    said.lines().filter_map(tale).collect()
}

#[test]
fn a_bind_that_the_kernel_would_refuse_is_refused_as_without_us() {
    let port = free_port();
    let place = Place::new();
    let words = format!("--odd-binds --port {port} --exit-code 0");
    let bare = Command::new(place.dir.join("threaded"))
        .args(words.words())
        .env("SAY", place.dir.join("said"))
        .status();
    assert!(bare.unwrap().success());
    let bare = odd_binds(&fs::read_to_string(place.dir.join("said")).unwrap());
    assert_eq!(bare.len(), 9, "{bare:?}");
    assert_eq!(bare["minus-one"], libc::EBADF);
    assert_eq!(bare["closed"], libc::EBADF);
    assert_eq!(bare["bound"], libc::EINVAL);
    assert_eq!(bare["bad-pointer"], libc::EFAULT);

    let shared = format!("-n 1 -p {port} -- ./threaded --odd-binds");
    let learnt = format!("-n 1 -- ./threaded --odd-binds --port {port}");
    for words in [shared, learnt] {
        let mut rig = Rig::start(words);
        rig.wait("listening", |_| true);
        let said = fs::read_to_string(rig.dir().join("said")).unwrap();
        assert_eq!(odd_binds(&said), bare);
        rig.until("it answers", || get(v4(port), "/").is_ok());
        let worker = rig.status().pids()[0];
        assert_eq!(proc::descriptor(worker, 1), "/dev/null");
        rig.end(&[]);
    }
}

/// Two masters that start at the same moment.
fn pair(words: &str) -> [Rig; 2] {
    let gate = Arc::new(Barrier::new(2));
    let start = || {
        let (gate, words) = (gate.clone(), words.to_string());
        std::thread::spawn(move || {
            Rig::dressed(words, |_, _| {
                gate.wait();
            })
        })
    };
    [start(), start()].map(|t| t.join().unwrap())
}

fn has(rig: &Rig, event: &str) -> bool {
    !rig.events(event).is_empty()
}

#[test]
fn two_masters_that_start_together_never_both_serve_a_port() {
    let mut winners = 0;
    for _ in 0..10 {
        let port = free_port();
        let rigs = pair(&format!("-n 1 -p {port} -- ./threaded"));
        for rig in &rigs {
            let known = || has(rig, "all-ready") || has(rig, "port-failed");
            rig.until("it serves or does not", known);
        }
        let serving = rigs.iter().filter(|r| has(r, "all-ready")).count();
        // Each may have stopped the other; what must not be is that both serve.
        assert!(serving < 2, "both serve port {port}");
        winners += serving;
        for rig in rigs {
            match has(&rig, "all-ready") {
                true => rig.end(&[]),
                false => rig.finish(75, &["port-failed"]),
            }
        }
    }
    assert!(winners > 0);
}

#[test]
fn of_two_masters_whose_workers_bind_a_port_together_one_has_it() {
    for _ in 0..10 {
        let port = free_port();
        let rigs = pair(&format!("-n 1 -- ./threaded --port {port}"));
        let [one, two] = &rigs;
        one.until("one has it and the other has not", || {
            // (On a busy machine a worker can be alive for a second before its bind is answered, and
            // count as ready by that: no port is known yet.)
            let both = |a, b| has(a, "listening") && has(b, "port-failed");
            both(one, two) || both(two, one)
        });
        let serving = rigs.iter().filter(|r| has(r, "listening")).count();
        assert_eq!(serving, 1, "masters that share port {port}");
        for rig in rigs {
            if has(&rig, "listening") {
                rig.end(&["port-failed", "died"]);
                continue;
            }
            let refused = |what| rig.tales(what).first().and_then(|(_, errno)| *errno);
            rig.until("the worker hears of it", || {
                let errno = refused("bind-failed").or(refused("listen-failed"));
                errno == Some(libc::EADDRINUSE)
            });
            rig.end(&["port-failed", "died"]);
        }
    }
}

#[test]
fn a_low_limit_of_open_files_is_the_workers_and_not_ours() {
    let words = "-n 60 --ready started -- sleep 1000";
    let mut rig = Rig::dressed(words, |cmd, _| birth::with_nofile(cmd, 64, 4096));
    rig.up();
    let status = rig.status();
    assert_eq!((status.ready, status.pids().len()), (60, 60));
    for pid in status.pids() {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find(|l| l.starts_with("Max open files"));
        let numbers: Vec<&str> = line.unwrap().split_whitespace().skip(3).collect();
        assert_eq!(numbers, ["64", "4096", "files"]);
    }
    assert!(rig.events("died").is_empty());
    rig.end(&[]);
}

#[test]
fn a_hard_limit_that_is_too_low_for_the_workers_is_told_before_any_is_started() {
    let place = Place::new();
    let mut cmd = place.command();
    cmd.args(["-n", "400", "-p", "0", "--", "sleep", "1000"]);
    birth::with_nofile(&mut cmd, 64, 1024);
    let said = run(cmd, Instant::now() + Duration::from_secs(20));
    assert_eq!(said.code, 78, "{said:?}");
    for part in [
        "400 workers and 400 more",
        "limit is 1024",
        "room for 1",
        "ulimit -Hn, LimitNOFILE=",
    ] {
        assert!(said.err.contains(part), "{said:?}");
    }
}

#[test]
fn as_many_as_there_is_room_for_can_be_reloaded_and_no_more_are_taken() {
    let words = "--config a.conf --ready started -- sleep 1000";
    let mut rig = Rig::dressed(words, |cmd, dir| {
        fs::write(dir.join("a.conf"), "workers 2\n").unwrap();
        birth::with_nofile(cmd, 64, 200);
    });
    rig.up();
    let said = rig.verb("resize 1000");
    assert_eq!(said.code, 1, "{said:?}");
    let most = said.err.split("room for ").nth(1).unwrap();
    let most: usize = most.split(';').next().unwrap().parse().unwrap();
    assert!((10..25).contains(&most), "{said:?}");
    assert_eq!(rig.verb(format!("resize {most}")).code, 0);
    assert_eq!(rig.verb("reload").code, 0);
    assert_eq!(rig.status().ready, most);
    assert_eq!(rig.verb("resize +1").code, 1);
    rig.signal(Signal::SIGTTIN);
    let told = rig.wait("no-room", |_| true);
    assert_eq!(
        (told.number("workers"), told.number("limit")),
        (most as f64 + 1.0, most as f64)
    );
    // Nor by the file of options; and not one that costs more than there is.
    for text in ["workers 900\n", "workers 2\nipc node\n"] {
        fs::write(rig.dir().join("a.conf"), text).unwrap();
        let said = rig.verb("reload");
        assert_eq!(said.code, 1, "{said:?}");
        assert!(said.err.contains("limit is 200"), "{said:?}");
    }
    assert_eq!(rig.status().ready, most);
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &["no-room", "reload-failed"]);
}

/// Both ends of a stderr that is read when a story wants it.
struct Stalling {
    far: File,
    near: OwnedFd,
    text: String,
}

impl Stalling {
    fn new((far, near): (OwnedFd, OwnedFd)) -> Stalling {
        let fcntl = nix::fcntl::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK);
        nix::fcntl::fcntl(&far, fcntl).unwrap();
        let (far, text) = (far.into(), String::new());
        Stalling { far, near, text }
    }

    fn pipe() -> Stalling {
        use nix::fcntl::OFlag;
        Stalling::new(nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap())
    }

    fn terminal() -> Stalling {
        Stalling::new(birth::open_terminal())
    }

    fn rig(&self, words: impl Words) -> Rig {
        let near = self.near.try_clone().unwrap();
        Rig::dressed(words, |cmd, _| {
            cmd.stderr(near);
        })
    }

    /// Does it take nothing more?
    fn full(&self) -> bool {
        let mut one = [PollFd::new(self.near.as_fd(), PollFlags::POLLOUT)];
        poll(&mut one, PollTimeout::ZERO).unwrap() == 0
    }

    /// Writes into it ourselves until it takes nothing more.
    fn fill(&self) {
        // A description of our own: the master's shall block.
        let path = format!("/proc/self/fd/{}", self.near.as_raw_fd());
        let ours = File::options()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path);
        let mut ours = ours.unwrap();
        loop {
            while ours.write(&[b'x'; 4096]).is_ok() {}
            if !self.makes_room() {
                return;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Will there be room although nobody reads? What is written to a terminal is carried over to
    /// its reader's side later, by a worker of the kernel's, until that side is full, too.
    fn makes_room(&self) -> bool {
        /// Of the reader's side: N_TTY_BUF_SIZE, less one.
        const READERS_SIDE: i32 = 4095;
        let terminal = nix::unistd::isatty(&self.near).unwrap();
        terminal && birth::to_be_read(&self.far) < READERS_SIDE
    }

    /// All that has been read, after another look.
    fn read(&mut self) -> &str {
        let mut buf = [0; 4096];
        while let Ok(n @ 1..) = self.far.read(&mut buf) {
            self.text.push_str(&String::from_utf8_lossy(&buf[..n]));
        }
        &self.text
    }
}

/// Workers write what nobody reads; the master has something to say, too.
fn goes_on(mut rig: Rig) {
    assert_eq!(rig.status().wanted, 2);
    let victim = rig.status().pids()[0];
    sigkill(victim);
    rig.wait_status("it is replaced", |s| {
        s.rows[0].restarts == 1 && s.rows[0].pid.is_some_and(|p| p != victim)
    });
    assert!(rig.verb("why 0").out.contains("SIGKILL"));
    rig.signal(Signal::SIGTERM);
    rig.wait_exit();
    rig.finish(0, &[]);
}

fn flooding() -> String {
    format!("-n 2 -p {} -- ./threaded --stderr-flood", free_port())
}

#[test]
fn a_stderr_that_nobody_reads_holds_up_those_who_write_and_not_the_master() {
    for read_until_they_listen in [false, true] {
        let mut stderr = Stalling::pipe();
        let rig = stderr.rig(flooding());
        // From then on they write to it by themselves.
        rig.until("both listen", || {
            if read_until_they_listen {
                stderr.read();
            }
            !read_until_they_listen || rig.tales("listening").len() == 2
        });
        // They may have written all they had while we still read.
        rig.until("nothing more goes in", || {
            stderr.fill();
            stderr.full()
        });
        goes_on(rig);
    }
}

/// Does one of its threads wait in a write to its stderr?
fn is_held_up(pid: i32) -> bool {
    let write = format!("{} 0x2 ", libc::SYS_write);
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    tasks.into_iter().flatten().flatten().any(|task| {
        let call = fs::read_to_string(task.path().join("syscall"));
        call.is_ok_and(|c| c.starts_with(&write))
    })
}

#[test]
fn nor_does_a_pipe_of_somebody_elses_that_nobody_reads() {
    // As behind su(1): the master cannot have a description of its own of that pipe, and those who
    // write to it fill it behind its back.
    let stderr = Stalling::pipe();
    let near = stderr.near.try_clone().unwrap();
    let rig = Rig::unprivileged(flooding(), |cmd, _| {
        cmd.stderr(near);
    });
    rig.until("nothing more goes in", || {
        stderr.fill();
        stderr.full()
    });
    goes_on(rig);
}

#[test]
fn when_the_reader_of_the_log_goes_away_whoever_waits_for_it_goes_on() {
    // A line of the master's waits as well: its going is what has to be noticed.
    let port = free_port();
    let script = "i=0; while [ $i -lt 4000 ]; do i=$((i+1)); printf 'word %06d %051d\\n' $i 0; \
                  done >&2; exec ./threaded";
    let words = ["-n", "1", "-p", &port.to_string(), "--", "sh", "-c", script];
    let mut stderr = Stalling::pipe();
    let rig = stderr.rig(words);
    rig.until("nothing more goes in", || stderr.full());
    rig.signal(Signal::SIGUSR1);
    let said = rig.verb("status");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(rig.tales("listening").is_empty());
    stderr = Stalling::pipe();
    assert!(!stderr.full());
    // The rest of what it writes goes nowhere, and it comes to its listen(2).
    rig.told("listening");
    rig.until("it answers", || get(v4(port), "/").is_ok());
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &[]);
}

#[test]
fn what_is_said_at_the_very_end_is_said() {
    // By those who are ended behind a shell, as children that nobody waits for.
    for _ in 0..5 {
        let script = "./threaded --never-listen --bye; exit 0";
        let mut rig = Rig::start(["-n", "8", "--ready", "300ms", "--", "sh", "-c", script]);
        rig.wait("all-ready", |_| true);
        rig.until("all of them are there", || rig.tales("idle").len() == 8);
        rig.signal(Signal::SIGTERM);
        rig.wait_exit();
        rig.until("stderr has ended", || rig.ended());
        assert_eq!(rig.lines().iter().filter(|l| *l == "bye").count(), 8);
        rig.finish(0, &[]);
    }
    // And by the master, to somebody who reads a little late.
    let mut stderr = Stalling::pipe();
    let port = free_port();
    let mut rig = stderr.rig(format!("-n 2 -p {port} -- ./threaded"));
    let workers = rig.wait_status("both are ready", |s| s.ready == 2).pids();
    stderr.fill();
    rig.signal(Signal::SIGTERM);
    rig.until("the workers have gone", || {
        !workers.iter().any(|p| proc::alive(*p))
    });
    rig.until("the last line is there", || {
        stderr.read().contains("\"stopped\"")
    });
    rig.wait_exit();
    rig.finish(0, &[]);
}

#[test]
fn nor_does_a_terminal_that_nobody_reads() {
    let mut stderr = Stalling::terminal();
    stderr.fill();
    // There is room for some lines, not for all that waits: poll(2) calls that writable.
    assert!(stderr.far.read(&mut [0; 1024]).unwrap() > 0);
    let rig = stderr.rig(flooding());
    rig.wait_status("both are held up", |s| {
        s.pids().len() == 2 && s.pids().into_iter().all(is_held_up)
    });
    goes_on(rig);
}

#[test]
fn the_last_words_of_a_worker_are_known_while_our_stderr_is_not_read() {
    // 40 KiB, in lines of 64 bytes.
    let script = "i=0; while [ $i -lt 640 ]; do i=$((i+1)); printf 'word %06d %051d\\n' $i 0; done \
                  >&2; echo 'no such database: stock' >&2; exit 3";
    let mut stderr = Stalling::pipe();
    stderr.fill();
    let words = ["-n", "1", "--respawn", "30s", "--", "sh", "-c", script];
    let mut rig = stderr.rig(words);
    rig.wait_status("it has failed", |s| s.rows[0].state == "waiting");
    let why = rig.verb("why 0").out;
    assert!(why.contains("exit 3"), "{why}");
    assert!(why.contains("word 000640"), "{why}");
    assert!(why.trim_end().ends_with("no such database: stock"), "{why}");
    // And whoever reads on has all of it, in order.
    rig.until("all is read", || stderr.read().contains("no such database"));
    let lines = stderr.text.lines();
    let numbers = lines.filter_map(|l| l.strip_prefix("word ")?.get(..6));
    let want: Vec<String> = (1..=640).map(|n| format!("{n:06}")).collect();
    assert!(numbers.eq(want.iter().map(String::as_str)));
    rig.signal(Signal::SIGTERM);
    rig.wait_exit();
    assert!(stderr.read().contains("\"stopped\""), "{}", stderr.text);
    rig.finish(0, &[]);
}

/// The first worker floods its stderr, before and after it listens; later ones do not.
const FLOODS_ONCE: &str = "test -e flooded && exec ./threaded; \
                           touch flooded; exec ./threaded --stderr-flood";

/// A log that can take no more, and later can: `ends` is what becomes of a worker that writes.
fn full_disk(program: impl Words, ends: &str) {
    let port = free_port().to_string();
    let words = ["-n", "1", "-p", &port, "--", "sh", "-c", FLOODS_ONCE];
    let mut rig = Rig::by(program, words);
    let path = format!("/proc/{}/fd/2", rig.pid());
    rig.until("the log is there", || {
        proc::descriptor(rig.pid(), 2).ends_with("/log")
    });
    let log = File::options().read(true).write(true).open(path).unwrap();
    let text = || {
        let mut bytes = Vec::new();
        let mut at = 0;
        let mut buf = [0; 4096];
        while let Ok(n @ 1..) = std::os::unix::fs::FileExt::read_at(&log, &mut buf, at) {
            bytes.extend(&buf[..n]);
            at += n as u64;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    match ends {
        "" => assert_eq!(rig.told("stderr-failed").1, Some(libc::ENOSPC)),
        _ => rig.until("its worker has ended", || {
            rig.verb("why 0").out.contains(ends)
        }),
    }
    let up = rig.wait_status("it serves all the same", |s| s.ready == 1);
    assert!(!text().contains("all-ready"), "the disk has room");
    log.set_len(0).unwrap();
    sigkill(up.pids()[0]);
    rig.until("it logs again", || text().contains("\"died\""));
    rig.wait_status("it serves again", |s| s.ready == 1 && s.pids() != up.pids());
    rig.signal(Signal::SIGTERM);
    rig.wait_exit();
    for event in ["stopping", "log-lost", "stopped"] {
        assert!(text().contains(&format!("\"{event}\"")), "{}", text());
    }
    rig.finish(0, &[]);
}

#[test]
fn a_full_disk_costs_the_lines_that_had_no_room_and_no_more() {
    let script = "mkdir disk; mount -t tmpfs -o size=64k none disk; exec \"$0\" \"$@\" 2>>disk/log";
    match birth::root() {
        true => full_disk(["unshare", "-m", "sh", "-ec", script], ""),
        false => full_disk(["unshare", "-rm", "sh", "-ec", script], ""),
    }
}

#[test]
fn a_limit_of_file_sizes_ends_workers_that_pass_it_and_not_the_master() {
    let script = "ulimit -f 16; exec \"$0\" \"$@\" 2>>log";
    full_disk(["sh", "-ec", script], "SIGXFSZ");
}

#[test]
fn in_a_pid_namespace_with_the_proc_of_another_it_serves_and_signals_no_stranger() {
    // The numbers below a hundred are the machine's first processes in that /proc; here, strangers.
    let script = "n=0; all=; while [ $n -lt 100 ]; do n=$((n+1)); sleep 1000 & all=\"$all $!\"; \
                  done; \"$0\" \"$@\"; code=$?; kill -0 $all && echo 'all strangers live' >&2; \
                  exit $code";
    let port = free_port();
    let server = format!("{} blocking.py", python());
    let words = format!("-n 2 -p {port} --ready started -- {server}");
    let mut rig = match birth::root() {
        true => Rig::by(
            ["unshare", "-pf", "--kill-child", "sh", "-c", script],
            words,
        ),
        false => Rig::by(
            ["unshare", "-rpf", "--kill-child", "sh", "-c", script],
            words,
        ),
    };
    rig.wait("all-ready", |_| true);
    assert_eq!(rig.events("no-proc").len(), 1);
    rig.until("both listen", || rig.tales("listening").len() == 2);
    all_answer(&rig, v4(port), "/", 2);
    let since = Instant::now();
    let said = rig.verb("stop");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(since.elapsed() < Duration::from_secs(5), "a slow stop");
    rig.wait_line("all strangers live");
    rig.finish(0, &["no-proc"]);
}

#[test]
fn a_server_whose_first_thread_has_ended_is_ready_when_another_listens() {
    let port = free_port();
    for words in [
        format!("-n 2 -p {port} -- ./threaded --main-exits"),
        format!("-n 2 -- ./threaded --main-exits --port {port}"),
    ] {
        let mut rig = Rig::start(words);
        rig.wait_many("listening", 2);
        rig.wait("all-ready", |_| true);
        all_answer(&rig, v4(port), "/", 2);
        let victim = rig.status().pids()[0];
        rig.replace(victim);
        all_answer(&rig, v4(port), "/", 2);
        rig.end(&["died"]);
    }
}

#[test]
fn one_error_of_the_medium_costs_a_line_and_not_the_log() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --on-event ./tell -- ./threaded");
    let tell = "#!/bin/sh\necho \"$MINICLUSTER_EVENT $MINICLUSTER_COUNT\" >>told\n";
    let mut rig = Rig::dressed(words, |cmd, dir| {
        script(dir, "tell", tell);
        cmd.env("LD_PRELOAD", shim());
    });
    // (Not by its descriptors: a program may run at any moment.)
    rig.wait("all-ready", |_| true);
    let fails = rig.dir().join("shim-eio");
    fs::write(&fails, "").unwrap();
    assert_eq!(rig.verb("signal CONT").code, 0);
    rig.until("the line has failed", || !fails.exists());
    let victim = rig.status().pids()[0];
    rig.replace(victim);
    let lost = rig.events("log-lost");
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].number("count"), 1.0);
    assert!(rig.events("signalled").is_empty());
    // Who follows the events, is run for them or counts them is told of it, too, and once.
    let stream = rig.verb("events --json").out;
    let told: Vec<&str> = stream
        .lines()
        .filter(|l| l.contains("\"log-lost\""))
        .collect();
    assert!(
        told.len() == 1 && told[0].contains("\"count\":1,"),
        "{stream}"
    );
    rig.until("the program is told", || {
        let told = fs::read_to_string(rig.dir().join("told")).unwrap_or_default();
        told.lines().filter(|l| *l == "log-lost 1").count() == 1
    });
    rig.end(&["log-lost", "died"]);
}

#[test]
fn a_child_that_is_killed_on_its_way_to_exec_was_never_started() {
    let words = "-n 1 --ready started --respawn 20ms --backoff 0 -- sleep 1000";
    let mut rig = Rig::dressed(words, |cmd, dir| {
        fs::write(dir.join("shim-kill"), "").unwrap();
        cmd.env("LD_PRELOAD", shim());
    });
    for died in rig.wait_many("died", 3) {
        assert_eq!(died.text("reason"), "not-started");
        assert_eq!(died.text("signal"), "SIGKILL");
    }
    assert!(rig.events("ready").is_empty());
    fs::remove_file(rig.dir().join("shim-kill")).unwrap();
    rig.wait("all-ready", |_| true);
    rig.end(&["died"]);
}

#[test]
fn a_terminal_that_has_gone_while_a_line_waited_for_it_wakes_nobody() {
    let stderr = Stalling::terminal();
    let port = free_port();
    let rig = stderr.rig(format!("-n 1 -p {port} -- ./threaded"));
    rig.wait_status("it is ready", |s| s.ready == 1);
    rig.until("nothing more goes in", || {
        stderr.fill();
        stderr.full()
    });
    rig.signal(Signal::SIGUSR1);
    let pid = rig.pid();
    let asleep = proc::switches(pid);
    // It tries again by the clock, since a terminal does not always tell when there is room.
    rig.until("the line waits", || proc::switches(pid) > asleep + 5);
    drop(stderr);
    // One more try finds that it has gone. Then nothing moves for longer than any try is apart.
    let mut last = (proc::switches(pid), Instant::now());
    rig.until("the master sleeps", || {
        let now = proc::switches(pid);
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() > Duration::from_secs(1)
    });
    rig.signal(Signal::SIGTERM);
    rig.finish(0, &[]);
}
