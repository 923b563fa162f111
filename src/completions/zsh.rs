//! For zsh.

use super::{WITH_VALUE, commanding, flags, spelt, takes_file, words};
use crate::options::{self, Completes, Opt};
use crate::verbs::{VERBS, Verb};

pub fn script() -> String {
    let verbs: Vec<String> = VERBS
        .iter()
        .map(|v| format!("'{}:{}'", v.name, quote(v.help)))
        .collect();
    let commanding: Vec<&str> = commanding().map(|v| v.name).collect();
    SCRIPT
        .replace("@OPTIONS", &options::all().map(specs).collect::<String>())
        .replace("@VERBS", &verbs.join(" "))
        .replace("@COMMANDING", &commanding.join("|"))
        .replace("@WITHVALUE", &WITH_VALUE.join("|"))
        .replace("@WORDS", &VERBS.iter().map(behind).collect::<String>())
}

fn quote(text: &str) -> String {
    text.replace('\'', "'\\''")
        .replace('[', "\\[")
        .replace(']', "\\]")
        .replace(':', "\\:")
}

/// Its spellings. One of them shuts the others out, unless it may be repeated.
fn specs(o: &Opt) -> String {
    let arg = quote(o.arg);
    let value = match o.completes {
        _ if arg.is_empty() => String::new(),
        Completes::Dir => format!(":{arg}:_directories"),
        Completes::File => format!(":{arg}:_files"),
        Completes::FileOr(v) => format!(":{arg}:{{compadd -- {v}; _files}}"),
        Completes::Words(v) => format!(":{arg}:({})", quote(v)),
        Completes::User => format!(":{arg}:_users"),
        Completes::Group => format!(":{arg}:_groups"),
        Completes::Name => format!(":{arg}:_minicluster_names"),
        Completes::Nothing => format!(":{arg}: "),
    };
    let all: Vec<String> = spelt(o).collect();
    let before = match o.many {
        true => "*".to_string(),
        false => format!("({})", all.join(" ")),
    };
    let spec = |name: &String| {
        // The value may be the next word, or stand behind `=`, or right behind the letter.
        let joint = match (arg.is_empty(), name.starts_with("--")) {
            (true, _) => "",
            (false, true) => "=",
            (false, false) => "+",
        };
        format!("    '{before}{name}{joint}[{}]{value}' \\\n", quote(o.help))
    };
    all.iter().map(spec).collect()
}

/// What may follow a verb.
fn behind(v: &Verb) -> String {
    let (words, flags) = (words(v).join(" "), flags(v).join(" "));
    let files = if takes_file(v) { "; _files" } else { "" };
    format!("    ({}) own=({words}) flags=({flags}){files} ;;\n", v.name)
}

const SCRIPT: &str = r#"#compdef minicluster
_minicluster_names() {
  local -a dirs=(${RUNTIME_DIRECTORY%%:*})
  [[ -d $dirs[1] ]] || dirs=(/run/minicluster
    ${XDG_RUNTIME_DIR:+$XDG_RUNTIME_DIR/minicluster} ${TMPDIR:-/tmp}/minicluster-$UID)
  local -a names=(${^dirs}/*.lock(N:t:r))
  compadd "$@" -a names
}
_minicluster_verbs() {
  local -a verbs=(@VERBS)
  _describe verb verbs
}
# Behind the verb, which is the first of the words by now.
_minicluster_words() {
  local -a own flags
  local i
  case $words[1] in
    (@COMMANDING)
      i=2
      while (( i < CURRENT )); do
        case $words[i] in
          (@WITHVALUE) (( i += 2 )) ;;
          (all|<->|slot:*|pid:*|--json|--no-wait) (( i++ )) ;;
          (*) shift $(( i - 1 )) words; (( CURRENT -= i - 1 )); _normal; return ;;
        esac
      done
      if (( i > CURRENT )); then
        [[ $words[CURRENT-1] == cwd ]] && _directories
        return
      fi
      [[ -n $PREFIX ]] && _command_names -e
      _files ;;
  esac
  case $words[1] in
@WORDS  esac
  compadd -- $own
  [[ $PREFIX == -* ]] && compadd -- $flags
}
_minicluster() {
  local i=${words[(i)--]}
  if (( i < CURRENT )); then
    shift i words; (( CURRENT -= i )); _normal; return
  fi
  _arguments -S -A '-*' \
@OPTIONS    '1:verb:_minicluster_verbs' '*:: :_minicluster_words'
}
_minicluster "$@"
"#;
