//! Where a story takes place: a directory with the servers in it, ports that nobody else uses, a
//! clean environment, and programs that are built or found once.

use crate::birth;
use crate::proc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_minicluster");
pub const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers");
/// Between two looks at what nobody announces.
pub const LOOK: Duration = Duration::from_millis(5);

/// What whoever runs the tests may have in the environment, and a master must not.
const FOREIGN: [&str; 13] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "WEB_CONCURRENCY",
    "MINICLUSTER_CONTROL",
    "PORT",
    "HOST",
    "WORKER_ID",
    "SAY_FD",
    "PWD",
];

/// A directory and the mark of everything that is started in it.
pub struct Place {
    pub dir: PathBuf,
    pub mark: String,
    binary: PathBuf,
}

impl Place {
    /// A new one. Short, because the path of a Unix socket has to be; open to all, because some
    /// masters run as nobody.
    pub fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let me = std::process::id();
        let dir = std::env::temp_dir().join(format!("mc-e2e-{me}-{n}"));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap();
        let born = now();
        for entry in std::fs::read_dir(SERVERS).unwrap().flatten() {
            symlink(entry.path(), dir.join(entry.file_name())).unwrap();
        }
        symlink(threaded(), dir.join("threaded")).unwrap();
        Place {
            dir,
            mark: format!("E2E_MARK={me}-{n}-{born}"),
            binary: BINARY.into(),
        }
    }

    /// One that is nobody's, with copies of the binary and of the server in C: nobody may have no
    /// way to the originals. Copied by another process, since a program cannot be executed while
    /// a fork of ours (another test's) has it open for writing.
    pub fn for_nobody() -> Place {
        let mut place = Place::new();
        place.binary = place.dir.join("minicluster");
        let server = place.dir.join("threaded");
        std::fs::remove_file(&server).unwrap();
        for (from, to) in [(Path::new(BINARY), &place.binary), (threaded(), &server)] {
            let done = Command::new("cp").arg(from).arg(to).status().unwrap();
            assert!(done.success());
        }
        birth::give_to_nobody(&place.dir);
        place
    }

    /// One with a root in it, `root`, in which there is nothing but the binary and a server, both
    /// static. Copied by another process, as above.
    pub fn with_empty_root() -> Place {
        let mut place = Place::new();
        let root = place.dir.join("root");
        std::fs::create_dir(&root).unwrap();
        let mut copy = Command::new("cp");
        copy.arg(forker()).arg(&root);
        assert!(copy.status().unwrap().success());
        let mut copy = Command::new("cp");
        copy.arg(static_binary()).arg(root.join("minicluster"));
        assert!(copy.status().unwrap().success());
        place.binary = "/minicluster".into();
        place
    }

    /// The binary under test, to be run here.
    pub fn command(&self) -> Command {
        self.surround(Command::new(&self.binary))
    }

    /// The same, by a program that executes it in the end: it gets the binary as its last word.
    pub fn command_by(&self, words: &[String]) -> Command {
        let mut cmd = Command::new(&words[0]);
        cmd.args(&words[1..]).arg(&self.binary);
        self.surround(cmd)
    }

    fn surround(&self, mut cmd: Command) -> Command {
        for name in FOREIGN {
            cmd.env_remove(name);
        }
        birth::with_default_signals(&mut cmd);
        let (key, value) = self.mark.split_once('=').unwrap();
        cmd.current_dir(&self.dir)
            .env(key, value)
            .env("SAY", self.dir.join("said"))
            .env("RUNTIME_DIRECTORY", self.dir.join("run"))
            .env("XDG_RUNTIME_DIR", self.dir.join("xdg"))
            .env("TMPDIR", &self.dir)
            // npm asks its registry for news of itself, and writes logs, unless told not to.
            .env("npm_config_update_notifier", "false")
            .env("npm_config_cache", self.dir.join("npm"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        cmd
    }
}

impl Place {
    /// Ends all that carries the mark. They may be forking at this very moment: until none is left.
    pub fn clear(&self) {
        let give_up = Instant::now() + Duration::from_secs(5);
        loop {
            let left = proc::marked(&self.mark);
            if left.is_empty() || Instant::now() > give_up {
                break;
            }
            for pid in left {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Tells this story, which is the test of that name, in a network of its own, in which every address of
/// 2001:db8::/32 is ours: by running these tests once more, with nothing but that one.
pub fn in_a_network_of_its_own(name: &str, story: impl FnOnce()) {
    const INSIDE: &str = "E2E_NETWORK";
    if std::env::var_os(INSIDE).is_some() {
        return story();
    }
    let script = "ip link set lo up && ip -6 route add local 2001:db8::/32 dev lo && \
                  echo 1 > /proc/sys/net/ipv6/ip_nonlocal_bind && exec \"$@\"";
    let mut cmd = Command::new("unshare");
    cmd.args([&birth::namespaces("-n"), "sh", "-c", script, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1");
    let done = cmd.output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
    let well = done.status.success() && said.contains("1 passed");
    assert!(well, "in a network of its own:\n{said}");
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs a command that says little to its end.
pub fn run(mut cmd: Command, deadline: Instant) -> Said {
    let mut child = cmd
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Read meanwhile: more than a pipe holds is not written otherwise.
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (out, err) = (all_of(out), all_of(err));
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{cmd:?} does not end");
        }
        std::thread::sleep(LOOK);
    };
    Said {
        code: status.code().unwrap_or(-1),
        out: out.join().unwrap(),
        err: err.join().unwrap(),
    }
}

fn all_of(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    })
}

/// A port that is free on every address. Not one that the kernel picks: those it also gives to
/// clients, and between our look and its use it may.
pub fn free_port() -> u16 {
    free_ports(1)
}

/// The first of so many free ports in a row.
pub fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = block();
    for _ in 0..BLOCK {
        let n = NEXT.fetch_add(count, Ordering::Relaxed) % BLOCK;
        // Looked up, not tried: a fork of ours that has not executed its program yet would go on
        // holding the socket of the trial.
        let taken = minicluster::sys::procnet::listeners();
        let free = |p: u16| taken.iter().all(|(a, _)| a.port() != p);
        if n + count <= BLOCK && (first + n..first + n + count).all(free) {
            return first + n;
        }
    }
    panic!("no port is free");
}

/// So many ports are a run's own,
const BLOCK: u16 = 500;

/// from FIRST on, which is past the last of those a browser refuses to open (10080). Whoever has the
/// name of a block has its ports: another run of these tests at the same time would bind them, if
/// only to see that they are free.
fn block() -> u16 {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    const FIRST: u16 = 10_100;
    const BLOCKS: u16 = 40;
    static OURS: OnceLock<(UnixDatagram, u16)> = OnceLock::new();
    let take = || {
        let mut all = (0..BLOCKS).map(|n| FIRST + n * BLOCK);
        let one = all.find_map(|port| {
            let name = SocketAddr::from_abstract_name(format!("mc-e2e-ports-{port}"));
            let held = UnixDatagram::bind_addr(&name.unwrap()).ok()?;
            Some((held, port))
        });
        one.expect("so many runs at once")
    };
    OURS.get_or_init(take).1
}

/// The server in C, built once.
fn threaded() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let sources = ["-pthread", "threaded.c", "serve.c", "report.c"];
    BUILT.get_or_init(|| build("threaded", &sources))
}

/// The server in C that leaves processes behind, static.
pub fn forker() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("forker", &["-static", "forker.c"]))
}

