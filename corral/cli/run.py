"""`run`: asks a model once, or opens a conversation with it; pulls it first when it is missing. Source: spec cli §4."""

import contextlib
import json
import sys
from contextlib import closing
from typing import Any, NamedTuple, cast

import click

from corral.cli import connection
from corral.cli.answer import Look, print_answer, timings_text
from corral.cli.framework.commands import Arguments, Count, command, program_name
from corral.cli.framework.flags import Flag
from corral.cli.transfer import INSECURE, fetch
from corral.client import Client
from corral.client.answers import Shown
from corral.errors import BadRequest, NotFound
from corral.golang import durations
from corral.messages import Think

LEVELS = ("high", "medium", "low", "max")

FLAGS = [
    Flag("--keepalive", kind="string", sentence="How long the model stays loaded afterwards (for example 5m)"),
    Flag("--verbose", kind="bool", sentence="Show timings for response"),
    Flag("--insecure", kind="bool", sentence=INSECURE),
    Flag("--nowordwrap", kind="bool", sentence="Don't wrap words to the next line automatically"),
    Flag("--format", kind="string", sentence="Response format: json, or a JSON Schema"),
    Flag(
        "--think",
        kind="string",
        bare="true",
        default=None,
        sentence="Whether the model thinks first: true or false, or how hard: high, medium, low, max",
    ),
    Flag("--hidethinking", kind="bool", sentence="Hide what the model thinks"),
    Flag("--truncate", kind="bool", default=None, sentence="Embedding models: cut inputs that are too long"),
    Flag("--dimensions", kind="int", sentence="Embedding models: length of the vector"),
]


class Wishes(NamedTuple):
    """What the flags ask of the model."""

    format: Any
    think: Think
    keep_alive: float | None


@command(
    "run MODEL [PROMPT]",
    "Run a model",
    count=Count(least=1),
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
) -> None:
    wishes = Wishes(format_wish(format), think_wish(think), keep_alive_wish(keepalive))
    look = Look(wrap=not nowordwrap, hide_thinking=hidethinking, verbose=verbose)
    model, *words = arguments
    prompt = " ".join([*_piped_text(), *words])
    interactive = not words and sys.stdin.isatty() and sys.stdout.isatty()

    client = connection.connect()
    shown = _shown(client, model, insecure=insecure)
    if wishes.think is None and "thinking" in shown.capabilities:
        wishes = wishes._replace(think=True)
    if "embedding" in shown.capabilities:
        _embed(client, model, prompt, truncate, dimensions, wishes.keep_alive)
    elif "image" in shown.capabilities:
        raise BadRequest("image generation models are not currently supported")
    elif interactive:
        _converse(client, model, shown, wishes, look)
    else:
        with contextlib.suppress(KeyboardInterrupt):
            _ask(client, model, shown, prompt, wishes, look)


def format_wish(text: str) -> Any:
    """`json` or a JSON Schema; None when nothing is asked."""
    if not text:
        return None
    if text == "json":
        return text
    try:
        wish = json.loads(text)
    except (ValueError, RecursionError):
        wish = None
    if not isinstance(wish, dict):
        raise BadRequest(f'invalid format "{text}": it must be json or a JSON Schema, an object')
    return wish


def think_wish(text: str | None) -> Think:
    match text:
        case None:
            return None
        case "true":
            return True
        case "false":
            return False
        case _ if text in LEVELS:
            return cast(Think, text)
    raise BadRequest(f'invalid value for --think: "{text}" (must be true, false, high, medium, low, or max)')


def keep_alive_wish(text: str) -> float | None:
    """A Go duration in seconds; a negative one is for ever."""
    if not text:
        return None
    nanoseconds = durations.parse(text)
    return float("inf") if nanoseconds < 0 else nanoseconds / durations.SECOND


def _piped_text() -> list[str]:
    """What is piped in, when something is."""
    if sys.stdin.isatty():
        return []
    text = sys.stdin.buffer.read().decode("utf-8", "replace")
    return [text] if text else []


def _shown(client: Client, model: str, *, insecure: bool) -> Shown:
    try:
        return client.show(model)
    except NotFound:
        fetch(client, model, insecure=insecure)
        return client.show(model)


def _ask(client: Client, model: str, shown: Shown, prompt: str, wishes: Wishes, look: Look) -> None:
    files: tuple[bytes, ...] = ()
    if shown.sees_or_hears:
        from corral.cli.attachments import attach

        attached = attach(prompt)
        prompt, files = attached.prompt, attached.files
        for note in attached.notes:
            click.echo(note, err=True)
    chunks = client.generate(
        model,
        prompt,
        system=shown.system,
        images=files,
        format=wishes.format,
        think=wishes.think,
        keep_alive=wishes.keep_alive,
    )
    answer = print_answer(chunks, look)
    if prompt:
        click.echo("\n")
    if look.verbose and answer.metrics:
        click.echo(timings_text(answer.metrics), nl=False, err=True)


def _embed(
    client: Client, model: str, text: str, truncate: bool | None, dimensions: int, keep_alive: float | None
) -> None:
    if not text:
        usage = f'{program_name()} run <model> "your text here"'
        raise BadRequest(f"embedding models require input text. Usage: {usage}")
    vectors = client.embed(model, [text], truncate=truncate, dimensions=dimensions, keep_alive=keep_alive)
    for vector in vectors[:1]:
        click.echo(json.dumps(vector, separators=(",", ":")))


def _converse(client: Client, model: str, shown: Shown, wishes: Wishes, look: Look) -> None:
    from corral.cli.display.progress import spinning
    from corral.cli.repl import Conversation

    with spinning("loading the model"), closing(client.generate(model, keep_alive=wishes.keep_alive)) as loading:
        for _ in loading:
            pass
    Conversation(model, shown, wishes, look).run()
