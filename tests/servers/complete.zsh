# What zsh proposes for each line of standard input: `complete.zsh SCRIPT DIR`, where SCRIPT is the
# completion of minicluster, and DIR a directory of its own. Prints each line, a tab, and what was
# proposed, with blanks between.
#
# The completion system works in a line editor only, so there is one, at a terminal of its own, and each
# call of compadd in it writes down what it would have added.

zmodload zsh/zpty || exit 1
export MINICLUSTER_SCRIPT=$1 ZDOTDIR=$2

cat >$ZDOTDIR/.zshrc <<'SETUP'
PROMPT= RPROMPT= PS2=
unset zle_bracketed_paste
autoload -Uz compinit; compinit -u -D
autoload -Uz +X _normal
eval "_minicluster() { $(<$MINICLUSTER_SCRIPT) }"; compdef _minicluster minicluster
zle -C tell complete-word tell; bindkey '^I' tell
bindkey '^U' kill-whole-line
zstyle ':completion:*' insert-tab false
zstyle ':completion:*' list-grouped false
proposed=()
compadd() {
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
        builtin compadd "$@"
        return
    fi
    local -a hits before
    builtin compadd -A hits "$@"
    zparseopts -E P:=before
    proposed+=($IPREFIX$before[2]$^hits)
    builtin compadd "$@"
}
tell() {
    _main_complete
    print -r -- "<<${(j: :)${(ou)proposed}}>>"
    proposed=()
    compstate[insert]= compstate[list]=
}
print -r -- '<<set up>>'
SETUP

answer() {
    local text= piece
    while [[ $text != *'<<'*'>>'* ]]; do
        zpty -r shell piece || exit 1
        text+=$piece
    done
    text=${text#*'<<'}
    REPLY=${text%%'>>'*}
}

zpty shell zsh -i
answer
[[ $REPLY == 'set up' ]] || exit 1
while IFS= read -r line; do
    zpty -n -w shell "$line"$'\t'
    answer
    print -r -- "$line"$'\t'"$REPLY"
    zpty -n -w shell $'\x15'
done
zpty -d shell
