//! Our own log, and what workers write.

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
    opt(
        "",
        "log-dir",
        "DIR",
        "none",
        "what workers write, in a file for each slot",
        |s, v| {
            s.log_dir = Some(settings::path(v)?);
            Ok(())
        },
    )
    .lasting()
    .completes(Completes::Dir),
    opt(
        "",
        "log-merge",
        "",
        "",
        "in one file for all, with slot and pid before each line",
        |s, _| {
            s.log_merge = true;
            Ok(())
        },
    )
    .lasting(),
    opt(
        "",
        "log-max-size",
        "SIZE",
        "16M",
        "a file of that length is moved away; 0 is any",
        |s, v| {
            s.log_max_size = match v {
                "0" => 0,
                _ => settings::between_bytes(v, settings::LEAST_LOG, "64K")?,
            };
            Ok(())
        },
    ),
    opt(
        "",
        "log-keep",
        "N",
        "5",
        "so many are kept that were moved away",
        |s, v| {
            s.log_keep = settings::number(v, 0, settings::MAX_KEPT)?;
            Ok(())
        },
    ),
    opt(
        "",
        "silent",
        "",
        "",
        "what workers write goes nowhere, unless there is a --log-dir",
        |s, _| {
            s.silent = true;
            Ok(())
        },
    ),
];
