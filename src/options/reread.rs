//! The file of --config, read again while the cluster runs. What was typed wins as it did at the
//! start. Options that are of the master itself, and not of its workers, keep the value of the start.

use super::config::Entry;
use super::merge::{Both, Fault, Read, read_file};
use super::{Opt, Scope, all};
use crate::settings::{Said, Settings};
use std::ffi::OsString;
use std::path::PathBuf;

/// What came of it.
#[derive(Debug)]
pub struct Reread {
    /// What counts from now on.
    pub settings: Settings,
    /// Options that the file says something else about than it did, which takes a restart of the
    /// master: `--port`. They are kept as they were.
    pub restart: Vec<String>,
    /// How many workers there are to be, if the file says something else about it than it did. (What
    /// a resize has come to meanwhile stays if it does not.)
    pub workers_changed: Option<u16>,
}

/// Reads it. An error names the file, and what is wrong with which line; then nothing has changed.
/// On a machine with so many CPUs.
pub fn reread(now: &Settings, cpus: usize, read: Read<'_>) -> Result<Reread, String> {
    let new = match now.sources.config() {
        Some(file) => read_file(file, read)?,
        None => Vec::new(),
    };
    let old = entries_of(&now.sources.filed);
    // The whole of it is right or wrong, whatever of it counts.
    checked(&both(now, &new))?;
    let mut changed = Vec::new();
    for o in all().filter(|o| o.scope != Scope::Client) {
        if alone(&both(now, &old), o)? != alone(&both(now, &new), o)? {
            changed.push(o);
        }
    }
    let kept = old.into_iter().filter(|e| e.opt.lasting);
    let taken = new.into_iter().filter(|e| !e.opt.lasting);
    let entries: Vec<Entry> = kept.chain(taken).collect();
    let mut settings = checked(&both(now, &entries))?;
    as_at_the_start(now, &mut settings);
    // Also where it is what --ready implies.
    if settings.balance() != now.balance() {
        settings.balance = Some(now.balance());
        let file = now.sources.config().unwrap_or_default();
        settings.check().map_err(|why| format!("{file}: {why}"))?;
    }
    let workers = changed.iter().any(|o| o.long == "workers");
    let lasting = changed.iter().filter(|o| o.lasting);
    Ok(Reread {
        restart: lasting.map(|o| format!("--{}", o.long)).collect(),
        workers_changed: workers.then(|| settings.wanted(cpus)),
        settings,
    })
}

/// What a new start says, for the cluster that runs: these options, typed there, and that command. An
/// error names what is of the master itself and another than it has.
pub fn replaced(
    now: &Settings,
    typed: Vec<Said>,
    here: PathBuf,
    command: Vec<OsString>,
    read: Read<'_>,
) -> Result<Settings, String> {
    // How it is started, and what it is called, is not what it does.
    const APART: [&str; 3] = ["replace", "daemon", "name"];
    let mut new = Settings::default();
    new.sources.typed = typed;
    let entries = match new.sources.config() {
        Some(file) => read_file(file, read)?,
        None => Vec::new(),
    };
    let old = entries_of(&now.sources.filed);
    let lasting = all().filter(|o| o.lasting && !APART.contains(&o.long));
    let mut differ = Vec::new();
    for o in lasting {
        if alone(&both(now, &old), o)? != alone(&both(&new, &entries), o)? {
            differ.push(format!("--{}", o.long));
        }
    }
    if !differ.is_empty() {
        let what = differ.join(", ");
        return Err(format!(
            "{what}: not what it runs with, and that takes a restart of the master: stop it, and start it so"
        ));
    }
    let mut s = checked(&both(&new, &entries))?;
    as_at_the_start(now, &mut s);
    (s.sources.here, s.command) = (here, command);
    Ok(s)
}

/// An option by its name, as it is said over the control socket.
pub fn said(text: &str) -> Result<Said, String> {
    let bad = || format!("'{text}' is no option of a start");
    let (long, value) = text
        .strip_prefix("--")
        .and_then(|t| t.split_once('='))
        .ok_or_else(bad)?;
    let o = all().find(|o| o.long == long && o.scope != Scope::Client);
    let o = o.ok_or_else(bad)?;
    match (o.arg, value) {
        ("", "") => Ok((o.long, String::new())),
        ("", _) => Err(format!("--{long} takes no value")),
        (_, value) => Ok((o.long, value.to_string())),
    }
}

/// What was typed, and these lines.
fn both<'a>(now: &'a Settings, entries: &'a [Entry]) -> Both<'a> {
    Both {
        typed: &now.sources.typed,
        file: now.sources.config().unwrap_or_default(),
        entries,
        start: true,
    }
}

/// What was remembered, as lines again. They were right once, so their numbers are not needed.
fn entries_of(filed: &[Said]) -> Vec<Entry> {
    let entry = |(long, value): &Said| {
        let opt = all().find(|o| o.long == *long)?;
        let (line, value) = (0, value.clone());
        Some(Entry { line, opt, value })
    };
    filed.iter().filter_map(entry).collect()
}

