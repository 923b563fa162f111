//! Ourselves as a process.

use super::cerr;
use std::io;

/// Orphaned descendants become our children, not init's: so they are reaped and, at the end, ended.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: prctl with plain numbers.
    unsafe { cerr(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) }.map(drop)
}

/// Soft and hard limit of open files.
pub fn nofile() -> Option<(u64, u64)> {
    rlimit(libc::RLIMIT_NOFILE as u8)
}

/// Soft and hard limit of that resource.
pub fn rlimit(resource: u8) -> Option<(u64, u64)> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one rlimit.
    unsafe { cerr(libc::getrlimit(resource.into(), &mut limit)) }.ok()?;
    Some((limit.rlim_cur, limit.rlim_max))
}

/// Raises our own soft limit to the hard one. Children are given the original back.
pub fn raise_nofile() {
    if let Some((soft, hard)) = nofile()
        && soft < hard
    {
        let wanted = hard.min(65_536).max(soft);
        let _ = nix::sys::resource::setrlimit(
            nix::sys::resource::Resource::RLIMIT_NOFILE,
            wanted,
            hard,
        );
    }
}

/// Have we a controlling terminal now?
pub fn has_terminal() -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    // A serial line would be waited for until somebody dials in.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut options = std::fs::OpenOptions::new();
    options
        .read(true)
        .custom_flags(flags)
        .open("/dev/tty")
        .is_ok()
}

/// Our pid.
pub fn id() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}

/// Effective user.
pub fn euid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Effective group.
pub fn egid() -> u32 {
    nix::unistd::getegid().as_raw()
}

/// Which of the two we are after `detach`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that was there before.
    Caller,
    /// A process in a session of its own, without a terminal and without a way to one.
    Daemon,
}

/// Forks twice: the first child leads a session, so the second can never have its terminal. To be
/// called before anything is open or handled that one of the two must not have.
pub fn detach() -> io::Result<Side> {
    // SAFETY: we are single-threaded, so each child is a whole copy; the one in between makes system
    // calls only and leaves by _exit.
    unsafe {
        let child = cerr(libc::fork())?;
        if child == 0 {
            libc::setsid();
            match libc::fork() {
                0 => return Ok(Side::Daemon),
                -1 => libc::_exit(*libc::__errno_location()),
                _ => libc::_exit(0),
            }
        }
        let mut status = 0;
        while libc::waitpid(child, &mut status, 0) < 0 {
            match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => {}
                // Nobody is to know of our children (SIGCHLD is ignored).
                _ => return Ok(Side::Caller),
            }
        }
        match libc::WEXITSTATUS(status) {
            0 => Ok(Side::Caller),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Leaves at once, without destructors: nothing of ours is worth more than the exit code.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: _exit takes any number and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Gives the pages of all program text back: what ran once, at start, is not needed again, and
/// what is needed comes back page by page from the page cache. Only executable mappings of files
/// that are not writable: no page of those can be our own, changed copy.
pub fn give_back_text() {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else {
        return;
    };
    for line in maps.lines() {
        let mut fields = line.split_whitespace();
        let (Some(range), Some("r-xp")) = (fields.next(), fields.next()) else {
            continue;
        };
        let is_file = fields.nth(3).is_some_and(|path| path.starts_with('/'));
        let bounds = range.split_once('-').map(|(a, b)| {
            let hex = |t| usize::from_str_radix(t, 16).unwrap_or(0);
            (hex(a), hex(b))
        });
        if let Some((start, end)) = bounds.filter(|(a, b)| is_file && a < b) {
            // SAFETY: read-only private mapping of a file, never written (its permissions forbid
            // it), so dropping its pages changes nothing that can be read or executed.
            unsafe {
                libc::madvise(
                    std::ptr::with_exposed_provenance_mut(start),
                    end - start,
                    libc::MADV_DONTNEED,
                )
            };
        }
    }
}

/// Gives free heap pages back, too.
pub fn give_back_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only releases what is free.
    unsafe {
        libc::malloc_trim(0)
    };
}
