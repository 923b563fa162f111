//! One answer from each worker to one message (proteus-cluster's sync_send): who is waited for. Rules:
//!
//! 1. An answer is the first message with the same `cmd` that comes from a worker that is waited for.
//! 2. So only one for each `cmd` is under way at a time: another one would take its answers.
//! 3. A worker that is gone, or whose channel is closed, will not answer: it counts as having said nothing.
//! 4. All have answered, or the time is over, or the answers are too large together: then whoever asked
//!    is told.
//! 5. If they have hung up, the answers that come are still those to this, and no events; but they are
//!    waited for only `FOR_NOBODY` longer, so that its `cmd`, and its place, are not taken for a day.

use super::ids::{Asker, Time, WorkerId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// So many at a time.
pub const MAX_GATHERS: usize = 64;
/// So long answers are waited for that nobody will be told.
pub const FOR_NOBODY: Duration = Duration::from_secs(5);
/// Bytes of all answers to one.
pub const MAX_GATHERED: usize = 8 * 1024 * 1024;

/// What a worker that does not answer has said.
const NOTHING: &str = "\"\"";

/// All that are under way, by their `cmd`.
#[derive(Default, Serialize, Deserialize)]
pub struct Gathers {
    map: BTreeMap<String, Gather>,
}

#[derive(Serialize, Deserialize)]
struct Gather {
    asker: Asker,
    within: Duration,
    by: Time,
    /// In the order of the slots: who, and what it has said.
    answers: Vec<(WorkerId, Option<String>)>,
    size: usize,
}

/// How one has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gathered {
    /// Who is told.
    pub asker: Asker,
    /// What.
    pub result: Result<Vec<String>, Unanswered>,
}

/// Why there are no answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unanswered {
    /// The time was over before all had answered.
    Late {
        /// To what.
        cmd: String,
        /// How long they had.
        within: Duration,
        /// Those that had not.
        missing: Vec<WorkerId>,
        /// How many were asked.
        of: usize,
    },
    /// They have more than `MAX_GATHERED` bytes together.
    TooLarge,
    /// One for the same `cmd` is under way, or there are too many.
    Busy,
}

/// What a message was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// No answer that is waited for.
    NotAwaited,
    /// One of those.
    Taken,
    /// The last one, or one too many.
    Over(Gathered),
}

impl Gather {
    fn missing(&self) -> impl Iterator<Item = WorkerId> + '_ {
        let none = self.answers.iter().filter(|(_, a)| a.is_none());
        none.map(|(worker, _)| *worker)
    }

    fn is_whole(&self) -> bool {
        self.missing().next().is_none()
    }

    /// It is over: what has been said.
    fn end(self) -> Gathered {
        let all = self.answers.into_iter().map(|(_, a)| a);
        let result = match self.size > MAX_GATHERED {
            true => Err(Unanswered::TooLarge),
            false => Ok(all.map(|a| a.unwrap_or_else(|| NOTHING.into())).collect()),
        };
        let asker = self.asker;
        Gathered { asker, result }
    }
}

impl Gathers {
    /// May one of that `cmd` begin?
    pub fn is_free(&self, cmd: &str) -> bool {
        !self.map.contains_key(cmd) && self.map.len() < MAX_GATHERS
    }

    /// These are asked, in the order of their slots; of those that the message does not reach it is
    /// known by now. An end means that it is over already.
    pub fn begin(
        &mut self,
        cmd: &str,
        asker: Asker,
        workers: Vec<(WorkerId, bool)>,
        within: Duration,
        now: Time,
    ) -> Option<Gathered> {
        if !self.is_free(cmd) {
            let result = Err(Unanswered::Busy);
            return Some(Gathered { asker, result });
        }
        let answer = |(worker, reached): (WorkerId, bool)| {
            let said = (!reached).then(|| NOTHING.to_string());
            (worker, said)
        };
        let gather = Gather {
            asker,
            within,
            by: now + within,
            answers: workers.into_iter().map(answer).collect(),
            size: 0,
        };
        if gather.is_whole() {
            return Some(gather.end());
        }
        self.map.insert(cmd.to_string(), gather);
        None
    }

