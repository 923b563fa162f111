//! Every exit code there is, by the names of sysexits(3) where it has one, and which of them an
//! errno of the start means. The manual's EXIT STATUS lists them.

use super::errno::{
    EACCES, EADDRINUSE, EAGAIN, EEXIST, EINVAL, ENAMETOOLONG, ENOENT, ENOEXEC, ENOSPC, ENOTDIR,
    EPERM, EROFS,
};

/// Why one ends, or does not begin: its exit code, and a whole sentence.
pub type Failure = (u8, String);

/// Of the master: stopped hard. Of a verb: it failed.
pub const FAILED: u8 = 1;
/// Of a verb: no such cluster runs.
pub const NOT_RUNNING: u8 = 3;
/// The command line is wrong.
pub const EX_USAGE: u8 = 64;
/// No worker was ever ready.
pub const EX_UNAVAILABLE: u8 = 69;
/// A bug of ours.
pub const EX_SOFTWARE: u8 = 70;
/// The operating system refuses.
pub const EX_OSERR: u8 = 71;
/// A file, the control socket, or that of -l, cannot be made.
pub const EX_CANTCREAT: u8 = 73;
/// Try again when the port, the name, or a place to wait is free.
pub const EX_TEMPFAIL: u8 = 75;
/// Not allowed.
pub const EX_NOPERM: u8 = 77;
/// A setting does not fit this machine.
pub const EX_CONFIG: u8 = 78;
/// Of a verb: no answer in time.
pub const TIMED_OUT: u8 = 124;
/// As shells have it: COMMAND is there and cannot be executed.
pub const CANNOT_EXECUTE: u8 = 126;
/// As shells have it: COMMAND is not there.
pub const NOT_FOUND: u8 = 127;

/// All of them but success.
pub const ALL: [u8; 13] = [
    FAILED,
    NOT_RUNNING,
    EX_USAGE,
    EX_UNAVAILABLE,
    EX_SOFTWARE,
    EX_OSERR,
    EX_CANTCREAT,
    EX_TEMPFAIL,
    EX_NOPERM,
    EX_CONFIG,
    TIMED_OUT,
    CANNOT_EXECUTE,
    NOT_FOUND,
];

/// The step of a child's preparation that executes COMMAND; named by `ExecFailed`.
pub const EXEC_STEP: &str = "exec";

/// Nothing was ever run, and this step of a child's way to COMMAND failed. `None`: it may be another
/// time. A right that is lacking is lacking at the next try as well.
pub fn of_step(step: &str, errno: i32) -> Option<u8> {
    match (step, errno) {
        // Of the user, as many processes run as may: some may end.
        (EXEC_STEP, EAGAIN) => None,
        (EXEC_STEP, _) => Some(of_exec(errno)),
        ("setgroups" | "setgid" | "setuid" | "setpriority" | "setrlimit", EPERM | EACCES) => {
            Some(EX_NOPERM)
        }
        ("setgid" | "setuid" | "setgroups", EINVAL) => Some(EX_CONFIG),
        ("chdir", EPERM | EACCES) => Some(EX_CONFIG),
        (_, _) => None,
    }
}

/// What helps against that.
pub fn remedy(step: &str, errno: i32) -> Option<&'static str> {
    match (step, errno) {
        ("setgroups" | "setgid", EPERM) => Some(
            "to run workers with other groups takes CAP_SETGID, and a user namespace that allows it",
        ),
        ("setuid", EPERM) => Some("to run workers as somebody else takes CAP_SETUID"),
        ("setgroups" | "setgid" | "setuid", EINVAL) => {
            Some("this user namespace has no such number (/proc/self/uid_map and gid_map)")
        }
        ("setpriority", EPERM | EACCES) => Some(
            "a --nice below our own takes CAP_SYS_NICE or a limit that allows it (--rlimit nice=20-N)",
        ),
        ("sched_setaffinity", EINVAL) => Some(
            "the CPUs that may be used are others by now: a reload looks again (--cpu-affinity)",
        ),
        ("setrlimit", EPERM) => Some("to raise a hard limit takes CAP_SYS_RESOURCE"),
        ("chdir", EPERM | EACCES) => Some(
            "the user that workers run as needs a way there: chmod +x the directories above it",
        ),
        (EXEC_STEP, ENOENT) => Some(
            "what it names to run it is not there: the loader of a program that is not static, or the interpreter of a script (whose first line may end in a carriage return)",
        ),
        (EXEC_STEP, ENOEXEC) => {
            Some("it is no program of this machine, nor a script whose first line is #!INTERPRETER")
        }
        (EXEC_STEP, EAGAIN) => {
            Some("as many processes of that user run as its limit allows (--rlimit nproc)")
        }
        (_, _) => None,
    }
}

/// COMMAND could not be executed.
fn of_exec(errno: i32) -> u8 {
    match errno {
        ENOENT | ENOTDIR => NOT_FOUND,
        _ => CANNOT_EXECUTE,
    }
}

/// A given address could not be opened.
pub fn of_port(errno: i32) -> u8 {
    match errno {
        EADDRINUSE => EX_TEMPFAIL,
        EPERM | EACCES => EX_NOPERM,
        // Of the file of a unix socket.
        ENOENT | ENOTDIR | EEXIST | EROFS | ENAMETOOLONG | ENOSPC => EX_CANTCREAT,
        _ => EX_OSERR,
    }
}
