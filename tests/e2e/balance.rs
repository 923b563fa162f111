//! To which worker a connection goes where each has a queue of its own: "all connections of a client go to
//! one slot, over crashes and reloads", "each can be emptied alone".

use crate::client::{ask, from, get, v4, v6};
use crate::harness::{Rig, sigkill};
use crate::load::Load;
use crate::place::{free_port, in_a_network_of_its_own, python};
use crate::proc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// Who starts waits for as long as there is a file `hold`, then is that command.
const HELD: &str = "while test -e hold; do sleep 0.01; done; exec \"$@\"";

/// Masters of that many workers that can be held as they start.
fn held(workers: u16, options: &str, server: &str) -> Rig {
    let words = format!("-n {workers} {options} -- sh -c");
    let words = words.split(' ').chain([HELD, "sh"]);
    let words = words.chain(server.split(' ')).map(String::from);
    let mut rig = Rig::start(words.collect::<Vec<String>>());
    rig.up();
    rig
}

/// 127.0.0.1 to 127.0.0.100
fn v4_clients() -> Vec<IpAddr> {
    let client = |n| IpAddr::from(Ipv4Addr::new(127, 0, 0, n));
    (1..=100).map(client).collect()
}

/// A hundred households, each with two addresses.
fn v6_clients(host: u16) -> Vec<IpAddr> {
    let client = |n| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, n, 0, 0, 0, host));
    (1..=100).map(client).collect()
}

/// The slot that serves each of these.
fn slots(clients: &[IpAddr], to: SocketAddr) -> Vec<u16> {
    let slot = |client: &IpAddr| ask(from(*client, to)?, "/").map(|a| a.slot());
    clients.iter().map(|c| slot(c).unwrap()).collect()
}

/// How many of these each slot has.
fn shares(slots: &[u16]) -> BTreeMap<u16, usize> {
    let mut n = BTreeMap::new();
    for slot in slots {
        *n.entry(*slot).or_default() += 1;
    }
    n
}

/// Over reloads and deaths each client stays with its slot, but while that has nobody.
fn clients_stay(rig: &mut Rig, clients: &[IpAddr], to: SocketAddr, reloads: usize) -> Vec<u16> {
    let home = slots(clients, to);
    let n = shares(&home);
    assert!(
        n.len() == 4 && n.values().all(|n| (13..=50).contains(n)),
        "{n:?}"
    );
    for _ in 0..reloads {
        let said = rig.verb("reload");
        assert_eq!(said.code, 0, "{said:?}");
        assert_eq!(slots(clients, to), home);
    }
    let hold = rig.dir().join("hold");
    for victim in [0, 3] {
        fs::write(&hold, "").unwrap();
        let pid = rig.status().rows[usize::from(victim)].pid.unwrap();
        sigkill(pid);
        rig.wait("died", |e| e.pid() == pid);
        // A turn later it is steered away from that, too.
        assert_eq!(rig.status().ready, 3);
        let now = slots(clients, to);
        let mut went = BTreeSet::new();
        for (home, now) in home.iter().zip(now) {
            match *home == victim {
                true => assert!(now != victim && went.insert(now) | true),
                false => assert_eq!(now, *home),
            }
        }
        // Not all to the same.
        assert_eq!(went.len(), 3);
        fs::remove_file(&hold).unwrap();
        rig.wait("ready", |e| e.slot() == victim);
        rig.wait_status("all are there", |s| s.ready == 4);
        assert_eq!(slots(clients, to), home);
    }
    home
}

#[test]
fn a_client_stays_with_its_slot_over_reloads_and_deaths() {
    let mut homes = Vec::new();
    for server in [&format!("{} blocking.py", python()), "./threaded"] {
        let port = free_port();
        let mut rig = held(4, &format!("-p {port} --balance ip"), server);
        homes.push(clients_stay(&mut rig, &v4_clients(), v4(port), 5));
        rig.end(&["died"]);
    }
    // Whichever master it is.
    assert_eq!(homes[0], homes[1]);
}

/// In the moments, too, in which the sockets of those that have gone leave their port.
#[test]
fn clients_that_come_all_the_time_stay_with_their_slots_through_reload_after_reload() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 4 -p {port} --balance ip -- ./threaded"));
    rig.up();
    let clients = v4_clients();
    let home = slots(&clients, v4(port));
    let over = Arc::new(AtomicBool::new(false));
    let come = |part: usize| {
        let (clients, home, over) = (clients.clone(), home.clone(), over.clone());
        thread::spawn(move || {
            let mut asked = 0;
            for n in (part..clients.len()).step_by(3).cycle() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                assert_eq!(slots(&clients[n..=n], v4(port)), home[n..=n]);
                asked += 1;
            }
            asked
        })
    };
    let coming: Vec<JoinHandle<usize>> = (0..3).map(come).collect();
    for _ in 0..20 {
        let said = rig.verb("reload");
        assert_eq!(said.code, 0, "{said:?}");
    }
    over.store(true, Ordering::Relaxed);
    let asked: usize = coming.into_iter().map(|t| t.join().unwrap()).sum();
    assert!(asked > 1000, "only {asked} requests were made");
    rig.end(&[]);
}

