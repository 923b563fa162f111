//! Who reads what workers have written: by a verb, as it comes, and over HTTP, where nothing else can be had.

use crate::birth;
use crate::client::v4;
use crate::console::{Screen, Typist};
use crate::harness::{Rig, Words};
use crate::house::{House, KEY, connect, exchange, key_file, request};
use crate::logs::{dressed, log, tell, text, wait_text, writers};
use crate::place::free_port;
use crate::proc;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::process::Stdio;
use tinyjson::JsonValue;

#[test]
fn the_last_lines_of_one_or_all_and_what_comes_from_then_on() {
    let rig = writers(2, "");
    for slot in 0..2 {
        tell(&rig, slot, "for n in 1 2 3; do echo line $n; done");
        wait_text(&rig, &format!("w.{slot}.log"), "line 3\n");
    }
    let said = rig.verb("logs lines 2");
    assert_eq!(said.out, "0: line 2\n0: line 3\n1: line 2\n1: line 3\n");
    assert_eq!(
        rig.verb("logs 1").out,
        "out 1\nerr 1\nline 1\nline 2\nline 3\n"
    );
    let json = rig.verb("logs 0 lines 1 --json").out;
    let v: JsonValue = json.trim_end().parse().unwrap();
    assert_eq!(v["line"].get::<String>().unwrap(), "line 3");
    for (words, why) in [
        ("logs 7", "not a slot from 0 to 1"),
        ("logs lines 0", "1 to 1000"),
    ] {
        let said = rig.verb(words);
        assert_eq!(said.code, 64, "{said:?}");
        assert!(said.err.contains(why), "{said:?}");
    }
    // One line that was kept, and those to come; of one slot, and of all.
    let mut one = Typist::on(&rig.socket());
    one.types("logs 0 lines 1 follow");
    assert_eq!(one.reads(), "line 3");
    let mut all = Typist::on(&rig.socket());
    all.types("logs lines 1 follow");
    assert_eq!([all.reads(), all.reads()], ["0: line 3", "1: line 3"]);
    let mut client = rig.command();
    client
        .arg("-C")
        .arg(rig.socket())
        .args("logs 1 lines 1 follow".words());
    let mut client = client.stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut prints = || printed.next().unwrap().unwrap();
    assert_eq!(prints(), "line 3");
    tell(&rig, 1, "echo of one");
    assert_eq!(all.reads(), "1: of one");
    tell(&rig, 0, "echo of zero");
    assert_eq!(one.reads(), "of zero");
    assert_eq!(all.reads(), "0: of zero");
    // A console asks for other things besides, and says when it is enough.
    all.types("size");
    assert_eq!(all.reads(), "2");
    all.types("logs off");
    all.types("size");
    assert_eq!(all.reads(), "2");
    tell(&rig, 1, "echo unheard");
    tell(&rig, 0, "echo heard");
    assert_eq!(one.reads(), "heard");
    all.types("size");
    assert_eq!(all.reads(), "2");
    assert_eq!([prints(), prints()], ["of one", "unheard"]);
    rig.until("the master rests", || proc::rests(rig.pid()));
    rig.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(client.wait().unwrap().success());
    rig.finish(0, &[]);
}

#[test]
fn what_clients_put_into_a_log_does_not_drive_the_terminal_of_who_reads_it() {
    let rig = writers(1, "");
    let line = |n: usize| format!(r"printf '\033[2J\033[31m{n}\033]0;x\007\n'");
    let raw = |n: usize| format!("\u{1b}[2J\u{1b}[31m{n}\u{1b}]0;x\u{7}\n");
    let tame = |n: usize| format!("?[2J\u{1b}[31m{n}?]0;x?\u{1b}[0m\r\n");
    tell(&rig, 0, &line(1));
    wait_text(&rig, "w.0.log", &raw(1));
    let on_terminal = |words: &str| {
        let (far, near) = birth::open_terminal();
        let mut cmd = rig.command();
        cmd.arg("-C").arg(rig.socket()).args(words.words());
        let (i, o) = (near.try_clone().unwrap(), near.try_clone().unwrap());
        birth::on_terminal(&mut cmd, near);
        (cmd.stdin(i).stdout(o).spawn().unwrap(), Screen::of(far))
    };
    let (follows, mut screen) = on_terminal("logs 0 lines 1 follow");
    assert_eq!(screen.until("\r\n"), tame(1));
    let (console, mut typed) = on_terminal("console");
    typed.until("> ");
    typed.types("logs 0 lines 1 follow");
    typed.until(&tame(1));
    tell(&rig, 0, &line(2));
    assert_eq!(screen.until("\r\n"), tame(2));
    typed.until(&tame(2));
    let (mut reads, mut once) = on_terminal("logs 0 lines 1");
    assert_eq!(once.until("\r\n"), tame(2));
    assert!(reads.wait().unwrap().success());
    // Elsewhere it is what was written.
    assert_eq!(rig.verb("logs 0 lines 1").out, raw(2));
    rig.signal(nix::sys::signal::Signal::SIGTERM);
    for mut child in [follows, console] {
        assert!(child.wait().unwrap().success());
    }
    rig.finish(0, &[]);
}

