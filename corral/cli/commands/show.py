"""`show`: what is known of a model, as sections or one part of it alone. Source: spec cli §2.4 and §3.3.

Its `--prompt` is an addition of ours, in `show_prompt`.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from corral.cli import connection
from corral.cli.display.tables import print_table, section
from corral.cli.display.text import LAYOUT, printable, text_width
from corral.cli.framework.commands import Arguments, Count, command, program_name
from corral.cli.framework.flags import Flag
from corral.client.answers import DerivedFiles, Needs, Shown, Upstream
from corral.errors import BadRequest
from corral.golang.units import byte_text, count_text

Rows = Sequence[Sequence[str]]

TEXT_WIDTH = 100
"""Columns at which the lines of the System and License sections are wrapped."""
LEAST_TEXT_WIDTH = 20
INDENT = 4
ARRAY_WIDTH = 10

PROMPT = "Show the prompt of a conversation: of a JSON file (- is standard input), a piped one, or a sample"
PARTS = ("license", "modelfile", "parameters", "system", "template")


@command(
    "show MODEL",
    "Show information for a model",
    count=Count(),
    completes=("models",),
    flags=[
        *(Flag(f"--{part}", kind="bool", sentence=f"Show only the model's {part}") for part in PARTS),
        Flag("--prompt", kind="string", bare="", default=None, sentence=PROMPT, files=True),
        Flag("--verbose", "-v", kind="bool", sentence="Show every key of the model file and its tensors too"),
    ],
)
def show(arguments: Arguments, verbose: bool, prompt: str | None, **parts: bool) -> None:
    # A bare --prompt may be followed by its file, wherever MODEL stands: `show MODEL --prompt FILE`.
    (Count(least=1, most=2) if prompt == "" else Count(exact=1)).check(len(arguments))
    wanted = [part for part in PARTS if parts[part]]
    if len(wanted) > 1:
        names = ", ".join(f"'--{part}'" for part in PARTS[:-1])
        raise BadRequest(f"only one of {names}, or '--{PARTS[-1]}' can be specified")
    if prompt is not None:
        if wanted:
            raise BadRequest(f"only one of '--prompt' and '--{wanted[0]}' can be specified")
        from corral.cli.commands.show_prompt import show_prompt

        show_prompt(arguments[0], *([prompt] if prompt else arguments[1:]))
        return
    shown = connection.connect().show(arguments[0], verbose=verbose, requirements=True)
    if not wanted:
        memory = program_name() != "ollama"
        print_table(sections_text(shown, verbose=verbose, memory=memory, text_columns=_text_columns()))
        return
    text: str = getattr(shown, wanted[0])
    if sys.stdout.isatty():
        text = printable(text, keep=LAYOUT)
    click.echo(text, nl=wanted[0] not in ("system", "template"))


def _text_columns() -> int:
    """Where lines of texts are wrapped: on a narrow terminal, where it ends."""
    if not sys.stdout.isatty():
        return TEXT_WIDTH
    from corral.cli.display import terminal

    return max(LEAST_TEXT_WIDTH, min(TEXT_WIDTH, terminal.size(sys.stdout)[0] - INDENT))


def sections_text(shown: Shown, *, verbose: bool = False, memory: bool = True, text_columns: int = TEXT_WIDTH) -> str:
    """The sections that a model has something for, and a blank line; `memory`: also what it takes here.

    The lines of the system text and of the license are wrapped at `text_columns`.
    """
    sections = [section("Model", list(_model_rows(shown)))]
    if shown.capabilities:
        sections.append(section("Capabilities", [(name,) for name in shown.capabilities]))
    if shown.projector_info:
        sections.append(section("Projector", list(_projector_rows(shown.projector_info))))
    if shown.parameters:
        sections.append(section("Parameters", [line.split() for line in shown.parameters.splitlines()]))
    if verbose and shown.model_info:
        rows: Rows = [(key, value_text(value)) for key, value in sorted(shown.model_info.items())]
        sections.append(section("Metadata", rows))
    if verbose and shown.tensors:
        rows = [(name, kind, f"[{' '.join(map(str, shape))}]") for name, kind, shape in shown.tensors]
        sections.append(section("Tensors", rows))
    for title, text in (("System", shown.system), ("License", shown.license)):
        if text:
            sections.append(section(title, [(line,) for line in _first_lines(text)], cell_width=text_columns))
    if memory and shown.needs is not None:
        sections.append(section("Memory", _memory_rows(shown.needs)))
    if memory and shown.upstreams:
        rows = [_upstream_row(one) for one in shown.upstreams]
        sections.append(section("Other servers", rows, cell_width=text_columns))
    if memory and shown.derived is not None:
        sections.append(section("Derived file", _derived_rows(shown.derived)))
    return "".join(sections)


def _upstream_row(one: Upstream) -> tuple[str, str, str]:
    """Where it is, what it calls the model, and what is wrong with it, which need not name it again."""
    return one.url, one.model, re.sub(r'^upstream "[^"]*" ', "", one.error)


def _model_rows(shown: Shown) -> Iterator[tuple[str, str]]:
    """Of a model of other servers only what these say."""
    rows = _known_rows(shown)
    if not shown.remote_model:
        yield from rows
        return
    yield "Remote model", shown.remote_model
    yield "Remote URL", shown.remote_host
    yield from ((title, text) for title, text in rows if text and (title, text) != ("architecture", "remote"))


def _known_rows(shown: Shown) -> Iterator[tuple[str, str]]:
    info, details = shown.model_info, shown.details
    architecture = str(info.get("general.architecture") or details.get("family") or "")
    yield "architecture", architecture
    count = _count(info)
    yield "parameters", str(details.get("parameter_size") or "") if count is None else count_text(count)
    for title, key in (("context length", "context_length"), ("embedding length", "embedding_length")):
        if (length := info.get(f"{architecture}.{key}", details.get(key))) is not None:
            yield title, str(length)
    yield "quantization", str(details.get("quantization_level") or "")
    if shown.requires:
        yield "requires", shown.requires


def _memory_rows(needs: Needs) -> Rows:
    """What the model takes when it is loaded here."""
    cache = [(f"context of {needs.context_length} tokens", byte_text(needs.kv_cache))] if needs.kv_cache else []
    return [("weights", byte_text(needs.weights)), *cache, ("total", byte_text(needs.total))]


def _derived_rows(derived: DerivedFiles) -> Rows:
    """What the engine is given instead of the model's own file."""
    if not derived.made:
        return [("size", byte_text(derived.size)), ("made", "when the model is loaded first")]
    return [("size", byte_text(derived.size)), ("on the disk", byte_text(derived.disk))]


