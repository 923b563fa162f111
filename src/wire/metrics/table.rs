//! The table of metrics: what `/metrics` says, in this order, and what the check of the manual page reads.
//! Base units (seconds, bytes), `_total` for what is counted, `_info` for what is only named; names are
//! never changed once they are out: other people's alerts hang on them.
//!
//! What is counted by slot is told of every slot that there has ever been, what is measured of those that
//! there are.

use super::Label::{Slot, Text};
use super::{Family, Kind, Reading, Samples, Tally};
use crate::core::counts::Ending;
use crate::core::notice::Birth;
use crate::core::status::{STATES, SlotView};
use crate::core::words::signal_name;
use crate::core::{Cause, Exit, Phase, Standing};

type Write = fn(&Reading<'_>, &mut Samples<'_>);
type Names = &'static [&'static str];

const fn gauge(name: &'static str, labels: Names, help: &'static str, samples: Write) -> Family {
    Family {
        name,
        kind: Kind::Gauge,
        labels,
        help,
        samples,
    }
}

const fn counter(name: &'static str, labels: Names, help: &'static str, samples: Write) -> Family {
    Family {
        kind: Kind::Counter,
        ..gauge(name, labels, help, samples)
    }
}

/// All of them.
pub static FAMILIES: &[Family] = &[
    gauge(
        "minicluster_build_info",
        &["version"],
        "The version of minicluster; always 1.",
        |_, s| s.number(&[Text(env!("CARGO_PKG_VERSION"))], 1),
    ),
    gauge(
        "minicluster_info",
        &["name"],
        "The name of the cluster; always 1.",
        |r, s| s.number(&[Text(r.name)], 1),
    ),
    gauge(
        "minicluster_workers",
        &["state"],
        "Workers, and slots without one, by what status says of them.",
        workers,
    ),
    gauge(
        "minicluster_workers_wanted",
        &[],
        "How many workers there are to be.",
        |r, s| s.number(&[], r.cluster.wanted as u64),
    ),
    gauge(
        "minicluster_workers_ready",
        &[],
        "Slots whose worker is ready.",
        |r, s| s.number(&[], r.cluster.ready as u64),
    ),
    gauge(
        "minicluster_ready_quorum",
        &[],
        "As many have to be ready for the cluster to be in rotation.",
        |r, s| s.number(&[], r.quorum.into()),
    ),
    gauge(
        "minicluster_in_rotation",
        &[],
        "Whether load balancers are told to send clients.",
        |r, s| s.truth(&[], r.cluster.rotation.state == Standing::Available),
    ),
    gauge(
        "minicluster_rotation",
        &["state"],
        "What the path of --ecv says: 1 for that, 0 for the others.",
        |r, s| {
            for state in Standing::ALL {
                let word = state.word().to_ascii_lowercase();
                s.truth(&[Text(&word)], state == r.cluster.rotation.state);
            }
        },
    ),
    gauge(
        "minicluster_check_content",
        &["check"],
        "Whether that check is content; 0 before its first answer.",
        |r, s| {
            for c in &r.cluster.rotation.checks {
                s.truth(&[Text(c.check.word())], c.content == Some(true));
            }
        },
    ),
    gauge(
        "minicluster_stopping",
        &[],
        "Whether the cluster stops.",
        |r, s| s.truth(&[], r.cluster.phase != Phase::Serving),
    ),
    gauge(
        "minicluster_generation",
        &[],
        "The generation that runs; each reload or upgrade that begins takes the next number.",
        |r, s| s.number(&[], r.cluster.generation.into()),
    ),
    gauge(
        "minicluster_reloading",
        &[],
        "Whether a reload, upgrade or rollback is under way.",
        |r, s| s.truth(&[], r.cluster.rollout.is_some()),
    ),
    gauge(
        "minicluster_last_reload_successful",
        &[],
        "0 after a reload, upgrade or rollback that failed or could not begin, else 1.",
        |r, s| s.truth(&[], !r.counts.reload_failed),
    ),
    counter(
        "minicluster_reloads_total",
        &["result"],
        "Reloads, upgrades and rollbacks that are over.",
        |r, s| {
            for ending in Ending::ALL {
                s.number(&[Text(ending.word())], r.counts.reloads(ending));
            }
        },
    ),
    counter(
        "minicluster_crash_loops_total",
        &[],
        "Respawns that --restarts-per-minute has held back, or not let happen.",
        |r, s| s.number(&[], r.counts.crash_loops),
    ),
    counter(
        "minicluster_stop_timeouts_total",
        &[],
        "Workers that were killed because they had not stopped in time.",
        |r, s| s.number(&[], r.counts.overdue),
    ),
    counter(
        "minicluster_drained_connections_total",
        &["how"],
        "Connections that were ended while their workers were emptied.",
        |r, s| {
            for (how, n) in [
                ("quiet", r.counts.closed),
                ("overdue", r.counts.ended),
                ("cut", r.counts.cut),
            ] {
                s.number(&[Text(how)], n);
            }
        },
    ),
    counter(
        "minicluster_worker_exits_total",
        &["status"],
        "Workers that have ended, by exit status or signal.",
        exits,
    ),
    gauge(
        "minicluster_worker_ready",
        &["slot"],
        "Whether the worker of the slot is ready.",
        |r, s| {
            for v in current(r) {
                s.truth(&[Slot(v.slot)], v.state == "ready");
            }
        },
    ),
    gauge(
        "minicluster_worker_generation",
        &["slot"],
        "The generation of the worker of the slot.",
        |r, s| {
            for v in alive(r) {
                s.number(&[Slot(v.slot)], v.generation.into());
            }
        },
    ),
    gauge(
        "minicluster_worker_start_time_seconds",
        &["slot"],
        "When the worker of the slot was begun, in seconds since 1970.",
        |r, s| {
            for v in alive(r) {
                let age = u64::try_from(v.age.as_micros()).unwrap_or(u64::MAX);
                s.seconds(&[Slot(v.slot)], r.now.saturating_sub(age));
            }
        },
    ),
    counter(
        "minicluster_worker_restarts_total",
        &["slot", "reason"],
        "Workers that were forked because of one before them.",
        |r, s| {
            for (slot, of) in r.counts.slots() {
                for why in Birth::OF_ANOTHER {
                    s.number(&[Slot(slot), Text(why.word())], of.births(why));
                }
            }
        },
    ),
    counter(
        "minicluster_worker_deaths_total",
        &["slot", "reason"],
        "Workers that have ended, by the reason that the event died has.",
        |r, s| {
            for (slot, of) in r.counts.slots() {
                for cause in Cause::ALL {
                    s.number(&[Slot(slot), Text(cause.word())], of.deaths(cause));
                }
            }
        },
    ),
    counter(
        "minicluster_worker_cpu_seconds_total",
        &["slot"],
        "CPU time of all workers that the slot has had, and of what they have started.",
        |r, s| {
            for (slot, _) in r.counts.slots() {
                s.seconds(&[Slot(slot)], r.cpu.get(&slot).copied().unwrap_or(0));
            }
        },
    ),
    gauge(
        "minicluster_worker_resident_memory_bytes",
        &["slot"],
        "Resident memory of the workers of the slot, and of what they have started.",
        |r, s| {
            for (slot, u) in &r.usage {
                s.number(&[Slot(*slot)], u.resident);
            }
        },
    ),
    gauge(
        "minicluster_worker_processes",
        &["slot"],
        "Processes of the workers of the slot.",
        |r, s| {
            for (slot, u) in &r.usage {
                s.number(&[Slot(*slot)], u.processes);
            }
        },
    ),
    gauge(
        "minicluster_worker_threads",
        &["slot"],
        "Threads of these processes.",
        |r, s| {
            for (slot, u) in &r.usage {
                s.number(&[Slot(*slot)], u.threads);
            }
        },
    ),
    gauge(
        "minicluster_connections",
        &["slot"],
        "Connections that the workers of the slot have open, as far as that can be seen.",
        |r, s| {
            for (slot, n) in &r.connections {
                s.number(&[Slot(*slot)], *n);
            }
        },
    ),
    counter(
        "minicluster_connections_ended_total",
        &["slot"],
        "Connections that have ended; slot is empty where it is not known whose they were.",
        |r, s| ended(r, s, |t| t.served),
    ),
    counter(
        "minicluster_connection_received_bytes_total",
        &["slot"],
        "Bytes that clients have sent on these.",
        |r, s| ended(r, s, |t| t.received),
    ),
    counter(
        "minicluster_connection_sent_bytes_total",
        &["slot"],
        "Bytes that clients have got on these.",
        |r, s| ended(r, s, |t| t.sent),
    ),
    counter(
        "minicluster_connections_unheard_total",
        &[],
        "Connections of whose end the kernel had no room to tell.",
        |r, s| maybe(r.ended.as_ref().map(|e| e.missed), |n| s.number(&[], n)),
    ),
    counter(
        "minicluster_connection_timeouts_total",
        &["slot"],
        "Connections that were ended because nothing had moved on them.",
        |r, s| {
            if let Some(of) = &r.timeouts {
                for (slot, _) in r.counts.slots() {
                    s.number(&[Slot(slot)], of.get(&slot).copied().unwrap_or(0));
                }
            }
        },
    ),
    gauge(
        "minicluster_accept_queue",
        &["port", "slot"],
        "Connections that wait to be accepted; slot is empty where all share the queue.",
        |r, s| queues(r, s, |q| q.length),
    ),
    gauge(
        "minicluster_accept_queue_limit",
        &["port", "slot"],
        "How many can wait there; further ones are not let in.",
        |r, s| queues(r, s, |q| q.limit),
    ),
    gauge(
        "minicluster_clients",
        &["door"],
        "Connections to the control socket and to --monitor.",
        |r, s| {
            let (control, monitor) = r.clients;
            s.number(&[Text("control")], control);
            s.number(&[Text("monitor")], monitor);
        },
    ),
    gauge(
        "minicluster_followers",
        &[],
        "Those of them that follow the events.",
        |r, s| s.number(&[], r.followers),
    ),
    counter(
        "minicluster_events_total",
        &["event"],
        "Events, as far as there were some; those of emit are custom.",
        |r, s| {
            for (event, n) in r.events {
                s.number(&[Text(event)], *n);
            }
        },
    ),
    counter(
        "minicluster_log_lines_lost_total",
        &[],
        "Lines of the log that could not be written.",
        |r, s| s.number(&[], r.lines_lost),
    ),
    counter(
        "minicluster_output_lines_lost_total",
        &[],
        "Lines of workers that could not be written to their files.",
        |r, s| maybe(r.output_lost, |n| s.number(&[], n)),
    ),
    gauge(
        "minicluster_reading_seconds",
        &[],
        "How long it took to read what the workers use.",
        |r, s| s.seconds(&[], r.took),
    ),
    counter(
        "process_cpu_seconds_total",
        &[],
        "CPU time of the master.",
        |r, s| maybe(r.own.cpu, |n| s.seconds(&[], n)),
    ),
    gauge(
        "process_resident_memory_bytes",
        &[],
        "Resident memory of the master.",
        |r, s| maybe(r.own.resident, |n| s.number(&[], n)),
    ),
    gauge(
        "process_virtual_memory_bytes",
        &[],
        "Address space of the master.",
        |r, s| maybe(r.own.size, |n| s.number(&[], n)),
    ),
    gauge(
        "process_open_fds",
        &[],
        "Open files of the master.",
        |r, s| maybe(r.own.open_fds, |n| s.number(&[], n)),
    ),
    gauge(
        "process_max_fds",
        &[],
        "How many it can have open.",
        |r, s| maybe(r.own.max_fds, |n| s.number(&[], n)),
    ),
    gauge(
        "process_start_time_seconds",
        &[],
        "When the master began, in seconds since 1970.",
        |r, s| s.seconds(&[], r.own.started),
    ),
];

