//! When a worker counts as ready. Rules:
//!
//! 1. What --ready says decides; `auto` is settled at exec, by whether a port is known.
//! 2. One that listens has to keep the lane for `HOLD`: port probes listen, close, listen again. Once
//!    COMMAND has kept one, later workers are ready at listen(2).
//! 3. One that was handed a lane may never call listen(2): it is looked at, less and less often.
//! 4. The start is over when all workers are ready, or at --start-timeout when one is.
//! 5. If the only port known turns out to be none, the wait for it ends.

use super::action::Action;
use super::crash::Rest;
use super::deadlines::Why;
use super::event::Seen;
use super::ids::{LaneId, Time, WorkerId};
use super::notice::Notice;
use super::policy::ReadyRule;
use super::respawn::SETTLED;
use super::slot::{Place, Slot};
use super::worker::{State, Worker};
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A worker must keep the lane that long after listen(2): port probes listen, close, listen again.
pub const HOLD: Duration = Duration::from_millis(50);
/// First and longest time between two looks at a starting worker that was handed a lane.
const LOOK_FIRST: Duration = Duration::from_millis(20);
const LOOK_LONGEST: Duration = Duration::from_secs(1);

/// How the start stands, for whoever waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Launch {
    /// All workers are waited for, until --start-timeout.
    Waiting,
    /// That has passed, and those that had been ready were not by then: the next one will do.
    Overdue,
    /// All were ready, or enough of them.
    Over,
}

impl Cluster {
    pub(super) fn execed(&mut self, id: WorkerId, now: Time, out: &mut Out) {
        let rule = self.ready_rule();
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        self.ever_execed = true;
        match w.state {
            State::Starting { execed: false } => {}
            // The stop came first, or this is an echo.
            State::Spawning
            | State::Starting { execed: true }
            | State::Ready { .. }
            | State::Retiring { .. }
            | State::Draining { .. }
            | State::Killed { .. }
            | State::Remnant => return,
        }
        w.state = State::Starting { execed: true };
        w.rule = rule;
        if w.said_ready && rule.ends_by_word() {
            return self.become_ready(id, now, out);
        }
        match rule {
            ReadyRule::Said => {}
            ReadyRule::Started => self.become_ready(id, now, out),
            ReadyRule::Alive(d) => self.deadlines.set(Why::Alive(id), now + d),
            ReadyRule::Auto => {
                let listened = w.listened.is_some();
                self.deadlines.set(Why::Alive(id), now + SETTLED);
                if listened {
                    self.deadlines.set(Why::Hold(id), now + HOLD);
                }
            }
            // Its listen(2) may have overtaken the news of its exec.
            ReadyRule::Listening if w.listened.is_some() => {
                self.deadlines.set(Why::Hold(id), now + HOLD);
            }
            ReadyRule::Answers if w.listened.is_some() => self.probe(id, now, out),
            ReadyRule::Listening | ReadyRule::Answers => {
                self.deadlines.set(Why::Look(id), now + LOOK_FIRST)
            }
        }
    }

    /// The worker listens on a lane.
    pub(super) fn listened(&mut self, id: WorkerId, lane: LaneId, now: Time, out: &mut Out) {
        let kept = self.kept_a_lane;
        let addr = self.lanes.addr(lane).cloned();
        let first = self.lanes.mark_served(lane) && self.lanes.is_learnt(lane);
        self.end_lead(now);
        self.reads(id, lane, out);
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        w.listened = Some(lane);
        w.serves.insert(lane);
        // (What its predecessor has left there, and nothing else, is no word of it.)
        if let Some(l) = self.lanes.get_mut(lane).filter(|_| w.unreaped()) {
            l.stale = false;
        }
        let (who, after, state, rule) = (w.who(), now - w.born, w.state, w.rule);
        if let Some(addr) = addr {
            if first {
                let learnt_from = Some(who);
                let addr = addr.clone();
                out.push(Action::Note(Notice::LaneOpen { addr, learnt_from }));
            }
            out.push(Action::Note(Notice::Listening { who, addr, after }));
        }
        match state {
            State::Starting { execed: true } if rule.ends_by_listening() => {
                self.deadlines.stop(Why::Look(id));
                if kept {
                    self.become_ready(id, now, out);
                } else {
                    self.deadlines.set(Why::Hold(id), now + HOLD);
                }
            }
            State::Starting { execed: true } if rule == ReadyRule::Answers => {
                self.deadlines.stop(Why::Look(id));
                self.probe(id, now, out);
            }
            // Readiness does not hang on it: other rules, a second port, or it has to go anyway.
            // (A notification can overtake the news of exec; then `execed` takes it from here.)
            State::Spawning
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Retiring { .. }
            | State::Draining { .. }
            | State::Killed { .. }
            | State::Remnant => {}
        }
    }

