//! The verbs that look: answered here, from a snapshot of core and readings of /proc and of the
//! kernel's list of sockets. Nothing changes by them.

use super::Shell;
use super::clients::ClientId;
use super::open::Theirs;
use super::requests::Answer;
use crate::core::Snapshot;
use crate::core::codes::{EX_USAGE, FAILED};
use crate::core::status::SlotView;
use crate::core::words::reason;
use crate::options::effective;
use crate::settings::Control;
use crate::sys::procfs;
use crate::verbs;
use crate::wire::fields;
use crate::wire::json::quote;
use crate::wire::outcome::refusal;
use crate::wire::report::{self, Master};
use crate::wire::views::{self, Connections, Console, Held, Totals};
use crate::wire::workers::{self, Row};
use std::ffi::OsString;

/// What is read for the rows of workers beside what core knows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    /// Nothing.
    Little,
    /// Memory and time,
    Usage,
    /// and connections.
    All,
}

impl Shell {
    pub(super) fn status(&mut self, json: bool) -> Answer {
        let (seen, _) = self.traffic();
        let queues = match json {
            true => self.read_queues(),
            false => Vec::new(),
        };
        let s = self.cluster.status(self.now());
        let usage = s.slots.iter().map(|v| self.usage_of(v, &seen)).collect();
        let word = |w: &OsString| w.to_string_lossy().into_owned();
        let previous = self.programs.previous(self.settings());
        let m = Master {
            queues,
            own: procfs::usage(own_pid()),
            command: self.settings().command.iter().map(word).collect(),
            previous: previous.map(|c| c.iter().map(word).collect()),
            says: s.slots.iter().map(|v| self.status_of(v.pid)).collect(),
            traffic: s.slots.iter().map(|v| self.of_slot(v, &seen)).collect(),
            ..self.master(usage)
        };
        match json {
            true => (0, report::status_json(&s, &m)),
            false => (0, report::status_text(&s, &m)),
        }
    }

    /// The line about the cluster.
    pub(super) fn cluster_text(&self) -> String {
        let s = self.cluster.status(self.now());
        report::cluster_text(&s, &self.master(Vec::new()))
    }

    pub(super) fn workers(&mut self, word: Option<&str>, json: bool) -> Answer {
        let details = match verbs::details(word) {
            Ok(true) => Read::All,
            Ok(false) => Read::Little,
            Err(e) => return (EX_USAGE, format!("{e}\n")),
        };
        let rows = self.rows(details);
        let text = match (details, json) {
            (Read::Little | Read::Usage, false) => workers::simple_text(&rows),
            (Read::Little | Read::Usage, true) => workers::simple_json(&rows),
            (Read::All, false) => workers::details_text(&rows),
            (Read::All, true) => workers::details_json(&rows),
        };
        (0, text)
    }

    /// One field of each worker.
    pub(super) fn select(&mut self, name: &str, json: bool) -> Answer {
        let field = match fields::field(name) {
            Ok(field) => field,
            Err(e) => return (EX_USAGE, format!("{e}\n")),
        };
        let rows = self.rows(match field.name {
            "rss" | "cpu" => Read::Usage,
            "open" | "queue" | "silent" | "oldest" => Read::All,
            _ => Read::Little,
        });
        (0, fields::select(&rows, field, json))
    }

    /// Those that have a process.
    fn rows(&mut self, read: Read) -> Vec<Row> {
        let seen = match read {
            Read::All => self.traffic().0,
            Read::Usage => self.burdens(),
            Read::Little => Theirs::default(),
        };
        self.rows_of(&seen)
    }

    /// What that worker uses, if that was looked at.
    fn usage_of(&self, view: &SlotView, seen: &Theirs) -> Option<(u64, u64)> {
        seen.usage(self.procs.by_pid(view.pid?.0)?)
    }

    fn rows_of(&self, seen: &Theirs) -> Vec<Row> {
        let s = self.cluster.status(self.now());
        let alive = s.slots.into_iter().filter(|v| v.pid.is_some());
        alive.map(|view| self.row(view, seen)).collect()
    }

    fn row(&self, view: SlotView, seen: &Theirs) -> Row {
        let own = self.programs.of(view.program).map(|m| &m.command);
        let around = self.surroundings(view.generation);
        let words = around.argv(own.unwrap_or(&around.settings.command), view.slot);
        let word = |w: &std::ffi::CString| w.to_string_lossy().into_owned();
        Row {
            usage: self.usage_of(&view, seen),
            traffic: self.of_slot(&view, seen),
            says: self.status_of(view.pid),
            command: words.iter().map(word).collect(),
            view,
        }
    }

