//! The stream of events: all that is said, by core or by the shell, in the order in which it is said.
//! It goes to the log, as far as that is as loud, and whole to whoever follows: consoles, clients,
//! streams over HTTP. The last ones are kept for those who come later. One who does not keep up is
//! told how many it has missed; nobody is waited for.

use super::Shell;
use super::clients::{ClientId, Clients};
use crate::core::carry::kept_keys;
use crate::core::fields::Value;
use crate::core::{By, Level};
use crate::wire::logfmt::Line;
use crate::wire::sse::Mark;
use crate::wire::stream::{self, How, Told};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};

/// So many are kept,
const RECENT: usize = 128;
/// unless their sentences are longer than that together.
const RECENT_BYTES: usize = 16 * 1024;
/// As what those are counted whose names are not ours.
const CUSTOM: &str = "custom";

/// The last events. Their bytes lie one behind the other in one place: as many small pieces, between all
/// that comes and goes meanwhile, they would keep much more of the heap than they are.
#[derive(Default, Serialize, Deserialize)]
pub struct Events {
    /// When this master began, in milliseconds.
    life: u64,
    last: u64,
    recent: VecDeque<Kept>,
    /// How many there have been, by name; those whose names others choose together.
    #[serde(deserialize_with = "kept_keys")]
    counts: BTreeMap<&'static str, u64>,
    #[serde(with = "crate::shell::carry")]
    bytes: VecDeque<u8>,
}

/// Where one is.
#[derive(Serialize, Deserialize)]
struct Kept {
    id: u64,
    #[serde(deserialize_with = "text")]
    event: Cow<'static, str>,
    /// Bytes of its text and of its JSON.
    parts: [usize; 2],
}

/// A name, whoever has chosen it.
fn text<'de, D: Deserializer<'de>>(from: D) -> Result<Cow<'static, str>, D::Error> {
    String::deserialize(from).map(Cow::Owned)
}

impl Kept {
    fn bytes(&self) -> usize {
        self.parts.iter().sum()
    }
}

impl Events {
    /// At that moment, as the clock tells it: in seconds and microseconds.
    pub fn begun((secs, micros): (u64, u32)) -> Events {
        Events {
            life: secs
                .saturating_mul(1_000)
                .saturating_add(u64::from(micros / 1_000)),
            ..Events::default()
        }
    }

    /// The next one, with its number.
    fn next(&mut self, line: &Line) -> Told {
        self.last += 1;
        let name = match line.event {
            Cow::Borrowed(name) => name,
            Cow::Owned(_) => CUSTOM,
        };
        *self.counts.entry(name).or_default() += 1;
        Told::of(line, self.life, self.last)
    }

    /// How many there have been of each.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    /// Keeps it while there is room.
    fn keep(&mut self, told: &Told) {
        let parts = told.parts();
        self.recent.push_back(Kept {
            id: told.id,
            event: told.event(),
            parts: parts.map(str::len),
        });
        let new: usize = parts.iter().map(|p| p.len()).sum();
        // Before it is there, so that it never takes more.
        while self.recent.len() > RECENT || self.bytes.len() + new > RECENT_BYTES {
            match self.recent.pop_front() {
                // Alone it is too long.
                Some(old) if old.id == told.id => return,
                Some(old) => {
                    let bytes = old.bytes().min(self.bytes.len());
                    self.bytes.drain(..bytes);
                }
                None => return,
            }
        }
        for part in parts {
            self.bytes.extend(part.as_bytes());
        }
    }

    /// What one who comes back has missed, and those that are kept after what it has seen.
    pub fn after(&self, seen: Option<Mark>, at: (u64, u32)) -> String {
        let here = |m: &Mark| m.life.is_none_or(|l| l == self.life) && m.number <= self.last;
        let from = seen.filter(here).map_or(0, |m| m.number);
        let (missed, kept) = self.since(from, How::Sse);
        let told = match seen {
            Some(mark) if !here(&mark) => stream::missed_a_life(missed, at, How::Sse),
            Some(_) if missed > 0 => stream::missed(missed, at, How::Sse),
            Some(_) | None => String::new(),
        };
        told + &kept.concat()
    }

    /// Those that are kept, after that one; and how many after it are not kept, or not any more.
    pub fn since(&self, id: u64, how: How) -> (u64, Vec<String>) {
        let mut bytes = self.bytes.iter().copied();
        let mut all = Vec::new();
        for kept in &self.recent {
            let parts = kept.parts.map(|n| {
                let part: Vec<u8> = bytes.by_ref().take(n).collect();
                String::from_utf8_lossy(&part).into_owned()
            });
            if kept.id > id {
                let told = Told::kept(self.life, kept.id, kept.event.clone(), parts);
                all.push(told.rendered(how));
            }
        }
        let after = self.last.saturating_sub(id);
        (after.saturating_sub(all.len() as u64), all)
    }
}

impl Shell {
    /// It is said: in the log, and to all who follow.
    pub(super) fn publish(&mut self, line: Line) {
        self.log.write(&line);
        self.watch_log();
        self.announce(&line);
    }

    /// To all who follow, and to those who come later.
    fn announce(&mut self, line: &Line) {
        let told = self.events.next(line);
        deliver(&mut self.clients, &told, line.at);
        self.events.keep(&told);
        // Last: something may have to be said of it.
        let told = self.for_hooks(line);
        self.tell_hooks(told);
    }

