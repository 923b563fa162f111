//! Groups of real sockets on the loopback interface.

use super::*;
use crate::core::Deal;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

struct Port {
    group: Group,
    lanes: Vec<(LaneId, TcpListener)>,
}

impl Port {
    fn new() -> Port {
        Port::at("127.0.0.1:0")
    }

    fn at(any: &str) -> Port {
        let any = any.parse().unwrap();
        let reach = Reach::default();
        let fd = socket::open_lane(&any, &reach).unwrap();
        socket::listen_first(fd.as_fd(), 4096).unwrap();
        let addr = socket::local_addr(fd.as_fd()).unwrap();
        let mut group = Group::new(addr, reach, 4096, LaneId(1));
        group.joined(LaneId(1), fd.as_fd(), false).unwrap();
        let lanes = vec![(LaneId(1), listener(fd))];
        Port { group, lanes }
    }

    fn open(&mut self, n: u64) {
        let fd = self.group.open(LaneId(n)).unwrap();
        self.lanes.push((LaneId(n), listener(fd)));
    }

    fn retire(&mut self, n: u64) -> u32 {
        self.lanes.retain(|(l, _)| *l != LaneId(n));
        self.group.retire(LaneId(n)).unwrap()
    }

    /// So many clients come; how many does each lane get?
    fn clients(&self, n: usize) -> Vec<(u64, usize)> {
        for _ in 0..n {
            TcpStream::connect(self.group.addr).unwrap();
        }
        let mut got = Vec::new();
        for (lane, listener) in &self.lanes {
            let mut count = 0;
            while listener.accept().is_ok() {
                count += 1;
            }
            if count > 0 {
                got.push((lane.0, count));
            }
        }
        got
    }
}

fn listener(fd: OwnedFd) -> TcpListener {
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(true).unwrap();
    listener
}

#[test]
fn a_lane_in_service_keeps_its_clients_whichever_other_goes() {
    let mut port = Port::new();
    assert_eq!(port.clients(5), [(1, 5)]);
    port.open(2);
    assert_eq!(port.clients(20), [(1, 20)]);
    port.group
        .steer(&Table::shares(vec![(LaneId(2), 1)]))
        .unwrap();
    assert_eq!(port.clients(20), [(2, 20)]);
    port.open(3);
    port.group
        .steer(&Table::shares(vec![(LaneId(3), 1)]))
        .unwrap();
    // 3 is the last, and would move into the place of 1: so there is a spare behind it.
    port.retire(1);
    assert_eq!(port.group.members.len(), 3);
    assert_eq!(port.clients(20), [(3, 20)]);
    // The spare is the next one's.
    port.open(4);
    assert_eq!(port.group.members.len(), 3);
    port.group
        .steer(&Table::shares(vec![(LaneId(4), 1)]))
        .unwrap();
    assert_eq!(port.clients(20), [(4, 20)]);
    port.retire(2);
    port.retire(3);
    assert_eq!(port.clients(20), [(4, 20)]);
}

/// Lanes 2 to 4 have come and gone in turn while 1 to 3 were read still.
fn overtaken_thrice(port: &mut Port) {
    for n in 2..=4 {
        port.open(n);
        port.group
            .steer(&Table::shares(vec![(LaneId(n), 1)]))
            .unwrap();
    }
    for n in 1..=3 {
        port.retire(n);
    }
}

#[test]
fn after_several_exchanges_at_once_no_spare_is_left() {
    let mut port = Port::new();
    overtaken_thrice(&mut port);
    assert_eq!(port.group.members.len(), 1);
    assert_eq!(port.clients(20), [(4, 20)]);
    // It is one that others can stand beside.
    port.open(5);
    assert_eq!(port.clients(20), [(4, 20)]);
    port.group
        .steer(&Table::shares(vec![(LaneId(5), 1)]))
        .unwrap();
    port.retire(4);
    assert_eq!(port.clients(20), [(5, 20)]);
}

#[test]
fn no_client_notices_that_spares_are_closed() {
    // The kernel has the sockets of the two families in opposite orders.
    for any in ["127.0.0.1:0", "[::1]:0"] {
        goes_unnoticed(Port::at(any));
    }
}

