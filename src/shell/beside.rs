//! A further lane at the path of a unix socket, and how it takes the name from the one that has it.
//!
//! A listening socket cannot be moved, but its name can: the new one listens under a hidden name
//! first, and then gets the path in one step (rename(2)), so that a client comes to one or the other
//! and never finds nothing. Connections that wait in the queue of the old one stay there.
//!
//! Rules:
//! 1. Names change places rather than that one replaces the other: what turns out to be a stranger's
//!    goes back unharmed.
//! 2. What the workers or the operator have made of the old file (chmod, chown) holds for the new one.
//! 3. A socket that was passed to us keeps a hidden name, by which it gets the path back.

use super::filed::{Filed, Holds, dress, hidden_names, listen_at};
use super::names::identity;
use super::sockets::is_abstract;
use crate::core::FileIs;
use crate::sys::unix;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// So often the path may come and go while it is taken.
const TRIES: usize = 16;

impl Filed {
    /// Opens a further socket for the path of this one, which listens under a hidden name until it
    /// takes the path. Its file is like the present one, where that can be seen, or else as said.
    pub fn beside(&self, like: &FileIs, backlog: i32) -> io::Result<(OwnedFd, Filed)> {
        if is_abstract(&self.path) {
            let message = format!(
                "{}: a name that is in no file system cannot go from one socket to another: the present one stays",
                self.path.display()
            );
            return Err(io::Error::new(ErrorKind::Unsupported, message));
        }
        let free = |name: &PathBuf| {
            fs::symlink_metadata(name).is_err_and(|e| e.kind() == ErrorKind::NotFound)
        };
        let hidden = hidden_names(&self.path).into_iter().find(free);
        let hidden = hidden.ok_or_else(|| io::Error::from_raw_os_error(libc::EEXIST))?;
        let present = self.present();
        let born = match &present {
            Some(m) => Some(m.mode() & 0o777),
            None => like.mode,
        };
        let mode = FileIs {
            mode: born,
            ..*like
        };
        let socket = listen_at(&hidden, &mode, backlog)?;
        let id = identity(&hidden).ok_or_else(|| gone(&hidden, &self.path));
        let dressed = id.and_then(|id| match &present {
            Some(m) => unix::make_like(&hidden, id, m).map(|()| id),
            None => dress(&hidden, like).map(|()| id),
        });
        if dressed.is_err() {
            let _ = fs::remove_file(&hidden);
        }
        let filed = Filed {
            path: self.path.clone(),
            id: dressed?,
            hidden: Some(hidden),
            ours: true,
            holds: Holds::Hidden,
        };
        Ok((socket, filed))
    }

    /// Takes the path from the lane that has it, in one step. If that cannot be, nothing has changed.
    ///
    /// From then on this one is mended, and the other is not. The caller watches this one's file,
    /// best before: a name that goes in between would go unnoticed. The watch of the other ends with
    /// its socket, and what it tells meanwhile finds nothing to mend.
    ///
    /// What was passed to us keeps a hidden name: before the end it takes the path back, by this same
    /// means, or who passed it would have a socket that nobody finds.
    pub fn take_name(&mut self, from: &mut Filed) -> io::Result<()> {
        if self.holds == Holds::Named {
            return Ok(());
        }
        let hidden = self.hidden.clone().filter(|name| self.is_at(name));
        let Some(hidden) = hidden else {
            let missing = self.hidden.as_ref().unwrap_or(&self.path);
            return Err(gone(missing, &self.path));
        };
        if let Some(m) = from.present() {
            unix::make_like(&hidden, self.id, &m)?;
        }
        // One name goes to the path, one stays.
        let linked = |name: &PathBuf| fs::hard_link(&hidden, name).is_ok();
        match hidden_names(&self.path).into_iter().find(linked) {
            Some(spare) => {
                let taken = self.put(&spare, from);
                if taken.is_err() && self.is_at(&spare) {
                    let _ = fs::remove_file(&spare);
                }
                taken
            }
            // A file system without second names.
            None => {
                self.put(&hidden, from)?;
                self.hidden = None;
                Ok(())
            }
        }
    }

