//! Held to what the kernel does, on the loopback interface.

use super::*;
use crate::core::Key;
use crate::sys::clock;
use crate::sys::socket::{self, Reach, listen, listen_first, local_addr, open_beside, open_lane};
use crate::wire::steering::bucket::bucket;
use crate::wire::steering::{self, Deal, Table, program, refuse_new};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const ANYWHERE: [&str; 3] = ["127.0.0.1:0", "[::1]:0", "[::]:0"];

fn within_ten_seconds(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "{what}: not within ten seconds");
        clock::pause(Duration::from_millis(1));
    }
}

/// Where a client gets to it.
fn reached(lane: &OwnedFd) -> SocketAddr {
    let mut addr = local_addr(lane.as_fd()).unwrap();
    if addr.ip().is_unspecified() {
        addr.set_ip(std::net::Ipv6Addr::LOCALHOST.into());
    }
    addr
}

fn steer(member: &OwnedFd, table: &[(u32, u32)]) {
    attach(
        member.as_fd(),
        &steering::raw(&program(&Table::shares(table))),
    )
    .unwrap();
}

/// One more, shut.
fn beside(lane: &OwnedFd) -> (OwnedFd, Gate) {
    let addr = local_addr(lane.as_fd()).unwrap();
    let reach = Reach::of(lane.as_fd());
    open_beside(&addr, &reach, &steering::raw(&refuse_new()), 1024).unwrap()
}

/// Shuts it by that means, if we may.
fn shut(lane: &OwnedFd, gate: Gate) -> bool {
    match gate {
        Gate::Distance => keep_distance(lane.as_fd()).is_ok(),
        Gate::Filter => match filter(lane.as_fd(), &steering::raw(&refuse_new())) {
            Ok(()) => true,
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(libc::EPERM));
                assert!(!crate::sys::guise::capable(12)); // CAP_NET_ADMIN
                false
            }
        },
    }
}

/// So many lanes, the first of which is steered to, open to all.
fn group(at: &str, lanes: usize) -> Vec<OwnedFd> {
    let first = open_lane(&at.parse().unwrap(), &Reach::default()).unwrap();
    listen_first(first.as_fd(), 1024).unwrap();
    steer(&first, &[(0, 1)]);
    let mut all = vec![first];
    while all.len() < lanes {
        let (next, gate) = beside(&all[0]);
        let_in(next.as_fd(), gate).unwrap();
        all.push(next);
    }
    all
}

/// Where so many new clients end up.
fn deal(lanes: &[OwnedFd], clients: usize) -> Vec<usize> {
    let to = reached(&lanes[0]);
    let mut got = vec![0; lanes.len()];
    let (mut left, mut gone) = (clients, 0);
    // In portions that the queues have room for.
    while left > 0 {
        let now = left.min(500);
        let held: Vec<TcpStream> = (0..now).map(|_| TcpStream::connect(to).unwrap()).collect();
        left -= now;
        gone += now;
        within_ten_seconds("accepting all", || {
            for (n, lane) in got.iter_mut().zip(lanes) {
                let own = TcpListener::from(lane.try_clone().unwrap());
                own.set_nonblocking(true).unwrap();
                *n += own.incoming().map_while(Result::ok).count();
            }
            got.iter().sum::<usize>() == gone
        });
        drop(held);
    }
    got
}

/// A connection on its way.
fn connecting(to: SocketAddr) -> OwnedFd {
    mio::net::TcpStream::connect(to).unwrap().into()
}

const ESTABLISHED: u8 = 1;
const SYN_SENT: u8 = 2;

/// Its state, and how often its last segment was sent again.
fn progress(s: &OwnedFd) -> (u8, u8) {
    let mut info = [0u8; 8];
    assert_eq!(tcp_info(s.as_fd(), &mut info).unwrap(), 8);
    (info[0], info[2])
}