fn goes_unnoticed(mut port: Port) {
    let addr = port.group.addr;
    // Held by the client while it connects.
    let turn = Arc::new(Mutex::new(()));
    let came = Arc::new(AtomicUsize::new(0));
    let served = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let (its_turn, counts, seen) = (turn.clone(), came.clone(), done.clone());
    let others = served.clone();
    let client = std::thread::spawn(move || {
        let mut longest = Duration::ZERO;
        while !seen.load(Ordering::Relaxed) {
            // More would not fit into the queue, and who has the turn could not be served.
            if counts.load(Ordering::Relaxed) - others.load(Ordering::Relaxed) >= 32 {
                std::thread::yield_now();
                continue;
            }
            let _turn = its_turn.lock().unwrap();
            let begun = Instant::now();
            TcpStream::connect(addr).unwrap();
            longest = longest.max(begun.elapsed());
            counts.fetch_add(1, Ordering::Relaxed);
        }
        longest
    });
    let mut newest = 1;
    for _ in 0..50 {
        let no_client = turn.lock().unwrap();
        for n in newest + 1..=newest + 3 {
            port.open(n);
            port.group
                .steer(&Table::shares(vec![(LaneId(n), 1)]))
                .unwrap();
        }
        port.clients(0);
        served.store(came.load(Ordering::Relaxed), Ordering::Relaxed);
        // (Counted before the client goes on: later it may have come as often as it may.)
        let before = came.load(Ordering::Relaxed);
        drop(no_client);
        while came.load(Ordering::Relaxed) < before + 2 && !client.is_finished() {
            std::thread::yield_now();
        }
        for n in newest..newest + 3 {
            port.retire(n);
        }
        newest += 3;
        assert_eq!(port.group.members.len(), 1);
    }
    done.store(true, Ordering::Relaxed);
    // One who comes to a lane that is shut tries again after a second.
    let longest = client.join().unwrap();
    assert!(longest.as_millis() < 900, "{longest:?}");
}

#[test]
fn beside_what_stays_there_is_one_spare_at_most() {
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = theirs.local_addr().unwrap();
    let mut group = Group::new(addr, Reach::of(theirs.as_fd()), 64, LaneId(1));
    group.joined(LaneId(1), theirs.as_fd(), true).unwrap();
    let mut port = Port {
        group,
        lanes: Vec::new(),
    };
    overtaken_thrice(&mut port);
    // Theirs, a spare, and the one in service.
    assert_eq!(port.group.members.len(), 3);
    assert_eq!(port.clients(20), [(4, 20)]);
}

#[test]
fn a_spare_goes_when_others_take_the_share_of_the_last() {
    let mut port = Port::new();
    port.open(2);
    port.open(3);
    port.group
        .steer(&Table::shares(vec![(LaneId(3), 1)]))
        .unwrap();
    port.retire(1);
    assert_eq!(port.group.members.len(), 3);
    port.group
        .steer(&Table::shares(vec![(LaneId(2), 1), (LaneId(3), 1)]))
        .unwrap();
    assert_eq!(port.group.members.len(), 2);
    let got = port.clients(60);
    assert!(got.len() == 2 && got.iter().all(|(_, n)| *n > 0), "{got:?}");
}

#[test]
fn two_lanes_share_by_weight_and_a_third_gets_nothing() {
    let mut port = Port::new();
    port.open(2);
    port.open(3);
    port.group
        .steer(&Table::shares(vec![(LaneId(1), 3), (LaneId(2), 1)]))
        .unwrap();
    let got = port.clients(60);
    assert!(got.len() == 2 && got.iter().all(|(_, n)| *n > 0), "{got:?}");
}

