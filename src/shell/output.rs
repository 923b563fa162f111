//! What workers write, in files (--log-dir): one for each slot, or one for all. It comes by a pipe of ours, so
//! that lines are whole and files can be rotated, and nobody is held up for long by that:
//!
//! 1. A worker waits for us only while its pipe is full, and each pipe has its share of each turn.
//! 2. We wait for nobody but the kernel in write(2). If that takes too long, the disk does not keep up: lines
//!    are lost for a while, so that most of the time is ours, and the workers'.
//! 3. What cannot be written is lost, too, and counted. That is said when it begins and when it is over, in the
//!    log and in the file. Nothing else comes of it.

mod dir;
mod file;

use super::voice::Voice;
use super::{Kind, Shell, token};
use crate::core::codes::{EX_CANTCREAT, Failure};
use crate::core::fields::Value;
use crate::core::words::{count, human, reason};
use crate::core::{Level, Time, WorkerId};
use crate::settings::Settings;
use crate::sys::clock;
use crate::wire::logs::{File as Entry, Written};
use crate::wire::output::{self, file_name, signed};
pub use dir::{Dir, without_parent};
use file::{Limits, News, OutFile};
use mio::Interest;
use mio::unix::SourceFd;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// A write that takes longer is one of a disk that does not keep up.
const SLOW: Duration = Duration::from_secs(1);
/// For so many times as long lines are lost then,
const RELIEF: u32 = 4;
/// but no longer than that.
const MOST_RELIEF: Duration = Duration::from_secs(30);
/// So long a turn is about output: workers wait in bind(2) meanwhile. Who has not had their turn is first in
/// the next.
const TURN: Duration = Duration::from_millis(5);
/// A worker that has written is not heard again for that long: its lines come together, and not each of them
/// wakes us.
const REST: Duration = Duration::from_millis(10);
/// One that writes more than that at once is heard all the time, for so many times: its pipe would be full, and
/// it would wait.
const MUCH: usize = 32 * 1024;
const HEARD: u32 = 64;
/// So much of what is written in a turn is kept for those who follow: what each of them is told of it is less.
const MOST_TOLD: usize = 1024 * 1024;
/// So many files that cannot be reopened are named.
const SAID: usize = 3;

/// All files.
#[derive(Serialize, Deserialize)]
pub struct Output {
    dir: Dir,
    /// Their names begin with it.
    cluster: String,
    /// Is there one for all?
    merged: bool,
    limits: Limits,
    #[serde(with = "crate::core::carry::pairs")]
    files: BTreeMap<Option<u16>, OutFile>,
    /// Until then lines are lost, and why.
    slow: Option<(Time, String)>,
    news: Vec<News>,
    /// Why lines are lost in some file, if that was said.
    failing: Option<String>,
    /// The worker that was heard last.
    heard_last: WorkerId,
    /// Those whose pipes the poll does not have, and until when.
    resting: BTreeSet<WorkerId>,
    rest: Option<Time>,
    /// Does somebody follow what is written?
    heard: bool,
    /// What was written in this turn, for those; and how long it is.
    #[serde(skip)]
    told: Vec<Written>,
    #[serde(skip)]
    told_bytes: usize,
}

impl Output {
    /// The directory, if there is to be one.
    pub fn open(s: &Settings) -> Result<Option<Output>, Failure> {
        let Some(path) = &s.log_dir else {
            return Ok(None);
        };
        let dir = Dir::open(path).map_err(|e| cannot(path, &e))?;
        Ok(Some(Output {
            dir,
            cluster: String::new(),
            merged: s.log_merge,
            limits: limits(s),
            files: BTreeMap::new(),
            slow: None,
            news: Vec::new(),
            failing: None,
            heard_last: WorkerId(0),
            resting: BTreeSet::new(),
            rest: None,
            heard: false,
            told: Vec::new(),
            told_bytes: 0,
        }))
    }

