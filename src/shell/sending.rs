//! Messages from outside to the workers: `send`, and `sync-send`, which waits for what each says.

use super::Shell;
use super::clients::ClientId;
use super::messages::Reached;
use super::pipe::parcel;
use super::requests::{Answer, behind};
use crate::core::codes::EX_USAGE;
use crate::core::gather::{Gathered, Unanswered};
use crate::core::words::human;
use crate::core::{Level, Target, Time, Who, WorkerId};
use crate::settings;
use crate::verbs;
use crate::wire::command::Request;
use crate::wire::json::quote;
use crate::wire::node_ipc::{MAX_LINE, millis};
use crate::wire::raw::Raw;
use crate::wire::sent::{Sent, gathered};
use crate::wire::{outcome, sent};
use std::time::Duration;

/// So long an answer of all workers is waited for, unless somebody says otherwise; and at most.
const WITHIN: Duration = Duration::from_secs(5);
const AT_MOST: Duration = Duration::from_secs(24 * 3600);

impl Shell {
    pub(super) fn send(&mut self, r: &Request) -> Answer {
        let words: Vec<&str> = behind(r).filter(|w| *w != verbs::NO_WAIT).collect();
        let (text, target) = match settings::send(&words) {
            Ok(found) => found,
            Err(e) => return (EX_USAGE, format!("{e}\n")),
        };
        let line = match one_line(text) {
            Ok(line) => line,
            Err(e) => return (EX_USAGE, e),
        };
        match target {
            Target::All => self.send_all(&line).answer(r.json),
            Target::Slot(_) | Target::Number(_) | Target::Pid(_) => {
                let Some(meant) = self.cluster.meant(target) else {
                    let slots = self.cluster.bound();
                    return (EX_USAGE, outcome::unknown(target, slots));
                };
                if meant.is_empty() {
                    return (crate::core::codes::FAILED, outcome::nobody(target));
                }
                self.send_some(&line, meant).answer(r.json)
            }
        }
    }

    /// To all who have a channel. (Not told are those in slots that have none.)
    pub(super) fn send_all(&mut self, line: &str) -> Sent {
        let reached = self.broadcast(&parcel(line));
        let has = |w: &WorkerId| reached.told.contains(w) || reached.deaf.contains(w);
        let currents = self.cluster.currents().map(|(_, w)| w);
        let without = currents.filter(|w| !has(w)).collect();
        self.sent(reached, without)
    }

    fn send_some(&mut self, line: &str, to: Vec<(WorkerId, Who)>) -> Sent {
        let parcel = parcel(line);
        let (mut reached, mut without) = (Reached::default(), Vec::new());
        for (worker, _) in to {
            match self.send_to(worker, &parcel) {
                Some(true) => reached.told.push(worker),
                Some(false) => reached.deaf.push(worker),
                None => without.push(worker),
            }
        }
        self.sent(reached, without)
    }

    fn sent(&mut self, reached: Reached, without: Vec<WorkerId>) -> Sent {
        self.post();
        let who = |all: Vec<WorkerId>| {
            let all = all.into_iter();
            all.filter_map(|w| self.cluster.fleet().who(w)).collect()
        };
        let mut sent = Sent {
            told: who(reached.told),
            deaf: who(reached.deaf),
            without: who(without),
        };
        sent.sort();
        sent
    }

    /// `None`: the answer comes when all have answered.
    pub(super) fn sync_send(&mut self, id: ClientId, r: &Request) -> Option<Answer> {
        let words: Vec<&str> = behind(r).filter(|w| *w != verbs::NO_WAIT).collect();
        let (text, within) = match settings::sync_send(&words) {
            Ok(found) => found,
            Err(e) => return Some((EX_USAGE, format!("{e}\n"))),
        };
        let line = match one_line(text) {
            Ok(line) => line,
            Err(e) => return Some((EX_USAGE, e)),
        };
        if behind(r).any(|w| w == verbs::NO_WAIT) {
            return Some(self.send_all(&line).answer(r.json));
        }
        let [cmd, timeout] = Raw::parse(&line)?.members(["cmd", "timeout"]);
        let cmd = cmd.and_then(Raw::string).filter(|c| !c.is_empty());
        if let Some(cmd) = &cmd
            && !self.messages.gathers.is_free(cmd)
        {
            return Some(gathered(&Err(Unanswered::Busy), r.json));
        }
        let sent = self.send_all(&line);
        if sent.told.is_empty() {
            let (code, text) = sent.answer(false);
            return Some((code, outcome::refusal(&text, r.json)));
        }
        let told = |w: &Who| sent.told.contains(w);
        let currents = self.cluster.currents().map(|(_, w)| w);
        let asked: Vec<(WorkerId, bool)> = currents
            .map(|w| (w, self.cluster.fleet().who(w).is_some_and(|who| told(&who))))
            .collect();
        let Some(cmd) = cmd else {
            let each = asked.iter().map(|(_, told)| match told {
                true => "\"OK\"".to_string(),
                false => "\"\"".to_string(),
            });
            return Some(sent::gathered(&Ok(each.collect()), r.json));
        };
        let ms = timeout.and_then(Raw::number).filter(|ms| *ms > 0.0);
        let within = within.or(ms.map(millis)).unwrap_or(WITHIN).min(AT_MOST);
        let now = self.now();
        let (asker, _, _) = self.asks(id, r, true);
        let gathers = &mut self.messages.gathers;
        if let Some(over) = gathers.begin(&cmd, asker, asked, within, now) {
            self.gathered(over);
        }
        None
    }

    /// All have answered that will.
    pub(super) fn gathered(&mut self, over: Gathered) {
        if let Err(Unanswered::Late {
            cmd,
            within,
            missing,
            of,
        }) = &over.result
        {
            let who = |w: &WorkerId| Some(self.cluster.fleet().who(*w)?.to_string());
            let names: Vec<String> = missing.iter().filter_map(who).collect();
            let (n, cmd, within) = (missing.len(), quote(cmd), human(*within));
            let names = names.join(", ");
            let message =
                format!("{n} of {of} workers have not answered to {cmd} within {within}: {names}");
            self.say(Level::Info, "message-unanswered", message);
        }
        self.reply(over.asker, |r| gathered(&over.result, r.json));
    }

    /// Those whose time is over.
    pub(super) fn gathers_due(&mut self, now: Time) {
        for over in self.messages.gathers.overdue(now) {
            self.gathered(over);
        }
    }
}

/// JSON as the channel has it: a value in one line.
pub(super) fn one_line(text: &str) -> Result<String, String> {
    let Some(raw) = Raw::parse(text) else {
        return Err(format!(
            "this is no JSON value, or one nested deeper than {}; a shell wants it in quotes: '{{\"cmd\":\"ping\"}}'\n",
            crate::wire::json::MAX_DEPTH
        ));
    };
    let n = raw.text().len();
    if n > MAX_LINE {
        return Err(format!("{n} bytes of message (limit {MAX_LINE})\n"));
    }
    // Outside of strings it means nothing, and inside JSON has none.
    Ok(raw.text().replace(['\n', '\r'], " "))
}
