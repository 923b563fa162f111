//! The rig: one master under test, its log as events, and the promise that nothing outlives the
//! test, whatever happens in it.
//!
//! Everything a rig starts carries a mark in its environment that no other process has. So what is
//! left can be found by looking, and what has to be killed is ours for certain.

use crate::birth;
use crate::log::{Event, Line, Log};
use crate::place::{LOOK, Place, Said, run};
use crate::proc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tinyjson::JsonValue;

/// For a whole story. Generous, since the machine may be busy: one that works needs a fraction.
const DEADLINE: Duration = Duration::from_secs(120);

/// One row of `status --json`.
#[derive(Clone, Debug)]
pub struct Row {
    pub slot: u16,
    pub pid: Option<i32>,
    pub state: String,
    pub restarts: u64,
}

/// `status --json`.
#[derive(Clone, Debug)]
pub struct Status {
    pub name: String,
    pub pid: i32,
    pub ready: usize,
    pub wanted: usize,
    pub takeover: String,
    pub ports: Vec<String>,
    /// By slot.
    pub rows: Vec<Row>,
    /// Workers beside those in slots.
    pub beside: Vec<Row>,
}

impl Status {
    pub fn parse(text: &str) -> Status {
        let v: JsonValue = text.parse().unwrap();
        let number = |v: &JsonValue| *v.get::<f64>().unwrap();
        let string = |v: &JsonValue| v.get::<String>().unwrap().clone();
        let row = |v: &JsonValue| Row {
            slot: number(&v["slot"]) as u16,
            pid: v["pid"].get::<f64>().map(|p| *p as i32),
            state: string(&v["state"]),
            restarts: number(&v["restarts"]) as u64,
        };
        let current = |v: &&JsonValue| *v["current"].get::<bool>().unwrap();
        Status {
            name: string(&v["name"]),
            pid: number(&v["pid"]) as i32,
            ready: number(&v["ready"]) as usize,
            wanted: number(&v["wanted"]) as usize,
            takeover: string(&v["takeover"]),
            ports: list(&v["ports"]).iter().map(string).collect(),
            rows: list(&v["slots"]).iter().filter(current).map(row).collect(),
            beside: list(&v["slots"])
                .iter()
                .filter(|v| !current(v))
                .map(row)
                .collect(),
        }
    }

    /// The workers there are.
    pub fn pids(&self) -> Vec<i32> {
        self.rows.iter().filter_map(|r| r.pid).collect()
    }
}

fn list(v: &JsonValue) -> &Vec<JsonValue> {
    v.get().unwrap()
}

/// Words of a command line: a text is split at blanks, a list is taken as it is.
pub trait Words {
    fn words(self) -> Vec<String>;
}

impl Words for &str {
    fn words(self) -> Vec<String> {
        self.split_whitespace().map(String::from).collect()
    }
}

impl Words for String {
    fn words(self) -> Vec<String> {
        self.as_str().words()
    }
}

impl Words for Vec<String> {
    fn words(self) -> Vec<String> {
        self
    }
}

impl<const N: usize> Words for [&str; N] {
    fn words(self) -> Vec<String> {
        self.map(String::from).to_vec()
    }
}

/// A master and all that is known of it.
pub struct Rig {
    master: Child,
    ended: Option<ExitStatus>,
    log: Arc<Log>,
    /// Events before this one were waited for.
    cursor: usize,
    deadline: Instant,
    fds: Option<usize>,
    /// Dropped last: the directory goes when all processes have.
    place: Place,
}

impl Rig {
    /// Starts a master with these options and this command.
    pub fn start(words: impl Words) -> Rig {
        Rig::dressed(words, |_, _| {})
    }

    /// The same, with something done to how it is born; the path is the rig's directory.
    pub fn dressed(words: impl Words, dress: impl FnOnce(&mut Command, &Path)) -> Rig {
        let place = Place::new();
        let cmd = place.command();
        Rig::at(place, cmd, words, dress)
    }

    /// A master that is started by another program, as the last of its words.
    pub fn by(program: impl Words, words: impl Words) -> Rig {
        let place = Place::new();
        let cmd = place.command_by(&program.words());
        Rig::at(place, cmd, words, |_, _| {})
    }

    /// Both.
    pub fn dressed_by(
        program: impl Words,
        words: impl Words,
        dress: impl FnOnce(&mut Command, &Path),
    ) -> Rig {
        let place = Place::new();
        let cmd = place.command_by(&program.words());
        Rig::at(place, cmd, words, dress)
    }

