//! Every setting with its unit, default and bounds, and the parsing of what people type for them.
//! No I/O: what has to be looked up (CPUs, addresses in use, the command) is looked up by the shell.

use crate::core::{
    Addr, Balance, Canary, Drain, Given, Level, OnCrashLoop, Page, Policy, ReadyRule, RespawnOn,
    Surge, Takeover,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

mod agree;
mod choices;
mod ecv;
mod envfile;
mod launch;
mod logs;
mod monitor;
mod naming;
mod orders;
mod parse;
mod programs;
mod recycling;
mod rights;
mod slips;
mod sources;
mod words;

pub use choices::*;
pub use ecv::*;
pub use envfile::*;
pub use launch::*;
pub use logs::*;
pub use monitor::*;
pub use orders::*;
pub use parse::*;
pub use programs::*;
pub use recycling::*;
pub use rights::*;
pub use slips::*;
pub use sources::*;
pub use words::*;

pub use crate::core::MAX_WORKERS;
pub use crate::core::rotation::MAX_REASON;

/// --stop-budget of PID 1: whoever runs containers gives 10 s or more.
pub const PID1_BUDGET: Duration = Duration::from_secs(9);
/// Most -p times -H there can be.
pub const MAX_PORTS: usize = 64;
/// Most that --max-forks can be.
pub const MAX_FORKS: u64 = 1_000_000_000;
/// Most that --max-connections can be.
pub const MAX_SERVED: u64 = 1_000_000_000_000;
/// Most that --log-keep can be.
pub const MAX_KEPT: u16 = 100;
/// Least that --log-max-size can be, if it is not 0.
pub const LEAST_LOG: u64 = 64 << 10;
/// Most paths that can be watched.
pub const MAX_WATCHED: usize = 16;
/// Longest of all durations.
pub const LONGEST: Duration = Duration::from_secs(1000 * 86_400);

/// Everything that the command line says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// -n; `None` is auto.
    pub workers: Option<u16>,
    /// -p
    pub ports: Vec<u16>,
    /// -H
    pub hosts: Vec<IpAddr>,
    /// -l
    pub listen: Vec<Listen>,
    /// --single
    pub single: bool,
    /// --keepalive
    pub keepalive: Option<Duration>,
    /// --user-timeout
    pub user_timeout: Option<Duration>,
    /// --backlog
    pub backlog: i32,
    /// --canary
    pub canary: Canary,
    /// --max-age
    pub max_age: Option<Duration>,
    /// --max-rss, in bytes.
    pub max_rss: Option<u64>,
    /// --max-connections
    pub max_connections: Option<u64>,
    /// --count-connections
    pub count_connections: bool,
    /// --recycle-jitter, in percent.
    pub recycle_jitter: u8,
    /// --balance; `None` is what the others need, see `balance`.
    pub balance: Option<Balance>,
    /// --takeover
    pub takeover: Takeover,
    /// --ready
    pub ready: ReadyRule,
    /// --ready fd:N
    pub ready_fd: Option<i32>,
    /// The path of --ready http:/PATH
    pub ready_path: Option<String>,
    /// --watchdog
    pub watchdog: Option<Duration>,
    /// --hang-timeout
    pub hang_timeout: Option<Duration>,
    /// --idle-timeout
    pub idle_timeout: Option<Duration>,
    /// --ipc
    pub ipc: Ipc,
    /// --ready-timeout; zero is never.
    pub ready_timeout: Duration,
    /// --start-timeout; zero is never.
    pub start_timeout: Duration,
    /// --ready-quorum
    pub ready_quorum: u16,
    /// --respawn
    pub respawn: Duration,
    /// --backoff; zero is constant spacing.
    pub backoff: Duration,
    /// --backoff-reset
    pub backoff_reset: Duration,
    /// --restarts-per-minute; 0 is any number.
    pub restarts_per_minute: u32,
    /// --max-forks; 0 is any number.
    pub max_forks: u64,
    /// --on-crash-loop
    pub on_crash_loop: OnCrashLoop,
    /// --respawn-on
    pub respawn_on: RespawnOn,
    /// --orphans
    pub orphans: Orphans,
    /// --stop-signal
    pub stop_signal: i32,
    /// --stop-timeout
    pub stop_timeout: Duration,
    /// --on-signal, by number.
    pub on_signal: BTreeMap<i32, Order>,
    /// --stop-budget; zero is none, `None` hangs on whether we are PID 1.
    pub stop_budget: Option<Duration>,
    /// --drain
    pub drain: Drain,
    /// --drain-timeout
    pub drain_timeout: Duration,
    /// --drain-quiet; `None` is half of that.
    pub drain_quiet: Option<Duration>,
    /// --drain-delay
    pub drain_delay: Duration,
    /// --surge
    pub surge: Surge,
    /// --env, in order
    pub env: Vec<(String, String)>,
    /// --env-file, in order
    #[serde(with = "crate::core::carry::paths")]
    pub env_files: Vec<PathBuf>,
    /// --clear-env
    pub clear_env: bool,
    /// --cwd
    #[serde(with = "crate::core::carry::paths")]
    pub cwd: Option<PathBuf>,
    /// --user
    pub user: Option<Principal>,
    /// --group
    pub group: Option<Principal>,
    /// --umask
    pub umask: Option<u32>,
    /// --nice
    pub nice: Option<i32>,
    /// --cpu-affinity
    pub cpu_affinity: bool,
    /// --cgroup: one for each worker?
    pub cgroup: bool,
    /// --rlimit; one of each name.
    pub rlimits: Vec<Rlimit>,
    /// --control
    pub control: Control,
    /// --monitor
    pub monitor: Option<SocketAddr>,
    /// --console
    pub console: bool,
    /// --monitor-name
    pub monitor_name: Option<String>,
    /// --key-file
    #[serde(with = "crate::core::carry::paths")]
    pub key_file: Option<PathBuf>,
    /// --ecv
    pub ecv: String,
    /// --ecv-control
    pub ecv_control: EcvControl,
    /// --ecv-down-status
    pub ecv_down_status: u16,
    /// --ecv-monitor
    pub ecv_monitor: Option<Page>,
    /// --ecv-validator
    pub ecv_validator: Option<Vec<String>>,
    /// --ecv-interval
    pub ecv_interval: Duration,
    /// --ecv-fall
    pub ecv_fall: u16,
    /// --ecv-rise
    pub ecv_rise: u16,
    /// --name
    pub name: Option<String>,
    /// --pid-file
    #[serde(with = "crate::core::carry::paths")]
    pub pid_file: Option<PathBuf>,
    /// --pid-dir
    #[serde(with = "crate::core::carry::paths")]
    pub pid_dir: Option<PathBuf>,
    /// --log-format; `None` is text on a terminal, else logfmt.
    pub log_format: Option<LogFormat>,
    /// --log-file; `None` is stderr, or syslog for a daemon.
    pub log_file: Option<LogTo>,
    /// --log-level, -q, -v
    pub log_level: Level,
    /// --log-dir
    #[serde(with = "crate::core::carry::paths")]
    pub log_dir: Option<PathBuf>,
    /// --log-merge
    pub log_merge: bool,
    /// --log-max-size, in bytes; 0 is any.
    pub log_max_size: u64,
    /// --log-keep
    pub log_keep: u16,
    /// --silent
    pub silent: bool,
    /// --daemon
    pub daemon: bool,
    /// --watch
    #[serde(with = "crate::core::carry::paths")]
    pub watch: Vec<PathBuf>,
    /// --replace
    pub replace: bool,
    /// --json
    pub json: bool,
    /// --no-wait
    pub no_wait: bool,
    /// --on-event: a program and its words, each.
    pub on_event: Vec<Vec<String>>,
    /// --on-message: the same.
    pub on_message: Vec<Vec<String>>,
    /// --delegate: who does which work.
    pub delegates: Delegates,
    /// --command: what runs instead of, or beside, the verbs that there are.
    pub commands: Commands,
    /// What to run.
    #[serde(with = "crate::core::carry::paths")]
    pub command: Vec<OsString>,
    /// Where all this was said.
    pub sources: Sources,
}

