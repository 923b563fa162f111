//! What workers say of themselves. Rules:
//!
//! 1. A worker's word that it is ready counts where --ready leaves room for it; said before its exec
//!    is known it is kept.
//! 2. With --watchdog a ready worker must say that it is well; one that does not hangs: SIGABRT, so
//!    that it leaves a core or a trace, SIGKILL after `HANG_GRACE`, and its slot gets another one. The
//!    time begins when it is ready: a start may take as long as --ready-timeout allows.
//! 3. Who may have spoken without being heard has its time anew. So has who was to be heard while the
//!    master was stopped, with its workers perhaps, which is seen by a time that ends late.
//! 4. A ready worker that says that it is not well hangs from that moment, --watchdog or not.
//! 5. A ready worker that wants to be replaced is due for it (`recycle`); nothing else that is said
//!    changes anything.

use super::action::{Action, Whom};
use super::deadlines::Why;
use super::event::Word;
use super::hung::{self, Hang};
use super::ids::{Time, WorkerId};
use super::notice::{Cause, Notice};
use super::outcome::Hitch;
use super::slot::Place;
use super::worker::State;
use super::{Cluster, Out};
use std::time::Duration;

/// So long a worker that hangs has to write its core.
pub const HANG_GRACE: Duration = Duration::from_secs(2);
const SIGABRT: i32 = 6;

impl Cluster {
    pub(super) fn said(&mut self, id: WorkerId, word: Word, now: Time, out: &mut Out) {
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        let who = w.who();
        match (word, w.state) {
            (Word::Ready, State::Spawning | State::Starting { .. }) => {
                out.push(Action::Note(Notice::Said { who, word }));
                let first = !std::mem::replace(&mut w.said_ready, true);
                let counts = w.state == (State::Starting { execed: true }) && w.rule.ends_by_word();
                if first && counts {
                    self.become_ready(id, now, out);
                }
            }
            (Word::Ping, State::Ready { .. }) => {
                w.pinged = Some(now);
                self.watch_pulse(id, now);
            }
            (Word::Trigger, State::Ready { .. }) => self.hangs(id, Hang::Said, now, out),
            (Word::Unheard, State::Ready { .. }) => self.watch_pulse(id, now),
            (Word::Stopping | Word::Retire, State::Ready { .. } | State::Starting { .. }) => {
                out.push(Action::Note(Notice::Said { who, word }));
                self.wishes(id, word, now, out);
            }
            // Known already, or of no use where it is.
            (
                Word::Ready
                | Word::Stopping
                | Word::Retire
                | Word::Ping
                | Word::Trigger
                | Word::Unheard,
                State::Spawning
                | State::Starting { .. }
                | State::Ready { .. }
                | State::Retiring { .. }
                | State::Draining { .. }
                | State::Killed { .. }
                | State::Remnant,
            ) => {}
        }
    }

    /// From here on it has the time of --watchdog until it must be heard.
    pub(super) fn watch_pulse(&mut self, id: WorkerId, now: Time) {
        // (What one that was adopted says goes to the master that it had.)
        let heard = self.fleet.get(id).is_some_and(|w| !w.adopted);
        if let Some(limit) = self.policy.watchdog.filter(|_| heard) {
            self.deadlines.set(Why::Watchdog(id), now + limit);
        }
    }

    /// It was not heard in the time that was to end at `due`.
    pub(super) fn silent(&mut self, id: WorkerId, due: Time, now: Time, out: &mut Out) {
        let ever = self.fleet.get(id).is_some_and(|w| w.pinged.is_some());
        match self.policy.watchdog {
            Some(limit) if hung::kept_back(due, limit, now) => self.watch_pulse(id, now),
            Some(limit) => self.hangs(id, Hang::Silent { limit, ever }, now, out),
            None => {}
        }
    }

    /// It shows in this way that it is not well.
    pub(super) fn hangs(&mut self, id: WorkerId, how: Hang, now: Time, out: &mut Out) {
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        w.state = State::Draining {
            cause: Cause::Hang,
            since: now,
        };
        let notice = Notice::Hangs {
            who: w.who(),
            how,
            then: HANG_GRACE,
        };
        let who = w.who();
        self.full = false;
        self.deadlines.stop_worker(id);
        self.deadlines.set(Why::Kill(id), now + HANG_GRACE);
        out.push(Action::Note(notice));
        out.push(Action::Signal {
            worker: id,
            signal: SIGABRT,
            whom: Whom::Leader,
        });
        if let Place::Current(nr) = self.place_of(id)
            && self.is_watched(id, now)
        {
            self.watched_failed(nr, Hitch::Hangs(who), now, out);
        }
    }
}
