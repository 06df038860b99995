"""`show --prompt`: the prompt that a conversation amounts to, for those who write templates.

Which template writes it, what fits and what is left out is the server's to say.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

import click

from corral.cli import connection
from corral.cli.display.progress import spinning
from corral.cli.display.text import LAYOUT, printable
from corral.cli.framework.commands import program_name
from corral.cli.paths import typed_path
from corral.errors import BadRequest, CorralError, NotFound
from corral.messages import Rendered

STANDARD_INPUT = "-"

SAMPLE: Mapping[str, Any] = {
    "messages": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Why is the sky blue?"},
        {"role": "assistant", "content": "Because air scatters blue light more than red."},
        {"role": "user", "content": "And at sunset?"},
    ]
}
"""A conversation with a turn of each kind."""

TEMPLATES = {"go": "the Go template", "jinja": "the model's own (Jinja) template"}


def show_prompt(model: str, file: str | None = None) -> None:
    """Prints the prompt as it is on standard output, and a line about it on standard error."""
    asked = conversation(file)
    client = connection.connect()
    try:
        with spinning("rendering the prompt"):
            rendered = client.render(model, asked)
    except NotFound as error:
        if str(error).startswith("404 page"):
            raise CorralError(f'the server at "{client.address}" cannot show prompts: it is another program') from error
        raise
    terminal = sys.stdout.isatty()
    click.echo(printable(rendered.text, keep=LAYOUT) if terminal else rendered.text, nl=False)
    if terminal and sys.stderr.isatty() and not rendered.text.endswith("\n"):
        click.echo()
    click.echo(summary(rendered), err=True)


def summary(rendered: Rendered) -> str:
    """What there is to know of a prompt, in a line."""
    parts = [
        f"{rendered.tokens} tokens of a context of {rendered.context_length}",
        f"{rendered.messages} message{'s' * (rendered.messages != 1)}",
        f"{rendered.truncated_tokens} tokens left out to fit" if rendered.truncated_tokens else "nothing left out",
        f"rendered by {TEMPLATES[rendered.template]}",
    ]
    if rendered.images:
        parts.insert(1, f"{rendered.images} picture{'s' * (rendered.images != 1)} not counted")
    return ", ".join(parts)


def conversation(file: str | None) -> Mapping[str, Any]:
    """The members of a chat request: of a file, of standard input (`-`, or what is piped in), or else of a sample.

    `BadRequest` for what is neither a list of messages nor a chat request, `NotFound` for a file that is missing.
    """
    if file in (None, STANDARD_INPUT):
        text = b"" if file is None and sys.stdin.isatty() else sys.stdin.buffer.read()
        return _read(text, "standard input") if text.strip() or file else SAMPLE
    try:
        return _read(typed_path(file).read_bytes(), f'"{file}"')
    except FileNotFoundError:
        raise NotFound(f'no such file: "{file}"\n{_hint()}') from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadRequest(f'cannot read "{file}": {reason.lower()}\n{_hint()}') from error


def _read(data: bytes, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(data)
    except json.JSONDecodeError as error:
        place = f"{error.msg.lower()} in line {error.lineno}, column {error.colno}"
        raise BadRequest(f"{where} is no JSON: {place}\n{_hint()}") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise BadRequest(f"{where} is no JSON\n{_hint()}") from error
    messages = value.get("messages") if isinstance(value, dict) else value
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise BadRequest(f"{where} is neither a list of messages nor a chat request that has one\n{_hint()}")
    if not messages:
        raise BadRequest(f"{where} has no messages in it\n{_hint()}")
    return value if isinstance(value, dict) else {"messages": messages}


def _hint() -> str:
    example = """'[{"role": "user", "content": "Why?"}]'"""
    usage = f"echo {example} | {program_name()} show MODEL --prompt"
    return f"--prompt takes a conversation in JSON, from a file or piped: {usage}"
