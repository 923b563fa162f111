//! Classic BPF for the kernel: which lane of a port gets a new connection, and that none gets any.
//!
//! A steering program sees every SYN (or the ACK that ends a handshake of SYN cookies) and returns the
//! index, within the group of sockets that share the port, of the one that gets the connection. What
//! it returns must be in the group: otherwise the kernel falls back to its own hash over all of them.

/// So many lanes are told apart: one for each worker there may be, and for each generation alive.
pub const MAX_LANES: usize = 1024 + 8;
/// The greatest weight of a lane.
pub const MAX_WEIGHT: u32 = 1024;

/// BPF_LD | BPF_W | BPF_ABS
const LOAD_WORD: u16 = 0x20;
/// BPF_LD | BPF_B | BPF_ABS
const LOAD_BYTE: u16 = 0x30;
/// BPF_ALU | BPF_MOD | BPF_K
const MOD: u16 = 0x94;
/// BPF_ALU | BPF_AND | BPF_K
const AND: u16 = 0x54;
/// BPF_JMP | BPF_JEQ | BPF_K
const JEQ: u16 = 0x15;
/// BPF_JMP | BPF_JGE | BPF_K
const JGE: u16 = 0x35;
/// BPF_RET | BPF_K
const RET: u16 = 0x06;
/// SKF_AD_OFF + SKF_AD_RANDOM: the load from there is a random number.
const RANDOM: u32 = 0xffff_f000 + 56;
/// An index that no group has.
const NOWHERE: u32 = u32::MAX;

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ins {
    /// What it does.
    pub code: u16,
    /// So many are skipped if the comparison holds,
    pub jt: u8,
    /// and if it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

impl Ins {
    const fn new(code: u16, k: u32) -> Ins {
        Ins {
            code,
            jt: 0,
            jf: 0,
            k,
        }
    }

    const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Ins {
        Ins { code, jt, jf, k }
    }

    /// As the system call takes it.
    pub const fn raw(self) -> (u16, u8, u8, u32) {
        (self.code, self.jt, self.jf, self.k)
    }
}

/// A whole program as the system call takes it.
pub fn raw(program: &[Ins]) -> Vec<(u16, u8, u8, u32)> {
    program.iter().map(|i| i.raw()).collect()
}

/// Deals new connections to these lanes (index in the group, weight) at random, each in proportion to
/// its weight. One of weight 0 gets none. If nothing is left to steer to, the kernel deals as it would
/// without a program.
///
/// At most `MAX_LANES` are looked at, and no weight counts for more than `MAX_WEIGHT`.
pub fn program(table: &[(u32, u32)]) -> Vec<Ins> {
    let lanes = table.iter().take(MAX_LANES).filter(|(_, w)| *w > 0);
    let lanes: Vec<(u32, u32)> = lanes.map(|(i, w)| (*i, (*w).min(MAX_WEIGHT))).collect();
    let Some(((last, _), others)) = lanes.split_last() else {
        return vec![Ins::new(RET, NOWHERE)];
    };
    if others.is_empty() {
        return vec![Ins::new(RET, *last)];
    }
    let total = lanes.iter().map(|(_, w)| w).sum();
    let mut all = vec![Ins::new(LOAD_WORD, RANDOM), Ins::new(MOD, total)];
    let mut below = 0;
    for (index, weight) in others {
        below += weight;
        // At or above its share: on to the next one.
        all.push(Ins::jump(JGE, below, 1, 0));
        all.push(Ins::new(RET, *index));
    }
    all.push(Ins::new(RET, *last));
    all
}

/// A filter for a listening socket: segments that open a connection (SYN without ACK) are dropped,
/// all others pass, so that handshakes under way are completed. Their clients try again as long as
/// they have patience: it is neither refused nor lost if the filter goes in time.
///
/// It sees the segment from its TCP header on, whose byte 13 holds the flags. Connections inherit it,
/// and none of them is harmed by it.
pub fn refuse_new() -> Vec<Ins> {
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    vec![
        Ins::new(LOAD_BYTE, FLAGS),
        Ins::new(AND, SYN | ACK),
        Ins::jump(JEQ, SYN, 0, 1),
        Ins::new(RET, 0),
        Ins::new(RET, u32::MAX),
    ]
}

/// A filter for a connection: nothing more that the client says gets in, but what it acknowledges does.
/// The kernel cuts a segment down to what a filter returns, but never into its header; so 1 is a header
/// alone, whose data is not acknowledged and is sent again. The end of the client's words is dropped
/// altogether, or it would come before those that are held back.
pub fn hold_back() -> Vec<Ins> {
    const FLAGS: u32 = 13;
    const FIN: u32 = 0x01;
    vec![
        Ins::new(LOAD_BYTE, FLAGS),
        Ins::new(AND, FIN),
        Ins::jump(JEQ, FIN, 0, 1),
        Ins::new(RET, 0),
        Ins::new(RET, 1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a program returns for that random number and that segment. As in the kernel, a load from
    /// outside the segment ends it with 0; what the kernel would refuse to load panics.
    fn run(program: &[Ins], random: u32, segment: &[u8]) -> u32 {
        let (mut a, mut at) = (0u32, 0);
        loop {
            let i = program[at];
            at += 1;
            match (i.code, i.k) {
                (LOAD_WORD, RANDOM) => a = random,
                (LOAD_BYTE, k) => match segment.get(k as usize) {
                    Some(b) => a = u32::from(*b),
                    None => return 0,
                },
                (MOD, k) => a %= k,
                (AND, k) => a &= k,
                (JEQ, k) => at += usize::from(if a == k { i.jt } else { i.jf }),
                (JGE, k) => at += usize::from(if a >= k { i.jt } else { i.jf }),
                (RET, k) => return k,
                (code, k) => panic!("{code:#x} {k:#x}"),
            }
        }
    }

    #[test]
    fn each_lane_gets_exactly_its_share_of_all_residues() {
        let eight: Vec<(u32, u32)> = (0..8).map(|i| (7 - i, MAX_WEIGHT - i)).collect();
        let tables: [&[(u32, u32)]; 6] = [
            &[(3, 1), (0, 3)],
            &[(0, 1), (1, 1)],
            &[(5, 1), (2, 1023), (9, 7)],
            &[(1, MAX_WEIGHT), (0, 1), (2, MAX_WEIGHT)],
            &[(0, 0), (4, 2), (1, 0), (2, 5), (3, 0)],
            &eight,
        ];
        for table in tables {
            let p = program(table);
            assert!(p.len() <= 2 * MAX_LANES + 1, "{p:?}");
            let total: u32 = table.iter().map(|(_, w)| w).sum();
            for base in [0, (u32::MAX / total - 1) * total] {
                let mut got = std::collections::BTreeMap::new();
                for r in 0..total {
                    *got.entry(run(&p, base + r, &[])).or_insert(0) += 1;
                }
                let some = table.iter().filter(|(_, w)| *w > 0).copied();
                assert_eq!(got, some.collect(), "{table:?}");
            }
        }
    }

    #[test]
    fn one_lane_needs_no_dice_and_none_is_no_lane() {
        for table in [&[(6, 1)][..], &[(6, 1024)], &[(1, 0), (6, 2), (2, 0)]] {
            assert_eq!(program(table), [Ins::new(RET, 6)], "{table:?}");
        }
        for table in [&[][..], &[(0, 0), (1, 0)]] {
            assert_eq!(program(table), [Ins::new(RET, NOWHERE)], "{table:?}");
        }
    }

    #[test]
    fn what_is_beyond_the_limits_does_not_count() {
        assert_eq!(
            program(&[(0, u32::MAX), (1, 5000)]),
            program(&[(0, MAX_WEIGHT), (1, MAX_WEIGHT)])
        );
        let more: Vec<(u32, u32)> = (0..=1032).map(|i| (i, 1)).collect();
        assert_eq!(program(&more), program(&more[..MAX_LANES]));
        // The kernel takes no more than 4096 instructions.
        assert!(program(&more).len() < 4096);
    }

    #[test]
    fn only_what_opens_a_connection_is_refused() {
        let p = refuse_new();
        for flags in 0..=255u8 {
            let mut segment = [0xff; 20];
            segment[13] = flags;
            let opens = flags & 0x02 != 0 && flags & 0x10 == 0;
            assert_eq!(run(&p, 0, &segment), if opens { 0 } else { u32::MAX });
        }
        assert_eq!(run(&p, 0, &[0; 13]), 0);
    }
}
