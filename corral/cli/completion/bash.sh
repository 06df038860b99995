# Completes commands, flags and models of @PROGRAM@ in bash.
_@PROGRAM@_complete() {
    local line=${COMP_LINE:0:COMP_POINT} words=() blanks word typed cut kind candidate i
    # COMP_WORDS is split at the colons in names of models: what no blank divides is one word.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        blanks=${line%%[![:space:]]*}
        line=${line#"$blanks"}
        word=${COMP_WORDS[i]}
        ((i == COMP_CWORD)) && word=$line
        line=${line#"$word"}
        if ((i == 0)) || [[ -n $blanks ]]; then
            words+=("$word")
        else
            words[${#words[@]} - 1]+=$word
        fi
    done
    typed=${words[${#words[@]} - 1]#[\"\']}
    unset "words[${#words[@]}-1]" 'words[0]'
    # bash puts a candidate in the place of what follows the last mark that divides words.
    [[ $typed == *[:=]* ]] && cut=${typed%"${typed##*[:=]}"}
    COMPREPLY=()
    {
        read -r kind
        while IFS=$'\t' read -r candidate _; do
            COMPREPLY+=("${candidate#"$cut"}")
        done
    } < <("${1/#\~\//$HOME/}" __complete -- "${words[@]}" "$typed" 2>/dev/null)
    [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
    [[ $kind == files && ${#COMPREPLY[@]} -eq 0 ]] && compopt -o default 2>/dev/null
    return 0
}
complete -o nosort -F _@PROGRAM@_complete @PROGRAM@ 2>/dev/null || complete -F _@PROGRAM@_complete @PROGRAM@
