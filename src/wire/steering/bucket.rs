//! Which bucket a client or a connection is in: in the kernel, and, the same, here.
//!
//! Addresses and ports of neighbours differ in few bits, often in the same ones: each word is multiplied
//! by what spreads them upwards and folded back, and the bucket is taken from the high bits, which
//! depend on all. Half as many buckets are each two neighbours of them.
//!
//! A header of IPv6 is taken to be followed by that of TCP. Who puts others between has a bucket, too,
//! but by `Key::Connection` perhaps another one than is told here.

use super::ins::*;
use crate::core::Key;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// 2^32 divided by the golden ratio.
const FOLD: u32 = 0x9e37_79b1;
/// Of the last round: another one, or it would take back some of what the first has done.
const LAST: u32 = 0x85eb_ca6b;
/// Those by which a part of the clients is chosen, whatever their buckets.
const OTHER: [u32; 3] = [0x5bd1_e995, 0xc2b2_ae35, 0x27d4_eb2f];

/// The bucket of the connections, or of all connections, of that client, of so many buckets (a power
/// of two). One that comes by IPv4 is the same on a socket of both families.
pub fn bucket(key: Key, peer: SocketAddr, buckets: usize) -> usize {
    let bits = buckets.max(1).ilog2();
    let hash = u64::from(fold(key, peer).wrapping_mul(LAST));
    usize::try_from(hash << bits >> 32).unwrap_or(0)
}

/// Its words of 32 bits.
pub(super) fn words(ip: Ipv6Addr) -> [u32; 4] {
    let bits = ip.to_bits();
    [96, 64, 32, 0].map(|down| (bits >> down & u128::from(u32::MAX)) as u32)
}

fn fold(key: Key, peer: SocketAddr) -> u32 {
    let port = u32::from(peer.port());
    let mut words = match peer.ip().to_canonical() {
        IpAddr::V4(ip) => vec![ip.to_bits()],
        IpAddr::V6(ip) => words(ip).to_vec(),
    };
    match key {
        Key::Client => words.truncate(2),
        Key::Connection => words.push(port),
    }
    words.into_iter().fold(0, |all, word| mix(all ^ word, FOLD))
}

fn mix(a: u32, factor: u32) -> u32 {
    let a = a.wrapping_mul(factor);
    a ^ a >> 16
}

/// A becomes the bucket.
pub(super) fn of(key: Key, buckets: usize) -> Vec<Ins> {
    let mut all = folded(key);
    all.extend([
        Ins::new(MUL, LAST),
        Ins::new(RSH, 32 - buckets.max(2).ilog2()),
    ]);
    all
}

/// A becomes a number below 100, always the same one for a client.
pub(super) fn percentile() -> Vec<Ins> {
    let mut all = folded(Key::Client);
    all.push(Ins::new(XOR, OTHER[0]));
    all.extend(mixed(OTHER[1]));
    all.extend(mixed(OTHER[2]));
    all.push(Ins::new(MOD, 100));
    all
}

/// The steps of `mix`.
fn mixed(factor: u32) -> [Ins; 4] {
    [
        Ins::new(MUL, factor),
        Ins::new(TAX, 0),
        Ins::new(RSH, 16),
        Ins::new(XOR_X, 0),
    ]
}

/// The steps of `fold`. On a socket of both families both come.
fn folded(key: Key) -> Vec<Ins> {
    let word = |at| vec![Ins::new(LOAD_WORD, NET + at)];
    let (mut v4, mut v6) = (vec![word(12)], vec![word(8), word(12)]);
    if key == Key::Connection {
        // Behind what options there are.
        v4.push(vec![
            Ins::new(LOADX_HEADER, NET),
            Ins::new(LOAD_HALF_X, NET),
        ]);
        v6.extend([word(16), word(20), vec![Ins::new(LOAD_HALF, NET + 40)]]);
    }
    let [v4, mut v6] = [v4, v6].map(|loads| {
        let mut all = Vec::new();
        for load in loads {
            let more = !all.is_empty();
            all.extend(more.then_some(Ins::new(STORE, 0)));
            all.extend(load);
            all.extend(
                [Ins::new(LOADX_KEPT, 0), Ins::new(XOR_X, 0)]
                    .iter()
                    .filter(|_| more),
            );
            all.extend(mixed(FOLD));
        }
        all
    });
    let length = |some: &[Ins]| u8::try_from(some.len()).unwrap_or(0);
    v6.push(Ins::new(JA, u32::from(length(&v4))));
    let mut all = vec![
        Ins::new(LOAD_BYTE, NET),
        Ins::new(AND, 0xf0),
        Ins::jump(JEQ, 0x40, length(&v6), 0),
    ];
    all.extend(v6);
    all.extend(v4);
    all
}