    /// What its file is like, if it is there.
    fn present(&self) -> Option<Metadata> {
        let names = [Some(&self.path), self.hidden.as_ref()];
        let seen = names.into_iter().flatten();
        seen.filter_map(|name| fs::symlink_metadata(name).ok())
            .find(|m| (m.dev(), m.ino()) == self.id)
    }

    fn is_at(&self, name: &Path) -> bool {
        identity(name) == Some(self.id)
    }

    /// Puts what has that name at the path, in the place of the other lane's.
    fn put(&mut self, name: &Path, from: &mut Filed) -> io::Result<()> {
        let path = self.path.clone();
        for _ in 0..TRIES {
            match identity(&path) {
                Some(id) if id == self.id => drop(fs::remove_file(name)),
                Some(id) if id == from.id => match unix::exchange(name, &path) {
                    Ok(()) if from.is_at(name) => {}
                    // It changed in this very moment: what came is put where it was.
                    Ok(()) => {
                        self.put_back(name)?;
                        continue;
                    }
                    Err(e) if e.kind() == ErrorKind::NotFound => continue,
                    Err(e) if cannot_exchange(&e) && from.can_lose_its_path() => {
                        fs::rename(name, &path)?;
                    }
                    Err(e) => return Err(e),
                },
                Some(_) => return Err(strangers(&path)),
                None => match fs::hard_link(name, &path) {
                    Ok(()) => drop(fs::remove_file(name)),
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => continue,
                    Err(_) => fs::rename(name, &path)?,
                },
            }
            self.holds = Holds::Named;
            from.lose(name);
            return Ok(());
        }
        Err(strangers(&path))
    }

    /// The name has what was somebody else's at the path, and the path what is ours.
    fn put_back(&self, name: &Path) -> io::Result<()> {
        match unix::exchange(name, &self.path) {
            Ok(()) if self.is_at(name) => Ok(()),
            // That has been removed meanwhile, or something else put there, which holds.
            Ok(()) | Err(_) => fs::rename(name, &self.path),
        }
    }

    /// Would it still be found without its path, if it has to be?
    fn can_lose_its_path(&self) -> bool {
        self.ours || self.hidden.as_ref().is_some_and(|name| self.is_at(name))
    }

    /// Another lane has the path, and `old` is perhaps what this one's name there has become.
    fn lose(&mut self, old: &Path) {
        let mut kept = None;
        for name in [self.hidden.take(), Some(old.to_path_buf())]
            .into_iter()
            .flatten()
        {
            match self.is_at(&name) {
                true if !self.ours && kept.is_none() => kept = Some(name),
                true => drop(fs::remove_file(&name)),
                false => {}
            }
        }
        self.holds = match kept {
            Some(_) => Holds::Hidden,
            None => Holds::Left,
        };
        self.hidden = kept;
    }
}

/// An old kernel, or a file system that does not know how.
fn cannot_exchange(e: &io::Error) -> bool {
    matches!(
        e.raw_os_error(),
        Some(libc::EINVAL | libc::ENOSYS | libc::EOPNOTSUPP)
    )
}

fn strangers(path: &Path) -> io::Error {
    let message = format!(
        "something else is at {} now: it is left alone, and the new socket is not put there",
        path.display()
    );
    io::Error::new(ErrorKind::AlreadyExists, message)
}

fn gone(name: &Path, path: &Path) -> io::Error {
    let message = format!(
        "{} was removed: the new socket cannot be put at {}, and the present one stays",
        name.display(),
        path.display()
    );
    io::Error::new(ErrorKind::NotFound, message)
}