    /// The same, in a place that something was put in.
    pub fn placed(place: Place, program: &[String], words: impl Words) -> Rig {
        let cmd = place.command_by(program);
        Rig::at(place, cmd, words, |_, _| {})
    }

    fn at(
        place: Place,
        mut cmd: Command,
        words: impl Words,
        dress: impl FnOnce(&mut Command, &Path),
    ) -> Rig {
        let words = words.words();
        // Most stories are about something else than new workers being watched, which takes its time.
        let said = |w: &String| w.starts_with("--canary") || w == "--single";
        if !words.iter().any(said) {
            cmd.args("--canary 0".words());
        }
        if !words.iter().any(|w| w == "--log-level") {
            cmd.args("--log-level debug".words());
        }
        cmd.args("--log-format json".words())
            .args(words)
            .stderr(Stdio::piped());
        dress(&mut cmd, &place.dir);
        let mut master = cmd.spawn().unwrap();
        let log = Arc::new(Log::default());
        match master.stderr.take() {
            Some(stderr) => {
                let reader = log.clone();
                std::thread::spawn(move || reader.read(stderr));
            }
            // The story has it.
            None => log.lock().closed = true,
        }
        nag(&place);
        Rig {
            master,
            ended: None,
            log,
            cursor: 0,
            deadline: Instant::now() + DEADLINE,
            fds: None,
            place,
        }
    }

    /// The first process of a pid namespace without a /proc, in a root with nothing but itself and
    /// ./forker; and born without stdin and stdout. It is the child of what the rig has started.
    pub fn in_empty_root(words: impl Words) -> Rig {
        let place = Place::with_empty_root();
        let root = place.dir.join("root");
        let script = "how=$1; shift; exec unshare $how --kill-child chroot \"$@\" <&- >&-";
        let how = birth::namespaces("-pf");
        let start = ["sh", "-c", script, "sh", &how, root.to_str().unwrap()];
        let cmd = place.command_by(&start.map(String::from));
        Rig::at(place, cmd, words, |cmd, _| {
            cmd.env_remove("RUNTIME_DIRECTORY");
        })
    }

    /// A master that is nobody's, in a place that is, too.
    pub fn unprivileged(words: impl Words, dress: impl FnOnce(&mut Command, &Path)) -> Rig {
        let place = Place::for_nobody();
        let cmd = place.command();
        Rig::at(place, cmd, words, |cmd, dir| {
            birth::as_nobody(cmd);
            dress(cmd, dir);
        })
    }

    /// A master whose workers are to be nobody, in a place that is nobody's; started by this program,
    /// if there is one.
    pub fn over_nobody(
        program: impl Words,
        words: impl Words,
        dress: impl FnOnce(&mut Command, &Path),
    ) -> Rig {
        assert!(birth::root(), "this story takes root: run it as root");
        let place = Place::for_nobody();
        let program = program.words();
        let cmd = match program.is_empty() {
            true => place.command(),
            false => place.command_by(&program),
        };
        Rig::at(place, cmd, words, dress)
    }

    /// Its directory, which is also its working directory: the servers are there.
    pub fn dir(&self) -> &Path {
        &self.place.dir
    }

    /// The master.
    pub fn pid(&self) -> i32 {
        self.master.id() as i32
    }

    /// When all of this has to be over.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// It has so long again from now on, beside what this takes.
    pub fn patient(&mut self, takes: Duration) {
        self.deadline = Instant::now() + takes + DEADLINE;
    }

    /// All that was said on the master's stderr so far.
    pub fn everything(&self) -> Vec<Line> {
        self.log.lock().all.clone()
    }

    /// Waits until all workers are ready; from then on the number of descriptors must not change.
    pub fn up(&mut self) {
        self.wait("all-ready", |_| true);
        self.note_descriptors();
    }

