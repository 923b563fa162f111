//! Signals to the master: handlers set a flag and write a byte; the loop drains the pipe first and
//! reads the flags afterwards. Flags do not count: two TERMs in one turn are one.

use crate::core::{Event, MasterSignal};
use crate::sys::{process, signal};
use mio::net::UnixStream;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// In the order in which they are told: the gentler first, so that TERM and QUIT in one turn are
/// a hard stop.
const HANDLED: [i32; 7] = [
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTERM,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGCHLD,
];

/// Told before those: a stop comes after what was asked before it. Terminals send these, too, so it
/// matters who it was.
const SENT: [(i32, MasterSignal); 2] = [
    (libc::SIGTTIN, MasterSignal::More),
    (libc::SIGTTOU, MasterSignal::Fewer),
];

/// Pipe and flags.
pub struct Signals {
    pipe: UnixStream,
    flags: Vec<(i32, Arc<AtomicBool>)>,
    had_terminal: bool,
}

impl Signals {
    /// From here on they come to us. A SIGHUP that was ignored when we started (nohup) stays so.
    pub fn install() -> io::Result<Signals> {
        let (read, write) = std::os::unix::net::UnixStream::pair()?;
        read.set_nonblocking(true)?;
        let mut flags = Vec::new();
        for number in HANDLED {
            if number == libc::SIGHUP && signal::is_ignored(number) {
                continue;
            }
            let flag = Arc::new(AtomicBool::new(false));
            // The flag before the byte: whoever has read the byte sees the flag.
            signal_hook::flag::register(number, flag.clone())?;
            signal_hook::low_level::pipe::register(number, write.try_clone()?)?;
            flags.push((number, flag));
        }
        signal::catch_sent(&SENT.map(|(n, _)| n), write.into())?;
        // A log that may not grow is an error of write(2), not our end.
        signal::ignore(libc::SIGXFSZ);
        signal::unblock_all();
        Ok(Signals {
            pipe: UnixStream::from_std(read),
            flags,
            had_terminal: process::has_terminal(),
        })
    }

    /// For the poll.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Empties the pipe.
    pub fn drain(&mut self) {
        let mut buf = [0u8; 256];
        while self.pipe.read(&mut buf).is_ok_and(|n| n > 0) {}
    }

    fn take(&self, number: i32) -> bool {
        self.flags
            .iter()
            .any(|(n, flag)| *n == number && flag.swap(false, Ordering::SeqCst))
    }

    /// Has a child ended?
    pub fn take_child(&self) -> bool {
        self.take(libc::SIGCHLD)
    }

    /// Are the log files to be reopened? There is nothing to decide about that.
    pub fn take_reopen(&self) -> bool {
        self.take(libc::SIGUSR1)
    }

    /// Has the terminal gone that we had? Then a SIGHUP means that.
    fn hangs_up(&self) -> bool {
        self.had_terminal && !process::has_terminal()
    }

    /// Is a reload asked for, and by what?
    pub fn take_reload(&self) -> Option<&'static str> {
        let by_user = self.take(libc::SIGUSR2);
        match !self.hangs_up() && self.take(libc::SIGHUP) {
            true => Some("SIGHUP received"),
            false => by_user.then_some("SIGUSR2 received"),
        }
    }

    /// A turn was not enough for all children.
    pub fn again(&self) {
        for (n, flag) in &self.flags {
            if *n == libc::SIGCHLD {
                flag.store(true, Ordering::SeqCst);
            }
        }
    }

    /// All others, as core knows them.
    pub fn take_events(&self) -> Vec<Event> {
        let sent = SENT.iter().filter(|(n, _)| signal::take_sent(*n));
        let mut events: Vec<Event> = sent.map(|(_, what)| Event::Signal(*what)).collect();
        for (number, flag) in &self.flags {
            // Those have a door of their own, and what comes between must not be lost here.
            let told = match *number {
                libc::SIGCHLD | libc::SIGUSR1 | libc::SIGUSR2 => true,
                libc::SIGHUP => !self.hangs_up(),
                _ => false,
            };
            if told || !flag.swap(false, Ordering::SeqCst) {
                continue;
            }
            let meaning = match *number {
                libc::SIGTERM => MasterSignal::Term,
                libc::SIGINT => MasterSignal::Int,
                libc::SIGQUIT => MasterSignal::Quit,
                _ => MasterSignal::HangUp,
            };
            events.push(Event::Signal(meaning));
        }
        events
    }
}
