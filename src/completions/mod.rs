//! Shell completions, made from the tables of options and verbs. What a shell needs to know beside them
//! (which words take another one, how a COMMAND is found) is the same in all three scripts.

mod bash;
mod fish;
mod zsh;

use crate::options::{self, Opt};
use crate::verbs::{NO_WAIT, VERBS, Verb};

/// The script for that shell.
pub fn script(shell: &str) -> Result<String, String> {
    match shell {
        "bash" => Ok(bash::script()),
        "zsh" => Ok(zsh::script()),
        "fish" => Ok(fish::script()),
        _ => Err(format!(
            "--completions: '{shell}' is none of bash, zsh, fish"
        )),
    }
}

/// What may follow a verb, but for numbers and what the operator makes up.
fn words(v: &Verb) -> Vec<&'static str> {
    let mut all: Vec<&str> = v.proposes.split_whitespace().collect();
    if v.name == "help" {
        all.extend(VERBS.iter().map(|v| v.name));
    }
    // Those of the help that are to be typed as they stand there: `[all|SLOT] [timeout T]`.
    let typed = |w: &&str| w.len() > 1 && w.bytes().all(|b| b.is_ascii_lowercase());
    for word in v.words.split([' ', '|', '[', ']', '.']).filter(typed) {
        if !all.contains(&word) {
            all.push(word);
        }
    }
    all
}

/// What may follow it that looks like an option.
fn flags(v: &Verb) -> &'static [&'static str] {
    match v.waits {
        true => &["--json", NO_WAIT],
        false => &["--json"],
    }
}

/// Is the path of a file one of its words?
fn takes_file(v: &Verb) -> bool {
    v.words.contains("[BINARY]")
}

/// The verbs that a COMMAND follows.
fn commanding() -> impl Iterator<Item = &'static Verb> {
    VERBS.iter().filter(|v| v.before.is_some())
}

/// The words behind a verb that take the next word, as far as a COMMAND may follow.
const WITH_VALUE: [&str; 5] = ["count", "cwd", "option", "timeout", "watch"];

/// How an option is spelt: `-n`, `--workers`.
fn spelt(o: &Opt) -> impl Iterator<Item = String> {
    let short = Some(o.short).filter(|s| !s.is_empty());
    let short = short.map(|s| format!("-{s}"));
    short.into_iter().chain([format!("--{}", o.long)])
}

/// All that take a value.
fn valued() -> Vec<String> {
    let valued = options::all().filter(|o| !o.arg.is_empty());
    valued.flat_map(spelt).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_and_verb_is_completed_everywhere() {
        for shell in ["bash", "zsh", "fish"] {
            let text = script(shell).unwrap();
            for o in options::all() {
                assert!(text.contains(o.long), "{shell} --{}", o.long);
            }
            for v in &VERBS {
                assert!(text.contains(v.name), "{shell} {}", v.name);
                assert!(text.contains(v.proposes), "{shell} {}", v.name);
            }
            let mut places = text.split('@').skip(1);
            let filled = places.all(|t| !t.starts_with(|c: char| c.is_ascii_uppercase()));
            assert!(filled, "{shell}: a place was not filled");
        }
    }

    #[test]
    fn the_words_of_a_verb_are_those_of_its_help() {
        let of = |name: &str| words(VERBS.iter().find(|v| v.name == name).unwrap());
        assert_eq!(of("restart"), ["all", "timeout"]);
        assert_eq!(of("exit"), ["now"]);
        assert_eq!(of("upgrade"), ["all", "cwd", "watch", "timeout"]);
        assert_eq!(of("size"), [""; 0]);
        for v in commanding() {
            let known = |w: &&str| *w == "all" || WITH_VALUE.contains(w);
            assert!(words(v).iter().all(known), "{}: {:?}", v.name, words(v));
        }
    }
}