#[test]
fn a_lane_that_a_worker_has_shut_down_serves_again_and_so_do_the_others() {
    let mut port = Port::new();
    port.open(2);
    port.open(3);
    for (shut, steered) in [(1, 1), (1, 2), (2, 2), (3, 2), (2, 3)] {
        port.group
            .steer(&Table::shares(vec![(LaneId(steered), 1)]))
            .unwrap();
        let victim = port.lanes.iter().find(|(l, _)| *l == LaneId(shut));
        socket::stop_listening(victim.unwrap().1.as_fd());
        port.group.heal(LaneId(shut)).unwrap();
        assert_eq!(port.clients(20), [(steered, 20)], "{shut} {steered}");
    }
}

#[test]
fn what_waits_in_a_lane_that_goes_is_counted() {
    let mut port = Port::new();
    let _client = TcpStream::connect(port.group.addr).unwrap();
    port.open(2);
    port.group
        .steer(&Table::shares(vec![(LaneId(2), 1)]))
        .unwrap();
    assert_eq!(port.group.queued(LaneId(1)), 1);
    assert_eq!(port.retire(1), 1);
    assert_eq!(port.group.queued(LaneId(1)), 0);
    assert_eq!(port.clients(3), [(2, 3)]);
}

#[test]
fn what_was_passed_to_us_is_never_shut_and_has_no_filter() {
    let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = theirs.local_addr().unwrap();
    let mut group = Group::new(addr, Reach::of(theirs.as_fd()), 64, LaneId(1));
    group.joined(LaneId(1), theirs.as_fd(), true).unwrap();
    let new = listener(group.open(LaneId(2)).unwrap());
    group.steer(&Table::shares(vec![(LaneId(2), 1)])).unwrap();
    TcpStream::connect(addr).unwrap();
    assert!(new.accept().is_ok());
    assert_eq!(group.retire(LaneId(1)).unwrap(), 0);
    // Nobody gets in while we leave; then it is theirs again.
    group.refuse().unwrap();
    let shut = socket::connects_within(&addr, Duration::from_millis(50));
    assert!(!shut);
    drop((new, group));
    TcpStream::connect(addr).unwrap();
    assert!(theirs.accept().is_ok());
}

#[test]
fn who_may_set_no_filter_refuses_by_a_spare_that_is_shut() {
    let mut port = Port::new();
    port.open(2);
    // As if the filters had been refused.
    port.group.refusing = true;
    port.group.add(None).unwrap();
    let soon = Duration::from_millis(50);
    assert!(!socket::connects_within(&port.group.addr, soon));
    assert!(port.clients(0).is_empty());
}

const LANES: [LaneId; 3] = [LaneId(1), LaneId(2), LaneId(3)];

/// All the ways to deal to these alone.
fn all_ways(lanes: &[LaneId]) -> Vec<Table> {
    let cycle = || lanes.iter().copied().cycle();
    let buckets = |key| Deal::Buckets(key, cycle().take(1024).collect());
    let cpus = (0..4).zip(cycle()).map(|(n, l)| (n, vec![l]));
    let deals = [
        Deal::Shares(lanes.iter().map(|l| (*l, 1)).collect()),
        buckets(Key::Client),
        buckets(Key::Connection),
        Deal::Cpus(cpus.collect()),
    ];
    let last = [&lanes[lanes.len() - 1]].map(|l| (*l, 1)).to_vec();
    let part = Some((50, Deal::Shares(last)));
    let with = |part: &Option<(u8, Deal)>| {
        let table = |deal: &Deal| Table {
            deal: deal.clone(),
            part: part.clone(),
        };
        deals.iter().map(table).collect::<Vec<_>>()
    };
    [with(&None), with(&part)].concat()
}

#[test]
fn whatever_the_deal_who_goes_leaves_the_others_their_clients() {
    for n in 0..all_ways(&LANES).len() {
        // One that is steered to, and one that is not.
        for gone in 1..=4 {
            let mut port = Port::new();
            for n in 2..=5 {
                port.open(n);
            }
            let lanes = [LaneId(2), LaneId(4), LaneId(5)];
            port.group.steer(&all_ways(&lanes)[n]).unwrap();
            port.retire(gone);
            let got = port.clients(40);
            let total: usize = got.iter().map(|(_, n)| n).sum();
            let fine = |(lane, _): &(u64, usize)| *lane != gone && lanes.contains(&LaneId(*lane));
            assert!(total == 40 && got.iter().all(fine), "{n} {gone}: {got:?}");
        }
    }
}

