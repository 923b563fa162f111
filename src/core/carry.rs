//! How the state of a cluster is written down, so that the master that takes over by a handover reads it: the
//! types say so themselves (serde), and what these cannot say is here. Rules:
//!
//! 1. All that is decided by is carried, as it is; nothing is worked out anew that might come out otherwise.
//!    What only finds other state (an index) is made again from that.
//! 2. The reader may be older or newer than the writer. It leaves out what it does not know, and what is new
//!    to the state has a default for where it is missing: a field that is added says `#[serde(default)]`, one
//!    that is not needed any more is just left out. What cannot be read at all is found when the new binary
//!    is asked, before anything is done.
//! 3. Texts of ours that live as long as the program are kept for good when they are read: there are few, and
//!    the next handover begins with new memory.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// A text that lives as long as the program.
pub fn kept<'de, D: Deserializer<'de>>(from: D) -> Result<&'static str, D::Error> {
    String::deserialize(from).map(keep)
}

/// The same, where it may be missing.
pub fn kept_if_any<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'static str>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.map(keep))
}

/// The same, with a number.
pub fn kept_with<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<(&'static str, i32)>, D::Error> {
    let some = Option::<(String, i32)>::deserialize(from)?;
    Ok(some.map(|(text, n)| (keep(text), n)))
}

/// Numbers by such texts.
pub fn kept_keys<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<BTreeMap<&'static str, u64>, D::Error> {
    let all = BTreeMap::<String, u64>::deserialize(from)?;
    Ok(all.into_iter().map(|(k, n)| (keep(k), n)).collect())
}

/// A list of such texts.
pub fn kept_set<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<&'static str>, D::Error> {
    let all = Vec::<String>::deserialize(from)?;
    Ok(all.into_iter().map(keep).collect())
}

/// It stays.
pub fn keep(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// Any bytes as text: what is no printable ASCII, and `%`, as `%` and two digits.
pub fn escape(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |n: u8| DIGITS.get(usize::from(n)).copied().map_or('0', char::from);
    let mut text = String::with_capacity(bytes.len());
    for b in bytes {
        match b {
            b'%' | ..0x20 | 0x7f.. => text.extend(['%', digit(b >> 4), digit(b & 15)]),
            _ => text.push(char::from(*b)),
        }
    }
    text
}

/// The bytes; `None`: it is none of that.
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (hex, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(hex, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(bytes)
}

/// A number with a point, to the last bit.
pub mod bits {
    use super::*;

    /// As it is written.
    pub fn serialize<S: Serializer>(n: &f64, to: S) -> Result<S::Ok, S::Error> {
        n.to_bits().serialize(to)
    }

    /// As it is read.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        u64::deserialize(from).map(f64::from_bits)
    }
}

/// A map by what is no text: as a list of pairs.
pub mod pairs {
    use super::*;

    /// As it is written.
    pub fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(map)
    }

    /// As it is read.
    pub fn deserialize<'de, K, V, D>(from: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(from)?.into_iter().collect())
    }
}

/// Paths, and what they are in: any bytes can be in them, and text is not any bytes. So they are written as what
/// they are to the system.
pub mod paths {
    use super::*;
    use std::ffi::OsString;
    use std::path::PathBuf;

    /// Something with paths in it.
    pub trait Paths: Sized {
        /// It, as it is written.
        type As: Serialize + for<'de> Deserialize<'de>;
        /// Written.
        fn written(&self) -> Self::As;
        /// Read.
        fn read(from: Self::As) -> Self;
    }

    impl Paths for OsString {
        type As = OsString;
        fn written(&self) -> OsString {
            self.clone()
        }
        fn read(from: OsString) -> OsString {
            from
        }
    }

    impl Paths for PathBuf {
        type As = OsString;
        fn written(&self) -> OsString {
            self.clone().into_os_string()
        }
        fn read(from: OsString) -> PathBuf {
            from.into()
        }
    }

    impl<T: Paths> Paths for Option<T> {
        type As = Option<T::As>;
        fn written(&self) -> Self::As {
            self.as_ref().map(T::written)
        }
        fn read(from: Self::As) -> Self {
            from.map(T::read)
        }
    }

    impl<T: Paths> Paths for Vec<T> {
        type As = Vec<T::As>;
        fn written(&self) -> Self::As {
            self.iter().map(T::written).collect()
        }
        fn read(from: Self::As) -> Self {
            from.into_iter().map(T::read).collect()
        }
    }

    /// As it is written.
    pub fn serialize<T: Paths, S: Serializer>(some: &T, to: S) -> Result<S::Ok, S::Error> {
        some.written().serialize(to)
    }

    /// As it is read.
    pub fn deserialize<'de, T: Paths, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        T::As::deserialize(from).map(T::read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_can_be_text() {
        let all: Vec<u8> = (0..=255).collect();
        let text = escape(&all);
        assert!(text.is_ascii() && !text.contains('\n'));
        assert_eq!(unescape(&text), Some(all));
        for broken in ["%", "%1", "a%g0", "%é"] {
            assert_eq!(unescape(broken), None, "{broken}");
        }
        assert_eq!(unescape("a%20%25b"), Some(b"a %b".to_vec()));
        assert_eq!(escape(b"plain /text"), "plain /text");
    }

    #[test]
    fn a_number_with_a_point_is_the_same_to_the_last_bit() {
        #[derive(Serialize, Deserialize)]
        struct N(#[serde(with = "bits")] f64);
        for n in [0.1 + 0.2, f64::MIN_POSITIVE, -1e300, 0.7312345678901234] {
            let text = serde_json::to_string(&N(n)).unwrap();
            let N(read) = serde_json::from_str(&text).unwrap();
            assert_eq!(read.to_bits(), n.to_bits());
        }
    }
}
