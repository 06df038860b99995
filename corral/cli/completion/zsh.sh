#compdef @PROGRAM@
# Completes commands, flags and models of @PROGRAM@ in zsh.
_@PROGRAM@() {
    local -a lines items open
    local line kind item
    lines=("${(@f)$("${words[1]/#\~\//$HOME/}" __complete -- "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    kind=$lines[1]
    for line in "${(@)lines[2,-1]}"; do
        item=${${line%%$'\t'*}//:/\\:}
        [[ $line == *$'\t' ]] || item+=:${line#*$'\t'}
        if [[ $line == *=$'\t'* ]]; then open+=("$item"); else items+=("$item"); fi
    done
    if (( $#items + $#open )); then
        _describe -V @PROGRAM@ items -- open -S ''
    elif [[ $kind == files ]]; then
        compset -P '--*='
        _files
    fi
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _@PROGRAM@ "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef _@PROGRAM@ @PROGRAM@
fi
