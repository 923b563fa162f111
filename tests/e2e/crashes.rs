//! "Limits": a crash loop is slowed down or is the end, a worker that has finished is not started again,
//! and the exit status tells how it went.

use crate::client::{get, v4};
use crate::harness::Rig;
use crate::place::free_port;
use std::fs;
use std::path::PathBuf;

/// Worker 0 stays; the others do this.
fn others(options: &str, what: &str) -> Vec<String> {
    let script = format!("test $WORKER_ID = 0 && exec sleep 60; {what}");
    let words = format!("{options} --ready started --respawn 10ms --backoff 0 -- sh -c");
    let words = words.split_whitespace().map(String::from);
    words.chain([script]).collect()
}

#[test]
fn in_a_crash_loop_the_next_worker_waits_until_the_minute_has_room() {
    let mut rig = Rig::start(others("-n 2 --restarts-per-minute 3", "exit 3"));
    let said = rig.wait("crash-loop", |_| true);
    assert_eq!((said.slot(), said.number("respawns")), (1, 3.0));
    assert_eq!(said.level, "error");
    let delay = said.number("delay");
    assert!(delay > 50.0 && delay <= 60.0, "{delay}");
    assert!(
        said.msg.contains("goes on with 1/2 workers ready"),
        "{}",
        said.msg
    );
    let status = rig.wait_status("the other one goes on", |s| s.ready == 1);
    assert_eq!(status.rows[1].state, "waiting");
    let text = rig.verb("why").out;
    let first = text.lines().next().unwrap();
    assert!(
        first.starts_with("3 respawns in the last minute (limit 3, --restarts-per-minute); a crash loop: the next one is held back for "),
        "{first}"
    );
    let last = text.lines().last().unwrap();
    assert!(last.contains("; held back for ") && last.ends_with("by --restarts-per-minute 3"));
    assert!(
        rig.verb("why 1 --json")
            .out
            .contains("\"next\":\"held-back\"")
    );
    let json = rig.verb("status --json").out;
    assert!(
        json.contains("\"respawns\":{\"count\":3,\"limit\":3}"),
        "{json}"
    );
    // One for each respawn, and the first.
    assert_eq!(rig.events("died").len(), 4);
    rig.end(&["died", "crash-loop"]);
}

#[test]
fn a_crash_loop_can_be_the_end() {
    let options = "-n 2 --restarts-per-minute 2 --on-crash-loop exit";
    let mut rig = Rig::start(others(options, "exit 3"));
    let said = rig.wait("crash-loop", |_| true);
    assert!(
        said.msg.contains("2 respawns within a minute (limit 2,"),
        "{}",
        said.msg
    );
    assert_eq!(
        rig.wait("stopping", |_| true).text("reason"),
        "a crash loop"
    );
    rig.finish(69, &["died", "crash-loop"]);
}

#[test]
fn when_all_forks_are_used_up_the_slot_stays_empty_until_an_operator_asks() {
    let what = "test -e well && exec sleep 60; exit 3";
    // One that ends at once was never ready.
    let words = others("-n 2 --max-forks 4", what).into_iter();
    let words = words.map(|w| w.replace("started", "100ms"));
    let mut rig = Rig::start(words.collect::<Vec<_>>());
    let said = rig.wait("max-forks", |_| true);
    assert_eq!((said.number("forks"), said.number("limit")), (4.0, 4.0));
    let status = rig.wait_status("the other one goes on", |s| s.ready == 1);
    assert_eq!(status.rows[1].state, "given-up");
    assert!(
        rig.verb("why")
            .out
            .contains("its slot is given up by --max-forks 4")
    );
    // Asked again, and no better; the answer says so.
    let again = rig.verb("resize 2");
    assert_eq!(again.code, 1, "{again:?}");
    rig.wait("max-forks", |_| true);
    fs::write(rig.dir().join("well"), "").unwrap();
    let asked = rig.verb("resize 2");
    assert_eq!(
        (asked.code, asked.out.as_str()),
        (0, "2 workers\n"),
        "{asked:?}"
    );
    rig.wait_status("both are ready", |s| s.ready == 2);
    rig.end(&["died", "max-forks"]);
}

#[test]
fn forks_that_are_used_up_can_be_the_end_and_are_if_no_slot_has_a_worker() {
    let rig = Rig::start(others("-n 2 --max-forks 3 --on-crash-loop exit", "exit 3"));
    rig.finish(69, &["died", "max-forks"]);
    let rig = Rig::start("-n 2 --max-forks 3 --respawn 10ms -- false");
    rig.finish(69, &["died", "max-forks", "none-left"]);
}

#[test]
fn fewer_forks_than_workers_are_refused() {
    let why = "--max-forks 3 is less than the number of workers, 4: there could not be as many; 4 or more, or 0 for any number";
    for words in ["-n 4 --max-forks 3 -- true", "--max-forks 3 -- true"] {
        let rig = Rig::dressed(words, |cmd, _| {
            cmd.env("WEB_CONCURRENCY", "4");
        });
        rig.wait_line(why);
        rig.finish(64, &[]);
    }
}

