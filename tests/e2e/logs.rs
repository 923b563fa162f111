//! What workers write, in files: whole lines of each slot or of all, files that are rotated and reopened, and
//! disks that do not take them.

use crate::birth;
use crate::console::Typist;
use crate::harness::{Rig, Words, sigkill};
use crate::place::{Place, free_port, python, run, script};
use crate::proc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A program that says who it is, on both, and then does what it is told by a FIFO of its slot.
const WRITER: &str = "#!/bin/sh\n\
    echo \"out $WORKER_ID\"; echo \"err $WORKER_ID\" >&2\n\
    while :; do read -r line < told.$WORKER_ID && eval \"$line\"; done\n";

/// So many of them, and what they write in `logs`.
pub fn writers(n: usize, more: &str) -> Rig {
    let words = format!("-n {n} --name w --ready started --log-dir logs {more} -- ./writer");
    let mut rig = Rig::dressed(words, |_, dir| dressed(dir, n));
    rig.up();
    rig
}

pub fn dressed(dir: &Path, n: usize) {
    script(dir, "writer", WRITER);
    for slot in 0..n {
        let fifo = dir.join(format!("told.{slot}"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
}

/// Tells the one in that slot.
pub fn tell(rig: &Rig, slot: usize, what: &str) {
    let mut to = OpenOptions::new()
        .write(true)
        .open(rig.dir().join(format!("told.{slot}")))
        .unwrap();
    to.write_all(format!("{what}\n").as_bytes()).unwrap();
}

pub fn text(at: &Path) -> String {
    let bytes = fs::read(at).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn log(rig: &Rig, name: &str) -> PathBuf {
    rig.dir().join("logs").join(name)
}

pub fn wait_text(rig: &Rig, name: &str, want: &str) {
    let at = log(rig, name);
    rig.until(&format!("'{want}' is in {name}: {}", text(&at)), || {
        text(&at).contains(want)
    });
}

#[test]
fn each_slot_has_a_file_that_outlives_its_workers_and_lines_are_whole() {
    let mut rig = writers(2, "");
    for slot in 0..2 {
        let want = format!("out {slot}\nerr {slot}\n");
        wait_text(&rig, &format!("w.{slot}.log"), &want);
    }
    assert!(rig.lines().is_empty(), "{:?}", rig.lines());
    let meta = fs::metadata(log(&rig, "w.0.log")).unwrap();
    let dir = fs::metadata(rig.dir().join("logs")).unwrap();
    assert_eq!(meta.permissions().mode() & 0o137, 0);
    assert_eq!(dir.permissions().mode() & 0o027, 0);
    // Killed within a line: that ends there, and the next worker begins one of its own.
    let old = rig.status().pids()[0];
    tell(&rig, 0, "echo whole; printf 'half of a line'; kill -9 $$");
    let died = rig.wait("died", |e| e.pid() == old);
    assert!(died.text("stderr").ends_with("whole\nhalf of a line"));
    let want = "out 0\nerr 0\nwhole\nhalf of a line\nout 0\nerr 0\n";
    wait_text(&rig, "w.0.log", want);
    assert_eq!(text(&log(&rig, "w.0.log")), want);
    assert!(rig.verb("why 0").out.contains("half of a line"));
    // What a worker leaves behind writes on. Nobody gets its end of the pipe but by that.
    let child = "mkfifo go; setsid sh -c 'touch away; read -r x < go; echo left' &";
    tell(
        &rig,
        1,
        &format!("{child} while ! [ -e away ]; do sleep 0.01; done; exit 3"),
    );
    rig.wait("died", |e| e.slot() == 1);
    rig.wait("ready", |e| e.slot() == 1);
    fs::write(rig.dir().join("go"), "\n").unwrap();
    wait_text(&rig, "w.1.log", "left\n");
    // Who was asked to end has its last lines in the answer to why, and not in the log.
    rig.verb("reload");
    let asked: Vec<_> = rig
        .events("died")
        .into_iter()
        .filter(|e| e.text("reason") == "restart")
        .collect();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|e| !e.has("stderr")));
    assert!(rig.verb("why 1").out.contains("err 1"));
    rig.end(&["died"]);
}

#[test]
fn lines_of_all_in_one_file_say_whose_they_are() {
    let mut rig = writers(2, "--log-merge");
    let pids = rig.status().pids();
    let mut want = Vec::new();
    for (slot, pid) in pids.iter().enumerate() {
        tell(
            &rig,
            slot,
            "printf 'in '; printf 'pieces\\n\\n'; printf '%0*d\\n' 20000 7",
        );
        for line in [
            format!("out {slot}"),
            format!("err {slot}"),
            "in pieces".into(),
            String::new(),
        ] {
            want.push(format!("{slot}[{pid}]: {line}"));
        }
        want.push(format!("{slot}[{pid}]: {}", "0".repeat(16384)));
        want.push(format!("{slot}[{pid}]: {}7", "0".repeat(20000 - 16384 - 1)));
    }
    let lines = || -> Vec<String> {
        text(&log(&rig, "w.log"))
            .lines()
            .map(String::from)
            .collect()
    };
    rig.until("all is there", || lines().len() >= want.len());
    let mut got = lines();
    got.sort();
    want.sort();
    assert_eq!(got, want);
    assert_eq!(fs::read_dir(rig.dir().join("logs")).unwrap().count(), 1);
    // So it is for who reads and follows them, unless of one slot.
    let whose = format!("0[{}]: ", pids[0]);
    let mut typist = Typist::on(&rig.socket());
    tell(&rig, 0, "echo kept");
    wait_text(&rig, "w.log", &format!("{whose}kept\n"));
    typist.types("logs lines 1 follow");
    assert_eq!(typist.reads(), format!("{whose}kept"));
    tell(&rig, 0, "echo live");
    assert_eq!(typist.reads(), format!("{whose}live"));
    wait_text(&rig, "w.log", &format!("{whose}live\n"));
    assert_eq!(rig.verb("logs 0 lines 2").out, "kept\nlive\n");
    drop(typist);
    let asleep = || proc::sleeps_for_good(rig.pid());
    rig.until("who has nothing to write sleeps for good", asleep);
    rig.note_descriptors();
    rig.end(&[]);
}

#[test]
fn files_are_rotated_by_size_and_reopened_when_others_have_renamed_them() {
    let rig = writers(1, "--log-max-size 64K --log-keep 2");
    tell(
        &rig,
        0,
        "n=0; while [ $n -lt 4000 ]; do n=$((n+1)); printf 'line %0*d\\n' 50 $n; done",
    );
    wait_text(&rig, "w.0.log", &format!("{:050}", 4000));
    let name = |n: usize| {
        if n == 0 {
            "w.0.log".to_string()
        } else {
            format!("w.0.log.{n}")
        }
    };
    let sizes: Vec<u64> = (0..3)
        .map(|n| fs::metadata(log(&rig, &name(n))).unwrap().len())
        .collect();
    assert!(sizes.iter().all(|s| *s <= 64 * 1024), "{sizes:?}");
    assert!(sizes[1..].iter().all(|s| *s > 40 * 1024), "{sizes:?}");
    assert!(!log(&rig, &name(3)).exists());
    // Nothing is missing between the files, or twice there.
    let all: String = (0..3).rev().map(|n| text(&log(&rig, &name(n)))).collect();
    let first = 4000 - all.lines().count() + 1;
    for (line, n) in all.lines().zip(first..) {
        assert_eq!(line, format!("line {n:050}"));
    }
    // By somebody else, by a verb and by a signal.
    for (n, reopen) in ["verb", "signal"].into_iter().enumerate() {
        let moved = format!("moved.{n}");
        fs::rename(log(&rig, "w.0.log"), log(&rig, &moved)).unwrap();
        tell(&rig, 0, &format!("echo before {n}"));
        wait_text(&rig, &moved, &format!("before {n}\n"));
        match reopen {
            "verb" => assert!(rig.verb("reopen").out.contains("reopened 1 file in ")),
            _ => rig.signal(Signal::SIGUSR1),
        }
        rig.wait_many("reopened", n + 1);
        tell(&rig, 0, &format!("echo after {n}"));
        wait_text(&rig, "w.0.log", &format!("after {n}\n"));
        assert!(!text(&log(&rig, &moved)).contains(&format!("after {n}")));
    }
    rig.end(&[]);
}

#[test]
fn a_full_disk_costs_lines_that_are_counted_and_holds_nobody_up() {
    let how = birth::namespaces("-m");
    let mount = "mkdir logs; mount -t tmpfs -o size=64k none logs; exec \"$0\" \"$@\"";
    let start = ["unshare", &how, "sh", "-ec", mount].map(String::from);
    let words = "-n 1 --name w --ready started --log-dir logs --log-max-size 0 -- ./writer";
    let place = Place::new();
    dressed(&place.dir, 1);
    let mut rig = Rig::placed(place, &start, words);
    rig.up();
    // More than a disk and a pipe take: who writes it is not held up.
    let many = "n=0; while [ $n -lt 5000 ]; do n=$((n+1)); echo line $n of very many of them; done";
    tell(&rig, 0, &format!("{many}; touch written"));
    let failed = rig.wait("log-failed", |_| true);
    assert!(
        failed.msg.contains("No space left on device"),
        "{}",
        failed.msg
    );
    assert!(failed.text("file").ends_with("logs/w.0.log"));
    rig.until("all of it is written", || {
        rig.dir().join("written").exists()
    });
    let full = PathBuf::from(format!(
        "/proc/{}/root{}",
        rig.pid(),
        log(&rig, "w.0.log").display()
    ));
    let kept = text(&full)
        .lines()
        .filter(|l| l.starts_with("line "))
        .count();
    assert!(kept > 1000 && kept < 3000, "{kept}");
    assert_eq!(rig.status().ready, 1);
    // There is room again: the next line that is tried goes through, and says what is missing.
    OpenOptions::new()
        .write(true)
        .open(&full)
        .unwrap()
        .set_len(0)
        .unwrap();
    let back = || {
        tell(&rig, 0, "echo again");
        text(&full).contains("\nagain\n")
    };
    rig.until("it is written again", back);
    let lost = rig.wait("log-lost", |_| true);
    let count = lost.number("count") as usize;
    let head = text(&full);
    let head = head
        .lines()
        .find(|l| l.starts_with("minicluster: "))
        .unwrap();
    assert_eq!(
        head,
        format!("minicluster: {count} lines lost here: No space left on device")
    );
    assert!(
        count >= 5000 - kept - 1,
        "{count} of 5000 lost, {kept} kept"
    );
    assert_eq!(rig.events("log-failed").len(), 1, "once");
    rig.end(&["log-failed", "log-lost"]);
}

#[test]
fn where_no_file_can_be_had_lines_are_lost_and_what_is_lost_last_is_said_at_the_end() {
    let mut rig = writers(1, "");
    let (file, aside) = (log(&rig, "w.0.log"), rig.dir().join("aside"));
    // A symbolic link, that whoever may write there has put in its place, is not followed.
    fs::rename(&file, &aside).unwrap();
    symlink("../aside", &file).unwrap();
    let said = rig.verb("reopen");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("going on with the old one"), "{said:?}");
    let old = rig.status().pids()[0];
    sigkill(old);
    rig.wait("log-failed", |_| true);
    rig.wait("ready", |_| true);
    tell(&rig, 0, "echo lost; touch done");
    rig.until("that is said", || rig.dir().join("done").exists());
    assert_eq!(text(&aside), "out 0\nerr 0\n");
    rig.signal(Signal::SIGTERM);
    rig.wait_exit();
    let lost = rig.wait("log-lost", |_| true);
    assert_eq!(lost.number("count"), 3.0);
    rig.finish(0, &["reopen-failed", "log-failed", "log-lost", "died"]);
}

#[test]
fn a_directory_that_cannot_be_had_is_exit_73_before_anything_is_bound() {
    let place = Place::new();
    let port = free_port();
    fs::write(place.dir.join("file"), "").unwrap();
    fs::create_dir(place.dir.join("linked")).unwrap();
    symlink("../file", place.dir.join("linked/w.0.log")).unwrap();
    fs::create_dir(place.dir.join("piped")).unwrap();
    let fifo = place.dir.join("piped/w.0.log");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let start = |dir: &str, more: &str| {
        let mut cmd = place.command();
        cmd.args(format!("-n 1 -p {port} --name w --log-dir {dir} {more} -- ./threaded").words());
        run(cmd, Instant::now() + Duration::from_secs(20))
    };
    for (dir, why) in [
        ("a/b", "a/b: it is not made, because "),
        ("a/b", "/a is not there: make that first"),
        ("file", "file: Not a directory"),
        ("linked", "linked/w.0.log: it is a symbolic link"),
        ("piped", "piped/w.0.log: it is a FIFO"),
        ("/proc", "/proc/w.0.log: No such file or directory"),
    ] {
        let said = start(dir, "");
        assert_eq!(said.code, 73, "{said:?}");
        assert!(
            said.err.contains("--log-dir") && said.err.contains(why),
            "{said:?}"
        );
        assert!(!said.err.contains("port-open"), "{said:?}");
        let left = fs::read_dir(place.dir.join("run")).map_or(0, |all| all.count());
        assert_eq!(left, 0);
    }
    let said = start("logs", "--single");
    assert_eq!(said.code, 64, "{said:?}");
    assert!(!place.dir.join("logs").exists());
}

#[test]
fn silent_workers_are_heard_by_nobody_and_their_last_words_are_known() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --silent -- ./threaded --stderr-flood");
    let mut rig = Rig::start(words);
    rig.up();
    let pid = rig.status().pids()[0];
    for fd in [1, 2] {
        assert_eq!(proc::descriptor(pid, fd), "/dev/null");
    }
    assert!(rig.lines().is_empty(), "{:?}", rig.lines());
    rig.end(&[]);
    let words = "-n 1 --silent --ready ready --backoff 0 --respawn 10s -- ./writer";
    let mut rig = Rig::dressed(words, |_, dir| {
        script(
            dir,
            "writer",
            "#!/bin/sh\necho out; echo last words >&2; exit 3\n",
        );
    });
    let died = rig.wait("died", |_| true);
    assert_eq!(died.text("stderr"), "last words");
    assert!(rig.lines().is_empty(), "{:?}", rig.lines());
    rig.end(&["died"]);
}

