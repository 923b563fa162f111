//! How a worker is emptied before it is asked to stop. Rules:
//!
//! 1. Emptying -> Quiescing -> Closing -> Drained, then the stop signal (I3). `server` skips the middle
//!    two, `none` all. Whatever it is, at --drain-timeout and a moment for Closing it is over.
//! 2. Emptying: until those of its lanes to which nothing is steered any more hold nothing: no handshake
//!    that was under way, no connection that nobody has accepted. (By others its siblings go on, and it
//!    does not wait for these, nor for what nobody serves.) The queue is looked at first, the connections after it: what is
//!    accepted in between is seen twice, never not at all.
//! 3. Quiescing: until its connections have ended. Those on which nothing is owed and nothing was
//!    said for --drain-quiet are ended; in the second half of the time those, too, whose clients never
//!    rest: a request that is under way has the rest of it. Closing: all others. No further request is let in by them where
//!    that is possible, and each is ended at a moment when nothing is owed; if its lanes hold something
//!    still, that has this moment, too. On a machine that is so busy that there were hardly any looks
//!    it has that time once or twice more.
//! 4. A worker whose lane is still steered to (its siblings stay), or whose connections cannot be
//!    ended from outside, goes at the first look at which it owes nothing; the former, whose connections
//!    are ended as with others meanwhile (who comes back goes to its siblings, mostly), in the first half
//!    of the time only when it has none. To that somebody may have come since: it is looked at once more
//!    while it is stopped, and goes from there, or goes on.
//!    One that cannot be looked into has all the time there is.
//! 5. Those of one generation that share a lane leave together: what one of them does to it when it
//!    stops (shutdown(2), as some do) must not end the accept(2) of another that still works. One that
//!    has only sockets or lanes of its own (`own`, `balance`) is emptied, and leaves, alone.
//! 6. While somebody drains it is looked at, less and less often; else never.

use super::action::Action;
use super::deadlines::Why;
use super::event::{LaneLook, Load, Sight};
use super::ids::{LaneId, Time, WorkerId};
use super::lane::{Lane, LaneState, Of};
use super::notice::{Cause, Notice};
use super::phase::{Phase, Step};
use super::policy::Drain;
use super::worker::{State, Worker};
use super::{Cluster, Out};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// The first look: a connection that was on its way into a lane when that was steered away from is in
/// it by then (the kernel takes microseconds).
const FIRST_LOOK: Duration = Duration::from_millis(10);
/// The next ones,
const LOOK_SOON: Duration = Duration::from_millis(5);
/// so many,
const SOON: u32 = 8;
/// and the rest, each half as long again, up to that.
const LOOK_LONGEST: Duration = Duration::from_millis(250);
/// The longest while somebody drains who gets more, whose moments without any are short.
const LOOK_JOINED: Duration = Duration::from_millis(25);
/// While the last connections are ended: each has its moments.
const LOOK_CLOSING: Duration = Duration::from_millis(20);
/// There is a look, at least, when so much of that is left: it ends those who would be cut off.
pub const LAST_LOOK: Duration = Duration::from_millis(30);
/// Looking takes no more than this part of the time: of the first looks, when most have only some
/// milliseconds to go,
const SHARE_SOON: u32 = 2;
/// and of the others.
const SHARE: u32 = 20;
/// One that is looked at while it is stopped goes on for so many times as long before the next time.
const SHARE_STOPPED: u32 = 4;
/// So long the last connections have to come to a moment when nothing is owed on them.
pub const CLOSING: Duration = Duration::from_secs(1);
/// At so few looks one whose client never rests may have been unlucky each time:
const ENOUGH_LOOKS: u32 = 12;
/// so often it has that time again then.
const AGAIN: u32 = 2;

/// How far a worker is that is being emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// Its lanes are.
    Emptying,
    /// Its connections end.
    Quiescing,
    /// The rest of them are ended.
    Closing,
    /// It waits for its siblings, to leave with them.
    Drained,
}

impl Cluster {
    /// The worker has to go, for this cause: emptied first, if it may serve. (One that is not ready by
    /// the rule may listen already, and share the queue of those that are.)
    pub(super) fn retire(&mut self, id: WorkerId, cause: Cause, now: Time, out: &mut Out) {
        let drain_by = self.drain_by_of(id, now);
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        let serves = w.may_serve() && self.policy.drain != Drain::None;
        if !serves {
            return self.ask_to_stop(id, cause, now, out);
        }
        w.state = State::Retiring {
            stage: Stage::Emptying,
            cause,
            since: now,
        };
        let who = w.who();
        self.deadlines.stop_worker(id);
        self.deadlines.set(Why::Drain(id), drain_by);
        self.looks = 0;
        self.deadlines.set(Why::Census, now + FIRST_LOOK);
        out.push(Action::Note(Notice::Draining { who, cause }));
    }

