//! Those who come from the clusters of Node: what they knew, as their READMEs show it, typed and asked here.
//! Each begins with the file of options that stands for its defaults (contrib/). Their own tests are told
//! again in the files beside, seeds_*.rs; seeds.md has all of them.

use crate::client::{all_answer, get, v4};
use crate::console::Typist;
use crate::harness::{Rig, sigkill};
use crate::house::{KEY, Reply, connect, exchange, key_file, request};
use crate::place::{Said, free_port, run};
use minicluster::options::config;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use tinyjson::JsonValue;

fn file(of: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib")).join(format!("{of}.conf"))
}

/// A cluster with the defaults of that one, on ports of this run.
pub struct Guest {
    pub rig: Rig,
    pub port: u16,
    pub monitor: SocketAddr,
}

impl Guest {
    /// With the key, if it has a monitor; two workers, unless more is said of them.
    pub fn of(seed: &str, more: &str, command: &str) -> Guest {
        let (port, monitor) = (free_port(), free_port());
        let config = file(seed).display().to_string();
        let door = match fs::read_to_string(file(seed))
            .unwrap()
            .contains("\nmonitor ")
        {
            true => format!("--monitor {monitor} --key-file key"),
            false => String::new(),
        };
        let two = if more.contains("-n ") { "" } else { "-n 2" };
        let words = format!("{two} -p {port} {door} --config {config} {more} -- {command}");
        let mut rig = Rig::dressed(words, |_, dir| {
            key_file(dir, 0o600, KEY);
            std::os::unix::fs::symlink(dir.join("channel.js"), dir.join("current.js")).unwrap();
        });
        rig.wait("all-ready", |_| true);
        let monitor = v4(monitor);
        Guest { rig, port, monitor }
    }

    /// A verb where it is found by its name.
    pub fn types(&self, words: &str) -> Said {
        let mut cmd = self.rig.command();
        cmd.args(words.split_whitespace());
        run(cmd, self.rig.deadline())
    }

    /// Over HTTP, with the key as cluster-service has it.
    pub fn asks(&self, line: &str, body: &str) -> Reply {
        let mark = if line.contains('?') { '&' } else { '?' };
        let line = format!("{line}{mark}accessKey={KEY}");
        exchange(connect(self.monitor), &request(&line, "", body))
    }

    /// On the control socket, without.
    pub fn inside(&self, line: &str, body: &str) -> Reply {
        let stream = UnixStream::connect(self.rig.socket()).unwrap();
        stream.set_read_timeout(crate::house::PATIENCE).unwrap();
        exchange(stream, &request(line, "", body))
    }
}

pub fn text(v: &JsonValue) -> String {
    v.get::<String>().unwrap().clone()
}

pub fn list(v: &JsonValue) -> Vec<JsonValue> {
    v.get::<Vec<_>>().unwrap().clone()
}

#[test]
fn the_defaults_of_each_are_a_file_of_options() {
    for seed in [
        "cluster2",
        "proteus-cluster",
        "cluster-master",
        "cluster-service",
        "recluster",
    ] {
        let g = Guest::of(seed, "", "./threaded");
        all_answer(&g.rig, v4(g.port), "/", 2);
        // What holds is what stands there, but for what this test has to choose.
        let (entries, _) = config::parse(seed, &fs::read(file(seed)).unwrap());
        let typed = ["workers", "port", "monitor", "key-file", "canary"];
        let there = entries.iter().map(|e| e.opt.long.to_string());
        let there: BTreeSet<String> = there.filter(|n| !typed.contains(&n.as_str())).collect();
        let said: JsonValue = g.types("options --json").out.parse().unwrap();
        let all = list(&said["options"]);
        let filed = all.iter().filter(|o| text(&o["from"]) == "config");
        let filed: BTreeSet<String> = filed.map(|o| text(&o["option"])).collect();
        assert_eq!(filed, there, "{seed}");
        assert!(filed.len() > 3, "{seed}: {filed:?}");
        // Whoever was killed is replaced, and all of it stops when it is told to.
        let out = g.types("pids").out;
        let pid = out.split_whitespace().nth(1).unwrap().parse().unwrap();
        let mut g = g;
        g.rig.replace(pid);
        g.rig.signal(Signal::SIGTERM);
        g.rig.finish(0, &["died"]);
    }
}

