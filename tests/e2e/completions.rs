//! Completions in the shells themselves: what is proposed behind a line that an operator has typed so far.

use crate::place::{BINARY, Place, SERVERS};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

/// A line, what has to be proposed, and what must not be.
type Case = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
);

/// What all three shells do.
const CASES: [Case; 33] = [
    // Options, and verbs.
    (
        "st",
        &["status", "states", "start", "stop"],
        &["size", "--stop-signal"],
    ),
    ("--log-fo", &["--log-format"], &["--log-file"]),
    ("--", &["--workers", "--name", "--version"], &["status"]),
    ("-p 80 -n 2 re", &["reload", "resize", "restart"], &["stop"]),
    ("--nonsense rel", &["reload"], &[]),
    // Values, in the next word or behind `=`.
    ("--takeover re", &["require"], &["reload", "auto"]),
    ("--takeover=re", &["=require"], &["reload"]),
    ("--ready s", &["started"], &["status"]),
    ("--host :", &["::", "::1"], &["0.0.0.0"]),
    ("--host=:", &["=::", "=::1"], &[]),
    (
        "-l tcp://",
        &["tcp://127.0.0.1:", "tcp://[::]:"],
        &["unix:/"],
    ),
    ("--user roo", &["root"], &[]),
    ("--port ", &[], &["status", "shop", "a-file"]),
    // Files and directories.
    ("--config a", &["a-file"], &["auto"]),
    ("--cwd sub", &["sub-dir"], &["a-file"]),
    ("--log-file s", &["syslog", "sub-dir"], &["status"]),
    // Clusters that run; and one that is called like a verb is none.
    ("--name ", &["shop", "web-80"], &["status", "a-file"]),
    ("--name=w", &["=web-80"], &["shop"]),
    ("--name status sto", &["stop"], &[]),
    // What stands behind a verb.
    ("signal T", &["TERM"], &["HUP", "test"]),
    ("restart ", &["all", "timeout"], &["status"]),
    ("help sta", &["status", "states", "start"], &["size"]),
    ("logs ", &["lines", "follow"], &["shop"]),
    ("stop --", &["--json", "--no-wait"], &["--workers"]),
    ("status --", &["--json"], &["--no-wait", "--workers"]),
    ("handover a", &["a-file"], &["all"]),
    ("handover t", &["timeout"], &["a-file"]),
    ("nonsense s", &[], &["status", "stop"]),
    // A COMMAND completes itself.
    (
        "upgrade ",
        &["all", "cwd", "watch", "timeout", "a-file"],
        &["status"],
    ),
    ("upgrade all cwd sub", &["sub-dir"], &["a-file"]),
    ("upgrade all cwd . ./a", &["a-file"], &["all"]),
    ("-n 2 -- ./a", &["a-file"], &["auto"]),
    ("-n 2 -- cat a-", &["a-file"], &["status"]),
];