    pub(super) fn seen(&mut self, id: WorkerId, what: Seen, now: Time, out: &mut Out) {
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        match w.state {
            State::Starting { execed: true } if w.rule.ends_by_listening() => {}
            State::Starting { execed: true } if w.rule == ReadyRule::Answers => {}
            // Only looked at while starting; the answer comes in the turn of the question.
            State::Spawning
            | State::Starting { .. }
            | State::Ready { .. }
            | State::Retiring { .. }
            | State::Draining { .. }
            | State::Killed { .. }
            | State::Remnant => return,
        }
        let (who, asks) = (w.who(), w.rule == ReadyRule::Answers);
        w.accepts |= what == Seen::Accepts;
        if what == Seen::Accepts {
            // On which of them is looked for anew: others may have served fewer.
            self.unserved_looks = 0;
        }
        match what {
            Seen::Holds | Seen::Accepts if asks => self.probe(id, now, out),
            Seen::OwnSocket(addr) if asks => {
                self.own_socket(who, addr, out);
                self.probe(id, now, out);
            }
            Seen::Holds => {
                self.kept_a_lane = true;
                self.become_ready(id, now, out);
            }
            Seen::Accepts => self.become_ready(id, now, out),
            Seen::OwnSocket(addr) => {
                self.own_socket(who, addr, out);
                self.become_ready(id, now, out);
            }
            Seen::Nothing => {
                let left = w.listened.take();
                // Without a known port there is nothing to look for: it is ready when it has lived.
                if w.rule != ReadyRule::Auto {
                    w.looked = w.looked.saturating_add(1);
                    let gap = LOOK_FIRST * 2u32.saturating_pow(w.looked.min(8));
                    self.deadlines
                        .set(Why::Look(id), now + gap.min(LOOK_LONGEST));
                }
                if let Some(lane) = left {
                    out.push(Action::Note(Notice::LetGo { who }));
                    self.lane_left(lane, out);
                }
            }
        }
    }

    pub(super) fn become_ready(&mut self, id: WorkerId, now: Time, out: &mut Out) {
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        w.state = State::Ready { since: now };
        w.ready_since = Some(now);
        let who = w.who();
        let notice = Notice::Ready {
            who,
            after: now - w.born,
        };
        for why in [
            Why::Ready(id),
            Why::Alive(id),
            Why::Hold(id),
            Why::Look(id),
            Why::Probe(id),
        ] {
            self.deadlines.stop(why);
        }
        self.ever_ready = true;
        self.watch_pulse(id, now);
        self.begin_recycling(id, now);
        self.watch_waiting(now);
        if let Place::Current(nr) = self.place_of(id) {
            if let Some(slot) = self.slots.of_mut(nr) {
                slot.proven = true;
            }
        }
        out.push(Action::Note(notice));
        self.say_if_full(now, out);
        self.resize_progress(out);
    }

    /// Says once that all workers are ready, or those that will do.
    pub(super) fn say_if_full(&mut self, now: Time, out: &mut Out) {
        let ready = self.ready_count();
        let wanted = self.slots.open();
        let finished = |s: &&Slot| matches!(s.rest, Some(Rest::Finished(_)));
        let rest = wanted.filter(finished).count();
        if ready > 0 && ready + rest == usize::from(self.wanted) && !self.full {
            self.full = true;
            self.launched();
            let lanes = self.lanes.served_addrs();
            out.push(Action::Note(Notice::AllReady { ready, lanes }));
            self.suspect_unserved(now);
        } else if self.launch == Launch::Overdue {
            self.partly_ready(out);
        }
    }

    fn launched(&mut self) {
        self.launch = Launch::Over;
        self.deadlines.stop(Why::StartTimeout);
    }

    /// The start takes no longer: those that are ready will do, if there are any at this moment.
    pub(super) fn partly_ready(&mut self, out: &mut Out) {
        let (ready, wanted) = (self.ready_count(), usize::from(self.wanted));
        if ready == 0 {
            self.launch = Launch::Overdue;
            return;
        }
        self.launched();
        let limit = self.policy.start_timeout.unwrap_or_default();
        let rests = |s: &&Slot| s.rest.is_some();
        let rest = self.slots.open().filter(rests).count();
        let notice = Notice::PartlyReady {
            ready,
            wanted,
            tries: ready + rest < wanted,
            limit,
        };
        out.push(Action::Note(notice));
    }

    /// The only port that was known has turned out to be none: who waits to be seen listening there
    /// is ready when it has lived, again.
    pub(super) fn expect_no_port(&mut self, now: Time) {
        if self.policy.ready != ReadyRule::Auto {
            return;
        }
        let starting = |w: &&mut Worker| w.state == State::Starting { execed: true };
        for w in self.fleet.iter_mut().filter(starting) {
            if w.rule == ReadyRule::Listening {
                w.rule = ReadyRule::Auto;
                w.listened = None;
                self.deadlines.stop(Why::Look(w.id));
                self.deadlines.stop(Why::Hold(w.id));
                self.deadlines.set(Why::Alive(w.id), now + SETTLED);
            }
        }
    }

    /// What would have helped a worker that was not ready in time.
    pub(super) fn not_ready_hint(&self, id: WorkerId) -> Option<String> {
        let w = self.fleet.get(id)?;
        if let (ReadyRule::Answers, Some(answer)) = (w.rule, &w.answer) {
            return Some(answer.clone());
        }
        let hint = match (w.rule, w.watched) {
            // It did what was asked of it, a moment too late to count.
            (ReadyRule::Listening, _) if w.listened.is_some() => None,
            (ReadyRule::Answers, _) if w.listened.is_some() => {
                Some("it listens, but has not answered yet (--ready)")
            }
            (ReadyRule::Listening | ReadyRule::Answers, true) => Some(
                "it never listened on the port, nor used the socket passed as fd 3: --ready started if it serves none, --takeover THEIRS=OURS if it uses another port",
            ),
            (ReadyRule::Listening | ReadyRule::Answers, false) => {
                Some("it did not use the socket passed as fd 3 (LISTEN_FDS)")
            }
            (ReadyRule::Said, _) => Some(
                "it never said that it is: sd_notify READY=1, a newline on the descriptor of --ready fd:N, process.send('ready') with --ipc, or einhorn's ack",
            ),
            (ReadyRule::Auto | ReadyRule::Started | ReadyRule::Alive(_), _) => None,
        };
        hint.map(String::from)
    }
}
