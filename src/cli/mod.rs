//! The command line, understood by the table in `options`.

mod fits;
mod verb;
mod words;

pub use words::help;

use crate::core::codes::{EX_CONFIG, EX_USAGE};
use crate::options::merge::{self, Both, Fault, Read};
use crate::options::{self, Opt};
use crate::settings::{Control, Said, Settings};
use crate::units::Kind;
use crate::verbs;
use std::ffi::OsString;
use words::{explain, may_be_custom, nothing_to_do, stray_word};

/// What was asked for.
#[derive(Debug)]
pub enum Invocation {
    /// Run a cluster.
    Start(Box<Settings>),
    /// Print the file of that kind that would.
    PrintUnit(Kind, Box<Settings>),
    /// Say what that would come to.
    Check(Box<Settings>),
    /// Speak to a running one.
    Control(Box<Settings>, Vec<String>),
    /// Print this and leave.
    Print(String),
}

/// Our version, one line.
pub fn version() -> String {
    format!("minicluster {}\n", env!("CARGO_PKG_VERSION"))
}

/// Why nothing is done.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// EX_USAGE for what was typed, EX_CONFIG for what is in the file of --config.
    pub code: u8,
    /// A whole sentence.
    pub message: String,
}

impl From<String> for Wrong {
    fn from(message: String) -> Wrong {
        let code = EX_USAGE;
        Wrong { code, message }
    }
}

fn in_file(message: String) -> Wrong {
    let code = EX_CONFIG;
    Wrong { code, message }
}

/// Understands the command line, without our own name, and the file that it names.
pub fn parse(args: &[OsString], read: Read<'_>) -> Result<Invocation, Wrong> {
    let mut parser = getopts::Options::new();
    parser.parsing_style(getopts::ParsingStyle::StopAtFirstFree);
    for o in options::all() {
        let has = match o.arg {
            "" => getopts::HasArg::No,
            _ => getopts::HasArg::Yes,
        };
        let occur = getopts::Occur::Multi;
        parser.opt(o.short, o.long, o.help, o.arg, has, occur);
    }
    // The words of COMMAND may be any bytes; options and verbs are text.
    let split = args.iter().position(|a| a == "--");
    let ours: Vec<OsString> = args
        .iter()
        .take(split.unwrap_or(args.len()))
        .cloned()
        .collect();
    let text: Vec<String> = ours
        .into_iter()
        .map(|w| w.into_string())
        .collect::<Result<_, _>>()
        .map_err(|w| format!("{} is not UTF-8", w.to_string_lossy()))?;
    let m = parser.parse(&text).map_err(explain)?;
    if m.opt_present("help") {
        return Ok(Invocation::Print(help()));
    }
    if m.opt_present("version") {
        return Ok(Invocation::Print(version()));
    }
    if let Some(shell) = m.opt_str("completions") {
        return Ok(crate::completions::script(&shell).map(Invocation::Print)?);
    }
    let start = match (split, m.free.first()) {
        (Some(_), None) => true,
        (_, Some(word)) if verbs::find(word).is_none() && !may_be_custom(word, &m) => {
            return Err(stray_word(&m).into());
        }
        (_, Some(_)) => false,
        (None, None) => return Err(nothing_to_do().into()),
    };
    fits::scopes(&m, start)?;
    fits::rivals(&m, start)?;
    let (s, wrong) = settings(&m, start, read)?;
    if start {
        let command = split.map(|at| behind(args, at)).unwrap_or_default();
        return started(&m, s, command);
    }
    let command = verb::command(&m.free, split.map(|at| behind(args, at)))?;
    which(&m, &s, wrong)?;
    Ok(verb::asked(s, m.free, command)?)
}

/// From there on nothing is ours.
fn behind(args: &[OsString], at: usize) -> Vec<OsString> {
    args.iter().skip(at + 1).cloned().collect()
}

/// A start, or what is to be told of it.
fn started(
    m: &getopts::Matches,
    mut s: Settings,
    command: Vec<OsString>,
) -> Result<Invocation, Wrong> {
    if s.single {
        fits::single(m, &s)?;
    }
    s.command = command;
    if s.command.is_empty() {
        let why = "nothing follows --: minicluster [OPTIONS] -- COMMAND [ARG...]";
        return Err(why.to_string().into());
    }
    let printed = m.opt_str("print-unit").map(|kind| Kind::named(&kind));
    let printed = printed.transpose()?;
    // It is left out there, and so it is in nobody's way.
    s.daemon &= printed.is_none_or(Kind::daemonizes);
    s.check()?;
    let s = Box::new(s);
    Ok(match (m.opt_present("check"), printed) {
        (true, Some(_)) => {
            let why = "--check and --print-unit: one thing at a time";
            return Err(why.to_string().into());
        }
        (true, None) => Invocation::Check(s),
        (false, Some(kind)) => Invocation::PrintUnit(kind, s),
        (false, None) => Invocation::Start(s),
    })
}

/// A file that does not say which cluster is meant must not mean whichever runs.
fn which(m: &getopts::Matches, s: &Settings, wrong: Option<String>) -> Result<(), Wrong> {
    let says = s.name.is_some() || s.pid_file.is_some() || s.control != Control::Named;
    if says || !m.opt_present("config") {
        return Ok(());
    }
    let file = m.opt_str("config").unwrap_or_default();
    let none = || {
        format!(
            "--config {file} does not say which cluster is meant: it has no name, pid-file or control"
        )
    };
    Err(in_file(wrong.unwrap_or_else(none)))
}

/// What was typed, on top of what the file says; for a verb, and what is wrong with the file.
fn settings(
    m: &getopts::Matches,
    start: bool,
    read: Read<'_>,
) -> Result<(Settings, Option<String>), Wrong> {
    let file = m.opt_str("config").unwrap_or_default();
    let (entries, wrong) = match m.opt_present("config") {
        true if start => (merge::read_file(&file, read).map_err(in_file)?, None),
        true => merge::read_some(&file, read),
        false => (Vec::new(), None),
    };
    let both = Both {
        typed: &typed(m),
        file: &file,
        entries: &entries,
        start,
    };
    let settings = both.settings().map_err(|fault| match fault {
        Fault::Typed(message) => message.into(),
        Fault::Filed(message) => in_file(message),
    })?;
    Ok((settings, wrong))
}

fn typed(m: &getopts::Matches) -> Vec<Said> {
    let values = |o: &Opt| match o.arg {
        // To say it twice is to say it.
        "" if m.opt_present(o.long) => vec![String::new()],
        _ => m.opt_strs(o.long),
    };
    options::all()
        .flat_map(|o| values(o).into_iter().map(|v| (o.long, v)))
        .collect()
}

#[cfg(test)]
mod tests;