#[test]
fn whatever_the_deal_a_lane_that_was_shut_down_serves_again() {
    for table in all_ways(&LANES) {
        let mut port = Port::new();
        for n in 2..=4 {
            port.open(n);
        }
        port.group.steer(&table).unwrap();
        for shut in [1, 3, 4] {
            let victim = port.lanes.iter().find(|(l, _)| *l == LaneId(shut));
            socket::stop_listening(victim.unwrap().1.as_fd());
            port.group.heal(LaneId(shut)).unwrap();
            let got = port.clients(30);
            let total: usize = got.iter().map(|(_, n)| n).sum();
            assert!(
                total == 30 && got.iter().all(|(l, _)| *l < 4),
                "{table:?} {got:?}"
            );
        }
    }
}

#[test]
fn a_client_stays_where_it_is_while_lanes_come_and_go() {
    let mut port = Port::new();
    for n in 2..=6 {
        port.open(n);
    }
    let [one, all] = [vec![LaneId(6)], vec![LaneId(6), LaneId(5), LaneId(2)]];
    for lanes in [one, all] {
        let deal = Deal::Buckets(
            Key::Client,
            lanes.iter().copied().cycle().take(64).collect(),
        );
        let table = Table { deal, part: None };
        port.group.steer(&table).unwrap();
        let before = port.clients(1)[0].0;
        for n in [1, 4] {
            port.retire(n);
            assert_eq!(port.clients(5), [(before, 5)]);
            port.open(n);
            assert_eq!(port.clients(5), [(before, 5)]);
        }
        port.group.heal(LaneId(before)).unwrap();
        assert_eq!(port.clients(5), [(before, 5)]);
    }
}

/// As a kernel whose net.core.optmem_max is small.
fn takes_few(fd: BorrowedFd<'_>, program: &[Raw]) -> io::Result<()> {
    match program.len() > 600 {
        true => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
        false => steer::attach(fd, program),
    }
}

fn takes_none(fd: BorrowedFd<'_>, program: &[Raw]) -> io::Result<()> {
    match program.len() > 20 {
        true => Err(io::Error::from_raw_os_error(libc::ENOMEM)),
        false => steer::attach(fd, program),
    }
}

#[test]
fn a_program_that_the_kernel_finds_too_long_is_made_shorter_and_that_is_told() {
    let mut port = Port::new();
    for n in 2..=3 {
        port.open(n);
    }
    let lanes = LANES.into_iter().cycle().take(1024).collect();
    let table = Table {
        deal: Deal::Buckets(Key::Client, lanes),
        part: None,
    };
    port.group.steer(&table).unwrap();
    assert_eq!(port.group.coarse(), None);
    let wanted = Some((Key::Client, 1024));
    port.group.load = takes_few;
    port.group.steer(&table).unwrap();
    let by = Some(256);
    assert_eq!(port.group.coarse(), Some(Coarse { by, wanted }));
    assert_eq!(port.group.coarse(), None);
    // A client has its lane still.
    let got = port.clients(20);
    assert!(got.len() == 1 && got[0].1 == 20, "{got:?}");
    port.group.load = takes_none;
    port.group.steer(&table).unwrap();
    assert_eq!(port.group.coarse(), Some(Coarse { by: None, wanted }));
    let got = port.clients(100);
    assert!(got.len() == 3, "{got:?}");
    // What is wrong with a program otherwise is an error.
    port.group.load = |_, _| Err(io::Error::from_raw_os_error(libc::EPERM));
    let refused = port.group.steer(&table).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
    // The next change tries again.
    port.group.load = |_, _| panic!("nothing has changed");
    port.group.failed = false;
    port.open(4);
    port.group.failed = true;
    port.group.load = takes_few;
    port.open(5);
    assert_eq!(port.group.coarse(), Some(Coarse { by, wanted }));
}

fn loopback_up() -> bool {
    let mut busybox = std::process::Command::new("busybox");
    let up = busybox.args(["ifconfig", "lo", "up"]).status();
    up.is_ok_and(|s| s.success())
}

