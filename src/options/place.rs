//! Where the cluster is found, and in which files it leaves word.

use super::{Completes, Opt, Rivals, opt};
use crate::settings::{self, Control};
use std::path::PathBuf;

/// In the order of --help.
pub(super) static PLACE: &[Opt] = &[
    opt(
        "d",
        "daemon",
        "",
        "",
        "into the background; returns when all workers are ready",
        |s, _| {
            s.daemon = true;
            Ok(())
        },
    )
    .lasting(),
    opt(
        "",
        "replace",
        "",
        "",
        "if it runs already, make it exactly this: upgrade and resize",
        |s, _| {
            s.replace = true;
            Ok(())
        },
    )
    .lasting(),
    opt(
        "",
        "config",
        "FILE",
        "none",
        "more options, a long one a line; what is typed wins",
        |_, _| Ok(()),
    )
    .alone()
    .both()
    .completes(Completes::File),
    opt(
        "",
        "watch",
        "PATH",
        "none",
        "reload when this file, directory or link changes; repeatable",
        |s, v| {
            s.watch.push(settings::path(v)?);
            Ok(())
        },
    )
    .lasting()
    .many()
    .completes(Completes::File),
    opt(
        "C",
        "control",
        "PATH",
        "NAME.sock",
        "control socket; tcp://ADDRESS:PORT (with --key-file), or off",
        |s, v| {
            s.control = match v {
                "" => return Err("a path, tcp://ADDRESS:PORT, or off".into()),
                "off" => Control::Off,
                _ => match v.strip_prefix("tcp://") {
                    Some(at) => Control::Port(settings::control_port(at)?),
                    None => Control::Path(PathBuf::from(v)),
                },
            };
            Ok(())
        },
    )
    .lasting()
    .both()
    .completes(Completes::FileOr("off"))
    .rivals(Rivals::Which),
    opt(
        "",
        "console",
        "",
        "",
        "take verbs from standard input, one a line",
        |s, _| {
            s.console = true;
            Ok(())
        },
    )
    .lasting(),
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
    )
    .lasting()
    .alone()
    .both()
    .completes(Completes::Name)
    .rivals(Rivals::Which),
    opt(
        "",
        "pid-file",
        "FILE",
        "none",
        "holds our pid, locked; verbs find us by it",
        |s, v| {
            s.pid_file = Some(settings::path(v)?);
            Ok(())
        },
    )
    .lasting()
    .both()
    .completes(Completes::File)
    .rivals(Rivals::Which),
    opt(
        "",
        "pid-dir",
        "DIR",
        "none",
        "a pid file for the master and each worker",
        |s, v| {
            s.pid_dir = Some(settings::path(v)?);
            Ok(())
        },
    )
    .lasting()
    .completes(Completes::Dir),
    opt(
        "",
        "single",
        "",
        "",
        "execute COMMAND in our own place, with the sockets; no master",
        |s, _| {
            s.single = true;
            Ok(())
        },
    )
    .lasting()
    .alone(),
];