/// The client that hammers and counts, built once.
pub fn load() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("load", &["load.c", "answer.c", "tally.c"]))
}

/// The link with a delay, built once.
pub fn link() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("link", &["link.c"]))
}

/// The binary under test without any shared object. The Makefile knows how it is made; where that has
/// just been done, as by `make test`, nothing is left to do.
pub fn static_binary() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| made("static-checked", "target/static/minicluster-checked"))
}

/// Where the packages are that we take the place of, as npm has them.
pub fn packages() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| made("seeds", "target/seeds/node_modules"))
}

/// What the Makefile makes by that name.
pub fn made(target: &str, at: &str) -> PathBuf {
    let here = env!("CARGO_MANIFEST_DIR");
    let mut make = Command::new("make");
    // A make that runs us has flags for its own children.
    for name in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL"] {
        make.env_remove(name);
    }
    let made = make.args(["-s", "-C", here, target]).status();
    assert!(made.unwrap().success(), "make {target} fails");
    Path::new(here).join(at)
}

/// Starts a program where some system call is refused, built once.
pub fn refusing() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("refusing", &["refusing.c"]))
}

/// What is preloaded into a master to have rare things happen to it.
pub fn shim() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| build("shim.so", &["-shared", "-fPIC", "shim.c"]))
}

/// No two of a run are the same.
fn now() -> u128 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap().as_nanos()
}

fn build(name: &str, words: &[&str]) -> PathBuf {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Under another name first: another run may be executing the old one, also one that has the same pid, in a
    // namespace of its own.
    let new = out.with_extension(format!("{}-{}", std::process::id(), now()));
    let done = Command::new("cc")
        .current_dir(SERVERS)
        .args(["-Wall", "-Wextra", "-O2", "-o"])
        .arg(&new)
        .args(words)
        .status();
    assert!(done.unwrap().success(), "{name} does not build");
    std::fs::rename(new, &out).unwrap();
    out
}

/// The real interpreter: what is called python3 may be a script that looks for it.
pub fn python() -> &'static str {
    static FOUND: OnceLock<String> = OnceLock::new();
    FOUND.get_or_init(|| {
        let ask = ["-c", "import sys; print(sys.executable)"];
        let said = Command::new("python3").args(ask).output().unwrap();
        String::from_utf8(said.stdout).unwrap().trim().to_string()
    })
}

/// A program of one's own there. Copied by another process: while a fork of ours has it open for writing it
/// cannot be executed.
pub fn script(dir: &Path, name: &str, text: &str) {
    std::fs::write(dir.join("draft"), text).unwrap();
    std::fs::set_permissions(dir.join("draft"), Permissions::from_mode(0o755)).unwrap();
    let mut copy = Command::new("cp");
    copy.args(["-p", "draft", name]).current_dir(dir);
    assert!(copy.status().unwrap().success());
}
