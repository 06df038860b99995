# Completes commands, flags and models of @PROGRAM@ in fish.
function __@PROGRAM@_complete
    set -l words (commandline -opc)
    set -l typed (string unescape -- (commandline -ct); or commandline -ct)
    set -l program $words[1]
    set -e words[1]
    set -l lines ($program __complete -- $words "$typed" 2>/dev/null)
    if test (count $lines) -gt 1
        printf '%s\n' $lines[2..-1]
    else if test "$lines[1]" = files
        set -l flag (string match -r -- '^--[^=]*=' $typed)
        for path in (__fish_complete_path (string replace -r -- '^--[^=]*=' '' $typed))
            printf '%s\n' "$flag$path"
        end
    end
end
complete --command @PROGRAM@ --no-files --keep-order --arguments '(__@PROGRAM@_complete)'
