"""The candidates for the word that is being typed: commands, flags, their values, models, files."""

from collections.abc import Callable, Sequence
from types import EllipsisType
from typing import NamedTuple

from corral.cli.framework.commands import Command, Completed
from corral.cli.framework.flags import Flag, NeedsValue, canonical
from corral.errors import BadRequest


class Candidate(NamedTuple):
    """A whole word, and what it stands for."""

    word: str
    sentence: str = ""


class Candidates(NamedTuple):
    """What may be typed; `files`: and where none of the words fits, the path of a file."""

    words: Sequence[Candidate] = ()
    files: bool = False

    def beginning_with(self, typed: str) -> "Candidates":
        return Candidates([candidate for candidate in self.words if candidate.word.startswith(typed)], self.files)


class Source(NamedTuple):
    """Where the candidates come from."""

    commands: Sequence[Candidate]
    """Those of the help page."""
    flags: Sequence[Flag]
    """The program's own."""
    find: Callable[[str], Command | None]
    """A command by its name or alias."""
    models: Callable[[bool], Sequence[Candidate]]
    """The models that there are, or only those that are loaded."""
    shells: Sequence[str]
    engines: Callable[[], Sequence[Candidate]]
    """Names of engines that can be chosen."""


def candidates(words: Sequence[str], typed: str, source: Source) -> Candidates:
    """What may stand in the place of `typed`, of which a part may be there, after the complete `words`."""
    try:
        found, rest = _split(canonical(words, source.flags, interspersed=False))
        if not rest:
            return (
                _flags(source.flags, found) if typed.startswith("-") else Candidates(source.commands)
            ).beginning_with(typed)
        command = source.find(rest[0])
        return Candidates() if command is None else _of_command(command, rest[1:], typed, source).beginning_with(typed)
    except BadRequest:  # what was typed is wrong already
        return Candidates()


def _of_command(command: Command, words: Sequence[str], typed: str, source: Source) -> Candidates:
    flags = [parameter for parameter in command.params if isinstance(parameter, Flag)]
    try:
        found, arguments = _split(canonical(words, flags))
    except NeedsValue as needed:
        return _values(needed.flag, "")
    if typed.startswith("-") and "--" not in words:
        name, equals, _ = typed.partition("=")
        if not equals:
            return _flags(flags, found)
        return next((_values(flag, f"{name}=") for flag in flags if f"--{flag.long}" == name), Candidates())
    kind = _kind(command.completes, len(arguments))
    if kind is None and any(flag.files and f"--{flag.long}={flag.bare}" in found for flag in flags):
        kind = "files"  # of `show MODEL --prompt FILE`
    if kind is None:
        return Candidates()
    return Candidates(
        [candidate for candidate in _words(kind, command, source) if candidate.word not in arguments],
        files=kind in ("files", "models or files"),
    )


def _split(tokens: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """The flags and the arguments of a canonical command line."""
    if "--" not in tokens:  # it asks for help, after which nothing counts
        raise BadRequest("help")
    at = tokens.index("--")
    return tokens[:at], tokens[at + 1 :]


def _flags(flags: Sequence[Flag], found: Sequence[str]) -> Candidates:
    """The flags that are not there yet."""
    given = {token.partition("=")[0] for token in found}
    rows = [Candidate("--help", "Show the help page")]
    for flag in flags:
        if f"--{flag.long}" not in given:
            rows.append(Candidate(f"--{flag.long}", flag.help or ""))
            if flag.kind != "bool" and flag.bare:  # its value has to follow at once
                rows.append(Candidate(f"--{flag.long}=", flag.help or ""))
    return Candidates(sorted(rows))


def _values(flag: Flag, before: str) -> Candidates:
    values = ("true", "false") if flag.kind == "bool" else flag.values
    return Candidates([Candidate(before + value) for value in values], flag.files)


def _kind(kinds: Sequence[Completed | EllipsisType], place: int) -> Completed | None:
    """What the argument at this place is, the first being at 0."""
    named = [kind for kind in kinds if not isinstance(kind, EllipsisType)]
    if place < len(named):
        return named[place]
    return named[-1] if len(named) < len(kinds) else None


def _words(kind: Completed, command: Command, source: Source) -> Sequence[Candidate]:
    match kind:
        case "models" | "models or files":
            return source.models(False)
        case "running":
            return source.models(True)
        case "commands":
            return source.commands
        case "shells":
            return [Candidate(shell) for shell in source.shells]
        case "actions":
            return [Candidate(action, sentence) for action, sentence in command.actions.items()]
        case "engines":
            return source.engines()
        case "files":
            return ()
