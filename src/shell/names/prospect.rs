//! What a start would be called, and where verbs would find it: looked at, and nothing taken or made.

use super::{
    MAX_COPIES, MAX_LOCK, Refused, candidates, fds, fs, is_private, is_stale, parse_lock, reason,
    runs_already,
};
use crate::settings::{Control, Settings};
use crate::shell::check::files;
use crate::sys::flock::{Locked, Share};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// That.
pub struct Prospect {
    /// NAME, as far as it can be told now.
    pub name: String,
    /// Of a cluster that has it now: its pid.
    pub runs: Option<String>,
    /// Where the control socket would be.
    pub socket: Option<PathBuf>,
    /// Where it would be written down which workers there are.
    pub record: Option<PathBuf>,
    /// Why there is no runtime directory, and so nothing that verbs could find; or why not the first.
    pub without: Option<String>,
    /// What was named for us and cannot be used, where another one is.
    pub instead: Option<String>,
    /// Why there would be no start.
    pub refused: Option<Refused>,
}

/// Looks.
pub fn prospect(s: &Settings) -> Prospect {
    let base = s.name.clone().unwrap_or_else(|| s.implied_name());
    let mut all = Prospect {
        name: base.clone(),
        runs: None,
        socket: None,
        record: None,
        without: None,
        instead: None,
        refused: None,
    };
    let dir = match super::first(candidates(), usable) {
        Ok((dir, instead)) => {
            all.instead = instead;
            Some(dir)
        }
        Err(why) => {
            all.without = Some(why);
            None
        }
    };
    if let Some(dir) = &dir {
        choose(&mut all, dir, &base, s.name.is_some());
    }
    match &s.control {
        Control::Path(path) => {
            all.socket = Some(std::path::absolute(path).unwrap_or_else(|_| path.clone()));
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            let there = match is_stale(path) {
                Ok(_) => files::can_make_in(parent).map_err(|e| {
                    Refused::InTheWay(format!("-C {}: {}", path.display(), reason(&e)))
                }),
                Err(refused) => Err(refused),
            };
            all.refused = all.refused.or(there.err());
        }
        Control::Named => {
            let at = dir.filter(|_| all.without.is_none());
            all.socket = at.map(|d| d.join(format!("{}.sock", all.name)));
        }
        Control::Port(_) | Control::Off => {}
    }
    all
}

/// The name, and who has it.
fn choose(all: &mut Prospect, dir: &Path, base: &str, explicit: bool) {
    for copy in 1..=MAX_COPIES {
        let name = match copy {
            1 => base.to_string(),
            n => format!("{base}-{n}"),
        };
        let lock = dir.join(format!("{name}.lock"));
        match held(&lock) {
            Ok(None) => {
                all.name = name;
                all.record = Some(lock.with_extension("workers"));
                return;
            }
            Ok(Some(pid)) => {
                all.runs.get_or_insert(pid);
                if explicit {
                    all.refused = Some(Refused::Taken(runs_already(&name, &lock)));
                    return;
                }
            }
            Err(e) => {
                let why = reason(&e);
                all.without = Some(format!("cannot lock {}: {why}", lock.display()));
                return;
            }
        }
    }
}

/// The pid of who holds that lock, if anybody does.
fn held(lock: &Path) -> io::Result<Option<String>> {
    let mut file = match fds::open_regular(lock) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut text = Vec::new();
    (&mut file).take(MAX_LOCK).read_to_end(&mut text)?;
    match Locked::lock(file, Share::Yes) {
        Err((_, e)) if e.kind() == ErrorKind::WouldBlock => Ok(Some(parse_lock(&text).0)),
        Err((_, e)) => Err(e),
        Ok(_) => Ok(None),
    }
}

/// Is it there and ours, or could it be made?
fn usable(dir: &Path) -> Result<(), String> {
    match fs::symlink_metadata(dir) {
        Ok(_) => {
            is_private(dir)?;
            files::can_put_in(dir, files::PID).map_err(|e| reason(&e))
        }
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let above = dir.parent().unwrap_or(Path::new("/"));
            // Of a root without /run that is made, too.
            let above = match fs::metadata(above) {
                Err(e) if e.kind() == ErrorKind::NotFound && above == Path::new(super::RUN) => {
                    Path::new("/")
                }
                Ok(_) | Err(_) => above,
            };
            files::can_put_in(above, files::PID).map_err(|e| reason(&e))
        }
        Err(e) => Err(reason(&e)),
    }
}
