//! ELF files, as far as it takes to find the build id of one, and a section by its name. Nothing is read
//! here: who has the file is told which parts of it are wanted, and brings them.
//!
//! All numbers are the file's own, so none is believed: offsets may point anywhere, and sums saturate.

/// So many bytes at the beginning are wanted first.
pub const HEAD: usize = 64;
/// Longest table of segments or sections that is read, and longest list of their names.
pub const MAX_TABLE: u64 = 64 * 1024;
/// Longest segment of notes that is read: a build id stands near its beginning.
pub const MAX_NOTES: u64 = 64 * 1024;
/// So many segments of notes are looked at.
const MAX_PARTS: usize = 16;
/// Longest build id, in bytes: those that there are have 16 or 20.
const MAX_ID: usize = 64;

const PT_NOTE: u32 = 4;
const NT_GNU_BUILD_ID: u32 = 3;

/// A part of the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub at: u64,
    pub len: u64,
}

/// Segments, or sections.
#[derive(Clone, Copy, Debug)]
struct Table {
    at: u64,
    each: u16,
    count: u16,
}

impl Table {
    fn part(self) -> Part {
        let len = u64::from(self.each) * u64::from(self.count);
        Part {
            at: self.at,
            len: len.min(MAX_TABLE),
        }
    }

    /// Its rows; one that is not whole is none.
    fn rows(self, bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
        let each = usize::from(self.each).max(1);
        bytes.chunks_exact(each).take(usize::from(self.count))
    }
}

/// What the file begins with.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Are its addresses 64 bits wide?
    wide: bool,
    little: bool,
    segments: Table,
    sections: Table,
    /// The section with the names of all.
    names: u16,
}

/// A segment of notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notes {
    pub part: Part,
    align: usize,
}

