//! "One client is one buffer with a limit and a deadline", all of it at once: hundreds of clients that
//! misbehave by the control socket and by the monitor, workers that say too much, reloads, resizes, handovers, a
//! disk that is full every few seconds, and in the second half of each storm workers that are killed. Meanwhile
//! real clients ask the workers.
//!
//! The first storms warm up; what the master has when all is calm behind it, and every worker replaced, is
//! what it has to have behind each of the others: as many descriptors and children, and as much memory of
//! its own (RssAnon: pages of the binary come and go).
//! `make soak MINUTES=30` makes it so many storms of a minute, each with its figures; SOAK_SEED replays what was
//! drawn. A handover begins with the memory of a new process, which would hide what leaks: in the second half of the
//! storms there are none, and one process lives through all of them.

use crate::birth;
use crate::client::v4;
use crate::harness::Rig;
use crate::house::{KEY, key_file};
use crate::load::{LOST, Load, Tally};
use crate::pests::Swarm;
use crate::place::{LOOK, free_port, python, script};
use crate::prng::Prng;
use crate::proc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Of the storms that are measured, unless SOAK_SECONDS says how long.
const SECONDS: u64 = 5;
/// One of them lasts no longer than that.
const STORM: u64 = 60;
/// Misbehaving clients at a time: as many as may be connected at all.
const PESTS: usize = 256;
const WORKERS: usize = 4;
const COMMAND: &str = "channel.py storm huge";
/// Whoever behaves is answered: one that is not within that never will be. (How long it takes is told, and
/// no figure of a machine that others use, too.)
const PATIENCE: Duration = Duration::from_secs(30);
/// and asks that often.
const PROBES: Duration = Duration::from_millis(50);
/// So many storms warm up at most, each as long as those that are measured.
const WARM_UPS: u32 = 3;
/// So much more memory than after those it may have, in KiB,
const GROWTH: u64 = 200;
/// or than this: one that was handed over just now has less than one that has lived for a while, whose records and
/// histories are full.
const GROWN: u64 = 1500;
/// Between two reloads,
const RELOADS: Duration = Duration::from_millis(700);
/// and between two handovers.
const HANDOVERS: Duration = Duration::from_millis(4300);
/// So many workers there are at least and at most between.
const SIZES: (u64, u64) = (2, 6);
/// The disk is full for half of that, and then has room again.
const DISK: Duration = Duration::from_millis(1900);

/// What is said loudly in such a storm.
const ALLOWED: [&str; 12] = [
    "command-failed",
    "died",
    // One is under way still, or what has to be over before is not.
    "handover-failed",
    "killed",
    "log-failed",
    "log-lost",
    "message-dropped",
    "message-refused",
    "program-line-dropped",
    "program-refused",
    "reload-failed",
    "request-refused",
];

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|e| panic!("{variable}={text}: {e}")),
    )
}

/// Those who behave: they ask all the time, and are answered in time.
struct Probes {
    over: Arc<AtomicBool>,
    thread: JoinHandle<(usize, Duration)>,
}

impl Probes {
    fn start(socket: PathBuf, monitor: SocketAddr) -> Probes {
        let over = Arc::new(AtomicBool::new(false));
        let until = over.clone();
        let thread = std::thread::spawn(move || {
            let (mut count, mut slowest) = (0, Duration::ZERO);
            while !until.load(Ordering::Relaxed) {
                slowest = slowest.max(status(&socket)).max(live(monitor));
                count += 2;
                std::thread::sleep(PROBES);
            }
            (count, slowest)
        });
        Probes { over, thread }
    }

