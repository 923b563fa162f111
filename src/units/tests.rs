//! What the files say, for command lines as people type them. (Those of contrib/ are in tests/tidy.rs.)

use super::*;
use crate::cli::{self, Invocation};
use crate::wire::json;
use std::ffi::OsString;

fn facts() -> Facts {
    Facts {
        here: "/srv/app".into(),
        binary: "/usr/local/bin/minicluster".into(),
        program: Some("/usr/bin/node".into()),
    }
}

fn of(kind: Kind, words: &[&str], file: &str) -> Result<String, String> {
    let option = format!("--print-unit={}", kind.word());
    let args = [option.as_str()].into_iter().chain(words.iter().copied());
    let args: Vec<OsString> = args.map(OsString::from).collect();
    match cli::parse(&args, &|_| Ok(file.into())) {
        Ok(Invocation::PrintUnit(kind, s)) => print(kind, &s, &facts()),
        Ok(other) => panic!("{words:?}: {other:?}"),
        Err(e) => Err(e.message),
    }
}

fn typed(kind: Kind, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    of(kind, &words, "").unwrap()
}

fn refused(kind: Kind, line: &str) -> String {
    let words: Vec<&str> = line.split(' ').collect();
    of(kind, &words, "").unwrap_err()
}

/// The words that start the cluster, as they arrive.
fn words(kind: Kind, text: &str) -> Vec<String> {
    match kind {
        Kind::Containerfile => {
            let line = text.lines().find_map(|l| l.strip_prefix("ENTRYPOINT "));
            json::parse_words(line.unwrap()).unwrap()
        }
        Kind::K8s => {
            let args = text.split("        args:\n").nth(1).unwrap();
            let items = args.lines().map_while(|l| l.strip_prefix("        - "));
            let all: Vec<&str> = items.take_while(|l| l.starts_with('"')).collect();
            let all = json::parse_words(&format!("[{}]", all.join(","))).unwrap();
            all.iter().map(|w| w.replace("$$", "$")).collect()
        }
        Kind::Systemd | Kind::Init => panic!("their own programs read these: e2e"),
    }
}

fn number(text: &str, head: &str) -> u64 {
    let line = text.lines().find_map(|l| l.trim_start().strip_prefix(head));
    line.unwrap_or_else(|| panic!("no {head}")).parse().unwrap()
}

#[test]
fn what_is_typed_arrives_in_a_container_word_for_word() {
    let odd = [
        "node",
        "a b",
        "$(HOME)",
        "it's",
        "q\"\\",
        "",
        "--x",
        "\u{e9}\n",
        "{slot}",
        "$$",
        "$$(HOME)",
        "$",
        "-",
        "\t\r",
        "`id`",
        "#",
        ";",
        "%h",
        "\u{2028}\u{feff}\u{fffe}",
        "\x7f\u{85}",
        "${HOME}",
        "- a",
        "a: b",
    ];
    for kind in [Kind::Containerfile, Kind::K8s] {
        let line = ["-n", "2", "--log-file", "-", "--nice=-5", "-q", "--"];
        let text = of(kind, &[&line[..], &odd].concat(), "").unwrap();
        let all = words(kind, &text);
        let at = all.iter().position(|w| w == "--").unwrap();
        assert_eq!(all[at + 1..], odd);
        // Ours first, as they are understood again.
        let args: Vec<OsString> = all.iter().map(OsString::from).collect();
        let args = match kind {
            Kind::Containerfile => &args[1..],
            _ => &args[..],
        };
        let Ok(Invocation::Start(s)) = cli::parse(args, &|_| Ok(Vec::new())) else {
            panic!("{args:?}");
        };
        assert_eq!((s.workers, s.nice), (Some(2), Some(-5)));
        assert_eq!(s.log_file, Some(crate::settings::LogTo::Stderr));
    }
}

