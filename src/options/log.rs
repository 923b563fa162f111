//! Our own log.

use super::{Completes, Opt, Rivals, opt};
use crate::core::Level;
use crate::settings::{self, LogFormat, LogTo};

/// In the order of --help.
pub(super) static LOG: &[Opt] = &[
    opt(
        "",
        "log-file",
        "FILE",
        "-, which is stderr",
        "our log: a file (reopened on USR1), syslog, or -",
        |s, v| {
            s.log_file = Some(match v {
                "-" => LogTo::Stderr,
                "syslog" => LogTo::Syslog,
                _ => LogTo::File(settings::path(v)?),
            });
            Ok(())
        },
    )
    .lasting()
    .completes(Completes::FileOr("syslog -")),
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
    )
    .lasting()
    .alone()
    .completes(Completes::Words("text logfmt json")),
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
    )
    .alone()
    .completes(Completes::Words("error warn info debug"))
    .rivals(Rivals::Loudness),
    opt("q", "quiet", "", "", "as --log-level warn", |s, _| {
        s.log_level = Level::Warn;
        Ok(())
    })
    .alone()
    .rivals(Rivals::Loudness),
    opt("v", "verbose", "", "", "as --log-level debug", |s, _| {
        s.log_level = Level::Debug;
        Ok(())
    })
    .alone()
    .rivals(Rivals::Loudness),
];
