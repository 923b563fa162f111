//! Lines of /proc/PID/maps: which files a process has mapped, and whether their names still mean them.

use std::borrow::Cow;

/// Longest path that the kernel writes there.
const MAX_PATH: usize = 4096 * 4;

/// One mapping of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping<'a> {
    /// Its addresses, as the name of it under /proc/PID/map_files.
    pub range: &'a str,
    /// Can it be executed?
    pub code: bool,
    /// Major and minor number of the device,
    pub dev: (u32, u32),
    /// and the inode on it.
    pub inode: u64,
    /// Its path, as the process's root has it.
    pub path: Cow<'a, [u8]>,
    /// Is that the name of nothing, or of something else, by now?
    pub deleted: bool,
}

/// What the kernel puts behind a name that was removed, or that another file has got.
const DELETED: &[u8] = b" (deleted)";

/// Understands a line; `None`: it is no mapping of a file.
pub fn line(line: &[u8]) -> Option<Mapping<'_>> {
    let mut fields = line.splitn(6, |b| *b == b' ');
    let mut text = || std::str::from_utf8(fields.next()?).ok();
    let (range, rights, _offset, dev, inode) = (text()?, text()?, text()?, text()?, text()?);
    let (major, minor) = dev.split_once(':')?;
    let path = fields.next()?.trim_ascii_start();
    if path.first() != Some(&b'/') || path.len() > MAX_PATH {
        return None;
    }
    // It is to be part of a path.
    let plain = |c: char| c.is_ascii_hexdigit() || c == '-';
    if range.is_empty() || !range.chars().all(plain) {
        return None;
    }
    let named = path.strip_suffix(DELETED);
    Some(Mapping {
        range,
        code: rights.as_bytes().get(2) == Some(&b'x'),
        dev: (
            u32::from_str_radix(major, 16).ok()?,
            u32::from_str_radix(minor, 16).ok()?,
        ),
        inode: inode.parse().ok().filter(|n| *n > 0)?,
        path: unescaped(named.unwrap_or(path)),
        deleted: named.is_some(),
    })
}

/// The end of a line is all that is escaped.
fn unescaped(path: &[u8]) -> Cow<'_, [u8]> {
    const NEWLINE: &[u8] = b"\\012";
    if !path.windows(NEWLINE.len()).any(|part| part == NEWLINE) {
        return path.into();
    }
    let (mut out, mut rest) = (Vec::new(), path);
    while let Some((first, more)) = rest.split_first() {
        match rest.strip_prefix(NEWLINE) {
            Some(behind) => {
                out.push(b'\n');
                rest = behind;
            }
            None => {
                out.push(*first);
                rest = more;
            }
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_files_and_nothing_else() {
        let m =
            line(b"7f01-7f02 r-xp 00028000 fe:01 1835073                    /usr/lib/libc.so.6");
        let want = Mapping {
            range: "7f01-7f02",
            code: true,
            dev: (0xfe, 1),
            inode: 1_835_073,
            path: b"/usr/lib/libc.so.6"[..].into(),
            deleted: false,
        };
        assert_eq!(m, Some(want));
        let m = line(b"1-2 r--p 0 08:00 7 /srv/a b\\012c (deleted)").unwrap();
        assert_eq!((&m.path[..], m.deleted), (&b"/srv/a b\nc"[..], true));
        assert!(!m.code);
        let m = line(b"1-2 r-xp 0 00:01 7 /\xff\xfe").unwrap();
        assert_eq!(&m.path[..], b"/\xff\xfe");
        for none in [
            &b""[..],
            b"1-2 rw-p 00000000 00:00 0 ",
            b"1-2 rw-p 00000000 00:00 0 [stack]",
            b"1-2 rw-p 00000000 00:00 0 /dev/zero",
            b"1-2 r-xp 0 xx:01 7 /a",
            b"1-2 r-xp 0 0001 7 /a",
            b"1-2 r-xp 0 00:01 -7 /a",
            b"../2 r-xp 0 00:01 7 /a",
            b" r-xp 0 00:01 7 /a",
            b"1-2 r-xp 0 00:01 99999999999999999999 /a",
            b"1-2 r-xp 0 00:01 7 socket:[1]",
            b"1-2 r-xp 0 00:01 7",
        ] {
            assert_eq!(line(none), None, "{}", none.escape_ascii());
        }
        let long = [&b"1-2 r-xp 0 00:01 7 /"[..], &[b'a'; 20_000]].concat();
        assert_eq!(line(&long), None);
    }
}
