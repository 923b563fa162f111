//! The look itself, in a process of its own: it is asked which workers, looks at each and at what each has
//! forked, with the eyes of that process's user, and writes the answer. Whatever it finds, it ends well: a
//! process that goes is told as gone, and one that may not be looked at with the reason.

use super::files::{Budget, changed, is_file};
use super::objects::{self, MOMENT, Objects, Prefix, Running};
use super::projects::{Projects, is_interpreter};
use super::seeker::Seeker;
use crate::core::codes::{EX_OSERR, EX_SOFTWARE};
use crate::core::words::{errno_text, reason};
use crate::sys::procmade::{self, View};
use crate::sys::{guise, process, procfs};
use crate::wire::deps::question::{MAX_QUESTION, Question, Worker};
use crate::wire::deps::{Answer, File, Group, Made, Member, State, Used, json, text};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// So many processes of a worker are looked at,
const MOST_OF_ONE: usize = 64;
/// and so many of all.
const MOST: usize = 4096;

/// Why a process is not told of.
enum Hidden {
    Gone,
    Why(String),
}

/// Is asked, looks and answers; the exit code. What it complains of goes to its stderr, which the master
/// passes on.
pub fn run() -> u8 {
    procmade::be_nice();
    let mut asked = String::new();
    let read = io::stdin().take(MAX_QUESTION).read_to_string(&mut asked);
    let Some(question) = read.ok().and_then(|_| Question::decode(&asked)) else {
        return failed(
            EX_SOFTWARE,
            "no question was asked: this is for the master to run",
        );
    };
    let mut looker = Looker::new(procfs::parent_of(process::id()).unwrap_or(0));
    for worker in &question.workers {
        looker.worker(worker);
    }
    let answer = looker.answer();
    let told = match question.json {
        true => json::answer(&answer),
        false => text::answer(&answer),
    };
    match io::stdout().write_all(told.as_bytes()) {
        Ok(()) => 0,
        Err(e) => failed(
            EX_OSERR,
            &format!("the answer cannot be written: {}", reason(&e)),
        ),
    }
}

fn failed(code: u8, why: &str) -> u8 {
    let _ = writeln!(io::stderr(), "{why}");
    code
}

/// What was seen so far.
struct Looker {
    master: i32,
    budget: Budget,
    objects: Objects,
    projects: Projects,
    groups: BTreeMap<Made, BTreeSet<Member>>,
    gone: Vec<Member>,
    unseen: Vec<(Member, String)>,
    looked_at: usize,
    left_out: usize,
}

impl Looker {
    fn new(master: i32) -> Looker {
        Looker {
            master,
            budget: Budget::new(),
            objects: Objects::default(),
            projects: Projects::default(),
            groups: BTreeMap::new(),
            gone: Vec::new(),
            unseen: Vec::new(),
            looked_at: 0,
            left_out: 0,
        }
    }

    /// A worker, and what it has forked.
    fn worker(&mut self, w: &Worker) {
        let first = Member {
            slot: w.slot,
            pid: w.pid,
        };
        // Its number may be another process's by now, but not another child of the master's that is no
        // worker: that has no slot.
        match procfs::parent_of(w.pid) {
            Some(parent) if parent == self.master => {}
            None if procmade::is_there(w.pid) => {
                let why = "/proc does not show it (is it mounted with hidepid?)";
                return self.unseen.push((first, why.into()));
            }
            Some(_) | None => return self.gone.push(first),
        }
        for (nth, pid) in procfs::tree(w.pid).into_iter().enumerate() {
            if nth >= MOST_OF_ONE || self.looked_at >= MOST || self.budget.is_over() {
                self.left_out += 1;
                continue;
            }
            self.looked_at += 1;
            let member = Member { slot: w.slot, pid };
            match self.process(pid, w.generation) {
                Ok(made) => drop(self.groups.entry(made).or_default().insert(member)),
                Err(Hidden::Gone) if nth == 0 => self.gone.push(member),
                // One that does not last is nothing that a worker is made of.
                Err(Hidden::Gone) => {}
                Err(Hidden::Why(why)) => self.unseen.push((member, why)),
            }
        }
    }

