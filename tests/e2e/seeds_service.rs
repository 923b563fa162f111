//! What cluster-service tested of itself (test/*.js), told again with servers that know nothing of it; seeds.md
//! has the list, and which case is here. Its own workers are in seeds_service_npm.

use crate::console::Typist;
use crate::harness::Rig;
use crate::house::{KEY, Reply, connect, exchange, request};
use crate::place::{free_port, script};
use crate::seeds::{Guest, list, text};
use nix::sys::signal::Signal;

/// A command, as its `httpclient` sends it.
fn cli(g: &Guest, line: &str) -> (u16, String) {
    let r = g.asks("POST /cli", line);
    (r.status, r.body)
}

/// What was refused, and why.
fn refused(g: &Guest, line: &str, status: u16, why: &str) {
    let (code, said) = cli(g, line);
    assert!(
        code == status && said.contains(why),
        "{line}: {code} {said}"
    );
}

fn workers(g: &Guest) -> usize {
    let r = g.asks("POST /cli", "workers simple");
    assert_eq!(r.status, 200, "{r:?}");
    list(&r.json()).len()
}

/// test/cmd-exit.js
#[test]
fn service_exit_now_and_nothing_else() {
    let mut g = Guest::of("cluster-service", "", "./threaded");
    for line in ["exit", "exit later"] {
        refused(&g, line, 400, "'now' is required");
    }
    assert_eq!(workers(&g), 2);
    let (_, said) = cli(&g, "help exit");
    assert!(said.contains("\"words\":\"now\""), "{said}");
    assert_eq!(cli(&g, "exit now").0, 200);
    g.rig.wait_exit();
    g.rig.finish(0, &["hard-stop"]);
}

/// test/cmd-health.js, cmd-version.js, cmd-help.js, cmd-workers.js: what is told, also of each command.
#[test]
fn service_health_version_help_workers() {
    let g = Guest::of("cluster-service", "", "./threaded");
    assert_eq!(cli(&g, "health"), (200, "\"OK\"".into()));
    let version = concat!("\"", env!("CARGO_PKG_VERSION"), "\"");
    assert_eq!(cli(&g, "version"), (200, version.into()));
    let all = list(&g.asks("POST /cli", "help").json());
    let names: Vec<String> = all.iter().map(|v| text(&v["verb"])).collect();
    for word in ["health", "help", "workers", "exit", "start"] {
        assert!(names.iter().any(|n| n == word), "{word}");
        let one = list(&g.asks("POST /cli", &format!("help {word}")).json());
        assert_eq!(text(&one[0]["verb"]), word);
        assert!(!text(&one[0]["help"]).is_empty());
    }
    // What is for the master alone is nobody's to type.
    for inner in ["workerStart", "workerExit"] {
        assert!(!names.iter().any(|n| n == inner));
        assert_eq!(cli(&g, inner).0, 404);
    }
    assert_eq!(workers(&g), 2);
    // Without a cluster each of these says so.
    let port = g.monitor;
    assert_eq!(g.types("stop").code, 0);
    assert!(std::net::TcpStream::connect(port).is_err());
    g.rig.finish(0, &[]);
}

/// test/commands.js: those of its directories, with the names that they have there.
#[test]
fn service_commands_by_their_own_names() {
    let port = free_port();
    let more = "--command custom=./custom --command customName=./custom";
    let words = format!("-n 1 -p {port} {more} -- ./threaded");
    let mut g = Rig::dressed(words, |_, dir| {
        script(dir, "custom", "#!/bin/sh\necho true\n");
    });
    g.up();
    for name in ["custom", "customName"] {
        let said = g.verb(name);
        assert_eq!((said.code, said.out.as_str()), (0, "true\n"), "{said:?}");
        let mut typed = Typist::on(&g.socket());
        typed.types(&format!("{name}()"));
        assert_eq!(typed.reads(), "true");
    }
    let said = g.verb("customname");
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.err.contains("customName"), "{said:?}");
    g.end(&[]);
}

/// test/server-rest.js
#[test]
fn service_rest_server() {
    let g = Guest::of("cluster-service", "--command select=", "./threaded");
    let raw = |line: &str| -> Reply { exchange(connect(g.monitor), &request(line, "", "")) };
    let with_key = |line: &str| format!("{line}&accessKey={}", KEY);
    // Health check; Run cmd, which is typed there.
    assert_eq!(cli(&g, "health"), (200, "\"OK\"".into()));
    let said = g.types("health");
    assert_eq!((said.code, said.out.as_str()), (0, "OK\n"));
    // Bad command; one that was taken away is none, for whoever has the key, too.
    let none = (404, "Not found. Try /help".to_string());
    assert_eq!(cli(&g, "x98s7df987sdf"), none);
    assert_eq!(cli(&g, "select pid"), none);
    // One that is not for this door.
    let r = raw(&with_key("POST /cli?cmd=console"));
    let wanted = (401, "Not authorized to execute 'console' remotely");
    assert_eq!((r.status, r.body.as_str()), wanted);
    for (line, status, body) in [
        ("POST /cli?cmd=health&accessKey=BAD", 401, "Not authorized"),
        ("POST /cli?cmd=health", 401, "Not authorized"),
        (&with_key("GET /cli?cmd=health"), 405, "Method Not Allowed"),
        (&with_key("POST /BADCLI?cmd=health"), 404, "Page Not Found"),
    ] {
        let r = raw(line);
        assert_eq!((r.status, r.body.as_str()), (status, body), "{line}");
    }
    g.rig.signal(Signal::SIGTERM);
    g.rig.finish(0, &["request-refused"]);
}

