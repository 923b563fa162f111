//! ONE table of options: it feeds the parser, --help, the completions and the check of the manual page.

use crate::core::Level;
use crate::settings::{self, Control, LogFormat, MAX_WORKERS, Settings};
use std::path::PathBuf;

/// For whom an option is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Who starts a cluster.
    Start,
    /// Who speaks to one.
    Client,
    /// Both.
    Both,
}

type Apply = fn(&mut Settings, &str) -> Result<(), String>;

/// One option.
pub struct Opt {
    /// One letter, or none.
    pub short: &'static str,
    /// The long name.
    pub long: &'static str,
    /// What its value is called; empty: it has none.
    pub arg: &'static str,
    /// Its default, as the manual says it.
    pub default: &'static str,
    /// One line.
    pub help: &'static str,
    /// May it be repeated?
    pub many: bool,
    /// For whom.
    pub scope: Scope,
    /// Parses the value and keeps it.
    pub apply: Apply,
}

const fn opt(
    short: &'static str,
    long: &'static str,
    arg: &'static str,
    default: &'static str,
    help: &'static str,
    apply: Apply,
) -> Opt {
    Opt {
        short,
        long,
        arg,
        default,
        help,
        many: false,
        scope: Scope::Start,
        apply,
    }
}

const fn many(mut o: Opt) -> Opt {
    o.many = true;
    o
}

const fn scope(mut o: Opt, s: Scope) -> Opt {
    o.scope = s;
    o
}

/// Keeps a parsed value.
macro_rules! keep {
    ($field:ident, $parse:expr) => {
        |s, v| {
            s.$field = $parse(v)?;
            Ok(())
        }
    };
}