fn checked(both: &Both<'_>) -> Result<Settings, String> {
    let s = both.settings().map_err(sentence)?;
    s.check().map_err(|why| format!("{}: {why}", both.file))?;
    Ok(s)
}

/// Settings of which nothing but this is said: they differ where its value does, however it is spelt.
fn alone(both: &Both<'_>, o: &Opt) -> Result<Settings, String> {
    let mut s = Settings::default();
    both.apply(o, &mut s).map_err(sentence)?;
    Ok(s)
}

fn sentence(fault: Fault) -> String {
    match fault {
        Fault::Typed(why) | Fault::Filed(why) => why,
    }
}

/// What is not said by options, and paths that were made whole since.
fn as_at_the_start(now: &Settings, s: &mut Settings) {
    s.command.clone_from(&now.command);
    s.sources.here.clone_from(&now.sources.here);
    s.pid_file.clone_from(&now.pid_file);
    s.pid_dir.clone_from(&now.pid_dir);
    s.log_file.clone_from(&now.log_file);
    s.log_dir.clone_from(&now.log_dir);
    s.watch.clone_from(&now.watch);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Drain;
    use std::time::Duration;

    #[test]
    fn an_option_is_said_with_its_value_and_a_flag_without_one() {
        assert_eq!(said("--quiet="), Ok(("quiet", String::new())));
        assert_eq!(said("--env=A=b"), Ok(("env", "A=b".into())));
        assert_eq!(said("--quiet=x"), Err("--quiet takes no value".into()));
        for bad in ["--quiet", "quiet=", "--nothing=1"] {
            assert!(said(bad).unwrap_err().contains("is no option of a start"));
        }
    }

    /// A cluster started with these words and this file.
    fn started(typed: &[(&'static str, &str)], file: &str) -> Settings {
        let mut typed: Vec<Said> = typed.iter().map(|(o, v)| (*o, v.to_string())).collect();
        typed.push(("config", "f".into()));
        let entries = read_file("f", &|_| Ok(file.into())).unwrap();
        let both = Both {
            typed: &typed,
            file: "f",
            entries: &entries,
            start: true,
        };
        let mut s = both.settings().unwrap();
        s.command = vec!["./server".into()];
        s
    }

    fn again(now: &Settings, file: &str) -> Result<Reread, String> {
        reread(now, 2, &|name| {
            assert_eq!(name, "f");
            Ok(file.into())
        })
    }

    #[test]
    fn a_file_that_says_the_same_changes_nothing() {
        let file = "port 80\npid-file x.pid\nworkers 3\nenv A=1\nquiet";
        let mut now = started(&[("port", "81"), ("log-file", "x.log")], file);
        now.pid_file = Some("/start/x.pid".into());
        for same in [
            file,
            "# other words\nworkers=3\nport  080\nenv A=1\nquiet\npid-file = x.pid",
        ] {
            let r = again(&now, same).unwrap();
            assert_eq!((r.restart, r.workers_changed), (vec![], None), "{same}");
            assert_eq!(r.settings.ports, [81]);
            assert_eq!(r.settings.pid_file, now.pid_file);
            assert_eq!(r.settings.log_file, now.log_file);
            assert_eq!(r.settings.command, now.command);
        }
        assert_eq!(again(&now, file).unwrap().settings, now);
    }

    #[test]
    fn what_is_of_workers_and_of_the_policy_is_taken() {
        let now = started(&[("env", "B=typed")], "env A=1\nenv C=1\ndrain-timeout 10s");
        let file = "env A=2\nenv B=filed\ndrain-timeout 4s\ndrain server\nsurge 50%\ncwd /srv";
        let r = again(&now, file).unwrap();
        let env: Vec<String> = r
            .settings
            .env
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        // The last of a name counts.
        assert_eq!(env, ["A=2", "B=filed", "B=typed"]);
        let policy = r.settings.policy(2, 1, Vec::new());
        assert_eq!(policy.drain, Drain::Server);
        assert_eq!(policy.drain_timeout, Duration::from_secs(4));
        assert_eq!(policy.drain_quiet, Duration::from_secs(2));
        assert_eq!(policy.surge.of(4), 2);
        assert_eq!(r.settings.cwd, Some("/srv".into()));
        assert!(r.restart.is_empty(), "{:?}", r.restart);
        // What is gone from the file is the default again.
        let r = again(&r.settings, "").unwrap();
        assert_eq!(r.settings.drain, Drain::Connections);
        assert_eq!(r.settings.cwd, None);
    }

    #[test]
    fn what_is_of_the_master_is_named_each_time_and_kept() {
        let now = started(&[("host", "::1")], "port 80\nname web");
        let other = "port 81\nport 82\nhost ::\nname web\nuser app\nrespawn 1s";
        let r = again(&now, other).unwrap();
        assert_eq!(r.restart, ["--port", "--user"]);
        assert_eq!(r.settings.ports, [80]);
        assert_eq!(r.settings.user, None);
        assert_eq!(r.settings.respawn, Duration::from_secs(1));
        // The start is what counts, not what was read last.
        let twice = again(&r.settings, other).unwrap();
        assert_eq!(twice.restart, ["--port", "--user"]);
        let back = again(&twice.settings, "port 80\nname web").unwrap();
        assert!(back.restart.is_empty());
        let gone = again(&back.settings, "port 80").unwrap();
        assert_eq!(gone.restart, ["--name"]);
        assert_eq!(gone.settings.name.as_deref(), Some("web"));
    }

    /// Something else than the default of each option that is of the master.
    const OTHER: [&str; 33] = [
        "cgroup auto",
        "replace",
        "balance ip",
        "max-connections 9",
        "host ::1",
        "listen unix:/x",
        "backlog 9",
        "keepalive 9s",
        "user-timeout 9s",
        "takeover off",
        "on-signal HUP=stop",
        "user app",
        "group app",
        "daemon",
        "control off",
        "name web",
        "pid-file x.pid",
        "pid-dir pids",
        "watch x",
        "single",
        "log-file x.log",
        "log-format json",
        "log-dir logs",
        "log-merge",
        "orphans keep",
        "port 81",
        "console",
        "monitor 82",
        "monitor-name web",
        "key-file k",
        "ecv /up",
        "ecv-control open",
        "ecv-down-status 503",
    ];

    #[test]
    fn each_option_of_the_master_is_named_and_kept_and_no_other_is() {
        let long = |line: &str| line.split(' ').next().unwrap().to_string();
        let mut lasting: Vec<&str> = all().filter(|o| o.lasting).map(|o| o.long).collect();
        let mut tried: Vec<String> = OTHER.map(long).to_vec();
        lasting.sort_unstable();
        tried.sort_unstable();
        assert_eq!(tried, lasting);
        for line in OTHER {
            // Some mean nothing alone.
            let base = match line {
                "log-merge" => "port 80\nlog-dir logs",
                _ => "port 80",
            };
            let now = started(&[], base);
            // It appears in the file, and it goes.
            let file = format!("{base}\n{line}");
            let want = [format!("--{}", long(line))];
            let r = again(&now, &file).unwrap();
            assert_eq!(r.restart, want, "{line}");
            assert_eq!(r.settings, now, "{line}");
            let other = started(&[], &file);
            let r = again(&other, base).unwrap();
            assert_eq!(r.restart, want, "{line}");
            assert_eq!(r.settings, other, "{line}");
        }
        let now = started(&[], "port 80");
        let r = again(
            &now,
            "port 80\ncpu-affinity\nwatchdog 9s\nnice 1\nready fd:9\nsilent\nlog-keep 9\nlog-max-size 9M",
        )
        .unwrap();
        assert!(r.restart.is_empty() && r.settings.cpu_affinity);
    }

    #[test]
    fn another_number_of_workers_is_told_and_one_that_was_typed_stays() {
        let now = started(&[], "workers 4");
        let r = again(&now, "workers 6").unwrap();
        assert_eq!((r.workers_changed, r.settings.workers), (Some(6), Some(6)));
        assert!(r.restart.is_empty());
        // Once: a resize since then is not taken back by the next reload.
        assert_eq!(
            again(&r.settings, "workers 6").unwrap().workers_changed,
            None
        );
        assert_eq!(again(&r.settings, "").unwrap().workers_changed, Some(2));
        let now = started(&[("workers", "3")], "workers 4");
        let r = again(&now, "workers 6").unwrap();
        assert_eq!((r.workers_changed, r.settings.workers), (None, Some(3)));
    }

    #[test]
    fn a_wrong_file_is_an_error_with_its_line() {
        let now = started(&[("ready-timeout", "5s")], "port 80");
        for (file, want) in [
            (
                "port 80\nwokers 4",
                "f:2: unknown option 'wokers'; did you mean workers?",
            ),
            ("\nsurge 101%", "f:2: --surge: '101%' is neither"),
            // What would not be taken anyway, too.
            ("port 99999", "f:1: -p, --port: '99999' is not"),
            ("ready-timeout x", "f:1: --ready-timeout: 'x' is no"),
            (
                "drain-quiet 1m",
                "f: --drain-quiet 1m is longer than --drain-timeout 10s",
            ),
            ("ready 6s", "f: no worker could be alive for 6s"),
            ("quiet\nverbose", "f:2: -v, --verbose: it and quiet"),
            ("json", "f:1: --json: it belongs to a verb"),
        ] {
            let e = again(&now, file).unwrap_err();
            assert!(e.starts_with(want), "{file}: {e}");
        }
        let e = reread(&now, 2, &|_| Err("No such file or directory".into())).unwrap_err();
        assert_eq!(e, "--config f: No such file or directory");
    }

    #[test]
    fn without_a_file_nothing_is_read() {
        let mut now = started(&[("workers", "3"), ("env-file", "e")], "");
        now.sources.typed.retain(|(long, _)| *long != "config");
        let r = reread(&now, 2, &|name| panic!("{name} is read")).unwrap();
        assert_eq!(r.settings, now);
        assert_eq!((r.restart, r.workers_changed), (vec![], None));
    }
}