#[test]
fn paths_are_those_of_where_it_is_started() {
    let line = "--name web --config a.conf --cwd app -l unix:run/s,mode=600 --log-dir ../log -C c.sock --watch . -- ./bin/server x";
    let text = typed(Kind::Systemd, line);
    for whole in [
        "--config /srv/app/a.conf",
        "--cwd /srv/app/app",
        "-l unix:/srv/app/run/s,mode=600",
        "--log-dir /srv/app/../log",
        "-C /srv/app/c.sock",
        "--watch /srv/app",
        "-- /srv/app/app/bin/server x",
        "WorkingDirectory=/srv/app\n",
        "ExecReload=/usr/local/bin/minicluster -C /srv/app/c.sock reload\n",
    ] {
        assert!(text.contains(whole), "{whole}: {text}");
    }
    let text = typed(Kind::Containerfile, "-- ./bin/server");
    assert!(text.contains("COPY --chmod=755 [\"bin/server\", \"/app/bin/server\"]\n"));
    assert_eq!(
        words(Kind::Containerfile, &text).last().unwrap(),
        "/app/bin/server"
    );
    let text = typed(Kind::Systemd, "-- node server.js");
    assert!(text.contains("-- /usr/bin/node server.js\n"));
}

#[test]
fn times_are_those_of_the_master_and_whoever_kills_it_waits_longer() {
    let times = "--drain-delay 20s --drain-timeout 30s --stop-timeout 1m --start-timeout 90s";
    let line = format!("--drain connections {times} -p 3000 -- ./server");
    // 20 + 30 + 1 for the last connections + 60 + 5 for the last SIGKILL + 2.
    let text = typed(Kind::Systemd, &line);
    assert_eq!(number(&text, "TimeoutStopSec="), 118);
    assert_eq!(number(&text, "TimeoutStartSec="), 90 + 118);
    let text = typed(Kind::Systemd, "--stop-budget 1500ms --start-timeout 0 -- x");
    assert_eq!(number(&text, "TimeoutStopSec="), 4);
    assert!(text.contains("TimeoutStartSec=infinity\n"));
    // In a pod there is a budget, which cuts nothing, and the pod has two seconds more.
    let text = typed(Kind::K8s, &line);
    assert_eq!(number(&text, "terminationGracePeriodSeconds: "), 112 + 2);
    assert!(text.contains("        - \"--stop-budget\"\n        - \"112s\"\n"));
    assert!(!text.contains("--drain-delay 5s is added"));
    assert!(number(&text, "failureThreshold: ") * 2 >= 90);
    let text = typed(Kind::K8s, "-p 3000 --stop-budget 20s -- ./server");
    assert_eq!(number(&text, "terminationGracePeriodSeconds: "), 22);
    assert!(text.contains("--drain-delay 5s is added") && !text.contains("--stop-budget 20s is"));
    let text = typed(Kind::Containerfile, &line);
    assert!(text.contains("would take 112 s"), "{text}");
}

#[test]
fn secrets_are_not_told_and_what_means_nothing_there_is_left_out_with_the_reason() {
    for kind in Kind::ALL {
        let text = typed(kind, "--env TOKEN=hunter2 --replace -p 3000 -- ./server");
        assert!(
            !text.contains("hunter2") && text.contains("TOKEN"),
            "{text}"
        );
        let option = text
            .lines()
            .any(|l| !l.starts_with('#') && l.contains("--replace"));
        assert!(!option && text.contains("--replace is left out"));
        assert_eq!(
            text.contains("--env-file /etc/minicluster/server-3000.env"),
            !kind.contained()
        );
        let file = "port 3000\nenv TOKEN=hunter2\nworkers 3\n";
        let text = of(kind, &["--config", "f", "-n", "4", "--", "./server"], file).unwrap();
        assert!(!text.contains("hunter2"));
        if kind.contained() {
            let all = words(kind, &text).join(" ");
            assert!(
                all.contains("-p 3000 -n 4 --") && !all.contains("config"),
                "{all}"
            );
        }
    }
    let text = typed(Kind::Systemd, "-d -- ./server");
    assert!(text.contains("-d is left out") && !text.contains("    -d"));
    let text = typed(Kind::Init, "-d --pid-file app.pid -- ./server");
    assert!(text.contains("\nPIDFILE=/srv/app/app.pid\n"));
    assert_eq!(text.matches("--pid-file").count(), 2);
    assert!(!text.contains("left out"));
    for (kind, line, why) in [
        (Kind::Systemd, "-l fd:3 -- ./server", "socket unit"),
        (
            Kind::Init,
            "--single -- ./server",
            "--print-unit means nothing",
        ),
        (Kind::K8s, "--clear-env --env A=1 -- ./server", "--env-file"),
    ] {
        assert!(refused(kind, line).contains(why), "{line}");
    }
    assert!(
        Kind::named("upstart")
            .unwrap_err()
            .contains("none of systemd, init")
    );
}

