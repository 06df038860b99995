"""Tables and sections as text. Source: spec cli §3.3 and annex A.1-A.3."""

import sys
from collections.abc import Iterator, Sequence

import click

from corral.cli.display.text import pad, printable, text_width

CELL_WIDTH = 30
"""Columns at which a cell is wrapped at its spaces."""


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, width: int | None = None, spare: Sequence[str] = ()
) -> str:
    """Columns as wide as their widest cell, four blanks after each; the last header is followed by one.

    In a window of `width` columns those of the `spare` ones are left out, in that order, for which there is no room.
    """
    lines = [line for row in rows for line in _wrapped(row, CELL_WIDTH)]
    widths = _widths([headers, *lines])
    if width is not None and spare and sum(widths) + 4 * (len(widths) - 1) > width:
        at = headers.index(spare[0])
        others = [[*row[:at], *row[at + 1 :]] for row in (headers, *rows)]
        return table(others[0], others[1:], width=width, spare=spare[1:])
    head = "    ".join(pad(name, width) for name, width in zip(headers, widths, strict=True)) + " "
    return "".join(f"{line}\n" for line in [head, *(_row(line, widths) for line in lines)])


def section(title: str, rows: Sequence[Sequence[str]], *, cell_width: int = CELL_WIDTH) -> str:
    """A titled table without headers, as `show` prints them: title two blanks in, rows four, a blank line after."""
    lines = [line for row in rows for line in _wrapped(row, cell_width)]
    widths = _widths(lines)
    return f"  {title}\n" + "".join(f"    {_row(line, widths)}\n" for line in lines) + "\n"


def print_table(text: str) -> None:
    """Prints tables or sections. A terminal gets no blanks at the ends of lines: narrow ones would only wrap them."""
    if sys.stdout.isatty():
        text = "".join(f"{line.rstrip(' ')}\n" for line in text.splitlines())
    click.echo(text, nl=False)


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
