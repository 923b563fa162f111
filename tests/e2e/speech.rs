//! Workers that speak: each is ready by its own word, in whatever tongue, and not before; one that
//! has promised to say that it is well, and does not, is replaced.

use crate::client::{get, v4};
use crate::harness::{Rig, sigkill};
use crate::place::{free_port, python};
use crate::proc;
use nix::sys::signal::Signal;
use std::fs;
use tinyjson::JsonValue;

/// Two workers that are not ready before they say so, and then are.
fn by_its_word(words: &str) -> Rig {
    let mut rig = Rig::start(words);
    rig.until("both wait", || rig.tales("waits").len() == 2);
    // They serve, and are not believed to.
    let status = rig.status();
    assert_eq!((status.ready, status.wanted), (0, 2));
    assert!(rig.events("ready").is_empty());
    fs::write(rig.dir().join("go"), "").unwrap();
    rig.up();
    rig
}

#[test]
fn a_worker_is_ready_when_it_tells_systemd_so() {
    let port = free_port();
    let rig = by_its_word(&format!(
        "-n 2 -p {port} --ready ready -- python3 speech.py notify"
    ));
    assert_eq!(rig.events("said").len(), 2);
    get(v4(port), "/").unwrap();
    rig.end(&[]);
}

#[test]
fn a_worker_is_ready_when_it_writes_a_newline_to_its_descriptor() {
    let port = free_port();
    let rig = by_its_word(&format!(
        "-n 2 -p {port} --ready fd:9 -- python3 speech.py newline 9"
    ));
    get(v4(port), "/").unwrap();
    // The descriptor is closed on both sides; what is open now stays.
    rig.end(&[]);
}

#[test]
fn a_worker_is_ready_when_it_acknowledges_to_einhorn() {
    let port = free_port();
    let rig = by_its_word(&format!(
        "-n 2 -p {port} --ready ready -- python3 speech.py einhorn"
    ));
    rig.until("both are answered", || rig.tales("answered").len() == 2);
    rig.end(&[]);
}

#[test]
fn what_is_no_worker_acknowledges_nothing() {
    let mut rig = Rig::start("-n 1 --ready started -- sleep 60");
    rig.up();
    use std::io::{BufRead, BufReader, Write};
    let mut door = std::os::unix::net::UnixStream::connect(rig.socket()).unwrap();
    let pid = rig.status().pids()[0];
    let line = format!("{{\"command\":\"worker:ack\",\"pid\":{pid}}}\n");
    door.write_all(line.as_bytes()).unwrap();
    let mut answer = String::new();
    BufReader::new(&door).read_line(&mut answer).unwrap();
    assert!(answer.contains("no worker of this cluster"), "{answer}");
    drop(door);
    rig.end(&[]);
}

#[test]
fn a_node_worker_is_ready_when_it_sends_so_and_is_told_to_disconnect() {
    for word in ["'ready'", "{cmd: 'ready'}"] {
        let port = free_port();
        let server = format!(
            "const say = e => require('fs').appendFileSync(process.env.SAY, `${{e}} ${{process.pid}}\\n`); \
             process.on('message', m => {{ if (m.cmd === 'disconnect') say('told'); }}); \
             process.on('disconnect', () => say('disconnected')); \
             process.on('SIGTERM', () => server.close()); \
             const server = require('http').createServer((q, r) => r.end('PID 1 SLOT 1')); \
             server.listen(process.env.PORT, () => {{ say('waits'); \
             const t = setInterval(() => {{ if (require('fs').existsSync('go')) {{ clearInterval(t); process.send({word}); }} }}, 5); }})"
        );
        let p = port.to_string();
        let words = [
            "-n", "2", "-p", &p, "--ready", "ready", "--", "node", "-e", &server,
        ];
        let mut rig = Rig::start(words);
        rig.until("both wait", || rig.tales("waits").len() == 2);
        assert_eq!(rig.status().ready, 0);
        fs::write(rig.dir().join("go"), "").unwrap();
        rig.up();
        get(v4(port), "/").unwrap();
        // It has a message listener, so it ends only because the channel is closed.
        rig.signal(nix::sys::signal::Signal::SIGTERM);
        rig.until("both are told", || {
            rig.tales("told").len() == 2 && rig.tales("disconnected").len() == 2
        });
        rig.finish(0, &[]);
    }
}

#[test]
fn a_program_that_is_not_node_has_no_channel_unless_it_is_given_one() {
    for (ipc, there) in [("", false), ("--ipc node", true)] {
        let port = free_port();
        let mut rig = Rig::start(format!("-n 1 -p {port} {ipc} -- ./threaded --env"));
        rig.up();
        let report = get(v4(port), "/env").unwrap();
        assert_eq!(report.env("NODE_CHANNEL_FD").is_some(), there);
        assert!(report.env("NOTIFY_SOCKET").unwrap().starts_with('@'));
        assert_eq!(report.env("WATCHDOG_USEC"), None);
        rig.end(&[]);
    }
}

