//! What workers have written, as it is shown to who asks for it: the last lines of files, lines as they come, and
//! the list of files.

use super::http::response::date;
use super::json::quote;
use super::logfmt::timestamp;
use super::stream::{How, framed};
use crate::core::words;
use std::borrow::Cow;
use std::fmt::Write;

/// A line, and whose it is, as far as that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    pub slot: Option<u16>,
    pub pid: Option<i32>,
    /// Without its end.
    pub text: &'a [u8],
}

/// The last lines of these bytes, which are a file's last ones, or (`whole`) all of it.
pub fn last(bytes: &[u8], whole: bool, most: usize) -> Vec<&[u8]> {
    let bytes = match whole {
        true => bytes,
        // The first one is cut.
        false => match bytes.iter().position(|b| *b == b'\n') {
            Some(end) => bytes.get(end + 1..).unwrap_or_default(),
            None => bytes,
        },
    };
    let lines = bytes.split_inclusive(|b| *b == b'\n');
    let mut all: Vec<&[u8]> = lines.map(|l| l.strip_suffix(b"\n").unwrap_or(l)).collect();
    all.drain(..all.len().saturating_sub(most));
    all
}

/// A line of the file of all: `0[4711]: text`. One that is signed otherwise, or not, is nobody's.
pub fn signed(line: &[u8]) -> Line<'_> {
    let nobody = Line {
        slot: None,
        pid: None,
        text: line,
    };
    let head = line.get(..line.len().min(32)).unwrap_or_default();
    let Some(end) = head.windows(3).position(|w| w == b"]: ") else {
        return nobody;
    };
    let whose = line.get(..end).and_then(|b| std::str::from_utf8(b).ok());
    let both = whose.and_then(|w| w.split_once('['));
    let parsed = both.and_then(|(slot, pid)| Some((slot.parse().ok()?, pid.parse().ok()?)));
    match (parsed, line.get(end + 3..)) {
        (Some((slot, pid)), Some(text)) => Line {
            slot: Some(slot),
            pid: Some(pid),
            text,
        },
        (_, _) => nobody,
    }
}

impl Line<'_> {
    fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.text)
    }

    /// For who wants to see that; `bare`: of one slot alone, which need not be said.
    pub fn shown(&self, json: bool, bare: bool) -> String {
        let mut shown = String::with_capacity(self.text.len() + 64);
        self.show(&mut shown, json, bare);
        shown
    }

    /// The same, behind others: of short lines there are very many.
    fn show(&self, into: &mut String, json: bool, bare: bool) {
        let number = |n: Option<i64>| n.map_or("null".to_string(), |n| n.to_string());
        // (A String takes all.)
        let _ = match (json, self.slot, self.pid) {
            (true, slot, pid) => write!(
                into,
                "{{\"slot\":{},\"pid\":{},\"line\":{}}}",
                number(slot.map(i64::from)),
                number(pid.map(i64::from)),
                quote(&self.text())
            ),
            (false, Some(slot), Some(pid)) if !bare => write!(into, "{slot}[{pid}]: "),
            (false, Some(slot), None) if !bare => write!(into, "{slot}: "),
            (false, _, _) => Ok(()),
        };
        if !json {
            into.push_str(&self.text());
        }
        into.push('\n');
    }
}

/// Lines that a worker has just written.
pub struct Written {
    pub slot: u16,
    pub pid: i32,
    /// None, where they are too many to be told,
    pub lines: Vec<u8>,
    /// but so many they are.
    pub count: u64,
}

/// How many of them are of that slot, or all.
pub fn count(written: &[Written], slot: Option<u16>) -> u64 {
    let of_it = written.iter().filter(|w| slot.is_none_or(|s| s == w.slot));
    of_it.fold(0, |n, w| n.saturating_add(w.count))
}

/// So much one who follows is told in a turn,
const MOST: usize = 512 * 1024;
/// and so much all of them together,
const MOST_OF_ALL: usize = 1024 * 1024;
/// in so many lines, each way of each slot counting once: to render them takes longer than to send them.
const MOST_LINES: usize = 32 * 1024;

/// What there is room for in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub bytes: usize,
    pub lines: usize,
}

