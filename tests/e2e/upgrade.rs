//! Another command while the cluster runs: an upgrade that works, one that does not, and the way back;
//! and slots that run something else.

use crate::client::{get, v4};
use crate::harness::Rig;
use crate::load::Load;
use crate::place::{free_port, python, run};
use std::collections::BTreeSet;
use std::fs;

/// The blocking server by so many workers, of which each new one is watched so long.
fn serving(workers: u16, watch: &str) -> (Rig, u16) {
    let port = free_port();
    let server = format!("{} blocking.py", python());
    let mut rig = Rig::start(format!(
        "-n {workers} -p {port} --canary 1:{watch} --ready-timeout 5s -- {server}"
    ));
    rig.up();
    (rig, port)
}

/// How `workers details` has the commands, by slot.
fn commands(rig: &Rig) -> Vec<String> {
    let out = rig.verb("workers details").out;
    let command = |line: &str| line[line.find("python").unwrap_or(0)..].to_string();
    out.lines().skip(1).map(command).collect()
}

#[test]
fn an_upgrade_to_broken_code_costs_nothing_and_one_that_works_can_be_rolled_back() {
    let (rig, port) = serving(3, "200ms");
    let old = rig.status().pids();
    let load = Load::going(&port.to_string());
    fs::write(rig.dir().join("broken"), "").unwrap();
    let py = python();
    let asked = rig.meanwhile(format!("upgrade {py} blocking.py broken=broken"));
    rig.until("it is over", || {
        assert_eq!(rig.status().ready, 3);
        asked.is_finished()
    });
    let said = asked.join().unwrap();
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("this version is broken"), "{said:?}");
    assert_eq!(rig.status().pids(), old);
    assert_eq!(rig.verb("rollback").code, 1, "nothing to go back to");
    let said = rig.verb("upgrade ./no-such-program");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("not found"), "{said:?}");
    // Words that look like ours are the command's.
    let said = rig.verb(format!(
        "upgrade -- {py} blocking.py start=1 mute=x broken=--json"
    ));
    assert_eq!(said.code, 0, "{said:?}");
    let new = format!("{py} blocking.py start=1 mute=x broken=--json");
    assert_eq!(commands(&rig).len(), 3);
    assert!(commands(&rig).iter().all(|c| new.ends_with(c.as_str())));
    // A reload keeps it, and the way back leads behind it, and forth again.
    assert_eq!(rig.verb("reload").code, 0);
    assert!(commands(&rig)[0].contains("start=1"));
    assert_eq!(rig.verb("rollback").code, 0);
    assert!(!commands(&rig)[0].contains("start=1"));
    assert_eq!(rig.verb("rollback").code, 0);
    assert!(commands(&rig)[0].contains("start=1"));
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    rig.end(&["died", "reload-failed"]);
}

#[test]
fn a_rollback_of_what_has_failed_by_itself_does_not_take_away_what_works() {
    let (rig, _) = serving(2, "200ms");
    let py = python();
    assert_eq!(
        rig.verb(format!("upgrade {py} blocking.py start=1")).code,
        0
    );
    assert_eq!(rig.verb("upgrade false").code, 1);
    let said = rig.verb("rollback");
    assert_eq!(said.code, 1, "{said:?}");
    let (failed, before) = ("not rolled back: generation 3 has failed", "blocking.py");
    assert!(said.err.contains(failed), "{said:?}");
    assert!(said.err.trim_end().ends_with(before), "{said:?}");
    assert!(commands(&rig).iter().all(|c| c.ends_with("start=1")));
    // Meant so, it is done.
    assert_eq!(rig.verb("rollback").code, 0);
    assert!(commands(&rig).iter().all(|c| !c.ends_with("start=1")));
    // One that was called off by a rollback has been undone by that: the next one is meant.
    let before = rig.events("ready").len();
    let asked = rig.meanwhile(format!("upgrade watch 60s {py} blocking.py start=2"));
    rig.until("the first new one is ready", || {
        rig.events("ready").len() > before
    });
    assert_eq!(rig.verb("rollback").code, 0);
    assert_eq!(asked.join().unwrap().code, 1);
    assert_eq!(rig.verb("rollback").code, 0);
    assert!(commands(&rig).iter().all(|c| c.ends_with("start=1")));
    rig.end(&["died", "reload-failed"]);
}

