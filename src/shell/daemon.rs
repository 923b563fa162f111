//! -d: into the background, and the truth about it for whoever typed that. The caller's process waits
//! on a socket for one byte, which is its exit code; the daemon watches the other end, so that it does
//! not linger half-started when the caller has gone.
//!
//! The forks come before the first descriptor and the first handler of ours. The caller's stderr is
//! kept until the workers are ready, for what there is to say; everything else of the caller's, be it
//! a descriptor that we were only born with, is let go of before the first worker is forked.

use super::start::{self, Found};
use super::{Kind, Shell, client, token};
use crate::core::codes::{EX_OSERR, EX_USAGE, Failure};
use crate::core::words::reason;
use crate::core::{Event, Given, Level, MasterSignal};
use crate::settings::Settings;
use crate::sys::fds;
use crate::sys::process::{self, Side};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Who typed -d, waiting.
pub struct Caller(UnixStream);

impl Caller {
    /// For the poll: it never says anything, but it can go.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Its exit code. It may have gone.
    pub fn tell(mut self, code: u8) {
        let _ = self.0.write_all(&[code]);
    }

    fn has_gone(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(n) => n == 0,
            Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
        }
    }
}

/// May it be one, with these open? The descriptors that were passed for that.
pub(super) fn may(given: &[Given]) -> Result<Vec<RawFd>, Failure> {
    if process::id() == 1 {
        return Err((
            EX_USAGE,
            "-d as PID 1: the container would end with it; leave -d out".into(),
        ));
    }
    let passed = given.iter().filter_map(|g| g.passed.as_ref());
    let passed: Vec<RawFd> = passed.map(|(fd, _)| *fd).collect();
    match passed.iter().find(|fd| **fd < 3) {
        None => Ok(passed),
        Some(fd) => {
            let why = format!("-d lets go of fd {fd}: pass sockets by numbers from 3 on");
            Err((EX_USAGE, why))
        }
    }
}

/// Runs the cluster as a daemon. Returns in both processes: in the caller's when it is known how the
/// start went, in the daemon's at its end.
pub fn run(settings: Settings, found: Found) -> Result<u8, Failure> {
    let mut keep = may(&found.given)?;
    let cannot = |e: io::Error| (EX_OSERR, format!("cannot become a daemon: {}", reason(&e)));
    let (callers, daemons) = UnixStream::pair().map_err(cannot)?;
    match process::detach().map_err(cannot)? {
        Side::Caller => {
            drop(daemons);
            wait(callers)
        }
        Side::Daemon => {
            drop(callers);
            daemons.set_nonblocking(true).map_err(cannot)?;
            keep.push(daemons.as_raw_fd());
            keep.extend(found.left.iter().map(AsRawFd::as_raw_fd));
            fds::close_inherited(&keep);
            let mut caller = Some(Caller(daemons));
            match (start::serve(settings, found, &mut caller), caller) {
                (Err((code, message)), Some(waiting)) => {
                    client::complain(&message);
                    waiting.tell(code);
                    Ok(code)
                }
                (ended, _) => ended,
            }
        }
    }
}

fn wait(mut daemon: UnixStream) -> Result<u8, Failure> {
    let mut code = [0];
    loop {
        match daemon.read(&mut code) {
            Ok(1) => return Ok(code[0]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Ok(_) | Err(_) => {
                let why = "the daemon has ended before its workers were ready, and without a word: was it killed?";
                return Err((EX_OSERR, why.into()));
            }
        }
    }
}

impl Shell {
    /// From here on it is a daemon's life: `caller` waits until it is known how the start went.
    pub(super) fn become_daemon(&mut self, caller: Caller) {
        // Whatever they are, nobody shall wait for us to close them.
        if let Err(e) = fds::to_null(&[0, 1]).and_then(|()| std::env::set_current_dir("/")) {
            let message = format!("cannot let go of what is the caller's: {}", reason(&e));
            self.say(Level::Warn, "daemon-holds", message);
        }
        self.register(caller.fd(), token(Kind::Caller, 0));
        self.caller = Some(caller);
    }

    /// There is news of the caller: that it has gone is the only one there can be.
    pub(super) fn hear_caller(&mut self) {
        if !self.caller.as_mut().is_some_and(Caller::has_gone) {
            return;
        }
        if let Some(caller) = self.caller.take() {
            self.deregister(caller.fd());
        }
        let gone = Event::Signal(MasterSignal::CallerGone);
        self.queue.push_back(gone);
        self.settle();
    }

    /// The start is over: nothing of the caller's is held any longer. (The byte is the last of it: who
    /// has it may close the terminal.)
    pub(super) fn release_caller(&mut self) {
        let Some(caller) = self.caller.take() else {
            return;
        };
        self.deregister(caller.fd());
        self.let_go_of_stderr();
        if let Err(e) = fds::to_null(&[2]) {
            let message = format!("cannot let go of the caller's stderr: {}", reason(&e));
            self.say(Level::Warn, "daemon-holds", message);
        }
        caller.tell(0);
    }
}
