//! Answers to `workers`: those that have a process, in a word or with all that is known of them.

use super::fields::{Field, of_details};
use super::json::quote;
use super::report::{said, said_json, table, under_rows};
use super::traffic::Traffic;
use crate::core::status::SlotView;

/// One worker.
pub struct Row {
    /// As core has it.
    pub view: SlotView,
    /// Resident bytes and CPU milliseconds.
    pub usage: Option<(u64, u64)>,
    /// Of its connections.
    pub traffic: Traffic,
    /// What it has said last of its state.
    pub says: Option<String>,
    /// The words of the command that it runs.
    pub command: Vec<String>,
}

impl Row {
    pub(super) fn pid(&self) -> String {
        self.view.pid.map_or_else(|| "-".into(), |p| p.to_string())
    }
}

/// `workers`: no head, a line each.
pub fn simple_text(rows: &[Row]) -> String {
    let row = |r: &Row| [r.view.slot.to_string(), r.pid(), r.view.state.to_string()];
    let all: Vec<[String; 3]> = rows.iter().map(row).collect();
    match all.is_empty() {
        true => nobody(),
        false => table(&all),
    }
}

/// `workers details`
pub fn details_text(rows: &[Row]) -> String {
    if rows.is_empty() {
        return nobody();
    }
    let all = columns(rows, &of_details());
    let under = rows.iter().map(|r| said(&r.view, r.says.as_deref()));
    under_rows(&table(&all), under)
}

/// These fields of each, under their names. Of what is not told for anybody there is no column, where that
/// is not always so.
pub(super) fn columns(rows: &[Row], fields: &[&Field]) -> Vec<Vec<String>> {
    let told = |f: &Field| rows.iter().any(|r| (f.text)(r) != "-");
    let shown = fields.iter().filter(|f| !f.rare || told(f));
    let shown: Vec<&&Field> = shown.collect();
    let mut all: Vec<Vec<String>> = vec![shown.iter().map(|f| f.name.to_uppercase()).collect()];
    let row = |r: &Row| shown.iter().map(|f| (f.text)(r)).collect();
    all.extend(rows.iter().map(row));
    all
}

pub(super) fn nobody() -> String {
    "there is no worker now\n".into()
}

/// As it could be typed: words that a shell would read otherwise are quoted, on one line.
pub(super) fn typed(words: &[String]) -> String {
    let plain = |c: char| c.is_alphanumeric() || "%+,-./:=@_".contains(c);
    let one = |w: &String| match !w.is_empty() && w.chars().all(plain) {
        true => w.clone(),
        false => {
            let safe: String = w
                .chars()
                .map(|c| if c.is_control() { '?' } else { c })
                .collect();
            format!("'{}'", safe.replace('\'', "'\\''"))
        }
    };
    let all: Vec<String> = words.iter().map(one).collect();
    all.join(" ")
}

pub(super) fn list(items: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = items.collect();
    format!("[{}]", all.join(","))
}

/// `workers --json`
pub fn simple_json(rows: &[Row]) -> String {
    let item = |r: &Row| {
        format!(
            "{{\"slot\":{},\"pid\":{},\"state\":{}}}",
            r.view.slot,
            r.pid(),
            quote(r.view.state)
        )
    };
    format!("{}\n", list(rows.iter().map(item)))
}

/// `workers details --json`
pub fn details_json(rows: &[Row]) -> String {
    let item = |r: &Row| {
        let mut all = members(r, &of_details());
        all.push(said_json(&r.view, r.says.as_deref()));
        format!("{{{}}}", all.join(","))
    };
    format!("{}\n", list(rows.iter().map(item)))
}

/// These fields of it, as members of an object.
pub(super) fn members(r: &Row, fields: &[&Field]) -> Vec<String> {
    let one = |f: &&Field| format!("\"{}\":{}", f.name, (f.json)(r));
    fields.iter().map(one).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::core::{Pid, SlotNr};
    use crate::wire::traffic::{Seen, Tally};
    use std::time::Duration;

    pub(in crate::wire) fn rows() -> Vec<Row> {
        let view = |slot, pid, state| SlotView {
            slot: SlotNr(slot),
            current: true,
            pid: Some(Pid(pid)),
            program: Default::default(),
            generation: 1,
            state,
            age: Duration::from_millis(2500),
            adopted: false,
            restarts: 3,
            well: None,
            last: None,
        };
        vec![
            Row {
                view: view(0, 4711, "ready"),
                usage: Some((3 << 20, 1250)),
                traffic: Traffic {
                    seen: Some(Seen {
                        open: 2,
                        silent: Some(Duration::from_millis(1500)),
                        oldest: Some(Duration::from_secs(60)),
                    }),
                    ..Traffic::default()
                },
                says: Some("idle".into()),
                command: ["./server", "-l", "a b", "it's", ""]
                    .map(String::from)
                    .to_vec(),
            },
            Row {
                view: view(10, 5, "draining"),
                usage: None,
                traffic: Traffic::default(),
                says: None,
                command: vec!["x\n\u{1b}[2J".into()],
            },
        ]
    }

    #[test]
    fn a_line_each() {
        assert_eq!(
            simple_text(&rows()),
            "0   4711  ready\n10  5     draining\n"
        );
        assert_eq!(simple_text(&[]), "there is no worker now\n");
        assert_eq!(details_text(&[]), "there is no worker now\n");
    }

    #[test]
    fn all_there_is() {
        assert_eq!(
            details_text(&rows()),
            "PID   SLOT  GENERATION  STATE     AGE   RSS   CPU   RESTARTS  OPEN  SILENT  OLDEST  COMMAND\n\
             4711  0     1           ready     2.5s  3.0M  1.2s  3         2     1.5s    1m      ./server -l 'a b' 'it'\\''s' ''\n    | says: idle\n\
             5     10    1           draining  2.5s  -     -     3         -     -       -       'x??[2J'\n"
        );
    }

    #[test]
    fn what_is_counted_has_a_column() {
        let mut some = rows();
        let tally = Tally {
            served: 12,
            ..Tally::default()
        };
        some[0].traffic.tally = Some(tally);
        let text = details_text(&some);
        let column = |line: &str| line.split_whitespace().nth(11).map(String::from);
        let all: Vec<_> = text
            .lines()
            .filter(|l| !l.contains('|'))
            .map(column)
            .collect();
        let want = ["SERVED", "12", "-"].map(|w| Some(w.to_string()));
        assert_eq!(all, want);
        let json = crate::wire::json::parse(details_json(&some).trim_end()).unwrap();
        assert_eq!(json[0]["served"].get::<f64>(), Some(&12.0));
        assert!(json[1]["served"].is_null());
    }

    #[test]
    fn both_are_json_too() {
        let parse = |text: String| crate::wire::json::parse(text.trim_end()).unwrap();
        let simple = parse(simple_json(&rows()));
        assert_eq!(simple[1]["pid"].get::<f64>(), Some(&5.0));
        let details = parse(details_json(&rows()));
        assert_eq!(details[0]["command"][2].get::<String>().unwrap(), "a b");
        assert_eq!(details[0]["age"].get::<f64>(), Some(&2.5));
        assert!(details[1]["rss"].is_null() && details[1]["status"].is_null());
        assert_eq!(details[0]["status"].get::<String>().unwrap(), "idle");
        assert_eq!(simple_json(&[]), "[]\n");
    }
}
