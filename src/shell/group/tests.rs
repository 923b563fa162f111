//! Groups of real sockets on the loopback interface.

use super::*;
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
    let done = Arc::new(AtomicBool::new(false));
    let (its_turn, counts, seen) = (turn.clone(), came.clone(), done.clone());
    let client = std::thread::spawn(move || {
        let mut longest = Duration::ZERO;
        while !seen.load(Ordering::Relaxed) {
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
        drop(no_client);
        let before = came.load(Ordering::Relaxed);
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
