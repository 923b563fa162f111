//! The corpus, and what becomes of it: bytes that flip, go, come and are said again, pieces of other
//! inputs, and the words at which parsers turn.

use crate::prng::Prng;
use std::fs;
use std::path::Path;

/// No input is longer, so that a million of them end.
const MOST: usize = 128 * 1024;

/// At these parsers turn.
const WORDS: [&[u8]; 36] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"\t",
    b"%",
    b"%00",
    b"%2f",
    b"%zz",
    b"+",
    b"&",
    b"?",
    b"#",
    b":",
    b";",
    b",",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"[",
    b"]",
    b"{",
    b"}",
    b"1e999",
    b"18446744073709551616",
    b"-1",
    b"\xff",
    b"\xc3",
    "\u{e9}".as_bytes(),
    b"--",
    b"--json",
    b"\x1b[2J",
    b"=",
];

/// All inputs that are kept.
pub struct Corpus {
    /// With their files' names.
    pub inputs: Vec<(String, Vec<u8>)>,
}

impl Corpus {
    /// Those of one parser.
    pub fn read(name: &str) -> Corpus {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fuzz/corpus")
            .join(name);
        let entries = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path());
        let named = entries.map(|p| (p.display().to_string(), fs::read(&p).unwrap()));
        let mut inputs: Vec<_> = named.collect();
        // A directory has no order.
        inputs.sort();
        assert!(!inputs.is_empty(), "nothing in {}", dir.display());
        Corpus { inputs }
    }

    fn any(&self, chance: &mut Prng) -> &[u8] {
        let at = chance.below(self.inputs.len() as u64) as usize;
        &self.inputs[at].1
    }

    /// One of them, a little or very much different.
    pub fn mutated(&self, chance: &mut Prng) -> Vec<u8> {
        let mut bytes = self.any(chance).to_vec();
        for _ in 0..chance.range(1, 8) {
            self.mutate(&mut bytes, chance);
        }
        bytes.truncate(MOST);
        bytes
    }

    fn mutate(&self, bytes: &mut Vec<u8>, chance: &mut Prng) {
        let (from, to) = piece(bytes, chance);
        match chance.below(10) {
            0 => {
                if let Some(b) = bytes.get_mut(from) {
                    *b ^= 1 << chance.below(8);
                }
            }
            1 => {
                if let Some(b) = bytes.get_mut(from) {
                    *b = chance.below(256) as u8;
                }
            }
            2 => insert(bytes, from, &[chance.below(256) as u8]),
            3 | 4 => insert(bytes, from, chance.pick(&WORDS)),
            5 => drop(bytes.drain(from..to)),
            6 => bytes.truncate(from),
            7 => {
                let again = bytes[from..to].to_vec();
                insert(bytes, chance.range(0, bytes.len() as u64) as usize, &again);
            }
            8 => {
                let other = self.any(chance);
                let (from_other, to_other) = piece(other, chance);
                insert(bytes, from, &other[from_other..to_other]);
            }
            _ => {
                // Now and then very often: limits are there to be reached.
                let most = if chance.one_in(8) { 40_000 } else { 40 };
                let again = bytes[from..to.min(from + 16)].to_vec();
                let times = chance.range(1, most) as usize;
                insert(
                    bytes,
                    from,
                    &again.repeat(times.min(MOST / again.len().max(1))),
                );
            }
        }
    }
}

/// Where a piece begins and ends: a short one, as a rule.
fn piece(bytes: &[u8], chance: &mut Prng) -> (usize, usize) {
    let from = chance.range(0, bytes.len() as u64) as usize;
    let left = bytes.len() - from;
    let most = if chance.one_in(4) { left } else { left.min(8) };
    (from, from + chance.range(0, most as u64) as usize)
}

fn insert(bytes: &mut Vec<u8>, at: usize, new: &[u8]) {
    bytes.splice(at..at, new.iter().copied());
    bytes.truncate(MOST);
}

/// The same bytes in pieces, cut anywhere; some are empty.
pub fn cut<'a>(bytes: &'a [u8], chance: &mut Prng) -> Vec<&'a [u8]> {
    let most = match chance.below(3) {
        0 if bytes.len() < 2000 => 1,
        0 | 1 => 64,
        _ => bytes.len().max(1),
    };
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let n = chance.range(u64::from(most == 1), most as u64) as usize;
        let (piece, more) = rest.split_at(n.min(rest.len()));
        pieces.push(piece);
        rest = more;
    }
    pieces
}
