//! What the kernel tells about unix sockets (sock_diag(7)): who is connected to whom, and how many wait.

use super::sock_diag::{Bad, Parsed, attributes, message, parts, u32_at};

const AF_UNIX: u8 = 1;
/// struct unix_diag_msg
const UNIX_MSG: usize = 16;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_VFS: u16 = 1;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_RQLEN: u16 = 4;
/// NAME | VFS | PEER | RQLEN
const UDIAG_SHOW: u32 = 0x01 | 0x02 | 0x04 | 0x10;

/// One unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixConn {
    /// Of the socket.
    pub inode: u64,
    /// Of the one at the other end.
    pub peer_inode: Option<u64>,
    /// One of `state`: LISTEN, ESTABLISHED or CLOSE.
    pub state: u8,
    /// One that listens: connections that wait to be accepted; else bytes to be read,
    pub rqueue: u32,
    /// and the most that may wait; else bytes that the other end has not read.
    pub wqueue: u32,
    /// What it was bound to: a path, or a zero byte and a name of the abstract namespace. Connections
    /// have that of the socket that accepted them.
    pub name: Option<Vec<u8>>,
    /// Device and inode of its file, where it has one.
    pub vfs: Option<(u64, u64)>,
}

/// Asks for all unix sockets in these states: name, file, peer, queue.
pub fn request(states: u32, seq: u32) -> Vec<u8> {
    let mut body = vec![AF_UNIX, 0, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(0u32.to_ne_bytes());
    body.extend(UDIAG_SHOW.to_ne_bytes());
    body.extend([0xff; 8]);
    message(&body, seq)
}

/// Reads a part of an answer to the question of that number. Sockets of other families are left out.
pub fn parse(bytes: &[u8], seq: u32) -> Result<Parsed<UnixConn>, Bad> {
    parts(bytes, seq, unix_conn)
}

fn unix_conn(body: &[u8]) -> Result<Option<UnixConn>, Bad> {
    let more = body.get(UNIX_MSG..).ok_or(Bad::Cut)?;
    let [family, _, state, ..] = *body else {
        return Err(Bad::Cut);
    };
    if family != AF_UNIX {
        return Ok(None);
    }
    let mut conn = UnixConn {
        inode: u64::from(u32_at(body, 4).ok_or(Bad::Cut)?),
        peer_inode: None,
        state,
        rqueue: 0,
        wqueue: 0,
        name: None,
        vfs: None,
    };
    let word = |value: &[u8], at| u32_at(value, at).unwrap_or(0);
    attributes(more, |kind, value| match kind {
        UNIX_DIAG_NAME => {
            // A path may come with the zero byte at its end.
            let path = value.first().is_some_and(|b| *b != 0);
            let name = value.iter().take_while(|b| !path || **b != 0);
            conn.name = Some(name.copied().collect());
        }
        UNIX_DIAG_VFS if value.len() >= 8 => {
            conn.vfs = Some((device(word(value, 4)), u64::from(word(value, 0))));
        }
        UNIX_DIAG_PEER => conn.peer_inode = u32_at(value, 0).map(u64::from),
        UNIX_DIAG_RQLEN => (conn.rqueue, conn.wqueue) = (word(value, 0), word(value, 4)),
        _ => {}
    })?;
    Ok(Some(conn))
}

/// A device as stat(2) has it, from the kernel's own number: 12 bits of major, 20 of minor.
fn device(kernel: u32) -> u64 {
    let (major, minor) = (u64::from(kernel >> 20), u64::from(kernel & 0xf_ffff));
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::sock_diag::state;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let len = u16::try_from(4 + value.len()).unwrap();
        let mut all = Vec::from(len.to_ne_bytes());
        all.extend(kind.to_ne_bytes());
        all.extend(value);
        all.resize(all.len().next_multiple_of(4), 0);
        all
    }

    fn words(list: &[u32]) -> Vec<u8> {
        list.iter().flat_map(|n| n.to_ne_bytes()).collect()
    }

    fn told(state: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut body = vec![AF_UNIX, 1, state, 0];
        body.extend(words(&[4711, 1, 2]));
        body.extend(attributes.concat());
        message(&body, 3)
    }

    #[test]
    fn a_question_is_as_the_kernel_wants_it() {
        let q = request(1 << state::LISTEN, 3);
        assert_eq!(q.len(), 40);
        assert_eq!(q[16..20], [1, 0, 0, 0]);
        let body: Vec<Option<u32>> = (5..10).map(|n| u32_at(&q, 4 * n)).collect();
        let none = Some(u32::MAX);
        assert_eq!(body, [Some(1 << 10), Some(0), Some(0x17), none, none]);
    }

    #[test]
    fn sockets_are_read_with_what_they_have() {
        let mut bytes = told(
            state::LISTEN,
            &[
                attribute(UNIX_DIAG_NAME, b"/run/a.sock\0"),
                attribute(UNIX_DIAG_VFS, &words(&[99, 8 << 20 | 0x101])),
                attribute(UNIX_DIAG_RQLEN, &words(&[2, 128])),
                attribute(6, &[0]),
            ],
        );
        bytes.extend(told(
            state::ESTABLISHED,
            &[
                attribute(UNIX_DIAG_NAME, b"\0abstract\0name"),
                attribute(UNIX_DIAG_PEER, &words(&[4712])),
            ],
        ));
        bytes.extend(told(state::CLOSE, &[]));
        let got = parse(&bytes, 3).unwrap().items;
        let bare = UnixConn {
            inode: 4711,
            peer_inode: None,
            state: state::CLOSE,
            rqueue: 0,
            wqueue: 0,
            name: None,
            vfs: None,
        };
        let listens = UnixConn {
            state: state::LISTEN,
            rqueue: 2,
            wqueue: 128,
            name: Some(b"/run/a.sock".to_vec()),
            // As stat(2) has it: 8, 257.
            vfs: Some((1 << 20 | 8 << 8 | 1, 99)),
            ..bare.clone()
        };
        let connected = UnixConn {
            state: state::ESTABLISHED,
            peer_inode: Some(4712),
            name: Some(b"\0abstract\0name".to_vec()),
            ..bare.clone()
        };
        assert_eq!(got, [listens, connected, bare]);
    }

    #[test]
    fn what_is_cut_is_an_error_and_a_short_attribute_tells_nothing() {
        let whole = told(state::LISTEN, &[attribute(UNIX_DIAG_PEER, &words(&[1]))]);
        for len in 1..whole.len() {
            assert!(parse(&whole[..len], 3).is_err(), "{len}");
        }
        let kinds = [
            UNIX_DIAG_VFS,
            UNIX_DIAG_PEER,
            UNIX_DIAG_RQLEN,
            UNIX_DIAG_NAME,
        ];
        let short = told(state::CLOSE, &kinds.map(|k| attribute(k, &[])));
        let got = &parse(&short, 3).unwrap().items[0];
        assert_eq!((got.vfs, got.peer_inode, got.rqueue), (None, None, 0));
        assert_eq!(got.name.as_deref(), Some(&b""[..]));
    }
}
