//! What --print-unit prints is given to those who read it: systemd's own tool, a shell as init, and, where
//! `make test-servers` has fetched them, linters and a builder of images.

use crate::birth;
use crate::client::{get, v4};
use crate::harness::Words;
use crate::place::{BINARY, LOOK, Place, Said, forker, free_port, run, script, static_binary};
use crate::proc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tinyjson::JsonValue;

fn patience() -> Instant {
    Instant::now() + Duration::from_secs(120)
}

/// What is printed for that line.
fn printed(place: &Place, kind: &str, words: impl Words) -> String {
    let mut cmd = place.command();
    cmd.args(["--print-unit", kind]).args(words.words());
    let said = run(cmd, patience());
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    said.out
}

#[test]
fn systemd_has_nothing_to_say_against_a_unit_and_does_against_a_wrong_one() {
    let place = Place::new();
    let verify = |text: &str| {
        fs::write(place.dir.join("app.service"), text).unwrap();
        let mut cmd = Command::new("systemd-analyze");
        cmd.args(["verify", "--man=no", "app.service"])
            .current_dir(&place.dir);
        let said = run(cmd, patience());
        (said.code, said.out + &said.err)
    };
    let odd = [
        "-p",
        "80",
        "--",
        "./threaded",
        "a b",
        "$HOME",
        "100%",
        "\"",
        ";",
        "\\",
    ];
    let lines = [
        "-n 4 -p 3000 -- ./threaded".words(),
        "-C off --start-timeout 0 -- sh -c true".words(),
        "-d --user 1 --log-dir /usr/local/log --env A=secret -p 3000 -H 127.0.0.2 -- ./threaded"
            .words(),
        odd.words(),
    ];
    for line in lines {
        let text = printed(&place, "systemd", line);
        let (code, said) = verify(&text);
        assert_eq!((code, said.as_str()), (0, ""), "{text}");
    }
    let wrong = printed(&place, "systemd", "-- ./threaded").replace("KillMode=", "KilMode=");
    assert!(verify(&wrong).1.contains("KilMode"));
    assert!(proc::marked(&place.mark).is_empty(), "nothing is started");
}

/// Words in which some reader finds more than there is.
const ODD: [&str; 26] = [
    "",
    " ",
    "a b",
    "$HOME",
    "${HOME}",
    "$$",
    "$(HOME)",
    "100%",
    "%h",
    "\"",
    "'",
    "it's",
    "\\",
    "a\\",
    "`id`",
    "#",
    ";",
    "-",
    "--x",
    "a\nb",
    "\t\r",
    "\x01\x7f",
    "\u{e9}\u{85}",
    "\u{2028}\u{feff}",
    "\u{fdd0}\u{1ffff}",
    "{slot}",
];

/// A place to start from, whose name ends in what a line of a unit goes on after.
fn odd_place(place: &Place) -> std::path::PathBuf {
    let here = place.dir.join("it's 5% of $HOME \"\\");
    fs::create_dir(&here).unwrap();
    here
}

fn printed_at(place: &Place, here: &Path, kind: &str, words: &[&str]) -> String {
    let mut cmd = place.command();
    cmd.current_dir(here)
        .args(["--print-unit", kind])
        .args(words);
    let said = run(cmd, patience());
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    said.out
}

/// The words of a command line as systemd shows it, before variables are put in.
fn shown_words(line: &str) -> Vec<String> {
    let (mut words, mut word) = (Vec::new(), Vec::new());
    let (mut bytes, mut quoted) = (line.bytes().peekable(), false);
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => quoted = !quoted,
            b' ' if !quoted => words.push(std::mem::take(&mut word)),
            b'\\' => match bytes.next().unwrap() {
                first @ b'0'..=b'3' => {
                    let rest = [bytes.next().unwrap(), bytes.next().unwrap()];
                    let all = [first, rest[0], rest[1]].map(|d| u32::from(d - b'0'));
                    word.push(u8::try_from(all[0] * 64 + all[1] * 8 + all[2]).unwrap());
                }
                b'n' => word.push(b'\n'),
                b't' => word.push(b'\t'),
                b'r' => word.push(b'\r'),
                other => word.push(other),
            },
            other => word.push(other),
        }
    }
    words.push(word);
    words
        .into_iter()
        .map(|w| String::from_utf8(w).unwrap())
        .collect()
}

