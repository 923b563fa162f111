//! The command line, understood by the table in `options`.

mod words;

pub use words::help;

use crate::core::codes::{EX_CONFIG, EX_USAGE};
use crate::options::merge::{self, Both, Fault, Read, exclude};
use crate::options::{self, Opt, Rivals, Scope, name_of};
use crate::settings::{self, Control, Said, Settings};
use crate::units::Kind;
use crate::verbs;
use std::ffi::OsString;
use words::{explain, may_be_custom, misplaced, nothing_to_do, stray_word};

/// What was asked for.
#[derive(Debug)]
pub enum Invocation {
    /// Run a cluster.
    Start(Box<Settings>),
    /// Print the file of that kind that would.
    PrintUnit(Kind, Box<Settings>),
    /// Say what that would come to.
    Check(Box<Settings>),
    /// Speak to a running one.
    Control(Box<Settings>, Vec<String>),
    /// Print this and leave.
    Print(String),
}

/// Our version, one line.
pub fn version() -> String {
    format!("minicluster {}\n", env!("CARGO_PKG_VERSION"))
}

/// Why nothing is done.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// EX_USAGE for what was typed, EX_CONFIG for what is in the file of --config.
    pub code: u8,
    /// A whole sentence.
    pub message: String,
}

impl From<String> for Wrong {
    fn from(message: String) -> Wrong {
        let code = EX_USAGE;
        Wrong { code, message }
    }
}

fn in_file(message: String) -> Wrong {
    let code = EX_CONFIG;
    Wrong { code, message }
}

/// Understands the command line, without our own name, and the file that it names.
pub fn parse(args: &[OsString], read: Read<'_>) -> Result<Invocation, Wrong> {
    let mut parser = getopts::Options::new();
    parser.parsing_style(getopts::ParsingStyle::StopAtFirstFree);
    for o in options::all() {
        let has = match o.arg {
            "" => getopts::HasArg::No,
            _ => getopts::HasArg::Yes,
        };
        let occur = getopts::Occur::Multi;
        parser.opt(o.short, o.long, o.help, o.arg, has, occur);
    }
    // The words of COMMAND may be any bytes; options and verbs are text.
    let split = args.iter().position(|a| a == "--");
    let ours: Vec<OsString> = args
        .iter()
        .take(split.unwrap_or(args.len()))
        .cloned()
        .collect();
    let behind = |at: usize| args.iter().skip(at + 1).cloned().collect::<Vec<OsString>>();
    let text: Vec<String> = ours
        .into_iter()
        .map(|w| w.into_string())
        .collect::<Result<_, _>>()
        .map_err(|w| format!("{} is not UTF-8", w.to_string_lossy()))?;
    let m = parser.parse(&text).map_err(explain)?;
    if m.opt_present("help") {
        return Ok(Invocation::Print(help()));
    }
    if m.opt_present("version") {
        return Ok(Invocation::Print(version()));
    }
    if let Some(shell) = m.opt_str("completions") {
        return Ok(crate::completions::script(&shell).map(Invocation::Print)?);
    }
    let start = match (split, m.free.first()) {
        (Some(_), None) => true,
        (_, Some(word)) if verbs::find(word).is_none() && !may_be_custom(word, &m) => {
            return Err(stray_word(&m).into());
        }
        (_, Some(_)) => false,
        (None, None) => return Err(nothing_to_do().into()),
    };
    check_scopes(&m, start)?;
    check_rivals(&m, start)?;
    let (mut s, wrong) = settings(&m, start, read)?;
    let client_words: Vec<String> = m.free.clone();
    if start && s.single {
        check_single(&m, &s)?;
    }
    if start {
        s.command = behind(split.unwrap_or(0));
        if s.command.is_empty() {
            let why = "nothing follows --: minicluster [OPTIONS] -- COMMAND [ARG...]";
            return Err(why.to_string().into());
        }
        let printed = m.opt_str("print-unit").map(|kind| Kind::named(&kind));
        let printed = printed.transpose()?;
        // It is left out there, and so it is in nobody's way.
        s.daemon &= printed.is_none_or(Kind::daemonizes);
        s.check()?;
        if m.opt_present("check") && m.opt_present("print-unit") {
            return Err("--check and --print-unit: one thing at a time"
                .to_string()
                .into());
        }
        if m.opt_present("check") {
            return Ok(Invocation::Check(Box::new(s)));
        }
        return Ok(match printed {
            Some(kind) => Invocation::PrintUnit(kind, Box::new(s)),
            None => Invocation::Start(Box::new(s)),
        });
    }
    let verb = client_words.first().cloned().ok_or_else(nothing_to_do)?;
    let before = verbs::find(&verb).and_then(|v| v.before);
    let ours = verbs::find(&verb).is_some();
    let command = match (split, before) {
        (Some(at), None) if !ours => Some(behind(at)),
        (Some(_), None) => return Err(format!("{verb} is a verb and takes no COMMAND").into()),
        (Some(at), Some(_)) => Some(behind(at)),
        (None, _) => None,
    };
    // A file that does not say which cluster is meant must not mean whichever runs.
    let says = s.name.is_some() || s.pid_file.is_some() || s.control != Control::Named;
    if m.opt_present("config") && !says {
        let file = m.opt_str("config").unwrap_or_default();
        let none = || {
            format!(
                "--config {file} does not say which cluster is meant: it has no name, pid-file or control"
            )
        };
        return Err(in_file(wrong.unwrap_or_else(none)));
    }
    Ok(client(s, client_words, command)?)
}

