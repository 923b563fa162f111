//! Which of the sockets that share a port gets a new connection: programs on them, and their queues.
//!
//! What the kernel does with the group (tried on Linux 6.18, and held to it by the tests here): a
//! socket joins by listen(2), at the end; one program, attached by any member, covers all, also those
//! that join later; who leaves (shutdown(2), or close of the last descriptor) leaves a hole that the
//! last member moves into; who listens again joins at the end. A socket that listened before it had
//! SO_REUSEPORT is in no group, and cannot be given a program (EINVAL): it becomes the first member,
//! index 0, when the first one that stands beside it listens. From then until a program is attached the
//! kernel's hash deals to both; whom it deals to one that is shut tries again a second later.

use super::cerr;
use super::sockopt::{get, set};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// One instruction of classic BPF: code, jump if true, jump if false, operand.
pub type Raw = (u16, u8, u8, u32);

/// This program deals out the new connections of the whole group that the socket belongs to, in place
/// of the one before, from one connection to the next.
///
/// Only on one that listens: before that it would be in a group of its own, and listen(2) would fail.
pub fn attach(fd: BorrowedFd<'_>, program: &[Raw]) -> io::Result<()> {
    load(fd, libc::SO_ATTACH_REUSEPORT_CBPF, program)
}

/// What keeps new clients out of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// A filter: what opens a connection is dropped, all else passes.
    Filter,
    /// Only what was sent with the greatest TTL there is, and has come directly, is heard. That is none
    /// of what usual clients send, but it may be one. All else is dropped, the end of a handshake by SYN
    /// cookies, too; who gets in has the same on the connection.
    Distance,
}

/// Keeps new clients out of a lane that is about to listen, by this filter if we may: since 2026 it
/// takes CAP_NET_ADMIN on sockets of TCP (Linux 5d39580f68e6), which a container's root has not got.
/// Else by distance, which takes nothing.
///
/// Without a filter new clients can be refused at lanes that serve by steering all of them to one that
/// is kept shut: handshakes under way end where they began.
pub fn keep_out(fd: BorrowedFd<'_>, program: &[Raw]) -> io::Result<Gate> {
    match filter(fd, program) {
        Ok(()) => Ok(Gate::Filter),
        Err(e) if e.raw_os_error() == Some(libc::EPERM) => {
            keep_distance(fd)?;
            Ok(Gate::Distance)
        }
        Err(e) => Err(e),
    }
}

/// New clients may come in. (What a server has set for IP_MINTTL itself meanwhile is lost.)
pub fn let_in(fd: BorrowedFd<'_>, gate: Gate) -> io::Result<()> {
    match gate {
        Gate::Filter => unfilter(fd),
        Gate::Distance => set_distance(fd, 0),
    }
}

fn keep_distance(fd: BorrowedFd<'_>) -> io::Result<()> {
    set_distance(fd, 255)
}

/// For both families on a socket of IPv6, which may serve both.
fn set_distance(fd: BorrowedFd<'_>, least: i32) -> io::Result<()> {
    set(fd, libc::IPPROTO_IP, libc::IP_MINTTL, least)?;
    match get(fd, libc::SOL_SOCKET, libc::SO_DOMAIN)? {
        libc::AF_INET6 => set(fd, libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT, least),
        _ => Ok(()),
    }
}

/// From now on no client finds this socket, other than by the program of its group: it can be closed
/// unnoticed. It cannot be undone without CAP_NET_RAW.
///
/// The kernel looks for the first socket of an address that fits, and asks that one's group, if it has
/// one: one that is just leaving it has none, and gets the connection itself. Now it fits nobody, since
/// it is bound to an interface which does not exist. (Tried on 6.18; since Linux 5.7 it takes no rights,
/// unless the socket is bound to an interface already: EPERM.)
pub fn hide(fd: BorrowedFd<'_>) -> io::Result<()> {
    set(fd, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX, NOWHERE)
}

/// An interface that there never is: they are numbered from 1.
const NOWHERE: i32 = i32::MAX;

/// Of a group this one gets all new connections from now on, whatever the program says, until it shares
/// its port again (`socket::share_port`): no client notices that the others leave meanwhile and that it
/// moves. The others are to be closed: they are hidden, so that this one is the first, and it no longer
/// has a group that could be asked.
pub fn alone(one: BorrowedFd<'_>, others: &[BorrowedFd<'_>]) -> io::Result<()> {
    // All of them are alike: none can be hidden, or all.
    others.iter().try_for_each(|fd| hide(*fd))?;
    set(one, libc::SOL_SOCKET, libc::SO_REUSEPORT, 0)
}