#[test]
fn a_client_that_is_held_back_gets_its_answer_and_no_more_is_heard_of_it() {
    use std::io::{Read, Write};
    let hold = steering::raw(&steering::hold_back());
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(at).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        if let Err(e) = filter(server.as_fd(), &hold) {
            assert_eq!(e.raw_os_error(), Some(libc::EPERM));
            assert!(!crate::sys::guise::capable(12)); // CAP_NET_ADMIN
            return;
        }
        // The answer comes while the next request is under way, and is acknowledged with that.
        client.write_all(b"GET").unwrap();
        let answer = vec![7; 100_000];
        server.set_nonblocking(true).unwrap();
        let mut got = vec![0; answer.len()];
        std::thread::scope(|s| {
            s.spawn(|| client.read_exact(&mut got).unwrap());
            let mut left = &answer[..];
            within_ten_seconds("answering", || {
                left = &left[server.write(left).unwrap_or(0)..];
                left.is_empty()
            });
        });
        assert_eq!(got, answer, "{at}");
        within_ten_seconds("arriving", || unacknowledged(server.as_fd()).unwrap() == 0);
        let sent_again = |s: &TcpStream| {
            let mut info = [0u8; 104];
            tcp_info(s.as_fd(), &mut info).unwrap();
            // tcpi_total_retrans
            u32::from_ne_bytes(info[100..104].try_into().unwrap())
        };
        within_ten_seconds("trying again", || sent_again(&client) > 0);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(unread(server.as_fd()).unwrap(), 0, "{at}");
        let mut ask = [0; 3];
        let none = server.read(&mut ask).unwrap_err();
        assert_eq!(none.kind(), std::io::ErrorKind::WouldBlock, "{at}");
        // When it is let go all of it comes, in its order.
        unfilter(server.as_fd()).unwrap();
        within_ten_seconds("coming", || server.read(&mut ask).is_ok());
        assert_eq!(&ask, b"GET", "{at}");
        within_ten_seconds("ending", || matches!(server.read(&mut ask), Ok(0)));
    }
}

#[test]
fn the_index_of_a_lane_is_its_place_in_the_order_of_listening() {
    for at in ANYWHERE {
        let lanes = group(at, 3);
        for n in 0..3u32 {
            steer(&lanes[1], &[(n, 1)]);
            let mut want = [0; 3];
            want[n as usize] = 20;
            assert_eq!(deal(&lanes, 20), want, "{at}, steered to {n}");
        }
        assert_eq!(queued(lanes[0].as_fd()).unwrap(), 0);
    }
}

#[test]
fn clients_of_both_families_are_steered_on_a_socket_of_both() {
    let mut lanes = group("[::]:0", 2);
    steer(&lanes[0], &[(1, 1)]);
    let port = reached(&lanes[0]).port();
    let held: Vec<TcpStream> = ["127.0.0.1", "::1"]
        .map(|ip| TcpStream::connect((ip, port)).unwrap())
        .into();
    within_ten_seconds("both are queued", || queued(lanes[1].as_fd()).unwrap() == 2);
    assert_eq!(queued(lanes[0].as_fd()).unwrap(), 0);
    let own = TcpListener::from(lanes.remove(1));
    let peers = [(); 2].map(|()| own.accept().unwrap().1);
    assert!(peers.iter().all(SocketAddr::is_ipv6), "{peers:?}");
    drop(held);
}

#[test]
fn the_last_lane_moves_into_the_hole_and_who_listens_again_is_the_last() {
    for at in ANYWHERE {
        let lanes = group(at, 4);
        socket::stop_listening(lanes[1].as_fd());
        // 0, 3, 2
        steer(&lanes[0], &[(1, 1)]);
        assert_eq!(deal(&lanes, 10), [0, 0, 0, 10], "{at}");
        listen(lanes[1].as_fd(), 1024).unwrap();
        // 0, 3, 2, 1
        assert_eq!(deal(&lanes, 10), [0, 0, 0, 10], "{at}");
        steer(&lanes[0], &[(3, 1)]);
        assert_eq!(deal(&lanes, 10), [0, 10, 0, 0], "{at}");
        // The last one goes: no hole.
        socket::stop_listening(lanes[1].as_fd());
        steer(&lanes[0], &[(2, 1)]);
        assert_eq!(deal(&lanes, 10), [0, 0, 10, 0], "{at}");
        // The first one is nothing special: the last moves there, too.
        socket::stop_listening(lanes[0].as_fd());
        steer(&lanes[2], &[(0, 1)]);
        let some: Vec<OwnedFd> = lanes.into_iter().skip(2).collect();
        assert_eq!(deal(&some, 10), [10, 0], "{at}");
    }
}

