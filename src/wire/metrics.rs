//! What `GET /metrics` says, in the text format of Prometheus, 0.0.4: one table (`table`) has every family,
//! and says where its values come from. A family that nothing is known of is left out.
//!
//! A worker is called by its slot, never by its pid: whatever is graphed by a pid begins anew with each
//! respawn, and is kept for ever.

mod table;

use super::http::Status;
use super::http::response::Response;
use super::traffic::Tally;
use crate::core::counts::Counts;
use crate::core::{SlotNr, Snapshot};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

pub use table::FAMILIES;

/// The format, with its version.
pub const TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the page is made of: what core knows, and what the shell has read.
pub struct Reading<'a> {
    /// The cluster's name.
    pub name: &'a str,
    pub cluster: Snapshot,
    pub counts: &'a Counts,
    /// As many have to be ready.
    pub quorum: u16,
    /// The time on the clock of the machine, in microseconds since 1970.
    pub now: u64,
    /// By slot: CPU time in microseconds, of all workers that it has had.
    pub cpu: BTreeMap<SlotNr, u64>,
    /// By slot: what its workers use now.
    pub usage: BTreeMap<SlotNr, Usage>,
    pub queues: &'a [Queue],
    /// By slot: how many connections its workers have open, where that can be seen.
    pub connections: BTreeMap<SlotNr, u64>,
    /// Those that have ended, if that is counted,
    pub ended: Option<Ended>,
    /// and by slot those that were ended because they were silent, if that is asked for.
    pub timeouts: Option<BTreeMap<SlotNr, u64>>,
    /// Those who speak to us: at the control socket (or its port), at --monitor,
    pub clients: (u64, u64),
    /// and those of them who follow the events.
    pub followers: u64,
    pub events: &'a BTreeMap<&'static str, u64>,
    pub lines_lost: u64,
    /// Of what workers write, if that is kept.
    pub output_lost: Option<u64>,
    /// How long it took to read what is not core's, in microseconds.
    pub took: u64,
    pub own: Own,
}

/// What the workers of one slot use, with all that they have started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub resident: u64,
    pub processes: u64,
    pub threads: u64,
}

impl Usage {
    /// With that of another worker of the slot.
    pub fn join(self, other: Usage) -> Usage {
        Usage {
            resident: self.resident.saturating_add(other.resident),
            processes: self.processes.saturating_add(other.processes),
            threads: self.threads.saturating_add(other.threads),
        }
    }
}

/// Connections that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Is it known of each whose it was? Else a slot that has none may have had some.
    pub told_apart: bool,
    pub of_slots: BTreeMap<SlotNr, Tally>,
    /// Those of which it is not known whose they were.
    pub nobodys: Tally,
    /// Of so many it could not be heard.
    pub missed: u64,
}

/// An accept queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    pub port: String,
    /// Whose it is, if it is that of one slot.
    pub slot: Option<SlotNr>,
    pub length: u64,
    pub limit: u64,
}

/// The master itself. What could not be read is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own {
    /// In microseconds.
    pub cpu: Option<u64>,
    pub resident: Option<u64>,
    pub size: Option<u64>,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
    /// In microseconds since 1970.
    pub started: u64,
}

/// Goes it up and down, or up alone?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    Counter,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        }
    }
}

/// One row of the table.
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    /// One line; the manual says more.
    pub help: &'static str,
    samples: fn(&Reading<'_>, &mut Samples<'_>),
}

/// The value of a label.
#[derive(Clone, Copy, Debug)]
enum Label<'a> {
    Text(&'a str),
    Slot(SlotNr),
}

/// Of one family, as they are written.
struct Samples<'a> {
    family: &'a Family,
    /// Has it any?
    begun: bool,
    out: &'a mut String,
}

impl Samples<'_> {
    fn line(&mut self, labels: &[Label<'_>], value: fmt::Arguments<'_>) {
        let Family {
            name,
            kind,
            labels: names,
            help,
            ..
        } = self.family;
        debug_assert_eq!(labels.len(), names.len(), "{name}");
        let kind = kind.word();
        // Writing into a string does not fail.
        if !std::mem::replace(&mut self.begun, true) {
            let _ = write!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        }
        self.out.push_str(name);
        for (nth, (label, value)) in names.iter().zip(labels).enumerate() {
            self.out.push(if nth == 0 { '{' } else { ',' });
            self.out.extend([label, "=\""]);
            match value {
                Label::Text(text) => escape(text, self.out),
                Label::Slot(nr) => {
                    let _ = write!(self.out, "{nr}");
                }
            }
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    /// So many.
    fn number(&mut self, labels: &[Label<'_>], n: u64) {
        self.line(labels, format_args!("{n}"));
    }

    /// Is it so? 1 or 0.
    fn truth(&mut self, labels: &[Label<'_>], so: bool) {
        self.number(labels, so.into());
    }

    /// Microseconds, in seconds.
    fn seconds(&mut self, labels: &[Label<'_>], micros: u64) {
        let (whole, rest) = (micros / 1_000_000, micros % 1_000_000);
        self.line(labels, format_args!("{whole}.{rest:06}"));
    }
}

/// A value between quotes is one line, and has no quote in it.
fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// The whole page.
pub fn page(reading: &Reading<'_>) -> String {
    let mut out = String::new();
    for family in FAMILIES {
        let begun = false;
        let samples = &mut Samples {
            family,
            begun,
            out: &mut out,
        };
        (family.samples)(reading, samples);
    }
    out
}

/// As an answer.
pub fn answer(reading: &Reading<'_>) -> Response {
    Response::new(Status::OK, TYPE, page(reading))
}

#[cfg(test)]
mod tests;
