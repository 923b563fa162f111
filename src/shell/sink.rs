//! Where our own log goes if not to stderr: a file, or syslogd. Neither may ever stop us: what is not
//! taken at once is not waited for, and is counted by whoever says it.

use crate::core::Level;
use crate::sys::{clock, fds, process};
use crate::wire::syslog::{frame, pieces};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// What is ours there.
const TAG: &str = "minicluster";

/// Where syslogd listens.
const DEV_LOG: &str = "/dev/log";

/// Where a daemon's very last word goes; no path is syslogd.
static LAST_RESORT: OnceLock<Option<PathBuf>> = OnceLock::new();

/// From here on our stderr may be nobody's.
pub fn set_last_resort(path: Option<&Path>) {
    let _ = LAST_RESORT.set(path.map(Path::to_path_buf));
}

/// For a bug of ours, which ends us where no log can be reached.
pub fn last_resort(message: &str) {
    match LAST_RESORT.get() {
        None => {}
        Some(Some(path)) => {
            if let Ok(file) = append_to(path, libc::O_NONBLOCK) {
                let line = format!("minicluster: {message}\n");
                let _ = fds::write(file.as_fd(), line.as_bytes());
            }
        }
        Some(None) => {
            if let Ok(mut syslog) = Syslog::open() {
                syslog.put(Level::Error, TAG, process::id(), message);
            }
        }
    }
}

/// A file that lines are appended to.
#[derive(Serialize, Deserialize)]
pub struct LogFile {
    /// Its path.
    #[serde(with = "crate::core::carry::paths")]
    pub path: PathBuf,
    #[serde(with = "crate::shell::carry")]
    out: File,
    /// What workers write to by themselves, if they do: it must not be the one above, which does not
    /// block if it is a pipe.
    #[serde(with = "crate::shell::carry")]
    shared: Option<File>,
    /// Does it end within a line, because the disk was full?
    torn: bool,
}

fn append_to(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        .custom_flags(flags | libc::O_NOCTTY)
        .open(path)
}

/// Of a description that is nobody else's yet.
fn blocking(file: File) -> io::Result<File> {
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    Ok(file)
}

impl LogFile {
    /// Opens it; for workers, too, if they are to write there.
    pub fn open(path: &Path, for_workers: bool) -> io::Result<LogFile> {
        // A pipe without a reader is refused, not waited for.
        let out = append_to(path, libc::O_NONBLOCK)?;
        let shared = match for_workers {
            true => Some(blocking(append_to(path, libc::O_NONBLOCK)?)?),
            false => None,
        };
        Ok(LogFile {
            path: path.to_path_buf(),
            out,
            shared,
            torn: false,
        })
    }

    /// The file that has its name now, after a rotation. If it cannot be had, the old one stays.
    pub fn reopen(&mut self) -> io::Result<()> {
        *self = LogFile::open(&self.path, self.shared.is_some())?;
        Ok(())
    }

    /// What workers write to.
    pub fn shared(&self) -> Option<BorrowedFd<'_>> {
        self.shared.as_ref().map(AsFd::as_fd)
    }

    /// Is it a pipe or a terminal that one of our standard descriptors is, as /dev/stdout may be?
    pub fn is_callers(&self) -> bool {
        let file = self.out.as_fd();
        let same = |fd: BorrowedFd<'_>| {
            let both = fds::identity(fd).and_then(|a| Ok((a, fds::identity(file)?)));
            both.is_ok_and(|(a, b)| a == b)
        };
        let (i, o, e) = (io::stdin(), io::stdout(), io::stderr());
        let standard = [i.as_fd(), o.as_fd(), e.as_fd()];
        (fds::is_pipe(file) || fds::is_terminal(file)) && standard.into_iter().any(same)
    }

    /// Appends this. False: it was lost, or its end was.
    pub fn put(&mut self, bytes: &[u8]) -> bool {
        let whole: Vec<u8> = match self.torn {
            true => [b"\n", bytes].concat(),
            false => bytes.to_vec(),
        };
        let mut done = 0;
        while let Some(rest) = whole.get(done..).filter(|r| !r.is_empty()) {
            match fds::write(self.out.as_fd(), rest) {
                Ok(n) if n > 0 => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        if done > 0 {
            self.torn = done < whole.len();
        }
        done == whole.len()
    }
}

/// The way to syslogd.
#[derive(Serialize, Deserialize)]
pub struct Syslog {
    #[serde(with = "crate::shell::carry")]
    socket: UnixDatagram,
}

impl Syslog {
    /// Finds it.
    pub fn open() -> io::Result<Syslog> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(DEV_LOG)?;
        socket.set_nonblocking(true)?;
        Ok(Syslog { socket })
    }

    /// Says that. False: some of it was lost.
    pub fn put(&mut self, level: Level, tag: &str, pid: i32, text: &str) -> bool {
        let (secs, _) = clock::wall();
        let local = secs.saturating_add_signed(clock::local_offset(secs));
        let all = pieces(text);
        let mut lines = all.iter().map(|t| frame(level, local, tag, pid, t));
        lines.all(|datagram| self.send(&datagram))
    }

    /// One that does not read is not waited for; one that was started anew is found again.
    fn send(&mut self, datagram: &[u8]) -> bool {
        match self.socket.send(datagram) {
            Ok(_) => true,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => match Syslog::open() {
                Ok(new) => {
                    *self = new;
                    self.socket.send(datagram).is_ok()
                }
                Err(_) => false,
            },
        }
    }
}

