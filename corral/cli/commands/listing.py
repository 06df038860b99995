"""`list` and `ps`: which models there are, and which are loaded. Source: spec cli §2.8 and §3.3."""

import sys
from datetime import datetime

import click

from corral.cli import connection
from corral.cli.display import terminal
from corral.cli.display.tables import print_table, table
from corral.cli.display.text import printable
from corral.cli.display.units import now, relative_time
from corral.cli.framework.commands import Arguments, Count, command, program_name
from corral.cli.framework.flags import Flag
from corral.client.answers import Installed, Running
from corral.golang.units import byte_text


@command("list", "List models", count=Count(), completes=("models",), aliases=("ls",))
def list_models(arguments: Arguments) -> None:
    found = connection.connect().tags()
    print_table(models_table(found, arguments[0] if arguments else "", now(), terminal.width(sys.stdout)))


def models_table(found: tuple[Installed, ...], prefix: str, moment: datetime, width: int | None = None) -> str:
    """The models whose name begins with `prefix` in any case, for a window of so many columns."""
    rows = [
        (
            model.name,
            model.digest[:12],
            "-" if model.remote else byte_text(model.size),
            relative_time(model.modified_at, moment),
        )
        for model in found
        if model.name.lower().startswith(prefix.lower())
    ]
    return table(("NAME", "ID", "SIZE", "MODIFIED"), rows, width=width, spare=("ID", "MODIFIED"))


@command(
    "ps",
    "List running models",
    count=Count(),
    flags=[Flag("--watch", "-w", kind="bool", sentence="Show them again every second, with what they are doing")],
    completes=("running",),
)
def ps(arguments: Arguments, watch: bool) -> None:
    if watch:
        from corral.cli.watch.loop import watch as watch_models

        watch_models(connection.client(), arguments[0] if arguments else "", sys.stdout)
        return
    found = connection.connect().ps()
    prefix = arguments[0] if arguments else ""
    width, derived = terminal.width(sys.stdout), program_name() != "ollama"
    print_table(running_table(found, prefix, now(), width, derived=derived))
    for model in found if derived else ():
        if model.placement and model.name.startswith(prefix) and model.size_vram != model.size:
            click.echo(f"{printable(model.name)}: {printable(model.placement)}")


def running_table(
    found: tuple[Running, ...], prefix: str, moment: datetime, width: int | None = None, *, derived: bool = True
) -> str:
    """The loaded models whose name begins with `prefix` exactly, for a window of so many columns.

    `derived`: where a file was made for the engine, a last column has its size; another says which models were loaded
    with tuned settings, where any was.
    """
    shown = [model for model in found if model.name.startswith(prefix)]
    tuned = derived and any(model.tuned for model in shown)
    derived = derived and any(model.derived for model in shown)
    rows = [
        (
            model.name,
            model.digest[:12],
            "-" if model.remote else byte_text(model.size),
            "remote" if model.remote else processor_text(model.size, model.size_vram),
            str(model.context_length or "-") if model.remote else str(model.context_length),
            until_text(model.expires_at, moment),
            *([byte_text(model.derived) if model.derived else "-"] if derived else []),
            *(["yes" if model.tuned else "-"] if tuned else []),
        )
        for model in shown
    ]
    columns = ("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL")
    further = (*(["DERIVED"] if derived else []), *(["TUNED"] if tuned else []))
    return table((*columns, *further), rows, width=width, spare=(*further, "ID", "CONTEXT", "UNTIL", "PROCESSOR"))


def processor_text(size: int, size_vram: int) -> str:
    """Where a model of `size` bytes lies, `size_vram` of them on GPUs."""
    if size_vram == 0:
        return "100% CPU"
    if size_vram == size:
        return "100% GPU"
    if size_vram > size or size == 0:
        return "Unknown"
    cpu = round((size - size_vram) / size * 100)
    return f"{cpu}%/{100 - cpu}% CPU/GPU"


def until_text(expires: datetime, moment: datetime) -> str:
    """When an idle model is unloaded."""
    return "Stopping..." if _is_past(expires, moment) else relative_time(expires, moment)


def _is_past(expires: datetime, moment: datetime) -> bool:
    return expires.year > 1 and expires < moment
