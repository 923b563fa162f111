//! Looking at processes and files with the eyes of another user.
//!
//! The kernel lets a process be looked into by whoever has all its ids, as real ids for some looks
//! and as ids of file access for others, or by CAP_SYS_PTRACE. A root without that (a container's)
//! takes on the workers' ids in these two places and stays root in effect, so it keeps its
//! capabilities and comes back. Meanwhile the kernel takes us, where it asks by real id, for that
//! user's: it may signal us. So each look is short.

use super::cerr;
use serde::{Deserialize, Serialize};
use std::io;

/// CAP_DAC_OVERRIDE: to open whatever there is.
const DAC_OVERRIDE: u32 = 1;
/// CAP_DAC_READ_SEARCH: to read it.
const DAC_READ_SEARCH: u32 = 2;
/// CAP_KILL: to signal whom we like.
pub const KILL: u32 = 5;
/// CAP_SETGID: to change groups.
pub const SETGID: u32 = 6;
/// CAP_SETUID: to change the user.
pub const SETUID: u32 = 7;
/// CAP_SYS_PTRACE: to look into others.
pub const SYS_PTRACE: u32 = 19;
/// CAP_SYS_ADMIN: to have filters without giving up privileges.
pub const SYS_ADMIN: u32 = 21;
/// CAP_SYS_RESOURCE: to raise hard limits.
pub const SYS_RESOURCE: u32 = 24;

/// Have we that capability, in effect?
pub fn capable(capability: u32) -> bool {
    capability < 64 && effective() >> capability & 1 == 1
}

/// All that we have, in effect; none if that cannot be told.
pub fn effective() -> u64 {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    /// Sets of 64 capabilities, in two halves of three words: effective, permitted, inheritable.
    const VERSION_3: u32 = 0x2008_0522;
    let mut header = Header {
        version: VERSION_3,
        pid: 0,
    };
    let mut sets = [0u32; 6];
    // SAFETY: the kernel reads the header and writes the six words that this version has.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    match done {
        0 => u64::from(sets[0]) | u64::from(sets[3]) << 32,
        _ => 0,
    }
}

/// May we look into processes of others as ourselves? Their directories in /proc are their own, mode 0500.
pub fn may_look() -> bool {
    capable(SYS_PTRACE) && (capable(DAC_OVERRIDE) || capable(DAC_READ_SEARCH))
}

/// Real, effective and saved: are all of them these?
pub fn are_ours(uid: u32, gid: u32) -> bool {
    let (mut u, mut g) = ([0u32; 3], [0u32; 3]);
    // SAFETY: the kernel writes three ids each.
    unsafe {
        libc::getresuid(&mut u[0], &mut u[1], &mut u[2]);
        libc::getresgid(&mut g[0], &mut g[1], &mut g[2]);
    }
    u == [uid; 3] && g == [gid; 3]
}

/// The ids of the workers, to be worn around a look.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Guise {
    /// Their user.
    pub uid: u32,
    /// Their group.
    pub gid: u32,
}

const KEEP: u32 = u32::MAX;

impl Guise {
    /// Puts it on. What cannot be put on is left; the look fails as it would have without.
    pub fn wear(&self) -> Worn {
        self.wear_with(None)
    }

    /// Puts it on with these groups, which only looks at files ask for.
    pub fn wear_with(&self, groups: Option<&[u32]>) -> Worn {
        let had = groups.map(|new| {
            let old = current_groups();
            let _ = set_groups(new);
            old
        });
        // SAFETY: plain numbers. The groups first, while we may still change them for certain.
        unsafe {
            let mut signal = 0i32;
            libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal);
            let worn = Worn {
                uid: libc::getuid(),
                gid: libc::getgid(),
                groups: had,
                signal,
                parent: libc::getppid(),
                dumpable: libc::prctl(libc::PR_GET_DUMPABLE),
            };
            libc::syscall(libc::SYS_setresgid, self.gid, KEEP, KEEP);
            libc::syscall(libc::SYS_setresuid, self.uid, KEEP, KEEP);
            libc::syscall(libc::SYS_setfsgid, self.gid);
            libc::syscall(libc::SYS_setfsuid, self.uid);
            worn
        }
    }
}

