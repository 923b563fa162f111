//! What the kernel tells about connections (sock_diag(7)): questions and answers. What follows from them
//! is in `debt`, unix sockets are in `unix_diag`.
//!
//! Numbers are in the machine's order, but for ports and addresses. Whatever comes is read with care:
//! what is cut or makes no sense is an error or is left out, never a panic.

use super::ports_filter::{MOST_PORTS, any_of};
use super::steering::ins::{Ins, JEQ, LOAD_HALF, RET};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// States of a TCP connection, as the kernel numbers them.
pub mod state {
    /// Both sides may speak.
    pub const ESTABLISHED: u8 = 1;
    /// A handshake that waits for its end, in a queue of its own.
    pub const SYN_RECV: u8 = 3;
    /// The server has closed, and not all of that has arrived.
    pub const FIN_WAIT1: u8 = 4;
    /// The server has closed; the client may still speak.
    pub const FIN_WAIT2: u8 = 5;
    /// Both have closed: what is late is waited for.
    pub const TIME_WAIT: u8 = 6;
    /// Nothing.
    pub const CLOSE: u8 = 7;
    /// The client has said all it had to say; the server may still speak.
    pub const CLOSE_WAIT: u8 = 8;
    /// Both have closed, the client first.
    pub const LAST_ACK: u8 = 9;
    /// Waits for connections.
    pub const LISTEN: u8 = 10;
    /// Both have closed at the same time.
    pub const CLOSING: u8 = 11;
}

/// Those of IPv4.
pub const AF_INET: u8 = 2;
/// Those of IPv6, also where it carries IPv4.
pub const AF_INET6: u8 = 10;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const IPPROTO_TCP: u8 = 6;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// struct nlmsghdr
const HEADER: usize = 16;
/// struct inet_diag_msg
const INET_MSG: usize = 72;
/// The attribute that holds a struct tcp_info.
const INET_DIAG_INFO: u16 = 2;

/// One connection, seen from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conn {
    /// Its own end,
    pub local: SocketAddr,
    /// and the client's. An IPv4 address on a socket of IPv6 is left as `::ffff:1.2.3.4`.
    pub peer: SocketAddr,
    /// One of `state`.
    pub state: u8,
    /// Of the socket; 0: no process has it (not accepted yet, or closed already).
    pub inode: u64,
    /// What no other socket has or will have.
    pub cookie: u64,
    /// Bytes that have come and were not read. Where the client has closed, the news of that counts as
    /// one.
    pub rqueue: u32,
    /// Bytes that were written and are not acknowledged.
    pub wqueue: u32,
    /// More of it, if that was asked for and there is any.
    pub info: Option<Info>,
}

/// What we use of struct tcp_info. Kernels tell more of it the younger they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Segments that are not acknowledged.
    pub unacked: u32,
    /// Since the last data was sent, or since it was established.
    pub last_sent_ms: u32,
    /// Since the last data came, or since it was established.
    pub last_recv_ms: u32,
    /// Bytes acknowledged by the client (Linux 4.1).
    pub bytes_acked: Option<u64>,
    /// Bytes that have come; the end counts as one (Linux 4.1).
    pub bytes_received: Option<u64>,
    /// All segments that were sent (Linux 4.2).
    pub segs_out: Option<u32>,
    /// Bytes that wait to be sent (Linux 4.6).
    pub notsent: Option<u32>,
    /// Segments with data that have come (Linux 4.6).
    pub data_segs_in: Option<u32>,
    /// Segments with data that were sent (Linux 4.6).
    pub data_segs_out: Option<u32>,
    /// Bytes sent, repeated ones included (Linux 4.19).
    pub bytes_sent: Option<u64>,
}

impl Info {
    /// Read from a struct tcp_info, or from as much of it as there is. `None`: from too little.
    pub fn parse(bytes: &[u8]) -> Option<Info> {
        Some(Info {
            unacked: u32_at(bytes, 24)?,
            last_sent_ms: u32_at(bytes, 44)?,
            last_recv_ms: u32_at(bytes, 52)?,
            bytes_acked: u64_at(bytes, 120),
            bytes_received: u64_at(bytes, 128),
            segs_out: u32_at(bytes, 136),
            notsent: u32_at(bytes, 144),
            data_segs_in: u32_at(bytes, 152),
            data_segs_out: u32_at(bytes, 156),
            bytes_sent: u64_at(bytes, 200),
        })
    }

    /// Segments that did nothing but acknowledge what had come.
    pub(super) fn acknowledgements(&self) -> Option<u32> {
        Some(self.segs_out?.wrapping_sub(self.data_segs_out?))
    }

