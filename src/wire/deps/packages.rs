//! Packages: their names and versions, and nothing else of the files that list them. What is told here is
//! read with the worker's rights or the master's, from files that may be anything, and goes to whoever asks:
//! so a name is what can be one, a version too, and whatever else may stand there (an address with a
//! password in it, a line of another file behind a link) is left out.

use super::super::raw::Raw;
use std::collections::BTreeSet;

/// So many are told in one answer.
pub const MAX_PACKAGES: usize = 20_000;
/// So many bytes all their names and versions have together.
pub const MAX_BYTES: usize = 512 * 1024;
/// Longest name,
pub const MAX_NAME: usize = 214;
/// and longest version.
pub const MAX_VERSION: usize = 128;

/// One of them, of one version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    pub name: String,
    /// Empty where none is known that could be one.
    pub version: String,
}

fn may_be_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"@/._-+~".contains(&b);
    // `@scope/name`, `vendor/name`, and paths of Go; none with a way out, or that is an address.
    let odd = text.contains("..") || text.contains("//");
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(plain) && !odd
}

fn may_be_version(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".+-_~!*".contains(&b);
    (1..=MAX_VERSION).contains(&text.len()) && text.bytes().all(plain)
}

impl Package {
    /// What is no name is no package; what is no version is not told.
    pub fn new(name: &str, version: &str) -> Option<Package> {
        may_be_name(name).then(|| Package {
            name: name.into(),
            version: match may_be_version(version) {
                true => version.into(),
                false => String::new(),
            },
        })
    }
}

/// The packages of one place, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    pub all: BTreeSet<Package>,
    /// So many more there are: for which there was no room, that could not be read, or whose names are none.
    pub left_out: usize,
    bytes: usize,
    full: bool,
}

impl List {
    /// One more; one whose name can be none is left out, and counted.
    pub fn add(&mut self, name: &str, version: &str) {
        let Some(one) = Package::new(name, version) else {
            return self.leave_out();
        };
        if self.all.contains(&one) {
            return;
        }
        let bytes = self.bytes + one.name.len() + one.version.len();
        match self.all.len() < MAX_PACKAGES && bytes <= MAX_BYTES {
            true => {
                self.bytes = bytes;
                self.all.insert(one);
            }
            false => {
                self.full = true;
                self.leave_out();
            }
        }
    }

    /// There is one more, that cannot be told.
    pub fn leave_out(&mut self) {
        self.left_out = self.left_out.saturating_add(1);
    }

    /// Is no more of any use?
    pub fn is_full(&self) -> bool {
        self.full
    }

    fn raw(&mut self, name: Raw<'_>, version: Option<Raw<'_>>) {
        let version = version.and_then(Raw::string).unwrap_or_default();
        if let Some(name) = name.string() {
            self.add(&name, &version);
        }
    }
}

/// What a package.json says of itself.
pub fn package_json(text: &str) -> Option<Package> {
    let [name, version] = Raw::parse(text)?.members(["name", "version"]);
    let version = version.and_then(Raw::string).unwrap_or_default();
    Package::new(&name?.string()?, &version)
}

/// package-lock.json and npm-shrinkwrap.json, of any version.
pub fn package_lock(text: &str) -> Option<List> {
    let [packages, dependencies] = Raw::parse(text)?.members(["packages", "dependencies"]);
    let mut list = List::default();
    match (packages, dependencies) {
        // By the paths at which they are, the root's own being empty.
        (Some(packages), _) => packages.each_member(|path, it| {
            let [name, version, link] = it.members(["name", "version", "link"]);
            let path = path.string().unwrap_or_default();
            if path.is_empty() || link.is_some_and(Raw::is_truthy) {
                return;
            }
            let at = path.rsplit_once("node_modules/").map(|(_, name)| name);
            match (name, at) {
                (Some(name), _) => list.raw(name, version),
                (None, Some(name)) => {
                    let version = version.and_then(Raw::string).unwrap_or_default();
                    list.add(name, &version);
                }
                (None, None) => {}
            }
        }),
        (None, Some(dependencies)) => nested(&mut list, dependencies),
        (None, None) => return None,
    }
    Some(list)
}

/// Each by its name, with those that are its own below it. (What nests deeper than 64 is no JSON here.)
fn nested(list: &mut List, dependencies: Raw<'_>) {
    dependencies.each_member(|name, it| {
        let [version, more] = it.members(["version", "dependencies"]);
        list.raw(name, version);
        if let Some(more) = more {
            nested(list, more);
        }
    });
}

