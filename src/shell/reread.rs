//! What a reload looks at again: the file of --config, those of --env-file, who the workers are, where
//! COMMAND and its directory are by now. To look changes nothing; what was found is taken whole, when
//! all of it is known to be right, or not at all.

use super::ahead;
use super::client;
use super::lookup;
use super::reload::Recipe;
use super::rights::Rights;
use crate::core::codes::Failure;
use crate::options::reread;
use crate::settings::Settings;
use crate::sys::{cpus, fds};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

/// What was found.
pub struct Fresh {
    /// What the next workers are made of.
    pub recipe: Recipe,
    /// Options of the file that have to wait for a restart of the master.
    pub restart: Vec<String>,
    /// How many workers there are to be, if the file says something else about it than it did.
    pub workers: Option<u16>,
}

/// Looks, for workers that are handed so many sockets. An error is a whole sentence, and what there was
/// goes on.
pub fn look(now: &Settings, sockets: usize) -> Result<Fresh, String> {
    let here = &now.sources.here;
    let usual = ahead::web_concurrency().map_err(sentence)?;
    let cpus = usual.map_or_else(cpus::usable, usize::from);
    let read = |file: &str| client::read_options_again(&here.join(file));
    let mut reread = reread::reread(now, cpus, &read)?;
    let s = &mut reread.settings;
    s.workers = s.workers.or(usual);
    s.check_workers(s.wanted(cpus))?;
    s.stop_budget.get_or_insert_with(ahead::usual_budget);
    for file in &mut s.env_files {
        *file = here.join(&file);
    }
    let rights = Rights::find(s, &fds::open_regular).map_err(sentence)?;
    let (cwd, program) = ahead::with_their_eyes(s, &rights, here).map_err(sentence)?;
    lookup::check_programs(s, here).map_err(sentence)?;
    ahead::check_ready_fd(s, sockets).map_err(sentence)?;
    let recipe = Recipe {
        ipc: ahead::speaks_node(s, &program, &cwd),
        rights,
        program,
        cwd: CString::new(cwd.as_os_str().as_bytes()).unwrap_or_default(),
        settings: reread.settings,
    };
    Ok(Fresh {
        recipe,
        restart: reread.restart,
        workers: reread.workers_changed,
    })
}

fn sentence((_, message): Failure) -> String {
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Said, Variable};
    use std::fs;
    use std::path::{Path, PathBuf};

    fn place(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("mc-reread-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir(&dir).unwrap();
        dir
    }

    /// Started there, with these words.
    fn started(here: &Path, typed: &[(&'static str, &str)]) -> Settings {
        let typed: Vec<Said> = typed.iter().map(|(o, v)| (*o, v.to_string())).collect();
        let mut s = Settings {
            command: vec!["/bin/sh".into()],
            ..Settings::default()
        };
        s.sources.typed = typed;
        s.sources.here = here.into();
        s
    }

    fn refused(found: Result<Fresh, String>) -> String {
        found.map(drop).unwrap_err()
    }

    fn variables(fresh: &Fresh) -> Vec<Variable> {
        fresh.recipe.rights.variables().collect()
    }

    #[test]
    fn files_are_those_of_where_it_was_started() {
        let dir = place("here");
        fs::create_dir(dir.join("app")).unwrap();
        fs::write(dir.join("a.conf"), "cwd app\nenv-file b.env\nworkers 3\n").unwrap();
        fs::write(dir.join("a.env"), "A=1\n").unwrap();
        fs::write(dir.join("b.env"), "B=1\n").unwrap();
        let now = started(&dir, &[("config", "a.conf")]);
        let fresh = look(&now, 0).unwrap();
        assert_eq!(variables(&fresh), [("B".to_string(), b"1".to_vec())]);
        assert_eq!(
            fresh.recipe.cwd.as_bytes(),
            dir.join("app").as_os_str().as_bytes()
        );
        assert_eq!(fresh.recipe.program.as_bytes(), b"/bin/sh");
        assert_eq!(fresh.workers, Some(3));
        assert!(fresh.recipe.settings.stop_budget.is_some());
        // No file of options: those of variables all the same, each time anew.
        let now = started(&dir, &[("env-file", "a.env")]);
        assert_eq!(variables(&look(&now, 0).unwrap())[0].1, b"1");
        fs::write(dir.join("a.env"), "A=2\n").unwrap();
        assert_eq!(variables(&look(&now, 0).unwrap())[0].1, b"2");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_cannot_be_had_any_more_is_said() {
        let dir = place("gone");
        let conf = |text: &str| fs::write(dir.join("a.conf"), text).unwrap();
        let now = started(&dir, &[("config", "a.conf")]);
        let e = refused(look(&now, 0));
        assert_eq!(e, "--config a.conf: No such file or directory");
        fs::create_dir(dir.join("a.conf")).unwrap();
        assert!(refused(look(&now, 0)).starts_with("--config a.conf: not a regular file"));
        fs::remove_dir(dir.join("a.conf")).unwrap();
        conf("cwd nowhere");
        assert!(refused(look(&now, 0)).starts_with("--cwd "));
        conf("user nobody-has-this-name");
        // Not taken, so not looked up.
        assert_eq!(look(&now, 0).unwrap().restart, ["--user"]);
        conf("\nnice 20");
        assert!(refused(look(&now, 0)).starts_with("a.conf:2: --nice: "));
        conf("ready fd:4");
        assert!(look(&now, 1).is_ok());
        assert!(refused(look(&now, 2)).contains("workers have their sockets there, 3 to 4"));
        let file = dir.join("a.env");
        conf("env-file a.env");
        let head = format!("--env-file {}: ", file.display());
        assert_eq!(
            refused(look(&now, 0)),
            format!("{head}No such file or directory")
        );
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(refused(look(&now, 0)).starts_with(&format!("{head}not a regular file")));
        fs::remove_file(&file).unwrap();
        fs::write(&file, "A=1\nsecret\n").unwrap();
        assert!(refused(look(&now, 0)).starts_with(&format!("{}:2: ", file.display())));
        let now = Settings {
            command: vec!["./server".into()],
            ..started(&dir, &[])
        };
        assert!(refused(look(&now, 0)).contains("./server"));
        fs::remove_dir_all(dir).unwrap();
    }
}