#[test]
fn a_household_of_ipv6_stays_with_its_slot() {
    in_a_network_of_its_own("balance::a_household_of_ipv6_stays_with_its_slot", || {
        for host in ["::1", "::"] {
            let port = free_port();
            let server = format!("{} blocking.py v6=1", python());
            let mut rig = held(4, &format!("-p {port} -H {host} --balance ip"), &server);
            let home = clients_stay(&mut rig, &v6_clients(1), v6(port), 1);
            assert_eq!(slots(&v6_clients(0xffff), v6(port)), home);
            rig.end(&["died"]);
        }
    });
}

#[test]
fn a_client_of_ipv4_stays_with_its_slot_at_a_port_of_both_families() {
    let port = free_port();
    let server = format!("{} blocking.py v6=1", python());
    let mut rig = held(4, &format!("-p {port} -H :: --balance ip"), &server);
    clients_stay(&mut rig, &v4_clients(), v4(port), 2);
    rig.end(&["died"]);
}

#[test]
fn all_workers_have_their_share_and_only_the_connections_of_one_that_dies_fail() {
    for server in ["./threaded", "node selecting.js"] {
        let port = free_port();
        let mut rig = Rig::start(format!("-n 4 -p {port} --balance hash -- {server}"));
        rig.up();
        let all: Vec<i32> = (0..400)
            .map(|_| get(v4(port), "/").unwrap().pid())
            .collect();
        for pid in rig.status().pids() {
            let n = all.iter().filter(|p| **p == pid).count();
            assert!(n > 50, "{n} of 400");
        }
        // Kept ones, each of which has had an answer.
        let mut kept: Vec<(TcpStream, i32)> = (0..40).map(|_| asked(port)).collect();
        let load = Load::going(&port.to_string());
        let victim = kept[0].1;
        let new = rig.replace(victim);
        assert_ne!(new, victim);
        for (stream, pid) in &mut kept {
            let now = again(stream);
            match *pid == victim {
                true => assert_eq!(now, None),
                false => assert_eq!(now, Some(*pid)),
            }
        }
        let (_, tally) = load.finish();
        // Each of eight clients had one request at a time.
        let failed = tally.of("requests") - tally.of("fresh_ok");
        assert!(failed <= 8 && tally.of("refused") == 0, "{tally:?}");
        rig.end(&["died"]);
    }
}

/// A connection that is kept, and who has answered on it.
fn asked(port: u16) -> (TcpStream, i32) {
    let mut stream = TcpStream::connect(v4(port)).unwrap();
    let pid = again(&mut stream).unwrap();
    (stream, pid)
}

/// Another request on it.
fn again(stream: &mut TcpStream) -> Option<i32> {
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).ok()?;
    let (mut all, mut byte) = (Vec::new(), [0]);
    // The body ends with its only newline behind the head.
    let whole = |all: &[u8]| {
        let text = String::from_utf8_lossy(all);
        text.split_once("\r\n\r\n")
            .is_some_and(|(_, body)| body.ends_with('\n'))
    };
    while !whole(&all) {
        match stream.read(&mut byte) {
            Ok(1) => all.push(byte[0]),
            _ => return None,
        }
    }
    let text = String::from_utf8(all).unwrap();
    let (_, body) = text.split_once("\r\n\r\n").unwrap();
    body.split(' ').nth(1)?.trim().parse().ok()
}

#[test]
fn what_waits_in_the_queue_of_one_that_dies_is_served_by_the_next_one_in_its_slot() {
    let port = free_port();
    let server = format!("{} blocking.py", python());
    let mut rig = Rig::start(format!("-n 2 -p {port} --balance hash -- {server}"));
    rig.up();
    let pids = rig.status().pids();
    kill(Pid::from_raw(pids[0]), Signal::SIGSTOP).unwrap();
    rig.until("it is stopped", || proc::stopped(pids[0]));
    let clients: Vec<TcpStream> = (0..20)
        .map(|_| TcpStream::connect(v4(port)).unwrap())
        .collect();
    let next = rig.replace(pids[0]);
    let served = clients.into_iter().map(|c| ask(c, "/").unwrap().pid());
    let served: BTreeSet<i32> = served.collect();
    assert_eq!(served, BTreeSet::from([pids[1], next]));
    rig.end(&["died"]);
}

