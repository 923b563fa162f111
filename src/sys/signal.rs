//! Signals sent, and the signal state around fork.

use super::cerr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// A number that would reach strangers reaches nobody: it is an error, and not our end.
fn only_if(harmless: bool) -> io::Result<()> {
    match harmless {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// To one process. `pid` must be an unreaped child of ours, or be proven by a pidfd.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    only_if(pid > 1)?;
    // SAFETY: plain numbers.
    unsafe { cerr(libc::kill(pid, signal)) }.map(drop)
}

/// Does it end, without a core, whoever does nothing about it?
pub fn ends(signal: i32) -> bool {
    use libc::{
        SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGQUIT, SIGSEGV, SIGSYS, SIGTRAP, SIGXCPU, SIGXFSZ,
    };
    use libc::{SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH};
    let cores = [
        SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGQUIT, SIGSEGV, SIGSYS, SIGTRAP, SIGXCPU, SIGXFSZ,
    ];
    let harmless = [
        SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH,
    ];
    !cores.contains(&signal) && !harmless.contains(&signal)
}

/// To a process group.
pub fn kill_group(pgid: i32, signal: i32) -> io::Result<()> {
    only_if(pgid > 1)?;
    // SAFETY: plain numbers.
    unsafe { cerr(libc::kill(-pgid, signal)) }.map(drop)
}

/// To every process of our pid namespace but ourselves, and no fork escapes it. Only for the first
/// one of a namespace, and in its end: all of it ends with that one anyway.
pub fn kill_all(signal: i32) -> io::Result<()> {
    only_if(super::process::is_first())?;
    // SAFETY: plain numbers.
    unsafe { cerr(libc::kill(-1, signal)) }.map(drop)
}

/// Is there a process (zombies count) in that group?
pub fn group_exists(pgid: i32) -> bool {
    match kill_group(pgid, 0) {
        Ok(()) => true,
        Err(e) => e.raw_os_error() != Some(libc::ESRCH),
    }
}

/// Is the signal ignored, as nohup(1) leaves SIGHUP?
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: sigaction is plain data that the kernel fills; a null new action only asks.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut old) == 0
            && old.sa_sigaction == libc::SIG_IGN
    }
}

/// Ignores it from here on. Children are given the default back.
pub fn ignore(signal: i32) {
    // SAFETY: SIG_IGN is a valid disposition and runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Signals that some process has sent us (`catch_sent`), and who is woken by them.
static SENT: [AtomicBool; 65] = [const { AtomicBool::new(false) }; 65];
static WAKE: OnceLock<OwnedFd> = OnceLock::new();

/// From here on these are noted if a process has sent them, and forgotten if they are the kernel's
/// own: a terminal sends TTIN and TTOU to the whole group of a process that uses it in the
/// background. `wake`, a socket, gets a byte for each. Once in the life of the program.
pub fn catch_sent(signals: &[i32], wake: OwnedFd) -> io::Result<()> {
    if WAKE.set(wake).is_err() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    for signal in signals {
        // SAFETY: the action is plain data, all of it set. Its handler stays for as long as the
        // program, and does nothing but what is async-signal-safe: atomics, and one system call.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = note_sent as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            libc::sigemptyset(&mut action.sa_mask);
            cerr(libc::sigaction(*signal, &action, std::ptr::null_mut()))?;
        }
    }
    Ok(())
}

/// Was it sent since the last look?
pub fn take_sent(signal: i32) -> bool {
    let flag = usize::try_from(signal).ok().and_then(|n| SENT.get(n));
    flag.is_some_and(|f| f.swap(false, Ordering::SeqCst))
}

/// The same, and it stays so.
pub fn was_sent(signal: i32) -> bool {
    let flag = usize::try_from(signal).ok().and_then(|n| SENT.get(n));
    flag.is_some_and(|f| f.load(Ordering::SeqCst))
}

extern "C" fn note_sent(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel hands a handler with SA_SIGINFO a valid one.
    let code = unsafe { (*info).si_code };
    let flag = usize::try_from(signal).ok().and_then(|n| SENT.get(n));
    // kill(2), tgkill(2), sigqueue(3): nothing of the kernel's own is that low.
    let (Some(flag), true, Some(wake)) = (flag, code <= 0, WAKE.get()) else {
        return;
    };
    flag.store(true, Ordering::SeqCst);
    // SAFETY: one byte of ours to a descriptor that is never closed; who is interrupted finds its
    // errno as it was. A socket that is full has woken whom it has to.
    unsafe {
        let errno = *libc::__errno_location();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        libc::send(wake.as_raw_fd(), [0u8].as_ptr().cast(), 1, flags);
        *libc::__errno_location() = errno;
    }
}

/// Was SIGPIPE ignored when we were executed? By the time of `main` Rust ignores it in any case.
static PIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);

extern "C" fn look_at_sigpipe() {
    PIPE_WAS_IGNORED.store(is_ignored(libc::SIGPIPE), Ordering::Relaxed);
}

#[used]
// SAFETY: the linker puts the address of a function there, which is what the section is a list of; it
// makes one system call.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = look_at_sigpipe;

/// Gives SIGPIPE back as we found it.
pub fn restore_sigpipe() {
    if !PIPE_WAS_IGNORED.load(Ordering::Relaxed) {
        // SAFETY: SIG_DFL is a valid disposition.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    }
}

/// All signals blocked from here to the drop: no handler of ours runs in a child that still
/// shares our self-pipe.
pub struct Blocked(libc::sigset_t);

impl Blocked {
    /// Blocks them.
    pub fn all() -> Blocked {
        // SAFETY: both sets are plain data filled by these calls.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut old: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::sigprocmask(libc::SIG_BLOCK, &all, &mut old);
            Blocked(old)
        }
    }
}

impl Blocked {
    /// They stay so, for whatever is executed in our place.
    pub fn stay(self) {
        std::mem::forget(self);
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled by sigprocmask.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &self.0, std::ptr::null_mut()) };
    }
}

/// Of these two the runtime of our language catches the first, wherever it comes from, to say so if a stack has
/// overflowed. One that a process has sent is lost by it: who asks for a core that way would have to do so twice.
pub fn leave_faults_alone() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: SIG_DFL is a valid disposition.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Unblocks everything: whoever started us may have had signals blocked.
pub fn unblock_all() {
    // SAFETY: the set is plain data filled by sigemptyset.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}