    /// A worker says something of that `cmd`: `msg` is JSON.
    pub fn heard(&mut self, worker: WorkerId, cmd: &str, msg: Option<&str>) -> Heard {
        let Some(gather) = self.map.get_mut(cmd) else {
            return Heard::NotAwaited;
        };
        let awaited = |(w, said): &&mut (WorkerId, Option<String>)| *w == worker && said.is_none();
        let Some((_, said)) = gather.answers.iter_mut().find(awaited) else {
            return Heard::NotAwaited;
        };
        let msg = msg.unwrap_or(NOTHING);
        gather.size += msg.len();
        let large = gather.size > MAX_GATHERED;
        *said = Some(match large {
            true => NOTHING.into(),
            false => msg.to_string(),
        });
        if large || gather.is_whole() {
            let over = self.map.remove(cmd).map(Gather::end);
            return over.map_or(Heard::Taken, Heard::Over);
        }
        Heard::Taken
    }

    /// Nothing more comes from it: those that are over by that.
    pub fn gone(&mut self, worker: WorkerId) -> Vec<Gathered> {
        for gather in self.map.values_mut() {
            let of_it = gather.answers.iter_mut().filter(|(w, _)| *w == worker);
            for (_, said) in of_it {
                said.get_or_insert_with(|| NOTHING.into());
            }
        }
        let over = self.take(Gather::is_whole).into_iter();
        over.map(|(_, gather)| gather.end()).collect()
    }

    /// Who has asked hears nothing of it any more.
    pub fn asker_gone(&mut self, asker: Asker, now: Time) {
        let until = now + FOR_NOBODY;
        let its = |g: &&mut Gather| g.asker == asker && g.by > until;
        for gather in self.map.values_mut().filter(its) {
            gather.within = gather.within.saturating_sub(gather.by - until);
            gather.by = until;
        }
    }

    /// Those whose time is over.
    pub fn overdue(&mut self, now: Time) -> Vec<Gathered> {
        let late = |(cmd, g): (String, Gather)| Gathered {
            asker: g.asker,
            result: Err(Unanswered::Late {
                cmd,
                within: g.within,
                missing: g.missing().collect(),
                of: g.answers.len(),
            }),
        };
        let over = self.take(|g| g.by <= now);
        over.into_iter().map(late).collect()
    }

    fn take(&mut self, which: impl Fn(&Gather) -> bool) -> Vec<(String, Gather)> {
        let over: Vec<String> = self
            .map
            .iter()
            .filter(|(_, g)| which(g))
            .map(|(cmd, _)| cmd.clone())
            .collect();
        let out = over.iter().filter_map(|cmd| self.map.remove_entry(cmd));
        out.collect()
    }

