//! Where an interpreter of Python has its packages, as far as that can be told from outside: the directory
//! of the virtual environment whose interpreter it was executed as, or that lies in its directory or above
//! it; else that of the interpreter itself.

use super::files::{Budget, is_file, upwards};
use super::seeker::Seeker;
use std::path::{Path, PathBuf};

/// What a virtual environment is known by.
const MARK: &str = "pyvenv.cfg";
/// What they are called, as a rule.
const NAMES: [&str; 3] = [".venv", "venv", "env"];
/// So many are looked at.
const MOST: usize = 8;

/// Directories with packages, that are there, as we find them.
pub fn sites(s: &Seeker<'_>, budget: &Budget) -> Vec<PathBuf> {
    let exe = s.exe.file_name().unwrap_or_default().to_string_lossy();
    let two_up = |at: &Path| at.parent().and_then(Path::parent).map(Path::to_path_buf);
    let first = s.first.as_deref().map(|at| s.prefix.of(at));
    let executed = first.as_deref().and_then(two_up);
    let mut homes: Vec<PathBuf> = executed
        .filter(|at| is_file(&at.join(MARK)))
        .into_iter()
        .collect();
    if homes.is_empty() {
        let bases = s.bases.iter().map(|base| s.prefix.of(base));
        let dirs: Vec<PathBuf> = bases
            .flat_map(|b| upwards(&b, &s.prefix.0).collect::<Vec<_>>())
            .collect();
        let venvs = dirs.iter().flat_map(|dir| NAMES.map(|name| dir.join(name)));
        homes.extend(venvs.into_iter().find(|at| is_file(&at.join(MARK))));
    }
    if homes.is_empty() {
        homes.extend(two_up(&s.prefix.of(s.exe)));
    }
    let mut all = Vec::new();
    for home in homes {
        // Debian has one of its own for all versions.
        let local = home.join("local/lib");
        for lib in [home.join("lib"), local] {
            let versions = budget.entries(&lib).into_iter();
            let versions = versions.filter(|(name, _)| is_for(name, &exe));
            for (_, entry) in versions {
                all.push(entry.path().join("site-packages"));
                all.push(entry.path().join("dist-packages"));
            }
        }
    }
    all.retain(|at| at.is_dir());
    all.truncate(MOST);
    all
}

/// Is that library the one of this interpreter? `python3` may be any of them; python3.11 has its own, and
/// Debian's for all.
fn is_for(library: &str, exe: &str) -> bool {
    let any = library.starts_with("python3") || library.starts_with("pypy3");
    any && (!exe.contains('.') || library == exe || library == "python3")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_has_the_library_of_its_version() {
        for (library, exe, want) in [
            ("python3.11", "python3.11", true),
            ("python3", "python3.11", true),
            ("python3.12", "python3.11", false),
            ("python3.12", "python3", true),
            ("python2.7", "python3", false),
            ("perl5", "python3", false),
        ] {
            assert_eq!(is_for(library, exe), want, "{library} {exe}");
        }
    }
}