/// composer.lock
pub fn composer_lock(text: &str) -> Option<List> {
    let all = Raw::parse(text)?.members(["packages", "packages-dev"]);
    let mut list = List::default();
    let mut any = false;
    for some in all.into_iter().flatten() {
        for one in some.items(MAX_PACKAGES)? {
            any = true;
            let [name, version] = one.members(["name", "version"]);
            if let Some(name) = name {
                list.raw(name, version);
            }
        }
    }
    (any || all.iter().any(Option::is_some)).then_some(list)
}

/// Pipfile.lock: `"name": {"version": "==1.0"}`
pub fn pipfile_lock(text: &str) -> Option<List> {
    let all = Raw::parse(text)?.members(["default", "develop"]);
    let mut list = List::default();
    for some in all.into_iter().flatten() {
        some.each_member(|name, it| {
            let [version] = it.members(["version"]);
            let version = version.and_then(Raw::string).unwrap_or_default();
            let name = name.string().unwrap_or_default();
            list.add(&name, version.trim_start_matches("=="));
        });
    }
    all.iter().any(Option::is_some).then_some(list)
}

/// Cargo.lock, poetry.lock, uv.lock, pdm.lock: tables `[[package]]` with a name and a version.
pub fn toml_lock(text: &str) -> Option<List> {
    let mut list = List::default();
    let (mut here, mut any) = (false, false);
    let (mut name, mut version) = (None, None);
    let mut done = |name: &mut Option<&str>, version: &mut Option<&str>| {
        if let Some(name) = name.take() {
            list.add(name, version.take().unwrap_or_default());
        }
        *version = None;
    };
    for line in text.lines() {
        let line = line.trim_end();
        if line.starts_with('[') {
            done(&mut name, &mut version);
            here = line == "[[package]]";
            any |= here;
        } else if let Some((key, value)) = line.split_once('=').filter(|_| here) {
            let value = value.trim();
            let value = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            match key.trim_end() {
                "name" => name = value,
                "version" => version = value,
                _ => {}
            }
        }
    }
    done(&mut name, &mut version);
    any.then_some(list)
}

/// Gemfile.lock: below `specs:`, four blanks deep, `name (version)`; what is deeper is what those want.
pub fn gemfile_lock(text: &str) -> Option<List> {
    let mut list = List::default();
    let (mut here, mut any) = (false, false);
    for line in text.lines() {
        let bare = line.trim_start_matches(' ');
        match line.len() - bare.len() {
            2 => {
                here = bare.trim_end() == "specs:";
                any |= here;
            }
            4 if here => {
                let (name, rest) = bare.trim_end().split_once(' ').unwrap_or((bare, ""));
                let version = rest.strip_prefix('(').and_then(|r| r.strip_suffix(')'));
                list.add(name, version.unwrap_or_default());
            }
            0 => here = false,
            _ => {}
        }
    }
    any.then_some(list)
}

/// requirements.txt: lines `name==version`, or with another condition, which is no version. Lines that are
/// options or addresses are nobody's business.
pub fn requirements(text: &str) -> List {
    let mut list = List::default();
    for line in text.lines() {
        let line = line.split(['#', ';', '\\']).next().unwrap_or_default();
        let line = line.split(" --").next().unwrap_or_default().trim();
        let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)));
        let (name, rest) = line
            .split_at_checked(end.unwrap_or(line.len()))
            .unwrap_or((line, ""));
        // `name[extra]`
        let rest = rest.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(extras) => extras.split_once(']').map_or("", |(_, rest)| rest),
            None => rest,
        };
        let rest = rest.trim();
        let condition = rest.is_empty() || rest.starts_with(['=', '<', '>', '~', '!']);
        let named = name.starts_with(|c: char| c.is_ascii_alphanumeric());
        if named && condition {
            let version = rest.strip_prefix("==").unwrap_or_default();
            list.add(name, version.trim());
        }
    }
    list
}

/// Is that a record of something that is installed in Python?
pub fn is_dist_info(file: &str) -> bool {
    file.ends_with(".dist-info") || file.ends_with(".egg-info")
}

/// `name-version.dist-info`, or .egg-info with what it is for behind that: what is installed.
pub fn dist_info(file: &str) -> Option<Package> {
    let bare = file
        .strip_suffix(".dist-info")
        .or_else(|| file.strip_suffix(".egg-info"))?;
    let (name, rest) = bare.split_once('-')?;
    let version = rest.split('-').next().unwrap_or_default();
    Package::new(name, version).filter(|p| !p.version.is_empty())
}

#[cfg(test)]
mod tests;
