//! What is asked over HTTP, and by whom it may be.

use super::{Completes, Opt, opt};
use crate::settings;

/// In the order of --help.
pub(super) static MONITOR: &[Opt] = &[
    opt(
        "",
        "monitor",
        "[HOST:]PORT",
        "off",
        "answer HTTP there: state, probes, and with the key all verbs",
        |s, v| {
            s.monitor = settings::monitor(v)?;
            Ok(())
        },
    )
    .lasting(),
    opt(
        "",
        "monitor-name",
        "NAME",
        "none",
        "a name by which clients of that may call it, beside the machine's",
        |s, v| {
            s.monitor_name = Some(settings::host_name(v)?);
            Ok(())
        },
    )
    .lasting(),
    opt(
        "",
        "key-file",
        "FILE",
        "none",
        "its first line is the key that opens all over TCP; mode 0600",
        |s, v| {
            s.key_file = Some(settings::path(v)?);
            Ok(())
        },
    )
    .lasting()
    .both()
    .completes(Completes::File),
    opt(
        "",
        "ecv",
        "PATH",
        "/ecv",
        "where load balancers ask whether to send clients",
        |s, v| {
            s.ecv = settings::ecv(v)?;
            Ok(())
        },
    )
    .lasting(),
    opt(
        "",
        "ecv-control",
        "WHO",
        "key",
        "who may disable and enable over TCP: off, key (who has it), open (all)",
        |s, v| {
            s.ecv_control = settings::ecv_control(v)?;
            Ok(())
        },
    )
    .lasting()
    .completes(Completes::Words("off key open")),
    opt(
        "",
        "ecv-down-status",
        "N",
        "400",
        "the status of a cluster that is disabled",
        |s, v| {
            s.ecv_down_status = settings::number(v, 400, 599)?;
            Ok(())
        },
    )
    .lasting(),
];
