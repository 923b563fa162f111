//! What is to be open before the first worker starts: what was passed to us, then -p, then -l.

use super::rights::{Rights, group_number, user_number};
use super::sockets::is_abstract;
use super::store;
use crate::core::codes::{EX_CONFIG, EX_USAGE, Failure};
use crate::core::{Addr, FileIs, Given};
use crate::settings::{Listen, MAX_PORTS, Settings, SocketFile};
use crate::sys::passed::{self, Kind};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Of systemd: the first descriptor that is passed.
const FIRST_PASSED: i32 = 3;

/// How many sockets LISTEN_FDS passes to us, and their names. They are meant for us if LISTEN_PID
/// says so; then they must be what it says.
pub struct Passed {
    count: usize,
    names: Vec<String>,
}

impl Passed {
    /// From our environment; `pid` is who we were when we were executed.
    pub fn from_environment(pid: u32) -> Result<Passed, Failure> {
        let var = |name: &str| std::env::var(name).unwrap_or_default();
        let for_us = var("LISTEN_PID").trim().parse() == Ok(pid);
        let text = var("LISTEN_FDS");
        if !for_us || text.is_empty() {
            let (count, names) = (0, Vec::new());
            return Ok(Passed { count, names });
        }
        let count = crate::settings::number(&text, 0, MAX_PORTS);
        let count = count.map_err(|e| (EX_USAGE, format!("LISTEN_FDS: {e}")))?;
        let names = var("LISTEN_FDNAMES");
        Ok(Passed {
            count,
            names: names.split(':').map(String::from).collect(),
        })
    }

    /// What is to be open. (Not what a master of ours has left in a store.)
    fn all(&self) -> impl Iterator<Item = (i32, Option<String>)> {
        self.each().filter(|(_, name)| !is_left(name))
    }

    fn each(&self) -> impl Iterator<Item = (i32, Option<String>)> {
        let name = |n: usize| self.names.get(n).filter(|t| !t.is_empty()).cloned();
        (FIRST_PASSED..).zip((0..self.count).map(name))
    }

    /// That: it is taken.
    pub fn left(&self) -> Vec<OwnedFd> {
        let left = self.each().filter(|(_, name)| is_left(name));
        left.filter_map(|(fd, _)| passed::take(fd).ok()).collect()
    }
}

fn is_left(name: &Option<String>) -> bool {
    name.as_deref().is_some_and(store::is_ours)
}

/// All of it, in the order in which workers are handed it.
pub fn all(
    s: &Settings,
    rights: &Rights,
    passed: &Passed,
    here: &Path,
) -> Result<Vec<Given>, Failure> {
    let mut all = Vec::new();
    for (fd, name) in passed.all() {
        all.push(adopted(fd, name, "LISTEN_FDS")?);
    }
    let ports = s.addresses().into_iter();
    all.extend(ports.map(|a| Given::from(Addr::Tcp(a))));
    for one in &s.listen {
        all.push(match one {
            Listen::Open(Addr::Unix(path), file) if !is_abstract(path) => Given {
                file: file_is(file, rights)?,
                // Workers and we have different directories.
                ..Given::from(Addr::Unix(here.join(path)))
            },
            Listen::Open(addr, _) => Given::from(addr.clone()),
            Listen::Fd(fd) => adopted(*fd, None, &format!("-l fd:{fd}"))?,
        });
    }
    if all.len() > MAX_PORTS {
        let n = all.len();
        let message = format!("{n} addresses to listen on (limit {MAX_PORTS})");
        return Err((EX_USAGE, message));
    }
    distinct(&all)?;
    Ok(all)
}

/// By whoever serves it: a server of --user that changes or removes its socket's file may do so then.
fn file_is(said: &SocketFile, rights: &Rights) -> Result<FileIs, Failure> {
    let theirs = rights.ids.as_ref();
    let uid = said.user.as_ref().map(|u| user_number("-l user", u));
    let uid = uid.transpose()?.map(|(uid, _)| uid);
    let gid = said.group.as_ref().map(|g| group_number("-l group", g));
    let gid = gid.transpose()?;
    Ok(FileIs {
        mode: said.mode,
        uid: uid.or(theirs.and_then(|ids| ids.uid)),
        gid: gid.or(theirs.and_then(|ids| ids.gid)),
    })
}

fn distinct(all: &[Given]) -> Result<(), Failure> {
    let number = |g: &Given| g.passed.as_ref().map(|(fd, _)| *fd);
    for (n, one) in all.iter().enumerate() {
        if number(one).is_some() && all.iter().take(n).any(|g| number(g) == number(one)) {
            let fd = number(one).unwrap_or_default();
            let message = format!("fd {fd} is given twice: LISTEN_FDS passes it, too");
            return Err((EX_USAGE, message));
        }
    }
    Ok(())
}

fn adopted(fd: i32, name: Option<String>, by: &str) -> Result<Given, Failure> {
    let addr = match passed::look(fd) {
        Kind::Tcp(addr) => Addr::Tcp(addr),
        Kind::Unix(path) => Addr::Unix(path),
        Kind::Other(what) => Addr::Other(format!("fd:{fd} ({what})")),
        Kind::Unfit(what) => {
            let hint = "; of systemd, the socket unit must say Accept=no";
            return Err((EX_CONFIG, format!("{by}: fd {fd} is {what}{hint}")));
        }
        Kind::Closed => {
            let message = format!("{by}: fd {fd} is not open; whoever starts us has to open it");
            return Err((EX_CONFIG, message));
        }
    };
    Ok(Given {
        addr,
        file: FileIs::default(),
        passed: Some((fd, name)),
    })
}