/// The files of --pid-dir.
pub fn pid_files(g: &Guest) -> usize {
    fs::read_dir(g.rig.dir().join("pids")).unwrap().count()
}

#[test]
fn one_who_knows_cluster2_finds_ecv_recycling_pids_stop_and_shutdown() {
    let more = "--ecv-control open --max-connections 10";
    let mut g = Guest::of("cluster2", more, "./threaded --graceful");
    assert_eq!(pid_files(&g), 3);
    let master = format!("pids/master.{}.pid", g.rig.pid());
    assert!(g.rig.dir().join(master).exists());
    // Its balancer asks, and somebody takes it out and puts it back.
    let asked = || g.types("ecv").out.contains("--ecv-monitor /: content\n");
    g.rig.until("its / was asked", asked);
    let says = |word: &str, status: u16| {
        let r = exchange(connect(g.monitor), &request("GET /ecv", "", ""));
        let begin = format!("status={word}&ServeTraffic=");
        assert!(r.status == status && r.body.starts_with(&begin), "{r:?}");
    };
    let post = |path: &str| exchange(connect(g.monitor), &request(path, "", "")).status;
    says("AVAILABLE", 200);
    assert_eq!(post("POST /ecv/disable"), 204);
    says("DISABLED", 400);
    assert_eq!(post("POST /ecv/enable"), 204);
    says("AVAILABLE", 200);
    // connThreshold: more of them come, one at a time, and nobody is turned away.
    for _ in 0..100 {
        assert_eq!(get(v4(g.port), "/").unwrap().status, 200);
    }
    let due = g.rig.wait("recycling", |_| true);
    assert_eq!(due.text("reason"), "connections");
    g.rig.wait("died", |e| e.text("reason") == "recycle");
    assert_eq!(g.rig.verb("stop").code, 0);
    g.rig.finish(0, &[]);
    // One that ends by itself has finished; one that is killed has not. (Where nobody is due meanwhile.)
    let mut g = Guest::of("cluster2", "", "./threaded --graceful");
    let pid = g.rig.status().rows[1].pid.unwrap();
    g.rig.replace(pid);
    let pid = g.rig.status().rows[0].pid.unwrap();
    assert_eq!(g.rig.verb(format!("signal TERM pid:{pid}")).code, 0);
    g.rig.wait("died", |e| e.pid() == pid);
    let end = g
        .rig
        .wait_status("it has finished", |s| s.rows[0].state == "finished");
    assert_eq!(end.ready, 1);
    // The port is taken, as it says.
    let port = g.port;
    let said = g.types(&format!("-p {port} -C off -- ./threaded"));
    assert_eq!(said.code, 75, "{said:?}");
    assert!(said.err.contains(&port.to_string()), "{said:?}");
    // Its shutdown() waits for all to have been answered,
    assert_eq!(g.rig.verb("stop").code, 0);
    assert_eq!(pid_files(&g), 0);
    g.rig.finish(0, &["died"]);
    // and its stop() for nobody.
    let g = Guest::of("cluster2", "", "./threaded --graceful");
    assert_eq!(g.rig.verb("kill").code, 0);
    assert_eq!(pid_files(&g), 0);
    g.rig.finish(1, &["hard-stop"]);
}

