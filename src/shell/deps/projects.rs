//! Packages of a process: where they are installed, or what lock file lists them, found from its working
//! directory upwards, and from that of its script. An interpreter has those of its language; a shell has
//! none, it only starts others; any other program may have been built from whatever lies there.

use super::files::{Budget, changed, is_file, is_real_dir, upwards};
use super::python;
use super::seeker::Seeker;
use crate::wire::deps::Source;
use crate::wire::deps::packages::{self, List, Package};
use std::collections::BTreeMap;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Longest lock file that is read,
const MAX_LOCK: u64 = 16 * 1024 * 1024;
/// and longest package.json.
const MAX_JSON: u64 = 512 * 1024;
/// So many places of packages are told.
const MOST_SOURCES: usize = 64;
/// So deep below the first node_modules others are looked for.
const MOST_DEPTH: usize = 96;

type Parser = fn(&str) -> Option<List>;

/// A language, and the files that list what is used of it. Of those without a parser it is told that they
/// are there.
struct Family {
    kind: &'static str,
    /// What its interpreters' names begin with.
    programs: &'static [&'static str],
    files: &'static [(&'static str, Option<Parser>)],
}

const NPM: usize = 0;
const PYTHON: usize = 1;

const FAMILIES: [Family; 5] = [
    Family {
        kind: "npm",
        programs: &["node", "bun", "deno"],
        files: &[
            ("package-lock.json", Some(packages::package_lock)),
            ("npm-shrinkwrap.json", Some(packages::package_lock)),
            ("yarn.lock", None),
            ("pnpm-lock.yaml", None),
            ("bun.lock", None),
            ("deno.lock", None),
        ],
    },
    Family {
        kind: "python",
        programs: &["python", "pypy", "uwsgi"],
        files: &[
            ("poetry.lock", Some(packages::toml_lock)),
            ("uv.lock", Some(packages::toml_lock)),
            ("pdm.lock", Some(packages::toml_lock)),
            ("Pipfile.lock", Some(packages::pipfile_lock)),
            ("requirements.txt", Some(requirements)),
        ],
    },
    Family {
        kind: "ruby",
        programs: &["ruby", "truffleruby"],
        files: &[
            ("Gemfile.lock", Some(packages::gemfile_lock)),
            ("gems.locked", Some(packages::gemfile_lock)),
        ],
    },
    Family {
        kind: "php",
        programs: &["php"],
        files: &[("composer.lock", Some(packages::composer_lock))],
    },
    Family {
        kind: "rust",
        programs: &[],
        files: &[("Cargo.lock", Some(packages::toml_lock))],
    },
];

/// They run what others have made.
const BARE: [&str; 14] = [
    "sh", "bash", "dash", "ash", "zsh", "ksh", "busybox", "env", "perl", "java", "tini", "sudo",
    "su", "runuser",
];

fn requirements(text: &str) -> Option<List> {
    Some(packages::requirements(text))
}

fn is_of(f: &Family, program: &str) -> bool {
    f.programs.iter().any(|p| program.starts_with(p))
}

/// Does a program of that name run a script?
pub fn is_interpreter(program: &str) -> bool {
    BARE.contains(&program) || FAMILIES.iter().any(|f| is_of(f, program))
}

/// Which families a program of that name may have.
fn families(program: &str) -> Vec<usize> {
    if BARE.contains(&program) {
        return Vec::new();
    }
    match FAMILIES.iter().position(|f| is_of(f, program)) {
        Some(one) => vec![one],
        None => (0..FAMILIES.len()).collect(),
    }
}

/// A source, and when the newest of it was changed.
pub struct Found {
    pub source: Source,
    pub changed: i64,
}

/// All that were looked at, each once.
#[derive(Default)]
pub struct Projects {
    pub all: Vec<Found>,
    /// By where they are.
    known: BTreeMap<PathBuf, usize>,
    pub left_out: usize,
}

