//! What whoever started us as a service is told (sd_notify(3)), and when. Rules:
//!
//! 1. It is not news that counts but what holds: what was told last is compared with what is so now,
//!    and the difference is told. So nothing is told twice, and nothing that was lost stays lost.
//! 2. READY=1 is told when the start is over, and then at the end of each reload.
//! 3. Each reload that is asked for is told, also one that is refused, and one that takes the place of
//!    another: who has asked by a signal waits for a RELOADING=1 that is younger than its signal, and
//!    then for a READY=1.
//! 4. Nothing of a reload is told before READY=1, which would end the start, or after STOPPING=1.
//! 5. A limit of the supervisor's is moved to the next one of ours and a little more, and only while
//!    what is under way comes to an end by itself.

use crate::core::{Notice, Time};
use std::time::Duration;

/// So long after a deadline of ours its consequence has certainly been seen.
const MARGIN: Duration = Duration::from_secs(5);

/// How the cluster is.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Is the start over?
    pub launched: bool,
    /// Is it to end?
    pub stopping: bool,
    /// Is a reload under way?
    pub reloading: bool,
    /// How many reloads were asked for.
    pub reloads: u64,
    /// How many workers serve,
    pub ready: usize,
    /// of so many that are to,
    pub wanted: usize,
    /// and how many processes there are.
    pub workers: usize,
    /// Of what runs.
    pub generation: u32,
    /// By when what is under way has come further.
    pub busy_until: Option<Time>,
}

/// What was told of it last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Starting,
    Ready,
    Reloading,
    Stopping,
}

/// All that was told.
#[derive(Debug, Default)]
pub struct Told {
    state: State,
    reloads: u64,
    status: String,
    until: Option<Time>,
}

impl Told {
    /// What there is to be told, each a message.
    pub fn news(&mut self, look: &Look, now: Time) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        let asked = std::mem::replace(&mut self.reloads, look.reloads) != look.reloads;
        match (self.state, look.stopping, look.launched) {
            (State::Stopping, ..) | (State::Starting, false, false) => {}
            (State::Starting | State::Ready | State::Reloading, true, _) => {
                self.state = State::Stopping;
                all.push("STOPPING=1".into());
            }
            (State::Starting | State::Ready | State::Reloading, false, _) => {
                if self.state == State::Starting {
                    all.push(self.ready());
                }
                let begins = look.reloading && self.state == State::Ready;
                if asked || begins {
                    all.push(self.reloading(now));
                }
                if self.state == State::Reloading && !look.reloading {
                    all.push(self.ready());
                }
            }
        }
        let status = self.status_of(look);
        let status = (status != self.status).then(|| {
            self.status.clone_from(&status);
            format!("STATUS={status}")
        });
        let extension = self.extension(look, now);
        for line in status.into_iter().chain(extension) {
            match all.last_mut() {
                Some(last) => *last = format!("{last}\n{line}"),
                None => all.push(line),
            }
        }
        all
    }

    /// A reload begins.
    pub fn reloading(&mut self, now: Time) -> String {
        self.state = State::Reloading;
        format!("RELOADING=1\nMONOTONIC_USEC={}", now.0 / 1_000)
    }

    /// The start, or a reload, is over.
    pub fn ready(&mut self) -> String {
        self.state = State::Ready;
        self.until = None;
        "READY=1".into()
    }

    fn status_of(&self, look: &Look) -> String {
        let Look {
            ready,
            wanted,
            generation,
            ..
        } = *look;
        match self.state {
            State::Starting => format!("starting: {ready}/{wanted} ready"),
            State::Ready => format!("{ready}/{wanted} ready, generation {generation}"),
            State::Reloading => {
                format!("reloading: {ready}/{wanted} ready, generation {generation}")
            }
            State::Stopping => match look.workers {
                0 => "stopping".into(),
                1 => "stopping: 1 worker is left".into(),
                n => format!("stopping: {n} workers are left"),
            },
        }
    }

    fn extension(&mut self, look: &Look, now: Time) -> Option<String> {
        let until = look.busy_until.filter(|at| Some(*at) > self.until)?;
        self.until = Some(until);
        let left = (until - now).saturating_add(MARGIN);
        Some(format!("EXTEND_TIMEOUT_USEC={}", left.as_micros()))
    }
}

/// The number of the error that such a notice tells of, where it may be why we end.
pub fn errno(notice: &Notice) -> Option<i32> {
    match notice {
        Notice::LaneBusy {
            errno, who: None, ..
        }
        | Notice::ExecFailed { errno, .. }
        | Notice::SpawnFailed { errno, .. } => Some(*errno),
        _ => None,
    }
}

/// What is told at an end that is a failure: its exit code, and in a sentence why.
pub fn failure(code: u8, why: &str) -> String {
    let plain: String = why
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!("STATUS={plain}\nEXIT_STATUS={code}")
}

/// How often WATCHDOG=1 is to be said where it is missed after that long: twice.
pub fn pulse(watchdog: Duration) -> Duration {
    // The poll has milliseconds.
    (watchdog / 2).max(Duration::from_millis(1))
}

