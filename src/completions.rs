//! Shell completions, made from the tables of options and verbs.

use crate::options::{self, Completes};
use crate::verbs::{VERBS, Verb};

/// The script for that shell.
pub fn script(shell: &str) -> Result<String, String> {
    match shell {
        "bash" => Ok(bash()),
        "zsh" => Ok(zsh()),
        "fish" => Ok(fish()),
        _ => Err(format!(
            "--completions: '{shell}' is none of bash, zsh, fish"
        )),
    }
}

fn bash() -> String {
    let mut flags = Vec::new();
    let mut cases = String::new();
    for o in options::all() {
        flags.push(format!("--{}", o.long));
        let mut names = format!("--{}", o.long);
        if !o.short.is_empty() {
            flags.push(format!("-{}", o.short));
            names = format!("-{}|{names}", o.short);
        }
        if o.arg.is_empty() {
            continue;
        }
        let complete = match o.completes {
            Completes::Nothing => "compgen -W '' -- \"$cur\"".to_string(),
            Completes::Words(v) => format!("compgen -W '{v}' -- \"$cur\""),
            Completes::Dir => "compgen -d -- \"$cur\"".to_string(),
            Completes::File => "compgen -f -- \"$cur\"".to_string(),
            Completes::FileOr(v) => format!("compgen -f -W '{v}' -- \"$cur\""),
            Completes::Name => "compgen -W \"$(_minicluster_names)\" -- \"$cur\"".to_string(),
            Completes::User => "compgen -u -- \"$cur\"".to_string(),
            Completes::Group => "compgen -g -- \"$cur\"".to_string(),
        };
        cases.push_str(&format!(
            "        {names}) mapfile -t COMPREPLY < <({complete}); return ;;\n"
        ));
    }
    let verbs: Vec<&str> = VERBS.iter().map(|v| v.name).collect();
    let words: String = VERBS.iter().map(bash_words).collect();
    BASH.replace("@CASES", &cases)
        .replace("@FLAGS", &flags.join(" "))
        .replace("@ANY", &verbs.join("|"))
        .replace("@VERBS", &verbs.join(" "))
        .replace("@WORDS", &words)
}

/// What may follow a verb.
fn bash_words(v: &Verb) -> String {
    let own = match v.name {
        "help" => VERBS.each_ref().map(|v| v.name).join(" "),
        _ => v.proposes.to_string(),
    };
    let no_wait = if v.waits { " --no-wait" } else { "" };
    let all = format!("{own} --json{no_wait}");
    format!(
        "    {}) mapfile -t COMPREPLY < <(compgen -W '{}' -- \"$cur\") ;;\n",
        v.name,
        all.trim_start()
    )
}

/// A word may be split at its `=`. Names are those of the locks in the runtime directories.
const BASH: &str = r#"# bash completion for minicluster
_minicluster_names() {
    local dir lock
    for dir in "${RUNTIME_DIRECTORY%%:*}" /run/minicluster \
        "${XDG_RUNTIME_DIR:+$XDG_RUNTIME_DIR/minicluster}" "${TMPDIR:-/tmp}/minicluster-$UID"; do
        [[ -n $dir ]] || continue
        for lock in "$dir"/*.lock; do
            [[ -e $lock ]] && lock=${lock##*/} && echo "${lock%.lock}"
        done
    done
}
_minicluster() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} i verb=
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --)
            if declare -F _command_offset >/dev/null; then
                _command_offset $((i + 1))
            elif ((COMP_CWORD == i + 1)); then
                mapfile -t COMPREPLY < <(compgen -c -f -- "$cur")
            else
                mapfile -t COMPREPLY < <(compgen -f -- "$cur")
            fi
            return
            ;;
        @ANY) verb=${COMP_WORDS[i]} ;;
        esac
    done
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${COMP_WORDS[COMP_CWORD-2]}
    fi
    case $prev in
