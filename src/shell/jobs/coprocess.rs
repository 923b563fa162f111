//! A program that lives as long as the master does: lines in by its stdin, lines out by its stdout, and
//! what it complains of goes to our log. Rules:
//!
//! 1. `MAX_WAITING` bytes may wait to be read; what does not fit is refused, and whoever has it says so.
//! 2. A line of its own may have `MAX_LINE` bytes; longer ones are left out, and that is said. They are
//!    heard in turns: whatever it writes, and wherever, workers that wait in bind(2) do not wait for long.
//!    Of what it complains of the log has so many lines a second (`allowance`).
//! 3. When it ends it is run again, by the rules for workers: after 100 ms, doubled up to 30 s with each
//!    failure in a row; at once if it had lived for a second. What waits goes to the next one, whole lines
//!    only; what the last one had read is lost.
//! 4. Its end is the end of its stdin. If that does not do, it gets a SIGTERM, and then SIGKILL, all
//!    within a second (10 after a reload): a stop is not held up by it.

use super::super::{Kind, Shell};
use super::Closing;
use super::allowance::{self, Allowance};
use super::child::{Birth, Came, Child, Pipe, serial};
use super::kept::Lines;
use super::mail::Mail;
use crate::core::respawn::{Backoff, Rng};
use crate::core::words::{bytes, human};
use crate::core::{Exit, Level, Time};
use crate::settings::Settings;
use crate::sys::signal;
use crate::wire::node_ipc;
use crate::wire::ran::End;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::time::Duration;

/// So many bytes may wait for it: the longest message of a worker fits, with who it is from,
pub const MAX_WAITING: usize = node_ipc::MAX_LINE + 1024;
/// so many a line of its own may have: the longest message to a worker, with who it is for,
pub const MAX_LINE: usize = node_ipc::MAX_LINE + 1024;
/// and so many a line that it complains in.
const MAX_COMPLAINT: usize = 4096;

/// So long its lines are heard in one turn,
const TURN: Duration = Duration::from_millis(5);
/// and so many times it is read.
const PIECES: usize = 8;
/// So long it is heard once it has ended: somebody whom it has left there may go on writing.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// One.
#[derive(Serialize, Deserialize)]
pub struct Coprocess {
    /// As it is named where it is told of.
    name: String,
    #[serde(with = "crate::core::carry::paths")]
    words: Vec<OsString>,
    run: Run,
    mail: Mail,
    answers: Said,
    complaints: Said,
    allowance: Allowance,
    backoff: Backoff,
    rng: Rng,
    /// It is to end: it is asked then, and killed then.
    ending: Option<(Time, Time)>,
}

/// What comes by one of its pipes.
#[derive(Serialize, Deserialize)]
struct Said {
    lines: Lines,
    /// Whole lines that the next turn is for.
    #[serde(with = "crate::shell::carry")]
    unheard: VecDeque<Vec<u8>>,
}

impl Said {
    fn new(longest: usize) -> Said {
        Said {
            lines: Lines::new(longest),
            unheard: VecDeque::new(),
        }
    }
}

/// Does it run?
#[derive(Serialize, Deserialize)]
enum Run {
    /// Not before then.
    Not(Time),
    /// Since then. The serial is that of its tokens.
    Since(Time, u64, Child),
}

impl Coprocess {
    /// One that is to be run.
    pub fn new(name: String, words: Vec<OsString>, now: Time) -> Coprocess {
        Coprocess {
            name,
            words,
            run: Run::Not(now),
            mail: Mail::new(MAX_WAITING),
            answers: Said::new(MAX_LINE),
            complaints: Said::new(MAX_COMPLAINT),
            allowance: Allowance::default(),
            backoff: Backoff::default(),
            rng: Rng::new(now.0),
            ending: None,
        }
    }

    /// Its first process.
    pub fn pid(&self) -> Option<i32> {
        match &self.run {
            Run::Since(_, _, child) => Some(child.pid),
            Run::Not(_) => None,
        }
    }

