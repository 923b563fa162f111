//! What a worker gets: environment, directory, rights.

use super::{Completes, Opt, opt};
use crate::settings::{self, Ipc};
use std::path::PathBuf;

/// In the order of --help.
pub(super) static WORKER: &[Opt] = &[
    opt(
        "",
        "env",
        "K=V",
        "none",
        "environment of the workers; {slot} and {slot+N} expand",
        |s, v| {
            s.env.push(settings::env_pair(v)?);
            Ok(())
        },
    )
    .many(),
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
    )
    .completes(Completes::Dir),
    opt(
        "",
        "ipc",
        "HOW",
        "auto",
        "a channel for process.send: auto (if COMMAND is Node), node, off",
        |s, v| {
            s.ipc = match v {
                "auto" => Ipc::Auto,
                "node" => Ipc::Node,
                "off" => Ipc::Off,
                _ => return Err(format!("'{v}' is none of auto, node, off")),
            };
            Ok(())
        },
    )
    .completes(Completes::Words("auto node off")),
];
