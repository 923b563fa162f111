//! The instructions of classic BPF that our programs are made of.

/// BPF_LD | BPF_IMM
pub(in crate::wire) const LOAD: u16 = 0x00;
/// BPF_LD | BPF_W | BPF_ABS
pub(in crate::wire) const LOAD_WORD: u16 = 0x20;
/// BPF_LD | BPF_B | BPF_ABS
pub(in crate::wire) const LOAD_BYTE: u16 = 0x30;
/// BPF_LD | BPF_H | BPF_ABS
pub(in crate::wire) const LOAD_HALF: u16 = 0x28;
/// BPF_LD | BPF_H | BPF_IND: from X on
pub(in crate::wire) const LOAD_HALF_X: u16 = 0x48;
/// BPF_LDX | BPF_B | BPF_MSH: four times the low half of a byte, the length of an IPv4 header
pub(in crate::wire) const LOADX_HEADER: u16 = 0xb1;
/// BPF_ST
pub(in crate::wire) const STORE: u16 = 0x02;
/// BPF_LD | BPF_MEM
pub(in crate::wire) const LOAD_KEPT: u16 = 0x60;
/// BPF_LDX | BPF_MEM
pub(in crate::wire) const LOADX_KEPT: u16 = 0x61;
/// BPF_MISC | BPF_TAX
pub(in crate::wire) const TAX: u16 = 0x07;
/// BPF_ALU | BPF_ADD | BPF_K
pub(in crate::wire) const ADD: u16 = 0x04;
/// BPF_ALU | BPF_MUL | BPF_K
pub(in crate::wire) const MUL: u16 = 0x24;
/// BPF_ALU | BPF_MOD | BPF_K
pub(in crate::wire) const MOD: u16 = 0x94;
/// BPF_ALU | BPF_AND | BPF_K
pub(in crate::wire) const AND: u16 = 0x54;
/// BPF_ALU | BPF_XOR | BPF_K
pub(in crate::wire) const XOR: u16 = 0xa4;
/// BPF_ALU | BPF_XOR | BPF_X
pub(in crate::wire) const XOR_X: u16 = 0xac;
/// BPF_ALU | BPF_LSH | BPF_K
pub(in crate::wire) const LSH: u16 = 0x64;
/// BPF_ALU | BPF_RSH | BPF_K
pub(in crate::wire) const RSH: u16 = 0x74;
/// BPF_ALU | BPF_RSH | BPF_X
pub(in crate::wire) const RSH_X: u16 = 0x7c;
/// BPF_JMP | BPF_JA
pub(in crate::wire) const JA: u16 = 0x05;
/// BPF_JMP | BPF_JEQ | BPF_K
pub(in crate::wire) const JEQ: u16 = 0x15;
/// BPF_JMP | BPF_JGE | BPF_K
pub(in crate::wire) const JGE: u16 = 0x35;
/// BPF_RET | BPF_K
pub(in crate::wire) const RET: u16 = 0x06;
/// BPF_RET | BPF_A
pub(in crate::wire) const RET_A: u16 = 0x16;

/// SKF_AD_OFF + SKF_AD_RANDOM: the load from there is a random number.
pub(in crate::wire) const RANDOM: u32 = 0xffff_f000 + 56;
/// SKF_AD_OFF + SKF_AD_CPU: the CPU that has received it.
pub(in crate::wire) const CPU: u32 = 0xffff_f000 + 36;
/// SKF_NET_OFF: loads from there on are from the header of IP.
pub(in crate::wire) const NET: u32 = 0xfff0_0000;
/// A jump to what follows the whole tree.
pub(in crate::wire) const TO_END: u32 = u32::MAX;

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
    pub(in crate::wire) const fn new(code: u16, k: u32) -> Ins {
        Ins {
            code,
            jt: 0,
            jf: 0,
            k,
        }
    }

    pub(in crate::wire) const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Ins {
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