#[test]
fn who_follows_and_does_not_read_is_told_what_it_has_missed_and_holds_nobody_up() {
    let rig = writers(1, "--log-merge");
    let mut t = Typist::on(&rig.socket());
    t.types("logs 0 lines 1 follow");
    // It follows from here on, whether this was there before or is the first that comes.
    tell(&rig, 0, "echo first");
    while t.reads() != "first" {}
    let n = 200_000;
    tell(&rig, 0, &format!("seq -f 'number %.0f' {n}; touch written"));
    rig.until("all of it is written", || {
        rig.dir().join("written").exists()
    });
    wait_text(&rig, "w.log", &format!("number {n}\n"));
    let (mut seen, mut missed) = (0, 0);
    loop {
        let line = t.reads();
        if let Some(rest) = line.strip_prefix("minicluster: ") {
            missed += rest.split(' ').next().unwrap().parse::<usize>().unwrap();
            // It has read all there was: what comes now is all there.
            tell(&rig, 0, "echo end");
        } else if line == "end" {
            break;
        } else {
            seen += usize::from(line.starts_with("number "));
        }
    }
    assert!(missed > 0, "{seen} seen");
    assert_eq!(seen + missed, n, "{seen} and {missed}");
    rig.end(&[]);
}

#[test]
fn without_a_directory_there_is_nothing_to_show() {
    let mut rig = Rig::start("-n 1 --ready started -- sleep 1000");
    rig.up();
    let said = rig.verb("logs");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("--log-dir"), "{said:?}");
    rig.end(&[]);
}

/// Writers with a monitor and a key.
fn house() -> House {
    let monitor = free_port();
    let words = format!(
        "-n 1 --name w --ready started --log-dir logs --monitor {monitor} --key-file key -- ./writer"
    );
    let mut rig = Rig::dressed(words, |_, dir| {
        key_file(dir, 0o600, KEY);
        dressed(dir, 1);
    });
    rig.up();
    wait_text(&rig, "w.0.log", "err 0\n");
    House {
        rig,
        port: 0,
        monitor: v4(monitor),
    }
}

fn with_key(more: &str) -> String {
    format!("Authorization: Bearer {KEY}\r\n{more}")
}