fn bytes<const N: usize>(from: &[u8], at: usize) -> Option<[u8; N]> {
    from.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u16_at(little: bool, from: &[u8], at: usize) -> Option<u16> {
    let b = bytes(from, at)?;
    Some(match little {
        true => u16::from_le_bytes(b),
        false => u16::from_be_bytes(b),
    })
}

fn u32_at(little: bool, from: &[u8], at: usize) -> Option<u32> {
    let b = bytes(from, at)?;
    Some(match little {
        true => u32::from_le_bytes(b),
        false => u32::from_be_bytes(b),
    })
}

/// As wide as an address.
fn word_at(little: bool, wide: bool, from: &[u8], at: usize) -> Option<u64> {
    if !wide {
        return u32_at(little, from, at).map(u64::from);
    }
    let b = bytes(from, at)?;
    Some(match little {
        true => u64::from_le_bytes(b),
        false => u64::from_be_bytes(b),
    })
}

/// Understands the beginning of a file; `None`: it is no ELF.
pub fn head(file: &[u8]) -> Option<Head> {
    let rest = file.strip_prefix(b"\x7fELF")?;
    let [class, data, ..] = *rest else {
        return None;
    };
    let wide = match class {
        1 => false,
        2 => true,
        _ => return None,
    };
    let little = match data {
        1 => true,
        2 => false,
        _ => return None,
    };
    // Where e_phoff, e_shoff, and e_phentsize with what follows it are.
    let (phoff, shoff, sizes) = match wide {
        true => (32, 40, 54),
        false => (28, 32, 42),
    };
    let small = |nth: usize| u16_at(little, file, sizes + 2 * nth);
    Some(Head {
        wide,
        little,
        segments: Table {
            at: word_at(little, wide, file, phoff)?,
            each: small(0)?,
            count: small(1)?,
        },
        sections: Table {
            at: word_at(little, wide, file, shoff)?,
            each: small(2)?,
            count: small(3)?,
        },
        names: small(4)?,
    })
}

impl Head {
    /// Where its segments are listed.
    pub fn segments(&self) -> Part {
        self.segments.part()
    }

    /// Where its sections are.
    pub fn sections(&self) -> Part {
        self.sections.part()
    }

    fn word(&self, row: &[u8], wide: usize, narrow: usize) -> Option<u64> {
        let at = if self.wide { wide } else { narrow };
        word_at(self.little, self.wide, row, at)
    }

    /// Its segments of notes, by the list of all.
    pub fn notes(&self, table: &[u8]) -> Vec<Notes> {
        let one = |row: &[u8]| {
            if u32_at(self.little, row, 0)? != PT_NOTE {
                return None;
            }
            let part = Part {
                at: self.word(row, 8, 4)?,
                len: self.word(row, 32, 16)?.min(MAX_NOTES),
            };
            // Only those of properties are aligned otherwise.
            let align = if self.word(row, 48, 28)? == 8 { 8 } else { 4 };
            Some(Notes { part, align })
        };
        let all = self.segments.rows(table).filter_map(one);
        all.take(MAX_PARTS).collect()
    }

    /// The build id that is among them, in hexadecimal digits.
    pub fn build_id(&self, notes: Notes, mut bytes: &[u8]) -> Option<String> {
        let padded = |n: u32| {
            usize::try_from(n)
                .ok()?
                .checked_next_multiple_of(notes.align)
        };
        loop {
            let number = |nth: usize| u32_at(self.little, bytes, 4 * nth);
            let (name_len, id_len, kind) = (number(0)?, number(1)?, number(2)?);
            let rest = bytes.get(12..)?;
            let name = rest.get(..usize::try_from(name_len).ok()?)?;
            let rest = rest.get(padded(name_len)?..)?;
            let id = rest.get(..usize::try_from(id_len).ok()?)?;
            if kind == NT_GNU_BUILD_ID && name == b"GNU\0" {
                let fits = !id.is_empty() && id.len() <= MAX_ID;
                return fits.then(|| id.iter().map(|b| format!("{b:02x}")).collect());
            }
            bytes = rest.get(padded(id_len)?..)?;
        }
    }

    /// Where the names of the sections are, by the list of all.
    pub fn names(&self, table: &[u8]) -> Option<Part> {
        let row = self.sections.rows(table).nth(self.names.into())?;
        let Part { at, len } = self.section_part(row)?;
        let len = len.min(MAX_TABLE);
        Some(Part { at, len })
    }

    /// Where the section of that name is.
    pub fn section(&self, table: &[u8], names: &[u8], name: &str) -> Option<Part> {
        let is_it = |row: &&[u8]| {
            let at = u32_at(self.little, row, 0).and_then(|n| usize::try_from(n).ok());
            let named = at.and_then(|at| names.get(at..)).unwrap_or_default();
            named.strip_prefix(name.as_bytes()).and_then(<[u8]>::first) == Some(&0)
        };
        self.section_part(self.sections.rows(table).find(is_it)?)
    }

    fn section_part(&self, row: &[u8]) -> Option<Part> {
        Some(Part {
            at: self.word(row, 24, 16)?,
            len: self.word(row, 32, 20)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A note: its name, its kind, and what it says.
    fn note(name: &[u8], kind: u32, says: &[u8]) -> Vec<u8> {
        let mut all = Vec::new();
        for n in [name.len() as u32, says.len() as u32, kind] {
            all.extend(n.to_le_bytes());
        }
        for part in [name, says] {
            all.extend(part);
            all.resize(all.len().next_multiple_of(4), 0);
        }
        all
    }

    /// A file of 64 bits with one segment of notes.
    fn file(notes: &[u8]) -> Vec<u8> {
        let mut all = b"\x7fELF\x02\x01\x01".to_vec();
        all.resize(64, 0);
        all[32] = 64; // e_phoff
        all[54] = 56; // e_phentsize
        all[56] = 1; // e_phnum
        let mut row = vec![0u8; 56];
        row[0] = 4; // PT_NOTE
        row[8] = 120; // p_offset
        row[32..40].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        row[48] = 4; // p_align
        all.extend(row);
        all.extend(notes);
        all
    }

    /// As a reader goes about it.
    fn build_id(file: &[u8]) -> Option<String> {
        let part = |p: Part| {
            let from = usize::try_from(p.at).ok()?;
            let rest = file.get(from..)?;
            rest.get(..rest.len().min(usize::try_from(p.len).ok()?))
        };
        let head = head(file.get(..HEAD.min(file.len()))?)?;
        let notes = head.notes(part(head.segments())?);
        let mut ids = notes
            .iter()
            .filter_map(|n| head.build_id(*n, part(n.part)?));
        ids.next()
    }

    #[test]
    fn a_build_id_is_found_behind_other_notes() {
        let other = note(b"GNU\0", 1, b"0123456789abcdef");
        let others = note(b"Xen\0", 3, b"abcd");
        let id = note(b"GNU\0", 3, &[0xab, 0xcd, 0x01]);
        assert_eq!(build_id(&file(&id)).as_deref(), Some("abcd01"));
        let all = [other, others, id].concat();
        assert_eq!(build_id(&file(&all)).as_deref(), Some("abcd01"));
    }

    #[test]
    fn what_is_broken_has_none() {
        let whole = file(&note(b"GNU\0", 3, &[7; 20]));
        for n in 0..whole.len() {
            assert_eq!(build_id(&whole[..n]), None, "{n} bytes");
        }
        for (at, byte) in [(4, 3), (5, 0), (56, 0), (64, 1), (120, 0xff), (124, 0xff)] {
            let mut broken = whole.clone();
            broken[at] = byte;
            assert_eq!(build_id(&broken), None, "{at}");
        }
        // Every number as large as it can be.
        for at in 6..whole.len() {
            let mut broken = whole.clone();
            let end = (at + 8).min(broken.len());
            broken[at..end].fill(0xff);
            build_id(&broken);
        }
        assert_eq!(build_id(&file(&note(b"GNU\0", 3, &[1; 65]))), None);
        assert_eq!(build_id(b"#!/bin/sh\n"), None);
    }

    /// The section headers of this very test.
    #[test]
    fn a_section_is_found_by_its_name() {
        let file = std::fs::read("/proc/self/exe").unwrap();
        let part = |p: Part| &file[p.at as usize..][..p.len as usize];
        let head = head(&file).unwrap();
        let table = part(head.sections());
        let names = part(head.names(table).unwrap());
        let text = head.section(table, names, ".text").unwrap();
        assert!(text.len > 1000);
        assert_eq!(head.section(table, names, ".tex"), None);
        assert_eq!(head.section(table, names, ".none"), None);
    }
}
