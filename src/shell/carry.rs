//! What the shell has that a handover carries and that does not say by itself how: descriptors, by their numbers
//! (`sys::carried`), and bytes, as text. A field of such a type says `#[serde(with = "carry")]`.

use crate::core::carry::{escape, unescape};
use crate::sys::carried;
use crate::sys::flock::Locked;
use crate::sys::lifeline::Lifeline;
use crate::sys::netlink::Netlink;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::rc::Rc;

/// Something that is carried.
pub trait Carry: Sized {
    /// As it is written down.
    type As: Serialize + for<'de> Deserialize<'de>;
    /// Written down.
    fn written(&self) -> Self::As;
    /// Taken from there. An error is a whole sentence.
    fn taken(from: Self::As) -> Result<Self, String>;
}

/// As serde has it.
pub fn serialize<T: Carry, S: Serializer>(some: &T, to: S) -> Result<S::Ok, S::Error> {
    some.written().serialize(to)
}

/// As serde has it.
pub fn deserialize<'de, T: Carry, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::taken(T::As::deserialize(from)?).map_err(D::Error::custom)
}

fn take(n: i32) -> Result<OwnedFd, String> {
    carried::take(n).map_err(|e| format!("descriptor {n} was not passed: {e}"))
}

/// A descriptor of a type of its own.
macro_rules! descriptor {
    ($($name:ty: $from:expr;)*) => {$(
        impl Carry for $name {
            type As = i32;
            fn written(&self) -> i32 {
                carried::write(self.as_fd())
            }
            fn taken(n: i32) -> Result<Self, String> {
                take(n).map($from)
            }
        }
    )*};
}

descriptor! {
    OwnedFd: |fd| fd;
    File: File::from;
    UnixDatagram: UnixDatagram::from;
    Locked: |fd| Locked::held(fd.into());
    Netlink: Netlink::of;
    mio::net::UnixStream: |fd| mio::net::UnixStream::from_std(fd.into());
    mio::net::TcpStream: |fd| mio::net::TcpStream::from_std(fd.into());
    mio::net::UnixListener: |fd| mio::net::UnixListener::from_std(fd.into());
    mio::net::TcpListener: |fd| mio::net::TcpListener::from_std(fd.into());
}

impl Serialize for Lifeline {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let ends = self.ends();
        let ends = ends.map(|(r, w)| (carried::write(r), carried::write(w)));
        ends.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Lifeline {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Lifeline, D::Error> {
        let ends = Option::<(i32, i32)>::deserialize(from)?;
        let both = |(r, w)| Ok((take(r)?, take(w)?));
        let ends: Result<_, String> = ends.map(both).transpose();
        ends.map(Lifeline::of).map_err(D::Error::custom)
    }
}

/// Bytes of a type of their own.
macro_rules! bytes {
    ($($name:ty: $as_bytes:expr, $from:expr;)*) => {$(
        impl Carry for $name {
            type As = String;
            fn written(&self) -> String {
                let of: fn(&$name) -> Vec<u8> = $as_bytes;
                escape(&of(self))
            }
            fn taken(text: String) -> Result<Self, String> {
                let bytes = unescape(&text).ok_or("bytes with a broken escape")?;
                let from: fn(Vec<u8>) -> $name = $from;
                Ok(from(bytes))
            }
        }
    )*};
}

bytes! {
    Vec<u8>: |b| b.clone(), |b| b;
    Cow<'static, [u8]>: |b| b.to_vec(), Cow::Owned;
    VecDeque<u8>: |b| b.iter().copied().collect(), VecDeque::from;
    PathBuf: |p| p.as_os_str().as_bytes().to_vec(), |b| OsString::from_vec(b).into();
    String: |s| s.as_bytes().to_vec(), |b| String::from_utf8_lossy(&b).into_owned();
    CString: |b| b.as_bytes().to_vec(), |b| CString::new(b).unwrap_or_default();
}

thread_local! {
    /// What has been written down already that several have,
    static WRITTEN: RefCell<BTreeSet<u64>> = const { RefCell::new(BTreeSet::new()) };
    /// and what has been read.
    static READ: RefCell<BTreeMap<u64, Rc<[u8]>>> = const { RefCell::new(BTreeMap::new()) };
}

/// A state begins, or has ended: what is in another one is another's.
pub fn begin() {
    WRITTEN.with_borrow_mut(BTreeSet::clear);
    READ.with_borrow_mut(BTreeMap::clear);
}

/// What several have is written once, and is one again when it is read: a page that two hundred clients are being
/// sent, a message for all workers.
impl Carry for Rc<[u8]> {
    type As = (u64, Option<String>);
    fn written(&self) -> Self::As {
        // (As long as nothing is dropped in between no other has that address.)
        let id = self.as_ptr() as u64;
        let first = WRITTEN.with_borrow_mut(|all| all.insert(id)) || self.is_empty();
        (id, first.then(|| escape(self)))
    }
    fn taken((id, text): Self::As) -> Result<Self, String> {
        let Some(text) = text else {
            let read = READ.with_borrow(|all| all.get(&id).cloned());
            return read.ok_or_else(|| "bytes that should have been there before".to_string());
        };
        let bytes = unescape(&text).ok_or("bytes with a broken escape")?;
        let bytes: Rc<[u8]> = bytes.into();
        READ.with_borrow_mut(|all| all.insert(id, bytes.clone()));
        Ok(bytes)
    }
}

impl<T: Carry> Carry for Option<T> {
    type As = Option<T::As>;
    fn written(&self) -> Self::As {
        self.as_ref().map(T::written)
    }
    fn taken(from: Self::As) -> Result<Self, String> {
        from.map(T::taken).transpose()
    }
}

impl<T: Carry> Carry for Vec<T> {
    type As = Vec<T::As>;
    fn written(&self) -> Self::As {
        self.iter().map(T::written).collect()
    }
    fn taken(from: Self::As) -> Result<Self, String> {
        from.into_iter().map(T::taken).collect()
    }
}

impl<T: Carry> Carry for VecDeque<T> {
    type As = Vec<T::As>;
    fn written(&self) -> Self::As {
        self.iter().map(T::written).collect()
    }
    fn taken(from: Self::As) -> Result<Self, String> {
        from.into_iter().map(T::taken).collect()
    }
}

impl<T: Carry> Carry for Rc<T> {
    type As = T::As;
    fn written(&self) -> Self::As {
        self.as_ref().written()
    }
    fn taken(from: Self::As) -> Result<Self, String> {
        T::taken(from).map(Rc::new)
    }
}

impl<T: Carry, U: Carry> Carry for (T, U) {
    type As = (T::As, U::As);
    fn written(&self) -> Self::As {
        (self.0.written(), self.1.written())
    }
    fn taken((one, two): Self::As) -> Result<Self, String> {
        Ok((T::taken(one)?, U::taken(two)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_have_is_written_once_and_is_one_again() {
        begin();
        let page: Rc<[u8]> = vec![b'x'; 1000].into();
        let other: Rc<[u8]> = Rc::from(&b"\x00%"[..]);
        let all = vec![page.clone(), other, page];
        let written = all.written();
        let lengths = written.iter().map(|(_, t)| t.as_ref().map(String::len));
        assert_eq!(lengths.collect::<Vec<_>>(), [Some(1000), Some(6), None]);
        let read = Vec::<Rc<[u8]>>::taken(written.clone()).unwrap();
        assert_eq!(read, all);
        assert!(Rc::ptr_eq(&read[0], &read[2]));
        begin();
        let later = Vec::<Rc<[u8]>>::taken(written[2..].to_vec());
        assert!(later.is_err(), "what it refers to is not there");
    }
}
