//! The table of verbs: what a running cluster can be asked. The command line, the control socket,
//! --help, the completions and the check of the manual page all read it.

use crate::settings::{self, Before, Order};

/// One verb.
pub struct Verb {
    /// What is typed.
    pub name: &'static str,
    /// What may follow.
    pub words: &'static str,
    /// How many words that are at most.
    pub takes: usize,
    /// Is its answer waited for (unless NO_WAIT is said)?
    pub waits: bool,
    /// One line.
    pub help: &'static str,
    /// Which one.
    pub what: What,
}

/// Which verb, for those who do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Look.
    Status,
    /// Look at the workers alone.
    Workers,
    /// The story of the last deaths.
    Why,
    /// Another number of slots.
    Resize,
    /// A new worker for one, or for all.
    Restart,
    /// New workers for all old ones.
    Reload,
    /// New workers that run another command.
    Upgrade,
    /// Back to the command before.
    Rollback,
    /// Slots that run another command.
    Start,
    /// What a start with --replace says to the cluster that runs.
    Replace,
    /// A signal to workers.
    Signal,
    /// Graceful stop.
    Stop,
    /// Hard stop.
    Kill,
    /// Reopen the log files.
    Reopen,
    /// Versions of client and master.
    Version,
    /// This table.
    Help,
}

/// All of them, in the order of help.
pub const VERBS: [Verb; 16] = [
    Verb {
        name: "status",
        words: "",
        takes: 0,
        waits: false,
        help: "the cluster, its ports and its workers",
        what: What::Status,
    },
    Verb {
        name: "workers",
        words: "[simple|details]",
        takes: 1,
        waits: false,
        help: "slot, pid and state of each worker; or all that is known of it",
        what: What::Workers,
    },
    Verb {
        name: "why",
        words: "[SLOT]",
        takes: 1,
        waits: false,
        help: "the last deaths: reason, status, age, last stderr lines, what followed",
        what: What::Why,
    },
    Verb {
        name: "resize",
        words: "N|+K|-K",
        takes: 1,
        waits: true,
        help: "so many workers; returns when they are ready",
        what: What::Resize,
    },
    Verb {
        name: "reload",
        words: "",
        takes: 0,
        waits: true,
        help: "replace all workers, new before old; returns when it is over",
        what: What::Reload,
    },
    Verb {
        name: "upgrade",
        words: "[all|SLOT|PID] [cwd D] [watch T] [timeout T] [--] COMMAND..",
        takes: usize::MAX,
        waits: true,
        help: "reload to that; taken back if it is broken",
        what: What::Upgrade,
    },
    Verb {
        name: "rollback",
        words: "",
        takes: 0,
        waits: true,
        help: "back to the command before; of an upgrade under way: at once",
        what: What::Rollback,
    },
    Verb {
        name: "start",
        words: "[count N] [cwd D] [timeout T] [--] COMMAND..",
        takes: usize::MAX,
        waits: true,
        help: "more workers, which run another command",
        what: What::Start,
    },
    Verb {
        name: "replace",
        words: "cwd D [option --NAME=VALUE].. [--] COMMAND..",
        takes: usize::MAX,
        waits: true,
        help: "be exactly what a start of that would be; what --replace says",
        what: What::Replace,
    },
    Verb {
        name: "restart",
        words: "all|SLOT|PID [timeout T]",
        takes: 3,
        waits: true,
        help: "replace that worker, new before old; all: reload",
        what: What::Restart,
    },
    Verb {
        name: "signal",
        words: "SIG [all|SLOT|PID]",
        takes: 2,
        waits: false,
        help: "send a signal to the workers' first processes",
        what: What::Signal,
    },
    Verb {
        name: "stop",
        words: "",
        takes: 0,
        waits: true,
        help: "stop gracefully; returns when the master has gone",
        what: What::Stop,
    },
    Verb {
        name: "kill",
        words: "",
        takes: 0,
        waits: true,
        help: "stop at once, by SIGKILL; the master exits 1",
        what: What::Kill,
    },
    Verb {
        name: "reopen",
        words: "",
        takes: 0,
        waits: false,
        help: "reopen the log file, after it was renamed",
        what: What::Reopen,
    },
    Verb {
        name: "version",
        words: "",
        takes: 0,
        waits: false,
        help: "version of the running master",
        what: What::Version,
    },
    Verb {
        name: "help",
        words: "[VERB]",
        takes: 1,
        waits: false,
        help: "this list, or one line of it",
        what: What::Help,
    },
];