    /// The process, and the serial of its tokens.
    pub fn child(&self) -> Option<(u64, &Child)> {
        match &self.run {
            Run::Since(_, serial, child) => Some((*serial, child)),
            Run::Not(_) => None,
        }
    }

    /// Are these the tokens of what runs now?
    pub fn is_run(&self, serial: u64) -> bool {
        matches!(&self.run, Run::Since(_, n, _) if *n == serial)
    }

    /// When there is something to do,
    pub fn due(&self) -> Option<Time> {
        let step = self.step_due().into_iter();
        step.chain(self.allowance.due()).min()
    }

    /// about it: run it, ask it, kill it.
    fn step_due(&self) -> Option<Time> {
        match (&self.run, self.ending) {
            (Run::Not(_), Some(_)) => None,
            (Run::Not(at), None) => Some(*at),
            (Run::Since(..), None) => None,
            (Run::Since(..), Some((ask, kill))) => Some(ask.min(kill)),
        }
    }

    fn has_to(&self, now: Time) -> bool {
        self.step_due().is_some_and(|at| at <= now)
    }

    fn said(&mut self, pipe: Pipe) -> &mut Said {
        match pipe {
            Pipe::Stderr => &mut self.complaints,
            Pipe::Stdin | Pipe::Stdout => &mut self.answers,
        }
    }

    /// One more line for it. An error: there is no room.
    pub fn push(&mut self, line: &[u8]) -> Result<(), String> {
        match self.mail.push(line) {
            true => Ok(()),
            false => Err(format!(
                "{} does not keep up: {} of {} wait for it",
                self.name,
                bytes(self.mail.len() as u64),
                bytes(MAX_WAITING as u64)
            )),
        }
    }

    /// How many lines it was told so far,
    pub fn told(&self) -> u64 {
        self.mail.pushed()
    }

    /// Is there much room?
    pub fn is_at_ease(&self) -> bool {
        self.mail.len() < MAX_WAITING / 2
    }

    /// Gives it what waits. True: it has no more to come, or does not read any more.
    fn give(&mut self) -> bool {
        let Run::Since(_, _, child) = &self.run else {
            return false;
        };
        let read = self.mail.give(|some| child.write_some(some));
        read.is_err() || self.ending.is_some() && self.mail.len() == 0
    }

    /// It runs.
    pub fn begins(&mut self, child: Child, run: u64, now: Time) {
        self.run = Run::Since(now, run, child);
    }

    /// It has ended, or could not be run: how long until it is run again?
    pub fn ended(&mut self, now: Time) -> Duration {
        let lived = match &self.run {
            Run::Since(since, ..) => Some(now - *since),
            Run::Not(_) => None,
        };
        // The rules are those of workers, whatever is said of these.
        let rules = Settings::default().policy(1, 0, Vec::new());
        let delay = self.backoff.after_death(lived, &rules, &mut self.rng);
        self.run = Run::Not(now + delay);
        delay
    }

    /// The next piece of its output: whole lines, and how many were left out.
    fn take(&mut self, pipe: Pipe) -> (Vec<Vec<u8>>, u64, Came) {
        let Run::Since(_, _, child) = &self.run else {
            return (Vec::new(), 0, Came::All);
        };
        let Said { lines, .. } = match pipe {
            Pipe::Stderr => &mut self.complaints,
            Pipe::Stdin | Pipe::Stdout => &mut self.answers,
        };
        let (mut all, mut dropped) = (Vec::new(), 0);
        let came = child.read_some(pipe, 1, |some| {
            let (whole, lost) = lines.push(some);
            all.extend(whole);
            dropped += lost;
        });
        (all, dropped, came)
    }

    fn signal(&self, sig: i32) {
        if let Some(pid) = self.pid() {
            let _ = signal::kill_group(pid, sig);
            let _ = signal::kill(pid, sig);
        }
    }
}

