//! Workers that are asked whether they are ready (--ready tcp, http:/PATH). Rules:
//!
//! 1. One that listens, or is seen waiting for connections, is asked: by its own lane of the first port,
//!    never by one by which others could answer. So there is a lane for each (`balance`).
//! 2. Who is not ready yet gets no other client: while nobody is ready nobody is let in at all. What
//!    waited in the lane of one that has died is its successor's from the moment that it accepts.
//! 3. It is asked again, after a wait that doubles, until it answers well or --ready-timeout is over; each
//!    time it has `TRY`, or what is left. What it has answered last is the hint then.
//! 4. How it is asked, and what a good answer is, the shell knows.

use super::action::Action;
use super::deadlines::Why;
use super::ids::{LaneId, Time, WorkerId};
use super::lane::{LaneState, Of};
use super::policy::ReadyRule;
use super::worker::{State, Worker};
use super::{Cluster, Out};
use std::time::Duration;

/// So long one has for its answer.
const TRY: Duration = Duration::from_secs(1);
/// First and longest time from one answer to the next question.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_LONGEST: Duration = Duration::from_secs(1);

impl Cluster {
    /// Are workers asked?
    pub(super) fn asks(&self) -> bool {
        self.policy.ready == ReadyRule::Answers && self.lanes.spread
    }

    /// Asks it, unless it is asked just now.
    pub(super) fn probe(&mut self, id: WorkerId, now: Time, out: &mut Out) {
        let left = self.deadlines.get(Why::Ready(id)).map(|by| by - now);
        let Some(w) = self.fleet.get(id).filter(|w| !w.is_asked) else {
            return;
        };
        let lane = self.lane_to_ask(w);
        self.deadlines.stop(Why::Probe(id));
        if let Some(w) = self.fleet.get_mut(id) {
            w.is_asked = true;
        }
        match lane {
            Ok(lane) => {
                let within = left.map_or(TRY, |left| left.min(TRY));
                out.push(Action::Probe {
                    worker: id,
                    lane,
                    within,
                });
            }
            Err(why) => self.probed(id, Err(why.to_string()), now, out),
        }
    }

    /// Its own lane of the first port.
    fn lane_to_ask(&self, w: &Worker) -> Result<LaneId, &'static str> {
        let mut tcp = self.lanes.iter().filter(|l| l.addr.tcp().is_some());
        let first = tcp.next().ok_or("it serves no port of TCP")?;
        match (first.of, first.state) {
            (_, LaneState::Closed) => {
                return Err("it listens on a socket of its own, by which others may answer");
            }
            (Of::All | Of::Generation(_), _) => {
                return Err("its port can have one socket only, by which others may answer");
            }
            (Of::Seat(_) | Of::Worker(_), LaneState::Open | LaneState::Opening(_)) => {}
        }
        let lane = self.lane_of(first.port, w);
        lane.ok_or("it does not listen on the first port")
    }

    /// What has it answered?
    pub(super) fn probed(
        &mut self,
        id: WorkerId,
        answer: Result<(), String>,
        now: Time,
        out: &mut Out,
    ) {
        let Some(w) = self.fleet.get_mut(id).filter(|w| w.is_asked) else {
            return;
        };
        w.is_asked = false;
        match w.state {
            State::Starting { execed: true } => {}
            // Its time is over, or it has gone.
            State::Spawning
            | State::Starting { execed: false }
            | State::Ready { .. }
            | State::Retiring { .. }
            | State::Draining { .. }
            | State::Killed { .. }
            | State::Remnant => return,
        }
        match answer {
            Ok(()) => self.become_ready(id, now, out),
            Err(why) => {
                let gap = AGAIN_FIRST * 2u32.saturating_pow(w.asked.min(8));
                w.asked = w.asked.saturating_add(1);
                w.answer = Some(why);
                self.deadlines
                    .set(Why::Probe(id), now + gap.min(AGAIN_LONGEST));
            }
        }
    }
}
