//! One line of our log in each of its formats.

use super::json;
use crate::core::fields::Value;
use crate::core::{Level, Notice};
use crate::settings::LogFormat;
use std::borrow::Cow;

/// What a line is made of.
pub struct Line {
    /// Seconds and microseconds since 1970.
    pub at: (u64, u32),
    /// Seconds that the reader's clock is ahead of UTC; lines for people are in their time.
    pub offset: i64,
    /// How loud.
    pub level: Level,
    /// The event's name: one of ours, or what somebody has called theirs.
    pub event: Cow<'static, str>,
    /// Keys and values: slot, pid, and the event's own.
    pub fields: Vec<(&'static str, Value)>,
    /// The sentence.
    pub message: String,
}

impl Line {
    /// Of a notice of core.
    pub fn of(notice: &Notice, at: (u64, u32), offset: i64) -> Line {
        let mut fields = Vec::new();
        if let Some(who) = notice.who() {
            fields.push(("slot", Value::Number(who.slot.to_string())));
            if let Some(pid) = who.pid {
                fields.push(("pid", Value::Number(pid.to_string())));
            }
        }
        fields.extend(notice.fields());
        Line {
            at,
            offset,
            level: notice.level(),
            event: notice.event().into(),
            fields,
            message: notice.to_string(),
        }
    }

    /// The line, its end included.
    pub fn render(&self, format: LogFormat) -> String {
        match format {
            LogFormat::Text => self.text(),
            LogFormat::Logfmt => self.logfmt(),
            LogFormat::Json => self.json(""),
        }
    }

    /// As one of a stream: JSON with its number.
    pub fn numbered(&self, id: u64) -> String {
        self.json(&format!("\"id\":{id},"))
    }

    fn text(&self) -> String {
        let local = self.at.0.saturating_add_signed(self.offset);
        let (h, m, s) = (local / 3600 % 24, local / 60 % 60, local % 60);
        format!("{h:02}:{m:02}:{s:02} minicluster: {}\n", self.bare())
    }

    /// As text without the time and our name, which syslogd puts before it.
    pub fn bare(&self) -> String {
        let mark = match self.level {
            Level::Error => "error: ",
            Level::Warn => "warning: ",
            Level::Info | Level::Debug => "",
        };
        // Lines that a worker wrote must not pass for ours.
        let message = self.message.replace('\n', "\n         | ");
        format!("{mark}{}", printable(&message, true))
    }

    fn logfmt(&self) -> String {
        let mut line = format!(
            "ts={} level={} event={}",
            timestamp(self.at),
            level_word(self.level),
            self.event
        );
        for (k, v) in &self.fields {
            let (Value::Number(v) | Value::Text(v) | Value::Json(v)) = v;
            line.push_str(&format!(" {k}={}", value(v)));
        }
        line.push_str(&format!(" msg={}\n", value(&self.message)));
        line
    }

    fn json(&self, first: &str) -> String {
        let mut line = format!(
            "{{{first}\"ts\":\"{}\",\"level\":\"{}\",\"event\":\"{}\"",
            timestamp(self.at),
            level_word(self.level),
            self.event
        );
        for (k, v) in &self.fields {
            match v {
                Value::Number(v) | Value::Json(v) => line.push_str(&format!(",\"{k}\":{v}")),
                Value::Text(v) => line.push_str(&format!(",\"{k}\":{}", json::quote(v))),
            }
        }
        line.push_str(&format!(",\"msg\":{}}}\n", json::quote(&self.message)));
        line
    }
}

/// As options and logs spell it.
pub fn level_word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
    }
}

fn value(text: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && !"\"=\\".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_string(),
        false => json::quote(text),
    }
}

/// A worker's output must not drive the reader's terminal.
pub(super) fn printable(text: &str, newlines: bool) -> String {
    text.chars()
        .map(|c| match c {
            '\n' if newlines => c,
            '\t' => c,
            c if c.is_control() => '?',
            c => c,
        })
        .collect()
}

/// RFC 3339, UTC, milliseconds.
pub fn timestamp(at: (u64, u32)) -> String {
    let (secs, micros) = at;
    let (year, month, day) = civil(secs / 86_400);
    let (h, m, s) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z",
        micros / 1000
    )
}

/// Year, month, day of a day since 1970 (eras of 400 years, years beginning in March).
pub(super) fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    (year, month, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        Line {
            at: (1_795_305_214, 123_456),
            offset: -3600,
            level: Level::Warn,
            event: "died".into(),
            fields: vec![
                ("slot", Value::Number("2".into())),
                ("reason", Value::Text("not ready".into())),
                // A worker's words may look like anything.
                ("stderr", Value::Text("007".into())),
            ],
            message: "worker 2 ended; last:\nfoo \"bar\"\u{1b}[2J".into(),
        }
    }

    #[test]
    fn the_three_formats() {
        assert_eq!(
            line().render(LogFormat::Text),
            "22:53:34 minicluster: warning: worker 2 ended; last:\n         | foo \"bar\"?[2J\n"
        );
        assert_eq!(
            line().render(LogFormat::Logfmt),
            "ts=2026-11-21T23:53:34.123Z level=warn event=died slot=2 reason=\"not ready\" stderr=007 msg=\"worker 2 ended; last:\\nfoo \\\"bar\\\"\\u001b[2J\"\n"
        );
        let json = line().render(LogFormat::Json);
        assert!(
            json.contains("\"slot\":2,\"reason\":\"not ready\",\"stderr\":\"007\""),
            "{json}"
        );
        assert!(json::parse(json.trim_end()).is_ok());
        let numbered = line().numbered(7);
        assert_eq!(numbered.strip_prefix("{\"id\":7,"), json.strip_prefix('{'));
    }

    #[test]
    fn dates() {
        for (days, want) in [
            (0, (1970, 1, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_779, (2026, 11, 22)),
        ] {
            assert_eq!(civil(days), want);
        }
    }
}