/// One -l.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listen {
    /// An address to open; and of a unix socket, what is said of its file.
    Open(Addr, SocketFile),
    /// A descriptor that whoever starts us has open.
    Fd(i32),
}

/// Permissions, owner and group of a unix socket's file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketFile {
    /// mode=
    pub mode: Option<u32>,
    /// user=
    pub user: Option<Principal>,
    /// group=
    pub group: Option<Principal>,
}

/// --ipc
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ipc {
    /// Node's, if COMMAND looks like Node.
    Auto,
    /// Node's.
    Node,
    /// None.
    Off,
}

/// --control
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Control {
    /// NAME.sock in the runtime directory.
    Named,
    /// This path.
    Path(#[serde(with = "crate::core::carry::paths")] PathBuf),
    /// This port, to those who have the key.
    Port(SocketAddr),
    /// None.
    Off,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Open(addr, _) => f.write_str(&addr.url()),
            Listen::Fd(n) => write!(f, "fd:{n}"),
        }
    }
}

/// --log-file
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogTo {
    /// Our stderr.
    Stderr,
    /// syslogd.
    Syslog,
    /// This file.
    File(#[serde(with = "crate::core::carry::paths")] PathBuf),
}

/// --log-format
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// For people.
    Text,
    /// key=value.
    Logfmt,
    /// One object a line.
    Json,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            workers: None,
            ports: Vec::new(),
            hosts: Vec::new(),
            listen: Vec::new(),
            single: false,
            keepalive: None,
            user_timeout: None,
            backlog: 4096,
            canary: Canary {
                count: 1,
                watch: Duration::from_secs(2),
                share: 0,
            },
            max_age: None,
            max_rss: None,
            max_connections: None,
            count_connections: false,
            recycle_jitter: 10,
            balance: None,
            takeover: Takeover::Auto,
            ready: ReadyRule::Auto,
            ready_fd: None,
            ready_path: None,
            watchdog: None,
            hang_timeout: None,
            idle_timeout: None,
            ipc: Ipc::Auto,
            ready_timeout: Duration::from_secs(60),
            start_timeout: Duration::from_secs(60),
            ready_quorum: 1,
            respawn: Duration::from_millis(100),
            backoff: Duration::from_secs(30),
            backoff_reset: Duration::from_secs(30),
            restarts_per_minute: 0,
            max_forks: 0,
            on_crash_loop: OnCrashLoop::Degrade,
            respawn_on: RespawnOn::Any,
            orphans: Orphans::Stop,
            stop_signal: 15,
            stop_timeout: Duration::from_secs(10),
            on_signal: BTreeMap::new(),
            stop_budget: None,
            drain: Drain::Connections,
            drain_timeout: Duration::from_secs(10),
            drain_quiet: None,
            drain_delay: Duration::ZERO,
            surge: Surge::Percent(100),
            env: Vec::new(),
            env_files: Vec::new(),
            clear_env: false,
            cwd: None,
            user: None,
            group: None,
            umask: None,
            nice: None,
            cpu_affinity: false,
            cgroup: false,
            rlimits: Vec::new(),
            control: Control::Named,
            monitor: None,
            console: false,
            monitor_name: None,
            key_file: None,
            ecv: "/ecv".into(),
            ecv_control: EcvControl::Key,
            ecv_down_status: 400,
            ecv_monitor: None,
            ecv_validator: None,
            ecv_interval: Duration::from_secs(5),
            ecv_fall: 3,
            ecv_rise: 2,
            name: None,
            pid_file: None,
            pid_dir: None,
            log_file: None,
            log_format: None,
            log_level: Level::Info,
            log_dir: None,
            log_merge: false,
            log_max_size: 16 << 20,
            log_keep: 5,
            silent: false,
            daemon: false,
            watch: Vec::new(),
            replace: false,
            json: false,
            no_wait: false,
            on_event: Vec::new(),
            on_message: Vec::new(),
            delegates: Delegates::new(),
            commands: Commands::new(),
            command: Vec::new(),
            sources: Sources::default(),
        }
    }
}