    /// When the first one's time is over.
    pub fn deadline(&self) -> Option<Time> {
        self.map.values().map(|g| g.by).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: [WorkerId; 3] = [WorkerId(7), WorkerId(3), WorkerId(5)];
    const A: Asker = Asker(1);

    fn ns(n: u64) -> Duration {
        Duration::from_nanos(n)
    }

    fn all() -> Vec<(WorkerId, bool)> {
        W.iter().map(|w| (*w, true)).collect()
    }

    fn done(asker: Asker, answers: &[&str]) -> Gathered {
        let result = Ok(answers.iter().map(|a| a.to_string()).collect());
        Gathered { asker, result }
    }

    #[test]
    fn answers_stand_in_the_order_of_the_slots_however_they_come() {
        let mut g = Gathers::default();
        assert_eq!(g.begin("ping", A, all(), ns(9), Time(0)), None);
        assert_eq!(
            g.heard(W[2], "ping", Some("12345678901234567890")),
            Heard::Taken
        );
        // Not what is waited for: another cmd, another worker, a second answer.
        assert_eq!(g.heard(W[0], "pong", Some("1")), Heard::NotAwaited);
        assert_eq!(g.heard(WorkerId(9), "ping", Some("1")), Heard::NotAwaited);
        assert_eq!(g.heard(W[2], "ping", Some("2")), Heard::NotAwaited);
        assert_eq!(g.heard(W[0], "ping", None), Heard::Taken);
        assert_eq!(g.deadline(), Some(Time(9)));
        let end = done(A, &["\"\"", "[1]", "12345678901234567890"]);
        assert_eq!(g.heard(W[1], "ping", Some("[1]")), Heard::Over(end));
        assert!(g.deadline().is_none() && g.map.is_empty());
    }

    #[test]
    fn who_has_gone_or_cannot_be_reached_has_said_nothing() {
        let mut g = Gathers::default();
        let some = vec![(W[0], true), (W[1], false), (W[2], true)];
        assert_eq!(g.begin("ping", A, some, ns(9), Time(0)), None);
        assert_eq!(g.gone(W[1]), []);
        assert_eq!(g.heard(W[0], "ping", Some("1")), Heard::Taken);
        assert_eq!(g.gone(W[0]), [], "it has answered before");
        assert_eq!(g.gone(W[2]), [done(A, &["1", "\"\"", "\"\""])]);
        let none = vec![(W[0], false)];
        assert_eq!(
            g.begin("ping", A, none, ns(9), Time(0)),
            Some(done(A, &["\"\""]))
        );
        assert_eq!(
            g.begin("ping", A, vec![], ns(9), Time(0)),
            Some(done(A, &[]))
        );
        assert!(g.map.is_empty());
    }

    #[test]
    fn one_of_a_name_at_a_time_and_each_has_its_end() {
        let mut g = Gathers::default();
        assert_eq!(g.begin("ping", A, all(), ns(9), Time(0)), None);
        let busy = Gathered {
            asker: Asker(2),
            result: Err(Unanswered::Busy),
        };
        assert_eq!(g.begin("ping", Asker(2), all(), ns(8), Time(0)), Some(busy));
        assert_eq!(g.begin("other", Asker(3), all(), ns(20), Time(0)), None);
        g.heard(W[0], "ping", None);
        assert_eq!(g.overdue(Time(8)), []);
        let late = Gathered {
            asker: A,
            result: Err(Unanswered::Late {
                cmd: "ping".into(),
                within: ns(9),
                missing: vec![W[1], W[2]],
                of: 3,
            }),
        };
        assert_eq!(g.overdue(Time(9)), [late]);
        assert_eq!(g.heard(W[1], "ping", None), Heard::NotAwaited);
        assert!(g.is_free("ping") && !g.is_free("other"));
        for n in 1..MAX_GATHERS {
            assert_eq!(g.begin(&n.to_string(), A, all(), ns(9), Time(0)), None);
        }
        assert!(!g.is_free("one more"));
    }

    #[test]
    fn for_one_that_has_hung_up_answers_are_not_waited_for_long() {
        let mut g = Gathers::default();
        let day = Duration::from_secs(24 * 3600);
        for n in 0..MAX_GATHERS as u64 {
            let (cmd, asker) = (n.to_string(), Asker(n));
            assert_eq!(g.begin(&cmd, asker, all(), day, Time(0)), None);
        }
        let (gone, end) = (Time(0) + ns(7), Time(0) + ns(7) + FOR_NOBODY);
        g.asker_gone(Asker(3), gone);
        // Once.
        g.asker_gone(Asker(3), gone + ns(1));
        assert_eq!(g.deadline(), Some(end));
        // Until then it is as it was: its answers are no events, and nobody else has its cmd.
        assert!(!g.is_free("3"));
        assert_eq!(g.heard(W[0], "3", None), Heard::Taken);
        let over = g.overdue(end);
        let late = Unanswered::Late {
            cmd: "3".into(),
            within: ns(7) + FOR_NOBODY,
            missing: vec![W[1], W[2]],
            of: 3,
        };
        let (asker, result) = (Asker(3), Err(late));
        assert_eq!(over, [Gathered { asker, result }]);
        assert!(g.is_free("3") && g.map.len() == MAX_GATHERS - 1);
        // One that would be over before that is not longer for it.
        assert_eq!(g.begin("3", Asker(99), all(), ns(1), end), None);
        g.asker_gone(Asker(99), end);
        assert_eq!(g.deadline(), Some(end + ns(1)));
    }

    #[test]
    fn answers_that_are_too_large_together_are_not_kept() {
        let mut g = Gathers::default();
        let long = "x".repeat(MAX_GATHERED / 2 + 1);
        g.begin("ping", A, all(), ns(9), Time(0));
        assert_eq!(g.heard(W[0], "ping", Some(&long)), Heard::Taken);
        let end = Gathered {
            asker: A,
            result: Err(Unanswered::TooLarge),
        };
        assert_eq!(g.heard(W[1], "ping", Some(&long)), Heard::Over(end));
        assert!(g.map.is_empty());
    }
}