/// All of them, in the order of --help.
pub static OPTIONS: [Opt; 26] = [
    opt(
        "n",
        "workers",
        "N",
        "auto",
        "how many workers, 1 to 1024; auto: the CPUs we may use",
        |s, v| {
            s.workers = match v {
                "auto" => None,
                _ => Some(
                    settings::number(v, 1, MAX_WORKERS).map_err(|e| format!("{e}, nor auto"))?,
                ),
            };
            Ok(())
        },
    ),
    many(opt(
        "p",
        "port",
        "PORT",
        "none",
        "TCP port to open and serve; 0 picks a free one",
        |s, v| {
            s.ports.push(settings::number(v, 0, u16::MAX)?);
            Ok(())
        },
    )),
    many(opt(
        "H",
        "host",
        "ADDR",
        "0.0.0.0",
        "address for -p; :: is IPv6 and IPv4",
        |s, v| {
            s.hosts.push(settings::host(v)?);
            Ok(())
        },
    )),
    opt(
        "",
        "backlog",
        "N",
        "4096",
        "connections that may wait; capped by net.core.somaxconn",
        keep!(backlog, |v| settings::number(v, 1, 65_535)),
    ),
    opt(
        "",
        "takeover",
        "HOW",
        "auto",
        "answer the workers' bind(2): auto, off, require, or PORT[=OURPORT],..",
        keep!(takeover, settings::takeover),
    ),
    opt(
        "",
        "ready",
        "RULE",
        "auto",
        "when a worker counts as ready: auto, started, listening, or alive so long",
        keep!(ready, settings::ready),
    ),
    opt(
        "",
        "ready-timeout",
        "DUR",
        "60s",
        "kill a worker not ready by then; 0: never",
        keep!(ready_timeout, settings::duration),
    ),
    opt(
        "",
        "start-timeout",
        "DUR",
        "60s",
        "give up (69) if no worker was ever ready by then; 0: never",
        keep!(start_timeout, settings::duration),
    ),
    opt(
        "",
        "respawn",
        "DUR",
        "100ms",
        "first delay before a worker that failed early is replaced",
        keep!(respawn, settings::duration),
    ),
    opt(
        "",
        "backoff",
        "DUR",
        "30s",
        "longest such delay, it doubles up to it; 0: no doubling",
        keep!(backoff, settings::duration),
    ),
    opt(
        "",
        "backoff-reset",
        "DUR",
        "30s",
        "a worker ready that long wipes the slot's failures",
        keep!(backoff_reset, settings::duration),
    ),
    opt(
        "",
        "stop-signal",
        "SIG",
        "TERM",
        "what asks a worker to stop",
        keep!(stop_signal, settings::signal),
    ),
    opt(
        "",
        "stop-timeout",
        "DUR",
        "10s",
        "SIGKILL to its process group after that",
        keep!(stop_timeout, settings::duration),
    ),
    many(opt(
        "",
        "env",
        "K=V",
        "none",
        "environment of the workers; {slot} and {slot+N} expand",
        |s, v| {
            s.env.push(settings::env_pair(v)?);
            Ok(())
        },
    )),
    opt(
        "",
        "cwd",
        "DIR",
        "here",
        "their directory, entered anew at each spawn",
        |s, v| {
            s.cwd = Some(PathBuf::from(v));
            Ok(())
        },
    ),
    scope(
        opt(
            "C",
            "control",
            "PATH",
            "NAME.sock",
            "control socket; off: none",
            |s, v| {
                s.control = match v {
                    "" => return Err("a path, or off".into()),
                    "off" => Control::Off,
                    _ => Control::Path(PathBuf::from(v)),
                };
                Ok(())
            },
        ),
        Scope::Both,
    ),
    scope(
        opt(
            "",
            "name",
            "NAME",
            "COMMAND[-PORT]",
            "what this cluster is called",
            |s, v| {
                s.name = Some(settings::name(v)?);
                Ok(())
            },
        ),
        Scope::Both,
    ),
    opt(
        "",
        "log-format",
        "FMT",
        "text on a terminal, else logfmt",
        "text, logfmt or json",
        |s, v| {
            s.log_format = Some(match v {
                "text" => LogFormat::Text,
                "logfmt" => LogFormat::Logfmt,
                "json" => LogFormat::Json,
                _ => return Err(format!("'{v}' is none of text, logfmt, json")),
            });
            Ok(())
        },
    ),
    opt(
        "",
        "log-level",
        "LEVEL",
        "info",
        "error, warn, info or debug",
        |s, v| {
            s.log_level = match v {
                "error" => Level::Error,
                "warn" => Level::Warn,
                "info" => Level::Info,
                "debug" => Level::Debug,
                _ => return Err(format!("'{v}' is none of error, warn, info, debug")),
            };
            Ok(())
        },
    ),
    opt("q", "quiet", "", "", "as --log-level warn", |s, _| {
        s.log_level = Level::Warn;
        Ok(())
    }),
    opt("v", "verbose", "", "", "as --log-level debug", |s, _| {
        s.log_level = Level::Debug;
        Ok(())
    }),
    scope(
        opt("", "json", "", "", "answers of verbs as JSON", |s, _| {
            s.json = true;
            Ok(())
        }),
        Scope::Client,
    ),
    scope(
        opt(
            "",
            "no-wait",
            "",
            "",
            "stop and kill return at once",
            |s, _| {
                s.no_wait = true;
                Ok(())
            },
        ),
        Scope::Client,
    ),
    scope(
        opt(
            "",
            "completions",
            "SHELL",
            "",
            "print completions for bash, zsh or fish",
            |_, _| Ok(()),
        ),
        Scope::Both,
    ),
    scope(
        opt("h", "help", "", "", "this text", |_, _| Ok(())),
        Scope::Both,
    ),
    scope(
        opt("V", "version", "", "", "the version", |_, _| Ok(())),
        Scope::Both,
    ),
];

/// `-n, --workers`, as messages name it.
pub fn name_of(o: &Opt) -> String {
    match o.short {
        "" => format!("--{}", o.long),
        short => format!("-{short}, --{}", o.long),
    }
}
