//! The table of verbs: what a running cluster can be asked. The command line, the control socket,
//! --help, the completions and the check of the manual page all read it.

mod checks;
mod orders;
mod table;

pub use table::VERBS;

use crate::settings::{self, Before, Commands, Order};
use orders::NoOrder;

type Check = fn(&[&str]) -> Result<(), String>;
type Ordered = fn(&[&str]) -> Result<Order, orders::NoOrder>;

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
    /// What may stand first behind it, as far as that is a list.
    pub proposes: &'static str,
    /// Does a COMMAND follow, and which of our words may stand before it?
    pub before: Option<Before>,
    /// Is its answer data, so that it is JSON for who asks over HTTP?
    pub data: bool,
    /// Is it for who types, or follows, alone?
    pub typed: bool,
    /// May an object of options stand at its end (`{"timeout":500}`)?
    pub objects: bool,
    check: Check,
    order: Ordered,
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
    /// All of it in a few numbers.
    Info,
    /// How many slots.
    Size,
    /// One field of each worker.
    Select(&'static str),
    /// Who has how many connections.
    Connections,
    /// What the workers are made of.
    Deps,
    /// What holds.
    Options,
    /// The line about the cluster.
    Cluster,
    /// Who sits at a console.
    Repl,
    /// Where we are spoken to.
    Sock,
    /// What happens.
    Events,
    /// What workers write.
    Logs,
    /// Something for the log and the consoles.
    Debug,
    /// An event of one's own.
    Emit,
    /// A connection that somebody types at.
    Console,
    /// In rotation again.
    Enable,
    /// Out of it.
    Disable,
    /// Whether the workers do.
    Health,
    /// Whether clients may be sent here.
    Ecv,
    /// Another number of slots.
    Resize,
    /// A new worker for one, or for all.
    Restart,
    /// New workers for all old ones.
    Reload,
    /// Another binary in our own place.
    Handover,
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
    /// A message to workers.
    Send,
    /// A message to all workers, and what they say to it.
    SyncSend,
    /// Graceful stop.
    Stop,
    /// Graceful stop of all, or of one slot.
    Shutdown,
    /// Hard stop.
    Kill,
    /// The same, but a good end.
    Exit,
    /// A script that looks whether all is well.
    Test,
    /// Reopen the log files.
    Reopen,
    /// Versions of client and master.
    Version,
    /// This table.
    Help,
}

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
        if let Some(before) = self.before {
            return settings::launch(rest, before).map(drop);
        }
        let flag = |w: &&&str| **w == NO_WAIT;
        let stray = match rest.iter().find(flag) {
            Some(w) if !self.waits => Some(w),
            Some(_) | None => rest.iter().filter(|w| !flag(w)).nth(self.takes),
        };
        if let Some(word) = stray {
            return Err(format!("{} does not take {word}", self.name));
        }
        let words: Vec<&str> = rest.iter().copied().filter(|w| *w != NO_WAIT).collect();
        (self.check)(&words)
    }

    /// May this word, which looks like an option, be one of its own?
    pub fn takes_number(&self, word: &str) -> bool {
        let number = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
        let may = matches!(self.what, What::Resize | What::Send | What::SyncSend);
        may && word.strip_prefix('-').is_some_and(number)
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
    match (verb.order)(&rest) {
        Ok(order) => Ok((number, order)),
        Err(NoOrder::Words(why)) => Err(why),
        Err(NoOrder::Answers) => Err(format!(
            "{name} has an answer that somebody should read: it takes a client"
        )),
        Err(NoOrder::Looks) => {
            let all = VERBS.iter().map(|v| (v.name, v.words, v.order));
            let can = orders::possible(all);
            Err(format!(
                "{name} only looks, and nobody would see it: a signal can ask for {can}, or for nothing"
            ))
        }
    }
}

/// All of them, or the one of that name.
pub fn named(name: Option<&str>) -> Result<Vec<Shown>, String> {
    match name {
        None => Ok(VERBS.iter().map(Shown::from).collect()),
        Some(n) => find(n).map(|v| vec![v.into()]).ok_or_else(|| unknown(n)),
    }
}

