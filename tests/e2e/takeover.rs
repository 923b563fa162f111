//! "When a worker binds a TCP socket to a port that is to be shared, the master puts its own socket
//! for that port in place of the worker's": which binds that goes for, and that the worker cannot
//! tell the difference. What is left to the kernel.

use crate::birth;
use crate::client::{Answer, all_answer, get, v4, v6};
use crate::harness::Rig;
use crate::place::{free_port, free_ports};
use crate::proc;
use std::net::SocketAddr;
use std::time::Instant;

#[test]
fn a_bind_by_any_thread_is_taken_over() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 3 -p {port} -- ./threaded"));
    rig.up();
    // The server binds in a thread that is not its first.
    let pids = all_answer(&rig, v4(port), "/", 3);
    let mut workers = rig.status().pids();
    workers.sort_unstable();
    assert_eq!(pids.into_iter().collect::<Vec<_>>(), workers);
    // All have one and the same socket: the master's.
    let lane = |pid: i32| {
        let opts = get(v4(port), "/").unwrap();
        assert_eq!(opts.status, 200);
        proc::descriptor(pid, 3)
    };
    let theirs: Vec<String> = workers.iter().map(|pid| lane(*pid)).collect();
    assert!(theirs.iter().all(|t| *t == theirs[0]), "{theirs:?}");
    rig.end(&[]);
}

#[test]
fn a_dual_stack_port_serves_both_families() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -H :: -- ./threaded --v6"));
    rig.up();
    all_answer(&rig, v4(port), "/", 2);
    all_answer(&rig, v6(port), "/", 2);
    rig.end(&[]);
}

#[test]
fn a_learnt_port_has_the_address_and_family_asked_for() {
    let port = free_port();
    for (options, addr, serves_v4) in [
        ("", format!("0.0.0.0:{port}"), true),
        ("--addr 127.0.0.1", format!("127.0.0.1:{port}"), true),
        ("--v6", format!("[::]:{port}"), true),
        ("--v6only", format!("[::]:{port}"), false),
        ("--v6 --addr ::1", format!("[::1]:{port}"), false),
    ] {
        let mut rig = Rig::start(format!("-n 2 -- ./threaded --port {port} {options}"));
        let open = rig.wait("port-open", |_| true);
        assert_eq!(open.text("addr"), addr);
        rig.wait_many("listening", 2);
        let one_that_serves = match serves_v4 {
            true => v4(port),
            false => v6(port),
        };
        all_answer(&rig, one_that_serves, "/", 2);
        assert_eq!(get(v4(port), "/").is_ok(), serves_v4, "{options}");
        rig.end(&[]);
    }
}

#[test]
fn a_server_that_insists_on_a_port_is_served_on_another() {
    let (ours, theirs) = (free_port(), free_port());
    let mut rig = Rig::start(format!(
        "-n 2 -p {ours} --takeover {theirs}={ours} -- ./threaded --port {theirs}"
    ));
    rig.up();
    all_answer(&rig, v4(ours), "/", 2);
    assert!(get(v4(theirs), "/").is_err());
    rig.end(&[]);
}

#[test]
fn a_list_of_ports_is_taken_over_and_no_other() {
    let ports = free_ports(3);
    let (a, b, c) = (ports, ports + 1, ports + 2);
    let rig = Rig::start(format!(
        "-n 2 --takeover {a},{b}={c} -- ./threaded --two-ports {a} {b}"
    ));
    rig.wait_many("listening", 4);
    all_answer(&rig, v4(a), "/", 2);
    all_answer(&rig, v4(c), "/", 2);
    assert!(get(v4(b), "/").is_err());
    let mut addrs: Vec<SocketAddr> = rig.events("port-open").iter().map(|e| e.addr()).collect();
    addrs.sort();
    let want = [a, c].map(|p| format!("0.0.0.0:{p}").parse().unwrap());
    assert_eq!(addrs, want);
    // Of a port that is not listed each worker is left with its own.
    rig.end(&[]);
}

/// What `--print-opts` reports of the listening socket or of an accepted one.
fn option(opts: &Answer, who: &str, name: &str) -> i64 {
    opts.line(&format!("{who} {name}")).parse().unwrap()
}

#[test]
fn options_set_before_bind_are_carried_over() {
    let port = free_port();
    let server = "./threaded --print-opts --nodelay --keepalive --user-timeout 5000 --rcvbuf 65536";
    for words in [
        format!("-n 2 -p {port} -- {server}"),
        format!("-n 2 -- {server} --port {port}"),
    ] {
        let rig = Rig::start(words);
        rig.wait_many("listening", 2);
        let opts = get(v4(port), "/opts").unwrap();
        for who in ["listener", "accepted"] {
            assert_eq!(option(&opts, who, "TCP_NODELAY"), 1, "{who}");
            assert_eq!(option(&opts, who, "SO_KEEPALIVE"), 1, "{who}");
            assert_eq!(option(&opts, who, "TCP_USER_TIMEOUT"), 5000, "{who}");
        }
        // The kernel doubles what it is given, once.
        assert_eq!(option(&opts, "listener", "SO_RCVBUF"), 2 * 65536);
        rig.end(&[]);
    }
}

