//! "FAULTS": what is refused to a master that runs, what is taken away from it, and who dies at the worst moment.
//! Each story injects one row of `faults_table`, on the built binary, with clients.

use crate::birth;
use crate::client::{all_answer, get, v4};
use crate::faults_table::FAULTS;
use crate::harness::{Rig, Status, Words, sigkill};
use crate::load::Load;
use crate::place::{Place, free_port, python, run, shim};
use crate::proc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FAST: &str = "--respawn 10ms --backoff 0 --restarts-per-minute 0";

/// Of the master, while it runs.
fn limit(rig: &Rig, what: &str) {
    let pid = rig.pid().to_string();
    let mut cmd = Command::new("prlimit");
    // Those of another user take more than root may have.
    let owner = fs::metadata(format!("/proc/{pid}")).unwrap();
    cmd.args(["--pid", &pid, what])
        .uid(owner.uid())
        .gid(owner.gid());
    assert!(cmd.status().unwrap().success(), "prlimit {what}");
}

/// No child can be had, for this reason, from `begin` on until `end`.
fn without_children(
    rig: &mut Rig,
    port: u16,
    errno: i32,
    begin: impl Fn(&Rig),
    end: impl Fn(&Rig),
) {
    rig.up();
    begin(rig);
    let victim = rig.status().pids()[0];
    sigkill(victim);
    let told = rig.wait("spawn-failed", |_| true);
    assert_eq!(told.number("errno"), f64::from(errno));
    let load = Load::going(&format!("{port} clients=4"));
    let said = rig.verb("reload");
    assert_eq!(said.code, 1, "{said:?}");
    assert_eq!(rig.status().ready, 2);
    // It tries again, and not all the time.
    let (tried, since) = (rig.events("spawn-failed").len(), Instant::now());
    rig.until("it has tried again", || {
        rig.events("spawn-failed").len() > tried + 3
    });
    assert!(since.elapsed() > Duration::from_millis(250), "it spins");
    end(rig);
    rig.wait_status("the slot is filled", |s| s.ready == 3);
    assert_eq!(rig.verb("reload").code, 0);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
}

#[test]
fn without_room_for_a_process_the_others_serve_and_the_slot_is_filled_when_there_is() {
    assert!(birth::root(), "this story takes root: run it as root");
    let port = free_port();
    let mut rig = Rig::unprivileged(format!("-n 3 -p {port} {FAST} -- ./threaded"), |_, _| {});
    // That user has as many already.
    let (begin, end) = ("--nproc=1:", "--nproc=4096:");
    without_children(
        &mut rig,
        port,
        libc::EAGAIN,
        |r| limit(r, begin),
        |r| limit(r, end),
    );
    rig.end(&["died", "spawn-failed", "reload-failed"]);
}

#[test]
fn so_it_is_without_memory_for_one() {
    let port = free_port();
    let mut rig = Rig::dressed(format!("-n 3 -p {port} {FAST} -- ./threaded"), |cmd, _| {
        cmd.env("LD_PRELOAD", shim());
    });
    let path = rig.dir().join("shim-fork");
    without_children(
        &mut rig,
        port,
        libc::ENOMEM,
        |_| fs::write(&path, libc::ENOMEM.to_string()).unwrap(),
        |_| fs::remove_file(&path).unwrap(),
    );
    rig.end(&["died", "spawn-failed", "reload-failed"]);
}

#[test]
fn with_any_number_of_descriptors_it_goes_on_and_is_whole_again_with_enough() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 3 -p {port} {FAST} -- ./threaded"));
    rig.up();
    rig.patient(Duration::from_secs(60));
    let open = proc::descriptors(rig.pid());
    let failed = |rig: &Rig| rig.events("spawn-failed").len();
    let mut refused = 0;
    for more in 0..16 {
        let (victim, before) = (rig.status().pids()[more % 3], failed(&rig));
        let (deaths, births) = (rig.events("died").len(), rig.events("ready").len());
        limit(&rig, &format!("--nofile={}:", open - 2 + more));
        sigkill(victim);
        rig.until("something came of it", || {
            failed(&rig) > before
                || rig.events("died").len() > deaths + 1
                || rig.events("ready").len() > births
        });
        refused += usize::from(failed(&rig) > before);
        // Whoever is there serves all the same.
        assert!(get(v4(port), "/").is_ok(), "with {more} more");
        limit(&rig, "--nofile=4096:");
        rig.wait_status("all are there again", |s| s.ready == 3);
    }
    assert!(refused > 1, "{refused} were refused");
    let load = Load::going(&format!("{port} clients=4"));
    assert_eq!(rig.verb("reload").code, 0);
    // A hard limit below the one that we were born with is the workers', too.
    limit(&rig, "--nofile=900:900");
    assert_eq!(rig.verb("reload").code, 0);
    let pid = rig.status().pids()[0];
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|l| l.starts_with("Max open files"));
    assert_eq!(line.unwrap().split_whitespace().nth(4), Some("900"));
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    rig.end(&["died", "spawn-failed", "exec-failed"]);
}