#[test]
fn a_rollback_after_one_that_was_refused_does_not_take_away_what_works() {
    let (rig, _) = serving(2, "200ms");
    let second = format!("upgrade {} blocking.py start=1", python());
    assert_eq!(rig.verb(second).code, 0);
    assert_eq!(rig.verb("upgrade ./no-such-program").code, 1);
    let said = rig.verb("rollback");
    assert_eq!(said.code, 1, "{said:?}");
    let refused = "not rolled back: the last reload or upgrade was refused";
    assert!(said.err.contains(refused), "{said:?}");
    assert!(commands(&rig).iter().all(|c| c.ends_with("start=1")));
    // Meant so, it is done.
    assert_eq!(rig.verb("rollback").code, 0);
    assert!(commands(&rig).iter().all(|c| !c.ends_with("start=1")));
    rig.end(&["reload-failed"]);
}

/// What came of an attempt before the last one is no reason to refuse the way back from that.
#[test]
fn a_rollback_of_what_works_is_not_refused_for_what_has_failed_before() {
    let (rig, port) = serving(2, "0");
    let py = python();
    let version = |n: u32| format!("upgrade {py} blocking.py start={n} handler=3000");
    assert_eq!(rig.verb(version(1)).code, 0);
    let previous = |n: u32| {
        let previous = format!("\"previous\":[\"{py}\",\"blocking.py\",\"start={n}\"");
        rig.verb("status --json").out.contains(&previous)
    };
    for (n, vain) in [(2, "false"), (3, "./no-such-program")] {
        assert_eq!(rig.verb(format!("upgrade {vain}")).code, 1);
        let load = Load::going(&format!("{port} clients=2"));
        let begun = rig.events("reload-serving").len();
        let asked = rig.meanwhile(version(n));
        rig.until("the new ones serve", || {
            rig.events("reload-serving").len() > begun
        });
        assert!(previous(1), "{:?}", rig.verb("status --json"));
        let said = rig.verb("rollback");
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(asked.join().unwrap().code, 0);
        assert!(previous(n), "{:?}", rig.verb("status --json"));
        let (well, tally) = load.finish();
        assert!(well, "{tally:?}");
    }
    rig.end(&["died", "reload-failed"]);
}

#[test]
fn a_rollback_while_the_old_ones_are_drained_leads_back_to_what_those_run() {
    let (rig, port) = serving(2, "0");
    let py = python();
    let version = |n: u32| format!("upgrade {py} blocking.py start={n} handler=3000");
    assert_eq!(rig.verb(version(1)).code, 0);
    let load = Load::going(&format!("{port} clients=2"));
    let begun = rig.events("reload-serving").len();
    let asked = rig.meanwhile(version(2));
    rig.until("the new ones serve", || {
        rig.events("reload-serving").len() > begun
    });
    assert_eq!(rig.verb("rollback").code, 0);
    assert_eq!(asked.join().unwrap().code, 0);
    // (In `workers details` are also those that are drained.)
    let runs = |n: u32| {
        let command = format!("\"blocking.py\",\"start={n}\",\"handler=3000\"],\"previous\"");
        rig.verb("status --json").out.contains(&command)
    };
    assert!(runs(1), "{:?}", rig.verb("status --json"));
    assert_eq!(rig.verb("rollback").code, 0);
    assert!(runs(2), "{:?}", rig.verb("status --json"));
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    rig.end(&[]);
}

#[test]
fn one_that_ends_while_it_is_watched_takes_the_whole_back() {
    let (rig, port) = serving(2, "30s");
    let old = rig.status().pids();
    let load = Load::going(&port.to_string());
    let command = format!("timeout -s KILL 4 {} blocking.py", python());
    let said = rig.verb(format!("upgrade -- {command}"));
    assert_eq!(said.code, 1, "{said:?}");
    assert!(
        said.err.contains("ready, but it was watched still"),
        "{said:?}"
    );
    assert_eq!(rig.status().pids(), old);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    rig.end(&["died", "reload-failed"]);
}

#[test]
fn the_old_workers_are_kept_until_the_last_new_one_has_been_watched() {
    let (mut rig, port) = serving(3, "2s");
    let old = rig.status().pids();
    // That of slot 2 ends some time after it was ready, when all have their places.
    let server = format!("{} blocking.py", python());
    let script = rig.dir().join("one-dies");
    fs::write(
        &script,
        format!(
            "#!/bin/sh\n[ $WORKER_ID = 2 ] && exec timeout -s KILL 1.5 {server}\nexec {server}\n"
        ),
    )
    .unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).unwrap();
    let asked = rig.meanwhile("upgrade ./one-dies");
    rig.wait("reload-serving", |_| true);
    assert_eq!(rig.status().ready, 3);
    let said = asked.join().unwrap();
    assert_eq!(said.code, 1, "{said:?}");
    // In the turn in which it was seen they have served again.
    assert_eq!(rig.status().ready, 3);
    let back: BTreeSet<i32> = (0..12).map(|_| get(v4(port), "/").unwrap().pid()).collect();
    assert!(
        back.iter().all(|pid| old.contains(pid)),
        "{back:?} of {old:?}"
    );
    let died = rig.events("died");
    let first = died.iter().find(|e| e.slot() == 2).unwrap();
    assert!(
        first.msg.contains("the one before it has its place again"),
        "{first:?}"
    );
    rig.end(&["died", "reload-failed"]);
}

