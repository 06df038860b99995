"""Numbers, times and tables as people read them. Knows no command and writes nothing itself.

Source: spec cli §3.1-§3.3 and annex A.1-A.6.
"""

import unicodedata
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

LAYOUT = "\n\t"
"""The control characters that a text may have on a terminal."""
CELL_WIDTH = 30
"""Columns at which a cell is wrapped at its spaces."""


def byte_text(size: int) -> str:
    """Decimal units: `42 GB`, `4.7 GB`, `2 GB`, `999 B`. From ten on the fraction is cut, not rounded."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size >= scale:
            return f"{size // scale if size >= 10 * scale else _decimal(size / scale, 1)} {unit}"
    return f"{size} B"


def count_text(count: int) -> str:
    """A number of parameters: `3.2B`, `494.03M`, `361K`."""
    if count >= 10**9:
        return _decimal(count / 10**9, 1) + "B"
    if count >= 10**6:
        return _decimal(count / 10**6, 2) + "M"
    if count >= 10**3:
        return f"{count / 10**3:.0f}K"
    return str(count)


def _decimal(value: float, digits: int) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.{digits}f}"


def relative_time(moment: datetime, now: datetime) -> str:
    """`3 hours ago`, `4 minutes from now`; `Never` for Go's zero time, `Forever` for more than twenty years ahead."""
    if moment.year == 1:
        return "Never"
    elapsed = now - moment
    if elapsed < timedelta(0):
        ahead = -elapsed
        return "Forever" if ahead > timedelta(days=20 * 365) else f"{span_text(ahead.total_seconds())} from now"
    return f"{span_text(elapsed.total_seconds())} ago"


def span_text(seconds: float) -> str:
    """A length of time in its largest unit that says something."""
    whole, minutes, hours = int(seconds), int(seconds // 60), int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    for limit, size, unit in ((48, 1, "hours"), (336, 24, "days"), (1440, 168, "weeks"), (17520, 720, "months")):
        if hours < limit:
            return f"{hours // size} {unit}"
    return f"{hours // 8760} years"


def now() -> datetime:
    return datetime.now(UTC)


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, four blanks after each; the last header is followed by one."""
    lines = [line for row in rows for line in _wrapped(row, CELL_WIDTH)]
    widths = _widths([headers, *lines])
    head = "    ".join(pad(name, width) for name, width in zip(headers, widths, strict=True)) + " "
    return "".join(f"{line}\n" for line in [head, *(_row(line, widths) for line in lines)])


def section(title: str, rows: Sequence[Sequence[str]], *, cell_width: int = CELL_WIDTH) -> str:
    """A titled table without headers, as `show` prints them: title two blanks in, rows four, a blank line after."""
    lines = [line for row in rows for line in _wrapped(row, cell_width)]
    widths = _widths(lines)
    return f"  {title}\n" + "".join(f"    {_row(line, widths)}\n" for line in lines) + "\n"


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [*cells, *[""] * (len(widths) - len(cells))]
    return "".join(pad(cell, width) + "    " for cell, width in zip(padded, widths, strict=True))


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    count = max((len(row) for row in rows), default=0)
    return [max(text_width(row[index]) if index < len(row) else 0 for row in rows) for index in range(count)]


def _wrapped(row: Sequence[str], width: int) -> Iterator[list[str]]:
    """The lines of a row: cells wider than `width` go on below, broken at spaces; a single long word stays whole."""
    cells = [list(_cell_lines(printable(cell), width)) for cell in row]
    for index in range(max((len(lines) for lines in cells), default=0)):
        yield [lines[index] if index < len(lines) else "" for lines in cells]


def _cell_lines(cell: str, width: int) -> Iterator[str]:
    if text_width(cell) <= width:
        yield cell
        return
    line = ""
    for word in cell.split():
        if line and text_width(line) + 1 + text_width(word) > width:
            yield line
            line = word
        else:
            line = f"{line} {word}" if line else word
    yield line


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
    while text_width(text) > width:
        text = text[:-1]
    return text


def printable(text: str, keep: str = "") -> str:
    """Without control characters, which would steer the terminal of whoever prints what a server or model said."""
    if text.isprintable():
        return text
    return "".join(rune for rune in text if rune in keep or unicodedata.category(rune) != "Cc")