/// In mounts of its own, after this.
fn mounted(how: &str) -> Vec<String> {
    let script = format!("{how} && exec \"$@\"");
    ["unshare", "-m", "sh", "-c", &script, "sh"]
        .map(String::from)
        .to_vec()
}

#[test]
fn without_room_for_its_pid_file_it_does_not_start() {
    let place = Place::new();
    let script = "mkdir full; mount -t tmpfs -o size=4k,mode=755 none full; \
                  cat /dev/zero >full/x 2>/dev/null; \"$0\" \"$@\"; code=$?; ls -A full; exit $code";
    let by = ["unshare", &birth::namespaces("-m"), "sh", "-c", script];
    let mut cmd = place.command_by(&by.map(String::from));
    cmd.args("-n 1 -p 0 --pid-file full/app.pid -- ./threaded".words());
    let said = run(cmd, Instant::now() + Duration::from_secs(20));
    assert_eq!((said.code, said.out.as_str()), (73, "x\n"), "{said:?}");
    assert!(said.err.contains("No space left on device"), "{said:?}");
    assert!(proc::marked(&place.mark).is_empty());
}

/// It serves, and does what signals ask for.
fn hears_signals(rig: &mut Rig, port: u16) {
    let load = Load::going(&format!("{port} clients=2"));
    rig.signal(Signal::SIGHUP);
    rig.wait("reload-finished", |_| true);
    rig.signal(Signal::SIGUSR1);
    rig.wait("reopened", |_| true);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    rig.signal(Signal::SIGTERM);
}

#[test]
fn without_a_place_for_its_socket_it_serves_and_hears_signals() {
    assert!(birth::root(), "this story takes root: run it as root");
    let full = "mkdir -p run && mount -t tmpfs -o nr_inodes=2,mode=755 none run && touch run/x";
    let closed = "mkdir -p run && mount -t tmpfs -o ro,mode=755 none run";
    for (how, why) in [(closed, "Read-only"), (full, "No space left")] {
        let port = free_port();
        let mut rig = Rig::by(mounted(how), format!("-n 2 -p {port} -- ./threaded"));
        let said = rig.wait("no-control", |_| true);
        assert!(said.msg.contains(why), "{}", said.msg);
        rig.wait("all-ready", |_| true);
        hears_signals(&mut rig, port);
        rig.finish(0, &["no-control"]);
    }
}

#[test]
fn when_the_disk_of_its_socket_has_gone_it_serves_and_hears_signals() {
    assert!(birth::root(), "this story takes root: run it as root");
    let port = free_port();
    let how = "mkdir -p run && mount -t tmpfs -o mode=755 none run";
    let mut rig = Rig::by(mounted(how), format!("-n 2 -p {port} -- ./threaded"));
    rig.wait("all-ready", |_| true);
    let pid = rig.pid().to_string();
    let mut gone = Command::new("nsenter");
    gone.args(["-t", &pid, "-m", "umount", "-l"]);
    assert!(gone.arg(rig.dir().join("run")).status().unwrap().success());
    hears_signals(&mut rig, port);
    rig.finish(0, &[]);
}

/// Runs that among the processes of a rig, in its mounts; says what it says.
fn among(rig: &Rig, script: &str) -> String {
    let inside = proc::children(rig.pid())[0].to_string();
    let mut cmd = Command::new("nsenter");
    cmd.args(["-t", &inside, "-p", "-m", "sh", "-c", script]);
    let said = cmd.current_dir(rig.dir()).stderr(Stdio::inherit()).output();
    String::from_utf8(said.unwrap().stdout).unwrap()
}

#[test]
fn the_number_of_a_dead_worker_may_be_a_strangers_and_that_one_lives() {
    assert!(birth::root(), "this story takes root: run it as root");
    let port = free_port();
    let script = "\"$0\" \"$@\"; code=$?; kill -0 $(cat strangers) && echo 'all strangers live' >&2; exit $code";
    let by = [
        "unshare",
        "-pf",
        "--mount-proc",
        "--kill-child",
        "sh",
        "-c",
        script,
    ];
    let mut rig = Rig::by(by, format!("-n 3 -p {port} {FAST} -- ./threaded"));
    rig.wait("all-ready", |_| true);
    // One that is killed, one that a reload has replaced, and all that were there at the start: each
    // number is had by another process at the next moment, which leads a group of that number.
    let first = rig.status().pids();
    among(&rig, &format!("kill -9 {}", first[0]));
    rig.wait("died", |e| e.pid() == first[0]);
    rig.wait_status("it is replaced", |s| s.ready == 3);
    assert_eq!(rig.verb("reload").code, 0);
    rig.wait_many("died", 4);
    for pid in &first {
        let taken = among(
            &rig,
            &format!(
                "for i in 1 2 3 4 5 6 7 8 9; do echo {} >/proc/sys/kernel/ns_last_pid; \
                 setsid sleep 1000 >/dev/null 2>&1 & test $! = {pid} && break; kill $!; done; \
                 echo $! | tee -a {}/strangers",
                pid - 1,
                rig.dir().display()
            ),
        );
        assert_eq!(taken.trim(), pid.to_string(), "the kernel gave another");
    }
    for verb in ["signal CONT", "signal USR1 0", "reload", "restart", "why"] {
        let said = rig.verb(verb);
        assert_eq!(said.code, 0, "{verb}: {said:?}");
    }
    all_answer(&rig, v4(port), "/", 3);
    assert_eq!(rig.verb("stop").code, 0);
    rig.wait_line("all strangers live");
    rig.finish(0, &["died"]);
}

