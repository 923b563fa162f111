//! What is understood of a command line, and what is said of one that cannot be.

use super::*;
use crate::core::Level;
use crate::settings::Control;

fn with(line: &str, file: &str) -> Result<Invocation, Wrong> {
    let args: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
    parse(&args, &|name| match name {
        "f" => Ok(file.into()),
        _ => Err("No such file or directory".into()),
    })
}

fn run(line: &str) -> Result<Invocation, Wrong> {
    with(line, "")
}

fn start(line: &str) -> Settings {
    match run(line) {
        Ok(Invocation::Start(s)) => *s,
        other => panic!("{line}: {other:?}"),
    }
}

fn refused(line: &str) -> String {
    match run(line) {
        Err(e) => e.message,
        Ok(i) => panic!("{line}: {i:?}"),
    }
}

#[test]
fn a_file_of_options_and_what_is_typed_wins() {
    let file = "workers 4\nport 80\nport 81\nenv A=1\nenv B=1\nquiet\nname web\ncontrol /c";
    let s = match with("--config f -- x", file) {
        Ok(Invocation::Start(s)) => s,
        other => panic!("{other:?}"),
    };
    assert_eq!((s.workers, s.ports.len(), s.env.len()), (Some(4), 2, 2));
    assert_eq!((s.log_level, s.name.as_deref()), (Level::Warn, Some("web")));
    let line = "-n 2 -p 90 --env B=2 -v --name api --config f -- x";
    let s = match with(line, file) {
        Ok(Invocation::Start(s)) => s,
        other => panic!("{other:?}"),
    };
    assert_eq!((s.workers, s.ports), (Some(2), vec![90]));
    // Each is about its own variable, and the later one counts.
    let env: Vec<String> = s.env.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(env, ["A=1", "B=1", "B=2"]);
    assert_eq!(
        (s.log_level, s.name.as_deref()),
        (Level::Debug, Some("api"))
    );
    assert_eq!(s.control, Control::Path("/c".into()));
}

#[test]
fn a_verb_takes_from_the_file_which_cluster_is_meant() {
    // What starts a cluster is not even looked at.
    let file = "workers none\nname web\ncontrol /c";
    let which = |line: &str| match with(line, file) {
        Ok(Invocation::Control(s, _)) => (s.name, s.control),
        other => panic!("{line}: {other:?}"),
    };
    let of_file = (Some("web".into()), Control::Path("/c".into()));
    assert_eq!(which("--config f status"), of_file);
    let typed = (Some("api".into()), Control::Named);
    assert_eq!(which("--config f --name api status"), typed);
    // Nor does what is wrong with the rest of it keep anybody from a running cluster,
    let half_written = "namme web\ncontrol /c\nname web\nname\n\u{0}";
    match with("--config f stop", half_written) {
        Ok(Invocation::Control(s, _)) => assert_eq!((s.name, s.control), of_file),
        other => panic!("{other:?}"),
    }
    // nor that it has gone, if the cluster is named.
    assert_eq!(which("--config gone --name api stop"), typed);
}

#[test]
fn what_is_wrong_in_a_file_is_a_matter_of_configuration() {
    for (line, file, want) in [
        ("--config g -- x", "", "--config g: No such file"),
        (
            "--config f -- x",
            "\nworkers 0",
            "f:2: -n, --workers: '0' is",
        ),
        // Typed or not, the line is wrong.
        ("-n 2 --config f -- x", "workers 0", "f:1: -n, --workers"),
        (
            "--config f -- x",
            "json",
            "f:1: --json: it belongs to a verb",
        ),
        (
            "--config f -- x",
            "quiet\nverbose",
            "f:2: -v, --verbose: it and quiet",
        ),
        (
            "--config f status",
            "namme web",
            "f:1: unknown option 'namme'; did you mean name",
        ),
        ("--config g stop", "", "--config g: No such file"),
    ] {
        let e = with(line, file).unwrap_err();
        assert_eq!(e.code, EX_CONFIG, "{line}: {e:?}");
        assert!(e.message.starts_with(want), "{line}: {e:?}");
    }
    assert_eq!(run("-n 0 -- x").unwrap_err().code, EX_USAGE);
}

