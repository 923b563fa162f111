//! Options of verbs, and those that print and leave.

use super::{Completes, Opt, opt};

/// In the order of --help.
pub(super) static OTHER: &[Opt] = &[
    opt(
        "",
        "check",
        "",
        "",
        "start nothing: say what would happen, and what is allowed here",
        |_, _| Ok(()),
    )
    .alone(),
    opt(
        "",
        "json",
        "",
        "",
        "answers of verbs, and of --check, as JSON",
        |s, _| {
            s.json = true;
            Ok(())
        },
    )
    .client()
    .alone(),
    opt(
        "",
        "no-wait",
        "",
        "",
        "verbs that wait return when it has begun",
        |s, _| {
            s.no_wait = true;
            Ok(())
        },
    )
    .client(),
    opt(
        "",
        "print-unit",
        "KIND",
        "",
        "print what starts this very cluster: systemd, init, containerfile, k8s",
        |_, _| Ok(()),
    )
    .completes(Completes::Words("systemd init containerfile k8s")),
    opt(
        "",
        "completions",
        "SHELL",
        "",
        "print completions for bash, zsh or fish",
        |_, _| Ok(()),
    )
    .both()
    .completes(Completes::Words("bash zsh fish")),
    opt("h", "help", "", "", "this text", |_, _| Ok(())).both(),
    opt("V", "version", "", "", "the version", |_, _| Ok(())).both(),
];