impl Shell {
    /// It is run in the next turn, until it is ended or the master ends. It is known by the number returned.
    pub fn start_coprocess(&mut self, name: &str, words: &[String]) -> u64 {
        self.jobs.last += 1;
        let id = self.jobs.last;
        let words = words.iter().map(OsString::from).collect();
        let one = Coprocess::new(name.to_string(), words, self.now());
        self.jobs.coprocesses.insert(id, one);
        id
    }

    /// A line for it, without its end. An error says why it will not hear of it.
    pub fn tell_coprocess(&mut self, id: u64, line: &[u8]) -> Result<(), String> {
        let Some(one) = self.jobs.coprocesses.get_mut(&id) else {
            return Err("it does not run any more".into());
        };
        one.push(line)?;
        self.feed_coprocess(id);
        Ok(())
    }

    /// It is not wanted any more, and has so long to come to its end.
    pub fn end_coprocess(&mut self, id: u64, within: Duration) {
        let now = self.now();
        self.end_coprocess_by(id, now + within);
    }

    /// All of them, in the end.
    pub(super) fn end_coprocesses(&mut self, c: Closing) {
        let all: Vec<u64> = self.jobs.coprocesses.keys().copied().collect();
        for id in all {
            self.end_coprocess_by(id, c.kill_at);
        }
    }

    fn end_coprocess_by(&mut self, id: u64, kill_at: Time) {
        let now = self.now();
        let Some(one) = self.jobs.coprocesses.get_mut(&id) else {
            return;
        };
        let ask = now + (kill_at - now) / 2;
        let (ask_before, kill_before) = one.ending.unwrap_or((ask, kill_at));
        one.ending = Some((ask.min(ask_before), kill_at.min(kill_before)));
        match one.pid() {
            None => {
                self.jobs.coprocesses.remove(&id);
                self.program_is_over(id);
            }
            Some(_) => self.feed_coprocess(id),
        }
    }

    fn feed_coprocess(&mut self, id: u64) {
        let Some(mut one) = self.jobs.coprocesses.remove(&id) else {
            return;
        };
        let done = one.give();
        if let (true, Run::Since(_, _, child)) = (done, &mut one.run) {
            self.close_pipe(child, Pipe::Stdin);
        }
        self.jobs.coprocesses.insert(id, one);
    }

    fn run_coprocess(&mut self, id: u64) {
        let Some(mut one) = self.jobs.coprocesses.remove(&id) else {
            return;
        };
        self.jobs.last += 1;
        let run = self.jobs.last;
        let cwd = self.settings().sources.here.clone();
        let own = self.program_variables();
        let born = self.give_birth(&Birth {
            job: run,
            words: &one.words,
            cwd: &cwd,
            own: &own,
            reads: true,
            merged: false,
            exe: None,
            keep: &[],
            hollow: &[],
        });
        let now = self.now();
        match born {
            Ok(child) => {
                one.begins(child, run, now);
                self.jobs.coprocesses.insert(id, one);
                self.feed_coprocess(id);
            }
            Err((_, why)) => {
                let delay = one.ended(now);
                let message = format!("{}: {why}; tried again in {}", one.name, human(delay));
                let name = one.name.clone();
                self.jobs.coprocesses.insert(id, one);
                self.say_of_program(Level::Error, "program-failed", &name, message);
            }
        }
    }

    /// Something is there to be read or written. False: it is none of these.
    pub(super) fn hear_coprocess(&mut self, run: u64, pipe: Pipe) -> bool {
        let mut all = self.jobs.coprocesses.iter();
        let Some(id) = all.find(|(_, c)| c.is_run(run)).map(|(id, _)| *id) else {
            return false;
        };
        match pipe {
            Pipe::Stdin => self.feed_coprocess(id),
            Pipe::Stdout | Pipe::Stderr => match self.take_lines(id, pipe, self.now() + TURN) {
                Came::All => {}
                Came::More => drop(self.ready.insert((Kind::Job, serial(run, pipe)))),
                Came::End => {
                    if let Some(mut one) = self.jobs.coprocesses.remove(&id) {
                        if let Run::Since(_, _, child) = &mut one.run {
                            self.close_pipe(child, pipe);
                        }
                        self.jobs.coprocesses.insert(id, one);
                    }
                }
            },
        }
        true
    }

