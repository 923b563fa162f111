//! Users, limits and the rest of what a worker may do, as people type them.

use super::number;
use serde::{Deserialize, Serialize};

/// A user or a group, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Principal {
    /// To be looked up.
    Named(String),
    /// All digits: good without any user database.
    Number(u32),
}

impl std::fmt::Display for Principal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Principal::Named(name) => f.write_str(name),
            Principal::Number(n) => write!(f, "{n}"),
        }
    }
}

/// A name or a number.
pub fn principal(text: &str) -> Result<Principal, String> {
    if text.is_empty() {
        return Err("a name or a number".into());
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        // The last one means "leave it as it is" to the kernel.
        return number(text, 0, u32::MAX - 1).map(Principal::Number);
    }
    if text.contains(':') {
        return Err(format!(
            "'{text}' is no name: write --user USER --group GROUP"
        ));
    }
    Ok(Principal::Named(text.into()))
}

/// Octal, 0 to 0777.
pub fn umask(text: &str) -> Result<u32, String> {
    let octal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match u32::from_str_radix(text, 8) {
        Ok(mask) if octal && mask <= 0o777 => Ok(mask),
        Ok(_) | Err(_) => Err(format!(
            "'{text}' is no octal number from 0 to 0777, like 027"
        )),
    }
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Bytes,
    Plain,
}

/// In the order of their numbers.
const RESOURCES: [(&str, Unit); 16] = [
    ("cpu", Unit::Plain),
    ("fsize", Unit::Bytes),
    ("data", Unit::Bytes),
    ("stack", Unit::Bytes),
    ("core", Unit::Bytes),
    ("rss", Unit::Bytes),
    ("nproc", Unit::Plain),
    ("nofile", Unit::Plain),
    ("memlock", Unit::Bytes),
    ("as", Unit::Bytes),
    ("locks", Unit::Plain),
    ("sigpending", Unit::Plain),
    ("msgqueue", Unit::Bytes),
    ("nice", Unit::Plain),
    ("rtprio", Unit::Plain),
    ("rttime", Unit::Plain),
];

/// The limit of open files.
pub const NOFILE: u8 = 7;
/// Without end.
pub const UNLIMITED: u64 = u64::MAX;

/// One resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// The kernel's number of it.
    pub resource: u8,
    /// What applies.
    pub soft: u64,
    /// How far the worker may raise that itself.
    pub hard: u64,
}

impl Rlimit {
    /// `nofile`
    pub fn name(&self) -> &'static str {
        RESOURCES
            .get(usize::from(self.resource))
            .map_or("?", |(name, _)| name)
    }
}

/// A value of a limit, as people write it.
pub fn limit_text(value: u64) -> String {
    match value {
        UNLIMITED => "unlimited".into(),
        n => n.to_string(),
    }
}