#[test]
fn a_canary_that_ends_while_others_are_watched_takes_the_whole_back() {
    let (mut rig, _) = serving(2, "2s");
    let old = rig.status().pids();
    let asked = rig.meanwhile(format!("upgrade {} blocking.py start=1", python()));
    // It has been watched, and all have their places; the other one is watched still.
    rig.wait("reload-serving", |_| true);
    let ready = rig.events("ready");
    let canary = ready[old.len()].pid();
    let mut kill = std::process::Command::new("sh");
    kill.args(["-c", &format!("kill -9 {canary}")]);
    assert!(kill.status().unwrap().success());
    let said = asked.join().unwrap();
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains(&format!("pid {canary}")), "{said:?}");
    assert_eq!(rig.status().ready, 2);
    rig.wait_status("only the old ones are left", |s| s.pids() == old);
    rig.end(&["died", "reload-failed"]);
}

#[test]
fn an_upgrade_under_way_is_called_off_at_once() {
    let (mut rig, port) = serving(2, "60s");
    let old = rig.status().pids();
    let asked = rig.meanwhile(format!("upgrade {} blocking.py start=1", python()));
    rig.wait("ready", |e| e.msg.contains("worker"));
    let said = rig.verb("rollback");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.out
            .contains("generation 2 is called off, generation 1 goes on")
    );
    let said = asked.join().unwrap();
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("rolled back by a client"), "{said:?}");
    assert_eq!(rig.status().pids(), old);
    assert!(get(v4(port), "/").is_ok());
    rig.end(&[]);
}

#[test]
fn slots_are_added_that_run_something_else_and_keep_it() {
    let (mut rig, _) = serving(2, "100ms");
    let py = python();
    let said = rig.verb(format!("start count 2 {py} blocking.py start=1"));
    assert_eq!(said.out, "2 workers started, 4 in all\n", "{said:?}");
    let extra = |rig: &Rig| {
        let all = commands(rig);
        all.iter()
            .map(|c| c.contains("start=1"))
            .collect::<Vec<_>>()
    };
    assert_eq!(extra(&rig), [false, false, true, true]);
    // One that is not ready is taken away again.
    fs::write(rig.dir().join("broken"), "").unwrap();
    let said = rig.verb(format!("start {py} blocking.py broken=broken"));
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("this version is broken"), "{said:?}");
    fs::write(rig.dir().join("mute"), "").unwrap();
    let said = rig.verb(format!("start timeout 300ms {py} blocking.py mute=mute"));
    assert_eq!(said.code, 1, "{said:?}");
    rig.wait_status("it is gone", |s| s.pids().len() == 4);
    assert_eq!(rig.verb("reload").code, 0);
    assert_eq!(extra(&rig), [false, false, true, true]);
    assert_eq!(rig.verb(format!("upgrade {py} blocking.py")).code, 0);
    assert_eq!(extra(&rig), [false; 4]);
    rig.note_descriptors();
    rig.end(&["died", "not-ready"]);
}

#[test]
fn what_is_asked_for_is_told_apart_from_what_is_to_run() {
    let (rig, _) = serving(1, "100ms");
    for (line, want) in [
        ("upgrade", "no COMMAND"),
        ("upgrade watch 1s", "no COMMAND"),
        ("upgrade timeout soon x", "'soon'"),
        ("start count 0 x", "1 to 1024"),
        ("start count 1025 x", "1 to 1024"),
    ] {
        let said = rig.verb(line);
        assert_eq!(said.code, 64, "{line}: {said:?}");
        assert!(said.err.contains(want), "{line}: {said:?}");
    }
    // Where it is typed is where it is.
    fs::create_dir(rig.dir().join("v2")).unwrap();
    let said = rig.verb(format!("upgrade cwd v2 {} ../blocking.py", python()));
    assert_eq!(said.code, 0, "{said:?}");
    let pid = rig.status().pids()[0];
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert_eq!(cwd, rig.dir().join("v2").canonicalize().unwrap());
    // Back is where it was.
    assert_eq!(rig.verb("rollback").code, 0);
    let pid = rig.status().pids()[0];
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).unwrap();
    assert_eq!(cwd, rig.dir().canonicalize().unwrap());
    rig.end(&[]);
}