/// What WATCHDOG_USEC and WATCHDOG_PID ask of a process with that pid.
pub fn watchdog(usec: &str, pid: Option<&str>, ours: u32) -> Option<Duration> {
    let usec: u64 = usec.trim().parse().ok().filter(|n| *n > 0)?;
    let for_us = pid.is_none_or(|p| p.trim().parse() == Ok(ours));
    for_us.then(|| Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look() -> Look {
        Look {
            launched: false,
            stopping: false,
            reloading: false,
            reloads: 0,
            ready: 0,
            wanted: 2,
            workers: 2,
            generation: 1,
            busy_until: None,
        }
    }

    fn at(secs: u64) -> Time {
        Time(secs * 1_000_000_000)
    }

    /// One that was told that all is well, since long.
    fn running() -> (Told, Look) {
        let mut told = Told::default();
        let look = Look {
            launched: true,
            ready: 2,
            ..look()
        };
        assert_eq!(
            told.news(&look, at(1)),
            ["READY=1\nSTATUS=2/2 ready, generation 1"]
        );
        assert!(told.news(&look, at(2)).is_empty());
        (told, look)
    }

    #[test]
    fn a_start_is_told_and_its_limit_moved_to_ours() {
        let mut told = Told::default();
        let mut now = Look {
            busy_until: Some(at(61)),
            ..look()
        };
        assert_eq!(
            told.news(&now, at(1)),
            ["STATUS=starting: 0/2 ready\nEXTEND_TIMEOUT_USEC=65000000"]
        );
        now.ready = 1;
        assert_eq!(told.news(&now, at(2)), ["STATUS=starting: 1/2 ready"]);
        // A reload meanwhile must not look like its end.
        (now.reloads, now.reloading) = (1, true);
        assert!(told.news(&now, at(2)).is_empty());
        (now.launched, now.ready) = (true, 2);
        assert_eq!(
            told.news(&now, at(3)),
            [
                "READY=1",
                "RELOADING=1\nMONOTONIC_USEC=3000000\nSTATUS=reloading: 2/2 ready, generation 1\nEXTEND_TIMEOUT_USEC=63000000"
            ]
        );
    }

    #[test]
    fn each_reload_that_is_asked_for_is_told_and_so_is_its_end() {
        let (mut told, mut now) = running();
        (now.reloads, now.reloading) = (1, true);
        let status = "STATUS=reloading: 2/2 ready, generation 1";
        assert_eq!(
            told.news(&now, at(10)),
            [format!("RELOADING=1\nMONOTONIC_USEC=10000000\n{status}")]
        );
        // Another one takes its place.
        now.reloads = 2;
        assert_eq!(
            told.news(&now, at(11)),
            ["RELOADING=1\nMONOTONIC_USEC=11000000"]
        );
        (now.reloading, now.generation) = (false, 3);
        assert_eq!(
            told.news(&now, at(12)),
            ["READY=1\nSTATUS=2/2 ready, generation 3"]
        );
        // One that is refused is over at once.
        now.reloads = 3;
        let begin = "RELOADING=1\nMONOTONIC_USEC=13000000";
        assert_eq!(told.news(&now, at(13)), [begin, "READY=1"]);
        // What takes back what was replaced is told of, whoever has asked.
        now.reloading = true;
        assert!(told.news(&now, at(14))[0].starts_with("RELOADING=1\n"));
    }

    #[test]
    fn a_stop_is_the_last_word_and_says_how_long_it_takes_at_most() {
        let (mut told, mut now) = running();
        (now.reloads, now.reloading) = (1, true);
        assert_eq!(told.news(&now, at(10)).len(), 1);
        now.stopping = true;
        now.busy_until = Some(at(30));
        assert_eq!(
            told.news(&now, at(20)),
            ["STOPPING=1\nSTATUS=stopping: 2 workers are left\nEXTEND_TIMEOUT_USEC=15000000"]
        );
        // A deadline that comes nearer moves nothing; a later one does.
        (now.busy_until, now.reloading, now.workers) = (Some(at(25)), false, 1);
        assert_eq!(
            told.news(&now, at(21)),
            ["STATUS=stopping: 1 worker is left"]
        );
        (now.busy_until, now.reloads) = (Some(at(40)), 9);
        assert_eq!(told.news(&now, at(30)), ["EXTEND_TIMEOUT_USEC=15000000"]);
        now.workers = 0;
        assert_eq!(told.news(&now, at(31)), ["STATUS=stopping"]);
    }

    #[test]
    fn whose_watchdog_it_is_and_how_often_it_is_fed() {
        let secs = Duration::from_secs;
        assert_eq!(watchdog("30000000", None, 7), Some(secs(30)));
        assert_eq!(watchdog("30000000", Some("7"), 7), Some(secs(30)));
        for (usec, pid) in [("30000000", "8"), ("0", "7"), ("", "7"), ("-1", "7")] {
            assert_eq!(watchdog(usec, Some(pid), 7), None, "{usec} {pid}");
        }
        assert_eq!(pulse(secs(30)), secs(15));
        assert_eq!(pulse(Duration::from_micros(1)), Duration::from_millis(1));
    }

    #[test]
    fn an_end_is_told_in_one_line() {
        let told = failure(75, "port 80 is\nbusy");
        assert_eq!(told, "STATUS=port 80 is busy\nEXIT_STATUS=75");
    }
}
