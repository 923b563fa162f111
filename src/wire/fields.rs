//! The fields of a worker: ONE table, which `workers details` shows whole, and `select` one of.

use super::json::quote;
use super::report::{amount, size, table};
use super::workers::{Row, list, nobody, typed};
use crate::core::words::human;
use std::time::Duration;

/// A field of a worker: its name, and its value for people and for machines.
pub struct Field {
    /// As it is asked for.
    pub name: &'static str,
    /// Is it told only where it is asked for, or of some?
    pub(super) rare: bool,
    pub(super) text: fn(&Row) -> String,
    pub(super) json: fn(&Row) -> String,
}

pub(super) fn dash<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".into(), text)
}

pub(super) fn null<T>(value: Option<T>, json: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "null".into(), json)
}

fn secs(d: Duration) -> String {
    format!("{:.3}", d.as_secs_f64())
}

/// Those of `connections`.
pub(super) fn of_connections() -> Vec<&'static Field> {
    let named = |name| FIELDS.iter().filter(move |f| f.name == name);
    let from = FIELDS.iter().skip_while(|f| f.name != "open");
    let theirs = from.take_while(|f| f.name != "status");
    named("slot").chain(named("pid")).chain(theirs).collect()
}

/// Those of `workers details`, but for what a worker says of itself, which stands below.
pub(super) fn of_details() -> Vec<&'static Field> {
    FIELDS.iter().filter(|f| f.name != "status").collect()
}

/// Those of `workers details`, of which `select` tells one.
pub static FIELDS: [Field; 18] = [
    Field {
        name: "pid",
        rare: false,
        text: Row::pid,
        json: Row::pid,
    },
    Field {
        name: "slot",
        rare: false,
        text: |r| r.view.slot.to_string(),
        json: |r| r.view.slot.to_string(),
    },
    Field {
        name: "generation",
        rare: false,
        text: |r| r.view.generation.to_string(),
        json: |r| r.view.generation.to_string(),
    },
    Field {
        name: "state",
        rare: false,
        text: |r| r.view.state.into(),
        json: |r| quote(r.view.state),
    },
    Field {
        name: "age",
        rare: false,
        text: |r| human(r.view.age),
        json: |r| secs(r.view.age),
    },
    Field {
        name: "rss",
        rare: false,
        text: |r| dash(r.usage, |(rss, _)| size(rss)),
        json: |r| null(r.usage, |(rss, _)| rss.to_string()),
    },
    Field {
        name: "cpu",
        rare: false,
        text: |r| dash(r.usage, |(_, ms)| human(Duration::from_millis(ms))),
        json: |r| null(r.usage, |(_, ms)| format!("{:.3}", ms as f64 / 1000.0)),
    },
    Field {
        name: "restarts",
        rare: false,
        text: |r| r.view.restarts.to_string(),
        json: |r| r.view.restarts.to_string(),
    },
    Field {
        name: "open",
        rare: false,
        text: |r| dash(r.traffic.seen, |s| s.open.to_string()),
        json: |r| null(r.traffic.seen, |s| s.open.to_string()),
    },
    Field {
        name: "queue",
        rare: true,
        text: |r| dash(r.traffic.queue, |n| n.to_string()),
        json: |r| null(r.traffic.queue, |n| n.to_string()),
    },
    Field {
        name: "silent",
        rare: true,
        text: |r| dash(r.traffic.seen.and_then(|s| s.silent), human),
        json: |r| null(r.traffic.seen.and_then(|s| s.silent), secs),
    },
    Field {
        name: "oldest",
        rare: true,
        text: |r| dash(r.traffic.seen.and_then(|s| s.oldest), human),
        json: |r| null(r.traffic.seen.and_then(|s| s.oldest), secs),
    },
    Field {
        name: "served",
        rare: true,
        text: |r| dash(r.traffic.tally, |t| t.served.to_string()),
        json: |r| null(r.traffic.tally, |t| t.served.to_string()),
    },
    Field {
        name: "received",
        rare: true,
        text: |r| dash(r.traffic.tally, |t| amount(t.received)),
        json: |r| null(r.traffic.tally, |t| t.received.to_string()),
    },
    Field {
        name: "sent",
        rare: true,
        text: |r| dash(r.traffic.tally, |t| amount(t.sent)),
        json: |r| null(r.traffic.tally, |t| t.sent.to_string()),
    },
    Field {
        name: "timeouts",
        rare: true,
        text: |r| dash(r.traffic.timeouts, |n| n.to_string()),
        json: |r| null(r.traffic.timeouts, |n| n.to_string()),
    },
    Field {
        name: "status",
        rare: false,
        text: |r| dash(r.says.as_deref(), String::from),
        json: |r| null(r.says.as_deref(), quote),
    },
    Field {
        name: "command",
        rare: false,
        text: |r| typed(&r.command),
        json: |r| list(r.command.iter().map(|w| quote(w))),
    },
];

/// By name.
pub fn field(name: &str) -> Result<&'static Field, String> {
    FIELDS.iter().find(|f| f.name == name).ok_or_else(|| {
        let all: Vec<&str> = FIELDS.iter().map(|f| f.name).collect();
        format!("'{name}' is no field of a worker: {}", all.join(" "))
    })
}

/// `select FIELD`: slot and value of each worker, a line each.
pub fn select(rows: &[Row], field: &Field, json: bool) -> String {
    if json {
        let item = |r: &Row| {
            let (slot, pid, value) = (r.view.slot, r.pid(), (field.json)(r));
            format!("{{\"slot\":{slot},\"pid\":{pid},\"value\":{value}}}")
        };
        return format!("{}\n", list(rows.iter().map(item)));
    }
    let row = |r: &Row| [r.view.slot.to_string(), (field.text)(r)];
    let all: Vec<[String; 2]> = rows.iter().map(row).collect();
    match all.is_empty() {
        true => nobody(),
        false => table(&all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json;
    use crate::wire::workers::tests::rows;

    #[test]
    fn each_field_of_each_worker_in_both_ways() {
        for f in &FIELDS {
            let text = select(&rows(), f, false);
            assert_eq!(text.lines().count(), 2, "{}: {text}", f.name);
            let v = json::parse(select(&rows(), f, true).trim_end()).unwrap();
            assert_eq!(v[1]["slot"].get::<f64>(), Some(&10.0), "{}", f.name);
        }
        let pids = select(&rows(), field("pid").unwrap(), false);
        assert_eq!(pids, "0   4711\n10  5\n");
        let verb = crate::verbs::VERBS.iter().find(|v| v.name == "select");
        let names: Vec<&str> = FIELDS.iter().map(|f| f.name).collect();
        assert_eq!(verb.unwrap().proposes, names.join(" "));
        let e = field("pids").err().unwrap();
        assert!(e.contains("pid slot generation"), "{e}");
        assert_eq!(select(&[], &FIELDS[0], true), "[]\n");
    }
}
