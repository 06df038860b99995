"""Help pages, and what is said to a command that does not exist. Source: spec cli §1 and §1.1."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields

from corral.cli.framework.flags import Flag
from corral.config import Config
from corral.errors import BadRequest

_LEAST_ROOM = 20
"""Columns that a sentence gets beside its flag; with less it goes on below the flag."""
_NARROW_INDENT = 10


def command_page(
    name: str, sentence: str, usage: str, aliases: Sequence[str], flags: Sequence[Flag], settings: Sequence[str]
) -> str:
    """The help page of a command; `settings` are the fields of `Config` that it explains."""
    parts = [sentence, f"Usage:\n  {usage}"]
    if aliases:
        parts.append("Aliases:\n  " + ", ".join([name, *aliases]))
    parts.append("Flags:\n" + _flag_lines(flags, name))
    if settings:
        parts.append("Environment Variables:\n" + _setting_lines(settings))
    return "\n\n".join(parts)


def group_page(program: str, sentence: str, commands: Mapping[str, str], flags: Sequence[Flag]) -> str:
    """The help page of the program; `commands` are names and sentences in the order of the page."""
    width = max(map(len, commands))
    rows = "\n".join(f"  {name:<{width}}  {sentence}" for name, sentence in commands.items())
    parts = [
        sentence,
        f"Usage:\n  {program} [flags]\n  {program} [command]",
        f"Available Commands:\n{rows}",
        "Flags:\n" + _flag_lines(flags, program),
        f'Use "{program} [command] --help" for more information about a command.',
    ]
    return "\n\n".join(parts)


def fitted(page: str, width: int) -> str:
    """A page for a window of so many columns: what does not fit goes on in the next line, below where it began."""
    return "\n".join(_fitted_line(line, width) for line in page.split("\n"))


def _fitted_line(line: str, width: int) -> str:
    """The last column of a row begins after its last gap of two blanks or more."""
    begins = max((gap.end() for gap in re.finditer(r"(?<=\S) {2,}", line)), default=len(line) - len(line.lstrip()))
    if width - begins < _LEAST_ROOM:
        begins = min(begins, _NARROW_INDENT)
    lines, rest = [], line
    while len(rest) > width and (end := rest.rfind(" ", begins + 1, width + 1)) > begins:
        lines.append(rest[:end])
        rest = " " * begins + rest[end + 1 :]
    return "\n".join([*lines, rest])


def unknown_command(name: str, program: str, known: Iterable[str]) -> BadRequest:
    """Names those that begin with what was typed, or differ from it in two letters at most."""
    alike = [
        candidate
        for candidate in known
        if candidate.startswith(name.lower()) or _distance(name.lower(), candidate) <= 2
    ]
    lines = [f'unknown command "{name}" for "{program}"']
    if alike:
        lines += ["", "Did you mean this?", *(f"\t{candidate}" for candidate in alike), ""]
    return BadRequest("\n".join(lines))


def _distance(one: str, other: str) -> int:
    """Levenshtein's: letters to insert, delete or replace."""
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        previous, row[0] = row[0], i
        for j, candidate in enumerate(other, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (letter != candidate))
    return row[-1]


def _flag_lines(flags: Sequence[Flag], owner: str) -> str:
    rows = [(flag.long, flag.synopsis, flag.help or "") for flag in flags]
    rows.append(("help", "  -h, --help", f"help for {owner}"))
    rows.sort()
    width = max(len(synopsis) for _, synopsis, _ in rows)
    return "\n".join(f"{synopsis:<{width}}   {sentence}" for _, synopsis, sentence in rows)


def _setting_lines(names: Sequence[str]) -> str:
    table = {setting.name: setting.metadata for setting in fields(Config)}
    return "\n".join(f"      {table[name]['variable']:<27}   {table[name]['sentence']}" for name in names)