impl Room {
    /// For each of so many, who want it in so many ways.
    pub fn of(followers: usize, ways: usize) -> Room {
        Room {
            bytes: (MOST_OF_ALL / followers.max(1)).min(MOST),
            lines: MOST_LINES / ways.max(1),
        }
    }
}

/// What one who follows that slot, or all, is told of these lines, and how many there was no room for: the
/// last ones, so that what is told is whole up to where that is said.
pub fn told(
    written: &[Written],
    slot: Option<u16>,
    how: How,
    pids: bool,
    room: Room,
) -> (String, u64) {
    let json = is_json(how);
    let (mut text, mut bytes, mut lines) = (String::new(), 0, 0);
    'full: for w in written.iter().filter(|w| slot.is_none_or(|s| s == w.slot)) {
        // (All of one, or nothing.)
        if w.lines.is_empty() {
            break;
        }
        for line in w.lines.split_inclusive(|b| *b == b'\n') {
            if bytes >= room.bytes || lines >= room.lines {
                break 'full;
            }
            let line = Line {
                slot: Some(w.slot),
                pid: (pids || json).then_some(w.pid),
                text: line.strip_suffix(b"\n").unwrap_or(line),
            };
            let before = text.len();
            line.show(&mut text, json, slot.is_some());
            bytes += weight(text.get(before..).unwrap_or_default(), how);
            lines += 1;
        }
    }
    let missed = count(written, slot).saturating_sub(lines as u64);
    match text.is_empty() {
        true => (text, missed),
        false => (dressed(text, how), missed),
    }
}

/// How long it is when it is dressed, at most.
fn weight(text: &str, how: How) -> usize {
    let in_a_frame = |c: char| match c {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        c if c.is_control() => 6,
        c => c.len_utf8(),
    };
    match how {
        How::Text | How::Json | How::Sse => text.len(),
        How::Framed { .. } => text.chars().map(in_a_frame).sum(),
    }
}

/// As a terminal may have it. Whoever can get a line into a log, which a client of the server's may, could
/// drive the terminal of who reads it: so control characters are shown as `?`, but for tabs, ends of lines and
/// colours; and a colour ends with its line, or it would hide the next ones.
pub fn harmless(text: &str) -> Cow<'_, str> {
    let odd = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(odd) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for line in text.split_inclusive('\n') {
        let (inner, end) = match line.strip_suffix("\r\n") {
            Some(inner) => (inner, "\r\n"),
            None => match line.strip_suffix('\n') {
                Some(inner) => (inner, "\n"),
                None => (line, ""),
            },
        };
        let (mut rest, mut coloured) = (inner, false);
        while let Some(at) = rest.find(odd) {
            let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
            shown.push_str(before);
            match colour(from) {
                Some((sequence, behind)) => {
                    shown.push_str(sequence);
                    (rest, coloured) = (behind, true);
                }
                None => {
                    shown.push('?');
                    rest = from.strip_prefix(odd).unwrap_or_default();
                }
            }
        }
        shown.push_str(rest);
        if coloured {
            shown.push_str("\u{1b}[0m");
        }
        shown.push_str(end);
    }
    Cow::Owned(shown)
}

/// `ESC [ 1;31 m`, if it begins with that, and what is behind it.
fn colour(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix("\u{1b}[")?;
    let numbers = inner.find(|c: char| !c.is_ascii_digit() && c != ';' && c != ':')?;
    let behind = inner.get(numbers..)?.strip_prefix('m')?;
    text.split_at_checked(text.len() - behind.len())
}

/// Does it want JSON?
pub fn is_json(how: How) -> bool {
    match how {
        How::Json | How::Sse | How::Framed { json: true } => true,
        How::Text | How::Framed { json: false } => false,
    }
}

/// Lines, or what is said of them, in the way of one who follows.
pub fn dressed(text: String, how: How) -> String {
    match how {
        How::Text | How::Json | How::Sse => text,
        How::Framed { .. } => framed(&text),
    }
}

/// So many did not reach one who follows.
pub fn missed(lines: u64, how: How) -> String {
    let count = words::count(usize::try_from(lines).unwrap_or(usize::MAX), "line");
    let text = match is_json(how) {
        true => format!("{{\"missed\":{lines}}}\n"),
        false => format!("minicluster: {count} missed: they came too fast\n"),
    };
    dressed(text, how)
}

/// A file that can be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub name: String,
    pub size: u64,
    /// In seconds since 1970.
    pub modified: u64,
}

