//! For fish.

use super::{WITH_VALUE, commanding, takes_file, valued, words};
use crate::options::{self, Completes, Opt};
use crate::verbs::{VERBS, Verb};

pub fn script() -> String {
    let commanding: Vec<&str> = commanding().map(|v| v.name).collect();
    let waiting = VERBS.iter().filter(|v| v.waits).map(|v| v.name);
    let waiting: Vec<&str> = waiting.collect();
    SCRIPT
        .replace("@OPTIONS", &options::all().map(option).collect::<String>())
        .replace("@VALUED", &valued().join(" "))
        .replace("@VERBS", &VERBS.iter().map(verb).collect::<String>())
        .replace("@COMMANDING", &commanding.join(" "))
        .replace("@WAITING", &waiting.join(" "))
        .replace("@WITHVALUE", &WITH_VALUE.join(" "))
}

fn quote(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

fn option(o: &Opt) -> String {
    let short = match o.short {
        "" => String::new(),
        s => format!(" -s {s}"),
    };
    let value = match o.completes {
        _ if o.arg.is_empty() => String::new(),
        Completes::Dir => " -x -a '(__fish_complete_directories)'".into(),
        Completes::File => " -r -F".into(),
        Completes::FileOr(v) => format!(" -r -F -a '{v}'"),
        Completes::Words(v) => format!(" -x -a '{v}'"),
        Completes::User => " -x -a '(__fish_complete_users)'".into(),
        Completes::Group => " -x -a '(__fish_complete_groups)'".into(),
        Completes::Name => " -x -a '(__minicluster_names)'".into(),
        Completes::Nothing => " -x".into(),
    };
    let (long, help) = (o.long, quote(o.help));
    format!(
        "complete -c minicluster -n '__minicluster_at \"\"'{short} -l {long}{value} -d '{help}'\n"
    )
}

fn verb(v: &Verb) -> String {
    let (name, help) = (v.name, quote(v.help));
    let itself =
        format!("complete -c minicluster -n '__minicluster_at \"\"' -a {name} -d '{help}'\n");
    let words = words(v).join(" ");
    let behind = match words.is_empty() {
        true => String::new(),
        false => format!("complete -c minicluster -n '__minicluster_at {name}' -a '{words}'\n"),
    };
    let files = match takes_file(v) {
        true => format!("complete -c minicluster -n '__minicluster_at {name}' -F\n"),
        false => String::new(),
    };
    itself + &behind + &files
}

const SCRIPT: &str = r#"# fish completion for minicluster
function __minicluster_names
    set -l dirs (string split -f 1 : -- "$RUNTIME_DIRECTORY")
    if not test -d "$dirs[1]"
        set dirs /run/minicluster
        set -q XDG_RUNTIME_DIR; and set -a dirs $XDG_RUNTIME_DIR/minicluster
        set -l tmp $TMPDIR /tmp
        set -a dirs $tmp[1]/minicluster-(id -u)
    end
    for dir in $dirs
        test -n "$dir"; or continue
        for lock in $dir/*.lock
            string replace -r '.*/(.*)\.lock$' '$1' -- $lock
        end
    end
end
# What stands behind our own options: the verb, or --, and all from there on; nothing yet.
function __minicluster_rest
    set -l words (commandline -opc)
    set -e words[1]
    while set -q words[1]
        if contains -- $words[1] @VALUED
            set -e words[1]
        else if test "$words[1]" = --; or not string match -q -- '-*' $words[1]
            printf '%s\n' $words
            return
        end
        set -e words[1]
    end
end
# Is it one of these?
function __minicluster_at
    set -l rest (__minicluster_rest)
    contains -- "$rest[1]" $argv
end
# What the COMMAND behind -- or a verb proposes itself.
function __minicluster_command
    set -l rest (__minicluster_rest)
    set -l current (commandline -ct)
    if test "$rest[1]" != --
        set -e rest[1]
        while set -q rest[1]
            if contains -- $rest[1] @WITHVALUE
                if not set -q rest[2]
                    test $rest[1] = cwd; and __fish_complete_directories $current
                    return
                end
                set -e rest[1]
            else if not string match -qr -- '^(all|[0-9]+|(slot|pid):.*|--json|--no-wait)$' $rest[1]
                break
            end
            set -e rest[1]
        end
    end
    if test "$rest[1]" = --
        set -e rest[1]
    else if test -z "$rest$current"
        __fish_complete_path
        return
    end
    complete -C (string join ' ' -- (string escape -- $rest) $current)
end
complete -c minicluster -f
@OPTIONS@VERBScomplete -c minicluster -n '__minicluster_at @COMMANDING --' -a '(__minicluster_command)'
complete -c minicluster -n 'not __minicluster_at "" --' -l json -d 'nothing but JSON'
complete -c minicluster -n '__minicluster_at @WAITING' -l no-wait -d 'do not wait for what comes of it'
"#;
