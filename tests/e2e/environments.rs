//! "ENVIRONMENTS": each mechanism that a master relies on is refused, as containers, sandboxes and units
//! refuse it. `--check` names it, and nothing else, with what to add; the cluster does its work all the
//! same, or exits with the code that the check gave; and what is lost is said once.
//!
//! With `--nocapture` it is a table: `cargo test --test e2e -- --nocapture environments`.

use crate::birth;
use crate::client::{all_answer, v4};
use crate::harness::{Rig, Words};
use crate::load::{LOST, Load};
use crate::place::{Place, Said, free_port, python, refusing, run};
use crate::proc;
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};
use tinyjson::JsonValue;

pub const WORKERS: usize = 3;

/// One of them.
struct Env {
    name: &'static str,
    /// What starts the master there.
    by: Vec<String>,
    options: &'static str,
    /// These rows of the check say refused.
    refused: &'static [&'static str],
    /// What is to be added for the first of them.
    add: &'static str,
    /// The log says this once.
    said: &'static [&'static str],
    /// What workers run, and how they come to the port by that.
    server: (&'static str, &'static str),
    /// Does a reload lose nothing?
    lossless: bool,
}

fn env(name: &'static str, by: impl Words, refused: &'static [&'static str]) -> Env {
    Env {
        name,
        by: by.words(),
        options: "",
        refused,
        add: "",
        said: &[],
        server: ("./threaded", "by takeover"),
        lossless: true,
    }
}

impl Env {
    fn add(self, add: &'static str) -> Env {
        Env { add, ..self }
    }

    fn with(self, options: &'static str) -> Env {
        Env { options, ..self }
    }

    fn says(self, said: &'static [&'static str]) -> Env {
        Env { said, ..self }
    }

    fn without_takeover(self) -> Env {
        Env {
            server: ("./threaded --accept-adopt", "by LISTEN_FDS"),
            ..self
        }
    }

    fn sharing(self) -> Env {
        Env {
            server: ("./threaded --reuseport", "by SO_REUSEPORT of their own"),
            ..self
        }
    }

    fn may_lose(self) -> Env {
        Env {
            lossless: false,
            ..self
        }
    }

    fn words(&self, port: u16) -> String {
        let server = self.server.0;
        format!(
            "-n {WORKERS} -p {port} --drain-timeout 2s --drain-quiet 200ms {} -- {server}",
            self.options
        )
    }
}

pub fn refuse(rules: &str) -> Vec<String> {
    vec![refusing().display().to_string(), rules.into()]
}

pub fn without(capabilities: &str) -> Vec<String> {
    let each: Vec<String> = capabilities.split(' ').map(|c| format!("-{c}")).collect();
    let all = each.join(",");
    format!("setpriv --bounding-set {all} --inh-caps {all}").words()
}

/// In mounts of its own, after this.
fn mounted(how: &str) -> Vec<String> {
    let script = format!("{how} && exec \"$@\"");
    ["unshare", "-m", "sh", "-c", &script, "sh"]
        .map(String::from)
        .to_vec()
}

fn without_proc() -> Vec<String> {
    mounted("mount -t tmpfs none /proc")
}

/// What a start says there beforehand, in JSON.
pub fn check(place: &Place, by: &[String], words: &str) -> (Said, JsonValue) {
    let mut cmd = command(place, by);
    cmd.args("--check --json".words()).args(words.words());
    let said = run(cmd, Instant::now() + Duration::from_secs(30));
    let json = said.out.parse();
    let json = json.unwrap_or_else(|e| panic!("{e}: {said:?}"));
    (said, json)
}

pub fn command(place: &Place, by: &[String]) -> Command {
    match by.is_empty() {
        true => place.command(),
        false => place.command_by(by),
    }
}

pub fn text<'a>(v: &'a JsonValue, key: &str) -> &'a str {
    v[key].get::<String>().unwrap()
}

pub fn rows(json: &JsonValue) -> &Vec<JsonValue> {
    json["mechanisms"].get().unwrap()
}

pub fn refused(json: &JsonValue) -> BTreeSet<&str> {
    let out = rows(json).iter().filter(|m| text(m, "state") == "refused");
    out.map(|m| text(m, "name")).collect()
}

/// Newer kernels ask for CAP_NET_ADMIN over the network for a filter on a connection, which root in a user namespace
/// has not got, nor anybody else. (Whether this one does is asked by other means.)
fn asks_for_net_admin() -> bool {
    const ATTACHES: &str = "import ctypes, socket, struct\n\
        s = socket.create_server((\"127.0.0.1\", 0))\n\
        c = socket.create_connection(s.getsockname())\n\
        one = ctypes.create_string_buffer(struct.pack(\"HBBI\", 6, 0, 0, 0xffffffff))\n\
        try: c.setsockopt(socket.SOL_SOCKET, 26, struct.pack(\"HP\", 1, ctypes.addressof(one)))\n\
        except PermissionError: raise SystemExit(7)";
    let mut cmd = Command::new("unshare");
    cmd.args(["-Ur", python(), "-c", ATTACHES]);
    match cmd.status().unwrap().code() {
        Some(0) => false,
        Some(7) => true,
        other => panic!("whether a filter can be attached is not known: {other:?}"),
    }
}

