//! The kernel's word on connections whose state we know, and what becomes of those that are closed.

use super::*;
use crate::sys::clock;
use crate::wire::debt::debt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LOOPBACKS: [&str; 3] = ["127.0.0.1:0", "[::1]:0", "[::]:0"];

fn within_ten_seconds(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < end, "{what}: not within ten seconds");
        clock::pause(Duration::from_millis(1));
    }
}

fn me() -> i32 {
    std::process::id().cast_signed()
}

/// A server in this process, one connection after another.
struct Server {
    listener: TcpListener,
    port: u16,
    observer: Observer,
}

impl Server {
    fn new(at: &str) -> Server {
        let listener = TcpListener::bind(at).unwrap();
        let port = listener.local_addr().unwrap().port();
        let observer = Observer::default();
        Server {
            listener,
            port,
            observer,
        }
    }

    /// Client and server of a new connection.
    fn pair(&self) -> (TcpStream, TcpStream) {
        let mut to = self.listener.local_addr().unwrap();
        if to.ip().is_unspecified() {
            // By IPv4, to a socket of both families.
            to.set_ip([127, 0, 0, 1].into());
        }
        let client = TcpStream::connect(to).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        (client, self.listener.accept().unwrap().0)
    }

    /// The same after an answer that came long enough after the request to be told from it.
    fn answered(&mut self) -> (TcpStream, TcpStream) {
        let (mut client, mut server) = self.pair();
        client.write_all(b"ask").unwrap();
        server.read_exact(&mut [0; 3]).unwrap();
        clock::pause(Duration::from_millis(40));
        server.write_all(b"answer").unwrap();
        client.read_exact(&mut [0; 6]).unwrap();
        within_ten_seconds("all is acknowledged", || self.find(&server).wqueue == 0);
        (client, server)
    }

    /// The connection as the kernel tells of it.
    fn find(&mut self, server: &TcpStream) -> Conn {
        let inode = fds::inode(server.as_fd()).unwrap();
        let all = self.observer.connections(&ports_of(&[self.port])).unwrap();
        let found = all.into_iter().find(|c| c.inode == inode);
        found.expect("the connection is listed")
    }

    fn debt(&mut self, server: &TcpStream) -> Debt {
        debt(&self.find(server))
    }
}

fn close(server: &TcpStream, how: How) -> bool {
    let inode = fds::inode(server.as_fd()).unwrap();
    close_gently(me(), server.as_raw_fd(), inode, how).unwrap()
}

fn ports_of(ports: &[u16]) -> Ports {
    let all: BTreeSet<u16> = ports.iter().copied().collect();
    Ports {
        v4: all.clone(),
        v6: all,
    }
}

fn handshakes(observer: &mut Observer, ports: &[u16]) -> io::Result<BTreeSet<(u16, SocketAddr)>> {
    Ok(observer.look(&ports_of(ports))?.handshakes)
}

#[test]
fn connections_of_these_ports_are_listed_as_they_are() {
    for at in LOOPBACKS {
        let (mut one, two, other) = (Server::new(at), Server::new(at), Server::new(at));
        let pairs = [one.pair(), two.pair(), other.pair()];
        let all = one
            .observer
            .connections(&ports_of(&[one.port, two.port, one.port]));
        let all = all.unwrap();
        assert_eq!(all.len(), 2, "{at}");
        for ((client, server), port) in pairs.iter().zip([one.port, two.port]) {
            let inode = fds::inode(server.as_fd()).unwrap();
            let c = all.iter().find(|c| c.inode == inode).unwrap();
            assert_eq!(c.local, server.local_addr().unwrap(), "{at}");
            assert_eq!(c.peer, server.peer_addr().unwrap(), "{at}");
            assert_eq!(c.peer.port(), client.local_addr().unwrap().port());
            assert_eq!((c.local.port(), c.state), (port, state::ESTABLISHED));
            assert_ne!(c.cookie, 0);
            assert!(c.info.is_some_and(|i| i.bytes_sent == Some(0)), "{c:?}");
        }
        // More than fit into one filter, and the least.
        let all: Vec<u16> = (1..=600).chain([one.port]).collect();
        let few = |ports: &[u16]| Observer::default().connections(&ports_of(ports)).unwrap();
        let ours = |c: &&Conn| c.local.port() == one.port;
        assert_eq!(few(&all).iter().filter(ours).count(), 1, "{at}");
        assert!(few(&[]).is_empty() && few(&[0]).is_empty());
    }
}

#[test]
fn one_that_waits_to_be_accepted_is_nobodys() {
    let mut server = Server::new("127.0.0.1:0");
    let client = TcpStream::connect(server.listener.local_addr().unwrap()).unwrap();
    let mut look = || {
        server
            .observer
            .connections(&ports_of(&[server.port]))
            .unwrap()
    };
    within_ten_seconds("it is queued", || look().len() == 1);
    let c = look()[0];
    assert_eq!((c.inode, c.peer), (0, client.local_addr().unwrap()));
}

