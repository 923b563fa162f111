//! Finding COMMAND before anything is bound: 127 if it is not there, 126 if it cannot be executed.

use crate::core::codes::{CANNOT_EXECUTE, EX_CONFIG, Failure, NOT_FOUND};
use crate::settings::Settings;
use crate::sys::fds;
use std::ffi::{CString, OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Why it cannot be run.
#[derive(Debug, PartialEq, Eq)]
pub struct NotRunnable {
    /// CANNOT_EXECUTE or NOT_FOUND.
    pub code: u8,
    /// A whole sentence.
    pub message: String,
}

/// What to hand to execve(2): as typed if it has a slash (then it is relative to the workers'
/// directory, looked up anew at each spawn), else where PATH has it.
pub fn find(command: &OsStr, path: Option<OsString>, cwd: &Path) -> Result<CString, NotRunnable> {
    let shown = command.to_string_lossy().into_owned();
    if command.is_empty() {
        return Err(not_found("COMMAND is empty".into()));
    }
    if command.as_bytes().contains(&b'/') {
        check(&plain(cwd.join(command)), &shown, cwd)?;
        return c_string(command.to_owned(), &shown);
    }
    let path = path.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    let mut refused = None;
    for dir in std::env::split_paths(&path) {
        let at = plain(cwd.join(&dir).join(command));
        match check(&at, &shown, cwd) {
            Ok(()) => return c_string(dir_entry(&dir, command), &shown),
            // As shells do: go on looking, but remember that something was there.
            Err(e) if e.code == CANNOT_EXECUTE => refused = refused.or(Some(e)),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| {
        let here = match cwd.join(command).is_file() {
            true => format!("; the one in {} is meant by ./{shown}", cwd.display()),
            false => String::new(),
        };
        not_found(format!("{shown}: not found in PATH{here}"))
    }))
}

/// Can what the operator wants run at events, as verbs, for messages and for rotation be run at all? Better said now
/// than at the first event.
pub fn check_programs(s: &Settings, here: &Path) -> Result<(), Failure> {
    let hooks = s
        .on_event
        .iter()
        .map(|words| ("--on-event".to_string(), words));
    let verbs = s.commands.iter();
    let verbs = verbs.map(|(name, words)| (format!("--command {name}"), words));
    let listeners = s.on_message.iter();
    let listeners = listeners.map(|words| ("--on-message".to_string(), words));
    let delegates = s.delegates.iter();
    let delegates = delegates.map(|(name, words)| (format!("--delegate {name}"), words));
    let lasting = listeners.chain(delegates);
    let validator = s.ecv_validator.iter();
    let validator = validator.map(|words| ("--ecv-validator".to_string(), words));
    for (option, words) in hooks.chain(verbs).chain(lasting).chain(validator) {
        let Some(first) = words.first() else { continue };
        find(OsStr::new(first), std::env::var_os("PATH"), here)
            .map_err(|e| (EX_CONFIG, format!("{option}: {}", e.message)))?;
    }
    Ok(())
}

/// Without the dots of ./server, for messages.
fn plain(path: PathBuf) -> PathBuf {
    path.components().collect()
}

fn dir_entry(dir: &Path, command: &OsStr) -> OsString {
    let dir = match dir.as_os_str().is_empty() {
        true => Path::new("."),
        false => dir,
    };
    PathBuf::from(dir).join(command).into_os_string()
}

fn c_string(path: OsString, shown: &str) -> Result<CString, NotRunnable> {
    CString::new(path.into_vec()).map_err(|_| not_found(format!("{shown}: holds a NUL")))
}

fn not_found(message: String) -> NotRunnable {
    NotRunnable {
        code: NOT_FOUND,
        message,
    }
}

fn check(at: &Path, shown: &str, cwd: &Path) -> Result<(), NotRunnable> {
    let cannot = |why: String| {
        Err(NotRunnable {
            code: CANNOT_EXECUTE,
            message: format!("{shown}: {why}"),
        })
    };
    match std::fs::metadata(at) {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            return cannot("permission denied on the way to it".into());
        }
        Err(_) if at == Path::new(shown) => return Err(not_found(format!("{shown}: not found"))),
        Err(_) => return Err(not_found(format!("{shown}: not found ({})", at.display()))),
        Ok(m) if m.is_dir() => return cannot("is a directory".into()),
        Ok(m) if !m.is_file() => return cannot("is not a regular file".into()),
        Ok(_) => {}
    }
    if nix::unistd::access(at, nix::unistd::AccessFlags::X_OK).is_err() {
        return cannot(format!(
            "is not executable; chmod +x {}, or put its interpreter in front of it",
            at.display()
        ));
    }
    match interpreter(at) {
        // From where the worker will be, as the kernel looks for it.
        Some(i) if !cwd.join(&i).exists() => Err(not_found(format!(
            "{shown}: its first line names the interpreter {}, which is not there",
            i.display()
        ))),
        Some(_) | None => Ok(()),
    }
}