#[test]
fn another_number_of_workers_is_not_noticed_by_anybody() {
    for (balance, server) in [("hash", "./threaded"), ("ip", "node selecting.js")] {
        let port = free_port();
        let mut rig = Rig::start(format!(
            "-n 2 -p {port} --balance {balance} --drain-quiet 300ms -- {server}"
        ));
        rig.up();
        let fresh = Load::going(&port.to_string());
        let kept = Load::going(&format!("{port} mode=keepalive max=20"));
        for n in [6, 1, 4, 3, 2] {
            let said = rig.verb(format!("resize {n}"));
            assert_eq!(said.code, 0, "{said:?}");
            assert_eq!(rig.status().ready, n);
        }
        for load in [fresh, kept] {
            let (well, tally) = load.finish();
            assert!(well && tally.of("pids") > 2, "{tally:?}");
        }
        rig.end(&[]);
    }
}

#[test]
fn by_cpu_each_worker_is_pinned_where_its_connections_come() {
    let port = free_port();
    let mut rig = Rig::start(format!("-n 4 -p {port} --balance cpu -- ./threaded"));
    rig.up();
    let allowed = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
        line.unwrap().trim().to_string()
    };
    let ours = allowed(std::process::id() as i32);
    let cpus: Vec<String> = rig.status().pids().into_iter().map(allowed).collect();
    assert!(
        cpus.iter().all(|c| c.parse::<u16>().is_ok()),
        "{ours}: {cpus:?}"
    );
    let load = Load::going(&port.to_string());
    assert_eq!(rig.verb("reload").code, 0);
    let (well, tally) = load.finish();
    assert!(well, "{tally:?}");
    rig.replace(rig.status().pids()[1]);
    assert_eq!(get(v4(port), "/").unwrap().status, 200);
    rig.end(&["died"]);
}

/// Reloads under these clients; none of them notices.
fn unnoticed(mut rig: Rig, clients: &[String]) {
    rig.up();
    let loads: Vec<Load> = clients.iter().map(|words| Load::going(words)).collect();
    for _ in 0..4 {
        let said = rig.verb("reload");
        assert_eq!(said.code, 0, "{said:?}");
    }
    for load in loads {
        let (well, tally) = load.finish();
        assert!(well && tally.of("pids") > 3, "{tally:?}");
    }
    rig.end(&[]);
}

/// Connections for one request, and such as are kept.
fn both(port: u16) -> Vec<String> {
    vec![
        port.to_string(),
        format!("{port} mode=keepalive pause=10 max=20 clients=4"),
    ]
}

#[test]
fn reloads_with_queues_of_their_own_are_not_noticed_whatever_the_surge() {
    for surge in ["100%", "1", "0"] {
        let port = free_port();
        unnoticed(
            Rig::start(format!(
                "-n 3 -p {port} --balance hash --surge {surge} --drain-timeout 4s --drain-quiet 300ms -- ./threaded"
            )),
            &both(port),
        );
    }
}

#[test]
fn nor_at_a_port_that_was_learnt() {
    let port = free_port();
    let server = format!("{} blocking.py {port}", python());
    let words = format!("-n 3 --balance hash -- {server}");
    unnoticed(Rig::start(words), &[port.to_string()]);
}

#[test]
fn nor_where_they_are_handed_over() {
    let port = free_port();
    let server = format!("{} sockets.py passed", python());
    let words = format!("-n 3 -p {port} --balance hash --takeover off -- {server}");
    unnoticed(Rig::start(words), &[port.to_string()]);
}

#[test]
fn nor_where_a_unix_socket_is_shared_beside() {
    let port = free_port();
    let server = format!("{} sockets.py passed", python());
    let words = format!("-n 3 -p {port} -l unix:a.sock --balance hash --takeover off -- {server}");
    let rig = Rig::start(words);
    let path = rig.dir().join("a.sock");
    let unix = format!("unix:{}", path.display());
    unnoticed(rig, &[port.to_string(), unix]);
}

#[test]
fn nor_where_the_sockets_stay_the_workers() {
    let port = free_port();
    for given in [String::new(), format!("-p {port}")] {
        let server = format!("./threaded --port {port} --epoll-before-bind");
        let words = format!("-n 3 {given} --balance hash -- {server}");
        unnoticed(Rig::start(words), &both(port));
    }
}

#[test]
fn a_hundred_and_more_have_a_queue_each() {
    let port = free_port();
    let words = format!("-n 128 -p {port} --balance hash -- ./threaded");
    let mut rig = Rig::start(words);
    rig.up();
    let answered = || {
        let pid = |_| get(v4(port), "/").unwrap().pid();
        (0..200).map(pid).collect::<BTreeSet<i32>>().len()
    };
    // Of 128 about a hundred are met by 200.
    assert!(answered() > 64);
    let said = rig.verb("reload");
    assert_eq!(said.code, 0, "{said:?}");
    assert_eq!(rig.status().ready, 128);
    assert!(answered() > 64);
    rig.end(&[]);
}