/// All of them, for programs, and how many more there are.
pub fn list_json(files: &[File], left_out: usize) -> String {
    let one = |f: &File| {
        let modified = timestamp((f.modified, 0));
        let (name, modified) = (quote(&f.name), quote(&modified));
        format!(
            "{{\"file\":{name},\"size\":{},\"modified\":{modified}}}",
            f.size
        )
    };
    let mut all: Vec<String> = files.iter().map(one).collect();
    if left_out > 0 {
        all.push(format!("{{\"left_out\":{left_out}}}"));
    }
    format!("[{}]\n", all.join(","))
}

/// All of them, for people, and how many more there are.
pub fn list_html(files: &[File], left_out: usize) -> String {
    let row = |f: &File| {
        format!(
            "<tr><td><a href=\"/logs/{}\">{}</a></td><td align=\"right\">{}</td><td>{}</td></tr>\n",
            encoded(&f.name),
            escaped(&f.name),
            f.size,
            date(f.modified)
        )
    };
    let rows: String = files.iter().map(row).collect();
    let more = match left_out {
        0 => String::new(),
        n => format!(
            "<p>Not shown: {} more, at least</p>\n",
            words::count(n, "file")
        ),
    };
    format!(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>Logs</title></head><body>\n\
         <table>\n<tr><th>File</th><th>Size</th><th>Modified</th></tr>\n{rows}</table>\n{more}</body></html>\n"
    )
}

/// As a part of a path.
fn encoded(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for b in name.bytes() {
        match b.is_ascii_alphanumeric() || b"-._~".contains(&b) {
            true => text.push(char::from(b)),
            false => text.push_str(&format!("%{b:02X}")),
        }
    }
    text
}