/// What has to be refused there.
pub fn wanted(refused: &[&'static str], by: &[String]) -> BTreeSet<&'static str> {
    let mut all: BTreeSet<&'static str> = refused.iter().copied().collect();
    let unprivileged = |w: &String| w == "-Ur" || w.contains("--userspec=");
    if by.iter().any(unprivileged) && asks_for_net_admin() {
        all.insert("hold-requests");
    }
    all
}

/// Names of files there are in a directory.
fn names(place: &Place) -> BTreeSet<String> {
    let all = std::fs::read_dir(&place.dir).unwrap().flatten();
    all.map(|e| e.file_name().into_string().unwrap()).collect()
}

/// The check says what is refused there, and nothing else; what it says; and it leaves nothing.
fn checked(place: &Place, e: &Env, port: u16) -> Said {
    let before = names(place);
    let (said, json) = check(place, &e.by, &e.words(port));
    let wanted = wanted(e.refused, &e.by);
    assert_eq!(refused(&json), wanted, "{}: {}", e.name, said.out);
    if let Some(first) = e.refused.first() {
        let row = rows(&json).iter().find(|m| text(m, "name") == *first);
        let row = row.unwrap();
        let add = text(row, "add");
        assert!(add.contains(e.add), "{}: {add}", e.name);
        assert!(!text(row, "why").is_empty() && !text(row, "lost").is_empty());
    }
    let after = names(place);
    assert_eq!(after, before, "{}: files left behind", e.name);
    assert!(proc::marked(&place.mark).is_empty(), "{}", e.name);
    said
}

/// A connection that is kept, and silent.
fn kept(port: u16) -> TcpStream {
    let mut s = TcpStream::connect(v4(port)).unwrap();
    s.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert!(s.read(&mut [0; 512]).unwrap() > 0);
    s
}

fn tell(e: &Env, how: &str) {
    println!("{:<44} {:<28} {how}", e.name, e.refused.join(" "));
}

/// The whole story of one.
fn lives(e: &Env) {
    let port = free_port();
    let place = Place::new();
    let said = checked(&place, e, port);
    assert_eq!(
        (said.code, said.err.as_str()),
        (0, ""),
        "{}: {said:?}",
        e.name
    );
    let mut rig = match e.by.is_empty() {
        true => Rig::start(e.words(port)),
        false => Rig::placed(place, &e.by, e.words(port)),
    };
    rig.wait("all-ready", |_| true);
    all_answer(&rig, v4(port), "/", WORKERS);
    let victim = rig.status().pids()[0];
    rig.replace(victim);
    all_answer(&rig, v4(port), "/", WORKERS);
    let _silent = kept(port);
    let load = Load::going(&format!("{port} pause=2"));
    let reload = rig.verb("reload");
    assert_eq!(reload.code, 0, "{}: {reload:?}", e.name);
    let (well, tally) = load.finish();
    assert!(well || !e.lossless, "{}: {tally:?}", e.name);
    let lost = tally.sum(&LOST);
    // It serves all the same.
    assert!(tally.of("fresh_ok") > 10 * lost, "{}: {tally:?}", e.name);
    all_answer(&rig, v4(port), "/", WORKERS);
    for event in e.said {
        let mut all = rig.events(event);
        all.retain(|e| e.level != "debug");
        assert_eq!(all.len(), 1, "{}: {event}: {all:?}", e.name);
    }
    rig.signal(Signal::SIGTERM);
    // A worker that is given all of its time may have a connection by then.
    let late = e.said.contains(&"drain-blind").then_some("drained");
    let allowed = e.said.iter().copied().chain(["died"]).chain(late);
    let allowed: Vec<&str> = allowed.collect();
    rig.finish(0, &allowed);
    let how = e.server.1;
    tell(
        e,
        &format!(
            "serves {how}; lost {lost} of {}; stop 0; says {}",
            tally.of("requests"),
            e.said.join(" ")
        ),
    );
}

fn all_live(list: Vec<Env>) {
    list.iter().for_each(lives);
}

#[test]
fn where_takeover_is_refused_the_passed_socket_serves() {
    assert!(birth::root(), "this story takes root: run it as root");
    let notify = &["seccomp-notify"][..];
    let said = &["takeover-refused"][..];
    let by_errno = |name, rule: &str, add| {
        env(name, refuse(rule), notify)
            .add(add)
            .says(said)
            .without_takeover()
    };
    all_live(vec![
        by_errno(
            "seccomp(2) forbidden",
            "listener",
            "--security-opt seccomp=",
        ),
        by_errno("no user notification", "listener=22", "gVisor"),
        by_errno("no seccomp(2)", "seccomp=38", "Linux 5.9"),
        env(
            "seccomp(2) forbidden, others share",
            refuse("listener"),
            notify,
        )
        .says(&["takeover-refused", "port-closed"])
        .sharing()
        .may_lose(),
        by_errno("an outer supervisor", "listener=16", "outer supervisor"),
        env(
            "neither no_new_privs nor CAP_SYS_ADMIN",
            [refuse("no_new_privs"), without("sys_admin")].concat(),
            notify,
        )
        .add("PR_SET_NO_NEW_PRIVS")
        .says(said)
        .without_takeover(),
        env(
            "gVisor",
            refuse("gvisor"),
            &["seccomp-notify", "pidfd-getfd"],
        )
        .says(&["takeover-refused", "drain-hands-off"])
        .without_takeover(),
        env(
            "memory of workers",
            [without_proc(), refuse("process_vm_readv")].concat(),
            &["read-memory", "proc"],
        )
        .add("process_vm_readv")
        .says(&["no-proc"])
        .with("--ready started")
        .without_takeover(),
    ]);
}

#[test]
fn what_is_refused_of_looks_into_workers_costs_only_what_the_manual_says() {
    assert!(birth::root(), "this story takes root: run it as root");
    let hands_off = &["drain-hands-off"][..];
    all_live(vec![
        env("nothing refused", "", &[]),
        env("pidfd_open", refuse("pidfd_open"), &["pidfd-open"])
            .add("pidfd_open")
            .says(hands_off),
        env("pidfd_getfd", refuse("pidfd_getfd"), &["pidfd-getfd"])
            .add("pidfd_getfd")
            .says(hands_off),
        env("SO_ATTACH_FILTER", refuse("filter"), &["hold-requests"]).add("--cap-add NET_ADMIN"),
        env(
            "Docker, default",
            [refuse("docker"), without("sys_admin sys_ptrace")].concat(),
            &["privileges", "pidfd-getfd"],
        )
        .add("--cap-add SYS_ADMIN")
        .says(&["drain-hands-off", "no-new-privs"]),
        env(
            "Docker, default of old",
            [refuse("docker-old"), without("sys_admin sys_ptrace")].concat(),
            &["privileges", "pidfd-getfd"],
        )
        .says(&["drain-hands-off", "no-new-privs"]),
        env("no CAP_SYS_ADMIN", without("sys_admin"), &["privileges"])
            .add("CAP_SYS_ADMIN")
            .says(&["no-new-privs"]),
        env(
            "no_new_privs before",
            "setpriv --no-new-privs",
            &["privileges"],
        )
        .add("NoNewPrivileges=no"),
        env(
            "socket(AF_NETLINK)",
            refuse("netlink"),
            &["sock-diag", "sock-news"],
        )
        .add("AF_NETLINK")
        .with("--count-connections")
        .says(&["drain-blind", "connections-unseen"]),
        env(
            "/proc/PID/fd of workers",
            refuse("opendir=13"),
            &["worker-descriptors"],
        )
        .add("hidepid=")
        .says(&["drain-blind"]),
        env(
            "hidepid=2, --user, no CAP_SYS_PTRACE",
            [
                mounted("mount -t proc -o hidepid=2 proc /proc"),
                without("sys_admin sys_ptrace"),
            ]
            .concat(),
            &["privileges"],
        )
        .with("--user 65534 --group 65534")
        .says(&["no-new-privs"]),
        env("news of sockets", refuse("membership"), &["sock-news"])
            .add("tcp_diag")
            .with("--count-connections")
            .says(&["connections-unseen"]),
    ]);
}

#[test]
fn what_is_refused_of_the_masters_own_costs_only_what_the_manual_says() {
    assert!(birth::root(), "this story takes root: run it as root");
    all_live(vec![
        env(
            "SO_ATTACH_REUSEPORT_CBPF",
            refuse("steering"),
            &["steering"],
        )
        .add("SO_ATTACH_REUSEPORT_CBPF")
        .says(&["no-steering", "port-shared"])
        .may_lose(),
        env(
            "SO_REUSEPORT",
            refuse("reuseport"),
            &["reuseport", "steering"],
        )
        .add("SO_REUSEPORT")
        .says(&["no-steering", "port-shared"])
        .may_lose(),
        env("subreaper", refuse("subreaper"), &["subreaper"])
            .add("PID 1")
            .says(&["no-subreaper"]),
        env("PR_SET_PDEATHSIG", refuse("pdeathsig"), &["death-signal"])
            .add("PR_SET_PDEATHSIG")
            .says(&["no-death-signal"]),
        env(
            "abstract unix sockets",
            refuse("unix_datagram"),
            &["abstract-sockets"],
        )
        .add("AF_UNIX")
        .says(&["no-notify"]),
        env(
            "no control group of its own",
            mounted("mount -t tmpfs none /sys/fs/cgroup"),
            &["cgroup"],
        )
        .with("--cgroup auto")
        .add("Delegate=yes")
        .says(&["no-cgroup"]),
        env("a user namespace", "unshare -Ur", &[]),
        env("no /proc", without_proc(), &["proc"])
            .add("mount -t proc")
            .says(&["no-proc"]),
    ]);
}
