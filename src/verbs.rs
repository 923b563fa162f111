//! The table of verbs: what a running cluster can be asked. The command line, the control socket,
//! --help, the completions and the check of the manual page all read it.

/// One verb.
pub struct Verb {
    /// What is typed.
    pub name: &'static str,
    /// What may follow.
    pub words: &'static str,
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
    /// The story of the last deaths.
    Why,
    /// Graceful stop.
    Stop,
    /// Hard stop.
    Kill,
    /// Versions of client and master.
    Version,
    /// This table.
    Help,
}

/// All of them, in the order of help.
pub const VERBS: [Verb; 6] = [
    Verb {
        name: "status",
        words: "",
        help: "the cluster, its ports and its workers",
        what: What::Status,
    },
    Verb {
        name: "why",
        words: "[SLOT]",
        help: "the last deaths: reason, status, age, last stderr lines, what followed",
        what: What::Why,
    },
    Verb {
        name: "stop",
        words: "",
        help: "stop gracefully; returns when the master has gone (--no-wait: at once)",
        what: What::Stop,
    },
    Verb {
        name: "kill",
        words: "",
        help: "stop at once, by SIGKILL; the master exits 1",
        what: What::Kill,
    },
    Verb {
        name: "version",
        words: "",
        help: "version of the running master",
        what: What::Version,
    },
    Verb {
        name: "help",
        words: "[VERB]",
        help: "this list, or one line of it",
        what: What::Help,
    },
];

/// By name.
pub fn find(name: &str) -> Option<&'static Verb> {
    VERBS.iter().find(|v| v.name == name)
}

/// The list, or one line of it.
pub fn help(name: Option<&str>) -> Result<String, String> {
    let line = |v: &Verb| {
        let usage = format!("{} {}", v.name, v.words);
        format!("{usage:<18} {}\n", v.help)
    };
    match name {
        None => Ok(VERBS.iter().map(line).collect()),
        Some(n) => find(n).map(line).ok_or_else(|| unknown(n)),
    }
}

/// What to say of a word that is no verb.
pub fn unknown(word: &str) -> String {
    let names: Vec<&str> = VERBS.iter().map(|v| v.name).collect();
    let near = crate::settings::nearest(word, &names);
    match near {
        Some(n) => format!("unknown verb {word}; did you mean {n}?"),
        None => format!(
            "unknown verb {word}; there are: {} (a COMMAND follows --)",
            names.join(" ")
        ),
    }
}
