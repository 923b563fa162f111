//! Where clusters are found: the runtime directory with a lock and a socket per name.
//!
//! A lock is held as long as its master lives, so a stale socket is known by its free lock, never
//! by a pid. It holds the pid, for messages, and on a second line the path of the control socket:
//! empty if there is none; no such line while the master is starting.

use crate::core::words::reason;
use crate::settings::{self, Control, Settings};
use crate::sys::flock::{Locked, Share};
use crate::sys::{clock, fds, process, unix};
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod prospect;
pub(super) use prospect::{Prospect, prospect};

/// So many of an implied name may run side by side.
const MAX_COPIES: usize = 1000;

/// The name we run under, and what proves it.
#[derive(Serialize, Deserialize)]
pub struct Claim {
    /// NAME
    pub name: String,
    /// Where the control socket goes, if anywhere.
    #[serde(with = "crate::core::carry::paths")]
    pub socket: Option<PathBuf>,
    /// The port in its place, if that was asked for.
    port: Option<SocketAddr>,
    #[serde(with = "crate::shell::carry")]
    lock: Option<(Locked, PathBuf)>,
    /// What we bound there: device and inode.
    bound: Option<(u64, u64)>,
    /// Held until then, where the path was given.
    #[serde(skip)]
    starting: Option<UnixDatagram>,
}

/// Where what runs is kept.
const RUN: &str = "/run";

/// So many looks of clients in a row are taken for a master.
const REFUSALS: usize = 1000;

/// What a lock file says is no longer: a number and a path.
const MAX_LOCK: u64 = 8192;

/// The variable of workers that says where it is.
pub const CONTROL: &str = "MINICLUSTER_CONTROL";

/// A port begins with that, where a path may stand.
const TCP: &str = "tcp://";

/// How long another start on the same path is waited for.
const STARTING: Duration = Duration::from_secs(1);

pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    let m = fs::symlink_metadata(path).ok()?;
    Some((m.dev(), m.ino()))
}

/// The name of the lock for a path: of its directory, by whatever way, and its last part.
pub(super) fn lock_of(path: &Path) -> String {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty());
    let (dev, ino) = fs::metadata(dir.unwrap_or(Path::new(".")))
        .map(|m| (m.dev(), m.ino()))
        .unwrap_or_default();
    let last = path.file_name().unwrap_or_default().to_string_lossy();
    // 107 bytes is what such a name may have.
    let last: String = last.chars().filter(char::is_ascii).take(40).collect();
    format!("minicluster-socket-{dev}-{ino}-{last}")
}

/// Why we do not run.
pub enum Refused {
    /// The explicit name, or the socket path, is taken by a cluster that runs.
    Taken(String),
    /// There is something at the socket path that is no socket of a dead cluster.
    InTheWay(String),
}

impl Claim {
    /// Takes the name. Warnings are for the log: a missing runtime directory is never fatal.
    pub fn take(s: &Settings, warnings: &mut Vec<String>) -> Result<Claim, Refused> {
        // Two that start together on one path: the second waits until the first answers there.
        let starting = match &s.control {
            Control::Path(p) => unix::lock_abstract(&lock_of(p), STARTING),
            Control::Named | Control::Port(_) | Control::Off => None,
        };
        // Before the lock: what is refused here leaves nothing behind.
        let explicit = match &s.control {
            Control::Path(p) => Some(explicit_socket(p)?),
            Control::Named | Control::Port(_) | Control::Off => None,
        };
        let base = s.name.clone().unwrap_or_else(|| s.implied_name());
        let dir = match runtime_dir(warnings) {
            Ok(dir) => Some(dir),
            Err(e) if matches!(s.control, Control::Off | Control::Port(_)) => {
                drop(e);
                None
            }
            Err(e) => {
                warnings.push(format!(
                    "{e}: no control socket, so verbs will not find this cluster; -C PATH puts it elsewhere, -C off silences this"
                ));
                None
            }
        };
        let (name, lock) = match &dir {
            Some(dir) => lock_name(dir, &base, s.name.is_some(), warnings)?,
            None => (base, None),
        };
        let socket = match (&s.control, &lock) {
            (Control::Off | Control::Port(_), _) => None,
            (Control::Path(_), _) => explicit,
            (Control::Named, Some((_, at))) => Some(at.with_extension("sock")),
            (Control::Named, None) => None,
        };
        let port = match s.control {
            Control::Port(at) => Some(at),
            Control::Named | Control::Path(_) | Control::Off => None,
        };
        Ok(Claim {
            name,
            socket,
            port,
            lock,
            bound: None,
            starting,
        })
    }

