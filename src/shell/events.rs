//! The stream of events: all that is said, by core or by the shell, in the order in which it is said.
//! It goes to the log, as far as that is as loud, and whole to whoever follows: consoles, clients,
//! streams over HTTP. The last ones are kept for those who come later. One who does not keep up is
//! told how many it has missed; nobody is waited for.

use super::Shell;
use super::clients::{ClientId, Clients};
use crate::core::fields::Value;
use crate::core::{By, Level};
use crate::wire::logfmt::Line;
use crate::wire::stream::{How, rendered};
use std::borrow::Cow;
use std::collections::VecDeque;

/// So many are kept,
const RECENT: usize = 128;
/// unless their sentences are longer than that together.
const RECENT_BYTES: usize = 32 * 1024;

/// The last events.
#[derive(Default)]
pub struct Events {
    last: u64,
    recent: VecDeque<(u64, Line)>,
    bytes: usize,
}

/// What it takes to keep it, about.
fn weight(line: &Line) -> usize {
    let of = |(_, v): &(&str, Value)| match v {
        Value::Number(v) | Value::Text(v) | Value::Json(v) => v.len(),
    };
    line.message.len() + line.fields.iter().map(of).sum::<usize>()
}

impl Events {
    /// Numbers it, and keeps it while there is room.
    fn add(&mut self, line: Line) -> u64 {
        self.last += 1;
        self.bytes += weight(&line);
        self.recent.push_back((self.last, line));
        while self.recent.len() > RECENT || self.bytes > RECENT_BYTES {
            let Some((_, old)) = self.recent.pop_front() else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(weight(&old));
        }
        self.last
    }

    /// Those that are kept, after that one; and how many after it are not kept any more.
    pub fn since(&self, id: u64, how: How) -> (u64, Vec<String>) {
        let first = self.recent.front().map_or(self.last + 1, |(n, _)| *n);
        let after = self.recent.iter().filter(|(n, _)| *n > id);
        let all = after.map(|(n, line)| rendered(line, *n, how)).collect();
        (first.saturating_sub(id + 1), all)
    }
}

impl Shell {
    /// It is said: in the log, and to all who follow.
    pub(super) fn publish(&mut self, line: Line) {
        self.log.write(&line);
        self.watch_log();
        deliver(&mut self.clients, &line, self.events.last + 1);
        let told = self.for_hooks(&line);
        self.events.add(line);
        // Last: something may have to be said of it.
        self.tell_hooks(told);
    }

    /// Does anybody hear what is no louder than this?
    pub(super) fn hears(&self, level: Level) -> bool {
        self.log.hears(level) || !self.clients.followers().is_empty()
    }

    /// It is said, and not kept for those who come later: what workers say may be so much that there
    /// would be room for nothing else.
    pub(super) fn pass_on(&mut self, line: Line) {
        self.events.last += 1;
        self.log.write(&line);
        self.watch_log();
        deliver(&mut self.clients, &line, self.events.last);
    }

    /// Says something of our own.
    pub(super) fn say(&mut self, level: Level, event: &'static str, message: String) {
        let line = self.log.own(level, event, Vec::new(), message);
        self.publish(line);
    }

    pub(super) fn say_once(&mut self, level: Level, event: &'static str, message: String) {
        if self.said.insert(event) {
            self.say(level, event, message);
        }
    }

    /// What somebody else has to say, by what name they like.
    pub(super) fn say_for_client(
        &mut self,
        level: Level,
        event: impl Into<Cow<'static, str>>,
        mut fields: Vec<(&'static str, Value)>,
        message: String,
        by: By,
    ) {
        fields.push(("by_pid", Value::Number(by.pid.to_string())));
        fields.push(("by_uid", Value::Number(by.uid.to_string())));
        let line = self.log.own(level, event, fields, message);
        self.publish(line);
    }

    /// From here on this one is told all there is. False: too many follow.
    pub(super) fn follow(&mut self, id: ClientId, how: How) -> bool {
        let may = self.clients.may_follow(id);
        if may {
            self.clients.follows(id, Some(how));
        }
        may
    }
}

fn deliver(clients: &mut Clients, line: &Line, id: u64) {
    for (client, how) in clients.followers() {
        clients.tell(client, &rendered(line, id, how), line.at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    fn line(message: String) -> Line {
        Line {
            at: clock::wall(),
            offset: 0,
            level: Level::Info,
            event: "debug".into(),
            fields: Vec::new(),
            message,
        }
    }

    #[test]
    fn the_last_ones_are_kept_within_limits_and_who_asks_hears_how_many_are_not() {
        let mut e = Events::default();
        for n in 0..1000 {
            e.add(line(n.to_string()));
        }
        let (missed, all) = e.since(0, How::Json);
        assert_eq!((missed, all.len()), (1000 - RECENT as u64, RECENT));
        let (missed, all) = e.since(999, How::Json);
        assert_eq!((missed, all.len()), (0, 1));
        assert!(all[0].contains("\"id\":1000,"), "{all:?}");
        assert_eq!(e.since(1000, How::Json), (0, Vec::new()));
        // A number of another master's life: nothing is claimed to be missing.
        assert_eq!(e.since(5000, How::Json), (0, Vec::new()));
        for _ in 0..100 {
            e.add(line("x".repeat(10_000)));
        }
        assert!(e.bytes <= RECENT_BYTES && e.recent.len() < 5);
        e.add(line("x".repeat(100_000)));
        assert_eq!((e.bytes, e.recent.len()), (0, 0));
    }
}