fn maybe(value: Option<u64>, with: impl FnOnce(u64)) {
    if let Some(n) = value {
        with(n);
    }
}

fn current<'a>(r: &'a Reading<'_>) -> impl Iterator<Item = &'a SlotView> {
    r.cluster.slots.iter().filter(|v| v.current)
}

/// Of the current ones those that are there.
fn alive<'a>(r: &'a Reading<'_>) -> impl Iterator<Item = &'a SlotView> {
    current(r).filter(|v| v.pid.is_some())
}

fn workers(r: &Reading<'_>, s: &mut Samples<'_>) {
    for state in STATES {
        let n = r.cluster.slots.iter().filter(|v| v.state == state).count();
        s.number(&[Text(state)], n as u64);
    }
}

fn exits(r: &Reading<'_>, s: &mut Samples<'_>) {
    for (exit, n) in r.counts.exits() {
        let status = match exit {
            Exit::Code(code) => code.to_string(),
            Exit::Signal(signal) => format!("SIG{}", signal_name(signal)),
            Exit::Unknown => "unknown".to_string(),
        };
        s.number(&[Text(&status)], n);
    }
}

fn ended(r: &Reading<'_>, s: &mut Samples<'_>, of: fn(&Tally) -> u64) {
    let Some(ended) = &r.ended else { return };
    for (slot, _) in r.counts.slots() {
        let none = ended.told_apart.then(Tally::default);
        if let Some(its) = ended.of_slots.get(&slot).copied().or(none) {
            s.number(&[Slot(slot)], of(&its));
        }
    }
    s.number(&[Text("")], of(&ended.nobodys));
}

fn queues(r: &Reading<'_>, s: &mut Samples<'_>, of: fn(&super::Queue) -> u64) {
    for queue in r.queues {
        let slot = queue.slot.map_or(Text(""), Slot);
        s.number(&[Text(&queue.port), slot], of(queue));
    }
}