/// Binds and binds.
const BINDER: &str = "import socket, time
while True:
    s = socket.socket()
    s.bind(('', PORT))
    s.close()
    time.sleep(0.002)
";

/// Does it wait in bind(2)?
fn binds(pid: i32) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall"));
    call.is_ok_and(|c| c.starts_with(&format!("{} ", libc::SYS_bind)))
}

#[test]
fn two_hundred_workers_that_are_killed_in_the_midst_of_bind_are_replaced() {
    const AT_ONCE: usize = 10;
    let place = Place::new();
    let port = free_port();
    let text = BINDER.replace("PORT", &port.to_string());
    fs::write(place.dir.join("binder.py"), text).unwrap();
    let words = format!(
        "-n {AT_ONCE} -p {port} --ready started {FAST} -- {} -S binder.py",
        python()
    );
    let mut rig = Rig::placed(place, &["env".to_string()], words);
    rig.wait("all-ready", |_| true);
    rig.patient(Duration::from_secs(60));
    for round in 1..=20 {
        let pids = rig.status().pids();
        assert_eq!(pids.len(), AT_ONCE);
        rig.signal(Signal::SIGSTOP);
        rig.until("all wait for its answer", || pids.iter().all(|p| binds(*p)));
        // In every other round it is at work while they die.
        if round % 2 == 0 {
            rig.signal(Signal::SIGCONT);
        }
        pids.iter().for_each(|p| sigkill(*p));
        rig.signal(Signal::SIGCONT);
        rig.wait_many("died", AT_ONCE * round);
        rig.wait_status("all are there again", |s| s.ready == AT_ONCE);
    }
    // Nobody else has died: no call has failed, or had the answer to another.
    assert_eq!(rig.events("died").len(), AT_ONCE * 20);
    rig.end(&["died", "unserved"]);
}

#[test]
fn a_master_that_is_killed_in_the_midst_of_a_reload_leaves_nothing_in_the_way() {
    let port = free_port();
    let words = format!("-n 3 -p {port} --canary 1:20s -- ./threaded");
    let mut rig = Rig::start(words.as_str());
    rig.up();
    let waits = rig.meanwhile("reload");
    rig.wait("reload-started", |_| true);
    rig.wait("ready", |_| true);
    let all = rig.wait_status("there are two generations", |s| {
        s.rows.len() + s.beside.len() > 3
    });
    let beside = all.beside.iter().filter_map(|r| r.pid);
    let workers: Vec<i32> = all.pids().into_iter().chain(beside).collect();
    assert!(workers.len() > 3, "{workers:?}");
    sigkill(rig.pid());
    rig.until("all have gone", || !workers.iter().any(|p| proc::alive(*p)));
    rig.wait_exit();
    assert_ne!(waits.join().unwrap().code, 0);
    // The next one has its place at once: port, name, socket.
    let mut next = rig.command();
    let mut next = next
        .args(words.words())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    rig.until("the next one listens", || {
        let said = rig.verb("status --json");
        said.code == 0 && Status::parse(&said.out).pid == next.id() as i32
    });
    rig.wait_status("it serves", |s| s.ready == 3);
    all_answer(&rig, v4(port), "/", 3);
    kill(Pid::from_raw(next.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(next.wait().unwrap().code(), Some(0));
    let left = fs::read_dir(rig.dir().join("run")).unwrap().count();
    assert_eq!(left, 0, "files left behind");
}

/// With `--nocapture` it is a table.
#[test]
fn the_table_of_faults() {
    for f in FAULTS {
        println!("{:<42} {}", f.name, f.how);
        println!("    {} [{}]", f.promise, f.says.join(" "));
        println!("    {}", f.story);
    }
    let names: BTreeSet<&str> = FAULTS.iter().map(|f| f.name).collect();
    assert_eq!(names.len(), FAULTS.len(), "one is there twice");
}