    /// What all of it uses.
    pub(super) fn info(&mut self, json: bool) -> Answer {
        let (seen, _) = self.traffic();
        let s = self.cluster.status(self.now());
        let active = s.slots.iter().filter(|v| v.pid.is_some()).count();
        let usage = s.slots.iter().filter_map(|v| self.usage_of(v, &seen));
        let sum = |(a, b): (u64, u64), (c, d)| (a.saturating_add(c), b.saturating_add(d));
        let t = Totals {
            master: procfs::usage(own_pid()),
            workers: usage.fold((0, 0), sum),
            open: seen.open().map(|o| o.all),
            served: self.served.all().map(|t| t.served),
            missed: self.served.missed(),
            active,
        };
        let text = views::info(&s, &t, &self.claim.name, std::process::id(), json);
        (0, text)
    }

    /// Who has how many connections.
    pub(super) fn connections(&mut self, json: bool) -> Answer {
        let (seen, failed) = self.traffic();
        if let Some(e) = failed {
            let why = format!(
                "cannot see the workers' connections (sock_diag: {})\n",
                reason(&e)
            );
            return (FAILED, refusal(&why, json));
        }
        let c = Connections {
            workers: self.rows_of(&seen),
            waiting: seen.open().map_or(0, |o| o.waiting),
            others: seen.open().map_or(0, |o| o.others),
            consoles: self.clients.consoles().len(),
        };
        (0, views::connections(&c, json))
    }

    /// What holds.
    pub(super) fn options(&self, json: bool) -> Answer {
        let now = self.settings();
        let held = |(long, values, from)| Held { long, values, from };
        let all: Vec<Held> = effective::effective(now).into_iter().map(held).collect();
        let word = |w: &OsString| w.to_string_lossy().into_owned();
        let command: Vec<String> = now.command.iter().map(word).collect();
        (0, views::options(&all, &command, json))
    }

    /// Who sits at a console.
    pub(super) fn repl(&self, id: ClientId, json: bool) -> Answer {
        let one = |(c, by): (ClientId, crate::core::By)| Console {
            id: c.0,
            by: by.known().map(|by| (by.pid.0, by.uid)),
            from: self.clients.ends(c).1.filter(|_| by.known().is_none()),
            you: c == id,
        };
        let all: Vec<Console> = self.clients.consoles().into_iter().map(one).collect();
        (0, views::consoles(&all, json))
    }

    /// Where we are spoken to.
    pub(super) fn sock(&self, json: bool) -> Answer {
        let path = self.claim.socket.as_ref().map(|p| p.to_string_lossy());
        match (json, path) {
            (true, path) => {
                let path = path.map_or_else(|| "null".into(), |p| quote(&p));
                (0, format!("{{\"socket\":{path}}}\n"))
            }
            (false, Some(path)) => (0, format!("{path}\n")),
            (false, None) => match self.settings().control {
                Control::Off => (0, "off\n".into()),
                Control::Port(at) => (0, format!("tcp://{at}\n")),
                Control::Named | Control::Path(_) => (0, "none\n".into()),
            },
        }
    }

    pub(super) fn why(&self, slot: Option<&str>, json: bool) -> Answer {
        let Snapshot {
            mut deaths,
            mut standing,
            ..
        } = self.cluster.status(self.now());
        if let Some(word) = slot {
            let wanted = self.cluster.bound();
            let nr = word.parse::<u16>().ok();
            // One that is not there any more may still have a story.
            let known = |n: u16| n < wanted || deaths.iter().any(|d| d.who.slot.0 == n);
            match nr.filter(|n| known(*n)) {
                Some(n) => {
                    deaths.retain(|d| d.who.slot.0 == n);
                    standing.clear();
                }
                None => {
                    let last = wanted.saturating_sub(1);
                    return (
                        EX_USAGE,
                        format!("'{word}' is not a slot from 0 to {last}\n"),
                    );
                }
            }
        }
        let m = self.master(Vec::new());
        match json {
            true => (0, report::why_json(&deaths, &m)),
            false => (0, report::why_text(&standing, &deaths, &m)),
        }
    }

    fn master(&self, usage: Vec<Option<(u64, u64)>>) -> Master<'_> {
        Master {
            name: &self.claim.name,
            pid: std::process::id(),
            now: self.now(),
            usage,
            says: Vec::new(),
            traffic: Vec::new(),
            queues: Vec::new(),
            own: None,
            command: Vec::new(),
            previous: None,
        }
    }
}

fn own_pid() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}