    /// The name of the cluster is known. Can files be had there at all? That a disk is full now is none of
    /// the reasons not to start.
    pub fn begin(&mut self, cluster: &str) -> Result<(), Failure> {
        self.cluster = cluster.to_string();
        let name = file_name(cluster, (!self.merged).then_some(0));
        match self.dir.append(&name) {
            Err(e) if !is_full(&e) => Err(cannot(&self.dir.path.join(name), &e)),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// All lines that were ever lost.
    pub fn lost_ever(&self) -> u64 {
        let files = self.files.values();
        files.fold(0, |n, f| n.saturating_add(f.lost_ever()))
    }

    /// What is said of the files' length by now.
    pub fn limit(&mut self, s: &Settings) {
        self.limits = limits(s);
    }

    /// There is a worker in that slot.
    pub fn born(&mut self, slot: u16) {
        let key = self.key(slot);
        let file = named(&mut self.files, key, &self.cluster);
        let now = Time(clock::monotonic());
        file.ready(&mut self.dir, now, &mut self.news);
    }

    /// There is none any more, nor what one has left behind.
    pub fn close(&mut self, slot: u16) {
        if let Some(file) = self.files.get_mut(&Some(slot)) {
            file.close();
        }
    }

    /// Nobody has the other end of its pipe any more.
    pub fn forget(&mut self, worker: WorkerId) {
        self.resting.remove(&worker);
    }

    /// Does that one?
    pub fn rests(&self, worker: WorkerId) -> bool {
        self.resting.contains(&worker)
    }

    /// When those that rest are heard again.
    pub fn deadline(&self) -> Option<Time> {
        self.rest
    }

    /// Those whose rest is over.
    fn rested(&mut self, now: Time) -> Vec<u64> {
        match self.rest.take_if(|at| *at <= now) {
            Some(_) => self.resting.iter().map(|w| w.0).collect(),
            None => Vec::new(),
        }
    }

    fn key(&self, slot: u16) -> Option<u16> {
        (!self.merged).then_some(slot)
    }

    /// A worker has written that.
    pub fn take(&mut self, from: &mut Voice, bytes: &[u8]) {
        let lines = from.filed.push(bytes);
        self.put(from, lines);
    }

    /// It writes no more of the line that it is in.
    pub fn end_of(&mut self, from: &mut Voice) {
        let rest = from.filed.end();
        self.put(from, rest);
    }

    fn put(&mut self, from: &Voice, lines: Vec<u8>) {
        if lines.is_empty() {
            return;
        }
        let key = self.key(from.slot);
        if self.heard {
            self.keep_for_who_hears(from, &lines);
        }
        let lines = match self.merged {
            true => signed(&lines, from.slot, from.pid),
            false => lines,
        };
        let file = named(&mut self.files, key, &self.cluster);
        let begun = Time(clock::monotonic());
        if let Some((_, why)) = self.slow.as_ref().filter(|(until, _)| begun < *until) {
            return file.lose(&self.dir, &lines, why, &mut self.news);
        }
        file.put(&mut self.dir, &lines, self.limits, begun, &mut self.news);
        let now = Time(clock::monotonic());
        let took = now - begun;
        self.slow = (took > SLOW).then(|| {
            let relief = took.saturating_mul(RELIEF).min(MOST_RELIEF);
            (now + relief, format!("a write took {}", human(took)))
        });
    }

    /// More than who follows is told in a turn is only counted.
    fn keep_for_who_hears(&mut self, from: &Voice, lines: &[u8]) {
        let count = output::count(lines);
        self.told_bytes = self.told_bytes.saturating_add(lines.len());
        let lines = match self.told_bytes > MOST_TOLD {
            true => Vec::new(),
            false => lines.to_vec(),
        };
        let (slot, pid) = (from.slot, from.pid);
        self.told.push(Written {
            slot,
            pid,
            lines,
            count,
        });
    }

    /// Somebody follows what is written from now on, or nobody does.
    pub fn heard(&mut self, so: bool) {
        self.heard = so;
        if !so {
            drop(self.take_told());
        }
    }

    /// What was written since the last time.
    pub fn take_told(&mut self) -> Vec<Written> {
        self.told_bytes = 0;
        std::mem::take(&mut self.told)
    }

    /// Is there one file for all?
    pub fn is_merged(&self) -> bool {
        self.merged
    }

    /// The slots that have files, or `None` for the one of all.
    pub fn slots(&self) -> Vec<Option<u16>> {
        self.files.keys().copied().collect()
    }

    /// The end of a file, so long at most, and whether that is all of it. Of one that has just been begun it
    /// is the end of the one before, too.
    pub fn end(&self, slot: Option<u16>, most: u64) -> (Vec<u8>, bool) {
        let name = file_name(&self.cluster, slot);
        let (new, whole) = self.end_of_file(&name, most);
        let room = most.saturating_sub(new.len() as u64);
        if !whole || room == 0 {
            return (new, whole);
        }
        let (mut old, whole) = self.end_of_file(&format!("{name}.1"), room);
        old.extend(new);
        (old, whole)
    }

    fn end_of_file(&self, name: &str, most: u64) -> (Vec<u8>, bool) {
        let Ok((file, entry)) = self.dir.read(name) else {
            return (Vec::new(), true);
        };
        let from = entry.size.saturating_sub(most);
        let length = usize::try_from(entry.size - from).unwrap_or(0);
        let mut bytes = vec![0; length];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|r| !r.is_empty()) {
            match file.read_at(rest, from.saturating_add(done as u64)) {
                Ok(n) if n > 0 => done += n,
                Ok(_) | Err(_) => break,
            }
        }
        bytes.truncate(done);
        (bytes, from == 0)
    }

    /// The files in the directory, ours first, and how many more there are at least.
    pub fn list(&self) -> io::Result<(Vec<Entry>, usize)> {
        self.dir.list(&format!("{}.", self.cluster))
    }

    /// The directory, for who reads it.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Goes on with the directory and the files that have their names now. What was done, or why not.
    pub fn reopen(&mut self) -> Result<String, String> {
        let shown = self.dir.path.display().to_string();
        // Whoever asks for that may have made room: also where nobody writes now.
        self.files.values_mut().for_each(OutFile::try_again);
        if let Err(e) = self.dir.reopen() {
            let why = reason(&e);
            return Err(format!(
                "cannot reopen {shown}: {why}; going on with the old one"
            ));
        }
        let (mut done, mut failed) = (0, Vec::new());
        for file in self.files.values_mut().filter(|f| f.is_open()) {
            match file.reopen(&self.dir) {
                Ok(()) => done += 1,
                Err(e) => failed.push(format!("{}: {}", file.name(), why(&e))),
            }
        }
        let done = format!("reopened {} in {shown}", count(done, "file"));
        if failed.is_empty() {
            return Ok(done);
        }
        let others = failed.split_off(failed.len().min(SAID)).len();
        if others > 0 {
            failed.push(count(others, "other"));
        }
        Err(format!(
            "{done}, but cannot reopen {}; going on with the old ones",
            failed.join(", ")
        ))
    }
}

/// The file of that slot, or of all.
fn named<'a>(
    files: &'a mut BTreeMap<Option<u16>, OutFile>,
    key: Option<u16>,
    cluster: &str,
) -> &'a mut OutFile {
    files
        .entry(key)
        .or_insert_with(|| OutFile::new(file_name(cluster, key)))
}