    /// Who types is told of it, whether they follow what happens or not; but for one, who hears in another way.
    pub(super) fn tell_who_types(&mut self, line: &Line, but: Option<ClientId>) {
        let told = Told::of(line, self.events.life, 0);
        for (id, _) in self.clients.consoles() {
            if Some(id) == but || self.clients.is_following(id) {
                continue;
            }
            let how = match self.clients.is_console(id) {
                true => How::Framed { json: false },
                false => How::Text,
            };
            self.clients.tell(id, &told.rendered(how), line.at);
        }
    }

    /// What the log has said of itself, of lines that it lost, is an event like any other. It stands in the log
    /// already, and must not be written there again: that could lose lines, of which there would be something
    /// to say.
    pub(super) fn announce_lost(&mut self) {
        for line in self.log.take_untold() {
            self.announce(&line);
        }
    }

    /// Does anybody hear what is no louder than this?
    pub(super) fn hears(&self, level: Level) -> bool {
        self.log.hears(level) || !self.clients.followers().is_empty()
    }

    /// It is said, and not kept for those who come later: what workers say may be so much that there
    /// would be room for nothing else.
    pub(super) fn pass_on(&mut self, line: Line) {
        self.log.write(&line);
        self.watch_log();
        let told = self.events.next(&line);
        deliver(&mut self.clients, &told, line.at);
    }

    /// Says something of our own.
    pub(super) fn say(&mut self, level: Level, event: &'static str, message: String) {
        let line = self.log.own(level, event, Vec::new(), message);
        self.publish(line);
    }

    /// Says something of a program of the operator's.
    pub(super) fn say_of_program(
        &mut self,
        level: Level,
        event: &'static str,
        program: &str,
        message: String,
    ) {
        let fields = vec![("program", Value::Text(program.to_string()))];
        let line = self.log.own(level, event, fields, message);
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
        if let Some(by) = by.known() {
            fields.push(("by_pid", Value::Number(by.pid.to_string())));
            fields.push(("by_uid", Value::Number(by.uid.to_string())));
        }
        let line = self.log.own(level, event, fields, message);
        self.publish(line);
    }

    /// From here on this one is told all there is, also if it says no more, should it stay for that. False:
    /// too many follow.
    pub(super) fn follow(&mut self, id: ClientId, how: How, stays: bool) -> bool {
        let may = self.clients.may_follow(id);
        if may {
            self.clients.follows(id, Some(how), stays);
        }
        may
    }
}

fn deliver(clients: &mut Clients, told: &Told, at: (u64, u32)) {
    for (client, how) in clients.followers() {
        clients.tell(client, &told.rendered(how), at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    #[test]
    fn who_comes_back_from_the_life_of_another_master_has_all_that_this_one_knows() {
        let mut e = Events::begun((7, 5_000));
        for n in 1..=3 {
            add(&mut e, format!("this is {n}"));
        }
        let after = |life, number| e.after(Some(Mark { life, number }), (0, 0));
        for (seen, missed, first) in [
            (after(Some(7_005), 2), false, 3),
            (after(None, 2), false, 3),
            (after(Some(7_005), 3), false, 4),
            (after(Some(7_004), 2), true, 1),
            (after(Some(6_000), 17), true, 1),
            (after(None, 17), true, 1),
            (e.after(None, (0, 0)), false, 1),
        ] {
            assert_eq!(seen.contains("has begun anew"), missed, "{seen}");
            for n in 1..=3 {
                let here = seen.contains(&format!("id: 7005-{n}\n"));
                assert_eq!(here, n >= first, "{seen}");
            }
        }
    }

    fn add(e: &mut Events, message: String) {
        let line = Line {
            at: clock::wall(),
            offset: 0,
            level: Level::Info,
            event: "debug".into(),
            fields: Vec::new(),
            message,
        };
        let told = e.next(&line);
        e.keep(&told);
    }

    #[test]
    fn the_last_ones_are_kept_within_limits_and_who_asks_hears_how_many_are_not() {
        let mut e = Events::default();
        for n in 0..1000 {
            add(&mut e, n.to_string());
        }
        let (missed, all) = e.since(0, How::Json);
        assert_eq!(missed + all.len() as u64, 1000);
        assert!((100..=RECENT).contains(&all.len()), "{}", all.len());
        let (missed, all) = e.since(999, How::Json);
        assert_eq!((missed, all.len()), (0, 1));
        assert!(all[0].contains("\"id\":1000,"), "{all:?}");
        assert_eq!(e.since(1000, How::Json), (0, Vec::new()));
        // What was never kept is missed, too.
        e.last += 3;
        add(&mut e, "last".into());
        let (missed, all) = e.since(1000, How::Json);
        assert_eq!((missed, all.len()), (3, 1));
        for _ in 0..100 {
            add(&mut e, "x".repeat(5_000));
        }
        assert!(e.bytes.len() <= RECENT_BYTES && e.recent.len() < 5);
        add(&mut e, "x".repeat(100_000));
        assert_eq!((e.bytes.len(), e.recent.len()), (0, 0));
        add(&mut e, "one".into());
        let (_, all) = e.since(0, How::Text);
        assert!(
            all.len() == 1 && all[0].ends_with("minicluster: one\n"),
            "{all:?}"
        );
    }
}
