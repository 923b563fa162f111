//! Users and groups: who is called what, and who is in which.
//!
//! A dynamic binary asks the C library, which may ask a directory server. In a static one that does
//! not work, so the files are read here; what only a directory server knows has to be given by number.

use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io;

/// One user, as the database has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What it is called.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its primary group.
    pub gid: u32,
    /// Its directory.
    pub home: OsString,
    /// What runs when it logs in.
    pub shell: OsString,
}

#[cfg(not(target_feature = "crt-static"))]
mod database {
    use super::Account;
    use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
    use std::ffi::CString;
    use std::io;

    fn account(user: User) -> Account {
        Account {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            home: user.dir.into(),
            shell: user.shell.into(),
        }
    }

    pub fn by_name(name: &str) -> io::Result<Option<Account>> {
        named(name)?;
        Ok(User::from_name(name)?.map(account))
    }

    pub fn by_uid(uid: u32) -> io::Result<Option<Account>> {
        Ok(User::from_uid(Uid::from_raw(uid))?.map(account))
    }

    pub fn group(name: &str) -> io::Result<Option<u32>> {
        named(name)?;
        Ok(Group::from_name(name)?.map(|g| g.gid.as_raw()))
    }

    /// `nix` takes it for granted that a name holds no NUL.
    fn named(name: &str) -> io::Result<CString> {
        Ok(CString::new(name)?)
    }

    pub fn groups_of(name: &str, gid: u32) -> io::Result<Vec<u32>> {
        let name = named(name)?;
        let all = getgrouplist(&name, Gid::from_raw(gid))?;
        Ok(all.into_iter().map(Gid::as_raw).collect())
    }
}

#[cfg(target_feature = "crt-static")]
mod database {
    use super::{Account, files};
    use std::io::{self, Read};

    /// Longest file of users or groups that is read.
    const MAX_FILE: u64 = 16 << 20;

    /// One that is not there has nobody in it.
    fn read(path: &str) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        match std::fs::File::open(path) {
            Ok(file) => file.take(MAX_FILE).read_to_end(&mut text)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(e) => return Err(e),
        };
        Ok(text)
    }

    pub fn by_name(name: &str) -> io::Result<Option<Account>> {
        let text = read("/etc/passwd")?;
        Ok(files::accounts(&text).find(|a| a.name == name))
    }

    pub fn by_uid(uid: u32) -> io::Result<Option<Account>> {
        let text = read("/etc/passwd")?;
        Ok(files::accounts(&text).find(|a| a.uid == uid))
    }

    pub fn group(name: &str) -> io::Result<Option<u32>> {
        Ok(files::group(&read("/etc/group")?, name))
    }

    pub fn groups_of(name: &str, gid: u32) -> io::Result<Vec<u32>> {
        Ok(files::groups_of(&read("/etc/group")?, name, gid))
    }
}

/// The user of this name.
pub fn by_name(name: &str) -> io::Result<Option<Account>> {
    database::by_name(name)
}

/// The user of this number. A database that cannot be asked knows nobody: numbers always work.
pub fn by_uid(uid: u32) -> Option<Account> {
    database::by_uid(uid).unwrap_or(None)
}

/// The number of the group of this name.
pub fn group(name: &str) -> io::Result<Option<u32>> {
    database::group(name)
}

/// All groups of that user, as initgroups(3) would set them: this one first, then those that list it.
pub fn groups_of(name: &str, gid: u32) -> io::Result<Vec<u32>> {
    database::groups_of(name, gid)
}

/// The format of /etc/passwd and /etc/group. Lines that are none are passed over, as the C library
/// does; so are those that only a directory server could complete (`+name`).
pub mod files {
    use super::Account;
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    /// The fields of each line that has so many.
    fn lines<const N: usize>(text: &[u8]) -> impl Iterator<Item = [&[u8]; N]> {
        let split = |line: &'_ [u8]| -> bool { !line.starts_with(b"#") && !line.starts_with(b"+") };
        text.split(|b| *b == b'\n')
            .filter(move |line| split(line))
            .filter_map(|line| {
                line.split(|b| *b == b':')
                    .collect::<Vec<_>>()
                    .get(..N)?
                    .try_into()
                    .ok()
            })
            .filter(|all: &[&[u8]; N]| all.first().is_some_and(|name| !name.is_empty()))
    }