#[test]
fn a_lane_alone_that_stops_and_listens_again_has_a_group_again() {
    let lanes = group("127.0.0.1:0", 1);
    socket::stop_listening(lanes[0].as_fd());
    listen(lanes[0].as_fd(), 64).unwrap();
    steer(&lanes[0], &[(0, 1)]);
    assert_eq!(deal(&lanes, 5), [5]);
}

#[test]
fn an_index_that_no_lane_has_is_dealt_by_the_kernels_hash() {
    let lanes = group("127.0.0.1:0", 2);
    for table in [&[][..], &[(7, 1)]] {
        steer(&lanes[0], table);
        let got = deal(&lanes, 100);
        assert!(got.iter().all(|n| *n > 0), "{got:?}");
    }
}

#[test]
fn weights_are_kept_within_wide_bounds() {
    for at in ANYWHERE {
        let lanes = group(at, 3);
        steer(&lanes[0], &[(0, 1), (2, 3)]);
        let got = deal(&lanes, 2000);
        assert!(
            (300..=700).contains(&got[0]) && got[1] == 0,
            "{at}: {got:?}"
        );
        steer(&lanes[0], &[(0, 1), (1, 1), (2, 2)]);
        let got = deal(&lanes, 2000);
        let wide = [300..=700, 300..=700, 800..=1200];
        assert!(
            got.iter().zip(wide).all(|(n, w)| w.contains(n)),
            "{at}: {got:?}"
        );
    }
}

#[test]
fn nobody_gets_into_a_new_lane_before_it_is_opened() {
    for (at, wanted) in ANYWHERE
        .map(|at| [(at, Gate::Filter), (at, Gate::Distance)])
        .concat()
    {
        let mut lanes = group(at, 1);
        let (new, gate) = beside(&lanes[0]);
        // By this means only.
        if !shut(&new, wanted) {
            continue;
        }
        if gate != wanted {
            let_in(new.as_fd(), gate).unwrap();
        }
        lanes.push(new);
        // Steered to by mistake, or by the kernel's hash: its clients wait.
        steer(&lanes[0], &[(1, 1)]);
        let waiting = connecting(reached(&lanes[0]));
        steer(&lanes[0], &[(0, 1)]);
        assert_eq!(deal(&lanes, 10), [10, 0], "{at} {wanted:?}");
        assert_eq!(progress(&waiting).0, SYN_SENT, "{at} {wanted:?}");
        let_in(lanes[1].as_fd(), wanted).unwrap();
        let_in(lanes[1].as_fd(), wanted).unwrap();
        steer(&lanes[0], &[(1, 1)]);
        assert_eq!(deal(&lanes[1..], 10), [10], "{at} {wanted:?}");
    }
}