/// Stands behind a verb that waits: do not.
pub const NO_WAIT: &str = "--no-wait";

/// Is it among these, before a COMMAND?
pub fn no_wait(words: &[&str]) -> bool {
    let ours = words.iter().take_while(|w| **w != settings::END);
    ours.into_iter().any(|w| *w == NO_WAIT)
}

impl Verb {
    /// May these words follow it?
    pub fn check(&self, rest: &[&str]) -> Result<(), String> {
        if self.before().is_some() {
            return self.check_words(rest);
        }
        let flag = |w: &&&str| **w == NO_WAIT;
        let stray = match rest.iter().find(flag) {
            Some(w) if !self.waits => Some(w),
            Some(_) | None => rest.iter().filter(|w| !flag(w)).nth(self.takes),
        };
        match stray {
            Some(word) => Err(format!("{} does not take {word}", self.name)),
            None => self.check_words(rest),
        }
    }

    /// Does a COMMAND follow, and which of our words may stand before it?
    pub fn before(&self) -> Option<Before> {
        match self.what {
            What::Upgrade => Some(Before::Upgrade),
            What::Start => Some(Before::Start),
            What::Replace => Some(Before::Replace),
            What::Status
            | What::Workers
            | What::Why
            | What::Resize
            | What::Reload
            | What::Rollback
            | What::Restart
            | What::Signal
            | What::Stop
            | What::Kill
            | What::Reopen
            | What::Version
            | What::Help => None,
        }
    }

    /// Do those that it takes mean something?
    fn check_words(&self, rest: &[&str]) -> Result<(), String> {
        if let Some(before) = self.before() {
            return settings::launch(rest, before).map(drop);
        }
        let words: Vec<&str> = rest.iter().copied().filter(|w| *w != NO_WAIT).collect();
        let first = words.first().copied();
        match self.what {
            What::Workers => details(first).map(drop),
            What::Resize => settings::size(first.unwrap_or_default()).map(drop),
            What::Signal => settings::signal_to(&words).map(drop),
            What::Restart => settings::restart(&words).map(drop),
            // Slots and verbs: who answers knows them.
            What::Status
            | What::Why
            | What::Reload
            | What::Upgrade
            | What::Rollback
            | What::Start
            | What::Replace
            | What::Reopen
            | What::Stop
            | What::Kill
            | What::Version
            | What::Help => Ok(()),
        }
    }

    /// What a signal that stands for it is an order for; `None` if it only looks, which is nothing
    /// that a signal could ask for: there is nobody to answer.
    fn order(&self, rest: &[&str]) -> Result<Option<Order>, String> {
        Ok(match self.what {
            What::Stop => Some(Order::Stop),
            What::Kill => Some(Order::Kill),
            What::Reload => Some(Order::Reload),
            What::Reopen => Some(Order::Reopen),
            What::Resize => Some(Order::Resize(settings::size(
                rest.first().copied().unwrap_or_default(),
            )?)),
            What::Restart if rest == ["all"] => Some(Order::Reload),
            What::Restart => {
                return Err("a signal can ask for restart all, which is reload; one worker is for a client to name".into());
            }
            What::Signal => {
                let (signal, target) = settings::signal_to(rest)?;
                Some(Order::Signal(signal, target))
            }
            What::Upgrade | What::Rollback | What::Start | What::Replace => {
                let why = "has an answer that somebody should read: it takes a client";
                return Err(format!("{} {why}", self.name));
            }
            What::Status | What::Workers | What::Why | What::Version | What::Help => None,
        })
    }

    /// May this word, which looks like an option, be one of its own?
    pub fn takes_number(&self, word: &str) -> bool {
        let number = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
        self.what == What::Resize && word.strip_prefix('-').is_some_and(number)
    }

    /// What may stand first behind it, as far as that is a list.
    pub fn proposes(&self) -> &'static str {
        match self.what {
            What::Workers => "simple details",
            What::Resize => "+1 -1",
            What::Restart => "all",
            What::Signal => "HUP INT QUIT USR1 USR2 WINCH TERM KILL",
            What::Status
            | What::Why
            | What::Reload
            | What::Upgrade
            | What::Rollback
            | What::Start
            | What::Replace
            | What::Reopen
            | What::Stop
            | What::Kill
            | What::Version
            | What::Help => "",
        }
    }
}