    fn number(field: &[u8]) -> Option<u32> {
        let plain = field.iter().all(u8::is_ascii_digit);
        std::str::from_utf8(field)
            .ok()
            .filter(|_| plain)?
            .parse()
            .ok()
    }

    fn text(field: &[u8]) -> Option<String> {
        std::str::from_utf8(field).ok().map(String::from)
    }

    /// `name:x:uid:gid:comment:home:shell`, each line.
    pub fn accounts(passwd: &[u8]) -> impl Iterator<Item = Account> {
        lines(passwd).filter_map(|[name, _, uid, gid, _, home, shell]| {
            Some(Account {
                name: text(name)?,
                uid: number(uid)?,
                gid: number(gid)?,
                home: OsString::from_vec(home.to_vec()),
                shell: OsString::from_vec(shell.to_vec()),
            })
        })
    }

    /// `name:x:gid:member,member`, the one of this name.
    pub fn group(group: &[u8], name: &str) -> Option<u32> {
        lines(group)
            .filter(|[is, _, _]| *is == name.as_bytes())
            .find_map(|[_, _, gid]| number(gid))
    }

    /// This group, then all that list that user, each once.
    pub fn groups_of(group: &[u8], name: &str, gid: u32) -> Vec<u32> {
        let mut all = vec![gid];
        for [_, _, gid, members] in lines(group) {
            let mut members = members.split(|b| *b == b',').map(<[u8]>::trim_ascii);
            let listed = members.any(|m| m == name.as_bytes());
            if let Some(n) = number(gid).filter(|n| listed && !all.contains(n)) {
                all.push(n);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/bash\n\
        # web:x:7:7::/:/bin/sh\n\
        short:x:8:8\n\
        +nis\n\
        bad:x:-1:0::/:/bin/sh\n\
        many:x:99999999999:0::/:/bin/sh\n\
        :x:9:9::/:/bin/sh\n\
        web:x:33:34:Web, the one:/var/www:\n\
        web:x:44:44::/second:/bin/sh\n\
        odd\xFFname:x:50:50::/:/bin/sh\n\
        last:x:1000:100::/home/last:/bin/sh";

    const GROUP: &[u8] = b"root:x:0:\nweb:x:34:\n\nadm:x:4:web,last\n#adm:x:5:web\n\
        shadow:x:42:webmaster,www\nssl:x:110:last, web\nssl2:x:110:web\nbroken:x:y:web\nold:x:7";

    #[test]
    fn accounts_of_a_file() {
        let all: Vec<Account> = files::accounts(PASSWD).collect();
        let names: Vec<(&str, u32, u32)> = all
            .iter()
            .map(|a| (a.name.as_str(), a.uid, a.gid))
            .collect();
        assert_eq!(
            names,
            [
                ("root", 0, 0),
                ("web", 33, 34),
                ("web", 44, 44),
                ("last", 1000, 100)
            ]
        );
        assert_eq!(
            (all[1].home.to_str(), all[1].shell.to_str()),
            (Some("/var/www"), Some(""))
        );
        assert_eq!(all[3].shell.to_str(), Some("/bin/sh"));
        assert_eq!(files::accounts(b"").count(), 0);
    }

    #[test]
    fn groups_of_a_file() {
        assert_eq!(files::group(GROUP, "adm"), Some(4));
        assert_eq!(files::group(GROUP, "old"), Some(7));
        for none in ["#adm", "broken", "missing", ""] {
            assert_eq!(files::group(GROUP, none), None, "{none}");
        }
        assert_eq!(files::groups_of(GROUP, "web", 34), [34, 4, 110]);
        assert_eq!(files::groups_of(GROUP, "last", 100), [100, 4, 110]);
        assert_eq!(files::groups_of(GROUP, "nobody", 65534), [65534]);
    }

    #[test]
    fn the_database_of_this_machine_agrees_with_itself() {
        let root = by_name("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(by_uid(0), Some(root));
        assert_eq!(group("root").unwrap(), Some(0));
        assert!(groups_of("root", 0).unwrap().contains(&0));
        assert_eq!(by_name("no such user").unwrap(), None);
        assert_eq!(group("no such group").unwrap(), None);
    }
}
