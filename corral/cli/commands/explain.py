"""`explain`: where the time of the last requests went, in a table, or of one of them at length."""

import sys
from collections.abc import Iterator, Sequence
from datetime import datetime

import click

from corral.cli import connection
from corral.cli.display import terminal
from corral.cli.display.tables import print_table, section, table
from corral.cli.display.text import printable
from corral.cli.display.units import now, relative_time
from corral.cli.framework.commands import Arguments, Count, command
from corral.cli.framework.flags import Flag
from corral.client.explained import Explained
from corral.errors import BadRequest, NotFound

SHOWN = 20
"""Requests in the table unless the flag says."""
HEADERS = ("ID", "MODEL", "END", "TOTAL", "WAITED", "PROMPT", "ANSWER", "TOKENS/S", "CACHED", "WHAT", "WHEN")
SPARE = HEADERS[:1:-1]
"""Those that a narrow window need not show, from the last on."""
ID_LENGTH = 12
"""Letters of an id in the table; so many find it again."""

PHASES = {
    "queue": "until the model's turn to be loaded",
    "load": "until the model was loaded",
    "plan": "writing and counting the prompt",
    "room": "until there was room beside others",
    "prompt": "reading the prompt",
    "generation": "writing the answer",
    "parked": "until there was more room, amid the answer",
    "rest": "all else, such as sending",
}


@command(
    "explain [ID]",
    "Show where the time of the last requests went, or of one of them at length",
    count=Count(most=1),
    flags=[Flag("--last", "-n", kind="int", sentence=f"How many requests to list (default {SHOWN})")],
)
def explain(arguments: Arguments, last: int) -> None:
    if last < 0:
        raise BadRequest(f"--last must be 1 or more, got {last}")
    found = connection.connect().explain()
    if arguments:
        print_table(described(_one(found, arguments[0]), now()))
    elif not found:
        click.echo("no request has asked a model since the server started", err=True)
    else:
        print_table(requests_table(found[: last or SHOWN], now(), terminal.width(sys.stdout)))


def _one(found: Sequence[Explained], given: str) -> Explained:
    """The newest request whose id begins so. `NotFound`."""
    for one in found:
        if one.id.startswith(given):
            return one
    raise NotFound(f'no request "{given}" among the last {len(found)} that the server remembers')


def requests_table(found: Sequence[Explained], moment: datetime, width: int | None) -> str:
    """A row for each request; a window of `width` columns shows what fits, None: there is no window.

    Where any was sent to another machine, a last column says to which.
    """
    places = any(one.replica for one in found)
    rows = [
        (
            one.id[:ID_LENGTH],
            one.model,
            one.reason if one.state == "done" else one.state,
            duration_text(one.durations["total"]),
            duration_text(sum(one.durations[phase] for phase in ("queue", "load", "plan", "room", "parked"))),
            _count(one.prompt_tokens),
            _count(one.generated_tokens),
            _rate(one.generated_tokens, one.durations["generation"]),
            _count(one.cached_tokens),
            one.kind,
            relative_time(one.created_at, moment),
            *([one.replica or "-"] if places else []),
        )
        for one in found
    ]
    further = ("SENT TO",) if places else ()
    return table((*HEADERS, *further), rows, width=width, spare=(*SPARE[:2], *further, *SPARE[2:]))


def _count(tokens: int) -> str:
    return str(tokens or "")


def described(one: Explained, moment: datetime) -> str:
    """Sections with all that is known of a request."""
    ended = {"done": one.reason, "stopped": one.reason, "failed": f"failed: {one.reason}"}.get(one.state, one.state)
    asked = [
        ("id", one.id),
        ("model", one.model),
        ("asked for", f"{one.kind}, {relative_time(one.created_at, moment).lower()}"),
        ("end", ended),
        ("context length", str(one.context_length or "")),
        ("lies on", printable(one.placement)),
        ("answered by", printable(f"{one.replica}: {one.replica_reason}") if one.replica else ""),
        ("settings", "as measured by `tune`" if one.tuned else ""),
    ]
    text = section("Request", [row for row in asked if row[1]], cell_width=1 << 10)
    text += section("Time", list(_time_rows(one)), cell_width=1 << 10)
    tokens = list(_token_rows(one))
    text += section("Tokens", tokens, cell_width=1 << 10) if tokens else ""
    warnings = [(printable(warning.replace("_", " ")),) for warning in one.warnings]
    return text + (section("Warnings", warnings, cell_width=1 << 10) if warnings else "")


def _time_rows(one: Explained) -> Iterator[tuple[str, ...]]:
    """A row for each phase that took any time, with its share of the whole, and the whole."""
    total = one.durations["total"]
    spent = {phase: one.durations[phase] for phase in PHASES if phase != "rest"}
    spent["rest"] = max(0, total - sum(spent.values()))
    for phase, sentence in PHASES.items():
        share = min(1.0, spent[phase] / total) if total else 0.0
        if share >= 0.005:
            yield phase, duration_text(spent[phase]), f"{100 * share:.0f}%", sentence
    yield "total", duration_text(total)
    if first := one.durations["first_token"]:
        yield "first token", duration_text(first)


def _token_rows(one: Explained) -> Iterator[tuple[str, str]]:
    read = one.prompt_tokens - one.cached_tokens
    if one.prompt_tokens:
        rate = _rate(read, one.durations["prompt"])
        text = f"{one.prompt_tokens}, of which {one.cached_tokens} were cached and {read} read"
        yield "prompt", text + (f" at {rate} a second" if rate else "")
    if one.truncated_tokens:
        yield "left out", f"{one.truncated_tokens} of the prompt, to fit the context"
    if one.generated_tokens:
        rate = _rate(one.generated_tokens, one.durations["generation"])
        yield "answer", f"{one.generated_tokens}" + (f" at {rate} a second" if rate else "")
    if one.drafted_tokens:
        yield "speculation", f"{one.drafted_tokens} drafted, of which {one.accepted_tokens} were accepted"


def _rate(tokens: int, nanoseconds: int) -> str:
    return f"{tokens * 1e9 / nanoseconds:.1f}" if tokens > 0 and nanoseconds > 0 else ""


def duration_text(nanoseconds: int) -> str:
    """Milliseconds below a second, else seconds."""
    seconds = nanoseconds / 1e9
    if seconds >= 1:
        return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.1 else f"{seconds * 1e3:.0f} ms"