#[test]
fn who_asks_from_outside_of_a_pod_finds_the_master() {
    let text = typed(Kind::K8s, "-p 9099 --monitor 127.0.0.1:8000 -- ./server");
    assert!(text.contains("- \"0.0.0.0:8000\"") && text.contains("--monitor is 0.0.0.0:8000 here"));
    assert_eq!(
        words(Kind::K8s, &text)
            .iter()
            .filter(|w| *w == "--monitor")
            .count(),
        1
    );
    let text = typed(Kind::K8s, "-p 9099 -- ./server");
    assert!(text.contains("- \"0.0.0.0:9100\""), "{text}");
    let text = typed(Kind::K8s, "-p 80 -- ./server");
    assert!(text.contains("ip_unprivileged_port_start") && text.contains("runAsNonRoot: true"));
    let text = typed(Kind::K8s, "-p 80 --user 1000 -- ./server");
    assert!(text.contains("\"SETUID\"") && text.contains("runAsUser: 0\n"));
    assert!(!text.contains("has to know that name"));
    let text = typed(Kind::Containerfile, "--user www -- ./server");
    assert!(text.contains("--user www: the image has to know that name"));
    let text = typed(Kind::K8s, "--name 3.Web_ -- ./server");
    assert!(text.contains("name: \"m-3-web\"\n") && text.contains("there is no Service"));
}

#[test]
fn a_unit_says_what_is_its_own() {
    let text = typed(Kind::Systemd, "-p 80 -C off -- ./server");
    assert!(text.contains("ExecReload=kill -USR2 $MAINPID\n"));
    assert!(text.contains("#AmbientCapabilities=CAP_NET_BIND_SERVICE\n"));
    assert!(text.contains("PrivateTmp=yes\n"));
    let text = typed(
        Kind::Systemd,
        "-p 80 -H 10.0.0.1 --user www --log-dir /usr/local/log -l unix:/tmp/s -- ./server",
    );
    assert!(text.contains("After=network-online.target\n") && text.contains("--user www"));
    assert!(text.contains("ReadWritePaths=-/usr/local/log\n") && !text.contains("\nPrivateTmp"));
    assert!(!text.contains("#User="));
}

#[test]
fn what_a_format_would_read_as_something_else_is_refused() {
    for name in ["./$HOME", "./[a]*", "./it's", "./a\\b", "./<<E", "./a\nb"] {
        let why = of(Kind::Containerfile, &["--", name], "").unwrap_err();
        assert!(why.contains("COPY"), "{why}");
        for kind in [Kind::Systemd, Kind::Init, Kind::K8s] {
            assert!(of(kind, &["--", name], "").is_ok(), "{name}");
        }
    }
    // An argument is no name of COPY.
    assert!(of(Kind::Containerfile, &["--", "./x", "$HOME", "[a]*"], "").is_ok());
    let dir = |dir| of(Kind::Systemd, &["--log-dir", dir, "--", "x"], "");
    assert!(
        dir("/usr/a\nRestart=no")
            .unwrap_err()
            .contains("ReadWritePaths=")
    );
    assert!(dir("/usr/a\\").unwrap_err().contains("ReadWritePaths="));
    assert!(dir("/var/a\\").is_ok(), "it is not told there");
    assert!(
        dir("/usr/$A b")
            .unwrap()
            .contains("\nReadWritePaths=-\"/usr/$A b\"\n")
    );
    let why = of(Kind::K8s, &["--log-dir", "/a:b", "--", "x"], "").unwrap_err();
    assert!(why.contains("mountPath"), "{why}");
    let long = "x".repeat(100_000);
    let why = of(Kind::Containerfile, &["--", "./x", &long], "").unwrap_err();
    assert!(why.contains("65534"), "{why}");
    assert!(of(Kind::Systemd, &["--", "./x", &long], "").is_ok());
    let all: Vec<&str> = ["--", "./x"]
        .into_iter()
        .chain(std::iter::repeat_n(long.as_str(), 11))
        .collect();
    assert!(of(Kind::Systemd, &all, "").unwrap_err().contains("1048574"));
    assert!(of(Kind::Init, &all, "").is_ok() && of(Kind::K8s, &all, "").is_ok());
}

