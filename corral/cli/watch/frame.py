"""What one look at the server amounts to, as lines for a window of some size. Knows no server and draws nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from corral.cli.commands.listing import processor_text, until_text
from corral.cli.display.text import cut, filled, pad, printable, text_width
from corral.client.answers import Running
from corral.client.live import Live, Seen
from corral.golang.units import byte_text

HEADERS = ("NAME", "SIZE", "PROCESSOR", "CONTEXT", "SLOTS", "KV POOL", "QUEUE", "READ/S", "WRITTEN/S", "UNTIL")
GAP = "  "


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment: the server's answer, or why there is none."""

    address: str
    moment: datetime
    seen: Seen | None
    problem: str = ""


def frame(look: Look, width: int, height: int) -> list[str]:
    """At most `height` lines of at most `width` columns: a table if it fits, else a few lines for each model."""
    head = _head(look, width)
    room = height - len(head)
    groups = _table(look, width) or _blocks(look, width)
    lines: list[str] = []
    for place, group in enumerate(groups):
        left = len(groups) - place
        if len(lines) + len(group) > room - (left > 1):
            lines.append(cut(f"and {left} more", width))
            break
        lines += group
    return [*head, *lines][:height]


def block(look: Look) -> list[str]:
    """The same where lines are only added to, as in a file: a table whatever its width, with the moment above."""
    groups = _table(look, 1 << 30) or [[]]
    return [*_head(look, 1 << 30)[:-1], *(line for group in groups for line in group), ""]


def _head(look: Look, width: int) -> list[str]:
    parts = [f"{look.address} at {look.moment:%H:%M:%S}"]
    if look.seen is not None and look.seen.memory_total:
        free, total = byte_text(look.seen.memory_available), byte_text(look.seen.memory_total)
        parts.append(f"{free} of {total} memory free")
    if look.seen is not None and look.seen.waiting:
        parts.append(f"{look.seen.waiting} waiting for a model")
    lines = filled("", parts, width)
    if look.seen is None:
        lines += filled("", printable(look.problem).split(), width, between=" ")
    elif not look.seen.models:
        lines.append("no model is loaded")
    return [*(cut(line, width) for line in lines), ""]


def _models(look: Look) -> Sequence[Running]:
    return () if look.seen is None else look.seen.models


def _table(look: Look, width: int) -> list[list[str]]:
    """A group for the headers with the first model, one for each other; none where it is too wide or has no rows."""
    rows = [_row(model, look.moment) for model in _models(look)]
    if not rows:
        return []
    widths = [max(map(text_width, column)) for column in zip(HEADERS, *rows, strict=True)]
    if sum(widths) + len(GAP) * (len(widths) - 1) > width:
        return []
    lines = [GAP.join(map(pad, row, widths)).rstrip() for row in (HEADERS, *rows)]
    return [lines[:2], *([line] for line in lines[2:])]


def _row(model: Running, moment: datetime) -> tuple[str, ...]:
    live = model.live
    used = ("-",) * 5 if live is None else _used(live)
    return (
        printable(model.name),
        "-" if model.remote else byte_text(model.size),
        "remote" if model.remote else processor_text(model.size, model.size_vram),
        "-" if model.remote and not model.context_length else str(model.context_length),
        *used,
        _until(model, moment),
    )


def _until(model: Running, moment: datetime) -> str:
    """When it is unloaded, or how far its load is, or what is made for the engine before."""
    if model.live is None or model.live.loading is None:
        return until_text(model.expires_at, moment)
    what = "loading" if model.live.preparing is None else "preparing"
    completed, total = model.live.preparing or model.live.loading
    return f"{what} {100 * min(completed, total) // total}%" if total > 0 else what


def _used(live: Live) -> tuple[str, ...]:
    slots, pool = f"{live.slots_busy}/{live.slots}", f"{live.pool_used}/{live.pool}"
    return (slots, pool, str(live.waiting), _rate(live.read_rate), _rate(live.written_rate))


def _blocks(look: Look, width: int) -> list[list[str]]:
    """A group of lines for each model."""
    groups = []
    for model in _models(look):
        _, size, processor, context, slots, pool, waiting, read, written, until = _row(model, look.moment)
        parts = [size, processor, f"context {context}", f"slots {slots}", f"KV pool {pool}", f"queue {waiting}"]
        is_loading = model.live is not None and model.live.is_loading
        parts += [f"reads {read}/s", f"writes {written}/s", until if is_loading else f"until {until}"]
        if model.remote:  # of which no more is known
            parts = [processor, f"context {context}"]
        lines = filled("", parts, width, margin=2)
        groups.append([shortened(printable(model.name), width), *(cut(line, width) for line in lines)])
    return groups


def shortened(name: str, width: int) -> str:
    """A name of at most `width` columns; what is left out is shown as such."""
    return name if text_width(name) <= width else cut(f"{cut(name, width - 3)}...", width)


def _rate(tokens: float | None) -> str:
    if tokens is None:
        return "-"
    return f"{tokens:.0f}" if tokens >= 100 else f"{tokens:.1f}"
