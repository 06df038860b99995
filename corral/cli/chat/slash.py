"""The commands of a conversation, such as `/clear`: a table, and how a line finds its row. Source: spec cli §5.3.

What a command says is its answer; what it cannot do is said on standard error, and the conversation goes on.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import click

from corral.cli import connection
from corral.cli.chat import help_texts, models, settings, showing
from corral.cli.chat.session import Session
from corral.cli.display import terminal
from corral.cli.display.text import LAYOUT, printable
from corral.errors import CorralError


@dataclass(frozen=True, slots=True)
class SlashCommand:
    """A command that a line is when it begins with one of `prefixes`. `run` gets the whole line."""

    prefixes: tuple[str, ...]
    run: Callable[[Session, str], None]


def run(session: Session, line: str) -> None:
    """Runs the command that a line begins with, or says that there is none."""
    for command in COMMANDS:
        if line.startswith(command.prefixes):
            try:
                command.run(session, line)
            except CorralError as error:
                click.echo(f"error: {printable(str(error), keep=LAYOUT)}", err=True)
            return
    click.echo(f"Unknown command '{printable(line.split()[0])}'. Type /? for help")


def _list(session: Session, line: str) -> None:
    from corral.cli.commands.listing import models_table
    from corral.cli.display.units import now

    found = connection.connect().tags()
    words = line.split()[1:]
    click.echo(models_table(found, words[0] if words else "", now(), terminal.width(sys.stdout)), nl=False)


def _clear(session: Session, line: str) -> None:
    session.clear()
    click.echo("Cleared session context")


def _leave(session: Session, line: str) -> None:
    session.ended = True


def _help(session: Session, line: str) -> None:
    topic = "".join(line.split()[1:2]).removeprefix("/")
    help_texts.show(topic, sees_or_hears=session.subject.shown.sees_or_hears)


COMMANDS = (
    SlashCommand(("/list",), _list),
    SlashCommand(("/load",), models.load),
    SlashCommand(("/save",), models.save),
    SlashCommand(("/clear",), _clear),
    SlashCommand(("/set",), settings.set_),
    SlashCommand(("/show",), showing.show),
    SlashCommand(("/?", "/help"), _help),
    SlashCommand(("/bye", "/exit"), _leave),
)
"""No two have a prefix in common."""