fn limits(s: &Settings) -> Limits {
    let (size, keep) = (s.log_max_size, s.log_keep);
    Limits { size, keep }
}

fn is_full(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

fn cannot(what: &std::path::Path, e: &io::Error) -> Failure {
    let why = why(e);
    (EX_CANTCREAT, format!("--log-dir {}: {why}", what.display()))
}

fn why(e: &io::Error) -> String {
    match e.raw_os_error() {
        Some(libc::ELOOP) => "it is a symbolic link".into(),
        _ => reason(e),
    }
}

impl Shell {
    /// Reads what workers have written, each its share.
    pub(super) fn hear_output(&mut self, ready: &[u64]) {
        let begun = self.now();
        let Some(output) = &mut self.output else {
            return ready.iter().for_each(|n| self.drain_stderr(WorkerId(*n)));
        };
        let mut all: BTreeSet<u64> = ready.iter().copied().collect();
        all.extend(output.rested(begun));
        // In turn: after the one that came last the last time.
        let last = output.heard_last.0;
        let (before, after): (Vec<u64>, Vec<u64>) = all.into_iter().partition(|n| *n <= last);
        for n in after.into_iter().chain(before) {
            if self.now() - begun > TURN {
                self.ready.insert((Kind::Stderr, n));
                continue;
            }
            let worker = WorkerId(n);
            self.drain_stderr(worker);
            self.rest_or_not(worker);
            if let Some(output) = &mut self.output {
                output.heard_last = worker;
            }
        }
        let now = self.now();
        if let Some(output) = self.output.as_mut().filter(|o| !o.resting.is_empty()) {
            output.rest.get_or_insert(now + REST);
        }
        self.say_output();
    }

    /// A pipe that something came by has a rest; one by which nothing came is the poll's again, which says
    /// at once if something has come in that moment.
    fn rest_or_not(&mut self, worker: WorkerId) {
        let busy = self.ready.contains(&(Kind::Stderr, worker.0));
        let (Some(output), Some(s)) = (&mut self.output, self.stderrs.get_mut(&worker)) else {
            return;
        };
        let came = s.came;
        s.heard = match came {
            0 => 0,
            n if n > MUCH => HEARD,
            _ => s.heard.saturating_sub(1),
        };
        let rests = busy || came > 0 && s.heard == 0;
        let Some(fd) = s.fd.as_ref().map(|fd| fd.as_raw_fd()) else {
            return;
        };
        let (mut source, registry) = (SourceFd(&fd), self.poll.registry());
        match (rests, output.resting.contains(&worker)) {
            // (One that has more is heard in the next turn anyway.)
            (true, _) if busy => {}
            (true, false) => {
                let _ = registry.deregister(&mut source);
                output.resting.insert(worker);
            }
            (false, true) => {
                output.resting.remove(&worker);
                let at = token(Kind::Stderr, worker.0);
                if let Err(e) = registry.register(&mut source, at, Interest::READABLE) {
                    self.say(Level::Error, "poll-error", format!("epoll_ctl: {e}"));
                }
            }
            (true, true) | (false, false) => {}
        }
    }

    /// What there is to say of the files.
    pub(super) fn say_output(&mut self) {
        let Some(output) = &mut self.output else {
            return;
        };
        for news in std::mem::take(&mut output.news) {
            self.say_of_file(news);
        }
        // The next time is news again.
        if let Some(output) = &mut self.output
            && !output.files.values().any(OutFile::is_in_trouble)
        {
            output.failing = None;
        }
    }

    fn say_of_file(&mut self, news: News) {
        let text = |file: &str| vec![("file", Value::Text(file.to_string()))];
        let line = match news {
            News::Fails { file, why } => {
                // On a full disk all of them fail: that is one thing to say.
                let failing = self.output.as_mut().map(|o| &mut o.failing);
                if failing.is_some_and(|f| f.replace(why.clone()).is_some_and(|was| was == why)) {
                    return;
                }
                let message = format!(
                    "cannot write {file}: {why}; what workers write there, or in other files of its directory, is lost until that works again, and counted; the cluster goes on"
                );
                self.log
                    .own(Level::Warn, "log-failed", text(&file), message)
            }
            News::Lost { file, lines } => {
                let mut fields = text(&file);
                fields.push(("count", Value::Number(lines.to_string())));
                let lost = lost(lines);
                let message = format!("{file} is written again: {lost}, which is said there, too");
                self.log.own(Level::Warn, "log-lost", fields, message)
            }
            News::NotRotated { file, why } => {
                let message = format!(
                    "cannot rotate {file}: {why}; it goes on, longer than --log-max-size, and that is tried again in a minute"
                );
                self.log
                    .own(Level::Warn, "log-not-rotated", text(&file), message)
            }
        };
        self.publish(line);
    }

    /// The end: what was lost and could not be said in its file, and how many bytes nobody had time to read.
    pub(super) fn say_all_lost(&mut self, unread: u64) {
        self.say_output();
        let files = self.output.iter().flat_map(|o| o.files.values());
        let lines = files.fold(0u64, |n, f| n.saturating_add(f.lost()));
        if lines > 0 {
            let fields = vec![("count", Value::Number(lines.to_string()))];
            let message = format!(
                "{} that workers wrote: they could not be written",
                lost(lines)
            );
            let line = self.log.own(Level::Warn, "log-lost", fields, message);
            self.publish(line);
        }
        if unread > 0 {
            let fields = vec![("bytes", Value::Number(unread.to_string()))];
            let bytes = count(usize::try_from(unread).unwrap_or(usize::MAX), "byte");
            let message = format!(
                "{bytes} that workers wrote were lost: they were in their pipes when the end came, and there was no time to read them"
            );
            let line = self.log.own(Level::Warn, "log-lost", fields, message);
            self.publish(line);
        }
    }
}

fn lost(lines: u64) -> String {
    let n = usize::try_from(lines).unwrap_or(usize::MAX);
    let were = if n == 1 { "was" } else { "were" };
    format!("{} {were} lost", count(n, "line"))
}

#[cfg(test)]
mod tests {
    use super::dir::tests::place;
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn one_file_that_cannot_be_reopened_keeps_no_other_from_that() {
        let at = place("some");
        let s = Settings {
            log_dir: Some(at.clone()),
            ..Settings::default()
        };
        let mut output = Output::open(&s).unwrap().unwrap();
        output.begin("w").unwrap();
        for slot in 0..7 {
            output.born(slot);
        }
        let mut worker = Voice::new(6, 42);
        for slot in 0..5 {
            let name = at.join(format!("w.{slot}.log"));
            fs::rename(&name, at.join("old")).unwrap();
            symlink("old", &name).unwrap();
        }
        for slot in 5..7 {
            fs::remove_file(at.join(format!("w.{slot}.log"))).unwrap();
        }
        let why = output.reopen().unwrap_err();
        let shown = at.display();
        let want = format!(
            "reopened 2 files in {shown}, but cannot reopen w.0.log: it is a symbolic link, w.1.log: it is a symbolic link, w.2.log: it is a symbolic link, 2 others; going on with the old ones"
        );
        assert_eq!(why, want);
        output.take(&mut worker, b"new\n");
        let text = fs::read_to_string(at.join("w.6.log")).unwrap();
        assert_eq!(text, "new\n");
        // Of one that nobody writes, and that could not be had, it is forgotten, too, when that was.
        output.close(0);
        output.born(0);
        assert_eq!(output.news.len(), 1);
        fs::remove_file(at.join("w.0.log")).unwrap();
        assert!(output.reopen().is_err());
        output.take(&mut Voice::new(0, 43), b"at once\n");
        let text = fs::read_to_string(at.join("w.0.log")).unwrap();
        assert_eq!(text, "at once\n");
        fs::remove_dir_all(at).unwrap();
    }
}