#[cfg(test)]
mod tests {
    use super::super::filed::Mended;
    use super::*;
    use crate::sys::socket::stop_listening;
    use std::os::fd::AsFd;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    const PLAIN: FileIs = FileIs {
        mode: None,
        uid: None,
        gid: None,
    };

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("mc-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn count(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    fn never_blocks(fd: OwnedFd) -> UnixListener {
        let listener = UnixListener::from(fd);
        listener.set_nonblocking(true).unwrap();
        listener
    }

    fn accepted(listener: &UnixListener) -> usize {
        std::iter::from_fn(|| listener.accept().ok()).count()
    }

    #[test]
    fn clients_that_come_all_the_time_find_one_or_the_other_lane_at_each_of_200_changes() {
        let dir = dir("beside");
        let path = dir.join("a.sock");
        let (first, mut filed) = Filed::open(&path, &PLAIN, 4096).unwrap();
        let mut lanes = vec![never_blocks(first)];
        let (came, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
        let mut taken = 0;
        let refused = std::thread::scope(|scope| {
            let clients = scope.spawn(|| {
                let mut refused = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match UnixStream::connect(&path) {
                        Ok(_) => drop(came.fetch_add(1, Ordering::Relaxed)),
                        Err(e) => refused.push(e.to_string()),
                    }
                }
                refused
            });
            let until = Instant::now() + Duration::from_secs(30);
            for _ in 0..200 {
                let (socket, mut next) = filed.beside(&PLAIN, 4096).unwrap();
                next.take_name(&mut filed).unwrap();
                filed = next;
                // Each change is met by clients.
                let before = came.load(Ordering::Relaxed);
                while came.load(Ordering::Relaxed) < before + 2 && Instant::now() < until {
                    taken += lanes.iter().map(accepted).sum::<usize>();
                    std::thread::yield_now();
                }
                lanes.push(never_blocks(socket));
                if lanes.len() > 3 {
                    taken += accepted(&lanes.remove(0));
                }
            }
            stop.store(true, Ordering::Relaxed);
            // It may wait for room in a queue.
            while !clients.is_finished() {
                taken += lanes.iter().map(accepted).sum::<usize>();
                std::thread::yield_now();
            }
            clients.join().unwrap()
        });
        taken += lanes.iter().map(accepted).sum::<usize>();
        assert_eq!(refused, Vec::<String>::new());
        assert!(taken >= 400, "{taken} clients");
        assert_eq!(taken, came.load(Ordering::Relaxed));
        assert_eq!(count(&dir), 2);
        filed.remove();
        fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn who_waits_at_the_old_lane_stays_there_and_a_name_that_goes_is_put_back_for_the_new_one() {
        let dir = dir("queued");
        let path = dir.join("a.sock");
        let (old, mut from) = Filed::open(&path, &PLAIN, 16).unwrap();
        let _waits = [(); 3].map(|()| UnixStream::connect(&path).unwrap());
        let (new, mut next) = from.beside(&PLAIN, 16).unwrap();
        assert_eq!((from.holds, next.holds), (Holds::Named, Holds::Hidden));
        // Not the new one's affair yet.
        fs::remove_file(&path).unwrap();
        assert!(matches!(next.mend(), Mended::Fine) && !path.exists());
        assert!(matches!(from.mend(), Mended::PutBack));
        next.take_name(&mut from).unwrap();
        next.take_name(&mut from).unwrap();
        assert_eq!((from.holds, next.holds), (Holds::Left, Holds::Named));
        let _comes = UnixStream::connect(&path).unwrap();
        let (old, new) = (never_blocks(old), never_blocks(new));
        assert_eq!((accepted(&old), accepted(&new)), (3, 1));
        // A worker of the old one ends, and takes the file with it.
        fs::remove_file(&path).unwrap();
        assert!(matches!(from.mend(), Mended::Fine) && !path.exists());
        assert!(matches!(next.mend(), Mended::PutBack));
        let _comes = UnixStream::connect(&path).unwrap();
        assert_eq!((accepted(&old), accepted(&new)), (0, 1));
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(from.is_meant(me, &path, || ()) && next.is_meant(me, &path, || ()));
        from.remove();
        from.leave();
        assert_eq!(count(&dir), 2);
        next.leave();
        assert_eq!(count(&dir), 1);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_a_stranger_has_put_there_is_left_and_a_path_that_is_missing_is_taken() {
        let dir = dir("stranger");
        let path = dir.join("a.sock");
        let (_old, mut from) = Filed::open(&path, &PLAIN, 16).unwrap();
        let (new, mut next) = from.beside(&PLAIN, 16).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        let e = next.take_name(&mut from).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AlreadyExists);
        assert!(e.to_string().contains("left alone"), "{e}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!((from.holds, next.holds), (Holds::Named, Holds::Hidden));
        assert_eq!(count(&dir), 3);
        fs::remove_file(&path).unwrap();
        next.take_name(&mut from).unwrap();
        let _comes = UnixStream::connect(&path).unwrap();
        assert_eq!(accepted(&never_blocks(new)), 1);
        // Without any name there is no way to the path.
        let (_third, mut third) = next.beside(&PLAIN, 16).unwrap();
        fs::remove_file(third.hidden().unwrap()).unwrap();
        let e = third.take_name(&mut next).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::NotFound);
        assert!(matches!(next.mend(), Mended::Fine));
        next.remove();
        fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn without_second_names_the_hidden_one_becomes_the_path() {
        let dir = dir("nolink");
        let path = dir.join("a.sock");
        let (_old, mut from) = Filed::open(&path, &PLAIN, 16).unwrap();
        fs::remove_file(from.hidden.take().unwrap()).unwrap();
        let (new, mut next) = from.beside(&PLAIN, 16).unwrap();
        let hidden = next.hidden.take().unwrap();
        next.put(&hidden, &mut from).unwrap();
        assert_eq!((from.holds, next.holds), (Holds::Left, Holds::Named));
        let _comes = UnixStream::connect(&path).unwrap();
        assert_eq!(accepted(&never_blocks(new)), 1);
        assert_eq!(count(&dir), 1);
        next.remove();
        fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn a_lane_that_is_shut_down_or_lost_is_replaced() {
        let dir = dir("heal");
        let path = dir.join("a.sock");
        let (dead, mut from) = Filed::open(&path, &PLAIN, 16).unwrap();
        stop_listening(dead.as_fd());
        assert!(UnixStream::connect(&path).is_err());
        let (new, mut next) = from.beside(&PLAIN, 16).unwrap();
        next.take_name(&mut from).unwrap();
        let _comes = UnixStream::connect(&path).unwrap();
        assert_eq!(accepted(&never_blocks(new)), 1);
        for name in [&path, next.hidden.as_ref().unwrap()] {
            fs::remove_file(name).unwrap();
        }
        assert!(matches!(next.mend(), Mended::Lost(_)));
        let like = FileIs {
            mode: Some(0o604),
            ..PLAIN
        };
        let (new, mut last) = next.beside(&like, 16).unwrap();
        last.take_name(&mut next).unwrap();
        let _comes = UnixStream::connect(&path).unwrap();
        assert_eq!(accepted(&never_blocks(new)), 1);
        assert_eq!(mode(&path), 0o604);
        last.remove();
        fs::remove_dir(&dir).unwrap();
    }

    #[test]
    fn a_socket_that_was_passed_keeps_its_mode_and_gets_its_path_back() {
        let dir = dir("passed");
        let path = dir.join("a.sock");
        let given = never_blocks(UnixListener::bind(&path).unwrap().into());
        fs::set_permissions(&path, PermissionsExt::from_mode(0o622)).unwrap();
        // Twice: a master that was killed has left the hidden name of a socket that lives.
        drop(Filed::passed(&path));
        let mut passed = Filed::passed(&path).unwrap();
        assert!(passed.hidden().is_some());
        let (new, mut next) = passed.beside(&PLAIN, 16).unwrap();
        assert_eq!(mode(next.hidden().unwrap()), 0o622);
        // A worker of the new generation has the old file still.
        fs::set_permissions(&path, PermissionsExt::from_mode(0o666)).unwrap();
        next.take_name(&mut passed).unwrap();
        assert_eq!((mode(&path), passed.holds), (0o666, Holds::Hidden));
        let _comes = UnixStream::connect(&path).unwrap();
        assert_eq!((accepted(&given), accepted(&never_blocks(new))), (0, 1));
        // The next generation is like this one, though nothing was said.
        let (newer, mut last) = next.beside(&PLAIN, 16).unwrap();
        last.take_name(&mut next).unwrap();
        assert_eq!((mode(&path), count(&dir)), (0o666, 3));
        // Killed at this moment: the next start finds its name.
        drop(newer);
        passed.remove();
        let mut passed = Filed::passed(&path).unwrap();
        let _comes = UnixStream::connect(&path).unwrap();
        // It was asked whether it lives, too.
        assert_eq!((accepted(&given), count(&dir)), (1 + 1, 2));
        // And stopped in peace, who passed it has it as it was.
        let (_new, mut next) = passed.beside(&PLAIN, 16).unwrap();
        next.take_name(&mut passed).unwrap();
        passed.take_name(&mut next).unwrap();
        assert_eq!((passed.holds, next.holds), (Holds::Named, Holds::Left));
        next.remove();
        passed.remove();
        let _comes = UnixStream::connect(&path).unwrap();
        assert_eq!((accepted(&given), count(&dir)), (1, 1));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn what_a_killed_master_has_left_is_cleaned_whatever_lane_it_was_of() {
        let dir = dir("killed");
        let path = dir.join("a.sock");
        let (old, mut from) = Filed::open(&path, &PLAIN, 16).unwrap();
        let (new, mut next) = from.beside(&PLAIN, 16).unwrap();
        next.take_name(&mut from).unwrap();
        let (newer, _) = next.beside(&PLAIN, 16).unwrap();
        for name in hidden_names(&path).iter().skip(2) {
            let _ = UnixListener::bind(name);
        }
        let [.., theirs] = hidden_names(&path);
        fs::remove_file(&theirs).unwrap();
        fs::write(&theirs, "mine").unwrap();
        drop((old, new));
        // One lives: it is in use, though the path is dead.
        let refused = Filed::open(&path, &PLAIN, 16).err().unwrap();
        assert_eq!(refused.raw_os_error(), Some(libc::EADDRINUSE));
        drop(newer);
        let (_socket, filed) = Filed::open(&path, &PLAIN, 16).unwrap();
        assert_eq!(fs::read_to_string(&theirs).unwrap(), "mine");
        assert_eq!(count(&dir), 3);
        filed.remove();
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn long_paths_have_a_further_lane_and_abstract_names_have_none() {
        let dir = dir("longer");
        // What a socket's address takes: 107.
        let room = 107 - dir.as_os_str().len() - 1;
        let deep = dir.join("y".repeat(room - 2));
        fs::create_dir(&deep).unwrap();
        let names = (room - 3..=room).map(|n| dir.join("x".repeat(n)));
        for path in names.chain([deep.join("z")]) {
            let (_old, mut from) = Filed::open(&path, &PLAIN, 16).unwrap();
            let (new, mut next) = from.beside(&PLAIN, 16).unwrap();
            next.take_name(&mut from).unwrap();
            fs::remove_file(&path).unwrap();
            assert!(matches!(next.mend(), Mended::PutBack), "{path:?}");
            let _comes = UnixStream::connect(&path).unwrap();
            assert_eq!(accepted(&never_blocks(new)), 1);
            next.remove();
        }
        fs::remove_dir(&deep).unwrap();
        let (_s, mut filed) = Filed::open(&dir.join("a"), &PLAIN, 16).unwrap();
        filed.path = PathBuf::from("@a");
        let e = filed.beside(&PLAIN, 16).err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        fs::remove_dir_all(&dir).unwrap();
    }
}
