//! What `--check` says: what a start would do here, and which mechanisms of the kernel this environment
//! allows. What has been found is put in by the shell, which has tried it; how it is told, what is lost
//! without it and what to add is here.
//!
//! The rows are one table: the manual's ENVIRONMENTS has each of them, and the tests refuse each.

mod remedies;
#[cfg(test)]
mod tests;

use super::json::quote;
use crate::core::words::{errno_text, signal_name};
pub use remedies::Around;

/// What a cluster relies on, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mechanism {
    /// seccomp(2) with a listener.
    Notify,
    /// What is executed may gain privileges.
    Privileges,
    /// The memory of a worker.
    Memory,
    /// pidfd_open(2), and signals by that.
    Pidfd,
    /// pidfd_getfd(2)
    Getfd,
    /// SO_ATTACH_FILTER on a connection.
    Hold,
    /// /proc of our pid namespace.
    Proc,
    /// The descriptors of a worker.
    Look,
    /// Questions to the kernel about sockets.
    SockDiag,
    /// News of those that end.
    SockNews,
    /// SO_REUSEPORT
    SharePort,
    /// SO_ATTACH_REUSEPORT_CBPF
    Steering,
    /// PR_SET_CHILD_SUBREAPER
    Subreaper,
    /// PR_SET_PDEATHSIG
    DeathSignal,
    /// Names in the abstract namespace of unix sockets.
    Abstract,
    /// setgroups, setgid, setuid.
    Ids,
    /// Priority.
    Nice,
    /// Limits.
    Limits,
    /// One CPU.
    Affinity,
    /// The workers' directory.
    Directory,
    /// The ports themselves.
    Ports,
    /// Room for descriptors.
    Files,
    /// Where the control socket is.
    Runtime,
    /// /dev/log
    Syslog,
    /// A control group to make others in.
    Cgroup,
}

use Mechanism as M;

/// One of the table.
pub struct Row {
    /// Which.
    pub what: Mechanism,
    /// As it is called everywhere.
    pub name: &'static str,
    /// For what, in the words of who uses it.
    pub purpose: &'static str,
    /// What is lost without it.
    pub lost: &'static str,
}

const fn row(
    what: Mechanism,
    name: &'static str,
    purpose: &'static str,
    lost: &'static str,
) -> Row {
    Row {
        what,
        name,
        purpose,
        lost,
    }
}

