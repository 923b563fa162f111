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
    .alone()
    .keyed()
    .secret(),
    opt(
        "",
        "env-file",
        "FILE",
        "none",
        "the same from a file, one NAME=VALUE a line",
        |s, v| {
            s.env_files.push(PathBuf::from(v));
            Ok(())
        },
    ).alone()
    .many()
    .completes(Completes::File),
    opt(
        "",
        "clear-env",
        "",
        "",
        "pass on nothing of our own environment",
        |s, _| {
            s.clear_env = true;
            Ok(())
        },
    ).alone(),
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
    ).alone()
    .completes(Completes::Dir),
    opt(
        "",
        "user",
        "USER",
        "ours",
        "run them as this user, with its groups: name or number",
        |s, v| {
            s.user = Some(settings::principal(v)?);
            Ok(())
        },
    ).lasting().alone()
    .completes(Completes::User),
    opt(
        "",
        "group",
        "GROUP",
        "the user's",
        "and with this as their group: name or number",
        |s, v| {
            s.group = Some(settings::principal(v)?);
            Ok(())
        },
    ).lasting().alone()
    .completes(Completes::Group),
    opt(
        "",
        "umask",
        "MASK",
        "ours",
        "octal: what files they make are not open to",
        |s, v| {
            s.umask = Some(settings::umask(v)?);
            Ok(())
        },
    ).alone()
    .completes(Completes::Words("022 027 077")),
    opt(
        "",
        "nice",
        "N",
        "ours",
        "priority, -20 (first) to 19 (last)",
        |s, v| {
            s.nice = Some(settings::number(v, -20, 19)?);
            Ok(())
        },
    ).alone(),
    opt(
        "",
        "cpu-affinity",
        "",
        "",
        "one CPU for each: slot 0 has the first that we may use, and so on",
        |s, _| {
            s.cpu_affinity = true;
            Ok(())
        },
    ).alone(),
    opt(
        "",
        "cgroup",
        "HOW",
        "off",
        "a control group for each, which ends with it: auto (if we have one to divide), off",
        |s, v| {
            s.cgroup = match v {
                "auto" => true,
                "off" => false,
                _ => return Err(format!("'{v}' is none of auto, off")),
            };
            Ok(())
        },
    )
    .lasting()
    .completes(Completes::Words("auto off")),
    opt(
        "",
        "rlimit",
        "NAME=N[:N]",
        "ours",
        "soft and hard limit, like nofile=65536 or core=0",
        |s, v| {
            let limit = settings::rlimit(v)?;
            s.rlimits.retain(|l| l.resource != limit.resource);
            s.rlimits.push(limit);
            Ok(())
        },
    ).alone()
    .keyed()
    .completes(Completes::Words(
        "as= core= cpu= data= fsize= locks= memlock= msgqueue= nice= nofile= nproc= rss= rtprio= rttime= sigpending= stack=",
    )),
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