#[test]
fn files_are_listed_and_sent_over_http_whole_or_in_part() {
    let house = house();
    let list = house.opens("GET /logs", "");
    assert_eq!(list.status, 200, "{list:?}");
    let v = list.json();
    assert_eq!(v[0]["file"].get::<String>().unwrap(), "w.0.log");
    assert_eq!(v[0]["size"].get::<f64>(), Some(&12.0));
    let page = house.raw("GET /logs", &with_key("Accept: text/html,*/*\r\n"), "");
    assert!(
        page.header("Content-Type")
            .unwrap()
            .starts_with("text/html")
    );
    let policy = page.header("Content-Security-Policy").unwrap();
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(
        page.body.contains("<a href=\"/logs/w.0.log\">w.0.log</a>"),
        "{page:?}"
    );
    let ask = |line: &str, more: &str| house.raw(line, &with_key(more), "");
    let all = ask("GET /logs/w.0.log", "");
    assert_eq!((all.status, all.body.as_str()), (200, "out 0\nerr 0\n"));
    assert_eq!(
        all.header("Content-Type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(all.header("Accept-Ranges"), Some("bytes"));
    for (range, status, body, said) in [
        ("bytes=0-2", 206, "out", Some("bytes 0-2/12")),
        ("bytes=-6", 206, "err 0\n", Some("bytes 6-11/12")),
        (
            "bytes=12-",
            416,
            "w.0.log has 12 bytes\n",
            Some("bytes */12"),
        ),
        ("bytes=x", 200, "out 0\nerr 0\n", None),
    ] {
        let part = ask("GET /logs/w.0.log", &format!("Range: {range}\r\n"));
        assert_eq!((part.status, part.body.as_str()), (status, body), "{range}");
        assert_eq!(part.header("Content-Range"), said);
        assert_eq!(
            part.header("Content-Length").unwrap(),
            body.len().to_string()
        );
    }
    let head = ask("HEAD /logs/w.0.log", "");
    assert_eq!(
        (head.header("Content-Length"), head.body.as_str()),
        (Some("12"), "")
    );
    // One that is long goes in portions, the next request behind it, and says no more meanwhile.
    let long = "0123456789abcde\n".repeat(512 * 1024);
    fs::write(log(&house.rig, "long.log"), &long).unwrap();
    let mut stream = connect(house.monitor);
    let get = |path: &str, end: &str| {
        let text = request(&format!("GET {path}"), &with_key(""), "");
        text.replace("Connection: close\r\n", end)
    };
    stream
        .write_all(get("/logs/long.log", "").as_bytes())
        .unwrap();
    stream
        .write_all(get("/live", "Connection: close\r\n").as_bytes())
        .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    house.rig.until("the master waits for who reads", || {
        proc::sleeps(house.rig.pid())
    });
    let memory = proc::resident(house.rig.pid());
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let got = String::from_utf8(bytes).unwrap();
    let (first, rest) = got.split_once("\r\n\r\n").unwrap();
    assert!(
        first.contains(&format!("Content-Length: {}", long.len())),
        "{first}"
    );
    assert!(rest.starts_with(&long));
    assert!(rest[long.len()..].ends_with("live\n"));
    assert!(memory < 20 * 1024, "{memory} KiB");
    // One that is emptied meanwhile ends early, and so does the connection; one that grows ends where it did.
    let mut stream = connect(house.monitor);
    stream
        .write_all(get("/logs/long.log", "").as_bytes())
        .unwrap();
    let mut one = [0; 64];
    stream.read_exact(&mut one).unwrap();
    let file = OpenOptions::new()
        .write(true)
        .open(log(&house.rig, "long.log"))
        .unwrap();
    file.set_len(0).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() < long.len());
    // So it is on the control socket; and over TCP it takes the key.
    assert_eq!(house.inside("GET /logs/w.0.log", "").body, "out 0\nerr 0\n");
    for path in ["/logs", "/logs/w.0.log"] {
        assert_eq!(house.asks(&format!("GET {path}")).status, 401);
    }
    let cli = house.opens("POST /cli?cmd=logs%200%20lines%201", "");
    assert!(cli.body.contains("err 0"), "{cli:?}");
    assert_eq!(house.opens("POST /cli?cmd=logs%20follow", "").status, 400);
    house.rig.end(&["request-refused"]);
}

#[test]
fn there_is_no_way_out_of_the_directory() {
    let house = house();
    let logs = house.rig.dir().join("logs");
    fs::create_dir(logs.join("sub")).unwrap();
    fs::write(logs.join("sub/inner"), KEY).unwrap();
    symlink("../key", logs.join("link")).unwrap();
    symlink("..", logs.join("up")).unwrap();
    nix::unistd::mkfifo(&logs.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let list = house.opens("GET /logs", "").body;
    assert!(list.matches("\"file\"").count() == 1, "{list}");
    for name in [
        "../key",
        "..%2fkey",
        "%2e%2e/key",
        "..%2Fkey",
        "%2e%2e%2fkey",
        "..",
        ".",
        "",
        "./w.0.log",
        "link",
        "up/key",
        "up",
        "fifo",
        "sub",
        "sub/inner",
        "sub/",
        "/etc/passwd",
        "//etc/passwd",
        "w.0.log/",
        "w.0.log%00",
        "..\\key",
        "w.0.log/../../key",
        "%252e%252e/key",
        "nothing",
        "..%c0%af..%c0%afkey",
    ] {
        let got = house.opens(&format!("GET /logs/{name}"), "");
        assert!(got.status == 404 || got.status == 400, "{name}: {got:?}");
        assert!(
            !got.body.contains(KEY) && !got.body.contains("root:"),
            "{name}: {got:?}"
        );
    }
    let got = exchange(
        connect(house.monitor),
        &request("GET http://localhost/logs/../key", &with_key(""), ""),
    );
    assert_eq!(got.status, 404, "{got:?}");
    assert_eq!(text(&logs.join("w.0.log")), "out 0\nerr 0\n");
    house.rig.end(&["request-refused"]);
}

#[test]
fn what_somebody_puts_in_place_of_the_directory_is_neither_written_nor_shown() {
    let mut house = house();
    let (dir, logs) = (house.rig.dir().to_path_buf(), house.rig.dir().join("logs"));
    fs::create_dir(dir.join("secrets")).unwrap();
    fs::write(dir.join("secrets/password"), KEY).unwrap();
    fs::rename(&logs, dir.join("aside")).unwrap();
    symlink("secrets", &logs).unwrap();
    let said = house.rig.verb("reopen");
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.err.contains("a symbolic link stands in"), "{said:?}");
    // The next worker, which has its file opened anew.
    tell(&house.rig, 0, "kill -9 $$");
    house.rig.wait("died", |_| true);
    let written = || text(&dir.join("aside/w.0.log")).matches("err 0").count() == 2;
    house.rig.until("the old one is written", written);
    assert_eq!(house.opens("GET /logs/password", "").status, 404);
    assert_eq!(
        house
            .opens("GET /logs", "")
            .body
            .matches("\"file\"")
            .count(),
        1
    );
    // Where the old one has gone there is none, and that is said.
    fs::remove_dir_all(dir.join("aside")).unwrap();
    tell(&house.rig, 0, "kill -9 $$");
    let failed = house.rig.wait("log-failed", |_| true);
    assert!(failed.msg.contains("symbolic link"), "{}", failed.msg);
    assert_eq!(fs::read_dir(dir.join("secrets")).unwrap().count(), 1);
    // It is made anew when its place is free.
    fs::remove_file(&logs).unwrap();
    let again = || {
        tell(&house.rig, 0, "echo again");
        text(&logs.join("w.0.log")).contains("\nagain\n")
    };
    house.rig.until("it is written again", again);
    let expected = ["reopen-failed", "died", "log-failed", "log-lost"];
    house.rig.end(&expected);
}
