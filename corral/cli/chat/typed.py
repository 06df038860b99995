'''What a typed text is: a message, a command, or the beginning of a `"""` block. Source: spec cli §5.2, §5.3.'''

import re
from dataclasses import dataclass

BLOCK = '"""'
"""Begins a message of several lines, and ends it."""

_OPENING = re.compile(r'\s*"""')
_SYSTEM = re.compile(r'/set\s+system\s+(?=""")')
"""The one command whose value may be a block."""


@dataclass(frozen=True, slots=True)
class Typed:
    """A finished text. A command keeps its slash and all its lines; a message has lost the quotes around it."""

    text: str
    is_command: bool


def is_open(text: str) -> bool:
    """Whether a text is a block whose end is still missing, so that Enter begins a new line of it."""
    block = _block(text)
    return block is not None and not block.rstrip().endswith(BLOCK)


def read(text: str) -> Typed:
    """What a text is. Several lines are a message even when they begin with a slash: pasted, or a block."""
    if (command := _SYSTEM.match(text)) is not None:
        return Typed(command[0] + unquoted(text[command.end() :]), is_command=True)
    if _OPENING.match(text):
        return Typed(unquoted(text), is_command=False)
    is_command = text.startswith("/") and ("\n" not in text.rstrip() or text.startswith("/set system"))
    return Typed(text, is_command)


def unquoted(text: str) -> str:
    """The text without the quotes that make it a block, where it is one."""
    if (opening := _OPENING.match(text)) is None:
        return text
    body = text[opening.end() :]
    return body.rstrip().removesuffix(BLOCK) if body.rstrip().endswith(BLOCK) else body


def _block(text: str) -> str | None:
    """What follows the quotes that open a block; None where there are none."""
    command = _SYSTEM.match(text)
    opening = _OPENING.match(text, command.end() if command else 0)
    return text[opening.end() :] if opening else None
