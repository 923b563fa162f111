//! Fork and exec. Everything is prepared before the fork; the child makes system calls only,
//! reports what fails over a socket, and leaves by `_exit`.
//!
//! Order in the child, and why: its own group first, so that a kill of the group finds it; then what
//! ends that group with the master (`lifeline`); signals to default before anything can interrupt; its control
//! group while we may still go there; limits, then priority, which a limit may allow; CPU, mask,
//! directory, descriptors; the filter after those (it may cost us rights, and our own calls need none
//! of it); the limit of open files when no new number is needed any more; groups before the user,
//! who may change none; death with the master after that, since a change of user forgets it, then
//! the check that the master did not die meanwhile.
//!
//! The directory is entered by whoever runs there. With the master's rights a link that this user may
//! switch would lead it to where it has no way; and there are file systems where root has none.

use super::lifeline::{self, Line};
use super::report::{self, Step, fail};
pub use super::report::{Report, give_leave, receive, report_pair};
use super::{cerr, seccomp, signal::Blocked};
use serde::{Deserialize, Serialize};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

/// What is to be executed, and in what surroundings.
pub struct Plan<'a> {
    /// Path of the executable, as seen from `cwd`.
    pub program: &'a CString,
    /// Arguments, the first included.
    pub argv: &'a [CString],
    /// `K=V`. Without LISTEN_PID, which only the child knows.
    pub env: &'a [CString],
    /// Entered, if given.
    pub cwd: Option<&'a CString>,
    /// If that is where we are anyway, need it not be entered? A user that has no way there may
    /// still be left there.
    pub stay: bool,
    /// By writing to that it moves to a control group of its own.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whom it runs as, if not as us.
    pub ids: Option<&'a Ids>,
    /// Mask of file modes.
    pub umask: Option<u32>,
    /// Priority.
    pub nice: Option<i32>,
    /// The one CPU that it runs on.
    pub cpu: Option<usize>,
    /// Resource, soft and hard limit; not that of open files.
    pub limits: &'a [(u8, u64, u64)],
    /// Becomes fd 0, if given; else ours stays.
    pub stdin: Option<BorrowedFd<'a>>,
    /// Becomes fd 1, if given; else ours stays.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Becomes fd 2, if given; else ours stays.
    pub stderr: Option<BorrowedFd<'a>>,
    /// Become fd 3, 4, .. and LISTEN_PID is set if there are any.
    pub pass: Vec<BorrowedFd<'a>>,
    /// Become these numbers, which must lie above those.
    pub extra: Vec<(BorrowedFd<'a>, RawFd)>,
    /// Soft and hard limit of open files.
    pub nofile: Option<(u64, u64)>,
    /// Shall bind(2) and listen(2) ask us?
    pub watch: Watch,
    /// Those of unix sockets, too?
    pub watch_unix: bool,
    /// Stay open, by their own numbers.
    pub keep: &'a [RawFd],
    /// At these numbers, which are open here, is what stdin is: whoever asks whether they are open finds so, and
    /// has nothing of ours.
    pub hollow: &'a [RawFd],
    /// Does it end when we do? Else it lives on; and it executes nothing before it is given leave (`give_leave`).
    pub mortal: bool,
    /// By what its group does, too, if it can be had.
    pub life: Option<Line<'a>>,
    /// The child's end of the report socket. Without one this is no child: see `exec_here`.
    pub report: Option<BorrowedFd<'a>>,
}

/// Whom to run as. `None` is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ids {
    /// The user.
    pub uid: Option<u32>,
    /// The primary group.
    pub gid: Option<u32>,
    /// The supplementary groups.
    pub groups: Option<Vec<u32>>,
}

/// Shall bind(2) and listen(2) of the child ask us?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watch {
    /// No.
    No,
    /// If it can be had.
    Try,
    /// Or the child gives up.
    Require,
}

/// What the child works with, made before the fork.
struct Ready {
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
    /// One of env's, if there is something to pass.
    listen_pid: Box<[u8; 22]>,
    scratch: Vec<RawFd>,
}

impl Ready {
    fn of(plan: &Plan<'_>) -> Ready {
        let listen_pid = Box::new(*b"LISTEN_PID=0000000000\0");
        let mut env = pointers(plan.env);
        if !plan.pass.is_empty() {
            // In place of the end.
            env.pop();
            env.extend([listen_pid.as_ptr().cast(), std::ptr::null()]);
        }
        Ready {
            argv: pointers(plan.argv),
            env,
            listen_pid,
            scratch: Vec::with_capacity(plan.pass.len() + plan.extra.len() + 5),
        }
    }
}

