"""`search`: models that can be pulled from Hugging Face, with their quantisations and which of them fit here."""

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime
from json import dumps

import click

from corral.cli import connection
from corral.cli.display import terminal
from corral.cli.display.progress import spinning
from corral.cli.display.tables import table
from corral.cli.display.text import filled, printable
from corral.cli.display.units import now, relative_time
from corral.cli.framework.commands import Arguments, Count, command
from corral.cli.framework.flags import Flag
from corral.client.answers import Json, member, members
from corral.client.published import Published, Quantisation, published
from corral.golang.units import byte_text, count_text

FITS = {"yes": "fits", "tight": "tight", "no": "too large"}
"""What is said of quantisations, by whether they fit, in the order in which it is said."""
PIPE_WIDTH = 100
"""Columns at which lists of quantisations are broken where the output is no terminal."""
HEADERS = ("NAME", "SIZE", "MEMORY", "FITS", "DOWNLOADS", "UPDATED")
SPARE = HEADERS[:3:-1]
"""Those that a narrow window need not show, from the last on."""


@command(
    "search WORDS",
    "Search Hugging Face for models to pull",
    count=Count(least=1),
    flags=[
        Flag("--limit", "-n", kind="int", sentence="How many models to show, up to 50 (default 10)"),
        Flag("--json", kind="bool", sentence="Print the server's answer as JSON"),
    ],
    settings=("host", "hub"),
)
def search(arguments: Arguments, limit: int, json: bool) -> None:
    client = connection.connect()
    words = " ".join(arguments)
    with spinning("searching"):
        answer = client.search(words, limit)
    if json:
        click.echo(dumps(answer, ensure_ascii=False, indent=2))
        return
    found = tuple(map(published, members(answer, "models")))
    if not found:
        click.echo(f'no model in GGUF form has "{printable(words)}" in its name', err=True)
        return
    columns = terminal.width(sys.stdout)
    click.echo("\n".join([*models_lines(found, columns, now()), "", *memory_lines(answer, columns or PIPE_WIDTH)]))


def models_lines(found: Sequence[Published], columns: int | None, moment: datetime) -> Iterator[str]:
    """A table with a row for each model, as it would be pulled, and below each row its quantisations.

    `columns` of the terminal; None for no terminal.
    """
    rows = [_row(model, moment) for model in found]
    head, *lines = table(HEADERS, rows, width=columns, spare=SPARE).splitlines()
    yield head
    for model, line in zip(found, lines, strict=True):
        yield line.rstrip()
        yield from _quantisation_lines(model, columns or PIPE_WIDTH)


def _row(model: Published, moment: datetime) -> tuple[str, ...]:
    begin = next((one for one in model.quantisations if one.name == model.suggested), None)
    size, memory, fits = ("", "", "") if begin is None else (byte_text(begin.size), _memory(begin), begin.fits)
    updated = relative_time(model.modified_at, moment) if model.modified_at else ""
    return (begin.name if begin else model.name, size, memory, fits, count_text(model.downloads), updated)


def _memory(one: Quantisation) -> str:
    return byte_text(one.memory) if one.memory else ""


def _quantisation_lines(model: Published, width: int) -> Iterator[str]:
    """What else can be pulled of a model, by whether it fits, and what is to be known before."""
    remarks = []
    if model.error:
        remarks.append(f"its files are not known: {printable(model.error)}")
    elif not model.quantisations:
        remarks.append("none of its files can be pulled")
    if model.gated:
        remarks.append("gated: its files are only for accounts that have agreed to its terms")
    for fits, word in FITS.items():
        kinds = [f"{_tag(one)} {byte_text(one.size)}" for one in model.quantisations if one.fits == fits]
        if kinds:
            yield from filled(f"{word}: ", kinds, width, margin=4)
    for remark in remarks:
        yield from filled("", remark.split(), width, margin=4, between=" ")


def _tag(one: Quantisation) -> str:
    """What stands behind the colon of its name."""
    return one.name.rpartition(":")[2]


def memory_lines(answer: Json, width: int) -> list[str]:
    """What the models were judged by."""
    memory = member(answer, "memory", dict, {})
    free = member(memory, "available", int, 0) + member(memory, "gpus", int, 0)
    text = (
        f"MEMORY is what a model takes with its usual context; {byte_text(free)} are free for models here. "
        "Pull one by its name, or with another quantisation behind the colon."
    )
    return filled("", text.split(), width, between=" ")