impl Projects {
    /// Those of one process.
    pub fn of(
        &mut self,
        seeker: &Seeker<'_>,
        modules: Option<List>,
        budget: &Budget,
    ) -> Vec<usize> {
        let mut hits = Vec::new();
        let program = seeker.exe.file_name().unwrap_or_default().to_string_lossy();
        if let Some(list) = modules {
            let at = seeker.prefix.of(seeker.exe);
            let meta = std::fs::metadata(&at).ok();
            hits.extend(self.add(&at, || {
                Some(found("go", seeker, &at, meta.as_ref(), Ok(list)))
            }));
            return hits;
        }
        for nth in families(&program) {
            for base in &seeker.bases {
                let base = seeker.prefix.of(base);
                match nth {
                    NPM => self.npm(&base, seeker, budget, &mut hits),
                    _ => self.locked(nth, &base, seeker, budget, &mut hits),
                }
            }
            // What is installed for an interpreter is nothing of other programs beside it.
            if nth == PYTHON && is_interpreter(&program) {
                for site in python::sites(seeker, budget) {
                    let look = || installed(&site, seeker, budget);
                    hits.extend(self.add(&site, look));
                }
            }
        }
        hits.sort_unstable();
        hits.dedup();
        hits
    }

    fn add(&mut self, at: &Path, look: impl FnOnce() -> Option<Found>) -> Option<usize> {
        if let Some(nth) = self.known.get(at) {
            return Some(*nth);
        }
        if self.all.len() >= MOST_SOURCES {
            self.left_out += 1;
            return None;
        }
        let nth = self.all.len();
        self.all.push(look()?);
        self.known.insert(at.to_path_buf(), nth);
        Some(nth)
    }

    /// What node would find from there: its own package, and the next node_modules; lock files where there is
    /// none.
    fn npm(&mut self, base: &Path, s: &Seeker<'_>, budget: &Budget, hits: &mut Vec<usize>) {
        let own = upwards(base, &s.prefix.0).map(|dir| dir.join("package.json"));
        if let Some(at) = own.into_iter().find(|at| is_file(at)) {
            hits.extend(self.add(&at, || Some(own_package(&at, s, budget))));
        }
        let modules = upwards(base, &s.prefix.0).map(|dir| dir.join("node_modules"));
        match modules.into_iter().find(|dir| dir.is_dir()) {
            Some(dir) => hits.extend(self.add(&dir, || Some(node_modules(&dir, s, budget)))),
            None => self.locked(NPM, base, s, budget, hits),
        }
    }

    /// The lock files of a family, in the first directory that has any.
    fn locked(
        &mut self,
        nth: usize,
        base: &Path,
        s: &Seeker<'_>,
        budget: &Budget,
        hits: &mut Vec<usize>,
    ) {
        let Some(family) = FAMILIES.get(nth) else {
            return;
        };
        for dir in upwards(base, &s.prefix.0) {
            let there = |(name, parser): &(&str, Option<Parser>)| {
                let at = dir.join(name);
                is_file(&at).then_some((at, *parser))
            };
            let files: Vec<_> = family.files.iter().filter_map(there).collect();
            for (at, parser) in &files {
                let look = || lock_file(family.kind, at, *parser, s, budget);
                hits.extend(self.add(at, look));
            }
            if !files.is_empty() {
                return;
            }
        }
    }
}

fn found(
    kind: &'static str,
    s: &Seeker<'_>,
    at: &Path,
    meta: Option<&Metadata>,
    list: Result<List, String>,
) -> Found {
    Found {
        source: Source {
            kind,
            path: s.prefix.without(at).to_string_lossy().into_owned(),
            size: meta.map_or(0, MetadataExt::size),
            mtime: meta.map_or(0, MetadataExt::mtime),
            list,
        },
        changed: meta.map_or(0, changed),
    }
}

fn lock_file(
    kind: &'static str,
    at: &Path,
    parser: Option<Parser>,
    s: &Seeker<'_>,
    budget: &Budget,
) -> Option<Found> {
    let Some(parser) = parser else {
        let meta = std::fs::metadata(at).ok();
        let why = Err("its packages are not read".into());
        return Some(found(kind, s, at, meta.as_ref(), why));
    };
    Some(match budget.read(at, MAX_LOCK) {
        Ok((bytes, meta)) => {
            let text = String::from_utf8_lossy(&bytes);
            let list = parser(&text).ok_or_else(|| "is not what its name says".to_string());
            found(kind, s, at, Some(&meta), list)
        }
        Err(why) => found(kind, s, at, std::fs::metadata(at).ok().as_ref(), Err(why)),
    })
}