/// Executes the plan in our own place: no child, no group, no filter, and signals that were ignored
/// stay so. `instead` says why not, and leaves.
pub fn exec_here(plan: &Plan<'_>, instead: fn(&'static str, i32) -> !) -> ! {
    report::say_instead(instead);
    super::signal::restore_sigpipe();
    // SAFETY: we are the only thread; what a child may not do is not done for want of a report socket.
    unsafe { child(plan, &mut Ready::of(plan), 0, None) }
}

/// Forks. The child never returns from here. The process must be single-threaded.
pub fn fork_exec(plan: &Plan<'_>) -> io::Result<i32> {
    fork(plan, None)
}

/// The same, but the child goes the way of a worker to its last step only: in place of COMMAND it does
/// that, and leaves. So what a worker may do here is tried with nothing executed.
pub fn fork_call(plan: &Plan<'_>, last: &dyn Fn() -> u8) -> io::Result<i32> {
    fork(plan, Some(last))
}

fn fork(plan: &Plan<'_>, last: Option<&dyn Fn() -> u8>) -> io::Result<i32> {
    let mut ready = Ready::of(plan);
    let master = std::process::id();
    let blocked = Blocked::all();
    // SAFETY: single-threaded by contract, so the child is a whole copy; it calls `child` and
    // never comes back.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: we are the child; all pointers are into memory that the fork copied.
        unsafe { child(plan, &mut ready, master, last) }
    }
    let pid = cerr(pid)?;
    // Both sides do it: whoever comes first, the group is there before anybody signals it.
    // SAFETY: plain numbers; EACCES (it has executed already) means that it did it itself.
    unsafe { libc::setpgid(pid, pid) };
    drop(blocked);
    Ok(pid)
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let mut p: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
    p.push(std::ptr::null());
    p
}

/// # Safety
/// Only in a new child of a single-threaded process, with all signals blocked, or in one without
/// `report`.
unsafe fn child(
    plan: &Plan<'_>,
    ready: &mut Ready,
    master: u32,
    last: Option<&dyn Fn() -> u8>,
) -> ! {
    let alone = plan.report.is_none();
    let mut life = -1;
    // SAFETY: system calls on plain numbers and on memory that is ours; contract above.
    unsafe {
        if !alone {
            must(plan, Step::Group, libc::setpgid(0, 0));
            life = plan.life.as_ref().map_or(-1, |line| lifeline::take(line));
            default_signals();
        }
        if let Some(door) = &plan.cgroup {
            let done = libc::write(door.as_raw_fd(), c"0".as_ptr().cast(), 1);
            must(plan, Step::Cgroup, if done < 0 { -1 } else { 0 });
        }
        for (resource, soft, hard) in plan.limits {
            must(plan, Step::Limits, limit(*resource, *soft, *hard));
        }
        if let Some(nice) = plan.nice {
            must(
                plan,
                Step::Nice,
                libc::setpriority(libc::PRIO_PROCESS, 0, nice),
            );
        }
        if let Some(cpu) = plan.cpu {
            must(plan, Step::Affinity, pin(cpu));
        }
        if let Some(mask) = plan.umask {
            libc::umask(mask);
        }
        let dir = plan.cwd.filter(|dir| !(plan.stay && is_here(dir)));
        let report = match arrange_fds(plan, life, &mut ready.scratch) {
            Some(fd) => fd,
            None => fail(raw(&plan.report), Step::Fds),
        };
        watch(plan.watch, plan.watch_unix, report);
        // After all that needs a new number: we still have all of the master's descriptors.
        if let Some((soft, hard)) = plan.nofile
            && limit(NOFILE, soft, hard) < 0
        {
            fail(report, Step::Limits);
        }
        if let Some(ids) = plan.ids {
            become_them(ids, report);
            if let Some(line) = plan.life.filter(|_| life >= 0) {
                lifeline::renew(&line, line.number);
            }
        }
        if let Some(dir) = dir
            && libc::chdir(dir.as_ptr()) < 0
        {
            fail(report, Step::Chdir);
        }
        if !alone {
            if !plan.mortal {
                // Who comes after its master is no ancestor of it, and has to be able to look (Yama).
                libc::prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
                // Nor does it outlive that one before it is written down that there is this child.
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            }
            if plan.mortal && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) < 0 {
                // It works as well, as long as its master lives.
                report::say_outlives(report, *libc::__errno_location());
            }
            if libc::getppid().unsigned_abs() != master {
                fail(report, Step::MasterGone);
            }
            if !plan.mortal {
                report::await_leave(report, master);
                libc::prctl(libc::PR_SET_PDEATHSIG, 0, 0, 0, 0);
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        }
        for fd in plan.hollow {
            libc::dup2(0, *fd);
        }
        for fd in plan.keep {
            libc::fcntl(*fd, libc::F_SETFD, 0);
        }
        write_pid(&mut ready.listen_pid, libc::getpid().unsigned_abs());
        if let Some(last) = last {
            end_by(last, report);
        }
        let (argv, env) = (ready.argv.as_ptr(), ready.env.as_ptr());
        libc::execve(plan.program.as_ptr(), argv, env);
        fail(report, Step::Exec)
    }
}