    /// How many were answered, and how long the slowest answer took.
    fn end(self) -> (usize, Duration) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// How long the answer takes.
fn status(socket: &Path) -> Duration {
    let asked = Instant::now();
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = Vec::new();
    let done = stream
        .write_all(b"[\"status\"]\n")
        .and_then(|()| stream.read_to_end(&mut said));
    let said = String::from_utf8_lossy(&said);
    let took = asked.elapsed();
    let well = done.is_ok() && said.contains(" ready generation ");
    assert!(well, "status, after {took:?}: {done:?}, {said:?}");
    took
}

/// The same over HTTP, without a key.
fn live(monitor: SocketAddr) -> Duration {
    let asked = Instant::now();
    let mut stream = TcpStream::connect(monitor).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = Vec::new();
    let done = stream
        .write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .and_then(|()| stream.read_to_end(&mut said));
    let said = String::from_utf8_lossy(&said);
    let took = asked.elapsed();
    let well = done.is_ok() && said.starts_with("HTTP/1.1 200 ");
    assert!(well, "/live, after {took:?}: {done:?}, {said:?}");
    took
}

/// What the master has when all is calm.
#[derive(Clone, Copy, Debug)]
struct Calm {
    descriptors: usize,
    children: usize,
    /// Its own, in KiB: what may leak.
    memory: u64,
}

/// What it had while the storm blew.
#[derive(Default)]
struct Peak {
    resident: u64,
    descriptors: usize,
    zombies: usize,
}

impl Peak {
    fn look(&mut self, pid: i32) {
        self.resident = self.resident.max(proc::kib(pid, "VmRSS"));
        self.descriptors = self.descriptors.max(proc::descriptors(pid));
        self.zombies = self.zombies.max(proc::zombies(pid).len());
    }
}

/// Whether clients are answered.
#[derive(Default)]
struct Progress {
    answered: u64,
    since: Option<Instant>,
    told: bool,
}

impl Progress {
    /// Once, if nobody was answered for so long: much longer than a worker takes that is busy.
    fn stands_still(&mut self, load: &mut Load) -> bool {
        const LONG: Duration = Duration::from_secs(4);
        const OFTEN: Duration = Duration::from_secs(1);
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) < OFTEN {
            return false;
        }
        let answered = load.so_far().of("fresh_ok");
        if answered != self.answered {
            *self = Progress {
                answered,
                since: Some(now),
                told: false,
            };
            return false;
        }
        let first = now.duration_since(since) > LONG && !self.told;
        self.told |= first;
        first
    }
}

struct Soak {
    rig: Rig,
    port: u16,
    monitor: SocketAddr,
    swarm: Swarm,
    chance: Prng,
}

impl Soak {
    fn start(seed: u64) -> Soak {
        let (port, monitor) = (free_port(), free_port());
        let words = format!(
            "-n {WORKERS} -p {port} --monitor {monitor} --key-file key --log-level info --ipc node \
             --backoff 0 --on-message cat --command hang=./hang --command loud=./loud --command quick=true \
             --log-dir disk/logs --log-max-size 200K --log-keep 2 -- {} {COMMAND}",
            python()
        );
        let how = birth::namespaces("-m");
        let mount = "mkdir disk; mount -t tmpfs -o size=2m none disk; exec \"$0\" \"$@\"";
        let start = ["unshare", &how, "sh", "-ec", mount].map(String::from);
        let mut rig = Rig::dressed_by(start.to_vec(), words, |_, dir| {
            key_file(dir, 0o600, KEY);
            script(dir, "hang", "#!/bin/sh\ntrap '' TERM\nexec sleep 1000\n");
            script(dir, "loud", "#!/bin/sh\nexec head -c 3000000 /dev/zero\n");
        });
        rig.up();
        let (socket, monitor) = (rig.socket(), v4(monitor));
        Soak {
            rig,
            port,
            monitor,
            swarm: Swarm::new(seed, PESTS, socket, monitor),
            chance: Prng::new(seed ^ 1),
        }
    }

    /// Half of it with reloads, resizes, handovers and a full disk alone, which lose nothing; then workers are
    /// killed, too.
    fn storm(&mut self, lasts: Duration, handovers: bool) {
        let flag = self.rig.dir().join("storm");
        std::fs::write(&flag, "").unwrap();
        let probes = Probes::start(self.rig.socket(), self.monitor);
        let mut peak = Peak::default();
        let (_, tally) = self.blow(lasts / 2, handovers, false, &mut peak);
        for lost in LOST {
            assert_eq!(tally.of(lost), 0, "{lost}, with reloads alone: {tally:?}");
        }
        let answered = tally.of("requests");
        let (kills, tally) = self.blow(lasts / 2, handovers, true, &mut peak);
        for lost in ["refused", "connect", "timeout", "status"] {
            assert_eq!(tally.of(lost), 0, "{lost}, with {kills} kills: {tally:?}");
        }
        // Each of them has one request at a time.
        let lost = tally.of("fresh") + tally.of("half");
        assert!(lost <= kills, "{lost} lost by {kills} kills: {tally:?}");
        let (count, slowest) = probes.end();
        std::fs::remove_file(flag).unwrap();
        let handovers = self.rig.events("handover").len();
        let resizes = self.rig.events("resized").len();
        let full = self.rig.events("log-failed").len();
        eprintln!(
            "storm of {lasts:?}: {answered} requests and 0 failed; with {kills} kills {lost} of {}; {count} \
             probes answered, the slowest in {slowest:?}; so far {handovers} handovers, {resizes} resizes, {full} \
             times told of a full disk; at most {} KiB resident, {} descriptors, {} zombies at a look",
            tally.of("requests"),
            peak.resident,
            peak.descriptors,
            peak.zombies
        );
    }

