//! The page, byte for byte where that matters: what the parsers of others hold it to.

use super::*;
use crate::core::status::SlotView;
use crate::core::{Ground, Phase, Pid, Rotation, Standing, Time, Used};
use std::collections::BTreeSet;
use std::time::Duration;

fn view(slot: u16, current: bool, pid: Option<i32>, state: &'static str) -> SlotView {
    SlotView {
        slot: SlotNr(slot),
        current,
        pid: pid.map(Pid),
        program: Default::default(),
        generation: 7,
        state,
        age: Duration::from_micros(1_500_000),
        adopted: false,
        restarts: 2,
        well: None,
        last: None,
    }
}

fn cluster() -> Snapshot {
    Snapshot {
        phase: Phase::Serving,
        generation: 7,
        wanted: 2,
        ready: 1,
        rotation: Rotation {
            state: Standing::Available,
            why: Ground::Well,
            since: Time(1),
            checks: Vec::new(),
        },
        rollout: None,
        up: Duration::from_secs(5),
        lanes: Vec::new(),
        takeover: "on",
        slots: vec![
            view(0, true, Some(41), "ready"),
            view(0, false, Some(39), "draining"),
            view(1, true, None, "waiting"),
        ],
        deaths: Vec::new(),
        used: Used {
            respawns: None,
            forks: None,
        },
        standing: Vec::new(),
    }
}

fn page_of(name: &str, change: impl FnOnce(&mut Reading<'_>)) -> String {
    let (counts, events) = (Counts::default(), [("died", 3)].into());
    let queue = |slot: Option<u16>, length| Queue {
        port: "0.0.0.0:80".into(),
        slot: slot.map(SlotNr),
        length,
        limit: 4096,
    };
    let queues = [queue(None, 7), queue(Some(1), 0)];
    let mut reading = Reading {
        name,
        cluster: cluster(),
        counts: &counts,
        quorum: 1,
        now: 10_000_000,
        cpu: BTreeMap::new(),
        usage: BTreeMap::new(),
        queues: &queues,
        connections: BTreeMap::new(),
        ended: None,
        timeouts: None,
        clients: (1, 2),
        followers: 0,
        events: &events,
        lines_lost: 4,
        output_lost: Some(6),
        took: 1_002_003,
        own: Own::default(),
    };
    change(&mut reading);
    page(&reading)
}

#[test]
fn values_are_those_of_the_readings() {
    let text = page_of("web", |r| {
        r.usage.insert(
            SlotNr(0),
            Usage {
                resident: 4096,
                processes: 2,
                threads: 3,
            },
        );
        r.connections.insert(SlotNr(0), 17);
        r.ended = Some(Ended {
            nobodys: Tally {
                served: 5,
                received: 60,
                sent: 7,
            },
            missed: 8,
            ..Ended::default()
        });
        r.own.cpu = Some(1);
    });
    for line in [
        "# HELP minicluster_workers Workers, and slots without one, by what status says of them.",
        "# TYPE minicluster_workers gauge",
        "minicluster_workers{state=\"ready\"} 1",
        "minicluster_workers{state=\"draining\"} 1",
        "minicluster_workers{state=\"waiting\"} 1",
        "minicluster_workers{state=\"killed\"} 0",
        "minicluster_workers_wanted 2",
        "minicluster_in_rotation 1",
        "minicluster_rotation{state=\"available\"} 1",
        "minicluster_rotation{state=\"disabled\"} 0",
        "minicluster_last_reload_successful 1",
        "minicluster_reloads_total{result=\"taken-back\"} 0",
        "minicluster_worker_ready{slot=\"0\"} 1",
        "minicluster_worker_ready{slot=\"1\"} 0",
        "minicluster_worker_start_time_seconds{slot=\"0\"} 8.500000",
        "minicluster_worker_resident_memory_bytes{slot=\"0\"} 4096",
        "minicluster_connections{slot=\"0\"} 17",
        "minicluster_connections_ended_total{slot=\"\"} 5",
        "minicluster_connection_received_bytes_total{slot=\"\"} 60",
        "minicluster_connection_sent_bytes_total{slot=\"\"} 7",
        "minicluster_connections_unheard_total 8",
        "minicluster_accept_queue{port=\"0.0.0.0:80\",slot=\"\"} 7",
        "minicluster_accept_queue{port=\"0.0.0.0:80\",slot=\"1\"} 0",
        "minicluster_clients{door=\"monitor\"} 2",
        "minicluster_events_total{event=\"died\"} 3",
        "minicluster_log_lines_lost_total 4",
        "minicluster_output_lines_lost_total 6",
        "minicluster_reading_seconds 1.002003",
        "process_cpu_seconds_total 0.000001",
    ] {
        let n = text.lines().filter(|l| *l == line).count();
        assert_eq!(n, 1, "{line}:\n{text}");
    }
    assert!(text.ends_with('\n') && !text.contains("{}"));
}

#[test]
fn what_nothing_is_known_of_is_left_out() {
    let text = page_of("web", |r| r.queues = &[]);
    for name in [
        "minicluster_connections",
        "minicluster_connection_",
        "minicluster_check_content",
        "minicluster_accept_queue",
        "minicluster_worker_threads",
        "process_open_fds",
    ] {
        assert!(!text.contains(name), "{name}");
    }
}

#[test]
fn a_label_may_hold_anything() {
    let text = page_of("a\"b\\c\nd{e}=\u{e9}", |_| {});
    let want = "minicluster_info{name=\"a\\\"b\\\\c\\nd{e}=\u{e9}\"} 1\n";
    assert!(text.contains(want), "{text}");
}

#[test]
fn the_table_keeps_to_the_conventions() {
    let mut names = BTreeSet::new();
    for f in FAMILIES {
        let name = f.name;
        assert!(names.insert(name), "{name} is there twice");
        let ours = name.starts_with("minicluster_") || name.starts_with("process_");
        let plain = |b: u8| b.is_ascii_lowercase() || b == b'_';
        assert!(ours && name.bytes().all(plain), "{name}");
        assert_eq!(name.ends_with("_total"), f.kind == Kind::Counter, "{name}");
        for label in f.labels {
            assert!(label.bytes().all(plain) && *label != "pid", "{name}");
        }
        assert!(f.help.ends_with('.') && f.help.len() <= 90, "{name}");
        assert!(!f.help.contains(['\\', '\n']), "{name}");
    }
}
