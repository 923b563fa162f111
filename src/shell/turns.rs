//! The loop: one poll, and a turn each time that it returns. Nothing else may wait. A turn hears all that is
//! ready, tells core that time has passed, performs what it says, and lets clients ask.

use super::output::Output;
use super::pause::Sleep;
use super::signals::Asked;
use super::token::{Kind, untoken};
use super::{Shell, requests};
use crate::core::codes::EX_OSERR;
use crate::core::{Action, Event, LaneId, Level, Time, WorkerId};
use crate::sys::{clock, process};
use std::time::Duration;

/// A terminal that takes nothing is tried again after that long, while something waits for it.
const LOG_AGAIN: Duration = Duration::from_millis(200);

/// With nothing to do for that long there is time to give back memory.
const REST: Duration = Duration::from_millis(500);

/// So long the end waits for whoever reads the log.
const LAST_LINES: Duration = Duration::from_secs(1);

impl Shell {
    /// Runs until core says Finish; returns the exit code.
    pub(super) fn run(&mut self) -> u8 {
        let mut out = Vec::new();
        self.begin_counting();
        self.open_cgroups();
        self.keep_programs();
        self.begin_orphans();
        self.cluster.begin(Time(clock::monotonic()), &mut out);
        self.out.extend(out);
        self.turns(self.now())
    }

    /// The loop. The first turn counts as begun then.
    pub(super) fn turns(&mut self, begun: Time) -> u8 {
        let mut events = mio::Events::with_capacity(256);
        let mut woken = begun;
        loop {
            self.settle();
            self.orphans_due();
            self.write_down();
            self.keep_store();
            self.announce_lost();
            self.tell_supervisor();
            self.watch_console();
            if let Some(code) = self.finished
                && self.jobs_let_go()
            {
                self.close_cgroups();
                self.leave();
                return code;
            }
            let timeout = self.timeout();
            if self.grown && timeout.is_none_or(|t| t >= REST) {
                self.grown = false;
                self.out.shrink_to_fit();
                self.queue.shrink_to_fit();
                self.metrics.rest();
                process::give_back_heap();
                process::give_back_text();
            }
            let sleep = Sleep {
                woken,
                since: self.now(),
                timeout,
            };
            let done = self.poll.poll(&mut events, timeout);
            woken = self.now();
            match done {
                Ok(()) => self.has_slept(sleep, false),
                // Stopped and continued, for one: what waits is heard before time is news.
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {
                    self.has_slept(sleep, true);
                    continue;
                }
                Err(e) => {
                    let message = format!("epoll_wait: {e}");
                    self.say(Level::Error, "poll-error", message);
                    return EX_OSERR;
                }
            }
            self.ready
                .extend(events.iter().filter_map(|e| untoken(e.token())));
            let stalled = self.console_stalls().map(|id| (Kind::Client, id.0));
            self.ready.extend(stalled);
            self.turn();
        }
    }

    /// Performs every action and handles every event until neither is left.
    pub(super) fn settle(&mut self) {
        let mut out = Vec::new();
        loop {
            if let Some(action) = self.out.pop_front() {
                match action {
                    Action::Spawn { .. } if self.waits_to_be_forked() => {
                        self.later.push_back(action)
                    }
                    _ => self.perform(action),
                }
            } else if let Some(event) = self.queue.pop_front() {
                self.cluster.handle(event, self.now(), &mut out);
                self.out.extend(out.drain(..));
            } else {
                return;
            }
        }
    }

