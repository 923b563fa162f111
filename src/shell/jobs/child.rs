//! A program of the operator's as a process: how it is born, and the pipes between it and us. None of
//! them blocks us, and it has none but these of our descriptors.
//!
//! It is ours and not a worker's: it runs as whoever we are, in our environment, of which nothing is
//! passed on that was said to us (`environment`); what is for workers alone (--env, --env-file, --user)
//! it does not get. Nobody watches what it binds.

use super::super::{Kind, Shell, environment, lookup, token};
use super::coprocess::Coprocess;
use crate::core::codes::EX_OSERR;
use crate::core::words::reason;
use crate::sys::lifeline::{self, Lifeline};
use crate::sys::spawn::{self, Plan, Report, Watch};
use crate::sys::{errno_of, fds};
use mio::Interest;
use mio::unix::SourceFd;
use serde::{Deserialize, Serialize};
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Read at once.
const CHUNK: usize = 16 * 1024;
/// So many times in one turn.
const TURN: usize = 8;

/// Which of its pipes; the lowest bits of a token's serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pipe {
    /// What it reads.
    Stdin,
    /// What it writes.
    Stdout,
    /// What it complains of.
    Stderr,
}

const BITS: u32 = 2;

/// Behind its stdin, stdout and stderr.
const FIRST_FREE: i32 = 3;

/// The serial that a token of that pipe has.
pub fn serial(job: u64, pipe: Pipe) -> u64 {
    job << BITS | pipe as u64
}

/// Which job's which pipe that is.
pub fn of_serial(serial: u64) -> (u64, Option<Pipe>) {
    let pipe = match serial & ((1 << BITS) - 1) {
        0 => Some(Pipe::Stdin),
        1 => Some(Pipe::Stdout),
        2 => Some(Pipe::Stderr),
        _ => None,
    };
    (serial >> BITS, pipe)
}

/// What is to be born.
pub struct Birth<'a> {
    /// Its serial among jobs.
    pub job: u64,
    /// What is run, and its words.
    pub words: &'a [OsString],
    /// Where.
    pub cwd: &'a Path,
    /// Variables of its own.
    pub own: &'a [(String, Vec<u8>)],
    /// Has it something to read?
    pub reads: bool,
    /// Is its stderr its stdout?
    pub merged: bool,
    /// What is executed, whatever its first word is.
    pub exe: Option<&'a Path>,
    /// Descriptors of ours that it has, by their own numbers,
    pub keep: &'a [RawFd],
    /// and those of which it has the numbers alone.
    pub hollow: &'a [RawFd],
}

/// The file that we were executed from, even if it has another name by now, or none: the child is forked
/// from us before it asks for it.
pub const OURSELVES: &str = "/proc/self/exe";

/// One that was born.
#[derive(Serialize, Deserialize)]
pub struct Child {
    /// Its first process and its group. Whoever has this sees to it that it is not reaped.
    pub pid: i32,
    #[serde(with = "crate::shell::carry")]
    report: OwnedFd,
    /// What it ends with, if that is its own.
    #[serde(with = "crate::shell::carry")]
    _life: Option<OwnedFd>,
    #[serde(with = "crate::shell::carry")]
    stdin: Option<OwnedFd>,
    #[serde(with = "crate::shell::carry")]
    stdout: Option<OwnedFd>,
    #[serde(with = "crate::shell::carry")]
    stderr: Option<OwnedFd>,
}

/// What a look at a pipe has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// All that there was for now.
    All,
    /// There may be more: this turn's share is used up.
    More,
    /// Nobody has the other end any more.
    End,
}

impl Child {
    /// What has come from it, in pieces.
    pub fn read(&self, pipe: Pipe, each: impl FnMut(&[u8])) -> Came {
        self.read_some(pipe, TURN, each)
    }

    /// The same, so many pieces at most.
    pub fn read_some(&self, pipe: Pipe, most: usize, mut each: impl FnMut(&[u8])) -> Came {
        let fd = match pipe {
            Pipe::Stdout => &self.stdout,
            Pipe::Stderr => &self.stderr,
            Pipe::Stdin => &None,
        };
        let Some(fd) = fd else { return Came::All };
        let mut buf = [0u8; CHUNK];
        for _ in 0..most {
            match fds::read(fd.as_fd(), &mut buf) {
                Ok(0) => return Came::End,
                Ok(n) => each(buf.get(..n).unwrap_or_default()),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Came::All,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Came::End,
            }
        }
        Came::More
    }

