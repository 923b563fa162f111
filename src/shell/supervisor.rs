//! Whoever started us as a service (systemd, and who speaks as it does) is told how we are: by datagrams to
//! NOTIFY_SOCKET, as `wire::supervisor` words them. What cannot be told is one line in the log, and never
//! holds anything up: what finds the queue full waits here and is tried again, and who has gone is not
//! waited for. Workers have a socket of this kind from us, and nothing of ours (`environment`).
//!
//! WATCHDOG=1 is said in the loop and nowhere else: who hears it knows that the loop turns.

use super::Shell;
use crate::core::words::reason;
use crate::core::{Level, Notice, Time};
use crate::sys::sdnotify::{MOST, Speaker};
use crate::sys::{clock, process};
use crate::wire::supervisor::{self, Look, Told};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// So many messages wait where the queue is full; then the oldest go.
const MAX_WAITING: usize = 32;
/// So often they are tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Where it hears us, and what it was told. Made of what it is asked for: a path and a time.
#[derive(Default, Serialize, Deserialize)]
pub struct Supervisor {
    at: Option<OsString>,
    watchdog: Option<Duration>,
    /// Opened with the first message.
    #[serde(skip)]
    speaker: Option<Speaker>,
    told: Told,
    reloads: u64,
    /// What may be why we end, and the number of its error.
    cause: Option<(String, Option<i32>)>,
    /// What it could not take yet, in its order, and when that is tried again.
    waiting: VecDeque<String>,
    again: Option<Time>,
    /// When WATCHDOG=1 is due.
    pulse: Option<Time>,
    /// Has it failed to hear us, and is that said?
    deaf: bool,
}

/// There is no room for it now: in its queue, or in the kernel.
fn is_full(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::WouldBlock || e.raw_os_error() == Some(libc::ENOBUFS)
}

impl Supervisor {
    /// What our environment says of it; `pid` is who we were when we were executed.
    pub fn from_environment(pid: u32) -> Supervisor {
        let at = std::env::var_os("NOTIFY_SOCKET").filter(|at| !at.is_empty());
        let usec = std::env::var("WATCHDOG_USEC").unwrap_or_default();
        let whose = std::env::var("WATCHDOG_PID").ok();
        let watchdog = supervisor::watchdog(&usec, whose.as_deref(), pid);
        Supervisor::of(at, watchdog)
    }

    /// One that hears us there, and misses WATCHDOG=1 after that long.
    pub fn of(at: Option<OsString>, watchdog: Option<Duration>) -> Supervisor {
        Supervisor {
            // Without a socket there is nowhere to say it.
            watchdog: watchdog.filter(|_| at.is_some()),
            at,
            ..Supervisor::default()
        }
    }

    /// The same one, which was told nothing.
    pub fn again(&self) -> Supervisor {
        Supervisor::of(self.at.clone(), self.watchdog)
    }

    /// Where it hears us, if there is one.
    pub fn path(&self) -> Option<&OsStr> {
        self.at.as_deref()
    }

    /// After which silence it takes us for dead.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Somebody has asked for a reload.
    pub fn reload_asked(&mut self) {
        self.reloads = self.reloads.wrapping_add(1);
    }

    /// A reload begins, of which the cluster does not know. An error is for the log.
    pub fn reloading(&mut self, now: Time) -> io::Result<()> {
        let message = self.told.reloading(now);
        self.say(message, now)
    }

    /// And is over.
    pub fn ready(&mut self, now: Time) -> io::Result<()> {
        let message = self.told.ready();
        self.say(message, now)
    }