#[test]
fn systemd_reads_every_word_and_path_of_a_unit_as_it_was_typed() {
    let place = Place::new();
    let here = odd_place(&place);
    let words = [
        &[
            "--log-dir",
            "/usr/a $X 5% it's",
            "-p",
            "80",
            "--",
            "/bin/true",
        ],
        &ODD[..],
    ]
    .concat();
    let text = printed_at(&place, &here, "systemd", &words);
    fs::write(place.dir.join("app.service"), &text).unwrap();
    let mut cmd = Command::new("systemd-analyze");
    cmd.args(["verify", "--man=no", "app.service"])
        .env("SYSTEMD_LOG_LEVEL", "debug")
        .current_dir(&place.dir);
    let said = run(cmd, patience());
    let all = said.out + &said.err;
    assert_eq!(said.code, 0, "{text}");
    let said_of_a_line = |l: &str| {
        let number = l.split("app.service:").nth(1);
        number.is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
    };
    assert!(
        !all.lines().any(said_of_a_line),
        "{all}
{text}"
    );
    let ours = all.split("-> Unit app.service:").nth(1).unwrap();
    let of = |head: &str| {
        let line = ours.lines().find_map(|l| l.trim_start().strip_prefix(head));
        line.unwrap_or_else(|| panic!("no {head}{text}"))
    };
    assert_eq!(of("WorkingDirectory: "), here.to_str().unwrap());
    assert_eq!(of("ReadWritePaths: "), "-/usr/a $X 5% it's");
    assert!(of("Description: ").contains("a minicluster of /bin/true"));
    let read = shown_words(of("Command Line: "));
    let at = read.iter().position(|w| w == "/bin/true").unwrap();
    // Two make one, and one alone would be a variable.
    let arrived: Vec<String> = read[at + 1..]
        .iter()
        .map(|w| {
            assert!(!w.replace("$$", "").contains('$'), "{w}");
            w.replace("$$", "$")
        })
        .collect();
    assert_eq!(arrived, ODD);
}

#[test]
fn an_init_script_passes_every_word_as_it_was_typed() {
    let place = Place::new();
    let here = odd_place(&place);
    // In our place: it does not run yet, and its words are written down.
    script(
        &place.dir,
        "spy",
        "case $3 in status) exit 3 ;; esac\nprintf '%s\\0' \"$PWD\" \"$@\" > \"$SAY\"\n",
    );
    let words = [
        &["-p", "80", "--log-dir", "a\n'b", "--", "/bin/true"],
        &ODD[..],
    ]
    .concat();
    let text = printed_at(&place, &here, "init", &words);
    let daemon = format!("DAEMON={BINARY}\n");
    assert!(text.contains(&daemon), "{text}");
    let spy = place.dir.join("master");
    fs::write(
        &spy,
        format!("#!/bin/sh\n. '{}'\n", place.dir.join("spy").display()),
    )
    .unwrap();
    let mut mode = Command::new("chmod");
    mode.arg("755").arg(&spy);
    assert_eq!(run(mode, patience()).code, 0);
    let text = text.replace(&daemon, &format!("DAEMON='{}'\n", spy.display()));
    fs::write(place.dir.join("init"), text).unwrap();
    for shell in ["sh", "bash"] {
        let said = run(
            place.command_by(&[shell.into(), "init".into(), "start".into()]),
            patience(),
        );
        assert_eq!(said.code, 0, "{said:?}");
        let said = fs::read(place.dir.join("said")).unwrap();
        let said = String::from_utf8(said).unwrap();
        let read: Vec<&str> = said.strip_suffix('\0').unwrap().split('\0').collect();
        assert_eq!(Path::new(read[0]), here);
        let dir = read.iter().position(|w| *w == "--log-dir").unwrap();
        assert_eq!(Path::new(read[dir + 1]), here.join("a\n'b"));
        let at = read.iter().position(|w| *w == "/bin/true").unwrap();
        assert_eq!(read[at + 1..], ODD);
        fs::remove_file(place.dir.join("said")).unwrap();
    }
}

/// An init script, and the master that it starts.
struct Init {
    place: Place,
    port: u16,
}

impl Init {
    fn new() -> Init {
        let (place, port) = (Place::new(), free_port());
        script(&place.dir, "app", "exec ./threaded\n");
        let line = format!("-n 2 -p {port} --canary 0 --pid-file app.pid --log-file log -- sh app");
        let text = printed(&place, "init", line);
        fs::write(place.dir.join("init"), text).unwrap();
        Init { place, port }
    }

