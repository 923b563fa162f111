//! Packages are found where the language would find them, whatever lies beside them.

use super::super::objects::Prefix;
use super::*;
use std::fs;
use std::os::unix::fs::symlink;

struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Dir {
        let at = std::env::temp_dir().join(format!("mc-deps-{name}-{}", std::process::id()));
        fs::create_dir_all(&at).unwrap();
        Dir(at.canonicalize().unwrap())
    }

    fn file(&self, path: &str, text: &str) {
        let at = self.0.join(path);
        fs::create_dir_all(at.parent().unwrap()).unwrap();
        fs::write(at, text).unwrap();
    }

    /// A package there.
    fn package(&self, path: &str, name: &str, version: &str) {
        let text = format!("{{\"name\":\"{name}\",\"version\":\"{version}\"}}");
        self.file(&format!("{path}/package.json"), &text);
    }

    /// What a program of that name in that directory has: kind, path behind ours, packages.
    fn of(&self, exe: &str, dir: &str) -> Vec<String> {
        let seeker = Seeker {
            prefix: &Prefix::default(),
            exe: &self.0.join(exe),
            first: None,
            bases: vec![self.0.join(dir)],
        };
        let mut projects = Projects::default();
        let budget = Budget::new();
        let hits = projects.of(&seeker, None, &budget);
        assert_eq!(projects.of(&seeker, None, &budget), hits);
        let shown = |nth: &usize| {
            let s = &projects.all[*nth].source;
            let path = Path::new(&s.path).strip_prefix(&self.0).unwrap().display();
            let list = match &s.list {
                Ok(list) => list,
                Err(why) => return format!("{} {path} {why}", s.kind),
            };
            let all = list.all.iter().map(|p| format!("{}@{}", p.name, p.version));
            let more = (list.left_out > 0).then(|| format!("+{}", list.left_out));
            let all: Vec<String> = all.chain(more).collect();
            format!("{} {path} {}", s.kind, all.join(" "))
        };
        hits.iter().map(shown).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn node_has_what_is_installed_nested_and_scoped_and_walks_in_no_circles() {
    let d = Dir::new("npm");
    d.package("app", "app", "1.0.0");
    d.package("app/node_modules/a", "a", "1.2.3");
    d.package("app/node_modules/a/node_modules/c", "c", "0.1.0");
    d.package("app/node_modules/@s/b", "@s/b", "2.0.0");
    d.package("app/node_modules/.cache/x", "x", "9.9.9");
    d.file("app/node_modules/broken/package.json", "{");
    d.file("app/node_modules/empty/README", "");
    d.package("lib/own", "own", "3.0.0");
    let at = |path: &str| d.0.join(path);
    symlink(at("lib/own"), at("app/node_modules/own")).unwrap();
    symlink(at("app"), at("app/node_modules/circle")).unwrap();
    symlink(
        "node_modules",
        at("app/node_modules/a/node_modules/node_modules"),
    )
    .unwrap();
    fs::create_dir_all(at("app/node_modules/fifo")).unwrap();
    let fifo = at("app/node_modules/fifo/package.json");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    d.file("app/package-lock.json", "not asked");
    fs::create_dir_all(at("app/src")).unwrap();
    let want = [
        "npm app/package.json app@1.0.0",
        "npm app/node_modules @s/b@2.0.0 a@1.2.3 app@1.0.0 broken@ c@0.1.0 own@3.0.0",
    ];
    assert_eq!(d.of("node", "app/src"), want);
}

#[test]
fn packages_that_cannot_be_told_are_counted_and_what_is_below_them_is_found() {
    use std::os::unix::ffi::OsStrExt;
    let d = Dir::new("untold");
    let long = format!("{{\"name\":\"long\",\"x\":\"{}\"}}", "x".repeat(600_000));
    d.file("app/package.json", &long);
    d.file("app/node_modules/long/package.json", &long);
    d.package("app/node_modules/long/node_modules/in", "in", "1.0.0");
    d.file("app/node_modules/\u{1b}[2J/package.json", "{}");
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe");
    let odd = d.0.join("app/node_modules").join(odd);
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("package.json"), "{}").unwrap();
    d.package("app/node_modules/good", "good", "2.0.0");
    let want = [
        "npm app/package.json is longer than 512K: not read",
        "npm app/node_modules good@2.0.0 in@1.0.0 +3",
    ];
    assert_eq!(d.of("node", "app"), want);
    let site = "py/.venv/lib/python3.11/site-packages";
    d.file("py/.venv/pyvenv.cfg", "");
    for name in ["flask-3.0.0.dist-info", "a\nb-1.dist-info", "bare.egg-info"] {
        d.file(&format!("{site}/{name}/METADATA"), "");
    }
    let want = [format!("python {site} flask@3.0.0 +2")];
    assert_eq!(d.of("python3.11", "py"), want);
}

#[test]
fn pnpm_keeps_them_elsewhere_and_without_any_the_lock_file_tells() {
    let d = Dir::new("pnpm");
    let store = "app/node_modules/.pnpm/a@1.0.0/node_modules";
    d.package(&format!("{store}/a"), "a", "1.0.0");
    d.package(
        "app/node_modules/.pnpm/b@2.0.0/node_modules/b",
        "b",
        "2.0.0",
    );
    symlink(
        ".pnpm/a@1.0.0/node_modules/a",
        d.0.join("app/node_modules/a"),
    )
    .unwrap();
    symlink("../../b@2.0.0/node_modules/b", d.0.join(store).join("b")).unwrap();
    let want = ["npm app/node_modules a@1.0.0 b@2.0.0"];
    assert_eq!(d.of("node", "app"), want);
    let lock = r#"{"packages":{"node_modules/z":{"version":"1.0.0"}}}"#;
    d.file("bare/package-lock.json", lock);
    d.file("bare/yarn.lock", "# yarn");
    let want = [
        "npm bare/package-lock.json z@1.0.0",
        "npm bare/yarn.lock its packages are not read",
    ];
    assert_eq!(d.of("node", "bare"), want);
    d.file("bare/package-lock.json", "nonsense");
    assert!(d.of("node", "bare")[0].ends_with("is not what its name says"));
}

#[test]
fn python_has_those_of_its_environment_and_others_what_lies_there() {
    let d = Dir::new("python");
    d.file("app/.venv/pyvenv.cfg", "home = /usr/bin\n");
    let site = "app/.venv/lib/python3.11/site-packages";
    d.file(&format!("{site}/flask-3.0.0.dist-info/METADATA"), "");
    d.file(
        "app/.venv/lib/python3.12/site-packages/no-1.dist-info/METADATA",
        "",
    );
    d.file("app/requirements.txt", "flask==3.0.0\n");
    d.file(
        "app/Cargo.lock",
        "[[package]]\nname = \"libc\"\nversion = \"0.2.1\"\n",
    );
    d.file("app/package-lock.json", "{}");
    let want = [
        "python app/requirements.txt flask@3.0.0".to_string(),
        format!("python {site} flask@3.0.0"),
    ];
    assert_eq!(d.of("bin/python3.11", "app"), want);
    assert!(d.of("sh", "app").is_empty());
    let all = d.of("server", "app");
    assert!(
        all.contains(&"rust app/Cargo.lock libc@0.2.1".to_string()),
        "{all:?}"
    );
    assert!(!all.iter().any(|s| s.contains(".venv")), "{all:?}");
    assert_eq!(d.of("ruby3.1", "app"), Vec::<String>::new());
}