    /// This is how many descriptors the master has when all is well: as many as at some looks in a
    /// row while it sleeps, since one of them may fall into the middle of something.
    pub fn note_descriptors(&mut self) {
        let mut seen = Vec::new();
        self.until("the number of descriptors rests", || {
            match proc::sleeps(self.pid()) {
                true => seen.push(proc::descriptors(self.pid())),
                false => seen.clear(),
            }
            seen.len() > 3 && seen[seen.len() - 3..].windows(2).all(|w| w[0] == w[1])
        });
        self.fds = seen.pop();
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// The next event of this name that is wanted; events before it count as waited for.
    pub fn wait(&mut self, name: &str, want: impl Fn(&Event) -> bool) -> Event {
        let mut at = self.cursor;
        let what = format!("event {name}");
        let hit = self.log.look(&what, self.deadline, |lines| {
            while let Some(line) = lines.all.get(at) {
                at += 1;
                match line {
                    Line::Ours(e) if e.name == name && want(e) => return Some(e.clone()),
                    Line::Ours(_) | Line::Theirs(_) => {}
                }
            }
            None
        });
        self.cursor = at;
        hit
    }

    /// Waits until there are so many events of this name since the start; returns all of them.
    pub fn wait_many(&self, name: &str, count: usize) -> Vec<Event> {
        let what = format!("{count} events {name}");
        self.log.look(&what, self.deadline, |lines| {
            let all = lines.named(name);
            (all.len() >= count).then_some(all)
        })
    }

    /// The events of this name so far.
    pub fn events(&self, name: &str) -> Vec<Event> {
        self.log.lock().named(name)
    }

    /// Each birth (true) and death of a worker so far, in the order of the log.
    pub fn births_and_deaths(&self) -> Vec<bool> {
        let step = |line: &Line| match line {
            Line::Ours(e) if e.name == "forked" => Some(true),
            Line::Ours(e) if e.name == "died" => Some(false),
            Line::Ours(_) | Line::Theirs(_) => None,
        };
        self.log.lock().all.iter().filter_map(step).collect()
    }

    /// Waits for a line that a worker wrote to stderr and that holds this text.
    pub fn wait_line(&self, text: &str) -> String {
        self.log.look(text, self.deadline, |lines| {
            lines.theirs().into_iter().find(|l| l.contains(text))
        })
    }

    /// What workers wrote to stderr.
    pub fn lines(&self) -> Vec<String> {
        self.log.lock().theirs()
    }

    /// Has everybody closed the stderr that is read here?
    pub fn ended(&self) -> bool {
        self.log.lock().closed
    }

    /// Reads nothing of the master's stderr behind a line that begins so, until None is given.
    pub fn hold_stderr(&self, head: Option<&str>) {
        self.log.hold(head);
    }

    /// Looks until it is so, for what nobody announces.
    pub fn until(&self, what: &str, mut so: impl FnMut() -> bool) {
        while !so() {
            assert!(
                Instant::now() < self.deadline,
                "waited in vain until {what}"
            );
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until a server has told this; returns the pid, and the number it told with it.
    pub fn told(&self, event: &str) -> (i32, Option<i32>) {
        self.until(&format!("a server tells '{event}'"), || {
            !self.tales(event).is_empty()
        });
        self.tales(event)[0]
    }

    /// All that servers have told of this.
    pub fn tales(&self, event: &str) -> Vec<(i32, Option<i32>)> {
        let text = fs::read_to_string(self.dir().join("said")).unwrap_or_default();
        let tale = |line: &str| {
            let mut words = line.split(' ');
            let hit = words.next() == Some(event);
            let pid = words.next()?.parse().ok()?;
            hit.then(|| (pid, words.next().and_then(|w| w.parse().ok())))
        };
        text.lines().filter_map(tale).collect()
    }

    /// Where verbs find this master.
    pub fn socket(&self) -> PathBuf {
        let find = || {
            let files = entries(&self.dir().join("run"));
            let socket = |p: &PathBuf| p.extension().is_some_and(|e| e == "sock");
            files.into_iter().find(socket)
        };
        self.until("the control socket is there", || find().is_some());
        find().unwrap()
    }

    /// Types a verb.
    pub fn verb(&self, words: impl Words) -> Said {
        let socket = self.socket();
        let mut cmd = self.command();
        cmd.arg("-C").arg(socket).args(words.words());
        run(cmd, self.deadline)
    }

    /// Types a verb that takes its time.
    pub fn meanwhile(&self, words: impl Words) -> JoinHandle<Said> {
        let mut cmd = self.command();
        cmd.arg("-C").arg(self.socket()).args(words.words());
        let deadline = self.deadline;
        std::thread::spawn(move || run(cmd, deadline))
    }

    /// The binary, in the surroundings of this rig.
    pub fn command(&self) -> Command {
        self.place.command()
    }

    pub fn status(&self) -> Status {
        let said = self.verb("status --json");
        assert_eq!(said.code, 0, "{said:?}");
        Status::parse(&said.out)
    }

    /// Asks `status` until it is as wanted.
    pub fn wait_status(&self, what: &str, want: impl Fn(&Status) -> bool) -> Status {
        let mut last = None;
        self.until(what, || {
            let now = self.status();
            let so = want(&now);
            last = Some(now);
            so
        });
        last.unwrap()
    }

    /// Kills a worker and waits until its slot has another one that is ready; returns that.
    pub fn replace(&mut self, pid: i32) -> i32 {
        sigkill(pid);
        let died = self.wait("died", |e| e.pid() == pid);
        self.wait("ready", |e| e.slot() == died.slot()).pid()
    }

    /// How the master ended.
    pub fn wait_exit(&mut self) -> ExitStatus {
        while self.ended.is_none() {
            assert!(Instant::now() < self.deadline, "the master does not end");
            std::thread::sleep(LOOK);
            self.ended = self.master.try_wait().unwrap();
        }
        self.ended.unwrap()
    }

    /// The end of most stories: a graceful stop, with nothing to complain about but this.
    pub fn end(self, allowed: &[&str]) {
        if let Some(fds) = self.fds {
            let now = || proc::descriptors(self.pid());
            // A client that has just hung up may not have been noticed yet.
            self.until(
                &format!("{fds} descriptors are open, not {}", now()),
                // A port may have one spare lane, where others stay to which nothing is steered.
                || (fds..=fds + 1).contains(&now()),
            );
        }
        self.signal(Signal::SIGTERM);
        self.finish(0, allowed);
    }

    /// The end of a story in which the master was told to end, or had to.
    pub fn finish(mut self, code: i32, allowed: &[&str]) {
        let status = self.wait_exit();
        let left = self.left_behind();
        assert!(left.is_empty(), "processes left behind: {left:?}");
        assert_eq!(status.code(), Some(code), "{status}");
        let lines = self.log.look("the end of stderr", self.deadline, |lines| {
            lines.closed.then(|| lines.clone())
        });
        for line in &lines.all {
            if let Line::Ours(e) = line {
                // Where workers are expected to go by themselves there may be too few of them.
                let too_few = e.name == "unhealthy" && !allowed.is_empty();
                let nagged = e.name == "handover-failed" && std::env::var_os(NAG).is_some();
                let expected =
                    !e.is_loud() || too_few || nagged || allowed.contains(&e.name.as_str());
                assert!(expected, "unexpected {}: {}: {}", e.level, e.name, e.msg);
            }
        }
        for e in lines.named("stopped") {
            assert_eq!(e.number("code"), f64::from(code), "what it said it exits");
        }
        let files = entries(&self.dir().join("run"));
        assert!(files.is_empty(), "files left behind: {files:?}");
    }

    /// Processes of this story that are still there, but for the master.
    pub fn left_behind(&self) -> Vec<String> {
        self.others().into_iter().map(proc::command).collect()
    }

    /// All of this story but the master.
    pub fn others(&self) -> Vec<i32> {
        let mut all = proc::marked(&self.place.mark);
        all.retain(|pid| *pid != self.pid());
        all
    }
}

/// Says how often.
const NAG: &str = "E2E_HANDOVERS";

/// With that set the master is asked for a handover all the time, every so many milliseconds: whatever the
/// story is about, it has to go as without.
fn nag(place: &Place) {
    let Some(gap) = std::env::var(NAG).ok() else {
        return;
    };
    let gap = Duration::from_millis(gap.parse().unwrap());
    let dir = place.dir.clone();
    std::thread::spawn(move || {
        while dir.exists() {
            for socket in entries(&dir.join("run")) {
                let Ok(mut to) = UnixStream::connect(socket) else {
                    continue;
                };
                let _ = to.set_read_timeout(Some(Duration::from_secs(5)));
                let _ = to.write_all(b"[\"handover\"]\n");
                let _ = to.read(&mut [0u8; 4096]);
            }
            std::thread::sleep(gap);
        }
    });
}

/// Ends a process of this story.
pub fn sigkill(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).into_iter().flatten().flatten();
    all.map(|e| e.path()).collect()
}

impl Drop for Rig {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        self.log.hold(None);
        if self.ended.is_none() {
            let _ = self.master.kill();
            let _ = self.master.wait();
        }
        self.place.clear();
        if failed {
            eprintln!("the log of pid {}:", self.pid());
            self.log.dump();
        }
    }
}