    fn with(&self, shell: &[&str], verb: &str) -> Said {
        let words: Vec<String> = shell.iter().map(|w| w.to_string()).collect();
        // (The rig's last word, the binary, is one more that the script does not look at.)
        let mut cmd = self
            .place
            .command_by(&[&words[..], &["init".into(), verb.into()]].concat());
        cmd.current_dir(&self.place.dir);
        run(cmd, patience())
    }

    fn does(&self, verb: &str) -> i32 {
        let said = self.with(&["sh"], verb);
        eprintln!("{verb}: {said:?}");
        said.code
    }

    fn master(&self) -> i32 {
        let text = fs::read_to_string(self.place.dir.join("app.pid")).unwrap();
        text.trim().parse().unwrap()
    }
}

/// The exit codes are those of the LSB.
#[test]
fn an_init_script_starts_reloads_and_stops_a_cluster() {
    let init = Init::new();
    let mut lint = Command::new("shellcheck");
    lint.arg(init.place.dir.join("init"));
    let said = run(lint, patience());
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(init.does("status"), 3);
    assert_eq!(init.does("reload"), 7);
    assert_eq!(init.does("stop"), 0);
    assert_eq!(init.does("frobnicate"), 2);
    assert_eq!(init.does("start"), 0);
    let first = init.master();
    assert!(
        get(v4(init.port), "/").is_ok(),
        "it serves when start returns"
    );
    assert_eq!(init.does("start"), 0, "it runs already");
    assert_eq!((init.does("status"), init.master()), (0, first));
    for verb in ["reload", "force-reload"] {
        assert_eq!(init.does(verb), 0);
    }
    assert_eq!(init.master(), first);
    // New workers that are no good: the old ones serve on, and the script says that it failed.
    script(&init.place.dir, "app", "exit 3\n");
    assert_eq!(init.does("reload"), 1);
    assert!(get(v4(init.port), "/").is_ok());
    script(&init.place.dir, "app", "exec ./threaded\n");
    assert_eq!(init.does("restart"), 0);
    let second = init.master();
    assert_ne!(first, second);
    // Dead, with its pid file left.
    kill(Pid::from_raw(second), Signal::SIGKILL).unwrap();
    let gone = patience();
    while proc::alive(second) || !proc::marked(&init.place.mark).is_empty() {
        assert!(Instant::now() < gone, "its workers go with it");
        std::thread::sleep(LOOK);
    }
    assert_eq!(init.does("status"), 1);
    assert_eq!(init.does("try-restart"), 0, "it did not run");
    assert_eq!(init.does("start"), 0);
    // By another shell, for one.
    let said = init.with(&["busybox", "sh"], "status");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(init.does("stop"), 0);
    assert_eq!(init.does("status"), 3);
    assert!(proc::marked(&init.place.mark).is_empty());
    // Not installed, and not configured.
    let text = fs::read_to_string(init.place.dir.join("init")).unwrap();
    let put = |text: String| fs::write(init.place.dir.join("init"), text).unwrap();
    put(text.replace(BINARY, "/no/such/minicluster"));
    assert_eq!((init.does("start"), init.does("stop")), (5, 0));
    put(text.replace("-n 2", "-n none"));
    assert_eq!(init.does("start"), 6);
    init.place.clear();
}

#[test]
fn what_would_be_another_cluster_is_not_printed() {
    let place = Place::new();
    for (words, why) in [
        (
            "--print-unit upstart -- ./threaded",
            "none of systemd, init, containerfile, k8s",
        ),
        (
            "--print-unit systemd -l fd:3 -- ./threaded",
            "a socket unit",
        ),
        (
            "--print-unit init --single -- ./threaded",
            "--print-unit means nothing",
        ),
        ("--print-unit k8s -n 0 -- ./threaded", "1 to 1024"),
        (
            "--print-unit containerfile -- ./$HOME",
            "COPY of a Containerfile",
        ),
    ] {
        let mut cmd = place.command();
        cmd.args(words.words());
        let said = run(cmd, patience());
        assert_eq!((said.code, said.out.as_str()), (64, ""), "{said:?}");
        assert!(said.err.contains(why), "{said:?}");
    }
}

const LINTERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/linters");

fn lint(tool: &str, words: &[&str]) -> Said {
    let at = Path::new(LINTERS).join("bin").join(tool);
    assert!(at.exists(), "make test-servers fetches {tool}");
    let mut cmd = Command::new(at);
    cmd.args(words).env("PYTHONPATH", LINTERS);
    run(cmd, patience())
}