    /// What one process is made of.
    fn process(&mut self, pid: i32, generation: u32) -> Result<Made, Hidden> {
        let birth = procmade::birth(pid).ok_or(Hidden::Gone)?;
        let began = procmade::began(birth).unwrap_or(i64::MAX);
        let owner = procmade::owner(pid).map_err(|_| Hidden::Gone)?;
        let worn = owner.wear();
        let made = self.made(pid, generation, began);
        drop(worn);
        // Else it is another one that was looked at, in part.
        if procmade::birth(pid) != Some(birth) || procfs::is_zombie(pid) {
            return Err(Hidden::Gone);
        }
        made.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Hidden::Gone,
            _ => Hidden::Why(why_not(&e, owner.uid)),
        })
    }

    fn made(&mut self, pid: i32, generation: u32, began: i64) -> io::Result<Made> {
        let view = procmade::view(pid);
        let prefix = match &view {
            View::Apart(root) => Prefix(root.clone()),
            View::Ours | View::Below => Prefix::default(),
        };
        let Running {
            file,
            path,
            modules,
        } = objects::running(pid, &prefix, &self.budget)?;
        let (objects, objects_left_out) =
            self.objects.of(pid, began, &prefix, &path, &self.budget)?;
        let cwd = procmade::name_of(pid, "cwd").ok();
        let words = procmade::words(pid);
        // What is a path for it may be another one for us.
        let own_names = view != View::Below;
        let here = |word: &Vec<u8>| {
            let word = PathBuf::from(OsString::from_vec(word.clone()));
            let may = own_names || word.is_relative();
            may.then(|| cwd.as_deref().unwrap_or(Path::new("/")).join(word))
        };
        let program = path.file_name().unwrap_or_default().to_string_lossy();
        let script = script(&words).filter(|_| is_interpreter(&program));
        let script = script.and_then(here).filter(|at| is_file(&prefix.of(at)));
        let script = script.filter(|at| *at != path);
        let mut bases: Vec<PathBuf> = cwd.iter().cloned().collect();
        if let Some(at) = &script {
            // Among other mounts a link's own words are not for us to follow.
            let ours = view == View::Ours;
            let real = ours.then(|| at.canonicalize().ok()).flatten();
            let real = real.unwrap_or_else(|| at.clone());
            bases.extend(real.parent().map(Path::to_path_buf));
        }
        bases.dedup();
        let named = |word: &&Vec<u8>| word.contains(&b'/');
        let seeker = Seeker {
            prefix: &prefix,
            exe: &path,
            first: words.first().filter(named).and_then(here),
            bases,
        };
        let hits = self.projects.of(&seeker, modules, &self.budget);
        let used = |nth: usize| {
            let found = self.projects.all.get(nth)?;
            Some(Used {
                path: found.source.path.clone(),
                changed: found.changed > began.saturating_add(MOMENT),
            })
        };
        Ok(Made {
            generation,
            executable: file,
            script: script.and_then(|at| script_file(&at, &prefix, began)),
            cwd: cwd.as_ref().map(|p| p.to_string_lossy().into_owned()),
            other_root: view != View::Ours,
            objects,
            objects_left_out,
            packages: hits.into_iter().filter_map(used).collect(),
        })
    }

    fn answer(self) -> Answer {
        let group = |(made, members): (Made, BTreeSet<Member>)| Group {
            made,
            members: members.into_iter().collect(),
        };
        let sources = self.projects.all.into_iter().map(|f| f.source);
        Answer {
            // By generation, the oldest first.
            groups: self.groups.into_iter().map(group).collect(),
            sources: sources.collect(),
            gone: self.gone,
            unseen: self.unseen,
            left_out: self.left_out.saturating_add(self.projects.left_out),
        }
    }
}