#[test]
fn server_starters_variable_names_the_sockets() {
    let (a, b) = (free_port(), free_port());
    let mut rig = Rig::start(format!(
        "-n 2 -p {a} -l tcp://[::1]:{b} -- python3 speech.py starter"
    ));
    rig.up();
    get(v4(a), "/").unwrap();
    get(crate::client::v6(b), "/").unwrap();
    rig.end(&[]);
}

#[test]
fn a_worker_that_stops_saying_that_it_is_well_is_aborted_and_replaced() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 1 -p {port} --ready ready --watchdog 2s -- python3 speech.py pulse 3"
    ));
    fs::write(rig.dir().join("go"), "").unwrap();
    let first = rig.wait("ready", |_| true).pid();
    assert_eq!(rig.wait("hangs", |_| true).pid(), first);
    // It was well until then: three times, half a second apart.
    assert_eq!(rig.tales("hangs")[0].0, first);
    let died = rig.wait("died", |_| true);
    assert_eq!((died.pid(), died.text("reason")), (first, "hang"));
    assert_eq!(rig.tales("aborted")[0].0, first);
    let second = rig.wait("ready", |_| true).pid();
    assert_ne!(second, first);
    rig.signal(nix::sys::signal::Signal::SIGTERM);
    rig.finish(0, &["hangs", "died"]);
}

#[test]
fn a_master_that_was_stopped_hears_its_workers_before_it_judges_them() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} --ready ready --watchdog 1s -- python3 speech.py pulse 1000"
    ));
    fs::write(rig.dir().join("go"), "").unwrap();
    rig.up();
    for _ in 0..2 {
        let so_far = rig.tales("pulse").len();
        rig.signal(nix::sys::signal::Signal::SIGSTOP);
        // Twice as long as they may be silent: a pulse is a quarter of that.
        rig.until("they were well all the time", || {
            rig.tales("pulse").len() >= so_far + 2 * 2 * 4
        });
        rig.signal(nix::sys::signal::Signal::SIGCONT);
        assert_eq!(rig.status().ready, 2);
    }
    rig.end(&[]);
}

#[test]
fn descriptors_that_come_with_a_word_change_nothing_about_it() {
    let port = free_port();
    // As systemd-notify --ready does: a word, then a barrier with a descriptor.
    let server = "import os,socket,array,signal; \
        s=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM); \
        to='\\0'+os.environ['NOTIFY_SOCKET'][1:]; r,w=os.pipe(); \
        s.sendmsg([b'READY=1'],[(socket.SOL_SOCKET,socket.SCM_RIGHTS,array.array('i',[w]))],0,to); \
        os.close(w); os.read(r,1); open('closed','w'); signal.pause()";
    let p = port.to_string();
    let mut rig = Rig::start([
        "-n", "1", "-p", &p, "--ready", "ready", "--", "python3", "-c", server,
    ]);
    rig.wait("all-ready", |_| true);
    // Ours are closed, which is what a barrier waits for.
    let closed = rig.dir().join("closed");
    rig.until("the barrier is passed", || closed.exists());
    rig.note_descriptors();
    rig.signal(nix::sys::signal::Signal::SIGTERM);
    rig.finish(0, &["unserved"]);
}

#[test]
fn a_worker_that_never_says_it_is_ready_is_told_how() {
    let rig =
        Rig::start("-n 1 --ready ready --ready-timeout 300ms --start-timeout 500ms -- sleep 60");
    let hint = rig.wait_many("not-ready", 1);
    assert!(hint[0].msg.contains("READY=1"), "{}", hint[0].msg);
    rig.finish(69, &["not-ready", "died", "never-ready"]);
}

#[test]
fn a_number_that_the_sockets_have_is_refused() {
    let mut rig = Rig::start("-n 1 --ready started -- sleep 60");
    rig.up();
    let port = free_port();
    let mut cmd = rig.command();
    cmd.args(format!("-n 1 -p {port} --ready fd:3 -- true").split(' '));
    let said = crate::place::run(cmd, rig.deadline());
    assert_eq!(said.code, 64, "{said:?}");
    assert!(said.err.contains("take a higher number"), "{said:?}");
    rig.end(&[]);
}

#[test]
fn a_worker_of_another_user_is_heard_and_a_stranger_is_not() {
    let port = free_port();
    let words = format!(
        "-n 1 -p {port} --user 4716 --group 4716 --ready ready -- python3 speech.py notify"
    );
    let mut rig = Rig::dressed(words, |_, dir| open_to_all(dir));
    rig.until("it waits", || rig.tales("waits").len() == 1);
    let pid = rig.status().pids()[0];
    // Whoever sees its name can speak to it, and is not heard.
    let environ = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    let name = environ
        .split('\0')
        .find_map(|v| v.strip_prefix("NOTIFY_SOCKET=@"))
        .unwrap();
    let stranger = format!(
        "import os,socket; os.setuid(4717); \
         socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'READY=1', '\\0{name}')"
    );
    let done = std::process::Command::new("python3")
        .args(["-c", &stranger])
        .status();
    assert!(done.unwrap().success());
    rig.wait("notify-stranger", |_| true);
    assert_eq!(rig.status().ready, 0);
    fs::write(rig.dir().join("go"), "").unwrap();
    rig.up();
    rig.end(&["notify-stranger"]);
}