@CASES    esac
    case $verb in
    '') mapfile -t COMPREPLY < <(compgen -W '@FLAGS @VERBS --' -- "$cur") ;;
@WORDS    esac
}
complete -F _minicluster minicluster
"#;

fn zsh() -> String {
    let quote = |t: &str| {
        t.replace('\'', "'\\''")
            .replace('[', "\\[")
            .replace(']', "\\]")
            .replace(':', "\\:")
    };
    let mut lines = String::new();
    for o in options::all() {
        let star = if o.many { "*" } else { "" };
        let a = quote(o.arg);
        let value = match o.completes {
            _ if a.is_empty() => String::new(),
            Completes::Dir => format!(":{a}:_directories"),
            Completes::File | Completes::FileOr(_) => format!(":{a}:_files"),
            Completes::Words(v) => format!(":{a}:({})", v.replace(':', "\\:")),
            Completes::User => format!(":{a}:_users"),
            Completes::Group => format!(":{a}:_groups"),
            Completes::Nothing | Completes::Name => format!(":{a}:()"),
        };
        let help = quote(o.help);
        lines.push_str(&format!("    '{star}--{}[{help}]{value}' \\\n", o.long));
        if !o.short.is_empty() {
            lines.push_str(&format!("    '{star}-{}[{help}]{value}' \\\n", o.short));
        }
    }
    let verbs: Vec<String> = VERBS
        .iter()
        .map(|v| format!("'{}:{}'", v.name, quote(v.help)))
        .collect();
    let with_words = || VERBS.iter().filter(|v| !v.proposes.is_empty());
    let names: Vec<&str> = with_words().map(|v| v.name).collect();
    let words: String = with_words()
        .map(|v| format!("  {}) compadd -- {} ;;\n", v.name, v.proposes))
        .collect();
    format!(
        "#compdef minicluster\n\
         _minicluster_words() {{\n  case ${{words[(r)({})]}} in\n{words}  esac\n}}\n\
         _minicluster_verbs() {{\n  local -a verbs=({})\n  _describe verb verbs\n}}\n\
         _minicluster() {{\n  local i=${{words[(i)--]}}\n  \
         if (( i < CURRENT )); then\n    shift i words; (( CURRENT -= i )); _normal; return\n  fi\n  \
         _arguments -S \\\n{lines}    '1:verb:_minicluster_verbs' '2::word:_minicluster_words'\n}}\n\
         _minicluster \"$@\"\n",
        names.join("|"),
        verbs.join(" ")
    )
}

fn fish() -> String {
    let quote = |t: &str| t.replace('\\', "\\\\").replace('\'', "\\'");
    let mut text = String::from("# fish completion for minicluster\ncomplete -c minicluster -f\n");
    for o in options::all() {
        let short = match o.short {
            "" => String::new(),
            s => format!(" -s {s}"),
        };
        let value = match o.completes {
            _ if o.arg.is_empty() => String::new(),
            Completes::Dir => " -x -a '(__fish_complete_directories)'".into(),
            Completes::File | Completes::FileOr(_) => " -r -F".into(),
            Completes::Words(v) => format!(" -x -a '{v}'"),
            Completes::User => " -x -a '(__fish_complete_users)'".into(),
            Completes::Group => " -x -a '(__fish_complete_groups)'".into(),
            Completes::Nothing | Completes::Name => " -x -a ''".into(),
        };
        text.push_str(&format!(
            "complete -c minicluster{short} -l {}{value} -d '{}'\n",
            o.long,
            quote(o.help)
        ));
    }
    for v in &VERBS {
        text.push_str(&format!(
            "complete -c minicluster -n __fish_use_subcommand -a {} -d '{}'\n",
            v.name,
            quote(v.help)
        ));
        if !v.proposes.is_empty() {
            text.push_str(&format!(
                "complete -c minicluster -n '__fish_seen_subcommand_from {}' -a '{}'\n",
                v.name, v.proposes
            ));
        }
    }
    text
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
        }
    }
}
