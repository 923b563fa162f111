//! Another program in our own place, with our words and our environment.

use super::fds;
use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Takes a variable out of our environment: no child is to have it.
pub fn take_variable(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    // SAFETY: there is one thread, and nobody holds a pointer into the environment.
    unsafe { std::env::remove_var(name) };
    Some(value)
}

/// Executes that file in our place, with our words and our environment, and these variables besides. Signals that
/// are blocked stay so. Comes back if it cannot.
pub fn execute(path: &Path, variables: &[(&str, OsString)]) -> io::Error {
    let Some(Words { argv, env, .. }) = &Words::ours(variables) else {
        return io::ErrorKind::InvalidInput.into();
    };
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return io::ErrorKind::InvalidInput.into();
    };
    // SAFETY: all three end as the kernel wants it, and outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// The same, of a file that is open; by that name, if it still is that file, so that it is called by it.
pub fn execute_fd(fd: RawFd, name: &Path, variables: &[(&str, OsString)]) -> io::Error {
    // SAFETY: the number is open, and borrowed for as long as this takes.
    let file = unsafe { BorrowedFd::borrow_raw(fd) };
    let same = || Some(fds::identity(file).ok()? == identity(name)?);
    if same() == Some(true) {
        return execute(name, variables);
    }
    let Some(Words { argv, env, .. }) = &Words::ours(variables) else {
        return io::ErrorKind::InvalidInput.into();
    };
    // SAFETY: as in `execute`; an empty name with that flag is the descriptor itself.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            fd,
            c"".as_ptr(),
            argv.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let m = std::fs::metadata(path).ok()?;
    Some((m.dev(), m.ino()))
}

/// Our words and our environment, as exec has them.
struct Words {
    _texts: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    env: Vec<*const libc::c_char>,
}

impl Words {
    /// `None`: there is a NUL in one of them.
    fn ours(variables: &[(&str, OsString)]) -> Option<Words> {
        let text = |bytes: &[u8]| CString::new(bytes).ok();
        let words = std::env::args_os().map(|w| text(w.as_bytes()));
        let words: Vec<CString> = words.collect::<Option<_>>()?;
        let ours = std::env::vars_os();
        let theirs = variables
            .iter()
            .map(|(k, v)| (OsString::from(k), v.clone()));
        let one = |(k, v): (OsString, OsString)| text(&[k.as_bytes(), b"=", v.as_bytes()].concat());
        let mut env: Vec<CString> = ours.chain(theirs).map(one).collect::<Option<_>>()?;
        let of = |all: &[CString]| -> Vec<*const libc::c_char> {
            let all = all.iter().map(|t| t.as_ptr());
            all.chain([std::ptr::null()]).collect()
        };
        let (argv, pointers) = (of(&words), of(&env));
        env.extend(words);
        Some(Words {
            _texts: env,
            argv,
            env: pointers,
        })
    }
}
