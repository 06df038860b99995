"""A value of a Modelfile's command: where it ends, and how a text is written so that it is read back.

Bare, in `"` or in `\"\"\"`; there are no escapes. A value ends at the first newline at which it is complete.

Other programs cannot write a text that spans lines, one of which ends in `\"\"\"`. Here `HELD_OPEN`, which is not seen,
stands after such quotes; one is taken away when the value is read. Ollama reads the whole text, too, with that mark in
it.
"""

import re
from typing import NamedTuple

HELD_OPEN = "\u034f"
"""A combining mark without a form (COMBINING GRAPHEME JOINER)."""

NEWLINE = re.compile(r"[\n\r]")

_SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_UNSEEN = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0xAD, *range(0x200B, 0x2010), *range(0x2060, 0x2065)]))
BLANK = "".join(dict.fromkeys(_SPACES + _UNSEEN + "\ufeff"))
"""What does not count at the ends of a value: white space, and characters that are not printed."""

_LINE_END = rf"(?=[{re.escape(BLANK.replace(chr(10), '').replace(chr(13), ''))}]*+[\n\r])"
_HELD = re.compile(rf'("""{HELD_OPEN}*+)(?<={HELD_OPEN}){_LINE_END}')
_CLOSING = re.compile(rf'("""{HELD_OPEN}*+){_LINE_END}')


class Read(NamedTuple):
    """A value, and the position after the newline that ended it."""

    value: str
    end: int


def read(text: str, start: int) -> Read | None:
    """The value that begins at `start`; None when its quotes are not closed. Takes time in proportion to its length."""
    end = _line_end(text, start)
    first = text[start:end].strip(BLANK)
    if not first.startswith('"'):
        return Read(first, end + 1)
    quotes = '"""' if first.startswith('"""') else '"'
    opened = text.index('"', start)
    inside = opened + len(quotes)
    line, solid = start, inside
    while True:
        solid = max(solid, line + len(text[line:end].rstrip(BLANK)) if text[line:end].strip(BLANK) else solid)
        if solid - len(quotes) >= inside and text.endswith(quotes, inside, solid):
            value = text[inside : solid - len(quotes)]
            return Read(_released(value) if quotes == '"""' else value, end + 1)
        if end >= len(text):
            return None
        line, end = end + 1, _line_end(text, end + 1)


def quote(value: str) -> str:
    """The value as it is written: as other programs write it where that is read back, else in the quotes that are."""
    if "\n" not in value and not value.startswith(" ") and not value.endswith(" "):
        usual = value
    else:
        usual = f'"""{value}"""' if '"' in value else f'"{value}"'
    for written in (usual, f'"{value}"'):
        if read(f"{written}\n", 0) == (value, len(written) + 1):
            return written
    return f'"""{_held_open(value)}"""'


def _line_end(text: str, start: int) -> int:
    found = NEWLINE.search(text, start)
    return found.start() if found else len(text)


def _held_open(value: str) -> str:
    return _CLOSING.sub(rf"\1{HELD_OPEN}", value)


def _released(value: str) -> str:
    return _HELD.sub(lambda held: held[1][:-1], value)