/// Takes the guise off when it is dropped.
#[must_use]
#[derive(Debug)]
pub struct Worn {
    uid: u32,
    gid: u32,
    groups: Option<Vec<u32>>,
    signal: i32,
    parent: i32,
    dumpable: i32,
}

impl Drop for Worn {
    fn drop(&mut self) {
        // SAFETY: plain numbers. The ids of file access become the effective ones, which never
        // changed, and by calls of their own: only these give back the capabilities over files.
        unsafe {
            libc::syscall(libc::SYS_setfsuid, libc::geteuid());
            libc::syscall(libc::SYS_setfsgid, libc::getegid());
            libc::syscall(libc::SYS_setresuid, self.uid, KEEP, KEEP);
            libc::syscall(libc::SYS_setresgid, self.gid, KEEP, KEEP);
            // The change of ids has taken both from us.
            if self.dumpable == 1 {
                libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
            }
            if self.signal != 0 {
                libc::prctl(libc::PR_SET_PDEATHSIG, self.signal, 0, 0, 0);
                // It has died meanwhile, unheard.
                if libc::getppid() != self.parent {
                    libc::kill(libc::getpid(), self.signal);
                }
            }
        }
        if let Some(groups) = &self.groups {
            let _ = set_groups(groups);
        }
    }
}

/// Supplementary groups of ours.
fn current_groups() -> Vec<u32> {
    // SAFETY: the first call asks for the number; the second has room for that many.
    unsafe {
        let n = libc::getgroups(0, std::ptr::null_mut());
        let mut all = vec![0u32; usize::try_from(n).unwrap_or(0)];
        let got = libc::getgroups(n, all.as_mut_ptr());
        all.truncate(usize::try_from(got).unwrap_or(0));
        all
    }
}

fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: as many ids as we say.
    unsafe { cerr(libc::setgroups(groups.len(), groups.as_ptr())) }.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a child: this process has other tests in other threads.
    fn in_child(f: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child makes system calls, allocates nothing, and leaves by _exit.
        unsafe {
            match libc::fork() {
                0 => libc::_exit(i32::from(!f())),
                pid => {
                    let mut status = 0;
                    libc::waitpid(pid, &mut status, 0);
                    status == 0
                }
            }
        }
    }

    fn fsuid() -> u32 {
        // SAFETY: an impossible id changes nothing and returns the present one.
        unsafe { libc::setfsuid(KEEP) }.unsigned_abs()
    }

    #[test]
    fn what_is_worn_is_taken_off_again_and_nothing_is_lost() {
        // SAFETY: an id of our own.
        if unsafe { libc::geteuid() } != 0 {
            return;
        }
        let whole = in_child(|| {
            let guise = Guise {
                uid: 65534,
                gid: 65533,
            };
            // SAFETY: plain numbers.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGUSR1, 0, 0, 0);
                let caps = || std::array::from_fn::<bool, 41, _>(|n| capable(n as u32));
                let before = (caps(), libc::prctl(libc::PR_GET_DUMPABLE));
                let worn = guise.wear();
                let as_worn = libc::getuid() == 65534
                    && libc::getgid() == 65533
                    && libc::geteuid() == 0
                    && fsuid() == 65534
                    && capable(SETUID);
                drop(worn);
                let mut signal = 0;
                libc::prctl(libc::PR_GET_PDEATHSIG, &raw mut signal);
                as_worn
                    && are_ours(0, 0)
                    && fsuid() == 0
                    && signal == libc::SIGUSR1
                    && (caps(), libc::prctl(libc::PR_GET_DUMPABLE)) == before
            }
        });
        assert!(whole);
    }
}