/// In that shell, by that program, which has lines to read and answers each with the line, a tab, and
/// what is proposed.
fn completes(shell: &str, program: impl Fn(&Place) -> Vec<String>) {
    let place = Place::new();
    let script = place
        .command()
        .args(["--completions", shell])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(
        script.status.success() && script.stderr.is_empty(),
        "{script:?}"
    );
    fs::write(place.dir.join("script"), script.stdout).unwrap();
    let here = place.dir.join("here");
    for dir in [&here, &here.join("sub-dir"), &place.dir.join("run")] {
        fs::create_dir_all(dir).unwrap();
    }
    for file in ["here/a-file", "run/shop.lock", "run/web-80.lock"] {
        fs::write(place.dir.join(file), "").unwrap();
    }
    fs::set_permissions(
        here.join("a-file"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let words = program(&place);
    let mut cmd: Command = place.command_by(&words);
    let mut child = cmd
        .current_dir(&here)
        .env("HOME", &here)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: String = CASES
        .iter()
        .map(|c| format!("minicluster {}\n", c.0))
        .collect();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    let said = child.wait_with_output().unwrap();
    let complaints = String::from_utf8_lossy(&said.stderr);
    assert!(
        said.status.success() && complaints.is_empty(),
        "{shell}: {complaints}"
    );
    let text = String::from_utf8_lossy(&said.stdout);
    let answers: BTreeMap<&str, Vec<&str>> = text
        .lines()
        .filter_map(|l| l.split_once('\t'))
        .map(|(line, all)| (line, all.split(' ').collect()))
        .collect();
    for (line, wanted, others) in CASES {
        let all = answers.get(format!("minicluster {line}").as_str());
        let all = all.unwrap_or_else(|| panic!("{shell}: no answer to '{line}': {text}"));
        // One shell proposes the word whole, another what comes behind `=`, a third without ./ before it.
        let has = |word: &str| {
            let (behind, full) = (word.trim_start_matches('='), word.starts_with('='));
            let is = |p: &&str| {
                // One of them quotes what it would insert.
                let p = p.replace('\\', "");
                let p = p.trim_end_matches('/').trim_start_matches("./");
                p == behind || full && p.ends_with(word)
            };
            all.iter().any(is)
        };
        for word in wanted {
            assert!(
                has(word),
                "{shell}: '{line}' does not propose {word}: {all:?}"
            );
        }
        for word in others {
            assert!(!has(word), "{shell}: '{line}' proposes {word}: {all:?}");
        }
    }
}

/// Bash calls the function with the line split as readline does it; what readline has already it takes
/// away from what is proposed, so that is put before it here.
const BASH: &str = r#"
[ -z "$2" ] || source "$2"
source "$1"
compopt() { :; }
while IFS= read -r line; do
    COMP_LINE=$line COMP_POINT=${#line} COMP_TYPE=9 COMP_KEY=9
    COMP_WORDS=() COMPREPLY=()
    rest=$line piece=
    while [ -n "$rest" ]; do
        c=${rest:0:1} rest=${rest:1}
        case $c in
        ' ') [ -z "$piece" ] || COMP_WORDS+=("$piece"); piece= ;;
        [=:])
            [[ -z $piece || $piece == *[=:] ]] || { COMP_WORDS+=("$piece"); piece=; }
            piece+=$c ;;
        *)
            [[ $piece != *[=:] ]] || { COMP_WORDS+=("$piece"); piece=; }
            piece+=$c ;;
        esac
    done
    COMP_WORDS+=("$piece") COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _minicluster minicluster "$piece" "${COMP_WORDS[COMP_CWORD - 1]}"
    word=${line##* } had=
    [[ $word != *[=:]* ]] || had=${word%"${word##*[=:]}"}
    [[ ${#COMPREPLY[@]} == 0 ]] || COMPREPLY=("${COMPREPLY[@]/#/$had}")
    printf '%s\t%s\n' "$line" "${COMPREPLY[*]}"
done
"#;

fn bash(place: &Place, library: &str) -> Vec<String> {
    let script = place.dir.join("script");
    let words = [
        "bash",
        "--norc",
        "-c",
        BASH,
        "bash",
        script.to_str().unwrap(),
        library,
    ];
    words.map(String::from).to_vec()
}

#[test]
fn bash_proposes_options_values_verbs_clusters_and_files() {
    // With the library that loads completions in most places, and without it.
    for library in ["/usr/share/bash-completion/bash_completion", ""] {
        completes("bash", |place| bash(place, library));
    }
}

#[test]
fn zsh_proposes_options_values_verbs_clusters_and_files() {
    completes("zsh", |place| {
        let own = place.dir.join("zsh");
        fs::create_dir(&own).unwrap();
        let (harness, script) = (format!("{SERVERS}/complete.zsh"), place.dir.join("script"));
        let (script, own) = (script.to_str().unwrap(), own.to_str().unwrap());
        ["zsh", "-f", &harness, script, own]
            .map(String::from)
            .to_vec()
    });
}

#[test]
fn fish_proposes_options_values_verbs_clusters_and_files() {
    let ask = "source $argv[1]; while read -l line; set -l all (complete -C $line | \
               string replace -r '\\t.*' ''); printf '%s\\t%s\\n' $line \"$all\"; end";
    completes("fish", |place| {
        let script = place.dir.join("script");
        ["fish", "--private", "-c", ask, script.to_str().unwrap()]
            .map(String::from)
            .to_vec()
    });
}

#[test]
fn a_shell_that_is_unknown_is_a_usage_error() {
    let said = Command::new(BINARY)
        .args(["--completions", "csh"])
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&said.stderr).contains("none of bash, zsh, fish"));
}