/// test/start-restart.js
#[test]
fn service_restart() {
    let g = Guest::of("cluster-service", "", "node selecting.js");
    let before = g.rig.status().pids();
    refused(&g, "restart GG", 400, "'GG' is no worker");
    refused(&g, "restart 999999", 400, "neither a slot");
    assert_eq!(g.rig.status().pids(), before);
    // (There 0 was no pid, either; here it is the slot.)
    assert_eq!(cli(&g, r#"restart all {"timeout":30000}"#).0, 200);
    let now = g.rig.status().pids();
    assert!(now.len() == 2 && now.iter().all(|p| !before.contains(p)));
    // Who is not ready in a millisecond is not waited for, and the old ones stay.
    refused(&g, r#"restart all {"timeout":1}"#, 400, "not-ready");
    assert_eq!((workers(&g), g.rig.status().pids()), (2, now));
    assert_eq!(cli(&g, "shutdown all").0, 200);
    // With nobody there the one who types is told.
    let said = g.types("restart all");
    assert_eq!(said.code, 3, "{said:?}");
    g.rig.finish(0, &["died", "not-ready", "reload-failed"]);
}

/// test/start-stop.js
#[test]
fn service_start_and_stop() {
    let g = Guest::of("cluster-service", "-n 1", "./threaded");
    assert_eq!(workers(&g), 1);
    let (code, said) = cli(&g, r#"start ./threaded {"count":1,"timeout":10000}"#);
    assert_eq!(
        (code, said.as_str()),
        (200, "\"1 worker started, 2 in all\"")
    );
    let never = r#"start ./threaded --never-listen {"timeout":100}"#;
    refused(&g, never, 400, "not-ready");
    let (_, said) = cli(&g, "help start");
    assert!(said.contains("[count N] [cwd D] [timeout T]"), "{said}");
    refused(&g, "start", 400, "no COMMAND");
    refused(&g, "start ./not-there.js", 400, "not found");
    assert_eq!(workers(&g), 2);
    assert_eq!(cli(&g, r#"restart all {"timeout":10000}"#).0, 200);
    assert_eq!(workers(&g), 2);
    let (code, said) = cli(&g, r#"upgrade all ./threaded --graceful {"timeout":10000}"#);
    assert_eq!(code, 200, "{said}");
    assert_eq!(workers(&g), 2);
    assert_eq!(cli(&g, "shutdown all").0, 200);
    // Stopped once more it is stopped still.
    let said = g.types("stop");
    assert_eq!(said.code, 3, "{said:?}");
    g.rig.finish(0, &["died", "not-ready"]);
}

/// test/util.js: a line is words, "quoted ones", {objects} and [lists], each of them one. (A list or an object at
/// the end is what the program reads.)
#[test]
fn service_arguments_of_a_line() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --command args=./args -- ./threaded");
    let mut g = Rig::dressed(words, |_, dir| {
        script(
            dir,
            "args",
            "#!/bin/sh\nfor a; do echo \"<$a>\"; done; cat\n",
        );
    });
    g.up();
    let mut typed = Typist::on(&g.socket());
    typed.types(r#"args { "check": true, "nested": { } } "arg #3" ["arg #4"]"#);
    let words: Vec<String> = (0..3).map(|_| typed.reads()).collect();
    let wanted = [
        r#"<{ "check": true, "nested": { } }>"#,
        "<arg #3>",
        r#"["arg #4"]"#,
    ];
    assert_eq!(words, wanted);
    drop(typed);
    g.end(&[]);
}

/// test/workers.js: ready once however often it is said; a message to all comes to all; what makes no sense to
/// a worker, or of one, changes nothing; and it is told once that it has to stop.
#[test]
fn service_workers_are_ready_once_and_told_once() {
    let more = "--ready ready";
    let mut g = Guest::of("cluster-service", more, "node channel.js recluster");
    let heard = g.rig.verb(["send", r#"{"cservice":{}}"#]);
    assert_eq!((heard.code, heard.out.as_str()), (0, "told 2 workers\n"));
    assert_eq!(g.rig.events("ready").len(), 2);
    g.rig.signal(Signal::SIGTERM);
    g.rig.wait_exit();
    assert_eq!(g.rig.tales("told").len(), 2);
    assert_eq!(g.rig.tales("closed").len(), 2);
    g.rig.finish(0, &[]);
    // One that says it again and again.
    let mut g = Guest::of("cluster-service", "", "node channel.js puppet");
    for say in [r#"{"cmd":"ready"}"#, r#""ready""#, r#"{"boo":true}"#] {
        let line = format!("{{\"cmd\":\"do\",\"say\":{say}}}");
        assert_eq!(g.rig.verb(["send", line.as_str(), "slot:0"]).code, 0);
    }
    g.rig.wait("message", |e| e.text("message").contains("boo"));
    assert_eq!(g.rig.events("ready").len(), 2);
    g.rig.signal(Signal::SIGTERM);
    g.rig.finish(0, &[]);
}