    /// Has the client said anything? Where the kernel does not tell, it has. Of the bytes the end is
    /// one, and segments are counted in 32 bits: so both are asked.
    pub(super) fn has_come(&self) -> bool {
        match (self.data_segs_in, self.bytes_received) {
            (None, None) => true,
            (segments, bytes) => segments.is_some_and(|n| n > 0) || bytes.is_some_and(|n| n > 1),
        }
    }

    /// Has the server? Where the kernel does not tell, it has.
    pub(super) fn was_sent(&self) -> bool {
        match (self.data_segs_out, self.bytes_acked) {
            (None, None) => true,
            (segments, bytes) => segments.is_some_and(|n| n > 0) || bytes.is_some_and(|n| n > 0),
        }
    }
}

/// Asks for all TCP sockets of one family in these states (a set of `1 << state`) whose own port is one
/// of these, of which the first `ports_filter::MOST_PORTS` count.
///
/// The kernel goes through its whole table for each question, however few there are to be found: so
/// there is one for all ports.
pub fn request(family: u8, states: u32, ports: &[u16], info: bool, seq: u32) -> Vec<u8> {
    let more = match info {
        true => 1 << (INET_DIAG_INFO - 1),
        false => 0,
    };
    let mut body = vec![family, IPPROTO_TCP, more, 0];
    body.extend(states.to_ne_bytes());
    let (single, several) = match ports {
        // 0 is any.
        [port] if *port != 0 => (*port, None),
        _ => (0, Some(any_of(ports))),
    };
    body.extend(single.to_be_bytes());
    // Any peer, any address, any interface.
    body.extend([0; 2 + 16 + 16 + 4]);
    // INET_DIAG_NOCOOKIE
    body.extend([0xff; 8]);
    body.extend(several.into_iter().flatten());
    message(&body, seq)
}

/// For news of TCP sockets that have ended: lets those pass whose own port is one of these.
pub fn ended_at(ports: &[u16]) -> Vec<Ins> {
    /// Behind the header, family, state, timer and retransmits.
    const PORT: u32 = HEADER as u32 + 4;
    let ports = ports.get(..MOST_PORTS - 2).unwrap_or(ports);
    let mut all = vec![Ins::new(LOAD_HALF, PORT)];
    for (port, left) in ports.iter().zip((0..ports.len()).rev()) {
        // Behind those that are left, and the no.
        let yes = u8::try_from(left + 1).unwrap_or(u8::MAX);
        all.push(Ins::jump(JEQ, u32::from(*port), yes, 0));
    }
    all.extend([Ins::new(RET, 0), Ins::new(RET, u32::MAX)]);
    all
}

/// A question, with its header.
pub(super) fn message(body: &[u8], seq: u32) -> Vec<u8> {
    let len = u32::try_from(HEADER + body.len()).unwrap_or(0);
    let mut all = Vec::from(len.to_ne_bytes());
    all.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    all.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    all.extend(seq.to_ne_bytes());
    all.extend(0u32.to_ne_bytes());
    all.extend(body);
    all
}

/// One part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    /// What is listed in it.
    pub items: Vec<T>,
    /// Was it the last part?
    pub done: bool,
    /// Has the list changed while it was made, so that something may be missing?
    pub interrupted: bool,
    /// The errno by which the question was refused.
    pub error: Option<i32>,
}

/// Why an answer could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It ends too early.
    Cut,
    /// A length in it cannot be.
    Length,
}

/// Reads a part of an answer about TCP to the question of that number. What belongs to another
/// question, and sockets of families that we do not know, are left out.
pub fn parse(bytes: &[u8], seq: u32) -> Result<Parsed<Conn>, Bad> {
    parts(bytes, seq, conn)
}

