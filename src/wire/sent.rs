//! What is told to whoever has sent a message to workers: whom it has reached, or what they have said.

use super::json::quote;
use crate::core::Who;
use crate::core::codes::FAILED;
use crate::core::gather::{MAX_GATHERED, Unanswered};

/// An answer: exit code and text.
type Answer = (u8, String);

/// Whom a message has reached.
#[derive(Debug, Default)]
pub struct Sent {
    /// These.
    pub told: Vec<Who>,
    /// Not these: so much waits for them already that they have not read.
    pub deaf: Vec<Who>,
    /// Nor these, which have no channel.
    pub without: Vec<Who>,
}

/// How a worker gets one.
const HINT: &str = "--ipc node gives every worker one (without it those have one whose COMMAND is node, nodejs or bun), until it closes it";

impl Sent {
    /// In the order of the slots.
    pub fn sort(&mut self) {
        for list in [&mut self.told, &mut self.deaf, &mut self.without] {
            list.sort_by_key(|who| (who.slot, who.pid));
        }
    }

    /// As somebody reads it, or a program. It has failed if nobody was reached.
    pub fn answer(&self, json: bool) -> Answer {
        let code = match self.told.is_empty() {
            true => FAILED,
            false => 0,
        };
        match json {
            true => (code, self.json()),
            false => (code, self.text()),
        }
    }

    fn json(&self) -> String {
        let one = |w: &Who| {
            let pid = w.pid.map_or("null".to_string(), |p| p.to_string());
            format!("{{\"slot\":{},\"pid\":{pid}}}", w.slot)
        };
        let list = |all: &[Who]| {
            let all: Vec<String> = all.iter().map(one).collect();
            format!("[{}]", all.join(","))
        };
        format!(
            "{{\"told\":{},\"deaf\":{},\"without\":{}}}\n",
            list(&self.told),
            list(&self.deaf),
            list(&self.without)
        )
    }

    fn text(&self) -> String {
        let n = self.told.len();
        let all = n + self.deaf.len() + self.without.len();
        let mut text = match (n, all) {
            (0, 0) => "there is no worker now".to_string(),
            (1, 1) => "told 1 worker".to_string(),
            (n, all) if n == all => format!("told {n} workers"),
            (0, _) => "told nobody".to_string(),
            (n, all) => format!("told {n} of {all} workers"),
        };
        if !self.deaf.is_empty() {
            text.push_str(&format!(
                "; too much waits already for {}, which do not read",
                named(&self.deaf)
            ));
        }
        if !self.without.is_empty() {
            let those = match n {
                0 => "no worker has a channel".to_string(),
                _ => format!("no channel: {}", named(&self.without)),
            };
            text.push_str(&format!("; {those}: {HINT}"));
        }
        text + "\n"
    }
}

fn named(all: &[Who]) -> String {
    let names: Vec<String> = all.iter().map(Who::to_string).collect();
    names.join(", ")
}

/// What all have said, each JSON: a list of it. Or why there is none, in the words of proteus-cluster.
pub fn gathered(result: &Result<Vec<String>, Unanswered>, json: bool) -> Answer {
    let why = match result {
        Ok(all) => return (0, format!("[{}]\n", all.join(","))),
        Err(Unanswered::Late { .. }) => "worker timeout.".to_string(),
        Err(Unanswered::Busy) => "server too busy.".to_string(),
        Err(Unanswered::TooLarge) => {
            format!("the answers have more than {MAX_GATHERED} bytes together")
        }
    };
    match json {
        true => (FAILED, format!("{{\"error\":{}}}\n", quote(&why))),
        false => (FAILED, format!("{why}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Pid, SlotNr};

    fn who(slot: u16) -> Who {
        Who {
            slot: SlotNr(slot),
            pid: Some(Pid(100 + i32::from(slot))),
        }
    }

    #[test]
    fn whom_a_message_has_reached_and_whom_not() {
        let mut s = Sent {
            told: vec![who(2), who(0)],
            ..Sent::default()
        };
        s.sort();
        assert_eq!(s.answer(false), (0, "told 2 workers\n".into()));
        s.deaf.push(who(1));
        s.without.push(who(3));
        assert_eq!(
            s.answer(false).1,
            format!(
                "told 2 of 4 workers; too much waits already for worker 1 pid 101, which do not read; no channel: worker 3 pid 103: {HINT}\n"
            )
        );
        assert_eq!(
            s.answer(true).1,
            "{\"told\":[{\"slot\":0,\"pid\":100},{\"slot\":2,\"pid\":102}],\"deaf\":[{\"slot\":1,\"pid\":101}],\"without\":[{\"slot\":3,\"pid\":103}]}\n"
        );
        let none = Sent {
            without: vec![who(0)],
            ..Sent::default()
        };
        let (code, text) = none.answer(false);
        assert_eq!(code, FAILED);
        assert_eq!(
            text,
            format!("told nobody; no worker has a channel: {HINT}\n")
        );
        assert_eq!(Sent::default().answer(true).0, FAILED);
    }

    #[test]
    fn answers_are_a_list_as_they_came() {
        let all = Ok(vec!["12345678901234567890".into(), "\"\"".into()]);
        assert_eq!(
            gathered(&all, false),
            (0, "[12345678901234567890,\"\"]\n".into())
        );
        assert_eq!(gathered(&Ok(vec![]), true), (0, "[]\n".into()));
        let late = Err(Unanswered::Late {
            cmd: "x".into(),
            within: std::time::Duration::ZERO,
            missing: vec![],
            of: 2,
        });
        assert_eq!(gathered(&late, false), (1, "worker timeout.\n".into()));
        let busy = gathered(&Err(Unanswered::Busy), true);
        assert_eq!(busy, (1, "{\"error\":\"server too busy.\"}\n".into()));
    }
}