    fn blow(
        &mut self,
        lasts: Duration,
        handovers: bool,
        kills: bool,
        peak: &mut Peak,
    ) -> (u64, Tally) {
        let mut load = Load::going(&format!("{} clients=4 pause=2", self.port));
        let mut progress = Progress::default();
        let now = Instant::now();
        let end = now + lasts;
        let (mut killed, mut next_kill, mut next_reload) = (0, now, now);
        let (before, mut next_handover) = (self.rig.events("handover").len(), now);
        let (mut next_disk, mut full) = (now, false);
        while Instant::now() < end {
            self.swarm.step();
            if Instant::now() > next_reload {
                next_reload = Instant::now() + RELOADS;
                let size = self.chance.range(SIZES.0, SIZES.1);
                self.say(&format!("resize {size} --no-wait\nreload --no-wait\n"));
                peak.look(self.rig.pid());
            }
            if handovers && Instant::now() > next_handover {
                next_handover = Instant::now() + HANDOVERS;
                self.say("handover --no-wait\n");
            }
            if Instant::now() > next_disk {
                next_disk = Instant::now() + DISK / 2;
                full = !full;
                self.fill(full);
            }
            if kills && Instant::now() > next_kill {
                next_kill = Instant::now() + self.chance.ms(20, 400);
                // On a busy machine these servers take seconds to start: where the last one that is ready is killed
                // as well, and its successor before it is ready, clients wait longer than they have patience.
                let enough = self.rig.status().ready > 1;
                let workers = self.workers();
                if enough && !workers.is_empty() {
                    // (One that has gone meanwhile was replaced.)
                    let victim = Pid::from_raw(self.chance.pick(&workers));
                    killed += u64::from(kill(victim, Signal::SIGKILL).is_ok());
                }
            }
            if progress.stands_still(&mut load) {
                self.tell_what_stands_still();
            }
            std::thread::sleep(LOOK);
        }
        self.fill(false);
        // One is asked for at the start; on a busy machine it may not have been possible then, or is under way
        // still when a short storm ends.
        self.rig.until("there was a handover", || {
            let so = self.rig.events("handover").len() > before;
            so || !handovers || self.rig.verb("handover").code == 0
        });
        (killed, load.finish().1)
    }

    /// No client has had an answer for a while: what the cluster says, and what its children do.
    fn tell_what_stands_still(&self) {
        for verb in ["status", "workers details", "connections"] {
            eprintln!("nobody is answered; {verb}:\n{}", self.rig.verb(verb).out);
        }
        for pid in proc::children(self.rig.pid()) {
            let read = |what| std::fs::read_to_string(format!("/proc/{pid}/{what}"));
            let state = read("stat").unwrap_or_default();
            let state = state.rsplit(')').next().unwrap_or_default().to_string();
            let state: String = state.chars().take(3).collect();
            let waits = read("wchan").unwrap_or_default();
            eprintln!("pid {pid}:{state} in {waits}: {}", proc::command(pid));
        }
    }

