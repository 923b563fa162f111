//! What is asked over HTTP, and by whom it may be.

use super::{Completes, Opt, opt};
use crate::settings::{self, MAX_IN_A_ROW};

/// In the order of --help.
pub(super) static MONITOR: &[Opt] = &[
    opt(
        "",
        "monitor",
        "[HOST:]PORT",
        "off",
        "answer HTTP there: a page, probes; with the key verbs, too (not console, events)",
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
    opt(
        "",
        "ecv-monitor",
        "URL",
        "off",
        "not in rotation while this page is bad: http://ADDRESS:PORT/PATH, /PATH of ours",
        keep!(ecv_monitor, settings::ecv_monitor),
    ),
    opt(
        "",
        "ecv-validator",
        "CMD",
        "none",
        "nor while this program fails; its first line says why",
        keep!(ecv_validator, settings::ecv_validator),
    ),
    opt(
        "",
        "ecv-interval",
        "DUR",
        "5s",
        "so often both are asked",
        |s, v| {
            let (least, most) = settings::ECV_INTERVAL;
            s.ecv_interval = settings::between(v, least, most)?;
            Ok(())
        },
    ),
    opt(
        "",
        "ecv-fall",
        "N",
        "3",
        "so many bad answers in a row take it out of rotation",
        |s, v| {
            s.ecv_fall = settings::number(v, 1, MAX_IN_A_ROW)?;
            Ok(())
        },
    ),
    opt(
        "",
        "ecv-rise",
        "N",
        "2",
        "so many good ones bring it back",
        |s, v| {
            s.ecv_rise = settings::number(v, 1, MAX_IN_A_ROW)?;
            Ok(())
        },
    ),
];