/// What this filter says 0 of does not get in. Beside the program of the group. EPERM: see `keep_out`.
pub fn filter(fd: BorrowedFd<'_>, program: &[Raw]) -> io::Result<()> {
    load(fd, libc::SO_ATTACH_FILTER, program)
}

/// Takes the filter off. One that has none is fine, too.
pub fn unfilter(fd: BorrowedFd<'_>) -> io::Result<()> {
    match set(fd, libc::SOL_SOCKET, libc::SO_DETACH_FILTER, 0) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        other => other,
    }
}

/// More instructions the kernel takes from nobody (BPF_MAXINSNS).
const MOST: usize = 4096;

fn load(fd: BorrowedFd<'_>, option: i32, program: &[Raw]) -> io::Result<()> {
    if program.len() > MOST {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let one = |(code, jt, jf, k): &Raw| libc::sock_filter {
        code: *code,
        jt: *jt,
        jf: *jf,
        k: *k,
    };
    let mut all: Vec<libc::sock_filter> = program.iter().map(one).collect();
    let whole = libc::sock_fprog {
        len: u16::try_from(all.len()).unwrap_or(0),
        filter: all.as_mut_ptr(),
    };
    let len = size_of_val(&whole) as libc::socklen_t;
    let p = (&raw const whole).cast();
    // SAFETY: the kernel copies `len` instructions, which outlive the call, and checks them.
    unsafe {
        cerr(libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            p,
            len,
        ))
    }
    .map(drop)
}

/// What the kernel keeps of a TCP connection (struct tcp_info), as far as it goes: how many bytes.
pub fn tcp_info(fd: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<usize> {
    let mut len = libc::socklen_t::try_from(into.len()).unwrap_or(0);
    let p = into.as_mut_ptr().cast();
    // SAFETY: into has room for len bytes.
    unsafe {
        cerr(libc::getsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            p,
            &mut len,
        ))?
    };
    Ok(usize::try_from(len).unwrap_or(0))
}

/// So many connections wait in the queue of this listening socket for somebody to accept them.
pub fn queued(fd: BorrowedFd<'_>) -> io::Result<u32> {
    const LISTEN: u8 = 10;
    /// tcpi_unacked, which in a listening socket is that.
    const UNACKED: usize = 24;
    let mut info = [0u8; UNACKED + 4];
    let n = tcp_info(fd, &mut info)?;
    match n == info.len() && info[0] == LISTEN {
        true => Ok(u32::from_ne_bytes([
            info[UNACKED],
            info[UNACKED + 1],
            info[UNACKED + 2],
            info[UNACKED + 3],
        ])),
        false => Err(io::Error::from_raw_os_error(libc::EINVAL)),
    }
}

/// So many bytes of a connection have come and were not read yet (the end of it is none).
pub fn unread(fd: BorrowedFd<'_>) -> io::Result<u32> {
    number(fd, libc::FIONREAD)
}

/// So many bytes were written to a connection and are not acknowledged by the other side.
pub fn unacknowledged(fd: BorrowedFd<'_>) -> io::Result<u32> {
    number(fd, libc::TIOCOUTQ)
}

fn number(fd: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<u32> {
    let mut value: i32 = 0;
    // SAFETY: these requests write one int.
    unsafe { cerr(libc::ioctl(fd.as_raw_fd(), request, &raw mut value))? };
    Ok(u32::try_from(value).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::clock;
    use super::super::socket::{
        self, Reach, listen, listen_first, local_addr, open_beside, open_lane,
    };
    use super::*;
    use crate::wire::steering::{self, program, refuse_new};
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::fd::{AsFd, FromRawFd, OwnedFd};
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
        attach(member.as_fd(), &steering::raw(&program(table))).unwrap();
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
                    assert!(!super::super::guise::capable(12)); // CAP_NET_ADMIN
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
                assert!(!super::super::guise::capable(12)); // CAP_NET_ADMIN
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
            let none = steering::raw(&program(&[(0, 1)]));
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
        let other =
            unsafe { OwnedFd::from_raw_fd(libc::socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)) };
        assert!(queued(other.as_fd()).is_err());
        assert!(!socket::is_filtered(lanes[0].as_fd()));
    }
}