    /// The socket has been bound, if there is one: it is that file, and no other that may take its
    /// name later. From here on clients find it by our lock.
    pub fn bound(&mut self) {
        self.bound = self.socket.as_ref().and_then(|p| identity(p));
        self.starting = None;
        if let Some((lock, _)) = &mut self.lock {
            let at = said(self.socket.as_deref(), self.port);
            let line = [b"\n", at.unwrap_or_default().as_bytes()].concat();
            // A disk without room: then we run, and are not found.
            let _ = lock.write_all(&line);
        }
    }

    /// Where it is written down which workers there are, for the next one of this name.
    pub fn record(&self) -> Option<PathBuf> {
        let (_, lock) = self.lock.as_ref()?;
        Some(lock.with_extension("workers"))
    }

    /// Where verbs find us.
    pub fn control(&self) -> Option<OsString> {
        said(self.socket.as_deref(), self.port)
    }

    /// Gives the name back: the socket first, the lock last, so that a client never finds a
    /// socket whose lock says that its master lives.
    pub fn release(&mut self) {
        if let Some(socket) = self.socket.take()
            && self.bound.is_some()
            && self.bound == identity(&socket)
        {
            let _ = fs::remove_file(socket);
        }
        if let Some((_lock, path)) = self.lock.take() {
            let _ = fs::remove_file(path);
        }
    }
}

/// A socket where -C says. One that answers belongs to somebody; one that does not is stale.
fn explicit_socket(path: &Path) -> Result<PathBuf, Refused> {
    if is_stale(path)? {
        let _ = fs::remove_file(path);
    }
    // The workers are told where it is, whatever their directory.
    Ok(std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()))
}

/// Is there one that a cluster which was killed has left?
fn is_stale(path: &Path) -> Result<bool, Refused> {
    let found = fs::symlink_metadata(path).ok().map(|m| m.file_type());
    if found.is_some_and(|t| !std::os::unix::fs::FileTypeExt::is_socket(&t)) {
        return Err(Refused::InTheWay(format!(
            "-C {}: exists and is not a socket; choose another path",
            path.display()
        )));
    }
    if found.is_some() {
        let shown = path.display();
        match unix::connect_unix(path, Duration::from_millis(1)) {
            // Nobody listens there: a cluster that was killed left it.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => return Ok(true),
            // No answer in time is one, too: its owner is busy, or stopped.
            Err(e) if e.kind() != io::ErrorKind::WouldBlock => {
                return Err(Refused::InTheWay(format!(
                    "-C {shown}: {}: not a control socket; choose another path",
                    reason(&e)
                )));
            }
            Ok(_) | Err(_) => {
                return Err(Refused::Taken(format!(
                    "{shown} answers already; ask it: minicluster -C {shown} status"
                )));
            }
        }
    }
    Ok(false)
}

type Lock = Option<(Locked, PathBuf)>;

fn lock_name(
    dir: &Path,
    base: &str,
    explicit: bool,
    warnings: &mut Vec<String>,
) -> Result<(String, Lock), Refused> {
    for copy in 1..=MAX_COPIES {
        let name = match copy {
            1 => base.to_string(),
            n => format!("{base}-{n}"),
        };
        let path = dir.join(format!("{name}.lock"));
        match try_lock(&path) {
            Ok(Some(lock)) => {
                // Whoever had the name before us has gone, and its socket with it.
                let _ = fs::remove_file(path.with_extension("sock"));
                return Ok((name, Some((lock, path))));
            }
            Ok(None) if explicit => return Err(Refused::Taken(runs_already(&name, &path))),
            Ok(None) => {}
            Err(e) => {
                warnings.push(format!(
                    "cannot lock {}: {}: no control socket",
                    path.display(),
                    reason(&e)
                ));
                return Ok((base.to_string(), None));
            }
        }
    }
    Ok((base.to_string(), None))
}

