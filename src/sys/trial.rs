//! What the kernel allows here, tried for real: in a child that is gone when it is known. So a filter
//! that kills whoever calls something kills that child alone, what never returns costs its time and no
//! more, and nothing that was opened or set for it is left.

use super::{cerr, clock, fds, pidfd, signal::Blocked, socket};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What a trial says: about what, and how it went.
pub type Word = (u8, i32);
/// Bytes of one.
const WORD: usize = 5;
/// It has said all.
const OVER: u8 = u8::MAX;
/// Until who was killed is gone.
const GOING: Duration = Duration::from_secs(2);
/// No worker that `serve`s lives longer, in seconds: it is not there for ever if nobody can end it.
const LIFE: u32 = 30;

/// How a trial has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It has said all that there is to say.
    Well,
    /// It died before: by that signal, if it was one.
    Died(Option<i32>),
    /// It took too long.
    Late,
}

/// Where a trial says what it has found.
pub struct Say(OwnedFd);

impl Say {
    /// That went so: 0, or an errno, or whatever number is agreed upon.
    pub fn say(&mut self, what: u8, how: i32) {
        let _ = fds::write(self.0.as_fd(), &word(what, how));
    }
}

fn word(what: u8, how: i32) -> [u8; WORD] {
    let [a, b, c, d] = how.to_ne_bytes();
    [what, a, b, c, d]
}

fn words(bytes: &[u8]) -> Vec<Word> {
    let one = |w: &[u8]| {
        Some((
            *w.first()?,
            i32::from_ne_bytes(w.get(1..)?.try_into().ok()?),
        ))
    };
    bytes.chunks_exact(WORD).filter_map(one).collect()
}

/// Does that in a child, and tells what it has said by the time that it had ended, or had no more time.
pub fn run(limit: Duration, body: impl FnOnce(&mut Say)) -> io::Result<(Vec<Word>, Ended)> {
    let (ours, theirs) = fds::pipe_to()?;
    let blocked = Blocked::all();
    // SAFETY: we are single-threaded, so the child is a whole copy; it leaves by _exit.
    let pid = cerr(unsafe { libc::fork() })?;
    if pid == 0 {
        drop((ours, blocked));
        // SAFETY: plain numbers.
        unsafe {
            libc::setpgid(0, 0);
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
        }
        let mut say = Say(theirs);
        body(&mut say);
        say.say(OVER, 0);
        super::process::exit_now(0)
    }
    drop((theirs, blocked));
    let (bytes, whole) = hear(ours.as_fd(), limit);
    let gone = whole || {
        // SAFETY: it is our child, and not reaped: the number is its own.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        hear(ours.as_fd(), GOING).1
    };
    let status = reap(pid, gone).unwrap_or_default();
    let mut said = words(&bytes);
    let over = said.iter().position(|(what, _)| *what == OVER);
    said.truncate(over.unwrap_or(said.len()));
    let ended = match (over, whole) {
        (Some(_), _) => Ended::Well,
        (None, true) => Ended::Died(libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))),
        (None, false) => Ended::Late,
    };
    Ok((said, ended))
}

/// Its status. Who has not gone by now (it may not be signalled, or is stuck in the kernel) is not waited for.
fn reap(pid: i32, gone: bool) -> Option<i32> {
    let how = if gone { 0 } else { libc::WNOHANG };
    let mut status = 0;
    loop {
        // SAFETY: it is our child, and not reaped: the number is its own.
        let got = unsafe { libc::waitpid(pid, &mut status, how) };
        match got {
            ..0 if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return (got == pid).then_some(status),
        }
    }
}

