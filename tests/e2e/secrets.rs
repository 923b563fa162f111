//! What nobody else may see: values for the workers' environment, and the key. They are given in every way
//! there is; then all that any user of the machine, any program of the operator's and any answer could
//! show is looked through.

use crate::client::{get, v4};
use crate::harness::Rig;
use crate::house::{connect, exchange, key_file, request};
use crate::place::{free_port, script};
use crate::proc;
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

/// No secret is without it, and nothing else has it.
const MARK: &str = "sesame";
const KEY: &str = "sesame-key-0123456789abcdef012345";

/// Writes its own words and environment down.
const DUMP: &str = "tr '\\0' '\\n' </proc/$$/environ >>\"dump.$0.$$\"
tr '\\0' '\\n' </proc/$$/cmdline >>\"dump.$0.$$\"
";

/// Those that do so.
const PROGRAMS: [&str; 6] = ["event", "verb", "valid", "script", "hears", "works"];

fn programs(dir: &Path) {
    key_file(dir, 0o600, KEY);
    fs::write(dir.join("a.env"), "FILED=sesame-filed\n").unwrap();
    fs::write(
        dir.join("a.conf"),
        "env CONFIGURED=sesame-configured\nenv-file a.env\nkey-file key\n",
    )
    .unwrap();
    for name in ["event", "verb", "valid", "script"] {
        script(
            dir,
            name,
            &format!(
                "#!/bin/sh\ncd {}\nset -- ${{0##*/}}\n{}exit 0\n",
                dir.display(),
                DUMP.replace("$0", "$1")
            ),
        );
    }
    for name in ["hears", "works"] {
        let text = format!(
            "#!/bin/sh\ncd {}\nset -- ${{0##*/}}\n{}cat >/dev/null\n",
            dir.display(),
            DUMP.replace("$0", "$1")
        );
        script(dir, name, &text);
    }
}

fn start(port: u16, monitor: u16, typed: &str) -> Rig {
    let words = format!(
        "-n 2 -p {port} --config a.conf {typed} --monitor {monitor} --on-event ./event --on-message ./hears \
         --command look=./verb --delegate work=./works --ecv-validator ./valid --ecv-control open \
         --log-dir logs --pid-file master.pid --ipc node -- ./threaded --env"
    );
    let mut rig = Rig::dressed(words, |_, dir| programs(dir));
    rig.wait("all-ready", |_| true);
    rig
}

/// The workers have what they are to have.
fn is_served(port: u16, secrets: &[(&str, &str)]) {
    let report = get(v4(port), "/env").unwrap();
    for (name, value) in secrets {
        assert_eq!(report.env(name), Some(*value), "{name}");
    }
}

/// Is it in there?
fn holds(bytes: &[u8]) -> bool {
    bytes.windows(MARK.len()).any(|w| w == MARK.as_bytes())
}

/// Every file below, but those that the secrets were written into.
fn files(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        let given = ["key", "a.env", "a.conf"].map(|n| entry.file_name() == n);
        match kind.is_dir() {
            true => files(&entry.path(), found),
            false if kind.is_file() && !given.contains(&true) => found.push(entry.path()),
            false => {}
        }
    }
}

/// Words and, but for workers, environments of all that has been started.
fn look_at_processes(rig: &Rig, by_choice: &[i32]) {
    let workers: BTreeSet<i32> = rig.status().pids().into_iter().collect();
    let ours = fs::read(format!("/proc/{}/cmdline", rig.pid())).unwrap();
    for pid in [proc::children(rig.pid()), vec![rig.pid()]].concat() {
        let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let words = read("cmdline");
        // A child that has not executed its program yet is as the master is, and is looked at itself.
        if pid != rig.pid() && words == ours {
            continue;
        }
        assert!(
            by_choice.contains(&pid) || !holds(&words),
            "{}",
            proc::command(pid)
        );
        let its_own = workers.contains(&pid);
        assert!(
            its_own || !holds(&read("environ")),
            "{}",
            proc::command(pid)
        );
    }
}

/// What was written, by whomever.
fn look_at_files(rig: &Rig) {
    let mut all = Vec::new();
    files(rig.dir(), &mut all);
    for name in PROGRAMS {
        let mark = format!("dump.{name}.");
        let is = |p: &&std::path::PathBuf| p.to_string_lossy().contains(&mark);
        let dump = all.iter().find(is);
        let dump = dump.unwrap_or_else(|| panic!("{name} has not run"));
        let text = fs::read_to_string(dump).unwrap();
        assert!(text.contains("MINICLUSTER_NAME="), "{name}: {text}");
    }
    for path in all {
        assert!(!holds(&fs::read(&path).unwrap()), "{}", path.display());
    }
}

/// Each of them is started, but not at once.
fn all_have_run(rig: &Rig) {
    rig.until("every program has run", || {
        let all: Vec<String> = fs::read_dir(rig.dir())
            .unwrap()
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        let has = |name: &&str| all.iter().any(|f| f.starts_with(&format!("dump.{name}.")));
        PROGRAMS.iter().all(has)
    });
}

fn look_at_log(rig: &Rig) {
    for line in rig.everything() {
        let line = format!("{line:?}");
        assert!(!holds(line.as_bytes()), "{line}");
    }
}