#[test]
fn without_such_options_none_is_set() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 1 -p {port} -- ./threaded --print-opts"));
    rig.up();
    let opts = get(v4(port), "/opts").unwrap();
    for name in ["TCP_NODELAY", "SO_KEEPALIVE", "TCP_USER_TIMEOUT"] {
        assert_eq!(option(&opts, "accepted", name), 0, "{name}");
    }
    rig.end(&[]);
}

#[test]
fn the_socket_blocks_and_closes_on_exec_as_the_workers_own_did() {
    for (options, nonblock, cloexec) in [
        ("", 0, 1),
        ("--no-cloexec", 0, 0),
        ("--epoll", 1, 1),
        ("--epoll --no-cloexec", 1, 0),
    ] {
        let port = free_port();
        let mut rig = Rig::start(format!(
            "-n 2 -p {port} -- ./threaded --print-opts {options}"
        ));
        rig.up();
        let opts = get(v4(port), "/opts").unwrap();
        assert_eq!(
            option(&opts, "listener", "O_NONBLOCK"),
            nonblock,
            "{options}"
        );
        assert_eq!(
            option(&opts, "listener", "FD_CLOEXEC"),
            cloexec,
            "{options}"
        );
        rig.end(&[]);
    }
}

#[test]
fn our_sockets_have_reuseport_and_listen_where_they_say() {
    let port = free_port();
    for words in [
        format!("-n 1 -p {port} -- ./threaded --print-opts"),
        format!("-n 1 -- ./threaded --print-opts --port {port}"),
    ] {
        let rig = Rig::start(words);
        rig.wait_many("listening", 1);
        let opts = get(v4(port), "/opts").unwrap();
        assert_eq!(option(&opts, "listener", "SO_REUSEPORT"), 1);
        assert_eq!(option(&opts, "listener", "SO_ACCEPTCONN"), 1);
        assert_eq!(option(&opts, "listener", "PORT"), i64::from(port));
        assert_eq!(opts.line("listener ADDR"), "0.0.0.0");
        rig.end(&[]);
    }
}

#[test]
fn udp_netlink_unix_and_port_0_are_left_to_the_kernel() {
    let port = free_port();
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} -- ./threaded --udp --netlink --unix {{slot}}.sock --port0"
    ));
    rig.up();
    all_answer(&rig, v4(port), "/", 2);
    for event in ["unix", "netlink"] {
        rig.until(event, || rig.tales(event).len() == 2);
    }
    // One of them has the UDP port, as without us.
    rig.until("udp", || {
        rig.tales("udp").len() + rig.tales("udp-failed").len() == 2
    });
    assert_eq!(rig.tales("udp").len(), 1);
    assert_eq!(rig.tales("udp-failed")[0].1, Some(libc::EADDRINUSE));
    let picked = rig.tales("port0");
    assert_eq!(picked.len(), 2);
    for (pid, number) in picked {
        let addr = v4(u16::try_from(number.unwrap()).unwrap());
        assert_eq!(get(addr, "/").unwrap().pid(), pid);
    }
    rig.end(&[]);
}

#[test]
fn a_narrower_address_than_ours_is_said_once() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 3 -p {port} -- ./threaded --addr 127.0.0.1"));
    rig.up();
    let said = rig.events("address-wider");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].msg.contains("-H 127.0.0.1"), "{}", said[0].msg);
    rig.end(&["address-wider"]);

    let port = free_port();
    let words = format!("-n 3 -p {port} -H 127.0.0.1 -- ./threaded --addr 127.0.0.1");
    let mut rig = Rig::start(words);
    rig.up();
    all_answer(&rig, v4(port), "/", 3);
    rig.end(&[]);
}

#[test]
fn an_ipv4_socket_gets_the_dual_stack_port_and_that_is_said_once() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 3 -p {port} -H :: -- ./threaded"));
    rig.up();
    all_answer(&rig, v4(port), "/", 3);
    all_answer(&rig, v6(port), "/", 3);
    assert_eq!(rig.events("address-family").len(), 1);
    rig.end(&["address-family"]);
}

