"""What can be shown at the other end of a stream: drawings, colours, letters, and how much room there is."""

import os
import shutil
from typing import TextIO

from corral import config


def can_draw(stream: TextIO) -> bool:
    """Whether lines can be drawn over: on a terminal, unless it is one that only takes lines."""
    return stream.isatty() and not config.is_dumb_terminal()


def has_colours(stream: TextIO) -> bool:
    """Whether colours can be shown and are wanted."""
    return can_draw(stream) and not config.wants_no_colours()


def can_write(stream: TextIO, text: str) -> bool:
    """Whether the stream's encoding has these letters."""
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def width(stream: TextIO) -> int | None:
    """Columns of the window; None where the stream is no terminal."""
    return size(stream)[0] if stream.isatty() else None


def size(stream: TextIO) -> tuple[int, int]:
    """Columns and lines; 80 and 24 where the terminal gives none."""
    try:
        found = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        found = shutil.get_terminal_size()
    return found.columns or 80, found.lines or 24
