//! An event as those who follow the stream have it, each in its way.

use super::json::quote;
use super::logfmt::Line;
use super::sse;
use crate::core::Level;
use crate::core::fields::Value;
use crate::core::words::count;
use crate::settings::LogFormat;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// In which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// A line for people.
    Text,
    /// A line of JSON.
    Json,
    /// A Server-Sent Event.
    Sse,
    /// Either, in a frame of our own client.
    Framed {
        /// JSON in it?
        json: bool,
    },
}

/// An event as it is told and kept: rendered once, and in little room.
pub struct Told {
    /// When this master began: its numbers are those of its life.
    life: u64,
    /// Its number.
    pub id: u64,
    event: Cow<'static, str>,
    text: Box<str>,
    json: Box<str>,
}

impl Told {
    /// That one.
    pub fn of(line: &Line, life: u64, id: u64) -> Told {
        Told {
            life,
            id,
            event: line.event.clone(),
            text: line.render(LogFormat::Text).into(),
            json: line.numbered(id).into(),
        }
    }

    /// It, with its end.
    pub fn rendered(&self, how: How) -> String {
        match how {
            How::Text => self.text.to_string(),
            How::Json => self.json.to_string(),
            How::Sse => sse::event(
                Some((self.life, self.id)),
                &self.event,
                self.json.trim_end(),
            ),
            How::Framed { json: false } => framed(&self.text),
            How::Framed { json: true } => framed(&self.json),
        }
    }

    /// To be kept: its text, and behind that its JSON.
    pub fn parts(&self) -> [&str; 2] {
        [&self.text, &self.json]
    }

    /// One that was kept.
    pub fn kept(life: u64, id: u64, event: Cow<'static, str>, [text, json]: [String; 2]) -> Told {
        Told {
            life,
            id,
            event,
            text: text.into(),
            json: json.into(),
        }
    }

    /// Its name.
    pub fn event(&self) -> Cow<'static, str> {
        self.event.clone()
    }
}

/// More of an answer that is not at its end.
pub fn framed(text: &str) -> String {
    format!("{{\"more\":{}}}\n", quote(text))
}

/// So many did not reach this one. It has no number: it is this follower's own.
pub fn missed(n: u64, at: (u64, u32), how: How) -> String {
    let events = count(usize::try_from(n).unwrap_or(usize::MAX), "event");
    told_of_missed(
        n,
        format!("{events} missed: you did not keep up, or came too late for them"),
        at,
        how,
    )
}

/// It comes back from a master that is no more, and of this one it has missed so many.
pub fn missed_a_life(n: u64, at: (u64, u32), how: How) -> String {
    let events = count(usize::try_from(n).unwrap_or(usize::MAX), "event");
    let since = match n {
        0 => String::new(),
        _ => format!(", and {events} of since then missed"),
    };
    let message = format!(
        "the master has begun anew: what was said before that is not known any more{since}"
    );
    told_of_missed(n, message, at, how)
}

fn told_of_missed(n: u64, message: String, at: (u64, u32), how: How) -> String {
    let line = Line {
        at,
        offset: 0,
        level: Level::Warn,
        event: "missed".into(),
        fields: vec![("count", Value::Number(n.to_string()))],
        message,
    };
    match how {
        How::Text => line.render(LogFormat::Text),
        How::Framed { json: false } => framed(&line.render(LogFormat::Text)),
        How::Json => line.render(LogFormat::Json),
        How::Sse => sse::event(None, "missed", line.render(LogFormat::Json).trim_end()),
        How::Framed { json: true } => framed(&line.render(LogFormat::Json)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json;

    #[test]
    fn one_event_in_each_way() {
        let line = Line {
            at: (1_795_305_214, 0),
            offset: 0,
            level: Level::Info,
            event: "hello".into(),
            fields: vec![("data", Value::Json("{\"a\":[1,2]}".into()))],
            message: "hello, by pid 7".into(),
        };
        let told = Told::of(&line, 9, 3);
        let rendered = |how| told.rendered(how);
        assert_eq!(
            rendered(How::Text),
            "23:53:34 minicluster: hello, by pid 7\n"
        );
        let json = rendered(How::Json);
        let v = json::parse(json.trim_end()).unwrap();
        assert_eq!(v["id"].get::<f64>(), Some(&3.0));
        assert_eq!(v["data"]["a"][1].get::<f64>(), Some(&2.0));
        for (how, inner) in [
            (How::Framed { json: true }, json.clone()),
            (How::Framed { json: false }, rendered(How::Text)),
        ] {
            let v = json::parse(rendered(how).trim_end()).unwrap();
            assert_eq!(v["more"].get::<String>(), Some(&inner));
        }
        for how in [How::Json, How::Sse, How::Framed { json: true }, How::Text] {
            assert!(missed(57, (0, 0), how).contains("57 events missed"));
            assert!(missed_a_life(1, (0, 0), how).contains("and 1 event of"));
        }
    }
}