/// Does it run Node, or what speaks as Node does to a parent: by its name, or by its first line?
pub fn is_node(program: &CString, cwd: &Path) -> bool {
    const NODES: [&[u8]; 3] = [b"node", b"nodejs", b"bun"];
    let base = |word: &[u8]| {
        let last = word.rsplit(|b| *b == b'/').next().unwrap_or_default();
        NODES.contains(&last)
    };
    let at = cwd.join(OsStr::from_bytes(program.as_bytes()));
    // `#!/usr/bin/env node`, `#!/usr/bin/env -S node --x`
    base(program.as_bytes()) || first_line(&at).is_some_and(|words| words.iter().any(|w| base(w)))
}

/// The program named by a `#!` line.
fn interpreter(at: &Path) -> Option<PathBuf> {
    let words = first_line(at)?;
    Some(PathBuf::from(OsStr::from_bytes(words.first()?)))
}

/// The words of a `#!` line.
fn first_line(at: &Path) -> Option<Vec<Vec<u8>>> {
    let mut head = [0u8; 256];
    // Whoever may write to its directory may have put a FIFO there just now: nobody is waited for.
    let mut file = fds::open_regular(at).ok()?;
    let n = file.read(&mut head).ok()?;
    let line = head
        .get(..n)?
        .strip_prefix(b"#!")?
        .split(|b| *b == b'\n')
        .next()?;
    let words = line.split(|b| b.is_ascii_whitespace());
    let words = words.filter(|w| !w.is_empty()).map(<[u8]>::to_vec);
    Some(words.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_can_be_run_and_why_the_rest_cannot() {
        let dir = std::env::temp_dir().join(format!("mc-lookup-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        let file = |name: &str, text: &str, mode| {
            let at = dir.join(name);
            std::fs::write(&at, text).unwrap();
            std::fs::set_permissions(&at, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        file("good", "#!/bin/sh\n", 0o755);
        file("plain", "#!/bin/sh\n", 0o644);
        file("orphan", "#! /no/such/interpreter -x\n", 0o755);
        // Where the worker will be, not where we are.
        file("near", "#!./good -x\n", 0o755);
        file("far", "#!./farther\n", 0o755);
        nix::unistd::mkfifo(&dir.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let run = |cmd: &str| {
            let path = Some(dir.clone().into_os_string());
            find(OsStr::new(cmd), path, &dir).map_err(|e| (e.code, e.message))
        };
        assert_eq!(run("./good").unwrap().to_str(), Ok("./good"));
        assert_eq!(
            run("good").unwrap().as_bytes(),
            dir.join("good").as_os_str().as_bytes()
        );
        assert_eq!(run("./near").unwrap().to_str(), Ok("./near"));
        assert!(!is_node(&c"./fifo".into(), &dir));
        for (cmd, code, word) in [
            ("./fifo", 126, "not a regular file"),
            ("./far", 127, "./farther"),
            ("./missing", 127, "not found"),
            ("missing", 127, "not found in PATH"),
            ("./plain", 126, "chmod +x"),
            ("plain", 126, "chmod +x"),
            ("./sub", 126, "directory"),
            ("./orphan", 127, "/no/such/interpreter"),
            ("", 127, "empty"),
        ] {
            let (c, m) = run(cmd).unwrap_err();
            assert_eq!(c, code, "{cmd}: {m}");
            assert!(m.contains(word), "{cmd}: {m}");
        }
        for (name, text, node) in [
            ("app", "#!/usr/bin/env node\n", true),
            ("app2", "#! /opt/bin/nodejs --x\n", true),
            ("app3", "#!/usr/bin/env python3\n# node\n", false),
            ("nodes", "", false),
        ] {
            file(name, text, 0o755);
            let program = CString::new(format!("./{name}")).unwrap();
            assert_eq!(is_node(&program, &dir), node, "{name}");
        }
        assert!(is_node(&c"/usr/bin/node".into(), &dir));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