#[test]
fn the_workers_of_a_daemon_and_of_another_user_write_files_that_are_the_masters() {
    if !birth::root() {
        return; // where everybody is the same user there is nothing to see
    }
    let words =
        "-n 1 --name w --ready started --user 65534 --group 65534 --log-dir logs -- ./writer";
    let mut rig = Rig::over_nobody("", words, |_, dir| {
        dressed(dir, 1);
        for name in ["writer", "told.0"] {
            birth::give_to_nobody(&dir.join(name));
        }
        fs::create_dir(dir.join("logs")).unwrap();
        fs::set_permissions(dir.join("logs"), fs::Permissions::from_mode(0o700)).unwrap();
    });
    rig.up();
    wait_text(&rig, "w.0.log", "out 0\nerr 0\n");
    assert_eq!(fs::metadata(log(&rig, "w.0.log")).unwrap().uid(), 0);
    rig.end(&[]);
}

#[test]
fn the_last_lines_are_all_there_however_many_a_pipe_holds() {
    const LINES: usize = 60_000;
    let program = format!(
        "import fcntl, os, signal\n\
         fcntl.fcntl(1, 1031, 1 << 20)\n\
         def end(*_):\n    \
             os.write(1, b''.join(b'line %d\\n' % n for n in range({LINES})))\n    \
             os._exit(0)\n\
         signal.signal(signal.SIGTERM, end)\n\
         os.write(1, b'up\\n')\n\
         while True: signal.pause()\n"
    );
    let words = format!(
        "-n 1 --name w --ready started --log-dir logs -- {} last.py",
        python()
    );
    let mut rig = Rig::dressed(words, |_, dir| {
        fs::write(dir.join("last.py"), program).unwrap();
    });
    rig.up();
    wait_text(&rig, "w.0.log", "up\n");
    // All of it is there before the master reads any: it has been asked to stop, too, and is not running.
    let worker = rig.status().pids()[0];
    rig.signal(Signal::SIGSTOP);
    rig.until("the master stands", || proc::stopped(rig.pid()));
    rig.signal(Signal::SIGTERM);
    kill(Pid::from_raw(worker), Signal::SIGTERM).unwrap();
    let written = || proc::zombies(rig.pid()).contains(&worker);
    rig.until("the worker has said all", written);
    rig.signal(Signal::SIGCONT);
    rig.wait_exit();
    let all = text(&log(&rig, "w.0.log"));
    assert_eq!(all.lines().count(), 1 + LINES);
    assert!(all.ends_with(&format!("line {}\n", LINES - 1)));
    rig.finish(0, &["died"]);
}

