//! The master's stderr, read as it comes: lines that are ours are events, the rest is what workers
//! wrote.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::ChildStderr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tinyjson::JsonValue;

/// One event of the master's log.
#[derive(Clone, Debug)]
pub struct Event {
    pub name: String,
    pub level: String,
    pub msg: String,
    fields: HashMap<String, JsonValue>,
}

impl Event {
    fn parse(line: &str) -> Option<Event> {
        let value = line.parse::<JsonValue>().ok()?;
        let fields = value.get::<HashMap<String, JsonValue>>()?;
        let text = |key: &str| fields.get(key)?.get::<String>().cloned();
        Some(Event {
            name: text("event")?,
            level: text("level")?,
            msg: text("msg")?,
            fields: fields.clone(),
        })
    }

    /// A field that is text.
    pub fn text(&self, key: &str) -> &str {
        let value = self.fields.get(key).and_then(|v| v.get::<String>());
        value.unwrap_or_else(|| panic!("no text {key} in {self:?}"))
    }

    /// Has it a field of that name?
    pub fn has(&self, key: &str) -> bool {
        self.fields.contains_key(key)
    }

    /// A field that is a number.
    pub fn number(&self, key: &str) -> f64 {
        let value = self.fields.get(key).and_then(|v| v.get::<f64>());
        *value.unwrap_or_else(|| panic!("no number {key} in {self:?}"))
    }

    pub fn pid(&self) -> i32 {
        self.number("pid") as i32
    }

    pub fn slot(&self) -> u16 {
        self.number("slot") as u16
    }

    pub fn addr(&self) -> SocketAddr {
        self.text("addr").parse().unwrap()
    }

    /// Is it something to worry about?
    pub fn is_loud(&self) -> bool {
        self.level == "warn" || self.level == "error"
    }
}

/// A line of the master's stderr.
#[derive(Clone, Debug)]
pub enum Line {
    /// It is the master's.
    Ours(Event),
    /// A worker wrote it.
    Theirs(String),
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    pub all: Vec<Line>,
    /// Nobody has the other end any more.
    pub closed: bool,
    /// Behind a line that begins so nothing is read.
    pub hold: Option<String>,
}

impl Lines {
    /// The events of this name.
    pub fn named(&self, name: &str) -> Vec<Event> {
        let hit = |line: &Line| match line {
            Line::Ours(e) if e.name == name => Some(e.clone()),
            Line::Ours(_) | Line::Theirs(_) => None,
        };
        self.all.iter().filter_map(hit).collect()
    }

    /// What workers wrote.
    pub fn theirs(&self) -> Vec<String> {
        let hit = |line: &Line| match line {
            Line::Theirs(text) => Some(text.clone()),
            Line::Ours(_) => None,
        };
        self.all.iter().filter_map(hit).collect()
    }
}

/// The lines, shared with the thread that reads them.
#[derive(Debug, Default)]
pub struct Log {
    lines: Mutex<Lines>,
    more: Condvar,
}

impl Log {
    /// A story that failed in another thread still wants its log.
    pub fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads to the end.
    pub fn read(&self, stderr: ChildStderr) {
        let mut reader = BufReader::new(stderr);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
            let text = String::from_utf8_lossy(&bytes);
            let text = text.trim_end_matches('\n');
            let line = match Event::parse(text) {
                Some(event) => Line::Ours(event),
                None => Line::Theirs(text.to_string()),
            };
            let mut lines = self.lock();
            lines.all.push(line);
            self.more.notify_all();
            while lines.hold.as_ref().is_some_and(|h| text.starts_with(h)) {
                let woken = self.more.wait(lines);
                lines = woken.unwrap_or_else(PoisonError::into_inner);
            }
            drop(lines);
            bytes.clear();
        }
        self.lock().closed = true;
        self.more.notify_all();
    }

    /// Looks at all lines whenever there are new ones, until it finds something.
    pub fn look<T>(
        &self,
        what: &str,
        deadline: Instant,
        mut find: impl FnMut(&Lines) -> Option<T>,
    ) -> T {
        let mut lines = self.lock();
        loop {
            if let Some(hit) = find(&lines) {
                return hit;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || lines.closed {
                drop(lines);
                panic!("waited in vain for {what}");
            }
            let woken = self.more.wait_timeout(lines, left);
            lines = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Reads nothing behind a line that begins so, or (None) goes on reading.
    pub fn hold(&self, head: Option<&str>) {
        self.lock().hold = head.map(String::from);
        self.more.notify_all();
    }

    /// All of it, for whoever has to find out why a story failed.
    pub fn dump(&self) {
        for line in &self.lock().all {
            match line {
                Line::Ours(e) => eprintln!("{:5} {:16} {}", e.level, e.name, e.msg),
                Line::Theirs(text) => eprintln!("  |   {text}"),
            }
        }
    }
}