#[test]
fn what_is_owed_is_seen_from_outside() {
    for at in LOOPBACKS {
        let mut s = Server::new(at);
        let (mut client, mut server) = s.pair();
        assert_eq!(s.debt(&server), Debt::Fresh, "{at}");
        client.write_all(b"ask").unwrap();
        assert_eq!(s.debt(&server), Debt::Owed, "{at}: unread");
        server.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(s.debt(&server), Debt::Owed, "{at}: in flight");
        let (mut client, mut server) = s.answered();
        assert_eq!(s.debt(&server), Debt::Settled, "{at}: answered");
        assert!(debt::silent_ms(&s.find(&server)) < 10_000);
        clock::pause(Duration::from_millis(40));
        client.write_all(b"ask").unwrap();
        server.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(s.debt(&server), Debt::Owed, "{at}: asked again");
        // More than the client has room for.
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 65_536]).is_ok() {}
        assert_eq!(s.debt(&server), Debt::Owed, "{at}: half an answer");
        assert!(s.find(&server).wqueue > 0);
    }
}

#[test]
fn a_client_that_has_said_all_waits_for_the_answer_only_if_it_had_none() {
    let mut s = Server::new("127.0.0.1:0");
    let shut = |c: &TcpStream| c.shutdown(std::net::Shutdown::Write).unwrap();
    let (client, server) = s.answered();
    shut(&client);
    within_ten_seconds("its end has come", || {
        s.find(&server).state == state::CLOSE_WAIT
    });
    assert_eq!(s.debt(&server), Debt::Settled);
    let (mut client, mut server) = s.pair();
    client.write_all(b"ask").unwrap();
    shut(&client);
    within_ten_seconds("its end has come", || {
        s.find(&server).state == state::CLOSE_WAIT
    });
    assert_eq!(s.debt(&server), Debt::Owed);
    server.read_exact(&mut [0; 3]).unwrap();
    // Its end, at most: the kernel may have counted that as read.
    assert!(s.find(&server).rqueue <= 1);
    assert_eq!(s.debt(&server), Debt::Owed);
    // The server has said its last word: it owes nothing, and is still listed.
    shut(&server);
    let (_client, server) = s.pair();
    shut(&server);
    within_ten_seconds("ours has come", || {
        s.find(&server).state == state::FIN_WAIT2
    });
    assert_eq!(s.debt(&server), Debt::Settled);
}

#[test]
fn one_closed_gently_ends_cleanly_and_the_others_go_on() {
    for at in LOOPBACKS {
        let mut s = Server::new(at);
        let (mut client, mut server) = s.answered();
        let (mut other, mut its) = s.answered();
        assert!(close(&server, How::Half), "{at}");
        // It reads what comes all the same, and then the end.
        client.write_all(b"late").unwrap();
        server.read_exact(&mut [0; 4]).unwrap();
        assert_eq!(server.read(&mut [0; 4]).unwrap(), 0, "{at}");
        server.write_all(b"done").unwrap();
        drop(server);
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"done", "{at}");
        other.write_all(b"ask").unwrap();
        its.read_exact(&mut [0; 3]).unwrap();
        its.write_all(b"answer").unwrap();
        other.read_exact(&mut [0; 6]).unwrap();
        assert!(close(&its, How::Both), "{at}");
        assert_eq!(other.read(&mut [0; 1]).unwrap(), 0, "{at}");
    }
}

#[test]
fn nothing_is_closed_on_which_something_is_owed_or_that_is_something_else() {
    let s = Server::new("127.0.0.1:0");
    let (mut client, mut server) = s.pair();
    client.write_all(b"ask").unwrap();
    assert!(!close(&server, How::Half));
    server.read_exact(&mut [0; 3]).unwrap();
    assert!(!close(&server, How::Half));
    let inode = fds::inode(server.as_fd()).unwrap();
    let fd = server.as_raw_fd();
    let gone = |pid, fd, inode| !close_gently(pid, fd, inode, How::Both).unwrap();
    assert!(gone(me(), fd, inode + 1));
    assert!(gone(me(), 1_000_000, inode));
    assert!(gone(i32::MAX, fd, inode));
    let listening = fds::inode(s.listener.as_fd()).unwrap();
    assert!(gone(me(), s.listener.as_raw_fd(), listening));
    assert!(socket::is_listening(s.listener.as_fd()));
    server.write_all(b"answer").unwrap();
    client.read_exact(&mut [0; 6]).unwrap();
}

