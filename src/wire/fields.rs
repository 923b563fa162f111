//! The fields of a worker: ONE table, which `workers details` shows whole, and `select` one of.

use super::json::quote;
use super::report::{size, table};
use super::workers::{Row, list, nobody, typed};
use crate::core::words::human;
use std::time::Duration;

/// A field of a worker: its name, and its value for people and for machines.
pub struct Field {
    /// As it is asked for.
    pub name: &'static str,
    pub(super) text: fn(&Row) -> String,
    pub(super) json: fn(&Row) -> String,
}

pub(super) fn dash<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".into(), text)
}

pub(super) fn null<T>(value: Option<T>, json: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "null".into(), json)
}

/// Those of `workers details`, of which `select` tells one.
pub static FIELDS: [Field; 12] = [
    Field {
        name: "pid",
        text: Row::pid,
        json: Row::pid,
    },
    Field {
        name: "slot",
        text: |r| r.view.slot.to_string(),
        json: |r| r.view.slot.to_string(),
    },
    Field {
        name: "generation",
        text: |r| r.view.generation.to_string(),
        json: |r| r.view.generation.to_string(),
    },
    Field {
        name: "state",
        text: |r| r.view.state.into(),
        json: |r| quote(r.view.state),
    },
    Field {
        name: "age",
        text: |r| human(r.view.age),
        json: |r| format!("{:.3}", r.view.age.as_secs_f64()),
    },
    Field {
        name: "rss",
        text: |r| dash(r.usage, |(rss, _)| size(rss)),
        json: |r| null(r.usage, |(rss, _)| rss.to_string()),
    },
    Field {
        name: "cpu",
        text: |r| dash(r.usage, |(_, ms)| human(Duration::from_millis(ms))),
        json: |r| null(r.usage, |(_, ms)| format!("{:.3}", ms as f64 / 1000.0)),
    },
    Field {
        name: "restarts",
        text: |r| r.view.restarts.to_string(),
        json: |r| r.view.restarts.to_string(),
    },
    Field {
        name: "open",
        text: |r| dash(r.open, |n| n.to_string()),
        json: |r| null(r.open, |n| n.to_string()),
    },
    Field {
        name: "served",
        text: |r| dash(r.served, |n| n.to_string()),
        json: |r| null(r.served, |n| n.to_string()),
    },
    Field {
        name: "status",
        text: |r| dash(r.says.as_deref(), String::from),
        json: |r| null(r.says.as_deref(), quote),
    },
    Field {
        name: "command",
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
        let e = field("pids").err().unwrap();
        assert!(e.contains("pid slot generation"), "{e}");
        assert_eq!(select(&[], &FIELDS[0], true), "[]\n");
    }
}