#[test]
fn who_was_kept_out_gets_in_when_it_is_opened() {
    let by = |gate| {
        let lane = group("127.0.0.1:0", 1).remove(0);
        let before = TcpStream::connect(reached(&lane)).unwrap();
        // Its handshake has ended on both sides: what ends it would be dropped by distance, too.
        within_ten_seconds("being queued", || queued(lane.as_fd()).unwrap() == 1);
        let permitted = shut(&lane, gate);
        permitted.then(|| (gate, connecting(reached(&lane)), before, lane))
    };
    let all = [by(Gate::Filter), by(Gate::Distance)];
    let all = all.iter().flatten();
    for (gate, waiting, before, lane) in all.clone() {
        within_ten_seconds("trying again", || progress(waiting).1 > 0);
        assert_eq!(progress(waiting).0, SYN_SENT);
        // Who was in before is served meanwhile.
        let own = TcpListener::from(lane.try_clone().unwrap());
        let (mut served, peer) = own.accept().unwrap();
        assert_eq!(peer, before.local_addr().unwrap());
        std::io::Write::write_all(&mut served, b"x").unwrap();
        std::io::Read::read_exact(&mut &*before, &mut [0]).unwrap();
        let_in(lane.as_fd(), *gate).unwrap();
    }
    for (_, waiting, _, lane) in all {
        within_ten_seconds("getting in", || progress(waiting).0 == ESTABLISHED);
        within_ten_seconds("being queued", || queued(lane.as_fd()).unwrap() == 1);
    }
}

#[test]
fn where_all_are_steered_to_a_shut_lane_handshakes_under_way_end_where_they_began() {
    for at in ANYWHERE {
        let mut lanes = group(at, 1);
        // Handshakes end when the client speaks.
        let (level, option) = (libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT);
        set(lanes[0].as_fd(), level, option, 30).unwrap();
        let (sink, gate) = beside(&lanes[0]);
        if gate == Gate::Filter {
            assert!(shut(&sink, Gate::Distance));
            let_in(sink.as_fd(), gate).unwrap();
        }
        lanes.push(sink);
        let under_way = TcpStream::connect(reached(&lanes[0])).unwrap();
        steer(&lanes[0], &[(1, 1)]);
        let late = connecting(reached(&lanes[0]));
        std::io::Write::write_all(&mut &under_way, b"x").unwrap();
        within_ten_seconds("being queued", || queued(lanes[0].as_fd()).unwrap() == 1);
        let own = TcpListener::from(lanes[0].try_clone().unwrap());
        let (mut served, _) = own.accept().unwrap();
        std::io::Read::read_exact(&mut served, &mut [0]).unwrap();
        assert_eq!(progress(&late).0, SYN_SENT, "{at}");
        assert_eq!(queued(lanes[1].as_fd()).unwrap(), 0, "{at}");
    }
}

/// One that listens as most servers do, with no thought of others.
fn alone(at: &str) -> OwnedFd {
    let addr = at.parse().unwrap();
    let s = socket::tcp_socket(&addr).unwrap();
    socket::bind(s.as_fd(), &addr).unwrap();
    listen(s.as_fd(), 1024).unwrap();
    s
}

#[test]
fn who_listened_already_is_the_first_of_the_group_that_forms_around_it() {
    for at in ANYWHERE {
        let old = alone(at);
        let none = steering::raw(&program(&Table::only(0)));
        let e = attach(old.as_fd(), &none).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EINVAL), "{at}");
        let addr = local_addr(old.as_fd()).unwrap();
        let reach = Reach::of(old.as_fd());
        let shut = steering::raw(&refuse_new());
        let e = open_beside(&addr, &reach, &shut, 64).unwrap_err();
        assert_eq!(e.raw_os_error(), Some(libc::EADDRINUSE), "{at}");
        socket::share_port(old.as_fd()).unwrap();
        let (new, gate) = open_beside(&addr, &reach, &shut, 1024).unwrap();
        let lanes = [old, new];
        steer(&lanes[1], &[(0, 1)]);
        assert_eq!(deal(&lanes, 20), [20, 0], "{at}");
        let_in(lanes[1].as_fd(), gate).unwrap();
        assert_eq!(deal(&lanes, 20), [20, 0], "{at}");
        // Now either will do to attach.
        steer(&lanes[0], &[(1, 1)]);
        assert_eq!(deal(&lanes, 20), [0, 20], "{at}");
    }
}

