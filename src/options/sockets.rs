//! How many workers, and where they are reached.

use super::{Completes, Opt, opt};
use crate::settings::{self, MAX_WORKERS};
use std::time::Duration;

/// In the order of --help.
pub(super) static HOW_MANY: &[Opt] = &[
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
    )
    .completes(Completes::Words("auto")),
    opt(
        "p",
        "port",
        "PORT",
        "none",
        "TCP port to open and serve; 0 picks a free one",
        |s, v| {
            s.ports.push(settings::number(v, 0, u16::MAX)?);
            Ok(())
        },
    )
    .lasting()
    .alone()
    .many(),
    opt(
        "H",
        "host",
        "ADDR",
        "0.0.0.0",
        "address for -p; :: is IPv6 and IPv4",
        |s, v| {
            s.hosts.push(settings::host(v)?);
            Ok(())
        },
    )
    .lasting()
    .alone()
    .many()
    .completes(Completes::Words("0.0.0.0 127.0.0.1 :: ::1")),
    opt(
        "l",
        "listen",
        "ADDR",
        "none",
        "open and serve tcp://HOST:PORT, unix:PATH[,mode=0660], or what is passed as fd:N",
        |s, v| {
            s.listen.push(settings::listen(v)?);
            Ok(())
        },
    )
    .lasting()
    .alone()
    .many()
    .completes(Completes::Words("tcp://127.0.0.1: tcp://[::]: unix:/ fd:3")),
    opt(
        "",
        "backlog",
        "N",
        "4096",
        "connections that may wait; capped by net.core.somaxconn",
        keep!(backlog, |v| settings::number(v, 1, 65_535)),
    )
    .lasting()
    .alone(),
    opt(
        "",
        "balance",
        "HOW",
        "shared",
        "to whom connections go: shared (who is free), hash, ip (sticky clients), cpu",
        |s, v| {
            s.balance = Some(settings::balance(v)?);
            Ok(())
        },
    )
    .lasting()
    .completes(Completes::Words("shared hash ip cpu")),
    opt(
        "",
        "keepalive",
        "DUR",
        "off",
        "probe a connection silent that long; it ends if it is dead after twice that",
        |s, v| {
            let (least, most) = (Duration::from_secs(1), Duration::from_secs(32_767));
            s.keepalive = settings::unless_off(v, |v| settings::between(v, least, most))?;
            Ok(())
        },
    )
    .lasting()
    .alone(),
    opt(
        "",
        "user-timeout",
        "DUR",
        "off",
        "end a connection whose data is unacknowledged that long",
        |s, v| {
            let (least, most) = (Duration::from_millis(1), Duration::from_secs(86_400));
            s.user_timeout = settings::unless_off(v, |v| settings::between(v, least, most))?;
            Ok(())
        },
    )
    .lasting()
    .alone(),
    opt(
        "",
        "idle-timeout",
        "DUR",
        "off",
        "end a connection on which nothing has come or gone for that long",
        |s, v| {
            let (least, most) = (Duration::from_millis(100), settings::LONGEST);
            s.idle_timeout = settings::unless_off(v, |v| settings::between(v, least, most))?;
            Ok(())
        },
    ),
    opt(
        "",
        "count-connections",
        "",
        "",
        "count the connections of each worker, and their bytes",
        |s, _| {
            s.count_connections = true;
            Ok(())
        },
    ),
    opt(
        "",
        "takeover",
        "HOW",
        "auto",
        "answer the workers' bind(2): auto, off, require, or PORT[=OURPORT],..",
        keep!(takeover, settings::takeover),
    )
    .lasting()
    .completes(Completes::Words("auto off require")),
];