#[test]
fn no_secret_is_on_a_command_line_in_a_program_a_log_an_answer_or_a_file() {
    let (port, monitor) = (free_port(), free_port());
    let mut rig = start(port, monitor, "");
    let given = [
        ("CONFIGURED", "sesame-configured"),
        ("FILED", "sesame-filed"),
    ];
    is_served(port, &given);
    // Verbs: all that look, some that do.
    for verb in [
        "status",
        "status --json",
        "workers details",
        "workers details --json",
        "why --json",
        "info --json",
        "options",
        "options --json",
        "connections --json",
        "deps --json",
        "events --json",
        "cluster",
        "repl",
        "health",
        "ecv --json",
        "sock",
        "version",
        "help --json",
        "logs",
        "look",
        "test ./script",
        "debug hello",
        "emit custom {\"a\":1}",
        "send {\"cmd\":\"hello\"}",
        "reload",
        "resize 3",
        "restart 0",
    ] {
        let said = rig.verb(verb);
        let text = format!("{}{}", said.out, said.err);
        assert!(!said.err.contains("unknown verb"), "{verb}: {text}");
        assert!(!holds(text.as_bytes()), "{verb}: {text}");
    }
    let options = rig.verb("options").out;
    assert!(options.contains("CONFIGURED=..."), "{options}");
    // Requests, the key in each place that it may have.
    let bearer = format!("Authorization: Bearer {KEY}\r\n");
    for (line, headers) in [
        ("GET /".to_string(), bearer.as_str()),
        ("GET /status".into(), &bearer),
        ("GET /workers".into(), &bearer),
        ("GET /deps".into(), &bearer),
        ("GET /metrics".into(), &bearer),
        ("GET /logs".into(), &bearer),
        ("GET /ecv".into(), ""),
        (format!("GET /status?accessKey={KEY}"), ""),
        (format!("GET /nowhere?accessKey={KEY}"), ""),
        (format!("POST /cli?cmd=options&accessKey={KEY}"), ""),
        (format!("POST /cli?cmd=nonsense&accessKey={KEY}"), ""),
        // Nearly the key, and the key where we are called by another name.
        (format!("GET /status?accessKey={KEY}x"), ""),
        (
            format!("GET /status?accessKey={KEY}"),
            "Host: evil.example\r\n",
        ),
        (format!("BREW /status?accessKey={KEY}"), ""),
    ] {
        let stream = connect(v4(monitor));
        let reply = exchange(stream, &request(&line, headers, ""));
        let text = format!("{}{}", reply.head, reply.body);
        assert!(!holds(text.as_bytes()), "{line}: {text}");
    }
    // One that follows, and what is no request at all.
    let mut follows = connect(v4(monitor));
    let line = format!("GET /events?accessKey={KEY}");
    follows
        .write_all(request(&line, "", "").as_bytes())
        .unwrap();
    let mut torn = connect(v4(monitor));
    torn.write_all(format!("key {KEY}\nGET status\r\n\r\n").as_bytes())
        .unwrap();
    // A reload that fails for what the files have by then.
    for (file, text) in [
        ("a.env", "FILED=\"sesame-torn\nmore\n"),
        ("a.conf", "env sesame-without-name\n"),
        ("a.conf", "no-option sesame-value\n"),
        ("a.conf", "TOKEN=sesame-in-the-wrong-file\n"),
    ] {
        let was = fs::read(rig.dir().join(file)).unwrap();
        fs::write(rig.dir().join(file), text).unwrap();
        let said = rig.verb("reload");
        assert_ne!(said.code, 0, "{said:?}");
        let told = format!("{}{}", said.out, said.err);
        assert!(!holds(told.as_bytes()), "{file}: {told}");
        fs::write(rig.dir().join(file), was).unwrap();
    }
    let victim = rig.status().pids()[0];
    rig.replace(victim);
    is_served(port, &given);
    look_at_processes(&rig, &[]);
    follows
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let mut came = Vec::new();
    let _ = follows.read_to_end(&mut came);
    let came = String::from_utf8_lossy(&came);
    assert!(came.contains("event: died"), "{came}");
    assert!(!holds(came.as_bytes()), "{came}");
    drop((follows, torn));
    all_have_run(&rig);
    rig.signal(nix::sys::signal::Signal::SIGTERM);
    rig.wait_exit();
    look_at_log(&rig);
    look_at_files(&rig);
}

#[test]
fn a_typed_value_is_on_our_own_command_line_and_nowhere_else() {
    let (port, monitor) = (free_port(), free_port());
    let mut rig = start(port, monitor, "--env TYPED=sesame-typed");
    is_served(port, &[("TYPED", "sesame-typed")]);
    let own = fs::read(format!("/proc/{}/cmdline", rig.pid())).unwrap();
    assert!(holds(&own), "who types it shows it: use --env-file");
    look_at_processes(&rig, &[rig.pid()]);
    for verb in [
        "status --json",
        "options --json",
        "workers details --json",
        "look",
        "test ./script",
    ] {
        let said = rig.verb(verb);
        assert!(!holds(format!("{said:?}").as_bytes()), "{verb}: {said:?}");
    }
    // A start that makes the cluster exactly this types another one.
    let mut cmd = rig.command();
    let words = format!(
        "-n 2 -p {port} --replace --config a.conf --env TYPED=sesame-again --env ALSO=sesame-also -- ./threaded --env"
    );
    cmd.args(words.split(' '));
    let said = crate::place::run(cmd, rig.deadline());
    assert!(!holds(format!("{said:?}").as_bytes()), "{said:?}");
    all_have_run(&rig);
    rig.signal(nix::sys::signal::Signal::SIGTERM);
    rig.wait_exit();
    look_at_log(&rig);
    look_at_files(&rig);
}
