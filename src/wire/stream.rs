//! An event as those who follow the stream have it, each in its way.

use super::json::quote;
use super::logfmt::Line;
use super::sse;
use crate::core::Level;
use crate::core::fields::Value;
use crate::core::words::count;
use crate::settings::LogFormat;

/// In which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// It, with its end.
pub fn rendered(line: &Line, id: u64, how: How) -> String {
    match how {
        How::Text => line.render(LogFormat::Text),
        How::Json => line.numbered(id),
        How::Sse => sse::event(Some(id), &line.event, line.numbered(id).trim_end()),
        How::Framed { json: false } => framed(&line.render(LogFormat::Text)),
        How::Framed { json: true } => framed(&line.numbered(id)),
    }
}

/// More of an answer that is not at its end.
pub fn framed(text: &str) -> String {
    format!("{{\"more\":{}}}\n", quote(text))
}

/// So many did not reach this one. It has no number: it is this follower's own.
pub fn missed(n: u64, at: (u64, u32), how: How) -> String {
    let events = count(usize::try_from(n).unwrap_or(usize::MAX), "event");
    let line = Line {
        at,
        offset: 0,
        level: Level::Warn,
        event: "missed".into(),
        fields: vec![("count", Value::Number(n.to_string()))],
        message: format!("{events} missed: you did not keep up, or came too late for them"),
    };
    match how {
        How::Text | How::Framed { json: false } => rendered(&line, 0, how),
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
        assert_eq!(
            rendered(&line, 3, How::Text),
            "23:53:34 minicluster: hello, by pid 7\n"
        );
        let json = rendered(&line, 3, How::Json);
        let v = json::parse(json.trim_end()).unwrap();
        assert_eq!(v["id"].get::<f64>(), Some(&3.0));
        assert_eq!(v["data"]["a"][1].get::<f64>(), Some(&2.0));
        for (how, inner) in [
            (How::Framed { json: true }, json.clone()),
            (How::Framed { json: false }, rendered(&line, 3, How::Text)),
        ] {
            let v = json::parse(rendered(&line, 3, how).trim_end()).unwrap();
            assert_eq!(v["more"].get::<String>(), Some(&inner));
        }
        for how in [How::Json, How::Sse, How::Framed { json: true }, How::Text] {
            assert!(missed(57, (0, 0), how).contains("57 events missed"));
        }
    }
}