/// In place of exec, and as that: a change of user has made it one that nobody may look into, and exec would
/// give that back; and the master hears that it has come so far.
///
/// # Safety
/// As `child`.
unsafe fn end_by(last: &dyn Fn() -> u8, report: RawFd) -> ! {
    // SAFETY: as `child`; plain numbers.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0);
        report::say_arrived(report);
        libc::_exit(i32::from(last()))
    }
}

/// # Safety
/// As `child`.
unsafe fn must(plan: &Plan<'_>, step: Step, done: i32) {
    if done < 0 {
        // SAFETY: as `child`.
        unsafe { fail(raw(&plan.report), step) }
    }
}

fn raw(fd: &Option<BorrowedFd<'_>>) -> RawFd {
    fd.as_ref().map_or(-1, AsRawFd::as_raw_fd)
}

/// Of Yama, which may keep everybody but ancestors from looking.
const PR_SET_PTRACER: i32 = 0x5961_6d61;
const PR_SET_PTRACER_ANY: libc::c_ulong = libc::c_ulong::MAX;

const NOFILE: u8 = libc::RLIMIT_NOFILE as u8;

/// # Safety
/// As `child`.
unsafe fn limit(resource: u8, soft: u64, hard: u64) -> i32 {
    let limit = libc::rlimit {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: limit outlives the call.
    unsafe { libc::setrlimit(resource.into(), &limit) }
}

/// # Safety
/// As `child`.
unsafe fn pin(cpu: usize) -> i32 {
    // SAFETY: a set is plain data, and outlives the call; who is beyond it is in none.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        if cpu < 8 * size_of::<libc::cpu_set_t>() {
            libc::CPU_SET(cpu, &mut set);
        }
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    }
}

/// Is that the directory we are in?
///
/// # Safety
/// As `child`.
unsafe fn is_here(dir: &CString) -> bool {
    // SAFETY: stat is plain data; both names end with NUL.
    unsafe {
        let (mut there, mut here): (libc::stat, libc::stat) =
            (std::mem::zeroed(), std::mem::zeroed());
        libc::stat(dir.as_ptr(), &mut there) == 0
            && libc::stat(c".".as_ptr(), &mut here) == 0
            && (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
    }
}

/// Groups, group, user, for good. By the kernel's calls: those of the C library also tell its other
/// threads, of which there are none.
///
/// # Safety
/// As `child`.
unsafe fn become_them(ids: &Ids, report: RawFd) {
    // SAFETY: plain numbers, and as many groups as we say.
    unsafe {
        if let Some(groups) = &ids.groups
            && libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) < 0
        {
            fail(report, Step::Groups);
        }
        if let Some(gid) = ids.gid
            && libc::syscall(libc::SYS_setresgid, gid, gid, gid) < 0
        {
            fail(report, Step::Gid);
        }
        let Some(uid) = ids.uid else { return };
        // For those of one who is not root, which stay: exec would pass them on.
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        );
        if libc::syscall(libc::SYS_setresuid, uid, uid, uid) < 0 {
            fail(report, Step::Uid);
        }
        drop_capabilities();
    }
}

/// Effective and permitted ones of a root have fallen by the change of user, unless securebits forbid it;
/// inheritable ones (container engines have set them, and `setpriv --inh-caps` does) fall for nobody, and
/// are for a program with such capabilities of its file. To have fewer is always allowed; where the call
/// itself is not, exec drops all but those.
///
/// # Safety
/// As `child`.
unsafe fn drop_capabilities() {
    /// Sets of 64 capabilities.
    const VERSION_3: u32 = 0x2008_0522;
    let (header, none) = ([VERSION_3, 0], [0u32; 6]);
    // SAFETY: the kernel reads both, which are as long as that version has them.
    unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
}

/// Handlers of ours must not run here, and exec keeps what is ignored (Rust ignores SIGPIPE; some
/// launchers leave 32 and 33 ignored, which libc's own sigaction refuses to touch).
///
/// # Safety
/// As `child`.
unsafe fn default_signals() {
    /// Handler SIG_DFL, no flags, no restorer, an empty mask, as the kernel has them.
    const DEFAULT: [u64; 4] = [0; 4];
    let nobody: *mut u64 = std::ptr::null_mut();
    for n in 1..=64 {
        // SAFETY: the kernel reads a sigaction of at most four words, with a mask of 8 bytes.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, n, DEFAULT.as_ptr(), nobody, 8usize) };
    }
}