/// `simple|details`: is the second asked for?
pub fn details(word: Option<&str>) -> Result<bool, String> {
    match word {
        None | Some("simple") => Ok(false),
        Some("details") => Ok(true),
        Some(word) => Err(format!("'{word}' is neither simple nor details")),
    }
}

/// By name.
pub fn find(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|v| v.name == name)
}

/// `SIG=VERB ..`, as it follows --on-signal: the line is that of a console, nothing at all is to
/// ignore it.
pub fn on_signal(text: &str) -> Result<(i32, Order), String> {
    let (number, line) = settings::signal_and_line(text)?;
    let mut words = line.split_whitespace();
    let Some(name) = words.next() else {
        return Ok((number, Order::Ignore));
    };
    let verb = find(name).ok_or_else(|| unknown(name))?;
    // Nobody waits for what a signal asks.
    let rest: Vec<&str> = words.filter(|w| !verb.waits || *w != NO_WAIT).collect();
    verb.check(&rest)?;
    match verb.order(&rest)? {
        Some(order) => Ok((number, order)),
        None => Err(format!(
            "{name} only looks, and nobody would see it: a signal can ask for stop, kill, reload, restart all, reopen, resize N|+K|-K, signal SIG [all|SLOT|PID], or for nothing"
        )),
    }
}

/// All of them, or the one of that name.
pub fn named(name: Option<&str>) -> Result<Vec<&'static Verb>, String> {
    match name {
        None => Ok(VERBS.iter().collect()),
        Some(n) => find(n).map(|v| vec![v]).ok_or_else(|| unknown(n)),
    }
}

/// A line for each.
pub fn help(verbs: &[&Verb]) -> String {
    let line = |v: &&Verb| {
        let usage = format!("{} {}", v.name, v.words);
        format!("{usage:<25} {}\n", v.help)
    };
    verbs.iter().map(line).collect()
}

/// What to say of a word that is no verb.
pub fn unknown(word: &str) -> String {
    let names: Vec<&str> = VERBS.iter().map(|v| v.name).collect();
    let near = settings::nearest(word, &names);
    match near {
        Some(n) => format!("unknown verb {word}; did you mean {n}?"),
        None => format!(
            "unknown verb {word}; there are: {} (a COMMAND follows --)",
            names.join(" ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Size, Target};

    #[test]
    fn a_signal_asks_for_what_changes_something() {
        for (text, number, want) in [
            ("HUP=stop", 1, Order::Stop),
            ("QUIT=kill", 3, Order::Kill),
            ("TERM=stop --no-wait", 15, Order::Stop),
            ("USR2=reopen", 12, Order::Reopen),
            ("USR1=reload", 10, Order::Reload),
            ("USR1=restart all", 10, Order::Reload),
            ("TTIN=resize +2", 21, Order::Resize(Size::More(2))),
            ("TTOU=resize 4", 22, Order::Resize(Size::To(4))),
            ("WINCH=signal WINCH", 28, Order::Signal(28, Target::All)),
            (
                "CONT=signal USR1 slot:2",
                18,
                Order::Signal(10, Target::Slot(2)),
            ),
            ("INT=", 2, Order::Ignore),
        ] {
            assert_eq!(on_signal(text), Ok((number, want)), "{text}");
        }
        for (bad, why) in [
            ("HUP=status", "stop, kill, reload"),
            ("HUP=why 2", "only looks"),
            ("HUP=relaod", "did you mean reload?"),
            ("HUP=stop now", "stop does not take now"),
            ("HUP=reopen --no-wait", "does not take --no-wait"),
            ("HUP=restart", "which worker?"),
            ("HUP=restart 2", "restart all"),
            ("HUP=resize", "how many workers?"),
            ("HUP=resize 0", "1 to 1024"),
            ("HUP=signal", "which signal?"),
            ("HUP=signal USR1 nobody", "is no worker"),
            ("STOP=stop", "cannot be caught"),
        ] {
            let e = on_signal(bad).unwrap_err();
            assert!(e.contains(why), "{bad}: {e}");
        }
    }
}