#[test]
fn the_owners_of_a_socket_are_all_who_have_it() {
    let s = Server::new("127.0.0.1:0");
    let (_client, server) = s.pair();
    let copy = server.try_clone().unwrap();
    let inode = fds::inode(server.as_fd()).unwrap();
    let (wanted, worker) = (BTreeSet::from([inode, 1]), WorkerId(7));
    let trees = [(WorkerId(6), vec![i32::MAX]), (worker, vec![me()])];
    let found = owners(&trees, &wanted);
    assert!(!found.cut && found.unseen.is_empty());
    let mut have: Vec<RawFd> = found.of[&inode].iter().map(|o| o.fd).collect();
    have.sort_unstable();
    let mut want = [server.as_raw_fd(), copy.as_raw_fd()];
    want.sort_unstable();
    assert_eq!(have, want);
    assert!(
        found.of[&inode]
            .iter()
            .all(|o| (o.worker, o.pid) == (worker, me()))
    );
    assert_eq!(found.of.len(), 1);
    // 0, 1, 2 and what is above.
    let found = owners_within(&trees, &wanted, 3);
    assert!(found.cut && found.of.is_empty());
}

#[test]
fn who_rests_has_nothing_open_and_can_go_on() {
    let mut observer = Observer::default();
    observer.connections(&ports_of(&[1])).unwrap();
    assert!(observer.netlink.is_some());
    observer.rest();
    assert!(observer.netlink.is_none() && observer.room.capacity() == 0);
    observer.look(&ports_of(&[1])).unwrap();
    let refused = |seq| sock_diag::request(200, 1, &[1], false, seq);
    let e = observer
        .ask(refused, sock_diag::parse, &mut Vec::new())
        .unwrap_err();
    assert_eq!(e.raw_os_error(), Some(libc::EINVAL));
}

/// A server that answers what comes, and closes when its client has no more to say; with a number,
/// handshakes end only when the client speaks, or after so many seconds.
const ECHO: &str = "
import selectors, socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
dual = sys.argv[1] == '::'
l = socket.create_server((sys.argv[1], 0), family=family, dualstack_ipv6=dual)
if len(sys.argv) > 2:
    l.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, int(sys.argv[2]))
s = selectors.DefaultSelector()
s.register(l, selectors.EVENT_READ)
print(l.getsockname()[1], flush=True)
while True:
    for key, _ in s.select():
        if key.fileobj is l:
            s.register(l.accept()[0], selectors.EVENT_READ)
        elif data := key.fileobj.recv(100):
            key.fileobj.send(data)
        else:
            s.unregister(key.fileobj)
            key.fileobj.close()
";

/// Such a server, until it is dropped.
struct Echo(std::process::Child, u16);

impl Echo {
    fn new(args: &[&str]) -> Echo {
        let mut child = Command::new("python3")
            .args(["-c", ECHO])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        Echo(child, line.trim().parse().unwrap())
    }

    fn connect(&self, ip: &str) -> TcpStream {
        let client = TcpStream::connect((ip, self.1)).unwrap();
        let limit = Some(Duration::from_secs(10));
        client.set_read_timeout(limit).unwrap();
        client
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ask(c: &mut TcpStream) {
    c.write_all(b"x").unwrap();
    c.read_exact(&mut [0]).unwrap();
}

#[test]
fn a_server_that_knows_nothing_of_us_closes_what_we_ask_it_to() {
    let server = Echo::new(&["127.0.0.1"]);
    let mut clients = [(); 2].map(|()| server.connect("127.0.0.1"));
    clients.iter_mut().for_each(ask);
    let mut observer = Observer::default();
    let peer = clients[0].local_addr().unwrap();
    let mut look = || {
        let all = observer.connections(&ports_of(&[server.1])).unwrap();
        all.into_iter().find(|c| c.peer == peer).unwrap()
    };
    within_ten_seconds("all is acknowledged", || look().wqueue == 0);
    let inode = look().inode;
    let pid = server.0.id().cast_signed();
    let trees = [(WorkerId(1), procfs::tree(pid))];
    let found = owners(&trees, &BTreeSet::from([inode]));
    let owner = found.of[&inode][0];
    assert_eq!(owner.pid, pid);
    assert!(close_gently(pid, owner.fd, inode, How::Half).unwrap());
    assert_eq!(clients[0].read(&mut [0]).unwrap(), 0);
    ask(&mut clients[1]);
}

#[test]
fn a_handshake_is_seen_until_it_has_ended() {
    for (at, from) in [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("::", "127.0.0.1"),
    ] {
        let server = Echo::new(&[at, "30"]);
        let mut client = server.connect(from);
        let mut peer = client.local_addr().unwrap();
        if at == "::" {
            peer.set_ip("::ffff:127.0.0.1".parse().unwrap());
        }
        let (mut observer, ports) = (Observer::default(), [server.1]);
        let seen = handshakes(&mut observer, &ports).unwrap();
        assert_eq!(seen, BTreeSet::from([(server.1, peer)]), "{at}");
        assert_eq!(
            observer.connections(&ports_of(&ports)).unwrap(),
            vec![],
            "{at}"
        );
        // Among others the kernel looks for it by other means.
        assert_eq!(handshakes(&mut observer, &[1, server.1, 2]).unwrap(), seen);
        ask(&mut client);
        let conns = observer.connections(&ports_of(&ports)).unwrap();
        assert_eq!((conns.len(), conns[0].peer), (1, peer), "{at}");
        assert!(handshakes(&mut observer, &ports).unwrap().is_empty());
    }
}