    /// Until when to sleep: not at all while a bounded turn left something, for ever if nothing is due.
    fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() || self.clients.doors.more() || self.metrics.reads() {
            return Some(Duration::ZERO);
        }
        let core = self.cluster.deadline().map(|(at, _)| at);
        let fork = self.fork_deadline();
        let stalls = self.log_stalls() || self.console_stalls().is_some();
        let again = stalls.then(|| self.now() + LOG_AGAIN);
        let all = core
            .into_iter()
            .chain(self.clients.deadline())
            .chain(self.house.deadline())
            .chain(fork)
            .chain(again)
            .chain(self.watch_deadline())
            .chain(self.messages.deadline())
            .chain(self.probes.deadline())
            .chain(self.checks.deadline())
            .chain(self.jobs.deadline())
            .chain(self.idling.deadline())
            .chain(self.handover_deadline())
            .chain(self.served.deadline())
            .chain(self.orphans.deadline())
            .chain(self.store_deadline())
            .chain(self.supervisor.deadline())
            .chain(self.output.as_ref().and_then(Output::deadline));
        let next = all.min()?;
        // The poll has milliseconds: rounded up, or the last one would be spent spinning.
        let wait = next - self.now();
        Some(wait.div_ceil_ms())
    }

    /// One turn, in fixed order: the signal flags are read first, so that a child's end is acted
    /// on in the turn that announced it; reports before notifications, since a worker's listener
    /// comes by report; calls of blocked workers before everything that can wait.
    fn turn(&mut self) {
        let ready = std::mem::take(&mut self.ready);
        let of = |kind: Kind| -> Vec<u64> {
            let pick = |(k, n): &(Kind, u64)| (*k == kind).then_some(*n);
            ready.iter().filter_map(pick).collect()
        };
        if !of(Kind::Signals).is_empty() {
            self.signals.drain();
        }
        for n in of(Kind::Report) {
            self.hear_report(WorkerId(n));
            self.settle();
        }
        for n in of(Kind::Takeover) {
            self.hear_calls(WorkerId(n));
        }
        for n in of(Kind::Lane) {
            self.heal_lane(LaneId(n));
        }
        if !of(Kind::Files).is_empty() {
            self.files_changed();
        }
        self.ends_due(!of(Kind::Served).is_empty());
        self.settle();
        if !of(Kind::Watch).is_empty() {
            self.hear_watch();
        }
        if self.signals.take_child() && self.reap() {
            self.signals.again();
            self.ready.insert((Kind::Signals, 0));
        }
        if !of(Kind::Caller).is_empty() {
            self.hear_caller();
        }
        for n in of(Kind::Orphan) {
            self.orphan_ended(WorkerId(n));
        }
        for asked in self.signals.take_asked() {
            match asked {
                Asked::Reopen => drop(self.reopen_logs()),
                Asked::Reload(why) => self.reload_for(None, why),
                Asked::Handover(why) => self.hand_over_for_signal(why),
                Asked::Core(signal) => self.queue.push_back(Event::Signal(signal)),
            }
            self.settle();
        }
        for n in of(Kind::Notify) {
            self.hear_datagrams(WorkerId(n));
        }
        self.hear_channels(&of(Kind::Ipc));
        for n in of(Kind::Probe) {
            self.hear_probe(WorkerId(n));
        }
        self.probes_due();
        for n in of(Kind::Check) {
            self.hear_check(n);
        }
        self.checks_due();
        for n in of(Kind::Newline) {
            self.hear_newline(WorkerId(n));
        }
        self.hear_output(&of(Kind::Stderr));
        self.keep_programs();
        self.hear_jobs(&of(Kind::Job));
        if !of(Kind::OurStderr).is_empty() || self.log_stalls() {
            self.log.flush();
            self.watch_log();
        }
        self.fork_next();
        self.begin_job();
        // Time is news, too; told once a turn, whatever else there was.
        self.queue.push_back(Event::Tick);
        self.settle();
        self.watch_due();
        self.idle_due();
        if !self.cluster.drains() {
            self.census.rest();
        }
        self.keep_streams_alive();
        // Before others ask: of whom the first begins anew.
        self.read_on();
        self.tell_lines();
        self.serve_clients(!of(Kind::Door).is_empty(), &of(Kind::Client));
        self.post();
        self.handover_due();
    }

    /// The end, in the order that a waiting `stop && start` relies on: the ports are free and the
    /// name is given back before anybody is told.
    fn leave(&mut self) {
        self.empty_store();
        self.sockets.close_all();
        self.leave_no_orphan();
        self.claim.release();
        self.pid_dir = None;
        self.pid_file = None;
        for (client, ours, code, text) in std::mem::take(&mut self.farewells) {
            match self.clients.speaks_http(client) {
                true => self.answer_asked(client, code, &text),
                false => {
                    let text = requests::framed(ours, code, text);
                    self.clients.answer(client, &text, true);
                }
            }
        }
        let left = self.cluster.over_by().map(|at| at - self.now());
        self.log
            .finish(left.map_or(LAST_LINES, |t| t.min(LAST_LINES)));
    }
}

trait CeilMs {
    fn div_ceil_ms(self) -> Duration;
}

impl CeilMs for Duration {
    fn div_ceil_ms(self) -> Duration {
        let ms = self.as_nanos().div_ceil(1_000_000);
        Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!(
            Duration::from_nanos(1).div_ceil_ms(),
            Duration::from_millis(1)
        );
        assert_eq!(Duration::ZERO.div_ceil_ms(), Duration::ZERO);
        assert_eq!(
            Duration::from_millis(7).div_ceil_ms(),
            Duration::from_millis(7)
        );
    }
}
