//! What the workers are made of: told by the verb and over HTTP, once for those that are made of the same,
//! with what was replaced on disk first.

use crate::birth;
use crate::harness::Rig;
use crate::house::house_of;
use crate::place::{free_port, python, shim};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use tinyjson::JsonValue;

fn text(v: &JsonValue) -> String {
    v.get::<String>().unwrap().clone()
}

fn list(v: &JsonValue) -> &Vec<JsonValue> {
    v.get().unwrap()
}

fn numbers(v: &JsonValue) -> Vec<i64> {
    let number = |v: &JsonValue| *v.get::<f64>().unwrap() as i64;
    list(v).iter().map(number).collect()
}

/// What the verb says, which may be more than a pipe holds.
fn told(rig: &Rig, words: &str) -> String {
    let mut cmd = rig.command();
    cmd.arg("-C").arg(rig.socket());
    cmd.stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = cmd.args(words.split(' ')).output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    String::from_utf8(done.stdout).unwrap()
}

fn deps(rig: &Rig) -> JsonValue {
    told(rig, "deps --json").parse().unwrap()
}

/// What readelf has for the build id of a file.
fn build_id(file: &Path) -> String {
    let said = Command::new("readelf")
        .arg("-n")
        .arg(file)
        .output()
        .unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let mut ids = said.lines().filter_map(|l| l.split_once("Build ID: "));
    ids.next().unwrap().1.trim().to_string()
}

/// Writes a file, and the directories on the way.
fn file(dir: &Path, path: &str, text: &str) {
    let at = dir.join(path);
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::write(at, text).unwrap();
}

fn package(dir: &Path, path: &str, name: &str, version: &str) {
    let text = format!("{{\"name\":\"{name}\",\"version\":\"{version}\"}}");
    file(dir, &format!("{path}/package.json"), &text);
}

/// The packages of the source that has such a path.
fn packages(v: &JsonValue, end: &str) -> Vec<String> {
    let all = list(&v["packages"]).iter();
    let mut hits = all.filter(|s| text(&s["path"]).ends_with(end));
    let hit = hits.next().unwrap_or_else(|| panic!("no {end} in {v:?}"));
    list(&hit["packages"]).iter().map(text).collect()
}

#[test]
fn a_node_server_is_made_of_node_its_objects_and_what_is_installed() {
    let port = free_port();
    let mut rig = Rig::dressed(format!("-n 2 -p {port} -- node app/server.js"), |_, dir| {
        file(dir, "app/server.js", "require('../selecting.js')");
        package(dir, "app", "tiny", "1.0.0");
        package(dir, "app/node_modules/a", "a", "1.2.3");
        package(dir, "app/node_modules/a/node_modules/c", "c", "0.1.0");
        package(dir, "app/node_modules/@s/b", "@s/b", "2.0.0");
    });
    rig.up();
    let dir = rig.dir().canonicalize().unwrap();
    let all = deps(&rig);
    assert_eq!(list(&all["groups"]).len(), 1, "{all:?}");
    let one = &all["groups"][0];
    assert_eq!(numbers(&one["slots"]), [0, 1]);
    let pids: Vec<i64> = rig.status().pids().into_iter().map(i64::from).collect();
    assert_eq!(numbers(&one["pids"]), pids);
    let exe = fs::canonicalize(format!("/proc/{}/exe", pids[0])).unwrap();
    assert_eq!(Path::new(&text(&one["executable"]["path"])), exe);
    assert_eq!(text(&one["executable"]["build_id"]), build_id(&exe));
    assert_eq!(
        text(&one["script"]["path"]),
        dir.join("app/server.js").to_str().unwrap()
    );
    let libc = list(&one["objects"]).iter();
    let libc = libc
        .map(|o| (text(&o["path"]), o))
        .find(|(path, _)| path.contains("libc.so"));
    let (path, libc) = libc.unwrap();
    assert_eq!(text(&libc["build_id"]), build_id(Path::new(&path)));
    assert_eq!(packages(&all, "app/package.json"), ["tiny@1.0.0"]);
    let installed = ["@s/b@2.0.0", "a@1.2.3", "c@0.1.0"];
    assert_eq!(packages(&all, "app/node_modules"), installed);
    assert_eq!(one["stale"].get::<bool>(), Some(&false));
    // As people read it; of one slot.
    let said = rig.verb("deps 1");
    assert_eq!(said.code, 0, "{said:?}");
    assert!(
        said.out.starts_with("slot 1 generation 1: pid "),
        "{said:?}"
    );
    assert!(said.out.contains("\n    @s/b 2.0.0\n"), "{said:?}");
    let said = rig.verb("deps 2");
    assert_eq!(
        (said.code, said.err.as_str()),
        (64, "minicluster: '2' is not a slot from 0 to 1\n")
    );
    // An upgrade of a package is one that the workers do not have. (What lies in it beside its package.json is
    // not looked at.)
    file(&dir, "app/node_modules/a/index.js", "");
    assert_eq!(deps(&rig)["groups"][0]["stale"].get::<bool>(), Some(&false));
    package(&dir, "app/node_modules/a", "a", "1.2.4");
    let all = deps(&rig);
    assert!(packages(&all, "app/node_modules").contains(&"a@1.2.4".to_string()));
    assert_eq!(all["groups"][0]["stale"].get::<bool>(), Some(&true));
    let said = told(&rig, "deps");
    assert!(
        said.starts_with("not what is on disk now, where a restart looks:\n"),
        "{said}"
    );
    assert!(said.contains("app/node_modules changed since\n"), "{said}");
    assert_eq!(rig.verb("reload").code, 0);
    assert_eq!(deps(&rig)["groups"][0]["stale"].get::<bool>(), Some(&false));
    rig.end(&[]);
}