/// 0, 1, 2 and 3.. as planned; returns where the report socket is now. Sources may sit on the
/// numbers of other targets, so all move out of the way first. dup2 clears CLOEXEC on the target
/// and only there.
///
/// # Safety
/// As `child`; `scratch` has room for all of them.
unsafe fn arrange_fds(plan: &Plan<'_>, life: RawFd, scratch: &mut Vec<RawFd>) -> Option<RawFd> {
    let passed = 3 + i32::try_from(plan.pass.len()).unwrap_or(0);
    let highest = plan.extra.iter().map(|(_, n)| n + 1).max();
    let above = highest.unwrap_or(0).max(passed);
    // SAFETY: F_DUPFD_CLOEXEC and dup2 on open descriptors; push stays within the capacity.
    unsafe {
        let mut lift = |fd: RawFd| {
            let new = libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, above);
            scratch.push(new);
            (new >= 0).then_some(new)
        };
        let report = match &plan.report {
            Some(fd) => lift(fd.as_raw_fd())?,
            None => -1,
        };
        let life = match life {
            0.. => lift(life)?,
            _ => -1,
        };
        let stdin = match &plan.stdin {
            Some(fd) => Some(lift(fd.as_raw_fd())?),
            None => None,
        };
        let stdout = match &plan.stdout {
            Some(fd) => Some(lift(fd.as_raw_fd())?),
            None => None,
        };
        let stderr = match &plan.stderr {
            Some(fd) => Some(lift(fd.as_raw_fd())?),
            None => None,
        };
        for fd in &plan.pass {
            lift(fd.as_raw_fd())?;
        }
        for (fd, _) in &plan.extra {
            lift(fd.as_raw_fd())?;
        }
        let first = scratch
            .len()
            .saturating_sub(plan.pass.len() + plan.extra.len());
        let targets = (3..passed).chain(plan.extra.iter().map(|(_, n)| *n));
        for (fd, target) in scratch.iter().skip(first).zip(targets) {
            if libc::dup2(*fd, target) < 0 {
                return None;
            }
        }
        if let Some(fd) = stdin
            && libc::dup2(fd, 0) < 0
        {
            return None;
        }
        for (fd, target) in [(stdout, 1), (stderr, 2)] {
            if let Some(fd) = fd
                && libc::dup2(fd, target) < 0
            {
                return None;
            }
        }
        match &plan.life {
            Some(line) if life >= 0 => put_aside(life, line.number, report, above),
            Some(_) | None => Some(report),
        }
    }
}

/// Last of all, since its number is wherever it is (`lifeline::number`), and what was lifted may be there:
/// of that only the report socket is needed still. Where is that then?
///
/// # Safety
/// As `child`; all of these are open.
unsafe fn put_aside(life: RawFd, number: RawFd, report: RawFd, above: RawFd) -> Option<RawFd> {
    // SAFETY: F_DUPFD_CLOEXEC, F_SETFD and dup2 on open descriptors.
    unsafe {
        let report = match report == number {
            true => libc::fcntl(report, libc::F_DUPFD_CLOEXEC, above),
            false => report,
        };
        // (dup2 of a descriptor to itself would leave it CLOEXEC.)
        let done = match life == number {
            true => libc::fcntl(life, libc::F_SETFD, 0),
            false => libc::dup2(life, number),
        };
        (report >= 0 && done >= 0).then_some(report)
    }
}

/// # Safety
/// As `child`.
unsafe fn watch(how: Watch, unix: bool, report: RawFd) {
    if how == Watch::No {
        return;
    }
    // SAFETY: as `child`.
    unsafe {
        match seccomp::install(unix) {
            Ok(listener) => {
                if !report::give_listener(report, listener) {
                    // Without its master's answer each bind would wait for ever.
                    fail(report, Step::Filter);
                }
            }
            // No word on whether it is allowed: another try may have what this one lacked.
            Err(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => fail(report, Step::Filter),
            Err(errno) => {
                report::say_unwatched(report, errno);
                if how == Watch::Require {
                    *libc::__errno_location() = errno;
                    fail(report, Step::Filter);
                }
            }
        }
    }
}

/// Writes the pid's digits over `LISTEN_PID=0000000000\0` and ends it there.
fn write_pid(text: &mut [u8; 22], pid: u32) {
    const START: usize = 11;
    let digits = pid.checked_ilog10().unwrap_or(0) as usize + 1;
    let mut rest = pid;
    if let Some(end) = text.get_mut(START + digits) {
        *end = 0;
    }
    for place in text.iter_mut().take(START + digits).skip(START).rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_is_written_in_place() {
        for pid in [1u32, 42, 4_194_304, u32::MAX] {
            let mut text = *b"LISTEN_PID=0000000000\0";
            write_pid(&mut text, pid);
            let s = std::ffi::CStr::from_bytes_until_nul(&text).unwrap();
            assert_eq!(s.to_str().unwrap(), format!("LISTEN_PID={pid}"));
        }
    }
}
