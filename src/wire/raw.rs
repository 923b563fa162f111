//! JSON that is looked into and passed on as it came. A message of a worker goes on to others byte
//! by byte: numbers keep their digits, and what it means is theirs to say. But it is read to its end
//! first: one line that is no JSON ends every Node process that hears it.

use super::json::MAX_DEPTH;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// A value that is valid (RFC 8259), without blanks around it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a>(&'a str);

/// Goes along the text. Every step looks with `get`: there is nothing that could be out of bounds.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let b = self.peek()?;
        self.at += 1;
        Some(b)
    }

    fn eat(&mut self, wanted: u8) -> bool {
        let hit = self.peek() == Some(wanted);
        self.at += usize::from(hit);
        hit
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn since(&self, start: usize) -> Raw<'a> {
        Raw(self.text.get(start..self.at).unwrap_or_default())
    }

    /// One value.
    fn value(&mut self, depth: usize) -> Option<Raw<'a>> {
        let start = self.at;
        let done = match self.peek()? {
            b'"' => self.string(),
            b'{' => self.object(depth, |_, _| {}),
            b'[' => self.array(depth, |_| {}),
            b't' => self.word("true"),
            b'f' => self.word("false"),
            b'n' => self.word("null"),
            _ => self.number(),
        };
        done.map(|()| self.since(start))
    }

    fn word(&mut self, word: &str) -> Option<()> {
        let all = word.bytes().all(|b| self.eat(b));
        all.then_some(())
    }

    fn string(&mut self) -> Option<()> {
        if !self.eat(b'"') {
            return None;
        }
        loop {
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        for _ in 0..4 {
                            self.next().filter(u8::is_ascii_hexdigit)?;
                        }
                    }
                    _ => return None,
                },
                b if b < 0x20 => return None,
                _ => {}
            }
        }
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<()> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        Some(())
    }

    /// What stands between these, with commas between.
    fn list(&mut self, end: u8, mut one: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.blanks();
        if self.eat(end) {
            return Some(());
        }
        loop {
            self.blanks();
            one(self)?;
            self.blanks();
            if self.eat(end) {
                return Some(());
            }
            if !self.eat(b',') {
                return None;
            }
        }
    }

    fn object(&mut self, depth: usize, mut with: impl FnMut(Raw<'a>, Raw<'a>)) -> Option<()> {
        if depth >= MAX_DEPTH || !self.eat(b'{') {
            return None;
        }
        self.list(b'}', |s| {
            let start = s.at;
            s.string()?;
            let key = s.since(start);
            s.blanks();
            if !s.eat(b':') {
                return None;
            }
            s.blanks();
            with(key, s.value(depth + 1)?);
            Some(())
        })
    }

    fn array(&mut self, depth: usize, mut with: impl FnMut(Raw<'a>)) -> Option<()> {
        if depth >= MAX_DEPTH || !self.eat(b'[') {
            return None;
        }
        self.list(b']', |s| {
            with(s.value(depth + 1)?);
            Some(())
        })
    }
}

/// A character of a string, or half of one: JSON can say that, and a string of ours cannot.
type Unit = Result<char, u16>;

impl<'a> Raw<'a> {
    /// The whole text is one value, nested no deeper than `MAX_DEPTH`.
    pub fn parse(text: &'a str) -> Option<Raw<'a>> {
        let mut s = Scan { text, at: 0 };
        s.blanks();
        let value = s.value(0)?;
        s.blanks();
        s.peek().is_none().then_some(value)
    }

    /// As it came.
    pub fn text(self) -> &'a str {
        self.0
    }

    fn starts(self, with: char) -> bool {
        self.0.starts_with(with)
    }

    /// Is it one?
    pub fn is_object(self) -> bool {
        self.starts('{')
    }

    /// Does each of these names with its value, in order.
    pub fn each_member(self, with: impl FnMut(Raw<'a>, Raw<'a>)) {
        let mut s = Scan {
            text: self.0,
            at: 0,
        };
        let _ = s.object(0, with);
    }

    /// The values of these names, in one look; of a name that is there twice the last, as with all
    /// who read JSON.
    pub fn members<const N: usize>(self, names: [&str; N]) -> [Option<Raw<'a>>; N] {
        let mut found = [None; N];
        self.each_member(|key, value| {
            for (name, slot) in names.iter().zip(found.iter_mut()) {
                if key.is(name) {
                    *slot = Some(value);
                }
            }
        });
        found
    }