    /// Gives it as much of that as it takes.
    pub fn write_some(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.stdin {
            Some(fd) => fds::write(fd.as_fd(), bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// It has no more to read.
    #[cfg(test)]
    pub fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// Why it was not executed, if so. Asked when it has ended.
    pub fn failure(&self) -> Option<(&'static str, i32)> {
        loop {
            match spawn::receive(self.report.as_fd()) {
                Ok(Some(Report::Failed(step, errno))) => return Some((step, errno)),
                Ok(Some(Report::Unwatched(_) | Report::Listener(_) | Report::Outlives(_))) => {}
                Ok(Some(Report::Closed | Report::Arrived) | None) => return None,
                Err(e) => return Some(("report", errno_of(&e))),
            }
        }
    }

    fn pipes(&self) -> impl Iterator<Item = &OwnedFd> {
        [&self.stdin, &self.stdout, &self.stderr]
            .into_iter()
            .flatten()
    }
}

/// Forks it. `null` is what it reads that has nothing to read; `nofile` its limit of open files; `life` what
/// ends it with us.
pub fn fork(
    birth: &Birth<'_>,
    program: &CString,
    null: BorrowedFd<'_>,
    nofile: Option<(u64, u64)>,
    life: &Lifeline,
) -> io::Result<Child> {
    let word = |w: &OsString| CString::new(w.as_bytes()).ok();
    let argv: Vec<CString> = birth.words.iter().filter_map(word).collect();
    let env = environment::of_program(birth.own);
    let cwd = CString::new(birth.cwd.as_os_str().as_bytes()).unwrap_or_default();
    let (report, theirs) = spawn::report_pair()?;
    let stdin = birth.reads.then(fds::pipe_to).transpose()?;
    let (out, out_theirs) = fds::pipe()?;
    let err = (!birth.merged).then(fds::pipe).transpose()?;
    let thread = life.thread()?;
    let number = lifeline::number(nofile.map(|(soft, _)| soft), FIRST_FREE, &[]);
    let plan = Plan {
        program,
        argv: &argv,
        env: &env,
        cwd: Some(&cwd),
        // We may be where we have no way to any more.
        stay: true,
        cgroup: None,
        ids: None,
        umask: None,
        nice: None,
        cpu: None,
        limits: &[],
        stdin: Some(stdin.as_ref().map_or(null, |(r, _)| r.as_fd())),
        stdout: Some(out_theirs.as_fd()),
        stderr: Some(err.as_ref().map_or(out_theirs.as_fd(), |(_, w)| w.as_fd())),
        pass: Vec::new(),
        extra: Vec::new(),
        nofile,
        watch: Watch::No,
        watch_unix: false,
        keep: birth.keep,
        hollow: birth.hollow,
        mortal: true,
        // (It might be at one of these numbers. Such a one ends by the death signal.)
        life: birth.keep.is_empty().then(|| thread.line(number)),
        report: Some(theirs.as_fd()),
    };
    let pid = spawn::fork_exec(&plan)?;
    Ok(Child {
        pid,
        report,
        _life: thread.keep(),
        stdin: stdin.map(|(_, w)| w),
        stdout: Some(out),
        stderr: err.map(|(r, _)| r),
    })
}

impl Shell {
    /// Runs it. An error is what a shell would exit with, and why.
    pub(super) fn give_birth(&mut self, birth: &Birth<'_>) -> Result<Child, (u8, String)> {
        let first = birth.words.first().map(OsString::as_os_str);
        let first = first.unwrap_or_default();
        let path = std::env::var_os("PATH");
        let program = match birth.exe {
            Some(exe) => CString::new(exe.as_os_str().as_bytes()).unwrap_or_default(),
            None => lookup::find(first, path, birth.cwd).map_err(|e| (e.code, e.message))?,
        };
        // Who is handed ours needs room for as many.
        let nofile = self.nofile.filter(|_| birth.keep.is_empty());
        let null = self.devnull.as_fd();
        let child = fork(birth, &program, null, nofile, &self.lifeline).map_err(|e| {
            let shown = first.to_string_lossy();
            (EX_OSERR, format!("{shown}: cannot be run: {}", reason(&e)))
        })?;
        self.watch_child(birth.job, &child);
        Ok(child)
    }

    fn watch_child(&self, job: u64, child: &Child) {
        let registry = self.poll.registry();
        let all = [
            (&child.stdin, Pipe::Stdin, Interest::WRITABLE),
            (&child.stdout, Pipe::Stdout, Interest::READABLE),
            (&child.stderr, Pipe::Stderr, Interest::READABLE),
        ];
        for (fd, pipe, interest) in all {
            let Some(raw) = fd.as_ref().map(AsRawFd::as_raw_fd) else {
                continue;
            };
            let at = token(Kind::Job, serial(job, pipe));
            // (Descriptors of this kind can be had in any poll.)
            let _ = registry.register(&mut SourceFd(&raw), at, interest);
        }
    }

    /// All that run, of a master that was here before us.
    pub(in crate::shell) fn rewatch_programs(&mut self) {
        let jobs = self.jobs.running.iter().map(|(id, job)| (*id, &job.child));
        let lasting = self.jobs.coprocesses.values().filter_map(Coprocess::child);
        for (serial, child) in jobs.chain(lasting) {
            self.watch_child(serial, child);
        }
        if !self.jobs.waiting.is_empty() {
            self.ready.insert((Kind::Job, super::START));
        }
    }

    /// Nothing comes from there, or goes there, any more.
    pub(super) fn close_pipe(&self, child: &mut Child, pipe: Pipe) {
        let fd = match pipe {
            Pipe::Stdin => child.stdin.take(),
            Pipe::Stdout => child.stdout.take(),
            Pipe::Stderr => child.stderr.take(),
        };
        if let Some(fd) = fd {
            self.deregister(fd.as_fd());
        }
    }

    /// All of them, before it is dropped.
    pub(super) fn close_pipes(&self, child: &Child) {
        for fd in child.pipes() {
            self.deregister(fd.as_fd());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_names_job_and_pipe() {
        for job in [1, 2, 1 << 40] {
            for pipe in [Pipe::Stdin, Pipe::Stdout, Pipe::Stderr] {
                assert_eq!(of_serial(serial(job, pipe)), (job, Some(pipe)));
            }
        }
        assert_eq!(of_serial(3), (0, None));
    }
}