#[test]
fn ten_thousand_lines_a_second_are_all_there() {
    const LINES: usize = 20_000;
    let mut rig = Rig::dressed(
        "-n 4 --name w --ready started --log-dir logs --log-max-size 256K --log-keep 100 -- ./writer",
        |_, dir| {
            let much = format!(
                "#!/bin/sh\nexec awk 'BEGIN {{ for (n = 1; n <= {LINES}; n++) {{ print \"a line\", n; \
                 if (n % 100 == 0) fflush() }} print \"end\"; fflush(); system(\"sleep 1000\") }}'\n"
            );
            script(dir, "writer", &much);
        },
    );
    rig.up();
    for slot in 0..4 {
        wait_text(&rig, &format!("w.{slot}.log"), "end\n");
        let of_it = |p: &PathBuf| {
            let name = p.file_name().unwrap().to_string_lossy().into_owned();
            let number = name
                .strip_prefix(&format!("w.{slot}.log"))?
                .trim_start_matches('.')
                .to_string();
            Some((number.parse().unwrap_or(0u32), p.clone()))
        };
        let entries = fs::read_dir(rig.dir().join("logs")).unwrap().flatten();
        let mut files: Vec<(u32, PathBuf)> = entries.filter_map(|e| of_it(&e.path())).collect();
        files.sort();
        let all: String = files.iter().rev().map(|(_, p)| text(p)).collect();
        assert_eq!(all.lines().count(), LINES + 1);
        for (line, n) in all.lines().zip(1..=LINES) {
            assert_eq!(line, format!("a line {n}"));
        }
    }
    rig.end(&[]);
}