/// Reads a part of an answer of any kind.
pub(super) fn parts<T>(
    mut bytes: &[u8],
    seq: u32,
    item: fn(&[u8]) -> Result<Option<T>, Bad>,
) -> Result<Parsed<T>, Bad> {
    let mut all = Parsed {
        items: Vec::new(),
        done: false,
        interrupted: false,
        error: None,
    };
    while !bytes.is_empty() && !all.done {
        let len = u32_at(bytes, 0).ok_or(Bad::Cut)?;
        let len = usize::try_from(len).map_err(|_| Bad::Length)?;
        if len < HEADER {
            return Err(Bad::Length);
        }
        let one = bytes.get(..len).ok_or(Bad::Cut)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        if u32_at(one, 8) != Some(seq) {
            continue;
        }
        let (kind, flags) = (u16_at(one, 4), u16_at(one, 6).unwrap_or(0));
        all.interrupted |= flags & NLM_F_DUMP_INTR != 0;
        let body = one.get(HEADER..).ok_or(Bad::Length)?;
        match kind {
            // The list may end with an error, too.
            Some(NLMSG_DONE | NLMSG_ERROR) => {
                let code = u32_at(body, 0).map(|n| i32::from_ne_bytes(n.to_ne_bytes()));
                let code = match kind {
                    Some(NLMSG_ERROR) => code.ok_or(Bad::Cut)?,
                    _ => code.unwrap_or(0),
                };
                all.error = (code < 0).then(|| code.saturating_neg());
                all.done = true;
            }
            Some(SOCK_DIAG_BY_FAMILY) => all.items.extend(item(body)?),
            _ => {}
        }
    }
    Ok(all)
}

fn conn(body: &[u8]) -> Result<Option<Conn>, Bad> {
    let more = body.get(INET_MSG..).ok_or(Bad::Cut)?;
    let [family, state, ..] = *body else {
        return Err(Bad::Cut);
    };
    let (Some(local), Some(peer)) = (end(body, family, 4, 8), end(body, family, 6, 24)) else {
        return Ok(None);
    };
    let word = |at| u32_at(body, at).ok_or(Bad::Cut);
    let mut conn = Conn {
        local,
        peer,
        state,
        // Two words, the lower one first on every machine.
        cookie: u64::from(word(44)?) | u64::from(word(48)?) << 32,
        rqueue: word(56)?,
        wqueue: word(60)?,
        inode: u64::from(word(68)?),
        info: None,
    };
    attributes(more, |kind, value| {
        if kind == INET_DIAG_INFO {
            conn.info = Info::parse(value);
        }
    })?;
    Ok(Some(conn))
}

/// An address of that family, its port and itself at these places.
fn end(body: &[u8], family: u8, port: usize, ip: usize) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([*body.get(port)?, *body.get(port + 1)?]);
    match family {
        AF_INET => {
            let ip: [u8; 4] = body.get(ip..ip + 4)?.try_into().ok()?;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(ip)), port))
        }
        AF_INET6 => {
            let ip: [u8; 16] = body.get(ip..ip + 16)?.try_into().ok()?;
            let v6 = SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, 0);
            Some(SocketAddr::V6(v6))
        }
        _ => None,
    }
}