#[test]
#[ignore = "needs linters of the registry: make test-servers"]
fn heavy_linters_have_nothing_to_say_against_manifest_and_containerfile() {
    let place = Place::new();
    let path = place.dir.join("file");
    let file = path.to_str().unwrap();
    let odd = [
        "-n",
        "2",
        "--env",
        "A=b",
        "--log-dir",
        "log",
        "--",
        "node",
        "$(X)",
        "\"",
        "\u{e9}",
    ];
    let lines = || {
        [
            "-n 4 -p 3000 --name app --user app -- ./server".words(),
            "-p 80 -p 443 --monitor 9000 --max-rss 300M -- /usr/bin/python3 app.py".words(),
            odd.words(),
        ]
    };
    for line in lines() {
        let text = printed(&place, "k8s", line);
        fs::write(&path, &text).unwrap();
        let said = lint("kubernetes-validate", &["--strict", file]);
        assert_eq!(said.code, 0, "{said:?}\n{text}");
        fs::write(&path, text.replace("replicas:", "replica:")).unwrap();
        assert_ne!(lint("kubernetes-validate", &["--strict", file]).code, 0);
    }
    for line in lines() {
        let text = printed(&place, "containerfile", line);
        fs::write(&path, &text).unwrap();
        let said = lint("hadolint", &[file]);
        assert_eq!((said.code, said.out.as_str()), (0, ""), "{said:?}\n{text}");
        fs::write(&path, text.replace("ENTRYPOINT [", "ENTRYPOINTS [")).unwrap();
        assert_ne!(lint("hadolint", &[file]).code, 0);
    }
}

/// An image of what is printed is built FROM scratch, and its root is a container as far as we need one.
#[test]
#[ignore = "needs buildah: make test-servers"]
fn heavy_an_image_from_scratch_is_built_serves_is_healthy_and_stops_in_time() {
    let (place, port) = (Place::new(), free_port());
    let context = place.dir.join("context");
    fs::create_dir(&context).unwrap();
    fs::copy(static_binary(), context.join("minicluster")).unwrap();
    fs::copy(forker(), context.join("server")).unwrap();
    let line = format!("-n 2 -p {port} -- ./server");
    fs::write(
        context.join("Containerfile"),
        printed(&place, "containerfile", line),
    )
    .unwrap();
    let buildah = |words: &str| {
        let mut cmd = Command::new("buildah");
        for (option, dir) in [("--root", "root"), ("--runroot", "runroot")] {
            cmd.arg(option).arg(place.dir.join(dir));
        }
        cmd.args("--storage-driver vfs".words())
            .args(words.words())
            .current_dir(&context);
        let said = run(cmd, Instant::now() + Duration::from_secs(120));
        assert_eq!(said.code, 0, "{words}: {said:?}");
        said.out.trim().to_string()
    };
    buildah("bud --isolation chroot --format docker -t localhost/app .");
    let container = buildah("from --pull-never localhost/app");
    let root = buildah(&format!("mount {container}"));
    let config = buildah(&format!("inspect {container}"));
    let config: JsonValue = config.parse().unwrap();
    let config = &config["Docker"]["config"];
    let list = |v: &JsonValue| -> Vec<String> {
        let all: &Vec<JsonValue> = v.get().unwrap();
        all.iter()
            .map(|w| w.get::<String>().unwrap().clone())
            .collect()
    };
    assert_eq!(config["StopSignal"].get::<String>().unwrap(), "SIGTERM");
    let inside = |words: &[String]| {
        let mut cmd = Command::new("chroot");
        cmd.arg(&root).args(words).env_remove("RUNTIME_DIRECTORY");
        run(cmd, patience())
    };
    let check = list(&config["Healthcheck"]["Test"]);
    assert_eq!(check[0], "CMD");
    assert_ne!(inside(&check[1..]).code, 0, "nothing runs yet");
    let mut first = Command::new("unshare")
        .args([&birth::namespaces("-pf"), "--kill-child", "chroot", &root])
        .args(list(&config["Entrypoint"]))
        .env(
            place.mark.split_once('=').unwrap().0,
            place.mark.split_once('=').unwrap().1,
        )
        .spawn()
        .unwrap();
    let late = patience();
    while inside(&check[1..]).code != 0 || get(v4(port), "/").is_err() {
        assert!(Instant::now() < late, "it serves, and is healthy");
        std::thread::sleep(LOOK);
    }
    // The first process is the child of what has made its namespace.
    let master = proc::children(first.id() as i32)[0];
    kill(Pid::from_raw(master), Signal::SIGTERM).unwrap();
    let begun = Instant::now();
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "or it would be killed"
    );
    buildah(&format!("umount {container}"));
    place.clear();
}