    /// It keeps copies of these by that name, and hands them to who comes after us; with `watched` until it
    /// sees that their other end has gone.
    pub fn store(&mut self, name: &str, fds: &[BorrowedFd<'_>], watched: bool) -> io::Result<()> {
        let poll = if watched { "" } else { "\nFDPOLL=0" };
        let message = format!("FDSTORE=1\nFDNAME={name}{poll}");
        for some in fds.chunks(MOST) {
            self.send(&message, some)?;
        }
        Ok(())
    }

    /// It keeps those of that name no longer.
    pub fn unstore(&mut self, name: &str) -> io::Result<()> {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
    }

    /// Tells why nothing comes of it, if it can be told.
    pub fn failed(&self, code: u8, why: &str) {
        let mut last = self.again();
        let _ = last.send(&supervisor::failure(code, why, None), &[]);
    }

    /// Says it behind all that waits.
    pub fn say(&mut self, message: String, now: Time) -> io::Result<()> {
        if self.at.is_none() {
            return Ok(());
        }
        self.waiting.push_back(message);
        while self.waiting.len() > MAX_WAITING {
            // A later one says more; what has happened is told once.
            let status = |m: &String| m.starts_with("STATUS=");
            let at = self.waiting.iter().position(status).unwrap_or(0);
            self.waiting.remove(at);
        }
        self.say_waiting(now)
    }

    fn say_waiting(&mut self, now: Time) -> io::Result<()> {
        self.again = None;
        while let Some(message) = self.waiting.pop_front() {
            match self.send(&message, &[]) {
                Ok(()) => {}
                Err(e) if is_full(&e) => {
                    self.waiting.push_front(message);
                    self.again = Some(now + AGAIN);
                    return Err(e);
                }
                Err(e) => {
                    // Who comes back has no use for what was so.
                    self.waiting.clear();
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    fn send(&mut self, message: &str, with: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(at) = &self.at else {
            return Ok(());
        };
        let speaker = match &mut self.speaker {
            Some(speaker) => speaker,
            none => none.insert(Speaker::to(at)?),
        };
        speaker.say(message, with)?;
        self.deaf = false;
        Ok(())
    }

    /// When there is something to do for it, whatever happens.
    pub fn deadline(&self) -> Option<Time> {
        self.pulse.into_iter().chain(self.again).min()
    }

    /// All that is due: what has changed, what waits, and that we are alive.
    fn tell(&mut self, look: &Look, now: Time) -> io::Result<()> {
        let mut done = Ok(());
        for message in self.told.news(look, now) {
            done = done.and(self.say(message, now));
        }
        if self.again.is_some_and(|at| at <= now) {
            done = done.and(self.say_waiting(now));
        }
        if let Some(watchdog) = self.watchdog
            && self.pulse.is_none_or(|at| at <= now)
        {
            self.pulse = Some(now + supervisor::pulse(watchdog));
            // Not behind what waits: it would be old.
            if self.waiting.is_empty() {
                done = done.and(self.send("WATCHDOG=1", &[]));
            }
        }
        done
    }
}

impl Shell {
    /// It is there, or not; -d is not for one that is.
    pub(super) fn meet_supervisor(&mut self) {
        if self.supervisor.at.is_none() || self.caller.is_none() {
            return;
        }
        let pid = process::id();
        let message = format!(
            "-d, and whoever starts us waits for READY=1 (NOTIFY_SOCKET): it is told that the daemon is pid {pid}, which it believes only if it lets others than its own child speak (systemd: NotifyAccess=all); leave -d out there"
        );
        self.say(Level::Warn, "daemon-notifies", message);
        let now = self.now();
        let done = self.supervisor.say(format!("MAINPID={pid}"), now);
        self.heard(done);
    }

    /// How we are, as far as that is news.
    pub(super) fn tell_supervisor(&mut self) {
        if self.supervisor.at.is_none() {
            return;
        }
        let look = self.look_at_ourselves();
        let done = self.supervisor.tell(&look, Time(clock::monotonic()));
        self.heard(done);
    }

    fn look_at_ourselves(&self) -> Look {
        let c = &self.cluster;
        Look {
            launched: c.is_launched(),
            stopping: c.is_stopping(),
            reloading: c.is_reloading(),
            reloads: self.supervisor.reloads,
            ready: c.ready_count(),
            wanted: usize::from(c.wanted()),
            workers: self.procs.pids().len(),
            generation: c.generation(),
            busy_until: c.busy_until(),
        }
    }

    /// What has just been said, in this sentence, as far as it is something to tell: before a caller is told that
    /// all is well, and before we are gone.
    pub(super) fn tell_supervisor_of(&mut self, notice: &Notice, sentence: &str) {
        if let Some(errno) = supervisor::cause(notice) {
            // The first one is why; what follows comes of it.
            let cause = (sentence.to_string(), errno);
            match self.cluster.is_launched() {
                true => self.supervisor.cause = Some(cause),
                false => drop(self.supervisor.cause.get_or_insert(cause)),
            }
        }
        match notice {
            Notice::AllReady { .. } | Notice::PartlyReady { .. } => {
                self.supervisor.cause = None;
                self.tell_supervisor();
            }
            Notice::Stopped { code } if *code != 0 => {
                let now = self.now();
                self.tell_supervisor();
                let cause = self.supervisor.cause.take();
                let (why, errno) = cause.unwrap_or((sentence.into(), None));
                self.supervisor.told.end();
                let message = supervisor::failure(*code, &why, errno);
                let done = self.supervisor.say(message, now);
                self.heard(done);
            }
            _ => {}
        }
    }

    /// Has it? If not, that is said once, until it has again.
    fn heard(&mut self, done: io::Result<()>) {
        let Err(e) = done else {
            return;
        };
        if std::mem::replace(&mut self.supervisor.deaf, true) {
            return;
        }
        let at = self.supervisor.at.clone().unwrap_or_default();
        let (at, why) = (at.to_string_lossy(), reason(&e));
        let message = format!(
            "cannot tell {at} how we are (NOTIFY_SOCKET): {why}; it is tried on, and this is not said again until it has heard us"
        );
        self.say(Level::Warn, "supervisor-deaf", message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn what_finds_the_queue_full_is_told_when_there_is_room_and_in_its_order() {
        let path = std::env::temp_dir().join(format!("mc-supervisor-{}", std::process::id()));
        let hears = UnixDatagram::bind(&path).unwrap();
        let mut s = Supervisor::of(Some(path.clone().into()), Some(Duration::from_secs(30)));
        assert!(s.store("x", &[hears.as_fd()], false).is_ok());
        let mut said: usize = 0;
        while s.say(format!("N={said}"), Time(0)).is_ok() {
            said += 1;
            assert!(said < 100_000);
        }
        let first = said;
        for n in said + 1..said + 100 {
            assert!(s.say(format!("N={n}"), Time(0)).is_err());
        }
        assert_eq!(
            (s.waiting.len(), s.deadline()),
            (MAX_WAITING, Some(Time(0) + AGAIN))
        );
        hears.set_nonblocking(true).unwrap();
        let heard = |s: &mut Supervisor| {
            let (mut all, mut buf) = (Vec::new(), [0; 64]);
            loop {
                while let Ok(n) = hears.recv(&mut buf) {
                    all.push(String::from_utf8_lossy(&buf[..n]).into_owned());
                }
                if s.waiting.is_empty() {
                    return all;
                }
                let _ = s.say_waiting(Time(1));
            }
        };
        let all = heard(&mut s);
        assert_eq!(all[0], "FDSTORE=1\nFDNAME=x\nFDPOLL=0");
        assert_eq!(all[1..=first].last(), Some(&format!("N={}", first - 1)));
        // Of those that waited the last ones.
        assert_eq!(all.len(), 1 + first + MAX_WAITING);
        assert_eq!(all.last(), Some(&format!("N={}", first + 99)));
        assert_eq!(s.deadline(), None);
        drop(hears);
        std::fs::remove_file(&path).unwrap();
        let e = s.say("N=0".into(), Time(0)).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::NotFound);
        // Nobody is waited for who has gone,
        assert_eq!((s.waiting.len(), s.deadline()), (0, None));
        // and who is not there at all is told nothing.
        let mut nobody = Supervisor::of(None, Some(Duration::from_secs(1)));
        assert!(nobody.say("N=0".into(), Time(0)).is_ok());
        assert_eq!((nobody.watchdog(), nobody.waiting.len()), (None, 0));
    }
}