    /// Is somebody being emptied?
    pub fn drains(&self) -> bool {
        self.fleet.iter().any(|w| w.stage().is_some())
    }

    /// Is nobody let in any more?
    fn refuses(&self) -> bool {
        match self.phase {
            Phase::Serving | Phase::Done(_) => false,
            Phase::Stopping { step, .. } => step != Step::Delay && self.policy.drain != Drain::None,
        }
    }

    /// Lanes by which this worker gets its connections.
    pub(super) fn lanes_of(&self, w: &Worker) -> impl Iterator<Item = &Lane> {
        let own = self.lanes.of(Of::Worker(w.id));
        let seat = self.lanes.of(Of::Seat(w.seat));
        let shared = self.lanes.shared_of(w.id, w.reader());
        let others = seat.chain(shared).filter(|l| !w.owns.contains(&l.port));
        // (What is only passed on is none by which connections come.)
        own.chain(others).filter(|l| l.is_a_port())
    }

    /// Does nothing new come by this lane?
    fn lane_is_apart(&self, l: &Lane) -> bool {
        match l.state {
            LaneState::Open => self.refuses() || (l.of != Of::All && !self.is_steered(l)),
            LaneState::Opening(_) => true,
            // They listen by themselves.
            LaneState::Closed => false,
        }
    }

    /// Does nothing new come to this worker?
    pub(super) fn is_apart(&self, w: &Worker) -> bool {
        let mut lanes = self.lanes_of(w).peekable();
        lanes.peek().is_some() && lanes.all(|l| self.lane_is_apart(l))
    }

    /// Those of its lanes that hold something still, and get no more.
    fn not_emptied(&self, w: &Worker) -> impl Iterator<Item = &Lane> {
        let full = |l: &&Lane| l.state == LaneState::Open && !l.emptied && !self.is_unserved(l);
        let lanes = self.lanes_of(w).filter(full);
        lanes.filter(|l| self.lane_is_apart(l))
    }

    /// It is time to look.
    pub(super) fn take_census(&mut self, now: Time, out: &mut Out) {
        let draining = |w: &&Worker| w.stage().is_some_and(|s| s != Stage::Drained);
        let all: Vec<&Worker> = self.fleet.iter().filter(draining).collect();
        if all.is_empty() {
            return;
        }
        let lanes: BTreeSet<LaneId> = all
            .iter()
            .flat_map(|w| self.not_emptied(w))
            .map(|l| l.id)
            .collect();
        // The answer sets it anew.
        self.deadlines.set(Why::Census, now + LOOK_LONGEST);
        out.push(Action::TakeCensus {
            workers: all.iter().map(|w| w.id).collect(),
            lanes: lanes.into_iter().collect(),
        });
    }

    /// What the look has shown.
    pub(super) fn census(
        &mut self,
        lanes: &[LaneLook],
        loads: &[(WorkerId, Load)],
        took: Duration,
        now: Time,
        out: &mut Out,
    ) {
        for look in lanes.iter().filter(|l| l.handshakes == 0 && l.queued == 0) {
            if let Some(lane) = self.lanes.get_mut(look.lane) {
                lane.emptied = true;
            }
        }
        for (id, load) in loads {
            self.assess(*id, *load, now, out);
        }
        self.looks = self.looks.saturating_add(1);
        let later = self.looks.saturating_sub(SOON).min(16);
        let gap = LOOK_SOON.mul_f64(1.5f64.powi(later as i32));
        let closes = |w: &Worker| w.stage() == Some(Stage::Closing);
        let joined = |w: &Worker| w.stage().is_some() && self.may_get_more(w.id);
        let (gap, share) = match later {
            _ if self.fleet.iter().any(closes) => (gap.min(LOOK_CLOSING), SHARE_SOON),
            1.. if self.fleet.iter().any(joined) => (gap.min(LOOK_JOINED), SHARE),
            0 => (gap, SHARE_SOON),
            _ => (gap.min(LOOK_LONGEST), SHARE),
        };
        let gap = gap.max(took * share);
        if self.looks_on() {
            let last = self.last_looks().filter(|at| now < *at);
            self.deadlines
                .set(Why::Census, last.fold(now + gap, Time::min));
        }
    }

    /// When it has to be looked for the last time at each of whom the last connections are ended.
    fn last_looks(&self) -> impl Iterator<Item = Time> {
        let closing = |w: &&Worker| w.stage() == Some(Stage::Closing);
        let ids = self.fleet.iter().filter(closing).map(|w| w.id);
        ids.filter_map(|id| Some(self.deadlines.get(Why::Drain(id))?.before(LAST_LOOK)))
    }

