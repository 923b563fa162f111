//! What we say to whom types: --help, and what was probably meant.

use crate::options::{self, Opt, Scope, name_of};
use crate::settings;
use crate::verbs;

/// An option of ours, or nobody's, behind a verb.
pub(super) fn misplaced(word: &str, verb: &str) -> String {
    let flag = word.split('=').next().unwrap_or(word);
    let named = |o: &&Opt| flag == format!("--{}", o.long) || flag == format!("-{}", o.short);
    match options::all().find(named) {
        Some(o) if o.scope != Scope::Start => {
            let value = format!("{flag} {}", o.arg);
            let value = value.trim_end();
            format!("{flag} stands in front of the verb: minicluster {value} {verb}")
        }
        Some(_) | None => format!("{verb} does not take {word}"),
    }
}

pub(super) fn nothing_to_do() -> String {
    "no COMMAND and no verb: minicluster -n 4 -p 3000 -- ./server starts a cluster, minicluster status asks one; minicluster --help lists all".into()
}

/// Most likely the `--` was forgotten.
pub(super) fn stray_word(m: &getopts::Matches) -> String {
    let words: Vec<&str> = m.free.iter().map(String::as_str).collect();
    verbs::no_such(&words, starts(m))
}

/// Is an option given that belongs to starting a cluster?
fn starts(m: &getopts::Matches) -> bool {
    options::all().any(|o| o.scope == Scope::Start && m.opt_present(o.long))
}

/// May it be a verb that the cluster has, by --command?
pub(super) fn may_be_custom(word: &str, m: &getopts::Matches) -> bool {
    settings::is_verb_name(word) && verbs::but_for_capitals(word).is_none() && !starts(m)
}

pub(super) fn explain(fail: getopts::Fail) -> String {
    let names: Vec<&str> = options::all().map(|o| o.long).collect();
    match fail {
        getopts::Fail::UnrecognizedOption(o) => {
            let dashes = if o.chars().count() == 1 { "-" } else { "--" };
            match settings::nearest(&o, &names) {
                Some(n) if o.chars().count() > 1 => {
                    format!("unknown option {dashes}{o}; did you mean --{n}?")
                }
                _ => format!("unknown option {dashes}{o}; minicluster --help lists all"),
            }
        }
        getopts::Fail::ArgumentMissing(o) => {
            match options::all().find(|x| x.long == o || x.short == o) {
                Some(x) => format!("{} needs a value: {} ({})", name_of(x), x.arg, x.help),
                None => format!("{o} needs a value"),
            }
        }
        getopts::Fail::UnexpectedArgument(o) => format!("--{o} takes no value"),
        getopts::Fail::OptionMissing(o) | getopts::Fail::OptionDuplicated(o) => {
            format!("--{o} is wrong here")
        }
    }
}

fn help_line(o: &Opt) -> String {
    let short = match o.short {
        "" => "    ".to_string(),
        s => format!("-{s}, "),
    };
    let flag = format!("{short}--{} {}", o.long, o.arg);
    let default = match o.default {
        "" => String::new(),
        d => format!(" ({d})"),
    };
    format!("  {flag:<25} {}{default}\n", o.help)
}

/// --help
pub fn help() -> String {
    let mut text = String::from(
        "minicluster [OPTIONS] -- COMMAND [ARG...]    run N copies of a server program on one port\n\
         minicluster [-C SOCKET | --name NAME] VERB   speak to a running cluster\n",
    );
    for group in &options::GROUPS {
        text.push_str(&format!("\n{}:\n", group.title));
        for o in group.options {
            text.push_str(&help_line(o));
        }
    }
    text.push_str("\nVerbs:\n");
    for line in verbs::help(&verbs::named(None).unwrap_or_default()).lines() {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str(
        "\nDurations: 500us 500ms 10s 5m 1h 1d, a bare number is seconds. The manual: man minicluster\n",
    );
    text
}