#[test]
fn one_who_knows_proteus_cluster_restarts_and_sends_by_http_and_signals() {
    let mut g = Guest::of("proteus-cluster", "", "node channel.js proteus");
    let ping = r#"{"cmd":"ping"}"#;
    for r in [
        g.inside("POST /sync_send", ping),
        g.asks("POST /sync_send", ping),
    ] {
        assert_eq!((r.status, r.body.as_str()), (200, r#"["pong 0","pong 1"]"#));
    }
    let r = g.inside("POST /send", r#"{"cmd":"say","n":4}"#);
    assert_eq!((r.status, r.body.as_str()), (200, "OK"));
    g.rig
        .until("both have heard", || g.rig.tales("heard").len() == 2);
    let r = g.inside("POST /send", "{");
    assert_eq!(
        (r.status, r.body.as_str()),
        (400, "request body parse failure.")
    );
    let r = g.inside("POST /sync_send", r#"{"cmd":"say","n":5,"timeout":10}"#);
    assert_eq!((r.status, r.body.as_str()), (500, "worker timeout."));
    assert_eq!(g.inside("GET /nothing", "").status, 404);
    // Not by anybody who finds the port.
    let r = exchange(connect(g.monitor), &request("GET /restart", "", ""));
    assert_eq!(r.status, 401);
    let r = g.asks("GET /restart", "");
    assert_eq!((r.status, r.body.as_str()), (200, "OK"));
    g.rig.wait("reload-finished", |_| true);
    // One at a time, and each is replaced before it goes.
    let one_by_one = [true, true, true, false, true, false];
    assert_eq!(g.rig.births_and_deaths(), one_by_one);
    // As it was there: answered before anything has happened.
    let r = g.asks("GET /restart?async=1", "");
    assert_eq!((r.status, r.body.as_str()), (200, "OK"));
    g.rig
        .wait("reload-finished", |e| e.number("generation") == 3.0);
    g.rig.signal(Signal::SIGHUP);
    g.rig.signal(Signal::SIGUSR2);
    g.rig
        .wait("reload-finished", |e| e.number("generation") == 4.0);
    assert_eq!(g.rig.events("reload-started").len(), 3);
    g.rig.signal(Signal::SIGINT);
    g.rig.finish(0, &["request-refused"]);
}

#[test]
fn one_who_knows_cluster_master_types_what_was_typed_there() {
    let mut g = Guest::of("cluster-master", "--canary 1:100ms", "./threaded");
    let socket = g.rig.dir().join("cluster-master-socket");
    let (mut one, mut two) = (Typist::on(&socket), Typist::on(&socket));
    two.types("events follow");
    two.reads_of("ready");
    let help = g.types("help").out;
    for word in [
        "help",
        "repl",
        "resize",
        "restart",
        "stop",
        "kill",
        "cluster",
        "size",
        "connections",
        "workers",
        "select",
        "pids",
        "ages",
        "states",
        "debug",
        "sock",
    ] {
        let there = help.lines().any(|l| l.trim_start().starts_with(word));
        assert!(there, "{word}: {help}");
    }
    one.types("size");
    assert_eq!(one.reads(), "2");
    one.types("states");
    assert_eq!([one.reads(), one.reads()], ["0  ready", "1  ready"]);
    one.types("--json pids");
    let pids: JsonValue = one.reads().parse().unwrap();
    one.types("--json select pid");
    assert_eq!(one.reads().parse::<JsonValue>().unwrap(), pids);
    one.types("--json ages");
    let ages: JsonValue = one.reads().parse().unwrap();
    assert!(*ages[0]["value"].get::<f64>().unwrap() > 0.0);
    one.types("--json workers");
    let workers: JsonValue = one.reads().parse().unwrap();
    assert_eq!(workers[1]["pid"], pids[1]["value"]);
    assert_eq!(text(&workers[1]["state"]), "ready");
    one.types("--json connections");
    let said: JsonValue = one.reads().parse().unwrap();
    assert_eq!(list(&said["workers"]).len(), 2);
    one.types("cluster");
    assert!(one.reads().contains(" 2/2 ready "));
    one.types("--json repl");
    let consoles: JsonValue = one.reads().parse().unwrap();
    let you = |c: &JsonValue| c["you"].get::<bool>() == Some(&true);
    assert_eq!(list(&consoles).len(), 2);
    assert_eq!(list(&consoles).iter().filter(|c| you(c)).count(), 1);
    one.types("sock");
    assert!(one.reads().ends_with("/cluster-master-socket"));
    one.types("debug('hi')");
    two.reads_of("hi");
    g.rig.wait("debug", |e| e.msg == "hi");
    one.types("resize(3)");
    one.reads_of("3 workers");
    one.types("resize(2)");
    one.reads_of("2 workers");
    g.rig.wait("died", |_| true);
    // One goes ahead, and the old ones go when all are there.
    let before = g.rig.births_and_deaths().len();
    one.types("restart()");
    one.reads_of("generation 2 serves");
    g.rig.wait("reload-finished", |_| true);
    let steps = g.rig.births_and_deaths().split_off(before);
    assert_eq!(steps, [true, true, false, false]);
    g.rig.signal(Signal::SIGHUP);
    g.rig
        .wait("reload-finished", |e| e.number("generation") == 3.0);
    // workers[0].kill(), and what replaces it first.
    let pids = g.types("pids").out;
    one.types("signal TERM 0");
    g.rig
        .wait("died", |e| e.slot() == 0 && e.text("signal") == "SIGTERM");
    g.rig.wait("ready", |e| e.slot() == 0);
    assert_eq!(g.types("restart 1").code, 0);
    assert_ne!(g.types("pids").out, pids);
    // What is no word of ours is not run.
    one.types("process.exit(1)");
    one.reads_of("unknown verb");
    // A console that is left is no matter.
    two.types(".exit");
    two.rest();
    // workers[0].disconnect()
    one.types("shutdown 0");
    g.rig.wait("died", |e| e.slot() == 0);
    assert_eq!(g.types("size").out, "1\n");
    one.types("stop()");
    one.reads_of("stopped");
    assert!(!socket.exists());
    g.rig.finish(0, &["died"]);
    let g = Guest::of("cluster-master", "", "./threaded");
    let mut one = Typist::on(&g.rig.dir().join("cluster-master-socket"));
    one.types("kill()");
    g.rig.finish(1, &["hard-stop"]);
}

#[test]
fn one_who_knows_cluster_service_runs_its_commands_from_afar() {
    let more = "--canary 1:100ms --command os=uname --command select=";
    let mut g = Guest::of("cluster-service", more, "./threaded");
    let here = g.rig.dir().display().to_string();
    let cli = |line: &str| g.asks("POST /cli", line);
    for (line, want) in [
        ("health", "\"OK\""),
        ("version", concat!("\"", env!("CARGO_PKG_VERSION"), "\"")),
        ("os", "\"Linux\""),
        ("debug well", "No data"),
    ] {
        let r = cli(line);
        assert_eq!((r.status, r.body.as_str()), (200, want), "{line}");
    }
    assert_eq!(list(&cli("workers simple").json()).len(), 2);
    let all = list(&cli("workers details").json());
    assert!(*all[0]["rss"].get::<f64>().unwrap() > 0.0);
    let active = cli("info").json()["workers"]["active"].clone();
    assert_eq!(active.get::<f64>(), Some(&2.0));
    let helps = cli("help").json();
    let named = |word: &str| list(&helps).iter().any(|v| text(&v["verb"]) == word);
    for word in [
        "start", "restart", "upgrade", "workers", "info", "health", "help", "version",
    ] {
        assert!(named(word), "{word}");
    }
    let one = cli("help restart");
    assert!(one.body.contains("[all|SLOT|PID] [timeout T]"), "{one:?}");
    // start, restart, upgrade; each ready before the next.
    let options = format!("{{\"cwd\":\"{here}\",\"count\":2,\"timeout\":60000}}");
    let r = cli(&format!("start ./threaded {options}"));
    assert_eq!(
        (r.status, r.body.as_str()),
        (200, "\"2 workers started, 4 in all\"")
    );
    let r = cli(r#"restart all {"timeout":30000}"#);
    assert!(
        r.status == 200 && r.body.contains("generation 2 serves"),
        "{r:?}"
    );
    let begun = g.rig.wait_many("reload-started", 1).remove(0);
    assert!(
        begun.msg.ends_with("asked by a client, over TCP"),
        "{begun:?}"
    );
    let pid = g.rig.status().pids()[0];
    assert_eq!(cli(&format!("restart {pid}")).status, 200);
    let now = g.rig.status().pids();
    assert!(!now.contains(&pid) && now.len() == 4, "{now:?}");
    let r = cli(&format!(
        "upgrade all node selecting.js cwd:{here} timeout:60000"
    ));
    assert_eq!(r.status, 200, "{r:?}");
    // One that is broken is taken back, and says why.
    let now = g.rig.status().pids();
    let r = cli("upgrade all sh -c 'echo no settings >&2; exit 3'");
    assert!(r.status == 400 && r.body.contains("no settings"), "{r:?}");
    assert_eq!(g.rig.status().pids(), now);
    let r = cli("restart all timeout 1ms");
    assert!(r.status == 400 && r.body.contains("not-ready"), "{r:?}");
    // `run` tells how it went.
    assert_eq!(g.types("health").code, 0);
    assert_eq!(g.types("nonsense").code, 64);
    for (line, status) in [
        ("POST /cli?cmd=health&accessKey=wrong", 401),
        ("GET /cli?cmd=health", 405),
        ("POST /clip?cmd=health", 404),
    ] {
        let r = exchange(connect(g.monitor), &request(line, "", ""));
        assert_eq!(r.status, status, "{line}: {r:?}");
    }
    assert_eq!(cli("nonsense").status, 404);
    // One that nobody is to have.
    let r = cli("select pid");
    assert_eq!(r.status, 404, "{r:?}");
    // One goes, and the others stay who they are; then all do.
    let now = g.rig.status().pids();
    let r = cli(&format!("shutdown {} {{\"timeout\":60000}}", now[1]));
    assert_eq!(r.status, 200, "{r:?}");
    assert_eq!(g.rig.status().pids(), [now[0], now[2], now[3]]);
    assert_eq!(cli("exit").status, 400, "'now' is required");
    assert_eq!(cli("exit now").status, 200);
    let _ = g.rig.wait_exit();
    g.rig.finish(
        0,
        &[
            "died",
            "not-ready",
            "reload-failed",
            "exec-failed",
            "hard-stop",
            "request-refused",
        ],
    );
}

#[test]
fn one_who_knows_recluster_reloads_what_waits_to_be_ready() {
    let mut g = Guest::of("recluster", "--ready ready", "node current.js recluster");
    g.rig.signal(Signal::SIGUSR2);
    g.rig.wait("reload-finished", |_| true);
    // All the new ones are there before the first old one goes.
    let steps = g.rig.births_and_deaths();
    assert_eq!(steps, [true, true, true, true, false, false]);
    assert_eq!(g.rig.tales("closed").len(), 2);
    // A version that is broken: the old one serves on, and when it is mended a reload takes it.
    let current = g.rig.dir().join("current.js");
    let good = g.rig.dir().join("channel.js");
    fs::remove_file(&current).unwrap();
    fs::write(&current, "this is broken\n").unwrap();
    assert_eq!(g.rig.verb("reload").code, 1);
    all_answer(&g.rig, v4(g.port), "/", 2);
    let pids = g.rig.status().pids();
    sigkill(pids[0]);
    g.rig.wait("respawning", |_| true);
    assert_eq!(get(v4(g.port), "/").unwrap().pid(), pids[1]);
    fs::remove_file(&current).unwrap();
    std::os::unix::fs::symlink(good, &current).unwrap();
    let healed = g.rig.wait_status("it heals by itself", |s| s.ready == 2);
    assert_eq!(healed.rows[1].pid, Some(pids[1]));
    assert_eq!(g.rig.verb("reload").code, 0);
    let code = g.rig.verb("kill").code;
    assert_eq!(code, 0);
    g.rig
        .finish(1, &["died", "reload-failed", "respawning", "hard-stop"]);
}

#[test]
fn a_worker_that_says_that_it_is_done_is_replaced_as_by_recluster_and_cluster2() {
    for said in [r#"{"cmd":"disconnect"}"#, r#"{"type":"suicide"}"#] {
        let mut g = Guest::of("recluster", "", "node channel.js puppet");
        let text = format!("{{\"cmd\":\"do\",\"say\":{said}}}");
        let words = ["send", &text, "slot:1"];
        assert_eq!(g.rig.verb(words).code, 0);
        let due = g.rig.wait("recycling", |e| e.text("reason") == "wish");
        let died = g.rig.wait("died", |e| e.pid() == due.pid());
        assert_eq!((due.slot(), died.text("reason")), (1, "recycle"));
        // Its successor has its number, and was there before.
        let steps = g.rig.births_and_deaths();
        assert_eq!(steps, [true, true, true, false], "{said}");
        assert_eq!(g.rig.status().rows[1].restarts, 0);
        g.rig.signal(Signal::SIGTERM);
        g.rig.finish(0, &[]);
    }
}