/// For what other users read and write there: they may have no way to the original.
fn open_to_all(dir: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    let server = dir.join("speech.py");
    let text = fs::read(&server).unwrap();
    fs::remove_file(&server).unwrap();
    fs::write(&server, text).unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o777)).unwrap();
}

/// The only worker, as that verb has it in JSON.
fn shown(rig: &Rig, words: &str) -> JsonValue {
    let all: JsonValue = rig.verb(words).out.parse().unwrap();
    match words.starts_with("status") {
        true => all["slots"][0].clone(),
        false => all[0].clone(),
    }
}

#[test]
fn what_a_worker_says_of_its_state_and_when_it_was_well_is_shown() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --ready ready --watchdog 1000s -- python3 speech.py says");
    let mut rig = Rig::dressed(words, |_, dir| fs::write(dir.join("go"), "").unwrap());
    rig.up();
    let says = |rig: &Rig, text: &str| {
        fs::write(rig.dir().join("words"), text).unwrap();
        assert_eq!(rig.verb("signal USR1").code, 0);
    };
    for words in ["status --json", "workers details --json"] {
        assert!(shown(&rig, words)["status"].is_null() && shown(&rig, words)["watchdog"].is_null());
    }
    says(
        &rig,
        "WATCHDOG_USEC=1\nSTATUS=first\nSTATUS=3 of \x1b[31m4 done\nWATCHDOG=1",
    );
    let first = "3 of ?[31m4 done";
    for words in ["status --json", "workers details --json"] {
        rig.until("it is shown", || {
            shown(&rig, words)["status"]
                .get::<String>()
                .map(String::as_str)
                == Some(first)
        });
        let well = *shown(&rig, words)["watchdog"].get::<f64>().unwrap();
        assert!((0.0..45.0).contains(&well), "{well}");
    }
    for words in ["status", "workers details"] {
        let said = rig.verb(words);
        let line = said
            .out
            .lines()
            .find(|l| l.starts_with("    | well "))
            .unwrap();
        assert!(line.ends_with(&format!(" ago, says: {first}")), "{said:?}");
    }
    // Of the next worker in the slot nothing is known.
    let pid = rig.status().pids()[0];
    says(&rig, "STATUS=broken\nWATCHDOG=trigger");
    let hangs = rig.wait("hangs", |e| e.pid() == pid);
    assert!(hangs.msg.contains("WATCHDOG=trigger"), "{}", hangs.msg);
    let died = rig.wait("died", |e| e.pid() == pid);
    assert_eq!(died.text("reason"), "hang");
    rig.wait("ready", |e| e.pid() != pid);
    assert!(shown(&rig, "status --json")["status"].is_null());
    rig.end(&["hangs", "died"]);
}

#[test]
fn a_worker_that_dies_and_whose_child_talks_on_for_it_is_not_heard_for_ever() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --ipc node -- {} channel.py heir", python());
    let mut rig = Rig::start(words);
    rig.up();
    let old = rig.status().pids()[0];
    fs::write(rig.dir().join(format!("go-{old}")), "").unwrap();
    let (heir, _) = rig.told("heir");
    let dropped = rig.wait("message-dropped", |_| true);
    let why = "has ended, and what it has said is not heard within 50ms";
    assert!(dropped.msg.contains(why), "{}", dropped.msg);
    rig.wait("died", |e| e.pid() == old);
    rig.wait("ready", |e| e.pid() != old);
    rig.until("what it has left is gone", || !proc::alive(heir));
    rig.end(&["died", "message-dropped", "log-lost"]);
}

#[test]
fn a_worker_that_dies_with_something_still_to_be_heard_keeps_nobody_awake() {
    let port = free_port();
    let words = format!("-n 1 -p {port} --ipc node -- {} channel.py storm", python());
    let mut rig = Rig::dressed(words, |_, dir| fs::write(dir.join("storm"), "").unwrap());
    rig.up();
    // Its last words and its death are news of the same turn.
    rig.signal(Signal::SIGSTOP);
    let victim = rig.told("notified").0;
    let before = rig.tales("notified").len();
    rig.until("it has said more", || {
        rig.tales("notified").len() > before + 1
    });
    fs::remove_file(rig.dir().join("storm")).unwrap();
    sigkill(victim);
    rig.until("it has ended", || !proc::alive(victim));
    rig.signal(Signal::SIGCONT);
    rig.wait("died", |e| e.pid() == victim);
    rig.wait("ready", |e| e.pid() != victim);
    rig.until("the master sleeps", || proc::sleeps_for_good(rig.pid()));
    rig.end(&["died", "message-dropped", "message-refused"]);
}
