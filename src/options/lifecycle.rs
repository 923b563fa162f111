//! When a worker is ready, when it is replaced, how it is stopped.

use super::{Completes, Opt, opt};
use crate::core::{MAX_RESTARTS, MAX_WORKERS};
use crate::settings::{self, MAX_FORKS, MAX_SERVED, Settings};
use crate::verbs;
use std::time::Duration;

/// In the order of --help.
pub(super) static LIFECYCLE: &[Opt] = &[
    opt(
        "",
        "ready",
        "RULE",
        "auto",
        "auto, started, listening, ready (it says so), fd:N, tcp, http:/PATH, alive so long",
        |s, v| {
            (s.ready, s.ready_fd, s.ready_path) = settings::ready(v)?;
            Ok(())
        },
    )
    .completes(Completes::Words(
        "auto started listening ready fd:3 tcp http:/",
    )),
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
        "ready-quorum",
        "N",
        "1",
        "so many workers have to be ready for health, and to be in rotation",
        |s, v| {
            s.ready_quorum = settings::number(v, 1, MAX_WORKERS)?;
            Ok(())
        },
    ),
    opt(
        "",
        "watchdog",
        "DUR",
        "off",
        "replace a ready worker that does not say WATCHDOG=1 that often",
        |s, v| {
            let (least, most) = (Duration::from_millis(10), settings::LONGEST);
            s.watchdog = settings::unless_off(v, |v| settings::between(v, least, most))?;
            Ok(())
        },
    ),
    opt(
        "",
        "hang-timeout",
        "DUR",
        "off",
        "replace a ready worker that leaves clients waiting that long, untouched",
        |s, v| {
            let (least, most) = (Duration::from_millis(400), settings::LONGEST);
            s.hang_timeout = settings::unless_off(v, |v| settings::between(v, least, most))?;
            Ok(())
        },
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
        "restarts-per-minute",
        "N",
        "0",
        "no more respawns in any minute than that; 0: any number",
        |s, v| {
            s.restarts_per_minute = settings::number(v, 0, MAX_RESTARTS)?;
            Ok(())
        },
    ),
    opt(
        "",
        "max-forks",
        "N",
        "0",
        "after so many no failed worker is replaced; 0: any number",
        |s, v| {
            s.max_forks = settings::number(v, 0, MAX_FORKS)?;
            Ok(())
        },
    ),
    opt(
        "",
        "on-crash-loop",
        "WHAT",
        "degrade",
        "at these limits: degrade (go on with the others), exit (69)",
        keep!(on_crash_loop, settings::on_crash_loop),
    )
    .completes(Completes::Words("degrade exit")),
    opt(
        "",
        "respawn-on",
        "WHICH",
        "any",
        "which ends bring another worker: any, failure (not exit 0), never",
        keep!(respawn_on, settings::respawn_on),
    )
    .completes(Completes::Words("any failure never")),
    opt(
        "",
        "orphans",
        "WHAT",
        "stop",
        "when the master dies: stop (they end with it), keep (the next start has them)",
        keep!(orphans, settings::orphans),
    )
    .lasting()
    .completes(Completes::Words("stop keep")),
    opt(
        "",
        "stop-signal",
        "SIG",
        "TERM",
        "what asks a worker to stop",
        keep!(stop_signal, settings::signal),
    )
    .completes(Completes::Words("TERM INT QUIT HUP USR1 USR2 WINCH KILL")),
    opt(
        "",
        "stop-timeout",
        "DUR",
        "10s",
        "SIGKILL to its process group after that",
        keep!(stop_timeout, settings::duration),
    ),
    opt(
        "",
        "stop-budget",
        "DUR",
        "9s as PID 1, else none",
        "a stop of the cluster takes no longer; 0: none",
        keep!(stop_budget, settings::budget),
    ),
    opt(
        "",
        "on-signal",
        "SIG=VERB",
        "",
        "what a signal to the master asks for, like QUIT=stop; HUP=: nothing",
        |s, v| {
            let (signal, order) = verbs::on_signal(v)?;
            s.on_signal.insert(signal, order);
            Ok(())
        },
    )
    .lasting()
    .keyed()
    .completes(Completes::Words(
        "HUP= INT=stop QUIT=stop TERM=stop USR1=reopen USR2=reload WINCH=",
    )),
    opt(
        "",
        "drain",
        "HOW",
        "connections",
        "how a worker is emptied before it is stopped: connections, server, none",
        keep!(drain, settings::drain),
    )
    .completes(Completes::Words("connections server none")),
    opt(
        "",
        "drain-timeout",
        "DUR",
        "10s",
        "what is open then is closed",
        keep!(drain_timeout, settings::duration),
    ),
    opt(
        "",
        "drain-quiet",
        "DUR",
        "half of the drain timeout",
        "a connection that owes nothing is closed if silent so long",
        |s, v| {
            s.drain_quiet = Some(settings::duration(v)?);
            Ok(())
        },
    ),
    opt(
        "",
        "drain-delay",
        "DUR",
        "0",
        "a stop of the cluster goes on serving for so long first",
        keep!(drain_delay, settings::duration),
    ),
    opt(
        "",
        "surge",
        "K|P%",
        "100%",
        "workers more than wanted while they are replaced; 0: old before new",
        keep!(surge, settings::surge),
    )
    .completes(Completes::Words("0 1 25% 50% 100%")),
    opt(
        "",
        "canary",
        "K[:DUR[:P%]]",
        "1:2s:0%",
        "so many new workers first, watched so long, with so much traffic; 0: none watched",
        |s, v| {
            s.canary = settings::canary(v, Settings::default().canary)?;
            Ok(())
        },
    )
    .completes(Completes::Words("0 1 1:10s 1:10s:10%")),
    opt(
        "",
        "max-age",
        "DUR",
        "off",
        "replace a worker that has been ready so long; it and the next two imply --balance hash",
        |s, v| {
            let (least, most) = (Duration::from_millis(100), settings::LONGEST);
            s.max_age = settings::unless_off(v, |v| settings::between(v, least, most))?;
            Ok(())
        },
    ),
    opt(
        "",
        "max-rss",
        "SIZE",
        "off",
        "or one whose processes have more memory, like 300M or 2G",
        |s, v| {
            s.max_rss = settings::unless_off(v, settings::bytes)?;
            Ok(())
        },
    ),
    opt(
        "",
        "max-connections",
        "N",
        "off",
        "or one that has served so many connections",
        |s, v| {
            s.max_connections = settings::unless_off(v, |v| settings::number(v, 1, MAX_SERVED))?;
            Ok(())
        },
    )
    .lasting(),
    opt(
        "",
        "recycle-jitter",
        "P%",
        "10%",
        "each worker's own such limit is lower by up to that part, 0% to 50%",
        keep!(recycle_jitter, settings::jitter),
    )
    .completes(Completes::Words("0% 10% 50%")),
];