def _projector_rows(info: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    kind = info.get("general.architecture", "")
    yield "architecture", str(kind)
    if (count := _count(info)) is not None:
        yield "parameters", count_text(count)
    for title, key in (("embedding length", "embedding_length"), ("dimensions", "projection_dim")):
        if (length := info.get(f"{kind}.vision.{key}")) is not None:
            yield title, str(length)


def _count(info: Mapping[str, Any]) -> int | None:
    count = info.get("general.parameter_count")
    return count if isinstance(count, int) and 0 <= count < 1 << 63 else None


def _first_lines(text: str) -> list[str]:
    """The first two lines that are not blank, and a mark when there are more."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return [*lines[:2], "..."] if len(lines) > 2 else lines


def value_text(value: Any) -> str:
    """A value of a model file; arrays end in how many more items there are."""
    if not isinstance(value, list):
        return _scalar_text(value)
    items: list[str] = []
    for item in value:
        text = _scalar_text(item)
        if items and text_width(" ".join([*items, text])) > ARRAY_WIDTH:
            break
        items.append(text)
    more = len(value) - len(items)
    return f"[{' '.join(items)}{f' ...+{more} more' if more else ''}]"


def _scalar_text(value: Any) -> str:
    from corral.golang.text import number_text

    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case int() | float() if abs(value) < 1e300:
            return number_text(value)
        case _:
            return str(value)