#[test]
fn a_unit_is_refused_where_our_own_name_is_one_that_it_does_not_take() {
    let print = |binary: &str, here: &str| {
        let args: Vec<OsString> = ["--print-unit=systemd", "--", "x"]
            .map(OsString::from)
            .into();
        let Ok(Invocation::PrintUnit(kind, s)) = cli::parse(&args, &|_| Ok(Vec::new())) else {
            panic!("{args:?}");
        };
        let facts = Facts {
            here: here.into(),
            binary: binary.into(),
            program: None,
        };
        print(kind, &s, &facts)
    };
    for binary in ["/opt/$HOME/m", "/opt/it's/m", "/opt/a\\b/m", "/opt/\"/m"] {
        assert!(print(binary, "/srv").unwrap_err().contains("ExecStart="));
    }
    let text = print("/opt/a b/50%/m", "/srv/a\\").unwrap();
    assert!(text.contains("\nExecStart=\"/opt/a b/50%%/m\" "), "{text}");
    assert!(text.contains("\nWorkingDirectory=/srv/a\\/\n"), "{text}");
}

#[test]
fn no_volume_of_a_pod_hides_what_is_served() {
    for (options, there, dir) in [
        ("--log-file a.log", "/var/lib/minicluster/a.log", ""),
        ("--pid-file ../x.pid", "/var/lib/minicluster/x.pid", ""),
        ("--pid-file /app/x.pid", "/var/lib/minicluster/x.pid", ""),
        ("-l unix:app.sock", "unix:/var/lib/minicluster/app.sock", ""),
        ("-C run/c.sock", "/var/lib/minicluster/run/c.sock", "/run"),
        ("--log-dir .", "/var/lib/minicluster", ""),
        ("--pid-dir pids", "/var/lib/minicluster/pids", "/pids"),
    ] {
        let line = format!("-n 2 -p 3000 {options} -- python3 srv.py");
        let text = typed(Kind::K8s, &line);
        assert!(words(Kind::K8s, &text).iter().any(|w| w == there), "{text}");
        let mounts: Vec<&str> = text
            .lines()
            .filter_map(|l| l.trim().strip_prefix("mountPath: "))
            .collect();
        let own = format!("\"/var/lib/minicluster{dir}\"");
        assert_eq!(mounts, ["\"/tmp\"", &own], "{text}");
        assert!(text.contains("would hide what is served"), "{text}");
    }
    // Elsewhere it is as it was said.
    let text = typed(Kind::K8s, "-p 3000 --log-file /logs/a.log -- ./server");
    assert!(text.contains("mountPath: \"/logs\"\n") && !text.contains("hide"));
}

#[test]
fn what_does_not_go_with_a_daemon_goes_where_there_is_none() {
    for kind in [Kind::Systemd, Kind::Containerfile, Kind::K8s] {
        let text = typed(kind, "-p 3000 -d --orphans keep -- node srv.js");
        assert!(text.contains("-d is left out"), "{text}");
        let said = text.lines().filter(|l| !l.starts_with('#'));
        let said: Vec<&str> = said.collect();
        let said = said.join("\n");
        // In a container nobody is left who could adopt.
        assert_eq!(said.contains("--orphans"), kind == Kind::Systemd, "{text}");
        assert!(!said.contains("-d\"") && !said.contains(" -d "), "{text}");
    }
    let why = refused(Kind::Init, "-p 3000 -d --orphans keep -- node srv.js");
    assert!(why.contains("--orphans keep does not go with"), "{why}");
}

