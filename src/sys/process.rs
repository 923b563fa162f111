//! Ourselves as a process.

use super::cerr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Orphaned descendants become our children, not init's: so they are reaped and, at the end, ended.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: prctl with plain numbers.
    unsafe { cerr(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)) }.map(drop)
}

/// More than that we do not ask for, however high the hard limit is.
const MOST_FILES: u64 = 1 << 20;

/// So many files we can have open, once the soft limit is raised.
pub fn most_files() -> u64 {
    nofile().map_or(MOST_FILES, |(_, hard)| hard.min(MOST_FILES))
}

/// Soft and hard limit of open files.
pub fn nofile() -> Option<(u64, u64)> {
    rlimit(libc::RLIMIT_NOFILE as u8)
}

/// As much of these, soft and hard, as we may still give.
pub fn within((soft, hard): (u64, u64)) -> (u64, u64) {
    let most = nofile().map_or(hard, |(_, hard)| hard);
    (soft.min(most), hard.min(most))
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
        let wanted = hard.min(MOST_FILES).max(soft);
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

/// Are we the first process of our pid namespace? Then every orphan of it becomes our child, and all
/// of it ends with us.
pub fn is_first() -> bool {
    id() == 1
}

/// Effective user.
pub fn euid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Have we been executed by somebody whose rights are others (setuid)?
pub fn has_gained() -> bool {
    // SAFETY: these calls cannot fail.
    unsafe { libc::getuid() != libc::geteuid() || libc::getgid() != libc::getegid() }
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
/// what is needed comes back page by page from the page cache.
///
/// Only segments that can be executed and not written, so no page of them can be our own, changed
/// copy, but for one case that is left out: text that the loader has relocated in place and made
/// read-only afterwards. Only whole pages, so that none is a neighbour's, too. The vdso is the
/// kernel's.
pub fn give_back_text() {
    // SAFETY: the callback has the type that is asked for, and gets no data of ours.
    unsafe { libc::dl_iterate_phdr(Some(give_back_object), std::ptr::null_mut()) };
}

/// # Safety
/// As dl_iterate_phdr calls it: `info` is valid, and describes an object that is mapped.
unsafe extern "C" fn give_back_object(
    info: *mut libc::dl_phdr_info,
    _size: usize,
    _data: *mut libc::c_void,
) -> i32 {
    // SAFETY: contract above; dlpi_phnum headers are at dlpi_phdr; sysconf and getauxval take any
    // number.
    let (base, headers, page, vdso) = unsafe {
        let info = &*info;
        (
            info.dlpi_addr as usize,
            std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)),
            usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).unwrap_or(4096),
            libc::getauxval(libc::AT_SYSINFO_EHDR) as usize,
        )
    };
    let place = |h: &libc::Elf64_Phdr| {
        let start = base.wrapping_add(h.p_vaddr as usize);
        start..start.saturating_add(h.p_memsz as usize)
    };
    // SAFETY: a dynamic section is mapped with its object and ends with DT_NULL.
    let relocated = |h: &libc::Elf64_Phdr| unsafe { has_text_relocations(place(h).start) };
    let of = |kind| headers.iter().filter(move |h| h.p_type == kind);
    if of(libc::PT_DYNAMIC).any(relocated) {
        return 0;
    }
    let fixed = libc::PF_X | libc::PF_W;
    for h in of(libc::PT_LOAD).filter(|h| h.p_flags & fixed == libc::PF_X) {
        let all = place(h);
        let (start, end) = (all.start.next_multiple_of(page), all.end / page * page);
        if !all.contains(&vdso) && start < end {
            // SAFETY: whole pages of a mapping of a file that nothing has written to: dropping them
            // changes nothing that can be read or executed.
            unsafe {
                libc::madvise(
                    std::ptr::with_exposed_provenance_mut(start),
                    end - start,
                    libc::MADV_DONTNEED,
                )
            };
        }
    }
    0
}

/// Has the loader written to the text of the object with this dynamic section?
///
/// # Safety
/// It is mapped, and ends with DT_NULL.
unsafe fn has_text_relocations(dynamic: usize) -> bool {
    const DT_NULL: u64 = 0;
    const DT_TEXTREL: u64 = 22;
    const DT_FLAGS: u64 = 30;
    const DF_TEXTREL: u64 = 4;
    let mut entry: *const [u64; 2] = std::ptr::with_exposed_provenance(dynamic);
    loop {
        // SAFETY: contract above: DT_NULL has not been seen yet.
        let [tag, value] = unsafe { entry.read() };
        match tag {
            DT_NULL => return false,
            DT_TEXTREL => return true,
            DT_FLAGS if value & DF_TEXTREL != 0 => return true,
            // SAFETY: as above.
            _ => entry = unsafe { entry.add(1) },
        }
    }
}

/// A piece of that many bytes or more is a mapping of its own, and goes back as soon as it is free; so does
/// the end of the heap if that much of it is.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 64 * 1024;

/// Little that is free is kept from now on. Else the C library keeps the more the larger the pieces were.
pub fn keep_little_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes numbers, and changes where memory comes from, not what is allocated.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE)
    };
}

/// Gives free heap pages back, too.
pub fn give_back_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim only releases what is free.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// What the machine is called; empty if that is not known.
pub fn hostname() -> String {
    let mut name = [0u8; 256];
    // SAFETY: the kernel writes no more than there is room for; what it writes may have no end.
    let done = unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len() - 1) };
    let end = name.iter().position(|b| *b == 0).unwrap_or(0);
    match cerr(done) {
        Ok(_) => String::from_utf8_lossy(name.get(..end).unwrap_or_default()).into_owned(),
        Err(_) => String::new(),
    }
}

/// Ours from birth: never closed, so that nothing else gets its number.
// SAFETY: see above.
pub const STDIN: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(0) };
/// The same.
// SAFETY: see above.
pub const STDOUT: BorrowedFd<'static> = unsafe { BorrowedFd::borrow_raw(1) };

/// Is that a terminal in which another job is in the foreground?
pub fn is_in_background(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: plain numbers; of what is no terminal there is no foreground.
    unsafe {
        let front = libc::tcgetpgrp(fd.as_raw_fd());
        front > 0 && front != libc::getpgrp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_was_given_back_comes_back_as_it_is_needed() {
        // SAFETY: the pages of a function are mapped, executable or not at the moment.
        let first = || unsafe { *(give_back_text as *const u8) };
        let before = first();
        let resident = || {
            let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
            let mut lines = smaps.lines().skip_while(|l| !l.contains(" r-xp "));
            let rss = lines.find_map(|l| l.strip_prefix("Rss:")).unwrap();
            let kib = rss.trim().strip_suffix(" kB").unwrap();
            kib.trim().parse::<usize>().unwrap()
        };
        // Other tests run code meanwhile: that comes back at once.
        let shrinks = || {
            let held = resident();
            give_back_text();
            resident() < held
        };
        assert!((0..100).any(|_| shrinks()));
        assert_eq!(first(), before);
    }
}