#[test]
fn what_cannot_be_is_an_error_and_changes_nothing() {
    let lanes = group("127.0.0.1:0", 1);
    let errno = |r: io::Result<()>| r.unwrap_err().raw_os_error();
    for bad in [&[][..], &[(0x20, 0, 0, 0)], &vec![(6, 0, 0, 0); MOST + 1]] {
        assert_eq!(errno(attach(lanes[0].as_fd(), bad)), Some(libc::EINVAL));
        let refused = errno(filter(lanes[0].as_fd(), bad));
        assert!(matches!(refused, Some(libc::EINVAL | libc::EPERM)));
    }
    let connection = TcpStream::connect(reached(&lanes[0])).unwrap();
    assert!(queued(connection.as_fd()).is_err());
    // SAFETY: plain numbers; the result is new and ours alone.
    let other = unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)) };
    assert!(queued(other.as_fd()).is_err());
    assert!(!socket::is_filtered(lanes[0].as_fd()));
}

/// Connects from that address to this port of 127.0.0.1, with a word of options if wanted.
fn from(ip: Ipv4Addr, port: u16, options: bool) -> TcpStream {
    let at = SocketAddr::new(ip.into(), 0);
    let s = socket::tcp_socket(&at).unwrap();
    if options {
        // Three times nothing, and the end.
        let none = i32::from_ne_bytes([1, 1, 1, 0]);
        set(s.as_fd(), libc::IPPROTO_IP, libc::IP_OPTIONS, none).unwrap();
    }
    socket::bind(s.as_fd(), &at).unwrap();
    let to = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(Ipv4Addr::LOCALHOST.octets()),
        },
        sin_zero: [0; 8],
    };
    let len = size_of_val(&to) as libc::socklen_t;
    // SAFETY: the address is plain data, complete, and outlives the call.
    unsafe { cerr(libc::connect(s.as_raw_fd(), (&raw const to).cast(), len)) }.unwrap();
    s.into()
}

/// Who is accepted there.
fn accepted(lane: &OwnedFd) -> Vec<SocketAddr> {
    let own = TcpListener::from(lane.try_clone().unwrap());
    own.set_nonblocking(true).unwrap();
    std::iter::from_fn(|| own.accept().ok().map(|(_, peer)| peer)).collect()
}

fn dealt(deal: Deal, part: Option<(u8, Deal)>) -> Vec<Raw> {
    steering::raw(&program(&Table { deal, part }))
}

#[test]
fn every_client_is_in_the_bucket_that_we_say() {
    let lanes = group("[::]:0", 8);
    let port = reached(&lanes[0]).port();
    for key in [Key::Client, Key::Connection] {
        for buckets in [1024, 8] {
            // Neighbours are never alike.
            let table: Vec<u32> = (0..buckets).map(|b| b * 5 % 8).collect();
            let deal = Deal::Buckets(key, table.clone());
            attach(lanes[0].as_fd(), &dealt(deal, None)).unwrap();
            let client = |n: u8| match n % 4 {
                0 => TcpStream::connect(("::1", port)).unwrap(),
                _ => from(Ipv4Addr::new(127, 0, n % 3, 1 + n / 2), port, n % 4 == 1),
            };
            let held: Vec<TcpStream> = (0..200).map(client).collect();
            let mut got = 0;
            within_ten_seconds("accepting all", || {
                for (lane, n) in lanes.iter().zip(0u32..) {
                    for peer in accepted(lane) {
                        let want = table[bucket(key, peer, buckets as usize)];
                        assert_eq!(n, want, "{peer} {key:?} {buckets}");
                        got += 1;
                    }
                }
                got == held.len()
            });
        }
    }
}