    fn assess(&mut self, id: WorkerId, load: Load, now: Time, out: &mut Out) {
        let Some(w) = self.fleet.get(id) else { return };
        let Some(mut stage) = w.stage() else { return };
        let (apart, joined) = (self.is_apart(w), self.may_get_more(id));
        let half = self.policy.drain_timeout / 2;
        let late = w.retiring().is_some_and(|(.., since)| now - since >= half);
        let emptied = self.not_emptied(w).next().is_none();
        if stage == Stage::Emptying && emptied {
            stage = match self.policy.drain {
                Drain::Connections => Stage::Quiescing,
                Drain::Server | Drain::None => Stage::Drained,
            };
        }
        stage = match (stage, load.sight) {
            (Stage::Emptying | Stage::Drained, _) => stage,
            (Stage::Quiescing | Stage::Closing, Sight::None) => match w.ready_since {
                Some(_) => stage,
                // A start that is broken off is not waited for in the dark.
                None => Stage::Drained,
            },
            (Stage::Quiescing | Stage::Closing, Sight::Full) if load.open == 0 && emptied => {
                Stage::Drained
            }
            (Stage::Quiescing | Stage::Closing, Sight::Full)
                if !apart && emptied && (load.open == 0 || late && load.owed == 0) =>
            {
                Stage::Drained
            }
            (Stage::Quiescing | Stage::Closing, Sight::Full) => {
                out.push(match stage {
                    Stage::Closing => Action::CloseRest {
                        worker: id,
                        left: self
                            .deadlines
                            .get(Why::Drain(id))
                            .map_or(CLOSING, |by| by - now),
                    },
                    Stage::Emptying | Stage::Quiescing | Stage::Drained => Action::CloseQuiet {
                        worker: id,
                        silent: self.policy.drain_quiet,
                        late,
                    },
                });
                stage
            }
            (Stage::Quiescing | Stage::Closing, Sight::LookOnly) => match load.owed {
                0 if emptied => Stage::Drained,
                _ => stage,
            },
        };
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        let before = w.stage();
        w.last_looks = w
            .last_looks
            .saturating_add(u32::from(stage == Stage::Closing));
        w.open = load.open;
        w.comes_to(stage);
        // Its siblings may have the moment for their last connections still, and it leaves with them.
        let by = self.deadlines.get(Why::Drain(id));
        let early = matches!(before, Some(Stage::Emptying | Stage::Quiescing)) && !joined;
        if let (Stage::Drained, Drain::Connections, true, Some(by)) =
            (stage, self.policy.drain, early, by)
        {
            let by = self.closing_by(id, by);
            self.deadlines.set(Why::Drain(id), by);
        }
    }

    /// So many of its connections were ended from outside.
    pub(super) fn closed(&mut self, id: WorkerId, count: u32) {
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        // The look that showed them was before: what has been ended is not cut as well.
        w.open = w.open.saturating_sub(count);
        match w.stage() {
            Some(Stage::Closing) => w.ended = w.ended.saturating_add(count),
            Some(Stage::Emptying | Stage::Quiescing | Stage::Drained) | None => {
                w.closed = w.closed.saturating_add(count);
            }
        }
    }

    /// --drain-timeout is over for this one, or what it had for the rest.
    pub(super) fn drain_over(&mut self, id: WorkerId, now: Time, out: &mut Out) {
        let Some(w) = self.fleet.get(id) else { return };
        if w.at_rest_asked {
            // It is known in this turn. (Not now: what is due now is seen to until nothing is.)
            return self.deadlines.set(Why::Drain(id), now + LOOK_SOON);
        }
        let more = match w.stage() {
            Some(Stage::Emptying | Stage::Quiescing) => self.policy.drain == Drain::Connections,
            Some(Stage::Closing | Stage::Drained) | None => false,
        };
        if !more {
            return match self.again_by(id, now) {
                Some(by) => self.deadlines.set(Why::Drain(id), by),
                None => self.leave_now(id, now, out),
            };
        }
        if let Some(w) = self.fleet.get_mut(id) {
            w.comes_to(Stage::Closing);
            w.last_moments = true;
        }
        let by = self.closing_by(id, now);
        self.deadlines.set(Why::Drain(id), by);
        self.deadlines.set(Why::Census, now);
        self.looks = 0;
    }

    /// When its last moments are over that it has again: there were too few looks, at it or at one with
    /// which it leaves.
    fn again_by(&mut self, id: WorkerId, now: Time) -> Option<Time> {
        let by = self.closing_by(id, now);
        let w = self.fleet.get(id).filter(|w| w.again < AGAIN && now < by)?;
        let few = |w: &Worker| w.stage() == Some(Stage::Closing) && w.last_looks < ENOUGH_LOOKS;
        let sibling = |s: &Worker| few(s) && s.generation == w.generation;
        let again = match w.stage()? {
            Stage::Closing => few(w),
            Stage::Drained => {
                self.policy.drain == Drain::Connections && self.fleet.iter().any(sibling)
            }
            Stage::Emptying | Stage::Quiescing => false,
        };
        self.fleet.get_mut(id).filter(|_| again)?.again += 1;
        Some(by)
    }