/// Why an explicit name cannot be had, by its lock.
fn runs_already(name: &str, lock: &Path) -> String {
    let (pid, control) = parse_lock(&fs::read(lock).unwrap_or_default());
    let then = match control {
        Some(None) => format!("it has no control socket; end it: kill {pid}"),
        Some(Some(_)) | None => format!(
            "look at it: minicluster --name {name} status; end it: minicluster --name {name} stop"
        ),
    };
    // (One that has just begun has not written its own yet.)
    let pid = match pid.is_empty() {
        true => String::new(),
        false => format!(", pid {pid}"),
    };
    format!("{name} runs already{pid}; {then}")
}

/// In a word, as -C has it.
fn said(socket: Option<&Path>, port: Option<SocketAddr>) -> Option<OsString> {
    let path = || socket.map(|p| p.as_os_str().to_owned());
    port.map_or_else(path, |at| Some(format!("{TCP}{at}").into()))
}

/// What such a word says, or the variable of workers; nothing: there is no way.
pub fn control_of(word: &OsStr) -> Option<Control> {
    let port = word.to_str().and_then(|w| w.strip_prefix(TCP));
    match port.map(settings::control_port) {
        _ if word.is_empty() => None,
        Some(Ok(at)) => Some(Control::Port(at)),
        Some(Err(_)) | None => Some(Control::Path(PathBuf::from(word))),
    }
}

/// What a lock says: the pid, and where it is spoken to if the master has got so far; `Some(None)` if nowhere.
fn parse_lock(bytes: &[u8]) -> (String, Option<Option<Control>>) {
    let mut lines = bytes.splitn(2, |b| *b == b'\n');
    let pid = String::from_utf8_lossy(lines.next().unwrap_or_default());
    let control = lines.next().map(|l| control_of(OsStr::from_bytes(l)));
    (pid.trim().to_string(), control)
}

fn try_lock(path: &Path) -> io::Result<Option<Locked>> {
    let Some(mut lock) = lock_file(path, 0o600)? else {
        return Ok(None);
    };
    lock.set_len(0)?;
    write!(lock, "{}", std::process::id())?;
    Ok(Some(lock))
}

/// The lock, or `None` if another master holds it. A client that looks whether a lock is held has it
/// for a moment itself, so that one refusal does not count.
pub(super) fn lock_file(path: &Path, mode: u32) -> io::Result<Option<Locked>> {
    let mut refusals = 0;
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(mode)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        let lock = match Locked::lock(file, Share::No) {
            Ok(lock) => lock,
            Err((file, e)) if e.kind() == ErrorKind::WouldBlock => {
                // A master has it for itself; clients share it, and with us.
                if refusals == REFUSALS || Locked::lock(file, Share::Yes).is_err() {
                    return Ok(None);
                }
                refusals += 1;
                clock::pause(Duration::from_millis(1));
                continue;
            }
            Err((_, e)) => return Err(e),
        };
        // Its last holder may have removed the file between our open and our lock: then what we
        // hold has no name, and the next one would hold another. Open again.
        let same = fs::metadata(path)
            .is_ok_and(|now| lock.metadata().is_ok_and(|held| held.ino() == now.ino()));
        if same {
            return Ok(Some(lock));
        }
    }
}

/// Directories where clusters of ours may be, in the order of preference.
fn candidates() -> Vec<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty());
    // systemd gives a list.
    let runtime = var("RUNTIME_DIRECTORY").map(|v| {
        let text = v.to_string_lossy().into_owned();
        PathBuf::from(text.split(':').next().unwrap_or_default())
    });
    let uid = process::euid();
    let mut dirs: Vec<PathBuf> = runtime.into_iter().collect();
    match uid {
        0 => dirs.push(Path::new(RUN).join("minicluster")),
        _ => {
            dirs.extend(var("XDG_RUNTIME_DIR").map(|d| PathBuf::from(d).join("minicluster")));
            let tmp = var("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
            dirs.push(tmp.join(format!("minicluster-{uid}")));
        }
    }
    // A daemon goes elsewhere, and clients are.
    let whole = |d: PathBuf| std::path::absolute(&d).unwrap_or(d);
    dirs.into_iter().map(whole).collect()
}