/// Where our own log goes.
#[derive(Serialize, Deserialize)]
pub enum Sink {
    /// To stderr.
    Stderr,
    /// To a file.
    File(LogFile),
    /// To syslogd.
    Syslog(Syslog),
    /// Nowhere: we are a daemon, and there is no syslogd.
    Nowhere,
}

impl Sink {
    /// Goes on with the file, or the syslogd, that is there now. What was done, or why not.
    pub fn reopen(&mut self) -> Result<String, String> {
        match self {
            Sink::Stderr => Ok("the log goes to stderr: there is nothing to reopen".into()),
            Sink::File(file) => {
                let shown = file.path.display().to_string();
                match file.reopen() {
                    Ok(()) => Ok(format!("reopened {shown}")),
                    Err(e) => {
                        let why = crate::core::words::reason(&e);
                        Err(format!(
                            "cannot reopen {shown}: {why}; going on with the old one"
                        ))
                    }
                }
            }
            Sink::Syslog(_) | Sink::Nowhere => match Syslog::open() {
                Ok(new) => {
                    *self = Sink::Syslog(new);
                    Ok("connected to syslog".into())
                }
                Err(e) => {
                    let why = crate::core::words::reason(&e);
                    Err(format!("cannot connect to syslog: {DEV_LOG}: {why}"))
                }
            },
        }
    }

    /// A line of our own. False: it was lost.
    pub fn put(&mut self, level: Level, line: &str) -> bool {
        match self {
            Sink::Stderr | Sink::Nowhere => true,
            Sink::File(file) => file.put(line.as_bytes()),
            Sink::Syslog(syslog) => syslog.put(level, TAG, process::id(), line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_appended_to_and_reopened_by_name() {
        let dir = std::env::temp_dir().join(format!("mc-sink-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let (at, old) = (dir.join("log"), dir.join("log.1"));
        std::fs::write(&at, "before\n").unwrap();
        let mut sink = Sink::File(LogFile::open(&at, true).unwrap());
        assert!(sink.put(Level::Info, "one\n"));
        std::fs::rename(&at, &old).unwrap();
        assert!(sink.put(Level::Info, "two\n"));
        assert!(sink.reopen().is_ok());
        assert!(sink.put(Level::Info, "three\n"));
        let text = |p: &Path| std::fs::read_to_string(p).unwrap();
        assert_eq!(
            (text(&old), text(&at)),
            ("before\none\ntwo\n".into(), "three\n".into())
        );
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(
            sink.reopen()
                .unwrap_err()
                .contains("going on with the old one")
        );
        assert!(sink.put(Level::Info, "four\n"));
    }

    #[test]
    fn the_last_word_of_a_daemon_is_in_its_log() {
        let at = std::env::temp_dir().join(format!("mc-last-{}", std::process::id()));
        set_last_resort(Some(&at));
        last_resort("internal error");
        let text = std::fs::read_to_string(&at).unwrap();
        assert_eq!(text, "minicluster: internal error\n");
        std::fs::remove_file(&at).unwrap();
    }

    #[test]
    fn what_a_full_disk_does_not_take_is_lost_and_said_to_be() {
        let mut file = LogFile::open(Path::new("/dev/full"), false).unwrap();
        assert!(!file.put(b"line\n"));
    }
}
