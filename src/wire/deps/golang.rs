//! What a program in Go says of its own making: the section `.go.buildinfo`, as compilers since 1.18 write
//! it. Older ones point to it in memory instead, which is not followed.

use super::packages::List;

/// The section that has it.
pub const SECTION: &str = ".go.buildinfo";
/// So much of it is read.
pub const MAX_SECTION: u64 = 1024 * 1024;

const MAGIC: &[u8] = b"\xff Go buildinf:";
/// The two texts follow at that place,
const TEXTS: usize = 32;
/// if that bit is in the byte behind the size of a pointer.
const INLINE: u8 = 2;
/// What stands before and behind the modules, so that they can be found otherwise.
const GUARD: usize = 16;

/// Go itself, its module and those that it has used. `None`: it does not say.
pub fn modules(section: &[u8]) -> Option<List> {
    let rest = section.strip_prefix(MAGIC)?;
    if rest.get(1)? & INLINE == 0 {
        return None;
    }
    let (go, rest) = text(section.get(TEXTS..)?)?;
    let (modules, _) = text(rest)?;
    let mut list = List::default();
    let go = std::str::from_utf8(go).ok()?;
    let go = go.split(' ').next().unwrap_or_default();
    list.add("go", go.strip_prefix("go").unwrap_or(go));
    let inner = modules.len().checked_sub(2 * GUARD);
    let modules = inner.and_then(|n| modules.get(GUARD..GUARD + n));
    let modules = std::str::from_utf8(modules.unwrap_or_default()).unwrap_or_default();
    let mut lines = modules.lines().peekable();
    while let Some(line) = lines.next() {
        let mut words = line.split('\t');
        if !matches!(words.next(), Some("mod" | "dep")) {
            continue;
        }
        // Another one that stands in for it follows.
        let instead = lines.next_if(|l| l.starts_with("=>\t"));
        let mut words = instead.map_or(words, |l| {
            let mut words = l.split('\t');
            words.next();
            words
        });
        let (name, version) = (words.next(), words.next());
        list.add(name.unwrap_or_default(), version.unwrap_or_default());
    }
    Some(list)
}

/// One with its length before it, and what is behind it.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (mut length, mut shift) = (0usize, 0u32);
    let mut rest = bytes;
    loop {
        let (first, more) = rest.split_first()?;
        rest = more;
        length |= usize::from(first & 0x7f).checked_shl(shift)?;
        shift += 7;
        if first & 0x80 == 0 {
            return rest.split_at_checked(length);
        }
        if shift > 28 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(go: &str, modules: &str) -> Vec<u8> {
        let mut all = [MAGIC, &[8, INLINE]].concat();
        all.resize(TEXTS, 0);
        let guard = "0123456789abcdef";
        for text in [go.to_string(), format!("{guard}{modules}{guard}")] {
            let mut n = text.len();
            while n > 0x7f {
                all.push(n as u8 | 0x80);
                n >>= 7;
            }
            all.push(n as u8);
            all.extend(text.bytes());
        }
        all
    }

    #[test]
    fn it_says_its_modules_and_what_stands_in_for_them() {
        let text = "path\texample.org/x\nmod\texample.org/x\t(devel)\t\ndep\tgolang.org/x/net\tv0.20.0\th1:abc=\n\
            dep\told.org/y\tv1.0.0\n=>\tnew.org/y\tv1.1.0\th1:def=\nbuild\t-ldflags=-X=secret\n";
        let list = modules(&section("go1.22.1 X:x", text)).unwrap();
        let all: Vec<(&str, &str)> = list
            .all
            .iter()
            .map(|p| (p.name.as_str(), p.version.as_str()))
            .collect();
        let want = [
            ("example.org/x", ""),
            ("go", "1.22.1"),
            ("golang.org/x/net", "v0.20.0"),
            ("new.org/y", "v1.1.0"),
        ];
        assert_eq!(all, want);
    }

    #[test]
    fn what_is_broken_says_less_or_nothing() {
        let whole = section("go1.22.1", "mod\ta.org/b\tv1.0.0\n");
        for n in 0..whole.len() {
            assert_eq!(modules(&whole[..n]), None, "{n}");
        }
        let mut old = whole.clone();
        old[15] = 0;
        assert_eq!(modules(&old), None);
        let mut endless = whole[..TEXTS].to_vec();
        endless.extend([0xff; 20]);
        assert_eq!(modules(&endless), None);
        assert!(modules(&section("", "")).is_some());
    }
}