/// Calls it with the kind and the value of each.
pub(super) fn attributes(mut bytes: &[u8], mut each: impl FnMut(u16, &[u8])) -> Result<(), Bad> {
    /// Flags (nested, byte order) are the two highest bits.
    const KIND: u16 = 0x3fff;
    const HEADER: usize = 4;
    while bytes.len() >= HEADER {
        let len = usize::from(u16_at(bytes, 0).unwrap_or(0));
        if len < HEADER {
            return Err(Bad::Length);
        }
        let value = bytes.get(HEADER..len).ok_or(Bad::Cut)?;
        each(u16_at(bytes, 2).unwrap_or(0) & KIND, value);
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(())
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let b = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(b.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let b = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(b.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let b = bytes.get(at..at + 8)?;
    Some(u64::from_ne_bytes(b.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::respawn::Rng;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(4 + value.len()).unwrap();
        let mut all = Vec::from(len.to_ne_bytes());
        all.extend(kind.to_ne_bytes());
        all.extend(value);
        all.resize(all.len().next_multiple_of(4), 0);
        all
    }

    /// A whole message of that kind, with flags.
    fn answer(kind: u16, flags: u16, seq: u32, body: &[u8]) -> Vec<u8> {
        let mut all = message(body, seq);
        all[4..6].copy_from_slice(&kind.to_ne_bytes());
        all[6..8].copy_from_slice(&flags.to_ne_bytes());
        all.resize(all.len().next_multiple_of(4), 0);
        all
    }

    /// As the kernel tells of a connection, with a tcp_info of so many bytes.
    fn told(family: u8, info: usize) -> Vec<u8> {
        let mut body = vec![0u8; INET_MSG];
        body[0] = family;
        body[1] = state::CLOSE_WAIT;
        body[4..8].copy_from_slice(&[0x0b, 0xb8, 0xc0, 0x01]);
        match family {
            AF_INET => {
                body[8..12].copy_from_slice(&[127, 0, 0, 1]);
                body[24..28].copy_from_slice(&[192, 0, 2, 7]);
            }
            _ => {
                body[23] = 1;
                body[34..40].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 7]);
            }
        }
        for (at, n) in [
            (44, 5u32),
            (48, 6),
            (56, 7),
            (60, 8),
            (64, 1000),
            (68, 4711),
        ] {
            body[at..at + 4].copy_from_slice(&n.to_ne_bytes());
        }
        // What we did not ask for, and of a length that needs padding.
        body.extend(attribute(8, &[3]));
        if info > 0 {
            let words = (0..info / 4).map(|n| u32::try_from(n).unwrap());
            let bytes: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
            body.extend(attribute(INET_DIAG_INFO, &bytes));
        }
        body
    }

    /// Two words of `told`'s tcp_info.
    fn long(low: u64) -> Option<u64> {
        Some(match cfg!(target_endian = "little") {
            true => low | (low + 1) << 32,
            false => low << 32 | (low + 1),
        })
    }

    #[test]
    fn a_question_is_as_the_kernel_wants_it() {
        let q = request(
            AF_INET6,
            1 << state::ESTABLISHED | 1 << state::SYN_RECV,
            &[3000],
            true,
            9,
        );
        assert_eq!(q.len(), 72);
        assert_eq!(u32_at(&q, 0), Some(72));
        assert_eq!((u16_at(&q, 4), u16_at(&q, 6)), (Some(20), Some(0x301)));
        assert_eq!(u32_at(&q, 8), Some(9));
        assert_eq!(q[16..20], [10, 6, 2, 0]);
        assert_eq!(u32_at(&q, 20), Some(0b1010));
        assert_eq!(q[24..28], [0x0b, 0xb8, 0, 0]);
        assert!(q[28..64].iter().all(|b| *b == 0) && q[64..].iter().all(|b| *b == 0xff));
        assert_eq!(request(AF_INET, 0, &[1], false, 1)[18], 0);
    }

    #[test]
    fn connections_are_read_from_both_families() {
        let mut bytes = answer(SOCK_DIAG_BY_FAMILY, 0, 9, &told(AF_INET, 232));
        bytes.extend(answer(SOCK_DIAG_BY_FAMILY, 0, 8, &told(AF_INET, 232))); // another question's
        bytes.extend(answer(SOCK_DIAG_BY_FAMILY, 0, 9, &told(77, 0)));
        bytes.extend(answer(1, 0, 9, b"")); // NOOP
        bytes.extend(answer(SOCK_DIAG_BY_FAMILY, 0, 9, &told(AF_INET6, 0)));
        let got = parse(&bytes, 9).unwrap();
        assert!(!got.done && !got.interrupted && got.error.is_none());
        let info = Info {
            unacked: 6,
            last_sent_ms: 11,
            last_recv_ms: 13,
            bytes_acked: long(30),
            bytes_received: long(32),
            segs_out: Some(34),
            notsent: Some(36),
            data_segs_in: Some(38),
            data_segs_out: Some(39),
            bytes_sent: long(50),
        };
        let first = Conn {
            local: "127.0.0.1:3000".parse().unwrap(),
            peer: "192.0.2.7:49153".parse().unwrap(),
            state: state::CLOSE_WAIT,
            inode: 4711,
            cookie: 5 | 6 << 32,
            rqueue: 7,
            wqueue: 8,
            info: Some(info),
        };
        let second = Conn {
            local: "[::1]:3000".parse().unwrap(),
            peer: "[::ffff:192.0.2.7]:49153".parse().unwrap(),
            info: None,
            ..first
        };
        assert_eq!(got.items, [first, second]);
    }

    #[test]
    fn news_of_our_ports_pass_and_no_others() {
        let passes = |program: &[Ins], port: u16| {
            let mut at = 1;
            while program[at].code == JEQ {
                at += match program[at].k == u32::from(port) {
                    true => 1 + usize::from(program[at].jt),
                    false => 1,
                };
            }
            assert_eq!(program[at].code, RET);
            program[at].k != 0
        };
        for count in [0, 1, 3, 128, 254] {
            let ports: Vec<u16> = (0..count).map(|n| 1000 + 7 * n).collect();
            let program = ended_at(&ports);
            assert_eq!(program[0], Ins::new(LOAD_HALF, 20));
            for port in 990..3000 {
                assert_eq!(
                    passes(&program, port),
                    ports.contains(&port),
                    "{count} {port}"
                );
            }
        }
        let more: Vec<u16> = (0..400).collect();
        assert!(passes(&ended_at(&more), 253));
    }

    #[test]
    fn older_kernels_tell_less() {
        let parse = |len| Info::parse(&vec![1u8; len]);
        assert_eq!(parse(55), None);
        let i = parse(56).unwrap();
        assert_eq!((i.bytes_acked, i.data_segs_in), (None, None));
        assert!(i.has_come() && i.was_sent());
        // Linux 4.1, 4.6, 4.19
        let i = parse(144).unwrap();
        assert!(i.bytes_received.is_some() && i.notsent.is_none());
        let i = parse(160).unwrap();
        assert!(i.data_segs_out.is_some() && i.bytes_sent.is_none());
        assert!(parse(208).unwrap().bytes_sent.is_some());
    }

    #[test]
    fn an_answer_ends_with_a_word_and_maybe_an_error() {
        let code = |n: i32| n.to_ne_bytes();
        let done = answer(NLMSG_DONE, 0, 1, &code(0));
        let enoent = answer(NLMSG_ERROR, 0, 1, &code(-2));
        let cut = answer(NLMSG_DONE, NLM_F_DUMP_INTR, 1, &code(0));
        let late = answer(NLMSG_DONE, 0, 1, &code(-12));
        for (bytes, is_done, interrupted, error) in [
            (&done, true, false, None),
            (&enoent, true, false, Some(2)),
            (
                &answer(NLMSG_ERROR, 0, 1, &code(i32::MIN)),
                true,
                false,
                Some(i32::MAX),
            ),
            (&cut, true, true, None),
            (&late, true, false, Some(12)),
            (&answer(NLMSG_DONE, 0, 1, b""), true, false, None),
            (&answer(NLMSG_DONE, 0, 2, &code(0)), false, false, None),
            (&Vec::new(), false, false, None),
        ] {
            let got = parse(bytes, 1).unwrap();
            let is = (got.done, got.interrupted, got.error);
            assert_eq!(is, (is_done, interrupted, error), "{bytes:?}");
        }
        // What stands behind the end is not read.
        let more = [done, vec![1, 2, 3]].concat();
        assert!(parse(&more, 1).unwrap().done);
    }

    #[test]
    fn what_is_cut_or_makes_no_sense_is_an_error() {
        let whole = answer(SOCK_DIAG_BY_FAMILY, 0, 1, &told(AF_INET, 232));
        for len in 1..whole.len() {
            assert!(parse(&whole[..len], 1).is_err(), "{len}");
        }
        let with = |at: usize, word: &[u8]| {
            let mut bytes = whole.clone();
            bytes[at..at + word.len()].copy_from_slice(word);
            parse(&bytes, 1).unwrap_err()
        };
        let attr = HEADER + INET_MSG;
        assert_eq!(with(0, &0u32.to_ne_bytes()), Bad::Length);
        assert_eq!(with(0, &15u32.to_ne_bytes()), Bad::Length);
        assert_eq!(with(0, &u32::MAX.to_ne_bytes()), Bad::Cut);
        assert_eq!(with(attr, &0u16.to_ne_bytes()), Bad::Length);
        assert_eq!(with(attr, &u16::MAX.to_ne_bytes()), Bad::Cut);
        let short = answer(SOCK_DIAG_BY_FAMILY, 0, 1, &[2; 71]);
        assert_eq!(parse(&short, 1), Err(Bad::Cut));
        assert_eq!(parse(&answer(NLMSG_ERROR, 0, 1, &[0; 3]), 1), Err(Bad::Cut));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut whole = answer(SOCK_DIAG_BY_FAMILY, 0, 1, &told(AF_INET, 232));
        whole.extend(answer(SOCK_DIAG_BY_FAMILY, 0, 1, &told(AF_INET6, 104)));
        whole.extend(answer(NLMSG_DONE, 0, 1, &[0; 4]));
        let (mut errors, mut fine) = (0, 0);
        for seed in 0..5000 {
            let mut rng = Rng::new(seed);
            let mut below = |n: usize| (rng.unit() * n as f64) as usize;
            let mut bytes = whole.clone();
            for _ in 0..=below(8) {
                let at = below(bytes.len());
                bytes[at] = [0, 1, 0xff, below(256) as u8][below(4)];
            }
            bytes.truncate(bytes.len() - below(2) * below(bytes.len()));
            match (parse(&bytes, 1), crate::wire::unix_diag::parse(&bytes, 1)) {
                (Err(_), _) | (_, Err(_)) => errors += 1,
                (Ok(a), Ok(_)) => {
                    assert!(a.items.len() <= 2, "{seed}");
                    fine += 1;
                }
            }
        }
        assert!(errors > 500 && fine > 500, "{errors} {fine}");
    }
}
