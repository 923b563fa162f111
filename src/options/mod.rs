//! ONE table of options: it feeds the parser, --help, the completions and the check of the manual page.

use crate::settings::Settings;

/// Keeps a parsed value.
macro_rules! keep {
    ($field:ident, $parse:expr) => {
        |s, v| {
            s.$field = $parse(v)?;
            Ok(())
        }
    };
}

pub mod config;
pub mod effective;
pub mod merge;
pub mod reread;

mod lifecycle;
mod log;
mod monitor;
mod other;
mod place;
mod programs;
mod sockets;
mod worker;

/// All of them, in groups, in the order of --help.
pub static GROUPS: [Group; 8] = [
    Group {
        title: "How many, and where",
        options: sockets::HOW_MANY,
    },
    Group {
        title: "Ready, replaced, stopped",
        options: lifecycle::LIFECYCLE,
    },
    Group {
        title: "What a worker gets",
        options: worker::WORKER,
    },
    Group {
        title: "Names and files",
        options: place::PLACE,
    },
    Group {
        title: "Over HTTP",
        options: monitor::MONITOR,
    },
    Group {
        title: "The log",
        options: log::LOG,
    },
    Group {
        title: "Programs of yours",
        options: programs::PROGRAMS,
    },
    Group {
        title: "Others",
        options: other::OTHER,
    },
];

/// Options that belong together.
pub struct Group {
    /// What they are about.
    pub title: &'static str,
    /// Themselves.
    pub options: &'static [Opt],
}

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Opt> {
    GROUPS.iter().flat_map(|g| g.options)
}

/// For whom an option is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Who starts a cluster.
    Start,
    /// Who speaks to one.
    Client,
    /// Both.
    Both,
}

/// What a shell can propose as a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completes {
    /// Nothing.
    Nothing,
    /// These words.
    Words(&'static str),
    /// A directory.
    Dir,
    /// A file.
    File,
    /// A file, or these words.
    FileOr(&'static str),
    /// The name of a cluster that runs.
    Name,
    /// A user of this machine.
    User,
    /// A group of this machine.
    Group,
}

/// What options exclude each other about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rivals {
    /// Nothing.
    None,
    /// How loud the log is.
    Loudness,
    /// Which running cluster a verb is for.
    Which,
}

type Apply = fn(&mut Settings, &str) -> Result<(), String>;

/// One option.
pub struct Opt {
    /// One letter, or none.
    pub short: &'static str,
    /// The long name.
    pub long: &'static str,
    /// What its value is called; empty: it has none.
    pub arg: &'static str,
    /// Its default, as the manual says it.
    pub default: &'static str,
    /// One line.
    pub help: &'static str,
    /// May it be repeated?
    pub many: bool,
    /// Is each value about a key of its own, so that those of --config and those typed go together?
    /// Else what is typed replaces what is in the file.
    pub keyed: bool,
    /// Options with the same word here exclude each other; what is typed replaces any of them in the
    /// file.
    pub rivals: Rivals,
    /// For whom.
    pub scope: Scope,
    /// Does it mean something without a master (--single)?
    pub alone: bool,
    /// Is it of the master itself, so that it takes a restart of that to change it? Else a reload
    /// takes what --config says of it by then.
    pub lasting: bool,
    /// Is what stands behind the = of its values nobody's business?
    pub secret: bool,
    /// Its values, for completions.
    pub completes: Completes,
    /// Parses the value and keeps it.
    pub apply: Apply,
}

const fn opt(
    short: &'static str,
    long: &'static str,
    arg: &'static str,
    default: &'static str,
    help: &'static str,
    apply: Apply,
) -> Opt {
    Opt {
        short,
        long,
        arg,
        default,
        help,
        many: false,
        keyed: false,
        rivals: Rivals::None,
        scope: Scope::Start,
        alone: false,
        lasting: false,
        secret: false,
        completes: Completes::Nothing,
        apply,
    }
}

impl Opt {
    const fn many(mut self) -> Opt {
        self.many = true;
        self
    }

    const fn alone(mut self) -> Opt {
        self.alone = true;
        self
    }

    const fn lasting(mut self) -> Opt {
        self.lasting = true;
        self
    }

    const fn secret(mut self) -> Opt {
        self.secret = true;
        self
    }

    const fn keyed(mut self) -> Opt {
        self.many = true;
        self.keyed = true;
        self
    }

    const fn rivals(mut self, about: Rivals) -> Opt {
        self.rivals = about;
        self
    }

    const fn client(mut self) -> Opt {
        self.scope = Scope::Client;
        self
    }

    const fn both(mut self) -> Opt {
        self.scope = Scope::Both;
        self
    }

    const fn completes(mut self, what: Completes) -> Opt {
        self.completes = what;
        self
    }
}

/// `-n, --workers`, as messages name it.
pub fn name_of(o: &Opt) -> String {
    match o.short {
        "" => format!("--{}", o.long),
        short => format!("-{short}, --{}", o.long),
    }
}
