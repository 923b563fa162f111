//! The command line, understood by the table in `options`.

use crate::options::{self, Opt, Scope, name_of};
use crate::settings::{self, Settings};
use crate::verbs;
use std::ffi::OsString;

/// What was asked for.
#[derive(Debug)]
pub enum Invocation {
    /// Run a cluster.
    Start(Box<Settings>),
    /// Speak to a running one.
    Control(Box<Settings>, Vec<String>),
    /// Print this and leave.
    Print(String),
}

/// Our version, one line.
pub fn version() -> String {
    format!("minicluster {}\n", env!("CARGO_PKG_VERSION"))
}

/// Understands the command line, without our own name. An error is a whole sentence.
pub fn parse(args: &[OsString]) -> Result<Invocation, String> {
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
    let ours: Vec<OsString> = args[..split.unwrap_or(args.len())].to_vec();
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
        return crate::completions::script(&shell).map(Invocation::Print);
    }
    let mut s = Settings::default();
    for o in options::all() {
        let values = m.opt_strs(o.long);
        if values.len() > 1 && !o.many {
            return Err(format!("--{} is given {} times", o.long, values.len()));
        }
        if o.arg.is_empty() && m.opt_present(o.long) {
            (o.apply)(&mut s, "")?;
        }
        for v in values {
            (o.apply)(&mut s, &v).map_err(|e| format!("{}: {e}", name_of(o)))?;
        }
    }
    let levels = ["quiet", "verbose", "log-level"];
    if levels.iter().filter(|l| m.opt_present(l)).count() > 1 {
        return Err("-q, -v and --log-level exclude each other".into());
    }
    let start = match (split, m.free.first()) {
        (Some(_), None) => true,
        (_, Some(word)) if verbs::find(word).is_none() => return Err(stray_word(word, &m)),
        (_, Some(_)) => false,
        (None, None) => return Err(nothing_to_do()),
    };
    let client_words: Vec<String> = m.free.clone();
    check_scopes(&m, start)?;
    if start && s.single {
        check_single(&m, &s)?;
    }
    if start {
        s.command = args[split.unwrap_or(0) + 1..].to_vec();
        if s.command.is_empty() {
            return Err("nothing follows --: minicluster [OPTIONS] -- COMMAND [ARG...]".into());
        }
        s.check()?;
        return Ok(Invocation::Start(Box::new(s)));
    }
    if m.opt_present("control") && m.opt_present("name") {
        return Err("-C and --name both say which cluster is meant: give one".into());
    }
    if split.is_some() {
        return Err(format!(
            "{} is a verb and takes no COMMAND",
            client_words[0]
        ));
    }
    client(s, client_words)
}

/// A verb and its words; its two flags may stand behind it, too, where people type them.
fn client(mut s: Settings, words: Vec<String>) -> Result<Invocation, String> {
    let mut kept: Vec<String> = Vec::new();
    for w in words {
        match w.as_str() {
            "--json" => s.json = true,
            "--no-wait" => s.no_wait = true,
            "-h" | "--help" => {
                let one = verbs::named(Some(&kept[0]))?;
                return Ok(Invocation::Print(verbs::help(&one)));
            }
            _ if w.starts_with('-') && w.len() > 1 && !kept.is_empty() => {
                return Err(misplaced(&w, &kept[0]));
            }
            _ => kept.push(w),
        }
    }
    Ok(Invocation::Control(Box::new(s), kept))
}

/// An option of ours, or nobody's, behind a verb.
fn misplaced(word: &str, verb: &str) -> String {
    let flag = word.split('=').next().unwrap_or(word);
    let named = |o: &&Opt| flag == format!("--{}", o.long) || flag == format!("-{}", o.short);
    match options::all().find(named) {
        Some(o) if o.scope != Scope::Start => {
            let value = format!("{flag} {}", o.arg);
            let value = value.trim_end();
            format!("{flag} stands in front of the verb: minicluster {value} {verb}")
        }
        Some(_) | None => format!("{verb} does not take {word}"),
    }
}

