"""Text on a terminal: how wide it is, and which of its characters are safe to print."""

import unicodedata
from collections.abc import Sequence

LAYOUT = "\n\t"
"""The control characters that a text may have on a terminal."""


def text_width(text: str) -> int:
    """Columns that a text takes on a terminal: two for wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    from wcwidth import wcswidth

    width: int = wcswidth(text)
    return width if width >= 0 else len(text)


def pad(text: str, width: int) -> str:
    return text + " " * (width - text_width(text))


def cut(text: str, width: int) -> str:
    """The text, cut to `width` columns."""
    text = text[: 4 * width]  # it may be as long as a server likes
    while text and text_width(text) > width:
        text = text[:-1]
    return text


def printable(text: str, keep: str = "") -> str:
    """The text without control characters, with which a server or a model could steer the terminal."""
    if text.isprintable():
        return text
    return "".join(rune for rune in text if rune in keep or unicodedata.category(rune) != "Cc")


def filled(head: str, parts: Sequence[str], width: int, *, margin: int = 0, between: str = ", ") -> list[str]:
    """Lines of `parts` behind a head, none wider than `width` unless one part is; what follows is set in below them."""
    lines = [" " * margin + head]
    indent = " " * (margin + text_width(head))
    for place, part in enumerate(parts):
        part += between.rstrip() if place < len(parts) - 1 else ""
        is_first = lines[-1] in (indent, " " * margin + head)
        gap = "" if is_first else " "
        if not is_first and text_width(lines[-1]) + 1 + text_width(part) > width:
            lines.append(indent)
            gap = ""
        lines[-1] += gap + part
    return lines
