"""`run`: asks a model once, or opens a conversation with it; pulls it first when it is missing. Source: spec cli §4."""

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from corral import names
from corral.cli import connection
from corral.cli.chat.answer import print_answer, timings_text
from corral.cli.chat.options import DisplayOptions, RunOptions, parse_format, parse_keep_alive, parse_think
from corral.cli.commands.transfer import INSECURE, fetch, model_file, name_of, pull_file
from corral.cli.display import terminal
from corral.cli.display.text import printable
from corral.cli.framework.commands import Arguments, Count, command, program_name
from corral.cli.framework.flags import Flag
from corral.client import Client
from corral.client.answers import Shown
from corral.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from corral.cli.chat.attachments import Attached

FLAGS = [
    Flag("--keepalive", kind="string", sentence="How long the model stays loaded afterwards (for example 5m)"),
    Flag("--verbose", kind="bool", sentence="Show timings for response"),
    Flag("--insecure", kind="bool", sentence=INSECURE),
    Flag("--markdown", kind="bool", sentence="Show headings, lists, tables and code of answers formatted"),
    Flag("--nowordwrap", kind="bool", sentence="Don't wrap words to the next line automatically"),
    Flag(
        "--format",
        kind="string",
        sentence="Response format: json, a JSON Schema, or the path of a file with one",
        values=("json",),
        files=True,
    ),
    Flag(
        "--think",
        kind="string",
        bare="true",
        default=None,
        sentence="Whether the model thinks first: true or false, or how hard: high, medium, low, max",
        values=("true", "false", "high", "medium", "low", "max"),
    ),
    Flag("--hidethinking", kind="bool", sentence="Hide what the model thinks"),
    Flag("--truncate", kind="bool", default=None, sentence="Embedding models: cut inputs that are too long"),
    Flag("--dimensions", kind="int", sentence="Embedding models: length of the vector"),
]


@command(
    "run MODEL [PROMPT]",
    "Run a model",
    count=Count(least=1),
    completes=("models",),
    flags=FLAGS,
    settings=("editor", "host", "no_history"),
)
def run(
    arguments: Arguments,
    keepalive: str,
    verbose: bool,
    insecure: bool,
    nowordwrap: bool,
    format: str,
    think: str | None,
    hidethinking: bool,
    truncate: bool | None,
    dimensions: int,
    markdown: bool,
) -> None:
    options = RunOptions(parse_format(format), parse_think(think), parse_keep_alive(keepalive))
    display = DisplayOptions(wrap=not nowordwrap, hide_thinking=hidethinking, verbose=verbose, markdown=markdown)
    model, *words = arguments
    piped = _piped_text()
    typed = " ".join(words)
    prompt = " ".join([*piped, *words])
    interactive = not words and sys.stdin.isatty() and sys.stdout.isatty()

    file = model_file(model)
    if file is None:
        names.parse_reference(model)  # what no model can be called starts no server
    client = connection.connect()
    if file is not None:
        model = _taken(client, file)
    shown = _shown(client, model, insecure=insecure)
    if "embedding" in shown.capabilities:
        _embed(client, model, prompt, truncate, dimensions, options.keep_alive)
    elif "image" in shown.capabilities:
        raise BadRequest("image generation models are not currently supported")
    elif interactive:
        _converse(model, shown, options, display)
    else:
        if options.think is None and "thinking" in shown.capabilities:
            options = replace(options, think=True)
        try:
            _ask(client, model, shown, _attached(prompt, typed, shown), options, display)
        except KeyboardInterrupt:
            if terminal.can_draw(sys.stdout):
                click.echo()  # the shell's prompt begins a line


def _piped_text() -> list[str]:
    """What is piped in, when something is."""
    if sys.stdin.isatty():
        return []
    text = sys.stdin.buffer.read().decode("utf-8", "replace")
    return [text] if text else []


def _taken(client: Client, file: Path) -> str:
    """The name of the model that a file is, which is pulled unless there is one of that name."""
    name = name_of(file)
    try:
        client.show(name)
    except NotFound:
        pull_file(client, file, name)
    else:
        click.echo(f"'{name}' is there already; `{program_name()} pull` takes the file anew", err=True)
    return name


def _shown(client: Client, model: str, *, insecure: bool) -> Shown:
    try:
        return client.show(model)
    except NotFound:
        fetch(client, model, insecure=insecure)
        return client.show(model)


def _attached(prompt: str, typed: str, shown: Shown) -> "Attached":
    """The prompt with the files that it names; what was done with them goes to standard error."""
    from corral.cli.chat.attachments import attach

    attached = attach(prompt, media=shown.sees_or_hears, typed=typed)
    for note in attached.notes:
        click.echo(printable(note), err=True)
    return attached


def _ask(
    client: Client, model: str, shown: Shown, attached: "Attached", options: RunOptions, display: DisplayOptions
) -> None:
    chunks = client.generate(
        model,
        attached.prompt,
        system=shown.system,
        images=attached.files,
        format=options.format,
        think=options.think,
        keep_alive=options.keep_alive,
        progress=terminal.can_draw(sys.stderr) or display.verbose,
    )
    with _quiet_keyboard(display):
        answer = print_answer(chunks, display)
    if attached.prompt or attached.files:
        click.echo("\n")
    if display.verbose and answer.metrics:
        click.echo(timings_text(answer.metrics), nl=False, err=True)


def _quiet_keyboard(display: DisplayOptions) -> contextlib.AbstractContextManager[object]:
    """Keeps what is typed meanwhile, for the shell, out of an answer that is drawn again as it grows."""
    if not (display.markdown and sys.stdin.isatty() and terminal.can_draw(sys.stdout)):
        return contextlib.nullcontext()
    from corral.cli.chat import keyboard

    return keyboard.quiet()


def _embed(
    client: Client, model: str, text: str, truncate: bool | None, dimensions: int, keep_alive: float | None
) -> None:
    if not text:
        usage = f'{program_name()} run <model> "your text here"'
        raise BadRequest(f"embedding models require input text. Usage: {usage}")
    vectors = client.embed(model, [text], truncate=truncate, dimensions=dimensions, keep_alive=keep_alive)
    for vector in vectors[:1]:
        click.echo(json.dumps(vector, separators=(",", ":")))


def _converse(model: str, shown: Shown, options: RunOptions, display: DisplayOptions) -> None:
    from corral.cli.chat.repl import converse
    from corral.cli.chat.session import Session, Subject

    converse(Session(Subject(model, shown), options, display))