/// Where clusters of that name, if they were killed, have written down which workers live on.
pub fn records(name: &str) -> Vec<PathBuf> {
    let file = format!("{name}.workers");
    candidates().into_iter().map(|d| d.join(&file)).collect()
}

/// The first of them that can be had.
fn runtime_dir(warnings: &mut Vec<String>) -> Result<PathBuf, String> {
    let (dir, instead) = first(candidates(), make_private)?;
    warnings.extend(instead);
    Ok(dir)
}

/// The first of them that is as it has to be. One that was named for us and is not is said.
fn first(
    all: Vec<PathBuf>,
    is: fn(&Path) -> Result<(), String>,
) -> Result<(PathBuf, Option<String>), String> {
    let named = std::env::var_os("RUNTIME_DIRECTORY").is_some_and(|v| !v.is_empty());
    let mut problems: Vec<String> = Vec::new();
    for dir in all {
        let shown = dir.display();
        match is(&dir) {
            Ok(()) => {
                let why = problems.first().filter(|_| named);
                let instead =
                    why.map(|why| format!("cannot use the runtime directory {why}; using {shown}"));
                return Ok((dir, instead));
            }
            Err(why) => problems.push(format!("{shown}: {why}")),
        }
    }
    Err(format!(
        "cannot use the runtime directory {}",
        problems.join(", nor ")
    ))
}

/// Makes it if need be; it must be ours alone: another user could plant sockets.
fn make_private(dir: &Path) -> Result<(), String> {
    if dir.parent() == Some(Path::new(RUN)) {
        // A root without it (chroot, a container made from nothing): its mode is the usual one.
        match fs::DirBuilder::new().mode(0o755).create(RUN) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("{RUN}: {}", reason(&e)));
            }
            Ok(()) | Err(_) => {}
        }
    }
    match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(reason(&e)),
    }
    is_private(dir)
}

/// Is it a directory, and ours alone?
fn is_private(dir: &Path) -> Result<(), String> {
    let m = fs::symlink_metadata(dir).map_err(|e| reason(&e))?;
    if !m.is_dir() {
        return Err("it is not a directory".into());
    }
    if m.uid() != process::euid() {
        return Err(format!("it belongs to uid {}", m.uid()));
    }
    if m.permissions().mode() & 0o022 != 0 {
        return Err("others may write to it".into());
    }
    Ok(())
}

/// A running cluster, as a client sees it.
#[derive(Clone, Debug)]
pub struct Running {
    /// NAME
    pub name: String,
    /// Its pid, as its lock says.
    pub pid: String,
    /// Where it is spoken to, if anywhere: a path, or a port.
    pub control: Option<Control>,
}

/// All that run: those whose lock is held.
pub fn running() -> Vec<Running> {
    let mut all = Vec::new();
    let mut dirs = candidates();
    // The one that a service manager has made for us is meant, and no cluster of somebody else's.
    if std::env::var_os("RUNTIME_DIRECTORY").is_some_and(|v| !v.is_empty())
        && let Some(first) = dirs.first()
        && first.is_dir()
        && make_private(first).is_ok()
    {
        dirs.truncate(1);
    }
    for dir in dirs {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for path in entries.flatten().map(|e| e.path()) {
            if path.extension().is_none_or(|e| e != "lock") {
                continue;
            }
            let Ok(mut file) = fds::open_regular(&path) else {
                continue;
            };
            let mut text = Vec::new();
            let _ = (&mut file).take(MAX_LOCK).read_to_end(&mut text);
            let held = matches!(
                Locked::lock(file, Share::Yes),
                Err((_, e)) if e.kind() == ErrorKind::WouldBlock
            );
            if let (pid, Some(control)) = parse_lock(&text)
                && held
            {
                let name = path.file_stem().unwrap_or_default();
                let name = name.to_string_lossy().into_owned();
                all.push(Running { name, pid, control });
            }
        }
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}