/// A line for each.
pub fn help(verbs: &[Shown]) -> String {
    let line = |v: &Shown| {
        let usage = format!("{} {}", v.name, v.words);
        format!("{usage:<25} {}\n", v.help)
    };
    verbs.iter().map(line).collect()
}

/// A verb as help shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What is typed.
    pub name: String,
    /// What may follow.
    pub words: String,
    /// One line.
    pub help: String,
    /// What it runs, if --command has made it.
    pub runs: Option<Vec<String>>,
}

impl From<&Verb> for Shown {
    fn from(v: &Verb) -> Shown {
        Shown {
            name: v.name.into(),
            words: v.words.into(),
            help: v.help.into(),
            runs: None,
        }
    }
}

/// All of them, with what --command has made of them: ours that run something else, or are taken away,
/// and others behind ours.
pub fn shown(commands: &Commands) -> Vec<Shown> {
    let made = |name: &str, program: &[String]| Shown {
        name: name.into(),
        words: "[ARG..] [JSON] [timeout T]".into(),
        help: format!("runs {}", program.join(" ")),
        runs: Some(program.to_vec()),
    };
    let ours = VERBS.iter().filter_map(|v| match commands.get(v.name) {
        None => Some(v.into()),
        Some(program) if program.is_empty() => None,
        Some(program) => Some(made(v.name, program)),
    });
    let others = commands.iter().filter(|(name, program)| {
        let known = find(name).is_some();
        !known && !program.is_empty()
    });
    ours.chain(others.map(|(name, program)| made(name, program)))
        .collect()
}

/// What to say of words that begin with no verb: perhaps they are a COMMAND, and only its `--` is missing.
pub fn no_such(words: &[&str], like_a_command: bool) -> String {
    let word = words.first().copied().unwrap_or_default();
    match like_a_command || word.contains('/') || words.len() > 1 {
        false => unknown(word),
        true => format!(
            "unknown verb {word}; did you mean: minicluster ... -- {}",
            words.join(" ")
        ),
    }
}

/// The one of ours that it is but for capitals, and so is meant.
pub fn but_for_capitals(word: &str) -> Option<&'static str> {
    let mut names = VERBS.iter().map(|v| v.name);
    names.find(|n| *n != word && n.eq_ignore_ascii_case(word))
}

/// Is it one of ours, but for a mistake?
pub fn is_near(words: &[String]) -> bool {
    let names: Vec<&str> = VERBS.iter().map(|v| v.name).collect();
    words.len() == 1 && words.iter().any(|w| settings::nearest(w, &names).is_some())
}

/// What to say of a word that is no verb.
pub fn unknown(word: &str) -> String {
    let names: Vec<String> = VERBS.iter().map(|v| v.name.into()).collect();
    unknown_among(word, &names)
}

/// The same, where there are these.
pub fn unknown_among(word: &str, names: &[String]) -> String {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let first = word.split_whitespace().next();
    if let Some(first) = first.filter(|f| *f != word && names.contains(f)) {
        return format!("'{word}' is one word, and no verb; {first} is one: leave the quotes out");
    }
    match settings::nearest(word, &names) {
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
            ("USR1=disable", 10, Order::Rotate(false)),
            ("USR2=enable", 12, Order::Rotate(true)),
            ("USR1=reload", 10, Order::Reload),
            ("USR1=restart all", 10, Order::Reload),
            ("USR1=restart", 10, Order::Reload),
            ("USR2=handover", 12, Order::Handover),
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
            ("HUP=status", "resize N|+K|-K, reload, handover, restart"),
            ("HUP=handover /usr/bin/new", "for a client to name"),
            ("HUP=why 2", "only looks"),
            ("HUP=ecv", "only looks"),
            ("HUP=shutdown 2", "shutdown all, which is stop"),
            ("HUP=exit", "'now' is required"),
            ("HUP=disable a new disk", "takes no reason"),
            ("HUP=relaod", "did you mean reload?"),
            ("HUP=stop now", "stop does not take now"),
            ("HUP=reopen --no-wait", "does not take --no-wait"),
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