/// As a text of HTML.
fn escaped(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::json;
    use super::*;

    #[test]
    fn the_last_lines_are_whole() {
        for (bytes, whole, most, want) in [
            (&b"a\nb\nc\n"[..], true, 2, &[&b"b"[..], b"c"][..]),
            (b"a\nb\nc", true, 2, &[b"b", b"c"]),
            (b"a\nb\nc\n", false, 9, &[b"b", b"c"]),
            (b"abc", false, 9, &[b"abc"]),
            (b"a\n\n", true, 9, &[b"a", b""]),
            (b"", true, 9, &[]),
            (b"a\n", true, 0, &[]),
        ] {
            assert_eq!(last(bytes, whole, most), want);
        }
    }

    #[test]
    fn a_line_says_whose_it_is() {
        let line = signed(b"3[42]: a ]: b");
        assert_eq!(
            (line.slot, line.pid, line.text),
            (Some(3), Some(42), &b"a ]: b"[..])
        );
        assert_eq!(line.shown(false, false), "3[42]: a ]: b\n");
        assert_eq!(line.shown(false, true), "a ]: b\n");
        for nobody in [
            &b"minicluster: 3 lines lost here: x"[..],
            b"x[1]: y",
            b"1[2]:y",
            b"",
        ] {
            let line = signed(nobody);
            assert_eq!((line.slot, line.text), (None, nobody));
        }
        let of_slot = Line { pid: None, ..line };
        assert_eq!(of_slot.shown(false, false), "3: a ]: b\n");
        let v = json::parse(of_slot.shown(true, true).trim_end()).unwrap();
        assert_eq!(v["slot"].get::<f64>(), Some(&3.0));
        assert!(v["pid"].is_null());
        assert_eq!(v["line"].get::<String>().unwrap(), "a ]: b");
    }

    #[test]
    fn no_line_drives_a_terminal() {
        for (text, want) in [
            ("plain\ttext\nü\n", "plain\ttext\nü\n"),
            ("a\u{1b}[2Jb\u{7}\n", "a?[2Jb?\n"),
            ("\u{1b}]0;title\u{7}\u{9b}2J\u{7f}\u{0}", "?]0;title??2J??"),
            ("over\rwritten\r\nnext\n", "over?written\r\nnext\n"),
            (
                "\u{1b}[31mred\u{1b}[m\n",
                "\u{1b}[31mred\u{1b}[m\u{1b}[0m\n",
            ),
            (
                "\u{1b}[1;38:5:9mx\r\nno\n",
                "\u{1b}[1;38:5:9mx\u{1b}[0m\r\nno\n",
            ),
            ("\u{1b}[?25l\u{1b}[3\u{1b}[\u{1b}", "?[?25l?[3?[?"),
        ] {
            assert_eq!(harmless(text), want, "{text:?}");
        }
    }

    #[test]
    fn files_are_listed_for_programs_and_for_people() {
        let file = |name: &str| File {
            name: name.into(),
            size: 7,
            modified: 784_111_777,
        };
        let all = [file("w.0.log"), file("<a href=\"x\">&%20.log")];
        let v = json::parse(list_json(&all, 0).trim_end()).unwrap();
        assert_eq!(v[0]["file"].get::<String>().unwrap(), "w.0.log");
        assert_eq!(v[1]["size"].get::<f64>(), Some(&7.0));
        assert_eq!(
            v[0]["modified"].get::<String>().unwrap(),
            "1994-11-06T08:49:37.000Z"
        );
        let page = list_html(&all, 0);
        assert!(!page.contains("Not shown"), "{page}");
        let cut = json::parse(list_json(&all, 7).trim_end()).unwrap();
        assert_eq!(cut[2]["left_out"].get::<f64>(), Some(&7.0));
        assert!(list_html(&all, 7).contains("Not shown: 7 files more"));
        assert!(
            page.contains("<a href=\"/logs/w.0.log\">w.0.log</a>"),
            "{page}"
        );
        let odd = "<a href=\"/logs/%3Ca%20href%3D%22x%22%3E%26%2520.log\">&lt;a href=&quot;x&quot;&gt;&amp;%20.log</a>";
        assert!(page.contains(odd), "{page}");
    }

    #[test]
    fn what_is_told_in_a_turn_has_a_limit_and_the_rest_is_counted() {
        let written = |slot: u16, lines: &str| Written {
            slot,
            pid: 42,
            lines: lines.into(),
            count: lines.lines().count() as u64,
        };
        let too_many = Written {
            count: 7,
            ..written(0, "")
        };
        let all = [
            written(0, "a\nb\n"),
            written(1, "c\n"),
            too_many,
            written(0, "d\n"),
        ];
        let room = Room::of(1, 1);
        let cut = |bytes, lines| Room { bytes, lines };
        for (slot, how, pids, room, want, missed) in [
            (None, How::Text, false, room, "0: a\n0: b\n1: c\n", 8),
            (None, How::Text, true, cut(8, 99), "0[42]: a\n", 10),
            (Some(0), How::Text, true, room, "a\nb\n", 8),
            (Some(0), How::Text, true, cut(99, 1), "a\n", 9),
            (Some(1), How::Text, true, room, "c\n", 0),
            (Some(2), How::Text, true, room, "", 0),
            (
                Some(1),
                How::Framed { json: false },
                true,
                room,
                "{\"more\":\"c\\n\"}\n",
                0,
            ),
            (Some(1), How::Text, true, cut(0, 9), "", 1),
        ] {
            let got = told(&all, slot, how, pids, room);
            assert_eq!(got, (want.to_string(), missed), "{slot:?} {how:?} {room:?}");
        }
        // However many follow, and in whatever way: no more than so much goes out, nor is rendered.
        let flood = [written(0, &"\u{1}\n".repeat(100_000))];
        for (followers, ways) in [(0, 0), (1, 1), (8, 8), (64, 1), (64, 64)] {
            let room = Room::of(followers, ways);
            assert!(room.bytes <= MOST && room.bytes * followers <= MOST_OF_ALL);
            assert!(room.lines > 0 && room.lines * ways <= MOST_LINES);
            for how in [How::Text, How::Json, How::Framed { json: true }] {
                let (text, missed) = told(&flood, None, how, true, room);
                assert!(text.len() < room.bytes + 128, "{followers} {how:?}");
                assert!(missed > 0 && missed < 100_000);
            }
        }
    }

    #[test]
    fn who_follows_is_told_in_its_way() {
        for how in [
            How::Text,
            How::Json,
            How::Framed { json: false },
            How::Framed { json: true },
        ] {
            let text = missed(7, how);
            assert!(text.contains('7') && text.ends_with('\n'), "{text}");
            assert_eq!(
                text.starts_with("{\"more\""),
                matches!(how, How::Framed { .. })
            );
        }
    }
}