    /// Is there anybody whose emptying has to be looked at?
    fn looks_on(&self) -> bool {
        let busy = |w: &Worker| w.stage().is_some_and(|s| s != Stage::Drained);
        self.fleet.iter().any(busy)
    }

    /// After each event: those that wait for nobody any more leave, and without anybody to look at
    /// nothing is looked at. (One may have ended by itself, or been killed.)
    pub(super) fn drain_progress(&mut self, now: Time, out: &mut Out) {
        self.leave_together(now, out);
        if !self.looks_on() {
            self.deadlines.stop(Why::Census);
        }
    }

    /// Those that are drained leave when their siblings are, too.
    fn leave_together(&mut self, now: Time, out: &mut Out) {
        let drained = |w: &Worker| w.stage() == Some(Stage::Drained);
        if !self.fleet.iter().any(drained) {
            return;
        }
        let alone = |l: &Lane| matches!(l.of, Of::Worker(_) | Of::Seat(_));
        let shares = |w: &Worker| self.lanes_of(w).any(|l| !alone(l));
        let busy = |w: &&Worker| w.stage().is_some_and(|s| s != Stage::Drained) && shares(w);
        let busy: BTreeSet<u32> = self
            .fleet
            .iter()
            .filter(busy)
            .map(|w| w.generation)
            .collect();
        let waits = |w: &Worker| busy.contains(&w.generation) && shares(w) && self.is_apart(w);
        let drained = self.fleet.iter().filter(|w| drained(w));
        let leave: Vec<WorkerId> = drained.filter(|w| !waits(w)).map(|w| w.id).collect();
        for id in leave {
            match self.may_get_more(id) {
                true => self.leave_at_rest(id, out),
                false => self.leave_now(id, now, out),
            }
        }
    }

    /// Does somebody still come to it, whom it may have accepted since it was looked at?
    fn may_get_more(&self, id: WorkerId) -> bool {
        let mut lanes = self
            .fleet
            .get(id)
            .into_iter()
            .flat_map(|w| self.lanes_of(w));
        let open = lanes.any(|l| !self.lane_is_apart(l));
        open && self.policy.drain == Drain::Connections
    }

    fn leave_at_rest(&mut self, id: WorkerId, out: &mut Out) {
        let signal = self.policy.stop_signal;
        let Some(w) = self.fleet.get_mut(id).filter(|w| !w.at_rest_asked) else {
            return;
        };
        w.at_rest_asked = true;
        out.push(Action::DismissAtRest { worker: id, signal });
    }

    /// It was at rest, and is asked to stop; or it is at work again.
    pub(super) fn dismissed(
        &mut self,
        id: WorkerId,
        done: bool,
        took: Duration,
        now: Time,
        out: &mut Out,
    ) {
        let Some(w) = self.fleet.get_mut(id) else {
            return;
        };
        let asked = std::mem::take(&mut w.at_rest_asked);
        let Some((_, cause, _)) = w.retiring().filter(|_| asked) else {
            // It has ended, or was killed, in this turn.
            return;
        };
        if done {
            self.note_drained(id, now, out);
            self.has_to_stop(id, cause, now);
            return;
        }
        let stage = match w.last_moments {
            true => Stage::Closing,
            false => Stage::Quiescing,
        };
        w.comes_to(stage);
        let next = now + LOOK_SOON.max(took * SHARE_STOPPED);
        let census = self.deadlines.get(Why::Census).unwrap_or(next);
        self.deadlines.set(Why::Census, census.max(next));
    }

    /// However empty it is: it is asked to stop now.
    pub(super) fn leave_now(&mut self, id: WorkerId, now: Time, out: &mut Out) {
        let Some((_, cause, _)) = self.fleet.get(id).and_then(Worker::retiring) else {
            return;
        };
        self.note_drained(id, now, out);
        self.send_stop(id, cause, now, out);
    }

    fn note_drained(&self, id: WorkerId, now: Time, out: &mut Out) {
        let Some(w) = self.fleet.get(id) else { return };
        let Some((stage, _, since)) = w.retiring() else {
            return;
        };
        let after = now - since;
        let notice = Notice::Drained {
            who: w.who(),
            after,
            closed: w.closed,
            ended: w.ended,
            cut: match stage {
                Stage::Drained => 0,
                Stage::Emptying | Stage::Quiescing | Stage::Closing => w.open,
            },
            limit: self.drain_limit(after),
        };
        out.push(Action::Note(notice));
    }
}