#[test]
fn a_port_that_is_not_served_passes_by_with_a_hint() {
    let port = free_port();
    let own = free_ports(2);
    let mut rig = Rig::start(format!(
        "-n 2 -p {port} -- ./threaded --two-ports {port} {{slot+{own}}}"
    ));
    rig.up();
    all_answer(&rig, v4(port), "/", 2);
    for slot in 0..2 {
        rig.until("its own port answers", || {
            get(v4(own + slot), "/").is_ok_and(|a| a.slot() == slot)
        });
        let hint = format!("--takeover {}={port}", own + slot);
        let said = rig.events("bind-passed");
        assert!(said.iter().any(|e| e.msg.contains(&hint)), "{said:?}");
    }
    assert_eq!(rig.events("bind-passed").len(), 2);
    rig.end(&["bind-passed"]);
}

#[test]
fn a_server_that_ignores_a_port_picked_by_the_kernel_is_told_to_use_it() {
    let own = free_port();
    let words = format!("-n 2 -p 0 --ready 300ms -- ./threaded --port {own} --reuseport");
    let mut rig = Rig::start(words);
    let port = rig.wait("port-open", |_| true).addr().port();
    let said = rig.wait("bind-passed", |_| true);
    // The number that it is now would be another one the next time.
    assert!(said.msg.contains(&format!("-p {port}")), "{}", said.msg);
    assert!(said.msg.contains("let it bind $PORT"), "{}", said.msg);
    rig.up();
    assert_eq!(rig.status().takeover, "unused", "nothing was taken over");
    rig.wait("unserved", |_| true);
    rig.end(&["bind-passed", "unserved"]);
}

#[test]
fn an_unprivileged_master_takes_over_as_well() {
    let port = free_port();
    let mut rig = Rig::unprivileged(format!("-n 2 -p {port} -- ./threaded --env"), |_, _| {});
    rig.up();
    all_answer(&rig, v4(port), "/", 2);
    let env = get(v4(port), "/env").unwrap();
    assert_eq!(env.line("status NoNewPrivs:").trim(), "1");
    if birth::root() {
        assert!(env.line("status Uid:").contains(&birth::NOBODY.to_string()));
    }
    assert_eq!(rig.status().takeover, "on");
    let victim = rig.status().pids()[0];
    rig.replace(victim);
    all_answer(&rig, v4(port), "/", 2);
    rig.end(&["died"]);
}

#[test]
fn a_worker_that_listens_has_its_stderr_back() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 2 -p {port} -- ./threaded"));
    rig.up();
    for worker in rig.status().pids() {
        let (theirs, ours) = (proc::descriptor(worker, 2), proc::descriptor(rig.pid(), 2));
        assert_eq!(theirs, ours);
    }
    rig.end(&[]);
}

#[test]
fn nothing_that_is_written_to_stderr_is_lost_or_out_of_order() {
    flood(None);
}

#[test]
fn nor_is_it_if_stderr_is_read_slowly() {
    // More is still to come before listen(2) than our stderr takes, less than that and the
    // worker's pipe take together: it listens while its own words wait.
    flood(Some("before 001600"));
}

#[test]
fn nor_is_it_if_the_master_has_much_to_say_itself() {
    // Three slots fail and are replaced without pause: a line of the log whenever there is room
    // for one, and for every line the question who else waits for room.
    let port = free_port().to_string();
    let script = "test $WORKER_ID = 0 && exec ./threaded --stderr-flood; exit 1";
    let rig = Rig::start([
        "-n",
        "4",
        "-p",
        &port,
        "--respawn",
        "1ms",
        "--backoff",
        "0",
        "--",
        "sh",
        "-c",
        script,
    ]);
    for n in 1..64 {
        // A little is read, and no more for a while.
        let next = format!("before {:06}", 50 * n);
        rig.hold_stderr(Some(&next));
        rig.wait_line(&next);
    }
    rig.hold_stderr(None);
    rig.wait_line("after 003200");
    let before: Vec<String> = rig
        .lines()
        .into_iter()
        .filter(|l| l.starts_with("before"))
        .collect();
    assert_eq!(before.len(), 3200);
    rig.end(&["died"]);
}

fn flood(pause: Option<&str>) {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 1 -p {port} -- ./threaded --stderr-flood"));
    rig.hold_stderr(pause);
    if pause.is_some() {
        // A master may also let listen(2) wait for its stderr; a second shows that.
        let since = Instant::now();
        rig.until("it listens or waits", || {
            !rig.tales("listening").is_empty() || since.elapsed().as_secs() > 0
        });
        rig.hold_stderr(None);
    }
    rig.up();
    rig.wait_line("after 003200");
    let said: Vec<String> = rig.lines();
    let numbered = |word: &'static str| (1..=3200).map(move |n| format!("{word} {n:06} "));
    let want: Vec<String> = numbered("before").chain(numbered("after")).collect();
    assert_eq!(said.len(), want.len());
    for (got, want) in said.iter().zip(want) {
        assert!(
            got.starts_with(&want) && got.len() == 63,
            "{got} for {want}"
        );
    }
    rig.end(&[]);
}