/// Copies by another process: a file that a fork of ours has open for writing cannot be executed.
fn copy(dir: &Path, from: &Path, to: &str) {
    let mut cp = Command::new("cp");
    let done = cp.arg("-L").arg(from).arg(to).current_dir(dir).status();
    assert!(done.unwrap().success());
}

#[test]
fn what_was_replaced_on_disk_is_told_and_during_a_deploy_who_runs_what() {
    let port = free_port();
    let words = format!("-n 2 -p {port} --canary 1:100s --env LD_PRELOAD=./lib.so -- ./server");
    let mut rig = Rig::dressed(words, |_, dir| {
        copy(dir, Path::new("threaded"), "server");
        copy(dir, shim(), "lib.so");
        let lock = "[[package]]\nname = \"libc\"\nversion = \"0.2.1\"\n";
        file(dir, "Cargo.lock", lock);
    });
    rig.up();
    let dir = rig.dir().canonicalize().unwrap();
    let all = deps(&rig);
    let one = &all["groups"][0];
    assert_eq!(list(&all["groups"]).len(), 1, "{all:?}");
    assert_eq!(one["stale"].get::<bool>(), Some(&false), "{all:?}");
    let id = build_id(&dir.join("server"));
    assert_eq!(text(&one["executable"]["build_id"]), id);
    assert_eq!(packages(&all, "Cargo.lock"), ["libc@0.2.1"]);
    // As a package manager does it: a new file takes the name.
    for name in ["server", "lib.so"] {
        copy(&dir, Path::new(name), "new");
        fs::rename(dir.join("new"), dir.join(name)).unwrap();
    }
    let state = |one: &JsonValue| {
        let objects = list(&one["objects"]).iter();
        let mut hits = objects.filter(|o| text(&o["path"]).ends_with("/lib.so"));
        let lib = text(&hits.next().unwrap()["state"]);
        (text(&one["executable"]["state"]), lib)
    };
    let both = |word: &str| (word.to_string(), word.to_string());
    let all = deps(&rig);
    assert_eq!(state(&all["groups"][0]), both("replaced"));
    // It is what runs that has that id, whatever lies there.
    assert_eq!(text(&all["groups"][0]["executable"]["build_id"]), id);
    let said = told(&rig, "deps");
    let first: Vec<&str> = said.lines().take(3).collect();
    let server = dir.join("server");
    let line = format!("  slots 0 1 generation 1: {} replaced", server.display());
    assert_eq!(first[1], line, "{said}");
    assert!(first[2].ends_with("/lib.so replaced"), "{said}");
    // While the first new worker is watched both are there.
    let asked = rig.meanwhile("reload");
    let new = rig.wait("forked", |_| true).pid();
    rig.wait("ready", |e| e.pid() == new);
    let all = deps(&rig);
    let groups = list(&all["groups"]);
    let told: Vec<_> = groups
        .iter()
        .map(|g| (g["generation"].get::<f64>().copied(), state(g)))
        .collect();
    let want = [(Some(1.0), both("replaced")), (Some(2.0), both("present"))];
    assert_eq!(told, want, "{all:?}");
    assert_eq!(numbers(&groups[0]["slots"]), [0, 1]);
    assert_eq!(numbers(&groups[1]["slots"]), [0]);
    assert_eq!(rig.verb("rollback").code, 0);
    assert_eq!(asked.join().unwrap().code, 1);
    fs::remove_file(server).unwrap();
    assert_eq!(state(&deps(&rig)["groups"][0]).0, "deleted");
    rig.end(&["reload-failed"]);
}