/// What comes until the other end is closed, or all has been said; false: not by then.
fn hear(from: BorrowedFd<'_>, limit: Duration) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    let late = clock::monotonic().saturating_add(limit);
    loop {
        let left = Duration::from_nanos(late.saturating_sub(clock::monotonic()));
        if left.is_zero() || bytes.len() > 64 * WORD {
            return (bytes, false);
        }
        if !readable_within(from, left) {
            continue;
        }
        let mut some = [0; 16 * WORD];
        match fds::read(from, &mut some) {
            Ok(0) => return (bytes, true),
            // Somebody else may hold the other end, too: a child of its own that it could not end.
            Ok(n) => {
                bytes.extend(some.iter().take(n));
                if words(&bytes).iter().any(|(what, _)| *what == OVER) {
                    return (bytes, true);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return (bytes, true),
        }
    }
}

/// Is there something to read, or an end, within that time?
pub fn readable_within(fd: BorrowedFd<'_>, limit: Duration) -> bool {
    let mut p = libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let ms = i32::try_from(limit.as_millis().max(1)).unwrap_or(i32::MAX);
    // SAFETY: one valid pollfd.
    unsafe { libc::poll(&mut p, 1, ms) == 1 }
}

/// The next word of a worker that `serve`s, within that time.
pub fn hear_one(from: BorrowedFd<'_>, limit: Duration) -> Option<Word> {
    let mut bytes = [0; WORD];
    let n = match readable_within(from, limit) {
        true => fds::read(from, &mut bytes).ok()?,
        false => return None,
    };
    words(bytes.get(..n)?).first().copied()
}

/// Of `serve`: has it lost the right to gain privileges by what it executes? 1: yes.
pub const NO_NEW_PRIVS: u8 = 1;
/// Of `serve`: how its bind(2) went.
pub const BOUND: u8 = 2;
/// Of `serve`: the port it has then.
pub const PORT: u8 = 3;

/// What `serve` asks for, if nobody answers its bind(2): any port.
pub const ASKED: &str = "0.0.0.0:0";
/// Where it says what becomes of it, and until when it stays.
const SAYS: i32 = 1;
const STAYS: i32 = 0;

/// What a worker does, as far as we have a hand in it: it binds a socket. (To listen
/// would let in clients.) It says how that went on its descriptor 1, and stays until nobody holds the other end of its descriptor 0: it has
/// executed nothing, so its own copy of that, `held`, is closed here. It does not live for ever, whatever happens.
pub fn serve(held: i32) -> u8 {
    // SAFETY: plain numbers; of `held` this process knows nothing but the number.
    unsafe {
        libc::alarm(LIFE);
        libc::close(held);
    }
    // SAFETY: these descriptors are ours as long as this process lives.
    let (says, stays) = unsafe { (BorrowedFd::borrow_raw(SAYS), BorrowedFd::borrow_raw(STAYS)) };
    let say = |what, how| {
        let _ = fds::write(says, &word(what, how));
    };
    let errno = |done: io::Result<()>| done.map_or_else(|e| super::errno_of(&e), |()| 0);
    say(NO_NEW_PRIVS, i32::from(no_new_privs()));
    let Ok(asked) = ASKED.parse::<SocketAddr>() else {
        return 1;
    };
    let s = match socket::tcp_socket(&asked) {
        Ok(s) => s,
        Err(e) => {
            say(BOUND, super::errno_of(&e));
            return 1;
        }
    };
    say(BOUND, errno(socket::bind(s.as_fd(), &asked)));
    let port = socket::local_addr(s.as_fd()).map_or(0, |a| a.port());
    say(PORT, i32::from(port));
    let mut none = [0];
    while fds::read(stays, &mut none).is_ok_and(|n| n > 0) {}
    0
}

/// Has this process lost the right to gain privileges by what it executes?
pub fn no_new_privs() -> bool {
    // SAFETY: prctl with plain numbers.
    unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 }
}

/// Kills it. Who may not signal it as they are has the ids on with which they may.
pub fn kill(worker: i32) {
    // SAFETY: it is our child, and not reaped: the number is its own.
    unsafe { libc::kill(worker, libc::SIGKILL) };
}

/// Of one that was killed: waits until it has gone, which `says` tells, whose other end it alone has; not for
/// ever. By which signal it had ended before, if it had.
pub fn end(worker: i32, says: BorrowedFd<'_>) -> Option<i32> {
    let (_, gone) = hear(says, GOING);
    let status = reap(worker, gone)?;
    let signal = libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status));
    signal.filter(|s| ![libc::SIGKILL, libc::SIGALRM].contains(s))
}

/// Can it be signalled by its descriptor?
pub fn signals(worker: BorrowedFd<'_>) -> io::Result<()> {
    pidfd::send_signal(worker, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn what_a_trial_says_is_heard_and_how_it_ends() {
        let (said, ended) = run(LONG, |say| {
            say.say(7, -3);
            say.say(8, 0);
        })
        .unwrap();
        assert_eq!((said, ended), (vec![(7, -3), (8, 0)], Ended::Well));
        let (said, ended) = run(LONG, |say| {
            say.say(1, 1);
            // SAFETY: a signal to ourselves.
            unsafe { libc::raise(libc::SIGSYS) };
            say.say(2, 2);
        })
        .unwrap();
        assert_eq!(said, [(1, 1)]);
        assert_eq!(ended, Ended::Died(Some(libc::SIGSYS)));
        let (said, ended) = run(Duration::from_millis(50), |say| {
            say.say(1, 0);
            clock::pause(LONG);
        })
        .unwrap();
        assert_eq!((said, ended), (vec![(1, 0)], Ended::Late));
    }
}
