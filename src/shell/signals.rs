//! Signals to the master: handlers set a flag and write a byte; the loop drains the pipe first and
//! reads the flags afterwards. Flags do not count: two TERMs in one turn are one. What each asks for
//! is a table, of which --on-signal changes lines.

use crate::core::words::signal_received;
use crate::core::{MasterSignal, Size};
use crate::settings::Order;
use crate::sys::{process, signal};
use mio::net::UnixStream;
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What they ask for where --on-signal says nothing else.
const USUAL: [(i32, Order); 8] = [
    (libc::SIGHUP, Order::Reload),
    (libc::SIGUSR2, Order::Reload),
    (libc::SIGUSR1, Order::Reopen),
    (libc::SIGTTIN, Order::Resize(Size::More(1))),
    (libc::SIGTTOU, Order::Resize(Size::Fewer(1))),
    (libc::SIGTERM, Order::Stop),
    (libc::SIGINT, Order::Stop),
    (libc::SIGQUIT, Order::Kill),
];

/// Terminals send these, too, so it matters who it was.
const SENT: [i32; 2] = [libc::SIGTTIN, libc::SIGTTOU];

/// Something that a signal has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Reopen the log file. There is nothing to decide about that.
    Reopen,
    /// New workers; what has asked, in words.
    Reload(&'static str),
    /// Another binary in our own place; likewise.
    Handover(&'static str),
    /// What core decides about.
    Core(MasterSignal),
}

/// One that is caught.
struct Caught {
    number: i32,
    order: Order,
    /// Has --on-signal said so?
    mapped: bool,
    /// `None`: one of `SENT`, which has its own.
    flag: Option<Arc<AtomicBool>>,
}

impl Caught {
    /// Has it come since the last look?
    fn take(&self) -> bool {
        match &self.flag {
            Some(flag) => flag.swap(false, Ordering::SeqCst),
            None => signal::take_sent(self.number),
        }
    }

    fn has_come(&self) -> bool {
        match &self.flag {
            Some(flag) => flag.load(Ordering::SeqCst),
            None => signal::was_sent(self.number),
        }
    }

    /// What it asks for; the terminal that we had may have gone, and then an HUP means that.
    fn asks(&self, hung_up: bool) -> Option<Asked> {
        let why = signal_received(self.number);
        Some(match self.order {
            Order::Ignore => return None,
            _ if self.number == libc::SIGHUP && !self.mapped && hung_up => {
                Asked::Core(MasterSignal::HangUp)
            }
            Order::Reopen => Asked::Reopen,
            Order::Reload => Asked::Reload(why),
            Order::Handover => Asked::Handover(why),
            Order::Rotate(enable) => Asked::Core(MasterSignal::Rotate { enable, why }),
            Order::Resize(size) => Asked::Core(MasterSignal::Resize(size, why)),
            Order::Signal(signal, target) => Asked::Core(MasterSignal::Relay {
                signal,
                target,
                why,
            }),
            Order::Stop => Asked::Core(MasterSignal::Stop(why)),
            Order::Kill => Asked::Core(MasterSignal::Kill(why)),
        })
    }
}

/// The gentler first, so that TERM and QUIT in one turn are a hard stop; and a stop comes after what
/// was asked before it.
fn rank(asked: &Asked) -> u8 {
    match asked {
        Asked::Reopen => 0,
        // Of its own: two that ask for a reload are one if they are neighbours.
        Asked::Handover(_) => 2,
        Asked::Reload(_) => 1,
        Asked::Core(MasterSignal::Rotate { .. }) => 3,
        Asked::Core(MasterSignal::Resize(..)) => 3,
        Asked::Core(MasterSignal::Relay { .. }) => 4,
        Asked::Core(MasterSignal::HangUp | MasterSignal::CallerGone) => 5,
        Asked::Core(MasterSignal::Stop(_)) => 6,
        Asked::Core(MasterSignal::Kill(_)) => 7,
    }
}

/// Pipe and flags.
pub struct Signals {
    pipe: UnixStream,
    child: Arc<AtomicBool>,
    /// We were stopped, and go on.
    continued: Arc<AtomicBool>,
    caught: Vec<Caught>,
    had_terminal: bool,
}

impl Signals {
    /// From here on they come to us. A SIGHUP that was ignored when we started (nohup) stays so,
    /// unless it was said what it is for.
    pub fn install(on_signal: &BTreeMap<i32, Order>) -> io::Result<Signals> {
        let (read, write) = std::os::unix::net::UnixStream::pair()?;
        read.set_nonblocking(true)?;
        let flagged = |number: i32| -> io::Result<Arc<AtomicBool>> {
            let flag = Arc::new(AtomicBool::new(false));
            // The flag before the byte: whoever has read the byte sees the flag.
            signal_hook::flag::register(number, flag.clone())?;
            signal_hook::low_level::pipe::register(number, write.try_clone()?)?;
            Ok(flag)
        };
        let usual = USUAL.iter().filter(|(n, _)| !on_signal.contains_key(n));
        let usual = usual.map(|(number, order)| (*number, *order, false));
        let said = on_signal.iter().map(|(n, order)| (*n, *order, true));
        let mut caught = Vec::new();
        for (number, order, mapped) in usual.chain(said) {
            if order == Order::Ignore {
                signal::ignore(number);
                continue;
            }
            if number == libc::SIGHUP && !mapped && signal::is_ignored(number) {
                continue;
            }
            let flag = match SENT.contains(&number) {
                true => None,
                false => Some(flagged(number)?),
            };
            caught.push(Caught {
                number,
                order,
                mapped,
                flag,
            });
        }
        let child = flagged(libc::SIGCHLD)?;
        let continued = Arc::new(AtomicBool::new(false));
        if on_signal.get(&libc::SIGCONT) != Some(&Order::Ignore) {
            signal_hook::flag::register(libc::SIGCONT, continued.clone())?;
        }
        let sent = caught.iter().filter(|c| c.flag.is_none());
        let sent: Vec<i32> = sent.map(|c| c.number).collect();
        signal::catch_sent(&sent, write.into())?;
        // A log that may not grow is an error of write(2), not our end.
        signal::ignore(libc::SIGXFSZ);
        signal::unblock_all();
        signal::leave_faults_alone();
        Ok(Signals {
            pipe: UnixStream::from_std(read),
            child,
            continued,
            caught,
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

    /// Has a child ended?
    pub fn take_child(&self) -> bool {
        self.child.swap(false, Ordering::SeqCst)
    }

    /// Have we been told to go on since the last look?
    pub fn take_continued(&self) -> bool {
        self.continued.swap(false, Ordering::SeqCst)
    }

    /// A turn was not enough for all children.
    pub fn again(&self) {
        self.child.store(true, Ordering::SeqCst);
    }

    /// Had we a terminal when we were started?
    pub fn had_terminal(&self) -> bool {
        self.had_terminal
    }

    /// Another one had it, or not, who was here before us.
    pub fn had_one_before(&mut self, had: bool) {
        self.had_terminal |= had;
    }

    /// Has one come that nobody has looked at yet?
    pub fn any(&self) -> bool {
        self.child.load(Ordering::SeqCst) || self.caught.iter().any(Caught::has_come)
    }

    /// Has the terminal gone that we had? Then a SIGHUP means that.
    fn hangs_up(&self) -> bool {
        self.had_terminal && !process::has_terminal()
    }

    /// What all others ask for, in the order in which it is to be done. Two that ask for a reload are
    /// one.
    pub fn take_asked(&self) -> Vec<Asked> {
        let came: Vec<&Caught> = self.caught.iter().filter(|c| c.take()).collect();
        if came.is_empty() {
            return Vec::new();
        }
        let hung_up = self.hangs_up();
        let mut asked: Vec<Asked> = came.iter().filter_map(|c| c.asks(hung_up)).collect();
        asked.sort_by_key(rank);
        asked.dedup_by(|b, a| matches!((b, a), (Asked::Reload(_), Asked::Reload(_))));
        asked
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::Target;

    fn caught(number: i32, order: Order, mapped: bool) -> Caught {
        let flag = None;
        Caught {
            number,
            order,
            mapped,
            flag,
        }
    }

    #[test]
    fn an_hup_is_a_hang_up_where_the_terminal_has_gone_and_nothing_else_was_said() {
        let usual = caught(libc::SIGHUP, Order::Reload, false);
        assert_eq!(usual.asks(false), Some(Asked::Reload("SIGHUP received")));
        let gone = Asked::Core(MasterSignal::HangUp);
        assert_eq!(usual.asks(true), Some(gone));
        let said = caught(libc::SIGHUP, Order::Reopen, true);
        assert_eq!(said.asks(true), Some(Asked::Reopen));
    }

    #[test]
    fn the_gentler_comes_first() {
        let target = Target::All;
        let all = [
            (libc::SIGTERM, Order::Kill),
            (libc::SIGINT, Order::Stop),
            (libc::SIGWINCH, Order::Signal(28, target)),
            (libc::SIGUSR2, Order::Resize(Size::To(3))),
            (libc::SIGQUIT, Order::Reload),
            (libc::SIGCONT, Order::Reopen),
        ];
        let asks = |(n, order): &(i32, Order)| caught(*n, *order, true).asks(false);
        let mut asked: Vec<Asked> = all.iter().filter_map(asks).collect();
        asked.sort_by_key(rank);
        asked.reverse();
        assert_eq!(asked, all.iter().filter_map(asks).collect::<Vec<_>>());
    }
}