/// All of them.
pub static ROWS: [Row; 25] = [
    row(
        M::Notify,
        "seccomp-notify",
        "takeover: a server that binds its port by itself is handed the socket that all share",
        "COMMAND has to use the socket passed as fd 3 (LISTEN_FDS), or set SO_REUSEPORT itself on $PORT",
    ),
    row(
        M::Privileges,
        "privileges",
        "set-user-ID programs and file capabilities work in workers",
        "what workers execute gains no privileges (sudo, ping): takeover takes no_new_privs here",
    ),
    row(
        M::Memory,
        "read-memory",
        "takeover: which address a worker binds is read from its memory",
        "takeover does not work: COMMAND has to use the socket passed as fd 3 (LISTEN_FDS), or set SO_REUSEPORT itself on $PORT",
    ),
    row(
        M::Pidfd,
        "pidfd-open",
        "workers are held by descriptors: to copy their sockets, and to signal a master by its pid file",
        "nothing of what pidfd-getfd is for; verbs by --pid-file alone do not work",
    ),
    row(
        M::Getfd,
        "pidfd-getfd",
        "idle connections are ended from outside (--idle-timeout, drain), sockets that cannot be swapped are adopted",
        "--idle-timeout has no effect; a worker that is drained is asked to stop when its connections owe nothing, at the latest at --drain-timeout; a server whose socket was in an epoll set before bind(2) fails; options that it set before bind(2) are not carried over",
    ),
    row(
        M::Hold,
        "hold-requests",
        "drain: what a client asks next is kept out of a connection that has no time left, to be asked again",
        "a kept connection that never rests may be cut in the middle of a request when its worker has to go",
    ),
    row(
        M::Proc,
        "proc",
        "workers and what they leave behind are found in /proc",
        "readiness of servers that use the passed socket, memory and CPU in status, and daemons that workers leave behind, which are not ended",
    ),
    row(
        M::Look,
        "worker-descriptors",
        "which worker has which connection is seen in /proc/PID/fd",
        "a worker that is drained has all of --drain-timeout; --idle-timeout ends nothing",
    ),
    row(
        M::SockDiag,
        "sock-diag",
        "the kernel tells which connections there are: a reload waits for them, and connections are counted",
        "a worker that is drained has all of --drain-timeout; connections, --idle-timeout and --hang-timeout do not work",
    ),
    row(
        M::SockNews,
        "sock-news",
        "the kernel tells which connections have ended: --count-connections, --max-connections",
        "nothing is counted",
    ),
    row(
        M::SharePort,
        "reuseport",
        "each generation, or each worker, has a socket of its own on the port",
        "all share one socket: an old worker of a reload cannot be emptied before it is stopped, and --balance has no effect",
    ),
    row(
        M::Steering,
        "steering",
        "new connections go to the new workers from one moment on, and by --balance",
        "a reload may lose connections that wait on the old workers, and --balance has no effect",
    ),
    row(
        M::Subreaper,
        "subreaper",
        "daemons that workers leave behind become ours, and are ended",
        "they are not seen, and stay",
    ),
    row(
        M::DeathSignal,
        "death-signal",
        "workers end with the master, whatever ends that",
        "a master that is killed leaves its workers behind, and they keep the port",
    ),
    row(
        M::Abstract,
        "abstract-sockets",
        "workers can say that they are ready (NOTIFY_SOCKET), and two starts on one port are kept apart",
        "--ready ready and --watchdog by sd_notify do not work: say --ready listening, or fd:N",
    ),
    row(
        M::Ids,
        "setuid",
        "workers run as --user and --group say",
        "no worker can be started",
    ),
    row(
        M::Nice,
        "nice",
        "workers have the priority of --nice",
        "no worker can be started",
    ),
    row(
        M::Limits,
        "rlimit",
        "workers have the limits of --rlimit",
        "no worker can be started",
    ),
    row(
        M::Affinity,
        "cpu-affinity",
        "each worker runs on one CPU",
        "no worker can be started",
    ),
    row(
        M::Directory,
        "directory",
        "workers run in their directory",
        "no worker can be started",
    ),
    row(
        M::Ports,
        "ports",
        "the addresses of -p and -l are opened",
        "nothing is started",
    ),
    row(
        M::Files,
        "open-files",
        "there is room for the descriptors of all workers, and of a reload",
        "nothing is started",
    ),
    row(
        M::Runtime,
        "runtime-directory",
        "the control socket is where verbs look for it",
        "no control socket: verbs do not find this cluster; signals do",
    ),
    row(
        M::Syslog,
        "syslog",
        "the log of a daemon",
        "the daemon has no log",
    ),
    row(
        M::Cgroup,
        "cgroup",
        "each worker has a control group of its own (--cgroup auto): what it starts ends with it",
        "what leaves the process group of a worker stays until the cluster stops",
    ),
];

/// How it is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It works; and what else there is to say of it.
    Ok(String),
    /// It does not, for the reason in this errno,
    Refused(i32),
    /// or this one.
    Fails(String),
    /// Whoever tries it is killed by that signal.
    Kills(i32),
    /// It does not come back.
    Hangs,
    /// It could not be tried, since something else does not work.
    Untried,
    /// These options do not need it.
    NotNeeded,
}