#[test]
fn a_check_is_a_start_that_answers() {
    for (line, json) in [("--check -n 2 -- x", false), ("--json --check -- x", true)] {
        match run(line) {
            Ok(Invocation::Check(s)) => assert_eq!((s.command.len(), s.json), (1, json)),
            other => panic!("{line}: {other:?}"),
        }
    }
    assert!(refused("--json -- x").contains("belongs to a verb"));
    assert!(matches!(
        run("--check --json --single -- x"),
        Ok(Invocation::Check(_))
    ));
    assert!(refused("--check status").contains("belongs to starting"));
    assert!(refused("--check -n 0 -- x").contains("-n, --workers"));
    let filed = with("--config f -- x", "check").unwrap_err().message;
    assert!(filed.contains("can be typed"), "{filed}");
}

#[test]
fn the_main_job() {
    let s = start("-n 4 -p 3000 -- ./server -p 80 --help");
    assert_eq!((s.workers, s.ports), (Some(4), vec![3000]));
    assert_eq!(s.command, ["./server", "-p", "80", "--help"]);
    let s = start("-n4 --port=80 -p 81 -H ::1 --env A=b=c --env B= -- x");
    assert_eq!(s.addresses().len(), 2);
    assert_eq!(s.env[0], ("A".into(), "b=c".into()));
    assert_eq!(start("-n auto -- x").workers, None);
    assert_eq!(start("-- x -- y").command, ["x", "--", "y"]);
}

