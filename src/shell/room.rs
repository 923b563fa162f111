//! How many workers there is room for: each costs the master descriptors, and as many as its hard limit
//! says it may have. What it would lack is said before anything is bound, since the first thing to
//! fail for want of one would be a reload, or the replacement of a worker that died.

use super::{clients, jobs};
use crate::core::codes::{EX_CONFIG, Failure};
use crate::core::words::no_room;
use crate::core::{MAX_WORKERS, Surge, Takeover};
use crate::settings::Settings;
use crate::sys::process;

/// What the master has open for itself: its poll, copies of a pipe for each signal, log, locks, pid
/// file, control socket, what is watched.
const OWN: u64 = 32;
/// For a fork, for a bind(2) that is answered, for a look at a worker's sockets.
const IN_PASSING: u64 = 16;
/// Clients that there is always room for. (More are let in as long as there is any beside the workers.)
const CLIENTS: u64 = 32;
/// For programs of the operator's, if there are any.
const PROGRAMS: u64 = jobs::MOST as u64 * jobs::DESCRIPTORS;
/// Of each that lives as long as we do: as long as one takes the place of another there are two.
const LASTING: u64 = 2 * jobs::DESCRIPTORS;
/// For the directory of --log-dir and its parent, the file of all, and files that are sent to clients.
const LOGS: u64 = 3 + clients::MAX_FILES as u64;
/// Of each port: the lane that serves, one that takes its place and one that is spare, each kept twice.
const PORT: u64 = 6;
/// Of each port where each worker has a lane of its own: that, kept twice.
const LANE: u64 = 2;

/// Who needs how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// What is needed however many workers there are.
    fixed: u64,
    /// What each worker costs.
    worker: u64,
    surge: Surge,
    /// So many there may be.
    limit: u64,
}

impl Room {
    /// For workers like these. What whoever started us has left open stays so.
    pub fn of(s: &Settings, ipc: bool, ports: usize, inherited: u64) -> Room {
        let learns = s.takeover != Takeover::Off;
        let ports = ports.max(usize::from(learns)) as u64;
        let one = u64::from;
        let lanes = one(s.balance().spreads()) * ports * LANE;
        let programs = one(!s.on_event.is_empty() || !s.commands.is_empty()) * PROGRAMS;
        let delegates = s.delegates.values().filter(|words| !words.is_empty());
        let lasting = (s.on_message.len() + delegates.count()) as u64 * LASTING;
        let programs = programs + lasting;
        let validator = one(s.ecv_validator.is_some()) * jobs::DESCRIPTORS;
        let asked = validator + one(s.ecv_monitor.is_some());
        let logs = one(s.log_dir.is_some()) * LOGS;
        Room {
            fixed: inherited + OWN + IN_PASSING + CLIENTS + ports * PORT + programs + asked + logs,
            // Its stderr, what it notifies us by, what its bind(2) asks us by, its lanes, ..
            worker: 2
                + lanes
                + one(learns)
                + one(ipc)
                + one(s.ready_fd.is_some())
                + one(s.pid_dir.is_some())
                + one(s.log_dir.is_some() && !s.log_merge),
            surge: s.surge,
            limit: process::most_files(),
        }
    }

    /// Each worker, and each that takes its place, costs so many more.
    pub fn and(mut self, more: u64) -> Room {
        self.worker += more;
        self
    }

    /// So many that number of workers takes, and as many again as there are beside them in a reload; one
    /// at least, since each may be replaced while it goes on.
    pub fn needed(&self, workers: u16) -> u64 {
        let all = u64::from(workers) + u64::from(self.surge.of(workers).max(1));
        self.fixed + all * self.worker
    }

    /// Most workers that there is room for.
    pub fn most(&self) -> u16 {
        let fits = |n: &u16| self.needed(*n) <= self.limit;
        (1..=MAX_WORKERS).rev().find(fits).unwrap_or(0)
    }

