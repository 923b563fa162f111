//! The verbs that look: answered here, from a snapshot of core and readings of /proc and of the
//! kernel's list of sockets. Nothing changes by them.

use super::Shell;
use super::clients::ClientId;
use super::observer::Observer;
use super::requests::Answer;
use crate::core::codes::{EX_USAGE, FAILED};
use crate::core::status::SlotView;
use crate::core::words::reason;
use crate::core::{Snapshot, WorkerId};
use crate::options::effective;
use crate::settings::Control;
use crate::sys::procfs;
use crate::verbs;
use crate::wire::fields;
use crate::wire::json::quote;
use crate::wire::outcome::refusal;
use crate::wire::report::{self, Master};
use crate::wire::untouched;
use crate::wire::views::{self, Connections, Console, Held, Totals};
use crate::wire::workers::{self, Row};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;

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

/// Who has which connections.
struct Open {
    of: BTreeMap<WorkerId, u64>,
    /// Of these it cannot be seen.
    unseen: BTreeSet<WorkerId>,
    waiting: u64,
    others: u64,
    all: u64,
}

impl Shell {
    pub(super) fn status(&self, json: bool) -> Answer {
        let s = self.cluster.status(self.now());
        let usage = s
            .slots
            .iter()
            .map(|v| procfs::tree_usage(v.pid?.0))
            .collect();
        let m = Master {
            says: s.slots.iter().map(|v| self.status_of(v.pid)).collect(),
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
            "open" => Read::All,
            _ => Read::Little,
        });
        (0, fields::select(&rows, field, json))
    }

    /// Those that have a process.
    fn rows(&mut self, read: Read) -> Vec<Row> {
        let open = match read {
            Read::All => self.open_connections().ok(),
            Read::Little | Read::Usage => None,
        };
        let s = self.cluster.status(self.now());
        let alive = s.slots.into_iter().filter(|v| v.pid.is_some());
        alive.map(|view| self.row(view, read, &open)).collect()
    }

    fn row(&self, view: SlotView, read: Read, open: &Option<Open>) -> Row {
        let usage = view.pid.filter(|_| read != Read::Little);
        let own = self.programs.of(view.program).map(|m| &m.command);
        let around = self.surroundings(view.generation);
        let words = around.argv(own.unwrap_or(&around.settings.command), view.slot);
        let word = |w: &std::ffi::CString| w.to_string_lossy().into_owned();
        let worker = view.pid.and_then(|p| self.procs.by_pid(p.0));
        Row {
            usage: usage.and_then(|p| procfs::tree_usage(p.0)),
            open: worker.and_then(|w| open.as_ref()?.of_worker(w)),
            served: worker.and_then(|w| self.served.of(w)),
            says: self.status_of(view.pid),
            command: words.iter().map(word).collect(),
            view,
        }
    }

    /// What all of it uses.
    pub(super) fn info(&mut self, json: bool) -> Answer {
        let open = self.open_connections().ok();
        let s = self.cluster.status(self.now());
        let pids: Vec<i32> = s.slots.iter().filter_map(|v| Some(v.pid?.0)).collect();
        let usage = pids.iter().filter_map(|p| procfs::tree_usage(*p));
        let ids = || pids.iter().filter_map(|p| self.procs.by_pid(*p));
        let served: Option<Vec<u64>> = ids().map(|w| self.served.of(w)).collect();
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let t = Totals {
            master: procfs::usage(own),
            workers: usage.fold((0, 0), |(a, b), (c, d)| (a + c, b + d)),
            open: open.map(|o| o.all),
            served: served
                .filter(|all| !all.is_empty())
                .map(|all| all.iter().sum()),
            active: pids.len(),
        };
        let text = views::info(&s, &t, &self.claim.name, std::process::id(), json);
        (0, text)
    }

    /// Who has how many connections.
    pub(super) fn connections(&mut self, json: bool) -> Answer {
        let open = match self.open_connections() {
            Ok(open) => open,
            Err(e) => {
                let why = format!(
                    "cannot see the workers' connections (sock_diag: {})\n",
                    reason(&e)
                );
                return (FAILED, refusal(&why, json));
            }
        };
        let s = self.cluster.status(self.now());
        let one = |v: &SlotView| {
            let pid = v.pid?.0;
            let worker = self.procs.by_pid(pid)?;
            Some((v.slot.0, pid, open.of_worker(worker)))
        };
        let c = Connections {
            workers: s.slots.iter().filter_map(one).collect(),
            waiting: open.waiting,
            others: open.others,
            consoles: self.clients.consoles().len(),
        };
        (0, views::connections(&c, json))
    }

    /// Those that there are at this moment. An observer of its own: those who drain, or look who hangs,
    /// have theirs.
    fn open_connections(&mut self) -> io::Result<Open> {
        let ports = self.sockets.numbers();
        let tcp = Observer::default().connections(&ports)?;
        let tcp = self.without_ours(tcp);
        let waiting = tcp.iter().filter(|c| untouched::waits(c)).count();
        let held = self.held(tcp)?;
        let inodes: BTreeSet<u64> = held.iter().map(|h| h.inode).collect();
        let all: Vec<WorkerId> = self.procs.map.keys().copied().collect();
        let owners = match procfs::is_ours() {
            true => self.owners(&all, &inodes),
            false => Default::default(),
        };
        let mut of: BTreeMap<WorkerId, u64> = BTreeMap::new();
        for list in owners.of.values() {
            // One that several workers have is that of each of them.
            let its: BTreeSet<WorkerId> = list.iter().map(|o| o.worker).collect();
            for worker in its {
                *of.entry(worker).or_default() += 1;
            }
        }
        let blind = owners.cut || !procfs::is_ours();
        Ok(Open {
            of,
            unseen: match blind {
                true => all.into_iter().collect(),
                false => owners.unseen,
            },
            waiting: waiting as u64,
            others: (inodes.len() - owners.of.len()) as u64,
            all: (inodes.len() + waiting) as u64,
        })
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
        }
    }
}

impl Open {
    /// Of this one, if that can be seen.
    fn of_worker(&self, worker: WorkerId) -> Option<u64> {
        match self.unseen.contains(&worker) {
            true => None,
            false => Some(self.of.get(&worker).copied().unwrap_or(0)),
        }
    }
}
