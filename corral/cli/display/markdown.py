"""Markdown on a terminal, as it comes: finished blocks once, the last one again and again until it is finished.

What is redrawn is always on the screen: of a last block that is taller, only the end is shown until it is finished.
rich formats the blocks and knows how wide characters are; it is imported only here. Control characters of the text
never reach the terminal.
"""

import contextlib
import re
import threading
import time
from typing import TextIO

from markdown_it import MarkdownIt

from corral.cli.display import terminal
from corral.cli.display.markdown_blocks import Line, lines_of, parser
from corral.cli.display.text import LAYOUT, printable

REST = 4.0
"""Drawing may take a fifth of the time: after it, so many times as long is spent without."""

_BEGIN, _END = "\x1b[?2026h\x1b[?25l", "\x1b[?25h\x1b[?2026l"
"""The terminal shows what is between at once, and no cursor runs about."""

_UNDECIDED = re.compile(r"(?:^|\n)[ >]*(?:[-=*+#`~_|:]+|[0-9]{1,9}[.)]?)[ ]*\Z")
"""A last line that may yet become anything: a rule, a heading's underline, an item of a list."""


class MarkdownScreen:
    """Feed it a text bit by bit; it keeps a stream's terminal showing it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._parser: MarkdownIt = parser()
        self._text = ""
        """What belongs to no finished block yet."""
        self._drawn: list[Line] = []
        """The lines of the last block that stand on the screen; the cursor is behind the last one."""
        self._has_begun = False
        """Whether there are finished blocks above."""
        self._rests_until = 0.0
        self._drawing = threading.RLock()
        self._timer: threading.Timer | None = None
        """Draws what came while drawing rested, where nothing else comes."""

    def feed(self, text: str) -> None:
        with self._drawing:
            self._text += printable(text, keep=LAYOUT)
            rest = self._rests_until - time.monotonic()
            if rest <= 0:
                self._draw()
            elif self._timer is None:
                self._timer = threading.Timer(rest, self._draw)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> bool:
        """Draws what is left. The cursor stays behind the last line; whether there is one. Another text may follow."""
        with self._drawing:
            if self._timer:
                self._timer.cancel()
            self._finish(self._text)
            has_begun, self._has_begun, self._text, self._timer = self._has_begun, False, "", None
        return has_begun

    def _draw(self) -> None:
        with self._drawing, contextlib.suppress(OSError, ValueError):  # a terminal that is gone: the next write says so
            begun = time.monotonic()
            self._timer = None
            if self._text:
                self._finish_blocks()
                self._draw_last()
            now = time.monotonic()
            self._rests_until = now + REST * (now - begun)

    def _finish_blocks(self) -> None:
        """Finishes all blocks but the last, which may go on. A line that is not finished may come to belong to it."""
        whole = self._text[: self._text.rfind("\n") + 1]
        starts = [token.map[0] for token in self._parser.parse(whole) if token.level == 0 and token.map]
        if len(starts) > 1:
            lines = self._text.split("\n")
            self._finish("\n".join(lines[: starts[-1]]))
            self._text = "\n".join(lines[starts[-1] :])

    def _finish(self, text: str) -> None:
        lines = self._lines(text)
        self._replace(lines)
        self._has_begun = self._has_begun or bool(lines)
        self._drawn = []

    def _draw_last(self) -> None:
        height = terminal.size(self._stream)[1]
        lines = self._lines(_UNDECIDED.sub("", self._text))[-max(1, height - 1) :]
        self._replace(lines)
        self._drawn = lines

    def _replace(self, lines: list[Line]) -> None:
        """Draws lines in the place of those that are drawn; behind finished blocks, after a blank line."""
        if lines == self._drawn:
            return
        width = terminal.size(self._stream)[0]
        # A window that was made narrower has broken them into more rows.
        rows = sum(max(1, -(-line.width // width)) for line in self._drawn)
        up = f"\x1b[{rows - 1}A" if rows > 1 else ""
        start = f"\r{up}" if self._drawn else "\n\n" if self._has_begun else ""
        self._stream.write(f"{_BEGIN}{start}" + "\x1b[K\n".join(line.text for line in lines) + f"\x1b[J{_END}")
        self._stream.flush()

    def _lines(self, text: str) -> list[Line]:
        """The lines of blocks; one column stays free, since a terminal cannot clear behind a line that fills it."""
        width = terminal.size(self._stream)[0] - 1
        tokens = self._parser.parse(text)
        return list(lines_of(tokens, width, colours=terminal.has_colours(self._stream))) if tokens else []