    /// Hears what it has written, until then.
    fn take_lines(&mut self, id: u64, pipe: Pipe, until: Time) -> Came {
        for _ in 0..PIECES {
            let Some(one) = self.jobs.coprocesses.get_mut(&id) else {
                return Came::All;
            };
            let left = std::mem::take(&mut one.said(pipe).unheard);
            let (mut lines, dropped, came) = match left.is_empty() {
                false => (left, 0, Came::More),
                true => {
                    let (lines, dropped, came) = one.take(pipe);
                    (lines.into(), dropped, came)
                }
            };
            self.leave_out(id, pipe, dropped);
            while let Some(line) = lines.pop_front() {
                self.hear_program(id, pipe, &line);
                if self.now() > until
                    && !lines.is_empty()
                    && let Some(one) = self.jobs.coprocesses.get_mut(&id)
                {
                    one.said(pipe).unheard = lines;
                    return Came::More;
                }
            }
            if came != Came::More || self.now() > until {
                return came;
            }
        }
        Came::More
    }

    /// So many of its lines were too long.
    fn leave_out(&mut self, id: u64, pipe: Pipe, dropped: u64) {
        let Some(one) = self.jobs.coprocesses.get(&id).filter(|_| dropped > 0) else {
            return;
        };
        let longer = |limit: usize| format!("longer than {}", bytes(limit as u64));
        if pipe == Pipe::Stderr {
            let (name, longer) = (&one.name, longer(MAX_COMPLAINT));
            let message = format!("{name}: {dropped} of its lines are {longer}, and left out");
            let name = name.clone();
            return self.say_of_program(Level::Warn, "program-line-dropped", &name, message);
        }
        for _ in 0..dropped {
            self.program_is_wrong(id, &format!("a line is {}", longer(MAX_LINE)));
        }
    }

    fn hear_program(&mut self, id: u64, pipe: Pipe, line: &[u8]) {
        if pipe != Pipe::Stderr {
            return self.program_writes(id, line);
        }
        let now = self.now();
        let Some(one) = self.jobs.coprocesses.get_mut(&id) else {
            return;
        };
        let (may, left_out) = one.allowance.one(now);
        let name = one.name.clone();
        self.say_left_out(&name, left_out);
        if may {
            let message = format!("{name}: {}", String::from_utf8_lossy(line));
            self.say_of_program(Level::Info, "program-says", &name, message);
        }
    }

    fn say_left_out(&mut self, name: &str, lines: u64) {
        if lines > 0 {
            let (most, within) = (allowance::MOST, human(allowance::WITHIN));
            let message = format!(
                "{name}: {lines} more of the lines that it has complained in are left out (limit {most} in {within})"
            );
            self.say_of_program(Level::Warn, "program-line-dropped", name, message);
        }
    }

