"""Modelfiles: their grammar, both ways, and what their commands come to. Knows no file, no server and no model.

`values` reads and writes a value with its quotes, `grammar` the commands, `contents` says what they amount to. Source:
spec cli §7, api §13.
"""

from collections.abc import Iterable

from corral.modelfile.contents import ROLES, Contents, contents, read_parameter
from corral.modelfile.grammar import MAX_CHARACTERS, Command, Modelfile, decode, parse
from corral.modelfile.values import quote

__all__ = [
    "MAX_CHARACTERS",
    "Command",
    "Contents",
    "Modelfile",
    "comment",
    "contents",
    "decode",
    "parse",
    "quote",
    "read_parameter",
    "write",
]


def write(commands: Iterable[tuple[str, str]]) -> str:
    """Commands as text: `FROM`, `PARAMETER stop` or `MESSAGE user`, each with its value, quoted where it needs it.

    `parse` reads the same values from it. A parameter or role that it would refuse becomes a comment.
    """
    return "".join(_line(name, value) for name, value in commands)


def comment(name: str, value: str) -> str:
    """A command as a comment: it is shown, and means nothing."""
    return "".join(f"# {line}\n" for line in f"{name} {value}".splitlines())


def _line(name: str, value: str) -> str:
    kind, _, argument = name.partition(" ")
    if (kind == "PARAMETER" and not _is_parameter(argument, value)) or (kind == "MESSAGE" and argument not in ROLES):
        return comment(name, value)
    return f"{name} {quote(value)}\n"


def _is_parameter(name: str, value: str) -> bool:
    try:
        read_parameter(name, value)
    except ValueError:
        return False
    return True