#[test]
fn a_kernel_with_little_room_gets_as_many_buckets_as_it_takes() {
    const LIMIT: &str = "/proc/sys/net/core/optmem_max";
    // In a network of our own, of this thread alone.
    let done = std::thread::spawn(|| {
        let flags = nix::sched::CloneFlags::CLONE_NEWNET;
        if nix::sched::unshare(flags).is_err() || !loopback_up() {
            return;
        }
        // Older kernels have one limit for all, which is not ours to change.
        if std::fs::write(LIMIT, "20480").is_err() {
            return;
        }
        let lanes: Vec<LaneId> = (0..1024).map(|n| LaneId(1 + n % 3)).collect();
        let table = Table {
            deal: Deal::Buckets(Key::Client, lanes),
            part: None,
        };
        let mut port = Port::new();
        for n in 2..=3 {
            port.open(n);
        }
        port.group.steer(&table).unwrap();
        assert_eq!(port.group.coarse(), None);
        for (limit, by) in [("8192", Some(512)), ("4096", Some(256)), ("500", None)] {
            std::fs::write(LIMIT, limit).unwrap();
            assert_eq!(steer::optmem_max(), limit.parse().ok());
            port.group.steer(&table).unwrap();
            let wanted = Some((Key::Client, 1024));
            assert_eq!(port.group.coarse(), Some(Coarse { by, wanted }));
            let got: usize = port.clients(20).iter().map(|(_, n)| n).sum();
            assert_eq!(got, 20, "{limit}");
        }
    });
    done.join().unwrap();
}

/// Opens so many lanes beside the first, and takes them out again.
fn come_and_go(count: u64) -> [Duration; 3] {
    let mut port = Port::new();
    let begun = Instant::now();
    for n in 2..=count + 1 {
        port.open(n);
    }
    let opened = begun.elapsed();
    let named: Vec<LaneId> = (2..=count + 1).map(LaneId).collect();
    let begun = Instant::now();
    let deal = Deal::Buckets(Key::Client, named);
    port.group.steer(&Table { deal, part: None }).unwrap();
    let steered = begun.elapsed();
    port.group.steer(&Table::only(LaneId(1))).unwrap();
    let begun = Instant::now();
    for n in 2..=count + 1 {
        port.group.retire(LaneId(n)).unwrap();
    }
    let retired = begun.elapsed();
    assert_eq!(port.group.members.len(), 1);
    assert_eq!(port.clients(3), [(1, 3)]);
    [opened, steered, retired]
}

#[test]
fn lanes_come_and_go_by_the_hundred() {
    come_and_go(256);
}

#[test]
#[ignore = "prints how long it takes"]
fn a_thousand_lanes() {
    for count in [256, 512, 1024, 256, 512, 1024] {
        println!("{count} opened, steered, retired: {:?}", come_and_go(count));
    }
    let all: Vec<u32> = (0..1024).collect();
    let table = steering::Table {
        deal: steering::Deal::Buckets(Key::Client, all),
        part: None,
    };
    let begun = Instant::now();
    let program = steering::raw(&steering::program(&table));
    println!(
        "compiled: {:?}, {} instructions",
        begun.elapsed(),
        program.len()
    );
    let port = Port::new();
    let fd = port.group.members.all()[0].fd.as_fd();
    for _ in 0..5 {
        let begun = Instant::now();
        steer::attach(fd, &program).unwrap();
        println!("attached: {:?}", begun.elapsed());
    }
    // A generation of as many takes the place of the one before.
    let mut port = Port::new();
    for n in 2..=2048 {
        port.open(n);
    }
    let named = (1025..=2048).map(LaneId).collect();
    let deal = Deal::Buckets(Key::Client, named);
    port.group.steer(&Table { deal, part: None }).unwrap();
    let begun = Instant::now();
    for n in 1..=1024 {
        port.group.retire(LaneId(n)).unwrap();
    }
    println!(
        "old ones retired beside as many new ones: {:?}",
        begun.elapsed()
    );
}