    /// Is it the first process of one? It is a zombie still.
    pub(super) fn coprocess_ended(&mut self, pid: i32, exit: Exit) -> bool {
        let mut all = self.jobs.coprocesses.iter();
        let Some(id) = all.find(|(_, c)| c.pid() == Some(pid)).map(|(id, _)| *id) else {
            return false;
        };
        self.hear_the_rest(id);
        let Some(mut one) = self.jobs.coprocesses.remove(&id) else {
            return false;
        };
        let mut failure = None;
        if let Run::Since(_, _, child) = &one.run {
            self.close_pipes(child);
            failure = child.failure();
        }
        let torn = one.mail.tear();
        if one.ending.is_some() {
            // Whom it has left there had their time with it.
            let _ = signal::kill_group(pid, libc::SIGKILL);
            let unread = one.mail.pushed().saturating_sub(one.mail.gone()) + u64::from(torn);
            if unread > 0 {
                let message = format!("{} has ended; {unread} lines for it are lost", one.name);
                self.say_of_program(Level::Warn, "program-ended", &one.name, message);
            }
            self.program_is_over(id);
            return true;
        }
        let lost = match torn {
            true => "; the line that it was reading is lost",
            false => "",
        };
        let end = match failure {
            Some((step, errno)) => super::not_run(step, errno, &self.settings().sources.here),
            None => End::Exited(exit),
        };
        let why = end.why().unwrap_or_else(|| "exit 0".into());
        let delay = one.ended(self.now());
        let (name, gone) = (one.name.clone(), one.mail.gone());
        self.jobs.coprocesses.insert(id, one);
        let again = match delay {
            Duration::ZERO => "at once".into(),
            delay => format!("in {}", human(delay)),
        };
        let message = format!("{name} has ended: {why}; it is run again {again}{lost}");
        self.say_of_program(Level::Warn, "program-ended", &name, message);
        self.program_ended(id, gone);
        true
    }

    /// What it has said before it ended.
    fn hear_the_rest(&mut self, id: u64) {
        for pipe in [Pipe::Stdout, Pipe::Stderr] {
            let until = self.now() + LAST_WORDS;
            while self.take_lines(id, pipe, until) == Came::More && self.now() <= until {}
            let Some(one) = self.jobs.coprocesses.get_mut(&id) else {
                return;
            };
            let said = one.said(pipe);
            // Of whoever goes on there is more always; of what it was there would be more time only.
            said.unheard.clear();
            if let Some(line) = said.lines.end() {
                self.hear_program(id, pipe, &line);
            }
        }
        if let Some(one) = self.jobs.coprocesses.get_mut(&id) {
            let (name, left_out) = (one.name.clone(), one.allowance.rest());
            self.say_left_out(&name, left_out);
        }
    }

    /// Those that are to be run again, asked or killed by now.
    pub(super) fn coprocesses_due(&mut self) {
        let now = self.now();
        let all = self.jobs.coprocesses.iter();
        let late = |(id, c): (&u64, &Coprocess)| c.due().is_some_and(|at| at <= now).then_some(*id);
        let due: Vec<u64> = all.filter_map(late).collect();
        let mut forked = false;
        for id in due {
            let Some(one) = self.jobs.coprocesses.get_mut(&id) else {
                continue;
            };
            if one.allowance.due().is_some_and(|at| at <= now) {
                let (name, left_out) = (one.name.clone(), one.allowance.rest());
                self.say_left_out(&name, left_out);
            }
            let Some(one) = self.jobs.coprocesses.get_mut(&id).filter(|c| c.has_to(now)) else {
                continue;
            };
            match (&one.run, one.ending) {
                // One fork a turn: workers may wait in bind(2).
                (Run::Not(_), _) if forked => {}
                (Run::Not(_), _) => {
                    forked = true;
                    self.run_coprocess(id);
                }
                (Run::Since(..), Some((ask, kill))) if now < kill && ask <= now => {
                    one.signal(libc::SIGTERM);
                    one.signal(libc::SIGCONT);
                    one.ending = Some((kill, kill));
                }
                (Run::Since(..), Some(_)) => {
                    one.signal(libc::SIGKILL);
                    // Once: whoever does not even go by that is not waited for.
                    one.ending = Some((Time(u64::MAX), Time(u64::MAX)));
                }
                (Run::Since(..), None) => {}
            }
        }
    }

    /// They are killed.
    pub(super) fn kill_coprocesses(&mut self) {
        for one in self.jobs.coprocesses.values_mut() {
            one.ending = Some((Time(u64::MAX), Time(u64::MAX)));
            one.signal(libc::SIGKILL);
        }
        self.jobs.coprocesses.retain(|_, c| c.pid().is_some());
    }
}

#[cfg(test)]
mod tests;