#[test]
fn a_python_server_has_its_environment_and_over_tcp_that_takes_the_key() {
    let h = {
        let command = format!("{} blocking.py", python());
        house_of(1, "", &command)
    };
    let dir = h.rig.dir().canonicalize().unwrap();
    file(&dir, ".venv/pyvenv.cfg", "home = /usr/bin\n");
    let site = ".venv/lib/python3/site-packages";
    file(&dir, &format!("{site}/flask-3.0.0.dist-info/METADATA"), "");
    file(
        &dir,
        "requirements.txt",
        "flask==3.0.0\n--index-url https://u:secret@h/\n",
    );
    assert_eq!(h.asks("GET /deps").status, 401);
    let told = h.opens("GET /deps", "");
    assert_eq!(told.status, 200, "{told:?}");
    assert_eq!(told.header("Content-Type"), Some("application/json"));
    assert!(!told.body.contains("secret"), "{told:?}");
    let all = told.json();
    let one = &all["groups"][0];
    let exe = text(&one["executable"]["path"]);
    assert_eq!(
        text(&one["executable"]["build_id"]),
        build_id(Path::new(&exe))
    );
    assert!(text(&one["script"]["path"]).ends_with("/blocking.py"));
    assert_eq!(packages(&all, site), ["flask@3.0.0"]);
    assert_eq!(packages(&all, "requirements.txt"), ["flask@3.0.0"]);
    // The same by the control socket, of one slot, and as cluster-service has verbs.
    assert_eq!(h.inside("GET /deps?slot=0", "").status, 200);
    let wrong = h.inside("GET /deps?slot=9", "");
    assert_eq!(wrong.status, 400);
    assert_eq!(
        text(&wrong.json()["error"]),
        "'9' is not a slot from 0 to 0"
    );
    let cli = h.opens("POST /cli?cmd=deps+0", "");
    assert_eq!(numbers(&cli.json()["groups"][0]["slots"]), [0]);
    assert_eq!(h.opens("POST /deps", "").status, 405);
    h.rig.end(&["request-refused"]);
}

#[test]
fn whatever_lies_there_the_answer_is_whole_and_has_its_limits() {
    let port = free_port();
    let mut rig = Rig::dressed(format!("-n 1 -p {port} -- ./threaded"), |_, dir| {
        let mut lock = String::from("{\"packages\":{");
        for n in 0..20_003 {
            lock.push_str(&format!(
                "\"node_modules/p{n}\":{{\"version\":\"1.0.{n}\"}},"
            ));
        }
        file(dir, "package-lock.json", &(lock + "\"\":{}}}"));
        file(dir, "Cargo.lock", "\u{0}\u{1b}[2J");
        symlink("/dev/zero", dir.join("composer.lock")).unwrap();
        symlink("Pipfile.lock", dir.join("Pipfile.lock")).unwrap();
        let fifo = dir.join("poetry.lock");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let huge = fs::File::create(dir.join("Gemfile.lock")).unwrap();
        huge.set_len(1 << 40).unwrap();
    });
    rig.up();
    let all = deps(&rig);
    assert_eq!(packages(&all, "package-lock.json").len(), 20_000);
    let sources = list(&all["packages"]);
    let by = |end: &str| sources.iter().find(|s| text(&s["path"]).ends_with(end));
    let left_out = &by("package-lock.json").unwrap()["left_out"];
    assert_eq!(left_out.get::<f64>(), Some(&3.0));
    assert_eq!(all["left_out"].get::<f64>(), Some(&3.0));
    let error = |end: &str| text(&by(end).unwrap()["error"]);
    assert_eq!(error("Cargo.lock"), "is not what its name says");
    assert_eq!(error("Gemfile.lock"), "is longer than 16M: not read");
    for none in ["composer.lock", "Pipfile.lock", "poetry.lock"] {
        assert!(by(none).is_none(), "{none}");
    }
    let said = told(&rig, "deps");
    assert!(said.contains("\n    p19999 1.0.19999\n"));
    assert!(said.contains("    and 3 more\n"));
    rig.end(&[]);
}