impl State {
    /// In one word.
    pub fn word(&self) -> &'static str {
        match self {
            State::Ok(_) => "ok",
            State::Refused(_) | State::Fails(_) | State::Kills(_) | State::Hangs => "refused",
            State::Untried => "untried",
            State::NotNeeded => "not needed",
        }
    }

    fn why(&self) -> String {
        match self {
            State::Ok(more) | State::Fails(more) => more.clone(),
            State::Refused(errno) => errno_text(*errno),
            State::Kills(signal) => {
                format!("whoever tries it is killed by SIG{}", signal_name(*signal))
            }
            State::Hangs => "it does not come back".into(),
            State::Untried => "what it needs does not work".into(),
            State::NotNeeded => String::new(),
        }
    }

    /// Has it been tried in vain?
    pub fn is_refused(&self) -> bool {
        self.word() == "refused"
    }

    fn is_ok(&self) -> bool {
        matches!(self, State::Ok(_))
    }
}

/// All that was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What a start would do: of what, and how.
    pub plan: Vec<(&'static str, String)>,
    /// Why there would be none: exit code and sentence, in the order in which a start comes to them.
    pub problems: Vec<(u8, String)>,
    /// What is worth knowing, and keeps nobody from starting.
    pub warnings: Vec<String>,
    /// How each mechanism is.
    pub found: Vec<(Mechanism, State)>,
    /// What remedies hang on.
    pub around: Around,
    /// Is takeover asked for?
    pub takeover: bool,
}

impl Report {
    /// What a start would exit with; 0: it would run.
    pub fn code(&self) -> u8 {
        self.problems.first().map_or(0, |(code, _)| *code)
    }

    /// How that one is.
    pub fn state(&self, what: Mechanism) -> &State {
        let found = self.found.iter().find(|(m, _)| *m == what);
        found.map_or(&State::NotNeeded, |(_, state)| state)
    }

    /// It is so. (What was found first counts.)
    pub fn is(&mut self, what: Mechanism, state: State) {
        if !self.found.iter().any(|(m, _)| *m == what) {
            self.found.push((what, state));
        }
    }