fn why_not(e: &io::Error, uid: u32) -> String {
    match e.raw_os_error() {
        Some(errno @ (libc::EACCES | libc::EPERM)) => {
            let lacks = match guise::capable(guise::SYS_PTRACE) {
                true => "",
                false => ", and the master has no CAP_SYS_PTRACE",
            };
            format!("{}: it is user {uid}'s{lacks}", errno_text(errno))
        }
        _ => reason(e),
    }
}

/// Options of interpreters whose value is a word of its own, and may be a file: but not the script.
const VALUED: [&str; 11] = [
    "-r",
    "--require",
    "--import",
    "--loader",
    "--experimental-loader",
    "-C",
    "-W",
    "-X",
    "-I",
    "-d",
    "--env-file",
];
/// Behind these no script follows.
const NO_SCRIPT: [&str; 6] = ["-c", "-e", "-m", "-p", "--eval", "--print"];

/// The word of an interpreter's that may be its script: the first that is neither an option nor the value
/// of one. No other word is looked at: they may be secrets.
fn script(words: &[Vec<u8>]) -> Option<&Vec<u8>> {
    let mut rest = words.iter().skip(1);
    loop {
        let word = rest.next()?;
        let is = |options: &[&str]| options.iter().any(|o| o.as_bytes() == word.as_slice());
        if is(&NO_SCRIPT) {
            return None;
        } else if is(&VALUED) {
            rest.next()?;
        } else if !word.starts_with(b"-") && !word.is_empty() {
            return Some(word);
        }
    }
}

fn script_file(at: &Path, prefix: &Prefix, began: i64) -> Option<File> {
    let meta = std::fs::metadata(prefix.of(at)).ok()?;
    Some(File {
        path: at.to_string_lossy().into_owned(),
        state: match changed(&meta) > began.saturating_add(MOMENT) {
            true => State::Changed,
            false => State::Present,
        },
        inode: meta.ino(),
        size: meta.size(),
        mtime: meta.mtime(),
        build_id: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_of_an_interpreter_is_the_first_word_that_is_its_own() {
        let of = |line: &str| {
            let words: Vec<Vec<u8>> = line.split(' ').map(|w| w.as_bytes().to_vec()).collect();
            script(&words).map(|w| String::from_utf8_lossy(w).into_owned())
        };
        for (line, want) in [
            ("node server.js --port 80", Some("server.js")),
            (
                "node -r ./preload.js --inspect server.js",
                Some("server.js"),
            ),
            ("python3 -u -W ignore app.py", Some("app.py")),
            ("python3 -m gunicorn app:app", None),
            ("sh -c node", None),
            ("node", None),
            ("node -r", None),
            ("./server", None),
        ] {
            assert_eq!(of(line).as_deref(), want, "{line}");
        }
    }

    #[test]
    fn one_looks_at_itself() {
        let me = process::id();
        let mut looker = Looker::new(procfs::parent_of(me).unwrap());
        looker.worker(&Worker {
            slot: 3,
            pid: me,
            generation: 1,
        });
        // Not a child of that one, and none at all.
        for pid in [1, i32::MAX] {
            looker.worker(&Worker {
                slot: 4,
                pid,
                generation: 1,
            });
        }
        let answer = looker.answer();
        let one = answer
            .groups
            .iter()
            .find(|g| g.members.iter().any(|m| m.pid == me));
        let made = &one.unwrap().made;
        let exe = std::env::current_exe().unwrap();
        assert_eq!(Path::new(&made.executable.path), exe);
        assert_eq!(made.executable.state, State::Present);
        let libc = made.objects.iter().find(|o| o.path.contains("libc"));
        assert_eq!(libc.unwrap().state, State::Present);
        // We were built from what this lists.
        assert!(
            answer
                .sources
                .iter()
                .any(|s| s.path.ends_with("Cargo.lock"))
        );
        assert_eq!(answer.gone.len(), 2);
        assert!(answer.unseen.is_empty());
    }
}