/// What a package.json says of the package that it is of.
fn package_at(at: &Path, budget: &Budget) -> Result<(Option<Package>, Metadata), String> {
    let (bytes, meta) = budget.read(at, MAX_JSON)?;
    let package = packages::package_json(&String::from_utf8_lossy(&bytes));
    Ok((package, meta))
}

fn own_package(at: &Path, s: &Seeker<'_>, budget: &Budget) -> Found {
    match package_at(at, budget) {
        Ok((package, meta)) => {
            let mut list = List::default();
            if let Some(p) = package {
                list.add(&p.name, &p.version);
            }
            found("npm", s, at, Some(&meta), Ok(list))
        }
        Err(why) => found("npm", s, at, std::fs::metadata(at).ok().as_ref(), Err(why)),
    }
}

/// What a walk through node_modules has found.
#[derive(Default)]
struct Walk {
    list: List,
    changed: i64,
    /// Directories that are still to be looked at.
    left: Vec<PathBuf>,
}

impl Walk {
    fn package(&mut self, dir: &Path, name: &str, budget: &Budget) {
        let at = dir.join("package.json");
        let meta = match package_at(&at, budget) {
            Ok((package, meta)) => {
                match package {
                    Some(p) => self.list.add(&p.name, &p.version),
                    None => self.list.add(name, ""),
                }
                meta
            }
            // It is a package, whatever it may be called.
            Err(_) => match std::fs::metadata(&at) {
                Ok(meta) if meta.is_file() => {
                    self.list.leave_out();
                    meta
                }
                Ok(_) | Err(_) => return,
            },
        };
        self.changed = self.changed.max(changed(&meta));
        // Links lead to what is found elsewhere, or in circles.
        let nested = dir.join("node_modules");
        if is_real_dir(dir) && is_real_dir(&nested) && nested.components().count() < MOST_DEPTH {
            self.left.push(nested);
        }
    }
}

/// What is installed there, and below that, whoever put it there.
fn node_modules(top: &Path, s: &Seeker<'_>, budget: &Budget) -> Found {
    let meta = std::fs::metadata(top).ok();
    let mut walk = Walk {
        left: vec![top.to_path_buf()],
        ..Walk::default()
    };
    // What npm writes whenever it has changed anything.
    let record = std::fs::metadata(top.join(".package-lock.json"));
    walk.changed = record.map_or(0, |m| changed(&m));
    while let Some(dir) = walk.left.pop() {
        for (name, entry) in budget.entries(&dir) {
            if budget.is_over() || walk.list.is_full() {
                break;
            }
            let path = entry.path();
            if name == ".pnpm" && dir == top {
                // Each there has a node_modules of its own; all others are links to these.
                let all = budget.entries(&path).into_iter();
                let all = all.map(|(_, e)| e.path().join("node_modules"));
                walk.left.extend(all.filter(|d| is_real_dir(d)));
            } else if name.starts_with('@') {
                for (inner, e) in budget.entries(&path) {
                    walk.package(&e.path(), &format!("{name}/{inner}"), budget);
                }
            } else if !name.starts_with('.') {
                walk.package(&path, &name, budget);
            }
        }
    }
    if budget.is_over() {
        walk.list.left_out = walk.list.left_out.max(1);
    }
    let mut all = found("npm", s, top, meta.as_ref(), Ok(walk.list));
    all.changed = walk.changed;
    all
}

/// What is installed for Python there.
fn installed(site: &Path, s: &Seeker<'_>, budget: &Budget) -> Option<Found> {
    let mut list = List::default();
    let mut newest = 0;
    for (name, entry) in budget.entries(site) {
        if !packages::is_dist_info(&name) {
            continue;
        }
        match packages::dist_info(&name) {
            Some(p) => list.add(&p.name, &p.version),
            None => list.leave_out(),
        }
        newest = newest.max(entry.metadata().map_or(0, |m| changed(&m)));
    }
    if budget.is_over() {
        list.left_out = list.left_out.max(1);
    }
    let meta = std::fs::metadata(site).ok();
    let mut all = found("python", s, site, meta.as_ref(), Ok(list));
    all.changed = newest;
    Some(all)
}

#[cfg(test)]
mod tests;