    /// What a cluster can do here: each ability, whether it is there, and what is in the way.
    pub fn verdict(&self) -> Vec<Ability> {
        let needs = |name, all: &[Mechanism], asked: bool| {
            let those = |out: fn(&State) -> bool| -> Vec<&'static str> {
                let all = all.iter().filter(|m| out(self.state(**m)));
                all.filter_map(|m| name_of(*m)).collect()
            };
            // What is refused keeps others from being tried.
            let missing = match those(State::is_refused) {
                none if none.is_empty() => those(|s| !s.is_ok()),
                some => some,
            };
            Ability {
                name,
                asked,
                missing,
            }
        };
        let asked = |m| *self.state(m) != State::NotNeeded;
        vec![
            needs("takeover", &[M::Notify, M::Memory], self.takeover),
            needs(
                "reload without loss",
                &[M::SharePort, M::Steering, M::SockDiag, M::Look],
                asked(M::SharePort),
            ),
            needs(
                "gentle drain",
                &[M::Pidfd, M::Getfd, M::Hold, M::Proc, M::Look, M::SockDiag],
                asked(M::Getfd),
            ),
            needs(
                "leftovers ended",
                &[M::Subreaper, M::Proc],
                asked(M::Subreaper),
            ),
            needs("verbs", &[M::Runtime], asked(M::Runtime)),
            needs("counting", &[M::SockNews], asked(M::SockNews)),
        ]
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (what, how) in &self.plan {
            text.push_str(&format!("{what:<12}{how}\n"));
        }
        text.push_str("\nMECHANISM           STATE       FOR\n");
        for row in &ROWS {
            let state = self.state(row.what);
            let line = format!("{:<20}{:<12}{}", row.name, state.word(), row.purpose);
            text.push_str(&format!("{}\n", line.trim_end()));
            let more = match state {
                State::NotNeeded => Vec::new(),
                State::Ok(more) if more.is_empty() => Vec::new(),
                State::Ok(more) => vec![("", more.clone())],
                State::Untried => vec![("why: ", state.why())],
                State::Refused(_) | State::Fails(_) | State::Kills(_) | State::Hangs => vec![
                    ("why: ", state.why()),
                    ("lost: ", row.lost.to_string()),
                    ("add: ", remedies::remedy(row.what, state, &self.around)),
                ],
            };
            for (head, said) in more {
                text.push_str(&format!("    {head}{said}\n"));
            }
        }
        if !self.warnings.is_empty() || !self.problems.is_empty() {
            text.push('\n');
        }
        for said in &self.warnings {
            text.push_str(&format!("warning: {said}\n"));
        }
        for (code, why) in &self.problems {
            text.push_str(&format!("problem: {why} (exit {code})\n"));
        }
        text.push_str(&format!("\nverdict: {}\n", self.sentence()));
        text
    }

    /// The verdict in a sentence.
    fn sentence(&self) -> String {
        let begins = match self.code() {
            0 => "it would start".to_string(),
            code => format!("it would not start (exit {code})"),
        };
        let can = self.verdict();
        let can = can
            .iter()
            .filter(|a| a.asked)
            .map(|a| match a.missing.as_slice() {
                [] => format!("{} yes", a.name),
                why => format!("{} no ({})", a.name, why.join(", ")),
            });
        [begins]
            .into_iter()
            .chain(can)
            .collect::<Vec<_>>()
            .join("; ")
    }

    /// For programs: one object.
    pub fn json(&self) -> String {
        let plan: Vec<String> = self
            .plan
            .iter()
            .map(|(what, how)| format!("{}:{}", quote(what), quote(how)))
            .collect();
        let problems: Vec<String> = self
            .problems
            .iter()
            .map(|(code, why)| format!("{{\"code\":{code},\"message\":{}}}", quote(why)))
            .collect();
        let warnings: Vec<String> = self.warnings.iter().map(|w| quote(w)).collect();
        let rows: Vec<String> = ROWS.iter().map(|row| self.row(row)).collect();
        let verdict: Vec<String> = self.verdict().iter().map(Ability::json).collect();
        format!(
            "{{\"ok\":{},\"code\":{},\"plan\":{{{}}},\"problems\":[{}],\"warnings\":[{}],\"mechanisms\":[{}],\"verdict\":{{{}}}}}\n",
            self.code() == 0,
            self.code(),
            plan.join(","),
            problems.join(","),
            warnings.join(","),
            rows.join(","),
            verdict.join(",")
        )
    }

    fn row(&self, row: &Row) -> String {
        let state = self.state(row.what);
        let (why, lost, add) = match state.is_refused() {
            true => (
                quote(&state.why()),
                quote(row.lost),
                quote(&remedies::remedy(row.what, state, &self.around)),
            ),
            false => ("null".into(), "null".into(), "null".into()),
        };
        let errno = match state {
            State::Refused(errno) => errno.to_string(),
            State::Ok(_)
            | State::Fails(_)
            | State::Kills(_)
            | State::Hangs
            | State::Untried
            | State::NotNeeded => "null".into(),
        };
        format!(
            "{{\"name\":{},\"state\":{},\"for\":{},\"errno\":{errno},\"why\":{why},\"lost\":{lost},\"add\":{add}}}",
            quote(row.name),
            quote(state.word()),
            quote(row.purpose)
        )
    }
}

/// What a cluster can do, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ability {
    /// What.
    pub name: &'static str,
    /// Is it asked for?
    pub asked: bool,
    /// The mechanisms that are in the way.
    pub missing: Vec<&'static str>,
}

impl Ability {
    fn json(&self) -> String {
        let can = match (self.asked, self.missing.is_empty()) {
            (false, _) => "null",
            (true, true) => "true",
            (true, false) => "false",
        };
        format!("{}:{can}", quote(self.name))
    }
}

/// As the table has it.
pub fn name_of(what: Mechanism) -> Option<&'static str> {
    ROWS.iter().find(|r| r.what == what).map(|r| r.name)
}