#[test]
fn a_verb_takes_its_flags_before_and_behind() {
    for line in ["--json status", "status --json", "-C /x status --json"] {
        match run(line) {
            Ok(Invocation::Control(s, words)) => {
                assert!(s.json);
                assert_eq!(words, ["status"]);
            }
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn a_number_below_zero_is_a_word_where_a_verb_takes_one() {
    for line in ["resize -1", "resize --json -1", "resize -1 --no-wait"] {
        match run(line) {
            Ok(Invocation::Control(_, words)) => assert_eq!(words, ["resize", "-1"]),
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn bad_input_says_what_would_be_right() {
    for (line, want) in [
        ("", "minicluster -n 4 -p 3000 -- ./server"),
        ("./server", "did you mean: minicluster ... -- ./server"),
        (
            "-n 4 node server.js",
            "did you mean: minicluster ... -- node server.js",
        ),
        ("-n 2 statsu", "did you mean: minicluster ... -- statsu"),
        ("Status", "did you mean status?"),
        ("--command Status=df -- x", "would be taken for status"),
        ("-n 0 -- x", "1 to 1024"),
        ("-n 2000 -- x", "1 to 1024"),
        ("-n four -- x", "nor auto"),
        ("-p 65536 -- x", "0 to 65535"),
        ("-p 80 -H example.org -- x", "is not an address"),
        ("--redy 5s -- x", "did you mean --ready?"),
        ("--ready soon -- x", "http:/PATH, or a duration"),
        ("--stop-signal FOO -- x", "no signal"),
        ("--takeover maybe -- x", "PORT[=OURPORT]"),
        ("--env FOO -- x", "NAME=VALUE"),
        ("--backoff -- x", "needs a value"),
        ("-p", "needs a value"),
        ("-x -- y", "unknown option -x"),
        ("-n 2 -n 3 -- x", "given 2 times"),
        ("--json -- x", "belongs to a verb"),
        ("-n 2 status", "belongs to starting"),
        ("status -- x", "takes no COMMAND"),
        ("--", "nothing follows"),
        ("--quiet=1 -- x", "takes no value"),
        ("status --frob", "does not take --frob"),
        (
            "why --name web 1",
            "in front of the verb: minicluster --name NAME why",
        ),
        ("status -n 4", "does not take -n"),
        ("resize -x", "does not take -x"),
        ("status -1", "does not take -1"),
        ("--stop-budget 10ms -- x", "shorter than 1s"),
        ("--drain fast -- x", "none of connections, server, none"),
        ("--drain-timeout 1001d -- x", "longer than 1000d"),
        ("--drain-quiet 11s -- x", "--drain-timeout 10s"),
        ("--surge 101% -- x", "0% to 100%"),
        ("--single --drain none -- x", "--drain means nothing"),
        ("--single --surge 0 -- x", "--surge means nothing"),
        ("-C /x --name web stop", "give one"),
        ("--takeover 8080=70000 -- x", "1 to 65535"),
        ("--takeover 80= -- x", "PORT[=OURPORT]"),
        ("--single -n 2 -- x", "-n, --workers means nothing"),
        ("--single --stop-timeout 1 -- x", "--stop-timeout means"),
        ("--single -C off -- x", "means nothing"),
        ("-l 3000 -- x", "tcp://127.0.0.1:3000"),
        ("-l unix: -- x", "names no path"),
        ("-l unix:/a,mode=999 -- x", "write 0660"),
        ("-l fd:2 -- x", "0, or 3 and up"),
        ("-l unix:/a -l unix:/a,mode=600 -- x", "given twice"),
        ("-p 80 -l tcp://0.0.0.0:80 -- x", "given twice"),
        ("--keepalive 100ms -- x", "between 1s and 9h6m"),
        ("--user-timeout 0 -- x", "between 1ms and 1d"),
        ("--ready 1001d -- x", "longer than 1000d"),
        ("--ready 5m -- x", "--ready-timeout is 1m"),
        ("--name ../x -- y", "not a name"),
        ("--completions tcsh", "bash"),
    ] {
        let e = refused(line);
        assert!(e.contains(want), "{line}: {e}");
    }
}

#[test]
fn what_is_no_verb_of_ours_may_be_one_of_the_clusters() {
    let asked = |line: &str| match run(line) {
        Ok(Invocation::Control(s, words)) => (words.join(" "), s.json, s.no_wait),
        other => panic!("{line}: {other:?}"),
    };
    for (line, words, json, no_wait) in [
        ("flush", "flush", false, false),
        ("flush a --all -1", "flush a --all -1", false, false),
        ("flush --json a --no-wait", "flush a", true, true),
        ("flush a -- --json x", "flush a -- --json x", false, false),
        ("flush --help", "help flush", false, false),
        ("--name web flush", "flush", false, false),
    ] {
        assert_eq!(asked(line), (words.into(), json, no_wait), "{line}");
    }
}

#[test]
fn without_a_master_what_needs_one_is_refused_and_the_rest_is_not() {
    let alone: Vec<&str> = options::all().filter(|o| o.alone).map(|o| o.long).collect();
    assert_eq!(
        alone,
        [
            "port",
            "host",
            "listen",
            "backlog",
            "keepalive",
            "user-timeout",
            "env",
            "env-file",
            "clear-env",
            "cwd",
            "user",
            "group",
            "umask",
            "nice",
            "cpu-affinity",
            "rlimit",
            "config",
            "name",
            "single",
            "log-format",
            "log-level",
            "quiet",
            "verbose",
            "check",
            "json"
        ]
    );
    assert!(start("--single -n 1 -p 80 --user 1 --group 1 -q -- x").single);
}

#[test]
fn a_file_that_does_not_say_which_cluster_is_meant_means_none() {
    let args = ["--config", "f", "stop"].map(OsString::from);
    let with = |text: &'static str| parse(&args, &|_| Ok(text.as_bytes().to_vec()));
    for (text, says) in [
        ("port 3999\n", false),
        ("name web\n", true),
        ("pid-file /run/web.pid\n", true),
        ("control /run/web.sock\n", true),
    ] {
        assert_eq!(with(text).is_ok(), says, "{text}");
    }
}

#[test]
fn help_names_every_option_and_verb() {
    let text = help();
    for o in options::all() {
        assert!(
            text.contains(&format!("--{} {}", o.long, o.arg)),
            "{}",
            o.long
        );
    }
    for v in &verbs::VERBS {
        assert!(text.contains(v.name));
    }
    assert!(text.lines().all(|l| l.chars().count() <= 120), "{text}");
}
