//! Answers to the verbs that ask for one thing: how much all of it uses, who has how many connections,
//! which options hold, who sits at a console.

use super::fields::{dash, null, of_connections};
use super::json::quote;
use super::report::{size, table};
use super::workers::{Row, columns, members};
use crate::core::status::Snapshot;
use crate::core::words::{count, human};
use std::net::SocketAddr;
use std::time::Duration;

/// What all of it uses.
pub struct Totals {
    /// Of the master: resident bytes and CPU milliseconds.
    pub master: Option<(u64, u64)>,
    /// Of all workers.
    pub workers: (u64, u64),
    /// Connections that are open, if that could be seen.
    pub open: Option<u64>,
    /// How many have ended since the master started, if that is counted.
    pub served: Option<u64>,
    /// Of so many ends it could not be heard.
    pub missed: Option<u64>,
    /// Workers that have a process.
    pub active: usize,
}

/// `info`
pub fn info(s: &Snapshot, t: &Totals, name: &str, pid: u32, json: bool) -> String {
    let (rss, ms) = t.workers;
    let secs = |ms: u64| format!("{:.3}", ms as f64 / 1000.0);
    if json {
        return format!(
            "{{\"name\":{},\"pid\":{pid},\"version\":{},\"up\":{:.3},\"generation\":{},\"workers\":{{\"active\":{},\"ready\":{},\"wanted\":{}}},\"memory\":{{\"rss\":{rss},\"master\":{}}},\"cpu\":{{\"workers\":{},\"master\":{}}},\"net\":{{\"connections_open\":{},\"connections\":{},\"connections_missed\":{}}}}}\n",
            quote(name),
            quote(env!("CARGO_PKG_VERSION")),
            s.up.as_secs_f64(),
            s.generation,
            t.active,
            s.ready,
            s.wanted,
            null(t.master, |(rss, _)| rss.to_string()),
            secs(ms),
            null(t.master, |(_, ms)| secs(ms)),
            null(t.open, |n| n.to_string()),
            null(t.served, |n| n.to_string()),
            null(t.missed, |n| n.to_string()),
        );
    }
    let time = |ms: u64| human(Duration::from_millis(ms));
    let mut rows = vec![
        [
            "workers".into(),
            format!("{} active, {}/{} ready", t.active, s.ready, s.wanted),
        ],
        [
            "memory".into(),
            format!("{}, master {}", size(rss), dash(t.master, |(r, _)| size(r))),
        ],
        [
            "cpu".into(),
            format!(
                "{}, master {}",
                time(ms),
                dash(t.master, |(_, ms)| time(ms))
            ),
        ],
        ["connections".into(), {
            let served = t.served.map(|n| format!(", {n} served"));
            let missed = t.missed.filter(|n| *n > 0);
            let missed = missed.map(|n| format!(", {n} ended unheard"));
            let more = served.unwrap_or_default() + &missed.unwrap_or_default();
            format!("{} open{more}", dash(t.open, |n| n.to_string()))
        }],
    ];
    let version = env!("CARGO_PKG_VERSION");
    let up = human(s.up);
    rows.insert(
        0,
        [
            "master".into(),
            format!("{name} pid {pid}, minicluster {version}, up {up}"),
        ],
    );
    table(&rows)
}

/// Who has how many connections.
pub struct Connections {
    /// Those that have a process.
    pub workers: Vec<Row>,
    /// Those that no worker has accepted yet.
    pub waiting: u64,
    /// Those that some process has that is no worker any more, or that are just being accepted.
    pub others: u64,
    /// Connections that somebody types at.
    pub consoles: usize,
}

/// `connections`
pub fn connections(c: &Connections, json: bool) -> String {
    if json {
        let fields = of_connections();
        let one = |r: &Row| format!("{{{}}}", members(r, &fields).join(","));
        return format!(
            "{{\"workers\":{},\"waiting\":{},\"others\":{},\"consoles\":{}}}\n",
            super::workers::list(c.workers.iter().map(one)),
            c.waiting,
            c.others,
            c.consoles
        );
    }
    let rows = columns(&c.workers, &of_connections());
    format!(
        "{}waiting {}\nothers {}\nconsoles {}\n",
        table(&rows),
        c.waiting,
        c.others,
        c.consoles
    )
}

/// An option that holds.
pub struct Held {
    /// Its long name.
    pub long: &'static str,
    /// Its values, as they were said.
    pub values: Vec<String>,
    /// `typed`, `config`, or `default`.
    pub from: &'static str,
}