/// `NAME=SOFT[:HARD]`
pub fn rlimit(text: &str) -> Result<Rlimit, String> {
    let Some((name, values)) = text.split_once('=') else {
        return Err(format!(
            "'{text}' is not NAME=SOFT[:HARD], like nofile=65536 or core=0:unlimited"
        ));
    };
    let all = (0..).zip(RESOURCES);
    let found = all.into_iter().find(|(_, (n, _))| *n == name);
    let Some((resource, (_, unit))) = found else {
        let names: Vec<&str> = RESOURCES.iter().map(|(n, _)| *n).collect();
        return Err(format!("'{name}' is none of {}", names.join(" ")));
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (limit(soft, unit)?, limit(hard, unit)?);
    if soft > hard {
        return Err(format!(
            "'{text}': the soft limit {} is above the hard one, {}",
            limit_text(soft),
            limit_text(hard)
        ));
    }
    Ok(Rlimit {
        resource,
        soft,
        hard,
    })
}

fn limit(text: &str, unit: Unit) -> Result<u64, String> {
    if text == "unlimited" || text == "infinity" {
        return Ok(UNLIMITED);
    }
    let units = [('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30)];
    let of = |(letter, factor): (char, u64)| Some((text.strip_suffix(letter)?, factor));
    let (digits, factor) = match unit {
        Unit::Bytes => units.into_iter().find_map(of).unwrap_or((text, 1)),
        Unit::Plain => (text, 1),
    };
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let value = digits.parse::<u64>().ok().filter(|_| plain);
    let value = value.and_then(|n| n.checked_mul(factor));
    value.filter(|n| *n != UNLIMITED).ok_or_else(|| {
        let suffix = match unit {
            Unit::Bytes => "bytes, also with K, M or G",
            Unit::Plain => "a whole number",
        };
        format!("'{text}' is no limit: {suffix}, or unlimited")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups() {
        let named = |t: &str| Ok(Principal::Named(t.into()));
        assert_eq!(principal("www-data"), named("www-data"));
        assert_eq!(principal("0"), Ok(Principal::Number(0)));
        assert_eq!(principal("65534"), Ok(Principal::Number(65534)));
        assert_eq!(principal("1000x"), named("1000x"));
        for (bad, hint) in [
            ("", "a name or a number"),
            ("4294967295", "0 to 4294967294"),
            ("99999999999", "0 to 4294967294"),
            ("web:web", "--user USER --group GROUP"),
        ] {
            assert!(principal(bad).unwrap_err().contains(hint), "{bad}");
        }
    }

    #[test]
    fn masks_are_octal() {
        for (text, want) in [("0", 0), ("022", 0o22), ("0777", 0o777), ("77", 0o77)] {
            assert_eq!(umask(text), Ok(want), "{text}");
        }
        for bad in ["", "8", "1000", "-1", "+22", "0o22", "u=rwx"] {
            assert!(umask(bad).unwrap_err().contains("027"), "{bad}");
        }
    }

    #[test]
    fn limits_in_all_their_forms() {
        let of = |resource, soft, hard| {
            Ok(Rlimit {
                resource,
                soft,
                hard,
            })
        };
        for (text, want) in [
            ("nofile=1024", of(NOFILE, 1024, 1024)),
            ("nofile=1024:4096", of(NOFILE, 1024, 4096)),
            ("core=0:unlimited", of(4, 0, UNLIMITED)),
            ("as=infinity", of(9, UNLIMITED, UNLIMITED)),
            ("memlock=64K:1M", of(8, 65536, 1 << 20)),
            ("stack=1G", of(3, 1 << 30, 1 << 30)),
            ("cpu=3600", of(0, 3600, 3600)),
        ] {
            assert_eq!(rlimit(text), want, "{text}");
        }
        for (bad, hint) in [
            ("nofile", "NAME=SOFT[:HARD]"),
            ("RLIMIT_NOFILE=1", "cpu fsize data"),
            ("files=1", "nofile"),
            ("nofile=", "whole number"),
            ("nofile=1K", "whole number"),
            ("nofile=-1", "whole number"),
            ("nofile=+1", "whole number"),
            ("nofile=2:1", "above the hard one, 1"),
            ("nofile=unlimited:1", "soft limit unlimited"),
            ("as=1T", "K, M or G"),
            ("as=K", "K, M or G"),
            ("as=99999999999G", "K, M or G"),
            ("as=18446744073709551615", "or unlimited"),
            ("as=1:2:3", "K, M or G"),
        ] {
            assert!(rlimit(bad).unwrap_err().contains(hint), "{bad}");
        }
    }

    #[test]
    fn the_numbers_are_the_kernels() {
        for (name, number) in [
            ("cpu", libc::RLIMIT_CPU),
            ("fsize", libc::RLIMIT_FSIZE),
            ("data", libc::RLIMIT_DATA),
            ("stack", libc::RLIMIT_STACK),
            ("core", libc::RLIMIT_CORE),
            ("rss", libc::RLIMIT_RSS),
            ("nproc", libc::RLIMIT_NPROC),
            ("nofile", libc::RLIMIT_NOFILE),
            ("memlock", libc::RLIMIT_MEMLOCK),
            ("as", libc::RLIMIT_AS),
            ("locks", libc::RLIMIT_LOCKS),
            ("sigpending", libc::RLIMIT_SIGPENDING),
            ("msgqueue", libc::RLIMIT_MSGQUEUE),
            ("nice", libc::RLIMIT_NICE),
            ("rtprio", libc::RLIMIT_RTPRIO),
            ("rttime", libc::RLIMIT_RTTIME),
        ] {
            let l = rlimit(&format!("{name}=1")).unwrap();
            assert_eq!(u32::from(l.resource), number, "{name}");
            assert_eq!(l.name(), name);
        }
        assert_eq!(UNLIMITED, libc::RLIM_INFINITY);
    }
}