#[test]
fn a_connection_goes_to_a_lane_of_the_cpu_that_received_it() {
    use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
    let me = nix::unistd::Pid::from_raw(0);
    let lanes = group("127.0.0.1:0", 3);
    let to = reached(&lanes[0]);
    // The other threads stay where they are.
    std::thread::scope(|s| {
        s.spawn(|| {
            let usable = sched_getaffinity(me).unwrap();
            let usable = (0..CpuSet::count()).filter(|c| usable.is_set(*c).unwrap());
            for cpu in usable.take(4) {
                let mut one = CpuSet::new();
                one.set(cpu).unwrap();
                sched_setaffinity(me, &one).unwrap();
                let at = u16::try_from(cpu).unwrap();
                // What is on loopback is received where it is sent.
                let mut all = vec![(0, vec![0]), (at, vec![1, 2]), (at + 1, vec![0])];
                all.retain(|(n, l)| *n != 0 || *l != [0] || at != 0);
                attach(lanes[0].as_fd(), &dealt(Deal::Cpus(all), None)).unwrap();
                let _held: Vec<TcpStream> =
                    (0..60).map(|_| TcpStream::connect(to).unwrap()).collect();
                let mut got = [0; 3];
                within_ten_seconds("accepting all", || {
                    for (n, lane) in got.iter_mut().zip(&lanes) {
                        *n += accepted(lane).len();
                    }
                    got.iter().sum::<usize>() == 60
                });
                assert!(got[0] == 0 && got[1] > 0 && got[2] > 0, "{cpu}: {got:?}");
            }
        });
    });
}

#[test]
fn nobody_gets_to_an_unsteered_lane_while_tables_of_all_kinds_take_turns() {
    let lanes = group("127.0.0.1:0", 3);
    let port = reached(&lanes[0]).port();
    let long: Vec<u32> = (0..1024).map(|b| b % 2 * 2).collect();
    let tables = [
        dealt(Deal::Buckets(Key::Client, long.clone()), None),
        dealt(Deal::Shares(vec![(2, 1)]), None),
        dealt(
            Deal::Buckets(Key::Client, vec![2; 4]),
            Some((30, Deal::Buckets(Key::Connection, long))),
        ),
        dealt(Deal::Cpus(vec![(0, vec![0]), (1, vec![0, 2])]), None),
        dealt(
            Deal::Cpus(vec![(0, vec![2])]),
            Some((50, Deal::Shares(vec![(0, 1)]))),
        ),
    ];
    let (done, taken) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut came, mut swaps, mut longest_attach) = ([0; 3], 0, Duration::ZERO);
    let begun = Instant::now();
    // Or the panic of who waits for it would wait for it.
    let over = || done.load(Ordering::Relaxed) || begun.elapsed().as_secs() > 20;
    std::thread::scope(|s| {
        let client = s.spawn(|| {
            let (mut count, mut longest) = (0, Duration::ZERO);
            for n in (0..=u8::MAX).cycle() {
                if over() {
                    break;
                }
                // Who finds a queue full would try again, too.
                while count - taken.load(Ordering::Relaxed) > 500 && !over() {
                    std::thread::yield_now();
                }
                let begun = Instant::now();
                let ip = Ipv4Addr::new(127, 0, n, 1 + n % 7);
                drop(from(ip, port, n % 2 == 0));
                longest = longest.max(begun.elapsed());
                count += 1;
            }
            (count, longest)
        });
        let mut take = || {
            for (n, lane) in came.iter_mut().zip(&lanes) {
                *n += accepted(lane).len();
            }
            taken.store(came.iter().sum(), Ordering::Relaxed);
            taken.load(Ordering::Relaxed)
        };
        within_ten_seconds("2,000 clients", || {
            for table in &tables {
                let begun = Instant::now();
                attach(lanes[swaps % 3].as_fd(), table).unwrap();
                longest_attach = longest_attach.max(begun.elapsed());
                swaps += 1;
            }
            take() >= 2000 || client.is_finished()
        });
        done.store(true, Ordering::Relaxed);
        let (count, longest) = client.join().unwrap();
        within_ten_seconds("accepting all", || take() == count);
        // One who comes to nobody tries again after a second.
        assert!(
            longest.as_millis() < 900,
            "{longest:?} {longest_attach:?} {swaps}"
        );
    });
    assert!(
        came[1] == 0 && came[0] > 0 && came[2] > 0,
        "{came:?} {swaps}"
    );
}