    /// The elements of a list, at most so many; `None`: it is no list, or longer.
    pub fn items(self, most: usize) -> Option<Vec<Raw<'a>>> {
        let mut all = Vec::new();
        let mut count = 0usize;
        let mut s = Scan {
            text: self.0,
            at: 0,
        };
        s.array(0, |item| {
            count += 1;
            if count <= most {
                all.push(item);
            }
        })?;
        (count <= most).then_some(all)
    }

    /// Is it this string?
    pub fn is(self, text: &str) -> bool {
        match self.plain() {
            Some(plain) => plain == text,
            None => self.string().is_some_and(|s| s == text),
        }
    }

    /// What is between the quotes, if nothing of it is escaped.
    fn plain(self) -> Option<&'a str> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        (!inner.contains('\\')).then_some(inner)
    }

    /// The string that it is; halves of characters are replaced.
    pub fn string(self) -> Option<Cow<'a, str>> {
        if let Some(plain) = self.plain() {
            return Some(plain.into());
        }
        let units = self.units()?;
        let chars = units.map(|u| u.unwrap_or(char::REPLACEMENT_CHARACTER));
        Some(chars.collect::<String>().into())
    }

    fn units(self) -> Option<impl Iterator<Item = Unit> + 'a> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        let mut rest = inner.chars();
        Some(std::iter::from_fn(move || unit(&mut rest)))
    }

    /// The number that it is, as far as a double has it.
    pub fn number(self) -> Option<f64> {
        let first = self.0.bytes().next()?;
        (first == b'-' || first.is_ascii_digit()).then(|| self.0.parse().ok())?
    }

    /// Would it count as true in JavaScript?
    pub fn is_truthy(self) -> bool {
        match self.0 {
            "false" | "null" | "\"\"" => false,
            _ => self.number() != Some(0.0),
        }
    }

    /// The same text for all values that are equal: blanks, the order of names, escapes and ways to
    /// write a number make no difference. Whole numbers are compared by their digits, however many.
    pub fn canonical(self) -> String {
        let mut out = String::new();
        self.write_canonical(&mut out);
        out
    }

    fn write_canonical(self, out: &mut String) {
        match self.0.bytes().next() {
            Some(b'"') => self.write_string(out),
            Some(b'{') => {
                let mut sorted = BTreeMap::new();
                self.each_member(|key, value| {
                    sorted.insert(key.canonical(), value);
                });
                out.push('{');
                for (key, value) in sorted {
                    out.push_str(&key);
                    out.push(':');
                    value.write_canonical(out);
                    out.push(',');
                }
                out.push('}');
            }
            Some(b'[') => {
                out.push('[');
                let mut s = Scan {
                    text: self.0,
                    at: 0,
                };
                let _ = s.array(0, |item| {
                    item.write_canonical(out);
                    out.push(',');
                });
                out.push(']');
            }
            Some(b't' | b'f' | b'n') | None => out.push_str(self.0),
            Some(_) => out.push_str(&self.canonical_number()),
        }
    }

    fn write_string(self, out: &mut String) {
        out.push('"');
        for unit in self.units().into_iter().flatten() {
            match unit {
                Ok(c @ ('"' | '\\')) => out.extend(['\\', c]),
                Ok(c) => out.push(c),
                Err(half) => out.push_str(&format!("\\u{half:04x}")),
            }
        }
        out.push('"');
    }

    fn canonical_number(self) -> String {
        let whole = !self.0.contains(['.', 'e', 'E']);
        match self.number() {
            Some(0.0) => "0".into(),
            // What is written with an exponent or a point is a double to everybody.
            Some(n) if !whole => format!("{n}"),
            Some(_) | None => self.0.into(),
        }
    }
}

/// The next character of the inside of a string.
fn unit(rest: &mut std::str::Chars<'_>) -> Option<Unit> {
    let c = rest.next()?;
    if c != '\\' {
        return Some(Ok(c));
    }
    Some(Ok(match rest.next()? {
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'u' => {
            let high = hex(rest)?;
            let mut ahead = rest.clone();
            let pair = (ahead.next() == Some('\\') && ahead.next() == Some('u'))
                .then(|| hex(&mut ahead))
                .flatten();
            let mut both = char::decode_utf16([high].into_iter().chain(pair));
            return Some(match (both.next()?, pair) {
                (Ok(c), Some(_)) if c.len_utf16() == 2 => {
                    *rest = ahead;
                    Ok(c)
                }
                (Ok(c), _) => Ok(c),
                (Err(_), _) => Err(high),
            });
        }
        other => other,
    }))
}

fn hex(rest: &mut std::str::Chars<'_>) -> Option<u16> {
    let mut n = 0;
    for _ in 0..4 {
        n = n * 16 + u16::try_from(rest.next()?.to_digit(16)?).ok()?;
    }
    Some(n)
}

#[cfg(test)]
mod tests;