impl Settings {
    /// What was typed of the workers' directory.
    pub fn typed_cwd(&self) -> Option<&String> {
        let typed = self.sources.typed.iter();
        typed
            .rev()
            .find(|(long, _)| *long == "cwd")
            .map(|(_, dir)| dir)
    }

    /// As if that had been typed of it, or nothing.
    pub fn retype_cwd(&mut self, dir: Option<String>) {
        self.sources.typed.retain(|(long, _)| *long != "cwd");
        self.sources.typed.extend(dir.map(|dir| ("cwd", dir)));
    }

    /// Each port on each host.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
        let hosts = match self.hosts.as_slice() {
            [] => &any[..],
            some => some,
        };
        self.ports
            .iter()
            .flat_map(|p| hosts.iter().map(|h| SocketAddr::new(*h, *p)))
            .collect()
    }

    /// Each port on each host, and the TCP addresses of -l.
    fn tcp_addresses(&self) -> Vec<SocketAddr> {
        let more = self.listen.iter().filter_map(|l| match l {
            Listen::Open(addr, _) => addr.tcp(),
            Listen::Fd(_) => None,
        });
        self.addresses().into_iter().chain(more).collect()
    }

    /// How many workers, where so many CPUs may be used.
    pub fn wanted(&self, cpus: usize) -> u16 {
        let auto = u16::try_from(cpus).unwrap_or(MAX_WORKERS);
        self.workers.unwrap_or(auto).clamp(1, MAX_WORKERS)
    }

    /// After such a silence a connection is quiet.
    pub fn quiet(&self) -> Duration {
        self.drain_quiet.unwrap_or(self.drain_timeout / 2)
    }

    /// What core needs of all this.
    pub fn policy(&self, cpus: usize, seed: u64, given: Vec<Given>) -> Policy {
        let unless_zero = |d: Duration| (!d.is_zero()).then_some(d);
        Policy {
            workers: self.wanted(cpus),
            most: MAX_WORKERS,
            given,
            ready: self.ready,
            watchdog: self.watchdog,
            hang_timeout: self.hang_timeout,
            ready_timeout: unless_zero(self.ready_timeout),
            start_timeout: unless_zero(self.start_timeout),
            ready_quorum: self.ready_quorum,
            checks: self.checks(),
            respawn: self.respawn,
            backoff: self.backoff,
            backoff_reset: self.backoff_reset,
            restarts_per_minute: self.restarts_per_minute,
            max_forks: self.max_forks,
            on_crash_loop: self.on_crash_loop,
            respawn_on: self.respawn_on,
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout,
            stop_budget: self.stop_budget.and_then(unless_zero),
            drain: self.drain,
            drain_timeout: self.drain_timeout,
            drain_quiet: self.quiet(),
            drain_delay: self.drain_delay,
            surge: self.surge,
            canary: self.canary,
            recycle: self.recycle(),
            balance: self.balance(),
            // Whoever starts us knows them.
            cpus: Vec::new(),
            takeover: self.takeover.clone(),
            learn_from: 1,
            seed,
        }
    }
}