fn check_scopes(m: &getopts::Matches, start: bool) -> Result<(), String> {
    let wrong = match start {
        true => Scope::Client,
        false => Scope::Start,
    };
    match options::all().find(|o| o.scope == wrong && m.opt_present(o.long)) {
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

fn nothing_to_do() -> String {
    "no COMMAND and no verb: minicluster -n 4 -p 3000 -- ./server starts a cluster, minicluster status asks one; minicluster --help lists all".into()
}

/// Most likely the `--` was forgotten.
fn stray_word(word: &str, m: &getopts::Matches) -> String {
    let looks_like_command = word.contains('/')
        || m.free.len() > 1
        || options::all().any(|o| o.scope == Scope::Start && m.opt_present(o.long));
    match looks_like_command {
        false => verbs::unknown(word),
        true => format!(
            "unknown verb {word}; did you mean: minicluster ... -- {}",
            m.free.join(" ")
        ),
    }
}

fn explain(fail: getopts::Fail) -> String {
    let names: Vec<&str> = options::all().map(|o| o.long).collect();
    match fail {
        getopts::Fail::UnrecognizedOption(o) => {
            let dashes = if o.chars().count() == 1 { "-" } else { "--" };
            match settings::nearest(&o, &names) {
                Some(n) if o.chars().count() > 1 => {
                    format!("unknown option {dashes}{o}; did you mean --{n}?")
                }
                _ => format!("unknown option {dashes}{o}; minicluster --help lists all"),
            }
        }
        getopts::Fail::ArgumentMissing(o) => {
            match options::all().find(|x| x.long == o || x.short == o) {
                Some(x) => format!("{} needs a value: {} ({})", name_of(x), x.arg, x.help),
                None => format!("{o} needs a value"),
            }
        }
        getopts::Fail::UnexpectedArgument(o) => format!("--{o} takes no value"),
        getopts::Fail::OptionMissing(o) | getopts::Fail::OptionDuplicated(o) => {
            format!("--{o} is wrong here")
        }
    }
}

fn help_line(o: &Opt) -> String {
    let short = match o.short {
        "" => "    ".to_string(),
        s => format!("-{s}, "),
    };
    let flag = format!("{short}--{} {}", o.long, o.arg);
    let default = match o.default {
        "" => String::new(),
        d => format!(" ({d})"),
    };
    format!("  {flag:<25} {}{default}\n", o.help)
}

/// --help
pub fn help() -> String {
    let mut text = String::from(
        "minicluster [OPTIONS] -- COMMAND [ARG...]    run N copies of a server program on one port\n\
         minicluster [-C SOCKET | --name NAME] VERB   speak to a running cluster\n",
    );
    for group in &options::GROUPS {
        text.push_str(&format!("\n{}:\n", group.title));
        for o in group.options {
            text.push_str(&help_line(o));
        }
    }
    text.push_str("\nVerbs:\n");
    let all: Vec<&verbs::Verb> = verbs::VERBS.iter().collect();
    for line in verbs::help(&all).lines() {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str(
        "\nDurations: 500us 500ms 10s 5m 1h 1d, a bare number is seconds. The manual: man minicluster\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Invocation, String> {
        let args: Vec<OsString> = line.split_whitespace().map(Into::into).collect();
        parse(&args)
    }

    fn start(line: &str) -> Settings {
        match run(line) {
            Ok(Invocation::Start(s)) => *s,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refused(line: &str) -> String {
        match run(line) {
            Err(e) => e,
            Ok(i) => panic!("{line}: {i:?}"),
        }
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
    fn bad_input_says_what_would_be_right() {
        for (line, want) in [
            ("", "minicluster -n 4 -p 3000 -- ./server"),
            ("./server", "did you mean: minicluster ... -- ./server"),
            (
                "-n 4 node server.js",
                "did you mean: minicluster ... -- node server.js",
            ),
            ("statsu", "did you mean status?"),
            ("stat", "did you mean status?"),
            ("restart", "there are: status why stop"),
            ("-n 0 -- x", "1 to 1024"),
            ("-n 2000 -- x", "1 to 1024"),
            ("-n four -- x", "nor auto"),
            ("-p 65536 -- x", "0 to 65535"),
            ("-p 80 -H example.org -- x", "is not an address"),
            ("--redy 5s -- x", "did you mean --ready?"),
            ("--ready soon -- x", "fd:N, or a duration"),
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
                "rlimit",
                "name",
                "single",
                "log-format",
                "log-level",
                "quiet",
                "verbose"
            ]
        );
        assert!(start("--single -n 1 -p 80 --user 1 --group 1 -q -- x").single);
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