#[test]
fn nothing_is_read_that_the_worker_could_not_read() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --user 4242 --group 4242 -- ./threaded");
    let mut rig = Rig::over_nobody("", words, |_, dir| {
        package(dir, "hidden", "secret", "1.0.0");
        package(dir, "node_modules/open", "open", "2.0.0");
        // The worker may put a link to whatever it likes there.
        symlink(dir.join("hidden"), dir.join("node_modules/link")).unwrap();
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(dir.join("hidden"), mode).unwrap();
    });
    rig.up();
    let all = deps(&rig);
    assert!(list(&all["unseen"]).is_empty(), "{all:?}");
    assert_eq!(packages(&all, "node_modules"), ["open@2.0.0"]);
    rig.end(&[]);
}

#[test]
fn a_worker_with_mounts_of_its_own_has_what_lies_there() {
    let own = birth::namespaces("-m");
    let words = format!("-n 1 --ready started -- unshare {own} sh mount.sh");
    let mut rig = Rig::dressed(words, |_, dir| {
        let script = "set -e; mkdir -p app; mount -t tmpfs none app; cd app
            mkdir -p node_modules/there; echo '{\"name\":\"there\",\"version\":\"1.0.0\"}' \
            >node_modules/there/package.json; cp -L ../threaded .; echo mounted >&2; exec ./threaded --never-listen";
        file(dir, "mount.sh", script);
        package(dir, "app/node_modules/hidden", "hidden", "9.9.9");
    });
    rig.up();
    // In the turn in which it was said the shell may not have become the server yet.
    rig.wait_line("mounted");
    let mut all = deps(&rig);
    rig.until("the server runs", || {
        all = deps(&rig);
        let groups = list(&all["groups"]).iter();
        let mut paths = groups.map(|g| text(&g["executable"]["path"]));
        paths.any(|path| path.ends_with("/app/threaded"))
    });
    let one = &all["groups"][0];
    assert_eq!(one["other_root"].get::<bool>(), Some(&true));
    assert_eq!(text(&one["executable"]["state"]), "present", "{all:?}");
    assert_eq!(packages(&all, "app/node_modules"), ["there@1.0.0"]);
    rig.end(&[]);
}

#[test]
fn one_that_may_not_be_looked_at_is_told_with_the_reason() {
    // Whoever executes what it may not read is hidden from all but who may trace it.
    let words = "-n 1 --ready started --drain none --user 4242 --group 4242 -- ./server 1000";
    let without = "setpriv --bounding-set=-sys_ptrace --inh-caps=-sys_ptrace";
    let mut rig = Rig::over_nobody(without, words, |_, dir| {
        copy(dir, Path::new("/bin/sleep"), "server");
        let mode = fs::Permissions::from_mode(0o711);
        fs::set_permissions(dir.join("server"), mode).unwrap();
    });
    rig.up();
    let all = deps(&rig);
    assert!(list(&all["groups"]).is_empty(), "{all:?}");
    let why = text(&all["unseen"][0]["reason"]);
    let want = "Permission denied: it is user 4242's, and the master has no CAP_SYS_PTRACE";
    assert_eq!(why, want);
    let line = told(&rig, "deps");
    assert!(
        line.starts_with("slot 0 pid ") && line.contains(want),
        "{line}"
    );
    rig.end(&[]);
}
