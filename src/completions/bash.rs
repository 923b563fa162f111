//! For bash. Readline has its own idea of what a word is: it splits at `=` and `:`, so the pieces are put
//! together first, and from what is proposed the part is taken away that readline has behind it already.

use super::{WITH_VALUE, commanding, flags, spelt, takes_file, valued, words};
use crate::options::{self, Completes};
use crate::verbs::{VERBS, Verb};

pub fn script() -> String {
    let with_value = options::all().filter(|o| !o.arg.is_empty());
    let cases: String = with_value
        .map(|o| {
            let names: Vec<String> = spelt(o).collect();
            format!("    {}) {} ;;\n", names.join("|"), value(o.completes))
        })
        .collect();
    let all: Vec<String> = options::all().flat_map(spelt).collect();
    let verbs: Vec<&str> = VERBS.iter().map(|v| v.name).collect();
    let commanding: Vec<&str> = commanding().map(|v| v.name).collect();
    SCRIPT
        .replace("@CASES", &cases)
        .replace("@FLAGS", &all.join(" "))
        .replace("@VALUED", &valued().join("|"))
        .replace("@VERBS", &verbs.join(" "))
        .replace("@COMMANDING", &commanding.join("|"))
        .replace("@WITHVALUE", &WITH_VALUE.join("|"))
        .replace("@WORDS", &VERBS.iter().map(behind).collect::<String>())
}

/// What completes a value.
fn value(how: Completes) -> String {
    match how {
        Completes::Nothing => ":".into(),
        Completes::Words(v) => format!("_minicluster_among -W '{v}'"),
        Completes::Dir => "_minicluster_files -d".into(),
        Completes::File => "_minicluster_files -f".into(),
        Completes::FileOr(v) => format!("_minicluster_files -f -W '{v}'"),
        Completes::Name => "_minicluster_among -W \"$(_minicluster_names)\"".into(),
        Completes::User => "_minicluster_among -u".into(),
        Completes::Group => "_minicluster_among -g".into(),
    }
}

/// What may follow a verb.
fn behind(v: &Verb) -> String {
    let all: Vec<&str> = words(v)
        .into_iter()
        .chain(flags(v).iter().copied())
        .collect();
    let how = match v.before {
        // Not all commands there are, if nothing of it is typed yet.
        Some(_) => "_minicluster_files ${cur:+-c} -f",
        None if takes_file(v) => "_minicluster_files -f",
        None => "_minicluster_among",
    };
    format!("    {}) {how} -W '{}' ;;\n", v.name, all.join(" "))
}

/// Names are those of the locks in the runtime directories; where a service manager has made one, in that alone.
const SCRIPT: &str = r#"# bash completion for minicluster
_minicluster_names() {
    local dir lock
    local -a dirs=("${RUNTIME_DIRECTORY%%:*}")
    [[ -d ${dirs[0]} ]] || dirs=(/run/minicluster \
        "${XDG_RUNTIME_DIR:+$XDG_RUNTIME_DIR/minicluster}" "${TMPDIR:-/tmp}/minicluster-$UID")
    for dir in "${dirs[@]}"; do
        [[ -n $dir ]] || continue
        for lock in "$dir"/*.lock; do
            [[ -e $lock ]] && lock=${lock##*/} && echo "${lock%.lock}"
        done
    done
}
_minicluster_among() {
    mapfile -t COMPREPLY < <(compgen "$@" -- "$cur")
}
_minicluster_files() {
    compopt -o filenames 2>/dev/null
    _minicluster_among "$@"
}
# The command at this place of COMP_WORDS completes itself.
_minicluster_command() {
    if declare -F _command_offset >/dev/null; then
        _command_offset "$1"
    elif ((COMP_CWORD == $1)); then
        _minicluster_files -c -f
    else
        _minicluster_files -f
    fi
}
# Pieces with no blank between them are one word; `starts` has the place of the first of each.
_minicluster_join() {
    local line=$COMP_LINE i piece blank
    for ((i = 0; i <= COMP_CWORD; i++)); do
        piece=${COMP_WORDS[i]} blank=
        while [[ $line == [[:space:]]* ]]; do
            line=${line#?} blank=1
        done
        [[ -n $COMP_LINE || $piece == '=' || ${COMP_WORDS[i - 1]} == '=' ]] || blank=1
        line=${line#"$piece"}
        if ((i == 0)) || [[ -n $blank ]]; then
            words+=("$piece")
            starts+=("$i")
        else
            words[-1]+=$piece
        fi
    done
}
_minicluster_value() {
    case $1 in
@CASES    esac
}
_minicluster() {
    local -a words=() starts=()
    local cur verb='' i last
    COMPREPLY=()
    _minicluster_join
    last=$((${#words[@]} - 1))
    cur=${words[last]}
    for ((i = 1; i < last; i++)); do
        case ${words[i]} in
        --)
            _minicluster_command "${starts[i + 1]}"
            return
            ;;
        @VALUED)
            if ((i + 1 == last)); then
                _minicluster_value "${words[i]}"
                _minicluster_cut
                return
            fi
            ((i++))
            ;;
        -*) ;;
        *)
            verb=${words[i]}
            break
            ;;
        esac
    done
    case $verb in
    '')
        if [[ $cur == --*=* ]]; then
            local whole=$cur
            cur=${cur#*=}
            _minicluster_value "${whole%%=*}"
            COMPREPLY=("${COMPREPLY[@]/#/${whole%%=*}=}")
            cur=$whole
        else
            _minicluster_among -W '@FLAGS @VERBS --'
        fi
        ;;
    @COMMANDING)
        for ((i++; i < last; i++)); do
            case ${words[i]} in
            --)
                _minicluster_command "${starts[i + 1]}"
                return
                ;;
            @WITHVALUE)
                if ((i + 1 == last)); then
                    [[ ${words[i]} == cwd ]] && _minicluster_files -d
                    return
                fi
                ((i++))
                ;;
            all | [0-9]* | slot:* | pid:* | --json | --no-wait) ;;
            *)
                _minicluster_command "${starts[i]}"
                return
                ;;
            esac
        done
        ;;&
@WORDS    esac
    _minicluster_cut
}
# Of what is proposed readline has all up to the last `=` or `:` already.
_minicluster_cut() {
    local breaks='' had
    [[ $COMP_WORDBREAKS == *=* ]] && breaks+='='
    [[ $COMP_WORDBREAKS == *:* ]] && breaks+=':'
    [[ -n $breaks && $cur == *[$breaks]* ]] || return 0
    had=${cur%"${cur##*[$breaks]}"}
    COMPREPLY=("${COMPREPLY[@]#"$had"}")
}
complete -F _minicluster minicluster
"#;