/// `options`
pub fn options(all: &[Held], command: &[String], json: bool) -> String {
    if json {
        let one = |h: &Held| {
            let values = super::workers::list(h.values.iter().map(|v| quote(v)));
            let (long, from) = (quote(h.long), quote(h.from));
            format!("{{\"option\":{long},\"values\":{values},\"from\":{from}}}")
        };
        return format!(
            "{{\"options\":{},\"command\":{}}}\n",
            super::workers::list(all.iter().map(one)),
            super::workers::list(command.iter().map(|w| quote(w)))
        );
    }
    let mut rows = Vec::new();
    for h in all {
        for v in &h.values {
            let flag = format!("--{} {v}", h.long);
            rows.push([super::logfmt::printable(&flag, false), h.from.to_string()]);
        }
    }
    format!("{}-- {}\n", table(&rows), super::workers::typed(command))
}

/// One at a console.
#[derive(Clone, Copy)]
pub struct Console {
    /// The number of its connection.
    pub id: u64,
    /// Whose it is, and of which user, if it comes by the socket;
    pub by: Option<(i32, u32)>,
    /// else from where it comes, over TCP.
    pub from: Option<SocketAddr>,
    /// Is it who asks?
    pub you: bool,
}

/// `repl`
pub fn consoles(all: &[Console], json: bool) -> String {
    if json {
        let one = |c: &Console| {
            let Console { id, you, .. } = c;
            let number = |n: Option<i64>| n.map_or("null".into(), |n| n.to_string());
            let pid = number(c.by.map(|(pid, _)| pid.into()));
            let uid = number(c.by.map(|(_, uid)| uid.into()));
            let from = c.from.map_or("null".into(), |a| format!("\"{a}\""));
            format!("{{\"id\":{id},\"pid\":{pid},\"uid\":{uid},\"from\":{from},\"you\":{you}}}")
        };
        return format!("{}\n", super::workers::list(all.iter().map(one)));
    }
    let one = |c: &Console| {
        let you = if c.you { ", you" } else { "" };
        let whose = match (c.by, c.from) {
            (Some((pid, uid)), _) => format!(" pid {pid} of uid {uid}"),
            (None, Some(from)) => format!(" over TCP from {from}"),
            (None, None) => String::new(),
        };
        format!("console {}{whose}{you}\n", c.id)
    };
    let each: String = all.iter().map(one).collect();
    format!("{}\n{each}", count(all.len(), "console"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json;
    use crate::wire::workers::tests::rows;

    #[test]
    fn connections_end_with_the_consoles() {
        let c = Connections {
            workers: rows(),
            waiting: 2,
            others: 1,
            consoles: 1,
        };
        assert_eq!(
            connections(&c, false),
            "SLOT  PID   OPEN  SILENT  OLDEST\n0     4711  2     1.5s    1m\n10    5     -     -       -\nwaiting 2\nothers 1\nconsoles 1\n"
        );
        let v = json::parse(connections(&c, true).trim_end()).unwrap();
        assert_eq!(v["workers"][0]["open"].get::<f64>(), Some(&2.0));
        assert!(v["workers"][1]["open"].is_null());
    }

    #[test]
    fn options_and_consoles() {
        let held = |long, values: &[&str], from| Held {
            long,
            values: values.iter().map(|v| v.to_string()).collect(),
            from,
        };
        let all = [
            held("workers", &["4"], "typed"),
            held("port", &["80", "81"], "config"),
        ];
        let command = ["./server".to_string(), "a b".into()];
        assert_eq!(
            options(&all, &command, false),
            "--workers 4  typed\n--port 80    config\n--port 81    config\n-- ./server 'a b'\n"
        );
        let v = json::parse(options(&all, &command, true).trim_end()).unwrap();
        assert_eq!(v["options"][1]["values"][1].get::<String>().unwrap(), "81");
        let one = Console {
            id: 3,
            by: Some((9, 0)),
            from: None,
            you: true,
        };
        let far = Console {
            id: 4,
            by: None,
            from: Some("127.0.0.1:77".parse().unwrap()),
            you: false,
        };
        assert_eq!(
            consoles(&[one, far], false),
            "2 consoles\nconsole 3 pid 9 of uid 0, you\nconsole 4 over TCP from 127.0.0.1:77\n"
        );
        let v = json::parse(consoles(&[far], true).trim_end()).unwrap();
        assert!(v[0]["uid"].is_null());
        assert_eq!(v[0]["from"].get::<String>().unwrap(), "127.0.0.1:77");
    }
}