#[test]
fn one_slot_alone_is_given_another_command_until_all_are() {
    // (Of several that share a queue one cannot be emptied alone.)
    let port = free_port();
    let py = python();
    let mut rig = Rig::start(format!(
        "-n 3 -p {port} --balance hash --canary 1:100ms --ready-timeout 5s -- {py} blocking.py"
    ));
    rig.up();
    let old = rig.status().pids();
    let load = Load::going(&port.to_string());
    let said = rig.verb(format!("upgrade 1 {py} blocking.py start=1"));
    assert_eq!(said.code, 0, "{said:?}");
    let told = format!(" in place of worker 1 pid {}", old[1]);
    assert!(said.out.contains(&told), "{said:?}");
    let runs = |n: usize| commands(&rig)[n].contains("start=1");
    assert_eq!([runs(0), runs(1), runs(2)], [false, true, false]);
    // By pid, and one that is broken changes nothing.
    fs::write(rig.dir().join("broken"), "").unwrap();
    let said = rig.verb(format!(
        "upgrade pid:{} {py} blocking.py broken=broken",
        old[2]
    ));
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("this version is broken"), "{said:?}");
    assert_eq!(rig.status().pids()[2], old[2]);
    for (words, want) in [
        ("upgrade 7 sh", "7"),
        ("upgrade 1 ./no-such-program", "not found"),
        ("upgrade 1 watch 1s ./x", "an upgrade of all"),
    ] {
        let said = rig.verb(words);
        assert!(said.code != 0 && said.err.contains(want), "{said:?}");
    }
    // It keeps it: over a restart, a reload, and when it is replaced after its end.
    assert_eq!(rig.verb("restart 1").code, 0);
    assert_eq!(rig.verb("reload").code, 0);
    assert_eq!([runs(0), runs(1), runs(2)], [false, true, false]);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    let its = rig.status().pids()[1];
    assert_eq!(rig.verb("signal KILL slot:1").code, 0);
    rig.wait_status("there is another one", |s| {
        s.ready == 3 && s.pids()[1] != its
    });
    assert!(runs(1));
    assert_eq!(rig.verb("rollback").code, 1, "all run what they always did");
    // Until all are.
    let said = rig.verb(format!("upgrade {py} blocking.py start=2"));
    assert_eq!(said.code, 0, "{said:?}");
    assert!(commands(&rig).iter().all(|c| c.contains("start=2")));
    rig.end(&["recycle-failed", "died"]);
}

#[test]
fn with_replace_what_runs_is_made_exactly_this_and_else_it_is_started() {
    let port = free_port();
    let py = python();
    let mut rig = Rig::start(format!(
        "--replace --name web -n 2 -p {port} -- {py} blocking.py"
    ));
    rig.up();
    let again = |words: String| {
        let mut cmd = rig.command();
        cmd.args(words.split_whitespace());
        run(cmd, rig.deadline())
    };
    let load = Load::going(&port.to_string());
    let said = again(format!(
        "--replace --name web -n 3 -p {port} --canary 0 --log-format json --env A=1 -- {py} blocking.py start=1"
    ));
    assert_eq!(said.code, 0, "{said:?}");
    rig.wait_status("three are ready", |s| s.ready == 3);
    assert!(commands(&rig).iter().all(|c| c.contains("start=1")));
    // What was not said any more is as ever, and the way back knows what was before.
    let said = again(format!(
        "--replace --name web -n 2 -p {port} --canary 0 --log-format json -- {py} blocking.py"
    ));
    assert_eq!(said.code, 0, "{said:?}");
    rig.wait_status("two are left", |s| s.pids().len() == 2);
    // What is of the master itself is not changed so.
    let said = again(format!(
        "--replace --name web -n 2 -p {} --log-format json -- {py} blocking.py",
        free_port()
    ));
    assert_ne!(said.code, 0, "{said:?}");
    assert!(said.err.contains("--port"), "{said:?}");
    // Broken it costs nothing.
    fs::write(rig.dir().join("broken"), "").unwrap();
    let said = again(format!(
        "--replace --name web -n 2 -p {port} --canary 0 --log-format json -- {py} blocking.py broken=broken"
    ));
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("this version is broken"), "{said:?}");
    // Without it the name is taken.
    let said = again(format!("--name web -p {} -- {py} blocking.py", free_port()));
    assert_eq!(said.code, 75, "{said:?}");
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    // Somebody has wanted another number meanwhile: it is exactly that again, when it returns.
    assert_eq!(rig.verb("resize 1").code, 0);
    let said = again(format!(
        "--replace --name web -n 2 -p {port} --canary 0 --log-format json -- {py} blocking.py"
    ));
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(rig.status().ready, 2);
    rig.end(&["died", "reload-failed"]);
}
