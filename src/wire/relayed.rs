//! What goes between workers and the programs of the operator that live as long as the master, one
//! JSON value a line: messages that such a program hears (--on-message) and what it has to say to
//! workers; work that it is given (--delegate), and what came of it. All as it came from the other side.

use super::raw::Raw;
use std::collections::BTreeMap;

/// A worker's message, for a program that hears all of them.
pub fn heard(slot: u16, pid: i32, text: &str) -> String {
    format!("{{\"slot\":{slot},\"pid\":{pid},\"msg\":{text}}}")
}

/// What a program has to say: to the worker of that slot, or to all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// To whom.
    pub slot: Option<u16>,
    /// What: JSON.
    pub msg: String,
}

/// Understands a line of such a program.
pub fn said(line: &[u8]) -> Result<Said, String> {
    let raw = object(line)?;
    let [slot, msg] = raw.members(["slot", "msg"]);
    let msg = msg.ok_or("there is no msg")?;
    let slot = match slot.filter(|s| s.text() != "null") {
        None => None,
        Some(slot) => {
            let number = slot.text().parse();
            Some(number.map_err(|_| format!("slot {} is no number of a slot", slot.text()))?)
        }
    };
    let msg = msg.text().to_string();
    Ok(Said { slot, msg })
}

/// A delegation, for the program that does it: as it came, and who asks.
pub fn work(slot: u16, pid: i32, text: &str) -> String {
    let mut out = String::from("{");
    if let Some(raw) = Raw::parse(text) {
        raw.each_member(|key, value| {
            if !key.is("origin") {
                out.push_str(&format!("{}:{},", key.text(), value.text()));
            }
        });
    }
    out + &format!("\"origin\":{{\"slot\":{slot},\"pid\":{pid}}}}}")
}

/// What came of some work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// As it came.
    pub text: String,
    /// Which answer it says it is: `expect`, as in the message it may be made from, else `type`.
    pub called: Option<String>,
}

/// Understands a line of a program that does work.
pub fn answer(line: &[u8]) -> Result<Answer, String> {
    let raw = object(line)?;
    let [expect, kind] = raw.members(["expect", "type"]);
    let kind = kind.filter(|k| !k.is("delegate"));
    let called = expect.or(kind).and_then(Raw::string);
    Ok(Answer {
        text: raw.text().to_string(),
        called: called.map(|c| c.into_owned()),
    })
}

impl Answer {
    /// Tells the value of a field, in the one text that all equal values have.
    pub fn fields(&self) -> impl FnMut(&str) -> Option<String> + '_ {
        let mut all = BTreeMap::new();
        if let Some(raw) = Raw::parse(&self.text) {
            raw.each_member(|key, value| {
                let name = key.string().unwrap_or_default().into_owned();
                all.insert(name, (value, None));
            });
        }
        // Many may be compared with it.
        move |name| {
            let (value, canonical): &mut (Raw<'_>, Option<String>) = all.get_mut(name)?;
            Some(canonical.get_or_insert_with(|| value.canonical()).clone())
        }
    }
}

fn object(line: &[u8]) -> Result<Raw<'_>, String> {
    let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8")?;
    let raw = Raw::parse(text).ok_or("it is no JSON value")?;
    match raw.is_object() {
        true => Ok(raw),
        false => Err("it is no object".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::WorkerId;
    use crate::core::delegation::{Begun, Delegations, Ticket, To};
    use crate::core::ids::Time;
    use crate::wire::node_ipc::{Message, What};

    #[test]
    fn messages_to_a_program_and_from_it() {
        let line = heard(3, 77, "{\"cmd\":\"x\",\"n\":12345678901234567890}");
        assert_eq!(
            line,
            "{\"slot\":3,\"pid\":77,\"msg\":{\"cmd\":\"x\",\"n\":12345678901234567890}}"
        );
        let back = said(line.as_bytes()).unwrap();
        assert_eq!(back.slot, Some(3));
        assert_eq!(back.msg, "{\"cmd\":\"x\",\"n\":12345678901234567890}");
        assert_eq!(said(b"{\"msg\":[1]}").unwrap().slot, None);
        assert_eq!(said(b"{\"slot\":null,\"msg\":0}").unwrap().slot, None);
        for (bad, why) in [
            (&b"{}"[..], "no msg"),
            (b"{\"slot\":\"1\",\"msg\":1}", "no number of a slot"),
            (b"{\"slot\":-1,\"msg\":1}", "no number of a slot"),
            (b"[1]", "no object"),
            (b"msg", "no JSON"),
            (b"\"\xff\"", "not UTF-8"),
        ] {
            assert!(said(bad).unwrap_err().contains(why));
        }
    }

    #[test]
    fn work_goes_out_with_who_asks_and_comes_back_to_who_has_asked() {
        let text = "{\"type\":\"delegate\",\"delegate\":\"read\",\"expect\":\"config\",\
            \"matches\":[\"domain\"],\"domain\":{\"a\":1,\"b\":12345678901234567890},\"origin\":7}";
        let What::Delegate(wanted) = Message::parse(text.into()).unwrap().what else {
            panic!();
        };
        let mut d = Delegations::default();
        let ticket = Ticket {
            program: 1,
            line: 1,
        };
        let begun = d.ask(WorkerId(1), *wanted, text, ticket, Time(0));
        assert_eq!(begun, Begun::Work);
        let line = work(2, 77, text);
        assert!(
            line.ends_with(",\"origin\":{\"slot\":2,\"pid\":77}}"),
            "{line}"
        );
        assert!(!line.contains("\"origin\":7"));
        // A program that gives back what it got, and more; and one that only says what it is about.
        let same = answer(line.as_bytes()).unwrap();
        assert_eq!(same.called.as_deref(), Some("config"));
        let other = answer(b"{\"type\":\"else\",\"domain\":1}").unwrap();
        assert_eq!(other.called.as_deref(), Some("else"));
        let short =
            answer(b"{ \"domain\" : { \"b\" : 12345678901234567890, \"a\" : 1.0 } }").unwrap();
        assert_eq!(short.called, None);
        let none = d.answered("read", other.called.as_deref(), other.fields());
        assert!(none.is_empty());
        let all = d.answered("read", short.called.as_deref(), short.fields());
        assert_eq!(
            all.into_iter().collect::<Vec<_>>(),
            [("config".into(), To::All)]
        );
        assert_eq!(work(0, 1, "{}"), "{\"origin\":{\"slot\":0,\"pid\":1}}");
    }
}