/// What was typed, on top of what the file says; for a verb, and what is wrong with the file.
fn settings(
    m: &getopts::Matches,
    start: bool,
    read: Read<'_>,
) -> Result<(Settings, Option<String>), Wrong> {
    let file = m.opt_str("config").unwrap_or_default();
    let (entries, wrong) = match m.opt_present("config") {
        true if start => (merge::read_file(&file, read).map_err(in_file)?, None),
        true => merge::read_some(&file, read),
        false => (Vec::new(), None),
    };
    let both = Both {
        typed: &typed(m),
        file: &file,
        entries: &entries,
        start,
    };
    let settings = both.settings().map_err(|fault| match fault {
        Fault::Typed(message) => message.into(),
        Fault::Filed(message) => in_file(message),
    })?;
    Ok((settings, wrong))
}

fn typed(m: &getopts::Matches) -> Vec<Said> {
    let values = |o: &Opt| match o.arg {
        // To say it twice is to say it.
        "" if m.opt_present(o.long) => vec![String::new()],
        _ => m.opt_strs(o.long),
    };
    options::all()
        .flat_map(|o| values(o).into_iter().map(|v| (o.long, v)))
        .collect()
}

fn check_rivals(m: &getopts::Matches, start: bool) -> Result<(), String> {
    for (about, message) in [
        (
            Rivals::Loudness,
            "-q, -v and --log-level exclude each other",
        ),
        (
            Rivals::Which,
            "-C, --name and --pid-file each say which cluster is meant: give one",
        ),
    ] {
        let typed = |o: &&Opt| o.rivals == about && m.opt_present(o.long);
        if exclude(about, start) && options::all().filter(typed).count() > 1 {
            return Err(message.into());
        }
    }
    Ok(())
}

/// A verb and its words; its two flags may stand behind it, too, where people type them.
fn client(
    mut s: Settings,
    mut words: Vec<String>,
    command: Option<Vec<OsString>>,
) -> Result<Invocation, String> {
    let mut kept: Vec<String> = Vec::new();
    let option = ["option".to_string()];
    // From COMMAND on nothing is ours.
    let (verb, rest) = words.split_first().ok_or_else(nothing_to_do)?;
    let verb = verb.clone();
    let before = verbs::find(&verb).and_then(|v| v.before);
    let begins = before.map(|b| 1 + settings::begins(rest, b));
    let mut theirs = match begins.filter(|_| command.is_none()) {
        Some(at) => words.split_off(at),
        None => Vec::new(),
    };
    // Where it was not typed, what is at the end may still be options in an object.
    let end = command.is_some();
    for word in command.into_iter().flatten() {
        let shown = word.to_string_lossy().into_owned();
        let text = word.into_string();
        theirs.push(text.map_err(|_| format!("{shown} is not UTF-8: the master is sent text"))?);
    }
    for w in words {
        match w.as_str() {
            "--json" => s.json = true,
            "--no-wait" => s.no_wait = true,
            "-h" | "--help" if verbs::find(&verb).is_none() => {
                let help = vec!["help".to_string(), verb];
                return Ok(Invocation::Control(Box::new(s), help));
            }
            "-h" | "--help" => {
                let one = verbs::named(Some(&verb))?;
                return Ok(Invocation::Print(verbs::help(&one)));
            }
            // What would be said to a start.
            _ if kept.len() > 1
                && before == Some(crate::settings::Before::Replace)
                && kept.ends_with(&option) =>
            {
                kept.push(w);
            }
            // What it takes the master knows, and its program.
            _ if verbs::find(&verb).is_none() => kept.push(w),
            _ if w.starts_with('-') && w.len() > 1 && !kept.is_empty() => {
                if !verbs::find(&verb).is_some_and(|v| v.takes_number(&w)) {
                    return Err(misplaced(&w, &verb));
                }
                kept.push(w);
            }
            _ => kept.push(w),
        }
    }
    let unknown = verbs::find(&verb).is_none();
    if (before.is_some() || unknown) && !theirs.is_empty() {
        kept.extend(end.then(|| settings::END.into()));
        kept.extend(theirs);
    }
    Ok(Invocation::Control(Box::new(s), kept))
}

fn check_scopes(m: &getopts::Matches, start: bool) -> Result<(), String> {
    let wrong = match start {
        true => Scope::Client,
        false => Scope::Start,
    };
    // What a check says is an answer, too.
    let answers = |o: &&Opt| start && o.long == "json" && m.opt_present("check");
    let wrong = |o: &&Opt| o.scope == wrong && m.opt_present(o.long) && !answers(o);
    match options::all().find(wrong) {
        Some(o) if start => Err(format!(
            "{} belongs to a verb, not to starting a cluster",
            name_of(o)
        )),
        Some(o) => Err(format!(
            "{} belongs to starting a cluster, not to a verb; to start one: minicluster [OPTIONS] -- COMMAND",
            name_of(o)
        )),
        None => Ok(()),
    }
}

/// What takes a master is refused without one.
fn check_single(m: &getopts::Matches, s: &Settings) -> Result<(), String> {
    let several = s.workers.is_some_and(|n| n != 1);
    let idle = |o: &&Opt| m.opt_present(o.long) && !o.alone && (o.long != "workers" || several);
    match options::all().find(idle) {
        Some(o) => Err(format!(
            "--single executes COMMAND once, without a master, so {} means nothing: leave one of them out",
            name_of(o)
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
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
}