    /// Most clients, beside so many workers.
    pub fn clients(&self, workers: u16) -> usize {
        let more = self.limit.saturating_sub(self.needed(workers));
        usize::try_from(CLIENTS.saturating_add(more)).unwrap_or(usize::MAX)
    }

    /// Is there room for so many?
    pub fn check(&self, workers: u16) -> Result<(), Failure> {
        if self.most() >= workers {
            return Ok(());
        }
        let extra = match self.surge.of(workers) {
            0 => String::new(),
            n => format!(" and {n} more during a reload (--surge)"),
        };
        let message = format!(
            "{workers} workers{extra} take {} open files of the master, and its hard limit is {}; {}",
            self.needed(workers),
            self.limit,
            no_room(self.most())
        );
        Err((EX_CONFIG, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Balance;

    #[test]
    fn a_reload_has_to_have_room_too() {
        let room = |surge, limit| Room {
            fixed: 100,
            worker: 3,
            surge,
            limit,
        };
        for (surge, limit, most) in [
            (Surge::Percent(100), 1024, 154),
            (Surge::Percent(50), 1024, 205),
            (Surge::Count(0), 1024, 307),
            (Surge::Count(1), 1024, 307),
            (Surge::Percent(100), 1 << 20, MAX_WORKERS),
            (Surge::Percent(100), 106, 1),
            (Surge::Percent(100), 105, 0),
        ] {
            let room = room(surge, limit);
            assert_eq!(room.most(), most, "{surge:?} {limit}");
            assert!(room.check(most).is_ok());
        }
        let (code, why) = room(Surge::Percent(100), 1024).check(200).unwrap_err();
        assert_eq!(code, EX_CONFIG);
        for part in [
            "200 workers and 200 more",
            "take 1300",
            "limit is 1024",
            "room for 154",
        ] {
            assert!(why.contains(part), "{why}");
        }
    }

    #[test]
    fn what_a_worker_has_beside_the_usual_costs_more() {
        let mut s = Settings::default();
        assert_eq!(Room::of(&s, false, 1, 3).worker, 3);
        s.takeover = Takeover::Off;
        assert_eq!(Room::of(&s, false, 1, 3).worker, 2);
        s.ready_fd = Some(3);
        s.pid_dir = Some("pids".into());
        assert_eq!(Room::of(&s, true, 1, 3).worker, 5);
        let fixed = Room::of(&s, true, 1, 3).fixed;
        s.log_dir = Some("logs".into());
        let logs = Room::of(&s, true, 1, 3);
        assert_eq!((logs.worker, logs.fixed - fixed), (6, LOGS));
        s.log_merge = true;
        assert_eq!(Room::of(&s, true, 1, 3).worker, 5);
        s.on_event = vec![vec!["./notify".into()]];
        let told = Room::of(&s, true, 1, 3);
        s.on_event.clear();
        assert_eq!(told.fixed - Room::of(&s, true, 1, 3).fixed, PROGRAMS);
        s.on_message = vec![vec!["./x".into()], vec!["./y".into()]];
        s.delegates.insert("work".into(), vec!["./z".into()]);
        s.delegates.insert("gone".into(), Vec::new());
        let heard = Room::of(&s, true, 1, 3);
        s.on_message.clear();
        s.delegates.clear();
        assert_eq!(heard.fixed - Room::of(&s, true, 1, 3).fixed, 3 * LASTING);
        let (one, two) = (Room::of(&s, true, 1, 3), Room::of(&s, true, 2, 13));
        assert_eq!(two.fixed - one.fixed, PORT + 10);
        s.ecv_validator = Some(vec!["./v".into()]);
        let asked = Room::of(&s, true, 1, 3);
        assert_eq!(asked.fixed - one.fixed, jobs::DESCRIPTORS);
        s.balance = Some(Balance::Hash);
        assert_eq!(Room::of(&s, true, 1, 3).worker, 7);
        assert_eq!(Room::of(&s, true, 3, 3).worker, 11);
    }
}