#[test]
fn workers_that_outlive_the_master_are_left_alone_and_groups_of_their_own_are_let_be_made() {
    let plain = typed(Kind::Systemd, "-p 80 -- /srv/app/server");
    for line in [
        "KillMode=mixed\n",
        "ProtectControlGroups=yes\n",
        "FileDescriptorStoreMax=4\n",
    ] {
        assert!(plain.contains(line), "{line}: {plain}");
    }
    assert!(!plain.contains("Delegate="));
    let both = "--orphans keep --cgroup auto --balance hash -p 80 -- /srv/app/server";
    let unit = typed(Kind::Systemd, both);
    for line in ["KillMode=process\n", "Delegate=yes\n"] {
        assert!(unit.contains(line), "{line}: {unit}");
    }
    // Where each worker has a lane of its own, none is kept.
    for line in [
        "KillMode=mixed",
        "ProtectControlGroups=",
        "FileDescriptorStoreMax=",
    ] {
        assert!(!unit.contains(line), "{line}: {unit}");
    }
    // A stop finds them, too.
    let script = |more: &str| typed(Kind::Init, &format!("{more} -p 80 -- /srv/app/server"));
    assert!(script("--orphans keep").contains("*'(--orphans keep)'*) start"));
    assert!(!script("-n 1").contains("start || return 1"));
    for kind in [Kind::Containerfile, Kind::K8s] {
        let text = typed(kind, both);
        assert!(text.contains("# --orphans keep is left out"), "{text}");
        assert!(text.contains("# --cgroup auto takes"), "{text}");
        assert!(!words(kind, &text).contains(&"--orphans".to_string()));
    }
}

#[test]
fn what_is_written_in_a_pod_is_a_volume_wherever_it_is() {
    let mounts = |line: &str| -> Vec<String> {
        let text = typed(Kind::K8s, line);
        let paths = text
            .lines()
            .filter_map(|l| l.trim().strip_prefix("mountPath: "));
        paths.map(|p| p.trim_matches('"').to_string()).collect()
    };
    let run = "--pid-file /run/app.pid -C /run/app.sock -- ./server";
    assert_eq!(mounts(run), ["/run", "/tmp"]);
    assert_eq!(mounts("--user 1 -- ./server"), ["/run", "/tmp"]);
    assert_eq!(mounts("-- ./server"), ["/tmp"]);
    for (line, what) in [
        ("--pid-file /x.pid -- ./server", "/ is written to"),
        (
            "--log-file /opt/app/x.log -- /opt/app/server",
            "would hide /opt/app/server",
        ),
        (
            "--log-file /usr/local/bin/x -- ./server",
            "would hide /usr/local/bin/minicluster",
        ),
    ] {
        let why = refused(Kind::K8s, line);
        assert!(why.contains(what), "{line}: {why}");
    }
}

#[test]
fn a_key_that_cannot_be_there_takes_along_what_needs_it() {
    let line = "-C tcp://127.0.0.1:9 --key-file k -p 80 -- ./server";
    let text = typed(Kind::K8s, line);
    let words = words(Kind::K8s, &text);
    for gone in ["--key-file", "-C", "--control"] {
        assert!(!words.iter().any(|w| w == gone), "{words:?}");
    }
    assert!(
        text.contains("# -C tcp://127.0.0.1:9 is left out"),
        "{text}"
    );
}

#[test]
fn what_a_container_writes_is_its_users_and_what_is_secret_is_mounted() {
    let line =
        "--log-dir logs --pid-file /tmp/pid --env-file .env --key-file key -p 80 -- node srv.js";
    let file = typed(Kind::Containerfile, line);
    let run = r#"RUN ["install", "-d", "-o", "65532", "-g", "65532", "/app/logs"]"#;
    assert!(
        file.contains(&format!("{run}\nUSER 65532:65532\n")),
        "{file}"
    );
    for secret in [
        "--env-file /app/.env is no part",
        "--key-file /app/key is no part",
    ] {
        assert!(file.contains(secret), "{secret}: {file}");
    }
    for (kind, line) in [
        (
            Kind::Containerfile,
            "--user 1 --log-dir logs -- node srv.js",
        ),
        (Kind::Containerfile, "--pid-file /tmp/pid -- node srv.js"),
        // (Root's.)
        (Kind::Containerfile, "--log-dir logs -- ./server"),
    ] {
        let file = typed(kind, line);
        assert!(!file.contains("RUN "), "{line}: {file}");
    }
    let pod = typed(Kind::K8s, "--env-file .env -- node srv.js");
    assert!(pod.contains("a Secret, by subPath:"), "{pod}");
}