    /// The disk of the cluster, which it sees alone: not a byte of it is free, or as much as nobody else has taken.
    fn fill(&self, full: bool) {
        let (pid, dir) = (self.rig.pid(), self.rig.dir().display());
        let file = PathBuf::from(format!("/proc/{pid}/root{dir}/disk/filler"));
        if !full {
            let _ = std::fs::remove_file(file);
            return;
        }
        let mut filler = std::fs::File::create(file).unwrap();
        for size in [64 * 1024, 4096, 1] {
            while filler.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    /// Those that have executed their program: before that a child may be anything.
    fn workers(&self) -> Vec<i32> {
        let all = proc::children(self.rig.pid()).into_iter();
        let started = format!("({} {COMMAND}", python());
        let so = |pid: &i32| proc::command(*pid).contains(&started);
        all.filter(so).collect()
    }

    /// Types this, and hears nothing of it.
    fn say(&self, lines: &str) {
        let mut stream = UnixStream::connect(self.rig.socket()).unwrap();
        stream.write_all(lines.as_bytes()).unwrap();
    }

    /// All have gone, all that they have begun has ended, and every worker is a new one.
    fn calm(&mut self) -> Calm {
        self.swarm.vanish();
        let pid = self.rig.pid();
        // The workers, and the program that hears them.
        let all = WORKERS + 1;
        // What they have asked last may be on its way still, and be heard after us: a size that takes the place of ours,
        // one that is one more, another reload. All of it is over when all of this holds.
        let size = format!("resize {WORKERS}");
        self.rig.until(
            "nothing goes on, all are new, and no child is left over",
            || {
                let sized = self.rig.verb(size.as_str()).code == 0;
                let new = sized && self.rig.verb("reload").code == 0;
                let s = self.rig.status();
                new && s.ready == WORKERS && s.beside.is_empty() && proc::children(pid).len() == all
            },
        );
        let zombies = proc::zombies(pid);
        assert!(zombies.is_empty(), "nobody has waited for {zombies:?}");
        self.rig.note_descriptors();
        // What it does not need it gives back before it rests.
        self.rig.until("the master rests", || proc::rests(pid));
        Calm {
            descriptors: proc::descriptors(pid),
            children: proc::children(pid).len(),
            memory: proc::kib(pid, "RssAnon"),
        }
    }

    /// Storms until the master has all that it keeps: how far one gets depends on the machine, so it may take
    /// some. (What grows with each of them grows with those that are measured, too.)
    fn warm_up(&mut self, lasts: Duration) -> Calm {
        let mut before = 0;
        let mut left = WARM_UPS;
        loop {
            self.rig.patient(lasts * 2);
            self.storm(lasts, true);
            let now = self.calm();
            eprintln!("after warming up: {now:?}");
            left -= 1;
            if now.memory <= before + GROWTH / 2 || left == 0 {
                return now;
            }
            before = now.memory;
        }
    }

    fn end(self) {
        let log = format!("{:?}", self.rig.everything());
        let events = self.rig.verb("events --json").out;
        for told in [&log, &events] {
            assert!(!told.contains(&KEY[..16]), "the key is told");
            assert!(!told.contains("internal error"), "an internal error");
        }
        for (habit, n) in &self.swarm.tally {
            eprintln!("{n:8} {habit}");
        }
        self.rig.end(&ALLOWED);
    }
}

#[test]
fn a_storm_of_clients_crashes_and_reloads_leaves_nothing_behind() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("SOAK_SEED").unwrap_or(now.as_secs());
    let seconds = number("SOAK_SECONDS").unwrap_or(SECONDS).max(1);
    eprintln!("SOAK_SEED={seed} SOAK_SECONDS={seconds}");
    let mut soak = Soak::start(seed);
    let storms = seconds.div_ceil(STORM);
    let lasts = Duration::from_secs(seconds) / storms as u32;
    let before = soak.warm_up(lasts);
    for storm in 0..storms {
        soak.rig.patient(lasts * 2);
        soak.storm(lasts, storm < storms.div_ceil(2));
        let now = soak.calm();
        eprintln!("after another: {now:?}");
        // A port may have one spare lane.
        let most = before.descriptors + 1;
        assert!(now.descriptors <= most, "{before:?} became {now:?}");
        assert_eq!(now.children, before.children);
        // What is not needed is given back when the master has a moment of rest.
        let (most, pid) = (before.memory.max(GROWN) + GROWTH, soak.rig.pid());
        let small = || proc::kib(pid, "RssAnon") <= most;
        soak.rig.until(&format!("{now:?} is {before:?}"), small);
    }
    soak.end();
}