#[test]
fn one_that_exits_0_has_finished_and_takes_no_client_and_a_reload_fills_its_slot_again() {
    let port = free_port();
    let script = "test $WORKER_ID = 0 || test -e again || exit 0; exec ./threaded";
    let options = format!("-n 2 -p {port} --respawn-on failure -- sh -c");
    let words = options.split_whitespace().map(String::from);
    let mut rig = Rig::start(words.chain([script.to_string()]).collect::<Vec<_>>());
    let died = rig.wait("died", |_| true);
    assert_eq!((died.slot(), died.text("reason")), (1, "finished"));
    assert_eq!(died.level, "info");
    assert!(
        died.msg.ends_with("slot is finished (--respawn-on)"),
        "{}",
        died.msg
    );
    // The start is over with the one that is left.
    rig.wait("all-ready", |_| true);
    let status = rig.status();
    assert_eq!(
        (status.ready, status.rows[1].state.as_str()),
        (1, "finished")
    );
    for _ in 0..40 {
        assert_eq!(get(v4(port), "/").unwrap().slot(), 0);
    }
    fs::write(rig.dir().join("again"), "").unwrap();
    assert_eq!(rig.verb("reload").code, 0);
    assert_eq!(rig.status().ready, 2);
    rig.end(&[]);
}

#[test]
fn when_all_have_finished_the_master_leaves_with_the_highest_status() {
    let script = "case $WORKER_ID in 0) exit 3;; 1) kill -TERM $$;; *) exit 0;; esac";
    let options = "-n 3 --ready started --respawn-on never -- sh -c".split(' ');
    let words = options.chain([script]).map(String::from);
    let mut rig = Rig::start(words.collect::<Vec<_>>());
    let said = rig.wait("none-left", |_| true);
    assert_eq!(said.text("signal"), "SIGTERM");
    assert!(
        said.msg
            .contains("leaving with exit 143, the highest status of a worker: 128 and 15"),
        "{}",
        said.msg
    );
    rig.finish(143, &["died", "none-left"]);
    // And 0 is nothing to complain about.
    let rig = Rig::start("-n 2 --ready started --respawn-on failure -- true");
    rig.finish(0, &[]);
}

#[test]
fn one_that_never_says_that_it_is_well_is_replaced_less_and_less_often() {
    let rig = Rig::start("-n 1 --ready started --watchdog 1200ms --respawn 40ms -- sleep 60");
    let waits = rig.wait_many("respawning", 3);
    for (n, e) in waits.iter().enumerate() {
        let full = f64::from(40 << n) / 1000.0;
        let wait = e.number("delay");
        assert!(
            wait <= full && wait >= full * 0.8 - 0.001,
            "{wait} of {full}"
        );
        assert_eq!(e.number("failures"), (n + 1) as f64);
    }
    rig.end(&["died", "hangs"]);
}

/// A memory cgroup of our own, with a limit: v2 if that has the controller, else v1.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Option<Cgroup> {
        let name = format!("minicluster-test-{}", std::process::id());
        [("", "memory.max"), ("memory", "memory.limit_in_bytes")]
            .into_iter()
            .find_map(|(base, limit)| {
                let dir = PathBuf::from("/sys/fs/cgroup").join(base).join(&name);
                fs::create_dir(&dir).ok()?;
                let cgroup = Cgroup(dir);
                let limit = cgroup.0.join(limit);
                let fits = limit.exists() && fs::write(limit, "67108864").is_ok();
                fits.then_some(cgroup)
            })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Empty by then.
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn a_worker_that_the_kernel_kills_for_want_of_memory_is_told_from_one_that_is_killed() {
    let Some(cgroup) = Cgroup::new() else {
        eprintln!("no memory cgroup can be made here: sys::oom has its own tests");
        return;
    };
    let join = format!("echo $$ > {}/cgroup.procs; exec \"$@\"", cgroup.0.display());
    let script = "test $WORKER_ID = 0 && exec sleep 60; exec tail /dev/zero";
    let options = "-n 2 --ready started --respawn 30s -- sh -c".split(' ');
    let words = options.chain([script]).map(String::from);
    let by = ["sh", "-c", join.as_str(), "sh"];
    let mut rig = Rig::by(by, words.collect::<Vec<_>>());
    let died = rig.wait("died", |_| true);
    assert_eq!(
        (died.slot(), died.text("reason")),
        (1, "oom"),
        "{}",
        died.msg
    );
    assert!(died.msg.contains("ended: oom (SIGKILL)"), "{}", died.msg);
    let status = rig.verb("status").out;
    assert!(status.contains("oom (SIGKILL)"), "{status}");
    let victim = rig.status().pids()[0];
    crate::harness::sigkill(victim);
    let died = rig.wait("died", |e| e.pid() == victim);
    assert_eq!(died.text("reason"), "failure");
    rig.end(&["died"]);
}
